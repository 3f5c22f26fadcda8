"""The settings of the method: decoding, the stages of Self-Instruct, its filters, novelty and prompts.

Each default has one home, here; it is the paper's wherever the paper states one.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from pipeline.records import Sampling

# Words that ask for what a language model cannot see or do (section 2.2 of the paper; the list is upstream's).
BLACKLIST = (*"image images graph graphs picture pictures file files map maps draw plot".split(), "go to")


class Settings(BaseModel):
    """The base of every table: unknown keys are errors, a table never changes, docstrings describe fields."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class SamplingSettings(Settings):
    """Decoding, by vLLM's names. Nothing is left to the defaults of an engine or of a model's files."""

    max_tokens: int = Field(ge=1)
    """Most tokens of one answer."""
    temperature: float = Field(ge=0, le=2)
    """0 is greedy; 2 is the hottest that vLLM takes."""
    top_p: float = Field(1.0, gt=0, le=1)
    """Nucleus share; 1 turns it off."""
    top_k: int = Field(0, ge=-1)
    """Most likely tokens to choose from; 0 turns it off."""
    min_p: float = Field(0.0, ge=0, le=1)
    """Least probability relative to the likeliest token; 0 turns it off."""
    presence_penalty: float = Field(0.0, ge=-2, le=2)
    """Taken once from every token that has been written."""
    frequency_penalty: float = Field(0.0, ge=-2, le=2)
    """Taken from a token for each time it has been written."""
    repetition_penalty: float = Field(1.0, gt=0)
    """Multiplicative penalty on prompt and answer; 1 turns it off."""
    stop: tuple[str, ...] = ()
    """Texts that end an answer and are not part of it."""

    def resolved(self) -> Sampling:
        return Sampling(**self.model_dump())


class BootstrapSampling(SamplingSettings):
    """The paper's (Table 4): instructions are sampled, not greedy."""

    max_tokens: int = Field(1024, ge=1)
    """Most tokens of one list of instructions."""
    temperature: float = Field(0.7, ge=0, le=2)
    """The paper's 0.7."""
    top_p: float = Field(0.5, gt=0, le=1)
    """The paper's 0.5."""
    presence_penalty: float = Field(2.0, ge=-2, le=2)
    """The paper's 2."""
    stop: tuple[str, ...] = ("\n\n", "\n16", "16.", "16 .")
    """The paper's: a blank line, or the start of the item after the seventh new one."""


class ClassificationSampling(SamplingSettings):
    """The paper's: greedy. Unless `compat` is set, the answer is also constrained to Yes or No."""

    max_tokens: int = Field(3, ge=1)
    """Enough for the one word; a constrained answer may need it for a tokenizer that splits " Yes"."""
    temperature: float = Field(0.0, ge=0, le=2)
    """Greedy."""
    stop: tuple[str, ...] = ("\n", "Task")
    """The paper's."""


class InstanceSampling(SamplingSettings):
    """The paper's: greedy with a presence penalty."""

    max_tokens: int = Field(350, ge=1)
    """Most tokens for all the instances of one instruction (upstream: 350, paper: 300)."""
    temperature: float = Field(0.0, ge=0, le=2)
    """Greedy."""
    presence_penalty: float = Field(1.5, ge=-2, le=2)
    """The paper's 1.5."""
    stop: tuple[str, ...] = ("Example 6", "Task:")
    """The paper's: a sixth example, or the next task."""


# Chat style. The paper's numbers were chosen for GPT-3: on a sharp instruct model a top_p of 0.5 gives the same list
# again and again, a presence penalty of 2 bends its words, and a blank line, which it likes, would end a list.


class ChatBootstrapSampling(BootstrapSampling):
    """Chat style: hot, since every list should differ from all others, and without penalties."""

    temperature: float = Field(1.0, ge=0, le=2)
    """The model's own distribution."""
    top_p: float = Field(0.95, gt=0, le=1)
    """Without its unlikeliest words."""
    presence_penalty: float = Field(0.0, ge=-2, le=2)
    """None."""
    stop: tuple[str, ...] = ()
    """The model ends its turn itself."""


class ChatClassificationSampling(ClassificationSampling):
    """Chat style: greedy and constrained, as in completion style."""

    stop: tuple[str, ...] = ()
    """The model ends its turn itself."""


class ChatInstanceSampling(InstanceSampling):
    """Chat style: inputs, or labels with inputs, as varied as the instructions."""

    max_tokens: int = Field(1024, ge=1)
    """Most tokens for all the inputs of one instruction."""
    temperature: float = Field(1.0, ge=0, le=2)
    """The model's own distribution."""
    top_p: float = Field(0.95, gt=0, le=1)
    """Without its unlikeliest words."""
    presence_penalty: float = Field(0.0, ge=-2, le=2)
    """None."""
    stop: tuple[str, ...] = ()
    """The model ends its turn itself."""


class OutputSampling(SamplingSettings):
    """Chat style: the answer to one instruction with its input; cooler, since it should above all be right."""

    max_tokens: int = Field(2048, ge=1)
    """Most tokens of one answer."""
    temperature: float = Field(0.7, ge=0, le=2)
    """Not greedy: some instruct models go round in circles then."""
    top_p: float = Field(0.95, gt=0, le=1)
    """Without its unlikeliest words."""


