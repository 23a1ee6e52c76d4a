"""Transitions as the documents and HIL-SERL store them, read as episodes; and what is wrong with others."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from lapwing.agent import Transitions
from lapwing.data.dataset import Dataset
from lapwing.data.formats import read_recording
from lapwing.data.formats.options import ReadOptions
from lapwing.data.formats.serl import read_serl
from lapwing.data.frames import FrameStore
from lapwing.data.normalize import Normalizer
from lapwing.errors import DataError

Store = Callable[..., Path]
DOCUMENT = ("observations", "actions", "next_observations", "rewards", "dones", "masks", "grasp_penalty")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """store(transitions, "a.pkl"): the file, pickled."""

    def write(transitions: Any, name: str = "demos.pkl") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(pickle.dumps(transitions))
        return path

    return write


def seen(episode: int, row: int, cameras: tuple[str, ...] = ("image",), leading: bool = False) -> dict[str, Any]:
    """An observation that tells where it belongs: pixel (0, 0) and the state begin with (episode, row)."""
    observation: dict[str, Any] = {}
    for number, camera in enumerate(cameras):
        image = np.full((6, 5, 3), 7, np.uint8)
        image[0, 0] = episode, row, number
        observation[camera] = image
    observation["state"] = np.array([episode, row, 0.5])
    return {name: value[None] for name, value in observation.items()} if leading else observation


def document(episode: int, steps: int, axes: int = 7) -> list[dict[str, Any]]:
    """An episode as the documents have it, ending in success."""
    return [
        {
            "observations": seen(episode, step),
            "actions": np.linspace(-1, 1, axes) * (step + 1) / steps,
            "next_observations": seen(episode, step + 1),
            "rewards": float(step == steps - 1),
            "dones": step == steps - 1,
            "masks": 1.0 - (step == steps - 1),
            "grasp_penalty": -0.02 if step == 1 else 0.0,
        }
        for step in range(steps)
    ]


def hilserl(episode: int, steps: int) -> list[dict[str, Any]]:
    """An episode as HIL-SERL's record_demos.py has it: a leading time axis, two cameras, a penalty in the infos."""
    return [
        {
            "observations": seen(episode, step, ("side", "wrist"), leading=True),
            "actions": np.array([0.1 * step] * 6 + [float(step % 3 - 1)]),
            "next_observations": seen(episode, step + 1, ("side", "wrist"), leading=True),
            "rewards": int(step == steps - 1),
            "dones": step == steps - 1,
            "masks": 1.0 - (step == steps - 1),
            "infos": {
                "succeed": np.bool_(step == steps - 1),
                "left": False,
                "grasp_penalty": np.float32(-0.02 if step == 2 else 0.0),
                **({"intervene_action": np.array([0.5] * 6 + [1.0])} if step in (1, 2) else {}),
            },
        }
        for step in range(steps)
    ]


def test_the_documents_form_is_read(store: Store) -> None:
    recording = read_recording(store(document(0, 4) + document(1, 3)))
    assert recording.layout == "serl"
    assert recording.spec.camera_names == ("image",)
    assert (recording.spec.cameras[0].height, recording.spec.cameras[0].width) == (6, 5)
    assert [(one.num_steps, one.num_rows, one.terminated) for one in recording.episodes] == [
        (4, 5, True),
        (3, 4, True),
    ]
    second = recording.episodes[1]
    assert second.images["image"][:, 0, 0].tolist() == [[1, row, 0] for row in range(4)]
    assert second.state.dtype == np.float32
    assert second.state.tolist() == [[1, row, 0.5] for row in range(4)]
    assert second.reward.tolist() == [0, 0, 1]
    np.testing.assert_array_equal(second.grasp_penalty, np.float32([0, -0.02, 0]))
    np.testing.assert_allclose(second.action[1], np.linspace(-1, 1, 7) * 2 / 3, atol=1e-7)
    assert (second.success, second.intervened) == (None, None)


