"""What `submit` sends and what it makes of a job's end, without a cluster."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from pipeline.__main__ import NEEDED
from pipeline.errors import InputError, MillError, RunStopped
from pipeline.submit import End, checked_address, make_job, next_id, remarks_on, require_done

SCRIPTED = 'target = 20\n[engine]\nkind = "scripted"\n'
BUCKET = "s3://bucket/run"
AT = "http://head:8265"
PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a configuration in it and one below."""
    folder = tmp_path / "job"
    (folder / "configs").mkdir(parents=True)
    (folder / "night.toml").write_text(SCRIPTED)
    (folder / "configs" / "long night.toml").write_text(SCRIPTED)
    monkeypatch.chdir(folder)
    return folder


def job(path="night.toml", *overrides: str, out: str | None = BUCKET, working_dir: str | None = None, wait=30):
    """A job, all but what is of interest being plain."""
    return make_job(path, overrides, out, working_dir, wait)


def test_the_job_runs_the_same_command_in_the_folder_that_is_sent(here):
    """The head node runs `python -m pipeline run` with the same arguments, the file named from the working dir."""
    made = job("configs/long night.toml", "engine.style=chat", "name=a")
    assert made.entrypoint == (
        "python -m pipeline run 'configs/long night.toml' --out s3://bucket/run --set engine.style=chat --set name=a"
    )
    assert made.working_dir == here
    assert made.remarks == ()

    made = job(str(here / "configs" / "long night.toml"), working_dir="configs")
    assert made.entrypoint == "python -m pipeline run 'long night.toml' --out s3://bucket/run"
    assert made.working_dir == here / "configs"


def test_nothing_of_the_environment_is_sent(here, monkeypatch):
    """The job's environment, which Ray shows in plain text, holds how long a stop may take and nothing else."""
    monkeypatch.setenv("OPENAI_API_KEY", "verysecret")
    made = job(wait=45)
    assert made.runtime_env == {"working_dir": str(here), "env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": "45"}}
    assert "verysecret" not in repr(made)


@pytest.mark.parametrize(
    ("path", "override", "name"),
    [
        ("night.toml", "seed=1", "night"),
        ("configs/long night.toml", "seed=1", "long-night"),
        ("night.toml", "name=n.1", "n.1"),
        ("shipped:demo.toml", "engine.kind=scripted", "demo"),
    ],
)
def test_a_job_is_named_after_its_run(here, path, override, name):
    """The run's `name` is the job's; unless it is set, the file's name is, in letters that Ray and a shell take."""
    assert job(path, override).name == name


def test_a_shipped_configuration_needs_no_folder_unless_this_is_a_clone(here):
    """With a shipped configuration nothing is sent, for nodes that have the wheel; in a clone, the clone is."""
    assert job("shipped:demo.toml", "engine.kind=scripted").working_dir is None
    assert "working_dir" not in job("shipped:demo.toml", "engine.kind=scripted").runtime_env
    for name in ("pipeline/__main__.py", "actors/cluster.py"):
        (here / name).parent.mkdir()
        (here / name).touch()
    assert job("shipped:demo.toml", "engine.kind=scripted").working_dir == here


def test_a_run_folder_must_outlive_the_job(here):
    """A relative run folder is refused, one on the head node's disk is warned of, and one in S3 is fine."""
    with pytest.raises(InputError, match="the run folder runs/night is relative, and the job's working dir goes away"):
        job(out="runs/night")
    with pytest.raises(InputError, match="the run folder is not named"):
        job(out=None)
    with pytest.raises(InputError, match="gs:// has not been tried"):
        job(out="gs://bucket/run")
    assert ["on the head node" in remark for remark in job(out="/data/night").remarks] == [True]
    assert ["on the head node" in remark for remark in job(out="~/night").remarks] == [True]
    assert job(out=BUCKET).remarks == ()


