"""Engines that cannot start: what vLLM says of it, and what a person is told."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest

from actors.vllm_faults import start_failure
from pipeline.engine_settings import EngineSettings

GIB = 1 << 30
CORE = RuntimeError("Engine core initialization failed. See root cause above. Failed core proc(s): {'EngineCore': 1}")


def on_gpus(num_gpus: int = 1, **vllm: object) -> EngineSettings:
    """An engine's settings."""
    return EngineSettings(model="m", num_gpus=num_gpus, vllm=vllm)


def raised(call, *arguments: object) -> Exception:
    """What vLLM's own code raises."""
    with pytest.raises(Exception) as caught:  # noqa: PT011 -- whatever it is
        call(*arguments)
    return caught.value


def cache_fault(there: float, needed: float, fits: int) -> Exception:
    """vLLM's refusal of a context of 40960 tokens."""
    from vllm.v1.core.kv_cache_utils import _check_enough_kv_cache_memory

    return raised(
        _check_enough_kv_cache_memory, int(there * GIB), lambda: int(needed * GIB), 40960, lambda memory: fits
    )


@pytest.mark.parametrize("apart", [False, True], ids=["in-process", "core-apart"])
def test_a_context_that_does_not_fit(apart) -> None:
    """The sentence has what is needed, what is there and the length that vLLM says would fit; also where a core in a
    process of its own has only printed it."""
    error = cache_fault(4.0, 5.63, 29120)
    printed = f"(EngineCore pid=7) Traceback (most recent call last):\n(EngineCore pid=7) ValueError: {error}\nbye\n"
    found = start_failure(CORE, on_gpus(), printed) if apart else start_failure(error, on_gpus())

    assert found.configuration
    assert found.detail.startswith(
        "one request of the model's 40960 tokens needs 5.63 GiB of KV cache, and 4.0 GiB are there beside the weights: "
        "set engine.vllm.max_model_len = 29120, raise engine.vllm.gpu_memory_utilization (0.92 unless set), or give "
        "more GPUs per engine (engine.num_gpus = 2) (on "
    )


def test_a_context_that_does_not_fit_a_cpu() -> None:
    """On the CPU the memory of the KV cache is a setting of ours, and its value that would do is named."""
    found = start_failure(cache_fault(1.0, 5.63, 0), on_gpus(0))

    assert found.configuration
    assert "lower engine.vllm.max_model_len, or raise engine.cpu_kv_cache_gib to 5.7 (on " in found.detail


def test_weights_that_leave_no_room() -> None:
    """Where nothing is left for a KV cache, a larger share of the GPU, more GPUs or a smaller model are named."""
    found = start_failure(cache_fault(-1.0, 1.0, 0), on_gpus(2, gpu_memory_utilization=0.5))

    assert found.configuration
    assert found.detail.startswith(
        "the model's weights leave no memory for a KV cache: raise engine.vllm.gpu_memory_utilization (0.5), give more "
        "GPUs per engine (engine.num_gpus = 4), or take a smaller or quantized model (on "
    )


def test_a_gpu_that_others_use() -> None:
    """Memory that others hold is told of with what is free, and is tried again: they may be about to end."""
    from vllm.v1.worker.utils import request_memory

    taken = SimpleNamespace(device_="cuda:0", free_memory=10 * GIB, total_memory=80 * GIB)
    found = start_failure(raised(request_memory, taken, SimpleNamespace(gpu_memory_utilization=0.9)), on_gpus())

    assert not found.configuration
    assert found.detail.startswith(
        "of 80.0 GiB of memory on the device 10.0 are free, and an engine asks for 72.0: end what else uses it, or "
        "lower engine.vllm.gpu_memory_utilization (0.9) (on "
    )


@pytest.mark.parametrize("apart", [False, True], ids=["in-process", "core-apart"])
def test_weights_that_do_not_fit(apart) -> None:
    """A model that is larger than the GPU ends the start with the GPU's size and what would fit."""
    from torch import OutOfMemoryError

    error = OutOfMemoryError(  # in PyTorch's words: no CPU raises it
        "CUDA out of memory. Tried to allocate 896.00 MiB. GPU 0 has a total capacity of 23.64 GiB of which 31.00 MiB "
        "is free. Including non-PyTorch memory, this process has 23.60 GiB memory in use."
    )
    printed = f"(EngineCore pid=7) torch.OutOfMemoryError: {error}\n"
    found = start_failure(CORE, on_gpus(), printed) if apart else start_failure(error, on_gpus())

    assert found.configuration
    assert found.detail.startswith(
        "the model does not fit on a GPU of 23.64 GiB: give more GPUs per engine (engine.num_gpus = 2), or take a "
        "smaller or quantized model (engine.vllm.quantization) (on "
    )


