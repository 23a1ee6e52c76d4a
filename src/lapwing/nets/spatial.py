"""SERL's way from frames and state to one feature: what each camera's map holds, by place, and the state beside it.

A backbone with pretrained weights stays as it is (HIL-SERL has it so), one from scratch is trained. The maps of a
frozen one can be computed once and kept: an `Obs` may hold them, float16 [B, h, w, channels], in place of its frames.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lapwing.batch import Obs
from lapwing.nets.backbone import BackboneConfig, ImageMaps
from lapwing.nets.mlp import xavier_linear
from lapwing.spec import RobotSpec

IMAGE_WIDTH, STATE_WIDTH = 256, 64  # features of a camera and of the state
EMBEDDINGS = 8  # learned weightings of the places of a map, for each channel
DROPOUT = 0.1  # of a camera's embedding, in the path of the policy alone


class SpatialEncoder(nn.Module):
    """Obs -> feature [B, feature_dim]. Without cameras it hands the normalised state through.

    One backbone serves all cameras. `vision` is the config with `weights` and `norm` as they were resolved; `frozen`
    says whether the backbone stays as it is; `map_shapes` are (h, w, channels) of each camera's map.
    """

    def __init__(self, spec: RobotSpec, vision: BackboneConfig) -> None:
        super().__init__()
        self.cameras = spec.camera_names
        self.autocast: torch.dtype | None = None
        self.map_shapes: dict[str, tuple[int, int, int]] = {}
        if not self.cameras:
            self.vision, self.frozen, self.feature_dim = vision, False, spec.state_dim
            return
        self.backbone = ImageMaps(spec.cameras, vision, shared=True)
        self.vision = self.backbone.vision
        # statistics are frozen where weights are pretrained; a restored agent still has this word of its config
        self.frozen = self.vision.norm == "frozen"
        self.backbone.requires_grad_(not self.frozen)
        for name, (height, width) in zip(self.cameras, self.backbone.sizes, strict=True):
            self.map_shapes[name] = (height, width, self.backbone.channels)
        self.heads = SpatialHeads(tuple(self.map_shapes.values()), spec.state_dim)
        self.feature_dim = self.heads.feature_dim

    def forward(self, obs: Obs, dropout: bool = False) -> Tensor:
        """`dropout`: as the policy sees it in training; critics and acting policies see everything."""
        if not self.cameras:
            return obs.state
        maps = [obs.images[name] for name in self.cameras]
        if not maps[0].is_floating_point():
            maps = self._look(maps)
        return self.heads(maps, obs.state, dropout)  # type: ignore[no-any-return]

    @torch.no_grad()
    def maps(self, images: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What may stand in the place of uint8 frames [B, H, W, 3]: float16 [B, h, w, channels] of each camera.

        As good as the frames only for as long as the backbone stays as it is.
        """
        seen = self._look([images[name] for name in self.cameras]) if self.cameras else []
        return {name: one.half() for name, one in zip(self.cameras, seen, strict=True)}

    def _look(self, frames: Sequence[Tensor]) -> list[Tensor]:
        with (
            torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen),
            torch.autocast(frames[0].device.type, self.autocast, enabled=self.autocast is not None),
        ):
            return [one.permute(0, 2, 3, 1) for one in self.backbone(frames)]


class SpatialHeads(nn.Module):
    """Maps of all cameras and the state -> feature: all that SERL trains of an encoder whose backbone is frozen."""

    def __init__(self, shapes: Sequence[tuple[int, int, int]], state_dim: int) -> None:
        super().__init__()
        self.embeddings = nn.ModuleList(SpatialEmbedding(*shape) for shape in shapes)
        self.images = nn.ModuleList(_layer(shape[2] * EMBEDDINGS, IMAGE_WIDTH) for shape in shapes)
        self.state = _layer(state_dim, STATE_WIDTH) if state_dim else None  # a classifier sees images alone
        self.feature_dim = len(shapes) * IMAGE_WIDTH + (STATE_WIDTH if state_dim else 0)

    def forward(self, maps: Sequence[Tensor], state: Tensor, dropout: bool = False) -> Tensor:
        """maps: [B, h, w, channels] of each camera, any float type; state: [B, S] -> [B, feature_dim]."""
        features = [
            image(F.dropout(embedding(one.to(state.dtype)), DROPOUT, training=dropout))
            for embedding, image, one in zip(self.embeddings, self.images, maps, strict=True)
        ]
        if self.state is not None:
            features.append(self.state(state))
        return torch.cat(features, -1)


class SpatialEmbedding(nn.Module):
    """Map [B, h, w, channels] -> [B, channels * EMBEDDINGS]: sums over the places, weighted by learned kernels."""

    def __init__(self, height: int, width: int, channels: int) -> None:
        super().__init__()
        std = math.sqrt(1 / (height * width * channels))  # flax's lecun_normal of SERL's h x w x channels x 8 kernel
        self.kernel = nn.Parameter(torch.empty(height * width, channels, EMBEDDINGS).normal_(0, std))

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("bnc,ncf->bcf", x.flatten(1, 2), self.kernel).flatten(1)


def _layer(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(xavier_linear(inputs, outputs), nn.LayerNorm(outputs), nn.Tanh())
