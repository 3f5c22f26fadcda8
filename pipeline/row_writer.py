"""A file of somebody's rows with columns added, JSON lines or Parquet, whole after every piece or when closed."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import InputError
from pipeline.row_files import POOL_COLUMNS, Piece, ending, first_line, opened, read_pieces
from pipeline.shards import SCHEMAS

JSONL_INSTEAD = "give --out a name that ends in .jsonl"
PARQUET_INSTEAD = "give --out a name that ends in .parquet"


def require_new(path: Path) -> None:
    """Raises InputError where a file of rows cannot be made under this name: no file is ever replaced."""
    ending(path)
    try:
        there = path.exists()
    except OSError as error:  # a name too long
        raise InputError(f"{path}: cannot be a file ({error.strerror}); name another") from None
    if there:
        raise InputError(f"{path}: the file is there already and is not replaced; remove it, or name another")
    if not path.absolute().parent.is_dir():
        raise InputError(f"{path}: there is no folder {path.parent}; make it, or name another file")


@contextmanager
def terminated_as_interrupted() -> Iterator[None]:
    """SIGTERM ends what is written as Ctrl-C does, so that Parquet gets its footer. In the main thread only."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A new file to write to, which has its name when it is whole: where writing fails, there is none.

    Raises InputError where it cannot be made, or another process has made it since.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        stream = partial.open("wb")
    except OSError as error:
        raise InputError(f"{path}: cannot be made ({error.strerror}); name another file") from None
    try:
        with stream:
            yield stream
        os.link(partial, path)
    except FileExistsError:
        raise InputError(f"{path}: another process has made this file; name another") from None
    finally:
        partial.unlink(missing_ok=True)


class RowWriter:
    """A new file of the rows of `source` with columns added, JSON lines or Parquet by its ending.

    The file is made with the first rows. JSON lines are whole after each `write`; Parquet when closed.
    """

    def __init__(self, path: Path, source: Path, field: str, added: Mapping[str, pa.DataType]) -> None:
        """Where JSON lines become Parquet, reads all of `source` for the type of each column.

        Raises InputError where the file cannot be made, or where a column of JSON lines has no one type.
        """
        require_new(path)
        self.path = path
        self.rows = 0  # written
        self._source = source
        self._field = field
        self._added = added
        self._schema: pa.Schema | None = None  # of Parquet
        self._stream: Any = None
        self._table: pq.ParquetWriter | None = None
        if ending(path) == ".parquet":
            rows = _schema(source, field, tuple(added))
            self._schema = pa.schema([*rows, *added.items()], metadata=rows.metadata)

    def write(self, piece: Piece, columns: Mapping[str, Sequence[Any]], keep: Sequence[bool]) -> None:
        """Write those rows of a piece for which `keep` is true, with their values of the columns added.

        Raises InputError for a value that this kind of file cannot hold, and OSError where the disk takes no more.
        """
        self._open()
        if self._table is None or self._schema is None:
            self._write_lines(piece, columns, keep)
        else:
            try:
                self._table.write_table(self._rows(piece, columns, keep))
            except (pa.ArrowException, OverflowError, TypeError) as error:
                where = f"{self._source}, rows {piece.names[0]} to {piece.names[-1]}"
                raise InputError(f"{where}: no form in Parquet ({first_line(error)}); {JSONL_INSTEAD}") from None
        self.rows += sum(keep)

    def _rows(self, piece: Piece, columns: Mapping[str, Sequence[Any]], keep: Sequence[bool]) -> pa.Table:
        """The kept rows of a piece as a table with the columns added."""
        assert self._schema is not None
        table = piece.rows
        if isinstance(table, list):
            schema = pa.schema(list(self._schema)[: -len(self._added)])
            table = pa.Table.from_pylist(_storable(table, self._field), schema=schema)
        for name, kind in self._added.items():
            table = table.append_column(pa.field(name, kind), pa.array(columns[name], kind))
        return table if all(keep) else table.filter(pa.array(keep, pa.bool_()))

    def finish(self) -> None:
        """Close; where there was no row, the file is there all the same."""
        self._open()
        self.close()

    def close(self) -> None:
        """Make the file whole. May be called twice."""
        try:
            if self._table is not None:
                self._table.close()
        finally:
            if self._stream is not None:
                self._stream.close()

    def _open(self) -> None:
        if self._stream is None:
            try:
                self._stream = self.path.open("xb", buffering=0 if self._schema is None else -1)
            except OSError as error:
                raise InputError(f"{self.path}: cannot be made ({error.strerror}); name another file") from None
            if self._schema is not None:
                self._table = pq.ParquetWriter(self._stream, self._schema, compression="zstd")

    def _write_lines(self, piece: Piece, columns: Mapping[str, Sequence[Any]], keep: Sequence[bool]) -> None:
        rows = piece.rows if isinstance(piece.rows, list) else self._plain_rows(piece.rows, piece.names)
        values = zip(*(columns[name] for name in self._added), strict=True)
        lines = [
            _line({**row, **dict(zip(self._added, more, strict=True))}, f"{self._source}, row {name}")
            for row, more, kept, name in zip(rows, values, keep, piece.names, strict=True)
            if kept
        ]
        whole = self._stream.tell()
        content = memoryview(b"".join(lines))
        try:
            while content:
                content = content[self._stream.write(content) :]
        except OSError:  # a full disk leaves no half line
            self._stream.truncate(whole)
            raise

    def _plain_rows(self, table: pa.Table, names: Sequence[str]) -> list[dict[str, Any]]:
        try:
            return list(table.to_pylist())
        except (ValueError, pa.ArrowException) as error:
            where = f"{self._source}, rows {names[0]} to {names[-1]}"
            raise InputError(f"{where}: no form in JSON ({first_line(error)}); {PARQUET_INSTEAD}") from None


