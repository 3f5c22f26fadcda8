"""Self-Instruct in chat style: the same method, asked in turns."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.errors import ContentFault
from pipeline.records import Completion, Message, Request, Stage
from pipeline.testing import ScriptedEngine, run_to_end, scripted_answer

Change = Callable[[Request, Completion], Completion | Exception]


@pytest.fixture
def chat(scripted, tables, tmp_path: Path):
    """Runs a chat-style configuration with scripted answers, changed by a function; gives requests, rows, counters."""

    folders = (tmp_path / str(number) for number in itertools.count())

    def run(change: Change = lambda _, answer: answer, **engine):
        asked: list[Request] = []
        folder = next(folders)

        def answer(request: Request) -> Completion | Exception:
            asked.append(request)
            return change(request, scripted_answer(request))

        config = scripted(engine={"kind": "scripted", "style": "chat", **engine}, budget={"units": 12}, target=999)
        done = asyncio.run(run_to_end(config, folder, ScriptedEngine(answer)))
        assert all(left == right for _, left, _, right in done.state.counters.sums())
        return asked, tables(folder), done.state.counters

    return run


def at(stage: Stage, **changes: object) -> Change:
    """Changes the answers of one stage."""
    return lambda request, answer: replace(answer, **changes) if request.key.stage == stage else answer


def test_every_request_is_a_users_turn(chat) -> None:
    """No prompt ends where a base model would go on: each is one message of the user, constrained where it was."""
    asked, rows, _ = chat()

    assert {len(request.prompt) for request in asked} == {1}
    assert {request.prompt[0].role for request in asked} == {"user"}
    assert {request.choices for request in asked if request.key.stage == Stage.CLASSIFICATION} == {("Yes", "No")}
    bootstrap = next(request for request in asked if request.key.stage == Stage.BOOTSTRAP)
    assert "\n8. " in bootstrap.prompt[0].content
    assert "\n9." not in bootstrap.prompt[0].content
    assert len(rows["data"]) > 50


def test_an_output_answers_instruction_and_input_as_an_ordinary_turn(chat) -> None:
    """The turn is the instruction, a blank line and the input, or the instruction alone; its answer is the output."""
    asked, rows, _ = chat()
    outputs = {(r.key.unit, r.key.candidate, r.key.sample): r for r in asked if r.key.stage == Stage.OUTPUT}
    written = [row for row in rows["data"] if not row["is_classification"]]

    assert {bool(row["input"]) for row in written} == {True, False}
    for row in written:
        request = outputs[tuple(map(int, row["id"].split("/")[1:]))]
        expected = f"{row['instruction']}\n\n{row['input']}" if row["input"] else row["instruction"]
        assert request.prompt == (Message("user", expected),)
        assert row["output"] == scripted_answer(request).text
        assert row["completion_tokens"] == scripted_answer(request).completion_tokens


def test_a_class_label_is_the_output_it_was_given_as(chat) -> None:
    """A classification task keeps the labels of its label-first answer, and asks for no output apart."""
    asked, rows, _ = chat()
    labelled = [row for row in rows["data"] if row["is_classification"]]

    assert {row["output"] for row in labelled} == {"warm", "cold"}
    asked_for = {(r.key.unit, r.key.candidate) for r in asked if r.key.stage == Stage.OUTPUT}
    assert not asked_for & {tuple(map(int, row["id"].split("/")[1:3])) for row in labelled}


def test_a_system_message_goes_before_every_turn(chat) -> None:
    """`engine.system` is the first message of each request."""
    asked, _, _ = chat(system="You are brief.")

    assert {request.prompt[0] for request in asked} == {Message("system", "You are brief.")}
    assert {len(request.prompt) for request in asked} == {2}


def test_a_refusal_is_a_reason(chat) -> None:
    """An output that declines its task is refused by default, with its text."""
    _, rows, counters = chat(at(Stage.OUTPUT, text="I'm sorry, but I can't help with that."))

    assert counters.refused_instances["refusal"] > 0
    assert [row for row in rows["data"] if not row["is_classification"]] == []
    assert {row["output"] for row in rows["rejected"] if row["reason"] == "refusal"} == {
        "I'm sorry, but I can't help with that."
    }


def test_an_output_cut_at_max_tokens_is_refused(chat) -> None:
    """Half an answer is no answer."""
    _, rows, counters = chat(at(Stage.OUTPUT, finish_reason="length"))

    assert counters.refused_instances["instance_truncated"] > 0
    assert [row for row in rows["data"] if not row["is_classification"]] == []


def test_the_last_of_a_cut_list_of_inputs_is_refused_and_no_output_asked_for_it(chat) -> None:
    """Inputs cut at max_tokens lose the last one, before anything is spent on it."""
    asked, rows, _ = chat(at(Stage.INSTANCES, finish_reason="length"))
    cut_rows = [row for row in rows["rejected"] if row["reason"] == "instance_truncated"]
    cut = {tuple(map(int, row["id"].split("/")[1:])) for row in cut_rows}

    assert cut
    assert not cut & {(r.key.unit, r.key.candidate, r.key.sample) for r in asked if r.key.stage == Stage.OUTPUT}


def test_copies_of_an_input_are_refused_before_their_output_is_asked_for(chat) -> None:
    """The same input twice has one output."""
    twice = "Example 1\nInput: one harbour\n\nExample 2\nInput: one harbour"

    def change(request: Request, answer: Completion) -> Completion:
        inputs = request.key.stage == Stage.INSTANCES and "Class label" not in answer.text
        return replace(answer, text=twice) if inputs else answer

    asked, _, counters = chat(change)
    assert counters.refused_instances["duplicate_instance"] > 0
    assert {r.key.sample for r in asked if r.key.stage == Stage.OUTPUT} == {0}


def test_a_thinking_block_is_cut_before_parsing_and_kept_nowhere(chat) -> None:
    """Answers that begin with a thought give the rows of those without."""
    _, plain, _ = chat()
    _, thought, _ = chat(lambda _, answer: replace(answer, text=f"<think>\n1. No.\n</think>\n\n{answer.text}"))

    assert thought["data"] == plain["data"]


@pytest.mark.parametrize("stage", [Stage.BOOTSTRAP, Stage.INSTANCES, Stage.OUTPUT])
def test_a_thought_that_does_not_end_is_a_reason_of_its_own(chat, stage: Stage) -> None:
    """Before the gate it fails the unit, after it the instruction, and in an output that instance; the text is kept."""
    rare = 3  # not all: a run of failed units alone would stop

    def change(request: Request, answer: Completion) -> Completion:
        if request.key.stage != stage or request.key.unit % rare:
            return answer
        return replace(answer, text="<think> Well, let me see")

    _, rows, counters = chat(change)
    found = [row for row in rows["rejected"] if row["reason"] == "thought_unclosed"]
    assert {row["stage"] for row in found} == {stage}
    assert {row["text"] for row in found} == {"<think> Well, let me see"}
    counted = {
        Stage.BOOTSTRAP: counters.failure_reasons,
        Stage.INSTANCES: counters.closing_reasons,
        Stage.OUTPUT: counters.refused_instances,
    }[stage]
    assert counted["thought_unclosed"] == len(found) > 0


def test_a_reply_without_a_list_fails_its_unit_with_the_reply(chat) -> None:
    """A model that declines the bootstrap leaves a failure row that holds what it said."""
    sorry = "I'm sorry, but I can't help with that."

    def change(request: Request, answer: Completion) -> Completion:
        declines = request.key.stage == Stage.BOOTSTRAP and request.key.unit == 5
        return replace(answer, text=sorry) if declines else answer

    _, rows, _ = chat(change)
    (failure,) = [row for row in rows["rejected"] if row["unit"] == 5]
    assert (failure["stage"], failure["reason"], failure["text"]) == ("bootstrap", "no_instruction_parsed", sorry)


def test_an_output_that_no_engine_can_write_ends_that_instance_only(chat) -> None:
    """A refused output request is a reject of its instance; its instruction's other instances stay."""

    def change(request: Request, answer: Completion) -> Completion | Exception:
        second = request.key.stage == Stage.OUTPUT and request.key.sample == 1
        return ContentFault("request_refused", "too long") if second else answer

    _, rows, counters = chat(change)
    assert counters.refused_instances["request_refused"] > 0
    assert any(row["id"].endswith("/0") and not row["is_classification"] for row in rows["data"])
