"""Closed Parquet shards and the ledger of commits: what makes a run folder whole at every moment (design, 4).

A commit covers a range of units. Its files become visible first, each in one act; its record last. The record, created
and never replaced, is the commit: files that no record names do not count and are removed on the next start.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import InputError, RunStopped
from pipeline.records import Score, Source

SCHEMA_VERSION = 2
MANIFEST_VERSION = 1


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
            return asdict(value)
        case tuple() if value and isinstance(value[0], Score):
            return [asdict(each) for each in value]
    return value


def read_table(path: Path, kind: str, columns: list[str] | None = None) -> pa.Table:
    """A shard as a table, whole or some of its columns.

    Raises InputError when it cannot be read, or (showing both) is of another schema.
    """
    try:
        found = pq.read_schema(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise InputError(
            f"{path}: a shard that its commit names cannot be read ({error}); the run folder is damaged"
        ) from None
    if not found.equals(SCHEMAS[kind], check_metadata=True):
        raise InputError(f"{path}: its schema is not this version's.\nfound:\n{found}\nexpected:\n{SCHEMAS[kind]}")
    return pq.read_table(path, columns=columns, partitioning=None)


def read_tables(
    folder: Path, commits: Iterable[Commit], kind: str, columns: list[str] | None = None
) -> Iterator[pa.Table]:
    """The shards of one kind that these commits name, in order, whole or some of their columns. Raises InputError."""
    for commit in commits:
        for file in commit.files:
            if file.path.startswith(f"{kind}/"):
                yield read_table(folder / file.path, kind, columns)


class Shards:
    """The tables and the ledger of one run folder on a local disk. One writer at a time."""

    def __init__(self, folder: Path, attempt: int, constants: Mapping[str, Any]) -> None:
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
        path, text = self.folder / ".run" / "commits" / f"{number:06d}.json", commit.to_json()
        if not create_file(path, text.encode()) and path.read_text(encoding="utf-8") != text:
            for file in files:
                (self.folder / file.path).unlink(missing_ok=True)
            raise RunStopped(f"{self.folder}: another process has written commit {number}; this one has ended")
        return commit

    def _write_file(self, kind: str, number: int, rows: Sequence[object]) -> ShardFile:
        suffix = f"-a{self.attempt}" if self.attempt > 1 else ""
        name = f"{kind}/{_FILE_PREFIX[kind]}-{number:06d}{suffix}.parquet"
        content = encode(kind, rows, self._constants)
        write_file(self.folder / name, content)
        return ShardFile(name, len(rows), hashlib.sha256(content).hexdigest())


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of a run folder; None where there is none. Raises InputError when it cannot be read."""
    path = folder / ".run" / "manifest.json"
    try:
        manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}); the run folder is damaged") from None
    if manifest["version"] != MANIFEST_VERSION:
        raise InputError(f"{path}: written by another version of InstructMill; use that one, or another folder")
    return manifest


def read_commits(folder: Path) -> list[Commit]:
    """The ledger in order. Raises InputError when a record is missing or cannot be read."""
    commits = []
    for number, path in enumerate(sorted((folder / ".run" / "commits").glob("[0-9]*.json"))):
        try:
            commit = Commit.from_json(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise InputError(f"{path}: not a commit record ({error}); the run folder is damaged") from None
        if commit.number != number:
            raise InputError(f"{path}: commit {number} is missing; the run folder is damaged")
        commits.append(commit)
    return commits


def remove_strangers(folder: Path, named: Iterable[str]) -> list[str]:
    """Remove shard files but those `named` by a record, and temporary files; returns their paths in the folder."""
    named = set(named)
    removed = []
    for place in [*_FILE_PREFIX, ".run/commits", ".run/segments"]:
        for file in sorted((folder / place).glob("*")):
            path = file.relative_to(folder).as_posix()
            stranger = file.suffix == ".parquet" and path not in named
            if stranger or file.name.startswith(".tmp-"):
                file.unlink()
                removed.append(path)
    return removed


def write_file(path: Path, content: bytes) -> None:
    """Write a file that becomes visible whole, in one act: hidden name, fsync, rename, fsync of the folder."""
    temporary = _write_hidden(path, content)
    os.replace(temporary, path)
    _sync_folder(path.parent)


def create_file(path: Path, content: bytes) -> bool:
    """Like `write_file`, but never replaces: False, and nothing changed, when the file exists."""
    temporary = _write_hidden(path, content)
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP):
            raise
        raise InputError(
            f"{path.parent}: no hard links here, which commits need; name a folder on a local disk"
        ) from None
    finally:
        temporary.unlink()
    _sync_folder(path.parent)
    return True


def _write_hidden(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".tmp-{os.getpid()}-{path.name}")
    with temporary.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    return temporary


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
