"""Writing ALOHA episodes, one file each, as the original programs expect to find them."""

from __future__ import annotations

import json
import secrets
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np

from lapwing.data.formats.aloha_file import has_base
from lapwing.data.formats.aloha_images import encode_jpeg
from lapwing.data.formats.aloha_sensors import sensor_key, storable
from lapwing.episode import Array, Episode, Frames
from lapwing.errors import DataError
from lapwing.spec import RobotSpec, Sensor

Dialect = Literal["aloha", "aloha-sim", "mobile-aloha", "cobot-magic"]

# cobot_magic's training reads `compress` and fails without it; ACT and ALOHA have never written it.
_ATTRIBUTES: Mapping[Dialect, Mapping[str, bool]] = {
    "aloha": {"sim": False},
    "aloha-sim": {"sim": True},
    "mobile-aloha": {"sim": False, "compress": True},
    "cobot-magic": {"sim": False, "compress": False},
}
_WITH_BASE: tuple[Dialect, ...] = ("mobile-aloha", "cobot-magic")  # their programs read `base_action` always

_BLOCK_BYTES = 16 << 20


def episode_path(folder: Path, number: int) -> Path:
    """The file of an episode in a folder."""
    return folder / f"episode_{number}.hdf5"


def write_aloha_episode(path: Path, episode: Episode, spec: RobotSpec, dialect: Dialect = "aloha") -> None:
    """Write one episode, which appears at `path` when all went well. Frames pass through, they are not held.

    What the original loaders read always and the episode does not have (`qvel`; `base_action` in the two mobile
    dialects) is written as zeros and listed under "absent" in the attribute `lapwing`; nothing else is made up.
    Raises DataError when `path` exists, cannot be written, or the episode does not fit `spec`.
    """
    _expect_fit(path, episode, spec)
    _expect_free(path)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    try:
        # Files of format 1.8 on hold attributes of any size; older ones stop at 64 KiB.
        with h5py.File(draft, "w", libver=("v108", "latest")) as file:
            _write(file, draft.parent, episode, spec, dialect)
        _expect_free(path)
        draft.rename(path)
    except (OSError, RuntimeError) as error:  # the latter from HDF5, when closing finds the disk full
        raise DataError(f"{path}: cannot be written ({error}); free some space or choose another folder") from error
    finally:
        draft.unlink(missing_ok=True)


def _expect_free(path: Path) -> None:
    if path.exists():
        raise DataError(f"{path}: already exists; choose another name or delete it first")
    if not path.parent.is_dir():
        raise DataError(f"{path}: cannot be written (no such folder); create or choose a folder")


def _write(file: h5py.File, folder: Path, episode: Episode, spec: RobotSpec, dialect: Dialect) -> None:
    file.attrs.update(_ATTRIBUTES[dialect])
    _make_groups(file, "observations/images/")
    steps = episode.num_steps
    absent = _write_numbers(file, episode, spec, dialect)
    for sensor in spec.sensors:
        _write_rows(file, sensor_key(sensor), _typed(episode.sensors[sensor.name], sensor), steps, sensor.dtype)
    if dialect == "mobile-aloha":
        _write_jpeg(file, folder, {name: episode.images[name] for name in spec.camera_names}, steps)
    else:
        for camera in spec.camera_names:
            _write_rows(file, f"images/{camera}", episode.images[camera], steps, "uint8")
    for key, values, kind in (
        ("time", episode.time, np.float64),
        ("reward", episode.reward, np.float32),
        ("grasp_penalty", episode.grasp_penalty, np.float32),
        ("intervened", episode.intervened, np.bool_),
    ):
        if values is not None:
            file[key] = np.asarray(values, kind)
    file.attrs["lapwing"] = json.dumps(
        {
            "spec": spec.to_dict(),
            "success": None if episode.success is None else bool(episode.success),
            "terminated": bool(episode.terminated),
            "meta": dict(episode.meta),
            "absent": absent,
        }
    )


def _make_groups(file: h5py.File, key: str) -> None:
    """Make the groups of a dataset. Those that h5py makes on the way carry the time: the same episode, other bytes."""
    group = file
    for name in key.split("/")[:-1]:
        group = group[name] if name in group else group.create_group(name)


def _write_numbers(file: h5py.File, episode: Episode, spec: RobotSpec, dialect: Dialect) -> list[str]:
    """State and action, the base apart. Returns what had to be made up."""
    steps, absent = episode.num_steps, []
    state, state_base = _split(episode.state, has_base(spec.state))
    action, base = _split(episode.action, has_base(spec.action))
    file["action"] = np.asarray(action, np.float32)
    _write_rows(file, "qpos", state, steps, "float32")
    if state_base is not None:
        _write_rows(file, "base_velocity", state_base, steps, "float32")
    if "qvel" not in map(sensor_key, spec.sensors):
        _write_rows(file, "qvel", np.zeros_like(state), steps, "float32")
        absent.append("observations/qvel")
    if base is None and dialect in _WITH_BASE:
        base = _measured_base(episode, state_base)
        if base is None:
            base = np.zeros((steps, 2))
            absent.append("base_action")
    if base is not None:
        file["base_action"] = np.asarray(base[:steps], np.float32)
    return absent


