"""Convolutional backbones: camera frames in, maps of features out.

Pixels are normalised here, per camera, so that training, evaluation and the robot cannot differ. Pretrained trunks
keep frozen BatchNorm; trunks trained from scratch use GroupNorm; plain BatchNorm never appears, because a critic's
value must not depend on the other samples of a batch.

torchvision is imported where a ResNet is built and not before: it takes as long as PyTorch itself, and an actor that
sees no images, or sees them with the small backbone, starts without it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from lapwing.errors import ConfigError
from lapwing.nets.pretrained import Backbone, Norm, load_resnet, resolve_weights
from lapwing.spec import Camera

if TYPE_CHECKING:
    from torchvision.models.resnet import ResNet

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
RESNET_BLOCKS = {"resnet18": (2, 2, 2, 2), "resnet10": (1, 1, 1, 1)}
_RESNET_PARTS = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4")
MAP_CHANNELS = 128  # channels kept of each cell of a ResNet's last map before it is flattened


@dataclass(frozen=True)
class BackboneConfig:
    """How images become maps of features, one map a camera."""

    backbone: Backbone = "resnet18"
    """small: four convolutions, for 64-128 px and for CPUs."""
    weights: str = "auto"
    """auto: ImageNet if it can be had, else from scratch, said loudly; imagenet: fail without; none; or the path of
    a ResNet state dict."""
    norm: Norm = "auto"
    """auto: frozen BatchNorm with pretrained weights, GroupNorm without."""
    dilation: bool = False
    """Keep the stride of the last ResNet stage at 1 and dilate it: maps of twice the size."""

    def __post_init__(self) -> None:
        if self.dilation and self.backbone == "small":
            raise ConfigError("vision: dilation belongs to a ResNet, got backbone 'small'; leave one of them")


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
        pretrained, weights, norm = resolve_weights(vision.backbone, vision.weights, vision.norm)
        self.vision = replace(vision, weights=weights, norm=norm)
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
        return small_body(3).to(memory_format=torch.channels_last)
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


def small_body(channels: int) -> nn.Sequential:
    """Four convolutions with GroupNorm: [B, channels, H, W] -> [B, 64, H/8, W/8]."""
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
    from torchvision.models.resnet import BasicBlock, ResNet

    net = ResNet(BasicBlock, list(blocks), norm_layer=FrozenNorm if frozen else partial(_group_norm))
    if pretrained is not None:
        load_resnet(net, pretrained)
    return net


class FrozenNorm(nn.Module):
    """BatchNorm with fixed statistics, as one multiply-add in the number format of its input [B, channels, H, W].

    torchvision's multiplies and adds apart, and turns bf16 into fp32: the whole backbone takes 1.5 times as long.
    """

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        for name, value in (("weight", 1.0), ("bias", 0.0), ("running_mean", 0.0), ("running_var", 1.0)):
            self.register_buffer(name, torch.full((channels,), value))
        self.eps = 1e-5  # BatchNorm2d's, with which the pretrained weights were trained

    def forward(self, x: Tensor) -> Tensor:
        scale = self.weight * (self.running_var + self.eps).rsqrt()
        offset = self.bias - self.running_mean * scale
        return torch.addcmul(_per_channel(offset, x), x, _per_channel(scale, x))


def _per_channel(values: Tensor, x: Tensor) -> Tensor:
    return values.to(x.dtype)[:, None, None]


def _group_norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(channels // 16, channels)
