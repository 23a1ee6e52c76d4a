"""The replay buffer against a list of everything that ever happened."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from replay_world import SPEC, buffer, numbers, observation

from lapwing.agent import Transitions
from lapwing.episode import Episode
from lapwing.errors import DataError


@dataclass
class Told:
    """An episode as it went. seen: the numbers of its observations; steps: (reward, penalty) of each."""

    seen: list[int]
    steps: list[tuple[float, float]] = field(default_factory=list)
    terminated: bool = False
    ended: bool = False
    stand_in: bool = False  # the last number is that of an observation nobody made


REWARDS = st.sampled_from([0.0, 0.0, 1.0, -2.5, 0.1])
ACTORS = st.integers(0, 2)


class Model(RuleBasedStateMachine):
    """Every observation has a number, also a stand-in, which shows the number before its own."""

    @initialize(capacity=st.integers(2, 14), n_step=st.integers(1, 4), gamma=st.sampled_from([0.0, 0.5, 0.95, 1.0]))
    def start(self, capacity, n_step, gamma):
        self.capacity, self.sampling = capacity, Transitions(n_step, gamma)
        self.replay, self.count = buffer(capacity), 0
        self.told: list[Told] = []
        self.current: dict[int, Told] = {}
        self.stream = self.replay.stream(self.sampling, 96, seed=5)

    def number(self):
        self.count += 1
        return self.count - 1

    @rule(actor=ACTORS)
    def begin(self, actor):
        if actor in self.current:
            self.current[actor].ended = True
        self.current[actor] = Told([self.number()])
        self.told.append(self.current[actor])
        self.replay.begin(observation(self.current[actor].seen[0]), actor)

    @precondition(lambda self: self.current)
    @rule(data=st.data(), reward=REWARDS, penalty=st.sampled_from([0.0, -0.05]), end=st.sampled_from("-----tcb"))
    def add(self, data, reward, penalty, end):
        actor = data.draw(st.sampled_from(sorted(self.current)))
        episode, number = self.current[actor], self.number()
        episode.seen.append(number)
        episode.steps.append((reward, penalty))
        episode.terminated, episode.ended = end in "tb", end != "-"
        if episode.ended:
            del self.current[actor]
        action = np.array([number, reward], np.float32)
        self.replay.add(action, reward, end in "tb", end in "cb", observation(number), end == "t", penalty, actor)

    @rule(steps=st.integers(1, 5), terminated=st.booleans(), observed=st.booleans(), reward=REWARDS)
    def extend(self, steps, terminated, observed, reward):
        seen = [self.number() for _ in range(steps + 1)]
        self.told.append(Told(seen, [(reward, 0.0)] * steps, terminated, True, not observed))
        made = [observation(number) for number in seen[: steps + observed]]
        self.replay.extend(
            Episode(
                images={name: np.stack([one.images[name] for one in made]) for name in SPEC.camera_names},
                state=np.stack([one.state for one in made]),
                action=np.array([[number, reward] for number in seen[1:]], np.float32),
                reward=np.full(steps, reward, np.float32),
                terminated=terminated,
            )
        )

    def held(self, number):
        return number >= self.count - self.capacity

    def expected(self):
        """(where it begins, action) -> reward, penalty, discount, where it leads to, return."""
        found = {}
        gamma = self.sampling.gamma
        for episode in self.told:
            usable = len(episode.steps) - (episode.stand_in and not episode.terminated)
            for step in range(usable):
                if not self.held(episode.seen[step]):
                    continue
                stop = min(step + self.sampling.n_step, usable)
                window = episode.steps[step:stop]
                ends = episode.terminated and stop == len(episode.steps)
                after = episode.seen[stop] - (episode.stand_in and stop == len(episode.steps))
                found[episode.seen[step]] = (
                    sum(gamma**k * reward for k, (reward, _) in enumerate(window)),
                    sum(gamma**k * penalty for k, (_, penalty) in enumerate(window)),
                    0.0 if ends else gamma ** (stop - step),
                    after,
                    sum(gamma**k * reward for k, (reward, _) in enumerate(episode.steps[step:])),
                    episode.seen[step + 1],
                )
        return found

    @invariant()
    def draws_are_those_of_the_model(self):
        expected = self.expected()
        assert len(self.replay) == len(expected)
        if not expected:
            with pytest.raises(DataError, match="no transition to draw from"):
                next(self.replay.stream(self.sampling, 1, seed=0))
            return
        batch = next(self.stream)
        begins, leads = numbers(batch.obs), numbers(batch.next_obs)
        assert set(begins) <= set(expected)
        if len(expected) <= 6:  # each has a chance of 1 - (5 / 6) ** 96 at least
            assert set(begins) == set(expected)
        for index, begin in enumerate(begins):
            reward, penalty, discount, after, to_the_end, action = expected[begin]
            assert batch.action[index, 0, 0] == action
            assert batch.reward[index].item() == pytest.approx(reward, abs=1e-5)
            assert batch.grasp_penalty[index].item() == pytest.approx(penalty, abs=1e-6)
            assert batch.discount[index].item() == pytest.approx(discount)
            assert batch.mc_return[index].item() == pytest.approx(to_the_end, abs=1e-5)
            assert leads[index] == after

    @invariant()
    def whole_episodes_come_back(self):
        expected = [one for one in self.told if one.ended and one.steps and self.held(one.seen[0])]
        for told, episode in zip(expected, self.replay.to_episodes(), strict=True):
            observed = told.seen[: len(told.seen) - told.stand_in]
            assert episode.state[:, 0].tolist() == observed
            assert episode.images["wrist"][:, 0, 0, 0].tolist() == observed
            assert episode.action[:, 0].tolist() == told.seen[1:]
            assert episode.reward.tolist() == pytest.approx([reward for reward, _ in told.steps])
            assert episode.terminated == told.terminated

    @rule()
    def what_is_saved_and_loaded_draws_the_same(self):
        """Bit for bit, also in a buffer that first computes the returns now, or that has more room."""
        self.replay.save(self.folder)
        again = buffer(self.capacity + 3)
        again.load(self.folder)
        assert len(again) == len(self.replay)
        if len(again):
            one, other = (next(source.stream(self.sampling, 32, seed=1)) for source in (self.replay, again))
            assert numbers(one.obs) == numbers(other.obs)
            assert torch.equal(one.mc_return, other.mc_return)

    def __init__(self):
        super().__init__()
        self.scratch = TemporaryDirectory()
        self.folder = Path(self.scratch.name)

    def teardown(self):
        self.scratch.cleanup()


def test_it_does_what_the_model_says():
    run_state_machine_as_test(Model, settings=settings(deadline=None, max_examples=30, stateful_step_count=40))
