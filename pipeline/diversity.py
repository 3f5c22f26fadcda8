"""Which verbs and objects instructions are about: the paper's figure 3 without a parser.

A word's possible parts of speech come from `lemminflect`, a dictionary of English inflections; the rules here choose.
The verb is that of the first sentence which asks for something: an imperative ("Write", "Given a text, find"), a
question with another verb than "be" ("Can you write", "How do I sort"), or what the reader is told to do ("your task is
to write"). The object is the head of the noun phrase behind it. Both are lemmas.

Measured by hand: of 60 instructions drawn at random from 175 seeds and 306 that a model wrote, and not looked at
before, verb and object are both right in 55, the verb alone in 56 and the object in 56. Of the 57 verbs that it gave 55
are right, of the 40 objects 39. Of all 481 it finds a verb in 91% and an object in 70%; many others have none, as
questions with "be" ("What is the best way") and verbs with a clause ("Explain why").

Its limits: English alone. Nothing is parsed, so that a word that can be several things is what it is most often in such
a place: "give the brand a motto" has the object brand. A request behind a condition or a question mark ("Imagine that
you are ... and write") is missed or read as something else, passives ("The text should be corrected") have no verb, and
a phrase in quotation marks, a pronoun or a clause is no object. Only the first 2,000 characters are looked at.
"""

from __future__ import annotations

import importlib
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

from pipeline.errors import InputError

VERBS, NOUNS = 20, 4  # as in the paper's figure


@dataclass(frozen=True)
class Verb:
    """A root verb, how many instructions have it, and its commonest direct objects with their counts."""

    verb: str
    count: int
    nouns: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Diversity:
    """The commonest verbs of admitted instructions and their objects (the paper's figure 3), of `sample` out of `of`.

    `with_verb` of the sample have a root verb that was found, `with_noun` an object too. `verbs` and `pairs` are how
    many different ones there are in the sample; `top` are the 20 commonest verbs, each with at most 4 nouns.
    """

    top: tuple[Verb, ...]
    verbs: int
    pairs: int
    with_verb: int
    with_noun: int
    sample: int
    of: int


def count_verbs(texts: Sequence[str], of: int) -> Diversity:
    """Verbs and objects of the instructions of a sample out of `of`. Raises InputError where the extra is missing."""
    verbs, nouns = Counter[str](), defaultdict[str, Counter[str]](Counter)
    for text in texts:
        verb, noun = verb_and_noun(text)
        if verb is not None:
            verbs[verb] += 1
            if noun is not None:
                nouns[verb][noun] += 1
    top = sorted(verbs, key=lambda verb: (-verbs[verb], verb))[:VERBS]
    return Diversity(
        top=tuple(Verb(verb, verbs[verb], _commonest(nouns[verb])) for verb in top),
        verbs=len(verbs),
        pairs=sum(map(len, nouns.values())),
        with_verb=verbs.total(),
        with_noun=sum(each.total() for each in nouns.values()),
        sample=len(texts),
        of=of,
    )


def _commonest(nouns: Counter[str]) -> tuple[tuple[str, int], ...]:
    return tuple(sorted(nouns.items(), key=lambda item: (-item[1], item[0]))[:NOUNS])


def verb_and_noun(instruction: str) -> tuple[str | None, str | None]:
    """The verb that says what is to be done, and the head of its direct object, as lemmas; None for what is not found.

    Raises InputError where the extra `report` is not installed.
    """
    text = _QUOTED.sub(' " ', instruction[:_MOST].replace("\u2019", "'"))
    for sentence in _SENTENCE.split(text):
        words = _TOKEN.findall(sentence.lower())
        place = _verb_at(words)
        if place is not None:
            return _lemma(words[place], "VERB"), _object(words, place + 1)
    return None, None


# The rules. A word is a token in lower case; what it can be is what the dictionary says of it.

_MOST = 2_000  # characters of an instruction that are looked at
_QUOTED = re.compile(r"\"[^\"]*\"|\u201c[^\u201d]*\u201d|`[^`]*`|(?<!\w)'[^']{1,80}'(?!\w)")
_SENTENCE = re.compile(r"(?<=[.!?:])\s+|\n+")
_TOKEN = re.compile(r"[^\W\d_]+(?:[-'][^\W\d_]+)*|\d[\d.,]*|[^\w\s]")


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


