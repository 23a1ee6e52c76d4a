"""One ALOHA episode file, read as it lies: every dialect in circulation, and what Lapwing adds to them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from lapwing.data.formats.aloha_images import camera_images
from lapwing.data.formats.aloha_sensors import DEPTH_GROUPS, declared_sensors, found_sensors, sensor_specs
from lapwing.data.formats.aloha_source import EpisodeSource
from lapwing.data.formats.hdf5 import float32, open_sound_hdf5, read_array
from lapwing.episode import Array, Frames
from lapwing.errors import DataError, SpecError
from lapwing.spec import Axis, Camera, RobotSpec, unnamed_axes

BASE_AXES = (Axis("base_linear", "m/s", "base"), Axis("base_angular", "rad/s", "base"))
_JOINTS = ("waist", "shoulder", "elbow", "forearm_roll", "wrist_angle", "wrist_rotate")


@dataclass(frozen=True)
class AlohaFile:
    """What a file holds. N steps; rows of observations are N, or N + 1 where Lapwing recorded the one after the last.

    spec: the robot without its base, except as the file itself declares it (`declared`). state, action: of the arms.
    base_velocity: [rows, 2] or [N, 2]; base_action: [N, 2]. details: what Lapwing noted of the episode.
    """

    path: Path
    spec: RobotSpec
    declared: bool
    state: Array
    action: Array
    base_velocity: Array | None
    base_action: Array | None
    images: Mapping[str, Frames]
    sensors: Mapping[str, Frames]
    time: Array | None
    reward: Array | None
    intervened: Array | None
    grasp_penalty: Array | None
    details: Mapping[str, Any]
    notes: tuple[str, ...]


def has_base(axes: tuple[Axis, ...]) -> bool:
    """Whether the last two axes, and no others, are those of a base: what a file keeps apart as `base_action`."""
    return [axis.kind for axis in axes].count("base") == 2 and all(axis.kind == "base" for axis in axes[-2:])


def read_file(path: Path) -> AlohaFile:
    """Read one episode: numbers into memory, frames left in the file. Raises DataError."""
    with open_sound_hdf5(path) as file:
        try:
            return _read(EpisodeSource(file, path))
        except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
            raise DataError(f"{path}: the HDF5 file is damaged ({error}); copy or record it again") from error


def _read(source: EpisodeSource) -> AlohaFile:
    notes: list[str] = []
    declared = _declared(source)
    state, action = source.observed_vectors("qpos"), source.step_vectors("action")
    base_action = source.step_vectors("base_action") if source.find("base_action") is not None else None
    base_velocity = base_action
    if source.find("observations/base_velocity") is not None:
        base_velocity = source.observed_vectors("base_velocity")
    for key, values in (("base_action", base_action), ("observations/base_velocity", base_velocity)):
        if values is not None and values.shape[1] != 2:
            raise DataError(f"{source.path}: '{key}' has {values.shape[1]} axes, expected 2; store linear and angular")
    images = _images(source, notes)
    name, rate_hz = _dialect(source)
    spec = None if declared is None else _declared_spec(source, declared)
    if spec is None:
        sensors = found_sensors(source, base_action)
        # Only cobot_magic stores grippers as they come, in no unit that the file tells.
        unit = "" if name == "cobot-magic" else "open"
        axes = arm_axes("state", state.shape[1], unit), arm_axes("action", action.shape[1], unit)
        spec = RobotSpec(name, _cameras(images), *axes, rate_hz, sensor_specs(sensors))
    else:
        sensors = declared_sensors(source, spec)
        images = _declared_images(source, spec, images)
        _expect_axes(source.path, "state", spec.state, state.shape[1])
        _expect_axes(source.path, "action", spec.action, action.shape[1])
    intervened, reward, penalty = (source.step_values(key) for key in ("intervened", "reward", "grasp_penalty"))
    return AlohaFile(
        path=source.path,
        spec=spec,
        declared=declared is not None,
        state=state,
        action=action,
        base_velocity=base_velocity,
        base_action=base_action,
        images=images,
        sensors=sensors,
        time=_time(source),
        reward=None if reward is None else float32(reward),
        intervened=None if intervened is None else intervened.astype(bool),
        grasp_penalty=None if penalty is None else float32(penalty),
        details=declared or {},
        notes=tuple(notes),
    )


def _declared(source: EpisodeSource) -> Mapping[str, Any] | None:
    """What our own writer noted in the attribute `lapwing`, or None."""
    text = source.file.attrs.get("lapwing")
    if text is None:
        return None
    try:
        declared = json.loads(text)
        if isinstance(declared["spec"], dict) and isinstance(declared.get("meta", {}), dict):
            return dict(declared)
    except (ValueError, TypeError, KeyError):
        pass
    raise DataError(f"{source.path}: attribute 'lapwing' is not the JSON our writer makes; delete the attribute")


def _declared_spec(source: EpisodeSource, declared: Mapping[str, Any]) -> RobotSpec:
    try:
        spec = RobotSpec.from_dict(declared["spec"])
    except SpecError as error:
        raise DataError(f"{source.path}: attribute 'lapwing': {error}; delete the attribute") from error
    needed = {"base_action": has_base(spec.action), "observations/base_velocity": has_base(spec.state)}
    for key in (key for key, is_needed in needed.items() if is_needed):
        source.dataset(key)
    return spec


def _expect_axes(path: Path, what: str, axes: tuple[Axis, ...], found: int) -> None:
    expected = len(axes) - 2 * has_base(axes)
    if found != expected:
        key = "observations/qpos" if what == "state" else "action"
        raise DataError(
            f"{path}: '{key}' has {found} axes, expected {expected} as the spec in attribute 'lapwing' has "
            f"{what} axes; record it again or delete the attribute"
        )


def _images(source: EpisodeSource, notes: list[str]) -> dict[str, Frames]:
    if not isinstance(source.file.get("observations/images"), h5py.Group):
        raise DataError(
            f"{source.path}: no group 'observations/images', expected one dataset a camera; record it again"
        )
    images: dict[str, Frames] = {}
    for name in source.names("images"):
        frames = camera_images(*source.observed(f"images/{name}"))
        if frames is None:
            notes.append(f"'observations/images/{name}' is neither frames [N, H, W, 3] nor JPEG bytes: not used")
        else:
            images[name] = frames
    return images


def _cameras(images: Mapping[str, Frames]) -> tuple[Camera, ...]:
    return tuple(Camera(name, *frames.shape[1:3]) for name, frames in images.items())


def _declared_images(source: EpisodeSource, spec: RobotSpec, images: Mapping[str, Frames]) -> dict[str, Frames]:
    found = _cameras(images)
    if set(found) != set(spec.cameras):
        raise DataError(
            f"{source.path}: cameras are {[*found]}, expected {[*spec.cameras]} as attribute 'lapwing' says; "
            "record it again or delete the attribute"
        )
    return {name: images[name] for name in spec.camera_names}


def _dialect(source: EpisodeSource) -> tuple[str, float]:
    """Which recorder made a foreign file, and its rate in Hz; 0 where nothing tells."""
    attributes = source.file.attrs
    has_base_action = source.find("base_action") is not None
    if attributes.get("sim", False):
        return "aloha-sim", 50.0
    if any(f"observations/{group}" in source.file for group in DEPTH_GROUPS) or attributes.get("compress", 1) == 0:
        return "cobot-magic", 30.0
    if has_base_action and attributes.get("compress", False):
        return "mobile-aloha", 50.0
    return "aloha", 50.0 if "sim" in attributes and not has_base_action else 0.0


def arm_axes(prefix: str, count: int, gripper_unit: str = "") -> tuple[Axis, ...]:
    """Two arms of six joints and a gripper each, where there are 14 numbers."""
    if count != 14:
        return unnamed_axes(prefix, count)
    return tuple(
        axis
        for side in ("left", "right")
        for axis in (
            *(Axis(f"{side}_{joint}", "rad", "arm") for joint in _JOINTS),
            Axis(f"{side}_gripper", gripper_unit, "gripper"),
        )
    )


def _time(source: EpisodeSource) -> Array | None:
    if source.find("time") is None:
        return None
    dataset = source.expect_rows(source.dataset("time"), source.steps + source.observes_end)
    if dataset.ndim != 1 or dataset.dtype.kind not in "fiu":
        raise DataError(f"{source.path}: 'time' is {dataset.dtype} {dataset.shape}, expected seconds [rows]; delete it")
    return read_array(dataset).astype(np.float64)
