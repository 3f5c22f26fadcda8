"""What a model or a corpus holds is data: it ends as text in rows, and nothing obeys it."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline import runs
from pipeline.cli import main
from pipeline.drawing import PreviewDrawing
from pipeline.plan import make_plan
from pipeline.preview import preview_units
from pipeline.records import Completion, Request, Stage
from pipeline.testing import ScriptedEngine, run_to_end, scripted_answer

HOSTILE = (
    "../../../etc/passwd",
    "<script>alert(1)</script><img src=x onerror=alert(2)>",
    "\x1b[2J\x1b]0;owned\x07 red \x1b[31m",
    "$instruction ${HOME} $$ %s {0} {output}",
    "'; DROP TABLE runs; --",
    "\u202egnp.exe \u2066\x00 end",
    "__import__('os').system('touch owned')",
    "```\nrm -rf /\n```",
)


def hostile(request: Request) -> Completion:
    """Answers in which every text has something hostile in its middle."""
    answer = scripted_answer(request)
    poison = HOSTILE[request.key.unit % len(HOSTILE)].replace("\n", " ")
    match request.key.stage:
        case Stage.BOOTSTRAP | Stage.AUGMENTATION:
            return replace(answer, text=answer.text.replace(" the ", f" the {poison} ", 1))
        case Stage.INSTANCES:
            return replace(answer, text=answer.text.replace("Output: ", f"Output: {poison} "))
        case Stage.RATIONALE:
            return replace(answer, text=poison)
    return answer


def files_of(folder: Path) -> set[Path]:
    """Every file below a folder."""
    return {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(params=["self-instruct", "backtranslation"])
def config(request, scripted, backtranslation, tmp_path: Path):
    """A configuration of either recipe; the corpus is hostile too."""
    if request.param == "self-instruct":
        return scripted(budget={"units": 24}, target=1000)
    texts = [f"Text {number} about a harbour. {poison} " * 12 for number, poison in enumerate(HOSTILE)]
    texts = [
        text + " ".join(f"It has {n} marks on {number} stones." for n in range(30)) for number, text in enumerate(texts)
    ]
    source = tmp_path / "hostile.jsonl"
    source.write_text("".join(json.dumps({"text": text[:2900]}) + "\n" for text in texts))
    off = {"repeated_sentences": 0, "near_duplicates": 0}
    return backtranslation(source=source, corpus=off, curation={"mode": "rationale", "min_score": 3})


def test_hostile_text_ends_as_plain_rows(config, tables, tmp_path) -> None:
    """It stands in rows as it was, and no file is made but those of a run."""
    before = files_of(tmp_path)
    asyncio.run(run_to_end(config, tmp_path / "r", ScriptedEngine(hostile)))
    rows = tables(tmp_path / "r")
    text = json.dumps(rows, ensure_ascii=False)

    assert "<script>alert(1)</script>" in text
    assert "${HOME}" in text
    made = files_of(tmp_path) - before
    assert {path.parts[0] for path in made} == {"r"}
    assert all(path.name.split(".")[0].replace("-", "").isalnum() for path in made)


def test_a_terminal_is_shown_escapes_and_never_sent_them(config, tmp_path, capsys) -> None:
    """inspect, status, report and preview print no control or direction character that a text holds."""
    asyncio.run(run_to_end(config, tmp_path / "r", ScriptedEngine(hostile)))
    run = runs.read(tmp_path / "r")
    lineages = [["inspect", "--id", row["id"]] for row in run.examples.sample(8)]
    shown = (["inspect", "-n", "50"], ["inspect", "--rejected", "-n", "50"], ["status"], ["report"])
    for command in (*shown, ["inspect", "--reason", run.rejects.sample(1)[0]["reason"]], *lineages):
        assert main([command[0], str(tmp_path / "r"), *command[1:]]) == 0
    asyncio.run(preview_units(make_plan(config), ScriptedEngine(hostile), 8, PreviewDrawing().draw))
    shown = capsys.readouterr().out

    assert "\\x1b[2J" in shown
    assert not {"\x1b", "\x07", "\x00", "\u202e", "\u2066"} & set(shown)


def test_a_page_holds_texts_and_no_markup_of_theirs(config, tmp_path, capsys) -> None:
    """What report --html writes has each text escaped, with control and direction characters to be seen."""
    asyncio.run(run_to_end(config, tmp_path / "r", ScriptedEngine(hostile)))
    assert main(["report", str(tmp_path / "r"), "--html", str(tmp_path / "r.html")]) == 0
    text = (tmp_path / "r.html").read_text()

    assert "&lt;script&gt;alert(1)&lt;/script&gt;&lt;img src=x onerror=alert(2)&gt;" in text
    assert "<script" not in text
    assert "<img" not in text
    assert "\\x1b[2J" in text or "\\u202egnp" in text
    assert not {"\x1b", "\x07", "\x00", "\u202e", "\u2066"} & set(text + capsys.readouterr().out)


def test_no_secret_of_the_environment_is_in_a_run_folder(config, tmp_path, monkeypatch) -> None:
    """Keys in the environment are in no file of the run."""
    for name in ("OPENAI_API_KEY", "AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "RAY_AUTH_TOKEN", "SOMETHING_ELSE"):
        monkeypatch.setenv(name, "s3cr3t-value-of-mine")
    asyncio.run(run_to_end(config, tmp_path / "r", ScriptedEngine(hostile)))

    assert not [path for path in files_of(tmp_path / "r") if b"s3cr3t" in (tmp_path / "r" / path).read_bytes()]


def test_a_configuration_is_never_evaluated(tmp_path, capsys) -> None:
    """A value that looks like code stays a text, and ends in a sentence."""
    file = tmp_path / "c.toml"
    file.write_text('name = "__import__(\'os\')"\n[engine]\nkind = "scripted"\n')

    assert main(["run", str(file), "--out", str(tmp_path / "r")]) == 2
    assert main(["run", str(file), "--set", "name=ok", "--set", "target=__import__('os').getpid()"]) == 2
    assert "Traceback" not in capsys.readouterr().err
