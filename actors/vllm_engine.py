"""One vLLM engine in one Ray actor, on GPUs or on the CPU.

One thread of its own builds, feeds, steps and aborts the engine; the actor's async methods only queue commands and take
answers, so that a ping is answered while a model loads. The same add_request / step loop serves both devices:

* CPU: the engine's core runs inside that thread (`VLLM_ENABLE_V1_MULTIPROCESSING=0`), which gave about a third more
  tokens/s than `AsyncLLM` on two cores. vLLM binds OpenMP threads only in the worker processes of its "mp" executor,
  and `VLLM_CPU_OMP_THREADS_BIND` does nothing here: the thread takes its cores itself, and OpenMP's threads inherit
  them.
* GPU: the core keeps its own process (vLLM's default), so that tokenising and detokenising overlap with the device; a
  step then waits for the next output of the core. This path has not been run on a GPU, nor measured, by its authors.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import difflib
import math
import os
import queue
import re
import socket
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from actors.code import code_hash, node_id
from actors.gathering import Gathering
from actors.messages import Answer, Call, Failed, News, Pulse, Ready, Refused, StartFailure, Where
from actors.vllm_faults import Printed, start_failure
from actors.vllm_stats import EngineCounts, core_ended
from pipeline.adapters import adapter_rank, lora_adapter
from pipeline.chat import dropped_tokens, render
from pipeline.engine_settings import EngineSettings
from pipeline.records import Completion, Request
from pipeline.weighing import Step, find_step

if TYPE_CHECKING:
    from vllm import SamplingParams
    from vllm.logprobs import Logprob
    from vllm.lora.request import LoRARequest
    from vllm.v1.engine.llm_engine import LLMEngine

CLOSE_S = 10.0
LORA_RANKS = (16, 32, 64, 128, 256, 320, 512)  # what vLLM takes as max_lora_rank, from its default on


@dataclasses.dataclass(frozen=True, slots=True)
class _Command:
    calls: tuple[Call, ...] = ()
    withdrawn: tuple[int, ...] = ()
    close: bool = False


class VllmEngine:
    """One vLLM engine: `start`, then `exchange` for as long as it lives, then `close`.

    `model` is a folder or a name on the hub. A fault inside vLLM ends the process: only a fresh one is sound.
    """

    def __init__(self, model: str, settings: EngineSettings) -> None:
        self._model = model
        self._settings = settings
        self._commands: queue.SimpleQueue[_Command] = queue.SimpleQueue()
        self._gathering = Gathering(settings.max_num_seqs)
        self._thread: threading.Thread | None = None
        self._engine: LLMEngine | None = None
        self._ready = False
        self._unfinished = 0
        self._steps = 0
        self._adapter: LoRARequest | None = None  # the one for every request
        self._dropped: re.Pattern[str] | None = None  # what a chat's answer loses where vLLM is not to drop it
        self._thoughts: dict[int, str] = {}  # of each chat in the engine: the thinking tag that its prompt ends in
        self._weighed: dict[int, tuple[tuple[str, ...], Step]] = {}  # of each weighed request there: choices and step
        self._steps_after: dict[tuple[str, tuple[str, ...]], Step | str] = {}  # by lead and choices; or why not
        self._counts = EngineCounts()
        self._busy_s = 0.0

    async def place(self) -> Where:
        """Where this process runs. Needs no vLLM."""
        cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
        return Where(socket.gethostname(), tuple(sorted(cores)), node_id(), code_hash())

    async def start(self, cores: tuple[int, ...] = ()) -> Ready | StartFailure:
        """Load the model, on these cores if it runs on the CPU. To be called once."""
        loop = asyncio.get_running_loop()
        started: asyncio.Future[Ready | StartFailure] = loop.create_future()
        self._thread = threading.Thread(target=self._live, args=(loop, started, cores), name="engine", daemon=True)
        self._thread.start()
        return await started

    async def exchange(self, calls: tuple[Call, ...], withdrawn: tuple[int, ...], hold_s: float) -> News:
        """Take calls and withdrawals; return what finished since the last exchange, within `hold_s`. That may be
        nothing, so that new calls can come in."""
        if self._engine is not None and core_ended(self._engine):
            _die("vLLM's engine core has ended")
        if calls or withdrawn:
            self._gathering.take(calls, withdrawn)
            self._commands.put(_Command(calls, withdrawn))
        answers = await self._gathering.answers(hold_s)
        return News(answers, self._counts.gauges(self._busy_s))

    async def ping(self) -> Pulse:
        """Answered within milliseconds whatever the engine does."""
        return Pulse(os.getpid(), self._ready, self._unfinished, self._steps)

    async def close(self) -> None:
        """Stop stepping and let vLLM end its processes. Takes CLOSE_S at most; may follow a failed start."""
        if self._thread is None:
            return
        self._commands.put(_Command(close=True))
        await asyncio.to_thread(self._thread.join, CLOSE_S)

    def _live(
        self,
        loop: asyncio.AbstractEventLoop,
        started: asyncio.Future[Ready | StartFailure],
        cores: tuple[int, ...],
    ) -> None:
        began = time.monotonic()
        printed = Printed()
        try:
            engine, version = self._build(cores)
        except Exception as error:  # noqa: BLE001 - vLLM raises anything here; it becomes the answer to start()
            traceback.print_exc()
            failure = start_failure(error, self._settings, printed.text())
            loop.call_soon_threadsafe(started.set_result, failure)
            return
        self._engine, self._ready = engine, True
        ready = Ready(
            version=version,
            model=self._model,
            max_model_len=engine.model_config.max_model_len,
            pid=os.getpid(),
            host=socket.gethostname(),
            cores=cores,
            load_s=time.monotonic() - began,
        )
        loop.call_soon_threadsafe(started.set_result, ready)
        try:
            self._work(engine, loop)
            engine.engine_core.shutdown()
        except Exception:  # noqa: BLE001 - an engine that raised is in an unknown state: end the process
            _die(traceback.format_exc())

    def _build(self, cores: tuple[int, ...]) -> tuple[LLMEngine, str]:
        on_cpu = self._settings.num_gpus == 0
        os.environ.update(engine_environment(self._settings))
        if on_cpu and cores:
            os.sched_setaffinity(0, cores)  # this thread alone, and the OpenMP threads that it will start
        options = engine_options(self._model, self._settings)
        import vllm
        from vllm.engine.arg_utils import EngineArgs
        from vllm.lora.request import LoRARequest
        from vllm.v1.engine.llm_engine import LLMEngine

        known = {field.name for field in dataclasses.fields(EngineArgs)}
        for name in sorted(options.keys() - known):
            near = difflib.get_close_matches(name, known, n=1)
            raise TypeError(f"vLLM has no engine option {name!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
        engine = LLMEngine.from_engine_args(EngineArgs(**options))
        engine.logger_manager = self._counts
        self._dropped = dropped_tokens(engine.get_tokenizer())
        if adapter := lora_adapter(self._settings.vllm):
            self._adapter = LoRARequest(adapter[0], 1, adapter[1])
            try:
                engine.add_lora(self._adapter)
            except Exception as error:  # of any type; a fault of the start, and not of the first request
                raise ValueError(f"the LoRA adapter {adapter[1]} cannot be loaded: {error}") from error
        return engine, vllm.__version__

    def _work(self, engine: LLMEngine, loop: asyncio.AbstractEventLoop) -> None:
        """Feed and step the engine until told to close."""
        while True:
            ended: list[Answer] = []
            for command in self._waiting_commands():
                if command.close:
                    return
                if command.withdrawn:
                    engine.abort_request([str(call_id) for call_id in command.withdrawn])
                    for call_id in command.withdrawn:
                        self._thoughts.pop(call_id, None)
                        self._weighed.pop(call_id, None)
                ended += [refusal for call in command.calls if (refusal := self._add(engine, call))]
            self._unfinished = engine.get_num_unfinished_requests()
            if self._unfinished:
                began = time.monotonic()
                self._steps += 1
                ended += [self._answer(output) for output in engine.step()]
                self._busy_s += time.monotonic() - began
            if ended:
                loop.call_soon_threadsafe(self._gathering.put, ended)

    def _waiting_commands(self) -> Iterator[_Command]:
        """All commands that wait; where the engine has nothing to do, wait for the first."""
        if not self._unfinished:
            yield self._commands.get()
        with contextlib.suppress(queue.Empty):
            while True:
                yield self._commands.get_nowait()

    def _add(self, engine: LLMEngine, call: Call) -> Answer | None:
        """Hand a call to the engine; the answer where it does not take it."""
        from vllm.exceptions import GracefulHTTPError, VLLMClientError
        from vllm.inputs import TokensPrompt

        request = call.request
        try:
            step = self._step(engine, request) if request.weigh else None
            token_ids, thought = self._tokens(engine.get_tokenizer(), request, step)
        except ValueError as error:
            return Answer(call.id, Refused(str(error)))
        params = sampling_params(request, step)
        if thought is not None:
            params.skip_special_tokens = self._dropped is None
        try:
            prompt = TokensPrompt(prompt_token_ids=token_ids)
            adapter = None if request.base else self._adapter
            engine.add_request(str(call.id), prompt, params, lora_request=adapter)
        except VLLMClientError as error:
            return Answer(call.id, Refused(" ".join(str(error).split())))
        except GracefulHTTPError as error:  # a queue limit of the user's own options: later there is room
            return Answer(call.id, Failed(str(error)))
        if step is not None:
            self._weighed[call.id] = request.choices, step
        elif thought is not None:
            self._thoughts[call.id] = thought
        return None

    def _step(self, engine: LLMEngine, request: Request) -> Step:
        """How a weighed request's choices follow its lead, found once. Raises ValueError where they cannot."""
        if (mode := engine.model_config.logprobs_mode) != "raw_logprobs":
            raise ValueError(f"a weighed answer needs engine.vllm.logprobs_mode = 'raw_logprobs', and it is {mode!r}")
        key = request.lead, request.choices
        if key not in self._steps_after:
            try:
                self._steps_after[key] = find_step(engine.get_tokenizer(), *key)
            except ValueError as error:
                self._steps_after[key] = str(error)
        found = self._steps_after[key]
        if isinstance(found, str):
            raise ValueError(found)
        return found

    def _tokens(self, tokenizer: Any, request: Request, step: Step | None) -> tuple[list[int], str | None]:
        """A prompt's tokens, and the thinking tag that a chat's prompt ends in; None in completion style.

        Raises ValueError where the chat template refuses.
        """
        gap = step.gap if step else ""
        if isinstance(request.prompt, str):
            return tokenizer.encode(request.prompt + gap), None
        variables = self._settings.chat_template_kwargs
        lead = request.lead + gap if step else ""
        chat = render(tokenizer, request.prompt, variables, constrained=bool(request.choices), lead=lead)
        return chat.token_ids, chat.thought

    def _answer(self, output: Any) -> Answer:
        call_id, generated = int(output.request_id), output.outputs[0]
        thought = self._thoughts.pop(call_id, None)
        choices, step = self._weighed.pop(call_id, ((), None))
        if generated.finish_reason not in ("stop", "length"):
            return Answer(call_id, Failed(f"vLLM ended the request with {generated.finish_reason!r}"))
        text, ended = generated.text, generated.finish_reason
        probabilities: tuple[float, ...] = ()
        if step is not None:
            text, ended = choices[step.token_ids.index(generated.token_ids[0])], "stop"
            logprobs: Mapping[int, Logprob] = generated.logprobs[0]  # from before the constraint
            probabilities = tuple(math.exp(logprobs[token_id].logprob) for token_id in step.token_ids)
        elif thought is not None:
            text = thought + (self._dropped.sub("", text) if self._dropped else text)
        completion = Completion(
            text=text,
            finish_reason=ended,
            prompt_tokens=len(output.prompt_token_ids),
            completion_tokens=len(generated.token_ids),
            probabilities=probabilities,
        )
        return Answer(call_id, completion)


