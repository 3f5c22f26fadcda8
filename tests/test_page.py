"""The page of `report --html`: what is on it for every kind of run, and that its file is whole or not there."""

from __future__ import annotations

import asyncio
import errno
import os
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from pipeline import page as page_module
from pipeline import runs
from pipeline.cli import main
from pipeline.config import parse_config
from pipeline.errors import ContentFault, InputError, RunStopped
from pipeline.page import page, write_page
from pipeline.records import Completion, Reason, Request
from pipeline.report import acceptance, made_of
from pipeline.rounds import round_config
from pipeline.runs import open_run
from pipeline.survey import survey
from pipeline.testing import ScriptedEngine, run_to_end, scripted_answer

ALL = ["acceptance", "reasons", "scores", "novelty", "diversity", "seeds", "lengths", "engines", "rows", "refused"]


class Read(HTMLParser):
    """A page, read: its text, and the ids of its sections."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.words: list[str] = []
        self.drawings = 0
        self.feed(text)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag == "section" and values.get("id"):
            self.ids.append(str(values["id"]))
        self.drawings += tag == "svg"

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def read(folder: Path | str) -> Read:
    """The page of a run."""
    return Read(page(runs.read(folder)))


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A finished run of Self-Instruct, which no test changes."""
    folder = tmp_path_factory.mktemp("page") / "r"
    values = {"name": "t", "target": 60, "window": 8, "engine": {"kind": "scripted"}, "shards": {"rows": 25}}
    asyncio.run(run_to_end(parse_config(values, "test"), folder, ScriptedEngine()))
    return folder


@pytest.fixture(scope="module")
def its_page(finished) -> str:
    """The page of that run."""
    return page(runs.read(finished))


@pytest.fixture
def quick(its_page, monkeypatch) -> None:
    """A page is made once; what is tested is its file."""
    monkeypatch.setattr(page_module, "page", lambda run: its_page)


def test_a_finished_run_of_self_instruct(finished, its_page) -> None:
    """State, ending, counts, all drawings that it can have, and rows are there, and no scores."""
    run, found = runs.read(finished), Read(its_page)

    assert found.ids == [id for id in ALL if id != "scores"] + ["about"]
    assert "t finished the target of 60 instructions is reached" in found.text
    assert f"accepted rows {run.counters.examples:,} {made_of(run)}" in found.text
    assert f"60 of {run.counters.candidates:,} candidates were admitted" in found.text
    assert found.drawings == 6  # not of engine time, which an engine in this process does not count
    assert "self-instruct" in found.text
    assert all(prompt["hash"] in found.text for prompt in run.manifest["prompts"].values())
    assert run.manifest["versions"]["pyarrow"] in found.text


def test_the_page_says_what_the_screen_says(scripted, tmp_path, capsys) -> None:
    """What rows came of, and the share admitted over the run and over its last tenth, are the same in both."""
    asyncio.run(run_to_end(scripted(target=120, shards={"rows": 8}), tmp_path / "r", ScriptedEngine()))
    run, text = runs.read(tmp_path / "r"), read(tmp_path / "r").text
    assert main(["report", str(tmp_path / "r")]) == 0
    told = " ".join(capsys.readouterr().out.split())
    share = acceptance(survey(run, sample=0))

    assert share.endswith("% in the last tenth")
    assert f"candidates were admitted, {share}." in text
    assert f"candidates, {share}" in told
    assert f"{run.counters.examples} of {run.counters.instructions_with_rows} instructions" in told
    assert f"accepted rows {run.counters.examples} of {run.counters.instructions_with_rows} instructions" in text


def test_rows_stand_with_what_they_grew_from(finished, its_page) -> None:
    """Each row shown has its texts and the texts of its demonstrations, seeds too."""
    run, found = runs.read(finished), Read(its_page)
    row = run.examples.sample(8)[-1]
    lineage = run.lineage(row["id"])

    assert f"{row['id']} instruction {row['instruction']}" in found.text
    assert len(lineage.demonstrations) == 8
    for each in lineage.demonstrations:
        assert each.text is not None
        assert f"{each.id} {' '.join(each.text.split())}" in found.text


def test_what_was_too_near_stands_beside_its_neighbour(finished, its_page) -> None:
    """A reject as not_novel is shown with the text and the score of the instruction that it was too near to."""
    run, found = runs.read(finished), Read(its_page)
    reject = run.rejects.where(reason=Reason.NOT_NOVEL).sample(2)[0]
    near = run.lineage(reject["instruction_id"]).nearest

    assert near is not None
    assert (
        f"{reject['instruction']} too near to {near.id}, ROUGE-L {reject['nearest_score']:.3f} {near.text}"
        in found.text
    )


