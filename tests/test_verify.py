"""`instructmill verify`: a whole run is OK, and each kind of damage is named by file and row."""

from __future__ import annotations

import asyncio
import hashlib
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import verify as verify_module
from pipeline.cli import main
from pipeline.config import parse_config
from pipeline.errors import InputError
from pipeline.runs import open_run
from pipeline.shards import SCHEMAS
from pipeline.testing import ScriptedEngine, run_to_end
from pipeline.verify import verify

BASE: dict[str, Any] = {"name": "t", "window": 8, "shards": {"rows": 25}, "engine": {"kind": "scripted"}}


class Folder:
    """A run folder to be damaged, with every file under its real name and its records in order again."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def record(self, number: int) -> dict[str, Any]:
        """A commit record."""
        values: dict[str, Any] = json.loads(self._record(number).read_text())
        return values

    def put(self, number: int, **changes: Any) -> None:
        """Change a record."""
        self._record(number).write_text(json.dumps({**self.record(number), **changes}))

    def count(self, number: int, **changes: Any) -> None:
        """Change the counters of a record and of all after it, by adding."""
        for each in range(number, self.commits):
            counters = self.record(each)["counters"]
            for key, more in changes.items():
                if isinstance(more, dict):
                    table = {name: counters[key].get(name, 0) + value for name, value in more.items()}
                    counters[key] = {**counters[key], **table}
                else:
                    counters[key] += more
            self.put(each, counters=counters)

    @property
    def commits(self) -> int:
        """How many there are."""
        return len(list((self.path / ".run" / "commits").iterdir()))

    def _record(self, number: int) -> Path:
        return self.path / ".run" / "commits" / f"{number:06d}.json"

    def file(self, kind: str, number: int) -> Path:
        """A shard."""
        return next((self.path / kind).glob(f"*-{number:06d}.parquet"))

    def rows(self, kind: str, number: int) -> list[dict[str, Any]]:
        """Its rows."""
        found: list[dict[str, Any]] = pq.read_table(self.file(kind, number)).to_pylist()
        return found

    def put_rows(self, kind: str, number: int, rows: list[dict[str, Any]], schema: pa.Schema | None = None) -> None:
        """Write other rows, and have the record say so."""
        file = self.file(kind, number)
        pq.write_table(pa.Table.from_pylist(rows, schema=schema or SCHEMAS[kind]), file)
        name = f"{kind}/{file.name}"
        entry = {"path": name, "rows": len(rows), "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
        files = [entry if each["path"] == name else each for each in self.record(number)["files"]]
        self.put(number, files=files)

    def change(self, kind: str, number: int, row: int, **values: Any) -> None:
        """Change one row."""
        rows = self.rows(kind, number)
        rows[row] |= values
        self.put_rows(kind, number, rows)

    def damaged(self, sentence: str, **options: Any) -> None:
        """Expects `verify` to say this."""
        with pytest.raises(InputError, match=sentence) as found:
            verify(self.path, **options)
        assert str(found.value).startswith(str(self.path))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of Self-Instruct."""
    folder = tmp_path_factory.mktemp("whole") / "r"
    asyncio.run(run_to_end(parse_config({**BASE, "target": 60}, "test"), folder, ScriptedEngine()))
    return folder


@pytest.fixture
def run(whole: Path, tmp_path: Path) -> Folder:
    """A copy of it."""
    shutil.copytree(whole, tmp_path / "r")
    return Folder(tmp_path / "r")


