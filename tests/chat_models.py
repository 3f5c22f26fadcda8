"""Small local models with the chat templates in use: the embedded model, its tokenizer and a few more tokens.

The templates are written for these tests in the shapes that instruct models have; none is copied.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

from pipeline.models import model_path

EMBEDDED = Path(model_path("shipped:embedded"))


class Shape(NamedTuple):
    """A chat template, and what the tokenizer has beside the embedded model's tokens."""

    template: str
    special: tuple[str, ...]
    plain: tuple[str, ...] = ()
    """Tokens of their own that are not special: they are in a decoded text in any case."""
    start: str | None = None
    """The beginning-of-text token. Such a tokenizer writes it on every plain `encode`."""
    end: str = "<|im_end|>"
    """The end-of-text token, which the model writes in place of its own."""


CHATML = """\
{%- if messages[0].role != 'system' %}
    {{- '<|im_start|>system\\nYou answer in few words.<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""

LLAMA = """\
{{- bos_token }}
{%- for message in messages %}
    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' }}
    {{- message['content'] | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
"""

MISTRAL = """\
{{- bos_token }}
{%- for message in messages %}
    {%- if message['role'] == 'system' %}
        {{- raise_exception('System role not supported') }}
    {%- elif (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
        {{- raise_exception('Roles must alternate user/assistant') }}
    {%- elif message['role'] == 'user' %}
        {{- '[INST] ' + message['content'] + ' [/INST]' }}
    {%- else %}
        {{- ' ' + message['content'] + eos_token }}
    {%- endif %}
{%- endfor %}
"""

SWITCH = """\
{#- Nothing to see of `thinking` here: the switch has another name. -#}
{%- for message in messages %}
    {%- if message.role == 'assistant' %}
        {{- '<|im_start|>assistant\\n' }}
        {%- generation %}{{- message.content.split('</think>')[-1] + '<|im_end|>' }}{% endgeneration %}
        {{- '\\n' }}
    {%- else %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}
"""

ALWAYS = """\
{{- bos_token }}
{%- if date_string is defined %}
    {{- 'Today is ' + date_string + '.' }}
{%- endif %}
{%- for message in messages %}
    {%- if message['role'] == 'user' %}
        {{- '<|user|>' + message['content'] }}
    {%- else %}
        {{- '<|assistant|>' + message['content'] + eos_token }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|assistant|><think>\\n' }}
{%- endif %}
"""

SHAPES = {
    "chatml": Shape(CHATML, ("<|im_start|>", "<|im_end|>")),
    "llama": Shape(
        LLAMA,
        ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
        start="<|begin_of_text|>",
        end="<|eot_id|>",
    ),
    "mistral": Shape(MISTRAL, ("<s>", "</s>", "[INST]", "[/INST]"), start="<s>", end="</s>"),
    "switch": Shape(SWITCH, ("<|im_start|>", "<|im_end|>"), plain=("<think>", "</think>")),
    "always": Shape(
        ALWAYS,
        ("<|begin|>", "<|end_of_text|>", "<|user|>", "<|assistant|>", "<think>", "</think>"),
        start="<|begin|>",
        end="<|end_of_text|>",
    ),
}


def make_tokenizer(folder: Path, name: str) -> Path:
    """A folder with the tokenizer and the chat template of one of SHAPES, and no weights."""
    from tokenizers import AddedToken, Tokenizer
    from tokenizers.processors import TemplateProcessing

    shape = SHAPES[name]
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = Tokenizer.from_file(str(EMBEDDED / "tokenizer.json"))
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in shape.special])
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in shape.plain])
    if shape.start:
        tokenizer.post_processor = TemplateProcessing(
            single=f"{shape.start} $A", special_tokens=[(shape.start, tokenizer.token_to_id(shape.start))]
        )
    tokenizer.save(str(folder / "tokenizer.json"))
    config = json.loads((EMBEDDED / "tokenizer_config.json").read_text(encoding="utf-8"))
    config |= {"eos_token": shape.end} | ({"bos_token": shape.start} if shape.start else {})
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    (folder / "chat_template.jinja").write_text(shape.template, encoding="utf-8")
    return folder


def make_model(folder: Path, name: str, spoken: dict[str, str] | None = None) -> Path:
    """The same with weights: a whole model for vLLM.

    The model writes its own end as the shape's, and each token of `spoken` where it would have written the other one
    (itself a token, as the embedded model's tokenizer has it). It never writes the other new tokens.
    """
    import torch
    from safetensors.torch import load_file, save_file
    from tokenizers import Tokenizer

    make_tokenizer(folder, name)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    end = tokenizer.token_to_id(SHAPES[name].end)
    for file in ("config.json", "generation_config.json"):
        values = json.loads((EMBEDDED / file).read_text(encoding="utf-8")) | {"eos_token_id": end}
        if file == "config.json":
            values["vocab_size"] = tokenizer.get_vocab_size()
        (folder / file).write_text(json.dumps(values), encoding="utf-8")
    weights = load_file(EMBEDDED / "model.safetensors")
    rows = weights["model.embed_tokens.weight"]
    added = torch.zeros(tokenizer.get_vocab_size() - len(rows), rows.shape[1], dtype=rows.dtype)
    for token, other in {SHAPES[name].end: "<|end|>", **(spoken or {})}.items():
        # Embeddings are tied: a longer row of the same direction gets the higher score wherever the other's is best.
        added[tokenizer.token_to_id(token) - len(rows)] = 1.5 * rows[tokenizer.token_to_id(other)]
    weights["model.embed_tokens.weight"] = torch.cat([rows, added])
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def make_adapter(folder: Path, rank: int = 4, scale: float = 0.5) -> Path:
    """A LoRA adapter for the embedded model's q_proj and v_proj: random values, without effect where `scale` is 0."""
    import torch
    from safetensors.torch import save_file

    config = json.loads((EMBEDDED / "config.json").read_text(encoding="utf-8"))
    size = config["hidden_size"]
    draw = torch.Generator().manual_seed(7)
    tensors = {}
    for layer in range(config["num_hidden_layers"]):
        for module in ("q_proj", "v_proj"):
            stem = f"base_model.model.model.layers.{layer}.self_attn.{module}"
            tensors[f"{stem}.lora_A.weight"] = torch.randn(rank, size, generator=draw)
            tensors[f"{stem}.lora_B.weight"] = scale * torch.randn(size, rank, generator=draw)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    values = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": "", "bias": "none"}
    values |= {"r": rank, "lora_alpha": 2 * rank, "lora_dropout": 0.0, "target_modules": ["q_proj", "v_proj"]}
    (folder / "adapter_config.json").write_text(json.dumps(values), encoding="utf-8")
    return folder
