"""Reading a run: whole tables and parts of them, in every form, as they were when the run was opened."""

from __future__ import annotations

import asyncio
import json
import random
import shutil
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import runs
from pipeline import tables as views
from pipeline.cli import main
from pipeline.config import parse_config
from pipeline.errors import InputError, RunStopped
from pipeline.shards import SCHEMAS
from pipeline.storage import folder_at
from pipeline.testing import ScriptedEngine, run_to_end, scripted_answer

NAMES = {"data": "examples", "pool": "pool", "rejected": "rejects"}


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A small finished run of several commits, which is only copied from."""
    folder = tmp_path_factory.mktemp("reading") / "r"
    values = {"name": "t", "target": 120, "window": 8, "shards": {"rows": 25}, "engine": {"kind": "scripted"}}
    asyncio.run(run_to_end(parse_config(values, "test"), folder, ScriptedEngine()))
    return folder


@pytest.fixture
def on_disk(made, tmp_path: Path) -> Path:
    """The run, on a disk."""
    return Path(shutil.copytree(made, tmp_path / "r"))


@pytest.fixture
def finished(made, place) -> str:
    """The run, on a disk and in S3."""
    for file in made.rglob("*"):
        if file.is_file():
            folder_at(place).write(file.relative_to(made).as_posix(), file.read_bytes())
    return place


@pytest.fixture
def pairs(backtranslation, tmp_path: Path) -> Path:
    """A finished run of backtranslation."""
    asyncio.run(run_to_end(backtranslation(), tmp_path / "b", ScriptedEngine()))
    return tmp_path / "b"


@pytest.fixture
def reads(monkeypatch) -> list[str]:
    """The shards that are read from now on, by name, in order."""
    names: list[str] = []
    real = views.read_table

    def noted(place: Any, name: str, *rest: Any) -> pa.Table:
        names.append(name)
        return real(place, name, *rest)

    monkeypatch.setattr(views, "read_table", noted)
    return names


@pytest.fixture
def dataset_cache(monkeypatch, tmp_path: Path) -> Path:
    """The cache of `datasets`, in a folder of the test."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    return tmp_path / "cache" / "instructmill"


def table_of(run: Any, kind: str) -> Any:
    """The view of a table by the name of its folder."""
    return getattr(run, NAMES[kind])


# What is there


def test_the_tables_are_those_of_the_run(finished, tables):
    """Every row of each table, in order, as Arrow, as rows and in small pieces, on a disk and in S3."""
    run = runs.read(finished)
    for kind, rows in tables(finished).items():
        view = table_of(run, kind)
        pieces = list(view.batches(rows=7))

        assert view.count == len(rows) > 20
        assert view.arrow().to_pylist() == rows == list(view)
        assert max(piece.num_rows for piece in pieces) == 7
        assert [row for piece in pieces for row in piece.to_pylist()] == rows


def test_the_facts_of_a_finished_run(finished):
    """Name, recipe, state, ending, units and counts are those of its manifest and ledger."""
    run = runs.read(finished)

    assert (run.name, run.recipe, run.state) == ("t", "self-instruct", "finished")
    assert run.ending["reason"] == "target"
    assert run.manifest["config"]["window"] == 8
    assert run.pool.count == run.counters.admitted == 120
    assert run.units == run.counters.units == 1 + max(row["unit"] for row in run.rejects)
    assert repr(run) == (
        f"run t in {finished}: finished; {run.examples.count} examples, 120 in the pool, {run.rejects.count} rejects"
    )


def test_columns_come_as_they_are_asked_for(on_disk, tables):
    """Some columns, in the order of asking; one that is not there is named with those that are."""
    pool = runs.read(on_disk).pool
    rows = tables(on_disk)["pool"]

    assert pool.arrow(["unit", "instruction_id"]).column_names == ["unit", "instruction_id"]
    assert pool.arrow(["unit"]).column("unit").to_pylist() == [row["unit"] for row in rows]
    with pytest.raises(InputError, match=r"pool have no column 'output'; there are instruction_id, instruction"):
        pool.arrow(["output"])
    with pytest.raises(InputError, match="give a list of names"):
        pool.arrow("unit")


