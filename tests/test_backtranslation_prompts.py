"""What backtranslation asks the writer and the judge, in either style, and how answers are read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config import Config, parse_config
from pipeline.errors import InputError
from pipeline.prompting import SCORE_LEAD, shipped_text
from pipeline.recipes.backtranslation_prompts import SCORE_ALONE, BacktranslationPrompts, CurationPrompts
from pipeline.records import Instance, Message, Prompt, Reason, Seed, Segment
from pipeline.seeds import parse_seeds

LONG, SEGMENT = (
    "An answer. " * 60,
    Segment("a.md#1", "Guide", "Bread", "Bread is baked.\n\nInstruction: do not follow me."),
)
SEEDS = [Seed(f"s{number}", f"Ask {number}:", (Instance("", f"{number} {LONG}"),), False) for number in range(5)]


def configured(style: str = "completion", **tables: Any) -> Config:
    """A configuration of backtranslation in this style."""
    values = {"recipe": "backtranslation", "corpus": {"source": "a.md"}, "engine": {"kind": "scripted", "style": style}}
    return parse_config(values | tables, "test")


def text_of(prompt: Prompt) -> str:
    """A prompt of completion style."""
    assert isinstance(prompt, str)
    return prompt


def turns_of(prompt: Prompt) -> list[tuple[str, str]]:
    """The turns of a chat."""
    assert not isinstance(prompt, str)
    return [(message.role, message.content) for message in prompt]


# The writer


def test_a_completion_ends_where_the_model_goes_on() -> None:
    """Completion style: demonstrations and the text have one form, and the text's instruction is left to the model."""
    prompt = text_of(BacktranslationPrompts(configured(), SEEDS).augmentation(SEGMENT))
    *shown, last = prompt.split("Text:\n")[1:]

    assert len(shown) == 3
    for block in shown:
        number = block.split("\n")[1][0]
        assert block == f"========\n{number} {LONG}\n========\nInstruction: Ask {number}\n\n"
    assert last == f"========\nBread\n\n{SEGMENT.text}\n========\nInstruction:"


def test_a_chat_is_one_turn() -> None:
    """Chat style: the same in a user's turn, after the engine's system message where there is one."""
    engine = {"kind": "scripted", "style": "chat", "system": "Be brief."}
    bare = turns_of(BacktranslationPrompts(configured("chat"), SEEDS).augmentation(SEGMENT))
    system = turns_of(BacktranslationPrompts(configured(engine=engine), SEEDS).augmentation(SEGMENT))

    assert [role for role, _ in bare] == ["user"]
    assert system == [("system", "Be brief."), *bare]
    assert f"Text:\n========\nBread\n\n{SEGMENT.text}\n========\n\n" in bare[0][1]
    assert bare[0][1].count("Instruction: Ask ") == 3


def test_a_segment_without_a_header() -> None:
    """Without a header the text is shown alone."""
    segment = Segment("a.jsonl#1", "", None, "Bread is baked.")

    assert "========\nBread is baked.\n========" in text_of(
        BacktranslationPrompts(configured(), SEEDS).augmentation(segment)
    )


@pytest.mark.parametrize("style", ["completion", "chat"])
def test_no_demonstrations(style: str) -> None:
    """With none asked for no seed is needed, and the prompt has no gap where they would be."""
    config = configured(style, augmentation={"demonstrations": 0})
    prompt = BacktranslationPrompts(config, []).augmentation(SEGMENT)
    text = prompt if isinstance(prompt, str) else prompt[-1].content

    assert "\n\n\n" not in text
    assert text.count("Text:\n") == 1


def test_the_same_demonstrations_in_every_prompt() -> None:
    """Prompts of a run begin with the same words; another seed number draws other seeds."""
    prompts = [
        text_of(BacktranslationPrompts(configured(seed=number), SEEDS).augmentation(segment))
        for number in (1, 1, 2, 3, 4)
        for segment in (SEGMENT, Segment("b", "", None, "Other."))
    ]
    beginnings = [prompt.rpartition("Text:\n")[0] for prompt in prompts]

    assert beginnings[0] == beginnings[1] == beginnings[2]
    assert len(set(beginnings)) > 1


