"""The command line as a person meets it: exit codes, one sentence for each fault, nothing half written."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline import cli
from pipeline.report import read_rows
from pipeline.testing import ScriptedEngine, run_to_end, scripted_answer

SCRIPTED = """
name = "c"
target = 20
window = 4
[engine]
kind = "scripted"
"""
SEED = {"id": "s", "instruction": "Name a river in Asia.", "instances": [{"input": "", "output": "The Ganges"}]}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A small configuration of the scripted engine, as a file."""
    path = tmp_path / "c.toml"
    path.write_text(SCRIPTED)
    return path


def tell(capsys, *arguments: object) -> tuple[int, str, str]:
    """Run the command in this process: exit code, stdout, stderr."""
    code = cli.main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return code, out, err


def test_a_run_from_start_to_finish(config, capsys, tmp_path):
    """`run` exits 0 with a summary whose sums close; again, it says that the run is complete."""
    folder = tmp_path / "r"
    code, out, _ = tell(capsys, "run", config, "--out", folder)
    again, word, _ = tell(capsys, "run", config, "--out", folder)

    assert (code, again) == (0, 0)
    assert "finished: the target of 20 instructions is reached" in out
    assert "IS NOT" not in out
    assert "the run is complete" in word
    assert len(read_rows(folder, "pool")) == 20


def test_status_tells_what_the_files_hold(config, capsys, tmp_path):
    """`status` as text and as JSON, of a finished run."""
    tell(capsys, "run", config, "--out", tmp_path / "r")
    _, text, _ = tell(capsys, "status", tmp_path / "r")
    _, out, _ = tell(capsys, "status", tmp_path / "r", "--json")
    facts = json.loads(out)

    assert "finished" in text
    assert (facts["state"], facts["counts"]["admitted"], facts["target"]) == ("finished", 20, 20)
    assert facts["counts"]["candidates"] == 20 + facts["counts"]["refused"]


def test_inspect_draws_rows_and_rejects(config, capsys, tmp_path):
    """`inspect` shows rows, or with a reason the rejects of that reason only."""
    tell(capsys, "run", config, "--out", tmp_path / "r")
    _, rows, _ = tell(capsys, "inspect", tmp_path / "r", "-n", 2)
    reason = read_rows(tmp_path / "r", "rejected")[0]["reason"]
    _, rejects, _ = tell(capsys, "inspect", tmp_path / "r", "--reason", reason, "-n", 1)

    assert "2 of " in rows
    assert "instruction" in rows
    assert reason in rejects


def test_preview_shows_everything_and_writes_nothing(config, capsys, tmp_path):
    """`preview` shows prompt, raw completion and verdicts of each unit, and leaves no folder."""
    before = sorted(tmp_path.rglob("*"))
    code, out, _ = tell(capsys, "preview", config, "-n", 2, "--set", f"out={tmp_path / 'r'}")

    assert code == 0
    assert "unit 1" in out
    assert "Below is a numbered list of tasks" in out
    assert "admitted" in out
    assert sorted(tmp_path.rglob("*")) == before


def test_dry_run_prints_the_resolved_configuration(config, capsys, tmp_path):
    """`run --dry-run` prints fingerprint and configuration as JSON and writes nothing."""
    code, out, _ = tell(capsys, "run", config, "--out", tmp_path / "r", "--dry-run")
    resolved = json.loads(out)

    assert code == 0
    assert resolved["config"]["window"] == 4
    assert resolved["config"]["bootstrap"]["demonstrations"] == 8
    assert not (tmp_path / "r").exists()


def test_check_looks_at_everything_known_before_a_model_loads(config, capsys, tmp_path):
    """`check` says what it looked at, with the window and what sees seeds only, and writes nothing."""
    code, out, _ = tell(capsys, "check", config, "--out", tmp_path / "r")

    assert code == 0
    assert "seeds: 175 from shipped:seeds.jsonl" in out
    assert "the first 4 see seeds only" in out
    assert out.endswith("all is well\n")
    assert not (tmp_path / "r").exists()


