"""The seed file: what is refused, by file, line and field, and what the shipped one holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import InputError
from pipeline.novelty import NoveltyIndex
from pipeline.records import Instance, Seed
from pipeline.seeds import parse_seeds, read_seed_text

PAPER_SEEDS = Path(__file__).resolve().parents[2] / "shared" / "data" / "self_instruct_seed_tasks.jsonl"
SHIPPED = parse_seeds(read_seed_text("shipped:seeds.jsonl"), "shipped:seeds.jsonl")

GOOD: dict[str, Any] = {
    "id": "s1",
    "instruction": "Sort it.",
    "instances": [{"input": "b a", "output": "a b"}, {"input": "", "output": "x"}],
    "is_classification": False,
}


def row(**changes: Any) -> str:
    """A good row as JSON with some fields changed."""
    return json.dumps({**GOOD, **changes})


def without(field: str) -> str:
    """A good row as JSON that lacks one field."""
    return json.dumps({key: value for key, value in GOOD.items() if key != field})


def test_a_good_row() -> None:
    """A row becomes a Seed; a name and other fields are allowed, and blank lines are passed over."""
    expected = Seed("s1", "Sort it.", (Instance("b a", "a b"), Instance("", "x")), False)

    assert parse_seeds("\n" + row(name="sort", other=[1]) + "\n \n", "f") == [expected]
    assert parse_seeds("", "f") == []


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        pytest.param("{", "not valid JSON (Expecting property name enclosed in double quotes, column 2)", id="json"),
        pytest.param(
            "[1]", "a seed task is a JSON object with id, instruction, instances, is_classification", id="list"
        ),
        pytest.param(without("id"), "field 'id' is missing", id="no-id"),
        pytest.param(without("instruction"), "field 'instruction' is missing", id="no-instruction"),
        pytest.param(without("instances"), "field 'instances' is missing", id="no-instances"),
        pytest.param(without("is_classification"), "field 'is_classification' is missing", id="no-is_classification"),
        pytest.param(row(id=7), "field 'id' must be a text, not 7", id="id-number"),
        pytest.param(row(instruction=None), "field 'instruction' must be a text, not null", id="instruction-null"),
        pytest.param(row(instruction=" \n"), "field 'instruction' is empty", id="instruction-blank"),
        pytest.param(row(instances={}), "field 'instances' must be a list, not {}", id="instances-object"),
        pytest.param(
            row(instances=[]), "field 'instances' is empty; give at least one input and output", id="instances-none"
        ),
        pytest.param(
            row(is_classification="no"), "field 'is_classification' must be true or false, not \"no\"", id="flag-text"
        ),
        pytest.param(
            row(is_classification=1), "field 'is_classification' must be true or false, not 1", id="flag-number"
        ),
    ],
)
def test_bad_row(line: str, sentence: str) -> None:
    """A bad row is named by file, line and field."""
    with pytest.raises(InputError) as caught:
        parse_seeds(row(id="s0") + "\n\n" + line, "my/seeds.jsonl")

    assert str(caught.value) == f"my/seeds.jsonl, line 3: {sentence}"


@pytest.mark.parametrize(
    ("instance", "sentence"),
    [
        pytest.param("b a", "an instance is a JSON object with input and output", id="text"),
        pytest.param({"output": "x"}, "field 'input' is missing", id="no-input"),
        pytest.param({"input": "x"}, "field 'output' is missing", id="no-output"),
        pytest.param({"input": 1, "output": "x"}, "field 'input' must be a text, not 1", id="input-number"),
        pytest.param({"input": "", "output": ["x"]}, "field 'output' must be a text, not [\"x\"]", id="output-list"),
    ],
)
def test_bad_instance(instance: Any, sentence: str) -> None:
    """A bad instance is named by its place in the row too."""
    with pytest.raises(InputError) as caught:
        parse_seeds(row(instances=[{"input": "", "output": "x"}, instance]), "f")

    assert str(caught.value) == f"f, line 1, instance 2: {sentence}"


def test_an_id_given_twice() -> None:
    """Two rows of one id are refused with both lines."""
    with pytest.raises(InputError) as caught:
        parse_seeds(f"{row()}\n{row(id='s2')}\n{row()}", "f")

    assert str(caught.value) == "f, line 3: id 's1' is that of line 1; ids are unique"


@pytest.mark.parametrize(
    "separator", ["\u2028", "\u2029", "\x85"], ids=["line-separator", "paragraph-separator", "next-line"]
)
def test_only_a_newline_ends_a_row(separator: str) -> None:
    """Unicode's other line ends may stand in a text, as JSON allows."""
    text = f"Sort{separator}it."
    line = json.dumps({**GOOD, "instruction": text}, ensure_ascii=False)

    assert [seed.instruction for seed in parse_seeds(line, "f")] == [text]