_POLITE = _set("please kindly now then first next also finally just always never instead and or so 1 2 3 ) . - * •")
_PRONOUNS = _set("i you we he she it they someone somebody anyone people me us him her them")
_DATIVES = _set("me us him her them you")
_DETERMINERS = _set(
    "a an the this these those my your our his her its their some any all each every both several many few more most "
    "another other such no different various same own first second third last next one two three four five"
)
_PREPOSITIONS = _set(
    "of in on at by for from with without to into onto about over under between among through during after before "
    "against as like than per via within across toward towards upon around behind beyond regarding concerning"
)
_SOMETHING = _set(
    "something anything nothing everything myself yourself himself herself itself ourselves yourselves themselves"
)
_PARTICLES = _set("up out down off back away together")
_QUESTIONS = _set("what which who whom whose where when why how whether if")
_CONJUNCTIONS = _set("and or but so because that while although unless until since though not nor n't 's 'll")
_AUXILIARIES = _set(
    "is are was were be been being am do does did has have had can could will would shall should may might must "
    "isn't aren't don't doesn't didn't can't couldn't won't wouldn't shouldn't"
)
_MODALS = _set("can could will would shall should may might must do does did don't doesn't can't")
_LEADS = _set("given based if when once while considering using assuming because since whenever provided imagine")
_TASKS = _set("task goal job objective aim")
_TO_BE_DONE = _set(
    "is need needs want have required expected supposed like love going asked instructed wish try you us"
)
_SAID_OF_YOU = _set("given provided presented shown")
_CLOSED = _DETERMINERS | _PREPOSITIONS | _QUESTIONS | _CONJUNCTIONS | _AUXILIARIES | _PRONOUNS | _PARTICLES | _SOMETHING
_ENDS_PHRASE = (_CLOSED | _set("given following used based such")) - _DETERMINERS | _set("more most")


def _verb_at(words: Sequence[str], *, behind_comma: bool = False) -> int | None:
    """The place of the verb that a sentence asks for; None where it asks for nothing that is a verb. What stands behind
    the comma of one clause is not looked for behind those of more."""
    start = 0
    while start < len(words) and (words[start] in _POLITE or _is_adverb(words, start)):
        start += 1
    if start == len(words):
        return None
    first = words[start]
    if first in ("let's", "let") and start + 1 < len(words):
        return _base_verb(words, start + 1)
    if first in _MODALS or (first in _QUESTIONS and first != "if"):
        return _asked(words, start)
    if first in _LEADS or first in _PREPOSITIONS or first.endswith("ing") or (first == "you" and _is_told(words)):
        return None if behind_comma else _after_comma(words, start)
    if _can_be(first, "VERB", first) and first not in _CLOSED and not _is_subject(words, start):
        return _helped(words, start)
    return _after_to(words, start) or _told(words, start)


def _is_adverb(words: Sequence[str], place: int) -> bool:
    return words[place].endswith("ly") and "VERB" not in _kinds(words[place])


def _is_subject(words: Sequence[str], place: int) -> bool:
    """Whether a word that could be a verb begins a statement, as in "Desks are made of wood"."""
    following = words[place + 1] if place + 1 < len(words) else ""
    return following in _AUXILIARIES and not (following == "do" and words[place] == "do")


def _is_told(words: Sequence[str]) -> bool:
    """Whether a sentence says what the reader has: "You are given a text, ..."."""
    return not _SAID_OF_YOU.isdisjoint(words[:6])


def _after_comma(words: Sequence[str], start: int) -> int | None:
    """The verb behind the clause that a sentence begins with."""
    for place in range(start + 1, len(words) - 1):
        if words[place] in (",", ":", ";"):
            found = _verb_at(words[place + 1 :], behind_comma=True)
            if found is not None and found < 8:
                return place + 1 + found
    return _after_to(words, start)


def _asked(words: Sequence[str], start: int) -> int | None:
    """The verb of a question that has one beside "be": "Can you write", "How do I make", "Who wrote"."""
    for place in range(start, min(start + 12, len(words) - 1)):
        if words[place] in _MODALS or words[start : place + 1] == ["how", "to"]:
            return _base_verb(words, place + 1)
        if words[place] in _AUXILIARIES:
            return None
    following = words[start + 1] if start + 1 < len(words) else ""
    if words[start] == "who" and "VERB" in _kinds(following) and following not in _CLOSED:
        return start + 1
    return None


def _base_verb(words: Sequence[str], start: int) -> int | None:
    """The first verb in its base form from here on, past the subject."""
    for place in range(start, min(start + 10, len(words))):
        word = words[place]
        behind_noun = place > start and (words[place - 1] in _DETERMINERS or words[place - 1] in _PREPOSITIONS)
        if word not in _CLOSED and word not in _POLITE and _can_be(word, "VERB", word) and not behind_noun:
            return _helped(words, place)
    return None


