"""The toy worlds for SAC, in the four set-ups of HIL-SERL: bring the yellow thing to the green place on the table.

One hand carries a disc, two carry a bar. With fixed grippers it is in hand from the start; with learned ones the hands
first reach it and close on their grips. Every grip held and near its place: reward 1, success, terminated. Otherwise
the episode is cut after 100 steps (truncated). Actions are small displacements laid out as in HIL-SERL: [x, y, z, roll,
pitch, yaw] of an arm, then its gripper where that is learned, the left arm before the right one; 6, 7, 12 or 14 axes.
The table is flat: z, roll, pitch and yaw are without effect. Where thing and place are is told by the image alone, or
in the variants "-state", which have no camera, by the state: how far from the hand, and from there to the goal.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np

from lapwing.envs import reach_scene
from lapwing.envs.copies import checked_actions, one_seed_a_copy, play, redrawn
from lapwing.envs.reach_camera import draw
from lapwing.envs.reach_expert import Operators
from lapwing.envs.reach_scene import HIGH, LOW, OPEN, SHUT, STEP, TOGGLE_COST, Mode, Scene, distance
from lapwing.envs.scripted import Quality
from lapwing.episode import Array, Episode, Meta, Observation
from lapwing.errors import ConfigError, WorldError
from lapwing.spec import Axis, Camera, RobotSpec

MAX_STEPS = 100
SMALLEST = 16
RATE_HZ = 10.0
CAMERA = "global"
ARM_AXES = ("x", "y", "z", "roll", "pitch", "yaw")
MOVING = 2
"""How many of them have an effect: x and y."""


def spec(mode: Mode, size: int | None = 84) -> RobotSpec:
    """The robot of a set-up. size: of its camera in pixels, or None for things and places in the state instead.

    Raises ConfigError.
    """
    if size is not None and size < SMALLEST:
        raise ConfigError(f"size: got {size}, expected at least {SMALLEST} pixels for the toy world's camera")
    sides = ("",) if mode.arms == "single" else ("left_", "right_")
    state = [axis for side in sides for axis in _state_axes(side, mode.learned)]
    if size is None:
        state += [axis for gap in ("hand_to_object", "object_to_goal") for side in sides for axis in _gap(side + gap)]
    return RobotSpec(
        name=f"toy-{mode.arms}-{mode.gripper}",
        cameras=() if size is None else (Camera(CAMERA, size, size),),
        state=tuple(state),
        action=tuple(axis for side in sides for axis in _action_axes(side, mode.learned)),
        rate_hz=RATE_HZ,
    )


def _state_axes(side: str, learned: bool) -> list[Axis]:
    corners = zip("xy", LOW.tolist(), HIGH.tolist(), strict=True)
    hand = [Axis(f"{side}hand_{name}", "m", "arm", low, high) for name, low, high in corners]
    gripper = [Axis(f"{side}gripper", "open 1, holding 0.5, shut 0", "gripper", SHUT, OPEN)] if learned else []
    return hand + gripper


def _gap(name: str) -> list[Axis]:
    lengths = zip("xy", (HIGH - LOW).tolist(), strict=True)
    return [Axis(f"{name}_{along}", "m", "other", -length, length) for along, length in lengths]


def _action_axes(side: str, learned: bool) -> list[Axis]:
    units = [f"{STEP} m"] * MOVING + ["no effect"] * (len(ARM_AXES) - MOVING)
    arm = [Axis(f"{side}{name}", unit, "arm", -1.0, 1.0) for name, unit in zip(ARM_AXES, units, strict=True)]
    gripper = [Axis(f"{side}gripper", "close -1, hold 0, open 1", "gripper", -1.0, 1.0)] if learned else []
    return arm + gripper


class Reach:
    """`num` copies of a set-up behind the BatchEnv protocol; `info` has "success" and, if learned, "grasp_penalty".

    What happens in a copy depends on its seed and its actions alone. `scene` is the truth behind the image, for
    scripted operators and tests; a policy has no business with it.
    """

    scene: Scene

    def __init__(self, mode: Mode, num: int = 1, size: int | None = 84) -> None:
        if num < 1:
            raise ConfigError(f"num: got {num}, expected at least one copy of the toy world")
        self.spec = spec(mode, size)
        self.max_steps = MAX_STEPS
        self.num = num
        self.mode = mode
        self._size = size
        self._step = -1

    def reset(self, seeds: Sequence[int]) -> Observation:
        """Start one episode per seed; with fewer seeds than copies the rest stand finished. Raises WorldError."""
        filled, self._truncated = one_seed_a_copy(self.spec.name, self.num, seeds)
        self.scene = reach_scene.new_scene(self.mode, filled)
        self._step = 0
        self._terminated = np.zeros(self.num, bool)
        if self._size is not None:
            self._images = draw(self.scene, np.arange(self.num), self._size)
        return self._observation()

    def step(self, actions: Array) -> tuple[Observation, Array, Array, Array, dict[str, Array]]:
        """Let every running copy do its part of `actions` [num, A]. Raises SpecError when they do not fit."""
        if self._step < 0:
            raise WorldError(f"{self.spec.name}: step before the first reset; call reset(seeds) first")
        arms = checked_actions(self, actions).reshape(self.num, self.mode.num_arms, -1)
        running = np.flatnonzero(~(self._terminated | self._truncated))
        reward, penalty = np.zeros(self.num, np.float32), np.zeros(self.num, np.float32)
        if len(running):
            self._step += 1
            grip = arms[running, :, len(ARM_AXES)] if self.mode.learned else None
            toggled = reach_scene.advance(self.scene, running, arms[running, :, :MOVING], grip)
            penalty[running] = TOGGLE_COST * toggled
            arrived = self.scene.at_goal[running]
            reward[running] = self._terminated[running] = arrived
            self._truncated[running] = (self._step == MAX_STEPS) & ~arrived
            if self._size is not None:
                self._images = redrawn(self._images, running, draw(self.scene, running, self._size))
        info = {"success": self._terminated.copy()} | ({"grasp_penalty": penalty} if self.mode.learned else {})
        return self._observation(), reward, self._terminated.copy(), self._truncated.copy(), info

    def close(self) -> None:
        """Nothing is held open."""

    def _observation(self) -> Observation:
        scene = self.scene
        felt = np.concatenate([scene.hands, scene.opening[..., None]], axis=-1) if self.mode.learned else scene.hands
        parts = [felt] if self._size is not None else [felt, scene.grips - scene.hands, scene.goal - scene.grips]
        state = np.concatenate([part.reshape(self.num, -1) for part in parts], axis=1, dtype=np.float32)
        return Observation(images={} if self._size is None else {CAMERA: self._images}, state=state)


class Expert:
    """A scripted operator of a single copy, who looks at the scene before every step."""

    def __init__(self, world: Reach, quality: Quality) -> None:
        self._world, self._quality = world, quality

    def reset(self, seed: int) -> Meta:
        """Begin as the operator that belongs to `seed`."""
        self._operators = Operators(self._world.mode, self._quality, [seed], MAX_STEPS)
        self._step = 0
        return {"kind": self._operators.kinds[0]}

    def remaining(self) -> float:
        """How far the task is from done, in m: from each hand to its grip, and from there to its place."""
        scene = self._world.scene
        return float(distance(scene.grips - scene.hands).sum() + distance(scene.goal - scene.grips).sum())

    def __call__(self, observation: Observation, /) -> Array:
        self._step += 1
        action: Array = self._operators.act(self._world.scene, self._step - 1)[0]
        return action


def demonstrations(mode: Mode, quality: Quality, size: int | None, seed: int) -> Iterator[Episode]:
    """Episodes of scripted operators without end, the same ones for the same seed.

    "mixed": 40 % good, 30 % noisy and 30 % that take another place for the green one and fail (meta "kind": good,
    noisy, astray); "expert": good ones alone; "noisy": noisy ones alone; "human": operators who move slowly and rest.
    Every episode keeps the observation after its last action.
    """
    # World seeds lie above those a person types, so that no evaluation meets a world of the training data.
    draws = np.random.default_rng(seed)
    num = 50 if size is None else int(np.clip(400000 // size**2, 8, 50))  # memory stays near 100 MB
    world = Reach(mode, num, size)
    while True:
        seeds = [int(draws.integers(2**32, 2**53)) for _ in range(num)]
        operators = Operators(mode, quality, seeds, MAX_STEPS)
        yield from play(world, partial(_act, operators, world), operators.kinds, seeds)


def _act(operators: Operators, world: Reach, step: int) -> Array:
    return operators.act(world.scene, step)
