"""The document's learners, over `lapwing.agents.sac`."""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lapwing.agent import RewardFacts
from lapwing.agents import build_agent
from lapwing.agents.sac import PRESETS, SacAgent
from lapwing.batch import Batch, Obs
from lapwing.data.normalize import Normalizer
from lapwing.episode import Array, Observation
from lapwing.errors import CheckpointError, ConfigError, DataError
from lapwing.run.checkpoint import Which, find_checkpoint, load_acting, load_train_state, save_checkpoint
from lapwing.run.device import pick_precision
from lapwing.run.explorer import Exploring
from lapwing.run.policy import Policy
from lapwing.spec import Axis, RobotSpec
from pytorch_serl.networks.actor_critic import grippers
from pytorch_serl.translation import array, batch_of, masks_of, observation_of, robot_of, tensor, unscaled, vector
from pytorch_serl.utils.device import DEVICE

_FIELDS = ("observations", "actions", "next_observations", "rewards")


class SACAgent:
    """SAC with the document's defaults: preset "serl-notes", without imitation, as the original has none.

    The networks are made when the first observation or batch tells the sizes of images and state. Actions lie in
    [-1, 1], states pass as they are. returns: lowest and highest return there can be, to which targets are clipped
    then; settings: other fields of `SacConfig` by name (discount, tau, critics, cta_ratio, vision, ...).
    """

    def __init__(
        self,
        image_keys: Sequence[str] = ("image",),
        action_dim: int = 6,
        lr: float = 3e-4,
        *,
        returns: tuple[float, float] | None = None,
        device: str | torch.device = DEVICE,
        **settings: Any,
    ) -> None:
        self.image_keys, self.device = tuple(image_keys), torch.device(device)
        self.axes = _arm("", action_dim)
        plain = replace(PRESETS["serl-notes"], imitation=0.0, grasp_imitation=0.0, clip_targets=returns is not None)
        self.config = replace(plain, lr=lr, **settings)
        if self.config.n_step != 1 or self.config.conservative:
            raise ConfigError("SACAgent: a batch of transitions tells one step, no return; see `lapwing train sac`")
        self.facts = RewardFacts((0.0, 0.0), (-math.inf, math.inf) if returns is None else returns)
        self.agent: SacAgent | None = None

    def select_action(self, observation: Mapping[str, Any], deterministic: bool = True) -> Array:
        """Action float32 [A] for one observation in the document's format: the best, or drawn to explore."""
        if self.agent is None:
            self._make(robot_of(observation, self.image_keys, self.axes))
        act = self._policy if deterministic else self._exploring
        return act(observation_of(observation, self.spec))

    def update(self, batch: Mapping[str, Any]) -> dict[str, float]:
        """Learn from transitions in the document's format, each entry with a leading axis [B]; returns the metrics.

        Critics and grasp critic learn every time, actor and temperature once in `cta_ratio` times.
        """
        missing = [key for key in _FIELDS if key not in batch]
        if missing:
            raise DataError(f"batch: no {missing[0]!r}, it has {', '.join(sorted(batch))}")
        if self.agent is None:
            self._make(robot_of(batch["observations"], self.image_keys, self.axes, batched=True))
        assert self.agent is not None
        metrics = self.agent.update(self._batch(batch).to(self.device))
        return {name: float(value) for name, value in metrics.items()}

    def save(self, directory: str | Path) -> None:
        """Write a checkpoint of the package, in the place of one that is there. Raises CheckpointError."""
        if self.agent is None:
            raise ConfigError("SACAgent: no networks yet to save; act, update or load first")
        path, beside = Path(directory), Path(f"{directory}.new")
        is_checkpoint = (path / "model.safetensors").exists()
        if path.exists() and not is_checkpoint:
            raise CheckpointError(f"{path}: is there and no checkpoint; choose another directory")
        shutil.rmtree(beside, ignore_errors=True)
        save_checkpoint(
            beside,
            algorithm="sac",
            config=asdict(self.agent.config),
            facts=self.facts,
            agent=self.agent,
            spec=self.spec,
            normalizer=self.normalizer,
            train_state={"agent": self.agent.state_dict(), "rng": [], "state": {"step": self.agent.updates}},
        )
        if is_checkpoint:
            shutil.rmtree(path)
        beside.rename(path)

    def load(self, directory: str | Path, which: Which = "best") -> None:
        """Take over networks, optimisers and statistics of a checkpoint, or of a run of the document's scripts.

        Raises CheckpointError when it is missing or damaged, or has other images or action axes.
        """
        path = find_checkpoint(Path(directory), which)
        agent, spec, normalizer, meta = load_acting(path, self.device)
        if not isinstance(agent, SacAgent):
            raise CheckpointError(f"{path}: is of algorithm {meta['algorithm']!r}, expected sac; choose another")
        for what, got, expected in (
            ("images", list(spec.camera_names), list(self.image_keys)),
            ("kinds of action axes", [axis.kind for axis in spec.action], [axis.kind for axis in self.axes]),
        ):
            if got != expected:
                raise CheckpointError(f"{path}: {what} {got}, expected {expected}; make the agent as it was trained")
        self._prepare(agent)
        agent.load_state_dict(load_train_state(path)["agent"])
        self.config, self.facts = agent.config, RewardFacts(**meta["reward_facts"])
        self._adopt(agent, spec, normalizer)

    def _make(self, spec: RobotSpec) -> None:
        agent = build_agent("sac", self.config, spec, self.facts)
        assert isinstance(agent, SacAgent)
        self._prepare(agent)
        self._adopt(agent, spec, unscaled(spec))

    def _prepare(self, agent: SacAgent) -> None:
        agent.prepare(self.device, bf16=pick_precision("auto", self.device) == "bf16", compiled=False)

    def _adopt(self, agent: SacAgent, spec: RobotSpec, normalizer: Normalizer) -> None:
        self.agent, self.spec, self.normalizer = agent, spec, normalizer
        self._policy = Policy(agent, spec, normalizer, device=self.device)
        self._exploring = Exploring(agent, normalizer, spec, self.device)

    def _batch(self, batch: Mapping[str, Any]) -> Batch:
        action = vector(batch["actions"], 2)
        if action.shape[1] != len(self.axes):
            raise DataError(f"batch: 'actions' have {action.shape[1]} axes, expected {len(self.axes)}")
        now, later = (batch_of(batch[key], self.spec) for key in ("observations", "next_observations"))
        count, penalty = len(action), batch.get("grasp_penalty")
        return Batch(
            obs=self._obs(now),
            action=tensor(self.normalizer.encode_action(action[:, None], now.state)),
            is_pad=torch.zeros(count, 1, dtype=torch.bool),
            reward=_numbers(batch["rewards"]),
            discount=self.config.discount * tensor(masks_of(batch).reshape(-1)),
            mc_return=torch.zeros(count),  # read by the conservative term alone, which is refused
            next_obs=self._obs(later),
            grasp_penalty=None if penalty is None else _numbers(penalty),
        )

    def _obs(self, observation: Observation) -> Obs:
        images = {name: tensor(frames) for name, frames in observation.images.items()}
        return Obs(images, tensor(self.normalizer.encode_state(observation.state)))


