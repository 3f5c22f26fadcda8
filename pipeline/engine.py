"""The Engine protocol: one awaitable, Request -> Completion. And two engines as one: a writer and a judge."""

from __future__ import annotations

from typing import Protocol

from pipeline.records import Completion, Request, Stage

JUDGING = frozenset({Stage.RATIONALE, Stage.CURATION})


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

    async def close(self) -> None:
        """Let go of everything held. Bounded in time; may follow a failed start; may be called twice."""
        ...


class WriterAndJudge:
    """Two engines as one: the judge answers what belongs to self-curation, the writer all else."""

    def __init__(self, writer: Engine, judge: Engine) -> None:
        self._writer, self._judge = writer, judge

    @property
    def capacity(self) -> int:
        """The writer's: a unit begins with it, and the judge waits for what it writes."""
        return self._writer.capacity

    async def generate(self, request: Request) -> Completion:
        """Answer one request, or raise, as the engine does whose it is."""
        engine = self._judge if request.key.stage in JUDGING else self._writer
        return await engine.generate(request)

    async def close(self) -> None:
        """Close both, the judge too where closing the writer raises."""
        try:
            await self._writer.close()
        finally:
            await self._judge.close()
