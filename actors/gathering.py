"""When an exchange goes back to the pool, and with which answers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Sequence

from actors.messages import Answer, Call


def enough(batch: int) -> int:
    """How many requests an engine that decodes so many at once must have to go on gathering."""
    return batch + -(-batch // 20)


class Gathering:
    """The answers of one engine, from when they are there until an exchange takes them along.

    An exchange costs the driver the same whatever it carries. So an engine that has more requests than it decodes at
    once goes on gathering until that is nearly used up: a twentieth lasts until the next ones come. One that has fewer
    sends what it has soon. Lives in one event loop.
    """

    def __init__(self, batch: int) -> None:
        """`batch`: the requests that the engine decodes at once."""
        self._enough = enough(batch)
        self._open: set[int] = set()  # calls that are here and have no answer yet
        self._answers: list[Answer] = []
        self._news = asyncio.Event()  # there is an answer
        self._short = asyncio.Event()  # hardly more calls are open than the engine could decode

    def take(self, calls: Iterable[Call], withdrawn: Iterable[int]) -> None:
        """What an exchange brought."""
        self._open.update(call.id for call in calls)
        self._open.difference_update(withdrawn)
        self._look()

    def put(self, answers: Sequence[Answer]) -> None:
        """What the engine has finished."""
        self._answers += answers
        self._open.difference_update(answer.id for answer in answers)
        self._look()

    async def answers(self, hold_s: float) -> tuple[Answer, ...]:
        """What has finished: after `hold_s` / 4 where that is nothing, else when the engine is short of requests, but
        no sooner than `hold_s` / 8 after the first answer and no later than `hold_s`."""
        ends = asyncio.get_running_loop().time() + hold_s
        if self._open or self._answers:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(hold_s / 4):
                    await self._news.wait()
                await asyncio.sleep(hold_s / 8)
                async with asyncio.timeout_at(ends):
                    await self._short.wait()
        answers, self._answers = tuple(self._answers), []
        self._look()
        return answers

    def _look(self) -> None:
        for event, holds in ((self._news, self._answers), (self._short, len(self._open) < self._enough)):
            if holds:
                event.set()
            else:
                event.clear()
