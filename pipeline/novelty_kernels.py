"""The compiled part of `novelty.py`: plain loops over integer arrays, made machine code by numba on first use.

Terms. A text is an array of token numbers in reading order; m is the query's length, n a held text's. L is the length
of their longest common subsequence, at most the number of tokens they share (repeats counted). `bound` is the F that a
pair has to reach: the floor, then the best F found.

A pair reaches F >= b only if L >= b * (m + n) / 2; `required` takes a little less than b, so that rounding can only let
a pair through that the exact comparison then refuses. From this follow, without loss:

* length: L <= min(m, n), so n lies between m * b / (2 - b) and m * (2 - b) / b;
* position (the joins AllPairs and PPJoin): tokens are ranked, rarest first, and each text sorted by rank. If the first
  token that two sorted texts share stands at place i of one and j of the other, then L <= min(m - i, n - j). So only
  the first places of a text need to be looked up, and only those of the held texts are listed;
* bitmap: each token flips one of a text's bits. The bits in which two texts differ are at most the tokens that they do
  not share, which are m + n - 2 * shared.

What is left is compared, by a bit-parallel LCS. No fastmath: the order of float operations is part of the result. Hot
loops take arrays out of tuples first and do the cheap checks in place: handing a tuple of arrays to a function for each
text costs more than the checks (measured: four times the whole search).
"""

from __future__ import annotations

from collections.abc import Callable
from math import ceil
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numba import njit

Function = TypeVar("Function", bound=Callable[..., Any])
Array = np.ndarray[Any, Any]
Best = tuple[int, float]  # a position (-1: none) and its F
Span = tuple[int, int, int]

WORDS = 4  # 64-bit words of bitmap per text
STRIPS = 4  # rows of masks: strips of 64 tokens that a long text is compared in at once
SLACK = 1e-9  # relative: far above what rounding can do (1e-15), far below one token in a text of a million
FIELD = 0xFFFF  # lengths and places in a posting end here: longer ones are written so, and their bounds left open
ONE = np.uint64(1)


class Held(NamedTuple):
    """The text at position p is tokens[starts[p]:starts[p + 1]] (uint32) and has the bitmap bits[p] (uint64, WORDS);
    stamps[p] (uint32) is the serial number of the last query that met it in the lists."""

    tokens: Array
    starts: Array
    bits: Array
    stamps: Array


class Lists(NamedTuple):
    """The first `texts` texts by their rare tokens: rank[token] (uint32, from 1, rarest first), and `list_postings`."""

    texts: int
    rank: Array
    offsets: Array
    postings: Array


def compiled(function: Function) -> Function:
    """Machine code, kept on disk beside the module, else in the user's cache folder, else only in this process."""
    try:
        return njit(cache=True, nogil=True)(function)  # type: ignore[no-any-return]
    except RuntimeError:  # no folder can be written to
        return njit(nogil=True)(function)  # type: ignore[no-any-return]


@compiled
def required(bound: float, m: int, n: int) -> int:
    """The smallest L with which a pair of lengths m and n can reach `bound`, at least 1."""
    return max(1, ceil(bound * (1.0 - SLACK) * (m + n) * 0.5))


@compiled
def shortest(bound: float, m: int) -> int:
    """The least length that can reach `bound` with m tokens; also the least L that m tokens can reach it with."""
    bound *= 1.0 - SLACK
    return max(1, ceil(m * bound / (2.0 - bound) * (1.0 - SLACK)))


@compiled
def longest(bound: float, m: int) -> int:
    """The greatest length that can reach `bound` with m tokens, or one more."""
    bound *= 1.0 - SLACK
    return int(m * (2.0 - bound) / bound * (1.0 + SLACK)) + 1


@compiled
def f_measure(common: int, m: int, n: int) -> float:
    """ROUGE-L F of a text of m tokens against one of n with an LCS of `common`, as `rouge_score` computes it."""
    if common == 0:
        return 0.0
    precision = common / n
    recall = common / m
    return 2 * precision * recall / (precision + recall)


