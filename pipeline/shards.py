"""Closed Parquet shards and the ledger of commits: what makes a run folder whole at every moment (design, 4).

A commit covers a range of units. Its files become visible first, each in one act; its record last. The record, created
and never replaced, is the commit: files that no record names do not count and are removed on the next start.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, fields
from functools import partial
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import InputError, RunStopped
from pipeline.records import Score, Source
from pipeline.storage import HIDDEN, Folder, Place, claim, folder_at, leaving

T = TypeVar("T")

SCHEMA_VERSION = 2
MANIFEST_VERSION = 1
RUN = ".run"
MANIFEST = ".run/manifest.json"
COMMITS = ".run/commits"


def _list(kind: pa.DataType) -> pa.ListType:
    return pa.list_(pa.field("element", kind))  # the name Parquet gives back, so that schemas compare equal


_SCORE = pa.struct(
    [
        ("judge", pa.string()),
        ("round", pa.int32()),
        ("score", pa.int32()),
        ("expected", pa.float64()),
        ("mass", pa.float64()),
    ]
)
_SCORE_FIELDS = tuple(field.name for field in _SCORE)
_SOURCE = pa.struct([("id", pa.string()), ("origin", pa.string())])
_DATA: list[tuple[str, pa.DataType]] = [
    ("id", pa.string()),
    ("instruction_id", pa.string()),
    ("instruction", pa.string()),
    ("input", pa.string()),
    ("output", pa.string()),
    ("recipe", pa.string()),
    ("unit", pa.int64()),
    ("is_classification", pa.bool_()),
    ("parents", _list(pa.string())),
    ("nearest_id", pa.string()),
    ("nearest_score", pa.float64()),
    ("score", pa.int32()),
    ("score_expected", pa.float64()),
    ("score_mass", pa.float64()),
    ("scores", _list(_SCORE)),
    ("source", _SOURCE),
    ("prompt_hashes", _list(pa.string())),
    ("model", pa.string()),
    ("judge", pa.string()),
    ("finish_reason", pa.string()),
    ("prompt_tokens", pa.int64()),
    ("completion_tokens", pa.int64()),
]
_POOL = ("instruction_id", "instruction", "unit", "parents", "is_classification", "nearest_id", "nearest_score")
_FOOTER = {"instructmill.schema": str(SCHEMA_VERSION)}
SCHEMAS: dict[str, pa.Schema] = {
    "data": pa.schema(_DATA, metadata=_FOOTER),
    "pool": pa.schema([column for column in _DATA if column[0] in _POOL], metadata=_FOOTER),
    "rejected": pa.schema(
        [*_DATA, *((name, pa.string()) for name in ("stage", "reason", "detail", "text"))], metadata=_FOOTER
    ),
}
SCHEMAS["segments"] = pa.schema([(name, pa.string()) for name in ("id", "origin", "header", "text")], metadata=_FOOTER)
_DAMAGED = "{}: a shard that its commit names cannot be read ({}); the run folder is damaged"
TABLES = ("data", "pool", "rejected")
AHEAD = 8  # files of a store that are read beside one another; its client has ten connections
_FILE_PREFIX = {"data": "train", "pool": "pool", "rejected": "rejected"}


@dataclass(frozen=True, slots=True)
class ShardFile:
    """One file of a commit: its path in the run folder, its rows, and its SHA-256."""

    path: str
    rows: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Commit:
    """One record of the ledger. Units are [first, end); `counters` are cumulative; `gate` has, for each unit of the
    range, its candidates and how many were admitted; `ending` says why the run ended, in its last record."""

    number: int
    attempt: int
    first: int
    end: int
    files: tuple[ShardFile, ...]
    counters: dict[str, Any]
    gate: tuple[tuple[int, int], ...]
    ending: dict[str, Any] | None = None

    def to_json(self) -> str:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        values["files"] = [{"path": file.path, "rows": file.rows, "sha256": file.sha256} for file in self.files]
        return json.dumps(values, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Commit:
        values = json.loads(text)
        values["files"] = tuple(ShardFile(**file) for file in values["files"])
        values["gate"] = tuple((candidates, admitted) for candidates, admitted in values["gate"])
        return cls(**values)


def to_table(kind: str, rows: Sequence[object], constants: Mapping[str, Any]) -> pa.Table:
    """Records as a table of `SCHEMAS[kind]`; what a record does not have comes from `constants`, else is null."""
    schema = SCHEMAS[kind]
    columns = []
    for name in schema.names:
        values = [_plain(getattr(row, name, None), constants.get(name)) for row in rows]
        columns.append(pa.array(values, type=schema.field(name).type))
    return pa.Table.from_arrays(columns, schema=schema)


def encode(kind: str, rows: Sequence[object], constants: Mapping[str, Any]) -> bytes:
    """Records as a Parquet file; without rows it has the schema and no row group."""
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, SCHEMAS[kind], compression="zstd", write_page_index=True) as writer:
        if rows:
            writer.write_table(to_table(kind, rows, constants), row_group_size=10_000)
    content: bytes = sink.getvalue().to_pybytes()
    return content


def _plain(value: Any, otherwise: Any) -> Any:
    """A value as Arrow takes it: records inside a record as dictionaries."""
    match value:
        case None:
            return otherwise
        case Source():
            return {"id": value.id, "origin": value.origin}
        case tuple() if value and isinstance(value[0], Score):
            return [{name: getattr(each, name) for name in _SCORE_FIELDS} for each in value]
    return value


def read_table(place: Place, name: str, kind: str, columns: list[str] | None = None) -> pa.Table:
    """A shard as a table, whole or some of its columns.

    Raises InputError when it is damaged, or (showing both) is of another schema; OSError when the store fails.
    """
    folder = folder_at(place)
    path = f"{folder}/{name}"
    if folder.local:
        return _table(folder.local / name, path, kind, columns)
    try:
        content = folder.read(name)
    except FileNotFoundError as error:
        raise InputError(_DAMAGED.format(path, error)) from None
    return decode(content, path, kind, columns)


def decode(content: bytes, path: str, kind: str, columns: list[str] | None = None) -> pa.Table:
    """`read_table` of a shard's bytes; `path` is for what is wrong with them."""
    return _table(io.BytesIO(content), path, kind, columns)


