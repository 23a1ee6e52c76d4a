"""Transition files as a success classifier needs them: frames and whether each shows the goal reached."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lapwing.data.formats.serl_fields import STATE, cameras_in, flags_of, frames_of, vectors_of
from lapwing.data.formats.serl_files import read_table, transition_files
from lapwing.data.formats.serl_table import Table
from lapwing.episode import Array
from lapwing.errors import DataError

_WORDS = {"success": 1, "failure": 0}
_UNWRAPPED = "observations/images"  # of the first observation after a reset, as HIL-SERL records it at times


@dataclass(frozen=True)
class LabelledFile:
    """The observations of one file. frames: camera -> uint8 [N, H, W, 3]; state: float32 [N, S], or None where it has
    none; label: int8 [N], 1 where the task has succeeded."""

    path: Path
    frames: Mapping[str, Array]
    state: Array | None
    label: Array


def read_labelled(path: Path, label: int | None = None, image_keys: Sequence[str] = ()) -> list[LabelledFile]:
    """Read a file, or those of a folder by name.

    A transition's own `labels` counts first, then `label`, which says what the files are there for, then the word
    "success" or "failure" in the name of the file, or of the folder it is in. image_keys: the cameras; by default
    every key whose values are uint8 [H, W, 3].
    Raises DataError where nothing tells, a file's name says other than `label`, or files differ in their cameras.
    """
    files = [_read(file, label, image_keys) for file in transition_files(path)]
    for one in files[1:]:
        _expect_alike(files[0], one)
    return files


def _read(path: Path, label: int | None, image_keys: Sequence[str]) -> LabelledFile:
    table = _wrapped(read_table(path))
    cameras = cameras_in(table, image_keys)
    if not cameras:
        raise DataError(
            f"{path}: no camera, expected images uint8 [H, W, 3] in 'observations'; a classifier needs them"
        )
    labels = flags_of(table, "labels")
    if labels is None:
        labels = np.full(table.length, _label_of(path, label))
    state = vectors_of(table, f"observations/{STATE}") if STATE in table.part("observations") else None
    frames = {camera: np.stack(frames_of(table, camera)) for camera in cameras}
    return LabelledFile(path, frames, state, labels.astype(np.int8))


def _wrapped(table: Table) -> Table:
    """The table without transitions whose observation is still nested as the robot gave it; HIL-SERL skips them too."""
    nested = [isinstance(value, dict) for value in table.columns.get(_UNWRAPPED, ())]
    if not any(nested):
        return table
    kept = [step for step, is_nested in enumerate(nested) if not is_nested]
    if not kept:
        raise DataError(
            f"{table.path}: all observations hold their images in a mapping 'images', expected one key a camera; "
            "store observations as the wrapped environment gives them"
        )
    columns: dict[str, Any] = {
        name: [column[step] for step in kept] for name, column in table.columns.items() if name != _UNWRAPPED
    }
    return Table(table.path, len(kept), columns)


def _label_of(path: Path, label: int | None) -> int:
    """What a file is labelled as a whole."""
    named = _named(path.stem)
    if label is None:
        told = named if named is not None else _named(path.absolute().parent.name)
        if told is None:
            raise DataError(
                f"{path}: no 'labels' in it, and neither its name nor its folder's says success or failure; rename it, "
                "or give it as --success or --failure"
            )
        return told
    if named is not None and named != label:
        word = "success" if named else "failure"
        given = "successes" if label else "failures"
        raise DataError(f"{path}: its name says {word}, expected {given} alone where it was given; move or rename it")
    return label


def _named(name: str) -> int | None:
    """The label that a name tells; None where it has none of the words, or both."""
    told = {label for word, label in _WORDS.items() if word in name.lower()}
    return told.pop() if len(told) == 1 else None


def _expect_alike(first: LabelledFile, other: LabelledFile) -> None:
    for what, expected, got in (
        ("cameras", _sizes(first), _sizes(other)),
        ("state axes", _axes(first), _axes(other)),
    ):
        if got != expected:
            raise DataError(
                f"{other.path}: {what} {got}, expected {expected} as in {first.path.name}; record them alike"
            )


def _sizes(file: LabelledFile) -> dict[str, tuple[int, ...]]:
    return {camera: frames.shape[1:3] for camera, frames in sorted(file.frames.items())}


def _axes(file: LabelledFile) -> int:
    return 0 if file.state is None else file.state.shape[1]
