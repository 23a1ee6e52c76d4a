"""One optimiser step, averaged gradients and slow copies."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor, nn

from lapwing.nets import optim
from lapwing.nets.optim import average_gradients, cosine_decay, gradient_step, track


def test_gradient_step_touches_the_optimizers_parameters_alone() -> None:
    torch.manual_seed(0)
    inner, outer = nn.Linear(3, 4), nn.Linear(4, 1)
    before = copy.deepcopy(outer.state_dict())
    weight = inner.weight.detach().clone()
    loss = outer(inner(torch.randn(5, 3))).square().mean()
    gradient = torch.autograd.grad(loss, inner.weight, retain_graph=True)[0]
    gradient_step(torch.optim.SGD(inner.parameters(), lr=0.5), loss)
    torch.testing.assert_close(inner.weight.detach(), weight - 0.5 * gradient)
    assert all(parameter.grad is None for parameter in outer.parameters())
    assert all(torch.equal(before[name], value) for name, value in outer.state_dict().items())


def test_gradient_step_does_not_add_to_old_gradients() -> None:
    weight = nn.Parameter(torch.tensor([1.0]))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    for expected in (-1.0, -3.0):  # the slope is 2 each time
        gradient_step(optimizer, (2 * weight).sum())
        assert weight.item() == expected


def test_cosine_decay_by_hand() -> None:
    half = math.sqrt(0.5)
    assert [cosine_decay(n, 4) for n in range(6)] == pytest.approx([1, (1 + half) / 2, 0.5, (1 - half) / 2, 0, 0])
    assert cosine_decay(7, 0) == 1


def test_clip_sees_the_gradients_before_the_step() -> None:
    weight = nn.Parameter(torch.tensor([3.0, 4.0]))
    seen = []

    def clip() -> None:
        assert weight.grad is not None
        seen.append((weight.detach().clone(), weight.grad.clone()))
        weight.grad.mul_(0.1)

    gradient_step(torch.optim.SGD([weight], lr=1.0), 0.5 * weight.square().sum(), clip)
    assert [[x.tolist() for x in pair] for pair in seen] == [[[3.0, 4.0], [3.0, 4.0]]]
    torch.testing.assert_close(weight.detach(), torch.tensor([2.7, 3.6]))


def test_a_parameter_that_the_loss_does_not_reach_is_an_error() -> None:
    used, unused = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1))
    with pytest.raises(RuntimeError, match="not have been used in the graph"):
        gradient_step(torch.optim.SGD([used, unused], lr=1.0), used.sum())


def test_gradients_are_averaged_over_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    conv = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
    torch.manual_seed(0)
    mine = {}
    for parameter in conv.parameters():
        parameter.grad = torch.randn(parameter.shape).to(memory_format=layout(parameter))
        mine[parameter] = parameter.grad.clone()
    idle = nn.Parameter(torch.ones(2))  # without a gradient: left out on every process alike

    def sum_with_another(flat: Tensor) -> None:
        flat += torch.arange(len(flat), dtype=flat.dtype)  # the gradients of the other process, in logical order

    monkeypatch.setattr(optim, "is_initialized", lambda: True)
    monkeypatch.setattr(optim, "get_world_size", lambda: 2)
    monkeypatch.setattr(optim, "all_reduce", sum_with_another)
    average_gradients([conv.weight, idle, conv.bias])
    size = conv.weight.numel()
    other = torch.arange(size + 4, dtype=torch.float32)
    torch.testing.assert_close(conv.weight.grad, (mine[conv.weight] + other[:size].view_as(conv.weight)) / 2)
    torch.testing.assert_close(conv.bias.grad, (mine[conv.bias] + other[size:]) / 2)
    assert idle.grad is None


def test_one_process_keeps_its_gradients() -> None:
    weight = nn.Parameter(torch.ones(2))
    weight.grad = torch.tensor([1.0, 2.0])
    average_gradients([weight])
    assert weight.grad.tolist() == [1.0, 2.0]


def test_track_blends_parameters_and_copies_buffers() -> None:
    torch.manual_seed(0)
    fast = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    slow = copy.deepcopy(fast)
    for parameter in fast.parameters():
        parameter.data.normal_()
    fast(torch.randn(16, 3) + 5)  # moves the running statistics
    old = [parameter.detach().clone() for parameter in slow.parameters()]
    new = copy.deepcopy(fast)
    track(slow, fast, 0.005)
    for parameter, was, source in zip(slow.parameters(), old, fast.parameters(), strict=True):
        torch.testing.assert_close(parameter, 0.995 * was + 0.005 * source)
    for buffer, source in zip(slow.buffers(), fast.buffers(), strict=True):
        assert torch.equal(buffer, source)
    assert slow[1].num_batches_tracked == 1
    assert all(torch.equal(a, b) for a, b in zip(fast.state_dict().values(), new.state_dict().values(), strict=True))


def layout(parameter: Tensor) -> torch.memory_format:
    return torch.channels_last if parameter.dim() == 4 else torch.contiguous_format
