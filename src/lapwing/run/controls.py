"""Controls: what a policy has to beat, and what is left of it when it cannot see."""

from __future__ import annotations

import numpy as np

from lapwing.data.axes import corresponding_axes
from lapwing.data.normalize import Normalizer
from lapwing.episode import Array, Observation
from lapwing.run.evaluate import Actor
from lapwing.spec import RobotSpec


def hold_action(state: Array, spec: RobotSpec, normalizer: Normalizer) -> Array:
    """Stay where you are: physical state [..., S] -> physical action [..., A].

    A gripper is held where the state has an axis of its name. What commands no position that the state measures (a
    base) gets its mean in training.
    """
    place = {axis.name: index for index, axis in enumerate(spec.state)}
    axes = corresponding_axes(spec)
    for index, axis in enumerate(spec.action):
        if axis.kind == "gripper":
            axes[index] = place.get(axis.name, -1)
    is_held = axes >= 0
    held: Array = np.broadcast_to(normalizer.action_mean, (*state.shape[:-1], len(axes))).astype(state.dtype)
    held[..., is_held] = state[..., axes[is_held]]
    return held


class Hold:
    """A policy that stays where it is."""

    def __init__(self, spec: RobotSpec, normalizer: Normalizer) -> None:
        self._spec, self._normalizer = spec, normalizer

    def reset(self) -> None:
        """Nothing is remembered."""

    def __call__(self, observation: Observation, /) -> Array:
        return hold_action(observation.state, self._spec, self._normalizer)


class Blind:
    """A policy shown black frames instead of what the cameras see."""

    def __init__(self, policy: Actor) -> None:
        self._policy = policy

    def reset(self) -> None:
        self._policy.reset()

    def __call__(self, observation: Observation, /) -> Array:
        black = {name: np.zeros_like(frames) for name, frames in observation.images.items()}
        return self._policy(Observation(black, observation.state))
