"""One parser per prompt. A parser never raises on text: it returns what it found, or nothing.

Each follows the paper's code step by step; where that is a defect the default mends it, and `compat` restores it
(design, 9).
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pipeline.filters import is_refusal
from pipeline.prompting import EXAMPLE_LEAD, LABEL_LEAD
from pipeline.records import Instance, Reason

_ITEM = re.compile(r"\n\s*\d+\s?\.(?=\s|$)")
_ITEM_COMPAT = re.compile(r"\n\d+\s?\. ")

# By default a marker begins its line; upstream also splits at the plain word inside an answer.
_EXAMPLE = re.compile(r"^[ \t]*Example ?\d+[.:]?", re.MULTILINE)
_INPUT = re.compile(r"^[ \t]*Input\s*\d*\s*:", re.MULTILINE)
_OUTPUT = re.compile(r"^[ \t]*Output\s*\d*\s*:", re.MULTILINE)
_LABEL = re.compile(r"^[ \t]*Class label:", re.MULTILINE)
_EXAMPLE_COMPAT = re.compile(r"Example\s?\d*\.?")
_INPUT_COMPAT = re.compile(r"Input\s*\d*\s*:")
_OUTPUT_COMPAT = re.compile(r"Output\s*\d*\s*:")
_LABEL_COMPAT = re.compile(r"Class label:")


def parse_instructions(text: str, *, compat: bool = False) -> list[str]:
    """The items of a numbered list whose first number stood in the prompt (upstream's stage A, steps 2 and 3).

    White space is collapsed and the first letter raised; compat also lower-cases the rest of each item. An item may be
    empty: refusing it is the filters' affair.
    """
    items = (_ITEM_COMPAT if compat else _ITEM).split(text)
    cleaned = (re.sub(r"\s+", " ", item).strip() for item in items)
    return [item.capitalize() if compat else item[:1].upper() + item[1:] for item in cleaned]


def parse_classification(text: str, *, compat: bool = False) -> bool | None:
    """Read "is it classification?": True, False, or None for no answer. Compat reads all but a bare Yes as no."""
    answer = text.strip()
    if compat:
        return answer in ("Yes", "yes", "YES")
    return {"yes": True, "no": False}.get(answer.rstrip(".").lower())


def with_lead(prompt: str, answer: str) -> str:
    """The answer together with the marker its prompt ended in, which is a part of the first instance."""
    lead = prompt.rsplit("\n", 1)[-1]
    return lead + answer if lead in (EXAMPLE_LEAD, LABEL_LEAD) else answer


def parse_input_first(text: str, *, compat: bool = False) -> list[Instance]:
    """Instances of a task that is not classification (upstream's stage D)."""
    example, output = (_EXAMPLE_COMPAT, _OUTPUT_COMPAT) if compat else (_EXAMPLE, _OUTPUT)
    text = text.strip()
    if example.search(text):
        head, *pieces = example.split(text)
        if compat or output.search(head):  # upstream takes a preamble for an instance
            pieces = [head, *pieces]
        return [_pair(piece, compat) for piece in pieces if piece.strip()]
    return [_pair(text, compat)] if output.search(text) else []


def _pair(piece: str, compat: bool) -> Instance:
    input_, output = (_INPUT_COMPAT, _OUTPUT_COMPAT) if compat else (_INPUT, _OUTPUT)
    parts = output.split(piece)
    if len(parts) == 1:
        return Instance("", input_.split(piece)[0].strip())
    before, after = parts[0].strip(), input_.split(parts[1])[0]
    marker = input_.match(before)
    return Instance(before[marker.end() :].strip() if marker else before, after.strip())


def parse_output_first(text: str, *, compat: bool = False) -> list[Instance]:
    """Instances of a classification task: a label on each marker's line, and its input on the lines below."""
    pieces = (_LABEL_COMPAT if compat else _LABEL).split(text)[1:]
    instances = []
    for piece in pieces:
        label, _, rest = piece.strip().partition("\n")
        instances.append(Instance(rest.strip(), label.strip()))
    return instances


@dataclass(frozen=True, slots=True)
class Judged:
    """One parsed instance, by its place in the answer, and why it was refused (None: kept)."""

    index: int
    instance: Instance
    reason: Reason | None


def judge_instances(
    instances: Iterable[Instance], *, truncated: bool, limit: int, rng: random.Random, refusals: bool = False
) -> list[Judged]:
    """The paper's rules on the instances of one instruction, in its order; every instance comes back once.

    A truncated answer loses its last instance; invalid ones go (with `refusals`, those that decline the task too); two
    outputs for one input condemn them all; copies go; of more than `limit` a random choice stays.
    """
    parsed = list(instances)
    reasons = [judge_output(instance, truncated=False, refusals=refusals) for instance in parsed]
    if truncated and parsed:
        reasons[-1] = Reason.INSTANCE_TRUNCATED
    valid = [index for index, reason in enumerate(reasons) if reason is None]

    outputs: dict[str, set[str]] = {}
    for index in valid:
        if parsed[index].input:
            outputs.setdefault(parsed[index].input, set()).add(parsed[index].output)
    if any(len(found) > 1 for found in outputs.values()):
        for index in valid:
            reasons[index] = Reason.CONFLICTING_INSTANCES
    return _distinct(parsed, reasons, limit, rng)


def judge_inputs(inputs: Iterable[str], *, truncated: bool, limit: int, rng: random.Random) -> list[Judged]:
    """Chat style: the rules that need no output yet, so that none is written in vain. Outputs are "" here.

    A truncated answer loses its last input; copies go; of more than `limit` a random choice stays.
    """
    parsed = [Instance(text, "") for text in inputs]
    reasons: list[Reason | None] = [Reason.ENDS_WITH_COLON if one.input.endswith(":") else None for one in parsed]
    if truncated and parsed:
        reasons[-1] = Reason.INSTANCE_TRUNCATED
    return _distinct(parsed, reasons, limit, rng)


def judge_output(instance: Instance, *, truncated: bool, refusals: bool) -> Reason | None:
    """Why one instance is refused for its output, or None. `truncated`: the output was cut at max_tokens."""
    if truncated:
        return Reason.INSTANCE_TRUNCATED
    if not instance.output:
        return Reason.EMPTY_OUTPUT
    if instance.input == instance.output:
        return Reason.INPUT_EQUALS_OUTPUT
    if instance.input.endswith(":") or instance.output.endswith(":"):
        return Reason.ENDS_WITH_COLON
    return Reason.REFUSAL if refusals and is_refusal(instance.output) else None


def _distinct(parsed: Sequence[Instance], reasons: list[Reason | None], limit: int, rng: random.Random) -> list[Judged]:
    """Refuse copies among what is left, and all but a random choice of `limit`."""
    first: dict[Instance, int] = {}
    for index, instance in enumerate(parsed):
        if reasons[index] is None and first.setdefault(instance, index) != index:
            reasons[index] = Reason.DUPLICATE_INSTANCE
    distinct = list(first.values())
    if len(distinct) > limit:
        for index in set(distinct) - set(rng.sample(distinct, limit)):
            reasons[index] = Reason.OVER_INSTANCE_LIMIT
    return [Judged(index, instance, reasons[index]) for index, instance in enumerate(parsed)]
