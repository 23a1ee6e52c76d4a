"""Writing frames for a success classifier: a folder of successes and one of failures, as in SERL."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from lapwing.data.formats.serl_writer import write_serl
from lapwing.episode import Array, Episode
from lapwing.errors import DataError
from lapwing.spec import RobotSpec

KINDS = ("failure", "success")


def write_labelled(folder: Path, episodes: Iterable[Episode], spec: RobotSpec, suffix: str = ".pkl") -> tuple[int, int]:
    """Write FOLDER/success and FOLDER/failure, in each a file for every episode that shows such frames.

    Both files of an episode have the same name, so that they stay together where frames are divided.
    A frame shows success where the step before it was rewarded. Returns how many show success, and how many do not.
    FOLDER appears when all went well. Raises DataError when it exists, cannot be written, or one kind is missing.
    """
    if folder.exists():
        raise DataError(f"{folder}: already exists; choose another name or delete it first")
    draft = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.partial")
    counts = [0, 0]
    try:
        for kind in KINDS:
            (draft / kind).mkdir(parents=True)
        for number, episode in enumerate(episodes):
            shown = np.append(False, np.asarray(episode.reward) > 0)[: episode.num_rows]
            for label, kind in enumerate(KINDS):
                rows = np.flatnonzero(shown == label)
                counts[label] += len(rows)
                if len(rows):
                    write_serl(draft / kind / f"episode_{number:06d}{suffix}", list(_stretches(episode, rows)), spec)
        if not all(counts):
            raise DataError(f"{folder}: {counts[1]} frames show success, {counts[0]} do not, expected both; draw more")
        draft.rename(folder)
    except OSError as error:
        raise DataError(f"{folder}: cannot be written ({error}); free some space or choose another folder") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return counts[1], counts[0]


def _stretches(episode: Episode, rows: Array) -> Iterator[Episode]:
    """The stretches of an episode that these rows make up, each with as many steps as observations."""
    actions = np.concatenate([episode.action, np.zeros_like(episode.action[:1])])  # none was taken in the last row
    for run in np.split(rows, np.flatnonzero(np.diff(rows) > 1) + 1):
        yield Episode(
            images={name: frames[run] for name, frames in episode.images.items()},
            state=episode.state[run],
            action=actions[run],
            reward=None,
            terminated=False,
            meta=episode.meta,
        )
