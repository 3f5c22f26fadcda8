"""Does the driver's memory grow with a run's length? A long run of low yield, and a pool filled by hand.

    python bench/memory.py [--units 1000000] [--step 50000]

A run of so many units in this process, on the scripted engine, with novelty and real shards on disk. Most units give
one instruction that a cheap rule refuses; one in a hundred gives one that the pool holds already; and in turns of
`step` units one in 20 or one in 1,000 gives a new one, with its two further requests and a row. So pool entries and
units do not grow together, and a fit by least squares can tell what each of them costs. Memory is the resident set of
the process with everything in it (index, open units, Arrow), read when a range has just been committed, after a
collection and after the allocators have given back what they can; what they cannot give back moves it by some MB.
Beside it are the live blocks of Python's own allocator, which do not depend on that. The open range itself shows in
the peak.

Then a process of its own fills a pool and its index with 200,000 and 400,000 instructions as long as the shipped
seeds, and the difference says what one of them costs where nothing else grows.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import gc
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.config import parse_config
from pipeline.driver import Driver, sums_close
from pipeline.gate import instruction_id
from pipeline.pool import Pool
from pipeline.records import Completion, Request, Stage
from pipeline.runs import open_run
from pipeline.scoring import InProcess
from pipeline.seeds import parse_seeds, read_seed_text
from pipeline.testing import ScriptedEngine

RESULTS = Path(__file__).parent / "results"
CAPACITY = 64
MANY, FEW = 20, 1000  # one unit in so many gives a new instruction, in turns
COPIES = 100  # one in so many gives one that is held already
SETTLED = 3  # readings: what is loaded with the first commits and questions is not growth
FILLED = (200_000, 400_000)
SYLLABLES = [consonant + vowel for consonant in "bdfgklmnprstvz" for vowel in "aeiou"]
Reading = dict[str, float]


def lengths() -> list[int]:
    """Words of each shipped seed's instruction; those of fewer than eight count as eight, so that texts are novel."""
    source = "shipped:seeds.jsonl"
    return [max(8, len(seed.instruction.split())) for seed in parse_seeds(read_seed_text(source), source)]


class Texts:
    """Instruction `n`, novel by construction: words drawn from 4,900 made-up ones, all known after a few hundred."""

    def __init__(self) -> None:
        self._lengths = lengths()

    def __call__(self, number: int) -> str:
        rng = random.Random(number)
        count = rng.choice(self._lengths)
        return " ".join("".join(rng.choices(SYLLABLES, k=2)) for _ in range(count)).capitalize() + "."


def resident() -> float:
    """Bytes that this process holds, when all that can be given back has been."""
    gc.collect()
    pa.default_memory_pool().release_unused()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    return float(int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize())


def peak() -> float:
    """Bytes that this process held at most."""
    status = Path("/proc/self/status").read_text()  # getrusage's would be that of the process before exec
    return 1024.0 * int(status.split("VmHWM:")[1].split()[0])


# A long run


