"""The corpus: which files it is, what identifies them, and their documents in order.

Local paths, globs and folders, whatever fsspec reaches by a URL, and data sets read with `datasets` in streaming mode
(`pipeline/dataset_rows.py`). Files are in order of their names; hidden ones are passed over. Memory holds one document,
or one batch of rows.
"""

from __future__ import annotations

import glob
import hashlib
import io
import json
import lzma
import os
import time
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO
from urllib.parse import urlsplit

import pyarrow as pa
from fsspec.compression import compr
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from pipeline import dataset_rows
from pipeline.backtranslation_settings import CorpusSettings
from pipeline.console import write_line
from pipeline.documents import Document, of_file, of_line, of_row, refused
from pipeline.errors import InputError
from pipeline.parquet_rows import read_rows, require_column
from pipeline.records import Unfit
from pipeline.segmenting import Kind

KINDS = {
    **dict.fromkeys((".jsonl", ".ndjson", ".jsonlines", ".json-lines"), "jsonl"),
    ".parquet": "parquet",
    **dict.fromkeys((".txt", ".text"), "plain"),
    **dict.fromkeys((".md", ".markdown"), "markdown"),
    **dict.fromkeys((".html", ".htm", ".xhtml"), "html"),
}
SHIPPED = "shipped:texts"  # the demo's corpus
READ = "what is read is .jsonl, .parquet, .txt, .md and .html, the text ones also with .gz, .bz2, .xz or .zst"
COMPRESSED = {".gz": "gzip", ".bz2": "bz2", ".xz": "xz", ".zst": "zstd"}
OF_MIME_TYPES = {"text/html": ".html", "application/xhtml+xml": ".html", "text/plain": ".txt", "text/markdown": ".md"}
IDENTIFYING_S = 2.0  # between two lines about it
_VERSION_KEYS = ("etag", "content-md5", "last-modified", "lastmodified", "mtime", "modified", "updated", "generation")


@dataclass(frozen=True, slots=True)
class CorpusFile:
    """A file of a corpus and what identifies its content.

    `name` is its path under the corpus's root, with "/"; of a data set, its name and split. `size` is in bytes, -1
    where a server does not say. `modified` is the local file's time in ns, 0 elsewhere. `stamp` is the sha256 of a
    local file; elsewhere what the storage says about the version, and of a data set the commit.
    """

    name: str
    size: int
    modified: int
    stamp: str


@dataclass(frozen=True)
class Corpus:
    """The files of a corpus in order, where each is, and how many were passed over, by the ending of their names."""

    settings: CorpusSettings
    files: tuple[CorpusFile, ...]
    passed_over: dict[str, int] = field(default_factory=dict)
    paths: tuple[str, ...] = ()

    @property
    def fingerprint(self) -> str:
        """Of names, sizes and contents in order, in hexadecimal; the files' times and place do not count."""
        facts = [[file.name, file.size, file.stamp] for file in self.files]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()

    @property
    def bytes(self) -> int:
        """Of all files as they are stored, as far as that is known."""
        return sum(max(file.size, 0) for file in self.files)


@dataclass(frozen=True, slots=True)
class _Found:
    """A file before it is identified; `facts` are what the storage says about it."""

    name: str
    path: str
    facts: dict[str, Any]


def open_corpus(settings: CorpusSettings, known: Sequence[CorpusFile] = (), *, stamped: bool = True) -> Corpus:
    """Find the files of a corpus and identify each by its content; not so local ones unless `stamped`.

    A local file whose name, size and time are those of one in `known` keeps its stamp unread. Says on stderr how far it
    is, where it takes longer than some seconds. Raises InputError, naming
    the source or file, where there is nothing to read or something cannot be read.
    """
    source = settings.source
    if not source:
        raise InputError("corpus.source is not set; name a file, a folder, a glob, a URL or dataset:NAME")
    if source.startswith(dataset_rows.PREFIX):
        name, size, modified, stamp = dataset_rows.identify(
            settings, [(one.name, one.size, one.modified, one.stamp) for one in known]
        )
        return Corpus(settings, (CorpusFile(name, size, modified, stamp),))
    fs, path = _storage(source)
    local = isinstance(fs, LocalFileSystem)
    with _failing_as(source):
        found = _local_files(path) if local else _remote_files(fs, path, source)
    found, passed_over = _chosen(found, source)
    stamps = {(file.name, file.size, file.modified): file.stamp for file in known}
    files: list[CorpusFile] = []
    drawn = time.monotonic()
    for number, one in enumerate(found):
        if time.monotonic() - drawn >= IDENTIFYING_S:
            drawn = time.monotonic()
            write_line(f"identifying the corpus: file {number + 1:,} of {len(found):,}")
        with _failing_as(one.path):
            files.append(_local_file(one, stamps, stamped) if local else _remote_file(fs, one))
            if _kind_of(one.name)[0] == "parquet" and (local or number == 0):
                require_column(fs, one.path, settings)
    return Corpus(settings, tuple(files), passed_over, tuple(one.path for one in found))


