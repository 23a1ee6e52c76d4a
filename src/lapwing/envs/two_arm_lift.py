"""robosuite's TwoArmLift: two Panda arms lift a pot by its handles.

Lifted by more than 0.1 m, reward 1, success, terminated; else the episode is cut after 100 steps of 0.1 s (truncated).
Scene, control and judgement are the package's, its observations and its sense of the grippers are not: seeds reproduce
and leave numpy's global generator alone, both arms move in one frame, and a gripper is told -1 close, 0 hold, 1 open.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Any

import numpy as np

from lapwing.env import Info, Sequential
from lapwing.envs.copies import play
from lapwing.envs.mujoco_gl import close_renderer, mujoco, open_renderer
from lapwing.envs.two_arm_lift_expert import Expert, Quality
from lapwing.envs.two_arm_lift_physics import Physics
from lapwing.envs.two_arm_lift_spec import CAMERAS, SIDES, spec
from lapwing.episode import Array, Episode, Observation
from lapwing.errors import SpecError

MAX_STEPS = 100
TOGGLE_PENALTY = -0.02  # for each gripper that is turned round
_COLLIDING = 0  # the group of bodies that collide; what they look like is in another


class TwoArmLift:
    """One world behind the Env protocol, with cameras of `size` pixels; or without any, its state then says how far
    the handles are.

    Actions are clamped to -1 to 1. `info` has "success" and "grasp_penalty". Stepping on after the end is allowed.
    `physics` is the truth behind the images, for scripted operators and tests.
    """

    def __init__(self, cameras: bool = True, size: int = 84) -> None:
        self.spec = spec(cameras, size)
        self.max_steps = MAX_STEPS
        self.physics = Physics()
        self._renderer: Any = open_renderer(self.physics.model, size) if cameras else None
        self._view = mujoco.MjvOption()
        self._view.geomgroup[_COLLIDING] = 0
        self._view.sitegroup[:] = 0
        self._steps = 0

    def reset(self, seed: int) -> Observation:
        """Start the episode that belongs to `seed`."""
        self.physics.reset(seed)
        self._steps = 0
        return self._observe()

    def step(self, action: Array) -> tuple[Observation, float, bool, bool, Info]:
        """One control step of 0.1 s. Raises SpecError for a wrong shape or a value that is not finite."""
        action = np.asarray(action, np.float64)
        size = self.spec.action_dim
        if action.shape != (size,) or not np.isfinite(action).all():
            got = f"shape {action.shape}" if action.shape != (size,) else f"{action.tolist()}"
            raise SpecError(f"action: got {got}, expected {size} finite numbers")
        toggled = self.physics.advance(np.clip(action, -1.0, 1.0).reshape(len(SIDES), -1))
        self._steps += 1
        success = self.physics.lifted
        info: Info = {"success": success, "grasp_penalty": TOGGLE_PENALTY * toggled}
        return self._observe(), float(success), success, not success and self._steps >= self.max_steps, info

    def close(self) -> None:
        if self._renderer is not None:
            close_renderer(self._renderer)
        self.physics.close()

    def _observe(self) -> Observation:
        if self._renderer is None:
            gaps = self.physics.handles - self.physics.hands
            return Observation({}, np.append(self.physics.felt, gaps).astype(np.float32))
        return Observation({name: self._draw(camera) for name, camera in CAMERAS.items()}, self.physics.felt)

    def _draw(self, camera: str) -> Array:
        self._renderer.update_scene(self.physics.data, camera, self._view)
        self._renderer.scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = False
        frame: Array = self._renderer.render()
        return frame


def demonstrations(cameras: bool, quality: Quality, size: int = 84, seed: int = 0) -> Iterator[Episode]:
    """Scripted episodes without end, the same ones for the same seed: "expert" successes alone, "noisy" all."""
    world = TwoArmLift(cameras, size)
    expert, nothing = Expert(world.physics, quality), Observation({}, np.zeros(0, np.float32))
    try:
        for number in count():
            start = int(np.random.default_rng((seed, number)).integers(2**32, 2**53))  # above those a person types

            def act(step: int, start: int = start) -> Array:
                if step == 0:
                    expert.reset(start)
                return expert(nothing)[None]

            [episode] = play(Sequential([world]), act, [quality], [start])
            if quality != "expert" or episode.success:
                yield episode
    finally:
        world.close()
