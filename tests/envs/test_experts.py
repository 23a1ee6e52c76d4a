"""Scripted operators behind the protocol of a source of actions, and what the ALOHA world feels."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec

import numpy as np
import pytest

from lapwing.env import ActionSource, Env
from lapwing.envs import make_expert_world, make_world
from lapwing.errors import WorldError

needs_mujoco = pytest.mark.skipif(
    find_spec("mujoco") is None or find_spec("gym_aloha") is None, reason="the extra [sim] is not installed"
)


@pytest.fixture(scope="module")
def transfer() -> Iterator[tuple[Env, ActionSource]]:
    env, expert = make_expert_world("aloha", quality="expert", size=16)
    yield env, expert
    env.close()


def play(env: Env, expert: ActionSource, seed: int, steps: int = 10**6) -> tuple[list[np.ndarray], dict[str, bool]]:
    """The actions of an episode and what the world says at its end."""
    observation = env.reset(seed)
    expert.reset(seed)
    actions: list[np.ndarray] = []
    info: dict[str, bool] = {}
    while len(actions) < steps:
        action = expert(observation)
        if action is None:
            break
        actions.append(action)
        observation, _, terminated, truncated, info = env.step(action)
        if terminated or truncated:
            break
    return actions, info


def test_one_toy_world_is_the_first_of_many() -> None:
    env, expert = make_expert_world("toy", quality="expert", size=16)
    many = make_world("toy", num=2, size=16)
    alone, beside = env.reset(5), many.reset([5, 6])
    expert.reset(5)
    for _ in range(4):
        assert (alone.state == beside.state[0]).all()
        assert all((alone.images[name] == beside.images[name][0]).all() for name in env.spec.camera_names)
        action = expert(alone)
        assert action is not None
        assert action.shape == (16,)
        alone, reward, terminated, truncated, info = env.step(action)
        beside, *_ = many.step(np.stack([action, action]))
    assert (type(reward), terminated, truncated) == (float, False, False)
    assert info == {"success": False, "wrong_object": False}


def test_the_toy_expert_succeeds_and_depends_on_its_seed_alone() -> None:
    env, expert = make_expert_world("toy", quality="expert", size=16)
    first, info = play(env, expert, 8)
    assert info["success"]
    assert all((one == other).all() for one, other in zip(first, play(env, expert, 8)[0], strict=True))
    assert play(env, expert, 9)[0][0].tolist() != first[0].tolist()


def test_the_toy_expert_takes_over_from_where_things_are() -> None:
    env, expert = make_expert_world("toy", quality="expert", size=16)
    done = 0
    for seed in range(6):
        observation = env.reset(seed)
        for _ in range(4):
            observation, *_ = env.step(np.zeros(16))  # arms stretched out, far from home
        expert.reset(seed)
        terminated = truncated = False
        while not (terminated or truncated):
            action = expert(observation)
            assert action is not None
            observation, _, terminated, truncated, info = env.step(action)
        done += info["success"]
    assert done >= 5


def test_mixed_operators_say_what_they_are() -> None:
    _, expert = make_expert_world("toy", quality="mixed", size=16)
    assert {expert.reset(seed)["kind"] for seed in range(30)} == {"good", "noisy", "wrong-target"}


def test_unknown_worlds_are_refused() -> None:
    with pytest.raises(WorldError, match="world 'mars' is unknown; choose one of toy, toy-single-fixed"):
        make_expert_world("mars", quality="expert")


@needs_mujoco
def test_the_aloha_expert_reaches_the_strict_goal(transfer: tuple[Env, ActionSource]) -> None:
    env, expert = transfer
    actions, info = play(env, expert, 12)
    assert info["success"]
    assert actions[0].dtype == np.float32
    again, _ = play(env, expert, 12, steps=20)
    assert all((one == other).all() for one, other in zip(again, actions[:20], strict=True))


@needs_mujoco
def test_an_aloha_script_ends(transfer: tuple[Env, ActionSource]) -> None:
    env, expert = transfer
    observation = env.reset(3)
    assert expert.reset(3) == {"kind": "clean"}
    actions = [expert(observation) for _ in range(400)]
    assert actions[0] is not None
    assert actions[-1] is None


@needs_mujoco
def test_the_arms_feel_how_fast_they_move_and_what_it_costs(transfer: tuple[Env, ActionSource]) -> None:
    env, expert = transfer
    assert [(one.name, one.shape, one.unit, one.dtype) for one in env.spec.sensors] == [
        ("velocity", (14,), "rad/s", "float32"),
        ("effort", (14,), "N m", "float32"),
    ]
    observation = env.reset(0)
    assert not observation.sensors["velocity"].any()  # at rest
    expert.reset(0)
    states, velocities, efforts = [observation.state], [], []
    for _ in range(60):
        action = expert(observation)
        assert action is not None
        observation, *_ = env.step(action)
        states.append(observation.state)
        velocities.append(observation.sensors["velocity"])
        efforts.append(observation.sensors["effort"])
    assert observation.sensors["velocity"].dtype == np.float32
    moved = np.diff(states, axis=0) * env.spec.rate_hz
    moving = np.abs(moved).max(0) > 0.5
    assert moving.sum() >= 5
    for axis in np.flatnonzero(moving):  # a motor hurries after its target, so the end of a step is not its mean
        assert np.corrcoef(moved[:, axis], np.array(velocities)[:, axis])[0, 1] > 0.8
    shoulders = np.array(efforts)[:, [1, 8]]
    assert (np.abs(shoulders).max(0) > 1).all()  # they carry the arms
    assert np.isfinite(efforts).all()


@needs_mujoco
def test_a_velocity_is_the_change_of_the_state() -> None:
    from lapwing.envs.aloha_scene import from_joints, velocity_from_joints

    rng = np.random.default_rng(0)
    joints, velocities = rng.normal(size=23), rng.normal(size=22)
    later = joints[:16] + 0.01 * velocities[:16]
    np.testing.assert_allclose((from_joints(later) - from_joints(joints)) / 0.01, velocity_from_joints(velocities))
