"""Novelty over workers: the answers of one process, whatever becomes of them. First over fakes, then over real Ray."""

from __future__ import annotations

import asyncio
import functools
import json
import os
import random
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import ray
from hypothesis import given, settings
from hypothesis import strategies as st

from actors import cluster, novelty_pool
from actors.novelty_pool import NoveltyPool, NoveltyWorker, Scores, WorkerLost
from pipeline.engine_settings import EngineSettings
from pipeline.errors import InputError, RunStopped
from pipeline.launch import launch, novelty_scorer
from pipeline.scoring import Found, InProcess, Scorer
from tests.one_by_one import FLOOR, TEXTS, filtered, filtered_in_batches


class FakeWorker:
    """A worker in this process that does what `faults` says, one for each call; then it answers."""

    def __init__(self, first: int, step: int, faults: list[str]) -> None:
        self.worker = NoveltyWorker(first, step, "rouge", FLOOR)
        self.faults = faults
        self.calls: list[tuple[int, int]] = []  # new texts and candidates of each
        self.texts: list[str] = []
        self.gone = asyncio.Event()
        self.room = asyncio.Event()
        self.room.set()

    @property
    def killed(self) -> bool:
        return self.gone.is_set()

    async def place(self) -> None:
        await self.room.wait()

    async def nearest(self, held: int, new: Sequence[str], asked: Sequence[str], length: int) -> Scores:
        self.calls.append((len(new), len(asked)))
        self.texts.extend(new)
        fault = self.faults.pop(0) if self.faults else ""
        if fault == "hangs":
            await self.gone.wait()
        if fault == "dies before" or self.killed:
            raise WorkerLost("gone")
        for _ in range(3 if fault == "slow" else 0):
            await asyncio.sleep(0)
        scores = self.worker.nearest(held, new, asked, length)
        if fault == "hangs filled":
            await self.gone.wait()
        if fault in ("dies after", "hangs filled"):
            raise WorkerLost("gone")
        if fault == "other length":
            return Scores(scores.length - 1, tuple(None for _ in scores.found))
        if fault == "too few":
            return Scores(scores.length, (*scores.found, None))
        if fault == "other slice":
            return Scores(scores.length, tuple((length, 1.0) for _ in scores.found) or (None,))
        return scores if fault != "garbage" else None

    def kill(self) -> None:
        self.gone.set()


FAULTS = ("", "", "slow", "dies before", "dies after", "other length", "too few", "other slice", "garbage")


class Fakes:
    """Makes fake workers, and keeps all of them. `faults` are those of every worker to come, one after the other."""

    def __init__(self, step: int, faults: Sequence[str] = ()) -> None:
        self.step = step
        self.faults = list(faults)
        self.made: list[FakeWorker] = []

    def __call__(self, first: int) -> FakeWorker:
        self.made.append(FakeWorker(first, self.step, self.faults))
        return self.made[-1]

    def pool(self, **limits) -> NoveltyPool:
        return NoveltyPool(self, self.step, **{"backoff_s": 0.0, "max_deaths": 99, **limits})


