"""The paper's rules on an instruction: cheap, in its order, each with its own reason.

A filter is a function from the instruction's text to a Refusal, or None. Novelty, the last rule, is not here: it needs
the pool, and the gate applies it.
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Sequence
from typing import NamedTuple

from pipeline.errors import InputError
from pipeline.records import Reason
from pipeline.settings import FilterSettings


class Refusal(NamedTuple):
    """Why a text was refused; `detail` holds the word or number that did it."""

    reason: Reason
    detail: str = ""


Filter = Callable[[str], Refusal | None]
OwnFilter = Callable[[str], str | None]
"""A rule given from Python: None keeps an instruction, a few words refuse it."""


def paper_filters(settings: FilterSettings) -> tuple[Filter, ...]:
    """The filters that are on, in the paper's order (upstream's stage A, steps 4 to 9)."""
    filters: list[Filter] = []
    if settings.empty:
        filters.append(lambda text: None if text else Refusal(Reason.EMPTY))
    if settings.min_words:
        filters.append(_too_short(settings.min_words))
    if settings.max_words:
        filters.append(_too_long(settings.max_words))
    if settings.blacklist:
        filters.append(_blacklisted(settings.blacklist))
    if settings.write_a_program:
        filters.append(
            lambda text: Refusal(Reason.WRITE_A_PROGRAM) if text.lower().startswith("write a program") else None
        )
    if settings.punctuation_first:
        filters.append(lambda text: Refusal(Reason.PUNCTUATION_FIRST, text[0]) if text[:1] in _PUNCTUATION else None)
    if settings.non_ascii_first:
        filters.append(lambda text: None if text[:1].isascii() else Refusal(Reason.NON_ASCII_FIRST, text[0]))
    return tuple(filters)


def own_filter(rule: OwnFilter) -> Filter:
    """A rule given from Python as a filter; its words become the detail."""

    def check(text: str) -> Refusal | None:
        why = rule(text)
        if why is not None and not isinstance(why, str):
            name = getattr(rule, "__qualname__", repr(rule))
            raise InputError(
                f"the filter {name} returned {why!r}: it must return None to keep a text, or words why not"
            )
        return None if why is None else Refusal(Reason.OWN_FILTER, why)

    return check


def first_refusal(filters: Sequence[Filter], text: str) -> Refusal | None:
    """The verdict of the first filter that refuses `text`, or None."""
    for check in filters:
        if refusal := check(text):
            return refusal
    return None


_PUNCTUATION = frozenset(string.punctuation)


def _too_short(fewest: int) -> Filter:
    def check(text: str) -> Refusal | None:
        words = len(text.split())
        return Refusal(Reason.TOO_SHORT, f"{words} words") if words < fewest else None

    return check


def _too_long(most: int) -> Filter:
    def check(text: str) -> Refusal | None:
        words = len(text.split())
        return Refusal(Reason.TOO_LONG, f"{words} words") if words > most else None

    return check


def _blacklisted(words: Sequence[str]) -> Filter:
    pattern = re.compile(r"(?<!\w)(?:" + "|".join(map(re.escape, words)) + r")(?!\w)", re.IGNORECASE)

    def check(text: str) -> Refusal | None:
        found = pattern.search(text)
        return Refusal(Reason.BLACKLISTED_WORD, found[0]) if found else None

    return check


# Letters and stories have their own "I'm sorry, but I can't", so the apology alone says nothing: what counts is that an
# assistant's work is declined. After an apology more verbs do.
_APOLOGY = r"(?:(?:i'm|i am) (?:(?:very|so|really) )?(?:sorry|afraid)|sorry|i apologi[sz]e|my apologies|unfortunately)"
_AN_AI = r"as an? (?:ai|artificial intelligence|(?:large )?language model)(?: language)?(?: model| assistant)?"
_CANNOT = r"i(?:(?:'m| am) (?:unable|not able|not allowed) to| (?:can't|cannot|can not|won't|will not)(?: be able to)?)"
_THAT = r"(?:that|this|such|any|your (?:request|question|task)|the (?:request|question|task))\b"
_WORK = (
    rf"(?:assist\b|help (?:you )?(?:with (?:{_THAT}|creating|writing)|create|write)|comply\b|fulfil|provide\b(?! for)"
    rf"|generate\b|engage in\b|participate in\b|do that\b|(?:answer|complete|process|discuss|create|write) {_THAT}"
    r"|(?:create|write|produce|share|offer|give) (?:\w+ )?(?:content|material|instructions|information|advice)\b"
    r"|access (?:real-time|live|current|external|the internet|the web)\b)"
)
_WORK_AFTER_APOLOGY = (
    r"(?:help(?: you)?(?: with this)?[.!,]|(?:create|write|produce|translate|summari[sz]e) (?:an?|the|this|about)\b"
    r"|(?:access|open|browse|view|see) (?:the (?:internet|web|link|file|image)|external|links|files|images|websites))"
)
_REFUSAL = re.compile(
    rf"(?:{_APOLOGY},?(?: but)? )?(?:{_AN_AI},? )?{_CANNOT} {_WORK}"
    rf"|{_APOLOGY},?(?: but)? {_CANNOT} {_WORK_AFTER_APOLOGY}"
    rf"|{_APOLOGY},?(?: but)? i (?:don't|do not) (?:have (?:access|the ability|enough information)|feel comfortable)"
    rf"|(?:{_APOLOGY},?(?: but)? )?{_AN_AI},? (?:{_CANNOT}|i (?:don't|do not|have no)) "
    rf"|(?:{_APOLOGY},?(?: but)? )?i (?:must|have to) (?:respectfully )?decline\b"
    # It asks for an input that its task was to have.
    r"|(?:(?:sure|certainly|of course)[,.!]? )?(?:please|could you(?: please)?|can you(?: please)?) "
    r"(?:provide|share|paste|send)[^.!?]{0,120}\b(?:you(?:'d| would)? (?:like|want) me to|so (?:that )?i can)\b"
)
_ANSWERS = re.compile(r"\b(?:but|however|that said)\b[^.!?]{0,40}\bhere (?:is|are)\b")


def is_refusal(text: str) -> bool:
    """Whether an answer declines its task: "I'm sorry, but I can't help with that." English only.

    An answer that then asks for its input ("Please provide the text you would like me to ...") is one too. Only the
    beginning is looked at, and in doubt it is no refusal: one that slips through is a poor row, while a letter
    that begins "I'm sorry, but I can't come" is a good one.
    """
    beginning = " ".join(text.lstrip()[:400].lower().replace("’", "'").replace("*", "").split())
    return _REFUSAL.match(beginning.lstrip("_># ")) is not None and not _ANSWERS.search(beginning)
