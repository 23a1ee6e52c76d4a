"""The original's learner for vectors, over `lapwing.agents.lapo` with its preset "original"."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from algos.algos_vae_multimodal import MultimodalLatent
from algos.utils import ReplayBuffer
from algos.utils_multimodal import expect_dims, usable_device
from lapwing.agent import RewardFacts
from lapwing.agents import build_agent
from lapwing.agents.lapo_config import PRESETS
from lapwing.spec import RobotSpec


class Latent(MultimodalLatent):
    """LAPO as the authors' code has it. Arguments and defaults are theirs.

    min_v, max_v: the range V's targets are clamped to. max_action is accepted and bounds nothing, as in the
    original; so is no_noise, which is never looked at there: noise is always on in V's target and nowhere else.
    The replay buffer's rewards are taken as they are.
    """

    parts: Mapping[str, str] = {"critic": "critic", "actor": "actor", "actor_vae": "vae"}

    def __init__(
        self,
        state_dim: int,
        action_dim: int,
        latent_dim: int,
        max_action: float,
        min_v: float,
        max_v: float,
        replay_buffer: ReplayBuffer,
        device: str = "cpu",
        discount: float = 0.99,
        tau: float = 0.005,
        vae_lr: float = 1e-4,
        actor_lr: float = 1e-4,
        critic_lr: float = 5e-4,
        max_latent_action: float = 1,
        expectile: float = 0.8,
        kl_beta: float = 1.0,
        no_noise: bool = True,
        doubleq_min: float = 0.8,
    ) -> None:
        del no_noise
        self.action_dim, self.joint_dim, self.max_action = action_dim, state_dim, max_action
        self.device, self.replay_buffer, self.steps = usable_device(str(device)), replay_buffer, 0
        data = replay_buffer.data
        self._expect_dims(data.spec, "replay_buffer")
        config = replace(
            PRESETS["original"],
            scale_reward=False,
            latent_dim=latent_dim,
            discount=discount,
            tau=tau,
            vae_lr=vae_lr,
            actor_lr=actor_lr,
            critic_lr=critic_lr,
            max_latent=max_latent_action,
            expectile=expectile,
            kl_beta=kl_beta,
            doubleq_min=doubleq_min,
        )
        # The preset takes reward / (1 - discount) for the range of values, so this gives exactly the one asked for.
        facts = RewardFacts((min_v * (1 - discount), max_v * (1 - discount)), (min_v, max_v))
        agent = build_agent("lapo", config, data.spec, facts)
        self._adopt(agent, agent.config, data.spec, facts, data.normalizer)

    def _expect_dims(self, spec: RobotSpec, where: str) -> None:
        expect_dims(spec, where, self.action_dim, self.joint_dim)

    def select_action(self, state: Any) -> np.ndarray:
        """Physical action float32 [A] of one physical state [S], without noise."""
        self._policy.reset()
        return self._policy({"images": {}, "state": np.asarray(state, np.float32)})
