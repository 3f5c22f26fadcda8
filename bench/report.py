"""What do `report` and `export` cost on a run of a million rows? Seconds and peak memory, each in a fresh process.

    python bench/report.py --cache DIR [--rows 1000000]

The run folder is made once, in DIR, through the real writer: `Run.commit` is given units as Self-Instruct leaves them
(four admitted instructions with a row each, of which every fourth has an input, and three candidates refused, for three
reasons), and no engine is asked. Instructions are some ten words behind a verb and a noun, outputs 20 to 100 words, of
a fixed stream of English-like words. Parents are six seeds and two instructions of earlier units, as a run draws them.

Each command then runs in a process of its own, which says at its end how much memory it held at most (VmHWM). What is
read comes from a warm page cache. Exports are removed when they are measured.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from memory import SYLLABLES, peak

from pipeline import runs
from pipeline.cli import main as command
from pipeline.config import Config, parse_config
from pipeline.gate import instruction_id
from pipeline.records import Admitted, Example, Reason, Reject, Stage, UnitResult
from pipeline.survey import survey

RESULTS = Path(__file__).parent / "results"
ADMITTED = 4  # in each unit, with a row each
REFUSED = ((Stage.FILTER, Reason.TOO_SHORT), (Stage.FILTER, Reason.BLACKLISTED_WORD), (Stage.NOVELTY, Reason.NOT_NOVEL))
COMMIT_UNITS = 2_500
BOUND = 2 * 2**30  # bytes
VERBS = "Write Write Write Create List Describe Explain Find Classify Suggest Translate Summarize".split()
NOUNS = "story list sentence function recipe poem letter table plan question".split()
HASHES = ("bootstrap:0", "classification:0", "instance_input_first:0")


def configuration(out: str) -> Config:
    """The run, which ends where it is left."""
    values = {
        "name": "million",
        "out": out,
        "target": 10**9,
        "exhaustion": {"share": 0.0},
        "engine": {"kind": "scripted"},
    }
    return parse_config(values, "bench")


class Writer:
    """Units as Self-Instruct leaves them, each a function of its number."""

    def __init__(self) -> None:
        rng = random.Random(0)
        known = ["".join(rng.choices(SYLLABLES, k=rng.choice((1, 2, 2, 3)))) for _ in range(5_000)]
        self._stream = rng.choices(known, k=500_000)

    def _text(self, rng: random.Random, least: int, most: int) -> str:
        start = rng.randrange(len(self._stream) - most)
        return " ".join(self._stream[start : start + rng.randint(least, most)])

    def unit(self, number: int) -> UnitResult:
        """One of them."""
        rng = random.Random(number)
        seeds = tuple(f"seed_task_{rng.randrange(175)}" for _ in range(6))
        earlier = (rng.randrange(number) for _ in range(2 if number else 0))
        parents = (*seeds, *(instruction_id("million", unit, rng.randrange(ADMITTED)) for unit in earlier))
        admitted, examples = [], []
        for index in range(ADMITTED):
            id = instruction_id("million", number, index)
            text = f"{rng.choice(VERBS)} a {rng.choice(NOUNS)} about {self._text(rng, 4, 14)}."
            near = (f"seed_task_{rng.randrange(175)}", rng.uniform(0.65, 0.7)) if rng.random() < 0.3 else (None, None)
            admitted.append(Admitted(id, text, number, parents, False, *near))
            examples.append(
                Example(
                    id=f"{id}/0",
                    instruction_id=id,
                    instruction=text,
                    input=self._text(rng, 5, 40) if index == 0 else "",
                    output=self._text(rng, 20, 100),
                    unit=number,
                    is_classification=False,
                    parents=parents,
                    nearest_id=near[0],
                    nearest_score=near[1],
                    prompt_hashes=HASHES,
                    finish_reason="stop",
                    prompt_tokens=900,
                    completion_tokens=90,
                )
            )
        rejects = []
        for index, (stage, reason) in enumerate(REFUSED, start=ADMITTED):
            id, text = instruction_id("million", number, index), self._text(rng, 2, 14)
            near = ("seed_task_1", rng.uniform(0.7001, 1)) if reason is Reason.NOT_NOVEL else (None, None)
            rejects.append(
                Reject(
                    number, stage, reason, text=text, instruction_id=id, instruction=text, parents=parents,
                    nearest_id=near[0], nearest_score=near[1], prompt_hashes=HASHES[:1],
                )
            )  # fmt: skip
        return UnitResult(
            number,
            candidates=ADMITTED + len(REFUSED),
            instances=ADMITTED,
            demonstrations=len(parents),
            machine_made=len(parents) - 6,
            admitted=tuple(admitted),
            examples=tuple(examples),
            rejects=tuple(rejects),
        )


def make_run(place: Path, rows: int) -> None:
    """A run folder of so many rows."""
    writer, began = Writer(), time.perf_counter()
    run = runs.open_run(configuration(str(place)), place)
    counters = run.state.counters
    bounds = [*range(0, rows // ADMITTED, COMMIT_UNITS), rows // ADMITTED]
    for first, end in itertools.pairwise(bounds):
        results = [writer.unit(number) for number in range(first, end)]
        for result in results:
            counters.add(result)
        counters.seconds += 60.0
        counters.engine_time = {"full": counters.seconds * 0.9, "loading": 300.0, "tail": counters.seconds * 0.02}
        run.commit(results, counters, [(ADMITTED + len(REFUSED), ADMITTED)] * len(results), None, 0)
        print(f"{end * ADMITTED:,} rows, {time.perf_counter() - began:,.0f} s", file=sys.stderr)
    run.close()


def measured(run: str, out: str) -> dict[str, list[str] | None]:
    """What is measured: the arguments of `instructmill` by name; None is the survey alone."""
    commands: dict[str, list[str] | None] = {
        "survey (in Python)": None,
        "report": ["report", run],
        "report --html": ["report", run, "--html", f"{out}/report.html"],
    }
    for form in ("messages", "alpaca"):
        for what, name in (("Parquet folder", form), ("one JSONL", f"{form}.jsonl")):
            commands[f"export {form}, {what}"] = ["export", run, f"{out}/{name}", "--format", form]
    return commands


def measure_here(name: str, run: str, out: str) -> dict[str, Any]:
    """Run one of them in this process."""
    began = time.perf_counter()
    arguments = measured(run, out)[name]
    code = 0
    if arguments is None:
        survey(runs.read(run))
    else:
        code = command(arguments)
    return {"seconds": time.perf_counter() - began, "peak": peak(), "code": code}


def measure(name: str, run: str) -> dict[str, Any]:
    """One of them in a process of its own, and how large is what it wrote."""
    with tempfile.TemporaryDirectory(dir=Path(run).parent) as out:
        result = Path(out) / "result.json"
        options = ["--measure", name, "--run", run, "--out", out, "--result", str(result)]
        done = subprocess.run([sys.executable, __file__, *options], capture_output=True, text=True)
        if not result.exists():
            raise SystemExit(f"{name}: {done.stderr[-2000:]}")
        found: dict[str, Any] = json.loads(result.read_text())
        if found["code"]:
            raise SystemExit(f"{name}: ended with {found['code']}: {done.stderr[-2000:]}")
        written = [file for file in Path(out).rglob("*") if file.is_file() and file != result]
        found |= {"files": len(written), "bytes": sum(file.stat().st_size for file in written)}
    return found


def folder_for(cache: Path, rows: int) -> Path:
    """The run folder of so many rows in the cache, made where it is not there yet."""
    folder = cache / f"run-{rows}"
    if not folder.exists():
        making = cache / f"making-{rows}"
        shutil.rmtree(making, ignore_errors=True)  # of a bench that was interrupted
        making.parent.mkdir(parents=True, exist_ok=True)
        make_run(making, rows)
        making.rename(folder)
    return folder


def main() -> None:
    """Run, print, and write it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, metavar="DIR", help="where the run folder is made, and found again")
    parser.add_argument("--rows", type=int, default=1_000_000)
    for hidden in ("--measure", "--run", "--out", "--result"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        Path(options.result).write_text(json.dumps(measure_here(options.measure, options.run, options.out)))
        return
    if options.cache is None:
        parser.error("--cache DIR is needed: the run folder takes about 1 GB for each million rows")
    folder = folder_for(options.cache, options.rows)
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    run = runs.read(folder)
    counts = {"rows": run.examples.count, "pool": run.pool.count, "rejects": run.rejects.count, "bytes": size}
    print(
        f"{counts['rows']:,} rows, {counts['pool']:,} admitted, {counts['rejects']:,} rejects, {size / 1e6:,.0f} MB\n"
    )
    print("| | seconds | peak MiB | wrote MB | files |")
    print("|---|---|---|---|---|")
    results: dict[str, Any] = {}
    for name in measured(str(folder), ""):
        found = results[name] = measure(name, str(folder))
        over = "" if found["peak"] < BOUND else " (over 2 GiB)"
        print(
            f"| {name} | {found['seconds']:.1f} | {found['peak'] / 2**20:,.0f}{over} | {found['bytes'] / 1e6:,.1f} "
            f"| {found['files']} |",
            flush=True,
        )
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "report.json").write_text(json.dumps({"run": counts, "measured": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