def changed_file(before: Sequence[CorpusFile], now: Sequence[CorpusFile]) -> str | None:
    """The first difference between two states of a corpus in words ("guide.md has changed"), or None."""
    was = {file.name: (file.size, file.stamp) for file in before}
    is_now = {file.name: (file.size, file.stamp) for file in now}
    for name in sorted({*was, *is_now}):
        if name not in is_now:
            return f"{name} is gone"
        if name not in was:
            return f"{name} is new"
        if was[name] != is_now[name]:
            return f"{name} has changed"
    return None


def read_documents(corpus: Corpus, file: int = 0, row: int = 0) -> Iterator[Document]:
    """The documents from row `row` of file number `file` on, to the end of the corpus.

    Raises InputError naming a file that cannot be read.
    """
    settings = corpus.settings
    limit = int(settings.max_document_mib * (1 << 20))
    if settings.source and settings.source.startswith(dataset_rows.PREFIX):
        for entry in corpus.files[file:]:
            for number, text, origin in dataset_rows.read(settings, entry.stamp, row):
                yield _within(of_row(file, number, entry.name, text, origin), limit)
        return
    fs, _ = _storage(settings.source or "")
    for number in range(file, len(corpus.files)):
        name, path = corpus.files[number].name, corpus.paths[number]
        kind, compression = _kind_of(name)
        start = row if number == file else 0
        with _failing_as(path), fs.open(path, "rb", compression=compression) as raw:
            if kind == "parquet":
                documents = read_rows(raw, number, name, settings, start)
            elif kind == "jsonl":
                documents = _json_lines(_buffered(raw), number, name, settings, start, limit)
            else:
                known_size = -1 if compression else corpus.files[number].size
                documents = _whole(_buffered(raw), number, name, kind, limit, known_size) if start == 0 else iter(())
            _require_same(fs, path, corpus.files[number])
            for document in documents:
                yield _within(document, limit)
            _require_same(fs, path, corpus.files[number])  # it may have changed while it was read


def _require_same(fs: Any, path: str, file: CorpusFile) -> None:
    """Raises InputError where a local file is another than the one that was identified."""
    if not isinstance(fs, LocalFileSystem):
        return
    facts = os.stat(path)
    if (facts.st_size, facts.st_mtime_ns) != (file.size, file.modified):
        raise InputError(
            f"{path}: the file has changed since the corpus was identified, and may have been read in part; begin "
            "again in another folder, with a corpus that stays as it is"
        )


# Files


def _storage(source: str) -> tuple[Any, str]:
    """The file system that reaches a source, and the path in it."""
    try:
        if source == SHIPPED:
            source = str(Path(__file__).resolve().parent.parent / "embedded" / "texts")
        return url_to_fs(os.path.expanduser(source))  # type: ignore[no-any-return]
    except ImportError as error:
        raise InputError(f"{source}: a package that reads it is not installed ({error}); install it") from None
    except (ValueError, OSError) as error:
        raise InputError(f"{source}: cannot be reached ({_why(error)}); is the address right?") from None


@contextmanager
def _failing_as(path: str) -> Iterator[None]:
    """Whatever goes wrong with reading becomes InputError naming the path."""
    try:
        yield
    except (InputError, TypeError, AttributeError, LookupError, AssertionError, MemoryError):
        raise  # the last ones are bugs
    except FileNotFoundError:
        raise InputError(f"{path}: there is nothing there, or its server cannot be reached") from None
    except (OSError, EOFError, zlib.error, lzma.LZMAError, pa.ArrowException) as error:
        raise InputError(f"{path}: cannot be read ({_why(error)})") from None
    except Exception as error:  # each kind of storage has errors of its own, with no common root
        raise InputError(f"{path}: cannot be read ({type(error).__name__}: {_why(error)})") from error


def _why(error: Exception) -> str:
    reason = getattr(error, "strerror", None) or str(error)
    return reason.strip().split("\n")[0][:200] or type(error).__name__


def _local_files(path: str) -> list[_Found]:
    if os.path.isdir(path):
        return [_local(name, os.path.join(path, name)) for name in _names_under(path)]
    if os.path.exists(path):
        return [_local(os.path.basename(path), path)]
    if glob.has_magic(path):
        before = path[: min(place for place in map(path.find, "*?[") if place >= 0)]
        root = os.path.dirname(before) or "."
        matches = [match for match in glob.iglob(path, recursive=True) if not os.path.isdir(match)]
        return [_local(os.path.relpath(match, root), match) for match in matches]
    raise InputError(f"{path}: there is no such file or folder")


def _local(name: str, path: str) -> _Found:
    # A name that is not UTF-8 is written with escapes, since it goes into ids.
    return _Found(os.fsencode(name).decode("utf-8", "backslashreplace").replace(os.sep, "/"), path, {})


def _names_under(folder: str) -> Iterator[str]:
    """The files under a folder by their paths in it; linked folders too, but no folder twice."""

    def fail(error: OSError) -> None:
        raise InputError(f"{error.filename}: cannot be read ({error.strerror})")

    seen = {os.path.realpath(folder)}
    for here, folders, names in os.walk(folder, onerror=fail, followlinks=True):
        kept = []
        for name in sorted(folders):
            real = os.path.realpath(os.path.join(here, name))
            if not name.startswith(".") and real not in seen:
                seen.add(real)
                kept.append(name)
        folders[:] = kept
        yield from (os.path.relpath(os.path.join(here, name), folder) for name in names if not name.startswith("."))


