"""The flat layout: what is read, what is refused and how it is written."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lapwing.data.formats import read_recording
from lapwing.data.formats.flat import FlatWriter, read_flat
from lapwing.errors import DataError
from lapwing.spec import Camera, unnamed_axes


@pytest.fixture
def bare(tmp_path):
    """Write a file of the documents' layout, with datasets added, replaced or (None) left out."""

    def write(steps: int = 10, **changes) -> Path:
        rng = np.random.default_rng(0)
        image = rng.integers(0, 256, (steps, 8, 6, 3), np.uint8)
        data = {f"observations/{name}_image": image for name in ("left", "right", "global")}
        data["observations/joint"] = rng.normal(size=(steps, 16))
        data["actions"] = rng.normal(size=(steps, 14))
        data["rewards"] = rng.normal(size=steps)
        data["terminals"] = np.arange(steps) % 5 == 4
        data.update({key.replace("__", "/"): value for key, value in changes.items()})
        path = tmp_path / "d.hdf5"
        with h5py.File(path, "w") as file:
            for key, value in data.items():
                if value is not None:
                    file[key] = value
        return path

    return write


def lengths(path: Path) -> list[int]:
    return [one.num_steps for one in read_flat(path).episodes]


def flags(*rows: int, steps: int = 10) -> np.ndarray:
    return np.isin(np.arange(steps), rows)


def test_a_documents_file_is_read_as_it_is(bare):
    recording = read_recording(bare())
    assert recording.layout == "flat"
    assert recording.spec.camera_names == ("left", "right", "global")
    assert (recording.spec.state_dim, recording.spec.action_dim) == (16, 14)
    assert recording.spec.cameras[0].height == 8
    assert recording.spec.action == unnamed_axes("action", 14)
    assert [(one.num_steps, one.num_rows, one.terminated) for one in recording.episodes] == [(5, 5, True)] * 2
    assert recording.notes == ()
    episode = recording.episodes[1]
    assert episode.state.dtype == episode.action.dtype == episode.reward.dtype == np.float32
    with h5py.File(recording.path) as file:
        np.testing.assert_array_equal(episode.images["right"][1:3], file["observations/right_image"][6:8])
        np.testing.assert_array_equal(episode.action, file["actions"][5:].astype(np.float32))


def test_cameras_have_any_name_and_size(bare):
    path = bare(
        observations__left_image=None,
        observations__right_image=None,
        observations__wrist=np.zeros((10, 4, 4, 3), np.uint8),
        observations__belly_image=np.zeros((10, 3, 5, 7), np.uint8),
    )
    assert [(one.name, one.height, one.width) for one in read_flat(path).spec.cameras] == [
        ("global", 8, 6),
        ("belly", 5, 7),
        ("wrist", 4, 4),
    ]


def test_state_may_be_called_state_and_rewards_may_be_a_column_or_missing(bare):
    path = bare(observations__joint=None, observations__state=np.ones((10, 2)), rewards=np.ones((10, 1)))
    assert read_flat(path).spec.state_dim == 2
    assert read_flat(path).episodes[0].reward.tolist() == [1.0] * 5
    path.unlink()
    assert read_flat(bare(rewards=None)).episodes[0].reward is None


def test_a_dataset_that_is_not_used_is_noted(bare):
    path = bare(observations__force=np.zeros((10, 6)))
    assert read_flat(path).notes == ("'observations/force' is neither a camera [N, H, W, 3] nor the state: not used",)


def test_channels_first_equals_channels_last(bare):
    last = read_flat(bare())
    frames = last.episodes[0].images["left"].copy()
    with h5py.File(last.path) as file:
        planes = file["observations/left_image"][:].transpose(0, 3, 1, 2)
    first = read_flat(bare(observations__left_image=planes))
    assert first.spec == last.spec
    np.testing.assert_array_equal(first.episodes[0].images["left"], frames)


@settings(deadline=None, max_examples=30)
@given(top=st.sampled_from([1.0, 255.0]), seed=st.integers(0, 99), start=st.integers(0, 3), step=st.integers(1, 3))
def test_float_images_equal_uint8_ones(tmp_path_factory, top, seed, start, step):
    path = tmp_path_factory.mktemp("float") / "d.hdf5"
    image = np.random.default_rng(seed).integers(0, 256, (7, 4, 5, 3), np.uint8)
    image[3, 0, 0, 0] = 255
    with h5py.File(path, "w") as file:
        file["observations/joint"], file["actions"], file["terminals"] = (
            np.ones((7, 1)),
            np.ones((7, 1)),
            flags(steps=7),
        )
        file["observations/eye"] = image * np.float32(top / 255)
    frames = read_flat(path).episodes[0].images["eye"]
    np.testing.assert_array_equal(frames[:], image)
    np.testing.assert_array_equal(frames[start::step], image[start::step])
    np.testing.assert_array_equal(frames[[4, 1, 4]], image[[4, 1, 4]])
    np.testing.assert_array_equal(frames[np.zeros(0, int)], image[:0])
    np.testing.assert_array_equal(frames[-1], image[-1])


