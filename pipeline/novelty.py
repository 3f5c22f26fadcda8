"""How near is a text to what we hold: exact ROUGE-L, bit for bit as the `rouge_score` package computes it.

A text is its tokens. F is 2 * P * R / (P + R) with P = L / (tokens held), R = L / (tokens asked), L the length of the
longest common subsequence, in float64 and in this order of operations, so that a decision at a threshold never differs
(of 86 ways to reach exactly 0.7 with up to 60 tokens, 50 compute to just above it).

The index looks only at texts that can reach the floor; `novelty_kernels.py` says why nothing is lost by that. Texts
added since the lists were last made are looked at one by one, and the lists are made anew when these are an eighth.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from pipeline.novelty_kernels import Held, Lists

Array = np.ndarray[Any, Any]
Tokenizer = Callable[[str], list[str]]

_NOT_A_TOKEN = re.compile(r"[^a-z0-9]+")
# The same for a text in ASCII, at a twentieth of the time: small letters and digits stay, all else becomes a space.
_ASCII_TOKENS = {code: chr(code).lower() if chr(code).isalnum() else " " for code in range(128)}
_LEAST_FLOOR = 1e-9  # below any F of two texts that share a token, so a floor of 0 finds all there is
FEW = 512  # so few texts are looked at one by one, and not listed


def rouge_tokens(text: str) -> list[str]:
    """The tokens of `rouge_score`'s default tokeniser, without stemming: lower case, runs of a-z and 0-9."""
    if text.isascii():
        return text.translate(_ASCII_TOKENS).split()
    return _NOT_A_TOKEN.sub(" ", text.lower()).split()


# Written without spaces: a run of them is a sentence, so each letter is a token. Han (with its marks of repetition and
# zero) and kana; Thai, Lao, Myanmar, Khmer and the Tai scripts, which only a dictionary could cut into words.
_SPACELESS = (
    (0x3005, 0x3007), (0x3041, 0x3096), (0x309D, 0x309F), (0x30A1, 0x30FA), (0x30FC, 0x30FF), (0x31F0, 0x31FF),
    (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x1B000, 0x1B16F), (0x20000, 0x3FFFD),
    (0x0E01, 0x0E30), (0x0E32, 0x0E33), (0x0E40, 0x0E46), (0x0E81, 0x0EB0), (0x0EB2, 0x0EB3), (0x0EC0, 0x0EC6),
    (0x1000, 0x102A), (0x1050, 0x1055), (0x1780, 0x17B3), (0x1950, 0x1974), (0x1980, 0x19C9), (0x1A20, 0x1A54),
    (0xAA80, 0xAAAF), (0xAA60, 0xAA76),
)  # fmt: skip
# Joiners, soft hyphens, variation selectors and the like: they change how a word looks, not what it is.
_UNSEEN = re.compile("[\u00ad\u034f\u061c\u180b-\u180f\u200c-\u200f\u2060\ufe00-\ufe0f\ufeff\U000e0100-\U000e01ef]+")
_MOST_MARKS = 30  # on one letter, as in Unicode's stream-safe format: normalising takes the square of their number
_MANY_MARKS_PERHAPS = re.compile(f"[\u0300-\U0001ffff]{{{_MOST_MARKS + 1}}}")  # marks lie there: quickly looked for


@cache
def _unicode_patterns() -> tuple[re.Pattern[str], re.Pattern[str]]:
    """What a token is in the `unicode` tokeniser, and a run of too many marks."""
    # Python's \w knows no combining marks. They all lie below 0x20000, but for the variation selectors.
    marks = "".join(chr(code) for code in range(0x300, 0x20000) if unicodedata.category(chr(code))[0] == "M")
    alone = "".join(f"{chr(first)}-{chr(last)}" for first, last in _SPACELESS)
    # A run in ASCII, as most are, is found first, without a look through the marks for each letter. What may follow it
    # there are ASCII, dashes and quotation marks: neither letters nor marks.
    token = rf"[a-z0-9]++(?![^\x00-\x7f\u2010-\u2027])|[{alone}][{marks}]*|[^\W_{alone}](?:[^\W_{alone}]|[{marks}])*"
    return re.compile(token), re.compile(rf"([{marks}]{{{_MOST_MARKS}}})[{marks}]+")


