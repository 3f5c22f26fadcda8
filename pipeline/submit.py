"""What `instructmill submit` sends to a cluster, checked as far as that needs no cluster, and what a job's end means.

Without Ray, which is in `actors/jobs.py`.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pipeline.config import Config, load_config
from pipeline.engine_settings import EngineSettings
from pipeline.errors import InputError, MillError, RunStopped
from pipeline.storage import folder_at

PENDING, RUNNING, STOPPED, SUCCEEDED = "PENDING", "RUNNING", "STOPPED", "SUCCEEDED"  # as Ray calls them
LARGE = 256 << 20  # bytes of a working dir that are worth a word before they are read
OURS = ("pipeline", "actors", "prompts", "embedded")  # packages, as they are imported
HERE = ("localhost", "127.0.0.1", "::1")
LEFT_OUT = (".git", ".venv", "venv", "__pycache__")  # of a working dir, by Ray


@dataclass(frozen=True, slots=True)
class Job:
    """One submission of a run, without its number."""

    name: str
    """Of the run; the submission id is this and the attempt."""
    entrypoint: str
    """The command that the head node runs."""
    working_dir: Path | None
    """The folder that is sent; None for nothing."""
    stop_wait_s: int
    """Seconds from a stop to the kill."""
    remarks: tuple[str, ...]
    """What the person should know, a sentence each."""

    @property
    def runtime_env(self) -> dict[str, Any]:
        """Ray shows it in plain text to all who have the token, so nothing of this process's environment is in it."""
        env: dict[str, Any] = {"env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": str(self.stop_wait_s)}}
        return env if self.working_dir is None else {"working_dir": str(self.working_dir), **env}


@dataclass(frozen=True, slots=True)
class End:
    """How a job ended, as Ray tells it. `exit_code` is the driver's; None where it was stopped or lost."""

    status: str
    exit_code: int | None = None
    error_type: str | None = None
    message: str = ""


def make_job(
    config_path: str, overrides: tuple[str, ...], out: str | None, working_dir: str | None, stop_wait_s: int
) -> Job:
    """The job that runs a configuration: `python -m pipeline run` with the same arguments, in the working dir.

    Nothing is sent yet. Raises InputError for what is wrong already here.
    """
    shipped = config_path.startswith("shipped:")
    folder = _working_dir(config_path, working_dir, shipped)
    if folder is not None and not _is_clone(folder):
        _refuse_intruders(folder)
    config = load_config(config_path, overrides, out)
    remarks = [*_check_run_folder(config), *_check_models(config, folder), *_check_inputs(config, folder)]
    if folder is not None and _holds_more(folder, LARGE):
        remarks.append(
            f"the working dir {folder} holds more than {LARGE >> 20} MiB, less what its .gitignore and .rayignore "
            "name; it is read and packed now, and Ray takes 512 MiB of it, packed"
        )
    path = config_path if shipped or folder is None else os.path.relpath(config_path, folder)
    command = ["python", "-m", "pipeline", "run", path]
    command += ["--out", out] if out is not None else []
    for override in overrides:
        command += ["--set", override]
    stem = Path(config_path.removeprefix("shipped:")).stem
    name = config.name or re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip("-.") or "run"
    return Job(name, shlex.join(command), folder, stop_wait_s, tuple(remarks))


def checked_address(address: str | None) -> str:
    """The address of a cluster's dashboard, without a slash at its end. Raises InputError where it is none."""
    mend = "give --address http://HEAD:8265, where the dashboard of the cluster is (or a tunnel or port-forward to it)"
    if not address:
        raise InputError(f"no cluster is named: {mend}, or set RAY_API_SERVER_ADDRESS")
    if "@" in address:  # and not shown: it may hold a password
        raise InputError(f"--address must not hold a user or a password: {mend}; the token comes from the environment")
    if not re.fullmatch(r"https?://[^/\s?#]+(/[^\s?#]*)?", address):
        raise InputError(f"--address {address}: {mend}")
    return address.rstrip("/")


def remarks_on(address: str) -> Iterator[str]:
    """What the person should know of a cluster's address, a sentence each."""
    if address.startswith("http://") and urlsplit(address).hostname not in HERE:
        yield (
            f"{address} is plain http: the token goes there unencrypted; where others may listen, go through a tunnel "
            "or a port-forward"
        )


