"""A whole run over engines in processes of their own: one, two, and some that join late."""

from __future__ import annotations

import asyncio

import pytest

from actors import cluster
from actors.place import PoolStats
from pipeline.testing import ScriptedEngine, run_to_end

pytestmark = pytest.mark.usefixtures("ray_session")

SCRIPT = {"capacity": 6, "on_ray": True}


@pytest.fixture
def over_engines(scripted, tables, tmp_path):
    """Makes a run over so many engines of a script, and asserts that its rows are those of one engine in process."""

    async def run(config, wait: int) -> PoolStats:
        pool = cluster.engine_pool(config.engine)
        try:
            async with asyncio.timeout(60):
                await pool.start()
                while pool.stats().ready < wait:
                    await asyncio.sleep(0.01)
                await run_to_end(config, tmp_path / "over", pool)
            return pool.stats()
        finally:
            await pool.close()

    def make(wait: int, engines: dict[str, int], **script: float) -> list[int]:
        config = scripted(engine={"kind": "scripted", "num_gpus": 0, "scripted": {**SCRIPT, **script}, **engines})
        asyncio.run(run_to_end(config, tmp_path / "one", ScriptedEngine(delay_s=0.002)))
        stats = asyncio.run(run(config, wait))
        assert tables(tmp_path / "one") == tables(tmp_path / "over")
        return [engine.answered for engine in stats.engines]

    return make


def test_two_engines_give_the_rows_of_one_and_share_the_work(over_engines):
    """Two engine processes give the same rows in the same order as one in process; each answers at least a quarter."""
    answered = over_engines(2, {"count": 2})

    assert min(answered) >= sum(answered) / 4


@pytest.mark.parametrize("engines", [{"count": 1}, {"min": 1, "max": 3}], ids=["one", "late"])
def test_engines_that_join_while_the_run_goes_on(over_engines, engines):
    """A run begins with the first engine and takes in those that are ready later, one after the other on a node."""
    answered = over_engines(1, engines, load_s=0.3, delay_s=0.5)

    assert all(answered)
