"""Weighed requests: which tokens the choices are, what an endpoint's answer says of them, and who is asked."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from pipeline.endpoint import OpenAIEngine
from pipeline.endpoint_http import Server
from pipeline.engine import Lost, Running, WriterAndJudge
from pipeline.engine_settings import EngineSettings
from pipeline.prompting import shipped_text
from pipeline.records import Completion, Message, Prompt, Request, RequestKey, Sampling, Stage
from pipeline.testing import ScriptedEngine, scripted_answer
from pipeline.testing_endpoint import Body, Fault, Positions, ScriptedEndpoint, guess_stage
from pipeline.weighing import Position, find_step, most_probable, read_positions, weigh

DIGITS = ("1", "2", "3", "4", "5")
LEAD = "Score:"
TEXT = f"Instruction: Sort.\n\nAnswer:\nSorted.\n\n{LEAD}"
CHAT: Prompt = (Message("user", "How good is it? Reply with the score alone."),)
STEP = Sampling(1, 0.0, 1.0, 0, 0.0, 0.0, 0.0, 1.0, ())


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """No proxy stands before this machine."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


def weighed(prompt: Prompt = TEXT, unit: int = 0) -> Request:
    """A request for a score."""
    return Request(RequestKey(unit, Stage.CURATION), prompt, STEP, DIGITS, weigh=True, lead=LEAD)


def ask(
    server: ScriptedEndpoint, *requests: Request, weighs: bool = True, **values: Any
) -> tuple[Server, list[Completion]]:
    """Start an engine and give it these requests one after the other: what start found, and the answers."""
    style = "completion" if isinstance(requests[0].prompt, str) else "chat"

    async def main() -> tuple[Server, list[Completion]]:
        own = {"base_url": server.url, "api_key_env": "TEST_NO_KEY"}
        settings = {"kind": "openai", "model": "scripted", "style": style, "openai": own, **values}
        engine = OpenAIEngine(EngineSettings.model_validate(settings))
        try:
            found = await engine.start(weighs=weighs)
            return found, [await engine.generate(each) for each in requests]
        finally:
            await engine.close()

    return asyncio.run(main())


def tokens(*positions: dict[str, float]) -> Callable[[Body], Positions]:
    """What stands at each position of every answer, beside enough others for a server to tell of."""
    filler = {f" word{n}": 1e-6 for n in range(20)}
    return lambda _: [position | filler for position in positions]


# Which tokens


class Tokenizer:
    """Cuts a text by the longest of its tokens, or characters; `encode` as in transformers."""

    def __init__(self, *known: str) -> None:
        self._known = sorted(known, key=len, reverse=True)

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        assert not add_special_tokens
        ids = []
        while text:
            token = next((each for each in self._known if text.startswith(each)), text[0])
            ids.append(self._known.index(token) if token in self._known else 1000 + ord(token))
            text = text.removeprefix(token)
        return ids


def test_a_digit_with_its_space_is_one_token() -> None:
    """The lead stays as it is where each choice is one token with the space before it."""
    tokenizer = Tokenizer("Score", ":", *(f" {digit}" for digit in DIGITS))
    step = find_step(tokenizer, LEAD, DIGITS)
    assert step.gap == ""
    assert [*step.token_ids] == [tokenizer.encode(f" {digit}", add_special_tokens=False)[0] for digit in DIGITS]


def test_a_digit_without_a_space_is_one_token() -> None:
    """The lead gets the space where space and digit are two tokens."""
    tokenizer = Tokenizer("Score", ":", " ", *DIGITS)
    step = find_step(tokenizer, LEAD, DIGITS)
    assert step.gap == " "
    assert [*step.token_ids] == tokenizer.encode("12345", add_special_tokens=False)


def test_without_a_lead_the_answer_begins_with_the_digit() -> None:
    """No space comes before it then."""
    step = find_step(Tokenizer(" 1", " 2", "1", "2"), "", ("1", "2"))
    assert step.gap == ""
    assert step.token_ids == tuple(Tokenizer(" 1", " 2", "1", "2").encode("12", add_special_tokens=False))


