"""A training: the process that trains, its folder, and what it records."""
