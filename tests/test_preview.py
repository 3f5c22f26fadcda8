"""`preview`: the first units of a run, whole, and what they foretell."""

from __future__ import annotations

import asyncio

from pipeline.counters import Counters
from pipeline.plan import make_plan
from pipeline.preview import forecast, preview_units
from pipeline.testing import ScriptedEngine, run_to_end


def shown(config, count: int):
    """What a preview shows, unit by unit, and its counts."""
    units = []
    counters = asyncio.run(preview_units(make_plan(config), ScriptedEngine(delay_s=0.002), count, units.append))
    return units, counters


def test_a_preview_is_how_the_run_begins(scripted, tables, tmp_path) -> None:
    """Its units, in order, have the rows that the run has in its first units."""
    units, _ = shown(scripted(), 10)
    asyncio.run(run_to_end(scripted(), tmp_path / "r", ScriptedEngine()))
    rows = [row for row in tables(tmp_path / "r")["data"] if row["unit"] < 10]

    assert [unit.number for unit in units] == list(range(10))
    assert [row.id for unit in units for row in unit.result.examples] == [row["id"] for row in rows]


def test_every_exchange_of_a_unit_is_kept(scripted) -> None:
    """Each unit has its bootstrap exchange first, and two for every admitted instruction."""
    units, counters = shown(scripted(), 4)

    assert all(unit.exchanges[0][0].key.stage == "bootstrap" for unit in units)
    assert all(len(unit.exchanges) == 1 + 2 * len(unit.result.admitted) for unit in units)
    assert sum(len(unit.exchanges) for unit in units) == counters.calls.total()


def test_a_forecast_scales_what_was_counted() -> None:
    """Calls and tokens per admitted instruction and per row, and all of it at the target, with the engine-hours."""
    counters = Counters(units=10, admitted=50, examples=100, seconds=36.0)
    counters.calls.update({"bootstrap": 10, "classification": 50, "instances": 40})
    counters.prompt_tokens.update({"bootstrap": 5000})
    counters.completion_tokens.update({"bootstrap": 3600})
    text = "\n".join(forecast(counters, 5000, engines=2))

    assert "per admitted instruction  2.0 calls, 100 prompt and 72 generated tokens, 2.00 rows" in text
    assert "per row                   1.0 calls, 50 prompt and 36 generated tokens" in text
    assert "1,000 units, 10,000 calls, 500,000 prompt and 360,000 generated tokens" in text
    assert "at most 2.00 engine-hours (1:00:00 with 2) at the measured 100 tokens/s" in text
    assert "Novelty falls as the pool grows, which is not in this forecast" in text


def test_no_forecast_from_nothing() -> None:
    """Where nothing was admitted, it says so."""
    assert "none: nothing was admitted" in "\n".join(forecast(Counters(units=2), 100, engines=1))


def test_a_preview_of_backtranslation_begins_with_the_corpus(backtranslation, tables, tmp_path) -> None:
    """Its units are the first segments, with prompt, answer and score, and nothing is written."""
    config = backtranslation()
    units, counters = shown(config, 6)
    asyncio.run(run_to_end(config, tmp_path / "r", ScriptedEngine()))
    before = tables(tmp_path / "r")
    rows = [row for row in before["data"] + before["rejected"] if row["unit"] < 6]

    assert [unit.exchanges[0][0].key.stage for unit in units] == ["augmentation"] * 6
    assert counters.candidates == len(rows) == 6
    assert {row.id for unit in units for row in unit.result.examples} == {
        row["id"] for row in before["data"] if row["unit"] < 6
    }
