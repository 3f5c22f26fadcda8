"""Novelty over several processes: each worker holds a slice of the pool's texts and finds the nearest among them.

The state is the driver's: a worker is a slice of its texts and may be replaced at any time. One call of a worker is in
flight at any time. It carries what its slice has not got yet, some candidates, and the length of the pool to answer
for; so nothing is sent when a text is admitted, and a fresh process is filled by the same calls as an old one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from pipeline.errors import RunStopped
from pipeline.novelty import NoveltyIndex
from pipeline.scoring import Found

# Of one message: below what Ray carries inside a call, so that its object store is not used, in most scripts.
MOST_CHARACTERS = 80_000
MOST_TEXTS = 1_000
LONGEST_BACKOFF_S = 60.0


@dataclass(frozen=True, slots=True)
class Scores:
    """What a worker found in its slice of the first `length` texts of the pool, for each candidate in order."""

    length: int
    found: tuple[Found, ...]


class WorkerLost(Exception):
    """A worker's process is gone, out of reach, or of no use. The text says why."""


class NoveltyWorker:
    """Holds the texts at positions `first`, `first + step`, `first + 2 * step` ... of the pool. Made a Ray actor."""

    def __init__(self, first: int, step: int, tokenizer: str, floor: float) -> None:
        self._first = first
        self._step = step
        self._index = NoveltyIndex(tokenizer, floor)

    def place(self) -> None:
        """Answered as soon as the worker has its room on the cluster."""

    def nearest(self, held: int, new: Sequence[str], asked: Sequence[str], length: int) -> Scores:
        """Hold the `new` texts of the slice after the `held` ones, then find the nearest to each one `asked` among the
        slice of the first `length` texts of the pool, or of as many as are held. ValueError where `held` is wrong."""
        if held != len(self._index):
            raise ValueError(f"this worker holds {len(self._index)} texts, not {held}")
        self._index.extend(new)
        length = min(length, self._first + self._step * len(self._index))  # the position of the first text not held
        if not asked:  # more texts are to come: the lists for searching are not made yet
            return Scores(length, ())
        found = self._index.nearest_many(asked, 0, len(range(self._first, length, self._step)))
        return Scores(length, tuple(each and (self._first + self._step * each[0], each[1]) for each in found))


class WorkerHandle(Protocol):
    """One worker as the pool sees it: a Ray actor, or anything that behaves like one."""

    async def place(self) -> None:
        """Return when the worker has its room on the cluster. Raises WorkerLost where its process is gone."""
        ...

    async def nearest(self, held: int, new: Sequence[str], asked: Sequence[str], length: int) -> Scores:
        """NoveltyWorker's. Raises WorkerLost where the process is gone or the call failed."""
        ...

    def kill(self) -> None:
        """End the process at once and give its room back; fine on a dead one."""
        ...


@dataclass(eq=False, slots=True)
class _Place:
    """One of the pool's slices, whichever process holds it now."""

    first: int
    handle: WorkerHandle | None = None
    has_room: bool = False
    held: int = 0  # texts that this process has
    barren: int = 0  # processes lost in a row without an answer between


