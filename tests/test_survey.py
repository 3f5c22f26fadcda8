"""What a survey of a run finds, beside the rows themselves."""

from __future__ import annotations

import asyncio
import random
import statistics
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rouge_score.rouge_scorer import RougeScorer

from pipeline import diversity, runs
from pipeline import tables as views
from pipeline.config import parse_config
from pipeline.histograms import Histogram, Tally
from pipeline.records import Completion, Example, Reason, Reject, Request, Stage, UnitResult
from pipeline.rounds import round_config
from pipeline.runs import open_run
from pipeline.seeds import parse_seeds, read_seed_text
from pipeline.storage import folder_at
from pipeline.survey import survey
from pipeline.tables import evenly
from pipeline.testing import ScriptedEngine, run_to_end, scripted_answer


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A small finished run of several commits, which is only read."""
    folder = tmp_path_factory.mktemp("survey") / "r"
    values = {"name": "t", "target": 120, "window": 8, "shards": {"rows": 25}, "engine": {"kind": "scripted"}}
    asyncio.run(run_to_end(parse_config(values, "test"), folder, ScriptedEngine()))
    return folder


def values_of(histogram: Histogram) -> Counter[float]:
    """Counts by the upper edge of their bin, empty ones left out."""
    return Counter({edge: count for edge, count in zip(histogram.edges[1:], histogram.counts, strict=True) if count})


def commit(run: Any, units: int, **rows: Any) -> None:
    """Commit units, all of whose rows are in the first one."""
    first = run.state.counters.units
    results = [UnitResult(first, **rows), *(UnitResult(unit) for unit in range(first + 1, first + units))]
    for result in results:
        run.state.counters.add(result)
    run.commit(results, run.state.counters, [(0, 0)] * units, None, 0)


# Counts


def test_the_counts_are_those_of_the_rows(made, tables, place):
    """Rejects by stage and reason, words and scores at the gate are those counted one by one, on a disk and in S3."""
    for file in made.rglob("*"):
        if file.is_file():
            folder_at(place).write(file.relative_to(made).as_posix(), file.read_bytes())
    rows, found = tables(made), survey(runs.read(place))

    assert {(each.stage, each.reason): each.count for each in found.rejects} == Counter(
        (row["stage"], row["reason"]) for row in rows["rejected"]
    )
    words = {
        "instruction": [len(row["instruction"].split()) for row in rows["pool"]],
        "input": [len(row["input"].split()) for row in rows["data"] if row["input"].strip()],
        "output": [len(row["output"].split()) for row in rows["data"]],
    }
    for name, expected in words.items():
        assert values_of(found.lengths[name]) == Counter(max(1, count) for count in expected)
        assert found.lengths[name].mean == pytest.approx(statistics.mean(expected))
    near = [row["nearest_score"] for row in rows["pool"] if row["nearest_score"] is not None]
    assert found.novelty.admitted.total == len(near) > 0
    assert found.novelty.far == len(rows["pool"]) - len(near) > 0
    assert found.novelty.refused.total == sum(row["reason"] == "not_novel" for row in rows["rejected"]) > 0


def test_a_row_without_an_input_counts_for_no_input(scripted, tmp_path):
    """Lengths of inputs are of those that there are; white space alone is none. Outputs count whatever they hold."""
    fields: dict[str, Any] = dict.fromkeys(("nearest_id", "nearest_score", "is_classification"))
    fields |= {"parents": (), "prompt_hashes": (), "finish_reason": "stop", "prompt_tokens": 1, "completion_tokens": 1}
    run = open_run(scripted(), tmp_path / "r")
    for unit, (given, output) in enumerate([("", "one"), (" \n\t", ""), (" two\u00a0words ", "a  b\nc")]):
        row = Example(f"t/{unit}/0/0", f"t/{unit}/0", "Do it.", given, output, unit, **fields)
        commit(run, 1, instances=1, examples=(row,))
    run.close()
    found = survey(runs.read(tmp_path / "r")).lengths

    assert (found["input"].total, found["input"].mean) == (1, 2.0)
    assert (found["output"].total, found["output"].mean) == (3, pytest.approx(4 / 3))


def test_every_shard_is_read_once_for_the_counts(made, monkeypatch):
    """One pass: no file is read twice but for the rows that are shown, and no column of a reject's text at all."""
    read: list[tuple[str, tuple[str, ...]]] = []
    real = views.read_table

    def noted(place: Any, name: str, kind: str, columns: list[str]) -> Any:
        read.append((name, tuple(columns)))
        return real(place, name, kind, columns)

    monkeypatch.setattr(views, "read_table", noted)
    found = survey(runs.read(made), rows=0, per_reason=0)

    assert len(read) == len({name for name, _ in read}) > 10
    assert not any({"text", "parents"} & set(columns) for _, columns in read)
    assert found.rows == ()
    assert not any(found.refused_rows.values())


