"""Parsers: one hand-written completion per rule of the paper's code, and text of any kind."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.parsing import (
    judge_instances,
    parse_classification,
    parse_input_first,
    parse_instructions,
    parse_output_first,
    with_lead,
)
from pipeline.records import Instance, Reason

BOTH = pytest.mark.parametrize("compat", [False, True], ids=["default", "compat"])


def judged(instances: list[Instance], *, truncated: bool = False, limit: int = 5) -> list[Reason | None]:
    """The reason of each instance, in order."""
    return [one.reason for one in judge_instances(instances, truncated=truncated, limit=limit, rng=random.Random(0))]


# Stage A: a numbered list


@BOTH
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(" Sort the list.\n10. Name a river.", ["Sort the list.", "Name a river."], id="full-stop"),
        pytest.param(" Sort the list.\n10 . Name a river.", ["Sort the list.", "Name a river."], id="space-first"),
        pytest.param(" Sort\n  the   list.\n10. Name\ta river.", ["Sort the list.", "Name a river."], id="white-space"),
        pytest.param(" sort the list.", ["Sort the list."], id="first-letter-raised"),
        pytest.param(" Do this.\n- and that.\n10. Next.", ["Do this. - and that.", "Next."], id="line-without-number"),
        pytest.param(" Add 1.5 and 2. then stop.", ["Add 1.5 and 2. then stop."], id="number-within-a-line"),
        pytest.param(" Multiply by\n1.5 please.", ["Multiply by 1.5 please."], id="decimal-on-its-own-line"),
        pytest.param(" First.\n10) second.", ["First. 10) second."], id="bracket-is-no-item"),
        pytest.param(" First.\n10. \n11. Third.", ["First.", "", "Third."], id="empty-item"),
        pytest.param("", [""], id="nothing"),
    ],
)
def test_list_is_split_at_numbered_lines(text: str, expected: list[str], compat: bool) -> None:
    """A list is cut before each numbered line, and each item cleaned, in both modes."""
    assert expected == parse_instructions(text, compat=compat)


@pytest.mark.parametrize(
    ("text", "default", "compat"),
    [
        pytest.param(
            " Explain what NASA and I do.",
            ["Explain what NASA and I do."],
            ["Explain what nasa and i do."],
            id="case-of-the-rest",
        ),
        pytest.param(" One.\n10.", ["One.", ""], ["One. 10."], id="bare-number-at-the-end"),
        pytest.param(" One.\n 10. Two.", ["One.", "Two."], ["One. 10. two."], id="indented-number"),
        pytest.param(" One.\n\n10. Two.", ["One.", "Two."], ["One.", "Two."], id="blank-line-before"),
        pytest.param(" One.\n10.\nTwo.", ["One.", "Two."], ["One. 10. two."], id="text-on-the-next-line"),
    ],
)
def test_list_where_the_modes_differ(text: str, default: list[str], compat: list[str]) -> None:
    """Compat lower-cases the rest of an item and splits only at upstream's exact form."""
    assert default == parse_instructions(text)
    assert compat == parse_instructions(text, compat=True)


# Stage B: is it classification?


@pytest.mark.parametrize(
    ("text", "default", "compat"),
    [
        pytest.param(" Yes", True, True, id="yes"),
        pytest.param("yes\n", True, True, id="lower"),
        pytest.param("YES", True, True, id="upper"),
        pytest.param(" Yes.", True, False, id="full-stop"),
        pytest.param("yEs", True, False, id="mixed-case"),
        pytest.param(" No", False, False, id="no"),
        pytest.param(" No.", False, False, id="no-full-stop"),
        pytest.param("NO", False, False, id="no-upper"),
        pytest.param("", None, False, id="empty"),
        pytest.param(" Maybe", None, False, id="another-word"),
        pytest.param(" Yes and no", None, False, id="both"),
        pytest.param(" Yes No", None, False, id="yes-then-more"),
    ],
)
def test_classification_answer(text: str, default: bool | None, compat: bool) -> None:
    """A bare Yes or No is read; anything else is no answer, and no in compat mode."""
    assert default is parse_classification(text)
    assert compat is parse_classification(text, compat=True)


