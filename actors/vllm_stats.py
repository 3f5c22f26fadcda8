"""What a vLLM engine says of itself. vLLM does not hold this interface stable, so all that uses it is here.

engine.logger_manager = counts = EngineCounts()      # after the engine is built, with its stats on
counts.gauges(busy_s)                                # from any thread
core_ended(engine)                                   # from any thread
"""

from __future__ import annotations

from typing import Any

from actors.messages import Gauges


class EngineCounts:
    """Stands where vLLM's LLMEngine has the manager of its own loggers, which print and export what nobody reads here.

    vLLM names what it hands over `SchedulerStats` and `IterationStats`; either may be None.
    """

    def __init__(self) -> None:
        self._running = self._waiting = 0
        self._generated = self._prompt = self._queries = self._hits = 0
        self._kv_use = 0.0

    def record(self, scheduler_stats: Any, iteration_stats: Any, **_: Any) -> None:
        """After each step of the engine."""
        if scheduler_stats is not None:
            self._running = scheduler_stats.num_running_reqs
            self._waiting = scheduler_stats.num_waiting_reqs
            self._kv_use = scheduler_stats.kv_cache_usage
            self._queries += scheduler_stats.prefix_cache_stats.queries
            self._hits += scheduler_stats.prefix_cache_stats.hits
        if iteration_stats is not None:
            self._generated += iteration_stats.num_generation_tokens
            self._prompt += iteration_stats.num_prompt_tokens

    def log(self) -> None:
        """Called at vLLM's own interval. The driver prints."""

    def gauges(self, busy_s: float) -> Gauges:
        """The counts as they are now."""
        return Gauges(
            running=self._running,
            waiting=self._waiting,
            generated_tokens=self._generated,
            prompt_tokens=self._prompt,
            prefix_queries=self._queries,
            prefix_hits=self._hits,
            kv_use=self._kv_use,
            busy_s=busy_s,
        )


def core_ended(engine: Any) -> bool:
    """Whether vLLM's core had a process of its own that has ended. vLLM knows, while a step waits for it for ever."""
    resources = getattr(engine.engine_core, "resources", None)
    return resources is not None and bool(resources.engine_dead)
