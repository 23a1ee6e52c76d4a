"""Checks that set one episode beside the others: stopped early, cut off in motion, recorded twice."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lapwing.data.problems import Problem, listed
from lapwing.episode import Array, Episode
from lapwing.spec import RobotSpec

_FEWEST = 4  # episodes from which on there is a usual one
_SHORT = 1 / 3  # of the median length
_LAST_STEPS = 5
_AT_REST, _IN_MOTION = 0.25, 1.0  # of the mean speed, over the last steps


def check_early(path: Path, key: str, episodes: Sequence[Episode], labels: Sequence[str]) -> list[Problem]:
    """Episodes much shorter than the others that no task ended. Those of a single step are `check_episodes`'s."""
    if len(episodes) < _FEWEST:
        return []
    usual = float(np.median([episode.num_steps for episode in episodes]))
    short = [
        f"{label} ({episode.num_steps})"
        for label, episode in zip(labels, episodes, strict=True)
        if 1 < episode.num_steps < _SHORT * usual and not _is_done(episode)
    ]
    if not short:
        return []
    got = f"{len(short)} of {len(episodes)} episodes stop early, steps: {listed(short)}"
    advice = "leave them out if the recorder stopped there by mistake"
    return [Problem("warning", str(path), key, got, f"about {usual:g} steps as in the others", advice)]


def check_cut(
    path: Path, key: str, episodes: Sequence[Episode], labels: Sequence[str], spec: RobotSpec
) -> list[Problem]:
    """Episodes that end while the robot moves, where the others end at rest. States must be finite."""
    if len(episodes) < _FEWEST:
        return []
    speeds = _speeds(episodes, spec)
    if not any(map(len, speeds)):
        return []
    mean = float(np.concatenate(speeds).mean())
    last = np.array([speed[-_LAST_STEPS:].mean() if len(speed) else 0.0 for speed in speeds])
    if np.median(last) > _AT_REST * mean:
        return []
    cut = [
        label
        for label, episode, speed in zip(labels, episodes, last, strict=True)
        if speed > _IN_MOTION * mean and not _is_done(episode)
    ]
    if not cut:
        return []
    got = f"{len(cut)} of {len(episodes)} episodes end in the middle of motion: {listed(cut)}"
    advice = "leave them out if the recorder stopped there by mistake"
    return [Problem("warning", str(path), key, got, "an end at rest as in the others", advice)]


def check_twins(path: Path, key: str, episodes: Sequence[Episode], labels: Sequence[str]) -> list[Problem]:
    """Episodes with the same states and actions, to the bit."""
    same: dict[bytes, list[str]] = defaultdict(list)
    for label, episode in zip(labels, episodes, strict=True):
        if episode.num_steps > 1:
            same[_digest(episode)].append(label)
    twins = [" = ".join(group) for group in same.values() if len(group) > 1]
    if not twins:
        return []
    got = f"episodes recorded once and stored twice: {listed(twins)}"
    advice = "delete all but one: a copy in the held-out part makes the policy look better than it is"
    return [Problem("warning", str(path), key, got, "different states and actions", advice)]


def _is_done(episode: Episode) -> bool:
    return episode.terminated or bool(episode.success)


def _speeds(episodes: Sequence[Episode], spec: RobotSpec) -> list[Array]:
    """How fast the state changes, float64 [rows - 1] an episode: mean over the axes, each by its range. No bases."""
    axes = [index for index, axis in enumerate(spec.state) if axis.kind != "base"]
    states = [episode.state[:, axes].astype(np.float64) for episode in episodes]
    joined = np.concatenate(states)
    span = np.ptp(joined, axis=0)
    moving = span > 0
    if not moving.any():
        return []
    return [np.abs(np.diff(state[:, moving], axis=0) / span[moving]).mean(1) for state in states]


def _digest(episode: Episode) -> bytes:
    digest = hashlib.sha256(repr((episode.state.shape, episode.action.shape)).encode())
    for values in (episode.state, episode.action):
        digest.update(np.ascontiguousarray(values, np.float32).tobytes())
    return digest.digest()
