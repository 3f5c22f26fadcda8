"""A data set of the Hugging Face hub, or a folder that `datasets` reads, as rows of a corpus, in streaming mode.

No code of a data set is ever run: `datasets` reads data files only.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pipeline.backtranslation_settings import CorpusSettings
from pipeline.errors import InputError

PREFIX = "dataset:"


def identify(settings: CorpusSettings, known: Sequence[tuple[str, int, int, str]]) -> tuple[str, int, int, str]:
    """Name, size in bytes (-1 unknown), time in ns (0 unknown) and stamp of a data set: the hub's commit, or a hash of
    the folder's files, taken from `known` where name, size and time are the same.

    Raises InputError where the data set, its split or its field is not there, or `datasets` is not installed.
    """
    where = _where(settings)
    if os.path.exists(where):
        name = ":".join(part for part in (Path(where).resolve().name, settings.subset, settings.split) if part)
        files = _files(Path(where))
        facts = [path.stat() for path in files]
        size, modified = sum(one.st_size for one in facts), max((one.st_mtime_ns for one in facts), default=0)
        stamp = next((one[3] for one in known if one[:3] == (name, size, modified)), None) or _hash(Path(where), files)
    else:
        name = ":".join(part for part in (where, settings.subset, settings.split) if part)
        before = next((one[3] for one in known if one[0] == name), None)
        # As with models: what an unnamed revision stood for when the run was planned, it stands for ever after.
        size, modified, stamp = -1, 0, before if before and settings.revision is None else _commit(settings)
    _require_field(settings, stamp)
    return name, size, modified, stamp


def read(settings: CorpusSettings, stamp: str, start: int) -> Iterator[tuple[int, Any, Any]]:
    """Number from 0, text and origin of each row from `start` on; a value is None where the row lacks the field."""
    rows = _opened(settings, stamp)
    wanted = [name for name in (settings.field, settings.origin_field) if name in (rows.column_names or ())]
    if wanted:  # pictures and sounds beside the text are not decoded then
        rows = rows.select_columns(wanted)
    try:
        for number, row in enumerate(rows.skip(start) if start else rows, start):
            yield number, row.get(settings.field), row.get(settings.origin_field)
    except Exception as error:  # of the hub, of the network, and of each format that `datasets` reads
        raise InputError(f"{settings.source}: reading stopped ({_why(error)})") from error


def _where(settings: CorpusSettings) -> str:
    where = os.path.expanduser((settings.source or "").removeprefix(PREFIX))
    if not where:
        raise InputError(f"corpus.source is {settings.source!r}; write dataset:NAME, as in dataset:allenai/c4")
    return where


def _opened(settings: CorpusSettings, stamp: str) -> Any:
    try:
        from datasets import load_dataset
    except ImportError:
        raise InputError(
            f"{settings.source}: the package datasets, which reads it, is not installed; install it"
        ) from None
    where = _where(settings)
    revision = None if os.path.exists(where) else stamp
    try:
        return load_dataset(where, settings.subset, split=settings.split, revision=revision, streaming=True)
    except Exception as error:  # of the hub, of the network, and of each format that `datasets` reads
        raise InputError(f"{settings.source}, split {settings.split!r}: cannot be opened ({_why(error)})") from error


def _require_field(settings: CorpusSettings, stamp: str) -> None:
    """Raises InputError where the data set has no row, or its first one lacks the field."""
    rows = _opened(settings, stamp)
    try:
        first = next(iter(rows), None)
    except Exception as error:  # as above
        raise InputError(f"{settings.source}: cannot be read ({_why(error)})") from error
    if first is None:
        raise InputError(f"{settings.source}: split {settings.split!r} holds no row")
    if settings.field not in first:
        listed = ", ".join(list(first)[:12])
        raise InputError(f"{settings.source}: there is no column {settings.field!r}; it has {listed}: set corpus.field")


def _commit(settings: CorpusSettings) -> str:
    """The commit on the hub that a revision means now."""
    where = _where(settings)
    try:
        from huggingface_hub import HfApi
    except ImportError:
        raise InputError(
            f"{settings.source}: the package datasets, which reads it, is not installed; install it"
        ) from None
    try:
        return str(HfApi().dataset_info(where, revision=settings.revision).sha)
    except Exception as error:  # the hub's client has errors of several roots
        raise InputError(
            f"{settings.source}: there is no such folder here, and the hub does not give it ({_why(error)})"
        ) from error


def _files(folder: Path) -> list[Path]:
    """In order; hidden ones and those in hidden folders are no part of a data set."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return sorted(path for path in paths if not any(part[0] == "." for part in path.relative_to(folder).parts))


def _hash(folder: Path, files: Sequence[Path]) -> str:
    entries = []
    for path in files:
        try:
            with path.open("rb") as file:
                entries.append([path.relative_to(folder).as_posix(), hashlib.file_digest(file, "sha256").hexdigest()])
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    return hashlib.sha256(json.dumps(entries).encode()).hexdigest()


def _why(error: Exception) -> str:
    return (
        f"{type(error).__name__}: {str(error).strip().splitlines()[0][:200] if str(error).strip() else 'no word why'}"
    )