def _remote_files(fs: Any, path: str, source: str) -> list[_Found]:
    if "*" in path:
        listed = fs.glob(path, detail=True)
        root = path[: path.find("*")].rsplit("/", 1)[0]
    else:
        facts = fs.info(path)
        if facts.get("type") != "directory":
            return [_Found(_name_of_url(path, facts), path, facts)]
        listed, root = fs.find(path, detail=True), path
    root = root.rstrip("/") + "/"
    return [
        _Found(where.removeprefix(root), where, facts)
        for where, facts in listed.items()
        if facts.get("type") != "directory" and not any(part[:1] == "." for part in where.removeprefix(root).split("/"))
    ]


def _name_of_url(path: str, facts: dict[str, Any]) -> str:
    """The last part of a path, without a query; one without a known ending gets that of its server's media type."""
    name = PurePosixPath(urlsplit(path).path).name or "page"
    mime_type = str(facts.get("mimetype", "")).split(";")[0].strip()
    return name if _kind_of(name)[0] else name + OF_MIME_TYPES.get(mime_type, "")


def _kind_of(name: str) -> tuple[Any, str | None]:
    """What a file holds by the ending of its name, None where that is not known, and how it is compressed."""
    path = PurePosixPath(name.lower())
    compression = COMPRESSED.get(path.suffix)
    kind = KINDS.get(PurePosixPath(path.stem).suffix if compression else path.suffix)
    return (None, None) if kind == "parquet" and compression else (kind, compression)


def _chosen(found: list[_Found], source: str) -> tuple[list[_Found], dict[str, int]]:
    """The files of known kinds in order of their names, and the endings of the others with their counts."""
    chosen = sorted((one for one in found if _kind_of(one.name)[0]), key=lambda one: one.name)
    others = Counter(PurePosixPath(one.name).suffix.lower() or "(none)" for one in found if not _kind_of(one.name)[0])
    if not found:
        raise InputError(f"{source}: there is no file; {READ}")
    if not chosen:
        there = ", ".join(f"{count} {ending}" for ending, count in others.most_common(6))
        raise InputError(f"{source}: no file of a known kind; there is {there}, but {READ}")
    for one in chosen:
        compression = _kind_of(one.name)[1]
        if compression and compression not in compr:
            raise InputError(f"{one.path}: the package zstandard, which reads it, is not installed; install it")
    return chosen, dict(others.most_common())


def _local_file(one: _Found, stamps: dict[tuple[str, int, int], str], stamped: bool) -> CorpusFile:
    facts = os.stat(one.path)
    stamp = stamps.get((one.name, facts.st_size, facts.st_mtime_ns)) if stamped else ""
    if stamp is None:
        with open(one.path, "rb") as file:
            stamp = hashlib.file_digest(file, "sha256").hexdigest()
    return CorpusFile(one.name, facts.st_size, facts.st_mtime_ns, stamp)


def _remote_file(fs: Any, one: _Found) -> CorpusFile:
    facts = {key.lower(): value for key, value in (one.facts or fs.info(one.path)).items()}
    size = int(facts["size"]) if facts.get("size") is not None else -1
    version = [str(facts[key]) for key in _VERSION_KEYS if facts.get(key)]
    stamp = hashlib.sha256(json.dumps([size, *version]).encode()).hexdigest()
    return CorpusFile(one.name, size, 0, stamp)


# Documents


def _buffered(raw: Any) -> BinaryIO:
    return io.BufferedReader(raw, 1 << 20)


def _within(document: Document, limit: int) -> Document:
    """The document, or its refusal where its text is larger than `limit` bytes."""
    if document.text is None or document.bytes <= limit:
        return document
    return refused(document.file, document.row, document.name, Unfit.TOO_LARGE, document.bytes, document.kind)


def _whole(stream: BinaryIO, file: int, name: str, kind: Kind, limit: int, size: int) -> Iterator[Document]:
    """A file of text as its one document; where it is known to be too large, nothing is read."""
    data = b"" if size > limit else stream.read(limit + 1)
    if size > limit or len(data) > limit:
        yield refused(file, 0, name, Unfit.TOO_LARGE, len(data), kind)
    else:
        yield of_file(file, name, kind, data)


def _json_lines(
    stream: BinaryIO, file: int, name: str, settings: CorpusSettings, start: int, limit: int
) -> Iterator[Document]:
    """A document for each line that is not blank; a line too large is read past without being held."""
    row = -1
    while line := stream.readline(limit + 1):
        row += 1
        size, whole, end = len(line), len(line) <= limit, line[-1:]
        while end != b"\n" and (more := stream.readline(1 << 20)):
            size, whole, end = size + len(more), False, more[-1:]
        if row < start:
            continue
        if not whole:
            yield refused(file, row, f"{name}#{row + 1}", Unfit.TOO_LARGE, size)
        elif line.strip():
            yield of_line(file, row, name, line, settings.field, settings.origin_field)
