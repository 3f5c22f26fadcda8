"""The novelty filter alone: its rows against a plain sequential reference, and bad input as a person meets it."""

from __future__ import annotations

import asyncio
import fcntl
import json
import random
import resource
import subprocess
import sys
import time
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rouge_score.rouge_scorer import RougeScorer

from pipeline import cli, launch, novelty_files
from pipeline.config import parse_config
from pipeline.errors import InputError
from pipeline.novelty_files import Options, filter_file
from pipeline.report import read_rows
from pipeline.rounds import round_config
from pipeline.row_files import read_pieces
from pipeline.scoring import InProcess
from pipeline.seeds import parse_seeds, read_seed_text
from pipeline.settings import NoveltySettings
from pipeline.testing import ScriptedEngine, run_to_end

REFERENCE = RougeScorer(["rougeL"], use_stemmer=False)
TEXTS = ["a b c d", "a b c e", "a b c d", "x y", "p q"]  # 0.75 and 1 to the first; the others are near nothing


def tell(capsys: Any, *arguments: object) -> tuple[int, str, str]:
    """Run `instructmill novelty` in this process: exit code, stdout, stderr."""
    code = cli.main(["novelty", *(str(argument) for argument in arguments)])
    out, err = capsys.readouterr()
    return code, out, err


def write(path: Path, rows: list[Any]) -> Path:
    """A file of these rows by its ending; in JSON lines a text or bytes stand as they are."""
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=70)
    else:
        lines = [row if isinstance(row, str | bytes) else json.dumps(row) for row in rows]
        path.write_bytes(b"\n".join(line if isinstance(line, bytes) else line.encode() for line in lines))
    return path


def read(path: Path) -> list[dict[str, Any]]:
    """The rows of a file."""
    if path.suffix == ".parquet":
        return list(pq.read_table(path).to_pylist())
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def some_texts(count: int, words: int = 9, seed: int = 1) -> list[str]:
    """Texts of few words, so that near copies, ties and scores at the threshold are many."""
    rng = random.Random(seed)
    return [" ".join(rng.choices("abcdefghij", k=rng.randint(4, words))) for _ in range(count)]


def rouge(text: str, held: str) -> float:
    """What `rouge_score` says, asked as the paper's code asks it."""
    return float(REFERENCE.score(text, held)["rougeL"].fmeasure)


def nearest_of(text: str, held: list[tuple[str, str]], floor: float) -> tuple[str | None, float | None]:
    """Name and score of the nearest of (name, text), the earliest on a tie, by brute force."""
    scores = [rouge(text, other) for _, other in held]
    best = max(scores, default=0.0)
    return (held[scores.index(best)][0], best) if best > 0 and best >= floor else (None, None)


def one_after_another(
    texts: list[str], against: list[tuple[str, str]], threshold: float = 0.7, floor: float = 0.65
) -> list[tuple[bool, str | None, float | None]]:
    """The whole filter in a loop: novel, nearest and its score for each text."""
    held, verdicts = list(against), []
    for number, text in enumerate(texts, start=1):
        nearest, score = nearest_of(text, held, min(floor, threshold))
        novel = score is None or score <= threshold
        verdicts.append((novel, nearest, score))
        if novel:
            held.append((str(number), text))
    return verdicts


def verdicts_of(rows: list[dict[str, Any]]) -> list[tuple[bool, str | None, float | None]]:
    """What a written file says of its rows."""
    return [(row["novel"], row["nearest"], row["nearest_score"]) for row in rows]


# Against the reference


@pytest.mark.parametrize("into", ["out.jsonl", "out.parquet"])
@pytest.mark.parametrize("source", ["in.jsonl", "in.parquet"])
def test_every_row_is_that_of_a_plain_loop(tmp_path, capsys, source, into) -> None:
    """From and to either kind of file: decisions and neighbours of a brute-force loop, and each row's own fields."""
    texts = some_texts(200)
    rows = [{"n": n, "instruction": text, "more": {"k": [n, 2]}} for n, text in enumerate(texts)]
    out = tmp_path / into
    code, told, _ = tell(capsys, write(tmp_path / source, rows), "--out", out)
    expected = one_after_another(texts, [])
    kept = sum(novel for novel, _, _ in expected)

    assert code == 0
    assert verdicts_of(read(out)) == expected
    assert [{key: row[key] for key in rows[0]} for row in read(out)] == rows
    assert 100 < kept < 190
    assert f"200 = {kept} novel + {200 - kept} refused (not_novel {200 - kept})" in told


@pytest.mark.parametrize(("threshold", "floor"), [(0.3, 0.5), (0.5, 0.0), (0.9, 1.0), (1.0, 0.4)])
def test_thresholds_and_floors(tmp_path, threshold, floor) -> None:
    """At any threshold and floor, what is written is what the loop says; the lower of the two is the floor."""
    texts = some_texts(80)
    source, out = write(tmp_path / "in.jsonl", [{"t": text} for text in texts]), tmp_path / "out.jsonl"
    filter_file(Options(source, field="t", threshold=threshold, floor=floor, out=out))

    assert verdicts_of(read(out)) == one_after_another(texts, [], threshold, floor)


