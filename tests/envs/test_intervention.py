"""An expert who takes over from a policy that gets nowhere."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import pytest

from lapwing.env import ActionSource, Env
from lapwing.envs import make_expert_world
from lapwing.envs.intervention import Intervened
from lapwing.episode import Array, Meta, Observation
from lapwing.errors import ConfigError

needs_panda = pytest.mark.skipif(
    find_spec("mujoco") is None or find_spec("gym_hil") is None, reason="the extra [sim] is not installed"
)
NOTHING = Observation({}, np.zeros(1, np.float32))
WORLDS = ["toy", "toy-single-learned-state", "toy-dual-learned-state", pytest.param("panda-state", marks=needs_panda)]


class Doing:
    """Always does the same, and counts how often it began anew."""

    def __init__(self, action: Array) -> None:
        self._action, self.seeds = action, list[int]()

    def reset(self, seed: int) -> Meta:
        self.seeds.append(seed)
        return {"who": "policy"}

    def __call__(self, observation: Observation, /) -> Array:
        return self._action


class Watcher(Doing):
    """An expert to whom a list says how far the task is from done, step by step."""

    def __init__(self, distances: list[float]) -> None:
        super().__init__(np.ones(1))
        self._distances = iter(distances)

    def remaining(self) -> float:
        return next(self._distances)


def who(source: Intervened, steps: int) -> str:
    """Who acts in each step: p the policy, e the expert; told twice, by the action and by the mark."""
    acted = ""
    for _ in range(steps):
        action = source(NOTHING)
        assert action is not None
        assert source.intervening == bool(action[0])
        acted += "e" if source.intervening else "p"
    return acted


def test_it_takes_over_after_its_patience_and_hands_back() -> None:
    policy, expert = Doing(np.zeros(1)), Watcher([1.0] * 20)
    source = Intervened(policy, expert, budget=100, patience=3, steps=2)
    assert source.reset(7) == {"who": "policy"}
    assert who(source, 14) == "pppeepppeepppe"
    assert (policy.seeds, expert.seeds) == ([7], [7, 7, 7])
    assert source.budget_left == 95


def test_a_policy_that_gets_nearer_is_left_alone() -> None:
    source = Intervened(Doing(np.zeros(1)), Watcher([1.0 - 0.005 * step for step in range(20)]), 100, patience=3)
    source.reset(0)
    assert who(source, 20) == "p" * 20  # 0.01 m in two steps


def test_getting_nearer_by_less_than_the_gain_is_no_progress() -> None:
    source = Intervened(Doing(np.zeros(1)), Watcher([1.0 - 0.003 * step for step in range(20)]), 100, patience=3)
    source.reset(0)
    assert who(source, 4) == "pppe"


def test_going_away_and_coming_back_is_no_progress() -> None:
    source = Intervened(Doing(np.zeros(1)), Watcher([0.5, 0.9, 0.7, 0.6]), 100, patience=3)
    source.reset(0)
    assert who(source, 4) == "pppe"


def test_the_budget_is_of_all_episodes() -> None:
    source = Intervened(Doing(np.zeros(1)), Watcher([1.0] * 40), budget=5, patience=2, steps=3)
    source.reset(0)
    assert who(source, 6) == "ppeeep"
    source.reset(1)  # waiting begins anew
    assert who(source, 9) == "ppeeppppp"
    assert source.budget_left == 0


def test_an_episode_begins_with_the_policy() -> None:
    source = Intervened(Doing(np.zeros(1)), Watcher([1.0] * 40), budget=9, patience=2, steps=5)
    source.reset(0)
    assert who(source, 4) == "ppee"
    source.reset(1)
    assert not source.intervening
    assert who(source, 3) == "ppe"


@pytest.mark.parametrize("numbers", [{"budget": -1}, {"patience": 0}, {"steps": 0}, {"gain": 0.0}, {"gain": np.nan}])
def test_numbers_without_sense_are_refused(numbers: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=r"intervention: budget .* expected a budget of 0 or more"):
        Intervened(Doing(np.zeros(1)), Watcher([]), **{"budget": 1, **numbers})  # type: ignore[arg-type]


def test_an_expert_who_cannot_see_progress_is_refused() -> None:
    with pytest.raises(ConfigError, match="expert of this world cannot tell progress; choose a toy, panda or two-arm-"):
        Intervened(Doing(np.zeros(1)), Doing(np.zeros(1)), budget=10)


def play(env: Env, source: ActionSource, seed: int) -> tuple[list[Array], bool]:
    """The actions of an episode, and whether it succeeded."""
    observation = env.reset(seed)
    source.reset(seed)
    actions, over = [], False
    while not over:
        action = source(observation)
        assert action is not None
        actions.append(action)
        observation, _, terminated, truncated, info = env.step(action)
        over = terminated or truncated
    return actions, bool(info["success"])


def lazy(env: Env) -> Doing:
    """A policy that holds still."""
    return Doing(np.zeros(env.spec.action_dim, np.float32))


@pytest.mark.parametrize("world", WORLDS)
def test_an_idle_policy_succeeds_with_help_alone(world: str) -> None:
    env, expert = make_expert_world(world, quality="expert", size=16)

    def successes(budget: int) -> int:
        return sum(play(env, Intervened(lazy(env), expert, budget, 4, 25), seed)[1] for seed in range(3))

    assert successes(0) == 0
    assert successes(60) >= 2
    env.close()


@pytest.mark.parametrize("world", WORLDS)
def test_interventions_depend_on_the_seed_alone(world: str) -> None:
    runs = []
    for noise in (1, 2):
        np.random.seed(noise)
        env, expert = make_expert_world(world, quality="expert", size=16)
        source = Intervened(lazy(env), expert, budget=40, patience=5)
        runs.append(np.concatenate([play(env, source, seed)[0] for seed in (3, 4)]))
        env.close()
    assert (runs[0] == runs[1]).all()


@pytest.mark.skipif(find_spec("mujoco") is None or find_spec("gym_aloha") is None, reason="needs the extra [sim]")
def test_the_aloha_worlds_have_nobody_to_watch() -> None:
    env, expert = make_expert_world("aloha", quality="expert", size=16)
    with pytest.raises(ConfigError, match="cannot tell progress"):
        Intervened(lazy(env), expert, budget=10)
    env.close()