class LongRun:
    """The run, its scripted answers, and the readings taken from inside it."""

    def __init__(self, units: int, step: int, folder: Path) -> None:
        self._step = step
        self._texts = Texts()
        self._asked = self._waits_for = -1  # the last unit that asked; the one that a reading waits for
        self._next = 0
        self.readings: list[Reading] = []
        values = {
            "name": "memory",
            "target": units,
            "budget": {"units": units},
            "exhaustion": {"share": 0.0},
            "engine": {"kind": "scripted", "scripted": {"capacity": CAPACITY}},
        }
        self._config = parse_config(values, "bench")
        self._run = open_run(self._config, folder)
        self.window = self._run.plan.window

    async def run(self) -> None:
        """From the first unit to the last."""
        engine = ScriptedEngine(self._answer, capacity=CAPACITY)
        engine.calls = deque(maxlen=0)  # what the fake remembers for tests grows with a run
        state = self._run.state
        try:
            await Driver(self._config, state, self._run.plan.recipe, engine, self._commit).run()
        finally:
            self._run.close()
        sums_close(state.counters)
        self._read(state.counters.units)

    def _commit(self, *values: Any) -> None:
        self._run.commit(*values)
        if self._run.commits[-1].end >= self._next:
            self._waits_for = self._asked + 1  # no unit starts before this commit is done and its rows are let go

    def _answer(self, request: Request) -> Completion:
        if request.key.stage is Stage.CLASSIFICATION:
            return Completion(" No", "stop", 1, 1)
        if request.key.stage is Stage.INSTANCES:
            return Completion(f"\nInput: {request.key.unit}\nOutput: It is done.\n", "stop", 1, 1)
        unit = self._asked = request.key.unit
        if unit == 0 or unit == self._waits_for:
            self._read(self._run.commits[-1].end)
        every = FEW if (unit // self._step) % 2 else MANY
        text = "Do it."
        if unit % every == 0:
            text = self._texts(unit)
        elif unit % COPIES == 1:
            text = self._texts(0)
        return Completion(f" {text}", "stop", 1, 1)

    def _read(self, units: int) -> None:
        began = time.perf_counter()
        self.readings.append(
            {
                "units": units,
                "entries": self._run.state.pool.admitted,
                "bytes": resident(),
                "blocks": sys.getallocatedblocks(),
                "at": began,
            }
        )
        self._next += self._step
        print(self.readings[-1], file=sys.stderr, flush=True)


def fit(readings: list[Reading], what: str) -> tuple[float, float, float]:
    """How much of `what` for each unit and for each pool entry, and the largest distance from that."""
    columns = [[1.0, reading["units"], reading["entries"]] for reading in readings]
    held = np.array([reading[what] for reading in readings])
    found, *_ = np.linalg.lstsq(np.array(columns), held, rcond=None)
    return float(found[1]), float(found[2]), float(np.abs(np.array(columns) @ found - held).max())


def report(long: LongRun) -> dict[str, Any]:
    """Print the table of a long run and what the fit says."""
    print(f"**the run, window {long.window}, {CAPACITY} requests at once**\n")
    print(f"| units | pool entries | resident MB | bytes per entry since reading {SETTLED} | live blocks | units/s |")
    print("|---|---|---|---|---|---|")
    base, before = long.readings[min(SETTLED, len(long.readings)) - 1], long.readings[0]
    for reading in long.readings:
        each = rate = "-"
        if reading is not before:
            rate = f"{(reading['units'] - before['units']) / (reading['at'] - before['at']):,.0f}"
        if reading["entries"] > base["entries"]:
            each = f"{(reading['bytes'] - base['bytes']) / (reading['entries'] - base['entries']):,.0f}"
        units, entries, held, blocks = (reading[key] for key in ("units", "entries", "bytes", "blocks"))
        print(f"| {units:,.0f} | {entries:,.0f} | {held / 1e6:.1f} | {each} | {blocks:,.0f} | {rate} |")
        before = reading
    settled = long.readings[SETTLED - 1 : -1]  # at the end no unit is open any more
    result: dict[str, Any] = {"readings": long.readings, "peak_bytes": peak()}
    if len(settled) > 3:
        print(f"\nby least squares from {settled[0]['units']:,.0f} units on:\n")
        print("| | for each unit | for each pool entry | largest distance of a reading |")
        print("|---|---|---|---|")
        for name, what in (("resident bytes", "bytes"), ("live blocks", "blocks")):
            unit, entry, residue = fit(settled, what)
            result[what] = {"per_unit": unit, "per_entry": entry, "largest_distance": residue}
            print(f"| {name} | {unit:.3f} | {entry:,.1f} | {residue:,.0f} |")
    print(f"\npeak {peak() / 1e6:.0f} MB")
    return result


# A pool filled by hand


def made(first: int, last: int) -> Iterator[tuple[str, str]]:
    """Ids and texts as the gate would admit them."""
    texts = Texts()
    for number in range(first, last):
        yield instruction_id("memory", number, 0), texts(number)


def fill(with_index: bool) -> dict[str, Any]:
    """What a pool holds at each of FILLED, with the index of novelty.workers = 0 or without one."""
    pool, found = Pool([], window=256), list[float]()
    if with_index:
        pool.score_with(InProcess("rouge", 0.65))
    held, characters = 0, 0
    for size in FILLED:
        for id, text in made(held, size):
            pool.admit(id, text)
            pool.close_unit()
            characters += len(text)
        held = size
        if with_index:
            asyncio.run(pool.nearest(["what is near to this"]))  # prepares its lists
        found.append(resident())
    return {"bytes": found, "characters": characters / held, "peak": peak()}


def fill_in_process(with_index: bool) -> dict[str, Any]:
    """`fill` in a process of its own."""
    command = [sys.executable, __file__, "--fill", "index" if with_index else "pool"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def report_filled() -> dict[str, Any]:
    """Print what a pool entry costs, measured by itself."""
    result = {}
    print(f"\n**a pool filled by hand: from {FILLED[0]:,} to {FILLED[1]:,} entries**\n")
    print("| held in the driver | MB before | MB after | bytes per entry | characters of one | peak MB |")
    print("|---|---|---|---|---|---|")
    for name, with_index in (("pool (novelty workers elsewhere)", False), ("pool and index (workers = 0)", True)):
        found = fill_in_process(with_index)
        before, after = found["bytes"]
        found["bytes_per_entry"] = (after - before) / (FILLED[1] - FILLED[0])
        print(
            f"| {name} | {before / 1e6:.0f} | {after / 1e6:.0f} | {found['bytes_per_entry']:.0f} | "
            f"{found['characters']:.0f} | {found['peak'] / 1e6:.0f} |"
        )
        result[name] = found
    return result


def main() -> None:
    """Run, print, and write it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--units", type=int, default=1_000_000)
    parser.add_argument("--step", type=int, default=50_000, help="units between two readings")
    parser.add_argument("--fill", choices=("pool", "index"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.fill:
        print(json.dumps(fill(options.fill == "index")))
        return
    with tempfile.TemporaryDirectory() as folder:
        long = LongRun(options.units, options.step, Path(folder) / "r")
        asyncio.run(long.run())
        result: dict[str, Any] = {"run": report(long)}
    result["filled"] = report_filled()
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "memory.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
