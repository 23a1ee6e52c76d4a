"""Readers, one file a layout. Every foreign word becomes ours here."""

from __future__ import annotations

from pathlib import Path

from lapwing.data.formats.aloha import is_aloha_file, read_aloha
from lapwing.data.formats.flat import is_flat, read_flat
from lapwing.data.formats.hdf5 import open_sound_hdf5
from lapwing.data.formats.options import ReadOptions
from lapwing.data.formats.serl import is_serl, read_serl
from lapwing.data.formats.serl_modes import with_mode
from lapwing.episode import Recording
from lapwing.errors import DataError

_KNOWN = (
    "flat HDF5 (observations/..., actions, rewards, terminals), ALOHA (observations/qpos, action), "
    "transitions in *.pkl or *.npz"
)


def read_recording(path: str | Path, options: ReadOptions | None = None) -> Recording:
    """Read a recording of any known layout. Raises DataError saying what was found and what is known."""
    path = Path(path)
    if (path / "meta" / "info.json").is_file():
        raise DataError(f"{path}: a LeRobot data set, which is not read in place; run `lapwing data convert` first")
    options = options or ReadOptions()
    if is_serl(path):
        return read_serl(path, options)
    recording = _read_hdf5(path, options)
    return recording if options.mode is None else with_mode(recording, options.mode)


def _read_hdf5(path: Path, options: ReadOptions) -> Recording:
    if path.is_dir():
        return read_aloha(path, options)
    with open_sound_hdf5(path) as file:
        found = ", ".join(sorted(file)) or "an empty file"
        flat, aloha = is_flat(file), is_aloha_file(file)
    if aloha:
        return read_aloha(path, options)
    if not flat:
        raise DataError(f"{path}: unknown layout (found {found}); known: {_KNOWN}; convert it first")
    return read_flat(path, options.image_layout)
