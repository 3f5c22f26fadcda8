"""What engines do and have done, as `status`, `report`, the summary and the log show it."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from actors.engine_use import EngineTime
from actors.messages import Gauges
from pipeline import engine_facts
from pipeline.cli import main
from pipeline.counters import Counters
from pipeline.driver import Driver
from pipeline.engine import EngineUse, Lost
from pipeline.engine_facts import Lately, each_engine, facts_lines, facts_of, standing_line
from pipeline.progress import log_engines
from pipeline.reading import open_folder
from pipeline.report import status, status_text, summary
from pipeline.runs import open_run
from pipeline.testing import ScriptedEngine

# Two engines for 100 s each, of which one loaded for 50 s: 150 s of serving, 15 of them idle.
USE = EngineUse(
    engines=3, ready=2, running=64, waiting=3, kv_use=0.25, prefix_queries=1000, prefix_hits=800, generated_tokens=9000,
    busy=135.0, full=130.0, running_s=4500.0, waiting_s=300.0, kv_use_s=30.0,
    lost={Lost.LOADING: 50.0, Lost.WINDOW: 20.0, Lost.REDONE: 10.0},
)  # fmt: skip
LINES = [
    "engine time      0:03:20, 68% busy, 60% useful; lost: loading 25%, window 10%, redone 5%; "
    "1,080 rows per engine-hour",
    "each engine   30.0 requests running (+2.0 waiting) on an average, KV 20%, prefix hits 80%",
]
STANDING = (
    "engines 2/3 (1 not here)  running 64 (+3 waiting)  KV 25%  prefix hits 80%  busy 68%  useful 60%; "
    "lost: loading 25%, window 10%, redone 5%  1,080 rows/engine-hour"
)


class Serving(ScriptedEngine):
    """An engine that knows what it does."""

    def use(self) -> EngineUse:
        return USE


@pytest.fixture
def live(scripted, tmp_path):
    """A run that has committed some units and goes on, told of once in its log."""
    folder = tmp_path / "r"
    run = open_run(scripted(target=30), folder)

    async def drive() -> None:
        driver = Driver(run.plan.config, run.state, run.plan.recipe, Serving(), run.commit)
        await driver.run()

    asyncio.run(drive())
    yield run
    run.close()


def test_facts_of_engine_time() -> None:
    """Busy, useful and lost are shares of all engine time; requests and cache those of one engine while it served."""
    facts = facts_of(USE.time, 60)

    assert facts is not None
    assert (facts["seconds"], facts["busy"], facts["useful"]) == (200.0, 0.675, 0.6)
    assert (facts["running"], facts["waiting"], facts["kv_use"], facts["prefix_hits"]) == (30.0, 2.0, 0.2, 0.8)
    assert facts["lost"] == {
        "loading": 0.25, "window": 0.1, "novelty": 0.0, "driver": 0.0, "tail": 0.0, "redone": 0.05,
    }  # fmt: skip
    assert facts["rows_per_engine_hour"] == 1080.0
    assert facts_lines(facts) == LINES
    assert facts_of({}, 60) is None


def test_what_engines_do_just_now() -> None:
    """The line of the log says what there is, what the requests do, and where the time has gone."""
    assert standing_line(Lately(rows=40).standing(USE, 100)) == STANDING
    assert standing_line(Lately().standing(EngineUse(engines=2, loading=1), 0)) == (
        "engines 0/2 (1 loading, 1 not here)  running 0 (+0 waiting)"
    )


def test_shares_are_those_of_the_last_minute(monkeypatch) -> None:
    """An hour in which all went well hides no minute in which nothing did, and rows before it do not count."""
    now = [0.0]
    monkeypatch.setattr(engine_facts.time, "monotonic", lambda: now[0])
    lately = Lately()
    for seconds in range(10, 3601, 10):
        now[0] = seconds
        told = lately.standing(EngineUse(engines=1, ready=1, busy=seconds, full=seconds), seconds)
    assert (told["useful"], told["rows_per_engine_hour"]) == (1.0, 3600.0)
    for seconds in range(10, 61, 10):
        now[0] = 3600 + seconds
        use = EngineUse(engines=1, ready=1, busy=3600, full=3600, lost={Lost.NOVELTY: seconds})
        told = lately.standing(use, 3600)
        assert told["useful"] == pytest.approx(1 - seconds / 60, abs=1e-3)
    assert (told["busy"], told["lost"]["novelty"], told["rows_per_engine_hour"]) == (0.0, 1.0, 0.0)


def test_one_engines_time_holds_what_was_in_it(monkeypatch) -> None:
    """Requests and the cache count by how long they were there, and an idle engine has none."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    place = EngineTime(batch=4)
    place.loading()
    for seconds, gauges in ((2.0, Gauges(running=3, waiting=1, kv_use=0.5)), (1.0, Gauges(running=1, kv_use=0.25))):
        now[0] += seconds
        place.serving(gauges, Lost.WINDOW)
    now[0] += 10.0
    place.idle(Lost.TAIL)
    use = place.use(ready=True, loading=False)

    assert (use.running_s, use.waiting_s, use.kv_use_s) == (7.0, 2.0, 1.25)
    assert (use.running, use.waiting, use.kv_use) == (0, 0, 0.0)


