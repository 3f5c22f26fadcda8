"""The next round of self-curation: a finished run's pairs, scored again."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.cli import main
from pipeline.config import parse_config
from pipeline.errors import ContentFault, InputError, RunStopped
from pipeline.records import Completion, Reason, Request, Stage
from pipeline.rounds import round_config
from pipeline.runs import open_run
from pipeline.testing import ScriptedEngine, run_to_end, scripted_answer


@pytest.fixture
def first(backtranslation, tmp_path: Path) -> Path:
    """A finished run of backtranslation, some of whose pairs are not novel."""

    def answer(request: Request) -> Completion | Exception:
        scripted = scripted_answer(request)
        if request.key.stage is Stage.AUGMENTATION and request.key.unit % 10 == 0:
            return replace(scripted, text="Describe how the old harbour clock was wound every morning.")
        return scripted

    config = backtranslation(engine={"kind": "scripted", "model": "one"})
    asyncio.run(run_to_end(config, tmp_path / "one", ScriptedEngine(answer)))
    return tmp_path / "one"


def round_of(first: Path, *sets: str):
    """The configuration of the next round over a run."""
    return round_config(str(first), None, ('engine.model="two"', *sets), None)


def run(config, folder: Path, engine: ScriptedEngine | None = None):
    """Run to the end."""
    return asyncio.run(run_to_end(config, folder, engine or ScriptedEngine(delay_s=0.002)))


def judged(rows: dict[str, list[dict]]) -> dict[str, dict]:
    """Every scored row by its id."""
    both = rows["data"] + [row for row in rows["rejected"] if row["scores"]]
    return {row["id"] or f"{row['instruction_id']}/0": row for row in both}


def test_every_scored_pair_is_scored_once_more(first, tables, tmp_path) -> None:
    """Units are the pairs of data/ and rejected/ in order; each keeps its ids, text and source, and gains a round."""
    done = run(round_of(first), tmp_path / "two")
    before, after = judged(tables(first)), judged(tables(tmp_path / "two"))

    assert before.keys() == after.keys()
    assert done.state.counters.units == len(before) > 30
    assert sorted(after, key=lambda name: after[name]["unit"]) == sorted(before, key=lambda name: before[name]["unit"])
    for name, row in after.items():
        old = before[name]
        assert {key: row[key] for key in ("instruction", "output", "source", "model", "recipe")} == {
            key: old[key] for key in ("instruction", "output", "source", "model", "recipe")
        }
        assert [(score["judge"], score["round"]) for score in row["scores"]] == [("one", 1), ("two", 2)]
        assert row["scores"][0] == old["scores"][0]
        assert row["score"] == row["scores"][1]["score"]
        assert row["judge"] == "two"


def test_accepted_are_those_at_or_above_min_score(first, tables, tmp_path) -> None:
    """data/ holds the pairs whose new score is high enough, but for those the first run found too near to another."""
    run(round_of(first, "curation.min_score=3"), tmp_path / "two")
    rows = tables(tmp_path / "two")
    near = {row["instruction_id"] for row in tables(first)["rejected"] if row["reason"] == "not_novel"}

    assert near
    assert {row["score"] for row in rows["data"]} == {3, 4, 5}
    assert not near & {row["instruction_id"] for row in rows["data"]}
    kept_out = [row for row in rows["rejected"] if row["reason"] == "not_novel"]
    assert kept_out
    assert all(row["score"] >= 3 for row in kept_out)
    assert not rows["pool"]


def test_a_stopped_round_goes_on(first, tables, tmp_path) -> None:
    """A round that stopped in the middle and was started again has the rows of one that did not."""
    config = round_of(first, "shards.rows=5", "window=4")

    def stops(request: Request) -> Completion | Exception:
        return RunStopped("enough") if request.key.unit == 20 else scripted_answer(request)

    with pytest.raises(RunStopped):
        run(config, tmp_path / "two", ScriptedEngine(stops))
    half = len(judged(tables(tmp_path / "two")))
    run(config, tmp_path / "two")
    run(config, tmp_path / "whole")

    assert 0 < half < len(judged(tables(tmp_path / "whole")))
    assert tables(tmp_path / "two") == tables(tmp_path / "whole")


def test_a_third_round_keeps_all_scores(first, tables, tmp_path, capsys) -> None:
    """A round over a round has three scores per pair, and a report that shows the last move."""
    run(round_of(first), tmp_path / "two")
    run(round_config(str(tmp_path / "two"), None, ('engine.model="three"',), None), tmp_path / "three")
    row = tables(tmp_path / "three")["data"][0]
    assert main(["report", str(tmp_path / "three")]) == 0
    lines = capsys.readouterr().out

    assert [score["round"] for score in row["scores"]] == [1, 2, 3]
    assert [line.split()[5:9] for line in lines.splitlines() if line.startswith("  round ")] == [
        ["scored", "by", f"{judge}:", "mean"] for judge in ("one", "two", "three")
    ]
    assert "before \\ now" in lines


def test_only_a_finished_run_can_be_scored_again(first, backtranslation, scripted, tmp_path) -> None:
    """A stopped run, one without scores, and no run at all are each refused in a sentence."""

    def stops(request: Request) -> Completion | Exception:
        return RunStopped("enough") if request.key.unit == 20 else scripted_answer(request)

    with pytest.raises(RunStopped):
        run(backtranslation(), tmp_path / "half", ScriptedEngine(stops))
    run(scripted(target=10), tmp_path / "self")
    for folder, words in (("half", "is not finished"), ("self", "holds no scored pairs"), ("none", "holds no run")):
        config = parse_config(
            {"recipe": "curate", "candidates": str(tmp_path / folder), "engine": {"kind": "scripted"}}, "test"
        )
        with pytest.raises(InputError, match=words):
            open_run(config, tmp_path / "two")
    assert not (tmp_path / "two").exists()


def test_the_command_takes_over_what_the_run_was_configured_with(first, tmp_path, capsys) -> None:
    """`curate RUN --out RUN2 --set ...` runs with the run's judge and curation; --config replaces whole tables."""
    file = tmp_path / "other.toml"
    file.write_text('[curation]\nmin_score = 2\n[engine]\nkind = "scripted"\nmodel = "three"\n')

    assert round_of(first).curation.min_score == 4
    assert main(["curate", str(first), "--out", str(tmp_path / "two"), "--set", 'engine.model="two"']) == 0
    assert main(["curate", str(first), "--out", str(tmp_path / "three"), "--config", str(file)]) == 0
    manifest = json.loads((tmp_path / "three" / ".run" / "manifest.json").read_text())
    assert (manifest["config"]["curation"]["min_score"], manifest["model"]["name"]) == (2, "three")
    assert "finished: all pairs are scored" in capsys.readouterr().out


