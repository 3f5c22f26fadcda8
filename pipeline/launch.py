"""From a configuration to a finished run: its engines and novelty workers, the driver, signals, the closing summary.

The only module of `pipeline` that touches `actors`, and that inside functions. `launch` is also the way in from Python.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack, contextmanager
from functools import partial
from typing import Any

from pipeline.check import check_context, check_folder, longest_prompts
from pipeline.config import Config
from pipeline.driver import Driver, sums_close
from pipeline.endpoint import OpenAIEngine
from pipeline.engine import Engine, Filling, WriterAndJudge
from pipeline.engine_settings import EngineSettings
from pipeline.errors import InputError, MillError, RunStopped
from pipeline.filters import OwnFilter
from pipeline.models import is_local
from pipeline.novelty import NoveltyIndex
from pipeline.plan import Plan
from pipeline.pool import Pool
from pipeline.preview import first_segment
from pipeline.progress import Progress, log_engines
from pipeline.report import summary
from pipeline.runs import Run, open_planned, plan_for
from pipeline.scoring import Scorer
from pipeline.signals import Signals
from pipeline.storage import Folder, folder_at
from pipeline.waiting import engines_line, while_waiting, workers_line

# What would make a run go on that has ended, by the rule that ended it.
GOES_ON = {
    "target": "a larger target (--set target=N)",
    "exhausted": "a lower bound (--set exhaustion.share=0)",
    "no_more": "",
    "budget.tokens": "a larger budget (--set budget.tokens=N)",
    "budget.units": "a larger budget (--set budget.units=N)",
    "budget.hours": "a larger budget (--set budget.hours=N)",
}

METRICS_S = 5.0
QUIET_S = 2.0  # novelty workers that are filled sooner are not spoken of


def run_folder(config: Config) -> Folder:
    """Where a configuration's run goes. Raises InputError when it does not say."""
    if config.out is None:
        raise InputError("the run folder is not named: set `out` in the configuration, or give --out DIR")
    return folder_at(config.out)


def launch(config: Config, filters: Sequence[OwnFilter] = ()) -> None:
    """Run a configuration to its end, into the folder it names: a new run, or on with the one that is there.

    `filters` are rules of one's own on an instruction, after the paper's: functions of its text alone, which return
    None to keep it or a few words why not. Prints the closing summary. To be called in the main thread, which gets the
    signals, and not where an event loop runs (a notebook). Raises InputError for what is wrong before anything is
    written, and RunStopped when the run stopped before its end: launch it again to go on.
    """
    folder = run_folder(config)
    if callable(filters):
        raise InputError("filters must be a list of functions: write filters=[name]")
    if threading.current_thread() is not threading.main_thread() or _in_a_loop():
        raise InputError("launch needs the main thread, and no event loop in it: in a notebook use `!instructmill run`")
    with ExitStack() as stack:
        signals = stack.enter_context(Signals())
        plan, manifest = plan_for(folder, config, filters)
        fresh = manifest is None
        if fresh:  # find what is wrong before anything is written
            check_folder(folder)
            if plan.corpus is not None:  # a corpus without any segment, too
                asyncio.run(first_segment(plan.corpus))
            list(check_context(plan))
            stack.enter_context(engines_room(plan))
        opened = open_planned(folder, plan, manifest)
        stack.callback(opened.close)
        if opened.ending is None:
            if not fresh:
                stack.enter_context(engines_room(opened.plan, fresh=False))
            print(f"style: {plan.config.engine.style}: {plan.style_why}", file=sys.stderr)
            try:
                asyncio.run(_drive(opened, signals))
            except MillError as error:
                opened.event("stopped", why=str(error))
                raise
        elif opened.commits[-1].ending is None:  # a rule of this configuration ends a run that had stopped before
            opened.commit([], opened.state.counters, [], opened.ending, 0)
        else:
            mend = GOES_ON[opened.ending.reason]
            print(f"the run is complete; {mend} would go on with it" if mend else "the run is complete")
    sums_close(opened.state.counters)
    if opened.segments is not None and opened.ending is not None and opened.ending.reason == "no_more":
        opened.segments.require_sums(opened.state.counters.units)
    print(summary(folder, {"run": opened.plan.run_name}, opened.commits[-1]))


def _in_a_loop() -> bool:
    try:
        return bool(asyncio.get_running_loop())
    except RuntimeError:
        return False


