"""The six invariants of the driver (design, 3), each shown on real runs with the scripted engine."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections import Counter
from pathlib import Path

import datasets
import pytest
from rouge_score.rouge_scorer import RougeScorer

from pipeline.driver import Driver
from pipeline.engine import Lost
from pipeline.errors import ContentFault, RunStopped
from pipeline.records import Completion, Reason, Request, Stage
from pipeline.report import read_rows
from pipeline.runs import open_run
from pipeline.shards import read_commits
from pipeline.testing import ScriptedEngine, run_to_end, scripted_answer, stream_of


def run(config, folder: Path, engine=None):
    """Run to the end with the scripted engine, or another."""
    return asyncio.run(run_to_end(config, folder, engine or ScriptedEngine(delay_s=0.002)))


def faulty(request: Request) -> Completion | Exception:
    """Now and then a request that can never be answered, at every stage."""
    if stream_of(request).random() < 0.15:
        return ContentFault(Reason.REQUEST_REFUSED, "too long")
    return scripted_answer(request)


def test_every_unit_ends_once(scripted, tables, tmp_path):
    """With faults at every stage the three sums close, and each row of the run is accounted for exactly once."""
    done = run(scripted(), tmp_path / "r", ScriptedEngine(faulty))
    counters, rows = done.state.counters, tables(tmp_path / "r")

    assert all(left == right for _, left, _, right in counters.sums())
    assert counters.failed_units > 0
    assert Counter(counters.closing_reasons)[Reason.REQUEST_REFUSED] > 0
    closing = Counter(
        row["instruction_id"]
        for row in rows["rejected"]
        if row["id"] is None and row["stage"] in ("classification", "instances")
    )
    with_rows = {row["instruction_id"] for row in rows["data"]}
    admitted = [row["instruction_id"] for row in rows["pool"]]
    assert len(admitted) == len(set(admitted)) == 60
    for id in admitted:
        assert (id in with_rows) + closing[id] == 1


def test_a_failed_unit_is_a_row_and_passes_the_gate_empty(scripted, tables, tmp_path):
    """A bootstrap request with no answer gives one failure row with stage and reason, and later units go on."""

    def third_fails(request: Request) -> Completion | Exception:
        if request.key.unit == 3:
            return ContentFault(Reason.ENGINE_KILLED, "died alone")
        return scripted_answer(request)

    run(scripted(), tmp_path / "r", ScriptedEngine(third_fails))
    rows = [row for row in tables(tmp_path / "r")["rejected"] if row["unit"] == 3]

    assert [(r["stage"], r["reason"], r["detail"]) for r in rows] == [("bootstrap", "engine_killed", "died alone")]


def test_timing_and_capacity_change_no_row(scripted, tables, tmp_path):
    """One request at a time and forty at random speeds give the same rows in the same order."""
    slow, fast = ScriptedEngine(capacity=1), ScriptedEngine(capacity=40, delay_s=0.01)
    run(scripted(target=40), tmp_path / "a", slow)
    run(scripted(target=40), tmp_path / "b", fast)

    assert tables(tmp_path / "a") == tables(tmp_path / "b")


def test_commits_are_in_unit_order_without_gaps(scripted, tables, tmp_path):
    """The ledger's ranges follow one another from unit 0, and rows stand in unit order."""
    run(scripted(), tmp_path / "r")
    commits = read_commits(tmp_path / "r")

    assert [c.first for c in commits[1:]] == [c.end for c in commits[:-1]]
    assert len(commits) > 3
    for rows in tables(tmp_path / "r").values():
        units = [row["unit"] for row in rows]
        assert units == sorted(units)


def test_a_prompt_sees_the_pool_as_it_stood_a_window_before(scripted, tables, tmp_path):
    """Unit n shows machine-made demonstrations from units up to n - W only, and does so as soon as there are any."""
    config = scripted(target=120, window=5)
    run(config, tmp_path / "r")
    rows = tables(tmp_path / "r")
    behind = {}
    for row in itertools.chain(rows["pool"], rows["rejected"]):
        for parent in row["parents"]:
            if parent.startswith("t/"):
                behind.setdefault(row["unit"], []).append(row["unit"] - int(parent.split("/")[1]))

    assert min(min(distances) for distances in behind.values()) == 5
    assert min(behind) == 5


