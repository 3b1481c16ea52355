"""Measures this build side by side with stock Caffe and PyTorch: `python -m benchmarks`."""
