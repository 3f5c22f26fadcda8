"""Two processes on one run folder, whole runs of the real command: one has it, and nothing is lost or doubled."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from pipeline import lock
from pipeline.lock import is_held
from pipeline.runs import read_events
from pipeline.shards import COMMITS, read_commits
from pipeline.storage import folder_at
from pipeline.verify import verify
from tests.faults.conftest import sentence
from tests.test_storage import everything

# With a lease of two seconds, by a process that stands still where it is told to: before or after it writes a file.
STANDING_STILL = """
import os, signal, sys
from pipeline import lock
from pipeline.cli import main
from pipeline.storage import ObjectFolder

lock.LEASE_S, lock.RENEW_S, lock.SKEW_S = 2.0, 0.5, 0.5
name, when = sys.argv[1:3]

def stopping(method):
    def act(self, file, content):
        if when == "before" and file == name:
            os.kill(os.getpid(), signal.SIGSTOP)
        answer = method(self, file, content)
        if when == "after" and file == name:
            os.kill(os.getpid(), signal.SIGSTOP)
        return answer
    return act

ObjectFolder.write, ObjectFolder.create = stopping(ObjectFolder.write), stopping(ObjectFolder.create)
sys.exit(main(sys.argv[3:]))
"""


def named(place: str) -> set[str]:
    """Every shard that a record of the run names."""
    return {file.path for commit in read_commits(place) for file in commit.files}


def there(place: str) -> set[str]:
    """Every file of a run folder but those of its own state, by their names in it."""
    root = place.removeprefix("s3://").partition("/")[2] if place.startswith("s3://") else place
    names = {name.removeprefix(f"{root}/") for name in everything(place)}
    return {name for name in names if not name.startswith(".run/")}


def test_a_second_run_is_refused_and_the_first_goes_on(start, place, tables, whole) -> None:
    """Refused with 75 and who holds the folder; the first one, which waits meanwhile so that it has not ended, goes on
    as if nobody had come."""
    first = start(place)
    while len(folder_at(place).names(COMMITS)) <= 1:
        assert first.poll() is None, "the run ended before another could come"
        time.sleep(0.01)
    first.send_signal(signal.SIGSTOP)
    second = start(place)
    said = second.communicate(timeout=50)[1]  # less than a lease
    first.send_signal(signal.SIGCONT)
    words = first.communicate(timeout=60)[1]

    assert second.returncode == 75
    assert f"another process is writing to this run (process {first.pid} on " in sentence(said)
    assert first.returncode == 0, words
    assert [event["attempt"] for event in read_events(place) if event["event"] == "start"] == [1]
    assert tables(place) == whole
    assert verify(place, full=True).startswith("OK")
    assert named(place) == there(place)


@pytest.mark.parametrize(
    ("file", "when", "why"),
    [
        ("pool/pool-000002.parquet", "before", "has written commit 2"),
        pytest.param(f"{COMMITS}/000002.json", "before", "has written commit 2", marks=pytest.mark.slow),
        pytest.param(f"{COMMITS}/000002.json", "after", "has taken this run over", marks=pytest.mark.slow),
    ],
    ids=["between-its-files", "before-its-record", "after-its-record"],
)
def test_a_writer_that_stands_still_in_a_commit(start, s3, tables, whole, monkeypatch, file, when, why) -> None:
    """SIGSTOP in a commit, another process takes the folder over and ends the run, SIGCONT: the first one says that it
    was taken over, removes what it wrote and ends with 75; the rows are those of a run left alone."""
    sleeper = start(s3, wrapper=STANDING_STILL, arguments=(file, when))
    while "\nState:\tT" not in Path(f"/proc/{sleeper.pid}/status").read_text():
        assert sleeper.poll() is None, "the run ended and never stood still"
        time.sleep(0.01)
    monkeypatch.setattr(lock, "SKEW_S", 0.5)
    while is_held(folder_at(s3)):
        time.sleep(0.1)
    second = start(s3, wrapper=STANDING_STILL, arguments=("", ""))
    said = second.communicate(timeout=120)[1]
    rows = tables(s3)
    sleeper.send_signal(signal.SIGCONT)
    words = sleeper.communicate(timeout=60)[1]

    assert second.returncode == 0, said
    assert sleeper.returncode == 75
    assert f"another process {why}" in sentence(words)
    assert rows == tables(s3) == whole
    assert verify(s3, full=True).startswith("OK")
    assert named(s3) == there(s3)
    assert len(folder_at(s3).names(lock.LEASES)) == 1
