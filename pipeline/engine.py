"""The Engine protocol: one awaitable, Request -> Completion."""

from __future__ import annotations

from typing import Protocol

from pipeline.records import Completion, Request


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
