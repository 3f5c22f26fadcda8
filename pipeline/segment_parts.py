"""The parts in which a run keeps its segments: their records, and what the next one holds.

By the shard rules: a part's Parquet file becomes visible first, its record last. A record tells how far the corpus was
read and what came of it, so that a resume reads the parts and goes on with the corpus there.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from pipeline.errors import InputError
from pipeline.records import Segment
from pipeline.segments import Found, Place, SegmentReader
from pipeline.shards import encode, read_table, records
from pipeline.sources import Corpus
from pipeline.storage import Place as RunPlace
from pipeline.storage import folder_at

FOLDER = ".run/segments"


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


@dataclass(frozen=True)
class NextPart:
    """A part before it is written: how many segments it holds, as a Parquet file; the rest is that of its record."""

    kept: int
    after: dict[str, int]
    tally: dict[str, Any]
    at_end: bool
    content: bytes = b""


class PartReader:
    """Reads a corpus on, one part after the other, from after the first `many` of a run."""

    def __init__(self, corpus: Corpus, place: RunPlace, many: int) -> None:
        """Looks through the segments of these, which later ones may be duplicates of.

        Raises InputError where parts are damaged.
        """
        reader, parts = SegmentReader(corpus, corpus.settings), read_parts(place, many)
        for part in parts:
            reader.remember(segment.text for segment in read_segments(place, part))
        self.parts = many  # that there are before the next one
        self._after = Place(**parts[-1].after) if parts else Place()
        self._tally = tally(parts)
        self._found = reader.read(self._after)

    def read(self, rows: int, seconds: float) -> NextPart:
        """The next part: so many segments, or what was found in so many seconds. Raises InputError naming a file that
        cannot be read."""
        began, kept, at_end = time.monotonic(), list[Segment](), True
        for found in self._found:
            self._tally.add(found)
            self._after = found.after
            if found.segment is not None:
                kept.append(found.segment)
            if len(kept) >= rows or time.monotonic() - began >= seconds:
                at_end = False
                break
        self.parts += 1
        told = {**asdict(self._tally), "refused": dict(sorted(self._tally.refused.items()))}
        return NextPart(len(kept), asdict(self._after), told, at_end, encode("segments", kept, {}) if kept else b"")


def read_segments(place: RunPlace, part: Part) -> list[Segment]:
    """The segments of a part. Raises InputError where they are not those of its record."""
    if part.file is None:
        return []
    folder = folder_at(place)
    rows = read_table(folder, f"{FOLDER}/{part.file}", "segments").to_pylist()
    if len(rows) != part.end - part.first:
        raise InputError(f"{folder}/{FOLDER}/{part.file}: other rows than its record counts: damaged")
    return [Segment(**row) for row in rows]


def read_parts(place: RunPlace, many: int | None = None) -> list[Part]:
    """The records of a run's segments in order, or the first so many. Raises InputError when one is missing or cannot
    be read."""
    folder = folder_at(place)
    parts: list[Part] = []
    for number, name in enumerate(records(folder, FOLDER)[:many]):
        path = f"{folder}/{name}"
        try:
            part = Part(**json.loads(folder.read(name)))
        except (ValueError, TypeError) as error:
            raise InputError(f"{path}: not a record of segments ({error}); the run folder is damaged") from None
        if part.number != number or part.first != (parts[-1].end if parts else 0):
            raise InputError(f"{path}: the record before it is missing; the run folder is damaged")
        parts.append(part)
    return parts


def tally(parts: Sequence[Part]) -> Tally:
    """What was read, as the last part's record says."""
    last = parts[-1].tally if parts else {}
    return Tally(**{**last, "refused": Counter(last.get("refused", {}))})


def tally_of(place: RunPlace) -> Tally | None:
    """What a run has read of its corpus so far; None for a run without one."""
    parts = read_parts(place)
    return tally(parts) if parts else None
