"""What an OpenAI-compatible server is and takes, found with small requests before a run asks anything of it.

Servers differ: in constrained choices, in knobs, in whether they think. And a run that cannot work should be one
sentence at its beginning.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import replace

import httpx

from pipeline.chat import LEAST_FOR_A_THOUGHT, THINKING_SWITCHES, answer_of
from pipeline.endpoint_http import EXTRAS, Endpoint, Server, extras_of
from pipeline.errors import ContentFault, InputError
from pipeline.records import Completion, Message, Prompt, Sampling

Trial = tuple[str, Prompt, Sampling]
"""A prompt's name, the prompt in its longest form, and how its answers will be sampled."""

PROBE, PROBE_CHOICES = "Name an animal.", ("vexillum", "ombrometer")  # no answer to it but by constraint
PROBE_SAMPLING = Sampling(16, 0.0, 1.0, 0, 0.0, 0.0, 0.0, 1.0, ())
PROBE_THOUGHT_TOKENS = 64  # enough to see a thought begin
TOPS = (20, 5)  # of how many tokens the probabilities are asked for: most servers' most, and OpenAI's for texts
LIMITS = ("max_tokens", "max_completion_tokens")  # the second is what OpenAI's newer models take in its place


async def find_server(endpoint: Endpoint, trials: Sequence[Trial], *, weighs: bool = False) -> Server:
    """Reach the server, find what it takes, turn its thinking off where it lets us, and try each of the prompts.

    With `weighs` some request of the run will be weighed, so that the probabilities of tokens are looked for.
    Raises InputError and RunStopped as `OpenAIEngine.start` says.
    """
    context = await endpoint.ask("GET", "/models", None, lambda response: _read_models(endpoint, response))
    server = await _find_thinking(endpoint, await _find_fields(endpoint, context))
    if weighs:
        server = replace(server, top=await _find_top(endpoint, server))
    for name, _, sampling in trials:
        _check_sampling(server, name, sampling)
    for name, prompt, sampling in trials:
        await _try(endpoint, server, name, prompt, sampling)
    return server


def _read_models(endpoint: Endpoint, response: httpx.Response) -> int | None:
    """The context of the model asked for, where the server says so. Some servers have no list of models."""
    if response.status_code in (404, 405):
        return None
    try:
        endpoint.judge(response)
        listed = response.json()
        listed = listed["data"] if isinstance(listed, dict) else listed
        lengths = {str(card["id"]): card.get("max_model_len") for card in listed}
    except (ContentFault, ValueError, LookupError, TypeError, AttributeError):
        what = f"its /models answers {response.status_code} ({endpoint.words(response)})"
        mend = 'set engine.openai.base_url to where its API begins, mostly an address that ends in "/v1"'
        raise InputError(f"{endpoint.url} is not an OpenAI-compatible server: {what}; {mend}") from None
    wanted = endpoint.settings.model or ""
    if wanted not in lengths:
        near = sorted(lengths, key=lambda name: -difflib.SequenceMatcher(None, wanted, name).ratio())
        has = ", ".join(near[:10]) + (f" and {len(near) - 10} more" if len(near) > 10 else "") or "none"
        raise InputError(f"{endpoint.url} has no model {wanted!r}; set engine.model to one that it has: {has}")
    return lengths[wanted] if type(lengths[wanted]) is int else None


async def _find_fields(endpoint: Endpoint, context: int | None) -> Server:
    """One small request in the style of the run, with less and less beside it until the server takes it."""
    for limit in LIMITS:
        for extras, choices in ((True, True), (True, False), (False, True), (False, False)):
            server = Server(
                endpoint.url, endpoint.settings.model or "", context, choices, extras, False, False, limit=limit
            )
            try:
                answer = await _probe(endpoint, server, constrained=choices)
            except ContentFault as fault:
                refusal = fault.detail
                continue
            return replace(server, choices=choices and _is_choice(answer), usage=answer.prompt_tokens > 0)
        if LIMITS[-1] not in refusal:
            break
    mend = "mend engine.system, engine.chat_template_kwargs or engine.openai.extra_body, or set engine.style = "
    mend += '"completion"' if _is_chat(endpoint) else '"chat"'
    raise InputError(f"{endpoint.url} refuses even a small request ({refusal}); {mend}")


