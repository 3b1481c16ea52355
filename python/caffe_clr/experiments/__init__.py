"""The data sets and the nets of the paper's experiments."""
