"""Reading solver and net prototxt files, and checking them before Caffe aborts on them.

The message classes are those of the patched Caffe that is built, loaded without
importing caffe itself.
"""

import difflib
import importlib.util
import re
import sys
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from google.protobuf import text_format

from caffe_clr import policies
from caffe_clr.errors import ClrError

SOLVER_TYPES = ("SGD", "Nesterov", "AdaGrad", "RMSProp", "AdaDelta", "Adam")

_PB2 = "caffe.proto.caffe_pb2"
_GENERIC_NETS = ("net", "net_param")
_TRAIN_NETS = (*_GENERIC_NETS, "train_net", "train_net_param")
# how protobuf ends its message on a field or a value that its message or enum has not
_UNKNOWN = re.compile(r'"(caffe\.[\w.]+)" has no (field|value) named "?(\w+)"?\.?$')


class Net(NamedTuple):
    """A net of a solver.

    Attributes:
        name: its file, or the field of the solver that holds it.
        parameter: its NetParameter, with the layers that its state includes.
    """

    name: str
    parameter: Any


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


def read_solver(path: Path, *, check_policy: bool = True) -> Any:
    """The SolverParameter in a solver prototxt.

    Args:
        check_policy: false for a solver whose bounds or stepsize are still to be found.

    Raises:
        ClrError: the file cannot be read, is not a solver prototxt, or asks for
            a policy that patched Caffe would refuse; says where and why.
    """
    solver = _read(path, "SolverParameter")
    if check_policy:
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
        hint = ""
        if solver.lr_policy not in policies.POLICIES:
            hint = did_you_mean(solver.lr_policy, policies.POLICIES)
        raise ClrError(f"{name}: {error}{hint}") from None


def solver_type(solver: Any) -> str:
    """The type of a SolverParameter; the deprecated solver_type translated, as Caffe does."""
    if not solver.HasField("solver_type"):
        return str(solver.type)
    names = {solver_type.upper(): solver_type for solver_type in SOLVER_TYPES}
    return names[caffe_pb2().SolverParameter.SolverType.Name(solver.solver_type)]


class SolverFile:
    """A solver and the nets that it names, each of which is read once, when it is asked for.

    Attributes:
        parameter: its SolverParameter.
        name: what to call it: its file.
    """

    def __init__(self, parameter: Any, name: str = "solver") -> None:
        self.parameter = parameter
        self.name = name
        self._files: dict[str, Any] = {}

    @cached_property
    def train_net(self) -> Net:
        """The net that it trains (Solver::InitTrainNet in Caffe's solver.cpp).

        Raises:
            ClrError: there is no net or several, or its file cannot be used.
        """
        fields = [field for field in _TRAIN_NETS if self.parameter.HasField(field)]
        if not fields:
            raise ClrError(f"{self.name}: no net to train; name its file with net")
        if len(fields) > 1:
            given = " and ".join(fields)
            raise ClrError(f"{self.name}: {given} each give a net to train; keep one")
        source, net = self._source(fields[0])
        return _net_in_state(source, net, "TRAIN", self.parameter.train_state)

    @cached_property
    def test_nets(self) -> list[Net]:
        """The nets that it tests, in Caffe's order (Solver::InitTestNets).

        Those are test_net_param, then test_net, then net or net_param once for
        each test_iter that is left.

        Raises:
            ClrError: the numbers of test_iter or test_state do not fit that of
                nets, or a file cannot be used.
        """
        solver, name = self.parameter, self.name
        sources = [(f"{name}: test_net_param", net) for net in solver.test_net_param]
        sources += [(file, self._read("test_net", file)) for file in solver.test_net]
        given, needed = len(solver.test_iter), len(sources)
        generic = [field for field in _GENERIC_NETS if solver.HasField(field)]
        if given < needed or (given > needed and not generic):
            raise ClrError(f"{name}: {needed} test nets, {given} test_iter; give each net one")
        if given > needed:
            sources += [self._source(generic[0])] * (given - needed)
        states = list(solver.test_state) or [caffe_pb2().NetState()] * given
        if len(states) != given:
            raise ClrError(
                f"{name}: {given} test nets, {len(states)} test_state; give each net one, or none"
            )
        return [
            _net_in_state(source, net, "TEST", state)
            for (source, net), state in zip(sources, states, strict=True)
        ]

    def _source(self, field: str) -> tuple[str, Any]:
        """What to call the net in a field, and its NetParameter."""
        value = getattr(self.parameter, field)
        if isinstance(value, str):
            return value, self._read(field, value)
        return f"{self.name}: {field}", value

    def _read(self, field: str, file: str) -> Any:
        if file not in self._files:
            if not Path(file).exists():
                reason = f"cannot be read: No such file or directory{looked_for(file)}"
                raise ClrError(f"{self.name}: {field}: {file}: {reason}")
            if Path(file).is_fifo():
                raise ClrError(
                    f"{self.name}: {field}: {file} is a pipe, but is read twice; name a file"
                )
            self._files[file] = read_net(Path(file))
        return self._files[file]


