"""The method of the paper: range test, bounds, schedule, comparison, and their plots."""
