"""What a valid sample is, and drawing samples."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lapwing.agent import Chunks, Transitions
from lapwing.data.dataset import Dataset, Split, split_episodes
from lapwing.data.frames import FrameStore
from lapwing.data.normalize import Normalizer
from lapwing.errors import ConfigError, DataError

KINDS = st.lists(st.tuples(st.integers(1, 9), st.booleans(), st.booleans()), min_size=1, max_size=6)


def dataset_of(recording, episodes=None):
    chosen = range(len(recording.episodes)) if episodes is None else episodes
    normalizer = Normalizer.fit([recording.episodes[index] for index in chosen], recording.spec)
    return Dataset(recording, FrameStore.open(recording), chosen, normalizer)


@pytest.fixture
def dataset(tiny_recording):
    return dataset_of(tiny_recording)


def samples(dataset, sampling):
    """(episode, step, index in the batch, batch) of every sample, read off the first camera's pixels."""
    for batch, rows in dataset.ordered(sampling, batch_size=5):
        marks = batch.obs.images["left"][:, 0, 0].tolist()
        assert dataset.episode_of(rows).tolist() == [mark[0] for mark in marks]
        for index, (episode, step, _) in enumerate(marks):
            yield episode, step, index, batch


@settings(deadline=None, max_examples=60)
@given(kinds=KINDS, n_step=st.integers(1, 5), gamma=st.sampled_from([0.0, 0.5, 0.99, 1.0]))
def test_transitions_stay_inside_their_episode(make_recording, kinds, n_step, gamma):
    recording = make_recording(kinds)
    seen = []
    for number, step, index, batch in samples(dataset_of(recording), Transitions(n_step, gamma)):
        seen.append((number, step))
        episode = recording.episodes[number]
        usable = episode.num_rows - 1 if not episode.terminated else episode.num_steps
        taken = min(n_step, usable - step)
        by_hand = sum(gamma**ahead * float(episode.reward[step + ahead]) for ahead in range(taken))
        to_the_end = sum(gamma**ahead * float(one) for ahead, one in enumerate(episode.reward[step:]))
        assert batch.reward[index].item() == pytest.approx(by_hand, abs=1e-5)
        assert batch.mc_return[index].item() == pytest.approx(to_the_end, abs=1e-5)
        next_episode, next_row, _ = batch.next_obs.images["left"][index, 0, 0].tolist()
        assert next_episode == number
        if episode.terminated and step + taken == episode.num_steps:
            assert batch.discount[index] == 0
        else:
            assert next_row == step + taken < episode.num_rows
            assert batch.discount[index].item() == pytest.approx(gamma**taken)
    expected = [
        (number, step)
        for number, episode in enumerate(recording.episodes)
        for step in range(episode.num_steps if episode.terminated else episode.num_rows - 1)
    ]
    assert seen == expected


@settings(deadline=None, max_examples=40)
@given(kinds=KINDS, horizon=st.integers(1, 12))
def test_chunks_stay_inside_their_episode(make_recording, kinds, horizon):
    recording = make_recording(kinds)
    dataset = dataset_of(recording)
    seen = []
    for number, step, index, batch in samples(dataset, Chunks(horizon)):
        seen.append((number, step))
        episode = recording.episodes[number]
        steps = step + np.arange(horizon)
        chunk = episode.action[np.minimum(steps, episode.num_steps - 1)]
        encoded = dataset.normalizer.encode_action(chunk, episode.state[step])
        np.testing.assert_array_equal(batch.action[index].numpy(), encoded)
        assert batch.is_pad[index].tolist() == (steps >= episode.num_steps).tolist()
    assert seen == [(number, step) for number, one in enumerate(recording.episodes) for step in range(one.num_steps)]
    assert batch.next_obs is None


