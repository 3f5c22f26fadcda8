"""How many engines can one driver feed? Its CPU time per call of a model, with simulated engines behind it.

    python bench/driver.py [--quick] [--recipes self-instruct backtranslation] [--engines 64] [--pool 20000 200000] ...

The driver is the real one: recipe, parsing, filters, gate, the client of a novelty worker on Ray, the engine pool,
shards and ledger on a local disk. The engines are simulated (`driver_engines.py`): each makes its own exchange with the
pool over Ray, a few processes hold all of them. The pool is filled to a stated size first, and the run is cut after the
measurement.

`--pace` makes engines slower than the published rates. `--slow` slows everything that has a duration in an engine, its
hold included, so that driver, simulators and novelty worker fit on this machine together: rates and shares are then of
simulated time, which passes so many times as slowly. What the driver does for a call does not change with that; what it
does for each second (heartbeats of Ray) counts for more.

CPU time is that of all threads of the process, by the kernel's clocks. The split of the main thread is by samples of
its stack right after the measurement, each weighed with the CPU time that the thread has used since the last.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from driver_engines import SimulatedEngine, Simulator, Texts
from driver_meter import Meter, Stacks, Threads

from pipeline.config import Config, load_config
from pipeline.driver import Driver
from pipeline.engine_settings import EngineSettings
from pipeline.errors import RunStopped
from pipeline.novelty import NoveltyIndex
from pipeline.pool import Demonstration, Pool
from pipeline.runs import open_run

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).parent / "results"
CALLS_PER_S = 25.0  # of one 8B engine on an H100, as the design takes it
Result = dict[str, Any]


def configuration(options: argparse.Namespace, recipe: str, out: Path) -> Config:
    """The shipped configuration of a recipe for an instruct model, over scripted engines of so many slots."""
    shipped = "self_instruct_chat" if recipe == "self-instruct" else "backtranslation"
    slots = EngineSettings(vllm={"max_num_seqs": options.max_num_seqs}).slots
    sets = [
        "name=bench",
        "engine.kind=scripted",
        f"engine.scripted.capacity={slots}",
        f"engine.count={options.engines}",
        f"window={options.window or options.engines * (64 if recipe == 'self-instruct' else 4 * slots)}",
        f"novelty.workers={options.workers}",
        f"shards.seconds={options.commit_s}",
    ]
    if recipe == "self-instruct":
        sets += ["target=100_000_000", "exhaustion.share=0"]
    else:
        sets += [f"corpus.source={out.parent / 'corpus.jsonl'}", f"curation.mode={options.judge}"]
        if options.plain_corpus:
            sets += ["corpus.repeated_sentences=0", "corpus.near_duplicates=0"]
    return load_config(f"shipped:{shipped}.toml", tuple(sets))


def write_corpus(path: Path, rows: int) -> None:
    """So many rows of text, of 700 to 2,900 characters."""
    texts = Texts(random.Random("corpus"))
    with path.open("w", encoding="utf-8") as lines:
        for number in range(rows):
            words = texts.rng.choices(texts.words, k=texts.rng.randint(110, 400))
            sentences = (" ".join(words[at : at + 12]).capitalize() for at in range(0, len(words), 12))
            lines.write(json.dumps({"text": ". ".join(sentences) + ".", "url": f"https://a.example/{number}"}) + "\n")


async def measure(options: argparse.Namespace, recipe: str, held: int) -> Result:
    """One run: filled, warmed up, measured, cut."""
    import ray

    from actors import cluster
    from actors.engine_pool import EnginePool

    await asyncio.to_thread(join, cluster)
    async with AsyncExitStack() as stack:
        stack.callback(cluster.disconnect)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        if recipe == "backtranslation":
            write_corpus(folder / "corpus.jsonl", options.corpus)
        config = configuration(options, recipe, folder / "run")
        run = open_run(config, folder / "run")
        stack.callback(run.close)
        stack.push_async_callback(run.close_units)
        pool = Pool(run.plan.seeds, filling(held), window=run.plan.window)
        run.state.pool = pool
        novelty = cluster.novelty_pool(config.novelty.tokenizer, config.novelty.lowest, options.workers)
        stack.push_async_callback(novelty.close)
        pool.score_with(novelty)
        await asyncio.gather(novelty.start(), asyncio.to_thread(NoveltyIndex().nearest, ""))
        simulators, engines = start_simulators(options, config)
        engine_pool = EnginePool(
            lambda index: SimulatedEngine(engines[index], index),
            engines=options.engines,
            slots=config.engine.slots,
            batch=options.max_num_seqs,
            slow_floor_s=10.0 * options.slow,
        )
        stack.push_async_callback(engine_pool.close)
        await engine_pool.start()
        threads = Threads()
        commit = threads.timed("writing", run.commit)
        driver = Driver(config, run.state, run.plan.recipe, engine_pool, commit, run.units)
        running = asyncio.create_task(driver.run())
        meter = Meter(driver, engine_pool, simulators, threads)
        await warm_up(options, running)
        stacks = Stacks()
        before = await meter.read()
        await asyncio.wait([running], timeout=options.seconds)
        after = await meter.read()
        stacks.start()  # after the measurement: it costs some itself
        await asyncio.wait([running], timeout=options.seconds / 4)
        stacks.stop()
        if run.segments is not None and run.segments.at_end:
            raise RuntimeError("the corpus was read to its end: give a larger --corpus")
        driver.stop(RunStopped("measured"))
        ended = (await asyncio.gather(running, return_exceptions=True))[0]
        if not (isinstance(ended, RunStopped) and str(ended) == "measured"):
            raise RuntimeError(f"the run did not last as long as the measurement: {ended!r}")
        for simulator in simulators:
            ray.kill(simulator)
    return result(options, config, recipe, held, run.plan.window, after, before, stacks)


async def warm_up(options: argparse.Namespace, running: asyncio.Task[Any]) -> None:
    """Until the first wave of requests, which all begin a unit, is answered."""
    done, _ = await asyncio.wait([running], timeout=options.warm_s)
    if done:
        await running


def join(cluster: Any) -> None:
    """Start a local cluster, however busy this machine is."""
    for attempt in range(10):
        try:
            cluster.connect(num_cpus=8)
            return
        except Exception:  # Ray gives its processes 30 s to start
            if attempt == 9:
                raise
            import ray

            ray.shutdown()


def filling(held: int) -> list[Demonstration]:
    """What the pool holds from the start."""
    texts, made = Texts(random.Random("pool")), dict[str, None]()
    while len(made) < held:
        made[texts.instruction()] = None
    return [Demonstration(f"import/{number}", text, True) for number, text in enumerate(made)]


def start_simulators(options: argparse.Namespace, config: Config) -> tuple[list[Any], list[Any]]:
    """The simulators, and for each engine its own."""
    import ray

    slow = options.slow * options.pace
    remote = ray.remote(Simulator).options(num_cpus=0, max_concurrency=options.engines + 8)
    share = -(-options.engines // options.simulators)
    parts = [range(first, min(first + share, options.engines)) for first in range(0, options.engines, share)]
    simulators = [remote.remote(part, options.max_num_seqs, options.hold, slow, options.slow) for part in parts]
    return simulators, [simulators[index // share] for index in range(options.engines)]


def result(
    options: argparse.Namespace,
    config: Config,
    recipe: str,
    held: int,
    window: int,
    after: Counter[str],
    before: Counter[str],
    stacks: Stacks,
) -> Result:
    """What the table shows."""
    spent = {name: after[name] - before[name] for name in after}
    calls, wall = spent["answered"], spent["wall"]
    engine_s = wall / options.slow * options.engines
    published_s = engine_s / options.pace  # as the engines count it
    named = ("cpu", "main threads", "python threads", "ray threads", "writing", "worker", "corpus")
    ms = {name: 1e3 * spent[name] / calls for name in named}
    ms["simulators"] = 1e3 * spent["engines cpu_s"] / calls
    main = sum(stacks.seconds.values()) or 1.0
    parts = {part: ms["main threads"] * seconds / main for part, seconds in stacks.seconds.most_common()}
    rate = calls / engine_s
    return {
        "recipe": recipe,
        "engines": options.engines,
        "max_num_seqs": options.max_num_seqs,
        "hold": f"{options.hold:g} s" if options.hold else "auto",
        "slow": options.slow,
        "pace": options.pace,
        "window": window,
        "held": held,
        "held_at_the_end": held + after["admitted"],
        "seconds": wall,
        "calls": calls,
        "units": spent["units"],
        "calls_per_s_and_engine": rate,
        "calls_per_s": calls / wall * options.slow,
        "calls_per_exchange": calls / spent["exchanges"],
        "ms_per_call": ms,
        "main_ms_per_call": parts,
        "driver_share_of_a_core": spent["cpu"] / wall * options.slow,
        "engines_at_25": 1e3 / ms["cpu"] / CALLS_PER_S,
        "engines_at_its_rate": 1e3 / ms["cpu"] / rate,
        "busy": spent["engines busy_s"] / published_s,
        "full": spent["engines full_s"] / published_s,
        "tokens_per_s_and_engine": spent["engines generated"] / engine_s,
        "lost": {name: each / wall / options.engines for name, each in spent.items() if name.startswith("lost ")},
        "resent": spent["resent"],
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def table(results: list[Result]) -> str:
    """The results as two tables."""
    lines = [
        "| recipe | engines | calls/s each | hold | window | pool | at the end | calls/s "
        "| calls an exchange | driver, ms a call | engines busy | full | engines that a core feeds, at 25 calls/s "
        "| at theirs |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for one in results:
        lines.append(
            f"| {one['recipe']} | {one['engines']} | {one['calls_per_s_and_engine']:.1f} | {one['hold']} "
            f"| {one['window']:,} | {one['held']:,} | {one['held_at_the_end']:,} "
            f"| {one['calls_per_s']:,.0f} | {one['calls_per_exchange']:.1f} "
            f"| {one['ms_per_call']['cpu']:.3f} | {one['busy']:.1%} | {one['full']:.1%} | {one['engines_at_25']:.0f} "
            f"| {one['engines_at_its_rate']:.0f} |"
        )
    parts = ("exchange", "gate, novelty", "recipe", "driver", "event loop", "garbage")
    lines += [
        "",
        "CPU, ms a call:",
        "",
        f"| recipe | pool | {' | '.join(parts)} | writing | Ray's threads | simulators | novelty worker | corpus |",
        "|---|---|" + "---|" * (len(parts) + 5),
    ]
    for one in results:
        spent = [one["main_ms_per_call"].get(part, 0.0) for part in parts]
        spent += [one["ms_per_call"][name] for name in ("writing", "ray threads", "simulators", "worker", "corpus")]
        lines.append(f"| {one['recipe']} | {one['held']:,} | {' | '.join(f'{each:.3f}' for each in spent)} |")
    return "\n".join(lines)


def arguments() -> argparse.ArgumentParser:
    """What can be asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="8 engines, a small pool, 15 seconds each")
    parser.add_argument("--recipes", nargs="+", default=["self-instruct", "backtranslation"])
    parser.add_argument("--engines", type=int, default=64)
    parser.add_argument("--drivers", type=int, default=1, help="side by side, each with so many engines")
    parser.add_argument("--max-num-seqs", type=int, default=128)
    parser.add_argument("--pool", type=int, nargs="+", default=[20_000, 200_000])
    parser.add_argument("--window", type=int, default=0, help="units; 0: 64 an engine, or four times its slots")
    parser.add_argument("--hold", type=float, default=0, help="seconds an exchange gathers; 0: as a pool has it")
    parser.add_argument("--slow", type=float, default=1.0, help="how many times as long everything in an engine takes")
    parser.add_argument("--pace", type=float, default=2.8, help="engines so many times slower than the published rates")
    parser.add_argument("--seconds", type=float, default=60.0, help="measured, of real time")
    parser.add_argument("--warm-s", type=float, default=120.0, help="before it, of real time")
    parser.add_argument("--commit-s", type=float, default=20.0, help="shards.seconds")
    parser.add_argument("--simulators", type=int, default=2, help="processes")
    parser.add_argument("--workers", type=int, default=1, help="novelty workers")
    parser.add_argument("--corpus", type=int, default=200_000, help="rows of the synthetic corpus")
    parser.add_argument("--plain-corpus", action="store_true", help="look for no repeated sentences or near duplicates")
    parser.add_argument("--judge", default="score", help="curation.mode")
    parser.add_argument("--one", nargs=2, metavar=("RECIPE", "POOL"), help=argparse.SUPPRESS)
    return parser


