"""A fake OpenAI-compatible server. The project's tests use it, and so may yours.

with ScriptedEndpoint() as server:           # plausible answers, each a function of the request's body alone
    ...                                      # a run with engine.openai.base_url = server.url
"""

from __future__ import annotations

import json
import math
import random
import re
import select
import socket
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

from pipeline.prompting import EXAMPLE_LEAD, LABEL_LEAD, SCORE_LEAD
from pipeline.records import Message, Prompt, Request, RequestKey, Sampling, Stage
from pipeline.testing import scripted_answer, stream_of

Body = dict[str, Any]
Positions = list[dict[str, float]]
EXTRAS = frozenset({"top_k", "min_p", "repetition_penalty"})
ASKED_AGAIN = "Answer with exactly one of"  # how the engine asks again for one of some choices
DIGITS = ("1", "2", "3", "4", "5")
ROUTES = {"/v1/completions": "prompt", "/v1/chat/completions": "messages"}


@dataclass(frozen=True, slots=True)
class Fault:
    """What the server does in place of an answer: `reply` with any status, headers and body (JSON, unless it is a text
    already), `cut` the connection in the middle of an answer, or be in `silence` until the client goes away."""

    status: int = 500
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Any = "a scripted fault"
    kind: str = "reply"


CUT = Fault(kind="cut")
SILENCE = Fault(kind="silence")
GARBAGE = Fault(status=200, body="<html>It works!</html>")


