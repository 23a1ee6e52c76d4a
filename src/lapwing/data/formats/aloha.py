"""ALOHA episodes: one HDF5 file each, `episode_N.hdf5`, in a folder.

ACT's simulation, ALOHA, Mobile ALOHA, act-plus-plus and cobot_magic write dialects of one layout (see
docs/data-formats.md); all are read in place, and RGB comes out of every one.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import h5py
import numpy as np

from lapwing.data.formats.aloha_file import BASE_AXES, AlohaFile, has_base, read_file
from lapwing.data.formats.hdf5 import child_of, open_hdf5
from lapwing.data.formats.options import Base, ReadOptions
from lapwing.data.problems import listed
from lapwing.episode import Episode, Recording
from lapwing.errors import DataError
from lapwing.spec import Axis, RobotSpec

_NAME = re.compile(r"(mirror_)?episode_(\d+)\.hdf5")


def is_aloha(path: Path) -> bool:
    """Whether the path is a folder with episode files, or one such file, whatever its name."""
    if path.is_dir():
        return bool(episode_files(path))
    try:
        with open_hdf5(path) as file:
            return is_aloha_file(file)
    except DataError:
        return False


def is_aloha_file(file: h5py.File) -> bool:
    """Whether an open file, incomplete perhaps, is meant to be of this layout."""
    observations = child_of(file, "observations")
    return "action" in file or (
        "actions" not in file and isinstance(observations, h5py.Group) and "qpos" in observations
    )


def episode_files(folder: Path) -> list[Path]:
    """The episode files of a folder by number, then the mirrored ones by number."""
    found = [(match, path) for path in folder.iterdir() if (match := _NAME.fullmatch(path.name))]
    return [path for match, path in sorted(found, key=lambda one: (bool(one[0][1]), int(one[0][2])))]


def read_aloha(path: Path, options: ReadOptions | None = None) -> Recording:
    """Read a folder of episodes, or one file. Numbers come into memory, frames stay in the files.

    Raises DataError naming the first file that cannot be read or does not agree with the others; with
    `options.skip_damaged` such files are left out, and the recording's notes say which.
    """
    options = options or ReadOptions()
    recording, damage = scan_aloha(path, options)
    if recording is None or (damage and not options.skip_damaged):
        raise _refusal(damage, some_left=recording is not None)
    return replace(recording, notes=(*(f"left out: {one}" for one in damage), *recording.notes))


def scan_aloha(path: Path, options: ReadOptions) -> tuple[Recording | None, list[str]]:
    """The episodes that can be read and agree, None where none can, and what is wrong with each of the others."""
    files, damage = _read_all(_paths(path))
    files, strangers = _agreeing(files)
    damage += strangers
    if not files:
        return None, damage
    base, notes = _resolve_base(path, files, options.base)
    notes += _notes(files)
    spec = _with_base(_shared_spec(files, notes), base)
    return Recording(path, "aloha", spec, tuple(_episode(file, spec, base) for file in files), tuple(notes)), damage


def _paths(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    paths = episode_files(path)
    if not paths:
        below = sorted({one.parent.name for one in path.glob("*/*.hdf5") if _NAME.fullmatch(one.name)})
        if below:
            raise DataError(f"{path}: found episodes in its folders {listed(below)}, expected one folder; name one")
        held = listed(sorted(one.name for one in path.iterdir()), limit=4) or "nothing in it"
        raise DataError(f"{path}: found a folder with {held}, expected episode_0.hdf5 and so on; check the path")
    return paths


def _read_all(paths: Sequence[Path]) -> tuple[list[AlohaFile], list[str]]:
    """What can be read, and what is wrong with the rest."""
    files: list[AlohaFile] = []
    damage: list[str] = []
    for path in paths:
        try:
            files.append(read_file(path))
        except DataError as error:
            damage.append(str(error))
    return files, damage


def _refusal(damage: Sequence[str], some_left: bool) -> DataError:
    several = len(damage) > 1
    count = f"{len(damage)} episodes cannot be used, the first: " if several else ""
    advice = f"; or go on without {'them' if several else 'it'}: --skip-damaged" if some_left else ""
    return DataError(f"{count}{damage[0]}{advice}")


def _agreeing(files: Sequence[AlohaFile]) -> tuple[list[AlohaFile], list[str]]:
    """The files that agree with most others, and what sets each other one apart."""
    traits = [_traits(file) for file in files]
    if not traits:
        return [], []
    [(usual, _)] = Counter(traits).most_common(1)
    model = files[traits.index(usual)].path.name
    strangers = [
        next(
            f"{file.path}: {what} {got}, expected {expected} as in {model}; record it again"
            for (what, got), (_, expected) in zip(found, usual, strict=True)
            if got != expected
        )
        for file, found in zip(files, traits, strict=True)
        if found != usual
    ]
    return [file for file, found in zip(files, traits, strict=True) if found == usual], strangers


def _traits(file: AlohaFile) -> tuple[tuple[str, str], ...]:
    """What all episodes of a recording share, each with its name."""
    cameras = sorted(f"{camera.name} {camera.height}x{camera.width}" for camera in file.spec.cameras)
    base = "'base_action'" if file.base_action is not None else "no 'base_action'"
    return (
        ("cameras (height x width)", ", ".join(cameras) or "none"),
        ("state axes", str(file.state.shape[1])),
        ("action axes", str(file.action.shape[1])),
        ("holds", base),
        ("spec", f"{len(file.spec.state)} state and {len(file.spec.action)} action axes"),
    )


_Where = Literal["off", "action", "both"]


def _resolve_base(path: Path, files: Sequence[AlohaFile], base: Base) -> tuple[_Where, list[str]]:
    """Where the base's velocity goes, and a note where the files did not say it themselves."""
    model = files[0]
    if base == "off":
        return "off", []
    if base != "auto":
        if model.base_action is None:
            raise DataError(f"{model.path}: no dataset 'base_action', expected one with --base {base}; use --base auto")
        if base == "both" and any(len(file.state) != _base_rows(file) for file in files):
            raise DataError(
                f"{path}: no base velocity was recorded after the last action, expected one with --base both; "
                "use --base action"
            )
        return base, []
    if model.declared:
        return ("both" if has_base(model.spec.state) else "action" if has_base(model.spec.action) else "off"), []
    if model.base_action is None:
        return "off", []
    if any(file.base_action is not None and file.base_action.any() for file in files):
        return "action", ["'base_action' moves: its two axes end the action (--base off leaves them out)"]
    return "off", ["'base_action' never moves: left out of the action (--base action takes it in)"]


