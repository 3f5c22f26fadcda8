"""Chat style: messages through the model's own template to token ids, and thinking blocks out of answers."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from pipeline.records import Message

THINKING_SWITCHES = ("enable_thinking", "thinking")  # the names that chat templates give to one
LEAST_FOR_A_THOUGHT = 512  # tokens: few thoughts are shorter
# gpt-oss names a channel before each text, with or without a thought.
_CHANNEL_NEXT, _ANSWER_CHANNEL = "<|start|>assistant", "<|channel|>final<|message|>"
# How a thinking block begins, and what ends it: on what follows the answer begins.
_TAGS = (
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<reasoning>", "</reasoning>"),
    ("<seed:think>", "</seed:think>"),
    ("[THINK]", "[/THINK]"),  # Mistral
    ("<|channel>thought", "<channel|>"),  # Gemma
    ("<|channel|>analysis<|message|>", _ANSWER_CHANNEL),  # gpt-oss
)
# Where an answer begins whose block has no opening tag: a closing tag on a line of its own; no prose holds the others.
_ENDS = tuple((opening, f"\n{closing}\n" if closing.startswith("</") else closing) for opening, closing in _TAGS)
_GENERATION = re.compile(r"\{%[-+]?\s*(?:end)?generation\s*[-+]?%\}")  # a block that transformers adds to the language


class Rendered(NamedTuple):
    """A chat as the model gets it.

    `thought` is the opening tag of a thinking block with which the template ends the prompt, "" where it opens none.
    """

    text: str
    token_ids: list[int]
    thought: str


def render(
    tokenizer: Any,
    messages: Sequence[Message],
    wanted: Mapping[str, Any],
    *,
    constrained: bool = False,
    lead: str = "",
) -> Rendered:
    """A chat through the template of a tokenizer of transformers (or vLLM), up to where the answer begins.

    `wanted` are the user's template variables. With `constrained` the answer is one of given choices: thinking is off,
    and a block that the template opens all the same is closed. `lead` is how the answer begins.

    Raises ValueError, in one sentence, where there is no template or it refuses the messages.
    """
    if constrained:
        wanted = {name: value for name, value in wanted.items() if name not in THINKING_SWITCHES}
    turns = [{"role": message.role, "content": message.content} for message in messages]
    try:
        template = tokenizer.get_chat_template()
    except (AttributeError, NotImplementedError):
        template = None  # mistral_common: it has no template, and its control tokens cannot be encoded from a text
    except ValueError:
        template = ""  # there is none; but some of vLLM's tokenizers write the chat in Python
    try:
        if template is None:
            ids = list(tokenizer.apply_chat_template(turns, tokenize=True, return_dict=False, **wanted))
            ids += tokenizer.encode(lead, add_special_tokens=False) if lead else []
            return Rendered(tokenizer.decode(ids), ids, "")
        variables = template_variables(template, wanted)
        text: str = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True, **variables)
    except Exception as error:  # templates raise what they like
        words = " ".join(str(error).split())
        if template == "":
            raise ValueError('the model has no chat template; set engine.style = "completion"') from error
        raise ValueError(f"the model's chat template refuses the messages: {words}") from error
    thought, closing = _opened(text)
    if constrained and thought:
        text, thought = f"{text}\n{closing}\n\n", ""
    elif constrained and text.endswith(_CHANNEL_NEXT):
        text += _ANSWER_CHANNEL
    text += lead
    return Rendered(text, tokenizer.encode(text, add_special_tokens=False), thought)


def template_variables(template: str, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """The user's template variables, and thinking off where the template has a switch and the user has set none.

    Raises jinja2.TemplateSyntaxError for what is no template.
    """
    switches = () if any(name in wanted for name in THINKING_SWITCHES) else THINKING_SWITCHES
    return {name: False for name in switches if name in _names(template)} | dict(wanted)


@lru_cache
def _names(template: str) -> set[str]:
    """The variables that a template reads and does not set before."""
    from jinja2 import Environment, meta

    tree = Environment(extensions=["jinja2.ext.loopcontrols"]).parse(_GENERATION.sub("", template))
    return meta.find_undeclared_variables(tree)


def _opened(text: str) -> tuple[str, str]:
    """The opening and closing tag of a thinking block that a prompt ends in; both "" where there is none."""
    end = text.rstrip()
    return next((tags for tags in _TAGS if end.endswith(tags[0])), ("", ""))


def dropped_tokens(tokenizer: Any) -> re.Pattern[str] | None:
    """The special tokens to drop from answers where some of the thinking tags are special tokens, which must stay.

    None where no tag is special, so that all special tokens may be skipped.
    """
    added = getattr(tokenizer, "added_tokens_decoder", {}).values()
    special = {token.content for token in added if token.special} | set(tokenizer.all_special_tokens)
    kept = {token for token in special if any(token in tag for tags in _TAGS for tag in tags)}
    return re.compile("|".join(map(re.escape, sorted(special - kept))) or "(?!)") if kept else None


def answer_of(text: str) -> str | None:
    """The answer without the thinking blocks it begins with; None where one does not end.

    Where the opening tag stood in the prompt and the engine could not restore it (an endpoint), the block ends at
    its closing tag, if that has a line to itself.
    """
    rest = text.lstrip()
    for opening, closing in _TAGS:
        if rest.startswith(opening):
            _, closed, rest = rest.partition(closing)
            return answer_of(rest.lstrip()) if closed else None
    for opening, end in _ENDS:
        if end in text:
            before, _, answer = text.partition(end)
            if opening not in before:
                return answer_of(answer.lstrip())
    return text


def doubled_start(token_ids: Sequence[int], tokenizer: Any) -> bool:
    """Whether a prompt begins with two beginning-of-text tokens, as when template and tokenizer both write one."""
    start = tokenizer.bos_token_id
    return start is not None and list(token_ids[:2]) == [start, start]
