"""The novelty filter alone: the rows of a file in order, each against the rows kept before it and against other files.

Memory holds the index, a name for each text in it, and one piece of the file.
"""

from __future__ import annotations

import asyncio
import shlex
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.console import clock, write_line
from pipeline.errors import InputError, RunStopped
from pipeline.novelty import TOKENIZERS, NoveltyIndex
from pipeline.novelty import tokenizer as tokenizer_of
from pipeline.progress import LIVE_EVERY_S, PLAIN_EVERY_S
from pipeline.records import Reason
from pipeline.row_files import PIECE_ROWS, ending, read_pieces
from pipeline.row_writer import RowWriter, require_new, terminated_as_interrupted
from pipeline.scoring import Batch, Found, InProcess, Scorer
from pipeline.settings import NoveltySettings
from pipeline.shards import read_manifest
from pipeline.storage import folder_at

DEFAULTS = NoveltySettings()
NOT_TEXT = "not_text"  # null, not a text, or with a lone surrogate
NEAREST = 10  # as many as the paper's code saves
ADDED = {"novel": pa.bool_(), "nearest": pa.string(), "nearest_score": pa.float64()}
ADDED_FULL = {
    "mean_score": pa.float64(),
    "most_similar": pa.list_(pa.struct([("nearest", pa.string()), ("score", pa.float64())])),
}


@dataclass(frozen=True)
class Options:
    """What `instructmill novelty` is asked to do; the command's help describes each."""

    path: Path
    field: str = "instruction"
    against: Sequence[Path] = ()
    against_field: str | None = None  # None: as `field`
    threshold: float = DEFAULTS.threshold
    floor: float = DEFAULTS.floor
    tokenizer: str = DEFAULTS.tokenizer
    workers: int = 0
    out: Path | None = None
    kept_only: bool = False
    full: bool = False
    piece_rows: int = PIECE_ROWS  # changes no result

    def check(self) -> None:
        """Raises InputError for what is wrong before any row is read."""
        if not 0 < self.threshold <= 1:
            raise InputError(f"--threshold {self.threshold}: it must lie above 0, and be 1 at most")
        if not 0 <= self.floor <= 1:
            raise InputError(f"--floor {self.floor}: it must lie between 0 and 1")
        if self.tokenizer not in TOKENIZERS:
            raise InputError(f"--tokenizer {self.tokenizer}: there is no such; there are {', '.join(TOKENIZERS)}")
        if self.full and self.workers:
            raise InputError("--full works in this process only; leave --workers out")
        if self.kept_only and self.out is None:
            raise InputError("--kept-only says what goes into the file of --out; give --out FILE too")
        if self.out is not None:
            require_new(self.out)
        for path in (self.path, *self.against):
            if path.is_dir():
                require_pool(path)


def require_pool(folder: Path) -> None:
    """Raises InputError where a folder holds a round of curate, which has no pool to look at."""
    manifest = read_manifest(folder_at(folder)) or {}
    if manifest.get("config", {}).get("recipe") == "curate":
        raise InputError(
            f"{folder}: a round of curate has no pool, so there is nothing here to look at; export its rows and give "
            f"that file: `instructmill export {shlex.quote(str(folder))} rows.jsonl --format alpaca`, then "
            "`instructmill novelty rows.jsonl --out novel.jsonl --kept-only`"
        )


@dataclass(frozen=True)
class Judged:
    """Of a row: why it is refused, or None; the nearest held and its F; with `full`, what there is of all held."""

    reason: str | None
    nearest: str | None = None
    nearest_score: float | None = None
    mean_score: float | None = None
    most_similar: list[dict[str, Any]] | None = None

    @property
    def novel(self) -> bool:
        return self.reason is None


