"""The check of ALOHA folders: every problem has a folder that causes it, named by file, and one that does not."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from lapwing.data import cameras
from lapwing.data.check import CheckResult, check, format_check
from lapwing.data.formats.options import ReadOptions
from lapwing.episode import Array

STEPS, EPISODES = 60, 4
CAMERAS = ("cam_high", "cam_low")


def path_of(seed: int) -> Array:
    """Commands of 14 axes such as an operator gives, grippers between 0 and 1, at rest at the end."""
    rng = np.random.default_rng(seed)
    kernel = np.hanning(9) / np.hanning(9).sum()
    walk = rng.normal(size=(STEPS + 30, 14)).cumsum(0)
    walk[40:] = walk[40]
    smooth = np.stack([np.convolve(column, kernel, "valid") for column in walk.T], 1)
    smooth[:, [6, 13]] = (np.tanh(smooth[:, [6, 13]]) + 1) / 2
    return smooth.astype(np.float32)


def write_episode(path: Path, seed: int, lag: int = 2) -> None:
    command, rng = path_of(seed), np.random.default_rng(seed)
    with h5py.File(path, "w") as file:
        file.attrs["sim"] = False
        file["observations/qpos"] = command[10 - lag : 10 - lag + STEPS]
        for key in ("qvel", "effort"):
            file[f"observations/{key}"] = rng.normal(size=(STEPS, 14)).astype(np.float32)
        for camera in CAMERAS:
            frames = rng.integers(0, 256, (STEPS, 8, 6, 3), np.uint8)
            file.create_dataset(f"observations/images/{camera}", data=frames, chunks=(1, 8, 6, 3))
        file["action"] = command[10 : 10 + STEPS]


@pytest.fixture(scope="session")
def sound_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("aloha") / "eps"
    folder.mkdir()
    for number in range(EPISODES):
        write_episode(folder / f"episode_{number}.hdf5", number)
    return folder


@pytest.fixture
def eps(sound_folder: Path, tmp_path: Path) -> Path:
    """Four sound episodes of the test's own, as an ALOHA recorder writes them: no rewards, no stamps."""
    return Path(shutil.copytree(sound_folder, tmp_path / "eps"))


def edit(eps: Path, key: str, values: Array | None, *numbers: int) -> None:
    """Replace or delete a dataset in some episodes, in all if none is named."""
    for number in numbers or range(EPISODES):
        with h5py.File(eps / f"episode_{number}.hdf5", "a") as file:
            if key in file:
                del file[key]
            if values is not None:
                file[key] = values


def look(eps: Path, **options: bool) -> CheckResult:
    return check(eps, ReadOptions(**options), progress=False)


def lines(eps: Path, **options: bool) -> list[str]:
    return [str(problem) for problem in look(eps, **options).problems]


def last_one(steps: int = STEPS) -> Array:
    return (np.arange(steps) == steps - 1).astype(np.float32)


def test_a_sound_folder_passes_without_rewards(eps):
    result = look(eps)
    assert (result.problems, result.passes, result.trainable, result.imitable) == ((), True, False, True)
    assert any(
        note.startswith("no rewards: imitation (ACT, BC) does without; offline RL (LAPO) needs them, lapwing data conv")
        for note in result.notes
    )
    assert "the state follows the action by 2 steps (median of 14 axes)" in result.notes
    assert format_check(result).endswith(
        "✓ trainable by imitation (ACT, BC), not by offline RL (LAPO) without rewards: 0 errors, 0 warnings"
    )


def test_the_tree_is_that_of_the_first_episode(eps):
    assert look(eps).tree == [
        "  episode_0.hdf5, the first of 4:",
        "  ├─ observations/",
        "  │  ├─ effort: float32, shape=(60, 14)",
        "  │  ├─ images/",
        "  │  │  ├─ cam_high: uint8, shape=(60, 8, 6, 3)",
        "  │  │  └─ cam_low: uint8, shape=(60, 8, 6, 3)",
        "  │  ├─ qpos: float32, shape=(60, 14)",
        "  │  └─ qvel: float32, shape=(60, 14)",
        "  └─ action: float32, shape=(60, 14)",
    ]


def test_one_file_is_checked_alone(eps):
    result = look(eps / "episode_2.hdf5")
    assert (result.problems, result.passes) == ((), True)
    assert result.tree[0] == "  episode_2.hdf5, the first of 1:"


