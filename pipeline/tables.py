"""The tables of a run as views: filtered, counted, and taken as Arrow, pandas, Polars or a data set, file by file."""

from __future__ import annotations

import hashlib
import importlib
import os
import re
import secrets
from bisect import bisect_left
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from numbers import Integral, Real
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import InputError
from pipeline.records import Reason
from pipeline.shards import SCHEMA_VERSION, SCHEMAS, Commit, ShardFile, read_table
from pipeline.storage import HIDDEN, Folder

T = TypeVar("T")

BATCH_ROWS = 10_000
_TITLES = {"data": "examples", "pool": "pool", "rejected": "rejects"}


@dataclass(frozen=True)
class _Filter:
    """What one `where` asks of a row; None asks nothing. `id_units` are the units that `ids` name, in order."""

    reasons: tuple[str, ...] | None = None
    scores: tuple[int, ...] | None = None
    min_score: float | None = None
    units: tuple[int, int] | None = None
    parent: str | None = None
    ids: tuple[str, ...] | None = None
    id_units: tuple[int, ...] | None = None
    source: str | None = None

    def columns(self, kind: str) -> list[str]:
        """The columns that it looks at."""
        asked = {
            "reason": self.reasons is not None,
            "score": self.scores is not None or self.min_score is not None,
            "unit": self.units is not None,
            "parents": self.parent is not None,
            "instruction_id": self.ids is not None,
            "id": self.ids is not None and kind != "pool",
            "source": self.source is not None,
        }
        return [name for name, is_asked in asked.items() if is_asked]

    def may_be_in(self, commit: Commit) -> bool:
        """Whether the commit's units leave room for a row of it."""
        first, end = self.units or (commit.first, commit.end)
        if first >= commit.end or end <= commit.first:
            return False
        named = self.id_units
        return named is None or bisect_left(named, commit.first) < bisect_left(named, commit.end)

    def mask(self, table: pa.Table) -> pa.ChunkedArray | pa.Array:
        """Which rows of a table it keeps."""
        kept = pa.array(np.ones(len(table), dtype=bool))
        for column, values in (("reason", self.reasons), ("score", self.scores)):
            if values is not None:
                kept = pc.and_(kept, _is_in(table[column], values))
        if self.min_score is not None:
            kept = pc.and_(kept, pc.fill_null(pc.greater_equal(table["score"], self.min_score), False))
        if self.units is not None:
            first, end = self.units
            kept = pc.and_(kept, pc.and_(pc.greater_equal(table["unit"], first), pc.less(table["unit"], end)))
        if self.parent is not None:
            kept = pc.and_(kept, _holds(table["parents"], self.parent))
        if self.ids is not None:
            named = _is_in(table["instruction_id"], self.ids)
            if "id" in table.column_names:
                named = pc.or_(named, _is_in(table["id"], self.ids))
            kept = pc.and_(kept, named)
        if self.source is not None:
            kept = pc.and_(kept, pc.fill_null(pc.equal(pc.struct_field(table["source"], "id"), self.source), False))
        return kept

    def __str__(self) -> str:
        said = {
            "reason": self.reasons and " or ".join(self.reasons),
            "score": self.scores and " or ".join(map(str, self.scores)),
            "min_score": self.min_score,
            "units": self.units,
            "parent": self.parent,
            "ids": None if self.ids is None else f"{len(self.ids):,} of them",
            "source": self.source,
        }
        return ", ".join(f"{name} = {value}" for name, value in said.items() if value is not None)


