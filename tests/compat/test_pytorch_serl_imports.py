"""The imports and snippets of the document on PyTorch SERL, and what its classes promise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pytorch_serl.agents.sac import SACAgent, SACHybridAgent
from pytorch_serl.data.replay_buffer import ReplayBuffer
from pytorch_serl.networks.actor_critic import Critic, GraspCritic, Policy
from pytorch_serl.networks.classifier import RewardClassifier
from pytorch_serl.networks.mlp import MLP
from pytorch_serl.networks.resnet import ResNetEncoder
from serl_transitions import SIZE, transitions, write

import lapwing
from lapwing.agents.sac import PRESETS
from lapwing.errors import CheckpointError, ConfigError, DataError, SpecError
from lapwing.nets.backbone import BackboneConfig

SMALL = {"vision": BackboneConfig("small"), "device": "cpu"}


@pytest.fixture(scope="module")
def learned() -> list[dict[str, Any]]:
    return transitions("toy-single-learned", 3)


@pytest.fixture(scope="module")
def fixed() -> list[dict[str, Any]]:
    return transitions("toy-single-fixed", 3)


def stacked(made: list[dict[str, Any]]) -> dict[str, Any]:
    """A batch as the document's format has it, each entry with a leading axis."""
    return {
        key: {name: np.stack([one[key][name] for one in made]) for name in made[0][key]}
        if isinstance(made[0][key], dict)
        else np.stack([one[key] for one in made])
        for key in made[0]
    }


def test_the_snippet_of_the_device(capsys: pytest.CaptureFixture[str]) -> None:
    from pytorch_serl.utils.device import DEVICE

    print(f"自动检测设备: {DEVICE}")  # cuda, mps, 或 cpu
    expected = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    assert capsys.readouterr().out == f"自动检测设备: {expected}\n"


def test_the_snippet_of_the_agents(fixed, learned) -> None:
    agent = SACAgent(image_keys=["image"], action_dim=6, lr=3e-4)
    assert agent.select_action(fixed[0]["observations"]).shape == (6,)
    assert agent.agent.target_entropy == -3

    agent = SACHybridAgent(image_keys=["image"], continuous_action_dim=6, grasp_action_dim=3, lr=3e-4)
    action = agent.select_action(learned[0]["observations"])
    assert action.shape == (7,)
    assert action[6] in (-1, 0, 1)
    assert agent.agent.target_entropy == -3.5
    assert agent.agent.config.lr == 3e-4
    assert agent.agent.config.discount == PRESETS["serl-notes"].discount == 0.95


def test_the_snippet_of_the_classifier(fixed, capsys: pytest.CaptureFixture[str]) -> None:
    obs = fixed[0]["observations"]
    classifier = RewardClassifier(image_keys=["image"])
    success_prob, is_success = classifier.predict_success(obs)
    assert 0 < success_prob < 1
    assert is_success is (success_prob >= 0.5)
    assert "RewardClassifier is untrained" in capsys.readouterr().err


def test_the_classifier_takes_a_time_axis_and_batches(fixed) -> None:
    classifier = RewardClassifier(threshold=0.7, **SMALL)
    images = np.stack([one["observations"]["image"] for one in fixed[:3]])
    probability, decision = classifier.predict_success({"image": images})
    assert probability.shape == decision.shape == (3,)
    one, _ = classifier.predict_success({"image": images[1:2]})
    assert one == pytest.approx(probability[1], abs=1e-5)
    with pytest.raises(SpecError, match="expected 'image' too"):
        classifier.predict_success({"front": images[0]})


