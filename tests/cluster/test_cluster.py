"""The same pool over real Ray actors, with a scripted engine in each: what only real processes can show."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import ray

from actors import cluster
from actors.code import code_hash, node_id
from actors.engine_pool import EnginePool
from actors.messages import Answer, Call, Gauges, News, Ready, Refused, StartFailure, Where
from pipeline.engine_settings import EngineSettings, ScriptedSettings
from pipeline.errors import ContentFault, InputError, RunStopped
from pipeline.records import Completion, Reason, Request, RequestKey, Sampling, Stage
from tests.conftest import block_imports

pytestmark = [pytest.mark.asyncio, pytest.mark.usefixtures("ray_session")]

SAMPLING = Sampling(8, 0.0, 1.0, 0, 0.0, 0.0, 0.0, 1.0, ())


class ScriptedActor:
    """VllmEngine's methods with a script behind them: "die" ends the process, "hang" is never answered."""

    def __init__(self, failure: StartFailure | None) -> None:
        self._failure = failure

    async def place(self) -> Where:
        return Where("here", (0, 1), "node", code_hash())

    async def start(self, cores: tuple[int, ...] = ()) -> Ready | StartFailure:
        return self._failure or Ready("0", "scripted", 100, os.getpid(), "here", cores, 0.0)

    async def exchange(self, calls: tuple[Call, ...], withdrawn: tuple[int, ...], hold_s: float) -> News:
        await asyncio.sleep(0.01)
        prompts = {call.id: call.request.prompt for call in calls}
        if "die" in prompts.values():
            os._exit(1)
        answers = tuple(
            Answer(call_id, Refused("no") if prompt == "refuse" else Completion(prompt.upper(), "stop", 1, 1))
            for call_id, prompt in prompts.items()
            if prompt != "hang"
        )
        return News(answers, Gauges())

    async def close(self) -> None:
        return None


@pytest.fixture(scope="module", autouse=True)
def _workers_get_the_class(ray_session: None) -> None:
    """Ray's workers cannot import a test module, so its classes travel by value."""
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])


def scripted_pool(
    count: int = 2, num_cpus: int = 1, failure: StartFailure | None = None, **limits: float
) -> EnginePool:
    """A pool of scripted actors."""
    scripted = ScriptedSettings(capacity=8)
    settings = EngineSettings(kind="scripted", count=count, num_gpus=0, num_cpus=num_cpus, scripted=scripted)
    return cluster.actor_pool(ScriptedActor, (failure,), settings, backoff_s=0.01, **limits)


def ask(pool: EnginePool, prompt: str, unit: int = 0) -> asyncio.Task[Completion]:
    """Ask in the background."""
    return asyncio.create_task(pool.generate(Request(RequestKey(unit, Stage.BOOTSTRAP), prompt, SAMPLING)))


async def until_ready(pool: EnginePool, count: int) -> None:
    """Wait until so many engines are ready."""
    async with asyncio.timeout(30):
        while pool.stats().ready < count:
            await asyncio.sleep(0.01)


async def test_two_actors_on_disjoint_cores_answer_every_request() -> None:
    """Both processes of a pool of two serve, each on a core of its own, and a refusal reaches its caller."""
    pool = scripted_pool()
    try:
        await pool.start()
        await until_ready(pool, 2)
        answers = await asyncio.gather(*(ask(pool, f"p{n}", n) for n in range(50)))
        assert [answer.text for answer in answers] == [f"P{n}" for n in range(50)]
        assert all(engine.answered for engine in pool.stats().engines)
        assert sorted(ready.cores for ready in pool.ready) == [(0,), (1,)]
        with pytest.raises(ContentFault, match="no"):
            await ask(pool, "refuse")
    finally:
        await pool.close()


async def test_a_killed_actor_is_replaced_and_its_requests_answered() -> None:
    """A process killed from outside is replaced on the cores it held, and what it held is answered."""
    pool = scripted_pool(count=1)
    try:
        await pool.start()
        before = pool.ready[0]
        hanging = ask(pool, "hang")
        await asyncio.sleep(0)
        os.kill(before.pid, signal.SIGKILL)
        assert (await ask(pool, "a")).text == "A"
        assert pool.stats().deaths == 1
        assert pool.ready[0].pid != before.pid
        assert pool.ready[0].cores == before.cores
        hanging.cancel()
    finally:
        await pool.close()


