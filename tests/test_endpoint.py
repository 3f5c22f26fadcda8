"""The engine of an OpenAI-compatible endpoint against a server of its kind, on this machine and over real HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from pipeline import endpoint_http
from pipeline.config import parse_config
from pipeline.endpoint import OpenAIEngine, matching_choice
from pipeline.endpoint_http import Server
from pipeline.engine_settings import EngineSettings
from pipeline.errors import ContentFault, InputError, RunStopped
from pipeline.records import Completion, Message, Prompt, Reason, Request, RequestKey, Sampling, Stage
from pipeline.report import read_rows
from pipeline.testing import run_to_end
from pipeline.testing_endpoint import CUT, GARBAGE, SILENCE, Fault, Received, ScriptedEndpoint
from pipeline.turns import Turns

CHAT: Prompt = (Message("system", "Be kind."), Message("user", "Is it classification?"))
TEXT = "Task: Sort the fruits.\nIs it classification?"
FIRST = 3  # requests of a start in chat style: the list of models, the small request, and the free one for thoughts
PLAIN = Sampling(64, 0.5, 0.9, 0, 0.0, 0.1, 0.2, 1.0, ("\n\n",))
KEY = "sk-not-for-your-eyes"
VARIABLE = "TEST_ENDPOINT_KEY"


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    """No proxy stands before this machine, and the key is in its variable."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setenv(VARIABLE, KEY)


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses that the engine makes, in seconds; none is really made, but the clock goes on by it."""
    pauses: list[float] = []
    clock = 1000.0

    async def passed(seconds: float) -> None:
        nonlocal clock
        pauses.append(seconds)
        clock += seconds
        await asyncio.sleep(0)

    monkeypatch.setattr(endpoint_http, "_sleep", passed)
    monkeypatch.setattr(endpoint_http, "_now", lambda: clock)
    return pauses


def settings(url: str, model: str = "scripted", **values: Any) -> EngineSettings:
    """The settings of an endpoint; those of `[engine.openai]` are given with an underscore before them."""
    own = {name[1:]: values.pop(name) for name in list(values) if name[0] == "_"}
    return EngineSettings.model_validate(
        {"kind": "openai", "model": model, **values, "openai": {"base_url": url, "api_key_env": VARIABLE, **own}}
    )


@contextlib.asynccontextmanager
async def engine_at(server: ScriptedEndpoint, note: Any = None, **values: Any) -> AsyncIterator[OpenAIEngine]:
    """An engine that has been started, in chat style with `FIRST` requests, and is closed in the end."""
    engine = OpenAIEngine(settings(server.url, **values), note)
    try:
        await engine.start()
        yield engine
    finally:
        await engine.close()


def start(url: str, *trials: tuple[str, Prompt, Sampling], fresh: bool = True, **values: Any) -> Server:
    """Start an engine and close it."""

    async def main() -> Server:
        engine = OpenAIEngine(settings(url, **values), fresh=fresh)
        try:
            return await engine.start(trials)
        finally:
            await engine.close()

    return asyncio.run(main())


def ask(server: ScriptedEndpoint, *requests: Request, note: Any = None, **values: Any) -> list[Any]:
    """Start an engine and give it these requests one after the other: its answers, or what it raised."""

    async def main() -> list[Any]:
        answers: list[Any] = []
        async with engine_at(server, note, **values) as engine:
            for each in requests:
                try:
                    answers.append(await engine.generate(each))
                except (ContentFault, InputError, RunStopped) as error:
                    answers.append(error)
        return answers

    return asyncio.run(main())


def request(prompt: Prompt = CHAT, choices: tuple[str, ...] = (), unit: int = 0, **knobs: Any) -> Request:
    """A request; keyword arguments override knobs of its sampling."""
    return Request(RequestKey(unit, Stage.CLASSIFICATION), prompt, replace(PLAIN, **knobs), choices)


def at(number: int, fault: Fault) -> Callable[[int], Fault | None]:
    """One fault at one request: 0 is the list of models, 1 the first of the small ones, FIRST that after the start."""
    return lambda n: fault if n == number else None


def reply(ended: str = "stop", **message: Any) -> Fault:
    """A chat's answer with this message, and no usage."""
    return Fault(200, body={"choices": [{"finish_reason": ended, "message": message}]})


# What start finds


@pytest.mark.parametrize("style", ["chat", "completion"])
@pytest.mark.parametrize(
    ("choices", "extras", "asked"), [(True, True, 1), (False, True, 2), (True, False, 3), (False, False, 4)]
)
def test_start_finds_what_a_server_takes(style: str, choices: bool, extras: bool, asked: int) -> None:
    """With and without constrained choices, and vLLM's extra knobs, each is found with as few requests as it takes."""
    with ScriptedEndpoint(choices=choices, extras=extras) as server:
        found = start(server.url, style=style)
        path = "/v1/chat/completions" if style == "chat" else "/v1/completions"

        assert found == Server(server.url, "scripted", 8192, choices, extras, usage=True, thinks=False)
        asked += style == "chat"  # for a thought
        assert [each.path for each in server.received] == ["/v1/models", *[path] * asked]


def test_choices_that_a_server_overlooks_are_not_honoured() -> None:
    """A server that takes the field and ignores it is found out by its answer."""
    with ScriptedEndpoint(choices=False, strict=False, usage=False, context=None) as server:
        found = start(server.url)

        assert (found.choices, found.usage, found.context) == (False, False, None)
        assert str(found) == (
            f"{server.url}: model scripted, context unknown, constrained choices no, "
            "top_k, min_p and repetition_penalty yes, token counts no"
        )


@pytest.mark.parametrize("style", ["chat", "completion"])
def test_the_probe_is_in_the_style_of_the_run(style: str) -> None:
    """It has the system message, the template's variables and the server's own fields, so that they are tried too."""
    with ScriptedEndpoint() as server:
        own = {"system": "Be kind.", "chat_template_kwargs": {"tone": "dry"}} if style == "chat" else {}
        start(server.url, style=style, **own, _extra_body={"priority": 3})
        body = server.bodies[0]

        assert body["priority"] == 3
        assert body["max_tokens"] < 32
        assert all(each.keys() <= body.keys() for each in server.bodies)
        if style == "chat":
            assert [each["role"] for each in body["messages"]] == ["system", "user"]
            assert body["chat_template_kwargs"] == {"tone": "dry"}
        else:
            assert "chat_template_kwargs" not in body


def test_what_a_server_says_of_a_model_is_read_with_care() -> None:
    """A context that is no number is none; a bare list of models is one too; a slash after the address is no part."""
    listed = Fault(200, body=[{"id": "other"}, {"id": "scripted", "max_model_len": "8k"}])
    with ScriptedEndpoint(faults=at(0, listed)) as server:
        assert start(f"{server.url}/").context is None
        assert server.received[0].path == "/v1/models"
        assert server.received[1].path == "/v1/chat/completions"


