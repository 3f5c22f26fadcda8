"""The rules on an instruction: each refused case beside a neighbour that is kept."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.filters import first_refusal, paper_filters
from pipeline.records import Reason
from pipeline.settings import BLACKLIST, FilterSettings

ALL_ON = paper_filters(FilterSettings())


def reason_of(text: str, **settings: Any) -> Reason | None:
    """Why the filters of these settings refuse `text`, or None."""
    refusal = first_refusal(paper_filters(FilterSettings(**settings)), text)
    return refusal.reason if refusal else None


def words(count: int) -> str:
    """A text of so many words that breaks no other rule."""
    return " ".join(["Word", *["word"] * (count - 1)])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("", Reason.EMPTY, id="empty"),
        pytest.param(words(3), Reason.TOO_SHORT, id="3-words"),
        pytest.param(words(4), None, id="4-words"),
        pytest.param(words(150), None, id="150-words"),
        pytest.param(words(151), Reason.TOO_LONG, id="151-words"),
        pytest.param("Describe the image you see.", Reason.BLACKLISTED_WORD, id="blacklisted"),
        pytest.param("Describe the IMAGE you see.", Reason.BLACKLISTED_WORD, id="blacklisted-in-capitals"),
        pytest.param("Image the town before you.", Reason.BLACKLISTED_WORD, id="blacklisted-at-the-start"),
        pytest.param("Tell what stands in the file", Reason.BLACKLISTED_WORD, id="blacklisted-at-the-end"),
        pytest.param("Read the file, then answer.", Reason.BLACKLISTED_WORD, id="blacklisted-before-a-comma"),
        pytest.param("Sum up the file-system rules.", Reason.BLACKLISTED_WORD, id="blacklisted-before-a-hyphen"),
        pytest.param("Imagine the town before you.", None, id="only-a-part-of-a-word"),
        pytest.param("Write a profile of her.", None, id="only-the-end-of-a-word"),
        pytest.param("Say what a paragraph is.", None, id="graph-inside-paragraph"),
        pytest.param("Go to the next town now.", Reason.BLACKLISTED_WORD, id="two-words"),
        pytest.param("Let it go today, they say.", None, id="two-words-not-whole"),
        pytest.param("Write a program that sorts.", Reason.WRITE_A_PROGRAM, id="write-a-program"),
        pytest.param("WRITE A PROGRAM that sorts.", Reason.WRITE_A_PROGRAM, id="write-a-program-in-capitals"),
        pytest.param("Write a programme for the fair.", Reason.WRITE_A_PROGRAM, id="write-a-programme"),
        pytest.param("Please write a program now.", None, id="write-a-program-later"),
        pytest.param("Write the program of a fair.", None, id="write-the-program"),
        pytest.param("- sort the list below", Reason.PUNCTUATION_FIRST, id="hyphen-first"),
        pytest.param("(sort the list below)", Reason.PUNCTUATION_FIRST, id="bracket-first"),
        pytest.param("~ sort the list below", Reason.PUNCTUATION_FIRST, id="last-of-ascii"),
        pytest.param("7 ways to sort it", None, id="digit-first"),
        pytest.param("Sort the list - now!", None, id="punctuation-later"),
        pytest.param("École is which word?", Reason.NON_ASCII_FIRST, id="non-ascii-first"),
        pytest.param("“Sort” means what here?", Reason.NON_ASCII_FIRST, id="curly-quote-first"),
        pytest.param("Translate école into English.", None, id="non-ascii-later"),
    ],
)
def test_rule(text: str, expected: Reason | None) -> None:
    """Each rule refuses its case and keeps the neighbour on the other side of its boundary."""
    assert expected == reason_of(text)


@pytest.mark.parametrize("word", BLACKLIST)
def test_each_blacklisted_word(word: str) -> None:
    """Every word of the paper's list refuses an instruction, and the refusal names it."""
    refusal = first_refusal(ALL_ON, f"Please {word.upper()} this one now")

    assert refusal == (Reason.BLACKLISTED_WORD, word.upper())