@pytest.fixture
def texts(backtranslation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    """A finished run of backtranslation, with several parts of segments."""
    monkeypatch.setattr("pipeline.segment_store.PART_ROWS", 20)
    asyncio.run(run_to_end(backtranslation(), tmp_path / "r", ScriptedEngine()))
    return Folder(tmp_path / "r")


# What is whole


def test_a_whole_run_is_ok(run, capsys):
    """Exit 0, and what was checked is counted; with --full every instruction is compared."""
    assert main(["verify", str(run.path)]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"OK: run t in {run.path}\n")
    assert f"{run.commits} commits in sequence" in said
    assert "60 admitted" in said
    assert "the three sums close" in said
    assert "all 60 admitted compared with 175 seeds and imports and all admitted: none nearer than 0.7" in said
    assert "note" not in said
    assert main(["verify", str(run.path), "--full"]) == 0


def test_a_run_that_has_made_nothing_yet_is_ok(scripted, tmp_path):
    """A planned run has one commit of no units."""
    open_run(scripted(), tmp_path / "r").close()

    assert "1 commits in sequence, of 0 units" in verify(tmp_path / "r")


def test_a_run_that_went_on_is_ok(run, scripted):
    """Three attempts with larger targets, the middle one stopped by a budget, leave a whole run."""
    asyncio.run(run_to_end(scripted(target=90, budget={"units": 25}), run.path, ScriptedEngine()))
    asyncio.run(run_to_end(scripted(target=100), run.path, ScriptedEngine()))

    assert "100 admitted" in verify(run.path, full=True)


def test_a_run_over_a_corpus_and_its_next_round_are_ok(texts, capsys):
    """Segments are checked too; `curate` admits nothing and keeps the ids of the other run."""
    again = f"{texts.path}-2"
    assert main(["curate", str(texts.path), "--out", again, "--set", 'engine.model="other"']) == 0

    assert "parts of segments in sequence, 60 segments, tallies add up" in verify(texts.path, full=True)
    assert " 0 admitted" in verify(again, full=True)


def test_a_run_without_novelty_is_ok(scripted, tmp_path):
    """Where nothing was compared, nothing is."""
    config = scripted(novelty={"enabled": False})
    asyncio.run(run_to_end(config, tmp_path / "r", ScriptedEngine()))

    assert "compared" not in verify(tmp_path / "r", full=True)


def test_a_run_in_s3_is_ok_and_its_damage_is_named(s3, scripted):
    """The same in a store."""
    from pipeline.storage import folder_at

    asyncio.run(run_to_end(scripted(), s3, ScriptedEngine()))
    assert verify(s3, full=True).startswith(f"OK: run t in {s3}\n")
    folder_at(s3).remove("pool/pool-000001.parquet")
    with pytest.raises(InputError, match=f"^{s3}/pool/pool-000001.parquet: a record names this file, and it is not"):
        verify(s3)


def test_a_live_run_is_ok(tmp_path):
    """While a process writes, what it has committed is checked, over and over."""
    (tmp_path / "k.toml").write_text(
        'target = 200\nwindow = 8\n[shards]\nrows = 10\n[engine]\nkind = "scripted"\n[engine.scripted]\ndelay_s = 0.02'
    )
    command = [sys.executable, "-m", "pipeline", "run", str(tmp_path / "k.toml"), "--out", str(tmp_path / "r")]
    writer = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while not list((tmp_path / "r" / ".run" / "commits").glob("[0-9]*")):
        time.sleep(0.01)
    said = []
    while writer.poll() is None:
        said.append(verify(tmp_path / "r").splitlines()[0])

    assert writer.wait() == 0
    assert any(line.endswith(", which is being written to") for line in said)


def test_files_that_no_record_names_are_a_note(run):
    """What a killed run leaves is no damage, since the next start removes it; it is said."""
    shutil.copy(run.file("data", 1), run.path / "data" / "train-000099.parquet")

    assert "note: 1 file(s) that no record names, such as data/train-000099.parquet" in verify(run.path)


def test_seeds_that_are_not_there_any_more_are_a_note(scripted, tmp_path):
    """The seed file is no part of the folder: where it has changed, the run is compared without it."""
    from pipeline.prompting import shipped_text

    seeds = tmp_path / "seeds.jsonl"
    seeds.write_text(shipped_text("seeds.jsonl"))
    asyncio.run(run_to_end(scripted(seeds=str(seeds)), tmp_path / "r", ScriptedEngine()))
    seeds.write_text("")

    said = verify(tmp_path / "r")
    assert "compared with all admitted: none nearer" in said
    assert "note: not compared with its seeds and imports: seeds = " in said


def test_no_run(tmp_path, capsys):
    """A folder without a run is wrong input."""
    assert main(["verify", str(tmp_path)]) == 2
    assert "the folder holds no run" in capsys.readouterr().err


# Damage to the manifest, the ledger and files


def test_a_changed_manifest(run):
    """Its fingerprint is that of its values."""
    path = run.path / ".run" / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["values"]["novelty.threshold"] = 0.9
    path.write_text(json.dumps(manifest))

    run.damaged("manifest.json: its fingerprint is not that of its values")
    del manifest["config"]
    path.write_text(json.dumps(manifest))
    run.damaged("manifest.json: config is missing")
    path.write_text("[]")
    run.damaged("manifest.json: not a manifest")


def test_a_flipped_byte(run):
    """One byte of one shard; exit 2 and one sentence."""
    file = run.file("data", 2)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)

    run.damaged("data/train-000002.parquet: its SHA-256 is not the recorded one")
    assert main(["verify", str(run.path)]) == 2


