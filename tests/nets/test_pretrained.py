"""Pretrained weights: where they come from, what they become, and what happens without them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import ResNet18_Weights, resnet18
from torchvision.ops import FrozenBatchNorm2d

from lapwing.batch import Obs
from lapwing.errors import ConfigError
from lapwing.nets.backbone import RESNET_BLOCKS, FrozenNorm, resnet_body
from lapwing.nets.optim import gradient_step
from lapwing.nets.vision import ObsEncoder, VisionConfig
from lapwing.spec import Camera, RobotSpec, unnamed_axes

RESNET = VisionConfig(backbone="resnet18", weights="none", image_feature_dim=32)
CAMERAS = tuple(Camera(name, 32, 32) for name in ("left", "right", "global"))
ROBOT = RobotSpec("robot", CAMERAS, unnamed_axes("state", 5), unnamed_axes("action", 3))


@pytest.fixture(scope="module")
def pretrained() -> Mapping[str, Tensor]:
    """What a trained torchvision ResNet-18 has: tensors under its names, with statistics away from 0 and 1."""
    torch.manual_seed(0)
    state: dict[str, Tensor] = resnet18().state_dict()
    for name, value in state.items():
        if name.endswith("running_mean"):
            value.normal_(0, 0.1)
        elif name.endswith("running_var") or (".bn" in f".{name}" and name.endswith("weight")):
            value.uniform_(0.5, 1.5)
    return state


@pytest.fixture(scope="module")
def weights_file(pretrained: Mapping[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("weights") / "resnet18.pt"
    torch.save(dict(pretrained), path)
    return str(path)


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: Any, **__: Any) -> None:
        raise URLError("no route to host")

    monkeypatch.setattr(ResNet18_Weights, "get_state_dict", unreachable)


def make_encoder(**settings: Any) -> ObsEncoder:
    torch.manual_seed(0)
    return ObsEncoder(ROBOT, replace(RESNET, **settings), 24)


def observe(size: int = 4, seed: int = 0) -> Obs:
    random = torch.Generator().manual_seed(seed)
    shape = (size, 32, 32, 3)
    images = {camera.name: torch.randint(0, 256, shape, generator=random).to(torch.uint8) for camera in CAMERAS}
    return Obs(images, torch.randn(size, 5, generator=random))


def statistics(net: nn.Module) -> Iterator[Tensor]:
    for module in net.modules():
        if isinstance(module, FrozenNorm):
            yield from (module.weight, module.bias, module.running_mean, module.running_var)


@pytest.fixture
def norms() -> tuple[FrozenNorm, FrozenBatchNorm2d]:
    """Ours and torchvision's, with the same statistics."""
    ours, theirs = FrozenNorm(8), FrozenBatchNorm2d(8)
    for values in theirs.buffers():
        values.uniform_(0.5, 2.0)
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


def test_a_frozen_norm_is_torchvisions(norms: tuple[FrozenNorm, FrozenBatchNorm2d]) -> None:
    x = torch.randn(2, 8, 5, 7, requires_grad=True)
    said = [norm(x) for norm in norms]
    torch.testing.assert_close(*said)
    torch.testing.assert_close(*(torch.autograd.grad(one.square().sum(), x) for one in said))


