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
    batch, height, width, _ = image.shape
    offsets = torch.randint(-pixels, pixels + 1, (2, batch, 1), device=image.device)
    rows = (torch.arange(height, device=image.device) + offsets[0]).clamp_(0, height - 1)
    columns = (torch.arange(width, device=image.device) + offsets[1]).clamp_(0, width - 1)
    index = (torch.arange(batch, device=image.device)[:, None, None] * height + rows[:, :, None]) * width
    return image.reshape(-1, image.shape[-1])[(index + columns[:, None, :]).reshape(-1)].view(image.shape)
