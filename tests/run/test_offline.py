"""Judging on held-out episodes: every number here can be worked out by hand."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from lapwing.agent import Chunks, Sampling, Scaling, Transitions
from lapwing.batch import Batch, Obs
from lapwing.data.dataset import Dataset
from lapwing.data.frames import FrameStore
from lapwing.data.normalize import Normalizer
from lapwing.episode import Episode, Recording
from lapwing.errors import DataError
from lapwing.run.held_out import HeldOut, metrics
from lapwing.run.offline import calibrate, held_out
from lapwing.spec import Axis, Camera, RobotSpec

CPU = torch.device("cpu")
AXES = (Axis("shoulder", "rad", "arm"), Axis("elbow", "rad", "arm"), Axis("grip", "open", "gripper"))
SPEC = RobotSpec("tiny", (Camera("top", 4, 4),), AXES, AXES)


def make_episode(seed: int, steps: int, terminated: bool = True) -> Episode:
    """Every action axis is the brightness of the picture over ten; the state tells nothing."""
    rng = np.random.default_rng(seed)
    brightness = rng.integers(0, 256, steps).astype(np.uint8)
    return Episode(
        images={"top": np.broadcast_to(brightness[:, None, None, None], (steps, 4, 4, 3)).copy()},
        state=rng.normal(size=(steps, 3)).astype(np.float32),
        action=np.repeat(brightness[:, None], 3, 1).astype(np.float32) / 10,
        reward=np.eye(steps, dtype=np.float32)[-1],
        terminated=terminated,
    )


def make_dataset(
    episodes: list[Episode],
    spec: RobotSpec = SPEC,
    relative: bool = False,
    scaling: Scaling = Scaling(),  # noqa: B008
) -> Dataset:
    if spec.cameras:  # frames in one piece need no cache on disk
        frames = np.concatenate([episode.images["top"] for episode in episodes])
        parts = np.split(frames, np.cumsum([episode.num_rows for episode in episodes])[:-1])
        episodes = [replace(episode, images={"top": part}) for episode, part in zip(episodes, parts, strict=True)]
    recording = Recording(Path("tiny.hdf5"), "flat", spec, episodes)
    store = FrameStore.open(recording)
    return Dataset(recording, store, range(len(episodes)), Normalizer.fit(episodes, spec, relative, scaling))


@pytest.fixture
def dataset() -> Dataset:
    return make_dataset([make_episode(seed, steps) for seed, steps in enumerate((9, 12, 7))])


class Reader:
    """Reads the action off the picture ("looks"), or always answers with the mean ("sleeps")."""

    modes: tuple[str, ...] = ("looks", "sleeps")

    def __init__(self, normalizer: Normalizer, sampling: Sampling = Transitions(gamma=0.5)) -> None:  # noqa: B008
        self.sampling = sampling
        self._normalizer = normalizer

    def act(self, obs: Obs, mode: str | None = None) -> Tensor:
        if (mode or self.modes[0]) == "sleeps":
            return torch.zeros(len(obs.state), 1, 3)
        physical = obs.images["top"].float().mean((1, 2, 3))[:, None, None].expand(-1, 1, 3) / 10
        zero = np.zeros((len(physical), 3), np.float32)
        return torch.from_numpy(self._normalizer.encode_action(physical.numpy(), zero))


class Knowing(Reader):
    """Its q is the return plus a half for even returns' order kept; the advantage is positive in bright pictures."""

    def judge(self, batch: Batch) -> dict[str, Tensor]:
        bright = batch.obs.images["top"].float().mean((1, 2, 3))
        q = batch.mc_return + 0.5
        return {"q": q, "q_pi": q + 0.25, "v": q, "advantage": bright - 127.5}


def test_errors_in_physical_units_and_baselines(dataset: Dataset) -> None:
    found = held_out(Reader(dataset.normalizer), dataset, device=CPU)
    action = np.concatenate([episode.action for episode in dataset.recording.episodes])
    state = np.concatenate([episode.state for episode in dataset.recording.episodes])
    assert found.samples == 28
    assert found.errors["looks"].mse == pytest.approx(0, abs=1e-10)
    assert found.errors["looks"].mae == pytest.approx((0, 0, 0), abs=1e-5)
    assert found.errors["sleeps"] == found.errors["mean"]
    assert found.errors["mean"].mse == pytest.approx(1, rel=1e-4)
    assert found.errors["mean"].mae == pytest.approx(np.abs(action - action.mean(0)).mean(0), rel=1e-5)
    held = np.clip(state, action.min(0), action.max(0))
    assert found.errors["hold"].mae == pytest.approx(np.abs(action - held).mean(0), rel=1e-5)
    assert set(found.errors["hold"].mse_by_kind) == {"arm", "gripper"}
    assert found.errors["mean"].mse_by_kind["gripper"] == pytest.approx(1, rel=1e-4)


