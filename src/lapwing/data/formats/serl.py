"""Transition files of SERL, HIL-SERL and their kin as episodes: docs/data-formats.md says which keys count and how.

A file holds every frame twice, as an observation and as the one before it; here each is kept once.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from lapwing.data.formats.options import ReadOptions
from lapwing.data.formats.serl_episodes import Observations, Stretch, following_of, observations_of, stretches_of
from lapwing.data.formats.serl_fields import cameras_in
from lapwing.data.formats.serl_files import is_serl, read_table, transition_files
from lapwing.data.formats.serl_modes import with_mode, with_usual_mode
from lapwing.data.formats.serl_table import SPEC, Table
from lapwing.episode import Array, Episode, Recording
from lapwing.errors import DataError, SpecError
from lapwing.spec import Camera, RobotSpec, unnamed_axes

__all__ = ["is_serl", "read_serl"]


@dataclass(frozen=True)
class _File:
    """What one file holds. images: of all episodes, which have none themselves, one after the other [R, H, W, 3]."""

    path: Path
    spec: RobotSpec
    episodes: Sequence[Episode]
    images: Mapping[str, Array]
    notes: Sequence[str]


def read_serl(path: Path, options: ReadOptions | None = None) -> Recording:
    """Read a file of transitions, or those of a folder by name, into memory.

    Raises DataError naming the file, the key and the transition; with `options.skip_damaged` files of a folder that
    cannot be read are left out, and the notes say which.
    """
    options = options or ReadOptions()
    files, notes = _read_all(path, options)
    for one in files[1:]:
        _expect_alike(files[0], one)
    notes += dict.fromkeys(note for one in files for note in one.notes)
    images = {
        camera: files[0].images[camera] if len(files) == 1 else np.concatenate([one.images[camera] for one in files])
        for camera in files[0].spec.camera_names
    }
    episodes = [episode for one in files for episode in one.episodes]
    stops = np.cumsum([episode.num_rows for episode in episodes])
    whole = [
        replace(episode, images={camera: frames[stop - episode.num_rows : stop] for camera, frames in images.items()})
        for episode, stop in zip(episodes, stops, strict=True)
    ]
    recording = Recording(path, "serl", files[0].spec, whole, tuple(notes))
    return with_usual_mode(recording) if options.mode is None else with_mode(recording, options.mode)


def _read_all(path: Path, options: ReadOptions) -> tuple[list[_File], list[str]]:
    """The files, and what is to be said of those left out."""
    files: list[_File] = []
    damage: list[DataError] = []
    for one in transition_files(path):
        try:
            files.append(_read(one, options.image_keys))
        except DataError as error:
            if not options.skip_damaged:
                raise
            damage.append(error)
    if not files:
        raise damage[0]
    return files, [f"left out: {error}" for error in damage]


def _read(path: Path, image_keys: Sequence[str]) -> _File:
    table = read_table(path)
    cameras = cameras_in(table, image_keys)
    now = observations_of(table, cameras)
    following = following_of(table, now)
    stretches = stretches_of(table, now, following)
    spec = _declared(table, cameras)
    if spec is None:
        sizes = unnamed_axes("state", now.state.shape[1]), unnamed_axes("action", stretches[0].episode.action.shape[1])
        spec = RobotSpec("unnamed", _cameras(now), *sizes)
    else:
        _expect_declared(table, spec, now, stretches[0].episode)
    images = {name: _joined(now.frames[name], following.frames[name], stretches) for name in spec.camera_names}
    return _File(path, spec, [stretch.episode for stretch in stretches], images, table.notes)


def _joined(frames: Sequence[Array], following: Sequence[Array], stretches: Sequence[Stretch]) -> Array:
    """The rows of all episodes in one array, as training maps them, uint8 [R, H, W, 3]."""
    joined = np.empty((sum(one.episode.num_rows for one in stretches), *frames[0].shape), np.uint8)
    row = 0
    for stretch in stretches:
        last = (
            following[stretch.stop - 1 : stretch.stop] if stretch.episode.num_rows > stretch.episode.num_steps else []
        )
        for frame in (*frames[stretch.start : stretch.stop], *last):
            joined[row] = frame
            row += 1
    return joined


def _cameras(now: Observations) -> tuple[Camera, ...]:
    return tuple(Camera(name, *frames[0].shape[:2]) for name, frames in now.frames.items())


def _declared(table: Table, cameras: Sequence[str]) -> RobotSpec | None:
    """The spec that our own writer stored, with the cameras that are used, or None."""
    texts = {str(text) for text in table.columns.get(SPEC, ()) if text is not None}
    if not texts:
        return None
    if len(texts) > 1:
        raise DataError(f"{table.path}: {SPEC!r} describes {len(texts)} robots, expected one; keep them in files apart")
    try:
        spec = RobotSpec.from_dict(json.loads(texts.pop()))
    except (ValueError, TypeError, SpecError) as error:
        raise DataError(f"{table.path}: {SPEC!r} is not the JSON our writer makes ({error}); delete the key") from error
    return replace(spec, cameras=tuple(camera for camera in spec.cameras if camera.name in cameras))


def _expect_declared(table: Table, spec: RobotSpec, now: Observations, episode: Episode) -> None:
    for what, declared, found in (
        ("state axes", spec.state_dim, now.state.shape[1]),
        ("action axes", spec.action_dim, episode.action.shape[1]),
        ("cameras", sorted(map(str, spec.cameras)), sorted(map(str, _cameras(now)))),
    ):
        if declared != found:
            raise DataError(
                f"{table.path}: {SPEC!r} declares {what} {declared}, found {found}; delete the key, or restore the file"
            )


def _expect_alike(first: _File, other: _File) -> None:
    cameras = [{camera.name: camera for camera in one.spec.cameras} for one in (first, other)]
    for what, expected, got in (
        ("cameras", *cameras),
        ("state axes", first.spec.state_dim, other.spec.state_dim),
        ("action axes", first.spec.action_dim, other.spec.action_dim),
        ("the spec", first.spec.state + first.spec.action, other.spec.state + other.spec.action),
    ):
        if got != expected:
            raise DataError(
                f"{other.path}: {what} {got}, expected {expected} as in {first.path.name}; record them alike, or keep "
                "them in folders apart"
            )