async def _find_thinking(endpoint: Endpoint, server: Server) -> Server:
    """Whether its answers begin with a thought, and no more so if the server takes the switch for that.

    Where the user has set a switch, it stays as it is.
    """
    if not _is_chat(endpoint) or not _has_thought(await _probe(endpoint, server, constrained=False)):
        return server
    if any(name in endpoint.settings.chat_template_kwargs for name in THINKING_SWITCHES):
        return replace(server, thinks=True)
    silent = replace(server, thinking_off=True)
    try:
        if _has_thought(await _probe(endpoint, silent, constrained=False)):
            return replace(server, thinks=True)
    except ContentFault:  # it does not take the switch
        return replace(server, thinks=True)
    try:  # the thought may have stood before a choice
        return replace(silent, choices=_is_choice(await _probe(endpoint, silent, constrained=True)))
    except ContentFault:
        return replace(silent, choices=False)


async def _find_top(endpoint: Endpoint, server: Server) -> int:
    """Of how many tokens the server tells the probability; 0 where of fewer than five, or of a thought's alone."""
    for top in () if server.thinks else TOPS:
        try:
            asked = replace(server, top=top)
            _, positions = await endpoint.complete_with_positions(asked, _small(endpoint), PROBE_SAMPLING)
        except ContentFault:
            continue
        return top if positions and len(positions[0].top) >= TOPS[-1] else 0
    return 0


def _small(endpoint: Endpoint) -> Prompt:
    """The prompt of the small requests, in the style of the run."""
    system = () if endpoint.settings.system is None else (Message("system", endpoint.settings.system),)
    return (*system, Message("user", PROBE)) if _is_chat(endpoint) else PROBE


async def _probe(endpoint: Endpoint, server: Server, *, constrained: bool) -> Completion:
    """The small request: to one of choices nobody would name, or free with room to see a thought begin."""
    prompt = _small(endpoint)
    sampling = PROBE_SAMPLING if constrained else replace(PROBE_SAMPLING, max_tokens=PROBE_THOUGHT_TOKENS)
    return await endpoint.complete(server, prompt, sampling, PROBE_CHOICES if constrained else ())


def _is_chat(endpoint: Endpoint) -> bool:
    return endpoint.settings.style != "completion"


def _is_choice(answer: Completion) -> bool:
    return answer.text.strip() in PROBE_CHOICES


def _has_thought(answer: Completion) -> bool:
    return answer_of(answer.text) != answer.text


def _check_sampling(server: Server, name: str, sampling: Sampling) -> None:
    """Raise InputError where the server does not take what a sampling sets, or it has no room for a thought."""
    for knob, value in extras_of(sampling).items():
        if not server.extras and value != EXTRAS[knob]:
            mend = f"leave {knob} at its default, or use a server that takes it, as vLLM's does"
            raise InputError(f"{server.url} does not take {knob}, and it is set to {value}; {mend}")
    chosen = name in ("classification", "curation")  # one of some choices, which is given room of its own
    if server.thinks and not chosen and sampling.max_tokens < LEAST_FOR_A_THOUGHT:
        raise InputError(
            f"prompt {name}: the model thinks before it answers, and max_tokens = {sampling.max_tokens} will not hold "
            f"its thought; raise it (to {4 * LEAST_FOR_A_THOUGHT} or more), or turn thinking off with "
            "engine.chat_template_kwargs"
        )


async def _try(endpoint: Endpoint, server: Server, name: str, prompt: Prompt, sampling: Sampling) -> None:
    """Send a prompt for one token. Raises InputError where it is refused, or leaves no room for its answer."""
    try:
        tokens = (await endpoint.complete(server, prompt, replace(sampling, max_tokens=1))).prompt_tokens
    except ContentFault as fault:
        mend = "show fewer demonstrations, or mend its sampling"
        raise InputError(f"prompt {name}: {server.url} refuses its longest form ({fault.detail}); {mend}") from None
    if server.context is not None and tokens and tokens + sampling.max_tokens > server.context:
        raise InputError(
            f"prompt {name}: its longest form has {tokens} tokens, which with {sampling.max_tokens} for the answer is "
            f"more than the context of {server.context}; show fewer demonstrations, or lower max_tokens"
        )
