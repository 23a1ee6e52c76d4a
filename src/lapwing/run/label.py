"""Rewards for recorded episodes by a success classifier, written as labels beside the recording."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from lapwing.data.convert_source import episode_name
from lapwing.episode import Array, Episode, Observation, Recording
from lapwing.errors import DataError
from lapwing.run.classifier import SuccessClassifier

_ROWS_AT_ONCE = 64


@dataclass(frozen=True)
class EpisodeLabel:
    """What the classifier says of an episode. `success_step`: the step that led to success, None where none did."""

    name: str
    num_steps: int
    success_step: int | None
    probability: float  # the highest of any observation after a step

    @property
    def goes_on(self) -> bool:
        """Whether it was recorded on after success."""
        return self.success_step is not None and self.success_step < self.num_steps - 1

    def to_dict(self) -> dict[str, Any]:
        """As data/sidecar.py reads it: reward 1 at that step alone, and the end of the task where it is the last."""
        reward = [0] * self.num_steps
        if self.success_step is None:
            return {"success": False, "reward": reward, "terminated": False}
        reward[self.success_step] = 1
        return {"success": True, "reward": reward, "terminated": not self.goes_on}


def label_recording(
    recording: Recording, classifier: SuccessClassifier, progress: bool = True
) -> tuple[EpisodeLabel, ...]:
    """Judge the observation after each step of each episode; the first that shows success marks its step.

    The observation after the last step is judged where it was recorded. Raises DataError for a camera that is missing.
    """
    missing = [name for name in classifier.spec.camera_names if name not in recording.spec.camera_names]
    if missing:
        got = ", ".join(recording.spec.camera_names) or "none"
        raise DataError(
            f"{recording.path}: cameras are {got}, expected {missing[0]!r} too, which the classifier looks at; choose "
            "another classifier"
        )
    found = []
    for index, episode in enumerate(tqdm(recording.episodes, desc="label", unit="episode", disable=not progress)):
        probability, success = _judge(episode, classifier)
        steps = np.flatnonzero(success[1:])
        found.append(
            EpisodeLabel(
                name=episode_name(recording, index),
                num_steps=episode.num_steps,
                success_step=int(steps[0]) if len(steps) else None,
                probability=float(probability[1:].max(initial=0.0)),
            )
        )
    return tuple(found)


def _judge(episode: Episode, classifier: SuccessClassifier) -> tuple[Array, Array]:
    """Probability float64 [rows] and decision bool [rows]."""
    parts = []
    for start in range(0, episode.num_rows, _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        images = {name: episode.images[name][rows] for name in classifier.spec.camera_names}
        parts.append(classifier.predict_success(Observation(images, episode.state[rows])))
    return np.concatenate([one for one, _ in parts]), np.concatenate([one for _, one in parts])


def labels_path(recording: Path) -> Path:
    """Where the labels of a recording go unless another place is asked for: beside it."""
    path = recording.resolve() if recording.name in ("", "..") else recording
    return path.with_name(f"{path.name}.labels.json")


def write_labels(path: Path, labels: Sequence[EpisodeLabel], overwrite: bool = False) -> None:
    """Write a file of labels (data/sidecar.py), beside and renamed. Raises DataError where there is one already."""
    expect_room(path, overwrite)
    lines = ",\n".join(f" {json.dumps(one.name)}: {json.dumps(one.to_dict())}" for one in labels)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(f"{{\n{lines}\n}}\n", encoding="utf-8")
    os.replace(partial, path)


def expect_room(path: Path, overwrite: bool) -> None:
    """Raise DataError where `path` is in no folder, or taken and may not be overwritten."""
    if path.is_dir():
        raise DataError(f"{path}: is a folder, expected a file of labels to write; choose another --out")
    if not path.absolute().parent.is_dir():
        raise DataError(f"{path}: cannot be written (no such folder); create one, or choose another --out")
    if path.exists() and not overwrite:
        raise DataError(f"{path}: labels are there already; choose another --out, or give --overwrite")
