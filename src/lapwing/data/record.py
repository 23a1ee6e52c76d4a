"""Recording: the control loop hands over rows and goes on; a process beside it writes them.

The loop's side copies a row into shared memory (`ring.py`) and never touches the disk between the first observation of
an episode and its end. The process beside it (`writing_process.py`) appends to a spool (`spool.py`) and makes the file
when the episode ends.
"""

from __future__ import annotations

import multiprocessing
import time as clock
import weakref
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from lapwing.data.formats.aloha import episode_files, read_aloha
from lapwing.data.formats.aloha_writer import Dialect
from lapwing.data.ring import make_ring
from lapwing.data.spool import Recover, row_dtype, spools_in
from lapwing.data.writing_process import write_episodes
from lapwing.episode import Array, Meta, Observation
from lapwing.errors import DataError, SpecError
from lapwing.spec import RobotSpec

START_METHOD = "spawn"
"""How the writing process starts. A forked one would inherit the loop's threads, cameras and CUDA context."""


class EpisodeWriter:
    """Writes episodes into `folder` as episode_N.hdf5, as a context manager.

    An episode is `begin` (its first observation), any number of `step`s, then `keep` or `discard`. One that is
    neither kept nor discarded, because the program ended or was killed, stays in a hidden folder; the next
    EpisodeWriter recovers it up to its last whole step, or discards it (`unfinished`). `notes` says what was
    recovered. A folder with something in it is only written to with `append`. One writer a folder. A script that
    makes one needs Python's usual `if __name__ == "__main__":`, for the process beside it imports the script.
    Raises DataError when the folder cannot be used, and from any method once writing has failed.
    """

    def __init__(
        self,
        folder: Path,
        spec: RobotSpec,
        *,
        dialect: Dialect = "aloha",
        append: bool = False,
        unfinished: Recover = "keep",
    ) -> None:
        self._folder, self._spec = folder, spec
        self.lost = 0
        _expect_usable(folder, spec, append)
        self._ring = make_ring(row_dtype(spec))
        context = multiprocessing.get_context(START_METHOD)
        requests, self._requests = context.Pipe(duplex=False)
        self._replies, replies = context.Pipe(duplex=False)
        # However the program ends, the pipe closes and the process that reads it ends too.
        self._hang_up = weakref.finalize(self, self._requests.close)
        self._process = context.Process(  # type: ignore[attr-defined]
            name="episode writer",
            target=write_episodes,
            args=(folder, spec, dialect, unfinished, self._ring, requests, replies),
        )
        try:
            self._process.start()
            requests.close()
            replies.close()
            self.notes: tuple[str, ...] = self._answer()
            _expect_alike(folder, spec)  # what was recovered too
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> EpisodeWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def begin(self, observation: Observation, time: float | None = None, meta: Meta | None = None) -> None:
        """Start an episode with the observation before its first action. `time`: in s, when it was made."""
        self._expect_fit(observation)
        self.lost = 0
        self._request("begin", dict(meta or {}))
        self._hand_over(observation, time, np.zeros(self._spec.action_dim, np.float32), 0.0)

    def step(
        self,
        action: Array,
        observation: Observation,
        reward: float = 0.0,
        time: float | None = None,
        intervened: bool = False,
        wait: bool = False,
        grasp_penalty: float | None = None,
    ) -> bool:
        """Hand over an action and the observation after it; False when the disk is so far behind that it was lost.

        grasp_penalty: what working a gripper cost, 0 or below; None where the world has no such cost.
        With `wait` it waits for the disk instead. What follows a lost step is lost as well, so that an episode has
        no holes; `lost` counts. Raises SpecError for what does not fit the spec, DataError when writing has failed.
        """
        self._expect_fit(observation)
        action = np.asarray(action)
        if action.shape != (self._spec.action_dim,):
            raise SpecError(f"action: shape {list(action.shape)}, expected {self._spec.action_dim} values")
        if self._replies.poll():
            self._answer()  # nothing was asked: it is an error
        while wait and not self._ring.free:
            clock.sleep(0.001)
            self._expect_alive()
        if self.lost or not self._ring.free:
            self.lost += 1
            return False
        self._hand_over(observation, time, action, reward, intervened, grasp_penalty)
        return True

    def keep(self, terminated: bool, success: bool | None = None, meta: Meta | None = None) -> Path:
        """End the episode, wait until its file is whole, and return its path.

        Where steps were lost the end is not in it: it is then cut there, and its meta says "overrun".
        """
        if self.lost:
            terminated, success, meta = False, None, {**(meta or {}), "overrun": self.lost}
        verdict = bool(terminated), None if success is None else bool(success)  # numpy's own are no JSON
        self._request("keep", (*verdict, dict(meta or {})))
        path: Path = self._answer()
        return path

    def discard(self) -> None:
        """End the episode and forget it."""
        self._request("discard", None)
        self._answer()

    def close(self) -> None:
        """Let the process end; an episode that is neither kept nor discarded stays recoverable.

        A second time does nothing.
        """
        self._hang_up()
        if self._process.pid is not None:
            self._process.join()
        self._replies.close()
        self._ring.close()

    def _hand_over(
        self,
        observation: Observation,
        time: float | None,
        action: Array,
        reward: float,
        intervened: bool = False,
        grasp_penalty: float | None = None,
    ) -> None:
        row = self._ring.fill()
        row["time"] = np.nan if time is None else time
        row["state"], row["action"] = observation.state, action
        row["reward"], row["intervened"] = reward, intervened
        row["grasp_penalty"] = np.nan if grasp_penalty is None else grasp_penalty
        for camera in self._spec.cameras:
            row["images"][camera.name][0] = observation.images[camera.name]
        for sensor in self._spec.sensors:
            row["sensors"][sensor.name][0] = observation.sensors[sensor.name]
        self._request("row", None)

    def _request(self, verb: str, payload: Any) -> None:
        try:
            self._requests.send((verb, payload))
        except OSError:  # the other end is gone; its last words tell why
            self._answer()
            raise

    def _answer(self) -> Any:
        try:
            verb, payload = self._replies.recv()
        except (EOFError, OSError) as error:
            raise self._gone() from error
        if verb == "error":
            raise DataError(payload)
        return payload

    def _expect_alive(self) -> None:
        if self._replies.poll():
            self._answer()
        if not self._process.is_alive():
            raise self._gone()

    def _gone(self) -> DataError:
        self._process.join()
        return DataError(
            f"{self._folder}: the process that writes ended with code {self._process.exitcode}, expected it to go on; "
            "record again with --append, which recovers the unfinished episode"
        )

    def _expect_fit(self, observation: Observation) -> None:
        if set(observation.images) != set(self._spec.camera_names):
            raise SpecError(f"images: cameras {sorted(observation.images)}, expected {list(self._spec.camera_names)}")
        for camera in self._spec.cameras:
            frame, shape = observation.images[camera.name], (camera.height, camera.width, 3)
            if frame.dtype != np.uint8 or frame.shape != shape:
                got = f"{frame.dtype} {list(frame.shape)}"
                raise SpecError(f"images: camera {camera.name!r} is {got}, expected uint8 {list(shape)}")
        if np.shape(observation.state) != (self._spec.state_dim,):
            raise SpecError(f"state: shape {list(np.shape(observation.state))}, expected {self._spec.state_dim} values")
        for sensor in self._spec.sensors:
            reading = observation.sensors.get(sensor.name)
            if reading is None or np.shape(reading) != sensor.shape:
                got = "missing" if reading is None else f"of shape {list(np.shape(reading))}"
                raise SpecError(f"sensors: {sensor.name!r} is {got}, expected shape {list(sensor.shape)}")


