"""Demonstrations of robosuite in one HDF5 file: as robomimic has them, and as robosuite itself records them.

data/demo_N/obs/KEY [N, ...]   actions [N, A]   rewards [N]   dones [N]   next_obs/KEY [N, ...]   (robomimic)
data/demo_N/states [N, S]   actions [N, A]                                                        (robosuite)
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from lapwing.data.formats.columns import column, dataset_of, expect_rows, flags, matrix
from lapwing.data.formats.hdf5 import ImageLayout, camera_frames, child_of, float32, open_sound_hdf5, read_array
from lapwing.data.problems import listed
from lapwing.episode import Array, Episode, Frames, Recording
from lapwing.errors import DataError
from lapwing.spec import Axis, Camera, RobotSpec, unnamed_axes

_NUMBER = re.compile(r"\d+")
_READ = ("obs", "next_obs", "actions", "rewards", "dones", "states")
_POSE = ("x", "y", "z", "roll", "pitch", "yaw")


@dataclass(frozen=True)
class _Demo:
    """One demonstration. keys: size of every low-dimensional one; done_before: whether it goes on after a `dones`."""

    name: str
    keys: Mapping[str, int]
    episode: Episode
    done_before: bool = False


def is_robomimic(file: h5py.File) -> bool:
    """Whether the file is meant to be of either layout: a group `data` of demonstrations."""
    data = child_of(file, "data")
    return isinstance(data, h5py.Group) and any(name.startswith("demo") for name in data)


def read_robomimic(path: Path, image_layout: ImageLayout = "auto") -> Recording:
    """Read a file in place: frames stay in it, numbers come into memory.

    The state is every low-dimensional key of `obs`, by name; keys that are images are cameras, without their ending
    `_image`. Without cameras an episode has the observation after its last action from `next_obs`. robomimic's `dones`
    also mark the end of a demonstration that nothing ended: an episode counts as terminated where its last step is
    done and earned a reward. In robosuite's own files the state is `states`, the simulator's, whose first axis is the
    clock: it is the time of the episode and no part of the state; rewards are not in them, and all are truncated.
    Raises DataError naming the demonstration and the dataset.
    """
    with open_sound_hdf5(path) as file:
        data = child_of(file, "data")
        assert isinstance(data, h5py.Group)
        facts, notes = _facts(data), []
        names = sorted((name for name in data if name.startswith("demo")), key=_number)
        demos = [_read_demo(data, name, path, image_layout) for name in names]
        if unread := _unread(data, names, demos[0]):
            notes.append(f"not read: {listed(unread)}")
        if "mask" in file:
            notes.append("'mask' is not used: the episodes are divided anew for training")
    _expect_alike(demos, path)
    notes += _ending_notes(demos)
    spec = _spec(demos[0], facts)
    return Recording(path, "robomimic", spec, tuple(demo.episode for demo in demos), tuple(notes))


def _unread(data: h5py.Group, names: Sequence[str], first: _Demo) -> list[str]:
    """Keys of the demonstrations that mean nothing here, and observations that are neither vectors nor pictures."""
    taken = {*first.keys, *first.episode.images}
    observations = child_of(data, f"{first.name}/obs") or ()
    others = {f"obs/{key}" for key in observations if key not in taken and key.removesuffix("_image") not in taken}
    return sorted({key for name in names for key in data[name]} - set(_READ) | others)


def _number(name: str) -> tuple[int, str]:
    found = _NUMBER.search(name)
    return (int(found[0]) if found else -1, name)


def _facts(data: h5py.Group) -> Mapping[str, Any]:
    """What the recorder says of its environment: robomimic in `env_args`, robosuite in `env_info`."""
    facts: dict[str, Any] = {"env_name": data.attrs.get("env")}
    for key in ("env_args", "env_info"):
        try:
            told = json.loads(data.attrs[key])
            facts |= {**told, **told.get("env_kwargs", {})}
        except (KeyError, TypeError, ValueError, AttributeError):
            continue
    return facts


def _read_demo(data: h5py.Group, name: str, path: Path, image_layout: ImageLayout) -> _Demo:
    group = child_of(data, name)
    if not isinstance(group, h5py.Group):
        raise DataError(f"{path}: 'data/{name}' is no group, expected a demonstration; record it again")
    action = matrix(dataset_of(group, path, "actions", "robomimic"), path)
    if not len(action):
        raise DataError(f"{path}: 'data/{name}/actions' has 0 rows, expected at least one step; leave it out")
    observations = child_of(group, "obs")
    if isinstance(observations, h5py.Group):
        return _observed(group, name, observations, action, path, image_layout)
    return _raw(group, name, action, path)


def _observed(
    group: h5py.Group, name: str, observations: h5py.Group, action: Array, path: Path, image_layout: ImageLayout
) -> _Demo:
    """A demonstration of robomimic."""
    steps = len(action)
    vectors: dict[str, Array] = {}
    images: dict[str, Frames] = {}
    for key in sorted(observations):
        dataset = dataset_of(observations, path, key, "robomimic")
        expect_rows(path, f"data/{name}/obs/{key}", len(dataset), steps)
        if dataset.ndim <= 2:
            vectors[key] = float32(read_array(dataset)).reshape(steps, -1)
        elif dataset.ndim == 4 and 3 in (dataset.shape[1], dataset.shape[3]):
            images[key.removesuffix("_image")] = camera_frames(dataset, image_layout)
    if not vectors and not images:
        raise DataError(f"{path}: 'data/{name}/obs' holds no vector and no image; extract observations first")
    state = np.concatenate([*vectors.values(), np.zeros((steps, 0), np.float32)], 1)
    following = child_of(group, "next_obs")
    if not images and isinstance(following, h5py.Group):
        state = np.concatenate([state, _last_row(following, vectors, path)])
    done = flags(group, path, "dones", steps, "robomimic")
    rewarded = "rewards" in group
    reward = float32(column(dataset_of(group, path, "rewards", "robomimic"), path, steps)) if rewarded else None
    earned = reward is None or bool(reward[-1] > 0)
    episode = Episode(images, state, action, reward, terminated=bool(done[-1]) and earned)
    keys = {key: values.shape[1] for key, values in vectors.items()}
    return _Demo(name, keys, episode, bool(done[:-1].any()))


def _last_row(following: h5py.Group, vectors: Mapping[str, Array], path: Path) -> Array:
    """The observation after the last action, float32 [1, S]."""
    rows = []
    for key, values in vectors.items():
        dataset = dataset_of(following, path, key, "robomimic")
        expect_rows(path, dataset.name[1:], len(dataset), len(values))
        rows.append(float32(read_array(dataset, slice(-1, None))).reshape(1, -1))
        if rows[-1].shape[1] != values.shape[1]:
            raise DataError(
                f"{path}: '{dataset.name[1:]}' has {rows[-1].shape[1]} axes, expected {values.shape[1]} as in 'obs'; "
                "extract observations anew"
            )
    return np.concatenate(rows, 1)


def _raw(group: h5py.Group, name: str, action: Array, path: Path) -> _Demo:
    """A demonstration as robosuite records it."""
    dataset = dataset_of(group, path, "states", "robosuite")
    expect_rows(path, f"data/{name}/states", len(dataset), len(action))
    states = read_array(dataset)
    if states.ndim != 2:
        raise DataError(f"{path}: 'data/{name}/states' has shape {states.shape}, expected [N, axes]; record it again")
    time = states[:, 0].astype(np.float64) if _is_clock(states[:, 0]) else None
    state = float32(states if time is None else states[:, 1:])
    return _Demo(name, {"state": state.shape[1]}, Episode({}, state, action, None, terminated=False, time=time))


def _is_clock(values: Array) -> bool:
    """Whether numbers rise by one amount at every step."""
    between = np.diff(values)
    return len(between) > 0 and bool((between > 0).all() and np.ptp(between) < 1e-3 * between.mean())


def _expect_alike(demos: Sequence[_Demo], path: Path) -> None:
    first = demos[0]
    for demo in demos[1:]:
        for what, got, expected in (
            ("observations", demo.keys, first.keys),
            ("cameras", _sizes(demo), _sizes(first)),
            ("action axes", demo.episode.action.shape[1], first.episode.action.shape[1]),
        ):
            if got != expected:
                raise DataError(
                    f"{path}: 'data/{demo.name}' has {what} {got}, expected {expected} as in {first.name}; "
                    "record them alike, or keep them in files apart"
                )


def _sizes(demo: _Demo) -> dict[str, tuple[int, ...]]:
    return {name: tuple(frames.shape[1:]) for name, frames in demo.episode.images.items()}


def _ending_notes(demos: Sequence[_Demo]) -> list[str]:
    if all(demo.episode.time is not None for demo in demos):
        return [
            "'states' of the simulator are the state, without the clock they begin with; every episode counts as cut"
        ]
    going_on = [demo.name for demo in demos if demo.done_before]
    if going_on:
        return [f"'dones' before the last step mean nothing here, {listed(going_on)} go on after them: cut them there"]
    return []


def _spec(demo: _Demo, facts: Mapping[str, Any]) -> RobotSpec:
    episode = demo.episode
    cameras = tuple(Camera(name, *frames.shape[1:3]) for name, frames in episode.images.items())
    state = tuple(
        Axis(f"{key}_{index}" if size > 1 else key) for key, size in demo.keys.items() for index in range(size)
    )
    name = str(facts.get("env_name") or "unnamed")
    return RobotSpec(name, cameras, state, _action_axes(episode.action.shape[1], facts), _rate(episode, facts))


def _action_axes(count: int, facts: Mapping[str, Any]) -> tuple[Axis, ...]:
    """Named where one arm is moved by the pose of its hand, with a gripper last."""
    controller = facts.get("controller_configs")
    if count == len(_POSE) + 1 and isinstance(controller, dict) and controller.get("type") == "OSC_POSE":
        return (*(Axis(f"hand_{axis}", kind="arm") for axis in _POSE), Axis("gripper", kind="gripper"))
    return unnamed_axes("action", count)


def _rate(episode: Episode, facts: Mapping[str, Any]) -> float:
    """Steps a second, as told or by the clock; 0 where neither says."""
    told = facts.get("control_freq")
    if isinstance(told, int | float):
        return float(told)
    return 0.0 if episode.time is None else round(1 / float(np.median(np.diff(episode.time))), 2)
