"""A scripted expert in the place of a human who watches a policy and takes over when it gets nowhere."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from lapwing.env import ActionSource
from lapwing.episode import Array, Meta, Observation
from lapwing.errors import ConfigError


@runtime_checkable
class Watching(Protocol):
    """An expert who also sees how far the task is from done."""

    def remaining(self) -> float:
        """Metres that are left to go."""
        ...


class Intervened:
    """A policy as a source of actions, with an expert who takes over from it.

    The rule: when the policy has come no nearer to the end of the task, by `gain` m at least, in `patience` steps, the
    expert acts for `steps` steps, and then the policy again. Over all episodes the expert acts for `budget` steps at
    most. `intervening` says whose the last action was, so that what is stored is the action taken, and marked.
    Everything depends on the seeds of `reset` and on what the policy does. Raises ConfigError for numbers that make no
    sense, and for an expert who cannot see how far the task is.
    """

    def __init__(
        self,
        policy: ActionSource,
        expert: ActionSource,
        budget: int,
        patience: int = 10,
        steps: int = 15,
        gain: float = 0.01,
    ) -> None:
        if budget < 0 or patience < 1 or steps < 1 or not gain > 0:
            raise ConfigError(
                f"intervention: budget {budget}, patience {patience}, steps {steps}, gain {gain}, expected a budget of "
                "0 or more, at least 1 step each, and a gain above 0"
            )
        if not isinstance(expert, Watching):
            raise ConfigError(
                "intervention: the expert of this world cannot tell progress; choose a toy, panda or two-arm-lift world"
            )
        self._policy, self._expert, self._eye = policy, expert, expert
        self._patience, self._steps, self._gain = patience, steps, gain
        self.budget_left = budget
        self.intervening = False
        self._seed = self._waited = self._acted = 0
        self._nearest = float("inf")

    def reset(self, seed: int) -> Meta:
        self._seed = seed
        self._hand_back()
        return self._policy.reset(seed)

    def __call__(self, observation: Observation, /) -> Array | None:
        if self.intervening and (self._acted == self._steps or not self.budget_left):
            self._hand_back()
        if not self.intervening:
            self._watch()
        if not self.intervening:
            return self._policy(observation)
        self._acted += 1
        self.budget_left -= 1
        return self._expert(observation)

    def _watch(self) -> None:
        """Take over where the policy has had its time."""
        remaining = self._eye.remaining()
        self._waited += 1
        if remaining <= self._nearest - self._gain:
            self._nearest, self._waited = remaining, 0
        if self._waited >= self._patience and self.budget_left:
            self._expert.reset(self._seed)
            self.intervening, self._acted = True, 0

    def _hand_back(self) -> None:
        self.intervening = False
        self._nearest, self._waited = float("inf"), 0
