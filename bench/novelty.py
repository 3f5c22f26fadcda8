"""What does exact novelty cost? The index beside brute force and beside `rouge_score`, on one core, in one run.

    python bench/novelty.py [--quick] [--sizes 1000 52000 ...]

Texts are made by a seeded word-level model of the instructions in ../shared/data and prompts/seeds.jsonl: as many words
as one of them has, each a word that follows the last word there (19 times in 20) or any of theirs. Their vocabulary is
closed (2,414 tokens), which is harder than real text: rare words make lists short. Candidates come from the same model
with another seed and are asked one at a time, tokenising included. Every measurement has a fresh process, so memory is
the growth of its resident set while it holds the pool; its texts are read from a file and not kept.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from rapidfuzz import process
from rapidfuzz.distance import LCSseq
from rouge_score.rouge_scorer import RougeScorer

from pipeline import novelty
from pipeline.novelty import NoveltyIndex, rouge_tokens

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).parent / "results"
DATA = ROOT.parent / "shared" / "data"
SIZES, QUICK = (1_000, 10_000, 52_000, 200_000, 1_000_000), (1_000, 10_000)
FLOORS = (0.7, 0.65, 0.6, 0.5, 0.4, 0.3)
THRESHOLD = 0.7
ROUNDS = 5
ASKED = 1000
BATCH, WORKERS = 256, (1, 2)
ABLATIONS = ("nothing", "bitmap", "places", "lists", "lists and bitmap")
Result = dict[str, Any]


# Texts


def instructions() -> list[str]:
    """The real instructions that the model is made of."""
    shared = ("run_306", "seed_tasks", "user_oriented", "chain_101/machine_generated_instructions")
    files = [*(DATA / f"self_instruct_{name}.jsonl" for name in shared), ROOT / "prompts" / "seeds.jsonl"]
    lines = [line for file in files for line in file.open(encoding="utf-8") if line.strip()]
    return [json.loads(line)["instruction"] for line in lines]


def made_texts(seed: int) -> Iterator[str]:
    """Instruction-like texts without end, the same for the same seed."""
    rng, real = random.Random(seed), [text.split() for text in instructions()]
    lengths, words = [len(text) for text in real], [word for text in real for word in text]
    after = defaultdict(list)
    for text in real:
        for word, follower in zip(["", *text], text, strict=False):
            after[word].append(follower)
    while True:
        text = [rng.choice(after[""])]
        for _ in range(rng.choice(lengths) - 1):
            follows = text[-1] in after and rng.random() < 0.95
            text.append(rng.choice(after[text[-1]] if follows else words))
        yield " ".join(text)


def made_with_copies(seed: int, count: int) -> list[str]:
    """So many texts of which every third is an earlier one with about a fifth of its words exchanged."""
    rng, texts, made = random.Random(seed), made_texts(seed), list[str]()
    for number in range(count):
        text = next(texts)
        if number % 3 == 2:
            words = text.split()
            text = " ".join(rng.choice(words) if rng.random() < 0.2 else word for word in rng.choice(made).split())
        made.append(text)
    return made


def first_of(texts: Iterator[str], count: int) -> list[str]:
    """The first so many texts."""
    return [next(texts) for _ in range(count)]


def pool(path: str, size: int) -> Iterator[str]:
    """The first `size` texts of the pool's file."""
    with open(path, encoding="utf-8") as lines:
        for _ in range(size):
            yield next(lines).rstrip("\n")


# Measurements, each in a process of its own


