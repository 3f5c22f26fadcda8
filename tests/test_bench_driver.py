"""The simulated engines of `bench/driver.py`, and what the driver changes of its process for a run's time."""

from __future__ import annotations

import asyncio
import gc

import pytest

from bench.driver_engines import PRECISION, WEIGHTS_S, Engine, Sequence
from pipeline.records import Completion
from pipeline.testing import ScriptedEngine, run_to_end


def _sequence(call_id: int, read: int, written: int) -> Sequence:
    return Sequence(call_id, Completion("", "stop", read, written), read, read + written / 2)


@pytest.mark.parametrize(
    ("read", "written", "published"), [(128, 128, 28_312), (1000, 1000, 15_220), (2048, 128, 3_450)]
)
def test_a_full_engine_has_the_published_rate(read, written, published):
    """A simulated engine that is kept full makes the tokens/s that are published, at its precision, within 5 %."""
    engine = Engine(1024)
    for call_id in range(6 * 1024):
        engine.add(_sequence(call_id, read, written))
    engine.advance(1e6)
    assert engine.holds == (0, 0)
    assert engine.generated / engine.busy_s == pytest.approx(published / PRECISION, rel=0.05)


def test_a_lone_request_takes_a_step_for_each_token():
    """A request alone has its answer after so many of the shortest steps, and the engine is idle from then on."""
    engine = Engine(4)
    engine.add(_sequence(7, 0, 100))
    engine.advance(99 * WEIGHTS_S)
    assert engine.finished == []
    engine.advance(10.0)
    assert [answer.id for answer in engine.finished] == [7]
    assert engine.busy_s == pytest.approx(100 * WEIGHTS_S)
    assert engine.full_s == 0


def test_a_run_leaves_the_collection_of_garbage_as_it_was(scripted, tmp_path):
    """Python collects garbage after a run, also one in a notebook, as often as before it."""
    before = gc.get_threshold()
    asyncio.run(run_to_end(scripted(), tmp_path / "r", ScriptedEngine()))
    assert gc.get_threshold() == before
