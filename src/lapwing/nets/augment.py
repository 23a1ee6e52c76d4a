"""What is done to images in training so that a policy does not learn them by heart.

`random_shift` is the augmentation of DrQ (Yarats et al. 2021). `augment` is that of act-plus-plus (crop, rotation,
colour jitter), a whole batch at a time; `centre` is its counterpart when acting (docs/augmentation.md).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from lapwing.batch import Obs
from lapwing.errors import ConfigError

_LUMA = (0.2989, 0.587, 0.114)  # weights of red, green and blue in torchvision's grey


@dataclass(frozen=True)
class AugmentConfig:
    """How training images are varied, beside a random shift. The defaults are act-plus-plus's."""

    augment: Literal["none", "notes"] = "none"
    """notes: random crop, rotation and colour jitter in training, the centre crop when acting."""
    crop: float = 0.95
    """Share of height and width that a crop keeps; it is resized back."""
    rotation_deg: float = 5.0
    """Largest rotation, either way, in degrees."""
    brightness: float = 0.3
    """Brightness is multiplied by 1 plus or minus up to this."""
    contrast: float = 0.4
    """Contrast is multiplied by 1 plus or minus up to this."""
    saturation: float = 0.5
    """Saturation is multiplied by 1 plus or minus up to this."""

    def __post_init__(self) -> None:
        if not 0 < self.crop <= 1:
            raise ConfigError(f"augment: crop is {self.crop}, expected a share above 0, up to 1")
        if not 0 <= self.rotation_deg <= 180:
            raise ConfigError(f"augment: rotation_deg is {self.rotation_deg}, expected 0 to 180 degrees")
        for name in ("brightness", "contrast", "saturation"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigError(f"augment: {name} is {getattr(self, name)}, expected 0 or more")


def augment(obs: Obs, config: AugmentConfig, generator: Generator | None = None) -> Obs:
    """Vary the images of each sample, all its cameras alike: crop and rotation in one resampling, then colours.

    uint8 [B, H, W, 3] in and out. Black where a rotated frame shows nothing. Numbers are drawn on the
    CPU (`generator` is of the CPU), so that every device varies a batch alike.
    """
    if config.augment == "none" or not obs.images:
        return obs
    device = next(iter(obs.images.values())).device
    drawn = torch.rand(len(obs.state), 9, generator=generator).to(device, non_blocking=True)
    place, strength, keys = drawn[:, :2], drawn[:, 3:6], drawn[:, 6:]
    angle = (2 * drawn[:, 2] - 1) * math.radians(config.rotation_deg)
    spread = drawn.new_tensor((config.brightness, config.contrast, config.saturation))
    factor = (1 + (2 * strength - 1) * spread).clamp(min=0)
    order = keys.argsort(1)
    images = {}
    for name, image in obs.images.items():
        pixels = crop_and_turn(_to_pixels(image), config.crop, place, angle)
        images[name] = _to_bytes(jitter(pixels, factor, order))
    return Obs(images, obs.state)


def crop_and_turn(pixels: Tensor, crop: float, place: Tensor, angle: Tensor) -> Tensor:
    """The window at `place` (0 to 1 of the room there is, [B, 2] y and x), resized back and turned by `angle` [B].

    A point of the result is turned about the centre, then laid into the window; one bilinear sampling does both.
    Coordinates are grid_sample's, -1 to 1 along each side, hence the ratio of the sides in the rotation.
    """
    height, width = pixels.shape[2:]
    rows, columns = _kept(height, crop), _kept(width, crop)
    top = (place[:, 0] * (height - rows + 1)).floor()
    left = (place[:, 1] * (width - columns + 1)).floor()
    y, x = _pixel_centres(height, pixels)[:, None], _pixel_centres(width, pixels)
    cos, sin = angle.cos()[:, None, None], angle.sin()[:, None, None]
    turned_x = cos * x - sin * (height / width) * y
    turned_y = sin * (width / height) * x + cos * y
    source_x = turned_x * (columns / width) + ((2 * left + columns) / width - 1)[:, None, None]
    source_y = turned_y * (rows / height) + ((2 * top + rows) / height - 1)[:, None, None]
    grid = torch.stack([source_x, source_y], -1)
    return F.grid_sample(pixels, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def _kept(side: int, crop: float) -> int:
    return max(1, int(side * crop))


def _pixel_centres(count: int, like: Tensor) -> Tensor:
    return (2 * torch.arange(count, device=like.device, dtype=like.dtype) + 1) / count - 1


def jitter(pixels: Tensor, factor: Tensor, order: Tensor) -> Tensor:
    """Brightness, contrast and saturation by their `factor` [B, 3], applied in each sample's own `order` [B, 3].

    Each is a way from a base to the picture, as torchvision has it: from black, from the mean grey of the picture,
    or from its grey at each pixel. So the three steps of all samples are one formula.
    """
    for step in order.unbind(1):
        weight = factor.gather(1, step[:, None])[:, :, None, None]
        red, green, blue = pixels.unbind(1)
        grey = (_LUMA[0] * red).add_(green, alpha=_LUMA[1]).add_(blue, alpha=_LUMA[2])
        contrast, saturation = ((step == which)[:, None, None] for which in (1, 2))
        base = grey * saturation + grey.mean((1, 2), keepdim=True) * contrast
        pixels = torch.lerp(base[:, None], pixels, weight).clamp_(0, 255)
    return pixels


def centre(obs: Obs, config: AugmentConfig) -> Obs:
    """What `augment` shows on average: the centre crop, resized back. uint8 [B, H, W, 3] in and out."""
    if config.augment == "none":
        return obs
    return Obs({name: _centred(image, config.crop) for name, image in obs.images.items()}, obs.state)


def _centred(image: Tensor, crop: float) -> Tensor:
    height, width = image.shape[1:3]
    rows, columns = _kept(height, crop), _kept(width, crop)
    top, left = round((height - rows) / 2), round((width - columns) / 2)
    window = _to_pixels(image[:, top : top + rows, left : left + columns])
    return _to_bytes(F.interpolate(window, (height, width), mode="bilinear", align_corners=False))


def _to_pixels(image: Tensor) -> Tensor:
    """uint8 [B, H, W, 3] -> float32 [B, 3, H, W] in 0 to 255."""
    return image.permute(0, 3, 1, 2).float()


def _to_bytes(pixels: Tensor) -> Tensor:
    """[B, 3, H, W] in 0 to 255 -> uint8 [B, H, W, 3]."""
    return pixels.round_().to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def random_shift(obs: Obs, pixels: int) -> Obs:
    """Shift every image by up to `pixels` in x and y, each sample and camera on its own; edges repeat."""
    if pixels == 0:
        return obs
    images: Mapping[str, Tensor] = {name: _shift(image, pixels) for name, image in obs.images.items()}
    return Obs(images, obs.state)


def _shift(image: Tensor, pixels: int) -> Tensor:
    batch, height, width, channels = image.shape
    padded = image.new_empty(batch, height + 2 * pixels, width + 2 * pixels, channels)
    inside = padded[:, pixels : pixels + height]
    inside[:, :, pixels : pixels + width] = image
    inside[:, :, :pixels], inside[:, :, pixels + width :] = image[:, :, :1], image[:, :, -1:]
    padded[:, :pixels], padded[:, pixels + height :] = inside[:, :1], inside[:, -1:]
    # offsets are drawn on the CPU: the slices below need them there, and no device has to be waited for
    offsets = torch.randint(0, 2 * pixels + 1, (batch, 2)).tolist()
    # copying slices of rows is four times faster than gathering pixels
    return torch.stack([padded[i, y : y + height, x : x + width] for i, (y, x) in enumerate(offsets)])
