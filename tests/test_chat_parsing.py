"""Parsers of chat replies: a collection of replies in `chat_replies.jsonl`, single rules, and text of any kind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.chat_parsing import parse_inputs, parse_labels, parse_task_list, parse_yes_no
from pipeline.filters import first_refusal, is_refusal, paper_filters
from pipeline.parsing import judge_output
from pipeline.prompting import shipped_text
from pipeline.records import Instance, Reason
from pipeline.settings import FilterSettings

REPLIES = [
    json.loads(line)
    for line in Path(__file__).with_name("chat_replies.jsonl").read_text(encoding="utf-8").split("\n")
    if line
]
FILTERS = paper_filters(FilterSettings())


def parsed(kind: str, reply: str) -> list[Any]:
    """What the parser of this kind of reply finds, as the collection writes it down."""
    if kind == "tasks":
        return parse_task_list(reply)
    if kind == "inputs":
        return parse_inputs(reply)
    if kind == "labels":
        return [[instance.output, instance.input] for instance in parse_labels(reply)]
    if kind == "output":
        return [reply]
    answer = parse_yes_no(reply)
    return [] if answer is None else [answer]


def reasons_of(kind: str, items: list[Any], finish_reason: str) -> list[Reason | None]:
    """Why each instruction is refused before novelty, in the order of the recipe; for other kinds: why the reply is."""
    if kind == "output":
        return [judge_output(Instance("", items[0]), truncated=False, refusals=True)]
    if kind != "tasks":
        unparsed = Reason.CLASSIFICATION_UNPARSED if kind == "yes_no" else Reason.NO_INSTANCE_PARSED
        return [] if items else [unparsed]
    if not items:
        return [Reason.NO_INSTRUCTION_PARSED]
    refusals = [first_refusal(FILTERS, item) for item in items]
    reasons = [refusal.reason if refusal else None for refusal in refusals]
    if finish_reason == "length":
        reasons[-1] = Reason.ITEM_TRUNCATED
    return reasons


@pytest.mark.parametrize("reply", REPLIES, ids=lambda reply: reply["name"])
def test_reply(reply: dict[str, Any]) -> None:
    """Each reply of the collection gives the items, and each item the reason, that are written down with it."""
    items = parsed(reply["kind"], reply["reply"])

    assert items == reply["items"]
    assert reasons_of(reply["kind"], items, reply["finish_reason"]) == reply["reasons"]


def test_the_collection_is_large_enough() -> None:
    """Every kind of reply is there often enough, each under a name of its own."""
    kinds = [reply["kind"] for reply in REPLIES]

    assert kinds.count("tasks") >= 25
    assert kinds.count("inputs") >= 10
    assert kinds.count("labels") >= 8
    assert kinds.count("yes_no") >= 5
    assert kinds.count("output") >= 5
    assert len({reply["name"] for reply in REPLIES}) == len(REPLIES)


# Lists of tasks


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        pytest.param('9.Sort it.\n10."Name it."', ["Sort it.", "Name it."], id="no-space-after-the-point"),
        pytest.param("9.) Sort it.\n10.) Name it.", ["Sort it.", "Name it."], id="point-and-bracket"),
        pytest.param("**(9)** Sort it.\n**(10)** Name it.", ["Sort it.", "Name it."], id="bold-bracket"),
        pytest.param("**9** - Sort it.\n**10 -** Name it.", ["Sort it.", "Name it."], id="bold-and-a-dash"),
        pytest.param("Question 9: Sort it.\nPrompt 10: Name it.", ["Sort it.", "Name it."], id="other-words"),
        pytest.param("9. Request: Sort it.", ["Sort it."], id="request"),
        pytest.param("**Task 9** Sort it.\n**Task 10**\nName it.", ["Sort it.", "Name it."], id="bold-without-colon"),
        pytest.param("**Task 9**: Sort it.", ["Sort it."], id="colon-outside-the-emphasis"),
        pytest.param("- **Task 9:** Sort it.\n- **Task 10:** Name it.", ["Sort it.", "Name it."], id="bullet-first"),
        pytest.param("9. New task: Sort it.\n10. Task 2: Name it.", ["Sort it.", "Name it."], id="two-markers"),
        pytest.param("9. **Sort *all* of it.**", ["Sort all of it."], id="emphasis-in-emphasis"),
        pytest.param("9. ```Sort it.```", ["Sort it."], id="three-backticks"),
        pytest.param("9. Sort `a` or `b`", ["Sort `a` or `b`"], id="two-pieces-of-code-are-no-wrapping"),
        pytest.param("9. “Sort” or “name”", ["“Sort” or “name”"], id="two-quotations-are-no-wrapping"),
        pytest.param("9. Sort `**it**` now", ["Sort `**it**` now"], id="emphasis-shown-as-code"),
        pytest.param("9. '", ["'"], id="a-quote-alone"),
        pytest.param("9. 2024 was a leap year.\n2025. Was it?", ["2024 was a leap year. 2025. Was it?"], id="a-year"),
        pytest.param("9. Sort it\n9-year-olds do", ["Sort it 9-year-olds do"], id="hyphenated-number"),
        pytest.param("Task 9 was hard, and so was\nTask 10 of them.", [], id="the-word-task-in-prose"),
    ],
)
def test_marks_of_an_item(reply: str, expected: list[str]) -> None:
    """What a number looks like, and what around an item is only marking."""
    assert expected == parse_task_list(reply)


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        pytest.param("1. A:\n1. x\n2. y\n3. z\n2. B\n3. C", ["A: 1. x 2. y 3. z", "B", "C"], id="inner-outruns-outer"),
        pytest.param("2. A\n3. B\n1. x\n2. y\n4. C", ["A", "B 1. x 2. y", "C"], id="restart-without-a-colon"),
        pytest.param("9. A\n1. B\n2. C", ["A", "B", "C"], id="restart-of-the-list-itself"),
        pytest.param("1. A\n2. B\n\n**More**\n1. C\n2. D\n3. E", ["A", "B", "C", "D", "E"], id="section-in-bold"),
        pytest.param("1. A\n1. B:\n1. C", ["A", "B:", "C"], id="lazy-with-a-colon"),
        pytest.param("9. A\n  10. B\n  11. C", ["A", "B", "C"], id="first-line-lost-its-indent"),
        pytest.param("9. A\n\t1. x\n\t2. y\n10. B", ["A 1. x 2. y", "B"], id="inner-list-behind-tabs"),
        pytest.param("9. A:\n   10. B", ["A:", "B"], id="next-number-further-in"),
        pytest.param("9. A:\n   1. x\n   10. y", ["A: 1. x 10. y"], id="next-number-in-an-inner-list"),
    ],
)
def test_lists_in_lists(reply: str, expected: list[str]) -> None:
    """Which of several numbers begins an item, and which belongs to a list inside one."""
    assert expected == parse_task_list(reply)


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        pytest.param("8. A\n\nHappy sorting!", ["A"], id="any-paragraph"),
        pytest.param("8. A:\n\nB\n\nC", ["A: B"], id="after-a-colon-one-paragraph"),
        pytest.param("8. **A:**\n\nB", ["A: B"], id="colon-in-bold"),
        pytest.param("8. A\n\n> B", ["A > B"], id="quoted"),
        pytest.param("8. A\n\n```\nB\n\nThese tasks\n```", ["A B These tasks"], id="fenced"),
        pytest.param("8. A\n\n   B\n\nC", ["A B"], id="indented"),
        pytest.param("8. A\n\n   Let me know if you want more.", ["A"], id="indented-remark"),
        pytest.param("8. A:\nI hope these help.", ["A:"], id="remark-after-a-colon"),
        pytest.param("8. A\nB", ["A B"], id="next-line"),
        pytest.param("8. A\n***\nB", ["A"], id="rule"),
        pytest.param("7. A\n\nB\n\n8. C", ["A B", "C"], id="paragraph-of-an-earlier-item"),
        pytest.param("7. A\n\n**B**\n\n8. C", ["A", "C"], id="bold-line-between-items"),
        pytest.param("7. A\n## B\n8. C", ["A", "C"], id="heading-between-items"),
        pytest.param("7. **A?**\nB\n8. **C**", ["A? B", "C"], id="title-that-ends-a-sentence"),
        pytest.param("```\n7. A\n```\n\n```\n8. B:\n```\nC", ["A", "B:"], id="each-item-fenced"),
        pytest.param("```\n7. A\n```\n8. B", ["A", "B"], id="fence-around-the-first-item"),
        pytest.param("~~~text\nNew tasks:\n7. A\n8. B:\n~~~\nC", ["A", "B:"], id="preamble-in-a-fence-of-tildes"),
        pytest.param("```\n7. A\n8. B", ["A", "B"], id="fence-never-closed"),
    ],
)
def test_what_stands_below_an_item(reply: str, expected: list[str]) -> None:
    """A further paragraph of the last item needs a sign that it belongs to the task; a remark never stays."""
    assert expected == parse_task_list(reply)


@pytest.mark.parametrize(
    "remark",
    [
        "Let me know if you'd like more!",
        "*Let me know if you want me to change any of these.*",
        "Feel free to ask for more tasks.",
        "I hope these help!",
        "Hope these examples are what you had in mind.",
        "Would you like different examples?",
        "If you need other inputs, just ask.",
        "Note that all names in these inputs are made up.",
        "(Please note: those labels are only suggestions.)",
        "These tasks cover a wide range of fields.",
        "These cover everyday life and work.",
        "All examples are my own.",
        "Each of the labels above is used once, and each input is new.",
        "Let me know whether you can use them.",
    ],
)
def test_a_remark_is_no_content(remark: str) -> None:
    """What an assistant says about its own reply belongs to no task, input or label."""
    assert parse_task_list(f"8. A\n{remark}") == ["A"]
    assert parse_inputs(f"Input: a\n\n{remark}") == ["a"]
    assert parse_labels(f"Class label: A\nb\n\n{remark}") == [Instance("b", "A")]


@pytest.mark.parametrize(
    "paragraph",
    [
        "Let me know if you can come.",
        "Feel free to bring a friend.",
        "I hope the tasks at your new school are easier.",
        "If you see Tom, tell him.",
        "All of us send our love.",
        "More examples follow tomorrow.",
    ],
)
def test_what_only_begins_like_a_remark_stays(paragraph: str) -> None:
    """A letter's last paragraph is content."""
    assert parse_inputs(f"Input: a\n\n{paragraph}") == [f"a\n\n{paragraph}"]


