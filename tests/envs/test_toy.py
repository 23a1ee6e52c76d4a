"""The toy world: its rules, its cameras, its operators."""

from __future__ import annotations

from collections import Counter
from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lapwing.env import BatchEnv
from lapwing.envs import WORLDS, make_world, sample_world, toy, world_spec
from lapwing.envs.drawing import CLOSED_HAND, DECOY_END, OPEN_HAND, PALETTE, TARGET_BAR
from lapwing.envs.planar import DECOY, TARGET
from lapwing.envs.scripted import Operators, expert
from lapwing.envs.table import TABLE
from lapwing.envs.toy import MAX_STEPS, Toy
from lapwing.episode import Array, Episode, Observation
from lapwing.errors import ConfigError, SpecError, WorldError


def hold(world: Toy) -> Array:
    """Actions that stay where the arms are."""
    return world.scene.state.astype(np.float64)


def aim(world: Toy, bar: int) -> Array:
    """Flawless actions towards one bar."""
    return expert(world.scene, np.full(world.num, bar), np.zeros((world.num, 2, 2)))


def same(first: Observation, second: Observation) -> bool:
    return np.array_equal(first.state, second.state) and all(
        np.array_equal(first.images[name], second.images[name]) for name in first.images
    )


def rows(observation: Observation, index: slice) -> Observation:
    return Observation({name: image[index] for name, image in observation.images.items()}, observation.state[index])


@pytest.fixture(scope="module")
def mixed() -> list[Episode]:
    return list(islice(toy.demonstrations("mixed", 16, seed=3), 400))


def test_the_robot_has_the_same_sixteen_axes_in_state_and_action() -> None:
    spec = toy.spec()
    assert spec.state == spec.action
    names = [axis.name for axis in spec.action]
    assert names[0] == "left_joint_1"
    assert names[6] == "left_gripper"
    assert names[13:] == ["right_gripper", "base_x", "base_y"]
    assert Counter(axis.kind for axis in spec.action) == {"arm": 12, "gripper": 2, "base": 2}


@pytest.mark.parametrize("size", [16, 33, 84])
def test_observations_fit_the_spec(size: int) -> None:
    world = Toy(2, size)
    observation = world.reset([1, 2])
    assert observation.state.shape == (2, 16)
    assert observation.state.dtype == np.float32
    assert tuple(observation.images) == world.spec.camera_names == ("left", "right", "global")
    for camera in world.spec.cameras:
        image = observation.images[camera.name]
        assert image.shape == (2, camera.height, camera.width, 3) == (2, size, size, 3)
        assert image.dtype == np.uint8


def test_a_copy_depends_on_its_seed_alone() -> None:
    crowd, single = Toy(7, 32), Toy(1, 32)
    seeds = [11, 5, 0, 5, 2**40, 77, 8]
    crowd_operators = Operators("mixed", seeds, MAX_STEPS)
    single_operators = Operators("mixed", [seeds[4]], MAX_STEPS)
    assert crowd_operators.kinds[4] == single_operators.kinds[0]
    together, alone = crowd.reset(seeds), single.reset([seeds[4]])
    assert same(rows(together, slice(1, 2)), rows(together, slice(3, 4)))
    for step in range(MAX_STEPS):
        assert same(rows(together, slice(4, 5)), alone)
        action = crowd_operators.act(crowd.scene, step)
        single_action = single_operators.act(single.scene, step)
        assert np.array_equal(action[4], single_action[0])
        together, *outcome, _ = crowd.step(action)
        alone, *single_outcome, _ = single.step(single_action)
        for crowd_value, single_value in zip(outcome, single_outcome, strict=True):
            assert crowd_value[4] == single_value[0]


def test_reset_starts_afresh() -> None:
    world = Toy(3, 24)
    first = world.reset([1, 2, 3])
    for _ in range(12):
        last, *_ = world.step(aim(world, TARGET))
    assert not same(first, last)
    assert same(first, world.reset([1, 2, 3]))
    assert not same(first, world.reset([4, 5, 6]))


