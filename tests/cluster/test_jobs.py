"""Jobs on a real cluster: `ray start --head` with a token, in a session of its own, and the real command beside it."""

from __future__ import annotations

import http.server
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from pipeline.config import load_config
from pipeline.launch import launch
from pipeline.shards import read_commits
from pipeline.storage import LocalFolder
from tests.cluster.head import Head, free_ports

ROOT = Path(__file__).resolve().parents[2]
CONFIG = """
target = 300
window = 8
[engine]
kind = "scripted"
num_gpus = 0
[engine.scripted]
delay_s = 0.01
[shards]
rows = 30
"""
SLOW = "engine.scripted.delay_s=2.5"  # which changes no row
ON_RAY = "engine.scripted.on_ray=true"

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    """The cluster of this module, which takes packages of 8 MiB at most."""
    folder = Path(tempfile.mkdtemp(prefix="im", dir="/tmp"))  # short: Ray's sockets lie in it
    head = Head(folder)
    try:
        head.wait()
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
    config = load_config(str(submit.work / "night.toml"), (f"name={submit.name}",), str(folder))
    launch(config)
    return folder


@pytest.mark.parametrize("where", [ON_RAY, pytest.param("engine.scripted.on_ray=false", marks=pytest.mark.slow)])
def test_a_job_stopped_in_the_middle_goes_on_when_it_is_submitted_again(head, submit, tables, tmp_path, where):
    """A second submit is refused while a job runs; a stop leaves a whole folder and gives 75; the next attempt has the
    rows of a run left alone."""
    run = tmp_path / "run"
    first = submit(where, SLOW)
    wait_for(lambda: commits(run) > 1, first)

    code, out, err = ended(submit(where))
    assert (code, out) == (75, "")
    assert f"job {submit.name}-1 of this run has not ended" in err

    head.stop(f"{submit.name}-1")
    code, out, err = ended(first)
    assert code == 75
    assert "instructmill: stopped by SIGTERM; run the same command again to go on" in out
    assert f"job {submit.name}-1 was stopped" in err
    assert head.jobs()[f"{submit.name}-1"]["status"] == "STOPPED"
    assert verified(run)
    assert read_commits(LocalFolder(run))[-1].ending is None
    before = commits(run)

    code, out, err = ended(submit(where))
    assert code == 0, err
    assert f"submitted: {submit.name}-2" in err
    assert head.jobs()[f"{submit.name}-2"]["driver_exit_code"] == 0
    assert commits(run) > before
    assert verified(run)
    assert tables(run) == tables(undisturbed(submit, tmp_path / "alone"))


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
    code, out, err = ended(submit(ON_RAY, PYTHONPATH=None))
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


class OldRay(http.server.BaseHTTPRequestHandler):
    """A dashboard of another Ray."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(
            json.dumps({"version": "4", "ray_version": "2.9.3", "ray_commit": "", "session_name": ""}).encode()
        )

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@pytest.mark.slow
def test_an_address_without_a_cluster_of_this_ray_is_refused(head, submit):
    """Nothing there, something else there, and a cluster of another Ray end with 2 and one sentence each."""
    (closed,) = free_ports(1)
    servers = [
        http.server.ThreadingHTTPServer(("127.0.0.1", 0), kind) for kind in (OldRay, http.server.BaseHTTPRequestHandler)
    ]
    try:
        for server in servers:
            threading.Thread(target=server.serve_forever, daemon=True).start()
        old, other = (server.server_address[1] for server in servers)
        for port, words in (
            (closed, "nothing answers"),
            (other, "no Ray cluster"),
            (old, "has Ray 2.9.3, and this machine"),
        ):
            code, _, err = ended(submit(out="s3://bucket/run", flags=("--address", f"http://127.0.0.1:{port}")))
            assert code == 2
            assert re.search(words, err)
            assert err.count("\n") == 1
    finally:
        for server in servers:
            server.shutdown()
            server.server_close()


@pytest.mark.slow
def test_the_address_given_wins_over_the_environment(head, submit):
    """Ray's client prefers RAY_ADDRESS to what it is given; the command submits where it was told to."""
    (closed,) = free_ports(1)
    elsewhere = dict.fromkeys(("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"), f"http://127.0.0.1:{closed}")
    code, _, err = ended(submit(flags=("--no-wait",), **elsewhere))
    assert code == 0, err
    assert f"{submit.name}-1" in head.jobs()
