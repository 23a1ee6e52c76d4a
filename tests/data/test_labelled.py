"""Labelled frames: balanced batches, whole passes, divisions that keep files apart."""

from __future__ import annotations

from contextlib import suppress
from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lapwing.agent import Labelled
from lapwing.data.labelled import STRETCHES, LabelledFrames, Part, Stretch, divide
from lapwing.errors import ConfigError, DataError
from lapwing.spec import Camera

CAMERAS = (Camera("front", 4, 6), Camera("wrist", 4, 6))


def part(file: int, label: list[int], episode: int = 0, recording: str = "") -> Part:
    """Frames whose first pixel is (file, row, camera); the file is a recording of its own if none is named."""
    images = {}
    for number, camera in enumerate(CAMERAS):
        images[camera.name] = np.zeros((len(label), 4, 6, 3), np.uint8)
        images[camera.name][:, 0, 0] = [(file, row, number) for row in range(len(label))]
    name = f"file_{file}.pkl"
    return Part(name, name, recording or name, episode, images, np.array(label, np.int8))


def whole(*parts: Part) -> LabelledFrames:
    return LabelledFrames(CAMERAS, [Stretch(one, np.arange(len(one.label))) for one in parts])


def seen(batch) -> list[tuple[int, int]]:
    """(file, row) of each sample."""
    return [tuple(pixel[:2]) for pixel in batch.obs.images["front"][:, 0, 0].tolist()]


@pytest.fixture
def frames() -> LabelledFrames:
    return whole(part(0, [1] * 5), part(1, [0] * 7), part(2, [0, 1, 0]))


def test_a_batch_is_half_success_and_its_frames_belong_to_their_labels(frames):
    labels = {(0, row): 1 for row in range(5)} | {(1, row): 0 for row in range(7)} | {(2, 0): 0, (2, 1): 1, (2, 2): 0}
    for batch in islice(frames.stream(Labelled(), 8, seed=0), 5):
        assert batch.label.tolist() == [1] * 4 + [0] * 4
        assert [labels[one] for one in seen(batch)] == batch.label.tolist()
        assert batch.obs.images["wrist"][:, 0, 0, 2].tolist() == [1] * 8
        assert (batch.size, batch.action.shape, batch.obs.state.shape) == (8, (8, 0, 0), (8, 0))
        assert batch.next_obs is None


def test_every_frame_comes_once_before_any_comes_twice(frames):
    drawn = [one for batch in islice(frames.stream(Labelled(), 4, seed=3), 9) for one in seen(batch)]
    failures = [one for place, one in enumerate(drawn) if place % 4 > 1]  # 18: two passes over 9
    assert sorted(failures[:9]) == sorted(failures[9:]) == [(1, row) for row in range(7)] + [(2, 0), (2, 2)]
    assert failures[:9] != failures[9:]


@settings(deadline=None, max_examples=20)
@given(start=st.integers(0, 40), seed=st.integers(0, 2**40), half=st.integers(1, 12))
def test_a_stream_continues_where_it_was_left(start, seed, half):
    frames = whole(part(0, [1] * 5), part(1, [0] * 7))
    there = next(islice(frames.stream(Labelled(), 2 * half, seed), start, None))
    again = next(frames.stream(Labelled(), 2 * half, seed, start=start))
    assert seen(there) == seen(again)


def test_processes_share_a_batch_evenly_by_kind(frames):
    together = seen(next(frames.stream(Labelled(), 8, seed=1)))
    shares = [next(frames.stream(Labelled(), 8, seed=1, rank=rank, world_size=2)) for rank in range(2)]
    assert [share.label.tolist() for share in shares] == [[1, 1, 0, 0]] * 2
    assert sorted(seen(shares[0]) + seen(shares[1])) == sorted(together)


@pytest.mark.parametrize(("size", "processes", "multiple"), [(7, 1, 2), (6, 2, 4)])
def test_a_batch_that_cannot_be_halved_is_refused(frames, size, processes, multiple):
    with pytest.raises(ConfigError, match=rf"batch_size: got {size}, expected a multiple of {multiple}"):
        frames.stream(Labelled(), size, 0, world_size=processes)


def test_ordered_shows_each_frame_once_with_its_row(frames):
    batches = list(frames.ordered(4))
    assert np.concatenate([rows for _, rows in batches]).tolist() == list(range(15))
    assert np.concatenate([batch.label for batch, _ in batches]).tolist() == frames.label.tolist()
    assert [one for batch, _ in batches for one in seen(batch)][12:] == [(2, 0), (2, 1), (2, 2)]


def test_a_limit_keeps_some_of_each_kind(frames):
    (batch, rows), *_ = frames.ordered(64, limit=4)
    assert (batch.label.sum(), len(rows)) == (2, 4)
    ((batch, rows),) = frames.ordered(64, limit=1)
    assert (batch.label.sum(), len(rows)) == (1, 2)


