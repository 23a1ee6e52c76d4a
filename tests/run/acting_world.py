"""A world without pictures, and an agent of one number, for tests of acting; importable by actors in any process.

The state is (seed of the episode modulo 1000, step in it, 0, ...); every episode ends after `length` steps, in success.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lapwing.agent import Scaling
from lapwing.batch import Obs
from lapwing.data.normalize import Normalizer
from lapwing.env import ActionSource, Env, Info
from lapwing.episode import Array, Episode, Meta, Observation
from lapwing.errors import WorldError
from lapwing.run.explorer import ActorPlan
from lapwing.run.hybrid import World
from lapwing.spec import Axis, RobotSpec

Trouble = Callable[[int], None]  # given how many steps the world has made


def line_spec(states: int = 2) -> RobotSpec:
    action = (Axis("x", "m", "arm", -1.0, 1.0), Axis("grip", "close -1, hold 0, open 1", "gripper", -1.0, 1.0))
    return RobotSpec("line", (), tuple(Axis(f"s{number}") for number in range(states)), action)


class Line:
    """The world. trouble: what happens before a step, given how many there were."""

    def __init__(self, length: int = 4, states: int = 2, trouble: Trouble | None = None) -> None:
        self.spec, self.max_steps = line_spec(states), length
        self._trouble, self._made = trouble, 0

    def reset(self, seed: int) -> Observation:
        self._state = np.zeros(self.spec.state_dim, np.float32)
        self._state[0] = seed % 1000
        return Observation({}, self._state.copy())

    def step(self, action: Array) -> tuple[Observation, float, bool, bool, Info]:
        if self._trouble is not None:
            self._trouble(self._made)
        self._made += 1
        self._state[1] += 1
        over = bool(self._state[1] == self.max_steps)
        info: Info = {"success": over, "grasp_penalty": -0.5 if action[1] > 0.5 else 0.0}
        return Observation({}, self._state.copy()), float(over), over, False, info

    def close(self) -> None:
        """Nothing is held open."""


class Always:
    """Somebody who always does the same."""

    def __init__(self, *action: float) -> None:
        self._action = np.array(action, np.float32)

    def reset(self, seed: int) -> Meta:
        return {}

    def __call__(self, observation: Observation, /) -> Array | None:
        return self._action.copy()


class EveryOther:
    """`expert` acts in every other pair of steps, `spent` of its steps being gone already."""

    def __init__(self, policy: ActionSource, expert: ActionSource, spent: int) -> None:
        self._policy, self._expert, self.spent = policy, expert, spent
        self.intervening, self._steps = False, 0

    def reset(self, seed: int) -> Meta:
        self._steps = 0
        return {}

    def __call__(self, observation: Observation, /) -> Array | None:
        self.intervening = self._steps % 4 >= 2
        self._steps += 1
        return (self._expert if self.intervening else self._policy)(observation)


def make_line(
    length: int = 4, states: int = 2, trouble: Trouble | None = None, expert: ActionSource | None = None
) -> tuple[Env, ActionSource | None]:
    return Line(length, states, trouble), expert


def no_world() -> tuple[Env, ActionSource | None]:
    raise WorldError("line: its simulator\nis missing; install it")


def die_once(flag: Path, at: int, made: int) -> None:
    """SIGKILL this process before its step number `at`, the first time that any process comes there."""
    if made == at and not flag.exists():
        flag.touch()
        os.kill(os.getpid(), signal.SIGKILL)


def die(made: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def interrupt_at(at: int, number: int, made: int) -> None:
    if made == at:
        os.kill(os.getpid(), number)


def demonstrations(count: int = 3, length: int = 4, states: int = 2) -> list[Episode]:
    """Recorded in the line, every action (0.5, 1)."""
    state = np.zeros((length + 1, states), np.float32)
    state[:, 1] = np.arange(length + 1)
    action = np.tile(np.array([0.5, 1.0], np.float32), (length, 1))
    reward = np.eye(1, length, length - 1, dtype=np.float32)[0]
    return [Episode({}, state, action, reward, terminated=True, success=True) for _ in range(count)]


def line_normalizer() -> Normalizer:
    return Normalizer.fit(demonstrations(), line_spec(), scaling=Scaling("mean-std", "limits"))


def line_world(make: Any = make_line, states: int = 2, intervene: Any = None) -> World:
    return World("line", line_spec(states), make, intervene)


class OneNumber(nn.Module):
    """What acts: a single weight, which is the action of both axes."""

    def __init__(self, number: float = 0.0) -> None:
        super().__init__()
        self.number = nn.Parameter(torch.tensor(number))


@dataclass(frozen=True)
class NumberConfig:
    number: float = 0.0


class NumberAgent:
    """An explorer that does what its weight says."""

    def __init__(self, number: float = 0.0) -> None:
        self.acting, self.config = OneNumber(number), NumberConfig(number)

    def explore(self, obs: Obs) -> Tensor:
        return self.acting.number.detach().expand(1, 1, 2)


class NumberPlan(ActorPlan):
    """A plan whose agent is of one number."""

    def make_agent(self) -> Any:
        return NumberAgent()


def line_plan(make: Any = make_line, intervene: Any = None, random_steps: int = 0, seed: int = 0) -> NumberPlan:
    return NumberPlan(make, intervene, "sac", NumberConfig, {}, line_spec(), line_normalizer(), random_steps, seed)


def dies_once(flag: Path, at: int, length: int = 4) -> Any:
    return partial(make_line, length, trouble=partial(die_once, flag, at))
