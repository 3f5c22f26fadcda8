"""The engine pool over scripted engines in this process: where requests go, and what a death does to them."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from actors.engine_pool import LONGEST_HOLD_S, EnginePool
from actors.messages import Answer, Call, EngineLost, Failed, Gauges, News, Ready, Refused, StartFailure, Where
from pipeline.config import parse_config
from pipeline.engine import Filling, Lost
from pipeline.errors import ContentFault, InputError, RunStopped
from pipeline.records import Completion, Reason, Request, RequestKey, Sampling, Stage

pytestmark = pytest.mark.asyncio

SAMPLING = Sampling(8, 0.0, 1.0, 0, 0.0, 0.0, 0.0, 1.0, ())
QUICK = {"backoff_s": 0.001, "start_timeout_s": 20.0, "spare_s": 0.02, "drains_s": 0.01}


def completion(prompt: str) -> Completion:
    """The answer of every scripted engine: a function of the prompt alone."""
    return Completion(prompt.upper(), "stop", len(prompt.split()), 1)


def _set() -> asyncio.Event:
    event = asyncio.Event()
    event.set()
    return event


@dataclass(eq=False)
class FakeEngine:
    """An engine in this process that holds its calls until the test answers them, by prompt.

    A prompt in `poison` ends the engine that gets it, "refuse ..." is refused, and "fail ..." fails as long as
    `failing` counts. With `automatic` everything else is answered at the next exchange.
    """

    poison: frozenset[str] = frozenset()
    automatic: bool = False
    started: Ready | StartFailure | None = None
    held: dict[int, Call] = field(default_factory=dict)
    seen: list[str] = field(default_factory=list)
    withdrawn: list[str] = field(default_factory=list)
    failing: int = 0
    lost: EngineLost | None = None
    closed: bool = False
    loaded: asyncio.Event = field(default_factory=asyncio.Event)
    news: asyncio.Event = field(default_factory=asyncio.Event)
    answers: list[Answer] = field(default_factory=list)
    most_held: int = 0
    lost_blameless: bool = False
    gauges: Gauges = field(default_factory=Gauges)
    where: Where = field(default_factory=lambda: Where("here", (), "node", "code"))
    room: asyncio.Event = field(default_factory=_set)
    loading: bool = False

    def held_prompts(self) -> list[str]:
        return [call.request.prompt for call in self.held.values()]

    async def place(self) -> Where:
        await self.room.wait()
        return self.where

    async def start(self) -> Ready | StartFailure:
        self.loading = True
        await self.loaded.wait()
        return self.started or Ready("0", "fake", 100, os.getpid(), "here", (), 0.0)

    async def exchange(self, calls: tuple[Call, ...], withdrawn: tuple[int, ...], hold_s: float) -> News:
        for call_id in withdrawn:
            if (call := self.held.pop(call_id, None)) is not None:
                self.withdrawn.append(call.request.prompt)
        for call in calls:
            self.held[call.id] = call
            self.seen.append(call.request.prompt)
            if call.request.prompt in self.poison:
                self.lost = EngineLost("poisoned", self.lost_blameless)
            elif self.automatic:
                self.answer(call.request.prompt)
        self.most_held = max(self.most_held, len(self.held))
        if self.lost is None and not self.answers:
            self.news.clear()
            try:
                await asyncio.wait_for(self.news.wait(), 0.02)
            except TimeoutError:
                return News((), self.gauges)
        if self.lost is not None:
            raise self.lost
        answers, self.answers = tuple(self.answers), []
        return News(answers, self.gauges)

    def answer(self, prompt: str) -> None:
        """Finish a held call."""
        call_id = next(call.id for call in self.held.values() if call.request.prompt == prompt)
        del self.held[call_id]
        outcome: Completion | Refused | Failed = completion(prompt)
        if prompt.startswith("refuse"):
            outcome = Refused(f"no {prompt}")
        elif prompt.startswith("fail") and self.failing > 0:
            self.failing -= 1
            outcome = Failed("busy")
        self.answers.append(Answer(call_id, outcome))
        self.news.set()

    def die(self, blameless: bool = False) -> None:
        """The process is gone."""
        self.lost = EngineLost("killed", blameless)
        self.news.set()

    async def close(self, at_once: bool = False) -> None:
        self.closed = True


@dataclass
class FakeRun:
    """What the pool may ask of a run."""

    held_by: Lost
    open_units: int

    def holding(self) -> Lost:
        return self.held_by


def request(prompt: str, unit: int = 0) -> Request:
    """A request of a unit."""
    return Request(RequestKey(unit, Stage.BOOTSTRAP), prompt, SAMPLING)


async def until(condition: Callable[[], object]) -> None:
    """Wait for a condition, at most five seconds."""
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.001)


@asynccontextmanager
async def pool_of(
    *engines: FakeEngine,
    after: Callable[[], FakeEngine] | None = None,
    places: int = 0,
    slots: int = 2,
    **limits: object,
) -> AsyncIterator[EnginePool]:
    """A pool whose first processes are `engines`, all loaded; `after` makes those that replace them."""
    spawned = itertools.chain(engines, iter(after or loaded, None))
    for engine in engines:
        engine.loaded.set()
    pool = EnginePool(
        lambda _: next(spawned),
        engines=places or len(engines),
        slots=slots,
        **{**QUICK, **limits},
    )
    try:
        yield pool
    finally:
        await pool.close()


def loaded(**options: object) -> FakeEngine:
    """An engine that answers by itself, and is ready at once."""
    engine = FakeEngine(automatic=True, **options)
    engine.loaded.set()
    return engine


def ask(pool: EnginePool, prompt: str, unit: int = 0) -> asyncio.Task[Completion]:
    """Ask in the background."""
    return asyncio.create_task(pool.generate(request(prompt, unit)))


async def all_ready(pool: EnginePool) -> None:
    """Start the pool and wait for every engine."""
    await pool.start()
    await until(lambda: pool.stats().ready == len(pool.stats().engines))


async def fault_of(call: Awaitable[Completion]) -> ContentFault:
    """The content fault that a call ends with."""
    with pytest.raises(ContentFault) as caught:
        await call
    return caught.value


async def test_requests_go_to_the_least_busy_engine() -> None:
    """Two engines with room for all share four requests evenly; the next goes where one has finished."""
    one, two = FakeEngine(), FakeEngine()
    async with pool_of(one, two, slots=8) as pool:
        await all_ready(pool)
        calls = {p: ask(pool, p) for p in "abcd"}
        await until(lambda: len(one.held) == 2 and len(two.held) == 2)
        two.answer(two.seen[0])
        assert await calls[two.seen[0]] == completion(two.seen[0])
        ask(pool, "e")
        await until(lambda: "e" in two.seen)
        assert "e" not in one.seen


async def test_no_engine_holds_more_than_its_slots() -> None:
    """Twenty requests pass through one engine of three slots, and it never holds four."""
    engine = FakeEngine()
    async with pool_of(engine, slots=3) as pool:
        calls = [ask(pool, f"p{n}", unit=n) for n in range(20)]
        while not all(call.done() for call in calls):
            if len(engine.held) == 3 or len(engine.seen) == 20:
                for call in list(engine.held.values()):
                    engine.answer(call.request.prompt)
            await asyncio.sleep(0)
        assert engine.most_held == 3
        assert pool.capacity == 3


async def test_the_lowest_unit_waiting_goes_first() -> None:
    """Requests that wait are sent by unit, whatever order they were asked in."""
    engine = FakeEngine(automatic=True)
    async with pool_of(engine, slots=1) as pool:
        calls = [ask(pool, f"unit {unit}", unit=unit) for unit in (5, 3, 9, 1, 7)]
        await asyncio.gather(*calls)
    assert engine.seen == ["unit 1", "unit 3", "unit 5", "unit 7", "unit 9"]


async def test_a_run_begins_with_the_first_engine_and_others_join_later() -> None:
    """One engine that is ready serves alone, until the other has loaded and takes its share."""
    early, late = FakeEngine(automatic=True), FakeEngine()
    async with pool_of(early, late) as pool:
        late.loaded.clear()
        await pool.start()
        assert await ask(pool, "a") == completion("a")
        early.automatic = False
        late.loaded.set()
        for prompt in "bcde":
            ask(pool, prompt)
        await until(lambda: len(early.held) == 2 and len(late.held) == 2)


async def test_what_a_dead_engine_held_goes_elsewhere_before_anything_new() -> None:
    """Two requests in flight at a death are answered by the replacement, before one of a lower unit that never left."""
    first, second = FakeEngine(), FakeEngine(automatic=True)
    second.loaded.set()
    async with pool_of(first, after=iter([second]).__next__) as pool:
        calls = [ask(pool, p, unit=5) for p in ("a", "b")]
        await until(lambda: len(first.held) == 2)
        calls.append(ask(pool, "c", unit=1))
        await until(lambda: pool.stats().waiting == 1)
        first.die()
        assert await asyncio.gather(*calls) == [completion(p) for p in "abc"]
        assert second.seen == ["a", "b", "c"]
        assert first.closed
        assert pool.stats().deaths == 1


async def test_engines_that_come_and_go_are_told_of() -> None:
    """The pool's `note` hears of each engine that is ready or lost, with the cause."""
    heard: list[tuple[str, dict[str, object]]] = []
    first = FakeEngine()
    async with pool_of(first, note=lambda kind, **values: heard.append((kind, values))) as pool:
        call = ask(pool, "a")
        await until(lambda: first.held)
        first.die()
        await call

    assert [kind for kind, _ in heard] == ["engine_ready", "engine_lost", "engine_ready"]
    assert heard[1][1] == {
        "engine": 0,
        "detail": "killed",
        "blameless": False,
        "in_flight": [f"0/{Stage.BOOTSTRAP}/0/0/0"],
    }


