"""Prompts: text files with declared variables, and the Python that fills the variables.

A template holds no logic. It has `$name` variables: those that VARIABLES fixes for each prompt, and some that it may do
without. Lists and demonstrations are built here and passed in as one variable. The last newline of a file is not part
of the prompt, so that a prompt can end where the model is to go on ("9.", "Class label:").
"""

from __future__ import annotations

import hashlib
import re
import string
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path

from pipeline.errors import InputError
from pipeline.records import Seed

VARIABLES: dict[str, frozenset[str]] = {
    "bootstrap": frozenset({"tasks"}),
    "bootstrap_topic": frozenset({"topic", "tasks"}),
    "classification": frozenset({"demonstrations", "instruction"}),
    "instance_input_first": frozenset({"demonstrations", "instruction"}),
    "instance_output_first": frozenset({"demonstrations", "instruction"}),
    "augmentation": frozenset({"text"}),
    "backward": frozenset({"text"}),
    "curation": frozenset({"instruction", "output"}),
    "curation_rationale": frozenset({"instruction", "output"}),
}

# What prompts of either style may hold beside them. `fence` is the line that keeps a text apart from the prompt.
OPTIONAL_VARIABLES: dict[str, frozenset[str]] = {
    "augmentation": frozenset({"demonstrations", "fence"}),
    "curation": frozenset({"fence"}),
    "curation_rationale": frozenset({"fence"}),
}

# What chat prompts alone may hold: how many instances are kept of one instruction.
CHAT_VARIABLES: dict[str, frozenset[str]] = {
    "instance_input_first": frozenset({"limit"}),
    "instance_output_first": frozenset({"limit"}),
}

# Where an instance prompt may end, for the model to go on; the parser reads the answer together with this lead.
EXAMPLE_LEAD = "Example 1"
LABEL_LEAD = "Class label:"

# What the judge's digit comes after, at the end of a completion-style prompt or the beginning of a chat's answer.
SCORE_LEAD = "Score:"

_SHORTEST_FENCE = 8


@dataclass(frozen=True, slots=True)
class Template:
    """One prompt file: its name, its text without the last newline, and the first 16 hex digits of its SHA-256."""

    name: str
    text: str
    hash: str

    def render(self, **variables: str) -> str:
        return "".join(variables[part] if is_variable else part for part, is_variable in _parts(self.text))

    @property
    def variables(self) -> frozenset[str]:
        """The variables that the file uses."""
        return frozenset(string.Template(self.text).get_identifiers())

    @property
    def own_texts(self) -> tuple[str, ...]:
        """What the file itself says, between its variables."""
        return tuple(re.split(r"\$(?:\w+|\{\w+\})", self.text.replace("$$", " ")))


@cache
def _parts(text: str) -> tuple[tuple[str, bool], ...]:
    """A template cut into its own words and its variables' names, each with whether it is a name."""
    parts, end = list[tuple[str, bool]](), 0
    for found in string.Template.pattern.finditer(text):
        name = found["named"] or found["braced"]
        parts += [(text[end : found.start()], False), (name, True) if name else ("$", False)]
        end = found.end()
    return (*parts, (text[end:], False))


def load_template(name: str, path: str | None = None, style: str = "completion") -> Template:
    """Read the shipped prompt `name` of a style, or the file at `path` in its place ("shipped:demo/bootstrap.txt").

    Raises InputError when the file is missing, when it lacks a variable the prompt declares or uses one that it does
    not, and when a judge's prompt in completion style does not end where the score is to follow.
    """
    where = f"prompt {name!r}"
    if path is None:
        text = shipped_text(f"chat/{name}.txt" if style == "chat" else f"{name}.txt")
    else:
        where = f"[prompts] {name} = {path!r}"
        text = _read(path, where)
    template = string.Template(text.removesuffix("\n"))
    if not template.is_valid():
        raise InputError(f"{where}: a `$` is not followed by a variable name; write `$$` for a plain dollar sign")
    found, declared = set(template.get_identifiers()), VARIABLES[name]
    allowed = declared | OPTIONAL_VARIABLES.get(name, frozenset())
    if style == "chat":
        allowed |= CHAT_VARIABLES.get(name, frozenset())
    for missing in sorted(declared - found):
        raise InputError(f"{where}: the template has no `${missing}`; it needs {_dollars(declared)}")
    for unknown in sorted(found - allowed):
        raise InputError(f"{where}: unknown variable `${unknown}`; it may use {_dollars(allowed)}")
    if name == "curation" and style != "chat" and not template.template.endswith(SCORE_LEAD):
        raise InputError(f"{where}: the template must end in {SCORE_LEAD!r}, where the judge goes on with a digit")
    return Template(name, template.template, hashlib.sha256(template.template.encode()).hexdigest()[:16])