def test_a_frozen_norm_stays_in_bf16(norms: tuple[FrozenNorm, FrozenBatchNorm2d]) -> None:
    ours, theirs = norms
    x = torch.randn(2, 8, 5, 7).bfloat16()
    assert ours(x).dtype == torch.bfloat16
    torch.testing.assert_close(ours(x).float(), theirs(x.float()), rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("copies", [2, 3])
def test_equal_views_give_what_one_view_gives(pretrained: Mapping[str, Tensor], copies: int) -> None:
    one, many = (resnet_body(RESNET_BLOCKS["resnet18"], 3 * n, True, pretrained) for n in (1, copies))
    x = torch.randn(2, 3, 40, 40)
    torch.testing.assert_close(many[0](x.repeat(1, copies, 1, 1)), one[0](x), rtol=0, atol=1e-5)
    torch.testing.assert_close(many[:-1](x.repeat(1, copies, 1, 1)), one[:-1](x), rtol=1e-4, atol=1e-4)


def test_one_view_gives_what_torchvision_gives(pretrained: Mapping[str, Tensor]) -> None:
    reference = resnet18()
    reference.load_state_dict(dict(pretrained))
    reference.eval()
    x = torch.randn(2, 3, 64, 64)
    features = nn.Sequential(*list(reference.children())[:-2])  # without pooling and classifier
    ours = resnet_body(RESNET_BLOCKS["resnet18"], 3, True, pretrained)[:-1]
    torch.testing.assert_close(ours(x), features(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("encoder", ["stacked", "shared", "separate"])
def test_weights_from_a_file_reach_every_trunk(
    pretrained: Mapping[str, Tensor], weights_file: str, encoder: Any
) -> None:
    net = make_encoder(weights=weights_file, encoder=encoder, backbone="resnet10")
    assert (net.vision.weights, net.vision.norm) == (weights_file, "frozen")
    trunks = list(net.images.trunks) if encoder == "separate" else [net.images.trunk]
    for trunk in trunks:
        block = trunk.body[7][0]
        assert torch.equal(block.conv2.weight, pretrained["layer4.0.conv2.weight"])
        assert torch.equal(block.bn2.running_var, pretrained["layer4.0.bn2.running_var"])


def test_frozen_norms_stay_while_the_convolutions_learn(weights_file: str) -> None:
    net = make_encoder(weights=weights_file, backbone="resnet10")  # the first block of each stage, for speed
    before = [x.clone() for x in statistics(net)]
    first = net.images.trunk.body[0].weight.detach().clone()
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3, fused=True)
    for seed in range(10):
        gradient_step(optimizer, net.train()(observe(size=2, seed=seed)).square().mean())
    assert len(before) == 4 * 12
    assert all(torch.equal(x, was) for x, was in zip(statistics(net), before, strict=True))
    assert not torch.equal(net.images.trunk.body[0].weight, first)
    assert not [module for module in net.modules() if isinstance(module, nn.BatchNorm2d | nn.GroupNorm)]


def test_frozen_norms_are_the_same_in_training_and_evaluation_mode(weights_file: str) -> None:
    net, obs = make_encoder(weights=weights_file, backbone="resnet10"), observe()
    assert torch.equal(net.train()(obs), net.eval()(obs))


def test_imagenet_weights_that_can_be_had_are_used(
    pretrained: Mapping[str, Tensor], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ResNet18_Weights, "get_state_dict", lambda *_, **__: pretrained)
    for weights in ("auto", "imagenet"):
        net = make_encoder(weights=weights)
        assert (net.vision.weights, net.vision.norm) == ("imagenet", "frozen")
        assert torch.equal(net.images.trunk.body[0].weight, pretrained["conv1.weight"].repeat(1, 3, 1, 1) / 3)
    assert capsys.readouterr().err == ""


@pytest.mark.usefixtures("offline")
def test_imagenet_weights_that_cannot_be_had_are_an_error() -> None:
    with pytest.raises(ConfigError, match=r"weights 'imagenet': .*no route to host.*--weights PATH, or --weights none"):
        make_encoder(weights="imagenet")


@pytest.mark.parametrize("backbone", ["resnet10", "small"])
def test_other_backbones_have_no_imagenet_weights(backbone: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match=f"there are no ImageNet weights for backbone '{backbone}'"):
        make_encoder(weights="imagenet", backbone=backbone)
    assert make_encoder(weights="auto", backbone=backbone).vision.weights == "none"
    assert capsys.readouterr().err == ""


@pytest.mark.usefixtures("offline")
def test_auto_falls_back_loudly_and_records_it(capsys: pytest.CaptureFixture[str]) -> None:
    net = make_encoder(weights="auto")
    warning = capsys.readouterr().err
    assert re.match(r"lapwing: warning: .*no route to host.*from scratch with GroupNorm\n$", warning)
    assert (net.vision.weights, net.vision.norm) == ("none", "group")
    assert any(isinstance(module, nn.GroupNorm) for module in net.modules())


def test_none_looks_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ResNet18_Weights, "get_state_dict", lambda *_, **__: pytest.fail("looked for weights"))
    assert make_encoder(weights="none").vision.weights == "none"


@pytest.mark.usefixtures("offline")
def test_norms_that_do_not_fit_the_weights_are_refused(weights_file: str) -> None:
    with pytest.raises(ConfigError, match="norm 'group' cannot hold pretrained BatchNorm statistics"):
        make_encoder(weights=weights_file, norm="group")
    with pytest.raises(ConfigError, match="norm 'frozen' needs pretrained weights and there are none; use --norm auto"):
        make_encoder(weights="auto", norm="frozen")


@pytest.mark.parametrize("settings", [{"norm": "frozen"}, {"weights": "resnet18.pt"}])
def test_the_small_backbone_takes_neither_weights_nor_frozen_norms(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"backbone 'small' starts from scratch with GroupNorm, got .*--weights none"):
        make_encoder(backbone="small", **settings)


@pytest.mark.parametrize(
    ("name", "damage"),
    [("conv1.weight", "missing"), ("layer1.0.conv1.weight", "shape"), ("layer3.1.bn2.running_var", "missing")],
)
def test_a_state_dict_of_another_net_is_refused_by_its_first_tensor(
    pretrained: Mapping[str, Tensor], tmp_path: Path, name: str, damage: str
) -> None:
    state = dict(pretrained)
    value = state.pop(name)
    if damage == "shape":
        state[name] = value[:-1].clone()
    del state["layer4.1.conv2.weight"]
    torch.save(state, tmp_path / "other.pt")
    with pytest.raises(ConfigError, match=f"2 tensors are missing or of another shape, the first is '{name}'"):
        make_encoder(weights=str(tmp_path / "other.pt"))


@pytest.mark.parametrize("kind", ["absent", "text", "list", "code"])
def test_a_file_that_is_no_state_dict_is_refused_in_one_line(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "weights.pt"
    if kind == "text":
        path.write_text("not weights")
    elif kind == "list":
        torch.save([torch.zeros(2)], path)
    elif kind == "code":
        torch.save({"conv1.weight": RESNET}, path)  # a class of ours: reading it would run code
    with pytest.raises(ConfigError, match=rf"weights {re.escape(str(path))}: .*or use none\|auto$") as error:
        make_encoder(weights=str(path))
    assert "\n" not in str(error.value)
    assert ("holds a list, expected a state dict" in str(error.value)) is (kind == "list")