async def test_only_the_request_that_kills_engines_alone_fails() -> None:
    """A poison request ends three engines, is tried alone and fails; its innocent neighbours are all answered."""
    spawned: list[FakeEngine] = []

    def poisoned() -> FakeEngine:
        spawned.append(loaded(poison=frozenset({"poison"})))
        spawned[-1].automatic = len(spawned) > 2  # the first two hold what they get until the poison ends them
        return spawned[-1]

    async with pool_of(after=poisoned, places=1, slots=8) as pool:
        innocent = [ask(pool, f"good {n}", unit=n) for n in range(5)]
        fault = await fault_of(pool.generate(request("poison", unit=2)))
        assert fault.reason is Reason.ENGINE_KILLED
        assert await asyncio.gather(*innocent) == [completion(f"good {n}") for n in range(5)]
    assert len(spawned) == 4
    assert [engine.seen[-1] for engine in spawned[:3]].count("poison") >= 1
    alone = next(engine for engine in spawned[2:] if "poison" in engine.seen)
    assert alone.most_held == 1


async def test_a_suspect_waits_for_an_engine_of_its_own() -> None:
    """A request in flight at two deaths waits until an engine has run empty, and nothing joins it there."""
    one, two, three = FakeEngine(), FakeEngine(), FakeEngine()
    async with pool_of(one, two, three, after=FakeEngine, slots=8) as pool:
        await all_ready(pool)
        calls = [ask(pool, "suspect")]
        await until(lambda: sum(len(engine.held) for engine in (one, two, three)) == 1)
        first = next(engine for engine in (one, two, three) if engine.held)
        calls += [ask(pool, p) for p in "ab"]
        await until(lambda: all(engine.held for engine in (one, two, three)))
        first.die()
        rest = [engine for engine in (one, two, three) if engine is not first]
        await until(lambda: any("suspect" in engine.seen for engine in rest))
        second = next(engine for engine in rest if "suspect" in engine.seen)
        second.die()
        last = next(engine for engine in rest if engine is not second)
        await until(lambda: pool.stats().waiting == 2)
        calls.append(ask(pool, "later"))
        await until(lambda: pool.stats().waiting == 3)
        assert "suspect" not in last.seen
        last.answer(last.held_prompts()[0])
        await until(lambda: last.held_prompts() == ["suspect"] and pool.stats().waiting == 2)
        last.answer("suspect")
        await until(lambda: len(last.held) == 2)
        for prompt in last.held_prompts():
            last.answer(prompt)
        assert [answer.text for answer in await asyncio.gather(*calls)] == ["SUSPECT", "A", "B", "LATER"]