# Yes or no


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        pytest.param("YES!", True, id="upper"),
        pytest.param('"Yes."', True, id="quoted"),
        pytest.param("**Answer:** Yes", True, id="bold-label"),
        pytest.param("The answer is: **No**.", False, id="in-a-sentence"),
        pytest.param("Classification: no", False, id="another-label"),
        pytest.param("No - the output is free", False, id="dash"),
        pytest.param("No (the output is free)", False, id="bracket"),
        pytest.param("Yes it is one.", True, id="without-comma"),
        pytest.param("Yes this has two labels.", True, id="this"),
        pytest.param("No because it is free.", False, id="because"),
        pytest.param("No since it is free.", False, id="since"),
        pytest.param("Yes and no", None, id="both"),
        pytest.param("Yes/No", None, id="either"),
        pytest.param("Yes or No", None, id="echo"),
        pytest.param("No-one knows", None, id="hyphen"),
        pytest.param("None", None, id="none"),
        pytest.param("I say yes", None, id="later"),
        pytest.param("", None, id="empty"),
    ],
)
def test_yes_no(reply: str, expected: bool | None) -> None:
    """A clear Yes or No at the beginning is read; anything else is no answer."""
    assert expected is parse_yes_no(reply)


# Inputs and labels


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        pytest.param("Example 1:\nInput: a\nExample 2:\nInput: b", ["a", "b"], id="colon-behind-the-example"),
        pytest.param("Example 1: **Input:**\na", ["a"], id="input-below-both-markers"),
        pytest.param("```\nExample 1\nInput: a\n```\n\n```\nExample 2\nInput: b\n```", ["a", "b"], id="each-fenced"),
        pytest.param("Example Input 1: a\nExpected output: b", ["a"], id="longer-markers"),
        pytest.param("Example Input: a\nExample output: b", ["a"], id="longer-markers-without-number"),
        pytest.param("1. a\n2. b\n\nFeel free to ask for more examples.", ["a", "b"], id="remark-below-a-list"),
        pytest.param("Example 1: Input: a\nExample 2: **Input:** b", ["a", "b"], id="both-markers-on-a-line"),
        pytest.param("**Example 1**: a\n**Example 2**: b", ["a", "b"], id="colon-outside-the-emphasis"),
        pytest.param("**Example 1 (short):** a\n**Example 2** b", ["a", "b"], id="bold-examples"),
        pytest.param("### Example 1: A title\nInput: a", ["a"], id="title-dropped"),
        pytest.param("### Input 1\na\n### Input 2\nb", ["a", "b"], id="heading-without-colon"),
        pytest.param("1. **Example 1**\n   Input: a\n2. Example 2\n   Input: b", ["a", "b"], id="numbered-examples"),
        pytest.param("Input: a\ninput: b\nExamples: c", ["a\ninput: b\nExamples: c"], id="words-that-are-no-markers"),
        pytest.param("Input: if x:\n    y", ["if x:\n    y"], id="indent-of-code-stays"),
        pytest.param("Input: a \n\n b", ["a \n\n b"], id="white-space-inside-stays"),
        pytest.param("Input:\n```\na\nb", ["a\nb"], id="fence-cut-off"),
        pytest.param("Input: a\n```\nb\n```", ["a\n```\nb\n```"], id="fence-around-a-part-stays"),
        pytest.param("Input:\n```\na\n```\n```\nb\n```", ["```\na\n```\n```\nb\n```"], id="two-fences-stay"),
        pytest.param("Input: a\n# b", ["a\n# b"], id="comment-at-the-end"),
        pytest.param("Input: a\n\nLet me know if it rains.", ["a\n\nLet me know if it rains."], id="no-remark"),
        pytest.param("Input: a\nI hope these help.", ["a\nI hope these help."], id="no-paragraph-of-its-own"),
        pytest.param("Input: I hope these help.", ["I hope these help."], id="never-the-whole-input"),
        pytest.param("Input: a\n\nFeel free to ask for more.\nBye!", ["a"], id="remark-of-two-lines"),
        pytest.param("Input: none\nExample 2\nInput: b", ["b"], id="one-with-and-one-without"),
        pytest.param("Input: None of them came.", ["None of them came."], id="begins-like-none"),
        pytest.param("Input: No input file was found.", ["No input file was found."], id="begins-like-no-input"),
        pytest.param("Input:", [], id="empty-input"),
        pytest.param("Example 1\nOutput: b", [], id="output-alone"),
        pytest.param("1.\n2.", [], id="empty-list"),
    ],
)
def test_inputs(reply: str, expected: list[str]) -> None:
    """Inputs are found behind their markers, and keep what is theirs."""
    assert expected == parse_inputs(reply)


