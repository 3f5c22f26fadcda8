"""Which pieces of a corpus are segments: the paper's rules (section 2.1 and appendix E), a reason for each refusal.

In order: header, length, repeated sentences, duplicate, near duplicate. Words are those of the `unicode` tokens of
novelty: of all scripts, without case and punctuation.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from itertools import accumulate, chain
from math import ceil
from typing import Any

import numpy as np
from rensa import RMinHash, RMinHashLSH

from pipeline.backtranslation_settings import CorpusSettings
from pipeline.novelty import unicode_tokens
from pipeline.records import Unfit

LEAST_WORDS = 6  # of a sentence that is looked at for repetition: shorter ones recur in any list
SHINGLE = 5  # words in a row, which near duplicates are compared by
SLOTS = 84  # of a MinHash: an estimate of 0.8 is off by 0.044 (one standard deviation)
BLOCK = 4096  # hashes kept in one array

_FENCED = re.compile(r"^[ >\t]*(`{3,}|~{3,})[^\n]*\n.*?(?:^[ >\t]*\1|\Z)", re.MULTILINE | re.DOTALL)
_TAG = re.compile(r"</?[a-zA-Z][^<>\n]{0,300}>")  # in Markdown: its words are nobody's
# A line that begins with a mark of a list, a quotation or a table is not the same sentence as the one before.
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|[。！？]+|\n\s*\n|\n(?=[ \t]*(?:[-*+>|#]|\d{1,9}[.)])\s)")

Trigrams = set[tuple[str, ...]]


class SegmentFilter:
    """Judges pieces one after the other; what it keeps is what later ones can be duplicates of."""

    def __init__(self, settings: CorpusSettings) -> None:
        self._settings = settings
        self._navigational = {_plain_words(header) for header in settings.navigational}
        self._duplicates = Duplicates(settings.duplicates, settings.near_duplicates)

    def remember(self, texts: Iterable[str]) -> None:
        """Hold these as kept before."""
        for text in texts:
            self._duplicates.unfit(text)

    def unfit(self, header: str | None, text: str) -> Unfit | None:
        """Why this is no segment; None for one, which is held from then on."""
        settings = self._settings
        if settings.headers and header is not None and (reason := self._header_unfit(header)):
            return reason
        length = len(text.strip())
        if length < settings.min_characters:
            return Unfit.TOO_SHORT
        if length > settings.max_characters:
            return Unfit.TOO_LONG
        if settings.repeated_sentences and repeats_a_sentence(text, settings.repeated_sentences):
            return Unfit.REPEATED_SENTENCES
        return self._duplicates.unfit(text)

    def _header_unfit(self, header: str) -> Unfit | None:
        words = _plain_words(header)
        if not any(character.isalnum() for character in header):
            return Unfit.HEADER_EMPTY
        if sum(character.isalpha() for character in header) >= 2 and header.isupper():
            return Unfit.HEADER_UPPER_CASE
        return Unfit.HEADER_NAVIGATIONAL if words in self._navigational else None


def _plain_words(header: str) -> str:
    """A header's words without case, punctuation, and the number before them."""
    words = unicode_tokens(header)
    while len(words) > 1 and words[0].isdecimal():
        words = words[1:]
    return " ".join(words)


# Repetition


def repeats_a_sentence(text: str, threshold: float) -> bool:
    """Whether two sentences of at least six words share word trigrams with this Jaccard similarity or more.

    Fenced code is left out: its lines are alike by nature. Only sentences with rare trigrams in common are compared, so
    time grows with the text and not with its square.
    """
    sentences = [_trigrams(sentence) for sentence in _SENTENCE_END.split(_TAG.sub(" ", _FENCED.sub("\n\n", text)))]
    counts = Counter(chain.from_iterable(sentences))
    repeated = {trigram for trigram, count in counts.items() if count > 1}
    by_trigram: defaultdict[tuple[str, ...], list[Trigrams]] = defaultdict(list)
    for trigrams in sentences:
        # Of a similar pair each shares so many of its trigrams with the other, so all but that many are enough to meet.
        shared = ceil(threshold * len(trigrams) - 1e-9)
        if len(trigrams & repeated) < max(shared, 1):
            continue
        rarest = sorted(trigrams, key=lambda trigram: (counts[trigram], trigram))[: len(trigrams) - shared + 1]
        for trigram in rarest:
            for other in by_trigram[trigram]:
                if len(trigrams & other) >= threshold * len(trigrams | other):
                    return True
            by_trigram[trigram].append(trigrams)
    return False


