"""The first units of a run, in memory and kept whole, and what they foretell: `preview`. Nothing is written."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from pipeline.config import BudgetSettings, ShardSettings
from pipeline.console import clock
from pipeline.counters import Counters
from pipeline.driver import Driver, State
from pipeline.engine import Engine, EngineUse, Running
from pipeline.errors import ContentFault
from pipeline.other_runs import PairsAgain
from pipeline.plan import Plan
from pipeline.pool import Pool
from pipeline.records import Completion, Request, Segment, UnitResult
from pipeline.segment_store import none_kept
from pipeline.segments import SegmentReader
from pipeline.sources import Corpus
from pipeline.stops import Ending, Stops
from pipeline.unit import Units

PER = 1000  # units that a forecast without a target is for


@dataclass
class PreviewedUnit:
    """One unit: what was asked and answered, in the order of the answers, and what came of it."""

    number: int
    exchanges: list[tuple[Request, Completion | ContentFault]] = field(default_factory=list)
    result: UnitResult = field(default_factory=lambda: UnitResult(0))


class _Recorder:
    """An engine that keeps what passes through it, by unit."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.units: dict[int, PreviewedUnit] = {}

    @property
    def capacity(self) -> int:
        return self._engine.capacity

    async def generate(self, request: Request) -> Completion:
        number = request.key.unit
        exchanges = self.units.setdefault(number, PreviewedUnit(number)).exchanges
        try:
            completion = await self._engine.generate(request)
        except ContentFault as fault:
            exchanges.append((request, fault))
            raise
        exchanges.append((request, completion))
        return completion

    def follow(self, run: Running) -> None:
        self._engine.follow(run)

    def use(self) -> EngineUse | None:
        return self._engine.use()

    async def close(self) -> None:
        await self._engine.close()


async def preview_units(plan: Plan, engine: Engine, count: int, show: Callable[[PreviewedUnit], None]) -> Counters:
    """Run the first `count` units as `run` would, calling `show` with each in order; returns their counts."""
    config = plan.config.model_copy(
        update={"budget": BudgetSettings(units=count), "target": count * 1000, "shards": ShardSettings(rows=1)}
    )
    imported = [instruction for run in plan.imports for instruction in run.instructions()]
    pool = Pool(plan.seeds, imported, sample_imported=config.pool.sample_imported, window=plan.window)
    state = State(pool, Counters(), Stops(config, plan.window), plan.run_name, plan.window)
    recorder = _Recorder(engine)

    def keep(results: Sequence[UnitResult], _: Counters, __: object, ___: Ending | None, ____: int) -> None:
        for result in results:
            unit = recorder.units.pop(result.unit, PreviewedUnit(result.unit))
            unit.result = result
            show(unit)

    await Driver(config, state, plan.recipe, recorder, keep, first_units(plan)).run()
    return state.counters


def first_units(plan: Plan) -> Units | None:
    """What the units of a plan are about, with nothing written; None where a recipe finds that itself."""
    if plan.candidates is not None:
        return PairsAgain(plan.candidates, 0)
    return None if plan.corpus is None else _FirstSegments(SegmentReader(plan.corpus, plan.config.corpus))


async def first_segment(corpus: Corpus) -> None:
    """Raises InputError where a corpus holds no segment at all. Reads it up to the first one."""
    await _FirstSegments(SegmentReader(corpus, corpus.settings))(0)


class _FirstSegments:
    """The kept segments of a corpus, as they are read."""

    total = None

    def __init__(self, reader: SegmentReader) -> None:
        self._refused: Counter[str] = Counter()
        self._kept = self._read(reader)

    def _read(self, reader: SegmentReader) -> Iterator[Segment]:
        for found in reader.read():
            if found.segment is not None:
                yield found.segment
            elif found.unfit is not None:
                self._refused[found.unfit] += 1

    async def __call__(self, unit: int) -> Segment | None:
        segment = await asyncio.to_thread(next, self._kept, None)
        if segment is None and unit == 0:
            raise none_kept(self._refused)
        return segment


def forecast(counters: Counters, target: int | None, engines: int) -> Iterator[str]:
    """What the target will take at the rates of some units: lines for a person."""
    goal = f"the target of {target:,} instructions" if target else f"{PER:,} units"
    yield f"forecast to {goal}, from {counters.units} units:"
    if not counters.admitted:
        yield "  none: nothing was admitted"
        return
    calls, admitted = counters.calls.total(), counters.admitted
    prompt, generated = counters.prompt_tokens.total(), counters.completion_tokens.total()
    times = target / admitted if target else PER / counters.units
    yield (
        f"  per admitted instruction  {calls / admitted:.1f} calls, {prompt / admitted:,.0f} prompt and "
        f"{generated / admitted:,.0f} generated tokens, {counters.examples / admitted:.2f} rows"
    )
    if counters.examples:
        yield (
            f"  per row                   {calls / counters.examples:.1f} calls, {prompt / counters.examples:,.0f} "
            f"prompt and {generated / counters.examples:,.0f} generated tokens"
        )
    yield (
        f"  in all                    {counters.units * times:,.0f} units, {calls * times:,.0f} calls, "
        f"{prompt * times:,.0f} prompt and {generated * times:,.0f} generated tokens"
    )
    if generated and counters.seconds:
        rate = generated / counters.seconds
        hours = counters.seconds * times * engines / 3600
        yield (
            f"  engine time               at most {hours:,.2f} engine-hours ({clock(counters.seconds * times)} with "
            f"{engines}) at the measured {rate:,.0f} tokens/s; a preview does not fill an engine"
        )
    yield "  Novelty falls as the pool grows, which is not in this forecast: later instructions take more."