@settings(max_examples=60, deadline=None)
@given(
    held=TEXTS,
    texts=TEXTS,
    threshold=st.sampled_from([0.3, 0.5, 0.7, 1.0]),
    sizes=st.lists(st.integers(1, 9), min_size=1),
    workers=st.integers(1, 4),
    faults=st.lists(st.sampled_from(FAULTS), max_size=30),
)
def test_no_number_of_workers_and_no_fault_changes_an_answer(held, texts, threshold, sizes, workers, faults) -> None:
    """Decisions and nearest are the sequential ones over any slices, batches, deaths, wrong answers and messages."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(novelty_pool, "MOST_TEXTS", 3)
        pool = Fakes(workers, faults).pool()
        found = asyncio.run(filtered_in_batches(pool, held, texts, threshold, sizes))

    assert found == filtered(held, texts, threshold)


@pytest.mark.asyncio
async def test_adding_sends_nothing_and_each_text_is_sent_once() -> None:
    """No worker is made or called for what is added; the next question brings to each its own share of what is new."""
    fakes = Fakes(2)
    pool = fakes.pool()
    pool.extend(f"t{n}" for n in range(5))
    assert fakes.made == []
    await pool.nearest(["t0"])
    pool.extend(["t5"])
    pool.extend(["t6", "t7"])
    await asyncio.sleep(0)
    assert [worker.calls for worker in fakes.made] == [[(3, 1)], [(2, 1)]]
    await pool.nearest(["t0", "t1"])

    assert [worker.calls for worker in fakes.made] == [[(3, 1), (1, 2)], [(2, 1), (2, 2)]]
    assert [worker.texts for worker in fakes.made] == [["t0", "t2", "t4", "t6"], ["t1", "t3", "t5", "t7"]]


@pytest.mark.asyncio
async def test_every_message_is_bounded(monkeypatch) -> None:
    """Large pools and batches go in messages of so many texts and characters; a text longer than one goes alone."""
    monkeypatch.setattr(novelty_pool, "MOST_TEXTS", 10)
    monkeypatch.setattr(novelty_pool, "MOST_CHARACTERS", 100)
    fakes = Fakes(1)
    pool = fakes.pool()
    pool.extend(["ab"] * 25 + ["x " * 200] + ["y" * 60] * 3)
    found = await pool.nearest(["ab"] * 15)

    assert fakes.made[0].calls == [(10, 0), (10, 0), (5, 0), (1, 0), (1, 0), (1, 0), (1, 10), (0, 5)]
    assert found == [(0, 1.0)] * 15


@pytest.mark.asyncio
async def test_a_replaced_worker_is_asked_the_lost_part_only() -> None:
    """What a worker answered before it died is kept, and the fresh one gets its whole slice."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(novelty_pool, "MOST_TEXTS", 2)
        fakes = Fakes(1, ["", "", "dies before"])
        pool = fakes.pool()
        pool.extend(["a", "b", "c"])
        found = await pool.nearest(["a", "b", "c", "d"])

    assert found == [(0, 1.0), (1, 1.0), (2, 1.0), None]
    assert [worker.calls for worker in fakes.made] == [[(2, 0), (1, 2), (0, 2)], [(2, 0), (1, 2)]]
    assert [worker.killed for worker in fakes.made] == [True, False]


@pytest.mark.asyncio
async def test_a_silent_worker_is_killed_and_replaced() -> None:
    """A worker that does not answer in time counts as dead."""
    fakes = Fakes(1, ["hangs"])
    lost: list[str] = []
    pool = fakes.pool(timeout_s=0.05, note=lambda kind, **values: lost.append(f"{kind}: {values['detail']}"))
    pool.extend(["a"])

    assert await pool.nearest(["a"]) == [(0, 1.0)]
    assert lost == ["novelty_worker_lost: it was silent for 0.05 s"]
    assert fakes.made[0].killed


@pytest.mark.asyncio
async def test_a_worker_that_keeps_dying_stops_the_run() -> None:
    """So many deaths without an answer between end with one sentence, and no worker is left over."""
    fakes = Fakes(2, ["dies before"] * 50)
    pool = fakes.pool(max_deaths=3)
    pool.extend(["a", "b"])
    with pytest.raises(RunStopped, match=r"Novelty worker \d was lost 3 times in a row .* the last time: gone"):
        await pool.nearest(["a"])

    assert len(fakes.made) <= 6
    assert all(worker.killed for worker in fakes.made)


@pytest.mark.asyncio
async def test_an_answer_between_deaths_counts_them_anew() -> None:
    """Deaths that are far apart never stop a run; a message of filling is no answer."""
    fakes = Fakes(1, ["dies before", "", "dies before", ""])
    pool = fakes.pool(max_deaths=2)
    pool.extend(["a"])
    for _ in range(2):
        assert await pool.nearest(["a"]) == [(0, 1.0)]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(novelty_pool, "MOST_TEXTS", 1)
        filling = Fakes(1, ["", "dies before", "", "dies before"]).pool(max_deaths=2)
        filling.extend(["a", "b", "c"])
        with pytest.raises(RunStopped):
            await filling.nearest(["a"])


