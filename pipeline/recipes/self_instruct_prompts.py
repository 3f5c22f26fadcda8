"""What Self-Instruct asks a model, in either style, and how its answers are read.

Completion style (a base model, the paper's way) goes on with a text: a numbered list, "Is it classification?",
"Example 1". Chat style (an instruct model) asks for the same in a user's turn, and takes what such models answer. There
one thing is asked apart: the output of an instance is the answer to its instruction and input as an ordinary turn, so
that it is in the style of an assistant and not in the clipped one of demonstrations.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from pipeline.chat_parsing import parse_inputs, parse_labels, parse_task_list, parse_yes_no
from pipeline.config import Config
from pipeline.errors import InputError
from pipeline.parsing import (
    parse_classification,
    parse_input_first,
    parse_instructions,
    parse_output_first,
    with_lead,
)
from pipeline.prompting import (
    Template,
    classification_demonstrations,
    input_demonstrations,
    input_first_demonstrations,
    load_template,
    numbered_tasks,
    output_first_demonstrations,
)
from pipeline.records import Instance, Message, Prompt, Seed


class SelfInstructPrompts:
    """The prompts of one run. What is fixed for the whole run is built once, here.

    `writes_outputs`: whether an input-first answer holds inputs only, whose outputs are asked for one by one (chat).
    """

    def __init__(self, config: Config, seeds: Sequence[Seed]) -> None:
        """Raises InputError for a prompt or a seed file that cannot serve this configuration."""
        self._config = config
        self._compat = config.compat == "self-instruct"
        style = config.engine.style or "completion"
        self.writes_outputs = self._chat = style == "chat"
        prompts, name = config.prompts, "bootstrap_topic" if config.bootstrap.topic else "bootstrap"
        self.bootstrap_template = load_template(name, getattr(prompts, name), style)
        self.classification_template = load_template("classification", prompts.classification, style)
        self._input_first = load_template("instance_input_first", prompts.instance_input_first, style)
        self._output_first = load_template("instance_output_first", prompts.instance_output_first, style)
        if len(seeds) < config.bootstrap.demonstrations:
            raise InputError(
                f"{config.seeds}: {len(seeds)} seeds are fewer than bootstrap.demonstrations = "
                f"{config.bootstrap.demonstrations}; add seeds or lower it"
            )
        self._fix_demonstrations(seeds)

    @property
    def templates(self) -> tuple[Template, ...]:
        return (self.bootstrap_template, self.classification_template, self._input_first, self._output_first)

    def instance_template(self, is_classification: bool) -> Template:
        """The prompt of stage 3: label first for a classification task, input first otherwise."""
        return self._output_first if is_classification else self._input_first

    @property
    def choices(self) -> tuple[str, ...]:
        """What the answer of stage 2 is constrained to in decoding; upstream's is free."""
        if self._compat:
            return ()
        return ("Yes", "No") if self._chat else (" Yes", " No")

    def _fix_demonstrations(self, seeds: Sequence[Seed]) -> None:
        """Choose the demonstrations of stages 2 and 3 from the seeds. They are the same in every prompt of the run, so
        that an engine computes them once (prefix caching)."""
        stage2, stage3 = self._config.classification, self._config.instances
        rng = random.Random(f"{self._config.seed}/demonstrations")
        yes = [seed for seed in seeds if seed.is_classification]
        no = [seed for seed in seeds if not seed.is_classification]
        shown = _draw(yes, stage2.positive, "classification.positive", rng)
        shown += _draw(no, stage2.negative, "classification.negative", rng)
        rng.shuffle(shown)
        self._classification_demonstrations = classification_demonstrations(shown)

        most, limit = stage3.demonstration_instances, stage3.demonstration_characters
        yes = [seed for seed in yes if _characters(seed, most) <= limit]
        no = [seed for seed in no if _characters(seed, most) <= limit]
        shown = _draw(yes, stage3.output_first_demonstrations, "instances.output_first_demonstrations", rng)
        self._output_first_demonstrations = output_first_demonstrations(shown, most)
        shown = _draw(no, stage3.input_first_demonstrations, "instances.input_first_demonstrations", rng)
        show = input_demonstrations if self._chat else input_first_demonstrations
        self._input_first_demonstrations = show(shown, most)

    # What is asked

    def bootstrap(self, instructions: Sequence[str]) -> Prompt:
        """Stage 1 over these demonstrations."""
        variables = {"tasks": numbered_tasks(instructions, lead=not self._chat)}
        if self._config.bootstrap.topic:
            variables["topic"] = self._config.bootstrap.topic
        return self._turn(self.bootstrap_template.render(**variables))

    def classification(self, instruction: str) -> Prompt:
        """Stage 2."""
        shown = self._classification_demonstrations
        return self._turn(self.classification_template.render(demonstrations=shown, instruction=instruction))

    def instances(self, instruction: str, is_classification: bool) -> Prompt:
        """Stage 3."""
        shown = self._output_first_demonstrations if is_classification else self._input_first_demonstrations
        template = self.instance_template(is_classification)
        limit = str(self._config.instances.limit)
        return self._turn(template.render(demonstrations=shown, instruction=instruction, limit=limit))

    def output(self, instruction: str, input: str) -> Prompt:
        """Chat style: the ordinary turn that the output of an instance answers."""
        return self._turn(f"{instruction}\n\n{input}" if input else instruction)

    def _turn(self, text: str) -> Prompt:
        if not self._chat:
            return text
        system = self._config.engine.system
        user = Message("user", text)
        return (user,) if system is None else (Message("system", system), user)

    # How the answers are read

    def read_instructions(self, text: str) -> list[str]:
        """The items of an answer of stage 1, in order; none where a chat model wrote no list."""
        return parse_task_list(text) if self._chat else parse_instructions(text, compat=self._compat)

    def read_classification(self, text: str) -> bool | None:
        """The answer of stage 2; None for neither yes nor no."""
        return parse_yes_no(text) if self._chat else parse_classification(text, compat=self._compat)

    def read_instances(self, prompt: Prompt, text: str, is_classification: bool) -> list[Instance]:
        """The instances of a completion-style answer of stage 3, or the labelled ones of a chat's."""
        if isinstance(prompt, str):
            text = with_lead(prompt, text)
            parse = parse_output_first if is_classification else parse_input_first
            return parse(text, compat=self._compat)
        return parse_labels(text)

    def read_inputs(self, text: str) -> list[str]:
        """Chat style: the inputs of an answer of stage 3; [""] for a task that needs none."""
        return parse_inputs(text)


def _characters(seed: Seed, instances: int) -> int:
    return len(seed.instruction) + sum(len(i.input) + len(i.output) for i in seed.instances[:instances])


def _draw(seeds: Sequence[Seed], count: int, key: str, rng: random.Random) -> list[Seed]:
    if count > len(seeds):
        raise InputError(f"{key} = {count}: the seed file has {len(seeds)} that fit; lower it, or add seeds")
    return rng.sample(seeds, count)
