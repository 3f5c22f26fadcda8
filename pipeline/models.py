"""A model's files: where they are, what identifies them, and what can be read from them before the model loads."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pipeline.adapters import lora_adapter
from pipeline.engine_settings import EngineSettings, Style
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
    if engine.kind != "vllm" or engine.model is None:  # of an endpoint's model no more is known than its name there
        return {
            "name": model_name(engine),
            "asked": engine.revision,
            "revision": None,
            "files": {},
            "licence": "unknown",
        }
    if is_local(engine.model):
        folder = Path(model_path(engine.model))
        if not folder.is_dir():
            raise InputError(f"engine.model = {engine.model!r}: there is no such folder")
        if not (folder / "config.json").is_file():
            raise InputError(f"engine.model = {engine.model!r}: the folder has no config.json, so it is no model")
        files = model_digest(engine.model)
        card = folder / "README.md"
        licence = _stated_licence(card.read_text(encoding="utf-8", errors="replace")) if card.is_file() else "unknown"
        return {
            "name": model_name(engine),
            "asked": None,
            "revision": _short_digest(files),
            "files": files,
            "licence": licence,
        }
    return _hub_facts(engine.model, engine.revision, before)


def model_name(engine: EngineSettings) -> str:
    """What a model is called in rows: as configured, of a folder the last part alone."""
    model = engine.model or engine.kind
    if engine.kind != "vllm" or model.startswith("shipped:") or not is_local(model):
        return model
    return Path(model_path(model)).name


def full_name(model: dict[str, Any], *, adapter: bool = True) -> str:
    """How rows name a model, by its facts: with its revision, and with its adapter's name and revision."""
    parts = [part for part in (model, model["adapter"] if adapter else None) if part]
    return "+".join(part["name"] + (f"@{part['revision']}" if part["revision"] else "") for part in parts)


def adapter_facts(engine: EngineSettings) -> dict[str, str] | None:
    """Name and digest of the LoRA adapter that an engine's options name; None where they name none.

    Raises InputError where what they name is no adapter.
    """
    try:
        adapter = lora_adapter(engine.vllm)
    except ValueError as error:
        raise InputError(str(error)) from None
    if adapter is None:
        return None
    name, path = adapter
    return {"name": name, "revision": _short_digest(model_digest(path))}


def tokenizer_of(engine: EngineSettings) -> EngineSettings:
    """The settings with the place of the tokenizer and chat template for the model's: vLLM's `tokenizer`, where set."""
    return engine.model_copy(update={"model": str(engine.vllm.get("tokenizer", engine.model))})


def tokenizer_facts(engine: EngineSettings) -> dict[str, str] | None:
    """Name and digest of a tokenizer of its own in a local folder; None where the options name no such folder."""
    name = engine.vllm.get("tokenizer")
    if not isinstance(name, str) or not Path(model_path(name)).is_dir():
        return None
    return {"name": Path(model_path(name)).name, "revision": _short_digest(model_digest(name))}


def _short_digest(files: dict[str, str]) -> str:
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()[:12]


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


def choose_style(engine: EngineSettings, revision: str | None) -> tuple[Style, str]:
    """The style to ask a model in, and why in a few words.

    Raises InputError where chat style is asked of a model without a chat template, or where it cannot be known.
    """
    asked = "as engine.style says"
    if engine.kind == "scripted":
        return engine.style or "completion", asked if engine.style else "the scripted engine's own"
    if engine.kind == "openai":
        return (
            engine.style or "chat",
            asked if engine.style else "an endpoint is asked so unless told otherwise",
        )
    try:
        template = chat_template(engine, revision)
    except InputError:
        if engine.style is None:
            raise
        return engine.style, f"{asked}; whether the model has a chat template is not known here"
    if template is None and model_file(tokenizer_of(engine), revision, "tekken.json"):
        return engine.style or "chat", f"{asked if engine.style else 'the model'} has Mistral's own tokenizer for chats"
    if engine.style == "chat" and template is None:
        raise InputError(
            f'engine.style = "chat", but {engine.model} has no chat template, as instruct models have; set '
            'engine.style = "completion", or name an instruct model'
        )
    has = "has no chat template" if template is None else "has a chat template"
    if engine.style:
        return engine.style, f"{asked}; the model {has}"
    return ("chat" if template else "completion"), f"the model {has}"


def context_length(engine: EngineSettings, revision: str | None) -> int | None:
    """Tokens of prompt and answer together: `max_model_len` as it is set, or what the model's files say.

    None where neither is a number that can be read. Raises InputError for a broken config.json.
    """
    context = engine.vllm.get("max_model_len")
    known = type(context) is int and context > 0  # vLLM takes -1, "auto" and "8k" too: at most what the model has
    if not known and (file := model_file(engine, revision, "config.json")):
        values = _json(file)
        context = values.get("max_position_embeddings") or values.get("text_config", {}).get("max_position_embeddings")
    return context if type(context) is int and context > 0 else None


def chat_template(engine: EngineSettings, revision: str | None) -> str | None:
    """The chat template among the model's files; None where it has none.

    Raises InputError where a hub model's files cannot be had, and for files that cannot be read.
    """
    engine = tokenizer_of(engine)
    if file := model_file(engine, revision, "chat_template.jinja"):
        return _text(file)
    file = model_file(engine, revision, "tokenizer_config.json")
    if file is None and not is_local(engine.model or ""):
        raise InputError(
            f"engine.style: whether {engine.model} has a chat template cannot be looked up: its files are neither on "
            'the hub as reached from here nor in its cache; set engine.style = "chat" or "completion"'
        )
    template = _json(file).get("chat_template") if file else None
    if isinstance(template, list):  # several by name
        template = {each.get("name"): each.get("template") for each in template if isinstance(each, dict)}.get(
            "default"
        )
    return template if isinstance(template, str) else None


def load_tokenizer(engine: EngineSettings, revision: str | None) -> Any | None:
    """The model's tokenizer with its chat template, as vLLM loads it; None where its files cannot be had.

    Raises ImportError without `transformers`, and InputError for files that cannot be read.
    """
    from transformers import AutoTokenizer

    name = str(tokenizer_of(engine).model)
    local = is_local(name)
    try:
        return AutoTokenizer.from_pretrained(
            model_path(name),
            revision=None if local else revision,
            trust_remote_code=bool(engine.vllm.get("trust_remote_code", False)),
            local_files_only=local or revision == engine.revision,  # see model_file
        )
    except OSError:
        return None
    except Exception as error:  # noqa: BLE001 -- transformers raises anything for files it cannot read
        raise InputError(f"engine.model = {engine.model!r}: its tokenizer cannot be read ({error})") from None


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
        values = json.loads(_text(file))
    except ValueError as error:
        raise InputError(f"{file}: not valid JSON ({error})") from None
    if not isinstance(values, dict):
        raise InputError(f"{file}: not a JSON object, as such a file of a model is")
    return values


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: cannot be read as UTF-8 text ({error})") from None
