"""What the tests of faults share: the rows of an undisturbed run, and whether a process is still there."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import Config
from pipeline.shards import read_commits
from pipeline.testing import Answer, ScriptedEngine, run_to_end
from pipeline.verify import verify

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