@pytest.mark.parametrize("path", ["no/such.jsonl", "shipped:no_such.jsonl", "/"], ids=["file", "shipped", "folder"])
def test_no_such_seed_file(path: str) -> None:
    """A seed file that is not there is an input error that names it."""
    with pytest.raises(InputError) as caught:
        read_seed_text(path)

    assert str(caught.value) == f"seeds = {path!r}: there is no such file"


def test_a_seed_file_that_is_not_utf8(tmp_path: Path) -> None:
    """A seed file of other bytes than UTF-8 is an input error."""
    file = tmp_path / "seeds.jsonl"
    file.write_bytes(b"\xff\xfe")

    with pytest.raises(InputError, match="cannot be read as UTF-8 text"):
        read_seed_text(str(file))


# The shipped seeds


def test_shipped_seeds_are_175_with_unique_ids() -> None:
    """There are as many as in the paper, and each has its own id."""
    assert len(SHIPPED) == 175
    assert len({seed.id for seed in SHIPPED}) == 175


def test_shipped_seeds_can_serve_the_papers_demonstrations() -> None:
    """Enough are classification, enough have no input, and enough of these have a long output."""
    no_input = [seed for seed in SHIPPED if not seed.instances[0].input]
    long = [seed for seed in no_input if len(seed.instances[0].output) >= 600]

    assert sum(seed.is_classification for seed in SHIPPED) >= 25
    assert 45 <= len(no_input) <= 60
    assert len(long) >= 12


def test_shipped_seeds_are_novel_among_themselves() -> None:
    """No two shipped instructions are nearer than the threshold."""
    index, near = NoveltyIndex(), []
    for seed in SHIPPED:
        nearest = index.nearest(seed.instruction)
        if nearest is not None and nearest[1] > 0.7:
            near.append((seed.id, nearest))
        index.add(seed.instruction)

    assert near == []


@pytest.mark.parametrize("delimiter", ["Task:", "Example 6", "Class label:"])
def test_shipped_seeds_hold_no_delimiter(delimiter: str) -> None:
    """No text of a seed would be cut by a stop text or taken for a marker."""
    holding = [
        seed.id
        for seed in SHIPPED
        if any(delimiter in text for one in seed.instances for text in (seed.instruction, one.input, one.output))
    ]

    assert holding == []


def test_shipped_seeds_have_outputs() -> None:
    """Every instance has an output that differs from its input, and no seed holds a conflict."""
    for seed in SHIPPED:
        assert all(one.output.strip() and one.output != one.input for one in seed.instances), seed.id
        assert len({one.input for one in seed.instances}) == len(seed.instances), seed.id


@pytest.mark.skipif(not PAPER_SEEDS.is_file(), reason="the paper's seed file is not in ../shared/data")
def test_shipped_seeds_are_our_own() -> None:
    """No shipped instruction is near one of the paper's seed file, and no long text is shared."""
    paper = parse_seeds(PAPER_SEEDS.read_text(encoding="utf-8"), "paper")
    index = NoveltyIndex(floor=0.7)
    index.extend(seed.instruction for seed in paper)
    texts = {text for seed in paper for one in seed.instances for text in (one.input, one.output) if len(text) > 40}

    nearest = [index.nearest(seed.instruction) for seed in SHIPPED]

    assert [found for found in nearest if found is not None and found[1] > 0.7] == []
    assert [seed.id for seed in SHIPPED for one in seed.instances if {one.input, one.output} & texts] == []
