"""robomimic's files, and robosuite's own demonstrations."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from offline_files import REAL

from lapwing.data.check import check
from lapwing.data.formats import read_recording
from lapwing.data.frames import FrameStore
from lapwing.errors import DataError

POSE = {"env_name": "Lift", "env_kwargs": {"control_freq": 20, "controller_configs": {"type": "OSC_POSE"}}}


def demo(steps: int, done: bool, reward: float, images: bool = False) -> dict[str, Any]:
    """Observations that tell the row; done in the last step."""
    rows = np.arange(steps + 1, dtype=np.float64)[:, None]
    low = {
        "robot0_eef_pos": rows + np.array([0, 0.1, 0.2]),
        "object": rows + np.array([0.5, 0.6]),
        "robot0_angle": rows[:, 0],
    }
    rewards, dones = np.zeros(steps), np.zeros(steps, np.int64)
    rewards[-1], dones[-1] = reward, done
    stored: dict[str, Any] = {
        "actions": np.linspace(-1, 1, steps * 7).reshape(steps, 7),
        "rewards": rewards,
        "dones": dones,
        **{f"obs/{key}": values[:-1] for key, values in low.items()},
        **{f"next_obs/{key}": values[1:] for key, values in low.items()},
    }
    if images:
        stored["obs/agentview_image"] = np.full((steps, 4, 6, 3), np.arange(steps)[:, None, None, None], np.uint8)
        stored["obs/agentview_depth"] = np.zeros((steps, 4, 6, 1), np.float32)
    return stored


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def write(*demos: dict[str, Any], told: dict[str, Any] | None = None) -> Path:
        path = tmp_path / "demos.hdf5"
        with h5py.File(path, "w") as file:
            for number, one in enumerate(demos):
                for key, values in one.items():
                    file[f"data/demo_{number}/{key}"] = values
            if told:
                file["data"].attrs["env_args"] = json.dumps(told)
        return path

    return write


def test_the_state_is_every_low_dimensional_key_by_name(write):
    recording = read_recording(write(demo(4, True, 1.0), demo(3, False, 0.0), told=POSE))
    assert (recording.layout, recording.spec.name, recording.spec.rate_hz) == ("robomimic", "Lift", 20.0)
    assert [axis.name for axis in recording.spec.state] == [
        "object_0", "object_1", "robot0_angle", "robot0_eef_pos_0", "robot0_eef_pos_1", "robot0_eef_pos_2",
    ]  # fmt: skip
    assert recording.spec.action[-1].kind == "gripper"
    first = recording.episodes[0]
    assert first.state[:, 2].tolist() == [0, 1, 2, 3, 4]  # the last from next_obs
    assert first.state[1].tolist() == pytest.approx([1.5, 1.6, 1, 1, 1.1, 1.2])
    assert [one.terminated for one in recording.episodes] == [True, False]


def test_done_without_a_reward_is_the_end_of_the_demonstration_alone(write):
    recording = read_recording(write(demo(4, True, 0.0)))
    assert not recording.episodes[0].terminated
    assert [axis.name for axis in recording.spec.action[:2]] == ["action_0", "action_1"]


def test_an_end_on_the_way_is_told(write):
    early = demo(4, True, 1.0)
    early["dones"][1] = 1
    recording = read_recording(write(early, demo(4, True, 1.0)))
    assert recording.episodes[0].num_steps == 4
    assert "'dones' before the last step mean nothing here, demo_0 go on after them: cut them there" in recording.notes


def test_images_are_cameras_and_stay_in_the_file(write):
    recording = read_recording(write(demo(4, True, 1.0, images=True), demo(3, True, 1.0, images=True)))
    assert [(one.name, one.height, one.width) for one in recording.spec.cameras] == [("agentview", 4, 6)]
    assert [one.num_rows for one in recording.episodes] == [4, 3]
    assert recording.episodes[1].images["agentview"][2].max() == 2
    frames = FrameStore.open(recording).gather("agentview", np.array([3, 6]))
    assert frames[:, 0, 0, 0].tolist() == [3, 2]
    assert "agentview" in {one.field for one in check(recording.path, progress=False).problems}  # almost black


def test_depth_is_left_out_aloud(write):
    depth = {"obs/agentview_depth": np.zeros((4, 4, 6, 1), np.float32), "model": np.zeros(1)}
    recording = read_recording(write(demo(4, True, 1.0, images=True) | depth))
    assert recording.spec.camera_names == ("agentview",)
    assert "not read: model, obs/agentview_depth" in recording.notes


def test_demonstrations_come_by_number(write):
    path = write(*(demo(2 + number, True, 1.0) for number in range(11)))
    assert [one.num_steps for one in read_recording(path).episodes] == list(range(2, 13))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rewards": np.zeros(3)}, r"'data/demo_1/rewards' has 3 rows, expected 4 as 'actions' has"),
        ({"obs/object": np.zeros((3, 2))}, r"'data/demo_1/obs/object' has 3 rows, expected 4"),
        ({"obs/object": np.zeros((4, 5))}, r"'data/demo_1/next_obs/object' has 2 axes, expected 5 as in 'obs'"),
        (
            {"obs/object": np.zeros((4, 5)), "next_obs/object": np.zeros((4, 5))},
            r"'data/demo_1' has observations .* as in demo_0",
        ),
        ({"actions": np.zeros((4, 6))}, r"'data/demo_1' has action axes 6, expected 7 as in demo_0"),
        ({"actions": np.zeros((0, 7))}, r"'data/demo_1/actions' has 0 rows"),
        ({"rewards": np.array([b"no"] * 4)}, r"'data/demo_1/rewards' holds \|S2, expected numbers"),
    ],
)
def test_what_does_not_fit_is_named(write, change, message):
    with pytest.raises(DataError, match=message):
        read_recording(write(demo(4, True, 1.0), demo(4, True, 1.0) | change))


def raw(steps: int) -> dict[str, Any]:
    time = 0.05 * np.arange(steps)
    return {"states": np.column_stack([time, np.sin(time), np.cos(time)]), "actions": np.zeros((steps, 7))}


def test_raw_robosuite_has_its_states_without_the_clock(write):
    recording = read_recording(write(raw(5), raw(6)))
    (first, _), spec = recording.episodes, recording.spec
    assert (spec.state_dim, spec.rate_hz, first.reward, first.terminated) == (2, 20.0, None, False)
    assert first.time.tolist() == pytest.approx([0, 0.05, 0.1, 0.15, 0.2])
    assert first.state[0].tolist() == [0, 1]


def test_raw_robosuite_without_states_says_what_is_missing(write):
    with pytest.raises(DataError, match=r"no dataset 'data/demo_0/states' \(found actions\); the robosuite layout"):
        read_recording(write({"actions": np.zeros((4, 7))}))


@pytest.mark.parametrize(
    ("name", "robot", "steps", "state_dim"),
    [("lift", "Lift", 412, 31), ("stack", "Stack", 532, 44), ("door", "Door", 261, 22),
     ("nut-assembly", "NutAssembly", 1036, 44)],
)  # fmt: skip
def test_the_real_demonstrations(name, robot, steps, state_dim):
    path = REAL / "robosuite_panda" / f"{name}_panda.demo.hdf5"
    if not path.exists():
        pytest.skip(f"{path} does not stand beside the checkout")
    recording = read_recording(path)
    assert (recording.spec.name, recording.num_steps, recording.spec.state_dim) == (robot, steps, state_dim)
    assert (recording.spec.rate_hz, recording.spec.action[6].name) == (20.0, "gripper")
    result = check(path, progress=False)
    assert result.imitable
    assert not result.trainable