def test_hilserls_form_is_read(store: Store) -> None:
    recording = read_recording(store(hilserl(0, 4) + hilserl(1, 5)))
    assert recording.spec.camera_names == ("side", "wrist")
    first, second = recording.episodes
    assert (first.num_steps, first.num_rows, second.num_rows) == (4, 5, 6)
    assert first.images["wrist"].shape == (5, 6, 5, 3)
    assert first.images["wrist"][:, 0, 0].tolist() == [[0, row, 1] for row in range(5)]
    assert first.state.shape == (5, 3)
    assert first.success is True
    np.testing.assert_array_equal(first.grasp_penalty, np.float32([0, 0, -0.02, 0]))
    assert first.reward.tolist() == [0, 0, 0, 1]
    assert not any("infos" in note for note in recording.notes)


def test_what_a_human_did_replaces_the_action_and_is_marked(store: Store) -> None:
    (episode,) = read_serl(store(hilserl(0, 4))).episodes
    assert episode.intervened.tolist() == [False, True, True, False]
    np.testing.assert_allclose(episode.action[1:3], [[0.5] * 6 + [1]] * 2)
    np.testing.assert_allclose(episode.action[3], [0.3] * 6 + [-1], atol=1e-7)


def test_each_frame_is_in_memory_once_and_is_trained_on_where_it_lies(store: Store, tmp_path: Path) -> None:
    store(document(0, 4) + document(1, 3), "d/a.pkl")
    store(document(2, 5), "d/b.pkl")
    recording = read_recording(tmp_path / "d")
    bases = {id(episode.images["image"].base) for episode in recording.episodes}
    assert len(bases) == 1
    assert recording.episodes[0].images["image"].base.shape == (5 + 4 + 6, 6, 5, 3)
    frames = FrameStore.open(recording, cache_dir=tmp_path / "none", progress=False)
    assert not (tmp_path / "none").exists()
    assert frames.gather("image", np.array([0, 5, 9]))[:, 0, 0].tolist() == [[0, 0, 0], [1, 0, 0], [2, 0, 0]]


