"""The gate: candidates are admitted in unit order, each against everything admitted before it.

This is the guarantee that no two admitted instructions are nearer than the threshold (design, invariant 5), and that
the pool is a function of the committed units and nothing else. What is ready is scored as one batch against the pool as
it then is, by a scorer elsewhere; here it is compared only with what its own batch has admitted.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Sequence

from pipeline.novelty import tokenizer
from pipeline.pool import Pool
from pipeline.records import Candidate, Nearest, Reason, Verdict
from pipeline.scoring import Batch, Found
from pipeline.settings import NoveltySettings

UNBROKEN = 32  # units judged before others on the loop have their turn
MOST_UNITS = 256  # in one batch: what a batch has admitted is compared on the driver's own loop

Waiting = tuple[Sequence[Candidate], asyncio.Future[list[Verdict]]]


class Gate:
    """Lets units pass in order. `passed(unit, candidates, admitted)` is called for each one as it has passed; when it
    returns False no later unit passes, and those that wait do so until they are cancelled."""

    def __init__(
        self,
        pool: Pool,
        run_name: str,
        novelty: NoveltySettings,
        target: int | None,
        passed: Callable[[int, int, int], bool],
    ) -> None:
        self._pool = pool
        self._run_name = run_name
        self._novelty = novelty
        self._tokens_of = tokenizer(novelty.tokenizer)
        self._target = sys.maxsize if target is None else target
        self._passed = passed
        self._open = True
        self._waiting: dict[int, Waiting] = {}
        self._passing: asyncio.Task[None] | None = None
        self.scoring = False  # the nearest are being looked for

    async def admit(self, unit: int, candidates: Sequence[Candidate]) -> list[Verdict]:
        """Wait for this unit's turn, then judge its candidates in order. Called once for every unit.

        Raises what the scorer raises; no unit passes after that.
        """
        answer: asyncio.Future[list[Verdict]] = asyncio.get_running_loop().create_future()
        self._waiting[unit] = (candidates, answer)
        if self._passing is None or self._passing.done():
            self._passing = asyncio.create_task(self._pass_ready())
        return await answer

    def close(self) -> None:
        """Let no more units pass."""
        self._open = False
        if self._passing is not None:
            self._passing.cancel()

    async def _pass_ready(self) -> None:
        """Pass the units whose turn it is, batch after batch, until one is missing."""
        try:
            while self._open and (units := self._ready()):
                found = await self._score(units)
                batch = Batch(self._novelty.tokenizer, self._novelty.lowest, len(self._pool))
                for place, unit in enumerate(units, start=1):
                    if self._open:
                        self._pass(unit, found, batch)
                    if place % UNBROKEN == 0:
                        await asyncio.sleep(0)
        except Exception as error:  # noqa: BLE001 -- whatever it is, it belongs to the units that wait
            self._open = False
            for _, answer in self._waiting.values():
                if not answer.done():
                    answer.set_exception(error)

    def _ready(self) -> list[int]:
        first = self._pool.units
        units: list[int] = []
        while len(units) < MOST_UNITS and first + len(units) in self._waiting:
            units.append(first + len(units))
        return units

    async def _score(self, units: Sequence[int]) -> dict[str, Found]:
        """The nearest instruction held before this batch, by text."""
        if not self._novelty.enabled or self._pool.admitted >= self._target:
            return {}
        texts = list(dict.fromkeys(each.instruction for unit in units for each in self._waiting[unit][0]))
        self.scoring = True
        try:
            return dict(zip(texts, await self._pool.nearest(texts), strict=True)) if texts else {}
        finally:
            self.scoring = False

    def _pass(self, unit: int, found: dict[str, Found], batch: Batch) -> None:
        candidates, answer = self._waiting[unit]
        verdicts = [self._judge(candidate, found, batch) for candidate in candidates]
        self._pool.close_unit()
        self._open = self._passed(unit, len(candidates), sum(verdict.admitted for verdict in verdicts)) and self._open
        del self._waiting[unit]  # only now: a fault in any of this belongs to the unit too
        if not answer.done():  # its unit may have been cancelled meanwhile
            answer.set_result(verdicts)

    def _judge(self, candidate: Candidate, found: dict[str, Found], batch: Batch) -> Verdict:
        text, nearest = candidate.instruction, None
        if self._pool.admitted >= self._target:
            return Verdict(candidate, None, Reason.TARGET_REACHED)
        if self._novelty.enabled:
            if not self._tokens_of(text):  # near nothing, so that it would always be novel
                return Verdict(candidate, None, Reason.NO_TOKENS)
            if place := batch.nearest(text, found[text]):
                nearest = Nearest(self._pool.id_at(place[0]), place[1])
            if nearest is not None and nearest.score > self._novelty.threshold:
                return Verdict(candidate, nearest, Reason.NOT_NOVEL)
            batch.keep(text)
        self._pool.admit(instruction_id(self._run_name, candidate.unit, candidate.index), text)
        return Verdict(candidate, nearest)


def instruction_id(run_name: str, unit: int, candidate: int) -> str:
    """Readable lineage: run / unit / candidate."""
    return f"{run_name}/{unit}/{candidate}"