def seeds_file(tmp_path: Path, *rows: object) -> str:
    """A seed file of these rows (text goes in as it is), as a --set argument."""
    path = tmp_path / "seeds.jsonl"
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows))
    return f"seeds={path}"


def seed(number: int, **fields: object) -> dict[str, object]:
    """One good seed, or with fields replaced."""
    return {**SEED, "id": f"s{number}", "is_classification": False, **fields}


BAD_INPUT = {
    "no seed file": (lambda t: [f"seeds={t / 'no.jsonl'}"], "no.jsonl': there is no such file"),
    "broken seed": (lambda t: [seeds_file(t, seed(0), '{"id": ')], "seeds.jsonl, line 2: not valid JSON"),
    "missing field": (lambda t: [seeds_file(t, seed(0), SEED)], "line 2: field 'is_classification' is missing"),
    "wrong field": (lambda t: [seeds_file(t, seed(0, instances="x"))], "line 1: field 'instances' must be a list"),
    "same id": (lambda t: [seeds_file(t, seed(0), seed(0))], "line 2: id 's0' is that of line 1; ids are unique"),
    "too few seeds": (
        lambda t: [seeds_file(t, *map(seed, range(7)))],
        "7 seeds are fewer than bootstrap.demonstrations = 8",
    ),
    "unknown key": (lambda t: ["novelty.treshold=0.5"], "unknown key 'novelty.treshold'; did you mean 'threshold'?"),
    "wrong type": (lambda t: ['target="many"'], "key 'target': input should be a valid integer"),
    "no such prompt": (lambda t: [f"prompts.bootstrap={t / 'no.txt'}"], "the file cannot be read as UTF-8 text"),
    "prompt without its variable": (
        lambda t: [(t / "p.txt").write_text("Tasks:\n") and f"prompts.bootstrap={t / 'p.txt'}"],
        "the template has no `$tasks`",
    ),
    "no such model": (
        lambda t: ["engine.kind=vllm", f"engine.model={t / 'no-model'}"],
        "no-model': there is no such folder",
    ),
    "wrong vLLM option": (lambda t: ["engine.vllm.max_num_seqs=many"], "vllm.max_num_seqs must be a whole number"),
    "folder with other things": (
        lambda t: [(t / "r").mkdir() or (t / "r" / "thesis.txt").touch() or "seed=1"],
        "the folder is not empty and holds no run",
    ),
    "no model named": (lambda t: ["engine.kind=vllm"], "engine.model is missing"),
    "folder under a file": (lambda t: [f"out={t / 'c.toml' / 'r'}"], "the run folder cannot be written"),
    "context too short": (
        lambda t: ["engine.kind=vllm", "engine.model=shipped:embedded", "engine.vllm.max_model_len=300"],
        "prompt bootstrap: its longest form has",
    ),
}


@pytest.mark.parametrize("command", ["check", "run"])
@pytest.mark.parametrize(("settings", "words"), BAD_INPUT.values(), ids=BAD_INPUT)
def test_bad_input_is_one_sentence_and_exit_2(config, capsys, tmp_path, settings, words, command):
    """Each fault that can be known before a model loads is named by `check` and by `run`, and nothing is written."""
    sets = [part for setting in [f"out={tmp_path / 'r'}", *settings(tmp_path)] for part in ("--set", setting)]
    before = sorted(tmp_path.rglob("*"))
    code, _, err = tell(capsys, command, config, *sets)

    assert code == 2
    assert words in err
    assert err.startswith("instructmill: ")
    assert err.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_a_folder_of_another_configuration_is_refused(config, capsys, tmp_path):
    """The differing keys are named with both values, by `check` and by `run`."""
    tell(capsys, "run", config, "--out", tmp_path / "r")
    for command in ("check", "run"):
        code, _, err = tell(capsys, command, config, "--out", tmp_path / "r", "--set", "novelty.threshold=0.5")

        assert code == 2
        assert "differs in novelty.threshold (0.7 there, 0.5 here)" in err


def test_a_folder_without_a_run_is_named(capsys, tmp_path):
    """`status` and `inspect` of a folder that holds no run exit 2 with what would make one."""
    for command in ("status", "inspect"):
        code, _, err = tell(capsys, command, tmp_path)

        assert code == 2
        assert "holds no run" in err


