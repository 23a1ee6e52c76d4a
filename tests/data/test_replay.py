"""The replay buffer: input it refuses, frames on disk, drawing while others write, and agreement with a dataset."""

from __future__ import annotations

import sys
import threading
from collections import Counter
from dataclasses import replace
from itertools import islice
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from replay_world import SPEC, buffer, fill, numbers, observation, plain_normalizer

from lapwing.agent import Transitions
from lapwing.data.dataset import Dataset
from lapwing.data.frames import FrameStore, resize
from lapwing.data.normalize import Normalizer
from lapwing.data.replay import ReplayBuffer
from lapwing.errors import ConfigError, DataError, SpecError
from lapwing.spec import Camera

ONE = Transitions(1, 0.9)


def drawn(replay, sampling=ONE, size=16, count=1, **more):
    return list(islice(replay.stream(sampling, size, seed=3, **more), count))


def all_equal(first, second):
    """Whether two batches are the same to the bit."""
    for one, other in ((first.obs, second.obs), (first.next_obs, second.next_obs)):
        if not torch.equal(one.state, other.state) or numbers(one) != numbers(other):
            return False
    names = ("action", "is_pad", "reward", "discount", "mc_return", "grasp_penalty")
    return all(torch.equal(getattr(first, name), getattr(second, name)) for name in names)