# Stage D: instances


@pytest.mark.parametrize(
    ("prompt", "answer", "expected"),
    [
        pytest.param("Task: x\nExample 1", "\nOutput: y", "Example 1\nOutput: y", id="example"),
        pytest.param("Task: x\nClass label:", " good\ntext", "Class label: good\ntext", id="label"),
        pytest.param("Task: x\nAnswer:", " y", " y", id="another-end"),
        pytest.param("Task: x\nExample 12", " y", " y", id="not-the-first-example"),
        pytest.param("Class label:\nTask: x", " y", " y", id="lead-on-an-earlier-line"),
    ],
)
def test_with_lead(prompt: str, answer: str, expected: str) -> None:
    """The marker a prompt ends in belongs to the first instance; any other ending does not."""
    assert expected == with_lead(prompt, answer)


@BOTH
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(
            "Example 1\nInput: a\nOutput: b\nExample 2\nInput: c\nOutput: d",
            [Instance("a", "b"), Instance("c", "d")],
            id="two-examples",
        ),
        pytest.param("Example 1.\nInput: a\nOutput: b", [Instance("a", "b")], id="full-stop-after-number"),
        pytest.param("Example1\nInput: a\nOutput: b", [Instance("a", "b")], id="no-space-before-number"),
        pytest.param("Example 1\nOutput: b", [Instance("", "b")], id="no-input"),
        pytest.param("Example 1\nJust the answer.", [Instance("", "Just the answer.")], id="no-markers"),
        pytest.param("Example 1\nThe story.\nOutput: b", [Instance("The story.", "b")], id="unmarked-input"),
        pytest.param("Example 1\nInput 1: a\nOutput 1: b", [Instance("a", "b")], id="numbered-markers"),
        pytest.param("Example 1\nInput : a\nOutput : b", [Instance("a", "b")], id="space-before-colon"),
        pytest.param("Example 1\nInput: a\nOutput: b\nInput: c\nOutput: d", [Instance("a", "b")], id="second-pair"),
        pytest.param("Example 1\nInput: a\nOutput: b\nOutput: c", [Instance("a", "b")], id="second-output"),
        pytest.param("Example 1\nOutput: b\nInput: c", [Instance("", "b")], id="output-cut-at-a-later-input"),
        pytest.param("Example 1\nInput: a\nb\nOutput: c\nd", [Instance("a\nb", "c\nd")], id="many-lines"),
        pytest.param("Example 1\n\nExample 2\nOutput: b", [Instance("", "b")], id="empty-piece"),
        pytest.param("Example 1\nInput: a\nOutput:", [Instance("a", "")], id="empty-output"),
        pytest.param("Input: a\nOutput: b", [Instance("a", "b")], id="a-single-pair"),
        pytest.param("Output: b", [Instance("", "b")], id="a-single-output"),
        pytest.param("Sure, here you go.", [], id="nothing-to-find"),
        pytest.param("Input: a", [], id="input-alone"),
        pytest.param("", [], id="empty"),
    ],
)
def test_input_first_rules(text: str, expected: list[Instance], compat: bool) -> None:
    """Examples are cut apart and read as pairs, in both modes."""
    assert expected == parse_input_first(text, compat=compat)


@BOTH
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(
            "Example 1\nInput: a\nOutput: b\nExample 2\nInput: c",
            [Instance("a", "b"), Instance("", "")],
            id="input-without-output",
        ),
        pytest.param("Example 1\nanswer\nInput: c", [Instance("", "answer")], id="answer-then-input"),
    ],
)
def test_an_input_is_never_taken_for_an_output(text: str, expected: list[Instance], compat: bool) -> None:
    """Where the Output marker is missing the text is still cut at an Input marker, as upstream cuts it."""
    assert expected == parse_input_first(text, compat=compat)


