"""What instruction backtranslation asks a model, in either style, and how its answers are read.

The writer gets a text and gives its instruction: a prompted model with reversed seeds as examples, a fine-tuned
backward model with nothing but the text. The judge gets the pair. What both are shown may hold instructions of its own,
so the shipped prompts fence it and name it as data.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

from pipeline.augmentation import parse_instruction, refusal, word_runs
from pipeline.config import Config
from pipeline.engine_settings import EngineSettings
from pipeline.errors import InputError
from pipeline.filters import Refusal
from pipeline.prompting import (
    SCORE_LEAD,
    Template,
    fence,
    load_template,
    reversed_demonstrations,
    whole_answer,
)
from pipeline.records import Message, Prompt, Seed, Segment

# A longer seed is shown only where too few are shorter: every prompt of the run holds it.
LONGEST_DEMONSTRATION = 2500

# Chat style, after the judge's reason. The answer is one step, so nothing else may come first.
SCORE_ALONE = "Now the score alone: one digit from 1 to 5."

# Plain words in place of a text or an instruction whose length alone matters.
_FILLER = "Plain words of common length stand here for those of a real one. "
# Where a judge goes over from its reason to its score, should the engine not have stopped there.
_SCORE = re.compile(r"(?i)[\s*_#>-]*(?:\b(?:the|my|final|overall) )*\bscore[*_]*(?: is\b| would be\b|\s*[:=]|\s*\d)")


class BacktranslationPrompts:
    """The writer's prompts of one run. What is fixed for the whole run is built once, here.

    `augmentation_template` is the one in use.
    """

    def __init__(self, config: Config, seeds: Sequence[Seed]) -> None:
        """Raises InputError for a prompt or a seed file that cannot serve this configuration."""
        self._config = config
        self._style = config.engine.style or "completion"
        self._backward = config.augmentation.mode == "backward"
        name = "backward" if self._backward else "augmentation"
        self.augmentation_template = load_template(name, getattr(config.prompts, name), self._style)
        shown = () if self._backward else _draw(config, seeds)
        if shown and "demonstrations" not in self.augmentation_template.variables:
            raise InputError(
                f"[prompts] augmentation = {config.prompts.augmentation!r}: the template has no `$demonstrations`; "
                "add it, or set augmentation.demonstrations = 0"
            )
        self._demonstrations = reversed_demonstrations(shown, config.augmentation.demonstration_characters)
        own = [*self.augmentation_template.own_texts, config.engine.system or ""]
        self._own_runs = word_runs(own, config.augmentation.echo_words)

    @property
    def templates(self) -> tuple[Template, ...]:
        return (self.augmentation_template,)

    @property
    def longest(self) -> Prompt:
        """The prompt for a text of corpus.max_characters."""
        return self.augmentation(Segment("", "", None, _filler(self._config.corpus.max_characters)))

    def augmentation(self, segment: Segment) -> Prompt:
        """Self-augmentation: what instruction is this the answer to? A prompted model sees the text's header too."""
        if self._backward:
            return _turns(self._config.engine, self.augmentation_template.render(text=segment.text))
        text = f"{segment.header}\n\n{segment.text}" if segment.header else segment.text
        shown = self._demonstrations
        filled = self.augmentation_template.render(text=text, fence=fence(text), demonstrations=shown)
        return _turns(self._config.engine, filled)

    def read_instruction(self, text: str) -> str:
        """The instruction of an answer, without what the model wrapped around it; "" where there is none."""
        return parse_instruction(text, chat=self._style == "chat")

    def refusal(self, instruction: str, segment: Segment, *, truncated: bool) -> Refusal | None:
        """Why an instruction cannot be that of its text, or None."""
        return refusal(
            instruction,
            segment.text,
            settings=self._config.augmentation,
            prompt_runs=self._own_runs,
            truncated=truncated,
        )


class CurationPrompts:
    """The judge's prompts of one run. `template` is the one in use, and `lead` what the digit comes after."""

    lead = SCORE_LEAD

    def __init__(self, config: Config) -> None:
        """Raises InputError for a prompt that cannot serve."""
        self._config = config
        self._engine = config.judging
        self._rationale = config.curation.mode == "rationale"
        name = "curation_rationale" if self._rationale else "curation"
        self.template = load_template(name, getattr(config.prompts, name), self._engine.style or "completion")

    @property
    def templates(self) -> tuple[Template, ...]:
        return (self.template,)

    def longest(self, characters: tuple[int, int] | None = None) -> list[Prompt]:
        """Every prompt for one pair in its longest form: of an instruction and a text of so many characters, or of
        augmentation.max_words and corpus.max_characters."""
        words = (_FILLER * self._config.augmentation.max_words).split()[: self._config.augmentation.max_words]
        instruction, output = " ".join(words), _filler(self._config.corpus.max_characters)
        if characters is not None:
            instruction, output = map(_filler, characters)
        if not self._rationale:
            return [self.score(instruction, output)]
        reason = "word " * self._config.curation.rationale_sampling.max_tokens
        return [self.rationale(instruction, output), self.score(instruction, output, reason.strip())]

    def rationale(self, instruction: str, output: str) -> Prompt:
        """Mode `rationale`: the reason is asked for first."""
        return self._pair(instruction, output)

    def read_rationale(self, text: str) -> str:
        """The reason alone, without a score that follows it."""
        found = _SCORE.search(text)
        return text[: found.start() if found else None].strip()

    def score(self, instruction: str, output: str, rationale: str | None = None) -> Prompt:
        """What the one weighed step comes after; in mode `rationale`, the judge's own reason included."""
        asked = self._pair(instruction, output)
        if not self._rationale:
            return asked
        if isinstance(asked, str):
            gap = " " if rationale and not asked[-1:].isspace() else ""
            return f"{asked}{gap}{rationale or ''}\n{SCORE_LEAD}"
        if not rationale:  # a chat template may have no place for an empty turn
            return asked
        return (*asked, Message("assistant", rationale), Message("user", SCORE_ALONE))

    def _pair(self, instruction: str, output: str) -> Prompt:
        line = fence(instruction, output)
        return _turns(self._engine, self.template.render(instruction=instruction, output=output, fence=line))


def _turns(engine: EngineSettings, text: str) -> Prompt:
    """A text in the style of an engine: as it is, or as a user's turn after the system message."""
    if engine.style != "chat":
        return text
    user = Message("user", text)
    return (user,) if engine.system is None else (Message("system", engine.system), user)


def _filler(characters: int) -> str:
    return (_FILLER * (characters // len(_FILLER) + 1))[:characters]


def _draw(config: Config, seeds: Sequence[Seed]) -> list[Seed]:
    """The demonstrations of a run. They are the same in every prompt, so that an engine computes them once."""
    settings = config.augmentation
    answers = [(seed, whole_answer(seed, settings.demonstration_characters)) for seed in seeds]
    fit = [(seed, len(answer)) for seed, answer in answers if answer is not None]
    if len(fit) < settings.demonstrations:
        raise InputError(
            f"augmentation.demonstrations = {settings.demonstrations}: {config.seeds} has {len(fit)} seeds that fit, "
            f"with an empty input and an output of at least augmentation.demonstration_characters = "
            f"{settings.demonstration_characters} characters; lower either, or add seeds"
        )
    short = [seed for seed, length in fit if length <= LONGEST_DEMONSTRATION]
    drawn_from = short if len(short) >= settings.demonstrations else [seed for seed, _ in fit]
    return random.Random(f"{config.seed}/demonstrations").sample(drawn_from, settings.demonstrations)
