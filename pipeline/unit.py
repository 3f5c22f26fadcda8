"""One unit of work, and the two callables a recipe gets beside it. Recipes know nothing else of the world."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from pipeline.pool import Demonstration
from pipeline.records import Candidate, Completion, Request, UnitResult, Verdict

Generate = Callable[[Request], Awaitable[Completion]]
Admit = Callable[[Sequence[Candidate]], Awaitable[list[Verdict]]]


@dataclass(frozen=True, slots=True)
class Unit:
    """One unit of work: its number, the run's name and seed, and how to draw from the pool it may see.

    `sample(size, machine_made, rng)` gives demonstrations from the pool as it stood a window earlier.
    """

    number: int
    run_name: str
    run_seed: int
    sample: Callable[[int, int, random.Random], list[Demonstration]]

    def stream(self, candidate: int | None = None) -> random.Random:
        """The unit's own random stream, or one of its candidates'; the same in every run of the same seed."""
        parts = (self.run_seed, self.number) if candidate is None else (self.run_seed, self.number, candidate)
        return random.Random("/".join(map(str, parts)))


class Recipe(Protocol):
    """A method as one straight async function over one unit.

    It calls `admit` at most once, with all its candidates; ending or failing without it passes the gate empty. It may
    raise ContentFault before that, which ends the unit as a failure row.
    """

    async def run_unit(self, unit: Unit, generate: Generate, admit: Admit) -> UnitResult: ...
