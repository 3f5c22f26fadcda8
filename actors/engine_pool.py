"""The pool of engines in the driver: keeps their processes alive and carries requests to them.

    generate -> Dispatcher -> exchange, one in flight per engine -> Dispatcher -> answer

The pool knows engines only through `EngineHandle`, so that it runs on Ray actors, or in a test on plain objects. Only
content ever fails a request: the engine refused it, or died while the request was alone on it. Everything else is sent
elsewhere, or ends the run with RunStopped.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from actors.dispatch import LONGEST_BACKOFF_S, Desk, Dispatcher
from actors.messages import Call, EngineHandle, EngineLost, Gauges, News, Ready, StartFailure
from pipeline.errors import InputError, RunStopped
from pipeline.records import Completion, Request

CLOSE_S = 20.0
WATCH_S = 1.0


@dataclass(frozen=True, slots=True)
class EngineStats:
    """One engine's place in the pool, over all processes that have filled it."""

    state: str  # "waiting for room", "loading", "ready" or "down"
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
class _Place:
    """One of the pool's engines, whichever process fills it now."""

    index: int
    state: str = "waiting for room"
    handle: EngineHandle | None = None
    ready: Ready | None = None
    barren: int = 0  # processes lost in a row without an answer between
    desks: list[Desk] = field(default_factory=list)  # one for each process that became ready; the last is current

    def stats(self) -> EngineStats:
        return EngineStats(
            state=self.state,
            in_flight=len(self.desks[-1].flights) if self.state == "ready" else 0,
            answered=sum(desk.answered for desk in self.desks),
            prompt_tokens=sum(desk.prompt_tokens for desk in self.desks),
            completion_tokens=sum(desk.completion_tokens for desk in self.desks),
        )


class _Stall:
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


