"""The pool: seeds and admitted instructions. Sample demonstrations from it, admit into it, in unit order."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.novelty import NoveltyIndex
from pipeline.records import Nearest, Seed


@dataclass(frozen=True, slots=True)
class Demonstration:
    """An instruction shown in a bootstrap prompt, and where it comes from (a seed's id or an instruction's)."""

    id: str
    instruction: str
    machine_made: bool


class Pool:
    """Seeds, then admitted instructions in admission order, and how many there were after each unit's gate.

    A snapshot of the pool is a length (of the admitted part): what is held never changes, it only grows. So a unit
    samples from the pool as it stood at a named unit whatever the timing, and a resume that adds the committed rows in
    order has the pool it had. Grows by about 1 KB per admitted instruction.
    """

    def __init__(self, seeds: Sequence[Seed], novelty: NoveltyIndex | None) -> None:
        self._seeds = [Demonstration(seed.id, seed.instruction, False) for seed in seeds]
        self._admitted: list[Demonstration] = []
        self._lengths: list[int] = []
        self._novelty = novelty
        if novelty is not None:
            for seed in seeds:
                novelty.add(seed.id, seed.instruction)

    @property
    def admitted(self) -> int:
        """Admitted instructions held."""
        return len(self._admitted)

    @property
    def units(self) -> int:
        """Units that have passed the gate."""
        return len(self._lengths)

    def nearest(self, text: str) -> Nearest | None:
        """The most similar instruction held, seeds first on a tie; None where novelty is off."""
        return None if self._novelty is None else self._novelty.nearest(text)

    def admit(self, id: str, instruction: str) -> None:
        """Hold a new instruction. It can be a demonstration once its unit has passed the gate."""
        self._admitted.append(Demonstration(id, instruction, True))
        if self._novelty is not None:
            self._novelty.add(id, instruction)

    def close_unit(self) -> None:
        """The next unit in order has passed the gate."""
        self._lengths.append(len(self._admitted))

    def length_after(self, unit: int) -> int:
        """Admitted instructions when `unit` had passed the gate; 0 for units before the first."""
        return self._lengths[unit] if unit >= 0 else 0

    def sample(self, length: int, size: int, machine_made: int, rng: random.Random) -> list[Demonstration]:
        """`size` demonstrations, shuffled: up to `machine_made` of the first `length` admitted, the rest seeds.

        Both are drawn uniformly without replacement (paper, section 2.2: 6 seeds and 2 machine-made of 8).
        """
        machine = [self._admitted[place] for place in rng.sample(range(length), min(machine_made, length))]
        chosen = machine + rng.sample(self._seeds, size - len(machine))
        rng.shuffle(chosen)
        return chosen