def test_a_sample_is_spread_over_all_rows(on_disk, tables, reads):
    """The first, the last and those between; with few asked for, only the files that hold them are read."""
    run = runs.read(on_disk)
    rows = tables(on_disk)["data"]

    assert run.examples.sample(1) == rows[:1]
    assert run.examples.sample(3) == [rows[0], rows[round((len(rows) - 1) / 2)], rows[-1]]
    assert run.examples.sample(10_000) == rows
    kept = [row for row in rows if row["unit"] < 4]
    assert run.examples.where(units=(0, 4)).sample(2) == [kept[0], kept[-1]]
    reads.clear()
    run.examples.sample(2)
    assert len(reads) == 2 < len({file.name for file in (on_disk / "data").iterdir()}) - 1


# Filters


PARENT = "seed_3"
FILTERS = {
    "reason": ("rejected", {"reason": "not_novel"}, lambda row: row["reason"] == "not_novel"),
    "reasons": (
        "rejected",
        {"reason": ["too_short", "no_instance_kept"]},
        lambda row: row["reason"] in ("too_short", "no_instance_kept"),
    ),
    "units": ("data", {"units": (2, 5)}, lambda row: 2 <= row["unit"] < 5),
    "parent": ("pool", {"parent": PARENT}, lambda row: PARENT in row["parents"]),
    "id": ("data", {"ids": ["t/1/2/0", "t/3/0/1"]}, lambda row: row["id"] in ("t/1/2/0", "t/3/0/1")),
    "instruction": ("data", {"ids": ["t/2/4"]}, lambda row: row["instruction_id"] == "t/2/4"),
    "both": (
        "rejected",
        {"reason": "not_novel", "units": (3, 99)},
        lambda row: row["reason"] == "not_novel" and row["unit"] >= 3,
    ),
    "none": ("data", {"ids": []}, lambda row: False),
}


@pytest.mark.parametrize(("kind", "asked", "keeps"), FILTERS.values(), ids=FILTERS)
def test_where_keeps_the_rows_it_says(on_disk, tables, kind, asked, keeps):
    """By reason, units, parent and id: the very rows of which it is true, in order, and their number."""
    expected = [row for row in tables(on_disk)[kind] if keeps(row)]
    view = table_of(runs.read(on_disk), kind).where(**asked)

    assert view.arrow().to_pylist() == expected
    assert view.count == len(expected)
    assert view.arrow(["unit"]).column("unit").to_pylist() == [row["unit"] for row in expected]
    assert bool(expected) == (asked != {"ids": []})


def test_where_by_score(pairs, tables):
    """One score, several, or from one on; a pair without a score is in none of them."""
    run, rows = runs.read(pairs), tables(pairs)
    of = {score: [row for row in rows["rejected"] if row["score"] == score] for score in (1, 2, 3, None)}

    assert all(len(found) > 1 for found in of.values())
    assert list(run.rejects.where(score=3)) == of[3]
    assert run.rejects.where(score=(1, 2)).count == len(of[1]) + len(of[2])
    assert run.rejects.where(min_score=2, reason="low_score").count == len(of[2]) + len(of[3])
    assert run.examples.where(min_score=5).count == sum(row["score"] == 5 for row in rows["data"])
    assert run.examples.where(min_score=1).count == len(rows["data"])


def test_where_twice_keeps_what_both_keep(finished, tables):
    """A view of a view: all conditions hold; the first view stays as it was."""
    run = runs.read(finished)
    early = run.rejects.where(units=(0, 6))
    both = early.where(reason="not_novel")
    rows = [row for row in tables(finished)["rejected"] if row["unit"] < 6]

    assert list(early) == rows
    assert list(both) == [row for row in rows if row["reason"] == "not_novel"] != []


@pytest.mark.parametrize("asked", [{"units": (5, 6)}, {"ids": ["t/5/0", "t/5/1"]}], ids=["units", "ids"])
def test_only_the_commit_that_can_hold_them_is_read(on_disk, reads, asked):
    """Units, and ids, which carry theirs, are looked for in the one file of the one commit with that unit."""
    ledger = [json.loads(file.read_text()) for file in sorted((on_disk / ".run" / "commits").glob("*.json"))]
    (commit,) = (each for each in ledger if each["first"] <= 5 < each["end"])
    runs.read(on_disk).pool.where(**asked).arrow()

    assert reads == [file["path"] for file in commit["files"] if file["path"].startswith("pool/")]
    assert len(ledger) > 4


