"""A Parquet file as rows of a corpus, in batches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.backtranslation_settings import CorpusSettings
from pipeline.documents import Document, of_row
from pipeline.errors import InputError

BATCH_BYTES = 1 << 24  # about so much of a file is read at once


def require_column(fs: Any, path: str, settings: CorpusSettings) -> None:
    """Raises InputError where a Parquet file has no column of texts by the name that the settings give."""
    with fs.open(path, "rb") as raw:
        schema = pq.ParquetFile(raw).schema_arrow
    if schema.names.count(settings.field) != 1:
        listed = ", ".join(schema.names[:12]) or "none"
        raise InputError(f"{path}: there is no one column {settings.field!r}; the file has {listed}: set corpus.field")
    kind = schema.field(settings.field).type
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)):
        raise InputError(
            f"{path}: column {settings.field!r} holds {kind} and no text; set corpus.field to one that does"
        )


def read_rows(raw: Any, file: int, name: str, settings: CorpusSettings, start: int) -> Iterator[Document]:
    """The rows of an open file from number `start` on; `file` and `name` are the file's in its corpus.

    Raises InputError where the column of texts is not there.
    """
    parquet = pq.ParquetFile(raw, pre_buffer=False)
    names = parquet.schema_arrow.names
    if settings.field not in names:
        raise InputError(f"{name}: there is no column {settings.field!r}; the files of a corpus have the same columns")
    columns = [settings.field, *([settings.origin_field] if names.count(settings.origin_field) == 1 else [])]
    row = 0
    for number in range(parquet.num_row_groups):
        group = parquet.metadata.row_group(number)
        if row + group.num_rows <= start:
            row += group.num_rows
            continue
        size = max(1, BATCH_BYTES // max(1, group.total_byte_size // max(1, group.num_rows)))
        for batch in parquet.iter_batches(min(size, 8192), row_groups=[number], columns=columns):
            origins = batch.column(columns[1]) if len(columns) > 1 else None
            for place, text in enumerate(batch.column(columns[0])):
                if row >= start:
                    yield of_row(file, row, name, _value(text), origins and _value(origins[place]))
                row += 1


def _value(scalar: Any) -> Any:
    """A value of a column; bytes for a text that is not UTF-8, which Parquet does not check."""
    try:
        return scalar.as_py()
    except UnicodeDecodeError:
        return b""
