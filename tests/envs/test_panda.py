"""The Panda world. What needs no picture runs on `panda-state`, which takes a tenth of a second an episode."""

from __future__ import annotations

import time
from collections.abc import Iterator
from importlib.util import find_spec
from itertools import islice

import numpy as np
import pytest

from lapwing.env import Env
from lapwing.episode import Array
from lapwing.errors import ConfigError, SpecError, WorldError

if find_spec("mujoco") is None or find_spec("gym_hil") is None:
    pytest.skip("the extra [sim] is not installed", allow_module_level=True)

from lapwing.envs import make_expert_world, make_world, mujoco_gl, panda, panda_scene, sample_world, world_spec
from lapwing.envs.panda import Panda
from lapwing.envs.panda_control import Controller
from lapwing.envs.panda_expert import CLOSE, HOLD, OPEN, Expert
from lapwing.envs.panda_physics import LIFTED, Physics
from lapwing.gripper import setup_mode

STAY = np.zeros(4)


@pytest.fixture(scope="module")
def state_world() -> Panda:
    return Panda(cameras=False)


@pytest.fixture(scope="module")
def seen_world() -> Iterator[Panda]:
    world = Panda(cameras=True, size=64)
    yield world
    world.close()


def told(gripper: float, x: float = 0.0, y: float = 0.0, z: float = 0.0) -> Array:
    return np.array([x, y, z, gripper])


def play(world: Panda, seed: int, quality: str = "expert") -> tuple[int, dict[str, bool | float]]:
    """Steps of an operator's episode and what the world said at its end."""
    expert = Expert(world.physics, quality)  # type: ignore[arg-type]
    observation = world.reset(seed)
    expert.reset(seed)
    return finish(world, expert, observation)


def finish(world: Panda, expert: Expert, observation: object) -> tuple[int, dict[str, bool | float]]:
    steps, over = 0, False
    while not over and (action := expert(observation)) is not None:  # type: ignore[arg-type]
        observation, _, terminated, truncated, info = world.step(action)
        steps, over = steps + 1, terminated or truncated
    return steps, info


def test_the_spec_says_what_the_axes_are(seen_world: Panda, state_world: Panda) -> None:
    spec = state_world.spec
    assert [axis.name for axis in spec.action] == ["x", "y", "z", "gripper"]
    assert {(axis.low, axis.high) for axis in spec.action} == {(-1.0, 1.0)}
    assert spec.action[0].unit == "0.025 m/step"
    assert (spec.action[3].kind, spec.action[3].unit) == ("gripper", "open -1, hold 0, close 1")
    assert [axis.kind for axis in spec.action[:3]] == ["arm"] * 3
    assert setup_mode(spec) == "single-arm-learned-gripper"
    assert [axis.name for axis in spec.state[-7:]] == [
        "gripper_closed", "hand_x", "hand_y", "hand_z", "block_x", "block_y", "block_z",
    ]  # fmt: skip
    assert (spec.state_dim, seen_world.spec.state_dim, spec.rate_hz) == (21, 18, 10.0)
    assert spec.state[:18] == seen_world.spec.state
    assert [(one.name, one.height, one.width) for one in seen_world.spec.cameras] == [
        ("front", 64, 64), ("wrist", 64, 64),
    ]  # fmt: skip


def test_spec_without_a_world_is_the_worlds_spec(seen_world: Panda, state_world: Panda) -> None:
    assert world_spec("panda-state") == state_world.spec
    assert world_spec("panda", 64) == seen_world.spec
    assert world_spec("panda").cameras[0].height == 128


def test_a_seed_starts_the_same_episode_in_every_world(state_world: Panda) -> None:
    """Whatever has been done before, and whatever numpy's global generator is at; which stays where it is."""
    actions = np.random.default_rng(0).uniform(-1, 1, (20, 4))
    rows = []
    for world, noise in ((state_world, 1), (state_world, 2), (Panda(cameras=False), 3)):
        np.random.seed(noise)
        before = np.random.get_state()[1].copy()
        rows.append([world.reset(7).state] + [world.step(action)[0].state for action in actions])
        assert (np.random.get_state()[1] == before).all()
    assert (np.array(rows[0]) == np.array(rows[1])).all()
    assert (np.array(rows[0]) == np.array(rows[2])).all()


