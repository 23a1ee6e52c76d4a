"""The toy world: two planar arms on a driving base take a bar by its ends. numpy only, many copies at once.

Each hand must close on its own end of the yellow bar (left hand red, right hand blue) for two steps in a row:
reward 1, success, terminated. The same on the green decoy also terminates, with nothing. Otherwise the episode is
cut after 50 steps (truncated). Where the bars are is told by the images alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np

from lapwing.envs import planar
from lapwing.envs.copies import checked_actions, one_seed_a_copy, play, redrawn
from lapwing.envs.drawing import draw
from lapwing.envs.planar import DECOY, HOLD_STEPS, TARGET, Scene
from lapwing.envs.scripted import Operators, Quality
from lapwing.episode import Array, Episode, Meta, Observation
from lapwing.errors import ConfigError, WorldError
from lapwing.spec import Axis, Camera, RobotSpec

MAX_STEPS = 50
SMALLEST = 16


def spec(size: int = 84) -> RobotSpec:
    """The robot: state and action have the same 16 axes; actions are absolute targets. Raises ConfigError."""
    if size < SMALLEST:
        raise ConfigError(f"size: got {size}, expected at least {SMALLEST} pixels for the toy world's cameras")
    axes = (*_arm_axes("left"), *_arm_axes("right"), _base_axis("base_x"), _base_axis("base_y"))
    cameras = tuple(Camera(name, size, size) for name in ("left", "right", "global"))
    return RobotSpec("toy", cameras, state=axes, action=axes)


def _arm_axes(side: str) -> tuple[Axis, ...]:
    limit = planar.JOINT_LIMIT
    joints = (Axis(f"{side}_joint_{number}", "rad", "arm", -limit, limit) for number in range(1, 7))
    return (*joints, Axis(f"{side}_gripper", "open", "gripper", 0.0, 1.0))


def _base_axis(name: str) -> Axis:
    return Axis(name, "m/step", "base", -planar.BASE_LIMIT, planar.BASE_LIMIT)


class Toy:
    """`num` copies of the toy world behind the BatchEnv protocol; `info` has "success" and "wrong_object".

    What happens in a copy depends on its seed and its actions alone. `scene` is the truth behind the images, for
    scripted operators and tests; a policy has no business with it.
    """

    scene: Scene

    def __init__(self, num: int = 1, size: int = 84) -> None:
        if num < 1:
            raise ConfigError(f"num: got {num}, expected at least one copy of the toy world")
        self.spec = spec(size)
        self.max_steps = MAX_STEPS
        self.num = num
        self._size = size
        self._step = -1

    def reset(self, seeds: Sequence[int]) -> Observation:
        """Start one episode per seed; with fewer seeds than copies the rest stand finished. Raises WorldError."""
        filled, idle = one_seed_a_copy("toy", self.num, seeds)
        self.scene = planar.new_scene(filled)
        self._step = 0
        self._terminated = np.zeros(self.num, bool)
        self._truncated = idle
        self._images = draw(self.scene, np.arange(self.num), self._size)
        return self._observation()

    def step(self, actions: Array) -> tuple[Observation, Array, Array, Array, dict[str, Array]]:
        """Move every running copy towards `actions` [num, 16]. Raises SpecError when they do not fit."""
        if self._step < 0:
            raise WorldError("toy: step before the first reset; call reset(seeds) first")
        actions = checked_actions(self, actions)
        running = np.flatnonzero(~(self._terminated | self._truncated))
        reward = np.zeros(self.num, np.float32)
        if len(running):
            self._step += 1
            planar.advance(self.scene, running, actions[running])
            held = self.scene.held[running] >= HOLD_STEPS
            reward[running] = held[:, TARGET]
            self._terminated[running] = held.any(1)
            self._truncated[running] = (self._step == MAX_STEPS) & ~held.any(1)
            fresh = draw(self.scene, running, self._size)
            self._images = {name: redrawn(self._images[name], running, images) for name, images in fresh.items()}
        held = self.scene.held >= HOLD_STEPS
        infos = {"success": held[:, TARGET], "wrong_object": held[:, DECOY]}
        return self._observation(), reward, self._terminated.copy(), self._truncated.copy(), infos

    def close(self) -> None:
        """Nothing is held open."""

    def _observation(self) -> Observation:
        return Observation(images=dict(self._images), state=self.scene.state)


class Expert:
    """A scripted operator of a single copy, who looks at the scene before every step."""

    def __init__(self, world: Toy, quality: Quality) -> None:
        self._world, self._quality = world, quality

    def reset(self, seed: int) -> Meta:
        """Begin as the operator that belongs to `seed`."""
        self._operators = Operators(self._quality, [seed], MAX_STEPS)
        self._step = 0
        return {"kind": self._operators.kinds[0]}

    def remaining(self) -> float:
        """How far the task is from done, in m: from each hand to its end of the bar."""
        scene = self._world.scene
        return float(np.linalg.norm(scene.ends[0, TARGET] - scene.joints[0, :, -1], axis=-1).sum())

    def __call__(self, observation: Observation, /) -> Array:
        self._step += 1
        action: Array = self._operators.act(self._world.scene, self._step - 1)[0]
        return action


def demonstrations(quality: Quality, size: int, seed: int) -> Iterator[Episode]:
    """Episodes of scripted operators without end, the same ones for the same seed.

    "mixed": 28 % good, 26 % noisy and 46 % that go for the decoy (meta "kind": good, noisy, wrong-target), about
    42 % successes; "expert": good ones alone; "human": operators who move slowly, rest and hesitate, a quarter of whom
    run out of time. Every episode keeps the observation after its last action.
    """
    # World seeds lie above those a person types, so that no evaluation meets a world of the training data.
    draws = np.random.default_rng(seed)
    num = int(np.clip(400000 // size**2, 8, 50))  # few copies of large images: memory stays near 200 MB
    world = Toy(num, size)
    while True:
        seeds = [int(draws.integers(2**32, 2**53)) for _ in range(num)]
        operators = Operators(quality, seeds, MAX_STEPS)
        yield from play(world, partial(_act, operators, world), operators.kinds, seeds)


def _act(operators: Operators, world: Toy, step: int) -> Array:
    return operators.act(world.scene, step)