def test_an_npz_file_with_the_same_keys_is_read(tmp_path: Path) -> None:
    steps = document(0, 4) + document(1, 3)
    columns = {key: np.stack([one[key] for one in steps]) for key in DOCUMENT if not isinstance(steps[0][key], dict)}
    for group in ("observations", "next_observations"):
        columns |= {f"{group}/{key}": np.stack([one[group][key] for one in steps]) for key in ("image", "state")}
    np.savez_compressed(tmp_path / "a.npz", **columns)
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(steps))
    stacked, pickled = (read_recording(tmp_path / name) for name in ("a.npz", "a.pkl"))
    assert stacked.spec == pickled.spec
    for one, other in zip(stacked.episodes, pickled.episodes, strict=True):
        np.testing.assert_array_equal(one.images["image"], other.images["image"])
        for name in ("state", "action", "reward", "grasp_penalty"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
        assert one.terminated == other.terminated


def test_an_npz_file_may_give_only_the_last_observation_of_each_episode(tmp_path: Path) -> None:
    columns = {
        "observations/state": np.arange(5.0)[:, None],
        "final_observations/state": np.array([[20.0], [50.0]]),
        "actions": np.zeros((5, 2)),
        "dones": np.array([0, 1, 0, 0, 0]),
        "truncations": np.array([0, 0, 0, 0, 1]),
    }
    np.savez(tmp_path / "a.npz", **columns)
    first, second = read_recording(tmp_path / "a.npz").episodes
    assert first.state.tolist() == [[0], [1], [20]]
    assert second.state.tolist() == [[2], [3], [4], [50]]
    assert (first.terminated, second.terminated) == (True, False)
    np.savez(tmp_path / "b.npz", **columns | {"truncations": np.zeros(5)})
    with pytest.raises(
        DataError, match=r"b\.npz: 'final_observations/state' has 2 rows, expected one for each of the 1"
    ):
        read_recording(tmp_path / "b.npz")


def without(steps: list[dict[str, Any]], *keys: str) -> list[dict[str, Any]]:
    return [{key: value for key, value in one.items() if key not in keys} for one in steps]


@pytest.mark.parametrize("missing", [("masks",), ("dones",)])
def test_one_of_dones_and_masks_is_enough(store: Store, missing: tuple[str, ...]) -> None:
    recording = read_recording(store(without(document(0, 4) + document(1, 3), *missing)))
    assert [(one.num_steps, one.terminated) for one in recording.episodes] == [(4, True), (3, True)]


def test_without_dones_and_masks_episodes_end_where_observations_do_not_go_on(store: Store) -> None:
    recording = read_recording(store(without(document(0, 4) + document(1, 3), "dones", "masks")))
    assert [(one.num_steps, one.num_rows, one.terminated) for one in recording.episodes] == [
        (4, 5, False),
        (3, 4, False),
    ]
    assert "no 'dones' and no 'masks': no episode counts as terminated" in recording.notes
    assert any("1 of 7 transitions are not followed by the next one" in note for note in recording.notes)


@pytest.mark.parametrize("changed", ["image", "state"])
def test_a_jump_in_an_image_or_a_state_cuts_the_episode(store: Store, changed: str) -> None:
    steps = document(0, 6)
    for one in steps[3:]:
        for group in ("observations", "next_observations"):
            one[group][changed] = one[group][changed] + np.array(1, one[group][changed].dtype)
    first, second = read_recording(store(steps)).episodes
    assert (first.num_steps, first.num_rows, first.terminated) == (3, 4, False)
    assert (second.num_steps, second.terminated) == (3, True)
    assert first.images["image"][:, 0, 0, 1].tolist() == [0, 1, 2, 3]


def test_truncations_are_cuts_even_where_dones_say_otherwise(store: Store) -> None:
    steps = document(0, 4) + document(1, 3)
    for number, one in enumerate(steps):
        one["truncations"] = number == 3
    recording = read_recording(store(steps))
    assert [one.terminated for one in recording.episodes] == [False, True]
    assert any("marked as the end and as cut" in note for note in recording.notes)


def test_done_with_a_mask_of_one_is_a_time_limit(store: Store) -> None:
    steps = document(0, 4)
    steps[-1]["masks"] = 1.0
    (episode,) = read_recording(store(steps)).episodes
    assert (episode.num_steps, episode.num_rows, episode.terminated) == (4, 5, False)


def test_without_next_observations_the_next_transition_stands_for_them(store: Store) -> None:
    recording = read_recording(store(without(document(0, 4) + document(1, 3), "next_observations")))
    assert [(one.num_steps, one.num_rows, one.terminated) for one in recording.episodes] == [(4, 4, True), (3, 3, True)]
    assert recording.episodes[1].images["image"][:, 0, 0].tolist() == [[1, row, 0] for row in range(3)]
    assert any("no 'next_observations'" in note for note in recording.notes)


def test_without_rewards_there_are_none(store: Store) -> None:
    assert read_recording(store(without(document(0, 3), "rewards"))).episodes[0].reward is None


def test_a_penalty_that_some_transitions_lack_is_none_there(store: Store) -> None:
    steps = document(0, 4) + without(document(1, 3), "grasp_penalty")
    del steps[0]["grasp_penalty"]
    first, second = read_recording(store(steps)).episodes
    np.testing.assert_array_equal(first.grasp_penalty, np.float32([0, -0.02, 0, 0]))
    assert second.grasp_penalty is None


def test_a_longer_time_axis_gives_its_last_and_says_so(store: Store) -> None:
    steps = hilserl(0, 3)
    for one in steps:
        for group in ("observations", "next_observations"):
            one[group] = {key: np.concatenate([value * 0, value]) for key, value in one[group].items()}
    recording = read_recording(store(steps))
    assert recording.episodes[0].images["side"][:, 0, 0].tolist() == [[0, row, 0] for row in range(4)]
    assert "'observations/side' has a time axis of 2: only the last of each transition is used" in recording.notes


def test_images_alone_make_a_state_of_no_axes_that_can_be_trained_on(store: Store, tmp_path: Path) -> None:
    steps = document(0, 4) + document(1, 3)
    for one in steps:
        del one["observations"]["state"], one["next_observations"]["state"]
    recording = read_recording(store(steps))
    assert recording.spec.state == ()
    assert recording.episodes[0].state.shape == (5, 0)
    frames = FrameStore.open(recording, cache_dir=tmp_path, progress=False)
    normalizer = Normalizer.fit(recording.episodes, recording.spec)
    batch = next(Dataset(recording, frames, [0, 1], normalizer).stream(Transitions(gamma=0.95), 4, seed=0))
    assert batch.obs.state.shape == (4, 0)
    assert batch.obs.images["image"].shape == (4, 6, 5, 3)


def test_what_is_no_camera_and_no_state_is_said_not_to_be_used(store: Store) -> None:
    steps = document(0, 3)
    for one in steps:
        for group in ("observations", "next_observations"):
            one[group]["depth"] = np.zeros((6, 5, 1), np.uint16)
    recording = read_recording(store(steps))
    assert recording.spec.camera_names == ("image",)
    assert "'observations/depth' is neither a camera, uint8 [H, W, 3], nor the state: not used" in recording.notes


def test_image_keys_choose_the_cameras(store: Store) -> None:
    path = store(hilserl(0, 3))
    assert read_recording(path, ReadOptions(image_keys=("wrist",))).spec.camera_names == ("wrist",)
    with pytest.raises(DataError, match=r"no image key 'front' in 'observations', found side, wrist, state"):
        read_recording(path, ReadOptions(image_keys=("front",)))
    with pytest.raises(DataError, match=r"image key 'wrist' is named twice, expected each once"):
        read_recording(path, ReadOptions(image_keys=("wrist", "side", "wrist")))


def put(step: int, *keys: str, value: Any) -> list[dict[str, Any]]:
    """Four transitions, one value of one of them replaced."""
    steps = document(0, 4)
    place = steps[step]
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    return steps


@pytest.mark.parametrize(
    ("transitions", "message"),
    [
        (put(2, "observations", "image", value=np.zeros((9, 9, 3), np.uint8)), r"'observations/image' of transition 2 "
         r"is \[9, 9, 3\], expected \[6, 5, 3\] as in transition 0; resize"),
        (put(2, "observations", "image", value=np.zeros((6, 5, 3))), r"'observations/image' of transition 2 is flo"),
        (put(1, "observations", "state", value=np.zeros(4)), r"'observations/state' of transition 1 has shape \[4\]"),
        (put(1, "observations", "state", value=np.array(["a"])), r"'observations/state' .*an array of <U1, expected"),
        (put(3, "rewards", value=float("nan")), r"'rewards' of transition 3 is nan, expected a finite number"),
        (put(3, "rewards", value=np.inf), r"'rewards' of transition 3 is inf"),
        (put(0, "rewards", value="1"), r"'rewards' of transition 0 is a str, expected numbers"),
        (put(0, "rewards", value=[1, 2]), r"'rewards' of transition 0 has shape \[2\], expected one number"),
        (put(1, "dones", value=2), r"'dones' of transition 1 is 2, expected 0 or 1"),
        (put(1, "masks", value=0.5), r"'masks' of transition 1 is 0\.5, expected 0 or 1"),
        (put(2, "actions", value=None), r"transition 2 has no 'actions', expected it as in the others"),
        (put(2, "actions", value=np.zeros((2, 3, 4))), r"'actions' of transition 2 has shape \[2, 3, 4\], expected"),
        (put(2, "actions", value=[[1], [1, 2]]), r"'actions' of transition 2 is a list, expected numbers"),
        (put(2, "grasp_penalty", value=0.02), r"'grasp_penalty' of transition 2 is 0\.02, expected 0 or below.*negate"),
        (put(1, "infos", value={"intervene_action": np.zeros(6)}), r"'infos/intervene_action' has 6 axes, expected 7"),
        (without(document(0, 3), "actions"), r"no 'actions' in any transition, expected it in all \(found dones"),
        (without(document(0, 3), "observations"), r"'observations' hold nothing, expected images .* or a 'state'"),
        (without(document(0, 3), "next_observations", "dones", "masks"), r"no 'next_observations' and no 'dones'"),
        ([], r"holds an empty list, expected one transition at least"),
        (document(0, 3)[0], r"holds a dict, expected a list of transitions"),
        ([document(0, 3), document(1, 3)], r"entry 0 is a list, expected a transition, a mapping"),
        (np.zeros(3), r"holds a ndarray, expected a list of transitions"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_one_clear_error(store: Store, transitions: Any, message: str) -> None:
    with pytest.raises(DataError, match=rf"demos\.pkl: {message}") as caught:
        read_recording(store(transitions))
    assert "\n" not in str(caught.value)


def test_float_images_everywhere_are_an_error_not_a_state(store: Store) -> None:
    steps = document(0, 3)
    for one in steps:
        for group in ("observations", "next_observations"):
            one[group]["image"] = one[group]["image"] / 255
    with pytest.raises(DataError, match=r"'observations/image' holds images of float64, expected uint8 \[H, W, 3\]"):
        read_recording(store(steps))


def test_a_next_observation_must_be_like_the_observation(store: Store) -> None:
    steps = document(0, 3)
    for one in steps:
        one["next_observations"]["image"] = np.zeros((9, 9, 3), np.uint8)
    with pytest.raises(
        DataError, match=r"'next_observations/image' has shape \[9, 9, 3\], expected \[6, 5, 3\] as 'obs"
    ):
        read_recording(store(steps))


class Runs:
    def __reduce__(self) -> Any:
        return os.system, ("touch FLAG",)


def test_nothing_in_a_foreign_pickle_is_run(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    steps = document(0, 3)
    steps[1]["infos"] = {"recorder": Runs()}
    path = store(steps)
    with pytest.raises(DataError, match=r"demos\.pkl: holds posix\.system, expected .*nothing of it was run"):
        read_recording(path)
    np.savez(tmp_path / "objects.npz", actions=np.array([Runs()], object))
    with pytest.raises(DataError, match=r"objects\.npz: holds Python objects, .*nothing of it was run"):
        read_recording(tmp_path / "objects.npz")
    assert not (tmp_path / "FLAG").exists()


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"x": np.zeros(3)}, r"holds arrays x, expected 'observations/\.\.\.', 'actions' and so on"),
        ({}, r"holds arrays nothing"),
        ({"actions": np.zeros((3, 2)), "rewards": np.zeros(2)}, r"rows of its arrays are actions 3, rewards 2"),
        ({"actions": np.zeros((0, 2))}, r"rows of its arrays are actions 0"),
        ({"actions": np.zeros((3, 2)), "lapwing": np.array("{}")}, r"'lapwing' is not the JSON our writer makes"),
    ],
)
def test_an_npz_file_that_does_not_fit_is_one_clear_error(tmp_path: Path, columns: Any, message: str) -> None:
    np.savez(tmp_path / "a.npz", **columns)
    with pytest.raises(DataError, match=rf"a\.npz: .*{message}"):
        read_recording(tmp_path / "a.npz")


@pytest.mark.parametrize("name", ["a.pkl", "a.npz"])
def test_damaged_and_missing_files_are_named(tmp_path: Path, store: Store, name: str) -> None:
    with pytest.raises(DataError, match=rf"{name}: cannot be read .*check the path"):
        read_recording(tmp_path / name)
    if name == "a.npz":
        np.savez(tmp_path / name, actions=np.zeros((50, 7)))
    else:
        store(document(0, 3), name)
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=rf"{name}: not a whole .*copy it again"):
        read_recording(tmp_path / name)


