"""What an agent is: something that learns from batches and acts on observations. It sees nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeGuard

import torch
from torch import Tensor, nn

from lapwing.batch import Batch, Obs

Metrics = dict[str, Tensor]
Normalization = Literal["mean-std", "min-max", "limits"]


@dataclass(frozen=True)
class Scaling:
    """Show me states and actions scaled like this, by the training split.

    mean-std: mean 0 and standard deviation 1. min-max: the range becomes [-1, 1]. No standard deviation, or half
    range, counts as less than `std_floor` (in the axis's own unit), so that a constant axis does not explode.
    limits: as min-max, of the spec's limits where the axis has both: what was never shown can be done all the same.
    `horizon`: actions predicted at once; relative ones are offsets from the state that the first was predicted from.
    """

    state: Normalization = "mean-std"
    action: Normalization = "mean-std"
    std_floor: float = 1e-3
    horizon: int = 1


@dataclass(frozen=True)
class Transitions:
    """Feed me (obs, `horizon` actions, reward, discount, next_obs), uniformly over the valid steps.

    More than one action is padded and marked past the end of a task that terminated, and never past a cut.
    """

    n_step: int = 1
    gamma: float = 0.99
    horizon: int = 1


@dataclass(frozen=True)
class Chunks:
    """Feed me an observation and the `horizon` actions that follow, padded and marked past the end.

    `by_episode`: an episode first, then a start in it; otherwise every start has the same chance.
    """

    horizon: int = 1
    by_episode: bool = False


@dataclass(frozen=True)
class Labelled:
    """Feed me observations that show success and others that do not, as many of each."""


FromEpisodes = Transitions | Chunks
Sampling = FromEpisodes | Labelled


@dataclass(frozen=True)
class RewardFacts:
    """What the training split says of rewards, in the data's own units.

    reward: lowest and highest reward of a step. returns: lowest and highest discounted return, under the agent's own
    discount, 0 included; an episode that was cut goes on as it did (`endless_returns`).
    """

    reward: tuple[float, float]
    returns: tuple[float, float]


class Learner(Protocol):
    """What the training loop needs of every algorithm.

    `config`: its settings as they were resolved. `acting`: the networks that its use needs, saved as
    model.safetensors. `update` makes one training step and returns 0-d detached metrics with the same keys each time.
    `state_dict` holds all that a bit-equal continuation needs (networks, targets, optimisers, counters).
    """

    @property
    def config(self) -> Any: ...

    @property
    def sampling(self) -> Sampling: ...

    @property
    def acting(self) -> nn.Module: ...

    def prepare(self, device: torch.device, bf16: bool, compiled: bool) -> None:
        """Move to `device`; `bf16` and `compiled` apply where they help (the image encoder; MLPs without cameras)."""
        ...

    def update(self, batch: Batch) -> Metrics: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


class Agent(Learner, Protocol):
    """A learner that acts.

    `config.scaling` is its `Scaling`. `modes`: the ways it can act, the deployed one first (LAPO: "pi", "z0", "bc").
    `act` returns normalised actions [B, K, A], deterministically.
    """

    @property
    def modes(self) -> tuple[str, ...]: ...

    def act(self, obs: Obs, mode: str | None = None) -> Tensor: ...


def acts(learner: Learner) -> TypeGuard[Agent]:
    """Whether a learner is one that acts; a success classifier is none."""
    return hasattr(learner, "act")


class Explorer(Learner, Protocol):
    """A learner that tries things out, as collecting its own data needs."""

    def explore(self, obs: Obs) -> Tensor:
        """Normalised actions [B, K, A], drawn at random from what the agent holds worth trying."""
        ...


def explores(learner: Learner) -> TypeGuard[Explorer]:
    """Whether a learner can collect its own data."""
    return hasattr(learner, "explore")


class Judge(Protocol):
    """An agent that also estimates values, so that they can be compared with what was really earned."""

    def judge(self, batch: Batch) -> dict[str, Tensor]:
        """ "q" of the data's action, "q_pi" of the policy's, "v", "advantage": float32 [B] each."""
        ...


class Reconstructor(Protocol):
    """An agent with a latent of what was done, which can be asked how much of it comes back."""

    def reconstruct(self, batch: Batch) -> Tensor | None:
        """The batch's own actions through their latent [B, K, A]; None where this agent has no latent."""
        ...
