"""Cyclical learning rates (CLR) for BVLC Caffe.

The paper is L. N. Smith, "Cyclical Learning Rates for Training Neural
Networks", arXiv 1506.01186. `caffe_clr.policies` is the NumPy reference of the
rates, `caffe_clr.runs.training` drives pycaffe, and `caffe_clr.harness` builds the
patched Caffe.
"""
