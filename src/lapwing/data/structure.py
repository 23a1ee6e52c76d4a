"""The raw structure of an HDF5 file, read without trusting it: the tree, and what the flat layout misses in it."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np

from lapwing.data.formats.hdf5 import ImageLayout, camera_frames, child_of, float32, read_array
from lapwing.data.problems import Problem, Severity, from_error, listed
from lapwing.episode import Array
from lapwing.errors import DataError, SpecError
from lapwing.spec import Axis, RobotSpec, unnamed_axes

_BOUNDARIES = ("terminals", "timeouts", "episode_ends")

# The documents' order; what they do not name stands between the two.
_FIRST = ("observations", "left_image", "right_image", "global_image")
_LAST = ("joint", "state", "actions", "rewards", *_BOUNDARIES)
_SHOWN = 40  # entries of one group; a file with one group an episode would print thousands
_DEPTH = 6


def tree_lines(group: h5py.Group, indent: str = "  ", depth: int = 0) -> list[str]:
    """The groups and datasets below `group`, one line each, with dtypes and shapes."""
    names = names_of(group)
    hidden = len(names) - _SHOWN
    lines = []
    for number, name in enumerate(names[:_SHOWN], 1):
        last = number == len(names)
        child = child_of(group, name)
        lines.append(f"{indent}{'└─' if last else '├─'} {name}{_description(child)}")
        if isinstance(child, h5py.Group) and depth < _DEPTH:
            lines += tree_lines(child, indent + ("   " if last else "│  "), depth + 1)
    return lines + ([f"{indent}└─ ... {hidden} more"] if hidden > 0 else [])


def names_of(group: h5py.Group) -> list[str]:
    """Names of a group's entries in the documents' order. Those that are not text, in a damaged file, are quoted."""
    return sorted((name if isinstance(name, str) else repr(name) for name in group), key=_rank)


def _rank(name: str) -> tuple[int, str]:
    if name in _FIRST:
        return _FIRST.index(name), name
    return len(_FIRST) + (1 + _LAST.index(name) if name in _LAST else 0), name


def _description(child: h5py.Group | h5py.Dataset | None) -> str:
    if isinstance(child, h5py.Group):
        return "/"
    try:
        return ": cannot be read" if child is None else f": {child.dtype}, shape={child.shape}"
    except (TypeError, OSError, RuntimeError) as error:
        return f": cannot be read ({error})"


@dataclass
class Structure:
    """What the flat layout asks for, as far as it is there and sound; the rest is None or left out.

    rows: the length of each dataset that counts steps. state: [N, S], action: [N, A], reward: [N].
    """

    path: Path
    problems: list[Problem] = field(default_factory=list)
    rows: dict[str, int] = field(default_factory=dict)
    state_key: str = "observations/joint"
    state: Array | None = None
    action: Array | None = None
    reward: Array | None = None
    cameras: dict[str, h5py.Dataset] = field(default_factory=dict)
    state_names: tuple[str, ...] = ()
    action_names: tuple[str, ...] = ()

    def add(self, key: str, got: str, expected: str, advice: str, severity: Severity = "error") -> None:
        self.problems.append(Problem(severity, str(self.path), key, got, expected, advice))


def inspect(file: h5py.File, path: Path, image_layout: ImageLayout) -> Structure:
    """Look at every dataset of the flat layout. Numbers come into memory; frames stay in the file.

    Missing rewards are no problem of the structure: whoever imitates does without.
    """
    found = Structure(path)
    observations = child_of(file, "observations")
    if isinstance(observations, h5py.Group):
        if "state" in observations and "joint" not in observations:
            found.state_key = "observations/state"
        _inspect_cameras(found, observations, image_layout)
    found.state = _read(found, file, found.state_key, matrix=True, least=0 if found.cameras else 1)
    found.action = _read(found, file, "actions", matrix=True)
    if "rewards" in file:
        found.reward = _read(found, file, "rewards", matrix=False)
    _inspect_boundaries(found, file)
    _compare_rows(found)
    found.state_names, found.action_names = _axis_names(found, file)
    return found


def _inspect_cameras(found: Structure, observations: h5py.Group, image_layout: ImageLayout) -> None:
    meant = 0
    for name in names_of(observations):
        key, child = f"observations/{name}", child_of(observations, name)
        if child is None:
            found.add(key, "cannot be read", "a dataset", "the link or its header is broken; copy the file again")
        elif isinstance(child, h5py.Dataset) and child.ndim == 4:
            meant += 1
            _inspect_camera(found, key, child, image_layout)
        elif name.endswith("_image"):
            meant += 1
            got = f"shape {child.shape}" if isinstance(child, h5py.Dataset) else "a group"
            found.add(key, got, "images [N, H, W, 3] or [N, 3, H, W]", "store RGB frames, decoded")
    if not meant:
        found.add("observations", "no camera", "images [N, H, W, 3]", "policies will see the state alone", "warning")


def _inspect_camera(found: Structure, key: str, dataset: h5py.Dataset, image_layout: ImageLayout) -> None:
    found.rows[key] = len(dataset)
    if len(dataset) == 0:
        return  # _compare_rows tells
    try:
        camera_frames(dataset, image_layout)
        found.cameras[key] = dataset
    except DataError as error:
        found.problems.append(from_error(found.path, key, error))


def _read(found: Structure, file: h5py.File, key: str, matrix: bool, least: int = 1) -> Array | None:
    """A dataset of numbers as [N, axes] or [N]; None, with the problem noted, where it is not one."""
    expected = "numbers [N, axes]" if matrix else "numbers [N]"
    dataset = child_of(file, key)
    if dataset is None:
        found.add(key, f"missing (found {listed(names_of(file)) or 'nothing'})", expected, "add it to the file")
    elif not isinstance(dataset, h5py.Dataset) or dataset.dtype.kind not in "fiub":
        got = f"dtype {dataset.dtype}" if isinstance(dataset, h5py.Dataset) else "a group"
        found.add(key, got, expected, "store it as a float32 dataset")
    elif not _has_form(dataset.shape, matrix, least):
        found.add(key, f"shape {dataset.shape}", expected, "reshape it")
    else:
        found.rows[key] = len(dataset)
        try:
            values = float32(read_array(dataset))
            return values if matrix else values.reshape(-1)
        except DataError as error:
            found.problems.append(from_error(found.path, key, error))
    return None


def _has_form(shape: tuple[int, ...], matrix: bool, least: int) -> bool:
    if matrix:
        return len(shape) == 2 and shape[1] >= least
    return len(shape) == 1 or shape[1:] == (1,)


def _inspect_boundaries(found: Structure, file: h5py.File) -> None:
    present = [key for key in _BOUNDARIES if key in file]
    if not present:
        found.add("terminals", "missing", "flags [N], true where a task ended", "add it, or timeouts or episode_ends")
        return
    marked = False
    for key in present:
        values = _read(found, file, key, matrix=False)
        if values is None:
            return
        marked |= bool(values.any())
        if key != "episode_ends" and not np.isin(values, (0, 1)).all():
            got = f"values from {values.min():g} to {values.max():g}"
            found.add(key, got, "flags, 0 or 1", "store it as bool [N]")
        elif key == "episode_ends" and len(values) != found.rows.get("actions"):
            del found.rows[key]  # not flags but row numbers, one an episode
    if not marked:
        found.add(
            ", ".join(present),
            "no row is marked: there is no episode boundary at all",
            "a mark on the last step of each episode",
            "the file is read as one truncated episode; if it holds several, add timeouts or episode_ends",
            "warning",
        )


def _compare_rows(found: Structure) -> None:
    """Every dataset must be as long as most of them are, and hold at least two steps."""
    if not found.rows:
        return
    usual = Counter(found.rows.values()).most_common(1)[0][0]
    for key, rows in found.rows.items():
        if rows != usual:
            others = sum(other == usual for other in found.rows.values())
            found.add(key, f"{rows} rows", f"{usual} as in {others} other datasets", "cut or record all to one length")
    if usual < 2:
        found.add("actions", f"{usual} rows", "2 steps at least", "record it again")


def _axis_names(found: Structure, file: h5py.File) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of the state and the action axes, as our own writer noted them or numbered."""
    try:
        spec = RobotSpec.from_dict(json.loads(file.attrs["lapwing"])["spec"])
    except (KeyError, TypeError, ValueError, OSError, SpecError):
        spec = RobotSpec("", (), (), ())  # a damaged note is the reader's to report
    return _names("state", found.state, spec.state), _names("action", found.action, spec.action)


def _names(prefix: str, values: Array | None, declared: tuple[Axis, ...]) -> tuple[str, ...]:
    count = 0 if values is None else values.shape[1]
    return tuple(axis.name for axis in (declared if len(declared) == count else unnamed_axes(prefix, count)))