def test_objects_are_in_the_images_and_not_in_the_state() -> None:
    here, there = Toy(4, 48), Toy(4, 48)
    here.reset(range(4))
    there.reset(range(4))
    there.scene.centre[:] += 0.1
    there.scene.tilt[:] += 0.2
    first, *_ = here.step(hold(here))
    second, *_ = there.step(hold(there))
    assert np.array_equal(first.state, second.state)
    for copy in range(4):
        assert not np.array_equal(first.images["global"][copy], second.images["global"][copy])


@pytest.mark.parametrize("size", [64, 84])
def test_every_colour_of_both_bars_shows_in_the_global_camera(size: int) -> None:
    world = Toy(40, size)
    images = world.reset(range(40)).images["global"]
    for colour in PALETTE[TARGET_BAR : DECOY_END + 1]:  # target, its two ends, decoy, its ends
        seen = (images == colour).all(-1).sum((1, 2))
        assert seen.min() >= 1  # a hand may lie over part of it


def test_the_hand_shows_whether_it_is_open() -> None:
    world = Toy(1, 64)
    before = world.reset([0])
    action = hold(world)
    action[:, [6, 13]] = 0.0
    for _ in range(3):
        after, *_ = world.step(action)
    for name in ("left", "right", "global"):
        open_before, open_after = ((one.images[name] == PALETTE[OPEN_HAND]).all(-1).any() for one in (before, after))
        closed_after = (after.images[name] == PALETTE[CLOSED_HAND]).all(-1).any()
        assert (open_before, open_after, closed_after) == (True, False, True)


def test_the_expert_succeeds() -> None:
    world = Toy(200, 16)
    world.reset(range(1000, 1200))
    total = np.zeros(200)
    for _ in range(MAX_STEPS):
        _, reward, terminated, truncated, info = world.step(aim(world, TARGET))
        total += reward
    assert info["success"].mean() >= 0.98
    assert not info["wrong_object"].any()
    assert np.array_equal(total, info["success"])
    assert np.array_equal(terminated, info["success"])
    assert np.array_equal(truncated, ~terminated)


def test_holding_still_runs_into_the_limit() -> None:
    world = Toy(200, 16)
    world.reset(range(2000, 2200))
    for step in range(1, MAX_STEPS + 1):
        _, _, terminated, truncated, info = world.step(hold(world))
        assert truncated.any() == (step == MAX_STEPS)
    assert info["success"].mean() <= 0.02
    assert (terminated | truncated).all()
    assert not (terminated & truncated).any()


def test_the_decoy_ends_the_episode_without_reward() -> None:
    world = Toy(20, 16)
    world.reset(range(20))
    total = np.zeros(20)
    for _ in range(MAX_STEPS):
        _, reward, terminated, _, info = world.step(aim(world, DECOY))
        total += reward
    assert terminated.all()
    assert info["wrong_object"].all()
    assert not info["success"].any()
    assert not total.any()


def test_hands_must_close_on_their_own_end_twice_in_a_row() -> None:
    world = Toy(1, 16)
    world.reset([4])
    ended = False
    while world.scene.opening.max() > 0.3 or not world.scene.held[0, TARGET]:
        _, _, ended, _, _ = world.step(aim(world, TARGET))
        assert not ended.any()
    let_go = aim(world, TARGET)
    let_go[:, 6] = 1.0
    _, reward, ended, _, _ = world.step(let_go)  # one step of hold, then open: starts over
    assert not ended.any()
    assert world.scene.held[0, TARGET] == 0
    for _ in range(3):
        _, reward, ended, _, _ = world.step(aim(world, TARGET))
        if ended.any():
            break
    assert reward[0] == 1.0


def test_crossed_hands_do_not_hold() -> None:
    world = Toy(1, 16)
    world.reset([4])
    for _ in range(8):
        world.step(aim(world, TARGET))
    world.scene.tilt[:] += np.pi  # the bar turned round under the hands: each is at the other's end
    world.scene.opening[:] = 0.0
    for _ in range(3):
        closed = hold(world)
        _, reward, terminated, _, _ = world.step(closed)
    assert not terminated.any()
    assert reward[0] == 0.0


