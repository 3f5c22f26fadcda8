"""A LoRA adapter for every request: what names it, what it changes, and how a broken one ends the start."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from actors import cluster
from actors.engine_pool import EnginePool
from actors.vllm_engine import engine_options
from pipeline.adapters import adapter_rank, lora_adapter
from pipeline.engine_settings import EngineSettings
from pipeline.errors import InputError
from pipeline.records import Request, RequestKey, Sampling, Stage
from tests.chat_models import make_adapter

PROMPTS = ("Task: Write a list of three fruits.", "Come up with a series of tasks:\n1. Write a poem.", "Is water wet?")


def named(path: Path, **options: Any) -> dict[str, Any]:
    """The options of an engine that name one adapter."""
    return {"lora_modules": [{"name": "x", "path": str(path)}], **options}


def with_rank(folder: Path, rank: Any) -> Path:
    """A folder of an adapter of which there is no more than its rank."""
    folder.mkdir()
    (folder / "adapter_config.json").write_text(f'{{"r": {rank}, "rank_pattern": {{}}}}', encoding="utf-8")
    return folder


def test_the_adapter_is_named_as_for_the_server(tmp_path: Path) -> None:
    """Name and whole path of the one table in `lora_modules`; nothing where the option is not set."""
    folder = with_rank(tmp_path / "a", 4)
    assert lora_adapter(named(folder.parent / "b" / ".." / "a")) == ("x", str(folder))
    assert lora_adapter({"max_num_seqs": 8}) is None


@pytest.mark.parametrize(
    "modules",
    [
        pytest.param("x=/models/x", id="the-command-lines-other-form"),
        pytest.param({"name": "x", "path": "/models/x"}, id="no-list"),
        pytest.param([], id="none"),
        pytest.param([{"name": "x", "path": "/x"}, {"name": "y", "path": "/y"}], id="two"),
        pytest.param([{"name": "x"}], id="no-path"),
        pytest.param([{"name": "x", "path": 1}], id="a-number"),
        pytest.param([{"name": "", "path": "/x"}], id="an-empty-name"),
        pytest.param([{"name": "x", "path": "/x", "base_model_name": "m"}], id="an-unknown-key"),
    ],
)
def test_another_shape_is_refused_with_an_example(modules: Any) -> None:
    """What is not a list of one table with name and path is a ValueError that shows one."""
    with pytest.raises(ValueError, match=r'^engine\.vllm\.lora_modules must name one adapter .*\[\{name = "mine"'):
        engine_options("m", EngineSettings(model="m", vllm={"lora_modules": modules}))


def test_a_folder_without_an_adapter_is_refused(tmp_path: Path) -> None:
    """A folder without adapter_config.json, one that does not say the rank, and LoRA turned off are named as such."""
    with pytest.raises(ValueError, match=f"^engine.vllm.lora_modules: {tmp_path} is no folder of an adapter"):
        lora_adapter(named(tmp_path))
    with pytest.raises(ValueError, match=r"b/adapter_config.json: not the configuration of a LoRA adapter"):
        adapter_rank(str(with_rank(tmp_path / "b", '"four"')))
    with pytest.raises(ValueError, match=r"enable_lora = false"):
        lora_adapter(named(with_rank(tmp_path / "c", 4), enable_lora=False))


@pytest.mark.parametrize(("rank", "expected"), [(4, 16), (16, 16), (24, 32), (257, 320), (1000, 512)])
def test_the_room_for_the_rank_is_made(tmp_path: Path, rank: int, expected: int) -> None:
    """LoRA is on with the least rank vLLM knows that holds the adapter's; what the user sets stays; the name goes."""
    folder = with_rank(tmp_path / "a", rank)
    options = engine_options("m", EngineSettings(model="m", vllm=named(folder)))
    assert (options["enable_lora"], options["max_lora_rank"]) == (True, expected)
    assert "lora_modules" not in options
    own = engine_options("m", EngineSettings(model="m", vllm=named(folder, max_lora_rank=64, max_loras=2)))
    assert (own["enable_lora"], own["max_lora_rank"], own["max_loras"]) == (True, 64, 2)


async def _greedy(pool: EnginePool) -> list[str]:
    sampling = Sampling(24, 0.0, 1.0, 0, 0.0, 0.0, 0.0, 1.0, ())
    keys = [RequestKey(unit, Stage.INSTANCES) for unit in range(len(PROMPTS))]
    return [(await pool.generate(Request(key, PROMPTS[key.unit], sampling))).text for key in keys]


@pytest.mark.asyncio(loop_scope="session")
async def test_an_adapter_changes_the_answers(
    vllm_pool: EnginePool, vllm_settings: EngineSettings, tmp_path: Path
) -> None:
    """Greedy answers differ with an adapter from those without, and are the same with one that is all zero."""
    adapters = make_adapter(tmp_path / "real"), make_adapter(tmp_path / "zero", scale=0.0)
    pools = []
    for folder in adapters:
        options = named(folder, **vllm_settings.vllm)
        pools.append(cluster.engine_pool(vllm_settings.model_copy(update={"count": 1, "vllm": options})))
    try:
        await asyncio.gather(*(pool.start() for pool in pools))
        plain, real, zero = [await _greedy(pool) for pool in (vllm_pool, *pools)]
    finally:
        await asyncio.gather(*(pool.close() for pool in pools))
    assert zero == plain
    assert all(one != other for one, other in zip(real, plain, strict=True))


@pytest.mark.slow
@pytest.mark.asyncio(loop_scope="session")
async def test_a_broken_adapter_ends_the_start(
    ray_session: None, vllm_settings: EngineSettings, tmp_path: Path
) -> None:
    """An adapter that vLLM cannot load is the configuration's fault, told with its folder before any request."""
    folder = make_adapter(tmp_path / "broken")
    (folder / "adapter_model.safetensors").unlink()
    options = named(folder, **vllm_settings.vllm)
    pool = cluster.engine_pool(vllm_settings.model_copy(update={"count": 1, "vllm": options}))
    try:
        with pytest.raises(InputError, match=f"the LoRA adapter {folder} cannot be loaded"):
            await pool.start()
    finally:
        await pool.close()
