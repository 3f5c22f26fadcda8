"""Runs at an endpoint through the command line, in an environment where Ray and vLLM cannot be imported."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.report import read_rows, status
from pipeline.runs import read_events
from pipeline.testing_endpoint import CUT, GARBAGE, SILENCE, Fault, ScriptedEndpoint

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
KEY = "a-throw-away-key"

Tell = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def tell(without_ray_and_vllm: dict[str, str], tmp_path: Path) -> Tell:
    """Runs `instructmill` with these words in a folder of the test's own."""

    def run(*words: object, **environment: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "pipeline", *map(str, words)]
        env = {**without_ray_and_vllm, **environment}
        return subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False, timeout=120)

    return run


def at(server: ScriptedEndpoint, *overrides: str, style: str = "chat") -> list[str]:
    """The words of a small run at a server."""
    keys = [f"engine.openai.base_url={server.url}", f"engine.model={server.model}", f"engine.style={style}"]
    keys += ["target=40", "window=6", *overrides]
    return ["shipped:endpoint.toml", *(word for key in keys for word in ("--set", key))]


@pytest.mark.parametrize("style", ["chat", "completion"])
def test_a_whole_run(tell: Tell, tmp_path: Path, style: str) -> None:
    """`check`, `run` and `status` work in both styles, the sums close, and each row has the server's token counts."""
    with ScriptedEndpoint() as server:
        checked = tell("check", *at(server, style=style))
        done = tell("run", *at(server, style=style), "--out", "r")
    rows, facts = read_rows(tmp_path / "r", "data"), status(tmp_path / "r")

    assert (checked.returncode, done.returncode) == (0, 0), done.stderr
    assert f"style: {style}: as engine.style says" in checked.stdout
    assert f"endpoint: {server.url}: model scripted, context 8192, constrained choices yes" in checked.stdout
    assert "IS NOT" not in done.stdout
    assert facts["counts"]["admitted"] == 40
    assert len(rows) > 20
    assert all(row["prompt_tokens"] > 0 and row["completion_tokens"] > 0 for row in rows)
    assert {row["model"] for row in rows} == {"scripted"}


def test_a_server_in_trouble_delays_a_run_and_takes_nothing_from_it(tell: Tell, tmp_path: Path) -> None:
    """429 with Retry-After, 500, a cut connection, garbage and silence among the answers: the rows are all there."""
    kinds = [Fault(429, {"Retry-After": "1"}), Fault(500), CUT, GARBAGE, SILENCE, Fault(503)]
    trouble = dict(zip(range(15, 33, 3), kinds, strict=True))
    with ScriptedEndpoint() as calm:
        tell("run", *at(calm), "--out", "calm")
    with ScriptedEndpoint(faults=trouble.get) as server:
        done = tell("run", *at(server, "engine.openai.timeout_s=2"), "--out", "r")

    assert done.returncode == 0, done.stderr
    assert read_rows(tmp_path / "r", "data") == read_rows(tmp_path / "calm", "data")
    assert "endpoint_retry" in {event["event"] for event in read_events(tmp_path / "r")}


def test_a_server_that_stays_away_ends_the_run_with_75_and_it_goes_on_later(tell: Tell, tmp_path: Path) -> None:
    """What was whole is kept; the sentence names server and fault; the same command goes on where it comes back."""
    down = ScriptedEndpoint(faults=lambda number: Fault(503) if number > 120 else None)
    with down:
        stopped = tell("run", *at(down, "engine.openai.attempts=2", "shards.rows=5", "window=2"), "--out", "r")
        before = status(tmp_path / "r")["counts"]["units"]
        down.faults = lambda _: None
        done = tell("run", *at(down, "engine.openai.attempts=2", "shards.rows=5", "window=2"), "--out", "r")
    with ScriptedEndpoint() as calm:
        tell("run", *at(calm, "window=2"), "--out", "calm")

    assert stopped.returncode == 75
    assert "127.0.0.1 gave no answer in 2 attempt(s)" in stopped.stderr
    assert "run the same command again" in stopped.stderr
    assert before > 0
    assert done.returncode == 0, done.stderr
    assert read_rows(tmp_path / "r", "data") == read_rows(tmp_path / "calm", "data")


def test_a_server_that_cannot_constrain_is_asked_again(tell: Tell, tmp_path: Path) -> None:
    """Free answers to the class question are checked, and none fails to parse."""
    with ScriptedEndpoint(choices=False, extras=False) as server:
        done = tell("run", *at(server), "--out", "r")
    reasons = {row["reason"] for row in read_rows(tmp_path / "r", "rejected")}

    assert done.returncode == 0, done.stderr
    assert "classification_unparsed" not in reasons
    assert any("Answer with exactly one of" in body["messages"][-1]["content"] for body in server.bodies)


