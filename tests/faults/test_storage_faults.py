"""Storage that fails, fills up or ends the process at any of its acts: nothing is lost and nothing is doubled.

Each act of a run is met in turn; after the fault the run is started again on sound storage and must end with the
rows of an undisturbed one, in a folder that `verify` finds whole.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import Config
from pipeline.errors import RunStopped
from pipeline.shards import read_commits
from pipeline.testing import ScriptedEngine, run_to_end
from pipeline.testing_faults import Fault, FaultyFolder, disk_of, fail_at, kill_at
from pipeline.verify import verify

ACTS = 24  # of a run of about this size; later ones are commits like those before


def run(config: Config, place: Path | FaultyFolder) -> None:
    """Run to the end in this process."""
    asyncio.run(run_to_end(config, place, ScriptedEngine(delay_s=0.001)))


@pytest.fixture(params=["self-instruct", "backtranslation"])
def config(request: pytest.FixtureRequest, scripted: Callable[..., Config], backtranslation: Callable[..., Config]):
    """A small run of either recipe, of about six commits."""
    if request.param == "self-instruct":
        return scripted(target=40, shards={"rows": 12})
    return backtranslation(target=None, shards={"rows": 8}, budget={"units": 30})


@pytest.fixture
def whole(config: Config, tables: Any, tmp_path: Path) -> dict[str, list[dict[str, Any]]]:
    """The rows of an undisturbed run."""
    run(config, tmp_path / "whole")
    return tables(tmp_path / "whole")


def numbers(slow_from: int) -> list[Any]:
    """Every act; those from `slow_from` on only in the long suite, but for every seventh: a commit has five acts, so
    that these are of different kinds."""
    return [pytest.param(n, marks=[pytest.mark.slow] if n >= slow_from and n % 7 else []) for n in range(1, ACTS + 1)]


def ends_as_undisturbed(config: Config, folder: Path, tables: Any, whole: dict[str, list[dict[str, Any]]]) -> None:
    """Start again on sound storage; the rows are those of an undisturbed run, and the folder is whole."""
    run(config, folder)
    assert tables(folder) == whole
    assert verify(folder, full=True).startswith("OK")
    assert not list(folder.rglob(".tmp-*"))
    named = {file.path for commit in read_commits(folder) for file in commit.files}
    assert {f"{kind}/{path.name}" for kind in whole for path in (folder / kind).iterdir()} == named


@pytest.mark.parametrize("after", [False, True], ids=["before", "answer-lost"])
@pytest.mark.parametrize("number", numbers(4))
def test_an_act_that_fails(config, whole, tables, tmp_path, number, after) -> None:
    """A storage error stops the run at once or is made good; the next run goes on from what is whole."""
    with contextlib.suppress(OSError, RunStopped):
        run(config, FaultyFolder(tmp_path / "r", fail_at(number, after=after)))
    ends_as_undisturbed(config, tmp_path / "r", tables, whole)


def killed(config: Config, folder: Path, fault: Fault) -> int | None:
    """Run in a process of its own, on storage with this fault; the signal that ended it."""
    process = multiprocessing.get_context("fork").Process(target=run, args=(config, FaultyFolder(folder, fault)))
    process.start()
    process.join(60)
    return process.exitcode


@pytest.mark.parametrize("when", ["before", "torn", "after"])
@pytest.mark.parametrize("number", numbers(3))
def test_a_kill_in_an_act(config, whole, tables, tmp_path, number, when) -> None:
    """SIGKILL before an act, in the middle of writing its file, or after it, loses and doubles nothing."""
    torn = tmp_path / "r" if when == "torn" else None
    ended = killed(config, tmp_path / "r", kill_at(number, after=when == "after", torn=torn))

    assert ended in (-signal.SIGKILL, 0)  # 0: the run has fewer acts
    ends_as_undisturbed(config, tmp_path / "r", tables, whole)


@pytest.mark.parametrize("size", [500, 20_000, *(pytest.param(n, marks=pytest.mark.slow) for n in (40_000, 60_000))])
def test_a_disk_that_is_full(config, whole, tables, tmp_path, size) -> None:
    """With no room left the run ends with the system's word for it; with room again it goes on."""
    with pytest.raises(OSError, match="No space left"):
        run(config, FaultyFolder(tmp_path / "r", disk_of(size)))
    ends_as_undisturbed(config, tmp_path / "r", tables, whole)
