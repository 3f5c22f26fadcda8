"""A run as Prometheus sees it, through Ray's own exporter on every node: what the engines do, and what comes of it.

All names begin with `instructmill_` and have the tag `run`; Ray puts `ray_` before them, and `_total` after counts.
Counts go on from where this process began.
"""

from __future__ import annotations

from collections.abc import Iterator

from ray.util.metrics import Counter, Gauge

from pipeline.counters import Counters
from pipeline.engine import EngineUse

GAUGES = {
    "engines": "Engines that are here or may come",
    "engines_ready": "Engines that are ready",
    "engines_loading": "Engines that load",
    "requests_running": "Requests that the engines decode",
    "requests_waiting": "Requests that wait inside the engines",
    "kv_cache_use": "Share of the KV cache in use, of the engines that are ready",
}
COUNTS = {
    "generated_tokens": "Tokens generated, those of unfinished requests included",
    "prefix_queries": "Prompt tokens looked up in the prefix cache",
    "prefix_hits": "Prompt tokens found there",
    "engine_busy_seconds": "Engine time with something to do",
    "units": "Units finished",
    "admitted": "Instructions admitted",
    "rows": "Accepted rows",
}
BY_CAUSE = {
    "engine_seconds": "Engine time: useful, or lost, by what",
    "refused": "Candidates refused before the pool, by reason",
}


class RunMetrics:
    """One run's metrics. To be made where Ray is connected."""

    def __init__(self, run: str, before: Counters) -> None:
        """`before`: what the run had counted when this process began."""
        self._tags = {"run": run}
        self._gauges = {name: Gauge(f"instructmill_{name}", text, ("run",)) for name, text in GAUGES.items()}
        self._counts = {name: Counter(f"instructmill_{name}", text, ("run",)) for name, text in COUNTS.items()}
        self._counts |= {
            name: Counter(f"instructmill_{name}", text, ("run", "what")) for name, text in BY_CAUSE.items()
        }
        self._told = {(name, what): value for name, what, value in _counted(None, before)}

    def update(self, use: EngineUse | None, counters: Counters) -> None:
        """Tell how things stand now."""
        if use is not None:
            standing = (use.engines, use.ready, use.loading, use.running, use.waiting, use.kv_use)
            for gauge, value in zip(self._gauges.values(), standing, strict=True):
                gauge.set(value, self._tags)
        for name, what, value in _counted(use, counters):
            more = value - self._told.get((name, what), 0.0)
            if more > 0:  # useful time shrinks where work was lost after it was done
                self._counts[name].inc(more, self._tags | ({"what": what} if what else {}))
                self._told[name, what] = value


def _counted(use: EngineUse | None, counters: Counters) -> Iterator[tuple[str, str, float]]:
    """Every count as (name, by what, value)."""
    if use is not None:
        yield "generated_tokens", "", use.generated_tokens
        yield "prefix_queries", "", use.prefix_queries
        yield "prefix_hits", "", use.prefix_hits
        yield "engine_busy_seconds", "", use.busy
        yield "engine_seconds", "useful", use.useful
        for cause, seconds in use.lost.items():
            yield "engine_seconds", cause, seconds
    yield "units", "", counters.units
    yield "admitted", "", counters.admitted
    yield "rows", "", counters.examples
    for reason, count in counters.refused_candidates.items():
        yield "refused", reason, count