def _base_rows(file: AlohaFile) -> int:
    return 0 if file.base_velocity is None else len(file.base_velocity)


def _with_base(spec: RobotSpec, base: _Where) -> RobotSpec:
    return replace(
        spec, state=_axes_with_base(spec.state, base == "both"), action=_axes_with_base(spec.action, base != "off")
    )


def _axes_with_base(axes: tuple[Axis, ...], wanted: bool) -> tuple[Axis, ...]:
    arms, base = (axes[:-2], axes[-2:]) if has_base(axes) else (axes, BASE_AXES)
    return (*arms, *base) if wanted else arms


def _shared_spec(files: Sequence[AlohaFile], notes: list[str]) -> RobotSpec:
    """The spec of the first file, with the sensors that all have."""
    spec = files[0].spec
    everywhere = [sensor for sensor in spec.sensors if all(sensor in file.spec.sensors for file in files)]
    names = {sensor.name for sensor in everywhere}
    partial = sorted({sensor.name for file in files for sensor in file.spec.sensors} - names)
    if partial:
        notes.append(f"not read, for some episodes have none or others: {', '.join(partial)}")
    return replace(spec, sensors=tuple(everywhere), rate_hz=spec.rate_hz or _measured_rate(files[0]))


def _measured_rate(file: AlohaFile) -> float:
    """Steps a second by the time stamps; 0 where there are none to go by."""
    between = 0.0 if file.time is None or len(file.time) < 2 else float(np.median(np.diff(file.time)))
    return round(1 / between, 2) if between > 0 else 0.0


def _notes(files: Sequence[AlohaFile]) -> list[str]:
    """What the files say, each once, and what was taken for granted of them."""
    notes = list(dict.fromkeys(note for file in files for note in file.notes))
    spec = files[0].spec
    lossy = [one.name for one in spec.sensors if one.name.startswith("depth_") and one.dtype == "uint8"]
    if lossy:
        notes.append(f"{', '.join(lossy)}: 8 bits, clipped at 255 by whoever stored it; no distance in mm")
    if spec.rate_hz and not files[0].declared:
        notes.append(f"the files do not say their rate: {spec.rate_hz:g} Hz, as {spec.name} records")
    return notes


def _episode(file: AlohaFile, spec: RobotSpec, base: _Where) -> Episode:
    state, action = file.state, file.action
    if base == "both" and file.base_velocity is not None:
        state = np.concatenate([state, file.base_velocity], 1)
    if base != "off" and file.base_action is not None:
        action = np.concatenate([action, file.base_action], 1)
    mirrored = {"mirror": True} if file.path.name.startswith("mirror_") else {}
    success = file.details.get("success")
    return Episode(
        images={name: file.images[name] for name in spec.camera_names},
        state=state,
        action=action,
        reward=file.reward,
        terminated=bool(file.details.get("terminated", False)),
        success=None if success is None else bool(success),
        meta={**file.details.get("meta", {}), "file": file.path.name, **mirrored},
        time=file.time,
        sensors={sensor.name: file.sensors[sensor.name] for sensor in spec.sensors},
        intervened=file.intervened,
        grasp_penalty=file.grasp_penalty,
    )