def resident() -> int:
    """Bytes of memory this process has now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def seconds(act: Callable[[], object]) -> float:
    """How long `act` takes."""
    began = time.perf_counter()
    act()
    return time.perf_counter() - began


def microseconds(ask: Callable[[Any], object], texts: list[Any], rounds: int = ROUNDS) -> float:
    """CPU time per text or list of texts: the median of so many rounds over all. Others may use the machine too."""
    spent = []
    for _ in range(rounds):
        began = time.process_time()
        for text in texts:
            ask(text)
        spent.append(time.process_time() - began)
    return statistics.median(spent) / len(texts) * 1e6


def warm(floor: float) -> None:
    """Have the code compiled and loaded before anything is measured."""
    index = NoveltyIndex(floor=floor)
    index.extend(first_of(made_texts(3), 2 * novelty.FEW if novelty.FEW < 10_000 else 1000))
    index.nearest("a b c d e " * 30)
    index.scores("a b c")


def measure_index(path: str, size: int, floor: float, without: str = "nothing") -> Result:
    """Build the index and ask it."""
    if "lists" in without:
        novelty.FEW = 10**9
    if "bitmap" in without:  # before anything is compiled, and with another cache: see `run`
        from numba import njit

        from pipeline import novelty_kernels

        novelty_kernels.unshared = njit(lambda all_bits, position, bits: 0)
    warm(floor)
    asked = first_of(made_texts(2), ASKED)
    index, before = NoveltyIndex(floor=floor), resident()
    adding = seconds(lambda: index.extend(pool(path, size)))
    preparing = seconds(lambda: index.nearest("what is"))
    if without == "places":  # of the held texts' places 0 is what is always near enough
        index._lists.postings[:] &= np.uint64(0xFFFF_0000_FFFF_FFFF)
    held, highest = resident(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    found = index.nearest_many(asked)
    return {
        "microseconds": microseconds(index.nearest, asked),
        "batched": microseconds(lambda texts: index.nearest_many(texts), [asked]) / len(asked),
        "build_s": adding + preparing,
        "lists_s": preparing,
        "bytes": (held - before) / size,
        "peak_bytes": (highest - before) / size,
        "found": sum(one is not None for one in found) / len(asked),
        "refused": sum(one is not None and one[1] > THRESHOLD for one in found) / len(asked),
    }


class BruteForce:
    """What novelty was before the index: one batch call of rapidfuzz over the whole pool.

    A token is a character here, and many candidates are asked at once: the quickest way found to call it.
    """

    def __init__(self) -> None:
        self.encoded: list[str] = []
        self.vocabulary: dict[str, str] = {}

    def encode(self, text: str) -> str:
        """A text with one character for each token."""
        return "".join(self.vocabulary.setdefault(one, chr(1 + len(self.vocabulary))) for one in rouge_tokens(text))

    def add(self, text: str) -> None:
        """Hold a text."""
        self.encoded.append(self.encode(text))

    def scores(self, texts: list[str]) -> np.ndarray:
        """F of each text against every text held: float64, shape (texts, held)."""
        asked = [self.encode(text) for text in texts]
        common = process.cdist(asked, self.encoded, scorer=LCSseq.similarity, dtype=np.int64)
        with np.errstate(invalid="ignore"):
            precision, recall = common / self.lengths, common / np.array([[len(one)] for one in asked])
            return np.nan_to_num(2 * precision * recall / (precision + recall))

    def ready(self) -> None:
        """After the last text."""
        self.lengths = np.array([len(one) for one in self.encoded])


def measure_others(path: str, size: int) -> Result:
    """Brute force over the pool, and `rouge_score` over it, or above 52,000 over that many and scaled."""
    brute, scorer = BruteForce(), RougeScorer(["rougeL"], use_stemmer=False)
    for text in pool(path, size):
        brute.add(text)
    brute.ready()
    count = max(20, min(200, 5_000_000 // size))
    asked = first_of(made_texts(2), count)
    held = list(pool(path, min(size, 52_000)))
    ways = {
        "brute force": microseconds(lambda texts: brute.scores(texts).argmax(axis=1), [asked]) / count,
        "rouge_score": microseconds(
            lambda text: max(scorer.score(text, one)["rougeL"].fmeasure for one in held), asked[:5], 1
        ),
    }
    ways["rouge_score"] *= size / len(held)
    return ways


def measure_workers(path: str, size: int, workers: int) -> Result:
    """Fill workers of a local Ray cluster and ask them in batches as the gate does: wall clock, since they are other
    processes. Microseconds per candidate are the median over the batches."""
    from actors import cluster

    async def measure() -> Result:
        scorer = cluster.novelty_pool("rouge", THRESHOLD, workers)
        scorer.extend(pool(path, size))
        candidates = first_of(made_texts(2), BATCH * (ROUNDS + 1))
        began = time.perf_counter()
        await scorer.nearest(candidates[:BATCH])
        filled = time.perf_counter() - began
        spent = []
        for start in range(BATCH, len(candidates), BATCH):
            began = time.perf_counter()
            await scorer.nearest(candidates[start : start + BATCH])
            spent.append(time.perf_counter() - began)
        await scorer.close()
        return {"microseconds": statistics.median(spent) / BATCH * 1e6, "fill_s": filled}

    cluster.connect(num_cpus=workers)
    try:
        return asyncio.run(measure())
    finally:
        cluster.disconnect()


def measure_start() -> Result:
    """The first question of a process."""
    index = NoveltyIndex()
    index.extend(first_of(made_texts(3), 2000))
    importing = seconds(lambda: __import__("pipeline.novelty_kernels"))
    return {"import numba": importing, "first question": seconds(lambda: index.nearest("a b c"))}


def measure_long() -> Result:
    """Seconds to ask for a text of a million characters where five like it are held."""
    rng, words = random.Random(1), [word for text in instructions() for word in text.split()]
    sources: dict[str, Callable[[], str]] = {
        "words of the instructions": lambda: " ".join(rng.choices(words, k=200_000))[:1_000_000],
        "single letters a to z": lambda: " ".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=500_000)),
    }
    warm(THRESHOLD)
    results = {}
    for name, make in sources.items():
        for floor in (THRESHOLD, 0.3):
            index = NoveltyIndex(floor=floor)
            index.extend(make() for _ in range(5))
            text = make()
            results[f"{name}, floor {floor}"] = seconds(lambda index=index, text=text: index.nearest(text))
    return results


def same_decisions(count: int) -> Result:
    """Filter so many texts, a third changed copies, in order; every row's nearest row and score as in the reference.

    The reference is brute force over an LCS from rapidfuzz with `rouge_score`'s own arithmetic; the pair that decides
    is asked of `rouge_score` itself.
    """
    scorer, index, brute, held = RougeScorer(["rougeL"], use_stemmer=False), NoveltyIndex(), BruteForce(), []
    for text in made_with_copies(4, count):
        brute.ready()
        found, scores = index.nearest(text), brute.scores([text])[0] if held else np.zeros(1)
        best = int(scores.argmax())
        expected = (best, float(scores[best])) if scores[best] >= index._floor else None
        if found != expected:
            raise SystemExit(f"{text!r}: {found}, but the reference has {expected}")
        if found and found[1] != scorer.score(text, held[found[0]])["rougeL"].fmeasure:
            raise SystemExit(f"{text!r}: rouge_score does not have {found}")
        if not found or found[1] <= THRESHOLD:
            index.add(text)
            brute.add(text)
            held.append(text)
    return {"rows": count, "kept": len(held), "differences": 0}


MEASUREMENTS: dict[str, Callable[..., Result]] = {
    "index": measure_index,
    "others": measure_others,
    "start": measure_start,
    "long": measure_long,
    "same": same_decisions,
    "workers": measure_workers,
}


# The run


def run(name: str, *arguments: object, **environment: str) -> Result:
    """One measurement in a fresh process on one core."""
    command = [sys.executable, __file__, "--one", json.dumps([name, *arguments])]
    variables = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    if not lines:
        sys.exit(f"{name} {arguments} failed:\n{done.stderr[-4000:]}")
    print(f"{name} {arguments[1:]}: {lines[0]}", file=sys.stderr, flush=True)
    result: Result = json.loads(lines[0].removeprefix("RESULT "))
    return result


def measured(sizes: tuple[int, ...], floors_at: tuple[int, ...], ablation_at: int, same: int) -> Result:
    """Everything, one after the other."""
    with tempfile.TemporaryDirectory() as folder:
        path, texts = f"{folder}/pool", made_texts(1)
        with open(path, "w", encoding="utf-8") as file:
            file.writelines(f"{next(texts)}\n" for _ in range(max(sizes)))
        cold = {"NUMBA_CACHE_DIR": f"{folder}/cold"}
        results: Result = {"start": {"compiled": run("start", **cold), "from the cache": run("start", **cold)}}
        results["sizes"] = {size: run("index", path, size, THRESHOLD) | run("others", path, size) for size in sizes}
        results["workers"] = {
            size: {workers: run("workers", path, size, workers) for workers in WORKERS} for size in floors_at
        }
        results["floors"] = {size: {floor: run("index", path, size, floor) for floor in FLOORS} for size in floors_at}
        results["without"] = {}
        for floor in (THRESHOLD, 0.5):
            results["without"][floor] = {
                what: run("index", path, ablation_at, floor, what, NUMBA_CACHE_DIR=f"{folder}/{what}")
                for what in ABLATIONS
            }
    results["long"] = run("long")
    results["same"] = run("same", same)
    return results


def table(title: str, columns: list[str], rows: list[list[str]]) -> None:
    """Print one table."""
    print(f"\n{title}\n\n| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for row in rows:
        print(f"| {' | '.join(row)} |")


def memory(of: Result, size: int) -> str:
    """Bytes per text, as far as a process can tell."""
    return f"{of['bytes']:.0f} ({of['peak_bytes']:.0f})" if size >= 50_000 else "-"


def report(results: Result) -> None:
    """Print the tables."""
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the end; CPU time, median of {ROUNDS} x {ASKED}")
    columns = ["held", "us each", "batched", "brute force", "rouge_score", "bytes each (peak)", "build", "refused"]
    rows = []
    for size, of in results["sizes"].items():
        ratios = [f"{of[way]:,.0f} us, {of[way] / of['microseconds']:,.0f} x" for way in ("brute force", "rouge_score")]
        build = f"{of['build_s']:.2f} s, {size / of['build_s']:,.0f}/s"
        rows.append([f"{size:,}", f"{of['microseconds']:.0f}", f"{of['batched']:.0f}", *ratios])
        rows[-1] += [memory(of, size), build, f"{of['refused']:.1%}"]
    table(f"floor = threshold = {THRESHOLD}, one core", columns, rows)
    rows = [
        [f"{size:,}", f"{workers}", f"{of['microseconds']:.0f}", f"{of['fill_s']:.1f}"]
        for size, each in results["workers"].items()
        for workers, of in each.items()
    ]
    table(f"workers on Ray, wall clock, batches of {BATCH}", ["held", "workers", "us each", "fill s"], rows)
    columns = ["floor", "us each", "of the threshold's", "bytes each (peak)", "build s", "found"]
    for size, floors in results["floors"].items():
        rows = []
        for floor, of in floors.items():
            ratio = of["microseconds"] / floors[THRESHOLD]["microseconds"]
            rows.append([f"{floor}", f"{of['microseconds']:.0f}", f"{ratio:.2f}", memory(of, size)])
            rows[-1] += [f"{of['build_s']:.1f}", f"{of['found']:.0%}"]
        table(f"{size:,} held, by floor", columns, rows)
    rows = [[what, *(f"{of[what]['batched']:.0f}" for of in results["without"].values())] for what in ABLATIONS]
    table("us each, batched, by floor", ["without", *map(str, results["without"])], rows)
    print(f"\nfirst question of a process, s: {results['start']}")
    print(f"a million characters, five such held, s: {results['long']}")
    print(f"filtered in order beside the reference: {results['same']}")


def main() -> None:
    """Measure, print, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small pools only")
    parser.add_argument("--sizes", type=int, nargs="+")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        name, *arguments = json.loads(options.one)
        print("RESULT " + json.dumps(MEASUREMENTS[name](*arguments)))
        return
    sizes = tuple(options.sizes or (QUICK if options.quick else SIZES))
    floors_at = tuple(size for size in (52_000, 1_000_000) if size in sizes) or sizes[-1:]
    results = measured(sizes, floors_at, min(max(sizes), 52_000), 1000 if options.quick else 5000)
    report(results)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "novelty.json").write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
