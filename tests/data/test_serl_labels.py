"""Classifier data of SERL: frames and labels, told by a key, by a file's name, by its folder, or by the caller."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lapwing.data.formats.serl_labels import read_labelled
from lapwing.errors import DataError


def frame(value: int, height: int = 4, width: int = 5) -> np.ndarray:
    return np.full((height, width, 3), value, np.uint8)


@pytest.fixture
def store(tmp_path: Path):
    """store("a/b.pkl", transitions): the file, pickled."""

    def write(name: str, transitions: Any) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(pickle.dumps(transitions))
        return path

    return write


def hilserl(values: list[int]) -> list[dict[str, Any]]:
    """As HIL-SERL's record_success_fail.py stores it: a leading time axis, two cameras, no labels."""
    return [
        {
            "observations": {
                "side": frame(value)[None],
                "wrist": frame(value + 1)[None],
                "state": np.full((1, 7), value, np.float64),
            },
            "actions": np.zeros(7),
            "masks": 1.0,
        }
        for value in values
    ]


def test_labels_of_the_documents_are_read_by_key(store) -> None:
    path = store("data.pkl", [{"observations": {"image": frame(value)}, "labels": value % 2} for value in range(5)])
    (file,) = read_labelled(path)
    assert file.label.dtype == np.int8
    assert file.label.tolist() == [0, 1, 0, 1, 0]
    assert file.frames["image"].shape == (5, 4, 5, 3)
    assert file.frames["image"][:, 0, 0, 0].tolist() == [0, 1, 2, 3, 4]
    assert file.state is None


def test_a_key_counts_more_than_what_the_folder_is_given_as(store) -> None:
    path = store("success/data.pkl", [{"observations": {"image": frame(0)}, "labels": 0}])
    assert read_labelled(path.parent, label=1)[0].label.tolist() == [0]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("usb_200_success_images_2025-01-01.pkl", 1),
        ("usb_200_failure_images_2025-01-01.pkl", 0),
        ("success/one.pkl", 1),
        ("My_Failures/one.pkl", 0),
        ("failure_data/one.pkl", 0),
        ("success/one_failure.pkl", 0),
    ],
)
def test_the_name_of_the_file_or_of_its_folder_tells(store, name: str, expected: int) -> None:
    path = store(name, hilserl([1, 2]))
    (file,) = read_labelled(path)
    assert file.label.tolist() == [expected] * 2


def test_hilserl_files_lose_their_time_axis_and_keep_all_cameras(store) -> None:
    (file,) = read_labelled(store("a.pkl", hilserl([10, 20, 30])), label=1)
    assert [*file.frames] == ["side", "wrist"]
    assert file.frames["wrist"][:, 0, 0, 0].tolist() == [11, 21, 31]
    assert file.frames["side"].shape == (3, 4, 5, 3)
    assert file.state.dtype == np.float32
    assert file.state.tolist() == [[10] * 7, [20] * 7, [30] * 7]


def test_a_folder_is_read_by_name_and_npz_beside_pickles(store, tmp_path: Path) -> None:
    store("d/b_success.pkl", hilserl([1]))
    store("d/a_failure.pkl", hilserl([2, 3]))
    images = np.stack([frame(9)] * 2)
    columns = {"observations/side": images, "observations/wrist": images, "observations/state": np.zeros((2, 7))}
    np.savez(tmp_path / "d/c.npz", labels=np.array([1, 0]), **columns)
    (tmp_path / "d/notes.txt").write_text("not mine")
    files = read_labelled(tmp_path / "d")
    assert [file.path.name for file in files] == ["a_failure.pkl", "b_success.pkl", "c.npz"]
    assert [file.label.tolist() for file in files] == [[0, 0], [1], [1, 0]]


def test_image_keys_choose_the_cameras(store) -> None:
    (file,) = read_labelled(store("success.pkl", hilserl([1])), image_keys=("wrist",))
    assert [*file.frames] == ["wrist"]


def test_observations_nested_as_the_robot_gives_them_are_skipped(store) -> None:
    raw = {"observations": {"images": {"side": frame(0)}, "state": {"tcp": np.zeros(3)}}}
    (file,) = read_labelled(store("success.pkl", [raw, *hilserl([4, 5])]))
    assert file.frames["side"][:, 0, 0, 0].tolist() == [4, 5]
    with pytest.raises(DataError, match=r"only\.pkl: all observations hold their images in a mapping"):
        read_labelled(store("only.pkl", [raw]), label=0)


def changed(key: str, value: Any) -> list[dict[str, Any]]:
    """Three transitions, the last of them with another value in its observation."""
    transitions = hilserl([1, 2, 3])
    transitions[-1]["observations"][key] = value
    return transitions


@pytest.mark.parametrize(
    ("transitions", "message"),
    [
        (changed("side", frame(1, 8, 8)), r"'observations/side' of transition 2 is \[8, 8, 3\], expected \[4, 5, 3\]"),
        (changed("side", frame(1) / 255), r"'observations/side' of transition 2 is float64 .*expected an image uint8"),
        (changed("state", np.zeros(3)), r"'observations/state' of transition 2 has shape \[3\], expected \[7\]"),
        ([{"observations": {"side": frame(1) / 255}}], r"'observations/side' holds images of float64, expected uint8"),
        ([{"observations": {"state": np.zeros(3)}}], r"no camera, expected images uint8 \[H, W, 3\]"),
        ([{"observations": {"side": frame(1)}, "labels": 2}], r"'labels' of transition 0 is 2, expected 0 or 1"),
        (
            [{"observations": {"side": frame(1)}, "labels": "yes"}],
            r"'labels' of transition 0 is a str, expected number",
        ),
        ([], r"holds an empty list"),
        ({"observations": {}}, r"holds a dict, expected a list of transitions"),
        ([1, 2], r"entry 0 is a int, expected a transition"),
    ],
)
def test_what_is_no_classifier_data_is_one_clear_error(store, transitions: Any, message: str) -> None:
    with pytest.raises(DataError, match=rf"bad\.pkl: {message}"):
        read_labelled(store("bad.pkl", transitions), label=1)


def test_a_file_that_nothing_labels_is_refused(store) -> None:
    with pytest.raises(DataError, match=r"a\.pkl: no 'labels' in it, and neither its name nor its folder's says"):
        read_labelled(store("neutral/a.pkl", hilserl([1])))


def test_a_name_that_says_otherwise_is_refused(store) -> None:
    with pytest.raises(DataError, match=r"a_failure\.pkl: its name says failure, expected successes alone"):
        read_labelled(store("a_failure.pkl", hilserl([1])), label=1)


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"found a folder with nothing in it, expected \*\.pkl or \*\.npz files"):
        read_labelled(tmp_path, label=1)


def test_a_missing_image_key_is_named(store) -> None:
    with pytest.raises(DataError, match=r"no image key 'front' in 'observations', found side, wrist, state"):
        read_labelled(store("success.pkl", hilserl([1])), image_keys=("front",))


def test_files_must_agree_in_their_cameras(store, tmp_path: Path) -> None:
    store("d/a_success.pkl", hilserl([1]))
    store("d/b_success.pkl", [{"observations": {"side": frame(1)}}])
    with pytest.raises(DataError, match=r"b_success\.pkl: cameras .*expected .*as in a_success\.pkl"):
        read_labelled(tmp_path / "d")