def _helped(words: Sequence[str], place: int) -> int:
    """Where the verb is "help" with another one, as in "help me write", the other one."""
    if words[place] == "help":
        for other in range(place + 1, min(place + 4, len(words))):
            if words[other] not in _CLOSED and _can_be(words[other], "VERB", words[other]):
                return other
            if words[other] not in _DATIVES and words[other] != "to":
                break
    return place


def _after_to(words: Sequence[str], start: int) -> int | None:
    """The verb of "your task is to write", "you need to write", "I want you to write"."""
    for place in range(max(start, 1), len(words) - 1):
        before = words[max(place - 5, 0) : place]
        is_asked = not _TASKS.isdisjoint(before) or not {"you", "we", "i", "us"}.isdisjoint(before)
        if words[place] == "to" and is_asked and before[-1] in _TO_BE_DONE and words[place + 1] not in _CLOSED:
            step = 2 if _is_adverb(words, place + 1) and place + 2 < len(words) else 1
            if _can_be(words[place + step], "VERB", words[place + step]):
                return _helped(words, place + step)
    return None


def _told(words: Sequence[str], start: int) -> int | None:
    """The verb of "you should write"."""
    if words[start] in ("you", "we", "i") and start + 2 < len(words) and words[start + 1] in _MODALS:
        return _base_verb(words, start + 2)
    return None


def _object(words: Sequence[str], start: int) -> str | None:
    """The head of the noun phrase that begins here, as a lemma."""
    place, end = start, len(words)
    if place < end and words[place] in _PARTICLES:
        place += 1
    if place + 1 < end and words[place] in _DATIVES and words[place + 1] not in _ENDS_PHRASE and words[place] != "her":
        place += 1
    head = None
    while place < end:
        word = words[place]
        following = words[place + 1] if place + 1 < end else ""
        kinds = _kinds(word)
        if word in _DETERMINERS and head is None:
            pass
        elif head is None and word in (",", "and", "or") and place > start and _modifies(words[place - 1]):
            pass  # "a short, simple and clear text"
        elif (
            head is None
            and following in (",", "and", "or")
            and "ADJ" in kinds
            and _modifies("".join(words[place + 2 : place + 3]))
        ):
            pass  # "short" can be a noun too
        elif head is not None and (word in _ENDS_PHRASE or word in _DETERMINERS):
            break
        elif head is None and word in ("given", "following", "most", "more", "used"):
            pass
        elif word in _ENDS_PHRASE or not word[0].isalnum():
            break
        elif "NOUN" in kinds or not kinds or (head is None and place > start and not _modifies(word)):
            if word[0].isdigit() or (head is not None and _is_verb_here(word, kinds, following)):
                if head is not None:
                    break
            else:
                head = word
        elif head is not None:
            break
        place += 1
    return None if head is None else _lemma(head, "NOUN")


def _is_verb_here(word: str, kinds: Sequence[str], following: str) -> bool:
    """Whether a word behind a noun that could be a noun too goes on with a clause: "a list containing the"."""
    return "VERB" in kinds and word.endswith(("ing", "ed")) and following in _DETERMINERS


def _modifies(word: str) -> bool:
    """Whether a word can stand before a noun and say how it is."""
    kinds = _kinds(word)
    return "ADJ" in kinds or ("VERB" in kinds and word.endswith(("ing", "ed", "en")))


def _can_be(word: str, kind: str, lemma: str) -> bool:
    """Whether the dictionary has the word as this part of speech with this lemma."""
    return lemma in _lemmas(word).get(kind, ())


def _kinds(word: str) -> Sequence[str]:
    """The parts of speech that a word can be; none for a word that the dictionary does not have."""
    return tuple(_lemmas(word))


def _lemma(word: str, kind: str) -> str:
    lemmas = _lemmas(word).get(kind)
    if not lemmas:  # not in the dictionary: what its ending says
        lemmas = _dictionary().getAllLemmasOOV(word, kind).get(kind) or (word,)
    return word if kind == "VERB" and word in lemmas else str(lemmas[0])


@cache
def _dictionary() -> Any:
    try:
        return importlib.import_module("lemminflect")
    except ModuleNotFoundError as error:
        raise InputError(
            f"{error.name} is not installed, which verbs and nouns are told by; "
            "`pip install 'instructmill[report]'` brings it"
        ) from None


@lru_cache(maxsize=50_000)
def _lemmas(word: str) -> dict[str, tuple[str, ...]]:
    return dict(_dictionary().getAllLemmas(word))
