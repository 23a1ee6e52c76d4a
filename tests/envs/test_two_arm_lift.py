"""robosuite's TwoArmLift as a world of ours."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib.util import find_spec

import numpy as np
import pytest

from lapwing.envs import make_drawn_world, make_expert_world, make_world, sample_world, world_spec
from lapwing.envs.two_arm_lift_spec import spec
from lapwing.episode import Array
from lapwing.errors import ConfigError, SpecError, WorldError
from lapwing.gripper import setup_mode

needs_robosuite = pytest.mark.skipif(
    find_spec("mujoco") is None or find_spec("robosuite") is None, reason="the extra [dual] is not installed"
)
STATE = "two-arm-lift-state"
REST = np.zeros(14)
LEFT_HAND, RIGHT_HAND, GRIPPERS = slice(7, 10), slice(18, 21), [10, 21]


def test_the_robot_is_known_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "robosuite", None)
    blind, seeing = world_spec(STATE), world_spec("two-arm-lift")
    assert setup_mode(blind) == setup_mode(seeing) == "dual-arm-learned-gripper"
    assert (blind.state_dim, seeing.state_dim, blind.action_dim) == (28, 22, 14)
    assert [(camera.name, camera.height) for camera in seeing.cameras] == [
        ("front", 84),
        ("left_wrist", 84),
        ("right_wrist", 84),
    ]
    with pytest.raises(ConfigError, match="expected at least 16 pixels for the two-arm-lift world's cameras"):
        spec(cameras=True, size=8)


@pytest.mark.skipif(find_spec("mujoco") is None, reason="the extra [sim] is not installed")
def test_without_the_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "robosuite", None)
    with pytest.raises(WorldError, match=r"the package robosuite is not installed; `pip install -e '.\[dual\]'`"):
        make_world(STATE)


@pytest.fixture(scope="module")
def world() -> Iterator[object]:
    """One for all tests: it takes seconds to make."""
    made, expert = make_expert_world(STATE, quality="expert")
    yield made, expert
    made.close()


def act(world, seed: int, actions: Array) -> Array:  # type: ignore[no-untyped-def]
    """States, the first of them the reset's."""
    states = [world[0].reset(seed).state]
    states += [world[0].step(action)[0].state for action in actions]
    return np.stack(states)


@needs_robosuite
def test_an_episode_depends_on_its_seed_and_its_actions_alone(world) -> None:  # type: ignore[no-untyped-def]
    actions = np.random.default_rng(0).uniform(-1, 1, (6, 14))
    before = np.random.get_state()[1].copy()
    first = act(world, 2**40 + 3, actions)
    assert (np.random.get_state()[1] == before).all()
    other = act(world, 4, -actions)
    np.random.seed(9)
    assert np.array_equal(act(world, 2**40 + 3, actions), first)
    assert not np.array_equal(other[0], first[0])


@needs_robosuite
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_both_hands_move_in_one_frame(world, axis: int) -> None:  # type: ignore[no-untyped-def]
    push = REST.copy()
    push[[axis, 7 + axis]] = 0.5
    states = act(world, 1, np.tile(push, (4, 1)))
    for hand in (LEFT_HAND, RIGHT_HAND):
        way = (states[-1] - states[0])[hand]
        assert way[axis] > 0.03
        assert np.abs(np.delete(way, axis)).max() < 0.02
    apart = states[0][RIGHT_HAND] - states[0][LEFT_HAND]
    assert apart[0] > 0.2  # the right hand is on the right


@needs_robosuite
def test_grippers_are_told_in_our_way_and_hold(world) -> None:  # type: ignore[no-untyped-def]
    close_left, open_left = REST.copy(), REST.copy()
    close_left[6], open_left[6] = -1, 1
    world[0].reset(1)
    penalties, openings = [], []
    for action in [REST] * 9 + [close_left] + [REST] * 9 + [close_left, open_left] + [REST] * 9:
        observation, *_, info = world[0].step(action)
        penalties.append(info["grasp_penalty"])
        openings.append(observation.state[GRIPPERS])
    assert np.flatnonzero(penalties).tolist() == [9, 20]
    assert set(penalties) == {0.0, -0.02}
    assert openings[8] == pytest.approx([1, 1], abs=0.1)
    assert openings[19] == pytest.approx([0, 1], abs=0.1)
    assert openings[-1] == pytest.approx([1, 1], abs=0.1)


@needs_robosuite
def test_the_expert_lifts_the_pot(world) -> None:  # type: ignore[no-untyped-def]
    env, expert = world
    observation = env.reset(5)
    expert.reset(5)
    start, over, rewards = expert.remaining(), False, []
    while not over:
        observation, reward, terminated, truncated, info = env.step(expert(observation))
        rewards.append(reward)
        over = terminated or truncated
    assert (terminated, truncated, info["success"]) == (True, False, True)
    assert rewards == [0.0] * (len(rewards) - 1) + [1.0]
    assert len(rewards) < 50
    assert expert.remaining() < 0.05 < start


@needs_robosuite
@pytest.mark.slow
def test_an_idle_episode_is_cut(world) -> None:  # type: ignore[no-untyped-def]
    env, _ = world
    env.reset(1)
    ends = [env.step(REST)[1:4] for _ in range(100)]
    assert ends == [(0.0, False, False)] * 99 + [(0.0, False, True)]


@needs_robosuite
@pytest.mark.parametrize("action", [np.zeros(7), np.full(14, np.nan)])
def test_an_action_that_does_not_fit_is_refused(world, action: Array) -> None:  # type: ignore[no-untyped-def]
    world[0].reset(1)
    with pytest.raises(SpecError, match=r"action: got .*, expected 14 finite numbers"):
        world[0].step(action)


@needs_robosuite
@pytest.mark.parametrize("quality", ["mixed", "human"])
def test_qualities_that_are_not_there_are_refused(quality: str) -> None:
    with pytest.raises(WorldError, match="not there in world 'two-arm-lift-state'; choose noisy or expert"):
        sample_world(STATE, quality=quality, seed=0)  # type: ignore[arg-type]


@needs_robosuite
@pytest.mark.slow
def test_demonstrations_are_successes() -> None:
    episode = next(sample_world(STATE, quality="expert", seed=3))
    assert (episode.success, episode.terminated, episode.reward.sum()) == (True, True, 1.0)
    assert episode.grasp_penalty.sum() == pytest.approx(-0.04)
    assert episode.state.shape == (episode.num_steps + 1, 28)


@needs_robosuite
@pytest.mark.slow
def test_cameras_show_the_scene_and_a_person_sees_it_too() -> None:
    seeing = make_world("two-arm-lift", 1, 32)
    observation = seeing.reset([1])
    assert list(observation.images) == ["front", "left_wrist", "right_wrist"]
    assert {frames.shape for frames in observation.images.values()} == {(1, 32, 32, 3)}
    assert all(frames.std() > 10 for frames in observation.images.values())
    seeing.close()
    blind, draw = make_drawn_world(STATE)
    blind.reset(1)
    assert draw is not None
    assert draw().std() > 10
    blind.close()
