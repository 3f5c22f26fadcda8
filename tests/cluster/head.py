"""A Ray cluster as a person has it: `ray start --head` with a token, in a session of its own on this machine."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
MARK = "INSTRUCTMILL_TEST_CLUSTER"  # in the environment of every process that the cluster starts
HEAD_ID = "f" * 51 + "00000"  # what Ray's fake nodes take for their head's id


class Head:
    """A cluster of one node, with the environment in which a person would submit to it; `join` adds more of them.

    `folder` is for Ray's files; its path must be short. With `nodes` (a type's resources, and how many at most) Ray's
    real autoscaler brings and takes away its fake nodes: more processes on this machine.
    """

    def __init__(self, folder: Path, cpus: int = 2, nodes: tuple[dict[str, float], int] | None = None) -> None:
        self._mark = secrets.token_hex(8)
        self._folder = folder
        self.port, dashboard, agent, client = free_ports(4)
        self.address = f"http://127.0.0.1:{dashboard}"
        kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        self.environment = {
            **kept,
            "HOME": str(folder),  # where Ray would look for a token, and leave one
            "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
        }
        self._for_nodes = for_nodes = {MARK: self._mark, "RAY_max_grpc_message_size": str(8 << 20)}
        command = [*_start(cpus), "--head", f"--port={self.port}", "--disable-usage-stats", "--include-dashboard=true"]
        command += ["--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}"]
        command += [f"--dashboard-agent-listen-port={agent}", f"--ray-client-server-port={client}"]
        command += [f"--temp-dir={folder}"]
        if nodes is not None:
            path = folder / "autoscaling.json"
            path.write_text(json.dumps(_autoscaling(f"127.0.0.1:{self.port}", cpus, *nodes)))
            command.append(f"--autoscaling-config={path}")
            for_nodes |= {"RAY_FAKE_CLUSTER": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1"}
            for_nodes |= {"RAY_OVERRIDE_NODE_ID_FOR_TESTING": HEAD_ID, "RAY_CLOUD_INSTANCE_ID": HEAD_ID}
        self._log = (folder / "start.log").open("wb")
        self._started = [self._start(command, for_nodes)]

    def join(self, cpus: int, resources: dict[str, float], **environment: str) -> None:
        """Start one more node, with a raylet of its own on this machine: what a person runs there to join the head."""
        until = time.monotonic() + 60
        while not self._listens():
            assert time.monotonic() < until, "the head does not listen"
            time.sleep(0.05)
        command = [*_start(cpus), f"--address=127.0.0.1:{self.port}", f"--resources={json.dumps(resources)}"]
        # A folder of its own, as on a machine of its own: a node replaces the working dirs that it finds in it.
        command += [f"--temp-dir={self._folder}/{len(self._started)}"]
        command += ["--dashboard-agent-listen-port=0", "--include-log-monitor=false"]
        self._started.append(self._start(command, {**self._for_nodes, **environment}))

    def _start(self, command: list[str], environment: dict[str, str]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            command,
            env={**self.environment, **environment},
            cwd=self._folder,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def _listens(self) -> bool:
        with socket.socket() as door:
            return door.connect_ex(("127.0.0.1", self.port)) == 0

    def wait(self, nodes: int = 1) -> None:
        """Until the cluster takes jobs, and has so many nodes."""
        until = time.monotonic() + 90
        while True:
            with suppress(OSError):
                self.jobs()
                if self.nodes() >= nodes:
                    return
            ended = [process for process in self._started if process.poll() is not None]
            assert not ended, (self._folder / "start.log").read_text()
            assert time.monotonic() < until, "the cluster did not come up"
            time.sleep(0.1)

    def ask(self, path: str, method: str = "GET") -> Any:
        """Ask the dashboard, as Ray's own client does."""
        request = urllib.request.Request(f"{self.address}/api/{path}", method=method)
        request.add_header("Authorization", f"Bearer {self.environment['RAY_AUTH_TOKEN']}")
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    def jobs(self) -> dict[str, dict[str, Any]]:
        """What the cluster tells of its jobs to whoever has the token."""
        return {job["submission_id"]: job for job in self.ask("jobs/")}

    def alive(self) -> list[dict[str, Any]]:
        """The nodes that are alive, the head first."""
        found = self.ask("v0/nodes")["data"]["result"]["result"]
        return sorted((node for node in found if node["state"] == "ALIVE"), key=lambda node: not node["is_head_node"])

    def nodes(self) -> int:
        """How many nodes are alive."""
        return len(self.alive())

    def stop(self, id: str) -> None:
        """What `ray job stop` does."""
        assert self.ask(f"jobs/{id}/stop", "POST")["stopped"]

    def close(self) -> None:
        """End every process of the cluster and no other."""
        for _ in range(50):
            ours = self.processes()
            if not ours:
                break
            for process in ours:
                with suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
            for started in self._started:
                with suppress(subprocess.TimeoutExpired):
                    started.wait(0.1)
            time.sleep(0.1)
        self._log.close()
        assert not self.processes(), "processes of the cluster are left"

    def processes(self) -> list[int]:
        """Those that were started with this cluster's mark."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal():
                with suppress(OSError):
                    state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
                    if state != "Z" and f"{MARK}={self._mark}".encode() in (entry / "environ").read_bytes():
                        found.append(int(entry.name))
        return found


def _start(cpus: int) -> list[str]:
    """The command that starts a node, as far as it is the same for all."""
    command = [str(BIN / "ray"), "start", "--block", f"--num-cpus={cpus}", "--node-ip-address=127.0.0.1"]
    return [*command, "--min-worker-port=0", "--max-worker-port=0"]


def _autoscaling(gcs: str, cpus: int, resources: dict[str, float], most: int) -> dict[str, Any]:
    """The file that Ray's fake nodes need, which its wheel lacks."""
    commands = ("initialization", "setup", "head_setup", "worker_setup", "head_start_ray", "worker_start_ray")
    provider = {"type": "fake_multinode", "gcs_address": gcs, "head_node_id": HEAD_ID, "launch_multiple": True}
    lacking = {"use_node_id_as_ip": True, "disable_node_updaters": True, "disable_launch_config_check": True}
    return {
        "cluster_name": "fake",
        "max_workers": most,
        "upscaling_speed": 1.0,
        "idle_timeout_minutes": 0.05,
        "provider": provider | lacking,
        "head_node_type": "ray.head.default",
        "available_node_types": {
            "ray.head.default": {"resources": {"CPU": cpus}, "node_config": {}, "max_workers": 0},
            "engines": {"resources": resources, "node_config": {}, "min_workers": 0, "max_workers": most},
        },
        **{f"{name}_commands": [] for name in commands},
        **{name: {} for name in ("auth", "docker", "file_mounts", "head_node", "worker_nodes")},
        **{name: [] for name in ("cluster_synced_files", "rsync_exclude", "rsync_filter")},
        "file_mounts_sync_continuously": False,
    }


def free_ports(count: int) -> list[int]:
    """So many ports that nobody listens on."""
    doors = [socket.socket() for _ in range(count)]
    try:
        for door in doors:
            door.bind(("127.0.0.1", 0))
        return [door.getsockname()[1] for door in doors]
    finally:
        for door in doors:
            door.close()
