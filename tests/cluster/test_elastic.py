"""A cluster that grows and shrinks with a run: Ray's real autoscaler over its fake nodes."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.config import load_config
from pipeline.launch import launch
from pipeline.report import status
from pipeline.runs import read_events
from pipeline.verify import verify
from tests.cluster.head import Head

CONFIG = """
name = "elastic"
target = 200
window = 8
[engine]
kind = "scripted"
min = 0
max = 2
num_gpus = 0
resources = {engine_slot = 1}
[engine.scripted]
on_ray = true
delay_s = 0.4
"""

pytestmark = pytest.mark.timeout(240)


@pytest.fixture
def head() -> Iterator[Head]:
    """A head without CPUs, and an autoscaler that may bring two nodes with room for an engine each."""
    folder = Path(tempfile.mkdtemp(prefix="im", dir="/tmp"))  # short: Ray's sockets lie in it
    head = Head(folder, cpus=0, nodes=({"CPU": 1, "engine_slot": 1}, 2))
    try:
        head.wait()
        yield head
    finally:
        head.close()
        shutil.rmtree(folder, ignore_errors=True)


def test_nodes_come_for_the_engines_and_go_with_them(head, tables, tmp_path) -> None:
    """With `min = 0` a run begins on a cluster without a node for its engines: the autoscaler brings one for each, both
    serve, the rows are those of an undisturbed run, and afterwards the nodes are given back."""
    (tmp_path / "elastic.toml").write_text(CONFIG)
    assert head.nodes() == 1
    ended = subprocess.run(
        [sys.executable, "-m", "pipeline", "run", "elastic.toml", "--out", "r"],
        cwd=tmp_path,
        env={**head.environment, "RAY_ADDRESS": f"127.0.0.1:{head.port}"},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert ended.returncode == 0, ended.stderr
    ready = [event for event in read_events(tmp_path / "r") if event["event"] == "engine_ready"]
    time_of = status(tmp_path / "r")["counts"]["engine_time"]
    until = time.monotonic() + 60
    while head.nodes() > 1 and time.monotonic() < until:
        time.sleep(0.5)
    launch(
        load_config(
            str(tmp_path / "elastic.toml"),
            ("engine.scripted.on_ray=false", "engine.scripted.delay_s=0"),
            str(tmp_path / "whole"),
        )
    )

    assert {event["engine"] for event in ready} == {0, 1}
    assert head.nodes() == 1
    assert tables(tmp_path / "r") == tables(tmp_path / "whole")
    assert verify(tmp_path / "r", full=True).startswith("OK")
    assert time_of["full"] > 0, json.dumps(time_of)
    assert "rows per engine-hour" in ended.stdout
    assert "engines 2/2" in ended.stderr
