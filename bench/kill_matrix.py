"""Kill a run at random moments until it is through, again and again, and count what was lost or doubled.

    python bench/kill_matrix.py [--kills 200] [--seed 1]

Each trial starts the real command in a process of its own, kills it with SIGKILL after a random time, starts it again,
and so on until the run is finished. The rows must then be, in order, those of a run that was left alone, and `verify
--full` must find the folder whole. Half of the trials have their folder on the local disk, half in S3 (a server on
127.0.0.1).
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from pipeline.report import read_rows
from pipeline.shards import read_commits
from pipeline.verify import verify

WINDOW = 8
CONFIG = f"""
name = "k"
target = 250
window = {WINDOW}
[engine]
kind = "scripted"
[engine.scripted]
delay_s = 0.04
[shards]
rows = 60
"""
RESULTS = Path(__file__).parent / "results"


@dataclass
class Line:
    """What came of the trials of one kind."""

    fault: str
    trials: int = 0
    kills: int = 0
    lost: int = 0
    doubled: int = 0
    redone: int = 0  # units asked for again after a kill, the most of one kill


@contextmanager
def s3_server() -> Iterator[None]:
    """A real S3-compatible server on this machine, with a bucket, named by the environment while it lasts."""
    import boto3

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.environ |= {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
    }
    try:
        for _ in range(100):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        boto3.client("s3").create_bucket(Bucket="kills")
        yield
    finally:
        process.kill()
        process.wait()


def start(config: Path, out: str, log: Path) -> subprocess.Popen[bytes]:
    """The real command; `log` gets the key of every request it asks."""
    command = [sys.executable, "-m", "pipeline", "run", str(config), "--out", out]
    options = ["--set", f"engine.scripted.call_log={log}"]
    return subprocess.Popen([*command, *options], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def units_asked(log: Path) -> set[int]:
    """The units of which anything was asked."""
    return {int(line.split()[0]) for line in log.read_text().splitlines()} if log.exists() else set()


def trial(config: Path, out: str, work: Path, rng: random.Random, most: int, seconds: float, line: Line) -> None:
    """Kill and start again until the run is through, `most` kills at the most."""
    before: set[int] = set()
    for attempt in range(most + 1):
        log = work / f"{line.fault}-{line.trials}-{attempt}.log"
        process = start(config, out, log)
        if attempt < most:
            try:
                process.wait(rng.uniform(0.8, seconds))
            except subprocess.TimeoutExpired:
                process.kill()
        _, words = process.communicate()
        asked = units_asked(log)
        line.redone = max(line.redone, len(asked & before))
        before |= asked
        if process.returncode == 0:
            break
        if process.returncode == -signal.SIGKILL:
            line.kills += 1
        elif process.returncode != 75:
            raise SystemExit(f"the run ended with {process.returncode}: {words.decode()}")
    line.trials += 1


def compare(whole: str, out: str, line: Line) -> None:
    """Count rows lost and doubled, and have the folder checked."""
    for kind in ("data", "pool", "rejected"):
        expected = [json.dumps(row, sort_keys=True) for row in read_rows(whole, kind)]
        found = [json.dumps(row, sort_keys=True) for row in read_rows(out, kind)]
        line.lost += len(set(expected) - set(found))
        line.doubled += len(found) - len(set(found))
        if not line.lost and not line.doubled and found != expected:
            raise SystemExit(f"{out}: the rows of {kind}/ are others, or in another order")
    verify(out, full=True)


def main() -> None:
    """Run the trials and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200, help="at least so many in all (200)")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    lines = [Line("SIGKILL, local disk"), Line("SIGKILL, S3")]
    with tempfile.TemporaryDirectory() as folder, s3_server():
        work, whole = Path(folder), str(Path(folder) / "whole")
        config = work / "k.toml"
        config.write_text(CONFIG)
        began = time.monotonic()
        if start(config, whole, work / "whole.log").wait() != 0:
            raise SystemExit("the undisturbed run failed")
        seconds = time.monotonic() - began
        longest = max(commit.end - commit.first for commit in read_commits(whole))
        while sum(line.kills for line in lines) < options.kills:
            line = lines[sum(each.trials for each in lines) % 2]
            out = str(work / f"r{line.trials}") if line is lines[0] else f"s3://kills/r{line.trials}"
            trial(config, out, work, rng, 8, seconds, line)
            compare(whole, out, line)
            print(f"{line.fault}: {line.kills} kills in {line.trials} runs", file=sys.stderr, flush=True)
    print(f"{'fault':<22}{'runs':>6}{'times':>7}{'rows lost':>11}{'doubled':>9}{'units redone, at most':>23}")
    for line in lines:
        print(f"{line.fault:<22}{line.trials:>6}{line.kills:>7}{line.lost:>11}{line.doubled:>9}{line.redone:>23}")
    print(f"a window is {WINDOW} units, an open range {longest} at most; every folder verified whole")
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "kill_matrix.json").write_text(json.dumps([asdict(line) for line in lines], indent=1) + "\n")


if __name__ == "__main__":
    main()
