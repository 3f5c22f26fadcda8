"""How full does our pipeline keep an engine? Its wall time beside `vllm.LLM.generate` over the same requests.

    python bench/engine_fill.py [--units 400] [--rounds 5] [--max-num-seqs 32]
    python bench/engine_fill.py --gpus 1 --max-num-seqs 256 --shape FOLDER        untried: no GPU was at hand

A real run is made first and every request recorded with the length of its answer. Then the same requests, with those
lengths forced, go (a) through our pipeline (driver, gate, shards, Ray actor), which asks for each one when the method
gets there; (b) through `vllm.LLM.generate` with its defaults, which has all of them at once; (c) the same with vLLM's
core in the caller's process. Every measurement has a fresh engine on the same cores, so its prefix cache is cold, and
both kinds of request are warmed up first. The three alternate; the table gives medians.

The recorded run is the embedded model's. With `--shape` its requests and lengths then go to a model of that folder's
config.json and tokenizer, with random weights: one in the shape of an 8B model needs no download.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from pipeline.config import Config, load_config
from pipeline.driver import Driver
from pipeline.engine import EngineUse, Running
from pipeline.engine_settings import EngineSettings
from pipeline.models import model_path
from pipeline.records import Completion, Request, RequestKey, Sampling, Stage
from pipeline.runs import open_run

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).parent / "results"
FULL = 0.9  # an engine counts as full while it holds this share of max_num_seqs


def configuration(options: argparse.Namespace, shape: str | None = None) -> Config:
    """The demo's over a fixed number of units, with a window of four times the requests held; of another shape, with
    random weights."""
    slots = EngineSettings(vllm={"max_num_seqs": options.max_num_seqs}).slots
    sets = ["target=1_000_000", f"budget.units={options.units}", f"window={4 * slots}", "exhaustion.share=0"]
    sets += [f"engine.vllm.max_num_seqs={options.max_num_seqs}", f"engine.num_gpus={options.gpus}"]
    sets += [] if options.gpus else [f"engine.num_cpus={os.cpu_count()}"]
    if shape is not None:
        sets += [f"engine.model={json.dumps(shape)}", 'engine.vllm.load_format="dummy"', "engine.style=completion"]
    return load_config("shipped:demo.toml", tuple(sets))


class Recorded:
    """A request's key, as text, to its recorded answer."""

    def __init__(self, path: Path) -> None:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        self.requests = [to_request(line["request"]) for line in lines]
        self.answers = {r.key: Completion(**line["answer"]) for r, line in zip(self.requests, lines, strict=True)}


def to_request(values: dict[str, Any]) -> Request:
    """A request from its JSON form."""
    key = {**values["key"], "stage": Stage(values["key"]["stage"])}
    sampling = {**values["sampling"], "stop": tuple(values["sampling"]["stop"])}
    return Request(RequestKey(**key), values["prompt"], Sampling(**sampling), tuple(values["choices"]))


def forced_params(request: Request, step: object = None) -> Any:
    """vLLM's parameters for an answer of exactly `max_tokens` tokens; a constrained one ends by itself."""
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams

    sampling = request.sampling
    constrained = bool(request.choices)
    return SamplingParams(
        max_tokens=sampling.max_tokens,
        min_tokens=0 if constrained else sampling.max_tokens,
        ignore_eos=not constrained,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        output_kind=RequestOutputKind.FINAL_ONLY,
        structured_outputs=StructuredOutputsParams(choice=list(request.choices)) if constrained else None,
    )


class Warm:
    """Two throw-away requests, one of each kind, so that no first use is measured."""

    SAMPLING = Sampling(8, 0.0, 1.0, 0, 0.0, 0.0, 0.0, 1.0, ())
    REQUESTS = (
        Request(RequestKey(0, Stage.BOOTSTRAP), "warm", SAMPLING),
        Request(RequestKey(0, Stage.CLASSIFICATION), "warm", SAMPLING, (" Yes", " No")),
    )