class EnginePool:
    """An `Engine` over several engine processes. Lives in one event loop.

    `spawn(index)` makes a handle at once and must not wait. `engines` are kept; `slots` requests are in flight on each.
    The run ends with RunStopped when no engine was ready for `start_timeout_s`, when every place has lost
    `max_engine_deaths` processes in a row without an answer, or when engines failed one request more than
    `max_failures` times. A process that has not answered for `silent_timeout_s`, or that has requests and made no
    token for `stall_timeout_s`, hangs: it is killed and replaced. A request that holds up the smallest unit for
    `slow_floor_s`, and three times the 95th percentile of its stage, goes to a second engine. `backoff_s` is the first
    wait before another try; it doubles, up to a minute. `note(kind, **values)` is told of every engine that is ready
    or lost, and of what was in flight there.
    """

    def __init__(
        self,
        spawn: Callable[[int], EngineHandle],
        *,
        engines: int,
        slots: int,
        start_timeout_s: float = 900.0,
        max_engine_deaths: int = 5,
        max_failures: int = 5,
        silent_timeout_s: float = 120.0,
        stall_timeout_s: float = 300.0,
        slow_floor_s: float = 10.0,
        backoff_s: float = 1.0,
        note: Callable[..., None] | None = None,
    ) -> None:
        self._spawn = spawn
        self._note = note or (lambda *_, **__: None)
        self._capacity = engines * slots
        self._start_timeout_s = start_timeout_s
        self._max_engine_deaths = max_engine_deaths
        self._silent_timeout_s = silent_timeout_s
        self._stall_timeout_s = stall_timeout_s
        self._backoff_s = backoff_s
        self._watch_s = min(WATCH_S, slow_floor_s / 4, start_timeout_s / 4)
        self._places = [_Place(index) for index in range(engines)]
        self._dispatcher = Dispatcher(
            slots=slots, max_failures=max_failures, slow_floor_s=slow_floor_s, backoff_s=backoff_s
        )
        self._keepers: list[asyncio.Task[None]] = []
        self._started = asyncio.Event()  # an engine has been ready, or none will be
        self._none_since = 0.0
        self._stopped: Exception | None = None
        self._last_fault = ""
        self._deaths = 0
        self._exchanges = 0

    @property
    def capacity(self) -> int:
        """Requests that all engines hold at once."""
        return self._capacity

    @property
    def handles(self) -> tuple[EngineHandle, ...]:
        """The handle of each engine's current process, ready or not."""
        return tuple(place.handle for place in self._places if place.handle is not None)

    @property
    def ready(self) -> tuple[Ready, ...]:
        """What the engines that are now ready say about themselves."""
        return tuple(place.ready for place in self._places if place.ready is not None)

    def stats(self) -> PoolStats:
        """A snapshot of the counters."""
        return PoolStats(
            engines=tuple(place.stats() for place in self._places),
            waiting=self._dispatcher.waiting,
            deaths=self._deaths,
            retries=self._dispatcher.retries,
            resent=self._dispatcher.resent,
            exchanges=self._exchanges,
        )

    async def start(self) -> None:
        """Return when the first engine is ready; the others join later. `generate` starts the engines as well.

        Raises InputError where the configuration is why no engine can start, RunStopped where none was ready in time.
        """
        self._launch()
        await self._started.wait()
        self._raise_if_stopped()

    async def generate(self, request: Request) -> Completion:
        """Answer one request, on whatever engine. Cancelling withdraws it.

        Raises ContentFault (it can never be answered), RunStopped or InputError (see `start`).
        """
        self._launch()
        self._raise_if_stopped()
        task = self._dispatcher.submit(request)
        try:
            return await task.future
        finally:
            self._dispatcher.withdraw(task)

    async def close(self) -> None:
        """End all engines, and what is still open with RunStopped. Takes CLOSE_S at most; may be called twice."""
        self._stop(RunStopped("The engine pool was closed."))
        for keeper in self._keepers:
            keeper.cancel()
        if self._keepers:
            await asyncio.wait(self._keepers, timeout=CLOSE_S)
            self._keepers.clear()

    def _launch(self) -> None:
        if self._keepers or self._stopped is not None:
            return
        self._none_since = time.monotonic()
        self._keepers = [asyncio.create_task(self._keep(place)) for place in self._places]
        self._keepers.append(asyncio.create_task(self._watch()))
        for keeper in self._keepers:
            keeper.add_done_callback(self._keeper_ended)

    def _keeper_ended(self, keeper: asyncio.Task[None]) -> None:
        """A keeper ends only when the pool stops: anything else is a fault of ours, and must not pass in silence."""
        if not keeper.cancelled() and (error := keeper.exception()) is not None:
            self._stop(error if isinstance(error, Exception) else RuntimeError(f"a keeper ended: {error!r}"))

    def _stop(self, why: Exception) -> None:
        if self._stopped is None:
            self._stopped = why
        self._started.set()
        self._dispatcher.fail_all(self._stopped)

    def _raise_if_stopped(self) -> None:
        if self._stopped is not None:
            raise self._stopped

    async def _keep(self, place: _Place) -> None:
        """Keep one place filled for as long as the pool is open: spawn, load, exchange, and again."""
        while self._stopped is None:
            place.handle = handle = self._spawn(place.index)
            in_flight: list[str] = []
            try:
                place.ready = await self._load(place, handle)
                self._note("engine_ready", engine=place.index, **dataclasses.asdict(place.ready))
                await self._serve(place, handle, place.ready, in_flight)
            except EngineLost as lost:
                self._mourn(place, lost, in_flight)
            finally:
                place.state, place.ready = "down", None
                await handle.close()
            await asyncio.sleep(min(LONGEST_BACKOFF_S, self._backoff_s * 2 ** max(0, place.barren - 1)))

    def _mourn(self, place: _Place, lost: EngineLost, in_flight: list[str]) -> None:
        self._deaths += 1
        self._last_fault = lost.detail
        self._note("engine_lost", engine=place.index, detail=lost.detail, blameless=lost.blameless, in_flight=in_flight)
        place.barren += 1
        if all(place.barren >= self._max_engine_deaths for place in self._places):
            self._stop(RunStopped(f"Engines keep ending without an answer; the last one: {lost.detail}"))

    async def _load(self, place: _Place, handle: EngineHandle) -> Ready:
        place.state = "waiting for room"
        await handle.place()
        place.state = "loading"
        try:
            started = await asyncio.wait_for(handle.start(), self._start_timeout_s)
        except TimeoutError:
            raise EngineLost(f"it was not loaded within {self._start_timeout_s:g} s", blameless=True) from None
        if isinstance(started, StartFailure):
            if started.configuration and not self._started.is_set():
                self._stop(InputError(f"No engine can start: {started.detail}"))
            raise EngineLost(started.detail)
        return started

    async def _serve(self, place: _Place, handle: EngineHandle, ready: Ready, in_flight: list[str]) -> None:
        """Exchange with an engine until it is lost, and say what was there then. Raises EngineLost."""
        desk = Desk()
        place.desks.append(desk)
        place.state = "ready"
        self._started.set()
        self._dispatcher.join(desk)
        blameless = True
        stall = _Stall(self._stall_timeout_s)
        try:
            while True:
                if not (desk.flights or desk.withdrawn):
                    desk.wake.clear()
                    await desk.wake.wait()
                    stall.restart()
                if desk.lone is not None and desk.calls:
                    # Is the engine still there? If it died while it was idle, that must not be laid on the suspect.
                    await self._exchange(handle, ready, (), ())
                self._exchanges += 1
                answered = desk.answered
                news = await self._exchange(handle, ready, *desk.take())
                self._dispatcher.receive(desk, news.answers)
                stall.require_progress(desk, news.gauges, ready)
                if desk.answered > answered:
                    place.barren = 0
        except EngineLost as lost:
            blameless = lost.blameless
            raise
        finally:
            in_flight += desk.contents()
            if self._dispatcher.leave(desk, blameless):
                place.barren = 0  # the request was at fault, and is out of the way
            desk.flights.clear()
            if not self._dispatcher.desks:
                self._none_since = time.monotonic()

    async def _exchange(
        self, handle: EngineHandle, ready: Ready, calls: tuple[Call, ...], withdrawn: tuple[int, ...]
    ) -> News:
        try:
            return await asyncio.wait_for(handle.exchange(calls, withdrawn), self._silent_timeout_s)
        except TimeoutError:
            silent = f"process {ready.pid} on {ready.host} was silent for {self._silent_timeout_s:g} s"
            raise EngineLost(silent, blameless=True) from None

    async def _watch(self) -> None:
        """Look regularly for engines that do not come and for a request that holds up all later ones."""
        while self._stopped is None:
            await asyncio.sleep(self._watch_s)
            if not self._dispatcher.desks and time.monotonic() - self._none_since > self._start_timeout_s:
                states = [place.state for place in self._places]
                counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
                fault = f"; the last fault: {self._last_fault}" if self._last_fault else ""
                self._stop(RunStopped(f"No engine was ready for {self._start_timeout_s:g} s ({counts}){fault}"))
            self._dispatcher.resend_slow()
