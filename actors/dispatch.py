"""Which request goes to which engine: queues, flights and suspicion, without processes of its own.

Waiting requests go, lowest unit first, to the least busy ready engine, at most `slots` on each. What a lost engine held
goes elsewhere before anything new. A request that was in flight at two deaths is a suspect: it waits for an engine of
its own, and is convicted if that one dies too.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from collections import defaultdict, deque
from dataclasses import dataclass, field

from actors.messages import Answer, Call, Failed, Refused
from pipeline.errors import ContentFault, RunStopped
from pipeline.records import Completion, Reason, Request, Stage

DEATHS_BEFORE_ALONE = 2
LONGEST_BACKOFF_S = 60.0
LATENCIES_KEPT = 256  # of each stage
LOGGED = 50  # of the requests that were on a lost engine, the first of them


@dataclass(eq=False, slots=True)
class Task:
    """One request, until its future is done."""

    request: Request
    serial: int
    future: asyncio.Future[Completion]
    deaths: set[int] = field(default_factory=set)  # the engine deaths it was in flight at
    failures: int = 0
    flights: dict[int, Desk] = field(default_factory=dict)  # by call id; two where it was sent a second time


@dataclass(eq=False, slots=True)
class Flight:
    """One call on one engine."""

    task: Task
    sent_at: float


@dataclass(eq=False, slots=True)
class Desk:
    """What the driver keeps about one ready engine process: what is there, and what goes with the next exchange."""

    flights: dict[int, Flight] = field(default_factory=dict)
    calls: list[Call] = field(default_factory=list)
    withdrawn: list[int] = field(default_factory=list)
    wake: asyncio.Event = field(default_factory=asyncio.Event)  # set when there is something to exchange
    lone: Task | None = None  # the suspect that has it for itself
    closing: bool = False  # it gets nothing more
    idle_since: float = 0.0
    answered: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def contents(self) -> list[str]:
        """The requests that are there, by unit, stage, candidate, sample and attempt: for the log."""
        keys = [flight.task.request.key for flight in self.flights.values()]
        return [f"{key.unit}/{key.stage}/{key.candidate}/{key.sample}/{key.attempt}" for key in keys[:LOGGED]]

    def take(self) -> tuple[tuple[Call, ...], tuple[int, ...]]:
        """The calls and withdrawals of the next exchange."""
        calls, withdrawn = tuple(self.calls), tuple(self.withdrawn)
        self.calls, self.withdrawn = [], []
        return calls, withdrawn


class TaskQueue:
    """Waiting tasks: those that a lost engine held before new ones, then by key."""

    def __init__(self) -> None:
        self._heap: list[tuple[bool, int, Stage, int, int, int, int, Task]] = []

    def push(self, task: Task) -> None:
        key = task.request.key
        order = (not task.deaths, key.unit, key.stage, key.candidate, key.sample, key.attempt)
        heapq.heappush(self._heap, (*order, task.serial, task))

    def first(self) -> Task | None:
        while self._heap and self._heap[0][-1].future.done():  # withdrawn while it waited
            heapq.heappop(self._heap)
        return self._heap[0][-1] if self._heap else None

    def pop(self) -> Task:
        return heapq.heappop(self._heap)[-1]

    def take_all(self) -> list[Task]:
        tasks = [entry[-1] for entry in self._heap]
        self._heap.clear()
        return tasks

    def __len__(self) -> int:
        return sum(not entry[-1].future.done() for entry in self._heap)


class Dispatcher:
    """Settles the future of every task given to it, for as long as engines join. Lives in one event loop.

    A request that engines fail (not refuse) more than `max_failures` times gets RunStopped.
    """

    def __init__(self, *, slots: int, max_failures: int, slow_floor_s: float, backoff_s: float) -> None:
        self._slots = slots
        self._max_failures = max_failures
        self._slow_floor_s = slow_floor_s
        self._backoff_s = backoff_s
        self._desks: list[Desk] = []
        self._full = False  # no engine has had room since the last one was looked for
        self._due = False  # the event loop will call `_dispatch`
        self._reserved: Desk | None = None  # kept free for, or holding, one suspect
        self._waiting = TaskQueue()
        self._suspects = TaskQueue()
        self._open: set[Task] = set()
        self._numbers = itertools.count(1)
        self._latencies: defaultdict[Stage, deque[float]] = defaultdict(lambda: deque(maxlen=LATENCIES_KEPT))
        self.retries = 0
        self.last_failure = ""
        self.resent = 0

    @property
    def waiting(self) -> int:
        """Requests that no engine has."""
        return len(self._waiting) + len(self._suspects)

    @property
    def desks(self) -> int:
        """Engines that are ready."""
        return len(self._desks)

    def submit(self, request: Request) -> Task:
        """Take a request. Its caller awaits the task's future, and withdraws the task in any case."""
        task = Task(request, next(self._numbers), asyncio.get_running_loop().create_future())
        self._open.add(task)
        self._waiting.push(task)
        if not (self._full or self._due):  # once for all that come together: engines are many
            self._due = True
            asyncio.get_running_loop().call_soon(self._dispatch)
        return task

    def withdraw(self, task: Task) -> None:
        """Forget a task whose caller has its answer, or has gone away, and free what it still holds."""
        self._open.discard(task)
        if not task.flights:
            return
        for call_id, desk in task.flights.items():
            del desk.flights[call_id]
            self._release(desk, task)
            unsent = [call for call in desk.calls if call.id != call_id]
            if len(unsent) == len(desk.calls):
                desk.withdrawn.append(call_id)
                desk.wake.set()
            desk.calls = unsent
        task.flights.clear()
        self._dispatch()

    def fail_all(self, error: Exception) -> None:
        """Fail every open task."""
        for task in self._open:
            if not task.future.done():
                task.future.set_exception(error)

    def join(self, desk: Desk) -> None:
        """An engine is ready."""
        self._desks.append(desk)
        self._dispatch()

    def leave(self, desk: Desk, blameless: bool) -> bool:
        """An engine is gone: send what it held elsewhere. True where a request that was alone there is convicted.

        `blameless`: no request can have caused it, and none is suspected for it.
        """
        self._desks.remove(desk)
        if self._reserved is desk:
            self._reserved = None
        death = next(self._numbers)
        convicted = False
        never_sent = {call.id for call in desk.calls}
        for call_id, flight in desk.flights.items():
            task = flight.task
            del task.flights[call_id]
            suspicious = not blameless and call_id not in never_sent
            if suspicious:
                task.deaths.add(death)
            if desk.lone is task and suspicious:
                self._convict(task)
                convicted = True
            elif not task.flights:
                self._requeue(task)
        self._dispatch()
        return convicted

    def receive(self, desk: Desk, answers: tuple[Answer, ...]) -> None:
        """Settle what an engine has answered."""
        now = time.monotonic()
        for answer in answers:
            flight = desk.flights.pop(answer.id, None)
            if flight is None:
                continue  # withdrawn while it was being answered
            task, outcome = flight.task, answer.outcome
            del task.flights[answer.id]
            self._release(desk, task)
            if task.future.done():
                continue
            if isinstance(outcome, Failed):
                self._retry(task, outcome)
                continue
            desk.answered += 1
            if isinstance(outcome, Refused):
                task.future.set_exception(ContentFault(Reason.REQUEST_REFUSED, outcome.detail))
                continue
            self._latencies[task.request.key.stage].append(now - flight.sent_at)
            desk.prompt_tokens += outcome.prompt_tokens
            desk.completion_tokens += outcome.completion_tokens
            task.future.set_result(outcome)
        if answers:
            self._dispatch()

    def resend_slow(self) -> None:
        """Send a slow request of the smallest unit in flight, which holds up all later ones, to a second engine."""
        if len(self._desks) < 2:
            return
        now = time.monotonic()
        patience = {stage: self._patience(stage) for stage in Stage}
        late = [
            (desk, flight)
            for desk in self._desks
            # A desk's flights are in the order in which they were sent, and nothing younger is late.
            for flight in itertools.takewhile(
                lambda each: now - each.sent_at > self._slow_floor_s, desk.flights.values()
            )
            if now - flight.sent_at > patience[flight.task.request.key.stage]
        ]
        if not late:  # as nearly always: the smallest unit need not be looked for among tens of thousands
            return
        head = min(flight.task.request.key.unit for desk in self._desks for flight in desk.flights.values())
        for desk, flight in late:
            task = flight.task
            if task.request.key.unit != head or len(task.flights) > 1 or desk.lone is task or task.future.done():
                continue
            second = self._least_busy(other_than=desk)
            if second is not None:
                self._send(task, second)
                self.resent += 1

    def _patience(self, stage: Stage) -> float:
        """Seconds that a request of this stage may hold up the others."""
        latencies = sorted(self._latencies[stage])
        slow = latencies[int(0.95 * (len(latencies) - 1))] if latencies else 0.0
        return max(self._slow_floor_s, 3 * slow)

    def _dispatch(self) -> None:
        """Send what can be sent now. The engines are put in order once, not looked through for each request: there may
        be hundreds."""
        self._try_alone()
        self._full = self._due = False
        if self._waiting.first() is None:
            return
        free = [(len(desk.flights), place, desk) for place, desk in enumerate(self._desks) if self._has_room(desk)]
        heapq.heapify(free)
        while free and self._waiting.first() is not None:
            held, place, desk = free[0]
            self._send(self._waiting.pop(), desk)
            if held + 1 < self._slots:
                heapq.heapreplace(free, (held + 1, place, desk))
            else:
                heapq.heappop(free)
        self._full = not free

    def _try_alone(self) -> None:
        """Give the first suspect an engine of its own, once one has run empty; the others go on meanwhile."""
        if self._reserved is not None and self._reserved.lone is not None:
            return
        suspect = self._suspects.first()
        if suspect is None:
            self._reserved = None
            return
        if self._reserved is not None and self._reserved.closing:
            self._reserved = None
        if self._reserved is None:
            staying = (desk for desk in self._desks if not desk.closing)
            self._reserved = min(staying, key=lambda desk: len(desk.flights), default=None)
        if self._reserved is not None and not self._reserved.flights:
            self._reserved.lone = self._suspects.pop()
            self._send(suspect, self._reserved)

    def _least_busy(self, other_than: Desk) -> Desk | None:
        others = (desk for desk in self._desks if desk is not other_than and self._has_room(desk))
        return min(others, key=lambda desk: len(desk.flights), default=None)

    def _has_room(self, desk: Desk) -> bool:
        return desk is not self._reserved and not desk.closing and len(desk.flights) < self._slots

    def _send(self, task: Task, desk: Desk) -> None:
        call_id = next(self._numbers)
        task.flights[call_id] = desk
        desk.flights[call_id] = Flight(task, time.monotonic())
        desk.calls.append(Call(call_id, task.request))
        desk.wake.set()

    def _release(self, desk: Desk, task: Task) -> None:
        if desk.lone is task:
            desk.lone = None
            self._reserved = None

    def _convict(self, task: Task) -> None:
        """A request has ended an engine all by itself. Those that only shared its deaths are no longer suspected."""
        if not task.future.done():
            detail = "an engine process died while this was the only request on it"
            task.future.set_exception(ContentFault(Reason.ENGINE_KILLED, detail))
        for other in self._open - {task}:
            other.deaths -= task.deaths
        for suspect in self._suspects.take_all():
            self._requeue(suspect)

    def _requeue(self, task: Task) -> None:
        if not task.future.done():
            (self._suspects if len(task.deaths) >= DEATHS_BEFORE_ALONE else self._waiting).push(task)

    def _retry(self, task: Task, failed: Failed) -> None:
        task.failures += 1
        if task.flights:
            return  # a second engine still has it
        if task.failures > self._max_failures:
            task.future.set_exception(RunStopped(f"Engines failed one request too often: {failed.detail}"))
            return
        self.retries += 1
        self.last_failure = failed.detail
        wait = min(LONGEST_BACKOFF_S, self._backoff_s * 2 ** (task.failures - 1))
        asyncio.get_running_loop().call_later(wait, self._try_again, task)

    def _try_again(self, task: Task) -> None:
        self._requeue(task)
        self._dispatch()
