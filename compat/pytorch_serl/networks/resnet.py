"""The document's image encoder: a ResNet-10 of torchvision's blocks, pooled by place as SERL has it."""

from __future__ import annotations

import torch
from torch import Tensor

from lapwing.batch import Obs
from lapwing.errors import SpecError
from lapwing.nets.backbone import BackboneConfig
from lapwing.nets.pretrained import Backbone
from lapwing.nets.spatial import SpatialEncoder
from lapwing.spec import Camera, RobotSpec


class ResNetEncoder(SpatialEncoder):
    """Images uint8 [B, image_size, image_size, 3] -> feature [B, 256]."""

    def __init__(self, image_size: int = 128, backbone: Backbone = "resnet10", weights: str = "auto") -> None:
        super().__init__(
            RobotSpec("documents", (Camera("image", image_size, image_size),), (), ()),
            BackboneConfig(backbone, weights),
        )
        self.image_size = image_size

    def forward(self, images: Tensor) -> Tensor:
        size = self.image_size
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1:] != (size, size, 3):
            raise SpecError(f"images: {images.dtype} {list(images.shape)}, expected uint8 [B, {size}, {size}, 3]")
        return super().forward(Obs({"image": images}, torch.zeros(len(images), 0, device=images.device)))
