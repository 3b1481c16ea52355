"""Shows a stepsize as lines for a solver prototxt."""

from pathlib import Path

from rich.console import Console

from caffe_clr.cli.console import reading
from caffe_clr.method.stepsize import stepsize
from caffe_clr.preflight.epochs import ADVISED


def show_stepsize(
    solver_file: Path, epochs: float, images: int | None, ranks: int, console: Console
) -> None:
    """Print stepsize and max_iter as lines of a prototxt, explained in comments.

    Arguments and errors are those of stepsize.stepsize.
    """
    with reading(console):
        found = stepsize(solver_file, epochs, images=images, ranks=ranks)
    batches = f"batches of {found['batch_size']:,}"
    if found["iter_size"] > 1:
        batches += f", iter_size {found['iter_size']}"
    if found["ranks"] > 1:
        batches += f", {found['ranks']} ranks"
    first, *further = found["max_iter"].items()
    start = f" from iteration {found['start_lr_policy']}" if found["start_lr_policy"] else ""
    others = ", ".join(f"{end} for {cycles}" for cycles, end in further)
    lines = [
        f"# iterations per epoch: {found['epoch']:,} ({found['images']:,} images, {batches})",
        f"stepsize: {found['stepsize']}   # {epochs:g} epoch{'s' if epochs != 1 else ''}"
        f" of {found['epoch']} iterations",
        f"max_iter: {first[1]}   # {first[0]} cycles of {found['cycle']}{start}; {others}",
    ]
    least, most = ADVISED
    if not least <= epochs <= most:
        lines.append(f"# the paper advises a stepsize of {least} to {most} epochs (section 3.2)")
    for line in lines:
        console.print(line, soft_wrap=True)
