"""`instructmill export`: seeds, or the rows of a run, in a form that trainers read.

To one .jsonl or .parquet file, or to a folder in the Hub's layout with a split and a card. The same run and the same
options give the same bytes, and what is interrupted leaves nothing.

`backward` turns pairs round, from text to instruction, to train the backward model of instruction backtranslation
(arXiv 2308.06259, section 2.2); it is asked with the same prompt later. The chat forms begin with the paper's system
sentences, so that seed and augmented rows can be put in one file and stay told apart (section 2.3); but neither rows of
Self-Instruct nor the seeds put before them have one.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.backtranslation_settings import TagSettings
from pipeline.config import Config
from pipeline.engine_settings import Style
from pipeline.errors import InputError, RunStopped
from pipeline.export_card import card
from pipeline.export_folder import BATCH, Written, require_empty, whole_folder, write_shards
from pipeline.export_formats import Form, Shape, shape
from pipeline.export_push import push_folder, require_pushable
from pipeline.export_rows import SEED, Source, open_source
from pipeline.export_split import Split, family, share_that_splits
from pipeline.prompting import Template
from pipeline.row_files import ENDINGS
from pipeline.row_writer import require_new, terminated_as_interrupted, whole_file
from pipeline.shards import MANIFEST
from pipeline.storage import OBJECT_STORES

_FAILED = "storage failed ({}); nothing is written: mend it and begin anew"
_INTERRUPTED = "interrupted; nothing is written, and the same command begins anew"
_DEAR = 0.1  # a split that leaves out more than this share of the rows is warned of


@dataclass(frozen=True)
class HubFolder:
    """How a folder is laid out, and where it goes. `test_share` is the share of families (0 to below 1) for testing,
    `shard_rows` the most rows in one file, `push` the data set on the hub ("OWNER/NAME") that gets the folder."""

    test_share: float = 0.02
    shard_rows: int = 100_000
    license: str | None = None
    languages: tuple[str, ...] = ()
    push: str | None = None
    public: bool = False


def export_rows(
    source: str,
    out: Path,
    format: Form,
    style: Style | None = None,
    system: str | None = None,
    config: Config | None = None,
    *,
    seeds: bool = False,
    folder: HubFolder | None = None,
) -> str:
    """Write the pairs of a seed file or of a run, in order, to a new .jsonl or .parquet file, or to a new folder;
    returns a sentence.

    `style` is chats or plain texts, in the forms that have both. `config` has the backward prompt and the two system
    sentences; without it, a run's own has, or they are the defaults. `system` takes the sentence's place. `seeds` puts
    the run's seeds before its rows. `folder` is for a folder alone. Raises InputError, and RunStopped where the disk
    fails or somebody interrupts.
    """
    for around in (out, *out.absolute().parents):
        if (around / MANIFEST).exists():
            raise InputError(
                f"{out}: that lies in the run folder {around}, which holds its own rows alone; name another"
            )
    as_folder = _is_folder(out)
    if as_folder:
        require_empty(out)
    elif folder is not None:
        raise InputError(
            f"{out}: a split, shards, a card and --push are for a folder; give OUT without an ending, or leave them out"
        )
    else:
        require_new(out)
    options = folder or HubFolder()
    if options.push is not None:
        require_pushable(options.push)
    given = open_source(source, scored=format == "kto", seeds=seeds)
    tags, backward = _sentences(given, config)
    form = shape(format, style, system, tags, backward)
    try:
        with terminated_as_interrupted():
            told = _to_folder(given, out, form, options) if as_folder else _to_file(given, out, form)
    except OSError as error:
        raise RunStopped(_FAILED.format(error)) from None
    except KeyboardInterrupt:
        raise RunStopped(_INTERRUPTED) from None
    if given.going:
        told += "; the run is still going, and these are the rows it had committed"
    if options.push is not None:
        address = push_folder(out, options.push, public=options.public, message=f"The rows of {given.name}")
        told += f"; sent to {address}"
    return told


def _is_folder(out: Path) -> bool:
    """Whether a name is a folder's: one that is there, or one without an ending."""
    if str(out).startswith(tuple(store.replace("//", "/") for store in OBJECT_STORES)):
        raise InputError(f"{out}: export writes to a disk of this machine; name a local file or folder, and copy it")
    return out.is_dir() or (out.suffix.lower() not in ENDINGS and not out.suffix[1:].isalpha())


