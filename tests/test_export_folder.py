"""An export to a folder in the Hub's layout: its shards, its card, and that it is whole or not there."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import re
import signal
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from huggingface_hub import DatasetCard

from pipeline import export_folder
from pipeline.cli import main
from pipeline.export_folder import Written
from pipeline.rounds import round_config
from pipeline.runs import open_run
from pipeline.seeds import read_seed_text
from pipeline.testing import ScriptedEngine, run_to_end

SEEDS = "shipped:seeds.jsonl"


def exported(source: str | Path, out: Path, *options: str, form: str = "messages") -> int:
    """The exit code of an export."""
    return main(["export", str(source), str(out), "--format", form, *options])


def content(folder: Path) -> dict[str, bytes]:
    """Every file of a folder with its bytes, hidden ones too."""
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.fixture
def run(backtranslation, tmp_path) -> Path:
    """A finished run of backtranslation of some sixty texts."""
    asyncio.run(run_to_end(backtranslation(), tmp_path / "r", ScriptedEngine()))
    return tmp_path / "r"


def test_shards_have_the_hubs_names_and_every_row_in_order(tmp_path) -> None:
    """Shards are numbered of so many, none has more rows than asked for, and their rows are those of one file."""
    assert exported(SEEDS, tmp_path / "f", "--shard-rows", "60", "--test-share", "0.2") == 0
    assert exported(SEEDS, tmp_path / "one.jsonl") == 0
    files = sorted(content(tmp_path / "f"))
    train = [pq.read_table(tmp_path / "f" / name) for name in files if "train" in name]
    test = [pq.read_table(tmp_path / "f" / name) for name in files if "test" in name]
    lines = [json.loads(line) for line in (tmp_path / "one.jsonl").read_text().splitlines()]

    count = len(train)
    assert count > 2
    assert files == [
        "README.md",
        "data/test-00000-of-00001.parquet",
        *(f"data/train-{number:05d}-of-{count:05d}.parquet" for number in range(count)),
    ]
    assert [len(table) for table in train[:-1]] == [60] * (count - 1)
    assert 0 < len(train[-1]) <= 60
    sides = [row for table in train for row in table.to_pylist()], [row for table in test for row in table.to_pylist()]
    for_test = {row["id"] for row in sides[1]}
    assert sides[0] == [row for row in lines if row["id"] not in for_test]
    assert sides[1] == [row for row in lines if row["id"] in for_test]


@pytest.mark.parametrize("form", ["messages", "kto", "backward"])
def test_the_same_run_and_options_give_the_same_bytes(run, tmp_path, form) -> None:
    """Two exports into folders of other names are equal to the byte, card included; other options are another card."""
    for name in ("a", "b"):
        assert exported(run, tmp_path / name, "--test-share", "0.2", form=form) == 0
    assert exported(run, tmp_path / "c", form=form) == 0

    assert content(tmp_path / "a") == content(tmp_path / "b")
    assert content(tmp_path / "a")["README.md"] != content(tmp_path / "c")["README.md"]


def test_the_card_says_what_the_run_records_and_no_more(run, tmp_path) -> None:
    """The card's metadata is what the hub reads; its text has counts, models, prompts, licences; no path of ours."""
    assert exported(run, tmp_path / "f", "--test-share", "0.2") == 0
    text = (tmp_path / "f" / "README.md").read_text()
    data = DatasetCard(text).data.to_dict()
    manifest = json.loads((run / ".run" / "manifest.json").read_text())
    rows = {
        side: sum(len(pq.read_table(file)) for file in (tmp_path / "f/data").glob(f"{side}-*"))
        for side in ("train", "test")
    }

    assert {"synthetic", "backtranslation", "messages"} <= set(data["tags"])
    assert data["size_categories"] == ["n<1K"]
    files = [{"split": side, "path": f"data/{side}-*"} for side in ("train", "test")]
    assert data["configs"] == [{"config_name": "default", "data_files": files}]
    assert not {"license", "language"} & data.keys()
    assert "No licence is given" in text
    assert "models' licences: `scripted`: unknown" in text
    for side, count in rows.items():
        assert f"| {side} | {count} |" in text
    for name, prompt in manifest["prompts"].items():
        assert f"| {name} | `{prompt['hash']}` |" in text
    assert "| low_score |" in text
    assert "2308.06259" in text
    for trainer in ("SFTTrainer", "field_messages: messages", '"role_tag": "role"'):
        assert trainer in text
    assert str(tmp_path) not in text


