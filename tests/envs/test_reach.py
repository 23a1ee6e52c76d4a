"""The toy worlds for SAC: layouts, rules, camera, operators."""

from __future__ import annotations

import json
from collections import Counter
from itertools import islice
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lapwing.envs import WORLDS, make_expert_world, make_world, sample_world, world_spec
from lapwing.envs.drawing import CLOSED_HAND, LEFT_END, OPEN_HAND, PALETTE, RIGHT_END, TARGET_BAR
from lapwing.envs.reach import MAX_STEPS, Reach
from lapwing.envs.reach_camera import GOAL
from lapwing.envs.reach_expert import Operators, expert
from lapwing.envs.reach_scene import (
    HALF_BAR,
    HIGH,
    HOLDING,
    LOW,
    OPEN,
    REACH,
    SHUT,
    STEP,
    ArmCount,
    GripperMode,
    Mode,
    distance,
)
from lapwing.episode import Array, Episode, Observation
from lapwing.errors import ConfigError, SpecError, WorldError
from lapwing.gripper import grasp_axes, setup_mode
from lapwing.spec import RobotSpec

MODES = {
    f"toy-{arms}-{gripper}": Mode(arms, gripper) for arms in get_args(ArmCount) for gripper in get_args(GripperMode)
}
NAMES = tuple(MODES)
LEARNED = tuple(name for name in NAMES if MODES[name].learned)
VARIANTS = tuple(name + variant for name in NAMES for variant in ("", "-state"))


def flawless(world: Reach) -> Array:
    """What brings every copy to its goal, [num, A]."""
    move, grip = expert(world.scene, np.zeros((world.num, 2)))
    action = np.zeros((world.num, world.mode.num_arms, 6 + world.mode.learned))
    action[..., :2] = move
    if world.mode.learned:
        action[..., 6] = grip
    return action.reshape(world.num, -1)


def arms(world: Reach, **commands: object) -> Array:
    """Actions of one copy: move [M, 2], grip [M]; what is not named is 0."""
    action = np.zeros((1, world.mode.num_arms, 6 + world.mode.learned))
    action[0, :, :2] = commands.get("move", 0.0)
    if "grip" in commands:
        action[0, :, 6] = commands["grip"]
    return action.reshape(1, -1)


def same(first: Observation, second: Observation) -> bool:
    return np.array_equal(first.state, second.state) and all(
        np.array_equal(first.images[name], second.images[name]) for name in first.images
    )


def put(world: Reach, hands: object, grips: object, goal: object) -> None:
    """Lay out the only copy; the grippers stay as they are."""
    scene = world.scene
    scene.hands[0], scene.grips[0], scene.goal[0] = (np.array(places, float) for places in (hands, grips, goal))


@pytest.fixture
def single() -> Reach:
    """One hand over a disc in reach, the goal far off."""
    world = Reach(MODES["toy-single-learned"], size=None)
    world.reset([0])
    put(world, [[0.0, 0.3]], [[0.02, 0.3]], [[0.3, 0.6]])
    return world


@pytest.fixture
def dual() -> Reach:
    """Two hands over the ends of a bar, the goal far off."""
    world = Reach(MODES["toy-dual-learned"], size=None)
    world.reset([0])
    put(world, [[-0.14, 0.3], [0.16, 0.3]], [[-0.15, 0.3], [0.15, 0.3]], [[-0.15, 0.6], [0.15, 0.6]])
    return world


@pytest.mark.parametrize(
    ("name", "size", "grippers", "mode"),
    [
        ("toy-single-fixed", 6, (), "single-arm-fixed-gripper"),
        ("toy-single-learned", 7, (6,), "single-arm-learned-gripper"),
        ("toy-dual-fixed", 12, (), "dual-arm-fixed-gripper"),
        ("toy-dual-learned", 14, (6, 13), "dual-arm-learned-gripper"),
    ],
)
@pytest.mark.parametrize("variant", ["", "-state"])
def test_actions_are_laid_out_as_in_hil_serl(
    name: str, variant: str, size: int, grippers: tuple[int, ...], mode: str
) -> None:
    spec = world_spec(name + variant)
    assert spec.action_dim == size
    assert grasp_axes(spec) == grippers
    assert setup_mode(spec) == mode
    assert {axis.kind for place, axis in enumerate(spec.action) if place not in grippers} == {"arm"}
    assert {(axis.low, axis.high) for axis in spec.action} == {(-1.0, 1.0)}
    assert {spec.action[place].unit for place in grippers} <= {"close -1, hold 0, open 1"}
    assert [axis.name.removeprefix("left_") for axis in spec.action[:6]] == ["x", "y", "z", "roll", "pitch", "yaw"]


