"""Transitions written and read back without loss, and what other programs find in them."""

from __future__ import annotations

import pickle
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lapwing.data.formats import read_recording
from lapwing.data.formats.flat import FlatWriter, read_flat
from lapwing.data.formats.serl_writer import write_serl, write_serl_folder
from lapwing.episode import Episode
from lapwing.errors import DataError
from lapwing.spec import Axis, Camera, RobotSpec

FILES = [("a.pkl", "document"), ("a.pkl", "hilserl"), ("a.npz", "document")]


def expect_same(found: Episode, source: Episode) -> None:
    assert (found.num_steps, found.num_rows) == (source.num_steps, source.num_rows)
    assert (found.terminated, found.success, found.meta) == (source.terminated, source.success, source.meta)
    for name in ("state", "action", "reward", "intervened", "grasp_penalty"):
        expected, got = getattr(source, name), getattr(found, name)
        assert (got is None) == (expected is None), name
        if expected is not None:
            np.testing.assert_array_equal(got, expected, err_msg=name)
    assert found.images.keys() == source.images.keys()
    for name, frames in source.images.items():
        np.testing.assert_array_equal(found.images[name], frames)


@pytest.mark.parametrize(("name", "form"), FILES)
def test_a_recording_comes_back(tmp_path: Path, make_recording, name, form) -> None:
    recording = make_recording(
        [(4, True, True), (6, False, True), (5, True, False), (3, False, False), (1, True, True)]
    )
    write_serl(tmp_path / name, recording.episodes, recording.spec, form)
    found = read_recording(tmp_path / name)
    assert found.spec == recording.spec
    assert found.notes == ()
    for one, source in zip(found.episodes, recording.episodes, strict=True):
        expect_same(one, source)


@st.composite
def recordings(draw: st.DrawFn) -> tuple[RobotSpec, list[Episode]]:
    """Whatever transitions have room for: cameras or none, a state or none, and what each episode may lack."""
    cameras = draw(st.lists(st.sampled_from(["front", "left wrist", "image", "Küche", "a/b"]), unique=True, max_size=2))
    spec = RobotSpec(
        "robot",
        tuple(Camera(name, draw(st.integers(1, 3)), draw(st.integers(1, 3))) for name in cameras),
        tuple(Axis(f"s{index}", "m") for index in range(draw(st.integers(0 if cameras else 1, 2)))),
        tuple(Axis(f"a{index}", kind="arm", low=-1, high=1) for index in range(draw(st.integers(1, 3)))),
        rate_hz=10.0,
    )
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    number = st.floats(width=32, allow_nan=False, allow_infinity=False)
    episodes = []
    for _ in range(draw(st.integers(1, 4))):
        steps = draw(st.integers(1, 4))
        rows = steps + draw(st.integers(0, 1))
        like_before = draw(st.booleans())  # frames that do not change, so that boundaries are not seen in them
        frames = {
            one.name: rng.integers(0, 1 if like_before else 256, (rows, one.height, one.width, 3), np.uint8)
            for one in spec.cameras
        }
        some = lambda values: draw(st.none() | st.just(np.asarray(values)))  # noqa: E731
        episodes.append(
            Episode(
                images=frames,
                state=np.float32(draw(st.lists(number, min_size=rows, max_size=rows)))[:, None].repeat(
                    spec.state_dim, 1
                ),
                action=rng.normal(size=(steps, spec.action_dim)).astype(np.float32),
                reward=some(np.float32(draw(st.lists(number, min_size=steps, max_size=steps)))),
                terminated=draw(st.booleans()),
                success=draw(st.none() | st.booleans()),
                meta=draw(st.dictionaries(st.text(max_size=4), st.integers() | st.text(max_size=4), max_size=2)),
                intervened=some(rng.integers(0, 2, steps).astype(bool)),
                grasp_penalty=some(-rng.integers(0, 2, steps).astype(np.float32) / 50),
            )
        )
    return spec, episodes


@settings(deadline=None, max_examples=25)
@given(stored=recordings(), file=st.sampled_from(FILES))
def test_any_recording_comes_back(tmp_path_factory: pytest.TempPathFactory, stored, file) -> None:
    (spec, episodes), (name, form) = stored, file
    path = tmp_path_factory.mktemp("serl") / name
    write_serl(path, episodes, spec, form)
    found = read_recording(path)
    assert found.spec == spec
    for one, source in zip(found.episodes, episodes, strict=True):
        expect_same(one, source)


