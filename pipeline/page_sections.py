"""What a report's page says of a run, drawing by drawing: a sentence, the drawing, and its numbers as tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.console import clock
from pipeline.engine_facts import each_engine, facts_of
from pipeline.report import acceptance, rates
from pipeline.survey import NO_SEEDS

if TYPE_CHECKING:
    from pipeline.histograms import Histogram
    from pipeline.score_counts import Round
    from pipeline.survey import Survey

SPANS = 10  # of a run, in the table of its progress
SCORES = (5, 4, 3, 2, 1)


@dataclass(frozen=True)
class Table:
    """Numbers with their names. The first column says what a line is."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str = ""

    @property
    def numeric(self) -> tuple[bool, ...]:
        """Which columns hold numbers."""
        columns = zip(*self.rows, strict=True) if self.rows else ((name,) for name in self.head)
        return tuple(
            place > 0 and all(cell[:1] in "-0123456789" for cell in cells) for place, cells in enumerate(columns)
        )


@dataclass(frozen=True)
class Section:
    """One part of the page, whose `id` is its name in links.

    `drawing` is markup, None where there is nothing to draw; `open_tables` stand without a click, `tables` behind one.
    """

    id: str
    title: str
    lead: str
    drawing: Any = None
    open_tables: tuple[Table, ...] = ()
    tables: tuple[Table, ...] = ()


def sections(survey: Survey) -> Iterator[Section]:
    """The parts of a page for a run, in order; a part that such a run never has is left out, all where it is empty."""
    from pipeline import figures

    if not survey.counters.units:
        return

    def drawn(drawing: Any, says: str) -> Any:
        from markupsafe import Markup

        return Markup(figures.to_svg(drawing(survey), says)) if figures.has(drawing, survey) else None

    yield _acceptance(survey, drawn(figures.acceptance, "Admitted instructions and accepted rows over the run"))
    yield _rejects(survey, drawn(figures.rejects, "Rejects by reason"))
    if survey.rounds:
        yield _scores(survey, drawn(figures.scores, "Pairs by score, in each round"))
    if survey.novelty is not None:
        yield _novelty(survey, drawn(figures.novelty, "ROUGE-L to the nearest instruction held, admitted and refused"))
    yield _diversity(survey, drawn(figures.verbs, "The commonest root verbs of instructions and their objects"))
    if survey.missing.get("seeds") != NO_SEEDS:
        yield _seeds(survey, drawn(figures.nearest_seed, "ROUGE-L of admitted instructions to the nearest seed"))
    yield _lengths(survey, drawn(figures.lengths, "Words of instructions, inputs and outputs"))
    yield _engine_time(survey, drawn(figures.engine_time, "Engine time in use and lost, by cause"))


def _acceptance(survey: Survey, drawing: Any) -> Section:
    counters, pairs = survey.counters, survey.recipe == "curate"
    what, made, of = ("pairs", "examples", "instances") if pairs else ("candidates", "admitted", "candidates")
    whole = getattr(counters, of)
    if not whole:  # every unit has failed
        return Section("acceptance", "Acceptance over time", f"No {what} came of {counters.units:,} units.", drawing)
    lead = f"{getattr(counters, made):,} of {whole:,} {what} were {'accepted' if pairs else 'admitted'}"
    lead += f", {acceptance(survey)}"
    if counters.candidates and survey.recipe == "self-instruct":
        lead += f". {counters.instructions_with_rows:,} of the admitted ones came to {counters.examples:,} rows"
    counts = () if pairs else (what, "admitted")
    head = ("units", "at work", *counts, "rows", "share")
    said = "Counts from the beginning on, and the share that was accepted since the line above."
    table = Table(head, tuple(_spans(survey, pairs)), said)
    return Section("acceptance", "Acceptance over time", f"{lead}.", drawing, tables=(table,))


def _spans(survey: Survey, pairs: bool) -> Iterator[tuple[str, ...]]:
    """Some points of the progress, each with what it accepted since the one before."""
    points = [point for point in survey.progress if point.units]
    step = max(len(points) / SPANS, 1.0)
    chosen = sorted({min(round((number + 1) * step), len(points)) - 1 for number in range(min(SPANS, len(points)))})
    before = (0, 0)
    for point in (points[place] for place in chosen):
        now = (point.accepted, point.units) if pairs else (point.admitted, point.candidates)
        counts = () if pairs else (f"{point.candidates:,}", f"{point.admitted:,}")
        share = _share(now[0] - before[0], now[1] - before[1])
        yield (f"{point.units:,}", clock(point.hours * 3600), *counts, f"{point.accepted:,}", share)
        before = now


