"""Two sources in one batch."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch
from replay_world import SPEC, buffer, fill, numbers, observation, plain_normalizer

from lapwing.agent import Transitions
from lapwing.data.dataset import Dataset
from lapwing.data.frames import FrameStore
from lapwing.data.mix import mix
from lapwing.data.normalize import Normalizer
from lapwing.data.replay import ReplayBuffer
from lapwing.errors import ConfigError, DataError, SpecError
from lapwing.spec import Camera

ONE = Transitions(1, 0.9)


@pytest.fixture
def demonstrations():
    replay = buffer()
    fill(replay, 40, first=1000)
    return replay


def mixed(first, second, fraction=0.5, size=16, count=1, **more):
    return list(islice(mix(first, second, fraction, ONE, size, seed=2, **more), count))


@pytest.mark.parametrize(
    ("fraction", "size", "share"), [(0.5, 16, 8), (0.25, 10, 2), (0.9, 7, 6), (0.0, 5, 0), (1.0, 5, 5)]
)
@pytest.mark.parametrize("steps", [1, 30])
def test_the_shares_are_exact_at_any_size(demonstrations, fraction, size, share, steps):
    """Also while the second source holds a single transition."""
    online = buffer()
    fill(online, steps)
    for batch in mixed(demonstrations, online, fraction, size, count=3):
        begins = numbers(batch.obs)
        assert [begin >= 1000 for begin in begins] == [True] * share + [False] * (size - share)
        assert [after - 1 for after in numbers(batch.next_obs)] == begins
        assert batch.action[:, 0, 0].tolist() == batch.reward.tolist() == [begin + 1 for begin in begins]
        assert batch.grasp_penalty.tolist() == pytest.approx([-(begin + 1) / 10 for begin in begins])
        assert all(len(getattr(batch, name)) == size for name in ("is_pad", "discount", "mc_return"))


def test_two_sources_do_not_draw_by_the_same_numbers(demonstrations):
    (batch,) = mixed(demonstrations, demonstrations, size=64)
    begins = numbers(batch.obs)
    assert begins[:32] != begins[32:]


def test_a_mix_goes_on_where_it_was_left(demonstrations):
    online = buffer()
    fill(online, 30)
    later = mixed(demonstrations, online, count=3)[2]
    (again,) = mixed(demonstrations, online, start=2)
    assert numbers(later.obs) == numbers(again.obs)
    halves = [mixed(demonstrations, online, rank=rank, world_size=2)[0] for rank in range(2)]
    (whole,) = mixed(demonstrations, online)
    assert sorted(number for half in halves for number in numbers(half.obs)) == sorted(numbers(whole.obs))


def test_grasp_penalties_that_one_side_lacks_are_zero(make_recording):
    """Recorded demonstrations have none, the buffer always has."""
    recording = make_recording([(9, True, False), (8, False, True)])
    normalizer = Normalizer.fit(recording.episodes, recording.spec)
    dataset = Dataset(recording, FrameStore.open(recording), range(2), normalizer)
    online = ReplayBuffer(recording.spec, normalizer, 50)
    episode = recording.episodes[0]
    online.extend(replace(episode, grasp_penalty=np.full(episode.num_steps, -0.5, np.float32)))
    (batch,) = mixed(dataset, online, size=8)
    assert batch.grasp_penalty.tolist() == [0.0] * 4 + [-0.5] * 4
    (batch,) = mixed(online, dataset, size=8)
    assert batch.grasp_penalty.tolist() == [-0.5] * 4 + [0.0] * 4
    (batch,) = mixed(dataset, dataset, size=8)
    assert batch.grasp_penalty is None
    assert {name: frames.shape for name, frames in batch.next_obs.images.items()} == {
        name: torch.Size([8, 8, 6, 3]) for name in recording.spec.camera_names
    }


def test_an_empty_source_is_an_error_only_where_it_has_a_share(demonstrations):
    empty = buffer()
    stream = mix(demonstrations, empty, 0.5, ONE, 8, seed=0)
    with pytest.raises(DataError, match="no transition to draw from"):
        next(stream)
    assert len(numbers(mixed(demonstrations, empty, fraction=1.0)[0].obs)) == 16
    stream = mix(demonstrations, empty, 0.5, ONE, 8, seed=0)
    empty.begin(observation(0))
    empty.add(np.zeros(2), 0.0, False, False, observation(1))
    assert numbers(next(stream).obs)[4:] == [0] * 4


def test_sources_that_do_not_fit_are_refused(demonstrations):
    spec = replace(SPEC, cameras=(SPEC.cameras[0], Camera("front", 8, 8)))
    other = ReplayBuffer(spec, plain_normalizer(spec), 10)
    with pytest.raises(
        SpecError, match=r"cameras \['front 8x8', 'wrist 4x6'\], expected the first's \['front 6x4', 'wri"
    ):
        mix(demonstrations, other, 0.5, ONE, 8, seed=0)
    spec = replace(SPEC, action=SPEC.action * 2)
    other = ReplayBuffer(spec, plain_normalizer(spec), 10)
    with pytest.raises(SpecError, match="action of 4 axes, expected the first's of 2 axes"):
        mix(demonstrations, other, 0.5, ONE, 8, seed=0)
    scaled = replace(plain_normalizer(), action_scale=np.full(2, 2, np.float32))
    with pytest.raises(SpecError, match="the sources scale states or actions differently"):
        mix(demonstrations, ReplayBuffer(SPEC, scaled, 10), 0.5, ONE, 8, seed=0)
    with pytest.raises(ConfigError, match=r"fraction: got 1\.5, expected 0 to 1"):
        mix(demonstrations, demonstrations, 1.5, ONE, 8, seed=0)
    with pytest.raises(ConfigError, match="8 is mixed of 1 and 7, expected multiples of the 2 processes"):
        mix(demonstrations, demonstrations, 0.125, ONE, 8, seed=0, world_size=2)
