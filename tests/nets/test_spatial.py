"""SERL's encoder: what it sees, what of it learns, and maps that stand in for frames."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import resnet18

from lapwing.batch import Obs
from lapwing.nets.backbone import BackboneConfig
from lapwing.nets.optim import gradient_step
from lapwing.nets.spatial import SpatialEmbedding, SpatialEncoder, SpatialHeads
from lapwing.spec import Camera, RobotSpec, unnamed_axes

NAMES = ("left", "right")
SMALL = BackboneConfig(backbone="small", weights="none")
MakeEncoder = Callable[..., SpatialEncoder]


def robot(*sizes: tuple[int, int]) -> RobotSpec:
    cameras = tuple(Camera(name, *size) for name, size in zip(NAMES, sizes, strict=False))
    return RobotSpec("robot", cameras, unnamed_axes("state", 5), unnamed_axes("action", 3))


ROBOT = robot((32, 32), (32, 32))


def observe(spec: RobotSpec = ROBOT, size: int = 4, seed: int = 0) -> Obs:
    random = torch.Generator().manual_seed(seed)
    images = {
        camera.name: torch.randint(0, 256, (size, camera.height, camera.width, 3), generator=random).to(torch.uint8)
        for camera in spec.cameras
    }
    return Obs(images, torch.randn(size, spec.state_dim, generator=random))


def make_encoder(spec: RobotSpec = ROBOT, vision: BackboneConfig = SMALL) -> SpatialEncoder:
    torch.manual_seed(0)
    return SpatialEncoder(spec, vision)


@pytest.fixture(scope="module")
def weights_file(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What stands for pretrained weights."""
    torch.manual_seed(0)
    path: Path = tmp_path_factory.mktemp("weights") / "resnet18.pt"
    torch.save(resnet18().state_dict(), path)
    return str(path)


@pytest.fixture
def pretrained(weights_file: str) -> SpatialEncoder:
    return make_encoder(vision=BackboneConfig(backbone="resnet10", weights=weights_file))


def test_feature_is_256_of_each_camera_and_64_of_the_state() -> None:
    net = make_encoder()
    feature = net(observe())
    assert feature.shape == (4, 2 * 256 + 64)
    assert net.feature_dim == 576
    assert feature.abs().max() < 1


def test_without_cameras_the_state_goes_through() -> None:
    net, obs = make_encoder(robot()), observe(robot())
    assert net(obs) is obs.state
    assert net(obs, dropout=True) is obs.state
    assert (net.feature_dim, list(net.parameters()), net.maps(obs.images)) == (5, [], {})


def test_embedding_by_hand_multiplies_and_sums_over_the_places() -> None:
    net = SpatialEmbedding(2, 3, 4)
    x = torch.randn(5, 2, 3, 4)
    kernel = net.kernel.view(2, 3, 4, 8)
    expected = torch.zeros(5, 4, 8)
    for row in range(2):
        for column in range(3):
            expected += x[:, row, column, :, None] * kernel[row, column]
    torch.testing.assert_close(net(x), expected.flatten(1))


def test_heads_by_hand() -> None:
    torch.manual_seed(0)
    net = SpatialHeads([(2, 2, 3)], 5)
    maps, state = torch.randn(4, 2, 2, 3), torch.randn(4, 5)

    def layer(x: Tensor, linear: nn.Linear, width: int) -> Tensor:
        return nn.functional.layer_norm(x @ linear.weight.T + linear.bias, (width,)).tanh()

    seen = layer(net.embeddings[0](maps), net.images[0][0], 256)
    torch.testing.assert_close(net([maps], state), torch.cat([seen, layer(state, net.state[0], 64)], 1))


def test_resnet10_at_128_pixels_has_the_shapes_of_serl() -> None:
    net = make_encoder(robot((128, 128)), BackboneConfig(backbone="resnet10", weights="none"))
    assert net.map_shapes == {"left": (4, 4, 512)}
    assert net.heads.images[0][0].in_features == 4096


def test_every_camera_and_the_state_matter() -> None:
    net, obs, other = make_encoder(), observe(), observe(seed=1)
    seen = net(obs)
    for name in NAMES:
        changed = Obs({**obs.images, name: other.images[name]}, obs.state)
        assert (net(changed) != seen).any(1).all()
    assert (net(Obs(obs.images, other.state)) != seen).any(1).all()


def test_cameras_are_told_apart_by_name_not_by_place() -> None:
    net, obs = make_encoder(), observe()
    assert torch.equal(net(Obs(dict(reversed(obs.images.items())), obs.state)), net(obs))
    swapped = Obs({"left": obs.images["right"], "right": obs.images["left"]}, obs.state)
    assert not torch.allclose(net(swapped), net(obs), atol=1e-3)


def test_cameras_may_differ_in_size() -> None:
    spec = robot((32, 32), (40, 48))
    net = make_encoder(spec)
    assert net.map_shapes == {"left": (4, 4, 64), "right": (5, 6, 64)}
    assert net(observe(spec)).shape == (4, 576)


