"""The driver: many units at once, in order where order matters.

Units start in order, pass the gate in order and are committed in order (design, invariants 2 and 3). Between those
points they run freely. Everything here lives on one event loop in one process; engines do the work elsewhere.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from pipeline.config import Config
from pipeline.counters import Counters
from pipeline.engine import Engine, EngineUse, Lost
from pipeline.errors import InputError, RunStopped
from pipeline.gate import Gate
from pipeline.pool import Pool
from pipeline.records import Candidate, Completion, Request, Stage, UnitResult, Usage, Verdict
from pipeline.scoring import InProcess
from pipeline.stops import Ending, Stops, hopeless
from pipeline.unit import Recipe, Unit, Units, Work, run_whole


@dataclass
class State:
    """A run as its committed units leave it: what a fresh run starts from, and a resumed one goes on from."""

    pool: Pool
    counters: Counters
    stops: Stops
    run_name: str
    window: int


STAGES = tuple(Stage)
TABLES = ("examples", "admitted", "rejects")  # of a unit's result, one for each table of the run folder

CommitUnits = Callable[[Sequence[UnitResult], Counters, Sequence[tuple[int, int]], Ending | None, int], None]
"""Called with a range of finished units in order, the counters after it, (candidates, admitted) of each at the gate,
the ending when it is the last one, and the tokens spent on units beyond the end."""


class _Open:
    """The calls and tokens of one unit under way."""

    def __init__(self) -> None:
        self._used: dict[Stage, Usage] = {}

    def count(self, stage: Stage, completion: Completion) -> None:
        had = self._used.get(stage) or Usage(stage, 0, 0, 0)
        self._used[stage] = Usage(
            stage,
            had.calls + 1,
            had.prompt_tokens + completion.prompt_tokens,
            had.completion_tokens + completion.completion_tokens,
        )

    def usage(self) -> tuple[Usage, ...]:
        return tuple(self._used[stage] for stage in STAGES if stage in self._used)

    @property
    def tokens(self) -> int:
        return sum(used.prompt_tokens + used.completion_tokens for used in self._used.values())


class Driver:
    """Runs a recipe over units until a stop rule fires. `state` is advanced in place."""

    def __init__(
        self,
        config: Config,
        state: State,
        recipe: Recipe,
        engine: Engine,
        commit: CommitUnits,
        units: Units | None = None,
    ) -> None:
        """`units` says what each unit is about; without it there is no end of them."""
        self._config = config
        self._units = units
        self.state = state
        self._recipe = recipe
        self._engine = engine
        self._commit = commit
        if config.novelty.enabled and not state.pool.scored:
            state.pool.score_with(InProcess(config.novelty.tokenizer, config.novelty.lowest))
        self._gate = Gate(state.pool, state.run_name, config.novelty, config.resolved_target, self._passed)
        self._next_ready = state.counters.units  # units before it are finished
        self._gated: dict[int, tuple[int, int]] = {}
        self._finished: dict[int, UnitResult] = {}
        self._range: list[UnitResult] = []  # finished in order and not yet committed
        self._range_rows = dict.fromkeys(TABLES, 0)
        self._range_opened = 0.0
        self._committing = False
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._moved = asyncio.Event()  # something for the main loop to look at
        self._room = asyncio.Event()  # something for the starter to look at
        self._stop_reason: BaseException | None = None
        self._held_back = False  # the next unit waits for the window
        self._all_started = False
        self._began = time.monotonic()
        self._seconds_before = state.counters.seconds
        self._engine_time_before = state.counters.engine_time
        self.generated_tokens = 0  # by this process, open units included: for the progress line
        self.overshoot_tokens = 0
        self.asked_again = 0  # units that a stop cut off: begun, and to be begun anew

    @property
    def open_units(self) -> int:
        """Units under way."""
        return len(self._tasks)

    def use(self) -> EngineUse | None:
        """What the engines do; None where that is not known."""
        return self._engine.use()

    def holding(self) -> Lost:
        """What keeps requests from engines that have room for them."""
        if self._all_started:
            return Lost.TAIL
        if not self._held_back:
            return Lost.DRIVER
        return Lost.NOVELTY if self._gate.scoring else Lost.WINDOW

    async def run(self) -> Ending:
        """Run to the end. On a stop, a fault or a cancellation, what is whole is committed first."""
        with _garbage_seldom_collected():
            return await self._run()

    async def _run(self) -> Ending:
        self._engine.follow(self)
        starter = asyncio.create_task(self._start_units())
        starter.add_done_callback(self._no_more_to_start)
        try:
            while not self._complete():
                await self._something()
                await self._collect()
                self._cancel_beyond()
                if self._stop_reason is not None and not self._complete():
                    raise self._stop_reason
                if self._range and not self._complete() and self._range_age() >= self._config.shards.seconds:
                    await self._commit_range(None)
        finally:
            starter.cancel()
            self._gate.close()
            cut_off = len(self._tasks)
            for task in self._tasks.values():
                task.cancel()
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)
            await self._collect()
            ending = self.state.stops.ending if self._complete() else None
            self.asked_again = 0 if ending else cut_off + len(self._finished)
            if self._range or ending:
                await self._commit_range(ending)
        assert ending is not None
        return ending

    def stop(self, reason: BaseException) -> None:
        """End the run at once, with what is whole committed; `run` then raises `reason`."""
        self._stop_reason = self._stop_reason or reason
        self._wake()

    async def _something(self) -> None:
        """Until something has happened, or the open range or the budget of hours may be due."""
        due = [self._config.shards.seconds - self._range_age()] if self._range else []
        if self._config.budget.hours is not None:
            due.append(1.0)
        # Many times for each unit, so that no task is made for it.
        alarm = asyncio.get_running_loop().call_later(max(min(due), 0.0), self._moved.set) if due else None
        try:
            await self._moved.wait()
        finally:
            self._moved.clear()
            if alarm is not None:
                alarm.cancel()

    def _wake(self) -> None:
        self._moved.set()
        self._room.set()

    def _complete(self) -> bool:
        ending = self.state.stops.ending
        return ending is not None and self._next_ready > ending.unit

    def _no_more_to_start(self, _: asyncio.Task[None]) -> None:
        self._all_started = True

    async def _start_units(self) -> None:
        """Start units in order: unit n once n - W has passed the gate and n - 2W is finished (invariant 3)."""
        window = self.state.window
        for unit in itertools.count(self._next_ready):
            while not self.state.stops.beyond(unit) and (
                self.state.pool.units <= unit - window or self._next_ready <= unit - 2 * window
            ):
                self._room.clear()
                self._held_back = True
                await self._room.wait()
            self._held_back = False
            if self.state.stops.beyond(unit):
                return
            work = None
            if self._units is not None:
                try:
                    work = await self._units(unit)
                except Exception as error:  # noqa: BLE001 -- whatever it is, it stops the run with what is whole kept
                    self.stop(error)
                    return
                if work is None:
                    self.state.stops.no_more(unit)
                    self._wake()
                    return
            while self._committing:  # so that a kill in it costs no more than its range and two windows
                self._room.clear()
                await self._room.wait()
            if self.state.stops.beyond(unit):
                return
            self._tasks[unit] = asyncio.create_task(self._run_unit(unit, work))

    def _cancel_beyond(self) -> None:
        """Units past the end leave no row: give their engine slots back. Until there is one, none is past it."""
        if self.state.stops.ending is None:
            return
        for unit, task in self._tasks.items():
            if self.state.stops.beyond(unit) and not task.cancelling():
                task.cancel()

    async def _run_unit(self, number: int, work: Work | None) -> None:
        opened = _Open()
        length = self.state.pool.length_after(number - self.state.window)
        unit = Unit(
            number,
            self.state.run_name,
            self._config.seed,
            lambda size, machine_made, rng: self.state.pool.sample(length, size, machine_made, rng),
            work,
        )
        try:
            result = await self._result(unit, opened)
        except asyncio.CancelledError:
            self.overshoot_tokens += opened.tokens
            raise
        except Exception as error:  # noqa: BLE001 -- any fault but a content fault stops the run, with what is whole kept
            self.stop(error)
        else:
            self._finished[number] = result
        finally:
            self._tasks.pop(number, None)
            self._wake()

    async def _result(self, unit: Unit, opened: _Open) -> UnitResult:
        async def generate(request: Request) -> Completion:
            completion = await self._engine.generate(request)
            opened.count(request.key.stage, completion)
            self.generated_tokens += completion.completion_tokens
            return completion

        async def admit(candidates: Sequence[Candidate]) -> list[Verdict]:
            return await self._gate.admit(unit.number, candidates)

        result = await run_whole(self._recipe, unit, generate, admit)
        return replace(result, usage=opened.usage())

    def _passed(self, unit: int, candidates: int, admitted: int) -> bool:
        """The gate's word that a unit has passed; False closes it."""
        self._gated[unit] = (candidates, admitted)
        self.state.stops.after_gate(unit, candidates, admitted)
        self._wake()
        return not self.state.stops.beyond(unit + 1)

    async def _collect(self) -> None:
        """Move finished units, in order and not beyond the end, into the open range; commit it when it is full."""
        while (result := self._finished.get(self._next_ready)) and not self.state.stops.beyond(self._next_ready):
            del self._finished[self._next_ready]
            if not self._range:
                self._range_opened = time.monotonic()
            self._range.append(result)
            for table in TABLES:
                self._range_rows[table] += len(getattr(result, table))
            self.state.counters.add(result)
            self._next_ready += 1
            if result.rejects and (sentence := hopeless(self.state.counters, result.rejects[-1])):
                self.stop(InputError(sentence))
            self.state.stops.after_ready(result.unit, self.state.counters.tokens, self._seconds() / 3600)
            if self._range_full() and not self._complete():
                await self._commit_range(None)
        if self._config.budget.hours is not None and self.state.stops.ending is None:
            self.state.stops.after_ready(self._next_ready - 1, self.state.counters.tokens, self._seconds() / 3600)
        self._room.set()

    def _seconds(self) -> float:
        """Seconds of running, over restarts."""
        return self._seconds_before + time.monotonic() - self._began

    def _engine_time(self) -> dict[str, float]:
        """Seconds of the engines, over restarts: those in use, and lost ones by their cause."""
        use, before = self._engine.use(), self._engine_time_before
        if use is None:
            return before
        return {name: round(seconds + before.get(name, 0.0), 3) for name, seconds in use.time.items()}

    def _range_age(self) -> float:
        return time.monotonic() - self._range_opened

    def _range_full(self) -> bool:
        return max(self._range_rows.values()) >= self._config.shards.rows

    async def _commit_range(self, ending: Ending | None) -> None:
        """Commit the open range, in a thread: units under way and signals do not wait for storage, and new units do."""
        gate = [self._gated[result.unit] for result in self._range]
        if ending:
            self.overshoot_tokens += sum(
                usage.prompt_tokens + usage.completion_tokens
                for result in self._finished.values()
                for usage in result.usage
            )
        self.state.counters.seconds = self._seconds()
        self.state.counters.engine_time = self._engine_time()
        if self._committing:  # one has failed and may have been made all the same: the next start finds out
            return
        self._committing = True
        written = asyncio.to_thread(self._commit, self._range, self.state.counters, gate, ending, self.overshoot_tokens)
        task = asyncio.ensure_future(written)
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            await asyncio.wait([task])  # what it writes is still being looked at
            raise
        for result in self._range:
            del self._gated[result.unit]
        self._range = []
        self._range_rows = dict.fromkeys(TABLES, 0)
        self._committing = False
        self._room.set()


@contextmanager
def _garbage_seldom_collected() -> Iterator[None]:
    """Look for garbage in cycles some hundred times less often.

    A window of units is millions of objects that Python would look through again and again, for a quarter of the
    driver's time and with pauses of a second in which no engine is fed; and hardly any of our garbage is in cycles.
    """
    before = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(500_000, 20, 100)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


def sums_close(counters: Counters) -> None:
    """Raise RunStopped when one of the three sums is open: rows were lost or doubled, which must never happen."""
    for what, left, parts, right in counters.sums():
        if left != right:
            raise RunStopped(
                f"the counts do not add up: {left} {what}, but {parts} = {right}; this is a bug, report it"
            )
