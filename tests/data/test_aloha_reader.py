"""ALOHA episode folders: every dialect as its recorder writes it, and every way in which a folder can be bad."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from lapwing.data.formats import read_recording
from lapwing.data.formats.aloha import episode_files, is_aloha, read_aloha
from lapwing.data.formats.options import ReadOptions
from lapwing.data.info import format_info, info
from lapwing.episode import Array
from lapwing.errors import DataError

CAMERAS = ("cam_high", "cam_left_wrist", "cam_right_wrist")
HEIGHT, WIDTH = 16, 24


def opencv_jpeg(frame: Array) -> bytes:
    """What cv2.imencode makes of an RGB array, which it takes for BGR."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(frame[..., ::-1])).save(buffer, "JPEG", quality=50)
    return buffer.getvalue()


def grey_jpeg(depth: Array) -> bytes:
    """What cv2.imencode makes of a depth image: 8 bits, clipped."""
    buffer = io.BytesIO()
    Image.fromarray(np.minimum(depth, 255).astype(np.uint8)).save(buffer, "JPEG", quality=50)
    return buffer.getvalue()


def padded(jpegs: list[bytes], size: int | None = None) -> Array:
    size = size or max(map(len, jpegs))
    return np.stack([np.frombuffer(one.ljust(size, b"\0"), np.uint8) for one in jpegs])