def shipped_text(name: str) -> str:
    """The text of a file in the `prompts` package, such as "bootstrap.txt" or "seeds.jsonl"."""
    return resources.files("prompts").joinpath(name).read_text(encoding="utf-8")


def _read(path: str, where: str) -> str:
    if path.startswith("shipped:"):
        try:
            return shipped_text(path.removeprefix("shipped:"))
        except (FileNotFoundError, IsADirectoryError):
            raise InputError(f"{where}: no such prompt is shipped with InstructMill") from None
    try:
        return Path(path).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{where}: the file cannot be read as UTF-8 text ({error})") from None


def _dollars(names: Iterable[str]) -> str:
    return " and ".join(f"`${name}`" for name in sorted(names))


def demonstration_text(instruction: str) -> str:
    """An instruction on one line and without trailing colons, as the paper's code shows it to the model."""
    return re.sub(r"\s+", " ", instruction).strip().rstrip(":")


def numbered_tasks(instructions: Sequence[str], *, lead: bool = True) -> str:
    """The bootstrap list: "1. ...", one a line; with `lead` it ends in the bare number where a base model goes on."""
    lines = [f"{number}. {demonstration_text(text)}" for number, text in enumerate(instructions, start=1)]
    return "\n".join([*lines, f"{len(instructions) + 1}."] if lead else lines)


def classification_demonstrations(seeds: Iterable[Seed]) -> str:
    """One block per seed: the task, and whether it is a classification task."""
    return "\n\n".join(
        f"Task: {demonstration_text(seed.instruction)}\n"
        f"Is it classification? {'Yes' if seed.is_classification else 'No'}"
        for seed in seeds
    )


def input_first_demonstrations(seeds: Iterable[Seed], instances: int) -> str:
    """One block per seed with up to `instances` examples, input before output; an empty input has no line."""
    blocks = []
    for seed in seeds:
        lines = [f"Task: {demonstration_text(seed.instruction)}"]
        for number, instance in enumerate(seed.instances[:instances], start=1):
            lines.append(f"Example {number}")
            if instance.input:
                lines.append(f"Input: {instance.input}")
            lines.append(f"Output: {instance.output}")
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def input_demonstrations(seeds: Iterable[Seed], instances: int) -> str:
    """Chat style: one block per seed with up to `instances` inputs, and "none" for a task that needs none."""
    blocks = []
    for seed in seeds:
        lines = [f"Task: {demonstration_text(seed.instruction)}"]
        inputs = [instance.input for instance in seed.instances[:instances] if instance.input]
        for number, text in enumerate(inputs, start=1):
            lines += [f"Example {number}", f"Input: {text}"]
        blocks.append("\n".join(lines if inputs else [*lines, "Input: none"]))
    return "\n\n".join(blocks)


def output_first_demonstrations(seeds: Iterable[Seed], instances: int) -> str:
    """One block per seed with up to `instances` examples, the class label before the input it belongs to."""
    blocks = []
    for seed in seeds:
        lines = [f"Task: {demonstration_text(seed.instruction)}"]
        for instance in seed.instances[:instances]:
            lines.append(f"{LABEL_LEAD} {instance.output}")
            if instance.input:
                lines.append(instance.input)
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def fence(*texts: str) -> str:
    """A line of "=" signs, longer than any run of them in these texts: none of them can close a fence made of it."""
    longest = max((len(run) for text in texts if "=" in text for run in re.findall("=+", text)), default=0)
    return "=" * max(_SHORTEST_FENCE, longest + 1)


def fenced(text: str) -> str:
    """A text between two fence lines, as the prompts show what is data and not a part of them."""
    return f"{fence(text)}\n{text}\n{fence(text)}"


def whole_answer(seed: Seed, characters: int) -> str | None:
    """The first output of a seed that answers its instruction without an input and has at least so many characters."""
    return next((one.output for one in seed.instances if not one.input and len(one.output) >= characters), None)


def reversed_demonstrations(seeds: Iterable[Seed], characters: int) -> str:
    """One block per seed that has a whole answer of at least so many characters: the answer, then its instruction.

    Each block ends in a blank line, so that a prompt without demonstrations has no gap where they would be.
    """
    pairs = ((whole_answer(seed, characters), demonstration_text(seed.instruction)) for seed in seeds)
    return "".join(
        f"Text:\n{fenced(text)}\nInstruction: {instruction}\n\n" for text, instruction in pairs if text is not None
    )