def test_exactly_the_threshold_is_kept(tmp_path, capsys) -> None:
    """A row at 0.5 is novel at a threshold of 0.5, and refused just below."""
    source = write(tmp_path / "in.jsonl", [{"instruction": "a b"}, {"instruction": "a c"}])

    assert "2 novel" in tell(capsys, source, "--threshold", 0.5)[1]
    assert "1 novel" in tell(capsys, source, "--threshold", 0.49999)[1]


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_against_other_files(tmp_path, capsys, kind) -> None:
    """The rows of --against are held first, under file and number, and come before the file's own on a tie."""
    texts, first, second = some_texts(60), some_texts(40, seed=2), some_texts(40, seed=3)
    one = write(tmp_path / f"one.{kind}", [{"q": text} for text in first])
    two = write(tmp_path / f"two.{kind}", [{"q": text} for text in second])
    source = write(tmp_path / f"in.{kind}", [{"instruction": text} for text in texts])
    held = [(f"{one}:{n}", text) for n, text in enumerate(first, start=1)]
    held += [(f"{two}:{n}", text) for n, text in enumerate(second, start=1)]
    out = tmp_path / "out.jsonl"
    code, told, _ = tell(capsys, source, "--against", one, two, "--against-field", "q", "--out", out)

    assert code == 0
    assert verdicts_of(read(out)) == one_after_another(texts, held)
    assert f"80 of {one}, {two}" in told


@pytest.mark.parametrize("into", ["out.jsonl", "out.parquet"])
def test_kept_only_leaves_the_refused_out(tmp_path, capsys, into) -> None:
    """With --kept-only the file holds the novel rows, in order and with what was added."""
    source = write(tmp_path / "in.jsonl", [{"instruction": text} for text in TEXTS])
    _, told, _ = tell(capsys, source, "--out", tmp_path / into, "--kept-only")

    assert [row["instruction"] for row in read(tmp_path / into)] == ["a b c d", "x y", "p q"]
    assert all(row["novel"] for row in read(tmp_path / into))
    assert "3 novel + 2 refused (not_novel 2)" in told
    assert f"3 to {tmp_path / into}" in told


def test_full_adds_the_mean_and_the_ten_nearest(tmp_path, capsys) -> None:
    """With --full each row has the mean over all that is held and the ten nearest, and is judged as without."""
    texts = some_texts(60)
    source = write(tmp_path / "in.jsonl", [{"instruction": text} for text in texts])
    tell(capsys, source, "--out", tmp_path / "full.parquet", "--full")
    rows = read(tmp_path / "full.parquet")
    held: list[tuple[str, str]] = []

    assert verdicts_of(rows) == one_after_another(texts, [])
    for number, row in enumerate(rows, start=1):
        scores = [rouge(row["instruction"], text) for _, text in held]
        order = sorted(range(len(held)), key=lambda place: -scores[place])[:10]
        assert row["most_similar"] == [{"nearest": held[place][0], "score": scores[place]} for place in order]
        assert row["mean_score"] == (pytest.approx(sum(scores) / len(scores)) if held else None)
        if row["novel"]:
            held.append((str(number), row["instruction"]))
    assert len(held) > 20


def test_unicode_tokens(tmp_path, capsys) -> None:
    """With `rouge` a text of another script has no tokens and is refused for it; with `unicode` it is compared."""
    source = write(tmp_path / "in.jsonl", [{"instruction": "你好世界"}, {"instruction": "你好世间"}])

    assert "0 novel + 2 refused (no_tokens 2)" in tell(capsys, source)[1]
    assert "1 novel + 1 refused (not_novel 1)" in tell(capsys, source, "--tokenizer", "unicode")[1]


# Streaming


def test_the_size_of_pieces_changes_nothing(tmp_path, monkeypatch) -> None:
    """20,000 rows in pieces of 128, ended early by long rows too, are written as those read as one piece."""
    texts = some_texts(20_000, words=14)
    source = write(tmp_path / "in.jsonl", [{"instruction": text} for text in texts])
    filter_file(Options(source, out=tmp_path / "one.jsonl", piece_rows=20_000))
    monkeypatch.setattr("pipeline.row_files.PIECE_BYTES", 4_000)
    filter_file(Options(source, out=tmp_path / "many.jsonl", piece_rows=128))

    assert (tmp_path / "one.jsonl").read_bytes() == (tmp_path / "many.jsonl").read_bytes()


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_pieces_are_bounded(tmp_path, monkeypatch, kind) -> None:
    """A piece ends at so many rows, and earlier where rows are long, so that memory holds no more than that."""
    texts = [*["a b"] * 20, *[f"{n} " + "z" * 1000 for n in range(20)]]
    source = write(tmp_path / f"in.{kind}", [{"instruction": text} for text in texts])
    few = [len(piece.names) for piece in read_pieces(source, "instruction", size=16)]
    monkeypatch.setattr("pipeline.row_files.PIECE_BYTES", 5_000)
    pieces = list(read_pieces(source, "instruction", size=16))

    assert few == [16, 16, 8]
    assert max(sum(map(len, piece.texts)) for piece in pieces) < 10_000
    assert [text for piece in pieces for text in piece.texts] == texts


