"""SIGKILL and SIGSTOP of engines, SIGKILL of novelty workers and of raylets, on a Ray cluster of the bench's own."""

from __future__ import annotations

import asyncio
import os
import random
import secrets
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kill_matrix_trial import Line, Subject

from pipeline.config import Config
from pipeline.driver import Driver, sums_close
from pipeline.errors import MillError
from pipeline.runs import open_run

NODES, CPUS = 3, 2  # beside a head without CPUs; one may be lost, and the other two have room for everything
ENGINES, WORKERS = 2, 2
SETS = (f"engine.count={ENGINES}", "engine.num_gpus=0", "engine.scripted.on_ray=true", "engine.scripted.capacity=32")
SETS += ("engine.scripted.delay_s=0.8",)
SILENT_S = 5.0  # an engine that was stopped is given up after this
GONE_S = 60.0  # its process is gone so long after the run at the latest
KILLS = 4  # of one run, at most
PATIENCE_S = 240.0  # one run; one that takes longer hangs
ENGINE, STOPPED, WORKER = "SIGKILL of an engine", "SIGSTOP of an engine", "SIGKILL of a novelty worker"
RAYLET = "SIGKILL of a raylet with an engine"


@contextmanager
def ray_cluster() -> Iterator[Any]:
    """A cluster of several raylets on this machine, with a token of its own, joined for as long as this lasts."""
    os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32), "RAY_USAGE_STATS_ENABLED": "0"}
    from ray.cluster_utils import Cluster

    from actors import cluster

    machines = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        for _ in range(NODES):
            machines.add_node(num_cpus=CPUS)
        os.environ["RAY_ADDRESS"] = machines.address
        cluster.connect()
        yield machines
    finally:
        cluster.disconnect()
        machines.shutdown()
        os.environ.pop("RAY_ADDRESS", None)


def kill_actors(lines: list[Line], subjects: list[Subject], work: Path, seed: int, until: float, machines: Any) -> None:
    """Trials of each line of the table in turn, until there were as many kills as are wanted, or the time is up."""
    while open_lines := [line for line in lines if line.times < line.wanted]:
        for line in open_lines:
            if time.monotonic() > until:
                return
            _trial(line, subjects[line.runs % len(subjects)], work, seed, machines)


def _trial(line: Line, subject: Subject, work: Path, seed: int, machines: Any) -> None:
    here = work / f"{line.fault.replace(' ', '-')}-{line.runs}"
    trial = _Trial(line, subject.load(*SETS, f"engine.silent_timeout_s={SILENT_S}"), here, machines, seed)
    faults = []
    try:
        asyncio.run(asyncio.wait_for(trial.run(min(KILLS, line.wanted - line.times)), PATIENCE_S))
    except (MillError, OSError, TimeoutError) as error:
        faults.append(f"{type(error).__name__}: {error}")
    faults += filter(None, map(_left, trial.stopped))
    if line.ended(subject, here, faults):
        shutil.rmtree(here)
    print(f"{line.fault}: {line.times} in {line.runs} runs", file=sys.stderr, flush=True)


def _left(pid: int) -> str | None:
    """Whether an engine that was stopped is there for long after it was replaced; it is killed then."""
    until = time.monotonic() + GONE_S
    while Path(f"/proc/{pid}").exists():
        if time.monotonic() > until:
            os.kill(pid, signal.SIGKILL)
            return f"the stopped engine, process {pid}, was there for more than {GONE_S:g} s after the run"
        time.sleep(0.1)
    return None


class _Trial:
    """One run in this process, with two engines and two novelty workers on the cluster."""

    def __init__(self, line: Line, config: Config, folder: Path, machines: Any, seed: int) -> None:
        self._line = line
        self._config = config
        self._folder = folder
        self._machines = machines
        self._rng: random.Random = line.stream(seed)
        self._noted: Counter[str] = Counter()
        self.stopped: list[int] = []

    async def run(self, most: int) -> None:
        """To its end, with so many kills at most on the way."""
        from actors import cluster

        run = open_run(self._config, self._folder)
        self._engines = cluster.engine_pool(self._config.engine, self._note)
        novelty = self._config.novelty
        self._workers = cluster.novelty_pool(novelty.tokenizer, novelty.lowest, WORKERS, self._note)
        killing = None
        try:
            await self._engines.start()
            run.state.pool.score_with(self._workers)
            await self._workers.start()
            killing = asyncio.create_task(self._kill(most))
            await Driver(self._config, run.state, run.plan.recipe, self._engines, run.commit, run.units).run()
            sums_close(run.state.counters)
        finally:
            if killing is not None:
                killing.cancel()
                await asyncio.gather(killing, return_exceptions=True)
            await self._workers.close()
            await self._engines.close()
            await run.close_units()
            run.close()
            while len(self._machines.worker_nodes) < NODES:
                self._machines.add_node(num_cpus=CPUS)
        if killing.done() and not killing.cancelled() and (error := killing.exception()):
            raise error

    def _note(self, kind: str, **_: object) -> None:
        self._noted[kind] += 1

    async def _kill(self, most: int) -> None:
        """At random moments. One counts when the driver has noticed it; the next one waits until all is well again."""
        sign = "novelty_worker_lost" if self._line.fault == WORKER else "engine_lost"
        for _ in range(most):
            while True:
                while len(self._engines.ready) < ENGINES or len(self._workers.handles) < WORKERS:
                    await asyncio.sleep(0.02)
                await asyncio.sleep(self._rng.uniform(0, 1.0))
                if len(self._engines.ready) == ENGINES and len(self._workers.handles) == WORKERS:
                    break
            seen = self._noted[sign]
            await self._one()
            while self._noted[sign] == seen:
                await asyncio.sleep(0.01)
            self._line.times += 1

    async def _one(self) -> None:
        pid = self._rng.choice(self._engines.ready).pid
        match self._line.fault:
            case "SIGKILL of an engine":
                os.kill(pid, signal.SIGKILL)
            case "SIGSTOP of an engine":
                self.stopped.append(pid)
                os.kill(pid, signal.SIGSTOP)
            case "SIGKILL of a novelty worker":
                actor = self._rng.choice(self._workers.handles)._actor
                os.kill(await actor.__ray_call__.remote(lambda _: os.getpid()), signal.SIGKILL)
            case _:
                raylet = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])  # its parent
                (node,) = (each for each in self._machines.worker_nodes if _raylet_of(each) == raylet)
                self._machines.remove_node(node, allow_graceful=False)
                self._machines.add_node(num_cpus=CPUS, wait=False)


def _raylet_of(node: Any) -> int:
    """The process of a node's raylet."""
    return int(node.all_processes["raylet"][0].process.pid)