@dataclass(frozen=True, slots=True)
class Received:
    """A request as it came in. `body` is None for a GET. The header names are in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: Body | None


class ScriptedEndpoint:
    """A server on 127.0.0.1, for as long as its `with` block lasts, in threads of its own.

    `answer` makes a text of a request's body. With `choices` it takes vLLM's `structured_outputs`, with `extras` top_k,
    min_p and repetition_penalty; what it does not take it refuses with 400 where it is `strict`, and overlooks
    otherwise. `refuses`: further fields that it refuses, each with its words. `key` is asked for where set; `context`
    is vLLM's `max_model_len`; without `usage` it counts no tokens. `faults(n)` is what happens to request n, the first
    being 0 and a GET one too; None is an ordinary answer.

    It tells the probabilities of `logprobs` tokens at each position at most, and refuses more; with 0 it takes the
    fields as those above. `tokens` makes them of a body that asks for them: for each position the tokens and their
    probabilities, of which the most probable one stands there.

    `received` holds all requests in the order they came, `most_in_flight` the most that it worked on at one time, and
    `dropped` how many clients went away during a silence.
    """

    def __init__(
        self,
        *,
        model: str = "scripted",
        key: str | None = None,
        choices: bool = True,
        extras: bool = True,
        strict: bool = True,
        refuses: Mapping[str, str] | None = None,
        usage: bool = True,
        context: int | None = 8192,
        logprobs: int = 20,
        tokens: Callable[[Body], Positions] | None = None,
        answer: Callable[[Body], str] | None = None,
        faults: Callable[[int], Fault | None] | None = None,
    ) -> None:
        self.model, self.key, self.context = model, key, context
        self.choices, self.extras, self.strict, self.usage = choices, extras, strict, usage
        self.refuses = refuses or {}
        self.logprobs = logprobs
        self.answer = answer or plausible_answer
        self.tokens = tokens or (lambda body: plausible_tokens(body, self.answer))
        self.faults = faults or (lambda _: None)
        self.received: list[Received] = []
        self.most_in_flight = self.dropped = self._in_flight = 0
        self._lock = threading.Lock()
        self._stopping = threading.Event()

    @property
    def url(self) -> str:
        """Where its API begins: engine.openai.base_url."""
        return f"http://127.0.0.1:{self._server.server_port}/v1"

    @property
    def bodies(self) -> list[Body]:
        """The bodies of all POST requests so far, in the order they came."""
        return [each.body for each in self.received if each.body is not None]

    def __enter__(self) -> ScriptedEndpoint:
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.endpoint = self
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        self._stopping.set()
        self._server.shutdown()
        self._server.close_connections()
        self._server.server_close()  # waits for the threads of the connections
        self._thread.join()

    def take(self, request: Received) -> Fault | None:
        """Note a request that begins; what is to happen to it."""
        with self._lock:
            self.received.append(request)
            self._in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self._in_flight)
            return self.faults(len(self.received) - 1)

    def end(self) -> None:
        """Note that a request has ended."""
        with self._lock:
            self._in_flight -= 1

    def wait_in_silence(self, connection: socket.socket) -> None:
        """Wait until the client goes away or the server stops."""
        while not self._stopping.is_set():
            if select.select([connection], [], [], 0.02)[0]:
                self.dropped += 1
                return

    def respond(self, request: Received) -> tuple[int, dict[str, str], Any]:
        """A status, headers and a body, as vLLM's server gives them."""
        if self.key is not None and request.headers.get("authorization") != f"Bearer {self.key}":
            return 401, {}, {"error": "Unauthorized"}
        if request.method == "GET" and request.path == "/v1/models":
            card = {"id": self.model, "object": "model", "max_model_len": self.context}
            return 200, {}, {"object": "list", "data": [card]}
        body = request.body
        if body is None or ROUTES.get(request.path) not in body:
            return 404, {}, {"detail": "Not Found"}
        if body.get("model") != self.model:
            return _error(404, f"The model `{body.get('model')}` does not exist.")
        taken = EXTRAS if self.extras else frozenset()
        taken |= {"structured_outputs"} if self.choices else set()
        taken |= {"logprobs", "top_logprobs"} if self.logprobs else set()
        if unknown := sorted((EXTRAS | {"structured_outputs", "logprobs", "top_logprobs"}) & body.keys() - taken):
            if self.strict:
                return _error(400, f"Unrecognized request argument supplied: {unknown[0]}")
            body = {name: value for name, value in body.items() if name not in unknown}
        for name in self.refuses.keys() & body.keys():
            return _error(400, self.refuses[name])
        if _told(body) > self.logprobs:
            return _error(400, f"logprobs must be at most {self.logprobs}")
        return 200, {}, self._completion(body)

    def _completion(self, body: Body) -> dict[str, Any]:
        positions = self.tokens(body)[: body.get("max_tokens", 1000)] if "logprobs" in body else []
        text = "".join(max(each, key=each.__getitem__) for each in positions) if positions else self.answer(body)
        choices = body.get("structured_outputs", {}).get("choice", [])
        if choices and text not in choices:
            text = random.Random(json.dumps(body)).choice(choices)
        chat = "messages" in body
        content: dict[str, Any] = {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
        content |= {"logprobs": _logprobs(positions, _told(body), chat=chat)} if positions else {}
        asked, answered = len(_last_text(_prompt_of(body)).split()), len(text.split())
        counts = {"prompt_tokens": asked, "completion_tokens": answered, "total_tokens": asked + answered}
        return {
            "object": "chat.completion" if chat else "text_completion",
            "model": self.model,
            "choices": [{"index": 0, "finish_reason": "stop", **content}],
            **({"usage": counts} if self.usage else {}),
        }


class _Server(ThreadingHTTPServer):
    """Knows its connections, so that it can end them: a client keeps them open for its next request."""

    request_queue_size = 256
    daemon_threads = False
    endpoint: ScriptedEndpoint

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__(address, handler)
        self._connections: set[socket.socket] = set()

    def process_request(self, request: Any, client_address: Any) -> None:
        self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._connections.discard(request)
        super().shutdown_request(request)

    def close_connections(self) -> None:
        """End every connection: its thread reads the end of it, and ends."""
        for connection in list(self._connections):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:  # it is gone already
                continue

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Silent: clients that go away in the middle are part of the tests."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # headers and body in one packet
    server: _Server

    def do_GET(self) -> None:
        self._answer(None)

    def do_POST(self) -> None:
        self._answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

    def _answer(self, body: Body | None) -> None:
        endpoint = self.server.endpoint
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Received(self.command, self.path, headers, body)
        fault = endpoint.take(request)
        try:
            if fault is None:
                fault = Fault(*endpoint.respond(request))
            elif fault.kind == "silence":
                endpoint.wait_in_silence(self.connection)
        finally:
            endpoint.end()  # before the client can know of it
        if fault.kind == "silence":
            self.close_connection = True
        else:
            self._send(fault)

    def _send(self, fault: Fault) -> None:
        data = (fault.body if isinstance(fault.body, str) else json.dumps(fault.body)).encode()
        cut = fault.kind == "cut"
        self.send_response(fault.status)
        for name, value in fault.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data) + (100 if cut else 0)))
        self.end_headers()
        self.wfile.write(data)
        self.wfile.flush()
        self.close_connection = self.close_connection or cut

    def log_message(self, *_: Any) -> None:
        """Nothing is logged."""


def plausible_answer(body: Body) -> str:
    """What the scripted engine answers to the same request, as a function of the body: of its text, style and knobs.

    The stage is read off the prompt, so this serves the shipped prompts and others that end, or ask, as they do.
    """
    choices = tuple(body.get("structured_outputs", {}).get("choice", ()))
    request = _request_of(body, choices)
    text = scripted_answer(request).text
    if request.key.stage is Stage.CLASSIFICATION and not choices:  # free, and so now and then none of the two
        said = [text, f"**{text.strip()}**", f"{text}, because it is so."]
        said += [] if _last_text(request.prompt).startswith(ASKED_AGAIN) else ["Hard to say."]
        text = stream_of(request).choice(said)
    if request.key.stage is Stage.CURATION and not choices:
        text = scripted_answer(replace(request, choices=DIGITS)).text
    return text


