"""Fakes that follow the real interfaces. The project's tests use them, and so may yours.

engine = ScriptedEngine()                    # plausible answers, each a function of its request alone
engine = ScriptedEngine(my_answer)           # or your own: Request -> Completion (or an exception to raise)
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import re
from collections.abc import Callable
from pathlib import Path

from pipeline.config import Config
from pipeline.driver import Driver, sums_close
from pipeline.engine import Engine, EngineUse, Running
from pipeline.prompting import LABEL_LEAD
from pipeline.records import Completion, Request, RequestKey, Stage
from pipeline.runs import Run, open_run
from pipeline.weighing import most_probable

Answer = Callable[[Request], Completion | Exception]


class ScriptedEngine:
    """An Engine in process that answers each request as a function of its content, in an order of its own.

    `calls` holds the key of every request asked, in order; with `call_log` each is also appended to that file, so that
    it survives a kill. `delay_s` is the longest pause before an answer; each request has its own share.
    """

    def __init__(
        self, answer: Answer | None = None, *, capacity: int = 16, delay_s: float = 0.0, call_log: str | None = None
    ) -> None:
        self._answer = answer or scripted_answer
        self._capacity = capacity
        self._slots = asyncio.Semaphore(capacity)
        self._delay_s = delay_s
        self._log = open(Path(call_log), "a", encoding="utf-8") if call_log else None  # noqa: SIM115 -- closed in close
        self.calls: list[RequestKey] = []

    @property
    def capacity(self) -> int:
        return self._capacity

    async def generate(self, request: Request) -> Completion:
        async with self._slots:
            self.calls.append(request.key)
            if self._log:
                key = request.key
                self._log.write(f"{key.unit} {key.stage} {key.candidate}\n")
                self._log.flush()
                os.fsync(self._log.fileno())
            await asyncio.sleep(self._delay_s * stream_of(request).random())
            answer = self._answer(request)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def follow(self, run: Running) -> None:
        return None

    def use(self) -> EngineUse | None:
        return None

    async def close(self) -> None:
        if self._log:
            self._log.close()


def stream_of(request: Request) -> random.Random:
    """A random stream that is a function of the request's content, its key included."""
    return random.Random(hashlib.sha256(repr(request).encode()).hexdigest())


_VERBS = "Describe Compare Rewrite Summarize Translate List Explain Sort Count Classify Suggest Outline".split()
_THINGS = (
    "harbour lantern orchard violin recipe glacier market bicycle novel compass bakery river tunnel garden meteor "
    "theatre library workshop island festival railway kitchen mountain satellite museum lighthouse forest engine"
).split()
_FENCED = re.compile(r"(?ms)^(={8,})\n(.*?)\n\1$")
_FAULTS = ("is direct and whole, but for", "strays from", "says little of", "is a page about")
_PLACES = "in winter,at night,for children,before an exam,by hand,without tools,on a budget,for a friend".split(",")


def scripted_answer(request: Request) -> Completion:
    """An answer in the shape its stage and style expect. About one item in eight breaks a rule: every path is taken."""
    rng = stream_of(request)
    chat = not isinstance(request.prompt, str)
    prompt = request.prompt if isinstance(request.prompt, str) else request.prompt[-1].content
    labels = LABEL_LEAD in prompt if chat else prompt.endswith(LABEL_LEAD)
    probabilities: tuple[float, ...] = ()
    match request.key.stage:
        case Stage.BOOTSTRAP:
            text = _chat_list(rng) if chat else _list_of_tasks(rng)
        case Stage.CLASSIFICATION:
            text = rng.choices(request.choices or (" Yes", " No"), [1, 4])[0]
        case Stage.AUGMENTATION:
            text = _instruction(rng, prompt, chat=chat)
        case Stage.CURATION if request.choices:
            found = _chances(rng, len(request.choices))
            text = most_probable(request.choices, found)
            probabilities = found if request.weigh else ()
        case Stage.RATIONALE | Stage.CURATION:
            text = f" The answer {rng.choice(_FAULTS)} the {_words(rng, 3)}."
        case Stage.OUTPUT:
            text = _words(rng, 12) if rng.random() < 0.9 else "I'm sorry, but I can't help with that."
        case _ if labels:
            first = f"{LABEL_LEAD} warm" if chat else " warm"
            text = f"{first}\n{_words(rng, 6)}\n{LABEL_LEAD} cold\n{_words(rng, 6)}\n"
        case _ if chat:
            text = f"Example 1\nInput: {_words(rng, 5)}\n\nExample 2\nInput: {_words(rng, 5)}"
            if rng.random() < 0.2:
                text = "Input: none"
        case _:
            text = (
                f"\nInput: {_words(rng, 5)}\nOutput: {_words(rng, 9)}\nExample 2\nInput: {_words(rng, 5)}\nOutput: ok"
            )
            if rng.random() < 0.1:
                text = "\nOutput:\n"
    return Completion(text, "stop", len(prompt.split()), len(text.split()), probabilities)


