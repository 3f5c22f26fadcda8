"""A few units run in memory and kept whole: what `preview` shows. Nothing is written."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

from pipeline.engine import Engine
from pipeline.errors import ContentFault
from pipeline.gate import Gate
from pipeline.novelty import NoveltyIndex
from pipeline.pool import Pool
from pipeline.records import Candidate, Completion, Request, UnitResult, Verdict
from pipeline.runs import Plan
from pipeline.unit import Unit, run_whole


@dataclass
class PreviewedUnit:
    """One unit: what was asked and answered, in the order of the answers, and what came of it."""

    number: int
    exchanges: list[tuple[Request, Completion | ContentFault]] = field(default_factory=list)
    result: UnitResult | None = None


async def preview_units(plan: Plan, engine: Engine, count: int) -> AsyncIterator[PreviewedUnit]:
    """Run `count` units one after the other, each sampling from the pool that the ones before it left."""
    config = plan.config
    pool = Pool(plan.seeds, NoveltyIndex() if config.novelty.enabled else None)
    gate = Gate(pool, plan.run_name, config.novelty.threshold, config.target, lambda *_: True)
    for number in range(count):
        shown = PreviewedUnit(number)

        async def generate(request: Request, shown: PreviewedUnit = shown) -> Completion:
            try:
                completion = await engine.generate(request)
            except ContentFault as fault:
                shown.exchanges.append((request, fault))
                raise
            shown.exchanges.append((request, completion))
            return completion

        async def admit(candidates: Sequence[Candidate], number: int = number) -> list[Verdict]:
            return await gate.admit(number, candidates)

        unit = Unit(
            number,
            plan.run_name,
            config.seed,
            lambda size, machine_made, rng: pool.sample(pool.length_after(pool.units - 1), size, machine_made, rng),
        )
        shown.result = await run_whole(plan.recipe, unit, generate, admit)
        yield shown