def test_the_range_of_float_images_is_decided_once_for_all_frames(bare):
    image = np.zeros((10, 8, 6, 3), np.float32)
    image[4] = 200.0
    image[7] = 1.0
    frames = read_flat(bare(observations__left_image=image)).episodes[1].images["left"]
    assert frames[2].max() == 1


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"terminals": flags(3, 9)}, [(4, True), (6, True)]),
        ({"terminals": flags(3), "timeouts": flags(9)}, [(4, True), (6, False)]),
        ({"terminals": flags(3).astype(np.float32)[:, None], "timeouts": flags(9)}, [(4, True), (6, False)]),
        ({"terminals": flags(), "episode_ends": np.array([2, 7, 10])}, [(2, False), (5, False), (3, False)]),
        ({"terminals": flags(6), "episode_ends": flags(1, 6, 9)}, [(2, False), (5, True), (3, False)]),
        ({"terminals": flags(6), "episode_ends": flags(1, 9).astype(np.int64)}, [(2, False), (5, True), (3, False)]),
        ({"terminals": None, "timeouts": flags(4, 9)}, [(5, False), (5, False)]),
        ({"terminals": None, "episode_ends": np.array([10])}, [(10, False)]),
    ],
)
def test_where_episodes_end(bare, changes, expected):
    recording = read_flat(bare(**changes))
    assert [(one.num_steps, one.terminated) for one in recording.episodes] == expected
    assert recording.notes == ()


def test_a_time_limit_is_not_a_terminal(bare):
    recording = read_flat(bare(terminals=flags(4, 9), timeouts=flags(9)))
    assert [one.terminated for one in recording.episodes] == [True, False]
    assert recording.notes == ("1 rows are flagged terminal and timeout: taken as cut by the time limit",)


def test_rows_after_the_last_boundary_are_a_cut_episode(bare):
    recording = read_flat(bare(terminals=flags(6)))
    assert [(one.num_steps, one.terminated) for one in recording.episodes] == [(7, True), (3, False)]
    assert recording.notes == ("the last 3 rows follow the final boundary: read as a truncated episode",)


def test_a_file_without_boundaries_is_said_to_have_none(bare):
    recording = read_flat(bare(terminals=flags()))
    assert [(one.num_steps, one.terminated) for one in recording.episodes] == [(10, False)]
    assert recording.notes == ("no episode boundary in the file: all of it is read as one truncated episode",)


IMAGE = "observations__left_image"
REFUSED = {
    "no actions": ({"actions": None}, "no dataset 'actions' .found observations, rewards, terminals"),
    "no terminals": ({"terminals": None}, "no dataset 'terminals' .found .*; add it as bool"),
    "no joint": ({"observations__joint": None}, "no dataset 'observations/joint' .found global_image, left_image"),
    "short image": ({IMAGE: np.zeros((9, 8, 6, 3), np.uint8)}, "'observations/left_image' has 9 rows, expected 10 as"),
    "short rewards": ({"rewards": np.zeros(8)}, "'rewards' has 8 rows, expected 10 as 'actions' has"),
    "long joint": ({"observations__joint": np.zeros((11, 2))}, "'observations/joint' has 11 rows, expected 10"),
    "flat joint": ({"observations__joint": np.zeros(10)}, r"'observations/joint' has shape \(10,\), expected two"),
    "deep actions": ({"actions": np.zeros((10, 2, 3))}, r"'actions' has shape \(10, 2, 3\), expected two dimensions"),
    "no action axes": ({"actions": np.zeros((10, 0))}, r"'actions' has shape \(10, 0\), expected two dimensions"),
    "no steps": ({"actions": np.zeros((0, 3))}, "'actions' has 0 rows, expected at least one step"),
    "wide rewards": ({"rewards": np.zeros((10, 2))}, r"'rewards' has shape \(10, 2\), expected \[N\] or \[N, 1\]"),
    "text actions": ({"actions": np.full((10, 2), b"up")}, r"'actions' holds \|S2, expected numbers"),
    "strange flags": ({"terminals": np.arange(10)}, "'terminals' holds values other than 0 and 1; expected flags"),
    "falling ends": ({"episode_ends": np.array([5, 3])}, "'episode_ends' must be flags .* from 1 to 10"),
    "far ends": ({"episode_ends": np.array([5, 11])}, "'episode_ends' must be flags"),
    "half ends": ({"episode_ends": np.array([2.5, 10])}, "'episode_ends' must be flags"),
    "either layout": ({IMAGE: np.zeros((10, 3, 6, 3), np.uint8)}, "may be NHWC or NCHW; say which with --image-layout"),
    "four channels": ({IMAGE: np.zeros((10, 8, 6, 4), np.uint8)}, "'observations/left_image' has shape .*, expected "),
    "integer image": ({IMAGE: np.zeros((10, 8, 6, 3), np.int32)}, "'observations/left_image' is int32, expected uint8"),
    "signed image": ({IMAGE: np.full((10, 8, 6, 3), -1.0)}, r"ranges over -1..-1, expected 0..1 or 0..255"),
    "NaN image": ({IMAGE: np.full((10, 8, 6, 3), np.nan)}, r"has pixels that are NaN or infinite"),
    "same camera": ({"observations__left": np.zeros((10, 4, 4, 3), np.uint8)}, "two datasets are camera 'left'"),
}


