"""Run folders on a disk and in a store that speaks S3: the same acts, the same rows, the right error in a sentence."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from botocore.exceptions import ClientError, ConnectionClosedError, EndpointConnectionError

from pipeline import storage
from pipeline.cli import main
from pipeline.errors import InputError, RunStopped
from pipeline.records import Admitted
from pipeline.runs import open_run
from pipeline.segment_parts import tally_of
from pipeline.shards import Shards, _each, read_commits
from pipeline.storage import folder_at
from pipeline.testing import ScriptedEngine, run_to_end
from tests.conftest import SECRET

ROW = Admitted("t/0/0", "Name three rivers.", 0, ("seed_1",), False, "seed_1", 0.25)
CONFIG = """
name = "k"
target = 120
window = 8
[engine]
kind = "scripted"
[engine.scripted]
delay_s = 0.02
[shards]
rows = 30
"""


def everything(place: str) -> dict[str, bytes]:
    """Every file of a folder."""
    if not place.startswith("s3://"):
        return {str(path): path.read_bytes() for path in Path(place).rglob("*") if path.is_file()}
    bucket, _, root = place.removeprefix("s3://").partition("/")
    client = storage._client()
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=root)
    keys = [entry["Key"] for page in pages for entry in page.get("Contents", ())]
    return {key: client.get_object(Bucket=bucket, Key=key)["Body"].read() for key in keys}


# What a folder does


def test_create_never_replaces(place):
    """The second creation of a file reports False and leaves the first one's content, and nothing beside it."""
    folder = folder_at(place)

    assert folder.create("a/1", b"first") is True
    assert folder.create("a/1", b"second") is False
    assert folder.read("a/1") == b"first"
    assert list(everything(place).values()) == [b"first"]