def test_a_finished_copy_stays_as_it_is() -> None:
    world = Toy(6, 24)
    world.reset(range(6))
    ended = np.zeros(6, bool)
    frozen: dict[int, Observation] = {}
    bars = np.array([TARGET, DECOY] * 3)
    for _ in range(MAX_STEPS):
        action = expert(world.scene, bars, np.zeros((6, 2, 2)))
        action[5] = hold(world)[5]
        observation, reward, terminated, truncated, info = world.step(action)
        assert not reward[ended].any()
        for copy, kept in frozen.items():
            assert same(rows(observation, slice(copy, copy + 1)), kept)
        assert (terminated | truncated)[ended].all()
        for copy in np.flatnonzero((terminated | truncated) & ~ended):
            frozen[int(copy)] = rows(observation, slice(copy, copy + 1))
        ended = terminated | truncated
    assert len(frozen) == 6
    assert info["success"].tolist() == [True, False, True, False, True, False]
    assert info["wrong_object"].tolist() == [False, True, False, True, False, False]


def test_with_fewer_seeds_the_other_copies_stand_finished() -> None:
    world = Toy(3, 16)
    observation = world.reset([9])
    assert observation.state.shape == (3, 16)
    for _ in range(MAX_STEPS):
        _, reward, terminated, truncated, info = world.step(aim(world, TARGET))
        assert not reward[1:].any()
    assert terminated.tolist() == [True, False, False]
    assert truncated.tolist() == [False, True, True]
    assert info["success"].tolist() == [True, False, False]


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 2**32 - 1), spread=st.sampled_from([0.05, 1.0, 100.0]))
def test_random_actions_keep_the_state_within_its_limits(seed: int, spread: float) -> None:
    world = Toy(3, 16)
    observation = world.reset([seed, seed + 1, seed + 2])
    low = np.array([axis.low for axis in world.spec.state], np.float32)
    high = np.array([axis.high for axis in world.spec.state], np.float32)
    rng = np.random.default_rng(seed)
    for _ in range(20):
        before = observation
        observation, reward, terminated, truncated, _ = world.step(rng.normal(0.0, spread, (3, 16)))
        assert (low <= observation.state).all()
        assert (observation.state <= high).all()
        assert (abs(observation.state - before.state)[:, :6] <= 0.0701).all()
        assert all(image.dtype == np.uint8 and image.any() for image in observation.images.values())
        assert set(reward) <= {0.0, 1.0}
        assert not (terminated & truncated).any()


def test_actions_that_do_not_fit_are_refused() -> None:
    world = Toy(2, 16)
    with pytest.raises(WorldError, match="step before the first reset"):
        world.step(np.zeros((2, 16)))
    world.reset([0, 1])
    with pytest.raises(SpecError, match=r"shape \(2, 14\), expected \(2, 16\)"):
        world.step(np.zeros((2, 14)))
    action = np.zeros((2, 16))
    action[1, 6] = np.nan
    with pytest.raises(SpecError, match="'left_gripper' of copy 1 is nan"):
        world.step(action)


def test_settings_outside_their_range_are_refused() -> None:
    with pytest.raises(ConfigError, match="size: got 15, expected at least 16"):
        Toy(1, 15)
    with pytest.raises(ConfigError, match="num: got 0"):
        Toy(0)
    with pytest.raises(WorldError, match="got 3 seeds, expected 1 to 2"):
        Toy(2, 16).reset([1, 2, 3])
    with pytest.raises(WorldError, match="got 0 seeds"):
        Toy(2, 16).reset([])


def test_the_mixture_is_as_described(mixed: list[Episode]) -> None:
    counts = Counter(str(episode.meta["kind"]) for episode in mixed)
    shares = {kind: count / len(mixed) for kind, count in counts.items()}
    assert shares == pytest.approx({"good": 0.28, "noisy": 0.26, "wrong-target": 0.46}, abs=0.07)
    assert np.mean([episode.success for episode in mixed]) == pytest.approx(0.42, abs=0.07)