def test_tokens_that_reach_into_the_lead_are_not_taken() -> None:
    """A digit counts as one token only where the tokens before it are those of the lead, for each of the choices."""
    with pytest.raises(ValueError, match="as one token"):
        find_step(Tokenizer("Score", ": 1", " 2", " 3", " 4", " 5"), LEAD, DIGITS)


def test_choices_of_several_tokens_are_refused() -> None:
    """The sentence has the choices and the lead."""
    with pytest.raises(ValueError, match="does not write each of 9, 10 as one token after 'Score:'"):
        find_step(Tokenizer("Score:"), LEAD, ("9", "10"))


def test_choices_that_the_tokenizer_does_not_know_are_refused() -> None:
    """Where all are the one token for what is not known, they cannot be told apart."""

    class Deaf(Tokenizer):
        def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
            return [0 if each > 1000 else each for each in super().encode(text, add_special_tokens=add_special_tokens)]

    with pytest.raises(ValueError, match="as one token"):
        find_step(Deaf("Score:", " "), LEAD, DIGITS)


# What an answer says


def position(**chances: float) -> Position:
    """A position by its tokens, an underscore for a space; the most probable one was chosen."""
    top = {name.replace("_", " ").replace("d", ""): chance for name, chance in chances.items()}
    return Position(max(top, key=top.__getitem__), top)


@pytest.mark.parametrize(
    ("positions", "expected"),
    [
        pytest.param([position(_d4=0.5, _d5=0.3, x=0.2)], (0, 0, 0, 0.5, 0.3), id="first-position"),
        pytest.param([position(_d4=0.5, d4=0.3, x=0.2)], (0, 0, 0, 0.8, 0), id="with-and-without-a-space"),
        pytest.param([position(x=0.6, _d4=0.4), position(_d5=0.9)], (0, 0, 0, 0.4, 0), id="a-word-first"),
        pytest.param([position(_=0.8, d2=0.1), position(d4=0.5, d5=0.25)], (0, 0.1, 0, 0.4, 0.2), id="a-space-first"),
        pytest.param([position(d4=0.8, _=0.2), position(d5=0.9)], (0, 0, 0, 0.8, 0), id="a-digit-of-more"),
        pytest.param([position(x=1.0)], (0, 0, 0, 0, 0), id="no-digit"),
        pytest.param([position(d44=0.7, x=0.3)], (0, 0, 0, 0, 0), id="another-number"),
        pytest.param([], (0, 0, 0, 0, 0), id="nothing"),
    ],
)
def test_what_an_answer_gives_each_choice(positions: list[Position], expected: tuple[float, ...]) -> None:
    """Tokens that are a digit but for white space count at the first position, and after white space at the second."""
    assert weigh(positions, DIGITS) == pytest.approx(expected)


def test_a_chat_that_begins_with_the_lead() -> None:
    """What follows the lead counts by the probability of coming there, and a digit in its place counts as it is."""
    positions = [position(Score=0.5, d3=0.25), Position(":", {":": 0.8}), position(_d4=0.5, _d5=0.25)]
    assert weigh(positions, DIGITS, LEAD) == pytest.approx((0, 0, 0.25, 0.2, 0.1))
    assert weigh(positions, DIGITS) == pytest.approx((0, 0, 0.25, 0, 0))


def test_a_space_as_tokenizers_write_it() -> None:
    """Some servers hand tokens on as the tokenizer has them."""
    assert weigh([Position("▁4", {"▁4": 0.5, "Ġ5": 0.25})], DIGITS) == pytest.approx((0, 0, 0, 0.5, 0.25))


