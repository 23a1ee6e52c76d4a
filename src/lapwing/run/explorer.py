"""An agent trying things out in a world: what is handed to an actor, and what acts there."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from lapwing.agent import Explorer, RewardFacts, explores
from lapwing.agents import build_agent
from lapwing.batch import Obs
from lapwing.data.frames import resize
from lapwing.data.normalize import Normalizer
from lapwing.env import ActionSource, Env
from lapwing.episode import Array, Meta, Observation
from lapwing.errors import ConfigError
from lapwing.run.checkpoint import config_from_json
from lapwing.run.collect import Chooser, Event, RandomActions, Share, collect, collection_seeds
from lapwing.spec import RobotSpec

MakeWorld = Callable[[], tuple[Env, ActionSource | None]]
Intervening = Callable[[ActionSource, ActionSource, int], Chooser]
"""Makes of a policy, of one who may take over, and of the steps that one has taken before, a source of actions."""
_NO_FACTS = RewardFacts((0.0, 0.0), (0.0, 0.0))  # acting looks at no reward


@dataclass(frozen=True)
class ActorPlan:
    """All that an actor needs to begin, in another process too.

    make_world: a world of its own, and whoever may take over there; intervene: when that one does, None: never;
    algorithm, config: the agent's, the config resolved and as plain values; random_steps: of each actor, before the
    agent's own.
    """

    make_world: MakeWorld
    intervene: Intervening | None
    algorithm: str
    config_kind: type[Any]
    config: Mapping[str, Any]
    spec: RobotSpec
    normalizer: Normalizer
    random_steps: int
    seed: int

    def make_agent(self) -> Explorer:
        config = config_from_json(self.config_kind, self.config)
        agent = build_agent(self.algorithm, config, self.spec, _NO_FACTS, restore=True)
        assert explores(agent)  # or the learner would not have planned for actors
        agent.prepare(torch.device("cpu"), bf16=False, compiled=False)
        return agent

    def make_actor(self, actor: int, before: Share) -> Explorer:
        """An agent for an actor of its own; what it tries depends on the seed and on `before`."""
        agent = self.make_agent()
        words = np.random.SeedSequence((self.seed, 0xAC7, actor, before.episodes)).generate_state(1)
        torch.manual_seed(int(words[0]))
        return agent

    def events(self, agent: Explorer, actor: int, device: torch.device, before: Share) -> Generator[Event]:
        """What happens to actor number `actor` from now on, when `before` has been. Raises what its world raises."""
        world, expert = self.make_world()
        try:
            source = self._source(agent, expert, actor, device, before)
            yield from collect(world, source, collection_seeds(self.seed, actor, before.episodes))
        finally:
            world.close()

    def _source(
        self, agent: Explorer, expert: ActionSource | None, actor: int, device: torch.device, before: Share
    ) -> Chooser:
        """What acts, at first at random. Raises ConfigError where nobody could take over."""
        exploring = Exploring(agent, self.normalizer, self.spec, device)
        chooser: Chooser = Alone(exploring)
        if self.intervene is not None:
            if expert is None:
                raise ConfigError("intervene: nobody is there to take over in this world; set --intervene none")
            chooser = self.intervene(exploring, expert, before.intervened)
        low, high = self.normalizer.action_low, self.normalizer.action_high
        left = max(0, self.random_steps - before.steps)
        return RandomActions(chooser, low, high, left, seeds=(self.seed, actor, before.episodes))


class Exploring:
    """The agent's own tries as a source of actions."""

    def __init__(self, agent: Explorer, normalizer: Normalizer, spec: RobotSpec, device: torch.device) -> None:
        self._agent = agent
        self._normalizer, self._spec, self._device = normalizer, spec, device

    def reset(self, seed: int) -> Meta:
        return {}

    @torch.inference_mode()
    def __call__(self, observation: Observation, /) -> Array:
        """Physical action float32 [A]."""
        state = np.asarray(observation.state, np.float32)[None]
        images = {
            camera.name: torch.from_numpy(resize(observation.images[camera.name][None], camera.height, camera.width))
            for camera in self._spec.cameras
        }
        obs = Obs(images, torch.from_numpy(self._normalizer.encode_state(state)))
        encoded = self._agent.explore(obs.to(self._device)).float().cpu().numpy()
        action: Array = self._normalizer.decode_action(encoded, state)[0, 0]
        return action


class Alone:
    """A source that nobody takes over from."""

    intervening = False

    def __init__(self, source: ActionSource) -> None:
        self._source = source

    def reset(self, seed: int) -> Meta:
        return self._source.reset(seed)

    def __call__(self, observation: Observation, /) -> Array | None:
        return self._source(observation)
