"""Longer texts, each with an instruction that asks for it: what backtranslation and its judge read."""

from __future__ import annotations

from random import Random

from embedded import words
from embedded.frames_prose import STORY, compose
from embedded.grammar import Slots, expand, tidy


def passage(rng: Random) -> tuple[str, str]:
    """A text of up to about 1,500 characters, and an instruction that asks for it."""
    if rng.random() < 0.5:
        name, sentence = rng.choice(words.CONCEPTS)
        filler = (
            "{audience} [meets|notices] it [every day|now and then].",
            "[In school|At work|At home], people speak of {concept} [often|without knowing it].",
            "[An example|A good case] can be seen in {place}.",
            "[It|This] matters for {matter}, too.",
            "{name} [wrote a book|gave a talk] about {concept}.",
            "[Many|Few] [people|books] [get|explain] it [right|wrong].",
        )
        body = compose(rng, {"concept": name}, tuple(rng.choices(filler, k=rng.randint(1, 16))))
        asked = expand(
            rng,
            "[Explain {concept} to {audience}|What is {concept}?|Write a [text|page|short article] about "
            "{concept}|Describe "
            "{concept} [with examples|in your own words]]",
            {"concept": name},
            {},
        )
        text = f"{sentence} {body}"
    else:
        slots: Slots = {}
        lines = (*STORY[:1], *(rng.choice(STORY[1:]) for _ in range(rng.randint(1, 14))))
        text = compose(rng, slots, lines)
        asked = expand(rng, "[Write|Tell|Compose] a [short|long|quiet|] story about {subject}", dict(slots), {})
    return text[:1500], tidy(asked if asked.endswith("?") else asked + ".")