def _expect_usable(folder: Path, spec: RobotSpec, append: bool) -> None:
    """Make the folder. Raises DataError where it holds something that one did not ask to add to, or another robot's."""
    if folder.exists() and not folder.is_dir():
        raise DataError(f"{folder}: is a file, expected a folder to record into; choose another")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{folder}: cannot be made ({error.strerror}); choose another folder") from error
    episodes, unfinished = episode_files(folder), spools_in(folder)
    if any(folder.iterdir()) and not append:
        holds = f"{len(episodes)} episodes" + (f" and {len(unfinished)} unfinished" if unfinished else "")
        raise DataError(f"{folder}: already there, with {holds}; add to it with --append, or choose another folder")
    _expect_alike(folder, spec)


def _expect_alike(folder: Path, spec: RobotSpec) -> None:
    """Raises DataError, naming only what differs, where the last episode is none of the robot that `spec` is of."""
    episodes = episode_files(folder)
    if not episodes:
        return
    there = read_aloha(episodes[-1]).spec
    sizes, sizes_there = _sizes(spec), _sizes(there)
    cameras = "camera sizes" if sizes.keys() == sizes_there.keys() else "cameras"
    traits = (
        ("state axes", there.state_dim, spec.state_dim),
        ("action axes", there.action_dim, spec.action_dim),
        (cameras, _described(sizes_there), _described(sizes)),
    )
    differing = [f"{what} {got}, expected {expected}" for what, got, expected in traits if got != expected]
    if not differing:
        return
    sides = {side for size in sizes_there.values() for side in size}
    fits = cameras == "camera sizes" and len(differing) == 1 and len(sides) == 1
    advice = f"record with --size {sides.pop()}, or choose another folder" if fits else "choose another folder"
    raise DataError(f"{episodes[-1]}: {' and '.join(differing)} as what is recorded; {advice}")


def _sizes(spec: RobotSpec) -> dict[str, tuple[int, int]]:
    """Height and width by camera."""
    return {one.name: (one.height, one.width) for one in spec.cameras}


def _described(sizes: Mapping[str, tuple[int, int]]) -> str:
    return ", ".join(f"{name} {height}x{width}" for name, (height, width) in sorted(sizes.items())) or "none"
