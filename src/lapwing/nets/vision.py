"""From camera frames and state to one feature vector.

Pixels are normalised here, per camera, so that training, evaluation and the robot cannot differ. Pretrained trunks
keep frozen BatchNorm; trunks trained from scratch use GroupNorm; plain BatchNorm never appears, because a critic's
value must not depend on the other samples of a batch.
"""

from __future__ import annotations

import math
import sys
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn
from torchvision.models import ResNet18_Weights
from torchvision.models.resnet import BasicBlock, ResNet
from torchvision.ops import FrozenBatchNorm2d

from lapwing.batch import Obs
from lapwing.errors import ConfigError
from lapwing.spec import Camera, RobotSpec

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
RESNET_BLOCKS = {"resnet18": (2, 2, 2, 2), "resnet10": (1, 1, 1, 1)}
_RESNET_PARTS = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4")
MAP_CHANNELS = 128  # channels kept of each cell of a ResNet's last map before it is flattened


@dataclass(frozen=True)
class VisionConfig:
    """How images become a feature."""

    encoder: Literal["stacked", "shared", "separate"] = "stacked"
    """stacked: one trunk over the channels of all cameras; shared: one trunk, camera by camera; separate: one each."""
    backbone: Literal["resnet18", "resnet10", "small"] = "resnet18"
    """small: four convolutions, for 64-128 px and for CPUs."""
    weights: str = "auto"
    """auto: ImageNet if it can be had, else from scratch, said loudly; imagenet: fail without; none; or the path of
    a ResNet state dict."""
    norm: Literal["auto", "group", "frozen"] = "auto"
    """auto: frozen BatchNorm with pretrained weights, GroupNorm without."""
    image_feature_dim: int = 256
    """Width of the feature of the images together, before fusion with the state."""

    def __post_init__(self) -> None:
        if self.image_feature_dim < 1:
            raise ConfigError(f"vision: image_feature_dim is {self.image_feature_dim}, expected a positive number")


@dataclass(frozen=True)
class BackboneConfig:
    """How images become maps of features, one map a camera."""

    backbone: Literal["resnet18", "resnet10", "small"] = "resnet18"
    """small: four convolutions, for 64-128 px and for CPUs."""
    weights: str = "auto"
    """auto: ImageNet if it can be had, else from scratch, said loudly; imagenet: fail without; none; or the path of
    a ResNet state dict."""
    norm: Literal["auto", "group", "frozen"] = "auto"
    """auto: frozen BatchNorm with pretrained weights, GroupNorm without."""
    dilation: bool = False
    """Keep the stride of the last ResNet stage at 1 and dilate it: maps of twice the size."""

    def __post_init__(self) -> None:
        if self.dilation and self.backbone == "small":
            raise ConfigError("vision: dilation belongs to a ResNet, got backbone 'small'; leave one of them")


Vision = TypeVar("Vision", VisionConfig, BackboneConfig)


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
        pretrained, self.vision = _resolve(vision)
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


