"""The Ray cluster: reaching it, what room it has, and engines and novelty workers as actors on it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import sysconfig
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import ray
from ray.exceptions import ActorDiedError, RayActorError, RayError, RayTaskError

from actors.code import code_hash
from actors.engine_pool import EnginePool
from actors.messages import Call, EngineLost, News, Packed, Pulse, Ready, StartFailure, Where
from actors.nodes import Resources, autoscaled_nodes, draining_nodes, node_of, resources
from actors.novelty_pool import NoveltyPool, NoveltyWorker, Scores, WorkerLost
from actors.reach import require_cluster
from actors.scripted_engine import ScriptedActor
from actors.vllm_engine import VllmEngine
from pipeline.adapters import lora_adapter
from pipeline.console import clock
from pipeline.engine_settings import EngineSettings
from pipeline.errors import InputError, RunStopped
from pipeline.models import model_path

T = TypeVar("T")

CLOSE_S = 5.0
SETTLE_S = 3.0  # what Ray counts as free follows a moment after a process has ended
# What the driver's environment may tell engine processes on other machines too.
PASSED_ON = ("VLLM_CPU_CI_ENV",)
# Parts of Ray's words for deaths that no request can have caused: the machine went, Ray or we took the process away.
BLAMELESS = ("its node has died", "node was terminated", "running low on memory", "ray.kill")
ANSI = re.compile(r"\x1b\[[0-9;]*m")
AT = re.compile(r"\bip=([^\s,)]+)")
MISSING = re.compile(r"No module named '([\w.]+)'")  # in what Ray says of an actor that was never made
# A novelty worker is one thread on one core. Ray shows all GPUs to an actor that asked for none.
WORKER_ENVIRONMENT = {
    "CUDA_VISIBLE_DEVICES": "",
    **dict.fromkeys(("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"),
}


def connect(num_cpus: int | None = None) -> bool:
    """Join the cluster that RAY_ADDRESS names, or start a local one that ends with this process.

    `num_cpus` is for a local one only (all cores unless given). Ray's token authentication is left as it is set. Raises
    InputError where the cluster cannot be reached. False, and nothing done, where this process is connected already.
    """
    if ray.is_initialized():
        return False
    address = os.environ.get("RAY_ADDRESS")
    if address:
        require_cluster(address)
    try:
        if address:
            ray.init(address=address, logging_level="WARNING", log_to_driver=False)
            return True
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        # Ray turns token authentication on for a local cluster, as it should, and warns of it each time.
        logging.getLogger("ray._private.authentication").setLevel(logging.ERROR)
        ray.init(
            "local",
            num_cpus=num_cpus,
            include_dashboard=False,
            logging_level="WARNING",
            log_to_driver=False,
            runtime_env={"env_vars": _import_path()},
        )
    except Exception as error:  # of any type: Ray raises a plain one too
        where = f"the Ray cluster at RAY_ADDRESS={address}" if address else "a local Ray cluster"
        cause = " ".join(str(error).split("Traceback")[0].split())
        if "ersion mismatch" in cause:
            raise InputError(
                f"{where} has other versions of Ray or Python than this process: {cause[:400]}; use one image for all"
            ) from error
        if "timed out during startup" in cause:
            raise RunStopped(f"{where} did not start in time: is this machine busy? Run it again") from error
        raise InputError(f"cannot reach {where}: {cause[:400]}") from error
    return True


def _import_path() -> dict[str, str]:
    """What lets local workers import this package where it is used from a checkout and not installed.

    A worker has the installed packages, and of the driver's path only its script's folder and its working folder.
    """
    checkout = str(Path(__file__).resolve().parents[1])
    if checkout in (sysconfig.get_path("purelib"), sysconfig.get_path("platlib")):
        return {}
    return {"PYTHONPATH": os.pathsep.join(filter(None, [checkout, os.environ.get("PYTHONPATH")]))}


def disconnect() -> None:
    """Leave the cluster; a local one ends."""
    ray.shutdown()
    _CORES.release_all()  # no engine of this process is left, one whose pool was never closed included


def require_room(
    engines: Sequence[EngineSettings | None], workers: int = 0, tell: Callable[[str], None] = lambda _: None
) -> Resources:
    """Raise InputError unless the cluster has room for what is asked for, RunStopped unless it has it free now.

    That is so many novelty workers of one CPU each, and the least number of engines: those of `[engine]`, then those of
    `[judge]`; None stands for ones that do not run on Ray. Where that number is 0 an autoscaler brings what is needed,
    novelty workers' room too: then it must know nodes that one engine fits on. Where none tells of its nodes, `tell` is
    told that the engines will wait.
    """
    have = resources()
    if any(settings is not None and settings.least == 0 for settings in engines):
        workers = 0
    cpus, gpus, asked, lower = float(workers), 0.0, [], []
    for name, settings in zip(("engine", "judge"), engines, strict=False):
        if settings is None:
            continue
        fit = sum(node.engines(settings) for node in have.nodes)
        each = f"{settings.num_cpus} CPUs" + (f" and {settings.num_gpus} GPUs" if settings.num_gpus else "")
        each += "".join(f" and {amount:g} {resource}" for resource, amount in settings.resources.items())
        key, least = f"{name}.{'count' if settings.min is None else 'min'}", settings.least
        asked.append(f"{key} asks for {least} engines of {each}, each on one machine")
        coming = autoscaled_nodes() if not least and not fit else ()
        if coming is None:
            limit = clock(settings.room_timeout_s)
            tell(
                f"no node of the cluster holds an engine of {each}, and no autoscaler says that it would bring one: "
                f"{name}.min = 0 waits for it, up to {limit}"
            )
        elif not (least or fit or any(node.engines(settings) for node in coming)):
            raise InputError(
                f"{name}.min = 0 leaves it to an autoscaler to bring nodes, and no engine of {each} fits on any that "
                f"it may bring, nor on those there are ({have}); lower {name}.num_gpus or {name}.num_cpus, or add "
                "such nodes"
            )
        if fit < least:
            mend = f"lower {name}.num_gpus or {name}.num_cpus" if fit == 0 else f"set {key} to {fit} or less"
            room = f"and the cluster has room for {fit}: it has {have}; {mend}, or add machines"
            raise InputError(f"{asked[-1]}, {room}")
        lower.append(key)
        cpus, gpus = cpus + least * settings.num_cpus, gpus + least * settings.num_gpus
    if workers:
        asked.append(f"{workers} novelty worker(s) need 1 CPU each")
        lower.append("the number of workers (novelty.workers)")
    what, mend = ", and ".join(asked), "lower " + " or ".join(lower)
    if have.cpus < cpus or have.gpus < gpus:
        raise InputError(f"{what}, and the cluster has no room for that: it has {have}; {mend}, or add machines")
    until = time.monotonic() + SETTLE_S
    while (short := have.free_cpus < cpus or have.free_gpus < gpus) and time.monotonic() < until:
        time.sleep(0.1)
        have = resources()
    if short:
        raise RunStopped(f"{what}, and others use what the cluster has: {have}; wait for them, or {mend}")
    return have


def engine_pool(settings: EngineSettings, note: Callable[..., None] | None = None) -> EnginePool:
    """The pool of engines that the settings ask for, on the connected cluster. Nothing starts yet."""
    if settings.kind == "scripted":
        return actor_pool(ScriptedActor, (settings,), settings, note=note)
    model = model_path(settings.model or "")
    if adapter := lora_adapter(settings.vllm):  # whole, as a relative path means another folder on another machine
        modules = [{"name": adapter[0], "path": adapter[1]}]
        settings = settings.model_copy(update={"vllm": {**settings.vllm, "lora_modules": modules}})
    return actor_pool(VllmEngine, (model, settings), settings, note=note)


def actor_pool(engine: type[Any], arguments: tuple[Any, ...], settings: EngineSettings, **limits: Any) -> EnginePool:
    """A pool of actors of any class with VllmEngine's methods; `limits` go to EnginePool.

    A node that lacks this code, or has another, gets no second engine: the rest of them serve.
    """
    passed_on = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    remote = ray.remote(engine)
    options = {
        "num_cpus": settings.num_cpus,
        "num_gpus": settings.num_gpus,
        "resources": settings.resources or None,
        "max_concurrency": 16,  # one exchange, pings, and a close
        "max_restarts": 0,  # the pool replaces what has died: a restarted actor would have no model
        "max_task_retries": 0,
        "runtime_env": {"env_vars": passed_on},
    }
    watched = ("start_timeout_s", "room_timeout_s", "silent_timeout_s", "stall_timeout_s")
    limits = {**{name: getattr(settings, name) for name in watched}, **limits}
    limits = {"code": code_hash(), "turn": _turn, "draining": draining_nodes, "batch": settings.batch, **limits}
    strange = _Strange(limits["code"], limits.get("note"))

    def spawn(index: int) -> ActorEngine:
        actor = remote.options(**options, **strange.avoided()).remote(*arguments)
        return ActorEngine(actor, _CORES, settings.num_cpus if settings.num_gpus == 0 else 0, strange)

    return EnginePool(spawn, engines=settings.most, slots=settings.slots, **limits)


def novelty_pool(
    tokenizer: str,
    floor: float,
    workers: int,
    note: Callable[..., None] | None = None,
    *,
    worker: type[Any] = NoveltyWorker,
    **limits: Any,
) -> NoveltyPool:
    """A scorer over so many workers on the connected cluster, for scores of `floor` or above. Nothing starts yet.

    `worker` is the class of their actors, with NoveltyWorker's methods; `limits` go to NoveltyPool.
    """
    remote = ray.remote(worker).options(
        num_cpus=1,
        num_gpus=0,
        max_restarts=0,  # the pool replaces what has died: a restarted actor would hold no texts
        max_task_retries=0,
        runtime_env={"env_vars": WORKER_ENVIRONMENT},
    )

    def spawn(first: int) -> ActorWorker:
        return ActorWorker(remote.remote(first, workers, tokenizer, floor))

    return NoveltyPool(spawn, workers, note=note, **limits)


# Whose turn it is to load on each node, of all pools of an event loop.
_TURNS: WeakKeyDictionary[asyncio.AbstractEventLoop, defaultdict[str, asyncio.Lock]] = WeakKeyDictionary()


def _turn(node: str) -> asyncio.Lock:
    """Engines on one node load one after the other: together they fight over its memory and its disk, and the files of
    a model from the hub come to the node with the first of them."""
    return _TURNS.setdefault(asyncio.get_running_loop(), defaultdict(asyncio.Lock))[node]


class _Strange:
    """The nodes that cannot run this code, as a pool's engines have found them; they are tried once each."""

    def __init__(self, code: str | None, note: Callable[..., None] | None) -> None:
        self._code = code
        self._note = note
        self._found: dict[str, str] = {}  # what is wrong with each node
        self._told: set[str] = set()

    def look_at(self, where: Where) -> None:
        """Remember the node of an engine that runs by other code."""
        if self._code is not None and where.code != self._code:
            self.add(where.node, f"{where.host} runs other code of InstructMill")

    def add(self, node: str, why: str) -> None:
        if node:
            self._found[node] = why

    def avoided(self) -> dict[str, Any]:
        """Ray's option for an actor that is not to come to any of them; told of each of them once."""
        for node in self._found.keys() - self._told:
            self._told.add(node)
            if self._note:
                self._note("node_given_up", node=node, why=self._found[node])
        return {"label_selector": {"ray.io/node-id": f"!in({','.join(sorted(self._found))})"}} if self._found else {}


