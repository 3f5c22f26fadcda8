"""Where a row comes from: what its prompt showed, what that grew from, and what it is nearest to."""

from __future__ import annotations

import asyncio
import json
from importlib.resources import files
from pathlib import Path

import pytest
from rouge_score.rouge_scorer import RougeScorer

from pipeline import runs
from pipeline import tables as views
from pipeline.cli import main
from pipeline.config import parse_config
from pipeline.errors import InputError
from pipeline.lineage import Kind
from pipeline.testing import ScriptedEngine, run_to_end

SEEDS = {
    row["id"]: row["instruction"]
    for row in map(json.loads, files("prompts").joinpath("seeds.jsonl").read_text(encoding="utf-8").splitlines())
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A run whose prompts show much of its own: a window of 4 units. Nothing is changed in it."""
    folder = tmp_path_factory.mktemp("lineage") / "r"
    values = {"name": "t", "target": 200, "window": 4, "shards": {"rows": 25}, "engine": {"kind": "scripted"}}
    asyncio.run(run_to_end(parse_config(values, "test"), folder, ScriptedEngine()))
    return folder


def closure(pool: dict[str, dict], parents: list[str]) -> set[str]:
    """Every id that these demonstrations grew from, themselves included."""
    found: set[str] = set()
    waiting = list(parents)
    while waiting:
        id = waiting.pop()
        if id not in found:
            found.add(id)
            waiting += pool[id]["parents"] if id in pool else []
    return found


def test_a_row_goes_back_to_the_seeds(finished, tables):
    """Its demonstrations in order, theirs, and so on to the seeds: each once, with its text there."""
    rows = tables(finished)
    pool = {row["instruction_id"]: row for row in rows["pool"]}
    last = rows["data"][-1]
    lineage = runs.read(finished).lineage(last["id"], most=10_000)
    ancestors = {each.id: each for each in lineage.ancestors}
    machine_made = [id for id in ancestors if id in pool]

    assert lineage.rows == (last,)
    assert lineage.rejects == ()
    assert (lineage.instruction.id, lineage.instruction.text) == (last["instruction_id"], last["instruction"])
    assert [each.id for each in lineage.demonstrations] == last["parents"]
    assert ancestors.keys() == closure(pool, last["parents"])
    assert len(machine_made) > 4
    assert {id: ancestors[id].text for id in machine_made} == {id: pool[id]["instruction"] for id in machine_made}
    assert {id: each.text for id, each in ancestors.items() if each.kind == Kind.SEED} == {
        id: SEEDS[id] for id in ancestors if id not in pool
    }
    assert all(list(ancestors[id].parents) == pool[id]["parents"] for id in machine_made)
    assert lineage.beyond == 0


def test_an_instruction_has_all_that_became_of_it(finished, tables):
    """An id of an instruction gives its rows and the instances that were refused, or its closing reject."""
    rows, run = tables(finished), runs.read(finished)
    closed = next(row for row in rows["rejected"] if row["reason"] == "no_instance_kept")
    cut = next(row for row in rows["rejected"] if row["reason"] == "empty_output")
    kept = rows["data"][0]["instruction_id"]

    assert run.lineage(kept).rows == tuple(row for row in rows["data"] if row["instruction_id"] == kept)
    assert closed in run.lineage(closed["instruction_id"]).rejects
    assert run.lineage(closed["instruction_id"]).instruction.kind == Kind.ADMITTED
    assert run.lineage(cut["id"]).rejects == (cut,)
    assert run.lineage(cut["id"]).rows == ()


def test_what_was_not_novel_has_its_neighbour(finished, tables):
    """The neighbour of the reject with its text; the two texts are as near as the score says, by `rouge_score`."""
    rows = tables(finished)
    refused = [row for row in rows["rejected"] if row["reason"] == "not_novel"]
    pool = {row["instruction_id"]: row["instruction"] for row in rows["pool"]}
    scorer = RougeScorer(["rougeL"], use_stemmer=False)

    assert len(refused) > 3
    for row in refused:
        lineage = runs.read(finished).lineage(row["instruction_id"])
        near = lineage.nearest

        assert lineage.instruction.kind == Kind.REFUSED
        assert near is not None
        assert near.text == pool[row["nearest_id"]]
        assert scorer.score(near.text, row["instruction"])["rougeL"].fmeasure == lineage.instruction.nearest_score


def test_a_neighbour_that_no_prompt_showed_is_no_ancestor(finished, tables):
    """The nearest instruction is told apart from those that it grew from."""
    rows = tables(finished)
    pool = {row["instruction_id"]: row for row in rows["pool"]}
    strange = next(
        row
        for row in rows["rejected"]
        if row["reason"] == "not_novel" and row["nearest_id"] not in closure(pool, row["parents"])
    )
    lineage = runs.read(finished).lineage(strange["instruction_id"])

    assert lineage.nearest is not None
    assert strange["nearest_id"] not in {each.id for each in lineage.ancestors}


def test_a_lineage_is_bounded(finished, tables):
    """With at most one ancestor looked up, the first one shown comes, and the others are counted."""
    rows = tables(finished)
    pool = {row["instruction_id"]: row for row in rows["pool"]}
    row = next(row for row in reversed(rows["data"]) if len(pool.keys() & set(row["parents"])) == 2)
    first, second = (id for id in row["parents"] if id in pool)
    lineage = runs.read(finished).lineage(row["id"], most=1)
    beyond = {id for id in (*row["parents"], *pool[first]["parents"]) if id in pool} - {first}

    assert [each.id for each in lineage.ancestors if each.kind == Kind.ADMITTED] == [first]
    assert second not in lineage.instructions
    assert lineage.beyond == len(beyond)


def test_only_the_commits_of_its_units_are_read(finished, tables, monkeypatch):
    """A lookup of a row of one unit with seeds alone reads three files of one commit."""
    row = next(row for row in tables(finished)["data"] if not any(id.startswith("t/") for id in row["parents"]))
    names: list[str] = []
    real = views.read_table
    monkeypatch.setattr(views, "read_table", lambda place, name, *rest: names.append(name) or real(place, name, *rest))
    runs.read(finished).lineage(row["id"])

    assert len(list((finished / ".run" / "commits").iterdir())) > 5
    assert len({name.split("-")[1] for name in names}) == 1
    assert {name.split("/")[0] for name in names} == {"data", "pool", "rejected"}


def test_a_seed_is_itself(finished):
    """The id of a seed gives its text."""
    lineage = runs.read(finished).lineage("seed_3")

    assert (lineage.instruction.kind, lineage.instruction.text) == (Kind.SEED, SEEDS["seed_3"])
    assert (lineage.rows, lineage.rejects, lineage.ancestors, lineage.nearest) == ((), (), [], None)


def own_seeds(tmp_path: Path) -> Path:
    """The shipped seeds as a file of one's own."""
    path = tmp_path / "seeds.jsonl"
    path.write_text(files("prompts").joinpath("seeds.jsonl").read_text(encoding="utf-8"), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        pytest.param(lambda path: path.unlink(), "seeds.jsonl': there is no such file", id="gone"),
        pytest.param(lambda path: path.write_text("{}\n"), "has changed since run", id="changed"),
    ],
)
def test_seeds_that_cannot_be_read_are_ids_with_a_note(scripted, tables, tmp_path, spoil, words):
    """Where the seed file is gone or another one now, its ids stand alone and say why; the rest is there."""
    path = own_seeds(tmp_path)
    asyncio.run(run_to_end(scripted(target=10, seeds=str(path)), tmp_path / "r", ScriptedEngine()))
    row = tables(tmp_path / "r")["data"][0]
    spoil(path)
    run = runs.read(tmp_path / "r")
    found = run.lineage(row["id"]).demonstrations

    assert [each.id for each in found] == row["parents"]
    assert {(each.kind, each.text) for each in found} == {(Kind.SEED, None)}
    assert all(words in each.note for each in found)
    with pytest.raises(InputError, match="no such row, instruction or seed"):
        run.lineage("seed_3")


