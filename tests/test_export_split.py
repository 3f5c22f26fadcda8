"""The train and test split of an export: who stays with whom, and that no relatives are on two sides."""

from __future__ import annotations

import asyncio
from collections import defaultdict

from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.export_rows import Row, Source, open_source
from pipeline.export_split import Split, family, is_for_test, share_that_splits
from pipeline.rounds import round_config
from pipeline.testing import ScriptedEngine, run_to_end

SELF_INSTRUCT = {"config": {"recipe": "self-instruct"}}


@st.composite
def self_instruct_rows(draw: st.DrawFn) -> list[Row]:
    """Rows as a run of that name makes them: each unit shows some instructions of earlier units and a seed."""
    run = draw(st.sampled_from(["r", "2024", "a.b-c"]))
    made: list[str] = []
    rows: list[Row] = []
    for unit in range(draw(st.integers(1, 25))):
        shown = draw(st.lists(st.sampled_from(made), max_size=3, unique=True)) if made else []
        parents = (*shown, "seed_task_7", "other-run/1/2")
        new = [f"{run}/{unit}/{place}" for place in range(draw(st.integers(0, 3)))]
        for id in new:
            count = draw(st.integers(0, 3))  # an instruction may have ended without a row
            rows += [Row(f"{id}/{place}", id, id, "", "x", "self-instruct", parents) for place in range(count)]
        made += new
    return rows


@settings(deadline=None)
@given(rows=self_instruct_rows(), share=st.sampled_from([0.02, 0.1, 0.3, 0.5, 0.9]))
def test_no_relatives_are_on_two_sides(rows, share) -> None:
    """Instances of an instruction, instructions of a prompt, and an instruction with its parents are on one side."""
    run = rows[0].id.split("/")[0] if rows else "r"
    source = Source(
        run, lambda: iter(rows), SELF_INSTRUCT, shown=lambda: [(row.instruction_id, row.parents) for row in rows]
    )
    split = Split(source, share)
    sides = [(row, split.side(row)) for row in rows]

    of_instruction, of_unit = defaultdict(set), defaultdict(set)
    for row, side in sides:
        if side is not None:
            of_instruction[row.instruction_id].add(side)
            of_unit[row.instruction_id.rpartition("/")[0]].add(side)
    assert all(len(found) == 1 for found in (*of_instruction.values(), *of_unit.values()))
    for row, side in sides:
        for parent in row.parents:
            if side is not None and parent in of_instruction:
                assert of_instruction[parent] == {side}
    assert all(side == "test" for row, side in sides if is_for_test(family(row), share))  # these are never left out


def test_a_run_is_split_so_too_and_hardly_anything_is_left_out(scripted, tmp_path) -> None:
    """In a real run of 8 demonstrations, 2 of them machine-made, no parent and child are on two sides, most rows stay,
    and nothing is left out without a split."""
    asyncio.run(run_to_end(scripted(target=300), tmp_path / "r", ScriptedEngine()))
    source = open_source(str(tmp_path / "r"))
    rows = list(source.rows())

    split = Split(source, 0.05)
    sides = {row.instruction_id: split.side(row) for row in rows}
    kept = {id: side for id, side in sides.items() if side is not None}
    pairs = [
        (side, kept[parent])
        for row in rows
        for parent in row.parents
        if parent in kept and (side := kept.get(row.instruction_id))
    ]
    assert len(pairs) > 100
    assert all(one == other for one, other in pairs)
    assert {"train", "test"} == set(kept.values())
    assert len(kept) > 0.6 * len(sides)
    nothing = Split(source, 0.0)
    assert {nothing.side(row) for row in rows} == {"train"}


def test_where_seeds_alone_are_shown_nothing_is_left_out(scripted, tmp_path) -> None:
    """With bootstrap.machine_made = 0 no instruction is another's parent, so a split costs no row."""
    config = scripted(target=100, bootstrap={"machine_made": 0})
    asyncio.run(run_to_end(config, tmp_path / "r", ScriptedEngine()))
    source = open_source(str(tmp_path / "r"))
    split = Split(source, 0.3)

    assert {split.side(row) for row in source.rows()} == {"train", "test"}