def next_id(name: str, jobs: Mapping[str, str], address: str) -> str:
    """The submission id of the next attempt: NAME-1, NAME-2, ..., one more than the last of them on the cluster.

    `jobs` are the cluster's, submission id to status. Raises RunStopped where one of this name has not ended.
    """
    attempts = {int(found[1]): id for id in jobs if (found := re.fullmatch(re.escape(name) + r"-(\d+)", id))}
    for id in attempts.values():
        if jobs[id] in (PENDING, RUNNING):
            raise already_there(id, address)
    return f"{name}-{max(attempts, default=0) + 1}"


def already_there(id: str, address: str) -> RunStopped:
    """The refusal of a name that has a job."""
    follow, _, stop = job_commands(id, address)
    return RunStopped(
        f"a job named {id} has not ended, so this one was not submitted; follow it with `{follow}`, stop it with "
        f"`{stop}`; for another run add `--set name=OTHER`"
    )


def job_commands(id: str, address: str) -> tuple[str, str, str]:
    """Ray's commands that follow a job, tell its status, and stop it."""
    at = f"{id} --address {shlex.quote(address)}"
    return f"ray job logs -f {at}", f"ray job status {at}", f"ray job stop {at}"


def require_done(id: str, end: End) -> None:
    """Return where a job's run is done. Else raises what the driver's own exit code stands for, in one sentence."""
    if end.status == SUCCEEDED:
        return
    if end.status == STOPPED:
        raise RunStopped(f"job {id} was stopped; nothing that is committed is lost: submit again to go on")
    code = end.exit_code
    lines = [line.strip() for line in end.message.splitlines() if line.strip()]
    last = lines[-1] if lines else "nothing"
    if code == InputError.exit_code:
        raise InputError(f"job {id} ended with exit code 2: {_said(last)}")
    if code == RunStopped.exit_code:
        raise RunStopped(f"job {id} ended with exit code 75: {_said(last)}; submit again to go on")
    if code is None:  # not an end of the driver's own
        what = end.error_type or end.status
        raise RunStopped(
            f"job {id} was lost or never began ({what}: {_said(last)}); look at the cluster, then submit again to go on"
        )
    if missing := re.search(r"No module named '?([\w.]+)'?$", last):
        raise InputError(
            f"job {id}: the head node has no {missing[1]!r}, which InstructMill is or needs; put the wheel into the "
            "image of every node, or submit a clone (--working-dir) to nodes that have its dependencies"
        )
    if code == 127:
        raise InputError(f"job {id}: the head node knows no command `python` ({_said(last)}); mend its image's PATH")
    if (number := -code if code < 0 else code - 128) > 0:
        raise RunStopped(
            f"job {id}: the driver was killed by signal {number} (9 may be a head node out of memory); nothing that is "
            "committed is lost: submit again to go on"
        )
    raise MillError(f"job {id} ended with exit code {code}; the last line of its log: {_said(last)}")


def _said(line: str) -> str:
    """A line of a log within a sentence."""
    return line.removeprefix("instructmill: ")[:400].rstrip(".")


def _working_dir(config_path: str, given: str | None, shipped: bool) -> Path | None:
    """The folder that is sent: the one named, or this one where it is a clone or holds the configuration."""
    here = Path.cwd()
    folder = here if given is None else Path(given).expanduser().absolute()
    if given is not None and not folder.is_dir():
        raise InputError(f"--working-dir {given}: there is no such folder")
    if shipped:
        return folder if given is not None or _is_clone(folder) else None
    if not Path(config_path).is_file():
        raise InputError(f"{config_path}: there is no such configuration file")
    if not _lies_in(config_path, folder):
        raise InputError(
            f"{config_path} lies outside of the working dir {folder}, which is all that the job gets; "
            "run this in a folder that holds it, or name one with --working-dir"
        )
    if given is None and folder in (Path.home(), Path(folder.anchor)):
        raise InputError(
            f"the working dir would be all of {folder}; put the configuration into a folder of its own, or name one "
            "with --working-dir"
        )
    return folder


def _is_clone(folder: Path) -> bool:
    return (folder / "pipeline" / "__main__.py").is_file() and (folder / "actors" / "cluster.py").is_file()


def _refuse_intruders(folder: Path) -> None:
    """Raise InputError where the job, which starts in this folder, would import another package by a name of ours."""
    for name in OURS:
        for other in (folder / name / "__init__.py", folder / f"{name}.py"):
            if other.is_file():
                raise InputError(
                    f"{other} would take the place of InstructMill's own package {name!r} in the job; put the "
                    "configuration into a folder without it, and name that with --working-dir"
                )


def _lies_in(path: str, folder: Path) -> bool:
    """Whether a path is one in `folder`, links not followed: they are sent as what they lead to."""
    return Path(os.path.abspath(path)).is_relative_to(os.path.abspath(folder))


