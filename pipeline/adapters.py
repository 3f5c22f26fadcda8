"""LoRA adapters: which one the options of an engine name, and what its files say."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

CONFIG = "adapter_config.json"


def lora_adapter(vllm_options: Mapping[str, Any]) -> tuple[str, str] | None:
    """Name and whole path of the adapter in `lora_modules`; None where the options name none.

    Raises ValueError, in one sentence, unless it is a list of one table with the name and the folder of an adapter.
    """
    if "lora_modules" not in vllm_options:
        return None
    key, modules = "engine.vllm.lora_modules", vllm_options["lora_modules"]
    if not (isinstance(modules, list) and len(modules) == 1 and _is_named_path(modules[0])):
        raise ValueError(
            f'{key} must name one adapter by name and path, as [{{name = "mine", path = "/models/mine"}}], '
            f"not {modules!r}"
        )
    if vllm_options.get("enable_lora") is False:
        raise ValueError(f"{key} names an adapter, and engine.vllm.enable_lora = false refuses it: remove one of them")
    path = Path(modules[0]["path"]).expanduser().resolve()
    if not (path / CONFIG).is_file():
        raise ValueError(f"{key}: {path} is no folder of an adapter, as it has no {CONFIG}")
    return modules[0]["name"], str(path)


def _is_named_path(module: Any) -> bool:
    return (
        isinstance(module, dict)
        and module.keys() == {"name", "path"}
        and all(isinstance(value, str) and value for value in module.values())
    )


def adapter_rank(path: str) -> int:
    """The largest rank of an adapter's matrices. Raises ValueError, in one sentence, where its file does not say."""
    file = Path(path) / CONFIG
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
        return max(int(config["r"]), *map(int, (config.get("rank_pattern") or {}).values()), 1)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"{file}: not the configuration of a LoRA adapter, whose rank is `r` ({error!r})") from error