@pytest.mark.parametrize("into", ["jsonl", "parquet"])
def test_the_same_result_twice(tmp_path, into) -> None:
    """Two filterings of a file write the same bytes."""
    source = write(tmp_path / "in.parquet", [{"instruction": text} for text in some_texts(500)])
    for name in ("one", "two"):
        filter_file(Options(source, out=tmp_path / f"{name}.{into}"))

    assert (tmp_path / f"one.{into}").read_bytes() == (tmp_path / f"two.{into}").read_bytes()


def test_numbers_are_those_of_lines(tmp_path, capsys) -> None:
    """Blank lines are no rows, and a row is called by its line; a byte-order mark and carriage returns do no harm."""
    lines = '\ufeff{"instruction": "a b c"}\r\n\r\n\n{"instruction": "a b c"}\n'
    (tmp_path / "in.jsonl").write_text(lines, newline="")
    tell(capsys, tmp_path / "in.jsonl", "--against", tmp_path / "in.jsonl", "--out", tmp_path / "out.jsonl")

    assert [row["nearest"] for row in read(tmp_path / "out.jsonl")] == [f"{tmp_path / 'in.jsonl'}:1"] * 2


@pytest.mark.parametrize("into", ["out.jsonl", "out.parquet"])
@pytest.mark.parametrize("source", ["in.jsonl", "in.parquet"])
def test_a_file_of_no_rows(tmp_path, capsys, source, into) -> None:
    """A file of no rows gives a file of none, and a summary that says so."""
    path = tmp_path / source
    if source == "in.parquet":
        pq.write_table(pa.table({"instruction": pa.array([], pa.string())}), path)
    else:
        path.write_text("")
    code, out, _ = tell(capsys, path, "--out", tmp_path / into)

    assert (code, read(tmp_path / into)) == (0, [])
    assert "0 = 0 novel + 0 refused" in out


def test_parquet_keeps_its_schema(tmp_path, capsys) -> None:
    """Types, nulls and metadata of a Parquet file go on into the new one, and `datasets` opens it."""
    schema = pa.schema(
        [("instruction", pa.large_string()), ("day", pa.date32()), ("raw", pa.binary()), ("small", pa.int8())],
        metadata={"mine": "yes"},
    )
    rows = [{"instruction": "a b c", "day": date(2026, 1, 2), "raw": b"\xff", "small": None}]
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), tmp_path / "in.parquet")
    tell(capsys, tmp_path / "in.parquet", "--out", tmp_path / "out.parquet")
    found = pq.read_schema(tmp_path / "out.parquet")
    opened = datasets.load_dataset(
        "parquet", data_files=str(tmp_path / "out.parquet"), split="train", cache_dir=str(tmp_path / "cache")
    )

    assert list(found)[:4] == list(schema)
    assert found.metadata[b"mine"] == b"yes"
    assert found.names[4:] == ["novel", "nearest", "nearest_score"]
    assert opened[0]["novel"] is True


def test_progress_is_drawn(tmp_path, capsys, monkeypatch) -> None:
    """While it works, lines on stderr tell rows, refused and rows per second; stdout has the summary only."""
    monkeypatch.setattr(novelty_files, "PLAIN_EVERY_S", 0.0)
    _, out, err = tell(capsys, write(tmp_path / "in.jsonl", [{"instruction": text} for text in TEXTS]))

    assert "rows 5  refused 2" in err
    assert err.rstrip().endswith("rows/s")
    assert "refused 2 " not in out


# Rows that cannot be compared

ODD = [
    {"n": 1, "instruction": "a b c"},
    {"n": 2, "instruction": None},
    {"n": 3, "instruction": 17},
    {"n": 4, "instruction": ["a", "b"]},
    {"n": 5, "instruction": ""},
    {"n": 6, "instruction": "?! 你好"},
    '{"n": 7, "instruction": "a \\ud800 b", "other\\udfff": {"k\\udc00": ["\\ud83d\\ude00 \\udead"]}}',
    {"n": 8, "instruction": "a b c"},
]


@pytest.mark.parametrize("into", ["out.jsonl", "out.parquet"])
def test_what_cannot_be_compared_is_refused_and_counted(tmp_path, capsys, into) -> None:
    """Null, other values, no tokens and lone surrogates are refused by their reasons; the sum closes, rows stay."""
    code, told, _ = tell(capsys, write(tmp_path / "in.jsonl", ODD), "--out", tmp_path / into, "--full")
    rows = read(tmp_path / into)

    assert code == 0
    assert "8 = 1 novel + 7 refused (not_text 4, no_tokens 2, not_novel 1)" in told
    assert [row["n"] for row in rows] == list(range(1, 9))
    assert [row["novel"] for row in rows] == [True, *[False] * 7]
    assert [row["nearest"] for row in rows] == [*[None] * 7, "1"]
    assert [row["mean_score"] for row in rows[1:7]] == [None] * 6
    if into == "out.jsonl":
        assert [row["instruction"] for row in rows[1:4]] == [None, 17, ["a", "b"]]
        assert {key: rows[6][key] for key in json.loads(ODD[6])} == json.loads(ODD[6])
    else:
        assert [row["instruction"] for row in rows[1:4]] == [None, "17", '["a", "b"]']
        assert (rows[6]["instruction"], rows[6]["other\ufffd"]) == ("a \ufffd b", {"k\ufffd": ["\U0001f600 \ufffd"]})


