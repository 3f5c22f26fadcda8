"""When a run ends: the unit it ends after, and why."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.config import parse_config
from pipeline.counters import Counters
from pipeline.records import Reason, Reject, Stage
from pipeline.stops import Ended, Ending, Stops, hopeless


def stops(window: int = 2, **values: Any) -> Stops:
    """The rules of a run with these settings."""
    return Stops(parse_config({"engine": {"kind": "scripted"}, **values}, "test"), window)


def gate(rules: Stops, units: list[tuple[int, int]], first: int = 0) -> Ending | None:
    """Let units of so many (candidates, admitted) pass the gate."""
    for unit, (candidates, admitted) in enumerate(units, start=first):
        if rules.ending is None:
            rules.after_gate(unit, candidates, admitted)
    return rules.ending


def where(ending: Ending | None) -> tuple[int, Ended] | None:
    """Unit and reason of an ending."""
    return (ending.unit, ending.reason) if ending else None


@pytest.mark.parametrize(
    ("admitted", "expected"),
    [
        pytest.param([4, 5], None, id="one-short"),
        pytest.param([4, 6], (1, Ended.TARGET), id="exactly"),
        pytest.param([10], (0, Ended.TARGET), id="in-the-first-unit"),
        pytest.param([4, 5, 0, 1, 1], (3, Ended.TARGET), id="later"),
    ],
)
def test_target(admitted: list[int], expected: tuple[int, Ended] | None) -> None:
    """The run ends after the unit that admits the last instruction of the target."""
    ending = gate(stops(target=10), [(7, count) for count in admitted])

    assert expected == where(ending)


@pytest.mark.parametrize(
    ("window", "units", "expected"),
    [
        pytest.param(2, 4, 4, id="at-2W"),
        pytest.param(5, 4, 10, id="2W-is-more-than-the-units-looked-at"),
        pytest.param(2, 9, 8, id="the-units-looked-at-are-more-than-2W"),
    ],
)
def test_exhaustion_waits(window: int, units: int, expected: int) -> None:
    """Exhaustion is judged no earlier than unit 2W, nor before as many units as it looks at."""
    rules = stops(window, exhaustion={"units": units, "share": 0.5})

    assert where(gate(rules, [(7, 0)] * 50)) == (expected, Ended.EXHAUSTED)


@pytest.mark.parametrize(
    ("admitted", "share", "expected"),
    [
        pytest.param(2, 0.05, None, id="at-the-bound"),
        pytest.param(1, 0.05, 3, id="under-the-bound"),
        pytest.param(0, 0.0, None, id="turned-off"),
        pytest.param(39, 1.0, 3, id="every-one-asked-for"),
        pytest.param(40, 1.0, None, id="every-one-there"),
    ],
)
def test_exhaustion_only_under_the_bound(admitted: int, share: float, expected: int | None) -> None:
    """Exhaustion fires when fewer than the share of the last candidates was admitted, and a share of 0 never does."""
    rules = stops(1, exhaustion={"units": 4, "share": share})
    each = [(10, admitted // 4 + (unit < admitted % 4)) for unit in range(4)]

    assert where(gate(rules, each)) == (None if expected is None else (expected, Ended.EXHAUSTED))


def test_exhaustion_looks_at_the_last_units_only() -> None:
    """A good beginning does not hide a dry end."""
    rules = stops(1, exhaustion={"units": 3, "share": 0.2})

    assert where(gate(rules, [(10, 10)] * 20 + [(10, 0)] * 9)) == (22, Ended.EXHAUSTED)


def test_exhaustion_without_candidates() -> None:
    """Units that give nothing at all exhaust the run too, and the sentence says what was seen."""
    ending = gate(stops(1, exhaustion={"units": 3}), [(0, 0)] * 9)

    assert where(ending) == (2, Ended.EXHAUSTED)
    assert ending is not None
    assert ending.detail.startswith("novelty is exhausted: of the last 0 candidates (3 units) 0 were admitted, under")
    assert "2.0%" in ending.detail


@pytest.mark.parametrize(
    ("budget", "calls", "expected"),
    [
        pytest.param({"units": 3}, [(1, 0, 0.0), (2, 0, 0.0)], (2, Ended.UNITS), id="units"),
        pytest.param({"units": 3}, [(1, 0, 0.0)], None, id="units-left"),
        pytest.param({"tokens": 100}, [(0, 99, 0.0), (1, 100, 0.0)], (1, Ended.TOKENS), id="tokens"),
        pytest.param({"tokens": 100}, [(0, 99, 0.0)], None, id="tokens-left"),
        pytest.param({"hours": 0.5}, [(0, 0, 0.49), (1, 0, 0.5)], (1, Ended.HOURS), id="hours"),
        pytest.param({"hours": 0.5}, [(0, 0, 0.49)], None, id="hours-left"),
        pytest.param({}, [(9, 10**9, 10**6)], None, id="no-budget"),
    ],
)
def test_budgets(
    budget: dict[str, Any], calls: list[tuple[int, int, float]], expected: tuple[int, Ended] | None
) -> None:
    """A budget ends the run after the first finished unit at which it is spent."""
    rules = stops(budget=budget)
    for unit, tokens, hours in calls:
        rules.after_ready(unit, tokens, hours)

    assert expected == where(rules.ending)


def test_the_smallest_unit_wins() -> None:
    """An ending at an earlier unit takes the place of a later one, and never the other way round."""
    rules = stops(target=5, budget={"tokens": 100})
    rules.after_gate(9, 7, 5)
    late = where(rules.ending)
    rules.after_ready(4, 100, 0.0)
    early = where(rules.ending)
    rules.after_ready(5, 200, 0.0)

    assert late == (9, Ended.TARGET)
    assert early == (4, Ended.TOKENS)
    assert where(rules.ending) == early


def test_of_two_rules_at_one_unit_the_first_stands() -> None:
    """What fired first keeps its unit."""
    rules = stops(target=5, budget={"tokens": 100})
    rules.after_gate(4, 7, 5)
    rules.after_ready(4, 100, 0.0)

    assert where(rules.ending) == (4, Ended.TARGET)


def test_beyond() -> None:
    """Units after the ending are beyond the run; a budget of units is known from the start."""
    rules, counted = stops(target=5), stops(budget={"units": 3})
    before = rules.beyond(10**6)
    rules.after_gate(4, 7, 5)

    assert before is False
    assert [rules.beyond(unit) for unit in (3, 4, 5)] == [False, False, True]
    assert [counted.beyond(unit) for unit in (2, 3)] == [False, True]


def test_a_run_whose_first_units_all_fail_is_hopeless() -> None:
    """After 20 failed units and none that did not, the sentence gives the last reason and what would mend it."""
    failure = Reject(19, Stage.BOOTSTRAP, Reason.THOUGHT_UNCLOSED, "the answer of 9 tokens ended inside")
    early = hopeless(Counters(units=19, failed_units=19), failure)
    mixed = hopeless(Counters(units=40, failed_units=39), failure)
    sentence = hopeless(Counters(units=20, failed_units=20), failure) or ""

    assert (early, mixed) == (None, None)
    assert "all of the first 20 units failed, the last with thought_unclosed: the answer of 9 tokens" in sentence
    assert "raise max_tokens, or turn thinking off" in sentence
    assert "name another folder" in sentence


def test_a_run_in_which_nothing_comes_to_a_row_is_hopeless() -> None:
    """After 50 admitted instructions that all closed without a row; one row is hope."""
    failure = Reject(9, Stage.INSTANCES, Reason.NO_INSTANCE_KEPT)
    sentence = hopeless(Counters(units=9, admitted=50, closed_without_rows=50), failure) or ""

    assert hopeless(Counters(units=9, admitted=49, closed_without_rows=49), failure) is None
    assert hopeless(Counters(units=9, admitted=51, closed_without_rows=50, instructions_with_rows=1), failure) is None
    assert "none of the first 50 instructions came to a row, the last with no_instance_kept" in sentence
