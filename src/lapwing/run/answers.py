"""What one policy does at recorded observations, and what that alone tells: errors, strangeness, calibration."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from lapwing.agent import Chunks, Labelled
from lapwing.data.dataset import Dataset
from lapwing.data.normalize import Normalizer
from lapwing.episode import Array, Observation
from lapwing.run.candidates import Candidate
from lapwing.run.controls import hold_action
from lapwing.run.evidence import BLOCK, Features, observation
from lapwing.run.held_out import Calibration
from lapwing.run.offline import held_out
from lapwing.run.policy import Policy

JUDGED = 2048  # samples that actions are compared at, and values with returns
NEIGHBOURS = 8192  # training samples that actions are looked for among
USUAL = 0.95  # share of the recorded actions of held-out episodes that counts as near the data


class Rows:
    """Held-out samples that actions are compared at: observations, recorded actions and the episodes they are of.

    feature: [J, F]; action: float32 [J, A], encoded; episode: int64 [J].
    """

    def __init__(self, dataset: Dataset, features: Features) -> None:
        self.dataset, blocks = dataset, list(dataset.ordered(Chunks(), BLOCK, JUDGED))
        self.seen = [observation(batch.obs, dataset.normalizer) for batch, _ in blocks]
        self.feature = torch.cat([features.of(batch.obs) for batch, _ in blocks])
        self.action: Array = np.concatenate([batch.action[:, 0].numpy() for batch, _ in blocks])
        self.episode = dataset.episode_of(np.concatenate([rows for _, rows in blocks]))

    def error(self, action: Array) -> Array:
        """Squared errors of encoded actions [J, A], mean over the axes, in units of the variance: float64 [J]."""
        difference = (action - self.action) * self.dataset.normalizer.error_unit
        error: Array = np.square(difference, dtype=np.float64).mean(-1)
        return error

    def baselines(self) -> dict[str, Array]:
        """Encoded actions [J, A] of holding still and of the mean action."""
        normalizer, spec = self.dataset.normalizer, self.dataset.spec
        held = [
            normalizer.encode_action(hold_action(one.state, spec, normalizer)[:, None], one.state)[:, 0]
            for one in self.seen
        ]
        return {"hold": np.concatenate(held), "mean": np.broadcast_to(normalizer.encoded_mean, self.action.shape)}


def judged_action(policy: Policy, rows: Rows) -> Array:
    """The first action of each answer at `rows`, encoded float32 [J, A]."""
    return np.concatenate([played(policy, seen, rows.dataset.normalizer, 1) for seen in rows.seen])


def played(policy: Policy, seen: Observation, normalizer: Normalizer, steps: int) -> Array:
    """What a policy plays from here on without looking again, encoded [B, steps * A]."""
    policy.reset()
    actions = np.stack([policy(seen) for _ in range(steps)], 1)
    encoded: Array = normalizer.encode_action(actions, seen.state)
    return encoded.reshape(len(encoded), -1)


def calibration(candidate: Candidate, rows: Rows) -> Calibration | None:
    """What the critic of a candidate predicts beside what the held-out episodes went on to earn.

    None where it has no critic, and where no episode is as long as the chunks that its critic judges.
    """
    if not candidate.judges:
        return None
    sampling = candidate.agent.sampling
    assert not isinstance(sampling, Labelled)  # a classifier does not act
    dataset = rows.dataset.part(rows.dataset.episodes, candidate.normalizer)
    if not dataset.num_samples(sampling):
        return None
    return held_out(candidate.agent, dataset, device=candidate.device, limit=JUDGED).calibration


class Nearness:
    """How far an action at an observation is from all that was recorded, by the nearest of both together."""

    def __init__(self, feature: Tensor, action: Tensor, rows: Rows) -> None:
        picks = np.linspace(0, len(feature) - 1, min(NEIGHBOURS, len(feature))).round().astype(int)
        self._known = torch.cat([feature[picks], action[picks]], -1)
        self._rows = rows
        self._usual = float(np.quantile(self._distance(rows.action), USUAL))

    def off_data(self, action: Array) -> float:
        """Share of actions [J, A] that are farther from training data than 95 % of the recorded ones."""
        return float((self._distance(action) > self._usual).mean())

    def _distance(self, action: Array) -> Array:
        asked = torch.cat([self._rows.feature, torch.from_numpy(np.ascontiguousarray(action))], -1)
        distance: Array = torch.cdist(asked, self._known).min(1).values.numpy()
        return distance
