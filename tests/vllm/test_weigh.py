"""Weighed requests on real vLLM: a digit for every pair, and what the model itself gave each digit.

Nothing here depends on what the model has learned: the reference is the same model in transformers.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from string import Template
from typing import Any

import pytest
import pytest_asyncio

from actors import cluster
from actors.engine_pool import EnginePool
from pipeline.endpoint import OpenAIEngine
from pipeline.engine_settings import EngineSettings
from pipeline.errors import ContentFault
from pipeline.prompting import shipped_text
from pipeline.records import Completion, Message, Prompt, Request, RequestKey, Sampling, Stage
from pipeline.seeds import parse_seeds
from tests.chat_models import make_adapter
from tests.vllm.server import KEY, VARIABLE

pytestmark = pytest.mark.asyncio(loop_scope="session")

DIGITS = ("1", "2", "3", "4", "5")
LEAD = "Score:"
STEP = Sampling(1, 0.0, 1.0, 0, 0.0, 0.0, 0.0, 1.0, ())
# After most of these the model would rather go on with something else than with a score.
ODD = tuple(f"{text}\n{LEAD}" for text in ("Task: Write a list of three fruits.", "", "Label: cold\nIn", "x" * 50))


def pairs() -> tuple[str, ...]:
    """The demo's prompts for a score, of a few shipped seeds."""
    template = Template(shipped_text("demo/curation.txt").rstrip("\n"))
    seeds = parse_seeds(shipped_text("seeds.jsonl"), "seeds.jsonl")
    shown = [(seed.instruction, seed.instances[0].output) for seed in seeds[:20]]
    return tuple(template.substitute(instruction=instruction, output=output) for instruction, output in shown)


def weighed(prompt: Prompt, unit: int = 0, *, base: bool = False, lead: str = LEAD) -> Request:
    """A request for a score."""
    return Request(RequestKey(unit, Stage.CURATION), prompt, STEP, DIGITS, weigh=True, lead=lead, base=base)


async def ask(engine: Any, prompts: Sequence[Prompt], **values: Any) -> list[Completion]:
    """All at once, beside requests for text, which share their batches."""
    free = Request(RequestKey(0, Stage.INSTANCES), "Task: Write", Sampling(9, 1.0, 1.0, 0, 0.0, 0.0, 0.0, 1.0, ()))
    others = [asyncio.create_task(engine.generate(free)) for _ in range(4)]
    answers = await asyncio.gather(*(engine.generate(weighed(each, n, **values)) for n, each in enumerate(prompts)))
    assert all(not other.probabilities for other in await asyncio.gather(*others))
    return list(answers)


def reference(folder: Path, token_ids: Sequence[list[int]], digits: Sequence[str] = DIGITS) -> list[tuple[float, ...]]:
    """What the model gives each digit's token after these tokens, of all that could follow."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    wanted = [tokenizer.encode(digit, add_special_tokens=False) for digit in digits]
    assert all(len(each) == 1 for each in wanted)
    with torch.inference_mode():
        rows = [model(torch.tensor([ids])).logits[0, -1].softmax(0) for ids in token_ids]
    return [tuple(float(row[token]) for (token,) in wanted) for row in rows]


def encode(folder: Path, texts: Sequence[str], *, special: bool = True) -> list[list[int]]:
    """The tokens of texts."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    return [tokenizer.encode(text, add_special_tokens=special) for text in texts]


def same(answers: Sequence[Completion], expected: Sequence[tuple[float, ...]], **tolerance: float) -> bool:
    """Whether all probabilities are these, within a tolerance (`rel` or `abs`)."""
    return all(
        one == pytest.approx(other, **tolerance)
        for one, other in zip([answer.probabilities for answer in answers], expected, strict=True)
    )


