"""Is this recording fit for training? The tree of what is there, then every problem at once.

`trainable` asks for the most demanding learner, offline RL: rewards that are missing or all zero are an error.
Imitation does without rewards, and `imitable` says whether it can train. The ALOHA layout has no place for rewards:
there, that none were added is a note and no error (docs/decisions/0011-absent-rewards.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from lapwing.data.cameras import check_camera
from lapwing.data.check_aloha import ACTION as ALOHA_ACTION
from lapwing.data.check_aloha import check_aloha, file_names
from lapwing.data.check_offline import check_offline, check_offline_rewards, describe_returns, offline_tree
from lapwing.data.check_serl import check_serl, check_serl_rewards, serl_tree
from lapwing.data.endings import check_cut, check_early, check_twins
from lapwing.data.formats import read_recording
from lapwing.data.formats.aloha import is_aloha
from lapwing.data.formats.d4rl import is_d4rl
from lapwing.data.formats.flat import is_flat
from lapwing.data.formats.hdf5 import open_hdf5
from lapwing.data.formats.lerobot import ACTION, DAMAGE_ADVICE, STATE, describe_damage, is_lerobot, scan_lerobot
from lapwing.data.formats.minari import is_minari
from lapwing.data.formats.options import ReadOptions
from lapwing.data.formats.robomimic import is_robomimic
from lapwing.data.formats.serl import is_serl, read_serl
from lapwing.data.formats.trajectories import is_trajectories
from lapwing.data.labels import check_grippers, check_lags, describe_lags, measure_lags
from lapwing.data.numbers import (
    check_episodes,
    check_finite,
    check_last_rewards,
    check_leader,
    check_moving,
    check_rewards,
)
from lapwing.data.problems import Problem, Severity, from_error
from lapwing.data.structure import Structure, inspect, tree_lines
from lapwing.data.timing import check_order, check_timing, describe_timing, measure_timing
from lapwing.episode import Recording
from lapwing.errors import DataError


@dataclass(frozen=True)
class CheckResult:
    """What `check` found. tree: lines to print; notes: facts that are no problems."""

    path: Path
    tree: list[str]
    problems: tuple[Problem, ...]
    notes: tuple[str, ...]
    trainable: bool
    imitable: bool

    @property
    def passes(self) -> bool:
        """Whether no problem is an error: what was recorded can be trained on as it is."""
        return not _has_errors(self.problems)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "path": str(self.path),
            "trainable": self.trainable,
            "imitable": self.imitable,
            "tree": self.tree,
            "problems": [problem.to_dict() for problem in self.problems],
            "notes": list(self.notes),
        }


def check(path: Path, options: ReadOptions | None = None, progress: bool = True) -> CheckResult:
    """Read all of a recording and report its problems. A file that cannot be read is a problem, not an exception.

    options: as in training; damaged episodes of a folder are warnings where they are to be left out. Frames are read
    block by block: memory does not grow with them, but for transitions, which are read as a whole. A progress bar
    shows after a second.
    """
    findings, options = _Findings(path), options or ReadOptions()
    try:
        if is_lerobot(path):
            _check_lerobot(findings, options.skip_damaged)
        elif is_minari(path) or is_trajectories(path):
            _check_offline(findings, options, progress)
        elif is_serl(path):
            _check_serl(findings, options, progress)
        elif path.is_dir() or is_aloha(path):
            _check_aloha(findings, options, progress)
        else:
            with open_hdf5(path) as file:
                _check_hdf5(findings, file, options, progress)
    except DataError as error:
        findings.problems.append(from_error(path, "", error))
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:  # h5py's, on bytes it cannot make out
        damage = DataError(f"{path}: the file is damaged ({error}); copy or record it again")
        findings.problems.append(from_error(path, "", damage))
    return findings.result()


def format_check(result: CheckResult) -> str:
    """The result as text: the tree as the quick-start prints it, notes, problems and a verdict."""
    lines = [f"Dataset: {result.path}", "=" * 60, ""]
    lines += ["Structure:", *result.tree, ""] if result.tree else []
    lines += [f"note: {note}" for note in result.notes] + [str(problem) for problem in result.problems]
    errors = sum(problem.severity == "error" for problem in result.problems)
    warnings = len(result.problems) - errors
    counts = f"{errors} error{'s' * (errors != 1)}, {warnings} warning{'s' * (warnings != 1)}"
    if result.trainable:
        verdict = "✓ trainable"
    elif result.passes:
        verdict = "✓ trainable by imitation (ACT, BC), not by offline RL (LAPO) without rewards"
    elif result.imitable:
        verdict = "✗ not trainable by offline RL (LAPO); trainable by imitation (ACT, BC)"
    else:
        verdict = "✗ not trainable"
    return "\n".join([*lines, f"{verdict}: {counts}"])


class _Findings:
    """What has come to light so far. Problems of the rewards stand apart, for imitation does without them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.tree: list[str] = []
        self.notes: list[str] = []
        self.has_reward = True
        self.problems: list[Problem] = []
        self.reward_problems: list[Problem] = []

    def result(self) -> CheckResult:
        problems = sorted(self.problems + self.reward_problems, key=lambda problem: problem.severity)  # errors first
        imitable = not _has_errors(self.problems)
        trainable = imitable and self.has_reward and not _has_errors(self.reward_problems)
        return CheckResult(self.path, self.tree, tuple(problems), tuple(self.notes), trainable, imitable)


