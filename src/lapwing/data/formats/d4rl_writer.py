"""Writing D4RL's layout: every transition of a recording without images in one HDF5 file, episode after episode.

    observations [N, S]   actions [N, A]   rewards [N]   terminals [N]   timeouts [N]   next_observations [N, S]
    infos/NAME [N, ...]   of each sensor

Each row is a whole transition: where a time-out cuts an episode, `next_observations` says what came of its last action.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable, Iterator
from pathlib import Path

import h5py
import numpy as np

from lapwing.episode import Array, Episode
from lapwing.errors import DataError
from lapwing.spec import RobotSpec


def write_d4rl(path: Path, episodes: Iterable[Episode], spec: RobotSpec) -> None:
    """Write `episodes` at `path`, which appears only when all went well; the spec is kept as an attribute.

    Raises DataError for images, an episode without rewards or without the observation after its last action, and
    where `path` exists or cannot be written.
    """
    if path.exists():
        raise DataError(f"{path}: already exists; choose another name or delete it first")
    if spec.cameras:
        named = ", ".join(spec.camera_names)
        raise DataError(f"{path}: D4RL's layout has no room for images, got the cameras {named}; write a flat file")
    if not path.absolute().parent.is_dir():
        raise DataError(f"{path}: {path.absolute().parent} is no folder; create or choose one")
    whole = [_columns(path, number, episode) for number, episode in enumerate(episodes)]
    if not whole:
        raise DataError(f"{path}: no episode to write; expected at least one")
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    try:
        with h5py.File(draft, "w") as file:
            if any(name.startswith("infos/") for name in whole[0]):
                file.create_group("infos")  # made on the way, it would carry the time: same data, other bytes
            for name in whole[0]:
                file[name] = np.concatenate([columns[name] for columns in whole])
            file.attrs["lapwing"] = json.dumps({"spec": spec.to_dict()})
        draft.rename(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error}); free some space, or choose another folder") from error
    finally:
        draft.unlink(missing_ok=True)


def _columns(path: Path, number: int, episode: Episode) -> dict[str, Array]:
    steps = episode.num_steps
    if episode.reward is None or episode.num_rows == steps:
        lacks = "rewards" if episode.reward is None else "observation after its last action"
        raise DataError(f"{path}: episode {number} has no {lacks}, which D4RL's layout needs; write a flat file")
    last = np.arange(steps) == steps - 1
    return {
        "observations": episode.state[:-1],
        "actions": episode.action,
        "rewards": episode.reward,
        "terminals": last & episode.terminated,
        "timeouts": last & episode.truncated,
        "next_observations": episode.state[1:],
        **dict(_infos(episode, steps)),
    }


def _infos(episode: Episode, steps: int) -> Iterator[tuple[str, Array]]:
    for name, readings in episode.sensors.items():
        yield f"infos/{name}", readings[:steps]
