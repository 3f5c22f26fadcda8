"""Clusters that are not there, or have other versions: one sentence each, before Ray's client tries for minutes."""

from __future__ import annotations

import http.server
import json
import os
import threading
from collections.abc import Callable, Iterator

import pytest
import ray
from ray._private.utils import check_version_info

from actors import cluster
from actors.jobs import Jobs
from actors.reach import require_cluster
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
