"""The kept segments of a run: written once and in order, read again and read on after a stop."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from contextlib import suppress
from pathlib import Path

import pytest

from pipeline import segment_process, segment_store
from pipeline.backtranslation_settings import CorpusSettings
from pipeline.errors import InputError, RunStopped
from pipeline.launch import launch
from pipeline.records import Segment
from pipeline.runs import open_run
from pipeline.segment_parts import FOLDER, read_parts, tally_of
from pipeline.segment_store import SegmentStore
from pipeline.segments import SegmentReader
from pipeline.sources import open_corpus
from pipeline.storage import folder_at
from pipeline.testing import ScriptedEngine, run_to_end


@pytest.fixture
def small_parts(monkeypatch) -> None:
    """Parts of seven segments."""
    monkeypatch.setattr(segment_store, "PART_ROWS", 7)


def store_of(folder: Path, source: Path, attempt: int = 1) -> SegmentStore:
    """A store over a corpus."""
    settings = CorpusSettings(source=str(source))
    return SegmentStore(folder, open_corpus(settings), attempt)


async def take(store: SegmentStore, first: int, many: int) -> list[Segment]:
    """Ask for units in order, until there are so many or no more."""
    taken: list[Segment] = []
    try:
        for unit in range(first, first + many):
            segment = await store(unit)
            if segment is None:
                break
            taken.append(segment)
    finally:
        await store.close()
    return taken


def alive(pid: int) -> bool:
    """Whether a process runs; one that only waits to be reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_units_are_the_kept_segments_in_order(small_parts, corpus, tmp_path) -> None:
    """All sixty come in the order of the corpus, over parts of seven, and then there are no more."""
    segments = asyncio.run(take(store_of(tmp_path / "r", corpus(60)), 0, 100))
    parts = read_parts(tmp_path / "r")

    assert [segment.id for segment in segments] == [f"corpus.jsonl#{line}" for line in range(3, 63)]
    assert [(part.first, part.end) for part in parts][:2] == [(0, 7), (7, 14)]
    assert parts[-1].at_end


@pytest.mark.parametrize("first", [0, 7, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 20, 59))])
def test_a_store_that_is_opened_again_goes_on(small_parts, corpus, tmp_path, first) -> None:
    """After a stop anywhere, the segments asked for and all later ones are the same, and nothing is read twice."""
    source = corpus(60)
    whole = asyncio.run(take(store_of(tmp_path / "w", source), 0, 100))
    before = asyncio.run(take(store_of(tmp_path / "r", source), 0, first + 1))
    again = asyncio.run(take(store_of(tmp_path / "r", source, 2), first, 100))

    assert before == whole[: first + 1]
    assert again == whole[first:]
    assert tally_of(tmp_path / "r") == tally_of(tmp_path / "w")


def test_duplicates_of_segments_kept_before_a_stop_are_known(small_parts, corpus, tmp_path) -> None:
    """A text that was kept before the stop is refused as a duplicate after it."""
    source = corpus(30)
    lines = source.read_text().splitlines()
    source.write_text("\n".join([*lines, *lines[2:5], ""]))
    asyncio.run(take(store_of(tmp_path / "r", source), 0, 3))
    asyncio.run(take(store_of(tmp_path / "r", source, 2), 3, 100))
    tally = tally_of(tmp_path / "r")

    assert tally is not None
    assert (tally.kept, tally.refused["duplicate"]) == (30, 3)


def test_it_reads_one_part_ahead_and_no_further(small_parts, corpus, tmp_path) -> None:
    """Asked for one unit of a long corpus, it writes two parts at most."""

    async def ask() -> None:
        store = store_of(tmp_path / "r", corpus(200))
        await store(0)
        async with asyncio.timeout(10):
            while len(read_parts(tmp_path / "r")) < 2:
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.3)
        await store.close()

    asyncio.run(ask())

    assert len(read_parts(tmp_path / "r")) == 2


def test_a_corpus_that_gives_nothing_is_refused(corpus, tmp_path) -> None:
    """Where no piece is kept the sentence says why, before any engine is asked."""
    with pytest.raises(InputError, match=r"none of its 2 pieces is kept \(.*too_short 1.*segments` shows"):
        asyncio.run(take(store_of(tmp_path / "r", corpus(0)), 0, 1))


