"""A SolverParameter for an environment without Caffe.

It has the fields of the patched Caffe, but not those of the layers of a net in it.
"""

from functools import cache
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.descriptor_pb2 import FieldDescriptorProto as Field

LAYER = "caffe.LayerParameter"  # has no fields
_PACKAGE = "caffe"
_ENUMS = {
    "SolverParameter.SolverMode": ["CPU", "GPU"],
    "SolverParameter.SnapshotFormat": ["HDF5", "BINARYPROTO"],
    "SolverParameter.SolverType": ["SGD", "NESTEROV", "ADAGRAD", "RMSPROP", "ADADELTA", "ADAM"],
    "Phase": ["TRAIN", "TEST"],
}
# name, number, type (with a star if repeated), default
_FIELDS = {
    "LayerParameter": "",
    "NetParameter": """
        name 1 string
        layers 2 LayerParameter*
        input 3 string*
        layer 100 LayerParameter*
    """,
    "NetState": """
        phase 1 Phase TEST
        level 2 int32 0
        stage 3 string*
    """,
    "SolverParameter": """
        train_net 1 string
        test_net 2 string*
        test_iter 3 int32*
        test_interval 4 int32 0
        base_lr 5 float
        display 6 int32
        max_iter 7 int32
        lr_policy 8 string
        gamma 9 float
        power 10 float
        momentum 11 float
        weight_decay 12 float
        stepsize 13 int32
        snapshot 14 int32 0
        snapshot_prefix 15 string
        snapshot_diff 16 bool false
        solver_mode 17 SolverParameter.SolverMode GPU
        device_id 18 int32 0
        test_compute_loss 19 bool false
        random_seed 20 int64 -1
        train_net_param 21 NetParameter
        test_net_param 22 NetParameter*
        debug_info 23 bool false
        net 24 string
        net_param 25 NetParameter
        train_state 26 NetState
        test_state 27 NetState*
        snapshot_after_train 28 bool true
        regularization_type 29 string L2
        solver_type 30 SolverParameter.SolverType SGD
        delta 31 float 1e-8
        test_initialization 32 bool true
        average_loss 33 int32 1
        stepvalue 34 int32*
        clip_gradients 35 float -1
        iter_size 36 int32 1
        snapshot_format 37 SolverParameter.SnapshotFormat BINARYPROTO
        rms_decay 38 float 0.99
        momentum2 39 float 0.999
        type 40 string SGD
        layer_wise_reduce 41 bool true
        weights 42 string*
        start_lr_policy 43 int32 0
        max_lr 44 float
        cyclical_momentum 45 float*
    """,
}


@cache
def message_class() -> Any:
    """The message class. Its pool is its own: protobuf refuses to load caffe.proto twice."""
    file = descriptor_pb2.FileDescriptorProto(name="solver.proto", package=_PACKAGE)
    messages = {name: file.message_type.add(name=name) for name in _FIELDS}
    for name, values in _ENUMS.items():
        owner, _, own = name.rpartition(".")
        enum = (messages[owner] if owner else file).enum_type.add(name=own)
        for number, value in enumerate(values):
            enum.value.add(name=value, number=number)
    for name, fields in _FIELDS.items():
        for line in fields.strip().splitlines():
            _add(messages[name], *line.split())
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    found = pool.FindMessageTypeByName(f"{_PACKAGE}.SolverParameter")
    return message_factory.GetMessageClass(found)


def _add(message: Any, name: str, number: str, kind: str, default: str | None = None) -> None:
    """Add a field to a DescriptorProto."""
    field = message.field.add(name=name, number=int(number), label=Field.LABEL_OPTIONAL)
    if kind.endswith("*"):
        field.label, kind = Field.LABEL_REPEATED, kind.removesuffix("*")
    if kind in _ENUMS or kind in _FIELDS:
        field.type_name = f".{_PACKAGE}.{kind}"
    else:
        field.type = Field.Type.Value(f"TYPE_{kind.upper()}")
    if default is not None:
        field.default_value = default