@pytest.mark.parametrize("name", VARIANTS)
def test_observations_fit_the_spec(name: str) -> None:
    world = make_world(name, num=3, size=20)
    observation = world.reset([1, 2, 3])
    assert world.spec == world_spec(name, 20) == RobotSpec.from_dict(json.loads(json.dumps(world.spec.to_dict())))
    assert (world.num, world.max_steps) == (3, 100)
    assert observation.state.shape == (3, world.spec.state_dim)
    assert observation.state.dtype == np.float32
    low, high = (np.array([getattr(axis, end) for axis in world.spec.state]) for end in ("low", "high"))
    assert ((low <= observation.state) & (observation.state <= high)).all()
    assert tuple(observation.images) == world.spec.camera_names == (() if name.endswith("-state") else ("global",))
    for image in observation.images.values():
        assert image.shape == (3, 20, 20, 3)
        assert image.dtype == np.uint8
    assert name in WORLDS


def test_the_state_names_what_it_says() -> None:
    world = Reach(MODES["toy-dual-learned"], size=None)
    state = dict(zip((axis.name for axis in world.spec.state), world.reset([5]).state[0], strict=True))
    scene = world.scene
    assert [state["right_hand_x"], state["right_hand_y"]] == pytest.approx(scene.hands[0, 1])
    assert state["right_gripper"] == 1.0
    to_object, to_goal = scene.grips - scene.hands, scene.goal - scene.grips
    assert [state["left_hand_to_object_x"], state["left_hand_to_object_y"]] == pytest.approx(to_object[0, 0])
    assert [state["right_object_to_goal_x"], state["right_object_to_goal_y"]] == pytest.approx(to_goal[0, 1])


@pytest.mark.parametrize("name", NAMES)
def test_things_and_places_are_in_the_image_and_not_in_the_state(name: str) -> None:
    world = Reach(MODES[name], 1, 48)
    world.reset([3])
    first, *_ = world.step(np.zeros((1, world.spec.action_dim)))
    world.scene.goal[:] -= 0.1
    second, *_ = world.step(np.zeros((1, world.spec.action_dim)))
    assert np.array_equal(first.state, second.state)
    assert not np.array_equal(first.images["global"], second.images["global"])


@pytest.mark.parametrize("size", [32, 84])
@pytest.mark.parametrize("name", NAMES)
def test_thing_and_goal_show_wherever_they_are(name: str, size: int) -> None:
    images = make_world(name, 60, size).reset(range(60)).images["global"]
    thing = [TARGET_BAR] if "single" in name else [TARGET_BAR, LEFT_END, RIGHT_END]
    for colour in (GOAL, *(thing if "learned" in name or size > 32 else thing[:1])):
        assert (images == PALETTE[colour]).all(-1).sum((1, 2)).min() >= 1


def test_the_hand_shows_whether_it_is_open(single: Reach) -> None:
    world = Reach(single.mode, 1, 64)
    before = world.reset([0]).images["global"]
    after = world.step(arms(world, grip=-1))[0].images["global"]
    for image, colour, other in ((before, OPEN_HAND, CLOSED_HAND), (after, CLOSED_HAND, OPEN_HAND)):
        assert (image == PALETTE[colour]).all(-1).any()
        assert not (image == PALETTE[other]).all(-1).any()