def test_a_row_can_be_found_again(frames):
    assert frames.where(0) == "file_0.pkl, frame 0"
    assert frames.where(13) == "file_2.pkl, frame 1"
    some = LabelledFrames(CAMERAS, [Stretch(part(0, [1, 1, 0, 1]), np.array([2, 3]))])
    assert some.where(1) == "file_0.pkl, frame 3"
    assert some.images(np.array([1]))["front"][0, 0, 0].tolist() == [0, 3, 0]


@pytest.mark.parametrize(("label", "kind"), [([1, 1], "failure"), ([0], "success")])
def test_one_kind_alone_is_refused(label, kind):
    with pytest.raises(DataError, match=f"none of {len(label)} shows {kind}, expected some of each kind"):
        whole(part(0, label))


def names(side) -> set[str]:
    return {one.part.file for one in side}


@settings(deadline=None, max_examples=30)
@given(
    good=st.integers(3, 12), bad=st.integers(3, 12), fraction=st.sampled_from([0.3, 0.6, 0.8]), seed=st.integers(0, 99)
)
def test_files_stay_together_and_every_side_has_both_kinds(good, bad, fraction, seed):
    parts = [part(file, [1] * 3) for file in range(good)] + [part(100 + file, [0] * 2) for file in range(bad)]
    division = divide(parts, fraction, seed)
    sides = [division.train, division.calibration, division.test]
    assert division.unit == "file"
    assert sum(len(names(side)) for side in sides) == len(set.union(*map(names, sides))) == good + bad
    for side in sides:
        assert set(np.concatenate([one.label for one in side])) == {0, 1}
        assert all(len(one.rows) == len(one.part.label) for one in side)
    again = divide(parts, fraction, seed)
    assert [*map(names, (again.train, again.calibration, again.test))] == [*map(names, sides)]


@settings(deadline=None, max_examples=100)
@given(st.lists(st.sampled_from(["both", "success", "failure"]), min_size=1, max_size=14),
       st.floats(0.05, 0.95), st.integers(0, 1000))  # fmt: skip
def test_files_of_one_episode_stay_together(shown, fraction, seed):
    kinds = {"both": (1, 0), "success": (1,), "failure": (0,)}
    parts = [
        part(2 * number + kind, [kind] * 2, recording=f"episode_{number}.pkl")
        for number, one in enumerate(shown)
        for kind in kinds[one]
    ]
    mixed, successes, failures = (shown.count(one) for one in kinds)
    if mixed + min(successes, failures) < 3:  # no three sides of both kinds can be made of whole episodes
        with suppress(DataError):
            assert divide(parts, fraction, seed).unit == "stretch"
        return
    division = divide(parts, fraction, seed)
    assert division.unit == "file"
    sides = [division.train, division.calibration, division.test]
    assert sum(map(len, sides)) == len(parts)
    for side in sides:
        assert set(np.concatenate([one.label for one in side])) == {0, 1}
    recordings = [{one.part.recording for one in side} for side in sides]
    assert sum(map(len, recordings)) == len(set.union(*recordings)) == len(shown)


def test_another_seed_divides_otherwise():
    parts = [part(file, [file % 2] * 2) for file in range(20)]
    divisions = {frozenset(names(divide(parts, 0.8, seed).train)) for seed in range(5)}
    assert len(divisions) > 1


def test_most_files_are_for_training_and_the_rest_is_halved():
    parts = [part(file, [file % 2] * 2) for file in range(40)]
    division = divide(parts, 0.8, 0)
    assert [len(side) for side in (division.train, division.calibration, division.test)] == [32, 4, 4]


def test_a_lone_file_of_episodes_is_divided_by_episode():
    parts = [part(0, [0, 0, 1], index) for index in range(5)]
    division = divide(parts, 0.6, 0)
    assert division.unit == "episode"
    assert [len(side) for side in (division.train, division.calibration, division.test)] == [3, 1, 1]


def test_a_lone_file_of_each_kind_is_divided_by_stretches():
    division = divide([part(0, [1] * 40), part(1, [0] * 60)], 0.8, 0)
    assert division.unit == "stretch"
    rows = [(one.part.file, row) for side in (division.train, division.calibration, division.test) for one in side
            for row in one.rows.tolist()]  # fmt: skip
    assert len(rows) == len(set(rows)) == 100
    assert len(division.train) == 2 * STRETCHES - 4
    assert division.train[0].name.startswith("file_0.pkl, rows ")


def test_too_few_frames_to_divide_are_refused():
    with pytest.raises(DataError, match="2 of success and 50 of failure are too few to be divided"):
        divide([part(0, [1] * 2), part(1, [0] * 50)], 0.8, 0)


@pytest.mark.parametrize("fraction", [0.0, 1.0])
def test_holding_nothing_out_is_refused(fraction):
    with pytest.raises(ConfigError, match=r"train_fraction: got .*, expected between 0 and 1"):
        divide([part(0, [0, 1])], fraction, 0)