def test_the_configuration_must_be_in_what_is_sent(here, tmp_path, monkeypatch):
    """A configuration outside of the working dir, or that is not there, and a working dir that is not, are refused."""
    (tmp_path / "outside.toml").write_text(SCRIPTED)
    with pytest.raises(InputError, match=r"\.\./outside\.toml lies outside of the working dir .*/job"):
        job("../outside.toml")
    with pytest.raises(InputError, match=r"absent\.toml: there is no such configuration file"):
        job("absent.toml")
    with pytest.raises(InputError, match="--working-dir nowhere: there is no such folder"):
        job(working_dir="nowhere")


@pytest.mark.parametrize("other", ["pipeline/__init__.py", "prompts/__init__.py", "actors.py"])
def test_a_package_that_would_hide_ours_is_refused(here, other):
    """A job starts in the working dir, where another package by a name of ours would be imported in its place."""
    place = here / other
    place.parent.mkdir(exist_ok=True)
    place.touch()
    with pytest.raises(InputError, match=f"{other} would take the place of InstructMill's own package"):
        job()
    assert job(working_dir="configs", path="configs/long night.toml").working_dir == here / "configs"


def test_a_folder_of_prompts_is_no_package(here):
    """Prompt files of one's own may lie in a folder `prompts`."""
    (here / "prompts").mkdir()
    (here / "prompts" / "bootstrap.txt").touch()
    assert job().working_dir == here


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("http://10.0.0.7:8265", True),
        ("http://head:8265", True),
        ("http://127.0.0.1:8265", False),
        ("http://localhost:8265", False),
        ("http://[::1]:8265", False),
        ("https://head", False),
    ],
)
def test_a_token_in_the_clear_is_told(address, told):
    """Over plain http to another machine the token is not hidden, and a sentence says so."""
    assert [("unencrypted" in remark) for remark in remarks_on(address)] == [True] * told


def test_a_home_folder_is_not_sent_by_default(here, monkeypatch):
    """All of a home folder goes to a cluster only where it is asked for by name."""
    monkeypatch.setenv("HOME", str(here))
    with pytest.raises(InputError, match="the working dir would be all of"):
        job()
    assert job(working_dir=str(here)).working_dir == here


def test_what_the_run_reads_is_checked_before_it_is_sent(here, tmp_path):
    """Faults of the configuration, of seeds and of prompt files in the working dir are found without a cluster."""
    with pytest.raises(InputError, match="unknown key 'tarjet'; did you mean 'target'"):
        job("night.toml", "tarjet=3")
    (here / "configs" / "seeds.jsonl").write_text('{"id": "s"}\n')
    with pytest.raises(InputError, match=r"seeds\.jsonl, line 1"):
        job("configs/long night.toml", "seeds=configs/seeds.jsonl")
    with pytest.raises(InputError, match=r"seeds\.jsonl, line 1"):  # paths start in the working dir, as in the job
        job("configs/long night.toml", "seeds=seeds.jsonl", working_dir="configs")
    (here / "bootstrap.txt").write_text("No variable here.\n")
    with pytest.raises(InputError, match="bootstrap"):
        job("night.toml", "prompts.bootstrap=bootstrap.txt")
    (tmp_path / "seeds.jsonl").touch()
    with pytest.raises(InputError, match=r"seeds = '\.\./seeds\.jsonl' lies outside of what the job gets"):
        job("night.toml", "seeds=../seeds.jsonl")
    with pytest.raises(InputError, match="lies outside of what the job gets"):  # the job's folder has another name
        job("night.toml", "seeds=../job/configs/seeds.jsonl")


def test_no_model_is_looked_for_here(here):
    """A model folder of the cluster's machines need not be on this one."""
    overrides = ("engine.kind=vllm", "engine.model=/models/large", "engine.system=Be brief.")
    assert job("night.toml", *overrides, "engine.style=chat").name == "night"
    assert job("night.toml", *overrides[:2]).name == "night"


ADAPTER = 'engine.vllm.lora_modules=[{name = "mine", path = "%s"}]'


