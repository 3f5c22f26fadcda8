"""The next round of self-curation (arXiv 2308.06259, section 2.3): another model scores a finished run's pairs again.

One unit of work is one pair:

    pair of the other run -> score -> row

Nothing is admitted: a pair keeps its ids, and what the other run found too near to another pair stays refused.
"""

from __future__ import annotations

from typing import Any

from pipeline.config import Config
from pipeline.curation import Judge
from pipeline.errors import ContentFault
from pipeline.prompting import Template
from pipeline.recipes.backtranslation import score_fields
from pipeline.records import Example, Pair, Reason, Reject, RequestKey, Stage, UnitResult
from pipeline.unit import Admit, Generate, Unit

RECIPE_VERSION = 1


class Curate:
    """The method over one unit. `judge` is the name in rows of the model that scores."""

    def __init__(self, config: Config, judge: str) -> None:
        """Raises InputError for a prompt that cannot serve."""
        self.judge = Judge(config, judge)

    @property
    def templates(self) -> tuple[Template, ...]:
        return self.judge.prompts.templates

    async def run_unit(self, unit: Unit, generate: Generate, admit: Admit) -> UnitResult:
        """One pair."""
        assert isinstance(unit.work, Pair)
        pair = unit.work
        template = self.judge.prompts.template
        fields: dict[str, Any] = {
            **pair.fields,
            "id": pair.id,
            "unit": unit.number,
            "instruction": pair.instruction,
            "output": pair.output,
            "prompt_hashes": (*pair.fields["prompt_hashes"], f"{template.name}:{template.hash}"),
        }
        round = 1 + max((score.round for score in pair.scores), default=0)
        key = RequestKey(unit.number, Stage.CURATION)
        try:
            judged = await self.judge.judge(key, pair.instruction, pair.output, generate, round)
        except ContentFault as fault:  # what it had stands, and it is refused: nothing has judged it this time
            fields |= {"scores": pair.scores}
            return self._ended(fields, Stage.CURATION, fault.reason, fault.detail, fault.text)
        fields |= score_fields(judged, pair.scores)
        if judged.reason is not None:
            return self._ended(fields, Stage.CURATION, judged.reason, judged.detail, judged.rationale)
        if pair.kept_out is not None:
            return self._ended(fields, Stage.NOVELTY, pair.kept_out)
        return UnitResult(unit.number, instances=1, examples=(Example(**fields),))

    def _ended(
        self, fields: dict[str, Any], stage: Stage, reason: Reason, detail: str = "", text: str = ""
    ) -> UnitResult:
        reject = Reject(stage=stage, reason=reason, detail=detail, text=text, **fields)
        return UnitResult(reject.unit, instances=1, rejects=(reject,))
