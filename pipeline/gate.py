"""The gate: candidates are admitted in unit order, each against everything admitted before it.

This is the guarantee that no two admitted instructions are nearer than the threshold (design, invariant 5), and that
the pool is a function of the committed units and nothing else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from pipeline.pool import Pool
from pipeline.records import Candidate, Nearest, Reason, Verdict


class Gate:
    """Lets units pass in order. `passed(unit, candidates, admitted)` is called for each one as it has passed; when it
    returns False no later unit passes, and those that wait do so until they are cancelled."""

    def __init__(
        self,
        pool: Pool,
        run_name: str,
        threshold: float,
        target: int,
        passed: Callable[[int, int, int], bool],
    ) -> None:
        self._pool = pool
        self._run_name = run_name
        self._threshold = threshold
        self._target = target
        self._passed = passed
        self._open = True
        self._waiting: dict[int, tuple[Sequence[Candidate], asyncio.Future[list[Verdict]]]] = {}

    async def admit(self, unit: int, candidates: Sequence[Candidate]) -> list[Verdict]:
        """Wait for this unit's turn, then judge its candidates in order. Called once for every unit."""
        answer: asyncio.Future[list[Verdict]] = asyncio.get_running_loop().create_future()
        self._waiting[unit] = (candidates, answer)
        self._advance()
        return await answer

    def _advance(self) -> None:
        while self._open and (unit := self._pool.units) in self._waiting:
            candidates, answer = self._waiting.pop(unit)
            verdicts = [self._judge(candidate) for candidate in candidates]
            self._pool.close_unit()
            self._open = self._passed(unit, len(candidates), sum(verdict.admitted for verdict in verdicts))
            if not answer.done():  # its unit may have been cancelled meanwhile
                answer.set_result(verdicts)

    def _judge(self, candidate: Candidate) -> Verdict:
        if self._pool.admitted >= self._target:
            return Verdict(candidate, None, Reason.TARGET_REACHED)
        nearest: Nearest | None = self._pool.nearest(candidate.instruction)
        if nearest is not None and nearest.score > self._threshold:
            return Verdict(candidate, nearest, Reason.NOT_NOVEL)
        self._pool.admit(instruction_id(self._run_name, candidate.unit, candidate.index), candidate.instruction)
        return Verdict(candidate, nearest)


def instruction_id(run_name: str, unit: int, candidate: int) -> str:
    """Readable lineage: run / unit / candidate."""
    return f"{run_name}/{unit}/{candidate}"
