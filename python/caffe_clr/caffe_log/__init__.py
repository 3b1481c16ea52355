"""Reads logs of `caffe train`, from any build."""
