"""What novelty must come to, from `rouge_score` and nothing of ours: one text after the other against all before it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer

from pipeline.scoring import Batch, Found, Scorer

FLOOR = 0.3
# Few words and short texts: near copies, equal scores and F of exactly a threshold are common.
TEXTS = st.lists(st.lists(st.sampled_from("abcde"), min_size=1, max_size=6).map(" ".join), max_size=24)

_SCORER = RougeScorer(["rougeL"])


@cache
def f_measure(one: str, other: str) -> float:
    """ROUGE-L F of two texts by the package."""
    return float(_SCORER.score(one, other)["rougeL"].fmeasure)


def nearest(held: Sequence[str], text: str) -> Found:
    """The nearest of `held`, the earliest on a tie; None where it does not reach the floor."""
    scores = [f_measure(each, text) for each in held]
    best = max(range(len(scores)), key=scores.__getitem__, default=None)
    return None if best is None or scores[best] < FLOOR else (best, scores[best])


def filtered(held: Sequence[str], texts: Sequence[str], threshold: float) -> list[tuple[bool, Found]]:
    """Whether each text is kept, and its nearest of all that is held by then."""
    held, answers = list(held), []
    for text in texts:
        found = nearest(held, text)
        kept = found is None or found[1] <= threshold
        if kept:
            held.append(text)
        answers.append((kept, found))
    return answers


async def filtered_in_batches(
    scorer: Scorer, held: Sequence[str], texts: Sequence[str], threshold: float, sizes: Sequence[int]
) -> list[tuple[bool, Found]]:
    """The same by a scorer and a `Batch` for each of these numbers of texts in turn, the last again and again."""
    scorer.extend(held)
    length, answers, rest, turns = len(held), [], list(texts), list(sizes)
    while rest:
        size = turns.pop(0) if len(turns) > 1 else turns[0]
        asked, rest = rest[:size], rest[size:]
        batch = Batch("rouge", FLOOR, length)
        for text, before in zip(asked, await scorer.nearest(asked), strict=True):
            found = batch.nearest(text, before)
            kept = found is None or found[1] <= threshold
            if kept:
                batch.keep(text)
                scorer.extend([text])
                length += 1
            answers.append((kept, found))
    return answers
