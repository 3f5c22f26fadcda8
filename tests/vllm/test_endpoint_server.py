"""The endpoint's engine against a real vLLM server on the CPU, in a process of its own."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.endpoint import OpenAIEngine
from pipeline.endpoint_http import Server
from pipeline.endpoint_probe import Trial
from pipeline.engine_settings import EngineSettings
from pipeline.errors import ContentFault, InputError
from pipeline.records import Message, Prompt, Reason, Request, RequestKey, Sampling, Stage
from tests.vllm.server import CONTEXT, KEY, START, VARIABLE

TEXT = "Task: Write a list of three fruits."
CHAT: Prompt = (Message("system", "Below is a task."), Message("user", TEXT))


def settings(vllm_server: tuple[str, str], style: str, **values: Any) -> EngineSettings:
    """The settings of this server's engine."""
    url, model = vllm_server
    own = {"base_url": url, "api_key_env": VARIABLE, "concurrency": 16, "attempts": 2}
    return EngineSettings.model_validate({"kind": "openai", "model": model, "style": style, "openai": own, **values})


def start(vllm_server: tuple[str, str], style: str, *trials: Trial) -> Server:
    """Start an engine with these prompts to try, and close it."""

    async def main() -> Server:
        engine = OpenAIEngine(settings(vllm_server, style))
        try:
            return await engine.start(trials)
        finally:
            await engine.close()

    return asyncio.run(main())


def ask(vllm_server: tuple[str, str], style: str, *requests: Request) -> tuple[Server, list[Any]]:
    """Start an engine and give it these requests at once: what start found, and answers or what was raised."""

    async def main() -> tuple[Server, list[Any]]:
        engine = OpenAIEngine(settings(vllm_server, style))
        try:
            server = await engine.start()
            asked = (engine.generate(each) for each in requests)
            return server, await asyncio.gather(*asked, return_exceptions=True)
        finally:
            await engine.close()

    return asyncio.run(main())


def request(prompt: Prompt, choices: tuple[str, ...] = (), **knobs: Any) -> Request:
    """A greedy request of 24 tokens, unless told otherwise."""
    values = {"max_tokens": 24, "temperature": 0.0, "top_p": 1.0, "top_k": 0, "min_p": 0.0, "stop": ()}
    penalties = {"presence_penalty": 0.0, "frequency_penalty": 0.0, "repetition_penalty": 1.0}
    return Request(RequestKey(0, Stage.INSTANCES), prompt, Sampling(**values | penalties | knobs), choices)


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server's key is in its variable."""
    monkeypatch.setenv(VARIABLE, KEY)


@pytest.mark.parametrize("style", ["chat", "completion"])
def test_start_finds_what_the_server_is(vllm_server: tuple[str, str], style: str) -> None:
    """Its context, constrained choices, vLLM's extra knobs and token counts are found in both styles."""
    server, _ = ask(vllm_server, style)
    url, model = vllm_server
    assert server == Server(url, model, CONTEXT, choices=True, extras=True, usage=True, thinks=False)


def test_a_text_has_the_tokens_of_the_tokenizer(vllm_server: tuple[str, str], chat_model: Path) -> None:
    """Prompt and completion tokens are those that the model's own tokenizer counts."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(chat_model)
    _, (cut,) = ask(vllm_server, "completion", request(TEXT, max_tokens=3))

    assert cut.prompt_tokens == len(tokenizer.encode(TEXT)) == len(tokenizer.tokenize(TEXT)) + 1
    assert (cut.finish_reason, cut.completion_tokens) == ("length", 3)
    assert cut.text
    assert len(tokenizer.encode(cut.text, add_special_tokens=False)) == 3


def test_a_chat_has_the_tokens_of_its_template(vllm_server: tuple[str, str], chat_model: Path) -> None:
    """The rendered template is counted with the one beginning-of-text token that it writes itself."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(chat_model)
    rendered = START + "".join(message.content for message in CHAT)
    _, (answer,) = ask(vllm_server, "chat", request(CHAT))

    assert answer.prompt_tokens == len(tokenizer.encode(rendered, add_special_tokens=False))
    assert tokenizer.encode(rendered)[:2] == [0, 0]
    assert 0 < answer.completion_tokens <= 24