async def _drive(opened: Run, signals: Signals) -> None:
    """Start the engines and the novelty workers, and run until a rule, a signal or a fault ends it."""
    config = opened.plan.config
    signals.catch()
    async with AsyncExitStack() as stack:
        units = opened.units
        stack.push_async_callback(opened.close_units)
        try:
            if opened.segments is not None:  # a corpus that gives nothing is found before a model is loaded
                await while_waiting(opened.segments(opened.state.counters.units), "reading the corpus", QUIET_S)
            engine = await start_engine(opened.plan, partial(_note, opened))
            stack.push_async_callback(engine.close)
            # After the engines: these have the choice of the machines.
            if config.resolved_novelty_workers:
                engine.follow(Filling())
                await _start_workers(config, opened.state.pool, opened.event, stack)
        except asyncio.CancelledError:
            raise signals.reason or RunStopped("cancelled before the engines were loaded") from None
        driver = Driver(config, opened.state, opened.plan.recipe, engine, opened.commit, units)
        signals.stop = driver.stop
        progress = asyncio.gather(
            Progress(driver, config.resolved_target, units, config.budget.units).draw(),
            log_engines(driver, opened.event),
            _export(driver, opened.plan),
        )
        try:
            await driver.run()
        finally:
            progress.cancel()
            await asyncio.gather(progress, return_exceptions=True)
            if again := driver.asked_again:
                kept = f"{opened.commits[-1].end} units are kept; {again} that were under way are asked again"
                print(f"{kept} when the run goes on", file=sys.stderr)


async def _start_workers(config: Config, pool: Pool, note: Callable[..., None], stack: AsyncExitStack) -> None:
    """Give the pool its novelty workers, filled with what it holds. `stack` ends them."""
    from actors import cluster

    workers = config.resolved_novelty_workers
    novelty = config.novelty
    limits: dict[str, Any] = {"timeout_s": novelty.timeout_s, "room_timeout_s": novelty.room_timeout_s}
    scorer = cluster.novelty_pool(novelty.tokenizer, novelty.lowest, workers, note, **limits)
    stack.push_async_callback(scorer.close)
    pool.score_with(scorer)

    def what(waited_s: float) -> str:
        return workers_line(scorer.without_room, workers, len(pool), novelty.room_timeout_s, waited_s)

    filling = while_waiting(scorer.start(), what, QUIET_S)
    # Beside it the driver's own index, for what one batch admits, is loaded off the event loop that feeds the engines.
    await asyncio.gather(filling, asyncio.to_thread(NoveltyIndex().nearest, ""))


async def _export(driver: Driver, plan: Plan) -> None:
    """Show Prometheus how the run goes, where it is on Ray. Until cancelled."""
    if not any(engine.on_ray for _, engine, _ in plan.engines) and not plan.config.resolved_novelty_workers:
        return
    from actors.metrics import RunMetrics

    metrics = RunMetrics(plan.run_name, driver.state.counters)
    try:
        while True:
            metrics.update(driver.use(), driver.state.counters)
            await asyncio.sleep(METRICS_S)
    finally:
        metrics.update(driver.use(), driver.state.counters)


def _note(opened: Run, event: str, **values: Any) -> None:
    """Log what engines say; a lost one, a server in trouble and a node that is of no use are told of at once too."""
    opened.event(event, **values)
    if event == "engine_lost":
        print(f"{_kind(values['table'])} {values['engine']} was lost: {values['detail']}", file=sys.stderr)
    if event == "endpoint_retry":
        print(f"endpoint: {values['fault']}; asked again in {values['wait_s']:g} s", file=sys.stderr)
    if event == "node_given_up":
        print(f"a node gets no more engines: {values['why']}", file=sys.stderr)


def _kind(table: str) -> str:
    """What the engines of a table of the configuration are called."""
    return "engine" if table == "engine" else "judging engine"


@contextmanager
def engines_room(plan: Plan, *, novelty: bool = True, fresh: bool = True) -> Iterator[str]:
    """Where the engines and, with `novelty`, its workers run, for as long as this lasts, in a line or two.

    That is the cluster, joined and with room, and the endpoint. Where this process was in the cluster before, it stays
    in it. Raises InputError where there is no room, or the endpoint cannot serve this configuration.
    """
    workers = plan.config.resolved_novelty_workers if novelty else 0
    with ExitStack() as stack:
        lines, on_ray = [], False
        for key, engine, _ in plan.engines:
            who = "endpoint" if key == "engine" else "judge's endpoint"
            if engine.on_ray:
                on_ray = True
            elif engine.kind == "scripted":
                lines.append(f"{key}: scripted, in this process")
            else:
                try:
                    lines.append(f"{who}: {asyncio.run(_ask_endpoint(plan, key, engine, fresh))}")
                except InputError as error:
                    raise InputError(str(error).replace("engine.", f"{key}.")) from None
        if on_ray or workers:
            engines = [engine if engine.on_ray else None for _, engine, _ in plan.engines]
            lines.append(f"cluster: {_join_cluster(engines, workers, stack)}")
        yield "\n".join(lines)


@contextmanager
def novelty_scorer(tokenizer: str, floor: float, workers: int) -> Iterator[Scorer]:
    """So many novelty workers on the Ray cluster, joined for as long as this lasts, as a scorer for whoever closes it.

    Raises InputError where Ray is not installed, the cluster is out of reach or has no room.
    """
    with ExitStack() as stack:
        _join_cluster([], workers, stack)
        from actors import cluster

        yield cluster.novelty_pool(tokenizer, floor, workers)