@pytest.mark.parametrize(
    "reply",
    [
        "None",
        "Input: none needed",
        "Input: None is required.",
        "Input: none (the task is complete)",
        "Input: none - the task is complete",
        "None. The task is complete as it is.",
        "N/A, this is a general question.",
        "No input: it is a general question.",
        "No inputs, as everything is in the task.",
        "No input, because everything is in the task.",
        "No input necessary for a question of this kind.",
        "Not applicable.",
        "Not needed.",
        "Input: not required",
        "This task requires no input.",
        "The task needs no further input.",
        "This task does not need an input.",
        "The task doesn't require any additional input.",
        "This task doesn’t need input.",
    ],
)
def test_a_task_without_input(reply: str) -> None:
    """There are many ways to say that a task needs no input, and each gives the one empty input."""
    assert parse_inputs(reply) == [""]


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        pytest.param("Class label: A\nLabel: b", [("A", "Label: b")], id="the-short-word-in-an-input"),
        pytest.param("Class label: A\nInput: b\nInput: c", [("A", "b"), ("A", "c")], id="two-inputs-of-one-label"),
        pytest.param("Class label: A\nx\nInput: b", [("A", "x\nInput: b")], id="the-word-later-in-an-input"),
        pytest.param("Example 1\nLabel: A\nInput: b\n\nExample 2\nLabel: C", [("A", "b"), ("C", "")], id="no-input"),
        pytest.param("Class label: A\nInput: none", [("A", "")], id="input-none"),
        pytest.param("Class label:\nInput: b", [("", "b")], id="no-label"),
        pytest.param("Class label: A\nb\n\n## C\nClass label: C\nd", [("A", "b"), ("C", "d")], id="heading-between"),
        pytest.param("1. Class label: A\n   x\n     y", [("A", "x\n  y")], id="shared-indent-goes"),
        pytest.param("Class label: **A** `b`\nc", [("A `b`", "c")], id="emphasis-in-a-label"),
        pytest.param("Class label:", [], id="marker-alone"),
        pytest.param(
            "Label: A\nInput: b\n\nI hope these help.\nLabel: C\nInput: d",
            [("A", "b\n\nI hope these help."), ("C", "d")],
            id="only-the-last-has-a-remark",
        ),
        pytest.param("```\nInput: a\n```\nClass label: A\nb", [("A", "b")], id="input-in-a-fence-above"),
    ],
)
def test_labels(reply: str, expected: list[tuple[str, str]]) -> None:
    """Labels are found behind their markers, and inputs below them."""
    assert [Instance(text, label) for label, text in expected] == parse_labels(reply)


