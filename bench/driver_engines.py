"""Simulated engines for `bench/driver.py`: 8B models on H100s whose time is computed, several to one process.

Each engine takes its own exchanges, as a real one does, and batches continuously: what waits is prefilled as soon as
there is room for it among the sequences that are decoded, and all of these get one token in every step. Nothing runs
while time passes: an exchange computes what happens until it goes back, since nothing new comes in before.

Rates. NVIDIA publishes tokens/s of Llama 3.1 8B in FP8 on one H100 SXM with as many requests as it holds (TensorRT-LLM,
docs/source/performance/perf-overview.md, v1.0), by tokens of prompt and answer: 28,312 (128, 128), 15,220 (1000, 1000),
3,450 (2048, 128), 9,305 (2048, 2048). PREFILL_S, TOKEN_S and CONTEXT_S are what solves the first three; they give 9,820
for the fourth. PRECISION doubles them for bfloat16: twice the bytes, half the arithmetic. WEIGHTS_S is the least that a
step takes: 16 GB of weights at the chip's 3.35 TB/s.

Lengths are drawn for each stage from a log-normal distribution of the means below and a spread of 0.5. AlpacaEval 2
gives Llama 3 8B Instruct 1,899 characters an answer: OUTPUT. The others are those of the shapes that the prompts ask
for. Nobody has recorded them from an 8B model on these prompts.
"""

from __future__ import annotations

import asyncio
import heapq
import math
import os
import random
import socket
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from actors.gathering import enough
from actors.messages import Answer, Call, EngineLost, Gauges, News, Packed, Ready, Where
from pipeline.prompting import LABEL_LEAD, shipped_text
from pipeline.records import Completion, Request, Stage

PRECISION = 2.0
PREFILL_S = PRECISION * 14.0e-6  # a token of a prompt that is not in the prefix cache
TOKEN_S = PRECISION * 16.8e-6  # a token of an answer ...
CONTEXT_S = PRECISION * 0.0232e-6  # ... and so much more for each token before it
WEIGHTS_S = 16e9 / 3.35e12
CHARACTERS = 4.4  # of a token
FULL = 0.95  # an engine counts as full while it has this share of the sequences that it decodes at once
OUTPUT_TOKENS = 1899 / CHARACTERS
MEANS = {Stage.INSTANCES: 120.0, Stage.OUTPUT: OUTPUT_TOKENS, Stage.RATIONALE: 60.0}


@dataclass(slots=True)
class Sequence:
    """One request in an engine."""

    call_id: int
    answer: Completion
    fresh: int  # prompt tokens to be prefilled
    context: float  # tokens before a token of its answer, on average


class Engine:
    """One engine's batch and clock, in seconds of its own time."""

    def __init__(self, max_num_seqs: int) -> None:
        self._most = max_num_seqs
        self._clock = 0.0
        self._steps = 0.0
        self._waiting: deque[Sequence] = deque()
        self._running: list[tuple[float, int, Sequence]] = []  # by the step they end with
        self._context = 0.0
        self.finished: list[Answer] = []
        self.busy_s = self.full_s = 0.0
        self.generated = self.read = self.answered = 0

    @property
    def holds(self) -> tuple[int, int]:
        """Sequences decoded, and waiting."""
        return len(self._running), len(self._waiting)

    def add(self, sequence: Sequence) -> None:
        self._waiting.append(sequence)

    @property
    def short(self) -> bool:
        """Whether it has hardly more requests than it could decode."""
        return len(self._running) + len(self._waiting) < enough(self._most)

    def gather(self, now: float, hold_s: float) -> float:
        """Compute what happens while an exchange that begins now gathers answers, by the rule of `Gathering`; when it
        goes back. Nothing new comes in before."""
        self.advance(now + hold_s / 4, lambda: bool(self.finished))
        if not self.finished:
            return now + hold_s / 4
        first = max(now, self._clock)
        self.advance(first + hold_s / 8)
        self.advance(now + hold_s, lambda: self.short)
        return max(first + hold_s / 8, min(self._clock, now + hold_s))

    def advance(self, now: float, until: Callable[[], bool] = lambda: False) -> None:
        """Compute what happens until `now`, or until something is the case."""
        while self._clock < now and not until():
            while self._waiting and len(self._running) < self._most:
                self._prefill(self._waiting.popleft())
            if not self._running:
                self._clock = max(self._clock, now)
                return
            count = len(self._running)
            step_s = max(WEIGHTS_S, count * TOKEN_S + self._context * CONTEXT_S)
            steps = min(self._running[0][0] - self._steps, max(0.0, now - self._clock) / step_s)
            self._spend(steps * step_s, count)
            self._steps += steps
            while self._running and self._running[0][0] <= self._steps + 1e-9:
                self._finish(heapq.heappop(self._running)[-1])

    def _prefill(self, sequence: Sequence) -> None:
        self._spend(sequence.fresh * PREFILL_S, 1 + len(self._running) + len(self._waiting))
        self._context += sequence.context
        ends = self._steps + sequence.answer.completion_tokens
        heapq.heappush(self._running, (ends, sequence.call_id, sequence))

    def _finish(self, sequence: Sequence) -> None:
        self._context -= sequence.context
        self.answered += 1
        self.generated += sequence.answer.completion_tokens
        self.read += sequence.answer.prompt_tokens
        self.finished.append(Answer(sequence.call_id, sequence.answer))

    def _spend(self, seconds: float, held: int) -> None:
        self._clock += seconds
        self.busy_s += seconds
        if held >= FULL * self._most:
            self.full_s += seconds


