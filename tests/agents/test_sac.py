"""SAC's losses, set-ups, schedule and settings, against numbers worked out by hand."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, ResNet

from lapwing.agent import Agent, RewardFacts, Transitions
from lapwing.agents.sac import PRESETS, SacAgent, SacConfig, conservative_loss, critic_loss, masked_mean
from lapwing.batch import Batch, Obs
from lapwing.errors import ConfigError
from lapwing.gripper import setup_mode
from lapwing.nets.backbone import BackboneConfig
from lapwing.spec import Axis, Camera, RobotSpec, unnamed_axes

MakeBatch = Callable[..., Batch]
SMALL: dict[str, Any] = {"hidden": (16, 16), "random_shift": 2, "vision": BackboneConfig("small", "none")}
FACTS = RewardFacts((0.0, 1.0), (0.0, 1.0))
ARM = ("x", "y", "z", "roll", "pitch", "yaw")
LOG_DENSITY = -math.log(2 * math.pi)  # of two standard normal axes at 0, where tanh is as steep as a line


def robot(arms: int, learned: bool, cameras: bool = False) -> RobotSpec:
    """HIL-SERL's layout: six axes of an arm, then its gripper where that is learned."""
    names = [*ARM, *(("gripper",) if learned else ())]
    sides = ("",) if arms == 1 else ("left_", "right_")
    action = tuple(
        Axis(side + name, kind="gripper" if name == "gripper" else "arm") for side in sides for name in names
    )
    views = (Camera("front", 32, 32), Camera("wrist", 32, 32)) if cameras else ()
    return RobotSpec("robot", views, unnamed_axes("state", 5), action)


MODES = {
    "single-arm-fixed-gripper": robot(1, False),
    "single-arm-learned-gripper": robot(1, True),
    "dual-arm-fixed-gripper": robot(2, False),
    "dual-arm-learned-gripper": robot(2, True),
}
HAND = RobotSpec("hand", (), unnamed_axes("state", 3), (*unnamed_axes("action", 2), Axis("grip", kind="gripper")))


def make_agent(spec: RobotSpec = HAND, facts: RewardFacts = FACTS, seed: int = 0, **settings: Any) -> SacAgent:
    torch.manual_seed(seed)
    agent = SacAgent(SacConfig(**SMALL | settings), spec, facts)
    agent.prepare(torch.device("cpu"), bf16=False, compiled=False)
    return agent


@torch.no_grad()
def by_hand(agent: SacAgent, q: tuple[float, float], slow_q: tuple[float, float], mean: float = 0.0) -> SacAgent:
    """Critics that say `q` and slow ones that say `slow_q` of everything; a policy of this mean and deviation 1."""
    for name, said in (("critic", q), ("target_critic", slow_q)):
        agent.networks[name].weights[-1].zero_()
        agent.networks[name].biases[-1].copy_(torch.tensor(said).reshape(2, 1, 1))
    head = agent.actor[-1]
    for layer, bias in ((head.mean, mean), (head.log_std, 0.0)):
        layer.weight.zero_()
        layer.bias.fill_(bias)
    return agent


@torch.no_grad()
def grasps_by_hand(agent: SacAgent, online: list[float], slow: list[float]) -> SacAgent:
    """Grasp critics that say the same of every observation."""
    for name, said in (("grasp", online), ("target_grasp", slow)):
        agent.networks[name].net[-1].weight.zero_()
        agent.networks[name].net[-1].bias.copy_(torch.tensor(said))
    return agent


@pytest.fixture
def no_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    """Policies draw their mode."""
    monkeypatch.setattr(torch, "randn_like", torch.zeros_like)


@pytest.fixture
def pair() -> Batch:
    """Two transitions of HAND: nothing earned and on it goes; 1 earned and the end."""
    obs = Obs({}, torch.tensor([[0.1, -0.2, 0.3], [0.5, 0.4, -0.6]]))
    return Batch(
        obs=obs,
        action=torch.tensor([[[0.2, -0.4, -1.0]], [[0.6, 0.0, 1.0]]]),
        is_pad=torch.zeros(2, 1, dtype=torch.bool),
        reward=torch.tensor([0.0, 1.0]),
        discount=torch.tensor([0.9, 0.0]),
        mc_return=torch.tensor([0.9, 1.0]),
        next_obs=Obs({}, obs.state.flip(0)),
    )