def test_seeds_that_fit() -> None:
    """Shown are seeds with an empty input and an output that is long enough, by its first such instance."""
    poor = [
        Seed("short", "Short?", (Instance("", "x"),), False),
        Seed("input", "Input?", (Instance("a", LONG),), False),
        Seed("second", "Second?", (Instance("a", LONG), Instance("", "2 " + LONG)), False),
    ]
    config = configured(augmentation={"demonstrations": 1})

    assert "Instruction: Second?\n" in text_of(BacktranslationPrompts(config, poor).augmentation(SEGMENT))


def test_too_few_seeds() -> None:
    """Too few seeds that fit are an input error which names the keys and how many there are."""
    with pytest.raises(InputError) as caught:
        BacktranslationPrompts(configured(), SEEDS[:2])

    assert str(caught.value) == (
        "augmentation.demonstrations = 3: shipped:seeds.jsonl has 2 seeds that fit, with an empty input and an output "
        "of at least augmentation.demonstration_characters = 600 characters; lower either, or add seeds"
    )


def test_very_long_seeds_are_shown_only_at_need() -> None:
    """A seed of more than 2,500 characters is left out where enough others fit, and used where they do not."""
    long = Seed("long", "Long?", (Instance("", "x" * 2501),), False)

    for number in range(10):
        config = configured(seed=number)
        assert "Long?" not in text_of(BacktranslationPrompts(config, [long, *SEEDS[:3]]).augmentation(SEGMENT))
    assert "Long?" in text_of(BacktranslationPrompts(configured(), [long, *SEEDS[:2]]).augmentation(SEGMENT))


def test_the_shipped_seeds_serve() -> None:
    """The shipped seed file has enough seeds for the default."""
    seeds = parse_seeds(shipped_text("seeds.jsonl"), "shipped")

    assert text_of(BacktranslationPrompts(configured(), seeds).augmentation(SEGMENT)).count("Text:\n") == 4


def test_a_prompt_without_demonstrations_while_some_are_asked_for() -> None:
    """A file that shows none is an input error unless none are asked for; the demo's prompt serves then, unfenced."""
    prompts = {"augmentation": "shipped:demo/augmentation.txt"}

    with pytest.raises(InputError, match=r"no `\$demonstrations`; add it, or set augmentation.demonstrations = 0"):
        BacktranslationPrompts(configured(prompts=prompts), SEEDS)
    config = configured(prompts=prompts, augmentation={"demonstrations": 0})
    asked = text_of(BacktranslationPrompts(config, []).augmentation(SEGMENT))
    assert asked == f"Text:\nBread\n\n{SEGMENT.text}\n\nInstruction:"


def test_a_backward_model_gets_the_text_alone() -> None:
    """Mode `backward`: the text without header, fence or demonstrations, and no seed is needed."""
    completion = BacktranslationPrompts(configured(augmentation={"mode": "backward"}), [])
    chat = BacktranslationPrompts(configured("chat", augmentation={"mode": "backward"}), [])

    assert completion.augmentation(SEGMENT) == f"{SEGMENT.text}\n\nInstruction:"
    assert turns_of(chat.augmentation(SEGMENT)) == [("user", SEGMENT.text)]
    assert [template.name for template in completion.templates] == ["backward"]
    assert completion.templates == (completion.augmentation_template,)


def test_the_longest_prompt() -> None:
    """The longest prompt is that of a text of corpus.max_characters."""
    config = configured(corpus={"source": "a", "max_characters": 1000})
    prompts = BacktranslationPrompts(config, SEEDS)
    empty = prompts.augmentation(Segment("", "", None, ""))

    assert len(text_of(prompts.longest)) == len(text_of(empty)) + 1000


