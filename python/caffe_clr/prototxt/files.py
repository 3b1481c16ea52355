"""Reads solver and net prototxt files, as Caffe reads them.

The message classes are those of the patched Caffe that is built, loaded without
importing caffe itself. Where there is none, solvers are read nevertheless.
"""

import difflib
import importlib.util
import os
import re
import sys
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from subprocess import CalledProcessError
from types import ModuleType
from typing import Any, NamedTuple

from google.protobuf import text_format

from caffe_clr.errors import ClrError, command
from caffe_clr.prototxt.solver_message import LAYER, message_class
from caffe_clr.prototxt.text_parser import TextError, parse
from caffe_clr.system import installed_caffe

SOLVER_TYPES = ("SGD", "Nesterov", "AdaGrad", "RMSProp", "AdaDelta", "Adam")
WITH_MOMENTUM = ("SGD", "Nesterov", "Adam")  # one that can cycle

_PB2 = "caffe.proto.caffe_pb2"
_GENERIC_NETS = ("net", "net_param")
_NEW_FIELDS = {"max_lr", "start_lr_policy"}
_MOMENTUM_FIELD = "cyclical_momentum"
NO_PATCH = "this Caffe lacks the patch {}, which adds it"
_TRAIN_NETS = (*_GENERIC_NETS, "train_net", "train_net_param")
_FATAL = re.compile(r"^F.*?\] (.*)", re.MULTILINE)  # what Caffe logs before it aborts
_TAKEN_FOR = {
    "caffe.SolverParameter": "caffe.NetParameter",
    "caffe.NetParameter": "caffe.SolverParameter",
}
_BYTE_ORDER_MARKS = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16", b"\xef\xbb\xbf": "UTF-8"}


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

    It is registered in sys.modules under its own name, so that a later `import caffe` finds
    it; protobuf refuses to load it twice.

    Raises:
        ClrError: there is no Caffe, or it lacks the fields of the policies.
    """
    if _PB2 in sys.modules:
        return sys.modules[_PB2]
    package = installed_caffe.package()
    if package is None:
        raise ClrError(
            f"no Caffe in this Python environment: run {command('build')}, or set PYTHONPATH to"
            " the python/ of your Caffe"
        )
    path = package / "proto" / "caffe_pb2.py"
    spec = importlib.util.spec_from_file_location(_PB2, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except FileNotFoundError:
        again = command("build")
        raise ClrError(f"{path} is missing: run {again} again") from None
    if missing := _NEW_FIELDS - _fields_of_solver(module):
        raise ClrError(
            f"the Caffe in {path.parent.parent} lacks the patch for"
            f" {' and '.join(sorted(missing))}: run {command('build')}"
        )
    sys.modules[_PB2] = module
    return module


def has_policy(policy: str) -> bool:
    """Whether this Caffe has a policy; true as well if its library is not found."""
    return installed_caffe.library_has(policy.encode()) is not False


def _fields_of_solver(module: ModuleType) -> set[str]:
    return set(module.SolverParameter.DESCRIPTOR.fields_by_name)


def solver_parameter() -> Any:
    """The class SolverParameter: Caffe's, or our own where there is no Caffe.

    Raises:
        ClrError: see caffe_pb2.
    """
    if _PB2 in sys.modules or installed_caffe.package():
        return caffe_pb2().SolverParameter
    return message_class()


def read_solver(path: Path) -> Any:
    """The SolverParameter in a solver prototxt.

    A string that is not UTF-8, such as a path in GBK, becomes bytes.

    Raises:
        ClrError: the file cannot be read or is not a solver prototxt; says where and why. Or
            it holds a net, and there is no Caffe.
    """
    return _read(path, solver_parameter())


def solver_type(solver: Any) -> str:
    """The type of a SolverParameter; the deprecated solver_type translated, as Caffe does."""
    if not solver.HasField("solver_type"):
        return str(solver.type)
    names = {solver_type.upper(): solver_type for solver_type in SOLVER_TYPES}
    return names[type(solver).SolverType.Name(solver.solver_type)]


class SolverFile:
    """A solver and its nets, each of which is read once, when it is first needed.

    Attributes:
        parameter: its SolverParameter.
        name: its file, for messages.
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

    @property
    def nets(self) -> list[Net]:
        """The net that it trains, and those that it tests.

        Raises:
            ClrError: see train_net and test_nets.
        """
        return [self.train_net, *self.test_nets]

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
        files = map(os.fsdecode, solver.test_net)
        sources += [(file, self._read("test_net", file)) for file in files]
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

    @property
    def tested_nets(self) -> dict[int, Net]:
        """The nets that a training tests, by their number among test_nets.

        As with `caffe train`, there are none if test_interval is beyond max_iter, and a
        net with a test_iter of 0 is not tested. The test at iteration 0 does not count.
        """
        solver = self.parameter
        if 0 < solver.max_iter < solver.test_interval:
            return {}
        pairs = zip(self.test_nets, solver.test_iter, strict=True)
        return {number: net for number, (net, batches) in enumerate(pairs) if batches}

    def _source(self, field: str) -> tuple[str, Any]:
        """What to call the net in a field, and its NetParameter."""
        value = getattr(self.parameter, field)
        if isinstance(value, str | bytes):
            file = os.fsdecode(value)
            return file, self._read(field, file)
        if value.layers:
            raise ClrError(
                f"{self.name}: {field}: Caffe reads the deprecated `layers` only from files; write"
                " the net to one, and name it with net"
            )
        return f"{self.name}: {field}", value

    def _read(self, field: str, file: str) -> Any:
        if file not in self._files:
            if not Path(file).exists():
                reason = f"cannot be read: No such file or directory{looked_for(file)}"
                raise ClrError(f"{self.name}: {field}: {file}: {reason}")
            if Path(file).is_fifo():
                raise ClrError(
                    f"{self.name}: {field}: {file} is a pipe, but must be read twice; name a file"
                )
            self._files[file] = read_net(Path(file))
        return self._files[file]


