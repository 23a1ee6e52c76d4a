"""The benchmark of SAC: the plain reference says what ours says, a worker measures, the tables' figures are right."""

from __future__ import annotations

import multiprocessing
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from lapwing.agent import RewardFacts
from lapwing.agents.sac import SacAgent
from lapwing.batch import Batch, Obs
from lapwing.errors import ConfigError, LapwingError
from lapwing.run import bench_process, bench_sac
from lapwing.run.bench_process import find_reference, load_reference
from lapwing.run.bench_sac import Row, SacBenchOptions, allocated, measure, memory_table, table, variants
from lapwing.run.bench_sac_worker import ACTION_DIM, CAMERAS, CONFIG, STATE_DIM, Footprint, Job, episodes, robot, work

CPU = torch.device("cpu")
PLAIN = Job("plain", 2, 32, 130, "cpu", 1, reference=Path("absent.py"))


@pytest.fixture(scope="module")
def plain() -> ModuleType:
    return load_reference(find_reference("plain_sac.py"))


@pytest.fixture
def agent() -> SacAgent:
    torch.manual_seed(0)
    return SacAgent(CONFIG, robot(64), RewardFacts((0.0, 1.0), (0.0, 1.0)))


@pytest.fixture
def same(plain: ModuleType, agent: SacAgent) -> object:
    """The reference with the weights of ours, actor's encoder included."""
    learner = plain.PlainSac(len(CAMERAS), 64, STATE_DIM, ACTION_DIM, CPU)
    for one in (learner.actor, learner.critic, learner.critic_target):
        _copy_encoder(one.encoder, agent)
    for name in ("critic", "critic_target"):
        _copy_critics(getattr(learner, name).members, agent)
    hidden, head = agent.actor
    learner.actor.mlp.load_state_dict(hidden.state_dict())
    learner.actor.mean.load_state_dict(head.mean.state_dict())
    learner.actor.log_std.load_state_dict(head.log_std.state_dict())
    return learner


def _copy_encoder(theirs: torch.nn.Module, agent: SacAgent) -> None:
    heads = agent.encoder.heads
    body = agent.encoder.backbone.bodies[0].state_dict()
    theirs.body.load_state_dict(dict(zip(theirs.body.state_dict(), body.values(), strict=True)))
    with torch.no_grad():
        for kernel, embedding in zip(theirs.kernels, heads.embeddings, strict=True):
            kernel.copy_(embedding.kernel)
    theirs.image_fc.load_state_dict(heads.images.state_dict())
    theirs.state_fc.load_state_dict(heads.state.state_dict())


def _copy_critics(members: torch.nn.ModuleList, agent: SacAgent) -> None:
    ours = agent.critic
    for index, member in enumerate(members):
        linears = [layer for layer in member if isinstance(layer, torch.nn.Linear)]
        for linear, weight, bias in zip(linears, ours.weights, ours.biases, strict=True):
            linear.load_state_dict({"weight": weight[index].T, "bias": bias[index, 0]})


def batches(plain: ModuleType) -> tuple[Batch, object]:
    """One batch in our form and in the reference's."""
    frames = torch.randint(0, 256, (2, len(CAMERAS), 3, 64, 64, 3), dtype=torch.uint8)
    state, next_state, action = torch.randn(3, STATE_DIM), torch.randn(3, STATE_DIM), torch.rand(3, ACTION_DIM) * 2 - 1
    reward, mask = torch.tensor([0.0, 1.0, 0.0]), torch.tensor([1.0, 0.0, 1.0])
    obs, next_obs = (
        Obs(dict(zip(CAMERAS, images, strict=True)), one)
        for images, one in zip(frames, (state, next_state), strict=True)
    )
    padding = torch.zeros(3, 1, dtype=torch.bool)
    ours = Batch(obs, action[:, None], padding, reward, CONFIG.discount * mask, reward, next_obs)
    images, next_images = frames.permute(0, 2, 1, 5, 3, 4).float() / 255
    return ours, plain.PlainBatch(images, state, action, reward, mask, next_images, next_state)


