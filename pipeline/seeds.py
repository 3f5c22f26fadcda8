"""The seed file: hand-written tasks in the schema of Self-Instruct."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pipeline.errors import InputError
from pipeline.prompting import shipped_text
from pipeline.records import Instance, Seed

T = TypeVar("T")


def read_seed_text(path: str) -> str:
    """The text of a seed file, or of a shipped one ("shipped:seeds.jsonl"). Raises InputError."""
    try:
        if path.startswith("shipped:"):
            return shipped_text(path.removeprefix("shipped:"))
        return Path(path).expanduser().read_text(encoding="utf-8")
    except (FileNotFoundError, IsADirectoryError):
        raise InputError(f"seeds = {path!r}: there is no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"seeds = {path!r}: cannot be read as UTF-8 text ({error})") from None


def parse_seeds(text: str, path: str) -> list[Seed]:
    """Seed tasks from JSON lines in Self-Instruct's schema: id, instruction, instances, is_classification.

    `name` and other fields are allowed and ignored. Raises InputError naming the line and the field.
    """
    seeds: list[Seed] = []
    lines_of: dict[str, int] = {}
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        seed = _parse_seed(line, f"{path}, line {number}")
        if seed.id in lines_of:
            raise InputError(
                f"{path}, line {number}: id {seed.id!r} is that of line {lines_of[seed.id]}; ids are unique"
            )
        lines_of[seed.id] = number
        seeds.append(seed)
    return seeds


def seeds_of(manifest: Mapping[str, Any]) -> list[Seed]:
    """The seed tasks that a run began with; none where it has no seed file.

    Raises InputError where their file cannot be read, or is not what it was.
    """
    entry = manifest.get("seeds")
    if entry is None:
        return []
    text = read_seed_text(entry["source"])
    if hashlib.sha256(text.encode()).hexdigest() != entry["sha256"]:
        raise InputError(
            f"seeds = {entry['source']!r}: the file has changed since run {manifest['run']} began (its SHA-256 "
            "differs); put it back"
        )
    return parse_seeds(text, entry["source"])


def _parse_seed(line: str, where: str) -> Seed:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise InputError(f"{where}: not valid JSON ({error.msg}, column {error.colno})") from None
    if not isinstance(row, dict):
        raise InputError(f"{where}: a seed task is a JSON object with id, instruction, instances, is_classification")
    instruction = _field(row, "instruction", str, where)
    if not instruction.strip():
        raise InputError(f"{where}: field 'instruction' is empty")
    instances = _field(row, "instances", list, where)
    if not instances:
        raise InputError(f"{where}: field 'instances' is empty; give at least one input and output")
    return Seed(
        id=_field(row, "id", str, where),
        instruction=instruction,
        instances=tuple(_parse_instance(item, f"{where}, instance {i}") for i, item in enumerate(instances, start=1)),
        is_classification=_field(row, "is_classification", bool, where),
    )


def _parse_instance(item: Any, where: str) -> Instance:
    if not isinstance(item, dict):
        raise InputError(f"{where}: an instance is a JSON object with input and output")
    return Instance(_field(item, "input", str, where), _field(item, "output", str, where))


def _field(row: dict[str, Any], name: str, kind: type[T], where: str) -> T:
    if name not in row:
        raise InputError(f"{where}: field {name!r} is missing")
    value = row[name]
    if not isinstance(value, kind):
        names = {str: "a text", bool: "true or false", list: "a list"}
        raise InputError(f"{where}: field {name!r} must be {names[kind]}, not {json.dumps(value)[:60]}")
    return value
