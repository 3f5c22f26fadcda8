"""Choices that are weighed in one decoding step: which token each of them is, and how probable it was.

An engine that has the tokenizer constrains the step to the tokens of the choices, and reads their probabilities from
before the constraint (`find_step`). An endpoint tells the most probable tokens of an unconstrained answer, in which
the choices are looked for (`read_positions`, `weigh`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

# What may stand around a choice; the last two are a space as some tokenizers write it, and some servers leave it.
_BLANK = " \t\r\n▁Ġ"


class Step(NamedTuple):
    """How to write a lead so that each choice after it is one token.

    `gap` follows the lead: "" where a choice's token begins with the space, else " ". `token_ids` are the choices'.
    """

    gap: str
    token_ids: tuple[int, ...]


def find_step(tokenizer: Any, lead: str, choices: Sequence[str]) -> Step:
    """The step after a lead, for a tokenizer of transformers (or vLLM).

    Raises ValueError, in one sentence, where a choice is not one token there.
    """

    def encode(text: str) -> list[int]:
        ids: list[int] = tokenizer.encode(text, add_special_tokens=False)
        return ids

    for gap, space in (("", " "), (" ", "")) if lead else (("", ""),):
        before = encode(lead + gap)
        written = [encode(lead + gap + space + choice) for choice in choices]
        token_ids = tuple(ids[-1] for ids in written if ids[:-1] == before)
        if len(set(token_ids)) == len(choices):  # one that is not known has the token of all such
            return Step(gap, token_ids)
    raise ValueError(
        f"the model's tokenizer does not write each of {', '.join(choices)} as one token after {lead!r}, so that they "
        "cannot be weighed in one step"
    )


class Position(NamedTuple):
    """One place of an answer: the token that stands there, and the probabilities of the most probable ones by text."""

    chosen: str
    top: Mapping[str, float]


def read_positions(logprobs: Any) -> tuple[Position, ...]:
    """The positions in an OpenAI-compatible answer's `logprobs`, of a chat or a text; none where it holds none."""
    try:
        if "content" in logprobs:
            return tuple(
                Position(each["token"], _chances((one["token"], one["logprob"]) for one in each["top_logprobs"]))
                for each in logprobs["content"]
            )
        pairs = zip(logprobs["tokens"], logprobs["top_logprobs"], strict=True)
        return tuple(Position(token, _chances(top.items())) for token, top in pairs)
    except (TypeError, ValueError, LookupError, AttributeError):
        return ()


def _chances(tokens: Any) -> dict[str, float]:
    """Probabilities by text. Of two tokens with one text (halves of characters) it is that of the first, the larger."""
    found: dict[str, float] = {}
    for text, logprob in tokens:
        found.setdefault(text, math.exp(min(logprob, 0.0)))
    return found


def weigh(positions: Sequence[Position], choices: Sequence[str], lead: str = "") -> tuple[float, ...]:
    """The probability that an answer gives each of the choices, in their order.

    That is what its first position gives to tokens that are a choice but for white space. Where the token chosen there
    is white space, or the answer begins with the lead, what follows counts too, by the probability of coming there.
    """
    found = dict.fromkeys(choices, 0.0)
    written, reached = "", 1.0
    for position in positions:
        for text, chance in position.top.items():
            if (choice := text.strip(_BLANK)) in found:
                found[choice] += reached * chance
        written += position.chosen
        if not lead.startswith(written.strip(_BLANK)):
            break
        reached *= position.top.get(position.chosen, 0.0)
    return tuple(found.values())


def most_probable(choices: Sequence[str], probabilities: Sequence[float]) -> str:
    """The choice with the highest probability; of equal ones the first."""
    return max(zip(choices, probabilities, strict=True), key=lambda each: each[1])[0]