@pytest.mark.parametrize(
    ("kind", "success", "wrong"), [("good", (0.98, 1), 0), ("noisy", (0.3, 0.75), 0), ("wrong-target", (0, 0.02), 1)]
)
def test_each_kind_ends_as_its_name_says(
    mixed: list[Episode], kind: str, success: tuple[float, float], wrong: int
) -> None:
    ones = [episode for episode in mixed if episode.meta["kind"] == kind]
    low, high = success
    assert low <= np.mean([episode.success for episode in ones]) <= high
    assert np.mean([episode.meta["wrong_object"] for episode in ones]) == pytest.approx(wrong, abs=0.02)


def test_labels_rewards_and_endings_agree(mixed: list[Episode]) -> None:
    for episode in mixed:
        assert episode.num_rows == episode.num_steps + 1
        assert episode.reward is not None
        assert episode.reward.sum() == episode.reward[-1] == float(bool(episode.success))
        assert episode.terminated == (episode.success or episode.meta["wrong_object"])
        assert episode.terminated or episode.num_steps == MAX_STEPS
        assert (episode.state.dtype, episode.action.dtype, episode.reward.dtype) == (np.float32,) * 3


def test_demonstrations_repeat_and_replay() -> None:
    first = list(islice(toy.demonstrations("mixed", 24, seed=8), 4))
    second = list(islice(toy.demonstrations("mixed", 24, seed=8), 4))
    other = next(toy.demonstrations("mixed", 24, seed=9))
    assert other.meta["seed"] != first[0].meta["seed"]
    for one, two in zip(first, second, strict=True):
        assert one.meta == two.meta
        assert np.array_equal(one.action, two.action)
        world = Toy(1, 24)
        observation = world.reset([int(one.meta["seed"])])
        for step, action in enumerate(one.action):
            assert np.array_equal(observation.state[0], one.state[step])
            assert np.array_equal(observation.images["left"][0], one.images["left"][step])
            observation, _, terminated, _, info = world.step(action[None])
        assert np.array_equal(observation.images["global"][0], one.images["global"][-1])
        assert (terminated[0], info["success"][0]) == (one.terminated, one.success)


def test_expert_quality_is_good_ones_alone() -> None:
    episodes = list(islice(sample_world("toy", quality="expert", size=16, seed=0), 60))
    assert {episode.meta["kind"] for episode in episodes} == {"good"}
    assert np.mean([episode.success for episode in episodes]) >= 0.98


def test_human_operators_rest_hesitate_and_finish_slowly() -> None:
    human = list(islice(sample_world("toy", quality="human", size=16, seed=0), 60))
    expert_steps = [one.num_steps for one in islice(sample_world("toy", quality="expert", size=16, seed=0), 60)]
    assert 0.6 < np.mean([episode.success for episode in human]) < 0.9
    assert np.mean([episode.num_steps for episode in human]) > 1.8 * np.mean(expert_steps)
    for episode in (one for one in human if one.success):
        closes = int(np.argmax(episode.action[:, 6] < 0.5))
        moved = np.abs(episode.action - episode.state[:-1])[closes - 2 : closes, :12].max()
        assert moved < 0.1  # a tremor, and nothing else, in the two steps before the grippers close


def test_worlds_of_mujoco_have_no_human_operators() -> None:
    with pytest.raises(WorldError, match="quality 'human' is not there in world 'aloha'; choose mixed or expert"):
        sample_world("aloha", quality="human", size=16, seed=0)


def test_worlds_are_made_by_name() -> None:
    world: BatchEnv = make_world("toy", num=2, size=20)
    assert (world.num, world.spec, world.max_steps) == (2, world_spec("toy", 20), 50)
    assert tuple(TABLE) == WORLDS
    with pytest.raises(WorldError, match=r"'toys' is unknown; choose one of toy, .*aloha, aloha-insertion"):
        make_world("toys")
    with pytest.raises(WorldError, match="unknown"):
        world_spec("")
    with pytest.raises(WorldError, match="unknown"):
        sample_world("moon", quality="mixed", size=16, seed=0)
