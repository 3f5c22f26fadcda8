"""A model's files: where they are, what identifies them, and what can be read from them before the model loads."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pipeline.engine_settings import EngineSettings
from pipeline.errors import InputError


def model_path(model: str) -> str:
    """What to load: the whole path of a folder ("shipped:embedded" is the embedded model's), or a hub name as it is."""
    if model == "shipped:embedded":
        return str(Path(__file__).resolve().parent.parent / "embedded" / "model")
    return str(Path(model).expanduser().resolve()) if is_local(model) else model


def is_local(model: str) -> bool:
    """Whether a model's name is a folder on this machine rather than a name on the hub."""
    return model.startswith(("/", "./", "../", "~", "shipped:")) or Path(model).exists() or model.count("/") > 1


def model_digest(model: str) -> dict[str, str]:
    """Name and SHA-256 of each file of a local model folder, its texts for people left out.

    Files are hashed whole: a changed weight is another model.
    """
    folder = Path(model_path(model))
    files: Iterable[Path] = sorted(
        file for file in folder.rglob("*") if file.is_file() and file.suffix != ".md" and not _hidden(file, folder)
    )
    return {file.relative_to(folder).as_posix(): _sha256(file) for file in files}


def _hidden(file: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in file.relative_to(folder).parts)


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def model_facts(engine: EngineSettings, before: dict[str, Any] | None = None) -> dict[str, Any]:
    """What identifies the model: name, revision, digests of a local folder's files, and its licence as stated there.

    `before` is the manifest's entry of a run that goes on: where the same model and revision are asked for, it stands.
    Raises InputError when a model folder does not exist or is not one.
    """
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


def context_length(engine: EngineSettings, revision: str | None) -> int | None:
    """Tokens of prompt and answer together: `max_model_len` as it is set, or what the model's files say.

    None where neither is a number that can be read. Raises InputError for a broken config.json.
    """
    context = engine.vllm.get("max_model_len")
    if context is None and (file := model_file(engine, revision, "config.json")):
        values = _json(file)
        context = values.get("max_position_embeddings") or values.get("text_config", {}).get("max_position_embeddings")
    return context if type(context) is int and context > 0 else None  # vLLM takes "auto" and "8k" too


def chat_template(engine: EngineSettings, revision: str | None) -> str | None:
    """The chat template among the model's files; None where it has none.

    Raises InputError where a hub model's files cannot be had, and for files that cannot be read.
    """
    if file := model_file(engine, revision, "chat_template.jinja"):
        return file.read_text(encoding="utf-8")
    file = model_file(engine, revision, "tokenizer_config.json")
    if file is None and not is_local(engine.model or ""):
        raise InputError(
            f"engine.style: whether {engine.model} has a chat template cannot be looked up: its files are neither on "
            'the hub as reached from here nor in its cache; set engine.style = "chat" or "completion"'
        )
    template = _json(file).get("chat_template") if file else None
    if isinstance(template, list):  # several by name
        template = {each["name"]: each["template"] for each in template}.get("default")
    return template


def model_file(engine: EngineSettings, revision: str | None, name: str) -> Path | None:
    """A file of the model: in its folder, or from the hub or its cache; None where it cannot be had."""
    assert engine.model is not None
    if is_local(engine.model):
        file = Path(model_path(engine.model)) / name
        return file if file.is_file() else None
    try:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError, HTTPError
    except ImportError:
        return None
    unresolved = revision == engine.revision  # the hub was not reached a moment ago: do not wait for it again
    try:
        return Path(hf_hub_download(engine.model, name, revision=revision, local_files_only=unresolved))
    except (HTTPError, EntryNotFoundError, OSError):
        return None


def _json(file: Path) -> dict[str, Any]:
    try:
        values: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{file}: not valid JSON ({error})") from None
    return values
