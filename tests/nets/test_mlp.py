"""The multi-layer perceptron."""

from __future__ import annotations

import torch
from torch import nn

from lapwing.nets.mlp import mlp


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
