"""Templates: each shipped one against its text, and what is wrong with a bad one."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.errors import InputError
from pipeline.prompting import (
    VARIABLES,
    classification_demonstrations,
    demonstration_text,
    input_first_demonstrations,
    load_template,
    numbered_tasks,
    output_first_demonstrations,
)
from pipeline.records import Instance, Seed
from pipeline.settings import PromptSettings

SORT = Seed("s1", "Sort these  words:\n", (Instance("b a", "a b"), Instance("d c", "c d")), False)
JOKE = Seed("s2", "Tell a joke.", (Instance("", "Knock, knock."),), False)
MOOD = Seed("s3", "Name the mood.", (Instance("I won!", "glad"), Instance("", "calm")), True)

TASKS = "1. Sort these words\n2. Tell a joke.\n3."
ASKED = "Task: Sort these words\nIs it classification? No\n\nTask: Name the mood.\nIs it classification? Yes"
INPUT_FIRST = (
    "Task: Sort these words\n"
    "Example 1\nInput: b a\nOutput: a b\n"
    "Example 2\nInput: d c\nOutput: c d\n\n"
    "Task: Tell a joke.\n"
    "Example 1\nOutput: Knock, knock."
)
OUTPUT_FIRST = "Task: Name the mood.\nClass label: glad\nI won!\nClass label: calm"

GOLDEN = {
    "bootstrap": (
        {"tasks": TASKS},
        "Below is a numbered list of tasks that people might give to a capable assistant. Each one is different from "
        "all the others in what it asks for, in its topic and in its wording.\n\n" + TASKS,
    ),
    "bootstrap_topic": (
        {"topic": "gardening", "tasks": TASKS},
        "Below is a numbered list of tasks about gardening that people might give to a capable assistant. Each one is "
        "different from all the others in what it asks for and in its wording.\n\n" + TASKS,
    ),
    "classification": (
        {"demonstrations": ASKED, "instruction": "Name a river."},
        "A classification task is one whose answer is always one label out of a small, fixed set of labels. For each "
        "task below, say whether it is a classification task.\n\n"
        + ASKED
        + "\n\nTask: Name a river.\nIs it classification?",
    ),
    "instance_input_first": (
        {"demonstrations": INPUT_FIRST, "instruction": "Name a river."},
        "For each task below, examples of it are worked out. When a task needs something to work on, the example gives "
        "an input first; when it does not, the example is the output alone. Every input is complete and concrete, and "
        "every output answers its input fully and correctly.\n\n" + INPUT_FIRST + "\n\nTask: Name a river.\nExample 1",
    ),
    "instance_output_first": (
        {"demonstrations": OUTPUT_FIRST, "instruction": "Name the tone."},
        "Each task below asks for one label. For every label that is a possible answer, the label is given first, and "
        "then an input for which it is the correct answer.\n\n"
        + OUTPUT_FIRST
        + "\n\nTask: Name the tone.\nClass label:",
    ),
}

DEMO_GOLDEN = {
    "bootstrap": ({"tasks": TASKS}, "List of tasks:\n" + TASKS),
    "classification": (
        {"demonstrations": ASKED, "instruction": "Name a river."},
        ASKED + "\n\nTask: Name a river.\nIs it classification?",
    ),
    "instance_input_first": (
        {"demonstrations": INPUT_FIRST, "instruction": "Name a river."},
        "Worked examples:\n" + INPUT_FIRST + "\n\nTask: Name a river.\nExample 1",
    ),
    "instance_output_first": (
        {"demonstrations": OUTPUT_FIRST, "instruction": "Name the tone."},
        "Labelled examples:\n" + OUTPUT_FIRST + "\n\nTask: Name the tone.\nClass label:",
    ),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_shipped_prompt(name: str) -> None:
    """Each shipped prompt, filled in, is this text to the letter."""
    variables, expected = GOLDEN[name]

    assert expected == load_template(name).render(**variables)


@pytest.mark.parametrize("name", DEMO_GOLDEN)
def test_demo_prompt(name: str) -> None:
    """Each prompt of the demo, filled in, is this text to the letter."""
    variables, expected = DEMO_GOLDEN[name]

    assert expected == load_template(name, f"shipped:demo/{name}.txt").render(**variables)


def test_every_prompt_has_a_golden_text_and_a_setting() -> None:
    """No prompt is declared without a test here and a key in the configuration."""
    assert set(VARIABLES) == set(GOLDEN)
    assert set(VARIABLES) == set(PromptSettings.model_fields)


def test_lists_and_demonstrations() -> None:
    """Lists and demonstrations have the paper's form."""
    assert numbered_tasks([SORT.instruction, JOKE.instruction]) == TASKS
    assert classification_demonstrations([SORT, MOOD]) == ASKED
    assert input_first_demonstrations([SORT, JOKE], 2) == INPUT_FIRST
    assert output_first_demonstrations([MOOD], 2) == OUTPUT_FIRST


