"""The command line. The only module of `pipeline` that touches `actors`, and that inside functions.

Exit codes: 0 done; 2 the configuration or an input is wrong; 75 stopped before the end, run again to go on.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import InputError, MillError, RunStopped

if TYPE_CHECKING:
    from pipeline.config import Config
    from pipeline.engine import Engine
    from pipeline.runs import Plan, Run

DEMO_CONFIG = "shipped:demo.toml"

# What would make a run go on that has ended, by the rule that ended it.
GOES_ON = {
    "target": "a larger target (--set target=N)",
    "exhausted": "a lower bound (--set exhaustion.share=0)",
    "budget.tokens": "a larger budget (--set budget.tokens=N)",
    "budget.units": "a larger budget (--set budget.units=N)",
    "budget.hours": "a larger budget (--set budget.hours=N)",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code. Errors are one sentence on stderr."""
    options = _parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], int] = options.command
    try:
        refuse_intruders()
        return command(options)
    except MillError as error:
        return _complain(str(error), error.exit_code)
    except BrokenPipeError:  # the reader of our output went away, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return _complain("interrupted; run the same command again to go on", RunStopped.exit_code)
    except OSError as error:
        return _complain(f"storage failed ({error}); mend it and run the same command again", RunStopped.exit_code)
    except Exception as error:
        if os.environ.get("INSTRUCTMILL_TRACEBACK"):
            raise
        return _complain(
            f"a bug in InstructMill: {type(error).__name__}: {error} (INSTRUCTMILL_TRACEBACK=1 shows where)", 1
        )


def refuse_intruders() -> None:
    """The import names are common words: make sure that all three are ours. Raises InputError naming the intruder."""
    ours = Path(__file__).resolve().parent.parent
    for name in ("actors", "prompts"):
        spec = importlib.util.find_spec(name)
        origin = Path(spec.origin).resolve() if spec and spec.origin else None
        if origin is None:
            raise InputError(
                f"the package {name!r} of InstructMill is missing beside {ours / 'pipeline'}; install again"
            )
        if origin.parent.parent != ours:
            raise InputError(
                f"another package named {name!r} at {origin.parent} hides InstructMill's own in {ours}; "
                "rename it, or run from another folder"
            )


def demo(options: argparse.Namespace) -> int:
    """`instructmill demo`: the shipped demo configuration, then a look at what came out."""
    from pipeline.config import load_config
    from pipeline.drawing import draw_rows
    from pipeline.report import evenly, read_rows

    config = load_config(DEMO_CONFIG, tuple(options.set), options.out)
    folder = _folder(config)
    code = _run(config, folder)
    draw_rows("a few of its rows", evenly(read_rows(folder, "data"), 3))
    python = os.path.relpath(sys.executable) if Path(sys.executable).is_relative_to(Path.cwd()) else sys.executable
    print(f"\nopen it:  {python} -c \"import datasets; print(datasets.load_dataset('{folder}', split='train'))\"")
    print(f"look on:  {python} -m pipeline inspect {folder} -n 5      ... inspect {folder} --reason not_novel")
    return code


def run(options: argparse.Namespace) -> int:
    """`instructmill run`: a new run, or on with the one in the folder."""
    from pipeline.config import load_config

    config = load_config(options.config, tuple(options.set), options.out)
    if options.dry_run:
        from pipeline.runs import make_plan

        plan = make_plan(config)
        resolved = {**config.model_dump(mode="json"), "window": plan.window, "out": str(_folder(config))}
        print(json.dumps({"fingerprint": plan.fingerprint, "config": resolved}, indent=1, ensure_ascii=False))
        return 0
    return _run(config, _folder(config))


def _folder(config: Config) -> Path:
    if config.out is None:
        raise InputError("the run folder is not named: set `out` in the configuration, or give --out DIR")
    return Path(config.out).expanduser()