@pytest.mark.parametrize(
    ("key", "override"), [("engine.model", "engine.model=%s"), ("engine.vllm.lora_modules", ADAPTER)]
)
def test_a_model_folder_beside_the_configuration_goes_along_or_is_refused(here, key, override):
    """A relative model path means the working dir in the job: what is there goes along and is told of, a folder that is
    only here is refused and not taken for a name on the hub, and such a name is let through."""
    (here / "models" / "mine").mkdir(parents=True)
    overrides = ("engine.kind=vllm", "engine.model=/models/base", "engine.style=chat")

    sent = job("night.toml", *overrides, override % "models/mine").remarks
    assert sent == (
        f"{key} = 'models/mine' goes to every node with the working dir, unless its .gitignore or .rayignore names it",
    )
    words = rf"^{key} = 'models/mine' is a folder here, and not in what the job gets; name a folder that every node has"
    with pytest.raises(InputError, match=words):
        job("configs/long night.toml", *overrides, override % "models/mine", working_dir="configs")
    with pytest.raises(InputError, match=rf"^{key} = '\./absent' is no name on the hub, and not in what the job gets"):
        job("night.toml", *overrides, override % "./absent")
    with pytest.raises(InputError, match="is a folder here, and not in what the job gets"):  # named otherwise there
        job("night.toml", *overrides, override % "../job/models/mine")
    assert job("night.toml", *overrides, override % "Qwen/Qwen3-8B").remarks == ()


def test_what_only_the_cluster_has_is_left_to_the_job(here):
    """Absolute paths and URLs are the head node's to read: they are named, and not looked for here."""
    remarks = job("night.toml", "seeds=/shared/seeds.jsonl").remarks
    assert remarks == ("not looked at here, but by the job: seeds = /shared/seeds.jsonl",)


def test_attempts_are_numbered_on_their_cluster():
    """An attempt has the number after the last one of this run; jobs of other runs do not count."""
    jobs = {"night-1": "SUCCEEDED", "night-3": "FAILED", "nights-7": "RUNNING", "night-x": "RUNNING", "raysubmit_1": ""}
    assert next_id("night", jobs, AT) == "night-4"
    assert next_id("day", jobs, AT) == "day-1"
    assert next_id("n.ght", {"night-1": "STOPPED"}, AT) == "n.ght-1"


@pytest.mark.parametrize("status", ["PENDING", "RUNNING"])
def test_a_run_has_one_job_at_a_time(status):
    """A job submitted twice is refused with 75: the sentence names the one there is, how to follow and to stop it."""
    with pytest.raises(RunStopped) as refused:
        next_id("night", {"night-1": status, "night-2": "STOPPED"}, AT)
    assert "a job named night-1 has not ended" in str(refused.value)
    assert "for another run add `--set name=OTHER`" in str(refused.value)
    assert f"`ray job logs -f night-1 --address {AT}`" in str(refused.value)
    assert f"`ray job stop night-1 --address {AT}`" in str(refused.value)


@pytest.mark.parametrize(
    ("end", "kind", "words"),
    [
        (End("FAILED", 2, message="logs:\nstyle: chat\ninstructmill: no room.\n"), InputError, "exit code 2: no room"),
        (End("FAILED", 75, message="instructmill: stopped"), RunStopped, "exit code 75: stopped; submit again"),
        (End("STOPPED"), RunStopped, "was stopped; nothing that is committed is lost: submit again"),
        (End("FAILED", 1, message="a\nKeyError: 3"), MillError, "exit code 1; the last line of its log: KeyError: 3"),
        (End("FAILED", 137), RunStopped, "killed by signal 9"),
        (End("FAILED", -9), RunStopped, "killed by signal 9"),
        (End("FAILED", 127, message="sh: 1: python: not found"), InputError, "no command `python`"),
        (End("FAILED", None, "JOB_SUPERVISOR_ACTOR_DIED", "gone"), RunStopped, "JOB_SUPERVISOR_ACTOR_DIED: gone"),
        (End("FAILED", 1, message="ModuleNotFoundError: No module named 'numba'"), InputError, "has no 'numba'"),
    ],
)
def test_the_end_of_a_job_is_the_end_of_the_command(end, kind, words):
    """The driver's own exit code becomes the command's, and a job stopped, killed or lost is one to submit again."""
    with pytest.raises(MillError, match=words) as raised:
        require_done("night-1", end)
    assert type(raised.value) is kind
    assert str(raised.value).startswith("job night-1")