class _Cores:
    """Which cores of which host this process's CPU engines hold, of all its pools, so that no two share one."""

    def __init__(self) -> None:
        self._held: dict[ActorEngine, tuple[str, tuple[int, ...]]] = {}

    def take(self, engine: ActorEngine, where: Where, count: int) -> tuple[int, ...]:
        """`count` free cores of this place; none where they do not suffice, and the system then decides."""
        taken = {core for host, cores in self._held.values() if host == where.host for core in cores}
        free = tuple(core for core in where.cores if core not in taken)[:count]
        if len(free) < count:
            return ()
        self._held[engine] = (where.host, free)
        return free

    def release(self, engine: ActorEngine) -> None:
        self._held.pop(engine, None)

    def release_all(self) -> None:
        self._held.clear()


_CORES = _Cores()


class ActorEngine:
    """One engine actor as the pool sees it (`EngineHandle`). Ray's errors become EngineLost here."""

    def __init__(self, actor: Any, cores: _Cores, cores_wanted: int, strange: _Strange) -> None:
        self._strange = strange
        self._actor = actor
        self._cores = cores
        self._cores_wanted = cores_wanted
        self._place: Where | None = None

    async def place(self) -> Where:
        placed: Awaitable[Where] = self._actor.place.remote()
        try:
            self._place = place = await _answered(placed)
        except EngineLost as lost:
            if lost.configuration:
                self._strange.add(node_of(self._actor._actor_id.hex()), lost.detail)
            raise
        self._strange.look_at(place)
        return place

    async def start(self) -> Ready | StartFailure:
        cores: tuple[int, ...] = ()
        if self._place is not None and self._cores_wanted:
            cores = self._cores.take(self, self._place, self._cores_wanted)
        return await _answered(self._actor.start.remote(cores))

    async def exchange(self, calls: tuple[Call, ...], withdrawn: tuple[int, ...], hold_s: float) -> News:
        return await _answered(self._actor.exchange.remote(Packed(calls), withdrawn, hold_s))

    async def ping(self) -> Pulse:
        """How the process is, also while it loads. For a person or a test: the pool does not need it."""
        return await _answered(self._actor.ping.remote())

    def kill(self) -> None:
        """End the process at once, as Ray does when it takes an actor away."""
        ray.kill(self._actor, no_restart=True)

    async def close(self, at_once: bool = False) -> None:
        try:
            if self._place is not None and not at_once:
                with contextlib.suppress(EngineLost, TimeoutError):
                    await asyncio.wait_for(_answered(self._actor.close.remote()), CLOSE_S)
        finally:
            if ray.is_initialized():
                self.kill()
            self._cores.release(self)


