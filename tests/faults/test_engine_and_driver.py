"""An engine is lost, and then the driver: what is left of the processes, and what of the run."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.config import load_config

COMMAND = """
name = "t"
target = 500
window = 8
[engine]
kind = "scripted"
count = 2
num_gpus = 0
[engine.scripted]
on_ray = true
capacity = 6
delay_s = 0.25
[shards]
rows = 50
"""


def until_sync(condition: Callable[[], object], process: subprocess.Popen[bytes]) -> None:
    """Wait for a condition, at most a minute, while a process runs."""
    patience = time.monotonic() + 60
    while not condition():
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < patience
        time.sleep(0.005)


def below(pid: int) -> dict[int, str]:
    """The processes that a process has started, and those have started, with their names."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            children.setdefault(int(stat.read_text().rpartition(")")[2].split()[1]), []).append(int(stat.parent.name))
    found: dict[int, str] = {}
    waiting = children.get(pid, [])
    while waiting:
        child = waiting.pop()
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            found[child] = Path(f"/proc/{child}/cmdline").read_text()
        waiting += children.get(child, [])
    return found


@pytest.mark.slow
def test_an_engine_and_then_the_driver(tmp_path, gone, ends_as_undisturbed) -> None:
    """The real command loses an engine and is then killed itself: none of its processes is left, and the same command
    run again ends with the rows of an undisturbed one."""
    config = tmp_path / "k.toml"
    config.write_text(COMMAND)
    token = tmp_path / "token"
    token.write_text("0" * 64)
    command = [sys.executable, "-m", "pipeline", "run", str(config), "--out", str(tmp_path / "r")]
    environment = {**os.environ, "RAY_AUTH_TOKEN_PATH": str(token)}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def engines() -> set[int]:
        return {pid for pid, name in below(process.pid).items() if name.startswith("ray::ScriptedActor")}

    def commits() -> int:
        return len(list((tmp_path / "r" / ".run" / "commits").glob("[0-9]*.json")))

    try:
        until_sync(lambda: commits() >= 2 and len(engines()) == 2, process)
        first = engines()
        os.kill(min(first), signal.SIGKILL)
        seen = commits()
        until_sync(lambda: engines() - first and commits() > seen, process)
        left = [
            (pid, Path(name.split("\0")[0]).name) for pid, name in below(process.pid).items() if "Agent" not in name
        ]
    finally:
        process.kill()
        process.wait()

    assert {"gcs_server", "raylet", "ray::ScriptedActor"} <= {name.partition(".")[0] for _, name in left}
    assert [name for pid, name in left if not gone(pid)] == []
    assert subprocess.run(command, env=environment, capture_output=True, timeout=120).returncode == 0
    ends_as_undisturbed(tmp_path / "r", load_config(str(config)))