@pytest.mark.parametrize(
    "logprobs",
    [
        {"tokens": [" 4"], "token_logprobs": [-0.5], "top_logprobs": [{" 4": -0.5, " 5": -9999.0, " 3": 1e-9}]},
        {
            "content": [
                {
                    "token": " 4",
                    "logprob": -0.5,
                    "top_logprobs": [
                        {"token": " 4", "logprob": -0.5},
                        {"token": " 5", "logprob": -9999.0},
                        {"token": " 3", "logprob": 1e-9},
                    ],
                }
            ]
        },
    ],
    ids=["text", "chat"],
)
def test_positions_of_either_route(logprobs: Any) -> None:
    """Texts and chats have shapes of their own for the same; no probability is above 1."""
    (found,) = read_positions(logprobs)
    assert found == Position(" 4", {" 4": pytest.approx(math.exp(-0.5)), " 5": 0.0, " 3": 1.0})


@pytest.mark.parametrize(
    "logprobs",
    [
        None,
        {},
        [],
        "no",
        {"content": None},
        {"content": [{"token": "4"}]},
        {"tokens": ["4"], "top_logprobs": None},
        {"tokens": ["4"], "top_logprobs": []},
        {"tokens": ["4"], "top_logprobs": [{"4": None}]},
        {"tokens": [" ", "4"], "top_logprobs": [{" ": -0.1}]},
    ],
)
def test_what_is_no_positions(logprobs: Any) -> None:
    """A server that leaves them out, or half of them, has told nothing."""
    assert read_positions(logprobs) == ()


def test_of_equal_choices_the_first() -> None:
    """So that what is no score at all is the lowest."""
    assert most_probable(DIGITS, (0.1, 0.3, 0.3, 0.0, 0.0)) == "2"
    assert most_probable(DIGITS, (0.0,) * 5) == "1"


# An endpoint


@pytest.mark.parametrize("prompt", [TEXT, CHAT], ids=["completion", "chat"])
def test_a_score_in_one_request(prompt: Prompt) -> None:
    """The digit, whole, and what the server told of all five, from an answer that was not constrained."""
    with ScriptedEndpoint(tokens=tokens({" 4": 0.5, " 5": 0.25, " 1": 0.125, " The": 0.1})) as server:
        found, (answer,) = ask(server, weighed(prompt))
        body = server.bodies[-1]

    assert (answer.text, answer.finish_reason) == ("4", "stop")
    assert answer.probabilities == pytest.approx((0.125, 0, 0, 0.5, 0.25))
    assert answer.prompt_tokens > 0
    assert found.top == 20
    assert str(found).endswith("token counts yes, token probabilities of the first 20")
    assert "structured_outputs" not in body
    assert (body["temperature"], body["top_p"]) == (0.0, 1.0)
    if prompt == TEXT:
        assert (body["logprobs"], body["max_tokens"]) == (20, 2)
        assert "top_logprobs" not in body
    else:
        assert (body["logprobs"], body["top_logprobs"], body["max_tokens"]) == (True, 20, 8)


def test_white_space_first() -> None:
    """A model that writes the space as a token of its own is asked no second time."""
    with ScriptedEndpoint(tokens=tokens({" ": 0.9, "4": 0.05}, {"4": 0.5, "5": 0.4})) as server:
        _, (answer,) = ask(server, weighed())
        assert answer.probabilities == pytest.approx((0, 0, 0, 0.05 + 0.45, 0.36))
        assert len(server.bodies) == 3


def test_no_digit_among_the_tokens() -> None:
    """The probabilities are all 0, and the score, which is not to be believed, is the lowest."""
    with ScriptedEndpoint(tokens=tokens({" The": 0.9}, {" answer": 0.9})) as server:
        _, (answer,) = ask(server, weighed())
        assert (answer.text, answer.probabilities) == ("1", (0.0,) * 5)


def test_a_chat_that_repeats_the_lead() -> None:
    """Its score is read behind it."""
    told = tokens({"Score": 0.9}, {":": 1.0}, {" 5": 0.5, " 2": 0.25})
    with ScriptedEndpoint(tokens=told) as server:
        _, (answer,) = ask(server, weighed(CHAT))
        assert (answer.text, answer.probabilities) == ("5", pytest.approx((0, 0.225, 0, 0, 0.45)))