def target(agent: SacAgent, batch: Batch) -> list[float]:
    assert batch.next_obs is not None
    return agent._target(batch, batch.next_obs.state, batch.next_obs.state).tolist()


def test_critic_loss_by_hand() -> None:
    q = torch.tensor([[1.0, 2.0], [0.0, 4.0]])
    # (1 - 1)^2, (2 - 3)^2, (0 - 1)^2, (4 - 3)^2 over four
    assert critic_loss(q, torch.tensor([1.0, 3.0])).item() == pytest.approx(3 / 4)


def test_target_by_hand_is_of_the_lower_slow_critic_and_ends_with_the_task(pair: Batch) -> None:
    agent = by_hand(make_agent(), q=(9.0, 9.0), slow_q=(0.8, 0.5))
    assert target(agent, pair) == pytest.approx([0.9 * 0.5, 1.0])


@pytest.mark.parametrize(("slow_q", "clipped"), [((7.0, 8.0), 1.0), ((-2.0, 3.0), 0.0)])
def test_targets_are_clipped_to_the_returns_where_asked(
    pair: Batch, slow_q: tuple[float, float], clipped: float
) -> None:
    assert target(by_hand(make_agent(), (0, 0), slow_q), pair) == [clipped, 1.0]
    free = by_hand(make_agent(clip_targets=False), (0, 0), slow_q)
    assert target(free, pair) == pytest.approx([0.9 * min(slow_q), 1.0])


@pytest.mark.usefixtures("no_noise")
def test_entropy_in_the_target_is_discounted_and_ends_with_the_task(pair: Batch) -> None:
    agent = make_agent(backup_entropy=True, temperature=0.25, clip_targets=False)
    by_hand(agent, (0, 0), slow_q=(0.5, 0.8))
    assert target(agent, pair) == pytest.approx([0.9 * (0.5 - 0.25 * LOG_DENSITY), 1.0])


def test_as_many_critics_as_asked_are_drawn_for_a_target(pair: Batch) -> None:
    one, both = (by_hand(make_agent(target_critics=count), (0, 0), (0.5, 0.8)) for count in (1, 2))
    drawn = [target(one, pair)[0] for _ in range(40)]
    assert sorted(set(drawn)) == pytest.approx([0.9 * 0.5, 0.9 * 0.8])
    assert {target(both, pair)[0] for _ in range(40)} == {target(make_like(both), pair)[0]}


def make_like(agent: SacAgent) -> SacAgent:
    """The same networks, with all critics in every target."""
    other = make_agent()
    other.load_state_dict(agent.state_dict())
    return other


@pytest.mark.usefixtures("no_noise")
def test_critics_are_taught_what_they_were_asked(pair: Batch) -> None:
    agent = by_hand(make_agent(), q=(0.0, 0.4), slow_q=(0.5, 0.8))
    grasps_by_hand(agent, [0.3, 0.1, 0.2], [0.5, 9.0, 9.0])
    metrics = agent.update(pair)
    # targets 0.45 and 1
    expected = (0.45**2 + 1 + 0.05**2 + 0.6**2) / 4
    assert metrics["critic_loss"].item() == pytest.approx(expected)
    assert [metrics[name].item() for name in ("q_mean", "q_min", "q_max")] == pytest.approx([0.2, 0.0, 0.4])