def engine_environment(settings: EngineSettings) -> dict[str, str]:
    """Environment of an engine's process, to be set before vLLM is imported. What the user has set stays as it is."""
    wanted = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "VLLM_LOGGING_LEVEL": "WARNING"}
    if settings.num_gpus == 0:
        wanted["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    environment = {name: value for name, value in wanted.items() if name not in os.environ}
    if settings.num_gpus == 0:
        # Ray leaves all GPUs visible to an actor without any, and sets OMP_NUM_THREADS by its own rule.
        environment |= {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": str(settings.num_cpus)}
    return environment


def engine_options(model: str, settings: EngineSettings) -> dict[str, Any]:
    """vLLM's engine options: ours, then the user's, which win.

    Raises ValueError for `lora_modules`, which is the server's option and stays out, where it names no adapter.
    """
    options: dict[str, Any] = {
        "model": model,
        "max_num_seqs": settings.max_num_seqs,
        "disable_log_stats": False,  # EngineCounts takes them
        "structured_outputs_config": {"backend": "xgrammar"},
    }
    if settings.revision is not None:
        options |= {"revision": settings.revision, "tokenizer_revision": settings.revision}
    if settings.num_gpus == 0:
        options |= {"enforce_eager": True, "kv_cache_memory_bytes": int(settings.cpu_kv_cache_gib * 2**30)}
    elif settings.num_gpus > 1:
        # Processes of this actor on its own GPUs; by itself vLLM would start Ray actors and look for more GPUs.
        options |= {"tensor_parallel_size": settings.num_gpus, "distributed_executor_backend": "mp"}
    if adapter := lora_adapter(settings.vllm):
        rank = adapter_rank(adapter[1])
        room = next((each for each in LORA_RANKS if each >= rank), LORA_RANKS[-1])
        options |= {"enable_lora": True, "max_lora_rank": room}
        if settings.num_gpus == 0:
            # vLLM's CPU kernels give a request without adapter the last slot's, when others beside it have one: that
            # slot has to stay empty (vllm-project/vllm#48421).
            options["max_loras"] = 2
    return options | {name: value for name, value in settings.vllm.items() if name != "lora_modules"}


def sampling_params(request: Request, step: Step | None = None) -> SamplingParams:
    """vLLM's parameters with every knob explicit, whatever the model's files say; `step` is a weighed request's.

    No seed: it kills the CPU engine where a prompt is prefilled in parts, and slows the GPU sampler.
    """
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams

    sampling = request.sampling
    # Logprobs of given tokens are those from before `allowed_token_ids`; under a grammar they would be those after it.
    token_ids = list(step.token_ids) if step else None
    grammar = StructuredOutputsParams(choice=list(request.choices)) if request.choices and not step else None
    return SamplingParams(
        n=1,
        max_tokens=1 if step else sampling.max_tokens,
        min_tokens=0,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        min_p=sampling.min_p,
        presence_penalty=sampling.presence_penalty,
        frequency_penalty=sampling.frequency_penalty,
        repetition_penalty=sampling.repetition_penalty,
        stop=list(sampling.stop),
        include_stop_str_in_output=False,
        ignore_eos=False,
        skip_special_tokens=True,
        output_kind=RequestOutputKind.FINAL_ONLY,
        structured_outputs=grammar,
        allowed_token_ids=token_ids,
        logprob_token_ids=token_ids,
        logprobs=len(token_ids) if token_ids else None,  # as vLLM wants it beside logprob_token_ids
    )


def _die(why: str) -> None:
    """End this process at once: the pool sees a death, sends the requests elsewhere and replaces the engine."""
    print(f"engine process {os.getpid()} ends: {why}", file=sys.stderr, flush=True)
    os._exit(1)
