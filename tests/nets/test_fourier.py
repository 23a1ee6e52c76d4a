"""Random Fourier features."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from lapwing.nets.fourier import FourierFeatures
from lapwing.nets.mlp import mlp


def test_the_input_stays_and_the_phases_spread_as_told() -> None:
    torch.manual_seed(0)
    features = FourierFeatures(inputs=5, frequency=3.0, phases=400)
    x = torch.randn(2000, 5)
    out = features(x)
    assert out.shape == (2000, features.outputs) == (2000, 805)
    assert torch.equal(out[:, :5], x)
    torch.testing.assert_close(out[:, 5:405].square() + out[:, 405:].square(), torch.ones(2000, 400))
    assert 2.8 < (x @ features.projection).std() < 3.2
    assert not list(features.parameters())


def test_similarity_is_a_gaussian_of_the_distance() -> None:
    """Rahimi & Recht 2007, theorem 1: the mean of the cosines of phase differences is the kernel."""
    torch.manual_seed(0)
    features = FourierFeatures(inputs=2, frequency=2.0, phases=20_000)
    one, other = torch.tensor([[0.3, -0.2]]), torch.tensor([[0.8, 0.1]])
    similarity = (features(one)[:, 2:] * features(other)[:, 2:]).sum() / 20_000
    squared = (one - other).square().sum()
    torch.testing.assert_close(similarity, torch.exp(-(2.0**2 / 2) * squared / 2), atol=0.02, rtol=0)


def test_a_step_is_learned_sooner_with_them() -> None:
    torch.manual_seed(0)
    x = torch.rand(2000, 2) * 3 - 1.5
    y = ((x[:, 0].sin() * 9).sign() * (x[:, 1] * 7).sin().sign())[:, None]
    errors = []
    for front in (FourierFeatures(2, 8.0), torch.nn.Identity()):
        torch.manual_seed(1)
        net = mlp(front.outputs if isinstance(front, FourierFeatures) else 2, (64, 64), 1)
        adam = torch.optim.Adam(net.parameters(), lr=3e-3)
        for _ in range(200):
            adam.zero_grad()
            loss = F.mse_loss(net(front(x)), y)
            loss.backward()
            adam.step()
        errors.append(loss.item())
    assert errors[0] < 0.7 * errors[1]