class NoveltyPool:
    """A `Scorer` over several worker processes. Lives in one event loop.

    `spawn(w)` makes a handle of the worker of positions p with p % workers == w, at once and without waiting. Texts are
    held by reference: 8 bytes each, as whoever extends has them too. A worker that is lost, says what it cannot mean or
    is silent for `timeout_s` is replaced, filled again and asked again; after `max_deaths` in a row without an answer,
    or `room_timeout_s` without room on the cluster, the run ends with RunStopped. `backoff_s` is the first wait before
    another process; it doubles, up to a minute. `note(kind, **values)` is told of every worker that is lost.
    """

    def __init__(
        self,
        spawn: Callable[[int], WorkerHandle],
        workers: int,
        *,
        max_deaths: int = 5,
        timeout_s: float = 120.0,
        room_timeout_s: float = 3600.0,
        backoff_s: float = 1.0,
        note: Callable[..., None] | None = None,
    ) -> None:
        self._spawn = spawn
        self._places = [_Place(first) for first in range(workers)]
        self._max_deaths = max_deaths
        self._timeout_s = timeout_s
        self._room_timeout_s = room_timeout_s
        self._backoff_s = backoff_s
        self._note = note or (lambda *_, **__: None)
        self._texts: list[str] = []
        self._turn = asyncio.Lock()
        self._closed = False

    @property
    def handles(self) -> tuple[WorkerHandle, ...]:
        """The handle of each worker's current process."""
        return tuple(place.handle for place in self._places if place.handle is not None)

    @property
    def without_room(self) -> int:
        """How many workers have been asked for and have no CPU yet."""
        return sum(place.handle is not None and not place.has_room for place in self._places)

    def extend(self, texts: Iterable[str]) -> None:
        """Hold texts after everything held so far. Sends nothing: the workers get them with the next question."""
        self._texts.extend(texts)

    async def start(self) -> None:
        """Have the workers made, filled with what is held and ready to search. `nearest` does so as well, if need be.

        Raises RunStopped where no worker can be had.
        """
        await self.nearest([""])

    async def nearest(self, texts: Sequence[str]) -> list[Found]:
        """The nearest of all held texts to each of these: the earliest on a tie, whatever the number of workers.

        Raises RunStopped where no worker can be had, and after `close`.
        """
        async with self._turn:
            length, parts = len(self._texts), list(_messages(texts))
            asking = [asyncio.create_task(self._ask(place, parts, length)) for place in self._places]
            try:
                slices = await asyncio.gather(*asking)
            finally:
                for task in asking:  # one has failed or we are cancelled: the others need not go on
                    task.cancel()
                await asyncio.gather(*asking, return_exceptions=True)
        return [_nearest(each) for each in zip(*slices, strict=True)]

    async def close(self) -> None:
        """End all workers. Takes no time; may be called twice. What is still asked ends with RunStopped."""
        self._closed = True
        for place in self._places:
            self._dismiss(place)

    async def _ask(self, place: _Place, parts: Sequence[tuple[str, ...]], length: int) -> list[Found]:
        """What one slice has for all parts, over as many processes as that takes."""
        found: list[Found] = []
        for part in parts:
            while True:
                try:
                    found += await self._exchange(place, part, length)
                    break
                except WorkerLost as lost:
                    await self._mourn(place, lost, len(part), length)
                except BaseException:  # cancelled: what the process has by now is not known
                    self._dismiss(place)
                    raise
            place.barren = 0
        return found

    async def _exchange(self, place: _Place, part: tuple[str, ...], length: int) -> tuple[Found, ...]:
        """Send a worker what it has not got, a bounded message at a time, the part with the last of it."""
        if self._closed:
            raise RunStopped("The novelty workers were closed.")
        if place.handle is None:
            place.handle, place.held, place.has_room = self._spawn(place.first), 0, False
            try:
                await asyncio.wait_for(place.handle.place(), self._room_timeout_s)
            except TimeoutError:
                raise RunStopped(
                    f"Novelty worker {place.first} has had no room on the cluster for {self._room_timeout_s:g} s"
                ) from None
            place.has_room = True
        step = len(self._places)
        while True:
            lacking = range(place.first + step * place.held, length, step)
            new = next(_messages(self._texts[position] for position in lacking), ())
            last = len(new) == len(lacking)
            asked = part if last else ()
            call = place.handle.nearest(place.held, new, asked, length)
            try:
                scores = await asyncio.wait_for(call, self._timeout_s)
            except TimeoutError:
                raise WorkerLost(f"it was silent for {self._timeout_s:g} s") from None
            place.held += len(new)
            _require(scores, len(asked), range(place.first, min(length, place.first + step * place.held), step))
            if last:
                return scores.found

    async def _mourn(self, place: _Place, lost: WorkerLost, asked: int, length: int) -> None:
        """Dismiss what is left of a worker, and wait a little before the next. Raises RunStopped after too many."""
        self._dismiss(place)
        if self._closed:
            raise RunStopped("The novelty workers were closed.")
        self._note("novelty_worker_lost", worker=place.first, detail=str(lost), in_flight=asked, pool=length)
        place.barren += 1
        if place.barren >= self._max_deaths:
            raise RunStopped(
                f"Novelty worker {place.first} was lost {place.barren} times in a row without an answer; the last "
                f"time: {str(lost)[:400]}"
            )
        await asyncio.sleep(min(LONGEST_BACKOFF_S, self._backoff_s * 2 ** (place.barren - 1)))

    def _dismiss(self, place: _Place) -> None:
        handle, place.handle = place.handle, None
        if handle is not None:
            handle.kill()


def _messages(texts: Iterable[str]) -> Iterator[tuple[str, ...]]:
    """The texts in order, so many at a time as one message may hold; a text of any length goes."""
    message: list[str] = []
    characters = 0
    for text in texts:
        if message and (len(message) == MOST_TEXTS or characters + len(text) > MOST_CHARACTERS):
            yield tuple(message)
            message, characters = [], 0
        message.append(text)
        characters += len(text)
    if message:
        yield tuple(message)


def _require(scores: Scores, asked: int, positions: range) -> None:
    """Raise WorkerLost unless this is an answer to so many texts, out of these positions and no others."""
    if not isinstance(scores, Scores):
        raise WorkerLost(f"it answered {str(scores)[:80]!r}")
    if scores.length != positions.stop or len(scores.found) != asked:
        raise WorkerLost(
            f"it answered for {len(scores.found)} texts and a pool of {scores.length}, not {asked} and {positions.stop}"
        )
    if any(each is not None and each[0] not in positions for each in scores.found):
        raise WorkerLost("it answered with a text of another slice")


def _nearest(found: Iterable[Found]) -> Found:
    """The largest score, and of equal ones the smallest position."""
    return max((each for each in found if each is not None), key=lambda each: (each[1], -each[0]), default=None)
