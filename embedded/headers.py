"""Headers of made-up sections, and the instructions that ask for what stands under them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random

from embedded import vocabulary
from embedded.grammar import tidy

_CHOICE = re.compile(r"\[([^\[\]]*)\]")
_SLOT = re.compile(r"\{(\w+)\}")
Makers = Mapping[str, Callable[[Random], str]]

WORDS: Makers = {
    "thing": vocabulary.thing,
    "things": lambda rng: vocabulary.plural(vocabulary.thing(rng)),
    "stuff": vocabulary.stuff,
    "state": lambda rng: rng.choice(vocabulary.STATES),
    "states": lambda rng: vocabulary.third(rng.choice(vocabulary.STATES)),
    "do": lambda rng: rng.choice(vocabulary.DEEDS),
    "does": lambda rng: vocabulary.third(rng.choice(vocabulary.DEEDS)),
    "doing": lambda rng: vocabulary.doing(rng.choice(vocabulary.DEEDS)),
    "quality": lambda rng: rng.choice(vocabulary.QUALITIES),
    "place": lambda rng: rng.choice(vocabulary.PLACES),
    "name": lambda rng: rng.choice(vocabulary.NAMES),
}

CLAUSES = (
    "Why {things} {state}",
    "Why {things} are {quality}",
    "Why {stuff} {states}",
    "Why {stuff} is {quality}",
    "Why {quality} {things} {state}",
    "Why {things} {state} in the {place}",
    "Why {things} have {things}",
    "Why we {do} {things}",
    "Why the {thing} is {quality}",
    "Why a {thing} {states}",
    "Why a {thing} needs {stuff}",
    "How {things} {state}",
    "How {stuff} {states}",
    "How {things} {do} {things}",
    "How {things} {do} their {things}",
    "How a {thing} {states}",
    "How a {thing} {does} the {thing}",
    "How a {thing} works",
    "How {stuff} is made",
    "How {things} are made",
    "How the {thing} {does} {stuff}",
    "How to {do} {things}",
    "How to {do} a {thing}",
    "How to {do} a {quality} {thing}",
    "How to {do} {stuff}",
    "How to {do} {stuff} with a {thing}",
    "How to {do} and {do} {things}",
    "What {things} eat",
    "What {things} do in the {place}",
    "What a {thing} is for",
    "What makes {stuff} {quality}",
    "What makes a {thing} {state}",
    "What is in {stuff}",
    "What the {thing} tells us",
    "Where {things} come from",
    "Where {stuff} comes from",
    "Where {things} go in the {place}",
    "When to {do} {things}",
    "When to {do} the {thing}",
)
TOPICS = (
    "{Doing} {things}",
    "{Doing} {stuff}",
    "{Doing} a {thing}",
    "{Doing} {things} in the {place}",
    "{Doing} {quality} {things}",
    "{Doing} {stuff} for a {thing}",
    "{Doing} without {stuff}",
    "{Things} in the {place}",
    "{Things} and {things}",
    "{Stuff} and {stuff}",
    "{Stuff} in the {place}",
    "{Stuff} from {things}",
    "{Quality} {things}",
    "{Quality} {things} for the {place}",
    "The {thing} and its {things}",
    "The parts of a {thing}",
    "The life of a {thing}",
    "The work of a {thing}",
    "The {things} of the {place}",
    "The first {things}",
    "The history of {stuff}",
    "The use of {things}",
    "A {thing} of {stuff}",
    "A {quality} {thing} for the {place}",
    "A simple {thing}",
    "A {thing} from old {things}",
    "Kinds of {stuff}",
    "Kinds of {things}",
    "Our {thing} in the {place}",
    "My {quality} {thing}",
)
STORIES = (
    "The {thing} that would not {state}",
    "The {quality} {thing}",
    "The {quality} {thing} of the {place}",
    "The {thing} and the {thing}",
    "The {thing} in the {place}",
    "The {thing} under the {thing}",
    "The day the {thing} {states}",
    "The night of the {things}",
    "The last {thing}",
    "The secret of the {thing}",
    "A {thing} for {name}",
    "A {thing} in the {place}",
    "A {quality} {thing}",
    "A walk to the {thing}",
    "A night in the {thing}",
    "{name} and the {thing}",
    "{name} and the {quality} {thing}",
    "{name} finds a {thing}",
    "Two {things} and a {thing}",
    "Three {quality} {things}",
)
# What people write who want something: to be heard, to be helped, to sell.
CALLS = (
    "My {quality} {thing}",
    "My week with a {thing}",
    "Our day at the {thing}",
    "A question about {things}",
    "Help with my {thing}",
    "Which {thing} to buy",
    "The best {things} for your {thing}",
    "New {things} for the {place}",
    "{Things} at half price",
    "Our {thing} and the {things}",
    "What I think about {things}",
    "Notes on {doing} {things}",
    "Your guide to {quality} {things}",
)

_OF_CLAUSE = (
    "Explain {h}.",
    "Explain {h}.",
    "Describe {h}.",
    "Tell me {h}.",
    "[Explain|Say] in [plain|simple|your own] words {h}.",
    "Explain to [a child|a beginner|a friend|a visitor] {h}.",
    "Write a [short|simple|] text on {h}.",
    "Can you explain {h}?",
    "I would like to know {h}.",
)
_OF_TOPIC = (
    "Write a [short|simple|clear|] text about {h}.",
    "What should one know about {h}?",
    "Tell me [something|more|] about {h}.",
    "Give [an introduction|a short introduction|a guide] to {h}.",
    "Write [a page|an article] about {h}.",
    "Explain [the basics of|what matters in] {h}.",
    "What is there to say about {h}?",
)
_OF_STORY = (
    'Tell a [short|] story called "{H}".',
    "Write a [short|quiet|] story about {h}.",
    "Tell the [story|tale] of {h}.",
    'Write a story with the title "{H}".',
)
_OF_ANY = ('Write a [short|] text with the title "{H}".', 'Write a [short|] article called "{H}".')
_LITTLE = frozenset(
    "a an the and or of in on to for from with without is are we our my its their that would not what why how where "
    "when do go come comes makes make us under have it at by i my you your your best".split()
)


@dataclass(frozen=True, slots=True)
class Header:
    """A section's title, what kind it is, the thing it is about and what that thing does or has done to it."""

    title: str
    form: str
    subject: str
    act: str