def _has_errors(problems: Sequence[Problem]) -> bool:
    return any(problem.severity == "error" for problem in problems)


def _check_hdf5(findings: _Findings, file: h5py.File, options: ReadOptions, progress: bool) -> None:
    path = findings.path
    if is_robomimic(file):  # one group an episode: a tree of hundreds of lines
        _check_offline(findings, options, progress)
        return
    findings.tree = tree_lines(file)
    if is_d4rl(file):
        _check_offline(findings, options, progress)
        return
    if is_flat(file):
        found = inspect(file, path, options.image_layout)
        findings.problems += found.problems
        _check_contents(findings, found, progress)
        if found.reward is not None or "rewards" not in file:
            findings.reward_problems += check_rewards(path, "rewards", found.reward)
        if _has_errors(found.problems):
            return  # the reader would stop at the first of them
    recording = read_recording(path, options)
    findings.notes += recording.notes
    _check_recording(findings, recording, "actions", [str(index) for index in range(len(recording.episodes))])


def _check_contents(findings: _Findings, found: Structure, progress: bool) -> None:
    path, state, action = findings.path, found.state, found.action
    if state is not None:
        findings.problems += check_finite(path, found.state_key, state, found.state_names)
        findings.problems += check_moving(path, found.state_key, state, found.state_names, learned=False)
    if action is not None:
        findings.problems += check_finite(path, "actions", action, found.action_names)
        findings.problems += check_moving(path, "actions", action, found.action_names, learned=True)
    for key, dataset in found.cameras.items():
        try:
            findings.problems += check_camera(path, key, dataset, state, progress)
        except DataError as error:
            findings.problems.append(from_error(path, key, error))


def _check_recording(findings: _Findings, recording: Recording, action_key: str, labels: Sequence[str]) -> None:
    """What takes whole episodes, whatever the layout. labels: how each is called."""
    path, episodes, spec = findings.path, recording.episodes, recording.spec
    findings.problems += check_episodes(path, "episodes", episodes)
    findings.problems += check_early(path, "episodes", episodes, labels)
    findings.problems += check_twins(path, "episodes", episodes, labels)
    findings.reward_problems += check_last_rewards(path, "rewards", episodes)
    if all(np.isfinite(values).all() for episode in episodes for values in (episode.state, episode.action)):
        findings.problems += check_cut(path, "episodes", episodes, labels, spec)
        findings.problems += check_grippers(path, action_key, episodes, spec)
        lags = measure_lags(episodes, spec)
        findings.notes += describe_lags(lags)
        findings.problems += check_leader(path, action_key, episodes, spec) or check_lags(path, action_key, lags)
    else:
        findings.problems += check_leader(path, action_key, episodes, spec)
    findings.problems += check_order(path, episodes, labels)
    if timing := measure_timing(episodes, labels, spec.rate_hz):
        findings.notes += describe_timing(timing)
        findings.problems += check_timing(path, timing)