@pytest.mark.parametrize("prompt", [TEXT, CHAT], ids=["completion", "chat"])
def test_a_server_that_tells_of_few_tokens(prompt: Prompt) -> None:
    """One that refuses twenty is asked for five, from the start on."""
    with ScriptedEndpoint(logprobs=5, tokens=tokens({" 4": 0.5, " 5": 0.25})) as server:
        found, (answer,) = ask(server, weighed(prompt))
        body = server.bodies[-1]

    assert found.top == 5
    assert str(found).endswith("of the first 5")
    assert answer.probabilities == pytest.approx((0, 0, 0, 0.5, 0.25))
    assert (body["logprobs"] if prompt == TEXT else body["top_logprobs"]) == 5


@pytest.mark.parametrize("prompt", [TEXT, CHAT], ids=["completion", "chat"])
@pytest.mark.parametrize("values", [{"strict": True}, {"strict": False}, {"strict": True, "choices": False}])
def test_a_server_without_probabilities(prompt: Prompt, values: dict[str, bool]) -> None:
    """Whether it refuses the fields or overlooks them, the digit is chosen as other choices are, of no known chance."""
    with ScriptedEndpoint(logprobs=0, **values) as server:  # type: ignore[arg-type]
        found, (answer,) = ask(server, weighed(prompt))
        assert found.top == 0
        assert str(found).endswith("token probabilities no")
        assert "logprobs" not in server.bodies[-1]
        assert ("structured_outputs" in server.bodies[-1]) == found.choices
    assert answer.text in DIGITS
    assert answer.probabilities == ()


def test_a_server_that_tells_of_the_chosen_token_alone() -> None:
    """Fewer than five tokens are too few to tell of five digits."""
    with ScriptedEndpoint(tokens=lambda _: [{" 4": 0.9}]) as server:
        found, (answer,) = ask(server, weighed())
    assert (found.top, answer.probabilities) == (0, ())


def test_an_answer_that_tells_nothing_for_once() -> None:
    """The digit is then chosen as where the server never tells."""
    silent = Fault(200, body={"choices": [{"finish_reason": "stop", "text": " 4", "logprobs": None}]})
    with ScriptedEndpoint(faults=lambda n: silent if n == 3 else None) as server:
        _, (answer,) = ask(server, weighed())
        assert "structured_outputs" in server.bodies[-1]
    assert answer.text in DIGITS
    assert answer.probabilities == ()


def test_an_answer_without_counts() -> None:
    """A server that counts no tokens is weighed all the same."""
    with ScriptedEndpoint(usage=False, tokens=tokens({" 4": 0.5})) as server:
        found, (answer,) = ask(server, weighed())
    assert not found.usage
    assert (answer.prompt_tokens, answer.completion_tokens, answer.text) == (0, 0, "4")


def test_a_server_that_thinks() -> None:
    """What it tells is of its thought: it is not asked, and the digit is what the answer begins with."""
    with ScriptedEndpoint(answer=lambda _: "<think>Hm.</think>4", choices=False) as server:
        found, (answer,) = ask(server, weighed(CHAT), chat_template_kwargs={"enable_thinking": True})
        assert not any("logprobs" in body for body in server.bodies)
    assert (found.thinks, found.top) == (True, 0)
    assert (answer.text, answer.probabilities) == ("4", ())


def test_a_server_whose_thinking_is_off() -> None:
    """A weighed answer is asked for without a thought, too."""

    def said(body: Body) -> str:
        return "A cat." if body.get("chat_template_kwargs") else "<think>Hm"

    with ScriptedEndpoint(answer=said) as server:
        found, (answer,) = ask(server, weighed(CHAT))
        assert server.bodies[-1]["chat_template_kwargs"] == {"enable_thinking": False, "thinking": False}
    assert (found.thinking_off, found.top) == (True, 20)
    assert sum(answer.probabilities) > 0


