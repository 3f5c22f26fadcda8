"""An engine that talks to an OpenAI-compatible server: vLLM's own, or any other. Needs neither Ray nor vLLM here.

Servers differ in what they take, so `start` finds out with one small request and says it. What lies in a request's
content is a ContentFault; what lies in the server or the network is asked again, and stops the run when it lasts.
"""

from __future__ import annotations

import asyncio
import difflib
import json
import os
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

import httpx

from pipeline.chat import THINKING_SWITCHES, answer_of
from pipeline.engine_settings import EngineSettings
from pipeline.errors import ContentFault, InputError, RunStopped
from pipeline.records import Completion, Message, Prompt, Reason, Request, Sampling

T = TypeVar("T")
Note = Callable[..., None]

REASKS = 3  # how often a free answer that is none of the choices is asked for again
FREE_TOKENS = 16  # least room for a free answer to a choice: "**Yes**, because" is one too
THOUGHT_TOKENS = 2048  # least room for it where the server thinks before it answers
LONGEST_BACKOFF_S, LONGEST_RETRY_AFTER_S = 60.0, 600.0
NOTE_EVERY_S = 10.0
# vLLM's server drops an idle connection after 5 s. To drop it first means never to send on one that is going away.
KEEPALIVE_S = 3.0
# Beyond OpenAI's own: what each is where it is off. A top_k of -1 is so everywhere, 0 is not.
EXTRAS: dict[str, float] = {"top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0}
PROBE, PROBE_CHOICES = "Name an animal.", ("vexillum", "ombrometer")  # no answer to it but by constraint
TROUBLE = frozenset({408, 409, 425, 429, *range(500, 600)}) - {501}
_DRESS = " \t\r\n\"'`*_“”‘’«»("  # what may stand before a choice
_sleep = asyncio.sleep  # where tests look on


@dataclass(frozen=True, slots=True)
class Server:
    """What an endpoint is, as `start` found it.

    `context` in tokens where it says so (vLLM's does); `choices`: answers can be constrained to given choices;
    `extras`: it takes top_k, min_p and repetition_penalty; `usage`: it counts tokens (else they are 0 everywhere);
    `thinks`: it thinks before it answers, even to the smallest question.
    """

    url: str
    model: str
    context: int | None
    choices: bool
    extras: bool
    usage: bool
    thinks: bool

    def __str__(self) -> str:
        yes = {True: "yes", False: "no"}
        line = f"{self.url}: model {self.model}, context {self.context or 'unknown'}, constrained choices "
        line += f"{yes[self.choices]}, top_k, min_p and repetition_penalty {yes[self.extras]}, token counts "
        return line + yes[self.usage] + (", thinks before it answers" if self.thinks else "")


class _Trouble(Exception):
    """Trouble of the server or the network, not of the request: ask again, but not before `wait_s` seconds."""

    def __init__(self, kind: str, detail: str, wait_s: float = 0.0) -> None:
        super().__init__(kind, detail)
        self.kind, self.detail, self.wait_s = kind, detail, wait_s


class OpenAIEngine:
    """An `Engine` over one endpoint: `start` once, then `generate`, then `close`. Lives in one event loop.

    `backoff_s` is the first wait before another try; it doubles, up to a minute. `note(kind, **values)` is told of
    tries that failed, a few of them; `retries` counts them all by kind: a status, timeout, connect, cut or garbage.
    """

    def __init__(self, settings: EngineSettings, note: Note | None = None, *, backoff_s: float = 1.0) -> None:
        self._settings, self._endpoint = settings, settings.openai
        self._url = (settings.openai.base_url or "").rstrip("/")
        self._note = note or (lambda *_, **__: None)
        self._backoff_s = backoff_s
        self._slots = asyncio.Semaphore(settings.openai.concurrency)
        self._key = os.environ.get(settings.openai.api_key_env, "").strip()
        self._client: httpx.AsyncClient | None = None
        self._server: Server | None = None
        self._noted_at = 0.0
        self.retries: Counter[str] = Counter()

    @property
    def capacity(self) -> int:
        return self._endpoint.concurrency

    async def start(self, samplings: Sequence[Sampling] = ()) -> Server:
        """Reach the server and find what it takes. `samplings` are those that will be asked for.

        Raises InputError where nothing listens, the key or the model name is wrong, it is no OpenAI-compatible server,
        or it does not take what a sampling sets; RunStopped where it is in trouble for too long.
        """
        self._client = self._make_client()
        server = await self._probe(await self._ask("GET", "/models", None, self._read_models))
        for name, value in (extra for sampling in samplings for extra in _extras(sampling).items()):
            if not server.extras and value != EXTRAS[name]:
                mend = f"leave {name} at its default, or use a server that takes it, as vLLM's does"
                raise InputError(f"{self._url} does not take {name}, and it is set to {value}; {mend}")
        self._server = server
        return server

    async def generate(self, request: Request) -> Completion:
        """Answer one request. Cancelling the call closes its connection.

        Raises ContentFault where the server refuses the request, RunStopped where it is in trouble for too long, and
        InputError where it no longer knows the key or the model.
        """
        assert self._server is not None, "start() comes before generate()"
        if request.choices:
            return await self._choose(request, self._server)
        return await self._call(request.prompt, request.sampling, (), self._server.extras)

    async def close(self) -> None:
        """Close all connections. May follow a failed start; may be called twice."""
        if self._client is not None:
            await self._client.aclose()

    def _make_client(self) -> httpx.AsyncClient:
        if self._key and not (self._key.isascii() and self._key.isprintable() and " " not in self._key):
            raise InputError(f"{self._endpoint.api_key_env} holds what cannot be a key; set it to the key alone")
        many, bearer = self._endpoint.concurrency, {"Authorization": f"Bearer {self._key}"} if self._key else {}
        try:
            json.dumps([self._endpoint.extra_body, self._settings.chat_template_kwargs], allow_nan=False)
            if (httpx.URL(self._url).port or 80) > 65535:
                raise ValueError("the port of its base_url is above 65535")
            return httpx.AsyncClient(
                headers={"Content-Type": "application/json", **bearer},
                timeout=None,  # ours is over the whole request
                limits=httpx.Limits(max_connections=many, max_keepalive_connections=many, keepalive_expiry=KEEPALIVE_S),
            )
        except (httpx.InvalidURL, ValueError, TypeError, ImportError, OSError) as error:
            mend = "mend engine.openai, engine.chat_template_kwargs, or the variables for proxies and certificates"
            raise InputError(f"the endpoint cannot be asked ({self._plain(str(error))}); {mend}") from None

    def _read_models(self, response: httpx.Response) -> int | None:
        """The context of the model asked for, where the server says so. Some servers have no list of models."""
        if response.status_code in (404, 405):
            return None
        try:
            self._judge(response)
            listed = response.json()
            listed = listed["data"] if isinstance(listed, dict) else listed
            lengths = {str(card["id"]): card.get("max_model_len") for card in listed}
        except (ContentFault, ValueError, LookupError, TypeError, AttributeError):
            what = f"its /models answers {response.status_code} ({self._words(response)})"
            mend = 'set engine.openai.base_url to where its API begins, mostly an address that ends in "/v1"'
            raise InputError(f"{self._url} is not an OpenAI-compatible server: {what}; {mend}") from None
        wanted = self._settings.model or ""
        if wanted not in lengths:
            near = sorted(lengths, key=lambda name: -difflib.SequenceMatcher(None, wanted, name).ratio())
            has = ", ".join(near[:10]) + (f" and {len(near) - 10} more" if len(near) > 10 else "") or "none"
            raise InputError(f"{self._url} has no model {wanted!r}; set engine.model to one that it has: {has}")
        return lengths[wanted] if type(lengths[wanted]) is int else None

    async def _probe(self, context: int | None) -> Server:
        """One small request in the style of the run, with less and less beside it until the server takes it."""
        chat = self._settings.style != "completion"
        system = () if self._settings.system is None else (Message("system", self._settings.system),)
        prompt: Prompt = (*system, Message("user", PROBE)) if chat else PROBE
        sampling = Sampling(FREE_TOKENS, 0.0, 1.0, 0, 0.0, 0.0, 0.0, 1.0, ())
        for extras, choices in ((True, PROBE_CHOICES), (True, ()), (False, PROBE_CHOICES), (False, ())):
            try:
                answer = await self._call(prompt, sampling, choices, extras)
            except ContentFault as fault:
                refusal = fault.detail
                continue
            thinks = answer_of(answer.text) != answer.text
            honoured, counts = answer.text.strip() in choices, answer.prompt_tokens > 0
            return Server(self._url, self._settings.model or "", context, honoured, extras, counts, thinks)
        mend = "mend engine.system, engine.chat_template_kwargs or engine.openai.extra_body, or set engine.style = "
        mend += '"completion"' if chat else '"chat"'
        raise InputError(f"{self._url} refuses even a small request ({refusal}); {mend}")

    def _body(self, prompt: Prompt, sampling: Sampling, choices: tuple[str, ...], extras: bool) -> dict[str, Any]:
        """A request's body, every knob explicit: a server may have defaults from the model's files. No seed."""
        body: dict[str, Any] = {"model": self._settings.model}
        if isinstance(prompt, str):
            body["prompt"] = prompt
        else:
            body["messages"] = [{"role": message.role, "content": message.content} for message in prompt]
            variables = dict(self._settings.chat_template_kwargs)
            if choices:  # an answer that is constrained does not begin with a thought
                variables |= {name: False for name in THINKING_SWITCHES if name in variables}
            body |= {"chat_template_kwargs": variables} if variables else {}
        for name in ("max_tokens", "temperature", "top_p", "presence_penalty", "frequency_penalty"):
            body[name] = getattr(sampling, name)
        body |= {"stop": list(sampling.stop)} if sampling.stop else {}
        body |= _extras(sampling) if extras else {}
        body |= {"structured_outputs": {"choice": list(choices)}} if choices else {}
        return body | {"n": 1, "stream": False} | self._endpoint.extra_body

    async def _call(self, prompt: Prompt, sampling: Sampling, choices: tuple[str, ...], extras: bool) -> Completion:
        path = "/completions" if isinstance(prompt, str) else "/chat/completions"
        return await self._ask("POST", path, self._body(prompt, sampling, choices, extras), self._read_completion)

    async def _choose(self, request: Request, server: Server) -> Completion:
        """An answer that is one of the choices, constrained or asked for until it fits. Tokens of all asks add up."""
        prompt, sampling, prompt_tokens, completion_tokens = request.prompt, request.sampling, 0, 0
        room = min(THOUGHT_TOKENS, (server.context or THOUGHT_TOKENS * 2) // 2) if server.thinks else FREE_TOKENS
        for asked in range(REASKS + 1):
            if asked or not server.choices:
                sampling = replace(sampling, max_tokens=max(sampling.max_tokens, room))
            answer = await self._call(prompt, sampling, request.choices if server.choices else (), server.extras)
            prompt_tokens += answer.prompt_tokens
            completion_tokens += answer.completion_tokens
            said = answer_of(answer.text)
            if said is None:
                break
            if (choice := matching_choice(said, request.choices)) is not None:
                answer = replace(answer, text=choice, finish_reason="stop")
                break
            if isinstance(prompt, str):
                sampling = replace(sampling, temperature=max(sampling.temperature, 0.7))
            else:
                again = f"Answer with exactly one of: {', '.join(choice.strip() for choice in request.choices)}."
                prompt = (*prompt, Message("assistant", said or "(no answer)"), Message("user", again))
        return replace(answer, prompt_tokens=prompt_tokens, completion_tokens=completion_tokens)

    async def _ask(self, method: str, path: str, body: dict[str, Any] | None, read: Callable[[httpx.Response], T]) -> T:
        """Ask, and again where there is trouble. No slot is held while it waits.

        A wait is doubled each time, and spread by the content of the request, so that not all come back at once.
        """
        assert self._client is not None
        attempts, content = self._endpoint.attempts, None if body is None else json.dumps(body)
        for attempt in range(1, attempts + 1):
            try:
                async with self._slots, asyncio.timeout(self._endpoint.timeout_s):
                    response = await self._client.request(method, self._url + path, content=content)
                return read(response)
            except TimeoutError:
                fault = _Trouble("timeout", f"no answer within {self._endpoint.timeout_s:g} s")
            except httpx.RequestError as error:
                kind = "connect" if isinstance(error, httpx.ConnectError) else "cut"
                fault = _Trouble(kind, f"the connection failed ({self._plain(str(error)) or type(error).__name__})")
                if kind == "connect" and self._server is None:
                    mend = "start the server there, or mend engine.openai.base_url"
                    raise InputError(f"{self._url}: {fault.detail}; {mend}") from None
            except _Trouble as trouble:
                fault = trouble
            if attempt < attempts:
                spread = 0.5 + 0.5 * random.Random(f"{attempt}/{content}").random()
                wait_s = max(spread * min(LONGEST_BACKOFF_S, self._backoff_s * 2 ** (attempt - 1)), fault.wait_s)
                self.retries[fault.kind] += 1
                if self.retries[fault.kind] == 1 or time.monotonic() - self._noted_at >= NOTE_EVERY_S:
                    self._noted_at, sums = time.monotonic(), dict(self.retries)
                    self._note("endpoint_retry", fault=fault.kind, wait_s=round(wait_s, 1), retries=sums)
                await _sleep(wait_s)
        what = f"{httpx.URL(self._url).host} gave no answer in {attempts} attempt(s), at last: {fault.detail}"
        raise RunStopped(f"{what}; see to the server, and run the same command again to go on")

    def _judge(self, response: httpx.Response) -> None:
        """Raise what a status other than 200 means."""
        status, words, name = response.status_code, self._words(response), self._endpoint.api_key_env
        if status in TROUBLE:
            raise _Trouble(str(status), f"{status} ({words})", _retry_after(response.headers.get("retry-after", "")))
        if status in (400, 413, 422):
            raise ContentFault(Reason.REQUEST_REFUSED, words)
        if status in (401, 403):
            what = f"refuses the key in {name}" if self._key else f"wants a key, and {name} is not set"
            mend = f"set {name} to the server's key, or name another variable in engine.openai.api_key_env"
            raise InputError(f"{self._url} {what} ({status}); {mend}")
        if not response.is_success:
            mend = 'look at engine.openai.base_url (does it end in "/v1"?), engine.model and engine.style'
            raise InputError(f"{response.request.url} answers {status} ({words}); {mend}")

    def _read_completion(self, response: httpx.Response) -> Completion:
        self._judge(response)
        try:
            body = response.json()
            choice = body["choices"][0]
            ended = choice["finish_reason"]
            if not isinstance(ended, str) or ended in ("abort", "error"):  # vLLM's words for its own end
                raise ValueError(ended)
            if ended not in ("stop", "length"):
                raise ContentFault(Reason.REQUEST_REFUSED, self._plain(f"the server ended the answer with {ended!r}"))
            # A server that cuts a character in two leaves half of a surrogate pair, which no file can hold.
            text = _chat_text(choice["message"], ended) if "message" in choice else choice["text"]
            text = text.encode("utf-8", "replace").decode("utf-8")
        except (ValueError, LookupError, TypeError, AttributeError):
            raise _Trouble("garbage", f"an answer that is no completion ({self._words(response)})") from None
        usage = body.get("usage")
        counts = [usage.get(f"{kind}_tokens") if isinstance(usage, dict) else 0 for kind in ("prompt", "completion")]
        return Completion(text, ended, *(count if type(count) is int else 0 for count in counts))

    def _words(self, response: httpx.Response) -> str:
        """What a server says where it does not answer."""
        try:
            said = response.json()
        except ValueError:
            said = response.text
        for name in ("error", "message", "detail"):
            said = said.get(name, said) if isinstance(said, dict) else said
        return self._plain(said if isinstance(said, str) else json.dumps(said)) or "no words"

    def _plain(self, text: str) -> str:
        """One line of bounded length without the key, which some servers repeat."""
        text = " ".join((text.replace(self._key, "***") if self._key else text).split())
        return text if len(text) <= 300 else text[:297] + "..."


def _extras(sampling: Sampling) -> dict[str, float]:
    return {name: getattr(sampling, name) or off for name, off in EXTRAS.items()}


def matching_choice(said: str, choices: Sequence[str]) -> str | None:
    """The choice that an answer is, or begins with before other words, in any case and dress; None for none."""
    bare = said.lstrip(_DRESS).casefold()
    for choice in sorted(choices, key=len, reverse=True):
        wanted = choice.strip().casefold()
        if bare.startswith(wanted) and not bare[len(wanted) : len(wanted) + 1].isalnum():
            return choice
    return None


def _chat_text(message: dict[str, Any], ended: str) -> str:
    """A chat's answer as its model wrote it: a thought that the server has parted from it is put back in front."""
    content: str = message["content"] if message["content"] is not None else message.get("refusal") or ""
    thought = message.get("reasoning_content") or message.get("reasoning")
    if not thought or not isinstance(thought, str):
        return content
    return f"<think>{thought}" if ended == "length" and not content else f"<think>{thought}</think>{content}"


def _retry_after(value: str) -> float:
    """Seconds that a Retry-After header asks for, as a number or a date; 0 where it says nothing, bounded above."""
    with suppress(ValueError):
        if value.strip().isdecimal():
            return min(float(value), LONGEST_RETRY_AFTER_S)
        when = parsedate_to_datetime(value)
        seconds = (when.replace(tzinfo=when.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
        return min(max(seconds, 0.0), LONGEST_RETRY_AFTER_S)
    return 0.0