def test_the_split_is_the_same_in_the_next_round(backtranslation, tmp_path) -> None:
    """`curate` accepts other pairs of the same texts; what both runs hold is on the same side in both."""
    asyncio.run(run_to_end(backtranslation(), tmp_path / "one", ScriptedEngine()))
    config = round_config(str(tmp_path / "one"), None, (), str(tmp_path / "two"))
    asyncio.run(run_to_end(config, tmp_path / "two", ScriptedEngine()))
    sides = []
    for name in ("one", "two"):
        source = open_source(str(tmp_path / name))
        split = Split(source, 0.3)
        sides.append({row.id: split.side(row) for row in source.rows()})

    both = sides[0].keys() & sides[1].keys()
    assert {sides[0][id] for id in both} == {"train", "test"}
    assert all(sides[0][id] == sides[1][id] for id in both)


def test_instructions_of_other_runs_make_nobody_relatives() -> None:
    """A pool that began with another run's instructions shows them; they are no rows here, so no row goes for them."""
    rows = [Row(f"r/{n}/0/0", f"r/{n}/0", "i", "", "o", "self-instruct", (f"other/{n}/0",)) for n in range(200)]
    source = Source(
        "r", lambda: iter(rows), SELF_INSTRUCT, shown=lambda: [(row.instruction_id, row.parents) for row in rows]
    )
    split = Split(source, 0.5)

    assert {split.side(row) for row in rows} == {"train", "test"}


def test_segments_of_one_document_stay_together() -> None:
    """A file cut by its headers, rows with one URL, and several instructions for one segment are families."""

    def of(source: str, origin: str, id: str = "r/1/0") -> str:
        return family(Row(f"{id}/0", id, "i", "", "o", "backtranslation", source=source, origin=origin))

    assert of("guide.md#1", "Guide > One") == of("guide.md#2", "Guide > Two") == "guide.md"
    assert of("docs/a.HTML.gz#12", "A > B") == of("docs/a.HTML.gz#3", "A") == "docs/a.HTML.gz"
    assert of("p.jsonl#1", "https://example.org/1") == of("p.jsonl#9", "https://example.org/1")
    assert of("p.jsonl#1", "https://example.org/1") != of("p.jsonl#2", "https://example.org/2")
    assert of("p.jsonl#1", "p.jsonl#1") != of("p.jsonl#2", "p.jsonl#2")
    assert of("notes#1.txt", "notes#1.txt") == "notes#1.txt"
    assert of("p.jsonl#1", "u", "r/1/0") == of("p.jsonl#1", "u", "r/1/1") == of("p.jsonl#1", "u", "r/7/0")


def test_seeds_of_a_run_are_for_training_and_those_of_a_file_are_split_by_task(scripted, tmp_path) -> None:
    """With --seeds, seeds are for training, being shown everywhere; alone, a task's instances stay together."""
    asyncio.run(run_to_end(scripted(target=20), tmp_path / "r", ScriptedEngine()))
    source = open_source(str(tmp_path / "r"), seeds=True)
    split = Split(source, 0.5)
    sides = {split.side(row) for row in source.rows() if row.recipe == "seed"}
    alone = open_source("shipped:seeds.jsonl")
    split, of_task = Split(alone, 0.5), defaultdict(set)
    for row in alone.rows():
        of_task[row.instruction_id].add(split.side(row))

    assert sides == {"train"}
    assert all(len(found) == 1 for found in of_task.values())
    assert {side for found in of_task.values() for side in found} == {"train", "test"}


def test_the_share_is_that_of_families() -> None:
    """Of ten thousand names about a twentieth is for testing at 0.05, and these are among those of a larger share."""
    names = [f"r/{number}" for number in range(10_000)]
    small = {name for name in names if is_for_test(name, 0.05)}
    large = {name for name in names if is_for_test(name, 0.2)}

    assert 400 < len(small) < 600
    assert small < large
    assert not any(is_for_test(name, 0.0) for name in names)


@settings(deadline=None)
@given(names=st.sets(st.text(max_size=9), max_size=12))
def test_the_share_that_is_named_splits(names) -> None:
    """Where a share is named, it sets some families aside and leaves some; where none is, no hundredth does both."""
    shares = [hundredth / 100 for hundredth in range(100)]
    splitting = [share for share in shares if {is_for_test(name, share) for name in names} == {True, False}]

    assert share_that_splits(names) == min(splitting, default=None)
