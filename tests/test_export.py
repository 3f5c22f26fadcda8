"""`instructmill export`: seeds and runs in a form that trainers read."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import datasets
import pytest

from pipeline.cli import main
from pipeline.prompting import load_template
from pipeline.seeds import parse_seeds, read_seed_text
from pipeline.testing import ScriptedEngine, run_to_end

SEEDS = "shipped:seeds.jsonl"


def exported(source: str, out: Path, *options: str) -> list[dict]:
    """The rows of an export as JSON lines."""
    assert main(["export", source, str(out), *options]) == 0
    return [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]


def pairs() -> list[tuple[str, str]]:
    """Output and instruction of every shipped seed instance without an input."""
    seeds = parse_seeds(read_seed_text(SEEDS), SEEDS)
    return [(one.output, seed.instruction) for seed in seeds for one in seed.instances if not one.input]


def test_seeds_reversed_for_a_chat_model(tmp_path, capsys) -> None:
    """Each seed without an input becomes a turn with its text and the instruction as the answer; others are counted."""
    rows = exported(SEEDS, tmp_path / "b.jsonl", "--format", "backward")

    assert [(row["prompt"][0]["content"], row["completion"][0]["content"]) for row in rows] == pairs()
    assert [row["prompt"][0]["role"] for row in rows[:1]] == ["user"]
    assert "passed over, which have an input" in capsys.readouterr().out


def test_seeds_reversed_for_a_base_model_are_what_it_will_be_asked(tmp_path) -> None:
    """In completion style the prompt is the very text that the backward model is later asked with."""
    rows = exported(SEEDS, tmp_path / "b.jsonl", "--format", "backward", "--style", "completion")
    template = load_template("backward", None, "completion")

    assert [row["prompt"] for row in rows] == [template.render(text=text) for text, _ in pairs()]
    assert [row["completion"] for row in rows] == [f" {instruction}" for _, instruction in pairs()]


def test_seeds_and_augmented_rows_have_the_papers_sentences(backtranslation, tables, tmp_path) -> None:
    """Seeds and a run come out as chats with their own system sentences, and a run's is as configured."""
    tags = {"augmented": "From the web."}
    asyncio.run(run_to_end(backtranslation(tags=tags), tmp_path / "r", ScriptedEngine()))
    seeds = exported(SEEDS, tmp_path / "seeds.jsonl", "--format", "messages")
    rows = exported(str(tmp_path / "r"), tmp_path / "rows.jsonl", "--format", "messages")
    bare = exported(str(tmp_path / "r"), tmp_path / "bare.jsonl", "--format", "messages", "--system", "")

    assert {row["messages"][0]["content"] for row in seeds} == {"Answer in the style of an AI Assistant."}
    assert {row["messages"][0]["content"] for row in rows} == {"From the web."}
    assert [row["messages"][2]["content"] for row in rows] == [row["output"] for row in tables(tmp_path / "r")["data"]]
    assert {row["messages"][0]["role"] for row in bare} == {"user"}


def test_a_configuration_gives_sentence_and_prompt(tmp_path) -> None:
    """With --config the seeds have its tag, and the backward prompt is the one that a run of it will ask with."""
    (tmp_path / "mine.txt").write_text("<<$text>>\n")
    config = tmp_path / "c.toml"
    config.write_text(
        f'recipe = "backtranslation"\n[corpus]\nsource = "a"\n[tags]\nseed = "By hand."\n[prompts]\n'
        f'backward = "{tmp_path / "mine.txt"}"\n[engine]\nkind = "scripted"\n'
    )
    seeds = exported(SEEDS, tmp_path / "s.jsonl", "--format", "messages", "--config", str(config))
    rows = exported(SEEDS, tmp_path / "b.jsonl", "--format", "backward", "--config", str(config))

    assert {row["messages"][0]["content"] for row in seeds} == {"By hand."}
    assert [row["prompt"][0]["content"] for row in rows] == [f"<<{text}>>" for text, _ in pairs()]


def test_a_runs_own_prompt_is_the_one_it_began_with(backtranslation, tmp_path) -> None:
    """A run's own backward prompt is taken from its manifest: its file may have changed, or be gone."""
    (tmp_path / "mine.txt").write_text("<<$text>>\n")
    config = backtranslation(prompts={"backward": str(tmp_path / "mine.txt")}, augmentation={"mode": "backward"})
    asyncio.run(run_to_end(config, tmp_path / "r", ScriptedEngine()))
    (tmp_path / "mine.txt").unlink()
    rows = exported(str(tmp_path / "r"), tmp_path / "b.jsonl", "--format", "backward")

    assert rows
    assert all(row["prompt"][0]["content"].startswith("<<") for row in rows)


@pytest.mark.parametrize("format", ["messages", "backward"])
def test_parquet_holds_the_same_and_is_the_same_twice(tmp_path, format) -> None:
    """Parquet opens with `datasets`, has the rows of JSON lines, and has the same bytes when made again."""
    rows = exported(SEEDS, tmp_path / "a.jsonl", "--format", format)
    for name in ("a.parquet", "b.parquet"):
        assert main(["export", SEEDS, str(tmp_path / name), "--format", format]) == 0
    loaded = datasets.load_dataset(
        "parquet", data_files=str(tmp_path / "a.parquet"), split="train", cache_dir=str(tmp_path / "cache")
    )

    assert loaded.to_list() == rows
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


def test_nothing_is_replaced_and_nothing_half_written(tmp_path, capsys) -> None:
    """A file that is there stays, and a seed file with a fault on its last line leaves no file."""
    (tmp_path / "there.jsonl").write_text("mine")
    lines = read_seed_text(SEEDS).splitlines()[:3]
    (tmp_path / "bad.jsonl").write_text("\n".join([*lines, '{"id": 1}']))

    assert main(["export", SEEDS, str(tmp_path / "there.jsonl"), "--format", "messages"]) == 2
    assert main(["export", str(tmp_path / "bad.jsonl"), str(tmp_path / "new.jsonl"), "--format", "messages"]) == 2
    assert (tmp_path / "there.jsonl").read_text() == "mine"
    assert not (tmp_path / "new.jsonl").exists()
    assert "line 4" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["", "data/more.parquet", "data/out"])
def test_a_run_folder_is_no_place_for_an_export(scripted, tmp_path, capsys, name) -> None:
    """A file or folder in a run's own would be read as its rows, or removed by its next start: exit 2, nothing made."""
    asyncio.run(run_to_end(scripted(target=10), tmp_path / "r", ScriptedEngine()))
    before = sorted(tmp_path.rglob("*"))

    assert main(["export", str(tmp_path / "r"), str(tmp_path / "r" / name), "--format", "messages"]) == 2
    assert "that lies in the run folder" in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before
