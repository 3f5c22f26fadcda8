"""The rules on an instruction: each refused case beside a neighbour that is kept."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.filters import first_refusal, is_refusal, paper_filters
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


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry, but I can't help with that.",
        "I’m sorry, but I can’t help with that.",
        "I am very sorry but I cannot assist you.",
        "I'm afraid I can't help you with this.",
        "I'm sorry, I can't translate this without knowing the language.",
        "Sorry, I can't do that.",
        "Sorry, but I cannot open the link that you sent.",
        "Unfortunately, I cannot access the internet, so here is a guess.",
        "Unfortunately, I am not able to complete this task.",
        "I apologize, but I cannot generate a text of that kind.",
        "I apologise, but I don't feel comfortable writing about a real person.",
        "My apologies, but I do not have access to current prices.",
        "I cannot assist with getting into an account that is not yours.",
        "I can't provide instructions for picking a lock.",
        "I won't be able to help with that.",
        "I will not participate in a discussion of my colleagues.",
        "I am unable to fulfill this request.",
        "I'm not allowed to discuss that topic.",
        "I can not offer legal advice.",
        "I can't create harmful content.",
        "I can't help you write a fake reference.",
        "As an AI language model, I don't have a favourite colour.",
        "As an AI, I cannot taste food, but many people like it salty.",
        "As a large language model, I am unable to look out of the window.",
        "I'm sorry, but as an AI assistant I have no birthday.",
        "As an artificial intelligence, I do not hold opinions.",
        "As a language model, I have no hands.",
        "I'm sorry, as an AI I don't eat.",
        "I can't complete your task, or discuss the request.",
        "I can't discuss your request.",
        "As an AI assistant, I don't vote.",
        "I'm really sorry, but I can't help with such requests.",
        "I'm so sorry, but I cannot answer any questions about her.",
        "I'm sorry, but I can't help.",
        "Sorry, I can't help you!",
        "I cannot answer the question without the table.",
        "I can't process your question as it stands.",
        "I am not able to complete the task.",
        "I can't discuss the request of another user.",
        "I won't write such a letter, or create that poster.",
        "I can't create any likeness of a child.",
        "I can't help create a false alibi.",
        "I cannot help with creating a false alibi.",
        "I can't help with writing a threat.",
        "I cannot engage in arguments of this kind.",
        "I can't write explicit material.",
        "I cannot produce content about him.",
        "I can't share private information.",
        "I won't give instructions for that.",
        "I'm sorry, but I can't write a review of a lamp that I have not used.",
        "I'm sorry, I cannot produce the report, as no figures were sent.",
        "Sorry, I can't write about people I know nothing of.",
        "I'm sorry, but I can't create the menu without prices.",
        "I'm sorry, but I can't browse the web.",
        "I'm sorry, but I cannot view images.",
        "I'm sorry, but I can't see the image, or open the file.",
        "Unfortunately, I can't open the file.",
        "Unfortunately, I cannot browse websites.",
        "Unfortunately, I can't access external systems.",
        "Sorry, I can't open links.",
        "Sorry, I can't see files.",
        "I'm sorry, I don't have the ability to hear.",
        "I'm sorry, but I do not have enough information for this.",
        "  \n**I'm sorry**, but I can't\nhelp with that.",
        "> *I cannot comply with this.*",
        "I CANNOT ASSIST WITH THAT.",
        " " * 500 + "I cannot assist with that.",
    ],
)
def test_an_answer_that_declines_is_a_refusal(text: str) -> None:
    """Each opening by which assistants decline is known, in either spelling of its apostrophe and under emphasis."""
    assert is_refusal(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "I can't wait to see you!",
        "I'm sorry to hear that you are unwell, and hope that the soup helps.",
        "I'm sorry, but I can't come to your party on Saturday.",
        "I'm sorry, but I can't write more tonight.",
        "I'm sorry, I can't help worrying about the exam.",
        "Sorry for the late reply.",
        "Sorry, I can't make it on Friday.",
        "Unfortunately, I cannot attend the wedding.",
        "Unfortunately, I cannot access my account since Monday.",
        "I apologize for the delay in sending the invoice.",
        "I apologize, but I will not be able to pay before June.",
        "I apologize, but I do not have your new address.",
        "I am unable to attend the meeting.",
        "As an AI researcher, I cannot stress this enough.",
        "As an airline, we are unable to provide a refund.",
        "As an AI language model, I can write you a poem: the sea is wide.",
        "I cannot tell a lie, said George.",
        "I can't provide for three children on this wage.",
        "I can't help with the dishes tonight.",
        "I can't create art without music.",
        "I cannot answer all of your letters.",
        "I do not have access to the cellar, so please leave the key.",
        '"I cannot assist with that," said the robot, and rolled away.',
        "She wrote: I'm sorry, but I can't help with that.",
        "No. I cannot assist with that.",
        "Lo siento, pero no puedo ayudar con eso.",
    ],
)
def test_what_only_begins_like_a_refusal_is_none(text: str) -> None:
    """Letters, stories and people of other trades keep their text; only the beginning counts, in English."""
    assert not is_refusal(text)
