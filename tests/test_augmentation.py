"""The instruction of an answer and the rules on it: a collection of replies, single rules, and text of any kind."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline import augmentation
from pipeline.augmentation import WordRuns, has_several, parse_instruction, refusal, word_runs
from pipeline.backtranslation_settings import AugmentationSettings
from pipeline.filters import Refusal
from pipeline.prompting import load_template, shipped_text
from pipeline.records import Reason

REPLIES = [
    json.loads(line)
    for line in Path(__file__).with_name("augmentation_replies.jsonl").read_text(encoding="utf-8").split("\n")
    if line
]
TEXTS = {
    "bread": "A loaf that spreads out flat in the oven has most often risen for too long: the gluten can no longer "
    "hold the gas. Shape the next one tighter, let it rise in the cold, and put it into a hotter oven.",
    "code": "A vector keeps its items side by side in memory. A queue of the standard library grows at either end, and "
    "is the better choice where items come in at one end and leave at the other.",
}
SETTINGS = AugmentationSettings()
NO_RUNS: WordRuns = frozenset()


def prompt_runs(style: str) -> WordRuns:
    """The runs of words of the shipped prompt."""
    return word_runs(load_template("augmentation", style=style).own_texts, SETTINGS.echo_words)


def judged(instruction: str, text: str = "", *, truncated: bool = False, **values: int) -> Refusal | None:
    """The verdict of the rules where the prompt has no words of its own."""
    own = AugmentationSettings(**values)
    return refusal(instruction, text, settings=own, prompt_runs=NO_RUNS, truncated=truncated)


@pytest.mark.parametrize("reply", REPLIES, ids=lambda reply: reply["name"])
def test_reply(reply: dict[str, Any]) -> None:
    """Each reply of the collection gives the instruction, and the reason, that are written down with it."""
    instruction = parse_instruction(reply["reply"], chat=reply["style"] == "chat")
    verdict = refusal(
        instruction,
        TEXTS[reply["text"]],
        settings=SETTINGS,
        prompt_runs=prompt_runs(reply["style"]),
        truncated=reply["finish_reason"] == "length",
    )

    assert instruction == reply["instruction"]
    assert (verdict.reason if verdict else None) == reply["reason"], verdict
    if "detail" in reply:
        assert verdict is not None
        assert verdict.detail == reply["detail"]


def test_the_collection_is_large_enough() -> None:
    """The collection has many replies, both styles and every reason, each reply under a name of its own."""
    assert len(REPLIES) >= 80
    assert len({reply["name"] for reply in REPLIES}) == len(REPLIES)
    assert {reply["style"] for reply in REPLIES} == {"chat", "completion"}
    assert {reply["reason"] for reply in REPLIES} == {
        None,
        Reason.EMPTY,
        Reason.TOO_LONG,
        Reason.REFUSAL,
        Reason.SEVERAL_INSTRUCTIONS,
        Reason.ECHOES_PROMPT,
        Reason.ECHOES_TEXT,
        Reason.REFERS_TO_TEXT,
    }


@pytest.mark.parametrize("chat", [True, False])
def test_the_seeds_pass(chat: bool) -> None:
    """Every shipped seed without an input comes back as it was written, and no rule refuses it."""
    seeds = [json.loads(line) for line in shipped_text("seeds.jsonl").splitlines()]
    alone = [seed["instruction"] for seed in seeds if not any(pair["input"] for pair in seed["instances"])]

    assert len(alone) > 50
    for instruction in alone:
        assert parse_instruction(instruction, chat=chat) == instruction
        assert judged(instruction) is None, instruction


# Rules


def test_max_tokens() -> None:
    """An answer cut at max_tokens is refused as too long, and the detail says what cut it."""
    verdict = judged("Explain why bread", truncated=True)

    assert verdict == Refusal(Reason.TOO_LONG, "cut at augmentation.sampling.max_tokens = 256")


def test_nothing_cut_off_is_empty() -> None:
    """An answer that was cut before it held anything is empty: the first rule that fits gives the reason."""
    assert judged("", truncated=True) == Refusal(Reason.EMPTY)


def test_max_words() -> None:
    """Exactly max_words pass, one more is too long."""
    assert judged("Explain bread to me.", max_words=4) is None
    assert judged("Explain bread to me now.", max_words=4) == Refusal(Reason.TOO_LONG, "5 words")


def test_echo_words() -> None:
    """So many words in a row from the text are an echo, one fewer are not; marks and case between them are nothing."""
    text = "Shape it tighter, then let it rise."

    assert judged("Why: shape it TIGHTER then?", text, echo_words=5) is None
    assert judged("Why: shape it TIGHTER then - let go?", text, echo_words=5) == Refusal(
        Reason.ECHOES_TEXT, "shape it tighter then let"
    )


def test_runs_do_not_cross_variables() -> None:
    """Words of the prompt on two sides of a variable are no run: what stood between them is not the prompt's own."""
    assert word_runs(["one two", "three four"], 3) == frozenset()
    assert word_runs(["One's two, three"], 3) == {("one's", "two", "three")}


