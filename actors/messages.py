"""What an engine pool and an engine say to each other: plain frozen values, and the interface between the two.

One `exchange` per engine is in flight at any time. It carries new calls and withdrawals in, finished answers and the
engine's gauges out, and returns within three seconds: its cost for the driver hardly depends on what it carries, up to
100 KiB.
"""

from __future__ import annotations

import copyreg
import pickle
from collections.abc import Callable
from dataclasses import dataclass, fields
from operator import attrgetter
from typing import Any, Protocol

import pyarrow as pa

from pipeline.records import Completion, Message, Request, RequestKey, Sampling


@dataclass(frozen=True, slots=True)
class Call:
    """One attempt at a request on one engine. `id` is unique within a pool and is never used again."""

    id: int
    request: Request


@dataclass(frozen=True, slots=True)
class Refused:
    """The engine will never answer this request (too long, malformed). `detail` depends on its content alone."""

    detail: str


@dataclass(frozen=True, slots=True)
class Failed:
    """The engine could not answer this time; the same request may be asked again."""

    detail: str


@dataclass(frozen=True, slots=True)
class Answer:
    """How one call ended. A withdrawn call has no answer."""

    id: int
    outcome: Completion | Refused | Failed


@dataclass(frozen=True, slots=True)
class Gauges:
    """What an engine process says of its work. Counts of tokens and seconds are since it was loaded."""

    running: int = 0  # requests that it decodes
    waiting: int = 0  # requests in its own queue
    generated_tokens: int = 0  # those of unfinished requests included
    prompt_tokens: int = 0  # read, or found in the prefix cache
    prefix_queries: int = 0  # prompt tokens looked up in the prefix cache
    prefix_hits: int = 0  # and found there
    kv_use: float = 0.0  # share of the KV cache in use
    busy_s: float = 0.0  # it had something to do


@dataclass(frozen=True, slots=True)
class News:
    """What an exchange brings back."""

    answers: tuple[Answer, ...]
    gauges: Gauges


@dataclass(frozen=True, slots=True)
class Where:
    """Where an actor runs, and by which code: the host's name, the cores that its process may use, Ray's id of the
    node, and `code_hash`."""

    host: str
    cores: tuple[int, ...]
    node: str = ""
    code: str = ""


@dataclass(frozen=True, slots=True)
class Ready:
    """A loaded engine: what it is and which process to look for."""

    version: str
    model: str
    max_model_len: int
    pid: int
    host: str
    cores: tuple[int, ...]
    load_s: float


@dataclass(frozen=True, slots=True)
class StartFailure:
    """An engine that could not be loaded. `configuration` tells a wrong option from a machine in trouble."""

    detail: str
    configuration: bool


@dataclass(frozen=True, slots=True)
class Pulse:
    """What an engine tells about itself at any time, also while it loads."""

    pid: int
    ready: bool
    unfinished: int
    steps: int


class EngineLost(Exception):
    """An engine process is gone or out of reach, and with it whatever was in flight there.

    `blameless` says that nothing in a request can have caused it: its machine went, or it was unreachable;
    `configuration` that another try would end no better.
    """

    def __init__(self, detail: str, blameless: bool = False, configuration: bool = False) -> None:
        super().__init__(detail)
        self.detail = detail
        self.blameless = blameless
        self.configuration = configuration


class EngineHandle(Protocol):
    """One engine as the pool sees it: a Ray actor, or anything that behaves like one. Its life is one start.

    Every method but `close` raises EngineLost once the engine is gone.
    """

    async def place(self) -> Where:
        """Return when the engine has its room on the cluster, which may take for ever."""
        ...

    async def start(self) -> Ready | StartFailure:
        """Load the model."""
        ...

    async def exchange(self, calls: tuple[Call, ...], withdrawn: tuple[int, ...], hold_s: float) -> News:
        """Hand over calls and withdrawals; return what has finished since, within `hold_s` seconds or little more.

        An engine that has more requests than it decodes at once may gather for that long (`Gathering`)."""
        ...

    async def close(self, at_once: bool = False) -> None:
        """End the process and give its room back, `at_once` where there is nothing left in it to tidy. Bounded in time;
        fine on a dead or half-started engine."""
        ...


def _constructed(kind: type) -> Callable[[Any], tuple[type, tuple[Any, ...]]]:
    values = attrgetter(*(field.name for field in fields(kind)))
    return lambda value: (kind, values(value))


_LZ4 = pa.Codec("lz4")


class Packed:
    """Calls or answers on their way between two processes; the tuple of them comes out.

    The prompts of a stage have most of their text in common. Compressed, what an exchange carries stays under the 100
    KiB up to which Ray sends values along; what is larger goes through its object store, at twice the cost. What
    unpickles them is what unpickles all that Ray carries between a driver and its own actors.
    """

    def __init__(self, sent: tuple[Call, ...] | tuple[Answer, ...]) -> None:
        self._sent = sent

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[bytes, int]]:
        plain = pickle.dumps(self._sent)
        return _unpacked, (_LZ4.compress(plain, asbytes=True), len(plain))


def _unpacked(packed: bytes, size: int) -> Any:
    return pickle.loads(_LZ4.decompress(packed, size, asbytes=True))


# What every exchange carries is pickled as calls of constructors: half the time that frozen classes with slots take.
for _sent in (Call, Answer, Gauges, Request, RequestKey, Sampling, Message, Completion):
    copyreg.pickle(_sent, _constructed(_sent))
copyreg.pickle(News, lambda news: (News, (Packed(news.answers), news.gauges)))
