"""SIGKILL of the driver: at random moments and at chosen acts of writing, on the local disk and in S3."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from kill_matrix_trial import Line, Subject

from pipeline.errors import MillError
from pipeline.shards import read_commits

ROOT = Path(__file__).resolve().parents[1]
BUCKET = "kills"
KILLS = 6  # of one run, at most
LATEST = 0.7  # of the time an undisturbed run takes, from the start of a process: its kill comes no later
FIRST_ACTS = 6  # of a try, before its first commit
LEASE_OVER_S = 2.0  # from the last renewal by a holder that was killed, in RUN
PATIENCE_S = 300.0  # one try of one run; one that takes longer hangs
LEASE = (1.5, 0.4, 0.5)  # LEASE_S, RENEW_S and SKEW_S of pipeline.lock, in place of 60, 15 and 5
RUN = f"""
import sys
from pipeline import lock
from pipeline.cli import main
lock.LEASE_S, lock.RENEW_S, lock.SKEW_S = {LEASE}
sys.exit(main(sys.argv[1:]))
"""
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["kill_matrix_warm"])  # so that a process begins with everything imported
AT_RANDOM, IN_AN_ACT = "SIGKILL of the driver at a random moment", "SIGKILL of the driver in an act of writing"


@contextmanager
def s3_server(work: Path) -> Iterator[None]:
    """An S3 server, a process of its own on this machine, with a bucket. The environment names it while it lasts."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        del os.environ[name]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    os.environ |= {
        "AWS_ACCESS_KEY_ID": "bench",
        "AWS_SECRET_ACCESS_KEY": "bench",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    }

    def end_with_us() -> None:  # a bench that is killed runs no clean-up; Linux alone knows this
        with suppress(AttributeError):
            ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG

    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with (work / "s3.log").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, preexec_fn=end_with_us)
        try:
            until = time.monotonic() + 60
            while not _answers(port):
                if server.poll() is not None or time.monotonic() > until:
                    raise SystemExit(f"the S3 server does not answer; is moto[server] installed?\n{log.name}")
                time.sleep(0.05)
            _s3().create_bucket(Bucket=BUCKET)
            yield
        finally:
            server.kill()
            server.wait()


def _answers(port: int) -> bool:
    with socket.socket() as door:
        return door.connect_ex(("127.0.0.1", port)) == 0


def _s3() -> Any:
    from botocore.session import get_session

    return get_session().create_client("s3")


def kill_drivers(line: Line, subjects: list[Subject], work: Path, seed: int, until: float) -> None:
    """Trials of one line of the table until there were as many kills as are wanted, or the time is up."""
    folder = work / f"{'act' if line.fault == IN_AN_ACT else 'moment'}-{line.where}"
    seconds: list[float] = []
    while line.runs < len(subjects) or (line.times < line.wanted and time.monotonic() < until):
        number, subject = line.runs, subjects[line.runs % len(subjects)]
        here = folder / str(number)
        here.mkdir(parents=True)
        place = str(here / "run") if line.where == "disk" else f"s3://{BUCKET}/{folder.name}/{number}"
        if number < len(subjects):  # left alone, to know how long that takes
            began = time.monotonic()
            trial = _Trial(line, subject, place, here, 0.0, line.stream(seed))
            faults = trial.run(0)
            seconds.append(time.monotonic() - began)
        else:
            most = min(KILLS, line.wanted - line.times)
            trial = _Trial(line, subject, place, here, seconds[number % len(subjects)], line.stream(seed))
            faults = trial.run(most)
        if line.ended(subject, place, faults, trial.redone):
            shutil.rmtree(here)
        elif line.where == "S3":
            _keep(place, here)
        print(f"{line.fault}, {line.where}: {line.times} kills in {line.runs} runs", file=sys.stderr, flush=True)


def _keep(place: str, here: Path) -> None:
    """Copy a run folder out of the S3 server, which is gone with this process."""
    prefix = place.removeprefix(f"s3://{BUCKET}/") + "/"
    for page in _s3().get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix):
        for entry in page.get("Contents", ()):
            file = here / "run" / entry["Key"].removeprefix(prefix)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(_s3().get_object(Bucket=BUCKET, Key=entry["Key"])["Body"].read())