class BootstrapSettings(Settings):
    """Stage 1: new instructions from demonstrations (paper, section 2.2)."""

    demonstrations: int = Field(8, ge=1)
    """Demonstrations in one prompt."""
    machine_made: int = Field(2, ge=0)
    """How many of them are admitted instructions, as far as there are any; the rest are seeds."""
    topic: str | None = None
    """A few words ("personal finance") for domain seeds; the prompt `bootstrap_topic` is used where it is set."""
    sampling: BootstrapSampling = BootstrapSampling()
    """How instructions are sampled."""

    @model_validator(mode="after")
    def _some_seed(self) -> BootstrapSettings:
        if self.machine_made >= self.demonstrations:
            raise ValueError("machine_made must be smaller than demonstrations: every prompt holds at least one seed")
        return self


class FilterSettings(Settings):
    """The paper's rules on an instruction, in its order. `blacklist`, `write_a_program` and the words are English."""

    empty: bool = True
    """Refuse an item with no text."""
    min_words: int = Field(4, ge=0)
    """Fewest words, cut at white space; 0 turns it off (for scripts that do not use spaces)."""
    max_words: int = Field(150, ge=0)
    """Most words, cut at white space; 0 turns it off."""
    blacklist: tuple[Annotated[str, Field(min_length=1)], ...] = BLACKLIST
    """Words that refuse an instruction wherever they stand, in any case; an empty list turns it off."""
    write_a_program: bool = True
    """Refuse what begins with "Write a program"."""
    punctuation_first: bool = True
    """Refuse what begins with ASCII punctuation."""
    non_ascii_first: bool = True
    """Refuse what begins with a character outside ASCII; turn it off for other scripts than Latin."""


class NoveltySettings(Settings):
    """The last filter: how near an instruction may be to a seed or to an admitted one."""

    enabled: bool = True
    """Off admits near copies too, and records no nearest neighbour."""
    threshold: float = Field(0.7, gt=0, le=1)
    """Refused when the largest ROUGE-L F is above this; exactly this is kept, as in the paper."""
    floor: float = Field(0.65, ge=0, le=1)
    """The nearest neighbour is looked for and recorded down to this F, or to the threshold where that is lower."""
    tokenizer: Literal["rouge", "unicode"] = "rouge"
    """`rouge`: runs of a-z and 0-9, as the paper's. `unicode`: letters and digits of all scripts, CJK by character."""
    workers: int | Literal["auto"] = "auto"
    """Processes on the Ray cluster, one CPU each, that hold a share of the pool; 0 keeps it in the driver's process.
    `auto`: 1 with engines on GPUs, else 0. They change no row."""
    timeout_s: float = Field(120, gt=0)
    """A worker that has not answered for so long is killed, replaced and filled again."""
    room_timeout_s: float = Field(3600, gt=0)
    """How long a worker may wait for its room on the cluster before the run stops with 75."""

    @model_validator(mode="after")
    def _some_workers(self) -> NoveltySettings:
        if self.workers != "auto" and self.workers < 0:
            raise ValueError('workers must be at least 0, or "auto"')
        return self

    @property
    def lowest(self) -> float:
        """The smallest F that is looked for: what is refused always has its nearest neighbour."""
        return min(self.floor, self.threshold)


class ClassificationSettings(Settings):
    """Stage 2: is the instruction a classification task? The demonstrations are seeds, fixed for the run."""

    positive: int = Field(12, ge=0)
    """Demonstrations that are classification tasks."""
    negative: int = Field(19, ge=0)
    """Demonstrations that are not."""
    sampling: ClassificationSampling = ClassificationSampling()
    """How the answer is sampled."""


class InstanceSettings(Settings):
    """Stage 3: instances, label first for a classification task and input first for any other."""

    output_first_demonstrations: int = Field(16, ge=0)
    """Seeds shown before a classification task."""
    input_first_demonstrations: int = Field(11, ge=0)
    """Seeds shown before any other task."""
    demonstration_instances: int = Field(2, ge=1)
    """Most instances shown of one seed."""
    demonstration_characters: int = Field(800, ge=1)
    """A seed longer than this with the instances shown is not used as a demonstration here."""
    limit: int = Field(5, ge=1)
    """Most instances kept of one instruction."""
    sampling: InstanceSampling = InstanceSampling()
    """How instances are sampled; in chat style, their inputs."""
    output_sampling: OutputSampling = OutputSampling()
    """Chat style: how the output of one instance is sampled."""
    drop_refusals: bool | None = None
    """Refuse an output that declines its task, in English. Unless set: in chat style only."""


class PromptSettings(Settings):
    """Prompt files in place of the shipped ones, each with the variables of the shipped one."""

    bootstrap: str | None = None
    """Variable: tasks."""
    bootstrap_topic: str | None = None
    """Variables: topic, tasks."""
    classification: str | None = None
    """Variables: demonstrations, instruction."""
    instance_input_first: str | None = None
    """Variables: demonstrations, instruction."""
    instance_output_first: str | None = None
    """Variables: demonstrations, instruction."""
    augmentation: str | None = None
    """Variables: text, demonstrations where any are shown, and fence (the line that keeps a text apart), if wanted."""
    backward: str | None = None
    """Variable: text."""
    curation: str | None = None
    """Variables: instruction, output, and fence, if wanted."""
    curation_rationale: str | None = None
    """Variables: instruction, output, and fence, if wanted."""


class PoolSettings(Settings):
    """What the pool holds from the start, beside the seeds."""

    model_config = ConfigDict(serialize_by_alias=True, validate_by_alias=True)

    sources: tuple[str, ...] = Field((), alias="from")
    """Run folders whose admitted instructions count for novelty; what they had when this run was planned."""
    sample_imported: bool = False
    """Draw them as demonstrations too, as if they were this run's own."""

    @field_validator("sources", mode="before")
    @classmethod
    def _one_or_more(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value
