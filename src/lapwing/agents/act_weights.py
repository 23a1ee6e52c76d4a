"""Published ACT weights: state dicts of other projects, brought to the names and the settings of this one.

Read are those of tonyzhaozh/act, act-plus-plus and cobot_magic, which differ in little, and LeRobot's. All are the
same network as `ActionTransformer` and `ChunkEncoder` without a camera embedding, so nothing is approximated: what
cannot be represented is refused. docs/algorithms/act-weights.md has the names side by side.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lapwing.agents.act import PRESETS, ActAgent, ActConfig
from lapwing.errors import CheckpointError
from lapwing.nets.action_transformer import TransformerConfig
from lapwing.nets.backbone import BackboneConfig
from lapwing.nets.transformer import Output, sine_positions

State = Mapping[str, Tensor]

# their prefix -> ours; what follows it is the same, as layers name their parts as DETR does
_ORIGINAL = {
    "model.transformer.encoder.": "model.encoder.",
    "model.transformer.decoder.": "model.decoder.",
    "model.query_embed.": "model.queries.",
    "model.action_head.": "model.action.",
    "model.input_proj.": "model.cells.",
    "model.input_proj_robot_state.": "model.state.",
    "model.latent_out_proj.": "model.latent.",
    "model.additional_pos_embed.": "model.token_positions.",
    "model.encoder.": "posterior.encoder.",
    "model.cls_embed.": "posterior.summary.",
    "model.encoder_action_proj.": "posterior.action.",
    "model.encoder_joint_proj.": "posterior.state.",
    "model.latent_proj.": "posterior.out.",
}
_LEROBOT = {
    "model.encoder.": "model.encoder.",
    "model.decoder.": "model.decoder.",
    "model.decoder_pos_embed.": "model.queries.",
    "model.action_head.": "model.action.",
    "model.encoder_img_feat_input_proj.": "model.cells.",
    "model.encoder_robot_state_input_proj.": "model.state.",
    "model.encoder_latent_input_proj.": "model.latent.",
    "model.encoder_1d_feature_pos_embed.": "model.token_positions.",
    "model.backbone.": "model.maps.bodies.0.",
    "model.vae_encoder.": "posterior.encoder.",
    "model.vae_encoder_cls_embed.": "posterior.summary.",
    "model.vae_encoder_action_input_proj.": "posterior.action.",
    "model.vae_encoder_robot_state_input_proj.": "posterior.state.",
    "model.vae_encoder_latent_output_proj.": "posterior.out.",
}
_BACKBONE = re.compile(r"model\.backbones\.(\d+)\.0\.body\.")
_COBOT_POSITIONS = ("model.latent_pos.weight", "model.robot_state_pos.weight")
_TABLES = ("model.pos_table", "model.vae_encoder_pos_enc")  # fixed positions in the chunk encoder
_DEAD = "model.is_pad_head."
_STATISTICS = ("normalize_inputs.", "normalize_targets.", "unnormalize_outputs.")
_BEYOND = {
    "model.depth_backbones.": "a backbone for depth images, and ACT sees colour alone here",
    "model.input_proj_env_state.": "a state of the world instead of images",
    "model.encoder_env_state_input_proj.": "a state of the world beside the images",
    "model.audio_backbone.": "a backbone for sound, and ACT sees images alone here",
}
_LEARNED = re.compile(r"model\.backbones\.\d+\.1\.")


@dataclass(frozen=True)
class PublishedSizes:
    """What the tensors tell of a published policy. cameras: None where all share a backbone."""

    state: int
    action: int
    cameras: int | None


def published_sizes(state: State) -> PublishedSizes:
    """Numbers of axes and of cameras. Raises CheckpointError where `state` is no ACT that can be represented."""
    ours = _translate(state)
    backbones = len({name.split(".")[3] for name in ours.tensors if name.startswith("model.maps.bodies.")})
    return PublishedSizes(
        ours.get("model.state.weight").shape[1],
        ours.get("model.action.weight").shape[0],
        None if backbones == 1 else backbones,
    )


def published_settings(state: State, heads: int = 8, decoder_output: Output | None = None) -> ActConfig:
    """The settings that fit published weights; training goes on as the original does it.

    heads: no tensor tells how many. decoder_output: None for what the weights were trained with: the first layer,
    or the last of LeRobot's, which has only one unless it was asked for more.
    Raises CheckpointError naming what is missing, or cannot be represented.
    """
    ours = _translate(state)
    latent = ours.get("model.latent.weight").shape[1]
    has_posterior = bool(ours.depth("posterior.encoder"))
    if has_posterior and ours.get("posterior.out.weight").shape[0] == latent:
        raise CheckpointError(
            f"{ours.theirs('posterior.out.weight')!r} has {latent} rows, expected {2 * latent}: this is a discrete "
            "(VQ) latent, whose prior is another network in another file; train one here with --latent vq"
        )
    depth = ours.depth("model.encoder")
    if has_posterior and ours.depth("posterior.encoder") != depth:
        raise CheckpointError(
            f"the encoder has {depth} layers and the CVAE's {ours.depth('posterior.encoder')}, expected as many; such "
            "a model cannot be represented"
        )
    chunk, width = ours.get("model.queries.weight").shape
    transformer = TransformerConfig(
        width=width,
        heads=heads,
        feedforward=ours.get("model.encoder.layers.0.linear1.weight").shape[0],
        encoder_layers=depth,
        decoder_layers=ours.depth("model.decoder"),
        pre_norm="model.encoder.norm.weight" in ours.tensors,
        decoder_output=decoder_output or ours.decoder_output,
        camera_embedding=False,
        position_values=False,
    )
    return replace(
        PRESETS["original"],
        chunk=chunk,
        latent="gaussian" if has_posterior else "none",
        latent_dim=latent,
        share_backbone=published_sizes(state).cameras is None,
        transformer=transformer,
        vision=BackboneConfig("resnet18", weights="none", norm="frozen"),
    )


def load_published(agent: ActAgent, state: State) -> tuple[str, ...]:
    """Copy published weights into `agent`, built with `published_settings`; returns what was left out, in words.

    Raises CheckpointError naming the tensor that is missing, not known or of another shape; `agent` is then as it
    was.
    """
    ours = _translate(state)
    wanted = agent.networks.state_dict()
    dropped: Counter[str] = Counter()
    fitting: dict[str, Tensor] = {}
    for name, tensor in ours.tensors.items():
        if name in wanted:
            _expect_shape(ours.theirs(name), tensor, wanted[name])
            fitting[name] = tensor
        else:
            dropped[_why_dropped(ours.theirs(name), name, agent.config)] += 1
    missing = [name for name in wanted if name not in fitting]
    if missing:
        raise CheckpointError(
            f"{len(missing)} tensors are missing, the first is {ours.theirs(missing[0])!r}, expected shape "
            f"{list(wanted[missing[0]].shape)}; choose the whole state dict"
        )
    if ours.table is not None:
        _expect_table(ours.table, agent.config)
    agent.networks.load_state_dict(fitting)
    if ours.dead:
        dropped["of the head that predicts padding, which no loss ever trained"] = ours.dead
    return tuple(f"{count} tensors {why}" for why, count in dropped.items())


@dataclass(frozen=True)
class _Ours:
    """Published tensors by our names. `names`: ours -> theirs; `table`: the fixed positions, where they are kept;
    `dead`: how many tensors belong to the head that nothing trained."""

    tensors: Mapping[str, Tensor]
    names: Mapping[str, str]
    prefixes: Mapping[str, str]
    decoder_output: Output
    table: Tensor | None
    dead: int

    def get(self, name: str) -> Tensor:
        if name not in self.tensors:
            raise CheckpointError(f"{self.theirs(name)!r} is missing; choose the whole state dict of an ACT policy")
        return self.tensors[name]

    def theirs(self, name: str) -> str:
        """What they call one of our tensors, be it there or not."""
        if name in self.names:
            return self.names[name]
        if self.prefixes is _ORIGINAL and name.startswith("model.maps.bodies."):
            number, rest = name.removeprefix("model.maps.bodies.").split(".", 1)
            return f"model.backbones.{number}.0.body.{rest}"
        found = (their + name.removeprefix(our) for their, our in self.prefixes.items() if name.startswith(our))
        return next(found, name)

    def depth(self, stack: str) -> int:
        """The number of layers of an encoder or decoder."""
        numbers = {name.split(".")[3] for name in self.tensors if name.startswith(f"{stack}.layers.")}
        return len(numbers)


def _translate(state: State) -> _Ours:
    is_lerobot = "model.decoder_pos_embed.weight" in state
    if not is_lerobot and "model.query_embed.weight" not in state:
        first = next(iter(state), "nothing")
        raise CheckpointError(
            f"holds {len(state)} tensors, the first {first!r}, and no 'model.query_embed.weight'; expected the state "
            "dict of an ACT policy"
        )
    prefixes = _LEROBOT if is_lerobot else _ORIGINAL
    names = {
        _our_name(their, prefixes): their
        for their in state
        if not their.startswith((_DEAD, *_STATISTICS)) and their not in (*_TABLES, *_COBOT_POSITIONS)
    }
    tensors = {our: state[their] for our, their in names.items()}
    if not is_lerobot and all(name in state for name in _COBOT_POSITIONS):
        names["model.token_positions.weight"] = " and ".join(_COBOT_POSITIONS)
        tensors["model.token_positions.weight"] = torch.cat([state[name] for name in _COBOT_POSITIONS])
    table = next((state[name] for name in _TABLES if name in state), None)
    dead = sum(name.startswith(_DEAD) for name in state)
    return _Ours(tensors, names, prefixes, "last" if is_lerobot else "first", table, dead)


def _our_name(their: str, prefixes: Mapping[str, str]) -> str:
    for prefix, our in prefixes.items():
        if their.startswith(prefix):
            return our + their.removeprefix(prefix)
    if prefixes is _ORIGINAL and (backbone := _BACKBONE.match(their)):
        return f"model.maps.bodies.{backbone[1]}.{their[backbone.end() :]}"
    reason = next((why for prefix, why in _BEYOND.items() if their.startswith(prefix)), None)
    if _LEARNED.match(their):
        reason = "learned image positions, with which the original cannot run"
    if reason is not None:
        raise CheckpointError(f"{their!r} belongs to {reason}; such a model cannot be represented")
    raise CheckpointError(f"{their!r} is no tensor of ACT; expected the state dict of an ACT policy alone")


def _why_dropped(their: str, name: str, config: ActConfig) -> str:
    """Why a tensor has no place in the agent. Raises CheckpointError where it should have one."""
    if name.startswith("model.decoder.layers.") and config.transformer.decoder_output == "first":
        return "of decoder layers after the first, whose output was never read"
    if name.startswith("posterior.") and config.latent == "none":
        return "around a CVAE encoder that is not there"
    raise CheckpointError(f"{their!r} has no place in this agent; build it with `published_settings`")


def _expect_shape(their: str, tensor: Tensor, wanted: Tensor) -> None:
    if tensor.shape != wanted.shape:
        raise CheckpointError(
            f"{their!r} has shape {list(tensor.shape)}, expected {list(wanted.shape)}; choose the robot, cameras and "
            "sizes that it was trained with"
        )


def _expect_table(table: Tensor, config: ActConfig) -> None:
    """The fixed positions, which are not loaded, must be those that are computed here."""
    own = sine_positions(config.chunk + 2, config.transformer.width)
    if table.shape != own.shape or not torch.allclose(table.float(), own, atol=1e-4):
        raise CheckpointError(
            f"the fixed positions have shape {list(table.shape)} or other values, expected the sines of "
            f"{list(own.shape)}; such a model cannot be represented"
        )