def _stays_inside(path: str) -> bool:
    """Whether a relative path stays in the folder it starts in, whatever that is called: a job's has another name."""
    return os.path.normpath(path).split(os.sep)[0] != ".."


def _check_run_folder(config: Config) -> Iterator[str]:
    if config.out is None:
        raise InputError("the run folder is not named: set `out` in the configuration, or give --out s3://bucket/run")
    folder = folder_at(config.out)
    if folder.local is None:
        return
    if not folder.local.is_absolute():
        raise InputError(
            f"the run folder {config.out} is relative, and the job's working dir goes away with the job; name "
            "s3://bucket/run, or an absolute path on a disk that the head node keeps"
        )
    yield (
        f"the run folder {config.out} is on the head node, and a disk of that node alone is gone with it; "
        "s3://bucket/run stays, as does a disk that is shared"
    )


def _check_models(config: Config, folder: Path | None) -> Iterator[str]:
    """Model folders by a relative path: the job starts in what is sent, so they must be in it. Raises InputError."""
    for key, path in _models(config):
        if path.startswith(("/", "~", "shipped:")):
            continue
        here = Path(path).exists()
        sent = folder is not None and _stays_inside(path) and (folder / path).exists()
        if not (here or sent or path.startswith(("./", "../")) or path.count("/") > 1):
            continue  # a name on the hub
        if not sent:
            what = "a folder here" if here else "no name on the hub"
            raise InputError(
                f"{key} = {path!r} is {what}, and not in what the job gets; name a folder that every node has by its "
                "whole path, or move it into the working dir"
            )
        yield (
            f"{key} = {path!r} goes to every node with the working dir, unless its .gitignore or .rayignore names it"
        )


def _models(config: Config) -> Iterator[tuple[str, str]]:
    """The models and adapters that engines load, under their keys."""
    for name, engine in (("engine", config.engine), ("judge", config.judge)):
        if engine is None or engine.kind != "vllm":
            continue
        if engine.model is not None:
            yield f"{name}.model", engine.model
        modules = engine.vllm.get("lora_modules")
        for module in modules if isinstance(modules, list) else []:
            if isinstance(module, dict) and isinstance(module.get("path"), str):
                yield f"{name}.vllm.lora_modules", module["path"]


def _check_inputs(config: Config, folder: Path | None) -> Iterator[str]:
    """Read what the run reads, as far as it is sent. Raises InputError; says what only the job can look at."""
    elsewhere = []
    for key, path in _paths(config):
        if path.startswith("shipped:"):
            continue
        if "://" in path or path.startswith(("dataset:", "/", "~")):
            elsewhere.append(f"{key} = {path}")
        elif folder is None or not _stays_inside(path):
            raise InputError(
                f"{key} = {path!r} lies outside of what the job gets; move it into the working dir, or name a place "
                "that the head node can read"
            )
    if elsewhere:
        yield f"not looked at here, but by the job: {', '.join(elsewhere)}"
        return
    if config.engine.kind == "vllm" and config.engine.style is None and config.prompts != type(config.prompts)():
        return  # whether prompt files fit a style cannot be told without the model
    from pipeline.plan import make_plan

    engines = {"engine": _unloaded(config.engine), "judge": config.judge and _unloaded(config.judge)}
    with contextlib.chdir(folder) if folder else contextlib.nullcontext():
        make_plan(config.model_copy(update=engines))


def _paths(config: Config) -> Iterator[tuple[str, str]]:
    """Every path that the driver reads, under its key."""
    if config.recipe != "curate":
        yield "seeds", config.seeds
    for name, path in config.prompts:
        if path is not None:
            yield f"prompts.{name}", path
    if config.corpus.source is not None:
        yield "corpus.source", config.corpus.source
    for path in config.pool.sources:
        yield "pool.from", path
    if config.candidates is not None:
        yield "candidates", config.candidates


def _unloaded(engine: EngineSettings) -> EngineSettings:
    """The same engine for a plan that looks at no model."""
    style = "chat" if engine.kind == "openai" and engine.style is None else engine.style
    nothing: dict[str, Any] = {"model": None, "system": None, "chat_template_kwargs": {}, "vllm": {}}
    return engine.model_copy(update={"kind": "scripted", "style": style, **nothing})


def _holds_more(folder: Path, bound: int) -> bool:
    """Whether a folder's files are more than so many bytes, what Ray leaves out by itself aside."""
    size = 0
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if name not in LEFT_OUT]
        for name in files:
            with contextlib.suppress(OSError):
                size += os.stat(os.path.join(parent, name)).st_size
        if size > bound:
            return True
    return False
