"""The configuration: TOML by hand, these models in memory, JSON in the manifest.

An unknown key is an error that names the nearest known one. Paths are relative to the
folder the command is run in; "shipped:..." names something that comes with InstructMill.
"""

from __future__ import annotations

import difflib
import json
import textwrap
import tomllib
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

from pydantic import BaseModel, Field, ValidationError, model_validator

from pipeline.backtranslation_settings import (
    AugmentationSettings,
    ChatAugmentationSampling,
    CorpusSettings,
    CurationSettings,
    TagSettings,
)
from pipeline.engine_settings import EngineSettings, Style
from pipeline.errors import InputError
from pipeline.settings import (
    BootstrapSettings,
    ChatBootstrapSampling,
    ChatClassificationSampling,
    ChatInstanceSampling,
    ClassificationSettings,
    FilterSettings,
    InstanceSettings,
    NoveltySettings,
    PoolSettings,
    PromptSettings,
    SamplingSettings,
    Settings,
)

StageSettings = TypeVar(
    "StageSettings", BootstrapSettings, ClassificationSettings, InstanceSettings, AugmentationSettings
)

# Keys that belong to some recipes only: a table that a run would not heed is an error, as an unknown key is.
OWN_KEYS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(
        ("compat", "bootstrap", "filters", "classification", "instances", "exhaustion"), ("self-instruct",)
    ),
    **dict.fromkeys(("corpus", "augmentation", "judge"), ("backtranslation",)),
    "tags": ("backtranslation", "curate"),
    **dict.fromkeys(("target", "seeds", "novelty", "pool"), ("self-instruct", "backtranslation")),
    "curation": ("backtranslation", "curate"),
    "candidates": ("curate",),
}
DEFAULT_TARGET = 1000


class BudgetSettings(Settings):
    """What a run may use up, counted over restarts. A spent budget is a finished run."""

    tokens: int | None = Field(None, ge=1)
    """Prompt and completion tokens of committed units."""
    units: int | None = Field(None, ge=1)
    """Units of work."""
    hours: float | None = Field(None, gt=0)
    """Hours of running, without waiting for engines. The one budget that depends on time: it gives a prefix of the same
    rows."""


class ExhaustionSettings(Settings):
    """When novelty is exhausted: the run then ends with a clear word instead of going round for ever."""

    units: int = Field(200, ge=1)
    """How many of the last units to look at."""
    share: float = Field(0.02, ge=0, le=1)
    """The run ends when fewer than this share of their candidates was admitted; 0 turns it off."""


class ShardSettings(Settings):
    """When a range of units is committed: at whichever comes first."""

    rows: int = Field(10_000, ge=1)
    """Rows in any one table."""
    seconds: float = Field(60.0, gt=0)
    """Age of its first unit; what a crash costs at most, beside the open window."""