def run_one(command: list[str], environment: dict[str, str]) -> Result:
    """One driver in a process of its own."""
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    found = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    if not found:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-4000:]}")
    one: Result = json.loads(found[0].removeprefix("RESULT "))
    return one


def main() -> None:
    """Measure each recipe at each pool size, each in a fresh process."""
    options = arguments().parse_args()
    if options.one:
        recipe, held = options.one
        print("RESULT " + json.dumps(asyncio.run(measure(options, recipe, int(held)))))
        return
    given = sys.argv[1:]
    if options.quick:
        options.pool = [2_000]
        given += ["--engines", "8", "--seconds", "15", "--warm-s", "15", "--corpus", "20000"]
    RESULTS.mkdir(exist_ok=True)
    # Ray's workers load the simulators from here.
    paths = [str(Path(__file__).parent), str(ROOT), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    results: list[Result] = []
    for recipe in options.recipes:
        for held in options.pool:
            command = [sys.executable, __file__, *given, "--one", recipe, str(held)]
            with ThreadPoolExecutor(options.drivers) as side_by_side:
                begun = [side_by_side.submit(run_one, command, environment) for _ in range(options.drivers)]
            for one in (each.result() for each in begun):
                results.append(one)
                split = ", ".join(f"{part} {ms:.3f}" for part, ms in one["main_ms_per_call"].items())
                print(f"{recipe}, {held:,} held: main thread, ms per call: {split}", file=sys.stderr, flush=True)
    print(table(results))
    (RESULTS / f"driver-{options.drivers}x{options.engines}.json").write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
