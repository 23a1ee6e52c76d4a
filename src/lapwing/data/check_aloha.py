"""The check of ALOHA episodes: the tree of the first file, the numbers file by file, every frame of every camera."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from lapwing.data.cameras import FrameFacts, RowNames, check_black, check_frozen, join_facts, scan_frames
from lapwing.data.formats.aloha import episode_files, scan_aloha
from lapwing.data.formats.hdf5 import open_hdf5
from lapwing.data.formats.options import ReadOptions
from lapwing.data.numbers import check_finite, check_moving, check_rewards
from lapwing.data.problems import Problem, from_error, listed
from lapwing.data.structure import tree_lines
from lapwing.episode import Episode, Recording
from lapwing.errors import DataError

STATE, ACTION = "observations/qpos", "action"
_LEFT_OUT = "left out as --skip-damaged says"


@dataclass(frozen=True)
class AlohaFindings:
    """recording: the sound episodes, None where there are none. has_reward: whether some episode has rewards."""

    recording: Recording | None
    tree: list[str]
    problems: list[Problem]
    reward_problems: list[Problem]
    has_reward: bool


def check_aloha(path: Path, options: ReadOptions, progress: bool) -> AlohaFindings:
    """Read all of a folder of episodes, or of one file. Damaged files are warnings where they may be left out."""
    recording, damage = scan_aloha(path, options)
    problems = [_damaged(one, recording is not None, options.skip_damaged) for one in damage]
    tree = _tree(path)
    if recording is None:
        return AlohaFindings(None, tree, problems, [], has_reward=False)
    names, episodes = file_names(recording), recording.episodes
    problems += _check_numbers(path, recording, names)
    if not recording.spec.cameras:
        advice = "policies will see the state alone"
        problems.append(Problem("warning", str(path), "observations/images", "no camera", "frames", advice))
    problems += _check_cameras(path, recording, names, options.skip_damaged, progress)
    rewards = [episode.reward for episode in episodes if episode.reward is not None]
    return AlohaFindings(
        recording, tree, problems, _check_rewards(path, recording, names) if rewards else [], bool(rewards)
    )


def file_names(recording: Recording) -> list[str]:
    """What the episodes' files are called."""
    return [str(episode.meta["file"]) for episode in recording.episodes]


def _damaged(message: str, some_left: bool, skip_damaged: bool) -> Problem:
    file = Path(message.split(": ", 1)[0])
    problem = from_error(file, "", DataError(message))
    if not some_left:
        return problem
    if skip_damaged:
        return replace(problem, severity="warning", advice=_LEFT_OUT)
    return replace(problem, advice="; ".join(filter(None, (problem.advice, "or leave it out with --skip-damaged"))))


def _tree(path: Path) -> list[str]:
    """The tree of the first file that opens; files whose lengths differ have the same otherwise."""
    files = episode_files(path) if path.is_dir() else [path]
    for file in files:
        try:
            with open_hdf5(file) as opened:
                return [f"  {file.name}, the first of {len(files)}:", *tree_lines(opened)]
        except (DataError, OSError, RuntimeError, KeyError, ValueError):
            continue
    return []


def _check_numbers(path: Path, recording: Recording, names: Sequence[str]) -> list[Problem]:
    problems = []
    for key, axes, parts in (
        (STATE, recording.spec.state, [episode.state for episode in recording.episodes]),
        (ACTION, recording.spec.action, [episode.action for episode in recording.episodes]),
    ):
        axis_names = [axis.name for axis in axes]
        for name, values in zip(names, parts, strict=True):
            problems += check_finite(_file(path, name), key, values, axis_names)
        problems += check_moving(path, key, np.concatenate(parts), axis_names, learned=key == ACTION)
    return problems


def _file(path: Path, name: str) -> Path:
    return path / name if path.is_dir() else path


def _check_rewards(path: Path, recording: Recording, names: Sequence[str]) -> list[Problem]:
    without = [name for name, one in zip(names, recording.episodes, strict=True) if one.reward is None]
    if without:
        got = f"missing in {len(without)} of {len(names)} episodes: {listed(without)}"
        advice = "offline RL (LAPO) needs them everywhere or not at all: label these episodes, or leave them out"
        return [Problem("error", str(path), "reward", got, "rewards in every episode", advice)]
    return check_rewards(path, "reward", np.concatenate([np.asarray(one.reward) for one in recording.episodes]))


def _check_cameras(
    path: Path, recording: Recording, names: Sequence[str], skip_damaged: bool, progress: bool
) -> list[Problem]:
    frames = sum(episode.num_rows for episode in recording.episodes) * len(recording.spec.cameras)
    problems = []
    with tqdm(total=frames, desc="check", unit="frame", delay=1, leave=False, disable=not progress) as bar:
        for camera in recording.spec.camera_names:
            problems += _check_camera(path, recording.episodes, names, camera, skip_damaged, bar)
    return problems


def _check_camera(
    path: Path, episodes: Sequence[Episode], names: Sequence[str], camera: str, skip_damaged: bool, bar: tqdm
) -> list[Problem]:
    key = f"observations/images/{camera}"
    facts: list[FrameFacts] = []
    readable: list[int] = []
    problems = []
    for index, episode in enumerate(episodes):
        try:
            facts.append(scan_frames(episode.images[camera], bar))
            readable.append(index)
        except DataError as error:
            problem = from_error(_file(path, names[index]), key, error)
            problems.append(replace(problem, severity="warning", advice=_LEFT_OUT) if skip_damaged else problem)
    if not readable:
        return problems
    joined, states = join_facts(facts), np.concatenate([episodes[index].state for index in readable])
    lengths = np.array([episodes[index].num_rows for index in readable])
    rows = RowNames([names[index] for index in readable], lengths.cumsum() - lengths)
    dark = check_black(path, key, joined, 255.0, rows)
    return problems + (dark or check_frozen(path, key, joined, states, rows))
