"""What can be known before a model loads: prompts against the context, the window against the target."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from pipeline.chat import LEAST_FOR_A_THOUGHT, THINKING_SWITCHES, doubled_start
from pipeline.chat import render as render_chat
from pipeline.config import DEFAULT_TARGET, Config
from pipeline.curation import ONE_STEP
from pipeline.engine_settings import EngineSettings
from pipeline.errors import InputError
from pipeline.models import context_length, load_tokenizer, model_file, tokenizer_of
from pipeline.plan import Plan
from pipeline.recipes.backtranslation import Backtranslation
from pipeline.recipes.curate import Curate
from pipeline.recipes.self_instruct import SelfInstruct
from pipeline.records import Message, Prompt, Sampling
from pipeline.storage import Folder

SAMPLING_KEYS = {
    "bootstrap": "bootstrap.sampling",
    "bootstrap_topic": "bootstrap.sampling",
    "classification": "classification.sampling",
    "instance_output_first": "instances.sampling",
    "instance_input_first": "instances.sampling",
    "output": "instances.output_sampling",
    "augmentation": "augmentation.sampling",
    "backward": "augmentation.sampling",
    "curation_rationale": "curation.rationale_sampling",
}
ITEMS_PER_PROMPT = 8  # at most: a list goes on from the ninth item to before the sixteenth; a chat is asked for eight


def check_plan(plan: Plan, folder: Folder | None, *, goes_on: bool = False) -> Iterator[str]:
    """One line for each thing looked at, the run folder where one is named; `goes_on` with the run that it holds.

    Raises InputError at the first fault.
    """
    config = plan.config
    yield f"configuration: run {plan.run_name}, recipe {config.recipe}, fingerprint {plan.fingerprint[:8]}"
    yield from _describe_inputs(plan)
    yield from (f"prompt {template.name}: {template.hash}" for template in plan.recipe.templates)
    yield check_folder(folder, goes_on=goes_on) if folder else "run folder: not named; `run` needs `out` or --out DIR"
    yield f"style: {config.engine.style}: {plan.style_why}"
    for key, engine, model in plan.engines:
        what = "model" if key == "engine" else "judge"
        if engine.kind == "openai":
            yield f"{what}: {model['name']}, by its name at {engine.openai.base_url}"
        elif engine.kind == "vllm":
            revision = model["revision"] or "unknown (the hub was not reached)"
            yield f"{what}: {model['name']}, revision {revision}, licence {model['licence']}"
    yield from check_context(plan)
    yield from describe_window(config, plan.window)
    if config.recipe != "curate":
        yield describe_novelty(config)


def _describe_inputs(plan: Plan) -> Iterator[str]:
    """The seeds, the corpus and other runs that a plan reads."""
    config = plan.config
    if plan.seeds:
        classification = sum(seed.is_classification for seed in plan.seeds)
        yield f"seeds: {len(plan.seeds)} from {config.seeds}, {classification} of them classification"
    if plan.corpus is not None:
        others = ", ".join(f"{count} {ending or 'without ending'}" for ending, count in plan.corpus.passed_over.items())
        yield (
            f"corpus: {len(plan.corpus.files):,} files, {plan.corpus.bytes / 1e6:,.1f} MB, from {config.corpus.source}"
            + (f"; passed over: {others}" if others else "")
        )
    for run in plan.imports:
        yield f"pool: starts with what {run.folder} had admitted in {len(run.commits) - 1} commits"
    if plan.candidates is not None:
        yield f"candidates: the scored pairs of {plan.candidates.folder}"


def check_folder(folder: Folder, *, goes_on: bool = False) -> str:
    """What the run folder is. Raises InputError when it cannot be written."""
    folder.require_writable()
    return f"run folder: {folder}, {'goes on with the run in it' if goes_on else 'new'}"


def check_context(plan: Plan) -> Iterator[str]:
    """Render each stage's prompt in its longest form with real demonstrations, and count it against the context.

    Raises InputError naming the prompt and its tokens, and where a model that thinks has too few of them. Says so where
    what is needed to count is not at hand; warns of a doubled beginning-of-text token.
    """
    for key, engine, model in plan.engines:
        if engine.kind == "openai":
            yield "context: not counted here; each prompt is tried at the endpoint"
        elif engine.kind == "vllm":
            yield from _check_context_of(plan, key, engine, model["revision"])


def _check_context_of(plan: Plan, key: str, engine: EngineSettings, revision: str | None) -> Iterator[str]:
    """The prompts that one engine group is asked."""
    try:
        render = _chat_renderer(engine, revision) if engine.style == "chat" else _completion_renderer(engine, revision)
    except LookupError as missing:
        yield f"context: not checked ({missing.args[0]})"
        return
    context = context_length(engine, revision)
    for name, prompt, sampling in longest_prompts(plan, key):
        rendered = render(prompt)
        tokens, answer = len(rendered.token_ids), sampling.max_tokens
        if context is not None and tokens + answer > context:
            less = f"lower {SAMPLING_KEYS[name]}.max_tokens, " if name in SAMPLING_KEYS else ""
            shorter = "" if plan.config.recipe == "self-instruct" else "or shorter texts (corpus.max_characters), "
            raise InputError(
                f"prompt {name}: its longest form has {tokens} tokens, which with {answer} for the answer is more than "
                f"the context of {context}; show fewer demonstrations, {shorter}{less}"
                f"or raise {key}.vllm.max_model_len"
            )
        yield f"context: prompt {name} at most {tokens} tokens and {answer} for the answer, of {context or 'unknown'}"
        if rendered.doubled_start:
            yield f"  warning: prompt {name} begins with two beginning-of-text tokens"
        if rendered.thinks and name not in ("classification", "curation"):
            if answer < LEAST_FOR_A_THOUGHT:
                raise InputError(
                    f"prompt {name}: the model thinks before it answers, and max_tokens = {answer} will not hold its "
                    f"thought; raise it (to {4 * LEAST_FOR_A_THOUGHT} or more), or turn thinking off with "
                    f"{key}.chat_template_kwargs"
                )
            yield f"  the model thinks first: its thought and its answer share the {answer} tokens"


class _Rendered(NamedTuple):
    """A prompt as the model gets it."""

    token_ids: list[int]
    doubled_start: bool
    thinks: bool


def _completion_renderer(engine: EngineSettings, revision: str | None) -> Callable[[Any], _Rendered]:
    """Tokens of a text by the model's own tokenizer. Raises LookupError where it is not at hand."""
    file = model_file(tokenizer_of(engine), revision, "tokenizer.json")
    try:
        from tokenizers import Tokenizer
    except ImportError:
        raise LookupError("the package `tokenizers` is not installed") from None
    if file is None:
        raise LookupError("no tokenizer.json of the model at hand")
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # noqa: BLE001 -- the library raises nothing narrower for a file it cannot read
        raise InputError(f"{file}: not a tokenizer that can be read ({error})") from None

    def render(prompt: str) -> _Rendered:
        encoded = tokenizer.encode(prompt)
        doubled = encoded.ids[:1] == encoded.ids[1:2] and encoded.special_tokens_mask[:1] == [1]
        return _Rendered(encoded.ids, doubled, thinks=False)

    return render


