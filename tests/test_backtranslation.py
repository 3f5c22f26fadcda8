"""Instruction backtranslation whole: segments, self-augmentation, self-curation, the gate and the rows."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import datasets
import pytest

from pipeline.errors import ContentFault, InputError
from pipeline.records import Completion, Reason, Request, Stage
from pipeline.report import status, summary
from pipeline.runs import open_run
from pipeline.segment_parts import tally_of
from pipeline.shards import read_commits
from pipeline.testing import ScriptedEngine, run_to_end, scripted_answer

Change = Callable[[Request, Completion], Completion | Exception]
DIGITS = ("1", "2", "3", "4", "5")


def run(config, folder: Path, change: Change = lambda _, answer: answer):
    """Run to the end with scripted answers, changed by a function."""
    engine = ScriptedEngine(lambda request: change(request, scripted_answer(request)), delay_s=0.002)
    done = asyncio.run(run_to_end(config, folder, engine))
    assert all(left == right for _, left, _, right in done.state.counters.sums())
    return done


def scored(probabilities: tuple[float, ...], unit: int | None = None) -> Change:
    """The judge gives these probabilities, to one unit or to all."""

    def change(request: Request, answer: Completion) -> Completion:
        if request.key.stage is not Stage.CURATION or unit not in (None, request.key.unit):
            return answer
        best = max(range(5), key=lambda place: probabilities[place])
        return replace(answer, text=DIGITS[best], probabilities=probabilities)

    return change


GOOD = (0.0, 0.0, 0.01, 0.09, 0.9)


def test_every_segment_is_accounted_for(backtranslation, tables, tmp_path) -> None:
    """Each piece of the corpus is a segment or counted with its reason, and each segment is one row of the run."""
    done = run(backtranslation(), tmp_path / "r")
    rows, tally = tables(tmp_path / "r"), tally_of(tmp_path / "r")

    assert tally is not None
    assert (tally.pieces, tally.kept, dict(tally.refused)) == (62, 60, {"too_short": 1, "malformed": 1})
    assert done.state.counters.units == done.state.counters.candidates == 60
    units = Counter(row["unit"] for row in rows["data"] + rows["rejected"])
    assert units == dict.fromkeys(range(60), 1)
    assert len(rows["data"]) == len(rows["pool"]) > 10


def test_a_row_says_where_its_text_is_from_and_who_judged_it(backtranslation, tables, tmp_path) -> None:
    """A row has the segment as its output, its id and origin, the model, the judge, and the score three ways."""
    run(backtranslation(engine={"kind": "scripted", "model": "writer"}), tmp_path / "r", scored(GOOD))
    row = tables(tmp_path / "r")["data"][0]

    unit = row["unit"]
    assert row["source"] == {"id": f"corpus.jsonl#{unit + 3}", "origin": f"https://example.org/{unit}"}
    assert f" of {unit} stood by" in row["output"]
    assert row["id"] == f"{row['instruction_id']}/0"
    assert (row["recipe"], row["model"], row["judge"]) == ("backtranslation", "writer", "writer")
    assert (row["score"], row["score_mass"]) == (5, pytest.approx(1.0))
    assert row["score_expected"] == pytest.approx(4.89)
    assert row["scores"] == [
        {"judge": "writer", "round": 1, "score": 5, "expected": row["score_expected"], "mass": row["score_mass"]}
    ]
    assert [each.split(":")[0] for each in row["prompt_hashes"]] == ["augmentation", "curation"]


def test_a_low_score_is_kept_with_its_pair(backtranslation, tables, tmp_path) -> None:
    """A pair under min_score is in rejected/ with score and texts, so that A4 can be cut from a run of A5."""
    run(backtranslation(curation={"min_score": 5}), tmp_path / "r", scored((0.0, 0.1, 0.1, 0.7, 0.1)))
    rows = tables(tmp_path / "r")
    low = [row for row in rows["rejected"] if row["reason"] == "low_score"]

    assert not rows["data"]
    assert {row["score"] for row in low} == {4}
    assert all(row["instruction"] and row["output"] and row["source"] for row in low)
    assert len(low) > 40


def test_a_judge_that_gives_no_score_is_not_believed(backtranslation, tables, tmp_path) -> None:
    """Where 1 to 5 have less probability together than min_mass, the pair is refused, and its score is null."""
    run(backtranslation(), tmp_path / "r", scored((0.0, 0.0, 0.0, 0.0, 0.2), unit=7))
    row = next(row for row in tables(tmp_path / "r")["rejected"] if row["unit"] == 7)

    assert (row["stage"], row["reason"], row["score"], row["score_expected"]) == ("curation", "not_a_score", None, None)
    assert row["score_mass"] == pytest.approx(0.2)
    assert row["scores"][0]["score"] is None
    assert "the digit was 5" in row["detail"]


def test_a_judge_without_probabilities_is_taken_at_its_word(backtranslation, tables, tmp_path) -> None:
    """An endpoint that gives no probabilities gives the digit alone: mass and expected score are null."""

    def plain(request: Request, answer: Completion) -> Completion:
        return replace(answer, text="4", probabilities=()) if request.key.stage is Stage.CURATION else answer

    run(backtranslation(), tmp_path / "r", plain)
    row = tables(tmp_path / "r")["data"][0]

    assert (row["score"], row["score_expected"], row["score_mass"]) == (4, None, None)


def test_an_instruction_passes_the_gate_after_its_score(backtranslation, tables, tmp_path) -> None:
    """Of two pairs with one instruction the first scores badly: the second is admitted, and a third is not novel."""

    def same(request: Request, answer: Completion) -> Completion | Exception:
        if request.key.stage is Stage.AUGMENTATION and request.key.unit in (2, 5, 9):
            return replace(answer, text="Describe how the old harbour clock was wound every morning.")
        if request.key.stage is Stage.CURATION and request.key.unit in (2, 5, 9):
            return scored((0.9, 0, 0, 0, 0) if request.key.unit == 2 else GOOD)(request, answer)
        return answer

    run(backtranslation(), tmp_path / "r", same)
    rows = tables(tmp_path / "r")

    assert [row["unit"] for row in rows["data"] if "harbour clock" in row["instruction"]] == [5]
    third = next(row for row in rows["rejected"] if row["unit"] == 9)
    assert (third["stage"], third["reason"], third["nearest_id"]) == ("novelty", "not_novel", "t/5/0")
    assert third["score"] == 5


def test_novelty_can_be_off(backtranslation, tables, tmp_path) -> None:
    """With novelty off, pairs with one instruction are all rows."""

    def same(request: Request, answer: Completion) -> Completion:
        if request.key.stage is Stage.AUGMENTATION:
            return replace(answer, text="Describe how the old harbour clock was wound every morning.")
        return scored(GOOD)(request, answer)  # type: ignore[return-value]

    run(backtranslation(novelty={"enabled": False}), tmp_path / "r", same)

    assert len(tables(tmp_path / "r")["data"]) == 60


def test_the_target_counts_accepted_pairs(backtranslation, tables, tmp_path) -> None:
    """A run with a target ends with exactly so many rows; with a larger one it goes on, to the corpus's end."""
    source = backtranslation().corpus.source
    first = run(backtranslation(source=source, target=10), tmp_path / "r")
    assert len(tables(tmp_path / "r")["data"]) == 10
    assert first.commits[-1].ending["reason"] == "target"
    run(backtranslation(source=source, target=14), tmp_path / "r")
    assert len(tables(tmp_path / "r")["data"]) == 14
    last = run(backtranslation(source=source, target=10_000), tmp_path / "r")

    assert last.commits[-1].ending["reason"] == "no_more"
    assert last.state.counters.units == 60
    run(backtranslation(source=source, target=10), tmp_path / "w")
    run(backtranslation(source=source, target=10_000), tmp_path / "w")
    assert [row["id"] for row in tables(tmp_path / "r")["data"]] == [
        row["id"] for row in tables(tmp_path / "w")["data"]
    ]