def test_a_removed_file(run):
    """A shard that a record names is gone."""
    run.file("pool", 1).unlink()

    run.damaged("pool/pool-000001.parquet: a record names this file, and it is not there")


def test_swapped_and_missing_records(run):
    """Two records in one another's places, and one in the middle that is not there."""
    commits = run.path / ".run" / "commits"
    one, two = ((commits / f"00000{number}.json").read_bytes() for number in (1, 2))
    (commits / "000001.json").write_bytes(two)
    (commits / "000002.json").write_bytes(one)
    run.damaged("000001.json: it holds commit 2")
    (commits / "000002.json").write_bytes(two)
    (commits / "000001.json").unlink()
    run.damaged("000002.json: commit 1 is missing")


def test_a_lost_last_record(run):
    """The log tells of a commit that the ledger has not."""
    last = run.commits - 1
    (run.path / ".run" / "commits" / f"{last:06d}.json").unlink()

    run.damaged(f"{last:06d}.json: the log tells of this commit, and it is not there")


def test_a_damaged_log(run):
    """A file of the log that is no JSON."""
    (run.path / ".run" / "log" / "0001-000001.jsonl").write_text("{")

    run.damaged("log/0001-000001.jsonl: not a log of events")


def test_ranges_with_a_gap_and_an_overlap(run):
    """Units go on where the commit before ended."""
    first = run.record(2)["first"]
    for wrong in (first - 1, first + 1):
        run.put(2, first=wrong)
        run.damaged(rf"000002.json: its units are \[{wrong}, \d+\), and the one before ends at {first}")


def test_a_gate_that_is_too_short(run):
    """There is an entry for each unit."""
    run.put(2, gate=run.record(2)["gate"][1:])

    run.damaged(r"000002.json: it has \d+ units, and \d+ at the gate")


def test_an_earlier_attempt_after_a_later_one(run):
    """Attempts never go back."""
    run.put(1, attempt=2, files=[])

    run.damaged("000002.json: of attempt 1, and the one before of attempt 2")


def test_a_file_outside_the_folder(run):
    """A record can name no other files than its own."""
    files = run.record(2)["files"]
    files[0]["path"] = "data/../../../secret"
    run.put(2, files=files)

    run.damaged("000002.json: it names files that are none of its own: data/../../../secret")


def test_an_ending_that_cannot_be(run):
    """Of no rule there is, or after a unit that is not committed; and no unit comes after the end of a corpus."""
    last = run.commits - 1
    ending = run.record(last)["ending"]
    run.put(last, ending={**ending, "reason": "tired"})
    run.damaged("it says that the run ended after unit \\d+ for 'tired', which cannot be")
    run.put(last, ending={**ending, "unit": ending["unit"] + 1})
    run.damaged("ended after unit \\d+ for 'target', which cannot be")
    run.put(last, ending=ending)
    run.put(1, ending={**ending, "reason": "no_more", "unit": 0})
    run.damaged("000002.json: it has units, and the one before says that there are no more")