def _rejects(survey: Survey, drawing: Any) -> Section:
    whole = sum(each.count for each in survey.rejects)
    if not whole:
        return Section("reasons", "Rejects by reason", "Nothing has been refused.")
    first = survey.rejects[0]
    lead = (
        f"{whole:,} rejects, each kept in rejected/ with its reason; {_share(first.count, whole)} are {first.reason}."
    )
    rows = tuple((each.reason, each.stage, f"{each.count:,}", _share(each.count, whole)) for each in survey.rejects)
    return Section(
        "reasons", "Rejects by reason", lead, drawing, tables=(Table(("reason", "stage", "rejects", "share"), rows),)
    )


def _novelty(survey: Survey, drawing: Any) -> Section:
    found = survey.novelty
    assert found is not None
    lead = (
        f"ROUGE-L F to the nearest instruction held when each came to the gate. More than {found.threshold:g} is "
        f"refused: {found.refused.total:,} were. {found.admitted.total:,} of those admitted have another at "
        f"{found.floor:g} or more, and {found.far:,} have not (a run does not measure what is under {found.floor:g})."
    )
    rows = tuple(
        (span, f"{admitted:,}", f"{refused:,}")
        for span, admitted, refused in zip(
            _bins(found.admitted), found.admitted.counts, found.refused.counts, strict=True
        )
        if admitted or refused
    )
    table = Table(("ROUGE-L F", "admitted", "refused"), ((f"under {found.floor:g}", f"{found.far:,}", "0"), *rows))
    return Section("novelty", "Novelty", lead, drawing, tables=(table,))


def _diversity(survey: Survey, drawing: Any) -> Section:
    found = survey.diversity
    if found is None:
        return Section("diversity", "Diversity", _missing(survey, "diversity"))
    lead = (
        f"{found.verbs:,} different root verbs and {found.pairs:,} pairs of verb and object in {_sample(found)}. A "
        f"verb was found in {_share(found.with_verb, found.sample)} of them, an object too in "
        f"{_share(found.with_noun, found.sample)}; words are told apart by a word list, which errs now and then."
    )
    rows = tuple(
        (each.verb, f"{each.count:,}", ", ".join(f"{noun} {count:,}" for noun, count in each.nouns))
        for each in found.top
    )
    table = Table(("verb", "instructions", "commonest objects"), rows)
    return Section("diversity", "Diversity: verbs and their objects", lead, drawing, tables=(table,) if rows else ())


def _seeds(survey: Survey, drawing: Any) -> Section:
    title, found = "Distance from the seeds", survey.seeds
    if found is None:
        return Section("seeds", title, _missing(survey, "seeds"))
    lead = f"ROUGE-L F of admitted instructions to the nearest of {found.seeds:,} seeds, in {_sample(found)}"
    lead += (
        f": mean {found.scores.mean:.2f}, half of them at most {found.scores.median:.2f}."
        if found.scores.total
        else "."
    )
    rows = tuple(
        (span, f"{count:,}", _share(count, found.scores.total))
        for span, count in zip(_bins(found.scores), found.scores.counts, strict=True)
        if count
    )
    return Section("seeds", title, lead, drawing, tables=(Table(("ROUGE-L F", "instructions", "share"), rows),))


def _lengths(survey: Survey, drawing: Any) -> Section:
    if not survey.lengths:
        return Section("lengths", "Lengths", "There are no texts yet.")
    rows = tuple(
        (
            name,
            f"{each.total:,}",
            *(f"{value:,.0f}" for value in (each.mean, each.median, each.p90) if value is not None),
        )
        for name, each in survey.lengths.items()
    )
    summary = Table(("words of each", "texts", "mean", "median", "90 % at most"), rows)
    bins = tuple(
        Table(
            (f"words of {name}s", "texts"),
            (
                *(
                    (span, f"{count:,}")
                    for span, count in zip(_bins(each, "{:,.0f}"), each.counts, strict=True)
                    if count
                ),
                *(((f"over {each.edges[-1]:,.0f}", f"{each.over:,}"),) if each.over else ()),
            ),
        )
        for name, each in survey.lengths.items()
    )
    lead = "Words of admitted instructions, of inputs where there are any, and of the outputs of accepted rows."
    return Section("lengths", "Lengths", lead, drawing, (summary,), bins)


