"""A world whose reward a success classifier gives, as on a robot that has no other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from lapwing.env import Env, Info
from lapwing.episode import Array, Observation

Condition = Callable[[Observation], bool]


class Classifier(Protocol):
    """What says whether an observation shows success; `SuccessClassifier` does."""

    def predict_success(self, observation: Observation) -> tuple[Any, Any]:
        """(probability, decision) of one observation."""
        ...


class ClassifierReward:
    """An `Env` that gives reward 1 and ends where `classifier` says success and `condition` holds too, else 0.

    condition: of the same observation, e.g. that the gripper is closed above the table; None: nothing more is asked.
    The world still ends as it does by itself. "success" in the infos is the classifier's; what the world itself says
    stays beside it as "true_success". After a stop of the robot nothing is asked: the observation is none of its step.
    """

    def __init__(self, world: Env, classifier: Classifier, condition: Condition | None = None) -> None:
        self.spec = world.spec
        self.max_steps = world.max_steps
        self._world, self._classifier, self._condition = world, classifier, condition

    def reset(self, seed: int) -> Observation:
        return self._world.reset(seed)

    def step(self, action: Array) -> tuple[Observation, float, bool, bool, Info]:
        observation, _, terminated, truncated, info = self._world.step(action)
        success = not info.get("stopped", False) and self._is_success(observation)
        told = dict(info)
        if "success" in told:
            told["true_success"] = told["success"]
        told["success"] = success
        return observation, float(success), terminated or success, truncated and not success, told

    def _is_success(self, observation: Observation) -> bool:
        if self._condition is not None and not self._condition(observation):
            return False  # the cheap question first
        _, decision = self._classifier.predict_success(observation)
        return bool(decision)

    def close(self) -> None:
        self._world.close()
