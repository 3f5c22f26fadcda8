"""The corpus: every kind of file and place it can come from, what identifies it, and bad input as a person meets it."""

from __future__ import annotations

import bz2
import gzip
import http.server
import json
import lzma
import os
import sys
import threading
import tracemalloc
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import sources
from pipeline.backtranslation_settings import CorpusSettings
from pipeline.documents import Document
from pipeline.errors import InputError
from pipeline.records import Unfit
from pipeline.sources import changed_file, open_corpus, read_documents

LARGE = 50 << 20


def documents(source: object, **settings: Any) -> list[Document]:
    """All documents of a source."""
    return list(read_documents(open_corpus(CorpusSettings(source=str(source), **settings))))


def told(source: object, **settings: Any) -> str:
    """The one sentence about a source that cannot be read."""
    with pytest.raises(InputError) as raised:
        documents(source, **settings)
    text = str(raised.value)
    assert "\n" not in text
    return text


def parquet(path: Path, texts: list[Any], group: int = 3, **columns: list[Any]) -> Path:
    """A Parquet file with a column of texts, in row groups of a few rows."""
    pq.write_table(pa.table({"text": texts, **columns}), path, row_group_size=group)
    return path


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A web server of this machine, and the folder it serves."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    folder = tmp_path / "served"
    folder.mkdir()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=partial(server.serve_forever, poll_interval=0.02))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", folder
    server.shutdown()
    server.server_close()
    thread.join()


# Kinds


def test_json_lines(tmp_path: Path) -> None:
    """Each line is a document named by its number; blank ones are passed over, and the origin field is carried."""
    lines = ['{"text": "one", "url": "http://a"}', "", '{"text": "two", "url": 7}', '{"text": "three"}']
    (tmp_path / "a.jsonl").write_text("\ufeff" + "\r\n".join(lines), newline="")
    found = documents(tmp_path / "a.jsonl")

    assert [(one.name, one.row, one.text, one.origin) for one in found] == [
        ("a.jsonl#1", 0, "one", "http://a"),
        ("a.jsonl#3", 2, "two", "7"),
        ("a.jsonl#4", 3, "three", ""),
    ]
    assert {one.kind for one in found} == {"plain"}


@pytest.mark.parametrize(
    ("line", "unfit"),
    [
        (b'{"text": ', Unfit.MALFORMED),
        (b"[" * 100_000, Unfit.MALFORMED),
        (b'["a"]', Unfit.MALFORMED),
        (b'{"other": "a"}', Unfit.MALFORMED),
        (b'{"text": null}', Unfit.MALFORMED),
        (b'{"text": 3}', Unfit.MALFORMED),
        (b'{"text": "a\xff"}', Unfit.NOT_TEXT),
        (b'{"text": "a\\u0000"}', Unfit.NOT_TEXT),
        (b'{"text": "a\\ud800"}', Unfit.NOT_TEXT),
        ('{"text": "a"}'.encode("utf-16"), Unfit.NOT_TEXT),
        (b'{"text": "' + b"x" * 2000 + b'"}', Unfit.TOO_LARGE),
    ],
)
def test_a_bad_line_is_counted_and_the_rest_is_read(tmp_path: Path, line: bytes, unfit: Unfit) -> None:
    """A line that holds no text is a refused document, between two that are read."""
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "a"}\n' + line + b'\n{"text": "z"}\n')
    limit = 1000 / (1 << 20) if unfit == Unfit.TOO_LARGE else 1
    found = documents(tmp_path / "a.jsonl", max_document_mib=limit)

    assert [one.text for one in found] == ["a", *[None] * (len(found) - 2), "z"]
    assert {one.unfit for one in found[1:-1]} == {unfit}


def test_parquet(tmp_path: Path) -> None:
    """Rows of a Parquet file, over the edges of its row groups, with what holds no text refused."""
    path = parquet(tmp_path / "a.parquet", ["one", None, "", "a\0b", "x" * 5000], url=["u", None, "v", "w", "y"])
    found = documents(path, max_document_mib=0.001)

    assert [(one.name, one.text, one.unfit, one.origin) for one in found] == [
        ("a.parquet#1", "one", None, "u"),
        ("a.parquet#2", None, Unfit.MALFORMED, ""),
        ("a.parquet#3", "", None, "v"),
        ("a.parquet#4", None, Unfit.NOT_TEXT, ""),
        ("a.parquet#5", None, Unfit.TOO_LARGE, ""),
    ]