def cluster_jobs(address: str) -> Any:
    """The jobs of the cluster whose dashboard is at an address: `actors.jobs.Jobs`.

    Raises InputError where Ray is not installed here, or there is no cluster that takes the token.
    """
    try:
        from actors.jobs import Jobs
    except ImportError as error:
        raise InputError(
            f"submit needs Ray, which is not installed here ({error.name}); pip install 'ray[default]==2.60.*'"
        ) from None
    return Jobs(address)


def _join_cluster(engines: Sequence[EngineSettings | None], workers: int, stack: ExitStack) -> str:
    """Join the cluster until `stack` ends, and say what it has. Raises InputError where it has no room."""
    try:
        from actors import cluster
    except ImportError as error:
        if any(engines):
            key, engine = next((key, each) for key, each in zip(("engine", "judge"), engines, strict=False) if each)
            what, mend = (
                f"{key}.kind = {engine.kind!r} needs",
                "leave the cluster out with `check --no-cluster`",
            )
        else:
            what, mend = f"{workers} novelty worker(s) need", "ask for 0: this process then does without"
        raise InputError(
            f"{what} Ray, which is not installed here ({error.name}); install instructmill[vllm], or {mend}"
        ) from None
    before = signal.getsignal(signal.SIGTERM)
    looked = ""
    if cluster.connect():
        stack.callback(cluster.disconnect)
        looked = _looked_here()
    # Ray takes SIGTERM to itself as it starts, and then ends this process with a stack's trace, or aborts it.
    if before is not None and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, before)
    try:
        return f"{cluster.require_room(engines, workers, _tell)}{looked}"
    except MillError as error:
        raise type(error)(f"{error}{looked}") from None


def _tell(remark: str) -> None:
    print(remark, file=sys.stderr)


def _looked_here() -> str:
    """What to add to what a cluster has, where that is this machine alone because no other was named."""
    if os.environ.get("RAY_ADDRESS"):
        return ""
    looked = "; looked at this machine, as RAY_ADDRESS is not set"
    if address := os.environ.get("RAY_API_SERVER_ADDRESS"):
        # It may hold a password.
        at = "RAY_API_SERVER_ADDRESS" if "@" in address else address
        looked += f"; the cluster at {at} is reached by submit alone: check with --no-cluster"
    return looked


async def _ask_endpoint(plan: Plan, key: str, settings: EngineSettings, fresh: bool) -> str:
    """What an endpoint says of itself. Raises InputError where it cannot serve this configuration."""
    engine = OpenAIEngine(settings, fresh=fresh)
    try:
        server = await engine.start(list(longest_prompts(plan, key)), weighs=key == plan.judges)
        if plan.config.budget.tokens is not None and not server.usage:
            raise InputError(
                f"budget.tokens is set, and {settings.openai.base_url} counts no tokens: leave it out, and "
                "bound the run by target or budget.units"
            )
        return str(server)
    finally:
        await engine.close()


async def start_engine(plan: Plan, note: Callable[..., None] | None = None) -> Engine:
    """The engines a configuration names, ready to be asked, as one. `note` is told of engines that come and go, and of
    their table in the configuration."""
    starting = [
        asyncio.create_task(_start_group(plan, key, settings, model, note and partial(note, table=key)))
        for key, settings, model in plan.engines
    ]
    try:  # all at once: each group may have to wait for nodes
        started = await asyncio.gather(*starting)
    except BaseException:
        for task in starting:
            task.cancel()
        for engine in await asyncio.gather(*starting, return_exceptions=True):
            if not isinstance(engine, BaseException):
                await engine.close()
        raise
    return started[0] if len(started) == 1 else WriterAndJudge(*started)


async def _start_group(
    plan: Plan, key: str, settings: EngineSettings, model: dict[str, Any], note: Callable[..., None] | None
) -> Engine:
    """The engines of one table of the configuration."""
    if settings.kind == "scripted" and not settings.on_ray:
        from pipeline.testing import ScriptedEngine

        scripted = settings.scripted
        return ScriptedEngine(
            capacity=scripted.capacity * settings.most, delay_s=scripted.delay_s, call_log=scripted.call_log
        )
    if settings.kind == "openai":
        endpoint = OpenAIEngine(settings, note, fresh=False)  # what is wrong with it was found before
        try:
            await endpoint.start(weighs=key == plan.judges)
        except BaseException:
            await endpoint.close()
            raise
        return endpoint
    from actors import cluster

    # The very revision that the plan was made with, whatever the hub holds by now.
    revision = None if is_local(settings.model or "") else model["revision"]
    pool = cluster.engine_pool(settings.model_copy(update={"revision": revision}), note)

    def what(waited_s: float) -> str:
        return engines_line([each.state for each in pool.stats().engines], settings, _kind(key), waited_s)

    try:
        await while_waiting(pool.start(), what)
    except BaseException as error:
        await pool.close()
        if isinstance(error, InputError) and key != "engine":  # what would mend it is in this table
            raise InputError(re.sub(r"\bengine\.(?=\w)", f"{key}.", str(error))) from None
        raise
    return pool
