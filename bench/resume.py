"""What does a restart cost? Seconds from the command to the first new unit of a run with a large pool, by step.

    python bench/resume.py [--entries 200000] [--commits 200 2000] [--away-ms 20]

The run folder is made through the real writer: `Run.commit` is given units as the recipe would leave them (four
admitted instructions with a row each, and one candidate refused), whose texts are words drawn at random and so novel,
and no engine is asked. Two folders hold the same rows, in few large commits and in many small ones, on the local disk
and in an S3 server that this script starts on 127.0.0.1. Then `launch` itself, in a fresh process each time, goes on
with the run, as the command does, until the recipe is given the first new unit; there it is stopped. Engines are
scripted: in process where there are no novelty workers, else actors on a Ray cluster that `launch` starts on this
machine.

The S3 server answers within a few milliseconds and does one thing at a time. `--away-ms` adds so many milliseconds to
each file that is read, as in a store that is some way off.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from memory import Texts

from pipeline import driver, launch, runs, storage
from pipeline.config import Config, parse_config
from pipeline.errors import RunStopped
from pipeline.gate import instruction_id
from pipeline.recipes.self_instruct import SelfInstruct
from pipeline.records import Admitted, Example, Reason, Reject, Stage, UnitResult

RESULTS = Path(__file__).parent / "results"
ADMITTED = 4  # in each unit
STEPS = (
    "Python and imports",
    "plan, manifest",
    "commits",
    "Ray",
    "lock, listing",
    "pool/ read",
    "pool made",
    "engine",
    "novelty",
    "first unit",
)


def configuration(out: str, workers: int) -> Config:
    """The run, which has no end of its own."""
    values = {
        "name": "resume",
        "out": out,
        "target": 10**9,
        "window": 256,
        "exhaustion": {"share": 0.0},
        "novelty": {"workers": workers},
        "engine": {"kind": "scripted", "num_gpus": 0, "scripted": {"capacity": 64, "on_ray": workers > 0}},
    }
    return parse_config(values, "bench")


# The folder


def unit_result(unit: int, texts: Texts) -> UnitResult:
    """A unit as the recipe leaves it."""
    parents = tuple(f"seed_task_{(unit + place) % 175}" for place in range(8))
    admitted, examples = [], []
    for index in range(ADMITTED):
        id, text = instruction_id("resume", unit, index), texts(unit * ADMITTED + index)
        admitted.append(Admitted(id, text, unit, parents, False, None, None))
        examples.append(
            Example(
                id=f"{id}/0",
                instruction_id=id,
                instruction=text,
                input="",
                output=text,
                unit=unit,
                is_classification=False,
                parents=parents,
                nearest_id=None,
                nearest_score=None,
                prompt_hashes=("bootstrap:0", "classification:0", "instance_input_first:0"),
                finish_reason="stop",
                prompt_tokens=1,
                completion_tokens=1,
            )
        )
    refused = instruction_id("resume", unit, ADMITTED)
    reject = Reject(unit, Stage.FILTER, Reason.TOO_SHORT, text="Do it.", instruction_id=refused, parents=parents)
    return UnitResult(
        unit,
        candidates=ADMITTED + 1,
        instances=ADMITTED,
        demonstrations=8,
        admitted=tuple(admitted),
        examples=tuple(examples),
        rejects=(reject,),
    )


def make_folder(place: str, entries: int, commits: int) -> None:
    """A run of so many admitted instructions in so many commits."""
    texts, units = Texts(), entries // ADMITTED
    run = runs.open_run(configuration(place, 0), place)
    counters = run.state.counters
    bounds = [units * number // commits for number in range(commits + 1)]
    for first, end in itertools.pairwise(bounds):
        results = [unit_result(unit, texts) for unit in range(first, end)]
        for result in results:
            counters.add(result)
        run.commit(results, counters, [(ADMITTED + 1, ADMITTED)] * len(results), None, 0)
    run.close()


# One start


class Clock:
    """Seconds by step; what a step's own steps take is not its own."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = defaultdict(float)
        self._open: list[str] = ["first unit"]
        self._since = time.perf_counter()

    def _turn(self) -> None:
        now = time.perf_counter()
        self.spent[self._open[-1]] += now - self._since
        self._since = now

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """What is done meanwhile belongs to this step."""
        self._turn()
        self._open.append(name)
        try:
            yield
        finally:
            self._turn()
            self._open.pop()

    def over(self, owner: Any, name: str, step: str) -> None:
        """Have a function of `owner` count as a step."""
        act = getattr(owner, name)

        @functools.wraps(act)
        def timed(*values: Any, **options: Any) -> Any:
            with self.step(step):
                return act(*values, **options)

        @functools.wraps(act)
        async def awaited(*values: Any, **options: Any) -> Any:
            with self.step(step):
                return await act(*values, **options)

        setattr(owner, name, awaited if name in ("start_engine", "_start_workers") else timed)

    def over_each(self, owner: Any, name: str, step: str) -> None:
        """Have each turn of a generator count as a step."""
        act = getattr(owner, name)

        def timed(*values: Any, **options: Any) -> Iterator[Any]:
            each = act(*values, **options)
            while True:
                with self.step(step):
                    try:
                        found = next(each)
                    except StopIteration:
                        return
                yield found

        setattr(owner, name, timed)


