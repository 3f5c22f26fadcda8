"""What goes over the wire between the pool and an engine."""

from __future__ import annotations

import pickle
import random

from actors.messages import Answer, Call, Gauges, News, Packed
from pipeline.config import load_config
from pipeline.prompting import shipped_text
from pipeline.recipes.backtranslation_prompts import BacktranslationPrompts
from pipeline.records import Completion, Request, RequestKey, Segment, Stage
from pipeline.seeds import parse_seeds

INLINE = 100 * 1024  # bytes up to which Ray sends arguments along


def test_packed_calls_come_out_as_they_were() -> None:
    """Fifty prompts come out as they went in, and stay under what Ray sends along, which they are over as they are."""
    config = load_config("shipped:backtranslation.toml", ("corpus.source=x",))
    prompts = BacktranslationPrompts(config, parse_seeds(shipped_text("seeds.jsonl"), "seeds"))
    sampling = config.augmentation.sampling.resolved()
    texts = (" ".join(f"word{number * place}" for place in range(200)) for number in range(50))
    calls = tuple(
        Call(number, Request(key, prompts.augmentation(Segment("s", "o", None, text)), sampling))
        for number, text in enumerate(texts)
        if (key := RequestKey(number, Stage.AUGMENTATION))
    )
    packed = pickle.dumps(Packed(calls))

    assert pickle.loads(packed) == calls
    assert len(packed) < INLINE < len(pickle.dumps(calls))


def test_packed_answers_come_out_as_they_were() -> None:
    """So do eighty answers of prose, 1,900 characters each, and the engine's gauges with them."""
    words = shipped_text("seeds.jsonl").split()
    rng = random.Random(1)
    texts = (" ".join(rng.choices(words, k=330))[:1900] for _ in range(80))
    answers = tuple(Answer(number, Completion(text, "stop", 900, 430)) for number, text in enumerate(texts))
    news = News(answers, Gauges(running=128, waiting=9, kv_use=0.5))
    packed = pickle.dumps(news)

    assert pickle.loads(packed) == news
    assert len(packed) < INLINE < len(pickle.dumps(answers))