def test_licence_and_languages_are_those_given(tmp_path) -> None:
    """--license and --language go into the metadata, also where they would mean something else to YAML."""
    options = ["--license", "apache-2.0", "--language", "en", "--language", "no"]
    assert exported(SEEDS, tmp_path / "f", *options) == 0
    data = DatasetCard((tmp_path / "f" / "README.md").read_text()).data.to_dict()

    assert data["license"] == "apache-2.0"
    assert data["language"] == ["en", "no"]
    assert "synthetic" not in data["tags"]  # people wrote the seeds


@pytest.mark.parametrize(
    ("form", "style"),
    [
        ("messages", None),
        ("alpaca", None),
        ("sharegpt", None),
        ("kto", "chat"),
        ("kto", "completion"),
        ("prompt-completion", "completion"),
    ],
)
def test_the_cards_lines_for_trainers_name_columns_that_are_there(run, tmp_path, form, style) -> None:
    """The JSON for LLaMA-Factory and the YAML for axolotl can be read, and every column they name is in the shards."""
    import yaml

    options = ["--style", style] if style else []
    assert exported(run, tmp_path / "f", *options, "--test-share", "0", form=form) == 0
    text = (tmp_path / "f" / "README.md").read_text()
    columns = set(pq.read_schema(tmp_path / "f/data/train-00000-of-00001.parquet").names)
    training = text[text.index("## To train on it") :]
    blocks = dict(part.split("\n", 1) for part in training.split("```")[1::2])

    compile(blocks["python"], "card", "exec")
    if style != "chat":
        (entry,) = json.loads(blocks["json"]).values()
        assert set(entry["columns"].values()) <= columns
        axolotl = yaml.safe_load(blocks["yaml"])
        (dataset,) = axolotl["datasets"]
        kind = dataset["type"]
        named = (
            {dataset.get("field_messages")}
            if isinstance(kind, str)
            else {value for key, value in kind.items() if key.startswith("field_")}
        )
        assert named - {None} <= columns
        assert axolotl.get("rl") == ("kto" if form == "kto" else None)
    else:
        assert set(blocks) == {"python"}


def test_without_a_test_split_the_card_names_none(run, tmp_path, capsys) -> None:
    """--test-share 0 gives all rows for training."""
    assert exported(run, tmp_path / "f", "--test-share", "0") == 0
    data = DatasetCard((tmp_path / "f" / "README.md").read_text()).data.to_dict()

    assert [file["split"] for file in data["configs"][0]["data_files"]] == ["train"]
    assert [file.name for file in (tmp_path / "f/data").iterdir()] == ["train-00000-of-00001.parquet"]
    assert "and 0 for testing" in capsys.readouterr().out


def test_where_the_hash_sets_nothing_aside_all_say_so(run, tmp_path, capsys) -> None:
    """With a share that no family falls under, the card names no test split, and the command a share that gives one."""
    assert exported(run, tmp_path / "f", "--test-share", "0.00001") == 0
    named = re.search(r"none of so few aside for testing \(--test-share (0\.\d+) does\)", capsys.readouterr().out)
    text = (tmp_path / "f" / "README.md").read_text()

    assert named is not None
    assert "There is no test split" in text
    assert "a hash chose" not in text
    assert exported(run, tmp_path / "g", "--test-share", named[1]) == 0
    assert list((tmp_path / "g/data").glob("test-*"))
    assert "There is no test split" not in (tmp_path / "g" / "README.md").read_text()


