"""A pool of two real vLLM engines on the CPU with the embedded model, made once for all tests here."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from actors import cluster
from actors.engine_pool import EnginePool
from pipeline.engine import Lost
from pipeline.engine_settings import EngineSettings
from pipeline.models import model_path
from tests.vllm.server import NAME, make_chat_model, serve


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


class Waiting:
    """A run that has not come to its end."""

    open_units = 0

    def holding(self) -> Lost:
        return Lost.WINDOW


@pytest_asyncio.fixture(loop_scope="session")
async def pool(vllm_pool: EnginePool) -> EnginePool:
    """The shared pool with both of its engines ready, also where one was let go at the end of another test's run."""
    vllm_pool.follow(Waiting())
    async with asyncio.timeout(120):
        while vllm_pool.stats().ready < 2:
            await asyncio.sleep(0.05)
    return vllm_pool


@pytest.fixture(scope="session")
def chat_model(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded model with a chat template that hands a user's turn on as it is."""
    return make_chat_model(model_folder, tmp_path_factory.mktemp("model") / NAME)


@pytest.fixture(scope="session")
def vllm_server(chat_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """The address and the model's name of a real server that wants a key."""
    yield from serve(chat_model, tmp_path_factory.mktemp("server") / "log")
