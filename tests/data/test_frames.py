"""Frames by row: memory maps, and the packed cache for what cannot be mapped."""

from __future__ import annotations

import os
import shutil
import sys
import threading
from dataclasses import dataclass, field, replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from lapwing.data.formats import read_recording
from lapwing.data.formats.aloha_writer import episode_path, write_aloha_episode
from lapwing.data.formats.flat import FlatWriter, read_flat
from lapwing.data.frames import FrameStore, resize
from lapwing.episode import Episode, Recording
from lapwing.errors import DataError
from lapwing.spec import Camera, RobotSpec, unnamed_axes

KEYS = [f"observations/{name}_image" for name in ("left", "right", "global")]


@pytest.fixture
def rewrite(tiny_flat: Path):
    """Store the images of the tiny file again, by another rule."""

    def apply(rule, **storage) -> Path:
        with h5py.File(tiny_flat, "r+") as file:
            for key in KEYS:
                frames = rule(file[key][:])
                del file[key]
                file.create_dataset(key, data=frames, **storage)
            del file.attrs["lapwing"]
        return tiny_flat

    return apply


@pytest.fixture
def pixels(tiny_flat: Path) -> dict[str, np.ndarray]:
    with h5py.File(tiny_flat) as file:
        return {key.removeprefix("observations/").removesuffix("_image"): file[key][:] for key in KEYS}


def planar(frames):
    return frames.transpose(0, 3, 1, 2)


def expect_pixels(store: FrameStore, pixels: dict[str, np.ndarray]) -> None:
    rows = np.random.default_rng(0).integers(0, len(pixels["left"]), 50)
    for name, frames in pixels.items():
        gathered = store.gather(name, rows)
        np.testing.assert_array_equal(gathered, frames[rows])
        assert gathered.flags.c_contiguous
        assert gathered.flags.writeable


MAPPED = {"as written": None, "channels first": planar}
CACHED = {
    "compressed": (lambda frames: frames, {"compression": "gzip"}),
    "chunked": (lambda frames: frames, {"chunks": (2, 8, 6, 3)}),
    "floats to 1": (lambda frames: (frames / 255).astype(np.float32), {}),
    "floats to 255": (lambda frames: frames.astype(np.float32), {}),
    "half floats": (lambda frames: (frames / 255).astype(np.float16), {}),
    "floats, channels first": (lambda frames: planar(frames / 255), {"compression": "gzip"}),
}


@pytest.mark.parametrize("rule", MAPPED.values(), ids=MAPPED)
def test_contiguous_frames_are_used_where_they_lie(tiny_flat, rewrite, pixels, tmp_path, rule):
    if rule is not None:
        rewrite(rule)
    store = FrameStore.open(read_flat(tiny_flat), cache_dir=tmp_path / "cache", progress=False)
    expect_pixels(store, pixels)
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(("rule", "storage"), CACHED.values(), ids=CACHED)
def test_other_frames_go_through_a_cache(rewrite, pixels, tmp_path, rule, storage):
    path = rewrite(rule, **storage)
    recording = read_flat(path)
    store = FrameStore.open(recording, cache_dir=tmp_path / "cache", progress=False)
    expect_pixels(store, pixels)
    for name in pixels:
        direct = np.concatenate([episode.images[name][:] for episode in recording.episodes])
        np.testing.assert_array_equal(direct, pixels[name])
    assert list((tmp_path / "cache").glob("*/left.npy"))


def test_rows_count_over_the_episodes(make_recording):
    recording = make_recording([(3, True, False), (2, False, True), (4, True, True)])
    store = FrameStore.open(recording)
    assert store.row_of_episode.tolist() == [0, 3, 6]
    marks = store.gather("right", np.arange(11))[:, 0, 0, :2].tolist()
    assert marks == [[number, row] for number, rows in enumerate((3, 3, 5)) for row in range(rows)]


def test_frames_are_resized_into_the_cache(tiny_flat, pixels, tmp_path):
    store = FrameStore.open(read_flat(tiny_flat), size=4, cache_dir=tmp_path, progress=False)
    assert store.cameras[0] == Camera("left", 4, 4)
    rows = np.array([5, 0, 5])
    np.testing.assert_array_equal(store.gather("left", rows), resize(pixels["left"][rows], 4, 4))


