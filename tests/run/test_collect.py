"""Acting in a world to learn from it, step by step."""

from __future__ import annotations

from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch
from acting_world import Always, EveryOther, Line, NumberAgent, line_plan, make_line

from lapwing.episode import Array, Meta, Observation
from lapwing.errors import ConfigError
from lapwing.run.collect import Began, RandomActions, Share, Stepped, collect, collection_seeds
from lapwing.run.explorer import Alone

CPU = torch.device("cpu")
LOW, HIGH = np.array([-1.0, -0.2], np.float32), np.array([0.0, 0.2], np.float32)


class GivesUp:
    """Acts twice in each episode."""

    intervening = False

    def reset(self, seed: int) -> Meta:
        self._left = 2
        return {}

    def __call__(self, observation: Observation, /) -> Array | None:
        self._left -= 1
        return np.zeros(2, np.float32) if self._left >= 0 else None


def kinds(events: Any) -> str:
    """B for an episode that began, s for a step, t for one that ended it."""
    return "".join("B" if isinstance(one, Began) else "t" if one.terminated else "s" for one in events)


def test_episodes_follow_each_other_and_every_step_is_told() -> None:
    events = list(islice(collect(Line(3), Alone(Always(0.5, 1.0)), iter((7, 8))), 8))
    assert kinds(events) == "BsstBsst"
    assert [one.observation.state.tolist() for one in events[:4]] == [[7, 0], [7, 1], [7, 2], [7, 3]]
    assert events[4].observation.state.tolist() == [8, 0]
    step = events[3]
    assert step.action.tolist() == [0.5, 1.0]
    assert (step.reward, step.truncated, step.intervened) == (1.0, False, False)
    assert step.info == {"success": True, "grasp_penalty": -0.5}


def test_an_episode_that_is_given_up_is_cut() -> None:
    assert kinds(islice(collect(Line(5), GivesUp(), iter((1, 2, 3))), 7)) == "BssBssB"


def test_random_actions_come_first_and_lie_in_their_range() -> None:
    source = RandomActions(Alone(Always(0.7, 0.7)), LOW, HIGH, steps=50, seeds=(3, 0, 0))
    told = [one.action for one in islice(collect(Line(4), source, iter(range(99))), 80) if isinstance(one, Stepped)]
    random, own = np.array(told[:50]), np.array(told[50:])
    assert np.all((random >= LOW) & (random <= HIGH))
    assert np.ptp(random, axis=0) == pytest.approx(HIGH - LOW, rel=0.2)
    assert len(own)
    assert np.all(own == np.float32(0.7))


def test_random_actions_depend_on_their_seeds_alone() -> None:
    def drawn(*seeds: int) -> Array:
        source = RandomActions(Alone(Always(0, 0)), LOW, HIGH, steps=3, seeds=seeds)
        return np.array([source(Observation({}, np.zeros(2))) for _ in range(3)])

    assert np.array_equal(drawn(1, 0, 0), drawn(1, 0, 0))
    assert not np.array_equal(drawn(1, 0, 0), drawn(1, 1, 0))
    assert not np.array_equal(drawn(1, 0, 0), drawn(1, 0, 5))


def test_nobody_takes_over_from_random_actions() -> None:
    source = RandomActions(EveryOther(Always(0, 0), Always(1, 1), 0), LOW, HIGH, steps=2, seeds=(0,))
    source.reset(0)
    seen = [(source(Observation({}, np.zeros(2))), source.intervening)[1] for _ in range(6)]
    assert seen == [False, False, False, False, True, True]


def test_seeds_of_actors_never_meet_each_other_nor_those_people_type() -> None:
    drawn = [seed for actor in range(4) for seed in islice(collection_seeds(5, actor), 50)]
    assert len(set(drawn)) == 200
    assert min(drawn) >= 2**32
    assert max(drawn) < 2**53
    assert list(islice(collection_seeds(5, 1, start=3), 2)) == list(islice(collection_seeds(5, 1), 3, 5))


def test_a_share_counts() -> None:
    share = Share()
    source = EveryOther(Always(0, 0), Always(1, 1), 0)
    for event in islice(collect(Line(4), source, iter((1, 2))), 9):
        share.count(event)
    assert share == Share(episodes=2, steps=7, intervened=3)


def test_a_plan_goes_on_where_an_actor_stopped() -> None:
    plan = line_plan(partial(make_line, expert=Always(1, 1)), EveryOther, random_steps=5)
    whole = list(islice(plan.events(NumberAgent(), 2, CPU, Share()), 20))
    later = list(islice(plan.events(NumberAgent(), 2, CPU, Share(episodes=2, steps=3)), 10))
    assert np.array_equal(later[0].observation.state, whole[10].observation.state)
    random = [np.any(one.action != one.action.round()) for one in later if isinstance(one, Stepped)]
    assert random == [True, True] + [False] * 6


def test_what_a_watcher_has_spent_is_not_given_anew() -> None:
    seen = []

    def watcher(policy: Any, expert: Any, spent: int) -> EveryOther:
        seen.append(spent)
        return EveryOther(policy, expert, spent)

    plan = line_plan(partial(make_line, expert=Always(1, 1)), watcher)
    next(plan.events(NumberAgent(), 0, CPU, Share(episodes=1, steps=9, intervened=4)))
    assert seen == [4]


def test_nobody_to_take_over_is_said() -> None:
    with pytest.raises(ConfigError, match="nobody is there to take over in this world; set --intervene none"):
        next(line_plan(intervene=EveryOther).events(NumberAgent(), 0, CPU, Share()))


def test_actions_are_the_agents_in_physical_units_and_within_the_limits() -> None:
    events = list(islice(line_plan().events(NumberAgent(9.0), 0, CPU, Share()), 2))
    assert events[1].action.tolist() == [1.0, 1.0]
