"""The state worlds of Gymnasium: rewards as D4RL has them, endings, seeds."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from lapwing.data.pickles import load_restricted
from lapwing.data.scores import reference_returns
from lapwing.envs import D4RL_DATA, WORLDS, make_world, world_spec
from lapwing.envs.gym_state import TASKS, GymState, door_reward
from lapwing.errors import SpecError, WorldError

DEMONSTRATIONS = Path(__file__).parents[3] / "shared" / "data" / "adroit_door_human" / "door-v0_demos.pickle"


@pytest.fixture(params=TASKS)
def name(request: pytest.FixtureRequest) -> str:
    pytest.importorskip("gymnasium", reason="gymnasium, of the extra [gym], is missing")
    if request.param == "door":
        pytest.importorskip("gymnasium_robotics", reason="gymnasium-robotics, of the extra [gym], is missing")
    return str(request.param)


@pytest.fixture
def world(name: str) -> GymState:
    return GymState(name)


def test_every_world_of_d4rl_has_its_reference_returns() -> None:
    for world, dataset in D4RL_DATA.items():
        assert world in WORLDS
        low, high = reference_returns(dataset)
        assert low < high


def test_the_same_seed_gives_the_same_episode(world: GymState) -> None:
    actions = np.random.default_rng(0).uniform(-1.2, 1.2, (5, world.spec.action_dim))
    runs = []
    for _ in range(2):
        first = world.reset(3).state
        runs.append(np.stack([first, *(world.step(action)[0].state for action in actions)]))
    assert np.array_equal(*runs)
    assert runs[0].dtype == np.float32
    assert runs[0].shape == (6, world.spec.state_dim)
    assert not np.array_equal(world.reset(4).state, runs[0][0])
    assert world.spec == world_spec(world.spec.name)


def test_actions_beyond_one_count_as_one(world: GymState) -> None:
    ends = []
    for size in (1.0, 9.0):
        world.reset(0)
        ends.append(world.step(np.full(world.spec.action_dim, size)))
    assert np.array_equal(ends[0][0].state, ends[1][0].state)
    assert ends[0][1] == ends[1][1]


def test_actions_that_do_not_fit(world: GymState) -> None:
    world.reset(0)
    with pytest.raises(SpecError, match=r"action: got shape \(1,\), expected \d+ finite numbers"):
        world.step(np.zeros(1))
    with pytest.raises(SpecError, match=r"action: got \[nan"):
        world.step(np.full(world.spec.action_dim, np.nan))


def test_an_episode_is_cut_after_its_time(world: GymState) -> None:
    world.max_steps = 3
    world.reset(0)
    ends = [world.step(np.zeros(world.spec.action_dim))[2:4] for _ in range(3)]
    assert ends == [(False, False), (False, False), (False, True)]
    assert TASKS[world.spec.name].max_steps == (200 if world.spec.name == "door" else 1000)


def test_a_hopper_falls_and_is_rewarded_as_in_v4() -> None:
    """v5 takes the 1 for being alive away in the step it falls in; the older versions, and D4RL's, do not."""
    gymnasium = pytest.importorskip("gymnasium", reason="gymnasium, of the extra [gym], is missing")
    world = GymState("hopper")
    theirs = gymnasium.make("Hopper-v5").unwrapped
    world.reset(0)
    theirs.reset(seed=0)
    actions = np.random.default_rng(0).uniform(-1, 1, (1000, 3))
    for action in actions:
        _, reward, terminated, truncated, info = world.step(action)
        expected = theirs.step(action)[1]
        if terminated:
            break
        assert reward == expected
    assert (terminated, truncated, info) == (True, False, {})
    assert reward == pytest.approx(expected + 1)


@pytest.mark.parametrize(
    ("angle", "reach", "velocity", "reward"),
    [
        (0.0, (0.3, 0.4, 0.0), [], -0.05 - 0.1 * 1.57**2),
        (0.5, (0.0, 0.0, 0.0), [10.0, -20.0], -0.1 * 1.07**2 - 0.005 + 2),
        (1.07, (0.0, 0.0, 1.0), [], -0.1 - 0.1 * 0.25 + 10),
        (1.57, (0.0, 0.0, 0.0), [], 20.0),
    ],
)
def test_the_door_rewards_being_near_open_and_calm(
    angle: float, reach: tuple[float, float, float], velocity: list[float], reward: float
) -> None:
    state = np.zeros(39)
    state[28], state[35:38] = angle, reach
    assert door_reward(state, np.array(velocity)) == pytest.approx(reward)


def test_the_door_rewards_what_its_demonstrations_say() -> None:
    """A recorded reward is that of the observation after its action; speeds, worth 0.02 at most, are not recorded."""
    if not DEMONSTRATIONS.exists():
        pytest.skip(f"{DEMONSTRATIONS} is not here")
    for one in load_restricted(DEMONSTRATIONS)[::6]:
        said = np.array([door_reward(state, np.zeros(30)) for state in one["observations"][1:]])
        gap = said - one["rewards"][:-1]
        assert gap.min() > -1e-6
        assert gap.max() < 0.02


def test_a_door_is_open_after_more_than_25_steps_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("gymnasium_robotics", reason="gymnasium-robotics, of the extra [gym], is missing")
    world = GymState("door")
    world.reset(0)
    state = np.zeros(39)
    monkeypatch.setattr(world._env, "step", lambda action: (state, 0.0, False, False, {}))
    told = []
    for angle in [1.34] + [1.36] * 26:
        state[28] = angle
        told.append(world.step(np.zeros(28))[4]["success"])
    assert told == [False] * 26 + [True]


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mujoco", reason="MuJoCo, of the extras [sim] and [gym], is missing")
    for module in [name for name in sys.modules if name.startswith("gymnasium")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "gymnasium", None)
    with pytest.raises(WorldError, match=r"hopper: the package gymnasium is not installed; `pip install -e '.\[gym\]'"):
        make_world("hopper")