def test_prompt_before_text() -> None:
    """What echoes both the prompt and the text is put down to the prompt."""
    runs = word_runs(["bake the bread"], 3)
    own = AugmentationSettings(echo_words=3)
    verdict = refusal("Bake the bread", "bake the bread", settings=own, prompt_runs=runs, truncated=False)

    assert verdict == Refusal(Reason.ECHOES_PROMPT, "bake the bread")


def test_the_words_that_refer() -> None:
    """The detail holds the words that refer to a text."""
    assert judged("Please summarize the passage above.") == Refusal(Reason.REFERS_TO_TEXT, "the passage above")


# Text of any kind

MARKS = "1. ¦2) ¦- ¦> ¦**¦*¦_¦`¦```¦\n```\n¦~~~¦\"¦“¦”¦'¦## ¦\n¦\r\n¦\n\n¦---¦========¦:¦?¦ ".split("¦")
WORDS = (
    "Instruction:¦Instruction 2:¦Sure! ¦Here is an instruction:¦Option A: ¦Text:¦Answer:¦This instruction "
    "asks¦Or:¦Note: the text¦<instruction>¦</instruction>¦write¦the passage above¦According to the author,¦the "
    "following text¦I can't help"
).split("¦")
PIECES = st.one_of(st.sampled_from(MARKS), st.sampled_from(WORDS), st.text(max_size=5))
ANY_TEXT = st.one_of(st.text(), st.lists(PIECES, max_size=25).map("".join))


def words_of(text: str) -> list[str]:
    """Runs of letters and digits."""
    return re.findall(r"[^\W_]+", text)


@given(text=ANY_TEXT, chat=st.booleans())
@settings(max_examples=600, deadline=None)
def test_parsing_any_text(text: str, chat: bool) -> None:
    """Parsing returns on any text, leaves what it returned as it is, and only ever takes away."""
    instruction = parse_instruction(text, chat=chat)

    assert instruction == instruction.strip()
    assert parse_instruction(instruction, chat=chat) == instruction
    given_words = iter(words_of(text))
    assert all(word in given_words for word in words_of(instruction))


@given(instruction=ANY_TEXT, text=ANY_TEXT, truncated=st.booleans())
@settings(max_examples=300, deadline=None)
def test_rules_on_any_text(instruction: str, text: str, truncated: bool) -> None:
    """The rules return on any text: nothing, or a reason of theirs."""
    verdict = judged(instruction, text, truncated=truncated)

    assert verdict is None or isinstance(verdict.reason, Reason)
    assert has_several(instruction) in (True, False)


@pytest.mark.parametrize("reference", augmentation._REFERENCES, ids=lambda one: one[1].pattern[:40])
def test_what_matches_a_reference_holds_a_word_it_needs(
    reference: tuple[frozenset[str], re.Pattern[str], bool],
) -> None:
    """The shortcut past an expression for references passes no text that it would match."""
    needs, pattern, _ = reference

    @settings(max_examples=100, suppress_health_check=list(HealthCheck), deadline=None)
    @given(st.from_regex(pattern, alphabet=st.characters(codec="ascii")))
    def holds(text: str) -> None:
        assert any(word in text.lower() for word in needs)

    holds()


@given(st.text(st.sampled_from("abZ09 _-'’.éİK"), max_size=20))
def test_words_are_those_of_the_expression(text: str) -> None:
    """The words of a text in ASCII are cut as those of any other."""
    assert augmentation._words(text) == augmentation._WORD.findall(text.lower().replace("’", "'"))