async def test_a_request_that_ends_its_process_fails_alone() -> None:
    """The request that kills each engine becomes a content fault, and those in flight beside it are answered."""
    pool = scripted_pool()
    try:
        await pool.start()
        others = [ask(pool, f"p{n}", n) for n in range(6)]
        with pytest.raises(ContentFault) as caught:
            await ask(pool, "die", unit=3)
        assert caught.value.reason is Reason.ENGINE_KILLED
        assert [answer.text for answer in await asyncio.gather(*others)] == [f"P{n}" for n in range(6)]
        assert pool.stats().deaths == 3
    finally:
        await pool.close()


async def test_an_actor_taken_away_by_ray_makes_nobody_a_suspect() -> None:
    """A request in flight on three actors that Ray itself ended is answered in the end, not convicted."""
    pool = scripted_pool(count=1)
    taken: list[int] = []
    try:
        hanging = ask(pool, "hang")
        for kills in range(4):
            async with asyncio.timeout(30):
                while not (pool.ready and pool.ready[0].pid not in taken and pool.stats().in_flight):
                    await asyncio.sleep(0.01)
            taken.append(pool.ready[0].pid)
            if kills < 3:
                pool.handles[0].kill()
        assert not hanging.done()
        hanging.cancel()
    finally:
        await pool.close()


async def test_a_start_that_fails_says_why() -> None:
    """A wrong option in an actor reaches the driver as one sentence, without Ray's traceback."""
    pool = scripted_pool(failure=StartFailure("vLLM has no engine option 'max_lenght'", configuration=True))
    try:
        with pytest.raises(InputError) as caught:
            await pool.start()
        assert str(caught.value) == "No engine can start: vLLM has no engine option 'max_lenght'"
    finally:
        await pool.close()


async def test_a_node_without_the_package_is_named(tmp_path, monkeypatch) -> None:
    """An actor whose process cannot import InstructMill ends the start with its node's address and what to install."""
    block_imports(tmp_path, "actors", "pipeline", "prompts")
    monkeypatch.setattr(cluster, "PASSED_ON", ("PYTHONPATH",))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    settings = EngineSettings(kind="scripted", count=1, num_gpus=0)
    pool = cluster.engine_pool(settings)
    try:
        with pytest.raises(InputError) as caught:
            await pool.start()
        address = ray.nodes()[0]["NodeManagerAddress"]
        assert str(caught.value) == (
            f"No engine can start: node {address} cannot import InstructMill (no module 'pipeline' there): install "
            "instructmill[vllm] in its image, or, where it has all but the package itself, take a clone along as the "
            "working dir"
        )
    finally:
        await pool.close()


class SecondIsStrange(ScriptedActor):
    """The first of them is one of this code, and the next, once that serves, are of another."""

    def __init__(self, folder: Path) -> None:
        super().__init__(None)
        self._folder = folder

    async def place(self) -> Where:
        number = 0
        while True:
            try:
                (self._folder / f"placed-{number}").mkdir()
                break
            except FileExistsError:
                number += 1
        while number and not (self._folder / "served").exists():
            await asyncio.sleep(0.01)
        return Where("here", (0, 1), node_id(), "another" if number else code_hash())

    async def exchange(self, calls: tuple[Call, ...], withdrawn: tuple[int, ...], hold_s: float) -> News:
        (self._folder / "served").touch()
        return await super().exchange(calls, withdrawn, hold_s)


async def test_a_node_with_other_code_is_tried_once(tmp_path) -> None:
    """Where engines serve, a node that runs other code gets no second engine, and that is told of once."""
    told: list[tuple[str, dict[str, Any]]] = []
    scripted = ScriptedSettings(capacity=8)
    settings = EngineSettings(kind="scripted", count=2, num_gpus=0, scripted=scripted)
    pool = cluster.actor_pool(
        SecondIsStrange, (tmp_path,), settings, backoff_s=0.01, note=lambda kind, **values: told.append((kind, values))
    )
    try:
        assert (await ask(pool, "a")).text == "A"
        async with asyncio.timeout(30):
            while "node_given_up" not in [kind for kind, _ in told]:
                await asyncio.sleep(0.01)
        await asyncio.sleep(1.0)
        assert [values["why"] for kind, values in told if kind == "node_given_up"] == [
            "here runs other code of InstructMill"
        ]
        assert len(list(tmp_path.glob("placed-*"))) == 2
        assert [engine.state for engine in pool.stats().engines].count("waiting for room") == 1
        assert (await ask(pool, "b", 1)).text == "B"
    finally:
        await pool.close()


