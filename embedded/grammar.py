"""The grammar: how a frame with choices and slots becomes a worded task with computed instances."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random

from embedded import phrases
from pipeline.records import Instance

Slots = dict[str, str]
Answer = Callable[[Random, Slots], tuple[str, str]]

_CHOICE = re.compile(r"\[([^\[\]]*)\]")
_SLOT = re.compile(r"\{(\w+)\}")
# A verb that stands inside a sentence: the slots for verbs are written with a capital.
_VERBS = {value.split()[0] for name in ("find", "say", "change", "compute", "write") for value in phrases.SLOTS[name]}
_AFTER_BREAK = re.compile(rf"([;,:] |\band )({'|'.join(sorted(_VERBS))})\b")
_ARTICLE = re.compile(r"\b([Aa])n? (?=[A-Za-z])(?=([A-Za-z]))")


@dataclass(frozen=True, slots=True)
class Frame:
    """One kind of task: its wordings, its own slots, and the function that answers it.

    `answer` gives an input and an output. With `labels` it is a classification: the slot `label` says which answer the
    input is wanted for.
    """

    family: str
    wordings: tuple[str, ...]
    answer: Answer
    slots: Mapping[str, tuple[str, ...]]
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Task:
    """An instruction that the grammar made, with its instances."""

    instruction: str
    is_classification: bool
    instances: tuple[Instance, ...]
    family: str


FRAMES: dict[str, list[Frame]] = {"exact": [], "prose": [], "label": [], "category": []}


# How often each family is asked for.
WEIGHTS = {"exact": 0.40, "prose": 0.38, "label": 0.14, "category": 0.08}


def exact(*wordings: str, answer: Answer, **slots: tuple[str, ...]) -> None:
    """Register tasks with one right answer."""
    FRAMES["exact"].append(Frame("exact", wordings, answer, slots))


def prose(*wordings: str, answer: Answer, **slots: tuple[str, ...]) -> None:
    """Register tasks that ask for free text."""
    FRAMES["prose"].append(Frame("prose", wordings, answer, slots))


def label(
    *wordings: str, labels: tuple[str, ...], answer: Answer, family: str = "label", **slots: tuple[str, ...]
) -> None:
    """Register tasks that ask for one of a few labels."""
    FRAMES[family].append(Frame(family, wordings, answer, slots, labels))


def expand(rng: Random, text: str, slots: Slots, own: Mapping[str, tuple[str, ...]]) -> str:
    """Resolve choices and slots. A frame's own slot keeps its value for the whole task, as do most shared ones."""
    while "[" in text or "{" in text:
        text = _CHOICE.sub(lambda match: rng.choice(match[1].split("|")), text)
        text = _SLOT.sub(lambda match: _slot(rng, match[1], slots, own), text)
    return text


def _slot(rng: Random, name: str, slots: Slots, own: Mapping[str, tuple[str, ...]]) -> str:
    if name in slots:
        return slots[name]
    value = expand(rng, rng.choice(own.get(name) or phrases.SLOTS[name]), slots, own)
    # The words that only vary the wording may differ inside one task; everything else is what the task is about.
    if name not in ("adjective", "noun", "place", "tone", "audience"):
        slots[name] = value
    return value


def tidy(text: str) -> str:
    """Right spaces, right articles, and a capital at the start of each sentence."""
    text = re.sub(r"\s+", " ", text).strip()
    text = re.sub(r" ([.,?!:;])", r"\1", text)
    text = _AFTER_BREAK.sub(lambda m: m[1] + m[2].lower(), text)
    text = _ARTICLE.sub(lambda m: m[1] + ("n " if m[2].lower() in "aeiou" else " "), text)
    text = re.sub(r"\b([Aa])n (?=(one|uni|use|European)\b)", r"\1 ", text)
    text = re.sub(r"\b([Aa]) (?=(hour|honest)\b)", r"\1n ", text)
    return re.sub(r"(^|[.?!] )([a-z])", lambda m: m[1] + m[2].upper(), text)


def make_task(rng: Random, family: str | None = None) -> Task:
    """One task of at least four words, which is what the filters ask for: see `_worded`."""
    while True:
        task = _worded(rng, family)
        if len(task.instruction.split()) >= 4:
            return task


def _worded(rng: Random, family: str | None) -> Task:
    """One task: a frame, a wording of it, sometimes something said before or after, and one to three instances."""
    family = family or rng.choices(tuple(WEIGHTS), tuple(WEIGHTS.values()))[0]
    frame = rng.choice(FRAMES[family])
    slots: Slots = {}
    if frame.labels:
        order = rng.sample(frame.labels, len(frame.labels)) if rng.random() < 0.5 else list(frame.labels)
        slots["labels"] = f"{', '.join(order[:-1])} or {order[-1]}"
        slots["pair"] = " or ".join(order[:2])
    core = expand(rng, rng.choice(frame.wordings), slots, frame.slots)
    instruction = decorate(rng, core, family, slots)
    return Task(instruction, bool(frame.labels), _instances(rng, frame, slots), family)


def decorate(rng: Random, core: str, family: str, slots: Slots) -> str:
    """The task as somebody would put it: with or without a request in front, a scene before it, a wish after it."""
    shown = dict(slots)
    for name in ("item_of_work", "matter", "business", "person"):
        shown.pop(name, None)
    if core.endswith(".") and core[1:2].islower():
        way = rng.random()
        if way < 0.16:
            core = f"{expand(rng, rng.choice(phrases.REQUESTS), dict(shown), {})} {core[0].lower()}{core[1:]}"
        elif way < 0.22 and ". " not in core:
            core = f"{rng.choice(phrases.QUESTIONS)} {core[0].lower()}{core[1:-1]}?"
    parts = [core]
    if rng.random() < 0.24:
        parts.insert(0, expand(rng, rng.choice(phrases.OPENINGS), dict(shown), {}))
    endings = {"exact": phrases.EXACT_ENDINGS, "prose": phrases.PROSE_ENDINGS}.get(family, phrases.LABEL_ENDINGS)
    if rng.random() < (0.55 if family == "prose" else 0.4):
        parts.append(expand(rng, rng.choice(endings), dict(shown), {}))
    return tidy(" ".join(parts))


def _instances(rng: Random, frame: Frame, slots: Slots) -> tuple[Instance, ...]:
    """Instances with different inputs, one for each of up to four labels where the task asks for labels."""
    if frame.labels:
        wanted = rng.sample(frame.labels, min(len(frame.labels), rng.choice((2, 2, 3, 4))))
    else:
        wanted = [""] * rng.choices((1, 2, 3), (0.5, 0.35, 0.15))[0]
    found: dict[str, str] = {}
    for one in wanted:
        for _ in range(20):
            given, output = frame.answer(rng, {**slots, "label": one})
            if (
                given not in found
                and given != output
                and output
                and not given.endswith(":")
                and not output.endswith(":")
            ):
                found[given] = output
                break
        if "" in found:
            break
    if not found:
        raise ValueError(f"no instance: {frame.wordings[0]}")
    return tuple(Instance(given, output) for given, output in found.items())
