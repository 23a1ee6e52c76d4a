"""Labelled frames out of files: pickles and npz of successes and failures, and recordings whose rewards tell.

Frames of files that are not recordings are in memory; those of a recording are read where they lie.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from lapwing.data.formats import read_recording
from lapwing.data.formats.options import ReadOptions
from lapwing.data.formats.serl_labels import read_labelled
from lapwing.data.frames import FrameStore, resize
from lapwing.data.labelled import Part
from lapwing.data.problems import listed
from lapwing.episode import Array, Episode, Frames, Recording
from lapwing.errors import DataError
from lapwing.spec import Camera

_DEFAULTS = ReadOptions()


@dataclass(frozen=True)
class LabelledFiles:
    """All labelled frames there are, of the cameras that were chosen. `notes`: what the user should hear."""

    cameras: tuple[Camera, ...]
    parts: tuple[Part, ...]
    notes: tuple[str, ...]


def read_labelled_files(
    success: Sequence[Path],
    failure: Sequence[Path],
    recordings: Sequence[Path] = (),
    options: ReadOptions = _DEFAULTS,
    size: int | None = None,
    progress: bool = True,
) -> LabelledFiles:
    """Read files or folders of successes and of failures, and recordings, whose rewarded steps lead to success.

    Files of the same name, as a success and a failure have that come of one episode, count as one recording.
    options.image_keys: the cameras to keep, none for all; size: pixels to bring all frames to, None for the recorded
    size. Raises DataError when a folder is empty, or cameras are missing or of different sizes.
    """
    parts = [
        Part(
            str(one.path), f"{one.path.absolute().parent.name}/{one.path.name}", one.path.name, 0, one.frames, one.label
        )
        for label, paths in ((1, success), (0, failure))
        for path in paths
        for one in read_labelled(path, label, options.image_keys)
    ]
    _expect_once([part.file for part in parts] + [str(path) for path in recordings])
    notes: list[str] = []
    for path in recordings:
        more, said = _episodes(read_recording(path, options), options.image_keys, size, progress)
        parts, notes = [*parts, *more], [*notes, *said]
    if not parts:
        raise DataError("labelled frames: none, expected files of successes and of failures; give --success, --failure")
    chosen = [_choose(part, options.image_keys or tuple(parts[0].images), size) for part in parts]
    return LabelledFiles(_cameras(chosen), tuple(chosen), tuple(notes))


def _expect_once(files: Sequence[str]) -> None:
    """Raise DataError where a file is named twice: on both sides of a division, or with two labels."""
    known: set[Path] = set()
    for file in files:
        if (real := Path(file).resolve()) in known:
            raise DataError(f"{file}: is given twice, expected each file once; leave one of them out")
        known.add(real)


def _choose(part: Part, names: Sequence[str], size: int | None) -> Part:
    """The part with these cameras alone, in this order, at `size`."""
    missing = [name for name in names if name not in part.images]
    if missing:
        there = listed(sorted(part.images)) or "none"
        raise DataError(
            f"{part.file}: no camera {missing[0]!r}, it has {there}; expected the same in all files, choose some with "
            "--image-keys"
        )
    images = {name: part.images[name] for name in names}
    if size is not None:
        images = {name: resize(one, size, size) if isinstance(one, np.ndarray) else one for name, one in images.items()}
    return replace(part, images=images)


def _cameras(parts: Sequence[Part]) -> tuple[Camera, ...]:
    """Raises DataError where frames of one camera differ in size."""
    first = parts[0]
    cameras = tuple(Camera(name, *frames.shape[1:3]) for name, frames in first.images.items())
    for part in parts:
        for camera in cameras:
            height, width = part.images[camera.name].shape[1:3]
            if (height, width) != (camera.height, camera.width):
                raise DataError(
                    f"{part.file}: camera {camera.name!r} is {height} x {width}, in {first.name} it is "
                    f"{camera.height} x {camera.width}, expected one size; train with --image-size"
                )
    return cameras


@dataclass(frozen=True)
class _StoredRows:
    """The frames of one camera in one episode of a store, as `Frames`."""

    store: FrameStore
    camera: Camera
    first_row: int
    count: int

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.count, self.camera.height, self.camera.width, 3)

    def __getitem__(self, rows: Any, /) -> Array:
        return self.store.gather(self.camera.name, self.first_row + np.asarray(rows))


def _episodes(
    recording: Recording, names: Sequence[str], size: int | None, progress: bool
) -> tuple[list[Part], list[str]]:
    """A part for each episode, and what could not be used of them."""
    store = FrameStore.open(_with_cameras(recording, names), size, progress=progress)
    parts, unseen = [], 0
    for index, episode in enumerate(recording.episodes):
        label, lost = success_rows(episode, f"{recording.path}: episode {index}")
        first, unseen = int(store.row_of_episode[index]), unseen + lost
        images: dict[str, Frames] = {
            camera.name: _StoredRows(store, camera, first, episode.num_rows) for camera in store.cameras
        }
        name = f"{recording.path.name}, episode {index}"
        parts.append(Part(str(recording.path), name, str(recording.path), index, images, label))
    notes = list(recording.notes)
    if unseen:
        notes.append(
            f"{recording.path}: {unseen} episodes end with a reward and without the observation it was given for: "
            "these successes are not shown to the classifier"
        )
    return parts, notes


def _with_cameras(recording: Recording, names: Sequence[str]) -> Recording:
    """The recording with the cameras in `names` alone, so that no other is cached; all where none is named."""
    cameras = tuple(one for one in recording.spec.cameras if not names or one.name in names)
    if not cameras:
        there = listed(recording.spec.camera_names) or "none"
        raise DataError(f"{recording.path}: cameras are {there}, expected {listed(names) or 'some'}; see --image-keys")
    return replace(recording, spec=replace(recording.spec, cameras=cameras))


def success_rows(episode: Episode, where: str) -> tuple[Array, int]:
    """int8 [rows], 1 where the step before earned a reward; and 1 more where the row after the last was not recorded.

    Raises DataError where the rewards are none, or no marks of success.
    """
    reward = episode.reward
    if reward is None:
        raise DataError(f"{where} has no rewards, expected 1 where it succeeded; convert it with --reward LABELS first")
    if not np.isfinite(reward).all():
        step = int(np.flatnonzero(~np.isfinite(reward))[0])
        raise DataError(
            f"{where}: reward is {reward[step]} at step {step}, expected finite numbers; mend the recording"
        )
    marks = np.unique(reward[reward > 0])
    if len(marks) > 1:
        raise DataError(
            f"{where}: rewards from {marks[0]:g} to {marks[-1]:g}, expected one value that marks success; convert it "
            "with --reward LABELS first"
        )
    after = np.flatnonzero(reward > 0) + 1
    label = np.zeros(episode.num_rows, np.int8)
    label[after[after < episode.num_rows]] = 1
    return label, int((after >= episode.num_rows).any())
