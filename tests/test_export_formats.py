"""The forms of an export have the fields that trainers read, by what the trainers' own documentation says."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from pathlib import Path

import datasets
import pytest

from pipeline.cli import main
from pipeline.testing import ScriptedEngine, run_to_end

# Fields as documented, and who reads them:
#   TRL, docs/source/dataset_formats.md: conversational language modelling, prompt-completion, unpaired preference.
#   axolotl, docs/dataset-formats/conversation.qmd and inst_tune.qmd (alpaca); docs/rlhf.qmd, KTO user_defined.default.
#   LLaMA-Factory, data/README.md: alpaca, sharegpt, the OpenAI form of sharegpt, KTO.
TURN = {"role": str, "content": str}
DOCUMENTED = {
    ("messages", "chat"): {"messages": [TURN]},
    ("alpaca", "chat"): {"instruction": str, "input": str, "output": str, "system": str},
    ("sharegpt", "chat"): {"conversations": [{"from": str, "value": str}]},
    ("prompt-completion", "chat"): {"prompt": [TURN], "completion": [TURN]},
    ("prompt-completion", "completion"): {"prompt": str, "completion": str},
    ("backward", "chat"): {"prompt": [TURN], "completion": [TURN]},
    ("backward", "completion"): {"prompt": str, "completion": str},
    ("kto", "chat"): {"prompt": [TURN], "completion": [TURN], "label": bool},
    ("kto", "completion"): {"prompt": str, "completion": str, "label": bool},
}
FURTHER = ["id", "instruction_id", "source", "origin", "score", "recipe", "model"]
READ_BY_OTHERS = {"text", "tools", "images", "chosen", "rejected", "chat_template_kwargs", "input_ids", "labels"}


@pytest.fixture
def run(backtranslation, tmp_path) -> Path:
    """A finished run of backtranslation of some sixty texts."""
    asyncio.run(run_to_end(backtranslation(), tmp_path / "r", ScriptedEngine()))
    return tmp_path / "r"


def shape_of(value: object) -> object:
    """What a value is made of, in the words of the table above."""
    if isinstance(value, list):
        kinds = [shape_of(each) for each in value]
        assert all(kind == kinds[0] for kind in kinds)
        return kinds[:1]
    return {name: shape_of(each) for name, each in value.items()} if isinstance(value, dict) else type(value)


@pytest.mark.parametrize(("form", "style"), DOCUMENTED)
def test_fields_are_those_that_trainers_document(run, tmp_path, form, style) -> None:
    """Every form has its documented fields first, ids and provenance after them, and no field that means more to a
    trainer; `datasets` loads the folder and both files, with the same rows."""
    options = ["--format", form, *(["--style", style] if style != "chat" else [])]
    cache = str(tmp_path / "cache")
    for out in ("rows.jsonl", "rows.parquet", "folder"):
        share = ["--test-share", "0.2"] if out == "folder" else []
        assert main(["export", str(run), str(tmp_path / out), *options, *share]) == 0
    lines = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    one = datasets.load_dataset("parquet", data_files=str(tmp_path / "rows.parquet"), split="train", cache_dir=cache)
    json_one = datasets.load_dataset("json", data_files=str(tmp_path / "rows.jsonl"), split="train", cache_dir=cache)
    both = datasets.load_dataset(str(tmp_path / "folder"), cache_dir=cache)

    wanted = DOCUMENTED[form, style]
    assert {shape == wanted for shape in (shape_of({key: row[key] for key in wanted}) for row in lines)} == {True}
    assert list(lines[0]) == one.column_names == [*wanted, *FURTHER]
    assert not READ_BY_OTHERS & set(one.column_names)
    assert one.to_list() == json_one.to_list() == lines
    assert set(both) == {"train", "test"}
    rows = {row["id"]: row for side in both.values() for row in side.to_list()}
    assert rows == {row["id"]: row for row in lines}
    assert sum(map(len, both.values())) == len(lines)


def test_turns_are_in_the_order_and_with_the_roles_that_trainers_know(run, tmp_path) -> None:
    """System, user, assistant; in sharegpt system, human, gpt; a prompt ends before the answer."""
    seen = {}
    for form in ("messages", "sharegpt", "prompt-completion", "alpaca"):
        assert main(["export", str(run), str(tmp_path / f"{form}.jsonl"), "--format", form]) == 0
        seen[form] = json.loads((tmp_path / f"{form}.jsonl").read_text().splitlines()[0])

    turns = seen["messages"]["messages"]
    assert [turn["role"] for turn in turns] == ["system", "user", "assistant"]
    assert [turn["from"] for turn in seen["sharegpt"]["conversations"]] == ["system", "human", "gpt"]
    assert [turn["value"] for turn in seen["sharegpt"]["conversations"]] == [turn["content"] for turn in turns]
    assert seen["prompt-completion"]["prompt"] + seen["prompt-completion"]["completion"] == turns
    plain = seen["alpaca"]
    assert [plain["system"], plain["instruction"], plain["output"]] == [turn["content"] for turn in turns]


def test_kto_takes_wanted_and_unwanted_pairs_from_both_tables(run, tables, tmp_path, capsys) -> None:
    """Scores of 4 and 5 are wanted and 1 and 2 unwanted, whatever the run accepted; 3, and what was refused for another
    reason, is neither."""
    assert main(["export", str(run), str(tmp_path / "k.jsonl"), "--format", "kto", "--style", "completion"]) == 0
    rows = [json.loads(line) for line in (tmp_path / "k.jsonl").read_text().splitlines()]
    there = tables(run)
    scored = [*there["data"], *(row for row in there["rejected"] if row["reason"] == "low_score")]
    expected = {row["instruction_id"]: row["score"] >= 4 for row in scored if row["score"] != 3}

    assert any(row["score"] == 3 for row in scored)
    assert {row["instruction_id"]: row["label"] for row in rows} == expected
    assert len(rows) == len(expected)
    assert set(expected.values()) == {True, False}
    assert f"{sum(expected.values())} are wanted and {len(rows) - sum(expected.values())} unwanted" in (
        capsys.readouterr().out
    )
    assert all(row["prompt"].endswith("\n\n") for row in rows)


def test_no_sentence_tells_seeds_of_self_instruct_from_its_rows(scripted, tmp_path) -> None:
    """With --seeds, the seeds of a self-instruct run come first, and neither they nor its rows have a system sentence,
    until --system or the [tags] of a --config ask for one."""
    asyncio.run(run_to_end(scripted(target=20), tmp_path / "r", ScriptedEngine()))
    config = tmp_path / "c.toml"
    tagged = 'recipe = "backtranslation"\n[corpus]\nsource = "a"\n[tags]\nseed = "By hand."\n'
    config.write_text(f'{tagged}[engine]\nkind = "scripted"\n')

    def sentences(name: str, *options: str) -> dict[str, set[str | None]]:
        out, found = tmp_path / name, defaultdict(set)
        assert main(["export", str(tmp_path / "r"), str(out), "--format", "messages", "--seeds", *options]) == 0
        rows = [json.loads(line) for line in out.read_text().splitlines()]
        for row in rows:
            first = row["messages"][0]
            found[row["recipe"]].add(first["content"] if first["role"] == "system" else None)
        assert [row["recipe"] for row in rows] == sorted(row["recipe"] for row in rows)  # the seeds first
        return found

    assert sentences("a.jsonl") == {"seed": {None}, "self-instruct": {None}}
    assert sentences("b.jsonl", "--system", "Be brief.") == {"seed": {"Be brief."}, "self-instruct": {"Be brief."}}
    assert sentences("c.jsonl", "--config", str(config)) == {"seed": {"By hand."}, "self-instruct": {None}}
