"""Engines that die, hang, do not load or are killed by a request, in the middle of a run over real Ray actors.

Whatever becomes of them, the rows are those of an undisturbed run, and no process that was given up is left.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import ray

from actors import cluster
from actors.engine_pool import EnginePool, PoolStats
from actors.messages import Call, News, Ready
from actors.scripted_engine import ScriptedActor
from pipeline.config import Config, parse_config
from pipeline.engine_settings import EngineSettings
from pipeline.errors import ContentFault, RunStopped
from pipeline.records import Completion, Reason, Request, Stage
from pipeline.testing import run_to_end, scripted_answer

ROOT = Path(__file__).resolve().parents[2]
CHOSEN = 7  # the unit whose first request is poison, or is caught in deaths
POISON_DEATHS = 3  # what a request gets: two in company, one alone
CONVICTED = "an engine process died while this was the only request on it"

Events = list[dict[str, Any]]


@pytest.fixture(scope="module")
def on_ray(ray_session: None) -> None:
    """Ray's workers cannot import a test module, so its classes travel by value."""
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])


def over_two(**timeouts: float) -> dict[str, Any]:
    """The values of a configuration with two engines in Ray actors."""
    script = {"on_ray": True, "capacity": 6, "delay_s": 0.02}
    return {"engine": {"kind": "scripted", "count": 2, "num_gpus": 0, "scripted": script, **timeouts}}


class FaultyActor(ScriptedActor):
    """Does what files in `folder` are named after. A fault of one engine is for whichever comes to it first: its file
    then bears that process's number. "none loads", "poison" and "keep" are for all engines, while the file is there.
    Each time that the chosen request reaches an engine leaves a file too."""

    def __init__(self, settings: EngineSettings, folder: Path) -> None:
        super().__init__(settings)
        self.folder = folder
        self.hangs = False

    def takes(self, fault: str) -> bool:
        try:
            (self.folder / fault).rename(self.folder / f"{fault}-{os.getpid()}")
        except FileNotFoundError:
            return False
        return True

    async def start(self, cores: tuple[int, ...] = ()) -> Ready:
        if (self.folder / "none loads").exists() or self.takes("does not load"):
            await asyncio.sleep(3600)
        return await super().start(cores)

    async def exchange(self, calls: tuple[Call, ...], withdrawn: tuple[int, ...], hold_s: float) -> News:
        if calls and self.takes("hold"):
            ctypes.PyDLL(None).sleep(3600)  # a call in C that keeps the interpreter's lock
        if calls and self.takes("hang"):
            self.hangs = True
            (self.folder / "held").write_text("\n".join(name_of(call.request) for call in calls))
            for task in self._tasks.values():
                task.cancel()
        if self.hangs:
            await asyncio.sleep(hold_s)
            return News((), self._gauges())
        return await super().exchange(calls, withdrawn, hold_s)

    async def _answer(self, call: Call) -> None:
        if is_chosen(call.request):
            (self.folder / f"reached-{time.time_ns()}-{os.getpid()}").touch()
            if (self.folder / "poison").exists():
                os._exit(1)
            while (self.folder / "keep").exists():
                await asyncio.sleep(0.01)
        await super()._answer(call)


def name_of(request: Request) -> str:
    """A request as the log names it."""
    key = request.key
    return f"{key.unit}/{key.stage}/{key.candidate}/{key.sample}/{key.attempt}"


def is_chosen(request: Request) -> bool:
    """Whether this is the one that is poison, or is kept."""
    return request.key.unit == CHOSEN and request.key.stage is Stage.BOOTSTRAP


def reached(folder: Path) -> list[int]:
    """The processes that the chosen request has come to, in order."""
    return [int(path.name.rpartition("-")[2]) for path in sorted(folder.glob("reached-*"))]


def taken(folder: Path, fault: str) -> int:
    """The process that a fault of one engine has met."""
    [path] = folder.glob(f"{fault}-*")
    return int(path.name.rpartition("-")[2])


async def until(condition: Callable[[], object]) -> None:
    """Wait for a condition, at most a minute."""
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.005)


Disturb = Callable[[EnginePool], Awaitable[None]]


