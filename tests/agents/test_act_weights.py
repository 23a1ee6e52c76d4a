"""Published ACT weights do here what they do at home."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from reference_act import DetrVae, Layout, Policy, lerobot_names
from torch import Tensor

from lapwing.agent import RewardFacts
from lapwing.agents.act import ActAgent
from lapwing.agents.act_weights import load_published, published_settings, published_sizes
from lapwing.batch import Batch, Obs
from lapwing.errors import CheckpointError
from lapwing.spec import Camera, RobotSpec, unnamed_axes

LAYOUTS: tuple[Layout, ...] = ("act", "act-plus-plus", "cobot-magic", "lerobot")
CAMERAS = ("cam_high", "cam_left_wrist")
SPEC = RobotSpec(
    "arm", tuple(Camera(name, 40, 72) for name in CAMERAS), unnamed_axes("state", 5), unnamed_axes("action", 3)
)
Published = tuple[Policy, dict[str, Tensor]]
Publish = Callable[..., Published]


@pytest.fixture
def publish() -> Publish:
    """publish("act", **sizes): a policy as another project has it, and the state dict it would have stored."""

    def make(layout: Layout, **sizes: Any) -> Published:
        torch.manual_seed(3)
        policy = Policy(DetrVae("act" if layout == "lerobot" else layout, **sizes)).eval()
        return policy, lerobot_names(policy) if layout == "lerobot" else dict(policy.state_dict())

    return make


def imported(state: dict[str, Tensor], spec: RobotSpec = SPEC, **changes: Any) -> tuple[ActAgent, tuple[str, ...]]:
    """The agent with these weights, without dropout, and what was left out."""
    config = published_settings(state, heads=2, **changes)
    config = replace(config, transformer=replace(config.transformer, dropout=0.0))
    agent = ActAgent(config, spec, RewardFacts((0.0, 0.0), (0.0, 0.0)))
    notes = load_published(agent, state)
    agent.prepare(torch.device("cpu"), bf16=False, compiled=False)
    return agent, notes


@pytest.fixture
def batch() -> Batch:
    random = torch.Generator().manual_seed(5)
    images = {name: torch.randint(0, 256, (3, 40, 72, 3), generator=random).to(torch.uint8) for name in CAMERAS}
    is_pad = torch.arange(4) > torch.tensor([[3], [1], [0]])
    action, zero = torch.randn(3, 4, 3, generator=random), torch.zeros(3)
    return Batch(Obs(images, torch.randn(3, 5, generator=random)), action, is_pad, zero, zero, zero, None)


def stacked(batch: Batch) -> Tensor:
    return torch.stack([batch.obs.images[name] for name in CAMERAS], 1)


def close(got: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_actions_are_those_of_the_published_policy(publish: Publish, batch: Batch, layout: Layout) -> None:
    policy, state = publish(layout)
    agent, _ = imported(state)
    with torch.no_grad():
        said = policy(batch.obs.state, stacked(batch))
    assert (said[0] - said[-1]).abs().max() > 0.1
    close(agent.act(batch.obs), said[-1 if layout == "lerobot" else 0])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_last_decoder_layer_can_be_asked_for(publish: Publish, batch: Batch, layout: Layout) -> None:
    policy, state = publish(layout)
    agent, _ = imported(state, decoder_output="last")
    with torch.no_grad():
        close(agent.act(batch.obs), policy(batch.obs.state, stacked(batch))[-1])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_chunk_encoder_is_that_of_the_published_policy(publish: Publish, batch: Batch, layout: Layout) -> None:
    policy, state = publish(layout)
    agent, _ = imported(state)
    with torch.no_grad():
        mean, log_var = policy.model.posterior(batch.obs.state, batch.action, batch.is_pad)
        got = agent.networks["posterior"](batch.obs.state, batch.action, batch.is_pad)
    close(got, torch.cat([mean, log_var], 1))


@pytest.mark.parametrize("layout", LAYOUTS[:3])
def test_training_goes_on_with_the_original_loss(publish: Publish, batch: Batch, layout: Layout) -> None:
    policy, state = publish(layout)
    agent, _ = imported(state)
    torch.manual_seed(11)
    noise = torch.randn(3, 6)
    with torch.no_grad():
        l1, kl = policy.losses(batch.obs.state, stacked(batch), batch.action, batch.is_pad, noise)
    torch.manual_seed(11)
    metrics = agent.update(batch)
    close(metrics["reconstruction_loss"], l1)
    close(metrics["kl_loss"], kl)
    assert agent.config.kl_weight == 10


def test_layers_that_norm_first_are_represented(publish: Publish, batch: Batch) -> None:
    policy, state = publish("act", pre_norm=True)
    agent, _ = imported(state, decoder_output="last")
    assert agent.config.transformer.pre_norm
    with torch.no_grad():
        close(agent.act(batch.obs), policy(batch.obs.state, stacked(batch))[-1])


@pytest.mark.parametrize("layout", ["act-plus-plus", "cobot-magic", "lerobot"])
def test_a_policy_without_a_cvae_is_represented(publish: Publish, batch: Batch, layout: Layout) -> None:
    policy, state = publish(layout, cvae=False)
    if layout == "act-plus-plus":  # keeps what surrounds the encoder
        state |= {"model.latent_proj.weight": torch.zeros(12, 32), "model.encoder_joint_proj.bias": torch.zeros(32)}
    agent, notes = imported(state)
    assert agent.config.latent == "none"
    surroundings = {"act-plus-plus": 3, "cobot-magic": 1, "lerobot": 1}[layout]
    assert f"{surroundings} tensors around a CVAE encoder that is not there" in notes
    with torch.no_grad():
        close(agent.act(batch.obs), policy(batch.obs.state, stacked(batch))[-1 if layout == "lerobot" else 0])


def test_sizes_are_read_off_the_tensors(publish: Publish) -> None:
    sizes = {"state": 16, "action": 14, "chunk": 7, "width": 48, "feedforward": 40, "latent": 9}
    _, state = publish("act-plus-plus", cameras=3, encoder_layers=3, decoder_layers=5, **sizes)
    config = published_settings(state)
    transformer = config.transformer
    assert (config.chunk, config.latent_dim, config.latent, config.share_backbone) == (7, 9, "gaussian", False)
    assert (transformer.width, transformer.heads, transformer.feedforward) == (48, 8, 40)
    assert (transformer.encoder_layers, transformer.decoder_layers, transformer.pre_norm) == (3, 5, False)
    assert (transformer.decoder_output, transformer.camera_embedding) == ("first", False)
    found = published_sizes(state)
    assert (found.state, found.action, found.cameras) == (16, 14, 3)
    assert published_sizes(publish("act")[1]).cameras is None


def test_what_is_left_out_is_said(publish: Publish) -> None:
    _, state = publish("act")
    per_layer = sum(name.startswith("model.transformer.decoder.layers.0.") for name in state)
    assert imported(state)[1] == (
        f"{2 * per_layer} tensors of decoder layers after the first, whose output was never read",
        "2 tensors of the head that predicts padding, which no loss ever trained",
    )
    assert imported(publish("lerobot")[1])[1] == ()


QUERY = "model.query_embed.weight"
Change = Callable[[dict[str, Tensor]], Any]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop(QUERY), "holds 2.. tensors, the first .* and no 'model.query_embed.weight'; expected the"),
        (lambda s: s.pop("model.action_head.weight"), "'model.action_head.weight' is missing"),
        (lambda s: s.pop("model.input_proj.bias"), r"the first is 'model.input_proj.bias', expected shape \[32\]"),
        (lambda s: s.pop("model.backbones.0.0.body.bn1.bias"), "'model.backbones.0.0.body.bn1.bias', expected"),
        (lambda s: s.update({"model.more.weight": s[QUERY]}), "'model.more.weight' is no tensor of ACT"),
        (
            lambda s: s.update({"model.backbones.0.0.body.fc.weight": torch.ones(2, 2)}),
            "'model.backbones.0.0.body.fc.weight' has no place",
        ),
        (lambda s: s.update({"model.query_embed.bias": s[QUERY]}), "'model.query_embed.bias' has no place"),
        (
            lambda s: s.update({"model.input_proj.weight": torch.ones(32, 768, 1, 1)}),
            r"'model.input_proj.weight' has shape \[32, 768, 1, 1\], expected \[32, 512, 1, 1\]",
        ),
        (lambda s: s["model.pos_table"].add_(1), "the fixed positions have shape .* or other values"),
        (
            lambda s: s.update({"model.latent_proj.weight": torch.ones(6, 32)}),
            r"'model.latent_proj.weight' has 6 rows, expected 12: this is a discrete \(VQ\) latent",
        ),
        (
            lambda s: s.update({"model.depth_backbones.0.conv1.weight": s[QUERY]}),
            "'model.depth_backbones.0.conv1.weight' belongs to a backbone for depth images",
        ),
        (
            lambda s: s.update({"model.backbones.0.1.row_embed.weight": s[QUERY]}),
            "belongs to learned image positions, with which the original cannot run",
        ),
        (
            lambda s: s.update({"model.encoder.layers.2.norm1.bias": torch.ones(32)}),
            "the encoder has 2 layers and the CVAE's 3",
        ),
    ],
)
def test_what_does_not_fit_is_named(publish: Publish, change: Change, message: str) -> None:
    _, state = publish("act")
    change(state)
    with pytest.raises(CheckpointError, match=message):
        imported(state)


def test_another_robot_is_refused_and_the_agent_left_alone(publish: Publish) -> None:
    _, state = publish("act-plus-plus")
    agent, _ = imported(state)
    before = {name: tensor.clone() for name, tensor in agent.networks.state_dict().items()}
    _, longer = publish("act-plus-plus", state=7)
    with pytest.raises(CheckpointError, match=r"weight' has shape \[32, 7\], expected \[32, 5\]"):
        load_published(agent, longer)
    assert all(torch.equal(tensor, before[name]) for name, tensor in agent.networks.state_dict().items())
    third = replace(SPEC, cameras=(*SPEC.cameras, Camera("cam_low", 40, 72)))
    with pytest.raises(CheckpointError, match=r"the first is 'model.backbones.2.0.body.conv1.weight'"):
        imported(state, third)


@pytest.mark.parametrize("name", ["model.encoder_env_state_input_proj.weight", "model.audio_backbone.conv1.weight"])
def test_inputs_of_lerobot_without_a_counterpart_are_refused(publish: Publish, name: str) -> None:
    _, state = publish("lerobot")
    with pytest.raises(CheckpointError, match=f"{name!r} belongs to"):
        imported(state | {name: torch.zeros(1)})
