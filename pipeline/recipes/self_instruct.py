"""Self-Instruct (arXiv 2212.10560): a seed pool bootstraps new instructions, which feed back into the prompts.

One unit of work is one bootstrap prompt and all that comes of it:

    demonstrations -> new instructions -> filters -> gate -> classification or not -> instances -> rows
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

from pipeline.config import Config
from pipeline.errors import ContentFault, InputError
from pipeline.filters import first_refusal, paper_filters
from pipeline.gate import instruction_id
from pipeline.parsing import (
    judge_instances,
    parse_classification,
    parse_input_first,
    parse_instructions,
    parse_output_first,
    with_lead,
)
from pipeline.prompting import (
    Template,
    classification_demonstrations,
    input_first_demonstrations,
    load_template,
    numbered_tasks,
    output_first_demonstrations,
)
from pipeline.records import (
    Admitted,
    Candidate,
    Completion,
    Example,
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

RECIPE_VERSION = 1
YES_NO = (" Yes", " No")


class SelfInstruct:
    """The method with its prompts. What is fixed for the whole run is built once, here."""

    def __init__(self, config: Config, seeds: Sequence[Seed]) -> None:
        """Raises InputError for a prompt or a seed file that cannot serve this configuration."""
        self._config = config
        self._compat = config.compat == "self-instruct"
        self._filters = paper_filters(config.filters)
        prompts, name = config.prompts, "bootstrap_topic" if config.bootstrap.topic else "bootstrap"
        self.bootstrap = load_template(name, getattr(prompts, name))
        self.classification = load_template("classification", prompts.classification)
        self.input_first = load_template("instance_input_first", prompts.instance_input_first)
        self.output_first = load_template("instance_output_first", prompts.instance_output_first)
        if len(seeds) < config.bootstrap.demonstrations:
            raise InputError(
                f"{config.seeds}: {len(seeds)} seeds are fewer than bootstrap.demonstrations = "
                f"{config.bootstrap.demonstrations}; add seeds or lower it"
            )
        self._fix_demonstrations(seeds)

    @property
    def templates(self) -> tuple[Template, ...]:
        return (self.bootstrap, self.classification, self.input_first, self.output_first)

    def _fix_demonstrations(self, seeds: Sequence[Seed]) -> None:
        """Choose the demonstrations of stages 2 and 3 from the seeds. They are the same in every prompt of the run, so
        that an engine computes them once (prefix caching)."""
        stage2, stage3 = self._config.classification, self._config.instances
        rng = random.Random(f"{self._config.seed}/demonstrations")
        yes = [seed for seed in seeds if seed.is_classification]
        no = [seed for seed in seeds if not seed.is_classification]
        shown = _draw(yes, stage2.positive, "classification.positive", rng)
        shown += _draw(no, stage2.negative, "classification.negative", rng)
        rng.shuffle(shown)
        self._classification_demonstrations = classification_demonstrations(shown)

        most, limit = stage3.demonstration_instances, stage3.demonstration_characters
        yes = [seed for seed in yes if _characters(seed, most) <= limit]
        no = [seed for seed in no if _characters(seed, most) <= limit]
        shown = _draw(yes, stage3.output_first_demonstrations, "instances.output_first_demonstrations", rng)
        self._output_first_demonstrations = output_first_demonstrations(shown, most)
        shown = _draw(no, stage3.input_first_demonstrations, "instances.input_first_demonstrations", rng)
        self._input_first_demonstrations = input_first_demonstrations(shown, most)

    async def run_unit(self, unit: Unit, generate: Generate, admit: Admit) -> UnitResult:
        """All four stages for one bootstrap prompt. Raises ContentFault when the bootstrap request has no answer."""
        # Stage 1: new instructions from demonstrations (section 2.2, "Instruction Generation").
        settings = self._config.bootstrap
        demonstrations = unit.sample(settings.demonstrations, settings.machine_made, unit.stream())
        parents = tuple(demonstration.id for demonstration in demonstrations)
        prompt = self.bootstrap_prompt([demonstration.instruction for demonstration in demonstrations])
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
        items = parse_instructions(completion.text, compat=self._compat)

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
        try:
            answer = await generate(self._classification_request(key, candidate.instruction))
        except ContentFault as fault:
            closing = self._closing(admitted, key.stage, fault.reason, fault.detail)
            return UnitResult(unit.number, admitted=(admitted,), rejects=(closing,))
        is_classification = parse_classification(answer.text, compat=self._compat)
        if is_classification is None:
            closing = replace(self._closing(admitted, key.stage, Reason.CLASSIFICATION_UNPARSED), text=answer.text)
            return UnitResult(unit.number, admitted=(admitted,), rejects=(closing,))
        admitted = replace(admitted, is_classification=is_classification)

        key = RequestKey(unit.number, Stage.INSTANCES, candidate.index)
        request, template = self._instance_request(key, admitted)
        try:
            answer = await generate(request)
        except ContentFault as fault:
            closing = self._closing(admitted, key.stage, fault.reason, fault.detail)
            return UnitResult(unit.number, admitted=(admitted,), rejects=(closing,))
        return self._instances(unit, admitted, template, with_lead(request.prompt, answer.text), answer)

    def _instances(
        self, unit: Unit, admitted: Admitted, template: Template, text: str, answer: Completion
    ) -> UnitResult:
        """Rows and rejects from the answer of stage 3 (upstream's stage D)."""
        parse = parse_output_first if admitted.is_classification else parse_input_first
        candidate = int(admitted.instruction_id.rsplit("/", 1)[1])
        judged = judge_instances(
            parse(text, compat=self._compat),
            truncated=answer.finish_reason == "length",
            limit=self._config.instances.limit,
            rng=unit.stream(candidate),
        )
        hashes = tuple(f"{t.name}:{t.hash}" for t in (self.bootstrap, self.classification, template))
        examples, rejects = [], []
        for one in judged:
            id = f"{admitted.instruction_id}/{one.index}"
            row = Example(
                id=id,
                instruction_id=admitted.instruction_id,
                instruction=admitted.instruction,
                input=one.instance.input,
                output=one.instance.output,
                unit=unit.number,
                is_classification=bool(admitted.is_classification),
                parents=admitted.parents,
                nearest_id=admitted.nearest_id,
                nearest_score=admitted.nearest_score,
                prompt_hashes=hashes,
                finish_reason=answer.finish_reason,
                prompt_tokens=answer.prompt_tokens,
                completion_tokens=answer.completion_tokens,
            )
            if one.reason is None:
                examples.append(row)
            else:
                fields = {name: getattr(row, name) for name in Example.__dataclass_fields__}
                rejects.append(Reject(stage=Stage.INSTANCES, reason=one.reason, **fields))
        if not examples:
            reason = Reason.NO_INSTANCE_KEPT if judged else Reason.NO_INSTANCE_PARSED
            rejects.append(replace(self._closing(admitted, Stage.INSTANCES, reason), text=text))
        return UnitResult(
            unit.number,
            instances=len(judged),
            admitted=(admitted,),
            examples=tuple(examples),
            rejects=tuple(rejects),
        )

    def bootstrap_prompt(self, instructions: Sequence[str]) -> str:
        """The prompt of stage 1 over these demonstrations."""
        topic = self._config.bootstrap.topic
        tasks = numbered_tasks(instructions)
        return self.bootstrap.render(topic=topic, tasks=tasks) if topic else self.bootstrap.render(tasks=tasks)

    def classification_prompt(self, instruction: str) -> str:
        """The prompt of stage 2."""
        return self.classification.render(demonstrations=self._classification_demonstrations, instruction=instruction)

    def instance_prompt(self, instruction: str, is_classification: bool) -> str:
        """The prompt of stage 3: label first for a classification task, input first otherwise."""
        if is_classification:
            return self.output_first.render(demonstrations=self._output_first_demonstrations, instruction=instruction)
        return self.input_first.render(demonstrations=self._input_first_demonstrations, instruction=instruction)

    def _classification_request(self, key: RequestKey, instruction: str) -> Request:
        choices = () if self._compat else YES_NO
        prompt = self.classification_prompt(instruction)
        return Request(key, prompt, self._config.classification.sampling.resolved(), choices)

    def _instance_request(self, key: RequestKey, admitted: Admitted) -> tuple[Request, Template]:
        is_classification = bool(admitted.is_classification)
        prompt = self.instance_prompt(admitted.instruction, is_classification)
        template = self.output_first if is_classification else self.input_first
        return Request(key, prompt, self._config.instances.sampling.resolved()), template

    def _refused(self, unit: Unit, candidate: Candidate, stage: Stage, reason: Reason, detail: str = "") -> Reject:
        return Reject(
            unit=unit.number,
            stage=stage,
            reason=reason,
            detail=detail,
            text=candidate.instruction,
            instruction_id=instruction_id(unit.run_name, unit.number, candidate.index),
            instruction=candidate.instruction,
            parents=candidate.parents,
            prompt_hashes=(f"{self.bootstrap.name}:{self.bootstrap.hash}",),
        )

    def _not_admitted(self, unit: Unit, verdict: Verdict) -> Reject:
        assert verdict.reason is not None
        stage = Stage.NOVELTY if verdict.reason is Reason.NOT_NOVEL else Stage.GATE
        reject = self._refused(unit, verdict.candidate, stage, verdict.reason)
        if verdict.nearest is None:
            return reject
        return replace(reject, nearest_id=verdict.nearest.id, nearest_score=verdict.nearest.score)

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


def _characters(seed: Seed, instances: int) -> int:
    return len(seed.instruction) + sum(len(i.input) + len(i.output) for i in seed.instances[:instances])


def _draw(seeds: Sequence[Seed], count: int, key: str, rng: random.Random) -> list[Seed]:
    if count > len(seeds):
        raise InputError(f"{key} = {count}: the seed file has {len(seeds)} that fit; lower it, or add seeds")
    return rng.sample(seeds, count)
