"""Minari data sets on disk: a folder with `data/main_data.hdf5`, one group an episode, and `data/metadata.json`.

episode_N/observations [N + 1, S]   actions [N, A]   rewards   terminations   truncations [N]   infos/...
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py

from lapwing.data.formats.columns import column, dataset_of, flags, matrix
from lapwing.data.formats.hdf5 import child_of, float32, open_sound_hdf5
from lapwing.data.problems import listed
from lapwing.episode import Array, Episode, Recording
from lapwing.errors import DataError
from lapwing.spec import RobotSpec, unnamed_axes

_LAYOUT, _DATA = "Minari", "main_data.hdf5"
_NAME = re.compile(r"episode_(\d+)")


def is_minari(path: Path) -> bool:
    """Whether the path is the folder of a data set, its folder `data`, or the file with the episodes."""
    return _folder(path) is not None


def _folder(path: Path) -> Path | None:
    """The folder that holds the data and its metadata, None where it is no data set."""
    if path.is_dir():
        candidates = [path / "data", path]
        return next((one for one in candidates if (one / _DATA).is_file() or _is_described(one)), None)
    return path.parent if path.name == _DATA and path.is_file() else None


def _is_described(folder: Path) -> bool:
    return "data_format" in _metadata(folder)


def read_minari(path: Path) -> Recording:
    """Read a data set into memory. Raises DataError where its observations or actions are no plain vectors.

    An episode has the observation after its last action, so that no transition is lost where it was truncated.
    """
    folder = _folder(path)
    if folder is None:
        raise DataError(f"{path}: no data/{_DATA}, expected the folder of a Minari data set; check the path")
    facts = _metadata(folder)
    if not (folder / _DATA).is_file():
        raise DataError(
            f"{path}: a Minari data set of format {facts.get('data_format')!r}, expected 'hdf5'; "
            "have Minari write it with data_format='hdf5'"
        )
    with open_sound_hdf5(folder / _DATA) as file:
        facts = {**file.attrs, **facts}  # before Minari 0.5 the file itself held them
        names = sorted((name for name in file if _NAME.fullmatch(name)), key=lambda name: int(name.partition("_")[2]))
        if not names:
            raise DataError(f"{folder / _DATA}: no group 'episode_0', expected one an episode; download it again")
        if facts.get("total_episodes", len(names)) != len(names):
            raise DataError(
                f"{folder / _DATA}: {len(names)} episodes, expected {facts['total_episodes']} as 'total_episodes' of "
                "its metadata has it; download it again"
            )
        episodes = tuple(_episode(file, name, folder / _DATA) for name in names)
    for name, episode in zip(names, episodes, strict=True):
        _expect_alike(folder / _DATA, name, episode, episodes[0])
    first = episodes[0]
    axes = unnamed_axes("state", first.state.shape[1]), unnamed_axes("action", first.action.shape[1])
    name = _environment(facts) or str(facts.get("dataset_id", "unnamed"))
    return Recording(path, "minari", RobotSpec(name, (), *axes), episodes, _notes(facts))


def _metadata(folder: Path) -> Mapping[str, Any]:
    try:
        facts = json.loads((folder / "metadata.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return facts if isinstance(facts, dict) else {}


def _environment(facts: Mapping[str, Any]) -> str | None:
    """The id of the environment, as Gymnasium knows it."""
    try:
        return str(json.loads(facts["env_spec"])["id"])
    except (KeyError, TypeError, ValueError):
        return None


def _notes(facts: Mapping[str, Any]) -> tuple[str, ...]:
    if "dataset_id" not in facts:
        return ()
    return (f"data set {facts['dataset_id']}",)


def _episode(file: h5py.File, name: str, path: Path) -> Episode:
    group = child_of(file, name)
    if not isinstance(group, h5py.Group):
        raise DataError(f"{path}: {name!r} is no group, expected an episode; download it again")
    for key in ("observations", "actions"):
        _expect_vectors(group, path, key)
    action = matrix(dataset_of(group, path, "actions", _LAYOUT), path)
    state = matrix(dataset_of(group, path, "observations", _LAYOUT), path)
    steps = len(action)
    if not steps:
        raise DataError(f"{path}: '{name}/actions' has 0 rows, expected at least one step; leave the episode out")
    if len(state) not in (steps, steps + 1):
        raise DataError(
            f"{path}: '{name}/observations' has {len(state)} rows for {steps} actions, expected {steps + 1}; "
            "download it again"
        )
    terminated, truncated = (flags(group, path, key, steps, _LAYOUT) for key in ("terminations", "truncations"))
    _expect_one_episode(path, name, terminated | truncated)
    reward = dataset_of(group, path, "rewards", _LAYOUT) if "rewards" in group else None
    return Episode(
        images={},
        state=state,
        action=action,
        reward=None if reward is None else float32(column(reward, path, steps)),
        terminated=bool(terminated[-1]),
    )


def _expect_vectors(group: h5py.Group, path: Path, key: str) -> None:
    child = child_of(group, key)
    if isinstance(child, h5py.Group):
        raise DataError(
            f"{path}: '{group.name[1:]}/{key}' are a dict or tuple of {listed(sorted(child))}, expected vectors "
            "[N, axes]; join the ones you need into one vector each, in a file of the D4RL layout"
        )


def _expect_one_episode(path: Path, name: str, ended: Array) -> None:
    if ended[:-1].any():
        step = int(ended.argmax())
        raise DataError(
            f"{path}: '{name}' goes on after its end at step {step}, expected one at the last step, "
            f"{len(ended) - 1}; cut it there"
        )


def _expect_alike(path: Path, name: str, episode: Episode, first: Episode) -> None:
    for what, got, expected in (
        ("observations", episode.state.shape[1], first.state.shape[1]),
        ("actions", episode.action.shape[1], first.action.shape[1]),
    ):
        if got != expected:
            raise DataError(f"{path}: '{name}/{what}' has {got} axes, expected {expected} as in the first; mend it")
