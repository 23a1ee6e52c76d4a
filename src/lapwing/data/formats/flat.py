"""The flat layout: all episodes of a recording one after another in one HDF5 file.

    observations/{left_image,right_image,global_image}   [N, H, W, 3] or [N, 3, H, W], uint8 or float
    observations/joint                                   [N, S]
    actions [N, A]   rewards [N]   terminals [N]   timeouts [N]   episode_ends (flags [N], or exclusive ends)
    grasp_penalty [N]   intervened [N]

`rewards`, `timeouts`, `episode_ends` and the last two may be missing. A camera `left` is the dataset `left_image`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from lapwing.data.formats.columns import column, dataset_of, expect_rows, flags, found_in, matrix
from lapwing.data.formats.flat_writer import ABSENT, FlatWriter
from lapwing.data.formats.hdf5 import (
    ImageLayout,
    StoredFrames,
    camera_frames,
    child_of,
    float32,
    open_sound_hdf5,
    read_array,
)
from lapwing.episode import Array, Episode, Frames, Recording
from lapwing.errors import DataError, SpecError
from lapwing.spec import Axis, Camera, RobotSpec, unnamed_axes

__all__ = ["FlatWriter", "is_flat", "read_flat"]

_LAYOUT = "flat"
_FIRST_CAMERAS = ("left", "right", "global")  # the documents' order; others follow by name
_STATE_KEYS = ("joint", "state")


def is_flat(file: h5py.File) -> bool:
    """Whether the file, damaged perhaps, is meant to be of this layout, complete or not."""
    observations = child_of(file, "observations")
    if "action" in file or isinstance(observations, h5py.Dataset):
        return False
    return "actions" in file or observations is not None


def read_flat(path: Path, image_layout: ImageLayout = "auto") -> Recording:
    """Read a flat file in place: frames stay in the file, states, actions and rewards come into memory.

    Raises DataError naming the file, the dataset, what was found and what was expected.
    """
    with open_sound_hdf5(path) as file:
        notes: list[str] = []
        state, action, reward = _read_numbers(file, path)
        penalty = _optional(file, path, "grasp_penalty", len(action))
        intervened = flags(file, path, "intervened", len(action), _LAYOUT) if "intervened" in file else None
        frames = _read_cameras(file, path, len(action), image_layout, notes)
        ends, terminated = _boundaries(file, path, len(action), notes)
        declared = _declared(file, path)
    spec = _spec(path, frames, state.shape[1], action.shape[1], declared)
    details = _episode_details(path, declared, len(ends))
    episodes = tuple(
        Episode(
            images={name: _part(frames[name], start, stop) for name in spec.camera_names},
            state=state[start:stop],
            action=action[start:stop],
            reward=None if reward is None else reward[start:stop],
            terminated=task_ended,
            success=detail.get("success"),
            meta={key: value for key, value in detail.items() if key not in ("success", ABSENT)},
            grasp_penalty=_of_episode(penalty, "grasp_penalty", detail, start, stop),
            intervened=_of_episode(intervened, "intervened", detail, start, stop),
        )
        for start, stop, task_ended, detail in zip([0, *ends[:-1]], ends, terminated, details, strict=True)
    )
    return Recording(path, "flat", spec, episodes, tuple(notes))


def _of_episode(values: Array | None, key: str, detail: Mapping[str, Any], start: int, stop: int) -> Array | None:
    return None if values is None or key in detail.get(ABSENT, ()) else values[start:stop]


def _part(frames: Frames, start: int, stop: int) -> Frames:
    return frames.part(start, stop) if isinstance(frames, StoredFrames) else frames[start:stop]


def _read_numbers(file: h5py.File, path: Path) -> tuple[Array, Array, Array | None]:
    """State float32 [N, S], action float32 [N, A] and reward float32 [N] or None."""
    observations = file.get("observations")
    if not isinstance(observations, h5py.Group):
        raise DataError(f"{path}: no group 'observations' (found {found_in(file)}); expected camera images and 'joint'")
    state_key = next((key for key in _STATE_KEYS if key in observations), None)
    if state_key is None:
        raise DataError(f"{path}: no dataset 'observations/joint' (found {found_in(observations)}); add it as [N, S]")
    action = matrix(dataset_of(file, path, "actions", _LAYOUT), path)
    if len(action) == 0:
        raise DataError(f"{path}: 'actions' has 0 rows, expected at least one step; record it again")
    has_images = any(key.endswith("_image") for key in observations)
    state = matrix(dataset_of(file, path, f"observations/{state_key}", _LAYOUT), path, least=0 if has_images else 1)
    expect_rows(path, f"observations/{state_key}", len(state), len(action))
    return state, action, _optional(file, path, "rewards", len(action))


def _optional(file: h5py.File, path: Path, key: str, rows: int) -> Array | None:
    """float32 [N], or None where the file has no such dataset."""
    return float32(column(dataset_of(file, path, key, _LAYOUT), path, rows)) if key in file else None


def _read_cameras(
    file: h5py.File, path: Path, rows: int, image_layout: ImageLayout, notes: list[str]
) -> dict[str, Frames]:
    observations = file["observations"]
    frames: dict[str, Frames] = {}
    for key in sorted(observations, key=_camera_order):
        dataset, name = child_of(observations, key), key.removesuffix("_image")
        if dataset is None:
            raise DataError(f"{path}: 'observations/{key}' cannot be read, expected a dataset; its link is broken")
        if isinstance(dataset, h5py.Dataset) and dataset.ndim == 4:
            if name in frames:
                raise DataError(f"{path}: two datasets are camera {name!r} in 'observations'; rename '{key}'")
            expect_rows(path, f"observations/{key}", len(dataset), rows)
            frames[name] = camera_frames(dataset, image_layout)
        elif key not in _STATE_KEYS:
            notes.append(f"'observations/{key}' is neither a camera [N, H, W, 3] nor the state: not used")
    return frames


def _camera_order(key: str) -> tuple[int, str]:
    name = key.removesuffix("_image")
    return (_FIRST_CAMERAS.index(name) if name in _FIRST_CAMERAS else len(_FIRST_CAMERAS), name)


def _boundaries(file: h5py.File, path: Path, rows: int, notes: list[str]) -> tuple[list[int], list[bool]]:
    """The exclusive end of each episode, and whether its task ended there."""
    if not any(key in file for key in ("terminals", "timeouts", "episode_ends")):
        raise DataError(f"{path}: no dataset 'terminals' (found {found_in(file)}); add it as bool [N]")
    terminal, timeout = (flags(file, path, key, rows, _LAYOUT) for key in ("terminals", "timeouts"))
    if (terminal & timeout).any():
        count = int((terminal & timeout).sum())
        notes.append(f"{count} rows are flagged terminal and timeout: taken as cut by the time limit")
        terminal = terminal & ~timeout
    end = terminal | timeout | _episode_ends(file, path, rows)
    if not end.any():
        notes.append("no episode boundary in the file: all of it is read as one truncated episode")
    elif not end[-1]:
        last = rows - 1 - int(np.flatnonzero(end)[-1])
        notes.append(f"the last {last} rows follow the final boundary: read as a truncated episode")
    end[-1] = True
    ends = np.flatnonzero(end)
    return [int(one) + 1 for one in ends], [bool(terminal[one]) for one in ends]


def _episode_ends(file: h5py.File, path: Path, rows: int) -> Array:
    marks = np.zeros(rows, bool)
    if "episode_ends" not in file:
        return marks
    dataset = dataset_of(file, path, "episode_ends", _LAYOUT)
    values = read_array(dataset).reshape(-1)
    if dataset.dtype == bool or (len(values) == rows and np.isin(values, (0, 1)).all()):
        return flags(file, path, "episode_ends", rows, _LAYOUT)
    with np.errstate(invalid="ignore"):  # NaN is no row number: refused below
        ends = values.astype(np.int64)
    if (ends != values).any() or (np.diff(ends, prepend=0) < 1).any() or (ends > rows).any():
        raise DataError(
            f"{path}: 'episode_ends' must be flags [N] or increasing row numbers from 1 to {rows}, each one past "
            "an episode's last row; store cumulative ends"
        )
    marks[ends - 1] = True
    return marks


def _declared(file: h5py.File, path: Path) -> Mapping[str, Any] | None:
    """What our own writer noted in the attribute `lapwing`, or None."""
    text = file.attrs.get("lapwing")
    if text is None:
        return None
    try:
        declared = json.loads(text)
        if isinstance(declared["spec"], dict) and all(isinstance(one, dict) for one in declared["episodes"]):
            return dict(declared)
    except (ValueError, TypeError, KeyError):
        pass
    raise DataError(f"{path}: attribute 'lapwing' is not the JSON our writer makes; delete the attribute")


def _spec(
    path: Path, frames: Mapping[str, Frames], state_dim: int, action_dim: int, declared: Mapping[str, Any] | None
) -> RobotSpec:
    cameras = tuple(Camera(name, one.shape[1], one.shape[2]) for name, one in frames.items())
    if declared is None:
        return RobotSpec("unnamed", cameras, unnamed_axes("state", state_dim), unnamed_axes("action", action_dim))
    try:
        spec = RobotSpec.from_dict(declared["spec"])
    except SpecError as error:
        raise DataError(f"{path}: attribute 'lapwing': {error}; delete the attribute") from error
    _expect_dim(path, "state", spec.state, state_dim)
    _expect_dim(path, "action", spec.action, action_dim)
    if set(spec.cameras) != set(cameras):
        raise DataError(
            f"{path}: attribute 'lapwing' declares cameras {list(spec.cameras)}, found {list(cameras)}; "
            "delete the attribute or restore the datasets"
        )
    return spec


def _expect_dim(path: Path, what: str, axes: tuple[Axis, ...], found: int) -> None:
    if len(axes) != found:
        raise DataError(
            f"{path}: attribute 'lapwing' names {len(axes)} {what} axes, the dataset has {found}; delete the attribute"
        )


def _episode_details(path: Path, declared: Mapping[str, Any] | None, count: int) -> list[Mapping[str, Any]]:
    if declared is None:
        return [{} for _ in range(count)]
    if len(declared["episodes"]) != count:
        raise DataError(
            f"{path}: attribute 'lapwing' describes {len(declared['episodes'])} episodes, the boundaries give {count}; "
            "delete the attribute or restore the datasets"
        )
    return list(declared["episodes"])
