"""What engines do and have done, as facts and as text: for the progress line, `status`, `report` and the summary."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from typing import Any

from pipeline.console import clock
from pipeline.engine import EngineUse, Lost, useful_and_all

LATELY_S = 60.0


def facts_of(spent: Mapping[str, float], rows: int) -> dict[str, Any] | None:
    """What engines did over their whole time: `spent` is EngineUse.time, or a run's; None where there was none.

    Shares are of all engine time. Requests and KV cache are those of one engine on an average while it served.
    """
    useful, whole = useful_and_all(spent)
    if not whole:
        return None
    served = whole - spent.get(Lost.LOADING, 0.0) or 1.0
    queries = spent.get("prefix_queries", 0.0)
    return {
        "seconds": round(whole, 3),
        "busy": round(spent.get("busy", 0.0) / whole, 4),
        "useful": round(useful / whole, 4),
        "lost": {cause.value: round(spent.get(cause, 0.0) / whole, 4) for cause in Lost},
        "running": round(spent.get("running", 0.0) / served, 2),
        "waiting": round(spent.get("waiting", 0.0) / served, 2),
        "kv_use": round(spent.get("kv_use", 0.0) / served, 4),
        "prefix_hits": round(spent.get("prefix_hits", 0.0) / queries, 4) if queries else None,
        "rows_per_engine_hour": round(rows / whole * 3600, 1),
    }


class Lately:
    """What engines do just now, reading after reading, and where the time of the last minutes went."""

    def __init__(self, rows: int = 0) -> None:
        """`rows`: the run's, at the start."""
        nothing: Mapping[str, float] = {}
        self._readings = deque([(time.monotonic(), rows, nothing)])

    def standing(self, use: EngineUse, rows: int) -> dict[str, Any]:
        """All engines together; shares, hits and rows are those since the oldest reading of the last LATELY_S."""
        now = time.monotonic()
        self._readings.append((now, rows, use.time))
        while len(self._readings) > 2 and self._readings[1][0] <= now - LATELY_S:
            self._readings.popleft()
        _, before, then = self._readings[0]
        return _standing(use, {name: so_far - then.get(name, 0.0) for name, so_far in use.time.items()}, rows - before)


def _standing(use: EngineUse, spent: Mapping[str, float], rows: int) -> dict[str, Any]:
    known = facts_of(spent, rows) or {}
    names = ("busy", "useful", "lost", "prefix_hits", "rows_per_engine_hour")
    return {
        "engines": use.engines,
        "ready": use.ready,
        "loading": use.loading,
        "running": use.running,
        "waiting": use.waiting,
        "kv_use": round(use.kv_use, 4),
        "generated_tokens": use.generated_tokens,
        **{name: known[name] for name in names if name in known},
    }


def standing_line(now: Mapping[str, Any]) -> str:
    """`Lately.standing` in one line."""
    coming = [f"{now['loading']} loading"] if now["loading"] else []
    absent = now["engines"] - now["ready"] - now["loading"]
    coming += [f"{absent} not here"] if absent else []
    parts = [f"engines {now['ready']}/{now['engines']}" + (f" ({', '.join(coming)})" if coming else "")]
    parts.append(f"running {now['running']:,} (+{now['waiting']:,} waiting)")
    parts += _cache(now)
    if "busy" in now:
        parts.append(f"busy {now['busy']:.0%}  useful {now['useful']:.0%}{_lost(now['lost'])}")
    if "rows_per_engine_hour" in now:
        parts.append(f"{now['rows_per_engine_hour']:,.0f} rows/engine-hour")
    return "  ".join(parts)


def facts_lines(facts: Mapping[str, Any]) -> list[str]:
    """`facts_of` in two lines."""
    shares = f"{facts['busy']:.0%} busy, {facts['useful']:.0%} useful{_lost(facts['lost'])}"
    return [
        f"{'engine time':<14}{clock(facts['seconds']):>10}, {shares}; "
        f"{facts['rows_per_engine_hour']:,.0f} rows per engine-hour",
        f"{'each engine':<14}{each_engine(facts)}",
    ]


def each_engine(facts: Mapping[str, Any]) -> str:
    """What one engine of `facts_of` held on an average."""
    requests = f"{facts['running']:,.1f} requests running (+{facts['waiting']:,.1f} waiting) on an average"
    return ", ".join([requests, *_cache(facts)])


def _cache(facts: Mapping[str, Any]) -> list[str]:
    """The KV cache, and what of its prompts an engine found there; nothing where nothing is known."""
    parts = [f"KV {facts['kv_use']:.0%}"] if facts["kv_use"] else []
    return parts + ([f"prefix hits {facts['prefix_hits']:.0%}"] if facts.get("prefix_hits") is not None else [])


def _lost(shares: Mapping[str, float]) -> str:
    """`; lost: window 5%, loading 3%`, the largest first, what is under half a percent left out."""
    largest = sorted(((share, cause) for cause, share in shares.items()), reverse=True)
    named = ", ".join(f"{cause} {share:.0%}" for share, cause in largest if share >= 0.005)
    return f"; lost: {named}" if named else ""
