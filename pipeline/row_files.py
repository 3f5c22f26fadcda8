"""Rows of any JSON lines or Parquet file, or of a run's pool, in order and in pieces.

Memory holds one piece, never a file. A row is called by its number from 1, which in JSON lines is that of its line; a
row of a run by its instruction_id.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import InputError
from pipeline.reading import open_folder
from pipeline.shards import SCHEMAS, read_tables

PIECE_ROWS = 4096
PIECE_BYTES = 1 << 25  # a piece of long rows ends here
ENDINGS = (".jsonl", ".parquet")
# Of a run's pool; what its gate recorded as the nearest is left out, since it would stand beside what is found now.
POOL_COLUMNS = [name for name in SCHEMAS["pool"].names if not name.startswith("nearest")]

Numbered = tuple[int, dict[str, Any], int]  # number, row, bytes in the file


@dataclass(frozen=True)
class Piece:
    """Some rows in order: what each is called, its text (any value, as the file has it), and the rows themselves, of
    JSON lines as a list and of Parquet as a table."""

    names: Sequence[str]
    texts: Sequence[Any]
    rows: list[dict[str, Any]] | pa.Table


def read_pieces(path: Path, field: str, added: Collection[str] = (), size: int = PIECE_ROWS) -> Iterator[Piece]:
    """The rows of a file or of a run's pool, at most `size` at a time; where a row is wrong, first those before it.

    Raises InputError naming file and row where one cannot be read, lacks `field`, or has a column named in `added`.
    """
    if path.is_dir():
        yield from _pool_pieces(path, field, added, size)
    elif ending(path) == ".jsonl":
        yield from _jsonl_pieces(path, field, added, size)
    else:
        yield from _parquet_pieces(path, field, added, size)


def ending(path: Path) -> str:
    """ ".jsonl" or ".parquet"; InputError for any other."""
    if path.suffix.lower() not in ENDINGS:
        raise InputError(f"{path}: its name ends in neither .jsonl nor .parquet; give a file of that kind")
    return path.suffix.lower()


# JSON lines


def _jsonl_pieces(path: Path, field: str, added: Collection[str], size: int) -> Iterator[Piece]:
    for part in _parts(_jsonl_rows(path, field, added), size):
        rows = [row for _, row, _ in part]
        yield Piece([str(number) for number, _, _ in part], [row[field] for row in rows], rows)


def _jsonl_rows(path: Path, field: str, added: Collection[str]) -> Iterator[Numbered]:
    """Blank lines are passed over."""
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield number, _parse(line, f"{path}, line {number}", field, added), len(line)
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None


def _parse(line: bytes, where: str, field: str, added: Collection[str]) -> dict[str, Any]:
    try:
        row = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise InputError(f"{where}: not UTF-8 text ({error.reason} at byte {error.start + 1})") from None
    except (ValueError, RecursionError) as error:
        cut = "" if line.endswith(b"\n") else "; the file seems to be cut off in the middle of this line"
        raise InputError(f"{where}: not valid JSON ({error}){cut}") from None
    if not isinstance(row, dict):
        raise InputError(f"{where}: not a JSON object but {line[:40].decode(errors='replace').strip()!r}")
    if field not in row:
        raise InputError(f"{where}: field {field!r} is missing; the row has {_listed(row)}")
    _refuse_added(row, added, where)
    return row


def _parts(rows: Iterable[Numbered], size: int) -> Iterator[list[Numbered]]:
    """Rows in lists of at most `size` and about PIECE_BYTES; where reading fails, the list before that comes first."""
    part: list[Numbered] = []
    fault = None
    held = 0
    try:
        for row in rows:
            part.append(row)
            held += row[2]
            if len(part) == size or held >= PIECE_BYTES:
                yield part
                part, held = [], 0
    except InputError as error:
        fault = error
    if part:
        yield part
    if fault is not None:
        raise fault


# Parquet


def _parquet_pieces(path: Path, field: str, added: Collection[str], size: int) -> Iterator[Piece]:
    with opened(path) as file:
        column = _column(file.schema_arrow, field, added, path)
        groups = [file.metadata.row_group(number) for number in range(file.num_row_groups)]
        widest = max((group.total_byte_size // max(group.num_rows, 1) for group in groups), default=0)
        read = 0
        try:
            for batch in file.iter_batches(max(1, min(size, PIECE_BYTES // max(widest, 1)))):
                names = [str(number) for number in range(read + 1, read + len(batch) + 1)]
                yield Piece(names, batch.column(column).to_pylist(), pa.Table.from_batches([batch]))
                read += len(batch)
        except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
            raise InputError(f"{path}: cannot be read after row {read} ({first_line(error)})") from None


def _pool_pieces(folder: Path, field: str, added: Collection[str], size: int) -> Iterator[Piece]:
    _, commits = open_folder(folder)
    column = _column(SCHEMAS["pool"], field, (), folder)
    for table in read_tables(folder, commits, "pool"):
        for start in range(0, len(table), size):
            rows = table.slice(start, size)
            kept = rows.select(POOL_COLUMNS).replace_schema_metadata()
            yield Piece(rows.column("instruction_id").to_pylist(), rows.column(column).to_pylist(), kept)


def opened(path: Path) -> pq.ParquetFile:
    """A Parquet file to read from; InputError where there is none."""
    try:
        return pq.ParquetFile(path)
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file") from None
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{path}: cannot be read as Parquet ({first_line(error)}); is it whole?") from None


def _column(schema: pa.Schema, field: str, added: Collection[str], path: Path) -> int:
    """The place of the column `field`; InputError where there is none, or one of `added`."""
    if field not in schema.names:
        raise InputError(f"{path}: there is no column {field!r}; the file has {_listed(schema.names)}")
    if twice := [name for name in schema.names if schema.names.count(name) > 1]:
        raise InputError(f"{path}: two columns have the name {twice[0]!r}; rename one")
    _refuse_added(schema.names, added, str(path))
    return int(schema.names.index(field))


def _refuse_added(names: Collection[str], added: Collection[str], where: str) -> None:
    if there := [name for name in added if name in names]:
        raise InputError(f"{where}: there is a field {there[0]!r} already, which --out adds; rename it first")


def _listed(names: Iterable[str]) -> str:
    return ", ".join(list(names)[:12]) or "none"


def first_line(error: Exception) -> str:
    """What an error of Arrow says, without what it says about itself."""
    return str(error).split("\n")[0]