@pytest.fixture(scope="module")
def one_engine(vllm_settings: EngineSettings, chat_model: Path) -> EngineSettings:
    """One engine with the embedded model and a chat template, in float32 so that numbers can be compared."""
    options = {**vllm_settings.vllm, "dtype": "float32"}
    return vllm_settings.model_copy(update={"model": str(chat_model), "count": 1, "vllm": options})


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def pool(
    ray_session: None, one_engine: EngineSettings, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[EnginePool]:
    """That engine with a LoRA adapter, which requests with `base` are asked without."""
    adapter = make_adapter(tmp_path_factory.mktemp("adapter") / "a")
    options = {**one_engine.vllm, "lora_modules": [{"name": "x", "path": str(adapter)}]}
    made = cluster.engine_pool(one_engine.model_copy(update={"vllm": options}))
    await made.start()
    yield made
    await made.close()


async def test_a_score_always_parses(pool: EnginePool) -> None:
    """Each answer is one of the digits, whole, in one token: the most probable one."""
    answers = await ask(pool, (*pairs(), *ODD))
    for answer in answers:
        assert answer.text in DIGITS
        assert (answer.finish_reason, answer.completion_tokens) == ("stop", 1)
        assert answer.probabilities[DIGITS.index(answer.text)] == max(answer.probabilities)


async def test_probabilities_are_from_before_the_constraint(pool: EnginePool, chat_model: Path) -> None:
    """They are the model's own of all that could follow, and so the mass of the five is under 1."""
    prompts = (*pairs(), *ODD)
    answers = await ask(pool, prompts, base=True)
    spaced = [f" {digit}" for digit in DIGITS]

    assert same(answers, reference(chat_model, encode(chat_model, prompts), spaced), rel=0.01)
    masses = [sum(answer.probabilities) for answer in answers]
    assert max(masses) < 1.0001
    assert min(masses) < 0.98


async def test_a_chats_answer_begins_with_the_lead(pool: EnginePool, chat_model: Path) -> None:
    """The rendered chat and then the lead are what the digit comes after."""
    turns = [(Message("user", text.removesuffix(LEAD)),) for text in pairs()]
    answers = await ask(pool, turns, base=True)
    rendered = encode(chat_model, [f"<|end|>{text}" for text in pairs()], special=False)

    assert [answer.prompt_tokens for answer in answers] == [len(ids) for ids in rendered]
    assert same(answers, reference(chat_model, rendered, [f" {digit}" for digit in DIGITS]), rel=0.01)


async def test_base_is_the_model_without_its_adapter(pool: EnginePool) -> None:
    """The same pairs get other probabilities with the adapter, and requests of both kinds share their batches."""
    with_adapter, base = await asyncio.gather(ask(pool, pairs()), ask(pool, pairs(), base=True))
    assert not same(with_adapter, [answer.probabilities for answer in base], abs=0.05)


async def test_what_is_no_single_token_is_refused(pool: EnginePool) -> None:
    """Choices that cannot be weighed in one step end that request in a sentence, each time; others go on."""
    long = Request(RequestKey(0, Stage.CURATION), "", STEP, ("excellent beyond words", "bad"), weigh=True, lead=LEAD)
    for _ in range(2):
        with pytest.raises(ContentFault, match="excellent beyond words, bad as one token after 'Score:'"):
            await pool.generate(long)
    assert (await ask(pool, pairs()[:1]))[0].text in DIGITS


@pytest.mark.slow
async def test_a_model_whose_digits_have_no_space(
    ray_session: None, one_engine: EngineSettings, tmp_path: Path, chat_model: Path
) -> None:
    """Where a space is a token of its own, as in Llama 3 and Qwen, the lead ends in it, and the digit stands alone."""
    folder = split_digits(chat_model, tmp_path / "split")
    made = cluster.engine_pool(one_engine.model_copy(update={"model": str(folder)}))
    try:
        await made.start()
        answers = await ask(made, pairs())
        turns = await ask(made, [(Message("user", text.removesuffix(LEAD)),) for text in pairs()])
    finally:
        await made.close()
    ids = encode(folder, [f"{text} " for text in pairs()])
    expected = reference(folder, ids)

    assert ids[0][-1:] == encode(folder, [" "], special=False)[0]
    assert {answer.text for answer in answers} <= set(DIGITS)
    assert same(answers, expected, rel=0.01)
    assert same(turns, expected, rel=0.01)


def split_digits(model: Path, folder: Path) -> Path:
    """A copy of a model whose tokenizer never joins a digit with anything."""
    import shutil

    from tokenizers import Tokenizer
    from tokenizers.pre_tokenizers import Digits
    from tokenizers.pre_tokenizers import Sequence as Both

    shutil.copytree(model, folder)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.pre_tokenizer = Both([Digits(individual_digits=True), tokenizer.pre_tokenizer])
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


@pytest.mark.parametrize("style", ["completion", "chat"])
async def test_a_server_tells_what_an_actor_does(
    vllm_server: tuple[str, str], pool: EnginePool, monkeypatch: pytest.MonkeyPatch, style: str
) -> None:
    """Over HTTP a pair gets the probabilities of the actor, but for what bfloat16 rounds, in either style."""
    monkeypatch.setenv(VARIABLE, KEY)
    url, model = vllm_server
    own = {"base_url": url, "api_key_env": VARIABLE, "concurrency": 16}
    engine = OpenAIEngine(
        EngineSettings.model_validate({"kind": "openai", "model": model, "style": style, "openai": own})
    )
    prompts: Sequence[Prompt] = pairs() if style == "completion" else [(Message("user", text),) for text in pairs()]
    try:
        server = await engine.start(weighs=True)
        served = await ask(engine, prompts, lead=LEAD if style == "completion" else "")
    finally:
        await engine.close()
    acted = await ask(pool, pairs(), base=True)

    assert server.top == 20
    assert str(server).endswith("token probabilities of the first 20")
    assert same(served, [answer.probabilities for answer in acted], abs=0.05)