def test_a_run_at_the_end_of_its_corpus_is_complete(backtranslation, tmp_path) -> None:
    """Started again, it asks nothing and has the same ending."""
    config = backtranslation()
    run(config, tmp_path / "r")
    engine = ScriptedEngine()
    again = asyncio.run(run_to_end(config, tmp_path / "r", engine))

    assert engine.calls == []
    assert again.ending is not None
    assert "finished: the corpus is at its end" in summary(tmp_path / "r", {"run": "t"}, again.commits[-1])


def test_several_instructions_for_a_segment(backtranslation, tables, tmp_path) -> None:
    """With n = 3 each segment is asked for three times; each answer is a candidate of its own, in order."""
    done = run(backtranslation(augmentation={"n": 3}, budget={"units": 12}), tmp_path / "r")
    rows = tables(tmp_path / "r")

    assert done.state.counters.candidates == 36
    assert {row["instruction_id"].rsplit("/", 1)[1] for row in rows["data"] + rows["rejected"]} == {"0", "1", "2"}


def test_a_refused_request_is_a_failure_row_with_its_segment(backtranslation, tables, tmp_path) -> None:
    """A text that the engine refuses ends its unit with stage, reason and source; a pair it refuses, that pair."""

    def refuse(request: Request, answer: Completion) -> Completion | Exception:
        if (request.key.unit, request.key.stage) in ((3, Stage.AUGMENTATION), (4, Stage.CURATION)):
            return ContentFault(Reason.REQUEST_REFUSED, "too long")
        if request.key.unit == 4:
            return replace(answer, text="Describe the things that stand around and bear their marks.")
        return answer

    done = run(backtranslation(), tmp_path / "r", refuse)
    rows = {row["unit"]: row for row in tables(tmp_path / "r")["rejected"] if row["unit"] in (3, 4)}

    assert (rows[3]["stage"], rows[3]["reason"], rows[3]["source"]["id"]) == (
        "augmentation",
        "request_refused",
        "corpus.jsonl#6",
    )
    assert (rows[4]["stage"], rows[4]["reason"]) == ("curation", "request_refused")
    assert done.state.counters.failed_units == 1