def _command(arguments: list[str], place: str, said: Path, act: int, when: str) -> None:
    """The command in a process of its own that was forked, killed in one of its acts of writing where one is named."""
    from pipeline import launch, lock
    from pipeline.cli import main
    from pipeline.testing_faults import FaultyFolder, kill_at

    with said.open("wb") as words:
        os.dup2(words.fileno(), 1)
        os.dup2(words.fileno(), 2)
    lock.LEASE_S, lock.RENEW_S, lock.SKEW_S = LEASE
    if act:
        fault = kill_at(act, after=when == "after", torn=Path(place) if when == "torn" else None)
        launch.run_folder = lambda _: FaultyFolder(place, fault)
    sys.exit(main(arguments))


class _Trial:
    """One run folder: killed so many times, then left to finish."""

    def __init__(
        self, line: Line, subject: Subject, place: str, here: Path, seconds: float, rng: random.Random
    ) -> None:
        self._line = line
        self._subject = subject
        self._place = place
        self._here = here
        self._seconds = seconds
        self._rng = rng
        self.redone: list[int] = []  # units that were asked again, after each kill
        self._asked: list[set[int]] = []  # units, by try
        self._kills: list[tuple[int, int]] = []  # the try that was killed, and the first unit not committed then

    def run(self, most: int) -> list[str]:
        """What went wrong on the way; nothing, as it should be."""
        try:
            return self._run(most)
        except (MillError, OSError) as error:  # the folder cannot be read between two tries
            return [str(error)]

    def _run(self, most: int) -> list[str]:
        until = time.monotonic() + PATIENCE_S
        while time.monotonic() < until:
            code, words = self._try(kill=len(self._kills) < most)
            if code == 0:
                return self._redone()
            if code == -signal.SIGKILL:
                commits = read_commits(self._place)
                self._kills.append((len(self._asked) - 1, commits[-1].end if commits else 0))
                self._line.early += not self._asked[-1]
                self._line.times += 1
                if self._line.where == "S3":
                    time.sleep(LEASE_OVER_S)
            elif code == 75 and "another process is writing" in words:  # the lease of the one that was killed
                time.sleep(0.2)
            else:
                return [f"it ended with {code}: {words[-2000:]}"]
        return [f"it did not end within {PATIENCE_S:g} s"]

    def _try(self, *, kill: bool) -> tuple[int, str]:
        """Start the command, and maybe have it killed; its exit code and what it said."""
        log, said = self._here / f"{len(self._asked)}.log", self._here / "said"
        moment, arguments = PATIENCE_S, ["run", str(self._subject.config), "--out", self._place]
        arguments += ["--set", f"engine.scripted.call_log={log}"]
        if self._line.fault == IN_AN_ACT:
            left = self._subject.units - (self._kills[-1][1] if self._kills else 0)
            act = self._rng.randint(1, max(FIRST_ACTS, self._subject.acts * left // self._subject.units)) if kill else 0
            when = self._rng.choice(["before", "after", "torn"] if self._line.where == "disk" else ["before", "after"])
            process = FORKS.Process(target=_command, args=(arguments, self._place, said, act, when))
            process.start()
            process.join(PATIENCE_S)
            if process.is_alive():
                process.terminate()
                process.join()
            code = process.exitcode
        else:
            if kill:
                moment = self._rng.uniform(0, LATEST * self._seconds)
            command = [sys.executable, *(["-c", RUN] if self._line.where == "S3" else ["-m", "pipeline"]), *arguments]
            with said.open("wb") as words, subprocess.Popen(command, cwd=ROOT, stdout=words, stderr=words) as started:
                try:
                    code = started.wait(moment)
                except subprocess.TimeoutExpired:
                    started.kill()
                    code = started.wait()
        lines = log.read_text().splitlines() if log.exists() else []
        self._asked.append({int(line.split()[0]) for line in lines})
        return code, said.read_text() if said.exists() else ""

    def _redone(self) -> list[str]:
        """Count what was asked of the same units again, after each kill."""
        wrong = []
        for attempt, committed in self._kills:
            later = set().union(*self._asked[attempt + 1 :])
            self.redone.append(len(self._asked[attempt] & later))
            if again := sorted(unit for unit in later if unit < committed):
                wrong.append(f"units {again} were asked again, and were committed")
        return wrong