def test_the_list_is_the_papers() -> None:
    """The default list has the thirteen entries of the paper's code."""
    expected = set("image images graph graphs picture pictures file files map maps draw plot".split()) | {"go to"}

    assert expected == set(BLACKLIST)
    assert len(BLACKLIST) == 13


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("", Reason.EMPTY, id="empty-before-short"),
        pytest.param("(Draw é", Reason.TOO_SHORT, id="short-before-the-rest"),
        pytest.param("(image " + words(150), Reason.TOO_LONG, id="long-before-blacklist"),
        pytest.param("Write a program to draw it.", Reason.BLACKLISTED_WORD, id="blacklist-before-prefix"),
        pytest.param("(draw the house now)", Reason.BLACKLISTED_WORD, id="blacklist-before-punctuation"),
        pytest.param("é draw the house now", Reason.BLACKLISTED_WORD, id="blacklist-before-non-ascii"),
    ],
)
def test_order(text: str, expected: Reason) -> None:
    """What breaks several rules is refused by the first in the paper's order."""
    assert expected == reason_of(text)


@pytest.mark.parametrize(
    ("off", "text", "instead"),
    [
        pytest.param({"empty": False}, "", Reason.TOO_SHORT, id="empty"),
        pytest.param({"min_words": 0}, words(3), None, id="min_words"),
        pytest.param({"max_words": 0}, words(151), None, id="max_words"),
        pytest.param({"blacklist": ()}, "Describe the image you see.", None, id="blacklist"),
        pytest.param({"write_a_program": False}, "Write a program that sorts.", None, id="write_a_program"),
        pytest.param({"punctuation_first": False}, "- sort the list below", None, id="punctuation_first"),
        pytest.param({"non_ascii_first": False}, "École is which word?", None, id="non_ascii_first"),
    ],
)
def test_each_rule_can_be_turned_off(off: dict[str, Any], text: str, instead: Reason | None) -> None:
    """With its rule off a text goes on to the next rules."""
    assert reason_of(text) is not None
    assert instead == reason_of(text, **off)


def test_everything_off_keeps_everything() -> None:
    """With every rule off there is no filter left."""
    off = FilterSettings(
        empty=False,
        min_words=0,
        max_words=0,
        blacklist=(),
        write_a_program=False,
        punctuation_first=False,
        non_ascii_first=False,
    )

    assert paper_filters(off) == ()
    assert first_refusal((), "") is None


@pytest.mark.parametrize(
    ("settings", "text", "expected"),
    [
        pytest.param({"min_words": 2}, "Sort", Reason.TOO_SHORT, id="under-own-minimum"),
        pytest.param({"min_words": 2}, "Sort it", None, id="at-own-minimum"),
        pytest.param({"max_words": 5}, words(5), None, id="at-own-maximum"),
        pytest.param({"max_words": 5}, words(6), Reason.TOO_LONG, id="over-own-maximum"),
        pytest.param({"blacklist": ("a.b",)}, "Say a.b to him", Reason.BLACKLISTED_WORD, id="own-word-is-plain-text"),
        pytest.param({"blacklist": ("a.b",)}, "Say axb to him", None, id="own-word-is-no-pattern"),
    ],
)
def test_own_settings(settings: dict[str, Any], text: str, expected: Reason | None) -> None:
    """Bounds and words can be set, and a word is never read as a pattern."""
    assert expected == reason_of(text, **settings)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(words(3), "3 words", id="too-short"),
        pytest.param(words(151), "151 words", id="too-long"),
        pytest.param("(sort the list below)", "(", id="punctuation"),
        pytest.param("École is which word?", "É", id="non-ascii"),
        pytest.param("", "", id="empty"),
    ],
)
def test_detail(text: str, expected: str) -> None:
    """A refusal says which word, number or character did it."""
    refusal = first_refusal(ALL_ON, text)

    assert refusal is not None
    assert expected == refusal.detail