def test_rewards_that_differ_make_it_trainable(eps):
    edit(eps, "reward", np.roll(last_one(), -1))
    result = look(eps)
    assert (result.problems, result.trainable) == ((), True)
    assert not any("no rewards" in note for note in result.notes)


def test_rewards_in_last_steps_that_nobody_can_learn_from_are_errors(eps):
    edit(eps, "reward", last_one())
    (line,) = lines(eps)
    assert "rewards: all 0 but for the last step of episodes that were cut, with no observation after it" in line
    assert "lapwing data convert IN OUT --to flat --reward last-step" in line
    assert (look(eps).trainable, look(eps).imitable) == (False, True)


def test_rewards_that_say_nothing_are_errors_that_leave_imitation(eps):
    edit(eps, "reward", last_one() * 0)
    result = look(eps)
    assert "reward: all 240 are 0, expected rewards that differ" in str(result.problems[0])
    assert (result.passes, result.trainable, result.imitable) == (False, False, True)


def test_rewards_in_some_episodes_only_are_an_error(eps):
    edit(eps, "reward", last_one(), 0, 3)
    (line,) = lines(eps)
    assert "reward: missing in 2 of 4 episodes: episode_1.hdf5, episode_2.hdf5, expected rewards in every" in line


def test_a_damaged_file_is_named_and_may_be_left_out(eps):
    file = eps / "episode_2.hdf5"
    file.write_bytes(file.read_bytes()[:-5000])
    (line,) = lines(eps)
    assert line.startswith(f"error: {file}: the HDF5 file is truncated")
    assert line.endswith("or leave it out with --skip-damaged")
    assert not look(eps).passes
    result = look(eps, skip_damaged=True)
    assert [problem.severity for problem in result.problems] == ["warning"]
    assert str(result.problems[0]).startswith(f"warning: {file}: the HDF5 file is truncated")
    assert (result.passes, result.imitable) == (True, True)


def test_nothing_is_left_when_all_are_damaged(eps):
    for file in eps.iterdir():
        file.write_bytes(b"")
    result = look(eps, skip_damaged=True)
    assert [problem.file for problem in result.problems] == [str(eps / f"episode_{i}.hdf5") for i in range(EPISODES)]
    assert (result.passes, result.imitable, result.tree) == (False, False, [])
    assert not any("--skip-damaged" in line for line in lines(eps))


def test_a_stranger_among_the_episodes_is_named(eps):
    edit(eps, "observations/images/cam_low", None, 3)
    (line,) = lines(eps)
    assert line.startswith(f"error: {eps / 'episode_3.hdf5'}: cameras (height x width) cam_high 8x6, expected cam_high")


def test_several_problems_come_at_once(eps):
    (eps / "episode_0.hdf5").write_bytes(b"nothing")
    broken = path_of(1)[10 : 10 + STEPS].copy()
    broken[7, 3] = np.nan
    edit(eps, "action", broken, 1)
    edit(eps, "observations/qpos", np.zeros((STEPS - 1, 14)), 2)
    text = "\n".join(lines(eps))
    assert f"{eps / 'episode_0.hdf5'}: not an HDF5 file" in text
    assert f"{eps / 'episode_1.hdf5'}: action: NaN or infinite in 1 of 60 rows, first row 7, axes left_fore" in text
    assert f"{eps / 'episode_2.hdf5'}: 'observations/qpos' has 59 rows, expected 60 as action has" in text