def test_rationale_mode_asks_for_a_reason_and_then_takes_one_step(backtranslation, tables, tmp_path) -> None:
    """The score comes after the reason, in a step of its own, however the reason ended; refused pairs keep it."""
    asked: list[Request] = []

    def cut(request: Request, answer: Completion) -> Completion:
        asked.append(request)
        return replace(answer, finish_reason="length") if request.key.stage is Stage.RATIONALE else answer

    run(backtranslation(curation={"mode": "rationale", "min_score": 5}, budget={"units": 20}), tmp_path / "r", cut)
    reasons = [request for request in asked if request.key.stage is Stage.RATIONALE]
    steps = [request for request in asked if request.key.stage is Stage.CURATION]
    low = [row for row in tables(tmp_path / "r")["rejected"] if row["reason"] == "low_score"]

    assert len(reasons) == len(steps) > 10
    assert {request.sampling.max_tokens for request in steps} == {1}
    assert all(request.weigh and request.prompt.endswith("\nScore:") for request in steps)
    assert low
    assert all(row["text"].startswith("The answer") for row in low)


def test_chat_style_asks_in_turns(backtranslation, tmp_path) -> None:
    """In chat style every prompt is a user's turn; the judge's answer begins with the lead."""
    asked: list[Request] = []

    def look(request: Request, answer: Completion) -> Completion:
        asked.append(request)
        return answer

    run(backtranslation(engine={"kind": "scripted", "style": "chat"}, budget={"units": 8}), tmp_path / "r", look)

    assert {type(request.prompt) for request in asked} == {tuple}
    assert {request.lead for request in asked if request.key.stage is Stage.CURATION} == {"Score:"}


def test_a_judge_of_its_own_is_named_in_rows(backtranslation, tables, tmp_path) -> None:
    """With [judge] the rows name writer and judge apart, and another judge is another run."""
    source = backtranslation().corpus.source
    engine = {"kind": "scripted", "model": "writer"}
    config = backtranslation(source=source, engine=engine, judge={"kind": "scripted", "model": "critic"})
    run(config, tmp_path / "r")
    row = tables(tmp_path / "r")["data"][0]

    assert (row["model"], row["judge"], row["scores"][0]["judge"]) == ("writer", "critic", "critic")
    other = backtranslation(source=source, engine=engine, judge={"kind": "scripted", "model": "other"})
    with pytest.raises(InputError, match=r"judge\.model"):
        open_run(other, tmp_path / "r")


def test_a_backward_model_gets_the_text_alone_and_needs_a_judge(backtranslation, tmp_path) -> None:
    """mode = "backward" sends the bare text; with one engine and no adapter there is nobody to judge."""
    asked: list[Request] = []

    def look(request: Request, answer: Completion) -> Completion:
        asked.append(request)
        return answer

    run(backtranslation(augmentation={"mode": "backward"}, budget={"units": 4}), tmp_path / "r", look)
    first = next(request for request in asked if request.key.stage is Stage.AUGMENTATION)
    assert first.prompt.startswith("The ")
    with pytest.raises(InputError, match="nothing is there to judge"):
        open_run(
            backtranslation(augmentation={"mode": "backward"}, engine={"kind": "vllm", "model": "shipped:embedded"}),
            tmp_path / "w",
        )


def test_a_judge_that_never_gives_a_score_stops_the_run(backtranslation, tmp_path) -> None:
    """When none of the first hundred pairs is given a score, the run stops, and the sentence says what to do."""
    config = backtranslation(augmentation={"n": 4})

    def none(request: Request, answer: Completion) -> Completion:
        if request.key.stage is Stage.AUGMENTATION:
            thing = f"Describe thing number {request.key.unit} of {request.key.candidate} in words."
            return replace(answer, text="" if request.key.unit % 9 == 5 else thing)
        return scored((0.01, 0, 0, 0, 0))(request, answer)  # type: ignore[return-value]

    with pytest.raises(InputError, match=r"none of the first 1\d\d pairs was given a score.*min_mass = 0"):
        run(config, tmp_path / "r", none)


def test_status_knows_how_many_units_there_are(backtranslation, tmp_path) -> None:
    """Once the corpus is read, `status` gives its segments as the units in all, and which model judges."""
    judge = {"kind": "scripted", "model": "critic"}
    run(backtranslation(judge=judge, budget={"units": 5}), tmp_path / "r")
    facts = status(tmp_path / "r")

    assert (facts["units"], facts["judge"], facts["counts"]["units"]) == (60, "critic", 5)


def test_datasets_opens_the_run(backtranslation, tmp_path) -> None:
    """`datasets` loads the accepted pairs with scores and sources."""
    run(backtranslation(), tmp_path / "r")
    loaded = datasets.load_dataset(str(tmp_path / "r"), split="train", cache_dir=str(tmp_path / "cache"))

    assert loaded.num_rows == sum(
        file.rows for commit in read_commits(tmp_path / "r") for file in commit.files if file.path.startswith("data/")
    )
    assert set(loaded["score"]) <= {4, 5}
