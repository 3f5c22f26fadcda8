"""Self-curation (arXiv 2308.06259, section 2.3): a judge gives each pair a score of 1 to 5, in one decoding step.

The step is constrained to the five digits, so that every score parses. That is not to say that it is right: the
probability of the five together, as the model had it before the constraint, tells whether it was about to give a score
at all. A pair whose judge was not is refused, not believed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from pipeline.config import Config
from pipeline.recipes.backtranslation_prompts import CurationPrompts
from pipeline.records import Completion, Reason, Request, RequestKey, Sampling, Score, Stage
from pipeline.unit import Generate

DIGITS = ("1", "2", "3", "4", "5")
ONE_STEP = Sampling(1, 0.0, 1.0, 0, 0.0, 0.0, 0.0, 1.0, ())


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a judge said of one pair: its score, why the pair is refused (None: it is accepted), the reason in words
    where it was asked for one."""

    score: Score
    reason: Reason | None
    detail: str
    rationale: str


class Judge:
    """Scores pairs as a configuration says. `name` is the model's in rows. `base`: it is asked without the engine's
    LoRA adapter."""

    def __init__(self, config: Config, name: str, *, base: bool = False) -> None:
        """Raises InputError for a prompt that cannot serve."""
        self._settings = config.curation
        self.name = name
        self._base = base
        self.prompts = CurationPrompts(config)

    async def judge(
        self, key: RequestKey, instruction: str, output: str, generate: Generate, round: int = 1
    ) -> Judgement:
        """Score one pair. Raises ContentFault where the engine refuses to. `round` counts the scorings of a pair."""
        rationale = None
        if self._settings.mode == "rationale":
            sampling = self._settings.rationale_sampling.resolved()
            prompt = self.prompts.rationale(instruction, output)
            answer = await generate(Request(replace(key, stage=Stage.RATIONALE), prompt, sampling, base=self._base))
            rationale = self.prompts.read_rationale(answer.text)
        prompt = self.prompts.score(instruction, output, rationale)
        lead = self.prompts.lead
        answer = await generate(Request(key, prompt, ONE_STEP, DIGITS, weigh=True, lead=lead, base=self._base))
        return self._believed(answer, round, rationale or "")

    def _believed(self, answer: Completion, round: int, rationale: str) -> Judgement:
        """The answer as a score, or the refusal to believe it."""
        digit, chances = int(answer.text), answer.probabilities
        if not chances:  # an endpoint that gives no probabilities: the digit is all there is
            return self._accepted(Score(self.name, round, digit, None, None), rationale)
        mass = sum(chances)
        if mass < self._settings.min_mass or mass == 0:
            detail = f"score_mass {mass:.3g} is under {self._settings.min_mass:g}; the digit was {digit}"
            return Judgement(Score(self.name, round, None, None, mass), Reason.NOT_A_SCORE, detail, rationale)
        expected = sum(place * chance for place, chance in enumerate(chances, start=1)) / mass
        return self._accepted(Score(self.name, round, digit, expected, mass), rationale)

    def _accepted(self, score: Score, rationale: str) -> Judgement:
        assert score.score is not None
        low = score.score < self._settings.min_score
        detail = f"{score.score} is under {self._settings.min_score}" if low else ""
        return Judgement(score, Reason.LOW_SCORE if low else None, detail, rationale)