def test_the_same_agent_learns_saves_and_loads(learned, tmp_path: Path) -> None:
    torch.manual_seed(0)
    agent = SACHybridAgent(**SMALL)
    batch = stacked(learned[:8])
    before = agent.select_action(learned[0]["observations"]).copy()
    first = agent.update(batch)
    assert {"critic_loss", "actor_loss", "grasp_loss", "temperature"} <= first.keys()
    assert not np.array_equal(agent.select_action(learned[0]["observations"]), before)
    agent.save(tmp_path / "model")
    agent.save(tmp_path / "model")  # in its own place

    other = SACHybridAgent(**SMALL)
    other.load(tmp_path / "model")
    policy = lapwing.load_policy(tmp_path / "model")
    obs = learned[3]["observations"]
    action = agent.select_action(obs)
    assert np.array_equal(other.select_action(obs), action)
    deployed = policy({"images": {"image": obs["image"]}, "state": obs["state"]})
    assert deployed == pytest.approx(action, abs=0.05)  # it computes in float32 where training may use bf16
    results = []
    for one in (agent, other):
        torch.manual_seed(1)
        results.append([one.update(batch) for _ in range(2)])
    assert results[0] == results[1]


def test_an_agent_of_another_make_does_not_load(learned, tmp_path: Path) -> None:
    agent = SACHybridAgent(**SMALL)
    with pytest.raises(ConfigError, match="no networks yet to save"):
        agent.save(tmp_path / "model")
    agent.select_action(learned[0]["observations"])
    agent.save(tmp_path / "model")
    with pytest.raises(CheckpointError, match="kinds of action axes"):
        SACAgent(action_dim=7, **SMALL).load(tmp_path / "model")
    with pytest.raises(CheckpointError, match=r"images \['image'\], expected \['wrist'\]"):
        SACHybridAgent(image_keys=["wrist"], **SMALL).load(tmp_path / "model")
    (tmp_path / "mine").mkdir()
    with pytest.raises(CheckpointError, match="is there and no checkpoint"):
        agent.save(tmp_path / "mine")


def test_two_grippers_choose_jointly() -> None:
    agent = SACHybridAgent(continuous_action_dim=12, grasp_action_dim=9, **SMALL)
    obs = {"image": np.zeros((SIZE, SIZE, 3), np.uint8)}
    action = agent.select_action(obs, deterministic=False)
    assert action.shape == (14,)
    assert set(action[[6, 13]]) <= {-1, 0, 1}
    assert agent.agent.grasps == [6, 13]
    with pytest.raises(ConfigError, match="grasp_action_dim is 4, expected 3 for one gripper"):
        SACHybridAgent(grasp_action_dim=4)
    with pytest.raises(ConfigError, match="as many axes of both arms"):
        SACHybridAgent(continuous_action_dim=7, grasp_action_dim=9)


def test_targets_are_clipped_where_the_returns_are_known(fixed) -> None:
    for returns, most in ((None, 100.0), ((0.0, 1.0), 1.0)):
        agent = SACAgent(returns=returns, **SMALL)
        batch = stacked(fixed[:4]) | {"rewards": np.full(4, 100.0), "masks": np.zeros(4)}
        agent.update(batch)
        ready = agent._batch(batch)
        target = agent.agent._target(ready, *[torch.zeros(4, agent.agent.encoder.feature_dim)] * 2)
        assert target.tolist() == [most] * 4


def test_masks_decide_and_dones_stand_in(fixed) -> None:
    agent = SACAgent(**SMALL)
    batch = stacked(fixed[:3]) | {"masks": np.array([1.0, 0.0, 1.0]), "dones": np.array([True, True, False])}
    agent.update(batch)
    assert agent._batch(batch).discount.tolist() == pytest.approx([0.95, 0, 0.95])
    del batch["masks"]
    assert agent._batch(batch).discount.tolist() == pytest.approx([0, 0, 0.95])
    del batch["dones"]
    with pytest.raises(DataError, match="neither 'masks' nor 'dones'"):
        agent.update(batch)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"actions": np.zeros((3, 7))}, "'actions' have 7 axes, expected 6"),
        ({"observations": {"front": np.zeros((3, SIZE, SIZE, 3), np.uint8)}}, "no image 'image', it has front"),
        ({"observations": {"image": np.zeros((3, SIZE, SIZE, 3))}}, "expected uint8 RGB"),
        ({"next_observations": None}, "a NoneType, expected a mapping"),
    ],
)
def test_a_batch_that_does_not_fit_is_explained(fixed, change: dict[str, Any], message: str) -> None:
    agent = SACAgent(**SMALL)
    agent.select_action(fixed[0]["observations"])
    with pytest.raises((DataError, SpecError), match=message):
        agent.update(stacked(fixed[:3]) | change)


