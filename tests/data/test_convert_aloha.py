"""Conversion to and from ALOHA folders: what arrives, that it is compared, and that it goes on after a kill."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from lapwing.data.align import align
from lapwing.data.check import check
from lapwing.data.convert import ConvertOptions, convert
from lapwing.data.drafts import AlohaDraft
from lapwing.data.formats import read_recording
from lapwing.data.formats.aloha_writer import episode_path, write_aloha_episode
from lapwing.episode import Episode, Recording
from lapwing.errors import DataError
from lapwing.spec import RobotSpec, Sensor, unnamed_axes

KINDS = [(7, True, True), (5, False, True), (9, True, True), (6, False, True)]


@pytest.fixture(scope="session")
def rich(make_recording, tiny_spec: RobotSpec) -> Recording:
    """Four episodes with everything that an ALOHA file of ours has room for."""
    sensors = (Sensor("velocity", (5,), "rad/s"), Sensor("stamp_left", (), "s", "float64"), Sensor("touch", (2,)))
    plain, rng = make_recording(KINDS), np.random.default_rng(3)
    episodes = []
    for number, one in enumerate(plain.episodes):
        rows = one.num_rows
        episodes.append(
            replace(
                one,
                time=100 * number + np.arange(rows) / 10,
                intervened=np.arange(one.num_steps) > 3,
                grasp_penalty=np.float32(-0.02) * (np.arange(one.num_steps) % 3 == 0),
                sensors={
                    "velocity": rng.normal(size=(rows, 5)).astype(np.float32),
                    "stamp_left": 100 * number + np.arange(rows) / 10 - 0.004,
                    "touch": rng.normal(size=(rows, 2)).astype(np.float32),
                },
            )
        )
    return replace(plain, spec=replace(tiny_spec, sensors=sensors), episodes=episodes)


@pytest.fixture(scope="session")
def eps_template(rich: Recording, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rich") / "eps"
    folder.mkdir()
    for number, episode in enumerate(rich.episodes):
        write_aloha_episode(episode_path(folder, number), episode, rich.spec)
    return folder


@pytest.fixture
def eps(eps_template: Path, tmp_path: Path) -> Path:
    """The four episodes as a folder of the test's own."""
    folder = tmp_path / "eps"
    folder.mkdir()
    for file in eps_template.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A folder of its own, so that leftovers show."""
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def digests(path: Path) -> dict[str, str]:
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def expect_same(found: Episode, source: Episode, whole: bool) -> None:
    steps = source.num_rows if whole else source.num_steps
    np.testing.assert_array_equal(found.state, source.state[:steps])
    np.testing.assert_array_equal(found.action, source.action)
    np.testing.assert_array_equal(found.reward, source.reward)
    assert (found.terminated, found.success) == (source.terminated, source.success)
    assert {key: value for key, value in found.meta.items() if key != "file"} == {
        key: value for key, value in source.meta.items() if key != "file"
    }
    for name, frames in source.images.items():
        np.testing.assert_array_equal(found.images[name][:], frames[:steps])
    np.testing.assert_array_equal(found.intervened, source.intervened)
    np.testing.assert_array_equal(found.grasp_penalty, source.grasp_penalty)
    if whole:
        np.testing.assert_array_equal(found.time, source.time)
        assert found.sensors.keys() == source.sensors.keys()
        for name, readings in source.sensors.items():
            np.testing.assert_array_equal(found.sensors[name][:], readings)


def test_a_folder_becomes_a_flat_file_and_a_folder_again(eps, rich, out):
    flat, again = out / "flat.hdf5", out / "again"
    done = convert(eps, flat, progress=False)
    assert (done.episodes, done.steps, done.resumed) == (4, 27, 0)
    assert done.notes == (
        "the flat layout has no room for: velocity, stamp_left, touch, time stamps, "
        "the observation after the last action",
    )
    for found, source in zip(read_recording(flat).episodes, rich.episodes, strict=True):
        expect_same(found, source, whole=False)
    convert(flat, again, ConvertOptions(to="aloha"), progress=False)
    assert names(out) == ["again", "flat.hdf5"]
    assert names(again) == [f"episode_{number}.hdf5" for number in range(4)]
    recording = read_recording(again)
    assert (recording.spec.state, recording.spec.action) == (rich.spec.state, rich.spec.action)
    for found, source in zip(recording.episodes, rich.episodes, strict=True):
        expect_same(found, source, whole=False)


@pytest.mark.parametrize(("rows", "notes"), [(5, 1), (4, 0)])
def test_only_a_final_observation_that_is_there_is_said_to_be_lost(out, rows, notes):
    episode = Episode({}, np.zeros((rows, 2), np.float32), np.zeros((4, 2), np.float32), np.ones(4, np.float32), True)
    spec = RobotSpec("arm", (), unnamed_axes("state", 2), unnamed_axes("action", 2))
    done = convert(Recording(out, "memory", spec, [episode]), out / "flat.hdf5", progress=False)
    assert done.notes == ("the flat layout has no room for: the observation after the last action",) * notes


def test_a_folder_becomes_a_folder_with_everything(eps, rich, out):
    convert(eps, out / "eps", ConvertOptions(to="aloha", dialect="cobot-magic"), progress=False)
    recording = read_recording(out / "eps")
    assert recording.spec == rich.spec
    for found, source in zip(recording.episodes, rich.episodes, strict=True):
        expect_same(found, source, whole=True)
    assert names(out) == ["eps"]


def test_the_jpeg_dialect_is_compared_by_its_looks(eps, rich, out, monkeypatch):
    grey = [
        replace(one, images={name: np.full(frames.shape, 40 + 9 * row, np.uint8) for row, (name, frames) in pairs})
        for one in rich.episodes
        for pairs in [list(enumerate(one.images.items()))]
    ]
    recording = replace(rich, episodes=grey)
    options = ConvertOptions(to="aloha", dialect="mobile-aloha")
    done = convert(recording, out / "eps", options, progress=False)
    assert done.notes == ("frames are JPEG of quality 50 in this dialect: not the same pixels",)
    with h5py.File(out / "eps/episode_0.hdf5") as file:
        assert file["observations/images/left"].ndim == 2
    np.testing.assert_allclose(read_recording(out / "eps").episodes[1].images["right"][:], 49, atol=3)

    def swapped(path, episode, spec, dialect):
        images = {**episode.images, "left": episode.images["global"]}
        write_aloha_episode(path, replace(episode, images=images), spec, dialect)

    monkeypatch.setattr("lapwing.data.drafts.write_aloha_episode", swapped)
    with pytest.raises(DataError, match=r"episode_0\.hdf5: frame 0 of camera 'left' reads back other than it was"):
        convert(recording, out / "other", options, progress=False)


def test_a_data_set_becomes_a_folder(lerobot, out):
    convert(lerobot.root, out / "eps", ConvertOptions(to="aloha", size=16, reward="last-step"), progress=False)
    recording = read_recording(out / "eps")
    assert [episode.num_steps for episode in recording.episodes] == [12, 9, 15]
    for index, episode in enumerate(recording.episodes):
        state, action = lerobot.state_and_action(index)
        np.testing.assert_array_equal(episode.state, state)
        np.testing.assert_array_equal(episode.action, action)
        assert episode.images["front"].shape == (len(state), 16, 16, 3)
        expected = lerobot.frames(index)[:, ::3, ::4].astype(int)
        assert np.abs(episode.images["front"][:] - expected).mean() < 2
    assert check(out / "eps", progress=False).trainable


def test_the_numbers_have_no_holes_where_episodes_are_left_out(lerobot, out):
    lerobot.rows_file(0).unlink()
    options = ConvertOptions(to="aloha", size=16, skip_damaged=True)
    done = convert(lerobot.root, out / "eps", options, progress=False)
    assert names(out / "eps") == ["episode_0.hdf5", "episode_1.hdf5"]
    assert [one.meta["source_episode"] for one in read_recording(out / "eps").episodes] == [1, 2]
    assert [damage.episode for damage in done.skipped] == [0]


def test_a_damaged_file_is_refused_or_left_out(eps, out):
    (eps / "episode_1.hdf5").write_bytes(b"nothing")
    with pytest.raises(
        DataError, match=r"1 damaged episode \(1\); the first, episode 1: .*not an HDF5 file.*--skip-dam"
    ):
        convert(eps, out / "flat.hdf5", progress=False)
    assert names(out) == []
    done = convert(eps, out / "flat.hdf5", ConvertOptions(skip_damaged=True), progress=False)
    assert (done.episodes, [damage.episode for damage in done.skipped]) == (3, [1])


def test_frames_are_resized_and_actions_aligned_on_the_way(eps, rich, out):
    convert(eps, out / "eps", ConvertOptions(to="aloha", size=4, alignment=1), progress=False)
    expected = align(rich, 1)
    for found, source in zip(read_recording(out / "eps").episodes, expected.episodes, strict=True):
        np.testing.assert_array_equal(found.action, source.action)
        np.testing.assert_array_equal(found.state, source.state)
        np.testing.assert_array_equal(found.time, source.time)
        assert found.images["left"].shape == (source.num_rows, 4, 4, 3)


def test_labels_are_given_by_the_number_of_the_file(eps, out, tmp_path):
    (eps / "episode_0.hdf5").unlink()
    labels = tmp_path / "labels.json"
    labels.write_text(json.dumps({"1": {"success": False, "reward": "last-step"}, "episode_3": {"reward": [2.0] * 6}}))
    convert(eps, out / "flat.hdf5", ConvertOptions(reward=str(labels)), progress=False)
    first, second, third = read_recording(out / "flat.hdf5").episodes
    assert (first.success, first.reward.tolist()) == (False, [0] * 5)
    assert second.reward.tolist() == read_recording(eps).episodes[1].reward.tolist()
    assert third.reward.tolist() == [2.0] * 6


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"7": {"success": true}}', r"labels\.json: labels of episode_7, expected some of episode_0, episode_1"),
        ('{"2": {"reward": [1, 2]}}', r"labels\.json: episode_2: reward has 2 numbers, expected 9, one a step"),
    ],
)
def test_labels_that_do_not_fit_are_refused_before_anything_is_written(eps, out, tmp_path, text, message):
    labels = tmp_path / "labels.json"
    labels.write_text(text)
    with pytest.raises(DataError, match=message):
        convert(eps, out / "flat.hdf5", ConvertOptions(reward=str(labels)), progress=False)
    assert names(out) == []


def test_rewards_in_some_episodes_only_are_refused_at_once(eps, out):
    with h5py.File(eps / "episode_2.hdf5", "a") as file:
        del file["reward"]
    with pytest.raises(DataError, match=r"1 of 4 episodes have no rewards \(episode_2\), expected all or none"):
        convert(eps, out / "flat.hdf5", progress=False)
    assert names(out) == []
    convert(eps, out / "eps", ConvertOptions(to="aloha"), progress=False)
    assert read_recording(out / "eps").episodes[2].reward is None


def test_an_empty_folder_may_be_filled_and_no_other(eps, out):
    (out / "eps").mkdir()
    convert(eps, out / "eps", ConvertOptions(to="aloha"), progress=False)
    assert len(names(out / "eps")) == 4
    with pytest.raises(DataError, match="eps: already exists"):
        convert(eps, out / "eps", ConvertOptions(to="aloha"), progress=False)


def wrongly_written(path, episode, spec, dialect, what):
    changed = {
        "action": {"action": episode.action + 1},
        "state": {"state": episode.state + 1},
        "reward": {"reward": episode.reward + 1},
        "time": {"time": episode.time + 1},
        "sensor 'touch'": {"sensors": {**episode.sensors, "touch": episode.sensors["touch"] + 1}},
        "terminated": {"terminated": not episode.terminated},
        "frame 3 of camera 'left'": {"images": {**episode.images, "left": _spoiled(episode.images["left"])}},
    }[what]
    write_aloha_episode(path, replace(episode, **changed), spec, dialect)


def _spoiled(frames):
    pixels = frames[:].copy()
    pixels[3, 5, 5, 1] ^= 1
    return pixels


@pytest.mark.parametrize(
    "what", ["action", "state", "reward", "time", "sensor 'touch'", "terminated", "frame 3 of camera 'left'"]
)
def test_what_reads_back_otherwise_is_named(eps, out, monkeypatch, what):
    monkeypatch.setattr("lapwing.data.drafts.write_aloha_episode", lambda *args: wrongly_written(*args, what))
    with pytest.raises(DataError, match=rf"episode_0\.hdf5: {what} reads back other than it was written; check the"):
        convert(eps, out / "eps", ConvertOptions(to="aloha"), progress=False)
    assert names(out) == []


@pytest.mark.parametrize("key", ["observations/left_image", "actions", "observations/joint", "rewards", "terminals"])
def test_a_flat_file_that_reads_back_otherwise_is_not_delivered(eps, out, monkeypatch, key):
    rename = Path.rename

    def spoil(path, target):
        if path.name == "flat.hdf5" and "episodes" in path.parts[-2]:
            with h5py.File(path, "a") as file:
                values = file[key][:]
                values[4] = ~values[4] if values.dtype == bool else values[4] + 1
                file[key][...] = values
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", spoil)
    with pytest.raises(DataError, match=r"reads back other than it was written|boundaries give"):
        convert(eps, out / "flat.hdf5", progress=False)
    assert names(out) == []


def stop_at(monkeypatch, number: int) -> None:
    """Interrupt the conversion when it has come to episode `number`."""
    counted = iter(range(100))
    for target in ("FlatWriter", "AlohaDraft"):
        cls = getattr(sys.modules["lapwing.data.drafts"], target)
        original = cls.add

        def add(self, *args, _original=original):
            if next(counted) == number:
                raise KeyboardInterrupt
            return _original(self, *args)

        monkeypatch.setattr(cls, "add", add)


@pytest.mark.parametrize("to", ["flat", "aloha"])
@pytest.mark.parametrize("number", [1, 3])
def test_an_interrupted_conversion_goes_on(eps, out, to, number):
    options, target = ConvertOptions(to=to), out / "target"
    convert(eps, out / "whole", options, progress=False)
    with pytest.MonkeyPatch.context() as patch:
        stop_at(patch, number)
        done = f"{number} episode{'s are' if number > 1 else ' is'} done, and the same command goes on from there"
        with pytest.raises(KeyboardInterrupt, match=done):
            convert(eps, target, options, progress=False)
    assert names(out) == [".target.partial", "whole"]
    result = convert(eps, target, options, progress=False)
    assert (result.episodes, result.resumed) == (4, number)
    assert f"wrote 4 episodes, 27 steps ({number} of them before an interruption)" in str(result)
    assert names(out) == ["target", "whole"]
    assert list(digests(target).values()) == list(digests(out / "whole").values())


@pytest.mark.parametrize("to", ["flat", "aloha"])
def test_an_interruption_before_anything_is_done_leaves_nothing(eps, out, monkeypatch, to):
    stop_at(monkeypatch, 0)
    with pytest.raises(KeyboardInterrupt):
        convert(eps, out / "target", ConvertOptions(to=to), progress=False)
    assert names(out) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (ConvertOptions(to="aloha", size=4), r"an unfinished conversion with size None, expected 4; repeat"),
        (ConvertOptions(to="flat"), "an unfinished conversion with to aloha, expected flat; repeat it as it was begun"),
    ],
)
def test_other_settings_do_not_go_on(eps, out, options, message):
    with pytest.MonkeyPatch.context() as patch:
        stop_at(patch, 2)
        with pytest.raises(KeyboardInterrupt):
            convert(eps, out / "target", ConvertOptions(to="aloha"), progress=False)
    with pytest.raises(DataError, match=message):
        convert(eps, out / "target", options, progress=False)
    assert names(out) == [".target.partial"]


@pytest.mark.parametrize("content", [b"", b"[1]", b"\xff\xfe", b"\0" * 40])
def test_a_damaged_account_of_what_is_converted_does_not_go_on(eps, out, content):
    with pytest.MonkeyPatch.context() as patch:
        stop_at(patch, 2)
        with pytest.raises(KeyboardInterrupt):
            convert(eps, out / "target", ConvertOptions(to="aloha"), progress=False)
    (out / ".target.partial" / "identity.json").write_bytes(content)
    with pytest.raises(DataError, match=r"\.target\.partial/identity\.json: damaged, expected .*; delete its folder"):
        convert(eps, out / "target", ConvertOptions(to="aloha"), progress=False)
    assert names(out) == [".target.partial"]


@pytest.mark.parametrize("to", ["flat", "aloha"])
@pytest.mark.parametrize("line", [b"\0" * 9, b"[1]", b"{}", b"3"])
def test_episodes_whose_journal_is_damaged_are_written_again(eps, out, to, line):
    options, target = ConvertOptions(to=to), out / "target"
    convert(eps, out / "whole", options, progress=False)
    with pytest.MonkeyPatch.context() as patch:
        stop_at(patch, 3)
        with pytest.raises(KeyboardInterrupt):
            convert(eps, target, options, progress=False)
    journal = out / ".target.partial" / "journal.jsonl"
    first, _, third = journal.read_bytes().splitlines()
    journal.write_bytes(b"\n".join([first, line, third, b""]))
    assert convert(eps, target, options, progress=False).resumed == 1
    assert list(digests(target).values()) == list(digests(out / "whole").values())


def test_another_source_does_not_go_on(eps, out):
    with pytest.MonkeyPatch.context() as patch:
        stop_at(patch, 2)
        with pytest.raises(KeyboardInterrupt):
            convert(eps, out / "target", ConvertOptions(to="aloha"), progress=False)
    os.utime(eps / "episode_3.hdf5", ns=(1, 1))
    with pytest.raises(DataError, match="an unfinished conversion with source files"):
        convert(eps, out / "target", ConvertOptions(to="aloha"), progress=False)


def test_a_done_episode_that_was_damaged_since_is_written_again(eps, out):
    options = ConvertOptions(to="aloha")
    convert(eps, out / "whole", options, progress=False)
    with pytest.MonkeyPatch.context() as patch:
        stop_at(patch, 3)
        with pytest.raises(KeyboardInterrupt):
            convert(eps, out / "target", options, progress=False)
    done = out / ".target.partial/episodes"
    (done / "episode_0.hdf5").unlink()
    (done / "episode_1.hdf5").write_bytes((done / "episode_2.hdf5").read_bytes())
    convert(eps, out / "target", options, progress=False)
    assert digests(out / "target") == digests(out / "whole")


def test_two_conversions_do_not_share_a_folder(eps, out, monkeypatch):
    refused = []

    def add(self, *args):
        with pytest.raises(DataError, match="another process is writing it"):
            convert(eps, out / "target", ConvertOptions(to="aloha"), progress=False)
        refused.append(1)
        return original(self, *args)

    original = AlohaDraft.add
    monkeypatch.setattr(AlohaDraft, "add", add)
    convert(eps, out / "target", ConvertOptions(to="aloha"), progress=False)
    assert len(refused) == 4


SLOW = """
import sys, time
from pathlib import Path
from lapwing.data import verify
from lapwing.data.convert import ConvertOptions, convert
read = verify.Watched.__getitem__
def slowly(self, rows):
    time.sleep(0.02)
    return read(self, rows)
