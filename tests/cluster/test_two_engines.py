"""A whole run over two engines in processes of their own."""

from __future__ import annotations

import asyncio
import sys

import pytest
import ray

from actors import cluster
from actors.messages import Answer, Call, Place, Ready
from pipeline.testing import ScriptedEngine, run_to_end, scripted_answer

pytestmark = pytest.mark.usefixtures("ray_session")


class ScriptedActor:
    """VllmEngine's methods over the scripted answers."""

    async def place(self) -> Place:
        return Place("here", (0, 1))

    async def start(self, cores: tuple[int, ...] = ()) -> Ready:
        return Ready("0", "scripted", 1000, 0, "here", cores, 0.0)

    async def exchange(self, calls: tuple[Call, ...], withdrawn: tuple[int, ...]) -> tuple[Answer, ...]:
        await asyncio.sleep(0.01)
        return tuple(Answer(call.id, scripted_answer(call.request)) for call in calls)

    async def close(self) -> None:
        return None


def test_two_engines_give_the_rows_of_one_and_share_the_work(scripted, tables, tmp_path):
    """Two engine processes give the same rows in the same order as one in process; each answers at least a quarter."""
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    config = scripted(engine={"kind": "scripted", "count": 2, "num_gpus": 0, "scripted": {"capacity": 6}})
    asyncio.run(run_to_end(config, tmp_path / "one", ScriptedEngine(delay_s=0.002)))

    async def over_two() -> list[int]:
        pool = cluster.actor_pool(ScriptedActor, (), config.engine)
        try:
            async with asyncio.timeout(60):
                await pool.start()
                while pool.stats().ready < 2:
                    await asyncio.sleep(0.01)
                await run_to_end(config, tmp_path / "two", pool)
            return [engine.answered for engine in pool.stats().engines]
        finally:
            await pool.close()

    answered = asyncio.run(over_two())

    assert tables(tmp_path / "one") == tables(tmp_path / "two")
    assert min(answered) >= sum(answered) / 4