class Config(Settings):
    """One run. Every key of the TOML file is a field here, by the same name."""

    recipe: Literal["self-instruct", "backtranslation", "curate"] = "self-instruct"
    """The method. `curate` scores the pairs of a finished backtranslation run again (the paper's next round)."""
    name: str | None = Field(None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    """First part of every id; unless set, the first eight characters of the fingerprint."""
    out: str | None = None
    """The run folder; `--out` names another."""
    seed: int = 42
    """Seeds every choice of ours. No seed is given to the model."""
    target: int | None = Field(None, ge=1)
    """Admitted instructions to stop at, exactly: 1000 unless set. In backtranslation: accepted pairs; the whole corpus
    unless set."""
    compat: Literal["self-instruct"] | None = None
    """Restores upstream's quirks where the default mends them (ARCHITECTURE.md lists them)."""
    window: int | Literal["auto"] = "auto"
    """How many units behind the pool a prompt may be; where none is drawn from it, how many are under way. `auto`:
    min(4 x requests held, max(16, target / 16)), and 4 x requests held where none is drawn."""
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
    corpus: CorpusSettings = CorpusSettings()
    """Backtranslation: the unlabelled text."""
    augmentation: AugmentationSettings = AugmentationSettings()
    """Backtranslation: an instruction for each text."""
    curation: CurationSettings = CurationSettings()
    """Backtranslation: a score for each pair."""
    tags: TagSettings = TagSettings()
    """Backtranslation: the system sentences of seed and augmented rows."""
    candidates: str | None = None
    """`curate`: the finished run whose pairs are scored again."""
    pool: PoolSettings = PoolSettings()
    """What the pool starts from."""
    prompts: PromptSettings = PromptSettings()
    """Your own prompt files."""
    budget: BudgetSettings = BudgetSettings()
    """What the run may use up."""
    exhaustion: ExhaustionSettings = ExhaustionSettings()
    """When to give up on new instructions."""
    engine: EngineSettings = EngineSettings()
    """What answers requests."""
    judge: EngineSettings | None = None
    """Backtranslation: what scores, where that is another than what writes."""
    shards: ShardSettings = ShardSettings()
    """When rows become visible."""

    @model_validator(mode="after")
    def _window_and_model(self) -> Config:
        if self.window != "auto" and self.window < 1:
            raise ValueError('window must be at least 1, or "auto"')
        for name, engine in (("engine", self.engine), ("judge", self.judge)):
            if engine is not None and engine.kind != "scripted" and not engine.model:
                raise ValueError(f"{name}.model is missing: name a model folder, a model on the hub, or the endpoint's")
        return self

    @model_validator(mode="after")
    def _own_keys(self) -> Config:
        for key in sorted(self.model_fields_set & OWN_KEYS.keys()):
            unheeded = getattr(self, key) != Config.model_fields[key].default  # a written-out default harms nobody
            if unheeded and self.recipe not in OWN_KEYS[key]:
                theirs = " or ".join(f'"{recipe}"' for recipe in OWN_KEYS[key])
                raise ValueError(f'{key} is for recipe = {theirs}, and this one is "{self.recipe}"; leave it out')
        if self.recipe == "backtranslation" and self.pool.sample_imported:
            raise ValueError(
                'pool.sample_imported is for recipe = "self-instruct": this one shows no pool; leave it out'
            )
        if self.recipe == "backtranslation" and self.corpus.source is None:
            raise ValueError("corpus.source is missing: name a file, a folder, a glob, a URL or a data set")
        if self.recipe == "curate" and self.candidates is None:
            raise ValueError("candidates is missing: name the finished run whose pairs are scored again")
        return self

    @property
    def resolved_target(self) -> int | None:
        """Admitted instructions to stop at; None for all that the corpus gives."""
        return DEFAULT_TARGET if self.target is None and self.recipe == "self-instruct" else self.target

    @property
    def judging(self) -> EngineSettings:
        """The engine that scores."""
        return self.judge or self.engine

    def resolved_window(self) -> int:
        """Units between a prompt and the pool it samples (design, invariant 3)."""
        if self.window != "auto":
            return self.window
        full = 4 * self.engine.slots * self.engine.most
        if self.recipe != "self-instruct":  # its prompts hold nothing of the pool: the window bounds memory alone
            return full
        return min(full, max(16, (self.resolved_target or DEFAULT_TARGET) // 16))

    @property
    def resolved_novelty_workers(self) -> int:
        """Processes on the Ray cluster that look for the nearest; 0: a thread of the driver's process does."""
        if not self.novelty.enabled:
            return 0
        if self.novelty.workers != "auto":
            return self.novelty.workers
        return int(self.engine.kind == "vllm" and self.engine.num_gpus > 0)


def in_style(config: Config, style: Style, judge_style: Style | None = None) -> Config:
    """The configuration with its styles settled: what was not set has that style's defaults.

    Raises InputError where something asked for belongs to the other style.
    """
    bootstrap, classification, instances = config.bootstrap, config.classification, config.instances
    update: dict[str, Any] = {"engine": _styled(config.engine, style, "engine")}
    if config.judge is not None and judge_style is not None:
        update["judge"] = _styled(config.judge, judge_style, "judge")
    augmentation = config.augmentation
    if augmentation.mode == "backward" and "stop" not in augmentation.sampling.model_fields_set:
        # A fine-tuned model ends by itself, and its instruction may have a blank line in it.
        sampling = augmentation.sampling.model_copy(update={"stop": ()})
        update["augmentation"] = augmentation.model_copy(update={"sampling": sampling})
    refusals = {"drop_refusals": style == "chat"} if instances.drop_refusals is None else {}
    if style == "chat":
        if config.compat:
            raise InputError(
                "compat restores the paper's code, which knows no chat style; leave compat out, or set engine.style = "
                '"completion"'
            )
        update["bootstrap"] = _sampled(bootstrap, ChatBootstrapSampling)
        update["classification"] = _sampled(classification, ChatClassificationSampling)
        update["augmentation"] = _sampled(config.augmentation, ChatAugmentationSampling)
        instances = _sampled(instances, ChatInstanceSampling)
    return config.model_copy(update={**update, "instances": instances.model_copy(update=refusals)})


def _styled(engine: EngineSettings, style: Style, table: str) -> EngineSettings:
    if style != "chat" and (engine.system is not None or engine.chat_template_kwargs):
        key = "system" if engine.system is not None else "chat_template_kwargs"
        raise InputError(f'{table}.{key} is for chat style; leave it out, or set {table}.style = "chat"')
    return engine.model_copy(update={"style": style})


def _sampled(stage: StageSettings, defaults: type[SamplingSettings]) -> StageSettings:
    """A stage's settings with other defaults for what its sampling does not set."""
    sampling = stage.sampling.model_dump(include=stage.sampling.model_fields_set)
    return stage.model_copy(update={"sampling": defaults(**sampling)})


def load_config(path: str, overrides: tuple[str, ...] = (), out: str | None = None) -> Config:
    """Read a TOML file, apply `key.path=value` overrides and `out`, and validate.

    "shipped:demo.toml" names a configuration that comes with InstructMill. Raises InputError.
    """
    values = with_overrides(read_values(path), overrides)
    if out is not None:
        values["out"] = out
    return parse_config(values, f"{path} with --set" if overrides else path)


def with_overrides(values: dict[str, Any], overrides: tuple[str, ...]) -> dict[str, Any]:
    """Plain values with `key.path=value` overrides put in. Raises InputError."""
    for override in overrides:
        _apply_override(values, override)
    return values


def parse_config(values: dict[str, Any], where: str) -> Config:
    """Validate plain values. Raises InputError with one sentence about the first fault; `where` names the source."""
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise InputError(f"{where}: {_first_fault(error)}") from None


def read_values(path: str) -> dict[str, Any]:
    """The plain values of a TOML file, or of a shipped one, not validated. Raises InputError."""
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
        nested = next(
            (each for each in get_args(nested) if isinstance(each, type)), nested
        )  # a table that may be absent
        if not (isinstance(nested, type) and issubclass(nested, BaseModel)):
            return []
        model = nested
    return [field.alias or name for name, field in model.model_fields.items()]