@pytest.mark.parametrize(("style", "prompt"), [("chat", CHAT), ("completion", TEXT)])
def test_choices_constrain_the_answer(vllm_server: tuple[str, str], style: str, prompt: Prompt) -> None:
    """At any temperature the answer is one of the choices, a leading space included, with one ask each."""
    choices = (" Yes, it is", " No")
    _, answers = ask(vllm_server, style, *(request(prompt, choices, temperature=t) for t in (0.0, 1.0, 1.5, 2.0)))
    _, (once,) = ask(vllm_server, style, request(prompt, max_tokens=1))

    assert {answer.text for answer in answers} <= set(choices)
    assert {answer.prompt_tokens for answer in answers} == {once.prompt_tokens}


def test_every_knob_is_taken(vllm_server: tuple[str, str]) -> None:
    """A request with all knobs set is answered, and a stop text ends it and is not part of it."""
    knobs = {"temperature": 1.0, "top_p": 0.9, "top_k": 40, "min_p": 0.01, "repetition_penalty": 1.1}
    penalties = {"presence_penalty": 0.5, "frequency_penalty": 0.5}
    hot, stopped = request(TEXT, **knobs, **penalties), request(TEXT, stop=("e", "a", "o"))
    _, (hot_answer, stopped_answer) = ask(vllm_server, "completion", hot, stopped)

    assert hot_answer.text
    assert stopped_answer.finish_reason == "stop"
    assert not set(stopped_answer.text) & set("eao")


@pytest.mark.parametrize(
    ("style", "prompt"), [("chat", (Message("user", "word " * 3000),)), ("completion", "word " * 3000)]
)
def test_too_long_a_prompt_is_a_content_fault(vllm_server: tuple[str, str], style: str, prompt: Prompt) -> None:
    """The reject's detail has the server's numbers, and its neighbours are answered."""
    _, (fault, answer) = ask(vllm_server, style, request(prompt), request(CHAT if style == "chat" else TEXT))

    assert isinstance(fault, ContentFault)
    assert fault.reason is Reason.REQUEST_REFUSED
    assert str(CONTEXT) in fault.detail
    assert answer.text


@pytest.mark.parametrize("style", ["chat", "completion"])
def test_prompts_are_tried_before_a_run(vllm_server: tuple[str, str], style: str) -> None:
    """One that fits is counted to the token of its room; one that is longer than the context is refused by its name."""
    few, many = ((Message("user", text),) if style == "chat" else text for text in ("word " * 20, "word " * 3000))
    _, (once,) = ask(vllm_server, style, request(few, max_tokens=1))
    room = CONTEXT - once.prompt_tokens
    knobs = request(few).sampling

    start(vllm_server, style, ("output", few, replace(knobs, max_tokens=room)))
    numbers = (
        f"has {once.prompt_tokens} tokens, which with {room + 1} for the answer is more than the context of {CONTEXT}"
    )
    with pytest.raises(InputError, match=f"^prompt output: its longest form {numbers}"):
        start(vllm_server, style, ("output", few, replace(knobs, max_tokens=room + 1)))
    with pytest.raises(InputError, match=rf"^prompt bootstrap: .* refuses its longest form \(.*{CONTEXT}"):
        start(vllm_server, style, ("bootstrap", many, knobs))


def test_a_wrong_key(vllm_server: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A key that is wrong, and one that is not set, are told apart."""
    monkeypatch.setenv(VARIABLE, "another-key")
    with pytest.raises(InputError, match=f"refuses the key in {VARIABLE}") as caught:
        ask(vllm_server, "chat")
    assert "another-key" not in str(caught.value)
    monkeypatch.delenv(VARIABLE)
    with pytest.raises(InputError, match=f"{VARIABLE} is not set"):
        ask(vllm_server, "chat")


def test_an_unknown_model(vllm_server: tuple[str, str]) -> None:
    """The sentence has the name that the server knows."""
    url, model = vllm_server
    with pytest.raises(InputError, match=f"has no model 'embedded'; .* it has: {model}$"):
        ask((url, "embedded"), "chat")


def test_an_address_without_the_version(vllm_server: tuple[str, str]) -> None:
    """The server's root is named as what it is not."""
    url, model = vllm_server
    with pytest.raises(InputError, match=r'answers 404 .*does it end in "/v1"'):
        ask((url.removesuffix("/v1"), model), "chat")