@pytest.mark.parametrize("name", VARIANTS)
def test_a_copy_depends_on_its_seed_and_actions_alone(name: str) -> None:
    mode, size = MODES[name.removesuffix("-state")], None if name.endswith("-state") else 24
    crowd, alone = Reach(mode, 5, size), Reach(mode, 1, size)
    seeds = [11, 5, 0, 2**40, 5]
    many, one = Operators(mode, "mixed", seeds, MAX_STEPS), Operators(mode, "mixed", seeds[3:4], MAX_STEPS)
    together, single = crowd.reset(seeds), alone.reset(seeds[3:4])
    for step in range(40):
        assert np.array_equal(together.state[3], single.state[0])
        assert all(np.array_equal(together.images[camera][3], single.images[camera][0]) for camera in single.images)
        action, single_action = many.act(crowd.scene, step), one.act(alone.scene, step)
        assert np.array_equal(action[3], single_action[0])
        together, *outcome, info = crowd.step(action)
        single, *single_outcome, single_info = alone.step(single_action)
        for values, single_values in zip(
            [*outcome, *info.values()], [*single_outcome, *single_info.values()], strict=True
        ):
            assert values[3] == single_values[0]


@pytest.mark.parametrize("name", VARIANTS)
def test_the_expert_succeeds_and_reward_comes_with_success_alone(name: str) -> None:
    world = make_world(name, 200, 16)
    assert isinstance(world, Reach)
    world.reset(range(200))
    total, steps = np.zeros(200), 0
    running = np.ones(200, bool)
    while running.any():
        _, reward, terminated, truncated, info = world.step(flawless(world))
        total += reward
        running = ~(terminated | truncated)
        steps += 1
    assert info["success"].all()
    assert np.array_equal(total, np.ones(200))
    assert terminated.all()
    assert not truncated.any()
    assert steps < 40


@pytest.mark.parametrize("name", NAMES)
def test_doing_nothing_runs_into_the_limit(name: str) -> None:
    world = Reach(MODES[name], 20, None)
    world.reset(range(20))
    for step in range(1, MAX_STEPS + 1):
        _, reward, terminated, truncated, info = world.step(np.zeros((20, world.spec.action_dim)))
        assert truncated.all() == truncated.any() == (step == MAX_STEPS)
        assert not reward.any()
    assert not terminated.any()
    assert not info["success"].any()


@pytest.mark.parametrize("name", NAMES)
def test_the_other_axes_have_no_effect(name: str) -> None:
    worlds = [Reach(MODES[name], 1, 24) for _ in range(2)]
    rng = np.random.default_rng(0)
    first, second = (world.reset([4]) for world in worlds)
    for _ in range(10):
        action = rng.uniform(-1, 1, (1, worlds[0].mode.num_arms, 6 + worlds[0].mode.learned))
        other = action.copy()
        other[..., 2:6] *= -1
        first, second = (world.step(one.reshape(1, -1))[0] for world, one in zip(worlds, (action, other), strict=True))
        assert same(first, second)


def test_an_action_of_one_moves_a_hand_by_a_step_and_no_more(single: Reach) -> None:
    before = single.scene.hands.copy()
    single.step(arms(single, move=[[1.0, -0.5]]))
    assert single.scene.hands - before == pytest.approx(STEP * np.array([[[1.0, -0.5]]]))
    single.step(arms(single, move=[[5.0, 0.0]]))
    assert single.scene.hands[0, 0, 0] - before[0, 0, 0] == pytest.approx(2 * STEP)


def test_a_hand_takes_carries_and_lets_go(single: Reach) -> None:
    scene = single.scene
    *_, info = single.step(arms(single, grip=[-1]))
    assert scene.opening[0, 0] == HOLDING
    assert np.array_equal(scene.hands, scene.grips)
    assert info["grasp_penalty"] == pytest.approx([-0.02])
    *_, info = single.step(arms(single, move=[[1.0, 0.0]], grip=[-1]))  # it is closed already: nothing toggles
    assert scene.grips[0, 0] == pytest.approx([0.02 + STEP, 0.3])
    assert info["grasp_penalty"] == pytest.approx([0.0])
    *_, info = single.step(arms(single, grip=[1]))
    assert scene.opening[0, 0] == OPEN
    assert info["grasp_penalty"] == pytest.approx([-0.02])
    single.step(arms(single, move=[[1.0, 0.0]]))
    assert scene.grips[0, 0] == pytest.approx([0.02 + STEP, 0.3])


