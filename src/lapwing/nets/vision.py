"""From camera frames and state to one feature vector.

The backbones under it are in backbone.py.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lapwing.batch import Obs
from lapwing.errors import ConfigError
from lapwing.nets.backbone import RESNET_BLOCKS, Pixels, resnet_body, small_body
from lapwing.nets.pretrained import Backbone, Norm, resolve_weights
from lapwing.spec import Camera, RobotSpec


@dataclass(frozen=True)
class VisionConfig:
    """How images become a feature."""

    encoder: Literal["stacked", "shared", "separate"] = "stacked"
    """stacked: one trunk over the channels of all cameras; shared: one trunk, camera by camera; separate: one each."""
    backbone: Backbone = "resnet18"
    """small: four convolutions, for 64-128 px and for CPUs."""
    weights: str = "auto"
    """auto: ImageNet if it can be had, else from scratch, said loudly; imagenet: fail without; none; or the path of
    a ResNet state dict."""
    norm: Norm = "auto"
    """auto: frozen BatchNorm with pretrained weights, GroupNorm without."""
    image_feature_dim: int = 256
    """Width of the feature of the images together, before fusion with the state."""

    def __post_init__(self) -> None:
        if self.image_feature_dim < 1:
            raise ConfigError(f"vision: image_feature_dim is {self.image_feature_dim}, expected a positive number")


class ObsEncoder(nn.Module):
    """Obs -> feature [B, feature_dim]. Without cameras it hands the normalised state through, as the paper has it.

    `vision` is the config with `weights` and `norm` as they were resolved.
    """

    def __init__(self, spec: RobotSpec, vision: VisionConfig, feature_dim: int) -> None:
        super().__init__()
        self.cameras = spec.camera_names
        self.autocast: torch.dtype | None = None
        if not self.cameras:
            self.vision, self.feature_dim = vision, spec.state_dim
            return
        pretrained, weights, norm = resolve_weights(vision.backbone, vision.weights, vision.norm)
        self.vision = replace(vision, weights=weights, norm=norm)
        self.feature_dim = feature_dim
        self.images = _IMAGE_ENCODERS[vision.encoder](spec.cameras, self.vision, pretrained)
        self.state = nn.Sequential(nn.Linear(spec.state_dim, 64), nn.ReLU(inplace=True))
        self.fuse = nn.Sequential(
            nn.Linear(vision.image_feature_dim + 64, feature_dim), nn.LayerNorm(feature_dim), nn.ReLU(inplace=True)
        )

    def forward(self, obs: Obs) -> Tensor:
        if not self.cameras:
            return obs.state
        images = [obs.images[name] for name in self.cameras]
        with torch.autocast(images[0].device.type, self.autocast, enabled=self.autocast is not None):
            seen = self.images(images)
        return self.fuse(torch.cat([seen.to(obs.state.dtype), self.state(obs.state)], -1))  # type: ignore[no-any-return]


class StackedImages(nn.Module):
    """One trunk over all cameras side by side in the channels. All cameras must have one size."""

    def __init__(self, cameras: Sequence[Camera], vision: VisionConfig, pretrained: Mapping[str, Tensor] | None):
        super().__init__()
        if len({(camera.height, camera.width) for camera in cameras}) > 1:
            sizes = ", ".join(f"{camera.name} {camera.height}x{camera.width}" for camera in cameras)
            raise ConfigError(f"encoder 'stacked' needs cameras of one size, got {sizes}; set --image-size")
        camera = cameras[0]
        self.trunk = Trunk(3 * len(cameras), (camera.height, camera.width), vision, pretrained)

    def forward(self, images: Sequence[Tensor]) -> Tensor:
        return self.trunk(torch.cat(list(images), -1))  # type: ignore[no-any-return]


class SharedImages(nn.Module):
    """One trunk applied to each camera in turn; the features side by side, brought to one width."""

    def __init__(self, cameras: Sequence[Camera], vision: VisionConfig, pretrained: Mapping[str, Tensor] | None):
        super().__init__()
        sizes = {(camera.height, camera.width) for camera in cameras}
        if len(sizes) > 1:
            raise ConfigError(f"encoder 'shared' needs cameras of one size, got {sorted(sizes)}; set --image-size")
        self.trunk = Trunk(3, sizes.pop(), vision, pretrained)
        self.join = nn.Linear(len(cameras) * vision.image_feature_dim, vision.image_feature_dim)

    def forward(self, images: Sequence[Tensor]) -> Tensor:
        features = self.trunk(torch.cat(list(images)))
        return self.join(torch.cat(features.chunk(len(images)), -1))  # type: ignore[no-any-return]


class SeparateImages(nn.Module):
    """A trunk for each camera, whatever its size; the features side by side, brought to one width."""

    def __init__(self, cameras: Sequence[Camera], vision: VisionConfig, pretrained: Mapping[str, Tensor] | None):
        super().__init__()
        self.trunks = nn.ModuleList(Trunk(3, (c.height, c.width), vision, pretrained) for c in cameras)
        self.join = nn.Linear(len(cameras) * vision.image_feature_dim, vision.image_feature_dim)

    def forward(self, images: Sequence[Tensor]) -> Tensor:
        features = [trunk(image) for trunk, image in zip(self.trunks, images, strict=True)]
        return self.join(torch.cat(features, -1))  # type: ignore[no-any-return]


_IMAGE_ENCODERS: dict[str, Any] = {"stacked": StackedImages, "shared": SharedImages, "separate": SeparateImages}


class Trunk(nn.Module):
    """uint8 [B, H, W, 3n] -> feature [B, F]. The last map is flattened: it matters where things are."""

    def __init__(
        self, channels: int, size: tuple[int, int], vision: VisionConfig, pretrained: Mapping[str, Tensor] | None
    ) -> None:
        super().__init__()
        self.pixels = Pixels(channels, size)
        if vision.backbone == "small":
            self.body = small_body(channels)
        else:
            self.body = resnet_body(RESNET_BLOCKS[vision.backbone], channels, vision.norm == "frozen", pretrained)
        self.body.to(memory_format=torch.channels_last)
        with torch.no_grad():
            width = self.body(torch.zeros(1, channels, *size)).numel()
        self.head = nn.Sequential(
            nn.Flatten(), nn.Linear(width, vision.image_feature_dim), nn.LayerNorm(vision.image_feature_dim)
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.body(self.pixels(images)))  # type: ignore[no-any-return]


def count_parameters(module: nn.Module) -> int:
    """Number of trainable parameters."""
    return sum(math.prod(p.shape) for p in module.parameters() if p.requires_grad)
