"""What can be known before a model loads: prompts against the context, the window against the target."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pipeline.config import Config
from pipeline.errors import InputError
from pipeline.models import context_length, model_file
from pipeline.runs import Plan, read_manifest, refuse_other_configuration

ITEMS_PER_PROMPT = 7  # at most: the list goes on from the ninth item, and stops before the sixteenth


def check_plan(plan: Plan, folder: Path | None) -> Iterator[str]:
    """One line for each thing looked at, the run folder where one is named. Raises InputError at the first fault."""
    config = plan.config
    classification = sum(seed.is_classification for seed in plan.seeds)
    yield f"configuration: run {plan.run_name}, recipe {config.recipe}, fingerprint {plan.fingerprint[:8]}"
    yield f"seeds: {len(plan.seeds)} from {config.seeds}, {classification} of them classification"
    yield from (f"prompt {template.name}: {template.hash}" for template in plan.recipe.templates)
    yield check_folder(plan, folder) if folder else "run folder: not named; `run` needs `out` or --out DIR"
    if config.engine.kind != "scripted":
        revision = plan.model["revision"] or "unknown (the hub was not reached)"
        yield f"model: {plan.model['name']}, revision {revision}, licence {plan.model['licence']}"
    yield from check_context(plan)
    yield from describe_window(config, plan.window)


def check_folder(plan: Plan, folder: Path) -> str:
    """Raise InputError when the run folder cannot be written or holds another configuration's run."""
    manifest = read_manifest(folder)
    refuse_other_configuration(folder, manifest, plan)
    for place in (folder, *folder.parents):
        if place.is_dir():
            probe = place / ".instructmill-probe"
            try:
                probe.touch(exist_ok=True)
                probe.unlink()
            except OSError as error:
                raise InputError(f"{folder}: the run folder cannot be written ({error.strerror}: {place})") from None
            break
        if place.exists():
            raise InputError(f"{folder}: the run folder cannot be written: {place} is not a folder")
    return f"run folder: {folder}, {'goes on with the run in it' if manifest else 'new'}"


def check_context(plan: Plan) -> Iterator[str]:
    """Count the longest prompt of each stage against the model's context.

    Raises InputError naming the prompt and its tokens. Says so where the tokenizer's file or the library that reads it
    is not at hand.
    """
    engine = plan.config.engine
    if engine.kind == "scripted" or engine.model is None:
        return
    context = context_length(engine, plan.model["revision"])
    if context is None:
        yield "context: not checked (its length is not known before the model loads)"
        return
    tokenizer_file = model_file(engine, plan.model["revision"], "tokenizer.json")
    try:
        from tokenizers import Tokenizer
    except ImportError:
        yield "context: not checked (the package `tokenizers` is not installed)"
        return
    if tokenizer_file is None:
        yield "context: not checked (no tokenizer.json of the model at hand)"
        return
    try:
        tokenizer = Tokenizer.from_file(str(tokenizer_file))
    except Exception as error:  # noqa: BLE001 -- the library raises nothing narrower for a file it cannot read
        raise InputError(f"{tokenizer_file}: not a tokenizer that can be read ({error})") from None
    for name, prompt, answer in _longest_prompts(plan):
        tokens = len(tokenizer.encode(prompt).ids)
        if tokens + answer > context:
            raise InputError(
                f"prompt {name}: its longest form has {tokens} tokens, which with {answer} for the answer is more than "
                f"the context of {context}; show fewer demonstrations, lower max_tokens, or raise "
                "engine.vllm.max_model_len"
            )
        yield f"context: prompt {name} at most {tokens} tokens and {answer} for the answer, of {context}"


def _longest_prompts(plan: Plan) -> Iterator[tuple[str, str, int]]:
    """Each stage's prompt with the longest seeds in it, and the most tokens its answer may have."""
    config, recipe = plan.config, plan.recipe
    by_length = sorted((seed.instruction for seed in plan.seeds), key=len, reverse=True)
    longest = by_length[0]
    yield (
        recipe.bootstrap.name,
        recipe.bootstrap_prompt(by_length[: config.bootstrap.demonstrations]),
        config.bootstrap.sampling.max_tokens,
    )
    yield "classification", recipe.classification_prompt(longest), config.classification.sampling.max_tokens
    answer = config.instances.sampling.max_tokens
    yield "instance_output_first", recipe.instance_prompt(longest, is_classification=True), answer
    yield "instance_input_first", recipe.instance_prompt(longest, is_classification=False), answer


def describe_window(config: Config, window: int) -> Iterator[str]:
    """How stale prompts are, the share of the run that sees seeds only, and how many engines it can feed."""
    share = min(1.0, window * ITEMS_PER_PROMPT / config.target)
    yield f"window: {window} units; the first {window} see seeds only, at most {share:.0%} of the run"
    slots, count = config.engine.slots, config.engine.count
    if window < 4 * slots * count:
        yield (
            f"  it keeps {window / (4 * slots):.1f} of {count} engine(s) full (each holds {slots} requests): they may "
            f"idle, which keeps the demonstrations fresh; window = {4 * slots * count} would fill them"
        )