@pytest.mark.parametrize("relative", [False, True])
def test_errors_are_the_same_whatever_the_scaling(relative: bool) -> None:
    episodes = [make_episode(seed, steps) for seed, steps in enumerate((9, 12, 7))]
    by_scaling = []
    for kind in ("mean-std", "min-max"):
        dataset = make_dataset(episodes, relative=relative, scaling=Scaling(kind, kind))
        sleeper = Reader(dataset.normalizer)
        mean = torch.from_numpy(dataset.normalizer.encoded_mean)
        sleeper.act = lambda obs, mode=None, mean=mean: (mean + 0 * obs.state)[:, None]  # type: ignore[method-assign]
        by_scaling.append(held_out(sleeper, dataset, device=CPU))
    first, second = by_scaling
    assert first.errors["mean"].mse == pytest.approx(1, rel=1e-4)
    for name in ("looks", "mean", "hold"):
        assert second.errors[name].mse == pytest.approx(first.errors[name].mse, rel=1e-4)
        assert second.errors[name].mae == pytest.approx(first.errors[name].mae, rel=1e-4)
    assert first.image_test is not None
    assert second.image_test is not None
    assert second.image_test.matched == pytest.approx(first.image_test.matched, rel=1e-4)


def test_relative_actions_are_judged_in_physical_units_too() -> None:
    dataset = make_dataset([make_episode(seed, 20) for seed in range(3)], relative=True)
    found = held_out(Reader(dataset.normalizer), dataset, device=CPU)
    action = np.concatenate([episode.action for episode in dataset.recording.episodes])
    state = np.concatenate([episode.state for episode in dataset.recording.episodes])
    drift = state + (action - state).mean(0)
    drift[:, 2] = action[:, 2].mean()
    expected = np.abs(np.clip(drift, action.min(0), action.max(0)) - action).mean(0)
    assert found.errors["mean"].mae == pytest.approx(expected, rel=1e-4)


def test_a_policy_that_looks_is_told_from_one_that_does_not(dataset: Dataset) -> None:
    looking = held_out(Reader(dataset.normalizer), dataset, device=CPU).image_test
    sleeping = Reader(dataset.normalizer)
    sleeping.modes = ("sleeps",)
    blind = held_out(sleeping, dataset, device=CPU).image_test
    assert looking is not None
    assert blind is not None
    assert looking.samples == 28
    assert looking.matched == pytest.approx(0, abs=1e-10)
    assert looking.increase[0] > 0.5
    assert blind.matched == pytest.approx(blind.swapped)
    assert blind.increase == (0, 0)


def test_no_cameras_no_image_test() -> None:
    spec = RobotSpec("tiny", (), AXES, AXES)
    episode = make_episode(0, 9)
    dataset = make_dataset([Episode({}, episode.state, episode.action, episode.reward, True)], spec)
    agent = Reader(dataset.normalizer)
    agent.modes = ("sleeps",)
    assert held_out(agent, dataset, device=CPU).image_test is None


class ChunkReader(Reader):
    """Knows the next three actions of this one episode, and answers with nonsense past its end."""

    modes = ("knows",)

    def __init__(self, dataset: Dataset) -> None:
        super().__init__(dataset.normalizer, Chunks(3))
        episode = dataset.recording.episodes[0]
        states = dataset.normalizer.encode_state(episode.state)
        actions = dataset.normalizer.encode_action(episode.action[:, None], episode.state)[:, 0]
        self._known = {row.tobytes(): actions[index : index + 3] for index, row in enumerate(states)}

    def act(self, obs: Obs, mode: str | None = None) -> Tensor:
        out = torch.full((len(obs.state), 3, 3), 1e3)
        for index, row in enumerate(obs.state.numpy()):
            known = self._known[row.tobytes()]
            out[index, : len(known)] = torch.from_numpy(known)
        return out


def test_only_the_valid_steps_of_a_chunk_count() -> None:
    dataset = make_dataset([make_episode(0, 6)])
    found = held_out(ChunkReader(dataset), dataset, device=CPU, batch_size=4)
    assert found.samples == 6
    assert found.errors["knows"].mse == 0
    assert found.errors["knows"].mae == pytest.approx((0, 0, 0), abs=1e-5)
    assert found.image_test is not None
    assert found.image_test.matched == 0


class Remembering(ChunkReader):
    """Has a latent that keeps everything but a constant."""

    def reconstruct(self, batch: Batch) -> Tensor:
        return batch.action + 0.5


def test_what_comes_back_through_a_latent_stands_apart_from_how_the_policy_acts() -> None:
    dataset = make_dataset([make_episode(0, 6)])
    plain, remembering = (held_out(kind(dataset), dataset, device=CPU) for kind in (ChunkReader, Remembering))
    assert plain.reconstruction is None
    assert "valid/reconstruction_error" not in metrics(plain)
    assert remembering.reconstruction is not None
    assert remembering.reconstruction.mse == pytest.approx(0.25, rel=1e-4)
    assert metrics(remembering)["valid/reconstruction_error"] == remembering.reconstruction.mse
    assert remembering.errors == plain.errors
    assert HeldOut.from_dict(json.loads(json.dumps(remembering.to_dict()))) == remembering