def unicode_tokens(text: str) -> list[str]:
    """Runs of letters and digits of all scripts with their combining marks, without case.

    Each letter of a script that is written without spaces is a token of its own. Forms that only look different (full
    width, ligatures) are one (NFKC). A text in ASCII has the tokens that `rouge_tokens` gives it.
    """
    if text.isascii():
        return rouge_tokens(text)
    token, many_marks = _unicode_patterns()
    text = _UNSEEN.sub("", text)
    if _MANY_MARKS_PERHAPS.search(text):
        text = many_marks.sub(r"\1", text)
    # Case folding can take a composed letter apart, so it stands between two normalisations.
    return token.findall(unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold()))


TOKENIZERS: dict[str, Tokenizer] = {"rouge": rouge_tokens, "unicode": unicode_tokens}


def tokenizer(name: str) -> Tokenizer:
    """The tokeniser of this name; ValueError where there is none."""
    if name not in TOKENIZERS:
        raise ValueError(f"unknown tokenizer {name!r}; known: {', '.join(TOKENIZERS)}")
    return TOKENIZERS[name]


_tokenizer = tokenizer  # under a name that no parameter hides


class _Vocabulary(dict[str, int]):
    """Token to number, in order of first sight."""

    def __missing__(self, token: str) -> int:
        self[token] = number = len(self)
        return number


