"""What the tests of faults share: the rows of an undisturbed run, and whether a process is still there."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import Config, load_config
from pipeline.shards import read_commits
from pipeline.testing import Answer, ScriptedEngine, run_to_end
from pipeline.verify import verify

CONFIG = """
name = "k"
target = 150
window = 8
[engine]
kind = "scripted"
[engine.scripted]
delay_s = 0.02
[shards]
rows = 30
"""
# The command, with a lease of three seconds.
RUN = """
import sys
from pipeline import lock
from pipeline.cli import main
lock.LEASE_S, lock.RENEW_S, lock.SKEW_S = 3.0, 1.0, 0.5
sys.exit(main(sys.argv[1:]))
"""

Start = Callable[..., "subprocess.Popen[str]"]
GONE_S = 30.0  # Ray ends a stopped process by force after 5 s


def is_there(pid: int) -> bool:
    """Whether this process runs, stopped or not; a dead one that nobody has waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "XZ"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.fixture
def gone() -> Callable[[int], bool]:
    """Whether a process ends, waited for with patience."""

    def wait(pid: int) -> bool:
        until = time.monotonic() + GONE_S
        while is_there(pid) and time.monotonic() < until:
            time.sleep(0.05)
        return not is_there(pid)

    return wait


@pytest.fixture
def ends_as_undisturbed(tables: Any, tmp_path: Path) -> Callable[..., None]:
    """Asserts that a run folder has, in order, the rows of a run that no fault has met, and that verify finds it whole.

    `answer` is how the engine of the undisturbed run answers, where that is not the script.
    """

    def require(folder: Path, config: Config, answer: Answer | None = None) -> None:
        whole = tmp_path / "whole"
        asyncio.run(run_to_end(config, whole, ScriptedEngine(answer)))
        assert tables(folder) == tables(whole)
        assert verify(folder, full=True).startswith("OK")
        named = {file.path for commit in read_commits(folder) for file in commit.files}
        there = {f"{kind}/{path.name}" for kind in ("data", "pool", "rejected") for path in (folder / kind).iterdir()}
        assert there == named  # what no commit names, `datasets` would read all the same

    return require


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts `instructmill run` into a folder, by a wrapper of the command line; what runs at the end is killed."""
    (tmp_path / "k.toml").write_text(CONFIG)
    started: list[subprocess.Popen[str]] = []

    def run(
        out: Path | str, *options: str, wrapper: str = RUN, arguments: tuple[str, ...] = ()
    ) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", wrapper, *arguments]
        command += ["run", str(tmp_path / "k.toml"), "--out", str(out), *options]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        started.append(process)
        return process

    yield run
    for process in started:
        if process.poll() is None:
            process.kill()
        process.wait()
        assert process.stderr is not None
        process.stderr.close()


@pytest.fixture
def whole(start: Start, tables: Any, tmp_path: Path) -> dict[str, list[dict[str, Any]]]:
    """The rows of an undisturbed run of what `start` starts."""
    asyncio.run(run_to_end(load_config(str(tmp_path / "k.toml")), tmp_path / "whole", ScriptedEngine()))
    return tables(tmp_path / "whole")


def sentence(words: str) -> str:
    """The one line of the command's own, which is its last."""
    assert "Traceback" not in words
    lines = words.splitlines()
    assert [line.startswith("instructmill:") for line in lines].count(True) == 1, words
    return lines[-1]