def test_another_schema(run):
    """A column too many is shown."""
    schema = SCHEMAS["pool"].append(pa.field("mine", pa.string()))
    run.put_rows("pool", 1, run.rows("pool", 1), schema)

    run.damaged("pool-000001.parquet: its schema is not this version's")


def test_other_rows_than_recorded(run):
    """The number of rows is the recorded one."""
    files = run.record(1)["files"]
    files[0]["rows"] += 1
    run.put(1, files=files)

    run.damaged(r"data/train-000001.parquet: it has \d+ rows, and its record says \d+")


# Damage to counters


def test_a_sum_that_does_not_close(run):
    """One admitted more, in one record."""
    counters = run.record(2)["counters"]
    run.put(2, counters={**counters, "admitted": counters["admitted"] + 1})

    run.damaged("000002.json: its sum is open: .* candidates, but .* admitted")


@pytest.mark.parametrize(
    "more",
    [
        {"refused_candidates": {"too_short": -1, "too_long": 1}},
        {"closing_reasons": {"no_instance_kept": -1, "no_instance_parsed": 1}},
        {"refused_instances": {"empty_output": -1, "refusal": 1}},
        {"failed_units": 1},
        {"failure_reasons": {"request_refused": 1}},
        {"scores": {"5": 1}},
        {"instances": 1, "examples": 1},
        {"admitted": 1, "candidates": 1, "instructions_with_rows": 1},
    ],
    ids=lambda more: next(iter(more)),
)
def test_counters_that_are_not_those_of_the_rows(run, more):
    """The sums close, and the rows come to something else."""
    run.count(2, **more)

    run.damaged(r"000002.json: it counts \w+ = .*, and the rows up to it come to ")


def test_counters_that_go_back(run):
    """What rows do not tell never grows less."""
    run.count(2, calls={"bootstrap": -1000})

    run.damaged("000002.json: it counts calls = .*, less than .* of the commit before it")


# Damage to rows


def test_a_row_twice(run):
    """With the file, its hash and its rows as recorded."""
    rows = run.rows("data", 1)
    run.put_rows("data", 1, [rows[0], *rows])

    run.damaged(f"data/train-000001.parquet, row 2: the id {rows[0]['id']} is there twice")


def test_an_instruction_twice(run):
    """In `pool/`."""
    rows = run.rows("pool", 1)
    run.put_rows("pool", 1, [rows[0], *rows])

    run.damaged(f"pool-000001.parquet, row 2: the instruction {rows[0]['instruction_id']} is admitted twice")


def test_rows_out_of_order(run):
    """Units in order within a commit, and none of another's."""
    rows = run.rows("rejected", 1)
    run.put_rows("rejected", 1, rows[::-1])
    run.damaged(r"rejected-000001.parquet, row \d+: unit \d+ comes after unit \d+")
    run.put_rows("rejected", 1, rows)
    run.change("rejected", 1, 0, unit=run.record(1)["end"])
    run.damaged(r"rejected-000001.parquet, row 1: unit \d+ is not of its commit, \[0, \d+\)")


def test_an_id_of_another_unit(run):
    """An id says of which unit its row is, and every row of `data/` has one."""
    run.change("data", 1, 0, id="t/77/0/0", instruction_id="t/77/0")
    run.damaged(r"train-000001.parquet, row 1: the instruction_id t/77/0 is not of unit \d+")
    run.change("data", 1, 0, instruction_id=run.rows("data", 1)[1]["instruction_id"])
    run.damaged(r"train-000001.parquet, row 1: the id t/77/0/0 is not of the instruction")
    run.change("data", 1, 0, id=None)
    run.damaged("train-000001.parquet, row 1: it has no id")


def test_a_next_round_that_admits(texts):
    """`curate` has no `pool/`."""
    again = Folder(Path(f"{texts.path}-2"))
    assert main(["curate", str(texts.path), "--out", str(again.path), "--set", 'engine.model="other"']) == 0
    (again.path / "pool").mkdir()
    (again.path / "pool" / "pool-000001.parquet").touch()
    again.put(1, files=[*again.record(1)["files"], {"path": "pool/pool-000001.parquet", "rows": 0, "sha256": ""}])
    again.put_rows("pool", 1, [{**texts.rows("pool", 1)[0], "unit": 0}])

    again.damaged("pool-000001.parquet, row 1: curate admits nothing")