def test_a_folder_is_read_by_name_and_must_agree(store: Store, tmp_path: Path) -> None:
    store(document(1, 3), "d/b.pkl")
    store(document(0, 4), "d/a.pkl")
    assert [one.num_steps for one in read_recording(tmp_path / "d").episodes] == [4, 3]
    store(document(2, 3, axes=6), "d/c.pkl")
    with pytest.raises(DataError, match=r"c\.pkl: action axes 6, expected 7 as in a\.pkl"):
        read_recording(tmp_path / "d")
    store(hilserl(2, 3), "d/c.pkl")
    with pytest.raises(DataError, match=r"c\.pkl: cameras .*side.*, expected .*image.* as in a\.pkl"):
        read_recording(tmp_path / "d")


def test_damaged_files_of_a_folder_may_be_left_out(store: Store, tmp_path: Path) -> None:
    store(document(0, 4), "d/a.pkl")
    store([], "d/b.pkl")
    with pytest.raises(DataError, match=r"b\.pkl: holds an empty list"):
        read_recording(tmp_path / "d")
    recording = read_recording(tmp_path / "d", ReadOptions(skip_damaged=True))
    assert len(recording.episodes) == 1
    assert any(note.startswith("left out: ") and "b.pkl" in note for note in recording.notes)


JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=3),
    st.just([]),
    st.just({}),
    st.just([[1], [1, 2]]),
    st_numpy.arrays(
        st.sampled_from([np.uint8, np.float32, np.int64, np.bool_, "<U2"]), st_numpy.array_shapes(min_dims=0)
    ),
    st_numpy.arrays(np.uint8, st.sampled_from([(0, 5, 3), (6, 5, 3), (1, 6, 5, 3), (0, 6, 5, 3), (6, 5, 4), (0,)])),
)
PLACES = [
    *((key,) for key in (*DOCUMENT, "truncations", "intervened", "infos")),
    *((group, key) for group in ("observations", "next_observations") for key in ("image", "state", "more")),
    *(("infos", key) for key in ("succeed", "intervene_action", "lapwing_spec", "lapwing_meta", "next_observed")),
]


