"""What actors tell, sorted into buffers and counted."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest
from acting_world import Always, EveryOther, Line, line_normalizer, line_spec

from lapwing.agent import Transitions
from lapwing.data.replay import ReplayBuffer
from lapwing.errors import DataError
from lapwing.run.collect import Began, Event, Share, Stepped, collect
from lapwing.run.explorer import Alone
from lapwing.run.intake import Collected, Counts, Intake


@pytest.fixture
def buffers() -> tuple[ReplayBuffer, ReplayBuffer]:
    online, demo = (ReplayBuffer(line_spec(), line_normalizer(), 100) for _ in range(2))
    return online, demo


def watched(count: int, length: int = 6) -> list[Event]:
    """Steps (0, 0) by the policy, two of each four (1, 1) by an expert."""
    source = EveryOther(Always(0, 0), Always(1, 1), 0)
    return list(islice(collect(Line(length), source, iter(range(100))), count))


def take_all(buffers: tuple[ReplayBuffer, ReplayBuffer], events: list[Event], actor: int = 0) -> Intake:
    intake = Intake(*buffers, Counts())
    for event in events:
        intake.take(actor, event)
    return intake


def held(buffer: ReplayBuffer) -> list[tuple[int, float]]:
    """(step before, action) of every transition, in order, as a large draw finds them."""
    batch = next(buffer.stream(Transitions(1, 0.9), 500, seed=0))
    steps = batch.obs.state[:, 1] * buffer.normalizer.state_scale[1] + buffer.normalizer.state_offset[1]
    return sorted({(round(float(s)), float(a)) for s, a in zip(steps, batch.action[:, 0, 0], strict=True)})


def test_everything_goes_online_and_interventions_to_both(buffers: tuple[ReplayBuffer, ReplayBuffer]) -> None:
    intake = take_all(buffers, watched(7))
    online, demo = buffers
    assert held(online) == [(0, 0), (1, 0), (2, 1), (3, 1), (4, 0), (5, 0)]
    assert held(demo) == [(2, 1), (3, 1)]
    (episode,) = online.to_episodes()
    assert episode.intervened is not None
    assert episode.intervened.tolist() == [False, False, True, True, False, False]
    assert (intake.counts.env_steps, intake.counts.intervened, intake.counts.interventions) == (6, 2, 1)


def test_stretches_of_an_intervention_are_not_joined(buffers: tuple[ReplayBuffer, ReplayBuffer]) -> None:
    intake = take_all(buffers, watched(9, length=8))
    assert held(buffers[1]) == [(2, 1), (3, 1), (6, 1), (7, 1)]
    assert intake.counts.interventions == 2
    far = next(buffers[1].stream(Transitions(4, 0.5), 200, seed=1))
    assert sorted({round(float(one), 4) for one in far.discount}) == [0, 0.25, 0.5]  # two steps at most, one end
    assert set(far.reward.tolist()) == {0.0, 0.5, 1.0}


def test_an_episode_that_was_cut_is_truncated_and_nothing_leads_across(
    buffers: tuple[ReplayBuffer, ReplayBuffer],
) -> None:
    first, second = watched(4), watched(7)
    take_all(buffers, first + second)
    batch = next(buffers[0].stream(Transitions(10, 0.5), 300, seed=0))
    found = {(round(float(d), 5), float(r)) for d, r in zip(batch.discount, batch.reward, strict=True)}
    cut = {(0.5, 0.0), (0.25, 0.0), (0.125, 0.0)}  # from the cut episode's last, second and first step: no end, no end
    whole = {(0.0, 0.5**n) for n in range(6)}
    assert found == cut | whole
    lengths = sorted(episode.num_steps for episode in buffers[0].to_episodes())
    assert lengths == [3, 6]
    assert sorted(episode.terminated for episode in buffers[0].to_episodes()) == [False, True]


def test_an_intervention_that_was_cut_does_not_go_on_in_the_next_episode(
    buffers: tuple[ReplayBuffer, ReplayBuffer],
) -> None:
    intake = take_all(buffers, watched(4) + watched(4))
    assert intake.counts.interventions == 2
    assert len(buffers[1]) == 2
    assert [episode.num_steps for episode in buffers[1].to_episodes()] == [1]  # the other is still running


def test_ended_episodes_are_told_once(buffers: tuple[ReplayBuffer, ReplayBuffer]) -> None:
    intake = take_all(buffers, watched(10, length=3), actor=4)
    assert list(intake.ended()) == [
        Collected(actor=4, env_step=3, length=3, reward=1.0, success=True, intervened=1),
        Collected(actor=4, env_step=6, length=3, reward=1.0, success=True, intervened=1),
    ]
    assert not list(intake.ended())
    assert intake.counts.ended == 2


def test_actors_are_kept_apart(buffers: tuple[ReplayBuffer, ReplayBuffer]) -> None:
    intake = Intake(*buffers, Counts())
    streams = [collect(Line(4), Alone(Always(x, 0)), iter(range(10, 20))) for x in (0.25, 0.5)]
    for _ in range(10):
        for actor, stream in enumerate(streams):
            intake.take(actor, next(stream))
    for episode in buffers[0].to_episodes():
        assert len(set(episode.action[:, 0].tolist())) == 1
        assert episode.state[:, 1].tolist() == [0, 1, 2, 3, 4]
    assert intake.counts.shares == {0: Share(2, 8, 0), 1: Share(2, 8, 0)}
    assert intake.counts.env_steps == 16


def test_the_cost_of_a_gripper_is_kept(buffers: tuple[ReplayBuffer, ReplayBuffer]) -> None:
    take_all(buffers, watched(7))
    (episode,) = buffers[0].to_episodes()
    assert episode.grasp_penalty is not None
    assert episode.grasp_penalty.tolist() == [0, 0, -0.5, -0.5, 0, 0]


def test_what_is_no_number_is_refused(buffers: tuple[ReplayBuffer, ReplayBuffer]) -> None:
    broken = Stepped(np.zeros(2, np.float32), float("nan"), False, False, watched(1)[0].observation, False, {})
    with pytest.raises(DataError, match="reward is nan, expected a finite number"):
        take_all(buffers, [Began(watched(1)[0].observation), broken])


def test_a_world_that_does_not_tell_success_gives_none(buffers: tuple[ReplayBuffer, ReplayBuffer]) -> None:
    observation = watched(1)[0].observation
    events = [Began(observation), Stepped(np.zeros(2, np.float32), 0.5, False, True, observation, False, {})]
    (ended,) = take_all(buffers, events).ended()
    assert (ended.success, ended.reward) == (None, 0.5)


def test_counts_come_back_from_json() -> None:
    counts = Counts(9, 2, 3, 1, {0: Share(1, 5, 3), 7: Share(2, 4, 0)})
    assert Counts.from_dict(counts.to_dict()) == counts
