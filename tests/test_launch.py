"""The way in from Python, and a run's end as a person meets it."""

from __future__ import annotations

import asyncio
import functools
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.check import describe_novelty
from pipeline.engine_settings import EngineSettings
from pipeline.errors import InputError, RunStopped
from pipeline.launch import _join_cluster, _start_group, launch
from pipeline.records import Completion, Request, Stage
from pipeline.runs import read_events
from pipeline.shards import read_manifest
from pipeline.testing import scripted_answer
from pipeline.waiting import engines_line, while_waiting, workers_line


def short(instruction: str) -> str | None:
    """A filter of one's own."""
    return "more than nine words" if len(instruction.split()) > 9 else None


def other(instruction: str) -> str | None:
    """Another filter."""
    return None


def test_a_filter_of_ones_own(scripted, tables, tmp_path, capsys) -> None:
    """What it refuses is a reject with its words, nothing it refuses is admitted, and the summary still adds up."""
    launch(scripted(out=str(tmp_path / "r")), filters=[short])
    rows = tables(tmp_path / "r")
    own = [row for row in rows["rejected"] if row["reason"] == "own_filter"]

    assert {row["detail"] for row in own} == {"more than nine words"}
    assert all(len(row["instruction"].split()) <= 9 for row in rows["pool"])
    assert f"own_filter {len(own)}" in capsys.readouterr().out


def test_another_filter_is_another_run(scripted, tmp_path) -> None:
    """A folder begun with one filter is refused with another, and the key is named."""
    launch(scripted(out=str(tmp_path / "r")), filters=[short])

    assert read_manifest(tmp_path / "r")["values"]["filters.own"][0].startswith("short:")
    for filters in ([other], []):
        with pytest.raises(InputError, match=r"filters\.own"):
            launch(scripted(out=str(tmp_path / "r"), target=99), filters=filters)


def test_a_hopeless_run_ends_with_one_sentence(scripted, tables, tmp_path, monkeypatch) -> None:
    """When no unit's thought ends, the run stops with what would mend it, and the failures are committed."""

    def thinking(request: Request) -> Completion:
        answer = scripted_answer(request)
        return Completion("<think> hm", "length", 9, 9) if request.key.stage == Stage.BOOTSTRAP else answer

    monkeypatch.setattr("pipeline.testing.scripted_answer", thinking)
    with pytest.raises(InputError, match=r"all of the first 20 units failed.*raise max_tokens"):
        launch(scripted(out=str(tmp_path / "r"), engine={"kind": "scripted", "style": "chat"}))
    assert {row["reason"] for row in tables(tmp_path / "r")["rejected"]} == {"thought_unclosed"}


def test_novelty_workers_need_ray(without_ray_and_vllm, tmp_path) -> None:
    """Workers without Ray installed are one sentence with the way out and exit code 2; without workers all is well."""
    (tmp_path / "c.toml").write_text('[engine]\nkind = "scripted"\n')

    def check(workers: int) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "pipeline", "check", "c.toml", "--set", f"novelty.workers={workers}"]
        environment = without_ray_and_vllm
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)

    refused, well = check(2), check(0)

    assert refused.returncode == 2
    assert refused.stderr.startswith("instructmill: 2 novelty worker(s) need Ray, which is not installed here (ray)")
    assert "or ask for 0" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1
    assert well.returncode == 0


@pytest.mark.parametrize(
    ("novelty", "start"),
    [
        ({"workers": 2}, "novelty: 2 worker(s) of one CPU on the Ray cluster; threshold 0.7"),
        ({"threshold": 0.4}, "novelty: in the driver's process, no workers; threshold 0.4, nearest down to 0.4"),
        ({"enabled": False}, "novelty: off"),
    ],
)
def test_check_says_who_looks_for_the_nearest(scripted, novelty, start) -> None:
    """How many workers, or that the driver's process does it, or nobody."""
    assert describe_novelty(scripted(novelty=novelty)).startswith(start)


