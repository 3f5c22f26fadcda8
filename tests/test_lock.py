"""One writer at a time: refused while another writes, taken over when that one is gone, harmless when it comes back."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from pipeline import lock
from pipeline.driver import Driver
from pipeline.errors import RunStopped
from pipeline.lock import is_held, take
from pipeline.runs import Run, open_run
from pipeline.segment_parts import FOLDER as SEGMENTS
from pipeline.segment_parts import read_parts
from pipeline.shards import TABLES, read_commits
from pipeline.storage import folder_at
from pipeline.testing import ScriptedEngine, run_to_end
from pipeline.verify import verify

HOLD = """
import sys, time
from pipeline.lock import take
from pipeline.storage import folder_at
held = take(folder_at(sys.argv[1]))
print("held", flush=True)
time.sleep(600)
"""
# The real command with a lease of two seconds.
RUN = """
import sys
from pipeline import lock
from pipeline.cli import main
lock.LEASE_S, lock.RENEW_S, lock.SKEW_S = 2.0, 0.5, 0.5
sys.exit(main(sys.argv[1:]))
"""
CONFIG = """
name = "k"
target = 150
window = 8
[engine]
kind = "scripted"
[engine.scripted]
delay_s = 0.02
[shards]
rows = 30
"""


@pytest.fixture
def short(monkeypatch):
    """Leases of a second, which nobody renews unless asked to."""
    monkeypatch.setattr(lock, "LEASE_S", 1.0)
    monkeypatch.setattr(lock, "RENEW_S", 600.0)
    monkeypatch.setattr(lock, "SKEW_S", 0.0)


def named(place: str) -> set[str]:
    """Every file that a record of the run names."""
    files = {file.path for commit in read_commits(place) for file in commit.files}
    return files | {f"{SEGMENTS}/{part.file}" for part in read_parts(place) if part.file}


def there(place: str) -> set[str]:
    """Every shard that is there."""
    folder = folder_at(place)
    return {
        f"{under}/{name}" for under in (*TABLES, SEGMENTS) for name in folder.names(under) if name.endswith(".parquet")
    }


def test_a_second_writer_is_refused_and_the_folder_is_free_again(place):
    """While it is held: refused, naming the holder. After it was closed, which may be twice: free at once."""
    folder = folder_at(place)
    assert not is_held(folder)
    first = take(folder)
    assert is_held(folder)
    with pytest.raises(RunStopped, match=rf"another process is writing to this run \(process {os.getpid()} on "):
        take(folder_at(place))
    first.require_held()
    first.close()
    first.close()

    assert not is_held(folder)
    second = take(folder)
    assert not second.taken_over
    second.close()


def test_a_killed_holder_frees_a_local_folder_at_once(tmp_path):
    """On a disk the kernel gives the lock back with the process, however that ends."""
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path / "r")], stdout=subprocess.PIPE)
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    with pytest.raises(RunStopped, match=rf"\(process {holder.pid} on "):
        take(folder_at(tmp_path / "r"))
    holder.kill()
    holder.communicate()

    take(folder_at(tmp_path / "r")).close()


def test_a_killed_holder_is_taken_over_when_its_lease_is_over(s3):
    """In a store the refusal says in how many seconds; when they have passed, the folder can be had, and it is known
    that its holder never gave it back."""
    holder = subprocess.Popen([sys.executable, "-c", HOLD, s3], stdout=subprocess.PIPE)
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    holder.kill()
    holder.communicate()
    folder = folder_at(s3)
    with pytest.raises(RunStopped, match=rf"\(process {holder.pid} on .* taken over (5\d|6[0-5]) s from now"):
        take(folder)
    (name,) = folder.names(lock.LEASES)
    record = json.loads(folder.read(f"{lock.LEASES}/{name}"))
    folder.write(f"{lock.LEASES}/{name}", json.dumps({**record, "expires": time.time() - lock.SKEW_S - 1}).encode())
    assert not is_held(folder)
    held = take(folder)

    assert held.taken_over
    held.close()


def test_a_lease_is_renewed(s3, monkeypatch):
    """A holder that lives keeps the folder for longer than one lease, and leaves one small record."""
    monkeypatch.setattr(lock, "LEASE_S", 2.0)
    monkeypatch.setattr(lock, "RENEW_S", 0.2)
    monkeypatch.setattr(lock, "SKEW_S", 0.0)
    held = take(folder_at(s3))
    time.sleep(3.0)

    assert is_held(folder_at(s3))
    held.require_held()
    held.close()
    assert len(folder_at(s3).names(lock.LEASES)) == 1


@pytest.mark.parametrize("before", [False, True], ids=["new", "expired"])
def test_of_many_takers_one_wins(s3, short, before):
    """Eight at once, of a new folder and of one whose holder is gone: one has it and the others are refused."""
    if before:
        take(folder_at(s3))
        time.sleep(1.1)
    lock.LEASE_S = 60.0
    won, refused = list[object](), list[str]()

    def run() -> None:
        try:
            won.append(take(folder_at(s3)))
        except RunStopped as error:
            refused.append(str(error))

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert (len(won), len(refused)) == (1, 7)


@pytest.mark.parametrize("renewed", [False, True])
def test_a_holder_that_lost_its_lease_finds_out_before_it_writes(s3, short, renewed):
    """Its time is up and another has the folder, for a first or a later time: the next look says who, and closing
    leaves the other's lease alone."""
    sleeper = take(folder_at(s3))
    time.sleep(1.1)
    second = take(folder_at(s3))
    if renewed:
        time.sleep(1.1)
        second.require_held()
    with pytest.raises(RunStopped, match=r"has taken this run over \(process \d+ on .*\) while this one stood still"):
        sleeper.require_held()
    sleeper.close()

    second.require_held()
    assert is_held(folder_at(s3))


