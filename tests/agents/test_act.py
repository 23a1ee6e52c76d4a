"""ACT's losses, latents, options, and the decoder layer that actions are read from."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lapwing.agent import RewardFacts
from lapwing.agents.act import PRESETS, ActAgent, ActConfig, chunk_loss, draw_codes, kl_from_standard_normal
from lapwing.batch import Batch
from lapwing.errors import ConfigError
from lapwing.nets.action_transformer import TransformerConfig
from lapwing.nets.augment import AugmentConfig, centre
from lapwing.nets.backbone import BackboneConfig
from lapwing.spec import RobotSpec

MakeBatch = Callable[..., Batch]
SMALL = TransformerConfig(32, 2, 32, encoder_layers=1, decoder_layers=2, dropout=0.0)


@pytest.fixture
def make_agent(eyes: RobotSpec, facts: RewardFacts) -> Callable[..., ActAgent]:
    def make(spec: RobotSpec = eyes, transformer: dict[str, Any] | None = None, **settings: Any) -> ActAgent:
        torch.manual_seed(0)
        sizes = replace(SMALL, **(transformer or {}))
        plain = {"chunk": 4, "latent_dim": 3, "lr": 1e-3, "random_shift": 0, "vision": BackboneConfig("small", "none")}
        return ActAgent(ActConfig(**plain | {"transformer": sizes} | settings), spec, facts)

    return make


def test_losses_by_hand() -> None:
    predicted = torch.tensor([[[1.0, -2.0], [9.0, 9.0]], [[0.5, 0.0], [3.0, 0.0]]])
    is_pad = torch.tensor([[False, True], [False, False]])
    zero = torch.zeros(2, 2, 2)
    # errors of the valid steps: 1, 2 | 0.5, 0 | 3, 0
    assert chunk_loss(predicted, zero, is_pad, "l1", dilute=False).item() == pytest.approx(6.5 / 6)
    assert chunk_loss(predicted, zero, is_pad, "l1", dilute=True).item() == pytest.approx(6.5 / 8)
    assert chunk_loss(predicted, zero, is_pad, "l2", dilute=False).item() == pytest.approx(14.25 / 6)
    # smooth: x^2 / 2 below 1, |x| - 1/2 above
    smooth = (0.5 + 1.5 + 0.125 + 2.5) / 6
    assert chunk_loss(predicted, zero, is_pad, "smooth-l1", dilute=False).item() == pytest.approx(smooth)


def test_kl_by_hand() -> None:
    mean, log_var = torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([[0.0, 0.0], [math.log(4), 0.0]])
    # 1/2 | 1/2 (4 - 1 - log 4) + 2
    expected = (0.5 + 0.5 * (3 - math.log(4)) + 2) / 2
    assert kl_from_standard_normal(mean, log_var).item() == pytest.approx(expected)


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 4), st.integers(1, 5), st.integers(1, 3), st.sampled_from(["l1", "l2", "smooth-l1"]), st.data())
def test_padding_never_counts_in_the_valid_mean(batch: int, chunk: int, axes: int, loss: Any, data: Any) -> None:
    random = torch.Generator().manual_seed(data.draw(st.integers(0, 2**31)))
    predicted, action = (torch.randn(batch, chunk, axes, generator=random) for _ in range(2))
    is_pad = torch.rand(batch, chunk, generator=random) < 0.4
    is_pad[0, 0] = False
    everything = torch.zeros(1, int((~is_pad).sum()), dtype=torch.bool)
    flat = chunk_loss(predicted[~is_pad][None], action[~is_pad][None], everything, loss, False)
    torch.testing.assert_close(chunk_loss(predicted, action, is_pad, loss, False), flat)
    share = (~is_pad).float().mean()
    torch.testing.assert_close(chunk_loss(predicted, action, is_pad, loss, True), flat * share)


def test_the_last_action_is_held_where_padding_repeats_it(
    make_agent: Callable[..., ActAgent], make_batch: MakeBatch, blind: RobotSpec
) -> None:
    """Recordings that end when the gripper has closed: what comes after is still to keep it closed."""
    batch = make_batch(blind, make_agent(blind).sampling)
    opened, closed = torch.ones_like(batch.action), -torch.ones_like(batch.action)
    closes_at = torch.arange(8)[:, None] % 4
    steps = torch.arange(4)
    action = torch.where((steps >= closes_at)[..., None], closed, opened)
    obs = replace(batch.obs, state=torch.zeros_like(batch.obs.state))
    batch = replace(batch, obs=obs, action=action, is_pad=steps > closes_at)
    last = {}
    for padding in ("ignore", "repeat"):
        agent = make_agent(blind, padding=padding, kl_weight=100.0)
        for _ in range(300):
            agent.update(batch)
        last[padding] = agent.act(obs)[0, 2].mean()
    assert last["repeat"] < -0.8  # three of four have closed by then
    assert last["ignore"] > -0.8  # among those that go on, one has closed and one has not


def test_a_repeated_last_action_is_reconstructed_as_it_was_learned(
    make_agent: Callable[..., ActAgent], make_batch: MakeBatch, blind: RobotSpec
) -> None:
    """The posterior sees the repeated actions in training, and the same when its chunks are brought back."""
    for padding in ("ignore", "repeat"):
        agent = make_agent(blind, padding=padding)
        batch = make_batch(blind, agent.sampling)
        whole = replace(batch, is_pad=torch.zeros_like(batch.is_pad))
        brought_back = [agent.reconstruct(one) for one in (batch, whole)]
        assert brought_back[0] is not None
        assert brought_back[1] is not None
        assert torch.equal(*brought_back) is (padding == "repeat")


def test_codes_are_drawn_as_often_as_they_are_likely() -> None:
    torch.manual_seed(0)
    logits = torch.tensor([0.1, 0.2, 0.7]).log().expand(4000, 1, 3)
    codes, probabilities = draw_codes(logits)
    assert torch.equal(codes.sum(-1), torch.ones(4000, 1))
    torch.testing.assert_close(codes.mean(0), probabilities[0], atol=0.03, rtol=0)


@pytest.mark.parametrize("latent", ["gaussian", "vq", "none"])
@pytest.mark.parametrize("loss", ["l1", "l2", "smooth-l1"])
def test_every_latent_learns_with_every_loss(
    make_agent: Callable[..., ActAgent], make_batch: MakeBatch, eyes: RobotSpec, latent: str, loss: str
) -> None:
    agent = make_agent(latent=latent, loss=loss, vq_classes=2, vq_size=3)
    batch = make_batch(eyes, agent.sampling)
    losses = [agent.update(batch)["reconstruction_loss"] for _ in range(60)]
    assert torch.stack(losses[-5:]).mean() < 0.8 * torch.stack(losses[:5]).mean()
    assert agent.act(batch.obs).shape == batch.action.shape
    assert (agent.reconstruct(batch) is None) is (latent == "none")


@pytest.mark.parametrize("latent", ["gaussian", "vq"])
def test_the_latent_tells_the_chunks_of_one_observation_apart(
    make_agent: Callable[..., ActAgent], make_batch: MakeBatch, blind: RobotSpec, latent: str
) -> None:
    """Two equally likely answers: through the latent both come back, without it only their middle."""
    agent = make_agent(blind, latent=latent, kl_weight=1e-3, loss="l2", vq_classes=1, vq_size=2)
    batch = make_batch(blind, agent.sampling)
    action = torch.ones_like(batch.action) * (torch.arange(8) % 2 * 2 - 1)[:, None, None]
    obs = replace(batch.obs, state=torch.zeros_like(batch.obs.state))
    batch = replace(batch, obs=obs, action=action, is_pad=torch.zeros_like(batch.is_pad))
    for _ in range(300):
        agent.update(batch)
    reconstructed = agent.reconstruct(batch)
    assert reconstructed is not None
    assert (reconstructed - action).abs().mean() < 0.2
    assert (agent.act(batch.obs) - action).abs().mean() > 0.8


def test_the_first_decoder_layer_answers_in_the_original(
    make_agent: Callable[..., ActAgent], make_batch: MakeBatch, eyes: RobotSpec
) -> None:
    last, first = make_agent(), make_agent(transformer={"decoder_output": "first"})
    assert (len(last.model.decoder.layers), len(first.model.decoder.layers)) == (2, 1)
    kept = {name: value for name, value in last.model.state_dict().items() if "decoder.layers.1" not in name}
    first.model.load_state_dict(kept)
    batch = make_batch(eyes, last.sampling)
    assert not torch.equal(last.act(batch.obs), first.act(batch.obs))
    last.model.decoder.layers = last.model.decoder.layers[:1]
    assert torch.equal(last.act(batch.obs), first.act(batch.obs))


def test_an_average_of_the_weights_acts_and_is_saved(
    make_agent: Callable[..., ActAgent], make_batch: MakeBatch, blind: RobotSpec
) -> None:
    agent = make_agent(blind, ema_decay=0.9)
    batch = make_batch(blind, agent.sampling)
    slow = agent.model.action.bias.detach().clone()
    for _ in range(3):
        agent.update(batch)
        slow = 0.9 * slow + 0.1 * agent.model.action.bias.detach()
    torch.testing.assert_close(agent.acting.state_dict()["model.action.bias"], slow)
    assert not torch.equal(
        agent.acting["model"](batch.obs, torch.zeros(8, 3)), agent.model(batch.obs, torch.zeros(8, 3))
    )
    torch.testing.assert_close(agent.act(batch.obs), agent.acting["model"](batch.obs, torch.zeros(8, 3)))


def test_the_backbone_has_a_learning_rate_of_its_own(make_agent: Callable[..., ActAgent]) -> None:
    rates = {setting: make_agent(backbone_lr=setting).optimizer.param_groups for setting in (None, 1e-5, 0.0)}
    assert [group["lr"] for group in rates[None]] == [1e-3, 1e-3]  # not pretrained: nothing to spare
    assert [group["lr"] for group in rates[1e-5]] == [1e-3, 1e-5]
    assert [group["lr"] for group in rates[0.0]] == [1e-3]  # frozen
    count = sum(p.numel() for group in rates[1e-5] for p in group["params"])
    agent = make_agent()
    assert count == sum(p.numel() for p in agent.networks.parameters())


def test_a_frozen_backbone_does_not_move(
    make_agent: Callable[..., ActAgent], make_batch: MakeBatch, eyes: RobotSpec
) -> None:
    agent = make_agent(backbone_lr=0.0)
    before = {name: value.clone() for name, value in agent.model.maps.state_dict().items()}
    agent.update(make_batch(eyes, agent.sampling))
    assert all(torch.equal(value, before[name]) for name, value in agent.model.maps.state_dict().items())


@pytest.mark.parametrize(
    "option",
    [{"image_positions": "learned"}, {"camera_embedding": False}, {"pre_norm": False}, {"position_values": False}],
)
def test_options_of_the_transformer_learn(
    make_agent: Callable[..., ActAgent], make_batch: MakeBatch, eyes: RobotSpec, option: dict[str, Any]
) -> None:
    agent = make_agent(transformer=option, share_backbone=False)
    batch = make_batch(eyes, agent.sampling)
    losses = [agent.update(batch)["reconstruction_loss"] for _ in range(40)]
    assert losses[-1] < losses[0]


def test_cameras_are_told_apart_by_their_embedding_alone(
    make_agent: Callable[..., ActAgent], make_batch: MakeBatch, eyes: RobotSpec
) -> None:
    """The same frames under swapped names look the same to the original's shared backbone, and not to ours."""
    for embedding in (False, True):
        agent = make_agent(transformer={"camera_embedding": embedding})
        obs = make_batch(eyes, agent.sampling).obs
        names = list(obs.images)
        swapped = replace(obs, images=dict(zip(names, reversed(obs.images.values()), strict=True)))
        same = torch.allclose(agent.act(obs), agent.act(swapped), atol=1e-5)
        assert same is not embedding


