"""Machines that go away: several of Ray's node processes on this one, and engines on them, in a process of its own."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ray.cluster_utils import Cluster

from actors import cluster
from actors.engine_pool import EnginePool
from actors.messages import Call
from actors.scripted_engine import ScriptedActor
from pipeline.config import Config, parse_config
from pipeline.engine_settings import EngineSettings
from pipeline.testing import run_to_end

ROOT = Path(__file__).resolve().parents[2]


KEPT = 7  # the units from this one on are answered when the fault is over


class KeepingActor(ScriptedActor):
    """Answers no request of later units before the file "over" is there."""

    def __init__(self, settings: EngineSettings, folder: Path) -> None:
        super().__init__(settings)
        self.folder = folder

    async def _answer(self, call: Call) -> None:
        while call.request.key.unit >= KEPT and not (self.folder / "over").exists():
            await asyncio.sleep(0.01)
        await super()._answer(call)


async def until(condition: Callable[[], object]) -> None:
    """Wait for a condition, at most a minute."""
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.005)


def parent(pid: int) -> int:
    """The process that started this one: of an engine that is its node's own."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


async def disturbed(config: Config, folder: Path, fault: str, nodes: Cluster) -> dict[str, Any]:
    """Run to the end over two nodes with an engine on each, of which one meets a fault; what there is to say of it."""
    events: list[dict[str, Any]] = []

    def note(kind: str, **values: Any) -> None:
        events.append({"event": kind, **values})

    def ready() -> list[int]:
        return [event["pid"] for event in events if event["event"] == "engine_ready"]

    async def disturb(pool: EnginePool) -> dict[str, Any]:
        await until(lambda: pool.stats().answered >= 30 and len(ready()) == 2 and pool.stats().engines[0].in_flight)
        pid = pool.ready[0].pid
        node = next(node for node in nodes.list_all_nodes() if raylet_of(node) == parent(pid))
        homes = [parent(each) for each in ready()]
        if fault == "stopped":
            os.kill(pid, signal.SIGSTOP)
        else:
            os.kill(raylet_of(node), signal.SIGKILL)
            await until(lambda: pool.stats().deaths)
            nodes.remove_node(node, allow_graceful=False)
            node = nodes.add_node(num_cpus=1)  # Ray takes it in the main thread alone
        return {"pid": pid, "homes": homes, "expected": raylet_of(node)}

    pool = cluster.actor_pool(KeepingActor, (config.engine, folder), config.engine, note=note)
    try:
        running = asyncio.create_task(run_to_end(config, folder / "r", pool))
        found = await disturb(pool)
        await until(lambda: len(ready()) == 3)
        found["home"] = parent(ready()[2])
        (folder / "over").touch()
        await running
        return {**found, "events": events}
    finally:
        await pool.close()


def raylet_of(node: Any) -> int:
    """The number of a node's own process."""
    return int(node.all_processes["raylet"][0].process.pid)


@pytest.mark.parametrize(
    ("fault", "silent_timeout_s"), [("removed", 120), pytest.param("stopped", 10, marks=pytest.mark.slow)]
)
def test_a_fault_elsewhere(scripted, tmp_path, gone, ends_as_undisturbed, fault, silent_timeout_s) -> None:
    """A node that is killed with an engine on it gives way to one that joins, and no request is suspected for it; an
    engine that is stopped on another node than the driver's is ended there, too."""
    script = {"on_ray": True, "capacity": 6, "delay_s": 0.05}
    config = scripted(
        engine={"kind": "scripted", "count": 2, "num_gpus": 0, "silent_timeout_s": silent_timeout_s, "scripted": script}
    )
    token = tmp_path / "token"
    token.write_text("0" * 64)
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("RAY_")},
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_USAGE_STATS_ENABLED": "0",
        "PYTHONPATH": str(ROOT),
    }
    command = [sys.executable, __file__, config.model_dump_json(exclude_unset=True), str(tmp_path), fault]
    ended = subprocess.run(command, env=environment, capture_output=True, timeout=200)
    assert ended.returncode == 0, ended.stderr.decode()[-3000:]

    found = json.loads((tmp_path / "found.json").read_text())
    lost = [event for event in found["events"] if event["event"] == "engine_lost"]
    assert len(set(found["homes"])) == 2
    assert len(lost) == 1
    assert lost[0]["blameless"]
    assert lost[0]["in_flight"]
    assert found["home"] == found["expected"]
    assert gone(found["pid"])
    ends_as_undisturbed(tmp_path / "r", config)


if __name__ == "__main__":
    asked, place, what = sys.argv[1:]
    several = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        for _ in range(2):
            several.add_node(num_cpus=1)
        os.environ["RAY_ADDRESS"] = several.address
        cluster.connect()
        report = asyncio.run(disturbed(parse_config(json.loads(asked), "test"), Path(place), what, several))
        (Path(place) / "found.json").write_text(json.dumps(report))
    finally:
        cluster.disconnect()
        several.shutdown()
