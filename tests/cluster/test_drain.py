"""A node that is about to go, by Ray's own command: a real cluster of two nodes with an engine on each, in a process of
its own."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ray.cluster_utils import Cluster

from actors import cluster
from actors.messages import Call
from actors.nodes import draining_nodes
from actors.scripted_engine import ScriptedActor
from pipeline.config import Config, parse_config
from pipeline.engine_settings import EngineSettings
from pipeline.testing import ScriptedEngine, run_to_end

ROOT = Path(__file__).resolve().parents[2]
RAY = Path(sys.executable).parent / "ray"
KEPT = 7  # the units from this one on are answered once the node is known to go

pytestmark = pytest.mark.timeout(240)


class KeepingActor(ScriptedActor):
    """Answers no request of later units before the file "known" is there."""

    def __init__(self, settings: EngineSettings, folder: Path) -> None:
        super().__init__(settings)
        self.folder = folder

    async def _answer(self, call: Call) -> None:
        while call.request.key.unit >= KEPT and not (self.folder / "known").exists():
            await asyncio.sleep(0.01)
        await super()._answer(call)


async def until(condition: Callable[[], object]) -> None:
    """Wait for a condition, at most a minute."""
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.005)


async def drained(config: Config, folder: Path, nodes: Cluster) -> dict[str, Any]:
    """Run to the end over two engines, of which the node of one is drained on the way; what there is to say of it."""
    events: list[dict[str, Any]] = []

    def note(kind: str, **values: Any) -> None:
        stats = pool.stats()
        events.append({"event": kind, "now": [(each.in_flight, each.answered) for each in stats.engines], **values})

    def seen(kind: str) -> list[dict[str, Any]]:
        return [event for event in events if event["event"] == kind]

    limits = {"drains_s": 0.2, "spare_s": 60.0, "slow_floor_s": 600.0}  # and nothing is asked twice for being slow
    pool = cluster.actor_pool(KeepingActor, (config.engine, folder), config.engine, note=note, **limits)
    try:
        running = asyncio.create_task(run_to_end(config, folder / "r", pool))
        await until(lambda: all(engine.in_flight > 2 for engine in pool.stats().engines))
        before = sorted(draining_nodes())
        (node,) = (worker.node_id for worker in nodes.worker_nodes)
        command = [str(RAY), "drain-node", f"--address={nodes.address}", f"--node-id={node}"]
        command += ["--reason=DRAIN_NODE_REASON_PREEMPTION", "--reason-message=spot", "--deadline-remaining-seconds=60"]
        await asyncio.to_thread(subprocess.run, command, check=True, capture_output=True)
        await until(lambda: seen("engine_draining"))
        after = sorted(draining_nodes())
        (folder / "known").touch()
        await running
        found = {"node": node, "before": before, "after": after, "events": events, "deaths": pool.stats().deaths}
        return {**found, "answered": [engine.answered for engine in pool.stats().engines]}
    finally:
        await pool.close()


def test_a_node_that_is_drained_gets_no_new_work(scripted, tables, tmp_path) -> None:
    """A node that `ray drain-node` names is seen; its engine answers what it holds and gets nothing more, none is
    started there again, and the run has the rows of one left alone."""
    script = {"on_ray": True, "capacity": 6, "delay_s": 0.02}
    config = scripted(target=200, engine={"kind": "scripted", "count": 2, "num_gpus": 0, "scripted": script})
    token = tmp_path / "token"
    token.write_text("0" * 64)
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("RAY_")},
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_USAGE_STATS_ENABLED": "0",
        "PYTHONPATH": str(ROOT),
    }
    command = [sys.executable, __file__, config.model_dump_json(exclude_unset=True), str(tmp_path)]
    ended = subprocess.run(command, env=environment, capture_output=True, timeout=200)
    assert ended.returncode == 0, ended.stderr.decode()[-3000:]
    asyncio.run(run_to_end(config, tmp_path / "alone", ScriptedEngine()))

    found = json.loads((tmp_path / "found.json").read_text())
    (draining,) = (event for event in found["events"] if event["event"] == "engine_draining")
    (done,) = (event for event in found["events"] if event["event"] == "engine_drained")
    engine = draining["engine"]
    in_flight, answered = draining["now"][engine]
    assert (found["before"], found["after"]) == ([], [found["node"]])
    assert (draining["node"], done["engine"]) == (found["node"], engine)
    assert in_flight > 0
    assert done["now"][engine][1] == answered + in_flight == found["answered"][engine]
    assert found["answered"][1 - engine] > draining["now"][1 - engine][1]
    assert sum(event["event"] == "engine_ready" for event in found["events"]) == 2
    assert found["deaths"] == 0
    assert tables(tmp_path / "r") == tables(tmp_path / "alone")


if __name__ == "__main__":
    asked, place = sys.argv[1:]
    several = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        several.add_node(num_cpus=1)
        os.environ["RAY_ADDRESS"] = several.address
        cluster.connect()
        report = asyncio.run(drained(parse_config(json.loads(asked), "test"), Path(place), several))
        (Path(place) / "found.json").write_text(json.dumps(report))
    finally:
        cluster.disconnect()
        several.shutdown()