def test_a_gripper_shut_on_nothing_takes_nothing(single: Reach) -> None:
    put(single, [[0.0, 0.3]], [[REACH + 0.01, 0.3]], [[0.3, 0.6]])
    single.step(arms(single, grip=[-1]))
    assert single.scene.opening[0, 0] == SHUT
    single.step(arms(single, move=[[0.9, 0.0]], grip=[-1]))
    assert single.scene.opening[0, 0] == SHUT
    assert single.scene.grips[0, 0] == pytest.approx([REACH + 0.01, 0.3])


@pytest.mark.parametrize("command", [-0.5, -0.1, 0.0, 0.3, 0.5])
def test_a_weak_command_holds_the_gripper_as_it_is(single: Reach, command: float) -> None:
    *_, info = single.step(arms(single, grip=[command]))
    assert single.scene.opening[0, 0] == OPEN
    single.step(arms(single, grip=[-0.51]))
    *_, info = single.step(arms(single, grip=[command]))
    assert single.scene.opening[0, 0] == HOLDING
    assert info["grasp_penalty"] == pytest.approx([0.0])


def test_a_bar_is_too_heavy_for_one_hand(dual: Reach) -> None:
    scene, bar = dual.scene, dual.scene.grips.copy()
    dual.step(arms(dual, grip=[-1, 0]))
    assert scene.holding.tolist() == [[True, False]]
    right = scene.hands[0, 1].copy()
    dual.step(arms(dual, move=[[0.0, 1.0], [0.0, 0.5]]))
    assert np.array_equal(scene.grips, bar)
    assert scene.hands[0, 0] == pytest.approx(bar[0, 0])
    assert scene.hands[0, 1] == pytest.approx([right[0], right[1] + 0.5 * STEP])


def test_two_hands_toggle_at_twice_the_cost_and_keep_the_bar_stiff(dual: Reach) -> None:
    *_, info = dual.step(arms(dual, grip=[-1, -1]))
    assert info["grasp_penalty"] == pytest.approx([-0.04])
    dual.step(arms(dual, move=[[-1.0, 0.0], [1.0, 1.0]]))  # they pull apart
    gap = dual.scene.grips[0, 1] - dual.scene.grips[0, 0]
    assert distance(gap) == pytest.approx(2 * HALF_BAR)
    assert gap[1] > 0.02
    assert dual.scene.grips[0].mean(0) == pytest.approx([0.0, 0.3 + STEP / 2])


def test_crossed_hands_hold_nothing(dual: Reach) -> None:
    dual.scene.hands[:] = dual.scene.hands[:, ::-1].copy()
    dual.step(arms(dual, grip=[-1, -1]))
    assert dual.scene.opening.tolist() == [[SHUT, SHUT]]


def test_success_asks_for_a_held_thing_at_its_goal(single: Reach) -> None:
    put(single, [[0.0, 0.3]], [[0.02, 0.3]], [[0.03, 0.3]])
    _, reward, terminated, *_ = single.step(arms(single))  # there, but nobody holds it
    assert not terminated.any()
    _, reward, terminated, _, info = single.step(arms(single, grip=[-1]))
    assert (reward[0], terminated[0], info["success"][0]) == (1.0, True, True)


def test_every_end_of_a_bar_must_be_at_its_place(dual: Reach) -> None:
    put(dual, [[-0.15, 0.3], [0.15, 0.3]], [[-0.15, 0.3], [0.15, 0.3]], [[-0.15, 0.3], [0.1, 0.4]])
    *_, info = dual.step(arms(dual, grip=[-1, -1]))
    assert not info["success"].any()
    dual.scene.goal[0] = [[-0.15, 0.32], [0.14, 0.33]]
    *_, info = dual.step(arms(dual))
    assert info["success"].all()


def test_fixed_grippers_hold_from_the_start_and_cost_nothing() -> None:
    for name in ("toy-single-fixed", "toy-dual-fixed"):
        world = Reach(MODES[name], 10, None)
        world.reset(range(10))
        assert world.scene.holding.all()
        *_, info = world.step(np.ones((10, world.spec.action_dim)))
        assert world.scene.holding.all()
        assert set(info) == {"success"}


