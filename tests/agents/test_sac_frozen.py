"""How often a backbone is asked in one update: of a frozen one, each image once; and what an actor does without."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torchvision.models import resnet18

from lapwing.agent import RewardFacts
from lapwing.agents.sac import SacAgent, SacConfig
from lapwing.batch import Batch
from lapwing.nets.backbone import BackboneConfig
from lapwing.spec import Axis, Camera, RobotSpec, unnamed_axes

SPEC = RobotSpec(
    "robot",
    (Camera("front", 32, 32), Camera("wrist", 32, 32)),
    unnamed_axes("state", 5),
    (*unnamed_axes("action", 2), Axis("grip", kind="gripper")),
)


@pytest.fixture(scope="module")
def frozen(tmp_path_factory: pytest.TempPathFactory) -> BackboneConfig:
    """Weights that stand for pretrained ones."""
    torch.manual_seed(0)
    path: Path = tmp_path_factory.mktemp("weights") / "resnet18.pt"
    torch.save(resnet18().state_dict(), path)
    return BackboneConfig("resnet10", str(path))


def make_agent(vision: BackboneConfig, **settings: Any) -> SacAgent:
    agent = SacAgent(SacConfig(hidden=(16,), vision=vision, **settings), SPEC, RewardFacts((0.0, 1.0), (0.0, 1.0)))
    agent.prepare(torch.device("cpu"), bf16=False, compiled=False)
    return agent


def images_seen(agent: SacAgent) -> list[int]:
    """How many images the backbones of both encoders are given, call by call, from now on."""
    seen: list[int] = []
    for body in {id(one): one for one in (agent.encoder.backbone, agent.target_encoder.backbone)}.values():
        body.bodies[0].register_forward_hook(lambda _, inputs, __: seen.append(len(inputs[0])))
    return seen


@pytest.mark.parametrize("settings", [{}, {"conservative": 1.0}, {"random_shift": 0}])
def test_a_frozen_backbone_sees_each_image_once_in_an_update(
    frozen: BackboneConfig, make_batch: Callable[..., Batch], settings: dict[str, Any]
) -> None:
    agent = make_agent(frozen, cta_ratio=2, **settings)
    seen = images_seen(agent)
    batch = make_batch(SPEC, agent.sampling)
    for updates in range(1, 4):  # with a step of the actor, without, and with one again
        agent.update(batch)
        assert seen == [2 * len(batch.action)] * 2 * updates  # both cameras now and next


def test_one_that_learns_is_asked_by_everyone(make_batch: Callable[..., Batch]) -> None:
    """Critic, policy at the next observation, slow copy, and the policy after the encoder's step."""
    agent = make_agent(BackboneConfig("small", "none"), cta_ratio=2)
    seen = images_seen(agent)
    batch = make_batch(SPEC, agent.sampling)
    agent.update(batch)
    assert seen == [2 * len(batch.action)] * 4
    agent.update(batch)
    assert seen == [2 * len(batch.action)] * 7


def test_acting_looks_once_and_needs_no_optimiser(frozen: BackboneConfig, make_batch: Callable[..., Batch]) -> None:
    agent = make_agent(frozen)
    seen = images_seen(agent)
    obs = make_batch(SPEC, agent.sampling, size=1).obs
    agent.explore(obs)
    agent.act(obs)
    assert seen == [2, 2]
    assert "optimizers" not in vars(agent)
