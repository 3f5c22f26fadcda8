"""A run on real vLLM engines loses nothing and doubles nothing when its processes are killed or stop.

The texts may differ from those of another run, since vLLM does not promise the same text in another batch: what is
looked at are the counts, the ids and the folder as `verify` finds it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from pipeline.runs import read_events
from pipeline.shards import COMMITS, read_commits
from pipeline.verify import verify

TARGET = 60
# The demo, small and with a commit after every few rows.
SMALL = (
    f"target={TARGET}",
    "window=3",
    "shards.rows=4",
    "shards.seconds=1",
    "engine.cpu_kv_cache_gib=0.25",
    "engine.vllm.max_model_len=1024",
    "engine.vllm.max_num_seqs=16",
)
WAIT_S = 240  # for anything here: most of it is an engine that loads

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts the real command; with `core_apart`, vLLM's engine core in a process of its own, as on a GPU."""
    started: list[subprocess.Popen[str]] = []

    def run(*options: str, core_apart: bool = False) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "pipeline", "run", "shipped:demo.toml", "--out", str(tmp_path / "r")]
        command += [word for option in (*SMALL, *options) for word in ("--set", option)]
        environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
        environment["VLLM_ENABLE_V1_MULTIPROCESSING"] = str(int(core_apart))
        process = subprocess.Popen(
            command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        started.append(process)
        return process

    yield run
    for process in started:
        if process.poll() is None:
            end([psutil.Process(process.pid), *family(process)])
        process.wait()
        process.stderr.close()


def family(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """The processes that have come of this one: Ray's, its workers and what those have started."""
    return psutil.Process(process.pid).children(recursive=True)


def end(processes: list[psutil.Process]) -> None:
    """Kill those that are left."""
    for each in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            each.kill()


def named(process: subprocess.Popen[str], words: str) -> psutil.Process:
    """The one of them whose command line says so."""
    (found,) = [each for each in family(process) if words in " ".join(each.cmdline())]
    return found


def wait_until_gone(processes: list[psutil.Process]) -> None:
    """Until none of these processes is left."""
    until = time.monotonic() + 60
    while left := [each for each in processes if each.is_running() and each.status() != psutil.STATUS_ZOMBIE]:
        assert time.monotonic() < until, f"still there: {left}"
        time.sleep(0.1)


def wait_for_commits(process: subprocess.Popen[str], folder: Path, count: int) -> None:
    """Until so many commits, that of the plan among them, are there."""
    until = time.monotonic() + WAIT_S
    while len(list((folder / COMMITS).glob("[0-9]*.json"))) < count:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < until, "no commit in time"
        time.sleep(0.02)


def ends_whole(process: subprocess.Popen[str], folder: Path, tables: Any) -> None:
    """The run comes to its end by itself, with its target, each id once and a folder that `verify` finds whole."""
    words = process.communicate(timeout=WAIT_S)[1]
    assert process.returncode == 0, words
    rows = tables(folder)
    counters = read_commits(folder)[-1].counters
    for kind, name in (("data", "id"), ("pool", "instruction_id")):
        ids = [row[name] for row in rows[kind]]
        assert len(ids) == len(set(ids))
    assert (len(rows["pool"]), len(rows["data"])) == (TARGET, counters["examples"])
    assert verify(folder, full=True).startswith("OK")


def lost(folder: Path) -> list[str]:
    """Why engines were given up, in order."""
    return [event["detail"] for event in read_events(folder) if event["event"] == "engine_lost"]


def engines(folder: Path) -> list[int]:
    """The engine processes that were ready, in order."""
    return [event["pid"] for event in read_events(folder) if event["event"] == "engine_ready"]


@pytest.mark.slow
def test_a_killed_driver(start, tables, tmp_path) -> None:
    """SIGKILL in the middle: its engine ends with it, and the same command goes on to the target."""
    killed = start()
    wait_for_commits(killed, tmp_path / "r", 2)
    its_own = family(killed)
    agents = [each for each in its_own if "Agent" in each.name()]  # of Ray, which look for it every now and then
    killed.kill()
    killed.wait()
    try:
        wait_until_gone([each for each in its_own if each not in agents])
        before = len(read_commits(tmp_path / "r"))
        ends_whole(start(), tmp_path / "r", tables)
    finally:
        end(its_own)

    assert len(read_commits(tmp_path / "r")) > before


@pytest.mark.slow
def test_a_killed_engine(start, tables, tmp_path) -> None:
    """SIGKILL of the engine's process in the middle: it is replaced, and the run goes on to its target."""
    run = start()
    wait_for_commits(run, tmp_path / "r", 2)
    engine = named(run, "ray::VllmEngine")
    engine.kill()

    ends_whole(run, tmp_path / "r", tables)
    first, second = engines(tmp_path / "r")
    assert first == engine.pid != second
    assert len(lost(tmp_path / "r")) == 1


@pytest.mark.slow
def test_a_killed_engine_core(start, tables, tmp_path) -> None:
    """SIGKILL of vLLM's core under the engine's process: that one sees it, ends itself and is replaced."""
    run = start(core_apart=True)
    wait_for_commits(run, tmp_path / "r", 2)
    engine, core = named(run, "ray::VllmEngine"), named(run, "VLLM::EngineCore")
    core.kill()

    ends_whole(run, tmp_path / "r", tables)
    first, second = engines(tmp_path / "r")
    assert first == engine.pid != second
    assert ["made no token" in why for why in lost(tmp_path / "r")] == [False]


@pytest.mark.slow
def test_a_stopped_engine_core(start, tables, tmp_path) -> None:
    """SIGSTOP of vLLM's core: the engine answers and makes no token; it is killed with its core, and replaced."""
    run = start("engine.stall_timeout_s=60", core_apart=True)
    wait_for_commits(run, tmp_path / "r", 2)
    engine, core = named(run, "ray::VllmEngine"), named(run, "VLLM::EngineCore")
    core.send_signal(signal.SIGSTOP)
    until = time.monotonic() + 120
    while engine.is_running() and engine.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < until, "not seen"
        time.sleep(0.1)
    wait_until_gone([core])

    ends_whole(run, tmp_path / "r", tables)
    first, second = engines(tmp_path / "r")
    assert first == engine.pid != second
    assert ["made no token in 60 s" in why for why in lost(tmp_path / "r")] == [True]
