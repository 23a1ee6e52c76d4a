"""Rows that lie in files as plain bytes, read without HDF5."""

from __future__ import annotations

import os
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lapwing.data.formats import in_place as module
from lapwing.data.formats.in_place import InPlace, in_place, join
from lapwing.errors import DataError


def store(path: Path, values: np.ndarray, **storage) -> InPlace | None:
    with h5py.File(path, "w", userblock_size=storage.pop("userblock_size", 0)) as file:
        file.create_dataset("rows", data=values, **storage)
    with h5py.File(path) as file:
        return in_place(file["rows"])


def numbers(rows: int, item: tuple[int, ...] = (3, 2), dtype: str = "uint16") -> np.ndarray:
    return np.random.default_rng(rows).integers(0, 200, (rows, *item)).astype(dtype)


ROWS = [0, -1, slice(None), slice(1, 3), slice(None, None, -1), slice(2, 2), np.array([4, 0, 4]), np.array([[1], [2]])]


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32", ">i4"])
@pytest.mark.parametrize("chunks", [None, (1, 3, 2)])
@pytest.mark.parametrize("rows", ROWS, ids=str)
def test_indexing_is_that_of_an_array(tmp_path, dtype, chunks, rows):
    values = numbers(5, dtype=dtype)
    found = store(tmp_path / "d.hdf5", values, chunks=chunks)
    np.testing.assert_array_equal(found[rows], values[rows])
    assert (found[rows].dtype, found[rows].shape, found.shape) == (values.dtype, values[rows].shape, values.shape)


@pytest.mark.parametrize(
    "storage",
    [{"chunks": (2, 3, 2)}, {"chunks": (1, 3, 1)}, {"compression": "gzip"}, {"userblock_size": 512}],
    ids=str,
)
def test_what_does_not_lie_row_by_row_is_left_to_hdf5(tmp_path, storage):
    assert store(tmp_path / "d.hdf5", numbers(4), **storage) is None


def test_rows_never_written_are_left_to_hdf5(tmp_path):
    with h5py.File(tmp_path / "d.hdf5", "w") as file:
        empty = file.create_dataset("empty", (4, 3), np.uint8)
        partly = file.create_dataset("partly", (4, 3), np.uint8, chunks=(1, 3))
        partly[1] = 7
        assert (in_place(empty), in_place(partly)) == (None, None)


def test_a_damaged_index_of_the_rows_is_an_error(tmp_path):
    path = tmp_path / "d.hdf5"
    store(path, numbers(4), chunks=(1, 3, 2))
    data = bytearray(path.read_bytes())
    tree = data.index(b"TREE\x01")  # of chunks: 24 bytes of head, then keys of 40 bytes and addresses of 8 in turn
    data[tree + 24 + 48 + 8] = 77  # the row that the second key stands for
    path.write_bytes(data)
    with h5py.File(path) as file, pytest.raises(DataError, match=r"d.hdf5: 'rows' has rows whose place is not known"):
        in_place(file["rows"])


@settings(deadline=None, max_examples=20)
@given(lengths=st.lists(st.integers(1, 9), min_size=1, max_size=5), at_once=st.integers(1, 4), data=st.data())
def test_rows_of_many_files_are_one_sequence(tmp_path_factory, lengths, at_once, data):
    folder = tmp_path_factory.mktemp("many")
    parts = [numbers(length) for length in lengths]
    found = [
        store(folder / f"{index}.hdf5", values, chunks=(1, 3, 2) if index % 2 else None)
        for index, values in enumerate(parts)
    ]
    values = np.concatenate(parts)
    rows = np.array(data.draw(st.lists(st.integers(0, len(values) - 1), max_size=12)), np.int64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_ROWS_AT_ONCE", at_once)
        np.testing.assert_array_equal(join([join(found[:1]), *found[1:]])[rows], values[rows])


def test_rows_of_a_file_that_was_moved_are_an_error_that_closes_what_it_opened(tmp_path):
    found = join([store(tmp_path / "a.hdf5", numbers(2)), store(tmp_path / "b.hdf5", numbers(3))])
    (tmp_path / "b.hdf5").rename(tmp_path / "c.hdf5")
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(DataError, match=r"b.hdf5: frames cannot be read .*; copy or record the file again"):
        found[:]
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_recording_may_be_named_from_another_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    values = numbers(3)
    found = store(Path("d.hdf5"), values)
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    np.testing.assert_array_equal(found[:], values)