class Filter:
    """Judges texts in order and holds what it keeps. The nearest is looked for down to `floor` or the threshold."""

    def __init__(self, options: Options, scorer: Scorer | None) -> None:
        """Without a scorer every text is compared with all that is held, for `Options.full`."""
        self.threshold = options.threshold
        self.floor = min(options.floor, options.threshold)
        self.names: list[str] = []  # of what is held, by position
        self._tokenizer = options.tokenizer
        self._tokens_of = tokenizer_of(options.tokenizer)
        self._scorer = scorer
        self._index = NoveltyIndex(options.tokenizer)  # of all that is held, where there is no scorer

    def hold(self, names: Sequence[str], texts: Sequence[Any]) -> int:
        """Hold these whatever they are near to; returns how many were passed over because they hold no text."""
        held = [(name, text) for name, text in zip(names, texts, strict=True) if self._unfit(text) is None]
        self.names += [name for name, _ in held]
        (self._scorer or self._index).extend(text for _, text in held)
        return len(names) - len(held)

    async def judge(self, names: Sequence[str], texts: Sequence[Any]) -> list[Judged]:
        """Each text in order against all that is held; what is novel is held then, under its name."""
        unfit = [self._unfit(text) for text in texts]
        if self._scorer is None:
            return await asyncio.to_thread(self._judge_all, names, texts, unfit, self._look_at_all, self._index.add)
        asked = list(dict.fromkeys(text for text, why in zip(texts, unfit, strict=True) if why is None))
        found = dict(zip(asked, await self._scorer.nearest(asked), strict=True)) if asked else {}
        batch = Batch(self._tokenizer, self.floor, len(self.names))
        kept: list[str] = []

        def look(text: str) -> Judged:
            return self._judged(batch.nearest(text, found[text]))

        def keep(text: str) -> None:
            batch.keep(text)
            kept.append(text)

        judged = self._judge_all(names, texts, unfit, look, keep)
        self._scorer.extend(kept)
        return judged

    def _judge_all(
        self,
        names: Sequence[str],
        texts: Sequence[Any],
        unfit: Sequence[str | None],
        look: Callable[[str], Judged],
        keep: Callable[[str], object],
    ) -> list[Judged]:
        judged = []
        for name, text, why in zip(names, texts, unfit, strict=True):
            judged.append(Judged(why) if why else look(text))
            if judged[-1].novel:
                keep(text)
                self.names.append(name)
        return judged

    def _judged(self, found: Found, mean: float | None = None, most: list[dict[str, Any]] | None = None) -> Judged:
        if found is None:
            return Judged(None, None, None, mean, most)
        reason = Reason.NOT_NOVEL if found[1] > self.threshold else None  # exactly the threshold is kept
        return Judged(reason, self.names[found[0]], found[1], mean, most)

    def _look_at_all(self, text: str) -> Judged:
        scores = self._index.scores(text)
        if not len(scores):
            return Judged(None, most_similar=[])
        least = np.partition(scores, -NEAREST)[-NEAREST] if len(scores) > NEAREST else 0.0
        places = np.flatnonzero(scores >= least)
        places = places[np.argsort(-scores[places], kind="stable")][:NEAREST].tolist()
        best = places[0], float(scores[places[0]])
        most = [{"nearest": self.names[place], "score": float(scores[place])} for place in places]
        return self._judged(best if best[1] > 0 and best[1] >= self.floor else None, float(np.mean(scores)), most)

    def _unfit(self, text: object) -> str | None:
        """Why this cannot be compared with anything; None where it can."""
        if not isinstance(text, str) or not _is_unicode(text):
            return NOT_TEXT
        return None if self._tokens_of(text) else Reason.NO_TOKENS


def _is_unicode(text: str) -> bool:
    try:
        return text.isascii() or bool(text.encode())
    except UnicodeEncodeError:
        return False


