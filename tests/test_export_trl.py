"""TRL trains on an export: two real steps of each trainer with the embedded model. Skipped where trl is missing."""

from __future__ import annotations

import asyncio
import importlib.util
from pathlib import Path
from typing import Any

import pytest

from pipeline.cli import main
from pipeline.testing import ScriptedEngine, run_to_end

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not all(map(importlib.util.find_spec, ("trl", "accelerate"))), reason="trl and accelerate are not installed"
    ),
]
# The embedded model is a base model and has none.
TEMPLATE = (
    "{% for message in messages %}{{ message['role'] + ':' + message['content'] + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant:' }}{% endif %}"
)


def trained(folder: Path, out: Path, *, kto: bool = False) -> list[dict[str, Any]]:
    """What each of two steps on the train split of an export logged."""
    import torch
    import trl
    from datasets import load_dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from pipeline.models import model_path

    model = model_path("shipped:embedded")
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.chat_template = TEMPLATE
    tokenizer.pad_token = tokenizer.eos_token
    rows = load_dataset(str(folder), split="train", cache_dir=str(out / "cache"))
    config, trainer = (trl.KTOConfig, trl.KTOTrainer) if kto else (trl.SFTConfig, trl.SFTTrainer)
    args = config(
        output_dir=str(out),
        max_steps=2,
        per_device_train_batch_size=4,
        max_length=384,
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        use_cpu=True,
        bf16=False,
        disable_tqdm=True,
    )
    weights = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    before = weights.model.layers[0].mlp.up_proj.weight.detach().clone()
    reference = {"ref_model": AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)} if kto else {}
    training = trainer(model=weights, args=args, train_dataset=rows, processing_class=tokenizer, **reference)
    training.train()
    assert training.state.global_step == 2
    assert not torch.equal(before, training.model.model.layers[0].mlp.up_proj.weight)
    return [step for step in training.state.log_history if "loss" in step]


@pytest.fixture
def run(backtranslation, tmp_path) -> Path:
    """A finished run of backtranslation of some sixty texts."""
    asyncio.run(run_to_end(backtranslation(), tmp_path / "r", ScriptedEngine()))
    return tmp_path / "r"


@pytest.mark.parametrize(
    ("form", "style"),
    [("messages", None), ("prompt-completion", "chat"), ("prompt-completion", "completion"), ("backward", "chat")],
)
def test_sft_trainer_takes_two_steps(run, tmp_path, form, style) -> None:
    """`SFTTrainer` reads the folder as it is, learns something in each of two steps, and its weights move."""
    options = ["--style", style] if style else []
    assert main(["export", str(run), str(tmp_path / "f"), "--format", form, *options]) == 0
    steps = trained(tmp_path / "f", tmp_path / "out")

    assert len(steps) == 2
    assert all(0 < step["loss"] < 20 for step in steps)


@pytest.mark.parametrize("style", ["chat", "completion"])
def test_kto_trainer_takes_two_steps(run, tmp_path, style) -> None:
    """`KTOTrainer` reads wanted and unwanted pairs as they are, and its weights move in two steps."""
    assert main(["export", str(run), str(tmp_path / "f"), "--format", "kto", "--style", style]) == 0
    steps = trained(tmp_path / "f", tmp_path / "out", kto=True)

    assert len(steps) == 2
    assert all(step["loss"] > 0 for step in steps)