def test_a_row_whose_instruction_was_not_admitted(run):
    """A row of `data/` is of an instruction in `pool/`, with its text."""
    text = run.rows("data", 1)[0]["instruction"]
    run.change("data", 1, 0, instruction="Another text.")
    run.damaged(r"train-000001.parquet, row 1: the instruction t/\d+/\d+ has another text in pool/")
    run.change("data", 1, 0, instruction=text)
    of = run.rows("data", 1)[0]["instruction_id"]
    run.put_rows("pool", 1, [row for row in run.rows("pool", 1) if row["instruction_id"] != of])
    run.damaged(f"train-000001.parquet, row 1: the instruction {of} was not admitted")


def test_an_instruction_that_ends_twice_or_never(run):
    """It has rows or one closing reject: not both, and not neither."""
    data, rejected = run.rows("data", 1), run.rows("rejected", 1)
    first = data[0]["instruction_id"]
    run.put_rows("data", 1, [row for row in data if row["instruction_id"] != first])
    run.damaged(rf"pool-000001.parquet, row \d+: the instruction {first} has no row, and no closing reject")
    run.put_rows("data", 1, data)
    closing = {
        **rejected[0],
        "id": None,
        "instruction_id": first,
        "unit": data[0]["unit"],
        "reason": "no_instance_kept",
    }
    place = next(number for number, row in enumerate(rejected) if row["unit"] >= data[0]["unit"])
    run.put_rows("rejected", 1, [*rejected[:place], closing, *rejected[place:]])
    run.damaged(rf"pool-000001.parquet, row \d+: the instruction {first} has rows, and a closing reject too")


def test_a_gate_that_says_otherwise(run):
    """Candidates and admitted of each unit are those of its rows."""
    gate = run.record(1)["gate"]
    candidates, admitted = gate[0]
    run.put(1, gate=[[candidates, admitted + 1], *gate[1:]])
    run.damaged("000001.json: of unit 0 its gate admitted")
    run.put(1, gate=[[candidates + 1, admitted], *gate[1:]])
    run.damaged("000001.json: of unit 0 its gate had")


def test_a_unit_that_left_nothing(run):
    """Every unit ends in a row."""
    last = run.commits - 1
    record = run.record(last)
    run.put(last, end=record["end"] + 1, gate=[*record["gate"], [0, 0]])
    run.count(last, units=1)

    run.damaged(f"{last:06d}.json: unit {record['end']} of it has left no row")


def test_a_failed_unit_that_has_rows(run):
    """A unit that failed has one row, its failure."""
    rejected = run.rows("rejected", 1)
    failure = {**rejected[0], "id": None, "instruction_id": None, "stage": "bootstrap", "reason": "request_refused"}
    run.put_rows("rejected", 1, [failure, *rejected])
    run.count(1, failed_units=1, failure_reasons={"request_refused": 1})

    run.damaged(r"rejected-000001.parquet, row 1: unit \d+ has failed, and has other rows too")


# Damage to novelty


def near(run: Folder, text: str, number: int) -> str:
    """Gives the first instruction of a commit another text, in all its rows; returns its id."""
    of = str(run.rows("pool", number)[0]["instruction_id"])
    for kind in ("pool", "data"):
        rows = run.rows(kind, number)
        run.put_rows(
            kind, number, [{**row, "instruction": text} if row["instruction_id"] == of else row for row in rows]
        )
    return of