def test_another_model_is_asked_in_its_own_style(backtranslation, tmp_path) -> None:
    """The style that the first model had is not that of another; with --set engine.style it is as set."""
    config = backtranslation(engine={"kind": "scripted", "model": "one", "style": "chat"}, budget={"units": 3})
    run(config, tmp_path / "one")

    assert round_of(tmp_path / "one").engine.style is None
    assert round_config(str(tmp_path / "one"), None, (), None).engine.style == "chat"
    assert round_of(tmp_path / "one", "engine.style=completion").engine.style == "completion"


def test_of_another_models_engine_only_the_place_is_taken_over(backtranslation, tmp_path) -> None:
    """Revision, style, system and options of the first model are not those of another; counts and lengths are."""
    values = {"kind": "scripted", "model": "one", "revision": "v1", "style": "chat", "system": "Be kind.", "count": 2}
    options = {"max_model_len": 512, "quantization": "fp8"}
    run(backtranslation(engine={**values, "vllm": options}, budget={"units": 3}), tmp_path / "one")
    same, other = round_config(str(tmp_path / "one"), None, (), None).engine, round_of(tmp_path / "one").engine

    assert (same.revision, same.system, same.vllm) == ("v1", "Be kind.", options)
    assert (other.revision, other.system, other.count, other.vllm) == (None, None, 2, {"max_model_len": 512})


def test_how_many_engines_a_round_has(backtranslation, tmp_path) -> None:
    """As many as the run had, whether by `count` or by `min` and `max`; either takes the place of the other."""

    def engines(folder: str, *sets: str) -> tuple[int | None, int | None, int]:
        engine = round_config(str(tmp_path / folder), None, sets, None).engine
        return engine.min, engine.max, engine.count

    between = {"kind": "scripted", "model": "one", "min": 0, "max": 3}
    run(backtranslation(engine=between, budget={"units": 3}), tmp_path / "between")
    run(backtranslation(engine={"kind": "scripted", "model": "one"}, budget={"units": 3}), tmp_path / "counted")

    assert engines("between") == (0, 3, 1)
    assert engines("between", 'engine.model="two"') == (0, 3, 1)
    assert engines("between", "engine.count=2") == (None, None, 2)
    assert engines("counted") == (None, None, 1)
    assert engines("counted", "engine.min=0", "engine.max=2") == (0, 2, 1)


def test_a_round_in_the_run_itself_is_refused(first, tmp_path, capsys) -> None:
    """The folder of the new run is another, and a file may not make it another recipe."""
    file = tmp_path / "other.toml"
    file.write_text('recipe = "self-instruct"\n')

    assert main(["curate", str(first), "--out", str(first)]) == 2
    assert "name another folder" in capsys.readouterr().err
    assert main(["curate", str(first), "--out", str(tmp_path / "two"), "--config", str(file)]) == 2
    assert "leave it out" in capsys.readouterr().err


def test_a_round_without_any_score_stops_or_shows_no_move(first, tmp_path, capsys) -> None:
    """A judge that refuses every pair stops a longer round, and what it did not score has not moved."""

    def refuses(request: Request) -> Completion | Exception:
        return ContentFault(Reason.REQUEST_REFUSED, "too long")

    run(round_of(first), tmp_path / "two", ScriptedEngine(refuses))
    assert main(["report", str(tmp_path / "two")]) == 0
    lines = capsys.readouterr().out

    assert "scored by one" in lines
    assert "moved" not in lines


def test_the_report_shows_how_scores_lie(first, capsys) -> None:
    """`report` gives each score's count, A4 and A5."""
    assert main(["report", str(first)]) == 0
    shown = " ".join(capsys.readouterr().out.split())

    assert "scored by one" in shown
    assert "A5 " in shown