def test_images_change_nothing_in_the_physics(seen_world: Panda, state_world: Panda) -> None:
    seen, blind = seen_world.reset(3), state_world.reset(3)
    for action in np.random.default_rng(0).uniform(-1, 1, (10, 4)):
        seen, blind = seen_world.step(action)[0], state_world.step(action)[0]
    np.testing.assert_allclose(seen.state, blind.state[:18], atol=1e-6)


def test_the_block_lies_anywhere_in_its_rectangle(state_world: Panda) -> None:
    places = np.array([state_world.reset(seed).state[-3:] for seed in range(200)])
    assert (places[:, :2] > [0.3, -0.15]).all()
    assert (places[:, :2] < [0.5, 0.15]).all()
    assert (np.ptp(places, axis=0)[:2] > [0.19, 0.28]).all()
    np.testing.assert_allclose(places[:, 2], 0.02, atol=1e-6)


def test_a_reset_does_not_wait(monkeypatch: pytest.MonkeyPatch, state_world: Panda) -> None:
    def refuse(seconds: float) -> None:
        raise AssertionError("slept")

    monkeypatch.setattr(time, "sleep", refuse)  # the package does, for 1 s
    state_world.reset(0)


def test_the_state_is_in_sensible_units(state_world: Panda) -> None:
    state_world.reset(0)
    for gripper, expected in ((CLOSE, 1.0), (HOLD, 1.0), (OPEN, 0.0), (0.25, 0.25), (0.25, 0.5)):
        observation, *_ = state_world.step(told(gripper))
        assert observation.state.dtype == np.float32
        assert observation.state[14] == pytest.approx(expected)
        assert np.abs(observation.state).max() < 10


def test_an_action_of_one_moves_the_target_by_its_unit(state_world: Panda) -> None:
    state_world.reset(0)
    start = state_world.physics.target
    state_world.step(told(HOLD, x=1.0, y=-0.5, z=7.0))  # clamped to 1
    np.testing.assert_allclose(state_world.physics.target - start, [0.025, -0.0125, 0.025], atol=1e-12)
    for _ in range(8):
        state_world.step(STAY)
    np.testing.assert_allclose(state_world.physics.hand, state_world.physics.target, atol=5e-3)


def test_the_hand_stays_in_reach(state_world: Panda) -> None:
    state_world.reset(0)
    for _ in range(40):
        state_world.step(told(HOLD, x=1.0, y=1.0, z=1.0))
    np.testing.assert_allclose(state_world.physics.target, [0.6, 0.3, 0.5])


def test_each_effective_toggle_costs(state_world: Panda) -> None:
    """Closing what is open and opening what is closed; holding and repeating cost nothing."""
    state_world.reset(0)
    commands = (HOLD, OPEN, CLOSE, CLOSE, HOLD, 0.4, OPEN, OPEN, CLOSE)
    penalties = [state_world.step(told(command))[4]["grasp_penalty"] for command in commands]
    assert penalties == [0.0, 0.0, -0.02, 0.0, 0.0, 0.0, -0.02, 0.0, -0.02]


def test_lifting_is_rewarded_and_ends_the_episode(state_world: Panda) -> None:
    expert = Expert(state_world.physics, "expert")
    observation = state_world.reset(5)
    expert.reset(5)
    ends, lifts = [], []
    while not (ends and ends[-1][1]):
        action = expert(observation)
        assert action is not None
        observation, reward, terminated, truncated, info = state_world.step(action)
        ends.append((reward, terminated, truncated, info["success"]))
        lifts.append(state_world.physics.lift)
    assert set(ends[:-1]) == {(0.0, False, False, False)}
    assert ends[-1] == (1.0, True, False, True)
    assert max(lifts[:-1]) <= LIFTED < lifts[-1]
    assert observation.state[-1] > 0.12