@dataclass(frozen=True)
class Recorded:
    """What an operator did: red above, blue below, both growing with the step and different for each camera."""

    steps: int = 5
    seed: int = 0
    moving: bool = True
    cameras: tuple[str, ...] = CAMERAS
    vectors: dict[str, Array] = field(default_factory=dict)

    def __post_init__(self) -> None:
        rng = np.random.default_rng(self.seed)
        for name in ("qpos", "qvel", "effort", "action"):
            self.vectors[name] = rng.normal(size=(self.steps, 14)).astype(np.float32)
        self.vectors["base_action"] = self.moving * rng.normal(size=(self.steps, 2)).astype(np.float32)

    def frames(self, camera: str) -> Array:
        frames = np.zeros((self.steps, HEIGHT, WIDTH, 3), np.uint8)
        levels = (100 + 20 * self.cameras.index(camera) + 8 * np.arange(self.steps))[:, None, None]
        frames[:, : HEIGHT // 2, :, 0] = levels
        frames[:, HEIGHT // 2 :, :, 2] = levels
        return frames

    def depth(self, camera: str) -> Array:
        levels = 500 + 100 * self.cameras.index(camera) + np.arange(self.steps)
        return np.broadcast_to(levels[:, None, None], (self.steps, HEIGHT, WIDTH)).astype(np.uint16)

    def write(self, path: Path, numbers: tuple[str, ...], **attributes: bool) -> h5py.File:
        """The file with its numbers and no images yet, open."""
        path.parent.mkdir(parents=True, exist_ok=True)
        file = h5py.File(path, "w")
        file.attrs.update(attributes)
        for name in numbers:
            file[name if "action" in name else f"observations/{name}"] = self.vectors[name]
        return file

    def write_raw(self, file: h5py.File) -> None:
        for camera in self.cameras:
            chunks = (1, HEIGHT, WIDTH, 3)
            file.create_dataset(f"observations/images/{camera}", data=self.frames(camera), chunks=chunks)

    def write_jpeg(self, file: h5py.File, across_cameras: bool, chunked: bool = True) -> None:
        jpegs = {camera: [opencv_jpeg(frame) for frame in self.frames(camera)] for camera in self.cameras}
        longest = max(len(one) for part in jpegs.values() for one in part) if across_cameras else None
        for camera, part in jpegs.items():
            rows = padded(part, longest)
            chunks = (1, rows.shape[1]) if chunked else None
            file.create_dataset(f"observations/images/{camera}", data=rows, chunks=chunks)
        # The order of its rows is the camera list's in one program and the file's in another: here, neither.
        file["compress_len"] = np.array([list(map(len, part)) for part in reversed(jpegs.values())], np.float32)


BASED = ("qpos", "qvel", "effort", "action", "base_action")


def write_sim(path: Path, made: Recorded) -> None:
    with made.write(path, ("qpos", "qvel", "action"), sim=True) as file:
        made.write_raw(file)


def write_real(path: Path, made: Recorded) -> None:
    with made.write(path, ("qpos", "qvel", "effort", "action"), sim=False) as file:
        made.write_raw(file)


def write_mobile(path: Path, made: Recorded) -> None:
    with made.write(path, BASED, sim=False, compress=True) as file:
        made.write_jpeg(file, across_cameras=True)


def write_recompressed(path: Path, made: Recorded) -> None:
    with made.write(path, ("qpos", "qvel", "effort", "action"), sim=False, compress=True) as file:
        made.write_jpeg(file, across_cameras=False, chunked=False)


def write_cobot(path: Path, made: Recorded) -> None:
    with made.write(path, BASED, sim=False, compress=False) as file:
        made.write_raw(file)
        for camera in made.cameras:
            chunks = (1, HEIGHT, WIDTH)
            file.create_dataset(f"observations/images_depth/{camera}", data=made.depth(camera), chunks=chunks)


def write_older_cobot(path: Path, made: Recorded) -> None:
    with made.write(path, BASED, sim=False, compress=True) as file:
        made.write_jpeg(file, across_cameras=True)
        for camera in made.cameras:
            file[f"observations/depths/{camera}"] = padded([grey_jpeg(one) for one in made.depth(camera)])


def write_unmarked(path: Path, made: Recorded) -> None:
    with made.write(path, BASED, sim=False) as file:
        made.write_jpeg(file, across_cameras=True)


def write_strings(path: Path, made: Recorded) -> None:
    with made.write(path, BASED, sim=False, compress=False) as file:  # the attribute is wrong, on purpose
        for camera in made.cameras:
            rows = file.create_dataset(
                f"observations/images/{camera}", (made.steps,), h5py.vlen_dtype(np.dtype(np.uint8))
            )
            for step, frame in enumerate(made.frames(camera)):
                rows[step] = np.frombuffer(opencv_jpeg(frame), np.uint8)


def write_packed(path: Path, made: Recorded) -> None:
    with made.write(path, ("qpos", "qvel", "effort", "action"), sim=False) as file:
        for camera in made.cameras:
            file.create_dataset(f"observations/images/{camera}", data=made.frames(camera), compression="gzip")


Write = Callable[[Path, Recorded], None]
# writer: robot, rate, action axes, sensors
DIALECTS: dict[str, tuple[Write, str, float, int, set[str]]] = {
    "ACT sim": (write_sim, "aloha-sim", 50, 14, {"velocity"}),
    "ALOHA real": (write_real, "aloha", 50, 14, {"velocity", "effort"}),
    "Mobile ALOHA": (write_mobile, "mobile-aloha", 50, 16, {"velocity", "effort", "base_velocity"}),
    "recompressed": (write_recompressed, "aloha", 50, 14, {"velocity", "effort"}),
    "cobot_magic": (
        write_cobot,
        "cobot-magic",
        30,
        16,
        {"velocity", "effort", "base_velocity", *(f"depth_{name}" for name in CAMERAS)},
    ),
    "older cobot_magic": (
        write_older_cobot,
        "cobot-magic",
        30,
        16,
        {"velocity", "effort", "base_velocity", *(f"depth_{name}" for name in CAMERAS)},
    ),
    "no compress attribute": (write_unmarked, "aloha", 0, 16, {"velocity", "effort", "base_velocity"}),
    "strings of bytes": (write_strings, "cobot-magic", 30, 16, {"velocity", "effort", "base_velocity"}),
    "packed with gzip": (write_packed, "aloha", 50, 14, {"velocity", "effort"}),
}
RAW = {"ACT sim", "ALOHA real", "cobot_magic", "packed with gzip"}


@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_dialect_is_read(tmp_path, dialect):
    write, robot, rate_hz, action_axes, sensors = DIALECTS[dialect]
    made = [Recorded(5, seed=0), Recorded(3, seed=1)]
    for number, one in enumerate(made):
        write(tmp_path / f"episode_{number}.hdf5", one)
    recording = read_recording(tmp_path)
    spec = recording.spec
    assert (recording.layout, spec.name, spec.rate_hz) == ("aloha", robot, rate_hz)
    assert (spec.camera_names, spec.state_dim, spec.action_dim) == (CAMERAS, 14, action_axes)
    assert [axis.name for axis in spec.state[5:8]] == ["left_wrist_rotate", "left_gripper", "right_waist"]
    assert {sensor.name for sensor in spec.sensors} == sensors
    for episode, one in zip(recording.episodes, made, strict=True):
        assert (episode.num_steps, episode.num_rows) == (one.steps, one.steps)
        assert (episode.reward, episode.terminated, episode.success, episode.time) == (None, False, None, None)
        np.testing.assert_array_equal(episode.state, one.vectors["qpos"])
        np.testing.assert_array_equal(episode.action[:, :14], one.vectors["action"])
        np.testing.assert_array_equal(episode.sensors["velocity"], one.vectors["qvel"])
        if action_axes == 16:
            np.testing.assert_array_equal(episode.action[:, 14:], one.vectors["base_action"])
        for camera in CAMERAS:
            expect_frames(episode.images[camera], one.frames(camera), exact=dialect in RAW)


def expect_frames(found, frames: Array, exact: bool) -> None:
    assert found.shape == frames.shape
    tolerance = 0 if exact else 60  # JPEG bleeds where red meets blue
    assert np.abs(found[:].astype(int) - frames).max() <= tolerance
    assert np.abs(found[:].mean((1, 2)) - frames.mean((1, 2))).max() <= (0 if exact else 4)
    np.testing.assert_array_equal(found[-1], found[:][-1])
    np.testing.assert_array_equal(found[np.array([2, 0, 2])], found[:][[2, 0, 2]])
    assert found[0:0].shape == (0, *frames.shape[1:])


@pytest.mark.parametrize("dialect", DIALECTS)
def test_red_is_red(tmp_path, dialect):
    DIALECTS[dialect][0](tmp_path / "episode_0.hdf5", Recorded())
    (episode,) = read_aloha(tmp_path).episodes
    top = episode.images["cam_high"][0][2, 2]
    assert top[0] > 80 > 40 > max(top[1], top[2])


def test_depth_in_millimetres_stays_and_lossy_depth_is_told(tmp_path):
    made = Recorded()
    write_cobot(tmp_path / "new" / "episode_0.hdf5", made)
    write_older_cobot(tmp_path / "old" / "episode_0.hdf5", made)
    new, old = read_aloha(tmp_path / "new"), read_aloha(tmp_path / "old")
    (sensor,) = (one for one in new.spec.sensors if one.name == "depth_cam_high")
    assert (sensor.shape, sensor.unit, sensor.dtype) == ((HEIGHT, WIDTH), "mm", "uint16")
    np.testing.assert_array_equal(new.episodes[0].sensors["depth_cam_high"][:], made.depth("cam_high"))
    (sensor,) = (one for one in old.spec.sensors if one.name == "depth_cam_high")
    assert (sensor.unit, sensor.dtype) == ("", "uint8")
    assert (old.episodes[0].sensors["depth_cam_high"][1:3] == 255).all()
    assert not any("8 bits" in note for note in new.notes)
    assert any("depth_cam_high, depth_cam_left_wrist, depth_cam_right_wrist: 8 bits" in note for note in old.notes)


@pytest.mark.parametrize(
    ("base", "state", "action"), [("auto", 14, 16), ("off", 14, 14), ("action", 14, 16), ("both", 16, 16)]
)
def test_the_base_goes_where_it_is_asked_for(tmp_path, base, state, action):
    made = Recorded()
    write_mobile(tmp_path / "episode_0.hdf5", made)
    recording = read_aloha(tmp_path, ReadOptions(base=base))
    (episode,) = recording.episodes
    assert (recording.spec.state_dim, recording.spec.action_dim) == (state, action)
    assert (episode.state.shape[1], episode.action.shape[1]) == (state, action)
    for axes, values in ((recording.spec.state, episode.state), (recording.spec.action, episode.action)):
        if len(axes) == 16:
            assert [(axis.name, axis.kind) for axis in axes[14:]] == [("base_linear", "base"), ("base_angular", "base")]
            np.testing.assert_array_equal(values[:, 14:], made.vectors["base_action"])
    np.testing.assert_array_equal(episode.sensors["base_velocity"], made.vectors["base_action"])


def test_a_base_that_never_moves_is_left_out_aloud(tmp_path):
    write_cobot(tmp_path / "episode_0.hdf5", Recorded(moving=False))
    recording = read_aloha(tmp_path)
    assert recording.spec.action_dim == 14
    assert any("'base_action' never moves: left out of the action" in note for note in recording.notes)
    assert read_aloha(tmp_path, ReadOptions(base="action")).spec.action_dim == 16
    write_cobot(tmp_path / "episode_1.hdf5", Recorded(seed=1))  # in one episode it does
    assert read_aloha(tmp_path).spec.action_dim == 16


def test_a_base_that_was_asked_for_and_is_not_there(tmp_path):
    write_real(tmp_path / "episode_0.hdf5", Recorded())
    with pytest.raises(DataError, match=r"episode_0.hdf5: no dataset 'base_action', expected one with --base both"):
        read_aloha(tmp_path, ReadOptions(base="both"))


def test_episodes_come_in_the_order_of_their_numbers(tmp_path):
    for name in ("episode_10", "episode_2", "mirror_episode_1", "episode_0"):
        write_sim(tmp_path / f"{name}.hdf5", Recorded(2))
    (tmp_path / ".episode_3.hdf5.ab12.partial").write_bytes(b"")
    (tmp_path / "episode_4.txt").write_text("")
    recording = read_aloha(tmp_path)
    names = [str(episode.meta["file"]) for episode in recording.episodes]
    assert names == ["episode_0.hdf5", "episode_2.hdf5", "episode_10.hdf5", "mirror_episode_1.hdf5"]
    assert [path.name for path in episode_files(tmp_path)] == names
    assert [episode.meta.get("mirror", False) for episode in recording.episodes] == [False, False, False, True]


def test_one_file_is_a_recording_too(tmp_path, tiny_flat):
    write_mobile(tmp_path / "demo.hdf5", Recorded())
    assert [episode.num_steps for episode in read_recording(tmp_path / "demo.hdf5").episodes] == [5]
    assert is_aloha(tmp_path / "demo.hdf5")
    assert not is_aloha(tiny_flat)
    assert not is_aloha(tmp_path)
    write_sim(tmp_path / "episode_0.hdf5", Recorded())
    assert is_aloha(tmp_path)


def test_many_files_leave_no_handle_open(tmp_path):
    for number in range(40):
        write_sim(tmp_path / f"episode_{number}.hdf5", Recorded(2, cameras=("top",)))
    before = len(os.listdir("/proc/self/fd"))
    recording = read_aloha(tmp_path)
    frames = [episode.images["top"][0] for episode in recording.episodes]
    assert len(frames) == 40
    assert len(os.listdir("/proc/self/fd")) - before < 5


@pytest.mark.parametrize("write", [write_mobile, write_packed])
def test_frames_may_be_read_from_another_folder(tmp_path, monkeypatch, write):
    write(tmp_path / "eps" / "episode_0.hdf5", Recorded())
    monkeypatch.chdir(tmp_path)
    (episode,) = read_aloha(Path("eps")).episodes
    frames = episode.images["cam_high"][:]
    monkeypatch.chdir(tmp_path / "eps")
    np.testing.assert_array_equal(episode.images["cam_high"][:], frames)


def test_figures_of_a_folder(tmp_path):
    for number, steps in enumerate((5, 3)):
        write_mobile(tmp_path / f"episode_{number}.hdf5", Recorded(steps, seed=number))
    (tmp_path / "episode_2.hdf5").write_bytes(b"no file")
    figures = info(tmp_path)
    assert (figures["layout"], figures["episodes"], figures["steps"]) == ("aloha", 2, 8)
    assert figures["sensors"] == ["velocity", "effort", "base_velocity"]
    assert any(note.startswith("left out: ") and "episode_2.hdf5" in note for note in figures["notes"])
    text = format_info(figures)
    assert "cam_high 24x16, cam_left_wrist 24x16" in text
    assert "the files do not say their rate: 50 Hz, as mobile-aloha records" in text


# Bad input: spoil episode 1 of three, and see it named, and the others usable.


def edit(path: Path, change: Callable[[h5py.File], object]) -> None:
    with h5py.File(path, "r+") as file:
        change(file)


def replace_rows(key: str, rule: Callable[[Array], Array]) -> Callable[[Path], None]:
    def change(file: h5py.File) -> None:
        values = rule(file[key][:])
        del file[key]
        file[key] = values

    return lambda path: edit(path, change)


def remove(key: str) -> Callable[[Path], None]:
    return lambda path: edit(path, lambda file: file.__delitem__(key))


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def set_row(row: int, rule: Callable[[Array], Array]) -> Callable[[Path], None]:
    def change(file: h5py.File) -> None:
        rows = file["observations/images/cam_high"]
        rows[row] = rule(rows[row])

    return lambda path: edit(path, change)


def cut_short(row: Array) -> Array:
    size = len(bytes(row).rstrip(b"\0"))
    return np.where(np.arange(len(row)) < size - 20, row, 0).astype(np.uint8)


def add_camera(path: Path) -> None:
    edit(path, lambda file: file.copy("observations/images/cam_high", "observations/images/cam_low"))


def other_size(path: Path) -> None:
    frames = np.zeros((5, 8, 8, 3), np.uint8)
    replace_rows("observations/images/cam_high", lambda _: padded([opencv_jpeg(one) for one in frames]))(path)


BAD = {
    "truncated": (truncate, "the HDF5 file is truncated"),
    "empty": (lambda path: path.write_bytes(b""), "the file is empty (0 bytes)"),
    "no HDF5": (lambda path: path.write_text("episode" * 99), "not an HDF5 file"),
    "no action": (remove("action"), "no dataset 'action' (found base_action, compress_len, observations)"),
    "no state": (remove("observations/qpos"), "no dataset 'observations/qpos' (found effort, images, qvel)"),
    "no images": (remove("observations/images"), "no group 'observations/images'"),
    "no steps": (replace_rows("action", lambda values: values[:0]), "'action' has 0 rows"),
    "short state": (
        replace_rows("observations/qpos", lambda values: values[:4]),
        "'observations/qpos' has 4 rows, exp",
    ),
    "short effort": (
        replace_rows("observations/effort", lambda values: values[:4]),
        "'observations/effort' has 4 rows",
    ),
    "short base": (replace_rows("base_action", lambda values: values[:4]), "'base_action' has 4 rows, expected 5"),
    "short camera": (
        replace_rows("observations/images/cam_high", lambda values: values[:4]),
        "'observations/images/cam_high' has 4 rows, expected 5 as action has",
    ),
    "flat state": (
        replace_rows("observations/qpos", lambda values: values[:, 0]),
        "'observations/qpos' is float32 (5,), expected numbers [N, axes]",
    ),
    "text for numbers": (
        replace_rows("action", lambda values: np.full(values.shape, b"x")),
        "'action' is |S1 (5, 14), expected numbers",
    ),
    "one number of the base": (replace_rows("base_action", lambda values: values[:, :1]), "'base_action' has 1 axes"),
    "first frame no JPEG": (
        set_row(0, lambda row: row * 0),
        "'observations/images/cam_high': frame 0 does not decode (no JPEG picture)",
    ),
    "last frame cut short": (set_row(4, cut_short), "'observations/images/cam_high': frame 4 does not decode"),
    "another camera": (
        add_camera,
        "cameras (height x width) cam_high 16x24, cam_left_wrist 16x24, cam_low 16x24, cam_right_wrist 16x24, "
        "expected cam_high 16x24, cam_left_wrist 16x24, cam_right_wrist 16x24 as in episode_0.hdf5",
    ),
    "another image size": (other_size, "cameras (height x width) cam_high 8x8, "),
    "another state": (
        replace_rows("observations/qpos", lambda values: values[:, :7]),
        "state axes 7, expected 14 as in episode_0.hdf5",
    ),
    "another action": (
        replace_rows("action", lambda values: values[:, :7]),
        "action axes 7, expected 14 as in episode",
    ),
    "no base": (remove("base_action"), "holds no 'base_action', expected 'base_action' as in episode_0.hdf5"),
}


@pytest.fixture
def folder(tmp_path) -> Path:
    """Three sound episodes of Mobile ALOHA."""
    for number in range(3):
        write_mobile(tmp_path / f"episode_{number}.hdf5", Recorded(seed=number))
    return tmp_path


@pytest.mark.parametrize("kind", BAD)
def test_a_damaged_episode_is_named_and_the_others_are_usable(folder, kind):
    spoil, message = BAD[kind]
    path = folder / "episode_1.hdf5"
    spoil(path)
    with pytest.raises(DataError, match=f"^{re.escape(str(path))}: .*{re.escape(message)}.*--skip-damaged$") as caught:
        read_recording(folder)
    assert "\n" not in str(caught.value)
    recording = read_recording(folder, ReadOptions(skip_damaged=True))
    assert [episode.meta["file"] for episode in recording.episodes] == ["episode_0.hdf5", "episode_2.hdf5"]
    (note,) = (note for note in recording.notes if note.startswith("left out: "))
    assert str(path) in note
    assert message in note


def test_several_damaged_episodes_are_counted(folder):
    for number in (0, 2):
        truncate(folder / f"episode_{number}.hdf5")
    with pytest.raises(DataError, match=r"^2 episodes cannot be used, the first: .*episode_0.hdf5: .* is truncated"):
        read_recording(folder)
    assert len(read_recording(folder, ReadOptions(skip_damaged=True)).episodes) == 1


def test_an_odd_first_episode_does_not_rule_out_the_others(folder):
    add_camera(folder / "episode_0.hdf5")
    recording = read_recording(folder, ReadOptions(skip_damaged=True))
    assert [episode.meta["file"] for episode in recording.episodes] == ["episode_1.hdf5", "episode_2.hdf5"]


def test_no_sound_episode_is_an_error_even_when_skipping(folder):
    for path in episode_files(folder):
        truncate(path)
    with pytest.raises(DataError, match=r"^3 episodes cannot be used, the first: ") as caught:
        read_recording(folder, ReadOptions(skip_damaged=True))
    assert "--skip-damaged" not in str(caught.value)  # nothing would be left


def test_a_damaged_frame_within_is_named_when_it_is_read(folder):
    set_row(2, cut_short)(folder / "episode_1.hdf5")
    frames = read_recording(folder).episodes[1].images["cam_high"]
    assert frames[:2].shape == (2, HEIGHT, WIDTH, 3)
    with pytest.raises(DataError, match=r"episode_1.hdf5: 'observations/images/cam_high': frame 2 does not decode"):
        frames[1:4]


def test_a_frame_of_another_size_within_is_named(folder):
    small = opencv_jpeg(np.zeros((8, 8, 3), np.uint8))
    set_row(2, lambda row: padded([small], len(row))[0])(folder / "episode_1.hdf5")
    with pytest.raises(DataError, match=r"episode_1.hdf5: .*: frame 2 is \(8, 8, 3\), expected \(16, 24, 3\)"):
        read_recording(folder).episodes[1].images["cam_high"][:]


def test_a_single_damaged_file_is_an_error_without_advice_to_skip(folder):
    remove("action")(folder / "episode_1.hdf5")
    with pytest.raises(DataError, match=r"episode_1.hdf5: no dataset 'action'") as caught:
        read_recording(folder / "episode_1.hdf5")
    assert "--skip-damaged" not in str(caught.value)


def test_an_empty_folder_is_named(tmp_path):
    with pytest.raises(DataError, match=r"found a folder with nothing in it, expected episode_0.hdf5 and so on"):
        read_recording(tmp_path)


def test_a_folder_of_folders_says_which_to_name(tmp_path):
    write_sim(tmp_path / "pour" / "episode_0.hdf5", Recorded(2))
    with pytest.raises(DataError, match=r"found episodes in its folders pour, expected one folder; name one"):
        read_recording(tmp_path)


def test_a_sensor_that_some_episodes_lack_is_left_out_aloud(folder):
    remove("observations/effort")(folder / "episode_1.hdf5")
    recording = read_recording(folder)
    assert [sensor.name for sensor in recording.spec.sensors] == ["velocity", "base_velocity"]
    assert [set(episode.sensors) for episode in recording.episodes] == [{"velocity", "base_velocity"}] * 3
    assert "not read, for some episodes have none or others: effort" in recording.notes


def test_what_is_no_camera_among_the_images_is_told(folder):
    for path in episode_files(folder):
        edit(path, lambda file: file.create_dataset("observations/images/cam_high_depth", (5, 4, 4), np.uint16))
    recording = read_recording(folder)
    assert recording.spec.camera_names == CAMERAS
    assert sum("cam_high_depth' is neither frames" in note for note in recording.notes) == 1