@pytest.mark.asyncio
async def test_closing_ends_what_is_asked() -> None:
    """Closing kills the workers; a question under way and a later one end with RunStopped; again, it does no harm."""
    fakes = Fakes(2, ["hangs"] * 2)
    pool = fakes.pool()
    asked = asyncio.create_task(pool.nearest(["a"]))
    while not (len(fakes.made) == 2 and all(worker.calls for worker in fakes.made)):
        await asyncio.sleep(0)
    await pool.close()
    await pool.close()

    assert all(worker.killed for worker in fakes.made)
    with pytest.raises(RunStopped, match="closed"):
        await asked
    with pytest.raises(RunStopped, match="closed"):
        await pool.nearest(["a"])
    assert len(fakes.made) == 2


@pytest.mark.asyncio
async def test_workers_that_wait_for_a_cpu_are_counted() -> None:
    """A worker is without room from when it is asked for until it has its CPU, and a replacement is again."""
    fakes = Fakes(2)

    def spawn(first: int) -> FakeWorker:
        worker = fakes(first)
        if len(fakes.made) != 2:
            worker.room.clear()
        return worker

    pool = NoveltyPool(spawn, 2, backoff_s=0.0)
    try:
        for killed, waits in ((0, 0), (1, 2)):
            starting = asyncio.create_task(pool.start())
            while len(fakes.made) < 2 + killed or not fakes.made[1].calls:
                await asyncio.sleep(0)
            assert pool.without_room == 1
            fakes.made[waits].room.set()
            await starting
            assert pool.without_room == 0
            fakes.made[0].kill()
    finally:
        await pool.close()


@pytest.mark.asyncio
async def test_a_question_that_is_cancelled_leaves_no_half_filled_worker() -> None:
    """What a worker has got by then is not known, so the next question is for fresh ones."""
    fakes = Fakes(2, ["hangs filled"])
    pool = fakes.pool()
    pool.extend(["a", "b", "c"])
    asked = asyncio.create_task(pool.nearest(["b"]))
    while not (len(fakes.made) == 2 and all(worker.calls for worker in fakes.made)):
        await asyncio.sleep(0)
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked

    assert await pool.nearest(["b", "c"]) == [(1, 1.0), (2, 1.0)]


@pytest.mark.asyncio
async def test_questions_at_the_same_time_take_turns() -> None:
    """Two questions share the workers one after the other, each with its own answer."""
    pool = Fakes(2, ["slow"] * 8).pool()
    pool.extend(["a", "b"])

    assert await asyncio.gather(pool.nearest(["a"]), pool.nearest(["b", "a"])) == [
        [(0, 1.0)],
        [(1, 1.0), (0, 1.0)],
    ]
    assert await pool.nearest([]) == []


# From here on over real Ray.


def faulty(folder: Path) -> type[NoveltyWorker]:
    """Workers that do what a file in this folder is named after, at their next call with candidates or, "filling",
    without; whoever does it takes the file away first. Every process leaves a file of its own."""

    class FaultyWorker(NoveltyWorker):
        def __init__(self, first: int, step: int, tokenizer: str, floor: float) -> None:
            super().__init__(first, step, tokenizer, floor)
            (folder / f"made-{first}-{os.getpid()}").touch()

        def nearest(self, held: int, new: Sequence[str], asked: Sequence[str], length: int) -> Scores:
            for fault in ("die", "hang", "raise") if asked else ("die filling",):
                try:
                    (folder / fault).unlink()
                except FileNotFoundError:
                    continue
                if fault == "hang":
                    time.sleep(3600)
                if fault == "raise":
                    raise ValueError("a fault of ours")
                os._exit(1)
            return super().nearest(held, new, asked, length)

    return FaultyWorker


def made(folder: Path) -> int:
    """Processes of faulty workers so far."""
    return len(list(folder.glob("made-*")))