def test_a_block_out_of_bounds_ends_the_episode_with_nothing(state_world: Panda) -> None:
    state_world.reset(0)
    state_world.physics.data.joint("block").qpos[:2] = (0.56, 0.0)
    _, reward, terminated, truncated, info = state_world.step(STAY)
    assert (reward, terminated, truncated) == (0.0, True, False)
    assert info == {"success": False, "out_of_bounds": True, "grasp_penalty": 0.0}


def test_the_time_limit_truncates(monkeypatch: pytest.MonkeyPatch, state_world: Panda) -> None:
    assert state_world.max_steps == 100
    monkeypatch.setattr(state_world, "max_steps", 3)
    state_world.reset(0)
    assert [state_world.step(STAY)[2:4] for _ in range(3)] == [(False, False), (False, False), (False, True)]


@pytest.mark.parametrize("action", [np.zeros(7), np.zeros((1, 4)), np.array([0.0, np.nan, 0.0, 0.0])])
def test_an_action_that_does_not_fit_is_refused(state_world: Panda, action: Array) -> None:
    state_world.reset(0)
    with pytest.raises(SpecError, match=r"action: got .*, expected 4 finite numbers \(x, y, z, gripper\)"):
        state_world.step(action)


def test_cameras_draw_what_they_are_for(seen_world: Panda) -> None:
    """The block is in the front view from the start, and under the hand before it is grasped."""
    observation = seen_world.reset(2)
    assert list(observation.images) == ["front", "wrist"]
    for frame in observation.images.values():
        assert (frame.shape, frame.dtype) == ((64, 64, 3), np.uint8)
        assert frame.std() > 5
    assert purple(observation.images["front"]) >= 3
    expert = Expert(seen_world.physics, "expert")
    expert.reset(2)
    while np.linalg.norm(seen_world.physics.block - seen_world.physics.hand) > 0.05:
        action = expert(observation)
        assert action is not None
        observation, *_ = seen_world.step(action)
    assert purple(observation.images["wrist"]) >= 150


def purple(frame: Array) -> int:
    red, green, blue = frame.astype(int).transpose(2, 0, 1)
    return int(((red > green + 15) & (blue > green + 15)).sum())


def test_leaving_out_what_the_wrist_does_not_see_changes_no_pixel(seen_world: Panda) -> None:
    everything = mujoco_gl.mujoco.MjvOption()
    seen_world.reset(0)
    for action in np.random.default_rng(1).uniform(-1, 1, (6, 4)):
        observation, *_ = seen_world.step(action)
        seen_world._renderer.update_scene(seen_world.physics.data, "handcam_rgb", everything)
        assert (seen_world._renderer.render() == observation.images["wrist"]).all()


def test_nothing_costly_is_drawn(seen_world: Panda) -> None:
    model = seen_world.physics.model
    assert model.vis.quality.offsamples == 0
    assert not model.light_castshadow.any()
    assert not model.mat_reflectance.any()


