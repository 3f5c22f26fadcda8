"""The pool: what a prompt may be drawn from, and how."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

import pytest

from pipeline.pool import Pool
from pipeline.records import Instance, Seed
from pipeline.scoring import InProcess

SEEDS = [Seed(f"s{n}", f"Seed task {n}.", (Instance("", "x"),), False) for n in range(10)]


def pool_of(admitted: int) -> Pool:
    """A pool of ten seeds and so many admitted instructions, each of a unit of its own."""
    pool = Pool(SEEDS)
    for number in range(admitted):
        pool.admit(f"m{number}", f"Machine task {number}.")
        pool.close_unit()
    return pool


@pytest.mark.parametrize(
    ("length", "machine_made", "expected"),
    [
        pytest.param(20, 2, 2, id="6-and-2"),
        pytest.param(2, 2, 2, id="both-there-are"),
        pytest.param(1, 2, 1, id="7-and-1"),
        pytest.param(0, 2, 0, id="8-and-0"),
        pytest.param(20, 0, 0, id="none-wanted"),
    ],
)
def test_sample_mixes_seeds_and_machine_made(length: int, machine_made: int, expected: int) -> None:
    """Up to so many demonstrations are machine-made, as far as there are any; the rest are seeds, none twice."""
    pool = pool_of(20)
    for seed in range(50):
        sample = pool.sample(length, 8, machine_made, random.Random(seed))

        assert sum(one.machine_made for one in sample) == expected
        assert len({one.id for one in sample}) == 8
        assert all(one.id.startswith("m" if one.machine_made else "s") for one in sample)


def test_a_snapshot_hides_what_came_later() -> None:
    """A sample at a length never shows an instruction admitted after it, and later ones do not change it."""
    early, late = pool_of(3), pool_of(30)
    for seed in range(50):
        sample = late.sample(3, 8, 2, random.Random(seed))

        assert {one.id for one in sample if one.machine_made} <= {"m0", "m1", "m2"}
        assert sample == early.sample(3, 8, 2, random.Random(seed))


def test_sample_is_uniform_and_shuffled() -> None:
    """Every seed and every visible instruction can be drawn, and a machine-made one can stand anywhere."""
    pool = pool_of(4)
    samples = [pool.sample(4, 8, 2, random.Random(seed)) for seed in range(400)]
    drawn = Counter(one.id for sample in samples for one in sample)
    places = {place for sample in samples for place, one in enumerate(sample) if one.machine_made}

    assert len(drawn) == 14
    assert all(150 < drawn[f"m{number}"] < 250 for number in range(4))
    assert all(190 < drawn[f"s{number}"] < 290 for number in range(10))
    assert places == set(range(8))


def test_a_sample_is_a_function_of_the_stream() -> None:
    """The same stream gives the same sample, another stream another."""
    pool = pool_of(20)
    first, again, other = (pool.sample(20, 8, 2, random.Random(seed)) for seed in (1, 1, 2))

    assert first == again
    assert first != other


def test_length_after_a_unit() -> None:
    """The length after a unit is what was admitted when it had passed; none before the first unit."""
    pool = Pool(SEEDS)
    for unit, count in enumerate([0, 2, 0, 3]):
        for number in range(count):
            pool.admit(f"r/{unit}/{number}", "x")
        pool.close_unit()
    pool.admit("r/4/0", "x")

    assert [pool.length_after(unit) for unit in range(-2, 4)] == [0, 0, 0, 2, 2, 5]
    assert (pool.units, pool.admitted) == (4, 6)


def test_positions_count_seeds_first() -> None:
    """Seeds have the first positions and admitted instructions those after them, in order."""
    pool = pool_of(3)

    assert len(pool) == 13
    assert [pool.id_at(position) for position in (0, 9, 10, 12)] == ["s0", "s9", "m0", "m2"]


def test_a_scorer_holds_what_the_pool_holds() -> None:
    """It is given seeds and instructions in order of position, and each one that is admitted later."""
    pool = pool_of(2)
    assert not pool.scored
    pool.score_with(InProcess("rouge", 0.5))
    pool.admit("m2", "Paint the tall fence")
    pool.admit("m3", "Seed task 3.")
    asked = ["paint the tall fence", "machine task 1", "seed task 3", "something else"]

    assert pool.scored
    assert asyncio.run(pool.nearest(asked)) == [(12, 1.0), (11, 1.0), (3, 1.0), None]


def test_lengths_are_held_for_a_window_only() -> None:
    """However many units pass, the lengths of the last window and one more are known, and no others are held."""
    pool = Pool(SEEDS, window=4)
    for unit in range(1000):
        pool.admit(f"t/{unit}/0", f"Instruction number {unit}.")
        pool.close_unit()

    assert [pool.length_after(unit) for unit in range(995, 1000)] == list(range(996, 1001))
    assert pool.units == 1000
    assert len(pool._lengths) == 5