def _scores(survey: Survey, drawing: Any) -> Section:
    newest = survey.rounds[-1]
    lead = f"{newest.total:,} pairs asked in round {newest.number}, {newest.scored:,} scored by {newest.judge}"
    if newest.mean is not None:
        five, four = (_share(newest.at_least(score), newest.scored) for score in (5, 4))
        lead += f": mean {newest.mean:.2f}, {five} of them have a 5 (A5), {four} a 4 or a 5 (A4)"
    lead += f". {newest.unscored:,} were given no score that was believed" if newest.unscored else ""
    shown = Table(
        ("round", "judge", "asked", "scored", "mean", "A5", "A4"),
        tuple(_round(each) for each in survey.rounds),
    )
    by_score = Table(
        ("score", *(f"round {each.number}" for each in survey.rounds)),
        tuple((str(score), *(f"{each.counts.get(score, 0):,}" for each in survey.rounds)) for score in SCORES),
    )
    tables: tuple[Table, ...] = (by_score,)
    if survey.moves:
        tables += (_moves(survey),)
    return Section("scores", "Scores", f"{lead}.", drawing, (shown,) if len(survey.rounds) > 1 else (), tables)


def _round(each: Round) -> tuple[str, ...]:
    mean = f"{each.mean:.2f}" if each.mean is not None else "-"
    shares = (_share(each.at_least(score), each.scored) for score in (5, 4))
    return (str(each.number), each.judge, f"{each.total:,}", f"{each.scored:,}", mean, *shares)


def _moves(survey: Survey) -> Table:
    known = [*reversed(SCORES), *([None] if any(None in pair for pair in survey.moves) else [])]
    rows = tuple((_score(before), *(f"{survey.moves.get((before, now), 0):,}" for now in known)) for before in known)
    return Table(("before, then now", *map(_score, known)), rows, "Pairs by their score in the round before, and now.")


def _score(score: int | None) -> str:
    return "none" if score is None else str(score)


def _engine_time(survey: Survey, drawing: Any) -> Section:
    made, title = survey.throughput, "Throughput and engine time"
    if not made.hours:
        return Section("engines", title, "No time is counted yet.")
    lead = f"{clock(made.hours * 3600)} at work: {rates(made)}."
    stages = Table(
        ("stage", "calls", "prompt", "generated"),
        tuple(
            (
                stage,
                f"{calls:,}",
                f"{survey.counters.prompt_tokens[stage]:,}",
                f"{survey.counters.completion_tokens[stage]:,}",
            )
            for stage, calls in sorted(survey.counters.calls.items())
        ),
        "Calls, and their tokens.",
    )
    if not survey.engine_time:
        lead += " What the engines did with their time is not known of engines of this kind."
        return Section("engines", title, lead, drawing, (stages,))
    whole = sum(survey.engine_time.values())
    lead += (
        f" Engines were paid for {clock(whole)} together, {_share(survey.engine_time['useful'], whole)} of it useful"
    )
    came_to = f", which came to {made.rows_per_engine_hour:,.0f} rows per engine-hour"
    lead += f"{came_to if made.rows_per_engine_hour else ''}."
    if facts := facts_of(survey.counters.engine_time, survey.counters.examples):
        lead += f" An engine was busy {facts['busy']:.0%} of it: {each_engine(facts)}."
    lost = Table(
        ("engine time", "h:mm:ss", "share"),
        tuple((cause, clock(seconds), _share(seconds, whole)) for cause, seconds in survey.engine_time.items()),
    )
    return Section("engines", title, lead, drawing, (stages,), (lost,))


def _sample(found: Any) -> str:
    whole = found.sample == found.of
    return f"all {found.of:,} of them" if whole else f"an even sample of {found.sample:,} of {found.of:,}"


def _missing(survey: Survey, what: str) -> str:
    nothing = "there is nothing to show yet" if survey.ending is None else "this run made no instructions"
    return f"Not shown: {survey.missing.get(what, nothing)}."


def _bins(found: Histogram, form: str = "{:.2f}") -> Sequence[str]:
    """Each bin in words."""
    if form == "{:,.0f}" and all(
        upper - lower == 1 for lower, upper in zip(found.edges, found.edges[1:], strict=False)
    ):
        return [form.format(upper) for upper in found.edges[1:]]
    pairs = zip(found.edges, found.edges[1:], strict=False)
    return [f"{form.format(lower)} to {form.format(upper)}" for lower, upper in pairs]


def _share(part: float, whole: float) -> str:
    return f"{part / whole:.0%}" if whole else "-"
