"""Planning, opening and refusing run folders."""

from __future__ import annotations

import asyncio
import gc
import json
import re

import pytest

from pipeline.errors import InputError, RunStopped
from pipeline.fingerprint import differing_keys
from pipeline.plan import make_plan
from pipeline.runs import is_running, open_planned, open_run, plan_for, read_events
from pipeline.shards import read_manifest
from pipeline.testing import ScriptedEngine, run_to_end


def test_the_manifest_is_written_once_with_what_the_run_is_made_of(scripted, tmp_path):
    """Configuration, fingerprint, window, prompts with text and hash, seeds, versions; no path of the run folder."""
    asyncio.run(run_to_end(scripted(out="somewhere", budget={"units": 1}), tmp_path / "r", ScriptedEngine()))
    before = (tmp_path / "r" / ".run" / "manifest.json").read_text()
    open_run(scripted(target=99), tmp_path / "r").close()
    manifest = read_manifest(tmp_path / "r")

    assert (tmp_path / "r" / ".run" / "manifest.json").read_text() == before
    assert manifest["run"] == "t"
    assert manifest["window"] == 8
    assert manifest["seeds"]["rows"] == 175
    assert set(manifest["prompts"]) == {"bootstrap", "classification", "instance_input_first", "instance_output_first"}
    assert "somewhere" not in before


@pytest.mark.parametrize(
    "change",
    [
        {"target": 999},
        {"budget": {"units": 5}},
        {"exhaustion": {"share": 0.5}},
        {"shards": {"rows": 7}},
        {"novelty": {"workers": 3}},
        {"out": "elsewhere"},
        {"engine": {"kind": "scripted", "count": 3, "vllm": {"max_num_seqs": 9}}},
    ],
    ids=lambda change: next(iter(change)),
)
def test_what_changes_no_row_is_not_in_the_fingerprint(scripted, change):
    """Target, budgets, exhaustion, counts, shard sizes, paths and capacity options may change between two starts."""
    assert make_plan(scripted()).fingerprint == make_plan(scripted(**change)).fingerprint


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"seed": 7}, "seed"),
        ({"name": "u"}, "name"),
        ({"window": 9}, "window"),
        ({"compat": "self-instruct"}, "compat"),
        ({"bootstrap": {"machine_made": 3}}, "bootstrap.machine_made"),
        ({"bootstrap": {"sampling": {"temperature": 0.9}}}, "bootstrap.sampling.temperature"),
        ({"filters": {"min_words": 2}}, "filters.min_words"),
        ({"novelty": {"threshold": 0.6}}, "novelty.threshold"),
        ({"instances": {"limit": 2}}, "instances.limit"),
        ({"prompts": {"bootstrap": "shipped:demo/bootstrap.txt"}}, "prompts.bootstrap"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_changes_rows_is_in_the_fingerprint_and_named(scripted, tmp_path, change, key):
    """A folder of another configuration is refused with the differing key and both values; nothing is changed in it."""
    asyncio.run(run_to_end(scripted(budget={"units": 1}), tmp_path / "r", ScriptedEngine()))
    files = sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError, match=rf"differs in {re.escape(key)} \(.* there, .* here\)\. Restore these keys"):
        open_run(scripted(**change), tmp_path / "r")

    assert sorted(tmp_path.rglob("*")) == files


def test_an_auto_window_is_read_from_the_manifest(scripted, tmp_path):
    """`auto` depends on the target when a run is planned, and never again."""
    open_run(scripted(window="auto", target=1600), tmp_path / "r").close()
    again = open_run(scripted(window="auto", target=3200), tmp_path / "r")
    again.close()

    assert again.plan.window == 64 == read_manifest(tmp_path / "r")["window"]


def test_a_second_writer_is_refused_while_the_first_is_there(scripted, tmp_path):
    """The folder in use is refused naming the holder, and free again when the holder has closed it."""
    first = open_run(scripted(), tmp_path / "r")
    with pytest.raises(RunStopped, match=r"another process is writing to this run \(process \d+ on"):
        open_run(scripted(), tmp_path / "r")
    assert is_running(tmp_path / "r")
    first.close()
    open_run(scripted(), tmp_path / "r").close()

    assert not is_running(tmp_path / "r")


