"""Readers, one file a layout. Every foreign word becomes ours here."""

from __future__ import annotations

from pathlib import Path

import h5py

from lapwing.data.formats.flat import read_flat
from lapwing.data.formats.hdf5 import ImageLayout, open_hdf5
from lapwing.episode import Recording
from lapwing.errors import DataError

_KNOWN = "flat HDF5 (observations/..., actions, rewards, terminals)"


def read_recording(path: Path, image_layout: ImageLayout = "auto") -> Recording:
    """Read a recording of any known layout. Raises DataError saying what was found and what is known."""
    if (path / "meta" / "info.json").is_file():
        raise DataError(f"{path}: a LeRobot data set, which is not read in place; run `lapwing data convert` first")
    with open_hdf5(path) as file:
        keys = sorted(file)
        flat = "actions" in keys or isinstance(file.get("observations"), h5py.Group)
    if not flat or "action" in keys:
        found = ", ".join(keys) or "an empty file"
        raise DataError(f"{path}: unknown layout (found {found}); known: {_KNOWN}; convert it first")
    return read_flat(path, image_layout)
