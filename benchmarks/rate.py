"""Measures the time and instructions that SGDSolver::GetLearningRate takes, policy by policy."""

import os
import re
import statistics
import subprocess
import tempfile
from pathlib import Path

from google.protobuf import text_format

from benchmarks import builds, nets, tables
from benchmarks.workers import Worker, started
from caffe_clr import parity
from caffe_clr.errors import ClrError
from caffe_clr.harness.compilation import Tree

_CALLS = 100_000
_STOCK = "step of stock Caffe"
_NET = 'layer { name: "data" type: "DummyData" top: "data" dummy_data_param { shape { dim: 1 } } }'


def show(rounds: int) -> None:
    """Measure each policy of this build and stock Caffe's step, and print a table.

    Args:
        rounds: how often to time 100,000 calls.
    """
    this, stock = builds.this_build(tables.report), builds.stock(tables.report)
    with tempfile.TemporaryDirectory(prefix="caffe-clr-") as temporary:
        folder = Path(temporary)
        policies = _write_solvers(folder)
        iteration = _iteration(this, folder)
        programs = [
            (
                builds.compile_program(stock, "rate.cpp", folder / "stock"),
                {_STOCK: policies["step"]},
            ),
            (builds.compile_program(this, "rate.cpp", folder / "this"), policies),
        ]
        nanoseconds: dict[str, list[float]] = {}
        for program, files in programs:
            nanoseconds |= _time(program, rounds, files)
        instructions: dict[str, float] = {}
        how = "instructions: counted by callgrind"
        try:
            for program, files in programs:
                instructions |= _count(program, files)
        except ClrError as error:  # it need not be there, nor know the machine's instructions
            how = f"instructions were not counted: {str(error).splitlines()[0]}"
    notes = [
        f"ns: median and quartiles of {rounds} rounds of {_CALLS:,} calls",
        f"/ iteration: the ratio to an iteration of cifar10_full in this build, {iteration:.0f} ms",
        how,
    ]
    counted = ["instructions", "/ stock step"] if instructions else []
    headings = ["ns", "quartiles", "/ stock step", *counted, "/ iteration"]
    table = tables.table("Cost of computing a rate", "policy", headings, notes)
    of_stock = statistics.median(nanoseconds[_STOCK])
    for policy, taken in nanoseconds.items():
        found = tables.quartiles(taken)
        cells = [tables.significant(found[0]), tables.spread(found), f"{found[0] / of_stock:.2f}"]
        if instructions:
            count = instructions[policy]
            cells += [f"{count:,.0f}", f"{count / instructions[_STOCK]:.2f}"]
        table.add_row(policy, *cells, f"{found[0] / (iteration * 1e6):.1e}")
    tables.console.print(table)


def _write_solvers(folder: Path) -> dict[str, Path]:
    """A solver file for each policy, on a net without parameters."""
    files = {}
    for solver in parity.default_cases():
        if solver.type == "SGD":
            solver.snapshot_after_train = False
            text_format.Parse(_NET, solver.net_param)
            files[solver.lr_policy] = folder / f"{solver.lr_policy}.prototxt"
            files[solver.lr_policy].write_text(text_format.MessageToString(solver))
    return files


def _iteration(tree: Tree, folder: Path) -> float:
    """The milliseconds of an iteration of cifar10_full on all cores."""
    net = nets.cifar10_full(tree, folder)
    threads = len(os.sched_getaffinity(0))
    worker = Worker(["caffe", str(net.triangular2)], threads, tree)
    with started({"this": worker}):
        worker.step(2)
        return statistics.median(worker.step(net.block))


def _time(program: Path, rounds: int, files: dict[str, Path]) -> dict[str, list[float]]:
    """The nanoseconds of a call, for each policy and round."""
    printed = _run([str(program), str(rounds), str(_CALLS), *map(str, files.values())])
    return {
        policy: list(map(float, line.split()))
        for policy, line in zip(files, printed.splitlines(), strict=True)
    }


def _count(program: Path, files: dict[str, Path]) -> dict[str, float]:
    """The instructions of a call, for each policy."""
    out = program.with_suffix(".callgrind")
    _run(
        [
            *("valgrind", "--tool=callgrind", f"--callgrind-out-file={out}"),
            *("--toggle-collect=*GetLearningRate*", "--dump-after=*Nanoseconds*"),
            *(str(program), "1", str(_CALLS), *map(str, files.values())),
        ]
    )
    counts = {}
    for number, policy in enumerate(files, start=1):
        dump = Path(f"{out}.{number}").read_text()
        total = re.search(r"^totals: (\d+)$", dump, re.MULTILINE)
        assert total
        counts[policy] = int(total[1]) / _CALLS
    return counts


def _run(command: list[str]) -> str:
    environment = {**os.environ, "GLOG_minloglevel": "2"}
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
    except FileNotFoundError:
        raise ClrError(f"{command[0]} is not installed") from None
    if done.returncode:
        last = "\n".join(f"  {line}" for line in done.stderr.splitlines()[-4:])
        raise ClrError(f"{command[0]} failed (exit status {done.returncode}):\n{last}")
    return done.stdout