def test_only_cameras_of_another_size_are_cached(tmp_path):
    spec = RobotSpec("r", (Camera("small", 4, 4), Camera("big", 8, 8)), unnamed_axes("s", 1), unnamed_axes("a", 1))
    images = {one.name: np.full((3, one.height, one.width, 3), 7, np.uint8) for one in spec.cameras}
    with FlatWriter(tmp_path / "d.hdf5", spec) as writer:
        writer.add(Episode(images, np.zeros((3, 1)), np.zeros((3, 1)), None, True))
    store = FrameStore.open(read_flat(tmp_path / "d.hdf5"), 4, tmp_path / "cache", progress=False)
    assert [path.name for path in (tmp_path / "cache").glob("*/*")] == ["big.npy"]
    for name in images:
        np.testing.assert_array_equal(store.gather(name, np.array([2])), np.full((1, 4, 4, 3), 7))


def test_resizing_keeps_colours_in_place():
    frames = np.zeros((1, 8, 8, 3), np.uint8)
    frames[0, :4, :, 0] = 200
    frames[0, :, 4:, 2] = 100
    small = resize(frames, 2, 2)[0]
    assert small[0, 0].tolist() == pytest.approx([200, 0, 0], abs=40)
    assert small[1, 1].tolist() == pytest.approx([0, 0, 100], abs=40)
    np.testing.assert_array_equal(resize(np.full((2, 9, 7, 3), 33, np.uint8), 4, 5), np.full((2, 4, 5, 3), 33))


def test_a_cache_is_built_once_and_follows_the_content(rewrite, tmp_path):
    path, cache = rewrite(lambda frames: frames, compression="gzip"), tmp_path / "cache"

    def folders(path: Path) -> list[Path]:
        FrameStore.open(read_flat(path), cache_dir=cache, progress=False)
        return [one for one in cache.iterdir() if one.is_dir()]

    (built,) = folders(path)
    time_built = (built / "left.npy").stat().st_mtime_ns
    moved = path.rename(tmp_path / "moved.hdf5")
    assert folders(moved) == [built]
    assert (built / "left.npy").stat().st_mtime_ns == time_built
    with h5py.File(moved, "r+") as file:
        file[KEYS[0]][0] = 0
    assert len(folders(moved)) == 2


@dataclass(frozen=True)
class FailingFrames:
    """Frames whose reading is counted and fails after a number of times."""

    frames: np.ndarray
    reads_left: int
    reads: list[int] = field(default_factory=list)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.frames.shape

    def __getitem__(self, rows, /) -> np.ndarray:
        if len(self.reads) == self.reads_left:
            raise KeyboardInterrupt
        self.reads.append(1)
        return self.frames[rows]


def counted(path: Path, spec: RobotSpec, frames: np.ndarray, reads_left: int) -> tuple[Recording, FailingFrames]:
    source = FailingFrames(frames, reads_left)
    episode = Episode({"left": source}, np.zeros((len(frames), 5)), np.zeros((len(frames), 3)), None, True)
    cameras = (Camera("left", *frames.shape[1:3]),)
    return Recording(path, "test", replace(spec, cameras=cameras), (episode, episode)), source


def test_an_interrupted_build_leaves_nothing_that_looks_whole(tiny_flat, tiny_spec, tmp_path):
    frames = np.random.default_rng(0).integers(0, 256, (4, 5, 5, 3), np.uint8)
    broken, _ = counted(tiny_flat, tiny_spec, frames, reads_left=1)
    with pytest.raises(KeyboardInterrupt):
        FrameStore.open(broken, cache_dir=tmp_path / "cache", progress=False)
    assert [one.suffix for one in (tmp_path / "cache").iterdir()] == [".lock"]
    sound, _ = counted(tiny_flat, tiny_spec, frames, reads_left=9)
    store = FrameStore.open(sound, cache_dir=tmp_path / "cache", progress=False)
    np.testing.assert_array_equal(store.gather("left", np.arange(8)), np.concatenate([frames, frames]))


def test_what_a_killed_build_left_is_replaced(tiny_flat, tiny_spec, tmp_path):
    frames = np.random.default_rng(0).integers(0, 256, (4, 5, 5, 3), np.uint8)
    recording, _ = counted(tiny_flat, tiny_spec, frames, reads_left=9)
    FrameStore.open(recording, cache_dir=tmp_path, progress=False)
    (whole,) = (one for one in tmp_path.iterdir() if one.is_dir())
    left = whole.rename(whole.with_suffix(".partial"))
    (left / "left.npy").write_bytes((left / "left.npy").read_bytes()[:-40])
    store = FrameStore.open(recording, cache_dir=tmp_path, progress=False)
    np.testing.assert_array_equal(store.gather("left", np.arange(4)), frames)
    assert not left.exists()


