"""What every agent owes its users, asked of each algorithm with cameras and without."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision.models import ResNet18_Weights

from lapwing.agent import Agent, RewardFacts, Transitions
from lapwing.agents import ALGORITHMS, build_agent
from lapwing.batch import Batch, Obs
from lapwing.errors import ConfigError
from lapwing.nets.action_transformer import TransformerConfig
from lapwing.nets.backbone import BackboneConfig
from lapwing.nets.vision import VisionConfig
from lapwing.spec import RobotSpec

MakeBatch = Callable[..., Batch]
MakeAgent = Callable[..., Agent]

SMALL = {"hidden": (32, 32), "obs_feature_dim": 32, "random_shift": 2}
TRANSFORMER = TransformerConfig(32, 2, 32, encoder_layers=1, decoder_layers=2, dropout=0.0)
OWN: dict[str, dict[str, Any]] = {
    "lapo": SMALL | {"critic_lr": 1e-3, "vae_lr": 1e-3, "actor_lr": 1e-3},
    "act": {"random_shift": 2, "lr": 1e-3, "chunk": 3, "latent_dim": 4, "transformer": TRANSFORMER},
    "bc": SMALL | {"lr": 1e-3, "chunk": 3},
    "sac": {"hidden": (32, 32), "random_shift": 2, "lr": 1e-3, "cta_ratio": 1},
    "iql": {"hidden": (32, 32), "random_shift": 2, "lr": 1e-3},
    "td3bc": {"hidden": (32, 32), "random_shift": 2, "lr": 1e-3, "policy_freq": 1, "alpha": 0.1},
}
# settings without a random draw whose numbers depend on the size of the batch
WITHOUT_DRAWS: dict[str, dict[str, Any]] = {
    "lapo": {},
    "act": {"latent": "none"},
    "bc": {},
    "sac": {},
    "iql": {},
    "td3bc": {},
}
FALLING = {
    "lapo": ("critic_loss", "bc_loss", "vae_loss"),
    "act": ("reconstruction_loss",),
    "bc": ("bc_loss",),
    "sac": ("critic_loss", "action_mse"),
    "iql": ("critic_loss",),
    "td3bc": ("critic_loss", "action_mse"),
}
# the networks that each optimiser step moves, in the order of the steps, and those that follow at the end
MOVED: dict[str, list[set[str]]] = {
    "lapo": [{"critic", "encoder", "bc_head"}, {"vae"}, {"actor"}, {"target_critic", "target_vae", "target_actor"}],
    "act": [{"model", "posterior"}, set()],
    "bc": [{"encoder", "head"}, set()],
    "sac": [
        {"critic", "grasp", "encoder"},
        {"actor"},
        {"temperature"},
        {"target_critic", "target_grasp", "target_encoder"},
    ],
    "iql": [{"encoder", "critic", "value", "actor"}, {"target_critic"}],
    "td3bc": [{"encoder", "critic"}, {"actor"}, {"target_critic", "target_actor"}],
}

# those that act; the success classifier has tests of its own
pytestmark = pytest.mark.parametrize("name", [name for name, one in ALGORITHMS.items() if hasattr(one.agent, "act")])


@pytest.fixture(params=["eyes", "blind"])
def spec(request: pytest.FixtureRequest) -> RobotSpec:
    return request.getfixturevalue(request.param)


def vision(name: str, backbone: Any = "small", weights: str = "none", norm: Any = "auto") -> Any:
    if name in ("act", "sac", "iql", "td3bc"):
        return BackboneConfig(backbone, weights, norm)
    return VisionConfig(backbone=backbone, weights=weights, norm=norm, image_feature_dim=32)


@pytest.fixture
def make_agent(name: str, spec: RobotSpec, facts: RewardFacts) -> MakeAgent:
    def make(seed: int = 0, restore: bool = False, **settings: Any) -> Agent:
        torch.manual_seed(seed)
        config = ALGORITHMS[name].config(**{"vision": vision(name)} | OWN[name] | settings)
        agent = build_agent(name, config, spec, facts, restore)
        agent.prepare(torch.device("cpu"), bf16=False, compiled=False)
        return agent

    return make


def test_update_lowers_the_loss_on_one_repeated_batch(
    name: str, spec: RobotSpec, make_agent: MakeAgent, make_batch: MakeBatch
) -> None:
    agent = make_agent(random_shift=0)
    batch = make_batch(spec, agent.sampling)
    history = [agent.update(batch) for _ in range(80)]
    for loss in FALLING[name]:
        first, last = (torch.stack([metrics[loss] for metrics in part]).mean() for part in (history[:5], history[-5:]))
        assert last < 0.8 * first, loss


def test_same_seed_gives_the_same_numbers(
    name: str, spec: RobotSpec, make_agent: MakeAgent, make_batch: MakeBatch
) -> None:
    states = []
    for seed in (3, 3, 4):
        agent = make_agent(seed)
        for step in range(3):
            agent.update(make_batch(spec, agent.sampling, seed=step))
        states.append(tensors(agent.state_dict()))
    assert_same(states[0], states[1])
    assert any(not torch.equal(states[0][key], states[2][key]) for key in states[0])


def test_a_loaded_agent_acts_and_learns_like_the_saved_one(
    name: str, spec: RobotSpec, make_agent: MakeAgent, make_batch: MakeBatch, tmp_path: Path
) -> None:
    saved, loaded = make_agent(0), make_agent(1, restore=True)
    batch = make_batch(spec, saved.sampling)
    for _ in range(2):
        saved.update(batch)
    torch.save(saved.state_dict(), tmp_path / "state.pt")
    loaded.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    for mode in saved.modes:
        assert torch.equal(saved.act(batch.obs, mode), loaded.act(batch.obs, mode))
    metrics = []
    for agent in (saved, loaded):
        torch.manual_seed(7)
        metrics.append(agent.update(batch))
    assert_same(metrics[0], metrics[1])
    assert_same(tensors(saved.state_dict()), tensors(loaded.state_dict()))


def test_acting_networks_are_enough_to_act(
    name: str, spec: RobotSpec, make_agent: MakeAgent, make_batch: MakeBatch
) -> None:
    saved, loaded = make_agent(0), make_agent(1, restore=True)
    batch = make_batch(spec, saved.sampling)
    saved.update(batch)
    loaded.acting.load_state_dict(saved.acting.state_dict())
    for mode in saved.modes:
        assert torch.equal(saved.act(batch.obs, mode), loaded.act(batch.obs, mode))


def test_each_step_moves_the_written_networks_and_no_others(
    name: str,
    spec: RobotSpec,
    make_agent: MakeAgent,
    make_batch: MakeBatch,
    update_watched: Callable[[Agent, Batch], list[set[str]]],
) -> None:
    agent = make_agent()
    everything = list(agent.state_dict()["networks"])
    expected = [{tensor for tensor in everything if tensor.split(".")[0] in nets} for nets in MOVED[name]]
    for seed in range(3):
        assert update_watched(agent, make_batch(spec, agent.sampling, seed=seed)) == expected
    assert set().union(*expected) == set(everything)


def test_padded_actions_do_not_matter(name: str, spec: RobotSpec, make_agent: MakeAgent, make_batch: MakeBatch) -> None:
    agents = [make_agent(), make_agent()]
    batch = make_batch(spec, agents[0].sampling)
    if isinstance(agents[0].sampling, Transitions):  # its one action is always valid: pad behind it
        batch = replace(batch, action=batch.action.repeat(1, 3, 1), is_pad=torch.tensor([[False, True, True]] * 8))
    assert batch.is_pad.any()
    other = replace(batch, action=torch.where(batch.is_pad[..., None], 1e3, batch.action))
    assert_same(*(run_update(agent, b) for agent, b in zip(agents, (batch, other), strict=True)))


def test_padding_does_not_change_the_scale_of_the_loss(
    name: str, spec: RobotSpec, make_agent: MakeAgent, make_batch: MakeBatch
) -> None:
    agents = [make_agent(random_shift=0, **WITHOUT_DRAWS[name]) for _ in range(2)]
    batch = make_batch(spec, agents[0].sampling)
    first = replace(batch, action=batch.action[:, :1], is_pad=torch.zeros(8, 1, dtype=torch.bool))
    longer = replace(first, action=first.action.repeat(1, 3, 1), is_pad=torch.tensor([[False, True, True]] * 8))
    if not isinstance(agents[0].sampling, Transitions):  # a chunk has a fixed length: pad whole samples instead
        valid = replace(batch, is_pad=torch.zeros_like(batch.is_pad))
        first, longer = valid, twice(valid)
    alone, padded = (run_update(agent, b) for agent, b in zip(agents, (first, longer), strict=True))
    for loss in FALLING[name]:
        torch.testing.assert_close(alone[loss], padded[loss])


def test_terminated_steps_do_not_look_ahead_and_truncated_ones_do(
    name: str, spec: RobotSpec, make_agent: MakeAgent, make_batch: MakeBatch
) -> None:
    looks_ahead = isinstance(make_agent().sampling, Transitions)
    for discount, matters in ((0.0, False), (0.99, looks_ahead)):
        states = []
        for seed in (1, 2):
            agent = make_agent()
            batch = make_batch(spec, agent.sampling)
            elsewhere = make_batch(spec, Transitions(), seed=seed).obs
            batch = replace(batch, discount=torch.full((8,), discount))
            states.append(run_update(agent, replace(batch, next_obs=elsewhere)))
        same = all(torch.equal(states[0][key], states[1][key]) for key in states[0])
        assert same is not matters


def test_metrics_are_finite_scalars_with_the_same_names(
    name: str, spec: RobotSpec, make_agent: MakeAgent, make_batch: MakeBatch
) -> None:
    agent = make_agent()
    metrics = [agent.update(make_batch(spec, agent.sampling, size=size, seed=size)) for size in (8, 3, 1)]
    for one in metrics:
        assert list(one) == list(metrics[0])
        assert set(FALLING[name]) <= set(one)
        for value in one.values():
            assert value.shape == ()
            assert not value.requires_grad
            assert value.isfinite()


def test_every_mode_gives_one_chunk_and_leaves_the_random_numbers_alone(
    name: str, spec: RobotSpec, make_agent: MakeAgent, make_batch: MakeBatch
) -> None:
    agent = make_agent()
    batch = make_batch(spec, agent.sampling)
    random = torch.get_rng_state()
    for mode in agent.modes:
        action = agent.act(batch.obs, mode)
        assert action.shape == batch.action.shape
        assert action.dtype == torch.float32
        assert not action.requires_grad
        one = agent.act(Obs({n: x[2:3] for n, x in batch.obs.images.items()}, batch.obs.state[2:3]), mode)
        torch.testing.assert_close(one, action[2:3], rtol=1e-4, atol=1e-5)
    assert torch.equal(torch.get_rng_state(), random)
    assert torch.equal(agent.act(batch.obs), agent.act(batch.obs, agent.modes[0]))


def test_unknown_mode_is_refused(name: str, spec: RobotSpec, make_agent: MakeAgent, make_batch: MakeBatch) -> None:
    agent = make_agent()
    with pytest.raises(ConfigError, match=rf"{name}: mode 'best' does not exist here.*{agent.modes[0]}"):
        agent.act(make_batch(spec, agent.sampling).obs, "best")


def test_update_leaves_the_batch_as_it_was(
    name: str, spec: RobotSpec, make_agent: MakeAgent, make_batch: MakeBatch
) -> None:
    agent = make_agent()
    batch, copy = (make_batch(spec, agent.sampling) for _ in range(2))
    agent.update(batch)
    for field in ("action", "is_pad", "reward", "discount", "mc_return"):
        assert torch.equal(getattr(batch, field), getattr(copy, field))
    assert torch.equal(batch.obs.state, copy.obs.state)
    for camera in spec.camera_names:
        assert torch.equal(batch.obs.images[camera], copy.obs.images[camera])


def test_an_axis_that_never_moves_is_learnt_like_the_others(
    name: str, spec: RobotSpec, make_agent: MakeAgent, make_batch: MakeBatch
) -> None:
    agent = make_agent(random_shift=0)
    batch = make_batch(spec, agent.sampling)
    still = batch.action.clone()
    still[..., 1] = 0.0
    batch = replace(batch, action=still)
    begin = agent.act(batch.obs, agent.modes[-1])[..., 1].abs().mean()
    for _ in range(60):
        assert all(value.isfinite() for value in agent.update(batch).values())
    for mode in agent.modes:
        assert agent.act(batch.obs, mode).isfinite().all()
    assert agent.act(batch.obs, agent.modes[-1])[..., 1].abs().mean() < begin


def test_restoring_never_looks_for_weights(
    name: str, spec: RobotSpec, make_agent: MakeAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(*_: Any, **__: Any) -> None:
        pytest.fail("looked for weights")

    monkeypatch.setattr(ResNet18_Weights, "get_state_dict", forbidden)
    monkeypatch.setattr(torch, "load", forbidden)
    backbones: dict[str, Any] = {"auto": "resnet18", "imagenet": "resnet10", "nowhere.pt": "resnet10"}
    for weights, backbone in backbones.items():
        make_agent(restore=True, vision=vision(name, backbone, weights, "frozen"))


def test_frozen_norms_without_weights_are_refused(name: str, make_agent: MakeAgent) -> None:
    frozen = vision(name, "resnet10", norm="frozen")
    with pytest.raises(ConfigError, match="norm 'frozen' without pretrained weights normalises nothing"):
        make_agent(vision=frozen)


def test_unknown_algorithm_is_refused(name: str, spec: RobotSpec, facts: RewardFacts) -> None:
    with pytest.raises(ConfigError, match=f"algorithm 'best' is unknown; choose one of .*{name}"):
        build_agent("best", None, spec, facts)


def test_config_survives_the_agent(name: str, spec: RobotSpec, make_agent: MakeAgent) -> None:
    agent = make_agent()
    config = ALGORITHMS[name].config(**{"vision": vision(name)} | OWN[name])
    if spec.cameras:
        config = replace(config, vision=replace(config.vision, norm="group"))
    assert agent.config == config
    assert list(inspect.signature(ALGORITHMS[name].agent).parameters) == ["config", "spec", "facts"]


def run_update(agent: Agent, batch: Batch) -> dict[str, Tensor]:
    """The metrics of one update and all that the agent is afterwards, under fixed random numbers."""
    torch.manual_seed(11)
    return agent.update(batch) | tensors(agent.state_dict())


def twice(batch: Batch) -> Batch:
    """The batch and, behind it, the same samples wholly padded."""
    images = {name: torch.cat([x, x]) for name, x in batch.obs.images.items()}
    return Batch(
        obs=Obs(images, torch.cat([batch.obs.state] * 2)),
        action=torch.cat([batch.action] * 2),
        is_pad=torch.cat([batch.is_pad, torch.ones_like(batch.is_pad)]),
        reward=torch.cat([batch.reward] * 2),
        discount=torch.cat([batch.discount] * 2),
        mc_return=torch.cat([batch.mc_return] * 2),
    )


def tensors(tree: Any, prefix: str = "") -> dict[str, Tensor]:
    """The tensors of a nested state, by path, copied."""
    if isinstance(tree, Tensor):
        return {prefix: tree.clone()}
    if isinstance(tree, dict):
        return {k: v for key, value in tree.items() for k, v in tensors(value, f"{prefix}/{key}").items()}
    return {}


def assert_same(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    assert [key for key in one if not torch.equal(one[key], other[key])] == []
