"""The scripted engine in a Ray actor: VllmEngine's methods over answers computed from the request.

For tests and measurements of everything around an engine. Its tokens are those of the answers that it has given.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time

from actors.code import code_hash, node_id
from actors.messages import Answer, Call, Gauges, News, Pulse, Ready, Where
from pipeline.engine_settings import EngineSettings
from pipeline.testing import ScriptedEngine


class ScriptedActor:
    """`start`, then `exchange` for as long as it lives, then `close`."""

    def __init__(self, settings: EngineSettings) -> None:
        scripted = settings.scripted
        self._engine = ScriptedEngine(capacity=scripted.capacity, delay_s=scripted.delay_s, call_log=scripted.call_log)
        self._load_s = scripted.load_s
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._answers: list[Answer] = []
        self._news = asyncio.Event()
        self._generated = self._read = 0
        self._busy_s, self._busy_since = 0.0, 0.0

    async def place(self) -> Where:
        return Where(socket.gethostname(), tuple(sorted(os.sched_getaffinity(0))), node_id(), code_hash())

    async def start(self, cores: tuple[int, ...] = ()) -> Ready:
        await asyncio.sleep(self._load_s)
        return Ready("scripted", "scripted", 1_000_000, os.getpid(), socket.gethostname(), cores, self._load_s)

    async def exchange(self, calls: tuple[Call, ...], withdrawn: tuple[int, ...], hold_s: float) -> News:
        if calls and not self._tasks:
            self._busy_since = time.monotonic()
        for call in calls:
            self._tasks[call.id] = asyncio.create_task(self._answer(call))
        for call_id in withdrawn:
            if task := self._tasks.pop(call_id, None):
                task.cancel()
        if not self._answers:
            self._news.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._news.wait(), hold_s / 8)
        answers, self._answers = tuple(self._answers), []
        return News(answers, self._gauges())

    async def ping(self) -> Pulse:
        return Pulse(os.getpid(), True, len(self._tasks), 0)

    async def close(self) -> None:
        await self._engine.close()

    async def _answer(self, call: Call) -> None:
        completion = await self._engine.generate(call.request)
        del self._tasks[call.id]
        self._generated += completion.completion_tokens
        self._read += completion.prompt_tokens
        if not self._tasks:
            self._busy_s += time.monotonic() - self._busy_since
        self._answers.append(Answer(call.id, completion))
        self._news.set()

    def _gauges(self) -> Gauges:
        busy_s = self._busy_s + (time.monotonic() - self._busy_since if self._tasks else 0.0)
        return Gauges(
            running=len(self._tasks), generated_tokens=self._generated, prompt_tokens=self._read, busy_s=busy_s
        )
