"""Fetches, patches, compiles and installs Caffe for this Python environment.

`pipeline.build` runs the steps; each module does one of them.
"""
