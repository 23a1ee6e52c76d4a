"""Is this recording fit for training? The tree of what is there, then every problem at once.

`trainable` asks for the most demanding learner, offline RL: rewards that are missing or all zero are an error.
Imitation does without rewards, and `imitable` says whether it can train.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from lapwing.data.cameras import check_camera
from lapwing.data.formats import read_recording
from lapwing.data.formats.flat import is_flat
from lapwing.data.formats.hdf5 import ImageLayout, open_hdf5
from lapwing.data.formats.lerobot import ACTION, DAMAGE_ADVICE, STATE, describe_damage, is_lerobot, scan_lerobot
from lapwing.data.formats.options import ReadOptions
from lapwing.data.numbers import check_episodes, check_finite, check_leader, check_moving, check_rewards
from lapwing.data.problems import Problem, from_error
from lapwing.data.structure import Structure, inspect, tree_lines
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


def check(path: Path, image_layout: ImageLayout = "auto", progress: bool = True) -> CheckResult:
    """Read all of a recording and report its problems. A file that cannot be read is a problem, not an exception.

    Frames are read block by block: memory does not grow with them. A progress bar shows after a second.
    """
    findings = _Findings(path)
    try:
        if is_lerobot(path):
            _check_lerobot(findings)
        else:
            with open_hdf5(path) as file:
                _check_hdf5(findings, file, image_layout, progress)
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
    elif result.imitable:
        verdict = "✗ not trainable by offline RL (LAPO); trainable by imitation (BC)"
    else:
        verdict = "✗ not trainable"
    return "\n".join([*lines, f"{verdict}: {counts}"])


class _Findings:
    """What has come to light so far. Problems of the rewards stand apart, for imitation does without them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.tree: list[str] = []
        self.notes: tuple[str, ...] = ()
        self.problems: list[Problem] = []
        self.reward_problems: list[Problem] = []

    def result(self) -> CheckResult:
        problems = sorted(self.problems + self.reward_problems, key=lambda problem: problem.severity)  # errors first
        imitable = not _has_errors(self.problems)
        trainable = imitable and not _has_errors(self.reward_problems)
        return CheckResult(self.path, self.tree, tuple(problems), self.notes, trainable, imitable)


def _has_errors(problems: Sequence[Problem]) -> bool:
    return any(problem.severity == "error" for problem in problems)


def _check_hdf5(findings: _Findings, file: h5py.File, image_layout: ImageLayout, progress: bool) -> None:
    path = findings.path
    findings.tree = tree_lines(file)
    if is_flat(file):
        found = inspect(file, path, image_layout)
        findings.problems += found.problems
        _check_contents(findings, found, progress)
        if found.reward is not None or "rewards" not in file:
            findings.reward_problems += check_rewards(path, "rewards", found.reward)
        if _has_errors(found.problems):
            return  # the reader would stop at the first of them
    recording = read_recording(path, ReadOptions(image_layout))
    findings.notes = recording.notes
    _check_recording(findings, recording)


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


def _check_recording(findings: _Findings, recording: Recording) -> None:
    findings.problems += check_episodes(findings.path, "episodes", recording.episodes)
    findings.problems += check_leader(findings.path, "actions", recording.episodes, recording.spec)


def _check_lerobot(findings: _Findings) -> None:
    """Everything but the pictures: videos are opened and their frames counted; conversion decodes them."""
    path = findings.path
    recording, damaged = scan_lerobot(path)
    findings.tree = _lerobot_tree(recording)
    findings.notes = recording.notes
    advice = f"run: lapwing data convert {path} OUT.hdf5 --to flat"
    findings.problems.append(Problem("error", str(path), "layout", "LeRobot", "flat HDF5", advice))
    if damaged:
        expected = f"sound files of all {len(recording.episodes) + len(damaged)} episodes"
        problem = Problem("error", str(path), "episodes", describe_damage(damaged), expected, DAMAGE_ADVICE)
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
    _check_recording(findings, recording)


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