async def disturbed(
    config: Config, folder: Path, faults: Path, disturb: Disturb | None = None, **limits: Any
) -> tuple[PoolStats, Events]:
    """Run to the end over faulty engines, with `disturb` beside it; what their pool counted and noted."""
    events: Events = []

    def note(kind: str, **values: Any) -> None:
        events.append({"event": kind, **values})

    limits = {"backoff_s": 0.01, **limits}
    pool = cluster.actor_pool(FaultyActor, (config.engine, faults), config.engine, note=note, **limits)
    try:
        running = asyncio.create_task(run_to_end(config, folder, pool))
        if disturb is not None:
            disturbing = asyncio.create_task(disturb(pool))
            await asyncio.wait((running, disturbing), return_when=asyncio.FIRST_COMPLETED)
            assert disturbing.done(), f"the run ended before it was disturbed: {running!r}"
            await disturbing
        await running
        return pool.stats(), events
    finally:
        await pool.close()


async def in_the_middle(pool: EnginePool) -> int:
    """Wait until much is answered and some engine holds requests; the process it is in."""
    await until(lambda: pool.stats().answered >= 30 and pool.stats().in_flight)
    ready = [engine for engine in pool.stats().engines if engine.state == "ready"]
    return next(process.pid for engine, process in zip(ready, pool.ready, strict=True) if engine.in_flight)


def lost(events: Events, words: str) -> dict[str, Any]:
    """The first event of an engine that was lost, with these words."""
    return next(event for event in events if event["event"] == "engine_lost" and words in event["detail"])


@pytest.mark.parametrize(
    ("number", "words"),
    [(signal.SIGKILL, "died"), pytest.param(signal.SIGSTOP, "process {} ", marks=pytest.mark.slow)],
    ids=["SIGKILL", "SIGSTOP"],
)
def test_an_engine_that_gets_a_signal(on_ray, scripted, tmp_path, gone, ends_as_undisturbed, number, words) -> None:
    """An engine that is killed or stopped from outside is replaced; what it held is answered elsewhere, and its process
    is gone in either case."""
    config = scripted(**over_two(silent_timeout_s=5))
    hit: list[int] = []

    async def disturb(pool: EnginePool) -> None:
        hit.append(await in_the_middle(pool))
        os.kill(hit[0], number)

    stats, events = asyncio.run(disturbed(config, tmp_path / "r", tmp_path, disturb))

    assert stats.deaths >= 1
    assert lost(events, words.format(hit[0]))["in_flight"]
    assert gone(hit[0])
    ends_as_undisturbed(tmp_path / "r", config)


def test_an_engine_that_answers_and_makes_no_token(on_ray, scripted, tmp_path, gone, ends_as_undisturbed) -> None:
    """One that exchanges messages and answers a ping, and does nothing, is killed; the log names what it held."""
    config = scripted(**over_two(stall_timeout_s=5))
    pulses: list[int] = []

    async def disturb(pool: EnginePool) -> None:
        await in_the_middle(pool)
        (tmp_path / "hang").touch()
        await until(lambda: (tmp_path / "held").exists())
        pulses.extend([(await handle.ping()).pid for handle in pool.handles])

    stats, events = asyncio.run(disturbed(config, tmp_path / "r", tmp_path, disturb))

    hung = taken(tmp_path, "hang")
    event = lost(events, f"process {hung} ")
    assert hung in pulses
    assert stats.deaths >= 1
    assert "answers but made no token in 5 s" in event["detail"]
    assert set((tmp_path / "held").read_text().splitlines()) <= set(event["in_flight"])
    assert gone(hung)
    ends_as_undisturbed(tmp_path / "r", config)


def test_an_engine_whose_interpreter_is_held(on_ray, scripted, tmp_path, gone, ends_as_undisturbed) -> None:
    """One whose process is in a call that keeps the interpreter's lock is killed for its silence."""
    config = scripted(**over_two(silent_timeout_s=5))

    async def disturb(pool: EnginePool) -> None:
        await in_the_middle(pool)
        (tmp_path / "hold").touch()

    stats, events = asyncio.run(disturbed(config, tmp_path / "r", tmp_path, disturb))

    held = taken(tmp_path, "hold")
    assert stats.deaths >= 1
    assert lost(events, f"process {held} ")["detail"].endswith("was silent for 5 s")
    assert gone(held)
    ends_as_undisturbed(tmp_path / "r", config)


@pytest.mark.slow
def test_an_engine_that_does_not_load(on_ray, scripted, tmp_path, gone, ends_as_undisturbed) -> None:
    """One whose start never returns is given up after its time and replaced, while the other one works."""
    config = scripted(**over_two(start_timeout_s=15))
    for fault in ("does not load", "keep"):
        (tmp_path / fault).touch()

    async def disturb(pool: EnginePool) -> None:
        await until(lambda: pool.stats().deaths and pool.stats().ready == 2)
        (tmp_path / "keep").unlink()

    stats, events = asyncio.run(disturbed(config, tmp_path / "r", tmp_path, disturb))

    assert stats.deaths >= 1
    assert lost(events, "it was not loaded within 15 s")["in_flight"] == []
    assert gone(taken(tmp_path, "does not load"))
    ends_as_undisturbed(tmp_path / "r", config)