@pytest.mark.parametrize("kinds", [[(6, True, False), (4, False, False), (5, False, True), (7, True, True)]])
@pytest.mark.parametrize("sampling", [Transitions(1, 0.95), Transitions(3, 0.5)])
def test_numbers_are_those_of_a_dataset(make_recording, kinds, sampling):
    """Recorded episodes: states and actions normalised alike, the same windows, ends and returns."""
    recording = make_recording(kinds)
    normalizer = Normalizer.fit(recording.episodes, recording.spec)
    dataset = Dataset(recording, FrameStore.open(recording), range(len(kinds)), normalizer)
    replay = ReplayBuffer(recording.spec, normalizer, capacity=50)
    for episode in recording.episodes:
        replay.extend(episode)
    assert len(replay) == dataset.num_samples(sampling)
    (expected, _), *_ = dataset.ordered(sampling, batch_size=100)
    place = {tuple(state): index for index, state in enumerate(expected.obs.state.tolist())}
    (batch,) = drawn(replay, sampling, size=300)
    found = [place[tuple(state)] for state in batch.obs.state.tolist()]
    assert set(found) == set(place.values())
    for name in ("action", "reward", "discount", "mc_return", "is_pad"):
        torch.testing.assert_close(getattr(batch, name), getattr(expected, name)[found], atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(batch.next_obs.state, expected.next_obs.state[found])
    for name in recording.spec.camera_names:
        assert torch.equal(batch.obs.images[name], expected.obs.images[name][found])
        assert torch.equal(batch.next_obs.images[name], expected.next_obs.images[name][found])


def test_a_batch_by_hand():
    replay = buffer()
    replay.begin(observation(0))
    for number, reward in ((1, 1.0), (2, 2.0), (3, 4.0)):
        replay.add(np.array([number, 0]), reward, number == 3, False, observation(number), False, -0.1 * number)
    (batch,) = drawn(replay, Transitions(2, 0.5), size=64)
    by_begin = dict(zip(numbers(batch.obs), range(64), strict=True))
    told = {
        begin: [
            round(getattr(batch, name)[index].item(), 6)
            for name in ("reward", "discount", "mc_return", "grasp_penalty")
        ]
        for begin, index in by_begin.items()
    }
    assert told == {0: [2.0, 0.25, 3.0, -0.2], 1: [4.0, 0.0, 4.0, -0.35], 2: [4.0, 0.0, 4.0, -0.3]}
    assert numbers(batch.next_obs)[by_begin[0]] == 2
    assert batch.action.shape == (64, 1, 2)
    assert not batch.is_pad.any()


def test_a_cut_is_neither_the_end_of_the_task_nor_a_bridge_to_the_next_episode():
    replay = buffer()
    replay.begin(observation(0))
    replay.add(np.zeros(2), 1.0, False, True, observation(1))
    replay.begin(observation(10))
    replay.add(np.zeros(2), 1.0, True, False, observation(11))
    (batch,) = drawn(replay, Transitions(5, 0.5), size=64)
    for begin, after, discount in zip(numbers(batch.obs), numbers(batch.next_obs), batch.discount, strict=True):
        assert (begin, after, discount.item()) in {(0, 1, 0.5), (10, 11, 0.0)}


def test_every_transition_has_the_same_chance():
    """Also where few of the rows held have one that leads to them."""
    replay = buffer(400)
    for number in range(0, 300, 2):
        replay.begin(observation(number))
    fill(replay, 9, first=300)
    counts = Counter(begin for batch in drawn(replay, size=900, count=10) for begin in numbers(batch.obs))
    assert len(counts) == len(replay) == 9
    assert max(abs(count - 1000) for count in counts.values()) < 150  # 5 standard deviations


def test_batches_follow_from_seed_number_and_content():
    replay = buffer(40)
    fill(replay, 60)
    three = drawn(replay, count=3)
    assert all_equal(drawn(replay, start=2)[0], three[2])
    assert not all_equal(three[0], three[1])
    halves = [drawn(replay, rank=rank, world_size=2)[0] for rank in range(2)]
    together = [number for pair in zip(*(numbers(half.obs) for half in halves), strict=True) for number in pair]
    assert together == numbers(three[0].obs)
    with pytest.raises(ConfigError, match="asked for 2 actions at once, expected 1"):
        replay.stream(Transitions(horizon=2), 4, seed=3)
    with pytest.raises(ConfigError, match=r"batch_size: got 15, expected a multiple of the 2 processes"):
        replay.stream(ONE, 15, seed=0, world_size=2)


def test_a_batch_is_drawn_from_what_there_is_when_it_is_asked_for():
    replay = buffer()
    stream = replay.stream(ONE, 64, seed=0)
    with pytest.raises(DataError, match=r"no transition to draw from; add some before drawing"):
        next(stream)
    fill(replay, 2)
    assert set(numbers(drawn(replay, size=64)[0].obs)) == {0, 1}
    fill(replay, 1, first=50)
    assert set(numbers(drawn(replay, size=64)[0].obs)) == {0, 1, 50}


def test_draws_beside_writers_are_whole():
    """A ring so small that what is drawn is overwritten while it is copied."""
    spec = replace(SPEC, cameras=(Camera("wrist", 96, 96),))
    replay = ReplayBuffer(spec, plain_normalizer(), capacity=24)
    seen = [observation(number, spec) for number in range(1200)]
    stop, failures = threading.Event(), []

    def write(actor):
        number = 400 * actor
        replay.begin(seen[number], actor)
        while not stop.is_set():
            number += 1
            if number % 400 == 0:
                number -= 400
                replay.begin(seen[number], actor)
            else:
                replay.add(np.array([number, 0]), number, False, False, seen[number], actor=actor)

    def guarded(actor):
        try:
            write(actor)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=(actor,)) for actor in range(3)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for thread in threads:
            thread.start()
        while len(replay) < 12:
            stop.wait(0.001)
        for batch in islice(replay.stream(Transitions(2, 1.0), 32, seed=0), 60):
            after = numbers(batch.next_obs)
            for index, begin in enumerate(numbers(batch.obs)):
                steps = after[index] - begin
                assert steps in (1, 2)
                assert batch.action[index, 0, 0] == begin + 1
                assert batch.reward[index] == sum(range(begin + 1, after[index] + 1))
    finally:
        stop.set()
        sys.setswitchinterval(interval)
        for thread in threads:
            thread.join()
    assert not failures


def test_recorded_episodes_come_back():
    replay = buffer()
    fill(replay, 17)
    replay.begin(observation(90), actor="cut")
    replay.add(np.zeros(2), 0.0, False, False, observation(91), actor="cut")
    replay.begin(observation(92), actor="cut")
    episodes = list(replay.to_episodes())
    assert [episode.num_steps for episode in episodes] == [7, 7, 1]  # of the 17 steps, 3 are of a running episode
    assert [episode.terminated for episode in episodes] == [False, True, False]
    assert episodes[0].num_rows == 8
    assert episodes[0].intervened.tolist() == [number % 3 == 0 for number in range(1, 8)]
    assert episodes[0].grasp_penalty == pytest.approx([-number / 10 for number in range(1, 8)])
    assert episodes[2].grasp_penalty is None
    again = buffer()
    for episode in episodes:
        again.extend(episode)
    for one, other in zip(episodes, again.to_episodes(), strict=True):
        assert np.array_equal(one.state, other.state)
        assert np.array_equal(one.images["front"], other.images["front"])
        assert np.array_equal(one.intervened, other.intervened)