def test_one_file_is_read_at_a_time(on_disk, reads):
    """The first piece costs one file, whatever the run holds."""
    next(runs.read(on_disk).examples.batches())

    assert len(reads) == 1 < len(list((on_disk / "data").iterdir())) - 1


def test_an_id_of_curate_is_found(pairs, tables, tmp_path):
    """A round keeps the ids of the first run, whose units are others: they are looked for in every commit."""
    assert main(["curate", str(pairs), "--out", str(tmp_path / "c"), "--set", 'engine.model="two"']) == 0
    rows = tables(tmp_path / "c")["data"]
    moved = [row for row in rows if f"b/{row['unit']}/" not in row["id"] and f"t/{row['unit']}/" not in row["id"]]

    assert moved
    assert list(runs.read(tmp_path / "c").examples.where(ids=[moved[-1]["id"]])) == moved[-1:]


@pytest.mark.parametrize(
    ("kind", "asked", "words"),
    [
        pytest.param(
            "rejected", {"reason": "dull"}, "'dull': there is no such reason; there are request_", id="reason"
        ),
        pytest.param("data", {"reason": "not_novel"}, "examples have no column 'reason'", id="not-a-reject"),
        pytest.param("pool", {"min_score": 4}, "pool have no column 'score'", id="pool-has-no-score"),
        pytest.param("data", {"ids": "t/1/0/0"}, "give a list of ids", id="one-id"),
        pytest.param("data", {"units": (1, 2, 3)}, "the first unit and the one after the last", id="units"),
        pytest.param("data", {"units": 5}, "units = 5: give the first unit and the one", id="one-unit"),
        pytest.param("data", {"score": "5"}, "score = '5': give a whole number or a list", id="score-of-text"),
        pytest.param("data", {"score": [4, None]}, r"score = \[4, None\]: give a whole number", id="no-score"),
        pytest.param("data", {"min_score": "4"}, "min_score = '4': give a number", id="least-score-of-text"),
        pytest.param("pool", {"parent": ["seed_1"]}, r"parent = \['seed_1'\]: give one id", id="parents"),
        pytest.param("pool", {"ids": [1]}, r"ids = \[1\]: give a list of ids", id="numbers"),
        pytest.param("rejected", {"reason": 5}, "reason = 5: give a reason or a list", id="reason-of-number"),
        pytest.param("data", {"source": 1}, "source = 1: give one id", id="source"),
    ],
)
def test_a_filter_that_cannot_be_is_a_sentence(on_disk, kind, asked, words):
    """What is not there to be asked for is said before anything is read."""
    with pytest.raises(InputError, match=words) as told:
        table_of(runs.read(on_disk), kind).where(**asked)

    assert "\n" not in str(told.value)


def test_how_many_rows(on_disk, tables):
    """`len` is their number, of a view too; a sample of fewer than none is refused, as is a place that is none."""
    run, rows = runs.read(on_disk), tables(on_disk)

    assert len(run.examples) == len(rows["data"])
    assert len(run.pool.where(units=(0, 2))) == sum(row["unit"] < 2 for row in rows["pool"]) > 0
    assert run.pool.sample(0) == []
    for count in (-1, "3"):
        with pytest.raises(InputError, match=f"count = {count!r}: give a whole number of at least 0"):
            run.examples.sample(count)
    with pytest.raises(InputError, match="None is no run folder; give its path"):
        runs.read(None)


# Forms


def test_as_pandas(finished, tables):
    """A data frame of the rows; a score that is missing is not a number there."""
    pytest.importorskip("pandas")
    frame = (
        runs.read(finished).rejects.where(reason="not_novel").pandas(["id", "instruction", "nearest_score", "score"])
    )
    rows = [row for row in tables(finished)["rejected"] if row["reason"] == "not_novel"]

    assert list(frame.columns) == ["id", "instruction", "nearest_score", "score"]
    assert frame["instruction"].tolist() == [row["instruction"] for row in rows]
    assert frame["nearest_score"].tolist() == [row["nearest_score"] for row in rows]
    assert frame["score"].isna().all()