def test_what_cannot_be_split_is_said_to_be_so(tmp_path, capsys) -> None:
    """One seed task alone is for training, and no share is named that would do better."""
    (tmp_path / "one.jsonl").write_text(read_seed_text(SEEDS).splitlines()[0])
    assert exported(tmp_path / "one.jsonl", tmp_path / "f", "--test-share", "0.00001") == 0

    assert "too few, or of one document, so none is for testing" in capsys.readouterr().out


def test_a_split_that_costs_much_is_warned_of(scripted, tmp_path, capsys) -> None:
    """Where over a tenth of the rows are left out, stderr says what share that is; else it says nothing."""
    asyncio.run(run_to_end(scripted(target=300), tmp_path / "r", ScriptedEngine()))
    told = {}
    for share in ("0.01", "0.2"):
        assert exported(tmp_path / "r", tmp_path / share, "--test-share", share) == 0
        told[share] = capsys.readouterr()
    counts = re.search(r"([\d,]+) rows of .*; ([\d,]+) left out", told["0.2"].out)
    kept, left_out = (int(count.replace(",", "")) for count in counts.groups())

    assert left_out > 0.1 * (kept + left_out)
    assert f"--test-share 0.2 leaves out {left_out / (kept + left_out):.0%} of the rows" in told["0.2"].err
    assert told["0.2"].err.count("\n") == 1
    assert told["0.01"].err == ""


def test_the_card_of_a_round_says_that_it_has_no_novelty_check(run, tmp_path) -> None:
    """The card of a round of curate has the commands that leave near twins out, and these work; others have none."""
    asyncio.run(run_to_end(round_config(str(run), None, (), None), tmp_path / "two", ScriptedEngine()))
    cards = {}
    for name, folder in {"one": run, "two": tmp_path / "two"}.items():
        assert exported(folder, tmp_path / f"{name}-rows") == 0
        cards[name] = (tmp_path / f"{name}-rows" / "README.md").read_text()
    commands = re.findall(r"^    instructmill (.+)$", cards["two"], re.MULTILINE)
    places = {
        "RUN": str(tmp_path / "two"),
        "rows.jsonl": str(tmp_path / "rows.jsonl"),
        "novel.jsonl": str(tmp_path / "n.jsonl"),
    }

    assert "A round runs no novelty check" in cards["two"]
    assert "novelty check, so" not in cards["one"]
    assert [command.split()[0] for command in commands] == ["export", "novelty"]
    for command in commands:
        assert main([places.get(word, word) for word in command.split()]) == 0
    kept = [json.loads(line) for line in (tmp_path / "n.jsonl").read_text().splitlines()]
    assert kept
    assert all(row["novel"] for row in kept)


def test_an_interrupted_export_leaves_nothing(tmp_path, capsys, monkeypatch) -> None:
    """SIGTERM in the middle of the rows: exit 75, one sentence, no folder and no hidden one; then it goes through."""
    add = Written.add

    def interrupted(self, side, row) -> None:
        add(self, side, row)
        if self.rows.total() == 150:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(Written, "add", interrupted)
        assert exported(SEEDS, tmp_path / "f", "--shard-rows", "50") == 75
    assert "interrupted; nothing is written" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
    assert exported(SEEDS, tmp_path / "f") == 0


def test_a_full_disk_leaves_nothing(tmp_path, capsys, monkeypatch) -> None:
    """Where the disk takes no more: exit 75, one sentence, no folder and no hidden one."""

    class Full(pq.ParquetWriter):
        def write_table(self, *_: object, **__: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(export_folder.pq, "ParquetWriter", Full)
    assert exported(SEEDS, tmp_path / "f") == 75
    assert "No space left on device" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_is_never_replaced(tmp_path, capsys) -> None:
    """A folder with anything in it and a file are refused; an empty folder is taken."""
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "empty").mkdir()

    assert exported(SEEDS, tmp_path / "full") == 2
    assert "name an empty or a new folder" in capsys.readouterr().err
    assert exported(SEEDS, tmp_path / "file") == 2
    assert exported(SEEDS, tmp_path / "empty") == 0
    assert content(tmp_path / "full") == {"mine.txt": b"mine"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "file", "full"]