def test_a_run_of_backtranslation_and_its_next_round(backtranslation, tmp_path) -> None:
    """Scores and sources are shown; the next round has both rounds, how scores moved, and whose pairs they are."""
    asyncio.run(run_to_end(backtranslation(), tmp_path / "one", ScriptedEngine()))
    config = round_config(str(tmp_path / "one"), None, ('engine.model="two"',), str(tmp_path / "two"))
    asyncio.run(run_to_end(config, tmp_path / "two", ScriptedEngine()))
    first, second = read(tmp_path / "one"), read(tmp_path / "two")

    assert first.ids == [*ALL, "about"]
    assert "the corpus is at its end" in first.text
    assert "corpus.jsonl#3 (https://example.org/0)" in first.text
    assert "scores" in second.ids
    assert not {"novelty", "seeds"} & set(second.ids)  # it looked for no nearest, and has no seeds
    assert "Pairs by their score in the round before, and now." in second.text
    assert f"pairs of {tmp_path / 'one'}" in second.text


def test_a_run_that_stopped_says_why_and_how_to_go_on(scripted, tmp_path) -> None:
    """A run that is not at its end is called stopped, with what its log says last, and the command that goes on."""

    def stops(request: Request) -> Completion | Exception:
        return RunStopped("the cluster <went> away") if request.key.unit == 12 else scripted_answer(request)

    config = scripted(target=500)
    with pytest.raises(RunStopped):
        asyncio.run(run_to_end(config, tmp_path / "r", ScriptedEngine(stops)))
    killed = read(tmp_path / "r").text
    run = open_run(config, tmp_path / "r")
    run.event("stopped", why="the cluster <went> away")
    run.close()

    assert "t stopped not at its end (its process ended without a word)" in killed
    assert "not at its end (the cluster <went> away)" in read(tmp_path / "r").text
    assert f"instructmill run CONFIG --out {tmp_path / 'r'}" in killed


def test_a_run_that_goes_on_says_so(scripted, tmp_path, capsys) -> None:
    """While a run holds its folder, page, sentence and terminal say that it is still going."""
    config = scripted()
    asyncio.run(run_to_end(config, tmp_path / "r", ScriptedEngine()))
    run = open_run(config, tmp_path / "r")
    try:
        text = read(tmp_path / "r").text
        assert main(["report", str(tmp_path / "r"), "--html", str(tmp_path / "r.html")]) == 0
        assert main(["report", str(tmp_path / "r")]) == 0
    finally:
        run.close()
    sentence, first, second, *_ = capsys.readouterr().out.splitlines()

    assert "t running still going: what is here was committed when it was read" in text
    assert sentence.endswith("the run is still going, and this is what it had committed")
    assert first.endswith(": running")
    assert "still going" in second


def test_an_empty_run(scripted, tmp_path) -> None:
    """A run of no units has a page that says so, with no drawing and nothing to look at but what the run is."""
    open_run(scripted(), tmp_path / "r").close()
    found = read(tmp_path / "r")

    assert found.ids == ["about"]
    assert found.drawings == 0
    assert "Nothing is committed yet." in found.text


def test_a_run_of_failures_alone(scripted, tmp_path) -> None:
    """Where every unit has failed there is a page, with the failures as rejects."""

    def nothing(request: Request) -> Completion | Exception:
        return ContentFault(Reason.REQUEST_REFUSED, "too long")

    asyncio.run(run_to_end(scripted(budget={"units": 5}), tmp_path / "r", ScriptedEngine(nothing)))

    assert "No candidates came of 5 units." in read(tmp_path / "r").text


def test_a_run_in_s3(s3, scripted, tmp_path) -> None:
    """A run in a store has the same page as one on a disk, but for where it is and when it was made."""
    for place in (s3, tmp_path / "r"):
        asyncio.run(run_to_end(scripted(), place, ScriptedEngine()))
    stored, local = read(s3), read(tmp_path / "r")

    assert s3 in stored.text
    assert stored.ids == local.ids
    shown = [
        each.text[each.text.index("spread evenly") : each.text.index("The run recipe")] for each in (stored, local)
    ]
    assert "demonstration, machine-made t/" in shown[0]
    assert shown[0] == shown[1]