async def test_those_beside_a_convicted_request_are_suspects_no_more() -> None:
    """Once the poison is found, what had shared its two deaths goes on together and not one by one."""
    spawned: list[FakeEngine] = []

    def holding() -> FakeEngine:
        spawned.append(FakeEngine(poison=frozenset({"poison"})))
        spawned[-1].loaded.set()
        return spawned[-1]

    async with pool_of(after=holding, places=1, slots=8) as pool:
        others = [ask(pool, p, unit=1) for p in "abc"]
        assert (await fault_of(pool.generate(request("poison", unit=0)))).reason is Reason.ENGINE_KILLED
        await until(lambda: len(spawned) == 4 and len(spawned[3].held) == 3)
        for prompt in "abc":
            spawned[3].answer(prompt)
        assert await asyncio.gather(*others) == [completion(p) for p in "abc"]


async def test_a_suspect_is_not_blamed_for_an_engine_that_died_before_it_came() -> None:
    """A request that was at two deaths, and is sent to an engine already dead, goes to the next one and is answered."""
    first, second, third = FakeEngine(), FakeEngine(), FakeEngine()
    for engine in (second, third):
        engine.loaded.set()
    async with pool_of(first, after=iter([second, third, loaded()]).__next__) as pool:
        call = ask(pool, "a")
        third.die()
        for engine in (first, second):
            await until(lambda engine=engine: engine.held)
            engine.die()

        assert await call == completion("a")
        assert third.seen == []
        assert pool.stats().deaths == 3