@pytest.mark.parametrize("library", ["pandas", "polars", "datasets"])
def test_a_library_that_is_not_there_is_named(on_disk, monkeypatch, library):
    """One sentence says what to install, and that Arrow needs nothing."""
    monkeypatch.setitem(sys.modules, library, None)
    examples = runs.read(on_disk).examples
    form = {"pandas": examples.pandas, "polars": examples.polars, "datasets": examples.dataset}[library]
    with pytest.raises(InputError, match=rf"^{library} is not installed.*`pip install {library}`.*\.arrow\(\)$"):
        form()


def test_as_polars(on_disk, pairs, tables):
    """A data frame of the very rows, with the lists and records in them; of no rows, of the columns alone."""
    pytest.importorskip("polars")
    for folder in (on_disk, pairs):
        run = runs.read(folder)
        for kind, rows in tables(folder).items():
            assert table_of(run, kind).polars().to_dicts() == rows
    some, none = run.examples.where(score=5).polars(["id", "scores"]), run.examples.where(ids=[]).polars()

    assert some["id"].to_list() == [row["id"] for row in tables(pairs)["data"] if row["score"] == 5] != []
    assert (none.height, none.columns) == (0, run.examples.columns)


def test_as_a_data_set(finished, tables, dataset_cache):
    """The rows from an Arrow file in the cache of `datasets`: found again for the same rows, another for others."""
    run, rows = runs.read(finished), tables(finished)["data"]
    whole = run.examples.dataset()
    few = run.examples.where(units=(0, 3)).dataset(["id", "parents"])
    (dataset_cache / "begun.arrow").touch()

    assert whole.to_list() == rows
    assert few.to_list() == [{"id": row["id"], "parents": row["parents"]} for row in rows if row["unit"] < 3]
    assert whole.cache_files != few.cache_files
    assert runs.read(finished).examples.dataset().cache_files == whole.cache_files
    assert len(list(dataset_cache.iterdir())) == 3
    assert whole.filter(lambda row: row["unit"] == 1, num_proc=2).num_rows == sum(row["unit"] == 1 for row in rows)


def test_a_data_set_is_never_that_of_other_rows(scripted, tables, tmp_path, dataset_cache):
    """After a run has gone on, or with another filter, the cache holds no rows of before for it."""
    asyncio.run(run_to_end(scripted(target=40), tmp_path / "r", ScriptedEngine()))
    run, before = runs.read(tmp_path / "r"), tables(tmp_path / "r")["pool"]

    assert run.pool.dataset().to_list() == before
    assert run.pool.where(parent=PARENT).dataset().to_list() == [row for row in before if PARENT in row["parents"]]
    asyncio.run(run_to_end(scripted(target=60), tmp_path / "r", ScriptedEngine()))
    assert run.refresh().pool.dataset().to_list() == tables(tmp_path / "r")["pool"]
    assert run.pool.dataset().to_list() == before


def test_a_data_set_that_cannot_be_written_leaves_nothing(on_disk, dataset_cache):
    """A shard that is damaged half way ends in its sentence, and no part of a file stays in the cache."""
    last = max((on_disk / "data").glob("*.parquet"))
    last.write_bytes(b"PAR1")
    with pytest.raises(InputError, match=rf"{last.name}: a shard that its commit names cannot be read"):
        runs.read(on_disk).examples.dataset()

    assert list(dataset_cache.iterdir()) == []


# A run that goes on


def test_a_snapshot_stays_as_it_was(scripted, place, tables):
    """What is committed later is seen by a refreshed snapshot and not by the old one."""
    asyncio.run(run_to_end(scripted(target=20), place, ScriptedEngine()))
    run, before = runs.read(place), tables(place)
    asyncio.run(run_to_end(scripted(target=60), place, ScriptedEngine()))
    now = run.refresh()

    assert {kind: list(table_of(run, kind)) for kind in NAMES} == before
    assert run.pool.count == run.counters.admitted == 20
    assert {kind: list(table_of(now, kind)) for kind in NAMES} == tables(place)
    assert now.pool.count == 60