def test_the_reference_says_what_ours_says(plain: ModuleType, agent: SacAgent, same: object) -> None:
    ours, theirs = batches(plain)
    feature = agent.encoder(ours.obs)
    policy = agent.policy(feature)
    mean, std = same.actor(theirs.images, theirs.state)
    torch.testing.assert_close(mean, policy.mean, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(std, policy.std, atol=1e-4, rtol=1e-3)
    q = same.critic(same.critic.encoder(theirs.images, theirs.state), theirs.action)
    torch.testing.assert_close(q, agent.q(feature, theirs.action), atol=1e-4, rtol=1e-3)


def test_the_reference_steps_as_ours_does(
    plain: ModuleType, agent: SacAgent, same: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without shifts and noise: the critics' loss, and what the critics say after their step."""
    monkeypatch.setattr(plain, "SHIFT", 0)
    monkeypatch.setattr(agent, "config", replace(agent.config, random_shift=0))
    monkeypatch.setattr(torch, "randn_like", torch.zeros_like)
    monkeypatch.setattr(torch.distributions.Normal, "rsample", lambda self: self.loc)
    ours, theirs = batches(plain)
    before = agent.q(agent.encoder(ours.obs), theirs.action)
    torch.testing.assert_close(same.update(theirs), agent.update(ours)["critic_loss"], atol=1e-4, rtol=1e-4)
    after = agent.q(agent.encoder(ours.obs), theirs.action)
    assert (after - before).abs().min() > 0.1
    q = same.critic(same.critic.encoder(theirs.images, theirs.state), theirs.action)
    torch.testing.assert_close(q, after, atol=0.02, rtol=0.02)


def test_the_reference_trains_the_actor_every_second_time(plain: ModuleType, same: object) -> None:
    _, batch = batches(plain)
    same.update(batch)
    trained = [p.detach().clone() for p in same.actor.parameters()]
    same.update(batch)
    assert all(torch.equal(old, new) for old, new in zip(trained, same.actor.parameters(), strict=True))
    same.update(batch)
    assert not any(torch.equal(old, new) for old, new in zip(trained, same.actor.parameters(), strict=True))


def test_the_reference_holds_transitions_whole(plain: ModuleType) -> None:
    buffer = plain.PlainBuffer(3, (len(CAMERAS), 3, 32, 32), STATE_DIM, ACTION_DIM)
    [*_, episode] = episodes(replace(PLAIN, transitions=4))
    plain.fill(buffer, [episode.images[name] for name in CAMERAS], episode.state, episode.action)
    assert (len(buffer), buffer.added) == (3, 4)
    last = {name: array[0] for name, array in buffer.arrays.items()}  # the fourth, over the first
    np.testing.assert_allclose(last["next_images"][1].transpose(1, 2, 0) * 255, episode.images["wrist"][4], atol=1e-4)
    np.testing.assert_allclose(last["images"][0].transpose(1, 2, 0) * 255, episode.images["front"][3], atol=1e-4)
    assert (last["reward"], last["mask"]) == (1, 0)
    frames, numbers = 2 * len(CAMERAS) * 3 * 32 * 32, 2 * STATE_DIM + ACTION_DIM + 2
    assert buffer.nbytes == 3 * 4 * (frames + numbers)
    assert buffer.sample(5).images.shape == (5, len(CAMERAS), 3, 32, 32)


@pytest.mark.parametrize("reference", [None, "plain_sac.py"])
def test_a_worker_draws_and_updates(reference: str | None) -> None:
    job = replace(PLAIN, threads=torch.get_num_threads(), reference=reference and find_reference(reference))
    here, there = multiprocessing.Pipe()
    for question in (("warm", 1), ("draw", 1), ("update", 2), None):
        here.send(question)
    work(there, job)
    warm, draw, update, footprint = (here.recv() for _ in range(4))
    assert min(warm, draw, update) > 0
    assert footprint.transitions == 130
    frames = 130 * len(CAMERAS) * 3 * 32 * 32
    kept = frames * (8 if reference else 132 / 130)
    assert kept < footprint.buffer_bytes < 1.1 * kept
    assert footprint.parameters > (2 if reference else 1) * 4.9e6


def test_a_worker_that_dies_is_named() -> None:
    with pytest.raises(LapwingError, match="process of 'plain' ended early"):
        measure([PLAIN], repeats=1, seconds=1.0)


def test_the_buffer_takes_little_more_than_its_frames_when_allocated() -> None:
    frames = 100_000 * len(CAMERAS) * 3 * 128**2
    assert frames < allocated(128) < 1.1 * frames


@pytest.mark.parametrize(
    ("precision", "names"), [("fp32", ["plain", "ours, fp32"]), ("bf16", ["plain", "ours, fp32", "ours, bf16"])]
)
def test_variants_share_all_but_what_their_names_say(precision: str, names: list[str]) -> None:
    first, *others = variants(SacBenchOptions(batch=4, precision=precision), CPU)
    assert [first.name, *(job.name for job in others)] == names
    assert first.reference is not None
    assert all(replace(job, name="", precision="fp32") == replace(first, name="", reference=None) for job in others)


ROWS = (
    Row("plain", (8.0, 10.0, 12.0), 0.5, Footprint(20_000_000, 800_000, 10)),
    Row("ours", (2.0, 4.0, 2.5), 0.05, Footprint(10_000_000, 110_000, 10)),
)


def test_the_table_compares_round_by_round() -> None:
    lines = [" ".join(line.split()) for line in table(ROWS).splitlines()]
    assert lines[1] == "plain 20.0 M 0.100 (0.0833-0.125) 5.0 %"
    assert lines[2] == "ours 10.0 M 0.400 (0.250-0.500) 4.00x (2.50-4.80) 2.0 %"
    assert lines[3] == "rounds: 3"


def test_memory_is_given_beside_the_frames() -> None:
    lines = [" ".join(line.split()) for line in memory_table(ROWS, 32, 700_000_000).splitlines()]
    assert lines[1] == "frames, each once 0.61 GB 1.000x"
    assert lines[2] == "plain, of 10 held 8.00 GB 13.021x"
    assert lines[3] == "ours, of 10 held 1.10 GB 1.790x"
    assert lines[4] == "ours, allocated 0.70 GB 1.139x"


def test_an_installed_package_has_no_reference(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(bench_process, "BENCHMARKS", tmp_path)
    with pytest.raises(ConfigError, match=r"benchmarks/plain_sac.py, is no part of the installed package"):
        bench_sac.run(SacBenchOptions())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch": 0}, "batch 0"),
        ({"size": 31}, "size 31"),
        ({"seconds": float("nan")}, "seconds nan"),
        ({"world_seconds": -1.0}, "world_seconds -1"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(settings: Mapping[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SacBenchOptions(**settings)


@pytest.mark.slow
def test_the_whole_command_prints_its_tables(capsys: pytest.CaptureFixture[str]) -> None:
    bench_sac.run(SacBenchOptions(batch=2, size=32, transitions=20, repeats=1, threads=1))
    out = capsys.readouterr().out
    for line in ("plain  ", "ours, fp32  ", "rounds: 1", "plain, of 20 held", "ours, allocated"):
        assert line in out