def test_a_server_without_a_list_of_models_is_probed() -> None:
    """A 404 for the list alone is no fault."""
    with ScriptedEndpoint(faults=at(0, Fault(404))) as server:
        assert start(server.url).choices


def thinking(body: dict[str, Any]) -> str:
    """What a model that thinks answers: with no thought where it is asked not to, or constrained."""
    off = body.get("chat_template_kwargs", {}).get("enable_thinking") is False
    return "A cat." if off or "structured_outputs" in body else "<think>An animal? Let me"


def test_thinking_is_turned_off_where_the_server_takes_the_switch() -> None:
    """A model whose free answer begins with a thought gets the switch in every request from then on, and says so."""
    with ScriptedEndpoint(answer=thinking) as server:
        found = start(server.url, ("output", CHAT, PLAIN))
        ask(server, request(), request(choices=("Yes", "No")), chat_template_kwargs={"tone": "dry"})
        free, constrained = server.bodies[-2:]

        assert found == Server(server.url, "scripted", 8192, True, True, True, thinks=False, thinking_off=True)
        assert str(found).endswith("token counts yes, thinking turned off")
        assert "\n" not in str(found)
        off = {"enable_thinking": False, "thinking": False, "tone": "dry"}
        assert free["chat_template_kwargs"] == constrained["chat_template_kwargs"] == off


def test_a_free_request_looks_for_the_thought() -> None:
    """It has no constraint and room to begin one; a server that does not think gets no switch."""
    with ScriptedEndpoint() as server:
        assert not start(server.url).thinking_off
        constrained, free = server.bodies

        assert "structured_outputs" in constrained
        assert "structured_outputs" not in free
        assert free["max_tokens"] == 64
        assert "chat_template_kwargs" not in free


def test_completion_style_knows_no_thoughts() -> None:
    """A base model's text is what it is, and no switch is tried."""
    with ScriptedEndpoint(answer=lambda _: "<think>") as server:
        found = start(server.url, style="completion")
        assert (found.thinks, found.thinking_off) == (False, False)


@pytest.mark.parametrize(
    ("answer", "refuses", "variables"),
    [
        pytest.param(lambda _: "<think>Hm.</think>A cat.", {}, {}, id="goes-on"),
        pytest.param(thinking, {"chat_template_kwargs": "unknown field"}, {}, id="refuses-the-switch"),
        pytest.param(thinking, {}, {"enable_thinking": True}, id="is-asked-to"),
        pytest.param(thinking, {}, {"thinking": True}, id="is-asked-to-by-another-name"),
    ],
)
def test_what_still_thinks(answer: Any, refuses: dict[str, str], variables: dict[str, bool]) -> None:
    """Where the switch does not help, is refused or is the user's own, nothing is turned off."""
    with ScriptedEndpoint(answer=answer, refuses=refuses) as server:
        found = start(server.url, chat_template_kwargs=variables)
        assert (found.thinks, found.thinking_off, found.choices) == (True, False, True)
        assert str(found).endswith("token counts yes, thinks before it answers")


def test_thinking_is_turned_off_without_constrained_choices() -> None:
    """A server that refuses those may take the switch all the same."""
    with ScriptedEndpoint(answer=thinking, choices=False) as server:
        found = start(server.url)
        assert (found.thinks, found.thinking_off, found.choices) == (False, True, False)


def test_choices_are_looked_for_again_without_the_thought() -> None:
    """A server whose thought stands before a constrained answer too is found to constrain once it thinks no more."""

    def answer(body: dict[str, Any]) -> str:
        off = body.get("chat_template_kwargs", {}).get("enable_thinking") is False
        return body.get("structured_outputs", {}).get("choice", ["A cat."])[0] if off else "<think>Let me"

    with ScriptedEndpoint(choices=False, strict=False) as server:
        server.respond = lambda received: spoken(received, answer)  # type: ignore[method-assign]
        found = start(server.url)
        assert (found.choices, found.thinking_off) == (True, True)


def spoken(received: Received, answer: Callable[[dict[str, Any]], str]) -> tuple[int, dict[str, str], Any]:
    """The reply of a server that does nothing to an answer."""
    if received.body is None:
        return 200, {}, {"data": [{"id": "scripted"}]}
    message = {"content": answer(received.body)}
    return 200, {}, {"choices": [{"finish_reason": "stop", "message": message}]}


def test_a_server_that_thinks_is_given_room_for_a_choice() -> None:
    """Where it does not constrain, an answer to a choice may be as long as a thought and a word."""
    with ScriptedEndpoint(choices=False, answer=lambda _: "<think>Hm.</think>Yes") as server:
        (answer,) = ask(server, request(choices=("Yes", "No"), max_tokens=3))

        assert answer.text == "Yes"
        assert server.bodies[-1]["max_tokens"] == 2048
        assert "structured_outputs" not in server.bodies[-1]


NEWER = "Unsupported parameter: 'max_tokens' is not supported; use 'max_completion_tokens' instead."


@pytest.mark.parametrize("extras", [True, False])
def test_a_server_that_wants_another_name_for_max_tokens(extras: bool) -> None:
    """One that names `max_completion_tokens` as it refuses gets that field from then on, and no max_tokens."""
    with ScriptedEndpoint(refuses={"max_tokens": NEWER}, extras=extras) as server:
        assert start(server.url).limit == "max_completion_tokens"
        (answer,) = ask(server, request())
        assert isinstance(answer, Completion)
        assert server.bodies[-1]["max_completion_tokens"] == 64
        assert "max_tokens" not in server.bodies[-1]


# The prompts of the run


def trial(tokens: int, max_tokens: int = 64, name: str = "output") -> tuple[str, Prompt, Sampling]:
    """A prompt of that many words, which are the scripted server's tokens."""
    return name, (Message("user", "word " * tokens),), replace(PLAIN, max_tokens=max_tokens)


def test_each_prompt_is_tried_for_one_token() -> None:
    """It is sent once with its own sampling, and with one token for the answer."""
    with ScriptedEndpoint() as server:
        start(server.url, trial(5), trial(7, name="instances"))
        first, second = server.bodies[-2:]

        assert len(server.received) == FIRST + 2
        assert (first["max_tokens"], second["max_tokens"]) == (1, 1)
        assert first["temperature"] == PLAIN.temperature
        assert second["messages"][0]["content"] == "word " * 7


