"""The progress line: what is done, and how long the rest may take."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from pipeline import progress
from pipeline.counters import Counters
from pipeline.driver import Driver
from pipeline.progress import Progress


@pytest.fixture
def clock(monkeypatch) -> SimpleNamespace:
    """A clock of our own: `clock.now` is what it says."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


@pytest.fixture
def driver() -> Any:
    """What the line asks of a driver."""
    state = SimpleNamespace(pool=SimpleNamespace(admitted=0), counters=Counters())
    return SimpleNamespace(state=state, open_units=8, generated_tokens=0)


def test_the_time_left_is_by_the_last_minutes(clock, driver) -> None:
    """Where admitting has slowed down, the rate of the beginning is forgotten."""
    line = Progress(cast(Driver, driver), 1000).line
    clock.now, driver.state.pool.admitted = 100, 500
    assert line().endswith("ETA 0:01:40")
    for clock.now in range(110, 1000, 10):
        driver.state.pool.admitted = 500 + clock.now // 10
        told = line()

    assert told.endswith(f"ETA {progress.clock((1000 - driver.state.pool.admitted) * 10)}")


def test_tokens_are_those_of_the_last_minutes(clock, driver) -> None:
    """An engine group that stands still shows, however much it has made before."""
    line = Progress(cast(Driver, driver), 1000).line
    clock.now, driver.generated_tokens = 100, 50_000
    assert "  500 tok/s  " in line()
    for clock.now in range(110, 510, 10):
        told = line()

    assert "  0 tok/s  " in told


def test_units_that_are_still_under_way_are_told(clock, driver) -> None:
    """Once the gate has let enough in, the line says how many units are being finished, until there are none."""
    line = Progress(cast(Driver, driver), 1000).line
    clock.now, driver.state.pool.admitted = 100, 1000
    told = line()
    driver.open_units = 0

    assert "admitted 1000/1000" in told
    assert told.endswith("finishing 8 units")
    assert line().endswith("ETA 0:00:00")