async def test_a_machine_that_goes_away_makes_nobody_a_suspect() -> None:
    """After two deaths that no request can have caused, a third one on its engine does not convict a request."""
    spawned: list[FakeEngine] = []

    def fleeting() -> FakeEngine:
        number = len(spawned)
        spawned.append(loaded(poison=frozenset({"a"} if number < 3 else ()), lost_blameless=number < 2))
        return spawned[-1]

    async with pool_of(after=fleeting, places=1) as pool:
        assert await ask(pool, "a") == completion("a")
    assert len(spawned) == 4


async def test_a_refused_request_fails_with_the_engines_own_words() -> None:
    """A refusal ends that request as a content fault, and the engine goes on with others."""
    async with pool_of(FakeEngine(automatic=True)) as pool:
        refused, served = ask(pool, "refuse me"), ask(pool, "a")
        fault = await fault_of(refused)
        assert (fault.reason, fault.detail) == (Reason.REQUEST_REFUSED, "no refuse me")
        assert await served == completion("a")


async def test_cancelling_withdraws_the_request_and_frees_its_slot() -> None:
    """A cancelled call is withdrawn from its engine, and a waiting one takes the slot."""
    engine = FakeEngine()
    async with pool_of(engine, slots=1) as pool:
        first = ask(pool, "a")
        await until(lambda: engine.held)
        second = ask(pool, "b")
        first.cancel()
        await until(lambda: engine.withdrawn == ["a"] and "b" in engine.seen)
        engine.answer("b")
        assert await second == completion("b")


async def test_a_waiting_request_that_is_cancelled_never_reaches_an_engine() -> None:
    """What is withdrawn before it was sent is not sent."""
    engine = FakeEngine()
    async with pool_of(engine, slots=1) as pool:
        first = ask(pool, "a")
        await until(lambda: engine.held)
        second, third = ask(pool, "b"), ask(pool, "c", unit=1)
        await until(lambda: pool.stats().waiting == 2)
        second.cancel()
        engine.answer("a")
        await until(lambda: "c" in engine.seen)
        assert "b" not in engine.seen
        assert await first == completion("a")
        third.cancel()