def test_a_folder_that_comes_up_meanwhile_stays(tmp_path, capsys, monkeypatch) -> None:
    """Where another process has made the folder since, it keeps what it has, and this export ends with 2."""
    add = Written.add

    def meanwhile(self, side, row) -> None:
        add(self, side, row)
        if self.rows.total() == 1:
            (tmp_path / "f").mkdir()
            (tmp_path / "f" / "theirs").write_text("theirs")

    monkeypatch.setattr(Written, "add", meanwhile)
    assert exported(SEEDS, tmp_path / "f") == 2
    assert "meanwhile" in capsys.readouterr().err
    assert content(tmp_path) == {"f/theirs": b"theirs"}


def test_a_run_still_going_gives_its_committed_rows_and_says_so(scripted, tables, tmp_path, capsys) -> None:
    """While a process holds the run, an export takes what is committed, and says that there is more to come."""
    config = scripted(target=40)
    asyncio.run(run_to_end(config, tmp_path / "r", ScriptedEngine()))
    held = open_run(config, tmp_path / "r")
    try:
        assert exported(tmp_path / "r", tmp_path / "rows.jsonl") == 0
    finally:
        held.close()

    assert "still going" in capsys.readouterr().out
    assert len((tmp_path / "rows.jsonl").read_text().splitlines()) == len(tables(tmp_path / "r")["data"])


def test_what_cannot_be_exported_is_one_sentence(scripted, run, tmp_path, capsys) -> None:
    """No run, an empty run, scores asked of what has none, options of a folder for a file: exit 2, and nothing made."""
    open_run(scripted(), tmp_path / "empty").close()
    asyncio.run(run_to_end(scripted(target=10), tmp_path / "si", ScriptedEngine()))
    (tmp_path / "nothing").mkdir()
    (tmp_path / "none.jsonl").write_text("")
    out, before = tmp_path / "out", sorted(tmp_path.iterdir())
    cases = [
        (tmp_path / "nothing", out, "messages", [], "the folder holds no run"),
        (tmp_path / "gone", out, "messages", [], "no such run folder or seed file"),
        (tmp_path / "empty", out, "messages", [], "has accepted no row yet"),
        (tmp_path / "none.jsonl", out, "messages", [], "holds no seed task"),
        (tmp_path / "si", out, "kto", [], "a run of self-instruct has no scores"),
        (SEEDS, out, "kto", [], "a seed file has no scores"),
        (run, out, "kto", ["--seeds"], "seeds have no score"),
        (SEEDS, out, "messages", ["--seeds"], "this is a seed file"),
        (run, out, "alpaca", ["--style", "completion"], "--style is for"),
        (run, tmp_path / "a.jsonl", "messages", ["--test-share", "0.1"], "are for a folder"),
        (run, tmp_path / "a.csv", "messages", [], "ends in neither .jsonl nor .parquet"),
        (run, tmp_path / "no" / "out", "messages", [], "there is no folder"),
        (run, Path("s3://bucket/rows"), "messages", [], "a disk of this machine"),
        (run, out, "messages", ["--test-share", "0.99999"], "all rows of t would be for testing"),
    ]
    for source, where, form, options, said in cases:
        assert exported(source, where, *options, form=form) == 2, said
        told = capsys.readouterr().err
        assert said in told
        assert told.count("\n") == 1
    assert sorted(tmp_path.iterdir()) == before


def test_seeds_that_have_changed_since_are_refused(scripted, tmp_path, capsys) -> None:
    """--seeds reads the seed file of the run as it was, by its hash."""
    mine = tmp_path / "mine.jsonl"
    mine.write_text(read_seed_text(SEEDS))
    asyncio.run(run_to_end(scripted(target=10, seeds=str(mine)), tmp_path / "r", ScriptedEngine()))
    mine.write_text(read_seed_text(SEEDS) + "\n")

    assert exported(tmp_path / "r", tmp_path / "f", "--seeds") == 2
    assert "the file has changed since run" in capsys.readouterr().err
