"""The success classifier: its loss by hand, what it trains, and what it refuses to see."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision.models.resnet import BasicBlock, ResNet

from lapwing.agent import Agent, Labelled, RewardFacts
from lapwing.agents.reward import RewardAgent, RewardConfig, success_loss
from lapwing.batch import Batch, Obs
from lapwing.errors import ConfigError
from lapwing.nets.backbone import BackboneConfig
from lapwing.spec import RobotSpec

MakeAgent = Callable[..., RewardAgent]
SCRATCH = BackboneConfig("small", "none")


@pytest.fixture
def make_agent(eyes: RobotSpec, facts: RewardFacts) -> MakeAgent:
    def make(spec: RobotSpec = eyes, vision: BackboneConfig = SCRATCH, **settings: Any) -> RewardAgent:
        torch.manual_seed(0)
        return RewardAgent(RewardConfig(**{"lr": 1e-3, "random_shift": 2, "vision": vision} | settings), spec, facts)

    return make


@pytest.fixture
def batch(eyes: RobotSpec) -> Batch:
    """Eight looks; the first half, of success, are brighter."""
    random = torch.Generator().manual_seed(0)
    images = {
        camera.name: torch.randint(0, 100, (8, camera.height, camera.width, 3), generator=random).to(torch.uint8)
        for camera in eyes.cameras
    }
    for image in images.values():
        image[:4] += 100
    none = torch.zeros(8)
    return Batch(
        Obs(images, torch.zeros(8, 0)), torch.zeros(8, 0, 0), torch.zeros(8, 0, dtype=torch.bool), none, none, none,
        label=(torch.arange(8) < 4).float(),
    )  # fmt: skip


def tensors(agent: RewardAgent) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in agent.state_dict()["networks"].items()}


def moved(agent: RewardAgent, batch: Batch) -> set[str]:
    """The tensors that an update changes."""
    before = tensors(agent)
    agent.update(batch)
    now = tensors(agent)
    return {name for name, was in before.items() if not torch.equal(was, now[name])}


def test_the_loss_by_hand():
    logit, label = torch.tensor([0.0, math.log(3)]), torch.tensor([1.0, 0.0])
    assert success_loss(logit, label).item() == pytest.approx((math.log(2) + math.log(4)) / 2)


def test_the_slope_of_the_loss_is_exact():
    logit = torch.randn(5, dtype=torch.float64, requires_grad=True)
    label = torch.tensor([0, 1, 1, 0, 1], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: success_loss(x, label), (logit,))


def test_updates_tell_bright_from_dark(make_agent, batch):
    agent = make_agent()
    metrics = [agent.update(batch) for _ in range(30)]
    assert agent.sampling == Labelled()
    assert metrics[-1]["reward_loss"] < 0.1 * metrics[0]["reward_loss"]
    assert metrics[-1]["reward_accuracy"] == 1
    assert all(value.ndim == 0 and not value.requires_grad for value in metrics[0].values())
    assert ((agent.predict(batch.obs) > 0.5) == (batch.label > 0.5)).all()


def test_the_same_seed_gives_the_same_numbers(make_agent, batch):
    one, other = make_agent(), make_agent()
    torch.manual_seed(1)
    first = one.update(batch)["reward_loss"]
    torch.manual_seed(1)
    assert torch.equal(other.update(batch)["reward_loss"], first)


def test_a_saved_classifier_goes_on_to_the_bit(make_agent, batch):
    agent = make_agent()
    agent.update(batch)
    other = make_agent()
    other.load_state_dict(copy.deepcopy(agent.state_dict()))
    for one in (agent, other):
        torch.manual_seed(2)
        one.update(batch)
    there = tensors(other)
    assert [name for name, value in tensors(agent).items() if not value.equal(there[name])] == ["threshold"]  # NaN


def test_probabilities_are_those_of_the_logits_over_the_temperature(make_agent, batch):
    agent = make_agent()
    agent.calibrate(2.0, 0.5)
    assert torch.allclose(agent.predict(batch.obs), torch.sigmoid(agent.logit(batch.obs) / 2))
    assert agent.calibration == (2.0, 0.5)


def test_predicting_is_without_dropout_and_without_shift(make_agent, batch):
    agent = make_agent(dropout=0.9)
    agent.update(batch)
    assert torch.equal(agent.predict(batch.obs), agent.predict(batch.obs))


def test_it_decides_in_full_precision_whatever_it_trains_in(make_agent, batch):
    agent = make_agent()
    exact = agent.logit(batch.obs)
    agent.prepare(torch.device("cpu"), bf16=True, compiled=False)
    assert torch.equal(agent.logit(batch.obs), exact)
    assert agent.acting.encoder.autocast is torch.bfloat16


def test_an_update_makes_the_threshold_void(make_agent, batch):
    agent = make_agent()
    agent.calibrate(1.0, 0.25)
    agent.update(batch)
    assert math.isnan(agent.calibration[1])


def test_a_backbone_from_scratch_is_trained(make_agent, batch):
    agent = make_agent()
    agent.calibrate(1.0, 0.5)
    assert moved(agent, batch) == set(tensors(agent)) - {"temperature"}


def test_a_pretrained_backbone_stays_and_its_pooling_is_trained(make_agent, batch, tmp_path):
    """LeRobot's port kept gradients from the spatial embedding too, which is random at the start."""
    torch.manual_seed(0)
    path = tmp_path / "resnet10.pt"
    torch.save(ResNet(BasicBlock, [1, 1, 1, 1]).state_dict(), path)
    agent = make_agent(vision=BackboneConfig("resnet10", str(path)))
    changed = moved(agent, batch)
    assert not any(name.startswith("encoder.backbone") for name in changed)
    trained = {name for name, _ in agent.acting.named_parameters() if not name.startswith("encoder.backbone")}
    assert len(trained) > 10
    assert trained <= changed
    assert agent.config.vision.norm == "frozen"


def test_the_state_is_not_looked_at(make_agent, batch, eyes):
    agent = make_agent()
    with_state = replace(batch, obs=Obs(batch.obs.images, torch.randn(8, eyes.state_dim)))
    assert torch.equal(agent.predict(batch.obs), agent.predict(with_state.obs))


def test_it_does_not_claim_to_act(make_agent):
    agent: Any = make_agent()
    assert not hasattr(agent, "act")
    assert not hasattr(agent, "modes")
    assert hasattr(Agent, "act")


def test_a_robot_without_cameras_is_refused(make_agent, blind):
    with pytest.raises(ConfigError, match="reward: no camera, expected one at least"):
        make_agent(blind)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lr": 0.0}, "lr is 0.0, expected a positive number"),
        ({"hidden": 0}, "hidden is 0, expected a positive number"),
        ({"dropout": 1.0}, "dropout is 1.0, expected a share"),
        ({"max_false_positive_rate": -0.1}, "max_false_positive_rate is -0.1, expected a share"),
        ({"random_shift": -1}, "random_shift is -1, expected 0 or more"),
    ],
)
def test_senseless_settings_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        RewardConfig(**settings)
