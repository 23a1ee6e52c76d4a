"""Two ViperX arms in MuJoCo: hand a cube over, or put a peg into a socket.

Success is strict. Transfer: the cube between both left fingers, off the table and clear of the right arm.
Insertion: the peg between the right fingers touches the pin inside the socket between the left ones, both off the
table. Either must hold for ten steps. Then, and only then, the reward is 1 and the episode terminated.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import numpy as np

from lapwing.env import Info
from lapwing.envs.aloha_physics import Physics
from lapwing.envs.aloha_plan import Planner
from lapwing.envs.aloha_scene import AXES, GRIPPERS, Task, joint_limits, joint_scene
from lapwing.envs.aloha_script import Quality, Style, draw_style, shake, write_script
from lapwing.envs.mujoco_gl import close_renderer, open_renderer
from lapwing.episode import Array, Episode, Meta, Observation
from lapwing.errors import ConfigError, SpecError
from lapwing.spec import Axis, Camera, RobotSpec, Sensor

CAMERAS = ("left", "right", "global")
MAX_STEPS = 400
SENSORS = (Sensor("velocity", (14,), "rad/s"), Sensor("effort", (14,), "N m"))  # grippers: openings per s, N
RATE_HZ = 50.0
SMALLEST = 16


def spec(task: Task, size: int = 84) -> RobotSpec:
    """The robot of a task: state and action have the same 14 axes, absolute. Raises ConfigError, WorldError."""
    _check_size(size)
    return _spec(task, size, joint_limits(joint_scene(task, size)))


def _check_size(size: int) -> None:
    if size < SMALLEST:
        raise ConfigError(f"size: got {size}, expected at least {SMALLEST} pixels for the aloha world's cameras")


def _spec(task: Task, size: int, limits: Array) -> RobotSpec:
    axes = tuple(
        Axis(name, "open", "gripper", low, high) if gripper else Axis(name, "rad", "arm", low, high)
        for name, gripper, (low, high) in zip(AXES, GRIPPERS, limits.tolist(), strict=True)
    )
    cameras = tuple(Camera(name, size, size) for name in CAMERAS)
    return RobotSpec(f"aloha-{task}", cameras, state=axes, action=axes, rate_hz=RATE_HZ, sensors=SENSORS)


class Aloha:
    """One world behind the Env protocol. Actions are absolute joint targets, clamped to the joints' limits.

    `info` has "success" and, as the packaged task's staged reward, "stage_1" to "stage_4": reached so far.
    `physics` is the truth behind the images, for scripted operators and tests.
    """

    def __init__(self, task: Task = "transfer", size: int = 84) -> None:
        _check_size(size)
        self.physics = Physics(task, size)
        self.spec = _spec(task, size, self.physics.limits)
        self.max_steps = MAX_STEPS
        self._renderer = open_renderer(self.physics.model, size)
        self._steps = 0

    def reset(self, seed: int) -> Observation:
        """Start the episode that belongs to `seed`."""
        self.physics.reset(seed)
        self._steps = 0
        return self._observe()

    def step(self, action: Array) -> tuple[Observation, float, bool, bool, Info]:
        """One control step of 20 ms. Raises SpecError for a wrong shape or a value that is not finite."""
        action = np.asarray(action, np.float64)
        if action.shape != (len(AXES),) or not np.isfinite(action).all():
            raise SpecError(f"action: got {_describe(action)}, expected {len(AXES)} finite joint targets")
        self.physics.advance(action)
        self._steps += 1
        success = self.physics.success
        info = {f"stage_{stage}": self.physics.best_stage >= stage for stage in (1, 2, 3, 4)}
        truncated = not success and self._steps >= self.max_steps
        return self._observe(), float(success), success, truncated, {"success": success, **info}

    def close(self) -> None:
        close_renderer(self._renderer)

    def _observe(self) -> Observation:
        images = {name: self._draw(name) for name in CAMERAS}
        felt = {"velocity": self.physics.velocity, "effort": self.physics.effort}
        return Observation(images, self.physics.state, felt)

    def _draw(self, camera: str) -> Array:
        self._renderer.update_scene(self.physics.data, camera)
        frame: Array = self._renderer.render()
        return frame


def _describe(action: Array) -> str:
    return f"shape {action.shape}" if action.shape != (len(AXES),) else f"{action.tolist()}"


class Expert:
    """A scripted operator: plans when it is reset, from where arms and things then are, and plays the plan."""

    def __init__(self, world: Aloha, task: Task, quality: Quality) -> None:
        self._world, self._task, self._quality = world, task, quality
        self._planner = Planner(task)

    def reset(self, seed: int) -> Meta:
        """Plan in the style that belongs to `seed`."""
        rng = np.random.default_rng((seed, 1))  # the second number: its luck is not that of the world's things
        style = draw_style(self._task, self._quality, rng)
        self._actions = iter(_plan(self._world.physics, self._planner, self._task, style, rng))
        return {"kind": style.kind}

    def __call__(self, observation: Observation, /) -> Array | None:
        return next(self._actions, None)


def demonstrations(task: Task, quality: Quality, size: int = 84, seed: int = 0) -> Iterator[Episode]:
    """Scripted episodes without end, the same ones for the same seed; the label is what happened when recorded.

    "expert" yields strict successes alone. "mixed" has disturbed and failing ones too; `meta` says which
    ("kind"), the seed of the reset, and the best packaged stage. An episode ends at success, else with its
    script (truncated).
    """
    world, planner = Aloha(task, size), Planner(task)
    try:
        for number in count():
            rng = np.random.default_rng((seed, number))
            episode = _demonstrate(world, planner, task, quality, rng)
            if quality == "mixed" or episode.success:
                yield episode
    finally:
        world.close()


def _demonstrate(world: Aloha, planner: Planner, task: Task, quality: Quality, rng: np.random.Generator) -> Episode:
    start = int(rng.integers(2**31))
    style = draw_style(task, quality, rng)
    world.physics.reset(start)
    return _record(world, start, _plan(world.physics, planner, task, style, rng), style.kind)


def _plan(physics: Physics, planner: Planner, task: Task, style: Style, rng: np.random.Generator) -> Array:
    """The actions float32 [N, 14] that do the task in this style from here on, if all goes well."""
    actions = planner.follow(physics.data.qpos, write_script(task, physics.places(), style))
    if style.kind == "disturbed":
        actions = shake(actions, rng)
    return np.clip(actions, *physics.limits.T).astype(np.float32)


def _record(world: Aloha, start: int, actions: Array, kind: str) -> Episode:
    """Do the actions in the world, until it ends or they do."""
    observations, rewards = [world.reset(start)], []
    for action in actions[: world.max_steps]:
        observation, reward, terminated, _, info = world.step(action)
        observations.append(observation)
        rewards.append(reward)
        if terminated:
            break
    return Episode(
        images={name: np.stack([one.images[name] for one in observations]) for name in CAMERAS},
        state=np.stack([one.state for one in observations]),
        action=actions[: len(rewards)],
        reward=np.array(rewards, np.float32),
        terminated=terminated,
        success=bool(info["success"]),
        meta={"kind": kind, "seed": start, "stage": world.physics.best_stage},
        sensors={sensor.name: np.stack([one.sensors[sensor.name] for one in observations]) for sensor in SENSORS},
    )