class Rows:
    """Rows of one table of a run, in order: all of them, or those that `where` keeps. A view: nothing is read until it
    is asked for, and then one file after the other. A damaged file raises InputError, a store that fails OSError."""

    def __init__(
        self, folder: Folder, kind: str, commits: Sequence[Commit], run: str | None, filters: tuple[_Filter, ...] = ()
    ) -> None:
        """`kind` is "data", "pool" or "rejected"; `run` is the name in the ids, None where they are another run's."""
        self.kind = kind
        self._folder = folder
        self._commits = commits
        self._run = run
        self._filters = filters

    def __repr__(self) -> str:
        kept = "".join(f" where {each}" for each in self._filters)
        return f"<{_TITLES[self.kind]} of {self._folder}{kept}>"

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Each row as a dictionary."""
        for batch in self.batches():
            yield from batch.to_pylist()

    def __len__(self) -> int:
        """`count`."""
        return self.count

    @property
    def columns(self) -> list[str]:
        """The names of the columns."""
        return list(SCHEMAS[self.kind].names)

    @property
    def count(self) -> int:
        """Rows. Of a whole table from the ledger alone, else by the columns that `where` looks at."""
        return sum(rows for _, rows in self._matches)

    def where(
        self,
        *,
        reason: str | Collection[str] | None = None,
        score: int | Collection[int] | None = None,
        min_score: float | None = None,
        units: tuple[int, int] | None = None,
        parent: str | None = None,
        ids: Collection[str] | None = None,
        source: str | None = None,
    ) -> Rows:
        """The rows for which all of this holds, as a view of their own.

        `reason` and `score` take one value or several, `min_score` keeps it and above, `units` are [first, end),
        `parent` is the id of a demonstration, `ids` are ids of rows or of instructions, `source` is the id of the text
        that a pair was made of. Units and ids are looked for only in the files of commits that can hold them. Raises
        InputError for a column that this table does not have, a reason that there is not, or a value of another kind.
        """
        reasons = _all_are("reason", reason, str, "a reason or a list of reasons", one=True)
        for each in reasons or ():
            if each not in set(Reason):
                raise InputError(f"reason = {each!r}: there is no such reason; there are {', '.join(Reason)}")
        first_and_end = _all_are(
            "units", units, Integral, says := "the first unit and the one after the last, as (0, 100)"
        )
        if first_and_end is not None and len(first_and_end) != 2:
            raise InputError(f"units = {units!r}: give {says}")
        for name, value, kind in (("min_score", min_score, Real), ("parent", parent, str), ("source", source, str)):
            if value is not None and not _is_of(value, kind):
                raise InputError(f"{name} = {value!r}: give {'a number' if kind is Real else 'one id'}")
        named = _all_are("ids", ids, str, "a list of ids")
        id_units = None
        if named is not None and self._run is not None:
            places = [place_in(self._run, id) for id in named]
            id_units = tuple(sorted({place[0] for place in places if place is not None}))
        asked = _Filter(
            reasons=None if reasons is None else tuple(map(str, reasons)),
            scores=_all_are("score", score, Integral, "a whole number or a list of them", one=True),
            min_score=min_score,
            units=None if first_and_end is None else (first_and_end[0], first_and_end[1]),
            parent=parent,
            ids=named,
            id_units=id_units,
            source=source,
        )
        self._require_columns(asked.columns(self.kind))
        return Rows(self._folder, self.kind, self._commits, self._run, (*self._filters, asked))

    def batches(self, columns: Sequence[str] | None = None, rows: int = BATCH_ROWS) -> Iterator[pa.RecordBatch]:
        """The rows in order, at most `rows` at a time, whole or some of their columns. Memory holds one file."""
        wanted = self._schema(columns).names
        return (
            batch for file in self._files() for batch in self._matching(file, wanted).to_batches(max_chunksize=rows)
        )

    def arrow(self, columns: Sequence[str] | None = None) -> pa.Table:
        """All the rows as a `pyarrow.Table`."""
        return pa.Table.from_batches(self.batches(columns), self._schema(columns))

    def pandas(self, columns: Sequence[str] | None = None) -> Any:
        """All the rows as a `pandas.DataFrame`. A whole number that can be missing, as a score, is a float there."""
        _needed("pandas")
        return self.arrow(columns).to_pandas()

    def polars(self, columns: Sequence[str] | None = None) -> Any:
        """All the rows as a `polars.DataFrame`."""
        return _needed("polars").from_arrow(self.arrow(columns))

    def dataset(self, columns: Sequence[str] | None = None) -> Any:
        """The rows as a `datasets.Dataset`, from the disk and not from memory.

        They are written once as an Arrow file into the cache of `datasets`, by what they are: the same rows are found
        there again, and rows that have come since are another file.
        """
        datasets = _needed("datasets")
        names, digests = self._schema(columns).names, [file.sha256 for file in self._files()]
        parts = (SCHEMA_VERSION, self.kind, names, self._filters, digests)
        name = f"{hashlib.sha256(repr(parts).encode()).hexdigest()}.arrow"
        path = Path(datasets.config.HF_DATASETS_CACHE) / "instructmill" / name
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._write_arrow(path, columns)
        return datasets.Dataset.from_file(str(path))

    def sample(self, count: int) -> list[dict[str, Any]]:
        """`count` rows spread evenly over all of them, the first and the last included; reads the files they are in.
        Raises InputError for a count below 0."""
        if not isinstance(count, Integral) or count < 0:
            raise InputError(f"count = {count!r}: give a whole number of at least 0")
        places = evenly(range(self.count), count)
        found: list[dict[str, Any]] = []
        before = 0
        for file, rows in self._matches:
            here = [place - before for place in places if before <= place < before + rows]
            if here:
                found += self._matching(file, self.columns).take(here).to_pylist()
            before += rows
        return found

    @cached_property
    def _matches(self) -> list[tuple[ShardFile, int]]:
        """Each file with how many rows of it are kept."""
        if not self._filters:
            return [(file, file.rows) for file in self._files()]
        looked_at = sorted({name for each in self._filters for name in each.columns(self.kind)})
        return [(file, len(self._matching(file, looked_at))) for file in self._files()]

    def _files(self) -> Iterator[ShardFile]:
        """The files that may hold a row, in order."""
        for commit in self._commits:
            if all(each.may_be_in(commit) for each in self._filters):
                yield from (file for file in commit.files if file.path.startswith(f"{self.kind}/") and file.rows)

    def _matching(self, file: ShardFile, wanted: Sequence[str]) -> pa.Table:
        """Columns of the rows of a file that are kept."""
        looked_at = [name for each in self._filters for name in each.columns(self.kind)]
        table = read_table(self._folder, file.path, self.kind, list(dict.fromkeys([*wanted, *looked_at])))
        for each in self._filters:
            table = table.filter(each.mask(table))
        return table.select(list(wanted))

    def _schema(self, columns: Sequence[str] | None) -> pa.Schema:
        """The schema of all columns or of some of them. Raises InputError for one that there is not."""
        schema = SCHEMAS[self.kind]
        if columns is None:
            return schema
        self._require_columns(columns)
        return pa.schema([schema.field(name) for name in columns])

    def _require_columns(self, names: Collection[str]) -> None:
        if isinstance(names, str):
            raise InputError(f"columns = {names!r}: give a list of names")
        if missing := [name for name in names if name not in self.columns]:
            raise InputError(f"{_TITLES[self.kind]} have no column {missing[0]!r}; there are {', '.join(self.columns)}")

    def _write_arrow(self, path: Path, columns: Sequence[str] | None) -> None:
        """The rows as a file of Arrow's stream format, visible when it is whole."""
        hidden = path.with_name(f"{HIDDEN}{secrets.token_hex(6)}-{path.name}")
        try:
            with pa.OSFile(str(hidden), "wb") as sink, pa.ipc.new_stream(sink, self._schema(columns)) as stream:
                for batch in self.batches(columns):
                    stream.write_batch(batch)
            os.replace(hidden, path)
        finally:
            hidden.unlink(missing_ok=True)


