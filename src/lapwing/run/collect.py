"""Acting in a world to learn from it: what happens, step by step, for whoever keeps it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from lapwing.env import Env, Info
from lapwing.episode import Array, Meta, Observation


@dataclass(frozen=True)
class Began:
    """An episode began, with this observation."""

    observation: Observation


@dataclass(frozen=True)
class Stepped:
    """One step. action: physical float32 [A], the one that was carried out; observation: the one after it.

    intervened: whether another than the policy chose the action; info: what the world said.
    """

    action: Array
    reward: float
    terminated: bool
    truncated: bool
    observation: Observation
    intervened: bool
    info: Info


Event = Began | Stepped


@dataclass
class Share:
    """What one actor has done since the run began. episodes: begun ones; intervened: steps that another chose."""

    episodes: int = 0
    steps: int = 0
    intervened: int = 0

    def count(self, event: Event) -> None:
        if isinstance(event, Began):
            self.episodes += 1
        else:
            self.steps += 1
            self.intervened += int(event.intervened)


class Chooser(Protocol):
    """A source of actions that says, right after a call, whether another than the policy chose it."""

    @property
    def intervening(self) -> bool: ...

    def reset(self, seed: int) -> Meta: ...

    def __call__(self, observation: Observation, /) -> Array | None: ...


class RandomActions:
    """Actions drawn evenly between `low` and `high`, physical float32 [A] each, for the first `steps`; then `source`.

    Somebody who has taken over already acts at once. What is drawn depends on the seeds given here alone.
    """

    def __init__(self, source: Chooser, low: Array, high: Array, steps: int, seeds: tuple[int, ...]) -> None:
        self._source, self._low, self._high = source, low, high
        self._left = steps
        self._random = np.random.default_rng(seeds)
        self.intervening = False

    def reset(self, seed: int) -> Meta:
        return self._source.reset(seed)

    def __call__(self, observation: Observation, /) -> Array | None:
        if self._left > 0 and not self._source.intervening:
            self._left -= 1
            self.intervening = False
            drawn: Array = self._random.uniform(self._low, self._high).astype(np.float32)
            return drawn
        action = self._source(observation)
        self.intervening = self._source.intervening
        return action


def collect(world: Env, source: Chooser, seeds: Iterator[int]) -> Iterator[Event]:
    """Episodes without end, one per seed. One that the source gives up is cut there."""
    for seed in seeds:
        observation = world.reset(seed)
        source.reset(seed)
        yield Began(observation)
        over = False
        while not over:
            action = source(observation)
            if action is None:
                break
            intervened = source.intervening  # a person may change that while the world steps
            observation, reward, terminated, truncated, info = world.step(action)
            yield Stepped(np.asarray(action, np.float32), reward, terminated, truncated, observation, intervened, info)
            over = terminated or truncated


def collection_seeds(seed: int, actor: int, start: int = 0) -> Iterator[int]:
    """World seeds of one actor's episodes, from number `start` on; far from those a person types."""
    number = start
    while True:
        words = np.random.SeedSequence((seed, 0xC011, actor, number)).generate_state(2)
        yield 2**32 + (int(words[0]) << 20 | int(words[1]) >> 12)
        number += 1
