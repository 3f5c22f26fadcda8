"""One unit of work, and the two callables a recipe gets beside it. Recipes know nothing else of the world."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

from pipeline.chat import answer_of
from pipeline.errors import ContentFault
from pipeline.pool import Demonstration
from pipeline.records import (
    Candidate,
    Completion,
    Pair,
    Reason,
    Reject,
    Request,
    Segment,
    Source,
    Stage,
    UnitResult,
    Verdict,
)

T = TypeVar("T")

Work = Segment | Pair
Generate = Callable[[Request], Awaitable[Completion]]
Admit = Callable[[Sequence[Candidate]], Awaitable[list[Verdict]]]


@dataclass(frozen=True, slots=True)
class Unit:
    """One unit of work: its number, the run's name and seed, how to draw from the pool it may see, and what it is
    about, where a recipe's units are given: a segment, or a pair to be scored again.

    `sample(size, machine_made, rng)` gives demonstrations from the pool as it stood a window earlier.
    """

    number: int
    run_name: str
    run_seed: int
    sample: Callable[[int, int, random.Random], list[Demonstration]]
    work: Work | None = None

    def stream(self, candidate: int | None = None) -> random.Random:
        """The unit's own random stream, or one of its candidates'; the same in every run of the same seed."""
        parts = (self.run_seed, self.number) if candidate is None else (self.run_seed, self.number, candidate)
        return random.Random("/".join(map(str, parts)))


class Units(Protocol):
    """What units are about, where they are given. Called for one unit after the other, in order."""

    @property
    def total(self) -> tuple[int, bool] | None:
        """How many units there are in all, and whether that is certain or an estimate; None where nothing is known."""
        ...

    async def __call__(self, unit: int) -> Work | None:
        """What a unit is about; None where there are no more."""
        ...


class Recipe(Protocol):
    """A method as one straight async function over one unit.

    It calls `admit` at most once, with all its candidates; ending or failing without it passes the gate empty. It may
    raise ContentFault before that, which ends the unit as a failure row.
    """

    async def run_unit(self, unit: Unit, generate: Generate, admit: Admit) -> UnitResult: ...


async def run_whole(recipe: Recipe, unit: Unit, generate: Generate, admit: Admit) -> UnitResult:
    """Run a unit so that it ends once and passes the gate once, whatever happens to it before the gate."""
    stage, passed = Stage.BOOTSTRAP, False

    async def asked(request: Request) -> Completion:
        nonlocal stage
        stage = request.key.stage
        return _without_thought(request, await generate(request))

    async def judged(candidates: Sequence[Candidate]) -> list[Verdict]:
        nonlocal passed
        passed = True
        return await admit(candidates)

    try:
        result = await recipe.run_unit(unit, asked, judged)
    except ContentFault as fault:
        if passed:
            raise
        source = Source(unit.work.id, unit.work.origin) if isinstance(unit.work, Segment) else None
        failure = Reject(unit.number, stage, fault.reason, fault.detail, fault.text, source=source)
        result = UnitResult(unit.number, rejects=(failure,))
    if not passed:
        await admit(())
    return result


def _without_thought(request: Request, completion: Completion) -> Completion:
    """Cut the thinking block that a chat's answer may begin with. Raises ContentFault where it does not end."""
    if isinstance(request.prompt, str) or request.weigh:
        return completion
    answer = answer_of(completion.text)
    if answer is None:
        detail = f"the answer of {completion.completion_tokens} tokens ended inside its thinking block"
        raise ContentFault(Reason.THOUGHT_UNCLOSED, detail, completion.text)
    return completion if answer is completion.text else replace(completion, text=answer)


async def all_of(work: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Run coroutines side by side; where one fails, the others are cancelled and gone when its error comes through."""
    coroutines = list(work)
    if len(coroutines) < 2:  # as nearly always: no task is made for it
        return [await each for each in coroutines]
    tasks = [asyncio.ensure_future(each) for each in coroutines]
    try:
        return await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise
