"""Pickled lists of whole episodes, one mapping of arrays each: the human demonstrations of DAPG and what mjrl writes
(`observations`, `actions`, `rewards`), and expert data in the manner of Berkeley's course (`observation`, `action`,
`reward`, `next_observation`, `terminal`).
"""

from __future__ import annotations

import pickle
import pickletools
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from lapwing.data.formats.d4rl import gaps
from lapwing.data.formats.hdf5 import float32
from lapwing.data.pickles import load_restricted
from lapwing.data.problems import listed
from lapwing.episode import Array, Episode, Recording
from lapwing.errors import DataError
from lapwing.spec import RobotSpec, unnamed_axes

_SUFFIXES = (".pkl", ".pickle")
_NAMES = {
    "state": ("observations", "observation"),
    "action": ("actions", "action"),
    "reward": ("rewards", "reward"),
    "following": ("next_observations", "next_observation"),
}
_ENDS = ("terminals", "terminal", "terminated", "dones")
_LOOKED_AT = 100_000  # operations of a pickle, after which no first key is to be expected


def is_trajectories(path: Path) -> bool:
    """Whether the path is a pickle whose first observations are an array, not a mapping as in transition files.

    Looks at the first few operations of the pickle alone, and does none of them.
    """
    if path.suffix.lower() not in _SUFFIXES or not path.is_file():
        return False
    after_key = False
    try:
        with path.open("rb") as file:
            for count, (operation, argument, _) in enumerate(pickletools.genops(file)):
                if after_key and operation.name not in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
                    return operation.name not in ("MARK", "EMPTY_DICT")
                after_key = after_key or argument in _NAMES["state"]
                if count > _LOOKED_AT:
                    return False
    except (OSError, ValueError, IndexError, pickle.UnpicklingError):
        return False  # whoever reads it says what is wrong
    return False


def read_trajectories(path: Path) -> Recording:
    """Read a file into memory. Raises DataError naming the episode and the array.

    Every episode counts as truncated: nothing in these files tells a task that ended from a time limit, and in the
    expert data `terminal` marks the limit of 1000 steps. Where there are next observations, the last of them is the
    episode's last row.
    """
    stored = load_restricted(path)
    if not isinstance(stored, list | tuple) or not stored or not all(isinstance(one, dict) for one in stored):
        raise DataError(f"{path}: expected a list of episodes, a mapping of arrays each; store it so")
    episodes = tuple(_episode(path, number, one) for number, one in enumerate(stored))
    for number, episode in enumerate(episodes):
        _expect_alike(path, number, episode, episodes[0])
    first = episodes[0]
    axes = unnamed_axes("state", first.state.shape[1]), unnamed_axes("action", first.action.shape[1])
    return Recording(path, "trajectories", RobotSpec("unnamed", (), *axes), episodes, _notes(stored))


def _notes(stored: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    keys = dict.fromkeys(str(key) for one in stored for key in one)
    notes = []
    if marks := [key for key in keys if key in _ENDS]:
        notes.append(f"{listed(repr(mark) for mark in marks)} taken as a time limit: every episode counts as cut")
    known = {name for names in _NAMES.values() for name in names}
    if others := [key for key in keys if key not in known and key not in _ENDS]:
        notes.append(f"not read: {listed(others)}")
    return tuple(notes)


def _episode(path: Path, number: int, stored: Mapping[str, Any]) -> Episode:
    state, action = _matrix(path, number, stored, "state"), _matrix(path, number, stored, "action")
    if any(key in stored for key in _NAMES["following"]):
        following = _matrix(path, number, stored, "following")
        _expect_rows(path, number, "following", len(following), len(action))
        _expect_rows(path, number, "state", len(state), len(action))
        _expect_next(path, number, state, following)
        state = np.concatenate([state, following[-1:]])
    elif len(state) != len(action) + 1:
        _expect_rows(path, number, "state", len(state), len(action))
    reward = None
    if any(key in stored for key in _NAMES["reward"]):
        values = _array(path, number, stored, "reward")
        if values.ndim != 1 and values.shape[1:] != (1,):
            raise DataError(
                f"{path}: rewards of episode {number} have shape {values.shape}, expected [N]; reshape them"
            )
        _expect_rows(path, number, "reward", len(values), len(action))
        reward = float32(values.reshape(-1))
    return Episode({}, state, action, reward, terminated=False)


def _array(path: Path, number: int, stored: Mapping[str, Any], what: str) -> Array:
    key = next((name for name in _NAMES[what] if name in stored), None)
    if key is None:
        found = listed(map(str, stored)) or "nothing"
        raise DataError(f"{path}: episode {number} has no {_NAMES[what][0]!r} (found {found}); add it as an array")
    values = stored[key]
    if isinstance(values, list):  # of one array a step
        with suppress(TypeError, ValueError):  # said below
            values = np.stack(values)
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "fiub":
        kind = values.dtype if isinstance(values, np.ndarray) else type(values).__name__
        raise DataError(f"{path}: {key!r} of episode {number} is {kind}, expected an array of numbers; store it so")
    return values


def _matrix(path: Path, number: int, stored: Mapping[str, Any], what: str) -> Array:
    values = _array(path, number, stored, what)
    if values.ndim != 2 or 0 in values.shape:
        raise DataError(
            f"{path}: {_NAMES[what][0]!r} of episode {number} has shape {values.shape}, expected [N, axes]; reshape it"
        )
    return float32(values)


def _expect_rows(path: Path, number: int, what: str, got: int, expected: int) -> None:
    if got != expected:
        raise DataError(
            f"{path}: {_NAMES[what][0]!r} of episode {number} has {got} rows, expected {expected} as its actions have; "
            "cut all to one length"
        )


def _expect_next(path: Path, number: int, state: Array, following: Array) -> None:
    """The next observation of a step must be the observation of the step after it."""
    apart = gaps(state, following)
    if apart.any():
        raise DataError(
            f"{path}: step {int(apart.argmax())} of episode {number} is not followed by the next one, as its next "
            "observation shows; expected one episode each, keep pieces apart"
        )


def _expect_alike(path: Path, number: int, episode: Episode, first: Episode) -> None:
    for what, got, expected in (
        ("state", episode.state.shape[1], first.state.shape[1]),
        ("action", episode.action.shape[1], first.action.shape[1]),
    ):
        if got != expected:
            raise DataError(
                f"{path}: {_NAMES[what][0]!r} of episode {number} has {got} axes, expected {expected} as in episode 0; "
                "keep robots in files apart"
            )
