"""The configuration: faults named by their key, overrides, defaults, and every shipped file."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import pipeline.config
from pipeline.config import in_style, load_config, parse_config
from pipeline.errors import InputError
from pipeline.settings import BLACKLIST, Settings

CONFIGS = Path(pipeline.config.__file__).parent / "configs"
SHIPPED = sorted(file.relative_to(CONFIGS).as_posix() for file in CONFIGS.rglob("*.toml"))
SCRIPTED: dict[str, Any] = {"engine": {"kind": "scripted"}}


def fault(values: dict[str, Any]) -> str:
    """What parse_config says of these values."""
    with pytest.raises(InputError) as caught:
        parse_config({**SCRIPTED, **values}, "my.toml")
    return str(caught.value)


@pytest.fixture
def toml(tmp_path: Path) -> str:
    """A small configuration file."""
    file = tmp_path / "my.toml"
    file.write_text('target = 50\n[engine]\nkind = "scripted"\n[bootstrap.sampling]\ntop_p = 0.9\n', encoding="utf-8")
    return str(file)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        pytest.param({"targte": 3}, "unknown key 'targte'; did you mean 'target'?", id="top"),
        pytest.param(
            {"bootstrap": {"samplng": {}}}, "unknown key 'bootstrap.samplng'; did you mean 'sampling'?", id="table"
        ),
        pytest.param(
            {"instances": {"sampling": {"temprature": 1}}},
            "unknown key 'instances.sampling.temprature'; did you mean 'temperature'?",
            id="nested",
        ),
        pytest.param(
            {"novelty": {"zzz": 1}},
            "unknown key 'novelty.zzz'; known here: enabled, threshold, floor, tokenizer, workers, timeout_s, "
            "room_timeout_s",
            id="none",
        ),
    ],
)
def test_unknown_key(values: dict[str, Any], sentence: str) -> None:
    """An unknown key is named by its path, with the nearest known one or all of them."""
    assert fault(values) == f"my.toml: {sentence}"


@pytest.mark.parametrize(
    ("values", "start"),
    [
        pytest.param({"target": "many"}, "key 'target': input should be a valid integer", id="text-for-number"),
        pytest.param({"target": 1.5}, "key 'target': input should be a valid integer", id="fraction"),
        pytest.param({"target": 0}, "key 'target': input should be greater than or equal to 1", id="too-small"),
        pytest.param({"engine": 3}, "key 'engine': input should be a valid dictionary", id="value-for-table"),
        pytest.param(
            {"engine": {"kind": "x"}}, "key 'engine.kind': input should be 'vllm', 'openai' or 'scripted'", id="choice"
        ),
        pytest.param(
            {"engine": {"kind": "openai", "model": "m"}},
            "engine: openai.base_url is missing",
            id="endpoint-without-url",
        ),
        pytest.param(
            {"engine": {"kind": "openai", "model": "m", "openai": {"base_url": "http://me:key@h/v1"}}},
            "engine.openai.base_url: must be an http",
            id="key-in-url",
        ),
        pytest.param(
            {"engine": {"kind": "openai", "model": "m", "count": 2, "openai": {"base_url": "http://h/v1"}}},
            "engine: count, min and max are for engines on Ray",
            id="endpoints",
        ),
        pytest.param({"engine": {"kind": "scripted", "min": 2}}, "engine: min and max go together", id="min-alone"),
        pytest.param(
            {"engine": {"kind": "scripted", "count": 2, "min": 1, "max": 3}},
            "engine: count and max both say how many",
            id="count-and-max",
        ),
        pytest.param(
            {"engine": {"kind": "scripted", "min": 4, "max": 3}}, "engine: min (4) must not be above", id="min-over-max"
        ),
        pytest.param({"compat": "x"}, "key 'compat': input should be 'self-instruct'", id="compat"),
        pytest.param({"name": "a b"}, "key 'name': string should match pattern", id="name"),
        pytest.param({"name": 7}, "key 'name': input should be a valid string", id="number-for-text"),
        pytest.param({"filters": {"blacklist": "map"}}, "key 'filters.blacklist': input should be", id="text-for-list"),
        pytest.param({"novelty": {"threshold": 0}}, "key 'novelty.threshold': input should be", id="threshold"),
        pytest.param({"novelty": {"threshold": 1.01}}, "key 'novelty.threshold': input should be", id="above-one"),
        pytest.param({"novelty": {"workers": -1}}, "novelty: workers must be at least 0", id="workers"),
        pytest.param({"novelty": {"workers": "two"}}, "key 'novelty.workers': input should be", id="workers-in-words"),
        pytest.param({"bootstrap": {"sampling": {"top_p": 0}}}, "key 'bootstrap.sampling.top_p'", id="top_p"),
        pytest.param({"window": 0}, 'window must be at least 1, or "auto"', id="window"),
        pytest.param({"engine": {"kind": "vllm"}}, "engine.model is missing", id="no-model"),
        pytest.param(
            {"bootstrap": {"machine_made": 8}},
            "bootstrap: machine_made must be smaller than demonstrations",
            id="no-seed-shown",
        ),
    ],
)
def test_bad_value(values: dict[str, Any], start: str) -> None:
    """A bad value is one sentence that begins with its key."""
    sentence = fault(values)

    assert sentence.startswith(f"my.toml: {start}")
    assert "\n" not in sentence


def test_a_fault_shows_what_was_written() -> None:
    """The sentence ends in the value as it was given."""
    assert fault({"target": "many"}).endswith('(it is "many")')


@pytest.mark.parametrize("window", ["wide", 1.5], ids=["word", "fraction"])
def test_a_bad_window_is_named_by_its_key(window: object) -> None:
    """The key in the sentence is the one a person wrote."""
    assert fault({"window": window}).startswith("my.toml: key 'window': ")


@pytest.mark.parametrize(
    ("override", "path", "expected"),
    [
        pytest.param("target=7", "target", 7, id="number"),
        pytest.param("name=night", "name", "night", id="bare-word"),
        pytest.param('name="night"', "name", "night", id="quoted"),
        pytest.param("window=auto", "window", "auto", id="auto"),
        pytest.param("novelty.enabled=false", "novelty.enabled", False, id="flag"),
        pytest.param("bootstrap.sampling.temperature=1.0", "bootstrap.sampling.temperature", 1.0, id="nested"),
        pytest.param("filters.blacklist=['a', 'b']", "filters.blacklist", ("a", "b"), id="list"),
        pytest.param("filters.blacklist=[]", "filters.blacklist", (), id="empty-list"),
        pytest.param("engine.model=org/name=x", "engine.model", "org/name=x", id="second-equals-sign"),
        pytest.param("engine.vllm.max_model_len=512", "engine.vllm", {"max_model_len": 512}, id="passed-through"),
        pytest.param(" target =7", "target", 7, id="spaces"),
    ],
)
def test_override(toml: str, override: str, path: str, expected: object) -> None:
    """`--set` reaches any key, with a TOML value or a bare word."""
    value: Any = load_config(toml, (override,))
    for part in path.split("."):
        value = getattr(value, part)

    assert expected == value


def test_overrides_leave_the_rest(toml: str) -> None:
    """Defaults < file < overrides < the folder named, and a later override wins."""
    config = load_config(toml, ("bootstrap.sampling.temperature=1.0", "target=7", "target=8", "out=a"), "b")

    assert config.bootstrap.sampling.top_p == 0.9
    assert config.bootstrap.sampling.temperature == 1.0
    assert (config.target, config.out) == (8, "b")


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        pytest.param("target", "--set target: write it as key.path=value", id="no-equals-sign"),
        pytest.param("=3", "--set =3: write it as key.path=value", id="no-key"),
        pytest.param("target.x=3", "--set target.x=3: target is not a table", id="not-a-table"),
        pytest.param(
            "bootstrap.sampling.top_p.x=3",
            "--set bootstrap.sampling.top_p.x=3: bootstrap.sampling.top_p is not a table",
            id="deep-not-a-table",
        ),
    ],
)
def test_bad_override(toml: str, override: str, sentence: str) -> None:
    """An override that cannot be read is repeated with its fault."""
    with pytest.raises(InputError) as caught:
        load_config(toml, (override,))

    assert sentence == str(caught.value)


def test_a_missing_file() -> None:
    """A file that is not there is named."""
    with pytest.raises(InputError, match=r"no/such\.toml: there is no such configuration file"):
        load_config("no/such.toml")


def test_a_file_that_is_not_toml(tmp_path: Path) -> None:
    """A file that is not TOML is named with the place of the fault."""
    file = tmp_path / "bad.toml"
    file.write_text("target = = 3\n", encoding="utf-8")

    with pytest.raises(InputError, match=r"bad\.toml: not valid TOML: .*line 1"):
        load_config(str(file))


@pytest.mark.parametrize(
    ("stage", "written", "kept"),
    [
        pytest.param("bootstrap", {"temperature": 1.0}, {"max_tokens": 1024, "top_p": 0.5}, id="bootstrap"),
        pytest.param("classification", {"max_tokens": 5}, {"temperature": 0.0, "stop": ("\n", "Task")}, id="class"),
        pytest.param("instances", {"temperature": 0.3}, {"presence_penalty": 1.5, "max_tokens": 350}, id="instances"),
    ],
)
def test_a_part_of_a_sampling_table_keeps_the_rest(stage: str, written: Any, kept: dict[str, object]) -> None:
    """What is not written keeps the default of its own stage."""
    config = parse_config({**SCRIPTED, stage: {"sampling": written}}, "x")
    sampling = getattr(config, stage).sampling.resolved()

    assert {**written, **kept} == {key: getattr(sampling, key) for key in (*written, *kept)}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        pytest.param({"window": 5}, 5, id="as-written"),
        pytest.param({"target": 10}, 16, id="small-target"),
        pytest.param({"target": 16 * 17}, 17, id="a-sixteenth-of-the-target"),
        pytest.param({"target": 10**6}, 64, id="four-times-what-engines-hold"),
        pytest.param({"target": 10**6, "engine": {"kind": "scripted", "count": 3}}, 192, id="three-engines"),
        pytest.param(
            {"target": 10**6, "engine": {"kind": "scripted", "scripted": {"capacity": 2}}}, 8, id="small-engine"
        ),
        pytest.param({"target": 10**6, "engine": {"model": "m"}}, 4 * 384, id="vllm-default"),
        pytest.param(
            {"target": 10**6, "engine": {"model": "m", "vllm": {"max_num_seqs": 11}}}, 4 * 17, id="vllm-max-num-seqs"
        ),
    ],
)
def test_resolved_window(values: dict[str, Any], expected: int) -> None:
    """`auto` is min(4 x requests held, max(16, target / 16)); an engine holds 1.5 x max_num_seqs, rounded up."""
    assert expected == parse_config({**SCRIPTED, **values}, "x").resolved_window()


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_configuration(name: str) -> None:
    """Every configuration that ships is valid, and its JSON reads back as the same."""
    config = load_config(f"shipped:{name}")

    assert config == parse_config(json.loads(json.dumps(config.model_dump(mode="json"))), name)


def test_some_configurations_ship() -> None:
    """The list of shipped files above is not empty."""
    assert "self_instruct_paper.toml" in SHIPPED


@pytest.mark.parametrize(
    ("engine", "novelty", "expected"),
    [
        pytest.param({"model": "m"}, {}, 1, id="auto-with-gpus"),
        pytest.param({"model": "m", "num_gpus": 0}, {}, 0, id="auto-on-cpus"),
        pytest.param({"kind": "scripted"}, {}, 0, id="auto-scripted"),
        pytest.param({"kind": "openai", "model": "m", "openai": {"base_url": "http://h/v1"}}, {}, 0, id="endpoint"),
        pytest.param({"model": "m"}, {"workers": 0}, 0, id="none"),
        pytest.param({"kind": "scripted"}, {"workers": 3}, 3, id="three"),
        pytest.param({"model": "m"}, {"workers": 3, "enabled": False}, 0, id="novelty-off"),
    ],
)
def test_novelty_workers(engine: dict[str, Any], novelty: dict[str, Any], expected: int) -> None:
    """As many as are asked for; unless set, one beside engines on GPUs, else none; none where novelty is off."""
    config = parse_config({"engine": engine, "novelty": novelty}, "x")

    assert config.resolved_novelty_workers == expected


def test_paper_configuration() -> None:
    """The paper's configuration has the paper's numbers."""
    config = load_config("shipped:self_instruct_paper.toml")
    bootstrap, instances = config.bootstrap.sampling, config.instances.sampling
    seen = config.classification

    assert (config.target, config.novelty.threshold) == (52_445, 0.7)
    assert (config.bootstrap.demonstrations, config.bootstrap.machine_made) == (8, 2)
    assert (bootstrap.temperature, bootstrap.top_p, bootstrap.presence_penalty) == (0.7, 0.5, 2.0)
    assert (bootstrap.max_tokens, bootstrap.stop) == (1024, ("\n\n", "\n16", "16.", "16 ."))
    assert (config.filters.min_words, config.filters.max_words) == (4, 150)
    assert config.filters.blacklist == BLACKLIST
    assert (seen.positive, seen.negative) == (12, 19)
    assert (seen.sampling.temperature, seen.sampling.max_tokens, seen.sampling.stop) == (0.0, 3, ("\n", "Task"))
    assert (config.instances.output_first_demonstrations, config.instances.input_first_demonstrations) == (16, 11)
    assert (instances.temperature, instances.presence_penalty, instances.max_tokens) == (0.0, 1.5, 300)
    assert (instances.stop, config.instances.limit) == (("Example 6", "Task:"), 5)


def test_chat_configuration() -> None:
    """The chat configuration says what chat style does by default, number for number."""
    config = load_config("shipped:self_instruct_chat.toml")
    bare = parse_config({"engine": {"model": "m"}}, "x")
    stated, default = in_style(config, "chat"), in_style(bare, "chat")
    bootstrap = stated.bootstrap.sampling

    assert config.engine.style == "chat"
    assert (bootstrap.temperature, bootstrap.top_p, bootstrap.stop) == (1.0, 0.95, ())
    assert (bootstrap.presence_penalty, bootstrap.frequency_penalty, bootstrap.repetition_penalty) == (0.0, 0.0, 1.0)
    for table in ("bootstrap", "classification", "instances", "filters", "novelty"):
        assert getattr(stated, table).model_dump() == getattr(default, table).model_dump(), table


def test_a_style_has_its_own_defaults_for_what_is_not_set() -> None:
    """Chat style changes the sampling that was left to its defaults, and nothing that was set."""
    values = {"engine": {"model": "m"}, "bootstrap": {"sampling": {"top_p": 0.8, "stop": ["END"]}}}
    config = parse_config(values, "x")
    chat, completion = in_style(config, "chat"), in_style(config, "completion")

    assert (chat.bootstrap.sampling.top_p, chat.bootstrap.sampling.stop) == (0.8, ("END",))
    assert (chat.bootstrap.sampling.temperature, chat.bootstrap.sampling.presence_penalty) == (1.0, 0.0)
    assert completion.bootstrap == config.bootstrap
    assert (chat.instances.drop_refusals, completion.instances.drop_refusals) == (True, False)
    assert (chat.engine.style, completion.engine.style) == ("chat", "completion")


@pytest.mark.parametrize(
    ("values", "style", "words"),
    [
        pytest.param({"compat": "self-instruct"}, "chat", "compat restores the paper's code", id="compat"),
        pytest.param({"engine": {"system": "Be brief."}}, "completion", "engine.system is for chat style", id="system"),
        pytest.param(
            {"engine": {"chat_template_kwargs": {"a": 1}}},
            "completion",
            "engine.chat_template_kwargs is for chat style",
            id="template-variables",
        ),
    ],
)
def test_what_belongs_to_the_other_style_is_refused(values: dict[str, Any], style: Any, words: str) -> None:
    """A setting that the style cannot honour is named."""
    config = parse_config({**values, "engine": {"model": "m", **values.get("engine", {})}}, "x")
    with pytest.raises(InputError, match=words):
        in_style(config, style)


def models(model: type[Settings]) -> Iterator[type[Settings]]:
    """A settings model and all that are made from it."""
    yield model
    for below in model.__subclasses__():
        yield from models(below)


@pytest.mark.parametrize("model", list(models(Settings)), ids=lambda model: model.__name__)
def test_every_field_is_described(model: type[Settings]) -> None:
    """Each field has a docstring of its own that ends like a sentence, and each model has one."""
    undescribed = [name for name, field in model.model_fields.items() if not (field.description or "").endswith(".")]

    assert undescribed == []
    assert model.__doc__


@pytest.mark.parametrize("model", list(models(Settings)), ids=lambda model: model.__name__)
def test_settings_are_frozen(model: type[Settings]) -> None:
    """A configuration does not change after it is read."""
    assert model.model_config["frozen"] is True
    assert model.model_config["extra"] == "forbid"


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"corpus": {"source": "a"}}, 'corpus is for recipe = "backtranslation", and this one is "self-instruct"'),
        ({"recipe": "backtranslation", "bootstrap": {"machine_made": 1}}, 'bootstrap is for recipe = "self-instruct"'),
        ({"recipe": "backtranslation"}, "corpus.source is missing"),
        ({"recipe": "curate"}, "candidates is missing"),
        ({"recipe": "curate", "candidates": "r", "target": 5}, 'target is for recipe = "self-instruct" or'),
        ({"judge": {"kind": "scripted"}}, 'judge is for recipe = "backtranslation"'),
        (
            {"recipe": "backtranslation", "corpus": {"source": "a", "min_characters": 9, "max_characters": 8}},
            "min_characters must not be above max_characters",
        ),
        ({"recipe": "backtranslation", "corpus": {"source": "a"}, "judge": {}}, "judge.model is missing"),
        ({"pool": {"form": "x"}}, "did you mean 'from'?"),
    ],
)
def test_what_a_recipe_would_not_heed_is_refused(values, sentence) -> None:
    """A table of another recipe, or one that is missing, is one sentence that names it."""
    with pytest.raises(InputError, match=re.escape(sentence)):
        parse_config({"engine": {"kind": "scripted"}, **values}, "test")


def test_pool_from_takes_one_run_or_several() -> None:
    """`pool.from` is a path or a list of paths, and the manifest names it as the file does."""
    one, two = (
        parse_config({"engine": {"kind": "scripted"}, "pool": {"from": path}}, "t") for path in ("a", ["a", "b"])
    )

    assert (one.pool.sources, two.pool.sources) == (("a",), ("a", "b"))
    assert two.model_dump(mode="json")["pool"] == {"from": ["a", "b"], "sample_imported": False}
