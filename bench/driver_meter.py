"""What `bench/driver.py` measures with: CPU time by process, by thread and by what the main thread does."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from pipeline.driver import Driver

HZ = os.sysconf("SC_CLK_TCK")

# Whose time it is, by the innermost of these files on the stack.
PARTS = {
    "exchange": ("actors/engine_pool", "actors/dispatch", "actors/messages", "bench/driver_engines", "actors/cluster"),
    "gate, novelty": ("pipeline/gate", "pipeline/novelty", "pipeline/pool", "pipeline/scoring", "actors/novelty_pool"),
    "driver": ("pipeline/driver", "pipeline/counters", "pipeline/stops", "pipeline/runs", "pipeline/segment_"),
    "recipe": ("pipeline/",),
}


class Stacks:
    """Samples what the main thread's CPU time goes into; the collection of garbage is measured apart."""

    EVERY_S = 0.01

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()
        self._last = self._collecting = self._collected = 0.0
        self._parts: dict[str, str | None] = {}

    def start(self) -> None:
        self._last = time.thread_time()
        gc.callbacks.append(self._garbage)
        signal.signal(signal.SIGALRM, self._sample)
        signal.setitimer(signal.ITIMER_REAL, self.EVERY_S, self.EVERY_S)

    def stop(self) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        gc.callbacks.remove(self._garbage)

    def _garbage(self, phase: str, _: dict[str, int]) -> None:
        if phase == "start":
            self._collecting = time.thread_time()
        else:
            spent = time.thread_time() - self._collecting
            self.seconds["garbage"] += spent
            self._collected += spent

    def _sample(self, _: int, frame: FrameType | None) -> None:
        now, collected = time.thread_time(), self._collected
        spent = now - self._last - collected
        self._last, self._collected = now, 0.0
        part = None
        while frame is not None and part is None:
            name = frame.f_code.co_filename
            if name not in self._parts:
                found = (part for part, files in PARTS.items() if any(f"/{file}" in name for file in files))
                self._parts[name] = next(found, None)
            part, frame = self._parts[name], frame.f_back
        self.seconds[part or "event loop"] += spent


def cpu_of(pid: int) -> float:
    """CPU seconds that a process has used, all of its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / HZ


def cpu_of_threads() -> dict[str, float]:
    """CPU seconds of this process by thread: the main one, Python's others (commits), Ray's own."""
    python = {thread.native_id for thread in threading.enumerate()}
    seconds = Counter[str]()
    for task in Path("/proc/self/task").iterdir():
        number = int(task.name)
        kind = "main" if number == os.getpid() else "python" if number in python else "ray"
        try:
            seconds[kind] += int((task / "schedstat").read_text().split()[0]) / 1e9
        except OSError:
            continue
    return dict(seconds)


# Processes that do a driver's work beside it, by what their command lines hold.
BESIDE = {"worker": b"ray::NoveltyWorker", "corpus": b"pipeline.segment_process"}


def beside() -> dict[str, list[int]]:
    """The processes that work for this one, by what they do."""
    found: dict[str, list[int]] = {name: [] for name in BESIDE}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes()
        except OSError:
            continue
        for name, sign in BESIDE.items():
            if sign in words and is_ours(int(process.name)):
                found[name].append(int(process.name))
    return found


def is_ours(pid: int) -> bool:
    """Whether a process descends from this one."""
    while pid > 1:
        if pid == os.getpid():
            return True
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return False


class Threads:
    """CPU time of what the driver does in threads, by name."""

    def __init__(self) -> None:
        self.seconds = Counter({"writing": 0.0})

    def timed(self, name: str, act: Callable[..., Any]) -> Callable[..., Any]:
        """The same, with its thread's time added to `name`."""

        def acting(*arguments: Any) -> Any:
            began = time.thread_time()
            try:
                return act(*arguments)
            finally:
                self.seconds[name] += time.thread_time() - began

        return acting


class Meter:
    """Readings of everything that is counted, and the difference of two."""

    def __init__(self, driver: Driver, pool: Any, simulators: list[Any], threads: Threads) -> None:
        self._driver, self._pool, self._simulators = driver, pool, simulators
        self._threads = threads

    async def read(self) -> Counter[str]:
        reports = await asyncio.gather(*(simulator.report.remote() for simulator in self._simulators))
        values: Counter[str] = Counter()
        for report in reports:
            values.update({f"engines {name}": value for name, value in report.items()})
        stats, counters = self._pool.stats(), self._driver.state.counters
        values.update({"answered": stats.answered, "exchanges": stats.exchanges, "resent": stats.resent})
        values.update({"units": counters.units, "admitted": self._driver.state.pool.admitted})
        values.update({"wall": time.perf_counter(), "cpu": time.process_time()})
        values.update({name: sum(map(cpu_of, pids)) for name, pids in beside().items()})
        values.update({f"{kind} threads": spent for kind, spent in cpu_of_threads().items()})
        values.update(self._threads.seconds)
        values.update({f"lost {cause}": seconds for cause, seconds in self._pool.use().lost.items()})
        return values
