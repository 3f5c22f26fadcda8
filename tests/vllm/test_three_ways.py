"""The same run three ways with the embedded model: chats in Ray actors, chats at an endpoint, completions."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest

from actors import cluster
from pipeline.config import Config, load_config, parse_config
from pipeline.plan import make_plan
from pipeline.prompting import shipped_text
from pipeline.report import read_rows, status
from pipeline.testing import run_to_end
from tests.vllm.server import KEY, VARIABLE

TARGET = 30


@pytest.fixture
def values(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Makes the values of a configuration from its engine's: the demo's prompts and sampling, in chat style.

    The model was trained to go on with texts, so its template hands a user's turn on as it is, and the turn ends where
    the model goes on.
    """
    prompts = {}
    for name in ("bootstrap", "classification", "instance_input_first", "instance_output_first"):
        text = shipped_text(f"demo/{name}.txt").removesuffix("\n")
        (tmp_path / f"{name}.txt").write_text(text + ("\n9." if name == "bootstrap" else "") + "\n")
        prompts[name] = str(tmp_path / f"{name}.txt")

    def make(**engine: Any) -> dict[str, Any]:
        config = load_config("shipped:demo.toml").model_dump(mode="json", exclude={"out"}, exclude_unset=True)
        config["instances"]["output_sampling"] = {"max_tokens": 60, "stop": ["\n"]}
        return config | {"target": TARGET, "window": 3, "prompts": prompts, "engine": engine}

    return make


def came_out_whole(folder: Path, style: str) -> None:
    """The sums of a finished run close, its rows are there, and `datasets` opens it."""
    facts, rows = status(folder), read_rows(folder, "data")
    counts = facts["counts"]

    assert facts["state"] == "finished"
    assert counts["admitted"] == TARGET == len(read_rows(folder, "pool"))
    assert counts["candidates"] == counts["admitted"] + counts["refused"]
    assert counts["admitted"] == counts["instructions_with_rows"] + counts["closed_without_rows"]
    assert counts["instances"] == counts["examples"] + sum(counts["refused_instances"].values())
    assert len(rows) == counts["examples"] > 0
    assert all(row["output"] and row["prompt_tokens"] > 0 and row["completion_tokens"] > 0 for row in rows)
    assert ("output" in counts["calls"]) == (style == "chat")
    assert len(datasets.load_dataset(str(folder), split="train")) == len(rows)


def test_chats_in_ray_actors(
    ray_session: None,
    chat_model: Path,
    values: Callable[..., dict[str, Any]],
    tmp_path: Path,
) -> None:
    """With the style left open, the model's chat template makes it a chat run, on an engine in a Ray actor."""
    options = {"model": str(chat_model), "num_gpus": 0, "vllm": {"max_model_len": 2048, "max_num_seqs": 16}}
    config = parse_config(values(**options, cpu_kv_cache_gib=0.5, start_timeout_s=120), "test")

    async def run(config: Config) -> None:
        pool = cluster.engine_pool(config.engine)
        try:
            await pool.start()
            await run_to_end(config, tmp_path / "r", pool)
        finally:
            await pool.close()

    assert make_plan(config).style_why == "the model has a chat template"
    asyncio.run(run(config))
    came_out_whole(tmp_path / "r", "chat")


@pytest.mark.parametrize("style", ["chat", pytest.param("completion", marks=pytest.mark.slow)])
def test_at_an_endpoint(
    vllm_server: tuple[str, str],
    without_ray_and_vllm: dict[str, str],
    values: Callable[..., dict[str, Any]],
    tmp_path: Path,
    style: str,
) -> None:
    """The command line runs it at a real vLLM server, in either style, where Ray and vLLM cannot be imported."""
    url, model = vllm_server
    openai = {"base_url": url, "api_key_env": VARIABLE, "concurrency": 16}
    config = values(kind="openai", model=model, openai=openai, style=style)
    if style == "completion":
        config["prompts"] = load_config("shipped:demo.toml").prompts.model_dump(exclude_none=True)
    (tmp_path / "c.toml").write_text(_toml(config))
    done = subprocess.run(
        [sys.executable, "-m", "pipeline", "run", "c.toml", "--out", "r"],
        cwd=tmp_path,
        env={**without_ray_and_vllm, VARIABLE: KEY},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr[-2000:]
    assert "IS NOT" not in done.stdout
    came_out_whole(tmp_path / "r", style)


def _toml(values: dict[str, Any], prefix: str = "") -> str:
    """Plain values as TOML."""
    lines = [f"{key} = {json.dumps(value)}" for key, value in values.items() if not isinstance(value, dict)]
    for key, value in values.items():
        if isinstance(value, dict):
            lines += [f"[{prefix}{key}]", _toml(value, f"{prefix}{key}.")]
    return "\n".join(lines)
