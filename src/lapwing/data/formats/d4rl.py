"""The layout of D4RL: the transitions of all episodes one after another in one HDF5 file, observations a plain matrix.

    observations [N, S]   actions [N, A]   rewards [N]   terminals [N]   timeouts [N]   next_observations [N, S]

`rewards`, `timeouts` and `next_observations` may be missing; `infos/...` and `metadata/...` are not read.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import h5py
import numpy as np

from lapwing.data.formats.columns import column, dataset_of, expect_rows, flags, matrix
from lapwing.data.formats.hdf5 import child_of, float32, open_sound_hdf5
from lapwing.data.problems import listed
from lapwing.episode import Array, Episode, Recording
from lapwing.errors import DataError, SpecError
from lapwing.spec import RobotSpec, unnamed_axes

_LAYOUT = "D4RL"
_NAMES = ("env_name", "env_id", "dataset_id")  # attributes that may say what the data is of
_UNREAD = ("infos", "metadata")
_ROUNDING = 1e-5  # between two copies of one observation, absolute and of its size: what float32 leaves


@dataclass(frozen=True)
class Steps:
    """Transitions of episodes one after another.

    state: float32 [N, S]; action: float32 [N, A]; reward: float32 [N] or None; following: float32 [N, S], the
    observation after each step, or None; terminal: bool [N]; timeout: bool [N], or None where nothing tells of time
    limits.
    """

    state: Array
    action: Array
    reward: Array | None
    following: Array | None
    terminal: Array
    timeout: Array | None


def is_d4rl(file: h5py.File) -> bool:
    """Whether the file, incomplete perhaps, is meant to be of this layout."""
    return "action" not in file and isinstance(child_of(file, "observations"), h5py.Dataset)


def read_d4rl(path: Path) -> Recording:
    """Read a file into memory. Raises DataError naming the file, the dataset, what was found and what was expected.

    An episode ends at a terminal, at a timeout, and wherever `next_observations` is not the next row. D4RL's rule for
    time limits is kept: a segment cut by one loses its last transition for learning, since the observation after it is
    not in the file, and a true terminal keeps it, with nothing to come. Where `next_observations` hold what followed
    the cut, nothing is lost: the episode has that observation as its last row. A row that is both terminal and
    timeout counts as cut, as in D4RL. The attributes `lapwing` (our own writer's) or `env_name`, `env_id` and
    `dataset_id` may say what robot it is of.
    """
    with open_sound_hdf5(path) as file:
        steps = _read_steps(file, path)
        spec = _spec(file, path, steps)
        unread = [key for key in _UNREAD if key in file]
    episodes, notes = episodes_of(steps, path)
    if unread:
        notes.append(f"not read: {listed(unread)}")
    return Recording(path, "d4rl", spec, episodes, tuple(notes))


def _read_steps(file: h5py.File, path: Path) -> Steps:
    action = matrix(dataset_of(file, path, "actions", _LAYOUT), path)
    rows = len(action)
    if rows == 0:
        raise DataError(f"{path}: 'actions' has 0 rows, expected at least one step; download or record it again")
    state = _states(file, path, "observations", rows)
    has_reward, has_following = "rewards" in file, "next_observations" in file
    dataset_of(file, path, "terminals", _LAYOUT)
    return Steps(
        state=state,
        action=action,
        reward=float32(column(dataset_of(file, path, "rewards", _LAYOUT), path, rows)) if has_reward else None,
        following=_states(file, path, "next_observations", rows, state.shape[1]) if has_following else None,
        terminal=flags(file, path, "terminals", rows, _LAYOUT),
        timeout=flags(file, path, "timeouts", rows, _LAYOUT) if "timeouts" in file else None,
    )


def _spec(file: h5py.File, path: Path, steps: Steps) -> RobotSpec:
    """The spec that our own writer stored, without the sensors, or axes with numbers for names."""
    state_dim, action_dim = steps.state.shape[1], steps.action.shape[1]
    text = file.attrs.get("lapwing")
    if text is None:
        name = next((str(file.attrs[key]) for key in _NAMES if isinstance(file.attrs.get(key), str)), "unnamed")
        return RobotSpec(name, (), unnamed_axes("state", state_dim), unnamed_axes("action", action_dim))
    try:
        spec = RobotSpec.from_dict(json.loads(text)["spec"])
    except (ValueError, TypeError, KeyError, SpecError) as error:
        raise DataError(
            f"{path}: attribute 'lapwing' is not the JSON our writer makes; delete the attribute"
        ) from error
    if (spec.state_dim, spec.action_dim) != (state_dim, action_dim):
        raise DataError(
            f"{path}: attribute 'lapwing' names {spec.state_dim} state and {spec.action_dim} action axes, expected "
            f"{state_dim} and {action_dim} as in the datasets; delete the attribute"
        )
    return replace(spec, sensors=())


def _states(file: h5py.File, path: Path, key: str, rows: int, axes: int | None = None) -> Array:
    values = matrix(dataset_of(file, path, key, _LAYOUT), path)
    expect_rows(path, key, len(values), rows)
    if axes is not None and values.shape[1] != axes:
        raise DataError(f"{path}: '{key}' has {values.shape[1]} axes, expected {axes} as 'observations' has; mend it")
    return values


def episodes_of(steps: Steps, path: Path) -> tuple[Sequence[Episode], list[str]]:
    """The episodes, divided as `read_d4rl` says, and what is to be said of it. `path` is for the errors."""
    ends, terminated, notes = _endings(steps, path)
    stops = [int(end) + 1 for end in np.flatnonzero(ends)]
    episodes = [
        _episode(steps, start, stop, bool(terminated[stop - 1]))
        for start, stop in zip([0, *stops[:-1]], stops, strict=True)
    ]
    return episodes, notes


def _endings(steps: Steps, path: Path) -> tuple[Array, Array, list[str]]:
    """Whether an episode ends at each step, and whether its task ended there, bool [N] each."""
    notes: list[str] = []
    terminated, ends = steps.terminal, steps.terminal.copy()
    if steps.timeout is not None:
        both = steps.terminal & steps.timeout
        if both.any():
            notes.append(f"{int(both.sum())} rows are flagged terminal and timeout: taken as cut by the time limit")
        terminated, ends = terminated & ~steps.timeout, ends | steps.timeout
    if steps.following is None and not ends.any():
        marks, lacking = (
            ("'terminals' and 'timeouts'", "") if steps.timeout is not None else ("'terminals'", "'timeouts' or ")
        )
        raise DataError(
            f"{path}: {marks} never fire and there are no {lacking}'next_observations', expected one of them to tell "
            "where episodes end; add 'timeouts', true at the last step of each episode"
        )
    if steps.following is None and steps.timeout is None:
        notes.append("no 'timeouts': where a time limit cut an episode is not known, terminals alone divide the file")
    if steps.following is not None:
        apart = gaps(steps.state, steps.following) & ~ends[:-1]
        if apart.any():
            notes.append(
                f"{int(apart.sum())} of {len(ends)} steps are not followed by the next row, as 'next_observations' "
                "show: episodes are cut there"
            )
            ends[:-1] |= apart
    if not ends[-1]:
        last = len(ends) - 1 - int(np.flatnonzero(ends)[-1]) if ends.any() else len(ends)
        notes.append(f"the last {last} rows follow the final boundary: read as a truncated episode")
        ends[-1] = True
    return ends, terminated, notes


def gaps(state: Array, following: Array) -> Array:
    """Whether the next row begins elsewhere than where each step ended, bool [N - 1]. NaN is as good as NaN."""
    begins, ended = state[1:], following[:-1]
    with np.errstate(invalid="ignore"):  # infinities are reported as such
        near = np.abs(begins - ended) <= _ROUNDING * (1 + np.abs(begins))
    apart: Array = ~(near | (begins == ended) | (np.isnan(begins) & np.isnan(ended))).all(1)
    return apart


def _episode(steps: Steps, start: int, stop: int, terminated: bool) -> Episode:
    state = steps.state[start:stop]
    if steps.following is not None:
        state = np.concatenate([state, steps.following[stop - 1 : stop]])
    return Episode(
        images={},
        state=state,
        action=steps.action[start:stop],
        reward=None if steps.reward is None else steps.reward[start:stop],
        terminated=terminated,
    )
