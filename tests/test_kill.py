"""A run killed at any moment loses and doubles nothing (design, invariant 4)."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.segment_parts import tally_of
from pipeline.shards import read_commits

CONFIG = """
name = "k"
target = 250
window = 8
[engine]
kind = "scripted"
[shards]
rows = 60
"""

FROM_TEXTS = """
recipe = "backtranslation"
name = "k"
window = 8
[corpus]
source = "{source}"
[curation]
min_score = 3
[engine]
kind = "scripted"
[shards]
rows = 20
"""


def start(config: Path, folder: Path, call_log: Path, *, delay_s: float = 0.02) -> subprocess.Popen[bytes]:
    """The real command in a process of its own; an answer takes `delay_s`."""
    command = [sys.executable, "-m", "pipeline", "run", str(config), "--out", str(folder)]
    options = ["--set", f"engine.scripted.call_log={call_log}", "--set", f"engine.scripted.delay_s={delay_s}"]
    return subprocess.Popen([*command, *options], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def wait_for_commits(process: subprocess.Popen[bytes], folder: Path, count: int) -> None:
    """Until `count` commits after the planning one are visible."""
    while len(list((folder / ".run" / "commits").glob("[0-9]*.json"))) <= count:
        assert process.poll() is None, "the run ended before it could be killed"
        time.sleep(0.002)


def units_asked(call_log: Path) -> set[int]:
    """The units of which anything was asked."""
    return {int(line.split()[0]) for line in call_log.read_text().splitlines()}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """The configuration as a file."""
    path = tmp_path / "k.toml"
    path.write_text(CONFIG)
    return path


@pytest.mark.parametrize("commits_seen", [3, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 2, 4))])
def test_killed_and_started_again(config, tables, tmp_path, commits_seen):
    """After SIGKILL with three commits visible, the next run asks for no unit of a committed range, redoes at most two
    windows and one open range, and ends with the rows of a run left alone."""
    assert start(config, tmp_path / "whole", tmp_path / "whole.log").wait() == 0
    killed = start(config, tmp_path / "r", tmp_path / "before.log")
    wait_for_commits(killed, tmp_path / "r", commits_seen)
    killed.kill()
    killed.wait()
    commits = read_commits(tmp_path / "r")
    assert start(config, tmp_path / "r", tmp_path / "after.log").wait() == 0

    before, after = units_asked(tmp_path / "before.log"), units_asked(tmp_path / "after.log")
    longest_range = max(commit.end - commit.first for commit in read_commits(tmp_path / "r"))
    assert min(after) == commits[-1].end > 0
    assert 0 < len(before & after) <= 2 * 8 + longest_range
    assert tables(tmp_path / "whole") == tables(tmp_path / "r")


@pytest.mark.parametrize(
    "number", [pytest.param(signal.SIGINT, marks=pytest.mark.slow), signal.SIGTERM], ids=["SIGINT", "SIGTERM"]
)
def test_a_signal_commits_what_is_whole_and_exits_with_75(config, tables, tmp_path, number):
    """SIGINT and SIGTERM end the run with 75, one sentence and no traceback; the same command then completes it."""
    assert start(config, tmp_path / "whole", tmp_path / "whole.log").wait() == 0
    # So slow that units are under way when the signal comes, however long the commit before it takes.
    process = start(config, tmp_path / "r", tmp_path / "before.log", delay_s=0.6)
    wait_for_commits(process, tmp_path / "r", 1)
    os.kill(process.pid, number)
    _, words = process.communicate(timeout=30)
    assert start(config, tmp_path / "r", tmp_path / "after.log").wait() == 0

    assert process.returncode == 75
    assert f"stopped by {number.name}; run the same command again to go on" in words.decode()
    kept = max(read_commits(tmp_path / "r"), key=lambda commit: commit.end if commit.attempt == 1 else 0).end
    assert re.search(
        rf"^{kept} units are kept; [1-9]\d* that were under way are asked again", words.decode(), re.MULTILINE
    )
    assert "Traceback" not in words.decode()
    assert tables(tmp_path / "whole") == tables(tmp_path / "r")


@pytest.mark.parametrize("commits_seen", [2, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 3, 5))])
def test_backtranslation_killed_and_started_again(corpus, tables, tmp_path, commits_seen):
    """A run over a corpus that was killed goes on with the next segment and ends with the rows of one left alone."""
    config = tmp_path / "texts.toml"
    config.write_text(FROM_TEXTS.format(source=corpus(250)))
    assert start(config, tmp_path / "whole", tmp_path / "whole.log").wait() == 0
    killed = start(config, tmp_path / "r", tmp_path / "before.log")
    wait_for_commits(killed, tmp_path / "r", commits_seen)
    killed.kill()
    killed.wait()
    commits = read_commits(tmp_path / "r")
    assert start(config, tmp_path / "r", tmp_path / "after.log").wait() == 0

    assert min(units_asked(tmp_path / "after.log")) == commits[-1].end > 0
    assert tables(tmp_path / "whole") == tables(tmp_path / "r")
    assert tally_of(tmp_path / "whole") == tally_of(tmp_path / "r")
