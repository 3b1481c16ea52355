"""How every plot looks: hues and styles of lines, axes, titles and keys."""

import base64
import io
import itertools
import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# distinguishable with any colour vision, and in print
GREY = "#666666"
HUES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#7a4b1f", GREY)
SOLID: Sequence[Any] = ("-", "-.", (0, (6, 1, 1, 1, 1, 1)))
DASHED: Sequence[Any] = ("--", ":", (0, (8, 3)))
_MOST_MARKED = 100  # points of a line
_TITLE, _KEY, _SIDE = 72, 96, 26  # characters in a line of a title, a key, a key at the side
_LINE, _HALO = 1.6, 2.0  # widths: of a line, and what each line on it adds
_SAME = 1e-4  # of a value: more than the rounding of rates, and too little to see

Points = Mapping[float, float]  # values by iteration
Curve = tuple[NDArray[np.float64], NDArray[np.float64]]


def figure(width: float, height: float) -> "Figure":
    """An empty figure, in inches, which a notebook shows; Matplotlib is imported here."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    drawn = _figure_class()(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(drawn)
    return drawn


@cache
def _figure_class() -> "type[Figure]":
    from matplotlib import figure

    class Figure(figure.Figure):
        """A figure that a notebook shows although pyplot, which would, does not know it."""

        def _repr_png_(self) -> bytes:
            return png(self)

    return Figure


def png(drawn: "Figure") -> bytes:
    content = io.BytesIO()
    drawn.savefig(content, format="png")
    return content.getvalue()


def html(drawn: "Figure") -> str:
    """A figure as an HTML image."""
    return f'<img src="data:image/png;base64,{base64.b64encode(png(drawn)).decode()}">'


def literal(text: str, width: int = _KEY, lines: int | None = None) -> str:
    """A name as Matplotlib can draw it: in lines, and with nothing in it taken for a formula.

    Args:
        lines: how many there may be; of a longer name, the middle is left out.
    """
    encoded = text.encode(errors="backslashreplace").decode()
    if lines and len(encoded) > lines * width:
        half = lines * width // 2 - 1
        encoded = f"{encoded[:half]}…{encoded[-half:]}"
    wrapped = [textwrap.fill(line, width) for line in encoded.splitlines()]
    return "\n".join(wrapped).replace("$", "\\$")


def title(axes: "Axes", *lines: str, pad: float = 6) -> None:
    """A title of several lines, the empty ones left out."""
    axes.set_title(literal("\n".join(filter(None, lines)), _TITLE), fontsize=11, pad=pad)


def key(drawn: "Figure", labels: Mapping[str, Any]) -> None:
    """A key below the plot, which grows by its height.

    Args:
        labels: what each label is drawn as; its insertion order is kept.
    """
    texts = list(map(literal, labels))
    longest = max(len(line) for text in texts for line in text.splitlines() or [""])
    rows = math.ceil(len(texts) / max(1, min(4, _KEY // (longest + 8))))
    lines = rows * max(text.count("\n") + 1 for text in texts)
    drawn.set_figheight(drawn.get_figheight() + 0.2 * lines + 0.1)
    drawn.legend(
        list(labels.values()),
        texts,
        loc="outside lower center",
        ncols=math.ceil(len(texts) / rows),
        frameon=False,
        fontsize=9,
        handlelength=3,
    )


def side_key(axes: "Axes", heading: str | None = None) -> None:
    """A key at the right of a panel."""
    handles, labels = axes.get_legend_handles_labels()
    axes.legend(
        handles,
        [literal(label, _SIDE, 2) for label in labels],
        loc="center left",
        bbox_to_anchor=(1, 0.5),
        frameon=False,
        fontsize=8,
        title=heading,
        title_fontsize=8,
    )


def plain(axes: "Axes") -> None:
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def over_iterations(axes: "Axes") -> None:
    """Whole numbers on the axis of iterations, few enough to stand side by side."""
    from matplotlib.ticker import MaxNLocator

    places = MaxNLocator(8, integer=True, steps=[1, 2, 5, 10], min_n_ticks=1)
    axes.set_xlabel("iteration")
    axes.xaxis.set_major_locator(places)
    axes.xaxis.set_major_formatter("{x:,.0f}")


def rates_from_zero(axes: "Axes", label: str = "learning rate") -> None:
    """An axis for rates, written out, which begins at 0 unless a rate is below it."""
    axes.set_ylabel(label)
    axes.yaxis.set_major_formatter("{x:g}")
    if axes.dataLim.y0 >= 0:
        axes.set_ylim(bottom=0)


def scale(values: Iterable[float]) -> str:
    """Logarithmic for values that span two orders of magnitude or more."""
    finite = [value for value in values if math.isfinite(value)]
    is_wide = bool(finite) and 0 < 100 * min(finite) <= max(finite)
    return "log" if is_wide else "linear"


def over_rates(axes: "Axes", rates: Sequence[float]) -> None:
    """An axis of rates: logarithmic if they are spaced by factors, else linear."""
    from matplotlib.ticker import LogLocator, NullLocator

    if is_geometric(rates):
        is_wide = max(rates) > 100 * min(rates)
        axes.set(xscale="log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1,) if is_wide else (1, 2, 5)))
        axes.xaxis.set_minor_locator(NullLocator())
    else:
        axes.locator_params(axis="x", nbins=6)
    axes.xaxis.set_major_formatter("{x:g}")


def until_it_diverges(axes: "Axes", losses: Sequence[float]) -> None:
    """Limit an axis of losses to twice those at the start, above which they tell nothing."""
    finite = [loss for loss in losses if math.isfinite(loss)] or [0.0]
    low, top = min(finite), 2 * max(finite[: len(finite) // 10 + 1])
    if 0 < top < axes.dataLim.y1:
        axes.set_ylim(low - 0.05 * (top - low), top)


def is_geometric(rates: Sequence[float]) -> bool:
    """Whether rates are spaced by factors rather than evenly, so that a log axis spreads them."""
    low, middle, high = min(rates), float(np.median(rates)), max(rates)
    return low > 0 and middle < (math.sqrt(low * high) + (low + high) / 2) / 2


def marker(count: int) -> str:
    """The mark of each point of a line, where they are few."""
    return "." if count < _MOST_MARKED else ""


def draw(axes: "Axes", curves: Sequence[Curve], styles: Sequence[dict[str, Any]]) -> list[Any]:
    """Lines; where later ones lie on one, it is also drawn wider and lighter beneath them."""
    from matplotlib.colors import to_rgb

    lines = []
    for index, ((at, values), style) in enumerate(zip(curves, styles, strict=True)):
        above = sum((_is_on(curves[index], other) for other in curves[index + 1 :]), np.zeros(1))
        for count in np.unique(above[above > 0]):
            covered = np.where(above == count, values, np.nan)
            lighter = (np.array(to_rgb(style["color"])) + 1) / 2
            width = _LINE + _HALO * count
            axes.plot(at, covered, color=lighter, linewidth=width, solid_capstyle="butt")
        lines += axes.plot(at, values, linewidth=_LINE, markersize=4, **style)
    return lines


def _is_on(lower: Curve, upper: Curve) -> NDArray[np.float64]:
    """1 at each end of a curve's segments that lie on another one, else 0."""
    (at, values), (others_at, others) = lower, upper
    covered = np.zeros(at.size)
    if at.size and others_at.size:
        within = (others_at[0] <= at) & (at <= others_at[-1])
        same = within & np.isclose(np.interp(at, others_at, others), values, rtol=_SAME)
        segments = np.flatnonzero(same[1:] & same[:-1])
        covered[segments] = covered[segments + 1] = 1
    return covered


