"""A whole run over two engines in processes of their own."""

from __future__ import annotations

import asyncio

import pytest

from actors import cluster
from pipeline.testing import ScriptedEngine, run_to_end

pytestmark = pytest.mark.usefixtures("ray_session")


def test_two_engines_give_the_rows_of_one_and_share_the_work(scripted, tables, tmp_path):
    """Two engine processes give the same rows in the same order as one in process; each answers at least a quarter."""
    script = {"capacity": 6, "on_ray": True}
    config = scripted(engine={"kind": "scripted", "count": 2, "num_gpus": 0, "scripted": script})
    asyncio.run(run_to_end(config, tmp_path / "one", ScriptedEngine(delay_s=0.002)))

    async def over_two() -> list[int]:
        pool = cluster.engine_pool(config.engine)
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
