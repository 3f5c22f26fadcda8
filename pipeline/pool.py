"""The pool: seeds and admitted instructions. Sample demonstrations from it, admit into it, in unit order."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.records import Seed
from pipeline.scoring import Found, Scorer


@dataclass(frozen=True, slots=True)
class Demonstration:
    """An instruction shown in a bootstrap prompt, and where it comes from (a seed's id or an instruction's)."""

    id: str
    instruction: str
    machine_made: bool


class Pool:
    """Seeds, then imports, then admitted instructions in order, and how many of these after each unit's gate.

    A snapshot of the pool is a length (of the admitted part): what is held never changes, it only grows. So a unit
    samples from the pool as it stood at a named unit whatever the timing, and a resume that adds the committed rows in
    order has the pool it had. Grows by about 0.3 KB per admitted instruction.
    """

    def __init__(
        self,
        seeds: Sequence[Seed],
        imported: Sequence[Demonstration] = (),
        *,
        sample_imported: bool = False,
        window: int | None = None,
    ) -> None:
        """`imported` are instructions of other runs: held for novelty, and drawn only with `sample_imported`.

        With `window`, lengths are known of so many units back and one more, whatever the run's length.
        """
        self._seeds = [Demonstration(seed.id, seed.instruction, False) for seed in seeds]
        self._imported = list(imported)
        self._drawn = self._imported if sample_imported else []
        self._admitted: list[Demonstration] = []
        self._lengths: deque[int] = deque(maxlen=None if window is None else window + 1)
        self._units = 0
        self._scorer: Scorer | None = None

    @property
    def admitted(self) -> int:
        """Admitted instructions held."""
        return len(self._admitted)

    @property
    def units(self) -> int:
        """Units that have passed the gate."""
        return self._units

    def __len__(self) -> int:
        """Seeds, imports and admitted instructions: their positions, as scorers count them."""
        return len(self._seeds) + len(self._imported) + len(self._admitted)

    def id_at(self, position: int) -> str:
        """The id of what is held at a position: the seeds first, then imports, then what was admitted, in order."""
        for held in (self._seeds, self._imported):
            if position < len(held):
                return held[position].id
            position -= len(held)
        return self._admitted[position].id

    @property
    def scored(self) -> bool:
        """Whether a scorer was given."""
        return self._scorer is not None

    def score_with(self, scorer: Scorer) -> None:
        """Have `scorer` hold what is held, and whatever is admitted from now on."""
        self._scorer = scorer
        scorer.extend(each.instruction for each in (*self._seeds, *self._imported, *self._admitted))

    async def nearest(self, texts: Sequence[str]) -> list[Found]:
        """The nearest instruction held to each text, by position: seeds before admitted ones on a tie."""
        assert self._scorer is not None, "score_with() comes before nearest()"
        return await self._scorer.nearest(texts)

    def admit(self, id: str, instruction: str) -> None:
        """Hold a new instruction. It can be a demonstration once its unit has passed the gate."""
        self._admitted.append(Demonstration(id, instruction, True))
        if self._scorer is not None:
            self._scorer.extend([instruction])

    def close_unit(self) -> None:
        """The next unit in order has passed the gate."""
        self._lengths.append(len(self._admitted))
        self._units += 1

    def length_after(self, unit: int) -> int:
        """Admitted instructions when `unit` had passed the gate; 0 for units before the first."""
        return self._lengths[unit - self._units + len(self._lengths)] if unit >= 0 else 0

    def sample(self, length: int, size: int, machine_made: int, rng: random.Random) -> list[Demonstration]:
        """`size` demonstrations, shuffled: up to `machine_made` of the imports that are drawn and of the first `length`
        admitted, the rest seeds.

        Both are drawn uniformly without replacement (paper, section 2.2: 6 seeds and 2 machine-made of 8).
        """
        imports = len(self._drawn)
        places = rng.sample(range(imports + length), min(machine_made, imports + length))
        machine = [self._drawn[place] if place < imports else self._admitted[place - imports] for place in places]
        chosen = machine + rng.sample(self._seeds, size - len(machine))
        rng.shuffle(chosen)
        return chosen