def test_progress_ends_with_the_counts_of_the_run(made, monkeypatch):
    """It begins with nothing and ends with what the ledger counts; of many commits it has some, evenly."""
    run = runs.read(made)
    points = survey(run).progress
    last = points[-1]

    assert (points[0].units, points[0].candidates, points[0].hours) == (0, 0, 0.0)
    assert (last.units, last.candidates, last.admitted) == (run.units, run.counters.candidates, 120)
    assert last.accepted == run.examples.count
    assert last.hours == pytest.approx(run.counters.seconds / 3600)
    assert [point.units for point in points] == sorted({point.units for point in points})
    monkeypatch.setattr("pipeline.survey.POINTS", 3)
    assert survey(run).progress == (points[0], points[(len(points) - 1) // 2], last)


def test_hours_leave_out_the_time_between_attempts(scripted, tmp_path):
    """A run that lay still for a day between two attempts was at work no longer for it."""
    commit(open_twice(scripted, tmp_path, 1800), 2)
    found = survey(runs.read(tmp_path / "r"))

    assert [(point.attempt, point.hours) for point in found.progress] == [(1, 0.0), (1, 0.5), (2, 0.5)]
    assert found.attempts == 2


def open_twice(scripted: Any, tmp_path: Path, seconds: float) -> Any:
    """A run that was at work for so many seconds, opened again."""
    run = open_run(scripted(), tmp_path / "r")
    run.state.counters.seconds = seconds
    commit(run, 2)
    run.close()
    run = open_run(scripted(), tmp_path / "r")
    run.close()
    return run


def test_an_empty_run_has_an_empty_survey(scripted, tmp_path):
    """Nothing is committed yet: all parts are there and empty, and it is no fault."""
    open_run(scripted(), tmp_path / "r").close()
    found = survey(runs.read(tmp_path / "r"))

    assert (found.rejects, found.rows, found.rounds, dict(found.lengths), found.refused_rows) == ((), (), (), {}, {})
    assert (found.seeds, found.diversity, found.throughput.rows_per_hour) == (None, None, 0.0)
    assert len(found.progress) == 1
    assert found.novelty.admitted.total == 0


def test_engine_time_is_whole_and_the_largest_loss_comes_first(scripted, tmp_path):
    """Useful time and each loss add up to all of it; what was never lost is left out; redone work is not useful."""
    run = open_run(scripted(), tmp_path / "r")
    run.state.counters.engine_time = {"full": 100.0, "loading": 5.0, "tail": 20.0, "redone": 10.0, "window": 0.0}
    commit(run, 1)
    run.close()

    assert list(survey(runs.read(tmp_path / "r")).engine_time.items()) == [
        ("useful", 90.0),
        ("tail", 20.0),
        ("redone", 10.0),
        ("loading", 5.0),
    ]


def test_a_score_at_an_edge_lies_below_it():
    """What was admitted at exactly the threshold is left of its line, and what is above it by a hair is right of it."""
    found = values_of(tallied([0.7, 0.7000000000000001, 0.55, 0.0, 1.0]).even(100))

    assert found == {0.7: 1, 0.71: 1, 0.55: 1, 0.01: 1, 1.0: 1}


def test_long_texts_do_not_flatten_the_histogram():
    """Bins hold 99 in 100 texts and are 40 at most; the few that are far longer are counted apart."""
    tally = Tally(20_000)
    tally.add(np.array([*range(1, 301)] * 10 + [5_000] * 3 + [90_000]))
    found = tally.fitted()

    assert (found.edges[1], found.edges[-1], found.over) == (10, 300, 4)
    assert set(found.counts) == {100}
    assert (found.total, found.median, found.p90) == (3004, 151, 271)


# Rows to show


def test_shown_rejects_lie_evenly_among_those_of_their_reason(made, tables):
    """Of each reason, the first, the last and those between, whole, whatever unit and file they are in."""
    refused = tables(made)["rejected"]
    found = survey(runs.read(made), per_reason=3).refused_rows

    assert list(found) == [
        reason for reason, _ in sorted(counted(refused).items(), key=lambda each: (-each[1], each[0]))
    ]
    for reason, rows in found.items():
        assert list(rows) == evenly([row for row in refused if row["reason"] == reason], 3)


def counted(refused: list[dict[str, Any]]) -> Counter[str]:
    """Rejects by reason."""
    return Counter(row["reason"] for row in refused)


def test_shown_rejects_are_right_where_a_unit_lies_in_two_batches(scripted, tmp_path, monkeypatch):
    """The place of a reject among those of its unit is counted across the pieces that a file is read in."""
    run = open_run(scripted(), tmp_path / "r")
    reasons = random.Random(1).choices((Reason.EMPTY, Reason.TOO_LONG, Reason.TOO_SHORT), k=40)
    for unit in range(2):
        refused = tuple(
            Reject(unit, Stage.FILTER, reason, text=f"{unit}/{place}", instruction_id=f"t/{unit}/{place}")
            for place, reason in enumerate(reasons)
        )
        commit(run, 1, candidates=40, rejects=refused)
    run.close()
    monkeypatch.setattr(views.Rows.batches, "__defaults__", (None, 7))
    snapshot = runs.read(tmp_path / "r")

    for reason, rows in survey(snapshot, per_reason=50).refused_rows.items():
        assert list(rows) == list(snapshot.rejects.where(reason=reason))


# Samples


def test_a_large_run_is_sampled_evenly_and_says_so(made, tables, monkeypatch):
    """What looks at texts one by one is given so many, the first and the last included, and states both numbers."""
    given: list[str] = []
    monkeypatch.setattr("pipeline.survey.count_verbs", lambda texts, of: given.extend(texts))
    found = survey(runs.read(made), sample=7)

    assert given == [row["instruction"] for row in evenly(tables(made)["pool"], 7)]
    assert (found.seeds.sample, found.seeds.of, found.seeds.seeds) == (7, 120, 175)


def test_the_nearest_seed_is_that_of_rouge_score(made, tables):
    """The scores are those that the reference implementation gives, the best over all seeds."""
    texts = [row["instruction"] for row in evenly(tables(made)["pool"], 12)]
    source = "shipped:seeds.jsonl"
    seeds = [seed.instruction for seed in parse_seeds(read_seed_text(source), source)]
    scorer = RougeScorer(["rougeL"], use_stemmer=False)
    best = [max(scorer.score(seed, text)["rougeL"].fmeasure for seed in seeds) for text in texts]
    found = survey(runs.read(made), sample=12).seeds.scores

    assert found.mean == pytest.approx(statistics.mean(best))
    assert values_of(found) == values_of(tallied(best).even(50))


def tallied(values: list[float]) -> Tally:
    """A tally of scores."""
    tally = Tally(1, per_one=100)
    tally.add(np.array(values))
    return tally


def test_a_changed_seed_file_is_said_and_all_else_is_found(scripted, tmp_path):
    """Distances to other seeds than the run's would be wrong: the part is missing, with the reason."""
    seeds = tmp_path / "seeds.jsonl"
    seeds.write_text(read_seed_text("shipped:seeds.jsonl"))
    asyncio.run(run_to_end(scripted(seeds=str(seeds), target=20), tmp_path / "r", ScriptedEngine()))
    seeds.write_text(seeds.read_text().split("\n", 1)[1])
    found = survey(runs.read(tmp_path / "r"))

    assert found.seeds is None
    assert "has changed since run t began" in found.missing["seeds"]
    assert found.diversity.of == 20


def test_without_the_extra_the_verbs_alone_are_missing(made, monkeypatch):
    """The survey of a light installation has all else, and says which extra brings them."""
    monkeypatch.setitem(sys.modules, "lemminflect", None)
    diversity._lemmas.cache_clear()
    diversity._dictionary.cache_clear()
    found = survey(runs.read(made))

    assert found.diversity is None
    assert "pip install 'instructmill[report]'" in found.missing["diversity"]
    assert found.seeds is not None


# Scores


def test_rounds_and_moves_are_counted_over_accepted_and_refused_pairs(backtranslation, tmp_path):
    """Each round by its judge, then how pairs moved from one to the next, as in the rows of the second run."""
    asyncio.run(run_to_end(backtranslation(), tmp_path / "one", ScriptedEngine()))
    second = round_config(str(tmp_path / "one"), None, ('engine.model="two"',), str(tmp_path / "two"))

    def answer(request: Request) -> Completion:
        scripted = scripted_answer(request)
        turned = scripted.probabilities[::-1] if request.key.unit % 3 else (0.01,) * len(scripted.probabilities)
        return replace(scripted, probabilities=turned)

    asyncio.run(run_to_end(second, tmp_path / "two", ScriptedEngine(answer)))
    run = runs.read(tmp_path / "two")
    found = survey(run)
    pairs = [row for row in (*run.examples, *run.rejects) if row["scores"]]
    moves = Counter(tuple(score["score"] for score in row["scores"]) for row in pairs)

    assert [each.number for each in found.rounds] == [1, 2]
    for each in found.rounds:
        given = Counter(row["scores"][each.number - 1]["score"] for row in pairs)
        assert {**each.counts, None: each.unscored} == {score: given[score] for score in (1, 2, 3, 4, 5, None)}
    assert found.moves == moves
    assert len(moves) > 3
    assert any(None in move for move in moves)
    assert found.novelty is None
    assert "novelty" in found.missing
    assert found.lengths["instruction"].total == run.examples.count > 0


def test_what_is_over_the_last_slot_is_counted_apart():
    """Where most values are larger than any slot, the bins end with the slots."""
    tally = Tally(20_000)
    tally.add([3, *[25_000] * 9])
    found = tally.fitted()

    assert (sum(found.counts), found.over, found.total) == (1, 9, 10)
    assert found.edges[-1] == 20_000
