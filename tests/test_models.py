"""A model's files: what identifies it, and what is read from it before it loads."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from pipeline.engine_settings import EngineSettings
from pipeline.errors import InputError
from pipeline.models import (
    chat_template,
    choose_style,
    context_length,
    is_local,
    model_digest,
    model_facts,
    tokenizer_facts,
)


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        pytest.param("shipped:embedded", True, id="shipped"),
        pytest.param("/models/a", True, id="absolute"),
        pytest.param("./a", True, id="here"),
        pytest.param("../a", True, id="above"),
        pytest.param("~/a", True, id="home"),
        pytest.param("a/b/c", True, id="two-slashes"),
        pytest.param("Qwen/Qwen3-8B-Base", False, id="hub"),
        pytest.param("gpt2", False, id="hub-without-owner"),
    ],
)
def test_is_local(model: str, expected: bool) -> None:
    """A folder is told from a name on the hub."""
    assert expected is is_local(model)


def test_model_digest(tmp_path: Path) -> None:
    """Every file of a model folder is named with its SHA-256, hidden ones apart."""
    (tmp_path / "sub").mkdir()
    (tmp_path / ".cache").mkdir()
    (tmp_path / "sub" / "weights").write_bytes(b"abc")
    (tmp_path / "config.json").write_bytes(b"{}")
    (tmp_path / ".cache" / "x").write_bytes(b"x")
    expected = {"config.json": hashlib.sha256(b"{}").hexdigest(), "sub/weights": hashlib.sha256(b"abc").hexdigest()}

    assert expected == model_digest(str(tmp_path))


def test_a_local_model_is_known_by_its_files(tmp_path):
    """Name, digest over the files and the licence of its card; another weight is another revision."""
    folder = tmp_path / "llama"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n# Card")
    engine = EngineSettings(model=str(folder))
    before = model_facts(engine)
    (folder / "model.safetensors").write_bytes(b"w")

    assert (before["name"], before["licence"]) == ("llama", "apache-2.0")
    assert model_facts(engine)["revision"] != before["revision"]


def test_a_model_folder_that_is_none_is_named(tmp_path):
    """A path that does not exist, and a folder without config.json, each get their sentence."""
    for model, words in [(str(tmp_path / "no"), "there is no such folder"), (str(tmp_path), "has no config.json")]:
        with pytest.raises(InputError, match=words):
            model_facts(EngineSettings(model=model))


def test_a_hub_model_stands_as_the_run_began_with_it_and_no_other_passes_for_it(monkeypatch):
    """The manifest's revision holds for the same name and revision asked for; another of either is another model."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    began = {"name": "org/a", "asked": None, "revision": "c0ffee", "files": {}, "licence": "mit"}

    def facts(model: str, revision: str | None = None) -> dict[str, object]:
        return model_facts(EngineSettings(model=model, revision=revision), began)

    assert facts("org/a") == began
    assert facts("org/b")["name"] == "org/b"
    assert facts("org/a", "v2")["revision"] == "v2"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model folder without a chat template."""
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "tokenizer_config.json").write_text("{}")
    return tmp_path


@pytest.mark.parametrize(
    ("file", "text"),
    [
        pytest.param("chat_template.jinja", "T", id="file"),
        pytest.param("tokenizer_config.json", json.dumps({"chat_template": "T"}), id="key"),
        pytest.param(
            "tokenizer_config.json",
            json.dumps(
                {"chat_template": [{"name": "tool_use", "template": "U"}, {"name": "default", "template": "T"}]}
            ),
            id="several-by-name",
        ),
    ],
)
def test_a_chat_template_is_found_where_models_have_it(folder: Path, file: str, text: str) -> None:
    """In a file of its own, as a key of the tokenizer's, or the default one of several; and none is none."""
    before = chat_template(EngineSettings(model=str(folder)), None)
    (folder / file).write_text(text)

    assert before is None
    assert chat_template(EngineSettings(model=str(folder)), None) == "T"


def test_the_style_follows_the_chat_template_unless_it_is_set(folder: Path) -> None:
    """With a template a model is asked for chats, without one for completions, and `engine.style` overrules."""
    engine, completion = EngineSettings(model=str(folder)), EngineSettings(model=str(folder), style="completion")
    without = choose_style(engine, None)
    (folder / "chat_template.jinja").write_text("T")

    assert without == ("completion", "the model has no chat template")
    assert choose_style(engine, None) == ("chat", "the model has a chat template")
    assert choose_style(completion, None) == ("completion", "as engine.style says; the model has a chat template")


def test_chat_style_of_a_model_without_a_template_is_refused(folder: Path) -> None:
    """The sentence says what is missing and what would mend it."""
    with pytest.raises(InputError, match=r'has no chat template.*set engine.style = "completion"'):
        choose_style(EngineSettings(model=str(folder), style="chat"), None)


def test_a_hub_model_that_cannot_be_looked_up_needs_its_style_set() -> None:
    """Without its files the style is not guessed; once it is set, the model is asked so."""
    with pytest.raises(InputError, match=r"cannot be looked up.*set engine.style"):
        choose_style(EngineSettings(model="org/unheard-of"), None)
    assert choose_style(EngineSettings(model="org/unheard-of", style="chat"), None)[0] == "chat"


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        pytest.param("tokenizer_config.json", b"[]", "not a JSON object", id="list"),
        pytest.param("tokenizer_config.json", b"{", "not valid JSON", id="json"),
        pytest.param("chat_template.jinja", b"\xff\xfe", "cannot be read as UTF-8", id="bytes"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(folder: Path, file: str, content: bytes, words: str) -> None:
    """A broken file of a model is one sentence with its name."""
    (folder / file).write_bytes(content)
    with pytest.raises(InputError, match=words):
        choose_style(EngineSettings(model=str(folder)), None)


def test_a_tokenizer_of_its_own_counts_by_its_files(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Style and chat template come from vLLM's `tokenizer` where it is set, and its digest is known."""
    other = tmp_path_factory.mktemp("tokenizer")
    (other / "chat_template.jinja").write_text("T")
    engine = EngineSettings(model=str(folder), vllm={"tokenizer": str(other)})
    before = tokenizer_facts(engine)
    (other / "chat_template.jinja").write_text("U")

    assert choose_style(engine, None)[0] == "chat"
    assert chat_template(engine, None) == "U"
    assert before is not None
    assert tokenizer_facts(engine) != before
    assert tokenizer_facts(EngineSettings(model=str(folder))) is None


@pytest.mark.parametrize(
    ("asked", "expected"), [(None, 512), (-1, 512), ("auto", 512), (256, 256)], ids=["unset", "-1", "auto", "set"]
)
def test_the_context_is_what_is_asked_for_or_what_the_model_has(folder: Path, asked: object, expected: int) -> None:
    """Where vLLM is to find the length itself, the model's own is the most it can be."""
    (folder / "config.json").write_text('{"max_position_embeddings": 512}')
    options = {} if asked is None else {"max_model_len": asked}

    assert context_length(EngineSettings(model=str(folder), vllm=options), None) == expected
