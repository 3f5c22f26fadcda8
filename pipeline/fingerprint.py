"""What a run is made of: the values that change its rows, flat, so that two runs can be compared key by key."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Sequence
from typing import Any

from pipeline.config import Config
from pipeline.engine_settings import EngineSettings
from pipeline.errors import InputError
from pipeline.filters import OwnFilter
from pipeline.prompting import Template
from pipeline.shards import SCHEMA_VERSION

FINGERPRINT_VERSION = 4

# vLLM options that change how fast rows come and not which: a run may go on with other values.
CAPACITY_OPTIONS = frozenset(
    "tensor_parallel_size pipeline_parallel_size gpu_memory_utilization max_num_seqs max_num_batched_tokens "
    "enforce_eager distributed_executor_backend kv_cache_memory_bytes block_size swap_space cpu_offload_gb "
    "enable_prefix_caching enable_chunked_prefill max_num_partial_prefills disable_log_stats "
    "download_dir compilation_config max_parallel_loading_workers max_lora_rank max_loras".split()
)


# The tables of the method that change rows, by recipe.
TABLES = {
    "self-instruct": ("bootstrap", "filters", "novelty", "classification", "instances"),
    "backtranslation": ("corpus", "augmentation", "curation", "novelty"),
    "curate": ("curation",),
}
# What changes no row; where the corpus is, since what it holds stands in its fingerprint.
_NO_ROW = frozenset("novelty.workers novelty.timeout_s novelty.room_timeout_s corpus.source corpus.revision".split())


def fingerprint_values(
    config: Config,
    *,
    window: int | None,
    seeds_sha256: str | None,
    templates: Sequence[Template],
    model: dict[str, Any],
    recipe_version: int,
    own_filters: Sequence[OwnFilter] = (),
    judge: dict[str, Any] | None = None,
    corpus: str | None = None,
    imports: Sequence[dict[str, Any]] = (),
    candidates: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Every value that changes rows, by its key in the configuration where it has one.

    `window` is None where the recipe does not sample the pool, `corpus` the fingerprint of its files, `imports` and
    `candidates` what identifies other runs that this one reads.
    """
    resolved = config.model_dump(mode="json")
    values: dict[str, Any] = {
        "fingerprint_version": FINGERPRINT_VERSION,
        "schema_version": SCHEMA_VERSION,
        "recipe": f"{config.recipe}/{recipe_version}",
        "name": config.name,
        "seed": None if config.recipe == "curate" else config.seed,
        "compat": config.compat,
        "window": window,
        "seeds": seeds_sha256,
        "corpus": corpus,
        "candidates": candidates,
    }
    if imports:
        values |= {"pool.from": list(imports), "pool.sample_imported": config.pool.sample_imported}
    values |= _engine_values(config.engine, model, "engine")
    if config.judge is not None and judge is not None:
        values |= _engine_values(config.judge, judge, "judge")
    if own_filters:
        values["filters.own"] = [_source_hash(each) for each in own_filters]
    values |= {f"prompts.{template.name}": template.hash for template in templates}
    for table in TABLES[config.recipe]:
        values |= _flat(resolved[table], table)
    unheeded = _unheeded(config)
    return {
        key: value
        for key, value in values.items()
        if key not in _NO_ROW and not (unheeded and key.startswith(unheeded))
    }


def _unheeded(config: Config) -> tuple[str, ...]:
    """What the beginnings of those keys are that this configuration does not use."""
    unheeded = []
    if config.engine.style != "chat":  # it writes no outputs apart
        unheeded.append("instances.output_sampling.")
    if config.curation.mode != "rationale":
        unheeded.append("curation.rationale_sampling.")
    if config.augmentation.mode == "backward":
        unheeded.append("augmentation.demonstration")
    return tuple(unheeded)


def _engine_values(engine: EngineSettings, model: dict[str, Any], key: str) -> dict[str, Any]:
    """What of an engine changes rows; `key` is its table's."""
    values: dict[str, Any] = {
        f"{key}.kind": engine.kind,
        f"{key}.model": {name: model[name] for name in ("name", "revision")},
        f"{key}.style": engine.style,
    }
    if engine.style == "chat":
        values[f"{key}.system"] = engine.system
        values |= _flat(engine.chat_template_kwargs, f"{key}.chat_template_kwargs")
    if engine.kind == "openai":
        values |= _flat(engine.openai.extra_body, f"{key}.openai.extra_body")
    if engine.kind != "vllm":
        return values
    options = {name: value for name, value in engine.vllm.items() if name not in CAPACITY_OPTIONS}
    # Their files in place of where these are.
    options |= {
        name: model[part] for name, part in (("lora_modules", "adapter"), ("tokenizer", "tokenizer")) if model[part]
    }
    return values | _flat(options, f"{key}.vllm")


def _source_hash(own: OwnFilter) -> str:
    """A filter given from Python: its name, and a hash of its source, its defaults and the values it closes over.

    Raises InputError where they cannot be known: two filters must never pass for one.
    """
    name = getattr(own, "__qualname__", repr(own))
    try:
        cells = [cell.cell_contents for cell in getattr(own, "__closure__", None) or ()]
        values = json.dumps([getattr(own, "__defaults__", None), getattr(own, "__kwdefaults__", None), cells])
        source = inspect.getsource(own)
    except (OSError, TypeError, ValueError):
        raise InputError(
            f"the filter {name} must be a plain function in a file, with plain values for its defaults and for what it "
            "closes over: they are part of what the run is"
        ) from None
    return f"{name}:{hashlib.sha256((source + values).encode()).hexdigest()[:16]}"


def fingerprint(values: dict[str, Any]) -> str:
    """The SHA-256 of the values, in hex."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def differing_keys(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Keys whose values differ, each with both values, in the order of their names."""
    return [
        f"{key} ({_short(old.get(key))} there, {_short(new.get(key))} here)"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
    ]


def _flat(table: dict[str, Any], prefix: str) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in table.items():
        nested = isinstance(value, dict) and value  # an empty table is a value too
        flat |= _flat(value, f"{prefix}.{key}") if nested else {f"{prefix}.{key}": value}
    return flat


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