class Replayed:
    """An Engine that sends each request with its recorded length, and hands on the recorded answer."""

    def __init__(self, pool: Any, recorded: Recorded) -> None:
        self._pool = pool
        self._answers = recorded.answers
        self.in_flight = 0
        self.tokens = 0

    @property
    def capacity(self) -> int:
        return int(self._pool.capacity)

    async def generate(self, request: Request) -> Completion:
        answer = self._answers[request.key]
        sampling = dataclasses.replace(request.sampling, max_tokens=answer.completion_tokens)
        self.in_flight += 1
        try:
            done = await self._pool.generate(dataclasses.replace(request, sampling=sampling))
        finally:
            self.in_flight -= 1
        self.tokens += done.completion_tokens
        return answer

    def follow(self, run: Running) -> None:
        return None

    def use(self) -> EngineUse | None:
        return None

    async def close(self) -> None:
        await self._pool.close()


class Recording:
    """An Engine that writes down every request with its answer."""

    def __init__(self, pool: Any, path: Path) -> None:
        self._pool = pool
        self._stream = path.open("w", encoding="utf-8")

    @property
    def capacity(self) -> int:
        return int(self._pool.capacity)

    async def generate(self, request: Request) -> Completion:
        answer = await self._pool.generate(request)
        line = {"request": dataclasses.asdict(request), "answer": dataclasses.asdict(answer)}
        self._stream.write(json.dumps(line) + "\n")
        return answer

    def follow(self, run: Running) -> None:
        return None

    def use(self) -> EngineUse | None:
        return None

    async def close(self) -> None:
        self._stream.close()
        await self._pool.close()


async def record(config: Config, path: Path) -> None:
    """Make the real run."""
    from actors import cluster

    cluster.connect()
    pool = cluster.engine_pool(config.engine)
    await pool.start()
    engine = Recording(pool, path)
    with tempfile.TemporaryDirectory() as folder:
        run = open_run(config, Path(folder) / "r")
        await Driver(config, run.state, run.plan.recipe, engine, run.commit).run()
        run.close()
    await engine.close()


async def ours(config: Config, recorded: Recorded) -> dict[str, float]:
    """One replay through the pipeline: seconds, tokens, and where the engine was not full."""
    from actors import cluster, vllm_engine

    class Forced(vllm_engine.VllmEngine):
        """The real engine with lengths forced."""

        async def start(self, cores: tuple[int, ...] = ()) -> Any:
            vllm_engine.sampling_params = forced_params
            return await super().start(cores)

    cluster.connect()
    model = model_path(config.engine.model or "")
    pool = cluster.actor_pool(Forced, (model, config.engine), config.engine)
    await pool.start()
    await asyncio.gather(*map(pool.generate, Warm.REQUESTS))
    engine = Replayed(pool, recorded)
    samples: list[tuple[float, int]] = []

    async def sample() -> None:
        while True:
            samples.append((time.perf_counter(), engine.in_flight))
            await asyncio.sleep(0.05)

    with tempfile.TemporaryDirectory() as folder:
        run = open_run(config, Path(folder) / "r")
        driver = Driver(config, run.state, run.plan.recipe, engine, run.commit)
        sampling = asyncio.create_task(sample())
        began, cpu = time.perf_counter(), time.process_time()
        await driver.run()
        seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
        sampling.cancel()
        run.close()
    await engine.close()
    cluster.disconnect()
    full = [at for at, held in samples if held >= FULL * config.engine.max_num_seqs]
    return {
        "seconds": seconds,
        "tokens": engine.tokens,
        "driver_cpu_s": cpu,
        "ramp_s": full[0] - began,
        "tail_s": began + seconds - full[-1],
        "not_full_between": 1 - len(full) / sum(full[0] <= at <= full[-1] for at, _ in samples),
    }