def open_solver(path: Path) -> SolverFile:
    """The solver in a prototxt, whose nets are read later; errors are those of read_solver."""
    return SolverFile(read_solver(path), str(path))


def read_net(path: Path) -> Any:
    """The NetParameter in a net prototxt; one of a deprecated format upgraded, as Caffe does.

    Raises:
        ClrError: the file cannot be read or is not a net prototxt.
    """
    return upgraded(_read(path, caffe_pb2().NetParameter, only_utf8=True), str(path))


def upgraded(net: Any, name: str) -> Any:
    """A NetParameter in the present format, as Caffe upgrades one of a deprecated format.

    Raises:
        ClrError: `name` cannot be upgraded.
    """
    if not net.layers and not net.input:
        return net
    try:
        text = installed_caffe.upgrade_net(text_format.MessageToString(net))
    except OSError as error:
        again = command("build")
        raise ClrError(f"{error.filename}: {error.strerror}; run {again} again") from None
    except CalledProcessError as error:
        fatal = _FATAL.search(error.stderr)
        reason = fatal[1] if fatal else str(error)
        raise ClrError(
            f"{name}: cannot be upgraded from the deprecated `layers`: {reason}"
        ) from None
    return parse(text.encode(), type(net)())


def did_you_mean(wrong: str, names: Iterable[str], likeness: float = 0.6) -> str:
    """The end of a message about an unknown name: the closest of `names`, or nothing.

    Args:
        likeness: how close the name must be, from 0 to 1; see difflib.

    >>> did_you_mean("lmdb", ["LEVELDB", "LMDB"])
    '; did you mean "LMDB"?'
    """
    by_lower_case = {name.lower(): name for name in names}
    closest = difflib.get_close_matches(wrong.lower(), by_lower_case, 1, likeness)
    return f'; did you mean "{by_lower_case[closest[0]]}"?' if closest else ""


def looked_for(path: str) -> str:
    """The end of a message about a missing file: the folder that was searched."""
    return "" if Path(path).is_absolute() else f" (looked for in {Path.cwd()}, the current folder)"


def check_file(file: str, where: str) -> None:
    """Refuse a file that does not exist; `where` says what names it."""
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


def _read(path: Path, message: Any, *, only_utf8: bool = False) -> Any:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ClrError(f"{path}: cannot be read: {error.strerror}") from None
    for mark, encoding in _BYTE_ORDER_MARKS.items():
        if content.startswith(mark):
            raise ClrError(
                f"{path}: begins with the byte order mark of {encoding}, which Caffe cannot read;"
                " save it as UTF-8 without one"
            )
    try:
        return parse(content, message(), only_utf8=only_utf8)
    except TextError as error:
        reason = _unknown_name(*error.unknown) if error.unknown else error.reason
        raise ClrError(f"{path}:{error.line}:{error.column}: {reason}") from None


def _unknown_name(descriptor: Any, name: str) -> str:
    """What to say of a name that a message or an enum has not, with the closest that it has."""
    if descriptor.full_name == LAYER and not descriptor.fields:
        return f"a net in a solver is read only with Caffe: run {command('build')}"
    kind, names = "value", getattr(descriptor, "values_by_name", None)
    if names is None:
        kind, names = "field", descriptor.fields_by_name
        # a fork's own field is near to none; a typing error is nearer
        hint = did_you_mean(name, names, 0.75) or "; remove it if it belongs to another Caffe"
        if name == _MOMENTUM_FIELD:
            hint = f": {NO_PATCH.format('cyclical-momentum')}; remove it"
        other = _TAKEN_FOR.get(descriptor.full_name)
        pool = descriptor.file.pool
        if other and name in pool.FindMessageTypeByName(other).fields_by_name:
            hint = f", but {other.removeprefix('caffe.')} has: is it the wrong file?"
    else:
        hint = did_you_mean(name, names) or f"; use one of {', '.join(names)}"
    owner = descriptor.full_name.removeprefix("caffe.")
    return f'{owner} has no {kind} "{name}"{hint}'
