"""Reports: a summary of a whole run, and model text made safe to show."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from rich.console import Console

from pipeline import report_screen
from pipeline.cli import main
from pipeline.config import parse_config
from pipeline.console import clock, printable
from pipeline.counters import Counters
from pipeline.driver import Driver
from pipeline.errors import InputError
from pipeline.reading import Snapshot, open_folder
from pipeline.records import Completion, Reason, Request, Stage
from pipeline.report import History, count_lines, read_history, read_rows, row_lines, status, status_text, summary
from pipeline.report_screen import Bars, draw_report, score_lines
from pipeline.runs import open_run, read, read_events
from pipeline.score_counts import Round
from pipeline.survey import Survey, survey
from pipeline.tables import evenly
from pipeline.testing import ScriptedEngine, run_to_end, scripted_answer


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


# The report on the terminal


def shown(capsys: pytest.CaptureFixture[str], folder: Path, *options: str) -> str:
    """What `report` prints."""
    capsys.readouterr()
    assert main(["report", str(folder), *options]) == 0
    return capsys.readouterr().out


@pytest.fixture
def paid(folder: Path) -> tuple[Snapshot, Survey]:
    """The run and its survey, as if it had been at work for an hour, with engines that lost a part of their time."""
    run = read(folder)
    found = survey(run, sample=0)
    made = replace(found.throughput, hours=1.0, rows_per_hour=200.0, tokens_per_s=1234.0, rows_per_engine_hour=50.0)
    time = {"useful": 12_000.0, "loading": 1_500.0, "window": 600.0, "tail": 200.0, "driver": 60.0, "novelty": 40.0}
    return run, replace(found, throughput=made, engine_time=time)


def test_the_report_is_one_screen(paid, folder, capsys, monkeypatch) -> None:
    """State, why it ended, counts, reasons, lengths, rates, engine time, what is next: 24 to 40 lines, 100 columns."""
    monkeypatch.setenv("COLUMNS", "100")
    draw_report(*paid, History(0.0, 3600.0))
    lines = capsys.readouterr().out.splitlines()
    counters = paid[0].counters

    assert 24 <= len(lines) <= 40
    assert max(map(len, lines[1:-2])) <= 100  # a path may be longer, and a command is in one piece
    assert lines[:3] == [
        f"run small in {folder}: finished",
        "  the target of 40 instructions is reached",
        "  self-instruct with scripted, 1 attempt, 1970-01-01 00:00:00 UTC to 1970-01-01 01:00:00 UTC",
    ]
    words = [line.split() for line in lines]
    assert ["rows", f"{counters.examples:,}"] in [line[:2] for line in words]
    assert ["admitted", "40", "of", f"{counters.candidates:,}"] in [line[:4] for line in words]
    assert ["time", "1:00:00", "at", "work:", "200", "rows", "an", "hour,", "1,234"] in [line[:9] for line in words]
    assert ["useful", "3:20:00", "83%"] in [line[:3] for line in words]
    assert ["lost:", "loading", "0:25:00", "10%"] in [line[:4] for line in words]
    assert "# what was refused, and why" in lines[-2]


def test_reasons_have_bars_in_their_order(folder, capsys) -> None:
    """The most frequent reason is first and its bar the longest; a bar is as long as its count says."""
    text = shown(capsys, folder)
    counts = Counter(row["reason"] for row in read(folder).rejects)
    lines = [line.split() for line in text.splitlines() if line.endswith("█") and line.split()[0] in counts]
    bars = {name: len(bar) for name, _, _, bar in lines}
    (_, most), *_ = counts.most_common()

    assert list(bars) == [name for name, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))][: len(bars)]
    assert all(length == round(30 * counts[name] / most) for name, length in bars.items())


def test_a_narrow_terminal_and_one_without_such_letters(paid, capsys, monkeypatch) -> None:
    """On 40 columns texts go on below one another, and where blocks cannot be printed bars are of signs."""
    monkeypatch.setattr(report_screen, "Console", partial(Console, width=40))
    monkeypatch.setattr("rich.console.Console.encoding", "ascii")
    draw_report(*paid, History())
    lines = capsys.readouterr().out.splitlines()
    tabular = lines[3 : next(place for place, line in enumerate(lines) if line.strip() == "next")]

    assert max(map(len, tabular)) <= 60
    assert "".join(lines).isascii()
    assert any(line.endswith("##") for line in lines)


def test_what_is_piped_has_no_escapes_and_no_blanks_at_its_ends(folder, capsys) -> None:
    """Into a file or a pipe the report is plain text."""
    text = shown(capsys, folder)

    assert "\x1b" not in text
    assert not any(line != line.rstrip() for line in text.splitlines())


def test_counts_that_do_not_close_are_told(paid, capsys) -> None:
    """A report does not show an open sum as closed, and names the command that finds the fault."""
    run, found = paid
    run.counters.candidates += 1
    draw_report(run, found, History())

    assert "IS NOT" in (told := capsys.readouterr().out)
    assert "`instructmill verify` tells more" in told


def test_the_report_for_a_program(folder, capsys) -> None:
    """`--json` is what `status` gives, and with it rejects by stage, progress, lengths and times."""
    facts, known = json.loads(shown(capsys, folder, "--json")), json.loads(json.dumps(status(folder)))

    assert {name: facts[name] for name in known} == known
    assert sum(each["count"] for each in facts["rejects"]) == len(read_rows(folder, "rejected"))
    assert facts["progress"][-1]["admitted"] == 40
    assert facts["lengths"]["instruction"]["median"] > 0
    assert facts["began"] <= facts["last"]
    assert facts["why"] == "the target of 40 instructions is reached"


def test_the_facts_of_a_run_with_a_corpus_are_json(backtranslation, tmp_path, capsys) -> None:
    """`status --json` and `report --json` of backtranslation say what was refused of the corpus, and the scores."""
    asyncio.run(run_to_end(backtranslation(), tmp_path / "r", ScriptedEngine()))
    assert main(["status", str(tmp_path / "r"), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    report = json.loads(shown(capsys, tmp_path / "r", "--json"))

    assert facts["corpus"]["refused"] == {"malformed": 1, "too_short": 1}
    assert report["rounds"][0]["counts"] == facts["counts"]["scores"]


def pairs_of(*scores: tuple[int | None, ...]) -> Survey:
    """A survey of pairs with a score for each round."""
    rounds = tuple(
        Round(place + 1, f"judge-{place + 1}", Counter(each for each in given if each), given.count(None))
        for place, given in enumerate(zip(*scores, strict=True))
    )
    return cast(Survey, SimpleNamespace(rounds=rounds, moves=Counter(each[-2:] for each in scores if len(each) > 1)))


def test_each_round_has_a_line_and_the_newest_its_scores() -> None:
    """What was asked and scored of every round; mean, A5, A4 and the bars of the newest, which come to 100 %, are of
    what was scored."""
    lines = list(score_lines(pairs_of((1,), (5,), (5,), (4,), (None,)), Bars("#", 4)))

    assert lines[0] == ("round 1", "5", "asked, 4 scored by judge-1: mean 3.75, A5 50.0%, A4 75.0%")
    assert lines[1:] == [
        ("  5", "2", " 50% ####"),
        ("  4", "1", " 25% ##"),
        ("  3", "0", "  0% "),
        ("  2", "0", "  0% "),
        ("  1", "1", " 25% ##"),
    ]


def test_the_move_is_a_table_of_before_by_now() -> None:
    """Rows are the score before, columns the score now; shares of same, up and down are given."""
    lines = list(score_lines(pairs_of((1, 2), (2, 4), (5, 5), (5, 3), (4, None)), Bars("#", 4)))[-8:]

    assert lines[0] == ("moved", "5", "20% the same, 40% up, 20% down, 20% without a score in one of the two")
    assert [label.split() for label, _, said in lines[1:] if not said] == [
        ["before", "\\", "now", "1", "2", "3", "4", "5", "none"],
        ["1", "0", "1", "0", "0", "0", "0"],
        ["2", "0", "0", "0", "1", "0", "0"],
        ["3", "0", "0", "0", "0", "0", "0"],
        ["4", "0", "0", "0", "0", "0", "1"],
        ["5", "0", "0", "1", "0", "1", "0"],
        ["none", "0", "0", "0", "0", "0", "0"],
    ]
    assert max(2 + len(label) for label, *_ in lines) <= 60


def test_a_narrow_terminal_has_the_move_in_whole_rows(paid, capsys, monkeypatch) -> None:
    """On 60 columns each score before has one line with all its numbers."""
    monkeypatch.setenv("COLUMNS", "60")
    rounds = pairs_of((1, 2), (2, 4), (5, 5), (5, 3), (4, None))
    draw_report(paid[0], replace(paid[1], rounds=rounds.rounds, moves=rounds.moves), History())
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("    ")]
    start = next(place for place, line in enumerate(lines) if "before" in line)

    assert [line.split() for line in lines[start : start + 3]] == [
        ["before", "\\", "now", "1", "2", "3", "4", "5", "none"],
        ["1", "0", "1", "0", "0", "0", "0"],
        ["2", "0", "0", "0", "1", "0", "0"],
    ]
    assert max(map(len, lines[start : start + 7])) <= 60


def test_a_reason_is_never_cut(folder, capsys, monkeypatch) -> None:
    """On 40 columns, too, each reason is one that --reason takes."""
    monkeypatch.setenv("COLUMNS", "40")
    assert main(["inspect", str(folder), "--rejected", "-n", "1"]) == 0
    words = capsys.readouterr().out.split()

    assert set(read(folder).rejects.arrow(["reason"])["reason"].to_pylist()) <= set(words)


def test_what_has_no_rejects_is_not_told_to_look_at_them(scripted, tmp_path, capsys) -> None:
    """`inspect --rejected` is suggested only where something was refused."""
    open_run(scripted(), tmp_path / "r").close()

    assert "--rejected" not in shown(capsys, tmp_path / "r")


def test_a_finished_run_that_is_started_again_ended_when_it_did(scripted, tmp_path, monkeypatch) -> None:
    """A start that finds the run complete is no attempt, and neither its time nor its target is the run's."""
    asyncio.run(run_to_end(scripted(target=20), tmp_path / "r", ScriptedEngine()))
    before, facts = read_history(read(tmp_path / "r")), status(tmp_path / "r")
    ended = [event["time"] for event in read_events(tmp_path / "r") if event["event"] == "commit"][-1]
    monkeypatch.setattr("pipeline.runs.time.time", lambda: ended + 1000)
    for target in (20, 10):
        open_run(scripted(target=target), tmp_path / "r").close()
    run = read(tmp_path / "r")

    assert read_history(run) == before
    assert before.last == ended
    assert survey(run, sample=0).attempts == 1
    assert status(tmp_path / "r") == facts


