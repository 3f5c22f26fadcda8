"""Made-up sections with a title, instructions that ask for them, and what a judge should think of the pair.

The words of titles and texts are drawn at random, so that a model cannot know an instruction from the text's sense: it
has to copy the title's words. What kind of writing a text is shows in its sentences (`sentences.py`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

from embedded import sentences, vocabulary
from embedded.grammar import tidy
from embedded.headers import WORDS, Header, asked, content_words, fill, header

KINDS = ("plain", "open", "blog", "advert", "forum", "navigation", "method", "cut late", "cut early", "mixed")
# How often the writer of instructions meets each kind.
_KIND_WEIGHTS = (0.44, 0.14, 0.12, 0.09, 0.06, 0.02, 0.04, 0.03, 0.02, 0.04)
# What a judge should give each kind, where the text is about what was asked for; "other": about something else.
SCORES = {
    5: ("plain",),
    4: ("open", "lacking"),
    3: ("blog", "personal"),
    2: ("other", "method", "cut late", "mixed"),
    1: ("advert", "forum", "navigation", "cut early"),
}
SCORE_WEIGHTS = {
    "plain": 1.0,
    "open": 0.65,
    "lacking": 0.35,
    "blog": 0.6,
    "personal": 0.4,
    "other": 0.1,
    "method": 0.2,
    "cut late": 0.2,
    "mixed": 0.15,
    "advert": 0.4,
    "forum": 0.3,
    "navigation": 0.1,
    "cut early": 0.2,
}
NOISE = 0.10


@dataclass(frozen=True, slots=True)
class Passage:
    """A section: its header, and a body of one of the kinds."""

    header: Header
    body: str
    kind: str


def _palette(rng: Random, title: str) -> dict[str, Callable[[Random], str]]:
    """Words for one text: some come again and again, the title's among them, as in any text about something."""
    own = [word for word in content_words(title) if word not in vocabulary.PLACES]
    makers = dict(WORDS)
    for name, share in (("thing", 0.2), ("things", 0.1), ("stuff", 0.15)):
        again = [WORDS[name](rng) for _ in range(rng.randint(2, 5))]

        def make(rng: Random, name: str = name, share: float = share, again: Sequence[str] = again) -> str:
            way = rng.random()
            if own and way < share:
                return rng.choice(own)
            return rng.choice(again) if way < 0.7 else WORDS[name](rng)

        makers[name] = make
    return makers


def _parts(rng: Random, of: Header, kind: str) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """Sentences to begin with, to go on with and to end with."""
    told = of.form == "story" or (of.form == "topic" and of.title.startswith(("A ", "The ")) and rng.random() < 0.3)
    steps = of.title.startswith(("How to", "When to")) or of.title.split(" ", 1)[0].endswith("ing")
    if told:
        plain = (sentences.TALES[:2], sentences.TALES, sentences.ENDINGS)
    elif steps:
        plain = (sentences.OPENERS, (*sentences.STEPS, *sentences.STEPS, *sentences.FACTS), sentences.CLOSERS)
    else:
        plain = (sentences.OPENERS, sentences.FACTS, sentences.CLOSERS)
    opening, middle, closing = plain
    pure = {
        "blog": sentences.BLOG,
        "advert": sentences.ADVERTS,
        "forum": sentences.FORUM,
        "navigation": sentences.NAVIGATION,
        "method": sentences.METHOD,
    }
    if kind in pure:
        # Seldom is a text of one kind alone: some plain sentences stand among its own.
        some = middle[: rng.choice((0, 0, 3, 6))] if kind != "method" else ()
        own = pure[kind]
        return own, (*own, *own, *some) if len(own) < 9 else (*own, *some), own
    if kind == "personal":
        return opening, (*middle[:12], *sentences.BLOG), sentences.BLOG
    if kind == "mixed":
        return rng.choice((opening, sentences.BLOG)), (*middle[:9], *sentences.ADVERTS), sentences.ADVERTS
    if kind == "lacking":
        return opening, middle, sentences.LACKS
    return opening, middle, closing if kind not in ("open", "cut late", "cut early") else middle


def body(rng: Random, of: Header, kind: str, natural: Sequence[str], reach: float = 1.0) -> str:
    """A text of that kind under the header; some sentences may be `natural` ones, for the sound of real prose.

    `reach` is the share of the full length; at 0 there are two sentences.
    """
    size = round(reach * rng.choice((rng.randint(150, 500), rng.randint(300, 900), rng.randint(600, 1400))))
    opening, middle, closing = _parts(rng, of, kind)
    makers = _palette(rng, of.title)
    slots = {"s": of.subject} | ({"a": of.act} if of.act in (*vocabulary.STATES, *vocabulary.DEEDS) else {})
    makers["s"] = makers["thing"]
    makers["a"] = WORDS["state"]
    share = rng.choice((0.0, 0.2, 0.5, 0.8)) if kind in ("plain", "open", "cut late", "cut early", "lacking") else 0.0
    lines = [tidy(fill(rng, rng.choice(opening), slots, makers))]
    used: set[str] = set()
    while sum(len(line) + 1 for line in lines) < size:
        pattern = rng.choice(middle)
        if pattern in used and rng.random() < 0.8:
            continue
        used.add(pattern)
        lines.append(rng.choice(natural) if rng.random() < share else tidy(fill(rng, pattern, slots, makers)))
        if len(used) == len(set(middle)):
            used.clear()
    lines.append(tidy(fill(rng, rng.choice(closing), slots, makers)))
    return _cut(rng, _paragraphs(rng, lines), kind)


def _paragraphs(rng: Random, lines: Sequence[str]) -> str:
    """The sentences in one paragraph or several."""
    every = rng.choice((100, 100, 2, 3, 4, 5))
    text = lines[0]
    for number, line in enumerate(lines[1:], 1):
        text += ("\n\n" if number % every == 0 else " ") + line
    return text


def _cut(rng: Random, text: str, kind: str) -> str:
    """A text that stops in the middle of a sentence, late or early; other kinds as they are."""
    if kind not in ("cut late", "cut early"):
        return text
    share = rng.uniform(0.6, 0.95) if kind == "cut late" else rng.uniform(0.1, 0.4)
    kept = text[: max(40, int(len(text) * share))].rsplit(" ", 1)[0].rstrip()
    return re.sub(r"[.,!?;:]+$", "", kept)


def passage(rng: Random, natural: Sequence[str], kind: str | None = None, reach: float = 1.0) -> Passage:
    """A section of a kind, or of any."""
    kind = kind or rng.choices(KINDS, _KIND_WEIGHTS)[0]
    calls = kind in ("blog", "advert", "forum", "navigation", "mixed", "personal") and rng.random() < 0.5
    of = header(rng, "call") if calls else header(rng)
    return Passage(of, body(rng, of, kind, natural, reach), kind)


def judged(rng: Random, natural: Sequence[str], reach: float = 1.0) -> tuple[str, str, int, str]:
    """An instruction, an answer, the score that it should have, and the kind of the answer."""
    score = rng.randint(1, 5)
    kinds = SCORES[score]
    kind = rng.choices(kinds, [SCORE_WEIGHTS[one] for one in kinds])[0]
    answer = passage(rng, natural, rng.choice(("plain", "plain", "open")) if kind == "other" else kind, reach)
    of = header(rng) if kind == "other" else answer.header
    return asked(rng, of.title, of.form), answer.body, score, kind


def noisy(rng: Random, score: int) -> int:
    """The score as a human would give it: now and then one off."""
    if rng.random() < NOISE:
        score += rng.choice((-1, 1))
    return min(5, max(1, score))