def _run(config: Config, folder: Path) -> int:
    from pipeline.check import check_context, check_folder
    from pipeline.driver import sums_close
    from pipeline.report import summary
    from pipeline.runs import make_plan, open_run, read_manifest

    fresh = read_manifest(folder) is None
    with ExitStack() as stack:
        if fresh:  # find what is wrong before anything is written
            plan = make_plan(config)
            check_folder(plan, folder)
            list(check_context(plan))
            stack.enter_context(_cluster(config))
        opened = open_run(config, folder)
        stack.callback(opened.close)
        if opened.ending is None:
            if not fresh:
                stack.enter_context(_cluster(config))
            asyncio.run(_drive(opened))
        elif opened.commits[-1].ending is None:  # a rule of this configuration ends a run that had stopped before
            opened.commit([], opened.state.counters, [], opened.ending, 0)
        else:
            print(f"the run is complete; {GOES_ON[opened.ending.reason]} would go on with it")
    sums_close(opened.state.counters)
    print(summary(folder, {"run": opened.plan.run_name}, opened.commits[-1]))
    return 0


async def _drive(opened: Run) -> None:
    """Start the engines and run until a rule, a signal or a fault ends it."""
    from pipeline.driver import Driver
    from pipeline.progress import Progress

    config = opened.plan.config
    signals = _Signals()
    try:
        engine = await _start_engine(opened.plan, opened.event)
    except asyncio.CancelledError:
        raise signals.reason or RunStopped("cancelled while the engines were loading") from None
    driver = Driver(config, opened.state, opened.plan.recipe, engine, opened.commit)
    signals.stop = driver.stop
    progress = asyncio.create_task(Progress(driver, config.target).draw())
    try:
        await driver.run()
    except MillError as error:
        opened.event("stopped", why=str(error))
        raise
    finally:
        progress.cancel()
        await asyncio.gather(progress, return_exceptions=True)
        await engine.close()


class _Signals:
    """The first SIGINT or SIGTERM ends what runs, with what is whole kept; a second one ends the process at once.

    Made inside a task: until `stop` is set, a signal cancels that task.
    """

    def __init__(self) -> None:
        self.reason: RunStopped | None = None
        task = asyncio.current_task()
        assert task is not None
        self.stop: Callable[[RunStopped], object] = lambda _: task.cancel()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._caught, number)

    def _caught(self, number: signal.Signals) -> None:
        if self.reason is not None:
            os._exit(RunStopped.exit_code)
        self.reason = RunStopped(f"stopped by {number.name}; run the same command again to go on")
        self.stop(self.reason)


def preview(options: argparse.Namespace) -> int:
    """`instructmill preview`: a few units, shown whole; writes nothing."""
    from pipeline.check import check_context
    from pipeline.config import load_config
    from pipeline.drawing import draw_preview
    from pipeline.preview import preview_units
    from pipeline.runs import make_plan

    config = load_config(options.config, tuple(options.set))
    plan = make_plan(config)
    list(check_context(plan))

    async def show() -> None:
        engine = await _start_engine(plan)
        try:
            async for unit in preview_units(plan, engine, options.n):
                draw_preview(unit)
        finally:
            await engine.close()

    with _cluster(config):
        asyncio.run(show())
    return 0


def check(options: argparse.Namespace) -> int:
    """`instructmill check`: everything that can be known before a model loads."""
    from pipeline.check import check_plan
    from pipeline.config import load_config
    from pipeline.runs import make_plan, read_manifest

    config = load_config(options.config, tuple(options.set), options.out)
    folder = Path(config.out).expanduser() if config.out else None
    plan = make_plan(config, read_manifest(folder) if folder else None)
    for line in check_plan(plan, folder):
        print(line)
    if options.no_cluster or config.engine.kind == "scripted":
        print("cluster: not looked at")
    else:
        with _cluster(config) as room:
            print(f"cluster: {room}")
    print("all is well")
    return 0


def status(options: argparse.Namespace) -> int:
    """`instructmill status`: where a run stands, live or dead."""
    from pipeline.report import status as facts_of
    from pipeline.report import status_text

    facts = facts_of(Path(options.run))
    print(json.dumps(facts, indent=1) if options.json else status_text(facts))
    return 0


def inspect(options: argparse.Namespace) -> int:
    """`instructmill inspect`: rows or rejects drawn for a person."""
    from pipeline.drawing import draw_rows
    from pipeline.records import Reason
    from pipeline.report import evenly, read_rows

    if options.reason is not None and options.reason not in set(Reason):
        raise InputError(f"--reason {options.reason}: no such reason; there are {', '.join(Reason)}")
    kind = "rejected" if options.rejected or options.reason else "data"
    rows = read_rows(Path(options.run), kind, options.reason)
    draw_rows(f"{min(options.n, len(rows))} of {len(rows)} rows of {kind}/", evenly(rows, options.n))
    return 0