def test_a_second_of_work_has_no_hourly_rate(folder, capsys) -> None:
    """Of a run that was at work for less than 10 seconds nothing is said of an hour."""
    assert 0 < survey(read(folder), sample=0).throughput.hours < 10 / 3600
    assert "an hour" not in (told := shown(capsys, folder))
    assert "tokens a second generated" in told


def test_what_is_told_of_many_reasons() -> None:
    """More reasons than there are lines for end in one line that counts the rest."""
    lines = list(Bars("#", 10).of([("  a", 50), ("  b", 30), ("  c", 15), ("  d", 5)], 100, 3))

    assert lines == [("  a", "50", " 50% ##########"), ("  b", "30", " 30% ######"), ("  2 others", "20", " 20% ####")]


# inspect


def test_a_reject_stands_with_what_it_was_too_near_to(folder, capsys) -> None:
    """`inspect --reason not_novel` shows the neighbour's text below its id and score."""
    run = read(folder)
    reject = run.rejects.where(reason=Reason.NOT_NOVEL).sample(1)[0]
    near = run.lineage(reject["instruction_id"]).nearest
    assert main(["inspect", str(folder), "--reason", "not_novel", "-n", "1"]) == 0
    words = " ".join(capsys.readouterr().out.replace("│", " ").split())

    assert near is not None
    assert f"nearest {near.id} at ROUGE-L {reject['nearest_score']:.3f} {near.text}" in words


def test_no_reject_of_a_reason_is_said_so(folder, capsys) -> None:
    """A reason that refused nothing has a sentence in place of an empty drawing."""
    assert main(["inspect", str(folder), "--reason", "no_tokens"]) == 0

    assert capsys.readouterr().out.splitlines()[1:] == ["none with the reason no_tokens"]
