"""The kept segments of a run, written once and in order to `.run/segments/`: what the units of backtranslation are."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict

from pipeline.errors import InputError, RunStopped
from pipeline.records import Segment
from pipeline.segment_parts import FOLDER, NextPart, Part, Tally, read_parts, read_segments, tally
from pipeline.segment_process import CorpusProcess
from pipeline.sources import Corpus
from pipeline.storage import Place, claim, folder_at

PART_ROWS = 1000
PART_SECONDS = 5.0


class SegmentStore:
    """The units of a run over a corpus, called for one after the other. Reads a part ahead of what is asked for."""

    def __init__(
        self, place: Place, corpus: Corpus, attempt: int, note: Callable[..., None] = lambda *_, **__: None
    ) -> None:
        """Raises InputError where parts are damaged. `note`: see CorpusProcess."""
        self._size = corpus.bytes  # 0 where it is not known
        self._folder = folder_at(place)
        self._process = CorpusProcess(corpus, self._folder, note)
        self._attempt = attempt
        self._parts = read_parts(self._folder)
        self._held: tuple[int, list[Segment]] = (0, [])  # the part being handed out, and its first unit
        self._ahead: asyncio.Task[None] | None = None

    @property
    def tally(self) -> Tally:
        """What was read so far, as the last part's record says."""
        return tally(self._parts)

    @property
    def at_end(self) -> bool:
        """Whether the whole corpus is read."""
        return bool(self._parts) and self._parts[-1].at_end

    @property
    def total(self) -> tuple[int, bool] | None:
        """Segments in all; until the corpus is read, by the share of its bytes that is."""
        tally = self.tally
        if self.at_end:
            return tally.kept, True
        if not self._size or not tally.bytes:
            return None
        return round(tally.kept * max(self._size / tally.bytes, 1.0)), False

    async def __call__(self, unit: int) -> Segment | None:
        """The segment of a unit; None where there are no more.

        Raises InputError where the corpus cannot be read on, or has been read to its end and holds no segment at all.
        """
        while not self._has(unit):
            if self.at_end:
                if not self.tally.kept:
                    raise none_kept(self.tally.refused)
                return None
            await asyncio.shield(self._begin())  # who waits may be cancelled; `close` waits for what is read
        first, segments = self._held
        if not first <= unit < first + len(segments):
            part = next(part for part in self._parts if part.first <= unit < part.end)
            first, segments = self._held = part.first, await asyncio.to_thread(read_segments, self._folder, part)
        if not self.at_end and unit >= self._parts[-1].first:
            self._begin()
        return segments[unit - first]

    def require_sums(self, units: int) -> None:
        """Raises RunStopped where a run that is at the corpus's end has not made every segment a unit, or where a piece
        is neither a segment nor refused: text was lost or doubled, which must never happen."""
        tally = self.tally
        if self.at_end and (tally.kept != units or tally.pieces != tally.kept + tally.refused.total()):
            raise RunStopped(
                f"the counts do not add up: {tally.pieces} pieces, {tally.kept} segments + {tally.refused.total()} "
                f"refused, {units} units; this is a bug, report it"
            )

    async def close(self) -> None:
        """Stop reading. A part that is half read is not written."""
        await asyncio.to_thread(self._process.close)
        if self._ahead is not None:
            await asyncio.gather(self._ahead, return_exceptions=True)

    def _has(self, unit: int) -> bool:
        return bool(self._parts) and unit < self._parts[-1].end

    def _begin(self) -> asyncio.Task[None]:
        """Have the next part read, unless it is being read or could not be."""
        if self._ahead is None or (self._ahead.done() and not self._ahead.exception()):
            self._ahead = asyncio.create_task(asyncio.to_thread(self._write_part))
        return self._ahead

    def _write_part(self) -> None:
        """Have the corpus read on for one part, and make it visible."""
        self._parts.append(self._written(self._process.read(len(self._parts), PART_ROWS, PART_SECONDS)))

    def _written(self, fresh: NextPart) -> Part:
        number, first = len(self._parts), self._parts[-1].end if self._parts else 0
        name, digest = None, None
        if fresh.kept:
            suffix = f"-a{self._attempt}" if self._attempt > 1 else ""
            name = f"segments-{number:06d}{suffix}.parquet"
            digest = hashlib.sha256(fresh.content).hexdigest()
            self._folder.write(f"{FOLDER}/{name}", fresh.content)
        part = Part(number, first, first + fresh.kept, name, digest, fresh.after, fresh.tally, fresh.at_end)
        text = json.dumps(asdict(part), indent=1) + "\n"
        record = f"{FOLDER}/{number:06d}.json"
        if not claim(self._folder, record, text.encode()):
            if name is not None:
                self._folder.remove(f"{FOLDER}/{name}")
            raise RunStopped(
                f"{self._folder}: another process has written part {number} of the segments; this one ends"
            )
        return part


def none_kept(refused: Counter[str]) -> InputError:
    """What is said of a corpus that holds no segment at all."""
    reasons = ", ".join(f"{reason} {count:,}" for reason, count in refused.most_common())
    why = f" ({reasons}); `instructmill segments` shows some of them" if reasons else ""
    return InputError(f"corpus.source: none of its {refused.total()} pieces is kept{why}")
