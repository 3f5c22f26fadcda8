"""Real vLLM on the CPU in real Ray actors. Nothing here depends on what the model has learned."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from actors import cluster
from actors.engine_pool import EnginePool
from actors.vllm_engine import engine_options
from pipeline.engine_settings import EngineSettings
from pipeline.errors import ContentFault, InputError
from pipeline.records import Completion, Reason, Request, RequestKey, Sampling, Stage

pytestmark = pytest.mark.asyncio(loop_scope="session")

PROMPT = "Task: Write a list of three fruits."


def request(
    prompt: str = PROMPT,
    unit: int = 0,
    max_tokens: int = 24,
    temperature: float = 0.0,
    stop: tuple[str, ...] = (),
    choices: tuple[str, ...] = (),
) -> Request:
    """A greedy request, unless told otherwise."""
    sampling = Sampling(max_tokens, temperature, 1.0, 0, 0.0, 0.0, 0.0, 1.0, stop)
    return Request(RequestKey(unit, Stage.INSTANCES), prompt, sampling, choices)


async def test_a_completion_has_its_text_and_true_token_counts(pool: EnginePool, model_folder: Path) -> None:
    """Tokens are counted as the model's own tokenizer counts them, and a greedy answer is the same twice."""
    from transformers import AutoTokenizer

    first, second = [await pool.generate(request(max_tokens=5)) for _ in range(2)]
    assert first == second
    assert (await pool.generate(request(temperature=1.0))).text
    assert first.prompt_tokens == len(AutoTokenizer.from_pretrained(model_folder).encode(PROMPT))
    assert first.completion_tokens == 5 if first.finish_reason == "length" else first.completion_tokens <= 5


async def test_choices_constrain_the_answer(pool: EnginePool) -> None:
    """At any temperature the text is one of the choices, to the letter, a leading space included."""
    choices = (" Yes, it is", " No")
    calls = [pool.generate(request(unit=n, temperature=1.0, choices=choices)) for n in range(16)]
    assert {answer.text for answer in await asyncio.gather(*calls)} <= set(choices)


async def test_stop_texts_end_an_answer_and_are_not_in_it(pool: EnginePool) -> None:
    """Sampled answers with the vowels as stop texts end as stopped, and hold no vowel."""
    calls = [pool.generate(request(unit=n, temperature=1.0, max_tokens=60, stop=tuple("aeiou"))) for n in range(8)]
    answers = await asyncio.gather(*calls)
    assert {answer.finish_reason for answer in answers} == {"stop"}
    assert not set("".join(answer.text for answer in answers)) & set("aeiou")


async def test_too_long_a_prompt_is_refused_while_others_go_on(pool: EnginePool) -> None:
    """One request over the context of 1024 tokens fails with vLLM's words; those beside it are answered."""
    others = [asyncio.create_task(pool.generate(request(unit=n))) for n in range(8)]
    with pytest.raises(ContentFault, match="1024 tokens") as caught:
        await pool.generate(request("word " * 2000, unit=3))
    assert caught.value.reason is Reason.REQUEST_REFUSED
    assert all(isinstance(answer, Completion) for answer in await asyncio.gather(*others))


async def test_what_is_cancelled_is_aborted_in_the_engine(pool: EnginePool) -> None:
    """Two rounds of 240 tokens for each engine, cancelled in the first, end after a fraction of their steps."""
    endless = ("x1 q7 " * 100,)  # the one choice has more tokens than that, so that no answer ends early
    calls = [asyncio.create_task(pool.generate(request(unit=n, max_tokens=240, choices=endless))) for n in range(40)]
    async with asyncio.timeout(60):
        while not all([(await handle.ping()).unfinished for handle in pool.handles]):
            await asyncio.sleep(0)
    before = [(await handle.ping()).steps for handle in pool.handles]
    for call in calls:
        call.cancel()
    async with asyncio.timeout(30):
        while any([(await handle.ping()).unfinished for handle in pool.handles]):
            await asyncio.sleep(0)
    after = [(await handle.ping()).steps for handle in pool.handles]
    assert all(now - then < 240 for then, now in zip(before, after, strict=True))
    assert await pool.generate(request())


