"""Shards and the ledger: visible whole or not at all, one schema, never replaced."""

from __future__ import annotations

import hashlib
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import InputError, RunStopped
from pipeline.records import Admitted, Reason, Reject, Stage
from pipeline.shards import (
    COMMITS,
    RUN,
    SCHEMAS,
    Commit,
    Shards,
    read_commits,
    read_table,
    remove_strangers,
)
from pipeline.storage import folder_at

ROW = Admitted("t/0/0", "Name three rivers.", 0, ("seed_1",), False, "seed_1", 0.25)


def write(folder, number=0, attempt=1, **tables):
    """One commit of one unit."""
    shards = Shards(folder_at(folder), attempt, {"recipe": "self-instruct", "model": "m@1"})
    return shards.write_commit(number, range(number, number + 1), tables, {}, [(1, 1)])


def test_a_commit_names_its_files_with_rows_and_hashes(tmp_path):
    """The record holds path, rows and SHA-256 of each file, and reads back as it was written."""
    commit = write(tmp_path, pool=[ROW])
    path = tmp_path / "pool" / "pool-000000.parquet"

    assert read_commits(tmp_path) == [commit]
    assert commit.files[0].path == "pool/pool-000000.parquet"
    assert commit.files[0].rows == 1
    assert commit.files[0].sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_rows_come_back_as_they_were(tmp_path):
    """A record's fields stand in its row; columns it lacks come from the constants or are null."""
    reject = Reject(4, Stage.FILTER, Reason.TOO_SHORT, "2 words", "Do it", instruction="Do it")
    write(tmp_path, pool=[ROW], rejected=[reject])
    row = read_table(tmp_path, "rejected/rejected-000000.parquet", "rejected").to_pylist()[0]

    expected = {"stage": "filter", "reason": "too_short", "detail": "2 words", "text": "Do it", "unit": 4}
    assert row.items() >= {**expected, "recipe": "self-instruct", "model": "m@1", "score": None, "input": None}.items()
    assert read_table(tmp_path, "pool/pool-000000.parquet", "pool").to_pylist()[0]["parents"] == ["seed_1"]


def test_a_table_of_no_rows_gets_no_file_except_at_planning(tmp_path):
    """Planning writes an empty data file without a row group; later commits leave an empty table out."""
    write(tmp_path, 0, data=[])
    write(tmp_path, 1, data=[], pool=[ROW])
    empty = pq.ParquetFile(tmp_path / "data" / "train-000000.parquet")

    assert empty.metadata.num_row_groups == 0
    assert empty.schema_arrow.equals(SCHEMAS["data"], check_metadata=True)
    assert sorted(file.name for file in (tmp_path / "data").iterdir()) == ["train-000000.parquet"]


def test_files_of_a_later_attempt_carry_its_number(tmp_path):
    """Two attempts never write the same name."""
    commit = write(tmp_path, 0, attempt=3, pool=[ROW])

    assert commit.files[0].path == "pool/pool-000000-a3.parquet"


def test_a_commit_is_never_replaced(tmp_path):
    """When another writer has made the commit, this one removes what it wrote and stops; the record stays."""
    first = write(tmp_path, 0, pool=[ROW])
    with pytest.raises(RunStopped, match="another process has written commit 0"):
        write(tmp_path, 0, attempt=2, pool=[ROW])

    assert read_commits(tmp_path) == [first]
    assert [file.name for file in (tmp_path / "pool").iterdir()] == ["pool-000000.parquet"]


def test_writing_the_same_record_again_is_no_conflict(tmp_path):
    """A record that exists with the very same content was ours: an answer that got lost on the way."""
    assert write(tmp_path, 0, pool=[ROW]) == write(tmp_path, 0, pool=[ROW])


def test_strangers_are_removed_and_named_files_kept(tmp_path):
    """Files that no record names, and temporary ones, go; a reader's own files stay."""
    commit = write(tmp_path, 0, pool=[ROW])
    for name in (
        "pool/pool-000001.parquet",
        "data/.tmp-9-train-000001.parquet",
        ".run/commits/.tmp-9-000001.json",
        ".run/.tmp-9-manifest.json",
        ".run/nearest.parquet",
    ):
        folder_at(tmp_path).write(name, b"x")
    folder_at(tmp_path).write("data/notes.txt", b"mine")
    named = [file.path for file in commit.files]
    removed = remove_strangers(folder_at(tmp_path), named, ["data", "pool", "rejected", COMMITS, RUN])

    assert removed == [
        "data/.tmp-9-train-000001.parquet",
        "pool/pool-000001.parquet",
        ".run/commits/.tmp-9-000001.json",
        ".run/.tmp-9-manifest.json",
    ]
    assert (tmp_path / ".run" / "nearest.parquet").exists()
    assert (tmp_path / "pool" / "pool-000000.parquet").exists()
    assert (tmp_path / "data" / "notes.txt").exists()


def test_another_schema_is_an_error_that_shows_both(tmp_path):
    """A shard of another schema is refused with both schemas in the text."""
    pq.write_table(pa.table({"instruction": ["a"]}), tmp_path / "x.parquet")
    with pytest.raises(
        InputError, match=r"found:\ninstruction: string\n(.|\n)*expected:\n(.|\n)*nearest_score: double"
    ):
        read_table(tmp_path, "x.parquet", "pool")


def test_a_missing_or_torn_record_is_named(tmp_path):
    """A hole in the ledger, and a record that is no JSON, are damage: the file is named."""
    write(tmp_path, 0, pool=[ROW])
    write(tmp_path, 2, pool=[ROW])
    with pytest.raises(InputError, match=r"000002.json: commit 1 is missing"):
        read_commits(tmp_path)
    (tmp_path / ".run" / "commits" / "000001.json").write_text('{"number"')
    with pytest.raises(InputError, match=r"000001.json: not a commit record"):
        read_commits(tmp_path)


def test_a_commit_record_is_plain_json(tmp_path):
    """Anyone can read the ledger: the record's keys are the fields of a Commit."""
    write(tmp_path, 0, pool=[ROW])
    values = json.loads((tmp_path / ".run" / "commits" / "000000.json").read_text())

    assert list(values) == list(Commit.__dataclass_fields__)