def test_grasp_losses_by_hand(pair: Batch) -> None:
    agent = grasps_by_hand(make_agent(grasp_imitation=2.0), [0.3, 0.1, 0.2], [0.5, 9.0, 9.0])
    batch = replace(pair, grasp_penalty=torch.tensor([-0.05, 0.0]))
    state = batch.obs.state
    loss, metrics = agent._grasp_loss(batch, state, state, state)
    # taken: 0 and 2; targets -0.05 + 0.9 * 0.5 (the choice is the online critic's) and 1
    assert metrics["grasp_loss"].item() == pytest.approx(((0.3 - 0.4) ** 2 + (0.2 - 1.0) ** 2) / 2)
    total = sum(math.exp(q) for q in (0.3, 0.1, 0.2))
    entropy = (math.log(total / math.exp(0.3)) + math.log(total / math.exp(0.2))) / 2
    assert metrics["grasp_imitation_loss"].item() == pytest.approx(entropy)
    assert loss.item() == pytest.approx(metrics["grasp_loss"].item() + 2 * entropy)
    assert metrics["grasp_accuracy"].item() == 0.5


@pytest.mark.parametrize(
    ("slow", "clip", "first"),
    [(7.0, True, 1.0), (7.0, False, 6.25), (-3.0, True, -2.75)],
    ids=["above", "unclipped", "penalties may lead below"],
)
def test_grasp_targets_are_clipped_from_above(pair: Batch, slow: float, clip: bool, first: float) -> None:
    agent = grasps_by_hand(make_agent(clip_targets=clip, grasp_imitation=0.0), [0.0, 0.0, 0.0], [slow] * 3)
    batch = replace(pair, grasp_penalty=torch.tensor([-0.05, 0.0]))
    state = batch.obs.state
    loss, metrics = agent._grasp_loss(batch, state, state, state)
    assert loss.item() == pytest.approx((first**2 + 1) / 2)
    assert sorted(metrics) == ["grasp_accuracy", "grasp_loss"]


def test_conservative_loss_by_hand() -> None:
    log_weighted = torch.tensor([[[0.0], [math.log(3)]]])
    assert conservative_loss(log_weighted, torch.tensor([[0.5]])).item() == pytest.approx(math.log(2) - 0.5)


def conservative(agent: SacAgent, batch: Batch) -> Tensor:
    assert batch.next_obs is not None
    q = agent.q(batch.obs.state, batch.action[:, 0, agent.moves])
    return agent._conservative(batch, batch.obs.state, batch.next_obs.state, q)


@pytest.mark.usefixtures("no_noise")
def test_cal_ql_by_hand(pair: Batch) -> None:
    agent = by_hand(make_agent(conservative=1.0, conservative_actions=3), q=(0.2, 0.95), slow_q=(0, 0))
    expected = 0.0
    for q in (0.2, 0.95):
        for earned in (0.9, 1.0):  # policies' actions count at least as much as was earned, random ones do not
            draws = [math.exp(q) * 4] + 2 * [math.exp(max(q, earned) - LOG_DENSITY)]  # density 1/4 of random ones
            expected += (math.log(sum(draws) / 3) - q) / 4
    assert conservative(agent, pair).item() == pytest.approx(expected)


def test_cal_ql_asks_the_policy_here_and_at_the_next_observation(pair: Batch, monkeypatch: pytest.MonkeyPatch) -> None:
    agent, asked = make_agent(conservative=1.0, conservative_actions=3), []
    monkeypatch.setattr(agent.actor[0], "forward", noting(agent.actor[0], asked))
    conservative(agent, pair)
    assert pair.next_obs is not None
    assert [one.tolist() for one in asked] == [[one.state.tolist()] * 3 for one in (pair.obs, pair.next_obs)]


def test_cal_ql_teaches_the_critics_and_not_the_actor(pair: Batch) -> None:
    agent = make_agent(conservative=1.0)
    gap = conservative(agent, pair)
    learning = list(agent.critic.parameters())
    assert all(one is not None for one in torch.autograd.grad(gap, learning, retain_graph=True))
    others = [*agent.actor.parameters(), *agent.temperature.parameters()]
    assert torch.autograd.grad(gap, others, allow_unused=True) == (None,) * len(others)


def test_cal_ql_leaves_alone_what_is_below_what_was_earned(pair: Batch) -> None:
    """Where all drawn values are the recorded return, only those of random actions are pushed."""
    pushed = {}
    for earned in (-5.0, 5.0):
        agent = by_hand(make_agent(conservative=1.0), q=(0.0, 0.0), slow_q=(0, 0))
        gap = conservative(agent, replace(pair, mc_return=torch.full((2,), earned)))
        [pushed[earned]] = torch.autograd.grad(gap, [agent.critic.biases[-1]])
    assert pushed[-5.0].abs().max() < 1e-6  # every draw down, the data up: a constant of Q is free
    assert (pushed[5.0] < -0.4).all()


