"""`segments` as a person meets it: a summary that adds up, samples that are safe, a file that is whole or not there."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from pipeline import segments_shown
from pipeline.backtranslation_settings import CorpusSettings
from pipeline.errors import InputError, RunStopped
from pipeline.row_writer import whole_file
from pipeline.segments_shown import show_segments


def prose(seed: int, count: int = 100) -> str:
    """Text of its own for each seed, of about 800 characters."""
    rng = random.Random(seed)
    return " ".join(f"w{rng.randrange(10**6)}" for _ in range(count))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A folder with 40 segments, 3 refused pieces and 2 files that are not read."""
    folder = tmp_path / "corpus"
    folder.mkdir()
    (folder / "a.md").write_text("\n\n".join(f"# Part {n}\n\n{prose(n)}" for n in range(40)) + "\n\n# End\n\nshort")
    (folder / "b.txt").write_bytes(b"\0")
    (folder / "c.txt").write_text(prose(3))
    (folder / "d.png").write_bytes(b"x")
    (folder / "e.png").write_bytes(b"x")
    return folder


def show(source: Path, out: Path | None = None, samples: int = 0, **values: Any) -> str:
    """The summary of a corpus."""
    return show_segments(CorpusSettings(source=str(source), **values), out, samples)


def test_the_summary_adds_up(source: Path) -> None:
    """Documents, pieces by reason, characters, and the files passed over."""
    told = show(source)

    assert re.search(r"documents +3 in 3 files; 2 passed over \(\.png 2\)", told)
    assert re.search(r"pieces +43 = 40 kept \+ 3 refused \(too_short 1, not_text 1, duplicate 1\)", told)
    assert re.search(rf"characters +{sum(len(prose(n)) for n in range(40)):,} kept", told)
    assert re.search(r"read +0\.0 MB in .* MB/s", told)
    assert "\n\n" not in told


def test_samples(source: Path) -> None:
    """So many segments spread over the corpus, and the first piece refused for each reason."""
    told = show(source, samples=3).split("\n\n")[1:]

    names = [one.split("\n")[0] for one in told]
    assert names[0] == "a.md#1  kept"
    assert [10 * round(int(name[5:7]) / 10) for name in names[1:3]] == [20, 40]
    assert names[3:] == ["a.md#41  too_short", "b.txt  not_text", "c.txt  duplicate"]
    assert re.search(r"  origin  Part (\d+)\n  header  Part \1\n  text    w", told[1])
    assert told[0].endswith("…")
    assert "short" in told[3]


def test_samples_are_safe_for_a_terminal(tmp_path: Path) -> None:
    """Control characters of a corpus, in texts and names, are shown and not obeyed."""
    (tmp_path / "a\x1b[2J.md").write_text(f"# T\x1b]0;x\x07\n\n\x1b[31m{prose(1)}\u202e")
    told = show(tmp_path, samples=5)

    assert "\\x1b[31m" in told
    assert not re.search("[\x00-\x09\x0b-\x1f\u202e]", told)


@pytest.mark.parametrize("name", ["out.jsonl", "out.parquet"])
def test_the_file(source: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It holds id, origin, header and text of each segment in order, and nothing else is left behind."""
    monkeypatch.setattr(segments_shown, "BATCH_ROWS", 7)
    out = tmp_path / name
    told = show(source, out)
    rows = (
        pq.read_table(out).to_pylist() if name.endswith("parquet") else [*map(json.loads, out.read_text().splitlines())]
    )

    assert rows == [
        {"id": f"a.md#{n + 1}", "origin": f"Part {n}", "header": f"Part {n}", "text": prose(n)} for n in range(40)
    ]
    assert re.search(rf"written +40 to {re.escape(str(out))}", told)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["corpus", name]


@pytest.mark.parametrize("name", ["out.jsonl", "out.parquet"])
def test_a_corpus_of_no_segments_gives_an_empty_file(tmp_path: Path, name: str) -> None:
    """The file is there all the same, and the summary says that nothing is kept."""
    (tmp_path / "a.txt").write_text("short")
    told = show(tmp_path / "a.txt", tmp_path / name, samples=2)
    out = tmp_path / name

    assert "1 = 0 kept + 1 refused (too_short 1)" in told
    assert (pq.read_table(out).num_rows if name.endswith("parquet") else out.read_text()) in (0, "")


def test_no_file_is_replaced(source: Path, tmp_path: Path) -> None:
    """A file that is there stays as it is, also one made while the corpus was read."""
    out = tmp_path / "out.jsonl"
    out.write_text("mine")
    with pytest.raises(InputError, match="is there already"):
        show(source, out)
    with pytest.raises(InputError, match=r"ends in neither \.jsonl nor \.parquet"):
        show(source, tmp_path / "out.csv")
    assert out.read_text() == "mine"

    out.unlink()

    def write_late() -> None:
        with whole_file(out) as stream:
            stream.write(b"ours")
            out.write_text("theirs")

    with pytest.raises(InputError, match="another process has made this file"):
        write_late()
    assert out.read_text() == "theirs"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["corpus", "out.jsonl"]


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (KeyboardInterrupt(), RunStopped, "interrupted; nothing is written"),
        (OSError(28, "No space left on device"), RunStopped, "storage failed"),
        (InputError("x.md: cannot be read"), InputError, "x.md"),
    ],
)
def test_what_fails_leaves_no_file(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, kind: type, words: str
) -> None:
    """Interrupted, on a full disk, or at a file that cannot be read: one sentence, and no half file."""

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(segments_shown._Writer, "add", fail)
    with pytest.raises(kind, match=words):
        show(source, tmp_path / "out.parquet")

    assert [path.name for path in tmp_path.iterdir()] == ["corpus"]


def test_progress_is_drawn(source: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """While it reads, lines on stderr tell files, kept, refused and the rate."""
    monkeypatch.setattr(segments_shown, "PLAIN_EVERY_S", 0.0)
    show(source)

    assert re.search(r"files 2 of 3  kept 40  refused 3  0\.0 MB  [\d.,]+ MB/s\n$", capsys.readouterr().err)


def test_a_wrong_field_is_pointed_out(tmp_path: Path) -> None:
    """Where no row at all has the field, the summary names the key to set."""
    (tmp_path / "a.jsonl").write_text('{"body": "x"}\n{"body": "y"}\n')

    assert "no row holds a text in the field 'text': set corpus.field" in show(tmp_path)
    assert "set corpus.field" not in show(tmp_path, field="body")