async def test_two_engines_on_disjoint_cores_both_serve(pool: EnginePool) -> None:
    """Each engine holds a core that the other does not, and both answer."""
    before = [engine.answered for engine in pool.stats().engines]
    await asyncio.gather(*(pool.generate(request(unit=n)) for n in range(32)))
    after = [engine.answered for engine in pool.stats().engines]
    assert all(now > then for then, now in zip(before, after, strict=True))
    one, two = (set(ready.cores) for ready in pool.ready)
    assert len(one) == len(two) == 1
    assert not one & two


async def test_a_killed_engine_is_replaced_and_every_request_answered(pool: EnginePool) -> None:
    """With one of two engine processes killed in the middle, all requests are answered and a new process joins."""
    killed = pool.ready[0].pid
    calls = [asyncio.create_task(pool.generate(request(unit=n, max_tokens=100))) for n in range(60)]
    while not pool.stats().engines[0].in_flight:
        await asyncio.sleep(0)
    os.kill(killed, signal.SIGKILL)
    assert all(isinstance(answer, Completion) for answer in await asyncio.gather(*calls))
    async with asyncio.timeout(120):
        while pool.stats().ready < 2:
            await asyncio.sleep(0.05)
    assert pool.stats().deaths == 1
    assert killed not in [ready.pid for ready in pool.ready]


async def test_a_wrong_option_is_named_and_a_loading_engine_answers_pings(
    ray_session: None, vllm_settings: EngineSettings
) -> None:
    """A ping is answered while vLLM is imported; an option that it does not have ends the start in one sentence."""
    wrong = vllm_settings.model_copy(update={"count": 1, "vllm": {"max_model_lenght": 1024}})
    pool = cluster.engine_pool(wrong)
    try:
        start = asyncio.create_task(pool.start())
        async with asyncio.timeout(60):
            while pool.stats().engines[0].state != "loading":
                await asyncio.sleep(0.01)
        async with asyncio.timeout(2):
            assert not (await pool.handles[0].ping()).ready
        with pytest.raises(InputError, match="no engine option 'max_model_lenght'; did you mean 'max_model_len'"):
            await start
    finally:
        await pool.close()


@pytest.mark.slow
async def test_a_model_that_is_not_there_ends_the_start(
    ray_session: None, vllm_settings: EngineSettings, tmp_path: Path
) -> None:
    """A folder without a model is the configuration's fault, and its name is in the sentence."""
    pool = cluster.engine_pool(vllm_settings.model_copy(update={"count": 1, "model": str(tmp_path)}))
    try:
        with pytest.raises(InputError, match=str(tmp_path)):
            await pool.start()
    finally:
        await pool.close()


async def test_options_are_ours_unless_the_user_says_otherwise() -> None:
    """Several GPUs make a tensor-parallel engine of this actor's own processes; vLLM's options pass through and win."""
    options = engine_options(
        "m", EngineSettings(model="m", revision="r", num_gpus=4, vllm={"max_num_seqs": 8, "seed": 3})
    )
    assert (options["tensor_parallel_size"], options["distributed_executor_backend"]) == (4, "mp")
    assert (options["max_num_seqs"], options["seed"], options["revision"]) == (8, 3, "r")
    assert not options.keys() & {"trust_remote_code", "quantization", "enable_lora"}
    passed = {"quantization": "fp8", "trust_remote_code": True, "load_format": "dummy", "revision": "other"}
    assert passed.items() <= engine_options("m", EngineSettings(model="m", revision="r", vllm=passed)).items()
    on_cpu = engine_options("m", EngineSettings(model="m", num_gpus=0, vllm={"enforce_eager": False}))
    assert on_cpu["enforce_eager"] is False
    assert on_cpu["kv_cache_memory_bytes"] == 2**30