@pytest.mark.parametrize("block_bytes", [1, 1 << 20])
def test_black_frames_are_named_by_file(eps, monkeypatch, block_bytes):
    monkeypatch.setattr(cameras, "_BLOCK_BYTES", block_bytes)
    frames = np.random.default_rng(0).integers(0, 256, (STEPS, 8, 6, 3), np.uint8)
    frames[[4, 9]] = 3
    edit(eps, "observations/images/cam_low", frames, 1)
    frames[:] = frames[::-1].copy()
    edit(eps, "observations/images/cam_low", frames, 3)
    (line,) = lines(eps)
    assert line.startswith("warning: ")
    assert (
        "images/cam_low: 4 of 240 frames are black, first row 4 of episode_1.hdf5 (in episode_1.hdf5, "
        "episode_3.hdf5), expected a picture" in line
    )
    edit(eps, "observations/images/cam_low", frames // 100)
    (line,) = lines(eps)
    assert "error: " in line
    assert "images/cam_low: all 240 frames are black" in line


def test_a_frozen_camera_is_named_by_file(eps):
    frames = np.random.default_rng(0).integers(0, 256, (STEPS, 8, 6, 3), np.uint8)
    frames[10:30] = frames[10]
    edit(eps, "observations/images/cam_high", frames, 2)
    (line,) = lines(eps)
    assert "20 of 240 frames, the longest stretch rows 10 to 29 of episode_2.hdf5, expected a picture that" in line
    for number in range(EPISODES):
        edit(eps, "observations/images/cam_high", np.broadcast_to(frames[number], frames.shape), number)
    (line,) = lines(eps)
    assert "error: " in line
    assert "images/cam_high: all 240 frames are the same" in line


def test_episodes_of_one_frame_are_no_frozen_camera(eps):
    with h5py.File(eps / "episode_0.hdf5") as file:
        keys = [f"observations/{key}" for key in ("qpos", "qvel", "effort")]
        first = {key: file[key][:1] for key in ["action", *keys, *(f"observations/images/{name}" for name in CAMERAS)]}
    for key, values in first.items():
        edit(eps, key, values)
    text = "\n".join(lines(eps))
    assert "all 4 episodes have one step" in text
    assert "frames are the same" not in text


def test_jpeg_bytes_that_do_not_decode_are_named(eps):
    buffer = io.BytesIO()
    rows = []
    for frame in np.random.default_rng(0).integers(0, 256, (STEPS, 8, 8, 3), np.uint8):
        buffer = io.BytesIO()
        Image.fromarray(frame).save(buffer, "JPEG")
        rows.append(buffer.getvalue())
    size = max(map(len, rows))
    stored = np.stack([np.frombuffer(one.ljust(size, b"\0"), np.uint8) for one in rows])
    for camera in CAMERAS:
        edit(eps, f"observations/images/{camera}", stored)
    assert lines(eps) == []
    stored[33, 20:] = 7
    edit(eps, "observations/images/cam_low", stored, 1)
    (line,) = lines(eps)
    assert line.startswith(f"error: {eps / 'episode_1.hdf5'}: observations/images/cam_low: frame 33 does not decode")
    (line,) = lines(eps, skip_damaged=True)
    assert line.startswith("warning: ")


def test_constant_axes_are_those_of_the_whole_folder(eps):
    edit(eps, "observations/effort", np.zeros((STEPS, 14)))
    still = path_of(0)[10 : 10 + STEPS].copy()
    still[:, 3] = 0.25
    edit(eps, "action", still, 0)
    assert lines(eps) == []
    for number in range(EPISODES):
        still = path_of(number)[10 : 10 + STEPS].copy()
        still[:, 3] = 0.25
        edit(eps, "action", still, number)
    assert any("action: constant: left_forearm_roll = 0.25" in line for line in lines(eps))


def test_what_concerns_whole_episodes_names_files(eps):
    shutil.copy(eps / "episode_1.hdf5", eps / "episode_7.hdf5")
    edit(eps, "time", np.arange(STEPS) / 40)
    text = "\n".join(lines(eps))
    assert "stored twice: episode_1.hdf5 = episode_7.hdf5" in text
    assert "time: 4 of 4 episodes ran slower, at 40 to 40 Hz: episode_0.hdf5, episode_1.hdf5" in text
    back = np.arange(STEPS) / 50
    back[30:] -= 1
    edit(eps, "time", back, 2)
    result = look(eps)
    assert any("stamps that go backwards in 1 of 4 episodes (episode_2.hdf5)" in str(one) for one in result.problems)
    assert not result.passes


def test_an_action_that_repeats_the_state_is_named(eps):
    for number in range(EPISODES):
        edit(eps, "action", path_of(number)[8 : 8 + STEPS], number)
    (line,) = lines(eps)
    assert "action: equal to the state of the same step: left_waist" in line
    assert "or train with --alignment 1" in line


def test_a_folder_without_episodes_is_one_problem(tmp_path):
    (tmp_path / "notes.txt").write_text("nothing here")
    (line,) = lines(tmp_path)
    assert line.startswith(f"error: {tmp_path}: found a folder with notes.txt, expected episode_0.hdf5 and so on")


def test_the_result_is_plain_json(eps):
    data = json.loads(json.dumps(look(eps).to_dict()))
    assert (data["trainable"], data["imitable"], data["problems"]) == (False, True, [])