def test_parquet_of_bytes_that_are_no_text(tmp_path: Path) -> None:
    """A string of Parquet that is not UTF-8 is refused, and its neighbours are read."""
    texts = pa.array([b"one", b"\xff\xfe", b"two"]).cast(pa.binary()).view(pa.string())
    pq.write_table(pa.table({"text": texts}), tmp_path / "a.parquet")

    assert [one.text for one in documents(tmp_path / "a.parquet")] == ["one", None, "two"]


def test_files_of_text(tmp_path: Path) -> None:
    """Text, Markdown and HTML are one document each, in order of their names, whatever the case of the ending."""
    for name in ("b.TXT", "c.html", "a.md"):
        (tmp_path / name).write_text(f"# {name}")

    assert [(one.name, one.kind, one.text) for one in documents(tmp_path)] == [
        ("a.md", "markdown", "# a.md"),
        ("b.TXT", "plain", "# b.TXT"),
        ("c.html", "html", "# c.html"),
    ]


@pytest.mark.parametrize(("ending", "press"), [("gz", gzip.compress), ("bz2", bz2.compress), ("xz", lzma.compress)])
def test_compressed_files(tmp_path: Path, ending: str, press: Any) -> None:
    """Compressed text and JSON lines read as they would uncompressed."""
    (tmp_path / f"a.md.{ending}").write_bytes(press(b"# A\ntext"))
    (tmp_path / f"b.jsonl.{ending}").write_bytes(press(b'{"text": "one"}\n{"text": "two"}'))
    found = documents(tmp_path)

    assert [one.text for one in found] == ["# A\ntext", "one", "two"]
    assert [one.name for one in found] == [f"a.md.{ending}", f"b.jsonl.{ending}#1", f"b.jsonl.{ending}#2"]


def test_a_file_cut_off_in_its_compression_is_named(tmp_path: Path) -> None:
    """A damaged archive is one sentence with the file in it."""
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(json.dumps({"text": os.urandom(999).hex()}).encode())[:-300])

    assert "a.jsonl.gz: cannot be read" in told(tmp_path)