def watched(config, place: str, moments: int, tables) -> None:
    """Open a run at so many random moments while a thread writes it; compare what was read with what it came to."""
    enough = threading.Event()

    def answer(request):
        return RunStopped("enough was read") if enough.is_set() else scripted_answer(request)

    def write() -> None:
        with pytest.raises(RunStopped, match="enough was read"):
            asyncio.run(run_to_end(config, place, ScriptedEngine(answer, delay_s=0.3)))

    runs.open_run(config, place).close()  # planned: there is something to open from the first moment on
    writer = threading.Thread(target=write)
    writer.start()
    seen = []
    try:
        until = time.monotonic() + 120
        while not runs.read(place).units:
            assert time.monotonic() < until, "the run does not begin"
        rng = random.Random(5)
        while len(seen) < moments:
            assert writer.is_alive()
            assert time.monotonic() < until, "the moments do not come"
            time.sleep(rng.random() * 0.08)
            run = runs.read(place)
            if len(seen) % 2:  # whatever is committed between opening and reading is not seen
                time.sleep(rng.random() * 0.04)
            seen.append((run, {kind: table_of(run, kind).arrow() for kind in NAMES}))
    finally:
        enough.set()
        writer.join()
    for kind, rows in tables(place).items():
        final = pa.Table.from_pylist(rows, schema=SCHEMAS[kind])
        for run, read in seen:
            assert read[kind].equals(final.slice(0, read[kind].num_rows))
            assert read[kind].num_rows == sum(row["unit"] < run.units for row in rows)
    for run, read in seen:
        assert (read["pool"].num_rows, read["data"].num_rows) == (run.counters.admitted, run.counters.examples)
        assert (run.state, run.ending) == ("running", None)
    assert len({run.units for run, _ in seen}) > moments // 10
    assert runs.read(place).state == "stopped"


def test_a_run_is_read_while_it_writes(scripted, tables, tmp_path):
    """Opened 50 times at random moments of a run, every read is a committed prefix, and says that the run goes on."""
    watched(scripted(target=100_000, shards={"rows": 25}), str(tmp_path / "r"), 50, tables)


def test_a_run_in_s3_is_read_while_it_writes(scripted, tables, s3):
    """The same of an object store, 10 times."""
    watched(scripted(target=100_000, shards={"rows": 25}), s3, 10, tables)


@pytest.mark.slow
def test_a_run_in_s3_is_read_50_times_while_it_writes(scripted, tables, s3):
    """The same, 50 times."""
    watched(scripted(target=100_000, shards={"rows": 60}), s3, 50, tables)


# What is no run, or none that can be read, or one without rows


def rewritten(folder: Path, **values: Any) -> None:
    """Change keys of a manifest."""
    path = folder / ".run" / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_a_folder_without_a_run(capsys, tmp_path, s3):
    """It is named with what makes one, from Python and by the command, with exit code 2."""
    for folder in (tmp_path, tmp_path / "not-there", s3):
        with pytest.raises(InputError, match="the folder holds no run; `instructmill run CONFIG --out"):
            runs.read(folder)

        assert main(["inspect", str(folder)]) == 2
        assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("lost", ["manifest.json", "commits"])
def test_a_run_that_lost_its_manifest_or_its_ledger(on_disk, scripted, capsys, lost):
    """It is called damaged with what is missing, by who reads it and by who goes on with it, and nothing is removed."""
    (on_disk / ".run" / lost).rename(on_disk.parent / lost)
    before = sorted(on_disk.rglob("*"))
    for command in ("status", "inspect", "verify"):
        assert main([command, str(on_disk)]) == 2
        told = capsys.readouterr().err
        assert f"{on_disk}: a damaged run: " in told
        assert f".run/{lost}" in told
        assert told.count("\n") == 1
    with pytest.raises(InputError, match="a damaged run"):
        runs.open_run(scripted(target=120, name="t"), on_disk)
    assert sorted(on_disk.rglob("*")) == before


