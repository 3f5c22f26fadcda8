"""The shipped chat configuration on a GPU, with random weights in the shape of an 8B model: it starts, fills, stops."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path

import pytest

from actors import cluster
from pipeline.config import in_style, load_config
from pipeline.records import Completion, Message, Request, RequestKey, Stage
from tests.chat_models import make_tokenizer

pytestmark = pytest.mark.skipif(shutil.which("nvidia-smi") is None, reason="this machine has no NVIDIA GPU")

SHAPE = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 32768,
    "vocab_size": 128256,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500000.0,
    "torch_dtype": "bfloat16",
    "tie_word_embeddings": False,
}


def test_an_8b_shape_starts_fills_and_stops(ray_session: None, tmp_path: Path) -> None:
    """Six hundred chats, more than the engine decodes at once, are all answered, and the engine is gone afterwards."""
    folder = make_tokenizer(tmp_path / "model", "chatml")
    (folder / "config.json").write_text(json.dumps(SHAPE), encoding="utf-8")
    overrides = (f"engine.model={json.dumps(str(folder))}", 'engine.vllm.load_format="dummy"')
    config = in_style(load_config("shipped:self_instruct_chat.toml", overrides), "chat")
    sampling = config.bootstrap.sampling.model_copy(update={"max_tokens": 128}).resolved()

    async def ask() -> list[Completion]:
        pool = cluster.engine_pool(config.engine)
        try:
            await pool.start()
            turn = (Message("user", "Write eight new tasks."),)
            keys = (RequestKey(unit, Stage.BOOTSTRAP) for unit in range(600))
            return await asyncio.gather(*(pool.generate(Request(key, turn, sampling)) for key in keys))
        finally:
            await pool.close()

    answers = asyncio.run(ask())
    assert len(answers) == 600
    assert all(answer.completion_tokens > 0 for answer in answers)
