"""Writing the flat layout, one episode at a time."""

from __future__ import annotations

import json
import secrets
import shutil
import weakref
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import h5py
import numpy as np

from lapwing.episode import Array, Episode, Frames
from lapwing.errors import DataError
from lapwing.spec import Camera, RobotSpec

_BLOCK_BYTES = 32 << 20


class FlatWriter:
    """A context manager that writes a flat file, which appears at `path` only when all went well.

    Frames go to plain files beside `path` first: their number is unknown until the end, and a contiguous HDF5
    dataset, the only kind that can be memory-mapped, cannot grow. The layout has room for N observations, so
    the one after an episode's last action is left out. Raises DataError when `path` exists, cannot be written,
    or an episode does not fit `spec`.
    """

    def __init__(self, path: str | Path, spec: RobotSpec) -> None:
        path = Path(path)
        self._path, self._spec = path, spec
        if path.exists():
            raise DataError(f"{path}: already exists; choose another name or delete it first")
        self._folder = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
        # Known before the folder exists: an interrupt at any line, even in here, leaves nothing behind.
        self._remove = weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        try:
            self._folder.mkdir()
        except OSError as error:
            raise DataError(f"{path}: cannot be written ({error.strerror}); create or choose a folder") from error
        self._spools: dict[str, BinaryIO] = {
            camera.name: (self._folder / f"{index}.raw").open("wb") for index, camera in enumerate(spec.cameras)
        }
        self._episodes: list[dict[str, Any]] = []
        self._columns: dict[str, list[Array]] = {
            key: [] for key in ("observations/joint", "actions", "rewards", "terminals", "timeouts")
        }

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
            self._remove()

    def add(self, episode: Episode) -> None:
        """Append one episode."""
        self._expect_fit(episode)
        steps = episode.num_steps
        try:
            for camera in self._spec.cameras:
                self._spool(camera, episode.images[camera.name], steps)
        except OSError as error:
            raise DataError(f"{self._path}: cannot be written ({error.strerror}); free some space") from error
        last = np.arange(steps) == steps - 1
        self._columns["observations/joint"].append(np.asarray(episode.state[:steps], np.float32))
        self._columns["actions"].append(np.asarray(episode.action, np.float32))
        self._columns["terminals"].append(last & episode.terminated)
        self._columns["timeouts"].append(last & episode.truncated)
        if episode.reward is not None:
            self._columns["rewards"].append(np.asarray(episode.reward, np.float32))
        success = {} if episode.success is None else {"success": bool(episode.success)}
        self._episodes.append({**episode.meta, **success})

    def _spool(self, camera: Camera, frames: Frames, steps: int) -> None:
        file, frame_bytes = self._spools[camera.name], camera.height * camera.width * 3
        file.seek(sum(map(len, self._columns["actions"])) * frame_bytes)
        file.truncate()  # what an episode that could not be read to its end has left
        block = max(1, _BLOCK_BYTES // frame_bytes)
        for start in range(0, steps, block):
            file.write(np.ascontiguousarray(frames[start : min(start + block, steps)]).data)

    def _expect_fit(self, episode: Episode) -> None:
        where = f"{self._path}: episode {len(self._episodes)}"
        dims = (episode.state.shape[1:], episode.action.shape[1:])
        expected = ((self._spec.state_dim,), (self._spec.action_dim,))
        if dims != expected:
            raise DataError(f"{where}: state and action axes {dims}, expected {expected} as in the spec")
        for camera in self._spec.cameras:
            _expect_camera(where, camera, episode)
        if self._episodes and bool(self._columns["rewards"]) != (episode.reward is not None):
            raise DataError(f"{where}: some episodes have rewards and some have none; give all of them rewards")

    def _finish(self) -> None:
        if not self._episodes:
            raise DataError(f"{self._path}: no episode to write; expected at least one")
        draft = self._folder / "flat.hdf5"
        # Files of format 1.8 on hold attributes of any size; older ones stop at 64 KiB.
        with h5py.File(draft, "w", libver=("v108", "latest")) as file:
            for key, parts in self._columns.items():
                if parts:
                    file[key] = np.concatenate(parts)
            for index, camera in enumerate(self._spec.cameras):
                self._move_frames(file, camera, self._folder / f"{index}.raw")
            file.attrs["lapwing"] = json.dumps({"spec": self._spec.to_dict(), "episodes": self._episodes})
        if self._path.exists():
            raise DataError(f"{self._path}: appeared while writing; choose another name or delete it first")
        draft.rename(self._path)

    def _move_frames(self, file: h5py.File, camera: Camera, spool: Path) -> None:
        shape = (sum(map(len, self._columns["actions"])), camera.height, camera.width, 3)
        dataset = file.create_dataset(f"observations/{camera.name}_image", shape, np.uint8)
        block = max(1, _BLOCK_BYTES // (camera.height * camera.width * 3))
        frames = np.memmap(spool, np.uint8, "r", shape=shape)
        for start in range(0, len(frames), block):
            dataset[start : start + block] = frames[start : start + block]
        spool.unlink()


def _expect_camera(where: str, camera: Camera, episode: Episode) -> None:
    frames = episode.images.get(camera.name)
    if frames is None:
        raise DataError(f"{where}: no camera {camera.name!r}, found {sorted(episode.images)}; add its frames")
    if frames.shape[1:] != (camera.height, camera.width, 3):
        expected = (camera.height, camera.width, 3)
        raise DataError(f"{where}: camera {camera.name!r} frames are {frames.shape[1:]}, expected {expected}")
