"""What a run came to, in figures: the facts behind `report` and the notebooks, in one pass over its tables.

Counts are of all rows. What takes a look at each text (verbs, the nearest seed) is of an even sample, whose size is
said. Memory holds one file of a table, the counts and the samples, whatever the run's length.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.counters import Counters
from pipeline.diversity import Diversity, count_verbs
from pipeline.engine import Lost, useful_and_all
from pipeline.errors import InputError
from pipeline.histograms import Histogram, Tally
from pipeline.novelty import NoveltyIndex
from pipeline.novelty_files import DEFAULTS
from pipeline.reading import Snapshot
from pipeline.records import Reason
from pipeline.runs import count_attempts
from pipeline.score_counts import COLUMNS, Round, ScoreCounts
from pipeline.seeds import seeds_of
from pipeline.tables import Rows, evenly

SAMPLE = 10_000  # instructions that are looked at one by one
ROWS = 8  # accepted rows to show
PER_REASON = 2  # rejects to show of each reason
POINTS = 200  # of progress
LEAST_HOURS = 10 / 3600  # that say something of what an hour makes
NO_SEEDS = "this run has no seed tasks"
_MOST_WORDS = 20_000
_SCORES = 100  # bins between 0 and 1 that are counted; shown are half as many


@dataclass(frozen=True)
class Point:
    """Where a run stood when something was committed: counts from its beginning on.

    `hours` is the time that the run has been at work, all attempts together: neither the time between two attempts nor
    that in which engines were started is in it. `attempt` counts from 1.
    """

    units: int
    candidates: int
    admitted: int
    accepted: int  # rows in data/
    hours: float
    attempt: int


@dataclass(frozen=True)
class Refused:
    """How many rejects have this stage and reason."""

    stage: str
    reason: str
    count: int


@dataclass(frozen=True)
class Novelty:
    """ROUGE-L F to the nearest instruction held when each came to the gate.

    Scores under `floor` were not looked for: `far` admitted instructions are of these, and in no bin. What scores more
    than `threshold` was refused.
    """

    admitted: Histogram
    refused: Histogram  # as not_novel
    far: int
    threshold: float
    floor: float


@dataclass(frozen=True)
class Seeds:
    """ROUGE-L F of admitted instructions to the nearest seed (the paper's figure 4), of `sample` out of `of`."""

    scores: Histogram
    seeds: int
    sample: int
    of: int


@dataclass(frozen=True)
class Throughput:
    """What a run made in an hour at work (`Point.hours`), and of an engine's hour; 0 where no time was counted, and by
    the hour where it was less than 10 seconds."""

    hours: float
    engine_hours: float  # of all engines together; 0 where it is not known, as of an endpoint
    rows_per_hour: float
    tokens_per_s: float  # generated
    rows_per_engine_hour: float


@dataclass(frozen=True)
class Survey:
    """A run in figures. What a run does not have is empty or None; `missing` says why, by the field's name, where that
    is not plain (the seed file has changed; an extra is not installed)."""

    name: str
    folder: str
    recipe: str
    state: str  # "running", "finished" or "stopped"
    ending: Mapping[str, Any] | None
    counters: Counters
    attempts: int
    progress: tuple[Point, ...]  # from an empty run to the last commit, at most some 200 commits, evenly
    rejects: tuple[Refused, ...]  # the most frequent first
    novelty: Novelty | None
    lengths: Mapping[str, Histogram]  # words of each "instruction", "input" (where there is one) and "output"
    seeds: Seeds | None
    diversity: Diversity | None
    rounds: tuple[Round, ...]
    moves: Mapping[tuple[int | None, int | None], int]  # pairs by the score of the round before and the newest one
    throughput: Throughput
    engine_time: Mapping[str, float]  # seconds "useful" and those lost, by cause, the most first; empty: not known
    rows: tuple[dict[str, Any], ...]  # accepted ones, spread evenly over the run
    refused_rows: Mapping[str, tuple[dict[str, Any], ...]]  # by reason, the most frequent first
    missing: Mapping[str, str]


def survey(run: Snapshot, *, sample: int = SAMPLE, rows: int = ROWS, per_reason: int = PER_REASON) -> Survey:
    """Look at a run once, from its first row to its last.

    `sample` is how many instructions are looked at one by one for `seeds` and `diversity`, `rows` how many accepted
    rows and `per_reason` how many rejects of each reason are kept to show. Raises InputError for a damaged file,
    OSError where a store fails.
    """
    scores, missing = ScoreCounts(), dict[str, str]()
    admitted = _Admitted(run, sample)
    words = {"instruction": admitted.words, **_words_of_rows(run, scores)}
    refused = _Rejected(run, scores, per_reason)
    return Survey(
        name=run.name,
        folder=str(run.folder),
        recipe=run.recipe,
        state=run.state,
        ending=run.ending,
        counters=run.counters,
        attempts=count_attempts(run.folder, run.commits[-1]),
        progress=tuple(_progress(run)),
        rejects=refused.counts,
        novelty=_novelty(run, admitted, refused, missing),
        lengths={name: tally.fitted() for name, tally in words.items() if tally.total},
        seeds=_seeds(run, admitted, missing),
        diversity=_diversity(admitted, missing),
        rounds=scores.rounds,
        moves=scores.moves,
        throughput=_throughput(run.counters),
        engine_time=_engine_time(run.counters),
        rows=tuple(run.examples.sample(rows)),
        refused_rows=refused.rows(run),
        missing=missing,
    )


# The tables, each read once


class _Admitted:
    """The admitted instructions: of a run that admits none (`curate`), those of its rows."""

    def __init__(self, run: Snapshot, sample: int) -> None:
        table = run.pool if run.pool.count else run.examples
        self.count = table.count
        self.words, self.scores, self.far = Tally(_MOST_WORDS), Tally(1, per_one=_SCORES), 0
        self.texts: list[str] = []
        wanted = evenly(range(self.count), sample)
        for first, batch in _placed(table, ["instruction", "nearest_score"]):
            texts, scores = batch.columns
            self.words.add(_words(texts))
            self.far += scores.null_count
            self.scores.add(scores.drop_null())
            self.texts += texts.take(_within(wanted, first, batch.num_rows)).to_pylist()


def _words_of_rows(run: Snapshot, scores: ScoreCounts) -> dict[str, Tally]:
    """Words of the inputs that there are and of the outputs; the scores of rows are counted on the way."""
    found = {"input": Tally(_MOST_WORDS), "output": Tally(_MOST_WORDS)}
    judged = () if run.recipe == "self-instruct" else COLUMNS
    for batch in run.examples.batches([*found, *judged]):
        for name, tally in found.items():
            words = _words(batch.column(name))
            tally.add(words[words > 0] if name == "input" else words)
        if judged:
            scores.add(batch)
    return found


class _Rejected:
    """The rejects: how many of each stage and reason, the scores at the gate, and where those to show are."""

    def __init__(self, run: Snapshot, scores: ScoreCounts, per_reason: int) -> None:
        judged = () if run.recipe == "self-instruct" else COLUMNS
        self.scores = Tally(1, per_one=_SCORES)
        counts, seen = Counter[tuple[str, str]](), Counter[str]()
        wanted = {reason: evenly(range(total), per_reason) for reason, total in _by_reason(run.counters).items()}
        self._places: dict[str, list[tuple[int, int]]] = {}  # unit, and the place among its rejects
        unit, began = -1, 0  # the unit of the last row, and the place of its first one
        for first, batch in _placed(run.rejects, ["unit", "stage", "reason", "nearest_score", *judged]):
            if judged:
                scores.add(batch)
            table = pa.Table.from_batches([batch])
            for row in table.group_by(["stage", "reason"]).aggregate([([], "count_all")]).to_pylist():
                counts[row["stage"], row["reason"]] += row["count_all"]
            at_gate = table.filter(pc.equal(table["reason"], Reason.NOT_NOVEL.value))["nearest_score"]
            self.scores.add(at_gate.drop_null())
            units = batch.column("unit").to_numpy()
            reasons = batch.column("reason").dictionary_encode()
            codes = reasons.indices.to_numpy()
            for code, reason in enumerate(reasons.dictionary.to_pylist()):
                here = np.flatnonzero(codes == code)
                for place in here[_within(wanted.get(reason, ()), seen[reason], len(here))].tolist():
                    start = int(np.searchsorted(units, units[place]))
                    start = began if units[start] == unit else first + start
                    self._places.setdefault(reason, []).append((int(units[place]), first + place - start))
                seen[reason] += len(here)
            if units[-1] != unit:
                unit, began = int(units[-1]), first + int(np.searchsorted(units, units[-1]))
        self.counts = tuple(Refused(*what, count) for what, count in sorted(counts.items(), key=_most_first))
        self._reasons = [reason for reason, _ in sorted(seen.items(), key=_most_first)]

    def rows(self, run: Snapshot) -> dict[str, tuple[dict[str, Any], ...]]:
        """The rejects to show, each read from the one file that holds its unit."""
        found = {}
        for reason in self._reasons:
            places = self._places.get(reason, ())
            found[reason] = tuple(
                run.rejects.where(units=(unit, unit + 1)).arrow().slice(place, 1).to_pylist()[0]
                for unit, place in places
            )
        return found


def _by_reason(counters: Counters) -> Counter[str]:
    """How many rejects there are of each reason."""
    refused = counters.refused_candidates + counters.refused_instances
    return refused + counters.closing_reasons + counters.failure_reasons


def _placed(table: Rows, columns: Sequence[str]) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Each batch with the place of its first row."""
    first = 0
    for batch in table.batches(columns):
        if batch.num_rows:
            yield first, batch
        first += batch.num_rows


def _within(places: Sequence[int], first: int, count: int) -> Any:
    """Those of the places, in order, that lie within so many rows from the first on, counted from there."""
    start, end = np.searchsorted(places, [first, first + count])
    return np.array(places[start:end], np.int64) - first


def _words(texts: pa.Array) -> Any:
    """How many words each text has: what white space is between."""
    trimmed = pc.utf8_trim_whitespace(pc.fill_null(texts, ""))
    words = pc.list_value_length(pc.utf8_split_whitespace(trimmed)).to_numpy(zero_copy_only=False)
    return np.where(pc.equal(trimmed, "").to_numpy(zero_copy_only=False), 0, words)


def _most_first(item: tuple[Any, int]) -> tuple[int, Any]:
    return -item[1], item[0]


# What comes of them


def _progress(run: Snapshot) -> Iterator[Point]:
    for commit in evenly(run.commits, POINTS):
        counters = Counters.from_json(commit.counters)
        counts = (counters.units, counters.candidates, counters.admitted, counters.examples)
        yield Point(*counts, counters.seconds / 3600, commit.attempt)


def _novelty(run: Snapshot, admitted: _Admitted, refused: _Rejected, missing: dict[str, str]) -> Novelty | None:
    settings = run.manifest["config"].get("novelty", {})
    if run.recipe == "curate" or not settings.get("enabled", True):
        missing["novelty"] = "this run looked for no nearest instruction"
        return None
    threshold, floor = settings["threshold"], min(settings["floor"], settings["threshold"])
    return Novelty(admitted.scores.even(_SCORES), refused.scores.even(_SCORES), admitted.far, threshold, floor)


def _seeds(run: Snapshot, admitted: _Admitted, missing: dict[str, str]) -> Seeds | None:
    try:
        seeds = seeds_of(run.manifest)
    except InputError as error:
        missing["seeds"] = str(error)
        return None
    if not seeds:
        missing["seeds"] = NO_SEEDS
        return None
    if not admitted.texts:
        return None
    index = NoveltyIndex(run.manifest["config"]["novelty"].get("tokenizer", DEFAULTS.tokenizer), floor=0.0)
    index.extend([seed.instruction for seed in seeds])
    found = Tally(1, per_one=_SCORES)
    found.add([score for _, score in (near or (0, 0.0) for near in index.nearest_many(admitted.texts))])
    return Seeds(found.even(_SCORES // 2), len(seeds), len(admitted.texts), admitted.count)


def _diversity(admitted: _Admitted, missing: dict[str, str]) -> Diversity | None:
    if not admitted.texts:
        return None
    try:
        return count_verbs(admitted.texts, admitted.count)
    except InputError as error:
        missing["diversity"] = str(error)
        return None


def _throughput(counters: Counters) -> Throughput:
    hours, engine_hours = counters.seconds / 3600, useful_and_all(counters.engine_time)[1] / 3600
    return Throughput(
        hours=hours,
        engine_hours=engine_hours,
        rows_per_hour=counters.examples / hours if hours >= LEAST_HOURS else 0.0,
        tokens_per_s=counters.completion_tokens.total() / counters.seconds if hours else 0.0,
        rows_per_engine_hour=counters.examples / engine_hours if engine_hours >= LEAST_HOURS else 0.0,
    )


def _engine_time(counters: Counters) -> dict[str, float]:
    time = counters.engine_time
    useful, whole = useful_and_all(time)
    if not whole:
        return {}
    lost = sorted(((cause.value, time.get(cause, 0.0)) for cause in Lost), key=lambda item: -item[1])
    return {"useful": useful, **{cause: seconds for cause, seconds in lost if seconds > 0}}
