"""A pool that starts from another run's: what it holds, what is drawn from it, and that it is pinned."""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from rouge_score.rouge_scorer import RougeScorer

from pipeline.errors import InputError
from pipeline.novelty_fill import fill
from pipeline.other_runs import other_run
from pipeline.plan import make_plan
from pipeline.records import Completion, Request, Stage
from pipeline.rounds import round_config
from pipeline.runs import open_run
from pipeline.testing import ScriptedEngine, run_to_end, scripted_answer


def run(config, folder: Path, engine: ScriptedEngine | None = None):
    """Run to the end."""
    return asyncio.run(run_to_end(config, folder, engine or ScriptedEngine(delay_s=0.002)))


@pytest.fixture
def first(scripted, tmp_path: Path) -> Path:
    """A finished run of Self-Instruct."""
    run(scripted(target=80), tmp_path / "first")
    return tmp_path / "first"


def test_what_another_run_admitted_is_not_made_again(first, scripted, tables, tmp_path) -> None:
    """No admitted instruction is nearer than the threshold to an imported one, and some are refused for that."""
    run(scripted(name="s", seed=7, target=40, pool={"from": str(first)}), tmp_path / "r")
    rows, imported = tables(tmp_path / "r"), [row["instruction"] for row in tables(first)["pool"]]
    scorer = RougeScorer(["rougeL"])
    nearest = max(scorer.score(new["instruction"], old)["rougeL"].fmeasure for new in rows["pool"] for old in imported)

    assert nearest <= 0.7
    assert any(str(row["nearest_id"]).startswith("t/") for row in rows["pool"] + rows["rejected"])


def test_imports_are_drawn_only_when_asked(first, scripted, tables, tmp_path) -> None:
    """Demonstrations come from imports with sample_imported, and only then."""
    run(scripted(name="s", target=30, pool={"from": [str(first)]}), tmp_path / "off")
    run(scripted(name="s", target=30, pool={"from": [str(first)], "sample_imported": True}), tmp_path / "on")
    parents = {
        name: {parent for row in tables(tmp_path / name)["pool"] for parent in row["parents"]} for name in ("off", "on")
    }

    assert not [parent for parent in parents["off"] if parent.startswith("t/")]
    assert len([parent for parent in parents["on"] if parent.startswith("t/")]) > 5


def test_a_grown_source_changes_nothing_for_a_run_that_goes_on(first, scripted, tables, tmp_path) -> None:
    """What the other run admits later is not seen by a resume; a new run sees it."""
    config = scripted(name="s", target=20, pool={"from": str(first)})
    run(config, tmp_path / "r")
    identity = make_plan(config).imports[0].identity
    run(scripted(target=120), first)
    more = run(scripted(name="s", target=40, pool={"from": str(first)}), tmp_path / "r")

    assert more.plan.imports[0].identity == identity != make_plan(config).imports[0].identity
    assert len(tables(tmp_path / "r")["pool"]) == 40


def test_another_source_is_another_run(first, scripted, tmp_path) -> None:
    """With another run in the place of the source, or none, the folder is refused by the key's name."""
    config = scripted(name="s", target=20, pool={"from": str(first)})
    run(config, tmp_path / "r")
    shutil.rmtree(first)
    with pytest.raises(InputError, match=r"pool\.from: .*first holds no run"):
        open_run(config, tmp_path / "r")
    run(scripted(target=80, seed=3), first)
    with pytest.raises(InputError, match=r"differs in pool\.from"):
        open_run(config, tmp_path / "r")


def test_backtranslation_starts_from_what_self_instruct_made(first, backtranslation, tables, tmp_path) -> None:
    """Both recipes share the pool: an instruction of the imported run is refused as not novel."""
    taken = tables(first)["pool"][0]["instruction"]

    def answer(request: Request) -> Completion | Exception:
        scripted = scripted_answer(request)
        if request.key.stage is Stage.AUGMENTATION and request.key.unit == 1:
            return replace(scripted, text=taken)
        if request.key.stage is Stage.CURATION and request.key.unit == 1:
            return replace(scripted, text="5", probabilities=(0.0, 0.0, 0.0, 0.0, 1.0))
        return scripted

    run(backtranslation(name="b", pool={"from": str(first)}), tmp_path / "r", ScriptedEngine(answer))
    row = next(row for row in tables(tmp_path / "r")["rejected"] if row["unit"] == 1)

    assert (row["reason"], row["nearest_score"]) == ("not_novel", 1.0)
    assert row["nearest_id"] == tables(first)["pool"][0]["instruction_id"]


def test_what_a_round_accepted_is_not_made_again(backtranslation, tables, tmp_path) -> None:
    """A round of curation admits nothing: as a source of the pool, what it accepted counts."""
    source = backtranslation().corpus.source
    run(backtranslation(name="b", source=source), tmp_path / "one")
    run(round_config(str(tmp_path / "one"), None, ("curation.min_score=2",), None), tmp_path / "two")
    imported = [each.instruction for each in other_run(str(tmp_path / "two"), "pool.from").instructions()]

    assert imported
    assert imported == [row["instruction"] for row in tables(tmp_path / "two")["data"]]


def test_other_run_reads_in_order(first, tables) -> None:
    """Imports come in the order in which they were admitted."""
    ids = [each.id for each in other_run(str(first), "pool.from").instructions()]

    assert ids == [row["instruction_id"] for row in tables(first)["pool"]]


def test_the_full_nearest_looks_among_imports_too(first, scripted, tables, tmp_path) -> None:
    """`novelty --fill` of a run with imports finds their instructions as the nearest ones."""
    run(scripted(name="s", seed=7, target=20, pool={"from": str(first)}), tmp_path / "r")
    fill(tmp_path / "r", tmp_path / "nearest.parquet")
    nearest = pq.read_table(tmp_path / "nearest.parquet")["nearest_id"].to_pylist()

    assert any(name.startswith("t/") for name in nearest)
