"""Jobs on a Ray cluster, over its dashboard: submit one, follow its log, learn how it ended.

This process does not join the cluster, so it needs no port of it but the dashboard's. Ray sends the token itself, where
RAY_AUTH_MODE=token.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import aiohttp
import ray
import requests
from ray.exceptions import AuthenticationError
from ray.job_submission import JobSubmissionClient

from actors.reach import REACH_S, refused
from pipeline.console import printable
from pipeline.errors import InputError, RunStopped
from pipeline.submit import PENDING, RUNNING, End, Job, already_there, job_commands, next_id

LOOK_S = 20.0  # while a log is silent, the job is looked at so often
LAST_S = 5.0  # how long the last lines of a log may take once the job has ended
ANSWER_S = 60.0  # for one answer; a working dir may be on its way meanwhile
CUT = (RuntimeError, OSError, aiohttp.ClientError)  # how Ray's client fails where an answer is none or a bad one

T = TypeVar("T")


class _Client(JobSubmissionClient):  # type: ignore[misc]  # Ray's has no types
    """Ray's client, which by itself waits for an answer without end."""

    def _do_request(self, *arguments: Any, **options: Any) -> Any:
        return super()._do_request(*arguments, **{"timeout": ANSWER_S, **options})


class Jobs:
    """The jobs of the cluster whose dashboard is at an address."""

    def __init__(self, address: str) -> None:
        """Raises InputError where there is no cluster, it does not take the token, or has another Ray than this one."""
        self.address = address
        for module in ("dashboard_sdk", "job.sdk"):  # each sets a level of its own
            logging.getLogger(f"ray.dashboard.modules.{module}").setLevel(logging.WARNING)
        try:
            requests.get(f"{address}/api/version", timeout=REACH_S)  # Ray's own client waits for minutes
            with _no_other_address():
                self._client = _Client(address)
        except AuthenticationError as error:
            raise refused(f"the cluster at {address}", str(error)) from None
        except (RuntimeError, OSError, KeyError, ValueError) as error:
            cause = (
                "nothing answers" if isinstance(error, ConnectionError | requests.ConnectionError) else _short(error)
            )
            raise InputError(
                f"no Ray cluster at {address} ({cause}); is it up, and is this the address of its dashboard, port 8265 "
                "unless set (through a tunnel or port-forward where it is not on this machine)?"
            ) from None
        theirs = getattr(self._client, "_server_ray_version", None)  # Ray has no public name for it
        if theirs and theirs.split(".")[:2] != ray.__version__.split(".")[:2]:
            raise InputError(
                f"the cluster at {address} has Ray {theirs}, and this machine has {ray.__version__}: use an image with "
                f"Ray {ray.__version__}, or install ray[default]=={theirs} here"
            )

    def submit(self, job: Job) -> str:
        """Submit a job, to run on the head node; returns its submission id.

        Raises RunStopped where a job of this run has not ended, InputError where the working dir cannot be sent.
        """
        there = self._asked(self._client.list_jobs)
        id = next_id(job.name, {one.submission_id: one.status for one in there if one.submission_id}, self.address)
        try:
            # No resources for the entrypoint: any would let the driver start on a worker, which may be a spot node.
            return str(
                self._client.submit_job(entrypoint=job.entrypoint, runtime_env=job.runtime_env, submission_id=id)
            )
        except (*CUT, ValueError) as error:
            if "exceeds the maximum size" in str(error):
                raise InputError(
                    f"the working dir {job.working_dir} is too large for Ray, which takes 512 MiB packed; name what is "
                    "not needed in its .rayignore, or another folder with --working-dir"
                ) from None
            if "already exists" in str(error):
                raise already_there(id, self.address) from None
            raise RunStopped(
                f"the cluster at {self.address} did not take the job ({_short(error)}); try again"
            ) from None

    def follow(self, id: str) -> End:
        """Print a job's log as it grows, until the job has ended; returns how.

        Raises RunStopped where that is interrupted or the connection is lost. The job goes on then.
        """
        follow, _, stop = job_commands(id, self.address)
        try:
            asyncio.run(self._follow(id))
            end = self.end(id)
        except KeyboardInterrupt:
            raise RunStopped(f"no longer following; job {id} goes on. Follow: `{follow}`. Stop: `{stop}`") from None
        except CUT as error:
            raise self._lost(id, _short(error)) from None
        if end.status in (PENDING, RUNNING):
            raise self._lost(id, "its log was cut off")
        return end

    def end(self, id: str) -> End:
        """How a job stands, or how it ended."""
        details = self._client.get_job_info(id)
        return End(str(details.status.value), details.driver_exit_code, details.error_type, details.message or "")

    async def _follow(self, id: str) -> None:
        log = asyncio.create_task(self._print_log(id))
        try:
            # A connection that has gone silently is found, and so is an end that the log does not tell.
            while not (await asyncio.wait({log}, timeout=LOOK_S))[0]:
                if (await asyncio.to_thread(self.end, id)).status not in (PENDING, RUNNING):
                    await asyncio.wait({log}, timeout=LAST_S)
                    break
            if log.done():
                await log
        finally:
            log.cancel()

    async def _print_log(self, id: str) -> None:
        async for lines in self._client.tail_job_logs(id):
            print(printable(lines), end="", flush=True)

    def _asked(self, call: Callable[[], T]) -> T:
        try:
            return call()
        except CUT as error:
            raise RunStopped(f"the cluster at {self.address} does not answer ({_short(error)}); try again") from None

    def _lost(self, id: str, cause: str) -> RunStopped:
        follow, status, _ = job_commands(id, self.address)
        return RunStopped(
            f"lost sight of job {id} at {self.address} ({cause}); it goes on unless its head node is gone: look with "
            f"`{status}`, follow with `{follow}`"
        )


@contextmanager
def _no_other_address() -> Iterator[None]:
    """Without the variables that would win over the address that Ray's client is given."""
    names = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")
    hidden = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(hidden)


def _short(error: BaseException) -> str:
    """The last line of an error, which is what a traceback ends with."""
    lines = [line.strip() for line in str(error).replace("\\n", "\n").splitlines() if line.strip(' ."')]
    return f"{lines[-1][:300].rstrip('.')}" if lines else type(error).__name__