@pytest.mark.parametrize(("quiet_s", "drawn"), [(0.0, "waiting for it"), (60.0, "")])
def test_a_short_wait_is_not_spoken_of(capsys, quiet_s, drawn) -> None:
    """A line about what is waited for appears once it has taken longer than is worth no word."""
    asyncio.run(while_waiting(asyncio.sleep(0.01), "waiting for it", quiet_s))

    said = capsys.readouterr().err

    assert (drawn in said) if drawn else said == ""


def longer(words: int):
    """Makes a filter out of a number."""

    def check(instruction: str) -> str | None:
        return "too long" if len(instruction.split()) > words else None

    return check


def test_a_filters_values_are_part_of_the_run(scripted, tmp_path) -> None:
    """The same function over another number is another filter."""
    launch(scripted(out=str(tmp_path / "r")), filters=[longer(9)])
    with pytest.raises(InputError, match=r"filters\.own"):
        launch(scripted(out=str(tmp_path / "r"), target=99), filters=[longer(8)])


@pytest.mark.parametrize(
    ("filters", "words"),
    [
        pytest.param([lambda _: False], "must return None to keep a text", id="false"),
        pytest.param([functools.partial(short)], "must be a plain function", id="no-source"),
        pytest.param([longer(object())], "must be a plain function.*plain values", id="no-plain-value"),
        pytest.param(short, r"write filters=\[name\]", id="no-list"),
    ],
)
def test_a_filter_that_cannot_serve_is_one_sentence(scripted, tmp_path, filters, words) -> None:
    """What it returns, what it is and what it closes over are checked, and no bug shows."""
    with pytest.raises(InputError, match=words):
        launch(scripted(out=str(tmp_path / "r")), filters=filters)


def test_launch_where_signals_or_a_loop_are_not_its_own(scripted, tmp_path) -> None:
    """From another thread, or inside an event loop as in a notebook: one sentence, and nothing is written."""
    config = scripted(out=str(tmp_path / "r"))

    async def in_a_loop() -> None:
        launch(config)

    with pytest.raises(InputError, match="in a notebook use"):
        asyncio.run(in_a_loop())
    with ThreadPoolExecutor(1) as threads, pytest.raises(InputError, match="needs the main thread"):
        threads.submit(launch, config).result()
    assert not (tmp_path / "r").exists()


def test_what_a_judge_lacks_is_said_of_its_own_table(monkeypatch) -> None:
    """An engine of the judge's that cannot start names the judge's settings, and one of the writer's the engine's."""

    class Refusing:
        async def start(self) -> None:
            raise InputError("No engine can start: set engine.vllm.max_model_len = 512 (on a host), the engine said.")

        async def close(self) -> None:
            return None

    monkeypatch.setattr("actors.cluster.engine_pool", lambda settings, note: Refusing())
    settings = EngineSettings(model="/m")
    for key in ("engine", "judge"):
        with pytest.raises(InputError) as caught:
            asyncio.run(_start_group(None, key, settings, {"revision": None}, None))
        assert str(caught.value) == (
            f"No engine can start: set {key}.vllm.max_model_len = 512 (on a host), the engine said."
        )


ROOM = "waiting for room"


@pytest.mark.parametrize(
    ("states", "waited_s", "line"),
    [
        ([ROOM, ROOM], 0, "starting up to 2 engine(s): the script"),
        ([ROOM, ROOM], 90, "no engine yet: 2 wait for room (1 CPU, 4 GPUs each); gives up after 2:00:00"),
        ([ROOM, "loading"], 90, "loading the script on 1 engine(s); 1 waits for room"),
        (["waiting to load", "loading"], 0, "loading the script on 2 engine(s)"),
        ([ROOM, "down"], 90, "no engine yet: 1 ended and will be tried again; 1 waits for room"),
    ],
)
def test_the_line_says_what_engines_wait_for(states, waited_s, line) -> None:
    """Engines are loading once they have room; before that it is room that is waited for, with what each needs."""
    settings = EngineSettings(kind="scripted", min=0, max=2, num_gpus=4, room_timeout_s=7200)

    assert engines_line(states, settings, "engine", waited_s) == line


