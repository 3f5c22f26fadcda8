"""What Prometheus is told of a run."""

from __future__ import annotations

import time
import urllib.request
from collections import defaultdict

import pytest
import ray
from prometheus_client.parser import text_string_to_metric_families

from actors import metrics
from pipeline.counters import Counters
from pipeline.engine import EngineUse, Lost

RUN = (("run", "night"),)


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """What stands in Ray's metrics, by name and tags, without Ray."""
    values: dict[tuple[str, tuple[tuple[str, str], ...]], float] = defaultdict(float)

    class Told:
        def __init__(self, name: str, description: str, tag_keys: tuple[str, ...]) -> None:
            self.name, self.keys = name, set(tag_keys)

        def set(self, value: float, tags: dict[str, str]) -> None:
            assert set(tags) == self.keys
            values[self.name, tuple(sorted(tags.items()))] = value

        def inc(self, value: float, tags: dict[str, str]) -> None:
            assert value > 0
            values[self.name, tuple(sorted(tags.items()))] += value

    monkeypatch.setattr(metrics, "Gauge", Told)
    monkeypatch.setattr(metrics, "Counter", Told)
    return values


def test_counts_go_on_from_where_the_process_began(told) -> None:
    """A resumed run tells what it has counted itself, once, however often it is asked."""
    counters = Counters(units=100, admitted=40, examples=60)
    counters.refused_candidates["not_novel"] = 7
    run = metrics.RunMetrics("night", counters)
    run.update(None, counters)
    assert not told

    counters.units, counters.examples = 103, 65
    counters.refused_candidates["not_novel"] = 9
    for _ in range(2):
        run.update(None, counters)

    assert told == {
        ("instructmill_units", RUN): 3,
        ("instructmill_rows", RUN): 5,
        ("instructmill_refused", (*RUN, ("what", "not_novel"))): 2,
    }


def test_engines_are_told_with_where_their_time_went(told) -> None:
    """Engines, requests and cache as they stand; tokens and seconds as counts, those lost by their cause."""
    use = EngineUse(
        engines=4, ready=3, loading=1, running=96, waiting=5, kv_use=0.5, prefix_queries=1000, prefix_hits=800,
        generated_tokens=5000, busy=60.0, full=50.0, lost={Lost.WINDOW: 10.0, Lost.REDONE: 2.0},
    )  # fmt: skip
    metrics.RunMetrics("night", Counters()).update(use, Counters())

    seconds = {tags[1][1]: value for (name, tags), value in told.items() if name == "instructmill_engine_seconds"}
    assert seconds == {"useful": 48.0, "window": 10.0, "redone": 2.0}
    assert told["instructmill_engines_ready", RUN] == 3
    assert told["instructmill_requests_running", RUN] == 96
    assert told["instructmill_kv_cache_use", RUN] == 0.5
    assert told["instructmill_prefix_hits", RUN] == 800
    assert told["instructmill_generated_tokens", RUN] == 5000


@pytest.mark.usefixtures("ray_session")
def test_prometheus_reads_them_from_the_node() -> None:
    """Ray's exporter on a real node gives them under their names with `ray_` before, counts with `_total` after."""
    run = metrics.RunMetrics("night", Counters())
    counters = Counters(units=7)
    counters.refused_candidates["not_novel"] = 3
    run.update(EngineUse(engines=2, ready=1, lost={Lost.LOADING: 2.5}), counters)
    node = ray.nodes()[0]
    scraped = scrape(f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics")

    assert scraped["ray_instructmill_engines_ready", ""] == 1
    assert scraped["ray_instructmill_units_total", ""] == 7
    assert scraped["ray_instructmill_refused_total", "not_novel"] == 3
    assert scraped["ray_instructmill_engine_seconds_total", "loading"] == 2.5


def scrape(address: str) -> dict[tuple[str, str], float]:
    """Our metrics at an exporter, by name and the tag `what`; waits until they are there."""
    ends = time.monotonic() + 90
    found: dict[tuple[str, str], float] = {}
    while not found:
        assert time.monotonic() < ends, "no metric of ours came"
        time.sleep(0.5)
        try:
            with urllib.request.urlopen(address, timeout=5) as answer:
                text = answer.read().decode()
        except OSError:  # the exporter is not up yet
            continue
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name.startswith("ray_instructmill_") and sample.labels["run"] == "night":
                    found[sample.name, sample.labels.get("what", "")] = sample.value
    return found