@settings(deadline=None, max_examples=60)
@given(kinds=KINDS, horizon=st.integers(2, 6), more=st.integers(0, 3))
def test_transitions_of_many_actions_never_reach_past_a_cut(make_recording, kinds, horizon, more):
    recording, n_step = make_recording(kinds), horizon + more
    dataset, seen = dataset_of(recording), []
    for number, step, index, batch in samples(dataset, Transitions(n_step, 0.5, horizon)):
        seen.append((number, step))
        episode = recording.episodes[number]
        steps = step + np.arange(horizon)
        chunk = episode.action[np.minimum(steps, episode.num_steps - 1)]  # past the end of the task the last is held
        encoded = dataset.normalizer.encode_action(chunk, episode.state[step])
        np.testing.assert_array_equal(batch.action[index].numpy(), encoded)
        assert batch.is_pad[index].tolist() == (steps >= episode.num_steps).tolist()
        assert episode.terminated or not batch.is_pad[index].any()
        taken = min(n_step, (episode.num_steps if episode.terminated else episode.num_rows - 1) - step)
        ends = episode.terminated and step + taken == episode.num_steps
        assert batch.discount[index].item() == pytest.approx(0 if ends else 0.5**taken)
        by_hand = sum(0.5**ahead * float(episode.reward[step + ahead]) for ahead in range(taken))
        assert batch.reward[index].item() == pytest.approx(by_hand, abs=1e-5)
    assert seen == [
        (number, step)
        for number, one in enumerate(recording.episodes)
        for step in range(one.num_steps if one.terminated else max(one.num_rows - horizon, 0))
    ]


@given(observed_end=st.booleans())
@settings(deadline=None)
def test_a_cut_episode_never_bootstraps_from_a_frame_nobody_recorded(make_recording, observed_end):
    dataset = dataset_of(make_recording([(4, False, observed_end)]))
    steps = [step for _, step, _, _ in samples(dataset, Transitions())]
    assert steps == ([0, 1, 2, 3] if observed_end else [0, 1, 2])


def test_termination_ends_the_value(make_recording):
    dataset = dataset_of(make_recording([(3, True, False), (3, True, True)]))
    discounts = [batch.discount[index].item() for _, _, index, batch in samples(dataset, Transitions(1, 0.5))]
    assert discounts == [0.5, 0.5, 0.0, 0.5, 0.5, 0.0]


def test_a_step_of_a_chunk_carries_its_own_reward(tiny_recording, dataset):
    for number, step, index, batch in samples(dataset, Chunks(3)):
        episode = tiny_recording.episodes[number]
        assert batch.reward[index] == episode.reward[step]
        assert batch.discount[index] == (0 if episode.terminated and step == episode.num_steps - 1 else 1)
        assert batch.mc_return[index].item() == pytest.approx(episode.reward[step:].sum(), abs=1e-5)


def test_all_cameras_and_the_state_show_the_same_row(dataset):
    batch = next(dataset.stream(Transitions(), 16, seed=1))
    for obs in (batch.obs, batch.next_obs):
        marks = [image[:, 0, 0].numpy() for image in obs.images.values()]
        assert [mark[0, 2] for mark in marks] == [0, 1, 2]
        state = obs.state.numpy() * dataset.normalizer.state_scale + dataset.normalizer.state_offset
        for mark in marks:
            np.testing.assert_allclose(state[:, :2], mark[:, :2], atol=1e-4)


def test_a_batch_is_of_tensors_as_declared(dataset):
    batch = next(dataset.stream(Transitions(), 7, seed=0))
    assert batch.obs.images["right"].shape == (7, 8, 6, 3)
    assert batch.obs.images["right"].dtype == torch.uint8
    assert batch.action.shape == (7, 1, 3)
    assert batch.is_pad.dtype == torch.bool
    for tensor in (batch.obs.state, batch.action, batch.reward, batch.discount, batch.mc_return):
        assert tensor.dtype == torch.float32
    assert tuple(batch.obs.images) == dataset.spec.camera_names


