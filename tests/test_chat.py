"""Chats through a model's own template to token ids, and thinking blocks out of answers."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from pipeline.chat import answer_of, doubled_start, dropped_tokens, render, template_variables
from pipeline.records import Message
from tests.chat_models import SHAPES, make_tokenizer

QUESTION = Message("user", "Name a fruit.")
TURNS = (QUESTION, Message("assistant", "A pear."), Message("user", "  Another one? "))

TokenizerOf = Callable[[str], Any]


@pytest.fixture(scope="module")
def tokenizer_of(tmp_path_factory: pytest.TempPathFactory) -> TokenizerOf:
    """The tokenizer of a shape, made and loaded once."""
    from transformers import AutoTokenizer

    folder = tmp_path_factory.mktemp("tokenizers")
    return cache(lambda name: AutoTokenizer.from_pretrained(make_tokenizer(folder / name, name)))


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("messages", [(QUESTION,), TURNS], ids=["question", "turns"])
def test_token_ids_are_the_templates_own(tokenizer_of: TokenizerOf, name: str, messages: tuple[Message, ...]) -> None:
    """Our ids are those of `apply_chat_template` with tokenize=True, the text is theirs, and it begins once."""
    tokenizer = tokenizer_of(name)
    rendered = render(tokenizer, messages, {})
    turns = [{"role": message.role, "content": message.content} for message in messages]
    expected = tokenizer.apply_chat_template(
        turns, tokenize=True, return_dict=False, add_generation_prompt=True, enable_thinking=False
    )

    assert expected == rendered.token_ids
    assert tokenizer.decode(rendered.token_ids) == rendered.text
    assert rendered.token_ids.count(tokenizer.bos_token_id) == (1 if SHAPES[name].start else 0)


@pytest.mark.parametrize("name", SHAPES)
def test_a_doubled_start_is_told(tokenizer_of: TokenizerOf, name: str) -> None:
    """A rendered chat never begins twice; its text encoded as a plain text does, where tokenizer and template begin."""
    tokenizer = tokenizer_of(name)
    rendered = render(tokenizer, TURNS, {})

    assert not doubled_start(rendered.token_ids, tokenizer)
    assert doubled_start(tokenizer.encode(rendered.text), tokenizer) is (SHAPES[name].start is not None)
    assert not doubled_start([], tokenizer)


@pytest.mark.parametrize(
    ("wanted", "constrained", "ending"),
    [
        pytest.param({}, False, "assistant\n<think>\n\n</think>\n\n", id="off-by-default"),
        pytest.param({"enable_thinking": True}, False, "assistant\n", id="on-as-the-user-says"),
        pytest.param({"enable_thinking": True}, True, "assistant\n<think>\n\n</think>\n\n", id="off-where-constrained"),
    ],
)
def test_a_thinking_switch(tokenizer_of: TokenizerOf, wanted: dict[str, Any], constrained: bool, ending: str) -> None:
    """Thinking is off where the template has a switch, unless the user turns it on; never for a given choice."""
    rendered = render(tokenizer_of("switch"), TURNS, wanted, constrained=constrained)

    assert rendered.text.endswith(ending)
    assert rendered.thought == ""


DEEPSEEK = "{% if not thinking is defined %}{% set thinking = false %}{% endif %}{{ '<think>' if thinking }}"


@pytest.mark.parametrize(
    ("template", "wanted", "expected"),
    [
        pytest.param(SHAPES["switch"].template, {}, {"enable_thinking": False}, id="a-switch"),
        pytest.param(DEEPSEEK, {}, {"thinking": False}, id="a-switch-with-a-default"),
        pytest.param(DEEPSEEK, {"thinking": True}, {"thinking": True}, id="set-by-the-user"),
        pytest.param("{{ thinking or enable_thinking }}", {"thinking": 1}, {"thinking": 1}, id="two-names-one-set"),
        pytest.param("{# thinking #}{{ 'thinking' }} thinking", {}, {}, id="comment-and-text"),
        pytest.param("{{ messages[0].thinking }}{{ not_thinking }}", {}, {}, id="other-names"),
        pytest.param("{% for m in messages %}{% break %}{% endfor %}", {"a": 1}, {"a": 1}, id="the-users-stay"),
    ],
)
def test_template_variables(template: str, wanted: dict[str, Any], expected: dict[str, Any]) -> None:
    """Thinking is switched off by a name that the template reads as a variable, where the user has set none."""
    assert expected == template_variables(template, wanted)


def test_the_users_variables_reach_the_template(tokenizer_of: TokenizerOf) -> None:
    """What is in chat_template_kwargs is a variable of the template."""
    assert "Today is 1 May.<|user|>" in render(tokenizer_of("always"), TURNS, {"date_string": "1 May"}).text


def test_a_block_that_the_template_opens_is_seen(tokenizer_of: TokenizerOf) -> None:
    """The tag at the end of the prompt is the thought; for a given choice the block is closed again."""
    free = render(tokenizer_of("always"), TURNS, {})
    constrained = render(tokenizer_of("always"), TURNS, {}, constrained=True)

    assert free.text.endswith("<|assistant|><think>\n")
    assert free.thought == "<think>"
    assert constrained.text == free.text + "\n</think>\n\n"
    assert constrained.token_ids == tokenizer_of("always").encode(constrained.text, add_special_tokens=False)
    assert constrained.thought == ""


def test_a_choice_is_in_the_answers_channel(tokenizer_of: TokenizerOf) -> None:
    """A template that leaves the channel to the model (gpt-oss) gets the one for answers before a given choice."""
    tokenizer = make_other(tokenizer_of("chatml"), "{{ messages[0].content }}<|end|><|start|>assistant")

    assert render(tokenizer, (QUESTION,), {}).text.endswith("<|start|>assistant")
    constrained = render(tokenizer, (QUESTION,), {}, constrained=True)
    assert constrained.text.endswith("<|start|>assistant<|channel|>final<|message|>")


@pytest.mark.parametrize("name", SHAPES)
def test_an_answer_may_begin_with_a_lead(tokenizer_of: TokenizerOf, name: str) -> None:
    """It stands where the answer begins, behind what closes a thought, and is encoded together with the chat."""
    tokenizer = tokenizer_of(name)
    plain = render(tokenizer, TURNS, {}, constrained=True)
    led = render(tokenizer, TURNS, {}, constrained=True, lead="Score:")

    assert led.text == f"{plain.text}Score:"
    assert led.token_ids == tokenizer.encode(led.text, add_special_tokens=False)


def make_other(tokenizer: Any, template: str | None) -> Any:
    """A copy of a tokenizer with another template."""
    from copy import copy

    other = copy(tokenizer)
    other.chat_template = template
    return other


def test_a_refusal_of_the_template_is_a_sentence_with_its_words(tokenizer_of: TokenizerOf) -> None:
    """A system message where the template has none, and roles out of turn, are a ValueError with what it says."""
    mistral = tokenizer_of("mistral")
    with pytest.raises(ValueError, match=r"^the model's chat template refuses .*: System role not supported$"):
        render(mistral, (Message("system", "Be brief."), QUESTION), {})
    with pytest.raises(ValueError, match=r"Roles must alternate user/assistant$"):
        render(mistral, (QUESTION, QUESTION), {})


def test_no_template_and_a_broken_one_are_told(tokenizer_of: TokenizerOf) -> None:
    """A tokenizer without a chat template, or with one that is no template, is a ValueError in a sentence."""
    chatml = tokenizer_of("chatml")
    with pytest.raises(ValueError, match=r'^the model has no chat template; set engine\.style = "completion"$'):
        render(make_other(chatml, None), (QUESTION,), {})
    with pytest.raises(ValueError, match=r"^the model's chat template refuses .*'endif'"):
        render(make_other(chatml, "{% if messages %}"), (QUESTION,), {})


def test_mistrals_own_tokenizer_writes_its_control_tokens(tmp_path: Path) -> None:
    """A tokenizer of mistral_common, which does not encode control tokens in a text, is asked for the ids."""
    mistral_common = pytest.importorskip("mistral_common")
    from transformers.tokenization_mistral_common import MistralCommonBackend

    shutil.copy(Path(mistral_common.__file__).parent / "data" / "tekken_240911.json", tmp_path / "tekken.json")
    tokenizer = MistralCommonBackend.from_pretrained(tmp_path)
    rendered = render(tokenizer, (QUESTION,), {})

    led = render(tokenizer, (QUESTION,), {}, lead="Score:")

    assert rendered.text == "<s>[INST]Name a fruit.[/INST]"
    assert led.text == f"{rendered.text}Score:"
    assert led.token_ids[: len(rendered.token_ids)] == rendered.token_ids
    assert rendered.token_ids[:2] == tokenizer.convert_tokens_to_ids(["<s>", "[INST]"])
    assert not doubled_start(rendered.token_ids, tokenizer)


def test_special_tokens_that_are_thinking_tags_stay(tokenizer_of: TokenizerOf) -> None:
    """Where a thinking tag is a special token only the others are dropped; else a detokeniser may skip them all."""
    dropped = dropped_tokens(tokenizer_of("always"))

    assert dropped is not None
    assert dropped.sub("", "<think>Well<|user|></think>Yes<|end|>") == "<think>Well</think>Yes"
    assert dropped_tokens(tokenizer_of("switch")) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("<think>Well.</think>\n\nA pear. ", "A pear. ", id="block"),
        pytest.param("\n<think>\n\n</think>\n\nA pear.", "A pear.", id="empty-block"),
        pytest.param("[THINK]Well.[/THINK]A pear.", "A pear.", id="mistral"),
        pytest.param("<seed:think>Well.</seed:think>A pear.", "A pear.", id="seed"),
        pytest.param("<|channel>thought\nWell.<channel|>A pear.", "A pear.", id="gemma"),
        pytest.param(
            "<|channel|>analysis<|message|>Well.<|end|><|start|>assistant<|channel|>final<|message|>A pear.",
            "A pear.",
            id="gpt-oss",
        ),
        pytest.param("<|channel|>final<|message|>A pear.", "A pear.", id="gpt-oss-without-a-thought"),
        pytest.param("<think>Well, let me see", None, id="unclosed"),
        pytest.param("<think>\n\n</think>\n\n<think>Hm.</think>A pear.", "A pear.", id="two-blocks"),
        pytest.param("<think></think><think>Hm.", None, id="second-unclosed"),
        pytest.param("To close it, write `</think>`.", "To close it, write `</think>`.", id="closing-tag-told-of"),
        pytest.param(" A pear.\n", " A pear.\n", id="no-block"),
        pytest.param("Well.\n</think>\n\nA pear.", "A pear.", id="closing-tag-alone"),
        pytest.param("<think>Hm.</think>Write </think> last.", "Write </think> last.", id="told-of-after-the-block"),
        pytest.param("Put it in <think> and </think>.", "Put it in <think> and </think>.", id="told-of-in-prose"),
        pytest.param("The tag <think> opens it.", "The tag <think> opens it.", id="opening-tag-told-of"),
        pytest.param("<thinker>A pear.</thinker>", "<thinker>A pear.</thinker>", id="another-tag"),
        pytest.param("", "", id="empty"),
    ],
)
def test_answer_of(text: str, expected: str | None) -> None:
    """The block at the beginning is cut, one that does not end leaves no answer, and all else stays as it is."""
    assert expected == answer_of(text)
