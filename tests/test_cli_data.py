"""`lapwing data check` and `data convert` on ALOHA folders, as they are typed."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from command_line import Lapwing, error_line

from lapwing import cli
from lapwing.data.formats import read_recording
from lapwing.data.formats.aloha_writer import episode_path, write_aloha_episode
from lapwing.episode import Recording


@pytest.fixture(scope="session")
def folder(make_recording, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five episodes without rewards, as an ALOHA machine records them."""
    recording: Recording = make_recording([(20 + number, False, False) for number in range(5)])
    path = tmp_path_factory.mktemp("cli") / "eps"
    path.mkdir()
    for number, episode in enumerate(recording.episodes):
        write_aloha_episode(episode_path(path, number), replace(episode, reward=None, success=None), recording.spec)
    return path


@pytest.fixture
def eps(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "eps"))


def test_a_folder_without_rewards_passes(lapwing: Lapwing, eps: Path) -> None:
    said = lapwing("data check", eps)
    assert said.code == 0
    assert said.out.splitlines()[0] == f"Dataset: {eps}"
    assert "  episode_0.hdf5, the first of 5:" in said.out
    assert f"offline RL (LAPO) needs them, lapwing data convert {eps} OUT.hdf5 --to flat" in said.out
    assert said.out.splitlines()[-1].startswith("✓ trainable by imitation (ACT, BC), not by offline RL (LAPO) without")
    data = json.loads(lapwing("data check", eps, json=True).out)
    assert (data["trainable"], data["imitable"]) == (False, True)


def test_the_flat_file_of_it_fails_for_its_documents_ask_for_rewards(
    lapwing: Lapwing, eps: Path, tmp_path: Path
) -> None:
    said = lapwing("data convert", eps, tmp_path / "flat.hdf5", to="flat")
    assert said.code == 0
    assert "note: no rewards, which offline RL (LAPO) needs: --reward last-step or LABELS.json gives them" in said.out
    assert lapwing("data check", tmp_path / "flat.hdf5").code == 2
    assert lapwing("data convert", eps, tmp_path / "won.hdf5", reward="last-step").code == 0
    assert lapwing("data check", tmp_path / "won.hdf5").code == 0


def test_a_damaged_episode_fails_unless_it_is_left_out(lapwing: Lapwing, eps: Path, tmp_path: Path) -> None:
    (eps / "episode_3.hdf5").write_bytes(b"")
    said = lapwing("data check", eps)
    assert said.code == 2
    assert f"error: {eps / 'episode_3.hdf5'}: the file is empty (0 bytes)" in said.out
    said = lapwing("data check", eps, skip_damaged=True)
    assert said.code == 0
    assert f"warning: {eps / 'episode_3.hdf5'}: the file is empty (0 bytes)" in said.out
    message = error_line(lapwing("data convert", eps, tmp_path / "flat.hdf5"))
    assert "1 damaged episode (3); the first, episode 3: " in message
    said = lapwing("data convert", eps, tmp_path / "flat.hdf5", skip_damaged=True)
    assert said.out.splitlines()[0].startswith(f"{tmp_path / 'flat.hdf5'}: wrote 4 episodes, 87 steps; left out 1 dam")


def test_there_and_back_again(lapwing: Lapwing, eps: Path, tmp_path: Path) -> None:
    labels = tmp_path / "labels.csv"
    labels.write_text("episode,success,reward\n" + "".join(f"{n},{n != 2},last-step\n" for n in range(5)))
    flat, back = tmp_path / "flat.hdf5", tmp_path / "back"
    assert lapwing("data convert", eps, flat, reward=labels, size=4).code == 0
    assert lapwing("data convert", flat, back, to="aloha", dialect="cobot-magic").code == 0
    with h5py.File(back / "episode_0.hdf5") as file:
        assert not file.attrs["compress"]
        assert file["observations/images/left"].shape == (20, 4, 4, 3)
    episodes = read_recording(back).episodes
    assert [episode.success for episode in episodes] == [True, True, False, True, True]
    for found, source in zip(episodes, read_recording(eps).episodes, strict=True):
        np.testing.assert_array_equal(found.action, source.action)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            {"reward": "lats-step"},
            "reward: 'lats-step', expected keep, none, last-step or a file of labels; there is no",
        ),
        ({"size": 0}, "size: 0, expected 1 to 4096 pixels"),
        ({"alignment": 20}, "episode 0 has 20 steps, expected more than the alignment of +20"),
        ({"base": "action"}, "no dataset 'base_action'"),
        ({"to": "zarr"}, "invalid choice 'zarr' for argument '--to'"),
        ({"to": "aloha", "dialect": "aloha2"}, "invalid choice 'aloha2' for argument '--dialect'"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_leaves_nothing(
    lapwing: Lapwing, eps: Path, tmp_path: Path, flags: dict[str, Any], message: str
) -> None:
    assert message in error_line(lapwing("data convert", eps, tmp_path / "out", **flags))
    assert [path.name for path in tmp_path.iterdir()] == ["eps"]


def test_an_empty_folder_is_one_line(lapwing: Lapwing, tmp_path: Path) -> None:
    (tmp_path / "eps").mkdir()
    message = error_line(lapwing("data convert", tmp_path / "eps", tmp_path / "flat.hdf5"))
    assert message == (
        f"{tmp_path / 'eps'}: found a folder with nothing in it, expected episode_0.hdf5 and so on; check the path"
    )
    said = lapwing("data check", tmp_path / "eps")
    assert said.code == 2
    assert "found a folder with nothing in it, expected episode_0.hdf5" in said.out


def test_a_terminated_conversion_says_that_it_can_go_on(eps: Path, tmp_path: Path) -> None:
    program = """
import sys, time
from lapwing import cli
from lapwing.data.formats.flat_writer import FlatWriter
add = FlatWriter.add
def slowly(self, episode):
    add(self, episode)
    time.sleep(0.3)
FlatWriter.add = slowly
sys.exit(cli.main(sys.argv[1:]))
"""
    words = ["data", "convert", str(eps), str(tmp_path / "flat.hdf5")]
    process = subprocess.Popen([sys.executable, "-c", program, *words], stderr=subprocess.PIPE, text=True)
    journal = tmp_path / ".flat.hdf5.partial/journal.jsonl"
    while not journal.exists() or len(journal.read_text().splitlines()) < 2:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 130, said
    last = said.splitlines()[-1]
    assert last.startswith("lapwing: interrupted: terminated; ")
    assert last.endswith("done, and the same command goes on from there")
    assert not (tmp_path / "flat.hdf5").exists()
    assert cli.main(words) == 0
    assert read_recording(tmp_path / "flat.hdf5").num_steps == sum(20 + number for number in range(5))