@pytest.mark.parametrize("name", LEARNED)
def test_a_finished_copy_stays_as_it_is(name: str) -> None:
    world = Reach(MODES[name], 4, 24)
    world.reset([1, 2, 3])  # the fourth was never asked for
    frozen = None
    for _ in range(MAX_STEPS):
        action = flawless(world)
        action[1:] = 0.0
        observation, reward, terminated, truncated, info = world.step(action)
        if frozen is None and terminated[0]:
            frozen = observation
        elif frozen is not None:
            kept = Observation({"global": observation.images["global"][:1]}, observation.state[:1])
            assert same(kept, Observation({"global": frozen.images["global"][:1]}, frozen.state[:1]))
            assert reward[0] == info["grasp_penalty"][0] == 0.0
            action[0] = 1.0
    assert terminated.tolist() == info["success"].tolist() == [True, False, False, False]
    assert truncated.tolist() == [False, True, True, True]


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 2**32 - 1), spread=st.sampled_from([0.3, 1.0, 50.0]), name=st.sampled_from(NAMES))
def test_whatever_is_done_hands_and_things_stay_on_the_table(seed: int, spread: float, name: str) -> None:
    world = Reach(MODES[name], 3, None)
    world.reset([seed, seed + 1, seed + 2])
    rng = np.random.default_rng(seed)
    for _ in range(30):
        _, reward, terminated, truncated, info = world.step(rng.normal(0.0, spread, (3, world.spec.action_dim)))
        scene = world.scene
        for places in (scene.hands, scene.grips):
            assert ((places >= LOW - 1e-9) & (places <= HIGH + 1e-9)).all()
        assert np.allclose(scene.hands[scene.holding], scene.grips[scene.holding])
        if world.mode.num_arms == 2:
            assert distance(scene.grips[:, 1] - scene.grips[:, 0]) == pytest.approx(2 * HALF_BAR)
        assert set(np.unique(scene.opening)) <= {OPEN, HOLDING, SHUT}
        assert set(reward) <= {0.0, 1.0}
        assert np.array_equal(terminated, info["success"])
        assert not (terminated & truncated).any()


@pytest.mark.parametrize("name", NAMES)
def test_the_expert_takes_over_from_wherever_things_are(name: str) -> None:
    world = Reach(MODES[name], 60, None)
    world.reset(range(60))
    rng = np.random.default_rng(1)
    for _ in range(25):  # grippers shut on nothing, things dropped elsewhere, hands in corners
        *_, info = world.step(
            rng.uniform(-1, 1, (60, world.spec.action_dim)) * np.where(rng.random(60) < 0.5, 1, 3)[:, None]
        )
    for _ in range(40):
        *_, info = world.step(flawless(world))
    assert info["success"].all()