class SACHybridAgent(SACAgent):
    """The same where grippers are learnt, by a critic of their own; each is told -1, 0 or 1.

    grasp_action_dim: 3 of one gripper, whose axis is the last, or 9 of two, who choose jointly. With two the axes are
    HIL-SERL's: left arm, its gripper, right arm, its gripper.
    """

    def __init__(
        self,
        image_keys: Sequence[str] = ("image",),
        continuous_action_dim: int = 6,
        grasp_action_dim: int = 3,
        lr: float = 3e-4,
        **settings: Any,
    ) -> None:
        super().__init__(image_keys, continuous_action_dim, lr, **settings)
        sides = ("",) if grippers(grasp_action_dim) == 1 else ("left_", "right_")
        joints, rest = divmod(continuous_action_dim, len(sides))
        if rest:
            raise ConfigError(f"continuous_action_dim is {continuous_action_dim}, expected as many axes of both arms")
        self.axes = tuple(axis for side in sides for axis in (*_arm(side, joints), _gripper(side)))


def _arm(side: str, joints: int) -> tuple[Axis, ...]:
    return tuple(Axis(f"{side}arm_{index}", "", "arm", -1.0, 1.0) for index in range(joints))


def _gripper(side: str) -> Axis:
    return Axis(f"{side}gripper", "", "gripper", -1.0, 1.0)


def _numbers(values: Any) -> Tensor:
    """float32 [B]."""
    return tensor(array(values).astype(np.float32).reshape(-1))