@pytest.mark.parametrize(
    ("text", "default", "compat"),
    [
        pytest.param(
            "Example 1\nOutput: An Example of it.",
            [Instance("", "An Example of it.")],
            [Instance("", "An"), Instance("", "of it.")],
            id="the-word-inside-an-answer",
        ),
        pytest.param(
            "Example 1\nInput: a\nOutput: See Output: b",
            [Instance("a", "See Output: b")],
            [Instance("a", "See")],
            id="output-inside-an-answer",
        ),
        pytest.param(
            "Example 1\nOutput: the Input: of it",
            [Instance("", "the Input: of it")],
            [Instance("", "the")],
            id="input-inside-an-answer",
        ),
        pytest.param(
            "Here they are.\nExample 1\nOutput: b",
            [Instance("", "b")],
            [Instance("", "Here they are."), Instance("", "b")],
            id="preamble",
        ),
        pytest.param(
            "Input: a\nOutput: b\nExample 2\nOutput: d",
            [Instance("a", "b"), Instance("", "d")],
            [Instance("a", "b"), Instance("", "d")],
            id="first-pair-before-the-first-marker",
        ),
        pytest.param("Example 1:\nOutput: b", [Instance("", "b")], [Instance(":", "b")], id="colon-after-the-number"),
        pytest.param("Example\nOutput: b", [Instance("Example", "b")], [Instance("", "b")], id="no-number"),
        pytest.param("It is an Example", [], [Instance("", "It is an")], id="only-the-word"),
    ],
)
def test_input_first_where_the_modes_differ(text: str, default: list[Instance], compat: list[Instance]) -> None:
    """By default a marker must begin its line; compat also splits inside an answer and keeps a preamble."""
    assert default == parse_input_first(text)
    assert compat == parse_input_first(text, compat=True)


@BOTH
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(
            "Class label: good\nI like it.\nClass label: bad\nI hate it.",
            [Instance("I like it.", "good"), Instance("I hate it.", "bad")],
            id="two-labels",
        ),
        pytest.param("Class label: good", [Instance("", "good")], id="no-input"),
        pytest.param("Class label: good\na\nb", [Instance("a\nb", "good")], id="many-lines"),
        pytest.param("Class label:\ngood\na", [Instance("a", "good")], id="label-on-the-next-line"),
        pytest.param("Class label: good\nInput: a", [Instance("Input: a", "good")], id="input-prefix-stays"),
        pytest.param("Sure.\nClass label: good\na", [Instance("a", "good")], id="preamble-dropped"),
        pytest.param("Class label:", [Instance("", "")], id="bare-marker"),
        pytest.param("The class is good.", [], id="no-marker"),
        pytest.param("", [], id="empty"),
    ],
)
def test_output_first_rules(text: str, expected: list[Instance], compat: bool) -> None:
    """A label stands on the marker's line and its input below it, in both modes."""
    assert expected == parse_output_first(text, compat=compat)


def test_output_first_where_the_modes_differ() -> None:
    """By default the marker must begin its line; compat also splits inside an input."""
    text = "Class label: good\nthe Class label: here"

    assert [Instance("the Class label: here", "good")] == parse_output_first(text)
    assert [Instance("the", "good"), Instance("", "here")] == parse_output_first(text, compat=True)


# The rules on instances


@pytest.mark.parametrize(
    ("instance", "expected"),
    [
        pytest.param(Instance("a", "b"), None, id="kept"),
        pytest.param(Instance("", "b"), None, id="no-input-kept"),
        pytest.param(Instance("a", "a"), Reason.INPUT_EQUALS_OUTPUT, id="equal"),
        pytest.param(Instance("a", "A"), None, id="equal-but-for-case-kept"),
        pytest.param(Instance("a", ""), Reason.EMPTY_OUTPUT, id="no-output"),
        pytest.param(Instance("", ""), Reason.EMPTY_OUTPUT, id="nothing"),
        pytest.param(Instance("a", "b:"), Reason.ENDS_WITH_COLON, id="output-colon"),
        pytest.param(Instance("a:", "b"), Reason.ENDS_WITH_COLON, id="input-colon"),
        pytest.param(Instance("a:b", "b:a"), None, id="colon-inside-kept"),
    ],
)
def test_invalid_instances(instance: Instance, expected: Reason | None) -> None:
    """An instance is invalid when it has no output, repeats its input, or ends in a colon."""
    assert [expected] == judged([instance])


