"""`instructmill report RUN` on the terminal: a run in one screen, and the same facts for a program."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from textwrap import wrap
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from pipeline.console import clock, printable
from pipeline.engine_facts import each_engine, facts_of
from pipeline.models import full_name
from pipeline.report import History, acceptance, made_of, moment, next_commands, rates, status, why
from pipeline.segment_parts import tally_of

if TYPE_CHECKING:
    from pipeline.reading import Snapshot
    from pipeline.survey import Survey

REASONS, CAUSES = 7, 5  # lines of rejects and of engine time: what is more is summed up in the last
LONGEST_BAR = 30
SCORES = (1, 2, 3, 4, 5)
_LABEL, _NUMBER = 23, 9  # columns
_INDENT = 2 + _LABEL + 1 + _NUMBER + 2  # of what is said
_STATES = {"finished": "bold green", "running": "bold cyan", "stopped": "bold yellow"}

Line = tuple[str, str, str]  # what it is, a number, what is to be said of it


def draw_report(run: Snapshot, survey: Survey, past: History) -> None:
    """Print a report of a run: some 24 to 40 lines at 100 columns, more where the terminal is narrower."""
    console = Console(highlight=False)
    console.print(
        Text.assemble(
            (printable(f"run {run.name}"), "bold"), printable(f" in {run.folder}: "), (run.state, _STATES[run.state])
        ),
        soft_wrap=True,
    )
    for line in _heading(run, survey, past):
        console.print(Text(f"  {printable(line)}"), soft_wrap=True)
    block = "█" if console.encoding.lower().startswith("utf") else "#"
    bars = Bars(block, max(4, min(LONGEST_BAR, console.width - 50)))
    groups = (
        _counts(run, survey),
        _rejects(survey, bars),
        _texts(survey),
        score_lines(survey, bars),
        _time(survey, bars),
    )
    for lines in (list(group) for group in groups):
        if lines:
            console.print()
        for label, number, said in lines:
            room = max(20, console.width - _INDENT)
            first, *more = [said] if len(said) <= room else wrap(said, room, break_on_hyphens=False)
            name = (f"  {label:<{_LABEL}} ", "" if label.startswith(" ") else "bold")
            console.print(_stripped(Text.assemble(name, f"{number:>{_NUMBER}}  {printable(first)}")), soft_wrap=True)
            for line in more:
                console.print(_stripped(Text(" " * _INDENT + printable(line))), soft_wrap=True)
    console.print(Text("\n  next", "bold"))
    for command, what in next_commands(run):
        console.print(Text.assemble(f"    {printable(command)}", (f"  # {what}", "dim")), soft_wrap=True)


def _stripped(line: Text) -> Text:
    line.rstrip()
    return line


def report_facts(run: Snapshot, survey: Survey, past: History) -> dict[str, Any]:
    """What a report says, for JSON: `status`, and with it what the survey counted."""
    counted = ("novelty", "lengths", "rounds", "throughput", "rejects", "progress")
    values = {name: getattr(survey, name) for name in counted}
    return {
        **status(run.folder),
        "why": why(run, past),
        "began": past.began,
        "last": past.last,
        **{name: _plain(value) for name, value in values.items()},
        "moves": [{"before": before, "now": now, "pairs": pairs} for (before, now), pairs in survey.moves.items()],
        "engine_time": dict(survey.engine_time),
    }


def _plain(value: Any) -> Any:
    """Records, alone, in a tuple or by name, as dictionaries."""
    if isinstance(value, tuple):
        return [asdict(each) for each in value]
    if isinstance(value, Mapping):
        return {name: asdict(each) for name, each in value.items()}
    return value if value is None else asdict(value)


def _heading(run: Snapshot, survey: Survey, past: History) -> Iterator[str]:
    yield why(run, past)
    names = [full_name(model) for model in (run.manifest.get("model"), run.manifest.get("judge")) if model]
    attempts = f"{survey.attempts:,} attempt{'s' if survey.attempts != 1 else ''}"
    times = [moment(time) for time in (past.began, past.last) if time is not None]
    yield ", ".join([f"{run.recipe} with {' and '.join(names)}", attempts, " to ".join(times)])
    if run.state == "running":
        facts = status(run.folder)
        goal = (
            f"target {facts['target']:,}" if facts["target"] else f"{facts['units']:,} units" if facts["units"] else ""
        )
        left = f"about {clock(facts['eta_s'])} left" if facts["eta_s"] else ""
        if goal or left:
            yield ", ".join(part for part in (goal, left) if part)


def _counts(run: Snapshot, survey: Survey) -> Iterator[Line]:
    """What came in, and what of it was kept."""
    counters = survey.counters
    yield "rows", f"{counters.examples:,}", made_of(run)
    if counters.candidates:
        yield "admitted", f"{counters.admitted:,}", f"of {counters.candidates:,} candidates, {acceptance(survey)}"
    tally = tally_of(run.folder)
    if tally is not None:
        yield "segments", f"{tally.kept:,}", f"of {tally.pieces:,} pieces of the corpus"
    failed = f"; {counters.failed_units:,} units failed" if counters.failed_units else ""
    yield "units", f"{counters.units:,}", f"{counters.calls.total():,} calls{failed}"
    if counters.demonstrations:
        share = counters.machine_made / counters.demonstrations
        yield "demonstrations", f"{counters.demonstrations:,}", f"{share:.0%} machine-made"
    for what, left, parts, right in counters.sums():
        if left != right:
            yield "NOT CLOSED", f"{left:,}", f"{what} IS NOT {parts}: `instructmill verify` tells more"


def _rejects(survey: Survey, bars: Bars) -> Iterator[Line]:
    counts = [(f"  {each.reason}", each.count) for each in survey.rejects]
    whole = sum(count for _, count in counts)
    yield "rejects", f"{whole:,}", ""
    yield from bars.of(counts, whole, REASONS)


def _texts(survey: Survey) -> Iterator[Line]:
    """How near instructions are to one another, and how long the texts are."""
    found = survey.novelty
    if found is not None and survey.counters.admitted:
        yield (
            "novelty",
            f"{found.admitted.total:,}",
            f"admitted, with another at ROUGE-L {found.floor:g} to {found.threshold:g}",
        )
    for name, each in survey.lengths.items():
        if each.median is not None and each.p90 is not None:
            yield f"words of {name}s", f"{each.median:,.0f}", f"the median; 90% have at most {each.p90:,.0f}"


def score_lines(survey: Survey, bars: Bars) -> Iterator[Line]:
    """Each round in a line, the newest one score by score, and how the scores moved."""
    for each in survey.rounds:
        said = f"asked, {each.scored:,} scored by {each.judge}"
        if each.mean is not None:
            five, four = (each.at_least(score) / each.scored for score in (5, 4))
            said += f": mean {each.mean:.2f}, A5 {five:.1%}, A4 {four:.1%}"
        yield f"round {each.number}", f"{each.total:,}", said
    for each in survey.rounds[-1:]:
        yield from bars.of(
            [(f"  {score}", each.counts.get(score, 0)) for score in reversed(SCORES)], each.scored, len(SCORES)
        )
    if survey.moves:
        yield from _moves(survey.moves)


def _moves(moves: Mapping[tuple[int | None, int | None], int]) -> Iterator[Line]:
    """How scores moved since the round before: shares, and a table of the score before by the score now."""
    whole = sum(moves.values())
    believed = [
        (now - before, count) for (before, now), count in moves.items() if before is not None and now is not None
    ]
    same, up, down = (sum(count for by, count in believed if (by > 0) - (by < 0) == way) / whole for way in (0, 1, -1))
    none = 1 - same - up - down
    said = f"{same:.0%} the same, {up:.0%} up, {down:.0%} down"
    yield "moved", f"{whole:,}", said + (f", {none:.0%} without a score in one of the two" if none > 0 else "")
    columns = (*SCORES, None) if any(None in pair for pair in moves) else SCORES
    wide = max(7, len(f"{max(moves.values()):,}") + 2)  # each row is one label, which is never wrapped
    yield "  before \\ now" + "".join(f"{_name(now):>{wide}}" for now in columns), "", ""
    for before in columns:
        cells = "".join(f"{moves.get((before, now), 0):>{wide},}" for now in columns)
        yield f"  {_name(before):<12}{cells}", "", ""


def _name(score: int | None) -> str:
    return "none" if score is None else str(score)


def _time(survey: Survey, bars: Bars) -> Iterator[Line]:
    """Rates, and where the time of the engines went."""
    made = survey.throughput
    if made.hours:
        yield "time", clock(made.hours * 3600), f"at work: {rates(made)}"
    if survey.engine_time:
        whole = sum(survey.engine_time.values())
        per_hour = f"; {made.rows_per_engine_hour:,.0f} rows per engine-hour" if made.rows_per_engine_hour else ""
        yield "engine time", clock(whole), f"of all engines{per_hour}"
        used = [
            (f"  {what if what == 'useful' else f'lost: {what}'}", time) for what, time in survey.engine_time.items()
        ]
        yield from bars.of(used, whole, CAUSES, clock)
    if facts := facts_of(survey.counters.engine_time, survey.counters.examples):
        yield "each engine", f"{facts['busy']:.0%}", f"busy; {each_engine(facts)}"


class Bars:
    """Counts as bars, of which the longest has `most` columns."""

    def __init__(self, block: str, most: int) -> None:
        self._block = block
        self._most = most

    def of(
        self, counts: list[tuple[str, Any]], whole: float, lines: int, form: Callable[[Any], str] = "{:,}".format
    ) -> Iterator[Line]:
        """A line for each; where these are more than `lines`, what is left is one together."""
        if len(counts) > lines:
            rest = counts[lines - 1 :]
            counts = [*counts[: lines - 1], (f"  {len(rest)} others", sum(count for _, count in rest))]
        longest = max((count for _, count in counts), default=0)
        for label, count in counts:
            bar = self._block * round(self._most * count / longest) if longest else ""
            yield label, form(count), f"{count / whole if whole else 0:>4.0%} {bar}"