class Pixels(nn.Module):
    """uint8 [B, H, W, 3n] -> normalised [B, 3n, H, W] in channels-last memory, as ImageNet's statistics have it."""

    scale: Tensor
    offset: Tensor

    def __init__(self, channels: int, size: tuple[int, int]) -> None:
        super().__init__()
        copies = channels // 3
        mean, std = torch.tensor(IMAGENET_MEAN).repeat(copies), torch.tensor(IMAGENET_STD).repeat(copies)
        # whole maps instead of one number a channel: elementwise kernels run over long rows then
        self.register_buffer("scale", (1 / (255 * std)).expand(*size, -1).contiguous(), persistent=False)
        self.register_buffer("offset", (-mean / std).expand(*size, -1).contiguous(), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        dtype = torch.get_autocast_dtype(images.device.type) if torch.is_autocast_enabled(images.device.type) else None
        pixels = images.to(dtype or self.scale.dtype)  # exact: bf16 holds every integer up to 256
        pixels = torch.addcmul(self.offset.to(pixels.dtype), pixels, self.scale.to(pixels.dtype))
        return pixels.permute(0, 3, 1, 2)  # NHWC seen as NCHW is channels-last already: no copy


class ImageMaps(nn.Module):
    """A map of features [B, channels, h, w] of each camera, from one backbone for all or one each.

    `vision` is the config with `weights` and `norm` as they were resolved.
    """

    def __init__(self, cameras: Sequence[Camera], vision: BackboneConfig, shared: bool) -> None:
        super().__init__()
        pretrained, self.vision = _resolve(vision)
        self.pixels = nn.ModuleList(Pixels(3, (camera.height, camera.width)) for camera in cameras)
        count = 1 if shared else len(cameras)
        self.bodies = nn.ModuleList(_map_body(self.vision, pretrained) for _ in range(count))
        with torch.no_grad():
            maps = [self.body(i)(torch.zeros(1, 3, one.height, one.width)) for i, one in enumerate(cameras)]
        self.channels = maps[0].shape[1]
        self.sizes = tuple((one.shape[2], one.shape[3]) for one in maps)

    def body(self, camera: int) -> nn.Module:
        return self.bodies[0 if len(self.bodies) == 1 else camera]

    def forward(self, images: Sequence[Tensor]) -> list[Tensor]:
        pixels = [one(image) for one, image in zip(self.pixels, images, strict=True)]
        if len(self.bodies) == 1 and len(set(self.sizes)) == 1:
            return list(self.bodies[0](torch.cat(pixels)).chunk(len(pixels)))
        return [self.body(camera)(one) for camera, one in enumerate(pixels)]


def _map_body(vision: BackboneConfig, pretrained: Mapping[str, Tensor] | None) -> nn.Module:
    if vision.backbone == "small":
        return _small_body(3).to(memory_format=torch.channels_last)
    net = _resnet(RESNET_BLOCKS[vision.backbone], vision.norm == "frozen", pretrained)
    if vision.dilation:
        _dilate(net.layer4)
    stages = OrderedDict((name, getattr(net, name)) for name in _RESNET_PARTS)
    return nn.Sequential(stages).to(memory_format=torch.channels_last)


def _dilate(stage: nn.Module) -> None:
    """Stride 1 instead of 2, and 3 x 3 convolutions after the first one with holes, so that weights mean the same."""
    for name, conv in stage.named_modules():
        if not isinstance(conv, nn.Conv2d):
            continue
        conv.stride = (1, 1)
        if conv.kernel_size == (3, 3) and name != "0.conv1":
            conv.dilation = conv.padding = (2, 2)


class Trunk(nn.Module):
    """uint8 [B, H, W, 3n] -> feature [B, F]. The last map is flattened: it matters where things are."""

    def __init__(
        self, channels: int, size: tuple[int, int], vision: VisionConfig, pretrained: Mapping[str, Tensor] | None
    ) -> None:
        super().__init__()
        self.pixels = Pixels(channels, size)
        if vision.backbone == "small":
            self.body = _small_body(channels)
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


def _small_body(channels: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for inputs, outputs, kernel, stride in ((channels, 32, 5, 2), (32, 64, 3, 2), (64, 64, 3, 2), (64, 64, 3, 1)):
        layers.append(nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False))
        layers += [nn.GroupNorm(outputs // 16, outputs), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


def resnet_body(
    blocks: Sequence[int], channels: int, frozen: bool, pretrained: Mapping[str, Tensor] | None
) -> nn.Sequential:
    """A torchvision ResNet without pooling and classifier, for any multiple of three channels.

    Pretrained conv1 filters are tiled over the cameras and divided by their number, so that equal views give what
    one view gave. The 512 channels of the last map are mixed down to MAP_CHANNELS before flattening.
    """
    net = _resnet(blocks, frozen, pretrained)
    if channels != 3:
        first = net.conv1
        net.conv1 = nn.Conv2d(channels, 64, 7, 2, 3, bias=False)
        if pretrained is not None:
            copies = channels // 3
            net.conv1.weight.data.copy_(first.weight.data.repeat(1, copies, 1, 1) / copies)
    parts = [getattr(net, name) for name in _RESNET_PARTS]
    return nn.Sequential(*parts, nn.Conv2d(512, MAP_CHANNELS, 1))


def _resnet(blocks: Sequence[int], frozen: bool, pretrained: Mapping[str, Tensor] | None) -> ResNet:
    net = ResNet(BasicBlock, list(blocks), norm_layer=FrozenNorm if frozen else partial(_group_norm))
    if pretrained is not None:
        _load(net, pretrained)
    return net


class FrozenNorm(FrozenBatchNorm2d):  # type: ignore[misc]
    """Frozen BatchNorm as one multiply-add in the number format of its input.

    torchvision's multiplies and adds apart, and turns bf16 into fp32: the whole backbone takes 1.5 times as long.
    """

    def forward(self, x: Tensor) -> Tensor:
        scale = self.weight * (self.running_var + self.eps).rsqrt()
        offset = self.bias - self.running_mean * scale
        return torch.addcmul(_per_channel(offset, x), x, _per_channel(scale, x))


def _per_channel(values: Tensor, x: Tensor) -> Tensor:
    return values.to(x.dtype)[:, None, None]


def _group_norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(channels // 16, channels)


def _load(net: nn.Module, pretrained: Mapping[str, Tensor]) -> None:
    wanted = net.state_dict()
    fitting = {k: v for k, v in pretrained.items() if k in wanted and v.shape == wanted[k].shape}
    missing = [k for k in wanted if k not in fitting and not k.startswith("fc.") and "num_batches" not in k]
    if missing:
        raise ConfigError(
            f"weights: {len(missing)} tensors are missing or of another shape, the first is {missing[0]!r}; "
            "expected a torchvision ResNet state dict of this backbone"
        )
    net.load_state_dict(fitting, strict=False)


def _resolve(vision: Vision) -> tuple[Mapping[str, Tensor] | None, Vision]:
    """The pretrained tensors, if any, and the config with what was decided."""
    pretrained = None
    from_file = vision.weights not in ("none", "auto", "imagenet")
    if vision.backbone == "small" and (from_file or vision.norm == "frozen"):
        raise ConfigError(
            f"backbone 'small' starts from scratch with GroupNorm, got weights {vision.weights!r} and norm "
            f"{vision.norm!r}; use --weights none --norm auto, or another backbone"
        )
    if from_file:
        pretrained = _read_state_dict(Path(vision.weights))
    elif vision.weights != "none":
        pretrained = _imagenet(vision)
    resolved = vision.weights if pretrained is not None else "none"
    if resolved == "auto":
        resolved = "imagenet"
    norm = vision.norm
    if norm == "auto":
        norm = "group" if pretrained is None else "frozen"
    # with weights "none" a checkpoint's own may follow
    if norm == "frozen" and pretrained is None and vision.weights != "none":
        raise ConfigError("norm 'frozen' needs pretrained weights and there are none; use --norm auto")
    if norm == "group" and pretrained is not None:
        raise ConfigError(
            "norm 'group' cannot hold pretrained BatchNorm statistics; use --norm auto, or --weights none"
        )
    return pretrained, replace(vision, weights=resolved, norm=norm)


def _imagenet(vision: VisionConfig | BackboneConfig) -> Mapping[str, Tensor] | None:
    if vision.backbone != "resnet18":
        reason = f"there are no ImageNet weights for backbone {vision.backbone!r}"
    else:
        try:
            state: Mapping[str, Tensor] = ResNet18_Weights.IMAGENET1K_V1.get_state_dict(check_hash=True)
            return state
        except Exception as error:  # the download can fail in many ways; each means the same here
            reason = f"the ImageNet weights of ResNet-18 could not be had ({type(error).__name__}: {error})"
    if vision.weights == "imagenet":
        raise ConfigError(f"weights 'imagenet': {reason}; give a file with --weights PATH, or --weights none")
    if vision.backbone == "resnet18":
        print(f"lapwing: warning: {reason}; the image encoder starts from scratch with GroupNorm", file=sys.stderr)
    return None


def _read_state_dict(path: Path) -> Mapping[str, Tensor]:
    try:
        state: Mapping[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
        raise ConfigError(f"weights {path}: cannot be read as a state dict ({reason}); or use none|auto") from error
    if not isinstance(state, Mapping):
        raise ConfigError(f"weights {path}: holds a {type(state).__name__}, expected a state dict; or use none|auto")
    return state


def count_parameters(module: nn.Module) -> int:
    """Number of trainable parameters."""
    return sum(math.prod(p.shape) for p in module.parameters() if p.requires_grad)
