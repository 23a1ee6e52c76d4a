"""From frames to a feature: shapes, pixels, norms, and what must not matter."""

from __future__ import annotations

import copy
import itertools
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.transforms.functional import normalize

from lapwing.batch import Obs
from lapwing.errors import ConfigError
from lapwing.nets.backbone import MAP_CHANNELS, RESNET_BLOCKS, FrozenNorm, resnet_body
from lapwing.nets.vision import ObsEncoder, Trunk, VisionConfig, count_parameters
from lapwing.spec import Camera, RobotSpec, unnamed_axes

NAMES = ("left", "right", "global")
ENCODERS = ("stacked", "shared", "separate")
SMALL = VisionConfig(backbone="small", weights="none", image_feature_dim=32)


def robot(*sizes: tuple[int, int]) -> RobotSpec:
    cameras = tuple(Camera(name, *size) for name, size in zip(NAMES, sizes, strict=False))
    return RobotSpec("robot", cameras, unnamed_axes("state", 5), unnamed_axes("action", 3))


ROBOT = robot(*[(32, 32)] * 3)


def observe(spec: RobotSpec, size: int = 4, seed: int = 0) -> Obs:
    random = torch.Generator().manual_seed(seed)
    images = {
        camera.name: torch.randint(0, 256, (size, camera.height, camera.width, 3), generator=random).to(torch.uint8)
        for camera in spec.cameras
    }
    return Obs(images, torch.randn(size, spec.state_dim, generator=random))


def make_encoder(spec: RobotSpec = ROBOT, feature_dim: int = 24, **settings: Any) -> ObsEncoder:
    torch.manual_seed(0)
    return ObsEncoder(spec, replace(SMALL, **settings), feature_dim)


@pytest.mark.parametrize(
    ("backbone", "encoder"), [("resnet18", "stacked"), *itertools.product(["resnet10", "small"], ENCODERS)]
)
def test_feature_has_the_width_asked_for(backbone: Any, encoder: Any) -> None:
    net = make_encoder(encoder=encoder, backbone=backbone)
    feature = net(observe(ROBOT))
    assert feature.shape == (4, 24)
    assert feature.dtype == torch.float32
    assert feature.isfinite().all()
    assert net.feature_dim == 24


def test_without_cameras_the_state_goes_through() -> None:
    net = make_encoder(robot())
    obs = observe(robot())
    assert net(obs) is obs.state
    assert net.feature_dim == 5
    assert list(net.parameters()) == []


@pytest.mark.parametrize("encoder", ENCODERS)
def test_every_camera_and_the_state_matter(encoder: Any) -> None:
    net, obs, other = make_encoder(encoder=encoder), observe(ROBOT), observe(ROBOT, seed=1)
    seen = net(obs)
    for name in NAMES:
        changed = Obs({**obs.images, name: other.images[name]}, obs.state)
        assert (net(changed) != seen).any(1).all()
    assert (net(Obs(obs.images, other.state)) != seen).any(1).all()


@pytest.mark.parametrize("encoder", ENCODERS)
def test_cameras_are_told_apart_by_name_not_by_place(encoder: Any) -> None:
    net, obs = make_encoder(encoder=encoder), observe(ROBOT)
    turned = Obs(dict(reversed(obs.images.items())), obs.state)
    assert torch.equal(net(turned), net(obs))
    swapped = Obs({**obs.images, "left": obs.images["right"], "right": obs.images["left"]}, obs.state)
    assert not torch.allclose(net(swapped), net(obs), atol=1e-3)


@pytest.mark.parametrize("backbone", ["resnet10", "small"])
def test_a_feature_depends_on_its_own_sample_alone(backbone: Any) -> None:
    net, obs = make_encoder(backbone=backbone), observe(ROBOT, size=6)
    alone = [net(Obs({n: x[i : i + 1] for n, x in obs.images.items()}, obs.state[i : i + 1])) for i in range(6)]
    torch.testing.assert_close(torch.cat(alone), net(obs), rtol=1e-4, atol=1e-5)


def test_parameters_are_counted_and_ordered() -> None:
    with torch.device("meta"):  # shapes without numbers
        count = {name: count_parameters(make_encoder(encoder=name, backbone="resnet18")) for name in ENCODERS}
        trunk = count_parameters(Trunk(3, (32, 32), replace(SMALL, backbone="resnet18", norm="group"), None))
    assert max(count["stacked"], count["shared"]) < 0.4 * count["separate"]
    assert trunk > 11_000_000
    assert count["separate"] - count["shared"] == 2 * trunk
    join = 3 * 32 * 32 + 32
    conv1 = 6 * 64 * 7 * 7  # the stacked trunk has six more input channels and nothing to join
    assert count["shared"] - count["stacked"] == join - conv1


