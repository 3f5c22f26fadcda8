"""Scorers and what is compared within a batch: together they are the sequential filter."""

from __future__ import annotations

import asyncio
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.novelty import NoveltyIndex
from pipeline.scoring import Batch, InProcess
from tests.one_by_one import FLOOR, TEXTS, filtered, filtered_in_batches


@settings(max_examples=60, deadline=None)
@given(
    held=TEXTS,
    texts=TEXTS,
    threshold=st.sampled_from([0.3, 0.5, 0.7, 1.0]),
    sizes=st.lists(st.integers(1, 9), min_size=1),
)
def test_batches_of_any_size_give_the_sequential_result(held, texts, threshold, sizes) -> None:
    """Decisions and nearest neighbours are those of one text after the other, however the texts are batched."""
    scorer = InProcess("rouge", FLOOR)

    found = asyncio.run(filtered_in_batches(scorer, held, texts, threshold, sizes))

    assert found == filtered(held, texts, threshold)


@pytest.mark.parametrize(
    ("text", "before", "expected"),
    [
        pytest.param("a b c", (3, 1.0), (3, 1.0), id="a-tie-goes-to-what-was-held-before"),
        pytest.param("a b c", (3, 0.8), (10, 1.0), id="nearer-in-the-batch"),
        pytest.param("a b c", None, (10, 1.0), id="only-in-the-batch"),
        pytest.param("x y z", (3, 0.8), (3, 0.8), id="only-before"),
        pytest.param("x y z", None, None, id="nowhere"),
    ],
)
def test_the_nearest_of_both(text, before, expected) -> None:
    """The nearer of what the scorer found and what the batch kept; kept texts stand after all that was held."""
    batch = Batch("rouge", 0.5, 10)
    batch.keep("a b c")
    batch.keep("a b c")

    assert batch.nearest(text, before) == expected


def test_a_question_is_answered_beside_the_event_loop(monkeypatch) -> None:
    """The index searches in a thread of its own, so that the loop goes on feeding engines."""
    threads = []

    def searched(index: NoveltyIndex, texts: list[str]) -> list[None]:
        threads.append(threading.current_thread())
        return [None for _ in texts]

    monkeypatch.setattr(NoveltyIndex, "nearest_many", searched)
    asyncio.run(InProcess("rouge", FLOOR).nearest(["a"]))

    assert threads != [threading.current_thread()]


def test_closing_twice_does_no_harm() -> None:
    """A scorer may be closed again."""

    async def close() -> None:
        scorer = InProcess("rouge", FLOOR)
        await scorer.close()
        await scorer.close()

    asyncio.run(close())


def test_the_loop_goes_on_while_a_batch_is_scored() -> None:
    """The compiled search lets other threads run: the event loop turns many times beside one long question."""

    async def count_turns() -> int:
        scorer = InProcess("rouge", 0.3)
        scorer.extend(f"word{n % 97} and word{n % 89} of the word{n % 83} in word{n % 7} at {n}" for n in range(20_000))
        await scorer.nearest(["word1 and word2 of the word3"])  # compiled and listed before
        asked = asyncio.create_task(scorer.nearest([f"word{n % 97} of the word{n % 83} and {n}" for n in range(2_000)]))
        turns = 0
        while not asked.done():
            turns += 1
            await asyncio.sleep(0)
        return turns

    assert asyncio.run(count_turns()) > 500
