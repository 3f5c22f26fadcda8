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
from collections import defaultdict
from collections.abc import Callable, Collection

from actors.dispatch import LONGEST_BACKOFF_S, Desk, Dispatcher
from actors.engine_use import EngineTime
from actors.messages import Call, EngineHandle, EngineLost, News, Ready, StartFailure
from actors.place import Place, PoolStats, Stall
from pipeline.engine import EngineUse, Lost, Running
from pipeline.errors import InputError, RunStopped
from pipeline.records import Completion, Request

CLOSE_S = 20.0
WATCH_S = 1.0
# How long an engine may hold an exchange. Each one costs this process over a millisecond whatever it carries, so that
# many engines are asked less often; new requests wait for that long, in which the spare slots keep an engine busy.
SHORTEST_HOLD_S, HOLD_PER_ENGINE_S, LONGEST_HOLD_S = 0.4, 0.048, 3.0
DRAINS_S = 5.0  # how often it is asked which nodes are to go
SPARE_S = 5.0  # an engine with nothing to do for so long is let go at the end of a run


class _Drained(Exception):
    """An engine has nothing left to do, or is not loaded yet, and its node is to go."""


class EnginePool:
    """An `Engine` over several engine processes. Lives in one event loop.

    `spawn(index)` makes a handle at once and must not wait: those that wait for room are what asks an autoscaler for
    nodes. `engines` at most are kept, each from when it is ready; `slots` requests are in flight on each, of which it
    decodes `batch` at once. On one node they load one after the other (`turn`). Nodes that are `draining` get no new
    requests, and their engines are let go when they are done. When no unit is left to start, engines with nothing to
    do are let go, and those that are not ready are given up. One that runs by another `code` is refused, and ends the
    run where none has been ready yet and none on another node may be.

    The run ends with RunStopped when no engine was ready for `start_timeout_s` (`room_timeout_s` where all wait for
    room), when every place that had room has lost `max_engine_deaths` processes in a row without an answer, or when
    engines failed one request more than `max_failures` times. A process that has not answered for `silent_timeout_s`,
    or that has requests and made no token for `stall_timeout_s`, hangs: it is killed and replaced. A request that holds
    up the smallest unit for `slow_floor_s`, and three times the 95th percentile of its stage, goes to a second engine.
    `backoff_s` is the first wait before another try; it doubles, up to a minute. `note(kind, **values)` is told of
    every engine that is ready or lost, and of what was in flight there.
    """

    def __init__(
        self,
        spawn: Callable[[int], EngineHandle],
        *,
        engines: int,
        slots: int,
        batch: int | None = None,
        code: str | None = None,
        turn: Callable[[str], asyncio.Lock] | None = None,
        draining: Callable[[], Collection[str]] = tuple,
        start_timeout_s: float = 900.0,
        room_timeout_s: float = 3600.0,
        max_engine_deaths: int = 5,
        max_failures: int = 5,
        silent_timeout_s: float = 120.0,
        stall_timeout_s: float = 300.0,
        slow_floor_s: float = 10.0,
        backoff_s: float = 1.0,
        spare_s: float = SPARE_S,
        drains_s: float = DRAINS_S,
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
        self._spare_s = spare_s
        self._drains_s = drains_s
        self._code = code
        self._turn = turn or defaultdict[str, asyncio.Lock](asyncio.Lock).__getitem__
        self._draining = draining
        self._room_timeout_s = room_timeout_s
        self._watch_s = min(WATCH_S, slow_floor_s / 4, start_timeout_s / 4, room_timeout_s / 4, spare_s)
        self._places = [Place(index, EngineTime(batch or slots)) for index in range(engines)]
        self._slots = slots
        self._run: Running | None = None
        self._dispatcher = Dispatcher(
            slots=slots, max_failures=max_failures, slow_floor_s=slow_floor_s, backoff_s=backoff_s
        )
        self._keepers: list[asyncio.Task[None]] = []
        self._started = asyncio.Event()  # an engine has been ready, or none will be
        self._none_since = 0.0  # no engine has been ready
        self._loading_since: float | None = None  # and one of them has had its room
        self._going: Collection[str] = ()  # nodes
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

    def follow(self, run: Running) -> None:
        """Serve this run; engines that were let go at another's end come back."""
        self._run = run
        for place in self._places:
            if place.state == "let go":
                self._start_keeping(place)

    def _holding(self) -> Lost:
        return Lost.LOADING if self._run is None else self._run.holding()

    def use(self) -> EngineUse:
        """What the engines do, and where their time went."""
        states = {"loading", "waiting to load"}
        uses = (place.time.use(ready=place.state == "ready", loading=place.state in states) for place in self._places)
        return sum(uses, EngineUse())

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
        for place in self._places:
            self._start_keeping(place)
        for watcher in (self._watch(), self._heed_drains()):
            self._keepers.append(asyncio.create_task(watcher))
            self._keepers[-1].add_done_callback(self._keeper_ended)

    def _start_keeping(self, place: Place) -> None:
        place.keeper = asyncio.create_task(self._keep(place, place.keeper))
        place.keeper.add_done_callback(self._keeper_ended)
        self._keepers.append(place.keeper)

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

    async def _keep(self, place: Place, before: asyncio.Task[None] | None) -> None:
        """Keep one place filled for as long as the pool is open: spawn, load, exchange, and again."""
        if before is not None:  # it may still be closing what filled the place
            await asyncio.wait([before])
        while self._stopped is None:
            place.handle = handle = self._spawn(place.index)
            in_flight: list[str] = []
            lost_now = False
            try:
                place.ready = await self._load(place, handle)
                self._note("engine_ready", engine=place.index, **dataclasses.asdict(place.ready))
                await self._serve(place, handle, place.ready, in_flight)
            except EngineLost as lost:
                lost_now = True
                self._mourn(place, lost, in_flight)
            except _Drained:
                self._note("engine_drained", engine=place.index)
            finally:
                place.time.gone(())
                place.ready = None
                if place.state != "let go":
                    place.state = "down"
                await handle.close(at_once=lost_now)
            await asyncio.sleep(min(LONGEST_BACKOFF_S, self._backoff_s * 2 ** max(0, place.barren - 1)))

    def _mourn(self, place: Place, lost: EngineLost, in_flight: list[str]) -> None:
        self._deaths += 1
        self._last_fault = lost.detail
        self._note("engine_lost", engine=place.index, detail=lost.detail, blameless=lost.blameless, in_flight=in_flight)
        place.barren += 1
        elsewhere = any(each.has_room and each.node != place.node for each in self._places)
        if lost.configuration and not (self._started.is_set() or elsewhere):
            self._stop(InputError(f"No engine can start: {lost.detail}"))
        homes = [each for each in self._places if each.has_room or each.barren]
        if all(each.barren >= self._max_engine_deaths for each in homes):
            self._stop(RunStopped(f"Engines keep ending without an answer; the last one: {lost.detail}"))

    async def _load(self, place: Place, handle: EngineHandle) -> Ready:
        place.state = "waiting for room"
        where = await handle.place()
        place.node = where.node
        if self._code is not None and where.code != self._code:
            stranger = (
                f"{where.host} runs other code of InstructMill ({where.code or 'unknown'}) than this driver "
                f"({self._code}): bring the same version to all nodes, or take this one's along with a working dir"
            )
            raise EngineLost(stranger, blameless=True, configuration=True)
        place.state = "waiting to load"
        place.time.loading()
        self._loading_since = self._loading_since or time.monotonic()
        try:
            async with self._turn(where.node):
                if where.node in self._going:
                    raise _Drained
                place.state = "loading"
                if place.barren == 0:  # its turn has come; a second try gets no more time for all
                    self._loading_since = time.monotonic()
                async with asyncio.timeout(self._start_timeout_s):
                    started = await handle.start()
        except TimeoutError:
            raise EngineLost(f"it was not loaded within {self._start_timeout_s:g} s", blameless=True) from None
        finally:
            place.time.loading()
        if isinstance(started, StartFailure):
            raise EngineLost(started.detail, configuration=started.configuration)
        return started

    async def _serve(self, place: Place, handle: EngineHandle, ready: Ready, in_flight: list[str]) -> None:
        """Exchange with an engine until it is lost, and say what was there then. Raises EngineLost."""
        desk = Desk(closing=place.node in self._going, idle_since=time.monotonic())
        place.desks.append(desk)
        place.state = "ready"
        self._started.set()
        self._dispatcher.join(desk)
        blameless = True
        stall = Stall(self._stall_timeout_s)
        try:
            while True:
                if not desk.flights and desk.closing:
                    raise _Drained
                if not (desk.flights or desk.withdrawn):
                    desk.wake.clear()
                    desk.idle_since = time.monotonic()
                    await desk.wake.wait()
                    stall.restart()
                    place.time.idle(self._holding())
                if desk.lone is not None and desk.calls:
                    # Is the engine still there? If it died while it was idle, that must not be laid on the suspect.
                    await self._exchange(handle, ready, (), ())
                self._exchanges += 1
                answered = desk.answered
                news = await self._exchange(handle, ready, *desk.take())
                self._dispatcher.receive(desk, news.answers)
                place.time.serving(news.gauges, self._holding())
                stall.require_progress(desk, news.gauges, ready)
                if desk.answered > answered:
                    place.barren = 0
        except EngineLost as lost:
            blameless = lost.blameless
            raise
        finally:
            in_flight += desk.contents()
            now = time.monotonic()
            place.time.gone(now - flight.sent_at for flight in desk.flights.values())
            if self._dispatcher.leave(desk, blameless):
                place.barren = 0  # the request was at fault, and is out of the way
            desk.flights.clear()
            if not self._dispatcher.desks:
                self._none_since, self._loading_since = time.monotonic(), None

    async def _exchange(
        self, handle: EngineHandle, ready: Ready, calls: tuple[Call, ...], withdrawn: tuple[int, ...]
    ) -> News:
        try:
            async with asyncio.timeout(self._silent_timeout_s):
                return await handle.exchange(calls, withdrawn, self._hold_s)
        except TimeoutError:
            silent = f"process {ready.pid} on {ready.host} was silent for {self._silent_timeout_s:g} s"
            raise EngineLost(silent, blameless=True) from None

    @property
    def _hold_s(self) -> float:
        return min(LONGEST_HOLD_S, max(SHORTEST_HOLD_S, HOLD_PER_ENGINE_S * self._dispatcher.desks))

    async def _watch(self) -> None:
        """Look regularly for engines that do not come and for a request that holds up all later ones."""
        told = {"retries": 0, "resent": 0}
        while self._stopped is None:
            await asyncio.sleep(self._watch_s)
            self._require_engines()
            self._dispatcher.resend_slow()
            again = {"retries": self._dispatcher.retries, "resent": self._dispatcher.resent}
            if again != told:
                told = again
                self._note("requests_sent_again", **again, fault=self._dispatcher.last_failure)
            for place in self._places:
                if place.state in ("loading", "waiting to load"):
                    place.time.loading()
                elif place.state == "ready" and not place.desks[-1].flights:
                    place.time.idle(self._holding())
            if self._run is not None and self._run.holding() is Lost.TAIL:
                self._let_go(self._run.open_units)

    def _require_engines(self) -> None:
        """End the run where no engine has been ready for too long."""
        states = [place.state for place in self._places]
        if set(states) == {"waiting for room"}:
            self._loading_since = None
        rooms, loads = (self._room_timeout_s, self._none_since), (self._start_timeout_s, self._loading_since or 0.0)
        limit, since = rooms if self._loading_since is None else loads
        if self._dispatcher.desks or time.monotonic() - since <= limit + 2 * self._watch_s:
            return
        counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
        fault = f"; the last fault: {self._last_fault}" if self._last_fault else ""
        self._stop(RunStopped(f"No engine was ready for {limit:g} s ({counts}){fault}"))

    def _let_go(self, open_units: int) -> None:
        """No unit is left to start: give up engines that are not ready, and those that have had nothing to do.

        As many stay as the open units would fill with a request each, and one in any case.
        """
        now = time.monotonic()
        staying = sum(place.state == "ready" and not place.desks[-1].closing for place in self._places)
        needed = max(1, -(-open_units // self._slots))
        if self._dispatcher.waiting or staying < needed:
            return
        for place in self._places:
            if place.state == "ready":
                desk = place.desks[-1]
                if desk.flights or desk.closing or now - desk.idle_since <= self._spare_s or staying <= needed:
                    continue
                staying -= 1
            if place.keeper is not None and place.state != "let go":
                self._note("engine_let_go", engine=place.index)
                place.keeper.cancel()
                place.state = "let go"

    async def _heed_drains(self) -> None:
        """Send nothing more to engines on nodes that are to go."""
        while self._stopped is None:
            await asyncio.sleep(self._drains_s)
            self._going = await asyncio.to_thread(self._draining)
            for place in self._places:
                if place.state == "ready" and place.node in self._going and not place.desks[-1].closing:
                    self._note("engine_draining", engine=place.index, node=place.node)
                    place.desks[-1].closing = True
                    place.desks[-1].wake.set()