async def test_a_slow_request_of_the_first_unit_goes_to_a_second_engine() -> None:
    """The request that holds up all later ones is sent again; the other answer counts and the slow one is withdrawn."""
    one, two = FakeEngine(), FakeEngine()
    async with pool_of(one, two, slow_floor_s=0.02) as pool:
        await all_ready(pool)
        head, later = ask(pool, "head", unit=1), ask(pool, "later", unit=2)
        await until(lambda: "head" in one.held_prompts() and "head" in two.held_prompts())
        assert pool.stats().resent == 1
        assert "later" not in (one if one.seen[0] == "head" else two).seen
        slow, quick = (one, two) if one.seen[0] == "head" else (two, one)
        quick.answer("head")
        assert await head == completion("head")
        await until(lambda: slow.withdrawn == ["head"])
        quick.answer("later")
        assert await later == completion("later")


async def test_a_request_that_an_engine_fails_is_asked_again() -> None:
    """Two failures of the engine itself are retried, and the third try is answered."""
    async with pool_of(FakeEngine(automatic=True, failing=2)) as pool:
        assert await ask(pool, "fail twice") == completion("fail twice")
        assert pool.stats().retries == 2


async def test_a_request_that_engines_always_fail_stops_the_run() -> None:
    """A failure that does not pass is never made a row: the run stops."""
    async with pool_of(FakeEngine(automatic=True, failing=99), max_failures=3) as pool:
        with pytest.raises(RunStopped, match="busy"):
            await pool.generate(request("fail always"))


async def test_a_wrong_option_ends_the_start_with_its_cause() -> None:
    """An engine that says that the configuration is at fault gives one sentence with the cause, for every caller."""
    wrong = FakeEngine(started=StartFailure("vLLM has no engine option 'max_lenght'", configuration=True))
    async with pool_of(wrong) as pool:
        call = ask(pool, "a")
        with pytest.raises(InputError, match="no engine option 'max_lenght'"):
            await pool.start()
        with pytest.raises(InputError):
            await call


async def test_a_machine_in_trouble_at_the_start_is_tried_again() -> None:
    """A start that fails for another reason than the configuration is a death, and a fresh engine serves."""
    full = FakeEngine(started=StartFailure("out of memory", configuration=False))
    async with pool_of(full) as pool:
        assert await ask(pool, "a") == completion("a")
        assert pool.stats().deaths == 1


async def test_engines_that_never_load_stop_the_run() -> None:
    """With no engine ready in time every waiting request gets RunStopped, which names the time."""
    async with pool_of(after=FakeEngine, places=2, start_timeout_s=0.05) as pool:
        calls = [ask(pool, p) for p in "ab"]
        for call in calls:
            with pytest.raises(RunStopped, match=r"No engine was ready for 0\.05 s"):
                await call
        with pytest.raises(RunStopped):
            await pool.generate(request("c"))


async def test_engines_that_keep_dying_stop_the_run() -> None:
    """Deaths in a row without any answer end with RunStopped and the last cause, not with a failure row."""

    def doomed() -> FakeEngine:
        return loaded(poison=frozenset({"a", "b", "c"}))

    async with pool_of(after=doomed, places=1, max_engine_deaths=2) as pool:
        calls = [ask(pool, p) for p in "abc"]
        for call in calls:
            with pytest.raises(RunStopped, match="poisoned"):
                await call


async def test_no_engine_is_silent_by_gathering() -> None:
    """The shortest `silent_timeout_s` that a configuration takes is longer than an exchange may be held."""
    short = {"engine": {"kind": "scripted", "silent_timeout_s": LONGEST_HOLD_S + 1}}

    with pytest.raises(InputError, match="silent_timeout_s"):
        parse_config(short, "test")