def open_solver(path: Path, *, check_policy: bool = True) -> SolverFile:
    """The solver in a prototxt, with its nets to come; arguments and errors as of read_solver."""
    return SolverFile(read_solver(path, check_policy=check_policy), str(path))


def read_net(path: Path) -> Any:
    """The NetParameter in a net prototxt.

    Raises:
        ClrError: the file cannot be read or is not a net prototxt.
    """
    return _read(path, "NetParameter")


def did_you_mean(wrong: str, names: Iterable[str]) -> str:
    """The end of a message on an unknown name: the closest of `names`, or nothing.

    >>> did_you_mean("lmdb", ["LEVELDB", "LMDB"])
    '; did you mean "LMDB"?'
    """
    by_lower_case = {name.lower(): name for name in names}
    closest = difflib.get_close_matches(wrong.lower(), by_lower_case, 1)
    return f'; did you mean "{by_lower_case[closest[0]]}"?' if closest else ""


def looked_for(path: str) -> str:
    """The end of a message on a file that is missing: where a relative path was looked for."""
    return "" if Path(path).is_absolute() else f" (looked for in {Path.cwd()})"


def check_file(file: str, where: str) -> None:
    """Refuse a file that is not there, named at `where`."""
    if not Path(file).is_file():
        raise ClrError(f"{where}: there is no file {file}{looked_for(file)}")


def _net_in_state(source: str, net: Any, phase: str, state_of_solver: Any) -> Net:
    """A net with the layers that its state includes (Net::FilterNet in Caffe's net.cpp)."""
    state = caffe_pb2().NetState(phase=phase)
    state.MergeFrom(net.state)
    state.MergeFrom(state_of_solver)
    parameter = caffe_pb2().NetParameter()
    parameter.CopyFrom(net)
    del parameter.layer[:]
    for layer in net.layer:
        if layer.include and layer.exclude:
            raise ClrError(f'{source}: layer "{layer.name}": has include and exclude; keep one')
        if layer.include:
            included = any(_meets(state, rule) for rule in layer.include)
        else:
            included = not any(_meets(state, rule) for rule in layer.exclude)
        if included:
            parameter.layer.append(layer)
    return Net(source, parameter)


def _meets(state: Any, rule: Any) -> bool:
    """Net::StateMeetsRule."""
    return (
        (not rule.HasField("phase") or bool(state.phase == rule.phase))
        and (not rule.HasField("min_level") or bool(state.level >= rule.min_level))
        and (not rule.HasField("max_level") or bool(state.level <= rule.max_level))
        and set(rule.stage) <= set(state.stage)
        and set(rule.not_stage).isdisjoint(state.stage)
    )


def _read(path: Path, message: str) -> Any:
    parameter = getattr(caffe_pb2(), message)()
    try:
        return text_format.Parse(path.read_text(), parameter)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise ClrError(f"{path}: cannot be read: {reason}") from None
    except text_format.ParseError as error:
        raise ClrError(f"{path}:{_place_and_reason(error)}") from None


def _place_and_reason(error: text_format.ParseError) -> str:
    """LINE:COLUMN: and what is wrong there, both counted from 1."""
    line, column = error.GetLine(), error.GetColumn()
    if line is None:
        return f" {error}"
    reason = str(error).removeprefix(f"{line}:{column} : ")
    return f"{line}:{column}: {_unknown_name(reason) or reason}"


def _unknown_name(reason: str) -> str | None:
    """Protobuf's reason, if it is an unknown field or enum value, with the closest name."""
    unknown = _UNKNOWN.search(reason)
    if unknown is None:
        return None
    type_name, kind, name = unknown.groups()
    pool = caffe_pb2().DESCRIPTOR.pool
    if kind == "field":
        names = pool.FindMessageTypeByName(type_name).fields_by_name
    else:
        names = pool.FindEnumTypeByName(type_name).values_by_name
    hint = did_you_mean(name, names)
    if kind == "value" and not hint:
        hint = f"; use one of {', '.join(names)}"
    return f'{type_name.removeprefix("caffe.")} has no {kind} "{name}"{hint}'
