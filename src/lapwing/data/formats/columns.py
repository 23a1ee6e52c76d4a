"""Datasets of numbers in HDF5 files, read with a clear error: vectors [N, axes], columns [N] and flags."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np

from lapwing.data.formats.hdf5 import float32, read_array
from lapwing.episode import Array
from lapwing.errors import DataError


def found_in(group: h5py.Group) -> str:
    """The names in a group, for an error."""
    return ", ".join(sorted(group)) or "nothing"


def dataset_of(group: h5py.Group, path: Path, key: str, layout: str) -> h5py.Dataset:
    """A dataset of numbers. Raises DataError saying that `layout` needs it."""
    dataset = group.get(key)
    name = f"{group.name}/{key}".lstrip("/")
    if not isinstance(dataset, h5py.Dataset):
        raise DataError(f"{path}: no dataset '{name}' (found {found_in(group)}); the {layout} layout needs it, add it")
    if dataset.dtype.kind not in "fiub":
        raise DataError(f"{path}: '{name}' holds {dataset.dtype}, expected numbers; store it as float32")
    return dataset


def expect_rows(path: Path, key: str, got: int, expected: int) -> None:
    """Raise DataError unless a dataset has as many rows as the actions."""
    if got != expected:
        raise DataError(
            f"{path}: '{key}' has {got} rows, expected {expected} as 'actions' has; cut all datasets to one length"
        )


def matrix(dataset: h5py.Dataset, path: Path, least: int = 1) -> Array:
    """float32 [N, axes], of `least` axes at least."""
    if dataset.ndim != 2 or dataset.shape[1] < least:
        key = dataset.name.lstrip("/")
        raise DataError(f"{path}: '{key}' has shape {dataset.shape}, expected two dimensions [N, axes]; reshape it")
    return float32(read_array(dataset))


def column(dataset: h5py.Dataset, path: Path, rows: int) -> Array:
    """Numbers [N] of any dtype."""
    key = dataset.name.lstrip("/")
    if not (dataset.ndim == 1 or (dataset.ndim == 2 and dataset.shape[1] == 1)):
        raise DataError(f"{path}: '{key}' has shape {dataset.shape}, expected [N] or [N, 1]; reshape it")
    expect_rows(path, key, len(dataset), rows)
    return read_array(dataset).reshape(-1)


def flags(group: h5py.Group, path: Path, key: str, rows: int, layout: str) -> Array:
    """bool [N]; all False where the group has no such dataset."""
    if key not in group:
        return np.zeros(rows, bool)
    values = column(dataset_of(group, path, key, layout), path, rows)
    if not np.isin(values, (0, 1)).all():
        name = f"{group.name}/{key}".lstrip("/")
        raise DataError(f"{path}: '{name}' holds values other than 0 and 1; expected flags, store it as bool [N]")
    return values.astype(bool)