async def test_a_silent_engine_is_replaced() -> None:
    """An exchange that does not return is a death, and its requests are answered elsewhere."""
    stuck = FakeEngine()

    async def never(*_: object) -> None:
        await asyncio.Event().wait()

    stuck.exchange = never
    async with pool_of(stuck, silent_timeout_s=0.05) as pool:
        assert await ask(pool, "a") == completion("a")


async def test_an_engine_that_answers_but_makes_no_token_is_replaced() -> None:
    """With a request on it and counts that stand still it is lost after the time set; one that makes tokens is not."""
    stuck = FakeEngine()
    async with pool_of(stuck, stall_timeout_s=0.2) as pool:
        call = ask(pool, "a")
        async with asyncio.timeout(5):
            for made in range(40):  # twice the time: slow, and alive
                stuck.gauges = Gauges(generated_tokens=made)
                await asyncio.sleep(0.01)
            assert pool.stats().deaths == 0
            assert await call == completion("a")
        assert pool.stats().deaths == 1
        assert stuck.closed


async def test_an_idle_engine_need_not_make_tokens() -> None:
    """An engine without requests for longer than the time set is kept."""
    engine = FakeEngine(automatic=True)
    async with pool_of(engine, stall_timeout_s=0.05) as pool:
        for _ in range(3):
            await ask(pool, "a")
            await asyncio.sleep(0.1)
        assert pool.stats().deaths == 0


async def test_close_ends_everything_and_may_be_repeated() -> None:
    """Closing fails what is open, closes each engine, and does no harm twice or before a start."""
    engine = FakeEngine()
    async with pool_of(engine) as pool:
        call = ask(pool, "a")
        await until(lambda: engine.held)
        await pool.close()
        with pytest.raises(RunStopped):
            await call
        assert engine.closed
        await pool.close()
    async with pool_of(FakeEngine()) as unused:
        await unused.close()


async def test_engines_on_one_node_load_one_after_the_other() -> None:
    """The second engine of a node begins to load when the first is ready; one on another node does not wait."""
    one, two, apart = (FakeEngine(automatic=True) for _ in range(3))
    apart.where = Where("there", (), "other", "code")
    async with pool_of(one, two, apart) as pool:
        for engine in (one, two, apart):
            engine.loaded.clear()
        start = asyncio.create_task(pool.start())
        await until(lambda: one.loading and apart.loading)
        assert not two.loading
        one.loaded.set()
        await until(lambda: two.loading)
        await start


async def test_an_engine_by_other_code_ends_the_run() -> None:
    """Where a node holds another version than the driver, the run stops before anything loads, and says where."""
    stranger = FakeEngine(where=Where("far", (), "node", "fedcba"))
    async with pool_of(stranger, code="abcdef") as pool:
        with pytest.raises(
            InputError,
            match=r"^No engine can start: far runs other code of InstructMill \(fedcba\) than this driver \(abcdef\)",
        ):
            await pool.start()
    assert not stranger.loading


async def test_an_engine_on_a_node_that_is_to_go_gets_nothing_more_and_is_replaced() -> None:
    """What it holds it may finish; new requests go elsewhere; then it is closed and another asks for room."""
    going, staying, next_one = FakeEngine(), FakeEngine(automatic=True), FakeEngine(automatic=True)
    going.where = Where("spot", (), "spot", "code")
    next_one.loaded.set()
    nodes: set[str] = set()
    heard: list[str] = []
    options = {"draining": lambda: nodes, "note": lambda kind, **_: heard.append(kind)}
    async with pool_of(going, staying, after=iter([next_one]).__next__, slots=4, **options) as pool:
        await all_ready(pool)
        staying.automatic = False
        held = [ask(pool, p) for p in "ab"]
        await until(lambda: going.held and staying.held)
        nodes.add("spot")
        await until(lambda: "engine_draining" in heard)
        staying.automatic = True
        later = [ask(pool, p) for p in "cdef"]
        await asyncio.gather(*later)
        assert len(going.seen) == 1
        assert not going.closed
        going.answer(going.seen[0])
        staying.answer(staying.held_prompts()[0])
        assert [answer.text for answer in await asyncio.gather(*held)] == ["A", "B"]
        await until(lambda: going.closed and pool.stats().ready == 2)
        assert pool.stats().deaths == 0