def _table(source: Any, path: str, kind: str, columns: list[str] | None) -> pa.Table:
    try:
        with pq.ParquetFile(source) as file:
            found = file.schema_arrow
            if found.equals(SCHEMAS[kind], check_metadata=True):
                return file.read(columns=columns)
    except (OSError, pa.ArrowException) as error:
        raise InputError(_DAMAGED.format(path, error)) from None
    raise InputError(f"{path}: its schema is not this version's.\nfound:\n{found}\nexpected:\n{SCHEMAS[kind]}")


def shard_name(kind: str, number: int, attempt: int) -> str:
    """The file of a table in a commit. Two attempts never write the same one."""
    suffix = f"-a{attempt}" if attempt > 1 else ""
    return f"{kind}/{_FILE_PREFIX[kind]}-{number:06d}{suffix}.parquet"


def read_tables(
    place: Place, commits: Iterable[Commit], kind: str, columns: list[str] | None = None
) -> Iterator[pa.Table]:
    """The shards of one kind that these commits name, in order, whole or some of their columns. Raises InputError."""
    folder = folder_at(place)
    names = [file.path for commit in commits for file in commit.files if file.path.startswith(f"{kind}/")]
    yield from _each(folder, names, lambda name: read_table(folder, name, kind, columns))


def _each(folder: Folder, names: Sequence[str], read: Callable[[str], T]) -> Iterator[T]:
    """What `read` says of each file, in order. Of a store some are read ahead, since each answer takes its while."""
    if folder.local:
        yield from map(read, names)
        return
    threads, ahead = ThreadPoolExecutor(AHEAD), deque[Future[T]]()
    try:
        for name in names:
            ahead.append(threads.submit(read, name))
            if len(ahead) > AHEAD:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
    except KeyboardInterrupt:
        leaving.set()  # what is being read need not be waited for longer than one answer
        raise
    finally:
        threads.shutdown(cancel_futures=True)