def _chat_renderer(engine: EngineSettings, revision: str | None) -> Callable[[Any], _Rendered]:
    """Tokens of a chat by the model's own template. Raises LookupError where it is not at hand."""
    try:
        tokenizer = load_tokenizer(engine, revision)
    except ImportError:
        raise LookupError("the package `transformers` is not installed") from None
    if tokenizer is None:
        raise LookupError("no tokenizer of the model at hand")

    def render(prompt: tuple[Message, ...]) -> _Rendered:
        try:
            chat = render_chat(tokenizer, prompt, engine.chat_template_kwargs)
        except ValueError as error:
            raise InputError(f"engine.model = {engine.model!r}: {error}") from None
        asked = any(engine.chat_template_kwargs.get(switch) for switch in THINKING_SWITCHES)
        return _Rendered(chat.token_ids, doubled_start(chat.token_ids, tokenizer), bool(chat.thought) or asked)

    return render


def longest_prompts(plan: Plan, key: str = "engine") -> Iterator[tuple[str, Prompt, Sampling]]:
    """The name of each prompt that one engine group is asked, the prompt in its longest form, and how its answer is
    sampled. `key` is the group's table: "engine" or "judge"."""
    recipe = plan.recipe
    if isinstance(recipe, SelfInstruct):
        yield from _longest_of_self_instruct(plan, recipe)
    if isinstance(recipe, Backtranslation) and key == "engine":
        sampling = plan.config.augmentation.sampling.resolved()
        yield recipe.prompts.augmentation_template.name, recipe.prompts.longest, sampling
    if isinstance(recipe, Backtranslation | Curate) and key == plan.judges:
        *reason, score = recipe.judge.prompts.longest(plan.candidates.longest() if plan.candidates else None)
        for prompt in reason:
            yield "curation_rationale", prompt, plan.config.curation.rationale_sampling.resolved()
        yield "curation", score, ONE_STEP


