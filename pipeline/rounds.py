"""The configuration of a next round of self-curation: that of the run whose pairs are scored, less what is done."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.config import Config, parse_config, read_values, with_overrides
from pipeline.report import open_folder

# What a round takes over of a run's configuration.
TAKEN_OVER = ("name", "seed", "curation", "shards")


def round_config(run: str, file: str | None, overrides: tuple[str, ...], out: str | None) -> Config:
    """The configuration that scores the pairs of `run` again: its judge's engine and its curation, with the tables of a
    TOML file in their place, then `key.path=value` overrides.

    Raises InputError where there is no run, or what is asked for cannot be.
    """
    manifest, _ = open_folder(Path(run).expanduser())
    before: dict[str, Any] = manifest["config"]
    values: dict[str, Any] = {key: before[key] for key in TAKEN_OVER if before.get(key) is not None}
    values["prompts"] = {key: text for key, text in before["prompts"].items() if text and key.startswith("curation")}
    values["engine"] = _judge(before)
    given = read_values(file) if file else {}
    values |= given
    values |= {"recipe": "curate", "candidates": run}
    model = values["engine"].get("model")
    values = with_overrides(values, overrides)
    engine = values["engine"]
    styled = "engine" in given or any(each.startswith("engine.style=") for each in overrides)
    if engine.get("model") != model and not styled:  # what the other model is asked in is its own matter
        engine.pop("style", None)
    if out is not None:
        values["out"] = out
    return parse_config(values, file or "curate")


def _judge(before: dict[str, Any]) -> dict[str, Any]:
    """The engine that has scored: without the adapter of a backward model, which only wrote."""
    engine = dict(before.get("judge") or before["engine"])
    if before.get("judge") is None and before["augmentation"]["mode"] == "backward":
        engine["vllm"] = {key: value for key, value in engine["vllm"].items() if key != "lora_modules"}
    return {key: value for key, value in engine.items() if value is not None}