class ActorWorker:
    """One novelty worker's actor as its pool sees it (`WorkerHandle`). All of Ray's errors become WorkerLost here."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor

    async def place(self) -> None:
        await self._answer(self._actor.place.remote())

    async def nearest(self, held: int, new: Sequence[str], asked: Sequence[str], length: int) -> Scores:
        call: Awaitable[Scores] = self._actor.nearest.remote(held, new, asked, length)
        return await self._answer(call)

    async def _answer(self, call: Awaitable[T]) -> T:
        try:
            return await _answered(call)
        except EngineLost as lost:
            raise WorkerLost(lost.detail) from lost

    def kill(self) -> None:
        if ray.is_initialized():
            ray.kill(self._actor, no_restart=True)


async def _answered(reference: Awaitable[T]) -> T:
    """Await a call of an actor. Raises EngineLost where the actor is gone, out of reach or at fault in its own code."""
    try:
        return await reference
    except RayTaskError as error:
        raise EngineLost(f"a fault in its own code: {type(error.cause).__name__}: {error.cause}") from error
    except RayActorError as error:
        text = " ".join(ANSI.sub("", str(error)).split())
        if missing := MISSING.search(text):
            host = f"node {at[1]}" if (at := AT.search(text)) else "a node"
            raise EngineLost(
                f"{host} cannot import InstructMill (no module {missing[1]!r} there): install instructmill[vllm] in "
                "its image, or, where it has all but the package itself, take a clone along as the working dir",
                blameless=True,
                configuration=True,
            ) from error
        blameless = not isinstance(error, ActorDiedError) or error.preempted or any(word in text for word in BLAMELESS)
        raise EngineLost(text, blameless) from error
    except RayError as error:
        raise EngineLost(" ".join(str(error).split()), blameless=True) from error