def test_a_run_over_such_a_corpus_writes_nothing(backtranslation, corpus, tmp_path) -> None:
    """The sentence comes before anything is written: no run is left behind."""
    with pytest.raises(InputError, match="none of its 2 pieces is kept"):
        launch(backtranslation(source=corpus(0), out=str(tmp_path / "r")))

    assert not (tmp_path / "r").exists()


def test_a_part_of_somebody_else_ends_this_run(small_parts, corpus, tmp_path) -> None:
    """A record that is there already is never replaced: what was written for it is removed, and the run stops."""
    source = corpus(30)
    (tmp_path / "r" / FOLDER).mkdir(parents=True)
    store = store_of(tmp_path / "r", source)
    (tmp_path / "r" / FOLDER / "000000.json").write_text("{}")
    with pytest.raises(RunStopped, match="another process"):
        asyncio.run(take(store, 0, 1))

    assert not list((tmp_path / "r" / FOLDER).glob("*.parquet"))


def test_what_no_record_names_is_removed(backtranslation, tmp_path) -> None:
    """A file of segments left by a kill before its record is removed when the run is opened."""
    config = backtranslation(budget={"units": 5})
    asyncio.run(run_to_end(config, tmp_path / "r", ScriptedEngine()))
    stray = tmp_path / "r" / FOLDER / "segments-000009.parquet"
    stray.write_bytes(b"half")
    open_run(config, tmp_path / "r").close()

    assert not stray.exists()
    assert list((tmp_path / "r" / FOLDER).glob("segments-000000.parquet"))


def test_a_changed_corpus_is_refused_by_name(backtranslation, corpus, tmp_path) -> None:
    """A resume against a corpus of which a file has changed names the file; with it restored the run goes on."""
    folder = tmp_path / "texts"
    folder.mkdir()
    corpus(20, "texts/a.jsonl")
    other = corpus(40, "texts/b.jsonl")
    config = backtranslation(source=folder, budget={"units": 5})
    asyncio.run(run_to_end(config, tmp_path / "r", ScriptedEngine()))
    before = other.read_text()
    other.write_text(before.replace("marks", "cards"))
    with pytest.raises(InputError, match=r"the corpus is not the one .*b\.jsonl has changed"):
        open_run(config, tmp_path / "r")
    other.write_text(before)
    open_run(config, tmp_path / "r").close()


def test_a_file_that_changes_while_the_run_goes_on_ends_it(backtranslation, corpus, tmp_path) -> None:
    """A corpus file that changes after the run was planned is not read in silence: the run stops and names it."""
    source = corpus(20)
    config = backtranslation(source=source)
    opened = open_run(config, tmp_path / "r")
    source.write_text(source.read_text().replace("marks", "cards!"))
    opened.close()
    reader = SegmentReader(opened.plan.corpus, config.corpus)
    with pytest.raises(InputError, match=r"corpus\.jsonl: the file has changed"):
        list(reader.read())


def test_a_segment_that_became_no_unit_is_told(small_parts, corpus, tmp_path) -> None:
    """At the end of a corpus, kept segments and units are as many: one lost or doubled is told, not summed up."""
    store = store_of(tmp_path / "r", corpus(20))
    asyncio.run(take(store, 0, 100))
    store.require_sums(20)
    for units in (19, 21):
        with pytest.raises(RunStopped, match="the counts do not add up"):
            store.require_sums(units)


def test_a_killed_process_is_replaced(small_parts, corpus, tmp_path) -> None:
    """Where the process that reads the corpus is killed between parts, another goes on: same segments, none twice."""

    async def ask(store: SegmentStore) -> list[Segment]:
        taken = []
        while (segment := await store(len(taken))) is not None:
            taken.append(segment)
            if len(taken) in (5, 30):
                assert store._ahead is not None
                await store._ahead
                assert store._process._process is not None
                store._process._process.kill()
        await store.close()
        return taken

    source = corpus(60)
    whole = asyncio.run(take(store_of(tmp_path / "w", source), 0, 100))

    assert asyncio.run(ask(store_of(tmp_path / "r", source))) == whole
    assert tally_of(tmp_path / "r") == tally_of(tmp_path / "w")


