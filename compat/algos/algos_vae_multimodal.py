"""The documents' networks and learner, over `lapwing.nets.vision` and `lapwing.agents.lapo`."""

from __future__ import annotations

import os
import pickle
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from algos.utils_multimodal import CAMERAS, MultimodalReplayBuffer, expect_robot, usable_device
from lapwing.agent import RewardFacts
from lapwing.agents import build_agent
from lapwing.agents.lapo import LapoAgent
from lapwing.agents.lapo_config import PRESETS, LapoConfig
from lapwing.agents.latent import ConditionalVae
from lapwing.batch import Obs
from lapwing.data.normalize import Normalizer
from lapwing.errors import CheckpointError, ConfigError, SpecError
from lapwing.nets.vision import ObsEncoder, VisionConfig
from lapwing.run.checkpoint import config_from_json
from lapwing.run.device import pick_precision
from lapwing.run.log import MeanMetrics
from lapwing.run.policy import Policy
from lapwing.run.prefetch import Prefetch
from lapwing.spec import Camera, RobotSpec, unnamed_axes

Module = TypeVar("Module", bound=nn.Module)

PARTS = {"critic": "critic", "actor": "actor", "actor_vae": "vae", "obs_encoder": "encoder"}  # file -> network


class ResNet18Encoder(nn.Module):
    """Images of `in_channels` / 3 cameras side by side -> feature [B, output_dim]."""

    def __init__(
        self, output_dim: int = 256, pretrained: bool = True, in_channels: int = 9, image_size: int = 84
    ) -> None:
        super().__init__()
        if in_channels < 3 or in_channels % 3:
            raise ConfigError(f"ResNet18Encoder: in_channels is {in_channels}, expected 3 for each camera")
        names = [f"camera_{index}" for index in range(in_channels // 3)]
        encoder = ObsEncoder(_robot(names, image_size, 1), _vision(pretrained, output_dim, "stacked"), 1)
        self.trunk = encoder.images.trunk

    def forward(self, images: Tensor) -> Tensor:
        """images: [B, C, H, W] or [B, H, W, C], uint8, or float in 0..1; other sizes are scaled to `image_size`."""
        size, channels = self.trunk.pixels.scale.shape[:2], self.trunk.pixels.scale.shape[2]
        return self.trunk(_pixels(images, channels, size))


class ImageJointEncoder(ObsEncoder):
    """Three images and the joints -> feature [B, fusion_dim]. The encoder of `MultimodalLatent` is one."""

    def __init__(
        self,
        joint_dim: int = 16,
        image_feature_dim: int = 256,
        fusion_dim: int = 256,
        pretrained: bool = True,
        image_size: int = 84,
        encoder: str = "stacked",
    ) -> None:
        vision = _vision(pretrained, image_feature_dim, encoder)
        super().__init__(_robot(CAMERAS, image_size, joint_dim), vision, fusion_dim)

    def forward(self, left_img: Tensor, right_img: Tensor, global_img: Tensor, joint: Tensor) -> Tensor:
        """Images: [B, 3, H, W] or [B, H, W, 3], uint8, or float in 0..1. joint: normalised [B, S]."""
        sizes = [buffer.shape[:2] for name, buffer in self.named_buffers() if name.endswith("scale")]
        sizes = sizes * (len(CAMERAS) // len(sizes))  # one trunk for all cameras, or one for each
        given = (left_img, right_img, global_img)
        images = {name: _pixels(one, 3, size) for name, one, size in zip(CAMERAS, given, sizes, strict=True)}
        return super().forward(Obs(images, joint))


class ActorVAE(ConditionalVae):
    """The conditional VAE under the documents' calls. All in normalised units."""

    def __init__(self, obs_feature_dim: int = 256, action_dim: int = 16, latent_dim: int = 32) -> None:
        super().__init__(obs_feature_dim, action_dim, latent_dim, LapoConfig.hidden, LapoConfig.clamp_log_var)

    def forward(self, obs_feature: Tensor, action: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Reconstructed action, sampled latent, and mean and log variance of the posterior."""
        mean, log_var = self.encode(obs_feature, action)
        z = mean + (0.5 * log_var).exp() * torch.randn_like(mean)
        return self.decoder(obs_feature, z), z, mean, log_var

    def decode(self, obs_feature: Tensor, z: Tensor) -> Tensor:
        """Action [B, A] of a latent [B, Z]."""
        return self.decoder(obs_feature, z)


class MultimodalLatent:
    """LAPO as the documents call it: preset "documents" of `LapoConfig`.

    min_v, max_v: range of returns, by default the data's. max_action is accepted and bounds nothing: actions are
    normalised, and clamped to the range of the data when they become physical. encoder, weights, image_feature_dim:
    as in `VisionConfig`; `settings`: other fields of `LapoConfig` by name (discount, tau, expectile, kl_beta, ...).
    Without a replay buffer, `load` gives it all it needs to act.
    """

    parts: Mapping[str, str] = PARTS

    def __init__(
        self,
        action_dim: int = 16,
        latent_dim: int = 32,
        max_action: float = 1.0,
        min_v: float | None = None,
        max_v: float | None = None,
        replay_buffer: MultimodalReplayBuffer | None = None,
        device: str = "cuda",
        *,
        joint_dim: int = 16,
        encoder: str = "stacked",
        weights: str = "auto",
        image_feature_dim: int = 256,
        **settings: Any,
    ) -> None:
        self.action_dim, self.joint_dim, self.max_action = action_dim, joint_dim, max_action
        self.device, self.replay_buffer, self.steps = usable_device(device), replay_buffer, 0
        if replay_buffer is None:
            return
        data = replay_buffer.data
        expect_robot(data.spec, "replay_buffer", action_dim, joint_dim)
        vision = VisionConfig(encoder=encoder, weights=weights, image_feature_dim=image_feature_dim)
        config = replace(PRESETS["documents"], latent_dim=latent_dim, vision=vision, **settings)
        facts = data.reward_facts(config.discount)
        low, high = facts.returns
        facts = replace(facts, returns=(low if min_v is None else min_v, high if max_v is None else max_v))
        agent = build_agent("lapo", config, data.spec, facts)
        self._adopt(agent, agent.config, data.spec, facts, data.normalizer)

    def _adopt(
        self, agent: LapoAgent, config: LapoConfig, spec: RobotSpec, facts: RewardFacts, normalizer: Normalizer
    ) -> None:
        agent.prepare(self.device, bf16=pick_precision("auto", self.device) == "bf16", compiled=False)
        self.agent, self.config, self.spec, self.facts, self.normalizer = agent, config, spec, facts, normalizer
        self.obs_encoder, self.actor_vae = _seen_as(ImageJointEncoder, agent.encoder), _seen_as(ActorVAE, agent.vae)
        self.critic, self.actor = agent.critic, agent.actor
        self.critic_optimizer = agent.optimizers["critic"]
        self.actorvae_optimizer = agent.optimizers["vae"]
        self.actor_optimizer = agent.optimizers["actor"]
        self._policy = Policy(agent, spec, normalizer, device=self.device)

    def train(self, iterations: int, batch_size: int = 64) -> dict[str, float]:
        """Gradient steps on the replay buffer; returns the means of the metrics. Raises ConfigError without one."""
        if self.replay_buffer is None:
            raise ConfigError("MultimodalLatent: no replay_buffer to train on; give one that has loaded a file")
        data = self.replay_buffer.data
        data.expect_fit(self.agent.sampling)
        batches = data.train.stream(self.agent.sampling, batch_size, self.replay_buffer.seed, start=self.steps)
        means = MeanMetrics()
        with Prefetch(batches, pin=self.device.type == "cuda") as ready:
            for _ in range(iterations):
                means.add(self.agent.update(next(ready).to(self.device)))
                self.steps += 1
        return means.take()

    def select_action(self, left_img: Any, right_img: Any, global_img: Any, joint: Any) -> np.ndarray:
        """Physical action float32 [A] for one observation, without noise.

        Images: [H, W, 3] or [3, H, W], uint8, or float in 0..1, of the size in training. joint: [S], physical. Raises
        SpecError naming what does not fit.
        """
        self._expect_model()
        images = zip(CAMERAS, (left_img, right_img, global_img), strict=True)
        self._policy.reset()
        return self._policy({"images": {name: _frame(name, one) for name, one in images}, "state": _array(joint)})

    def save(self, filename: str, directory: str | Path) -> None:
        """Write FILENAME_{critic,actor,actor_vae,obs_encoder}.pth, and FILENAME_rest.pth with all else."""
        self._expect_model()
        rest = {
            "config": asdict(self.config),
            "reward_facts": asdict(self.facts),
            "spec": self.spec.to_dict(),
            "normalizer": self.normalizer.to_dict(),
            "optimizers": self.agent.state_dict()["optimizers"],
            "steps": self.steps,
        }
        write_model(filename, Path(directory), self.agent.networks.state_dict(), rest, self.parts)

    def load(self, filename: str, directory: str | Path) -> None:
        """Take over a saved model with its settings and statistics; a replay buffer is read by these from now on.

        Raises CheckpointError when a file is missing, damaged, or of a robot with other dimensions or cameras.
        """
        networks, rest = read_model(filename, Path(directory), self.parts)
        where = f"{directory}/{filename}_rest.pth"
        try:
            config = config_from_json(LapoConfig, rest["config"])
            facts = RewardFacts(**{name: tuple(bounds) for name, bounds in rest["reward_facts"].items()})
            spec, normalizer = RobotSpec.from_dict(rest["spec"]), Normalizer.from_dict(rest["normalizer"])
            self._expect_dims(spec, where)
            self._expect_same_robot(spec, where)
            agent = build_agent("lapo", config, spec, facts, restore=True)
            agent.networks.load_state_dict(networks)
            self._adopt(agent, config, spec, facts, normalizer)
            for name, state in rest.get("optimizers", {}).items():
                agent.optimizers[name].load_state_dict(state)
            self.steps = agent.updates = int(rest["steps"])
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise CheckpointError(f"{where}: not of this version ({' '.join(str(error).split())[:200]})") from error
        if self.replay_buffer is not None:
            self.replay_buffer.normalize_as(normalizer)

    def _expect_dims(self, spec: RobotSpec, where: str) -> None:
        expect_robot(spec, where, self.action_dim, self.joint_dim)

    def _expect_same_robot(self, spec: RobotSpec, where: str) -> None:
        if self.replay_buffer is not None and self.replay_buffer.data.spec.cameras != spec.cameras:
            raise CheckpointError(
                f"{where}: learned with cameras {list(spec.cameras)}, the replay buffer has "
                f"{list(self.replay_buffer.data.spec.cameras)}; load the data it learned from"
            )

    def _expect_model(self) -> None:
        if not hasattr(self, "agent"):
            raise ConfigError("MultimodalLatent: no networks yet; give a replay_buffer, or load a model")


def write_model(
    name: str,
    directory: Path,
    networks: Mapping[str, Tensor],
    rest: Mapping[str, Any],
    parts: Mapping[str, str] = PARTS,
) -> None:
    """The documents' files of one model: plain state dicts, and NAME_rest.pth with slow copies, settings, statistics.

    networks: all tensors of a LAPO agent by dotted name. All are written beside, then renamed.
    """
    networks = {key: x.detach().cpu() for key, x in networks.items()}  # so that they load where there is no GPU
    left_over = {key: x for key, x in networks.items() if key.partition(".")[0] not in parts.values()}
    files: dict[str, Any] = {"rest": {**rest, "networks": left_over}}
    for part, network in parts.items():
        files[part] = {
            key.removeprefix(f"{network}."): x for key, x in networks.items() if key.startswith(f"{network}.")
        }
    directory.mkdir(parents=True, exist_ok=True)
    for part, content in files.items():
        torch.save(content, directory / f".{name}_{part}.partial")
    for part in files:
        os.replace(directory / f".{name}_{part}.partial", directory / f"{name}_{part}.pth")


def read_model(
    name: str, directory: Path, parts: Mapping[str, str] = PARTS
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What `write_model` wrote: networks and rest. Raises CheckpointError naming the file."""
    rest = _read(directory / f"{name}_rest.pth", parts)
    networks = dict(rest.pop("networks", {}))
    for part, network in parts.items():
        networks |= {f"{network}.{key}": x for key, x in _read(directory / f"{name}_{part}.pth", parts).items()}
    return networks, rest


def _read(path: Path, parts: Mapping[str, str]) -> dict[str, Any]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
        reason = (
            "missing" if isinstance(error, FileNotFoundError) else f"damaged ({' '.join(str(error).split())[:200]})"
        )
        raise CheckpointError(
            f"{path}: {reason}; a model is {len(parts) + 1} files: {', '.join(parts)}, rest"
        ) from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: holds a {type(content).__name__}, expected a state dict")
    return content


def _seen_as(kind: type[Module], module: nn.Module) -> Module:
    """`module` under the documents' class: one set of parameters and buffers, other calls."""
    view = kind.__new__(kind)
    view.__dict__ = module.__dict__
    return view


def _vision(pretrained: bool, image_feature_dim: int, encoder: str) -> VisionConfig:
    return VisionConfig(encoder, weights="auto" if pretrained else "none", image_feature_dim=image_feature_dim)


def _robot(cameras: list[str] | tuple[str, ...], size: int, joint_dim: int) -> RobotSpec:
    return RobotSpec(
        "documents", tuple(Camera(name, size, size) for name in cameras), unnamed_axes("joint", joint_dim), ()
    )


def _pixels(images: Tensor, channels: int, size: tuple[int, ...]) -> Tensor:
    """[B, C, H, W] or [B, H, W, C], uint8 or 0..1 -> [B, height, width, C] in 0..255."""
    if images.ndim != 4 or channels not in (images.shape[-1], images.shape[1]):
        raise SpecError(f"images: shape {list(images.shape)}, expected [B, {channels}, H, W] or [B, H, W, {channels}]")
    if images.shape[-1] == channels:
        images = images.permute(0, 3, 1, 2)
    if images.is_floating_point():
        images = images * 255
    if images.shape[-2:] != tuple(size):
        images = interpolate(images.float(), tuple(size), mode="bilinear", antialias=True)
    return images.permute(0, 2, 3, 1)


def _array(values: Any) -> np.ndarray:
    return values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)


def _frame(name: str, image: Any) -> np.ndarray:
    """One camera's picture as uint8 [H, W, 3]."""
    frame = _array(image)
    if frame.ndim == 3 and frame.shape[-1] != 3 and frame.shape[0] == 3:
        frame = frame.transpose(1, 2, 0)
    if frame.dtype.kind != "f":
        return frame
    if not (frame.min() >= 0 and frame.max() <= 1):  # NaN fails too
        raise SpecError(
            f"images: camera {name!r} has values from {frame.min():.4g} to {frame.max():.4g}, expected 0..1, or uint8"
        )
    return (frame * 255).round().astype(np.uint8)