def test_cal_ql_counts_by_its_weight(pair: Batch) -> None:
    gradients = []
    for weight in (1e-9, 1.0, 2.0):
        agent = make_agent(conservative=weight)
        torch.manual_seed(1)
        assert "conservative_loss" in agent.update(pair)
        gradients.append(agent.critic.weights[0].grad)
    once, twice = (one - gradients[0] for one in gradients[1:])
    assert once.abs().max() > 0.01
    torch.testing.assert_close(twice, 2 * once, rtol=1e-3, atol=1e-6)


def actor_step(agent: SacAgent, batch: Batch) -> dict[str, float]:
    state = batch.obs.state
    return {name: value.item() for name, value in agent._step_actor(batch, state, state).items()}


@pytest.mark.usefixtures("no_noise")
def test_actor_loss_by_hand(pair: Batch) -> None:
    plain = by_hand(make_agent(imitation=0.0, temperature=0.5), q=(-1.0, 5.0), slow_q=(0, 0))
    metrics = actor_step(plain, pair)
    alone = 0.5 * LOG_DENSITY - 2.0  # the mean of the critics, not the lower one
    assert metrics["actor_loss"] == pytest.approx(alone)
    assert metrics["q_pi"] == pytest.approx(2.0)
    assert metrics["entropy"] == pytest.approx(-LOG_DENSITY)
    near = (0.2**2 + 0.4**2 + 0.6**2 + 0.0) / 4  # the mode is 0; the gripper does not count
    assert metrics["action_mse"] == pytest.approx(near)
    imitating = by_hand(make_agent(imitation=3.0, temperature=0.5), q=(-1.0, 5.0), slow_q=(0, 0))
    assert actor_step(imitating, pair)["actor_loss"] == pytest.approx(alone / 2.0 + 3.0 * near)


@pytest.mark.usefixtures("no_noise")
def test_demonstrated_actions_alone_are_imitated(pair: Batch) -> None:
    batch = replace(pair, demonstrated=torch.tensor([False, True]))
    agent = grasps_by_hand(by_hand(make_agent(), (1.0, 1.0), (0, 0)), [0.3, 0.1, 0.2], [0.0] * 3)
    assert actor_step(agent, batch)["action_mse"] == pytest.approx(0.6**2 / 2)
    state = batch.obs.state
    metrics = agent._grasp_loss(batch, state, state, state)[1]
    total = sum(math.exp(q) for q in (0.3, 0.1, 0.2))
    assert metrics["grasp_imitation_loss"].item() == pytest.approx(math.log(total / math.exp(0.2)))


def test_masked_mean_by_hand() -> None:
    values = torch.tensor([1.0, 2.0, 6.0])
    assert masked_mean(values, None) == 3.0
    assert masked_mean(values, torch.tensor([True, False, True])) == 3.5
    assert masked_mean(values, torch.zeros(3, dtype=torch.bool)) == 0.0


@pytest.mark.usefixtures("no_noise")
def test_imitation_falls_to_nothing_over_its_steps(pair: Batch) -> None:
    near, losses = (0.2**2 + 0.4**2 + 0.6**2) / 4, []
    for updates in (0, 1, 4, 9):
        agent = by_hand(make_agent(imitation=1.0, imitation_steps=4), q=(1.0, 1.0), slow_q=(0, 0))
        agent.updates = updates
        losses.append(actor_step(agent, pair)["actor_loss"] - (0.01 * LOG_DENSITY - 1.0))
    assert losses == pytest.approx([near, 0.75 * near, 0.0, 0.0], abs=1e-6)