@pytest.fixture(scope="module")
def on_ray(ray_session: None) -> None:
    """Ray's workers cannot import a test module, so its classes travel by value."""
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])


def over_ray(workers: int, **options) -> NoveltyPool:
    """A pool on the cluster."""
    return cluster.novelty_pool("rouge", FLOOR, workers, **{"backoff_s": 0.01, **options})


def some_texts(count: int, seed: int = 0) -> list[str]:
    """Texts of which many are near others."""
    rng = random.Random(seed)
    return [" ".join(rng.choices("abcdefghijkl", k=rng.randint(2, 12))) for _ in range(count)]


async def in_process(held: Sequence[str], asked: Sequence[str]) -> list[Found]:
    """What a scorer in this process answers."""
    scorer = InProcess("rouge", FLOOR)
    scorer.extend(held)
    return await scorer.nearest(asked)


@pytest.mark.asyncio
@pytest.mark.parametrize("workers", [1, 2, 3])
async def test_workers_answer_as_one_process_does(on_ray: None, workers: int) -> None:
    """Filtering by so many real processes, in batches of random sizes, is filtering in this one."""
    texts, rng = some_texts(400), random.Random(workers)
    texts[50] = "lone \ud800 surrogate \udfff here"
    sizes = [rng.randint(1, 40) for _ in range(100)]
    pool = over_ray(workers)
    try:
        found = await filtered_in_batches(pool, texts[:100], texts[50:], 0.7, sizes)
    finally:
        await pool.close()

    assert found == await filtered_in_batches(InProcess("rouge", FLOOR), texts[:100], texts[50:], 0.7, [1])


@pytest.mark.asyncio
@pytest.mark.parametrize("fault", ["die", "die filling", "raise"])
async def test_a_worker_lost_on_the_way_changes_nothing(on_ray, monkeypatch, tmp_path, fault) -> None:
    """A process that ends in a question, or while it is filled, or fails in our own code is replaced; same answers."""
    monkeypatch.setattr(novelty_pool, "MOST_TEXTS", 100)
    lost: list[str] = []
    held, asked = some_texts(500), some_texts(150, seed=1)
    pool = over_ray(2, worker=faulty(tmp_path), note=lambda _, **values: lost.append(values["detail"]))
    pool.extend(held)
    (tmp_path / fault).touch()
    try:
        found = await pool.nearest(asked)
    finally:
        await pool.close()

    assert found == await in_process(held, asked)
    assert (made(tmp_path), len(lost)) == (3, 1)
    assert fault != "raise" or lost == ["a fault in its own code: ValueError: a fault of ours"]


@pytest.mark.asyncio
async def test_a_worker_killed_between_two_questions_is_replaced(on_ray: None) -> None:
    """A process that Ray takes away while it is idle is noticed at the next question."""
    held, asked = some_texts(60), some_texts(20, seed=1)
    pool = over_ray(2)
    pool.extend(held[:50])
    try:
        await pool.start()
        pool.handles[1].kill()
        pool.extend(held[50:])
        found = await pool.nearest(asked)
    finally:
        await pool.close()

    assert found == await in_process(held, asked)


@pytest.mark.asyncio
async def test_a_process_that_hangs_is_ended(on_ray: None, tmp_path) -> None:
    """A real process that does not come back is killed, and another one answers."""
    pool = over_ray(1, worker=faulty(tmp_path), timeout_s=8.0)
    pool.extend(["a b"])
    (tmp_path / "hang").touch()
    try:
        assert await pool.nearest(["a b"]) == [(0, 1.0)]
    finally:
        await pool.close()

    assert made(tmp_path) >= 2


@pytest.mark.asyncio
async def test_processes_that_keep_ending_stop_the_run(on_ray: None) -> None:
    """A worker that cannot be made ends with RunStopped, not with an endless loop."""

    class NeverMade(NoveltyWorker):
        def __init__(self, *arguments: object) -> None:
            raise OSError("no such place")

    pool = over_ray(1, worker=NeverMade, max_deaths=2)
    try:
        with pytest.raises(RunStopped, match="Novelty worker 0 was lost 2 times in a row"):
            await pool.start()
    finally:
        await pool.close()


