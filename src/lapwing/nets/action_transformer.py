"""The networks of ACT (Zhao et al. 2023): observation and latent to a chunk of actions, and chunk to latent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from lapwing.batch import Obs
from lapwing.errors import ConfigError
from lapwing.nets.backbone import BackboneConfig, ImageMaps
from lapwing.nets.transformer import Decoder, Encoder, Output, sine_image_positions, sine_positions
from lapwing.spec import RobotSpec


@dataclass(frozen=True)
class TransformerConfig:
    """Sizes of the transformers."""

    width: int = 512
    """Numbers in a token."""
    heads: int = 8
    feedforward: int = 3200
    """Width of the two-layer networks."""
    encoder_layers: int = 4
    """Of the policy's encoder and of the CVAE's."""
    decoder_layers: int = 7
    dropout: float = 0.1
    pre_norm: bool = True
    """LayerNorm before each part, which trains steadily from the first step; the original has it after."""
    decoder_output: Output = "last"
    """Decoder layer that the actions are read from; first: the original code's, which trains no other."""
    image_positions: Literal["sine", "learned"] = "sine"
    """Positions of the cells of a camera's map."""
    camera_embedding: bool = True
    """A learned vector for each camera; without it equal places of two cameras carry one position."""
    position_values: bool = True
    """Let tokens carry their positions from the start; in the original only queries and keys do, so that what is read
    of a cell never says where it is."""
    patch: int = 1
    """Side of the squares of map cells that become one token; 2 gives a quarter of the tokens."""

    def __post_init__(self) -> None:
        for name in ("width", "heads", "feedforward", "encoder_layers", "decoder_layers", "patch"):
            if getattr(self, name) < 1:
                raise ConfigError(f"act: {name} is {getattr(self, name)}, expected at least 1")
        if self.width % self.heads or self.width % 4:
            raise ConfigError(
                f"act: width is {self.width}, expected a multiple of 4 and of the {self.heads} heads; try 512"
            )
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"act: dropout is {self.dropout}, expected 0 or more and below 1")

    @property
    def layer_sizes(self) -> tuple[int, int, int, float, bool]:
        """What every layer is built from: width, heads, feedforward, dropout, pre_norm."""
        return self.width, self.heads, self.feedforward, self.dropout, self.pre_norm


class ActionTransformer(nn.Module):
    """Obs and a latent vector [B, L] -> chunk of actions [B, K, A].

    The encoder reads [latent, state, image cells of every camera]; K learned queries read its memory.
    """

    image_position: Tensor
    camera_of_cell: Tensor

    def __init__(
        self,
        spec: RobotSpec,
        chunk: int,
        latent_size: int,
        sizes: TransformerConfig,
        vision: BackboneConfig,
        share_backbone: bool,
    ) -> None:
        super().__init__()
        self.cameras, self.vision = spec.camera_names, vision
        self.position_values = sizes.position_values
        width = sizes.width
        if self.cameras:
            self.maps = ImageMaps(spec.cameras, vision, share_backbone)
            self.vision = self.maps.vision
            self._add_image_tokens(sizes)
        self.state = nn.Linear(spec.state_dim, width)
        self.latent = nn.Linear(latent_size, width)
        self.token_positions = nn.Embedding(2, width)  # of the latent and of the state
        self.encoder = Encoder(sizes.encoder_layers, *sizes.layer_sizes)
        self.queries = nn.Embedding(chunk, width)
        self.decoder = Decoder(sizes.decoder_layers, *sizes.layer_sizes, sizes.decoder_output)
        self.action = nn.Linear(width, spec.action_dim)
        for part in (self.encoder, self.decoder):
            for parameter in part.parameters():
                if parameter.dim() > 1:
                    nn.init.xavier_uniform_(parameter)

    def _add_image_tokens(self, sizes: TransformerConfig) -> None:
        """From cells to tokens, and where each is."""
        width, patch = sizes.width, sizes.patch
        self.cells = nn.Conv2d(self.maps.channels, width, patch, patch, patch // 2)
        grids = [tuple((side + 2 * (patch // 2) - patch) // patch + 1 for side in size) for size in self.maps.sizes]
        self.camera_embedding = nn.Embedding(len(grids), width) if sizes.camera_embedding else None
        self.learned_positions = None
        if sizes.image_positions == "learned":
            self.learned_positions = nn.ParameterList(
                nn.Parameter(torch.rand(1, height * width_, width)) for height, width_ in grids
            )
        fixed = [sine_image_positions(height, width_, width) for height, width_ in grids]
        cameras = [torch.full((position.shape[1],), number) for number, position in enumerate(fixed)]
        self.register_buffer("image_position", torch.cat(fixed, 1), persistent=False)
        self.register_buffer("camera_of_cell", torch.cat(cameras), persistent=False)

    def forward(self, obs: Obs, latent: Tensor) -> Tensor:
        tokens, position = self._tokens(obs, latent)
        memory = self.encoder(tokens + position if self.position_values else tokens, position)
        return self.action(self.decoder(self.queries.weight[None], memory, position))  # type: ignore[no-any-return]

    def _tokens(self, obs: Obs, latent: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens [B, T, D] and their positions [1, T, D]."""
        tokens = torch.stack([self.latent(latent), self.state(obs.state)], 1)
        position = self.token_positions.weight[None]
        if not self.cameras:
            return tokens, position
        seen = self.see(obs)
        return torch.cat([tokens, seen], 1), torch.cat([position, self._image_positions()], 1)

    def see(self, obs: Obs) -> Tensor:
        """Image cells as tokens [B, T - 2, D], camera by camera, each row by row."""
        maps = self.maps([obs.images[name] for name in self.cameras])
        return torch.cat([self.cells(one).flatten(2).transpose(1, 2) for one in maps], 1)

    def _image_positions(self) -> Tensor:
        fixed = self.image_position if self.learned_positions is None else torch.cat(list(self.learned_positions), 1)
        if self.camera_embedding is None:
            return fixed
        return fixed + self.camera_embedding(self.camera_of_cell)[None]  # type: ignore[no-any-return]


class ChunkEncoder(nn.Module):
    """State and a chunk of actions -> numbers that describe its latent, [B, numbers]. Used in training alone."""

    position: Tensor

    def __init__(self, spec: RobotSpec, chunk: int, numbers: int, sizes: TransformerConfig) -> None:
        super().__init__()
        self.summary = nn.Embedding(1, sizes.width)
        self.state = nn.Linear(spec.state_dim, sizes.width)
        self.action = nn.Linear(spec.action_dim, sizes.width)
        self.encoder = Encoder(sizes.encoder_layers, *sizes.layer_sizes)
        self.out = nn.Linear(sizes.width, numbers)
        self.register_buffer("position", sine_positions(chunk + 2, sizes.width), persistent=False)

    def forward(self, state: Tensor, action: Tensor, is_pad: Tensor) -> Tensor:
        """state: [B, S]; action: [B, K, A]; is_pad: bool [B, K]."""
        summary = self.summary.weight.expand(len(state), 1, -1)
        tokens = torch.cat([summary, self.state(state)[:, None], self.action(action)], 1)
        hidden = torch.cat([is_pad.new_zeros(len(state), 2), is_pad], 1)
        return self.out(self.encoder(tokens, self.position, hidden)[:, 0])  # type: ignore[no-any-return]