def test_units_start_no_earlier_than_the_window_allows(scripted, tmp_path):
    """While unit 0 waits for its answer, units 1 to W - 1 are asked for and unit W is not."""
    held = asyncio.Event()

    class Held(ScriptedEngine):
        async def generate(self, request: Request) -> Completion:
            if request.key.unit == 0 and request.key.stage is Stage.BOOTSTRAP:
                await held.wait()
            return await super().generate(request)

    async def main() -> set[int]:
        engine = Held(capacity=50)
        opened = open_run(scripted(window=4), tmp_path / "r")
        driver = Driver(opened.plan.config, opened.state, opened.plan.recipe, engine, opened.commit)
        running = asyncio.create_task(driver.run())
        while len(engine.calls) < 3:
            await asyncio.sleep(0)
        for _ in range(200):
            await asyncio.sleep(0)
        asked = {key.unit for key in engine.calls}
        held.set()
        await running
        opened.close()
        return asked

    assert asyncio.run(main()) == {1, 2, 3}


def test_an_unfinished_unit_bounds_how_far_others_run_ahead(scripted, tmp_path):
    """While unit 0 is past the gate and not finished, units up to 2W - 1 are asked for and unit 2W is not."""
    held = asyncio.Event()

    class Held(ScriptedEngine):
        async def generate(self, request: Request) -> Completion:
            if request.key.unit == 0 and request.key.stage is Stage.CLASSIFICATION:
                await held.wait()
            return await super().generate(request)

    async def main() -> int:
        engine = Held(capacity=500)
        opened = open_run(scripted(window=3, target=1000, budget={"units": 20}), tmp_path / "r")
        driver = Driver(opened.plan.config, opened.state, opened.plan.recipe, engine, opened.commit)
        running = asyncio.create_task(driver.run())
        for _ in range(3000):
            await asyncio.sleep(0)
        furthest = max(key.unit for key in engine.calls)
        held.set()
        await running
        opened.close()
        return furthest

    assert asyncio.run(main()) == 5


@pytest.mark.parametrize("stop_after", [20, 70, 110])
def test_stopped_and_resumed_gives_the_same_rows(scripted, tables, tmp_path, stop_after):
    """A run whose engine goes away after some calls, and is resumed, has the rows of one left alone."""

    answers = itertools.count()

    def leaves(request: Request) -> Completion | Exception:
        return RunStopped("no engine is left") if next(answers) >= stop_after else scripted_answer(request)

    run(scripted(), tmp_path / "whole")
    with pytest.raises(RunStopped, match="no engine is left"):
        run(scripted(), tmp_path / "r", ScriptedEngine(leaves, delay_s=0.002))
    assert read_commits(tmp_path / "r")[-1].ending is None
    resumed = run(scripted(), tmp_path / "r")

    assert tables(tmp_path / "whole") == tables(tmp_path / "r")
    assert resumed.attempt == 2


def test_no_two_admitted_instructions_are_nearer_than_the_threshold(scripted, tables, tmp_path):
    """By the reference package, no admitted instruction is above 0.7 to another or to a seed."""
    done = run(scripted(), tmp_path / "r")
    scorer = RougeScorer(["rougeL"], use_stemmer=False)
    texts = [row["instruction"] for row in tables(tmp_path / "r")["pool"]]
    seeds = [seed.instruction for seed in done.plan.seeds]
    refused = [row for row in tables(tmp_path / "r")["rejected"] if row["reason"] == "not_novel"]

    def nearest(text: str, others: list[str]) -> float:
        return max(scorer.score(text, other)["rougeL"].fmeasure for other in others)

    assert max(nearest(text, seeds + texts[:place]) for place, text in enumerate(texts)) <= 0.7
    assert refused
    assert all(nearest(row["instruction"], seeds + texts) > 0.7 for row in refused)