@pytest.mark.usefixtures("no_noise")
@pytest.mark.parametrize(("wanted", "sign"), [(0.0, -1), (5.0, 1)])
def test_temperature_falls_where_entropy_is_above_the_target(pair: Batch, wanted: float, sign: int) -> None:
    agent = by_hand(make_agent(target_entropy=wanted, lr=0.01), (1.0, 1.0), (0, 0))
    before = agent.temperature.raw.item()
    metrics = actor_step(agent, pair)
    # d/draw softplus(raw) (entropy - target); Adam's first step is as long as the learning rate
    gradient = torch.sigmoid(torch.tensor(before)) * (-LOG_DENSITY - wanted)
    torch.testing.assert_close(agent.temperature.raw.grad, gradient)
    assert agent.temperature.raw.item() - before == pytest.approx(sign * 0.01, rel=1e-4)
    assert metrics["temperature"] == pytest.approx(math.log1p(math.exp(before + sign * 0.01)), rel=1e-4)


@pytest.mark.parametrize("temperature", [1e-4, 0.01, 1.0, 1000.0])
def test_temperature_begins_where_it_is_set(temperature: float) -> None:
    assert make_agent(temperature=temperature).temperature().item() == pytest.approx(temperature, rel=1e-5)


@pytest.mark.parametrize(
    ("mode", "dims", "moves", "choices", "entropy"),
    [
        ("single-arm-fixed-gripper", 6, range(6), None, -3.0),
        ("single-arm-learned-gripper", 7, range(6), 3, -3.5),
        ("dual-arm-fixed-gripper", 12, range(12), None, -6.0),
        ("dual-arm-learned-gripper", 14, [*range(6), *range(7, 13)], 9, -7.0),
    ],
)
def test_set_ups_follow_from_the_spec(
    mode: str, dims: int, moves: Any, choices: int | None, entropy: float, make_batch: MakeBatch
) -> None:
    spec = MODES[mode]
    agent = make_agent(spec)
    assert setup_mode(spec) == mode
    assert spec.action_dim == dims
    assert agent.moves == list(moves)
    assert agent.target_entropy == entropy
    assert make_agent(spec, target_entropy=-2.5).target_entropy == -2.5
    batch = make_batch(spec, agent.sampling)
    assert agent.policy(batch.obs.state).mean.shape == (8, len(moves))
    grasp = agent.acting["grasp"](batch.obs.state).shape[-1] if "grasp" in agent.acting else None
    assert grasp == choices
    metrics = agent.update(batch)
    assert ("grasp_loss" in metrics) is (choices is not None)
    assert agent.act(batch.obs).shape == agent.explore(batch.obs).shape == (8, 1, dims)


def test_a_robot_of_grippers_alone_is_refused() -> None:
    spec = replace(HAND, action=HAND.action[2:])
    with pytest.raises(ConfigError, match="sac: every action axis is a gripper, expected some of an arm"):
        make_agent(spec)


@pytest.mark.parametrize("mode", MODES)
def test_what_it_does_is_repeatable_within_limits_and_of_three_kinds_for_grippers(
    mode: str, make_batch: MakeBatch
) -> None:
    agent = make_agent(MODES[mode])
    with torch.no_grad():
        agent.actor[-1].mean.bias += 3.0
    obs = make_batch(MODES[mode], agent.sampling, size=64).obs
    action = agent.act(obs)
    assert torch.equal(action, agent.act(obs))
    for one in (action, agent.explore(obs)):
        assert one.abs().max() <= 1
        assert set(one[..., agent.grasps].unique().tolist()) <= {-1.0, 0.0, 1.0}
    assert not torch.equal(agent.explore(obs)[..., agent.moves], agent.explore(obs)[..., agent.moves])


def test_grasps_are_at_their_axes_left_first() -> None:
    agent = make_agent(MODES["dual-arm-learned-gripper"])
    grasps_by_hand(agent, [1.0 if choice == 2 else 0.0 for choice in range(9)], [0.0] * 9)  # left -1, right 1
    obs = Obs({}, torch.zeros(4, 5))
    for action in (agent.act(obs), agent.explore(obs)):
        assert action[:, 0, 6].tolist() == [-1.0] * 4
        assert action[:, 0, 13].tolist() == [1.0] * 4


