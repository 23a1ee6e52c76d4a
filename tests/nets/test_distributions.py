"""The squashed Gaussian, beside PyTorch's own and by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import Independent, Normal, TanhTransform, TransformedDistribution

from lapwing.nets.distributions import STD_RANGE, SquashedGaussian, TanhGaussian


@pytest.fixture
def policy() -> SquashedGaussian:
    random = torch.Generator().manual_seed(0)
    mean = torch.randn(6, 3, generator=random, dtype=torch.float64)
    return SquashedGaussian(mean, 0.2 + torch.rand(6, 3, generator=random, dtype=torch.float64))


def reference(policy: SquashedGaussian) -> TransformedDistribution:
    return TransformedDistribution(Independent(Normal(policy.mean, policy.std), 1), [TanhTransform(cache_size=1)])


def test_density_by_hand() -> None:
    policy = SquashedGaussian(torch.tensor([[0.5, 0.0]]), torch.tensor([[2.0, 1.0]]))
    # at raw 1.5: noise 0.5, -0.125 - log 2 - log(2 pi) / 2, less log(1 - tanh(1.5)^2) = -1.710879; at raw 0 no stretch
    expected = (-0.125 - 0.693147 - 0.918939 + 1.710879) + (-0.918939)
    assert policy.log_prob(torch.tensor([[0.9051483, 0.0]])).item() == pytest.approx(expected, abs=1e-5)


def test_density_is_that_of_pytorch(policy: SquashedGaussian) -> None:
    action = torch.rand(6, 3, dtype=torch.float64) * 1.98 - 0.99
    torch.testing.assert_close(policy.log_prob(action), reference(policy).log_prob(action))


def test_sample_says_its_own_density(policy: SquashedGaussian) -> None:
    action, log_prob = policy.sample()
    assert action.shape == (6, 3)
    assert log_prob.shape == (6,)
    torch.testing.assert_close(log_prob, policy.log_prob(action))
    torch.testing.assert_close(log_prob, reference(policy).log_prob(action))


def test_samples_are_spread_like_those_of_pytorch() -> None:
    torch.manual_seed(0)
    policy = SquashedGaussian(torch.tensor([0.7]).expand(20_000, 1), torch.tensor([0.5]).expand(20_000, 1))
    ours, theirs = policy.sample()[0], reference(policy).sample()
    assert ours.mean().item() == pytest.approx(theirs.mean().item(), abs=0.01)
    assert ours.std().item() == pytest.approx(theirs.std().item(), abs=0.01)


def test_density_sums_to_one() -> None:
    edges = torch.linspace(-1, 1, 100_001, dtype=torch.float64)
    action = ((edges[1:] + edges[:-1]) / 2)[:, None]
    policy = SquashedGaussian(torch.full_like(action, 0.4), torch.full_like(action, 0.8))
    assert (policy.log_prob(action).exp().sum() * 2e-5).item() == pytest.approx(1, abs=1e-4)


def test_mode_is_the_squashed_mean(policy: SquashedGaussian) -> None:
    torch.testing.assert_close(policy.mode(), policy.mean.tanh())


def test_gradients_flow_through_samples() -> None:
    mean, std = torch.tensor([[0.3]], requires_grad=True), torch.tensor([[0.6]], requires_grad=True)
    action, _ = SquashedGaussian(mean, std).sample()
    action.sum().backward()
    slope = 1 - action.item() ** 2
    noise = (math.atanh(action.item()) - 0.3) / 0.6
    assert mean.grad is not None
    assert std.grad is not None
    assert mean.grad.item() == pytest.approx(slope, rel=1e-4)
    assert std.grad.item() == pytest.approx(slope * noise, rel=1e-3, abs=1e-6)


def test_gradients_of_the_density_are_right(policy: SquashedGaussian) -> None:
    action = torch.rand(6, 3, dtype=torch.float64) * 1.8 - 0.9

    def density(mean: Tensor, std: Tensor) -> Tensor:
        return SquashedGaussian(mean, std).log_prob(action)

    assert torch.autograd.gradcheck(density, (policy.mean.requires_grad_(), policy.std.requires_grad_()))


@pytest.mark.parametrize("mean", [-30.0, 30.0])
def test_density_holds_where_tanh_rounds_to_the_edge(mean: float) -> None:
    location = torch.full((1, 1), mean, requires_grad=True)
    action, log_prob = SquashedGaussian(location, torch.full((1, 1), 1e-5)).sample()
    assert abs(action.item()) == 1
    # log(1 - tanh^2) is 2 log 2 - 60 there; the density before the tanh is at most that of its own mean
    highest = -math.log(1e-5) - 0.5 * math.log(2 * math.pi) - (2 * math.log(2) - 60)
    assert highest - 20 < log_prob.item() <= highest + 1e-3
    log_prob.sum().backward()
    assert location.grad is not None
    assert location.grad.isfinite().all()


@pytest.mark.parametrize("edge", [-1.0, 1.0])
def test_actions_at_or_beyond_the_edge_count_as_a_hair_inside(edge: float) -> None:
    policy = SquashedGaussian(torch.zeros(3, 1), torch.ones(3, 1))
    log_prob = policy.log_prob(torch.tensor([[edge], [2 * edge], [edge * (1 - 1e-6)]]))
    assert log_prob.isfinite().all()
    assert (log_prob == log_prob[2]).all()


def test_head_gives_the_mean_as_it_is_and_clips_the_std() -> None:
    head = TanhGaussian(4, 2)
    feature = torch.randn(5, 4)
    policy = head(feature)
    torch.testing.assert_close(policy.mean, feature @ head.mean.weight.T + head.mean.bias)
    torch.testing.assert_close(policy.std, (feature @ head.log_std.weight.T).exp().clamp(*STD_RANGE))
    assert (head(1000 * feature).mean.abs() > 1).any()
    wide = head(1000 * feature).std
    assert wide.min().item() == pytest.approx(1e-5)
    assert wide.max().item() == pytest.approx(5.0)


def test_a_std_far_outside_its_range_has_no_gradient_and_no_nan() -> None:
    head = TanhGaussian(4, 2)
    head.log_std.bias.data.fill_(500.0)
    head(torch.randn(5, 4)).std.sum().backward()
    assert torch.equal(head.log_std.weight.grad, torch.zeros(2, 4))
