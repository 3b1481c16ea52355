"""Reads logs of `caffe train`, of any build."""
