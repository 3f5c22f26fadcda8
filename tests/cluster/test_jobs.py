"""Jobs on a real cluster: `ray start --head` with a token and no CPU, two nodes with room for an engine each, and the
real command beside it."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import load_config
from pipeline.launch import launch
from pipeline.runs import read_events
from pipeline.shards import read_commits
from pipeline.storage import LocalFolder
from tests.cluster.head import Head, free_ports
from tests.conftest import block_imports

ROOT = Path(__file__).resolve().parents[2]
CONFIG = """
target = 300
window = 8
[engine]
kind = "scripted"
min = 2
max = 2
num_gpus = 0
resources = {engine_slot = 1}
[engine.scripted]
delay_s = 0.01
on_ray = true
[shards]
rows = 30
"""
SLOW = "engine.scripted.delay_s=2"  # which changes no row
ON_HEAD = "engine.scripted.on_ray=false"

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    """The cluster of this module, which takes packages of 8 MiB at most: a head for drivers, two nodes for engines."""
    folder = Path(tempfile.mkdtemp(prefix="im", dir="/tmp"))  # short: Ray's sockets lie in it
    head = Head(folder, cpus=0)
    try:
        for nodes in (2, 3):  # one after the other: Ray gives each half a minute, however busy this machine is
            head.join(1, {"engine_slot": 1, "mixed_slot": 1})
            head.wait(nodes)
        yield head
    finally:
        head.close()
        shutil.rmtree(folder, ignore_errors=True)


Submit = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def submit(head: Head, tmp_path: Path) -> Iterator[Submit]:
    """Starts the real command in a folder that holds a configuration; `name` is a run of this test alone."""
    work = tmp_path / "work"
    work.mkdir()
    (work / "night.toml").write_text(CONFIG)
    name, started = f"n{secrets.token_hex(3)}", []

    def start(*overrides: str, out: object = tmp_path / "run", flags: tuple[str, ...] = (), **environment: str | None):
        values = {**head.environment, **environment}
        command = [sys.executable, "-m", "pipeline", "submit", "night.toml", "--out", str(out), *flags]
        if "--address" not in flags:
            command += ["--address", head.address]
        for override in (f"name={name}", *overrides):
            command += ["--set", override]
        started.append(
            subprocess.Popen(
                command,
                cwd=work,
                env={key: value for key, value in values.items() if value is not None},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        return started[-1]

    start.work, start.name = work, name
    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()
    for id, job in head.jobs().items():
        if id.startswith(name) and job["status"] in ("PENDING", "RUNNING"):
            with suppress(OSError):
                head.stop(id)


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """The exit code, stdout and stderr of a command."""
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def wait_for(what: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Until something is so, while a command runs."""
    until = time.monotonic() + 100
    while not what():
        assert process.poll() is None, ended(process)
        assert time.monotonic() < until
        time.sleep(0.05)


def commits(folder: Path) -> int:
    """The commits of a run, the planning one among them."""
    return len(list((folder / ".run" / "commits").glob("[0-9]*.json")))


def verified(folder: Path) -> bool:
    """Whether `verify --full` finds the run whole."""
    command = [sys.executable, "-m", "pipeline", "verify", str(folder), "--full"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, timeout=100).returncode == 0


def undisturbed(submit: Submit, folder: Path) -> Path:
    """The same run, made in this process."""
    config = load_config(str(submit.work / "night.toml"), (f"name={submit.name}", ON_HEAD), str(folder))
    launch(config)
    return folder


def in_log(folder: Path, kind: str) -> list[dict[str, Any]]:
    """The events of a kind in a run's log."""
    return [event for event in read_events(folder) if event["event"] == kind]


