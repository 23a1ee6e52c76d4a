"""The networks of LAPO: critics, a conditional VAE of actions, and a policy and a search in its latent space.

An action here is all axes of all steps of a chunk in one row: [B, K * A].
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lapwing.nets.fourier import FourierFeatures
from lapwing.nets.mlp import mlp


class Critic(nn.Module):
    """Two Q of (feature, action) and one V of the feature, which they see through Fourier features where asked."""

    def __init__(
        self, feature: int, action: int, hidden: tuple[int, ...], layer_norm: bool, frequency: float = 0.0
    ) -> None:
        super().__init__()
        self.sharpen: nn.Module = nn.Identity()
        if frequency:
            self.sharpen = FourierFeatures(feature, frequency)
            feature = self.sharpen.outputs
        self.q1 = mlp(feature + action, hidden, 1, layer_norm)
        self.q2 = mlp(feature + action, hidden, 1, layer_norm)
        self.value = mlp(feature, hidden, 1, layer_norm)

    def q(self, feature: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """Both Q, [B] each."""
        both = torch.cat([self.sharpen(feature), action], -1)
        return self.q1(both).squeeze(-1), self.q2(both).squeeze(-1)

    def first_q(self, feature: Tensor, action: Tensor) -> Tensor:
        """Q_1 alone, [B]."""
        return self.q1(torch.cat([self.sharpen(feature), action], -1)).squeeze(-1)  # type: ignore[no-any-return]

    def v(self, feature: Tensor) -> Tensor:
        """V, [B]."""
        return self.value(self.sharpen(feature)).squeeze(-1)  # type: ignore[no-any-return]


class Decoder(nn.Module):
    """(feature [B, F], z [B, Z]) -> action, unbounded in normalised units."""

    def __init__(self, feature: int, latent: int, hidden: tuple[int, ...], action: int) -> None:
        super().__init__()
        self.net = mlp(feature + latent, hidden, action)

    def forward(self, feature: Tensor, z: Tensor) -> Tensor:
        return self.net(torch.cat([feature, z], -1))  # type: ignore[no-any-return]


class ConditionalVae(nn.Module):
    """Posterior q(z | feature, action) and decoder."""

    def __init__(self, feature: int, action: int, latent: int, hidden: tuple[int, ...], clamp_log_var: bool) -> None:
        super().__init__()
        self.latent_dim, self.clamp_log_var = latent, clamp_log_var
        self.posterior = mlp(feature + action, hidden, 2 * latent)
        self.decoder = Decoder(feature, latent, hidden, action)

    def encode(self, feature: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance of z, [B, Z] each."""
        mean, log_var = self.posterior(torch.cat([feature, action], -1)).chunk(2, -1)
        return mean, log_var.clamp(-8, 4) if self.clamp_log_var else log_var


class LatentActor(nn.Module):
    """feature [B, F] -> z [B, Z] within the bound."""

    def __init__(self, feature: int, latent: int, hidden: tuple[int, ...], bound: float) -> None:
        super().__init__()
        self.net, self.bound = mlp(feature, hidden, latent), bound

    def forward(self, feature: Tensor) -> Tensor:
        return self.bound * torch.tanh(self.net(feature))


class BestOf(nn.Module):
    """The best of many actions that the data might have taken: decode latents of the prior, and believe the critics.

    The latents are drawn once and kept with the weights, so that the same observation gives the same action.
    """

    latents: Tensor

    def __init__(self, count: int, latent: int, bound: float) -> None:
        super().__init__()
        drawn = torch.empty(count, latent)
        nn.init.trunc_normal_(drawn, a=-bound, b=bound, generator=torch.Generator().manual_seed(0))
        self.register_buffer("latents", drawn)

    def forward(self, feature: Tensor, decoder: Decoder, critic: Critic) -> Tensor:
        """feature: [B, F] -> action [B, K * A] with the highest of the lower Q."""
        count, size = len(self.latents), len(feature)
        features = feature.repeat_interleave(count, 0)
        actions = decoder(features, self.latents.repeat(size, 1))
        best = torch.minimum(*critic.q(features, actions)).view(size, count).argmax(1)
        chosen: Tensor = actions.view(size, count, -1)[torch.arange(size, device=best.device), best]
        return chosen