def test_what_another_run_gave_is_named_with_its_run(scripted, tables, tmp_path):
    """A demonstration that the pool was given by another run has its id, and the note says where to ask for it."""
    first = scripted(name="first", target=40)
    asyncio.run(run_to_end(first, tmp_path / "a", ScriptedEngine()))
    second = scripted(target=20, seed=5, pool={"from": str(tmp_path / "a"), "sample_imported": True})
    asyncio.run(run_to_end(second, tmp_path / "r", ScriptedEngine()))
    row = next(row for row in tables(tmp_path / "r")["data"] if any(id.startswith("first/") for id in row["parents"]))
    found = [each for each in runs.read(tmp_path / "r").lineage(row["id"]).ancestors if each.kind == Kind.ELSEWHERE]

    assert found
    assert {each.note for each in found} == {f"of the run first in {tmp_path / 'a'}"}
    assert all(runs.read(tmp_path / "a").lineage(each.id).instruction.text for each in found)


@pytest.mark.parametrize(
    ("id", "words"),
    [
        ("seed_999", "has no such row, instruction or seed; ids are as t/12/3 for an instruction"),
        ("t/0/99", "has no such row, instruction or seed"),
        ("t/9999/0/0", "unit 9999 is not committed"),
        ("other/1/2", "has no such row, instruction or seed"),
        ("t/zero/1", "has no such row, instruction or seed"),
        ("", "has no such row, instruction or seed"),
    ],
)
def test_an_id_that_is_not_there(finished, capsys, id, words):
    """One sentence and exit code 2, with what ids look like or how far the run is."""
    assert main(["inspect", str(finished), "--id", id]) == 2
    told = capsys.readouterr().err
    assert words in told
    assert told.count("\n") == 1


# Backtranslation


