"""Conversion to and from transitions, and their check and summary on the command line."""

from __future__ import annotations

import json
import pickle
import re
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lapwing.data import drafts
from lapwing.data.check import check
from lapwing.data.convert import ConvertOptions, convert
from lapwing.data.formats import read_recording
from lapwing.data.formats.aloha_writer import episode_path, write_aloha_episode
from lapwing.data.formats.options import ReadOptions
from lapwing.data.formats.serl_writer import write_serl
from lapwing.episode import Episode, Recording
from lapwing.errors import DataError
from lapwing.spec import Camera, RobotSpec, Sensor, unnamed_axes

KINDS = [(4, True, True), (6, False, True), (5, True, False), (3, False, False)]


@pytest.fixture
def recording(make_recording) -> Recording:
    """Four episodes that end in every way, with penalties and interventions in some."""
    plain = make_recording(KINDS)
    first = replace(
        plain.episodes[0], grasp_penalty=np.float32([0, -0.02, 0, 0]), intervened=np.array([False, True, True, False])
    )
    return replace(plain, episodes=(first, *plain.episodes[1:]))


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A folder of its own, so that leftovers show."""
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


def expect_same(found: Episode, source: Episode) -> None:
    for name in ("state", "action", "reward", "intervened", "grasp_penalty"):
        expected, got = getattr(source, name), getattr(found, name)
        assert (got is None) == (expected is None), name
        if expected is not None:
            np.testing.assert_array_equal(got, expected)
    assert (found.terminated, found.success, found.meta) == (source.terminated, source.success, source.meta)
    for name, frames in source.images.items():
        np.testing.assert_array_equal(found.images[name], frames)


@pytest.mark.parametrize(
    "options",
    [{"to": "pickle"}, {"to": "pickle", "form": "hilserl"}, {"to": "npz"}],
    ids=["document", "hilserl", "npz"],
)
def test_a_recording_goes_to_transitions_and_nothing_is_lost(recording, out: Path, options) -> None:
    path = out / ("a.npz" if options["to"] == "npz" else "a.pkl")
    done = convert(recording, path, ConvertOptions(**options), progress=False)
    assert (done.episodes, done.steps) == (4, 18)
    assert done.notes == (
        "the observation after the last action is unknown in 1 of the episodes that were cut: the one before it stands "
        "for it, and other programs take it for true",
    )
    assert [one.name for one in out.iterdir()] == [path.name]
    found = read_recording(path)
    assert found.spec == recording.spec
    for one, source in zip(found.episodes, recording.episodes, strict=True):
        expect_same(one, source)


def test_transitions_go_to_a_flat_file_and_back(recording, out: Path) -> None:
    whole = replace(recording, episodes=recording.episodes[2:])  # N rows, as the flat layout has
    write_serl(out / "a.pkl", whole.episodes, whole.spec)
    convert(out / "a.pkl", out / "b.hdf5", progress=False)
    convert(out / "b.hdf5", out / "c.npz", ConvertOptions(to="npz"), progress=False)
    convert(out / "c.npz", out / "d", ConvertOptions(to="aloha"), progress=False)
    convert(out / "d", out / "e.pkl", ConvertOptions(to="pickle"), progress=False)
    for one, source in zip(read_recording(out / "e.pkl").episodes, whole.episodes, strict=True):
        expect_same(replace(one, meta=source.meta), source)


def test_time_and_sensors_are_said_to_be_lost(recording, out: Path) -> None:
    sensors = (Sensor("effort", (2,), "Nm"),)
    timed = [
        replace(one, time=np.arange(one.num_rows) / 10, sensors={"effort": np.zeros((one.num_rows, 2), np.float32)})
        for one in recording.episodes[:2]
    ]
    source = replace(recording, spec=replace(recording.spec, sensors=sensors), episodes=timed)
    done = convert(source, out / "a.pkl", ConvertOptions(to="pickle"), progress=False)
    assert done.notes == ("transitions have no room for: effort, time stamps",)
    assert read_recording(out / "a.pkl").spec.sensors == ()


def test_a_foreign_pickle_gets_its_axes_named_on_the_way(out: Path) -> None:
    rng = np.random.default_rng(0)
    states = rng.normal(size=(9, 4))
    steps = [
        {
            "observations": {"state": states[step]},
            "actions": np.append(rng.uniform(-0.9, 0.9, 6), step % 3 - 1),
            "next_observations": {"state": states[step + 1]},
            "rewards": float(step == 7),
            "dones": step == 7,
        }
        for step in range(8)
    ]
    (out / "demos.pkl").write_bytes(pickle.dumps(steps))
    mode = "single-arm-learned-gripper"
    convert(out / "demos.pkl", out / "a.hdf5", ConvertOptions(mode=mode), progress=False)
    assert [axis.kind for axis in read_recording(out / "a.hdf5").spec.action] == ["arm"] * 6 + ["gripper"]
    with pytest.raises(DataError, match=r"demos\.pkl: actions have 7 axes, expected 6 or fewer for single-arm-fixed"):
        convert(out / "demos.pkl", out / "b.hdf5", ConvertOptions(mode="single-arm-fixed-gripper"), progress=False)
    assert sorted(one.name for one in out.iterdir()) == ["a.hdf5", "demos.pkl"]


def test_a_mode_names_the_axes_of_any_layout(out: Path) -> None:
    spec = RobotSpec("arm", (Camera("front", 4, 4),), unnamed_axes("state", 2), unnamed_axes("action", 12))
    action = np.random.default_rng(0).uniform(-1, 1, (5, 12)).astype(np.float32)
    episode = Episode({"front": np.zeros((5, 4, 4, 3), np.uint8)}, np.zeros((5, 2), np.float32), action, None, False)
    (out / "eps").mkdir()
    write_aloha_episode(episode_path(out / "eps", 0), episode, spec)
    found = read_recording(out / "eps", ReadOptions(mode="dual-arm-fixed-gripper"))
    assert found.spec.action[6].name == "right_arm_0"
    with pytest.raises(DataError, match=r"actions have 12 axes, expected 7 or fewer for single-arm-learned-gripper"):
        read_recording(out / "eps", ReadOptions(mode="single-arm-learned-gripper"))


def test_an_interrupted_conversion_goes_on_to_the_same_file(recording, out: Path, monkeypatch) -> None:
    convert(recording, out / "whole.pkl", ConvertOptions(to="pickle"), progress=False)
    write, written = drafts.write_serl, []

    def interrupted(path, *arguments):
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(path)
        write(path, *arguments)

    monkeypatch.setattr(drafts, "write_serl", interrupted)
    with pytest.raises(KeyboardInterrupt, match="2 episodes are done"):
        convert(recording, out / "a.pkl", ConvertOptions(to="pickle"), progress=False)
    monkeypatch.setattr(drafts, "write_serl", write)
    damaged = out / ".a.pkl.partial/episodes/1.npz"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    done = convert(recording, out / "a.pkl", ConvertOptions(to="pickle"), progress=False)
    assert done.resumed == 2
    assert (out / "a.pkl").read_bytes() == (out / "whole.pkl").read_bytes()
    assert sorted(one.name for one in out.iterdir()) == ["a.pkl", "whole.pkl"]


def test_the_name_must_tell_what_the_file_is(recording, out: Path) -> None:
    with pytest.raises(DataError, match=r"a\.hdf5: its name ends in \.hdf5, expected \.pkl; rename it"):
        convert(recording, out / "a.hdf5", ConvertOptions(to="pickle"), progress=False)
    with pytest.raises(DataError, match=r"a: its name ends in nothing, expected \.npz; rename it"):
        convert(recording, out / "a", ConvertOptions(to="npz"), progress=False)
    assert [*out.iterdir()] == []


def test_a_recording_without_a_state_is_flat_but_no_aloha_folder(recording, out: Path) -> None:
    blind = [replace(one, state=one.state[:, :0]) for one in recording.episodes]
    source = replace(recording, spec=replace(recording.spec, state=()), episodes=blind)
    convert(source, out / "a.hdf5", progress=False)
    assert read_recording(out / "a.hdf5").spec.state == ()
    assert check(out / "a.hdf5", progress=False).imitable
    with pytest.raises(DataError, match=r"no state, expected one for ALOHA episodes; convert --to flat or npz"):
        convert(source, out / "b", ConvertOptions(to="aloha"), progress=False)


def test_reading_a_pickle_takes_little_more_memory_than_the_file_has_bytes(out: Path) -> None:
    """Of a naive reader: the file, its bytes objects, arrays of both observations, and the frames of the episodes."""
    rng = np.random.default_rng(0)
    spec = RobotSpec("arm", (Camera("front", 64, 64),), unnamed_axes("state", 3), unnamed_axes("action", 7))
    episodes = [
        Episode(
            {"front": rng.integers(0, 256, (101, 64, 64, 3), np.uint8)},
            np.zeros((101, 3), np.float32),
            np.zeros((100, 7), np.float32),
            np.zeros(100, np.float32),
            True,
        )
        for _ in range(4)
    ]
    write_serl(out / "a.pkl", episodes, spec)
    del episodes
    tracemalloc.start()
    found = read_recording(out / "a.pkl")
    kept, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    size = (out / "a.pkl").stat().st_size
    assert found.num_steps == 400
    assert peak < 1.7 * size
    assert kept < 0.6 * size


def test_a_sound_pickle_passes_the_check(recording, out: Path) -> None:
    write_serl(out / "a.pkl", recording.episodes, recording.spec)
    result = check(out / "a.pkl", progress=False)
    assert result.trainable
    assert result.tree == [
        "  ├─ observations/left: uint8, shape=(18, 8, 6, 3)",
        "  ├─ observations/right: uint8, shape=(18, 8, 6, 3)",
        "  ├─ observations/global: uint8, shape=(18, 8, 6, 3)",
        "  ├─ observations/state: float32, shape=(18, 5)",
        "  ├─ actions: float32, shape=(18, 3)",
        "  ├─ rewards: shape=(18,)",
        "  ├─ grasp_penalty: shape=(4,)",
        "  └─ intervened: shape=(4,)",
    ]


def spoiled(recording: Recording, **changes) -> Recording:
    first = recording.episodes[0]
    return replace(recording, episodes=[replace(first, **changes), *recording.episodes[1:]])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"state": np.full((5, 5), np.nan, np.float32)}, r"observations/state: NaN or infinite in 5 of 20 rows"),
        ({"reward": None}, r"rewards: missing in 1 of 4 episodes"),
        ({"action": np.full((4, 3), np.inf, np.float32)}, r"actions: NaN or infinite in 4 of 18 rows, first row 0"),
        ({"reward": np.full(4, np.nan, np.float32)}, r"'?rewards'? of transition 0 is nan"),
    ],
)
def test_the_check_finds(recording, out: Path, changes, message) -> None:
    broken = spoiled(recording, **changes)
    write_serl(out / "a.pkl", broken.episodes, broken.spec)
    result = check(out / "a.pkl", progress=False)
    assert not result.trainable
    assert any(re.search(message, str(problem)) for problem in result.problems)


def test_the_check_looks_at_frames_and_rewards(recording, out: Path) -> None:
    dark = [
        replace(
            one,
            images={name: np.zeros_like(frames) for name, frames in one.images.items()},
            reward=np.zeros(one.num_steps),
        )
        for one in recording.episodes
    ]
    write_serl(out / "a.npz", dark, recording.spec)
    fields = {problem.field for problem in check(out / "a.npz", progress=False).problems}
    assert fields >= {"observations/left", "observations/right", "observations/global", "rewards"}


def test_the_commands_know_transitions(lapwing, recording, out: Path) -> None:
    path = out / "demos.pkl"
    write_serl(path, recording.episodes, recording.spec)
    assert lapwing("data check", path).code == 0
    figures = json.loads(lapwing("data info", path, json=True).out)
    assert (figures["layout"], figures["episodes"], figures["steps"]) == ("serl", 4, 18)
    assert lapwing("data convert", path, out / "a.npz", to="npz").code == 0
    chosen = lapwing("data check", out / "a.npz", image_keys="left right")
    assert "observations/global" not in chosen.out
    refused = lapwing("data check", path, mode="dual-arm-learned-gripper")
    assert refused.code == 2
    assert "mode is 'dual-arm-learned-gripper', but its 3 action axes make 'single-arm-learned-gripper'" in refused.out


@pytest.mark.parametrize("kind", ["pickle", "npz"])
def test_samples_are_drawn_as_transitions(lapwing, out: Path, kind: str) -> None:
    said = lapwing("data sample", out / "demos", format=kind, episodes=3, size=16)
    assert said.code == 0, said.err
    suffix = {"pickle": "pkl", "npz": "npz"}[kind]
    assert sorted(one.name for one in (out / "demos").iterdir()) == [f"episode_{n:06d}.{suffix}" for n in range(3)]
    assert lapwing("data sample", out / f"one.{suffix}", format=kind, episodes=3, size=16).code == 0
    assert lapwing("data sample", out / "one.hdf5", episodes=3, size=16).code == 0
    folder, one, flat = (read_recording(out / name) for name in ("demos", f"one.{suffix}", "one.hdf5"))
    assert folder.spec == one.spec == flat.spec
    for found, other, source in zip(folder.episodes, one.episodes, flat.episodes, strict=True):
        expect_same(found, other)
        np.testing.assert_array_equal(found.action, source.action)
    refused = lapwing("data sample", out / "a.hdf5", format=kind, episodes=3)
    assert refused.code == 2
    assert f"its name ends in .hdf5, expected .{suffix} for --format {kind}" in refused.err
