"""The forms that trainers read, one shape each: the form's own columns first, then where a row is from.

    messages           messages: list of role and content           TRL, axolotl, LLaMA-Factory
    alpaca             instruction, input, output, system           axolotl, LLaMA-Factory
    prompt-completion  prompt, completion: messages, or texts       TRL
    sharegpt           conversations: list of from and value        LLaMA-Factory, axolotl
    backward           prompt, completion: from text to instruction TRL
    kto                prompt, completion, label                    TRL

In style `chat`, prompt and completion are lists of messages, and the trainer puts them through the model's template; in
style `completion` they are texts that follow one another.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import pyarrow as pa

from pipeline.backtranslation_settings import TagSettings
from pipeline.engine_settings import Style
from pipeline.errors import InputError
from pipeline.export_rows import SEED, Row
from pipeline.prompting import Template, load_template

Form = Literal["messages", "alpaca", "prompt-completion", "sharegpt", "backward", "kto"]
FORMS: tuple[Form, ...] = get_args(Form)
STYLED: tuple[Form, ...] = ("prompt-completion", "backward", "kto")

_FURTHER = ("id", "instruction_id", "source", "origin", "score", "recipe", "model")
_MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
_TURNS = pa.list_(pa.struct([("from", pa.string()), ("value", pa.string())]))
_SHAREGPT = {"system": "system", "user": "human", "assistant": "gpt"}


@dataclass(frozen=True)
class Shape:
    """How rows of one form look. `of` gives None for a row that has no such form."""

    form: Form
    style: Style
    schema: pa.Schema
    of: Callable[[Row], dict[str, Any] | None]


def shape(
    form: Form, style: Style | None, system: str | None, tags: TagSettings, backward: str | Template | None = None
) -> Shape:
    """The shape of a form. `system` takes the place of the sentence that a row's kind has in `tags`; "" is none. Rows
    of self-instruct have none of their own. `backward` is that prompt or its file, where it is not the shipped one.

    Raises InputError for a style that the form has no use for, and for a prompt that cannot serve.
    """
    if style is not None and form not in STYLED:
        raise InputError(f"--style is for {', '.join(STYLED)}; --format {form} has one style alone: leave it out")
    style = style or "chat"

    def sentence(row: Row) -> str:
        if system is not None:
            return system
        return {SEED: tags.seed, "self-instruct": ""}.get(row.recipe, tags.augmented)

    template: Template | None = None
    if form == "backward":
        template = backward if isinstance(backward, Template) else load_template("backward", backward, style)

    def own(row: Row) -> dict[str, Any] | None:
        asked = f"{row.instruction}\n\n{row.input}" if row.input else row.instruction
        if template is not None:  # the very text that a backward model is later asked with
            if row.input:  # its output alone does not give its instruction
                return None
            return _pair(style, "", template.render(text=row.output), row.instruction, join=" ")
        match form:
            case "messages":
                return {"messages": [*_prompt(sentence(row), asked), _message("assistant", row.output)]}
            case "sharegpt":
                turns = [*_prompt(sentence(row), asked), _message("assistant", row.output)]
                return {
                    "conversations": [{"from": _SHAREGPT[turn["role"]], "value": turn["content"]} for turn in turns]
                }
            case "alpaca":
                values = {"instruction": row.instruction, "input": row.input, "output": row.output}
                return {**values, "system": sentence(row)}
            case "kto":
                return {**_pair(style, sentence(row), asked, row.output), "label": row.label}
        return _pair(style, sentence(row), asked, row.output)

    def of(row: Row) -> dict[str, Any] | None:
        values = own(row)
        return values and {**values, **{name: getattr(row, name) for name in _FURTHER}}

    return Shape(form, style, _schema(form, style), of)


def _prompt(system: str, asked: str) -> list[dict[str, str]]:
    return [*([_message("system", system)] if system else []), _message("user", asked)]


def _message(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def _pair(style: Style, system: str, asked: str, answer: str, join: str | None = None) -> dict[str, Any]:
    """Prompt and completion; as texts, what is between them is `join` at the head of the completion, or a blank line at
    the end of the prompt."""
    if style == "chat":
        return {"prompt": _prompt(system, asked), "completion": [_message("assistant", answer)]}
    text = f"{system}\n\n{asked}" if system else asked
    return (
        {"prompt": f"{text}\n\n", "completion": answer}
        if join is None
        else {"prompt": text, "completion": join + answer}
    )


def _schema(form: Form, style: Style) -> pa.Schema:
    text, pair = pa.string(), pa.string() if style == "completion" else _MESSAGES
    own: dict[str, Any]
    match form:
        case "messages":
            own = {"messages": _MESSAGES}
        case "sharegpt":
            own = {"conversations": _TURNS}
        case "alpaca":
            own = dict.fromkeys(("instruction", "input", "output", "system"), text)
        case _:
            own = {"prompt": pair, "completion": pair}
    if form == "kto":
        own["label"] = pa.bool_()
    further = {name: pa.int32() if name == "score" else text for name in _FURTHER}
    return pa.schema([*own.items(), *further.items()])
