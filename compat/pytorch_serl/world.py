"""Where train_hybrid.py acts: a simulated world that looks as the demonstrations do, or one of the user's own."""

from __future__ import annotations

import importlib
import os
import sys
from dataclasses import replace
from functools import partial

from lapwing import envs
from lapwing.env import ActionSource, Env, Info, Single
from lapwing.episode import Array, Observation
from lapwing.errors import ConfigError, LapwingError, SpecError
from lapwing.run.hybrid import World, expect_world
from lapwing.spec import RobotSpec

TOYS = {
    "single-arm-fixed-gripper": "toy-single-fixed",
    "single-arm-learned-gripper": "toy-single-learned",
    "dual-arm-fixed-gripper": "toy-dual-fixed",
    "dual-arm-learned-gripper": "toy-dual-learned",
}


def open_world(demos: RobotSpec, mode: str, name: str | None, env: str | None, image_size: int | None) -> World:
    """The world to act in: `env`, MODULE:FUNCTION that makes one; else `name`; else the toy world of the mode.

    image_size: pixels to train at, None for those of the demonstrations. Raises SpecError where the demonstrations are
    of another robot, ConfigError where it cannot be made.
    """
    world = _simulated(name or TOYS[mode], demos, image_size) if env is None else _own(env)
    try:
        expect_world(demos, world)
    except SpecError as error:
        raise SpecError(f"{error}, choose one with --world, or give your own with --env MODULE:FUNCTION") from error
    return world


def _simulated(name: str, demos: RobotSpec, size: int | None) -> World:
    """A simulated world with images of the demonstrations' size; a single camera goes by their name."""
    if size is None:
        size = max((side for one in demos.cameras for side in (one.height, one.width)), default=None)
    spec = envs.world_spec(name, size)
    names = demos.camera_names if len(spec.cameras) == len(demos.cameras) == 1 else spec.camera_names
    make = partial(_make_simulated, name, size, names, demos.state_dim > 0)
    return World(name, _as_recorded(spec, names, demos.state_dim > 0), make, settings={"size": size})


def _make_simulated(
    name: str, size: int | None, cameras: tuple[str, ...], has_state: bool
) -> tuple[Env, ActionSource | None]:
    return AsRecorded(Single(envs.make_world(name, 1, size)), cameras, has_state), None


def _own(name: str) -> World:
    env = make_env(name)
    env.close()
    return World(name, env.spec, partial(_make_own, name))


def _make_own(name: str) -> tuple[Env, ActionSource | None]:
    return make_env(name), None


def make_env(name: str) -> Env:
    """What MODULE:FUNCTION returns; modules are looked for in the current directory too. Raises ConfigError."""
    module, _, function = name.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        env = getattr(importlib.import_module(module), function)()
    except LapwingError:
        raise
    except Exception as error:  # somebody else's code
        raise ConfigError(
            f"env {name!r}: cannot be made ({type(error).__name__}: {error}), expected MODULE:FUNCTION, a function "
            "without arguments that returns an Env"
        ) from error
    missing = [part for part in ("spec", "max_steps", "reset", "step", "close") if not hasattr(env, part)]
    if missing:
        raise ConfigError(f"env {name!r}: a {type(env).__name__} without {missing[0]!r}, expected a lapwing.env.Env")
    return env


class AsRecorded:
    """A world whose cameras go by other names, and whose state is left out where the demonstrations have none."""

    def __init__(self, world: Env, cameras: tuple[str, ...], has_state: bool) -> None:
        self._world, self._has_state = world, has_state
        self.spec = _as_recorded(world.spec, cameras, has_state)
        self.max_steps = world.max_steps

    def reset(self, seed: int) -> Observation:
        return self._seen(self._world.reset(seed))

    def step(self, action: Array) -> tuple[Observation, float, bool, bool, Info]:
        observation, *rest = self._world.step(action)
        return (self._seen(observation), *rest)

    def close(self) -> None:
        self._world.close()

    def _seen(self, observation: Observation) -> Observation:
        frames = (observation.images[name] for name in self._world.spec.camera_names)
        images = dict(zip(self.spec.camera_names, frames, strict=True))
        return Observation(images, observation.state if self._has_state else observation.state[:0])


def _as_recorded(spec: RobotSpec, cameras: tuple[str, ...], has_state: bool) -> RobotSpec:
    named = tuple(replace(camera, name=name) for camera, name in zip(spec.cameras, cameras, strict=True))
    return replace(spec, cameras=named, state=spec.state if has_state else ())
