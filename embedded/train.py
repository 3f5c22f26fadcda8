"""Train the demo model: tokenizer, model and card, from the corpus alone.

`python -m embedded.train --steps 3600 --out embedded/model` trains from nothing; with `--start embedded/model` and a
course of the corpus it goes on from there. One pass: no document is seen twice, so the loss that is printed is that on
new documents.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor, nn
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from embedded.corpus import COURSES, DEMO_PROMPTS, SEEDS_FILE, STRESS, Corpus, Document, shipped_seeds
from pipeline.prompting import shipped_text

END = "<|end|>"
VOCABULARY = 3072
TOKENIZER_DOCUMENTS = 10_000
ROW_TOKENS = 1024
ROWS = 4
PEAK_RATE = 3e-3
SECOND_RATE = 1.5e-3
WARMUP_STEPS = 60
# Documents among which the next one for a row is chosen.
WAITING = 48


def make_tokenizer(seed: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE in which a digit, with the space before it, is always one token: the judge's " 4" is one step."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(" ?[0-9]"), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[AddedToken(END, special=True)],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    documents = islice(Corpus(seed, shipped_seeds()), TOKENIZER_DOCUMENTS)
    tokenizer.train_from_iterator((one.prompt + one.completion for one in documents), trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END, clean_up_tokenization_spaces=False)


def make_model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """An untrained Llama whose heads are of a size that vLLM's CPU attention takes."""
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=256,
        intermediate_size=768,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        head_dim=64,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=None,
        attn_implementation="sdpa",
    )
    return LlamaForCausalLM(config)


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of tokens with a weight each, the number of the document that each is from, and its place in there."""

    tokens: Tensor
    weights: Tensor
    owners: Tensor
    places: Tensor

    def mask(self) -> Tensor:
        """Who may look at whom: earlier tokens of the same document."""
        same = self.owners[:, :, None] == self.owners[:, None, :]
        return (same & torch.ones(ROW_TOKENS, ROW_TOKENS, dtype=torch.bool).tril())[:, None]


def _tokens(tokenizer: PreTrainedTokenizerFast, document: Document) -> tuple[list[int], list[float]]:
    # Prompt and completion are tokenised apart, because that is how they meet when the model is served.
    prompt = tokenizer.encode(document.prompt, add_special_tokens=False)
    completion = [*tokenizer.encode(document.completion, add_special_tokens=False), tokenizer.eos_token_id]
    weights = [float(document.learn_prompt)] * len(prompt) + [STRESS.get(document.stage, 1.0)] * len(completion)
    return prompt + completion, weights


def _row(waiting: list[tuple[list[int], list[float]]]) -> tuple[list[int], list[float], list[int], list[int]]:
    """Whole documents, the first that waits and then the longest that still fits; the rest of the row is empty."""
    tokens: list[int] = []
    weights: list[float] = []
    owners: list[int] = []
    places: list[int] = []
    chosen = 0
    while True:
        more_tokens, more_weights = waiting.pop(chosen)
        owners += [len(owners)] * len(more_tokens)
        places += range(len(more_tokens))
        tokens += more_tokens
        weights += more_weights
        left = ROW_TOKENS - len(tokens)
        fitting = [(len(one), number) for number, (one, _) in enumerate(waiting) if len(one) <= left]
        if not fitting:
            break
        chosen = max(fitting)[1]
    return tokens + [0] * left, weights + [0.0] * left, owners + [-1] * left, places + [0] * left


def batches(tokenizer: PreTrainedTokenizerFast, corpus: Corpus) -> Iterator[Rows]:
    """Rows of whole documents, packed; a document that is longer than a row is left out."""
    documents = (_tokens(tokenizer, document) for document in corpus)
    fitting = (one for one in documents if len(one[0]) <= ROW_TOKENS)
    waiting: list[tuple[list[int], list[float]]] = []
    while True:
        rows = []
        for _ in range(ROWS):
            waiting += islice(fitting, WAITING - len(waiting))
            rows.append(_row(waiting))
        yield Rows(*(torch.tensor(list(part)) for part in zip(*rows, strict=True)))


def rate(step: int, done: float) -> float:
    """Linear warm-up, then linear down to a fiftieth; `done` is the share of the training that is behind."""
    return min((step + 1) / WARMUP_STEPS, 1 - 0.98 * done)


def train(
    model: LlamaForCausalLM,
    rows: Iterator[Rows],
    steps: int,
    minutes: float,
    compiled: bool,
    peak: float = PEAK_RATE,
) -> list[float]:
    """Train in place and return the loss of each step; `minutes` may end it before `steps` do."""
    matrices = [weight for name, weight in model.named_parameters() if weight.ndim == 2 and "embed" not in name]
    others = [weight for name, weight in model.named_parameters() if weight.ndim != 2 or "embed" in name]
    # Muon learns the matrices from fewer tokens than AdamW does; it is not meant for embeddings and norms.
    optimizers = (
        torch.optim.Muon(matrices, lr=peak, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=peak, betas=(0.9, 0.95), weight_decay=0.0),
    )
    losses: list[float] = []
    started = time.monotonic()
    model.train()
    forward = torch.compile(model) if compiled else model
    for step, row in zip(range(steps), rows, strict=False):
        done = max(step / steps, (time.monotonic() - started) / (60 * minutes))
        if done >= 1:
            break
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = peak * rate(step, done)
        with torch.autocast("cpu", torch.bfloat16):
            logits = forward(input_ids=row.tokens, attention_mask=row.mask(), position_ids=row.places).logits
        each = nn.functional.cross_entropy(
            logits[:, :-1].flatten(0, 1).float(), row.tokens[:, 1:].flatten(), reduction="none"
        )
        wanted = row.weights[:, 1:].flatten()
        loss = (each * wanted).sum() / wanted.sum()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        losses.append(loss.item())
        if (step + 1) % 50 == 0:
            spent = time.monotonic() - started
            left = spent / (step + 1) * (steps - step - 1)
            speed = (step + 1) * row.tokens.numel() / spent
            mean = sum(losses[-50:]) / 50
            print(
                f"step {step + 1}/{steps}  loss {mean:.3f}  {speed:,.0f} tokens/s  {left / 60:.1f} min left", flush=True
            )
    return losses


def sha256(data: bytes) -> str:
    """The digest in hex, as the card holds it."""
    return hashlib.sha256(data).hexdigest()


def write_card(out: Path, start: Path | None, facts: dict[str, object]) -> None:
    """What was trained, on what, with which result; the test of the card compares the hashes with the files."""
    hashes = {
        f"model/{name}": sha256((out / name).read_bytes())
        for name in ("model.safetensors", "tokenizer.json", "config.json")
    }
    for name in (*(f"demo/{name}.txt" for name in DEMO_PROMPTS), SEEDS_FILE):
        hashes[f"prompts/{name}"] = sha256(shipped_text(name).encode())
    before = json.loads((start.parent / "card.json").read_text(encoding="utf-8"))["trainings"] if start else []
    card = {"parameters": facts.pop("parameters"), "trainings": [*before, facts], "sha256": hashes}
    (out.parent / "card.json").write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--start", type=Path, help="go on from this model, whose card is beside it")
    parser.add_argument("--course", choices=COURSES, default="self-instruct", help="which documents, how many of each")
    parser.add_argument("--steps", type=int, default=3600)
    parser.add_argument("--minutes", type=float, default=40.0, help="end by then, at whatever step")
    parser.add_argument("--rate", type=float, help=f"peak rate ({PEAK_RATE}; {SECOND_RATE} with --start)")
    parser.add_argument("--compile", action="store_true", help="torch.compile: faster, but needs a C++ compiler")
    parser.add_argument("--seed", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "model", help="the card is put beside it")
    return parser.parse_args()


def main() -> None:
    """Read the command line, train, save and write the card."""
    options = _options()
    start: Path | None = options.start
    started = time.monotonic()
    torch.manual_seed(options.seed)
    if start:
        tokenizer = PreTrainedTokenizerFast.from_pretrained(start)
        model = LlamaForCausalLM.from_pretrained(start, dtype=torch.float32, attn_implementation="sdpa")
    else:
        tokenizer = make_tokenizer(options.seed)
        model = make_model(tokenizer)
    parameters = sum(weight.numel() for weight in model.parameters())
    print(f"{parameters:,} parameters, {len(tokenizer)} tokens in the vocabulary", flush=True)
    corpus = Corpus(options.seed + 1, shipped_seeds(), options.course)
    peak = options.rate or (SECOND_RATE if start else PEAK_RATE)
    losses = train(model, batches(tokenizer, corpus), options.steps, options.minutes, options.compile, peak)
    options.out.mkdir(parents=True, exist_ok=True)
    model.generation_config = GenerationConfig(eos_token_id=tokenizer.eos_token_id, do_sample=True)
    model.to(torch.bfloat16).save_pretrained(options.out)
    tokenizer.model_max_length = model.config.max_position_embeddings
    tokenizer.save_pretrained(options.out)
    facts: dict[str, object] = {
        "parameters": parameters,
        "course": options.course,
        "steps": len(losses),
        "tokens": len(losses) * ROWS * ROW_TOKENS,
        "minutes": round((time.monotonic() - started) / 60, 1),
        "cores": len(os.sched_getaffinity(0)),
        "seed": options.seed,
        "compiled": options.compile,
        # The mean over the last hundred steps; no document was seen before, so it is the loss on new ones.
        "loss": round(sum(losses[-100:]) / len(losses[-100:]), 4),
    }
    write_card(options.out, start, facts)
    print(json.dumps(facts))


if __name__ == "__main__":
    main()