def fill(rng: Random, text: str, slots: Mapping[str, str], makers: Makers = WORDS) -> str:
    """Resolve choices and slots; a slot that is not given is made afresh wherever it stands."""
    while "[" in text:
        text = _CHOICE.sub(lambda match: rng.choice(match[1].split("|")), text)
    return _SLOT.sub(lambda match: _slot(rng, match[1], slots, makers), text)


def _slot(rng: Random, name: str, slots: Mapping[str, str], makers: Makers) -> str:
    if name in slots:
        return slots[name]
    if name[0].isupper():
        made = makers[name.lower()](rng)
        return made[0].upper() + made[1:]
    return makers[name](rng)


def header(rng: Random, *forms: str) -> Header:
    """A header of one of the forms: clause, topic, story or call."""
    form = rng.choice(forms or ("clause", "clause", "topic", "topic", "story"))
    pattern = rng.choice({"clause": CLAUSES, "topic": TOPICS, "story": STORIES, "call": CALLS}[form])
    found: dict[str, str] = {}

    def remember(name: str, make: Callable[[Random], str]) -> Callable[[Random], str]:
        def made(rng: Random) -> str:
            word = make(rng)
            found.setdefault("act" if name in ("do", "does", "doing", "state", "states") else "subject", word)
            if name in ("thing", "things", "stuff"):
                found.setdefault("named", word)
            return word

        return made

    title = tidy(fill(rng, pattern, {}, {name: remember(name, make) for name, make in WORDS.items()}))
    subject = found.get("named") or found.get("subject", "")
    return Header(title, form, subject, found.get("act", ""))


def content_words(title: str) -> list[str]:
    """The words of a title that say what it is about, in small letters."""
    return [word for word in re.findall(r"[a-z]+", title.lower()) if word not in _LITTLE and len(word) > 2]


def inside(title: str) -> str:
    """The title as it stands inside a sentence: names keep their capital."""
    first = title.split(" ", 1)[0]
    return title if first in vocabulary.NAMES else title[0].lower() + title[1:]


def asked(rng: Random, title: str, form: str) -> str:
    """An instruction for what stands under the title; the reader of it sees all the title's words."""
    own = {"clause": _OF_CLAUSE, "story": _OF_STORY}.get(form, _OF_TOPIC)
    wording = rng.choice(_OF_ANY if rng.random() < 0.06 else own)
    text = re.sub(r" +", " ", fill(rng, wording, {"h": inside(title), "H": title}))
    return text.replace(" a article", " an article")