def _line(row: dict[str, Any], where: str) -> bytes:
    try:
        try:
            return f"{json.dumps(row, ensure_ascii=False, default=_plain)}\n".encode()
        except UnicodeEncodeError:  # a lone surrogate stays the escape it was
            return f"{json.dumps(row, default=_plain)}\n".encode()
    except TypeError as error:
        raise InputError(f"{where}: JSON cannot hold it ({error}); {PARQUET_INSTEAD}") from None


def _plain(value: object) -> str:
    if isinstance(value, date | datetime | time):
        return value.isoformat()
    if isinstance(value, Decimal | timedelta):
        return str(value)
    raise TypeError(f"it has a value of type {type(value).__name__}")


# Parquet: one type for each column


def _schema(source: Path, field: str, added: Collection[str]) -> pa.Schema:
    """The columns of all rows, those of JSON lines in order of first sight."""
    if source.is_dir():
        return pa.schema([SCHEMAS["pool"].field(name) for name in POOL_COLUMNS])
    if ending(source) == ".parquet":
        with opened(source) as file:
            return file.schema_arrow
    kinds: dict[str, pa.DataType] = {}
    for piece in read_pieces(source, field, added):
        rows = _storable(piece.rows, field)
        for name in dict.fromkeys(name for row in rows for name in row):
            try:
                kinds[name] = _kind(name, kinds.get(name, pa.null()), [row.get(name) for row in rows])
            except (pa.ArrowException, OverflowError, ValueError, TypeError) as error:
                raise InputError(
                    f"{source}, lines {piece.names[0]} to {piece.names[-1]}: field {name!r} cannot be a column of "
                    f"Parquet ({first_line(error)}); {JSONL_INSTEAD}"
                ) from None
    if field in kinds:
        kinds[field] = pa.string()
    return pa.schema(list(kinds.items()))


def _kind(name: str, before: pa.DataType, values: list[Any]) -> pa.DataType:
    """The type that holds what a column held before and these values; an error of Arrow where there is none."""
    both = [pa.schema([(name, before)]), pa.schema([(name, pa.array(values).type)])]
    column = pa.unify_schemas(both, promote_options="permissive")
    pq.ParquetWriter(pa.BufferOutputStream(), column).close()  # an object without fields is a type, but not Parquet's
    return column.field(name).type


def _storable(rows: Any, field: str) -> list[dict[str, Any]]:
    """Rows of JSON lines as Parquet can hold them: any value of `field` but a text becomes its JSON, a lone surrogate
    U+FFFD."""
    stored = []
    for row in rows:
        text = row[field]
        if not isinstance(text, str | None):
            row = {**row, field: json.dumps(text)}
        stored.append(row)
    try:
        json.dumps(stored, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return [_clean(row) for row in stored]
    return stored


def _clean(value: Any) -> Any:
    match value:
        case str():
            return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        case list():
            return [_clean(item) for item in value]
        case dict():
            return {_clean(key): _clean(item) for key, item in value.items()}
    return value