def test_the_seeds_in_the_form_asked_for_come_back() -> None:
    """Every shipped seed, written as the prompts ask for it, is read back as it was, and no output is a refusal."""
    seeds = [json.loads(line) for line in shipped_text("seeds.jsonl").splitlines()]
    listed = "\n".join(f"{number}. {seed['instruction']}" for number, seed in enumerate(seeds, start=9))

    assert parse_task_list(listed) == [" ".join(seed["instruction"].split()) for seed in seeds]
    for seed in seeds:
        pairs = [(pair["output"], pair["input"]) for pair in seed["instances"]]
        if seed["is_classification"]:
            reply = "\n".join(f"Class label: {label}\n{text}" for label, text in pairs)
            assert parse_labels(reply) == [Instance(text, label) for label, text in pairs]
        elif pairs[0][1]:
            reply = "\n".join(f"Example {number}\nInput: {text}" for number, (_, text) in enumerate(pairs, start=1))
            assert parse_inputs(reply) == [text for _, text in pairs]
        assert not any(is_refusal(output) for output, _ in pairs)


# Text of any kind

MARKS = '9. ¦1) ¦- ¦**¦*¦`¦```¦~~~python¦"¦#¦\n¦\r\n¦\n\n¦    ¦\t¦---¦:¦\x0b'.split("¦")
WORDS = "Task 9¦Example 1¦Input:¦Output:¦Class label:¦Label:¦none¦Yes¦No.¦These tasks".split("¦")
PIECES = st.one_of(st.sampled_from(MARKS), st.sampled_from(WORDS), st.text(max_size=5))
TEXTS = st.one_of(st.text(), st.lists(PIECES, max_size=30).map("".join))


@given(text=TEXTS)
@settings(max_examples=500, deadline=None)
def test_no_parser_raises(text: str) -> None:
    """Parsers return on any text: items on one line, inputs stripped, and no instance that is empty on both sides."""
    assert all(item == " ".join(item.split()) for item in parse_task_list(text))
    assert parse_yes_no(text) in (True, False, None)
    assert all(found == found.strip() for found in parse_inputs(text))
    assert all(pair.input or pair.output for pair in parse_labels(text))
    assert is_refusal(text) in (True, False)
