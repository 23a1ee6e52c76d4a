"""An open ALOHA file: datasets by name, with their presence, kind and length checked."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np

from lapwing.data.formats.hdf5 import float32, read_array
from lapwing.episode import Array
from lapwing.errors import DataError


class EpisodeSource:
    """An open file, the number of its steps, and reading with every length checked."""

    def __init__(self, file: h5py.File, path: Path) -> None:
        self.file, self.path = file, path
        self.steps = self.dataset("action").shape[0]
        if self.steps == 0:
            raise DataError(f"{path}: 'action' has 0 rows, expected at least one step; record it again")
        self.observes_end = "final_observation" in file

    def find(self, key: str) -> h5py.Dataset | None:
        """A dataset, None where there is none of that name."""
        child = self.file.get(key)
        return child if isinstance(child, h5py.Dataset) else None

    def dataset(self, key: str) -> h5py.Dataset:
        found = self.find(key)
        if found is None:
            group, name = (self.file, key) if "/" not in key else (self.file.get(key.rsplit("/", 1)[0]), key)
            names = ", ".join(sorted(group)) if isinstance(group, h5py.Group) else ""
            raise DataError(f"{self.path}: no dataset '{name}' (found {names or 'nothing'}); record it again")
        if found.ndim == 0:
            raise DataError(f"{self.path}: '{key}' is a single value, expected one row a step; record it again")
        return found

    def step_values(self, key: str) -> Array | None:
        """One value a step [N]; None where the file has none."""
        return None if self.find(key) is None else self._sound(self.dataset(key), self.steps, 1)

    def step_vectors(self, key: str) -> Array:
        """float32 [N, axes]."""
        return float32(self._sound(self.dataset(key), self.steps, 2))

    def observed_vectors(self, key: str) -> Array:
        """float32 [rows, axes] of `observations/KEY`, the one after the last action included."""
        dataset, last = self.observed(key)
        values = self._sound(dataset, self.steps, 2)
        return float32(values if last is None else np.concatenate([values, self._sound(last, 1, 2)]))

    def observed(self, key: str) -> tuple[h5py.Dataset, h5py.Dataset | None]:
        """`observations/KEY`, and its row after the last action, where the file has one. Raises DataError."""
        dataset = self.expect_rows(self.dataset(f"observations/{key}"), self.steps)
        if not self.observes_end:
            return dataset, None
        last = self.expect_rows(self.dataset(f"final_observation/{key}"), 1)
        jpeg = dataset.ndim == 2 and dataset.dtype == np.uint8  # padded by itself
        if not jpeg and last.shape[1:] != dataset.shape[1:]:
            raise DataError(
                f"{self.path}: '{last.name[1:]}' is {last.shape[1:]}, expected {dataset.shape[1:]} as before; "
                "record it again"
            )
        return dataset, last

    def names(self, group: str) -> list[str]:
        """Names in `observations/GROUP`."""
        found = self.file.get(f"observations/{group}")
        return sorted(found) if isinstance(found, h5py.Group) else []

    def expect_rows(self, dataset: h5py.Dataset, rows: int) -> h5py.Dataset:
        if len(dataset) != rows:
            raise DataError(
                f"{self.path}: '{dataset.name[1:]}' has {len(dataset)} rows, expected {rows}"
                f"{' as action has' if rows == self.steps else ''}; record it again or cut all to one length"
            )
        return dataset

    def _sound(self, dataset: h5py.Dataset, rows: int, dimensions: int) -> Array:
        key = dataset.name[1:]
        if dataset.ndim != dimensions or dataset.dtype.kind not in "fiub" or 0 in dataset.shape[1:]:
            expected = "numbers [N, axes]" if dimensions == 2 else "numbers [N]"
            raise DataError(
                f"{self.path}: '{key}' is {dataset.dtype} {dataset.shape}, expected {expected}; store it so"
            )
        return read_array(self.expect_rows(dataset, rows))