def test_datasets_loads_the_folder_after_every_commit(scripted, tmp_path):
    """`load_dataset` opens the run folder at every commit, with the rows of data/ and no others.

    While there is no row yet it does so in streaming mode: `datasets` prepares no split of no rows.
    """
    sizes = []

    async def main() -> None:
        opened = open_run(scripted(target=45), tmp_path / "r")

        def look() -> None:
            cache = tmp_path / "cache" / str(len(sizes))
            rows = datasets.load_dataset(str(tmp_path / "r"), split="train", cache_dir=str(cache), streaming=not sizes)
            sizes.append(len(list(rows)))

        def commit(*values) -> None:
            opened.commit(*values)
            look()

        look()
        await Driver(opened.plan.config, opened.state, opened.plan.recipe, ScriptedEngine(), commit).run()
        opened.close()

    asyncio.run(main())
    rows = [sum(f.rows for f in c.files if f.path.startswith("data/")) for c in read_commits(tmp_path / "r")]

    assert sizes == list(itertools.accumulate(rows))
    assert len(sizes) > 3
    assert sizes[0] == 0


def test_the_target_is_reached_exactly(scripted, tables, tmp_path):
    """The run ends with exactly the target admitted; what the last unit had beyond it is refused by that name."""
    done = run(scripted(target=33), tmp_path / "r")
    rows = tables(tmp_path / "r")
    last = done.state.counters.units - 1

    assert len(rows["pool"]) == 33
    cut = [row["unit"] for row in rows["rejected"] if row["reason"] == "target_reached"]
    assert set(cut) == {last}


def test_a_finished_run_goes_on_with_a_larger_target(scripted, tables, tmp_path):
    """A larger target continues the run where it ended; what was cut stays refused."""
    run(scripted(target=33), tmp_path / "r")
    before = tables(tmp_path / "r")
    run(scripted(target=50), tmp_path / "r")
    after = tables(tmp_path / "r")

    assert len(after["pool"]) == 50
    for kind, rows in before.items():
        assert after[kind][: len(rows)] == rows


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"budget": {"units": 7}}, "budget.units"),
        ({"budget": {"tokens": 60_000}}, "budget.tokens"),
        ({"budget": {"hours": 1e-9}}, "budget.hours"),
    ],
    ids=["units", "tokens", "hours"],
)
def test_a_spent_budget_is_a_finished_run(scripted, tmp_path, values, reason):
    """Each budget ends the run as finished, with its reason in the last commit record."""
    config = scripted(target=10_000, **values)
    run(config, tmp_path / "r")
    ending = read_commits(tmp_path / "r")[-1].ending

    assert ending["reason"] == reason
    assert open_run(config, tmp_path / "r").ending.reason == reason


class Hanging(ScriptedEngine):
    """An engine from which no answer for the units after the third comes."""

    async def generate(self, request: Request) -> Completion:
        if request.key.unit >= 3:
            await asyncio.Event().wait()
        return await super().generate(request)


def test_a_range_is_committed_when_it_is_old_though_nothing_happens(scripted, tmp_path):
    """`shards.seconds` bounds what a crash costs also while all engines stand still."""
    opened = open_run(scripted(shards={"rows": 1000, "seconds": 1}), tmp_path / "r")

    async def main() -> None:
        driver = Driver(opened.plan.config, opened.state, opened.plan.recipe, Hanging(), opened.commit)
        running = asyncio.create_task(driver.run())
        async with asyncio.timeout(30):
            while len(read_commits(tmp_path / "r")) < 2:
                await asyncio.sleep(0.05)
        driver.stop(RunStopped("seen"))
        with pytest.raises(RunStopped, match="seen"):
            await running

    asyncio.run(main())
    opened.close()
    assert read_commits(tmp_path / "r")[1].counters["units"] == 3


def test_spent_hours_end_a_run_that_stands_still(scripted, tmp_path):
    """`budget.hours` is looked at also while nothing is answered."""
    config = scripted(target=10_000, budget={"hours": 1 / 3600})
    asyncio.run(asyncio.wait_for(run_to_end(config, tmp_path / "r", Hanging()), 30))

    assert read_commits(tmp_path / "r")[-1].ending["reason"] == "budget.hours"


