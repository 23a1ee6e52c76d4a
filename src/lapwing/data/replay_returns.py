"""Discounted returns of what a replay buffer holds, kept up to date step by step."""

from __future__ import annotations

import math

import numpy as np

from lapwing.episode import Array

_NEGLIGIBLE = 2.0**-64  # a weight that no float32 return shows


class Returns:
    """For each row the discounted sum of its step's reward and those that have followed in its episode, float64.

    Each reward is added to the rows before it when it comes, in the same order however the buffer got there: what
    was saved and loaded has the same returns, to the bit.
    """

    def __init__(self, gamma: float, capacity: int) -> None:
        reach = capacity if gamma == 1 else 1 if gamma == 0 else 1 + math.ceil(math.log(_NEGLIGIBLE) / math.log(gamma))
        self._weights = gamma ** np.arange(min(capacity, reach))[::-1]
        self._values = np.zeros(capacity)

    @property
    def nbytes(self) -> int:
        return self._values.nbytes

    def get(self, rows: Array) -> Array:
        return self._values.take(rows % len(self._values))

    def add(self, rows: Array, reward: float) -> None:
        """Take up the newest of `rows`, held and of one episode in order, whose step has earned `reward`."""
        self._values[rows[-1] % len(self._values)] = 0
        if reward:
            slots = rows[-len(self._weights) :] % len(self._values)
            self._values[slots] += self._weights[-len(slots) :] * reward