def test_a_switch_of_the_users_own() -> None:
    """A model that may think, and did not at the start, is told not to before a score."""
    with ScriptedEndpoint(answer=lambda _: "A cat.") as server:
        ask(server, weighed(CHAT), chat_template_kwargs={"enable_thinking": True, "tone": "dry"})
        assert server.bodies[-1]["chat_template_kwargs"] == {"enable_thinking": False, "tone": "dry"}


def test_nothing_is_looked_for_where_nothing_is_weighed() -> None:
    """A run without a judge asks no server for probabilities, nor says anything of them."""
    with ScriptedEndpoint() as server:
        found, _ = ask(server, Request(RequestKey(0, Stage.INSTANCES), TEXT, STEP), weighs=False)
        assert not any("logprobs" in body for body in server.bodies)
    assert found.top is None
    assert "probabilities" not in str(found)


def test_the_scripted_server_weighs_as_the_scripted_engine() -> None:
    """Scores over HTTP are spread, sum to a mass, and are a function of the body."""
    requests = [weighed(f"{n}\n{TEXT}") for n in range(40)]
    with ScriptedEndpoint() as server:
        _, answers = ask(server, *requests)
        _, again = ask(server, *requests)
    assert answers == again
    assert len({answer.text for answer in answers}) >= 4
    assert {sum(answer.probabilities) > 0.5 for answer in answers} == {True, False}


@pytest.mark.parametrize(
    ("prompt", "stage"),
    [
        (TEXT, Stage.CURATION),
        ("Text:\nA dog.\n\nInstruction:", Stage.AUGMENTATION),
        ("Answer:\nA dog.\n\nReason:", Stage.RATIONALE),
        ((Message("user", "Reply with the score alone: one digit."),), Stage.CURATION),
        ((Message("user", "Answer with exactly one of: 1, 2, 3, 4, 5."),), Stage.CURATION),
        ((Message("user", "Answer with exactly one of: Yes, No."),), Stage.CLASSIFICATION),
        ((Message("user", "First give the reason for your score, in one sentence."),), Stage.RATIONALE),
        ((Message("user", "Write the instruction that this last text answers."),), Stage.AUGMENTATION),
    ],
)
def test_the_stage_is_read_off_the_prompt(prompt: Prompt, stage: Stage) -> None:
    """So that the scripted server answers backtranslation's prompts as it does those of Self-Instruct."""
    assert guess_stage(prompt) is stage


@pytest.mark.parametrize(
    ("name", "stage"),
    [
        ("augmentation", Stage.AUGMENTATION),
        ("curation", Stage.CURATION),
        ("curation_rationale", Stage.RATIONALE),
        ("bootstrap", Stage.BOOTSTRAP),
        ("classification", Stage.CLASSIFICATION),
        ("instance_input_first", Stage.INSTANCES),
    ],
)
def test_the_shipped_prompts_are_told_apart(name: str, stage: Stage) -> None:
    """In chat style, where no prompt's end gives it away."""
    assert guess_stage((Message("user", shipped_text(f"chat/{name}.txt")),)) is stage


# The scripted engine


def asked(stage: Stage, prompt: Prompt, count: int = 400, **values: Any) -> list[Completion]:
    """Many answers of one stage."""
    request = Request(RequestKey(0, stage), prompt, STEP, **values)
    return [scripted_answer(replace(request, key=RequestKey(unit, stage))) for unit in range(count)]


def test_scripted_scores() -> None:
    """The digit is the most probable one, all five are given, and about one in ten is no score at all."""
    answers = asked(Stage.CURATION, TEXT, choices=DIGITS, weigh=True)
    masses = [sum(answer.probabilities) for answer in answers]

    assert all(most_probable(DIGITS, answer.probabilities) == answer.text for answer in answers)
    assert {answer.text for answer in answers} == set(DIGITS)
    assert 0.03 < sum(mass < 0.2 for mass in masses) / 400 < 0.2
    assert all(mass < 0.2 or 0.8 <= mass < 1 for mass in masses)
    assert not any(answer.probabilities for answer in asked(Stage.CURATION, TEXT, choices=DIGITS))