def test_a_pair_comes_from_its_text(backtranslation, corpus, tables, place):
    """Its segment's id, origin and very text, and its score; on a disk and in S3."""
    source = corpus()
    asyncio.run(run_to_end(backtranslation(source=source), place, ScriptedEngine()))
    texts = [json.loads(line) for line in source.read_text().splitlines()]
    run = runs.read(place)
    low = next(row for row in tables(place)["rejected"] if row["reason"] == "low_score")
    for row in (tables(place)["data"][-1], low):
        lineage = run.lineage(row["id"] or row["instruction_id"])
        (found,) = (*lineage.rows, *lineage.rejects)
        text = texts[int(found["source"]["id"].split("#")[1]) - 1]

        assert (found["output"], found["source"]["origin"]) == (text["text"], text["url"])
        assert found["scores"][-1]["score"] == found["score"] == row["score"]
        assert lineage.ancestors == []
        assert lineage.instruction.text == row["instruction"]


def test_a_pair_that_was_scored_again(backtranslation, tables, capsys, tmp_path):
    """Its id in the second round gives both scores, newest last; `inspect --id` shows both with their judges."""
    config = backtranslation(engine={"kind": "scripted", "model": "one"})
    asyncio.run(run_to_end(config, tmp_path / "r", ScriptedEngine()))
    assert main(["curate", str(tmp_path / "r"), "--out", str(tmp_path / "c"), "--set", 'engine.model="two"']) == 0
    before = tables(tmp_path / "r")["data"][-1]
    lineage = runs.read(tmp_path / "c").lineage(before["id"])
    (row,) = (*lineage.rows, *lineage.rejects)
    capsys.readouterr()

    assert [score["judge"] for score in row["scores"]] == ["one", "two"]
    assert row["scores"][0] == before["scores"][0]
    assert lineage.instruction.text == before["instruction"]
    assert main(["inspect", str(tmp_path / "c"), "--id", before["id"]]) == 0
    out = capsys.readouterr().out
    assert f"{before['score']}, expected {before['score_expected']:.2f}" in out.split("round 1")[1]
    assert "by two" in out.split("round 1")[0]
    assert f"the text of {row['source']['id']}" in out
    assert main(["inspect", str(tmp_path / "c"), "--id", f"{before['id'].split('/')[0]}/999/0"]) == 2
    assert "has no such row" in capsys.readouterr().err  # and not that a unit of the other run is not committed


# On the terminal


def test_inspect_draws_a_lineage(finished, capsys, tables):
    """The row, a line for each demonstration in order, those of a machine-made one below it, and how many there are."""
    rows = tables(finished)
    pool = {row["instruction_id"]: row for row in rows["pool"]}
    row = next(row for row in reversed(rows["data"]) if len(pool.keys() & set(row["parents"])) == 2)
    assert main(["inspect", str(finished), "--id", row["id"]]) == 0
    out = capsys.readouterr().out
    ancestors = closure(pool, row["parents"])
    made = len(ancestors & pool.keys())
    branches = [line.split()[1] for line in out.splitlines() if line.startswith(("├── ", "└── "))]

    assert branches == row["parents"]
    assert f"{made} machine-made ancestors, {len(ancestors) - made} seeds" in out
    assert all(id in out for id in ancestors)
    assert row["output"].split()[0] in out


HOSTILE = "Print \x1b[2J\x1b]0;owned\x07 the \u202egnp.exe [bold]text[/bold] of the harbour"


def test_a_lineage_is_shown_and_not_obeyed(scripted, tables, capsys, tmp_path):
    """Control characters and markup in seeds and instructions are shown as they are."""
    path = own_seeds(tmp_path)
    seeds = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps({**seed, "instruction": f"{HOSTILE} {seed['id']}"}) + "\n" for seed in seeds))
    asyncio.run(run_to_end(scripted(target=10, seeds=str(path)), tmp_path / "r", ScriptedEngine()))
    row = tables(tmp_path / "r")["data"][0]
    for id in (row["id"], row["parents"][0]):
        assert main(["inspect", str(tmp_path / "r"), "--id", id]) == 0
        out = capsys.readouterr().out
        assert "\\x1b[2J" in out
        assert "[bold]text" in out
        assert not {"\x1b", "\x07", "\u202e"} & set(out)


def test_a_text_of_the_corpus_shows_its_rows(backtranslation, tables, tmp_path, capsys):
    """`inspect --id` of a text, as a lineage names it, shows the rows and the rejects that were made of it."""
    asyncio.run(run_to_end(backtranslation(), tmp_path / "b", ScriptedEngine()))
    rows = tables(tmp_path / "b")
    for kind in ("data", "rejected"):
        source = rows[kind][-1]["source"]["id"]
        assert main(["inspect", str(tmp_path / "b"), "--id", source]) == 0
        told = capsys.readouterr().out

        assert f"made of the text of {source}: rows of {kind}/" in told
        assert all(
            (row["id"] in told) == (row["source"]["id"] == source) for row in rows[kind] if row["id"] is not None
        )
    assert main(["inspect", str(tmp_path / "b"), "--id", "corpus.jsonl#999"]) == 2
    assert "has no such row, instruction or seed" in capsys.readouterr().err
