"""What a world to act in is: Gymnasium's five-tuple, with observations of ours and many copies side by side.

And what acts in one while it is recorded.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from lapwing.episode import Array, Meta, Observation
from lapwing.spec import RobotSpec

Info = dict[str, bool | float]


class Env(Protocol):
    """One world. `step` returns (observation, reward, terminated, truncated, info).

    `info` of a finished episode holds "success", where the world can tell, and whatever else it judges (e.g.
    "wrong_object"). With "stopped" the step ended in a stop of the robot, and its observation is none of its own.
    These are bools. "grasp_penalty", where the world has it, is a float of every step: 0, or what working a gripper
    cost (below 0, no part of the reward). Actions are physical, float [A].
    """

    spec: RobotSpec
    max_steps: int

    def reset(self, seed: int) -> Observation: ...

    def step(self, action: Array) -> tuple[Observation, float, bool, bool, Info]: ...

    def close(self) -> None: ...


class BatchEnv(Protocol):
    """`num` copies of a world stepped together. Arrays have a leading axis [num].

    A copy that has finished stays as it is and yields reward 0 until the next `reset`; there is no
    automatic reset. `step` returns (observation, reward, terminated, truncated, info), where the flags of a
    finished copy stay up and info values are bool [num], save the "grasp_penalty": float32 [num], 0 once finished.
    """

    spec: RobotSpec
    max_steps: int
    num: int

    def reset(self, seeds: Sequence[int]) -> Observation: ...

    def step(self, actions: Array) -> tuple[Observation, Array, Array, Array, dict[str, Array]]: ...

    def close(self) -> None: ...


class ActionSource(Protocol):
    """Whatever says what to do next: a scripted expert, a policy, leader arms.

    `reset` is called after the world's own and returns facts about the episode to be written down. A call returns a
    physical action, float [A], or None when there is nothing more to do.
    """

    def reset(self, seed: int) -> Meta: ...

    def __call__(self, observation: Observation, /) -> Array | None: ...


class Single:
    """The only copy of a `BatchEnv`, behind the `Env` protocol."""

    def __init__(self, batch: BatchEnv) -> None:
        self._batch = batch
        self.spec = batch.spec
        self.max_steps = batch.max_steps

    def reset(self, seed: int) -> Observation:
        return _first(self._batch.reset([seed]))

    def step(self, action: Array) -> tuple[Observation, float, bool, bool, Info]:
        observation, reward, terminated, truncated, info = self._batch.step(np.asarray(action)[None])
        told: Info = {name: values[0].item() for name, values in info.items()}
        return _first(observation), float(reward[0]), bool(terminated[0]), bool(truncated[0]), told

    def close(self) -> None:
        self._batch.close()


def _first(batch: Observation) -> Observation:
    return Observation(
        images={name: frames[0] for name, frames in batch.images.items()},
        state=batch.state[0],
        sensors={name: readings[0] for name, readings in batch.sensors.items()},
    )


class Sequential:
    """Several `Env`s behind the `BatchEnv` protocol, stepped one after another."""

    def __init__(self, envs: Sequence[Env]) -> None:
        self._envs = list(envs)
        self.spec = self._envs[0].spec
        self.max_steps = self._envs[0].max_steps
        self.num = len(self._envs)
        self._observations: list[Observation] = []
        self._ended = np.zeros((2, self.num), bool)
        self._infos: list[Info] = []

    def reset(self, seeds: Sequence[int]) -> Observation:
        """Start one episode per seed; with fewer seeds than worlds the rest stand finished."""
        self._observations = [env.reset(seed) for env, seed in zip(self._envs, seeds, strict=False)]
        idle = self.num - len(self._observations)
        self._observations += [self._observations[0]] * idle
        self._ended[:] = False
        self._ended[1, self.num - idle :] = True
        self._infos = [{} for _ in self._envs]
        return stack_observations(self._observations)

    def step(self, actions: Array) -> tuple[Observation, Array, Array, Array, dict[str, Array]]:
        reward = np.zeros(self.num, np.float32)
        penalty = np.zeros(self.num, np.float32)
        for index in np.flatnonzero(~self._ended.any(0)):
            observation, reward[index], terminated, truncated, info = self._envs[index].step(actions[index])
            self._observations[index], self._infos[index] = observation, info
            self._ended[:, index] = terminated, truncated
            penalty[index] = info.get("grasp_penalty", 0.0)
        names = {name for info in self._infos for name in info}
        infos = {name: np.array([one.get(name, False) for one in self._infos]) for name in sorted(names)}
        if "grasp_penalty" in infos:
            infos["grasp_penalty"] = penalty
        terminated_all, truncated_all = self._ended.copy()
        return stack_observations(self._observations), reward, terminated_all, truncated_all, infos

    def close(self) -> None:
        for env in self._envs:
            env.close()


def stack_observations(observations: Sequence[Observation]) -> Observation:
    """Observations -> one batch with a leading axis."""
    return Observation(
        images={name: np.stack([one.images[name] for one in observations]) for name in observations[0].images},
        state=np.stack([one.state for one in observations]),
        sensors={name: np.stack([one.sensors[name] for one in observations]) for name in observations[0].sensors},
    )
