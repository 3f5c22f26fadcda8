"""The configuration: TOML by hand, these models in memory, JSON in the manifest.

Each default has one home, here. An unknown key is an error that names the nearest known one. Paths are relative to the
folder the command is run in; "shipped:..." names something that comes with InstructMill.
"""

from __future__ import annotations

import difflib
import json
import math
import textwrap
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from pipeline.errors import InputError
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
    """How instances are sampled."""


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


class BudgetSettings(Settings):
    """What a run may use up, counted over restarts. A spent budget is a finished run."""

    tokens: int | None = Field(None, ge=1)
    """Prompt and completion tokens of committed units."""
    units: int | None = Field(None, ge=1)
    """Units of work."""
    hours: float | None = Field(None, gt=0)
    """Hours of running. The one budget that depends on time: it gives a prefix of the same rows."""


class ExhaustionSettings(Settings):
    """When novelty is exhausted: the run then ends with a clear word instead of going round for ever."""

    units: int = Field(200, ge=1)
    """How many of the last units to look at."""
    share: float = Field(0.02, ge=0, le=1)
    """The run ends when fewer than this share of their candidates was admitted; 0 turns it off."""


class ScriptedSettings(Settings):
    """The engine of the tests: answers computed from the request. Needs neither Ray nor a model."""

    capacity: int = Field(16, ge=1)
    """Requests held at once by one engine."""
    delay_s: float = Field(0.0, ge=0)
    """Longest pause before an answer, in seconds; each request has its own share of it."""
    call_log: str | None = None
    """A file to which the key of each request is appended as it is asked."""


class EngineSettings(Settings):
    """What answers requests."""

    kind: Literal["vllm", "scripted"] = "vllm"
    """`vllm`: Ray actors, on GPUs or CPUs. `scripted`: the tests' fake."""
    model: str | None = None
    """A model folder, a name on the Hugging Face hub, or "shipped:embedded" (the demo's)."""
    revision: str | None = None
    """Branch, tag or commit of a model on the hub."""
    count: int = Field(1, ge=1)
    """Engines, each in an actor of its own."""
    num_gpus: int = Field(1, ge=0)
    """GPUs of one engine: tensor parallel over them. 0 runs it on the CPU."""
    num_cpus: int = Field(1, ge=1)
    """CPUs of one engine; on the CPU, its threads."""
    cpu_kv_cache_gib: float = Field(1.0, gt=0)
    """Memory for the KV cache of an engine on the CPU, in GiB."""
    start_timeout_s: float = Field(900, gt=0)
    """How long the first engine may take to load."""
    vllm: dict[str, Any] = {}
    """vLLM's own engine options under vLLM's names (max_model_len, max_num_seqs, dtype, quantization, ...)."""
    scripted: ScriptedSettings = ScriptedSettings()
    """Options of the scripted engine."""

    @model_validator(mode="after")
    def _read_options(self) -> EngineSettings:
        seqs = self.vllm.get("max_num_seqs", 1)
        if type(seqs) is not int or seqs < 1:
            raise ValueError(f"vllm.max_num_seqs must be a whole number of at least 1, not {seqs!r}")
        return self

    @property
    def max_num_seqs(self) -> int:
        """Sequences one engine decodes at once (vLLM's `max_num_seqs`; 256 unless set)."""
        return int(self.vllm.get("max_num_seqs", 256))

    @property
    def slots(self) -> int:
        """Requests that one engine holds: 1.2 x max_num_seqs, so that the next ones wait inside the engine."""
        return self.scripted.capacity if self.kind == "scripted" else math.ceil(1.2 * self.max_num_seqs)


class ShardSettings(Settings):
    """When a range of units is committed: at whichever comes first."""

    rows: int = Field(10_000, ge=1)
    """Rows in any one table."""
    seconds: float = Field(60.0, gt=0)
    """Age of its first unit; what a crash costs at most, beside the open window."""