def test_what_cannot_be_compared_is_not_held(tmp_path, capsys) -> None:
    """Rows of --against without text are passed over and counted."""
    odd = write(tmp_path / "odd.jsonl", ODD)
    _, out, _ = tell(capsys, write(tmp_path / "in.jsonl", [{"instruction": "a b c"}]), "--against", odd)

    assert f"2 of {odd}, 6 without text passed over" in out
    assert "1 = 0 novel + 1 refused (not_novel 1)" in out


def test_a_parquet_column_of_other_values(tmp_path, capsys) -> None:
    """A Parquet column that holds no texts refuses every row as not_text."""
    _, out, _ = tell(capsys, write(tmp_path / "in.parquet", [{"instruction": 1}, {"instruction": None}]))

    assert "2 = 0 novel + 2 refused (not_text 2)" in out


def test_a_row_of_a_million_characters(tmp_path, capsys) -> None:
    """Rows of a million characters are judged like any other, and written whole."""
    rng = random.Random(3)
    long = " ".join(f"w{rng.randrange(5000)}" for _ in range(250_000))[:1_000_000]
    texts = [*TEXTS, long, long[:-7], "z" * 1_000_000, "é" * 1_000_000]
    out = tmp_path / "out.parquet"
    code, told, _ = tell(capsys, write(tmp_path / "in.jsonl", [{"instruction": text} for text in texts]), "--out", out)
    rows = read(out)

    assert code == 0
    assert "9 = 5 novel + 4 refused (not_novel 3, no_tokens 1)" in told
    assert [row["instruction"] for row in rows] == texts
    assert (rows[6]["nearest"], rows[6]["novel"]) == ("6", False)


# Bad input

