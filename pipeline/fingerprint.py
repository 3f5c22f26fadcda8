"""What a run is made of: the values that change its rows, flat, so that two runs can be compared key by key."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.config import Config
from pipeline.errors import InputError
from pipeline.prompting import Template
from pipeline.shards import SCHEMA_VERSION
from pipeline.sources import is_local, model_digest, model_path

FINGERPRINT_VERSION = 1

# vLLM options that change how fast rows come and not which: a run may go on with other values.
CAPACITY_OPTIONS = frozenset(
    "tensor_parallel_size pipeline_parallel_size gpu_memory_utilization max_num_seqs max_num_batched_tokens "
    "enforce_eager distributed_executor_backend kv_cache_memory_bytes block_size swap_space cpu_offload_gb "
    "enable_prefix_caching enable_chunked_prefill max_num_partial_prefills load_format disable_log_stats "
    "download_dir compilation_config max_parallel_loading_workers".split()
)


def model_facts(config: Config, before: dict[str, Any] | None = None) -> dict[str, Any]:
    """What identifies the model: name, revision, digests of a local folder's files, and its licence as stated there.

    `before` is the manifest's entry of a run that goes on: where the same model and revision are asked for, it stands.
    Raises InputError when a model folder does not exist or is not one.
    """
    engine = config.engine
    if engine.kind == "scripted" or engine.model is None:
        return {"name": "scripted", "asked": None, "revision": None, "files": {}, "licence": "unknown"}
    if is_local(engine.model):
        folder = Path(model_path(engine.model))
        if not folder.is_dir():
            raise InputError(f"engine.model = {engine.model!r}: there is no such folder")
        if not (folder / "config.json").is_file():
            raise InputError(f"engine.model = {engine.model!r}: the folder has no config.json, so it is no model")
        files = model_digest(engine.model)
        digest = hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()
        card = folder / "README.md"
        licence = _stated_licence(card.read_text(encoding="utf-8", errors="replace")) if card.is_file() else "unknown"
        name = engine.model if engine.model.startswith("shipped:") else folder.name
        return {"name": name, "asked": None, "revision": digest[:12], "files": files, "licence": licence}
    return _hub_facts(engine.model, engine.revision, before)


def _hub_facts(model: str, revision: str | None, before: dict[str, Any] | None) -> dict[str, Any]:
    """The commit that a hub model's revision stands for now, from the hub or else from its cache on this machine."""
    if before is not None and (before["name"], before["asked"]) == (model, revision) and before["revision"]:
        return before
    facts: dict[str, Any] = {"name": model, "asked": revision, "revision": revision, "files": {}, "licence": "unknown"}
    try:
        from huggingface_hub import HfApi, snapshot_download
        from huggingface_hub.errors import HTTPError, LocalEntryNotFoundError, RepositoryNotFoundError
    except ImportError:
        return facts
    try:
        info = HfApi().model_info(model, revision=revision, timeout=10)
        licence = getattr(info.card_data, "license", None) if info.card_data else None
        return {**facts, "revision": info.sha, "licence": licence or "unknown"}
    except RepositoryNotFoundError:
        raise InputError(
            f"engine.model = {model!r}: not a folder here, and the hub has no such model (or it needs a token)"
        ) from None
    except (HTTPError, OSError):  # the hub cannot be reached: what is cached here is what will be loaded
        pass
    try:
        folder = snapshot_download(model, revision=revision, local_files_only=True, allow_patterns=["config.json"])
        return {**facts, "revision": Path(folder).name}
    except (LocalEntryNotFoundError, OSError):
        return facts


def _stated_licence(card: str) -> str:
    """The `license:` line of a model card's front matter."""
    if not card.startswith("---"):
        return "unknown"
    for line in card.split("---", 2)[1].splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "license" and value.strip():
            return value.strip()
    return "unknown"


def fingerprint_values(
    config: Config,
    *,
    window: int,
    seeds_sha256: str,
    templates: Sequence[Template],
    model: dict[str, Any],
    recipe_version: int,
) -> dict[str, Any]:
    """Every value that changes rows, by its key in the configuration where it has one."""
    resolved = config.model_dump(mode="json")
    values: dict[str, Any] = {
        "fingerprint_version": FINGERPRINT_VERSION,
        "schema_version": SCHEMA_VERSION,
        "recipe": f"{config.recipe}/{recipe_version}",
        "name": config.name,
        "seed": config.seed,
        "compat": config.compat,
        "window": window,
        "seeds": seeds_sha256,
        "engine.kind": config.engine.kind,
        "engine.model": {key: model[key] for key in ("name", "revision")},
    }
    values |= {f"prompts.{template.name}": template.hash for template in templates}
    for table in ("bootstrap", "filters", "novelty", "classification", "instances"):
        values |= _flat(resolved[table], table)
    options = {key: value for key, value in config.engine.vllm.items() if key not in CAPACITY_OPTIONS}
    return values | _flat(options, "engine.vllm")


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
        flat |= _flat(value, f"{prefix}.{key}") if isinstance(value, dict) else {f"{prefix}.{key}": value}
    return flat


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