def test_augmentation_is_for_training_and_its_centre_for_acting(
    make_agent: Callable[..., ActAgent], make_batch: MakeBatch, eyes: RobotSpec
) -> None:
    notes = AugmentConfig("notes")
    plain, varied = make_agent(), make_agent(augmentation=notes)
    batch = make_batch(eyes, plain.sampling)
    assert not torch.equal(plain.act(batch.obs), varied.act(batch.obs))
    assert torch.equal(varied.act(batch.obs), varied.act(batch.obs))
    assert torch.equal(varied.act(batch.obs), plain.act(centre(batch.obs, notes)))
    losses = []
    for seed in (1, 1, 2):
        agent = make_agent(augmentation=notes, latent="none")  # which draws nothing else
        torch.manual_seed(seed)
        losses.append(agent.update(batch)["reconstruction_loss"].item())
    assert losses[0] == losses[1] != losses[2]


def test_the_prior_learns_from_the_images_that_the_policy_learns_from(
    make_agent: Callable[..., ActAgent], make_batch: MakeBatch, eyes: RobotSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = make_agent(latent="vq", augmentation=AugmentConfig("notes"))
    seen = []
    see = agent.model.see
    monkeypatch.setattr(agent.model, "see", lambda obs: seen.append(obs) or see(obs))
    agent.update(make_batch(eyes, agent.sampling))
    first, second = seen
    assert all(torch.equal(first.images[name], second.images[name]) for name in eyes.camera_names)


def test_presets_say_what_the_original_does() -> None:
    original = PRESETS["original"]
    assert (original.chunk, original.draw_by_episode, original.random_shift) == (100, True, 0)
    assert (original.transformer.decoder_output, original.padding, original.grad_clip) == ("first", "dilute", 0)
    assert (original.lr, original.backbone_lr, original.kl_weight, original.std_floor) == (1e-5, 1e-5, 10, 1e-2)
    assert (PRESETS["cobot-magic"].chunk, PRESETS["cobot-magic"].share_backbone) == (32, False)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"chunk": 0}, "act: chunk is 0, expected a positive number"),
        ({"chunk": 1_000_000}, "act: chunk is 1000000, expected at most 10000 steps"),
        ({"lr": math.nan}, "act: lr is nan, expected a positive number"),
        ({"kl_weight": -1.0}, "act: kl_weight is -1.0, expected 0 or more"),
        ({"ema_decay": 1.0}, "act: ema_decay is 1.0, expected 0 or more and below 1"),
        ({"transformer": {"width": 30}}, "act: width is 30, expected a multiple of 4 and of the 2 heads"),
        ({"transformer": {"dropout": 1.0}}, "act: dropout is 1.0, expected 0 or more and below 1"),
        ({"transformer": {"patch": 0}}, "act: patch is 0, expected at least 1"),
    ],
)
def test_bad_settings_are_named(make_agent: Callable[..., ActAgent], setting: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_agent(**setting)
