"""What does a score cost? Pairs a second of the one-step judge, beside a reason first and beside free text.

    python bench/curation.py [--pairs 192] [--tokens 128] [--rounds 3]

The same pairs go to the same engine (real vLLM in a Ray actor on one core, the embedded model) in three ways: `score`,
the recipe's one step; `rationale`, its reason and then the step; and free text that ends in a score, read with a
regular expression, as published reproductions do it. All ask with the recipe's own prompts for any model, and take
turns, so that what else the machine does falls on all three; the CPU time of the engine's process is given too. The
embedded model has learned no reasons, so a reason and a free text are made to have exactly `--tokens` tokens. Each
instruction ends in a mark of its round and way: no measurement finds its pairs in the prefix cache, but only the scale
that stands before all of them. There are two sets of pairs: the shipped seeds, whose answers are short, and sections
as long as segments are.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import statistics
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from pipeline.config import Config, parse_config
from pipeline.curation import Judge
from pipeline.models import model_path
from pipeline.prompting import shipped_text
from pipeline.records import Completion, Request, RequestKey, Sampling, Stage
from pipeline.seeds import parse_seeds

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).parent / "results"
TEXTS = ROOT / "embedded" / "texts"
SCORE = re.compile(r"Score:\s*([1-5])")
WAYS = ("score", "rationale", "free text")

Pair = tuple[str, str]
Result = dict[str, float]
Measured = dict[str, dict[str, list[Result]]]  # by set of pairs and by way


def configuration(mode: str, tokens: int) -> Config:
    """A backtranslation with the shipped prompts, on one engine of one core."""
    engine = {
        "model": "shipped:embedded",
        "style": "completion",
        "num_gpus": 0,
        "num_cpus": 1,
        "vllm": {"dtype": "bfloat16", "max_model_len": 2048, "max_num_seqs": 64},
    }
    values = {
        "recipe": "backtranslation",
        "corpus": {"source": str(TEXTS)},
        "curation": {"mode": mode, "rationale_sampling": {"max_tokens": tokens, "stop": []}},
        "engine": engine,
    }
    return parse_config(values, "bench/curation.py")


def seed_pairs(count: int) -> list[Pair]:
    """Shipped seeds with their inputs and outputs: short answers."""
    seeds = parse_seeds(shipped_text("seeds.jsonl"), "seeds.jsonl")
    shown = [(f"{seed.instruction}\n{one.input}".strip(), one.output) for seed in seeds for one in seed.instances]
    return shown[:count]


def segment_pairs(count: int) -> list[Pair]:
    """Sections of the shipped corpus, as long as segments are, each asked for by its header and by those after it."""
    sections: list[Pair] = []
    for path in sorted(TEXTS.glob("*.md")):
        for part in re.split(r"(?m)^#+ ", path.read_text(encoding="utf-8"))[1:]:
            header, _, text = part.partition("\n")
            if 600 <= len(text.strip()) <= 3000:
                sections.append((header.strip(), text.strip()))
    headers = [header for header, _ in sections]
    pairs = [
        (f"Write what one should know about this: {headers[(place + shift) % len(headers)]}.", text)
        for shift in range(-(-count // len(sections)))
        for place, (_, text) in enumerate(sections)
    ]
    return pairs[:count]


class Counted:
    """`generate` of a pool, with the tokens that it cost."""

    def __init__(self, pool: Any) -> None:
        self._pool = pool
        self.asked = self.answered = 0

    async def generate(self, request: Request) -> Completion:
        done: Completion = await self._pool.generate(request)
        self.asked += done.prompt_tokens
        self.answered += done.completion_tokens
        return done


def scorers(tokens: int) -> dict[str, Callable[[int, Pair, Counted], Awaitable[bool]]]:
    """The three ways; each says whether it read a score of a pair."""
    judges = {mode: Judge(configuration(mode, tokens), "embedded") for mode in ("score", "rationale")}
    sampling = Sampling(tokens, 0.0, 1.0, 0, 0.0, 0.0, 0.0, 1.0, ())

    def by(judge: Judge) -> Callable[[int, Pair, Counted], Awaitable[bool]]:
        async def score(unit: int, pair: Pair, engine: Counted) -> bool:
            await judge.judge(RequestKey(unit, Stage.CURATION), *pair, engine.generate)
            return True  # it raises nothing: every answer is one of the five

        return score

    async def freely(unit: int, pair: Pair, engine: Counted) -> bool:
        prompt = judges["rationale"].prompts.rationale(*pair)
        answer = await engine.generate(Request(RequestKey(unit, Stage.RATIONALE), prompt, sampling))
        return SCORE.search(answer.text) is not None

    return {"score": by(judges["score"]), "rationale": by(judges["rationale"]), "free text": freely}


async def measure(score: Any, pool: Any, pairs: list[Pair], mark: str) -> Result:
    """All pairs at once: seconds, tokens a pair, and the share of them of which a score was read."""
    engine, process = Counted(pool), (await pool.handles[0].ping()).pid
    marked = [(f"{instruction} ({mark})", text) for instruction, text in pairs]
    began, used = time.perf_counter(), cpu_seconds(process)
    read = await asyncio.gather(*(score(unit, pair, engine) for unit, pair in enumerate(marked)))
    seconds = time.perf_counter() - began
    return {
        "seconds": seconds,
        "cpu_seconds": cpu_seconds(process) - used,
        "prompt_tokens": engine.asked / len(pairs),
        "output_tokens": engine.answered / len(pairs),
        "read": sum(read) / len(pairs),
    }


def cpu_seconds(process: int) -> float:
    """What a process on this machine has used so far, all its threads together."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def run(sets: dict[str, list[Pair]], tokens: int, rounds: int) -> Measured:
    """Start the engine, warm each way up, and measure them in turn."""
    from actors import cluster, vllm_engine

    class Forced(vllm_engine.VllmEngine):
        """The real engine, whose free answers have exactly `max_tokens` tokens."""

        async def start(self, cores: tuple[int, ...] = ()) -> Any:
            own = vllm_engine.sampling_params

            def forced(request: Request, step: Any = None) -> Any:
                params = own(request, step)
                if step is None:
                    params.min_tokens, params.ignore_eos = request.sampling.max_tokens, True
                return params

            vllm_engine.sampling_params = forced
            return await super().start(cores)

    settings = configuration("score", tokens).engine
    cluster.connect()
    pool = cluster.actor_pool(Forced, (model_path(settings.model or ""), settings), settings)
    ways = scorers(tokens)
    measured: Measured = {name: {way: [] for way in WAYS} for name in sets}
    try:
        await pool.start()
        for way in WAYS:
            await measure(ways[way], pool, next(iter(sets.values())), f"warm {way}")
        for name, pairs in sets.items():
            for number in range(rounds):
                for way, results in measured[name].items():
                    results.append(await measure(ways[way], pool, pairs, f"round {number} {way}"))
                    print(f"{name}, round {number + 1}  {way:<9} {results[-1]}", flush=True)
    finally:
        await pool.close()
        cluster.disconnect()
    return measured


