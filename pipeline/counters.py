"""Cumulative counts of a run, and the three sums that must close (design, invariant 1)."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from pipeline.errors import InputError
from pipeline.records import Example, Reject, UnitResult


@dataclass
class Counters:
    """Counts over committed units, from the first on. Kept in every commit record, so a resume carries on from them."""

    units: int = 0
    failed_units: int = 0
    candidates: int = 0
    admitted: int = 0
    instances: int = 0
    examples: int = 0
    instructions_with_rows: int = 0
    closed_without_rows: int = 0
    demonstrations: int = 0
    machine_made: int = 0
    seconds: float = 0.0
    engine_time: dict[str, float] = field(default_factory=dict)  # seconds: those in use, and lost ones by cause
    refused_candidates: Counter[str] = field(default_factory=Counter)  # by reason, before the pool
    refused_instances: Counter[str] = field(default_factory=Counter)
    closing_reasons: Counter[str] = field(default_factory=Counter)  # admitted instructions that ended with no row
    failure_reasons: Counter[str] = field(default_factory=Counter)  # whole units
    scores: Counter[str] = field(default_factory=Counter)  # of judged pairs, by the newest score
    calls: Counter[str] = field(default_factory=Counter)  # by stage
    prompt_tokens: Counter[str] = field(default_factory=Counter)
    completion_tokens: Counter[str] = field(default_factory=Counter)

    def add(self, result: UnitResult) -> None:
        """Count one unit, from its rows."""
        self.units += 1
        self.candidates += result.candidates
        self.admitted += len(result.admitted)
        self.instances += result.instances
        self.examples += len(result.examples)
        if result.candidates:  # a pair of another run that is scored again was admitted there, if anywhere
            self.instructions_with_rows += len({example.instruction_id for example in result.examples})
        self.demonstrations += result.demonstrations
        self.machine_made += result.machine_made
        admitted = {row.instruction_id for row in result.admitted}
        for reject in result.rejects:
            if reject.id is not None:
                self.refused_instances[reject.reason] += 1
            elif reject.instruction_id is None:
                self.failed_units += 1
                self.failure_reasons[reject.reason] += 1
            elif reject.instruction_id in admitted:
                self.closed_without_rows += 1
                self.closing_reasons[reject.reason] += 1
            else:
                self.refused_candidates[reject.reason] += 1
        rows: tuple[Example | Reject, ...] = (*result.examples, *result.rejects)
        self.scores.update(str(row.score) for row in rows if row.score is not None)
        for usage in result.usage:
            self.calls[usage.stage] += usage.calls
            self.prompt_tokens[usage.stage] += usage.prompt_tokens
            self.completion_tokens[usage.stage] += usage.completion_tokens

    @property
    def tokens(self) -> int:
        """Prompt and completion tokens of all stages."""
        return self.prompt_tokens.total() + self.completion_tokens.total()

    def sums(self) -> list[tuple[str, int, str, int]]:
        """The three sums as (what, left side, what it is made of, right side); each must have equal sides."""
        refused, instances = self.refused_candidates.total(), self.refused_instances.total()
        return [
            (
                "candidates",
                self.candidates,
                f"{self.admitted:,} admitted + {refused:,} refused",
                self.admitted + refused,
            ),
            (
                "admitted",
                self.admitted,
                f"{self.instructions_with_rows:,} with rows + {self.closed_without_rows:,} closed without",
                self.instructions_with_rows + self.closed_without_rows,
            ),
            ("instances", self.instances, f"{self.examples:,} rows + {instances:,} refused", self.examples + instances),
        ]

    def to_json(self) -> dict[str, Any]:
        return {
            key: dict(sorted(value.items())) if isinstance(value, dict) else value for key, value in vars(self).items()
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Counters:
        """Raises InputError for a count that this version does not know."""
        if strange := sorted(values.keys() - vars(cls()).keys()):
            raise InputError(
                f"the run counts {strange[0]!r}, which this version of InstructMill does not know; use the "
                "version that wrote it"
            )
        known: dict[str, Any] = {
            key: Counter(value) if isinstance(value, dict) and key != "engine_time" else value
            for key, value in values.items()
        }
        return cls(**known)