def test_of_several_builders_one_builds(tiny_flat, tiny_spec, tmp_path):
    frames = np.zeros((4, 5, 5, 3), np.uint8)
    recording, source = counted(tiny_flat, tiny_spec, frames, reads_left=99)

    def build() -> None:
        FrameStore.open(recording, cache_dir=tmp_path, progress=False)

    threads = [threading.Thread(target=build) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(source.reads) == 2


def test_a_cache_folder_that_cannot_be_written_is_named(rewrite, tmp_path):
    path = rewrite(lambda frames: frames, compression="gzip")
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match=r"file/cache: the frame cache cannot be built .*XDG_CACHE_HOME"):
        FrameStore.open(read_flat(path), cache_dir=tmp_path / "file" / "cache", progress=False)


def test_the_default_cache_is_the_users(rewrite, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    FrameStore.open(read_flat(rewrite(lambda frames: frames, compression="gzip")), progress=False)
    assert list((tmp_path / "xdg" / "lapwing" / "frames").glob("*/global.npy"))


def test_float_pixels_that_are_not_finite_are_named(rewrite, tmp_path):
    unprobed = 5  # of the 39 rows, 32 are looked at when the file is opened

    def damage(frames: np.ndarray) -> np.ndarray:
        frames = frames / 255
        frames[unprobed, 2, 2, 1] = np.nan
        return frames

    path = rewrite(damage, compression="gzip")
    recording = read_flat(path)
    with pytest.raises(DataError, match=r"tiny.hdf5: 'observations/left_image' has pixels that are NaN"):
        FrameStore.open(recording, cache_dir=tmp_path / "cache", progress=False)


def private_bytes() -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.split("RssAnon:")[1].split()[0]) * 1024


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_frames_do_not_become_private_memory(tmp_path):
    spec = RobotSpec("r", (Camera("left", 128, 128),), unnamed_axes("state", 1), unnamed_axes("action", 1))
    steps = 1000  # 49 MB
    frames = np.broadcast_to(np.arange(steps, dtype=np.uint8)[:, None, None, None], (steps, 128, 128, 3))
    with FlatWriter(tmp_path / "d.hdf5", spec) as writer:
        writer.add(Episode({"left": frames}, np.zeros((steps, 1)), np.zeros((steps, 1)), None, True))
    before = private_bytes()
    store = FrameStore.open(read_flat(tmp_path / "d.hdf5"))
    for rows in np.random.default_rng(0).permutation(steps).reshape(-1, 20):
        assert store.gather("left", rows)[:, 0, 0, 0].tolist() == (rows % 256).tolist()
    assert private_bytes() - before < 8 << 20


def test_a_copied_file_is_read_in_place_too(tiny_flat, pixels, tmp_path):
    copy = Path(shutil.copy(tiny_flat, tmp_path / "copy.hdf5"))
    expect_pixels(FrameStore.open(read_flat(copy), cache_dir=tmp_path / "cache"), pixels)
    assert not (tmp_path / "cache").exists()


def test_a_cache_that_does_not_fit_is_refused_before_it_is_begun(tiny_flat, tmp_path):
    with pytest.raises(DataError, match=r"cannot be built \(it takes .* GB, .* GB are free\); free some space"):
        FrameStore.open(read_flat(tiny_flat), 200_000, cache_dir=tmp_path / "cache", progress=False)
    assert not [path for path in (tmp_path / "cache").iterdir() if path.suffix != ".lock"]


ALOHA = RobotSpec("r", (Camera("top", 8, 6), Camera("wrist", 4, 4)), unnamed_axes("s", 2), unnamed_axes("a", 2))


@pytest.fixture
def aloha(tmp_path):
    """A folder of ALOHA episodes of 3, 4 and 5 steps, every other one with the observation after its end."""

    def write(dialect="aloha") -> tuple[Path, dict[str, np.ndarray]]:
        rng, written = np.random.default_rng(0), []
        folder = tmp_path / "episodes"
        folder.mkdir()
        for number in range(3):
            steps, rows = 3 + number, 3 + number + number % 2
            images = {
                one.name: rng.integers(0, 256, (rows, one.height, one.width, 3), np.uint8) for one in ALOHA.cameras
            }
            episode = Episode(images, np.zeros((rows, 2)), np.zeros((steps, 2)), None, True)
            write_aloha_episode(episode_path(folder, number), episode, ALOHA, dialect)
            written.append(images)
        return folder, {name: np.concatenate([images[name] for images in written]) for name in ALOHA.camera_names}

    return write