@pytest.fixture(scope="module")
def mixed() -> dict[str, list[Episode]]:
    return {name: list(islice(sample_world(name, quality="mixed", size=16, seed=3), 150)) for name in NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_operators_end_as_their_kind_says(mixed: dict[str, list[Episode]], name: str) -> None:
    counts = Counter(str(episode.meta["kind"]) for episode in mixed[name])
    assert {kind: count / 150 for kind, count in counts.items()} == pytest.approx(
        {"good": 0.4, "noisy": 0.3, "astray": 0.3}, abs=0.12
    )
    by_kind = {kind: [one for one in mixed[name] if one.meta["kind"] == kind] for kind in counts}
    rate = {kind: np.mean([one.success for one in ones]) for kind, ones in by_kind.items()}
    length = {kind: np.mean([one.num_steps for one in ones]) for kind, ones in by_kind.items()}
    assert rate["good"] == 1.0
    assert rate["noisy"] >= 0.9
    assert rate["astray"] <= 0.3
    assert 1.15 * length["good"] < length["noisy"]


@pytest.mark.parametrize("name", NAMES)
def test_episodes_hold_what_happened(mixed: dict[str, list[Episode]], name: str) -> None:
    for episode in mixed[name]:
        assert episode.num_rows == episode.num_steps + 1
        assert episode.reward is not None
        assert episode.reward.sum() == episode.reward[-1] == float(bool(episode.success))
        assert episode.terminated == episode.success
        assert episode.terminated or episode.num_steps == MAX_STEPS
        assert (episode.state.dtype, episode.action.dtype, episode.reward.dtype) == (np.float32,) * 3
        assert np.abs(episode.action).max() <= 1
        assert (episode.grasp_penalty is not None) == (name in LEARNED)
        if episode.grasp_penalty is not None:
            grippers = [place for place, axis in enumerate(world_spec(name).state) if axis.kind == "gripper"]
            is_open = episode.state[:, grippers] == 1
            assert episode.grasp_penalty == pytest.approx(-0.02 * (is_open[1:] != is_open[:-1]).sum(1))
            assert np.isin(episode.action[:, grasp_axes(world_spec(name))], [-1, 0, 1]).all()


def test_demonstrations_repeat_and_replay() -> None:
    name = "toy-dual-learned"
    first, second = (list(islice(sample_world(name, quality="mixed", size=24, seed=8), 3)) for _ in range(2))
    assert next(sample_world(name, quality="mixed", size=24, seed=9)).meta["seed"] != first[0].meta["seed"]
    for one, two in zip(first, second, strict=True):
        assert one.meta == two.meta
        assert np.array_equal(one.action, two.action)
        world = make_world(name, 1, 24)
        observation = world.reset([int(one.meta["seed"])])
        for step, action in enumerate(one.action):
            assert np.array_equal(observation.state[0], one.state[step])
            assert np.array_equal(observation.images["global"][0], one.images["global"][step])
            observation, *_ = world.step(action[None])
        assert np.array_equal(observation.images["global"][0], one.images["global"][-1])


def test_human_operators_are_slow_and_rest() -> None:
    expert_ones, human = (
        list(islice(sample_world("toy-single-learned-state", quality=quality, size=16, seed=0), 60))
        for quality in ("expert", "human")
    )
    assert all(one.success for one in (*expert_ones, *human))
    lengths = [np.mean([one.num_steps for one in ones]) for ones in (expert_ones, human)]
    assert lengths[1] > 1.8 * lengths[0]
    assert np.mean([(one.action == 0).all(1).mean() for one in human]) > 0.1


def test_a_single_world_and_its_expert_tell_plain_values() -> None:
    env, source = make_expert_world("toy-dual-learned", quality="expert", size=16)
    observation = env.reset(5)
    assert source.reset(5) == {"kind": "good"}
    terminated = truncated = False
    penalties = []
    while not (terminated or truncated):
        action = source(observation)
        assert action is not None
        assert (action.shape, action.dtype) == ((14,), np.float32)
        observation, reward, terminated, truncated, info = env.step(action)
        penalties.append(info["grasp_penalty"])
    assert (reward, info["success"]) == (1.0, True)
    assert type(info["success"]) is bool
    assert {type(penalty) for penalty in penalties} == {float}
    assert sum(penalties) <= -0.0399  # both hands had to close


def test_what_does_not_fit_is_refused() -> None:
    world = Reach(MODES["toy-single-learned"], 2, 16)
    with pytest.raises(WorldError, match="toy-single-learned: step before the first reset"):
        world.step(np.zeros((2, 7)))
    with pytest.raises(WorldError, match="toy-single-learned: got 3 seeds, expected 1 to 2"):
        world.reset([0, 1, 2])
    world.reset([0, 1])
    with pytest.raises(SpecError, match=r"toy-single-learned: actions have shape \(2, 6\), expected \(2, 7\)"):
        world.step(np.zeros((2, 6)))
    action = np.zeros((2, 7))
    action[1, 6] = np.nan
    with pytest.raises(SpecError, match="toy-single-learned: action 'gripper' of copy 1 is nan"):
        world.step(action)
    with pytest.raises(ConfigError, match="size: got 15, expected at least 16"):
        world_spec("toy-dual-fixed", 15)
    with pytest.raises(ConfigError, match="num: got 0"):
        make_world("toy-dual-fixed", 0)
    with pytest.raises(WorldError, match="'toy-triple-fixed' is unknown; choose one of toy, toy-single-fixed"):
        make_world("toy-triple-fixed")
    with pytest.raises(WorldError, match="'toy-state' is unknown"):
        world_spec("toy-state")