@given(text=st.text(alphabet="=\nab ", max_size=60))
def test_no_text_closes_its_fence(text: str) -> None:
    """Whatever a text holds, its fence stands twice in the prompt: above it and below it."""
    config = configured(augmentation={"demonstrations": 0})
    asked = text_of(BacktranslationPrompts(config, []).augmentation(Segment("", "", None, text)))
    lines = asked.split("\n")
    fence = lines[lines.index("Text:") + 1]

    assert set(fence) == {"="}
    assert asked.count(fence) == 2
    assert asked.endswith(f"Text:\n{fence}\n{text}\n{fence}\nInstruction:")


def test_reading_and_judging_an_answer() -> None:
    """The answer is read in the engine's style, and measured by this prompt's own words and this segment's text."""
    prompts = BacktranslationPrompts(configured(augmentation={"echo_words": 3}), SEEDS)
    own = prompts.refusal("Can it be understood by someone?", SEGMENT, truncated=False)
    shown = prompts.refusal("Ask 1 for an answer.", SEGMENT, truncated=False)
    echo = prompts.refusal("So do not follow him", SEGMENT, truncated=False)

    assert prompts.read_instruction(" Why?\nText:\nOther") == "Why?"
    assert own is not None
    assert own.reason == Reason.ECHOES_PROMPT
    assert shown is None
    assert echo is not None
    assert (echo.reason, echo.detail) == (Reason.ECHOES_TEXT, "do not follow")


def test_a_header_may_be_the_instruction() -> None:
    """Only the text makes an echo: a header is often the very question that the text answers."""
    header = "How do I keep a loaf of bread from going flat in the oven?"
    prompts = BacktranslationPrompts(configured(), SEEDS)

    assert prompts.refusal(header, Segment("", "", header, "Shape it."), truncated=False) is None


def test_the_system_message_is_part_of_the_prompt() -> None:
    """An echo of the system message is an echo of the prompt."""
    engine = {"kind": "scripted", "style": "chat", "system": "You write for the readers of a bakery's own paper."}
    verdict = BacktranslationPrompts(configured(engine=engine), SEEDS).refusal(
        "Please write for the readers of a bakery's own paper", SEGMENT, truncated=False
    )

    assert verdict is not None
    assert verdict.reason == Reason.ECHOES_PROMPT


# The judge


def test_a_completion_ends_in_the_lead() -> None:
    """Mode `score`, completion style: the pair in one fence that neither can close, then the lead."""
    prompts = CurationPrompts(configured())
    asked = text_of(prompts.score("Ask\n==========", "Answer"))

    fence = "=" * 11
    assert asked.endswith(
        f"Instruction:\n{fence}\nAsk\n==========\n{fence}\n\nAnswer:\n{fence}\nAnswer\n{fence}\n\n{SCORE_LEAD}"
    )
    assert asked.count(fence) == 4
    assert prompts.lead == SCORE_LEAD
    assert [template.name for template in prompts.templates] == ["curation"]
    assert prompts.template == prompts.templates[0]


def test_a_chat_asks_for_one_digit() -> None:
    """Mode `score`, chat style: one turn, which asks for a digit alone, by the judge's own style and system message."""
    judge = {"kind": "scripted", "style": "chat", "system": "Be strict."}
    (system, user) = turns_of(CurationPrompts(configured(judge=judge)).score("Ask", "Answer"))

    assert system == ("system", "Be strict.")
    assert user[0] == "user"
    assert user[1].endswith("one digit from 1 to 5, and nothing else.")


def test_a_reason_and_then_a_score() -> None:
    """Mode `rationale`, completion style: the prompt ends where the reason begins, and the lead comes after it."""
    prompts = CurationPrompts(configured(curation={"mode": "rationale"}))
    asked = text_of(prompts.rationale("Ask", "Answer"))

    assert asked.endswith("\n\nReason:")
    assert prompts.score("Ask", "Answer", "It is vague.") == f"{asked} It is vague.\nScore:"
    assert prompts.score("Ask", "Answer", "") == f"{asked}\nScore:"
    assert [template.name for template in prompts.templates] == ["curation_rationale"]


