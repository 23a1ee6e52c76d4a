"""Playing out chunks of actions: one after the other, or every step the average of all that were predicted for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from lapwing.episode import Array
from lapwing.errors import ConfigError, SpecError


@dataclass(frozen=True)
class Execution:
    """How a policy uses its chunks.

    steps: actions of a chunk to play before the next is asked for; None: all. ensemble: ask at every step, and act
    on the mean of all predictions for it (ACT, section IV.C), weighted exp(-coefficient * i) with i counted from the
    `first` prediction: the oldest, as in the original, or the newest. A coefficient of 0 is the plain mean.
    """

    steps: int | None = None
    ensemble: bool = False
    coefficient: float = 0.01
    first: Literal["oldest", "newest"] = "oldest"

    def __post_init__(self) -> None:
        if self.steps is not None and self.steps < 1:
            raise ConfigError(f"execution: {self.steps} steps of a chunk, expected at least 1")
        if self.ensemble and self.steps is not None:
            raise ConfigError("execution: an ensemble asks at every step; leave out the number of steps")
        if not -1 <= self.coefficient < np.inf:  # below, weights outgrow float64 within a long chunk
            raise ConfigError(f"execution: coefficient is {self.coefficient}, expected -1 or more; 0.01 is usual")


class Player(Protocol):
    """Says what to do now. `ask` predicts chunks [B, K, A] and is called only when needed."""

    def reset(self) -> None: ...

    def next(self, batch: int, ask: Callable[[], Array]) -> Array: ...


def make_player(execution: Execution) -> Player:
    """The player of an execution."""
    return Ensemble(execution) if execution.ensemble else Queue(execution.steps)


class Queue:
    """Plays each chunk to its end, or its first `steps` actions, then asks for the next."""

    def __init__(self, steps: int | None = None) -> None:
        self._asked_for = self._steps = steps
        self._chunk: Array | None = None
        self._played = 0

    def reset(self) -> None:
        self._chunk = None

    def next(self, batch: int, ask: Callable[[], Array]) -> Array:
        """Actions [B, A]. Raises SpecError for another batch amid a chunk, ConfigError for too many steps of one."""
        if self._chunk is None or self._played == self._steps:
            chunk = ask()
            self._steps = self._steps_of(chunk)
            self._chunk, self._played = chunk, 0
        _expect_batch(len(self._chunk), batch)
        action: Array = self._chunk[:, self._played]
        self._played += 1
        return action

    def _steps_of(self, chunk: Array) -> int:
        steps, available = self._asked_for, chunk.shape[1]
        if steps is not None and steps > available:
            raise ConfigError(f"execution: {steps} steps of a chunk, which has {available}; choose at most that many")
        return steps or int(available)


class Ensemble:
    """Averages all predictions made for a step. Memory is one chunk, however long the episode.

    `_sum` [B, K, A] holds the weighted sums for this step and the ones ahead, `_weight` [K] what they were weighted
    with; both move up by one each step.
    """

    def __init__(self, execution: Execution) -> None:
        self._coefficient, self._oldest_first = execution.coefficient, execution.first == "oldest"
        self.reset()

    def reset(self) -> None:
        self._sum: Array | None = None
        self._weight: Array = np.zeros(0)
        self._count: Array = np.zeros(0)

    def next(self, batch: int, ask: Callable[[], Array]) -> Array:
        """Actions [B, A]. Raises SpecError for another batch amid an episode."""
        chunk = ask()
        if self._sum is None:
            self._sum = np.zeros(chunk.shape)
            self._weight, self._count = np.zeros(chunk.shape[1]), np.zeros(chunk.shape[1])
        _expect_batch(len(self._sum), batch)
        if self._oldest_first:
            new = np.exp(-self._coefficient * self._count)  # the n-th prediction for a step
        else:
            fade = np.exp(-self._coefficient)
            self._sum, self._weight, new = self._sum * fade, self._weight * fade, np.ones_like(self._weight)
        self._sum = self._sum + new[:, None] * chunk
        self._weight = self._weight + new
        action: Array = (self._sum[:, 0] / self._weight[0]).astype(chunk.dtype)
        self._advance()
        return action

    def _advance(self) -> None:
        """Nothing has been predicted yet for the step that comes into reach."""
        assert self._sum is not None
        self._count = np.append(self._count[1:] + 1, 0.0)
        self._sum = np.concatenate([self._sum[:, 1:], np.zeros_like(self._sum[:, :1])], 1)
        self._weight = np.append(self._weight[1:], 0.0)


def _expect_batch(before: int, now: int) -> None:
    if before != now:
        raise SpecError(f"observation: batch of {now} amid a chunk for {before}; call reset() first")