def test_a_folder_with_other_things_in_it_is_refused(scripted, tmp_path):
    """A folder that is not empty and holds no run is left alone."""
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match="not empty and holds no run"):
        open_run(scripted(), tmp_path)

    assert [file.name for file in tmp_path.iterdir()] == ["thesis.txt"]


def test_uncommitted_files_are_removed_on_start_and_noted(scripted, tmp_path):
    """What a killed run left without a record goes, and the log says so."""
    open_run(scripted(), tmp_path / "r").close()
    (tmp_path / "r" / "data" / "train-000001.parquet").write_bytes(b"half")
    open_run(scripted(), tmp_path / "r").close()
    removed = [event["files"] for event in read_events(tmp_path / "r") if event["event"] == "removed_uncommitted_files"]

    assert removed == [["data/train-000001.parquet"]]
    assert not (tmp_path / "r" / "data" / "train-000001.parquet").exists()


def test_the_log_has_one_start_per_attempt_and_every_commit(scripted, tmp_path):
    """Times live in the log: a start per attempt and an event per commit."""
    for target in (20, 30):
        asyncio.run(run_to_end(scripted(target=target), tmp_path / "r", ScriptedEngine()))
    events = read_events(tmp_path / "r")

    assert [(e["attempt"], e["target"]) for e in events if e["event"] == "start"] == [(1, 20), (2, 30)]
    numbers = [e["number"] for e in events if e["event"] == "commit"]
    assert numbers == list(range(1, len(numbers) + 1))


def test_differing_keys_are_short_and_sorted():
    """Long values are cut, so that the refusal stays one sentence."""
    found = differing_keys({"b": 1, "a": "x" * 100, "c": 1}, {"b": 2, "a": "y", "c": 1})

    assert found[1] == "b (1 there, 2 here)"
    assert found[0].startswith('a ("xxx')
    assert len(found[0]) < 90


def test_rows_name_the_model_and_recipe(scripted, tables, tmp_path):
    """Every row says by what it was made, without a path of this machine."""
    asyncio.run(run_to_end(scripted(target=10), tmp_path / "r", ScriptedEngine()))

    made = {(row["recipe"], row["model"]) for row in tables(tmp_path / "r")["data"]}
    assert made == {("self-instruct", "scripted")}
    assert json.loads((tmp_path / "r" / ".run" / "manifest.json").read_text())["model"]["name"] == "scripted"


def test_a_run_killed_while_it_was_planned_can_be_started(scripted, tmp_path):
    """What planning leaves before the manifest stands is no obstacle to the next start."""
    open_run(scripted(), tmp_path / "r").close()
    (tmp_path / "r" / ".run" / "manifest.json").unlink()
    (tmp_path / "r" / ".run" / "commits" / "000000.json").unlink()
    (tmp_path / "r" / "data" / "train-000000.parquet").unlink()
    (tmp_path / "r" / "data").rmdir()

    assert open_run(scripted(), tmp_path / "r").state.counters.units == 0


def test_a_damaged_shard_is_named(scripted, tmp_path):
    """A pool shard that is torn or gone is an error naming the file, and not a reason to try again."""
    asyncio.run(run_to_end(scripted(target=10), tmp_path / "r", ScriptedEngine()))
    shard = next((tmp_path / "r" / "pool").glob("*.parquet"))
    shard.write_bytes(b"PAR1")
    with pytest.raises(InputError, match=rf"{shard.name}: a shard that its commit names cannot be read"):
        open_run(scripted(target=20), tmp_path / "r")


@pytest.mark.parametrize("table", ["data", "pool", "rejected"])
def test_a_lost_shard_is_named(scripted, tmp_path, table):
    """A run does not go on where a shard of any table is gone, and what no record names then stays as it is."""
    asyncio.run(run_to_end(scripted(target=10), tmp_path / "r", ScriptedEngine()))
    shard = max((tmp_path / "r" / table).glob("*.parquet"))
    aside = shard.rename(shard.with_name("train-aside.parquet"))
    with pytest.raises(InputError, match=rf"{shard.name}: a commit names this file and it is not there; put it back"):
        open_run(scripted(target=20), tmp_path / "r")
    aside.rename(shard)

    open_run(scripted(target=20), tmp_path / "r").close()