def test_frozen_parameters_are_not_counted() -> None:
    net = nn.Linear(3, 2)
    net.bias.requires_grad_(False)
    assert count_parameters(net) == 6


@pytest.mark.parametrize("encoder", ["stacked", "shared"])
def test_one_trunk_needs_cameras_of_one_size(encoder: Any) -> None:
    with pytest.raises(ConfigError, match=rf"encoder '{encoder}' needs cameras of one size, got .*; set --image-size"):
        make_encoder(robot((32, 32), (32, 48)), encoder=encoder)


def test_separate_trunks_take_cameras_of_any_size() -> None:
    spec = robot((32, 32), (40, 48), (33, 32))
    assert make_encoder(spec, encoder="separate")(observe(spec)).shape == (4, 24)


@pytest.mark.parametrize("size", [(32, 48), (33, 35), (64, 40)])
def test_pixels_are_normalised_as_torchvision_does_per_camera(size: tuple[int, int]) -> None:
    spec = robot(size, size)
    net, obs = make_encoder(spec), observe(spec)
    seen: list[Tensor] = []
    net.images.trunk.body.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    net(obs)
    channels_first = (obs.images[name].permute(0, 3, 1, 2) / 255 for name in ("left", "right"))
    expected = [normalize(x, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]) for x in channels_first]
    torch.testing.assert_close(seen[0], torch.cat(expected, 1), rtol=1e-5, atol=1e-5)


def test_constants_of_the_pixels_are_not_saved() -> None:
    assert not [name for name in make_encoder().state_dict() if "scale" in name or "offset" in name]


@pytest.mark.parametrize("backbone", ["resnet10", "small"])
@pytest.mark.parametrize("encoder", ENCODERS)
def test_from_scratch_there_is_group_norm_and_no_batch_norm(encoder: Any, backbone: Any) -> None:
    net = make_encoder(encoder=encoder, backbone=backbone)
    kinds = {type(module) for module in net.modules()}
    assert nn.GroupNorm in kinds
    assert not [kind for kind in kinds if "BatchNorm" in kind.__name__]
    assert (net.vision.weights, net.vision.norm) == ("none", "group")


def test_body_ends_in_a_map_that_keeps_places() -> None:
    body = resnet_body(RESNET_BLOCKS["resnet10"], 9, False, None)
    assert body(torch.zeros(2, 9, 84, 84)).shape == (2, MAP_CHANNELS, 3, 3)
    assert not [m for m in body.modules() if isinstance(m, nn.AdaptiveAvgPool2d | FrozenNorm)]


@pytest.mark.parametrize("backbone", ["resnet10", "small"])
def test_bf16_is_close_to_fp32_and_hands_out_fp32(backbone: Any) -> None:
    net, obs = make_encoder(backbone=backbone), observe(ROBOT, size=8)
    full = net(obs)
    full.sum().backward()
    gradient = torch.cat([p.grad.flatten() for p in net.parameters()])
    net.zero_grad()
    net.autocast = torch.bfloat16
    half = net(obs)
    half.sum().backward()
    half_gradient = torch.cat([p.grad.flatten() for p in net.parameters()])
    assert half.dtype == torch.float32
    assert not torch.equal(half, full)
    assert torch.nn.functional.cosine_similarity(half, full, dim=1).min() > 0.99
    assert (half - full).abs().max() < 0.15 * full.abs().max()
    assert torch.nn.functional.cosine_similarity(half_gradient, gradient, dim=0) > 0.95


def test_training_and_evaluation_mode_are_the_same() -> None:
    net, obs = make_encoder(), observe(ROBOT)
    assert torch.equal(net.train()(obs), net.eval()(obs))


def test_a_copy_has_the_same_features() -> None:
    net = make_encoder(backbone="resnet10")
    other = copy.deepcopy(make_encoder(feature_dim=24, backbone="resnet10"))
    for parameter in other.parameters():
        parameter.data += 1
    other.load_state_dict(net.state_dict())
    assert torch.equal(other(observe(ROBOT)), net(observe(ROBOT)))


def test_width_of_the_feature_must_be_positive() -> None:
    with pytest.raises(ConfigError, match="image_feature_dim is 0, expected a positive number"):
        VisionConfig(image_feature_dim=0)
