"""Chats on real vLLM in real Ray actors. Nothing here depends on what the model has learned beyond common words."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from actors import cluster
from actors.engine_pool import EnginePool
from pipeline.engine_settings import EngineSettings
from pipeline.errors import ContentFault
from pipeline.records import Message, Prompt, Reason, Request, RequestKey, Sampling, Stage
from tests.chat_models import make_model

pytestmark = pytest.mark.asyncio(loop_scope="session")

QUESTION = Message("user", "Is water wet?")
VARIABLES = {"date_string": "1 May"}


def request(prompt: Prompt, unit: int = 0, temperature: float = 0.0, choices: tuple[str, ...] = ()) -> Request:
    """A request of 60 tokens, greedy unless told otherwise."""
    sampling = Sampling(60, temperature, 1.0, 0, 0.0, 0.0, 0.0, 1.0, ())
    return Request(RequestKey(unit, Stage.OUTPUT), prompt, sampling, choices)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A model that always thinks, whose tags are special tokens and stand for common words; and one without system."""
    folder = tmp_path_factory.mktemp("models")
    thinker = make_model(folder / "always", "always", spoken={"</think>": "Ġthe", "<|user|>": "Ġa"})
    return {"always": thinker, "mistral": make_model(folder / "mistral", "mistral")}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def pools(
    ray_session: None, vllm_settings: EngineSettings, models: dict[str, Path]
) -> AsyncIterator[dict[str, EnginePool]]:
    """One engine for each of the models; they load side by side."""
    made = {}
    for name, folder in models.items():
        own = {"model": str(folder), "count": 1, "chat_template_kwargs": VARIABLES}
        made[name] = cluster.engine_pool(vllm_settings.model_copy(update=own))
    await asyncio.gather(*(pool.start() for pool in made.values()))
    yield made
    await asyncio.gather(*(pool.close() for pool in made.values()))


@pytest.mark.parametrize("name", ["always", "mistral"])
async def test_a_chat_is_sent_as_its_template_has_it(
    pools: dict[str, EnginePool], models: dict[str, Path], name: str
) -> None:
    """The engine counts the tokens that the template gives with the user's variables, and one beginning of the text."""
    from transformers import AutoTokenizer

    turns = (QUESTION, Message("assistant", "Yes."), Message("user", "Is fire?"))
    expected = AutoTokenizer.from_pretrained(models[name]).apply_chat_template(
        [{"role": turn.role, "content": turn.content} for turn in turns],
        tokenize=True,
        return_dict=False,
        add_generation_prompt=True,
        **VARIABLES,
    )
    assert len(expected) == (await pools[name].generate(request(turns))).prompt_tokens


@pytest.mark.parametrize("name", ["always", "mistral"])
async def test_a_given_choice_is_the_whole_answer(pools: dict[str, EnginePool], name: str) -> None:
    """At any temperature the text is one of the choices, from a model that always thinks as well."""
    calls = [pools[name].generate(request((QUESTION,), unit, 1.0, ("Yes", "No"))) for unit in range(8)]
    assert {answer.text for answer in await asyncio.gather(*calls)} <= {"Yes", "No"}


async def test_a_thinking_block_is_whole(pools: dict[str, EnginePool]) -> None:
    """The opening tag of the prompt is restored, the closing one stays though it is special; others are dropped."""
    calls = [pools["always"].generate(request((QUESTION,), unit, 1.0)) for unit in range(8)]
    texts = [answer.text for answer in await asyncio.gather(*calls)]
    assert all(text.startswith("<think>") for text in texts)
    assert any("</think>" in text for text in texts)
    assert not any("<|user|>" in text for text in texts)


async def test_a_text_to_go_on_with_stays_one(pools: dict[str, EnginePool]) -> None:
    """In completion style no tag is restored, and special tokens are skipped, whatever the model's template."""
    calls = [pools["always"].generate(request("1. Write a poem.\n2.", unit, 1.0)) for unit in range(8)]
    texts = [answer.text for answer in await asyncio.gather(*calls)]
    assert not any("think>" in text for text in texts)


async def test_what_the_template_refuses_is_refused_while_others_go_on(pools: dict[str, EnginePool]) -> None:
    """A system message where there is none ends that request with the template's words; the one beside is answered."""
    other = asyncio.create_task(pools["mistral"].generate(request((QUESTION,), 1)))
    with pytest.raises(ContentFault, match="System role not supported") as caught:
        await pools["mistral"].generate(request((Message("system", "Be brief."), QUESTION)))
    assert caught.value.reason is Reason.REQUEST_REFUSED
    assert (await other).completion_tokens