GOOD = {"instruction": "a b c"}


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        pytest.param([GOOD, GOOD, {"text": "a"}], "line 3: field 'instruction' is missing; the row has text", id="no"),
        pytest.param([GOOD, {}], "line 2: field 'instruction' is missing; the row has none", id="no-field"),
        pytest.param([GOOD, "{nonsense}", GOOD], "line 2: not valid JSON (Expecting", id="not-json"),
        pytest.param([GOOD, '{"instruction": "a b'], "line 2: not valid JSON (Untermin", id="cut"),
        pytest.param([GOOD, '{"instruction": "a b'], "seems to be cut off in the middle of this line", id="cut-said"),
        pytest.param([GOOD, "[" * 100_000], "line 2: not valid JSON (", id="deep"),
        pytest.param([GOOD, '{"instruction": %s}' % ("9" * 5000)], "line 2: not valid JSON (", id="long-number"),
        pytest.param([GOOD, '["a b c"]'], "line 2: not a JSON object but '[\"a b c\"]'", id="not-an-object"),
        pytest.param([GOOD, b'{"instruction": "\xff"}'], "line 2: not UTF-8 text (invalid start byte at byte", id="u"),
        pytest.param([GOOD, {**GOOD, "novel": 1}], "line 2: there is a field 'novel' already", id="novel"),
        pytest.param([GOOD, {**GOOD, "nearest": 1}], "line 2: there is a field 'nearest' already", id="nearest"),
    ],
)  # fmt: skip
def test_a_bad_row_is_named_and_those_before_it_stay(tmp_path, capsys, rows, words) -> None:
    """Exit code 2 and one sentence with file and line; the rows before it are whole in --out, and it says how many."""
    source, out = write(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl"
    code, told, err = tell(capsys, source, "--out", out)
    before = next(number for number, row in enumerate(rows) if row != GOOD)

    assert (code, told) == (2, "")
    assert err.startswith(f"instructmill: {source}, line {before + 1}: ")
    assert words in err
    assert err.endswith(f"; {out} holds the {before} rows written before\n")
    assert len(err.splitlines()) == 1
    assert [row["instruction"] for row in read(out)] == ["a b c"] * before


def test_a_bad_first_row_leaves_no_file(tmp_path, capsys) -> None:
    """Where no row could be read, nothing is written, and the same command works once the file is mended."""
    source, out = write(tmp_path / "in.jsonl", ["{"]), tmp_path / "out.jsonl"
    first = tell(capsys, source, "--out", out)[0]
    there = out.exists()
    write(source, [GOOD])

    assert (first, there) == (2, False)
    assert tell(capsys, source, "--out", out)[0] == 0


@pytest.mark.parametrize("into", ["out.jsonl", "out.parquet"])
def test_a_damaged_parquet_file_keeps_what_came_before(tmp_path, capsys, into) -> None:
    """Where a row group cannot be read, the rows before it stay in a file that is whole, of either kind."""
    source, out = tmp_path / "in.parquet", tmp_path / into
    rng = random.Random(1)
    texts = [f"t{n} {rng.random()} {rng.random()}" for n in range(200)]
    pq.write_table(
        pa.table({"instruction": texts}), source, row_group_size=100, compression="zstd", use_dictionary=False
    )
    content = bytearray(source.read_bytes())
    offset = pq.read_metadata(source).row_group(1).column(0).data_page_offset
    content[offset : offset + 400] = b"\xee" * 400
    source.write_bytes(content)
    with pytest.raises(InputError, match=f"cannot be read after row 100 .*{into} holds the 100 rows written before"):
        filter_file(Options(source, out=out, piece_rows=100))

    assert [row["instruction"] for row in read(out)] == texts[:100]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        pytest.param(["--threshold", 0], "--threshold 0.0: it must lie above 0, and be 1 at most", id="zero"),
        pytest.param(["--threshold", 1.01], "--threshold 1.01: it must lie above 0", id="above-1"),
        pytest.param(["--threshold", -1], "--threshold -1.0: it must lie above 0", id="negative"),
        pytest.param(["--threshold", "nan"], "--threshold nan: it must lie above 0", id="nan"),
        pytest.param(["--floor", 2], "--floor 2.0: it must lie between 0 and 1", id="floor"),
        pytest.param(["--tokenizer", "words"], "--tokenizer words: there is no such; there are rouge, ", id="tok"),
        pytest.param(["--kept-only"], "--kept-only says what goes into the file of --out", id="kept-only"),
        pytest.param(["--full", "--workers", 2], "--full works in this process only", id="full-workers"),
        pytest.param(["--out", "x.csv"], "x.csv: its name ends in neither .jsonl nor .parquet", id="ending"),
        pytest.param(["--out", "no/x.jsonl"], "no/x.jsonl: there is no folder no; make it", id="folder"),
        pytest.param(["--out", "in.jsonl"], "in.jsonl: the file is there already and is not replaced", id="exists"),
        pytest.param(["--against", "no.jsonl"], "no.jsonl: there is no such file", id="no-against"),
        pytest.param(["--against", "in.jsonl", "--against-field", "f"], "in.jsonl, line 1: field 'f' is", id="field"),
        pytest.param(["--fill", "--threshold", 0.5], "--fill takes --out and --workers only; leave --thres", id="fill"),
        pytest.param(["--fill", "--kept-only"], "--fill takes --out and --workers only; leave --kept", id="fill-k"),
        pytest.param(["--fill"], "in.jsonl: --fill takes a run folder; for a file leave --fill out", id="fill-no-run"),
    ],
)  # fmt: skip
def test_a_wrong_option_is_one_sentence(tmp_path, capsys, monkeypatch, arguments, words) -> None:
    """Exit code 2, one sentence on stderr, and nothing is written."""
    monkeypatch.chdir(tmp_path)
    write(Path("in.jsonl"), [GOOD])
    before = sorted(tmp_path.rglob("*"))
    code, _, err = tell(capsys, "in.jsonl", *arguments)

    assert code == 2
    assert err.startswith(f"instructmill: {words}")
    assert len(err.splitlines()) == 1
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        pytest.param("no.jsonl", None, "there is no such file", id="none"),
        pytest.param("no.parquet", None, "there is no such file", id="no-parquet"),
        pytest.param("a.csv", "a,b", "its name ends in neither .jsonl nor .parquet", id="csv"),
        pytest.param("a.parquet", "PAR1 not really", "cannot be read as Parquet", id="not-parquet"),
        pytest.param("a.parquet", "", "cannot be read as Parquet", id="empty-parquet"),
        pytest.param("folder", "", "the folder holds no run", id="folder"),
    ],
)
def test_a_file_that_is_none(tmp_path, capsys, name, content, words) -> None:
    """A file that is not there or of no use is named in one sentence, with exit code 2."""
    path = tmp_path / name
    if name == "folder":
        path.mkdir()
    elif content is not None:
        path.write_text(content)
    code, _, err = tell(capsys, path, "--out", tmp_path / "out.jsonl")

    assert code == 2
    assert err.startswith(f"instructmill: {path}: {words}")
    assert len(err.splitlines()) == 1
    assert not (tmp_path / "out.jsonl").exists()


def test_a_parquet_file_without_the_column(tmp_path, capsys) -> None:
    """The columns that are there are told; so is one that --out would add."""
    source = write(tmp_path / "in.parquet", [{"instruction": "a", "novel": True}])
    _, _, missing = tell(capsys, source, "--field", "text")
    _, _, there = tell(capsys, source, "--out", tmp_path / "out.parquet")

    assert f"{source}: there is no column 'text'; the file has instruction, novel" in missing
    assert f"{source}: there is a field 'novel' already, which --out adds; rename it first" in there
    assert tell(capsys, source)[0] == 0


