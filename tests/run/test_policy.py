"""A policy from a run: physical actions, no dataset, and errors that name what does not fit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import lapwing
from lapwing.batch import Obs
from lapwing.data.formats import read_recording
from lapwing.data.frames import FrameStore
from lapwing.episode import Observation, Recording
from lapwing.errors import CheckpointError, ConfigError, SpecError
from lapwing.run.checkpoint import find_checkpoint, load_acting
from lapwing.run.policy import Policy, load_policy

Train = Callable[..., Path]


@pytest.fixture
def run(train_small: Train) -> Path:
    return train_small("run", steps=3)


@pytest.fixture
def recording(tiny_flat: Path) -> Recording:
    return read_recording(tiny_flat)


@pytest.fixture
def observation(recording: Recording) -> Observation:
    return observe(recording, 2)


def observe(recording: Recording, rows: Any) -> Observation:
    episode = recording.episodes[3]
    return Observation({name: np.array(frames[rows]) for name, frames in episode.images.items()}, episode.state[rows])


def changed(observation: Observation, **images: Any) -> Observation:
    """With other images, or without those that are None."""
    both = {**observation.images, **images}
    return Observation({name: frames for name, frames in both.items() if frames is not None}, observation.state)


def test_three_lines_give_an_action_without_the_dataset(run: Path, observation: Observation, tiny_flat: Path) -> None:
    tiny_flat.unlink()
    policy = lapwing.load_policy(run)
    policy.reset()
    action = policy({"images": observation.images, "state": observation.state})
    assert (action.shape, action.dtype) == ((3,), np.float32)
    assert np.isfinite(action).all()


def test_the_action_is_the_agents_in_physical_units(run: Path, observation: Observation) -> None:
    agent, _, normalizer, _ = load_acting(find_checkpoint(run))
    obs = Obs(
        {name: torch.tensor(frames)[None] for name, frames in observation.images.items()},
        torch.tensor(normalizer.encode_state(observation.state))[None],
    )
    encoded = agent.act(obs, "z0").numpy()
    expected = normalizer.decode_action(encoded, observation.state[None])[0, 0]
    np.testing.assert_array_equal(load_policy(run, mode="z0")(observation), expected)


def test_acting_is_deterministic_and_stays_in_the_training_range(run: Path, recording: Recording) -> None:
    policy = load_policy(run)
    before = torch.get_rng_state()
    actions = [policy(observe(recording, row)) for row in (0, 3, 0)]
    np.testing.assert_array_equal(actions[0], actions[2])
    assert not np.array_equal(actions[0], actions[1])
    assert torch.equal(before, torch.get_rng_state())
    _, _, normalizer, _ = load_acting(find_checkpoint(run))
    assert (actions >= normalizer.action_low).all()
    assert (actions <= normalizer.action_high).all()


def test_a_batch_gives_what_its_observations_give(run: Path, recording: Recording) -> None:
    policy = load_policy(run)
    together = policy(observe(recording, slice(0, 4)))
    alone = np.stack([policy(observe(recording, row)) for row in range(4)])
    assert together.shape == (4, 3)
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_the_order_of_the_cameras_does_not_matter(run: Path, observation: Observation) -> None:
    policy = load_policy(run)
    swapped = Observation(dict(reversed(list(observation.images.items()))), observation.state)
    np.testing.assert_array_equal(policy(observation), policy(swapped))


class Seer:
    """Remembers what it was shown."""

    modes = ("see",)

    def act(self, obs: Obs, mode: str | None = None) -> torch.Tensor:
        self.seen = {name: frames.numpy() for name, frames in obs.images.items()}
        return torch.zeros(len(obs.state), 1, 3)


@pytest.mark.parametrize("size", [5, 11])
def test_frames_of_the_recorded_size_are_resized_as_for_training(
    run: Path, recording: Recording, tmp_path: Path, size: int
) -> None:
    _, spec, normalizer, _ = load_acting(find_checkpoint(run))
    store = FrameStore.open(recording, size, tmp_path / "cache", progress=False)
    seer = Seer()
    policy = Policy(seer, replace(spec, cameras=store.cameras), normalizer)
    rows = store.row_of_episode[3] + np.arange(3)
    for seen_rows, stored_rows in ((slice(0, 3), rows), (1, rows[1:2])):
        policy.reset()
        policy(observe(recording, seen_rows))
        for name, frames in seer.seen.items():
            assert frames.shape[1:] == (size, size, 3)
            np.testing.assert_array_equal(frames, store.gather(name, stored_rows))


def test_frames_that_may_not_be_written_are_copied(run: Path, observation: Observation) -> None:
    """As they come from a memory map; PyTorch would warn, and a warning is an error here."""
    locked = {name: frames.copy() for name, frames in observation.images.items()}
    for frames in locked.values():
        frames.flags.writeable = False
    expected = load_policy(run)(observation)
    np.testing.assert_array_equal(load_policy(run)(Observation(locked, observation.state)), expected)


class Counter:
    """Predicts chunks of three that say how often it was asked, and which action of the chunk it is."""

    modes = ("count",)

    def __init__(self) -> None:
        self.asked = 0

    def act(self, obs: Obs, mode: str | None = None) -> torch.Tensor:
        self.asked += 1
        size = len(obs.state)
        chunk = torch.tensor([[self.asked, place, 0.0] for place in range(3)])
        return chunk.expand(size, 3, 3)


@pytest.fixture
def counting(run: Path) -> Policy:
    _, spec, normalizer, _ = load_acting(find_checkpoint(run))
    plain = replace(
        normalizer,
        action_offset=np.zeros(3, np.float32),
        action_scale=np.ones(3, np.float32),
        action_low=np.full(3, -9, np.float32),
        action_high=np.full(3, 9, np.float32),
    )
    return Policy(Counter(), spec, plain)


def test_a_chunk_is_played_out_before_the_agent_is_asked_again(counting: Policy, observation: Observation) -> None:
    played = [counting(observation)[:2].tolist() for _ in range(5)]
    assert played == [[1, 0], [1, 1], [1, 2], [2, 0], [2, 1]]


def test_reset_drops_the_rest_of_a_chunk(counting: Policy, observation: Observation) -> None:
    counting(observation)
    counting.reset()
    assert counting(observation)[:2].tolist() == [2, 0]


def test_another_batch_size_amid_a_chunk_is_refused(counting: Policy, recording: Recording) -> None:
    counting(observe(recording, slice(0, 2)))
    with pytest.raises(SpecError, match=r"batch of 3 amid a chunk for 2; call reset\(\) first"):
        counting(observe(recording, slice(0, 3)))


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ({"left": None}, "images: cameras global, right, expected left, right, global"),
        ({"wrist": np.zeros((8, 6, 3), np.uint8)}, "images: cameras global, left, right, wrist, expected left"),
        ({"left": np.zeros((8, 6, 3), np.float32)}, "camera 'left' is float32, expected uint8 RGB"),
        ({"right": np.zeros((8, 6), np.uint8)}, r"camera 'right' has shape \[8, 6\], expected 8 x 6 x 3"),
        ({"right": np.zeros((3, 8, 6), np.uint8)}, r"camera 'right' has shape \[3, 8, 6\], expected 8 x 6 x 3, or an"),
        ({"right": np.zeros((8, 0, 3), np.uint8)}, r"camera 'right' has shape \[8, 0, 3\]"),
        ({"right": np.zeros((2, 8, 6, 3), np.uint8)}, r"camera 'right' has shape \[2, 8, 6, 3\]"),
    ],
)
def test_images_that_do_not_fit_are_refused_by_name(
    run: Path, observation: Observation, images: dict[str, Any], message: str
) -> None:
    with pytest.raises(SpecError, match=message):
        load_policy(run)(changed(observation, **images))


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (np.zeros(4), r"state: shape \[4\], expected 5 values; the policy was trained on robot 'tiny'"),
        (np.zeros((1, 1, 5)), r"state: shape \[1, 1, 5\], expected 5 values"),
        (np.array([0, 0, np.nan, 0, 0]), "state: axis 'shoulder' is not a finite number"),
        (np.array([0, 0, 0, np.inf, 0]), "state: axis 'elbow' is not a finite number"),
    ],
)
def test_a_state_that_does_not_fit_is_refused_by_name(
    run: Path, observation: Observation, state: Any, message: str
) -> None:
    with pytest.raises(SpecError, match=message):
        load_policy(run)(Observation(observation.images, state))


def test_an_observation_without_a_part_is_refused(run: Path, observation: Observation) -> None:
    with pytest.raises(SpecError, match="observation: state missing; expected 'images' and 'state'"):
        load_policy(run)({"images": observation.images})


def test_an_unknown_mode_is_refused(run: Path) -> None:
    with pytest.raises(ConfigError, match="mode 'luck' does not exist here; choose one of pi, z0, bc"):
        load_policy(run, mode="luck")


def test_a_device_that_is_not_there_is_refused(run: Path) -> None:
    with pytest.raises(ConfigError, match=r"device: 'cuda:99' cannot be used here"):
        load_policy(run, device="cuda:99")


def test_a_run_without_checkpoints_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="not a run or checkpoint"):
        load_policy(tmp_path)


def test_the_package_says_its_version_and_no_more_than_it_has() -> None:
    assert lapwing.__version__.count(".") == 2
    with pytest.raises(AttributeError, match="module 'lapwing' has no attribute 'luck'"):
        lapwing.luck  # noqa: B018


@pytest.mark.parametrize("state", [["a"] * 5, "abc", [[1, 2], [3]], {"a": 1}])
def test_a_state_that_is_no_numbers_is_refused(run: Path, observation: Observation, state: Any) -> None:
    with pytest.raises(SpecError, match=r"state: not numbers .*, expected 5 values"):
        load_policy(run)({"images": observation.images, "state": state})


@pytest.mark.parametrize("images", [None, [1, 2, 3], np.zeros((8, 6, 3), np.uint8)])
def test_images_that_are_no_mapping_are_refused(run: Path, observation: Observation, images: Any) -> None:
    with pytest.raises(SpecError, match=r"images: a .*, expected a mapping of camera names"):
        load_policy(run)({"images": images, "state": observation.state})


def test_what_is_no_observation_is_refused(run: Path, observation: Observation) -> None:
    with pytest.raises(SpecError, match="observation: a NoneType, expected a mapping with 'images' and 'state'"):
        load_policy(run)(None)
    with pytest.raises(SpecError, match="images: cameras 3, global, right, expected left, right, global"):
        load_policy(run)(_renamed(observation))


def _renamed(observation: Observation) -> Observation:
    images: dict[Any, Any] = {3 if name == "left" else name: frames for name, frames in observation.images.items()}
    return Observation(images, observation.state)


def test_no_action_leaves_that_is_not_a_number(run: Path, observation: Observation) -> None:
    far = Observation(observation.images, np.full(5, 1e30, np.float32))
    with pytest.raises(SpecError, match="action: axis 'shoulder' came out as no finite number"):
        load_policy(run)(far)


def test_an_infinite_action_is_not_sent_as_the_end_of_its_range(run: Path, observation: Observation) -> None:
    agent, spec, normalizer, _ = load_acting(find_checkpoint(run))
    actions = torch.zeros(1, 1, spec.action_dim)
    actions[..., 1] = torch.inf
    agent.act = lambda *_: actions  # type: ignore[method-assign]
    with pytest.raises(SpecError, match=f"action: axis '{spec.action[1].name}' came out as no finite number"):
        Policy(agent, spec, normalizer)(observation)
