"""What is known before a run: the checks that come before Caffe, and the advice."""
