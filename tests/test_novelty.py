"""ROUGE-L to what we hold, against the `rouge_score` package bit for bit."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer
from rouge_score.tokenize import tokenize

from pipeline.novelty import NoveltyIndex, rouge_tokens
from pipeline.records import Nearest

REFERENCE = RougeScorer(["rougeL"], use_stemmer=False)


def reference(text: str, held: str) -> float:
    """What `rouge_score` says, asked as the paper's code asks it."""
    return float(REFERENCE.score(text, held)["rougeL"].fmeasure)


def index_of(*texts: str) -> NoveltyIndex:
    """An index that holds these texts under the ids t0, t1, ..."""
    index = NoveltyIndex()
    for number, text in enumerate(texts):
        index.add(f"t{number}", text)
    return index


FEW_WORDS = st.lists(st.sampled_from("abc"), max_size=12).map(" ".join)  # few words: ties, repeats and 0.7 happen
ANY_TEXT = st.text(st.sampled_from("abAB12 -_.é你\n"), max_size=30)
TEXTS = st.one_of(FEW_WORDS, ANY_TEXT)


@given(text=TEXTS, held=st.lists(TEXTS, max_size=6))
@example(text="a b c d e f g x y z", held=["a b c d e f g p q r"])
@example(text="", held=["a"])
@example(text="a", held=["", "é"])
@settings(max_examples=300, deadline=None)
def test_scores_equal_rouge_score(text: str, held: list[str]) -> None:
    """Every score is the package's to the last bit, and the nearest is the earliest of the largest."""
    index = index_of(*held)
    expected = [reference(text, one) for one in held]

    assert expected == index.scores(text).tolist()
    if max(expected, default=0.0) == 0.0:
        assert index.nearest(text) == Nearest(None, 0.0)
    else:
        assert index.nearest(text) == Nearest(f"t{expected.index(max(expected))}", max(expected))


@given(text=st.text(max_size=40))
@settings(max_examples=200, deadline=None)
def test_tokens_equal_rouge_score(text: str) -> None:
    """Any text has the package's tokens."""
    assert tokenize(text, None) == rouge_tokens(text)


def exactly_seven_tenths() -> list[tuple[int, int, int]]:
    """Every two lengths up to 60 and common length that make an F of exactly 0.7."""
    return [
        (m, n, common)
        for m, n in itertools.product(range(1, 61), repeat=2)
        for common in range(1, min(m, n) + 1)
        if 20 * common == 7 * (m + n)
    ]


def words(common: int, length: int, other: str) -> str:
    """A text of `length` words of which the first `common` are shared and the others are its own."""
    return " ".join([*(f"c{n}" for n in range(common)), *(f"{other}{n}" for n in range(length - common))])


def test_the_boundary() -> None:
    """Of the 86 ways to reach exactly 0.7, 50 compute to above it and 36 do not, as in the package's arithmetic."""
    ours, theirs = [], []
    for m, n, common in exactly_seven_tenths():
        text, held = words(common, m, "x"), words(common, n, "y")
        ours.append(index_of(held).nearest(text).score)
        theirs.append(reference(text, held))

    assert theirs == ours
    assert len(ours) == 86
    assert sum(score > 0.7 for score in ours) == 50


def test_a_tie_goes_to_the_earliest() -> None:
    """Among equal scores the text held first is the nearest."""
    index = index_of("p q r", "a b x", "a b y", "a b x")

    assert index.nearest("a b z").id == "t1"


@pytest.mark.parametrize("text", ["", "  ", "?!", "你好", "é"], ids=["empty", "blank", "punctuation", "han", "accent"])
def test_a_text_without_tokens_is_near_nothing(text: str) -> None:
    """A text of no tokens scores 0 against all, itself included, held or asked for."""
    index = index_of(text, "a b c")

    assert index.nearest(text) == Nearest(None, 0.0)
    assert index.scores("a b c").tolist() == [0.0, 1.0]


def test_an_empty_index() -> None:
    """Nothing held: no nearest, and no scores."""
    index = NoveltyIndex()

    assert index.nearest("a b c") == Nearest(None, 0.0)
    assert index.scores("a b c").shape == (0,)
    assert len(index) == 0


def test_scores_are_in_the_order_of_adding() -> None:
    """One float64 score per held text, in order, and asking changes nothing."""
    index = index_of("a b", "x y", "a y")
    scores = index.scores("a b new words")

    assert scores.dtype == np.float64
    assert scores.tolist() == index.scores("a b new words").tolist()
    assert np.argsort(-scores, kind="stable").tolist() == [0, 2, 1]
    assert len(index) == 3