def test_demonstrations_show_so_many_instances() -> None:
    """Of each seed the first instances are shown, up to the number asked for."""
    one = "Task: Sort these words\nExample 1\nInput: b a\nOutput: a b"

    assert one == input_first_demonstrations([SORT], 1)
    assert output_first_demonstrations([MOOD], 1) == "Task: Name the mood.\nClass label: glad\nI won!"
    assert input_first_demonstrations([], 2) == ""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("a\n b\t c ", "a b c", id="white-space"),
        pytest.param("List them::", "List them", id="trailing-colons"),
        pytest.param("Note: list them", "Note: list them", id="inner-colon"),
        pytest.param("NASA and I", "NASA and I", id="case-kept"),
    ],
)
def test_demonstration_text(text: str, expected: str) -> None:
    """An instruction is shown on one line and without trailing colons."""
    assert expected == demonstration_text(text)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        pytest.param("Tasks:\n", "the template has no `$tasks`; it needs `$tasks`", id="missing"),
        pytest.param("$tasks $topic", "unknown variable `$topic`; it may use `$tasks`", id="unknown"),
        pytest.param("$Tasks $tasks", "unknown variable `$Tasks`; it may use `$tasks`", id="other-case"),
        pytest.param("$tasks costs 5$", "write `$$` for a plain dollar sign", id="dollar-at-the-end"),
        pytest.param("$tasks costs $5", "write `$$` for a plain dollar sign", id="dollar-before-a-digit"),
        pytest.param("${tasks", "write `$$` for a plain dollar sign", id="open-brace"),
    ],
)
def test_bad_template(tmp_path: Path, text: str, sentence: str) -> None:
    """A bad template is refused when it is loaded, by the key that names it and its fault."""
    file = tmp_path / "own.txt"
    file.write_text(text, encoding="utf-8")

    with pytest.raises(InputError) as caught:
        load_template("bootstrap", str(file))

    assert str(caught.value).startswith(f"[prompts] bootstrap = {str(file)!r}: ")
    assert str(caught.value).endswith(sentence)


@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        pytest.param("no/such.txt", "cannot be read as UTF-8 text", id="no-file"),
        pytest.param("shipped:no_such.txt", "no such prompt is shipped with InstructMill", id="none-shipped"),
        pytest.param("shipped:demo", "no such prompt is shipped with InstructMill", id="a-folder"),
    ],
)
def test_missing_template(path: str, sentence: str) -> None:
    """A template that is not there is an input error that names it."""
    with pytest.raises(InputError, match=sentence) as caught:
        load_template("bootstrap", path)

    assert repr(path) in str(caught.value)


def test_a_template_that_is_not_utf8(tmp_path: Path) -> None:
    """A file of other bytes than UTF-8 is an input error."""
    file = tmp_path / "latin.txt"
    file.write_bytes(b"\xe9 $tasks")

    with pytest.raises(InputError, match="cannot be read as UTF-8 text"):
        load_template("bootstrap", str(file))


def test_own_template(tmp_path: Path) -> None:
    """One last newline is not part of a prompt, `$$` is a dollar sign, and values are put in as they are."""
    file = tmp_path / "own.txt"
    file.write_text("It costs $$5.\n${tasks}\n\n", encoding="utf-8")

    assert load_template("bootstrap", str(file)).render(tasks="1. $x {y} \\1") == "It costs $5.\n1. $x {y} \\1\n"


def test_hash_is_of_the_text(tmp_path: Path) -> None:
    """The same text has the same hash wherever it lies, the last newline apart; another text has another."""
    texts = ["$tasks", "$tasks\n", "$tasks "]
    hashes = []
    for number, text in enumerate(texts):
        file = tmp_path / f"{number}.txt"
        file.write_text(text, encoding="utf-8")
        hashes.append(load_template("bootstrap", str(file)).hash)

    assert hashes[0] == hashes[1]
    assert hashes[0] != hashes[2]
    assert all(len(one) == 16 for one in hashes)
