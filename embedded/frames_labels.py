"""Tasks that ask for one label out of a few; the input is made for the label, so the label is right."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from random import Random

from embedded import phrases, words
from embedded.grammar import Answer, Slots, expand, label, tidy
from embedded.numerals import number_word

# What is said of the thing to be judged, and its labels, each with patterns for its inputs.
_TEXTS: tuple[tuple[str, dict[str, str]], ...] = (
    (
        "[customer|guest|] [review|comment]|opinion about a [shop|hotel|product]|[piece of|] feedback",
        {
            "Positive": "I [love|really like|recommend] this {thing}, it is [so comfortable|well made|worth "
            "every penny].;[Great|Lovely|"
            "Wonderful] service at the {business}, we [will come back|felt at home].;The {thing} [still works|"
            "arrived early] "
            "and I am [delighted|very happy].",
            "Negative": "The {thing} [broke|failed|fell apart] after [a week|two days], [never again|what a "
            "waste].;[Rude|Slow|Terrible] "
            "service at the {business}, we [left early|were ignored].;I [regret|am annoyed about] buying this "
            "{thing}, it is "
            "[useless|far too expensive].",
        },
    ),
    (
        "message|email|text message|notice",
        {
            "Spam": "You have won a free {thing}, [click here|call now|send your number] to [claim|collect] "
            "it!;[Cheap|Free] {thing}s, "
            "[today only|limited offer], [buy now|reply at once]!",
            "Not spam": "Hi {name}, [can we meet|are you free|shall we talk] on {day}?;{name}, [the {thing} is|"
            "your notes are] [on my "
            "desk|at the {business}], see you [soon|on {day}].",
        },
    ),
    (
        "request|ticket|message to [the caretaker|the office|the landlord]|phone call",
        {
            "Urgent": "[Water|Smoke] is coming [out of|from] the {thing}, [please come now|we need help at "
            "once]!;The [door|lift] is "
            "locked and {name} is [trapped|stuck] inside [the {business}|the cellar].",
            "Not urgent": "When you [have time|pass by] next [week|month], please look at the {thing}.;Could "
            "{name} [some day|at some "
            "point] send us a list of the {thing}s?",
        },
    ),
    (
        "sentence|line|utterance|piece of speech",
        {
            "Question": "[Where|When|Why] did {name} [leave|sell|find] the {thing}?;Is the {thing} [ready|still "
            "free] on {day}?",
            "Statement": "{name} [left|sold|found] the {thing} on {day}.;The {thing} in the {business} is [new|"
            "old|ready].",
            "Command": "[Bring|Sell|Clean] the {thing} [before {day}|now].;[Never|Please] touch the {thing}, {name}.",
        },
    ),
    (
        "sentence|statement|line of a [story|diary]|verb form",
        {
            "Past": "{name} [walked|drove|went] to the {business} on {day}.;They [bought|lost] the {thing} last "
            "[year|week].",
            "Present": "{name} [walks|drives|goes] to the {business} every {day}.;They [have|need|use] a {thing} now.",
            "Future": "{name} will [walk|drive|go] to the {business} on {day}.;They will [buy|need] a {thing} "
            "next [year|week].",
        },
    ),
    (
        "greeting|letter|message|reply",
        {
            "Formal": "Dear [Sir or Madam|Professor {name}], I [would like to enquire|am writing] about the "
            "{thing}.;We [regret to "
            "inform|kindly request] you that the {business} [is closed|requires a reply] on {day}.",
            "Informal": "Hey {name}, [wanna|gonna] grab a {thing} [later|on {day}]?;[Yo|Hiya] {name}, that "
            "{thing} was [so cool|awesome]!",
        },
    ),
    (
        "diary entry|remark|message from a friend|confession",
        {
            "Happy": "I [sang|danced] all [day|evening] because {name} [came home|gave me a {thing}].;[Best|Most "
            "wonderful] {day} of my "
            "life, I got the {thing}!",
            "Sad": "I [cried|wept] when {name} [moved away|left].;I miss {name} and the old {thing} [so much|"
            "every {day}].",
            "Angry": "How dare {name} [take|break] my {thing}, I am furious!;{name} lied about the {thing} again "
            "and I [shouted|slammed "
            "the door].",
            "Afraid": "I [trembled|hid] when the {thing} [moved|fell] in the dark.;{name} heard steps on {day} "
            "night and I [shook with "
            "fear|could not breathe].",
        },
    ),
    (
        "news item|headline|article|short report",
        {
            "Sport": "{name} [wins|loses] the {sport} [final|match] on {day}.;The {sport} [team|club] has a new "
            "coach, {name}.",
            "Weather": "[Heavy rain|Snow|Strong wind|Fog] [expected|likely] [on|by] {day}.;[Sunny|Cloudy|Mild] "
            "and dry until {day}.",
            "Business": "{business} [sells|buys] {thing} maker for [two|five] million.;[Profit|Shares] of "
            "{thing} maker [rises|fall] on "
            "{day}.",
            "Politics": "[Minister|Mayor] {name} [resigns|wins vote] on {day}.;Parliament [debates|passes] law "
            "on {thing} tax.",
        },
    ),
    (
        "claim|sentence|remark in a debate|statement",
        {
            "Fact": "The [capital of {country} is {capital}|city of {capital} lies in {country}].;A week has "
            "seven days and {day} is one.",
            "Opinion": "{capital} is [the most beautiful|a rather dull|the best] city [of all|in the world].;A "
            "{thing} is [nicer|more "
            "boring] than [any|every] {other}.",
        },
    ),
    (
        "instruction on a label|piece of advice|tip|plan",
        {
            "Safe": "[Wear|Put on] gloves [when you clean|before touching] the {thing}.;[Switch off|Unplug] the "
            "lamp before {day}.",
            "Dangerous": "[Touch|Repair] the [live wire|running saw] with [wet|bare] hands near the "
            "{thing}.;[Drink|Taste] the [bleach|"
            "paint] from the {thing}.",
        },
    ),
    (
        "answer|reply to an invitation|message|note",
        {
            "Accepts": "[Yes|Of course|Gladly], I will come to the {business} on {day}.;Count me in, {name}, I "
            "[bring|have] a {thing}.",
            "Refuses": "[Sorry|Sadly], I cannot come to the {business} on {day}.;No thanks, {name}, I must "
            "[repair|sell] my {thing}.",
            "Unsure": "[Maybe|Perhaps], ask me again on {day}, {name}.;I do not know yet whether the {business} "
            "lets me [go|leave].",
        },
    ),
    (
        "sentence|text|line from a book",
        {
            "First person": "I [keep|sold] my {thing} at the {business}.;We [met|saw] {name} on {day}.",
            "Second person": "You [keep|sold] your {thing} at the {business}.;You [met|saw] {name} on {day}.",
            "Third person": "She [keeps|sold] her {thing} at the {business}.;They [met|saw] {name} on {day}.",
        },
    ),
    (
        "sentence|remark|report",
        {
            "Active": "{name} [repaired|painted|sold] the {thing} on {day}.;The {profession} [cleans|moves] the "
            "{thing}.",
            "Passive": "The {thing} was [repaired|painted|sold] by {name} on {day}.;The {thing} is [cleaned|"
            "moved] by the {profession}.",
        },
    ),
    (
        "review of a [film|book|concert]|rating|short critique",
        {
            "Good": "A [moving|brilliant|clever] [story|evening] about a {thing}, [go|see it] on {day}.",
            "Average": "[Not bad|Fair], but the [part|scene] with the {thing} [is too long|could be better], "
            "{name} was fine.",
            "Bad": "[Boring|Silly|Weak] from start to end, even {name} with the {thing} [fell asleep|was terrible].",
        },
    ),
    (
        "question to the [help desk|reception]|customer message|call|email",
        {
            "Billing": "Why was I charged [twice|too much] for the {thing}, {name}?;Please send the invoice for "
            "the {thing} again by {day}.",
            "Delivery": "My {thing} has not arrived, [it was due|you promised it for] {day}.;[Where|When] will "
            "the parcel with the {thing} come?",
            "Returns": "The {thing} is the wrong size, how do I send it back by {day}?;I want to return the "
            "{thing} that {name} bought.",
            "Opening hours": "[Is|Will] the {business} be open on {day}?;[Until when|How late] can I visit the "
            "{business} on {day}?",
        },
    ),
    (
        "diary note|travel tip|sentence",
        {
            "Morning": "{name} [ate breakfast|woke up] [as the sun rose|at seven] on {day}.;At dawn the "
            "{profession} [opens|unlocks] the {business}.",
            "Noon": "{name} had lunch at the {business} on {day}.;At twelve o'clock the {profession} puts the "
            "{thing} [down|away].",
            "Evening": "After sunset {name} [closed|left] the {business} on {day}.;{name} had dinner and [mended|"
            "put away] the {thing}.",
        },
    ),
    (
        "job advert|description of a job|sentence about work",
        {
            "Indoors": "[You|The new clerk] will sit at a desk in the {business} [on|every] {day}.;Wanted: cook "
            "for the kitchen of a {business}.",
            "Outdoors": "[You|The new ranger] will walk through the forest [on|every] {day}.;Wanted: {name}'s "
            "farm needs help in the fields.",
        },
    ),
    (
        "argument|letter to the editor|comment on {matter}",
        {
            "For": "[I support|We need|Hooray for] {matter}, it [helps|suits] the {business}.;More of {matter}, "
            "please, says {name}.",
            "Against": "[I oppose|Stop|Enough of] {matter}, it [harms|ruins] the {business}.;No more {matter}, "
            "please, says {name}.",
        },
    ),
)
_THINGS = tuple(
    word
    for kind in ("garment", "tool", "furniture", "vehicle", "instrument")
    for word in words.CATEGORIES[kind]
    if word != "pliers"
)
# "labels" and "pair" are set by the grammar.
_ASK = (
    "{say} whether the {text} {below} is {labels}.",
    "{say} [which of the labels {labels}|which label: {labels},] [fits|suits|matches|describes] the {text} "
    "{below} [best|].",
    "[Classify|Label|Tag|Sort|Mark] the {text} {below} as {labels}.",
    "Is the {text} {below} {labels}?",
    "[Read|Look at|Consider|Study] the {text} {below} and {decide} {labels}.",
    "[Put|Place] the {text} {below} [into|in] one of the [groups|classes|categories|boxes] {labels}.",
    "[What is|Which is] the right label for the {text} {below}: {labels}?",
    "[A reader|An editor|A robot|My office|The {business}] [sorts|divides|splits] [each|every] {text} into {labels}; "
    "{say} [where|in which class] the one {below} belongs.",
    "Given [a|some] {text}, [choose|pick|select|assign] [the label|one of|the class] {labels}.",
)
_DECIDE = ("decide between", "choose one of", "mark it as", "answer with", "call it", "pick from", "reply")


def _inputs(labels: Mapping[str, str]) -> Answer:
    def answer(rng: Random, slots: Slots) -> tuple[str, str]:
        country = rng.choice(words.COUNTRIES)
        filled = {
            "thing": rng.choice(_THINGS),
            "other": rng.choice(_THINGS),
            "name": rng.choice(words.NAMES),
            "day": rng.choice(words.DAYS),
            "sport": rng.choice(words.CATEGORIES["sport"]),
            "profession": rng.choice(words.CATEGORIES["profession"]),
            "country": country[0],
            "capital": country[1],
        }
        if "matter" in slots:
            filled["matter"] = slots["matter"]
        return tidy(expand(rng, rng.choice(labels[slots["label"]].split(";")), filled, {})), slots["label"]

    return answer


for _names, _labels in _TEXTS:
    label(*_ASK, labels=tuple(_labels), answer=_inputs(_labels), text=(f"[{_names}]",), decide=_DECIDE)


def _category(rng: Random, slots: Slots) -> tuple[str, str]:
    pool = [word for word in words.CATEGORIES[slots["label"].lower()] if word not in words.AMBIGUOUS]
    return rng.choice(pool), slots["label"]


_KINDS = tuple(words.CATEGORIES)
_TERM = ("[word|term|name|thing|entry of the list|item|label on the box|noun|answer of the pupil]",)
for _group in (*combinations(_KINDS, 2), *(tuple(Random(n).sample(_KINDS, 3)) for n in range(150))):
    label(
        *_ASK,
        "[Does|Would you say that] the {text} {below} [name|stand for|mean] {labels}?",
        labels=tuple(kind.capitalize() for kind in _group),
        answer=_category,
        text=_TERM,
        decide=_DECIDE,
        family="category",
    )


def _numeric(rng: Random, slots: Slots) -> tuple[str, str]:
    tests = {
        "Even": lambda n: n % 2 == 0,
        "Odd": lambda n: n % 2 == 1,
        "Small": lambda n: n < 100,
        "Large": lambda n: n >= 100,
        "Prime": lambda n: n > 1 and all(n % d for d in range(2, int(n**0.5) + 1)),
        "Composite": lambda n: any(n % d == 0 for d in range(2, int(n**0.5) + 1)),
        "Multiple of five": lambda n: n % 5 == 0,
        "Other": lambda n: n % 5 != 0,
        "One digit": lambda n: n < 10,
        "Two digits": lambda n: 10 <= n < 100,
        "Three digits": lambda n: n >= 100,
    }
    low, high = {"Small": (2, 99), "One digit": (0, 9), "Two digits": (10, 99)}.get(slots["label"], (2, 400))
    while True:
        number = rng.randint(low, high)
        if tests[slots["label"]](number):
            written = number_word(number) if number < 100 and rng.random() < 0.4 else str(number)
            return written, slots["label"]


_NUMBER = ("[number|whole number|integer|house number|page number|ticket number|score|price|count]",)
for _labels in (
    ("Even", "Odd"),
    ("Small", "Large"),
    ("Prime", "Composite"),
    ("Multiple of five", "Other"),
    ("One digit", "Two digits", "Three digits"),
):
    label(*_ASK, labels=_labels, answer=_numeric, text=_NUMBER, decide=_DECIDE)


def _fact_label(column: int) -> Answer:
    return lambda rng, slots: (
        rng.choice([row[0] for row in words.COUNTRIES if row[column] == slots["label"]]),
        slots["label"],
    )


label(
    *_ASK,
    labels=("Europe", "Asia", "Africa", "South America"),
    answer=_fact_label(2),
    text=("[country|state|land|holiday destination|home of a student]",),
    decide=_DECIDE,
)


def _truth(rng: Random, slots: Slots) -> tuple[str, str]:
    row, other = rng.sample(words.COUNTRIES, 2)
    while other[1] == row[1] or other[2] == row[2]:
        other = rng.choice(words.COUNTRIES)
    source = row if slots["label"] in ("True", "Right") else other
    return rng.choice((f"{source[1]} is the capital of {row[0]}.", f"{row[0]} lies in {source[2]}.")), slots["label"]


for _labels in (("True", "False"), ("Right", "Wrong")):
    label(
        *_ASK,
        labels=_labels,
        answer=_truth,
        text=("[claim|statement|sentence|answer from a quiz|line from a schoolbook|rumour]",),
        decide=_DECIDE,
    )


def _related(rng: Random, slots: Slots) -> tuple[str, str]:
    table = {"Synonyms": words.SYNONYMS, "Opposites": words.OPPOSITES}[slots["label"]]
    return " and ".join(rng.choice(table)), slots["label"]


label(
    *_ASK,
    labels=("Synonyms", "Opposites"),
    answer=_related,
    text=("[pair of words|word pair|pair of terms]",),
    decide=_DECIDE,
)


def _grammar_number(rng: Random, slots: Slots) -> tuple[str, str]:
    return rng.choice(words.PLURALS)[slots["label"] == "Plural"], slots["label"]


label(*_ASK, labels=("Singular", "Plural"), answer=_grammar_number, text=_TERM, decide=_DECIDE)


def _word_class(rng: Random, slots: Slots) -> tuple[str, str]:
    pools = {"Noun": _THINGS, "Verb": [left for left, _ in words.PAST], "Adjective": phrases.SLOTS["adjective"]}
    return rng.choice(pools[slots["label"]]), slots["label"]


label(*_ASK, labels=("Noun", "Verb", "Adjective"), answer=_word_class, text=_TERM, decide=_DECIDE)
label(*_ASK, labels=("Noun", "Adjective"), answer=_word_class, text=_TERM, decide=_DECIDE)
