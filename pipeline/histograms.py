"""How values lie: counts by bin, with what a person wants to know of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

_STEPS = (1, 2, 5, 10, 20, 25, 50, 100, 200, 250, 500, 1000)
_BINS = 40  # at most, where the bins go by what is in them


@dataclass(frozen=True)
class Histogram:
    """Counts by bin. Bin i holds values above `edges[i]` and up to `edges[i + 1]`, the first one its lower edge too;
    `over` are the values above the last edge. `mean`, `median` and `p90` are of all values, None where there are none.
    """

    edges: tuple[float, ...]
    counts: tuple[int, ...]
    over: int = 0
    mean: float | None = None
    median: float | None = None
    p90: float | None = None  # nine tenths of the values are at most this

    @property
    def total(self) -> int:
        return sum(self.counts) + self.over


class Tally:
    """Counts values from 0 on in slots of one size, in bounded memory, to be binned when all are there."""

    def __init__(self, most: float, per_one: int = 1) -> None:
        """`per_one` slots make up 1, and there are slots up to `most`; what is larger is counted by itself."""
        self._per_one = per_one
        self._bounds = np.arange(round(most * per_one) + 1) / per_one  # the upper ones
        self._slots = np.zeros(len(self._bounds) + 1, np.int64)  # the last one is for what is larger
        self._sum = 0.0

    def add(self, values: Any) -> None:
        """Count the numbers of an array."""
        values = np.asarray(values, dtype=np.float64)
        self._sum += float(values.sum())
        self._slots += np.bincount(np.searchsorted(self._bounds, values), minlength=len(self._slots))

    @property
    def total(self) -> int:
        return int(self._slots.sum())

    def even(self, bins: int) -> Histogram:
        """So many bins from 0 to the largest slot. The slots must be a multiple of the bins."""
        inside = self._slots[:-1]
        return self._histogram((len(inside) - 1) // bins, bins)

    def fitted(self) -> Histogram:
        """At most 40 bins of a round size, which hold 99% of the values; the rest is `over`."""
        most = min(self._quantile_slot(0.99), len(self._slots) - 2)  # the last slot has no size
        step = next((step for step in _STEPS if step * _BINS >= most), _STEPS[-1])
        return self._histogram(step, max(1, min(_BINS, -(-most // step))))

    def _histogram(self, step: int, bins: int) -> Histogram:
        inside = self._slots[1 : step * bins + 1].reshape(bins, step).sum(axis=1)
        inside[0] += self._slots[0]
        return Histogram(
            edges=tuple(slot / self._per_one for slot in range(0, step * bins + 1, step)),
            counts=tuple(inside.tolist()),
            over=self.total - int(inside.sum()),
            mean=self._sum / self.total if self.total else None,
            median=self._quantile(0.5),
            p90=self._quantile(0.9),
        )

    def _quantile(self, share: float) -> float | None:
        return self._quantile_slot(share) / self._per_one if self.total else None

    def _quantile_slot(self, share: float) -> int:
        """The first slot with which this share of the values is reached."""
        return int(np.searchsorted(np.cumsum(self._slots), share * self.total)) if self.total else 0
