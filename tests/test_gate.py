"""The gate: candidates in unit order, each against everything admitted before it, whatever the timing."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import RunStopped
from pipeline.gate import MOST_UNITS, Gate
from pipeline.pool import Pool
from pipeline.records import Candidate, Instance, Nearest, Reason, Seed, Verdict
from pipeline.scoring import Found, InProcess
from pipeline.settings import NoveltySettings
from tests.one_by_one import FLOOR, TEXTS, filtered

SEEDS = ("a b c d e", "p q r s")


class Slow(InProcess):
    """A scorer that takes its time, and keeps what it was asked."""

    def __init__(self, rng: random.Random | None = None) -> None:
        super().__init__("rouge", FLOOR)
        self.rng = rng
        self.asked: list[list[str]] = []
        self.under_way = 0
        self.free = asyncio.Event()
        self.free.set()
        self.error: Exception | None = None

    async def nearest(self, texts: Sequence[str]) -> list[Found]:
        self.asked.append(list(texts))
        self.under_way += 1
        try:
            for _ in range(self.rng.randrange(6) if self.rng else 0):
                await asyncio.sleep(0)
            await self.free.wait()
        finally:
            self.under_way -= 1
        if self.error:
            raise self.error
        return await super().nearest(texts)


class Passage:
    """A gate over a pool of two seeds, and what has passed it."""

    def __init__(self, *, scorer: Slow | None = None, target: int = 1000, last: int = 1000, **novelty) -> None:
        self.scorer = scorer or Slow()
        self.pool = Pool([Seed(f"s{n}", text, (Instance("", "x"),), False) for n, text in enumerate(SEEDS)])
        self.pool.score_with(self.scorer)
        self.passed: list[tuple[int, int, int]] = []
        self.last = last
        self.gate = Gate(self.pool, "t", NoveltySettings(floor=FLOOR, **novelty), target, self._passed)

    def _passed(self, unit: int, candidates: int, admitted: int) -> bool:
        self.passed.append((unit, candidates, admitted))
        return unit < self.last

    def admit(self, unit: int, texts: Iterable[str]) -> asyncio.Task[list[Verdict]]:
        """Bring a unit to the gate, in the background."""
        candidates = [Candidate(unit, index, text) for index, text in enumerate(texts)]
        return asyncio.create_task(self.gate.admit(unit, candidates))


async def settle() -> None:
    """Let whatever can go on do so."""
    for _ in range(20):
        await asyncio.sleep(0.001)


@settings(max_examples=60, deadline=None)
@given(texts=TEXTS, threshold=st.sampled_from([0.3, 0.5, 0.7, 1.0]), seed=st.integers(0, 2**32))
def test_any_order_of_arrival_gives_the_sequential_result(texts, threshold, seed) -> None:
    """Units that come in any order, to a scorer of any speed, get the verdicts of one text after the other."""
    rng = random.Random(seed)
    units: list[list[str]] = [[] for _ in range(8)]
    for text in texts:
        units[rng.randrange(8)].append(text)

    async def through() -> tuple[Passage, list[Verdict]]:
        passage = Passage(scorer=Slow(rng), threshold=threshold)
        tasks: dict[int, asyncio.Task[list[Verdict]]] = {}
        for unit in rng.sample(range(8), 8):
            tasks[unit] = passage.admit(unit, units[unit])
            for _ in range(rng.randrange(4)):
                await asyncio.sleep(0)
        return passage, [verdict for unit in range(8) for verdict in await tasks[unit]]

    passage, verdicts = asyncio.run(through())
    in_order = [text for unit in units for text in unit]
    truth = filtered(SEEDS, in_order, threshold)
    ids = ["s0", "s1", *(f"t/{v.candidate.unit}/{v.candidate.index}" for v in verdicts if v.admitted)]

    assert [verdict.candidate.instruction for verdict in verdicts] == in_order
    assert [verdict.admitted for verdict in verdicts] == [kept for kept, _ in truth]
    assert [verdict.nearest for verdict in verdicts] == [
        Nearest(ids[found[0]], found[1]) if found else None for _, found in truth
    ]
    assert {verdict.reason for verdict in verdicts if not verdict.admitted} <= {Reason.NOT_NOVEL}
    assert [unit for unit, _, _ in passage.passed] == list(range(8))
    assert sum(admitted for _, _, admitted in passage.passed) == passage.pool.admitted


@pytest.mark.asyncio
async def test_what_is_ready_is_scored_at_once() -> None:
    """What waits for the first unit is one question, what comes during it another; no text is asked twice in one."""
    passage = Passage()
    passage.scorer.free.clear()
    later = [passage.admit(unit, [f"x{unit} y{unit}", "u v"]) for unit in (2, 1)]
    await settle()
    assert passage.scorer.asked == []
    first = passage.admit(0, ["u v"])
    await settle()
    last = [passage.admit(unit, [f"x{unit} y{unit}"]) for unit in (4, 3)]
    await settle()
    passage.scorer.free.set()
    await asyncio.gather(first, *later, *last)

    assert passage.scorer.asked == [["u v", "x1 y1", "x2 y2"], ["x3 y3", "x4 y4"]]


@pytest.mark.asyncio
async def test_a_question_is_bounded() -> None:
    """However many units are ready, one question holds so many and no more."""
    passage = Passage()
    tasks = [passage.admit(unit, [f"x{unit}"]) for unit in range(2 * MOST_UNITS + 5)]
    await asyncio.gather(*tasks)

    assert [len(asked) for asked in passage.scorer.asked] == [MOST_UNITS, MOST_UNITS, 5]


@pytest.mark.asyncio
async def test_the_target_cuts_inside_a_batch() -> None:
    """The target is reached exactly; every later candidate, of that unit too, is refused for it and not compared."""
    passage = Passage(target=2)
    tasks = [passage.admit(0, ["k l", "a b c d e", "m n", "a b c d e"]), passage.admit(1, ["o o"])]
    verdicts = [verdict for task in tasks for verdict in await task]

    assert [verdict.reason for verdict in verdicts] == [
        None,
        Reason.NOT_NOVEL,
        None,
        Reason.TARGET_REACHED,
        Reason.TARGET_REACHED,
    ]
    assert verdicts[3].nearest is None
    assert (await passage.admit(2, ["i j"]))[0].reason is Reason.TARGET_REACHED
    assert len(passage.scorer.asked) == 1


@pytest.mark.asyncio
async def test_a_candidate_without_tokens_is_refused() -> None:
    """Text that the tokeniser sees nothing in would always be novel, so it has a reason of its own."""
    refused = await Passage().admit(0, ["写一首关于秋天的诗", "?!"])
    admitted = await Passage(tokenizer="unicode").admit(0, ["写一首关于秋天的诗"])

    assert [verdict.reason for verdict in refused] == [Reason.NO_TOKENS, Reason.NO_TOKENS]
    assert admitted[0].admitted


@pytest.mark.asyncio
async def test_a_tie_goes_to_the_earliest() -> None:
    """Equal scores: a seed before what was admitted, an earlier unit before a later one, in a batch and after it."""
    passage = Passage(threshold=1.0)
    tasks = [passage.admit(0, ["p q r s", "x y"]), passage.admit(1, ["x y"]), passage.admit(2, ["x y", "p q r s"])]
    batch = [verdict.nearest for task in tasks for verdict in await task]
    after = [verdict.nearest for verdict in await passage.admit(3, ["x y", "p q r s"])]

    near_seed, near_first = Nearest("s1", 1.0), Nearest("t/0/1", 1.0)
    assert batch == [near_seed, None, near_first, near_first, near_seed]
    assert after == [near_first, near_seed]


@pytest.mark.asyncio
async def test_an_error_of_the_scorer_reaches_every_unit_that_waits() -> None:
    """Those in the question and those that wait for their turn all get it, and none passes."""
    passage = Passage()
    passage.scorer.error = RunStopped("no worker")
    tasks = [passage.admit(unit, ["x"]) for unit in (0, 1, 5)]

    for task in tasks:
        with pytest.raises(RunStopped, match="no worker"):
            await task
    assert passage.passed == []


@pytest.mark.asyncio
async def test_a_fault_while_a_unit_passes_reaches_that_unit_too(monkeypatch) -> None:
    """A fault after the scoring leaves no unit waiting for ever."""
    passage = Passage()
    monkeypatch.setattr(passage, "last", "no number")
    tasks = [passage.admit(unit, ["x"]) for unit in (0, 1)]

    for task in tasks:
        with pytest.raises(TypeError):
            await asyncio.wait_for(task, 5)


@pytest.mark.asyncio
async def test_no_unit_passes_after_the_last() -> None:
    """When the driver says that a unit was the last, the others of its batch wait until they are cancelled."""
    passage = Passage(last=1)
    tasks = [passage.admit(unit, [f"x{unit}"]) for unit in range(4)]
    await settle()

    assert [task.done() for task in tasks] == [True, True, False, False]
    assert [unit for unit, _, _ in passage.passed] == [0, 1]
    assert passage.pool.admitted == 2
    for task in tasks[2:]:
        task.cancel()


@pytest.mark.asyncio
async def test_a_closed_gate_lets_nothing_pass() -> None:
    """Closing ends the question under way, and what is asked later waits too."""
    passage = Passage()
    passage.scorer.free.clear()
    asked = passage.admit(0, ["x"])
    await settle()
    assert passage.scorer.under_way == 1
    passage.gate.close()
    await settle()
    assert passage.scorer.under_way == 0
    passage.scorer.free.set()
    later = passage.admit(1, ["y"])
    await settle()

    assert not asked.done()
    assert not later.done()
    assert (passage.passed, passage.pool.admitted) == ([], 0)
    asked.cancel()
    later.cancel()


@pytest.mark.asyncio
async def test_a_cancelled_unit_passes_all_the_same() -> None:
    """A unit that was cancelled at the gate does not hold up those after it."""
    passage = Passage()
    passage.scorer.free.clear()
    first, second = passage.admit(0, ["x"]), passage.admit(1, ["y"])
    await settle()
    first.cancel()
    passage.scorer.free.set()

    assert (await second)[0].admitted
    assert passage.passed == [(0, 1, 1), (1, 1, 1)]


@pytest.mark.asyncio
async def test_without_novelty_nothing_is_compared() -> None:
    """With novelty off copies are admitted, no nearest neighbour is recorded and no scorer is asked."""
    passage = Passage(enabled=False)
    verdicts = await passage.admit(0, ["a b c d e", "a b c d e", "?!"])

    assert [(verdict.admitted, verdict.nearest) for verdict in verdicts] == [(True, None)] * 3
    assert passage.scorer.asked == []