def _sentences(source: Source, config: Config | None) -> tuple[TagSettings, str | Template | None]:
    """The system sentences, and the backward prompt where it is not the shipped one: a file, or as the run keeps it."""
    before = source.manifest["config"] if source.manifest else {}
    tags = TagSettings(**before.get("tags", {})) if config is None else config.tags
    backward: str | Template | None = None if config is None else config.prompts.backward
    if config is None and (own := before.get("prompts", {}).get("backward")):
        kept = (source.manifest or {})["prompts"].get("backward")  # its file may have changed since, or lie elsewhere
        backward = Template("backward", kept["text"], kept["hash"]) if kept else own
    if source.recipe == "self-instruct" and (config is None or config.recipe == "self-instruct"):
        tags = TagSettings(seed="")  # the recipe has no [tags], and a seed's would tell it from rows that have none
    return tags, backward


def _to_folder(source: Source, out: Path, form: Shape, options: HubFolder) -> str:
    with whole_folder(out) as partial:
        split = Split(source, options.test_share)
        written = write_shards(partial, source.rows(), form, split, options.shard_rows)
        _require_train(source, form, written, options.test_share)
        unsplit = options.test_share > 0 and not written.rows["test"]
        how = f"; {_how_to_split(source, form)}" if unsplit else ""
        text = card(
            source,
            form,
            written,
            test_share=options.test_share,
            license=options.license,
            languages=options.languages,
            repo=options.push,
        )
        (partial / "README.md").write_text(text, encoding="utf-8")
    sides = f"{written.rows['train']:,} for training and {written.rows['test']:,} for testing"
    told = f"{written.rows.total():,} rows of {source.name} in {out}: {sides}"
    if written.left_out:
        told += f"; {written.left_out:,} left out, whose parent or child is for testing (--test-share 0 keeps all)"
        share = written.left_out / (written.rows.total() + written.left_out)
        if share > _DEAR:
            remark = "a smaller share leaves out fewer, and 0 none"
            print(f"--test-share {options.test_share:g} leaves out {share:.0%} of the rows: {remark}", file=sys.stderr)
    return told + how + _told(written.passed_over, written.labels)


def _how_to_split(source: Source, form: Shape) -> str:
    """What to ask for where nothing was set aside."""
    rows = (row for row in source.rows() if row.recipe != SEED or source.manifest is None)
    share = share_that_splits(family(row) for row in rows if form.of(row) is not None)
    if share is None:
        return "they are too few, or of one document, so none is for testing"
    return f"the hash set none of so few aside for testing (--test-share {share:g} does)"


def _require_train(source: Source, form: Shape, written: Written, test_share: float) -> None:
    if not written.rows.total():
        raise InputError(_nothing(source, form))
    if not written.rows["train"]:
        raise InputError(
            f"--test-share {test_share:g}: all rows of {source.name} would be for testing, since they are few or "
            "of one document; give --test-share 0"
        )


def _to_file(source: Source, out: Path, form: Shape) -> str:
    rows = passed_over = 0
    labels = {True: 0, False: 0}

    def shaped() -> Iterator[dict[str, Any]]:
        nonlocal rows, passed_over
        for row in source.rows():
            if (values := form.of(row)) is None:
                passed_over += 1
                continue
            rows += 1
            if row.label is not None:
                labels[row.label] += 1
            yield values
        if not rows:
            raise InputError(_nothing(source, form))

    with whole_file(out) as stream:
        _write(stream, out.suffix.lower(), shaped(), form.schema)
    return f"{rows:,} rows of {source.name} in {out}" + _told(passed_over, labels if form.form == "kto" else {})


def _nothing(source: Source, form: Shape) -> str:
    what = "pair with a score of 4 or more, or of 2 or less" if form.form == "kto" else "row without an input"
    return f"{source.name} has no {what}, so --format {form.form} has nothing to write; take another format"


def _told(passed_over: int, labels: dict[bool, int]) -> str:
    """The ends of the sentence."""
    told = f"; {passed_over:,} passed over, which have an input" if passed_over else ""
    return told + (f"; {labels[True]:,} are wanted and {labels[False]:,} unwanted" if labels else "")


def _write(stream: BinaryIO, ending: str, rows: Iterator[dict[str, Any]], schema: pa.Schema) -> None:
    if ending == ".jsonl":
        stream.writelines(f"{json.dumps(row, ensure_ascii=False)}\n".encode() for row in rows)
        return
    with pq.ParquetWriter(stream, schema, compression="zstd") as writer:
        while part := list(islice(rows, BATCH)):
            writer.write_table(pa.Table.from_pylist(part, schema=schema))