def as_curve(points: Points) -> Curve:
    return np.array(list(points), np.float64), np.array(list(points.values()), np.float64)


def stepped(points: Points) -> Curve:
    """Points in order, with a step, not a slope, where the value is level before and after."""
    at, values = list(points), list(points.values())
    drawn = list(zip(at, values, strict=True))
    for i in reversed(range(1, len(at) - 2)):
        if values[i - 1] == values[i] != values[i + 1] == values[i + 2]:
            drawn.insert(i + 1, (at[i + 1], values[i]))
    ends = np.array(drawn, np.float64).reshape(-1, 2)
    return ends[:, 0], ends[:, 1]


def styles(families: Sequence[str], cyclical: Sequence[bool]) -> list[dict[str, Any]]:
    """A colour and a dash for each line: one hue a family, dashed where the rate has no cycles.

    Args:
        families: what each line belongs to; if it is the same for all, each has its own hue.
        cyclical: whether the rate of each line has cycles.
    """
    alone = len(set(families)) < 2
    hues = (GREY, *HUES[:-1]) if alone else HUES
    own = [str(number) for number in range(len(families))] if alone else list(families)
    numbers = {name: number for number, name in enumerate(dict.fromkeys(own))}
    counters: dict[tuple[int, bool], itertools.count[int]] = {}
    found = []
    for name, has_cycles in zip(own, cyclical, strict=True):
        hue = numbers[name] % len(hues)
        dashes = SOLID if has_cycles else DASHED
        number = next(counters.setdefault((hue, has_cycles), itertools.count()))
        found.append({"color": hues[hue], "linestyle": dashes[number % len(dashes)]})
    return found
