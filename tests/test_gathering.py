"""When an exchange goes back to the pool, and with which answers; in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from actors.gathering import Gathering
from actors.messages import Answer, Call
from pipeline.records import Completion, Request, RequestKey, Sampling, Stage

HOLD_S = 8.0


class VirtualTime(asyncio.SelectorEventLoop):
    """A loop whose clock jumps to the next thing that is due."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        waiting = self._selector.select  # type: ignore[attr-defined]

        def select(timeout: float | None) -> Any:
            self.now += timeout or 0.0
            return waiting(0)

        self._selector.select = select  # type: ignore[attr-defined]

    def time(self) -> float:
        return self.now


def calls(count: int) -> list[Call]:
    """Calls by the numbers from 0."""
    sampling = Sampling(1, 0.0, 1.0, 0, 0.0, 0.0, 0.0, 1.0, ())
    return [Call(number, Request(RequestKey(number, Stage.OUTPUT), "?", sampling)) for number in range(count)]


def answers(*numbers: int) -> list[Answer]:
    """Answers to these."""
    return [Answer(number, Completion("!", "stop", 1, 1)) for number in numbers]


def exchanged(act: Callable[[Gathering], Awaitable[None]], *, open_calls: int) -> tuple[float, list[int]]:
    """When an exchange comes back that began at 0, and with which answers, of an engine that decodes 4 at once."""

    async def exchange() -> tuple[float, list[int]]:
        gathering = Gathering(batch=4)
        gathering.take(calls(open_calls), ())
        acting = asyncio.ensure_future(act(gathering))
        got = await gathering.answers(HOLD_S)
        ended = asyncio.get_running_loop().time()
        await acting
        return round(ended, 6), [answer.id for answer in got]

    with asyncio.Runner(loop_factory=VirtualTime) as runner:
        return runner.run(exchange())


async def nothing(_: Gathering) -> None:
    """The engine finishes nothing."""


def test_nothing_to_tell_is_told_after_a_quarter() -> None:
    """So that new calls can come in."""
    assert exchanged(nothing, open_calls=9) == (HOLD_S / 4, [])


def test_an_engine_without_calls_answers_at_once() -> None:
    """There is nothing to wait for."""
    assert exchanged(nothing, open_calls=0) == (0.0, [])


def test_an_engine_short_of_calls_sends_soon() -> None:
    """An eighth after the first answer, with those that came meanwhile."""

    async def act(gathering: Gathering) -> None:
        await asyncio.sleep(1.5)
        gathering.put(answers(0))
        await asyncio.sleep(0.9)
        gathering.put(answers(1))
        await asyncio.sleep(0.2)
        gathering.put(answers(2))

    assert exchanged(act, open_calls=4) == (2.5, [0, 1])


def test_one_with_more_than_it_decodes_gathers_until_it_is_short() -> None:
    """It goes back with the answer that leaves no more calls than the engine decodes at once."""

    async def act(gathering: Gathering) -> None:
        for number in range(5):
            await asyncio.sleep(1.2)
            gathering.put(answers(number))

    assert exchanged(act, open_calls=7) == (3.6, [0, 1, 2])


def test_it_gathers_for_so_long_at_most() -> None:
    """An engine that is never short comes back all the same."""

    async def act(gathering: Gathering) -> None:
        for number in range(20):
            await asyncio.sleep(0.9)
            gathering.put(answers(number))

    ended, got = exchanged(act, open_calls=100)

    assert (ended, len(got)) == (HOLD_S, 8)


@pytest.mark.parametrize("answered", [True, False])
def test_what_is_withdrawn_is_not_waited_for(answered) -> None:
    """A withdrawn call makes room, whether its answer came before or never comes."""

    async def act(gathering: Gathering) -> None:
        gathering.put(answers(0, 1) if answered else answers(0))
        gathering.take((), (1, 2))
        await asyncio.sleep(0)

    assert exchanged(act, open_calls=6) == (HOLD_S / 8, [0, 1] if answered else [0])


def test_an_answer_goes_along_once() -> None:
    """The next exchange has what came after the last one."""

    async def two() -> tuple[tuple[Answer, ...], tuple[Answer, ...]]:
        gathering = Gathering(batch=4)
        gathering.take(calls(3), ())
        gathering.put(answers(0))
        first = await gathering.answers(HOLD_S)
        gathering.put(answers(1))
        return first, await gathering.answers(HOLD_S)

    with asyncio.Runner(loop_factory=VirtualTime) as runner:
        first, second = runner.run(two())

    assert ([each.id for each in first], [each.id for each in second]) == ([0], [1])
