"""The check of transitions: their columns as a tree, numbers and every frame. Foreign words are the file's own."""

from __future__ import annotations

import numpy as np
from tqdm import tqdm

from lapwing.data.cameras import check_black, check_frozen, join_facts, scan_frames
from lapwing.data.numbers import check_finite, check_moving, check_rewards
from lapwing.data.problems import Problem
from lapwing.episode import Recording

STATE, ACTION = "observations/state", "actions"


def serl_tree(recording: Recording) -> list[str]:
    """The columns in the manner of an HDF5 tree; N counts the transitions of all files."""
    spec, steps, episodes = recording.spec, recording.num_steps, recording.episodes
    lines = [f"observations/{one.name}: uint8, shape={(steps, one.height, one.width, 3)}" for one in spec.cameras]
    if spec.state:
        lines.append(f"{STATE}: float32, shape={(steps, spec.state_dim)}")
    lines.append(f"{ACTION}: float32, shape={(steps, spec.action_dim)}")
    for key, present in (
        ("rewards", [episode.reward is not None for episode in episodes]),
        ("grasp_penalty", [episode.grasp_penalty is not None for episode in episodes]),
        ("intervened", [episode.intervened is not None for episode in episodes]),
    ):
        if any(present):
            count = sum(episode.num_steps for episode, there in zip(episodes, present, strict=True) if there)
            lines.append(f"{key}: shape={(count,)}")
    return [f"  {'└─' if line == lines[-1] else '├─'} {line}" for line in lines]


def check_serl(recording: Recording, progress: bool) -> list[Problem]:
    """Numbers that are not finite or do not move, black and frozen frames."""
    path, spec, episodes = recording.path, recording.spec, recording.episodes
    problems = []
    state = np.concatenate([episode.state for episode in episodes])
    for key, axes, values in (
        (STATE, spec.state, state),
        (ACTION, spec.action, np.concatenate([episode.action for episode in episodes])),
    ):
        names = [axis.name for axis in axes]
        problems += check_finite(path, key, values, names)
        problems += check_moving(path, key, values, names, learned=key == ACTION)
    if not spec.cameras:
        advice = "policies will see the state alone"
        problems.append(Problem("warning", str(path), "observations", "no camera", "uint8 [H, W, 3]", advice))
    total = sum(episode.num_rows for episode in episodes) * len(spec.cameras)
    with tqdm(total=total, desc="check", unit="frame", delay=1, leave=False, disable=not progress) as bar:
        for camera in spec.camera_names:
            facts = join_facts([scan_frames(episode.images[camera], bar) for episode in episodes])
            key = f"observations/{camera}"
            problems += check_black(path, key, facts, 255.0) or check_frozen(path, key, facts, state)
    return problems


def check_serl_rewards(recording: Recording) -> list[Problem]:
    """Rewards that are missing somewhere, or say nothing."""
    rewards = [episode.reward for episode in recording.episodes if episode.reward is not None]
    missing = len(recording.episodes) - len(rewards)
    if rewards and missing:
        got = f"missing in {missing} of {len(recording.episodes)} episodes"
        advice = "offline RL (LAPO) needs them everywhere or not at all: add them, or leave these episodes out"
        return [Problem("error", str(recording.path), "rewards", got, "rewards in every transition", advice)]
    return check_rewards(recording.path, "rewards", np.concatenate(rewards) if rewards else None)