def evenly(rows: Sequence[T], count: int) -> list[T]:
    """`count` rows spread evenly over all of them, the first and the last included."""
    if count >= len(rows):
        return list(rows)
    if count == 1:
        return list(rows[:1])
    return [rows[round(place * (len(rows) - 1) / (count - 1))] for place in range(count)]


def place_in(run: str, id: str) -> tuple[int, ...] | None:
    """Unit, candidate and, of a row, instance, as an id of this run names them; None for any other id."""
    name, *numbers = id.split("/")
    if name != run or len(numbers) not in (2, 3) or not all(re.fullmatch("[0-9]{1,18}", number) for number in numbers):
        return None
    return tuple(map(int, numbers))


def _all_are(name: str, given: Any, kind: type, says: str, *, one: bool = False) -> tuple[Any, ...] | None:
    """What was given for an argument, where all of it is of a kind; with `one`, one value too. Raises InputError."""
    if given is None:
        return None
    several = isinstance(given, Iterable) and not isinstance(given, str | bytes)
    values = tuple(given) if several else (given,) if one else (None,)
    if not all(_is_of(value, kind) for value in values):
        raise InputError(f"{name} = {given!r}: give {says}")
    return values


def _is_of(value: object, kind: type) -> bool:
    """Whether a value is of a kind; half a surrogate pair, as of a terminal's letters that Python cannot read, is no
    text that a column could hold."""
    return isinstance(value, kind) and not (isinstance(value, str) and re.search("[\ud800-\udfff]", value))


def _is_in(column: pa.ChunkedArray, values: Sequence[object]) -> pa.ChunkedArray:
    return pc.is_in(column, value_set=pa.array(values, type=column.type))


def _holds(lists: pa.ChunkedArray, value: str) -> pa.Array:
    """Which lists of a column hold a value."""
    whole = pa.concat_arrays(lists.chunks) if lists.num_chunks else pa.array([], type=lists.type)
    found = np.zeros(len(whole), dtype=bool)
    is_it = pc.equal(pc.list_flatten(whole), value)
    found[pc.list_parent_indices(whole).filter(is_it).to_numpy(zero_copy_only=False)] = True
    return pa.array(found)


def _needed(module: str) -> Any:
    """A library that not everybody has. Raises InputError naming it."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise InputError(
            f"{error.name} is not installed, which this form of the rows needs; `pip install {error.name}`, or take "
            "the rows as .arrow()"
        ) from None
