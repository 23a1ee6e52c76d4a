"""Transition files of SERL and its kin as columns: a pickled list of mappings, or the same as arrays in an npz file.

A column is named as the transition nests it ("observations/state") and has one entry a transition.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lapwing.data.pickles import load_restricted
from lapwing.data.problems import listed
from lapwing.errors import DataError

SUFFIXES = (".pkl", ".pickle", ".npz")
SPEC, META = "infos/lapwing_spec", "infos/lapwing_meta"  # JSON texts in an episode's first transition
OBSERVED = "infos/next_observed"  # False where no observation was recorded after the step
_DETAILS = "lapwing"  # of an npz file: JSON that gives what differs from transition to transition


@dataclass(frozen=True)
class Table:
    """Transitions by column; None stands where a transition lacks one. `notes` grows while the table is read."""

    path: Path
    length: int
    columns: Mapping[str, Sequence[Any]]
    notes: list[str] = field(default_factory=list)

    def part(self, group: str) -> list[str]:
        """Names of the columns within a group: "observations" -> image, state."""
        return [name.removeprefix(f"{group}/") for name in self.columns if name.startswith(f"{group}/")]

    def __getitem__(self, key: str) -> Sequence[Any]:
        """A column that every transition has. Raises DataError naming the first one without it."""
        column = self.columns.get(key)
        if column is None:
            found = listed(sorted(self.columns), 12)
            raise DataError(f"{self.path}: no {key!r} in any transition, expected it in all (found {found}); add it")
        for step, value in enumerate(column):
            if value is None:
                raise DataError(
                    f"{self.path}: transition {step} has no {key!r}, expected it as in the others; mend or drop it"
                )
        return column

    def note(self, text: str) -> None:
        """Say something once."""
        if text not in self.notes:
            self.notes.append(text)


def is_serl(path: Path) -> bool:
    """Whether the path is a transition file by its suffix, or a folder of such files and of no others that are read."""
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
    return _read_npz(path) if path.suffix.lower() == ".npz" else _read_pickle(path)


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


def _read_npz(path: Path) -> Table:
    try:
        with np.load(path, allow_pickle=False) as file:
            columns: dict[str, Any] = {name: file[name] for name in file.files}
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error}); check the path") from error
    except (ValueError, EOFError, KeyError, zipfile.BadZipFile, zipfile.LargeZipFile, NotImplementedError) as error:
        if "allow_pickle" in str(error):
            raise DataError(
                f"{path}: holds an array of Python objects, expected plain arrays; nothing of it was run"
            ) from None
        raise DataError(f"{path}: not a whole npz file ({error}); copy it again") from error
    details = columns.pop(_DETAILS, None)
    if "actions" not in columns and "labels" not in columns and not any(key.count("/") for key in columns):
        found = listed(sorted(columns), 12) or "nothing"
        raise DataError(f"{path}: holds arrays {found}, expected 'observations/...', 'actions' and so on; rename them")
    lengths = {name: values.shape[0] if values.ndim else 0 for name, values in columns.items()}
    if len(set(lengths.values())) != 1 or not min(lengths.values()):
        told = ", ".join(f"{name} {length}" for name, length in sorted(lengths.items()))
        raise DataError(f"{path}: arrays of {told} rows, expected one number of rows above 0; store one row a step")
    length = next(iter(lengths.values()))
    return Table(path, length, columns if details is None else _detailed(path, columns, length, details))


def _detailed(path: Path, columns: dict[str, Any], length: int, details: Any) -> dict[str, Any]:
    """The columns as our own writer was given them: what an episode lacks is None, texts at its first row."""
    try:
        declared = json.loads(str(details[()]))
        texts: dict[str, list[Any]] = {key: [None] * length for key in (SPEC, META, OBSERVED, "infos/succeed")}
        for episode in declared["episodes"]:
            first, last = int(episode["first"]), int(episode["last"])
            if not 0 <= first <= last < length:
                raise ValueError(f"episode from {first} to {last}")
            texts[SPEC][first], texts[META][first] = json.dumps(declared["spec"]), json.dumps(episode["meta"])
            texts[OBSERVED][last], texts["infos/succeed"][last] = episode["next_observed"], episode["success"]
            for key in episode["absent"]:
                columns[key] = list(columns[key])
                columns[key][first : last + 1] = [None] * (last + 1 - first)
    except (ValueError, TypeError, KeyError, IndexError) as error:
        raise DataError(
            f"{path}: array {_DETAILS!r} is not the JSON our writer makes ({error}); delete the array"
        ) from error
    return columns | texts
