"""Counts of a run, and the three sums that must close."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from pipeline.counters import Counters
from pipeline.driver import sums_close
from pipeline.errors import InputError, RunStopped
from pipeline.records import Admitted, Example, Reason, Reject, Stage, UnitResult, Usage


def admitted(candidate: int) -> Admitted:
    """An admitted instruction of unit 0."""
    return Admitted(f"r/0/{candidate}", "Sort it.", 0, (), False, None, None)


def example(candidate: int, instance: int) -> Example:
    """A row of an instruction of unit 0."""
    id = f"r/0/{candidate}/{instance}"
    return Example(id, f"r/0/{candidate}", "Sort it.", "", "x", 0, False, (), None, None, (), "stop", 1, 1)


def refused(candidate: int, reason: Reason, instance: int | None = None) -> Reject:
    """A reject of a candidate of unit 0, or of one of its instances."""
    id = None if instance is None else f"r/0/{candidate}/{instance}"
    return Reject(0, Stage.FILTER, reason, id=id, instruction_id=f"r/0/{candidate}")


# Six candidates: 0 gives two rows and loses an instance, 1 gives no instance, 2 loses its only one; 3 to 5 are refused.
UNIT = UnitResult(
    0,
    candidates=6,
    instances=4,
    demonstrations=8,
    machine_made=2,
    admitted=(admitted(0), admitted(1), admitted(2)),
    examples=(example(0, 0), example(0, 2)),
    rejects=(
        refused(3, Reason.TOO_SHORT),
        refused(4, Reason.TOO_SHORT),
        refused(5, Reason.NOT_NOVEL),
        refused(0, Reason.EMPTY_OUTPUT, instance=1),
        refused(1, Reason.NO_INSTANCE_PARSED),
        refused(2, Reason.ENDS_WITH_COLON, instance=0),
        refused(2, Reason.NO_INSTANCE_KEPT),
    ),
    usage=(Usage(Stage.BOOTSTRAP, 1, 100, 50), Usage(Stage.INSTANCES, 3, 30, 15)),
)
FAILED = UnitResult(1, rejects=(Reject(1, Stage.BOOTSTRAP, Reason.REQUEST_REFUSED),))


@pytest.fixture
def counters() -> Counters:
    """The counts of one good unit and one that failed."""
    counters = Counters()
    counters.add(UNIT)
    counters.add(FAILED)
    return counters


def test_each_kind_of_reject_is_counted_in_its_place(counters: Counters) -> None:
    """Candidates, instances, closings and failed units are told apart by the ids of their rejects."""
    assert counters.refused_candidates == {"too_short": 2, "not_novel": 1}
    assert counters.refused_instances == {"empty_output": 1, "ends_with_colon": 1}
    assert counters.closing_reasons == {"no_instance_parsed": 1, "no_instance_kept": 1}
    assert counters.failure_reasons == {"request_refused": 1}


def test_what_came_in_and_what_came_out(counters: Counters) -> None:
    """Units, candidates, instructions, instances and rows are counted over all units."""
    assert (counters.units, counters.failed_units, counters.candidates, counters.admitted) == (2, 1, 6, 3)
    assert (counters.instances, counters.examples) == (4, 2)
    assert (counters.instructions_with_rows, counters.closed_without_rows) == (1, 2)
    assert (counters.demonstrations, counters.machine_made) == (8, 2)


def test_tokens(counters: Counters) -> None:
    """Calls and tokens are counted by stage, over units."""
    counters.add(UNIT)

    assert counters.calls == {"bootstrap": 2, "instances": 6}
    assert counters.prompt_tokens == {"bootstrap": 200, "instances": 60}
    assert counters.completion_tokens == {"bootstrap": 100, "instances": 30}
    assert counters.tokens == 390


def test_the_sums_close(counters: Counters) -> None:
    """The three sums have equal sides when nothing is lost or doubled."""
    expected = [
        ("candidates", 6, "3 admitted + 3 refused", 6),
        ("admitted", 3, "1 with rows + 2 closed without", 3),
        ("instances", 4, "2 rows + 2 refused", 4),
    ]

    assert expected == counters.sums()
    sums_close(counters)


@pytest.mark.parametrize(
    ("unit", "what"),
    [
        pytest.param(replace(UNIT, candidates=7), "7 candidates, but 3 admitted [+] 3 refused = 6", id="candidate"),
        pytest.param(replace(UNIT, rejects=UNIT.rejects[:-1]), "3 admitted, but 1 with rows", id="closing"),
        pytest.param(replace(UNIT, examples=UNIT.examples * 2), "4 instances, but 4 rows [+] 2 refused", id="doubled"),
        pytest.param(replace(UNIT, examples=UNIT.examples[:1]), "4 instances, but 1 rows", id="lost"),
    ],
)
def test_an_open_sum_stops_the_run(unit: UnitResult, what: str) -> None:
    """A row lost or doubled opens a sum, and that is an error that says which."""
    counters = Counters()
    counters.add(unit)

    with pytest.raises(RunStopped, match=what):
        sums_close(counters)


def test_json_round_trip(counters: Counters) -> None:
    """Counts written as JSON come back equal, and go on counting."""
    counters.seconds = 1.5
    back = Counters.from_json(json.loads(json.dumps(counters.to_json())))

    assert counters == back
    assert counters.sums() == back.sums()
    unit = replace(FAILED, rejects=(replace(FAILED.rejects[0], reason=Reason.ENGINE_KILLED),))
    back.add(unit)
    counters.add(unit)
    assert counters == back


def test_json_does_not_depend_on_the_order_of_counting() -> None:
    """Equal counts are the same text, in whatever order reasons came."""
    one, two = Counters(), Counters()
    one.add(UNIT)
    two.add(replace(UNIT, rejects=UNIT.rejects[::-1], usage=UNIT.usage[::-1]))

    assert json.dumps(one.to_json()) == json.dumps(two.to_json())


def test_nothing_counted() -> None:
    """Counts begin at zero, and the sums of nothing close."""
    assert [(left, right) for _, left, _, right in Counters().sums()] == [(0, 0)] * 3
    assert Counters().tokens == 0


def test_a_count_of_another_version_is_named():
    """Counters with a key that this version does not know are refused in one sentence."""
    with pytest.raises(InputError, match="the run counts 'moons', which this version of InstructMill does not know"):
        Counters.from_json({**Counters().to_json(), "moons": 2})
