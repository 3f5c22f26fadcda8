"""What is a segment: a kept and a refused case of each rule, and near duplicates against brute force."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.backtranslation_settings import CorpusSettings
from pipeline.records import Unfit
from pipeline.segment_filters import Duplicates, SegmentFilter, repeats_a_sentence, shingles

ROOT = Path(__file__).resolve().parents[1]


def unfit(header: str | None = None, text: str = "some text", **values: Any) -> Unfit | None:
    """Why a fresh filter refuses a piece; without limits of length unless they are given."""
    return SegmentFilter(CorpusSettings(**{"min_characters": 1, **values})).unfit(header, text)


def words(count: int, seed: int) -> list[str]:
    """Words of a large vocabulary, so that two texts share none by chance."""
    rng = random.Random(seed)
    return [f"w{rng.randrange(10**9)}" for _ in range(count)]


def jaccard(one: str, other: str) -> float:
    """Of the runs of five words of two texts, exactly."""
    a, b = set(shingles(one)), set(shingles(other))
    return len(a & b) / len(a | b)


def altered(text: list[str], share: float, rng: random.Random) -> list[str]:
    """A text with some of its words exchanged."""
    return [f"x{rng.randrange(10**9)}" if rng.random() < share else word for word in text]


# Headers and length


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (None, None),
        ("Getting started", None),
        ("A", None),
        ("1. I", None),
        ("HTTP and you", None),
        ("第一章", None),
        ("你好", None),
        ("", Unfit.HEADER_EMPTY),
        (" ***", Unfit.HEADER_EMPTY),
        ("¶", Unfit.HEADER_EMPTY),
        ("NOTES", Unfit.HEADER_UPPER_CASE),
        ("2. MORE `NOTES`", Unfit.HEADER_UPPER_CASE),
        ("ÄÖ", Unfit.HEADER_UPPER_CASE),
        ("Table of Contents", Unfit.HEADER_NAVIGATIONAL),
        ("1.2 Quick  links:", Unfit.HEADER_NAVIGATIONAL),
        ("*See also* ¶", Unfit.HEADER_NAVIGATIONAL),
        ("See also the guide", None),
        ("Contents of a box", None),
    ],
)
def test_headers(header: str | None, reason: Unfit | None) -> None:
    """Empty, all in upper case, or a name of navigation, case and number aside: refused; others are not."""
    assert unfit(header) == reason
    assert unfit(header, headers=False) is None


def test_own_navigational_headers() -> None:
    """The list is a setting."""
    assert unfit("Zum Menü!", navigational=("zum menü",)) == Unfit.HEADER_NAVIGATIONAL
    assert unfit("Menu", navigational=()) is None


@pytest.mark.parametrize(
    ("length", "reason"), [(599, Unfit.TOO_SHORT), (600, None), (3000, None), (3001, Unfit.TOO_LONG)]
)
def test_length(length: int, reason: Unfit | None) -> None:
    """600 to 3,000 characters are kept, white space around them not counted."""
    filter = SegmentFilter(CorpusSettings())

    assert filter.unfit(None, "  " + "é" * length + "\n\n") == reason


def test_the_order_of_the_filters() -> None:
    """A piece with every fault has the reason of the first rule; only what is kept is held for later ones."""
    filter = SegmentFilter(CorpusSettings(min_characters=10, max_characters=400))
    twice = "This sentence stands here two times over. " * 2
    good = " ".join(words(30, 1))

    assert filter.unfit("MENU", "short") == Unfit.HEADER_UPPER_CASE
    assert filter.unfit("Title", "short") == Unfit.TOO_SHORT
    assert filter.unfit("Title", twice * 9) == Unfit.TOO_LONG
    assert [filter.unfit("Title", twice) for _ in range(2)] == [Unfit.REPEATED_SENTENCES] * 2
    assert filter.unfit("MENU", good) == Unfit.HEADER_UPPER_CASE
    assert filter.unfit("Title", good) is None
    assert filter.unfit("Other", good.replace(" ", "\n ")) == Unfit.DUPLICATE
    assert filter.unfit("Other", good + " more") == Unfit.NEAR_DUPLICATE
    assert filter.unfit("MENU", good) == Unfit.HEADER_UPPER_CASE


# Repetition


@pytest.mark.parametrize(
    ("text", "repeats"),
    [
        ("The cat sat on the old mat. The dog ran over the wide hill.", False),
        ("The cat sat on the old mat. A line between. The cat sat on the old mat.", True),
        ("THE CAT sat on\nthe old mat! Then: the cat sat on the old mat, too.", False),
        ("THE CAT sat on\nthe old mat! The cat, sat on the old mat?", True),
        ("Yes it is. Yes it is. Yes it is.", False),
        ("- one two three four five six\n- one two three four five six\n", True),
        ("```\none two three four five six\none two three four five six.\n```\n", False),
        ("~~~\na b c d e f. a b c d e f.\n", False),
        ("今天天气很好我们去公园。明天下雨。今天天气很好我们去公园。", True),
        ('<Listing name="a" file="src/main.rs" at="b">\n\nx\n\n<Listing name="a" file="src/main.rs" at="b">', False),
        ("", False),
    ],
)
def test_repeated_sentences(text: str, repeats: bool) -> None:
    """Sentences of six words or more that recur, outside code and tags; in any script."""
    assert repeats_a_sentence(text, 0.8) == repeats
    assert not text or unfit(text=text, repeated_sentences=0.0) is None


SENTENCES = st.lists(st.lists(st.sampled_from("abcdefgh"), min_size=6, max_size=12), min_size=2, max_size=6)


@given(SENTENCES, st.sampled_from([0.2, 0.5, 0.8, 1.0]))
@settings(max_examples=400, deadline=None)
def test_repetition_is_that_of_all_pairs(sentences: list[list[str]], threshold: float) -> None:
    """The comparison that skips pairs finds what comparing all pairs finds, at any threshold."""
    sets = [set(zip(one, one[1:], one[2:], strict=False)) for one in sentences]
    pairs = [(a, b) for place, a in enumerate(sets) for b in sets[:place]]
    expected = any(len(a & b) / len(a | b) >= threshold - 1e-12 for a, b in pairs)

    assert repeats_a_sentence(". ".join(map(" ".join, sentences)), threshold) == expected


def test_repetition_in_a_long_text_is_found_quickly() -> None:
    """20,000 sentences that share a phrase, and no two alike, take seconds."""
    text = " ".join(f"As is well known here {' '.join(words(8, n))}." for n in range(20_000))
    began = time.monotonic()

    assert not repeats_a_sentence(text, 0.8)
    assert time.monotonic() - began < 15


# Duplicates


def test_exact_duplicates() -> None:
    """White space does not count, case does; each kind can be turned off."""
    exact = Duplicates(True, 0)

    assert [exact.unfit(text) for text in ("a b", " a\n b ", "A b")] == [None, Unfit.DUPLICATE, None]
    assert [Duplicates(False, 0).unfit("a b") for _ in range(2)] == [None, None]
    near = Duplicates(False, 0.8)
    assert [near.unfit(text) for text in ("a b", "A, b!")] == [None, Unfit.NEAR_DUPLICATE]


@pytest.mark.parametrize("threshold", [0.5, 0.7, 0.8, 0.9])
def test_near_duplicates_are_those_of_brute_force(threshold: float) -> None:
    """Of pairs well above the threshold nearly all are refused, and none well below; an estimate decides in between."""
    rng = random.Random(7)
    above = missed = below = wrong = 0
    for seed in range(700):
        one = words(rng.randrange(100, 400), seed)
        text, other = " ".join(one), " ".join(altered(one, rng.choice([0.005, 0.01, 0.03, 0.06, 0.1]), rng))
        duplicates = Duplicates(False, threshold)
        assert duplicates.unfit(text) is None
        refused = duplicates.unfit(other) == Unfit.NEAR_DUPLICATE
        true = jaccard(text, other)
        if true >= min(threshold + 0.12, 1):
            above, missed = above + 1, missed + (not refused)
        elif true <= threshold - 0.12:
            below, wrong = below + 1, wrong + refused

    assert min(above, below) > 30
    assert missed <= 0.02 * above
    assert wrong <= 0.01 * below


def test_one_near_duplicate_among_many() -> None:
    """Each of a thousand altered copies is found among three thousand others, and no other text is refused."""
    rng = random.Random(3)
    held = [words(250, seed) for seed in range(3000)]
    duplicates = Duplicates(True, 0.8)
    assert {duplicates.unfit(" ".join(text)) for text in held} == {None}
    found = [duplicates.unfit(" ".join(altered(text, 0.004, rng))) for text in held[:1000]]

    assert sum(reason is not None for reason in found) > 990
    assert {duplicates.unfit(" ".join(words(250, seed))) for seed in range(5000, 6000)} == {None}


def test_copies_of_copies_are_held_apart() -> None:
    """Only what is kept is compared with: a text near a refused one, but not near a kept one, is kept."""
    base = words(200, 1)
    near = [*base[:190], *words(10, 2)]
    far = [*words(60, 3), *near[60:]]
    duplicates = Duplicates(True, 0.8)

    assert duplicates.unfit(" ".join(base)) is None
    assert duplicates.unfit(" ".join(near)) == Unfit.NEAR_DUPLICATE
    assert duplicates.unfit(" ".join(far)) is None


def test_decisions_are_the_same_in_any_process() -> None:
    """Texts near the threshold are judged alike in processes with other hash seeds."""
    code = (
        "import random\n"
        "from pipeline.segment_filters import Duplicates\n"
        "rng, duplicates, told = random.Random(5), Duplicates(True, 0.8), ''\n"
        "for n in range(300):\n"
        "    words = [str(rng.randrange(10**9)) for _ in range(150)]\n"
        "    for _ in range(2):\n"
        "        told += '01'[duplicates.unfit(' '.join(words)) is None]\n"
        "        words[20] = words[60] = words[100] = 'x'\n"
        "print(told)"
    )
    told = [
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]

    assert told[0] == told[1]
    assert 350 < told[0].count("1") < 580


def test_memory_is_what_is_stated() -> None:
    """20,000 held segments take no more than the bytes that the docstring states."""
    code = (
        "from pipeline.segment_filters import Duplicates\n"
        "def size():\n"
        "    return int(open('/proc/self/statm').read().split()[1]) * 4096\n"
        "duplicates = Duplicates(True, 0.8)\n"
        "duplicates.unfit('to load all there is to load')\n"
        "before = size()\n"
        "for n in range(20_000):\n"
        "    assert duplicates.unfit(' '.join(f'{n}x{m}' for m in range(30))) is None\n"
        "print((size() - before) / 20_000)"
    )
    told = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )

    assert 500 < float(told.stdout) < 2200, told.stderr