def test_a_feature_depends_on_its_own_sample_alone() -> None:
    net, obs = make_encoder(), observe(size=6)
    alone = [net(Obs({n: x[i : i + 1] for n, x in obs.images.items()}, obs.state[i : i + 1])) for i in range(6)]
    torch.testing.assert_close(torch.cat(alone), net(obs), rtol=1e-4, atol=1e-5)


def test_images_alone_drop_out_and_only_where_asked() -> None:
    net, obs = make_encoder().train(), observe()
    seen = net(obs)
    assert torch.equal(net(obs), seen)
    dropped = net(obs, dropout=True)
    assert not torch.isclose(dropped[:, :512], seen[:, :512]).all(1).any()
    assert torch.equal(dropped[:, 512:], seen[:, 512:])
    assert not torch.equal(net.eval()(obs, dropout=True), seen)  # what is asked for counts, not the mode


def test_a_tenth_of_the_embedding_drops_out() -> None:
    torch.manual_seed(0)
    net, taken = SpatialHeads([(1, 1, 500)], 5), []
    net.images[0].register_forward_pre_hook(lambda _, inputs: taken.append(inputs[0]))
    net([torch.randn(4, 1, 1, 500)], torch.randn(4, 5), dropout=True)
    assert (taken[0] == 0).float().mean().item() == pytest.approx(0.1, abs=0.01)


@pytest.mark.parametrize("frames", [True, False])
def test_a_pretrained_backbone_stays_as_it_is_and_the_rest_learns(pretrained: SpatialEncoder, frames: bool) -> None:
    obs = observe()
    before = {name: value.clone() for name, value in pretrained.state_dict().items()}
    learning = [p for p in pretrained.parameters() if p.requires_grad]
    seen = obs if frames else Obs(pretrained.maps(obs.images), obs.state)
    optimizer = torch.optim.Adam(learning, lr=1e-3)
    gradient_step(optimizer, pretrained(seen).square().mean())
    moved = {name for name, value in pretrained.state_dict().items() if not torch.equal(value, before[name])}
    assert pretrained.frozen
    assert moved == {name for name in before if name.startswith("heads.")}


def test_a_backbone_from_scratch_learns_with_the_rest() -> None:
    net = make_encoder()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    gradient_step(torch.optim.Adam(net.parameters(), lr=1e-3), net(observe()).square().mean())
    assert not net.frozen
    assert not [name for name, value in net.state_dict().items() if torch.equal(value, before[name])]


def test_a_frozen_backbone_gets_no_gradient_even_where_parameters_ask_for_one(pretrained: SpatialEncoder) -> None:
    pretrained.requires_grad_(True)
    pretrained(observe()).sum().backward()
    assert {n for n, p in pretrained.named_parameters() if p.grad is not None} == {
        n for n, _ in pretrained.named_parameters() if n.startswith("heads.")
    }


def test_a_restored_encoder_knows_that_its_backbone_was_pretrained(pretrained: SpatialEncoder) -> None:
    vision = BackboneConfig(backbone="resnet10", weights="none", norm=pretrained.vision.norm)
    restored = make_encoder(vision=vision)
    assert restored.frozen
    restored.load_state_dict(pretrained.state_dict())
    obs = observe()
    assert torch.equal(restored(obs), pretrained(obs))
    assert {n for n, p in restored.named_parameters() if p.requires_grad} == {
        n for n, p in pretrained.named_parameters() if p.requires_grad
    }


def test_modes_of_modules_change_nothing(pretrained: SpatialEncoder) -> None:
    obs = observe()
    assert torch.equal(pretrained.train()(obs), pretrained.eval()(obs))


def test_maps_stand_in_for_frames(pretrained: SpatialEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    obs = observe()
    seen, maps = pretrained(obs), pretrained.maps(obs.images)
    assert {name: (one.shape, one.dtype) for name, one in maps.items()} == {
        name: (torch.Size((4, 1, 1, 512)), torch.float16) for name in NAMES
    }

    def refuse(*_: Any) -> None:
        raise AssertionError("the backbone was asked")

    monkeypatch.setattr(pretrained.backbone, "forward", refuse)
    torch.testing.assert_close(pretrained(Obs(maps, obs.state)), seen, atol=5e-3, rtol=0)
    with pytest.raises(AssertionError, match="the backbone was asked"):
        pretrained(obs)


def test_maps_hold_each_place_of_the_frame() -> None:
    net, obs = make_encoder(), observe()
    maps = net.maps(obs.images)
    frames = [obs.images[name] for name in NAMES]
    assert maps["right"].is_contiguous()
    torch.testing.assert_close(maps["right"], net.backbone(frames)[1].permute(0, 2, 3, 1).half())
    assert not any(one.requires_grad for one in maps.values())


def test_bf16_is_close_to_fp32_and_hands_out_fp32() -> None:
    net, obs = make_encoder(), observe(size=8)
    full = net(obs)
    net.autocast = torch.bfloat16
    half = net(obs)
    half.sum().backward()
    assert half.dtype == torch.float32
    assert not torch.equal(half, full)
    assert torch.nn.functional.cosine_similarity(half, full, dim=1).min() > 0.99
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())