class Config(Settings):
    """One run. Every key of the TOML file is a field here, by the same name."""

    recipe: Literal["self-instruct"] = "self-instruct"
    """The method."""
    name: str | None = Field(None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    """First part of every id; unless set, the first eight characters of the fingerprint."""
    out: str | None = None
    """The run folder; `--out` names another."""
    seed: int = 42
    """Seeds every choice of ours. No seed is given to the model."""
    target: int = Field(1000, ge=1)
    """Admitted instructions to stop at, exactly."""
    compat: Literal["self-instruct"] | None = None
    """Restores upstream's quirks where the default mends them (ARCHITECTURE.md lists them)."""
    window: int | Literal["auto"] = "auto"
    """How many units behind the pool a prompt may be. `auto`: min(4 x requests held, max(16, target / 16))."""
    seeds: str = "shipped:seeds.jsonl"
    """The seed file: JSON lines in Self-Instruct's schema."""
    bootstrap: BootstrapSettings = BootstrapSettings()
    """Stage 1."""
    filters: FilterSettings = FilterSettings()
    """Rules on an instruction."""
    novelty: NoveltySettings = NoveltySettings()
    """ROUGE-L against the pool."""
    classification: ClassificationSettings = ClassificationSettings()
    """Stage 2."""
    instances: InstanceSettings = InstanceSettings()
    """Stage 3."""
    prompts: PromptSettings = PromptSettings()
    """Your own prompt files."""
    budget: BudgetSettings = BudgetSettings()
    """What the run may use up."""
    exhaustion: ExhaustionSettings = ExhaustionSettings()
    """When to give up on new instructions."""
    engine: EngineSettings = EngineSettings()
    """What answers requests."""
    shards: ShardSettings = ShardSettings()
    """When rows become visible."""

    @model_validator(mode="after")
    def _window_and_model(self) -> Config:
        if self.window != "auto" and self.window < 1:
            raise ValueError('window must be at least 1, or "auto"')
        if self.engine.kind == "vllm" and not self.engine.model:
            raise ValueError("engine.model is missing: name a model folder or a model on the hub")
        return self

    def resolved_window(self) -> int:
        """Units between a prompt and the pool it samples (design, invariant 3)."""
        if self.window != "auto":
            return self.window
        return min(4 * self.engine.slots * self.engine.count, max(16, self.target // 16))


def load_config(path: str, overrides: tuple[str, ...] = (), out: str | None = None) -> Config:
    """Read a TOML file, apply `key.path=value` overrides and `out`, and validate.

    "shipped:demo.toml" names a configuration that comes with InstructMill. Raises InputError.
    """
    values = _read_toml(path)
    for override in overrides:
        _apply_override(values, override)
    if out is not None:
        values["out"] = out
    return parse_config(values, path)


def parse_config(values: dict[str, Any], where: str) -> Config:
    """Validate plain values. Raises InputError with one sentence about the first fault; `where` names the source."""
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise InputError(f"{where}: {_first_fault(error)}") from None


def _read_toml(path: str) -> dict[str, Any]:
    file = (
        Path(__file__).parent / "configs" / path.removeprefix("shipped:") if path.startswith("shipped:") else Path(path)
    )
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such configuration file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from None
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path}: not valid TOML: {error}") from None


def _apply_override(values: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise InputError(f"--set {override}: write it as key.path=value")
    try:
        value: Any = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text  # a bare word is a string, so that --set name=night works
    *parents, leaf = key.strip().split(".")
    for depth, parent in enumerate(parents):
        values = values.setdefault(parent, {})
        if not isinstance(values, dict):
            raise InputError(f"--set {override}: {'.'.join(parents[: depth + 1])} is not a table")
    values[leaf] = value


def _first_fault(error: ValidationError) -> str:
    fault = error.errors(include_url=False)[0]
    location = [part for part in fault["loc"] if part not in ("int", "literal['auto']")]  # pydantic's union branches
    path = ".".join(map(str, location))
    if fault["type"] == "extra_forbidden":
        known = _known_keys(fault["loc"][:-1])
        near = difflib.get_close_matches(str(fault["loc"][-1]), known, n=1)
        return f"unknown key {path!r}; " + (f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(known)}")
    message = fault["msg"].removeprefix("Value error, ")
    message = message[0].lower() + message[1:]
    if fault["type"] == "value_error":
        return f"{path}: {message}" if path else message
    shown = textwrap.shorten(json.dumps(fault["input"], default=str), 80, placeholder="...")
    return f"key {path!r}: {message} (it is {shown})"


def _known_keys(path: tuple[int | str, ...]) -> list[str]:
    model: type[BaseModel] = Config
    for part in path:
        nested = model.model_fields[str(part)].annotation
        if not (isinstance(nested, type) and issubclass(nested, BaseModel)):
            return []
        model = nested
    return list(model.model_fields)
