"""The notebooks: executed whole in a real kernel on small runs, and stripped in git."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest

from pipeline import runs
from pipeline.config import parse_config
from pipeline.export import HubFolder, export_rows
from pipeline.novelty_fill import fill
from pipeline.report import read_rows
from pipeline.rounds import round_config
from pipeline.storage import folder_at
from pipeline.survey import survey
from pipeline.testing import ScriptedEngine, run_to_end

nbclient = pytest.importorskip("nbclient")
nbformat = pytest.importorskip("nbformat")

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = {file.stem[:2]: file for file in sorted((ROOT / "notebooks").glob("*.ipynb"))}
DRAWINGS = {"01": 2, "02": 2, "03": 3, "04": 1, "05": 1}
AT_ONCE = 2  # kernels; each takes a second or two to load what it needs
Done = dict[str, Any]  # executed notebooks by their number


def made(folder: Path, config: Any = None, **values: Any) -> Path:
    """A small finished run of the scripted engine."""
    base = {"name": "t", "window": 8, "shards": {"rows": 25}, "engine": {"kind": "scripted", "model": "one"}}
    asyncio.run(run_to_end(config or parse_config({**base, **values}, "test"), folder, ScriptedEngine()))
    return folder


@pytest.fixture(scope="module")
def instructed(tmp_path_factory) -> Path:
    """A finished run of Self-Instruct, filled, so that every score of it is known."""
    folder = made(tmp_path_factory.mktemp("notebooks") / "r", target=120)
    fill(folder)
    return folder


@pytest.fixture(scope="module")
def judged(tmp_path_factory) -> Path:
    """The second round over a run of backtranslation."""
    folder = tmp_path_factory.mktemp("notebooks")
    corpus = {"source": "shipped:texts"}
    first = made(folder / "one", recipe="backtranslation", corpus=corpus, curation={"min_score": 4})
    return made(folder / "two", round_config(str(first), None, ('engine.model="two"',), None))


@pytest.fixture(scope="module")
def jupyter(tmp_path_factory) -> Iterator[Path]:
    """A folder for what Jupyter and the kernels write; nothing of the user's own is read or changed."""
    folder = tmp_path_factory.mktemp("jupyter")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("JUPYTER_RUNTIME_DIR", "JUPYTER_DATA_DIR", "JUPYTER_CONFIG_DIR", "IPYTHONDIR", "TMPDIR"):
            patch.setenv(name, str(folder / name))
            (folder / name).mkdir()
        yield folder


def execute(places: dict[str, object], folder: Path) -> Done:
    """The notebooks of these numbers, executed to their ends on these runs, some at once."""

    async def one(number: str, place: object, turn: asyncio.Semaphore) -> Any:
        book = nbformat.read(NOTEBOOKS[number], as_version=4)
        resources = {"metadata": {"path": str(folder)}}
        client = nbclient.NotebookClient(book, timeout=120, allow_errors=True, resources=resources)
        async with turn:
            await client.async_execute(env={**os.environ, "PYTHONPATH": str(ROOT), "INSTRUCTMILL_RUN": str(place)})
        return book

    async def everyone() -> list[Any]:
        turn = asyncio.Semaphore(AT_ONCE)
        return await asyncio.gather(*(one(number, place, turn) for number, place in places.items()))

    return dict(zip(places, asyncio.run(everyone()), strict=True))


@pytest.fixture(scope="module")
def before(instructed, judged) -> dict[Path, int]:
    """The files of both runs, before they are opened."""
    return files_of(instructed, judged)


@pytest.fixture(scope="module")
def done(instructed, judged, jupyter, before) -> Done:
    """Every notebook, executed."""
    return execute({number: judged if number == "04" else instructed for number in NOTEBOOKS}, jupyter)


def outputs(book: Any) -> list[Any]:
    """All outputs of an executed notebook, in order."""
    return [output for cell in book.cells for output in cell.get("outputs", ())]


def said(book: Any) -> str:
    """What an executed notebook printed and showed, as plain text."""
    return "\n".join(each.get("text") or each.get("data", {}).get("text/plain", "") for each in outputs(book))


def errors(book: Any) -> list[str]:
    """The errors of its cells, and what they warned of."""
    return [
        f"{each.get('ename', 'stderr')}: {each.get('evalue') or each['text']}"
        for each in outputs(book)
        if each.output_type == "error" or each.get("name") == "stderr"
    ]


def drawings(book: Any) -> int:
    """How many images it shows."""
    return sum("image/png" in each.get("data", {}) for each in outputs(book))


def lines(text: str, *start: str) -> list[list[str]]:
    """What follows in the lines that begin with these words, as words."""
    found = map(str.split, text.splitlines())
    return [words[len(start) :] for words in found if words[: len(start)] == list(start)]


def files_of(*folders: Path) -> dict[Path, int]:
    """Every file of these folders with the time it was changed."""
    return {file: file.stat().st_mtime_ns for folder in folders for file in folder.rglob("*") if file.is_file()}