@dataclass
class Texts:
    """Answers that read like a model's, made of words of the shipped seeds: cheap, and seldom twice the same."""

    rng: random.Random
    words: list[str] = field(default_factory=list)
    page: str = ""

    def __post_init__(self) -> None:
        fixed = random.Random("words")
        self.words = sorted({word.strip('".,:;?!()[]{}\\').lower() for word in shipped_text("seeds.jsonl").split()})
        self.words = [word for word in self.words if word.isalpha()]
        # Sentences of 6 to 18 words, 400,000 characters of them.
        sentences = (" ".join(fixed.choices(self.words, k=fixed.randint(6, 18))).capitalize() for _ in range(5_000))
        self.page = ". ".join(sentences) + "."

    def some(self, tokens: float) -> str:
        """So many tokens of text, from anywhere in the page."""
        length = int(tokens * CHARACTERS)
        first = self.rng.randrange(len(self.page) - length)
        return self.page[first : first + length].strip()

    def instruction(self) -> str:
        """One instruction; about one in nine breaks a rule or is one of few, so that filters and gate refuse some."""
        chance = self.rng.random()
        if chance < 0.03:
            return f"Draw the {self.rng.choice(self.words)} of a {self.rng.choice(self.words)}."
        if chance < 0.11:
            return f"Explain to a friend how the {self.words[self.rng.randrange(40)]} of a small town comes about."
        return " ".join(self.rng.choices(self.words, k=self.rng.randint(7, 19))).capitalize() + "."

    def answer(self, request: Request, prompt: str) -> tuple[str, int, tuple[float, ...]]:
        """An answer's text, its tokens, and the probabilities of its choices."""
        rng = self.rng
        match request.key.stage:
            case Stage.BOOTSTRAP:
                items = [f"{number}. {self.instruction()}" for number in range(9, 17)]
                text = "Here are some new tasks:\n\n" + "\n\n".join(items)
            case Stage.CLASSIFICATION:
                return request.choices[int(rng.random() < 0.8)], 1, ()
            case Stage.AUGMENTATION:
                text = self.instruction()
            case Stage.CURATION:
                good = rng.random() < 0.6
                return request.choices[4 if good else 2], 1, (0.02, 0.03, 0.1, 0.1, 0.7) if good else (0.1,) * 5
            case Stage.INSTANCES if LABEL_LEAD in prompt:
                shown = [f"{LABEL_LEAD} {label}\n{self.some(self._tokens(request) / 3)}" for label in ("warm", "cold")]
                text = "\n".join(shown)
            case Stage.INSTANCES:
                each = self._tokens(request) / 3
                text = "\n\n".join(f"Example {n}\nInput: {self.some(each)}" for n in (1, 2, 3))
                if rng.random() < 0.4:
                    text = "Input: none"
            case _:
                text = self.some(self._tokens(request))
        return text, max(1, round(len(text) / CHARACTERS)), ()

    def _tokens(self, request: Request) -> float:
        mean = MEANS[request.key.stage]
        drawn = self.rng.lognormvariate(math.log(mean) - 0.125, 0.5)
        return min(drawn, request.sampling.max_tokens)