def test_a_truncated_answer_loses_its_last_instance() -> None:
    """Truncation refuses the last instance only, whatever else is wrong with it."""
    assert judged([Instance("a", "b"), Instance("c", "d")], truncated=True) == [None, Reason.INSTANCE_TRUNCATED]
    assert judged([Instance("a", "")], truncated=True) == [Reason.INSTANCE_TRUNCATED]
    assert judged([], truncated=True) == []


def test_a_truncated_instance_takes_no_part_in_a_conflict() -> None:
    """Rules go in order: what was cut off or invalid cannot condemn the others."""
    instances = [Instance("a", "b"), Instance("a", "b:"), Instance("a", "x")]

    assert judged(instances, truncated=True) == [None, Reason.ENDS_WITH_COLON, Reason.INSTANCE_TRUNCATED]


def test_two_outputs_for_one_input_condemn_all_valid_instances() -> None:
    """A conflict refuses every valid instance of the instruction, and leaves invalid ones their own reason."""
    instances = [Instance("a", "b"), Instance("z", "y"), Instance("a", "c"), Instance("q", "")]
    conflict = Reason.CONFLICTING_INSTANCES

    assert judged(instances) == [conflict, conflict, conflict, Reason.EMPTY_OUTPUT]


def test_two_outputs_for_an_empty_input_are_no_conflict() -> None:
    """A task that needs no input may have several answers."""
    assert judged([Instance("", "b"), Instance("", "c")]) == [None, None]


def test_a_copy_is_refused_and_its_first_kept() -> None:
    """Of equal instances the first stays."""
    instances = [Instance("a", "b"), Instance("", "c"), Instance("a", "b"), Instance("", "c")]

    assert judged(instances) == [None, None, Reason.DUPLICATE_INSTANCE, Reason.DUPLICATE_INSTANCE]


@pytest.mark.parametrize("count", [4, 5, 6, 9])
def test_over_the_limit_a_random_choice_stays(count: int) -> None:
    """At most `limit` distinct instances stay, copies not counted, and the choice is the stream's."""
    instances = [Instance(f"in {n}", f"out {n}") for n in range(count)] + [Instance("in 0", "out 0")]
    reasons = judged(instances, limit=5)

    assert reasons.count(None) == min(count, 5)
    assert reasons.count(Reason.OVER_INSTANCE_LIMIT) == max(count - 5, 0)
    assert reasons[-1] == Reason.DUPLICATE_INSTANCE
    assert reasons == judged(instances, limit=5)


def test_the_choice_over_the_limit_depends_on_the_stream_alone() -> None:
    """Every instance can stay, under one stream or another."""
    instances = [Instance("", str(n)) for n in range(6)]
    kept = {
        one.index
        for seed in range(40)
        for one in judge_instances(instances, truncated=False, limit=1, rng=random.Random(seed))
        if one.reason is None
    }

    assert kept == set(range(6))


# Text of any kind

MARKERS = st.sampled_from(
    ["Example 1", "Example", "Input:", "Output:", "Output 2 :", "Class label:", "\n", "\n10. ", "Yes", "No.", " ", ":"]
)
COMPLETIONS = st.one_of(st.text(), st.lists(st.one_of(MARKERS, st.text(max_size=5)), max_size=20).map("".join))


@given(text=COMPLETIONS, compat=st.booleans(), truncated=st.booleans(), limit=st.integers(1, 6))
@settings(max_examples=300, deadline=None)
def test_no_parser_raises_and_every_instance_comes_back_once(
    text: str, compat: bool, truncated: bool, limit: int
) -> None:
    """Parsers return on any text, and judging gives back each parsed instance once, in its place."""
    assert all(item == item.strip() for item in parse_instructions(text, compat=compat))
    assert parse_classification(text, compat=compat) in (True, False, None)
    for parse in (parse_input_first, parse_output_first):
        parsed = parse(with_lead("Example 1", text), compat=compat)
        back = judge_instances(parsed, truncated=truncated, limit=limit, rng=random.Random(0))

        assert [(one.index, one.instance) for one in back] == list(enumerate(parsed))
        assert sum(one.reason is None for one in back) <= limit
        assert all(one.instance.output for one in back if one.reason is None)
