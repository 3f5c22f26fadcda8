"""`instructmill segments`: what a corpus gives, in counts, samples and, where asked for, a file of its segments."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.backtranslation_settings import CorpusSettings
from pipeline.console import clock, printable, write_line
from pipeline.errors import RunStopped
from pipeline.progress import LIVE_EVERY_S, PLAIN_EVERY_S
from pipeline.records import Segment, Unfit
from pipeline.row_files import ending
from pipeline.row_writer import require_new, terminated_as_interrupted, whole_file
from pipeline.segments import Found, SegmentReader
from pipeline.sources import Corpus, open_corpus
from pipeline.tables import evenly

SCHEMA = pa.schema([("id", pa.string()), ("origin", pa.string()), ("header", pa.string()), ("text", pa.string())])
BATCH_ROWS = 1000  # written at once
SHOWN = 200  # characters of a sample's text
MB = 1e6


def show_segments(settings: CorpusSettings, out: Path | None, samples: int) -> str:
    """Read a whole corpus, write its segments to `out`, and return the summary with `samples` segments.

    Raises InputError naming what cannot be read or written, and RunStopped where it was interrupted or storage failed;
    `out` is there when it is whole, and else not at all.
    """
    if out is not None:
        require_new(out)
    corpus = open_corpus(settings, stamped=False)
    tally = _Tally(corpus, samples)
    try:
        with terminated_as_interrupted(), ExitStack() as stack:
            writer = _Writer(stack.enter_context(whole_file(out)), ending(out)) if out is not None else None
            for found in SegmentReader(corpus, settings).read():
                tally.add(found)
                if writer is not None and found.segment is not None:
                    writer.add(found.segment)
            if writer is not None:
                writer.finish()
    except OSError as error:
        raise RunStopped(f"storage failed ({error}); nothing is written: mend it and begin anew") from None
    except KeyboardInterrupt:
        raise RunStopped("interrupted; nothing is written, and the same command begins anew") from None
    finally:
        tally.end()
    return _summary(settings, tally, out)


class _Writer:
    """Segments into a file, JSON lines or Parquet by its ending."""

    def __init__(self, stream: BinaryIO, kind: str) -> None:
        self._stream = stream
        self._rows: list[Segment] = []
        self._table = pq.ParquetWriter(stream, SCHEMA, compression="zstd") if kind == ".parquet" else None

    def add(self, segment: Segment) -> None:
        self._rows.append(segment)
        if len(self._rows) >= BATCH_ROWS:
            self._write()

    def finish(self) -> None:
        """Write what is left."""
        self._write()
        if self._table is not None:
            self._table.close()

    def _write(self) -> None:
        rows, self._rows = [asdict(segment) for segment in self._rows], []
        if self._table is not None:
            self._table.write_table(pa.Table.from_pylist(rows, schema=SCHEMA))
        else:
            self._stream.write("".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows).encode())


class _Tally:
    """Counts the pieces, keeps some to show, and draws a line about them when it is time for that."""

    def __init__(self, corpus: Corpus, samples: int) -> None:
        self.corpus = corpus
        self.counts: Counter[str] = Counter()  # pieces by reason, or "kept"
        self.documents = self.characters = self.bytes = 0
        self.first_refused: dict[Unfit, Found] = {}
        self._kept: list[dict[str, Any]] = []  # every so many-th segment, thinned out as they grow in number
        self._every = 1
        self._samples = samples
        self.shows = samples > 0
        self._began = self._drawn = time.monotonic()
        self._seconds = 0.0

    @property
    def pieces(self) -> int:
        return self.counts.total()

    @property
    def seconds(self) -> float:
        return max(self._seconds or time.monotonic() - self._began, 1e-9)

    @property
    def rate(self) -> float:
        """MB/s."""
        return self.bytes / MB / self.seconds

    def samples(self) -> list[dict[str, Any]]:
        """Some of the segments, spread evenly over all of them."""
        return evenly(self._kept, self._samples) if self._samples else []

    def add(self, found: Found) -> None:
        self.documents += found.after.piece == 0  # that was its last piece
        self.bytes += found.bytes
        if found.segment is not None:
            self.characters += len(found.segment.text)
            if self.counts["kept"] % self._every == 0:
                self._kept.append(asdict(found.segment))
            if len(self._kept) > 16 * self._samples:
                self._kept = self._kept[::2]
                self._every *= 2
        elif found.unfit is not None:
            self.first_refused.setdefault(found.unfit, found)
        self.counts[found.unfit or "kept"] += 1
        if time.monotonic() - self._drawn >= (LIVE_EVERY_S if sys.stderr.isatty() else PLAIN_EVERY_S):
            self._drawn = time.monotonic()
            kept = self.counts["kept"]
            write_line(
                f"{clock(self.seconds)}  files {found.after.file:,} of {len(self.corpus.files):,}  kept {kept:,}"
                f"  refused {self.pieces - kept:,}  {self.bytes / MB:,.1f} MB  {self.rate:,.1f} MB/s"
            )

    def end(self) -> None:
        """No more pieces come."""
        self._seconds = time.monotonic() - self._began
        if sys.stderr.isatty() and self._drawn > self._began:
            sys.stderr.write("\n")


def _summary(settings: CorpusSettings, tally: _Tally, out: Path | None) -> str:
    """What came in and where it went, in lines; kept and refused are all the pieces."""
    corpus, kept = tally.corpus, tally.counts["kept"]
    lines = [f"segments of {settings.source}"]
    lines.append(f"{'documents':<14}{tally.documents:>10,} in {len(corpus.files):,} files{_listed(corpus.passed_over)}")
    refused = {name: count for name, count in tally.counts.most_common() if name != "kept"}
    reasons = ", ".join(f"{name} {count:,}" for name, count in refused.items())
    lines.append(f"{'pieces':<14}{tally.pieces:>10,} = {kept:,} kept + {sum(refused.values()):,} refused")
    lines[-1] += f" ({reasons})" if reasons else ""
    if tally.pieces and tally.counts[Unfit.MALFORMED] == tally.pieces:
        lines[-1] += f"; no row holds a text in the field {settings.field!r}: set corpus.field"
    lines.append(f"{'characters':<14}{tally.characters:>10,} kept, {tally.characters // max(kept, 1):,} in a segment")
    lines.append(f"{'read':<14}{tally.bytes / MB:>10,.1f} MB in {tally.seconds:,.1f} s, {tally.rate:,.1f} MB/s")
    if out is not None:
        lines.append(f"{'written':<14}{kept:>10,} to {out}")
    shown = [_sample(row["id"], "kept", row["origin"], row["header"], row["text"]) for row in tally.samples()]
    if tally.shows:
        shown += [_sample(one.name, reason, "", one.header, one.text) for reason, one in tally.first_refused.items()]
    return "\n\n".join(["\n  ".join(printable(line) for line in lines), *shown])


def _listed(passed_over: dict[str, int]) -> str:
    if not passed_over:
        return ""
    endings = ", ".join(f"{ending} {count:,}" for ending, count in passed_over.items())
    return f"; {sum(passed_over.values()):,} passed over ({endings})"


def _sample(name: str, what: str, origin: str, header: str | None, text: str) -> str:
    """One piece in a few lines that are safe on a terminal."""
    text = " ".join(text.split())
    text = text if len(text) <= SHOWN else f"{text[:SHOWN]}…"
    lines = [f"{name}  {what}"]
    for label, value in (("origin", origin), ("header", header), ("text", text)):
        if value:
            lines.append(f"  {label:<8}{' '.join(value.split())}")
    return "\n".join(printable(line) for line in lines)
