"""Readers, one file a layout. Every foreign word becomes ours here."""

from __future__ import annotations

from pathlib import Path

from lapwing.data.formats.aloha import is_aloha_file, read_aloha
from lapwing.data.formats.d4rl import is_d4rl, read_d4rl
from lapwing.data.formats.flat import is_flat, read_flat
from lapwing.data.formats.hdf5 import open_sound_hdf5
from lapwing.data.formats.minari import is_minari, read_minari
from lapwing.data.formats.options import ReadOptions
from lapwing.data.formats.robomimic import is_robomimic, read_robomimic
from lapwing.data.formats.serl import is_serl, read_serl
from lapwing.data.formats.serl_modes import with_mode
from lapwing.data.formats.trajectories import is_trajectories, read_trajectories
from lapwing.episode import Recording
from lapwing.errors import DataError

_KNOWN = (
    "flat HDF5 (observations/..., actions, rewards, terminals), D4RL (the same with observations a matrix), "
    "ALOHA (observations/qpos, action), robomimic and robosuite (data/demo_...), Minari folders, "
    "transitions in *.pkl or *.npz"
)


def read_recording(path: str | Path, options: ReadOptions | None = None) -> Recording:
    """Read a recording of any known layout. Raises DataError saying what was found and what is known."""
    path = Path(path)
    if (path / "meta" / "info.json").is_file():
        raise DataError(f"{path}: a LeRobot data set, which is not read in place; run `lapwing data convert` first")
    options = options or ReadOptions()
    if is_serl(path) and not is_trajectories(path):
        return read_serl(path, options)
    recording = _read(path, options)
    return recording if options.mode is None else with_mode(recording, options.mode)


def _read(path: Path, options: ReadOptions) -> Recording:
    if is_minari(path):
        return read_minari(path)
    if is_trajectories(path):
        return read_trajectories(path)
    if path.is_dir():
        return read_aloha(path, options)
    with open_sound_hdf5(path) as file:
        found = ", ".join(sorted(file)) or "an empty file"
        flat, aloha, d4rl, robomimic = (is_it(file) for is_it in (is_flat, is_aloha_file, is_d4rl, is_robomimic))
    if aloha:
        return read_aloha(path, options)
    if d4rl:
        return read_d4rl(path)
    if robomimic:
        return read_robomimic(path, options.image_layout)
    if not flat:
        raise DataError(f"{path}: unknown layout (found {found}); known: {_KNOWN}; convert it first")
    return read_flat(path, options.image_layout)