def test_an_exhausted_novelty_ends_the_run_with_a_word(scripted, tmp_path):
    """A model that repeats itself does not loop for ever: the run ends as exhausted, and never before unit 2W."""

    def parrot(request: Request) -> Completion:
        if request.key.stage is Stage.BOOTSTRAP:
            return Completion(" Name the capital of a country in Europe.", "stop", 10, 9)
        return scripted_answer(request)

    config = scripted(exhaustion={"units": 6, "share": 0.2})
    done = run(config, tmp_path / "r", ScriptedEngine(parrot))
    ending = read_commits(tmp_path / "r")[-1].ending

    assert ending["reason"] == "exhausted"
    assert "novelty is exhausted" in ending["detail"]
    assert done.state.counters.units == 17
    assert done.state.counters.admitted == 1


def test_a_slow_commit_holds_up_no_unit_under_way(scripted, tables, tmp_path):
    """While a commit waits for its storage, units under way go on and no new one starts, so that a kill then costs no
    more than its range and two windows; the rows are those of a run with quick storage."""
    held = 5  # it waits at its first request until the first commit, of units before it, is under way
    committing, asked_again = threading.Event(), threading.Event()
    started_meanwhile = []

    class Holding(ScriptedEngine):
        async def generate(self, request: Request) -> Completion:
            if request.key.unit == held:
                if committing.is_set():
                    asked_again.set()
                await asyncio.to_thread(committing.wait, 60)
            return await super().generate(request)

    async def main() -> None:
        opened = open_run(scripted(target=120), tmp_path / "r")
        engine = Holding()
        loop = asyncio.get_running_loop()

        def commit(*values) -> None:
            asyncio.run_coroutine_threadsafe(asyncio.sleep(0.02), loop).result(10)  # what has been started has asked
            before = {key.unit for key in engine.calls} | {held}
            committing.set()
            asked_again.wait(10)
            asyncio.run_coroutine_threadsafe(asyncio.sleep(0.02), loop).result(10)
            started_meanwhile.extend({key.unit for key in engine.calls} - before)
            opened.commit(*values)

        await Driver(opened.plan.config, opened.state, opened.plan.recipe, engine, commit).run()
        opened.close()

    asyncio.run(main())
    run(scripted(target=120), tmp_path / "quick")

    assert read_commits(tmp_path / "r")[1].end <= held
    assert asked_again.is_set()
    assert started_meanwhile == []
    assert tables(tmp_path / "r") == tables(tmp_path / "quick")


def test_a_run_cancelled_in_a_commit_waits_for_it(scripted, tmp_path):
    """What is being written when the run is cancelled is written to its end, once."""

    async def main() -> int:
        opened = open_run(scripted(), tmp_path / "r")
        driving: list[asyncio.Task] = []
        loop = asyncio.get_running_loop()
        done = []

        def commit(*values) -> None:
            loop.call_soon_threadsafe(driving[0].cancel)
            time.sleep(0.3)
            opened.commit(*values)
            done.append(True)

        driver = Driver(opened.plan.config, opened.state, opened.plan.recipe, ScriptedEngine(), commit)
        driving.append(asyncio.create_task(driver.run()))
        with pytest.raises(asyncio.CancelledError):
            await driving[0]
        opened.close()
        return len(done)

    assert asyncio.run(main()) == 1
    assert len(read_commits(tmp_path / "r")) == 2


def test_a_cancelled_run_keeps_what_is_whole(scripted, tmp_path):
    """A stop from outside commits the finished prefix and raises its reason; nothing after it is asked for."""

    async def main() -> int:
        opened = open_run(scripted(target=10_000), tmp_path / "r")
        engine = ScriptedEngine(delay_s=0.001)
        driver = Driver(opened.plan.config, opened.state, opened.plan.recipe, engine, opened.commit)
        running = asyncio.create_task(driver.run())
        while opened.state.counters.units < 5:
            await asyncio.sleep(0.001)
        driver.stop(RunStopped("stopped by SIGTERM"))
        with pytest.raises(RunStopped, match="SIGTERM"):
            await running
        opened.close()
        return opened.state.counters.units

    units = asyncio.run(main())

    assert read_commits(tmp_path / "r")[-1].end == units
    assert len({row["instruction_id"] for row in read_rows(tmp_path / "r", "pool")}) > 0