def test_of_many_creators_one_wins(place):
    """Eight threads create the same file: one is told that it did, and its content stands."""
    folder = folder_at(place)
    won: list[bytes] = []

    def create(content: bytes) -> None:
        if folder_at(place).create("x", content):
            won.append(content)

    threads = [threading.Thread(target=create, args=(bytes([number]),)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [folder.read("x")] == won


def test_a_reader_sees_the_old_file_or_the_new_one(place):
    """A file that is written over and over is whole at each reading."""
    folder = folder_at(place)
    contents = {bytes([number]) * 300_000 for number in range(8)}
    folder.write("x", min(contents))
    done = threading.Event()

    def write() -> None:
        for content in sorted(contents):
            folder.write("x", content)
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    seen = set()
    while not done.is_set():
        seen.add(folder_at(place).read("x"))
    writer.join()

    assert seen <= contents
    assert len(everything(place)) == 1


def test_names_are_those_right_under_a_folder(place):
    """Files in order, hidden ones too; neither folders, nor what lies deeper, nor files beside that begin alike."""
    folder = folder_at(place)
    for name in ("d/2", "d/10", "d/.tmp-1", "d/deep/3", "dd/4"):
        folder.write(name, b"")

    assert folder.names("d") == [".tmp-1", "10", "2"]
    assert folder.names("d/deep") == ["3"]
    assert folder.names("nothing") == []


def test_more_names_than_one_page(s3):
    """A store lists a thousand at a time: all of them come."""
    folder = folder_at(s3)
    folder._client.meta.events.register(  # type: ignore[attr-defined]
        "before-parameter-build.s3.ListObjectsV2", lambda params, **_: params.setdefault("MaxKeys", 2)
    )
    for number in range(5):
        folder.write(f"d/{number}", b"")

    assert folder.names("d") == list("01234")


def test_remove_takes_a_file_away_and_may_be_called_again(place):
    """What is removed is not there; what is not there can be removed."""
    folder = folder_at(place)
    folder.write("d/x", b"1")
    folder.remove("d/x")
    folder.remove("d/x")

    assert folder.names("d") == []


def test_reading_what_is_not_there(place):
    """It is FileNotFoundError, whatever else is there."""
    folder = folder_at(place)
    with pytest.raises(FileNotFoundError):
        folder.read("x")
    folder.write("x/y", b"")
    with pytest.raises(FileNotFoundError):
        folder.read("x/z")


def test_other_things(place):
    """A new folder and one with a `.run` alone hold none; a file or a folder beside it is one."""
    folder = folder_at(place)
    assert not folder.holds_other_things()
    folder.write(".run/lock", b"")
    assert not folder.holds_other_things()
    folder.write("thesis/a.txt", b"")
    assert folder.holds_other_things()
    folder.remove("thesis/a.txt")
    folder.write("a.txt", b"")
    assert folder.holds_other_things()


def test_looking_whether_it_can_be_written_leaves_nothing(place, tmp_path):
    """Nothing is in a folder after the look that was not there before."""
    folder_at(place).require_writable()

    assert everything(place) == {}
    assert list(tmp_path.iterdir()) == []


def test_a_bucket_may_be_the_folder(s3):
    """A run folder may be a whole bucket."""
    folder = folder_at(s3.removesuffix("/some/run") + "/")
    folder.write(".run/a", b"1")

    assert folder.names(".run") == ["a"]
    assert not folder.holds_other_things()


# What is refused, and what is borne


@pytest.mark.parametrize("url", ["gs://b/r", "az://b/r", "hf://datasets/r", "http://h/r", "memory://r"])
def test_other_stores_are_refused(url):
    """A sentence names what a run folder can be."""
    with pytest.raises(InputError, match=r"is a local path or s3://bucket/path; \w+:// has not been tried"):
        folder_at(url)


def test_an_address_without_a_bucket_or_with_credentials(s3):
    """Both are refused, and the credentials are not said again."""
    with pytest.raises(InputError, match="no bucket is named"):
        folder_at("s3://")
    with pytest.raises(InputError, match="holds no credentials") as refused:
        folder_at(f"s3://user:{SECRET}@bucket/run")
    assert SECRET not in str(refused.value)


def test_without_the_client_library(s3, monkeypatch):
    """Where botocore is missing, the sentence says what to install."""
    storage._client.cache_clear()
    monkeypatch.setitem(sys.modules, "botocore.session", None)
    with pytest.raises(InputError, match=r"install instructmill\[s3\]"):
        folder_at(s3)


def run_main(tmp_path: Path, out: str, *more: str) -> int:
    """`instructmill run` in this process."""
    (tmp_path / "k.toml").write_text(CONFIG)
    return main(["run", str(tmp_path / "k.toml"), "--out", out, *more])


def test_no_bucket(s3, tmp_path, capsys):
    """A run into a bucket that is not there is wrong input: exit 2, and the sentence names the bucket."""
    assert run_main(tmp_path, "s3://not-there/run") == 2
    assert "there is no bucket 'not-there'; make it, or name another" in capsys.readouterr().err


def test_no_credentials(s3, tmp_path, capsys, monkeypatch):
    """Without credentials: exit 2, and the sentence says what to set."""
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    storage._client.cache_clear()

    assert run_main(tmp_path, s3) == 2
    assert "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile" in capsys.readouterr().err


def test_a_wrong_endpoint(s3, tmp_path, capsys, monkeypatch):
    """An endpoint that is no URL: exit 2, naming it."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "here")
    storage._client.cache_clear()

    assert run_main(tmp_path, s3) == 2
    assert "the environment's settings of S3 are wrong: Invalid endpoint: here" in capsys.readouterr().err


def test_a_store_that_stays_away(s3, tmp_path, capsys, monkeypatch):
    """A server that cannot be reached is asked for as long as is set, and then it is exit 75: it may come back."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setattr("pipeline.storage.PATIENCE_S", 1.0)
    storage._client.cache_clear()
    began = time.monotonic()

    assert run_main(tmp_path, s3) == 75
    assert 0.7 <= time.monotonic() - began < 20
    assert "storage failed (s3://" in (said := capsys.readouterr().err)
    assert "Could not connect to the endpoint URL" in said
    assert len(said.splitlines()) == 1


def failing(folder: storage.ObjectFolder, call: str, *errors: Exception | None) -> list[str]:
    """Has the next calls of the client end with these errors, None after the call was made; returns who was called."""
    real = getattr(storage._client(), call)
    left, made = list(errors), list[str]()

    def instead(**values):
        made.append(call)
        error = left.pop(0) if left else None
        if isinstance(error, ConnectionClosedError):  # the store has done it, and its answer is lost
            real(**values)
        if error is not None:
            raise error
        return real(**values)

    class Client:
        def __getattr__(self, name: str):
            return instead if name == call else getattr(storage._client(), name)

    folder._client = Client()
    return made


def refusal(status: int, code: str) -> ClientError:
    """An error as a store answers it, with no more in it than every store gives."""
    answer = {"Error": {"Code": code, "Message": "x"}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(answer, "PutObject")


@pytest.mark.parametrize(
    "error",
    [
        EndpointConnectionError(endpoint_url="http://x"),
        refusal(503, "SlowDown"),
        refusal(500, "InternalError"),
        refusal(409, "ConditionalRequestConflict"),
    ],
    ids=["away", "slow down", "internal", "conflict"],
)
def test_a_store_in_passing_trouble_is_asked_again(s3, monkeypatch, error):
    """What may pass by itself fails no call."""
    monkeypatch.setattr("pipeline.storage.WAITS_S", (0.01,))
    folder = folder_at(s3)
    made = failing(folder, "put_object", error, error)

    assert folder.create("x", b"1") is True
    assert len(made) == 3


def test_a_lasting_fault_is_not_asked_again(s3):
    """What the store refuses for good is PermissionError at once."""
    folder = folder_at(s3)
    made = failing(folder, "put_object", refusal(403, "AccessDenied"))
    with pytest.raises(PermissionError, match="AccessDenied"):
        folder.write("x", b"1")

    assert len(made) == 1


def test_a_store_that_stayed_away_is_then_asked_once(s3, monkeypatch):
    """After one call was given up the next one does not wait, and an answer brings the patience back."""
    monkeypatch.setattr("pipeline.storage.PATIENCE_S", 0.5)
    away = EndpointConnectionError(endpoint_url="http://x")
    folder = folder_at(s3)
    made = failing(folder, "put_object", *[away] * 3)  # at 0, 0.2 and, given up, 0.7 s
    for _ in range(2):
        with pytest.raises(OSError, match="Could not connect"):
            folder.write("x", b"1")
    assert len(made) == 3
    folder.write("x", b"1")
    made = failing(folder, "put_object", away)
    folder.write("x", b"2")

    assert len(made) == 2


def test_a_store_that_says_no_more_than_the_status(s3):
    """A file that is there is known by 412 alone: not every store names the condition."""
    folder = folder_at(s3)
    failing(folder, "put_object", refusal(412, "PreconditionFailed"))

    assert folder.create("x", b"1") is False


def test_a_store_that_replaces_all_the_same_is_refused(s3, monkeypatch):
    """One that does not heed If-None-Match cannot hold a run; nothing is left behind."""
    folder = folder_at(s3)
    real = storage._client().put_object

    class Heedless:
        def __getattr__(self, name: str):
            return getattr(storage._client(), name)

        def put_object(self, IfNoneMatch: str = "", **values):
            return real(**values)

    folder._client = Heedless()
    with pytest.raises(InputError, match="replaces a file where it is asked not to"):
        folder.require_writable()

    assert everything(s3) == {}


# Commits


def commit_of(place: str, attempt: int = 1, row: Admitted = ROW):
    """One commit of one unit."""
    return Shards(folder_at(place), attempt, {}).write_commit(0, range(0, 1), {"pool": [row]}, {}, [(1, 1)])


def test_a_commit_that_is_there_with_our_own_content_is_ours(place):
    """The same record a second time is no conflict."""
    assert commit_of(place) == commit_of(place)
    assert read_commits(place) == [commit_of(place)]


def test_a_commit_whose_answer_was_lost_is_ours(s3):
    """The store made the record and its answer never came: asked again it says "exists", and the run goes on."""
    folder = folder_at(s3)
    lost = ConnectionClosedError(endpoint_url="http://x")
    made = failing(folder, "put_object", None, lost)
    commit = Shards(folder, 1, {}).write_commit(0, range(0, 1), {"pool": [ROW]}, {}, [(1, 1)])

    assert len(made) == 3
    assert read_commits(s3) == [commit]
    assert folder.names("pool") == ["pool-000000.parquet"]


def test_a_commit_of_somebody_else_is_left(place):
    """With other content in the record, the files written for it are removed and the run stops."""
    first = commit_of(place)
    with pytest.raises(RunStopped, match="another process has written commit 0; this one has ended"):
        commit_of(place, attempt=2)

    assert read_commits(place) == [first]
    assert folder_at(place).names("pool") == ["pool-000000.parquet"]


# Runs in S3


def test_a_run_in_s3_has_the_rows_of_one_on_disk(s3, scripted, tables, tmp_path):
    """The same configuration gives the same rows in either place; the secret key is in no file and in no environment
    that the run has written down."""
    asyncio.run(run_to_end(scripted(), tmp_path / "r", ScriptedEngine()))
    asyncio.run(run_to_end(scripted(), s3, ScriptedEngine()))

    assert tables(s3) == tables(tmp_path / "r")
    files = everything(s3)
    assert {name.split("some/run/")[1].split("/")[0] for name in files} == {".run", "data", "pool", "rejected"}
    assert not [name for name, content in files.items() if SECRET.encode() in content or b"test-user" in content]


def command(out: str, tmp_path: Path) -> list[str]:
    """The real command."""
    (tmp_path / "k.toml").write_text(CONFIG)
    return [sys.executable, "-m", "pipeline", "run", str(tmp_path / "k.toml"), "--out", out]


def test_killed_in_s3_and_started_again(s3, tables, tmp_path, monkeypatch):
    """After SIGKILL with two commits visible the folder is refused for as long as its lease lasts; then the same
    command goes on, and ends with the rows of a run left alone."""
    subprocess.run(command(str(tmp_path / "whole"), tmp_path), check=True, stdout=subprocess.DEVNULL)
    killed = subprocess.Popen(command(s3, tmp_path), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    folder = folder_at(s3)
    while len(folder.names(".run/commits")) <= 2:
        assert killed.poll() is None, "the run ended before it could be killed"
        time.sleep(0.01)
    killed.kill()
    killed.wait()
    refused = subprocess.run(command(s3, tmp_path), capture_output=True, text=True)
    (lease,) = folder.names(".run/lease")
    held = json.loads(folder.read(f".run/lease/{lease}"))
    folder.write(f".run/lease/{lease}", json.dumps({**held, "expires": time.time() - 10}).encode())
    again = subprocess.run(command(s3, tmp_path), capture_output=True, text=True)

    assert refused.returncode == 75
    assert f"another process is writing to this run (process {killed.pid} on " in refused.stderr
    assert again.returncode == 0, again.stderr
    assert tables(s3) == tables(tmp_path / "whole")


def test_datasets_opens_a_run_in_s3(s3, scripted, tmp_path, monkeypatch):
    """`load_dataset` reads data/ where it is, with the storage options of s3fs."""
    datasets = pytest.importorskip("datasets")
    pytest.importorskip("s3fs")
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", False)  # which means any other machine, this one's server too
    run = asyncio.run(run_to_end(scripted(), s3, ScriptedEngine()))
    options = {"endpoint_url": os.environ["AWS_ENDPOINT_URL"], "key": "test-user", "secret": SECRET}
    rows = datasets.load_dataset(
        "parquet", data_files=f"{s3}/data/*.parquet", storage_options=options, cache_dir=str(tmp_path), split="train"
    )

    assert len(rows) == run.state.counters.examples > 0


def test_check_looks_at_a_folder_in_s3(s3, tmp_path, capsys):
    """Whether it can be written is found before a run, and nothing is left there."""
    (tmp_path / "k.toml").write_text(CONFIG)

    assert main(["check", str(tmp_path / "k.toml"), "--out", s3, "--no-cluster"]) == 0
    assert f"run folder: {s3}, new" in capsys.readouterr().out
    assert everything(s3) == {}


def test_the_commands_read_a_run_in_s3(s3, scripted, tmp_path, capsys):
    """status, inspect, report and export take the URL; novelty says that it does not."""
    asyncio.run(run_to_end(scripted(), s3, ScriptedEngine()))
    out = tmp_path / "rows.jsonl"

    assert main(["status", s3]) == 0
    assert f"run t in {s3}: finished" in capsys.readouterr().out
    assert main(["inspect", s3, "-n", "1"]) == 0
    assert main(["report", s3]) == 0
    assert main(["export", s3, str(out), "--format", "messages"]) == 0
    assert len(out.read_text().splitlines()) == len(pq.ParquetFile(_first_data(s3, tmp_path)).read())
    capsys.readouterr()
    assert main(["novelty", s3]) == 2
    assert "copy it to a disk of this machine first" in capsys.readouterr().err


def _first_data(place: str, tmp_path: Path) -> Path:
    """All rows of data/ as one local file."""
    import pyarrow as pa

    from pipeline.report import read_rows
    from pipeline.shards import SCHEMAS

    path = tmp_path / "all.parquet"
    pq.write_table(pa.Table.from_pylist(read_rows(place, "data"), schema=SCHEMAS["data"]), path)
    return path


def test_backtranslation_and_its_next_round_in_s3(s3, backtranslation, tables, tmp_path):
    """Segments are kept in the store, and `curate` reads one run there and writes another, as on a disk."""
    config = backtranslation()
    for out in (s3, str(tmp_path / "r")):
        asyncio.run(run_to_end(config, out, ScriptedEngine()))
        assert main(["curate", out, "--out", f"{out}-2", "--set", 'engine.model="other"']) == 0

    assert tables(s3) == tables(tmp_path / "r")
    assert tally_of(s3) == tally_of(tmp_path / "r")
    assert tables(f"{s3}-2") == tables(f"{tmp_path / 'r'}-2")


def test_a_resume_in_s3_goes_on(s3, scripted, tables, tmp_path):
    """A larger target goes on with a finished run in the store, as on a disk."""
    for out in (s3, tmp_path / "r"):
        for target in (20, 40):
            asyncio.run(run_to_end(scripted(target=target), out, ScriptedEngine()))

    assert tables(s3) == tables(tmp_path / "r")
    open_run(scripted(target=40), s3).close()


def test_one_passing_fault_takes_no_patience_from_others(s3, monkeypatch):
    """Calls beside one another are each refused once by a busy store, and all come back."""
    monkeypatch.setattr("pipeline.storage.WAITS_S", (0.05,))
    folder = folder_at(s3)
    names = [f"data/{number}" for number in range(8)]
    for name in names:
        folder.write(name, name.encode())
    made = failing(folder, "get_object", *[refusal(503, "SlowDown")] * 8)

    assert list(_each(folder, names, folder.read)) == [name.encode() for name in names]
    assert len(made) == 16
