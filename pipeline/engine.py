"""The Engine protocol: one awaitable, Request -> Completion. And two engines as one: a writer and a judge."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from pipeline.records import Completion, Request, Stage

JUDGING = frozenset({Stage.RATIONALE, Stage.CURATION})


class Lost(StrEnum):
    """Why an engine that is paid for does less than it could."""

    LOADING = "loading"
    WINDOW = "window"  # no unit may start before an earlier one has passed the gate, or is finished
    NOVELTY = "novelty"  # the gate waits for the nearest to be found
    DRIVER = "driver"  # there is work, and it has not reached the engine yet
    TAIL = "tail"  # no unit is left to start
    REDONE = "redone"  # it worked on what died with it


class Running(Protocol):
    """What engines may ask of the run that they serve."""

    @property
    def open_units(self) -> int:
        """Units under way."""
        ...

    def holding(self) -> Lost:
        """What keeps requests from engines that have room, just now."""
        ...


class Filling:
    """A run before its first unit, while its novelty workers are filled (`Running`)."""

    open_units = 0

    def holding(self) -> Lost:
        return Lost.NOVELTY


@dataclass(frozen=True, slots=True)
class EngineUse:
    """What engines are doing, and what they have done since they were started.

    Time is that of all engines together, in seconds, from the moment each one had its room on the cluster, and it is
    whole: `seconds` is `useful` and all of `lost`, by its cause. An engine that holds half of the requests that it
    decodes at once uses half of its time.
    """

    engines: int = 0  # that may come, or are here
    ready: int = 0
    loading: int = 0
    running: int = 0  # requests that are decoded
    waiting: int = 0  # and that wait inside the engines
    kv_use: float = 0.0  # share of the KV cache in use, of engines that are ready
    prefix_queries: int = 0  # prompt tokens looked up in the prefix cache
    prefix_hits: int = 0
    generated_tokens: int = 0
    busy: float = 0.0  # seconds in which an engine had something to do, however little
    full: float = 0.0  # seconds in use, for what was lost later too
    running_s: float = 0.0  # of requests that were decoded: two for a second are two
    waiting_s: float = 0.0  # of requests that waited inside the engines
    kv_use_s: float = 0.0  # of a full KV cache: half of it in use for two seconds is one
    lost: Mapping[Lost, float] = field(default_factory=dict)

    @property
    def useful(self) -> float:
        return useful_and_all(self.time)[0]

    @property
    def seconds(self) -> float:
        return useful_and_all(self.time)[1]

    @property
    def time(self) -> dict[str, float]:
        """What a run's counters keep: seconds in use, as "full", and those lost, by their cause. Beside them stand the
        seconds with something to do and those of requests and of the KV cache, and the prefix cache's tokens."""
        return {
            "full": self.full,
            **{cause.value: self.lost.get(cause, 0.0) for cause in Lost},
            "busy": self.busy,
            "running": self.running_s,
            "waiting": self.waiting_s,
            "kv_use": self.kv_use_s,
            "prefix_queries": self.prefix_queries,
            "prefix_hits": self.prefix_hits,
        }

    def __add__(self, other: EngineUse) -> EngineUse:
        ready = self.ready + other.ready
        kv_use = (self.kv_use * self.ready + other.kv_use * other.ready) / ready if ready else 0.0
        return EngineUse(
            engines=self.engines + other.engines,
            ready=ready,
            loading=self.loading + other.loading,
            running=self.running + other.running,
            waiting=self.waiting + other.waiting,
            kv_use=kv_use,
            prefix_queries=self.prefix_queries + other.prefix_queries,
            prefix_hits=self.prefix_hits + other.prefix_hits,
            generated_tokens=self.generated_tokens + other.generated_tokens,
            busy=self.busy + other.busy,
            full=self.full + other.full,
            running_s=self.running_s + other.running_s,
            waiting_s=self.waiting_s + other.waiting_s,
            kv_use_s=self.kv_use_s + other.kv_use_s,
            lost={cause: self.lost.get(cause, 0.0) + other.lost.get(cause, 0.0) for cause in Lost},
        )


def useful_and_all(time: Mapping[str, float]) -> tuple[float, float]:
    """Seconds of useful engine time, and of all of it, out of `EngineUse.time`."""
    useful = time.get("full", 0.0) - time.get(Lost.REDONE, 0.0)
    return useful, useful + sum(time.get(cause, 0.0) for cause in Lost)


class Engine(Protocol):
    """Anything that answers requests: vLLM actors, an endpoint, a scripted fake.

    An engine answers a given Request as it will; the run is exactly reproducible when it answers it as a function of
    its content. Retries, routing and dead processes are an engine's own affair: `generate` returns a Completion, raises
    ContentFault (this request can never be answered), or raises RunStopped (no engine is left).
    """

    @property
    def capacity(self) -> int:
        """Requests that all engines hold at once, at the largest number of engines this run may have."""
        ...

    async def generate(self, request: Request) -> Completion:
        """Answer one request. Cancelling the call withdraws it."""
        ...

    def follow(self, run: Running) -> None:
        """Serve this run: how its engines' time is lost is asked of it, and at its end spare engines may go."""
        ...

    def use(self) -> EngineUse | None:
        """What the engines do; None where that is not known, as of an endpoint."""
        ...

    async def close(self) -> None:
        """Let go of everything held. Bounded in time; may follow a failed start; may be called twice."""
        ...


class _Written:
    """A run as its writer sees it. A unit asks the writer first, for all that it wants of it: when none is left to
    start, only what is asked already keeps the writer's engines (`Running`)."""

    def __init__(self, run: Running, both: WriterAndJudge) -> None:
        self._run, self._both = run, both

    @property
    def open_units(self) -> int:
        return min(self._run.open_units, self._both.written)

    def holding(self) -> Lost:
        return self._run.holding()


class WriterAndJudge:
    """Two engines as one: the judge answers what belongs to self-curation, the writer all else."""

    def __init__(self, writer: Engine, judge: Engine) -> None:
        self._writer, self._judge = writer, judge
        self.written = 0  # requests that wait for the writer

    @property
    def capacity(self) -> int:
        """The writer's: a unit begins with it, and the judge waits for what it writes."""
        return self._writer.capacity

    async def generate(self, request: Request) -> Completion:
        """Answer one request, or raise, as the engine does whose it is."""
        if request.key.stage in JUDGING:
            return await self._judge.generate(request)
        self.written += 1
        try:
            return await self._writer.generate(request)
        finally:
            self.written -= 1

    def follow(self, run: Running) -> None:
        """Both do; the writer as far as it concerns it."""
        self._writer.follow(_Written(run, self))
        self._judge.follow(run)

    def use(self) -> EngineUse | None:
        """Of both together, or of the one that knows."""
        writer, judge = self._writer.use(), self._judge.use()
        return writer + judge if writer and judge else writer or judge

    async def close(self) -> None:
        """Close both, the judge too where closing the writer raises."""
        try:
            await self._writer.close()
        finally:
            await self._judge.close()
