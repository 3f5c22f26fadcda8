"""Clusters that are not there, or have other versions: one sentence each, before Ray's client tries for minutes."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import threading
from collections.abc import Callable, Iterator

import pytest
import ray
from ray._private.runtime_env import packaging, working_dir
from ray._private.utils import check_version_info

from actors import cluster
from actors.jobs import Jobs
from actors.nodes import Node, Resources
from actors.reach import require_cluster
from pipeline.engine_settings import EngineSettings
from pipeline.errors import InputError, RunStopped
from tests.cluster.head import free_ports


class OldRay(http.server.BaseHTTPRequestHandler):
    """A dashboard of another Ray."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        version = {"version": "4", "ray_version": "2.9.3", "ray_commit": "", "session_name": ""}
        self.wfile.write(json.dumps(version).encode())

    def log_message(self, *_: object) -> None:
        """Says nothing."""


class Other(http.server.BaseHTTPRequestHandler):
    """A server that is no cluster."""

    log_message = OldRay.log_message


class Elsewhere(http.server.BaseHTTPRequestHandler):
    """A server that has a dashboard, and not under the path that is asked."""

    log_message = OldRay.log_message

    def do_GET(self) -> None:
        self.send_error(404)


Serve = Callable[[type[http.server.BaseHTTPRequestHandler]], str]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts a server, and gives its address without the scheme."""
    servers = []

    def start(kind: type[http.server.BaseHTTPRequestHandler]) -> str:
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), kind)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"127.0.0.1:{server.server_address[1]}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def refusal(call: Callable[[], object]) -> str:
    """The one sentence with which something is refused."""
    with pytest.raises(InputError) as refused:
        call()
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_a_dashboard_that_is_none_of_this_ray_is_refused(serve) -> None:
    """Where a job is to be submitted: nothing there, something else there, and a cluster of another Ray."""
    (closed,) = free_ports(1)

    assert "(nothing answers); is it up, and is this the address of its dashboard" in refusal(
        lambda: Jobs(f"http://127.0.0.1:{closed}")
    )
    assert "no Ray cluster at http://127.0.0.1:" in refusal(lambda: Jobs(f"http://{serve(Other)}"))
    assert f"has Ray 2.9.3, and this machine has {ray.__version__}: use an image with Ray" in refusal(
        lambda: Jobs(f"http://{serve(OldRay)}")
    )


def test_an_address_with_a_path_that_leads_nowhere_is_refused(serve) -> None:
    """Where nothing is found under the path of an address, it is the path that is to go."""
    at = f"http://{serve(Elsewhere)}"

    assert refusal(lambda: Jobs(f"{at}/ray")) == (
        f"something answers at {at}/ray, but it is no Ray dashboard: leave the path out"
    )
    assert f"no Ray cluster at {at} (" in refusal(lambda: Jobs(at))


def test_rays_own_remarks_on_what_it_packs_are_not_shown(serve, caplog) -> None:
    """Submitting a clone prints none of Ray's lines about its .gitignore and .git."""
    with contextlib.suppress(InputError):
        Jobs(f"http://{serve(OldRay)}")
    packaging.default_logger.info("Ignoring upload to cluster for these files")
    working_dir.default_logger.warning("Directory '.git' is now ignored by default")

    assert caplog.messages == []


def test_a_cluster_that_is_not_there_is_refused_at_once(serve) -> None:
    """Where a run is to join: nothing there, something else there, and what is no address of a head."""
    (closed,) = free_ports(1)

    assert f"no Ray cluster at RAY_ADDRESS=127.0.0.1:{closed} ([Errno 111] Connection refused): is it up?" in refusal(
        lambda: require_cluster(f"127.0.0.1:{closed}")
    )
    assert "is no Ray cluster, or one of another network than it says" in refusal(lambda: require_cluster(serve(Other)))
    for address in ("http://127.0.0.1:8265", "head", "head:six", "head:6379/x", ":6379"):
        assert f"RAY_ADDRESS={address} is no address of a Ray cluster: set RAY_ADDRESS to where its head is" in refusal(
            lambda address=address: require_cluster(address)
        )
    require_cluster("auto")  # which Ray itself looks for


def test_connecting_asks_first(monkeypatch) -> None:
    """A run that cannot reach its cluster ends before Ray's client is asked."""
    (closed,) = free_ports(1)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda *_, **__: pytest.fail("Ray was asked"))
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{closed}")

    assert "no Ray cluster at RAY_ADDRESS" in refusal(cluster.connect)


@pytest.mark.parametrize(("versions"), [("2.9.3", "3.11.9"), (ray.__version__, "3.9.1")], ids=["ray", "python"])
def test_a_cluster_of_other_versions_is_refused(monkeypatch, versions) -> None:
    """What Ray says of a head with another Ray or Python becomes a sentence with both versions and what to do."""

    def init(*_: object, **__: object) -> None:
        check_version_info(dict(zip(("ray_version", "python_version"), versions, strict=True)), "node 10.0.0.7")

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(cluster, "require_cluster", lambda address: None)
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    words = refusal(cluster.connect)

    assert words.startswith("the Ray cluster at RAY_ADDRESS=head:6379 has other versions of Ray or Python than this")
    assert f"started with: Ray: {versions[0]} Python: {versions[1]} This process on node 10.0.0.7" in words
    assert words.endswith("; use one image for all")


def test_a_machine_too_busy_for_a_cluster_is_to_try_again(monkeypatch) -> None:
    """A local cluster that did not come up in time is one to start again, with 75."""

    def init(*_: object, **__: object) -> None:
        raise Exception("The current node timed out during startup. This could happen because ...")

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", init)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(os, "environ", os.environ.copy())
    with pytest.raises(RunStopped, match="a local Ray cluster did not start in time: is this machine busy"):
        cluster.connect()


def used(cpus: float, gpus: float, free: float) -> Resources:
    """A cluster of one machine, of which others leave so many CPUs."""
    return Resources((Node(cpus, gpus),), free, gpus)


def test_room_that_others_use_is_to_wait_for(monkeypatch) -> None:
    """A cluster that is large enough and in use is no fault of the configuration: the same command goes on, with 75."""
    monkeypatch.setattr(cluster, "SETTLE_S", 0.0)
    monkeypatch.setattr(cluster, "resources", lambda: used(4, 0, 1))
    with pytest.raises(RunStopped, match=r"others use what the cluster has: .* 4 CPUs \(1 free\).*; wait for them"):
        cluster.require_room([EngineSettings(model="m", count=4, num_gpus=0)])


@pytest.mark.parametrize(("gpus", "coming", "told"), [(0, None, 1), (1, None, 0), (0, (Node(1, 1),), 0)])
def test_an_engine_that_no_node_holds_is_told_of_at_the_start(monkeypatch, gpus, coming, told) -> None:
    """Once, where no node of the cluster holds an engine and no autoscaler is known to bring one; else not."""
    monkeypatch.setattr(cluster, "resources", lambda: used(4, gpus, 4))
    monkeypatch.setattr(cluster, "autoscaled_nodes", lambda: coming)
    lines: list[str] = []
    settings = EngineSettings(model="m", min=0, max=2, room_timeout_s=7200)
    cluster.require_room([settings], 0, lines.append)

    assert len(lines) == told
    for line in lines:
        assert line.startswith("no node of the cluster holds an engine of 1 CPUs and 1 GPUs, and no autoscaler says")
        assert line.endswith("engine.min = 0 waits for it, up to 2:00:00")