@pytest.mark.parametrize("number", NOTEBOOKS)
def test_every_cell_runs(done, number):
    """No cell fails or warns, and the drawings are there as images."""
    assert errors(done[number]) == []
    assert drawings(done[number]) == DRAWINGS[number]


def test_the_counts_are_those_of_the_run(done, instructed):
    """01 shows the three sums, each reason, the first and the last row, and where the last one comes from."""
    run, text = runs.read(instructed), said(done["01"])
    first, *_, last = run.examples
    reasons = Counter(row["reason"] for row in run.rejects)

    for what, left, parts, _ in run.counters.sums():
        assert f"{what:>12}  {left:>9,} = {parts}\n" in text
    assert len(reasons) > 4
    assert all(text.count(reason) >= min(2, count) for reason, count in reasons.items())
    assert first["id"] in text
    assert f"─ {last['id']} ─" in text
    assert all(parent in text for parent in run.lineage(last["id"]).instruction.parents)


def test_other_thresholds_are_counted(done, instructed, tables):
    """02 counts, for each threshold, the admitted and the refused whose score is at most that; both sides are shown."""
    rows, text = tables(instructed), said(done["02"])
    refused = [row["nearest_score"] for row in rows["rejected"] if row["reason"] == "not_novel"]
    at_gate = [row["nearest_score"] for row in rows["pool"] if row["nearest_score"] is not None]
    under, between = 120 - sum(score > 0.65 for score in at_gate), sum(score <= 0.75 for score in refused)

    assert 0 < between < len(refused)
    assert lines(text, "0.65") == [[str(under), "0", str(under)]]
    assert lines(text, "0.70") == [["120", "0", "120"]]
    assert lines(text, "0.75") == [["120", str(between), str(120 + between)]]
    assert lines(text, "1.00") == [["120", str(len(refused)), str(120 + len(refused))]]
    assert f" {min(refused):.3f} " in text
    assert f" {max(at_gate):.3f} " in text


def test_the_figures_of_the_paper_are_drawn_from_our_rows(done, instructed):
    """03 names the commonest verb, what the seeds are compared with, and the mean length of an instruction."""
    run, text = runs.read(instructed), said(done["03"])
    found = survey(run)
    top, words = found.diversity.top[0], [len(row["instruction"].split()) for row in run.pool]

    assert f"with a verb: {found.diversity.with_verb}, of {found.diversity.verbs} different ones" in text
    assert [top.verb, str(top.count)] in [each[:2] for each in lines(text, "0")]
    assert f"120 instructions, {found.seeds.seeds} seeds, mean {found.seeds.scores.mean:.2f}" in text
    ((*_, mean, in_paper),) = lines(text, "instruction", "120")
    assert (mean, in_paper) == (f"{sum(words) / 120:.1f}", "15.9")


def test_both_rounds_are_shown(done, judged, tables):
    """04 has A5 and A4 of each round, how the scores moved, pairs of each score, and the files the texts came from."""
    rows = [row for kind in ("data", "rejected") for row in tables(judged)[kind] if row["scores"]]
    text = said(done["04"])
    for place, judge in enumerate(("one", "two")):
        scores = [score for row in rows if (score := row["scores"][place]["score"]) is not None]
        five, four = (sum(score >= least for score in scores) for least in (5, 4))
        shares = [f"{five}", f"({five / len(scores):.1%})", f"{four}", f"({four / len(scores):.1%})"]
        assert [words[2:6] for words in lines(text, "round", str(place + 1), judge)] == [shares]
    moved = Counter(tuple(score["score"] for score in row["scores"]) for row in rows)
    files = Counter(row["source"]["id"].split("#")[0] for row in rows)
    shown = re.findall(r"^\d+ +(\S+\.md) +(\d+)", text, re.MULTILINE)

    assert lines(text, "4", "before") == [[str(moved[4, now]) for now in (1, 2, 3, 4, 5, None)]]
    assert {name: int(count) for name, count in shown} == files
    assert text.count("low_score") >= 2


def test_the_export_is_shown_and_goes_away(done, instructed, jupyter, tmp_path):
    """05 tells of the very rows of the command, none of them twice, in the chat template, and leaves no folder."""
    told = export_rows(str(instructed), tmp_path / "whole", "messages", folder=HubFolder(test_share=0.05))
    text = said(done["05"])
    sides = {side: int(lines(text, side)[0][0]) for side in ("train", "test", "both")}
    left_out = re.search(r"(\d+) left out", text)

    assert sides["train"] + sides["test"] == sides["both"]
    assert sides["both"] + int(left_out[1] if left_out else 0) == runs.read(instructed).examples.count
    assert told.partition("whole: ")[2] in text
    assert text.count(" 0 of them twice") == 3
    assert text.count("<|im_start|>user") == text.count("<|im_start|>assistant") == 3
    assert "data/train-00000-of-00001.parquet" in text
    assert list((jupyter / "TMPDIR").iterdir()) == []