def test_a_share_of_the_tried_grasps_is_random() -> None:
    obs = Obs({}, torch.zeros(4000, 3))
    best = {}
    for epsilon in (0.0, 0.3, 1.0):
        agent = grasps_by_hand(make_agent(grasp_epsilon=epsilon), [0.0, 0.0, 1.0], [0.0] * 3)
        tried = agent.explore(obs)[:, 0, 2]
        best[epsilon] = (tried == 1).float().mean().item()
        assert (agent.act(obs)[:, 0, 2] == 1).all()
    assert best[0.0] == 1.0
    assert best[0.3] == pytest.approx(0.8, abs=0.04)
    assert best[1.0] == pytest.approx(1 / 3, abs=0.04)


@pytest.mark.parametrize("ratio", [1, 3])
def test_actor_and_temperature_learn_once_in_so_many_updates(ratio: int, make_batch: MakeBatch) -> None:
    agent = make_agent(cta_ratio=ratio)
    names = None
    for step in range(7):
        before = copy.deepcopy(agent.networks.state_dict())
        metrics = agent.update(make_batch(HAND, agent.sampling, seed=step))
        names = names or list(metrics)
        assert list(metrics) == names
        moved = {
            name.split(".")[0] for name, x in agent.networks.state_dict().items() if not torch.equal(x, before[name])
        }
        always = {"critic", "grasp", "target_critic", "target_grasp"}
        assert moved == (always | {"actor", "temperature"} if step % ratio == 0 else always)


def test_each_step_moves_the_written_networks(
    make_batch: MakeBatch, update_watched: Callable[[Agent, Batch], list[set[str]]]
) -> None:
    spec = robot(1, True, cameras=True)
    agent = make_agent(spec, cta_ratio=1, conservative=1.0)
    moved = [
        {name.split(".")[0] for name in names} for names in update_watched(agent, make_batch(spec, agent.sampling))
    ]
    assert moved == [
        {"encoder", "critic", "grasp"},
        {"actor"},
        {"temperature"},
        {"target_encoder", "target_critic", "target_grasp"},
    ]


def test_slow_copies_follow_at_their_rate(pair: Batch) -> None:
    agent = make_agent(tau=0.25)
    before = agent.networks["target_critic"].biases[-1].clone()
    agent.update(pair)
    expected = 0.75 * before + 0.25 * agent.critic.biases[-1]
    torch.testing.assert_close(agent.networks["target_critic"].biases[-1], expected)


