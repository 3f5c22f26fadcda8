"""An engine that talks to an OpenAI-compatible server: vLLM's own, or any other. Needs neither Ray nor vLLM here.

`endpoint_probe.py` finds what the server takes, `endpoint_http.py` asks it; an answer to a choice is made sure of here,
and a weighed one is read off the most probable tokens of a free answer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from pipeline.chat import answer_of
from pipeline.endpoint_http import Endpoint, Note, Server
from pipeline.endpoint_probe import Trial, find_server
from pipeline.engine import EngineUse, Running
from pipeline.engine_settings import EngineSettings
from pipeline.records import Completion, Message, Request
from pipeline.weighing import most_probable, weigh

REASKS = 3  # how often a free answer that is none of the choices is asked for again
FREE_TOKENS = 16  # least room for a free answer to a choice: "**Yes**, because" is one too
THOUGHT_TOKENS = 2048  # least room for it where the server thinks before it answers
WEIGHED_TOKENS = 2  # room for a weighed answer: white space that is a token of its own, and the choice
LEAD_TOKENS = 6  # and for its lead, with which a chat may begin all the same
_DRESS = " \t\r\n\"'`*_“”‘’«»("  # what may stand before a choice


class OpenAIEngine:
    """An `Engine` over one endpoint: `start` once, then `generate`, then `close`. Lives in one event loop.

    With `fresh=False` a run goes on: a server that cannot be reached at the start is away, and not misnamed.
    `backoff_s` is the first wait before another try; it doubles, up to a minute. `note(kind, **values)` is told of
    tries that failed, a few of them; `retries` counts them all by kind: a status, timeout, connect, cut or garbage.
    """

    def __init__(
        self, settings: EngineSettings, note: Note | None = None, *, fresh: bool = True, backoff_s: float = 1.0
    ) -> None:
        self._endpoint = Endpoint(settings, note, fresh=fresh, backoff_s=backoff_s)
        self._server: Server | None = None

    @property
    def capacity(self) -> int:
        return self._endpoint.settings.openai.concurrency

    @property
    def retries(self) -> Counter[str]:
        """The tries that failed, by kind."""
        return self._endpoint.retries

    async def start(self, trials: Sequence[Trial] = (), *, weighs: bool = False) -> Server:
        """Reach the server, find what it takes, and try the prompts that will be sent: each in its longest form.

        `weighs`: some request will be weighed. Without it all of them are answered as choices, of no known probability.
        A thinking block is turned off where the server takes the switch and the user has set none. Each request has
        30 s and three tries at most.

        Raises InputError where nothing listens (RunStopped where the run is not fresh), the key or the model name is
        wrong, it is no OpenAI-compatible server, it does not take what a sampling sets, a prompt does not fit its
        context, or it thinks and has no room to; RunStopped where it is in trouble for too long.
        """
        self._endpoint.open()
        self._server = await find_server(self._endpoint, trials, weighs=weighs)
        self._endpoint.started = True
        return self._server

    async def generate(self, request: Request) -> Completion:
        """Answer one request. Cancelling the call closes its connection.

        Raises ContentFault where the server refuses the request, RunStopped where it is in trouble for too long, and
        InputError where it no longer knows the key or the model.
        """
        assert self._server is not None, "start() comes before generate()"
        if request.weigh and self._server.top:
            return await self._weigh(request, self._server)
        if request.choices:
            return await self._choose(request, self._server)
        return await self._endpoint.complete(self._server, request.prompt, request.sampling, order=request.key)

    def follow(self, run: Running) -> None:
        return None

    def use(self) -> EngineUse | None:
        return None

    async def close(self) -> None:
        """Close all connections. May follow a failed start; may be called twice."""
        await self._endpoint.close()

    async def _weigh(self, request: Request, server: Server) -> Completion:
        """The most probable of the choices, by what a free answer tells of its tokens.

        Where none of the choices is among the tokens told of, their probabilities are 0 and it is the first. A chat's
        lead is left to the model: few servers take the beginning of an answer.
        """
        lead = "" if isinstance(request.prompt, str) else request.lead
        room = WEIGHED_TOKENS + (LEAD_TOKENS if lead else 0)
        sampling = replace(request.sampling, max_tokens=room, temperature=0.0)
        answer, positions = await self._endpoint.complete_with_positions(server, request.prompt, sampling, request.key)
        if not positions:  # for once: as where it never tells
            return await self._choose(request, server)
        chances = weigh(positions, request.choices, lead)
        text = most_probable(request.choices, chances)
        return replace(answer, text=text, finish_reason="stop", probabilities=chances)

    async def _choose(self, request: Request, server: Server) -> Completion:
        """An answer that is one of the choices, constrained or asked for until it fits. Tokens of all asks add up."""
        prompt, sampling, prompt_tokens, completion_tokens = request.prompt, request.sampling, 0, 0
        room = min(THOUGHT_TOKENS, (server.context or THOUGHT_TOKENS * 2) // 2) if server.thinks else FREE_TOKENS
        for asked in range(REASKS + 1):
            if asked or not server.choices:
                sampling = replace(sampling, max_tokens=max(sampling.max_tokens, room))
            choices = request.choices if server.choices else ()
            answer = await self._endpoint.complete(server, prompt, sampling, choices, request.key)
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


def matching_choice(said: str, choices: Sequence[str]) -> str | None:
    """The choice that an answer is, or begins with before other words, in any case and dress; None for none."""
    bare = said.lstrip(_DRESS).casefold()
    for choice in sorted(choices, key=len, reverse=True):
        wanted = choice.strip().casefold()
        if bare.startswith(wanted) and not bare[len(wanted) : len(wanted) + 1].isalnum():
            return choice
    return None