def _trigrams(sentence: str) -> Trigrams:
    words = unicode_tokens(sentence)
    return set(zip(words, words[1:], words[2:], strict=False)) if len(words) >= LEAST_WORDS else set()


# Duplicates


class Duplicates:
    """The segments kept so far, as far as later ones are compared with them.

    Exact: a digest of 16 bytes of the text with its white space made single spaces. Near: a MinHash over the runs of
    five words, by `rensa`. Its LSH index names candidates; whether one is near is decided by the share of equal slots.
    With a threshold of 0.8 the index misses 1.4 % of the pairs that are exactly there, and 0.1 % of those at 0.85.

    A held segment takes 1,800 bytes at a threshold of 0.8, on average over the first 120,000, and 2,200 at most: the
    index's tables grow by doubling. It takes 1,600 bytes at 0.9, 2,500 at 0.7, 3,200 at 0.5, and 110 without near
    duplicates. The same texts in the same order are judged the same in any process.

    Why `rensa` and not `datasketch`: measured on segments of 2,200 characters with 128 slots, both estimate without
    bias and with the same spread; `rensa` takes 27 µs instead of 366 µs for a MinHash, and half the memory.
    """

    def __init__(self, exact: bool, threshold: float) -> None:
        """`threshold` is the least Jaccard similarity of near duplicates; 0 turns them off."""
        self._exact = exact
        self._threshold = threshold
        self._digests: set[bytes] = set()
        self._blocks: list[np.ndarray[Any, Any]] = []  # the MinHashes held, BLOCK in each
        self._held = 0
        self._index = RMinHashLSH(threshold, SLOTS, SLOTS // _rows(threshold)) if threshold else None

    def unfit(self, text: str) -> Unfit | None:
        """Which kind of duplicate a text is of one held; None for neither, and it is held from then on."""
        digest = hashlib.blake2b(" ".join(text.split()).encode(), digest_size=16).digest()
        if self._exact and digest in self._digests:
            return Unfit.DUPLICATE
        if self._index is not None:
            minhash = RMinHash(SLOTS, 1)
            minhash.update(shingles(text))
            slots = np.array(minhash.digest(), np.uint32).astype(np.uint16)  # a tie by chance: 1 in 65,536
            if self._is_near(slots, self._index.query(minhash)):
                return Unfit.NEAR_DUPLICATE
            if self._held % BLOCK == 0:
                self._blocks.append(np.empty((BLOCK, SLOTS), np.uint16))
            self._blocks[-1][self._held % BLOCK] = slots
            self._index.insert(self._held, minhash)
        self._held += 1
        if self._exact:
            self._digests.add(digest)
        return None

    def _is_near(self, slots: np.ndarray[Any, Any], candidates: Iterable[int]) -> bool:
        least = ceil(self._threshold * SLOTS - 1e-9)
        return any((self._blocks[one // BLOCK][one % BLOCK] == slots).sum() >= least for one in candidates)


def shingles(text: str) -> list[str]:
    """The runs of five words of a text; a shorter one is its own only run."""
    words = unicode_tokens(text)
    if len(words) < SHINGLE:
        return [" ".join(words)]
    ends = list(accumulate((len(word) + 1 for word in words), initial=0))  # where each begins, and one after the last
    joined = " ".join(words)
    return [joined[begin : end - 1] for begin, end in zip(ends, ends[SHINGLE:], strict=False)]


def _rows(threshold: float) -> int:
    """How many slots make a band of the index: the most with which it misses under 3 % of pairs at the threshold."""
    fitting = [rows for rows in (12, 7, 6, 4, 3, 2, 1) if (1 - threshold**rows) ** (SLOTS // rows) < 0.03]
    return fitting[0] if fitting else 1
