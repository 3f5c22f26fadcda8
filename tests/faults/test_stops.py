"""A run that is told to end while its store is away, or whose disk is full: it ends soon, and goes on later.

A server that was stopped (SIGSTOP) is the hard case: it takes connections and never answers.
"""

from __future__ import annotations

import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.shards import COMMITS
from pipeline.storage import folder_at
from pipeline.verify import verify
from tests.conftest import s3_process
from tests.faults.conftest import Start, sentence

SOON_S = 15  # what a signal may take; a second one ends the run in a third of it
# The command by a process that stops the server before it writes a file.
STORE_STOPS = """
import os, signal, sys
from pipeline import lock
from pipeline.cli import main
from pipeline.storage import ObjectFolder

lock.LEASE_S, lock.RENEW_S, lock.SKEW_S = 3.0, 1.0, 0.5
server, name = int(sys.argv.pop(1)), sys.argv.pop(1)

def stopping(method):
    def act(self, file, content):
        if file == name:
            os.kill(server, signal.SIGSTOP)
        return method(self, file, content)
    return act

ObjectFolder.write, ObjectFolder.create = stopping(ObjectFolder.write), stopping(ObjectFolder.create)
sys.exit(main(sys.argv[1:]))
"""
# By a process that is told to end when it has joined a cluster.
TOLD_BY_THEN = """
import os, signal, sys
from actors import cluster
from pipeline.cli import main

room = cluster.require_room

def told(*arguments):
    os.kill(os.getpid(), signal.SIGTERM)
    return room(*arguments)

cluster.require_room = told
sys.exit(main(sys.argv[1:]))
"""
# With files of so many bytes at most.
SMALL_FILES = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv.pop(1)), resource.RLIM_INFINITY))
from pipeline.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture
def server() -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """An S3 server of this test's own, which it may stop and kill, and its address."""
    with s3_process(subprocess.DEVNULL) as started:
        yield started


@pytest.fixture
def s3_server(server: tuple[subprocess.Popen[bytes], str]) -> str:
    """The address that `s3` here makes its bucket at, in place of the suite's shared server."""
    return server[1]


def wait_for_commits(process: subprocess.Popen[str], place: Path | str, count: int) -> None:
    """Until `count` commits, that of the plan among them, are there."""
    while len(folder_at(place).names(COMMITS)) < count:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)


def wait_until_stopped(process: subprocess.Popen[str], server: subprocess.Popen[bytes]) -> None:
    """Until a process has stopped the server, and waits for it."""
    while "\nState:\tT" not in Path(f"/proc/{server.pid}/status").read_text():
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)
    time.sleep(0.5)


def ends_as_undisturbed(start: Start, place: Path | str, tables: Any, whole: object) -> None:
    """The same command goes on, once the lease is over, and the rows are those of a run left alone."""
    until = time.monotonic() + 60
    while True:
        again = start(place)
        words = again.communicate(timeout=60)[1]
        if "another process is writing" not in words or time.monotonic() > until:
            break
        time.sleep(0.5)
    assert again.returncode == 0, words
    assert tables(place) == whole
    assert verify(place, full=True).startswith("OK")


@pytest.mark.parametrize(
    "number",
    [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)],
    ids=["SIGTERM", "SIGINT"],
)
def test_a_signal_while_the_store_does_not_answer(start, server, s3, tables, whole, number) -> None:
    """The run ends with 75 and a sentence though it cannot write; with the store back it goes on and ends."""
    run = start(s3)
    wait_for_commits(run, s3, 3)
    server[0].send_signal(signal.SIGSTOP)
    time.sleep(1.0)  # in a commit by now, or in the lease's renewal
    run.send_signal(number)
    words = run.communicate(timeout=SOON_S)[1]
    server[0].send_signal(signal.SIGCONT)

    assert run.returncode == 75
    assert "nothing is lost" in sentence(words)
    ends_as_undisturbed(start, s3, tables, whole)