@pytest.mark.parametrize("command", ["check", "run"])
@pytest.mark.parametrize(
    ("overrides", "environment", "words"),
    [
        pytest.param(["engine.openai.base_url=http://127.0.0.1:9/v1"], {}, "the connection failed", id="down"),
        pytest.param([], {}, "wants a key, and OPENAI_API_KEY is not set", id="no-key"),
        pytest.param([], {"OPENAI_API_KEY": "wrong"}, "refuses the key in OPENAI_API_KEY", id="wrong-key"),
        pytest.param(
            ["engine.model=scripter"],
            {"OPENAI_API_KEY": KEY},
            "has no model 'scripter'; set engine.model to one that it has: scripted",
            id="unknown-model",
        ),
    ],
)
def test_bad_input_is_one_sentence_before_anything_is_written(
    tell: Tell, tmp_path: Path, command: str, overrides: list[str], environment: dict[str, str], words: str
) -> None:
    """Exit code 2, what was wrong and what would mend it, no key in it, and no folder."""
    with ScriptedEndpoint(key=KEY) as server:
        done = tell(command, *at(server, *overrides), "--out", "r", **environment)

    assert done.returncode == 2
    assert words in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert "wrong" not in done.stderr.replace("wrong-key", "")
    assert not (tmp_path / "r").exists()


def test_the_key_is_in_no_file(tell: Tell, tmp_path: Path) -> None:
    """A run with a key leaves it in none of its files and says it nowhere."""
    with ScriptedEndpoint(key=KEY, faults={20: Fault(500, body=f"no {KEY}")}.get) as server:
        done = tell("run", *at(server), "--out", "r", OPENAI_API_KEY=KEY)

    assert done.returncode == 0, done.stderr
    assert KEY not in done.stdout + done.stderr
    assert [file for file in (tmp_path / "r").rglob("*") if file.is_file() and KEY.encode() in file.read_bytes()] == []


def test_the_readmes_three_commands_at_an_endpoint(tell: Tell, tmp_path: Path) -> None:
    """Its configuration and commands do what they say, but for where the server is and how many rows it makes."""
    (block,) = [text for text in re.findall(r"```toml\n(.*?)```", README, re.DOTALL) if "endpoint.toml" in text]
    commands = re.findall(
        r"^    instructmill ((?:check|preview|run) endpoint\.toml.*?)\s*(?:#.*)?$", README, re.MULTILINE
    )
    (tmp_path / "endpoint.toml").write_text(block)

    assert [command.split()[0] for command in commands] == ["check", "preview", "run"]
    with ScriptedEndpoint(model="Qwen/Qwen3-8B") as server:
        for command in commands:
            target = 1000 if command.startswith("preview") else 60
            done = tell(*command.split(), "--set", f"engine.openai.base_url={server.url}", "--set", f"target={target}")
            assert done.returncode == 0, (command, done.stderr)
            if command.startswith("preview"):
                assert "unit 19" in done.stdout
                assert "Novelty falls as the pool grows" in done.stdout
    assert len(read_rows(tmp_path / "runs" / "endpoint", "pool")) == 60


@pytest.mark.parametrize("style", ["chat", pytest.param("completion", marks=pytest.mark.slow)])
def test_backtranslation_at_an_endpoint_weighs_its_scores(tell: Tell, corpus, tmp_path: Path, style: str) -> None:
    """A run asks the server for the probabilities of the digits, and its rows have mass and expected score; from a
    server that gives none they are null, and every score still parses."""
    words = [f"corpus.source={corpus(20)}", "curation.min_score=2"]
    with ScriptedEndpoint() as server:
        done = tell("run", *from_texts(server, *words, style=style), "--out", "r")
    with ScriptedEndpoint(logprobs=0) as server:
        silent = tell("run", *from_texts(server, *words, style=style), "--out", "s")

    assert (done.returncode, silent.returncode) == (0, 0), (done.stderr, silent.stderr)
    rows, bare = read_rows(tmp_path / "r", "data"), read_rows(tmp_path / "s", "data")
    assert rows
    assert all(0.5 <= row["score_mass"] <= 1 and 1 <= row["score_expected"] <= 5 for row in rows)
    assert bare
    assert {(row["score_mass"], row["score_expected"]) for row in bare} == {(None, None)}


def from_texts(server: ScriptedEndpoint, *overrides: str, style: str) -> list[str]:
    """The words of a small run of backtranslation at a server."""
    keys = [f"engine.openai.base_url={server.url}", f"engine.model={server.model}", f"engine.style={style}"]
    keys += ["engine.kind=openai", *overrides]
    return ["shipped:backtranslation.toml", *(word for key in keys for word in ("--set", key))]