def _check_aloha(findings: _Findings, options: ReadOptions, progress: bool) -> None:
    found = check_aloha(findings.path, options, progress)
    findings.tree = found.tree
    findings.problems += found.problems
    findings.reward_problems += found.reward_problems
    findings.has_reward = found.has_reward
    if found.recording is None:
        return
    findings.notes += found.recording.notes
    _check_recording(findings, found.recording, ALOHA_ACTION, file_names(found.recording))
    if not found.has_reward:
        findings.notes.append(
            "no rewards: imitation (ACT, BC) does without; offline RL (LAPO) needs them, "
            f"lapwing data convert {findings.path} OUT.hdf5 --to flat --reward last-step or LABELS.json writes them"
        )


def _check_offline(findings: _Findings, options: ReadOptions, progress: bool) -> None:
    recording = read_recording(findings.path, options)
    findings.tree = findings.tree or offline_tree(recording)
    findings.notes += [*recording.notes, *describe_returns(recording)]
    findings.problems += check_offline(recording, progress)
    findings.reward_problems += check_offline_rewards(recording)
    _check_recording(findings, recording, "actions", [str(index) for index in range(len(recording.episodes))])


def _check_serl(findings: _Findings, options: ReadOptions, progress: bool) -> None:
    recording = read_serl(findings.path, options)
    findings.tree = serl_tree(recording)
    findings.notes += recording.notes
    findings.problems += check_serl(recording, progress)
    findings.reward_problems += check_serl_rewards(recording)
    _check_recording(findings, recording, "actions", [str(index) for index in range(len(recording.episodes))])


def _check_lerobot(findings: _Findings, skip_damaged: bool) -> None:
    """Everything but the pictures: videos are opened and their frames counted; conversion decodes them."""
    path = findings.path
    recording, damaged = scan_lerobot(path)
    findings.tree = _lerobot_tree(recording)
    findings.notes += recording.notes
    advice = f"run: lapwing data convert {path} OUT.hdf5 --to flat"
    findings.problems.append(Problem("error", str(path), "layout", "LeRobot", "flat HDF5", advice))
    if damaged:
        expected = f"sound files of all {len(recording.episodes) + len(damaged)} episodes"
        severity: Severity = "warning" if skip_damaged and recording.episodes else "error"
        problem = Problem(severity, str(path), "episodes", describe_damage(damaged), expected, DAMAGE_ADVICE)
        findings.problems.append(problem)
    if not recording.episodes:
        return
    for key, axes, parts in (
        (STATE, recording.spec.state, [episode.state for episode in recording.episodes]),
        (ACTION, recording.spec.action, [episode.action for episode in recording.episodes]),
    ):
        values, names = np.concatenate(parts), [axis.name for axis in axes]
        findings.problems += check_finite(path, key, values, names)
        findings.problems += check_moving(path, key, values, names, learned=key == ACTION)
    labels = [str(episode.meta["source_episode"]) for episode in recording.episodes]
    _check_recording(findings, recording, ACTION, labels)


def _lerobot_tree(recording: Recording) -> list[str]:
    """The features in the manner of an HDF5 tree; counts are those of the sound episodes."""
    spec, steps = recording.spec, recording.num_steps
    lines = [
        f"observation.images.{camera.name}: video, shape={(steps, camera.height, camera.width, 3)}"
        for camera in spec.cameras
    ]
    lines += [
        f"{STATE}: float32, shape={(steps, spec.state_dim)}",
        f"{ACTION}: float32, shape={(steps, spec.action_dim)}",
    ]
    return [f"  {'└─' if line == lines[-1] else '├─'} {line}" for line in lines]
