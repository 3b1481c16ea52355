"""The machine: its processors, its files and archives, and the Caffe installed on it."""