def test_zstd_needs_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without zstandard a .zst file is one sentence, and not passed over."""
    monkeypatch.delitem(sources.compr, "zstd", raising=False)
    (tmp_path / "a.jsonl.zst").write_bytes(b"")

    assert "zstandard" in told(tmp_path)


# Encodings


@pytest.mark.parametrize(
    ("data", "kind", "text"),
    [
        ("héé".encode(), "txt", "héé"),
        ("héé".encode("utf-8-sig"), "md", "héé"),
        ("héé".encode("utf-16"), "txt", "héé"),
        (b"\xfe\xff" + "héé".encode("utf-16-be"), "txt", "héé"),
        ("héé".encode("utf-32"), "txt", "héé"),
        ("héé".encode("latin-1"), "txt", None),
        (b"\x00\x01\x02 binary", "md", None),
        (os.urandom(4000), "html", None),
        ('<meta charset="iso-8859-1"><p>h\u201céé'.encode("cp1252"), "html", '<meta charset="iso-8859-1"><p>h\u201céé'),
        ('<meta http-equiv=x content="text/html; charset=Shift_JIS"><p>日本'.encode("shift_jis"), "html", "日本"),
        ('<meta charset="rot13"><p>é'.encode(), "html", '<meta charset="rot13"><p>é'),
        ('<meta charset="utf-8"><p>é'.encode("latin-1"), "html", None),
    ],
)
def test_encodings(tmp_path: Path, data: bytes, kind: str, text: str | None) -> None:
    """By byte-order mark, by what a page declares, else UTF-8; what cannot be read so is counted as no text."""
    (tmp_path / f"a.{kind}").write_bytes(data)
    (tmp_path / "z.txt").write_text("after")
    found = documents(tmp_path)

    assert found[1].text == "after"
    if text is None:
        assert (found[0].text, found[0].unfit) == (None, Unfit.NOT_TEXT)
    else:
        assert found[0].text is not None
        assert found[0].text.endswith(text)


# Where it is


def test_folders_and_hidden_files(tmp_path: Path) -> None:
    """Files under a folder are named by their paths in it; hidden ones are no part of it, others are counted."""
    for name in ("b/c/x.md", "a.md", ".git/y.md", ".z.md", "b/.w/v.md", "pic.PNG", "b/q.png", "LICENSE"):
        (tmp_path / "corpus" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "corpus" / name).write_text(name)
    corpus = open_corpus(CorpusSettings(source=str(tmp_path / "corpus")))

    assert [file.name for file in corpus.files] == ["a.md", "b/c/x.md"]
    assert corpus.passed_over == {".png": 2, "(none)": 1}
    assert corpus.bytes == len("a.md") + len("b/c/x.md")


def test_links_in_a_circle(tmp_path: Path) -> None:
    """Linked files and folders are read, each folder once."""
    (tmp_path / "c" / "in").mkdir(parents=True)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "o.md").write_text("o")
    (tmp_path / "c" / "in" / "i.md").write_text("i")
    (tmp_path / "c" / "in" / "loop").symlink_to("..")
    (tmp_path / "c" / "there").symlink_to("../out")
    (tmp_path / "c" / "l.md").symlink_to("in/i.md")

    assert [one.name for one in documents(tmp_path / "c")] == ["in/i.md", "l.md", "there/o.md"]


def test_globs(tmp_path: Path) -> None:
    """A glob's files are named from the last folder before its first mark."""
    for name in ("a/x.md", "b/x.md", "b/y.txt", "b/c/z.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)

    assert [one.name for one in documents(tmp_path / "*" / "*.md")] == ["a/x.md", "b/x.md"]
    assert [one.name for one in documents(tmp_path / "b" / "**" / "*.md")] == ["c/z.md", "x.md"]


def test_a_url(served: tuple[str, Path]) -> None:
    """Files of every kind are read over HTTP, one without an ending by its server's media type."""
    address, folder = served
    (folder / "a.jsonl").write_text('{"text": "one"}\n{"text": "two"}\n')
    parquet(folder / "p.parquet", ["three"])
    (folder / "index.html").write_text("<p>four")

    assert [one.text for one in documents(f"{address}/a.jsonl?download=true")] == ["one", "two"]
    assert [one.text for one in documents(f"{address}/p.parquet")] == ["three"]
    assert [(one.name, one.text) for one in documents(f"{address}/")] == [("page.html", "<p>four")]


def test_a_url_that_changed(served: tuple[str, Path]) -> None:
    """What a server says of a file identifies it: the same twice, another when it was written again."""
    address, folder = served
    settings = CorpusSettings(source=f"{address}/a.txt")
    (folder / "a.txt").write_text("one")
    os.utime(folder / "a.txt", (1e9, 1e9))
    first, again = open_corpus(settings), open_corpus(settings)
    os.utime(folder / "a.txt", (1e9, 1.1e9))
    second = open_corpus(settings)

    assert first.fingerprint == again.fingerprint != second.fingerprint
    assert changed_file(first.files, second.files) == "a.txt has changed"


def test_a_url_that_is_not_there(served: tuple[str, Path]) -> None:
    """A missing page and a server that does not answer are one sentence each."""
    assert "nope.md: there is nothing there" in told(f"{served[0]}/nope.md")
    assert "cannot be reached" in told("http://127.0.0.1:9/x.md")


def test_another_file_system() -> None:
    """A folder of any file system that fsspec knows is read like a local one."""
    store = fsspec.filesystem("memory")
    store.pipe({"/corpus/b/x.md": b"x", "/corpus/a.txt": b"a", "/corpus/.h.md": b"h", "/corpus/n.pdf": b"n"})
    try:
        corpus = open_corpus(CorpusSettings(source="memory://corpus"))
        assert [file.name for file in corpus.files] == ["a.txt", "b/x.md"]
        assert [one.text for one in read_documents(corpus)] == ["a", "x"]
        assert corpus.passed_over == {".pdf": 1}
        assert [one.name for one in documents("memory://corpus/*.txt")] == ["a.txt"]
    finally:
        store.rm("/corpus", recursive=True)


# What identifies it


def test_the_fingerprint_is_of_content(tmp_path: Path) -> None:
    """Time and place do not count; names, contents and order do."""
    for place in ("one", "two"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "a.md").write_text("a")
        (tmp_path / place / "b.md").write_text("b")
    os.utime(tmp_path / "two" / "a.md", (1, 1))
    prints = [open_corpus(CorpusSettings(source=str(tmp_path / place))).fingerprint for place in ("one", "two")]
    (tmp_path / "two" / "a.md").rename(tmp_path / "two" / "c.md")
    moved = open_corpus(CorpusSettings(source=str(tmp_path / "two"))).fingerprint

    assert prints[0] == prints[1] != moved


def test_what_changed_is_named(tmp_path: Path) -> None:
    """The first file that changed, is new or is gone, in order of names; None where nothing did."""
    settings = CorpusSettings(source=str(tmp_path))
    (tmp_path / "b.md").write_text("b")
    (tmp_path / "c.md").write_text("c")
    before = open_corpus(settings).files
    assert changed_file(before, open_corpus(settings, before).files) is None

    (tmp_path / "c.md").write_text("d")
    assert changed_file(before, open_corpus(settings, before).files) == "c.md has changed"
    (tmp_path / "b.md").unlink()
    assert changed_file(before, open_corpus(settings, before).files) == "b.md is gone"
    (tmp_path / "a.md").write_text("a")
    assert changed_file(before, open_corpus(settings, before).files) == "a.md is new"


def test_known_files_are_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file whose name, size and time are known keeps its stamp; one with another time is read."""
    (tmp_path / "a.md").write_text("a")
    (tmp_path / "b.md").write_text("b")
    settings = CorpusSettings(source=str(tmp_path))
    known = open_corpus(settings).files
    os.utime(tmp_path / "b.md", (5, 5))
    digested = []
    digest = sources.hashlib.file_digest
    monkeypatch.setattr(
        sources.hashlib, "file_digest", lambda file, how: digested.append(file.name) or digest(file, how)
    )
    again = open_corpus(settings, known).files

    assert digested == [str(tmp_path / "b.md")]
    assert [file.stamp for file in again] == [file.stamp for file in known]


# Beginning in the middle


@pytest.mark.parametrize("kind", ["jsonl", "jsonl.gz", "parquet"])
def test_reading_on_from_any_row(tmp_path: Path, kind: str) -> None:
    """From any row of any file the rest comes, as it does when all is read."""
    rows = [json.dumps({"text": f"t{n}"}) if n % 3 else "" for n in range(8)]
    for name in ("a", "b"):
        path = tmp_path / f"{name}.{kind}"
        if kind == "parquet":
            parquet(path, [f"t{n}" for n in range(8)])
        else:
            path.write_bytes((gzip.compress if kind.endswith("gz") else bytes)("\n".join(rows).encode()))
    (tmp_path / "aa.md").write_text("whole")
    corpus = open_corpus(CorpusSettings(source=str(tmp_path)))
    everything = list(read_documents(corpus))

    for file in range(3):
        for row in range(10):
            rest = [one for one in everything if (one.file, one.row) >= (file, row)]
            assert list(read_documents(corpus, file, row)) == rest


# Data sets


def test_a_data_set(tmp_path: Path) -> None:
    """A folder that `datasets` reads gives its rows, from any of them on, and is identified by its files."""
    (tmp_path / "mine").mkdir()
    lines = [json.dumps({"body": f"text {n}", "where": f"w{n}", "more": n}) for n in range(5)]
    (tmp_path / "mine" / "train.jsonl").write_text("\n".join([*lines, '{"body": null}']))
    settings = CorpusSettings(source=f"dataset:{tmp_path / 'mine'}", field="body", origin_field="where")
    corpus = open_corpus(settings)
    found = list(read_documents(corpus))

    assert [(one.name, one.text, one.origin) for one in found[:5]] == [
        (f"mine:train#{n + 1}", f"text {n}", f"w{n}") for n in range(5)
    ]
    assert found[5].unfit == Unfit.MALFORMED
    assert list(read_documents(corpus, 0, 3)) == found[3:]
    assert open_corpus(settings, corpus.files) == corpus
    (tmp_path / "mine" / "train.jsonl").write_text("\n".join(lines))
    assert changed_file(corpus.files, open_corpus(settings, corpus.files).files) == "mine:train has changed"


def test_data_sets_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No such data set, split or field, and no package `datasets`: one sentence each."""
    (tmp_path / "train.jsonl").write_text('{"body": "x"}\n')
    here = f"dataset:{tmp_path}"

    assert "the hub does not give it" in told("dataset:nobody/nothing")
    assert "no column 'text'; it has body" in told(here)
    assert "'validation'" in told(here, field="body", split="validation")
    assert "write dataset:NAME" in told("dataset:")
    monkeypatch.setitem(sys.modules, "datasets", None)
    assert "datasets, which reads it, is not installed" in told(here, field="body")


# Bad input


def test_nothing_to_read(tmp_path: Path) -> None:
    """No source, no such place, an empty folder, no match and no file of a known kind are one sentence each."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.png").write_bytes(b"x")
    with pytest.raises(InputError, match=r"corpus\.source is not set"):
        open_corpus(CorpusSettings())

    assert "there is no such file or folder" in told(tmp_path / "nope.md")
    assert "empty: there is no file" in told(tmp_path / "empty")
    assert "there is no file" in told(tmp_path / "*.md")
    assert "there is 1 .png, but what is read is .jsonl" in told(tmp_path / "pictures")
    assert "1 .png" in told(tmp_path / "pictures" / "a.png")


def test_addresses_that_cannot_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """An unknown protocol, and one whose package is missing, are one sentence each."""
    assert "Protocol not known: foo" in told("foo://bar/x.md")
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    assert "a package that reads it is not installed (Please install gcsfs" in told("gs://bucket/x.md")


def test_parquet_without_the_column(tmp_path: Path) -> None:
    """No such column, one of numbers, and a file that is not Parquet are named before anything is read."""
    parquet(tmp_path / "a.parquet", ["x"], n=[1])

    assert "a.parquet: there is no one column 'body'; the file has text, n" in told(tmp_path, field="body")
    assert "column 'n' holds int64 and no text" in told(tmp_path, field="n")
    (tmp_path / "b.parquet").write_bytes(b"PAR1 and not much else")
    assert "b.parquet: cannot be read" in told(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    """A file without permission is named."""
    (tmp_path / "a.md").write_text("a")
    (tmp_path / "a.md").chmod(0)

    assert "a.md: cannot be read (Permission denied)" in told(tmp_path)


def test_a_broken_folder_is_no_text(tmp_path: Path) -> None:
    """A name that says text but is a folder is walked like any other."""
    (tmp_path / "x.md").mkdir()
    (tmp_path / "x.md" / "y.md").write_text("y")

    assert [one.name for one in documents(tmp_path)] == ["x.md/y.md"]


@pytest.mark.parametrize("kind", ["txt", "jsonl", "md", "html", "txt.gz"])
def test_a_single_line_of_50_mb_is_refused_without_being_held(tmp_path: Path, kind: str) -> None:
    """Above `max_document_mib` a document is counted as too large, and memory holds no more than that limit."""
    line = b'{"text": "' + b"word " * (LARGE // 5) + b'"}'
    (tmp_path / f"a.{kind}").write_bytes(gzip.compress(line, 1) if kind.endswith("gz") else line)
    (tmp_path / "z.jsonl").write_text('{"text": "after"}')
    del line
    tracemalloc.start()
    found = documents(tmp_path, max_document_mib=2)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert [one.unfit for one in found] == [Unfit.TOO_LARGE, None]
    assert peak < 12 << 20
