"""The columns of transition files as arrays: frames, vectors, numbers and flags. What is none raises DataError."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from lapwing.data.formats.hdf5 import float32
from lapwing.data.formats.serl_table import Table
from lapwing.data.problems import listed
from lapwing.episode import Array
from lapwing.errors import DataError

STATE = "state"


def cameras_in(table: Table, image_keys: Sequence[str] = (), group: str = "observations") -> tuple[str, ...]:
    """The cameras: `image_keys`, or every key whose values are uint8 [H, W, 3]. Notes what is no camera and no state.

    Raises DataError where a named one is not there or named twice, or images are of another dtype.
    """
    found = table.part(group)
    missing = [key for key in image_keys if key not in found]
    if missing:
        raise DataError(
            f"{table.path}: no image key {missing[0]!r} in {group!r}, found {listed(found) or 'nothing'}; "
            "name those to be used with --image-keys"
        )
    if repeated := [key for key in dict.fromkeys(image_keys) if image_keys.count(key) > 1]:
        raise DataError(f"{table.path}: image key {repeated[0]!r} is named twice, expected each once; drop one of them")
    if image_keys:
        return tuple(image_keys)
    cameras = tuple(key for key in found if _is_camera(table, group, key))
    for key in sorted({*found} - {STATE, *cameras}):
        table.note(f"'{group}/{key}' is neither a camera, uint8 [H, W, 3], nor the state: not used")
    return cameras


def _is_camera(table: Table, group: str, key: str) -> bool:
    value = next((one for one in table.columns[f"{group}/{key}"] if one is not None), None)
    if not isinstance(value, np.ndarray) or value.ndim not in (3, 4) or value.shape[-1] != 3:
        return False
    if value.dtype != np.uint8:
        raise DataError(
            f"{table.path}: '{group}/{key}' holds images of {value.dtype}, expected uint8 [H, W, 3]; "
            "store them as recorded, 0 to 255"
        )
    return True


def frames_of(table: Table, key: str, group: str = "observations") -> list[Array]:
    """The frames of a camera, one uint8 [H, W, 3] a transition, all of one size; no copies."""
    name = f"{group}/{key}"
    frames = [_latest(table, name, _array(table, name, step, value), 3) for step, value in enumerate(table[name])]
    for step, frame in enumerate(frames):
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[-1] != 3 or not frame.size:
            raise DataError(
                f"{table.path}: {name!r} of transition {step} is {frame.dtype} {list(frame.shape)}, expected an image "
                "uint8 [H, W, 3]; convert it, or name the cameras with --image-keys"
            )
        if frame.shape != frames[0].shape:
            raise DataError(
                f"{table.path}: {name!r} of transition {step} is {list(frame.shape)}, expected "
                f"{list(frames[0].shape)} as in transition 0; resize the images to one size"
            )
    return frames


def vectors_of(table: Table, name: str) -> Array:
    """float32 [N, D]: the state or the actions, one vector a transition."""
    rows = [
        _latest(table, name, np.atleast_1d(_array(table, name, step, one)), 1) for step, one in enumerate(table[name])
    ]
    for step, row in enumerate(rows):
        if row.ndim != 1 or row.shape != rows[0].shape or not row.size:
            raise DataError(
                f"{table.path}: {name!r} of transition {step} has shape {list(row.shape)}, expected "
                f"{'a vector [D]' if step == 0 else f'{list(rows[0].shape)} as in transition 0'}; mend or drop it"
            )
    return float32(np.stack(rows))


def _latest(table: Table, name: str, value: Array, ndim: int) -> Array:
    """What HIL-SERL stacks along a leading time axis, of length 1 as a rule: the last of it."""
    if value.ndim != ndim + 1 or not len(value):
        return value
    if len(value) > 1:
        table.note(f"{name!r} has a time axis of {len(value)}: only the last of each transition is used")
    last: Array = value[-1]
    return last


def numbers_of(table: Table, name: str, rows: slice) -> Array | None:
    """float64 [n]: one finite number a transition of `rows`; None where none of them has any."""
    if name not in table.columns:
        return None
    values = table.columns[name][rows]
    present = [value is not None for value in values]
    if not any(present):
        return None
    if not all(present):
        raise DataError(
            f"{table.path}: transition {rows.start + present.index(False)} has no {name!r}, expected it as in others "
            "of its episode; mend it"
        )
    return _finite(table, name, rows.start, values)


def _finite(table: Table, name: str, first: int, values: Sequence[Any]) -> Array:
    arrays = [_array(table, name, first + step, value) for step, value in enumerate(values)]
    for step, one in enumerate(arrays):
        if one.size != 1:
            raise DataError(
                f"{table.path}: {name!r} of transition {first + step} has shape {list(one.shape)}, expected one number"
            )
    numbers = np.array([float(one.reshape(-1)[0]) for one in arrays])
    broken = np.flatnonzero(~np.isfinite(float32(numbers)))
    if len(broken):
        step = int(broken[0])
        raise DataError(
            f"{table.path}: {name!r} of transition {first + step} is {numbers[step]}, expected a finite number; "
            "mend or drop it"
        )
    return numbers


def flags_of(table: Table, name: str) -> Array | None:
    """bool [N]; None where no transition has it."""
    numbers = numbers_of(table, name, slice(0, table.length))
    if numbers is None:
        return None
    wrong = np.flatnonzero(~np.isin(numbers, (0, 1)))
    if len(wrong):
        raise DataError(
            f"{table.path}: {name!r} of transition {wrong[0]} is {numbers[wrong[0]]:g}, expected 0 or 1; mend it"
        )
    return numbers.astype(bool)


def _array(table: Table, name: str, step: int, value: Any) -> Array:
    """The value as an array of numbers."""
    try:
        array = np.asarray(value)
    except ValueError:  # lists of unequal lengths
        array = np.asarray(None)
    if array.dtype.kind not in "fiub":
        raise DataError(
            f"{table.path}: {name!r} of transition {step} is {_told(value)}, expected numbers; store arrays"
        )
    return array


def _told(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"an array of {value.dtype}"
    return f"a {type(value).__name__}"