def test_settings_that_one_step_cannot_serve_are_refused() -> None:
    for settings in ({"n_step": 3}, {"conservative": 1.0}):
        with pytest.raises(ConfigError, match="a batch of transitions tells one step"):
            SACAgent(**settings)


def test_the_buffer_gives_back_what_came_in(learned) -> None:
    buffer = ReplayBuffer(capacity=200_000, device="cpu")
    for transition in learned:
        buffer.insert(transition)
    assert len(buffer) == len(learned)
    batch = buffer.sample(64)
    key = {one["observations"]["image"].tobytes() + one["actions"].tobytes(): one for one in learned}
    for row in range(64):
        one = key[batch["observations"]["image"][row].numpy().tobytes() + batch["actions"][row].numpy().tobytes()]
        assert batch["rewards"][row] == one["rewards"]
        assert batch["masks"][row] == one["masks"]
        assert batch["dones"][row] == one["dones"]
        assert batch["grasp_penalty"][row] == pytest.approx(one["grasp_penalty"])
        assert np.array_equal(batch["observations"]["state"][row], one["observations"]["state"])
        if one["masks"]:
            assert np.array_equal(batch["next_observations"]["image"][row], one["next_observations"]["image"])
    metrics = SACHybridAgent(**SMALL).update(batch)
    assert np.isfinite(metrics["grasp_loss"])


def test_the_buffer_takes_time_axes_files_and_episodes_that_were_cut(learned, tmp_path: Path) -> None:
    whole = ReplayBuffer(device="cpu")
    whole.load(write(tmp_path / "demos.pkl", learned))
    assert len(whole) == len(learned)

    stacked_in_time = [
        one
        | {
            when: {name: value[None] for name, value in one[when].items()}
            for when in ("observations", "next_observations")
        }
        for one in learned
    ]
    buffer = ReplayBuffer(device="cpu")
    for transition in (learned[0] | {"dones": True, "masks": 1.0}, *stacked_in_time[1:3]):
        buffer.insert(transition)
    assert len(buffer) == 3
    assert learned[2]["masks"] == buffer.sample(32)["masks"].min() == 1
    with pytest.raises(DataError, match="no 'rewards'"):
        buffer.insert({key: value for key, value in learned[0].items() if key != "rewards"})
    with pytest.raises(DataError, match="replay buffer: empty"):
        ReplayBuffer().sample(4)


def test_networks() -> None:
    images = torch.randint(0, 256, (2, 48, 48, 3), dtype=torch.uint8)
    encoder = ResNetEncoder(image_size=48)
    feature = encoder(images)
    assert feature.shape == (2, 256)
    with pytest.raises(SpecError, match=r"expected uint8 \[B, 48, 48, 3\]"):
        encoder(images.float())
    policy = Policy(256, 6)(feature)
    action, log_prob = policy.sample()
    assert action.abs().max() <= 1
    assert log_prob.shape == (2,)
    assert Critic(256, 6)(feature, action).shape == (2, 2)
    assert Critic(256, 6, ensemble_size=10)(feature, action).shape == (10, 2)
    assert GraspCritic(256, 3)(feature).shape == (2, 3)
    assert GraspCritic(256, 9)(feature).shape == (2, 9)
    assert MLP(256, (32, 16))(feature).shape == (2, 16)
    assert MLP(256, (32,), 5)(feature).shape == (2, 5)
