"""Runs in a process of its own, with whichever Caffe is on its path: nets, forward and backward.

python run_layers.py FOLDER [look]    of each net in it, NET.prototxt, every blob, gradient and
                                      gradient of a parameter, in NET.prototxt.npz

Of two passes, those of the second; with `look`, it reads all blobs after the first one, too.
"""

import sys
from pathlib import Path

import caffe
import numpy as np

caffe.set_mode_cpu()
for net_file in Path(sys.argv[1]).glob("*.prototxt"):
    caffe.set_random_seed(1)
    net = caffe.Net(str(net_file), caffe.TRAIN)
    random = np.random.default_rng(1)
    for name in net.inputs:
        net.blobs[name].data[...] = random.standard_normal(net.blobs[name].shape)
    for number in range(2):
        caffe.set_random_seed(number)
        net.forward()
        for name in net.outputs:
            net.blobs[name].diff[...] = random.standard_normal(net.blobs[name].shape)
        net.clear_param_diffs()
        net.backward()
        if "look" in sys.argv:
            looked = [blob.data.sum() + blob.diff.sum() for blob in net.blobs.values()]
    arrays = {f"{name} data": blob.data for name, blob in net.blobs.items()}
    arrays |= {f"{name} diff": blob.diff for name, blob in net.blobs.items()}
    arrays |= {
        f"{name} gradient {i}": blob.diff
        for name, blobs in net.params.items()
        for i, blob in enumerate(blobs)
    }
    np.savez(f"{net_file}.npz", **arrays)