def test_frames_of_another_size_are_resized_as_for_training():
    replay = buffer()
    big = np.random.default_rng(0).integers(0, 256, (12, 18, 3), np.uint8)
    seen = replace(observation(0), images={**observation(0).images, "wrist": big})
    replay.begin(seen)
    replay.add(np.zeros(2), 0.0, True, False, seen)
    assert np.array_equal(drawn(replay)[0].obs.images["wrist"][0], resize(big[None], 4, 6)[0])


@pytest.mark.parametrize("length", [100])
def test_it_takes_little_more_than_the_frames(length):
    """Per transition of episodes of 100 steps, whose last observation is one more, with two cameras of 128x128."""
    cameras = tuple(Camera(name, 128, 128) for name in ("front", "wrist"))
    spec = replace(SPEC, cameras=cameras, state=SPEC.state * 9, action=SPEC.action * 4)
    replay = ReplayBuffer(spec, plain_normalizer(spec), capacity=2020)
    replay.stream(ONE, 256, seed=0)
    assert replay.nbytes * (length + 1) / length < 1.10 * 2020 * sum(3 * 128 * 128 for _ in cameras)


def test_on_disk_it_is_the_same(tmp_path):
    in_memory, on_disk = buffer(20), buffer(20, folder=tmp_path / "frames")
    for replay in (in_memory, on_disk):
        fill(replay, 45)
    assert all_equal(drawn(in_memory)[0], drawn(on_disk)[0])
    assert not list((tmp_path / "frames").iterdir())  # nameless: a killed process leaves nothing


def test_a_disk_without_room_is_one_error(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1_000_000))
    with pytest.raises(DataError, match=r"cannot hold 200000 observations, which take 0\.0288 GB \(0\.001 GB are free"):
        buffer(200_000, folder=tmp_path)


def test_a_machine_without_memory_is_one_error():
    with pytest.raises(DataError, match=r"take 1\.44e\+09 GB, more than this machine lends; set a smaller capacity"):
        buffer(10**16)


def test_what_does_not_fit_is_refused():
    replay = buffer()
    seen = observation(0)
    with pytest.raises(ConfigError, match="capacity: got 1, expected 2 observations or more"):
        buffer(1)
    with pytest.raises(DataError, match=r"actor 4 is in no episode; expected begin\(\) before add"):
        replay.add(np.zeros(2), 0.0, False, False, seen, actor=4)
    with pytest.raises(SpecError, match=r"cameras \['wrist'\], expected \['front', 'wrist'\]"):
        replay.begin(replace(seen, images={"wrist": seen.images["wrist"]}))
    with pytest.raises(SpecError, match=r"camera 'wrist' is float32 \[4, 6, 3\], expected uint8 \[4, 6, 3\]"):
        replay.begin(replace(seen, images={**seen.images, "wrist": seen.images["wrist"].astype(np.float32)}))
    with pytest.raises(SpecError, match=r"state has shape \[3\], expected \[2\]"):
        replay.begin(replace(seen, state=np.zeros(3)))
    replay.begin(seen)
    with pytest.raises(DataError, match=r"reward is nan, expected a finite number"):
        replay.add(np.zeros(2), np.nan, False, False, seen)
    with pytest.raises(DataError, match=r"action axis 'grip' is inf, expected a finite number"):
        replay.add(np.array([0, np.inf]), 0.0, False, False, seen)
    assert len(replay) == 0
    replay.add(np.zeros(2), 1.0, False, False, seen)  # the episode goes on after what was refused
    assert len(replay) == 1


def test_recordings_that_do_not_fit_are_refused(make_recording):
    (episode,) = make_recording([(3, True, True)]).episodes
    with pytest.raises(DataError, match="an episode without rewards, which this algorithm needs"):
        buffer().extend(replace(episode, reward=None))
    with pytest.raises(SpecError, match=r"an episode without cameras \['wrist', 'front'\]"):
        buffer().extend(episode)
