"""Lag of the state behind the action, and the scales of grippers, on episodes made to have a known one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lapwing.data.align import align
from lapwing.data.labels import check_grippers, check_lags, describe_lags, measure_lags
from lapwing.episode import Array, Episode, Recording
from lapwing.spec import Axis, RobotSpec

JOINTS = ("waist", "shoulder", "elbow", "wrist")
PATH = Path("eps")


def robot(names: Sequence[str] = JOINTS, **kinds: str) -> RobotSpec:
    axes = tuple(Axis(name, kind=kinds.get(name, "arm")) for name in names)
    return RobotSpec("robot", (), axes, axes)


def smooth(rows: int, axes: int, seed: int) -> Array:
    """A path such as an operator makes: no step is like the last, and none is a jump."""
    rng = np.random.default_rng(seed)
    kernel = np.hanning(9) / np.hanning(9).sum()
    walk = rng.normal(size=(rows + 8, axes)).cumsum(0)
    return np.stack([np.convolve(column, kernel, "valid") for column in walk.T], 1)


def episodes_with(lags: Sequence[int], noise: float = 0.0, count: int = 3, rows: int = 120) -> list[Episode]:
    """Episodes in which state axis i at step t is where action axis i was lags[i] steps before."""
    episodes = []
    for seed in range(count):
        path, margin = smooth(rows + 40, len(lags), seed), 20
        state = np.stack([path[margin - lag : margin - lag + rows, axis] for axis, lag in enumerate(lags)], 1)
        state = state + noise * np.random.default_rng(seed).normal(size=state.shape)
        action = path[margin : margin + rows]
        episodes.append(Episode({}, state.astype(np.float32), action.astype(np.float32), None, False))
    return episodes


def warnings(episodes: Sequence[Episode], spec: RobotSpec) -> list[str]:
    return [str(problem) for problem in check_lags(PATH, "action", measure_lags(episodes, spec))]


@settings(deadline=None, max_examples=25)
@given(lags=st.lists(st.integers(-8, 12), min_size=4, max_size=4))
def test_the_lag_of_each_axis_is_measured(lags):
    measured = measure_lags(episodes_with(lags), robot())
    assert [(lag.axis, lag.steps) for lag in measured] == list(zip(JOINTS, lags, strict=True))
    assert all(lag.correlation > 0.99 for lag in measured)


def test_noise_leaves_the_lag_and_lowers_the_correlation():
    measured = measure_lags(episodes_with([3, 3, 1, 0], noise=0.05), robot())
    assert [lag.steps for lag in measured] == [3, 3, 1, 0]
    assert all(0.8 < lag.correlation < 0.99 for lag in measured)


def test_a_follower_behind_its_leader_is_normal():
    episodes = episodes_with([1, 2, 2, 5])
    assert warnings(episodes, robot()) == []
    assert describe_lags(measure_lags(episodes, robot())) == [
        "the state follows the action by 2 steps (median of 4 axes; waist 1, wrist 5)"
    ]


@pytest.mark.parametrize("lag", [0, -1, -4])
def test_an_action_that_leads_nothing_is_named_with_the_alignment_that_helps(lag):
    episodes = episodes_with([lag] * 4)
    (line,) = warnings(episodes, robot())
    assert line.startswith(
        "warning: eps: action: the state is not behind the action but with it or ahead: "
        f"waist by {lag} (correlation 1.00, {measure_lags(episodes, robot())[0].at_0:.2f} at 0), shoulder by {lag} "
    )
    assert line.endswith(f"stays where it is: record the commands, or train with --alignment {1 - lag}")
    recording = align(Recording(PATH, "memory", robot(), episodes), 1 - lag)
    assert [one.steps for one in measure_lags(recording.episodes, robot())] == [1] * 4
    assert warnings(recording.episodes, robot()) == []


def test_no_alignment_suits_axes_that_differ():
    (line,) = warnings(episodes_with([2, 2, 0, 2]), robot())
    assert "elbow by 0 (correlation 1.00, 1.00 at 0), expected actions that lead the state" in line
    assert "the state follows the other axes by 2, so no --alignment suits all" in line


def test_noise_over_a_slow_path_proves_nothing():
    """Where a step looks like the one before, 0 may win over 1 by chance: no warning."""
    episodes = episodes_with([1] * 4, noise=0.3)
    assert warnings(episodes, robot()) == []


@pytest.mark.parametrize(
    "change",
    [
        lambda one: replace(one, action=one.action * 0 + 1),
        lambda one: replace(one, state=one.state[::-1].copy()),
        lambda one: replace(one, action=np.diff(one.action, axis=0, append=one.action[-1:])),
        lambda one: replace(one, action=one.action[:6], state=one.state[:6]),
    ],
    ids=["at rest", "unrelated", "speeds", "too short"],
)
def test_what_says_nothing_is_left_out(change):
    episodes = [change(one) for one in episodes_with([0] * 4)]
    lags = measure_lags(episodes, robot())
    assert (lags, describe_lags(lags), check_lags(PATH, "action", lags)) == ([], [], [])


def test_axes_without_a_measurement_are_left_out():
    spec = replace(robot(), action=tuple(Axis(f"{name}_speed", kind="arm") for name in JOINTS[:3]))
    episodes = [replace(one, action=one.action[:, :3]) for one in episodes_with([2] * 4)]
    assert measure_lags(episodes, spec) == []


def test_two_arms_should_trail_alike():
    spec = robot([f"{side}_{name}" for side in ("left", "right") for name in JOINTS[:3]])
    (line,) = warnings(episodes_with([1, 1, 2, 5, 5, 5]), spec)
    assert "the left arm follows its action by 1 steps, the right arm by 5, expected two arms alike" in line
    assert warnings(episodes_with([1, 1, 2, 2, 2, 2]), spec) == []


def with_base(action_lag: int, base_lag: int) -> tuple[list[Episode], RobotSpec]:
    """Three arm axes, and two of a base whose velocity a sensor measures."""
    base = (Axis("base_linear", "m/s", "base"), Axis("base_angular", "rad/s", "base"))
    spec = robot(JOINTS[:3])
    episodes = []
    for one in episodes_with([action_lag] * 3 + [base_lag] * 2):
        velocity = one.state[:, 3:]
        episodes.append(replace(one, state=one.state[:, :3], sensors={"base_velocity": velocity}))
    return episodes, replace(spec, action=(*spec.action, *base))


def test_a_base_one_step_off_the_arm_is_named():
    """cobot_magic stores the leader's next pose beside the base's measured velocity."""
    (line,) = warnings(*with_base(1, 0))
    assert "base_linear by 0" in line
    assert "base_angular by 0" in line
    assert "the state follows the other axes by 1, so no --alignment suits all" in line
    assert warnings(*with_base(1, 1)) == []


def test_a_base_without_a_measurement_says_nothing():
    episodes, spec = with_base(1, 0)
    lags = measure_lags([replace(one, sensors={}) for one in episodes], spec)
    assert [lag.axis for lag in lags] == list(JOINTS[:3])


def gripper_episodes(scale: float, offset: float) -> tuple[list[Episode], RobotSpec]:
    spec = robot(["waist", "left_gripper"], left_gripper="gripper")
    opening = (np.sin(np.arange(200) / 9) + 1) / 2
    state = np.stack([np.arange(200) * 0.1, opening], 1).astype(np.float32)
    action = np.stack([state[:, 0], opening * scale + offset], 1).astype(np.float32)
    return [Episode({}, state, action, None, False)], spec


@pytest.mark.parametrize(("scale", "offset"), [(1, 0), (1.5, -0.2), (0.8, 0.1)])
def test_a_gripper_on_one_scale_is_fine(scale, offset):
    assert check_grippers(PATH, "action", *gripper_episodes(scale, offset)) == []


@pytest.mark.parametrize(
    ("scale", "offset", "text"),
    [
        (3.9, -0.339, "left_gripper commanded -0.33"),
        (0.06, 0, "to 0.06, measured 0.00"),
        (1, 2, "left_gripper commanded 2 to 3, measured 0.000"),
    ],
)
def test_a_gripper_on_two_scales_is_named(scale, offset, text):
    (problem,) = check_grippers(PATH, "action", *gripper_episodes(scale, offset))
    assert problem.severity == "warning"
    assert text in str(problem)


def test_a_gripper_that_never_moves_has_no_scale():
    assert check_grippers(PATH, "action", *gripper_episodes(0, 0)) == []


def test_grippers_of_other_names_are_paired_by_place():
    episodes, spec = gripper_episodes(5, 0)
    renamed = replace(spec, action=(spec.action[0], Axis("jaw", kind="gripper")))
    assert "jaw commanded" in str(check_grippers(PATH, "action", episodes, renamed)[0])
    assert check_grippers(PATH, "action", episodes, replace(renamed, state=(*spec.state, Axis("more")))) == []
