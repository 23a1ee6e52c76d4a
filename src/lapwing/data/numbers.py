"""Checks of a recording's numbers: state and action axes, rewards, episodes, and what the actions follow."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lapwing.data.problems import Problem, listed, ranges
from lapwing.episode import Array, Episode
from lapwing.spec import RobotSpec

_REWARD_ADVICE = (
    "offline RL (LAPO) cannot learn from it, imitation (ACT, BC) can; where every episode ends in success, "
    "lapwing data convert IN OUT --reward last-step writes rewards"
)
LAST_REWARD_ADVICE = (
    "mark the episodes whose task ended there as terminated (lapwing data convert IN OUT --to flat --reward last-step "
    "marks all), or record the observation after the last step"
)
_MOVING_ROWS = 10  # rows in which an axis must move before it says anything about what the action follows


def check_finite(path: Path, key: str, values: Array, names: Sequence[str]) -> list[Problem]:
    """NaN and infinity in float32 [N, axes] or [N]."""
    bad = ~np.isfinite(values.reshape(len(values), values.shape[1] if values.ndim > 1 else 1))
    if not bad.any():
        return []
    rows = np.flatnonzero(bad.any(1))
    axes = f", axes {listed(np.array(names)[bad.any(0)])}" if names else ""
    got = f"NaN or infinite in {len(rows)} of {len(values)} rows, first row {rows[0]}{axes}"
    return [Problem("error", str(path), key, got, "finite numbers", "repair the rows or drop their episodes")]


def check_moving(path: Path, key: str, values: Array, names: Sequence[str], learned: bool) -> list[Problem]:
    """Axes of [N, axes] that never change. `learned`: these are actions, of which one at least must."""
    if len(values) < 2:
        return []
    still = values.min(0) == values.max(0)  # False where there is a NaN
    if not still.any():
        return []
    constant = listed(
        f"{name} = {value + 0:.4g}" for name, value, flag in zip(names, values[0], still, strict=True) if flag
    )
    if learned and still.all():
        advice = "there is nothing to learn: record the commands sent to the robot"
        return [Problem("error", str(path), key, f"all axes are constant: {constant}", "actions that move", advice)]
    advice = "training goes on; make sure that these axes were connected"
    return [Problem("warning", str(path), key, f"constant: {constant}", "axes that move", advice)]


def check_rewards(path: Path, key: str, reward: Array | None) -> list[Problem]:
    """Rewards [N] that are missing (None), not finite, or the same at every step."""
    if reward is None:
        return [Problem("error", str(path), key, "missing", "numbers [N]", _REWARD_ADVICE)]
    problems = check_finite(path, key, reward, ())
    if problems or len(reward) < 2 or reward.min() != reward.max():
        return problems
    got = f"all {len(reward)} are {reward[0]:g}"
    if reward[0] == 0:
        return [Problem("error", str(path), key, got, "rewards that differ", _REWARD_ADVICE)]
    advice = "only the length of episodes that terminate tells them apart; make sure that this is meant"
    return [Problem("warning", str(path), key, got, "rewards that differ", advice)]


def check_last_rewards(path: Path, key: str, episodes: Sequence[Episode]) -> list[Problem]:
    """Rewards that stand where nobody knows what came after, and nowhere else."""
    if any(one.reward is None for one in episodes) or not last_rewards_alone(episodes):
        return []
    got = "all 0 but for the last step of episodes that were cut, with no observation after it"
    return [Problem("error", str(path), key, got, "some in steps that can be learned from", LAST_REWARD_ADVICE)]


def last_rewards_alone(episodes: Sequence[Episode]) -> bool:
    """Whether some reward differs from 0, and none in a transition."""
    rewards = [(one.reward, one.transition_reward) for one in episodes]
    some = any(reward is not None and reward.any() for reward, _ in rewards)
    return some and not any(reward is not None and reward.any() for _, reward in rewards)


def check_episodes(path: Path, key: str, episodes: Sequence[Episode]) -> list[Problem]:
    """Episodes of a single step: the mark of an end in a wrong row, or at every row."""
    short = [index for index, episode in enumerate(episodes) if episode.num_steps == 1]
    if not short:
        return []
    if len(short) == len(episodes) > 1:
        advice = "every row is marked as an end: mark the last step of each episode only"
        got = f"all {len(short)} episodes have one step"
        return [Problem("error", str(path), key, got, "episodes of several steps", advice)]
    got = f"{len(short)} of {len(episodes)} episodes have one step: {listed(ranges(short).split(', '))}"
    advice = "look for two marks in a row"
    return [Problem("warning", str(path), key, got, "episodes of several steps", advice)]


def check_leader(path: Path, key: str, episodes: Sequence[Episode], spec: RobotSpec) -> list[Problem]:
    """Actions that repeat the state instead of commanding it: of the same step, or of the one after.

    The latter is what a recorder gives that stores the robot's own positions as actions. The robot then lags
    behind its commands, and a policy trained on them moves too little.
    """
    pairs = _pairs(spec)
    for lag, meaning in ((0, "the state of the same step"), (1, "the state one step later")):
        equal = [spec.action[action].name for action, state in pairs if _follows(episodes, action, state, lag)]
        if equal and 2 * len(equal) >= len(pairs):
            got = f"equal to {meaning}: {listed(equal)}"
            advice = "the follower's position seems recorded in place of its command; record the commands"
            if lag == 0:
                advice += ", or train with --alignment 1: a policy of it stays where it is"
            return [Problem("warning", str(path), key, got, "commands sent to the robot", advice)]
    return []


def _pairs(spec: RobotSpec) -> list[tuple[int, int]]:
    """Action and state axes of one name, or of one index where no name is shared and there are as many."""
    states = {axis.name: index for index, axis in enumerate(spec.state)}
    named = [(index, states[axis.name]) for index, axis in enumerate(spec.action) if axis.name in states]
    if named or spec.state_dim != spec.action_dim:
        return named
    return [(index, index) for index in range(spec.action_dim)]


def _follows(episodes: Sequence[Episode], action: int, state: int, lag: int) -> bool:
    """Whether action[t] is state[t + lag] on 99 % of the rows where the state moves."""
    equal, moving = 0, 0
    for episode in episodes:
        states = episode.state[:, state]
        with np.errstate(invalid="ignore"):  # infinities are reported as such
            rows = np.flatnonzero(np.diff(states))
            gap = np.abs(episode.action[rows, action] - states[rows + lag])
        equal += int((gap <= 1e-6 * np.abs(states[rows]) + 1e-7).sum())
        moving += len(rows)
    return moving >= _MOVING_ROWS and equal >= 0.99 * moving
