"""The progress line of a run: live on a terminal, a plain line every ten seconds anywhere else."""

from __future__ import annotations

import asyncio
import sys
import time
from collections import Counter

from pipeline.driver import Driver
from pipeline.report import clock

PLAIN_EVERY_S = 10.0
LIVE_EVERY_S = 0.5


class Progress:
    """Draws one line about a driver until it is cancelled. Writes to stderr, so that stdout holds results only."""

    def __init__(self, driver: Driver, target: int) -> None:
        self._driver = driver
        self._target = target
        self._began = time.monotonic()
        self._admitted_before = driver.state.pool.admitted
        self._live = sys.stderr.isatty()

    async def draw(self) -> None:
        """Until cancelled; the last state is drawn then."""
        try:
            while True:
                await asyncio.sleep(LIVE_EVERY_S if self._live else PLAIN_EVERY_S)
                self._write(self.line())
        finally:
            self._write(self.line())
            if self._live:
                sys.stderr.write("\n")

    def line(self) -> str:
        """Units, admitted, reasons, tokens/s and the time left at the rate so far."""
        driver, counters = self._driver, self._driver.state.counters
        elapsed = max(time.monotonic() - self._began, 1e-9)
        admitted = driver.state.pool.admitted
        rate = (admitted - self._admitted_before) / elapsed
        left = max(self._target - admitted, 0)
        eta = clock(left / rate) if rate and left else "-" if left else "0:00:00"
        reasons = ", ".join(
            f"{reason} {count}" for reason, count in Counter(counters.refused_candidates).most_common(3)
        )
        tokens = driver.live.completion_tokens.total() / elapsed
        return (
            f"{clock(elapsed)}  units {counters.units} (+{driver.open_units} open)  admitted {admitted}/{self._target}"
            f"  rows {counters.examples}  refused {counters.refused_candidates.total()}"
            f"{f' ({reasons})' if reasons else ''}  {tokens:,.0f} tok/s  ETA {eta}"
        )

    def _write(self, line: str) -> None:
        sys.stderr.write(f"\r\x1b[2K{line}" if self._live else f"{line}\n")
        sys.stderr.flush()
