"""Images are varied in training, and seen through the centre crop whenever an agent acts or judges."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from lapwing.agent import RewardFacts
from lapwing.agents import ALGORITHMS, build_agent
from lapwing.batch import Batch, Obs
from lapwing.nets.augment import AugmentConfig, centre
from lapwing.nets.vision import VisionConfig
from lapwing.spec import RobotSpec

MakeBatch = Callable[..., Batch]
NOTES = AugmentConfig("notes")
STILL = AugmentConfig("notes", crop=1, rotation_deg=0, brightness=0, contrast=0, saturation=0)

pytestmark = pytest.mark.parametrize("name", ["lapo", "bc"])


@pytest.fixture
def make_agent(name: str, eyes: RobotSpec, facts: RewardFacts) -> Callable[[AugmentConfig], Any]:
    """An agent, the same but for its augmentation."""

    def make(augment: AugmentConfig) -> Any:
        torch.manual_seed(0)
        vision = VisionConfig(backbone="small", weights="none", image_feature_dim=16)
        config = ALGORITHMS[name].config(
            hidden=(16,), obs_feature_dim=16, random_shift=0, vision=vision, augment=augment
        )
        agent = build_agent(name, config, eyes, facts)
        agent.prepare(torch.device("cpu"), bf16=False, compiled=False)
        return agent

    return make


def seen_centred(batch: Batch) -> Batch:
    assert batch.next_obs is not None
    return replace(batch, obs=centre(batch.obs, NOTES), next_obs=centre(batch.next_obs, NOTES))


def test_acting_and_judging_see_the_centre(
    make_agent: Callable[[AugmentConfig], Any], eyes: RobotSpec, make_batch: MakeBatch
) -> None:
    plain, varied = make_agent(AugmentConfig()), make_agent(NOTES)
    batch = make_batch(eyes, plain.sampling)
    for mode in plain.modes:
        assert torch.equal(varied.act(batch.obs, mode), plain.act(centre(batch.obs, NOTES), mode))
        assert not torch.equal(varied.act(batch.obs, mode), plain.act(batch.obs, mode))
    if hasattr(plain, "judge"):
        found, expected = varied.judge(batch), plain.judge(seen_centred(batch))
        assert all(torch.equal(found[key], expected[key]) for key in expected)


def test_training_sees_what_the_seed_drew(
    make_agent: Callable[[AugmentConfig], Any], eyes: RobotSpec, make_batch: MakeBatch
) -> None:
    losses = []
    for config, seed in ((NOTES, 1), (NOTES, 1), (NOTES, 2), (STILL, 2)):
        agent = make_agent(config)
        torch.manual_seed(seed)
        losses.append(agent.update(make_batch(eyes, agent.sampling))["bc_loss"].item())
    assert losses[0] == losses[1]
    assert len(set(losses)) == 3


def test_the_next_observation_is_varied_on_its_own(
    name: str, make_agent: Callable[[AugmentConfig], Any], eyes: RobotSpec, make_batch: MakeBatch
) -> None:
    agent = make_agent(NOTES)
    batch = make_batch(eyes, agent.sampling)
    if name == "bc":
        assert batch.next_obs is None
        return
    seen: list[Tensor] = []
    agent.encoder.register_forward_pre_hook(lambda _, given: seen.append(next(iter(given[0].images.values()))))
    agent.update(replace(batch, next_obs=Obs(batch.obs.images, batch.obs.state)))
    assert len(seen) == 2
    assert not torch.equal(seen[0], seen[1])