@settings(deadline=None, max_examples=25)
@given(stored=recordings())
def test_flat_files_keep_interventions_and_penalties(tmp_path_factory: pytest.TempPathFactory, stored) -> None:
    spec, episodes = stored
    spec = replace(spec, cameras=())
    episodes = [replace(one, images={}, reward=None) for one in episodes]
    path = tmp_path_factory.mktemp("flat") / "a.hdf5"
    if not spec.state:
        spec, episodes = (
            replace(spec, state=(Axis("s"),)),
            [replace(one, state=one.state[:, :0].sum(1, keepdims=True)) for one in episodes],
        )
    with FlatWriter(path, spec) as writer:
        for episode in episodes:
            writer.add(episode)
    for one, source in zip(read_flat(path).episodes, episodes, strict=True):
        expect_same(one, replace(source, state=source.state[: source.num_steps]))


def test_the_documents_form_is_what_the_documents_say(tmp_path: Path, make_recording) -> None:
    recording = make_recording([(2, True, True), (2, False, True)])
    write_serl(tmp_path / "a.pkl", recording.episodes, recording.spec)
    steps = pickle.loads((tmp_path / "a.pkl").read_bytes())
    assert len(steps) == 4
    assert {*steps[0]} >= {"observations", "actions", "next_observations", "rewards", "dones", "masks"}
    assert steps[0]["observations"]["left"].shape == (8, 6, 3)
    assert steps[0]["observations"]["state"].shape == (recording.spec.state_dim,)
    assert [one["dones"] for one in steps] == [False, True, False, False]
    assert [one["masks"] for one in steps] == [1.0, 0.0, 1.0, 1.0]
    assert [one["truncations"] for one in steps] == [False, False, False, True]
    for one, following in ((steps[0], steps[1]), (steps[2], steps[3])):
        np.testing.assert_array_equal(one["next_observations"]["left"], following["observations"]["left"])
    assert isinstance(steps[0]["rewards"], float)


def test_hilserls_form_suits_its_buffer(tmp_path: Path, make_recording) -> None:
    """Its buffer splits episodes at `dones`, and takes `masks` into the targets."""
    recording = make_recording([(2, True, True), (2, False, True)])
    marked = [
        replace(one, intervened=np.array([False, True]), grasp_penalty=np.float32([0, -0.5]))
        for one in recording.episodes
    ]
    write_serl(tmp_path / "a.pkl", marked, recording.spec, "hilserl")
    steps = pickle.loads((tmp_path / "a.pkl").read_bytes())
    assert steps[0]["observations"]["left"].shape == (1, 8, 6, 3)
    assert steps[0]["next_observations"]["state"].shape == (1, recording.spec.state_dim)
    assert steps[0]["actions"].shape == (recording.spec.action_dim,)
    assert [one["dones"] for one in steps] == [False, True, False, True]
    assert [one["masks"] for one in steps] == [1.0, 0.0, 1.0, 1.0]
    assert [one["infos"]["grasp_penalty"] for one in steps] == [0, -0.5, 0, -0.5]
    assert ["intervene_action" in one["infos"] for one in steps] == [False, True, False, True]
    assert steps[1]["infos"]["succeed"] is True


def test_two_files_joined_by_hand_are_read(tmp_path: Path, make_recording) -> None:
    """What our writer notes of an episode goes with its transitions."""
    recording = make_recording([(3, True, True), (4, False, True), (5, True, False)])
    for name, episodes in (("a.pkl", recording.episodes[:1]), ("b.pkl", recording.episodes[1:])):
        write_serl(tmp_path / name, episodes, recording.spec)
    joined = [one for name in ("b.pkl", "a.pkl") for one in pickle.loads((tmp_path / name).read_bytes())]
    (tmp_path / "c.pkl").write_bytes(pickle.dumps(joined))
    found = read_recording(tmp_path / "c.pkl")
    for one, source in zip(found.episodes, [*recording.episodes[1:], recording.episodes[0]], strict=True):
        expect_same(one, source)


def test_an_npz_file_holds_each_frame_once(tmp_path: Path, make_recording) -> None:
    recording = make_recording([(30, True, True), (40, False, True)])
    write_serl(tmp_path / "a.npz", recording.episodes, recording.spec)
    with np.load(tmp_path / "a.npz") as columns:
        assert columns["observations/left"].shape == (70, 8, 6, 3)
        assert columns["final_observations/left"].shape == (2, 8, 6, 3)
        assert not any(name.startswith("next_") for name in columns.files)
    with zipfile.ZipFile(tmp_path / "a.npz") as archive:
        assert archive.testzip() is None