async def test_what_waits_for_its_turn_on_a_node_that_is_to_go_is_not_loaded_there() -> None:
    """It asks for room again at once, and is no death."""
    first, second = FakeEngine(), FakeEngine(automatic=True)
    next_one = FakeEngine(automatic=True, where=Where("there", (), "other", "code"))
    next_one.loaded.set()
    nodes: set[str] = set()
    async with pool_of(first, second, after=iter([next_one, loaded()]).__next__, draining=lambda: nodes) as pool:
        first.loaded.clear()
        call = ask(pool, "a")
        await until(lambda: first.loading)
        nodes.add("node")
        await asyncio.sleep(0.1)
        first.loaded.set()
        assert await call == completion("a")
        assert not second.loading
        assert pool.stats().deaths == 0


@pytest.mark.parametrize("configuration", [False, True])
async def test_a_bad_node_does_not_end_the_run_while_another_engine_loads(configuration) -> None:
    """However often one place fails, and why: the run ends when all that have room have failed."""
    bad = Where("bad", (), "bad", "code")

    def failing() -> FakeEngine:
        return loaded(started=StartFailure("no such option", configuration), where=bad)

    good = FakeEngine(automatic=True)
    async with pool_of(good, failing(), after=failing, max_engine_deaths=2) as pool:
        good.loaded.clear()
        call = ask(pool, "a")
        await until(lambda: pool.stats().deaths > 4)
        good.loaded.set()
        assert await call == completion("a")


async def test_at_the_end_of_a_run_spare_engines_are_let_go() -> None:
    """With no unit left to start, an engine with nothing to do is closed, one without room gives it up, and the one
    that still works stays and is the last."""
    busy, idle, homeless = FakeEngine(), FakeEngine(), FakeEngine()
    async with pool_of(busy, idle, homeless) as pool:
        homeless.room.clear()
        await pool.start()
        await until(lambda: pool.stats().ready == 2)
        call = ask(pool, "last")
        await until(lambda: busy.held or idle.held)
        working, spare = (busy, idle) if busy.held else (idle, busy)
        await asyncio.sleep(0.05)
        assert not spare.closed
        pool.follow(FakeRun(Lost.TAIL, 1))
        await until(lambda: spare.closed and homeless.closed)
        assert not working.closed
        working.answer("last")
        assert await call == completion("last")
        await asyncio.sleep(0.05)
        assert not working.closed


async def test_a_run_waits_longer_for_room_than_for_a_load() -> None:
    """Engines that wait for an autoscaler have a time of their own; once one has its room, that of loading counts."""
    homeless = FakeEngine(automatic=True)
    async with pool_of(homeless, start_timeout_s=0.1, room_timeout_s=20.0) as pool:
        homeless.room.clear()
        call = ask(pool, "a")
        await asyncio.sleep(0.4)
        homeless.room.set()
        assert await call == completion("a")
    never = FakeEngine()
    async with pool_of(never, start_timeout_s=20.0, room_timeout_s=0.1) as pool:
        never.room.clear()
        with pytest.raises(RunStopped, match=r"No engine was ready for 0\.1 s \(1 waiting for room\)"):
            await ask(pool, "a")


async def test_the_time_of_engines_is_whole() -> None:
    """An engine that holds half of what it decodes at once uses half of its time; the rest is lost to what the driver
    names, and loading to loading; what died with an engine is taken off what it used."""
    engine = FakeEngine()
    engine.gauges = Gauges(running=1, busy_s=1.0)
    async with pool_of(engine, batch=2, slots=2) as pool:
        pool.follow(FakeRun(Lost.WINDOW, 9))
        engine.loaded.clear()
        start = asyncio.create_task(pool.start())
        await asyncio.sleep(0.1)
        engine.loaded.set()
        await start
        call = ask(pool, "a")
        await asyncio.sleep(0.3)
        use = pool.use()
        assert use.lost[Lost.LOADING] >= 0.1
        assert use.full == pytest.approx(use.lost[Lost.WINDOW], rel=0.3)
        assert use.seconds == pytest.approx(use.useful + sum(use.lost.values()))
        engine.die()
        await call
        after = pool.use()
        assert 0 < after.lost[Lost.REDONE] <= after.full
        assert after.useful == after.full - after.lost[Lost.REDONE]