@pytest.mark.parametrize(("changes", "message"), REFUSED.values(), ids=REFUSED)
def test_what_does_not_fit_is_named(bare, changes, message):
    with pytest.raises(DataError, match=rf"d\.hdf5: .*{message}") as caught:
        read_flat(bare(**changes))
    assert "\n" not in str(caught.value)


def test_the_image_layout_can_be_said(bare):
    path = bare(observations__left_image=np.zeros((10, 3, 6, 3), np.uint8), observations__right_image=None)
    with h5py.File(path, "r+") as file:
        del file["observations/global_image"]
    assert read_flat(path, "nhwc").spec.cameras[0].height == 3
    assert read_flat(path, "nchw").spec.cameras[0].height == 6


@pytest.mark.parametrize("layout", ["nhwc", "nchw"])
def test_a_wrong_image_layout_is_refused(bare, layout):
    shape = (10, 3, 8, 6) if layout == "nhwc" else (10, 8, 6, 3)
    path = bare(observations__left_image=np.zeros(shape, np.uint8))
    with pytest.raises(DataError, match=r"'observations/left_image' has shape .* try --image-layout auto"):
        read_flat(path, layout)


def test_files_that_are_not_hdf5(tmp_path):
    path = tmp_path / "d.hdf5"
    with pytest.raises(DataError, match=r"d.hdf5: found nothing, expected an HDF5 file; check the path"):
        read_recording(path)
    path.write_bytes(b"")
    with pytest.raises(DataError, match=r"d.hdf5: the file is empty \(0 bytes\)"):
        read_recording(path)
    path.write_text("left, right, global\n" * 50)
    with pytest.raises(DataError, match=r"d.hdf5: not an HDF5 file, whatever its name says"):
        read_recording(path)
    with pytest.raises(DataError, match=r"found a folder with d.hdf5, expected episode_0.hdf5 and so on"):
        read_recording(tmp_path)


@pytest.mark.parametrize("kept", [0.2, 0.6, 0.999])
def test_a_truncated_file_is_refused(bare, kept):
    path = bare()
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * kept)])
    with pytest.raises(DataError, match=r"d.hdf5: the HDF5 file is truncated \(\d+ bytes are there\)"):
        read_recording(path)


@settings(deadline=None, max_examples=150)
@given(
    places=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=3),
    header=st.booleans(),
)
def test_damaged_bytes_are_read_or_refused_but_never_crash(tiny_file, tmp_path_factory, places, header):
    content = bytearray(tiny_file.read_bytes())
    for place, value in places:
        content[int(place * (2048 if header else len(content)))] = value
    path = tmp_path_factory.mktemp("damaged") / "d.hdf5"
    path.write_bytes(content)
    try:
        recording = read_recording(path)
        rows = sum(one.images["left"][:].shape[0] for one in recording.episodes)
        outcome = "read" if rows == recording.num_steps else f"{rows} rows"
    except DataError as error:
        outcome = str(error)
    assert outcome == "read" or outcome.startswith(f"{path}: ")


