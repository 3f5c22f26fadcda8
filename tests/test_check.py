"""`check` of a chat model: its style, every prompt rendered and counted, thinking, a doubled beginning."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.check import check_context, check_plan, describe_window
from pipeline.config import load_config
from pipeline.errors import InputError
from pipeline.models import load_tokenizer
from pipeline.plan import make_plan
from tests.chat_models import make_model


def plan_of(folder: Path, *overrides: str):
    """The plan of the shipped chat configuration with a model of ours, which has the embedded model's small context."""
    small = ("engine.vllm.max_model_len=16384", f"engine.model={folder}", *overrides)
    return make_plan(load_config("shipped:self_instruct_chat.toml", small))


@pytest.fixture(scope="module")
def chatml(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with a chat template."""
    return make_model(tmp_path_factory.mktemp("models") / "chatml", "chatml")


def test_check_says_the_style_and_why(chatml: Path) -> None:
    """With the style left open, the chat template decides, and the line says so."""
    plan = make_plan(load_config("shipped:demo_model.toml", (f"engine.model={chatml}",)))

    assert "style: chat: the model has a chat template" in list(check_plan(plan, None))


def test_every_prompt_is_rendered_by_the_models_template_and_counted(chatml: Path) -> None:
    """The count of each stage's prompt is that of `apply_chat_template` over the same messages."""
    plan = plan_of(chatml)
    tokenizer = load_tokenizer(plan.config.engine, None)
    lines = list(check_context(plan))

    assert [line.split()[2] for line in lines] == [
        "bootstrap",
        "classification",
        "instance_output_first",
        "instance_input_first",
        "output",
    ]
    longest = max((seed.instruction for seed in plan.seeds), key=len)
    turns = [{"role": "user", "content": plan.recipe.prompts.classification(longest)[0].content}]
    ids = tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=True, return_dict=False)
    assert f"prompt classification at most {len(ids)} tokens" in lines[1]


def test_a_context_that_is_too_small_is_refused_with_the_numbers(chatml: Path) -> None:
    """The sentence has the prompt's tokens, the answer's and the context's."""
    with pytest.raises(InputError, match=r"prompt \w+: its longest form has \d+ tokens.*1024 .*context of 2048"):
        list(check_context(plan_of(chatml, "engine.vllm.max_model_len=2048")))


def test_a_model_that_always_thinks_needs_room_for_it(tmp_path: Path) -> None:
    """With room `check` says that it thinks; with too little the sentence names the prompt, the key and the way out."""
    folder = make_model(tmp_path / "always", "always")
    kwargs = 'engine.chat_template_kwargs={ date_string = "1 May" }'

    assert any("the model thinks first" in line for line in check_context(plan_of(folder, kwargs)))
    with pytest.raises(InputError, match=r"thinks before it answers, and max_tokens = 100 .*raise it"):
        list(check_context(plan_of(folder, kwargs, "bootstrap.sampling.max_tokens=100")))


def test_thinking_is_off_where_the_template_has_a_switch_and_on_if_asked(tmp_path: Path) -> None:
    """The switch is off unless `chat_template_kwargs` turns it on, and then its room is checked too."""
    folder = make_model(tmp_path / "switch", "switch")

    assert not any("thinks" in line for line in check_context(plan_of(folder)))
    asked = "engine.chat_template_kwargs={ enable_thinking = true }"
    assert any("thinks" in line for line in check_context(plan_of(folder, asked)))


def test_a_system_message_that_the_template_refuses_is_found_before_the_run(tmp_path: Path) -> None:
    """The template's own words are in the sentence."""
    folder = make_model(tmp_path / "mistral", "mistral")

    with pytest.raises(InputError, match="System role not supported"):
        list(check_context(plan_of(folder, 'engine.system="Be brief."')))


def test_a_doubled_beginning_of_text_is_warned_of(tmp_path: Path) -> None:
    """A template that writes the token twice gets a warning for each prompt."""
    folder = make_model(tmp_path / "llama", "llama")
    template = folder / "chat_template.jinja"
    before = list(check_context(plan_of(folder)))
    template.write_text("{{ bos_token }}" + template.read_text())

    assert not any("warning" in line for line in before)
    assert sum("two beginning-of-text tokens" in line for line in check_context(plan_of(folder))) == 5


@pytest.mark.parametrize(
    ("recipe", "window", "words"),
    [
        ("self_instruct_chat", 768, []),
        ("self_instruct_chat", 192, ["a unit begins with one request, so 0.5 of 2 engine(s) are full at the start"]),
        ("backtranslation", 3072, []),
        ("backtranslation", 768, ["it keeps 0.5 of 2 engine(s) full (each holds 384 requests)", "window = 3072"]),
    ],
)
def test_a_window_that_leaves_engines_idle_is_told(recipe: str, window: int, words: list[str]) -> None:
    """Backtranslation needs four times what engines hold; Self-Instruct as much as they hold, and that at the start."""
    corpus = ("corpus.source=x",) if recipe == "backtranslation" else ()
    config = load_config(f"shipped:{recipe}.toml", ("engine.count=2", "engine.model=m", *corpus))
    _, *told = describe_window(config, window)

    assert len(told) == bool(words)
    assert all(word in told[0] for word in words)
