"""Who looks for the nearest: an index in this process, or workers that hold a slice each (`actors/novelty_pool.py`).

A scorer holds texts in order; a snapshot is a length. What is admitted in one batch is compared in `Batch`, so that a
batch scored against a snapshot is judged exactly as one text after the other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Protocol

from pipeline.novelty import NoveltyIndex

Found = tuple[int, float] | None
"""Position and ROUGE-L F of the nearest text, the earliest on a tie; None where none reaches the floor."""


class Scorer(Protocol):
    """Texts by position in order of adding. `add` and `extend` return at once and are not called during `nearest`."""

    def extend(self, texts: Iterable[str]) -> None:
        """Hold texts after everything held so far."""
        ...

    async def nearest(self, texts: Sequence[str]) -> list[Found]:
        """The nearest of all held texts to each of these. Raises RunStopped where no worker can be had."""
        ...

    async def close(self) -> None:
        """Let go of everything held. Bounded in time; may be called twice."""
        ...


class InProcess:
    """A scorer in this process, in a thread beside the event loop."""

    def __init__(self, tokenizer: str, floor: float) -> None:
        self._index = NoveltyIndex(tokenizer, floor)

    def extend(self, texts: Iterable[str]) -> None:
        self._index.extend(texts)

    async def nearest(self, texts: Sequence[str]) -> list[Found]:
        return await asyncio.to_thread(self._index.nearest_many, texts)

    async def close(self) -> None:
        return


class Batch:
    """What was kept of one batch so far: with what a scorer found before the batch, the nearest of all."""

    def __init__(self, tokenizer: str, floor: float, length: int) -> None:
        """`length` is the number of texts that the scorer held when it scored the batch."""
        self._index = NoveltyIndex(tokenizer, floor)
        self._length = length

    def nearest(self, text: str, before: Found) -> Found:
        """The nearest of what the scorer held and what was kept since; the earlier one on a tie."""
        since = self._index.nearest(text)
        if since is None or (before is not None and before[1] >= since[1]):
            return before
        return self._length + since[0], since[1]

    def keep(self, text: str) -> None:
        """Hold a text of this batch."""
        self._index.add(text)