def test_scripted_reasons() -> None:
    """A short reason that holds no score of its own."""
    texts = {answer.text for answer in asked(Stage.RATIONALE, TEXT)}
    assert len(texts) > 100
    assert not any(LEAD in text or len(text.split()) > 20 for text in texts)


FENCED = (
    "Text:\n========\nOlder words of another example.\n========\n\nText:\n========\nSilver otters swim.\n========\n"
)


@pytest.mark.parametrize(
    ("prompt", "chat"),
    [
        ("Text:\nOlder words.\n\nText:\nSilver otters swim.\n\nInstruction:", False),
        (f"{FENCED}Instruction:", False),
        ((Message("user", f"{FENCED}\nWrite its instruction."),), True),
    ],
    ids=["plain", "fenced", "chat"],
)
def test_scripted_instructions(prompt: Prompt, chat: bool) -> None:
    """They name words of the last text; some are broken, in each of the ways; chats wrap some of theirs."""
    texts = [answer.text.strip() for answer in asked(Stage.AUGMENTATION, prompt)]
    sound = [text for text in texts if "silver" in text or "otters" in text]

    assert not any("older" in text for text in texts)
    assert len(set(sound)) > 300
    assert "" in texts
    assert "Summarize the passage above." in texts
    assert "Silver otters swim." in texts
    assert any(text.startswith("1. ") and "\n2. " in text for text in texts)
    assert any(text.startswith("Sure! Here is the instruction:\n\n") for text in texts) == chat


# The writer and the judge


class Broken(ScriptedEngine):
    """An engine that cannot be closed."""

    closed = 0

    async def close(self) -> None:
        Broken.closed += 1
        raise RuntimeError("it does not close")


def stages_of(engine: ScriptedEngine) -> Sequence[Stage]:
    """The stages of what an engine was asked, in order."""
    return [key.stage for key in engine.calls]


def test_the_judge_answers_what_belongs_to_curation() -> None:
    """Reasons and scores go to the judge, all else to the writer, whose capacity it is."""
    writer, judge = ScriptedEngine(capacity=3), ScriptedEngine(capacity=5)
    both = WriterAndJudge(writer, judge)

    async def main() -> None:
        for stage in Stage:
            await both.generate(Request(RequestKey(0, stage), TEXT, STEP))
        await both.close()

    asyncio.run(main())
    assert both.capacity == 3
    assert stages_of(judge) == [Stage.RATIONALE, Stage.CURATION]
    assert set(stages_of(writer)) == set(Stage) - {Stage.RATIONALE, Stage.CURATION}


def test_the_writer_is_needed_for_what_it_is_asked_alone() -> None:
    """To the writer a run has as many open units as requests wait for it, so that its engines may go while the judge's
    work; to the judge it has all of them."""

    class Following(ScriptedEngine):
        run: Running

        def follow(self, run: Running) -> None:
            self.run = run

    class Open:
        open_units = 7

        def holding(self) -> Lost:
            return Lost.TAIL

    writer, judge = Following(delay_s=0.1), Following(delay_s=0.1)
    both = WriterAndJudge(writer, judge)
    both.follow(Open())

    async def main() -> None:
        stages = (Stage.AUGMENTATION, Stage.AUGMENTATION, Stage.CURATION)
        keys = (RequestKey(unit, stage) for unit, stage in enumerate(stages))
        asked = [asyncio.create_task(both.generate(Request(key, TEXT, STEP))) for key in keys]
        await asyncio.sleep(0)
        assert (writer.run.open_units, judge.run.open_units) == (2, 7)
        asked[0].cancel()
        await asyncio.wait(asked)
        assert (writer.run.open_units, judge.run.open_units) == (0, 7)
        assert writer.run.holding() is judge.run.holding() is Lost.TAIL

    asyncio.run(main())


def test_both_are_closed() -> None:
    """The judge is closed also where closing the writer raises, and what was raised comes through."""
    Broken.closed = 0
    with pytest.raises(RuntimeError, match="does not close"):
        asyncio.run(WriterAndJudge(Broken(), Broken()).close())
    assert Broken.closed == 2
