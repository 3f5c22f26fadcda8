"""A whole run over engines in processes of their own: one, two, some that join late, and a judge's."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

import pytest

from actors import cluster
from actors.place import PoolStats
from pipeline import launch
from pipeline.records import Stage
from pipeline.testing import ScriptedEngine, run_to_end

pytestmark = pytest.mark.usefixtures("ray_session")

SCRIPT = {"capacity": 6, "on_ray": True}


@pytest.fixture
def over_engines(scripted, tables, tmp_path):
    """Makes a run over so many engines of a script, and asserts that its rows are those of one engine in process."""

    async def run(config, wait: int) -> PoolStats:
        pool = cluster.engine_pool(config.engine)
        try:
            async with asyncio.timeout(60):
                await pool.start()
                while pool.stats().ready < wait:
                    await asyncio.sleep(0.01)
                await run_to_end(config, tmp_path / "over", pool)
            return pool.stats()
        finally:
            await pool.close()

    def make(wait: int, engines: dict[str, int], **script: float) -> list[int]:
        config = scripted(engine={"kind": "scripted", "num_gpus": 0, "scripted": {**SCRIPT, **script}, **engines})
        asyncio.run(run_to_end(config, tmp_path / "one", ScriptedEngine(delay_s=0.002)))
        stats = asyncio.run(run(config, wait))
        assert tables(tmp_path / "one") == tables(tmp_path / "over")
        return [engine.answered for engine in stats.engines]

    return make


def test_two_engines_give_the_rows_of_one_and_share_the_work(over_engines):
    """Two engine processes give the same rows in the same order as one in process; each answers at least a quarter."""
    answered = over_engines(2, {"count": 2})

    assert min(answered) >= sum(answered) / 4


@pytest.mark.parametrize("engines", [{"count": 1}, {"min": 1, "max": 3}], ids=["one", "late"])
def test_engines_that_join_while_the_run_goes_on(over_engines, engines):
    """A run begins with the first engine and takes in those that are ready later, one after the other on a node."""
    answered = over_engines(1, engines, load_s=0.3, delay_s=0.5)

    assert all(answered)


def test_a_judge_apart_gives_the_rows_of_one_in_process(backtranslation, corpus, tables, tmp_path, monkeypatch, capfd):
    """Writer and judge are engines of two groups, each with its own count; one that is lost is told of by its group and
    costs no row."""
    source, note, heard = corpus(), launch._note, []

    def listen(opened: Any, event: str, **values: Any) -> None:
        note(opened, event, **values)
        heard.append((event, values.get("table")))
        if heard.count(("engine_ready", "judge")) == 1 and heard[-1] == ("engine_ready", "judge"):
            os.kill(values["pid"], signal.SIGKILL)

    def run(name: str, **script: Any) -> None:
        def engines(group: str, count: int) -> dict[str, Any]:
            log = str(tmp_path / f"{name}-{group}.log")
            return {"kind": "scripted", "count": count, "num_gpus": 0, "scripted": {**script, "call_log": log}}

        groups = {"engine": engines("writer", 1), "judge": engines("judge", 2)}
        launch.launch(backtranslation(source=source, out=str(tmp_path / name), **groups))

    monkeypatch.setattr(launch, "_note", listen)
    run("apart", on_ray=True, delay_s=0.1)
    run("here")
    asked = {
        group: {line.split()[1] for line in (tmp_path / f"apart-{group}.log").read_text().splitlines()}
        for group in ("writer", "judge")
    }

    assert tables(tmp_path / "apart") == tables(tmp_path / "here")
    assert asked == {"writer": {Stage.AUGMENTATION}, "judge": {Stage.CURATION}}
    assert heard.count(("engine_ready", "engine")) == 1
    assert heard.count(("engine_ready", "judge")) >= 2
    assert heard.count(("engine_lost", "judge")) == 1
    assert capfd.readouterr().err.count("\njudging engine ") == 1
