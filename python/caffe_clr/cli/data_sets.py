"""Writes data sets, and shows the progress and a summary."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from rich.console import Console

from caffe_clr import prototxt
from caffe_clr.cli.console import progress, resumable
from caffe_clr.errors import UsageError
from caffe_clr.experiments import datasets
from caffe_clr.experiments.datasets import Split


def write_data(
    read: Callable[[Callable[[int, int], None]], dict[str, Split]],
    out: Path,
    force: bool,
    console: Console,
) -> None:
    """Read a data set, write it with datasets.write, and show the progress and a summary.

    Args:
        read: reads the data set; it calls its argument with the number of files read and
            the total.
        out: the folder to write into.
        force: replace the data set that is in `out`.

    Raises:
        UsageError: `out` is a file, or has a data set.
        ClrError: Caffe is not built; or see datasets.check_replaced.
    """
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out} is not a folder; name another OUT")
    for file in [] if force else datasets.existing(out):
        raise UsageError(f"{file} exists; overwrite it with --force, or name another OUT")
    datasets.check_replaced(out)
    prototxt.caffe_pb2()  # before all images are read
    remedy = "nothing was written; run the same command again"
    with progress(console) as shown, resumable(remedy):
        reading = shown.add_task("reading", total=None)
        splits = read(lambda done, total: shown.update(reading, completed=done, total=total))
        shown.remove_task(reading)
        total = sum(len(split.images) for split in splits.values())
        writing = shown.add_task("writing", total=total)
        made = datasets.write(splits, out, lambda: shown.advance(writing))
    for phase, split in splits.items():
        counts = np.unique(split.labels, return_counts=True)[1]
        each = f"{min(counts):,}" + (f" to {max(counts):,}" if min(counts) < max(counts) else "")
        console.print(f"{phase}: {len(split.images):,} images, {len(counts)} classes of {each}")
    console.print(f"Data: {', '.join(map(str, made))}", soft_wrap=True)