@pytest.mark.parametrize("command", ["status", "inspect", "report", "verify"])
def test_a_file_is_no_run(config, capsys, command):
    """A file where a run belongs is called one, with exit code 2."""
    assert tell(capsys, command, config) == (2, "", f"instructmill: {config} is a file, and not a run folder\n")


@pytest.mark.parametrize(
    "environment", [{"PYTHONIOENCODING": "latin-1"}, {"LC_ALL": "POSIX", "PYTHONUTF8": "0"}], ids=["latin", "posix"]
)
def test_letters_that_a_terminal_has_not_are_escapes(scripted, tmp_path, environment):
    """Where the output takes no Chinese, rows and errors are written with escapes, and the command goes on."""

    def answer(request):
        completion = scripted_answer(request)
        return replace(completion, text=completion.text.replace("Output: ", "Output: \u4f60\u597d "))

    asyncio.run(run_to_end(scripted(target=10), tmp_path / "r", ScriptedEngine(answer)))
    environment = {"PYTHONPATH": str(Path(cli.__file__).parents[1]), "PATH": os.environ["PATH"], **environment}
    commands = [["inspect", str(tmp_path / "r"), "-n", "20"], ["inspect", str(tmp_path / "r"), "--id", "\u4f60"]]
    rows, error = (
        subprocess.run(
            [sys.executable, "-m", "pipeline", *command], capture_output=True, env=environment, check=False, timeout=60
        )
        for command in commands
    )

    assert (rows.returncode, rows.stderr) == (0, b"")
    assert rb"\u4f60\u597d" in rows.stdout
    assert error.returncode == 2
    assert error.stderr.count(b"\n") == 1


def test_an_unknown_reason_lists_the_known_ones(config, capsys, tmp_path):
    """`inspect --reason` refuses a word that is no reason."""
    code, _, err = tell(capsys, "inspect", tmp_path, "--reason", "dull")

    assert code == 2
    assert "no such reason; there are request_refused" in err


def test_a_bug_is_a_sentence_too(config, capsys, monkeypatch, tmp_path):
    """An error nobody foresaw is named without a traceback, and exits 1."""
    monkeypatch.setattr("pipeline.launch.launch", lambda *_: 1 / 0)
    code, _, err = tell(capsys, "run", config, "--out", tmp_path / "r")

    assert code == 1
    assert "a bug in InstructMill: ZeroDivisionError" in err
    assert "Traceback" not in err


def test_an_intruder_is_named(tmp_path):
    """A package of ours that another one hides is found at start, with its place."""
    intruder = tmp_path / "prompts"
    intruder.mkdir()
    (intruder / "__init__.py").touch()
    root = Path(cli.__file__).resolve().parent.parent
    code = f"import sys; sys.path[:0] = {[str(tmp_path), str(root)]}; from pipeline.cli import main; sys.exit(main())"
    done = subprocess.run([sys.executable, "-c", code, "status", "."], capture_output=True, text=True, check=False)

    assert done.returncode == 2
    assert f"another package named 'prompts' at {intruder} hides InstructMill's own" in done.stderr


def test_the_summary_goes_to_stdout_and_progress_to_stderr(config, tmp_path):
    """Where there is no terminal the progress is plain lines on stderr, and stdout holds the result alone."""
    command = [sys.executable, "-m", "pipeline", "run", str(config), "--out", str(tmp_path / "r")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)

    assert "admitted 20/20" in done.stderr
    assert "\x1b" not in done.stderr
    assert done.stdout.startswith("run c in ")


def test_a_reader_of_rows_that_goes_away_is_no_interrupt(scripted, tmp_path) -> None:
    """`inspect | head` ends quietly with 0, also where the rows are drawn."""
    asyncio.run(run_to_end(scripted(target=60), tmp_path / "r", ScriptedEngine()))
    command = f"{sys.executable} -m pipeline inspect {tmp_path / 'r'} -n 50; echo $? >&2"
    done = subprocess.run(["sh", "-c", f"({command}) | head -1"], capture_output=True, text=True, timeout=60)

    assert done.stderr.strip() == "0"