def test_a_start_is_told_of_by_the_states_of_its_engines(monkeypatch, capsys) -> None:
    """The line of a run that starts goes by what its pool says of its engines."""

    class Homeless:
        async def start(self) -> None:
            await asyncio.sleep(0.01)

        def stats(self) -> SimpleNamespace:
            return SimpleNamespace(engines=[SimpleNamespace(state=ROOM)] * 3)

    monkeypatch.setattr("pipeline.waiting.SOON_S", 0.0)
    monkeypatch.setattr("actors.cluster.engine_pool", lambda settings, note: Homeless())
    settings = EngineSettings(model="/m", count=3, room_timeout_s=60)
    asyncio.run(_start_group(None, "judge", settings, {"revision": None}, None))

    assert "0:00:00  no judging engine yet: 3 wait for room (1 CPU, 1 GPU each)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("waiting", "waited_s", "line"),
    [
        (1, 3, "filling 2 novelty worker(s) with 1,750 texts"),
        (0, 90, "filling 2 novelty worker(s) with 1,750 texts"),
        (1, 90, "1 novelty worker waits for a CPU that no engine holds; gives up after 1:00:00"),
        (2, 90, "2 novelty workers wait for a CPU each that no engine holds; gives up after 1:00:00"),
    ],
)
def test_the_line_says_what_novelty_workers_wait_for(waiting, waited_s, line) -> None:
    """Workers are being filled once they have a CPU; before that it is a CPU that is waited for."""
    assert workers_line(waiting, 2, 1750, 3600.0, waited_s) == line


@pytest.mark.parametrize(
    ("environment", "end"),
    [
        ({"RAY_ADDRESS": "head:6379"}, ""),
        ({}, "; looked at this machine, as RAY_ADDRESS is not set"),
        (
            {"RAY_API_SERVER_ADDRESS": "http://head:8265"},
            "; looked at this machine, as RAY_ADDRESS is not set; the cluster at http://head:8265 is reached by submit "
            "alone: check with --no-cluster",
        ),
    ],
)
def test_where_no_cluster_is_named_it_is_this_machine_that_was_looked_at(monkeypatch, environment, end) -> None:
    """What there is room for, and the refusal where there is none, say whose room it is, and keep their exit code."""
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("actors.cluster.connect", lambda: True)
    monkeypatch.setattr("actors.cluster.disconnect", lambda: None)
    monkeypatch.setattr("actors.cluster.require_room", lambda *_: "1 machine")
    with ExitStack() as stack:
        assert _join_cluster([], 1, stack) == f"1 machine{end}"

        def used(*_: object) -> None:
            raise RunStopped("others use it")

        monkeypatch.setattr("actors.cluster.require_room", used)
        with pytest.raises(RunStopped) as refused:
            _join_cluster([], 1, stack)
    assert str(refused.value) == f"others use it{end}"


def test_why_a_run_ended_before_its_engines_came_is_kept(scripted, tmp_path, monkeypatch, capsys) -> None:
    """A lost engine is told of with its reason when it happens, and the log keeps why the run stopped."""

    async def start_engine(plan: Any, note: Callable[..., None]) -> Any:
        for table in ("engine", "judge"):
            note("engine_lost", table=table, engine=0, detail="its disk is gone", blameless=True, in_flight=[])
        raise RunStopped("no engine came")

    monkeypatch.setattr("pipeline.launch.start_engine", start_engine)
    with pytest.raises(RunStopped, match="no engine came"):
        launch(scripted(out=str(tmp_path / "r")))

    lost = "engine 0 was lost: its disk is gone"
    assert capsys.readouterr().err.splitlines()[-2:] == [lost, f"judging {lost}"]
    assert read_events(tmp_path / "r")[-1]["event"] == "stopped"
    assert read_events(tmp_path / "r")[-1]["why"] == "no engine came"