@pytest.mark.parametrize("apart", [False, True], ids=["in-process", "core-apart"])
def test_a_model_without_weights(apart) -> None:
    """A folder without weights has none on another try: it is the configuration's fault, and is named."""
    error = RuntimeError("Cannot find any model weights with `/models/empty`")
    printed = f"(EngineCore pid=7) RuntimeError: {error}\n"
    found = start_failure(CORE, on_gpus(), printed) if apart else start_failure(error, on_gpus())

    assert found.configuration
    assert re.match(r"vLLM finds no weights of .* on .*: put its weights \(\.safetensors\) there", found.detail)


def test_the_cause_of_a_core_that_fails_is_said() -> None:
    """Of what a core has printed, the end of its traceback is the cause; without any, vLLM's own words stay."""
    printed = (
        "(EngineCore pid=7) ERROR 11-21 15:00:00 [core.py:1510] Traceback (most recent call last):\n"
        '(EngineCore pid=7)   File "core.py", line 1, in run\n'
        "(EngineCore pid=7) vllm.errors.OddError: the moon is full\n"
        "Traceback (most recent call last):\nRuntimeError: Engine core initialization failed. See root cause above.\n"
    )

    assert start_failure(CORE, on_gpus(), printed).detail.startswith(
        "vLLM's engine core failed: the moon is full (more in the log of process "
    )
    assert start_failure(CORE, on_gpus()).detail.startswith("Engine core initialization failed. See root cause above.")
    assert not start_failure(CORE, on_gpus(), printed).configuration


@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "No space left on device"),
        OSError("We couldn't connect to 'https://hub' to load the files"),
        httpx.ReadTimeout("the hub is slow"),
        httpx.HTTPError("429 Client Error: Too Many Requests for url"),
        RuntimeError("a step failed"),
    ],
    ids=["disk", "hub-away", "hub-slow", "hub-busy", "other"],
)
def test_what_may_pass_is_tried_again(error) -> None:
    """A full disk or a hub in trouble, also as the cause of vLLM's own error, is no fault of the configuration."""
    outer = ValueError("the model cannot be read")
    outer.__cause__ = error

    assert not start_failure(error, on_gpus()).configuration
    assert not start_failure(outer, on_gpus()).configuration or isinstance(error, RuntimeError)
    assert start_failure(OSError("m is not a valid model identifier (404)"), on_gpus()).configuration


def test_a_node_without_vllm() -> None:
    """A module that is missing is named with the node that lacks it and what to install there."""
    error = raised(__import__, "no_such_module")
    found = start_failure(error, on_gpus())

    assert found.configuration
    assert found.detail.endswith(" has no module 'no_such_module': install instructmill[vllm] in its image")


START = """
import asyncio, dataclasses, json, sys
from actors.vllm_engine import VllmEngine
from pipeline.engine_settings import EngineSettings

if __name__ == "__main__":
    settings = EngineSettings(model=sys.argv[1], num_gpus=0, cpu_kv_cache_gib=0.001, vllm={"max_model_len": 1024})
    failure = asyncio.run(VllmEngine(sys.argv[1], settings).start())
    open(sys.argv[2], "w").write(json.dumps(dataclasses.asdict(failure)))
"""


@pytest.mark.slow
@pytest.mark.parametrize("apart", [False, True], ids=["in-process", "core-apart"])
def test_a_real_engine_that_does_not_fit(model_folder, tmp_path, apart) -> None:
    """A real engine with too little memory for its context says so in our sentence, its core apart or not."""
    (tmp_path / "start.py").write_text(START)
    environment = {**os.environ, "VLLM_ENABLE_V1_MULTIPROCESSING": str(int(apart))}
    environment["PYTHONPATH"] = str(Path(__file__).resolve().parents[2])
    command = [sys.executable, str(tmp_path / "start.py"), str(model_folder), str(tmp_path / "found.json")]
    with (tmp_path / "log").open("wb") as log:
        ended = subprocess.run(command, env=environment, stdout=log, stderr=log, timeout=200)
    assert ended.returncode == 0, (tmp_path / "log").read_text()[-3000:]
    found = json.loads((tmp_path / "found.json").read_text())

    assert found["configuration"]
    assert found["detail"].startswith("one request of the model's 1024 tokens needs ")
    assert "raise engine.cpu_kv_cache_gib to " in found["detail"]
