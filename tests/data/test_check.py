"""The check: every problem has a file that causes it and one that does not."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lapwing.data import cameras
from lapwing.data.check import check, format_check
from lapwing.data.formats.flat import FlatWriter
from lapwing.data.formats.options import ReadOptions
from lapwing.data.numbers import check_leader
from lapwing.data.problems import Problem, listed, ranges
from lapwing.episode import Episode

ROWS, EPISODE, CHUNK = 60, 20, 7
UNPROBED = 2  # a row that the reader does not look at when it opens the file
CAMERAS = ("left_image", "right_image", "global_image")
IMAGES = tuple(f"observations/{name}" for name in CAMERAS)


@pytest.fixture(scope="session")
def sound_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("sound") / "sound.hdf5"
    rng = np.random.default_rng(0)
    walk = rng.normal(size=(ROWS, 4)).cumsum(0).astype(np.float32)
    with h5py.File(path, "w") as file:
        for key in IMAGES:
            file[key] = rng.integers(0, 256, (ROWS, 8, 6, 3), np.uint8)
        file["observations/joint"] = walk
        file["actions"] = walk + rng.normal(size=walk.shape).astype(np.float32)
        file["terminals"] = np.arange(ROWS) % EPISODE == EPISODE - 1
        file["rewards"] = file["terminals"][:].astype(np.float32)
    return path


@pytest.fixture
def sound(sound_file, tmp_path):
    """A file made as the quick-start shows: three episodes of 20 steps, nothing wrong with it."""
    path = tmp_path / "d.hdf5"
    path.write_bytes(sound_file.read_bytes())
    return path


def replaced(path, key, values):
    with h5py.File(path, "a") as file:
        if key in file:
            del file[key]
        if values is not None:
            file[key] = values


def value(path, key):
    with h5py.File(path) as file:
        return file[key][:]


def edited(path, key, change):
    """Replace a dataset by what `change` makes of it, in place or as its result."""
    values = value(path, key)
    result = change(values)
    replaced(path, key, values if result is None else result)


def lines(path, **options):
    return [str(problem) for problem in check(path, ReadOptions(**options), progress=False).problems]


def test_a_sound_file_has_no_problem(sound):
    result = check(sound)
    assert (result.problems, result.notes, result.trainable, result.imitable) == ((), (), True, True)


def test_the_tree_is_that_of_the_quick_start(sound):
    assert check(sound).tree == [
        "  ├─ observations/",
        "  │  ├─ left_image: uint8, shape=(60, 8, 6, 3)",
        "  │  ├─ right_image: uint8, shape=(60, 8, 6, 3)",
        "  │  ├─ global_image: uint8, shape=(60, 8, 6, 3)",
        "  │  └─ joint: float32, shape=(60, 4)",
        "  ├─ actions: float32, shape=(60, 4)",
        "  ├─ rewards: float32, shape=(60,)",
        "  └─ terminals: bool, shape=(60,)",
    ]


def test_the_tree_shows_what_the_documents_do_not_name(sound):
    with h5py.File(sound, "a") as file:
        file["observations/force"] = np.zeros((60, 2))
        file["observations/gone"] = h5py.SoftLink("/nowhere")
        for index in range(50):
            file[f"raw/part_{index:02d}"] = np.zeros(1)
    tree = check(sound).tree
    assert tree[4:6] == ["  │  ├─ force: float64, shape=(60, 2)", "  │  ├─ gone: cannot be read"]
    assert "  ├─ raw/" in tree
    assert "  │  └─ ... 10 more" in tree


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        (
            "actions",
            "error: {path}: actions: missing (found observations, rewards, terminals), expected numbers [N, axes]",
        ),
        ("observations/joint", "error: {path}: observations/joint: missing (found observations, actions, "),
        ("terminals", "error: {path}: terminals: missing, expected flags [N], true where a task ended; add it"),
        ("rewards", "error: {path}: rewards: missing, expected numbers [N]; offline RL (LAPO) cannot learn from it"),
        ("observations", "error: {path}: observations/joint: missing (found actions, rewards, terminals)"),
    ],
)
def test_a_missing_key_is_named(sound, key, expected):
    replaced(sound, key, None)
    (line,) = lines(sound)
    assert line.startswith(expected.format(path=sound))


@pytest.mark.parametrize(
    ("key", "change", "expected"),
    [
        ("actions", lambda x: x[:, 0], "actions: shape (60,), expected numbers [N, axes]; reshape it"),
        (
            "observations/joint",
            lambda x: x[:, None],
            "observations/joint: shape (60, 1, 4), expected numbers [N, axes]",
        ),
        ("rewards", lambda x: np.stack([x, x], 1), "rewards: shape (60, 2), expected numbers [N]; reshape it"),
        ("terminals", lambda x: x.reshape(6, 10), "terminals: shape (6, 10), expected numbers [N]; reshape it"),
        ("observations/left_image", lambda x: x[..., 0], "observations/left_image: shape (60, 8, 6), expected images"),
        ("observations/left_image", lambda x: x[..., :2], "observations/left_image: has shape (60, 8, 6, 2), expected"),
        ("actions", lambda x: np.full(x.shape, "a", "S1"), "actions: dtype |S1, expected numbers [N, axes]; store it"),
        (
            "observations/left_image",
            lambda x: x.astype(np.int64),
            "left_image: is int64, expected uint8 or float images",
        ),
        ("terminals", lambda x: x * 3, "terminals: values from 0 to 3, expected flags, 0 or 1; store it as bool [N]"),
        ("actions", lambda x: x[:-1], "actions: 59 rows, expected 60 as in 6 other datasets; cut or record all to one"),
        ("rewards", lambda x: x[:-1], "rewards: 59 rows, expected 60 as in 6 other datasets"),
        ("terminals", lambda x: x[:-1], "terminals: 59 rows, expected 60 as in 6 other datasets"),
        ("observations/right_image", lambda x: x[:-1], "right_image: 59 rows, expected 60 as in 6 other datasets"),
    ],
)
def test_a_wrong_shape_length_or_type_is_named(sound, key, change, expected):
    edited(sound, key, change)
    (line,) = lines(sound)
    assert line.startswith(f"error: {sound}: ")
    assert expected in line
    result = check(sound)
    assert not result.trainable
    assert not result.imitable


@pytest.mark.parametrize(
    ("key", "change"),
    [
        ("rewards", lambda x: x[:, None]),
        ("terminals", lambda x: x.astype(np.float32)[:, None]),
        ("observations/joint", lambda x: x.astype(np.float64)),
        ("actions", lambda x: (x * 100).astype(np.int16)),
        ("observations/left_image", lambda x: x.transpose(0, 3, 1, 2)),
        ("observations/left_image", lambda x: (x / 255).astype(np.float32)),
        ("observations/left_image", lambda x: x.astype(np.float16)),
        ("observations/left_image", lambda x: np.repeat(x, 2, 1)),
    ],
)
def test_other_forms_of_the_same_are_sound(sound, key, change):
    edited(sound, key, change)
    assert lines(sound) == []


def test_an_image_layout_that_is_open_must_be_told(sound):
    edited(sound, "observations/left_image", lambda x: np.concatenate([x, x], 2)[:, :3])
    (line,) = lines(sound)
    assert "observations/left_image: (60, 3, 12, 3) may be NHWC or NCHW; say which with --image-layout" in line
    assert lines(sound, image_layout="nhwc") == []


def test_state_may_be_called_state(sound):
    with h5py.File(sound, "a") as file:
        file.move("observations/joint", "observations/state")
    assert lines(sound) == []
    edited(sound, "observations/state", lambda x: x[:, 0])
    assert "observations/state: shape (60,)" in lines(sound)[0]


def test_all_problems_come_at_once(sound):
    def spoil(x):
        x[3, 1] = np.nan

    edited(sound, "observations/joint", spoil)
    edited(sound, "observations/left_image", lambda x: x * 0)
    replaced(sound, "actions", None)
    replaced(sound, "rewards", np.zeros(59))
    text = "\n".join(lines(sound))
    for part in (
        "actions: missing",
        "rewards: 59 rows",
        "joint: NaN",
        "left_image: all 60 frames are black",
        "all 59 are 0",
    ):
        assert part in text


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("key", ["observations/joint", "actions"])
def test_nan_and_infinity_are_found_by_row_and_axis(sound, key, bad):
    def spoil(x):
        x[[17, 30], 2] = bad

    edited(sound, key, spoil)
    (line,) = lines(sound)
    axis = "state_2" if "joint" in key else "action_2"
    assert f"{key}: NaN or infinite in 2 of 60 rows, first row 17, axes {axis}, expected finite numbers" in line


def test_nan_in_the_rewards_leaves_imitation(sound):
    def spoil(x):
        x[5] = np.nan

    edited(sound, "rewards", spoil)
    result = check(sound)
    assert "rewards: NaN or infinite in 1 of 60 rows, first row 5, expected" in str(result.problems[0])
    assert (result.trainable, result.imitable) == (False, True)


def test_all_zero_rewards_are_an_error_that_leaves_imitation(sound):
    edited(sound, "rewards", lambda x: x * 0)
    result = check(sound)
    (problem,) = result.problems
    assert (problem.severity, problem.field, problem.got) == ("error", "rewards", "all 60 are 0")
    assert "imitation (ACT, BC) can" in problem.advice
    assert "--reward last-step" in problem.advice
    assert (result.trainable, result.imitable) == (False, True)
    assert format_check(result).endswith(
        "✗ not trainable by offline RL (LAPO); trainable by imitation (ACT, BC): 1 error, 0 warnings"
    )


def test_equal_rewards_other_than_zero_are_a_warning(sound):
    edited(sound, "rewards", lambda x: x * 0 - 1)
    result = check(sound)
    assert [str(problem) for problem in result.problems] == [
        f"warning: {sound}: rewards: all 60 are -1, expected rewards that differ; only the length of episodes that "
        "terminate tells them apart; make sure that this is meant"
    ]
    assert result.trainable


def test_constant_axes_are_named(sound):
    def still(x):
        x[:, [1, 3]] = 0.5

    edited(sound, "observations/joint", still)
    (line,) = lines(sound)
    assert line.startswith(
        f"warning: {sound}: observations/joint: constant: state_1 = 0.5, state_3 = 0.5, expected axes"
    )
    assert check(sound).trainable


def test_constant_axes_go_by_the_names_in_the_file(tiny_flat):
    def still(x):
        x[:, 1] = 2

    edited(tiny_flat, "actions", still)
    assert any("actions: constant: elbow = 2, expected" in line for line in lines(tiny_flat))


def test_actions_that_never_move_are_an_error(sound):
    edited(sound, "actions", lambda x: x * 0)
    (line,) = lines(sound)
    assert line.startswith(f"error: {sound}: actions: all axes are constant: action_0 = 0, action_1 = 0")


def test_no_boundary_at_all_is_said(sound):
    edited(sound, "terminals", lambda x: x & False)
    result = check(sound)
    (problem,) = result.problems
    assert (problem.severity, problem.field) == ("warning", "terminals")
    assert "no row is marked: there is no episode boundary at all" in str(problem)
    assert any("read as one truncated episode" in note for note in result.notes)


@pytest.mark.parametrize("ends", [np.array([20, 40, 60]), np.arange(60) % 20 == 19])
@pytest.mark.parametrize("key", ["timeouts", "episode_ends"])
def test_boundaries_may_stand_elsewhere(sound, key, ends):
    replaced(sound, "terminals", None)
    if key == "timeouts":
        ends = np.arange(60) % 20 == 19
    replaced(sound, key, ends)
    edited(sound, "rewards", lambda x: x + 1)  # no transition holds those of the last steps of cut episodes
    assert lines(sound) == []


def test_episode_ends_outside_the_file_are_an_error(sound):
    replaced(sound, "episode_ends", np.array([20, 70]))
    (line,) = lines(sound)
    assert "'episode_ends' must be flags [N] or increasing row numbers from 1 to 60" in line


def test_episodes_of_one_step_are_counted(sound):
    def mark(x):
        x[20] = x[21] = True

    edited(sound, "terminals", mark)
    (line,) = lines(sound)
    assert line.startswith(f"warning: {sound}: episodes: 2 of 5 episodes have one step: 1-2, expected")
    edited(sound, "terminals", lambda x: x | True)
    assert f"error: {sound}: episodes: all 60 episodes have one step, expected" in lines(sound)[0]


@pytest.mark.parametrize(("lag", "meaning"), [(0, "the state of the same step"), (1, "the state one step later")])
def test_a_follower_recorded_as_action_is_seen(sound, lag, meaning):
    states = value(sound, "observations/joint")
    replaced(sound, "actions", np.concatenate([states[lag:], states[:lag]]))
    (line,) = lines(sound)
    expected = (
        f"warning: {sound}: actions: equal to {meaning}: action_0, action_1, action_2, action_3, expected commands"
    )
    assert line.startswith(expected)


def test_a_follower_in_few_axes_is_not_one(sound):
    """A gripper that reaches its command within the step is a good gripper."""
    states = value(sound, "observations/joint")

    def follow(x):
        x[:-1, 0] = states[1:, 0]

    edited(sound, "actions", follow)
    assert lines(sound) == []


def test_a_robot_at_rest_says_nothing_about_its_commands(tiny_spec):
    """Commands equal the state in nearly all rows, but not in those where it moves."""
    steps = 3000
    state = np.zeros((steps, tiny_spec.state_dim), np.float32)
    state[:, 2:] = (np.arange(steps) // 150)[:, None]
    images = {camera.name: np.zeros((steps, 8, 6, 3), np.uint8) for camera in tiny_spec.cameras}
    action = state[:, 2:].copy()
    spec, path = tiny_spec, Path("d.hdf5")
    (follower,) = check_leader(path, "actions", [Episode(images, state, action, None, False)], spec)
    assert "equal to the state of the same step: shoulder, elbow, grip" in str(follower)
    action[149::150] += 0.5
    assert check_leader(path, "actions", [Episode(images, state, action, None, False)], spec) == []


@pytest.mark.parametrize(("scale", "dtype"), [(1, np.uint8), (1 / 255, np.float32), (1, np.float32)])
def test_black_frames_are_counted_whatever_the_scale(sound, scale, dtype):
    def dark(x):
        x[[4, 5, 50]] = x[[4, 5, 50]] % 10
        return (x * scale).astype(dtype)

    edited(sound, "observations/right_image", dark)
    (line,) = lines(sound)
    assert line.startswith(
        f"warning: {sound}: observations/right_image: 3 of 60 frames are black, first row 4, expected"
    )


def test_a_black_camera_is_an_error(sound):
    edited(sound, "observations/right_image", lambda x: x % 10)
    (line,) = lines(sound)
    assert line.startswith(
        f"error: {sound}: observations/right_image: all 60 frames are black, expected a picture; look"
    )


def test_a_dim_camera_is_no_black_one(sound):
    edited(sound, "observations/right_image", lambda x: x // 8)
    assert lines(sound) == []


def test_a_frozen_camera_is_an_error(sound):
    edited(sound, "observations/global_image", lambda x: np.broadcast_to(x[:1], x.shape))
    (line,) = lines(sound)
    assert line.startswith(f"error: {sound}: observations/global_image: all 60 frames are the same, expected")


def freeze(first, count):
    def change(x):
        x[first : first + count] = x[first]

    return change


@pytest.mark.parametrize("block_bytes", [1, 5 * 144, 1 << 20])
def test_a_long_frozen_stretch_is_a_warning(sound, monkeypatch, block_bytes):
    monkeypatch.setattr(cameras, "_BLOCK_BYTES", block_bytes)
    edited(sound, "observations/global_image", freeze(22, 16))
    (line,) = lines(sound)
    assert line.startswith(
        f"warning: {sound}: observations/global_image: the picture stands still while the robot moves: "
    )
    assert "16 of 60 frames, the longest stretch rows 22 to 37, expected" in line


def test_a_short_frozen_stretch_is_none(sound):
    edited(sound, "observations/global_image", freeze(22, cameras.FROZEN_FRAMES - 1))
    assert lines(sound) == []


def test_a_picture_may_stand_still_with_the_robot(sound):
    edited(sound, "observations/global_image", freeze(22, 16))
    edited(sound, "observations/joint", freeze(22, 16))
    assert lines(sound) == []


def test_one_changed_pixel_is_a_picture_that_moves(sound):
    def nearly_still(x):
        x[:] = x[0]
        x[:, 3, 3, 1] = np.arange(60)

    edited(sound, "observations/global_image", nearly_still)
    assert lines(sound) == []


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda x: x * 4.0, "ranges over 0..1020, expected 0..1 or 0..255"),
        (lambda x: x / 127.5 - 1, "ranges over -1..1, expected 0..1 or 0..255"),
        (lambda x: x / 200.0, "values from 0 to 1.275, expected float images in 0..1 or 0..255; rescale them"),
        (
            lambda x: np.where(np.arange(60)[:, None, None, None] == UNPROBED, -3.0, x),
            "values from -3 to 255, expected float",
        ),
        (
            lambda x: np.where(np.arange(60)[:, None, None, None] == UNPROBED, np.nan, x),
            "NaN or infinite pixels in 1 of 60 frames, first row 2, expected float images in 0..1 or 0..255",
        ),
    ],
)
def test_float_images_out_of_range_are_an_error(sound, change, expected):
    edited(sound, "observations/left_image", change)
    (line,) = lines(sound)
    assert line.startswith(f"error: {sound}: observations/left_image: ")
    assert expected in line


def test_no_camera_is_a_warning(sound):
    for key in IMAGES:
        replaced(sound, key, None)
    (line,) = lines(sound)
    assert line.startswith(
        f"warning: {sound}: observations: no camera, expected images [N, H, W, 3]; policies will see"
    )


def test_a_single_row_is_too_little(sound):
    for key in (*IMAGES, "observations/joint", "actions", "rewards", "terminals"):
        edited(sound, key, lambda x: x[-1:])
    (line,) = lines(sound)
    assert "actions: 1 rows, expected 2 steps at least" in line


@pytest.mark.parametrize("empty", [IMAGES[:1], (*IMAGES, "observations/joint", "actions", "rewards", "terminals")])
def test_datasets_without_rows_are_an_error(sound, empty):
    for key in empty:
        edited(sound, key, lambda x: x[:0])
    assert any(": 0 rows, expected " in line for line in lines(sound))


def test_a_broken_link_is_named(sound):
    with h5py.File(sound, "a") as file:
        del file["observations/left_image"]
        file["observations/left_image"] = h5py.ExternalLink("gone.hdf5", "/images")
    assert lines(sound) == [
        f"error: {sound}: observations/left_image: cannot be read, expected a dataset; "
        "the link or its header is broken; copy the file again"
    ]


def test_a_damaged_note_of_our_writer_is_named(tiny_flat):
    with h5py.File(tiny_flat, "a") as file:
        file.attrs["lapwing"] = "{"
    assert any(
        "attribute 'lapwing' is not the JSON our writer makes; delete the attribute" in line
        for line in lines(tiny_flat)
    )


def write_nothing(path):
    path.write_bytes(b"")


def write_text(path):
    path.write_text("left,right,global\n1,2,3\n")


def truncate(path):
    path.write_bytes(path.read_bytes()[:-5000])


def remove(path):
    path.unlink()


def make_folder(path):
    path.unlink()
    path.mkdir()


def write_other_layout(path):
    path.unlink()
    with h5py.File(path, "w") as file:
        file["frames"] = np.zeros((9, 8))
        file["commands"] = np.zeros((9, 3))


def write_empty_hdf5(path):
    path.unlink()
    h5py.File(path, "w").close()


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (write_nothing, "the file is empty (0 bytes), expected HDF5; record or copy it again"),
        (write_text, "not an HDF5 file, whatever its name says, expected an HDF5 recording"),
        (truncate, "the HDF5 file is truncated"),
        (remove, "found nothing, expected an HDF5 file; check the path"),
        (make_folder, "found a folder with nothing in it, expected episode_0.hdf5 and so on; check the path"),
        (write_other_layout, "unknown layout (found commands, frames)"),
        (write_empty_hdf5, "unknown layout (found an empty file)"),
    ],
)
def test_what_is_no_flat_recording_is_one_problem(sound, spoil, expected):
    spoil(sound)
    result = check(sound)
    (problem,) = result.problems
    assert str(problem).startswith(f"error: {sound}: ")
    assert expected in str(problem)
    assert (result.trainable, result.imitable) == (False, False)
    assert format_check(result).endswith("✗ not trainable: 1 error, 0 warnings")


@settings(deadline=None, max_examples=60, derandomize=True)
@given(seed=st.integers(0, 2**32 - 1), cut=st.booleans(), packed=st.booleans())
def test_no_damage_makes_the_check_fail(sound_file, packed_file, tmp_path_factory, seed, cut, packed):
    """Whatever bytes are changed or missing, there is a result, and it is printable and serialisable."""
    rng = np.random.default_rng(seed)
    data = bytearray((packed_file if packed else sound_file).read_bytes())
    for _ in range(rng.integers(1, 6)):
        data[rng.integers(len(data) if rng.random() < 0.5 else 4000)] = rng.integers(256)
    path = tmp_path_factory.mktemp("damaged") / "d.hdf5"
    path.write_bytes(data[: rng.integers(len(data))] if cut else data)
    result = check(path, progress=False)
    assert result.trainable == (not any(problem.severity == "error" for problem in result.problems))
    assert not (cut and result.trainable)
    assert "\n" not in "".join(map(str, result.problems))
    json.dumps(result.to_dict())
    assert format_check(result)


@pytest.fixture(scope="session")
def packed_file(sound_file, tmp_path_factory):
    path = tmp_path_factory.mktemp("packed") / "packed.hdf5"
    with h5py.File(sound_file) as source, h5py.File(path, "w") as file:
        for key in (*IMAGES, "observations/joint", "actions", "rewards", "terminals"):
            values = source[key][:]
            file.create_dataset(key, data=values, compression="gzip", chunks=(CHUNK, *values.shape[1:]))
    return path


def test_a_compressed_file_is_read_in_whole_chunks(packed_file, monkeypatch):
    starts = []

    def read(dataset, rows):
        starts.append(rows.start)
        return dataset[rows]

    monkeypatch.setattr(cameras, "_BLOCK_BYTES", 1)
    monkeypatch.setattr(cameras, "read_array", read)
    assert lines(packed_file) == []
    assert starts == 3 * list(range(0, ROWS, CHUNK))


def test_memory_does_not_grow_with_the_frames(tmp_path, monkeypatch):
    monkeypatch.setattr(cameras, "_BLOCK_BYTES", 1 << 20)

    def peak(rows):
        path = tmp_path / f"{rows}.hdf5"
        with h5py.File(path, "w") as file:
            file["observations/left_image"] = np.random.default_rng(0).integers(0, 256, (rows, 64, 64, 3), np.uint8)
            file["observations/joint"] = file["actions"] = np.arange(2.0 * rows).reshape(rows, 2)
            file["terminals"] = file["rewards"] = np.arange(rows) == rows - 1
        check(path, progress=False)  # first calls fill caches
        tracemalloc.start()
        check(path, progress=False)
        top = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return top

    assert peak(4000) < peak(1000) + (2 << 20)  # the frames themselves grow by 37 MB


def test_a_problem_is_one_line_and_plain_json(sound):
    edited(sound, "rewards", lambda x: x * 0)
    result = check(sound)
    data = json.loads(json.dumps(result.to_dict()))
    assert (data["path"], data["trainable"], data["imitable"]) == (str(sound), False, True)
    assert data["tree"] == result.tree
    assert sorted(data["problems"][0]) == ["advice", "expected", "field", "file", "got", "severity"]
    assert Problem(**data["problems"][0]) == result.problems[0]
    assert str(Problem("error", "f", "a\nb", "one", "", "")) == "error: f: a b: one"


def test_errors_come_before_warnings(sound):
    edited(sound, "observations/left_image", freeze(22, 16))
    edited(sound, "rewards", lambda x: x * 0)
    assert [line.split(":")[0] for line in lines(sound)] == ["error", "warning"]


def test_the_report_reads_as_the_quick_start_does(sound):
    text = format_check(check(sound)).splitlines()
    assert text[:5] == [f"Dataset: {sound}", "=" * 60, "", "Structure:", "  ├─ observations/"]
    assert text[-2:] == ["", "✓ trainable: 0 errors, 0 warnings"]


def test_what_our_own_writer_writes_is_sound(tiny_spec, make_recording, tmp_path):
    path = tmp_path / "own.hdf5"
    with FlatWriter(path, tiny_spec) as writer:
        for episode in make_recording([(12, True, True), (9, False, True)]).episodes:
            writer.add(episode)
    assert check(path).trainable


def test_a_sound_lerobot_folder_only_has_to_be_converted(lerobot):
    result = check(lerobot.root)
    assert [problem.field for problem in result.problems] == ["layout"]
    assert f"run: lapwing data convert {lerobot.root} OUT.hdf5 --to flat" in str(result.problems[0])
    assert result.tree == [
        "  ├─ observation.images.front: video, shape=(36, 48, 64, 3)",
        "  ├─ observation.images.wrist: video, shape=(36, 48, 64, 3)",
        "  ├─ observation.state: float32, shape=(36, 3)",
        "  └─ action: float32, shape=(36, 3)",
    ]


def test_a_damaged_lerobot_folder_names_its_episodes(lerobot):
    lerobot.video_file(0).unlink()
    state, action = lerobot.state_and_action(1)
    action[3, 1] = np.nan
    lerobot.write_rows(1, action=action, state=state * [1, 1, 0])
    text = "\n".join(lines(lerobot.root))
    assert "episodes: 1 damaged episode (0); the first, episode 0: " in text
    assert "--skip-damaged" in text
    assert "action: NaN or infinite in 1 of 24 rows, first row 3, axes left_gripper" in text
    for episode in (1, 2):
        lerobot.rows_file(episode).unlink()
    assert "3 damaged episodes (0-2)" in "\n".join(lines(lerobot.root))


def test_a_lerobot_folder_that_cannot_be_read_is_a_problem(lerobot):
    lerobot.edit_info(codebase_version="v3.0")
    (line,) = lines(lerobot.root)
    assert "info.json: codebase_version is 'v3.0', expected v2.0 or v2.1; export the data set in that version" in line


def test_short_lists():
    assert listed("abc") == "a, b, c"
    assert listed("abcde", limit=3) == "a, b, c and 2 more"
    assert ranges([]) == ""
    assert ranges([0, 1, 2, 5, 7, 8]) == "0-2, 5, 7-8"


@pytest.mark.parametrize("key", ["observations/joint", "actions", "rewards"])
@pytest.mark.filterwarnings("error")
def test_what_float32_cannot_hold_is_an_error(sound, key):
    replaced(sound, key, value(sound, key).astype(np.float64) * 1e300)
    result = check(sound)
    assert not result.trainable
    assert any(problem.field == key and "infinite" in problem.got for problem in result.problems)


def test_frames_without_pixels_are_an_error(sound):
    replaced(sound, IMAGES[0], np.zeros((ROWS, 0, 6, 3), np.uint8))
    assert any(problem.field == IMAGES[0] and "expected" in str(problem) for problem in check(sound).problems)


def test_an_empty_recording_is_not_called_damaged(sound):
    for key in (*IMAGES, "observations/joint", "actions", "rewards", "terminals"):
        replaced(sound, key, value(sound, key)[:0])
    result = check(sound)
    assert any("0 rows" in problem.got for problem in result.problems)
    assert not any("damaged" in problem.got for problem in result.problems)


@pytest.mark.filterwarnings("error")
def test_row_numbers_that_are_nan_are_one_problem(sound):
    replaced(sound, "episode_ends", np.array([20, np.nan, 60]))
    assert any("'episode_ends' must be" in problem.got for problem in check(sound).problems)
