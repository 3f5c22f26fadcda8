"""The drawings of a report and of the notebooks, by matplotlib, of what `pipeline.survey` found.

Each function draws on the axes it is given, or on a new figure, and returns the figure. It needs no pyplot and no
screen; in a notebook `%matplotlib inline` shows what is returned. `to_svg` makes an SVG of it for a page, which sets
the colours. A drawing of what a survey does not have raises ValueError: ask `has` first.
"""

from __future__ import annotations

import functools
import html
import importlib
import io
import re
import warnings
from collections.abc import Callable, Sequence
from itertools import pairwise
from math import cos, radians, sin
from typing import TYPE_CHECKING, Any

from pipeline.console import printable
from pipeline.errors import InputError
from pipeline.histograms import Histogram
from pipeline.survey import Survey

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Drawing = Callable[..., "Figure"]
_Slice = tuple[int, str, str, float]  # how many, name, colour, how much of it

INK, GRID, PAPER = "#1f2328", "#d0d7dd", "#fffffe"
SERIES = ("#3a7ebf", "#d9822b", "#3f9a5f", "#8a63c7", "#c94f4f", "#8a8f98")
_COLOURS = {  # what a page may set, by what is drawn here
    INK: "currentColor",
    GRID: "var(--grid, rgb(128 128 128 / 35%))",
    PAPER: "var(--paper, Canvas)",
    **{colour: f"var(--series-{number}, {colour})" for number, colour in enumerate(SERIES, start=1)},
}
_STYLE = {
    "axes.axisbelow": True,
    "axes.edgecolor": INK,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": INK,
    "axes.titlesize": 10,
    "figure.facecolor": PAPER,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.labelcolor": INK,
    "svg.fonttype": "none",
    "text.color": INK,
    "text.parse_math": False,  # a "$" of a model is a dollar
    "xtick.color": INK,
    "ytick.color": INK,
}
_SHOWN_REASONS = 20
_LONGEST_NAME = 16
_LEAST_LABEL = 0.006  # of the circle: a smaller slice has no name beside it


def _styled(drawing: Drawing) -> Drawing:
    """Draws in our style, whatever that of the notebook is."""

    @functools.wraps(drawing)
    def draw(*values: Any, **options: Any) -> Figure:
        with _matplotlib().rc_context(_STYLE):
            return drawing(*values, **options)

    return draw


@_styled
def acceptance(survey: Survey, axes: Axes | None = None) -> Figure:
    """Admitted instructions and accepted rows by hours at work, by units where no time was counted."""
    axes = _axes(axes, 6.4, 3.0)
    by_time = survey.throughput.hours > 0
    unit, per = _time_unit(survey.throughput.hours)
    across = [point.hours * per if by_time else point.units for point in survey.progress]
    lines = {
        "candidates": [point.candidates for point in survey.progress],
        "admitted": [point.admitted for point in survey.progress],
        "accepted rows": [point.accepted for point in survey.progress],
    }
    for colour, (name, counts) in zip((SERIES[5], SERIES[0], SERIES[1]), lines.items(), strict=True):
        if any(counts):
            axes.plot(across, counts, color=colour, label=name, linewidth=1.8)
    axes.set_xlabel(f"{unit} at work" if by_time else "units")
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    _count_axis(axes.yaxis)
    if any(map(any, lines.values())):
        axes.legend(loc="upper left")
    return _figure(axes)


