"""What the world does next, learned from recorded transitions: an ensemble of networks, for policies without cameras.

Each member predicts the change of the state, the reward and whether the task ends. Reward, between the lowest and the
highest recorded one, and end come through a sigmoid fitted by cross-entropy: right for the mean of any bounded number,
and sharp where the answer is all or nothing. As with fitted Q, each member weighs the episodes by a bootstrap draw of
its own, so that members differ by as much as the data leaves open. The world is unknown where they differ more than
they do for 99 of 100 held-out transitions (MOReL, Kidambi et al. 2020, section 4, has a like bound), and by so much
that it matters: where a model is good to one part in a hundred, twice that is still good.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from lapwing.nets.mlp import EnsembleMlp
from lapwing.nets.optim import gradient_step
from lapwing.run.fitted_q import Evidence, FitOptions, resampled, seeded

KNOWN = 0.99  # share of the held-out transitions that count as known
MATTERS = 0.25  # standard deviations of the recorded changes: members that differ by less are believed anywhere
BEYOND = 0.1  # share of the range of recorded states that predicted ones may lie outside it
FLAT = 1e-6  # changes and rewards that span less than this are constant


class Step(NamedTuple):
    """What follows an action in each of N worlds.

    state: normalised [N, S]; reward: [N]; goes_on: [N], probability that the task does not end there; is_known: bool
    [N], whether the members agree well enough to be believed.
    """

    state: Tensor
    reward: Tensor
    goes_on: Tensor
    is_known: Tensor


class WorldModel:
    """Members that each predict every transition; states are normalised, actions encoded.

    Kept within a tenth of the recorded range around it, since a prediction that is fed to itself can run away.
    """

    def __init__(self, net: EnsembleMlp, evidence: Evidence) -> None:
        change = (evidence.next_feature - evidence.feature)[evidence.discount > 0]
        self.net, self.members = net, net.members
        self.limit = float("inf")
        self.lowest = float(evidence.reward.min())
        self._span = max(float(evidence.reward.max()) - self.lowest, FLAT)
        self._offset, self._scale = change.mean(0), change.std(0).clamp(min=FLAT)
        seen = torch.cat([evidence.feature, evidence.next_feature])
        wider = BEYOND * (seen.amax(0) - seen.amin(0))
        self._low, self._high = seen.amin(0) - wider, seen.amax(0) + wider

    def loss(self, evidence: Evidence, index: Tensor, weight: Tensor) -> Tensor:
        """Of the transitions at `index` [B], weighted [M, B]; what follows the end of a task is not asked."""
        change, reward, ended = self._predicted(evidence.feature[index], evidence.action[index])
        wanted = (evidence.next_feature[index] - evidence.feature[index] - self._offset) / self._scale
        goes_on = (evidence.discount[index] > 0).float()
        earned = ((evidence.reward[index] - self.lowest) / self._span).expand_as(reward)
        error = goes_on * (change - wanted).square().mean(-1)
        error = error + F.binary_cross_entropy_with_logits(reward, earned, reduction="none")
        error = error + F.binary_cross_entropy_with_logits(ended, (1 - goes_on).expand_as(ended), reduction="none")
        return (weight * error).mean(1).sum()

    @torch.no_grad()
    def step(self, state: Tensor, action: Tensor, member: Tensor) -> Step:
        """What follows in N worlds, of which each is one member's (int64 [N])."""
        change, reward, ended = self._predicted(state, action)
        place = torch.arange(len(state), device=state.device)
        after = state + change[member, place] * self._scale + self._offset
        return Step(
            after.clamp(self._low, self._high),
            self.lowest + self._span * reward[member, place].sigmoid(),
            1 - ended[member, place].sigmoid(),
            _disagreement(change) <= self.limit,
        )

    @torch.no_grad()
    def trust(self, held_out: Evidence) -> None:
        """Let what is known end where members differ by more than they usually do on `held_out`, and than matters."""
        change, _, _ = self._predicted(held_out.feature, held_out.action)
        self.limit = max(MATTERS, float(torch.quantile(_disagreement(change), KNOWN)))

    def _predicted(self, state: Tensor, action: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Changes in standard deviations of the recorded ones [M, N, S], and logits of reward and end [M, N]."""
        out = self.net(torch.cat([state, action], -1))
        return out[..., :-2], out[..., -2], out[..., -1]


def _disagreement(change: Tensor) -> Tensor:
    """How far the members' changes [M, N, S] spread, root mean square over the axes, [N]."""
    return change.var(0, correction=0).mean(-1).sqrt()


def fit_world(
    evidence: Evidence, held_out: Evidence, options: FitOptions, watch: Callable[[int], None] = lambda step: None
) -> WorldModel:
    """Learn the world from single steps, both gathered with a discount of 1. `watch` is told each step.

    The learning rate falls to 0. The caller's random numbers are left alone.
    """
    states, actions, device = evidence.feature.shape[1], evidence.action.shape[1], evidence.feature.device
    with seeded(options.seed, device):
        net = EnsembleMlp(options.members, states + actions, options.hidden, states + 2).to(device)
    model = WorldModel(net, evidence)
    optimizer = torch.optim.Adam(net.parameters(), lr=options.lr, fused=True)
    falling = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, options.steps)
    random = torch.Generator().manual_seed(options.seed)
    weight = resampled(int(evidence.episode.max()) + 1, options.members, options.seed).to(device)
    for step in range(1, options.steps + 1):
        index = torch.randint(len(evidence.reward), (options.batch_size,), generator=random).to(device)
        gradient_step(optimizer, model.loss(evidence, index, weight[:, evidence.episode[index]]))
        falling.step()
        watch(step)
    model.trust(held_out)
    return model