class NoveltyIndex:
    """Texts by position in order of adding, and the nearest of them to a new one. In process, one core, one thread.

    An answer is a function of the texts, the floor and the range asked for, and of nothing else. Texts are not kept,
    only their tokens: 0.2 to 0.3 KB per instruction of 15 words. The first question after adding many texts prepares
    the lists: about a second at a million texts. Compiled code is loaded with the first question, and made when that is
    the first on this machine (some seconds).
    """

    def __init__(self, tokenizer: str = "rouge", floor: float = 0.6) -> None:
        """`floor` in [0, 1]: nothing with a smaller F is found, and the higher it is the quicker is the search."""
        if not 0 <= floor <= 1:
            raise ValueError(f"floor must lie between 0 and 1, not {floor}")
        self._tokens_of = _tokenizer(tokenizer)
        self._floor = max(floor, _LEAST_FLOOR)
        self._vocabulary = _Vocabulary()
        self._count = 0
        self._tokens: Array = np.empty(0, np.uint32)  # of all texts, one after the other; see Held in the kernels
        self._starts: Array = np.zeros(1, np.int64)
        self._bits: Array | None = None  # of the first self._flipped texts
        self._flipped = 0
        self._stamps: Array = np.empty(0, np.uint32)
        self._serial = 0  # of the last question; beyond 2**32 it equals no stamp, and a text may be met more than once
        self._masks: Array = np.empty((0, 0), np.uint64)  # all zero between two questions
        self._lists: Lists | None = None

    def __len__(self) -> int:
        return self._count

    def has_tokens(self, text: str) -> bool:
        """Whether the tokeniser finds anything in `text`; what has no tokens is near nothing, itself included."""
        return bool(self._tokens_of(text))

    def add(self, text: str) -> int:
        """Hold `text` after everything held so far, and return its position."""
        vocabulary = self._vocabulary
        numbers = [vocabulary[token] for token in self._tokens_of(text)]
        start, position = int(self._starts[self._count]), self._count
        self._tokens = _grown(self._tokens, start + len(numbers))
        self._starts = _grown(self._starts, position + 2)
        self._tokens[start : start + len(numbers)] = numbers
        self._starts[position + 1] = start + len(numbers)
        self._count += 1
        return position

    def extend(self, texts: Iterable[str]) -> None:
        """Add each of `texts` in order."""
        for text in texts:
            self.add(text)

    def nearest(self, text: str, first: int = 0, last: int | None = None) -> tuple[int, float] | None:
        """The position and F of the nearest text among positions first to last (not included; None: all), the earliest
        on a tie; None where no F reaches the floor. ValueError for a range that is not held."""
        return self.nearest_many([text], first, last)[0]

    def nearest_many(
        self, texts: Sequence[str], first: int = 0, last: int | None = None
    ) -> list[tuple[int, float] | None]:
        """`nearest` of each text."""
        from pipeline import novelty_kernels as kernels

        last = self._count if last is None else last
        if not 0 <= first <= last <= self._count:
            raise ValueError(f"positions {first} to {last} are not among the {self._count} held")
        numbers: list[int] = []
        ends: list[int] = []
        for text in texts:
            numbers += self._known(text)
            ends.append(len(numbers))
        held, lists = self._held(), self._listed()
        listed = min(lists.texts, last)
        span = first, listed if listed - first > FEW else first, last
        asked = np.array(numbers, np.uint32), np.array(ends, np.int64)
        positions, scores = kernels.nearest(held, lists, self._masks, self._floor, *asked, span, self._serial + 1)
        self._serial += len(texts)
        return [(p, f) if p >= 0 else None for p, f in zip(positions.tolist(), scores.tolist(), strict=True)]

    def scores(self, text: str) -> Array:
        """F of `text` against every held text, whatever the floor: float64, shape (len(self),), by position.

        The paper saves the ten largest and the mean. Looks at every text: about 30 microseconds per thousand.
        """
        from pipeline import novelty_kernels as kernels

        return kernels.all_scores(self._held(), self._masks, np.array(self._known(text), np.uint32), self._count)

    def _known(self, text: str) -> list[int]:
        """The numbers of a text's tokens; all that nothing held has share the next free one, which matches nothing."""
        get, unknown = self._vocabulary.get, len(self._vocabulary)
        return [get(token, unknown) for token in self._tokens_of(text)]

    def _held(self) -> Held:
        """All texts as the kernels take them, with bitmaps, stamps and masks of the size they need."""
        from pipeline import novelty_kernels as kernels

        if self._bits is None:
            self._bits = np.empty((0, kernels.WORDS), np.uint64)
        if len(self._bits) < self._count:
            self._bits = _grown(self._bits, self._count)
            self._stamps = np.zeros(len(self._bits), np.uint32)
        if self._flipped < self._count:
            kernels.flip_all(self._bits, self._tokens, self._starts, self._flipped, self._count)
            self._flipped = self._count
        if self._masks.shape[1] <= len(self._vocabulary):
            self._masks = np.zeros((kernels.STRIPS, len(self._vocabulary) * 3 // 2 + 1), np.uint64)
        return kernels.Held(self._tokens, self._starts, self._bits, self._stamps)

    def _listed(self) -> Lists:
        """The lists, made anew where too many texts have come since."""
        from pipeline import novelty_kernels as kernels

        listed = 0 if self._lists is None else self._lists.texts
        if self._lists is None or self._count - listed > max(FEW, listed // 8):
            self._lists = None  # its memory is free for the new ones
            count = self._count if self._count > FEW else 0
            size = len(self._vocabulary)
            rank = np.zeros(size, np.uint32)
            frequency = np.bincount(self._tokens[: self._starts[count]], minlength=size)
            rank[np.argsort(frequency, kind="stable")] = np.arange(1, size + 1)
            by_length = np.argsort(np.diff(self._starts[: count + 1]), kind="stable")
            ordered = kernels.sort_all(self._tokens, self._starts, count, rank)
            postings = kernels.list_postings(ordered, self._starts, by_length, self._floor, size + 1)
            self._lists = kernels.Lists(count, rank, *postings)
        return self._lists


def _grown(array: Array, size: int) -> Array:
    """The array, or where it has fewer than `size` rows a copy with half as many again at least."""
    if size <= len(array):
        return array
    larger = np.empty((max(size, len(array) * 3 // 2), *array.shape[1:]), array.dtype)
    larger[: len(array)] = array
    return larger