def test_a_process_that_keeps_ending_stops_the_run(corpus, tmp_path, monkeypatch) -> None:
    """Where no process lives long enough to read a part, the run stops and says so; nothing is written."""
    monkeypatch.setattr("sys.executable", shutil.which("false"))
    with pytest.raises(RunStopped, match="the process that reads the corpus ended 3 times, at last with status 1"):
        asyncio.run(take(store_of(tmp_path / "r", corpus(10)), 0, 1))

    assert not list((tmp_path / "r").rglob("*.json"))


def test_a_fault_of_the_corpus_comes_through(corpus, tmp_path) -> None:
    """What is wrong with a file is said as it is where the file is read in this process."""
    source = corpus(20)
    store = store_of(tmp_path / "r", source)
    source.write_text("other")
    with pytest.raises(InputError, match=r"corpus\.jsonl: the file has changed since the corpus was identified"):
        asyncio.run(take(store, 0, 1))


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (InputError("bad"), InputError, "bad"),
        (FileNotFoundError(2, "No such file", b"/x/y"), FileNotFoundError, "[Errno 2] No such file: '/x/y'"),
        (PermissionError("s3://b/k"), PermissionError, "s3://b/k"),
        (type("StoreError", (OSError,), {})("away"), OSError, "away"),
        (ValueError("ours"), RuntimeError, "ValueError in the process that reads the corpus: ours"),
    ],
)
def test_faults_keep_their_kind(error, kind, text) -> None:
    """A fault of the corpus's process is of the same kind in the driver, with its words; one of ours is named."""
    raised = segment_process._fault(**json.loads(json.dumps(segment_process._told(error))))

    assert (type(raised), str(raised)) == (kind, text)


def test_a_fault_is_met_again(corpus, tmp_path) -> None:
    """Asked again after a fault, the process meets it again, and does not take the corpus to be at its end."""
    source = corpus(20)
    settings = CorpusSettings(source=str(source))
    process = segment_process.CorpusProcess(open_corpus(settings), folder_at(tmp_path / "r"))
    source.write_text("other")
    try:
        for _ in range(2):
            with pytest.raises(InputError, match="the file has changed"):
                process.read(0, 10, 5.0)
    finally:
        process.close()


def test_a_part_that_was_not_written_is_read_again(corpus, tmp_path) -> None:
    """Asked for the same part a second time, the process gives the same one, and not the one after it."""
    settings = CorpusSettings(source=str(corpus(20)))
    process = segment_process.CorpusProcess(open_corpus(settings), folder_at(tmp_path / "r"))
    try:
        assert process.read(0, 7, 5.0) == process.read(0, 7, 5.0)
    finally:
        process.close()


def test_the_process_ends_with_a_killed_driver(corpus, tmp_path) -> None:
    """Nothing is left running where the driver is killed."""
    driver = """
        import asyncio, os, signal, sys
        from pipeline.backtranslation_settings import CorpusSettings
        from pipeline.segment_store import SegmentStore
        from pipeline.sources import open_corpus
        store = SegmentStore(sys.argv[1], open_corpus(CorpusSettings(source=sys.argv[2])), 1)
        asyncio.run(store(0))
        print(store._process._process.pid, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    command = [sys.executable, "-c", textwrap.dedent(driver), str(tmp_path / "r"), str(corpus(3000))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as killed:
        assert killed.stdout is not None
        pid = int(killed.stdout.readline())
    try:
        ends = time.monotonic() + 30
        while alive(pid):
            assert time.monotonic() < ends, f"{pid} is still there"
            time.sleep(0.05)
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def test_a_damaged_record_is_named(small_parts, corpus, tmp_path) -> None:
    """A record that is missing or cannot be read is one sentence with its path."""
    asyncio.run(take(store_of(tmp_path / "r", corpus(30)), 0, 20))
    record = tmp_path / "r" / FOLDER / "000001.json"
    values = json.loads(record.read_text())
    record.write_text(json.dumps({**values, "first": 8}))
    with pytest.raises(InputError, match=r"000001\.json: the record before it is missing"):
        read_parts(tmp_path / "r")
    record.write_text("{")
    with pytest.raises(InputError, match=r"000001\.json: not a record of segments"):
        read_parts(tmp_path / "r")
