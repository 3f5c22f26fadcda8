"""Word lists and sentences to work on."""

from __future__ import annotations

from random import Random

from embedded import words

CATEGORY_NAMES = tuple(words.CATEGORIES)


def some_words(rng: Random, low: int = 3, high: int = 6) -> list[str]:
    """Different words, of one category or of several."""
    if rng.random() < 0.6:
        pool = list(words.CATEGORIES[rng.choice(CATEGORY_NAMES)])
    else:
        pool = sorted({word for group in words.CATEGORIES.values() for word in group})
    return rng.sample(pool, rng.randint(low, high))


def some_sentence(rng: Random) -> str:
    """A plain sentence of five to ten words."""
    who = rng.choice(words.NAMES) if rng.random() < 0.5 else f"The {rng.choice(words.CATEGORIES['profession'])}"
    thing = rng.choice(words.CATEGORIES[rng.choice(("tool", "instrument", "garment", "fruit", "furniture", "vehicle"))])
    verb = rng.choice(("found", "sold", "painted", "lost", "carried", "cleaned", "borrowed", "wanted", "kept", "saw"))
    tail = rng.choice(
        ("", " on Monday", " near the old bridge", " in the rain", " for a friend", " last night", " at school")
    )
    article, adjective = rng.choice(("a", "the", "one")), rng.choice(("red", "small", "new", "heavy", "green"))
    return f"{who} {verb} {article} {adjective} {thing}{tail}."
