"""The kept segments of a run, written once and in order to `.run/segments/`: what the units of backtranslation are.

By the shard rules: a part's Parquet file becomes visible first, its record last. A record tells how far the corpus was
read and what came of it, so that a resume reads the parts and goes on with the corpus there.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from pipeline.errors import InputError, RunStopped
from pipeline.records import Segment
from pipeline.segments import Found, Place, SegmentReader
from pipeline.shards import encode, read_table, records
from pipeline.storage import Place as RunPlace
from pipeline.storage import claim, folder_at

FOLDER = ".run/segments"
PART_ROWS = 1000
PART_SECONDS = 5.0


@dataclass
class Tally:
    """What was read of the corpus so far: pieces = kept + refused."""

    pieces: int = 0
    kept: int = 0
    characters: int = 0  # of the kept
    bytes: int = 0
    refused: Counter[str] = field(default_factory=Counter)  # by reason

    def add(self, found: Found) -> None:
        self.pieces += 1
        self.bytes += found.bytes
        if found.segment is not None:
            self.kept += 1
            self.characters += len(found.segment.text)
        elif found.unfit is not None:
            self.refused[found.unfit] += 1


@dataclass(frozen=True)
class Part:
    """One record: segments [first, end) and their file (None where none was kept), the place in the corpus after them,
    the tally from the beginning, and whether the corpus is at its end."""

    number: int
    first: int
    end: int
    file: str | None
    sha256: str | None
    after: dict[str, int]
    tally: dict[str, Any]
    at_end: bool


class SegmentStore:
    """The units of a run over a corpus, called for one after the other. Reads a part ahead of what is asked for."""

    def __init__(self, place: RunPlace, reader: SegmentReader, attempt: int, size: int = 0) -> None:
        """`size` is that of the corpus in bytes, 0 where it is not known. Raises InputError where parts are damaged."""
        self._size = size
        self._folder = folder_at(place)
        self._reader = reader
        self._attempt = attempt
        self._parts = read_parts(self._folder)
        self._found: Iterator[Found] | None = None
        self._tally = _tally(self._parts[-1]) if self._parts else Tally()
        self._held: tuple[int, list[Segment]] = (0, [])  # the part being handed out, and its first unit
        self._ahead: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def tally(self) -> Tally:
        """What was read so far, as the last part's record says."""
        return _tally(self._parts[-1]) if self._parts else Tally()

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
            first, segments = self._held = self._load(unit)
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
        self._closed = True
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
        """Read the corpus on for one part, and make it visible."""
        if self._found is None:
            for part in self._parts:
                self._reader.remember(segment.text for segment in self._segments(part))
            place = Place(**self._parts[-1].after) if self._parts else Place()
            self._found = self._reader.read(place)
        began, kept, after, at_end = time.monotonic(), list[Segment](), None, True
        for found in self._found:
            if self._closed:
                raise RunStopped("stopped while the corpus was read")
            self._tally.add(found)
            after = found.after
            if found.segment is not None:
                kept.append(found.segment)
            if len(kept) >= PART_ROWS or time.monotonic() - began >= PART_SECONDS:
                at_end = False
                break
        if after is None:
            after = Place(**self._parts[-1].after) if self._parts else Place()
        self._parts.append(self._record(kept, after, at_end))

    def _record(self, kept: list[Segment], after: Place, at_end: bool) -> Part:
        number, first = len(self._parts), self._parts[-1].end if self._parts else 0
        name, digest = None, None
        if kept:
            suffix = f"-a{self._attempt}" if self._attempt > 1 else ""
            name, content = f"segments-{number:06d}{suffix}.parquet", encode("segments", kept, {})
            digest = hashlib.sha256(content).hexdigest()
            self._folder.write(f"{FOLDER}/{name}", content)
        tally = {**asdict(self._tally), "refused": dict(sorted(self._tally.refused.items()))}
        part = Part(number, first, first + len(kept), name, digest, asdict(after), tally, at_end)
        text = json.dumps(asdict(part), indent=1) + "\n"
        record = f"{FOLDER}/{number:06d}.json"
        if not claim(self._folder, record, text.encode()):
            if name is not None:
                self._folder.remove(f"{FOLDER}/{name}")
            raise RunStopped(
                f"{self._folder}: another process has written part {number} of the segments; this one ends"
            )
        return part

    def _load(self, unit: int) -> tuple[int, list[Segment]]:
        part = next(part for part in self._parts if part.first <= unit < part.end)
        return part.first, self._segments(part)

    def _segments(self, part: Part) -> list[Segment]:
        if part.file is None:
            return []
        rows = read_table(self._folder, f"{FOLDER}/{part.file}", "segments").to_pylist()
        if len(rows) != part.end - part.first:
            raise InputError(f"{self._folder}/{FOLDER}/{part.file}: other rows than its record counts: damaged")
        return [Segment(**row) for row in rows]


def none_kept(refused: Counter[str]) -> InputError:
    """What is said of a corpus that holds no segment at all."""
    reasons = ", ".join(f"{reason} {count:,}" for reason, count in refused.most_common())
    why = f" ({reasons}); `instructmill segments` shows some of them" if reasons else ""
    return InputError(f"corpus.source: none of its {refused.total()} pieces is kept{why}")


def read_parts(place: RunPlace) -> list[Part]:
    """The records of a run's segments in order. Raises InputError when one is missing or cannot be read."""
    folder = folder_at(place)
    parts: list[Part] = []
    for number, name in enumerate(records(folder, FOLDER)):
        path = f"{folder}/{name}"
        try:
            part = Part(**json.loads(folder.read(name)))
        except (ValueError, TypeError) as error:
            raise InputError(f"{path}: not a record of segments ({error}); the run folder is damaged") from None
        if part.number != number or part.first != (parts[-1].end if parts else 0):
            raise InputError(f"{path}: the record before it is missing; the run folder is damaged")
        parts.append(part)
    return parts


def tally_of(place: RunPlace) -> Tally | None:
    """What a run has read of its corpus so far; None for a run without one."""
    parts = read_parts(place)
    return _tally(parts[-1]) if parts else None


def _tally(part: Part) -> Tally:
    return Tally(**{**part.tally, "refused": Counter(part.tally["refused"])})
