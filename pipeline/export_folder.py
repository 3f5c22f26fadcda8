"""A folder in the layout that the Hugging Face Hub and `datasets` read: `data/train-00000-of-00012.parquet` and a card.

The folder has its name when it is whole: until then it is a hidden one beside it, which an error or Ctrl-C removes.
"""

from __future__ import annotations

import os
import shutil
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import InputError
from pipeline.export_formats import Shape
from pipeline.export_rows import Row
from pipeline.export_split import Side, Split

BATCH = 10_000  # rows held in memory, and in a row group
DATA = "data"
MEASURED = ("instruction", "input", "output")


@dataclass
class Written:
    """What was put in a folder: rows by side, by score, by who wrote them; lengths, in characters, of its texts."""

    rows: Counter[str] = field(default_factory=Counter)
    left_out: int = 0  # for a relative on the other side
    passed_over: int = 0  # without a form
    scores: Counter[int] = field(default_factory=Counter)
    labels: Counter[bool] = field(default_factory=Counter)
    models: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)  # by recipe
    _lengths: dict[str, array[int]] = field(default_factory=lambda: {name: array("i") for name in MEASURED})

    def add(self, side: Side, row: Row) -> None:
        """Count one row."""
        self.rows[side] += 1
        self.kinds[row.recipe] += 1
        if row.score is not None:
            self.scores[row.score] += 1
        if row.label is not None:
            self.labels[row.label] += 1
        if row.model is not None:
            self.models[row.model] += 1
        for name, lengths in self._lengths.items():
            if text := getattr(row, name):
                lengths.append(len(text))

    def lengths(self, name: str) -> tuple[int, int, int, int] | None:
        """Of the texts of a field that are not empty: how many, and the characters of the median, the 95th percentile
        and the longest; None where there are none."""
        lengths = self._lengths[name]
        if not lengths:
            return None
        values = np.frombuffer(lengths, dtype=np.int32)
        half, most = (int(np.percentile(values, share, method="nearest")) for share in (50, 95))
        return len(values), half, most, int(values.max())


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A hidden folder to write to, which gets the name `path` when it is whole: where writing fails, there is none.

    Raises InputError where it cannot be made, or something has come there since.
    """
    partial = path.absolute().with_name(f".{path.absolute().name}.{os.getpid()}")
    try:
        partial.mkdir()
    except OSError as error:
        raise InputError(f"{path}: cannot be made ({error.strerror}); name another folder") from None
    try:
        yield partial
        try:
            os.rename(partial, path)  # onto nothing, or an empty folder
        except (FileExistsError, NotADirectoryError, OSError) as error:
            if path.exists():
                raise InputError(f"{path}: something else has come there meanwhile; name another folder") from None
            raise error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def require_empty(path: Path) -> None:
    """Raises InputError where a folder cannot be made under this name: nothing that is there is ever replaced."""
    try:
        there = path.exists()
        full = there and (not path.is_dir() or any(path.iterdir()))
    except OSError as error:  # a name too long, or not to be read
        raise InputError(f"{path}: cannot be a folder ({error.strerror}); name another") from None
    if full:
        raise InputError(f"{path}: there is something already and it is not replaced; name an empty or a new folder")
    if not path.absolute().parent.is_dir():
        raise InputError(f"{path}: there is no folder {path.absolute().parent}; make it, or name another")


def write_shards(folder: Path, rows: Iterable[Row], shape: Shape, split: Split, shard_rows: int) -> Written:
    """Write every row to the shards of its side, with at most `shard_rows` in each, under `folder`/data."""
    (folder / DATA).mkdir()
    written = Written()
    sides = {side: _Shards(folder / DATA, side, shape.schema, shard_rows) for side in ("train", "test")}
    try:
        for row in rows:
            side = split.side(row)
            if side is None:
                written.left_out += 1
            elif (values := shape.of(row)) is None:
                written.passed_over += 1
            else:
                written.add(side, row)
                sides[side].add(values)
    finally:
        for shards in sides.values():
            shards.close()
    for shards in sides.values():
        shards.name()
    return written


class _Shards:
    """The Parquet files of one side; how many there will be is known at the end, and then they get their names."""

    def __init__(self, folder: Path, side: str, schema: pa.Schema, shard_rows: int) -> None:
        self._folder = folder
        self._side = side
        self._schema = schema
        self._shard_rows = shard_rows
        self._files: list[Path] = []
        self._writer: pq.ParquetWriter | None = None
        self._held: list[dict[str, Any]] = []
        self._in_file = 0

    def add(self, values: dict[str, Any]) -> None:
        self._held.append(values)
        if len(self._held) == min(BATCH, self._shard_rows - self._in_file):
            self._flush()

    def close(self) -> None:
        """Write what is held and close the last file."""
        if self._held:
            self._flush()
        self._close_file()

    def name(self) -> None:
        for number, file in enumerate(self._files):
            file.rename(self._folder / f"{self._side}-{number:05d}-of-{len(self._files):05d}.parquet")

    def _flush(self) -> None:
        if self._writer is None:
            self._files.append(self._folder / f".{self._side}-{len(self._files):05d}")
            self._writer = pq.ParquetWriter(self._files[-1], self._schema, compression="zstd", write_page_index=True)
        self._writer.write_table(pa.Table.from_pylist(self._held, schema=self._schema))
        self._in_file += len(self._held)
        self._held = []
        if self._in_file == self._shard_rows:
            self._close_file()

    def _close_file(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self._writer, self._in_file = None, 0
