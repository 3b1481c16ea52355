"""Reading solver and net prototxt files, and checking them before Caffe aborts on them.

The message classes are those of the patched Caffe that is built, loaded without
importing caffe itself.
"""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from google.protobuf import text_format

from caffe_clr import policies
from caffe_clr.errors import ClrError

_PB2 = "caffe.proto.caffe_pb2"


def caffe_pb2() -> ModuleType:
    """The module caffe.proto.caffe_pb2 of the patched Caffe.

    It is entered into sys.modules under its own name, where a later `import
    caffe` finds it: protobuf refuses to load it a second time.

    Raises:
        ClrError: no Caffe can be imported, or one without the policies' fields.
    """
    if _PB2 in sys.modules:
        return sys.modules[_PB2]
    caffe = importlib.util.find_spec("caffe")
    if caffe is None or not caffe.submodule_search_locations:
        raise ClrError("no Caffe in this Python environment: run `caffe-clr build` first")
    path = Path(caffe.submodule_search_locations[0]) / "proto" / "caffe_pb2.py"
    spec = importlib.util.spec_from_file_location(_PB2, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except FileNotFoundError:
        raise ClrError(f"{path} is missing: run `caffe-clr build` again") from None
    if "max_lr" not in module.SolverParameter.DESCRIPTOR.fields_by_name:
        raise ClrError(f"{path.parent.parent} is a Caffe without the patch: run `caffe-clr build`")
    sys.modules[_PB2] = module
    return module


def read_solver(path: Path) -> Any:
    """The SolverParameter in a solver prototxt, its policy checked.

    Raises:
        ClrError: the file cannot be read, is not a solver prototxt, or asks for
            a policy that patched Caffe would refuse; says where and why.
    """
    solver = _read(path, "SolverParameter")
    check_solver(solver, str(path))
    return solver


def check_solver(solver: Any, name: str = "solver") -> None:
    """Refuse a SolverParameter whose policy patched Caffe would refuse.

    Raises:
        ClrError: says which field of `name` is wrong, its value and the remedy.
    """
    try:
        policies.learning_rate(solver, 0)
    except ValueError as error:
        raise ClrError(f"{name}: {error}") from None


def read_net(path: Path) -> Any:
    """The NetParameter in a net prototxt.

    Raises:
        ClrError: the file cannot be read or is not a net prototxt.
    """
    return _read(path, "NetParameter")


def _read(path: Path, message: str) -> Any:
    parameter = getattr(caffe_pb2(), message)()
    try:
        return text_format.Parse(path.read_text(), parameter)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise ClrError(f"{path}: cannot be read: {reason}") from None
    except text_format.ParseError as error:
        raise ClrError(f"{path}:{error}") from None
