"""What the package asks of the machine: its processors, the Caffe on it, archives."""
