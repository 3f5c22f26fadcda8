"""One of the pool's engines, whichever process fills it now; and what the pool says of all of them."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

from actors.dispatch import Desk
from actors.engine_use import EngineTime
from actors.messages import EngineHandle, EngineLost, Gauges, Ready


@dataclass(frozen=True, slots=True)
class EngineStats:
    """One engine's place in the pool, over all processes that have filled it."""

    state: str  # "waiting for room", "waiting to load", "loading", "ready", "down" or "let go"
    in_flight: int
    answered: int
    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True, slots=True)
class PoolStats:
    """What the pool has done since it was made. A death is any process that was lost, while it loaded or later."""

    engines: tuple[EngineStats, ...]
    waiting: int
    deaths: int
    retries: int
    resent: int
    exchanges: int

    @property
    def ready(self) -> int:
        return sum(engine.state == "ready" for engine in self.engines)

    @property
    def in_flight(self) -> int:
        return sum(engine.in_flight for engine in self.engines)

    @property
    def answered(self) -> int:
        return sum(engine.answered for engine in self.engines)

    @property
    def prompt_tokens(self) -> int:
        return sum(engine.prompt_tokens for engine in self.engines)

    @property
    def completion_tokens(self) -> int:
        return sum(engine.completion_tokens for engine in self.engines)


@dataclass(eq=False, slots=True)
class Place:
    """One of the pool's engines, whichever process fills it now."""

    index: int
    time: EngineTime
    state: str = "waiting for room"
    node: str = ""
    keeper: asyncio.Task[None] | None = None
    handle: EngineHandle | None = None
    ready: Ready | None = None
    barren: int = 0  # processes lost in a row without an answer between
    desks: list[Desk] = field(default_factory=list)  # one for each process that became ready; the last is current

    @property
    def has_room(self) -> bool:
        return self.state in ("waiting to load", "loading", "ready")

    def stats(self) -> EngineStats:
        return EngineStats(
            state=self.state,
            in_flight=len(self.desks[-1].flights) if self.state == "ready" else 0,
            answered=sum(desk.answered for desk in self.desks),
            prompt_tokens=sum(desk.prompt_tokens for desk in self.desks),
            completion_tokens=sum(desk.completion_tokens for desk in self.desks),
        )


class Stall:
    """Watches one process that answers but may make no tokens: stuck in a step, or going round and round."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._progress: tuple[int, ...] = ()
        self.restart()

    def restart(self) -> None:
        """It had nothing to do until now."""
        self._since = time.monotonic()

    def require_progress(self, desk: Desk, gauges: Gauges, ready: Ready) -> None:
        """Raises EngineLost where it has had requests for so long, and made no token and no answer meanwhile."""
        progress = (gauges.generated_tokens, gauges.prompt_tokens, desk.answered)
        if progress != self._progress or not desk.flights:
            self._progress = progress
            self.restart()
        elif time.monotonic() - self._since > self._timeout_s:
            raise EngineLost(
                f"process {ready.pid} on {ready.host} answers but made no token in {self._timeout_s:g} s, with "
                f"{len(desk.flights)} request(s) on it"
            )