def test_a_prompt_that_leaves_no_room_for_its_answer() -> None:
    """By the server's own count of tokens; as many as the context holds are taken."""
    with ScriptedEndpoint(context=100) as server:
        start(server.url, trial(36))
        with pytest.raises(InputError) as caught:
            start(server.url, trial(5), trial(37))
    assert str(caught.value) == (
        "prompt output: its longest form has 37 tokens, which with 64 for the answer is more than the context of 100; "
        "show fewer demonstrations, or lower max_tokens"
    )


@pytest.mark.parametrize("values", [{"context": None}, {"context": 100, "usage": False}])
def test_a_prompt_that_cannot_be_counted_is_let_be(values: dict[str, Any]) -> None:
    """A server that says nothing of its context, or counts no tokens, is taken at its answer."""
    with ScriptedEndpoint(**values) as server:
        start(server.url, trial(500, max_tokens=200))
        assert len(server.received) == FIRST + 1


def test_a_prompt_that_the_server_refuses() -> None:
    """The sentence names the prompt and has the server's words."""
    refusal = Fault(400, body={"error": {"message": "the maximum context length is 100"}})
    with (
        ScriptedEndpoint(usage=False, faults=at(FIRST + 1, refusal)) as server,
        pytest.raises(
            InputError, match=r"^prompt output: .* refuses .* \(the maximum context length is 100\); show few"
        ),
    ):
        start(server.url, trial(5, name="bootstrap"), trial(500))


def test_a_model_that_thinks_with_no_room_for_it() -> None:
    """A prompt with less than 512 tokens is refused by its name before it is sent; a constrained answer needs none."""
    with ScriptedEndpoint(answer=lambda _: "<think>Hm.</think>A cat.") as server:
        start(server.url, trial(5, 3, "classification"), trial(5, 1, "curation"), trial(5, 512))
        server.received.clear()
        with pytest.raises(InputError) as caught:
            start(server.url, trial(5, 512, "bootstrap"), trial(5, 511))
        assert max(body["max_tokens"] for body in server.bodies) == 64
        assert min(body["max_tokens"] for body in server.bodies) == 16
    assert str(caught.value) == (
        "prompt output: the model thinks before it answers, and max_tokens = 511 will not hold its thought; raise it "
        "(to 2048 or more), or turn thinking off with engine.chat_template_kwargs"
    )


# What start refuses


def test_nothing_listens() -> None:
    """The sentence names the address and what would mend it."""
    with ScriptedEndpoint() as server:
        url = server.url
    with pytest.raises(InputError) as caught:
        start(url)

    assert re.fullmatch(
        rf"{url}: the connection failed \(.+\); start the server there, or mend .*base_url", str(caught.value)
    )


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize("where", [0, 1])
def test_a_wrong_key(status: int, where: int) -> None:
    """The sentence names the variable and not the key, even where the server repeats it."""
    with ScriptedEndpoint(faults=at(where, Fault(status, body={"error": {"message": f"wrong: {KEY}"}}))) as server:
        with pytest.raises(
            InputError, match=rf"refuses the key in {VARIABLE} \({status}\); set {VARIABLE} to"
        ) as caught:
            start(server.url)
        assert KEY not in str(caught.value)


def test_a_missing_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that wants a key is named together with the variable that is not set; no header is sent without one."""
    monkeypatch.setenv(VARIABLE, "")
    with ScriptedEndpoint(key=KEY) as server:
        with pytest.raises(InputError, match=rf"wants a key, and {VARIABLE} is not set \(401\).*api_key_env"):
            start(server.url)
        assert "authorization" not in server.received[0].headers


def test_the_key_is_sent_as_a_bearer_token(monkeypatch: pytest.MonkeyPatch) -> None:
    """White space around the key is not part of it."""
    monkeypatch.setenv(VARIABLE, f"{KEY}\n")
    with ScriptedEndpoint(key=KEY) as server:
        assert start(server.url).model == "scripted"
        assert {each.headers["authorization"] for each in server.received} == {f"Bearer {KEY}"}


def test_what_cannot_be_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key that no header can carry is refused by the name of its variable."""
    monkeypatch.setenv(VARIABLE, f"{KEY}\nmore")
    with pytest.raises(InputError, match=f"^{VARIABLE} holds what cannot be a key") as caught:
        start("http://127.0.0.1:1/v1")
    assert KEY not in str(caught.value)


@pytest.mark.parametrize("body", ["<html>It works!</html>", "hello", ["scripted"], {"data": 3}, {"models": []}, None])
def test_no_openai_compatible_server(body: Any) -> None:
    """A page, a text or other JSON for the list of models is one sentence that says where the API may begin."""
    with (
        ScriptedEndpoint(faults=at(0, Fault(200, body=body))) as server,
        pytest.raises(InputError, match=r"is not an OpenAI-compatible server: its /models answers 200.*/v1"),
    ):
        start(server.url)


def test_an_address_without_the_version() -> None:
    """Where neither the list nor the completions are found, the sentence asks for the end of the address."""
    with ScriptedEndpoint() as server, pytest.raises(InputError, match=r'answers 404 \(Not Found\).*end in "/v1"'):
        start(server.url.removesuffix("/v1"))


def test_a_redirect_is_not_followed() -> None:
    """The key goes to the address that was named, and nowhere else."""
    with ScriptedEndpoint() as other:
        moved = Fault(307, {"Location": f"{other.url}/models"})
        with ScriptedEndpoint(faults=at(0, moved)) as server, pytest.raises(InputError, match="answers 307"):
            start(server.url)
        assert other.received == []


def test_an_unknown_model_is_answered_with_those_there_are() -> None:
    """Ten of the server's models are named, the nearest first."""
    names = [f"other-{number:02}" for number in range(11)] + ["tiny-llama", "tiny-llama-chat"]
    listed = Fault(200, body={"data": [{"id": name} for name in names]})
    with ScriptedEndpoint(faults=at(0, listed)) as server, pytest.raises(InputError) as caught:
        start(server.url, model="tiny-lama")

    assert "has no model 'tiny-lama'; set engine.model to one that it has: tiny-llama, tiny-llama-chat," in str(
        caught.value
    )
    assert str(caught.value).endswith(" and 3 more")
    assert str(caught.value).count("other-") == 8


def test_a_server_that_refuses_even_a_small_request() -> None:
    """Its own words are shown, and what of the configuration was in that request."""
    refusal = Fault(400, body={"error": {"message": "no chat template is defined"}})
    with (
        ScriptedEndpoint(faults=lambda n: refusal if n else None) as server,
        pytest.raises(InputError, match=r'\(no chat template is defined\).*engine\.system.*style = "completion"'),
    ):
        start(server.url)