verify.Watched.__getitem__ = slowly
convert(Path(sys.argv[1]), Path(sys.argv[2]), ConvertOptions(to=sys.argv[3]), progress=False)
"""


@pytest.mark.parametrize("to", ["flat", "aloha"])
def test_killed_conversions_end_in_the_same_bytes(eps, out, to):
    """SIGKILL twice, each time a little after an episode was done; the third call gets through."""
    target, rng = out / "target", np.random.default_rng(0)
    convert(eps, out / "whole", ConvertOptions(to=to), progress=False)
    kills = 0
    while not target.exists():
        seen = len(_journal(out))
        process = subprocess.Popen([sys.executable, "-c", SLOW, str(eps), str(target), to])
        deadline = time.monotonic() + 60
        while len(_journal(out)) == seen and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.005)
        if kills < 2:
            time.sleep(rng.uniform(0, 0.1))
            process.send_signal(signal.SIGKILL)
            kills += 1
        assert process.wait(60) in (0, -signal.SIGKILL)
    assert kills == 2
    assert names(out) == ["target", "whole"]
    assert list(digests(target).values()) == list(digests(out / "whole").values())


def _journal(out: Path) -> list[str]:
    file = out / ".target.partial/journal.jsonl"
    return file.read_text().splitlines() if file.exists() else []
