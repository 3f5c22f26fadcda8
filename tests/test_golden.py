"""Recorded runs of the paper's own code, replayed. Skipped where the data is not beside the repository."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.filters import first_refusal, paper_filters
from pipeline.novelty import NoveltyIndex
from pipeline.parsing import parse_classification, parse_instructions
from pipeline.settings import FilterSettings, NoveltySettings

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"

pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="the recorded runs are not in ../shared/data")


def read(name: str) -> list[dict[str, Any]]:
    """The rows of a JSON lines file."""
    return [json.loads(line) for line in (DATA / name).read_text(encoding="utf-8").split("\n") if line.strip()]


@pytest.fixture(scope="module")
def recorded() -> list[dict[str, Any]]:
    """The 306 rows of a recorded run of the first stage."""
    return read("self_instruct_run_306.jsonl")


@pytest.fixture(scope="module")
def completions(recorded: list[dict[str, Any]]) -> list[str]:
    """Its completions in order: each row repeats the one it came from."""
    answers = [row["metadata"]["response"] for row in recorded]
    return [answer for place, answer in enumerate(answers) if place == 0 or answer != answers[place - 1]]


def seeded_index() -> NoveltyIndex:
    """An index that holds the seeds of the recorded run."""
    index = NoveltyIndex()
    index.extend(seed["instruction"] for seed in read("self_instruct_seed_tasks.jsonl"))
    return index


def replay(completions: list[str]) -> list[list[str]]:
    """What our parser, filters and novelty admit of each completion, in order."""
    index, filters, threshold = seeded_index(), paper_filters(FilterSettings()), NoveltySettings().threshold
    admitted: list[list[str]] = []
    for answer in completions:
        admitted.append([])
        for item in parse_instructions(answer, compat=True):
            nearest = index.nearest(item)
            if first_refusal(filters, item) is None and (nearest is None or nearest[1] <= threshold):
                index.add(item)
                admitted[-1].append(item)
    return admitted


def test_the_recorded_run_is_replayed(recorded: list[dict[str, Any]], completions: list[str]) -> None:
    """In compat mode the recorded completions give the recorded instructions, in order and nothing more."""
    admitted = replay(completions)
    *whole, last = admitted
    before = [item for items in whole for item in items]
    instructions = [row["instruction"] for row in recorded]

    assert len(completions) == 90
    assert instructions[: len(before)] == before
    # The recorded run stopped inside its last completion, once its target was reached; ours reads that to its end.
    of_the_last = instructions[len(before) :]
    assert of_the_last
    assert of_the_last == last[: len(of_the_last)]
    assert last[len(of_the_last) :] == ["Can you tell me about your family?"]


def test_the_recorded_scores_are_ours(recorded: list[dict[str, Any]]) -> None:
    """The ten nearest scores and the mean over the pool equal the recorded ones, bit for bit, in every row."""
    index = seeded_index()
    for row in recorded:
        scores = index.scores(row["instruction"])
        nearest = sorted(scores.tolist(), reverse=True)[: len(row["most_similar"])]

        assert list(row["most_similar"].values()) == nearest
        assert row["avg_similarity_score"] == float(np.mean(scores))
        found = index.nearest(row["instruction"])
        assert nearest[0] < 0.6 if found is None else found[1] == nearest[0]
        index.add(row["instruction"])

    assert len(recorded) == 306


def test_a_score_of_exactly_the_threshold_was_kept(recorded: list[dict[str, Any]]) -> None:
    """The recorded run holds a row at exactly 0.7, and none above."""
    nearest = [max(row["most_similar"].values()) for row in recorded]

    assert nearest.count(0.7) == 1
    assert max(nearest) == 0.7


@pytest.mark.parametrize(
    ("compat", "expected"),
    [(False, {True: 2, False: 96, None: 3}), (True, {True: 2, False: 99})],
    ids=["default", "compat"],
)
def test_recorded_classification_answers(compat: bool, expected: dict[bool | None, int]) -> None:
    """Of 101 recorded answers 2 say yes, and the 3 empty ones are no answer, or no in compat mode."""
    answers = read("self_instruct_chain_101/is_clf_or_not_text-davinci-003_template_1.jsonl")
    actual = Counter(parse_classification(row["is_classification"], compat=compat) for row in answers)

    assert expected == dict(actual)
