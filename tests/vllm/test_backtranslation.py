"""Instruction backtranslation with real vLLM on the CPU, over a real book."""

from __future__ import annotations

import datasets
import pytest

from pipeline.config import load_config
from pipeline.counters import Counters
from pipeline.launch import launch
from pipeline.report import read_rows
from pipeline.segment_parts import tally_of
from pipeline.shards import read_commits


@pytest.mark.slow
def test_a_book_goes_through(ray_session, shared_data, tmp_path) -> None:
    """Every piece of the book is a segment or counted, every segment one candidate or one failure row, and no pair
    that the judge was asked about is without a score or the reason why it is not believed."""
    source = f'corpus.source="{shared_data}/rust_book"'
    launch(load_config("shipped:demo_backtranslation.toml", (source,), str(tmp_path / "r")))
    counters = Counters.from_json(read_commits(tmp_path / "r")[-1].counters)
    tally = tally_of(tmp_path / "r")
    data, rejected = (read_rows(tmp_path / "r", kind) for kind in ("data", "rejected"))

    assert tally is not None
    assert tally.pieces == tally.kept + tally.refused.total() > 500
    assert counters.units == tally.kept
    assert counters.candidates + counters.failed_units == counters.units == len(data) + len(rejected)
    judged = data + [row for row in rejected if row["scores"]]
    unparsed = [row for row in judged if row["score"] not in (1, 2, 3, 4, 5) and row["reason"] != "not_a_score"]
    assert len(judged) > 10
    assert not unparsed
    assert all(0 <= row["score_mass"] <= 1.001 for row in judged)
    loaded = datasets.load_dataset(str(tmp_path / "r"), split="train", cache_dir=str(tmp_path / "c"))
    assert loaded.num_rows == len(data)
