"""Reports: a summary of a whole run, and model text made safe to show."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import parse_config
from pipeline.console import clock, printable
from pipeline.counters import Counters
from pipeline.driver import Driver
from pipeline.errors import InputError
from pipeline.reading import open_folder
from pipeline.records import Completion, Reason, Request, Stage
from pipeline.report import count_lines, read_rows, row_lines, status, status_text, summary
from pipeline.runs import open_run
from pipeline.tables import evenly
from pipeline.testing import ScriptedEngine, scripted_answer


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("plain, é 你好 🙂", "plain, é 你好 🙂", id="plain"),
        pytest.param("a\tb\nc", "a\tb\nc", id="tab-and-newline"),
        pytest.param("\x1b[2Jgone", "\\x1b[2Jgone", id="terminal-escape"),
        pytest.param("\x1b]0;title\x07", "\\x1b]0;title\\x07", id="terminal-title"),
        pytest.param("a\rb", "a\\rb", id="carriage-return"),
        pytest.param("a\x00\x08b", "a\\x00\\x08b", id="control"),
        pytest.param("a\x9b2Jb", "a\\x9b2Jb", id="c1-control"),
        pytest.param("a\u202eb", "a\\u202eb", id="right-to-left-override"),
        pytest.param("a\u2066b\u2069", "a\\u2066b\\u2069", id="isolate"),
        pytest.param("a\u200bb", "a\\u200bb", id="zero-width"),
        pytest.param("\U000e0041", "\\U000e0041", id="tag"),
        pytest.param("\ud800", "\\ud800", id="lone-surrogate"),
        pytest.param("[bold]x[/bold]", "[bold]x[/bold]", id="markup-is-text"),
        pytest.param("", "", id="empty"),
    ],
)
def test_printable(text: str, expected: str) -> None:
    """Control and format characters are shown as escapes; every other character stays."""
    assert expected == printable(text)


@pytest.mark.parametrize(
    ("total", "count", "expected"),
    [
        pytest.param(0, 3, [], id="no-rows"),
        pytest.param(2, 3, [0, 1], id="fewer-than-asked"),
        pytest.param(3, 3, [0, 1, 2], id="as-many"),
        pytest.param(9, 3, [0, 4, 8], id="spread"),
        pytest.param(10, 2, [0, 9], id="first-and-last"),
        pytest.param(10, 1, [0], id="one"),
        pytest.param(5, 4, [0, 1, 3, 4], id="rounded"),
    ],
)
def test_evenly(total: int, count: int, expected: list[int]) -> None:
    """Rows are spread over all, the first and the last included, none twice."""
    rows: list[dict[str, Any]] = [{"n": number} for number in range(total)]

    assert expected == [row["n"] for row in evenly(rows, count)]


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0, "0:00:00"),
        (59.4, "0:00:59"),
        (59.6, "0:01:00"),
        (3599.6, "1:00:00"),
        (3661, "1:01:01"),
        (360000, "100:00:00"),
    ],
)
def test_clock(seconds: float, expected: str) -> None:
    """Seconds are shown as h:mm:ss, rounded before they are cut apart."""
    assert expected == clock(seconds)


def test_row_lines() -> None:
    """What a person wants to see of a reject, in order, with empty fields left out and no text twice."""
    row = {
        "stage": "novelty",
        "reason": "not_novel",
        "detail": "",
        "instruction": "Sort it.",
        "input": None,
        "output": None,
        "text": "Sort it.",
        "nearest_id": "seed_1",
        "nearest_score": 0.75,
        "parents": ["seed_2", "r/0/1"],
    }
    expected = [
        ("stage", "novelty"),
        ("reason", "not_novel"),
        ("instruction", "Sort it."),
        ("nearest", "seed_1 at ROUGE-L 0.750"),
        ("parents", "seed_2, r/0/1"),
    ]

    assert expected == list(row_lines(row))
    assert ("text", "raw") in list(row_lines({**row, "text": "raw"}))


def test_count_lines_say_so_when_a_sum_is_open() -> None:
    """A sum with unequal sides is not shown as closed."""
    lines = count_lines(Counters(candidates=2, admitted=1, instructions_with_rows=1))

    assert "candidates             2 IS NOT 1 admitted + 0 refused" in lines
    assert "admitted               1 = 1 with rows + 0 closed without" in lines


def test_count_lines_order_reasons() -> None:
    """Reasons are shown with the most frequent first, and by name where they are as many."""
    counters = Counters(candidates=1004, failed_units=1)
    counters.refused_candidates.update({"too_short": 2, "empty": 2, "not_novel": 1000})
    counters.failure_reasons.update({"request_refused": 1})
    lines = count_lines(counters)

    assert lines[0] == "units                  0, 1 failed (request_refused 1)"
    assert lines[1] == ("candidates         1,004 = 0 admitted + 1,004 refused (not_novel 1,000, empty 2, too_short 2)")


# A whole run


def answer(request: Request) -> Completion:
    """A plausible answer, cut off in unit 3 with a list of two items."""
    if (request.key.unit, request.key.stage) == (3, Stage.BOOTSTRAP):
        return Completion(" Do it.\n10. Explain the \x1b[31mbroken", "length", 1, 1)
    return scripted_answer(request)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small finished run."""
    folder = tmp_path_factory.mktemp("report") / "run"
    values = {"name": "small", "target": 40, "engine": {"kind": "scripted"}, "shards": {"rows": 20}}
    config = parse_config(values, "test")

    async def finish() -> None:
        run = open_run(config, folder)
        try:
            await Driver(config, run.state, run.plan.recipe, ScriptedEngine(answer), run.commit).run()
        finally:
            run.close()

    asyncio.run(finish())
    return folder