def test_ordered_thins_evenly_to_the_limit(dataset):
    total = dataset.num_samples(Chunks())
    rows = np.concatenate([rows for _, rows in dataset.ordered(Chunks(), 4, limit=10)])
    assert len(rows) == len(set(rows.tolist())) == 10
    assert {0, total - 1} <= set(rows.tolist())
    assert np.diff(rows).max() <= -(-total // 9)
    assert sum(batch.size for batch, _ in dataset.ordered(Chunks(), 4, limit=10_000)) == total


def test_a_stream_continues_where_it_was_left(dataset):
    whole = list(islice(dataset.stream(Transitions(), 6, seed=3), 8))
    rest = list(islice(dataset.stream(Transitions(), 6, seed=3, start=5), 3))
    for expected, got in zip(whole[5:], rest, strict=True):
        assert torch.equal(expected.action, got.action)
        assert torch.equal(expected.next_obs.images["global"], got.next_obs.images["global"])
    assert not torch.equal(whole[0].action, whole[1].action)
    other_seed = next(dataset.stream(Transitions(), 6, seed=4))
    assert not torch.equal(whole[0].action, other_seed.action)


def test_processes_share_what_one_would_draw(dataset):
    alone = next(dataset.stream(Transitions(), 8, seed=3, start=2))
    parts = [next(dataset.stream(Transitions(), 8, seed=3, start=2, rank=rank, world_size=2)) for rank in (0, 1)]
    assert [part.size for part in parts] == [4, 4]
    assert not torch.equal(parts[0].action, parts[1].action)
    together = torch.stack([part.action for part in parts], 1).flatten(0, 1)
    assert torch.equal(together, alone.action)


def test_every_sample_is_drawn_about_equally_often(dataset):
    total = dataset.num_samples(Chunks())
    counts = np.zeros((6, 9))
    for batch in islice(dataset.stream(Chunks(), total, seed=0), 200):
        marks = batch.obs.images["left"][:, 0, 0].numpy()
        np.add.at(counts, (marks[:, 0], marks[:, 1]), 1)
    drawn = counts[counts > 0]
    assert len(drawn) == total
    assert drawn.min() > 130
    assert drawn.max() < 280


def test_a_dataset_holds_its_own_episodes_only(tiny_recording):
    dataset = dataset_of(tiny_recording, (1, 4))
    assert {number for number, *_ in samples(dataset, Chunks())} == {1, 4}
    assert dataset.num_samples(Chunks()) == 5 + 8


def test_raw_gives_physical_numbers_of_a_row(tiny_recording):
    dataset = dataset_of(tiny_recording, (0, 2, 5))
    for batch, rows in dataset.ordered(Chunks(), 50):
        state, action = dataset.raw(rows)
        np.testing.assert_array_equal(state[:, 0], dataset.episode_of(rows))
        for one_state, one_action in zip(state, action, strict=True):
            np.testing.assert_array_equal(
                one_action, tiny_recording.episodes[int(one_state[0])].action[int(one_state[1])]
            )
        assert batch.size == len(rows)


def test_batches_without_cameras(tiny_recording, tiny_spec):
    episodes = tuple(replace(one, images={}) for one in tiny_recording.episodes)
    recording = replace(tiny_recording, spec=replace(tiny_spec, cameras=()), episodes=episodes)
    batch = next(dataset_of(recording).stream(Transitions(), 4, seed=0))
    assert batch.obs.images == batch.next_obs.images == {}
    assert batch.next_obs.state.shape == (4, 5)


def test_transitions_need_rewards(tiny_recording):
    episodes = tuple(replace(one, reward=None) for one in tiny_recording.episodes)
    dataset = dataset_of(replace(tiny_recording, episodes=episodes, path=Path("d.hdf5")))
    assert not dataset.has_reward
    with pytest.raises(DataError, match=r"d.hdf5: no rewards in episode 0, which this algorithm needs in all; add"):
        dataset.stream(Transitions(), 4, seed=0)
    assert next(dataset.stream(Chunks(2), 4, seed=0)).reward.tolist() == [0, 0, 0, 0]


def test_chunks_longer_than_cut_episodes_are_refused(tiny_recording):
    episodes = tuple(replace(one, terminated=False) for one in tiny_recording.episodes)
    dataset = dataset_of(replace(tiny_recording, episodes=episodes))
    with pytest.raises(DataError, match="no episode of this split has 50 steps and an observation after"):
        dataset.stream(Transitions(50, horizon=50), 4, seed=0)


def test_a_batch_larger_than_the_dataset_is_refused(dataset):
    with pytest.raises(DataError, match="37 samples in this split, fewer than the batch size 64"):
        dataset.stream(Transitions(), 64, seed=0)


def test_a_batch_that_processes_cannot_share_is_refused(dataset):
    with pytest.raises(ConfigError, match="batch_size: got 5, expected a multiple of the 2 processes"):
        dataset.stream(Transitions(), 5, seed=0, world_size=2)


def test_an_empty_split_is_refused(tiny_recording, dataset):
    with pytest.raises(DataError, match="no episode in this split"):
        Dataset(tiny_recording, FrameStore.open(tiny_recording), (), dataset.normalizer)


@given(count=st.integers(1, 60), fraction=st.floats(0.01, 1.0, exclude_max=True), seed=st.integers(0, 99))
def test_a_split_divides_all_episodes(count, fraction, seed):
    split = split_episodes(count, fraction, seed)
    assert sorted(split.train + split.valid) == list(range(count))
    assert split == split_episodes(count, fraction, seed)
    assert len(split.train) >= 1
    assert (len(split.valid) >= 1) == (count >= 2)
    assert abs(len(split.train) - fraction * count) <= 1


def test_a_fraction_of_one_holds_nothing_out():
    assert split_episodes(3, 1.0) == Split((0, 1, 2), ())


def test_a_split_follows_its_seed():
    assert split_episodes(40, seed=1) != split_episodes(40, seed=2)


@pytest.mark.parametrize("fraction", [0.0, -1.0, 1.5, float("nan")])
def test_a_split_outside_its_range_is_refused(fraction):
    with pytest.raises(ConfigError, match=r"train_fraction: got .* expected above 0"):
        split_episodes(10, fraction)


def test_drawing_by_episode_gives_short_ones_the_same_chance(make_recording):
    dataset = dataset_of(make_recording([(2, True, False), (18, True, False)]))
    shares = {}
    for by_episode in (False, True):
        batches = islice(dataset.stream(Chunks(3, by_episode), 20, seed=0), 100)
        marks = np.concatenate([batch.obs.images["left"][:, 0, 0].numpy() for batch in batches])
        shares[by_episode] = (marks[:, 0] == 0).mean()
        of_long = marks[marks[:, 0] == 1][:, 1]
        assert np.array_equal(np.unique(of_long), np.arange(18))  # every start comes up
    assert shares[False] == pytest.approx(0.1, abs=0.03)
    assert shares[True] == pytest.approx(0.5, abs=0.04)


@pytest.mark.parametrize("sampling", [Transitions(2, 0.9), Chunks(3)])
def test_where_somebody_took_over_that_alone_was_demonstrated(make_recording, sampling):
    recording = make_recording([(4, True, True), (3, False, False)])
    assert all(batch.demonstrated is None for *_, batch in samples(dataset_of(recording), sampling))
    policy_alone, corrected = recording.episodes
    marked = replace(policy_alone, intervened=np.zeros(4, bool)), replace(corrected, intervened=np.arange(3) == 1)
    dataset = dataset_of(replace(recording, episodes=marked))
    found = {(one, step): bool(batch.demonstrated[at]) for one, step, at, batch in samples(dataset, sampling)}
    assert found == {(one, step): one == 0 or step == 1 for one, step in found}
    assert {(0, 3), (1, 0), (1, 1)} <= found.keys()