def test_a_fault_in_the_method_stops_the_run_and_comes_through(scripted, tmp_path):
    """An error that is no content fault is not swallowed: the run stops with it."""

    def broken(request: Request) -> Completion | Exception:
        return ZeroDivisionError("a bug") if request.key.unit == 9 else scripted_answer(request)

    with pytest.raises(ZeroDivisionError):
        run(scripted(), tmp_path / "r", ScriptedEngine(broken))


def test_compat_drops_a_whole_truncated_response_and_the_default_its_last_item(scripted, tables, tmp_path):
    """A response cut at max_tokens loses all its items in compat mode, and only its last one otherwise."""

    def cut(request: Request) -> Completion:
        answer = scripted_answer(request)
        if request.key.stage is Stage.BOOTSTRAP and request.key.unit == 2:
            return Completion(answer.text, "length", 1, 1)
        return answer

    for compat in ("self-instruct", None):
        run(scripted(compat=compat), tmp_path / str(compat), ScriptedEngine(cut))
    reasons = {
        compat: Counter(row["reason"] for row in tables(tmp_path / compat)["rejected"] if row["unit"] == 2)
        for compat in ("self-instruct", "None")
    }

    assert reasons["self-instruct"] == {"response_truncated": 1}
    assert reasons["None"]["item_truncated"] == 1
    assert [row for row in tables(tmp_path / "None")["pool"] if row["unit"] == 2]


def test_a_failed_commit_is_not_made_twice(scripted, tables, tmp_path):
    """Storage that fails while a commit is made stops the run; the next one goes on without a row lost or doubled."""
    run(scripted(), tmp_path / "whole")
    commits = itertools.count(1)

    async def main() -> None:
        opened = open_run(scripted(), tmp_path / "r")

        def commit(*values) -> None:
            opened.commit(*values)
            if next(commits) == 2:
                raise OSError(28, "No space left on device")

        engine = ScriptedEngine(delay_s=0.002)
        try:
            await Driver(opened.plan.config, opened.state, opened.plan.recipe, engine, commit).run()
        finally:
            opened.close()

    with pytest.raises(OSError, match="No space left"):
        asyncio.run(main())
    assert len(read_commits(tmp_path / "r")) == 3
    run(scripted(), tmp_path / "r")

    assert tables(tmp_path / "whole") == tables(tmp_path / "r")


def test_an_answer_that_is_neither_yes_nor_no_is_counted(scripted, tables, tmp_path):
    """An unreadable classification closes its instruction with a reason of its own; it is not taken for a no."""

    def unsure(request: Request) -> Completion:
        if request.key.stage is Stage.CLASSIFICATION and request.key.unit == 1:
            return Completion(" Perhaps", "length", 1, 1)
        return scripted_answer(request)

    run(scripted(), tmp_path / "r", ScriptedEngine(unsure))
    rows = tables(tmp_path / "r")
    admitted = [row for row in rows["pool"] if row["unit"] == 1]
    closing = [row for row in rows["rejected"] if row["reason"] == "classification_unparsed"]

    assert {row["is_classification"] for row in admitted} == {None}
    assert [row["instruction_id"] for row in closing] == [row["instruction_id"] for row in admitted]
    assert {row["text"] for row in closing} == {" Perhaps"}


@pytest.mark.asyncio
async def test_the_tail_begins_when_the_target_is_reached(scripted, tmp_path):
    """While what is open is finished, no unit is held back by the window any more: engines may be let go."""
    config = scripted(target=10, window=2)
    run = open_run(config, tmp_path / "r")
    answered = asyncio.Event()

    class Slow(ScriptedEngine):
        async def generate(self, request):
            if request.key.stage is Stage.INSTANCES:
                await answered.wait()
            return await super().generate(request)

    driver = Driver(config, run.state, run.plan.recipe, Slow(), run.commit, run.units)
    running = asyncio.create_task(driver.run())
    while run.state.stops.ending is None:
        assert driver.holding() is not Lost.TAIL
        await asyncio.sleep(0.001)
    await asyncio.sleep(0.05)

    assert driver.open_units
    assert driver.holding() is Lost.TAIL
    answered.set()
    await running
    run.close()
