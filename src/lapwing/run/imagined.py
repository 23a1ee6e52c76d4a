"""What policies earn in a learned world, each started where held-out episodes started and played as it is deployed.

Choosing among offline policies by a learned model follows Zhang et al. (2021). A policy that misses meets what follows
its misses here, while fitted Q evaluation asks only for its actions at recorded states. Where the world is unknown,
imagination stops: from there on a policy earns the lowest recorded reward, and at most nothing (MOReL, Kidambi et al.
2020), because what a model says there is a guess, and the best of many guesses is a wrong one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from lapwing.data.normalize import Normalizer
from lapwing.episode import Array, Observation
from lapwing.run.evaluate import Actor
from lapwing.run.world_model import WorldModel


@dataclass(frozen=True)
class Imagined:
    """Of P policies in M worlds from S starts. earned: float32 [H, P, M, S], in each step, discounted from the start.

    lost: float32 [P, M, S], probability that the policy came where the world is unknown.
    """

    earned: Array
    lost: Array


def imagine(
    model: WorldModel,
    policies: Sequence[Actor],
    start: Array,
    normalizer: Normalizer,
    horizon: int,
    discount: float,
    watch: Callable[[int], None] = lambda step: None,
) -> Imagined:
    """Play P policies for `horizon` steps from physical states [S, D], every start once with each member.

    Rewards are weighted with the probability that the task had not ended. `watch` is told each step.
    """
    for policy in policies:
        policy.reset()
    shape = (len(policies), model.members, len(start))
    member = torch.arange(model.members)[:, None].expand(shape).flatten()
    state = torch.from_numpy(normalizer.encode_state(start)).expand(*shape, -1).flatten(0, 2)
    runs, lost = torch.ones(state.shape[0]), torch.zeros(state.shape[0])
    earned: Array = np.empty((horizon, *shape), np.float32)
    for step in range(horizon):
        after = model.step(state, _answers(policies, state, normalizer), member)
        lost = lost + runs * ~after.is_known
        runs = runs * after.is_known
        reward = runs * after.reward + lost * min(0.0, model.lowest)
        earned[step] = (discount**step * reward).reshape(shape).numpy()
        state, runs = after.state, runs * after.goes_on
        watch(step + 1)
    return Imagined(earned, lost.reshape(shape).numpy())


def replay(model: WorldModel, start: Array, action: Array, normalizer: Normalizer) -> float:
    """What a recorded episode (first state [D], actions [N, A], physical) earns when its actions are played blindly."""
    plan = _Plan(action, model.members)
    return float(imagine(model, [plan], start[None], normalizer, len(action), 1.0).earned.sum(0).mean())


class _Plan:
    """Plays actions [N, A] one after the other, whatever happens, in `copies` worlds."""

    def __init__(self, action: Array, copies: int) -> None:
        self._action, self._copies = action, copies
        self.reset()

    def reset(self) -> None:
        self._step = -1

    def __call__(self, observation: Observation, /) -> Array:
        self._step += 1
        return np.broadcast_to(self._action[self._step], (self._copies, self._action.shape[1]))


def _answers(policies: Sequence[Actor], state: torch.Tensor, normalizer: Normalizer) -> torch.Tensor:
    """What the policies do, encoded [N, A], at normalised states [N, D], of which each has an equal part."""
    physical = state.numpy() * normalizer.state_scale + normalizer.state_offset
    parts = np.split(physical, len(policies))
    action = np.concatenate([policy(Observation({}, part)) for policy, part in zip(policies, parts, strict=True)])
    return torch.from_numpy(normalizer.encode_action(action[:, None], physical)[:, 0])