def test_a_full_disk_leaves_whole_lines(tmp_path, capsys) -> None:
    """Where the disk takes no more, exit code 75, and the lines written are whole and as many as it says."""
    source = write(tmp_path / "in.jsonl", [{"instruction": text} for text in some_texts(20_000)])
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, before[1]))
    try:
        code, _, err = tell(capsys, source, "--out", tmp_path / "out.jsonl")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    rows = read(tmp_path / "out.jsonl")

    assert code == 75
    assert "storage failed" in err
    assert f"out.jsonl holds the {len(rows):,} rows written before" in err
    assert 0 < len(rows) < 20_000


@pytest.mark.parametrize("into", ["out.jsonl", "out.parquet"])
def test_an_interrupt_leaves_a_whole_file(tmp_path, capsys, monkeypatch, into) -> None:
    """Ctrl-C ends it with exit code 75 and one sentence; the file is whole and has as many rows as that says."""
    source = write(tmp_path / "in.jsonl", [{"instruction": text} for text in TEXTS])

    def interrupted(tally: novelty_files.Tally, judged: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(novelty_files.Tally, "add", interrupted)
    code, _, err = tell(capsys, source, "--out", tmp_path / into)

    assert code == 75
    assert f"interrupted; {tmp_path / into} holds the 5 rows written before; the same command begins anew" in err
    assert len(read(tmp_path / into)) == 5


# From JSON lines to Parquet


def test_columns_of_json_lines_take_shape_over_all_rows(tmp_path) -> None:
    """A column may come late, be null for long, or hold whole numbers first: it gets the type that holds all rows."""
    rows: list[dict[str, Any]] = [{"n": 1, "late": None, **GOOD}, {"n": 2, **GOOD}]
    rows += [{"n": 2.5, "late": ["x"], **GOOD, "o": {"a": 1}}, {"n": None, **GOOD, "o": {"b": "c"}}]
    source = write(tmp_path / "in.jsonl", rows)
    filter_file(Options(source, out=tmp_path / "out.parquet", piece_rows=1))
    found = read(tmp_path / "out.parquet")

    assert [row["n"] for row in found] == [1.0, 2.0, 2.5, None]
    assert [row["late"] for row in found] == [None, None, ["x"], None]
    assert [row["o"] for row in found] == [None, None, {"a": 1, "b": None}, {"a": None, "b": "c"}]
    assert list(found[0]) == ["n", "late", "instruction", "o", "novel", "nearest", "nearest_score"]


def test_the_text_is_a_column_of_texts(tmp_path) -> None:
    """The filtered field is a column of texts, though all its values be null."""
    filter_file(Options(write(tmp_path / "in.jsonl", [{"instruction": None}]), out=tmp_path / "out.parquet"))

    assert pq.read_schema(tmp_path / "out.parquet").field("instruction").type == pa.string()


@pytest.mark.parametrize(
    "values",
    [[1, "a"], ["a", {"k": 1}], [[1], ["a"]], [{}, {}], [2**70, 1], [True, 1]],
    ids=["text", "object", "list", "empty", "large", "bool"],
)
@pytest.mark.parametrize("size", [1, 10])
def test_a_column_that_parquet_cannot_hold(tmp_path, capsys, monkeypatch, values, size) -> None:
    """A field of several types is named, with the way out; nothing is written, and as JSON lines it goes."""
    monkeypatch.setattr("pipeline.row_files.PIECE_BYTES", size)
    source = write(tmp_path / "in.jsonl", [{**GOOD, "v": value} for value in values])
    code, _, err = tell(capsys, source, "--out", tmp_path / "out.parquet")

    assert code == 2
    assert "field 'v' cannot be a column of Parquet" in err
    assert "give --out a name that ends in .jsonl" in err
    assert len(err.splitlines()) == 1
    assert not (tmp_path / "out.parquet").exists()
    assert tell(capsys, source, "--out", tmp_path / "out.jsonl")[0] == 0


def test_values_that_json_does_not_know(tmp_path, capsys) -> None:
    """Days become text; bytes have no form in JSON, which is said with the row."""
    write(tmp_path / "day.parquet", [{**GOOD, "v": date(2026, 1, 2)}])
    write(tmp_path / "raw.parquet", [{**GOOD, "v": None}, {**GOOD, "v": b"\xff"}])
    tell(capsys, tmp_path / "day.parquet", "--out", tmp_path / "day.jsonl")
    code, _, err = tell(capsys, tmp_path / "raw.parquet", "--out", tmp_path / "raw.jsonl")

    assert read(tmp_path / "day.jsonl")[0]["v"] == "2026-01-02"
    assert code == 2
    assert f"{tmp_path / 'raw.parquet'}, row 2: JSON cannot hold it (it has a value of type bytes)" in err


def test_the_help_tells_the_defaults(capsys) -> None:
    """The numbers in --help are those of the settings."""
    with pytest.raises(SystemExit):
        cli.main(["novelty", "--help"])
    told = " ".join(capsys.readouterr().out.split())
    defaults = NoveltySettings()

    assert f"refuse a ROUGE-L F above this ({defaults.threshold})" in told
    assert f"name the nearest down to this F, or to a lower threshold ({defaults.floor})" in told
    assert told.count(f"; {defaults.tokenizer} --workers") == 1


# Workers, and no Ray


def test_workers_give_the_same(tmp_path, capsys, monkeypatch) -> None:
    """With --workers the scorer that `launch` makes is asked, with the floor looked for, and the rows are the same."""
    asked = []

    @contextmanager
    def novelty_scorer(tokenizer: str, floor: float, workers: int) -> Any:
        asked.append((tokenizer, floor, workers))
        yield InProcess(tokenizer, floor)

    monkeypatch.setattr(launch, "novelty_scorer", novelty_scorer, raising=False)
    source = write(tmp_path / "in.jsonl", [{"instruction": text} for text in some_texts(300)])
    tell(capsys, source, "--out", tmp_path / "0.jsonl", "--threshold", 0.4)
    tell(capsys, source, "--out", tmp_path / "2.jsonl", "--threshold", 0.4, "--workers", 2)

    assert asked == [("rouge", 0.4, 2)]
    assert (tmp_path / "0.jsonl").read_bytes() == (tmp_path / "2.jsonl").read_bytes()


def test_it_works_without_ray(tmp_path, without_ray_and_vllm) -> None:
    """The command needs neither Ray nor vLLM."""
    write(tmp_path / "in.jsonl", [{"instruction": text} for text in TEXTS])
    command = [sys.executable, "-m", "pipeline", "novelty", "in.jsonl", "--out", "out.parquet"]
    done = subprocess.run(command, cwd=tmp_path, env=without_ray_and_vllm, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert len(read(tmp_path / "out.parquet")) == 5


# Runs


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """The folder of a finished run of the scripted engine, which tests only read."""
    return run_folder(tmp_path_factory.mktemp("finished"))


def run_folder(folder: Path, **values: Any) -> Path:
    """A finished run in `folder`/r."""
    base: dict[str, Any] = {"name": "t", "target": 60, "window": 8, "shards": {"rows": 25}}
    config = parse_config({**base, "engine": {"kind": "scripted"}, **values}, "test")
    asyncio.run(run_to_end(config, folder / "r", ScriptedEngine()))
    return folder / "r"


def by_brute_force(folder: Path) -> list[tuple[str, str | None, float | None]]:
    """Each admitted instruction with the nearest of the seeds and of those admitted before, by `rouge_score`."""
    seeds = parse_seeds(read_seed_text("shipped:seeds.jsonl"), "seeds")
    held, expected = [(seed.id, seed.instruction) for seed in seeds], []
    for row in read_rows(folder, "pool"):
        expected.append((row["instruction_id"], *nearest_of(row["instruction"], held, 0.0)))
        held.append((row["instruction_id"], row["instruction"]))
    return expected


def test_fill_finds_the_nearest_whatever_its_score(finished, capsys, tmp_path) -> None:
    """`--fill` writes what brute force over seeds and pool finds; again, and elsewhere, the same bytes."""
    expected = by_brute_force(finished)
    code, out, _ = tell(capsys, finished, "--fill")
    path = finished / ".run" / "nearest.parquet"
    first = path.read_bytes()
    tell(capsys, finished, "--fill")
    tell(capsys, finished, "--fill", "--out", tmp_path / "n.parquet")

    assert code == 0
    assert f"60 instructions with their nearest in {path}" in out
    assert [tuple(row.values()) for row in read(path)] == expected
    assert list(read(path)[0]) == ["instruction_id", "nearest_id", "nearest_score"]
    assert first == path.read_bytes() == (tmp_path / "n.parquet").read_bytes()
    recorded = {row["instruction_id"]: row["nearest_score"] for row in read_rows(finished, "pool")}
    assert all(recorded[id] in (None, score) for id, _, score in expected)


def test_fill_of_a_run_that_goes_on(tmp_path, capsys) -> None:
    """After a run went on, `--fill` covers all of it; the rows known before are as they were."""
    folder = run_folder(tmp_path, target=20)
    tell(capsys, folder, "--fill")
    before = read(folder / ".run" / "nearest.parquet")
    run_folder(tmp_path, target=40)
    tell(capsys, folder, "--fill")

    assert read(folder / ".run" / "nearest.parquet")[:20] == before
    assert [tuple(row.values()) for row in read(folder / ".run" / "nearest.parquet")] == by_brute_force(folder)


def test_fill_wants_the_seeds_of_the_run(tmp_path, capsys) -> None:
    """Where the seed file has changed since the run began, `--fill` says so and writes nothing."""
    seeds = tmp_path / "seeds.jsonl"
    seeds.write_text(read_seed_text("shipped:seeds.jsonl"))
    folder = run_folder(tmp_path, seeds=str(seeds))
    seeds.write_text(seeds.read_text() + "\n")
    code, _, err = tell(capsys, folder, "--fill")

    assert code == 2
    assert f"seeds = {str(seeds)!r}: the file has changed since run t began" in err
    assert not (folder / ".run" / "nearest.parquet").exists()


def test_fill_of_a_running_run(finished, capsys) -> None:
    """A run that another process writes to is left alone, with exit code 75."""
    with (finished / ".run" / "lock").open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        code, _, err = tell(capsys, finished, "--fill")

    assert code == 75
    assert "another process is writing to this run" in err


@pytest.mark.parametrize(("name", "words"), [("n.jsonl", "--fill writes Parquet"), ("n.parquet", "is there already")])
def test_fill_elsewhere(finished, capsys, tmp_path, name, words) -> None:
    """`--fill --out` wants a new Parquet file."""
    if name == "n.parquet":
        (tmp_path / name).write_text("mine")
    code, _, err = tell(capsys, finished, "--fill", "--out", tmp_path / name)

    assert code == 2
    assert words in err


def test_a_run_as_the_input(finished, capsys, tmp_path) -> None:
    """A run's admitted instructions are filtered like rows of a file, named by their ids, and can be held too."""
    pool = read_rows(finished, "pool")
    code, _, _ = tell(capsys, finished, "--out", tmp_path / "pool.parquet", "--threshold", 0.4)
    rows = read(tmp_path / "pool.parquet")
    names = {str(number): row["instruction_id"] for number, row in enumerate(pool, start=1)}
    expected = one_after_another([row["instruction"] for row in pool], [], 0.4)

    assert code == 0
    assert verdicts_of(rows) == [(novel, names.get(nearest or ""), score) for novel, nearest, score in expected]
    assert [row["parents"] for row in rows] == [row["parents"] for row in pool]
    assert "nearest_id" not in rows[0]
    again = tell(capsys, tmp_path / "pool.parquet", "--against", finished)[1]
    assert "60 = 0 novel + 60 refused (not_novel 60)" in again


def test_a_filled_run_opens_as_before(finished, capsys, tmp_path) -> None:
    """What `--fill` leaves in the folder does not become part of the data set."""
    tell(capsys, finished, "--fill")
    opened = datasets.load_dataset(str(finished), split="train", cache_dir=str(tmp_path))

    assert opened["id"][:] == [row["id"] for row in read_rows(finished, "data")]


def test_numbers_that_no_column_can_hold_are_one_sentence(tmp_path: Path, capsys: Any) -> None:
    """Whole numbers too large for a column of fractions are named by their rows, and no bug shows."""
    rows = [{"instruction": f"text {n} of many", "v": 2**53 + 1 + n} for n in range(30)] + [
        {"instruction": "x", "v": 0.5}
    ]
    code, _, err = tell(capsys, write(tmp_path / "in.jsonl", rows), "--out", tmp_path / "out.parquet")

    assert code == 2
    assert "field 'v'" in err
    assert "a bug" not in err


def test_a_column_of_views_is_written(tmp_path: Path, capsys: Any) -> None:
    """Arrow's string views pass through where all rows are kept."""
    table = pa.table({"instruction": pa.array(TEXTS, pa.string_view())})
    pq.write_table(table, tmp_path / "in.parquet")
    code, _, err = tell(capsys, tmp_path / "in.parquet", "--out", tmp_path / "out.parquet")

    assert code == 0, err
    assert pq.read_table(tmp_path / "out.parquet")["instruction"].to_pylist() == TEXTS


def test_two_columns_of_one_name_are_refused(tmp_path: Path, capsys: Any) -> None:
    """What is judged and what is written could be different texts."""
    table = pa.Table.from_arrays([pa.array(["a b"]), pa.array(["c d"])], names=["instruction", "instruction"])
    pq.write_table(table, tmp_path / "in.parquet")
    code, _, err = tell(capsys, tmp_path / "in.parquet")

    assert code == 2
    assert "two columns have the name 'instruction'" in err


@pytest.mark.parametrize("ending", [".jsonl", ".parquet"])
def test_sigterm_leaves_a_whole_file(tmp_path: Path, ending: str) -> None:
    """A process that is told to end writes what it has, so that the file reads back, and exits with 75."""
    words = random.Random(3)
    rows = [{"instruction": " ".join(words.choices("abcdefghijklmnop", k=12)) + f" {n}"} for n in range(60_000)]
    source, out = write(tmp_path / "in.jsonl", rows), tmp_path / f"out{ending}"
    command = [sys.executable, "-m", "pipeline", "novelty", str(source), "--out", str(out), "--threshold", "0.3"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not (out.exists() and out.stat().st_size > 1000) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.terminate()
    _, err = process.communicate(timeout=60)

    assert process.returncode == 75, err
    assert "interrupted" in err
    assert 0 < len(read(out)) < len(rows)


def test_a_round_has_no_pool_and_says_what_to_do(backtranslation, tmp_path, capsys) -> None:
    """A round of curate is refused with 2, alone, in --against and with --fill, naming what filters its rows."""
    asyncio.run(run_to_end(backtranslation(), tmp_path / "one", ScriptedEngine()))
    two = tmp_path / "round two"
    asyncio.run(run_to_end(round_config(str(tmp_path / "one"), None, (), None), two, ScriptedEngine()))
    file = write(tmp_path / "in.jsonl", [{"instruction": "a b"}])
    files = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}

    for arguments in ([two], [two, "--fill"], [two, "--out", tmp_path / "out.jsonl"], [file, "--against", two]):
        code, out, err = tell(capsys, *arguments)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert "has no pool" in err
        assert f"`instructmill export '{two}' rows.jsonl --format alpaca`" in err
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == files
