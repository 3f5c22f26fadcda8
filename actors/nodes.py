"""The machines of the connected cluster: what they have, which ones may come, which are about to go, who is where.

All but the first Ray shows to its own libraries alone: where it moves them, none is known.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

import ray

from pipeline.engine_settings import EngineSettings


@dataclass(frozen=True, slots=True)
class Node:
    """CPUs, GPUs and custom resources of one machine."""

    cpus: float
    gpus: float
    custom: Mapping[str, float] = field(default_factory=dict)

    def engines(self, settings: EngineSettings) -> int:
        """How many engines fit here."""
        wanted: list[tuple[float, float]] = [(self.cpus, settings.num_cpus), (self.gpus, settings.num_gpus)]
        wanted += [(self.custom.get(name, 0.0), amount) for name, amount in settings.resources.items()]
        return int(min(there // amount for there, amount in wanted if amount))


@dataclass(frozen=True, slots=True)
class Resources:
    """What the cluster has, and what of it is free now."""

    nodes: tuple[Node, ...]
    free_cpus: float
    free_gpus: float

    @property
    def cpus(self) -> float:
        return sum(node.cpus for node in self.nodes)

    @property
    def gpus(self) -> float:
        return sum(node.gpus for node in self.nodes)

    def __str__(self) -> str:
        machines = "1 machine" if len(self.nodes) == 1 else f"{len(self.nodes)} machines"
        free = f"({self.free_cpus:g} free) and {self.gpus:g} GPUs ({self.free_gpus:g} free)"
        return f"{machines} with {self.cpus:g} CPUs {free}"


def resources() -> Resources:
    """What the connected cluster has and has free."""
    alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    nodes = tuple(Node(each.get("CPU", 0.0), each.get("GPU", 0.0), each) for each in alive)
    free = ray.available_resources()
    return Resources(nodes, free.get("CPU", 0.0), free.get("GPU", 0.0))


def autoscaled_nodes() -> tuple[Node, ...] | None:
    """What nodes an autoscaler may bring, one of each type: none to a cluster that this process has started. None where
    that is not known: not every autoscaler tells."""
    if "RAY_ADDRESS" not in os.environ:
        return ()
    try:
        from ray._private.state import state

        groups = state.get_cluster_config().node_group_configs
        found = (dict(group.resources) for group in groups if group.max_count)
        return tuple(Node(each.get("CPU", 0.0), each.get("GPU", 0.0), each) for each in found)
    except Exception:  # noqa: BLE001 -- a private interface, and None where there is no autoscaler
        return None


def node_of(actor_id: str | None) -> str:
    """Ray's id of the node that an actor is or was on; empty where that is not known. Ray shows it to itself alone."""
    try:
        from ray._private.state import state

        return str(state.actor_table(actor_id)["Address"]["NodeID"]) if actor_id else ""
    except Exception:  # noqa: BLE001 -- a private interface
        return ""


def draining_nodes() -> frozenset[str]:
    """The nodes that are about to go, by Ray's ids. Ray shows this to its own libraries alone: where it moves, none."""
    try:
        from ray._private.state import state

        return frozenset(state.get_draining_nodes())
    except Exception:  # noqa: BLE001 -- a private interface: without it nodes go without a warning
        return frozenset()
