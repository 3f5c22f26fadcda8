"""Numbers in words, as ordinals and in Roman numerals."""

from __future__ import annotations

from embedded import words

_ROMAN = ((100, "C"), (90, "XC"), (50, "L"), (40, "XL"), (10, "X"), (9, "IX"), (5, "V"), (4, "IV"), (1, "I"))


def number_word(number: int) -> str:
    """An English number word, up to ninety-nine."""
    if number <= 20:
        return words.NUMBER_WORDS[number]
    tens, ones = divmod(number, 10)
    return words.TENS[tens] + (f"-{words.NUMBER_WORDS[ones]}" if ones else "")


def roman(number: int) -> str:
    """A Roman numeral, up to 399."""
    text = ""
    for value, sign in _ROMAN:
        while number >= value:
            text, number = text + sign, number - value
    return text


def ordinal(number: int) -> str:
    """The number with its ending: 1st, 2nd, 11th."""
    ending = "th" if 10 <= number % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"
