"""The line under which a run waits before its first unit, and what it says of engines and novelty workers."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from pipeline.console import clock, write_line
from pipeline.engine_settings import EngineSettings
from pipeline.progress import LIVE_EVERY_S, PLAIN_EVERY_S

SOON_S = 10.0  # where there is room, a process takes some seconds to start all the same

T = TypeVar("T")


async def while_waiting(work: Awaitable[T], what: str | Callable[[float], str], quiet_s: float = 0.0) -> T:
    """Await `work` under a line that says what is waited for and since when, once that is longer than `quiet_s`.

    Where `what` changes it is a function of the seconds waited so far.
    """
    drawn = False

    async def draw() -> None:
        nonlocal drawn
        began = time.monotonic()
        await asyncio.sleep(quiet_s)
        drawn = True
        while True:
            waited = time.monotonic() - began
            write_line(f"{clock(waited)}  {what if isinstance(what, str) else what(waited)}")
            await asyncio.sleep(LIVE_EVERY_S if sys.stderr.isatty() else PLAIN_EVERY_S)

    drawing = asyncio.create_task(draw())
    try:
        return await work
    finally:
        drawing.cancel()
        if drawn and sys.stderr.isatty():
            sys.stderr.write("\n")


def engines_line(states: Sequence[str], settings: EngineSettings, kind: str, waited_s: float) -> str:
    """What engines of a `kind` do of which none is ready yet, by their states (`actors.place.EngineStats`)."""
    model, states = settings.model or "the script", tuple(states)
    homeless = states.count("waiting for room")
    loading = len(states) - homeless - states.count("down")
    if loading:
        return f"loading {model} on {loading} {kind}(s)" + (f"; {_waits(homeless)} for room" if homeless else "")
    if waited_s < SOON_S:
        number = f"{settings.count}" if settings.max is None else f"up to {settings.max}"
        return f"starting {number} {kind}(s): {model}"
    if homeless < len(states):
        again = f"{len(states) - homeless} ended and will be tried again"
        return f"no {kind} yet: {again}" + (f"; {_waits(homeless)} for room" if homeless else "")
    limit = clock(settings.room_timeout_s)
    return f"no {kind} yet: {_waits(homeless)} for room ({_needs(settings)} each); gives up after {limit}"


def workers_line(waiting: int, workers: int, texts: int, room_timeout_s: float, waited_s: float) -> str:
    """What novelty workers do of which so many are `waiting` for a CPU."""
    if not waiting or waited_s < SOON_S:
        return f"filling {workers} novelty worker(s) with {texts:,} texts"
    who = "1 novelty worker waits" if waiting == 1 else f"{waiting} novelty workers wait"
    each = "" if waiting == 1 else " each"
    return f"{who} for a CPU{each} that no engine holds; gives up after {clock(room_timeout_s)}"


def _waits(number: int) -> str:
    return "1 waits" if number == 1 else f"{number} wait"


def _needs(settings: EngineSettings) -> str:
    """What one engine asks of the cluster."""
    amounts = {"CPU": settings.num_cpus, "GPU": settings.num_gpus}
    needs = [f"{amount:g} {name}{'' if amount == 1 else 's'}" for name, amount in amounts.items() if amount]
    return ", ".join(needs + [f"{amount:g} {name}" for name, amount in settings.resources.items()])
