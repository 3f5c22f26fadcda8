"""Scores counted: how those of each round lie, and how they have moved since the round before."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

COLUMNS = ("score", "scores")  # what `ScoreCounts.add` looks at
_NONE = -1


@dataclass(frozen=True)
class Round:
    """The scores of one round by one judge: pairs by score (1 to 5), and those without a score that was believed."""

    number: int
    judge: str
    counts: Mapping[int, int]
    unscored: int

    @property
    def total(self) -> int:
        return sum(self.counts.values()) + self.unscored

    @property
    def scored(self) -> int:
        """Those with a score."""
        return sum(self.counts.values())

    @property
    def mean(self) -> float | None:
        """Of the scores; None where there are none."""
        return sum(score * count for score, count in self.counts.items()) / self.scored if self.scored else None

    def at_least(self, score: int) -> int:
        """How many have this score or a higher one: 5 gives the paper's A5, 4 its A4, as shares of those scored."""
        return sum(count for each, count in self.counts.items() if each >= score)


class ScoreCounts:
    """Counts the scores of judged pairs, accepted and refused, batch by batch."""

    def __init__(self) -> None:
        self._rounds: dict[tuple[int, str], Counter[int | None]] = {}
        self.moves: Counter[tuple[int | None, int | None]] = Counter()
        """Pairs by the score of the round before and the newest one, where the newest round has not asked in vain."""

    def add(self, batch: pa.RecordBatch) -> None:
        """Count the rows of a batch with the columns COLUMNS."""
        lists = batch.column("scores")
        flat = lists.flatten()
        if not len(flat):
            return
        given = pc.fill_null(flat.field("score"), _NONE)
        table = pa.table({"round": flat.field("round"), "judge": flat.field("judge"), "score": given})
        for row in table.group_by(["round", "judge", "score"]).aggregate([([], "count_all")]).to_pylist():
            counts = self._rounds.setdefault((row["round"], row["judge"]), Counter())
            counts[_score(row["score"])] += row["count_all"]
        sizes = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False)
        ends, several = np.cumsum(sizes), sizes > 1
        scores = given.to_numpy(zero_copy_only=False)
        newest = pc.fill_null(batch.column("score"), _NONE).to_numpy(zero_copy_only=False)[several]
        before, now = scores[ends[several] - 2], scores[ends[several] - 1]
        pairs, counted = np.unique(np.stack([before, now])[:, newest == now], axis=1, return_counts=True)
        for pair, count in zip(pairs.T.tolist(), counted.tolist(), strict=True):
            self.moves[_score(pair[0]), _score(pair[1])] += count

    @property
    def rounds(self) -> tuple[Round, ...]:
        """In order, a round with two judges twice."""
        return tuple(
            Round(number, judge, {score: counts[score] for score in range(1, 6)}, counts[None])
            for (number, judge), counts in sorted(self._rounds.items())
        )


def _score(number: int) -> int | None:
    return None if number == _NONE else number
