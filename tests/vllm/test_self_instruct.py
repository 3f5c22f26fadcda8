"""The whole method on the embedded model, with real Ray and real vLLM."""

from __future__ import annotations

import datasets
import pytest

from actors.engine_pool import EnginePool
from pipeline.config import load_config
from pipeline.testing import run_to_end

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_a_run_on_two_vllm_engines(pool: EnginePool, tables, tmp_path) -> None:
    """Two engines bootstrap novel instructions with instances into a folder that `datasets` opens; both serve."""
    before = [engine.answered for engine in pool.stats().engines]
    config = load_config("shipped:demo.toml", ("target=60", "window=3"))
    run = await run_to_end(config, tmp_path / "r", pool)
    served = [engine.answered - old for engine, old in zip(pool.stats().engines, before, strict=True)]
    counters, rows = run.state.counters, tables(tmp_path / "r")

    assert counters.admitted == 60
    assert counters.examples >= 40
    assert counters.failed_units == 0
    assert counters.machine_made > 0
    assert all(row["finish_reason"] in ("stop", "length") for row in rows["data"])
    assert {row["is_classification"] for row in rows["pool"]} <= {True, False}
    assert all(row["completion_tokens"] > 0 for row in rows["data"])
    assert len(datasets.load_dataset(str(tmp_path / "r"), split="train")) == counters.examples
    assert min(served) > 0
