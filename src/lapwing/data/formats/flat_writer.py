"""Writing the flat layout, one episode at a time."""

from __future__ import annotations

import json
import secrets
import shutil
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import h5py
import numpy as np

from lapwing.data.formats.aloha_sensors import storable
from lapwing.episode import Array, Episode, Frames
from lapwing.errors import DataError
from lapwing.spec import Camera, RobotSpec

OPTIONAL = {"grasp_penalty": np.float32, "intervened": np.bool_}  # each episode may have them or not
ABSENT = "absent"  # in the attribute: which of these are zeros that stand for nothing
_BLOCK_BYTES = 32 << 20


class FlatWriter:
    """A context manager that writes a flat file, which appears at `path` only when all went well.

    Episodes go to plain files in a folder beside `path` first: the number of frames is unknown until the end, and a
    contiguous HDF5 dataset, the only kind that can be memory-mapped, cannot grow. The layout has room for N
    observations, so the one after an episode's last action is left out, as are time stamps and sensors. Marks of
    intervention and grasp penalties are zeros where an episode of several has none, and the attribute says so.

    folder: where the episodes wait; by default a hidden folder that goes with the writer. One that is given stays
    when something goes wrong, and a later writer goes on after its first `finished` episodes. Raises DataError when
    `path` exists, cannot be written, a camera's name is no name of a dataset, or an episode does not fit `spec`.
    """

    def __init__(self, path: str | Path, spec: RobotSpec, folder: Path | None = None, finished: int = 0) -> None:
        path = Path(path)
        self._path, self._spec = path, replace(spec, sensors=())
        if path.exists():
            raise DataError(f"{path}: already exists; choose another name or delete it first")
        for camera in spec.cameras:
            if not storable(f"{camera.name}_image"):
                raise DataError(
                    f"{path}: camera {camera.name!r} cannot be stored, expected text without '/'; rename it"
                )
        self._folder = folder or path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
        # Known before the folder exists: an interrupt at any line, even in here, leaves nothing behind.
        self._remove = None if folder else weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        self._episodes = [_load(self._episode_path(number)) for number in range(finished)]
        self._rows = sum(len(columns["actions"]) for columns in self._episodes)
        try:
            self._folder.mkdir(exist_ok=folder is not None)
            self._spools: dict[str, BinaryIO] = {
                camera.name: _open_spool(self._spool_path(index)) for index, camera in enumerate(spec.cameras)
            }
        except OSError as error:
            raise DataError(f"{path}: cannot be written ({error.strerror}); create or choose a folder") from error

    def __enter__(self) -> FlatWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            for spool in self._spools.values():
                spool.close()
            if kind is None:
                self._finish()
        except OSError as failure:
            raise DataError(f"{self._path}: cannot be written ({failure}); free some space") from failure
        finally:
            if self._remove:
                self._remove()

    def add(self, episode: Episode) -> None:
        """Append one episode."""
        self._expect_fit(episode)
        steps = episode.num_steps
        last = np.arange(steps) == steps - 1
        success = {} if episode.success is None else {"success": bool(episode.success)}
        columns = {
            "observations/joint": np.asarray(episode.state[:steps], np.float32),
            "actions": np.asarray(episode.action, np.float32),
            "terminals": last & episode.terminated,
            "timeouts": last & episode.truncated,
            "episode": np.array(json.dumps({**episode.meta, **success})),
        }
        for key, values, kind in (
            ("rewards", episode.reward, np.float32),
            ("grasp_penalty", episode.grasp_penalty, np.float32),
            ("intervened", episode.intervened, np.bool_),
        ):
            if values is not None:
                columns[key] = np.asarray(values, kind)
        try:
            for camera in self._spec.cameras:
                self._spool(camera, episode.images[camera.name], steps)
            if not self._remove:
                _save(self._episode_path(len(self._episodes)), columns)
        except OSError as error:
            raise DataError(f"{self._path}: cannot be written ({error.strerror}); free some space") from error
        self._episodes.append(columns)
        self._rows += steps

    def _spool_path(self, index: int) -> Path:
        return self._folder / f"{index}.raw"

    def _episode_path(self, number: int) -> Path:
        return self._folder / f"{number}.npy"

    def _spool(self, camera: Camera, frames: Frames, steps: int) -> None:
        file, frame_bytes = self._spools[camera.name], camera.height * camera.width * 3
        file.seek(self._rows * frame_bytes)
        file.truncate()  # what an episode that could not be read to its end has left
        block = max(1, _BLOCK_BYTES // frame_bytes)
        for start in range(0, steps, block):
            file.write(np.ascontiguousarray(frames[start : min(start + block, steps)]).data)
        file.flush()

    def _expect_fit(self, episode: Episode) -> None:
        where = f"{self._path}: episode {len(self._episodes)}"
        dims = (episode.state.shape[1:], episode.action.shape[1:])
        expected = ((self._spec.state_dim,), (self._spec.action_dim,))
        if dims != expected:
            raise DataError(f"{where}: state and action axes {dims}, expected {expected} as in the spec")
        for camera in self._spec.cameras:
            _expect_camera(where, camera, episode)
        if self._episodes and ("rewards" in self._episodes[0]) != (episode.reward is not None):
            raise DataError(f"{where}: some episodes have rewards and some have none; give all of them rewards")

    def _finish(self) -> None:
        if not self._episodes:
            raise DataError(f"{self._path}: no episode to write; expected at least one")
        draft = self._folder / "flat.hdf5"
        # Files of format 1.8 on hold attributes of any size; older ones stop at 64 KiB.
        with h5py.File(draft, "w", libver=("v108", "latest")) as file:
            file.create_group("observations")  # made on the way, it would carry the time: same data, other bytes
            for key in ("observations/joint", "actions", "rewards", "terminals", "timeouts"):
                if key in self._episodes[0]:
                    file[key] = np.concatenate([columns[key] for columns in self._episodes])
            optional = [key for key in OPTIONAL if any(key in columns for columns in self._episodes)]
            for key in optional:
                file[key] = np.concatenate([_column(columns, key) for columns in self._episodes])
            for index, camera in enumerate(self._spec.cameras):
                self._move_frames(file, camera, self._spool_path(index))
            details = [
                {**json.loads(str(columns["episode"])), **_absent(columns, optional)} for columns in self._episodes
            ]
            file.attrs["lapwing"] = json.dumps({"spec": self._spec.to_dict(), "episodes": details})
        if self._path.exists():
            raise DataError(f"{self._path}: appeared while writing; choose another name or delete it first")
        draft.rename(self._path)

    def _move_frames(self, file: h5py.File, camera: Camera, spool: Path) -> None:
        shape = (self._rows, camera.height, camera.width, 3)
        dataset = file.create_dataset(f"observations/{camera.name}_image", shape, np.uint8)
        block = max(1, _BLOCK_BYTES // (camera.height * camera.width * 3))
        frames = np.memmap(spool, np.uint8, "r", shape=shape)
        for start in range(0, len(frames), block):
            dataset[start : start + block] = frames[start : start + block]
        if self._remove:
            spool.unlink()  # a given folder must stay whole until the file is there: it takes twice the room


def _column(columns: Mapping[str, Array], key: str) -> Array:
    return columns[key] if key in columns else np.zeros(len(columns["actions"]), OPTIONAL[key])


def _absent(columns: Mapping[str, Array], optional: Sequence[str]) -> dict[str, list[str]]:
    absent = [key for key in optional if key not in columns]
    return {ABSENT: absent} if absent else {}


def _open_spool(path: Path) -> BinaryIO:
    path.touch()
    return path.open("r+b")


def _save(path: Path, columns: Mapping[str, Array]) -> None:
    """Write arrays, their names first, beside and rename: an episode whose numbers are there is whole, frames and all.

    One after the other, not zipped: a recording may have thousands of short episodes.
    """
    draft = path.with_suffix(".partial")
    with draft.open("wb") as file:
        for values in (np.array(list(columns)), *columns.values()):
            np.save(file, values)
    draft.rename(path)


def _load(path: Path) -> dict[str, Array]:
    try:
        with path.open("rb") as file:
            return {str(name): np.load(file) for name in np.load(file)}
    except (OSError, EOFError, ValueError) as error:
        raise DataError(f"{path}: cannot be read back ({error}); delete the folder and begin again") from error


def _expect_camera(where: str, camera: Camera, episode: Episode) -> None:
    frames = episode.images.get(camera.name)
    if frames is None:
        raise DataError(f"{where}: no camera {camera.name!r}, found {sorted(episode.images)}; add its frames")
    if frames.shape[1:] != (camera.height, camera.width, 3):
        expected = (camera.height, camera.width, 3)
        raise DataError(f"{where}: camera {camera.name!r} frames are {frames.shape[1:]}, expected {expected}")