def test_an_unknown_layout_says_what_was_found(tmp_path):
    path = tmp_path / "d.hdf5"
    with h5py.File(path, "w") as file:
        file["steps/0/act"] = np.zeros((4, 2))
    with pytest.raises(DataError, match=r"d.hdf5: unknown layout .found steps.; known: flat"):
        read_recording(path)
    (tmp_path / "meta").mkdir()
    (tmp_path / "meta" / "info.json").write_text("{}")
    with pytest.raises(DataError, match=r"a LeRobot data set, .* run `lapwing data convert` first"):
        read_recording(tmp_path)


def test_what_was_written_is_read_again(tiny_flat, tiny_recording):
    recording = read_recording(tiny_flat)
    assert recording.spec == tiny_recording.spec
    assert recording.notes == ()
    for got, expected in zip(recording.episodes, tiny_recording.episodes, strict=True):
        assert (got.terminated, got.success, got.meta) == (expected.terminated, expected.success, expected.meta)
        for name, frames in expected.images.items():
            np.testing.assert_array_equal(got.images[name], frames)
        for field in ("state", "action", "reward"):
            np.testing.assert_array_equal(getattr(got, field), getattr(expected, field))


def test_images_are_written_to_be_memory_mapped(tiny_flat):
    images = read_flat(tiny_flat).episodes[0].images
    assert all(isinstance(frames, np.memmap) for frames in images.values())


def test_the_observation_after_the_end_has_no_room(tmp_path, make_recording):
    recording = make_recording([(3, False, True), (2, True, True)])
    with FlatWriter(tmp_path / "d.hdf5", recording.spec) as writer:
        for episode in recording.episodes:
            writer.add(episode)
    assert [(one.num_steps, one.num_rows) for one in read_flat(tmp_path / "d.hdf5").episodes] == [(3, 3), (2, 2)]


def test_rewards_are_not_invented(tmp_path, tiny_recording):
    path = tmp_path / "d.hdf5"
    with FlatWriter(path, tiny_recording.spec) as writer:
        writer.add(replace(tiny_recording.episodes[0], reward=None, success=None))
        with pytest.raises(DataError, match="episode 1: some episodes have rewards and some have none"):
            writer.add(tiny_recording.episodes[1])
    episode = read_flat(path).episodes[0]
    assert episode.reward is None
    assert episode.success is None


def test_many_episodes_fit_the_description(tmp_path, make_recording):
    recording = make_recording([(1, True, False)] * 3000)
    with FlatWriter(tmp_path / "d.hdf5", recording.spec) as writer:
        for episode in recording.episodes:
            writer.add(episode)
    assert [one.meta["seed"] for one in read_flat(tmp_path / "d.hdf5").episodes] == list(range(3000))


def test_a_failed_write_leaves_nothing(tmp_path, tiny_recording):
    def write() -> None:
        with FlatWriter(tmp_path / "d.hdf5", tiny_recording.spec) as writer:
            writer.add(tiny_recording.episodes[0])
            assert not (tmp_path / "d.hdf5").exists()
            raise RuntimeError("robot on fire")

    with pytest.raises(RuntimeError, match="robot on fire"):
        write()
    assert list(tmp_path.iterdir()) == []


def test_no_file_without_episodes(tmp_path, tiny_spec):
    with pytest.raises(DataError, match="no episode to write"), FlatWriter(tmp_path / "d.hdf5", tiny_spec):
        pass
    assert list(tmp_path.iterdir()) == []


def test_an_episode_that_fails_half_way_can_be_left_out(tmp_path, tiny_recording):
    class Unreadable:
        shape = (5, 8, 6, 3)

        def __getitem__(self, rows, /):
            raise DataError("video ends early")

    path, (first, second, third, *_) = tmp_path / "d.hdf5", tiny_recording.episodes
    with FlatWriter(path, tiny_recording.spec) as writer:
        writer.add(first)
        with pytest.raises(DataError, match="video ends early"):
            writer.add(replace(second, images={**second.images, "global": Unreadable()}))
        writer.add(third)
    written = read_flat(path).episodes
    assert [one.meta["seed"] for one in written] == [0, 2]
    for name, frames in third.images.items():
        np.testing.assert_array_equal(written[1].images[name], frames)


def test_an_existing_file_is_not_overwritten(tiny_flat, tiny_spec):
    before = tiny_flat.read_bytes()
    with pytest.raises(DataError, match=r"tiny.hdf5: already exists; choose another name or delete it first"):
        FlatWriter(tiny_flat, tiny_spec)
    assert tiny_flat.read_bytes() == before