@pytest.mark.slow
def test_no_engine_that_loads(on_ray, scripted, tmp_path, ends_as_undisturbed) -> None:
    """Where none ever loads the run stops with 75, and goes on with engines that do."""
    config = scripted(**over_two(start_timeout_s=8))
    (tmp_path / "none loads").touch()
    with pytest.raises(RunStopped, match=r"^No engine was ready for 8 s \(.*loading") as stopped:
        asyncio.run(disturbed(config, tmp_path / "r", tmp_path))
    (tmp_path / "none loads").unlink()
    asyncio.run(disturbed(config, tmp_path / "r", tmp_path, start_timeout_s=150))

    assert stopped.value.exit_code == 75
    ends_as_undisturbed(tmp_path / "r", config)


def convicted(request: Request) -> Completion | Exception:
    """The script, but for the poison: what a run is left with once it is found."""
    return ContentFault(Reason.ENGINE_KILLED, CONVICTED) if is_chosen(request) else scripted_answer(request)


@pytest.mark.parametrize("killed", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["once", "resumed"])
def test_a_request_that_kills_each_engine(on_ray, scripted, tmp_path, tables, ends_as_undisturbed, killed) -> None:
    """After three engines the request is given up: one failure row, and all other rows are those of a run in which it
    failed without any death; also where the run was killed before the third death, and run again."""
    config = scripted(**over_two())
    (tmp_path / "poison").touch()
    before = 0
    if killed:
        process = in_a_process(config, tmp_path)
        try:
            until_sync(lambda: len(reached(tmp_path)) == 2, process)
        finally:
            process.kill()
            process.wait()
        before = len(reached(tmp_path))
    stats, _ = asyncio.run(disturbed(config, tmp_path / "r", tmp_path))

    assert len(reached(tmp_path)) - before == POISON_DEATHS
    assert stats.deaths >= POISON_DEATHS
    [failure] = [row for row in tables(tmp_path / "r")["rejected"] if row["reason"] == Reason.ENGINE_KILLED]
    assert failure["unit"] == CHOSEN
    ends_as_undisturbed(tmp_path / "r", config, convicted)


@pytest.mark.parametrize("together", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["in turn", "together"])
def test_an_innocent_request_at_two_deaths(on_ray, scripted, tmp_path, ends_as_undisturbed, together) -> None:
    """A request that is in flight on both engines as they are killed from outside, one after the other or at once, is
    answered by a third."""
    config = scripted(**over_two())
    (tmp_path / "keep").touch()

    async def disturb(pool: EnginePool) -> None:
        for number in (1, 2):
            await until(lambda number=number: len(reached(tmp_path)) >= number)
            if not together:
                os.kill(reached(tmp_path)[-1], signal.SIGKILL)
        if together:
            for pid in reached(tmp_path):
                os.kill(pid, signal.SIGKILL)
        await until(lambda: len(reached(tmp_path)) >= 3)
        (tmp_path / "keep").unlink()

    slow_floor_s = 0.2 if together else 600.0  # when it is sent to a second engine
    stats, events = asyncio.run(disturbed(config, tmp_path / "r", tmp_path, disturb, slow_floor_s=slow_floor_s))

    deaths = [event for event in events if event["event"] == "engine_lost"]
    assert stats.deaths == len(deaths) == 2
    assert all(f"{CHOSEN}/{Stage.BOOTSTRAP}/0/0/0" in event["in_flight"] for event in deaths)
    assert len(set(reached(tmp_path)[:2])) == 2
    ends_as_undisturbed(tmp_path / "r", config)


def in_a_process(config: Config, folder: Path) -> subprocess.Popen[bytes]:
    """The same run over faulty engines on a cluster of its own, in a process that can be killed."""
    command = [sys.executable, __file__, config.model_dump_json(exclude_unset=True), str(folder)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)


def until_sync(condition: Callable[[], object], process: subprocess.Popen[bytes]) -> None:
    """Wait for a condition, at most a minute, while a process runs."""
    patience = time.monotonic() + 60
    while not condition():
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < patience
        time.sleep(0.005)


if __name__ == "__main__":
    asked, place = sys.argv[1:]
    cluster.connect()
    asyncio.run(disturbed(parse_config(json.loads(asked), "test"), Path(place) / "r", Path(place)))
    cluster.disconnect()