def report(sets: dict[str, list[Pair]], measured: Measured, tokens: int) -> None:
    """Print the tables and write them as JSON."""
    for name, ways in measured.items():
        pairs, rounds = len(sets[name]), len(ways["score"])
        characters = sum(len(text) for _, text in sets[name]) / pairs
        print(f"\n**{pairs} {name}, answers of {characters:.0f} characters, one core, median of {rounds}**\n")
        print("| | pairs/s | of free text's | of its CPU time | output tokens a pair | prompt tokens a pair |")
        print("|---|---|---|---|---|---|")
        middle = {
            way: {value: statistics.median(result[value] for result in results) for value in results[0]}
            for way, results in ways.items()
        }
        free = middle["free text"]
        for way, own in middle.items():
            cells = [f"{own[f'{kind}_tokens']:.0f}" for kind in ("output", "prompt")]
            times = [f"{free[clock] / own[clock]:.1f}" for clock in ("seconds", "cpu_seconds")]
            print(f"| {way} | {pairs / own['seconds']:.1f} | {' | '.join(times + cells)} |")
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "curation.json").write_text(json.dumps({"tokens": tokens, "all": measured}, indent=1))


def main() -> None:
    """Measure, and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=192, help="of either set, 234 at most")
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    sets = {"seeds": seed_pairs(options.pairs), "segments": segment_pairs(options.pairs)}
    report(sets, asyncio.run(run(sets, options.tokens, options.rounds)), options.tokens)


if __name__ == "__main__":
    main()