def test_two_that_are_too_near(run):
    """Two admitted instructions of other commits with one text, and one with a seed's."""
    other = run.rows("pool", 1)[3]
    of = near(run, other["instruction"], 3)
    run.damaged(r"pool-00000[13].parquet, row \d+: t/.* is nearer to t/.* than the threshold of 0.7: ROUGE-L 1.0000")
    run.damaged(rf"pool-000003.parquet, row 1: {of} is nearer to {other['instruction_id']} than", full=True)
    from pipeline.seeds import parse_seeds, read_seed_text

    seed = parse_seeds(read_seed_text("shipped:seeds.jsonl"), "")[40]
    near(run, seed.instruction, 3)
    run.damaged(f"{of} is nearer to {seed.id} than the threshold", full=True)


def test_full_finds_what_a_sample_may_miss(run, monkeypatch):
    """Of a sample that holds neither of the two nothing is said; --full compares all."""
    monkeypatch.setattr(verify_module, "SAMPLE", 1)
    near(run, run.rows("pool", 1)[3]["instruction"], 3)

    assert "1 of 60 admitted compared" in verify(run.path)
    run.damaged("is nearer to", full=True)


def test_a_score_on_the_wrong_side(run):
    """What was admitted is at most the threshold away, and what was refused as not novel above it."""
    run.change("pool", 1, 0, nearest_score=0.9)
    run.damaged("pool-000001.parquet, row 1: admitted at 0.900, above the threshold of 0.7")
    run.change("pool", 1, 0, nearest_score=0.7)
    place, number = next(
        (number, commit)
        for commit in range(1, run.commits)
        for number, row in enumerate(run.rows("rejected", commit))
        if row["reason"] == "not_novel"
    )
    run.change("rejected", number, place, nearest_score=0.7)
    run.damaged(rf"rejected-00000{number}.parquet, row {place + 1}: refused as not novel at 0.7, not above")


def test_an_instruction_without_a_token(run):
    """What has no token would always be novel."""
    near(run, "!?", 2)

    run.damaged("pool-000002.parquet, row 1: admitted, and without a token")


# Damage to segments


def test_damaged_segments(texts):
    """A part's file, a part's record, and a tally."""
    folder = texts.path / ".run" / "segments"
    file, content = folder / "segments-000001.parquet", (folder / "segments-000001.parquet").read_bytes()
    file.write_bytes(content[:-1] + b"x")
    texts.damaged("segments-000001.parquet: its SHA-256 is not the recorded one")
    file.unlink()
    texts.damaged("segments-000001.parquet: a record names this file, and it is not there")
    file.write_bytes(content)
    record = folder / "000001.json"
    part = json.loads(record.read_text())
    for key in ("pieces", "kept", "characters"):
        record.write_text(json.dumps({**part, "tally": {**part["tally"], key: part["tally"][key] + 1}}))
        texts.damaged("segments/000001.json: its tally does not add up")
    record.write_text(json.dumps({**part, "at_end": True}))
    texts.damaged("segments/000001.json: it says that the corpus is at its end")
    record.write_text(json.dumps({**part, "file": "../manifest.json"}))
    texts.damaged(r"segments/000001.json: it names a file that is not its own: \.\./manifest.json")
    rows = pq.read_table(file).slice(1)
    pq.write_table(rows, file)
    record.write_text(json.dumps({**part, "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}))
    texts.damaged(r"segments/000001.json: it has segments \[20, 40\), and its file 19 rows")
    record.write_text(json.dumps({**part, "tally": {}}))
    file.write_bytes(content)
    texts.damaged("segments/000001.json: not a record of segments")
    record.unlink()
    texts.damaged("segments/000002.json: the record before it is missing")
    for later in folder.glob("00000[2-9].json"):
        later.unlink()
    texts.damaged(r"commits/00000\d.json: there is no segment for unit 20")


def test_rows_that_are_not_of_their_segment(texts):
    """Unit n is about segment n, and an accepted row has its text."""
    row = texts.rows("data", 1)[0]
    texts.change("data", 1, 0, output="Another text.")
    texts.damaged(r"train-000001.parquet, row 1: its output is not the text of corpus.jsonl#\d+")
    texts.change("data", 1, 0, output=row["output"], source={"id": "corpus.jsonl#1", "origin": ""})
    texts.damaged(r"train-000001.parquet, row 1: its source is not corpus.jsonl#\d+, the segment of unit \d+")
