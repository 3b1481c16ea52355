"""Times the steps of a cold build, and of one after a patch has changed."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks import tables
from caffe_clr import locations
from caffe_clr.cli.report import ConsoleReport, ConsoleStep
from caffe_clr.errors import ClrError
from caffe_clr.harness import pipeline, source

_PATCHES = ("cyclical-momentum", "cuda-solver")  # the second builds on the first
_STEPS = ("fetch", "patch", "configure", "compile", "install", "import")


class TimedReport(ConsoleReport):
    """Shows the steps of a build, and keeps the seconds of each."""

    def __init__(self) -> None:
        super().__init__(tables.console)
        self.seconds: dict[str, float] = {}

    @contextmanager
    def step(self, name: str) -> Iterator[ConsoleStep]:
        start = time.monotonic()
        with super().step(name) as step:
            yield step
        self.seconds[name] = time.monotonic() - start


def show(given: Path | None) -> None:
    """Build in a temporary folder, twice, and print a table.

    Args:
        given: the source of Caffe; where None, the download that is cached.
    """
    upstream = source.load_upstream(locations.shipped("caffe_patch"))
    caffe = given or source.fetch(upstream, locations.cache() / "downloads")[0]
    notes = [
        f"{len(os.sched_getaffinity(0))} jobs; fetch unpacks and verifies {caffe.name}",
        f"after one patch changed: built again without {_PATCHES[0]}, which changes caffe.proto,",
        "so that most files are compiled again",
    ]
    table = tables.table("Seconds of a build", "", (*_STEPS, "total"), notes)
    with tempfile.TemporaryDirectory(prefix="caffe-clr-") as folder:
        for name, without in (("cold", ()), ("after one patch changed", _PATCHES)):
            start = time.monotonic()
            seconds = _build(Path(folder), caffe, without)
            total = time.monotonic() - start
            cells = [f"{seconds[step]:.1f}" if step in seconds else "" for step in _STEPS]
            table.add_row(name, *cells, f"{total:.1f}")
    tables.console.print(table)


def _build(work: Path, caffe: Path, without: tuple[str, ...]) -> dict[str, float]:
    report = TimedReport()
    options = pipeline.Options(
        prefix=work / "caffe",
        source=caffe,
        without=without,
        work=work,
        import_here=False,
    )
    tree = pipeline.build(options, report)
    with report.step("import"):
        done = subprocess.run(
            [sys.executable, "-c", "import caffe"],
            env={**os.environ, "PYTHONPATH": str(tree.python)},
            capture_output=True,
            text=True,
        )
    if done.returncode:
        raise ClrError(f"import caffe failed:\n{done.stderr}")
    return report.seconds
