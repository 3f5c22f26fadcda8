"""The configuration of a next round of self-curation: that of the run whose pairs are scored, less what is done."""

from __future__ import annotations

import copy
from typing import Any

from pipeline.config import Config, parse_config, read_values, with_overrides
from pipeline.errors import InputError
from pipeline.fingerprint import CAPACITY_OPTIONS
from pipeline.reading import open_folder
from pipeline.storage import folder_at

# What a round takes over of a run's configuration.
TAKEN_OVER = ("name", "seed", "curation", "tags", "shards")
# What of an engine holds for another model too: where it runs, and how much of it.
OF_ANY_MODEL = frozenset(
    "kind count min max num_gpus num_cpus resources cpu_kv_cache_gib start_timeout_s room_timeout_s silent_timeout_s "
    "stall_timeout_s openai scripted".split()
)
OPTIONS_OF_ANY_MODEL = CAPACITY_OPTIONS | {"max_model_len", "dtype"}


def round_config(run: str, file: str | None, overrides: tuple[str, ...], out: str | None) -> Config:
    """The configuration that scores the pairs of `run` again: its judge's engine and its curation, with the tables of a
    TOML file in their place, then `key.path=value` overrides. Of the engine of another model no more is taken over than
    where it runs.

    Raises InputError where there is no run, or what is asked for cannot be.
    """
    manifest, _ = open_folder(run)
    if out is not None and str(folder_at(out)) == str(folder_at(run)):
        raise InputError(f"--out {out}: that is the run whose pairs are scored; name another folder")
    before: dict[str, Any] = manifest["config"]
    given = read_values(file) if file else {}
    for key, value in (("recipe", "curate"), ("candidates", run)):
        if given.get(key, value) != value:
            raise InputError(f"{file}: {key} = {given[key]!r}, and `curate {run}` makes it {value!r}; leave it out")

    def values(engine: dict[str, Any]) -> dict[str, Any]:
        taken: dict[str, Any] = {key: before[key] for key in TAKEN_OVER if before.get(key) is not None}
        prompts = {key: text for key, text in before["prompts"].items() if text and key.startswith("curation")}
        taken |= {"prompts": prompts, "engine": engine, **given, "recipe": "curate", "candidates": run}
        set_now = {override.partition("=")[0].strip() for override in overrides}
        if "engine" not in given:
            replaced = {"min", "max"} if "engine.count" in set_now else {"count"} if "engine.max" in set_now else set()
            taken["engine"] = {key: value for key, value in taken["engine"].items() if key not in replaced}
        return with_overrides(copy.deepcopy(taken), overrides)

    engine = _judge(before)
    asked = values(engine)
    if "engine" not in given and asked["engine"].get("model") != engine.get("model"):
        asked = values(_for_any_model(engine))
    if out is not None:
        asked["out"] = out
    return parse_config(asked, file or "curate")


def _judge(before: dict[str, Any]) -> dict[str, Any]:
    """The engine that has scored: without the adapter of a backward model, which only wrote."""
    engine = dict(before.get("judge") or before["engine"])
    if before.get("judge") is None and before["augmentation"]["mode"] == "backward":
        engine["vllm"] = {key: value for key, value in engine["vllm"].items() if key != "lora_modules"}
    counted = "count" if engine.get("max") is not None else None  # the default that a manifest writes out
    return {key: value for key, value in engine.items() if value is not None and key != counted}


def _for_any_model(engine: dict[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in engine.items() if key in OF_ANY_MODEL}
    return kept | {"vllm": {key: value for key, value in engine["vllm"].items() if key in OPTIONS_OF_ANY_MODEL}}
