"""Segments of a corpus in order: ids and origins, every piece once, and reading on from any place."""

from __future__ import annotations

import json
import random
from collections import Counter
from functools import partial
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.backtranslation_settings import CorpusSettings
from pipeline.records import Segment, Unfit
from pipeline.segments import Found, Place, SegmentReader
from pipeline.sources import Corpus, open_corpus

SMALL = partial(CorpusSettings, min_characters=20, max_characters=120)


def prose(seed: int, count: int = 8) -> str:
    """Text of its own for each seed."""
    rng = random.Random(seed)
    return " ".join(f"w{rng.randrange(10**6)}" for _ in range(count))


def reader(source: Path, **values: object) -> SegmentReader:
    """A fresh reader of a folder with small limits."""
    chosen = SMALL(source=str(source), **values)
    return SegmentReader(open_corpus(chosen), chosen)


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small corpus of every kind, with something refused for every reason."""
    folder = tmp_path_factory.mktemp("mixed")
    sections = [f"# T{n}\n\n{prose(n)}\n\n## U{n}\n\n{prose(100 + n)}\n\n## MENU\n\n{prose(200 + n)}" for n in range(4)]
    (folder / "a.md").write_text(
        "\n\n".join([*sections, f"# Contents\n\n{prose(1)}\n\n# Long\n\n{prose(9, 99)}\n\n#\n\nx"])
    )
    (folder / "b.html").write_text("".join(f"<h2>H{n}</h2><p>{prose(n % 3 + 300)}" for n in range(5)))
    rows = [{"text": prose(n), "url": f"u{n}"} for n in (1, 400, 401)]
    lines = [*map(json.dumps, rows), "", "{", json.dumps({"text": "short"}), json.dumps({"text": prose(402)})]
    (folder / "c.jsonl").write_text("\n".join(lines))
    (folder / "d.txt").write_bytes(b"\0\1")
    (folder / "e.txt").write_text(prose(500))
    (folder / "f.txt").write_text(" \n")
    repeated = "one two three four five six seven. "
    (folder / "g.txt").write_text(repeated * 2)
    (folder / "h.txt").write_text(prose(400) + " more")
    return folder


@pytest.fixture(scope="module")
def corpus(mixed: Path) -> Corpus:
    """That corpus, opened once."""
    return open_corpus(SMALL(source=str(mixed), near_duplicates=0.6))


def test_every_piece_is_told_once(corpus: Corpus) -> None:
    """Kept and refused pieces come in order, each with a name of its own, and the bytes add up to the files'."""
    found = list(SegmentReader(corpus, corpus.settings).read())
    reasons = Counter(one.unfit for one in found)

    assert len({one.name for one in found}) == len(found)
    assert [one.after for one in found] == sorted({one.after for one in found})
    assert all((one.segment is None) == (one.unfit is not None) for one in found)
    assert {*reasons} == {None, *Unfit} - {Unfit.TOO_LARGE}
    assert sum(one.bytes for one in found) == corpus.bytes - 1  # the blank line's end is nobody's


def test_ids_and_origins(tmp_path: Path) -> None:
    """Pieces are numbered in their document and come from their headers; rows from their own word, or their name."""
    (tmp_path / "a.md").write_text(f"{prose(1)}\n\n# T\n\n{prose(2)}\n\n## U\n\n{prose(3, 12)}")
    (tmp_path / "b.txt").write_text(prose(5))
    (tmp_path / "c.jsonl").write_text("\n" + json.dumps({"text": prose(6), "url": "http://x"}))

    assert [one.segment for one in reader(tmp_path).read()] == [
        Segment("a.md#1", "a.md", None, prose(1)),
        Segment("a.md#2", "T", "T", prose(2)),
        Segment("a.md#3", "T > U", "U", prose(3, 12)),
        Segment("b.txt", "b.txt", None, prose(5)),
        Segment("c.jsonl#2", "http://x", None, prose(6)),
    ]


