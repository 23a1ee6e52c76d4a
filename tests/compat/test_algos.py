"""The documented imports and snippets, and what their classes promise."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from algos import algos_vae_multimodal as algos
from algos import utils_multimodal
from algos.algos_vae_multimodal import ActorVAE, ImageJointEncoder, MultimodalLatent, ResNet18Encoder
from algos.utils_multimodal import MultimodalReplayBuffer
from torch.nn.functional import interpolate

from lapwing.batch import Obs
from lapwing.errors import CheckpointError, ConfigError, DataError, SpecError

FILES = ("critic", "actor", "actor_vae", "obs_encoder", "rest")


@pytest.fixture
def buffer(small_file: Path) -> MultimodalReplayBuffer:
    buffer = MultimodalReplayBuffer(action_dim=16, joint_dim=16, device="cpu")
    buffer.load_from_hdf5(small_file)
    return buffer


@pytest.fixture
def make_policy(buffer: MultimodalReplayBuffer) -> Callable[..., MultimodalLatent]:
    def make(**settings) -> MultimodalLatent:
        torch.manual_seed(0)
        return MultimodalLatent(replay_buffer=buffer, device="cpu", weights="none", **settings)

    return make


@pytest.fixture
def frames(small_file: Path) -> tuple[np.ndarray, ...]:
    """left, right, global and joint of the first step."""
    with h5py.File(small_file) as file:
        return tuple(file[f"observations/{key}"][0] for key in ("left_image", "right_image", "global_image", "joint"))


def test_the_snippet_of_the_fixes(
    small_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_download: None, frames, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    min_v, max_v, num_epochs = 0.0, 1.0, 2
    left_img, right_img, global_img, joint = frames

    buffer = MultimodalReplayBuffer(action_dim=16, joint_dim=16, device="cuda")
    buffer.load_from_hdf5("robot_data.hdf5")
    policy = MultimodalLatent(
        action_dim=16,
        latent_dim=32,
        max_action=1.0,
        min_v=min_v,
        max_v=max_v,
        replay_buffer=buffer,
        device="cuda",
    )
    for _ in range(num_epochs):
        policy.train(iterations=1, batch_size=4)
    action = policy.select_action(left_img, right_img, global_img, joint)

    with h5py.File(small_file) as file:
        low, high = file["actions"][:].min(0), file["actions"][:].max(0)
    assert action.shape == (16,)
    assert (action >= low).all()
    assert (action <= high).all()
    norms = {name: param.grad.norm().item() for name, param in policy.obs_encoder.named_parameters()}
    assert norms.keys() == dict(policy.agent.encoder.named_parameters()).keys()
    assert all(norm > 0 for norm in norms.values())
    assert policy.facts.returns == (0.0, 1.0)
    assert "the image encoder starts from scratch" in capsys.readouterr().err


def test_the_snippet_that_loads_a_model(make_policy, frames, tmp_path: Path) -> None:
    trained = make_policy()
    trained.train(iterations=2, batch_size=4)
    trained.save("model_best", tmp_path / "results")
    left_img, right_img, global_img, joint = frames

    policy = algos.MultimodalLatent(action_dim=16, latent_dim=32, max_action=1.0, device="cpu")
    policy.load("model_best", str(tmp_path / "results"))
    action = policy.select_action(left_img, right_img, global_img, joint)

    assert np.array_equal(action, trained.select_action(left_img, right_img, global_img, joint))
    assert sorted(path.name for path in (tmp_path / "results").iterdir()) == sorted(
        f"model_best_{part}.pth" for part in FILES
    )
    state = torch.load(tmp_path / "results" / "model_best_actor_vae.pth", weights_only=True)
    ActorVAE(256, 16, 32).load_state_dict(state)


def test_the_eleven_of_a_batch_are_in_the_documented_order(buffer: MultimodalReplayBuffer, small_file: Path) -> None:
    batch = buffer.sample(batch_size=40)
    (left, right, whole, joint, action, next_left, next_right, next_whole, next_joint, reward, not_done) = batch
    with h5py.File(small_file) as file:
        stored = {key: file[f"observations/{key}_image"][:] for key in ("left", "right", "global")}
        joints, actions = file["observations/joint"][:], file["actions"][:]
        rewards, terminals = file["rewards"][:], file["terminals"][:]
    normalizer = buffer.data.normalizer
    rows = [int(np.flatnonzero((stored["left"] == one.permute(1, 2, 0).numpy()).all((1, 2, 3)))[0]) for one in left]

    assert len(set(rows)) > 20
    assert [tuple(x.shape) for x in (left, joint, action, reward)] == [(40, 3, 32, 32), (40, 16), (40, 16), (40, 1)]
    for images, key in ((right, "right"), (whole, "global")):
        assert np.array_equal(images.permute(0, 2, 3, 1), stored[key][rows])
    assert np.array_equal(joint, normalizer.encode_state(joints[rows]))
    assert np.array_equal(action[:, None], normalizer.encode_action(actions[rows][:, None], joints[rows]))
    assert np.array_equal(reward[:, 0], rewards[rows])
    assert np.array_equal(not_done[:, 0], ~terminals[rows])
    alive = not_done[:, 0].numpy() == 1
    later = np.array(rows)[alive] + 1
    for images, key in ((next_left, "left"), (next_right, "right"), (next_whole, "global")):
        assert np.array_equal(images[alive].permute(0, 2, 3, 1), stored[key][later])
    assert np.array_equal(next_joint[alive], normalizer.encode_state(joints[later]))


def test_image_joint_encoder_takes_both_layouts_and_both_kinds_of_numbers(no_download: None) -> None:
    encoder = ImageJointEncoder(joint_dim=16, image_feature_dim=128, fusion_dim=256)
    left_img, right_img, global_img = torch.randint(0, 256, (3, 2, 3, 84, 84), dtype=torch.uint8)
    joint_data = torch.randn(2, 16)
    with torch.no_grad():
        obs_feature = encoder(left_img, right_img, global_img, joint_data)
        last = encoder(*(x.permute(0, 2, 3, 1) for x in (left_img, right_img, global_img)), joint_data)
        scaled = encoder(*(x / 255 for x in (left_img, right_img, global_img)), joint_data)
        swapped = encoder(right_img, left_img, global_img, joint_data)
    assert obs_feature.shape == (2, 256)
    assert torch.equal(obs_feature, last)
    assert torch.allclose(obs_feature, scaled, atol=1e-4)
    assert not torch.allclose(obs_feature, swapped, atol=1e-2)


@pytest.mark.parametrize("encoder", ["stacked", "shared", "separate"])
def test_images_of_another_size_are_scaled(encoder: str) -> None:
    net = ImageJointEncoder(pretrained=False, image_size=32, encoder=encoder)
    large = torch.rand(3, 1, 3, 48, 64)
    small = interpolate(large.flatten(0, 1), (32, 32), mode="bilinear", antialias=True).unflatten(0, (3, 1))
    with torch.no_grad():
        assert torch.allclose(net(*large, torch.zeros(1, 16)), net(*small, torch.zeros(1, 16)), atol=1e-4)


def test_resnet18_encoder_of_nine_channels(no_download: None, capsys: pytest.CaptureFixture[str]) -> None:
    encoder = ResNet18Encoder(output_dim=256, pretrained=True, in_channels=9)
    assert "could not be had" in capsys.readouterr().err
    images = torch.rand(2, 9, 84, 84)
    assert encoder(images).shape == (2, 256)
    assert sum(p.shape[1] == 9 for p in encoder.parameters() if p.ndim == 4) == 1
    with pytest.raises(SpecError, match=r"images: shape \[2, 3, 84, 84\], expected \[B, 9, H, W\]"):
        encoder(images[:, :3])
    with pytest.raises(ConfigError, match="in_channels is 8, expected 3 for each camera"):
        ResNet18Encoder(in_channels=8)


def test_actor_vae_forward_and_decode() -> None:
    vae = ActorVAE(obs_feature_dim=256, action_dim=16, latent_dim=32)
    feature, action = torch.randn(5, 256), torch.randn(5, 16)
    reconstructed, z, mean, log_var = vae(feature, action)
    assert reconstructed.shape == action.shape
    assert z.shape == mean.shape == log_var.shape == (5, 32)
    assert not torch.equal(z, mean)
    assert torch.equal(vae.decode(feature, z), reconstructed)


def test_networks_and_optimizers_are_those_that_learn(make_policy) -> None:
    policy = make_policy()

    def held(optimizer: torch.optim.Optimizer) -> set[int]:
        return {id(p) for group in optimizer.param_groups for p in group["params"]}

    def own(*modules: torch.nn.Module) -> set[int]:
        return {id(p) for module in modules for p in module.parameters()}

    assert held(policy.critic_optimizer) == own(policy.critic, policy.obs_encoder)
    assert held(policy.actorvae_optimizer) == own(policy.actor_vae)
    assert held(policy.actor_optimizer) == own(policy.actor)
    policy.train(iterations=1, batch_size=4)
    left, right, whole, joint, action = policy.replay_buffer.sample(6)[:5]
    with torch.no_grad():
        feature = policy.obs_encoder(left, right, whole, joint)
        images = {name: x.permute(0, 2, 3, 1) for name, x in {"left": left, "right": right, "global": whole}.items()}
        assert torch.equal(feature, policy.agent.encoder(Obs(images, joint)))
        assert policy.actor_vae(feature, action)[0].shape == (6, 16)


def test_settings_reach_the_learner_and_max_action_bounds_nothing(make_policy, frames) -> None:
    settings = {"discount": 0.9, "expectile": 0.7, "kl_beta": 0.5, "tau": 0.01, "obs_feature_dim": 64}
    policy = make_policy(latent_dim=8, max_action=1e-6, **settings)
    config = policy.config
    assert (config.discount, config.expectile, config.kl_beta, config.tau) == (0.9, 0.7, 0.5, 0.01)
    assert policy.agent.sampling.gamma == 0.9
    assert policy.actor(torch.zeros(1, 64)).shape == (1, 8)
    assert config.bc_coef == 0
    assert np.abs(policy.select_action(*frames)).max() > 0.1


def test_training_goes_on_from_a_loaded_model_as_if_it_had_not_stopped(make_policy, buffer, tmp_path: Path) -> None:
    first = make_policy()
    first.train(iterations=2, batch_size=4)
    first.save("model_2", tmp_path)
    second = make_policy()
    second.load("model_2", tmp_path)
    for policy in (first, second):
        torch.manual_seed(1)
        policy.train(iterations=2, batch_size=4)
    assert second.steps == 4
    for one, other in zip(first.agent.networks.parameters(), second.agent.networks.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_loaded_model_keeps_its_statistics(make_policy, small_file: Path, tmp_path: Path, frames) -> None:
    trained = make_policy()
    trained.save("model_best", tmp_path)
    expected = trained.select_action(*frames)
    with h5py.File(small_file, "r+") as file:
        file["observations/joint"][:] = 5 * file["observations/joint"][:] + 1
    other = MultimodalReplayBuffer(16, 16, "cpu")
    other.load_from_hdf5(small_file)
    policy = MultimodalLatent(replay_buffer=other, device="cpu", weights="none")
    policy.load("model_best", tmp_path)
    assert np.array_equal(policy.select_action(*frames), expected)
    joints = other.sample(8)[3]
    assert joints.std() > 2  # read by the statistics of the data the model learned from


def test_select_action_takes_channels_first_floats_and_tensors(make_policy, frames) -> None:
    policy = make_policy()
    *images, joint = frames
    expected = policy.select_action(*images, joint)
    assert np.array_equal(policy.select_action(*(x.transpose(2, 0, 1) for x in images), joint), expected)
    assert np.array_equal(policy.select_action(*(x / 255 for x in images), joint), expected)
    assert np.array_equal(policy.select_action(*map(torch.from_numpy, images), torch.from_numpy(joint)), expected)


def test_select_action_refuses_what_does_not_fit(make_policy, frames) -> None:
    policy = make_policy()
    left, right, whole, joint = frames
    with pytest.raises(SpecError, match="camera 'right' has shape"):
        policy.select_action(left, right[0], whole, joint)
    with pytest.raises(SpecError, match=r"camera 'global' has values from .* expected 0..1, or uint8"):
        policy.select_action(left, right, whole.astype(np.float32), joint)
    with pytest.raises(SpecError, match="state: shape"):
        policy.select_action(left, right, whole, joint[:14])


def test_without_a_model_or_data_one_line_says_so(buffer, make_policy, tmp_path: Path) -> None:
    empty = MultimodalLatent(device="cpu")
    with pytest.raises(ConfigError, match="no networks yet; give a replay_buffer, or load a model"):
        empty.save("model", tmp_path)
    with pytest.raises(ConfigError, match="no replay_buffer to train on"):
        empty.train(1)
    with pytest.raises(ConfigError, match="call load_from_hdf5"):
        MultimodalReplayBuffer(device="cpu").sample()
    with pytest.raises(CheckpointError, match=r"model_best_rest.pth: missing; a model is 5 files"):
        empty.load("model_best", tmp_path)
    make_policy().save("model_best", tmp_path)
    (tmp_path / "model_best_critic.pth").write_bytes(b"half a file")
    with pytest.raises(CheckpointError, match=r"model_best_critic.pth: damaged"):
        empty.load("model_best", tmp_path)


def test_a_pickle_is_not_read(make_policy, tmp_path: Path) -> None:
    make_policy().save("model_best", tmp_path)
    torch.save({"weight": Path("a class that is no tensor")}, tmp_path / "model_best_actor.pth")
    with pytest.raises(CheckpointError, match=r"model_best_actor.pth: damaged"):
        MultimodalLatent(device="cpu").load("model_best", tmp_path)


def test_dimensions_and_cameras_are_checked(make_policy, small_file: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"'joint' has 16 axes, expected 14; set joint_dim to 16"):
        MultimodalReplayBuffer(16, 14, "cpu").load_from_hdf5(small_file)
    make_policy().save("model_best", tmp_path)
    with pytest.raises(DataError, match=r"model_best_rest.pth: 'actions' has 16 axes, expected 7"):
        MultimodalLatent(action_dim=7, device="cpu").load("model_best", tmp_path)
    with h5py.File(small_file, "r+") as file:
        file.move("observations/left_image", "observations/wrist_image")
        del file.attrs["lapwing"]
    with pytest.raises(DataError, match="cameras right, global, wrist, expected left, right and global"):
        MultimodalReplayBuffer(16, 16, "cpu").load_from_hdf5(small_file)


def test_rewards_that_are_no_numbers_are_refused(small_file: Path) -> None:
    with h5py.File(small_file, "r+") as file:
        file["rewards"][8] = np.nan
    with pytest.raises(DataError, match="'rewards' of episode 1 holds NaN or infinity"):
        MultimodalReplayBuffer(16, 16, "cpu").load_from_hdf5(small_file)


def test_cuda_that_is_not_there_becomes_the_cpu_with_a_warning(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    utils_multimodal.usable_device.cache_clear()
    assert MultimodalReplayBuffer().device == torch.device("cpu")
    assert "no CUDA on this machine, computing on the CPU" in capsys.readouterr().err
    utils_multimodal.usable_device.cache_clear()
