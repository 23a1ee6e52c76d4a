"""gym-hil's PandaPickCube: a Panda arm lifts a block that lies anywhere in a rectangle of the table.

Lifted by more than 0.1 m, reward 1, success, terminated. A block pushed out of bounds terminates with nothing; else the
episode is cut after 100 steps of 0.1 s (truncated). Scene, control and judgement are the package's; what it does
otherwise than one would expect is mended: seeds reproduce and leave numpy's global generator alone, the block is placed
at random, nothing sleeps, nothing is drawn without need, and the gripper is told from 0 to 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Any

import numpy as np

from lapwing.env import Info
from lapwing.envs.mujoco_gl import close_renderer, open_renderer
from lapwing.envs.panda_expert import CLOSE, Expert, Quality
from lapwing.envs.panda_physics import LIFTED, Physics
from lapwing.envs.panda_scene import blind_scene, drawn_scene, view_option
from lapwing.envs.panda_spec import AXES, CAMERAS, spec
from lapwing.episode import Array, Episode, Observation
from lapwing.errors import SpecError

MAX_STEPS = 100
LINGER = 20  # steps after a success, in data for a classifier
TOGGLE_PENALTY = -0.02  # gym-hil's, for each change of an open gripper to closing, or of a closed one to opening


class Panda:
    """One world behind the Env protocol, with cameras of `size` pixels; or without any, its state then says where the
    block is.

    Actions are clamped to -1 to 1. `info` has "success", "out_of_bounds" and "grasp_penalty". Stepping on after the
    end is allowed. `physics` is the truth behind the images, for scripted operators and tests.
    """

    def __init__(self, cameras: bool = True, size: int = 128) -> None:
        self.spec = spec(cameras, size)
        self.max_steps = MAX_STEPS
        self.physics = Physics(drawn_scene(size) if cameras else blind_scene())
        self._renderer: Any = open_renderer(self.physics.model, size) if cameras else None
        self._views = {name: view_option(name) for name in CAMERAS} if cameras else {}
        self._steps = 0

    def reset(self, seed: int) -> Observation:
        """Start the episode that belongs to `seed`."""
        self.physics.reset(seed)
        self._steps = 0
        return self._observe()

    def step(self, action: Array) -> tuple[Observation, float, bool, bool, Info]:
        """One control step of 0.1 s. Raises SpecError for a wrong shape or a value that is not finite."""
        action = np.asarray(action, np.float64)
        if action.shape != (len(AXES),) or not np.isfinite(action).all():
            got = f"shape {action.shape}" if action.shape != (len(AXES),) else f"{action.tolist()}"
            raise SpecError(f"action: got {got}, expected {len(AXES)} finite numbers ({', '.join(AXES)})")
        action = np.clip(action, -1.0, 1.0)
        penalty = TOGGLE_PENALTY if _toggles(self.physics.gripper, action[3]) else 0.0
        self.physics.advance(action)
        self._steps += 1
        success = self.physics.lift > LIFTED
        terminated = success or self.physics.lost
        info: Info = {"success": success, "out_of_bounds": self.physics.lost, "grasp_penalty": penalty}
        truncated = not terminated and self._steps >= self.max_steps
        return self._observe(), float(success), terminated, truncated, info

    def close(self) -> None:
        if self._renderer is not None:
            close_renderer(self._renderer)

    def _observe(self) -> Observation:
        if self._renderer is None:
            return Observation({}, np.append(self.physics.state, self.physics.block).astype(np.float32))
        return Observation({name: self._draw(name) for name in CAMERAS}, self.physics.state)

    def _draw(self, camera: str) -> Array:
        self._renderer.update_scene(self.physics.data, CAMERAS[camera], self._views[camera])
        frame: Array = self._renderer.render()
        return frame


def _toggles(gripper: float, command: float) -> bool:
    """Whether a command turns the gripper round that is open, or closed."""
    return bool((command < -0.5 and gripper > 0.9) or (command > 0.5 and gripper < 0.1))


def demonstrations(cameras: bool, quality: Quality, size: int = 128, seed: int = 0) -> Iterator[Episode]:
    """Scripted episodes without end, the same ones for the same seed; the label is what happened.

    "expert" yields successes alone, "noisy" all of operators who are clumsy and recover, "mixed" failing ones too;
    `meta` says which ("kind") and the seed of the reset. An episode ends with the world's, else with its operator
    (truncated).
    """
    for episode in _demonstrations(cameras, quality, size, seed, linger=0):
        if quality != "expert" or episode.success:
            yield episode


def labelled(size: int = 128, seed: int = 0, cameras: bool = True) -> Iterator[Episode]:
    """Mixed episodes for a success classifier: rewarded is each step after which the block is lifted.

    After a success the operator goes on for some steps, unsteadily, or there would be one frame of success an episode.
    Without cameras the same episodes tell in their state where the block was.
    """
    return _demonstrations(cameras, "mixed", size, seed, LINGER)


def _demonstrations(cameras: bool, quality: Quality, size: int, seed: int, linger: int) -> Iterator[Episode]:
    world = Panda(cameras, size)
    expert = Expert(world.physics, quality)
    try:
        for number in count():
            start = int(np.random.default_rng((seed, number)).integers(2**32, 2**53))  # above those a person types
            yield _demonstrate(world, expert, start, linger)
    finally:
        world.close()


def _demonstrate(world: Panda, expert: Expert, seed: int, linger: int) -> Episode:
    taken = _Taken(world, seed)
    facts = expert.reset(seed)
    while not taken.over and (action := expert(taken.observations[-1])) is not None:
        taken.step(action)
    success = bool(taken.infos[-1]["success"])
    if success:
        for shake in np.random.default_rng((seed, 2)).normal(size=(linger, 3)):
            taken.step(np.append(np.clip(shake, -1, 1), CLOSE).astype(np.float32))
    return Episode(
        images={name: np.stack([one.images[name] for one in taken.observations]) for name in world.spec.camera_names},
        state=np.stack([one.state for one in taken.observations]),
        action=np.stack(taken.actions),
        reward=np.array(taken.rewards, np.float32),
        terminated=taken.terminated,
        success=success,
        meta={**facts, "seed": seed},
        grasp_penalty=np.array([info["grasp_penalty"] for info in taken.infos], np.float32),
    )


class _Taken:
    """What was done in an episode, and what came of it."""

    def __init__(self, world: Panda, seed: int) -> None:
        self._world = world
        self.observations, self.actions = [world.reset(seed)], list[Array]()
        self.rewards, self.infos = list[float](), list[Info]()
        self.terminated = self.over = False

    def step(self, action: Array) -> None:
        observation, reward, terminated, truncated, info = self._world.step(action)
        self.observations.append(observation)
        self.actions.append(action)
        self.rewards.append(reward)
        self.infos.append(info)
        self.terminated |= terminated
        self.over = terminated or truncated