def test_documents_without_text(tmp_path: Path) -> None:
    """A document that is no text, and one without any, count as one piece each."""
    (tmp_path / "a.md").write_text("# Only\n\n## Headers\n")
    (tmp_path / "b.html").write_bytes(b"\0")
    (tmp_path / "c.txt").write_text("")

    assert [(one.name, one.unfit, one.after) for one in reader(tmp_path).read()] == [
        ("a.md#1", Unfit.TOO_SHORT, Place(0, 1)),
        ("b.html", Unfit.NOT_TEXT, Place(1, 1)),
        ("c.txt", Unfit.TOO_SHORT, Place(2, 1)),
    ]


def read_on(corpus: Corpus, before: list[Found]) -> list[Found]:
    """What a fresh reader gives after an attempt that ended with these."""
    again = SegmentReader(corpus, corpus.settings)
    again.remember(one.segment.text for one in before if one.segment is not None)
    return list(again.read(before[-1].after if before else Place()))


def test_reading_on_from_every_place(corpus: Corpus) -> None:
    """Ended after any piece and begun there with what was kept, the rest is what it would have been."""
    whole = list(SegmentReader(corpus, corpus.settings).read())
    for end in range(len(whole) + 1):
        assert read_on(corpus, whole[:end]) == whole[end:]


PARTS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 6), st.integers(0, 30)), max_size=10)


@given(st.lists(st.tuples(st.sampled_from(["md", "html", "txt", "jsonl"]), PARTS), min_size=1, max_size=4), st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_reading_on_in_any_corpus(tmp_path_factory: pytest.TempPathFactory, files: list, data: st.DataObject) -> None:
    """Of any corpus with many duplicates, two attempts with any end of the first are one attempt."""
    folder = tmp_path_factory.mktemp("any")
    for number, (kind, parts) in enumerate(files):
        if kind == "jsonl":
            lines = [json.dumps({"text": prose(seed, count)}) if level else "" for level, seed, count in parts]
        elif kind == "html":
            lines = [f"<h{level}>h</h{level}>{prose(seed, count)}" for level, seed, count in parts if level]
        else:
            lines = [f"{'#' * level} h\n\n{prose(seed, count)}\n" for level, seed, count in parts]
        (folder / f"{number}.{kind}").write_text("\n".join(lines))
    corpus = open_corpus(SMALL(source=str(folder)))
    whole = list(SegmentReader(corpus, corpus.settings).read())
    end = data.draw(st.integers(0, len(whole)))

    assert read_on(corpus, whole[:end]) == whole[end:]


def test_the_shown_text_is_bounded(tmp_path: Path) -> None:
    """A piece of a megabyte is told with its beginning only."""
    (tmp_path / "a.txt").write_text("x" * 1_000_000)
    (found,) = reader(tmp_path).read()

    assert (found.unfit, found.text) == (Unfit.TOO_LONG, "x" * 400)


@pytest.mark.parametrize("kind", ["txt", "jsonl", "md", "html"])
def test_a_line_of_50_mb_is_read_where_it_may(tmp_path: Path, kind: str) -> None:
    """With a limit above its size, a single line of 50 MB is cut and refused like any other."""
    line = "word " * (10 << 20)
    (tmp_path / f"a.{kind}").write_text(json.dumps({"text": line}) if kind == "jsonl" else line)
    (found,) = reader(tmp_path, max_document_mib=64).read()

    assert found.unfit == Unfit.TOO_LONG
    assert found.bytes >= len(line)


def test_the_rust_book(shared_data: Path) -> None:
    """Every piece of 111 real files is told, ids are unique, and what is kept is as the settings say."""
    chosen = CorpusSettings(source=str(shared_data / "rust_book"))
    corpus = open_corpus(chosen)
    found = list(SegmentReader(corpus, chosen).read())
    kept = [one.segment for one in found if one.segment is not None]

    assert len(corpus.files) == 111
    assert len({one.name for one in found}) == len(found)
    assert {one.name.split("#")[0] for one in found} == {file.name for file in corpus.files}
    assert sum(one.bytes for one in found) == corpus.bytes
    assert 280 < len(kept) < 360
    assert all(600 <= len(one.text.strip()) <= 3000 and one.header for one in kept)
    assert Counter(one.unfit for one in found)[Unfit.NEAR_DUPLICATE] < 5
