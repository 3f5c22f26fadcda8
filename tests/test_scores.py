"""How a report draws the scores of a run and their moves."""

from __future__ import annotations

from pipeline.counters import Counters
from pipeline.records import Example, Reason, Reject, Score, Stage
from pipeline.scores import score_lines
from pipeline.shards import MANIFEST, Shards
from pipeline.storage import folder_at


def pair(number: int, *scores: int | None) -> Example:
    """A pair with a score per round."""
    given = tuple(Score(f"judge-{round}", round, score, None, 1.0) for round, score in enumerate(scores, start=1))
    fields = {"parents": (), "nearest_id": None, "nearest_score": None, "prompt_hashes": (), "finish_reason": "stop"}
    return Example(
        id=f"t/{number}/0/0",
        instruction_id=f"t/{number}/0",
        instruction="Say it.",
        input="",
        output="It.",
        unit=number,
        is_classification=None,
        prompt_tokens=1,
        completion_tokens=1,
        score=scores[-1] if scores else None,
        scores=given,
        **fields,
    )


def lines_of(folder, *pairs: Example) -> str:
    """The lines of a run of these pairs; the first is refused, the others accepted."""
    first, *others = pairs
    refused = Reject(first.unit, Stage.CURATION, Reason.LOW_SCORE, id=first.id, scores=first.scores, score=first.score)
    folder_at(folder).write(MANIFEST, b'{"version": 1, "run": "t"}')
    tables: dict[str, list[object]] = {"data": list(others), "rejected": [refused], "pool": list[object]()}
    Shards(folder_at(folder), 1, {}).write_commit(0, range(0, len(pairs)), tables, Counters().to_json(), [])
    return "\n".join(score_lines(folder))


def test_each_round_has_its_distribution(tmp_path) -> None:
    """Counts and shares of 5 to 1, A5 and A4, accepted and refused pairs alike; null scores are told apart."""
    shown = lines_of(tmp_path, pair(0, 1), pair(1, 5), pair(2, 5), pair(3, 4), pair(4, None))

    assert "round 1, scored by judge-1: 5 pairs, mean 3.75, 1 not a score" in shown
    assert "  5          2   40%" in shown
    assert "A5 (score 5) 2, 40.0%; A4 (4 or 5) 3, 60.0%" in shown
    assert "moved" not in shown


def test_the_move_is_a_table_of_before_by_now(tmp_path) -> None:
    """Rows are the score before, columns the score now; shares of same, up and down are given."""
    shown = lines_of(tmp_path, pair(0, 1, 2), pair(1, 5, 5), pair(2, 5, 3), pair(3, 4, None))
    table = shown[shown.index("moved") :].splitlines()

    assert table[0] == (
        "moved since the round before: 25% the same, 25% up, 25% down, 25% without a score in one of them"
    )
    assert table[1].split() == ["before", "\\", "now", "1", "2", "3", "4", "5", "none"]
    assert [line.split() for line in table[2:]] == [
        ["1", "0", "1", "0", "0", "0", "0"],
        ["2", "0", "0", "0", "0", "0", "0"],
        ["3", "0", "0", "0", "0", "0", "0"],
        ["4", "0", "0", "0", "0", "0", "1"],
        ["5", "0", "0", "1", "0", "1", "0"],
        ["none", "0", "0", "0", "0", "0", "0"],
    ]


def test_a_run_without_scores_has_no_lines(tmp_path) -> None:
    """Self-Instruct's rows have no scores, and a report of them says nothing of any."""
    assert lines_of(tmp_path, pair(0), pair(1)) == ""
