"""Settings of LAPO and their presets; what they mean stands in docs/algorithms/lapo.md."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from lapwing.agent import Normalization, RewardFacts, Scaling
from lapwing.errors import ConfigError
from lapwing.nets.augment import AugmentConfig
from lapwing.nets.vision import VisionConfig


@dataclass(frozen=True)
class LapoConfig:
    """Settings of LAPO. Defaults are the product's; PRESETS holds the documents' and the paper's."""

    discount: float = 0.99
    """Gamma of the Bellman targets."""
    n_step: int = 1
    """Steps of reward before bootstrapping; `chunk` where that is more."""
    chunk: int = 1
    """Actions that are chosen at once, and played before the next look. 1 in the paper."""
    tau: float = 0.005
    """Rate at which the slow copies follow."""
    expectile: float = 0.9
    """Weight of actions with a positive advantage; higher is greedier. 0.5 is plain behaviour cloning."""
    kl_beta: float = 1.0
    """Weight of the KL term of the CVAE."""
    doubleq_min: float = 1.0
    """Share of the lower of the two target values, the rest goes to the higher; of no use to an expectile value."""
    latent_dim: int = 0
    """Size of the latent; 0 means twice the action of a single step, whatever the chunk."""
    max_latent: float = 1.0
    """Bound of the latent policy, in standard deviations of the prior. The paper's code has 2."""
    best_of: int = 0
    """Adds the mode "best": decode this many latents of the prior, and do what the critics like most; 0: no such."""
    value: Literal["policy", "expectile"] = "policy"
    """What V learns: the value of the latent policy (2), or an expectile of Q over the data's actions, as in IQL."""
    value_expectile: float = 0.7
    """Which, where `value` is "expectile"; higher is greedier."""
    latent_penalty: float = 0.05
    """Weight of the mean squared latent in the actor's loss; 0 in the paper."""
    bc_coef: float = 0.1
    """Weight of the auxiliary action head that also teaches the image encoder; 0 in the documents."""
    hidden: tuple[int, ...] = (256, 256, 256)
    """Widths of every MLP."""
    obs_feature_dim: int = 256
    """Width of the fused feature of images and state."""
    critic_layer_norm: bool = True
    """LayerNorm in Q and V: bounds what they say of unseen actions."""
    critic_frequency: float = 0.0
    """Q and V see random Fourier features beside the state, with phases of this many radians; 0: the state alone."""
    clip_targets: bool = True
    """Clamp the targets of Q to the range of values, as those of V always are."""
    value_bounds: Literal["returns", "geometric"] = "returns"
    """Range of values: what the data's returns span (10 % wider), or reward / (1 - discount) as the paper's code."""
    scale_reward: bool = False
    """Divide rewards by the largest one, as the paper's code does."""
    clamp_log_var: bool = True
    """Keep the CVAE's log variance in [-8, 4]."""
    random_shift: int = 4
    """Largest shift of the images in pixels, training only."""
    critic_lr: float = 2e-4
    encoder_lr: float = 0.0
    """0 means critic_lr."""
    vae_lr: float = 2e-4
    actor_lr: float = 2e-4
    decay_steps: int = 0
    """Updates over which all learning rates fall to 0, along a cosine; 0: they stay. Give it --steps."""
    vae_decay_steps: int = 0
    """The same for the CVAE's alone, for actions to be learned before policies are; 0: as decay_steps."""
    encoder_grad_clip: float = 10.0
    """Largest gradient norm of the encoder; 0 means unbounded."""
    state_scaling: Normalization = "mean-std"
    """How states are normalised: to mean 0 and standard deviation 1, or from their range to [-1, 1]."""
    action_scaling: Normalization = "mean-std"
    """The same for actions. The losses weigh their errors against a KL term: another scale is another balance."""
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    vision: VisionConfig = field(default_factory=VisionConfig)

    def __post_init__(self) -> None:
        for name in ("discount", "tau", "expectile", "value_expectile", "doubleq_min"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"lapo: {name} is {getattr(self, name)}, expected a number from 0 to 1")
        for name in ("n_step", "chunk", "max_latent", "obs_feature_dim", "critic_lr", "vae_lr", "actor_lr"):
            if not 0 < getattr(self, name) < math.inf:
                raise ConfigError(f"lapo: {name} is {getattr(self, name)}, expected a positive number")
        for name in (
            "kl_beta", "latent_dim", "best_of", "latent_penalty", "bc_coef", "random_shift", "encoder_lr",
            "critic_frequency", "decay_steps", "vae_decay_steps", "encoder_grad_clip",
        ):  # fmt: skip
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigError(f"lapo: {name} is {getattr(self, name)}, expected 0 or more")
        for name, most in (("chunk", 1000), ("best_of", 10_000)):
            if getattr(self, name) > most:
                raise ConfigError(f"lapo: {name} is {getattr(self, name)}, expected at most {most}")
        if min(self.hidden, default=1) < 1:
            raise ConfigError(f"lapo: hidden is {list(self.hidden)}, expected positive widths")
        if self.value_bounds == "geometric" and self.discount == 1:
            raise ConfigError("lapo: value_bounds 'geometric' needs a discount below 1; or use value_bounds 'returns'")

    @property
    def scaling(self) -> Scaling:
        return Scaling(self.state_scaling, self.action_scaling, horizon=self.chunk)


PRESETS: dict[str, LapoConfig] = {
    "product": LapoConfig(),
    "state": LapoConfig(
        chunk=5,
        tau=0.02,
        max_latent=3.0,
        value="expectile",
        value_expectile=0.97,
        latent_penalty=0.0,
        bc_coef=0.0,
        critic_frequency=4.0,
        critic_lr=1e-3,
        vae_lr=1e-3,
        actor_lr=1e-3,
        vae_decay_steps=10_000,
    ),
    "documents": LapoConfig(max_latent=2.0, latent_penalty=0.0, bc_coef=0.0),
    "original": LapoConfig(
        max_latent=2.0,
        latent_penalty=0.0,
        bc_coef=0.0,
        critic_layer_norm=False,
        clip_targets=False,
        value_bounds="geometric",
        scale_reward=True,
        clamp_log_var=False,
        random_shift=0,
        encoder_grad_clip=0.0,
    ),
}


def value_range(config: LapoConfig, facts: RewardFacts) -> tuple[float, float, float]:
    """(reward scale, lowest value, highest value), the values in scaled reward."""
    scale = 1.0
    low, high = facts.returns
    if config.scale_reward:
        if facts.reward[1] <= 0:
            raise ConfigError(
                f"lapo: the largest reward is {facts.reward[1]:g}, dividing by it would flip or destroy the rewards; "
                "expected a positive one: shift the rewards, or leave them as they are (scale_reward)"
            )
        scale = 1 / facts.reward[1]
    if config.value_bounds == "geometric":
        low, high = (bound / (1 - config.discount) for bound in facts.reward)
    else:
        margin = 0.1 * (high - low)
        low, high = low - margin, high + margin
    return scale, low * scale, high * scale