@pytest.mark.parametrize(("name", "value"), [("top_k", 40), ("min_p", 0.1), ("repetition_penalty", 1.1)])
def test_a_knob_that_the_server_does_not_take(name: str, value: float) -> None:
    """A sampling that sets it is refused by its name at the start; one that leaves it off is not."""
    with ScriptedEndpoint(extras=False) as server:
        with pytest.raises(InputError, match=f"does not take {name}, and it is set to {value}; leave {name} at its"):
            start(server.url, ("a", CHAT, PLAIN), ("b", CHAT, replace(PLAIN, **{name: value})))
        assert not start(server.url, ("a", CHAT, PLAIN), ("b", CHAT, replace(PLAIN, top_k=-1))).extras
    with ScriptedEndpoint() as server:
        assert start(server.url, ("a", CHAT, replace(PLAIN, **{name: value}))).extras


@pytest.mark.parametrize(
    ("values", "environment"),
    [
        ({"_extra_body": {"x": float("nan")}}, {}),
        ({"url": "http://127.0.0.1:99999/v1"}, {}),
        ({}, {"HTTP_PROXY": "gopher://127.0.0.1:70"}),
        ({}, {"SSL_CERT_FILE": "/nowhere/at/all.pem"}),
    ],
)
def test_what_cannot_be_asked(
    values: dict[str, Any], environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Settings and surroundings that the client cannot work with are one sentence."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=r"^the endpoint cannot be asked \(.+\); mend engine.openai"):
        start(**{"url": "http://127.0.0.1:1/v1", **values})


def test_trouble_at_the_start_is_asked_again(waits: list[float]) -> None:
    """A server that is still loading is waited for; one that stays in trouble stops the run."""
    with ScriptedEndpoint(faults=lambda n: Fault(503) if n < 2 else None) as server:
        assert start(server.url).choices
        assert len(waits) == 2
    with ScriptedEndpoint(faults=lambda n: Fault(503)) as server, pytest.raises(RunStopped, match="in 3 attempt"):
        start(server.url, _attempts=3)


def test_the_start_does_not_wait_for_long(waits: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    """A silent server has three tries of 30 s, however patient the settings; a pause it asks for is 30 s at most."""
    assert (endpoint_http.START_REQUEST_S, endpoint_http.START_TRIES) == (30, 3)
    monkeypatch.setattr(endpoint_http, "START_REQUEST_S", 0.2)
    with (
        ScriptedEndpoint(faults=lambda n: SILENCE if n else None) as server,
        pytest.raises(RunStopped, match=r"in 3 attempt.* no answer within 0\.2 s"),
    ):
        start(server.url)
    waits.clear()
    with ScriptedEndpoint(faults=at(1, Fault(429, {"Retry-After": "600"}))) as server:
        start(server.url)
    assert len(waits) == 1
    assert 30 <= waits[0] <= 40


def test_a_host_that_takes_no_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten seconds are enough for a connection, also of a request that may take longer."""
    assert endpoint_http.CONNECT_S == 10
    monkeypatch.setattr(endpoint_http, "CONNECT_S", 0.2)
    with contextlib.ExitStack() as stack:
        deaf = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):  # what its queue holds
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(deaf.getsockname())
        began = time.monotonic()
        with pytest.raises(InputError, match="the connection failed"):
            start(f"http://127.0.0.1:{deaf.getsockname()[1]}/v1")
        assert time.monotonic() - began < 5


def test_a_server_that_is_away_when_a_run_goes_on(waits: list[float]) -> None:
    """It stops the run, which the same command goes on with; a wrong key or model is still bad input."""
    with ScriptedEndpoint() as server:
        url = server.url
        with pytest.raises(InputError, match="has no model"):
            start(url, fresh=False, model="other")
    with pytest.raises(RunStopped, match=r"in 3 attempt.*the connection failed.*run the same command again"):
        start(url, fresh=False)
    with ScriptedEndpoint(key="another") as server, pytest.raises(InputError, match="refuses the key"):
        start(server.url, fresh=False)


# What is asked


def test_a_chat_is_sent_as_messages() -> None:
    """Every knob is in the body by its name, with vLLM's own, and no seed."""
    with ScriptedEndpoint() as server:
        ask(server, request(), chat_template_kwargs={"enable_thinking": True})
        assert server.received[-1].path == "/v1/chat/completions"
        assert server.bodies[-1] == {
            "model": "scripted",
            "messages": [
                {"role": "system", "content": "Be kind."},
                {"role": "user", "content": "Is it classification?"},
            ],
            "chat_template_kwargs": {"enable_thinking": True},
            "max_tokens": 64,
            "temperature": 0.5,
            "top_p": 0.9,
            "presence_penalty": 0.1,
            "frequency_penalty": 0.2,
            "stop": ["\n\n"],
            "top_k": -1,
            "min_p": 0.0,
            "repetition_penalty": 1.0,
            "n": 1,
            "stream": False,
        }


def test_fields_that_have_nothing_to_say_are_left_out() -> None:
    """Template variables and stops are sent where there are some: not every server takes the fields."""
    with ScriptedEndpoint() as server:
        ask(server, request(stop=()))
        assert server.bodies[-1].keys().isdisjoint({"chat_template_kwargs", "stop", "structured_outputs", "seed"})


def test_a_text_is_sent_as_a_prompt() -> None:
    """Completion style has no messages; an empty list of stops is left out, and knobs that are set go as they are."""
    with ScriptedEndpoint() as server:
        ask(server, request(TEXT, stop=(), top_k=40, min_p=0.1, repetition_penalty=1.1), style="completion")
        body = server.bodies[-1]

        assert server.received[-1].path == "/v1/completions"
        assert body["prompt"] == TEXT
        assert body.keys().isdisjoint({"messages", "chat_template_kwargs", "stop", "structured_outputs", "seed"})
        assert (body["top_k"], body["min_p"], body["repetition_penalty"]) == (40, 0.1, 1.1)


def test_fields_of_ones_own() -> None:
    """`extra_body` is in every request."""
    with ScriptedEndpoint() as server:
        ask(server, request(), _extra_body={"provider": {"order": ["x"]}})
        assert all(body["provider"] == {"order": ["x"]} for body in server.bodies)


def test_knobs_that_a_server_does_not_take_are_left_out() -> None:
    """A server of OpenAI's own fields gets none but those."""
    with ScriptedEndpoint(extras=False) as server:
        (answer,) = ask(server, request())
        assert isinstance(answer, Completion)
        assert server.bodies[-1].keys().isdisjoint({"top_k", "min_p", "repetition_penalty"})


# What is answered


def test_tokens_are_those_of_the_server() -> None:
    """Prompt and completion tokens are the server's counts, and 0 where it gives none."""
    with ScriptedEndpoint(answer=lambda _: "one two three") as server:
        assert ask(server, request()) == [Completion("one two three", "stop", 3, 3)]
    with ScriptedEndpoint(answer=lambda _: "one two three", usage=False) as server:
        assert ask(server, request()) == [Completion("one two three", "stop", 0, 0)]


@pytest.mark.parametrize(
    ("answered", "text"),
    [
        (reply(content="An answer."), "An answer."),
        (reply(content="An answer.", reasoning_content="A thought."), "<think>A thought.</think>An answer."),
        (reply(content="An answer.", reasoning="A thought."), "<think>A thought.</think>An answer."),
        (reply("length", content="An ans", reasoning="A thought."), "<think>A thought.</think>An ans"),
        (reply("length", content=None, reasoning="A thou"), "<think>A thou"),
        (reply("length", content="", reasoning_content="A thou"), "<think>A thou"),
        (reply("stop", content=None, reasoning="A thought."), "<think>A thought.</think>"),
        (reply(content="An answer.", reasoning="", reasoning_content=None), "An answer."),
        (reply(content=None), ""),
        (reply(content=None, refusal="I cannot."), "I cannot."),
        (reply(content="half of \ud83d"), "half of ?"),
    ],
)
def test_a_thought_is_put_back_in_front(answered: Fault, text: str) -> None:
    """What the server has parted from the answer stands before it in a block, which a cut leaves open."""
    with ScriptedEndpoint(faults=at(FIRST, answered)) as server:
        (answer,) = ask(server, request())
        assert answer.text == text
        assert answer.finish_reason == answered.body["choices"][0]["finish_reason"]


@pytest.mark.parametrize("style", ["chat", "completion"])
@pytest.mark.parametrize("choices", [(" Yes", " No"), ("Yes", "No")])
def test_a_constrained_choice(style: str, choices: tuple[str, ...]) -> None:
    """It is asked for once within the given bound, and comes back to the letter."""
    prompt = TEXT if style == "completion" else CHAT
    with ScriptedEndpoint() as server:
        (answer,) = ask(server, request(prompt, choices, max_tokens=3), style=style)

        assert answer.text in choices
        assert len(server.bodies) == (3 if style == "chat" else 2)
        assert server.bodies[-1]["structured_outputs"] == {"choice": list(choices)}
        assert server.bodies[-1]["max_tokens"] == 3


def test_a_constrained_choice_as_servers_render_it() -> None:
    """White space or a thought around it do not come back with it, and it never is asked for in thinking."""
    shown = Fault(200, body={"choices": [{"finish_reason": "stop", "text": "No\n"}]})
    with ScriptedEndpoint(faults=at(FIRST - 1, shown)) as server:
        assert ask(server, request(TEXT, (" Yes", " No")), style="completion")[0].text == " No"
    with ScriptedEndpoint(faults=at(FIRST, reply(content="No", reasoning="Hm."))) as server:
        variables = {"enable_thinking": True, "tone": "dry"}
        assert ask(server, request(CHAT, ("Yes", "No")), chat_template_kwargs=variables)[0].text == "No"
        assert server.bodies[-1]["chat_template_kwargs"] == {"enable_thinking": False, "tone": "dry"}


@pytest.mark.parametrize(
    ("said", "choice"),
    [
        ("Yes", "Yes"),
        (" yes.\n", "Yes"),
        ("**No**", "No"),
        ("“No.”", "No"),
        ("`YES`", "Yes"),
        ("Yes, because it has labels.", "Yes"),
        ("_No_: it is free.", "No"),
        ("Not at all", None),
        ("Nope", None),
        ("The answer is Yes", None),
        ("", None),
    ],
)
def test_which_choice_an_answer_is(said: str, choice: str | None) -> None:
    """In any case and dress, alone or before a reason; but a longer word or a sentence around it is none."""
    assert matching_choice(said, ("Yes", "No")) == choice


def test_of_two_choices_the_longer_one_is_taken() -> None:
    """A choice that begins with another one is not taken for it."""
    assert matching_choice("Not sure.", ("Not", "Not sure")) == "Not sure"


def test_a_free_choice_in_chat_is_asked_for_again() -> None:
    """The answer and one more turn are added each time; tokens add up; the one word has room."""
    said = iter(["an animal", "a cat", "Hard to say.", "", "**Yes**, because it has labels."])
    with ScriptedEndpoint(choices=False, strict=False, answer=lambda _: next(said)) as server:
        (answer,) = ask(server, request(CHAT, ("Yes", "No"), max_tokens=3))
        first, second, third = server.bodies[2:]
        again = {"role": "user", "content": "Answer with exactly one of: Yes, No."}

        assert second["messages"] == [*first["messages"], {"role": "assistant", "content": "Hard to say."}, again]
        assert third["messages"] == [*second["messages"], {"role": "assistant", "content": "(no answer)"}, again]
        assert first["max_tokens"] == 16
        assert {body["temperature"] for body in (first, second, third)} == {0.5}
        assert answer == Completion("Yes", "stop", 3 + 7 + 7, 3 + 0 + 5)


def test_a_free_choice_in_completion_style_is_asked_for_again_at_a_higher_temperature() -> None:
    """The prompt stays as it is; a leading space of the choice comes back."""
    said = iter(["an animal", " I think so", " Yes"])
    with ScriptedEndpoint(choices=False, answer=lambda _: next(said)) as server:
        (answer,) = ask(server, request(TEXT, (" Yes", " No"), temperature=0.0), style="completion")
        first, second = server.bodies[-2:]

        assert answer.text == " Yes"
        assert second == {**first, "temperature": 0.7}


@pytest.mark.parametrize(("prompt", "style"), [(CHAT, "chat"), (TEXT, "completion")])
def test_a_choice_that_never_comes(prompt: Prompt, style: str) -> None:
    """After three more asks the last answer comes back as it is, for the recipe to refuse."""
    with ScriptedEndpoint(choices=False, strict=False, answer=lambda body: f"Hm, {len(json.dumps(body))}") as server:
        (answer,) = ask(server, request(prompt, ("Yes", "No")), style=style)

        assert len(server.bodies) == (2 if style == "chat" else 1) + 4
        assert answer.text == f"Hm, {len(json.dumps(server.bodies[-1]))}"
        assert answer.completion_tokens == 4 * 2


def test_a_thought_that_does_not_end_is_no_choice() -> None:
    """It comes back at once, for it has a reason of its own."""
    cut = reply("length", content=None, reasoning="Hm")
    with ScriptedEndpoint(choices=False, faults=at(FIRST + 1, cut)) as server:
        (answer,) = ask(server, request(CHAT, ("Yes", "No")))
        assert (answer.text, len(server.received)) == ("<think>Hm", FIRST + 2)


# Faults


@pytest.mark.parametrize("status", [408, 409, 425, 500, 502, 503, 504, 529])
def test_trouble_of_the_server_is_asked_again(status: int, waits: list[float]) -> None:
    """The same request goes out again after a pause that doubles, up to a minute, and is somewhat spread."""
    faults = dict.fromkeys(range(FIRST, FIRST + 8), Fault(status))
    with ScriptedEndpoint(faults=faults.get, answer=lambda _: "ok") as server:
        (answer,) = ask(server, request(), _attempts=9)
        assert answer.text == "ok"
        assert all(body == server.bodies[FIRST - 1] for body in server.bodies[FIRST - 1 :])
    assert len(waits) == 8
    assert all(
        longest / 2 <= wait <= longest for wait, longest in zip(waits, (1, 2, 4, 8, 16, 32, 60, 60), strict=True)
    )


def test_pauses_are_a_function_of_the_request(waits: list[float]) -> None:
    """Two runs wait alike, and two requests do not."""
    for prompt in ("a", "a", "b"):
        with ScriptedEndpoint(faults=at(FIRST, Fault(500))) as server:
            ask(server, request(prompt))
    assert waits[0] == waits[1] != waits[2]


@pytest.mark.parametrize("fault", [CUT, GARBAGE, SILENCE], ids=lambda fault: fault.kind)
def test_a_connection_or_an_answer_that_breaks_is_asked_again(fault: Fault, waits: list[float]) -> None:
    """A cut, a page in place of JSON, and a silence longer than `timeout_s` each cost one try."""
    with ScriptedEndpoint(faults=at(FIRST, fault), answer=lambda _: "ok") as server:
        began = time.monotonic()
        assert ask(server, request(), _timeout_s=0.4)[0].text == "ok"
        assert time.monotonic() - began < 3
    assert len(waits) == 1


@pytest.mark.parametrize(
    "body",
    [
        {},
        [],
        {"choices": []},
        {"choices": [{"finish_reason": "stop"}]},
        {"choices": [{"finish_reason": "stop", "text": 3}]},
        {"choices": [{"finish_reason": None, "text": "cut"}]},
        {"choices": [{"finish_reason": "abort", "text": "cut"}]},
        {"choices": [{"finish_reason": "stop", "message": {"content": [1]}}]},
        {"choices": [{"finish_reason": "stop", "message": "hello"}]},
        {"error": {"message": "the upstream is away"}},
    ],
)
def test_json_that_is_no_completion_is_asked_again(body: Any, waits: list[float]) -> None:
    """Fields that are missing or of another type, and an answer that the server itself gave up, cost one try."""
    with ScriptedEndpoint(faults=at(FIRST, Fault(200, body=body)), answer=lambda _: "ok") as server:
        assert ask(server, request())[0].text == "ok"
    assert len(waits) == 1


@pytest.mark.parametrize("status", [429, 500, 503])
@pytest.mark.parametrize(
    ("header", "least", "most"),
    [
        (lambda: "7", 7, 14),
        (lambda: format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True), 85, 100),
        (lambda: format_datetime(datetime.now(UTC) - timedelta(seconds=90), usegmt=True), 0.5, 2),
        (lambda: "86400", 600, 610),
        (lambda: "soon", 0.5, 2),
    ],
)
def test_retry_after_is_honoured(
    status: int, header: Callable[[], str], least: float, most: float, waits: list[float]
) -> None:
    """Seconds or a date are waited for, at most ten minutes; what is past or unreadable leaves our own pause."""
    with ScriptedEndpoint(faults=lambda n: Fault(status, {"Retry-After": header()}) if n == FIRST else None) as server:
        ask(server, request())
    (wait,) = waits
    assert least <= wait <= most


def test_no_slot_is_held_while_a_request_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """With one slot, another request is answered while the first one pauses."""
    pausing, go_on = asyncio.Event(), asyncio.Event()

    async def held(_: float) -> None:
        pausing.set()
        await go_on.wait()

    async def main() -> None:
        async with engine_at(server, _concurrency=1) as engine:
            first = asyncio.create_task(engine.generate(request()))
            await pausing.wait()
            assert (await engine.generate(request("b"))).text == "ok"
            assert not first.done()
            go_on.set()
            assert (await first).text == "ok"

    monkeypatch.setattr(endpoint_http, "_sleep", held)
    with ScriptedEndpoint(faults=at(FIRST, Fault(500)), answer=lambda _: "ok") as server:
        asyncio.run(main())


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> float:
    """The engine's time runs this many times as fast as that of the world."""
    times = 25.0
    monkeypatch.setattr(endpoint_http, "_sleep", lambda seconds: asyncio.sleep(seconds / times))
    monkeypatch.setattr(endpoint_http, "_now", lambda: time.monotonic() * times)
    return times


@pytest.mark.parametrize("says_when", [True, False])
def test_a_rate_limit_slows_a_run_and_does_not_end_it(fast: float, says_when: bool) -> None:
    """125 requests a minute, with 16 in flight that take 5 s each, are all answered, with or without Retry-After."""
    taken: list[float] = []
    refused: list[float] = []

    def limit(_: int) -> Fault | None:
        now = time.monotonic() * fast
        if len(taken) >= 125 and (left_s := taken[-125] + 60 - now) > 0:
            refused.append(now)
            return Fault(429, {"Retry-After": str(int(left_s) + 1)} if says_when else {})
        taken.append(now)
        return None

    def slow(_: dict[str, Any]) -> str:
        time.sleep(5 / fast)
        return "ok"

    async def main() -> list[Completion]:
        async with engine_at(server, _concurrency=16) as engine:
            return await asyncio.gather(*(engine.generate(request(str(number))) for number in range(200)))

    with ScriptedEndpoint(faults=limit, answer=slow) as server:
        assert {answer.text for answer in asyncio.run(main())} == {"ok"}
    assert 0 < len(refused) < 100


def test_a_server_that_asks_for_patience_gets_it_from_all_requests(waits: list[float]) -> None:
    """After a 429 no other request leaves until the pause is over, and each has its own share of a spread."""
    left: list[float] = []

    def first_one(number: int) -> Fault | None:
        left.append(endpoint_http._now())
        return Fault(503, {"Retry-After": "20"}) if number == FIRST else None

    async def main() -> None:
        async with engine_at(server, _concurrency=1) as engine:
            await asyncio.gather(*(engine.generate(request(str(number))) for number in range(4)))

    with ScriptedEndpoint(faults=first_one) as server:
        asyncio.run(main())
    refused, *later = left[FIRST:]
    assert len(later) == 4
    assert all(20 < moment - refused <= 30 for moment in later)


def test_patience_counts_only_where_nothing_is_answered(waits: list[float]) -> None:
    """A request that is told to wait more often than `attempts` is answered, as long as others are in between."""
    turns: Counter[str] = Counter()

    def unlucky(received: Received) -> tuple[int, dict[str, str], Any]:
        said = (received.body or {"messages": [{"content": ""}]})["messages"][-1]["content"]
        turns[said] += 1
        if said == "unlucky" and turns[said] % 2 and turns[said] < 12:
            return 429, {}, {"error": "slow down"}
        return spoken(received, lambda _: "ok")

    async def main() -> list[Completion]:
        async with engine_at(server, _concurrency=1, _attempts=2) as engine:
            asked = ["unlucky", *(str(number) for number in range(8)), "unlucky"]
            return await asyncio.gather(
                *(engine.generate(request((Message("user", each),), unit=n)) for n, each in enumerate(asked))
            )

    with ScriptedEndpoint() as server:
        server.respond = unlucky  # type: ignore[assignment, method-assign]
        assert {answer.text for answer in asyncio.run(main())} == {"ok"}


def test_trouble_that_lasts_stops_the_run(waits: list[float]) -> None:
    """The sentence has the host, the attempts and the last fault, and the run may go on later."""
    broke = Fault(429, body={"error": {"message": "you have\nspent it all"}})
    with ScriptedEndpoint(faults=lambda n: broke if n >= FIRST else None) as server:
        (error,) = ask(server, request(), _attempts=4)
        assert isinstance(error, RunStopped)
        assert str(error) == (
            "127.0.0.1 gave no answer in 4 attempt(s), at last: 429 (you have spent it all); see to the server, and "
            "run the same command again to go on"
        )
        assert len(server.received) == FIRST + 4
        assert len(waits) == 3


def test_a_server_that_goes_away_stops_the_run(waits: list[float]) -> None:
    """After the start, a server that no longer listens is trouble and no fault of the configuration."""

    async def main() -> None:
        with ScriptedEndpoint() as server:
            engine = OpenAIEngine(settings(server.url, _attempts=3))
            await engine.start()
        try:
            with pytest.raises(RunStopped, match="in 3 attempt"):
                await engine.generate(request())
            assert engine.retries.keys() <= {"connect", "cut"}
        finally:
            await engine.close()

    asyncio.run(main())


@pytest.mark.parametrize("status", [400, 413, 422])
def test_what_lies_in_the_content_is_a_content_fault(status: int, waits: list[float]) -> None:
    """It is refused in the server's words, of bounded length, and not asked again."""
    long = Fault(status, body={"error": {"message": "too long: " + "x" * 5000}})
    with ScriptedEndpoint(faults=at(FIRST, long)) as server:
        (error,) = ask(server, request())
    assert isinstance(error, ContentFault)
    assert error.reason is Reason.REQUEST_REFUSED
    assert error.detail.startswith("too long: xxx")
    assert len(error.detail) == 300
    assert waits == []


def test_another_way_to_end_is_a_content_fault() -> None:
    """An answer that the server held back is refused by its own word for it."""
    with ScriptedEndpoint(faults=at(FIRST, reply("content_filter", content=None))) as server:
        (error,) = ask(server, request())
    assert (error.reason, error.detail) == (
        Reason.REQUEST_REFUSED,
        "the server ended the answer with 'content_filter'",
    )


@pytest.mark.parametrize("status", [401, 403, 404, 405, 501])
def test_a_key_or_model_that_is_gone_ends_the_run(status: int, waits: list[float]) -> None:
    """In the middle of a run it is a fault of the configuration too, and not asked again."""
    with ScriptedEndpoint(faults=at(FIRST, Fault(status))) as server:
        (error,) = ask(server, request())
    assert isinstance(error, InputError)
    assert waits == []


def test_a_few_retries_are_noted(waits: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    """The first of each kind is noted, then one in ten seconds, with the counts; all are counted."""
    clock = 1000.0
    monkeypatch.setattr(endpoint_http, "_now", lambda: clock)
    notes: list[tuple[str, dict[str, Any]]] = []
    troubles = [Fault(408), Fault(408), Fault(500), Fault(408), None, Fault(500), None, Fault(500)]
    faults = dict(enumerate(troubles, FIRST))

    async def main() -> dict[str, int]:
        nonlocal clock
        with ScriptedEndpoint(faults=faults.get) as server:
            async with engine_at(server, lambda kind, **values: notes.append((kind, values))) as engine:
                for seconds in (0, 9, 2):
                    clock += seconds
                    await engine.generate(request())
                return dict(engine.retries)

    assert asyncio.run(main()) == {"408": 3, "500": 3}
    assert [(kind, values["fault"], values["retries"]) for kind, values in notes] == [
        ("endpoint_retry", "408", {"408": 1}),
        ("endpoint_retry", "500", {"408": 2, "500": 1}),
        ("endpoint_retry", "500", {"408": 3, "500": 3}),
    ]


def test_the_key_is_nowhere(waits: list[float], caplog: pytest.LogCaptureFixture) -> None:
    """No error, note, log line or representation has the key in it, even where the server repeats it, or the prompt."""
    caplog.set_level(logging.DEBUG)
    notes: list[Any] = []
    echo = {"error": {"message": f"bad: Bearer {KEY}"}}
    faults = {FIRST + n: Fault(status, body=echo) for n, status in enumerate((400, 500, 403, 404, 503, 503, 503))}

    async def main() -> list[str]:
        with ScriptedEndpoint(key=KEY, faults=faults.get) as server:
            async with engine_at(server, lambda *kinds, **values: notes.append((kinds, values)), _attempts=3) as engine:
                said = [repr(engine), repr(vars(engine)["_endpoint"]), repr(vars(engine)["_server"])]
                for _ in range(4):
                    try:
                        await engine.generate(request("a secret prompt"))
                    except (ContentFault, InputError, RunStopped) as error:
                        said += [str(error), repr(error), str(error.__cause__)]
                return said

    said = asyncio.run(main())
    assert notes
    assert len(said) == 3 + 4 * 3
    assert sum("***" in each for each in said) == 3 * 2
    everything = "\n".join([*said, repr(notes), caplog.text])
    assert KEY not in everything
    assert "secret prompt" not in everything


# Concurrency and the end


@pytest.mark.asyncio
async def test_no_more_requests_are_in_flight_than_allowed() -> None:
    """Of many requests at once the server sees as many as `concurrency`, and never more."""
    gate = asyncio.Event()
    loop = asyncio.get_running_loop()

    def answer(_: dict[str, Any]) -> str:
        asyncio.run_coroutine_threadsafe(gate.wait(), loop).result(10)
        return "ok"

    gate.set()
    with ScriptedEndpoint(answer=answer) as server:
        async with engine_at(server, _concurrency=5) as engine:
            gate.clear()
            asked = [asyncio.create_task(engine.generate(request(str(number)))) for number in range(20)]
            async with asyncio.timeout(10):
                while server.most_in_flight < 5:
                    await asyncio.sleep(0.01)
            await asyncio.sleep(0.1)
            gate.set()
            answers = await asyncio.gather(*asked)

        assert engine.capacity == 5
        assert [each.text for each in answers] == ["ok"] * 20
        assert server.most_in_flight == 5


@pytest.mark.asyncio
async def test_waiting_for_a_slot_is_not_counted_as_time_of_a_request() -> None:
    """With one slot, the last of four requests waits longer than `timeout_s`, and is answered at the first try."""

    def slow(_: dict[str, Any]) -> str:
        time.sleep(0.5)
        return "ok"

    with ScriptedEndpoint(answer=slow) as server:
        async with engine_at(server, _concurrency=1, _timeout_s=1.4) as engine:
            await asyncio.gather(*(engine.generate(request(str(number))) for number in range(4)))
            assert not engine.retries


@pytest.mark.asyncio
async def test_cancelling_withdraws_the_request() -> None:
    """The server sees its connection go, and its slot is free for the next one, however often that happens."""
    silent = range(FIRST, FIRST + 6)
    with ScriptedEndpoint(faults=lambda n: SILENCE if n in silent else None, answer=lambda _: "ok") as server:
        async with engine_at(server, _concurrency=2) as engine:
            for turn in range(3):
                asked = [asyncio.create_task(engine.generate(request(str(number)))) for number in range(2)]
                async with asyncio.timeout(10):
                    while len(server.received) < FIRST + 2 * (turn + 1):
                        await asyncio.sleep(0.01)
                    for each in asked:
                        each.cancel()
                    assert await asyncio.gather(*asked, return_exceptions=True)
                    while server.dropped < 2 * (turn + 1):
                        await asyncio.sleep(0.01)
            async with asyncio.timeout(10):
                assert (await engine.generate(request())).text == "ok"


@pytest.mark.asyncio
async def test_closing_twice_and_after_a_failed_start() -> None:
    """Close may follow anything, any number of times."""
    with ScriptedEndpoint(key="another") as server:
        engine = OpenAIEngine(settings(server.url))
        await engine.close()
        with pytest.raises(InputError):
            await engine.start()
        await engine.close()
        await engine.close()


@pytest.mark.parametrize("style", ["chat", "completion"])
@pytest.mark.parametrize("choices", [True, False], ids=["constrained", "free"])
def test_a_whole_run_over_http(style: str, choices: bool, tmp_path: Any, waits: list[float]) -> None:
    """In both styles a run over a server with faults reaches its target, with the rows of one over a sound server."""
    every_ninth = [Fault(503), CUT, GARBAGE, Fault(429, {"Retry-After": "1"})]
    rows = []
    for name, faults in (("sound", None), ("faulty", lambda n: every_ninth[n // 9 % 4] if n % 9 == 8 else None)):
        with ScriptedEndpoint(choices=choices, faults=faults) as server:
            engine = {"kind": "openai", "model": "scripted", "style": style}
            own = {"base_url": server.url, "concurrency": 8}
            config = parse_config({"name": "t", "target": 30, "window": 6, "engine": {**engine, "openai": own}}, "test")

            async def main(config: Any = config, name: str = name) -> None:
                engine = OpenAIEngine(config.engine)
                await engine.start()
                await run_to_end(config, tmp_path / name, engine)
                await engine.close()

            asyncio.run(main())
        rows.append({kind: read_rows(tmp_path / name, kind) for kind in ("data", "pool", "rejected")})

    assert len(rows[0]["pool"]) == 30
    assert len(rows[0]["data"]) > 20
    assert rows[0] == rows[1]
    assert waits


# The settings of an endpoint


def refused(**own: Any) -> str:
    """The sentence with which a configuration is refused that has these under [engine.openai]."""
    engine = {"kind": "openai", "model": "m", "openai": {"base_url": "http://h/v1", **own}}
    with pytest.raises(InputError) as caught:
        parse_config({"engine": engine}, "test")
    return str(caught.value)


@pytest.mark.parametrize(
    "url",
    ["http://me:hunter2@h/v1", "http://hunter2@h/v1", "http://h/v1?key=hunter2", "hunter2", "ftp://hunter2", 2, ""],
)
def test_an_address_that_is_none_is_not_shown(url: Any) -> None:
    """It may hold a password: the sentence has the key and what an address looks like."""
    assert refused(base_url=url) == (
        "test: engine.openai.base_url: must be an http(s) address without user, password or query, such as "
        '"http://127.0.0.1:8000/v1"; a key comes from the environment'
    )


@pytest.mark.parametrize("name", ["sk-hunter2", "hunter 2", "", 2])
def test_a_key_in_place_of_its_variable_is_not_shown(name: Any) -> None:
    """The sentence asks for the name of a variable."""
    assert refused(api_key_env=name) == (
        "test: engine.openai.api_key_env: must be the name of an environment variable that holds the key, such as "
        '"OPENAI_API_KEY", and not the key'
    )


@pytest.mark.parametrize(
    ("name", "mend"),
    [
        *((name, r"set it in the sampling of each stage, .*") for name in Sampling.__slots__),
        ("max_completion_tokens", "set max_tokens in the sampling of each stage"),
        ("model", r"set engine\.model"),
        ("prompt", r"set \[prompts\]"),
        ("messages", r"set \[prompts\] and engine\.system"),
        ("chat_template_kwargs", r"set engine\.chat_template_kwargs"),
        ("n", "each request is for one answer"),
        ("stream", "answers are read as a whole"),
        ("structured_outputs", "answers that are one of some choices are .*"),
    ],
)
def test_a_field_that_is_ours_is_not_of_ones_own(name: str, mend: str) -> None:
    """`extra_body` with a field that we write is refused by its name, with the setting in its place."""
    said = refused(extra_body={"provider": 1, name: "hunter2"})
    assert re.fullmatch(rf"test: engine\.openai\.extra_body: must not hold '{name}'; {mend}", said)


@pytest.mark.asyncio
async def test_those_that_wait_go_by_their_key() -> None:
    """One at a time, and of those that wait the earliest unit first; one that is cancelled costs no turn."""
    turns, went = Turns(1), []

    async def go(unit: int) -> None:
        async with turns.turn(RequestKey(unit, Stage.BOOTSTRAP)):
            went.append(unit)
            await asyncio.sleep(0)

    tasks = [asyncio.create_task(go(unit)) for unit in (7, 5, 3, 4, 1)]
    await asyncio.sleep(0)
    tasks[2].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    async with asyncio.timeout(5), turns.turn(RequestKey(9, Stage.BOOTSTRAP)):
        assert went == [7, 1, 4, 5]