async def test_engines_without_room_stop_the_run() -> None:
    """Actors that the cluster cannot place end with RunStopped, which says what they wait for."""
    pool = scripted_pool(num_cpus=1000, room_timeout_s=0.5)
    try:
        with pytest.raises(RunStopped, match="2 waiting for room"):
            await ask(pool, "a")
    finally:
        await pool.close()


async def test_room_is_checked_against_the_cluster() -> None:
    """Engines that fit pass; too many, or too large ones, are refused with what the cluster has."""
    assert cluster.require_room([EngineSettings(model="m", count=1, num_gpus=0)]).cpus == 4
    with pytest.raises(InputError, match=r"room for 4: it has 1 machine with 4 CPUs .* set engine.count to 4 or less"):
        cluster.require_room([EngineSettings(model="m", count=5, num_gpus=0)])
    with pytest.raises(InputError, match=r"0 GPUs .* lower engine.num_gpus"):
        cluster.require_room([EngineSettings(model="m", count=1, num_gpus=1)])


async def test_room_for_a_judge_is_checked_beside_the_writers() -> None:
    """Both groups together have to fit, and each sentence names the setting of its own group."""

    def engines(count: int, **values: int) -> EngineSettings:
        return EngineSettings(model="m", count=count, **{"num_gpus": 0, **values})

    assert cluster.require_room([engines(2), engines(2)]).cpus == 4
    assert cluster.require_room([None, engines(4)]).cpus == 4
    with pytest.raises(InputError, match=r"^judge.count asks for 5 engines .* set judge.count to 4 or less"):
        cluster.require_room([engines(1), engines(5)])
    with pytest.raises(InputError, match=r"^judge.count asks for 1 engines .* lower judge.num_gpus"):
        cluster.require_room([None, engines(1, num_gpus=1)])
    both = (
        r"^engine.count asks for 3 .*, and judge.count asks for 2 .* no room for that: .*lower engine.count or judge.c"
    )
    with pytest.raises(InputError, match=both):
        cluster.require_room([engines(3), engines(2)])


async def test_an_autoscaler_that_may_bring_no_fitting_node_is_no_way_out() -> None:
    """With min = 0 and neither a node nor an autoscaler that could hold an engine, the run is refused at once."""
    assert cluster.require_room([EngineSettings(model="m", min=0, max=9, num_gpus=0)]).cpus == 4
    wanted = EngineSettings(model="m", min=0, max=2, num_gpus=8)
    with pytest.raises(InputError, match=r"^engine.min = 0 leaves it to an autoscaler .* 8 GPUs fits on any"):
        cluster.require_room([wanted])


async def test_two_pools_share_no_core() -> None:
    """The engines of a second pool get cores that the first does not hold, or none of their own where all are held."""
    pools = [scripted_pool(count=1) for _ in range(3)]
    try:
        for pool in pools:
            await pool.start()
        assert [pool.ready[0].cores for pool in pools] == [(0,), (1,), ()]
    finally:
        await asyncio.gather(*(pool.close() for pool in pools))
    again = scripted_pool(count=1)
    try:
        await again.start()
        assert again.ready[0].cores == (0,)
    finally:
        await again.close()


async def test_room_that_others_use_is_no_room() -> None:
    """Where another program holds the CPUs, the refusal says what is free of them."""
    pool = scripted_pool(count=1, num_cpus=1, start_timeout_s=30.0)
    try:
        await pool.start()
        async with asyncio.timeout(10):
            while cluster.resources().free_cpus > 3:  # Ray's own count follows a moment later
                await asyncio.sleep(0.05)
        with pytest.raises(RunStopped, match=r"others use what the cluster has: .* 4 CPUs \([0-3] free\)"):
            cluster.require_room([EngineSettings(model="m", count=4, num_gpus=0)])
    finally:
        await pool.close()