def test_the_same_recording_gives_the_same_bytes(tmp_path: Path, tiny_recording) -> None:
    for name in ("a.npz", "b.npz", "a.pkl", "b.pkl"):
        write_serl(tmp_path / name, iter(tiny_recording.episodes), tiny_recording.spec)
    for suffix in ("npz", "pkl"):
        assert (tmp_path / f"a.{suffix}").read_bytes() == (tmp_path / f"b.{suffix}").read_bytes()


def test_a_folder_has_one_file_an_episode_in_order(tmp_path: Path, make_recording) -> None:
    recording = make_recording([(2 + number, True, True) for number in range(12)])
    write_serl_folder(tmp_path / "demos", iter(recording.episodes), recording.spec, ".pkl")
    assert len([*(tmp_path / "demos").iterdir()]) == 12
    assert [one.num_steps for one in read_recording(tmp_path / "demos").episodes] == [*range(2, 14)]
    assert [path.name for path in tmp_path.iterdir()] == ["demos"]
    with pytest.raises(DataError, match=r"demos: already exists"):
        write_serl_folder(tmp_path / "demos", recording.episodes, recording.spec, ".pkl")


@pytest.mark.parametrize("name", ["a.pkl", "a.npz"])
def test_what_does_not_fit_leaves_nothing_behind(tmp_path: Path, tiny_recording, name) -> None:
    spec, episodes, path = tiny_recording.spec, tiny_recording.episodes, tmp_path / name
    with pytest.raises(DataError, match=r"action axes of episode 1 are \(2,\), expected \(3,\) as in the spec"):
        write_serl(path, [episodes[0], replace(episodes[1], action=episodes[1].action[:, :2])], spec)
    with pytest.raises(DataError, match=r"cameras of episode 0 are \{\}, expected \{'left'"):
        write_serl(path, [replace(episodes[0], images={})], spec)
    with pytest.raises(DataError, match=r"no episode to write; expected at least one"):
        write_serl(path, [], spec)
    with pytest.raises(DataError, match=r"a camera is called 'state', the key of the state; rename it"):
        write_serl(path, episodes, replace(spec, cameras=(Camera("state", 8, 6),)))
    with pytest.raises(DataError, match=r"no such folder"):
        write_serl(tmp_path / "none" / name, episodes, spec)
    assert [*tmp_path.iterdir()] == []


def test_the_file_notes_of_two_robots_are_refused(tmp_path: Path, tiny_recording) -> None:
    joined = []
    for number, name in enumerate(("a.pkl", "b.pkl")):
        write_serl(tmp_path / name, tiny_recording.episodes[:1], replace(tiny_recording.spec, name=f"robot {number}"))
        joined += pickle.loads((tmp_path / name).read_bytes())
    (tmp_path / "c.pkl").write_bytes(pickle.dumps(joined))
    with pytest.raises(DataError, match=r"c\.pkl: 'infos/lapwing_spec' describes 2 robots, expected one"):
        read_recording(tmp_path / "c.pkl")


@pytest.mark.parametrize(
    ("key", "text", "message"),
    [
        ("lapwing_spec", "{", r"'infos/lapwing_spec' is not the JSON our writer makes"),
        ("lapwing_meta", "[]", r"'infos/lapwing_meta' of transition 0 is not the JSON our writer makes"),
    ],
)
def test_damaged_notes_are_named(tmp_path: Path, tiny_recording, key, text, message) -> None:
    path = tmp_path / "a.pkl"
    write_serl(path, tiny_recording.episodes[:1], tiny_recording.spec)
    steps = pickle.loads(path.read_bytes())
    steps[0]["infos"][key] = text
    path.write_bytes(pickle.dumps(steps))
    with pytest.raises(DataError, match=rf"a\.pkl: {message}"):
        read_recording(path)


def test_a_spec_that_does_not_fit_its_arrays_is_named(tmp_path: Path, tiny_recording) -> None:
    path = tmp_path / "a.pkl"
    write_serl(path, tiny_recording.episodes[:1], tiny_recording.spec)
    steps = pickle.loads(path.read_bytes())
    for one in steps:
        one["actions"] = one["actions"][:2]
    path.write_bytes(pickle.dumps(steps))
    with pytest.raises(DataError, match=r"'infos/lapwing_spec' declares action axes 3, found 2; delete the key"):
        read_recording(path)