def _longest_of_self_instruct(plan: Plan, recipe: SelfInstruct) -> Iterator[tuple[str, Prompt, Sampling]]:
    """With the longest seeds in them."""
    config, prompts = plan.config, recipe.prompts
    by_length = sorted((seed.instruction for seed in plan.seeds), key=len, reverse=True)
    longest = by_length[0]
    yield (
        prompts.bootstrap_template.name,
        prompts.bootstrap(by_length[: config.bootstrap.demonstrations]),
        config.bootstrap.sampling.resolved(),
    )
    yield "classification", prompts.classification(longest), config.classification.sampling.resolved()
    sampling = config.instances.sampling.resolved()
    yield "instance_output_first", prompts.instances(longest, is_classification=True), sampling
    yield "instance_input_first", prompts.instances(longest, is_classification=False), sampling
    if prompts.writes_outputs:
        input = max((one.input for seed in plan.seeds for one in seed.instances), key=len)
        yield "output", prompts.output(longest, input), config.instances.output_sampling.resolved()


def describe_window(config: Config, window: int) -> Iterator[str]:
    """How stale prompts are, the share of the run that sees seeds only, and how many engines it can feed."""
    if config.recipe == "self-instruct":
        share = min(1.0, window * ITEMS_PER_PROMPT / (config.resolved_target or DEFAULT_TARGET))
        yield f"window: {window} units; the first {window} see seeds only, at most {share:.0%} of the run"
    else:
        yield f"window: {window} units under way at most"
    slots, count = config.engine.slots, config.engine.most
    if config.recipe == "self-instruct" and window < slots * count:
        full = f"{window / slots:.1f} of {count} engine(s)"
        yield (
            f"  a unit begins with one request, so {full} are full at the start (each "
            f"holds {slots}); later it makes many, and the smaller the window the fresher the demonstrations"
        )
    if config.recipe != "self-instruct" and window < 4 * slots * count:
        yield (
            f"  it keeps {window / (4 * slots):.1f} of {count} engine(s) full (each holds {slots} requests): they may "
            f"idle; window = {4 * slots * count} would fill them"
        )


def describe_novelty(config: Config) -> str:
    """Where the nearest neighbours are looked for."""
    if not config.novelty.enabled:
        return "novelty: off; near copies are admitted"
    workers = config.resolved_novelty_workers
    where = f"{workers} worker(s) of one CPU on the Ray cluster" if workers else "in the driver's process, no workers"
    return f"novelty: {where}; threshold {config.novelty.threshold:g}, nearest down to {config.novelty.lowest:g}"