async def test_while_novelty_workers_are_filled_engines_wait_for_novelty() -> None:
    """The time of ready engines before the first unit is not called loading then."""
    async with pool_of(FakeEngine(), spare_s=0.1) as pool:
        await all_ready(pool)
        pool.follow(Filling())
        before = pool.use().lost.get(Lost.LOADING, 0.0)
        await until(lambda: pool.use().lost.get(Lost.NOVELTY, 0.0) > 0.1)
        assert pool.use().lost.get(Lost.LOADING, 0.0) == pytest.approx(before, abs=0.2)


async def test_at_the_end_of_a_run_some_engine_always_stays() -> None:
    """Two engines that have had nothing to do for long are not both let go: what is asked then is answered."""
    one, two = FakeEngine(automatic=True), FakeEngine(automatic=True)
    async with pool_of(one, two, after=FakeEngine) as pool:
        await all_ready(pool)
        pool.follow(FakeRun(Lost.TAIL, 1))
        await until(lambda: one.closed or two.closed)
        await asyncio.sleep(0.1)
        assert [one.closed, two.closed].count(True) == 1
        assert await ask(pool, "a") == completion("a")
        pool.follow(FakeRun(Lost.WINDOW, 1))
        await until(lambda: len(pool.handles) == 2 and pool.stats().engines[0].state != "let go")
        assert "let go" not in {engine.state for engine in pool.stats().engines}


async def test_engines_that_open_units_need_are_not_given_up() -> None:
    """With as many units under way as two engines hold, the one that still loads is waited for, and serves."""
    ready, late = FakeEngine(), FakeEngine(automatic=True)
    async with pool_of(ready, late, slots=2) as pool:
        late.loaded.clear()
        await pool.start()
        pool.follow(FakeRun(Lost.TAIL, 4))
        calls = [ask(pool, p) for p in "ab"]
        await until(lambda: len(ready.held) == 2)
        await asyncio.sleep(0.1)
        assert not late.closed
        late.loaded.set()
        assert await ask(pool, "c") == completion("c")
        for call in calls:
            call.cancel()


async def test_deaths_stop_the_run_though_some_engines_have_no_room() -> None:
    """An engine that keeps dying ends the run after so many times in a row, also where another waits for its room."""
    homeless = FakeEngine()

    def doomed() -> FakeEngine:
        return loaded(poison=frozenset({"a", "b", "c"}))

    async with pool_of(homeless, after=doomed, places=2, max_engine_deaths=2) as pool:
        homeless.room.clear()
        for call in [ask(pool, p) for p in "abc"]:
            with pytest.raises(RunStopped, match="keep ending without an answer; the last one: poisoned"):
                await call
        assert pool.stats().deaths == 2


async def test_a_load_that_hangs_is_not_the_end_for_the_others_of_its_node() -> None:
    """Those that waited for their turn have a time of their own to load."""
    hanging, next_one = FakeEngine(), FakeEngine(automatic=True)
    async with pool_of(hanging, next_one, after=FakeEngine, start_timeout_s=0.3) as pool:
        hanging.loaded.clear()
        assert await ask(pool, "a") == completion("a")
        assert hanging.closed


async def test_what_another_try_would_not_mend_stops_the_run_at_once() -> None:
    """A node that cannot import the package is no death to be tried again, where no engine has been ready yet."""
    broken = FakeEngine()

    async def nowhere() -> Where:
        raise EngineLost("a node cannot import InstructMill", blameless=True, configuration=True)

    broken.place = nowhere
    async with pool_of(broken) as pool:
        with pytest.raises(InputError, match="No engine can start: a node cannot import InstructMill"):
            await pool.start()