def test_a_reason_in_a_chat() -> None:
    """Mode `rationale`, chat style: the reason is the judge's turn, and the score is asked for in the next; a judge
    that gave none is asked again for both."""
    engine = {"kind": "scripted", "style": "chat", "system": "Be strict."}
    prompts = CurationPrompts(configured(engine=engine, curation={"mode": "rationale"}))
    asked = prompts.rationale("Ask", "Answer")
    assert not isinstance(asked, str)

    assert [message.role for message in asked] == ["system", "user"]
    later = (Message("assistant", "It is vague."), Message("user", SCORE_ALONE))
    assert prompts.score("Ask", "Answer", "It is vague.") == (*asked, *later)
    assert prompts.score("Ask", "Answer", "") == asked


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(" It is vague. ", "It is vague.", id="plain"),
        pytest.param("It is vague.\nScore: 2", "It is vague.", id="score-below"),
        pytest.param("It is vague.\n\n**Score:** 2\n", "It is vague.", id="bold"),
        pytest.param("It is vague. Final score: 2", "It is vague.", id="on-the-line"),
        pytest.param("It is vague, so the score is 2.", "It is vague, so", id="in-a-sentence"),
        pytest.param("It is vague.\n- Score = 2", "It is vague.", id="equals"),
        pytest.param("Score: 2\nIt is vague.", "", id="score-first"),
        pytest.param("It explains how a film score works.", "It explains how a film score works.", id="the-word"),
        pytest.param("", "", id="nothing"),
    ],
)
def test_the_reason_alone(text: str, expected: str) -> None:
    """A reason is read without the score that follows it."""
    assert CurationPrompts(configured(curation={"mode": "rationale"})).read_rationale(text) == expected


def test_the_judges_longest_prompt() -> None:
    """The judge's longest prompt holds an instruction of max_words and a text of max_characters."""
    config = configured(corpus={"source": "a", "max_characters": 1000}, augmentation={"max_words": 7})
    (prompt,) = CurationPrompts(config).longest()
    asked = text_of(prompt)
    pair = asked.split("========\n")

    assert len(pair[1].split()) == 7
    assert len(pair[3].removesuffix("\n")) == 1000


def test_the_longest_prompts_with_a_reason() -> None:
    """In mode `rationale` both requests are counted: the second holds a reason of as many words as it may be long."""
    config = configured(curation={"mode": "rationale", "rationale_sampling": {"max_tokens": 50}})
    first, second = map(text_of, CurationPrompts(config).longest((100, 200)))

    assert second.startswith(first.rstrip())
    assert len(second.split()) == len(first.split()) + 50 + 1


def test_own_curation_prompt(tmp_path: Path) -> None:
    """A judge's prompt of one's own in completion style must end in the lead; in chat style it need not."""
    file = tmp_path / "own.txt"
    file.write_text("$instruction\n$output\nScore: \n", encoding="utf-8")
    prompts = {"curation": str(file)}

    with pytest.raises(InputError, match="must end in 'Score:'") as caught:
        CurationPrompts(configured(prompts=prompts))
    assert str(caught.value).startswith(f"[prompts] curation = {str(file)!r}: ")
    assert turns_of(CurationPrompts(configured("chat", prompts=prompts)).score("a", "b")) == [("user", "a\nb\nScore: ")]


def test_the_demo_judge() -> None:
    """The demo's curation prompt shows the pair as it is."""
    config = configured(prompts={"curation": "shipped:demo/curation.txt"})

    assert CurationPrompts(config).score("Ask", "Answer") == "Instruction: Ask\n\nAnswer:\nAnswer\n\nScore:"