def plain(config: Config, recorded: Recorded, in_process: bool) -> dict[str, float]:
    """One pass of `vllm.LLM.generate` over all requests at once."""
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0" if in_process else "1"
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    from vllm import LLM

    on_cpu: dict[str, Any] = {"kv_cache_memory_bytes": int(config.engine.cpu_kv_cache_gib * 2**30)}
    llm = LLM(
        model=model_path(config.engine.model or ""),
        disable_log_stats=True,
        **({} if config.engine.num_gpus else {"enforce_eager": True, **on_cpu}),
        **config.engine.vllm,
    )
    forced = [
        dataclasses.replace(
            request,
            sampling=dataclasses.replace(request.sampling, max_tokens=recorded.answers[request.key].completion_tokens),
        )
        for request in recorded.requests
    ]
    for request in Warm.REQUESTS:
        llm.generate([request.prompt], forced_params(request), use_tqdm=False)
    began = time.perf_counter()
    outputs = llm.generate([r.prompt for r in forced], [forced_params(r) for r in forced], use_tqdm=False)
    seconds = time.perf_counter() - began
    return {"seconds": seconds, "tokens": sum(len(output.outputs[0].token_ids) for output in outputs)}


def one(subject: str, config: Config, path: Path) -> dict[str, float]:
    """One measurement in this process, which is a fresh one."""
    recorded = Recorded(path)
    if subject == "ours":
        return asyncio.run(ours(config, recorded))
    return plain(config, recorded, in_process=subject == "LLM in process")


def main() -> None:
    """Record, then measure in fresh processes, alternating."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--units", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--max-num-seqs", type=int, default=32)
    parser.add_argument("--gpus", type=int, default=0, help="of the engine; 0 is the CPU")
    parser.add_argument("--shape", metavar="FOLDER", help="measure a model of this shape, with random weights")
    parser.add_argument("--one", nargs=2, metavar=("SUBJECT", "FILE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    config = configuration(options, options.shape)
    if options.one:
        print("RESULT " + json.dumps(one(options.one[0], config, Path(options.one[1]))))
        return
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / "engine_fill_requests.jsonl"
    asyncio.run(record(configuration(options), path))
    measured: dict[str, list[dict[str, float]]] = {"ours": [], "LLM.generate": [], "LLM in process": []}
    for number in range(options.rounds):
        for subject, results in measured.items():
            command = [sys.executable, __file__, *sys.argv[1:], "--one", subject, str(path)]
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
            lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
            if not lines:
                sys.exit(f"{subject} failed:\n{done.stderr[-4000:]}")
            results.append(json.loads(lines[0].removeprefix("RESULT ")))
            print(f"round {number + 1}  {subject:<15} {results[-1]}", file=sys.stderr, flush=True)
    report(config, measured)


def report(config: Config, measured: dict[str, list[dict[str, float]]]) -> None:
    """Print the table and write it as JSON."""
    middle = {
        subject: {key: statistics.median(result[key] for result in results) for key in results[0]}
        for subject, results in measured.items()
    }
    recorded = Recorded(RESULTS / "engine_fill_requests.jsonl")
    print(
        f"{len(recorded.requests)} requests, window {config.window}, max_num_seqs {config.engine.max_num_seqs}, "
        f"{os.cpu_count()} cores, median of {len(measured['ours'])}\n"
    )
    print("| | seconds | tokens/s | LLM.generate's time / its time |\n|---|---|---|---|")
    base = middle["LLM.generate"]["seconds"]
    for subject, values in middle.items():
        rate = values["tokens"] / values["seconds"]
        print(f"| {subject} | {values['seconds']:.1f} | {rate:,.0f} | {base / values['seconds']:.3f} |")
    of = middle["ours"]
    print(
        f"\nwhere ours was not full: {of['ramp_s']:.2f} s until the engine first was, {of['tail_s']:.2f} s after it "
        f"last was, {of['not_full_between']:.1%} of the time between; the driver used {of['driver_cpu_s']:.1f} s of CPU"
    )
    (RESULTS / "engine_fill.json").write_text(json.dumps({"median": middle, "all": measured}, indent=1))


if __name__ == "__main__":
    main()