def test_a_file_that_appears_meanwhile_is_not_overwritten(tmp_path, tiny_spec, tiny_episodes):
    def write() -> None:
        with FlatWriter(tmp_path / "d.hdf5", tiny_spec) as writer:
            writer.add(tiny_episodes[0])
            (tmp_path / "d.hdf5").write_text("mine")

    with pytest.raises(DataError, match="appeared while writing"):
        write()
    assert (tmp_path / "d.hdf5").read_text() == "mine"


def test_a_folder_that_is_not_there_is_named(tmp_path, tiny_spec):
    with pytest.raises(DataError, match=r"none/d.hdf5: cannot be written \(No such file or directory\)"):
        FlatWriter(tmp_path / "none" / "d.hdf5", tiny_spec)


@pytest.mark.parametrize("name", ["arm/left", "../left", "a\0b"])
def test_a_camera_that_cannot_be_stored_is_refused_before_anything_is_written(tmp_path, tiny_spec, name):
    spec = replace(tiny_spec, cameras=(Camera(name, 16, 16),))
    with pytest.raises(DataError, match=r"d\.hdf5: camera '.*' cannot be stored, expected text without '/'; rename it"):
        FlatWriter(tmp_path / "d.hdf5", spec)
    assert list(tmp_path.iterdir()) == []


def test_an_episode_must_fit_the_spec(tmp_path, tiny_recording):
    episode = tiny_recording.episodes[0]
    with FlatWriter(tmp_path / "d.hdf5", tiny_recording.spec) as writer:
        with pytest.raises(
            DataError, match=r"episode 0: state and action axes \(\(5,\), \(2,\)\), expected \(\(5,\), \(3,\)"
        ):
            writer.add(replace(episode, action=episode.action[:, :2]))
        with pytest.raises(DataError, match=r"episode 0: no camera 'left', found \['right'\]"):
            writer.add(replace(episode, images={"right": episode.images["right"]}))
        with pytest.raises(DataError, match=r"camera 'left' frames are \(4, 6, 3\), expected \(8, 6, 3\)"):
            writer.add(replace(episode, images={**episode.images, "left": episode.images["left"][:, ::2]}))
        writer.add(episode)
    assert lengths(tmp_path / "d.hdf5") == [4]


STALE = {
    "not JSON": (lambda _: "not json", "is not the JSON our writer makes; delete the attribute"),
    "not a table": (lambda _: "[]", "is not the JSON our writer makes"),
    "fewer episodes": (lambda old: {**old, "episodes": old["episodes"][1:]}, "describes 5 episodes, the boundaries"),
    "no axes": (lambda old: {**old, "spec": {"name": "x"}}, ": spec: not a robot spec"),
    "fewer actions": (
        lambda old: {**old, "spec": {**old["spec"], "action": old["spec"]["action"][1:]}},
        "names 2 action axes, the dataset has 3",
    ),
    "no cameras": (lambda old: {**old, "spec": {**old["spec"], "cameras": []}}, r"declares cameras \[\], found"),
}


@pytest.mark.parametrize(("change", "message"), STALE.values(), ids=STALE)
def test_a_description_that_no_longer_fits_is_refused(tiny_flat, change, message):
    with h5py.File(tiny_flat, "r+") as file:
        changed = change(json.loads(file.attrs["lapwing"]))
        file.attrs["lapwing"] = changed if isinstance(changed, str) else json.dumps(changed)
    with pytest.raises(DataError, match=rf"tiny\.hdf5: attribute 'lapwing'.*{message}"):
        read_flat(tiny_flat)


def test_a_file_is_read_without_its_description_too(tiny_flat):
    with h5py.File(tiny_flat, "r+") as file:
        del file.attrs["lapwing"]
    recording = read_flat(tiny_flat)
    assert recording.episodes[0].meta == {}
    assert recording.spec.action == unnamed_axes("action", 3)


def test_frames_without_pixels_are_refused(bare):
    path = bare(observations__left_image=np.zeros((10, 0, 6, 3), np.uint8))
    with pytest.raises(DataError, match=r"'observations/left_image' has shape \(10, 0, 6, 3\), expected frames"):
        read_flat(path)


def test_a_camera_behind_a_broken_link_is_refused(bare):
    path = bare(observations__left_image=None)
    with h5py.File(path, "a") as file:
        file["observations/left_image"] = h5py.ExternalLink("gone.hdf5", "frames")
    with pytest.raises(DataError, match=r"'observations/left_image' cannot be read, .* its link is broken"):
        read_flat(path)