def _split(values: Array, with_base: bool) -> tuple[Array, Array | None]:
    return (values[:, :-2], values[:, -2:]) if with_base else (values, None)


def _measured_base(episode: Episode, state_base: Array | None) -> Array | None:
    """The velocity of the base, which the mobile dialects call its action."""
    if state_base is not None:
        return state_base
    measured = episode.sensors.get("base_velocity")
    return None if measured is None or measured.shape[1:] != (2,) else np.asarray(measured[:])


def _typed(readings: Frames, sensor: Sensor) -> Frames:
    return readings if len(sensor.shape) > 1 else np.asarray(readings[:], sensor.dtype)


def _write_rows(file: h5py.File, key: str, rows: Frames, steps: int, dtype: str) -> None:
    """`observations/KEY` [N, ...], one chunk a row where rows are large, and the row after the last action apart."""
    item = tuple(rows.shape[1:])
    chunks = (1, *item) if len(item) > 1 else None
    _make_groups(file, f"observations/{key}")
    dataset = file.create_dataset(f"observations/{key}", (steps, *item), dtype, chunks=chunks)
    block = max(1, _BLOCK_BYTES // max(1, int(np.prod(item)) * dataset.dtype.itemsize))
    for start in range(0, steps, block):
        stop = min(start + block, steps)
        dataset[start:stop] = rows[start:stop]
    if rows.shape[0] > steps:
        _make_groups(file, f"final_observation/{key}")
        file.create_dataset(f"final_observation/{key}", data=np.asarray(rows[steps : steps + 1], dtype))


def _write_jpeg(file: h5py.File, folder: Path, images: Mapping[str, Frames], steps: int) -> None:
    """Every camera as JPEG bytes, zero-padded to the longest of all cameras' frames; their lengths beside.

    The longest is known only at the end: until then the bytes wait in a nameless file beside.
    """
    lengths = {name: np.zeros(frames.shape[0], np.int64) for name, frames in images.items()}
    with tempfile.TemporaryFile(dir=folder) as spool:
        for name, frames in images.items():
            block = max(1, _BLOCK_BYTES // int(np.prod(frames.shape[1:])))
            for start in range(0, frames.shape[0], block):
                encoded = _encode(frames[start : start + block])
                lengths[name][start : start + len(encoded)] = list(map(len, encoded))
                spool.writelines(encoded)
        spool.seek(0)
        padded = max((int(one[:steps].max()) for one in lengths.values()), default=1)
        for name, sizes in lengths.items():
            _write_padded(file, f"images/{name}", spool, sizes, steps, padded)
    file["compress_len"] = np.array([sizes[:steps] for sizes in lengths.values()], np.float32).reshape(-1, steps)


def _encode(frames: Array) -> list[bytes]:
    with ThreadPoolExecutor() as pool:  # encoding runs outside Python's lock
        return list(pool.map(encode_jpeg, frames))


def _write_padded(file: h5py.File, key: str, spool: Any, sizes: Array, steps: int, padded: int) -> None:
    dataset = file.create_dataset(f"observations/{key}", (steps, padded), np.uint8, chunks=(1, padded))
    for row, size in enumerate(sizes.tolist()):
        stored = np.frombuffer(spool.read(size), np.uint8)
        if row < steps:
            dataset[row] = np.pad(stored, (0, padded - size))
        else:
            _make_groups(file, f"final_observation/{key}")
            file.create_dataset(f"final_observation/{key}", data=stored[None])


def _expect_fit(path: Path, episode: Episode, spec: RobotSpec) -> None:
    dims = (episode.state.shape[1:], episode.action.shape[1:])
    expected = ((spec.state_dim,), (spec.action_dim,))
    if dims != expected:
        raise DataError(
            f"{path}: state and action axes are {dims}, expected {expected} as in the spec; give it another"
        )
    shapes: dict[str, tuple[int, ...]] = {f"camera {one.name!r}": (one.height, one.width, 3) for one in spec.cameras}
    _expect_shapes(path, shapes, {f"camera {name!r}": frames for name, frames in episode.images.items()})
    shapes = {f"sensor {one.name!r}": one.shape for one in spec.sensors}
    _expect_shapes(path, shapes, {f"sensor {name!r}": rows for name, rows in episode.sensors.items()})
    _expect_names(path, [*spec.camera_names, *(one.name for one in spec.sensors)])


def _expect_shapes(path: Path, shapes: Mapping[str, tuple[int, ...]], found: Mapping[str, Frames]) -> None:
    for name, shape in shapes.items():
        if name not in found:
            raise DataError(
                f"{path}: no {name}, found {', '.join(sorted(found)) or 'none'}; record it or mend the spec"
            )
        if tuple(found[name].shape[1:]) != shape:
            raise DataError(
                f"{path}: {name} is {found[name].shape[1:]}, expected {shape} as in the spec; mend the spec"
            )


def _expect_names(path: Path, names: Sequence[str]) -> None:
    for name in names:
        if not storable(name):
            raise DataError(f"{path}: the name {name!r} cannot be stored, expected text without '/'; choose another")