def plausible_tokens(body: Body, answer: Callable[[Body], str] = plausible_answer) -> Positions:
    """The same with the most probable tokens at each position: of a score, as the scripted engine weighs it."""
    request = _request_of(body, DIGITS)
    if request.key.stage is not Stage.CURATION:
        words = re.findall(r"\s*\S+", answer(body))
        return [_filled({word: 0.8}) for word in words]
    space = " " if isinstance(request.prompt, str) else ""
    chances = scripted_answer(replace(request, weigh=True)).probabilities
    return [_filled({f"{space}{digit}": chance for digit, chance in zip(DIGITS, chances, strict=True)})]


def _filled(tokens: dict[str, float]) -> dict[str, float]:
    """Up to all twenty tokens that a server may tell of; the rest of the probability is the other ones'."""
    left = max(0.0, 1 - sum(tokens.values()))
    return tokens | {f" token{n}": left / 2 ** (n + 1) for n in range(20 - len(tokens))}


def _logprobs(positions: Positions, told: int, *, chat: bool) -> dict[str, Any]:
    """The positions in the shape of the route, with so many tokens at each."""
    tops = [
        {token: math.log(chance) if chance else -9999.0 for token, chance in sorted(each.items(), key=lambda x: -x[1])}
        for each in positions
    ]
    tops = [dict(list(each.items())[:told]) for each in tops]
    if not chat:
        firsts = [next(iter(each)) for each in tops]
        chosen = [next(iter(each.values())) for each in tops]
        return {"tokens": firsts, "token_logprobs": chosen, "top_logprobs": tops}
    listed = [[{"token": token, "logprob": logprob, "bytes": None} for token, logprob in each.items()] for each in tops]
    return {"content": [{**each[0], "top_logprobs": each} for each in listed]}


def _told(body: Body) -> int:
    """How many tokens a body asks the probabilities of."""
    return int(body.get("top_logprobs", 0) if "messages" in body else body.get("logprobs") or 0)


def _request_of(body: Body, choices: tuple[str, ...]) -> Request:
    """What a body asks, as a request."""
    prompt = _prompt_of(body)
    knobs: dict[str, Any] = {each.name: body.get(each.name, 0) for each in fields(Sampling)}
    knobs["max_tokens"] = body.get("max_tokens", body.get("max_completion_tokens", 0))
    sampling = Sampling(**knobs | {"stop": tuple(body.get("stop", ()))})
    return Request(RequestKey(0, guess_stage(prompt)), prompt, sampling, choices)


def guess_stage(prompt: Prompt) -> Stage:
    """The stage that a shipped prompt belongs to, by how it ends (completion) or what it asks for (chat)."""
    text = _last_text(prompt)
    if isinstance(prompt, str):
        ends = {SCORE_LEAD: Stage.CURATION, "\nReason:": Stage.RATIONALE, "\nInstruction:": Stage.AUGMENTATION}
        for end, stage in ends.items():
            if text.endswith(end):
                return stage
        if re.search(r"\d\.$", text):
            return Stage.BOOTSTRAP
        return Stage.INSTANCES if text.endswith((EXAMPLE_LEAD, LABEL_LEAD)) else Stage.CLASSIFICATION
    if "score alone" in text or text.startswith(f"{ASKED_AGAIN}: 1"):
        return Stage.CURATION
    if "the reason for your score" in text:
        return Stage.RATIONALE
    if "the instruction that this last text answers" in text:
        return Stage.AUGMENTATION
    if "numbered list of the tasks" in text:
        return Stage.BOOTSTRAP
    if "Is it classification?" in text or text.startswith(ASKED_AGAIN):
        return Stage.CLASSIFICATION
    return Stage.INSTANCES if "Do not write any outputs" in text or f'"{LABEL_LEAD}"' in text else Stage.OUTPUT


def _prompt_of(body: Body) -> Prompt:
    if "messages" in body:
        return tuple(Message(str(each["role"]), str(each["content"])) for each in body["messages"])
    return str(body["prompt"])


def _last_text(prompt: Prompt) -> str:
    return prompt if isinstance(prompt, str) else prompt[-1].content


def _error(status: int, message: str) -> tuple[int, dict[str, str], Any]:
    return status, {}, {"error": {"message": message, "type": "BadRequestError", "param": None, "code": status}}