def mortal(calls: int) -> type[NoveltyWorker]:
    """Workers that end after so many calls."""

    class MortalWorker(NoveltyWorker):
        left = calls

        def nearest(self, held: int, new: Sequence[str], asked: Sequence[str], length: int) -> Scores:
            self.left -= 1
            if self.left < 0:
                os._exit(1)
            return super().nearest(held, new, asked, length)

    return MortalWorker


@pytest.fixture
def events() -> Callable[[Path], list[dict[str, object]]]:
    """Reads what a run has noted."""

    def read(folder: Path) -> list[dict[str, object]]:
        files = sorted((folder / ".run" / "log").iterdir())
        return [json.loads(line) for file in files for line in file.read_text().splitlines()]

    return read


def test_a_run_with_workers_has_the_rows_of_one_without(on_ray, scripted, tables, monkeypatch, tmp_path, events):
    """Two workers that die again and again, stopped and resumed with three: the rows of a run in one process."""
    launch(scripted(out=str(tmp_path / "none")))
    with_deaths = functools.partial(cluster.novelty_pool, worker=mortal(2), backoff_s=0.01)
    monkeypatch.setattr(cluster, "novelty_pool", with_deaths)
    folder = tmp_path / "some"
    launch(scripted(out=str(folder), novelty={"workers": 2}, budget={"units": 9}))
    launch(scripted(out=str(folder), novelty={"workers": 3}))

    assert tables(folder) == tables(tmp_path / "none")
    assert sum(event["event"] == "novelty_worker_lost" for event in events(folder)) >= 2


def test_workers_without_room_are_refused_before_anything_is_written(on_ray, scripted, tmp_path) -> None:
    """More workers than the cluster has CPUs are refused with what it has, with any engine."""
    config = scripted(out=str(tmp_path / "r"), novelty={"workers": 5})
    with pytest.raises(InputError, match=r"^5 novelty worker\(s\) need 1 CPU each, .* it has 1 machine with 4 CPUs"):
        launch(config)

    assert not (tmp_path / "r").exists()


def test_workers_without_a_run(on_ray: None) -> None:
    """The filter alone takes its workers as a scorer, and is refused more of them than there is room for."""

    async def ask(scorer: Scorer) -> list[Found]:
        try:
            scorer.extend(["a b", "c d"])
            return await scorer.nearest(["c d"])
        finally:
            await scorer.close()

    with novelty_scorer("rouge", FLOOR, 2) as scorer:
        assert asyncio.run(ask(scorer)) == [(1, 1.0)]
    with pytest.raises(InputError, match="no room"), novelty_scorer("rouge", FLOOR, 5):
        pass


def test_workers_count_with_the_engines(on_ray: None) -> None:
    """Engines that fit alone, and do not with the workers, are refused with both keys to lower."""
    engines = EngineSettings(model="m", count=4, num_gpus=0)
    with pytest.raises(InputError, match=r"4 engines .*, and 1 novelty worker.* lower engine\.count or the num"):
        cluster.require_room([engines], 1)
    cluster.require_room([EngineSettings(model="m", count=3, num_gpus=0)], 1)


def test_a_worker_sees_no_gpu_and_has_one_thread(on_ray: None) -> None:
    """Ray would show it every GPU of its machine, and numeric libraries would start a thread for each core."""

    class Telling(NoveltyWorker):
        def nearest(self, held: int, new: Sequence[str], asked: Sequence[str], length: int) -> Scores:
            raise ValueError(f"{os.environ['CUDA_VISIBLE_DEVICES']!r} {os.environ['NUMBA_NUM_THREADS']}")

    async def ask() -> None:
        pool = over_ray(1, worker=Telling, max_deaths=1)
        try:
            await pool.start()
        finally:
            await pool.close()

    with pytest.raises(RunStopped, match=r"ValueError: '' 1$"):
        asyncio.run(ask())