class Simulator:
    """A process of several engines. Made a Ray actor. All its durations are `slow` times as long as they would be."""

    def __init__(self, engines: range, max_num_seqs: int, hold_s: float, slow: float, hold_slow: float) -> None:
        """`hold_s` is how long an exchange gathers answers, 0 for as long as the pool says; it is `hold_slow` times as
        long."""
        self._engines = {index: Engine(max_num_seqs) for index in engines}
        self._hold_s = hold_s
        self._slow, self._hold_slow = slow, hold_slow
        self._texts = Texts(random.Random(f"answers/{engines.start}"))
        self._shared: dict[tuple[Stage, bool], str] = {}  # what the prompts of a stage begin with: in the prefix cache
        self.exchanges = 0

    async def exchange(self, index: int, calls: tuple[Call, ...], withdrawn: tuple[int, ...], hold_s: float) -> News:
        """One engine's exchange: it takes calls, gathers answers for a while, and hands over what has ended."""
        engine, now = self._engines[index], self._now()
        engine.advance(now)
        for call in calls:
            engine.add(self._sequence(call))
        ends = engine.gather(now, (self._hold_s or hold_s) * self._hold_slow / self._slow)
        await asyncio.sleep((ends - self._now()) * self._slow)
        self.exchanges += 1
        answers, engine.finished = tuple(engine.finished), []
        running, waiting = engine.holds
        gauges = Gauges(running, waiting, engine.generated, engine.read, 0, 0, 0.0, engine.busy_s)
        return News(answers, gauges)

    async def report(self) -> dict[str, Any]:
        """Of all its engines together: own seconds busy and full, answers, tokens; and this process's CPU time."""
        engines = self._engines.values()
        for engine in engines:
            engine.advance(self._now())
        names = ("busy_s", "full_s", "answered", "generated", "read")
        sums = {name: sum(getattr(engine, name) for engine in engines) for name in names}
        return {**sums, "exchanges": self.exchanges, "now": self._now(), "cpu_s": time.process_time()}

    def _now(self) -> float:
        return time.monotonic() / self._slow

    def _sequence(self, call: Call) -> Sequence:
        request = call.request
        prompt = request.prompt if isinstance(request.prompt, str) else request.prompt[-1].content
        text, tokens, probabilities = self._texts.answer(request, prompt)
        read = len(prompt) / CHARACTERS
        answer = Completion(text, "stop", round(read), tokens, probabilities)
        return Sequence(call.id, answer, round(read - self._cached(request, prompt)), read + tokens / 2)

    def _cached(self, request: Request, prompt: str) -> float:
        """Tokens that a prompt shares with all of its stage: found once, from the first two that are seen."""
        key = request.key.stage, LABEL_LEAD in prompt
        if key not in self._shared:
            self._shared[key] = prompt
            return 0.0
        shared = self._shared[key]
        if not prompt.startswith(shared):
            length = next(place for place, each in enumerate(shared) if prompt[place : place + 1] != each)
            self._shared[key] = shared = shared[:length]
        return len(shared) / CHARACTERS


class SimulatedEngine:
    """One engine of a simulator as the pool sees it (`EngineHandle`)."""

    def __init__(self, simulator: Any, index: int) -> None:
        self._simulator = simulator
        self._index = index

    async def place(self) -> Where:
        return Where(socket.gethostname(), ())

    async def start(self) -> Ready:
        return Ready("simulated", "8B", 8192, os.getpid(), socket.gethostname(), (), 0.0)

    async def exchange(self, calls: tuple[Call, ...], withdrawn: tuple[int, ...], hold_s: float) -> News:
        from ray.exceptions import RayError

        try:
            news: News = await self._simulator.exchange.remote(self._index, Packed(calls), withdrawn, hold_s)
        except RayError as error:
            raise EngineLost(" ".join(str(error).split())) from error
        return news

    async def close(self, at_once: bool = False) -> None:
        return
