"""The progress line of a run: live on a terminal, a plain line every ten seconds anywhere else."""

from __future__ import annotations

import asyncio
import sys
import time
from collections import deque
from collections.abc import Callable

from pipeline.console import clock, write_line
from pipeline.driver import Driver
from pipeline.engine_facts import Lately, standing_line
from pipeline.unit import Units

PLAIN_EVERY_S = 10.0
LIVE_EVERY_S = 0.5
RATE_OF_S = 300.0  # the time left is guessed from what was done in so many seconds


async def log_engines(driver: Driver, note: Callable[..., None]) -> None:
    """Tell `note` every ten seconds what the engines do, for who asks how the run stands. Until cancelled."""
    lately = Lately(driver.state.counters.examples)
    while True:
        await asyncio.sleep(PLAIN_EVERY_S)
        if use := driver.use():
            note("engines", **lately.standing(use, driver.state.counters.examples))


class Progress:
    """Draws one line about a driver until it is cancelled. Writes to stderr, so that stdout holds results only."""

    def __init__(
        self, driver: Driver, target: int | None, units: Units | None = None, budget: int | None = None
    ) -> None:
        """`units` are the driver's, where it is given any: how many there are is then known or guessed. `budget` is in
        units."""
        self._budget = budget
        self._driver = driver
        self._target = target
        self._units = units
        self._began = time.monotonic()
        self._lately = Lately(driver.state.counters.examples)
        self._done = deque([self._reading(self._began)])

    async def draw(self) -> None:
        """Until cancelled; the last state is drawn then."""
        try:
            while True:
                await asyncio.sleep(LIVE_EVERY_S if sys.stderr.isatty() else PLAIN_EVERY_S)
                self._write()
        finally:
            self._write()
            if sys.stderr.isatty():
                sys.stderr.write("\n")

    def _write(self) -> None:
        """One line on a terminal; in a log the engines have a line of their own."""
        use = self._driver.use()
        engines = standing_line(self._lately.standing(use, self._driver.state.counters.examples)) if use else ""
        if sys.stderr.isatty():
            write_line("  ".join(filter(None, [self.line(), engines])))
            return
        write_line(self.line())
        if engines:
            write_line(f"{clock(time.monotonic() - self._began)}  {engines}")

    def line(self) -> str:
        """Units, admitted or rows, reasons, tokens/s and the time left, both at the rate of the last minutes."""
        driver, counters = self._driver, self._driver.state.counters
        now = time.monotonic()
        self._done.append(self._reading(now))
        while len(self._done) > 2 and self._done[1][0] <= now - RATE_OF_S:
            self._done.popleft()
        admitted, total = driver.state.pool.admitted, self._total()
        of = f"/{'' if total[1] else '~'}{total[0]}" if total else ""
        goal = "" if self._target is None else f"/{self._target}"
        refused = counters.refused_candidates if counters.candidates else counters.refused_instances
        reasons = ", ".join(f"{reason} {count}" for reason, count in refused.most_common(3))
        reasons += ", ..." if len(refused) > 3 else ""
        return (
            f"{clock(now - self._began)}  units {counters.units}{of} (+{driver.open_units} open)"
            f"  admitted {admitted}{goal}  rows {counters.examples}"
            f"  refused {refused.total()}{f' ({reasons})' if reasons else ''}"
            f"  {self._tokens_per_s():,.0f} tok/s  {self._left(total)}"
        )

    def _total(self) -> tuple[int, bool] | None:
        """How many units there will be, and whether that is certain; None where it is not known."""
        total, budget = self._units.total if self._units else None, self._budget
        if budget is not None and (total is None or budget <= total[0]):
            return budget, True
        return total

    def _reading(self, now: float) -> tuple[float, int, int, int]:
        """When, admitted instructions, units, generated tokens."""
        state = self._driver.state
        return now, state.pool.admitted, state.counters.units, self._driver.generated_tokens

    def _tokens_per_s(self) -> float:
        (since, *_, before), (now, *_, tokens) = self._done[0], self._done[-1]
        return (tokens - before) / max(now - since, 1e-9)

    def _left(self, total: tuple[int, bool] | None) -> str:
        """Until the target or the last unit, whichever comes first at the rates of the last minutes; then the units
        that are still under way."""
        (since, *before, _), (now, *done, _) = self._done[0], self._done[-1]
        left: list[float] = []
        for goal, then, here in zip((self._target, total[0] if total else None), before, done, strict=True):
            if goal is not None and here >= goal:
                left.append(0.0)
            elif goal is not None and here > then:
                left.append((goal - here) * (now - since) / (here - then))
        if left and not min(left) and self._driver.open_units:
            return f"finishing {self._driver.open_units} units"
        return f"ETA {clock(min(left)) if left else '-'}"