def test_encoder_learns_from_critics_and_grasps_and_critics_judge_without_dropout(
    make_batch: MakeBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = robot(1, True, cameras=True)
    agent = make_agent(spec)
    batch = make_batch(spec, agent.sampling)
    feature = agent.encoder(batch.obs)
    encoding = list(agent.encoder.parameters())
    for loss in (agent.q(feature, batch.action[:, 0, agent.moves]).sum(), agent.networks["grasp"](feature).sum()):
        gradients = torch.autograd.grad(loss, encoding, retain_graph=True)
        assert any(one.abs().max() > 0 for one in gradients)
    judged: list[Tensor] = []
    ask = agent.q
    monkeypatch.setattr(agent, "q", lambda feature, action: judged.append(feature) or ask(feature, action))
    led: list[Tensor] = []
    monkeypatch.setattr(agent.actor[0], "forward", noting(agent.actor[0], led))
    agent.update(batch)
    (critics, actors), policy = judged, led[-1]
    assert torch.equal(critics, actors)
    assert critics.requires_grad
    assert not actors.requires_grad
    assert not policy.requires_grad
    assert not torch.equal(policy, actors)


def noting(module: nn.Module, seen: list[Tensor]) -> Callable[[Tensor], Tensor]:
    """The forward of `module`, which notes what it is given."""
    forward = module.forward

    def note(x: Tensor) -> Tensor:
        seen.append(x)
        return forward(x)

    return note


@pytest.fixture(scope="module")
def weights_file(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("weights") / "resnet10.pt"
    torch.manual_seed(0)
    torch.save(ResNet(BasicBlock, [1, 1, 1, 1]).state_dict(), path)
    return str(path)


def test_a_pretrained_backbone_stays_is_shared_and_looks_once_at_each_frame(
    weights_file: str, make_batch: MakeBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = robot(1, True, cameras=True)
    agent = make_agent(spec, vision=BackboneConfig("resnet10", weights_file), cta_ratio=1)
    backbone, slow = agent.encoder.backbone, agent.target_encoder
    assert slow.backbone is backbone
    assert slow.heads is not agent.encoder.heads
    before = copy.deepcopy(backbone.state_dict())
    looked = []
    look = backbone.forward
    monkeypatch.setattr(backbone, "forward", lambda images: looked.append(len(images)) or look(images))
    batch = make_batch(spec, agent.sampling, size=4)
    agent.update(batch)
    assert looked == [2, 2]  # both cameras here and at the next observation
    assert all(torch.equal(x, before[name]) for name, x in backbone.state_dict().items())
    other = make_agent(spec, seed=1, vision=BackboneConfig("resnet10", weights_file), cta_ratio=1)
    other.load_state_dict(agent.state_dict())
    assert torch.equal(other.act(batch.obs), agent.act(batch.obs))


@pytest.mark.parametrize("mode", ["single-arm-fixed-gripper", "dual-arm-learned-gripper"])
def test_a_run_goes_on_bit_by_bit_from_between_two_actor_updates(
    mode: str, make_batch: MakeBatch, tmp_path: Path
) -> None:
    spec = MODES[mode]
    settings: dict[str, Any] = {"cta_ratio": 3, "conservative": 0.5, "critics": 4, "target_critics": 2}
    saved, loaded = make_agent(spec, **settings), make_agent(spec, seed=1, **settings)
    for step in range(2):
        saved.update(make_batch(spec, saved.sampling, seed=step))
    torch.save(saved.state_dict(), tmp_path / "state.pt")
    loaded.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    said = []
    for agent in (saved, loaded):
        torch.manual_seed(5)
        said.append([agent.update(make_batch(spec, agent.sampling, seed=step)) for step in range(2, 5)])
    assert said[0] == said[1]
    states = [agent.networks.state_dict() for agent in (saved, loaded)]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


@pytest.mark.parametrize(
    ("q", "outside", "diverged"),
    [
        ((0.0, 1.0), 0.0, 0.0),
        ((-0.3, 5.3), 0.0, 0.0),  # within a tenth of the width of -0 to 5
        ((-0.6, 2.0), 0.5, 0.0),
        ((5.6, 14.3), 1.0, 0.0),
        ((6.0, 14.1), 1.0, 1.0),
        ((-5.2, -5.2), 1.0, 1.0),
    ],
)
def test_how_values_lie_to_the_returns(pair: Batch, q: tuple[float, float], outside: float, diverged: float) -> None:
    agent = make_agent(facts=RewardFacts((0.0, 1.0), (0.0, 5.0)))
    metrics = by_hand(agent, q, (0, 0)).update(pair)
    assert metrics["q_out_of_range"] == outside
    assert metrics["q_diverged"] == diverged
    assert "q_diverged" not in make_agent(stop_when_diverged=False).update(pair)


def test_values_are_of_the_lower_critic(pair: Batch) -> None:
    judged = by_hand(make_agent(), q=(0.7, 0.4), slow_q=(0, 0)).judge(pair)
    assert {name: value.tolist() for name, value in judged.items()} == {
        "q": pytest.approx([0.4, 0.4]),
        "q_pi": pytest.approx([0.4, 0.4]),
        "v": pytest.approx([0.4, 0.4]),
        "advantage": [0.0, 0.0],
    }


def test_it_finds_what_pays_without_being_shown() -> None:
    """One step; what pays is to move to (0.5, -0.3) and to tell the gripper 1. Nobody did both often."""
    agent = make_agent(imitation=0.0, grasp_imitation=0.0, lr=5e-3, cta_ratio=1)
    random = torch.Generator().manual_seed(0)
    for _ in range(250):
        action = torch.rand(64, 1, 3, generator=random) * 2 - 1
        action[:, 0, 2] = torch.randint(-1, 2, (64,), generator=random)
        moves, grasp = action[:, 0, :2], action[:, 0, 2]
        pays = 0.7 - 0.4 * (moves - torch.tensor([0.5, -0.3])).square().sum(-1) + 0.3 * (grasp == 1)
        state = torch.randn(64, 3, generator=random)
        zeros = torch.zeros(64)
        obs = Obs({}, state)
        agent.update(Batch(obs, action, torch.zeros(64, 1, dtype=torch.bool), pays, zeros, pays, obs))
    found = agent.act(Obs({}, torch.randn(100, 3, generator=random)))[:, 0]
    assert (found[:, 2] == 1).float().mean() > 0.9
    torch.testing.assert_close(found[:, :2].mean(0), torch.tensor([0.5, -0.3]), atol=0.15, rtol=0)


def test_units_are_left_out_only_while_policy_and_grasp_critic_learn(pair: Batch) -> None:
    agent = make_agent(dropout=0.5, cta_ratio=1)
    seen: dict[str, list[bool]] = {"actor": [], "grasp": []}
    for name, calls in seen.items():
        dropout = next(layer for layer in agent.networks[name].modules() if isinstance(layer, torch.nn.Dropout))
        assert dropout.p == 0.5
        dropout.register_forward_hook(lambda layer, *_, calls=calls: calls.append(layer.training))
    agent.update(pair)
    # the policy is asked for the target, then learns; the grasp critic learns, then is asked for its target
    assert seen == {"actor": [False, True], "grasp": [True, False]}
    torch.testing.assert_close(agent.act(pair.obs), agent.act(pair.obs), rtol=0, atol=0)
    assert seen == {"actor": [False, True, False, False], "grasp": [True, False, False, False]}


def test_presets() -> None:
    assert PRESETS["product"] == SacConfig()
    notes, original = PRESETS["serl-notes"], PRESETS["hilserl"]
    shared = {"lr": 3e-4, "tau": 0.005, "critics": 2, "cta_ratio": 2, "target_entropy": None, "backup_entropy": False}
    shared |= {
        "temperature": 0.01,
        "hidden": (256, 256),
        "dropout": 0.0,
        "random_shift": 4,
        "n_step": 1,
        "target_critics": 0,
    }
    for preset, discount in ((notes, 0.95), (original, 0.97)):
        assert {name: getattr(preset, name) for name in shared} == shared
        assert preset.discount == discount
    assert (notes.imitation, notes.grasp_imitation, notes.clip_targets) == (1.0, 1.0, True)
    assert (original.imitation, original.grasp_imitation, original.clip_targets) == (0.0, 0.0, False)
    assert (original.conservative, original.grasp_epsilon) == (0.0, 0.0)


def test_it_asks_for_transitions_scaled_to_the_limits() -> None:
    agent = make_agent(n_step=3, discount=0.9, state_scaling="min-max")
    assert agent.sampling == Transitions(3, 0.9)
    assert (agent.config.scaling.state, agent.config.scaling.action) == ("min-max", "limits")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"discount": 1.5}, "sac: discount is 1.5, expected a number from 0 to 1"),
        ({"tau": -0.1}, "sac: tau is -0.1, expected a number from 0 to 1"),
        ({"dropout": 1.0}, "sac: dropout is 1.0, expected 0 or more and below 1"),
        ({"grasp_epsilon": 2}, "sac: grasp_epsilon is 2, expected a number from 0 to 1"),
        ({"temperature": 0.0}, "sac: temperature is 0.0, expected a positive number"),
        ({"cta_ratio": 0}, "sac: cta_ratio is 0, expected a positive number"),
        ({"lr": math.nan}, "sac: lr is nan, expected a positive number"),
        ({"imitation": -1.0}, "sac: imitation is -1.0, expected 0 or more"),
        ({"conservative": math.inf}, "sac: conservative is inf, expected 0 or more"),
        ({"target_critics": 3}, r"sac: target_critics is 3, expected 0 to critics \(2\)"),
        ({"hidden": ()}, r"sac: hidden is \[\], expected positive widths"),
        ({"hidden": (8, 0)}, r"sac: hidden is \[8, 0\], expected positive widths"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        SacConfig(**settings)
