"""How the time of engines goes: in use, or lost, and by what. Counted from what each engine says of itself."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace

from actors.messages import Gauges
from pipeline.engine import EngineUse, Lost


class EngineTime:
    """The time of one place in the pool, over all processes that fill it. A moment begins where the last one ended."""

    def __init__(self, batch: int) -> None:
        """`batch`: the requests that one engine decodes at once."""
        self._batch = batch
        self._since: float | None = None  # None: nothing is paid for
        self._gauges = Gauges()
        self._before = Gauges()  # what processes that are gone have done
        self._full = 0.0
        self._running_s = self._waiting_s = self._kv_use_s = 0.0
        self._lost: defaultdict[Lost, float] = defaultdict(float)

    def loading(self) -> None:
        """A process has had its room until now, and is not ready yet."""
        self._lost[Lost.LOADING] += self._moment()

    def serving(self, gauges: Gauges, holding: Lost) -> None:
        """It has served until now, as these gauges say, while `holding` kept requests from it."""
        share = min(1.0, (gauges.running + gauges.waiting) / self._batch)
        moment = self._moment()
        self._full += share * moment
        self._running_s += gauges.running * moment
        self._waiting_s += gauges.waiting * moment
        self._kv_use_s += gauges.kv_use * moment
        self._lost[holding] += (1 - share) * moment
        self._gauges = gauges

    def idle(self, holding: Lost) -> None:
        """It has had nothing to do until now."""
        self.serving(replace(self._gauges, running=0, waiting=0, kv_use=0.0), holding)

    def gone(self, ages_s: Iterable[float]) -> None:
        """The process is gone or let go; `ages_s` is for how long it had worked on each request that died with it."""
        ages, moment = list(ages_s), 0.0 if self._since is None else self._moment()
        if ages:  # nothing came of the time since it last answered
            # Requests share their engine: what all of them cost before is as long as one of them, on an average.
            before = sum(max(age - moment, 0.0) for age in ages) / max(len(ages), self._batch)
            self._full += moment
            self._lost[Lost.REDONE] += min(moment + before, self._full - self._lost[Lost.REDONE])
        else:
            self._lost[Lost.DRIVER] += moment
        self._since = None
        self._before, self._gauges = self._sum(), Gauges()

    def use(self, *, ready: bool, loading: bool) -> EngineUse:
        """What this place does and has done."""
        done = self._sum()
        return EngineUse(
            engines=1,
            ready=int(ready),
            loading=int(loading),
            running=self._gauges.running,
            waiting=self._gauges.waiting,
            kv_use=self._gauges.kv_use,
            prefix_queries=done.prefix_queries,
            prefix_hits=done.prefix_hits,
            generated_tokens=done.generated_tokens,
            busy=done.busy_s,
            full=self._full,
            running_s=self._running_s,
            waiting_s=self._waiting_s,
            kv_use_s=self._kv_use_s,
            lost=dict(self._lost),
        )

    def _moment(self) -> float:
        now = time.monotonic()
        moment = 0.0 if self._since is None else now - self._since
        self._since = now
        return moment

    def _sum(self) -> Gauges:
        """What all processes of this place have done."""
        now, before = self._gauges, self._before
        return Gauges(
            generated_tokens=before.generated_tokens + now.generated_tokens,
            prompt_tokens=before.prompt_tokens + now.prompt_tokens,
            prefix_queries=before.prefix_queries + now.prefix_queries,
            prefix_hits=before.prefix_hits + now.prefix_hits,
            busy_s=before.busy_s + now.busy_s,
        )