def test_a_signal_while_the_store_is_gone(start, server, s3) -> None:
    """Nobody listens at the store's address any more: the run, which would ask again for 45 s, ends when it is told."""
    run = start(s3)
    wait_for_commits(run, s3, 3)
    server[0].kill()
    server[0].wait()
    time.sleep(1.0)
    assert run.poll() is None
    run.send_signal(signal.SIGTERM)
    words = run.communicate(timeout=SOON_S)[1]

    assert run.returncode == 75
    assert "storage failed" in sentence(words)


@pytest.mark.parametrize("delay_s", [pytest.param(0.05, marks=pytest.mark.slow), 600], ids=["in-a-commit", "closing"])
def test_a_second_signal_ends_the_run_at_once(start, server, s3, tables, whole, delay_s) -> None:
    """While the first one's commit waits for the store; or what follows it, where there is nothing to commit."""
    run = start(s3, "--set", f"engine.scripted.delay_s={delay_s}")
    wait_for_commits(run, s3, 1 if delay_s == 600 else 2)
    if delay_s == 600:
        time.sleep(1.0)  # until units are open, of which none will end
    server[0].send_signal(signal.SIGSTOP)
    run.send_signal(signal.SIGTERM)
    time.sleep(1.0)
    assert run.poll() is None, "it ended by the first one"
    run.send_signal(signal.SIGTERM)
    words = run.communicate(timeout=SOON_S / 3)[1]
    server[0].send_signal(signal.SIGCONT)

    assert run.returncode == 75
    assert "stopped at once; nothing is lost" in sentence(words)
    ends_as_undisturbed(start, s3, tables, whole)


@pytest.mark.parametrize(
    "file",
    [".run/lease/000000001.json", pytest.param(".run/manifest.json", marks=pytest.mark.slow)],
    ids=["no-lease", "lease-held"],
)
def test_a_signal_before_the_run_has_begun(start, server, s3, tables, whole, file) -> None:
    """It waits for a store that does not answer, before or after the folder is its own: it ends with 75 too."""
    run = start(s3, wrapper=STORE_STOPS, arguments=(str(server[0].pid), file))
    wait_until_stopped(run, server[0])
    run.send_signal(signal.SIGTERM)
    words = run.communicate(timeout=SOON_S)[1]
    server[0].send_signal(signal.SIGCONT)

    assert run.returncode == 75
    assert "run the same command again to go on" in sentence(words) or "nothing is lost" in sentence(words)
    ends_as_undisturbed(start, s3, tables, whole)


def test_a_signal_while_a_cluster_is_joined(start, tmp_path) -> None:
    """Ray takes SIGTERM to itself as it starts: the run ends with 75 and a sentence all the same."""
    pytest.importorskip("ray")
    run = start(tmp_path / "r", "--set", "engine.scripted.on_ray=true", wrapper=TOLD_BY_THEN)
    words = run.communicate(timeout=120)[1]

    assert run.returncode == 75, words
    assert "interrupted; run the same command again to go on" in sentence(words)


def test_files_that_the_disk_does_not_take(start, tables, whole, tmp_path) -> None:
    """The system refuses a file in the middle of its writing: 75 and a sentence; without the limit the run goes on."""
    sizes = sorted(path.stat().st_size for path in (tmp_path / "whole").rglob("*.parquet"))
    run = start(tmp_path / "r", wrapper=SMALL_FILES, arguments=(str(sizes[-2]),))
    words = run.communicate(timeout=60)[1]

    assert run.returncode == 75
    assert re.search(rf"storage failed \(\[Errno 27\] File too large: '{tmp_path}/r/\S+\.parquet'\)", sentence(words))
    assert not list((tmp_path / "r").rglob(".tmp-*"))
    assert verify(tmp_path / "r").startswith("OK")
    ends_as_undisturbed(start, tmp_path / "r", tables, whole)