def test_a_world_without_cameras_needs_no_graphics(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUJOCO_GL", "disable")
    world = Panda(cameras=False)
    assert world.reset(0).images == {}
    world.close()
    with pytest.raises(WorldError, match=r"neither EGL nor OSMesa is here to draw with.*apt-get install"):
        Panda(cameras=True, size=16)


def test_a_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(panda_scene, "find_spec", lambda name: None)
    with pytest.raises(WorldError, match=r"gym-hil is not installed; `pip install -e '\.\[sim\]'` in the clone"):
        Panda(cameras=False)


def test_tiny_images_are_refused() -> None:
    with pytest.raises(ConfigError, match="size: got 8, expected at least 16 pixels for the panda world's cameras"):
        Panda(size=8)


def test_torques_are_those_of_the_packages_controller(state_world: Panda) -> None:
    opspace = pytest.importorskip("gym_hil.controllers.opspace").opspace
    physics = state_world.physics
    home = np.array([0.0, 0.195, 0.0, -2.43, 0.0, 2.62, 0.785])
    controller = Controller(physics.model, home)
    state_world.reset(1)
    for action in np.random.default_rng(2).uniform(-1, 1, (15, 4)):
        state_world.step(action)
        place, turn = physics.target, physics.data.mocap_quat[0].copy()
        theirs = opspace(physics.model, physics.data, physics.model.site("pinch").id, np.arange(7), place, turn, home)
        np.testing.assert_allclose(controller.torques(physics.data, place, turn), theirs, atol=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_the_expert_lifts_the_block(state_world: Panda, seed: int) -> None:
    steps, info = play(state_world, seed)
    assert info["success"]
    assert steps <= 30


def test_the_noisy_expert_recovers_and_takes_longer(state_world: Panda) -> None:
    noisy = [play(state_world, seed, "noisy") for seed in range(4)]
    assert all(info["success"] for _, info in noisy)
    assert sum(steps for steps, _ in noisy) > sum(play(state_world, seed)[0] for seed in range(4))


@pytest.mark.parametrize("gripper", [OPEN, CLOSE])
def test_the_expert_goes_on_from_anywhere(state_world: Panda, gripper: float) -> None:
    expert = Expert(state_world.physics, "expert")
    state_world.reset(9)
    for action in np.random.default_rng(9).uniform(-1, 1, (12, 3)):
        observation, *_ = state_world.step(np.append(action, gripper))
    expert.reset(9)
    assert finish(state_world, expert, observation)[1]["success"]


def test_the_expert_mends_a_block_that_slipped(state_world: Panda) -> None:
    """Closed on nothing, with the hand low beside the block."""
    expert = Expert(state_world.physics, "expert")
    observation = state_world.reset(4)
    expert.reset(4)
    for _ in range(12):
        action = expert(observation)
        assert action is not None
        observation, *_ = state_world.step(action)
    state_world.physics.data.joint("block").qpos[:3] = (0.35, 0.1, 0.02)
    assert finish(state_world, expert, observation)[1]["success"]


def test_what_is_left_to_do_shrinks(state_world: Panda) -> None:
    expert = Expert(state_world.physics, "expert")
    observation = state_world.reset(0)
    expert.reset(0)
    start = expert.remaining()
    finish(state_world, expert, observation)
    assert start > LIFTED
    assert expert.remaining() < 0.02


def test_demonstrations_depend_on_the_seed_alone() -> None:
    first, second = (next(sample_world("panda-state", quality="noisy", seed=4)) for _ in range(2))
    other = next(sample_world("panda-state", quality="noisy", seed=5))
    assert (first.action == second.action).all()
    assert (first.state == second.state).all()
    assert first.meta == second.meta
    assert other.meta["seed"] != first.meta["seed"]


def test_a_demonstration_is_what_its_actions_do(state_world: Panda) -> None:
    episode = next(sample_world("panda-state", quality="expert", seed=2))
    assert episode.num_rows == episode.num_steps + 1
    assert (episode.success, episode.terminated) == (True, True)
    assert episode.reward.sum() == episode.reward[-1] == 1.0
    assert episode.action.dtype == episode.state.dtype == episode.grasp_penalty.dtype == np.float32
    assert episode.grasp_penalty.sum() == pytest.approx(-0.02)
    observation = state_world.reset(int(episode.meta["seed"]))
    for row, action in enumerate(episode.action):
        assert (observation.state == episode.state[row]).all()
        observation, *_ = state_world.step(action)
    assert (observation.state == episode.state[-1]).all()


def test_mixed_demonstrations_keep_their_failures_and_say_so() -> None:
    episodes = list(islice(sample_world("panda-state", quality="mixed", seed=0), 14))
    kinds = {str(episode.meta["kind"]): episode for episode in episodes}
    assert len(kinds) >= 4
    for episode in episodes:
        assert episode.success == (episode.meta["kind"] in ("clean", "noisy"))
        assert episode.terminated == episode.success
        assert episode.num_steps < 100


def test_labelled_episodes_show_success_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Panda, "_draw", lambda self, camera: np.zeros((16, 16, 3), np.uint8))
    episodes = list(islice(panda.labelled(size=16, seed=0), 6))
    assert {episode.success for episode in episodes} == {True, False}
    for episode in episodes:
        assert (episode.reward.sum() >= panda.LINGER // 2) if episode.success else not episode.reward.any()


def test_labelled_episodes_without_cameras_are_the_same_and_tell_the_height(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Panda, "_draw", lambda self, camera: np.zeros((16, 16, 3), np.uint8))
    drawn, blind = (list(islice(panda.labelled(16, 1, cameras), 2)) for cameras in (True, False))
    for seen, known in zip(drawn, blind, strict=True):
        np.testing.assert_allclose(known.state[:, :-3], seen.state, atol=1e-5)
        lifted = known.state[1:, -1] - known.state[0, -1] > LIFTED
        assert (lifted == (np.asarray(seen.reward) > 0)).all()


def test_several_worlds_step_as_a_batch() -> None:
    worlds = make_world("panda-state", num=2)
    observation = worlds.reset([0, 1])
    assert observation.state.shape == (2, 21)
    _, reward, _, _, info = worlds.step(np.stack([told(CLOSE), told(HOLD)]))
    worlds.close()
    assert (reward == 0).all()
    assert info["success"].tolist() == [False, False]
    np.testing.assert_allclose(info["grasp_penalty"], [-0.02, 0.0])


def test_the_world_and_its_operator_come_as_a_pair() -> None:
    env, expert = make_expert_world("panda-state", quality="expert")
    world: Env = env
    observation = world.reset(0)
    assert expert.reset(0) == {"kind": "clean"}
    action = expert(observation)
    assert action is not None
    assert (action.shape, action.dtype) == ((4,), np.float32)
    with pytest.raises(
        WorldError, match="quality 'human' is not there in world 'panda-state'; choose mixed, expert or noisy"
    ):
        make_expert_world("panda-state", quality="human")


@pytest.mark.slow
@pytest.mark.parametrize("quality", ["expert", "noisy"])
def test_operators_succeed_nearly_always(state_world: Panda, quality: str) -> None:
    done = [play(state_world, seed, quality)[1]["success"] for seed in range(50)]
    assert sum(done) >= (50 if quality == "expert" else 47)


@pytest.mark.slow
def test_physics_and_judgement_are_the_packages() -> None:
    """The same actions in both, to the last step of an episode."""
    theirs = pytest.importorskip("gym_hil.envs").PandaPickCubeGymEnv(image_obs=False)
    ours = Panda(cameras=False)
    expert = Expert(ours.physics, "noisy")
    for seed in range(5):
        observation, _ = ours.reset(seed), theirs.reset()
        theirs.data.jnt("block").qpos[:3] = ours.physics.data.joint("block").qpos[:3]
        mujoco_gl.mujoco.mj_forward(theirs.model, theirs.data)
        expert.reset(seed)
        over = False
        while not over:
            action = expert(observation)
            assert action is not None
            observation, reward, over, _, info = ours.step(action)
            packaged = np.concatenate([action[:3] * 0.025, np.zeros(3), action[3:]])
            felt, their_reward, their_end, _, their_info = theirs.step(packaged)
            assert (their_reward, their_end, their_info["succeed"]) == (reward, over, info["success"])
        np.testing.assert_allclose(felt["environment_state"], observation.state[-3:], atol=5e-3)


def test_physics_starts_at_rest() -> None:
    physics = Physics(panda_scene.blind_scene())
    physics.reset(0)
    for _ in range(5):
        physics.advance(STAY)
    assert abs(physics.lift) < 1e-3
    assert not physics.lost
    assert physics.finger_speed < 0.2