def expect_rows(store: FrameStore, pixels: dict[str, np.ndarray]) -> None:
    rows = np.random.default_rng(1).permutation(len(pixels["top"]))
    for name, frames in pixels.items():
        gathered = store.gather(name, rows)
        np.testing.assert_array_equal(gathered, frames[rows])
        assert (gathered.flags.c_contiguous, gathered.flags.writeable) == (True, True)


def test_raw_aloha_episodes_are_read_where_they_lie(aloha, tmp_path):
    folder, pixels = aloha()
    store = FrameStore.open(read_recording(folder), cache_dir=tmp_path / "cache", progress=False)
    assert store.row_of_episode.tolist() == [0, 3, 8]
    assert not (tmp_path / "cache").exists()
    expect_rows(store, pixels)
    np.testing.assert_array_equal(store.gather("top", np.array([7])), pixels["top"][7:8])  # after the last action
    assert store.begin_at(1).row_of_episode.tolist() == [1, 4, 9]


def rewrite_frames(path: Path, **storage) -> None:
    with h5py.File(path, "r+") as file:
        for key in [f"observations/images/{name}" for name in ALOHA.camera_names]:
            frames = file[key][:]
            del file[key]
            file.create_dataset(key, data=frames, **storage)


@pytest.mark.parametrize(
    ("storage", "cached"), [({}, False), ({"chunks": (2, 2, 2, 3)}, True), ({"compression": "gzip"}, True)]
)
def test_how_one_file_stores_its_frames_decides_for_the_folder(aloha, tmp_path, storage, cached):
    folder, pixels = aloha()
    rewrite_frames(episode_path(folder, 1), **storage)
    expect_rows(FrameStore.open(read_recording(folder), cache_dir=tmp_path / "cache", progress=False), pixels)
    assert (tmp_path / "cache").exists() == cached


def test_jpeg_episodes_go_through_a_cache(aloha, tmp_path):
    folder, _ = aloha("mobile-aloha")
    recording = read_recording(folder)
    decoded = {
        name: np.concatenate([episode.images[name][:] for episode in recording.episodes]) for name in ALOHA.camera_names
    }
    expect_rows(FrameStore.open(recording, cache_dir=tmp_path / "cache", progress=False), decoded)
    assert sorted(path.name for path in (tmp_path / "cache").glob("*/*")) == ["top.npy", "wrist.npy"]


def test_only_the_camera_of_another_size_is_cached_from_a_folder(aloha, tmp_path):
    folder, pixels = aloha()
    store = FrameStore.open(read_recording(folder), 4, tmp_path / "cache", progress=False)
    assert [path.name for path in (tmp_path / "cache").glob("*/*")] == ["top.npy"]
    expect_rows(store, {"top": resize(pixels["top"], 4, 4), "wrist": pixels["wrist"]})


def test_a_file_cut_short_after_it_was_opened_is_named(aloha):
    folder, _ = aloha()
    store = FrameStore.open(read_recording(folder), progress=False)
    path = episode_path(folder, 1)
    path.write_bytes(path.read_bytes()[:1000])
    store.gather("top", np.array([0, 9]))
    with pytest.raises(DataError, match=r"episode_1.hdf5: frames cannot be read \(it ends early\); copy or record"):
        store.gather("top", np.arange(12))
    path.unlink()
    with pytest.raises(DataError, match=r"episode_1.hdf5: frames cannot be read \(.*No such file"):
        store.gather("top", np.arange(12))


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_frames_of_a_folder_stay_in_their_files(tmp_path):
    spec = RobotSpec("r", (Camera("top", 96, 96),), unnamed_axes("s", 1), unnamed_axes("a", 1))
    for number in range(6):  # 25 MB
        frames = np.broadcast_to(np.arange(150, dtype=np.uint8)[:, None, None, None], (150, 96, 96, 3))
        episode = Episode({"top": frames}, np.zeros((150, 1)), np.zeros((150, 1)), None, True)
        write_aloha_episode(episode_path(tmp_path, number), episode, spec)
    store = FrameStore.open(read_recording(tmp_path), progress=False)
    handles, before = len(os.listdir("/proc/self/fd")), resident_bytes()
    for rows in np.random.default_rng(0).permutation(900).reshape(-1, 20):
        assert store.gather("top", rows)[:, 0, 0, 0].tolist() == (rows % 150).tolist()
    assert resident_bytes() - before < 8 << 20
    assert len(os.listdir("/proc/self/fd")) == handles


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