def steps_or_refusal(path: Path) -> str:
    try:
        return str(read_recording(path).num_steps)
    except DataError as error:
        return str(error)


@settings(deadline=None, max_examples=50)
@given(data=st.data())
def test_whatever_stands_in_a_pickle_it_is_read_or_refused_in_one_line(tmp_path_factory, data: st.DataObject) -> None:
    steps: list[Any] = document(0, 3)
    place, value = data.draw(st.sampled_from(PLACES)), data.draw(JUNK)
    for step in data.draw(st.sampled_from([[0], [1], [2], [0, 1, 2]])):
        group = steps[step] if len(place) == 1 else steps[step].setdefault(place[0], {})
        group[place[-1]] = value
    path = tmp_path_factory.mktemp("fuzz") / "a.pkl"
    path.write_bytes(pickle.dumps(steps))
    said = steps_or_refusal(path)
    assert said == "3" or (said.startswith(f"{path}: ") and "\n" not in said)


@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_whatever_stands_in_an_npz_file_it_is_read_or_refused_in_one_line(
    tmp_path_factory, data: st.DataObject
) -> None:
    columns: dict[str, Any] = {
        "observations/state": np.arange(5.0)[:, None],
        "final_observations/state": np.array([[20.0], [50.0]]),
        "actions": np.zeros((5, 2)),
        "dones": np.array([0, 1, 0, 0, 1]),
    }
    key = data.draw(st.sampled_from([*columns, "masks", "rewards", "infos/succeed", "lapwing", "observations/image"]))
    columns[key] = data.draw(JUNK.filter(lambda value: isinstance(value, np.ndarray | float | str)))
    path = tmp_path_factory.mktemp("fuzz") / "a.npz"
    np.savez(path, **columns)
    said = steps_or_refusal(path)
    assert said == "5" or (said.startswith(f"{path}: ") and "\n" not in said)


def test_a_folder_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nothing in it"):
        read_serl(tmp_path)
