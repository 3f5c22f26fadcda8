"""Tasks of everyday and office work: records, times, prices, logic, translations, code; with computed answers."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from embedded import words
from embedded.grammar import Answer, Slots, exact, prose

_SURNAMES = (
    "Adler",
    "Brook",
    "Costa",
    "Diaz",
    "Ekman",
    "Fox",
    "Green",
    "Haas",
    "Ito",
    "Jansen",
    "Kaya",
    "Lopez",
    "Moor",
    "Novak",
)
_TOWNS = tuple(row[1] for row in words.COUNTRIES)
_GOODS = words.CATEGORIES["fruit"] + words.CATEGORIES["garment"] + words.CATEGORIES["furniture"]
_RECORD = ("[record|entry|card|row|line|contact|form|booking]",)


def _person(rng: Random) -> tuple[str, str, int, str, str]:
    return (
        rng.choice(words.NAMES),
        rng.choice(_SURNAMES),
        rng.randint(18, 79),
        rng.choice(_TOWNS),
        rng.choice(words.CATEGORIES["profession"]),
    )


def _on_person(compute: Callable[[str, str, int, str, str], str]) -> Answer:
    def answer(rng: Random, slots: Slots) -> tuple[str, str]:
        one = _person(rng)
        return f"{one[0]} {one[1]}, {one[2]}, {one[3]}, {one[4]}", compute(*one)

    return answer


_PEOPLE: tuple[tuple[str, Callable[[str, str, int, str, str], str]], ...] = (
    (
        "{find} the [surname|family name] in the {record} {below}.\nWhat is the [last|family] name of the person "
        "in the {record} "
        "{below}?",
        lambda a, b, n, c, p: b,
    ),
    (
        "{find} the age in the {record} {below}.\nHow old is the person [of|in] the {record} {below}?",
        lambda a, b, n, c, p: str(n),
    ),
    (
        "{find} the [town|city] in the {record} {below}.\nWhere does the person in the {record} {below} live?",
        lambda a, b, n, c, p: c,
    ),
    (
        "{find} the [job|profession] in the {record} {below}.\nHow does the person in the {record} {below} earn "
        "a living?",
        lambda a, b, n, c, p: p,
    ),
    (
        "{change} the {record} {below} [to|into] JSON.\n{write} the {record} {below} as a JSON object with [four|"
        "the usual] keys.",
        lambda a, b, n, c, p: f'{{"name": "{a} {b}", "age": {n}, "town": "{c}", "job": "{p}"}}',
    ),
    (
        "{change} the {record} {below} [to|into] a [full|whole] sentence.\n[Introduce|Present] the person [from|"
        "in] the {record} {below}.",
        lambda a, b, n, c, p: f"{a} {b} is {n} years old, lives in {c} and works as a {p}.",
    ),
    (
        "{write} the name in the {record} {below} with the [surname|family name] first.",
        lambda a, b, n, c, p: f"{b}, {a}",
    ),
    ("{find} the initials of the person in the {record} {below}.", lambda a, b, n, c, p: f"{a[0]}. {b[0]}."),
    (
        "[Make|Build|Suggest] an email address for the person in the {record} {below} at example.org.",
        lambda a, b, n, c, p: f"{a}.{b}@example.org".lower(),
    ),
    (
        "{write} the fields of the {record} {below} [under each other|one per line] with their names.",
        lambda a, b, n, c, p: f"Name: {a} {b}\nAge: {n}\nTown: {c}\nJob: {p}",
    ),
    (
        "[Replace|Hide] the name in the {record} {below} [by|with|behind] three stars.",
        lambda a, b, n, c, p: f"***, {n}, {c}, {p}",
    ),
    (
        "{change} the commas in the {record} {below} [to|into] semicolons.",
        lambda a, b, n, c, p: f"{a} {b}; {n}; {c}; {p}",
    ),
    (
        "In which decade of life is the person in the {record} {below}?",
        lambda a, b, n, c, p: (
            f"The {('teens', 'twenties', 'thirties', 'forties', 'fifties', 'sixties', 'seventies')[n // 10 - 1]}"
        ),
    ),
    (
        "{write} a [badge|greeting|place card] for the person in the {record} {below}.",
        lambda a, b, n, c, p: f"Welcome, {a} {b} from {c}!",
    ),
)
for _wordings, _compute in _PEOPLE:
    exact(*_wordings.split("\n"), answer=_on_person(_compute), record=_RECORD)


def _clock(minutes: int) -> str:
    return f"{minutes // 60 % 24}:{minutes % 60:02d}"


_HOURS = tuple(str(hour) for hour in range(6, 20))
_SPANS = tuple(str(5 * n) for n in range(2, 37))
exact(
    "[A|The] {event} starts at {hour} o'clock and [lasts|takes] {span} minutes. When [is it over|does it end]?",
    "If [a|the] {event} begins at {hour}:00, what time is it {span} minutes later?",
    "{compute} the end of [a|the] {event} [of {span} minutes that starts at {hour} o'clock|from {hour}:00 that "
    "goes on for {span} minutes].",
    answer=lambda rng, slots: ("", _clock(int(slots["hour"]) * 60 + int(slots["span"]))),
    hour=_HOURS,
    span=_SPANS,
    event=("[meeting|lesson|concert|bus ride|football match|walk|exam|dinner|film|flight|storm|nap|train journey]",),
)
exact(
    "[A|The] {event} ends at {hour} o'clock after {span} minutes. When did it [start|begin]?",
    "To [be at|reach] {place} by {hour}:00, when must {name} leave for a way of {span} minutes?",
    answer=lambda rng, slots: ("", _clock(int(slots["hour"]) * 60 - int(slots["span"]))),
    hour=_HOURS,
    span=_SPANS,
    name=words.NAMES,
    event=("[meeting|lesson|concert|bus ride|walk|exam|dinner|film|flight]",),
)
exact(
    "{change} {span} minutes [to|into] hours and minutes.",
    "How many hours and minutes [are|make] {span} minutes?",
    answer=lambda rng, slots: ("", f"{int(slots['span']) // 60} hours and {int(slots['span']) % 60} minutes"),
    span=_SPANS,
)
_PRICES = tuple(str(20 * n) for n in range(1, 30))
_PERCENTS = ("5", "10", "15", "20", "25", "30", "40", "50", "60", "75")
exact(
    "{compute} {percent} percent of {price}.",
    "What is {percent} percent of {price}?",
    "A {thing} costs {price} coins; the [discount|rebate] is {percent} percent. How much [is saved|do I save]?",
    "{percent} percent of the {price} [guests|pupils|letters|tickets] [were late|got lost|came from {place}]. "
    "How many were that?",
    answer=lambda rng, slots: ("", f"{int(slots['price']) * int(slots['percent']) / 100:g}"),
    percent=_PERCENTS,
    price=_PRICES,
    thing=_GOODS,
)
exact(
    "What does a {thing} cost after {percent} percent off, if it was {price} coins [before|at first]?",
    "{name} sells a {thing} for {price} coins but gives a friend {percent} percent off. {compute} the friend's price.",
    answer=lambda rng, slots: ("", f"{int(slots['price']) * (100 - int(slots['percent'])) / 100:g}"),
    percent=_PERCENTS,
    price=_PRICES,
    thing=_GOODS,
    name=words.NAMES,
)
_DEGREES = tuple(str(5 * n) for n in range(-4, 21))
exact(
    "{change} {degrees} degrees Celsius [to|into] Fahrenheit.",
    "The [oven|sea|fever thermometer|radio] [says|shows] {degrees} degrees Celsius; how much is it in Fahrenheit?",
    answer=lambda rng, slots: ("", f"{int(slots['degrees']) * 9 // 5 + 32} degrees Fahrenheit"),
    degrees=_DEGREES,
)


def _taller(rng: Random, slots: Slots) -> tuple[str, str]:
    a, b, c = rng.sample(words.NAMES, 3)
    more, most, least = {
        "tall": ("taller", a, c),
        "old": ("older", a, c),
        "fast": ("faster", a, c),
        "rich": ("richer", a, c),
    }[slots["how"]]
    return f"{a} is {more} than {b}. {b} is {more} than {c}.", most if slots["end"] == "most" else least


exact(
    "Who [of the three|in the {riddle} {below}] is the {end} {how}?",
    "{find} the {end} {how} person in the {riddle} {below}.",
    "[Read|Solve] the {riddle} {below} and name the person who is {end} {how}.",
    answer=_taller,
    how=("tall", "old", "fast", "rich"),
    end=("most", "least"),
    riddle=("riddle", "text", "puzzle", "statement", "comparison"),
)
exact(
    "{find} the position of the letter {letter} in the alphabet.",
    "Which [number|place] has the letter {letter} in the alphabet?",
    answer=lambda rng, slots: ("", str(ord(slots["letter"]) - 64)),
    letter=tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ"),
)
exact(
    "Which letter [follows|comes after] {letter} in the alphabet?",
    "{find} the letter [right|just] behind {letter} in the alphabet.",
    answer=lambda rng, slots: ("", chr(ord(slots["letter"]) + 1)),
    letter=tuple("ABCDEFGHIJKLMNOPQRSTUVWXY"),
)
# English, German, French, Spanish
_DICTIONARY = tuple(
    row.split()
    for row in (
        "dog Hund chien perro",
        "cat Katze chat gato",
        "house Haus maison casa",
        "water Wasser eau agua",
        "bread Brot pain pan",
        "book Buch livre libro",
        "tree Baum arbre árbol",
        "milk Milch lait leche",
        "sun Sonne soleil sol",
        "moon Mond lune luna",
        "hand Hand main mano",
        "fish Fisch poisson pez",
        "apple Apfel pomme manzana",
        "night Nacht nuit noche",
        "city Stadt ville ciudad",
        "red rot rouge rojo",
        "green grün vert verde",
        "white weiß blanc blanco",
        "friend Freund ami amigo",
        "day Tag jour día",
        "school Schule école escuela",
        "door Tür porte puerta",
        "winter Winter hiver invierno",
        "thanks danke merci gracias",
    )
)
for _language, _column in (("German", 1), ("French", 2), ("Spanish", 3)):
    _table = {row[0]: row[_column] for row in _DICTIONARY}
    exact(
        f"[Translate|Put|Turn] the [word|term] {{below}} into {_language}.",
        f"What is the {_language} [word|term] for the one {{below}}?",
        answer=lambda rng, slots, table=_table: rng.choice([pair for pair in table.items() if pair[0] != pair[1]]),
    )
    exact(
        f"[How do you say|What is] {{of}} in {_language}?",
        f"[Translate|Put] {{of}} into {_language}.",
        f"A [waiter|tourist|pupil|pen friend] [looks|asks|searches] for the {_language} word for {{of}}; {{find}} it.",
        answer=lambda rng, slots, table=_table: ("", table[slots["of"]]),
        of=tuple(_table),
    )
    exact(
        f"[Translate|Put] the {_language} word {{below}} into English.",
        f"What does the {_language} word {{below}} mean?",
        answer=lambda rng, slots, table=_table: rng.choice([(b, a) for a, b in table.items() if a != b]),
    )
_CODE = {
    "the sum of a list": "def total(values):\n    return sum(values)",
    "the largest number of a list": "def largest(values):\n    return max(values)",
    "a text written backwards": "def backwards(text):\n    return text[::-1]",
    "whether a number is even": "def is_even(number):\n    return number % 2 == 0",
    "the number of words in a text": "def count_words(text):\n    return len(text.split())",
    "the square of a number": "def square(number):\n    return number * number",
    "the first element of a list": "def first(values):\n    return values[0]",
    "a list without its repeated entries": "def unique(values):\n    return list(dict.fromkeys(values))",
    "the length of the longest word": "def longest(words):\n    return max(len(word) for word in words)",
    "the average of some numbers": "def mean(values):\n    return sum(values) / len(values)",
    "a text in capital letters": "def shout(text):\n    return text.upper()",
    "the sorted copy of a list": "def in_order(values):\n    return sorted(values)",
    "the area of a rectangle": "def area(length, width):\n    return length * width",
    "degrees Fahrenheit from Celsius": "def fahrenheit(celsius):\n    return celsius * 9 / 5 + 32",
}
prose(
    "{write} a Python function [that returns|for|to compute] {goal}.",
    "How [can|do] I [get|compute|obtain] {goal} in Python?",
    "[Show|Teach] {audience} a Python function for {goal}.",
    "In Python, [define|code] a function that gives {goal}.",
    answer=lambda rng, slots: ("", _CODE[slots["goal"]]),
    goal=tuple(_CODE),
)
prose(
    "What does the [Python|] function {below} [do|return|compute]?",
    "[Explain|Describe|Comment on] the [Python|] function {below} [to {audience}|in one sentence|].",
    answer=lambda rng, slots: (lambda row: (row[1], f"It returns {row[0]}."))(rng.choice(tuple(_CODE.items()))),
)


def _meeting(rng: Random) -> tuple[str, str, str, str]:
    return (
        rng.choice(words.NAMES),
        rng.choice(words.CATEGORIES["profession"]),
        rng.choice(words.DAYS),
        rng.choice(_GOODS),
    )


def _on_meeting(before: str, after: str) -> Answer:
    def answer(rng: Random, slots: Slots) -> tuple[str, str]:
        name, job, day, thing = _meeting(rng)
        filled = {"name": name, "job": job, "day": day, "thing": thing}
        return before.format(**filled), after.format(**filled)

    return answer


prose(
    "[Summarise|Shorten|Condense|Sum up] the {text} {below} [in one sentence|in a few words|for {audience}|].",
    "What is the [main point|gist|message] of the {text} {below}?",
    text=("text", "report", "note", "email", "story", "minutes of a meeting"),
    answer=_on_meeting(
        "On {day} {name} met the {job}. They spoke for a long time about the price of a {thing}. In the end "
        "{name} paid.",
        "{name} bought a {thing} from the {job} on {day}.",
    ),
)
prose(
    "{change} the {text} {below} [to|into] [a|an] [polite|friendly|kinder] [request|version].",
    "[Make|Say] the {text} {below} [more politely|in a nicer way].",
    text=("demand", "message", "order", "sentence", "complaint"),
    answer=_on_meeting(
        "Bring the {thing} on {day}, {name}.", "Dear {name}, could you please bring the {thing} on {day}?"
    ),
)
prose(
    "{change} the {text} {below} [to|into] [everyday|casual|plain] [speech|words].",
    "How would [a friend|{audience}] [say|put] the {text} {below}?",
    text=("formal letter", "notice", "announcement", "official sentence"),
    answer=_on_meeting(
        "We regret to inform you that the {job} is unable to attend on {day}.", "Sorry, the {job} can't come on {day}."
    ),
)
prose(
    "{change} the {text} {below} [to|into] a question.",
    "[Which|What] question [does|is answered by] the {text} {below} [answer|]?",
    text=("statement", "sentence", "answer"),
    answer=_on_meeting("{name} sold the {thing} on {day}.", "When did {name} sell the {thing}?"),
)
prose(
    "{change} the {text} {below} so that it [says|means] the [opposite|contrary].",
    "[Negate|Deny] the {text} {below}.",
    text=("statement", "sentence", "claim", "promise"),
    answer=_on_meeting("{name} will sell the {thing} on {day}.", "{name} will not sell the {thing} on {day}."),
)
prose(
    "[Correct|Mend|Fix] the [mistake|error|grammar] in the {text} {below}.",
    "[Proofread|Check and correct] the {text} {below}.",
    text=("sentence", "homework", "line", "note"),
    answer=_on_meeting("{name} have bring a {thing} on {day}.", "{name} brought a {thing} on {day}."),
)
prose(
    "[Answer|Reply to] the question after the {text} {below}.",
    "[Read|Use] the {text} {below} to answer its question.",
    text=("text", "story", "report"),
    answer=_on_meeting(
        "On {day} the {job} gave {name} a {thing}. Who got it?", "{name} got the {thing} from the {job}."
    ),
)
prose(
    "{write} [a|an] {tone} [story|report] with the [three|] [words|ideas] {below}.",
    "[Use|Combine] the [words|notes] {below} [in one sentence|to make a text].",
    answer=_on_meeting("{name}, {thing}, {day}", "On {day} {name} lost a {thing} and found it again in the evening."),
)