@pytest.mark.parametrize("where", [(), pytest.param((ON_HEAD,), marks=pytest.mark.slow)], ids=["nodes", "head"])
def test_a_job_stopped_in_the_middle_goes_on_when_it_is_submitted_again(head, submit, tables, tmp_path, where):
    """Engines are on the nodes and the driver on the head. A second submit is refused while a job runs; a stop leaves a
    whole folder and gives 75; the next attempt has the rows of a run left alone."""
    run = tmp_path / "run"
    first = submit(*where, SLOW)
    wait_for(lambda: f"{submit.name}-1" in head.jobs(), first)
    second = submit(*where)
    wait_for(lambda: commits(run) > 1, first)
    code, out, err = ended(second)
    assert (code, out) == (75, "")
    assert f"a job named {submit.name}-1 has not ended" in err

    head.stop(f"{submit.name}-1")
    code, out, err = ended(first)
    assert code == 75
    assert "instructmill: stopped by SIGTERM; run the same command again to go on" in out
    assert f"job {submit.name}-1 was stopped" in err
    assert head.jobs()[f"{submit.name}-1"]["status"] == "STOPPED"
    assert verified(run)
    assert read_commits(LocalFolder(run))[-1].ending is None
    before = commits(run)

    code, out, err = ended(submit(*where))
    assert code == 0, err
    assert f"submitted: {submit.name}-2" in err
    assert head.jobs()[f"{submit.name}-2"]["driver_exit_code"] == 0
    assert commits(run) > before
    assert verified(run)
    assert tables(run) == tables(undisturbed(submit, tmp_path / "alone"))
    if not where:
        assert {event["engine"] for event in in_log(run, "engine_ready")} == {0, 1}
        assert head.jobs()[f"{submit.name}-2"]["driver_node_id"] == head.alive()[0]["node_id"]


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"RAY_AUTH_TOKEN": None}, "asks for a token, and none was sent"),
        ({"RAY_AUTH_TOKEN": "0" * 64}, "refuses this token"),
        pytest.param({"RAY_AUTH_MODE": None}, "asks for a token, and none was sent", marks=pytest.mark.slow),
        pytest.param({"RAY_AUTH_TOKEN": None, "RAY_AUTH_TOKEN_PATH": "/nowhere"}, "=/nowhere", marks=pytest.mark.slow),
    ],
)
def test_without_the_token_nothing_is_submitted(head, submit, changed, words):
    """No token and a wrong one end with 2 and one sentence that says where the token belongs, and shows none."""
    code, out, err = ended(submit(out="s3://bucket/run", **changed))
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert words in err
    assert head.environment["RAY_AUTH_TOKEN"] not in err
    assert f"{submit.name}-1" not in head.jobs()


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"RAY_AUTH_TOKEN": "0" * 64}, "refuses this token"),
        pytest.param({"RAY_AUTH_TOKEN": None}, "asks for a token, and none was sent", marks=pytest.mark.slow),
        pytest.param({"RAY_AUTH_MODE": None}, "asks for a token, and none was sent", marks=pytest.mark.slow),
        pytest.param({"RAY_AUTH_TOKEN": None, "RAY_AUTH_TOKEN_PATH": "/nowhere"}, "=/nowhere", marks=pytest.mark.slow),
    ],
)
def test_without_the_token_nothing_is_run(head, submit, tmp_path, changed, words):
    """A run that joins the cluster without its token ends with 2 and one sentence, and is not tried for long."""
    environment = {**head.environment, "RAY_ADDRESS": f"127.0.0.1:{head.port}", **changed}
    ended = subprocess.run(
        [sys.executable, "-m", "pipeline", "run", "night.toml", "--out", str(tmp_path / "run")],
        cwd=submit.work,
        env={name: value for name, value in environment.items() if value is not None},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.count("\n") == 1
    assert words in ended.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_the_plain_form_of_ray_itself(head, submit, tables, tmp_path):
    """`ray job submit --working-dir .` runs a job, refuses its id a second time, and the run is the same."""
    words = ["python", "-m", "pipeline", "run", "night.toml", "--out", str(tmp_path / "run")]
    words += ["--set", f"name={submit.name}"]
    plain = ["ray", "job", "submit", "--address", head.address, "--working-dir", ".", "--submission-id"]

    def ray(number: int) -> subprocess.CompletedProcess[str]:
        command = [*plain, f"{submit.name}-{number}", "--", *words]
        return subprocess.run(
            command, cwd=submit.work, env=head.environment, capture_output=True, text=True, timeout=100
        )

    first, again = ray(1), ray(1)
    assert first.returncode == 0, first.stderr
    assert "finished: the target of 300 instructions is reached" in first.stdout
    assert again.returncode == 1
    assert f"{submit.name}-1 already exists" in again.stderr
    assert head.jobs()[f"{submit.name}-1"]["driver_node_id"] == head.alive()[0]["node_id"]
    assert verified(tmp_path / "run")
    assert tables(tmp_path / "run") == tables(undisturbed(submit, tmp_path / "alone"))


@pytest.mark.slow
def test_a_round_of_curation_as_a_job(head, submit, backtranslation, tables, tmp_path):
    """`curate` in the plain form runs on the cluster's engines, and gives the rows of a round made in one process."""
    launch(backtranslation(out=str(tmp_path / "round-1")))
    rounds = ["curate", str(tmp_path / "round-1"), "--out"]
    config = submit.work / "round-2.toml"
    config.write_text(CONFIG[CONFIG.index("[engine]") : CONFIG.index("[shards]")])
    job = ["ray", "job", "submit", "--address", head.address, "--working-dir", ".", "--submission-id", submit.name]
    job += ["--", "python", "-m", "pipeline", *rounds, str(tmp_path / "round-2"), "--config", config.name]
    done = subprocess.run(job, cwd=submit.work, env=head.environment, capture_output=True, text=True, timeout=100)
    here = [sys.executable, "-m", "pipeline", *rounds, str(tmp_path / "here")]
    subprocess.run(here, cwd=submit.work, check=True, capture_output=True, timeout=100)

    assert done.returncode == 0, done.stdout
    assert in_log(tmp_path / "round-2", "engine_ready")
    assert verified(tmp_path / "round-2")
    assert tables(tmp_path / "round-2") == tables(tmp_path / "here")


@pytest.mark.slow
def test_a_node_without_the_package_is_given_up(head, submit, tables, tmp_path):
    """A run that has to start on a node which lacks InstructMill ends with 2 and what to install; one that has engines
    gives such a node up when it joins, says so once, and ends with all its rows."""
    blocked = tmp_path / "blocked"
    blocked.mkdir()
    block_imports(blocked, "actors", "pipeline", "prompts")
    run = tmp_path / "run"
    going = submit(SLOW, "engine.max=3", "engine.resources={mixed_slot=1}")
    wait_for(lambda: len(in_log(run, "engine_ready")) == 2 if run.exists() else False, going)
    head.join(1, {"mixed_slot": 1, "bare": 1}, PYTHONPATH=str(blocked))
    code, out, err = ended(going)
    refused = ended(submit("engine.min=1", "engine.max=1", "engine.resources={bare=1}", out=tmp_path / "none"))
    (lost,) = in_log(run, "engine_lost")
    (given_up,) = in_log(run, "node_given_up")

    assert code == 0, err
    assert (
        "cannot import InstructMill (no module 'pipeline' there): install instructmill[vllm] in its image"
        in lost["detail"]
    )
    assert given_up["node"] in {node["node_id"] for node in head.alive()}
    assert out.count("a node gets no more engines: node ") == 1
    assert tables(run) == tables(undisturbed(submit, tmp_path / "alone"))
    assert refused[0] == 2
    assert "No engine can start: node " in refused[2]


@pytest.mark.slow
def test_a_job_can_be_left_alone(head, submit, tmp_path):
    """With --no-wait the id and the commands are printed; the commands work, and nothing secret is shown to Ray."""
    code, out, _ = ended(submit(flags=("--no-wait", "--stop-wait", "40"), OPENAI_API_KEY="verysecretkey"))
    assert code == 0
    id = f"{submit.name}-1"
    assert out.splitlines()[0] == f"submitted: {id}"
    follow = next(line for line in out.splitlines() if line.startswith("follow:")).split()[1:]
    assert follow[-2:] == ["--address", head.address]
    log = subprocess.run(follow, env=head.environment, capture_output=True, text=True, timeout=100)
    assert "finished: the target of 300 instructions is reached" in log.stdout
    job = head.jobs()[id]
    assert job["status"] == "SUCCEEDED"
    assert job["runtime_env"]["env_vars"] == {"RAY_JOB_STOP_WAIT_TIME_S": "40"}
    assert "verysecretkey" not in json.dumps(job)
    assert verified(tmp_path / "run")


@pytest.mark.slow
def test_an_interrupted_follower_leaves_the_job_running(head, submit, tmp_path):
    """Ctrl-C while following ends the command with 75, says how to follow and stop, and the job goes on."""
    process = submit(SLOW)
    wait_for(lambda: commits(tmp_path / "run") > 0, process)
    process.send_signal(signal.SIGINT)
    code, _, err = ended(process)
    id = f"{submit.name}-1"
    assert code == 75
    assert f"no longer following; job {id} goes on" in err
    assert f"`ray job stop {id} --address {head.address}`" in err
    assert "Traceback" not in err
    assert head.jobs()[id]["status"] == "RUNNING"


@pytest.mark.slow
def test_the_drivers_own_exit_code_is_the_commands(head, submit, tmp_path):
    """What only the head node can find wrong ends the job, and the command, with 2; `ray job submit` would give 1."""
    assert ended(submit())[0] == 0
    code, out, err = ended(submit("seed=7"))
    assert code == 2
    assert "the folder holds a run of another configuration" in out
    assert f"job {submit.name}-2 ended with exit code 2: {tmp_path}/run: the folder holds a run of another" in err
    assert head.jobs()[f"{submit.name}-2"]["driver_exit_code"] == 2


@pytest.mark.slow
def test_a_clone_is_the_code_that_runs(head, submit, tmp_path):
    """Where the working dir is a clone, driver and actors run its code and not the nodes' own."""
    for package in ("pipeline", "actors", "prompts"):
        shutil.copytree(ROOT / package, submit.work / package, ignore=shutil.ignore_patterns("__pycache__"))
    for module in ("pipeline/driver.py", "actors/scripted_engine.py"):
        with (submit.work / module).open("a") as code:
            code.write(f'\nprint("{module} of the clone")\nopen("{tmp_path}/{Path(module).stem}", "w").close()\n')
    code, out, err = ended(submit(PYTHONPATH=None))
    assert code == 0, out + err
    assert "pipeline/driver.py of the clone" in out
    assert (tmp_path / "scripted_engine").exists()


@pytest.mark.slow
def test_a_working_dir_that_is_too_large_is_refused(submit):
    """What Ray does not take is refused with 2, with the words that mend it; .rayignore mends it."""
    (submit.work / "big.bin").write_bytes(os.urandom(9 << 20))  # the cluster of this module takes 8 MiB
    code, out, err = ended(submit())
    assert (code, out) == (2, "")
    assert f"the working dir {submit.work} is too large for Ray" in err
    assert "Traceback" not in err
    (submit.work / ".rayignore").write_text("*.bin\n")
    assert ended(submit())[0] == 0


@pytest.mark.slow
def test_the_address_given_wins_over_the_environment(head, submit):
    """Ray's client prefers RAY_ADDRESS to what it is given; the command submits where it was told to."""
    (closed,) = free_ports(1)
    elsewhere = dict.fromkeys(("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"), f"http://127.0.0.1:{closed}")
    code, _, err = ended(submit(flags=("--no-wait",), **elsewhere))
    assert code == 0, err
    assert f"{submit.name}-1" in head.jobs()
