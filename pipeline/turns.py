"""Who goes next where only so many may at once: the earliest unit."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from pipeline.records import RequestKey, Stage

FIRST = RequestKey(-1, Stage.BOOTSTRAP)  # before all requests of a run


class Turns:
    """So many at once. Those that wait go by their key, so that early units come to rows before late ones begin."""

    def __init__(self, many: int) -> None:
        self._free = many
        self._waiting: list[tuple[RequestKey, int, asyncio.Future[None]]] = []
        self._serials = itertools.count()

    @asynccontextmanager
    async def turn(self, order: RequestKey) -> AsyncIterator[None]:
        if self._free:
            self._free -= 1
        else:
            mine: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            heapq.heappush(self._waiting, (order, next(self._serials), mine))
            try:
                await mine
            except asyncio.CancelledError:
                if mine.done() and not mine.cancelled():  # it had come, and is not used
                    self._next()
                raise
        try:
            yield
        finally:
            self._next()

    def _next(self) -> None:
        while self._waiting:
            waiting = heapq.heappop(self._waiting)[-1]
            if not waiting.done():
                waiting.set_result(None)
                return
        self._free += 1
