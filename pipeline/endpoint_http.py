"""One OpenAI-compatible endpoint over HTTP: how it is asked, how it answers, and when it is asked again.

What lies in a request's content is a ContentFault; what lies in the server or the network is asked again, and stops the
run when it lasts. A server that asks for patience slows the run: then nothing more leaves for a while.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

import httpx

from pipeline.chat import THINKING_SWITCHES
from pipeline.engine_settings import EngineSettings
from pipeline.errors import ContentFault, InputError, RunStopped
from pipeline.records import Completion, Prompt, Reason, RequestKey, Sampling
from pipeline.turns import FIRST, Turns
from pipeline.weighing import Position, read_positions

T = TypeVar("T")
Note = Callable[..., None]

CONNECT_S = 10.0  # what does not take a connection by then is not there
LONGEST_BACKOFF_S, LONGEST_RETRY_AFTER_S = 60.0, 600.0
LONGEST_SPREAD_S = 10.0  # over which requests leave that have waited together
# While the server is being looked at somebody waits before a terminal, and a wrong address must not look like a run.
START_REQUEST_S, START_RETRY_AFTER_S, START_TRIES = 30.0, 30.0, 3
NOTE_EVERY_S = 10.0
# vLLM's server drops an idle connection after 5 s. To drop it first means never to send on one that is going away.
KEEPALIVE_S = 3.0
# Beyond OpenAI's own: what each is where it is off. A top_k of -1 is so everywhere, 0 is not.
EXTRAS: dict[str, float] = {"top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0}
TROUBLE = frozenset({408, 409, 425, 429, *range(500, 600)}) - {501}
_sleep, _now = asyncio.sleep, time.monotonic  # where tests look on


@dataclass(frozen=True, slots=True)
class Server:
    """What an endpoint is and takes, as the start found it; requests are written for it.

    `context` in tokens where it says so (vLLM's does); `choices`: answers can be constrained to given choices;
    `extras`: it takes top_k, min_p and repetition_penalty; `usage`: it counts tokens (else they are 0 everywhere);
    `thinks`: it thinks before it answers, even to the smallest question; `thinking_off`: it did, until asked not to, as
    every request now does; `limit`: its name for max_tokens; `top`: of how many tokens it tells the probability at each
    position of an answer, 0 for none, None where nothing will be weighed and it was not asked.
    """

    url: str
    model: str
    context: int | None
    choices: bool
    extras: bool
    usage: bool
    thinks: bool
    thinking_off: bool = False
    limit: str = "max_tokens"
    top: int | None = None

    def __str__(self) -> str:
        yes = {True: "yes", False: "no"}
        line = f"{self.url}: model {self.model}, context {self.context or 'unknown'}, constrained choices "
        line += f"{yes[self.choices]}, top_k, min_p and repetition_penalty {yes[self.extras]}, token counts "
        line += yes[self.usage] + (", thinks before it answers" if self.thinks else "")
        line += ", thinking turned off" if self.thinking_off else ""
        if self.top is None:
            return line
        return line + (f", token probabilities of the first {self.top}" if self.top else ", token probabilities no")


class Trouble(Exception):
    """Trouble of the server or the network, not of the request: ask again, but not before `wait_s` seconds.

    `patience`: the server asks for it from all requests, not from this one alone.
    """

    def __init__(self, kind: str, detail: str, wait_s: float = 0.0, *, patience: bool = False) -> None:
        super().__init__(kind, detail)
        self.kind, self.detail, self.wait_s, self.patience = kind, detail, wait_s, patience


class Endpoint:
    """The requests to one server, some at a time, each asked until it is answered. Lives in one event loop.

    Until `started` is set it is short of patience. `fresh`: nothing has come from this server yet, so that one which
    cannot be reached then is a wrong address; on a resume it is a server that is away.
    """

    def __init__(self, settings: EngineSettings, note: Note | None, *, fresh: bool, backoff_s: float) -> None:
        self.settings, self._endpoint = settings, settings.openai
        self.url = (settings.openai.base_url or "").rstrip("/")
        self.started = False
        self.retries: Counter[str] = Counter()
        self._note = note or (lambda *_, **__: None)
        self._fresh, self._backoff_s = fresh, backoff_s
        self._turns = Turns(settings.openai.concurrency)
        self._key = os.environ.get(settings.openai.api_key_env, "").strip()
        self._client: httpx.AsyncClient | None = None
        self._noted_at = 0.0
        self._answered = 0  # requests, so far
        self._not_before = 0.0  # by the clock of `_now`: until then the server has asked for patience
        self._pauses = self._pauses_in_a_row = 0  # for patience: so far, and since the last answer

    def open(self) -> None:
        """Make ready to ask. Raises InputError where settings or surroundings do not allow that."""
        if self._key and not (self._key.isascii() and self._key.isprintable() and " " not in self._key):
            raise InputError(f"{self._endpoint.api_key_env} holds what cannot be a key; set it to the key alone")
        many, bearer = self._endpoint.concurrency, {"Authorization": f"Bearer {self._key}"} if self._key else {}
        try:
            json.dumps([self._endpoint.extra_body, self.settings.chat_template_kwargs], allow_nan=False)
            if (httpx.URL(self.url).port or 80) > 65535:
                raise ValueError("the port of its base_url is above 65535")
            self._client = httpx.AsyncClient(
                headers={"Content-Type": "application/json", **bearer},
                timeout=httpx.Timeout(None, connect=CONNECT_S),  # ours is over the whole request
                limits=httpx.Limits(max_connections=many, max_keepalive_connections=many, keepalive_expiry=KEEPALIVE_S),
            )
        except (httpx.InvalidURL, ValueError, TypeError, ImportError, OSError) as error:
            mend = "mend engine.openai, engine.chat_template_kwargs, or the variables for proxies and certificates"
            raise InputError(f"the endpoint cannot be asked ({self.plain(str(error))}); {mend}") from None

    async def close(self) -> None:
        """Close all connections. May be called at any time, and twice."""
        if self._client is not None:
            await self._client.aclose()

    async def complete(
        self,
        server: Server,
        prompt: Prompt,
        sampling: Sampling,
        choices: tuple[str, ...] = (),
        order: RequestKey = FIRST,
    ) -> Completion:
        """One answer, asked for as this server takes it, in its turn. Raises what `ask` does."""
        body = self._body(server, prompt, sampling, choices)
        return await self.ask("POST", _path(prompt), body, self._read_completion, order)

    async def complete_with_positions(
        self, server: Server, prompt: Prompt, sampling: Sampling, order: RequestKey = FIRST
    ) -> tuple[Completion, tuple[Position, ...]]:
        """The same without a constraint, and the probabilities at its positions; none where the server gave none."""
        top = server.top or 0
        told = {"logprobs": top} if isinstance(prompt, str) else {"logprobs": True, "top_logprobs": top}
        body = self._body(server, prompt, sampling, (), told)

        def read(response: httpx.Response) -> tuple[Completion, tuple[Position, ...]]:
            completion = self._read_completion(response)
            return completion, read_positions(response.json()["choices"][0].get("logprobs"))

        return await self.ask("POST", _path(prompt), body, read, order)

    def _body(
        self,
        server: Server,
        prompt: Prompt,
        sampling: Sampling,
        choices: tuple[str, ...],
        told: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        """A request's body, every knob explicit: a server may have defaults from the model's files. No seed.

        `told` are the fields with which the probabilities of tokens are asked for.
        """
        body: dict[str, Any] = {"model": self.settings.model}
        if isinstance(prompt, str):
            body["prompt"] = prompt
        else:
            body["messages"] = [{"role": message.role, "content": message.content} for message in prompt]
            variables = dict.fromkeys(THINKING_SWITCHES, False) if server.thinking_off else {}
            variables |= self.settings.chat_template_kwargs
            if choices or told:  # an answer that is constrained or weighed does not begin with a thought
                variables |= {name: False for name in THINKING_SWITCHES if name in variables}
            body |= {"chat_template_kwargs": variables} if variables else {}
        body[server.limit] = sampling.max_tokens
        for name in ("temperature", "top_p", "presence_penalty", "frequency_penalty"):
            body[name] = getattr(sampling, name)
        body |= {"stop": list(sampling.stop)} if sampling.stop else {}
        body |= extras_of(sampling) if server.extras else {}
        body |= {"structured_outputs": {"choice": list(choices)}} if choices else {}
        return body | (told or {}) | {"n": 1, "stream": False} | self._endpoint.extra_body

    async def ask(
        self,
        method: str,
        path: str,
        body: dict[str, Any] | None,
        read: Callable[[httpx.Response], T],
        order: RequestKey = FIRST,
    ) -> T:
        """Ask, and again where there is trouble. No slot is held by a request that waits for itself alone.

        A wait is doubled each time, and spread by the content of the request, so that not all come back at once. A
        server that asks for patience may do so for ever, as long as it answers others meanwhile.

        Raises ContentFault where the server refuses the content, RunStopped where the trouble lasts, and InputError
        where key, model or address are wrong.
        """
        attempts = self._endpoint.attempts if self.started else min(self._endpoint.attempts, START_TRIES)
        content = None if body is None else json.dumps(body)
        failed = in_vain = 0  # tries that failed; tries in a row that met no patience while nothing was answered
        answered = self._answered
        while True:
            try:
                async with self._turns.turn(order):
                    await self._wait_for_all(content)
                    pauses = self._pauses
                    answer = read(await self._send(method, path, content))
                self._answered += 1
                self._pauses_in_a_row = 0
                return answer
            except Trouble as trouble:
                fault = trouble
            if fault.patience:
                in_vain = in_vain + 1 if self._answered == answered else 0
            else:
                failed += 1
            if failed + in_vain >= attempts:
                what = f"{httpx.URL(self.url).host} gave no answer in {attempts} attempt(s), at last: {fault.detail}"
                raise RunStopped(f"{what}; see to the server, and run the same command again to go on")
            answered = self._answered
            if fault.patience:
                self._pause(fault, first=pauses == self._pauses)
            else:
                spread = 0.5 + 0.5 * random.Random(f"{failed}/{content}").random()
                wait_s = max(spread * self._backoff(failed), fault.wait_s)
                self._count(fault.kind, wait_s)
                await _sleep(wait_s)

    def _backoff(self, tries: int) -> float:
        return min(LONGEST_BACKOFF_S, self._backoff_s * 2.0 ** min(tries - 1, 30))

    def _pause(self, fault: Trouble, *, first: bool) -> None:
        """Let nothing leave for a while; `first` of the requests that left since the last pause to be told to wait."""
        if first:
            self._pauses += 1
            self._pauses_in_a_row += 1
        wait_s = max(self._backoff(self._pauses_in_a_row) if first else 0.0, fault.wait_s)
        self._not_before = max(self._not_before, _now() + wait_s)
        self._count(fault.kind, wait_s)

    async def _wait_for_all(self, content: str | None) -> None:
        """Wait out the pause of all requests, and then a little, each its own. Its slot is of no use to another."""
        while (left_s := self._not_before - _now()) > 0:
            share = random.Random(f"{self._pauses}/{content}").random()
            await _sleep(left_s + share * min(left_s, LONGEST_SPREAD_S))

    def _count(self, kind: str, wait_s: float) -> None:
        self.retries[kind] += 1
        if self.retries[kind] == 1 or _now() - self._noted_at >= NOTE_EVERY_S:
            self._noted_at = _now()
            self._note("endpoint_retry", fault=kind, wait_s=round(wait_s, 1), retries=dict(self.retries))

    async def _send(self, method: str, path: str, content: str | None) -> httpx.Response:
        """One try. Raises Trouble where there is no response, and InputError where there never was a server."""
        assert self._client is not None
        limit_s = self._endpoint.timeout_s if self.started else min(self._endpoint.timeout_s, START_REQUEST_S)
        try:
            async with asyncio.timeout(limit_s):
                return await self._client.request(method, self.url + path, content=content)
        except TimeoutError:
            raise Trouble("timeout", f"no answer within {limit_s:g} s") from None
        except httpx.RequestError as error:
            away = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)
            detail = f"the connection failed ({self.plain(str(error)) or type(error).__name__})"
            if away and self._fresh and not self.started:
                mend = "start the server there, or mend engine.openai.base_url"
                raise InputError(f"{self.url}: {detail}; {mend}") from None
            raise Trouble("connect" if away else "cut", detail) from None

    def judge(self, response: httpx.Response) -> None:
        """Raise what a status other than 200 means."""
        status, words, name = response.status_code, self.words(response), self._endpoint.api_key_env
        if status in TROUBLE:
            asked = response.headers.get("retry-after", "")
            wait_s = min(_retry_after(asked), LONGEST_RETRY_AFTER_S if self.started else START_RETRY_AFTER_S)
            raise Trouble(
                str(status), f"{status} ({words})", wait_s, patience=status == 429 or (status == 503 and asked != "")
            )
        if status in (400, 413, 422):
            raise ContentFault(Reason.REQUEST_REFUSED, words)
        if status in (401, 403):
            what = f"refuses the key in {name}" if self._key else f"wants a key, and {name} is not set"
            mend = f"set {name} to the server's key, or name another variable in engine.openai.api_key_env"
            raise InputError(f"{self.url} {what} ({status}); {mend}")
        if not response.is_success:
            mend = 'look at engine.openai.base_url (does it end in "/v1"?), engine.model and engine.style'
            raise InputError(f"{response.request.url} answers {status} ({words}); {mend}")

    def _read_completion(self, response: httpx.Response) -> Completion:
        self.judge(response)
        try:
            body = response.json()
            choice = body["choices"][0]
            ended = choice["finish_reason"]
            if not isinstance(ended, str) or ended in ("abort", "error"):  # vLLM's words for its own end
                raise ValueError(ended)
            if ended not in ("stop", "length"):
                raise ContentFault(Reason.REQUEST_REFUSED, self.plain(f"the server ended the answer with {ended!r}"))
            # A server that cuts a character in two leaves half of a surrogate pair, which no file can hold.
            text = _chat_text(choice["message"], ended) if "message" in choice else choice["text"]
            text = text.encode("utf-8", "replace").decode("utf-8")
        except (ValueError, LookupError, TypeError, AttributeError):
            raise Trouble("garbage", f"an answer that is no completion ({self.words(response)})") from None
        usage = body.get("usage")
        return Completion(text, ended, _count(usage, "prompt_tokens"), _count(usage, "completion_tokens"))

    def words(self, response: httpx.Response) -> str:
        """What a server says where it does not answer."""
        try:
            said = response.json()
        except ValueError:
            said = response.text
        for name in ("error", "message", "detail"):
            said = said.get(name, said) if isinstance(said, dict) else said
        return self.plain(said if isinstance(said, str) else json.dumps(said)) or "no words"

    def plain(self, text: str) -> str:
        """One line of bounded length without the key, which some servers repeat."""
        text = " ".join((text.replace(self._key, "***") if self._key else text).split())
        return text if len(text) <= 300 else text[:297] + "..."


def _path(prompt: Prompt) -> str:
    return "/completions" if isinstance(prompt, str) else "/chat/completions"


def _count(usage: Any, name: str) -> int:
    """A count of tokens; 0 where a server gives none."""
    count = usage.get(name) if isinstance(usage, dict) else 0
    return count if type(count) is int else 0


def extras_of(sampling: Sampling) -> dict[str, float]:
    """What a sampling sets beyond OpenAI's own knobs, by name."""
    return {name: getattr(sampling, name) or off for name, off in EXTRAS.items()}


def _chat_text(message: dict[str, Any], ended: str) -> str:
    """A chat's answer as its model wrote it: a thought that the server has parted from it is put back in front."""
    content: str = message["content"] if message["content"] is not None else message.get("refusal") or ""
    thought = message.get("reasoning_content") or message.get("reasoning")
    if not thought or not isinstance(thought, str):
        return content
    return f"<think>{thought}" if ended == "length" and not content else f"<think>{thought}</think>{content}"


def _retry_after(value: str) -> float:
    """Seconds that a Retry-After header asks for, as a number or a date; 0 where it says nothing."""
    with suppress(ValueError):
        if value.strip().isdecimal():
            return float(value)
        when = parsedate_to_datetime(value)
        return max((when.replace(tzinfo=when.tzinfo or UTC) - datetime.now(UTC)).total_seconds(), 0.0)
    return 0.0