def start_again(place: str, workers: int, began: float, away_s: float) -> dict[str, Any]:
    """Go on with the run until its first new unit; seconds by step."""
    clock = Clock()
    clock.spent["Python and imports"] = time.time() - began
    if away_s:
        client, get = storage._client(), storage._client().get_object
        client.get_object = lambda **which: (time.sleep(away_s), get(**which))[1]
    for owner, name, step in (
        (launch, "plan_for", "plan, manifest"),
        (launch, "open_planned", "lock, listing"),
        (runs, "_begun", "commits"),
        (runs, "read_commits", "commits"),
        (runs, "resume_state", "pool made"),
        (launch, "_join_cluster", "Ray"),
        (launch, "start_engine", "engine"),
        (launch, "_start_workers", "novelty"),
        (driver.Pool, "score_with", "novelty"),
    ):
        clock.over(owner, name, step)
    clock.over_each(runs, "read_tables", "pool/ read")
    found: dict[str, Any] = {}

    async def first_unit(recipe: SelfInstruct, unit: Any, *_: Any) -> UnitResult:
        if not found:
            with clock.step("first unit"):
                found.update(unit=unit.number, steps=dict(clock.spent), total=time.time() - began)
            status = Path("/proc/self/status").read_text()
            found["peak_mb"] = int(status.split("VmHWM:")[1].split()[0]) / 1000
        raise RunStopped("the first new unit has begun")

    SelfInstruct.run_unit = first_unit  # type: ignore[method-assign]
    with suppress(RunStopped):
        launch.launch(configuration(place, workers))
    return found


def measure(place: str, workers: int, away_s: float, rounds: int) -> dict[str, Any]:
    """The median of some starts, each in a process of its own."""
    results = []
    for _ in range(rounds):
        command = [sys.executable, __file__, "--one", place, str(workers), str(time.time()), str(away_s)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
        if not lines:
            sys.exit(f"a start failed:\n{done.stderr[-4000:]}")
        results.append(json.loads(lines[0].removeprefix("RESULT ")))
    middle: Callable[[Sequence[float]], float] = statistics.median
    return {
        "unit": results[0]["unit"],
        "steps": {step: middle([each["steps"].get(step, 0.0) for each in results]) for step in STEPS},
        "total": middle([each["total"] for each in results]),
        "peak_mb": middle([each["peak_mb"] for each in results]),
    }


# All of it


@contextmanager
def s3_server() -> Iterator[str]:
    """The URL of an empty bucket in a server of our own; this process and its children have the credentials."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            del os.environ[name]
        os.environ |= {
            "AWS_ACCESS_KEY_ID": "bench",
            "AWS_SECRET_ACCESS_KEY": "bench",
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        until = time.monotonic() + 60
        while socket.socket().connect_ex(("127.0.0.1", port)):
            if time.monotonic() > until or server.poll() is not None:
                sys.exit("the S3 server did not start")
            time.sleep(0.1)
        storage._client().create_bucket(Bucket="resume")
        yield "s3://resume"
    finally:
        server.kill()
        server.wait()


def main() -> None:
    """Make the folders, start each again, print and write it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entries", type=int, default=200_000)
    parser.add_argument("--commits", type=int, nargs="+", default=[200, 2000])
    parser.add_argument("--away-ms", type=float, default=20.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one", nargs=4, metavar=("PLACE", "WORKERS", "BEGAN", "AWAY"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        place, workers, began, away = options.one
        print("RESULT " + json.dumps(start_again(place, int(workers), float(began), float(away))))
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))  # what is started here ends too
    result = []
    print(f"**{options.entries:,} pool entries, seconds to the first new unit, median of {options.rounds}**\n")
    print(f"| where | commits | workers | {' | '.join(STEPS)} | total | peak MB |")
    print("|---|---|---|" + "---|" * (len(STEPS) + 2), flush=True)
    with tempfile.TemporaryDirectory() as disk, s3_server() as bucket:
        for name, root, away_ms in (
            ("disk", disk, 0.0),
            ("S3", bucket, 0.0),
            (f"S3, {options.away_ms:g} ms away", bucket, options.away_ms),
        ):
            for commits in options.commits:
                place = f"{root}/of-{commits}"
                if not away_ms:
                    make_folder(place, options.entries, commits)
                for workers in (0,) if away_ms else (0, 1):
                    found = measure(place, workers, away_ms / 1000, options.rounds)
                    spent = " | ".join(f"{found['steps'][step]:.2f}" for step in STEPS)
                    spent += f" | {found['total']:.1f} | {found['peak_mb']:.0f}"
                    print(f"| {name} | {commits:,} | {workers} | {spent} |", flush=True)
                    result.append({"where": name, "commits": commits, "workers": workers, **found})
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "resume.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
