"""Self-Instruct (arXiv 2212.10560): a seed pool bootstraps new instructions, which feed back into the prompts.

One unit of work is one bootstrap prompt and all that comes of it:

    demonstrations -> new instructions -> filters -> gate -> classification or not -> instances -> rows
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from pipeline.config import Config
from pipeline.errors import ContentFault
from pipeline.filters import OwnFilter, first_refusal, own_filter, paper_filters
from pipeline.gate import instruction_id
from pipeline.parsing import Judged, judge_inputs, judge_instances, judge_output
from pipeline.prompting import Template
from pipeline.recipes.self_instruct_prompts import SelfInstructPrompts
from pipeline.records import (
    Admitted,
    Candidate,
    Completion,
    Example,
    Instance,
    Reason,
    Reject,
    Request,
    RequestKey,
    Seed,
    Stage,
    UnitResult,
    Verdict,
)
from pipeline.unit import Admit, Generate, Unit, all_of

RECIPE_VERSION = 2


@dataclass(frozen=True, slots=True)
class _Written:
    """One parsed instance with its fate, and the answer that wrote its output (of what has none: its input)."""

    judged: Judged
    stage: Stage
    answer: Completion | None
    detail: str = ""
    text: str = ""


class SelfInstruct:
    """The method over one unit. `filters` are rules of one's own on an instruction, after the paper's."""

    def __init__(self, config: Config, seeds: Sequence[Seed], filters: Sequence[OwnFilter] = ()) -> None:
        """Raises InputError for a prompt or a seed file that cannot serve this configuration."""
        self._config = config
        self._compat = config.compat == "self-instruct"
        self._filters = (*paper_filters(config.filters), *map(own_filter, filters))
        self.prompts = SelfInstructPrompts(config, seeds)

    @property
    def templates(self) -> tuple[Template, ...]:
        return self.prompts.templates

    async def run_unit(self, unit: Unit, generate: Generate, admit: Admit) -> UnitResult:
        """All four stages for one bootstrap prompt. Raises ContentFault when the bootstrap request has no answer."""
        # Stage 1: new instructions from demonstrations (section 2.2, "Instruction Generation").
        settings = self._config.bootstrap
        demonstrations = unit.sample(settings.demonstrations, settings.machine_made, unit.stream())
        parents = tuple(demonstration.id for demonstration in demonstrations)
        prompt = self.prompts.bootstrap([demonstration.instruction for demonstration in demonstrations])
        completion = await generate(
            Request(RequestKey(unit.number, Stage.BOOTSTRAP), prompt, settings.sampling.resolved())
        )
        result = UnitResult(
            unit.number,
            demonstrations=len(demonstrations),
            machine_made=sum(demonstration.machine_made for demonstration in demonstrations),
        )
        truncated = completion.finish_reason == "length"
        if truncated and self._compat:
            failure = Reject(unit.number, Stage.BOOTSTRAP, Reason.RESPONSE_TRUNCATED, text=completion.text)
            return replace(result, rejects=(failure,))
        items = self.prompts.read_instructions(completion.text)
        if not items:  # a chat model may decline, or write prose
            failure = Reject(unit.number, Stage.BOOTSTRAP, Reason.NO_INSTRUCTION_PARSED, text=completion.text)
            return replace(result, rejects=(failure,))

        # The paper's filters, cheap ones first; novelty is the gate's (section 2.2, "Filtering and Postprocessing").
        candidates, rejects = [], []
        for index, item in enumerate(items):
            candidate = Candidate(unit.number, index, item, parents)
            if truncated and index == len(items) - 1:
                rejects.append(self._refused(unit, candidate, Stage.BOOTSTRAP, Reason.ITEM_TRUNCATED))
            elif refusal := first_refusal(self._filters, item):
                rejects.append(self._refused(unit, candidate, Stage.FILTER, refusal.reason, refusal.detail))
            else:
                candidates.append(candidate)
        verdicts = await admit(candidates)
        rejects += [self._not_admitted(unit, verdict) for verdict in verdicts if not verdict.admitted]

        # Stages 2 and 3 for each admitted instruction (sections 2.2, "Classification Task Identification" and
        # "Instance Generation"); they do not wait for one another.
        admitted = [verdict for verdict in verdicts if verdict.admitted]
        finished = await all_of(self._finish(unit, verdict, generate) for verdict in admitted)
        return replace(
            result,
            candidates=len(items),
            instances=sum(outcome.instances for outcome in finished),
            admitted=tuple(row for outcome in finished for row in outcome.admitted),
            examples=tuple(row for outcome in finished for row in outcome.examples),
            rejects=(*rejects, *(row for outcome in finished for row in outcome.rejects)),
        )

    async def _finish(self, unit: Unit, verdict: Verdict, generate: Generate) -> UnitResult:
        """Classification or not, then instances, for one admitted instruction. A fault ends this instruction only."""
        candidate = verdict.candidate
        admitted = Admitted(
            instruction_id=instruction_id(unit.run_name, unit.number, candidate.index),
            instruction=candidate.instruction,
            unit=unit.number,
            parents=candidate.parents,
            is_classification=None,
            nearest_id=verdict.nearest.id if verdict.nearest else None,
            nearest_score=verdict.nearest.score if verdict.nearest else None,
        )
        key = RequestKey(unit.number, Stage.CLASSIFICATION, candidate.index)
        prompt, sampling = self.prompts.classification(candidate.instruction), self._config.classification.sampling
        try:
            answer = await generate(Request(key, prompt, sampling.resolved(), self.prompts.choices))
        except ContentFault as fault:
            return self._closed(admitted, key.stage, fault.reason, fault.detail, fault.text)
        is_classification = self.prompts.read_classification(answer.text)
        if is_classification is None:
            return self._closed(admitted, key.stage, Reason.CLASSIFICATION_UNPARSED, text=answer.text)
        admitted = replace(admitted, is_classification=is_classification)

        key = RequestKey(unit.number, Stage.INSTANCES, candidate.index)
        prompt = self.prompts.instances(candidate.instruction, is_classification)
        try:
            answer = await generate(Request(key, prompt, self._config.instances.sampling.resolved()))
        except ContentFault as fault:
            return self._closed(admitted, key.stage, fault.reason, fault.detail, fault.text)
        if self.prompts.writes_outputs and not is_classification:
            written = await self._write_outputs(unit, key, admitted, answer, generate)
        else:
            instances = self.prompts.read_instances(prompt, answer.text, is_classification)
            judged = judge_instances(
                instances,
                truncated=answer.finish_reason == "length",
                limit=self._config.instances.limit,
                rng=unit.stream(candidate.index),
                refusals=bool(self._config.instances.drop_refusals),
            )
            written = [_Written(one, Stage.INSTANCES, answer) for one in judged]
        return self._rows(admitted, written, answer)

    async def _write_outputs(
        self, unit: Unit, key: RequestKey, admitted: Admitted, answer: Completion, generate: Generate
    ) -> list[_Written]:
        """Chat style: ask for the output of each input that is kept, side by side, as ordinary turns."""
        judged = judge_inputs(
            self.prompts.read_inputs(answer.text),
            truncated=answer.finish_reason == "length",
            limit=self._config.instances.limit,
            rng=unit.stream(key.candidate),
        )
        sampling = self._config.instances.output_sampling.resolved()

        async def write(one: Judged) -> _Written:
            if one.reason is not None:
                return _Written(one, Stage.INSTANCES, answer)
            prompt = self.prompts.output(admitted.instruction, one.instance.input)
            asked = replace(key, stage=Stage.OUTPUT, sample=one.index)
            try:
                output = await generate(Request(asked, prompt, sampling))
            except ContentFault as fault:
                return _Written(replace(one, reason=fault.reason), Stage.OUTPUT, None, fault.detail, fault.text)
            instance = Instance(one.instance.input, output.text.strip())
            reason = judge_output(
                instance,
                truncated=output.finish_reason == "length",
                refusals=bool(self._config.instances.drop_refusals),
            )
            return _Written(Judged(one.index, instance, reason), Stage.OUTPUT, output)

        return await all_of(write(one) for one in judged)

    def _rows(self, admitted: Admitted, written: Sequence[_Written], answer: Completion) -> UnitResult:
        """Rows and rejects of one admitted instruction (upstream's stage D). `answer` is that of stage 3."""
        shown = self.prompts.instance_template(bool(admitted.is_classification))
        templates = (self.prompts.bootstrap_template, self.prompts.classification_template, shown)
        examples, rejects = [], []
        for one in written:
            fields: dict[str, Any] = {
                "id": f"{admitted.instruction_id}/{one.judged.index}",
                "instruction_id": admitted.instruction_id,
                "instruction": admitted.instruction,
                "input": one.judged.instance.input,
                "output": one.judged.instance.output,
                "unit": admitted.unit,
                "is_classification": bool(admitted.is_classification),
                "parents": admitted.parents,
                "nearest_id": admitted.nearest_id,
                "nearest_score": admitted.nearest_score,
                "prompt_hashes": tuple(f"{template.name}:{template.hash}" for template in templates),
                "finish_reason": one.answer.finish_reason if one.answer else None,
                "prompt_tokens": one.answer.prompt_tokens if one.answer else None,
                "completion_tokens": one.answer.completion_tokens if one.answer else None,
            }
            if one.judged.reason is None:
                examples.append(Example(**fields))
            else:
                rejects.append(
                    Reject(stage=one.stage, reason=one.judged.reason, detail=one.detail, text=one.text, **fields)
                )
        if not examples:
            reason = Reason.NO_INSTANCE_KEPT if written else Reason.NO_INSTANCE_PARSED
            rejects.append(replace(self._closing(admitted, Stage.INSTANCES, reason), text=answer.text))
        return UnitResult(
            admitted.unit,
            instances=len(written),
            admitted=(admitted,),
            examples=tuple(examples),
            rejects=tuple(rejects),
        )

    def _refused(self, unit: Unit, candidate: Candidate, stage: Stage, reason: Reason, detail: str = "") -> Reject:
        template = self.prompts.bootstrap_template
        return Reject(
            unit=unit.number,
            stage=stage,
            reason=reason,
            detail=detail,
            text=candidate.instruction,
            instruction_id=instruction_id(unit.run_name, unit.number, candidate.index),
            instruction=candidate.instruction,
            parents=candidate.parents,
            prompt_hashes=(f"{template.name}:{template.hash}",),
        )

    def _not_admitted(self, unit: Unit, verdict: Verdict) -> Reject:
        assert verdict.reason is not None
        stage = Stage.NOVELTY if verdict.reason is Reason.NOT_NOVEL else Stage.GATE
        reject = self._refused(unit, verdict.candidate, stage, verdict.reason)
        if verdict.nearest is None:
            return reject
        return replace(reject, nearest_id=verdict.nearest.id, nearest_score=verdict.nearest.score)

    def _closed(self, admitted: Admitted, stage: Stage, reason: Reason, detail: str = "", text: str = "") -> UnitResult:
        """An admitted instruction that ends before it has any instance."""
        closing = replace(self._closing(admitted, stage, reason, detail), text=text)
        return UnitResult(admitted.unit, admitted=(admitted,), rejects=(closing,))

    def _closing(self, admitted: Admitted, stage: Stage, reason: Reason, detail: str = "") -> Reject:
        """The one reject of an admitted instruction that ends with no row."""
        return Reject(
            unit=admitted.unit,
            stage=stage,
            reason=reason,
            detail=detail,
            instruction_id=admitted.instruction_id,
            instruction=admitted.instruction,
            is_classification=admitted.is_classification,
            parents=admitted.parents,
            nearest_id=admitted.nearest_id,
            nearest_score=admitted.nearest_score,
        )
