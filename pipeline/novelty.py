"""How near is a text to what we hold: exact ROUGE-L, bit for bit as the `rouge_score` package computes it.

Tokens are those of `rouge_score` without a stemmer: lower case, runs of a-z and 0-9. The longest common subsequence
comes from rapidfuzz's bit-parallel code; the F-measure repeats `rouge_score`'s floating-point operations in its order,
so that a decision at the threshold never differs (50 of 86 ways to reach exactly 0.7 compute to just above it).
"""

from __future__ import annotations

import re

import numpy as np
from rapidfuzz import process
from rapidfuzz.distance import LCSseq

from pipeline.records import Nearest

_NOT_A_TOKEN = re.compile(r"[^a-z0-9]+")


def rouge_tokens(text: str) -> list[str]:
    """The tokens of `rouge_score`'s default tokeniser, without stemming."""
    return _NOT_A_TOKEN.sub(" ", text.lower()).split()


class NoveltyIndex:
    """Texts with their ids, and the largest ROUGE-L F of a new text against all of them. In process, one core.

    Grows by about 0.5 KB per instruction of 13 words.
    """

    def __init__(self) -> None:
        self._ids: list[str] = []
        self._encoded: list[list[int]] = []
        self._lengths: list[int] = []
        self._vocabulary: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._ids)

    def add(self, id: str, text: str) -> None:
        """Hold `text` under `id`, after everything held so far."""
        encoded = [self._vocabulary.setdefault(token, len(self._vocabulary)) for token in rouge_tokens(text)]
        self._ids.append(id)
        self._encoded.append(encoded)
        self._lengths.append(len(encoded))

    def nearest(self, text: str) -> Nearest:
        """The held text with the largest F, the earliest on a tie; id None where nothing is held or shares a word."""
        scores = self.scores(text)
        if not scores.size or scores.max() == 0.0:
            return Nearest(None, 0.0)
        best = int(scores.argmax())
        return Nearest(self._ids[best], float(scores[best]))

    def scores(self, text: str) -> np.ndarray:
        """ROUGE-L F of `text` against every held text: float64, shape (len(self),), in the order of adding."""
        target = [self._vocabulary.get(token, -1) for token in rouge_tokens(text)]  # -1: a word that nothing held has
        if not target or not self._encoded:
            return np.zeros(len(self))
        common = process.cdist([target], self._encoded, scorer=LCSseq.similarity, dtype=np.int64)[0]
        lengths = np.array(self._lengths)
        with np.errstate(invalid="ignore", divide="ignore"):
            precision = common / lengths
            recall = common / len(target)
            scores = 2 * precision * recall / (precision + recall)
        return np.where(common > 0, scores, 0.0)