@pytest.mark.parametrize("silent_s", [0.0, 120.0])
def test_no_time_of_an_engine_is_left_out_when_it_dies(monkeypatch, silent_s) -> None:
    """What an engine was paid for is useful or lost, also that since it last answered; what it did before stays useful
    but for the requests that died with it."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    place = EngineTime(batch=10)
    place.loading()
    now[0] += 20.0
    place.loading()
    for _ in range(10):
        now[0] += 10.0
        place.serving(Gauges(running=10), Lost.WINDOW)
    now[0] += silent_s
    place.gone([silent_s + 1.0] * 10)
    use = place.use(ready=False, loading=False)

    assert use.seconds == 120.0 + silent_s
    assert use.lost == {Lost.LOADING: 20.0, Lost.WINDOW: 0.0, Lost.REDONE: silent_s + 1.0}
    assert use.useful == 99.0


def test_status_report_and_summary_show_the_same_of_the_engines(live, capsys, tmp_path) -> None:
    """All show engine time, requests, cache and tokens, the page too; `status --json` has the figures by name."""
    folder = live.folder.local
    manifest, commits = open_folder(folder)
    shown = [summary(folder, manifest, commits[-1]), status_text(status(folder))]
    live.close()
    rows = commits[-1].counters["examples"]
    facts = facts_of(USE.time, rows)
    want = facts_lines(facts)
    for text in shown:
        assert [line.strip() for line in text.splitlines() if line.strip()[:6] in ("engine", "each e")] == want
        assert "tokens/s generated" in text
    assert main(["report", str(folder), "--html", str(tmp_path / "page.html")]) == 0
    assert f"busy {facts['busy']:.0%} of it: {each_engine(facts)}." in (tmp_path / "page.html").read_text()
    capsys.readouterr()
    assert main(["report", str(folder)]) == 0
    words = " ".join(capsys.readouterr().out.split())
    assert f"each engine {facts['busy']:.0%} busy; {each_engine(facts)}" in words
    assert f"of all engines; {facts['rows_per_engine_hour']:,.0f} rows per engine-hour" in words
    assert main(["status", str(folder), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["engines"] == facts_of(USE.time, rows)
    assert facts["engines_now"] is None


def test_status_of_a_live_run_shows_its_engines_and_since_when(live, monkeypatch) -> None:
    """What the engines did when they were last heard of, with its age; what another attempt said is not shown."""
    folder = live.folder.local
    before = status(folder)
    standing = Lately().standing(USE, 60)
    live.event("engines", **standing)
    live.event("engine_ready", engine=1)
    live.flush_events()
    then = time.time()
    monkeypatch.setattr(time, "time", lambda: then + 75)
    facts = status(folder)

    assert before["engines_now"] is None
    assert before["state"] == "running"
    assert facts["engines_now"] == {**standing, "age_s": pytest.approx(75, abs=5)}
    assert f" ago: {STANDING}" in status_text(facts)
    live.close()
    assert status(folder)["engines_now"] is None


def test_the_log_tells_of_the_engines(monkeypatch) -> None:
    """What the engines do is noted for the run's log time and again, and not where that is unknown."""
    monkeypatch.setattr("pipeline.progress.PLAIN_EVERY_S", 0.01)
    told: list[tuple[str, dict[str, Any]]] = []

    class Driving:
        state = SimpleNamespace(counters=Counters(examples=60))

        def __init__(self, use: EngineUse | None) -> None:
            self.use = lambda: use

    async def listen(use: EngineUse | None) -> None:
        task = asyncio.create_task(log_engines(Driving(use), lambda kind, **values: told.append((kind, values))))  # type: ignore[arg-type]
        await asyncio.sleep(0.2)
        async with asyncio.timeout(10):
            while use and len(told) < 2:
                await asyncio.sleep(0.01)
        task.cancel()

    asyncio.run(listen(None))
    assert not told
    asyncio.run(listen(USE))
    assert told[:2] == [("engines", Lately(rows=60).standing(USE, 60))] * 2


def test_a_folder_without_engine_time_shows_none(scripted, tmp_path: Path) -> None:
    """A run whose engine tells nothing has no line about engines."""
    run = open_run(scripted(target=20), tmp_path / "r")
    asyncio.run(Driver(run.plan.config, run.state, run.plan.recipe, ScriptedEngine(), run.commit).run())
    run.close()
    facts = status(tmp_path / "r")

    assert facts["engines"] is None
    assert "engine" not in status_text(facts).split("\n", 1)[1]
