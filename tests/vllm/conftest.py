"""A pool of two real vLLM engines on the CPU with the embedded model, made once for all tests here."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from actors import cluster
from actors.engine_pool import EnginePool
from pipeline.engine_settings import EngineSettings
from pipeline.models import model_path


@pytest.fixture(scope="session")
def model_folder() -> Path:
    """The embedded model."""
    return Path(model_path("shipped:embedded"))


@pytest.fixture(scope="session")
def vllm_settings(model_folder: Path) -> EngineSettings:
    """Two engines of one core each, with a context of 1024 tokens."""
    return EngineSettings(
        model=str(model_folder),
        count=2,
        num_gpus=0,
        num_cpus=1,
        cpu_kv_cache_gib=0.25,
        start_timeout_s=120,
        vllm={"max_model_len": 1024, "max_num_seqs": 16},
    )


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def vllm_pool(ray_session: None, vllm_settings: EngineSettings) -> AsyncIterator[EnginePool]:
    """Two real engines, loading while the first tests are set up."""
    pool = cluster.engine_pool(vllm_settings)
    await pool.start()
    yield pool
    await pool.close()
