"""The small policy that action errors are compared with."""

from __future__ import annotations

import torch

from lapwing.run.clone import cloned_action
from lapwing.run.fitted_q import FitOptions


def test_what_follows_from_the_features_is_learned_and_what_does_not_is_the_mean() -> None:
    random = torch.Generator().manual_seed(0)
    feature = torch.randn(4000, 3, generator=random)
    action = torch.stack([feature[:, 0] - feature[:, 2], torch.randn(4000, generator=random)], 1)
    before = torch.random.get_rng_state()
    answer = torch.from_numpy(cloned_action(feature[:3000], action[:3000], feature[3000:], FitOptions()))
    error = (answer - action[3000:]).square().mean(0)
    assert error[0] < 0.01  # of a variance of 2
    assert 0.8 < error[1] < 1.4  # of a variance of 1
    assert torch.equal(before, torch.random.get_rng_state())