@contextmanager
def _cluster(config: Config) -> Iterator[str]:
    """The cluster, joined for as long as this lasts, with room for the engines asked for; says what it has.

    Where this process was in it before, it stays in it. The scripted engine needs none.
    """
    if config.engine.kind == "scripted":
        yield "not needed"
        return
    try:
        from actors import cluster
    except ImportError as error:
        raise InputError(
            f"engine.kind = 'vllm' needs Ray, which is not installed here ({error.name}); "
            "install instructmill[vllm], or leave the cluster out with `check --no-cluster`"
        ) from None
    joined = cluster.connect()
    try:
        yield str(cluster.require_room(config.engine))
    finally:
        if joined:
            cluster.disconnect()


async def _start_engine(plan: Plan, note: Callable[..., None] | None = None) -> Engine:
    """The engine a configuration names, ready to be asked. `note` is told of engines that come and go."""
    config = plan.config
    if config.engine.kind == "scripted":
        from pipeline.testing import ScriptedEngine

        scripted = config.engine.scripted
        return ScriptedEngine(
            capacity=scripted.capacity * config.engine.count, delay_s=scripted.delay_s, call_log=scripted.call_log
        )
    from actors import cluster
    from pipeline.progress import while_waiting
    from pipeline.sources import is_local

    # The very revision that the plan was made with, whatever the hub holds by now.
    revision = None if is_local(config.engine.model or "") else plan.model["revision"]
    pool = cluster.engine_pool(config.engine.model_copy(update={"revision": revision}), note)
    what = f"loading {config.engine.model} on {config.engine.count} engine(s)"
    try:
        await while_waiting(pool.start(), what)
    except BaseException:
        await pool.close()
        raise
    return pool


def _complain(sentence: str, code: int) -> int:
    print(f"instructmill: {sentence}", file=sys.stderr)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="instructmill", description="Instruction-tuning data from seed tasks, on Ray and vLLM, as Parquet shards."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(command: Callable[[argparse.Namespace], int], help: str) -> argparse.ArgumentParser:
        added = commands.add_parser(command.__name__, help=help, description=help)
        added.set_defaults(command=command)
        return added

    def add_config(added: argparse.ArgumentParser, *, named: bool = True, out: bool = True) -> None:
        if named:
            added.add_argument("config", metavar="CONFIG", help='a TOML file, or "shipped:demo.toml"')
        if out:
            added.add_argument("--out", metavar="DIR", help="the run folder")
        added.add_argument(
            "--set",
            metavar="KEY=VALUE",
            action="append",
            default=[],
            help="set a key by its path: bootstrap.machine_made=4",
        )

    add_config(add(demo, "the embedded model, real Ray, real vLLM on the CPU, into runs/demo"), named=False)
    added = add(run, "start a run, or go on with the one in its folder")
    add_config(added)
    added.add_argument("--dry-run", action="store_true", help="print the resolved configuration and stop")
    added = add(preview, "a few units, shown with prompt, raw completion and verdicts; writes nothing")
    add_config(added, out=False)
    added.add_argument("-n", type=_positive, default=3, metavar="UNITS", help="units to show (3)")
    added = add(check, "configuration, prompts, seeds, folder and cluster, before any model loads")
    add_config(added)
    added.add_argument("--no-cluster", action="store_true", help="leave out what the cluster has")
    added = add(status, "counts by stage and reason, tokens, rates, time left; of a live or a dead run")
    added.add_argument("run", metavar="RUN", help="a run folder")
    added.add_argument("--json", action="store_true", help="as JSON")
    added = add(inspect, "rows or rejects, drawn for a person")
    added.add_argument("run", metavar="RUN", help="a run folder")
    added.add_argument("-n", type=_positive, default=5, metavar="ROWS", help="rows to show, spread over the run (5)")
    added.add_argument("--rejected", action="store_true", help="what was refused instead of what was kept")
    added.add_argument("--reason", metavar="R", help="rejects with this reason only")
    return parser


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number of at least 1")
    return int(text)