def test_a_job_that_is_done_is_done():
    """A job that succeeded raises nothing."""
    require_done("night-1", End("SUCCEEDED", 0))


def test_a_node_without_the_package_is_named_so():
    """Python's own words for a head node without InstructMill become a sentence that says what to do."""
    bare = subprocess.run([sys.executable, "-I", "-S", "-m", "pipeline"], capture_output=True, text=True)
    with pytest.raises(InputError, match=r"the head node has no 'pipeline'.* put the wheel into the image"):
        require_done("night-1", End("FAILED", bare.returncode, message=f"last logs:\n{bare.stderr}"))


def test_a_node_with_an_old_python_is_named_so():
    """A Python before 3.11 ends with 2 and one sentence before anything that it cannot read is imported."""
    run = (
        f"import runpy, sys; sys.path.append({str(Path(__file__).parents[1])!r}); sys.version_info = (3, 10, 13); "
        "runpy.run_module('pipeline', run_name='__main__')"
    )
    ended = subprocess.run([sys.executable, "-c", run], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 2
    assert ended.stderr == (
        f"instructmill: this node's Python ({sys.executable}) is 3.10.13: 3.11 or newer is needed\n"
    )


def test_a_node_without_a_dependency_is_named_so(tmp_path):
    """A Python without what InstructMill needs ends with 2 and one sentence: which Python, what it lacks, the mend."""
    # All but one of the dependencies are there, as empty files: of a bare Python, none is.
    needed = {re.split(r"[\[>=]", each)[0].replace("-it-py", "_it") for each in PROJECT["dependencies"]}
    for name in needed - {"pyarrow"}:
        (tmp_path / f"{name}.py").touch()
    path = [str(tmp_path), str(Path(__file__).parents[1])]
    run = f"import runpy, sys; sys.path += {path}; runpy.run_module('pipeline', run_name='__main__')"
    ended = subprocess.run([sys.executable, "-I", "-S", "-c", run], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 2
    assert ended.stderr.startswith(f"instructmill: this node's Python ({sys.executable}) lacks pyarrow: install")
    assert ended.stderr.count("\n") == 1
    assert sorted(needed) == NEEDED


@pytest.mark.parametrize(
    "address", [None, "", "head:8265", "ray://head:10001", "auto", "http://", "http://a b", "http://h?x"]
)
def test_an_address_that_is_none_is_refused(address):
    """What is not the http address of a dashboard is refused, with what to give in its place."""
    with pytest.raises(InputError, match="--address http://HEAD:8265"):
        checked_address(address)


def test_an_address_is_taken_as_it_is_and_shows_no_password():
    """A slash at the end goes; a user or a password is refused, and not repeated."""
    assert checked_address("https://head.example:443/ray/") == "https://head.example:443/ray"
    with pytest.raises(InputError) as refused:
        checked_address("http://me:verysecret@head:8265")
    assert "verysecret" not in str(refused.value)


def test_submit_without_ray_says_what_to_install(here, without_ray_and_vllm):
    """Where Ray is not installed the command ends with 2 and one sentence."""
    command = [sys.executable, "-m", "pipeline", "submit", "night.toml", "--address", AT, "--out", BUCKET]
    ended = subprocess.run(command, env=without_ray_and_vllm, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 2
    assert ended.stderr.count("\n") == 1
    assert "submit needs Ray, which is not installed here" in ended.stderr
