"""The Panda worlds as they are typed."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from command_line import Lapwing, error_line

from lapwing.data.formats import read_recording
from lapwing.data.formats.serl_labels import read_labelled

if find_spec("mujoco") is None or find_spec("gym_hil") is None:
    pytest.skip("the extra [sim] is not installed", allow_module_level=True)


def test_demonstrations_as_pickles_are_read_back_whole(lapwing: Lapwing, tmp_path: Path) -> None:
    out = tmp_path / "demos"
    said = lapwing(
        "data", "sample", out, "--world", "panda-state", "--format", "pickle", "--episodes", "3", "--quality", "noisy"
    )
    assert said.code == 0, said.err
    recording = read_recording(out)
    assert [axis.name for axis in recording.spec.action] == ["x", "y", "z", "gripper"]
    assert len(recording.episodes) == 3
    for episode in recording.episodes:
        assert episode.success
        assert episode.terminated
        assert episode.state.shape[1] == 21
        assert episode.grasp_penalty is not None
        assert episode.grasp_penalty.sum() <= -0.02
        assert np.abs(episode.action).max() <= 1
    assert lapwing("data", "check", out).code == 0


def test_frames_for_a_classifier_are_in_two_folders(lapwing: Lapwing, tmp_path: Path) -> None:
    said = lapwing(
        "data", "sample", tmp_path / "clf", "--world", "panda", "--labelled", "--episodes", "1", "--seed", "1",
        "--size", "32",
    )  # fmt: skip
    assert said.code == 0, said.err
    counts = {}
    for kind in ("success", "failure"):
        read = read_labelled(tmp_path / "clf" / kind)
        assert all(one.frames.keys() == {"front", "wrist"} for one in read)
        assert all((one.label == (kind == "success")).all() for one in read)
        counts[kind] = sum(len(one.label) for one in read)
    assert f"{counts['success']} frames show success, {counts['failure']} do not" in said.out


def test_recorded_episodes_keep_the_penalty(lapwing: Lapwing, tmp_path: Path) -> None:
    said = lapwing("record", "--world", "panda-state", "--out", tmp_path / "eps", "--episodes", "1")
    assert said.code == 0, said.err
    [episode] = read_recording(tmp_path / "eps").episodes
    assert episode.success
    assert episode.grasp_penalty is not None
    assert episode.grasp_penalty.sum() == pytest.approx(-0.02)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("--world", "panda-state", "--labelled"),
            "world 'panda-state' has nothing to show a classifier; choose panda",
        ),
        (("--world", "panda", "--labelled", "--n-samples", "9"), "--labelled draws whole episodes of quality mixed"),
        (("--world", "panda", "--labelled", "--quality", "noisy"), "--labelled draws whole episodes of quality mixed"),
        (("--world", "panda", "--labelled", "--format", "d4rl"), "--labelled writes transitions, not --format d4rl"),
        (
            ("--world", "panda-state", "--quality", "human"),
            "quality 'human' is not there in world 'panda-state'; choose mixed, expert or noisy",
        ),
        (
            ("--world", "aloha", "--quality", "noisy"),
            "quality 'noisy' is not there in world 'aloha'; choose mixed or expert",
        ),
        (("--world", "panda", "--size", "8"), "size: got 8, expected at least 16 pixels for the panda world's cameras"),
    ],
)
def test_what_cannot_be_drawn_is_one_line_and_leaves_nothing(
    lapwing: Lapwing, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    assert message in error_line(lapwing("data", "sample", tmp_path / "out", *arguments))
    assert list(tmp_path.iterdir()) == []
