"""How to train on an export of each form: the few lines for TRL, axolotl and LLaMA-Factory that its card shows.

The fields are those that the trainers' own documentation names: TRL's "Dataset formats", axolotl's "Dataset formats"
(conversation, inst_tune) and "RLHF", LLaMA-Factory's `data/README.md`.
"""

from __future__ import annotations

import json
from typing import Any

from pipeline.export_formats import Form, Shape

Snippet = tuple[str, str, str]
"""Trainer, language of its block ("" for a plain sentence), text."""


def snippets(shape: Shape, repo: str) -> list[Snippet]:
    """The lines for each trainer; a sentence where one does not read this form. `repo` is the data set's name."""
    return [_trl(shape.form, repo), _axolotl(shape, repo), _llama_factory(shape, repo)]


def _trl(form: Form, repo: str) -> Snippet:
    trainer = "KTO" if form == "kto" else "SFT"
    loaded = f'rows = load_dataset("{repo}", split="train")'
    if form == "alpaca":  # no form of TRL's
        loaded += (
            '\nrows = rows.map(lambda row: {"prompt": [{"role": "user", "content": f"{row[\'instruction\']}\\n\\n'
            '{row[\'input\']}".strip()}],\n    "completion": [{"role": "assistant", "content": row["output"]}]})'
        )
    elif form == "sharegpt":  # TRL knows the fields of it, but not these roles
        loaded += (
            '\nroles = {"system": "system", "human": "user", "gpt": "assistant"}\n'
            'rows = rows.map(lambda row: {"messages": [{"role": roles[turn["from"]], "content": turn["value"]}\n'
            '    for turn in row["conversations"]]}, remove_columns="conversations")'
        )
    made = f'{trainer}Trainer("MODEL", args={trainer}Config("out"), train_dataset=rows).train()'
    lines = f"from datasets import load_dataset\nfrom trl import {trainer}Config, {trainer}Trainer\n\n{loaded}\n{made}"
    return "TRL", "python", lines


def _axolotl(shape: Shape, repo: str) -> Snippet:
    head = f"datasets:\n  - path: {repo}\n    "
    match shape.form:
        case "messages":
            text = f"{head}type: chat_template\n    field_messages: messages"
        case "sharegpt":
            text = (
                f"{head}type: chat_template\n    field_messages: conversations\n    message_property_mappings:\n"
                "      role: from\n      content: value"
            )
        case "alpaca":
            text = f"{head}type: alpaca  # it does not read `system`"
        case "kto" if shape.style == "completion":
            text = (
                f'rl: kto\n{head}type:\n      field_prompt: "prompt"\n      field_completion: "completion"\n'
                '      field_label: "label"\n      prompt_format: "{prompt}"\n      completion_format: "{completion}"'
            )
        case "kto":
            return "axolotl", "", "reads the texts of `--style completion`, and not these messages."
        case _ if shape.style == "completion":
            fields = "field_instruction: prompt\n      field_output: completion"
            formats = 'format: "{instruction}"\n      no_input_format: "{instruction}"'
            text = f"{head}type:\n      {fields}\n      {formats}"
        case _:
            return "axolotl", "", "reads `--format messages`, or the texts of `--style completion`, and not this form."
    return "axolotl", "yaml", text


def _llama_factory(shape: Shape, repo: str) -> Snippet:
    entry: dict[str, Any] = {"hf_hub_url": repo}
    match shape.form:
        case "messages":
            roles = {"role_tag": "role", "content_tag": "content"}
            names = {"user_tag": "user", "assistant_tag": "assistant", "system_tag": "system"}
            entry |= {"formatting": "sharegpt", "columns": {"messages": "messages"}, "tags": {**roles, **names}}
        case "sharegpt":
            entry |= {"formatting": "sharegpt", "columns": {"messages": "conversations"}}
        case "alpaca":
            columns = {"prompt": "instruction", "query": "input", "response": "output", "system": "system"}
            entry |= {"columns": columns}
        case _ if shape.style == "completion":
            label = {"kto_tag": "label"} if shape.form == "kto" else {}
            entry |= {"columns": {"prompt": "prompt", "response": "completion", **label}}
        case _:
            return "LLaMA-Factory", "", "reads the texts of `--style completion`, and not these messages."
    return "LLaMA-Factory", "json", json.dumps({repo.rpartition("/")[2]: entry}, indent=2)