def test_a_data_set_is_no_damaged_run(tmp_path, capsys):
    """A folder with shards of somebody else's in data/ holds no run, and is not called a damaged one."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train-00000-of-00001.parquet").touch()

    assert main(["status", str(tmp_path)]) == 2
    assert "the folder holds no run" in capsys.readouterr().err


def test_a_run_of_a_newer_version(on_disk, capsys):
    """A manifest or tables of a version to come are refused in one sentence, before a shard is read."""
    manifest = json.loads((on_disk / ".run" / "manifest.json").read_text())
    rewritten(on_disk, values={**manifest["values"], "schema_version": 3}, versions={"instructmill": "9.1"})

    assert main(["inspect", str(on_disk)]) == 2
    assert "made by a newer version of InstructMill (its tables are of schema 3, this one reads 2); read it with " in (
        told := capsys.readouterr().err
    )
    assert told.endswith("InstructMill 9.1\n")
    rewritten(on_disk, version=2)
    assert main(["inspect", str(on_disk)]) == 2
    assert "written by another version of InstructMill; use that one" in (told := capsys.readouterr().err)
    assert told.count("\n") == 1


def test_a_run_with_no_rows_yet(scripted, place, capsys, dataset_cache):
    """Everything works, with none of them: a run that was planned, is held, and has not committed a unit."""
    held = runs.open_run(scripted(), place)
    try:
        run = runs.read(place)

        assert (run.state, run.units, run.ending, run.counters.candidates) == ("running", 0, None, 0)
        for kind in NAMES:
            view = table_of(run, kind)
            assert (view.count, list(view), view.sample(3), view.arrow().num_rows) == (0, [], [], 0)
            assert view.arrow().column_names == view.columns == view.dataset().column_names
            assert view.where(units=(0, 5)).pandas().shape == (0, len(view.columns))
        with pytest.raises(InputError, match=r"t/0/1: unit 0 is not committed; .* has 0 units"):
            run.lineage("t/0/1")
        assert main(["inspect", place]) == 0
        assert main(["inspect", place, "--rejected"]) == 0
        out = capsys.readouterr().out
        assert out.count(f"run t in {place}: running; 0 examples, 0 in the pool, 0 rejects so far") == 2
        assert "no rows yet" in out
    finally:
        held.close()
    assert runs.read(place).state == "stopped"


# inspect


def told(capsys, *arguments: object) -> str:
    """What `inspect` prints."""
    assert main(["inspect", *map(str, arguments)]) == 0
    return capsys.readouterr().out


def test_inspect_begins_with_the_run(on_disk, capsys, tables):
    """Its state and counts, then rows that are spread over it."""
    rows = tables(on_disk)["data"]
    out = told(capsys, on_disk, "-n", 2)

    assert "finished;" in out
    assert f"2 of {len(rows)} rows of data/" in out
    assert rows[0]["id"] in out
    assert rows[-1]["id"] in out


def test_inspect_counts_rejects_by_reason(on_disk, capsys, tables):
    """Each reason with its rows in rejected/ and their share, the most frequent first."""
    counts = Counter(row["reason"] for row in tables(on_disk)["rejected"])
    lines = told(capsys, on_disk, "--rejected").splitlines()
    start = next(place for place, line in enumerate(lines) if line.split()[:2] == ["reason", "rejects"])
    found = [line.split() for line in lines[start + 1 : start + 1 + len(counts)]]

    assert {name: (int(count), share) for name, count, share, *_ in found} == {
        name: (count, f"{count / counts.total():.1%}") for name, count in counts.items()
    }
    assert [int(line[1]) for line in found] == sorted(counts.values(), reverse=True)
    assert f"5 of {counts.total()} rows of rejected/" in lines[start + 1 + len(counts)]


def test_inspect_takes_one_id_alone(on_disk, capsys):
    """With --id there is nothing to choose among: --reason is refused with exit code 2."""
    assert main(["inspect", str(on_disk), "--id", "t/0/4/0", "--reason", "not_novel"]) == 2
    assert "leave --rejected and --reason out" in capsys.readouterr().err


def test_a_damaged_shard_is_named_when_it_is_read(on_disk):
    """Opening reads no shard; reading the torn one says which it is, and the others stay readable."""
    torn = max((on_disk / "pool").glob("*.parquet"))
    torn.write_bytes(torn.read_bytes()[:100])
    run = runs.read(on_disk)

    assert run.pool.where(units=(0, 1)).count > 0
    with pytest.raises(InputError, match=rf"{torn.name}: a shard that its commit names cannot be read"):
        run.pool.arrow()


def test_a_file_that_no_commit_names_is_not_read(on_disk, tables):
    """What a kill left beside the shards is no row of the run."""
    rows = tables(on_disk)["pool"]
    pq.write_table(pa.Table.from_pylist(rows), on_disk / "pool" / "pool-000099.parquet")

    assert list(runs.read(on_disk).pool) == rows


def test_an_id_with_a_number_without_end_is_no_id_of_a_run():
    """It is looked up like any other, and is no fault of ours."""
    assert views.place_in("t", f"t/{'9' * 5000}/0") is None
    assert views.place_in("t", "t/12/0") == (12, 0)
