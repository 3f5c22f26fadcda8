"""When a run ends (design, 3): target, exhausted novelty, or a spent budget; and when it had better not go on.

Each rule is judged in unit order from what units hold, so it fires at the same unit whatever the timing; only the
budget of hours depends on time. A resume puts the committed units through the same rules.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import StrEnum

from pipeline.config import Config
from pipeline.counters import Counters
from pipeline.records import Reason, Reject

HOPELESS_UNITS = 20
HOPELESS_INSTRUCTIONS = 50
HOPELESS_CANDIDATES = 100
JUDGED = frozenset({Reason.LOW_SCORE, Reason.NOT_NOVEL, Reason.TARGET_REACHED})
UNSCORED = (Reason.NOT_A_SCORE, Reason.REQUEST_REFUSED, Reason.ENGINE_KILLED, Reason.THOUGHT_UNCLOSED)
MENDS = {
    Reason.THOUGHT_UNCLOSED: "raise max_tokens, or turn thinking off in engine.chat_template_kwargs",
    Reason.NO_INSTRUCTION_PARSED: "look at the replies with `inspect --rejected`: engine.style may not suit the model",
    Reason.RESPONSE_TRUNCATED: "raise bootstrap.sampling.max_tokens",
    Reason.NOT_A_SCORE: "this model does not answer with a score: name another in [judge], look at the prompt with "
    "`preview`, or believe it all the same with curation.min_mass = 0",
}


class Ended(StrEnum):
    """Why a run is finished."""

    TARGET = "target"
    EXHAUSTED = "exhausted"
    NO_MORE = "no_more"
    TOKENS = "budget.tokens"
    UNITS = "budget.units"
    HOURS = "budget.hours"


@dataclass(frozen=True, slots=True)
class Ending:
    """The unit a run ends after, and why in a word and in a sentence."""

    unit: int
    reason: Ended
    detail: str


def hopeless(counters: Counters, failure: Reject) -> str | None:
    """A sentence when every unit so far has failed, every candidate was refused for the same reason, no pair was given
    a score, or nothing admitted came to a row, and there were enough of them to be sure; `failure` is the last reject.

    What a strict judge or a full pool refuses is no such reason.
    """
    reason, refused = failure.reason, counters.refused_candidates[failure.reason]
    unscored = sum(counters.refused_candidates[each] + counters.refused_instances[each] for each in UNSCORED)
    if counters.failed_units == counters.units >= HOPELESS_UNITS and failure.reason is not Reason.ENGINE_KILLED:
        what = f"all of the first {counters.units} units failed"
    elif counters.closed_without_rows == counters.admitted >= HOPELESS_INSTRUCTIONS:
        what = f"none of the first {counters.admitted} instructions came to a row"
    elif unscored >= HOPELESS_CANDIDATES and not counters.scores:
        what = f"none of the first {unscored} pairs was given a score"
        reason = reason if reason in UNSCORED else Reason.NOT_A_SCORE
    elif refused == counters.candidates >= HOPELESS_CANDIDATES and reason not in JUDGED:
        what = f"all of the first {refused} candidates were refused"
    else:
        return None
    detail = f": {failure.detail}" if failure.detail else ""
    mend = MENDS.get(reason, "look at what was refused with `inspect --rejected`")
    return f"{what}, the last with {failure.reason}{detail}; {mend}, and name another folder"


class Stops:
    """The rules of one run. `ending` is the one that fired at the smallest unit, or None."""

    def __init__(self, config: Config, window: int) -> None:
        self._config = config
        self._window = window
        self._recent: deque[tuple[int, int]] = deque()  # the last units that exhaustion looks at
        self._seen = self._kept = 0  # their candidates, and how many of these were admitted
        self._admitted = 0
        self.ending: Ending | None = None

    def after_gate(self, unit: int, candidates: int, admitted: int) -> None:
        """`unit` has passed the gate. Called once for each unit, in order."""
        self._look_at(candidates, admitted)
        self._admitted += admitted
        target = self._config.resolved_target
        if target is not None and self._admitted >= target:
            what = "instructions" if self._config.recipe == "self-instruct" else "pairs"
            self._fire(unit, Ended.TARGET, f"the target of {target:,} {what} is reached")
            return
        if self._config.recipe != "self-instruct":  # a corpus comes to its end by itself
            return
        exhaustion = self._config.exhaustion
        if unit < 2 * self._window or unit + 1 < exhaustion.units:
            return
        seen, kept = self._seen, self._kept
        if kept < exhaustion.share * max(seen, 1):
            self._fire(
                unit,
                Ended.EXHAUSTED,
                f"novelty is exhausted: of the last {seen} candidates ({len(self._recent)} units) {kept} were "
                f"admitted, under the bound of {exhaustion.share:.1%}; more seeds, another topic or a hotter "
                "temperature would help",
            )

    def _look_at(self, candidates: int, admitted: int) -> None:
        """One more of the last units; the sums are kept, since a resume asks for them once for every unit there was."""
        self._recent.append((candidates, admitted))
        self._seen += candidates
        self._kept += admitted
        if len(self._recent) > self._config.exhaustion.units:
            candidates, admitted = self._recent.popleft()
            self._seen -= candidates
            self._kept -= admitted

    def no_more(self, unit: int) -> None:
        """There is no work for `unit` nor for any after it: the corpus, or the other run, is at its end."""
        what = "the corpus is at its end" if self._config.recipe == "backtranslation" else "all pairs are scored"
        self._fire(unit - 1, Ended.NO_MORE, what)

    def after_ready(self, unit: int, tokens: int, hours: float) -> None:
        """All units up to `unit` are finished; `tokens` and `hours` are the run's so far. Called in order."""
        budget = self._config.budget
        if budget.units is not None and unit + 1 >= budget.units:
            self._fire(unit, Ended.UNITS, f"the budget of {budget.units} units is spent")
        if budget.tokens is not None and tokens >= budget.tokens:
            self._fire(unit, Ended.TOKENS, f"the budget of {budget.tokens} tokens is spent")
        if budget.hours is not None and hours >= budget.hours:
            self._fire(unit, Ended.HOURS, f"the budget of {budget.hours:g} hours is spent")

    def beyond(self, unit: int) -> bool:
        """Whether the run ends before `unit`."""
        budget = self._config.budget.units
        return (self.ending is not None and unit > self.ending.unit) or (budget is not None and unit >= budget)

    def _fire(self, unit: int, reason: Ended, detail: str) -> None:
        if self.ending is None or unit < self.ending.unit:
            self.ending = Ending(unit, reason, detail)
