"""Random shift of images, the augmentation of DrQ (Yarats et al. 2021), on integer pixels."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from lapwing.batch import Obs


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
