"""How far a policy leaves what was recorded, and whether it earns what it expects.

Offline RL fails by drifting into states that the data never held, where values are guesses; no number of its training
log shows that. A state is off the data where the nearest of the training split's states is further away than it is for
99 of 100 held-out ones, in normalised units; where nothing is held out, for those of every fifth training episode
beside the other four. One measure for every state, whatever its size: in D4RL's umaze it agrees with counting unseen
cells of 0.1 x 0.1 x 1 x 1 (a random policy: 81 % by distance, 72 % by cells; the controller that the data come from,
without its noise: 2 % and 0.2 %).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from lapwing.agent import Agent, Judge
from lapwing.batch import Batch, Obs
from lapwing.data.normalize import Normalizer
from lapwing.env import BatchEnv
from lapwing.episode import Array, Observation
from lapwing.errors import CheckpointError

STATES = "states.npz"
"""The file of a run that holds what is known of its states."""
_REFERENCE, _PROBES = 20_000, 2_000  # rows: more of the data change little, and more of a rollout
_QUANTILE = 0.99
_AT_ONCE = 256


@dataclass(frozen=True)
class KnownStates:
    """States of the training split, normalised: float32 [R, S]. far: how far off the data begins."""

    state: Array
    far: float

    @staticmethod
    def of(training: Array, held_out: Array, others: Array | None = None) -> KnownStates:
        """From normalised states [N, S], thinned at random but always alike, and held-out ones to measure with.

        `others`: what the held-out ones are measured against, all of `training` unless they are of it.
        """
        others = training if others is None else others
        far = np.quantile(_distance(_some(held_out, _PROBES), _some(others, _REFERENCE)), _QUANTILE)
        return KnownStates(_some(training, _REFERENCE), float(far))

    def share_off(self, state: Array) -> float:
        """Which share of normalised states [N, S] is off the data."""
        return float((_distance(_some(state, _PROBES), self.state) > self.far).mean())

    def arrays(self) -> dict[str, Array]:
        """What `load_known_states` reads back."""
        return {"state": self.state, "far": np.array(self.far)}


def load_known_states(run: Path) -> KnownStates | None:
    """What a run knows; None where it has images, one episode or is older than this. Raises CheckpointError."""
    path = run / STATES
    if not path.exists():
        return None
    try:
        with np.load(path) as kept:
            return KnownStates(kept["state"], float(kept["far"]))
    except (OSError, KeyError, ValueError, EOFError) as error:
        raise CheckpointError(f"{path}: damaged: {error}; delete it, and off-data shares are left out") from error


def _some(rows: Array, count: int) -> Array:
    return rows if len(rows) <= count else rows[np.random.default_rng(0).choice(len(rows), count, replace=False)]


def _distance(probes: Array, state: Array) -> Array:
    """From each probe [N, S] to the nearest of `state` [R, S], float64 [N]."""
    known = torch.from_numpy(state).double()
    asked = torch.from_numpy(probes).double()
    parts = [torch.cdist(asked[start : start + _AT_ONCE], known).amin(1) for start in range(0, len(asked), _AT_ONCE)]
    nearest: Array = torch.cat(parts).numpy()
    return nearest


class Traced:
    """A world that notes what a policy meets in it; a `BatchEnv` around another one.

    starts: the first state of each episode, [S]; visited: all states a policy acted in, [n, S] each; discounted: what
    each episode earned, discounted from its start.
    """

    def __init__(self, world: BatchEnv, discount: float) -> None:
        self.spec, self.max_steps, self.num = world.spec, world.max_steps, world.num
        self.starts, self.visited, self.discounted = list[Array](), list[Array](), list[float]()
        self._world, self._discount = world, discount
        self._running, self._weight = np.zeros(0, bool), 1.0

    def reset(self, seeds: Sequence[int]) -> Observation:
        observation = self._world.reset(seeds)
        self._running, self._weight = np.arange(self.num) < len(seeds), 1.0
        self._earned = np.zeros(self.num)
        self._state = observation.state
        self.starts += list(observation.state[: len(seeds)])
        return observation

    def step(self, actions: Array) -> tuple[Observation, Array, Array, Array, dict[str, Array]]:
        self.visited.append(self._state[self._running])
        observation, reward, terminated, truncated, info = self._world.step(actions)
        self._earned += self._weight * reward * self._running
        self._weight *= self._discount
        ended = self._running & (terminated | truncated)
        self.discounted += self._earned[ended].tolist()
        self._running = self._running & ~ended
        self._state = observation.state
        return observation, reward, terminated, truncated, info

    def close(self) -> None:
        self._world.close()


def start_value(agent: Agent, judge: Judge, normalizer: Normalizer, starts: Array, device: torch.device) -> float:
    """What the deployed mode expects to earn, discounted, on average over physical states [N, S]; without images.

    `judge`: the same agent with its trained critics, as `with_critics` gives it.
    """
    obs = Obs({}, torch.from_numpy(normalizer.encode_state(starts))).to(device)
    zeros = torch.zeros(len(starts), device=device)
    action = torch.zeros_like(agent.act(obs))
    batch = Batch(obs, action, action[..., 0].bool(), zeros, zeros, zeros, obs)
    return float(judge.judge(batch)["q_pi"].mean())
