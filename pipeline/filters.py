"""The paper's rules on an instruction: cheap, in its order, each with its own reason.

A filter is a function from the instruction's text to a Refusal, or None. Novelty, the last rule, is not here: it needs
the pool, and the gate applies it.
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Sequence
from typing import NamedTuple

from pipeline.records import Reason
from pipeline.settings import FilterSettings


class Refusal(NamedTuple):
    """Why a text was refused; `detail` holds the word or number that did it."""

    reason: Reason
    detail: str = ""


Filter = Callable[[str], Refusal | None]


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