def test_the_lines_that_begin_a_training_need_no_test_split():
    """05's last snippet runs on an export with a test split, which it evaluates on, and on one without."""
    (lines,) = re.findall(
        r"```python\n(.*?)```", "".join(nbformat.read(NOTEBOOKS["05"], 4).cells[-1].source), re.DOTALL
    )
    lines = "\n".join(line for line in lines.splitlines() if " import " not in line)
    for rows in ({"train": [1, 2]}, {"train": [1, 2], "test": [3]}):
        trainer = MagicMock()
        config = MagicMock()
        exec(lines, {"load_dataset": lambda _, rows=rows: rows, "SFTTrainer": trainer, "SFTConfig": config})

        assert trainer.call_args.kwargs["train_dataset"] == [1, 2]
        assert trainer.call_args.kwargs["eval_dataset"] == rows.get("test")
        assert config.call_args.kwargs["eval_strategy"] == ("steps" if "test" in rows else "no")


def test_the_readmes_line_executes_a_notebook_on_a_run_of_the_clone(instructed, jupyter, tmp_path):
    """The README's `jupyter execute` line, in the root of a clone, shows the run under that root."""
    shutil.copytree(ROOT / "notebooks", tmp_path / "notebooks")
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "demo").symlink_to(instructed)
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / "bin").symlink_to(Path(sys.executable).parent)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (line,) = re.findall(r"^    (INSTRUCTMILL_RUN=.* execute .*)$", readme, re.MULTILINE)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run(["bash", "-c", line], cwd=tmp_path, env=environment, check=True, capture_output=True, timeout=300)

    assert f"run t in {tmp_path}/runs/demo: finished" in said(nbformat.read(tmp_path / "runs" / "seen.ipynb", 4))


def test_a_run_is_only_read(done, before, instructed, judged):
    """After all of them no file of a run has changed or come."""
    assert files_of(instructed, judged) == before


# In git


def test_what_is_no_run_is_one_sentence(jupyter, tmp_path):
    """A wrong address shows our sentence and no traceback."""
    found = [each for each in outputs(execute({"01": tmp_path}, jupyter)["01"]) if each.output_type == "error"]

    assert found[0].traceback == [found[0].evalue]
    assert str(tmp_path) in found[0].evalue


@pytest.mark.parametrize("number", NOTEBOOKS)
def test_a_notebook_in_git_has_no_outputs(number):
    """Neither outputs nor counts nor facts of a machine; it is valid, short, and begins with what run it opens."""
    book = json.loads(NOTEBOOKS[number].read_text(encoding="utf-8"))
    nbformat.validate(book)
    code = [cell for cell in book["cells"] if cell["cell_type"] == "code"]

    assert [(cell["outputs"], cell["execution_count"]) for cell in code] == [([], None)] * len(code)
    assert [cell["metadata"] for cell in book["cells"]] == [{}] * len(book["cells"])
    assert book["metadata"].keys() == {"kernelspec", "language_info"}
    assert book["metadata"]["language_info"] == {"name": "python"}
    assert 8 <= len(book["cells"]) <= 15
    assert 'RUN = os.environ.get("INSTRUCTMILL_RUN", "../runs/demo' in "".join(code[0]["source"])


def test_the_code_of_the_cells_is_formatted():
    """As `ruff format` has it."""
    command = [sys.executable, "-m", "ruff", "format", "--check", "--no-cache", *map(str, NOTEBOOKS.values())]
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)

    assert result.returncode == 0, result.stdout + result.stderr


# Runs that are not finished, or elsewhere


@pytest.mark.slow
def test_a_run_without_rows_is_said_to_be_one(scripted, jupyter, tmp_path):
    """On a run that is held and has committed nothing every cell runs, draws nothing and says so."""
    held = runs.open_run(scripted(), tmp_path / "r")
    try:
        books = execute(dict.fromkeys(NOTEBOOKS, tmp_path / "r"), jupyter)
    finally:
        held.close()

    assert {number: errors(book) for number, book in books.items()} == {number: [] for number in NOTEBOOKS}
    assert {number: drawings(book) for number, book in books.items()} == dict.fromkeys(NOTEBOOKS, 0)
    assert all("running; 0 examples, 0 in the pool, 0 rejects so far" in said(book) for book in books.values())
    nothing = ("committed nothing yet", "No pair is scored", "nothing to export")
    assert all(any(words in said(book) for words in nothing) for book in books.values())


@pytest.mark.slow
def test_a_run_in_s3_is_opened_by_its_address(instructed, judged, jupyter, s3):
    """Every notebook says the same of a run in S3 as of the same on a disk, but for where it is."""
    places = {}
    for name, folder in {"r": instructed, "two": judged}.items():
        for file in folder.rglob("*"):
            if file.is_file():
                folder_at(f"{s3}/{name}").write(file.relative_to(folder).as_posix(), file.read_bytes())
        places[folder] = f"{s3}/{name}"
    books = execute({number: places[judged if number == "04" else instructed] for number in NOTEBOOKS}, jupyter)

    assert {number: errors(book) for number, book in books.items()} == {number: [] for number in NOTEBOOKS}
    assert {number: drawings(book) for number, book in books.items()} == DRAWINGS
    assert all("in s3://" in said(book) for book in books.values())
    assert read_rows(places[instructed], "data")[0]["id"] in said(books["01"])
