"""Transition files of SERL and its kin: a pickled list of mappings, or the same as arrays in an npz file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lapwing.data.formats.serl_npz import read_npz
from lapwing.data.formats.serl_table import Table
from lapwing.data.pickles import load_restricted
from lapwing.data.problems import listed
from lapwing.errors import DataError

SUFFIXES = (".pkl", ".pickle", ".npz")


def is_serl(path: Path) -> bool:
    """Whether the path is a transition file by its suffix, or a folder of such files without episodes in HDF5."""
    if path.is_dir():
        return bool(_files(path)) and not any(path.glob("*.hdf5"))
    return path.suffix.lower() in SUFFIXES


def transition_files(path: Path) -> list[Path]:
    """The file itself, or those of a folder by name. Raises DataError where there is none."""
    if not path.is_dir():
        return [path]
    if files := _files(path):
        return files
    held = listed(sorted(one.name for one in path.iterdir()), 4) or "nothing in it"
    raise DataError(f"{path}: found a folder with {held}, expected *.pkl or *.npz files of transitions; check the path")


def _files(folder: Path) -> list[Path]:
    return sorted(
        one
        for one in folder.iterdir()
        if one.suffix.lower() in SUFFIXES and not one.name.startswith(".") and one.is_file()
    )


def read_table(path: Path) -> Table:
    """Read a file. Raises DataError where it is no list of transitions, or holds more than plain values."""
    return read_npz(path) if path.suffix.lower() == ".npz" else _read_pickle(path)


def _read_pickle(path: Path) -> Table:
    transitions = load_restricted(path)
    if not isinstance(transitions, list | tuple):
        raise DataError(
            f"{path}: holds a {type(transitions).__name__}, expected a list of transitions; "
            "store a list of one mapping a step"
        )
    if not transitions:
        raise DataError(f"{path}: holds an empty list, expected one transition at least; record it again")
    columns: dict[str, list[Any]] = {}
    for step, transition in enumerate(transitions):
        if not isinstance(transition, dict):
            raise DataError(
                f"{path}: entry {step} is a {type(transition).__name__}, expected a transition, a mapping with "
                "'observations', 'actions' and so on; store a flat list of mappings"
            )
        for key, value in _flat(transition).items():
            columns.setdefault(key, [None] * len(transitions))[step] = value
    return Table(path, len(transitions), columns)


def _flat(transition: Mapping[Any, Any]) -> dict[str, Any]:
    """The entries of a transition, those of mappings within it by "group/key"."""
    flat: dict[str, Any] = {}
    for key, value in transition.items():
        if isinstance(value, dict):
            flat |= {f"{key}/{inner}": one for inner, one in value.items()}
        else:
            flat[str(key)] = value
    return flat
