"""Episodes written as ALOHA files: read back by us, and by what each original loader does."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lapwing.data.formats import read_recording
from lapwing.data.formats.aloha import read_aloha
from lapwing.data.formats.aloha_writer import episode_path, write_aloha_episode
from lapwing.data.formats.options import ReadOptions
from lapwing.episode import Array, Episode
from lapwing.errors import DataError
from lapwing.spec import Axis, Camera, RobotSpec, Sensor, unnamed_axes

DIALECTS = ("aloha", "aloha-sim", "mobile-aloha", "cobot-magic")
BASE = (Axis("base_linear", "m/s", "base"), Axis("base_angular", "rad/s", "base"))
ARMS = unnamed_axes("joint", 14)
SENSORS = (
    Sensor("velocity", (14,), "rad/s"),
    Sensor("effort", (14,)),
    Sensor("depth_cam_high", (24, 32), "mm", "uint16"),
    Sensor("touch", (3, 4), "N"),
    Sensor("battery", (), "V", "float64"),
)
SPEC = RobotSpec("two arms", (Camera("cam_high", 24, 32), Camera("cam_left_wrist", 16, 16)), ARMS, ARMS, 40.0, SENSORS)
MOBILE = replace(SPEC, action=(*ARMS, *BASE))
ROLLING = replace(MOBILE, state=(*ARMS, *BASE))


def make_episode(spec: RobotSpec, steps: int = 6, observes_end: bool = True, seed: int = 0) -> Episode:
    """Red frames that grow with the step, and noise for numbers."""
    rng = np.random.default_rng(seed)
    rows = steps + observes_end
    levels = (np.minimum(120 + 6 * np.arange(rows), 250))[:, None, None]
    images = {one.name: np.zeros((rows, one.height, one.width, 3), np.uint8) for one in spec.cameras}
    for frames in images.values():
        frames[..., 0] = levels
    return Episode(
        images=images,
        state=rng.normal(size=(rows, spec.state_dim)).astype(np.float32),
        action=rng.normal(size=(steps, spec.action_dim)).astype(np.float32),
        reward=rng.normal(size=steps).astype(np.float32),
        terminated=True,
        success=True,
        meta={"operator": "A", "seed": seed},
        time=100.0 + 0.025 * np.arange(rows),
        sensors={one.name: (1000 * rng.random((rows, *one.shape))).astype(one.dtype) for one in spec.sensors},
        intervened=np.arange(steps) % 2 == 1,
    )


def expect_equal(found: Episode, written: Episode, tolerance: int) -> None:
    for name in ("state", "action", "reward", "time", "intervened"):
        before, after = getattr(written, name), getattr(found, name)
        assert (before is None) == (after is None), name
        if before is not None:
            np.testing.assert_array_equal(after, before, err_msg=name)
            assert after.dtype == before.dtype, name
    assert set(found.sensors) == set(written.sensors)
    for name, readings in written.sensors.items():
        np.testing.assert_array_equal(found.sensors[name][:], readings, err_msg=name)
        assert found.sensors[name][:].dtype == readings.dtype
    for name, frames in written.images.items():
        assert np.abs(found.images[name][:].astype(int) - frames).max() <= tolerance, name
        np.testing.assert_array_equal(found.images[name][-1], found.images[name][:][-1])
    assert (found.terminated, found.success) == (written.terminated, written.success)
    assert written.meta.items() <= found.meta.items()


@pytest.mark.parametrize("observes_end", [True, False])
@pytest.mark.parametrize("spec", [SPEC, MOBILE, ROLLING], ids=["arms", "mobile", "rolling"])
@pytest.mark.parametrize("dialect", DIALECTS)
def test_an_episode_comes_back(tmp_path, dialect, spec, observes_end):
    written = make_episode(spec, observes_end=observes_end)
    write_aloha_episode(episode_path(tmp_path, 0), written, spec, dialect)
    recording = read_recording(tmp_path)
    assert recording.spec == spec
    assert recording.notes == ()
    expect_equal(recording.episodes[0], written, tolerance=3 if dialect == "mobile-aloha" else 0)
    assert recording.episodes[0].num_rows == 6 + observes_end
    assert [path.name for path in tmp_path.iterdir()] == ["episode_0.hdf5"]


def test_what_was_not_recorded_stays_unknown(tmp_path):
    spec = replace(SPEC, sensors=(), cameras=())
    written = replace(
        make_episode(spec), reward=None, time=None, intervened=None, success=None, terminated=False, meta={}
    )
    write_aloha_episode(tmp_path / "episode_0.hdf5", written, spec, "cobot-magic")
    recording = read_aloha(tmp_path)
    expect_equal(recording.episodes[0], written, 0)
    assert recording.spec == spec  # the zeros that stand for velocity and base are no sensors
    with h5py.File(tmp_path / "episode_0.hdf5") as file:
        assert json.loads(file.attrs["lapwing"])["absent"] == ["observations/qvel", "base_action"]
        assert not file["base_action"][:].any()
        assert "effort" not in file["observations"]


def test_the_base_of_our_own_files_can_be_chosen_too(tmp_path):
    written = make_episode(ROLLING)
    write_aloha_episode(tmp_path / "episode_0.hdf5", written, ROLLING, "aloha")
    for base, state, action in (("auto", 16, 16), ("off", 14, 14), ("action", 14, 16), ("both", 16, 16)):
        recording = read_aloha(tmp_path, ReadOptions(base=base))
        episode = recording.episodes[0]
        np.testing.assert_array_equal(episode.state, written.state[:, :state])
        np.testing.assert_array_equal(episode.action, written.action[:, :action])
        assert (len(recording.spec.state), len(recording.spec.action)) == (state, action)


def test_a_base_that_was_not_observed_at_the_end_is_no_state(tmp_path):
    write_aloha_episode(tmp_path / "episode_0.hdf5", make_episode(MOBILE), MOBILE)
    with pytest.raises(DataError, match=r"no base velocity was recorded after the last action.*; use --base action"):
        read_aloha(tmp_path, ReadOptions(base="both"))


def test_the_rate_is_measured_where_the_spec_does_not_say(tmp_path):
    spec = replace(SPEC, rate_hz=0.0)
    write_aloha_episode(tmp_path / "episode_0.hdf5", make_episode(spec), spec)
    assert read_aloha(tmp_path).spec.rate_hz == 40.0


NAMES = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=6).filter(
    lambda name: name != "."
)


@settings(deadline=None, max_examples=25)
@given(
    cameras=st.dictionaries(NAMES, st.tuples(st.integers(1, 9), st.integers(1, 9)), max_size=3),
    sensors=st.dictionaries(
        NAMES | st.sampled_from(["velocity", "effort", "depth_a", "depth_", "base_velocity"]),
        st.tuples(
            st.lists(st.integers(1, 3), max_size=3).map(tuple),
            st.sampled_from(["float32", "uint16", "int64", "float64"]),
        ),
        max_size=3,
    ),
    dims=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    steps=st.integers(1, 5),
    observes_end=st.booleans(),
    dialect=st.sampled_from(DIALECTS),
    seed=st.integers(0, 9),
)
def test_any_robot_comes_back(tmp_path_factory, cameras, sensors, dims, steps, observes_end, dialect, seed):
    spec = RobotSpec(
        "any",
        tuple(Camera(name, *size) for name, size in cameras.items()),
        unnamed_axes("state", dims[0]),
        unnamed_axes("action", dims[1]),
        sensors=tuple(
            Sensor(name, shape, dtype="float32" if name in ("velocity", "effort") else dtype)
            for name, (shape, dtype) in sensors.items()
        ),
        rate_hz=3.0,
    )
    written = make_episode(spec, steps, observes_end, seed)
    path = tmp_path_factory.mktemp("any") / "episode_7.hdf5"
    write_aloha_episode(path, written, spec, dialect)
    recording = read_recording(path)
    assert recording.spec == spec
    expect_equal(recording.episodes[0], written, tolerance=5 if dialect == "mobile-aloha" else 0)


# What the original loaders do, said again with Pillow in OpenCV's place.


def cv2_imdecode(data: Array) -> Array:
    """Blue, green, red, as cv2.imdecode(data, 1) gives it."""
    with Image.open(io.BytesIO(data.tobytes())) as picture:
        return np.asarray(picture.convert("RGB"))[..., ::-1]


def act_sim(path: Path, camera_names: tuple[str, ...], start: int) -> tuple[dict[str, Array], Array, Array]:
    """EpisodicDataset.__getitem__ and get_norm_stats of tonyzhaozh/act."""
    with h5py.File(path, "r") as root:
        is_sim = root.attrs["sim"]
        assert root["/observations/qvel"][()].shape == root["/observations/qpos"][()].shape
        images = {name: root[f"/observations/images/{name}"][start] for name in camera_names}
        actions = root["/action"]
        assert actions.shape[0] == root["/observations/qpos"].shape[0]
        return images, root["/observations/qpos"][start], actions[start:] if is_sim else actions[max(0, start - 1) :]


def act_plus_plus(path: Path, camera_names: tuple[str, ...], start: int) -> tuple[dict[str, Array], Array, Array]:
    """EpisodicDataset.__getitem__ of MarkFzp/act-plus-plus, its smoothing of the base left out."""
    with h5py.File(path, "r") as root:
        is_sim = root.attrs.get("sim", False)
        compressed = root.attrs.get("compress", False)
        action = root["/action"][()]
        base = root["/base_action"][()] if "/base_action" in root else np.zeros([action.shape[0], 2])
        action = np.concatenate([action, base], axis=-1)
        images = {name: root[f"/observations/images/{name}"][start] for name in camera_names}
        if compressed:
            images = {name: cv2_imdecode(data) for name, data in images.items()}
            assert root["/compress_len"][()].shape == (len(camera_names), action.shape[0])
        return images, root["/observations/qpos"][start], action[start:] if is_sim else action[max(0, start - 1) :]


def cobot_magic(path: Path, camera_names: tuple[str, ...], start: int) -> tuple[dict[str, Array], Array, Array]:
    """EpisodicDataset.__getitem__ of agilexrobotics/cobot_magic, with its base on."""
    with h5py.File(path, "r") as root:
        assert root.attrs["sim"] in (True, False)
        is_compress = root.attrs["compress"]
        qpos = np.concatenate((root["/observations/qpos"][start], root["/base_action"][start]), axis=0)
        images = {name: root[f"/observations/images/{name}"][start] for name in camera_names}
        if is_compress:
            images = {name: cv2_imdecode(data) for name, data in images.items()}
        action = root["/action"][1:]
        action = np.append(action, action[-1][np.newaxis, :], axis=0)[start:]
        return images, qpos, np.concatenate((action, root["/base_action"][start:]), axis=1)


@pytest.mark.parametrize(
    ("loader", "dialect", "state_axes", "action_axes"),
    [
        (act_sim, "aloha", 14, 14),
        (act_sim, "aloha-sim", 14, 14),
        (act_plus_plus, "aloha", 14, 16),
        (act_plus_plus, "aloha-sim", 14, 16),
        (act_plus_plus, "mobile-aloha", 14, 16),
        (cobot_magic, "mobile-aloha", 16, 16),
        (cobot_magic, "cobot-magic", 16, 16),
    ],
)
@pytest.mark.parametrize("spec", [SPEC, MOBILE], ids=["arms", "mobile"])
def test_original_loaders_read_what_we_write(tmp_path, loader, dialect, state_axes, action_axes, spec):
    written = make_episode(spec)
    path = episode_path(tmp_path, 0)
    write_aloha_episode(path, written, spec, dialect)
    for start in (0, 3, 5):
        images, state, action = loader(path, spec.camera_names, start)
        for name, frame in images.items():
            assert frame.dtype == np.uint8
            assert np.abs(frame.astype(int) - written.images[name][start]).max() <= 4  # red is where red was
        np.testing.assert_array_equal(state[:14], written.state[start])
        assert (len(state), action.shape[1]) == (state_axes, action_axes)
        assert (state.dtype, action[:, :14].dtype) == (np.float32, action.dtype)
        if state_axes == 16:
            base = written.action[start, 14:] if spec is MOBILE else np.zeros(2)
            np.testing.assert_array_equal(state[14:], base)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_the_layout_is_that_of_the_recorders(tmp_path, dialect):
    spec = replace(MOBILE, sensors=SENSORS[:3])
    path = episode_path(tmp_path, 3)
    write_aloha_episode(path, make_episode(spec, 5), spec, dialect)
    assert path.name == "episode_3.hdf5"
    with h5py.File(path) as file:
        expected = {"aloha": {"sim": False}, "aloha-sim": {"sim": True}}
        expected |= {name: {"sim": False, "compress": name == "mobile-aloha"} for name in DIALECTS[2:]}
        attributes = {key: bool(value) for key, value in file.attrs.items() if key != "lapwing"}
        assert attributes == expected[dialect]
        for key in ("observations/qpos", "observations/qvel", "observations/effort", "action"):
            assert (file[key].shape, file[key].dtype) == ((5, 14), np.float32)
        assert (file["base_action"].shape, file["base_action"].dtype) == ((5, 2), np.float32)
        depth = file["observations/images_depth/cam_high"]
        assert (depth.shape, depth.dtype, depth.chunks) == ((5, 24, 32), np.uint16, (1, 24, 32))
        for camera in spec.cameras:
            rows = file[f"observations/images/{camera.name}"]
            assert (rows.dtype, rows.compression) == (np.uint8, None)
            if dialect == "mobile-aloha":
                lengths = file["compress_len"]
                assert (lengths.shape, lengths.dtype) == ((2, 5), np.float32)
                assert rows.shape == (5, lengths[:].max())
                assert rows.chunks == (1, rows.shape[1])
                sizes = lengths[spec.cameras.index(camera)].astype(int)
                for row, size in zip(rows, sizes, strict=True):
                    assert bytes(row[size - 2 : size]) == b"\xff\xd9"  # the end of a JPEG picture
                    assert not row[size:].any()
            else:
                assert rows.shape == (5, camera.height, camera.width, 3)
                assert rows.chunks == (1, camera.height, camera.width, 3)


def test_a_measured_base_is_what_the_mobile_dialects_call_their_action(tmp_path):
    spec = replace(SPEC, sensors=(Sensor("base_velocity", (2,)),))
    written = make_episode(spec)
    write_aloha_episode(tmp_path / "episode_0.hdf5", written, spec, "cobot-magic")
    with h5py.File(tmp_path / "episode_0.hdf5") as file:
        np.testing.assert_array_equal(file["base_action"][:], written.sensors["base_velocity"][:6])
    recording = read_aloha(tmp_path)
    assert recording.spec == spec
    expect_equal(recording.episodes[0], written, 0)


# Bad input


def test_a_file_is_never_replaced(tmp_path):
    path = episode_path(tmp_path, 0)
    path.write_text("mine")
    with pytest.raises(DataError, match=r"episode_0.hdf5: already exists; choose another name or delete it first"):
        write_aloha_episode(path, make_episode(SPEC), SPEC)
    assert path.read_text() == "mine"


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(DataError, match=r"nowhere/episode_0.hdf5: cannot be written \(no such folder\)"):
        write_aloha_episode(tmp_path / "nowhere" / "episode_0.hdf5", make_episode(SPEC), SPEC)


class BreakingFrames:
    """Frames that stop coming."""

    shape = (7, 24, 32, 3)

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __getitem__(self, rows, /):
        raise self.error


@pytest.mark.parametrize("dialect", ["aloha", "mobile-aloha"])
@pytest.mark.parametrize(
    ("error", "raised", "message"),
    [
        (KeyboardInterrupt("enough"), KeyboardInterrupt, "enough"),
        (OSError("disk full"), DataError, r"episode_0.hdf5: cannot be written \(disk full\); free some space"),
    ],
    ids=["interrupt", "disk"],
)
def test_nothing_half_written_stays(tmp_path, dialect, error, raised, message):
    episode = make_episode(SPEC)
    broken = replace(episode, images={**episode.images, "cam_high": BreakingFrames(error)})
    with pytest.raises(raised, match=message):
        write_aloha_episode(tmp_path / "episode_0.hdf5", broken, SPEC, dialect)
    assert list(tmp_path.iterdir()) == []


NARROW = replace(SPEC, state=ARMS[:7])
MISFITS = {
    "axes": (NARROW, r"state and action axes are \(\(14,\), \(14,\)\), expected \(\(7,\), \(14,\)\)"),
    "camera": (
        replace(SPEC, cameras=(Camera("top", 8, 8),)),
        "no camera 'top', found camera 'cam_high', camera 'cam_l",
    ),
    "size": (
        replace(SPEC, cameras=(Camera("cam_high", 8, 8),)),
        r"camera 'cam_high' is \(24, 32, 3\), expected \(8, 8, 3\)",
    ),
    "sensor": (replace(SPEC, sensors=(Sensor("smell", ()),)), "no sensor 'smell', found sensor 'battery'"),
    "reading": (replace(SPEC, sensors=(Sensor("touch", (2,)),)), r"sensor 'touch' is \(3, 4\), expected \(2,\)"),
}


@pytest.mark.parametrize("kind", MISFITS)
def test_an_episode_that_does_not_fit_its_spec_is_refused(tmp_path, kind):
    spec, message = MISFITS[kind]
    with pytest.raises(DataError, match=message):
        write_aloha_episode(tmp_path / "episode_0.hdf5", make_episode(SPEC), spec)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["", ".", "a/b", "\ud800"])
def test_a_name_that_cannot_be_stored_is_refused(tmp_path, name):
    spec = replace(SPEC, cameras=(Camera(name, 4, 4),))
    with pytest.raises(DataError, match=r"cannot be stored, expected text without '/'; choose another"):
        write_aloha_episode(tmp_path / "episode_0.hdf5", make_episode(spec), spec)


def change_spec(file: h5py.File, **changed: object) -> None:
    noted = json.loads(file.attrs["lapwing"])
    noted["spec"].update(changed)
    file.attrs["lapwing"] = json.dumps(noted)


def spoil_attribute(file: h5py.File) -> None:
    file.attrs["lapwing"] = "[]"


def drop(key: str):
    return lambda file: file.__delitem__(key)


SPOILED = {
    "attribute": (spoil_attribute, "attribute 'lapwing' is not the JSON our writer makes; delete the attribute"),
    "spec": (lambda file: change_spec(file, action=3), "attribute 'lapwing': spec: not a robot spec"),
    "state of another robot": (
        lambda file: change_spec(file, state=[{"name": "a"}]),
        "'observations/qpos' has 14 axes, expected 1 as the spec in attribute 'lapwing' has state axes",
    ),
    "action of another robot": (
        lambda file: change_spec(file, action=[{"name": "a"}]),
        "'action' has 14 axes, expected 1 as the spec in attribute 'lapwing' has action axes",
    ),
    "cameras of another robot": (
        lambda file: change_spec(file, cameras=[]),
        r"cameras are \[.*\], expected \[\] as attr",
    ),
    "readings of another shape": (
        lambda file: change_spec(file, sensors=[{"name": "touch", "shape": [2]}]),
        r"'observations/sensors/touch' has readings of shape \(3, 4\), expected \(2,\) as attribute",
    ),
    "no such sensor": (drop("observations/sensors/touch"), "no dataset 'observations/sensors/touch' .found battery"),
    "no base": (drop("base_action"), "no dataset 'base_action'"),
    "no last state": (drop("final_observation/qpos"), "no dataset 'final_observation/qpos'"),
    "no last frame": (drop("final_observation/images/cam_high"), "no dataset 'final_observation/images/cam_high'"),
    "no last reading": (drop("final_observation/sensors/touch"), "no dataset 'final_observation/sensors/touch'"),
    "time too short": (
        lambda file: (file.__delitem__("time"), file.__setitem__("time", np.zeros(6))),
        "'time' has 6 rows, expected 7",
    ),
    "reward too long": (
        lambda file: (file.__delitem__("reward"), file.__setitem__("reward", np.zeros(7))),
        "'reward' has 7 rows, expected 6 as action has",
    ),
}


@pytest.mark.parametrize("kind", SPOILED)
def test_our_own_additions_are_checked_too(tmp_path, kind):
    spoil, message = SPOILED[kind]
    path = episode_path(tmp_path, 0)
    write_aloha_episode(path, make_episode(MOBILE), MOBILE)
    with h5py.File(path, "r+") as file:
        spoil(file)
    with pytest.raises(DataError, match=rf"episode_0.hdf5: .*{message}"):
        read_aloha(tmp_path)