class Tally:
    """Counts the rows, and draws a line about them when it is time for that."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()  # rows by reason, or "novel"
        self.began = self._drawn = time.monotonic()

    @property
    def rows(self) -> int:
        return self.counts.total()

    @property
    def seconds(self) -> float:
        return max(time.monotonic() - self.began, 1e-9)

    def add(self, judged: Sequence[Judged]) -> None:
        """Count the rows of a piece."""
        self.counts.update(each.reason or "novel" for each in judged)
        if time.monotonic() - self._drawn >= (LIVE_EVERY_S if sys.stderr.isatty() else PLAIN_EVERY_S):
            self._drawn = time.monotonic()
            refused = self.rows - self.counts["novel"]
            rate = self.rows / self.seconds
            write_line(f"{clock(self.seconds)}  rows {self.rows:,}  refused {refused:,}  {rate:,.0f} rows/s")

    def end(self) -> None:
        """No more rows come."""
        if sys.stderr.isatty() and self._drawn > self.began:
            sys.stderr.write("\n")


def filter_file(options: Options) -> str:
    """Filter a file as `options` say, write `options.out`, and return the summary.

    Raises InputError naming file and row, and RunStopped where it could not go to the end; what was written by then
    stays, and the sentence says how many rows that is.
    """
    options.check()
    added = {**ADDED, **(ADDED_FULL if options.full else {})} if options.out else {}
    writer = RowWriter(options.out, options.path, options.field, added) if options.out else None
    tally = Tally()
    try:
        with (
            terminated_as_interrupted(),
            scorer_for(options.tokenizer, min(options.floor, options.threshold), options.workers) as scorer,
        ):
            held = asyncio.run(_filter(options, scorer, writer, tuple(added), tally))
    except InputError as error:
        raise InputError(f"{error}{_written(writer)}") from None
    except OSError as error:
        raise RunStopped(f"storage failed ({error}){_written(writer, failed=True)}; mend it and begin anew") from None
    except KeyboardInterrupt:
        raise RunStopped(f"interrupted{_written(writer)}; the same command begins anew, with another --out") from None
    finally:
        tally.end()
    return _summary(options, tally, held, writer)


async def _filter(
    options: Options, scorer: Scorer, writer: RowWriter | None, added: Sequence[str], tally: Tally
) -> tuple[int, int]:
    """Returns how many rows of `options.against` are held, and how many held no text."""
    filter = Filter(options, None if options.full else scorer)
    passed_over = 0
    try:
        for path in options.against:
            for piece in read_pieces(path, options.against_field or options.field, size=options.piece_rows):
                names = piece.names if path.is_dir() else [f"{path}:{name}" for name in piece.names]
                passed_over += filter.hold(names, piece.texts)
        held = len(filter.names)
        for piece in read_pieces(options.path, options.field, added, options.piece_rows):
            judged = await filter.judge(piece.names, piece.texts)
            if writer is not None:
                columns = {name: [getattr(each, name) for each in judged] for name in added}
                writer.write(piece, columns, [each.novel or not options.kept_only for each in judged])
            tally.add(judged)
        if writer is not None:
            writer.finish()
    finally:
        try:
            if writer is not None:
                writer.close()
        finally:
            await scorer.close()
    return held, passed_over


@contextmanager
def scorer_for(tokenizer: str, floor: float, workers: int) -> Iterator[Scorer]:
    """Who looks for the nearest: this process, or workers on the Ray cluster."""
    if not workers:
        yield InProcess(tokenizer, floor)
        return
    from pipeline import launch

    with launch.novelty_scorer(tokenizer, floor, workers) as scorer:
        yield scorer


def _written(writer: RowWriter | None, failed: bool = False) -> str:
    """What a file holds that was not written to the end, after what went wrong."""
    if writer is None or not writer.rows:
        return ""
    if failed and ending(writer.path) == ".parquet":  # it is whole only when closed
        return f"; {writer.path} is not whole"
    return f"; {writer.path} holds the {writer.rows:,} rows written before"


def _summary(options: Options, tally: Tally, held: tuple[int, int], writer: RowWriter | None) -> str:
    """What came in and where it went, in lines; novel and refused are all the rows."""
    counts = tally.counts
    refused = counts.total() - counts["novel"]
    reasons = ", ".join(f"{reason} {count:,}" for reason, count in counts.most_common() if reason != "novel")
    lines = [f"{options.field} of {options.path}, refused above {options.threshold}"]
    if options.against:
        without = f", {held[1]:,} without text passed over" if held[1] else ""
        lines.append(f"{'against':<14}{held[0]:>10,} of {', '.join(map(str, options.against))}{without}")
    lines.append(f"{'rows':<14}{tally.rows:>10,} = {counts['novel']:,} novel + {refused:,} refused")
    lines[-1] += f" ({reasons})" if reasons else ""
    if writer is not None:
        lines.append(f"{'written':<14}{writer.rows:>10,} to {writer.path}")
    lines.append(f"{'time':<14}{clock(tally.seconds):>10}, {tally.rows / tally.seconds:,.0f} rows/s")
    return "\n  ".join(lines)
