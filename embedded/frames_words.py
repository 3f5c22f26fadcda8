"""Tasks on words, sentences and lists, with computed answers."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from embedded import words
from embedded.grammar import Answer, Slots, exact
from embedded.inputs import CATEGORY_NAMES, some_sentence, some_words

LIST_OF = (
    "[words|terms|items|names|things|entries]",
    "[fruits|vegetables|animals|cities|tools|colours|metals|drinks|sports|trees|"
    "flowers|spices|countries|instruments|garments|birds]",
)
TEXT = tuple(
    (
        "sentence; line; phrase; [short |]text; [short |]message; headline; remark; note; saying; statement; "
        "[opening |]line of a [letter|story|speech|song]; [shop|road|door] sign; title of a [book|film|talk]"
    ).split("; ")
)
WHO = ("[shopping|guest|packing|price|reading] list", "list", "row of {things}", "set of {things}", "list of {things}")


def _list(rng: Random, compute: Callable[[Any], object]) -> tuple[str, str]:
    given = some_words(rng)
    return ", ".join(given), str(compute(given))


def _on_list(compute: Callable[[Any], object]) -> Answer:
    return lambda rng, slots: _list(rng, compute)


def _unique_by_length(best: Callable[..., str]) -> Answer:
    def answer(rng: Random, slots: Slots) -> tuple[str, str]:
        given = some_words(rng)
        while len({len(word) for word in given}) < len(given):
            given = some_words(rng, 3, 4)
        return ", ".join(given), best(given, key=len)

    return answer


def _repeated(rng: Random, slots: Slots) -> tuple[str, str]:
    kept = some_words(rng)
    given = [*kept, rng.choice(kept)]
    return ", ".join(given), ", ".join(kept)


def _shuffled(rng: Random, slots: Slots) -> tuple[str, str]:
    given = some_words(rng)
    while given == sorted(given):
        rng.shuffle(given)
    return ", ".join(given), ", ".join(sorted(given))


def _sentence(compute: Callable[[Any], object]) -> Answer:
    def answer(rng: Random, slots: Slots) -> tuple[str, str]:
        given = some_sentence(rng)
        return given, str(compute(given))

    return answer


def _word(compute: Callable[[Any], object]) -> Answer:
    def answer(rng: Random, slots: Slots) -> tuple[str, str]:
        given = rng.choice(some_words(rng))
        return given, str(compute(given))

    return answer


def _pair(table: tuple[tuple[str, str], ...]) -> Answer:
    return lambda rng, slots: rng.choice(table)


def _plain(text: str) -> list[str]:
    return text.rstrip(".").split()


_ORDER = ("[Sort|Arrange|Put|Order|Place|Line up|Rearrange]",)
exact(
    "{order} the {things} {below} [alphabetically|in alphabetical order|from A to Z|by first letter|as a "
    "dictionary would].",
    "[Which|What] [alphabetical|dictionary] order do [these|the] {things} [have|come in|belong in]?",
    "The {who} {below} is [in a mess|not sorted|out of order]; [sort|arrange] it [from A to Z|alphabetically].",
    answer=_shuffled,
    things=LIST_OF,
    who=WHO,
    order=_ORDER,
)
exact(
    "[Reverse|Turn round|Flip] the [order of the {things}|{who}] {below}, [so that|such that] the last [comes|"
    "stands] first.",
    "{write} the {things} {below} [backwards|from last to first|in the opposite order].",
    answer=_on_list(lambda given: ", ".join(reversed(given))),
    things=LIST_OF,
    who=WHO,
)
exact(
    "[Count|Tell me the number of] the [{things}|entries] in the {who} {below}.",
    "How many {things} [are there|do you see|are named] in the {who} {below}?",
    answer=_on_list(len),
    things=LIST_OF,
    who=WHO,
)
exact(
    "{find} the [longest|lengthiest] [word|name|entry] in the {who} {below}.",
    "Which of the {things} {below} has the most letters?",
    "[Among|Of] the {things} {below}, {find} the one with the greatest number of letters.",
    answer=_unique_by_length(max),
    things=LIST_OF,
    who=WHO,
)
exact(
    "{find} the shortest [word|name|entry] in the {who} {below}.",
    "Which of the {things} {below} has the fewest letters?",
    answer=_unique_by_length(min),
    things=LIST_OF,
    who=WHO,
)
for _words, _position in (("first", 0), ("second", 1), ("third", 2), ("last", -1)):
    exact(
        f"{{find}} the {_words} [word|entry|item] [of|in] the {{who}} {{below}}.",
        f"What [comes|stands|is] {_words} in the {{who}} {{below}}?",
        f"[Repeat|Copy|Return|Read out] [only|just] the {_words} of the {{things}} {{below}}.",
        answer=_on_list(lambda given, at=_position: given[at]),
        things=LIST_OF,
        who=WHO,
    )
exact(
    "[Remove|Delete|Drop|Strike out] [the repeated|every duplicate|any double] [entry|{things}] from the {who} "
    "{below}.",
    "One of the {things} {below} [occurs|stands there] twice; [keep|leave] it only once.",
    "Clean up the {who} {below} so that nothing [appears|is written] twice.",
    answer=_repeated,
    things=LIST_OF,
    who=WHO,
)
exact(
    "[Number|Give numbers to] the {things} {below}[, one per line| and write one on each line].",
    "{change} the {who} {below} [to|into] a numbered list.",
    answer=_on_list(lambda given: "\n".join(f"{n}. {word}" for n, word in enumerate(given, 1))),
    things=LIST_OF,
    who=WHO,
)
exact(
    "{change} the {who} {below} [to|into] bullet points.",
    "{write} the {things} {below} [under each other|one below the other], each after a dash.",
    answer=_on_list(lambda given: "\n".join(f"- {word}" for word in given)),
    things=LIST_OF,
    who=WHO,
)
exact(
    "[Join|Connect|Combine|Link] the {things} {below} with the word and.",
    "{write} the {things} {below} [with|using] and [between|in between] instead of commas.",
    answer=_on_list(" and ".join),
    things=LIST_OF,
    who=WHO,
)
exact(
    "{write} the first letters of the {things} {below} as one [word|string].",
    "[Make|Form|Build] an [acronym|abbreviation] [from|out of] the {things} {below}.",
    answer=_on_list(lambda given: "".join(word[0].upper() for word in given)),
    things=LIST_OF,
)
exact(
    "[Which|Tell me which] of the {things} {below} [start|begin] with the same letter as the first [one|]?",
    answer=_on_list(lambda given: ", ".join(word for word in given if word[0] == given[0][0])),
    things=LIST_OF,
)
exact(
    "Swap the first and the last of the {things} {below}.",
    "In the {who} {below}, [exchange|swap] the [places|positions] of the first and the final entry.",
    answer=_on_list(lambda given: ", ".join([given[-1], *given[1:-1], given[0]])),
    things=LIST_OF,
    who=WHO,
)
exact(
    "Which of the {things} {below} does not belong [with the others|to the group|there]?",
    "{find} the odd one out [in the {who} {below}|among the {things} {below}].",
    "[Three|Some] of the {things} {below} [are related|share a category]; {find} the one that [is not|does not fit].",
    answer=lambda rng, slots: _odd(rng),
    things=LIST_OF,
    who=WHO,
)


def _odd(rng: Random) -> tuple[str, str]:
    group, other = rng.sample(CATEGORY_NAMES, 2)
    odd = rng.choice([word for word in words.CATEGORIES[other] if word not in words.AMBIGUOUS])
    given = [*rng.sample([w for w in words.CATEGORIES[group] if w not in words.AMBIGUOUS], 3), odd]
    rng.shuffle(given)
    return ", ".join(given), odd


def _members(rng: Random, slots: Slots) -> tuple[str, str]:
    pool = [word for word in words.CATEGORIES[slots["kind"]] if word not in words.AMBIGUOUS]
    count = {"two": 2, "three": 3, "four": 4, "five": 5, "six": 6}.get(slots.get("n", ""), 3)
    return "", ", ".join(rng.sample(pool, count))


exact(
    "{find} {n} [examples|kinds|sorts] of a {kind}.",
    "[List|Name|Give me] {n} things that [are|could be called] a {kind}.",
    "[I need|Our crossword needs|The teacher wants|A child asks for] the [names|words] of {n} things, each of "
    "them a {kind}.",
    "[What are|Can you tell me] {n} [well-known|common|typical] [sorts|examples] of {kind}?",
    answer=_members,
    kind=CATEGORY_NAMES,
)
_SENTENCES = (
    (
        "{change} the {text} {below} [to|into] [capital letters|upper case|capitals].\nShout the {text} {below} "
        "[in|with] capital "
        "letters only.",
        str.upper,
    ),
    ("{change} the {text} {below} [to|into] [lower case|small letters].", lambda s: s.lower()),
    (
        "[Count|Tell me] how many words the {text} {below} [has|contains].\nHow many words [are|stand] in the "
        "{text} {below}?\n"
        "What is the number of words in the {text} {below}?",
        lambda s: len(_plain(s)),
    ),
    (
        "[Count|Add up] the letters [of|in] the {text} {below}[, without spaces|].\nHow many letters does the "
        "{text} {below} "
        "[have|use]?",
        lambda s: sum(c.isalpha() for c in s),
    ),
    (
        "How many vowels [are|can you find] in the {text} {below}?\n[Count|Work out the number of] vowels in the "
        "{text} {below}.",
        lambda s: sum(c in "aeiou" for c in s.lower()),
    ),
    (
        "{find} the [last|final] word of the {text} {below}.\nWith which word does the {text} {below} end?",
        lambda s: _plain(s)[-1],
    ),
    (
        "{find} the [first|opening] word of the {text} {below}.\nWith which word does the {text} {below} begin?",
        lambda s: _plain(s)[0],
    ),
    (
        "{find} the longest word [in|of] the {text} {below}.\nWhich word of the {text} {below} [is the longest|"
        "has most letters]?",
        lambda s: max(_plain(s), key=len),
    ),
    (
        "{write} the words of the {text} {below} in [reverse|backward] order.\nRead the {text} {below} from the "
        "last word to the "
        "first.",
        lambda s: " ".join(reversed(_plain(s))),
    ),
    (
        "{write} the {text} {below} with [a dash|hyphens] instead of spaces.\n[Replace|Exchange] each space of "
        "the {text} {below} "
        "[with|for] a hyphen.",
        lambda s: "-".join(_plain(s)),
    ),
    (
        "[Delete|Remove] [all|the] vowels from the {text} {below}.\nWhat is left of the {text} {below} without "
        "its vowels?",
        lambda s: "".join(c for c in s if c.lower() not in "aeiou"),
    ),
    (
        "{change} the {text} {below} [to|into] title case.\n[Capitalise|Start] each word of the {text} {below} "
        "[with a capital|"
        "as in a title].",
        lambda s: s.rstrip(".").title(),
    ),
    (
        "{write} the {text} {below} as an excited [shout|cry].\nEnd the {text} {below} with an exclamation mark "
        "instead.",
        lambda s: s[:-1] + "!",
    ),
    ("[Put|Set|Wrap] the {text} {below} in quotation marks.\nQuote the {text} {below}.", lambda s: f'"{s}"'),
    (
        "[Split|Break] the {text} {below} into [single|separate] words [with|by] commas.\nList the words of the "
        "{text} {below}, "
        "separated by commas.",
        lambda s: ", ".join(_plain(s)),
    ),
    (
        "{find} the subject of the {text} {below}.\nWho [does something|acts|is acting] in the {text} {below}?",
        lambda s: " ".join(_plain(s)[:2]) if s.startswith("The ") else _plain(s)[0],
    ),
    (
        "{find} the verb [of|in] the {text} {below}.\nWhich word in the {text} {below} [is the verb|says what "
        "was done]?",
        lambda s: _plain(s)[2] if s.startswith("The ") else _plain(s)[1],
    ),
    (
        "{find} the adjective [of|in] the {text} {below}.\nWhich word of the {text} {below} describes [a|the] thing?",
        lambda s: next(w for w in _plain(s) if w in ("red", "small", "new", "heavy", "green")),
    ),
    (
        "{change} the {text} {below} [to|into] [a|the] future [tense|form].\n[Say|Put] the {text} {below} as "
        "something that will "
        "happen.",
        lambda s: _future(s),
    ),
    (
        "{write} the first letter of every word in the {text} {below}.\nWhich initials do the words of the "
        "{text} {below} have?",
        lambda s: " ".join(w[0] for w in _plain(s)),
    ),
)
_BASE = {
    "found": "find",
    "sold": "sell",
    "painted": "paint",
    "lost": "lose",
    "carried": "carry",
    "cleaned": "clean",
    "borrowed": "borrow",
    "wanted": "want",
    "kept": "keep",
    "saw": "see",
}


def _future(text: str) -> str:
    kept = [f"will {_BASE[word]}" if word in _BASE else word for word in text.split()]
    return " ".join(kept).replace(" last night", " tomorrow night")


for _wordings, _compute in _SENTENCES:
    exact(*_wordings.split("\n"), answer=_sentence(_compute), text=TEXT)
_WORDS = (
    (
        "{write} the [word|name] {below} backwards.\nSpell the [word|term] {below} [from back to front|in reverse].",
        lambda w: w[::-1],
    ),
    (
        "How many letters [are in|does one need for] the [word|name] {below}?\nCount the letters of the single "
        "word {below}.",
        len,
    ),
    (
        "{find} the first letter of the [word|name] {below}.\nWith which letter does the word {below} start?",
        lambda w: w[0],
    ),
    ("{find} the last letter of the [word|name] {below}.\nOn which letter does the word {below} end?", lambda w: w[-1]),
    ("Spell [out|] the [word|name] {below} with [hyphens|dashes] between the letters.", "-".join),
    ("[Repeat|Write] the [word|name] {below} three times.", lambda w: " ".join([w] * 3)),
    (
        "{find} the vowels [of|in] the [word|name] {below}, in [their|the right] order.",
        lambda w: " ".join(c for c in w if c in "aeiou"),
    ),
    ("[Remove|Cut off|Take away] the first letter of the [word|name] {below}.", lambda w: w[1:]),
    ("[Double|Write twice] every letter of the [word|name] {below}.", lambda w: "".join(c * 2 for c in w)),
    ("[Sort|Order] the letters of the [word|name] {below} [alphabetically|from A to Z].", lambda w: "".join(sorted(w))),
    (
        "To which [group|category|class] of things does the [word|term] {below} belong?\n{find} the [category|"
        "general term] for "
        "the thing {below}.",
        lambda w: next(k for k, group in words.CATEGORIES.items() if w in group),
    ),
    (
        "{write} a [short|simple] sentence [with|that uses|around] the word {below}.",
        lambda w: f"I saw the word {w} on a sign today.",
    ),
)
for _wordings, _compute in _WORDS:
    exact(*_wordings.split("\n"), answer=_word(_compute))
_TABLES = (
    ("opposite|antonym|contrary", words.OPPOSITES),
    ("synonym|word with the same meaning|other word", words.SYNONYMS),
    ("plural|plural form|form for many", words.PLURALS),
    ("past tense|simple past|form for yesterday", words.PAST),
    ("comparative|comparing form|form with more", words.COMPARATIVES),
    ("chemical symbol|short sign", words.SYMBOLS),
    ("singular|form for a single one", tuple((b, a) for a, b in words.PLURALS)),
    ("infinitive|base form|dictionary form", tuple((b, a) for a, b in words.PAST)),
    ("full name of the element", tuple((b, a) for a, b in words.SYMBOLS)),
)
for _name, _table in _TABLES:
    exact(
        f"{{find}} the [{_name}] of the [word|term|entry] {{below}}.",
        f"What is the [{_name}] of the [word|term|entry] {{below}}?",
        f"[A learner|My pupil|A puzzle|The dictionary|Our quiz] needs the [{_name}] for the word "
        "{below}; what is it?",
        answer=_pair(_table),
    )
    exact(
        f"{{find}} the [{_name}] of {{asked}}.",
        f"What is the [{_name}] of {{asked}}?",
        f"[Which|What] [{_name}] [belongs to|goes with] {{asked}}?",
        f"In a [crossword|spelling test|word game|lesson], somebody asks for the [{_name}] of "
        "{asked}; what do you [say|reply]?",
        answer=lambda rng, slots, table=dict(_table): ("", table[slots["asked"]]),
        asked=tuple(word for word, _ in _table),
    )
