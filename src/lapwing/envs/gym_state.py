"""Worlds of Gymnasium that D4RL's state data come from, as D4RL's evaluations run them.

door: AdroitHandDoor of gymnasium-robotics, 200 steps. Its reward is D4RL's dense one, reckoned here: the package has
changed its own under one name (1.4.2 rewards being *far* from the handle). A success is an episode with the door open
by 1.35 rad or more in more than 25 steps (hand_dapg). hopper, halfcheetah: Gymnasium's MuJoCo environments,
1000 steps, v5 with the reward of v2 to v4, which count a hopper as alive in the step it falls in. They have no success.
"""

from __future__ import annotations

import io
from contextlib import redirect_stderr
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np

from lapwing.env import Info
from lapwing.episode import Array, Observation
from lapwing.errors import SpecError, WorldError
from lapwing.spec import Axis, RobotSpec, unnamed_axes

OPEN = 1.35  # rad, from where on the door counts as open
_OPEN_STEPS = 25
_DOOR, _PALM_TO_HANDLE = 28, slice(35, 38)  # in the door's observation


@dataclass(frozen=True)
class _Task:
    """Where a task's environment is, its sizes, its longest episode in steps, and its rate."""

    environment: tuple[str, str]
    state: int
    action: int
    max_steps: int
    rate_hz: float


TASKS = {
    "door": _Task(("gymnasium_robotics.envs.adroit_hand.adroit_door", "AdroitHandDoorEnv"), 39, 28, 200, 100.0),
    "hopper": _Task(("gymnasium.envs.mujoco.hopper_v5", "HopperEnv"), 11, 3, 1000, 125.0),
    "halfcheetah": _Task(("gymnasium.envs.mujoco.half_cheetah_v5", "HalfCheetahEnv"), 17, 6, 1000, 20.0),
}


def spec(name: str) -> RobotSpec:
    """The robot of a task, without loading it."""
    task = TASKS[name]
    axes = tuple(Axis(axis.name, "", "other", -1.0, 1.0) for axis in unnamed_axes("action", task.action))
    return RobotSpec(name, (), unnamed_axes("state", task.state), axes, task.rate_hz)


class GymState:
    """One world behind the Env protocol; actions are clamped to -1 to 1. Raises WorldError for a missing package."""

    def __init__(self, name: str) -> None:
        self.spec = spec(name)
        self.max_steps = TASKS[name].max_steps
        self._name, self._env = name, _open(name)

    def reset(self, seed: int) -> Observation:
        """Start the episode that belongs to `seed`."""
        state, _ = self._env.reset(seed=seed)
        self._steps = self._open_steps = 0
        return _observation(state)

    def step(self, action: Array) -> tuple[Observation, float, bool, bool, Info]:
        """One control step. Raises SpecError for a wrong shape or a value that is not finite."""
        action = np.asarray(action, np.float64)
        if action.shape != (self.spec.action_dim,) or not np.isfinite(action).all():
            got = f"shape {action.shape}" if action.shape != (self.spec.action_dim,) else f"{action.tolist()}"
            raise SpecError(f"{self._name}: action: got {got}, expected {self.spec.action_dim} finite numbers")
        state, reward, terminated, _, _ = self._env.step(np.clip(action, -1.0, 1.0))
        self._steps += 1
        info: Info = {}
        if self._name == "door":
            reward = door_reward(state, self._env.data.qvel)
            self._open_steps += bool(state[_DOOR] >= OPEN)
            info["success"] = self._open_steps > _OPEN_STEPS
        elif self._name == "hopper" and terminated:
            reward += 1.0
        truncated = self._steps >= self.max_steps and not terminated
        return _observation(state), float(reward), bool(terminated), truncated, info

    def close(self) -> None:
        self._env.close()


def door_reward(state: Array, velocity: Array) -> float:
    """D4RL's reward of the door [39] and the speeds of all its joints: near the handle, open, calm.

    From hand_dapg: hand to handle in m, the door's angle in rad, and a bonus at each of three angles.
    """
    angle = float(state[_DOOR])
    reward = -0.1 * float(np.linalg.norm(state[_PALM_TO_HANDLE])) - 0.1 * (angle - 1.57) ** 2
    reward -= 1e-5 * float(np.square(velocity).sum())
    return reward + 2 * (angle > 0.2) + 8 * (angle > 1.0) + 10 * (angle > OPEN)


def _observation(state: Array) -> Observation:
    return Observation(images={}, state=state.astype(np.float32))


def _open(name: str) -> Any:
    """The environment without Gymnasium's wrappers, which count steps and check types."""
    module, environment = TASKS[name].environment
    try:
        import_module("lapwing.envs.mujoco_gl")  # chooses what would draw, before the package loads MuJoCo
        with redirect_stderr(io.StringIO()):  # gymnasium-robotics prints what its other environments would have changed
            return getattr(import_module(module), environment)()
    except ModuleNotFoundError as error:
        package = str(error.name).split(".")[0].replace("_", "-")
        raise WorldError(
            f"{name}: the package {package} is not installed; `pip install -e '.[gym]'` in the clone"
        ) from error