def test_long_texts_are_cut_and_said_to_be(scripted, tmp_path) -> None:
    """Of a text of 30,000 characters the page has 4,000, and says how many more there are."""

    def long(request: Request) -> Completion:
        answer = scripted_answer(request)
        return Completion(answer.text.replace("Output: ", "Output: " + "word " * 6000), "stop", 1, 1)

    asyncio.run(run_to_end(scripted(budget={"units": 3}), tmp_path / "r", ScriptedEngine(long)))
    text = page(runs.read(tmp_path / "r"))

    assert "characters more]" in text
    assert len(re.findall(r"word ", text)) < 8 * 820


# The file


def test_the_page_is_one_file_that_needs_no_other(finished, tmp_path, quick) -> None:
    """It names no address to load from, has no script, and a policy that forbids all but styles and data images."""
    write_page(runs.read(finished), tmp_path / "t.html")
    text = (tmp_path / "t.html").read_text(encoding="utf-8")
    loads = re.findall(r"<(?:script|link|img|iframe|object|embed|audio|video|source|base)\b|@import|url\((?!#)", text)

    assert loads == []
    assert "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'" in text
    assert set(re.findall(r"https?://[\w.]+", text)) <= {"http://www.w3.org"}  # names of SVG, which nothing asks for


def test_a_page_is_replaced_by_a_newer_one_and_no_other_file_is(finished, tmp_path, capsys, quick) -> None:
    """The report of a run that goes on can be written again; a file of somebody's own is left alone."""
    out, own = tmp_path / "t.html", tmp_path / "own.html"
    own.write_text("<p>mine</p>")

    assert main(["report", str(finished), "--html", str(out)]) == 0
    out.write_text(out.read_text().replace("<main>", "<main>old"))
    assert main(["report", str(finished), "--html", str(out)]) == 0
    assert "<main>old" not in out.read_text()
    assert main(["report", str(finished), "--html", str(own)]) == 2
    assert own.read_text() == "<p>mine</p>"
    assert "something that is no report is there already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "words"),
    [
        pytest.param("none/t.html", "there is no folder", id="no-folder"),
        pytest.param("r/data/t.html", "lies in the run folder", id="in-a-table"),
        pytest.param("r/t.html", "lies in the run folder", id="in-a-run"),
        pytest.param("t.txt", "a page is an .html file", id="another-ending"),
        pytest.param("f.html", "is no report", id="a-folder"),
        pytest.param("l.html", "is no report", id="a-link"),
        pytest.param("x" * 300 + ".html", "cannot be a file", id="a-long-name"),
        pytest.param("s3://bucket/t.html", "a page is written to a disk", id="a-store"),
    ],
)
def test_where_no_page_is_written(finished, tmp_path, capsys, monkeypatch, name, words) -> None:
    """Each is refused in one sentence with exit code 2 before the run is read, and nothing is made or changed."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "r").symlink_to(finished)
    (tmp_path / "f.html").mkdir()
    (tmp_path / "l.html").symlink_to(tmp_path / "elsewhere.html")
    before = sorted(tmp_path.rglob("*"))
    capsys.readouterr()

    assert main(["report", "r", "--html", name]) == 2
    told = capsys.readouterr().err
    assert words in told
    assert told.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_a_full_disk_leaves_no_page_and_the_old_one(finished, tmp_path, monkeypatch, quick) -> None:
    """Where the disk takes no more, the command stops with 75, the page before is as it was, and no piece is left."""
    out = tmp_path / "t.html"
    write_page(runs.read(finished), out)
    before = out.read_bytes()

    def full(self: Path, content: bytes) -> int:
        with open(self, "wb") as stream:
            stream.write(content[:100])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    assert main(["report", str(finished), "--html", str(out)]) == 75
    assert out.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir() if file.is_file()] == ["t.html"]


@pytest.mark.parametrize("module", ["jinja2", "matplotlib"])
def test_without_the_extra(finished, tmp_path, monkeypatch, module) -> None:
    """Without a library of the extra a page is refused in a sentence that names it, and the terminal's report works."""
    monkeypatch.setitem(sys.modules, module, None)

    with pytest.raises(InputError, match=rf"{module}.* is not installed: `pip install \"instructmill\[report\]\"`"):
        write_page(runs.read(finished), tmp_path / "t.html")
    assert main(["report", str(finished)]) == 0
    assert not (tmp_path / "t.html").exists()


def test_no_run(tmp_path, capsys) -> None:
    """A folder without a run is one sentence and exit code 2, whatever form is asked for."""
    for form in ([], ["--json"], ["--html", str(tmp_path / "t.html")]):
        assert main(["report", str(tmp_path), *form]) == 2
        assert "the folder holds no run" in capsys.readouterr().err
