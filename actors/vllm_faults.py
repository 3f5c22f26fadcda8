"""Why a vLLM engine could not start, in one sentence, and what would fit where memory is short.

An engine core in a process of its own tells its parent that it failed, and its cause to its log alone, which is this
process's: so that is read. What vLLM's words are is not stable, so all that knows them is here.
"""

from __future__ import annotations

import errno
import math
import os
import re
import socket
import stat

from actors.messages import StartFailure
from pipeline.engine_settings import EngineSettings

READ = 1 << 16  # bytes of the end of a log
ELSEWHERE = re.compile(r"Engine core initialization failed|failed due to an exception in a background process")
RAISED = re.compile(r"^(?:\(.*?\) )*(?:\w+\.)*\w*(?:Error|Exception): (.+)$", re.MULTILINE)  # the end of a traceback
CONTEXT = re.compile(
    r"max seq len \((\d+)\), \(([\d.]+) GiB KV cache is needed, which is larger than the available KV cache memory "
    r"\(([\d.]+) GiB\)\.(?: Based on the available memory, the estimated maximum model length is (\d+))?"
)
NO_CACHE = "No available memory for the cache blocks"
TAKEN = re.compile(
    r"Free memory on device \S+ \(([\d.]+)/([\d.]+) GiB\) on startup is less than .*?\(([\d.]+), ([\d.]+)"
)
WARMING = re.compile(r"CUDA out of memory occurred when warming up \w+ with")
FULL = re.compile(
    r"(?:CUDA|HIP) out of memory\. Tried to allocate \S+ \S+ GPU \d+ has a total capacity of ([\d.]+) GiB"
)

NO_WEIGHTS = re.compile(r"Cannot find any model weights")

# A hub or a disk in trouble, which may be better on another try or node.
PASSES = re.compile(
    r"couldn't connect|Too Many Requests|\b5\d\d Server Error|^(?:Connect|Read|Write|Pool)(?:Error|Timeout)"
)
PASSING = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ENOMEM, errno.ESTALE}


class Printed:
    """What this process, and those that it has started, print from now on, where that goes into files."""

    def __init__(self) -> None:
        self._from = {fd: os.fstat(fd).st_size for fd in (1, 2) if stat.S_ISREG(os.fstat(fd).st_mode)}

    def text(self) -> str:
        """The end of it."""
        parts = []
        for fd, start in self._from.items():
            try:
                with open(f"/proc/self/fd/{fd}", "rb") as log:
                    log.seek(max(start, os.fstat(fd).st_size - READ))
                    parts.append(log.read().decode(errors="replace"))
            except OSError:
                continue
        return "\n".join(parts)


def start_failure(error: BaseException, settings: EngineSettings, printed: str = "") -> StartFailure:
    """What to tell of an engine that raised this while it was built; `printed` is what its processes have said."""
    host = socket.gethostname()
    words = " ".join(str(error).split())
    if ELSEWHERE.search(words):
        words += " " + " ".join(printed.split())
    if short := _short_of_memory(words, settings):
        detail, configuration = short
        return StartFailure(f"{detail} (on {host})", configuration)
    if NO_WEIGHTS.search(words):
        mend = "put its weights (.safetensors) there, or name another in engine.model"
        return StartFailure(f"vLLM finds no weights of {settings.model} on {host}: {mend}", True)
    if isinstance(error, ModuleNotFoundError):
        return StartFailure(f"{host} has no module {error.name!r}: install instructmill[vllm] in its image", True)
    if ELSEWHERE.search(words):
        causes = [cause for cause in RAISED.findall(printed) if not ELSEWHERE.search(cause)]
        cause = f"vLLM's engine core failed: {_cut(causes[-1])}" if causes else _cut(str(error))
        return StartFailure(f"{cause} {_more(host)}", False)
    configuration = _is_configuration(error)
    detail = _cut(str(error) or type(error).__name__)
    # vLLM's words may point to what its own processes have printed.
    return StartFailure(detail if configuration else f"{detail} {_more(host)}", configuration)


def _short_of_memory(words: str, settings: EngineSettings) -> tuple[str, bool] | None:
    """Which memory is short and what would fit, and whether another try would end no better; None where none is."""
    on_cpu = settings.num_gpus == 0
    gpus = f"more GPUs per engine (engine.num_gpus = {max(settings.num_gpus, 1) * 2})"
    share = settings.vllm.get("gpu_memory_utilization", "0.92 unless set")
    if found := CONTEXT.search(words):
        length, needed, there, fits = found.groups()
        mend = [f"set engine.vllm.max_model_len = {fits}" if fits else "lower engine.vllm.max_model_len"]
        if on_cpu:
            mend.append(f"raise engine.cpu_kv_cache_gib to {math.ceil(float(needed) * 10) / 10:g}")
        else:
            mend += [f"raise engine.vllm.gpu_memory_utilization ({share})", f"give {gpus}"]
        return (
            f"one request of the model's {length} tokens needs {needed} GiB of KV cache, and {there} GiB are there "
            f"beside the weights: {_any_of(mend)}"
        ), True
    if NO_CACHE in words:
        mend = ["raise engine.cpu_kv_cache_gib"] if on_cpu else [f"raise engine.vllm.gpu_memory_utilization ({share})"]
        mend += (
            ["take a smaller or quantized model"] if on_cpu else [f"give {gpus}", "take a smaller or quantized model"]
        )
        return f"the model's weights leave no memory for a KV cache: {_any_of(mend)}", True
    if found := TAKEN.search(words):
        free, whole, wanted_share, wanted = found.groups()
        return (
            f"of {whole} GiB of memory on the device {free} are free, and an engine asks for {wanted}: end what else "
            f"uses it, or lower engine.vllm.gpu_memory_utilization ({wanted_share})"
        ), False  # what uses it may be about to end
    if WARMING.search(words):
        mend = ["lower engine.vllm.max_num_seqs", f"lower engine.vllm.gpu_memory_utilization ({share})", f"give {gpus}"]
        return f"the GPU has no memory left for a full batch: {_any_of(mend)}", True
    if found := FULL.search(words):
        mend = [f"give {gpus}", "take a smaller or quantized model (engine.vllm.quantization)"]
        return f"the model does not fit on a GPU of {found[1]} GiB: {_any_of(mend)}", True
    return None


def _any_of(mend: list[str]) -> str:
    return ", ".join(mend[:-1]) + f", or {mend[-1]}" if len(mend) > 1 else mend[0]


def _more(host: str) -> str:
    return f"(more in the log of process {os.getpid()} on {host}, in Ray's session folder)"


def _is_configuration(error: BaseException) -> bool:
    """Is this a wrong option or model, rather than a machine or a network in trouble?"""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ConnectionError | TimeoutError | MemoryError) or PASSES.search(f"{cause!r}"):
            return False
        if isinstance(cause, OSError) and cause.errno in PASSING:
            return False
        cause = cause.__cause__ or cause.__context__
    return isinstance(error, ValueError | TypeError | OSError | ImportError | LookupError | NotImplementedError)


def _cut(text: str) -> str:
    text = " ".join(text.split())
    text = text.split(" [type=")[0].split(" For further information")[0]  # pydantic's tail
    return text if len(text) <= 400 else text[:397] + "..."