@_styled
def rejects(survey: Survey, axes: Axes | None = None) -> Figure:
    """Rejects by reason, the most frequent first, coloured by stage."""
    shown = survey.rejects[:_SHOWN_REASONS]
    axes = _axes(axes, 6.4, 0.9 + 0.24 * max(len(shown), 1))
    stages = list(dict.fromkeys(each.stage for each in shown))
    for number, stage in enumerate(stages):
        here = [(place, each.count) for place, each in enumerate(shown) if each.stage == stage]
        places, counts = zip(*here, strict=True)
        bars = axes.barh(places, counts, color=SERIES[number % len(SERIES)], label=stage, height=0.72)
        axes.bar_label(bars, [f"{count:,}" for count in counts], padding=3, fontsize=8)
    axes.set_yticks(range(len(shown)), [each.reason for each in shown])
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.margins(x=0.12)
    _count_axis(axes.xaxis)
    axes.set_xlabel("rejects")
    if stages:
        axes.legend(title="stage", loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return _figure(axes)


@_styled
def novelty(survey: Survey, axes: Axes | None = None) -> Figure:
    """Scores at the gate, admitted and refused, and the threshold between them. Needs `survey.novelty`."""
    found = _required(survey.novelty)
    axes = _axes(axes, 6.4, 2.8)
    _bars(axes, found.admitted, SERIES[0], f"admitted ({found.far:,} more below {found.floor:g})")
    _bars(axes, found.refused, SERIES[4], "refused")
    axes.axvline(found.threshold, color=INK, linestyle="--", linewidth=1, label=f"threshold {found.threshold:g}")
    lowest = min(_first_edge(found.admitted), _first_edge(found.refused), found.floor)
    axes.set_xlim(lowest - 0.01, 1.01)
    axes.set_xlabel("ROUGE-L to the nearest instruction held")
    axes.set_ylabel("instructions")
    axes.legend()
    return _figure(axes)


@_styled
def nearest_seed(survey: Survey, axes: Axes | None = None) -> Figure:
    """ROUGE-L to the nearest seed (the paper's figure 4). Needs `survey.seeds`."""
    found = _required(survey.seeds)
    axes = _axes(axes, 6.4, 2.8)
    _bars(axes, found.scores, SERIES[0])
    axes.set_xlim(0, 1)
    axes.set_xlabel("ROUGE-L to the nearest seed")
    axes.set_ylabel("instructions" if found.sample == found.of else f"of {found.sample:,} instructions")
    return _figure(axes)


@_styled
def verbs(survey: Survey, axes: Axes | None = None) -> Figure:
    """The commonest root verbs (inner ring) and their commonest objects (outer ring), as in the paper's figure 3.

    A slice is as wide as its instructions are many: those of a verb without one of these objects are in none. Needs
    `survey.diversity`.
    """
    found = _required(survey.diversity)
    axes = _axes(axes, 6.4, 6.4)
    inner: list[_Slice] = []
    outer: list[_Slice] = []
    for place, each in enumerate(found.top):
        colour = SERIES[place % len(SERIES)]
        outer += [(count, noun, colour, 0.7 - 0.12 * rank) for rank, (noun, count) in enumerate(each.nouns)]
        inner.append((sum(count for _, count in each.nouns), each.verb, colour, 1.0))
    _ring(axes, inner, 0.35, 0.7, 0.525, "#ffffff")
    _ring(axes, outer, 0.71, 0.98, 1.0, INK)
    axes.set(xlim=(-1.3, 1.3), ylim=(-1.3, 1.3), aspect="equal")
    axes.axis("off")
    return _figure(axes)


@_styled
def lengths(survey: Survey, axes: Sequence[Axes] | None = None) -> Figure:
    """Words of instructions, inputs and outputs (the paper's figure 5); `axes` are as many, one beside the other."""
    found = _required(survey.lengths)
    if axes is None:
        figure = _new_figure(6.4, 2.5)
        axes = list(figure.subplots(1, len(found), squeeze=False)[0])
    for number, (each, (name, histogram)) in enumerate(zip(axes, found.items(), strict=False)):
        _bars(each, histogram, SERIES[number])
        above = f", {histogram.over:,} above" if histogram.over else ""
        each.set_title(name if histogram.median is None else f"{name}: median {histogram.median:g}")
        each.set_xlabel(f"words{above}")
        each.tick_params(axis="y", labelsize=8)
    return _figure(axes[0])


@_styled
def scores(survey: Survey, axes: Axes | None = None) -> Figure:
    """Scores 1 to 5 of each round by its judge, as shares of the pairs that were given one. Needs `survey.rounds`."""
    found = _required(survey.rounds)
    given, axes = axes, _axes(axes, 6.4, 2.8)
    width = 0.8 / len(found)
    for place, each in enumerate(found):
        across = [score - 0.4 + width * (place + 0.5) for score in (1, 2, 3, 4, 5)]
        shares = [100 * each.counts.get(score, 0) / (each.scored or 1) for score in (1, 2, 3, 4, 5)]
        name = f"round {each.number}: {printable(each.judge)}, {each.scored:,} of {each.total:,} pairs scored"
        bars = axes.bar(across, shares, width * 0.92, color=SERIES[place % len(SERIES)], label=name)
        if len(found) <= 3:
            axes.bar_label(bars, [f"{share:.0f}%" if share else "" for share in shares], padding=2, fontsize=8)
    axes.set_xticks((1, 2, 3, 4, 5))
    axes.grid(visible=False, axis="x")
    axes.margins(y=0.14)
    axes.set_xlabel("score")
    axes.set_ylabel("% of pairs scored")
    if given is None:
        axes.figure.legend(loc="outside upper left", fontsize=8)
    else:
        axes.legend(fontsize=8)
    return _figure(axes)


@_styled
def engine_time(survey: Survey, axes: Axes | None = None) -> Figure:
    """Engine time in use and lost, by cause. Needs `survey.engine_time`."""
    found = _required(survey.engine_time)
    axes = _axes(axes, 6.4, 0.8 + 0.28 * len(found))
    whole = sum(found.values()) or 1.0
    shares = [100 * seconds / whole for seconds in found.values()]
    colours = [SERIES[2] if name == "useful" else SERIES[1] for name in found]
    bars = axes.barh(range(len(found)), shares, color=colours, height=0.7)
    unit, per = _time_unit(whole / 3600)
    labels = [
        f"{share:.1f}%, {seconds / 3600 * per:,.1f} {unit}"
        for share, seconds in zip(shares, found.values(), strict=True)
    ]
    axes.bar_label(bars, labels, padding=3, fontsize=8)
    axes.set_yticks(range(len(found)), [name if name == "useful" else f"lost: {name}" for name in found])
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.set_xlim(0, max(shares) * 1.28)
    axes.set_xlabel("% of engine time")
    return _figure(axes)


_NEEDS: dict[Drawing, Callable[[Survey], Any]] = {
    acceptance: lambda survey: survey.counters.units,
    rejects: lambda survey: survey.rejects,
    novelty: lambda survey: survey.novelty and (survey.novelty.admitted.total or survey.novelty.refused.total),
    nearest_seed: lambda survey: survey.seeds,
    verbs: lambda survey: survey.diversity and any(each.nouns for each in survey.diversity.top),
    lengths: lambda survey: survey.lengths,
    scores: lambda survey: survey.rounds,
    engine_time: lambda survey: survey.engine_time,
}
DRAWINGS = tuple(_NEEDS)
"""All of them, in the order of a report."""


def has(drawing: Drawing, survey: Survey) -> bool:
    """Whether the survey has what this drawing shows."""
    return bool(_NEEDS[drawing](survey))


def to_svg(figure: Figure, title: str) -> str:
    """The figure as one <svg> element for a page: the same bytes each time, no fonts and no addresses in it.

    `title` says to a reader who does not see it what it shows (aria-label and <title>), and is another for each
    drawing of a page. Text is text, in the page's font; text and axes are in `currentColor`, the grid in `var(--grid)`,
    what lies between slices in `var(--paper)`, the data in `var(--series-1)` to `var(--series-6)`; each has a value of
    its own where the page sets none. It is as wide as its place, and no wider than it was drawn.
    """
    sink = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with _matplotlib().rc_context({**_STYLE, "svg.hashsalt": title}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # the page's font is not the one that is measured with
        figure.savefig(sink, format="svg", transparent=True, metadata=nothing)
    text = sink.getvalue()
    for colour, on_page in _COLOURS.items():
        text = text.replace(colour, on_page)
    text = re.sub(r"font-family: [^;\"]*", "font-family: inherit", text)
    text = re.sub(r"\s*<style.*?</style>", "", text, flags=re.DOTALL)  # it would be that of the whole page
    prefix = re.sub(r"\W+", "-", title.lower())
    text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{prefix}-", text)
    width, height = (72 * size for size in figure.get_size_inches())
    name = html.escape(printable(title), quote=True)
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" role="img" '
        f'aria-label="{name}" viewBox="0 0 {width:g} {height:g}" width="{width * 4 / 3:g}" '
        f'style="max-width: 100%; height: auto; stroke-linejoin: round; stroke-linecap: butt">\n <title>{name}</title>'
    )
    return head + text[text.index(">", text.index("<svg")) + 1 :]


def _matplotlib() -> Any:
    try:
        return importlib.import_module("matplotlib")
    except ModuleNotFoundError as error:
        raise InputError(
            f"{error.name} is not installed, which drawings are made with; "
            "`pip install 'instructmill[report]'` brings it"
        ) from None


def _new_figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _axes(axes: Axes | None, width: float, height: float) -> Any:
    """The axes given, or those of a new figure of this size in inches."""
    return _new_figure(width, height).subplots() if axes is None else axes


def _figure(axes: Any) -> Figure:
    figure: Figure = axes.figure
    return figure


def _required(part: Any) -> Any:
    if not part:
        raise ValueError("the survey has nothing of what this shows")
    return part


def _bars(axes: Any, histogram: Histogram, colour: str, label: str | None = None) -> None:
    """A histogram, its bars touching but for a hair."""
    edges = histogram.edges
    widths = [(right - left) * 0.92 for left, right in pairwise(edges)]
    axes.bar(edges[:-1], histogram.counts, widths, align="edge", color=colour, label=label)
    axes.grid(visible=False, axis="x")
    _count_axis(axes.yaxis)


def _first_edge(histogram: Histogram) -> float:
    """Where its first value lies; 1 where there is none."""
    return next((edge for edge, count in zip(histogram.edges, histogram.counts, strict=False) if count), 1.0)


def _ring(axes: Any, slices: Sequence[_Slice], inside: float, outside: float, named_at: float, ink: str) -> None:
    """Slices around the middle, with the names of those that are wide enough along the radius, none upside down."""
    whole = sum(count for count, *_ in slices)
    if not whole:
        return
    sizes = [count for count, *_ in slices]
    wedges, *_ = axes.pie(sizes, radius=outside, startangle=90, counterclock=False, labels=None)
    for wedge, (count, name, colour, alpha) in zip(wedges, slices, strict=True):
        wedge.set(width=outside - inside, edgecolor=PAPER, linewidth=0.6, facecolor=colour, alpha=alpha)
        if count / whole < _LEAST_LABEL:
            continue
        angle = (wedge.theta1 + wedge.theta2) / 2 % 360
        turned = 90 < angle < 270
        beside = "center" if named_at < outside else "right" if turned else "left"
        x, y = named_at * cos(radians(angle)), named_at * sin(radians(angle))
        shown = name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}\u2026"
        rotation = angle - 180 if turned else angle
        style = {"rotation": rotation, "rotation_mode": "anchor", "fontsize": 7.5, "color": ink}
        axes.text(x, y, shown, ha=beside, va="center", **style)


def _count_axis(axis: Any) -> None:
    """Whole numbers with a comma at the thousands."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))


def _time_unit(hours: float) -> tuple[str, float]:
    """The unit that a time of so many hours is best said in, and how many of it are in an hour."""
    return ("hours", 1.0) if hours >= 2 else ("minutes", 60.0) if hours * 60 >= 2 else ("seconds", 3600.0)