class Shards:
    """The tables and the ledger of one run folder. One writer at a time."""

    def __init__(self, folder: Folder, attempt: int, constants: Mapping[str, Any]) -> None:
        """`constants` fills the columns that are the same in every row (recipe, model)."""
        self.folder = folder
        self.attempt = attempt
        self._constants = constants

    def write_commit(
        self,
        number: int,
        units: range,
        tables: Mapping[str, Sequence[object]],
        counters: dict[str, Any],
        gate: Iterable[tuple[int, int]],
        ending: dict[str, Any] | None = None,
    ) -> Commit:
        """Make a range of units visible: its files, then its record. A table of no rows gets no file.

        Raises RunStopped when another writer has made this commit.
        """
        files = [self._write_file(kind, number, rows) for kind, rows in tables.items() if rows or number == 0]
        commit = Commit(number, self.attempt, units.start, units.stop, tuple(files), counters, tuple(gate), ending)
        name, content = f"{COMMITS}/{number:06d}.json", commit.to_json().encode()
        if not claim(self.folder, name, content):
            for file in files:
                self.folder.remove(file.path)
            raise RunStopped(f"{self.folder}: another process has written commit {number}; this one has ended")
        return commit

    def _write_file(self, kind: str, number: int, rows: Sequence[object]) -> ShardFile:
        name = shard_name(kind, number, self.attempt)
        content = encode(kind, rows, self._constants)
        self.folder.write(name, content)
        return ShardFile(name, len(rows), hashlib.sha256(content).hexdigest())


def read_manifest(place: Place) -> dict[str, Any] | None:
    """The manifest of a run folder; None where there is none.

    Raises InputError when it is damaged or may not be read, OSError when the storage fails.
    """
    folder = folder_at(place)
    path = f"{folder}/{MANIFEST}"
    try:
        manifest: dict[str, Any] = json.loads(folder.read(MANIFEST))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except PermissionError as error:
        raise InputError(f"{path}: cannot be read ({error})") from None
    except ValueError as error:
        raise InputError(f"{path}: cannot be read ({error}); the run folder is damaged") from None
    if not isinstance(manifest, dict) or "version" not in manifest:
        raise InputError(f"{path}: not a manifest; the run folder is damaged")
    if manifest["version"] != MANIFEST_VERSION:
        raise InputError(f"{path}: written by another version of InstructMill; use that one, or another folder")
    return manifest


def read_commits(place: Place) -> list[Commit]:
    """The ledger in order. Raises InputError when a record is missing or cannot be read."""
    folder, commits = folder_at(place), []
    names = records(folder, COMMITS)
    for number, (name, commit) in enumerate(
        zip(names, _each(folder, names, partial(read_commit, folder)), strict=True)
    ):
        if commit.number != number:
            moved = name.endswith(f"/{number:06d}.json")
            what = f"it holds commit {commit.number}" if moved else f"commit {number} is missing"
            raise InputError(f"{folder}/{name}: {what}; the run folder is damaged")
        commits.append(commit)
    return commits


def read_commit(folder: Folder, name: str) -> Commit:
    """One record of the ledger, by the name of its file. Raises InputError when it cannot be read."""
    try:
        return Commit.from_json(folder.read(name).decode())
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(f"{folder}/{name}: not a commit record ({error}); the run folder is damaged") from None


def records(folder: Folder, under: str) -> list[str]:
    """The numbered JSON records right under a folder, in order."""
    return [f"{under}/{name}" for name in folder.names(under) if name[0].isdigit() and name.endswith(".json")]


def remove_strangers(folder: Folder, named: Iterable[str], places: Sequence[str]) -> list[str]:
    """Remove files in `places` that are shards but not `named` by a record, or temporary; returns their names.

    Right under `.run` there are no shards: what is Parquet there is of `instructmill novelty`, and stays. Raises
    InputError, and removes nothing, where a file that a record names is not there.
    """
    named = set(named)
    found = [f"{place}/{file}" for place in places for file in folder.names(place)]
    if missing := sorted(name for name in named.difference(found) if name.rpartition("/")[0] in places):
        raise InputError(
            f"{folder}/{missing[0]}: a commit names this file and it is not there; put it back, or begin a new run "
            "in another folder"
        )
    removed = []
    for name in found:
        place, _, file = name.rpartition("/")
        stranger = file.endswith(".parquet") and place != RUN and name not in named
        if stranger or file.startswith(HIDDEN):
            folder.remove(name)
            removed.append(name)
    return removed