def test_a_holder_whose_time_is_up_keeps_what_nobody_took(s3, short):
    """One that stood still, and was not taken over, has the folder again with its next look."""
    held = take(folder_at(s3))
    time.sleep(1.1)
    assert not is_held(folder_at(s3))
    held.require_held()

    assert is_held(folder_at(s3))


def test_a_renewal_that_failed_half_way_goes_on(s3, short, monkeypatch):
    """The record was made and the store failed after it: the next renewal knows it for its own."""
    folder = folder_at(s3)
    held = take(folder)
    time.sleep(1.1)
    with monkeypatch.context() as patch:
        patch.setattr(folder, "names", lambda _: (_ for _ in ()).throw(OSError("away")))
        with pytest.raises(OSError, match="away"):
            held.require_held()
    held.require_held()
    held.close()

    assert not is_held(folder)
    assert len(folder.names(lock.LEASES)) == 1


def drive(run: Run) -> None:
    """An open run to its end."""

    async def to_end() -> None:
        engine, plan = ScriptedEngine(), run.plan
        try:
            await Driver(plan.config, run.state, plan.recipe, engine, run.commit, run.units).run()
        finally:
            await run.close_units()

    try:
        asyncio.run(to_end())
    finally:
        run.close()


@pytest.mark.parametrize(
    ("recipe", "record"),
    [
        ("self-instruct", ".run/commits/000002.json"),
        pytest.param("backtranslation", ".run/commits/000002.json", marks=pytest.mark.slow),
        ("backtranslation", f"{SEGMENTS}/000002.json"),
    ],
    ids=["commit", "commit-of-texts", "segments"],
)
def test_a_holder_that_stood_still_before_a_record(
    s3, short, scripted, backtranslation, tables, monkeypatch, tmp_path, recipe, record
):
    """Its files are written, and it wakes when another has the folder: neither ends up with a record of files that are
    gone, and after the next start the rows are those of a run left alone."""
    monkeypatch.setattr("pipeline.segment_store.PART_ROWS", 10)
    config = scripted() if recipe == "self-instruct" else backtranslation(shards={"rows": 15})
    asyncio.run(run_to_end(config, tmp_path / "whole", ScriptedEngine()))
    sleeper = open_run(config, s3)
    create = sleeper.folder.create
    woken: list[Run] = []

    def create_late(name: str, content: bytes) -> bool:
        if name == record:
            time.sleep(1.1)
            woken.append(open_run(config, s3))
        return create(name, content)

    monkeypatch.setattr(sleeper.folder, "create", create_late)
    with pytest.raises(RunStopped, match=r"another process has (written commit|taken this run over)"):
        drive(sleeper)
    assert named(s3) <= there(s3)
    (second,) = woken
    if record.startswith(SEGMENTS):  # the part was made after the other had read the parts
        with pytest.raises(RunStopped, match="another process has written part 2"):
            drive(second)
        second = open_run(config, s3)
    drive(second)

    assert named(s3) == there(s3)
    assert tables(s3) == tables(tmp_path / "whole")
    assert verify(s3, full=True).startswith("OK")


def test_a_stopped_process_that_goes_on_after_a_takeover(s3, tables, tmp_path, monkeypatch):
    """SIGSTOP for longer than its lease, another process runs to the end, SIGCONT: it ends with 75 and a sentence, and
    the rows are those of a run left alone."""
    (tmp_path / "k.toml").write_text(CONFIG)

    def start(out: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", RUN, "run", str(tmp_path / "k.toml"), "--out", out]
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

    whole = start(str(tmp_path / "whole"))
    sleeper = start(s3)
    while len(folder_at(s3).names(".run/commits")) <= 1:
        assert sleeper.poll() is None, "the run ended before it could be stopped"
        time.sleep(0.01)
    sleeper.send_signal(signal.SIGSTOP)
    monkeypatch.setattr(lock, "SKEW_S", 1.0)  # no less than the processes allow for
    while is_held(folder_at(s3)):
        time.sleep(0.1)
    second = start(s3)
    said = second.communicate(timeout=120)[1]
    sleeper.send_signal(signal.SIGCONT)
    words = sleeper.communicate(timeout=60)[1]

    assert second.returncode == 0, said
    assert sleeper.returncode == 75
    assert "another process has taken this run over" in words or "another process has written commit" in words
    assert whole.wait(timeout=60) == 0
    assert named(s3) == there(s3)
    assert tables(s3) == tables(tmp_path / "whole")