@compiled
def ones(x: np.uint64) -> int:
    """How many bits of x are set (LLVM knows these lines and makes them one instruction)."""
    x = x - ((x >> ONE) & np.uint64(0x5555555555555555))
    x = (x & np.uint64(0x3333333333333333)) + ((x >> np.uint64(2)) & np.uint64(0x3333333333333333))
    x = (x + (x >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return np.int64((x * np.uint64(0x0101010101010101)) >> np.uint64(56))  # type: ignore[return-value]


@compiled
def flip(bits: Array, tokens: Array) -> None:
    """Make `bits` (uint64, WORDS) the bitmap of `tokens`."""
    bits[:] = 0
    for token in tokens:
        mixed = np.uint64(token) * np.uint64(0x9E3779B97F4A7C15)  # neighbouring numbers to distant bits
        bit = (mixed >> np.uint64(32)) % np.uint64(64 * WORDS)
        bits[bit >> np.uint64(6)] ^= ONE << (bit & np.uint64(63))


@compiled
def flip_all(bits: Array, tokens: Array, starts: Array, first: int, last: int) -> None:
    """Fill rows `first` to `last` of `bits` (uint64, texts x WORDS)."""
    for position in range(first, last):
        flip(bits[position], tokens[starts[position] : starts[position + 1]])


@compiled
def unshared(all_bits: Array, position: int, bits: Array) -> int:
    """In how many bits a held text's bitmap differs from `bits`."""
    differ = 0
    for word in range(WORDS):
        differ += ones(all_bits[position, word] ^ bits[word])
    return differ


@compiled
def set_masks(masks: Array, text: Array, start: int, end: int) -> None:
    """Note where each of text[start:end], up to 64 * STRIPS tokens, stands: place p is bit p % 64 of row p // 64."""
    for place in range(end - start):
        masks[place >> 6, text[start + place]] |= ONE << np.uint64(place & 63)


@compiled
def clear_masks(masks: Array, text: Array, start: int, end: int) -> None:
    """Undo `set_masks`."""
    for place in range(end - start):
        masks[place >> 6, text[start + place]] = 0


@compiled
def common_short(masks: Array, tokens: Array, start: int, end: int) -> int:
    """L of the text in row 0 of `masks` and tokens[start:end].

    The zeros of `column` are the places at which a column of the LCS table steps up by one.
    """
    column = ~np.uint64(0)
    for place in range(start, end):
        matched = column & masks[0, tokens[place]]
        column = (column + matched) | (column - matched)
    return ones(~column)


@compiled
def step(column: np.uint64, mask: np.uint64, carry: np.uint64) -> tuple[np.uint64, np.uint64]:
    """One word of a column on by one token, and the carry into the next word."""
    matched = column & mask
    added = column + matched
    carried = added + carry
    return carried | (column - matched), np.uint64(added < column) | np.uint64(carried < added)


@compiled
def common_long(masks: Array, text: Array, tokens: Array, start: int, end: int, least: int) -> int:
    """L of `text` and tokens[start:end] at any length; 0 once it is clear that L < `least`.

    `text` is taken in pieces of 64 * STRIPS tokens, whose columns go over all of the held tokens; what is carried from
    one piece to the next is one bit per held token. The four words are spelt out to stay in registers.
    """
    carries = np.zeros(end - start, np.uint8)
    common = 0
    for done in range(0, len(text), 64 * STRIPS):
        until = min(len(text), done + 64 * STRIPS)
        set_masks(masks, text, done, until)
        a = b = c = d = ~np.uint64(0)
        for place in range(end - start):
            token = tokens[start + place]
            a, carry = step(a, masks[0, token], np.uint64(carries[place]))
            b, carry = step(b, masks[1, token], carry)
            c, carry = step(c, masks[2, token], carry)
            d, carry = step(d, masks[3, token], carry)
            carries[place] = carry
        clear_masks(masks, text, done, until)
        common += ones(~a) + ones(~b) + ones(~c) + ones(~d)
        if common + len(text) - until < least:
            return 0
    return common


@compiled
def score(masks: Array, text: Array, tokens: Array, start: int, end: int, least: int) -> float:
    """F of `text` (whose masks are set where it is short) against tokens[start:end]; 0 where L < `least`."""
    if len(text) <= 64:
        common = common_short(masks, tokens, start, end)
    else:
        common = common_long(masks, text, tokens, start, end, least)
    return f_measure(common, len(text), end - start) if common >= least else 0.0


@compiled
def sort_by_rank(text: Array, rank: Array) -> Array:
    """The ranks of a text's tokens, ascending; 0 for a token that has no rank, as none of the listed texts has it."""
    ranks = np.zeros(len(text), np.uint32)
    for place in range(len(text)):
        if text[place] < len(rank):
            ranks[place] = rank[text[place]]
    if len(text) > 64:
        ranks.sort()
        return ranks
    for place in range(1, len(ranks)):
        moved, free = ranks[place], place
        while free > 0 and ranks[free - 1] > moved:
            ranks[free] = ranks[free - 1]
            free -= 1
        ranks[free] = moved
    return ranks


@compiled
def sort_all(tokens: Array, starts: Array, count: int, rank: Array) -> Array:
    """`sort_by_rank` of the first `count` texts, one after the other as in `tokens`."""
    ordered = np.empty(starts[count], np.uint32)
    for position in range(count):
        start, end = starts[position], starts[position + 1]
        ordered[start:end] = sort_by_rank(tokens[start:end], rank)
    return ordered


@compiled
def list_postings(ordered: Array, starts: Array, by_length: Array, floor: float, ranks: int) -> tuple[Array, Array]:
    """For each rank the texts that have it in their first places: offsets, and postings (of r: offsets[r] to r + 1).

    A posting is n << 48 | place << 32 | position (n and place at most FIELD), and each rank's are ascending, but for
    places among those of length FIELD. A repeated token is listed once, at its first place. `by_length` are the texts
    by ascending length, then position.
    """
    offsets = np.zeros(ranks + 1, np.int64)
    for position in by_length:
        start, n = starts[position], starts[position + 1] - starts[position]
        for place in range(n - shortest(floor, n) + 1):
            if place == 0 or ordered[start + place] != ordered[start + place - 1]:
                offsets[ordered[start + place] + 1] += 1
    offsets = offsets.cumsum()
    filled = offsets[:-1].copy()
    postings = np.empty(offsets[-1], np.uint64)
    group = 0
    while group < len(by_length):
        n, end = starts[by_length[group] + 1] - starts[by_length[group]], group
        while end < len(by_length) and starts[by_length[end] + 1] - starts[by_length[end]] == n:
            end += 1
        for place in range(n - shortest(floor, n) + 1):
            head = np.uint64(min(n, FIELD)) << np.uint64(48) | np.uint64(min(place, FIELD)) << np.uint64(32)
            for position in by_length[group:end]:
                at = starts[position] + place
                if place == 0 or ordered[at] != ordered[at - 1]:
                    postings[filled[ordered[at]]] = head | np.uint64(position)
                    filled[ordered[at]] += 1
        group = end
    return offsets, postings


@compiled
def length_in(posting: np.uint64) -> int:
    """The length of a posting's text, or FIELD."""
    return np.int64(posting >> np.uint64(48))  # type: ignore[return-value]


@compiled
def position_in(posting: np.uint64) -> int:
    """The position of a posting's text."""
    return np.int64(posting & np.uint64(0xFFFFFFFF))  # type: ignore[return-value]


@compiled
def seek(postings: Array, start: int, end: int, key: np.uint64) -> int:
    """The first place from `start` on whose posting is at least `key`, or `end`; quick where it is near."""
    stride = 1
    while start + stride < end and postings[start + stride] < key:
        start += stride
        stride *= 2
    end = min(end, start + stride)
    while start < end:
        middle = (start + end) // 2
        if postings[middle] < key:
            start = middle + 1
        else:
            end = middle
    return start


@compiled
def look_up(
    held: Held, lists: Lists, masks: Array, text: Array, bits: Array, floor: float, first: int, last: int, serial: int
) -> Best:
    """The nearest of the listed texts from `first` to `last`; (-1, 0.0) where none reaches the floor."""
    where, most = -1, 0.0
    if last <= first:
        return where, most
    tokens, starts, all_bits, stamps, postings = held.tokens, held.starts, held.bits, held.stamps, lists.postings
    m = len(text)
    ranks = sort_by_rank(text, lists.rank)
    for i in range(m):
        least_n = shortest(max(floor, most), m)
        if m - i < least_n:
            break
        if i and ranks[i] == ranks[i - 1]:
            continue
        at, end = lists.offsets[ranks[i]], lists.offsets[ranks[i] + 1]
        at = seek(postings, at, end, np.uint64(min(FIELD, least_n)) << np.uint64(48))
        while at < end:  # once for every length
            bound = max(floor, most)
            n = length_in(postings[at])
            least = required(bound, m, n)
            if m - i < least or n > longest(bound, m):
                break
            group = stop = end
            if n < FIELD:
                group = seek(postings, at, end, np.uint64(n + 1) << np.uint64(48))
                stop = seek(postings, at, group, np.uint64(n << 16 | (n - least + 1)) << np.uint64(32))
            for place in range(at, stop):
                position = position_in(postings[place])
                if position < first or position >= last:
                    continue
                length = n if n < FIELD else starts[position + 1] - starts[position]  # the bitmap is the one read that
                least = required(max(floor, most), m, length)  # memory has to answer for each
                if m + length - unshared(all_bits, position, bits) < 2 * least or stamps[position] == serial:
                    continue
                stamps[position] = serial
                f = score(masks, text, tokens, starts[position], starts[position + 1], least)
                if f >= floor and (f > most or (f == most and position < where)):
                    where, most = position, f
            at = group
    return where, most


@compiled
def scan(held: Held, masks: Array, text: Array, bits: Array, floor: float, first: int, last: int, best: Best) -> Best:
    """The better of `best` and the nearest of the held texts from `first` to `last`, looking at each."""
    where, most = best
    tokens, starts, all_bits = held.tokens, held.starts, held.bits
    m = len(text)
    for position in range(first, last):
        n = starts[position + 1] - starts[position]
        bound = max(floor, most)
        if n < shortest(bound, m) or n > longest(bound, m):
            continue
        least = required(bound, m, n)
        if m + n - unshared(all_bits, position, bits) < 2 * least:
            continue
        f = score(masks, text, tokens, starts[position], starts[position + 1], least)
        if f >= floor and (f > most or (f == most and position < where)):
            where, most = position, f
    return where, most


@compiled
def nearest(
    held: Held, lists: Lists, masks: Array, floor: float, texts: Array, ends: Array, span: Span, serial: int
) -> tuple[Array, Array]:
    """For each text (k is texts[ends[k - 1]:ends[k]]) the position of the nearest in the span, or -1, and its F.

    Held texts are looked up from span[0] to span[1] and looked at one by one from there to span[2]. The texts have
    serial numbers from `serial`.
    """
    positions, scores = np.full(len(ends), -1, np.int64), np.zeros(len(ends))
    bits = np.zeros(WORDS, np.uint64)
    start = 0
    for number in range(len(ends)):
        text = texts[start : ends[number]]
        start = ends[number]
        flip(bits, text)
        if len(text) <= 64:
            set_masks(masks, text, 0, len(text))
        best = look_up(held, lists, masks, text, bits, floor, span[0], span[1], serial + number)
        best = scan(held, masks, text, bits, floor, span[1], span[2], best)
        if len(text) <= 64:
            clear_masks(masks, text, 0, len(text))
        positions[number], scores[number] = best
    return positions, scores


@compiled
def all_scores(held: Held, masks: Array, text: Array, count: int) -> Array:
    """F of `text` against each of the first `count` held texts: float64, shape (count,)."""
    scores = np.zeros(count)
    if len(text) <= 64:
        set_masks(masks, text, 0, len(text))
    for position in range(count):
        scores[position] = score(masks, text, held.tokens, held.starts[position], held.starts[position + 1], 0)
    if len(text) <= 64:
        clear_masks(masks, text, 0, len(text))
    return scores
