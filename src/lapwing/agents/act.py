"""ACT, action chunking with transformers (Zhao et al., RSS 2023): a CVAE over chunks of actions.

With z ~ q(z | state, a_1..K) in training and z = 0 when acting, and D the transformer that reads images, state and z:

    L_rec = mean over the valid steps of |D(obs, z) - a|                          (1)
    L_KL  = -1/2 sum_j (1 + log var_j - mu_j^2 - var_j), mean over the batch      (2)
    L     = L_rec + kl_weight L_KL                                                (3)

docs/algorithms/act.md lists every deviation from the original code. The main ones: actions are read from the last
decoder layer (the original reads the first by mistake), cameras have embeddings of their own, and (1) divides by the
number of valid steps (the original divides by all, so that the ends of episodes count for less).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lapwing.agent import Chunks, Metrics, Normalization, RewardFacts, Sampling, Scaling
from lapwing.batch import Batch, Obs
from lapwing.errors import ConfigError
from lapwing.nets.action_transformer import ActionTransformer, ChunkEncoder, TransformerConfig
from lapwing.nets.augment import AugmentConfig, augment, centre, random_shift
from lapwing.nets.backbone import BackboneConfig
from lapwing.nets.mlp import mlp
from lapwing.nets.optim import gradient_step, track
from lapwing.spec import RobotSpec

LONGEST_CHUNK = 10_000  # attention over more steps than this fits no machine
Latent = Literal["gaussian", "vq", "none"]
Loss = Literal["l1", "l2", "smooth-l1"]
Padding = Literal["ignore", "repeat", "dilute"]


@dataclass(frozen=True)
class ActConfig:
    """Settings of ACT. Defaults are the product's; PRESETS holds the original's."""

    chunk: int = 100
    """Actions predicted per observation; two seconds are usual."""
    lr: float = 1e-4
    backbone_lr: float | None = None
    """Learning rate of the image backbone; None: a tenth of lr where it is pretrained, lr where it is not."""
    weight_decay: float = 1e-4
    loss: Loss = "l1"
    """Of the reconstruction, equation (1)."""
    padding: Padding = "ignore"
    """Steps past an episode's end. ignore: they do not count; repeat: the last action is to be held there, for
    recordings that end at the moment of success; dilute: they do not count, yet the loss is divided by them too, as
    in the original."""
    latent: Latent = "gaussian"
    """gaussian: the paper's CVAE; vq: discrete codes and a learned prior over them; none: no latent."""
    kl_weight: float = 10.0
    latent_dim: int = 32
    """Size of the gaussian latent."""
    vq_classes: int = 32
    """Codes in a discrete latent."""
    vq_size: int = 32
    """Values a code can take."""
    share_backbone: bool = True
    """One image backbone for all cameras, instead of one each."""
    grad_clip: float = 10.0
    """Largest norm of the gradient; 0 for none, as in the original."""
    ema_decay: float = 0.0
    """Act with an exponential moving average of the weights, e.g. 0.999; 0: with the weights themselves."""
    draw_by_episode: bool = False
    """Draw an episode, then a start in it, as the original does, instead of any start with equal chance."""
    state_scaling: Normalization = "mean-std"
    action_scaling: Normalization = "mean-std"
    std_floor: float = 1e-3
    """Smallest standard deviation of an axis; the original's is 0.01."""
    random_shift: int = 4
    """Largest shift of the images in pixels, training only."""
    augmentation: AugmentConfig = field(default_factory=AugmentConfig)
    transformer: TransformerConfig = field(default_factory=TransformerConfig)
    vision: BackboneConfig = field(default_factory=BackboneConfig)

    def __post_init__(self) -> None:
        positive = ("chunk", "lr", "latent_dim", "vq_classes", "vq_size")
        for name in positive:
            if not 0 < getattr(self, name) < math.inf:
                raise ConfigError(f"act: {name} is {getattr(self, name)}, expected a positive number")
        if self.chunk > LONGEST_CHUNK:
            raise ConfigError(f"act: chunk is {self.chunk}, expected at most {LONGEST_CHUNK} steps; 100 is usual")
        for name in ("weight_decay", "kl_weight", "grad_clip", "backbone_lr", "random_shift", "std_floor"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < math.inf:
                raise ConfigError(f"act: {name} is {value}, expected 0 or more")
        if not 0 <= self.ema_decay < 1:
            raise ConfigError(f"act: ema_decay is {self.ema_decay}, expected 0 or more and below 1; try 0.999")

    @property
    def scaling(self) -> Scaling:
        return Scaling(self.state_scaling, self.action_scaling, self.std_floor, self.chunk)


_ORIGINAL = ActConfig(
    lr=1e-5,
    backbone_lr=1e-5,
    padding="dilute",
    grad_clip=0.0,
    draw_by_episode=True,
    std_floor=1e-2,
    random_shift=0,
    transformer=TransformerConfig(
        pre_norm=False, decoder_output="first", camera_embedding=False, position_values=False
    ),
    vision=BackboneConfig(weights="imagenet"),
)
PRESETS = {
    "product": ActConfig(),
    "original": _ORIGINAL,
    "cobot-magic": replace(_ORIGINAL, chunk=32, lr=4e-5, backbone_lr=4e-5, share_backbone=False),
}


class ActAgent:
    """Predicts a chunk of actions from one observation, with z = 0 (or, for discrete codes, the likeliest ones)."""

    modes = ("act",)

    def __init__(self, config: ActConfig, spec: RobotSpec, facts: RewardFacts) -> None:
        del facts  # imitation does not look at rewards
        size = config.vq_classes * config.vq_size if config.latent == "vq" else config.latent_dim
        self.model = ActionTransformer(
            spec, config.chunk, size, config.transformer, config.vision, config.share_backbone
        )
        self.config = replace(config, vision=self.model.vision)
        self._latent_size = size
        self.networks = nn.ModuleDict({"model": self.model})
        if config.latent != "none":
            numbers = size if config.latent == "vq" else 2 * size
            self.networks["posterior"] = ChunkEncoder(spec, config.chunk, numbers, config.transformer)
        self.acting = nn.ModuleDict({"model": self.model})
        if config.latent == "vq":
            width = config.transformer.width
            self.networks["prior"] = self.acting["prior"] = mlp(width + spec.state_dim, (width,), size)
        if config.ema_decay:
            self.acting = copy.deepcopy(self.acting).requires_grad_(False)
            self.networks["average"] = self.acting
        self._autocast: torch.dtype | None = None
        self._device = torch.device("cpu")
        self._make_optimizer()

    @property
    def sampling(self) -> Sampling:
        return Chunks(self.config.chunk, self.config.draw_by_episode)

    def _make_optimizer(self) -> None:
        config = self.config
        backbone = [p for name, p in self._trained() if ".maps." in name]
        others = [p for name, p in self._trained() if ".maps." not in name]
        backbone_lr = config.backbone_lr
        if backbone_lr is None:
            backbone_lr = config.lr if config.vision.weights == "none" else config.lr / 10
        groups = [{"params": others, "lr": config.lr}]
        if backbone and backbone_lr:
            groups.append({"params": backbone, "lr": backbone_lr})
        self.optimizer = torch.optim.AdamW(groups, weight_decay=config.weight_decay, fused=True)

    def _trained(self) -> list[tuple[str, nn.Parameter]]:
        return [(name, p) for name, p in self.networks.named_parameters() if not name.startswith("average.")]

    def prepare(self, device: torch.device, bf16: bool, compiled: bool) -> None:
        """Move to `device`. bf16 serves all matrix products of the transformers; losses stay in fp32."""
        self.networks.to(device)
        self._device = device
        self._make_optimizer()
        self._autocast = torch.bfloat16 if bf16 else None
        if compiled:
            self.model.compile()

    def _precision(self) -> torch.autocast:
        return torch.autocast(self._device.type, self._autocast, enabled=self._autocast is not None)

    def update(self, batch: Batch) -> Metrics:
        """Equations (1) to (3) on one batch, then the average of the weights."""
        self.networks.train()
        obs = augment(random_shift(batch.obs, self.config.random_shift), self.config.augmentation)
        batch = replace(self._padded(batch), obs=obs)
        with self._precision():
            latent, regulariser, metrics = self._infer(batch)
            predicted = self.model(obs, latent).float()
        reconstruction = chunk_loss(
            predicted, batch.action, batch.is_pad, self.config.loss, self.config.padding == "dilute"
        )
        gradient_step(self.optimizer, reconstruction + regulariser, self._clip)
        if self.config.ema_decay:
            source = nn.ModuleDict({name: self.networks[name] for name in self.acting})
            track(self.acting, source, 1 - self.config.ema_decay)
        return {"reconstruction_loss": reconstruction.detach(), "grad_norm": self._grad_norm, **metrics}

    def _padded(self, batch: Batch) -> Batch:
        """The batch as `padding` has it: where the last action is repeated, no step is past the end."""
        if self.config.padding != "repeat":
            return batch
        return replace(batch, is_pad=torch.zeros_like(batch.is_pad))

    def _clip(self) -> None:
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        limit = self.config.grad_clip or math.inf
        self._grad_norm = torch.nn.utils.clip_grad_norm_(parameters, limit).detach()

    def _infer(self, batch: Batch) -> tuple[Tensor, Tensor, Metrics]:
        """The latent of each chunk [B, L], what is added to the reconstruction loss, and what to log."""
        if self.config.latent == "none":
            zero = torch.zeros((), device=self._device)
            return self._zero_latent(batch.size), zero, {}
        numbers = self.networks["posterior"](batch.obs.state, batch.action, batch.is_pad).float()
        if self.config.latent == "gaussian":
            mean, log_var = numbers.chunk(2, -1)
            kl = kl_from_standard_normal(mean, log_var)
            z = mean + torch.exp(log_var / 2) * torch.randn_like(mean)
            return z, self.config.kl_weight * kl, {"kl_loss": kl.detach()}
        logits = self._codes(numbers)
        codes, probabilities = draw_codes(logits)
        discrepancy = (probabilities - codes).abs().mean()
        prior = F.cross_entropy(self._prior(self.networks, batch.obs).flatten(0, 1), codes.flatten(0, 1).argmax(-1))
        through = codes - probabilities.detach() + probabilities  # the gradient passes the draw unchanged
        metrics = {"vq_discrepancy": discrepancy.detach(), "prior_loss": prior.detach()}
        return through.flatten(1), prior, metrics

    def _codes(self, numbers: Tensor) -> Tensor:
        """[B, classes * size] -> [B, classes, size]."""
        return numbers.view(len(numbers), self.config.vq_classes, self.config.vq_size)

    def _prior(self, networks: nn.ModuleDict, obs: Obs) -> Tensor:
        """Logits of the codes from the observation alone, [B, classes, size]; the images are not trained by them."""
        model = networks["model"]
        assert isinstance(model, ActionTransformer)
        if model.cameras:
            with torch.no_grad():
                seen = model.see(obs).mean(1)
        else:
            seen = obs.state.new_zeros(len(obs.state), self.config.transformer.width)
        return self._codes(networks["prior"](torch.cat([seen.to(obs.state.dtype), obs.state], -1)).float())

    def _zero_latent(self, size: int) -> Tensor:
        return torch.zeros(size, self._latent_size, device=self._device)

    @torch.no_grad()
    def act(self, obs: Obs, mode: str | None = None) -> Tensor:
        """Normalised actions [B, K, A]."""
        if mode not in (None, *self.modes):
            raise ConfigError(f"act: mode {mode!r} does not exist here; the only one is 'act'")
        self.acting.eval()
        obs = centre(obs, self.config.augmentation)
        with self._precision():
            latent = self._zero_latent(len(obs.state))
            if self.config.latent == "vq":
                likeliest = self._prior(self.acting, obs).argmax(-1)
                latent = F.one_hot(likeliest, self.config.vq_size).flatten(1).to(latent.dtype)
            return self.acting["model"](obs, latent).float()  # type: ignore[no-any-return]

    @torch.no_grad()
    def reconstruct(self, batch: Batch) -> Tensor | None:
        """The chunk as it comes back through its own latent [B, K, A]; None without a latent.

        Its error says what the latent can hold, not how well the policy acts: acting does not know the chunk.
        """
        if self.config.latent == "none":
            return None
        self.networks.eval()
        batch = self._padded(batch)
        with self._precision():
            numbers = self.networks["posterior"](batch.obs.state, batch.action, batch.is_pad).float()
            if self.config.latent == "gaussian":
                latent = numbers.chunk(2, -1)[0]
            else:
                latent = F.one_hot(self._codes(numbers).argmax(-1), self.config.vq_size).flatten(1).float()
            return self.acting["model"](centre(batch.obs, self.config.augmentation), latent).float()  # type: ignore[no-any-return]

    def state_dict(self) -> dict[str, Any]:
        return {"networks": self.networks.state_dict(), "optimizers": {"all": self.optimizer.state_dict()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.networks.load_state_dict(state["networks"])
        self.optimizer.load_state_dict(state["optimizers"]["all"])


def chunk_loss(predicted: Tensor, action: Tensor, is_pad: Tensor, loss: Loss, dilute: bool = False) -> Tensor:
    """Equation (1): mean over the axes of the valid steps. predicted, action: [B, K, A]; is_pad: bool [B, K].

    dilute: divide by all steps, as the original code does.
    """
    match loss:
        case "l1":
            error = (predicted - action).abs()
        case "l2":
            error = (predicted - action).square()
        case "smooth-l1":
            error = F.smooth_l1_loss(predicted, action, reduction="none")
    valid = (~is_pad)[..., None].to(predicted.dtype)
    if dilute:
        return (error * valid).mean()
    return (error * valid).sum() / (valid.sum() * action.shape[-1]).clamp(min=1)


def kl_from_standard_normal(mean: Tensor, log_var: Tensor) -> Tensor:
    """Equation (2): summed over the latent, mean over the batch. mean, log_var: [B, L]."""
    return (-0.5 * (1 + log_var - mean.square() - log_var.exp())).sum(-1).mean()


def draw_codes(logits: Tensor) -> tuple[Tensor, Tensor]:
    """A value of each code at random, as one-hot, and the probabilities it was drawn with: [B, classes, size] each."""
    probabilities = logits.softmax(-1)
    drawn = torch.multinomial(probabilities.flatten(0, 1), 1).view(logits.shape[:-1])
    return F.one_hot(drawn, logits.shape[-1]).to(logits.dtype), probabilities
