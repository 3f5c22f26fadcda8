"""Instruction backtranslation (arXiv 2308.06259): an instruction is written for a text, and the pair is scored.

One unit of work is one segment of the corpus and all that comes of it:

    segment -> instruction (self-augmentation) -> filters -> score (self-curation) -> gate -> row

An instruction passes the gate after its pair was scored, so that a pair that scores badly never blocks a better one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from pipeline.adapters import lora_adapter
from pipeline.config import Config
from pipeline.curation import Judge, Judgement
from pipeline.errors import ContentFault, InputError
from pipeline.filters import OwnFilter, Refusal, first_refusal, own_filter
from pipeline.gate import instruction_id
from pipeline.prompting import Template
from pipeline.recipes.backtranslation_prompts import BacktranslationPrompts
from pipeline.records import (
    Admitted,
    Candidate,
    Completion,
    Example,
    Reason,
    Reject,
    Request,
    RequestKey,
    Score,
    Seed,
    Segment,
    Source,
    Stage,
    UnitResult,
    Verdict,
)
from pipeline.unit import Admit, Generate, Unit, all_of

RECIPE_VERSION = 1
ROUND = 1  # of scoring; `curate` makes the later ones


class Backtranslation:
    """The method over one unit. `filters` are rules of one's own on an instruction, after ours; `judge` is the name in
    rows of the model that scores."""

    def __init__(self, config: Config, seeds: Sequence[Seed], filters: Sequence[OwnFilter], judge: str) -> None:
        """Raises InputError for a prompt, a seed file or engines that cannot serve this configuration."""
        self._config = config
        self._filters = tuple(map(own_filter, filters))
        self.prompts = BacktranslationPrompts(config, seeds)
        self.judge = Judge(config, judge, base=judged_by_base(config))

    @property
    def templates(self) -> tuple[Template, ...]:
        return (*self.prompts.templates, *self.judge.prompts.templates)

    async def run_unit(self, unit: Unit, generate: Generate, admit: Admit) -> UnitResult:
        """One segment. Raises ContentFault when no request for an instruction has an answer."""
        assert isinstance(unit.work, Segment)
        segment = unit.work
        # Self-augmentation (section 2.2): an instruction for the text.
        settings = self._config.augmentation
        prompt, sampling = self.prompts.augmentation(segment), settings.sampling.resolved()

        async def write(sample: int) -> Completion | ContentFault:
            key = RequestKey(unit.number, Stage.AUGMENTATION, candidate=sample)
            try:
                return await generate(Request(key, prompt, sampling))
            except ContentFault as fault:
                return fault

        answers = await all_of(write(sample) for sample in range(settings.n))
        faults = [answer for answer in answers if isinstance(answer, ContentFault)]
        if len(faults) == settings.n:
            raise faults[0]

        # Self-curation (section 2.3): a score for each pair; they do not wait for one another.
        pairs = await all_of(
            self._curated(unit, segment, sample, answer, generate) for sample, answer in enumerate(answers)
        )
        good = [pair for pair in pairs if isinstance(pair, Example)]
        verdicts = await admit([Candidate(unit.number, _sample(pair), pair.instruction) for pair in good])
        kept = [_near(pair, verdict) for pair, verdict in zip(good, verdicts, strict=True) if verdict.admitted]
        return UnitResult(
            unit.number,
            candidates=len(pairs),
            instances=len(kept),
            admitted=tuple(_admitted(pair) for pair in kept),
            examples=tuple(kept),
            rejects=(
                *(pair for pair in pairs if isinstance(pair, Reject)),
                *(_refused(pair, verdict) for pair, verdict in zip(good, verdicts, strict=True) if verdict.reason),
            ),
        )

    async def _curated(
        self, unit: Unit, segment: Segment, sample: int, answer: Completion | ContentFault, generate: Generate
    ) -> Example | Reject:
        """One pair, parsed, filtered and scored: a row, or the reject that it ends as."""
        fields: dict[str, Any] = {
            "unit": unit.number,
            "instruction_id": instruction_id(unit.run_name, unit.number, sample),
            "output": segment.text,
            "source": Source(segment.id, segment.origin),
            "prompt_hashes": self._hashes(self.prompts.augmentation_template),
        }
        if isinstance(answer, ContentFault):
            return Reject(
                stage=Stage.AUGMENTATION, reason=answer.reason, detail=answer.detail, text=answer.text, **fields
            )
        instruction = self.prompts.read_instruction(answer.text)
        fields |= {
            "instruction": instruction,
            "finish_reason": answer.finish_reason,
            "prompt_tokens": answer.prompt_tokens,
            "completion_tokens": answer.completion_tokens,
        }
        truncated = answer.finish_reason == "length"
        if refusal := self.prompts.refusal(instruction, segment, truncated=truncated) or self._own(instruction):
            return Reject(stage=Stage.FILTER, reason=refusal.reason, detail=refusal.detail, text=answer.text, **fields)
        fields["prompt_hashes"] += self._hashes(self.judge.prompts.template)
        key = RequestKey(unit.number, Stage.CURATION, candidate=sample)
        try:
            judged = await self.judge.judge(key, instruction, segment.text, generate, ROUND)
        except ContentFault as fault:
            return Reject(stage=Stage.CURATION, reason=fault.reason, detail=fault.detail, text=fault.text, **fields)
        fields |= score_fields(judged, ())
        if judged.reason is not None:
            return Reject(
                stage=Stage.CURATION, reason=judged.reason, detail=judged.detail, text=judged.rationale, **fields
            )
        return Example(
            id=f"{fields['instruction_id']}/0",
            input="",
            is_classification=None,
            parents=(),
            nearest_id=None,
            nearest_score=None,
            **fields,
        )

    def _own(self, instruction: str) -> Refusal | None:
        return first_refusal(self._filters, instruction)

    def _hashes(self, template: Template) -> tuple[str, ...]:
        return (f"{template.name}:{template.hash}",)


def score_fields(judged: Judgement, before: tuple[Score, ...]) -> dict[str, Any]:
    """The columns of a newest score; `before` are the scores that the pair had."""
    score = judged.score
    return {
        "score": score.score,
        "score_expected": score.expected,
        "score_mass": score.mass,
        "scores": (*before, score),
    }


def judged_by_base(config: Config) -> bool:
    """Whether the judge is the writer's engine without its adapter.

    Raises InputError where a fine-tuned backward model would have to judge, which it cannot.
    """
    if config.augmentation.mode != "backward" or config.judge is not None:
        return False
    try:
        adapter = lora_adapter(config.engine.vllm) if config.engine.kind == "vllm" else None
    except ValueError as error:
        raise InputError(str(error)) from None
    if adapter is None and config.engine.kind != "scripted":
        raise InputError(
            'augmentation.mode = "backward" and nothing is there to judge: a backward model only writes instructions; '
            "name a model in [judge], or the backward model as an adapter of engine.model in engine.vllm.lora_modules"
        )
    return adapter is not None


def _sample(pair: Example) -> int:
    return int(pair.instruction_id.rsplit("/", 1)[1])


def _near(pair: Example, verdict: Verdict) -> Example:
    if verdict.nearest is None:
        return pair
    return replace(pair, nearest_id=verdict.nearest.id, nearest_score=verdict.nearest.score)


def _admitted(pair: Example) -> Admitted:
    return Admitted(
        instruction_id=pair.instruction_id,
        instruction=pair.instruction,
        unit=pair.unit,
        parents=(),
        is_classification=None,
        nearest_id=pair.nearest_id,
        nearest_score=pair.nearest_score,
    )


def _refused(pair: Example, verdict: Verdict) -> Reject:
    """A pair whose score is good enough, and that the gate did not admit; it keeps its score."""
    assert verdict.reason is not None
    near = _near(pair, verdict)
    return Reject(
        unit=pair.unit,
        stage=Stage.NOVELTY if verdict.reason in (Reason.NOT_NOVEL, Reason.NO_TOKENS) else Stage.GATE,
        reason=verdict.reason,
        instruction_id=pair.instruction_id,
        instruction=pair.instruction,
        output=pair.output,
        nearest_id=near.nearest_id,
        nearest_score=near.nearest_score,
        prompt_hashes=pair.prompt_hashes,
        finish_reason=pair.finish_reason,
        prompt_tokens=pair.prompt_tokens,
        completion_tokens=pair.completion_tokens,
        score=pair.score,
        score_expected=pair.score_expected,
        score_mass=pair.score_mass,
        scores=pair.scores,
        source=pair.source,
    )
