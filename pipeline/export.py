"""`instructmill export`: seeds, or the accepted rows of a run, in a form that trainers read.

`backward` turns pairs round, from text to instruction, to train the backward model of instruction backtranslation
(arXiv 2308.06259, section 2.2); it is asked with the same prompt later. `messages` are chats with the paper's system
sentence, so that seed and augmented rows can be put in one file and stay told apart (section 2.3).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.backtranslation_settings import TagSettings
from pipeline.config import Config
from pipeline.engine_settings import Style
from pipeline.errors import InputError, RunStopped
from pipeline.prompting import load_template
from pipeline.report import open_folder
from pipeline.row_writer import require_new, terminated_as_interrupted, whole_file
from pipeline.seeds import parse_seeds, read_seed_text
from pipeline.shards import Commit, read_tables
from pipeline.storage import OBJECT_STORES, Folder, folder_at

BATCH = 10_000
_MESSAGE = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))


class Row(NamedTuple):
    """One instruction with one of its instances."""

    id: str
    instruction: str
    input: str
    output: str


def export_rows(
    source: str,
    out: Path,
    format: str,
    style: Style = "chat",
    system: str | None = None,
    config: Config | None = None,
) -> str:
    """Write the pairs of a seed file or of a run (its `data/`) to a new .jsonl or .parquet file, in order; returns a
    sentence. The same input and options give the same bytes.

    `style` is that in which a backward model will be asked: chats, or plain texts. `config` has its prompt and the two
    system sentences; without it, a run's own has, or they are the defaults. `system` takes the sentence's place. Raises
    InputError.
    """
    require_new(out)
    rows, tag, backward = _rows(source, config)
    prompt = _BackwardPrompt(style, backward)
    written = passed_over = 0

    def shaped() -> Iterator[dict[str, Any]]:
        nonlocal written, passed_over
        for row in rows:
            if format == "backward" and row.input:  # its output alone does not give its instruction
                passed_over += 1
                continue
            written += 1
            yield prompt.pair(row) if format == "backward" else _messages(row, tag if system is None else system)

    try:
        with terminated_as_interrupted(), whole_file(out) as stream:
            _write(stream, out.suffix.lower(), shaped(), _schema(format, style))
    except OSError as error:
        raise RunStopped(f"storage failed ({error}); nothing is written: mend it and begin anew") from None
    except KeyboardInterrupt:
        raise RunStopped("interrupted; nothing is written, and the same command begins anew") from None
    over = f"; {passed_over:,} passed over, which have an input" if passed_over else ""
    return f"{written:,} rows of {source} in {out}{over}"


def _rows(source: str, config: Config | None) -> tuple[Iterator[Row], str, str | None]:
    """The pairs, the system sentence of their kind, and the file of the backward prompt where it is not the shipped."""
    tags, backward = (config.tags, config.prompts.backward) if config else (TagSettings(), None)
    remote = source.startswith(OBJECT_STORES)  # seed files are on the disk
    if not remote and (source.startswith("shipped:") or not Path(source).expanduser().is_dir()):
        if not source.startswith("shipped:") and not Path(source).expanduser().is_file():
            raise InputError(f"{source}: there is no such run folder or seed file")
        seeds = parse_seeds(read_seed_text(source), source)
        pairs = (
            Row(f"{seed.id}/{place}", seed.instruction, one.input, one.output)
            for seed in seeds
            for place, one in enumerate(seed.instances)
        )
        return pairs, tags.seed, backward
    manifest, commits = open_folder(source)
    if config is None:
        before = manifest["config"]
        tags, backward = TagSettings(**before.get("tags", {})), before["prompts"].get("backward")
    return _run_rows(folder_at(source), commits), tags.augmented, backward


def _run_rows(folder: Folder, commits: Sequence[Commit]) -> Iterator[Row]:
    for table in read_tables(folder, commits, "data", list(Row._fields)):
        yield from (Row(**row) for row in table.to_pylist())


class _BackwardPrompt:
    """The prompt that a backward model is asked with, and its answer, as TRL reads prompt and completion."""

    def __init__(self, style: Style, file: str | None) -> None:
        self._style = style
        self._template = load_template("backward", file, style)

    def pair(self, row: Row) -> dict[str, Any]:
        text = self._template.render(text=row.output)
        if self._style == "completion":
            return {"prompt": text, "completion": f" {row.instruction}"}
        return {"prompt": [_turn("user", text)], "completion": [_turn("assistant", row.instruction)]}


def _messages(row: Row, system: str) -> dict[str, Any]:
    user = f"{row.instruction}\n\n{row.input}" if row.input else row.instruction
    turns = [_turn("user", user), _turn("assistant", row.output)]
    return {"id": row.id, "messages": [_turn("system", system), *turns] if system else turns}


def _turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def _schema(format: str, style: Style) -> pa.Schema:
    if format == "messages":
        return pa.schema([("id", pa.string()), ("messages", _MESSAGE)])
    kind = pa.string() if style == "completion" else _MESSAGE
    return pa.schema([("prompt", kind), ("completion", kind)])


def _write(stream: BinaryIO, ending: str, rows: Iterator[dict[str, Any]], schema: pa.Schema) -> None:
    if ending == ".jsonl":
        stream.writelines(f"{json.dumps(row, ensure_ascii=False)}\n".encode() for row in rows)
        return
    with pq.ParquetWriter(stream, schema, compression="zstd") as writer:
        while part := list(islice(rows, BATCH)):
            writer.write_table(pa.Table.from_pylist(part, schema=schema))
