"""What may enter a replay buffer: rows with frames at the spec's sizes and numbers that are numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from lapwing.data.frames import resize
from lapwing.data.replay_rows import IMAGES
from lapwing.episode import Array, Episode, Observation
from lapwing.errors import DataError, SpecError
from lapwing.spec import Axis, Camera, RobotSpec

Row = dict[str, Any]
_BLOCK_ROWS = 64  # of a recorded episode, read at once


def first_row(observation: Observation, spec: RobotSpec) -> Row:
    """The columns of an observation that an episode begins with. Raises SpecError, DataError."""
    return {**_step(np.zeros(spec.action_dim), 0.0, False, False, 0.0, spec), **_observed(observation, spec)}


def next_row(
    action: Array,
    reward: float,
    terminated: bool,
    next_observation: Observation,
    intervened: bool,
    grasp_penalty: float,
    spec: RobotSpec,
) -> Row:
    """The columns of an observation and of the step that led to it. Raises SpecError, DataError."""
    step = _step(action, reward, terminated, intervened, grasp_penalty, spec)
    return {**step, **_observed(next_observation, spec)}


def recorded_rows(episode: Episode, spec: RobotSpec) -> Iterator[Row]:
    """The rows of a recorded episode, one more than it has steps. Raises SpecError, DataError.

    An episode without marks is a demonstrator's throughout. Where the observation after the last step was not
    recorded, the one before stands in for it.
    """
    if episode.reward is None:
        raise DataError("replay buffer: an episode without rewards, which this algorithm needs; record rewards")
    steps = episode.num_steps
    penalty = np.zeros(steps) if episode.grasp_penalty is None else episode.grasp_penalty
    intervened = np.ones(steps, bool) if episode.intervened is None else episode.intervened
    observations = _observations(episode, spec)
    observation = next(observations)
    yield first_row(observation, spec)
    for step in range(steps):
        observed = step + 1 < episode.num_rows
        observation = next(observations) if observed else observation
        ends = episode.terminated and step + 1 == steps
        numbers = episode.action[step], float(episode.reward[step]), ends
        row = next_row(*numbers, observation, bool(intervened[step]), float(penalty[step]), spec)
        yield {**row, "observed": observed}


def _observations(episode: Episode, spec: RobotSpec) -> Iterator[Observation]:
    missing = [name for name in spec.camera_names if name not in episode.images]
    if missing:
        raise SpecError(f"replay buffer: an episode without cameras {missing}, expected {list(spec.camera_names)}")
    for start in range(0, episode.num_rows, _BLOCK_ROWS):
        block = {name: episode.images[name][start : start + _BLOCK_ROWS] for name in spec.camera_names}
        for place, state in enumerate(episode.state[start : start + _BLOCK_ROWS]):
            yield Observation({name: frames[place] for name, frames in block.items()}, state)


def _observed(observation: Observation, spec: RobotSpec) -> Row:
    """The state, and the frames at the spec's sizes."""
    row = {"state": _vector("state", observation.state, spec.state)}
    if set(observation.images) != set(spec.camera_names):
        raise SpecError(
            f"replay buffer: cameras {sorted(observation.images)}, expected {sorted(spec.camera_names)}; keep the "
            "cameras of the spec"
        )
    for camera in spec.cameras:
        row[IMAGES + camera.name] = _frame(camera, np.asarray(observation.images[camera.name]))
    return row


def _step(
    action: Array, reward: float, terminated: bool, intervened: bool, grasp_penalty: float, spec: RobotSpec
) -> Row:
    return {
        "action": _vector("action", action, spec.action),
        "reward": _number("reward", reward),
        "grasp_penalty": _number("grasp_penalty", grasp_penalty),
        "terminated": terminated,
        "intervened": intervened,
        "observed": True,
    }


def _frame(camera: Camera, frame: Array) -> Array:
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or 0 in frame.shape:
        raise SpecError(
            f"replay buffer: camera {camera.name!r} is {frame.dtype} {list(frame.shape)}, expected uint8 "
            f"{[camera.height, camera.width, 3]} RGB, or another height and width"
        )
    resized: Array = resize(frame[None], camera.height, camera.width)[0]
    return resized


def _vector(name: str, values: Array, axes: Sequence[Axis]) -> Array:
    vector = np.asarray(values, np.float32)
    if vector.shape != (len(axes),):
        raise SpecError(f"replay buffer: {name} has shape {list(vector.shape)}, expected {[len(axes)]} as in the spec")
    broken = np.flatnonzero(~np.isfinite(vector))
    if len(broken):
        got = f"{name} axis {axes[broken[0]].name!r} is {vector[broken[0]]}"
        raise DataError(f"replay buffer: {got}, expected a finite number; check where it comes from")
    return vector


def _number(name: str, value: float) -> float:
    if not np.isfinite(value):
        raise DataError(f"replay buffer: {name} is {value}, expected a finite number; check where it comes from")
    return float(np.float32(value))
