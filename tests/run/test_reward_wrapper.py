"""A world whose reward comes from a classifier: when it pays, when it ends, and what it leaves alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lapwing.env import Env, Info
from lapwing.episode import Array, Observation
from lapwing.run.reward_wrapper import ClassifierReward
from lapwing.spec import Camera, RobotSpec, unnamed_axes


class Corridor:
    """State = steps made; after four it says itself that it succeeded, after six it is cut. The reward is nonsense."""

    spec = RobotSpec("corridor", (Camera("front", 2, 2),), unnamed_axes("s", 1), unnamed_axes("a", 1))
    max_steps = 6
    closed = False
    stopped = False

    def reset(self, seed: int) -> Observation:
        self.step_count = seed
        return self._look()

    def step(self, action: Array) -> tuple[Observation, float, bool, bool, Info]:
        self.step_count += 1
        done = self.step_count == 4
        return self._look(), 7.0, done, self.step_count == 6, {"success": done, "stopped": self.stopped}

    def close(self) -> None:
        self.closed = True

    def _look(self) -> Observation:
        return Observation({"front": np.full((2, 2, 3), self.step_count, np.uint8)}, np.array([self.step_count], float))


class Bright:
    """Success where the picture is at least so bright; counts how often it is asked."""

    def __init__(self, least: int) -> None:
        self.least, self.asked = least, 0

    def predict_success(self, observation: Observation) -> tuple[Any, Any]:
        self.asked += 1
        bright = observation.images["front"].max() >= self.least
        return float(bright), bright


ACTION = np.zeros(1)


def test_it_is_a_world():
    world: Env = ClassifierReward(Corridor(), Bright(2))
    assert (world.spec.name, world.max_steps) == ("corridor", 6)


def test_success_pays_one_and_ends():
    world = ClassifierReward(Corridor(), Bright(2))
    world.reset(0)
    _, *first = world.step(ACTION)
    assert first == [0.0, False, False, {"success": False, "true_success": False, "stopped": False}]
    observation, *second = world.step(ACTION)
    assert observation.state[0] == 2
    assert second == [1.0, True, False, {"success": True, "true_success": False, "stopped": False}]
    assert isinstance(second[1], bool)


def test_the_condition_must_hold_too_and_is_asked_first():
    bright = Bright(1)
    world = ClassifierReward(Corridor(), bright, lambda observation: observation.state[0] > 2)
    world.reset(0)
    rewards = [world.step(ACTION)[1] for _ in range(3)]
    assert rewards == [0.0, 0.0, 1.0]
    assert bright.asked == 1


def test_the_world_ends_by_itself_without_a_reward():
    world = ClassifierReward(Corridor(), Bright(99))
    world.reset(3)
    _, reward, terminated, truncated, info = world.step(ACTION)
    assert (reward, terminated, truncated) == (0.0, True, False)
    assert (info["success"], info["true_success"]) == (False, True)


@pytest.mark.parametrize(("least", "ends"), [(99, (False, True)), (6, (True, False))])
def test_an_end_is_of_one_kind(least, ends):
    world = ClassifierReward(Corridor(), Bright(least))
    world.reset(5)
    assert world.step(ACTION)[2:4] == ends


def test_after_a_stop_nothing_is_asked():
    inner, bright = Corridor(), Bright(0)
    inner.stopped = True
    world = ClassifierReward(inner, bright)
    world.reset(0)
    assert world.step(ACTION)[1:3] == (0.0, False)
    assert bright.asked == 0


def test_closing_closes_the_world():
    inner = Corridor()
    ClassifierReward(inner, Bright(0)).close()
    assert inner.closed