def test_values_are_held_against_returns(dataset: Dataset) -> None:
    found = held_out(Knowing(dataset.normalizer), dataset, device=CPU, batch_size=5)
    calibration = found.calibration
    assert calibration is not None
    assert calibration.spearman == pytest.approx(1)
    assert calibration.bias == pytest.approx(0.5)
    assert calibration.gap == pytest.approx(0.25)
    assert calibration.returns == pytest.approx((0.5**11, 1))
    assert calibration.q == pytest.approx((0.5 + 0.5**11, 1.5))
    assert np.subtract(calibration.predicted, calibration.realised) == pytest.approx(0.5)
    bright = np.concatenate([episode.images["top"][:, 0, 0, 0] for episode in dataset.recording.episodes]) > 127.5
    action = np.concatenate([episode.action for episode in dataset.recording.episodes])
    assert calibration.positive_advantage == pytest.approx(bright.mean())
    assert found.errors_positive["looks"].samples == bright.sum()
    expected = np.abs(action[bright] - action.mean(0)).mean(0)
    assert found.errors_positive["mean"].mae == pytest.approx(expected, rel=1e-5)


def test_the_curve_has_one_point_per_tenth() -> None:
    q = np.arange(100.0)
    found = calibrate({"q": q, "return": -q, "q_pi": q, "advantage": -q})
    assert found.spearman == pytest.approx(-1)
    assert found.predicted == pytest.approx(np.arange(10) * 10 + 4.5)
    assert found.realised == pytest.approx(-(np.arange(10) * 10 + 4.5))
    assert found.positive_advantage == 0


def test_metrics_keep_their_keys(dataset: Dataset) -> None:
    agent = Knowing(dataset.normalizer)
    row = metrics(held_out(agent, dataset, device=CPU))
    assert row["valid/action_error"] == row["valid/action_error_looks"]
    assert row["valid/action_error_hold"] > row["valid/action_error"]
    assert row["valid/q_spearman"] == pytest.approx(1)
    rewardless = make_dataset([make_episode(1, 2, terminated=False)])
    single = metrics(held_out(agent, rewardless, device=CPU))
    assert math.isnan(single["valid/q_spearman"])
    assert set(single) == set(row) - {"valid/action_error_swapped_images"}
    assert "valid/q_spearman" not in metrics(held_out(Reader(dataset.normalizer), dataset, device=CPU))


def test_the_record_survives_json(dataset: Dataset) -> None:
    found = held_out(Knowing(dataset.normalizer), dataset, device=CPU)
    text = json.dumps(found.to_dict(), allow_nan=False)
    assert HeldOut.from_dict(json.loads(text)) == found


def test_nothing_defined_becomes_null_and_nan_again(dataset: Dataset) -> None:
    agent = Knowing(dataset.normalizer)
    agent.judge = lambda batch: dict.fromkeys(("q", "q_pi", "v", "advantage"), torch.zeros(batch.size))  # type: ignore[method-assign]
    found = held_out(agent, dataset, device=CPU)
    again = HeldOut.from_dict(json.loads(json.dumps(found.to_dict(), allow_nan=False)))
    assert again.errors_positive["looks"].samples == 0
    assert math.isnan(again.errors_positive["looks"].mse)
    assert again.calibration is not None
    assert math.isnan(again.calibration.spearman)


def test_few_episodes_are_remarked(dataset: Dataset) -> None:
    assert "only 3 held-out episodes" in str(held_out(Reader(dataset.normalizer), dataset, device=CPU).remark)
    many = make_dataset([make_episode(seed, 3) for seed in range(20)])
    assert held_out(Reader(many.normalizer), many, device=CPU).remark is None


def test_the_limit_thins_and_the_seed_repeats(dataset: Dataset) -> None:
    agent = Reader(dataset.normalizer)
    first = held_out(agent, dataset, device=CPU, limit=10, seed=3)
    assert first.samples == 10
    assert first == held_out(agent, dataset, device=CPU, limit=10, seed=3, batch_size=3)
    assert first.image_test != held_out(agent, dataset, device=CPU, limit=10, seed=4).image_test


def test_random_states_stay_untouched(dataset: Dataset) -> None:
    state = torch.random.get_rng_state()
    before = np.random.get_state()[1].copy()  # type: ignore[index,union-attr]
    held_out(Knowing(dataset.normalizer), dataset, device=CPU)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert np.array_equal(np.random.get_state()[1], before)  # type: ignore[index]


def test_nothing_to_judge_is_an_error() -> None:
    dataset = make_dataset([make_episode(0, 1, terminated=False)])
    with pytest.raises(DataError, match=r"tiny\.hdf5: no held-out samples; keep at least one episode"):
        held_out(Reader(dataset.normalizer), dataset, device=CPU)
