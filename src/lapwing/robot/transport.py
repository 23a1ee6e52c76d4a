"""How the readings of a simulated device travel: at a rate with jitter, some lost, each some time on its way."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np


class Transport:
    """Moments of measuring and of arrival, the same ones for the same seed, whenever they are asked for.

    rate_hz: of measuring; jitter: spread of the moments, as a share of the period (below 1); latency: s from measuring
    to arrival, spread by half of it either way; dropped: share that never arrives; start: s, when it is switched on.
    """

    def __init__(self, rate_hz: float, latency: float, jitter: float, dropped: float, seed: int, start: float) -> None:
        self._rate_hz, self._latency, self._jitter, self._dropped = rate_hz, latency, jitter, dropped
        self._start = start
        self._draws = np.random.default_rng(seed)
        self._number = 0
        self._next = self._draw()

    def measured(self, now: float) -> Iterator[tuple[float, float]]:
        """(stamp, arrival) of what was measured up to `now` since the last call, without what was lost."""
        while self._next[0] <= now:
            stamp, arrival, lost = self._next
            self._number += 1
            self._next = self._draw()
            if not lost:
                yield stamp, arrival

    def _draw(self) -> tuple[float, float, bool]:
        spread, delay, fate = self._draws.random(3).tolist()
        stamp = self._start + (self._number + self._jitter * spread) / self._rate_hz
        return stamp, stamp + self._latency * (0.5 + delay), fate < self._dropped
