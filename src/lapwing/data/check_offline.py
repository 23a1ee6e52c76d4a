"""The check of data sets that are read as a whole: D4RL, Minari, robomimic, robosuite, pickled episodes."""

from __future__ import annotations

import numpy as np
from tqdm import tqdm

from lapwing.data.cameras import check_black, check_frozen, join_facts, scan_frames
from lapwing.data.numbers import check_finite, check_moving, check_rewards
from lapwing.data.problems import Problem
from lapwing.episode import Array, Recording


def offline_tree(recording: Recording) -> list[str]:
    """What all episodes hold, in the manner of an HDF5 tree."""
    spec, steps, rows = recording.spec, recording.num_steps, sum(one.num_rows for one in recording.episodes)
    lines = [f"{one.name}: uint8, shape={(rows, one.height, one.width, 3)}" for one in spec.cameras]
    lines += [
        f"observations: float32, shape={(rows, spec.state_dim)}",
        f"actions: float32, shape={(steps, spec.action_dim)}",
    ]
    if any(episode.reward is not None for episode in recording.episodes):
        lines.append(f"rewards: float32, shape={(steps,)}")
    return [f"  {'└─' if line == lines[-1] else '├─'} {line}" for line in lines]


def check_offline(recording: Recording, progress: bool) -> list[Problem]:
    """Numbers that are not finite or do not move, black and frozen frames."""
    path, spec, episodes = recording.path, recording.spec, recording.episodes
    state = np.concatenate([episode.state for episode in episodes])
    problems: list[Problem] = []
    for key, axes, values in (
        ("observations", spec.state, state),
        ("actions", spec.action, np.concatenate([episode.action for episode in episodes])),
    ):
        names = [axis.name for axis in axes]
        problems += check_finite(path, key, values, names)
        problems += check_moving(path, key, values, names, learned=key == "actions")
    total = sum(episode.num_rows for episode in episodes) * len(spec.cameras)
    with tqdm(total=total, desc="check", unit="frame", delay=1, leave=False, disable=not progress) as bar:
        for camera in spec.camera_names:
            facts = join_facts([scan_frames(episode.images[camera], bar) for episode in episodes])
            problems += check_black(path, camera, facts, 255.0) or check_frozen(path, camera, facts, state)
    return problems


def check_offline_rewards(recording: Recording) -> list[Problem]:
    """Rewards that are missing somewhere, say nothing, or cannot be scaled as the paper's code does."""
    path, rewards = recording.path, [one.reward for one in recording.episodes if one.reward is not None]
    if rewards and len(rewards) < len(recording.episodes):
        got = f"missing in {len(recording.episodes) - len(rewards)} of {len(recording.episodes)} episodes"
        return [Problem("error", str(path), "rewards", got, "rewards in every episode", "add them, or leave these out")]
    joined = np.concatenate(rewards) if rewards else None
    problems = check_rewards(path, "rewards", joined)
    if joined is not None and not problems and joined.max() <= 0:
        advice = "lapwing train lapo --preset original divides by it and refuses these data; the default does not"
        problems.append(
            Problem("warning", str(path), "rewards", f"the largest is {joined.max():g}", "one above 0", advice)
        )
    return problems


def describe_returns(recording: Recording) -> list[str]:
    """How the episodes ended and what they earned."""
    episodes = recording.episodes
    ended = sum(episode.terminated for episode in episodes)
    count = f"{len(episodes)} episode{'s' * (len(episodes) != 1)}"
    notes = [f"{count}: the task ended {ended}, the others were cut"]
    returns: Array = np.array([one.reward.sum(dtype=np.float64) for one in episodes if one.reward is not None])
    if len(returns) and np.isfinite(returns).all():
        low, middle, high = returns.min(), returns.mean(), returns.max()
        notes.append(f"returns: {low:.6g} to {high:.6g}, mean {middle:.6g}")
    return notes
