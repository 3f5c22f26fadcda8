"""Tasks on numbers, dates, units and facts, with computed answers."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, timedelta
from random import Random

from embedded import words
from embedded.grammar import Answer, Slots, exact
from embedded.numerals import number_word, ordinal, roman

_NUMBERS = (
    "numbers",
    "[whole|] numbers",
    "[prices|scores|heights|ages|distances|votes|weights|marks|readings]",
    "values",
)


def _numbers(compute: Callable[[list[int]], object]) -> Answer:
    def answer(rng: Random, slots: Slots) -> tuple[str, str]:
        given = rng.sample(range(2, 60), rng.randint(3, 5))
        return ", ".join(map(str, given)), str(compute(given))

    return answer


def _number(compute: Callable[[int], object], low: int = 2, high: int = 99) -> Answer:
    def answer(rng: Random, slots: Slots) -> tuple[str, str]:
        given = rng.randint(low, high)
        return str(given), str(compute(given))

    return answer


def _rows(values: list[int]) -> str:
    return ", ".join(map(str, values))


_LISTS: tuple[tuple[str, Callable[[list[int]], object]], ...] = (
    (
        "[Sort|Order|Arrange] the {numbers} {below} [from smallest to largest|in ascending order|upwards].",
        lambda v: _rows(sorted(v)),
    ),
    (
        "[Sort|Order|Rank] the {numbers} {below} [from largest to smallest|in descending order|downwards].",
        lambda v: _rows(sorted(v, reverse=True)),
    ),
    (
        "{compute} the [sum|total] of the {numbers} {below}.\nAdd up [all|] the {numbers} {below}.\nWhat do the "
        "{numbers} {below} "
        "come to together?",
        sum,
    ),
    (
        "{find} the [largest|greatest|highest] of the {numbers} {below}.\nWhich of the {numbers} {below} is the "
        "maximum?",
        max,
    ),
    ("{find} the [smallest|lowest] of the {numbers} {below}.\nWhich of the {numbers} {below} is the minimum?", min),
    (
        "{compute} the [difference|gap|distance] between the [largest and the smallest|extremes] of the "
        "{numbers} {below}.\nWhat is "
        "the range of the {numbers} {below}?",
        lambda v: max(v) - min(v),
    ),
    (
        "{find} the even ones among the {numbers} {below}.\nKeep only those {numbers} {below} that two divides.",
        lambda v: _rows([x for x in v if x % 2 == 0]) or "none",
    ),
    (
        "{find} the odd ones among the {numbers} {below}.\nDrop every even entry from the {numbers} {below}.",
        lambda v: _rows([x for x in v if x % 2]) or "none",
    ),
    ("[Double|Multiply by two] each of the {numbers} {below}.", lambda v: _rows([2 * x for x in v])),
    ("[Add ten to|Increase by ten] each of the {numbers} {below}.", lambda v: _rows([x + 10 for x in v])),
    ("How many of the {numbers} {below} [are greater than|exceed|lie above] twenty?", lambda v: sum(x > 20 for x in v)),
    (
        "{find} the [median|middle value] of the {numbers} {below}.",
        lambda v: (
            sorted(v)[len(v) // 2] if len(v) % 2 else f"{(sorted(v)[len(v) // 2 - 1] + sorted(v)[len(v) // 2]) / 2:g}"
        ),
    ),
    ("{compute} the [mean|average] of the {numbers} {below}, with one decimal.", lambda v: f"{sum(v) / len(v):.1f}"),
    ("{find} the second largest of the {numbers} {below}.", lambda v: sorted(v)[-2]),
    ("{write} the {numbers} {below} in [reverse|the opposite] order.", lambda v: _rows(v[::-1])),
)
for _wordings, _compute in _LISTS:
    exact(*_wordings.split("\n"), answer=_numbers(_compute), numbers=_NUMBERS)
_SINGLE: tuple[tuple[str, Callable[[int], object]], ...] = (
    (
        "{write} the number {below} [in words|as a word|in letters].\nHow do you [spell|write out] the number {below}?",
        number_word,
    ),
    (
        "{change} the number {below} [to|into] [a Roman numeral|Roman numerals].\nHow would [an old Roman|a "
        "Roman mason] write the "
        "number {below}?",
        roman,
    ),
    (
        "{change} the number {below} [to|into] binary.\n{write} the [decimal|] number {below} with zeros and ones.",
        lambda n: f"{n:b}",
    ),
    ("{compute} the square of the number {below}.\nMultiply the number {below} by itself.", lambda n: n * n),
    ("{compute} the double of the number {below}.\nWhat is twice the number {below}?", lambda n: 2 * n),
    ("{find} the next [whole number|integer] after the one {below}.", lambda n: n + 1),
    ("{find} the [whole number|integer] just before the one {below}.", lambda n: n - 1),
    ("[Round|Bring] the number {below} to the nearest ten.", lambda n: (n + 5) // 10 * 10),
    (
        "{find} all the [divisors|factors] of the number {below}.\nWhich numbers divide the number {below}?",
        lambda n: _rows([d for d in range(1, n + 1) if n % d == 0]),
    ),
    ("{compute} the sum of the digits of the number {below}.", lambda n: sum(map(int, str(n)))),
    ("{write} the digits of the number {below} in reverse.", lambda n: str(n)[::-1]),
    (
        "{compute} half of the number {below}.\nShare the number {below} equally between two; how much is each part?",
        lambda n: f"{n / 2:g}",
    ),
    ("{compute} the remainder when the number {below} is divided by seven.", lambda n: n % 7),
    ("{write} the number {below} as an ordinal [number|].", lambda n: f"{ordinal(n)}"),
    ("How much is missing from the number {below} to a hundred?", lambda n: 100 - n),
)


for _wordings, _compute in _SINGLE:
    exact(*_wordings.split("\n"), answer=_number(_compute))
_SMALL = tuple(str(n) for n in range(2, 13))
_LARGE = tuple(str(n) for n in range(12, 90))
_GOODS = tuple(
    word
    for word in words.CATEGORIES["fruit"] + words.CATEGORIES["garment"] + words.CATEGORIES["tool"]
    if word != "pliers"
)
# Each story with the arithmetic that answers it: a is the larger number, b the smaller.
_STORIES: tuple[tuple[str, Callable[[int, int], object]], ...] = (
    (
        "{name} has {a} [coins|stamps|marbles|cards|beads] and [gives|loses|sells] {b} of them. How many are left?",
        lambda a, b: a - b,
    ),
    (
        "[In|On] {place}, {name} counts {a} [birds|people|lamps|boats] and [later|then] {b} more. {compute} the total.",
        lambda a, b: a + b,
    ),
    ("A {thing} costs {b} coins. What do {a} of them cost {name}?", lambda a, b: a * b),
    (
        "{name} [reads|writes|translates] {b} pages [a|each] day. How many pages are [done|finished] after {a} days?",
        lambda a, b: a * b,
    ),
    (
        "A [train|bus|ferry] carries {a} [people|passengers]; {b} get [off|out] at {place}. How many [stay on|remain]?",
        lambda a, b: a - b,
    ),
    (
        "{name} is {a} years old and [has a sister|has a brother|has a cousin] who is {b} years younger. How old "
        "is [she|he|that "
        "relative]?",
        lambda a, b: a - b,
    ),
    (
        "[Each|Every] of {b} boxes holds {a} [eggs|bulbs|pencils|nails]. {compute} how many there are in all.",
        lambda a, b: a * b,
    ),
    ("What is {a} [plus|and] {b}?", lambda a, b: a + b),
    ("What is {a} [minus|less] {b}?", lambda a, b: a - b),
    ("[Multiply|What do you get if you multiply] {a} by {b}.", lambda a, b: a * b),
    (
        "The {business} [opens with|bakes|receives] {a} {thing}s and sells {b}. How many does it [keep|still have]?",
        lambda a, b: a - b,
    ),
    (
        "{name} [walks|runs|cycles] {a} kilometres on [Monday|Saturday] and {b} on the day after. {compute} the "
        "whole distance.",
        lambda a, b: a + b,
    ),
    ("A rectangle [is|measures] {a} by {b} [metres|centimetres]. {compute} its area.", lambda a, b: a * b),
    ("A [garden|field|room] is {a} metres long and {b} wide. How long is a fence round it?", lambda a, b: 2 * (a + b)),
    (
        "{name} [had|saved] {a} [euros|dollars] and [earned|was given] {b} more [for|by] [cutting grass|a "
        "grandmother|babysitting]. "
        "How much is it now?",
        lambda a, b: a + b,
    ),
    ("Share {a} [sweets|nuts|pens] among {b} children. How many are left over?", lambda a, b: a % b),
    (
        "It is {a} degrees at noon in {place} and {b} degrees colder at night. How cold is the night?",
        lambda a, b: a - b,
    ),
    ("{b} [buses|vans|teams] with {a} seats each: how many people can [travel|sit down]?", lambda a, b: a * b),
    (
        "After {name} [added|put] {b} [books|plants|chairs] to the room there were {a}. How many were there before?",
        lambda a, b: a - b,
    ),
)


def _story(compute: Callable[[int, int], object]) -> Answer:
    return lambda rng, slots: ("", str(compute(int(slots["a"]), int(slots["b"]))))


for _wording, _compute in _STORIES:
    exact(_wording, answer=_story(_compute), a=_LARGE, b=_SMALL, name=words.NAMES, thing=_GOODS)
for _from, _to, _factor in words.UNITS:
    exact(
        f"{{change}} {{a}} {_from} [to|into] {_to}.",
        f"How many {_to} are {{a}} {_from}?",
        f"[A sign|A recipe|A letter|The label|My notebook] says {{a}} {_from}; {{compute}} the same in {_to}.",
        answer=lambda rng, slots, factor=_factor: ("", str(int(slots["a"]) * factor)),
        a=_SMALL + _LARGE[:30],
    )
    exact(
        f"{{change}} the [amount|quantity] {{below}} from {_from} [to|into] {_to}.",
        f"Express the {_from} {{below}} in {_to}.",
        answer=lambda rng, slots, a=_from, b=_to, factor=_factor: (lambda n: (f"{n} {a}", f"{n * factor} {b}"))(
            rng.randint(2, 40)
        ),
    )
_SHIFT = tuple(number_word(n) for n in range(2, 21))


def _weekday(direction: int) -> Answer:
    def answer(rng: Random, slots: Slots) -> tuple[str, str]:
        return "", words.DAYS[
            (words.DAYS.index(slots["day"]) + direction * words.NUMBER_WORDS.index(slots["shift"])) % 7
        ]

    return answer


exact(
    "Which day [comes|is] {shift} days after {day}?",
    "Today is {day}. {compute} the weekday in {shift} days.",
    "{name} [leaves|starts|pays] on {day} and [is back|ends|returns] {shift} days later. On which day is that?",
    answer=_weekday(1),
    day=words.DAYS,
    shift=_SHIFT,
    name=words.NAMES,
)
exact(
    "Which day [was|came] {shift} days before {day}?",
    "If it is {day} now, [which|what] weekday was it {shift} days ago?",
    answer=_weekday(-1),
    day=words.DAYS,
    shift=_SHIFT,
)
exact(
    "{find} the month [that comes|] after {month}.",
    "Which month follows {month}?",
    "After {month}, what is written on the next page of [a|the] calendar?",
    month=words.MONTHS,
    answer=lambda rng, slots: ("", words.MONTHS[(words.MONTHS.index(slots["month"]) + 1) % 12]),
)
exact(
    "How many days has {month} in a year that is not a leap year?",
    "{find} the [length|number of days] of the month of {month} [in a common year|without the leap day].",
    month=words.MONTHS,
    answer=lambda rng, slots: ("", str(words.MONTH_DAYS[words.MONTHS.index(slots["month"])])),
)


def _dates(compute: Callable[[date], str]) -> Answer:
    def answer(rng: Random, slots: Slots) -> tuple[str, str]:
        day = date(1990, 1, 1) + timedelta(days=rng.randrange(14000))
        return f"{day.day} {words.MONTHS[day.month - 1]} {day.year}", compute(day)

    return answer


exact(
    "{change} the date {below} to the [form|format] year-month-day.",
    "{write} the date {below} [in digits|with digits only], year first.",
    answer=_dates(date.isoformat),
)
exact(
    "{find} the year in the date {below}.",
    "In which year [lies|was] the [day|date] {below}?",
    answer=_dates(lambda d: str(d.year)),
)
exact(
    "{find} the month in the date {below}.",
    "[Copy|Return] only the month of the [deadline|birthday|date] {below}.",
    answer=_dates(lambda d: words.MONTHS[d.month - 1]),
)
exact(
    "On which [weekday|day of the week] [fell|was] the date {below}?", answer=_dates(lambda d: words.DAYS[d.weekday()])
)
exact(
    "{change} the time {below} from [the twenty-four hour clock|railway time] to am and pm.",
    answer=lambda rng, slots: (lambda h, m: (f"{h}:{m:02d}", f"{(h - 1) % 12 + 1}:{m:02d} {'am' if h < 12 else 'pm'}"))(
        rng.randrange(1, 24), rng.randrange(60)
    ),
)
_SERIES = ("[series|sequence|row|pattern]",)
exact(
    "{find} the next number [in|of] the {row} {below}.",
    "Continue the {row} {below} by one number.",
    "Which number should [follow|come next] in the {row} {below}?",
    row=_SERIES,
    answer=lambda rng, slots: (lambda a, d: (_rows([a + d * i for i in range(4)]), str(a + 4 * d)))(
        rng.randint(1, 30), rng.randint(2, 12)
    ),
)


def _fact(table: dict[str, str], *wordings: str) -> None:
    exact(*wordings, answer=lambda rng, slots: ("", table[slots["of"]]), of=tuple(table))


def _given_fact(table: dict[str, str], *wordings: str) -> None:
    exact(*wordings, answer=lambda rng, slots: rng.choice(tuple(table.items())))


for _kind, _column in (("capital [city|]", 1), ("continent", 2), ("currency", 3)):
    _table = {row[0]: row[_column] for row in words.COUNTRIES}
    _fact(
        _table,
        f"What is the {_kind} of {{of}}?",
        f"{{find}} the {_kind} of {{of}}.",
        f"A [traveller|pupil|customer|friend] who [flies|moves|writes] to {{of}} asks for its {_kind}; {{find}} it.",
        f"[Which|What] {_kind} does {{of}} have, and how would you say it to {{audience}} in one word?",
    )
    _given_fact(
        _table,
        f"{{find}} the {_kind} of the country {{below}}.",
        f"Which {_kind} has the country {{below}}?",
        f"[In a geography lesson|At the {{business}}|For {{item_of_work}}] we need the "
        f"{_kind} of the country {{below}}.",
    )
_fact(
    {row[1]: row[0] for row in words.COUNTRIES},
    "Of which country is {of} the capital?",
    "{find} the country whose [government|parliament|president] sits in {of}.",
)
_given_fact(
    {row[1]: row[0] for row in words.COUNTRIES},
    "{find} the country [whose capital is|that is governed from] the city {below}.",
)
for _kind, _column in (("[name|word] for the young", 1), ("home", 2), ("sound", 3), ("number of legs", 4)):
    _table = {row[0]: row[_column] for row in words.ANIMALS}
    _fact(
        _table,
        f"What is the {_kind} of a {{of}}?",
        f"{{find}} the {_kind} of a {{of}}.",
        f"[A child|My niece|{{audience}}] wants to know the {_kind} of a {{of}}; what is the right [answer|word]?",
    )
    _given_fact(_table, f"{{find}} the {_kind} of the animal {{below}}.", f"Which {_kind} has the animal {{below}}?")
_fact(
    {name: str(n) for n, name in enumerate(words.PLANETS, 1)},
    "Counted from the sun, which [place|position] has [the planet|] {of}?",
)
_fact(
    dict(zip(words.PLANETS, words.PLANETS[1:], strict=False)),
    "Which planet is the next one [beyond|outside] {of}?",
    "{find} the planet that [follows|comes after] {of} on the way out from the sun.",
)


def _contact(rng: Random, slots: Slots) -> tuple[str, str]:
    name, day, hour = rng.choice(words.NAMES), rng.choice(words.DAYS), rng.randint(8, 19)
    place = rng.choice(("the station", "the town hall", "the harbour", "my office", "the bakery", "the school gate"))
    count, thing = rng.randint(2, 30), rng.choice(words.CATEGORIES["fruit"])
    text = f"{name} will bring {count} {thing} boxes to {place} on {day} at {hour} o'clock."
    wanted = {
        "person": name,
        "weekday": day,
        "hour": f"{hour} o'clock",
        "meeting place": place,
        "number of boxes": str(count),
        "kind of fruit": thing,
    }
    return text, wanted[slots["wanted"]]


exact(
    "{find} the {wanted} [mentioned|named|given] in the {text} {below}.",
    "[Extract|Pull out|Copy] the {wanted} from the {text} {below}.",
    "What is the {wanted} [according to|in] the {text} {below}?",
    "[A clerk|My boss|The driver] needs only the {wanted} [out of|from] the {text} {below}.",
    answer=_contact,
    wanted=("person", "weekday", "hour", "meeting place", "number of boxes", "kind of fruit"),
    text=("message", "note", "sentence", "short report", "voice mail", "announcement", "email", "text"),
)