def _instruction(rng: random.Random, prompt: str, *, chat: bool) -> str:
    """An instruction for the last text of a prompt, by words of it; or now and then what is none."""
    fenced = _FENCED.findall(prompt)
    text = fenced[-1][1] if fenced else prompt.rpartition("Text:\n")[2]
    words = re.findall(r"[A-Za-z]{5,}", text) or [*_THINGS]
    named = " ".join(rng.choices(words, k=4)).lower()
    asked = f"{rng.choice(_VERBS)} the {named} of a {rng.choice(_THINGS)} {rng.choice(_PLACES)}."
    slip = rng.random()
    if slip < 0.03:
        return ""
    if slip < 0.06:
        return f"1. {asked}\n2. {rng.choice(_VERBS)} the {_words(rng, 4)}."
    if slip < 0.09:
        return "Summarize the passage above."
    if slip < 0.12:
        return " ".join(max(text.splitlines(), key=len, default="").split()[:30])
    if chat and rng.random() < 0.25:
        return f'Sure! Here is the instruction:\n\n"{asked}"'
    return asked if chat else f" {asked}"


def _chances(rng: random.Random, count: int) -> tuple[float, ...]:
    """Probabilities of so many choices, of which the later ones are likelier; one time in ten it is hardly any."""
    mass = rng.uniform(0.05, 0.15) if rng.random() < 0.1 else rng.uniform(0.8, 0.99)
    first = rng.choices(range(count), range(1, count + 1))[0]
    weights = [8.0 if place == first else rng.random() for place in range(count)]
    return tuple(mass * weight / sum(weights) for weight in weights)


def _chat_list(rng: random.Random) -> str:
    items = _tasks(rng)
    if rng.random() < 0.05:
        return "I'm sorry, but I can't help with that."
    lines = [f"{number}. **{item}**" for number, item in enumerate(items, start=1)]
    return "Sure! Here are some new tasks:\n\n" + "\n\n".join(lines) + "\n\nLet me know if you need more!"


def _list_of_tasks(rng: random.Random) -> str:
    items = _tasks(rng)
    return "".join(f" {item}\n{number}." for number, item in enumerate(items[:-1], start=10)) + f" {items[-1]}"


def _tasks(rng: random.Random) -> list[str]:
    items = []
    for _ in range(7):
        item = f"{rng.choice(_VERBS)} the {_words(rng, rng.randint(2, 7))} {rng.choice(_PLACES)}."
        slip = rng.random()
        if slip < 0.04:
            item = "Do it."
        elif slip < 0.08:
            item = f"Draw the {_words(rng, 3)}."
        elif slip < 0.12:
            item = f"({item})"
        items.append(item)
    return items


def _words(rng: random.Random, count: int) -> str:
    return " ".join(rng.choices(_THINGS, k=count))


async def run_to_end(config: Config, folder: Path, engine: Engine) -> Run:
    """Run a configuration into a folder with any engine, in this process, until a stop rule fires; returns it closed.

    An engine that raises stops the run as it would for a user: what is whole is committed, and the error comes through.
    """
    run = open_run(config, folder)
    try:
        if run.ending is None:
            await Driver(config, run.state, run.plan.recipe, engine, run.commit, run.units).run()
    finally:
        await run.close_units()
        run.close()
    sums_close(run.state.counters)
    return run
