"""How the scores of a run lie, and how they have moved since the round before: lines for a person."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from pipeline.reading import open_folder
from pipeline.shards import read_tables
from pipeline.storage import Place

SCORES = (1, 2, 3, 4, 5)
_BAR = 40  # columns of the longest bar


def score_lines(folder: Place) -> list[str]:
    """Distribution of each round by its judge, A4 and A5, and the move from the last round but one; [] without scores.

    Reads the column of scores alone. Raises InputError where the folder holds no run.
    """
    rounds: dict[tuple[int, str], Counter[int | None]] = {}
    moves: Counter[tuple[int | None, int | None]] = Counter()
    for score, scores in _scores(folder):
        for each in scores:
            rounds.setdefault((each["round"], each["judge"]), Counter())[each["score"]] += 1
        if len(scores) > 1 and score == scores[-1]["score"]:  # else this round has asked in vain
            moves[scores[-2]["score"], scores[-1]["score"]] += 1
    lines: list[str] = []
    for (number, judge), counts in sorted(rounds.items()):
        lines += ["", *_distribution(number, judge, counts)]
    if moves:
        lines += ["", *_moves(moves)]
    return lines


def _scores(folder: Place) -> Iterator[tuple[int | None, list[dict[str, Any]]]]:
    """The newest score and all scores of every judged pair, accepted and refused."""
    _, commits = open_folder(folder)
    for kind in ("data", "rejected"):
        for table in read_tables(folder, commits, kind, ["score", "scores"]):
            yield from ((row["score"], row["scores"]) for row in table.to_pylist() if row["scores"])


def _distribution(number: int, judge: str, counts: Counter[int | None]) -> Iterator[str]:
    total, believed = counts.total(), counts.total() - counts[None]
    mean = sum(score * counts[score] for score in SCORES) / believed if believed else 0.0
    not_one = f", {counts[None]:,} not a score" if counts[None] else ""
    yield f"round {number}, scored by {judge}: {total:,} pairs, mean {mean:.2f}{not_one}"
    most = max((counts[score] for score in SCORES), default=0)
    for score in reversed(SCORES):
        bar = "#" * round(_BAR * counts[score] / most) if most else ""
        yield f"  {score}  {counts[score]:>9,}  {counts[score] / total:>4.0%}  {bar}".rstrip()
    four, five = counts[4] + counts[5], counts[5]
    yield f"  A5 (score 5) {five:,}, {five / total:.1%}; A4 (4 or 5) {four:,}, {four / total:.1%}"


def _moves(moves: Counter[tuple[int | None, int | None]]) -> Iterator[str]:
    """A table of the score before by the score now."""
    total = moves.total()
    believed = {pair: count for pair, count in moves.items() if None not in pair}
    same = sum(count for (before, now), count in believed.items() if before == now)
    up = sum(count for (before, now), count in believed.items() if (now or 0) > (before or 0))
    down = sum(count for (before, now), count in believed.items() if (now or 0) < (before or 0))
    line = f"moved since the round before: {same / total:.0%} the same, {up / total:.0%} up, {down / total:.0%} down"
    if unscored := total - sum(believed.values()):
        line += f", {unscored / total:.0%} without a score in one of them"
    yield line
    columns: tuple[int | None, ...] = (*SCORES, None) if any(None in pair for pair in moves) else SCORES
    yield "  before \\ now" + "".join(f"{_name(now):>10}" for now in columns)
    for before in columns:
        yield f"  {_name(before):>12}" + "".join(f"{moves[before, now]:>10,}" for now in columns)


def _name(score: int | None) -> str:
    return "none" if score is None else str(score)