def test_status_of_a_finished_run(folder: Path) -> None:
    """The facts of a finished run come from its files alone."""
    facts = status(folder)
    counts = facts["counts"]

    assert (facts["run"], facts["state"], facts["target"], facts["attempts"]) == ("small", "finished", 40, 1)
    assert (facts["ending"]["reason"], facts["eta_s"]) == ("target", None)
    assert counts["admitted"] == len(read_rows(folder, "pool")) == 40
    assert counts["examples"] == len(read_rows(folder, "data"))
    assert counts["candidates"] == 40 + counts["refused"]
    assert counts["refused_candidates"]["item_truncated"] == 1


def test_status_text_of_a_finished_run(folder: Path) -> None:
    """A person sees the state, the ending, the target and the sums."""
    lines = status_text(status(folder)).splitlines()

    assert lines[0] == f"run small in {folder}: finished"
    assert lines[1] == "  the target of 40 instructions is reached"
    assert lines[2] == "  target                40, 40 admitted"
    assert [line.split()[0] for line in lines[3:7]] == ["units", "candidates", "admitted", "instances"]
    assert not any("IS NOT" in line for line in lines)


def test_status_text_of_a_live_run(folder: Path) -> None:
    """While a run goes on the time left is shown."""
    lines = status_text({**status(folder), "state": "running", "ending": None, "eta_s": 75}).splitlines()

    assert lines[0].endswith(": running")
    assert lines[1] == "  target                40, 40 admitted, about 0:01:15 left"


def test_summary_of_a_finished_run(folder: Path) -> None:
    """The summary names the run, why it ended, the counts and the tokens spent past the end."""
    manifest, commits = open_folder(folder)
    lines = summary(folder, manifest, commits[-1]).splitlines()

    assert lines[:2] == [f"run small in {folder}", "  finished: the target of 40 instructions is reached"]
    assert [line[2:] for line in lines[2:]][
        : len(count_lines(Counters.from_json(commits[-1].counters)))
    ] == count_lines(Counters.from_json(commits[-1].counters))


def test_summary_of_a_stopped_run(folder: Path) -> None:
    """A run that is not finished says how to go on."""
    manifest, commits = open_folder(folder)

    assert summary(folder, manifest, commits[1]).splitlines()[1] == "  stopped: run the same command to go on"


def test_rows_by_reason(folder: Path) -> None:
    """Rejects can be read by their reason, and all of them are read without one."""
    rejects = read_rows(folder, "rejected")
    truncated = read_rows(folder, "rejected", Reason.ITEM_TRUNCATED)

    assert [row["text"] for row in truncated] == ["Explain the \x1b[31mbroken"]
    assert truncated[0] in rejects
    assert read_rows(folder, "rejected", "no_such_reason") == []
    assert [row["unit"] for row in rejects] == sorted(row["unit"] for row in rejects)


def test_a_folder_without_a_run(tmp_path: Path) -> None:
    """A folder that holds no run is an input error that says how to make one."""
    with pytest.raises(InputError, match="the folder holds no run; `instructmill run CONFIG --out"):
        status(tmp_path)