def test_a_commit_that_counts_other_rows_than_it_names_is_refused(scripted, tmp_path):
    """Where the ledger was edited, the run does not go on with wrong sums."""
    asyncio.run(run_to_end(scripted(target=10), tmp_path / "r", ScriptedEngine()))
    record = max((tmp_path / "r" / ".run" / "commits").glob("[0-9]*.json"))
    values = json.loads(record.read_text())
    values["counters"]["examples"] += 1
    record.write_text(json.dumps(values))

    with pytest.raises(InputError, match=r"name \d+ rows of data/ and count \d+: damaged"):
        open_run(scripted(target=20), tmp_path / "r")


def test_a_plan_that_made_nothing_gives_way_to_another(scripted, tables, tmp_path):
    """Where engines never started, a mended configuration plans the folder anew; once there is a unit it is refused."""
    folder = tmp_path / "r"
    open_run(scripted(), folder).close()
    asyncio.run(run_to_end(scripted(seed=7), folder, ScriptedEngine()))
    alone = tmp_path / "alone"
    asyncio.run(run_to_end(scripted(seed=7), alone, ScriptedEngine()))

    assert read_manifest(folder)["seed"] == 7
    assert tables(folder) == tables(alone)
    with pytest.raises(InputError, match="another configuration; it differs in seed"):
        open_run(scripted(), folder)


@pytest.mark.parametrize("planned", [False, True], ids=["new-folder", "planned-folder"])
def test_a_run_that_another_process_began_meanwhile_is_left_whole(scripted, tables, tmp_path, planned):
    """Between the plan and the lock another process runs and leaves: the second one stops, and every row stays."""
    folder = tmp_path / "r"
    if planned:
        open_run(scripted(), folder).close()
    late = plan_for(folder, scripted(seed=7))
    asyncio.run(run_to_end(scripted(), folder, ScriptedEngine()))
    rows = tables(folder)

    with pytest.raises(RunStopped, match="another process has begun a run here meanwhile"):
        open_planned(folder, *late)
    assert tables(folder) == rows
    open_run(scripted(), folder).close()


def test_a_plan_is_replaced_in_one_act(scripted, tmp_path, monkeypatch):
    """A process that dies where the manifest is replaced leaves the old one, and the next start goes on."""
    open_run(scripted(), tmp_path / "r").close()
    with monkeypatch.context() as patch:
        patch.setattr("pipeline.storage.LocalFolder.write", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            open_run(scripted(seed=7), tmp_path / "r")
    gc.collect()

    assert read_manifest(tmp_path / "r")["seed"] == 42
    open_run(scripted(seed=7), tmp_path / "r").close()
    assert read_manifest(tmp_path / "r")["seed"] == 7


CHAT = {"kind": "scripted", "style": "chat"}
ENDPOINT = {"kind": "openai", "model": "m", "openai": {"base_url": "http://h/v1"}}
VLLM = {"model": "shipped:embedded"}


@pytest.mark.parametrize(
    ("one", "other", "key"),
    [
        pytest.param(VLLM, {**VLLM, "vllm": {"dtype": "float32"}}, "engine.vllm.dtype", id="dtype"),
        pytest.param(VLLM, {**VLLM, "vllm": {"load_format": "dummy"}}, "engine.vllm.load_format", id="weights"),
        pytest.param(VLLM, {**VLLM, "vllm": {"max_num_seqs": 8}}, None, id="capacity"),
        pytest.param(CHAT, {**CHAT, "system": "Be brief."}, "engine.system", id="system"),
        pytest.param(
            CHAT, {**CHAT, "chat_template_kwargs": {"a": 1}}, "engine.chat_template_kwargs.a", id="template-variable"
        ),
        pytest.param(
            ENDPOINT,
            {**ENDPOINT, "openai": {"base_url": "http://h/v1", "extra_body": {"provider": {}}}},
            "engine.openai.extra_body.provider",
            id="extra-body",
        ),
        pytest.param(
            ENDPOINT,
            {**ENDPOINT, "openai": {"base_url": "http://i/v1", "concurrency": 64, "api_key_env": "K", "attempts": 2}},
            None,
            id="address",
        ),
    ],
)
def test_what_of_an_engine_is_in_the_fingerprint(scripted, one, other, key):
    """What changes the answers of an engine counts, under its key; where it is and how much it takes does not."""
    first, second = (make_plan(scripted(engine=engine)).values for engine in (one, other))

    assert [name for name in first | second if first.get(name) != second.get(name)] == ([key] if key else [])
