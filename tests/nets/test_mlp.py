"""Multi-layer perceptrons, one at a time and many at once."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from lapwing.nets.mlp import EnsembleMlp, Mlp, mlp, speed_up, tanh_mlp, xavier_linear


def test_layers_by_hand() -> None:
    torch.manual_seed(0)
    net = mlp(3, (4, 5), 2)
    first, second, last = (layer for layer in net if isinstance(layer, nn.Linear))
    x = torch.randn(7, 3)
    hidden = (x @ first.weight.T + first.bias).clamp(min=0)
    hidden = (hidden @ second.weight.T + second.bias).clamp(min=0)
    torch.testing.assert_close(net(x), hidden @ last.weight.T + last.bias)


def test_layer_norm_stands_before_each_relu_and_nowhere_else() -> None:
    kinds = [type(layer) for layer in mlp(3, (4, 5), 2, layer_norm=True)]
    assert kinds == [nn.Linear, nn.LayerNorm, nn.ReLU, nn.Linear, nn.LayerNorm, nn.ReLU, nn.Linear]


def test_without_hidden_layers_it_is_linear() -> None:
    assert [type(layer) for layer in mlp(3, (), 2, layer_norm=True)] == [nn.Linear]


def test_input_is_left_as_it_was() -> None:
    x = torch.randn(7, 3)
    before = x.clone()
    mlp(3, (4,), 2)(x)
    assert torch.equal(x, before)


def test_tanh_layers_end_in_an_activation_unless_outputs_are_asked_for() -> None:
    layer = [nn.Linear, nn.LayerNorm, nn.Tanh]
    assert [type(one) for one in tanh_mlp(3, (4, 5))] == 2 * layer
    assert [type(one) for one in tanh_mlp(3, (4, 5), 2)] == [*layer, *layer, nn.Linear]
    assert [type(one) for one in tanh_mlp(3, (4,), 2, dropout=0.25)] == [nn.Linear, nn.Dropout, *layer[1:], nn.Linear]


def test_tanh_layers_by_hand() -> None:
    net = tanh_mlp(3, (4,), 2)
    first, norm, last = net[0], net[1], net[3]
    x = torch.randn(7, 3)
    hidden = x @ first.weight.T
    hidden = (hidden - hidden.mean(1, keepdim=True)) / (hidden.var(1, correction=0, keepdim=True) + norm.eps).sqrt()
    torch.testing.assert_close(net(x), hidden.tanh() @ last.weight.T)


def test_xavier_layers_start_without_a_bias_and_within_their_bound() -> None:
    layer = xavier_linear(20, 30)
    assert torch.equal(layer.bias, torch.zeros(30))
    assert 0.95 * math.sqrt(6 / 50) < layer.weight.abs().max().item() <= math.sqrt(6 / 50)


@pytest.fixture
def ensemble() -> EnsembleMlp:
    """Three members with norms that are no longer as they began."""
    torch.manual_seed(0)
    net = EnsembleMlp(3, 4, (6, 5), 2)
    for values in (*net.biases, *net.norm_scales, *net.norm_offsets):
        nn.init.normal_(values)
    return net


def member(net: EnsembleMlp, index: int) -> nn.Sequential:
    """A network of its own with the weights of a member."""
    alone = tanh_mlp(4, (6, 5), 2)
    linear = [one for one in alone if isinstance(one, nn.Linear)]
    norms = [one for one in alone if isinstance(one, nn.LayerNorm)]
    for layer, weight, bias in zip(linear, net.weights, net.biases, strict=True):
        layer.weight.data, layer.bias.data = weight.data[index].T, bias.data[index, 0]
    for norm, scale, offset in zip(norms, net.norm_scales, net.norm_offsets, strict=True):
        norm.weight.data, norm.bias.data = scale.data[index, 0], offset.data[index, 0]
    return alone


def test_ensemble_is_its_members_apart(ensemble: EnsembleMlp) -> None:
    x, own = torch.randn(7, 4), torch.randn(3, 7, 4)
    assert ensemble(x).shape == (3, 7, 2)
    for index in range(3):
        torch.testing.assert_close(ensemble(x)[index], member(ensemble, index)(x))
        torch.testing.assert_close(ensemble(own)[index], member(ensemble, index)(own[index]))


def test_members_learn_apart(ensemble: EnsembleMlp) -> None:
    ensemble(torch.randn(7, 4))[1].sum().backward()
    for values in ensemble.parameters():
        assert values.grad is not None
        assert torch.equal(values.grad[[0, 2]], torch.zeros_like(values.grad[[0, 2]]))
        assert values.grad[1].any()


def test_members_start_unlike_each_other_and_like_a_network_alone() -> None:
    torch.manual_seed(0)
    net = EnsembleMlp(2, 20, (30,), 1)
    outputs = net(torch.randn(7, 20))
    assert not torch.isclose(outputs[0], outputs[1]).any()
    bound = math.sqrt(6 / 50)
    assert 0.95 * bound < net.weights[0].abs().max().item() <= bound
    assert not any(bias.any() for bias in net.biases)


def test_half_precision_is_for_hidden_layers_and_stays_close() -> None:
    torch.manual_seed(0)
    net, x = mlp(3, (32, 32), 2, layer_norm=True), torch.randn(7, 3)
    exact, seen = net(x), []
    for layer in net:
        layer.register_forward_hook(lambda _, inputs, output: seen.append(output.dtype))
    net.autocast = torch.bfloat16
    rough = net(x)
    assert rough.dtype == torch.float32
    assert seen[0] == torch.bfloat16
    assert seen[-1] == torch.float32
    assert not torch.equal(rough, exact)
    torch.testing.assert_close(rough, exact, atol=0.05, rtol=0.05)


class Seeing(nn.Module):
    """Stands for an image encoder."""

    def __init__(self, *cameras: str) -> None:
        super().__init__()
        self.cameras = cameras
        self.autocast: torch.dtype | None = None


@pytest.mark.parametrize("cameras", [(), ("left",)])
def test_either_the_encoder_or_the_mlps_are_sped_up(cameras: tuple[str, ...]) -> None:
    encoder, networks = Seeing(*cameras), nn.ModuleDict({"a": mlp(3, (4,), 2), "b": nn.Sequential(mlp(2, (4,), 1))})
    speed_up(encoder, networks, bf16=True, compiled=False)
    inside = [net.autocast for net in networks.modules() if isinstance(net, Mlp)]
    assert inside == [None if cameras else torch.bfloat16] * 2
    assert (encoder.autocast is not None) == bool(cameras)
    speed_up(encoder, networks, bf16=False, compiled=False)
    assert encoder.autocast is None
    assert all(net.autocast is None for net in networks.modules() if isinstance(net, Mlp))
