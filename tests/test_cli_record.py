"""`lapwing record`: what it prints, what it leaves, and one line for everything a user can mend."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import Lapwing, Said

from lapwing import cli
from lapwing.commands.record import describe
from lapwing.data.formats.aloha import read_aloha
from lapwing.data.record import EpisodeWriter
from lapwing.episode import Episode
from lapwing.run.operator import Operator
from lapwing.run.pace import Pace
from lapwing.run.recorder import RecordOptions, Take

needs_mujoco = pytest.mark.skipif(
    find_spec("mujoco") is None or find_spec("gym_aloha") is None, reason="the extra [sim] is not installed"
)


@pytest.fixture
def lapwing(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Lapwing:
    """lapwing("record --out eps") runs a command line in this process, in an empty folder, without a terminal."""
    monkeypatch.chdir(tmp_path)

    def run(command: str) -> Said:
        capfd.readouterr()
        with open(os.devnull, encoding="utf-8") as nothing:
            monkeypatch.setattr(sys, "stdin", nothing)
            return Said(cli.main(command.split()), *capfd.readouterr())

    return run


def error_line(said: Said) -> str:
    """The one line of an error; there is no other, and no traceback."""
    assert said.code == 2, said
    lines = [line for line in said.err.splitlines() if line.strip()]
    assert len(lines) == 1, said.err
    assert lines[0].startswith("lapwing: error: ")
    return lines[0].removeprefix("lapwing: error: ")


def read(folder: str) -> list[Episode]:
    return list(read_aloha(Path(folder)).episodes)


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that has hardly learned."""
    folder = tmp_path_factory.mktemp("policy")
    small = "--backbone small --weights none --hidden 16 --obs-feature-dim 16 --image-feature-dim 16 --batch-size 8"
    for line in (
        f"data sample {folder}/toy.hdf5 --episodes 4 --size 16",
        f"train bc {folder}/toy.hdf5 --out {folder}/run --steps 2 {small} --device cpu --threads 1",
    ):
        assert cli.main(line.split()) == 0
    return folder / "run"


def test_recorded_episodes_are_told_and_can_be_checked(lapwing: Lapwing) -> None:
    said = lapwing("record --world toy --expert scripted --episodes 3 --out eps --size 16 --seed 4")
    assert said.code == 0, said
    *told, summary, following = said.out.splitlines()
    assert [line.split(": ")[0] for line in told] == [f"episode_{number}.hdf5" for number in range(3)]
    assert all(re.search(r": \d+ steps at [\d.]+ Hz, success$", line) for line in told)
    episodes = read("eps")
    steps = sum(episode.num_steps for episode in episodes)
    assert summary == f"eps: 3 episodes recorded, {steps} steps, 3 of them succeed"
    assert following == "next: lapwing data check eps"
    assert lapwing("data check eps").code == 0
    assert len({episode.meta["seed"] for episode in episodes}) == 3
    for episode in episodes:
        assert (episode.success, episode.terminated, episode.num_rows) == (True, True, episode.num_steps + 1)
        assert {"world": "toy", "expert": "scripted", "kind": "good"}.items() <= episode.meta.items()


def test_a_seed_records_the_same_again_and_more_of_it_others(lapwing: Lapwing) -> None:
    for command in ("--episodes 2 --out one", "--episodes 2 --out two", "--episodes 1 --out one --append"):
        assert lapwing(f"record --world toy --size 16 --seed 9 {command}").code == 0
    one, two = read("one"), read("two")
    assert [(a.action == b.action).all() for a, b in zip(one, two, strict=False)] == [True, True]
    assert len(one) == 3
    assert len({episode.meta["seed"] for episode in one}) == 3


@pytest.mark.parametrize(
    ("set_rate", "world_rate", "pace"),
    [
        (None, 50.0, "6 steps, 3.0 a second, stamped at 50 Hz"),
        (None, 0.0, "6 steps at 3.0 Hz"),
        (3.0, 50.0, "6 steps at 3.0 Hz, 0 ticks missed, at worst 0 ms late"),
    ],
)
def test_the_pace_of_the_loop_is_not_taken_for_the_rate(set_rate: float | None, world_rate: float, pace: str) -> None:
    take = Take(Path("episode_0.hdf5"), "kept", "world", True, Pace(6, 2.0, 0, 0.0), 0, 0)
    assert describe(take, RecordOptions(set_rate), world_rate) == f"episode_0.hdf5: {pace}, success"


def test_a_set_rate_is_declared_and_stamped(lapwing: Lapwing) -> None:
    said = lapwing("record --world toy --size 16 --out eps --rate-hz 20 --max-steps 4 --failures keep")
    assert re.search(
        r"4 steps at [\d.]+ Hz, \d+ ticks missed, at worst \d+ ms late,( TOO SLOW for 20 Hz,)? no success", said.out
    )
    recording = read_aloha(Path("eps"))
    assert recording.spec.rate_hz == 20
    [episode] = recording.episodes
    assert episode.num_steps == 4
    assert episode.time[0] == 0
    assert (np.diff(episode.time) > 0).all()
    assert episode.time[-1] >= 0.2 - 1e-9


def test_lost_steps_are_not_counted_as_recorded(lapwing: Lapwing, monkeypatch: pytest.MonkeyPatch) -> None:
    step, handed_over = EpisodeWriter.step, []

    def lose_the_fifth(self: EpisodeWriter, *args: Any, **named: Any) -> bool:
        handed_over.append(args)
        self.lost = int(len(handed_over) == 5)
        return not self.lost and step(self, *args, **named)

    monkeypatch.setattr(EpisodeWriter, "step", lose_the_fifth)
    said = lapwing("record --world toy --size 16 --out eps --failures keep")
    assert "OVERRUN: the disk was too slow, 1 steps lost, cut there" in said.out
    assert "eps: 1 episodes recorded, 4 steps, 0 of them succeed" in said.out
    assert [episode.num_steps for episode in read("eps")] == [4]


def test_mixed_operators_keep_their_failures(lapwing: Lapwing) -> None:
    said = lapwing("record --world toy --size 16 --episodes 8 --out eps --quality mixed")
    assert said.code == 0
    assert "not kept" not in said.out
    assert {episode.success for episode in read("eps")} == {True, False}


def test_failed_attempts_of_an_expert_are_told_and_not_counted(lapwing: Lapwing) -> None:
    said = lapwing("record --world toy --size 16 --episodes 3 --out eps --max-steps 14 --seed 1")
    assert said.code == 0
    failed = said.out.count("not kept (failed): 14 steps")
    assert failed > 0
    assert f"eps: 3 episodes recorded, {sum(e.num_steps for e in read('eps'))} steps, 3 of them succeed; {failed}" in (
        said.out
    )
    assert sorted(path.name for path in Path("eps").iterdir()) == [f"episode_{number}.hdf5" for number in range(3)]


def test_an_expert_who_never_succeeds_is_given_up(lapwing: Lapwing) -> None:
    said = lapwing("record --world toy --size 16 --out eps --max-steps 2")
    assert "eps: 20 attempts in a row were not kept (failed); --failures keep keeps them" in error_line(said)
    assert list(Path("eps").iterdir()) == []


def test_episodes_that_are_all_too_slow_are_given_up_with_the_flag_that_keeps_them(lapwing: Lapwing) -> None:
    said = lapwing("record --world toy --size 16 --out eps --rate-hz 1000 --slowest 1 --too-slow discard --max-steps 5")
    assert "attempts in a row were not kept (too slow); --too-slow mark keeps them" in error_line(said)


def test_images_of_no_pixels_are_refused(lapwing: Lapwing) -> None:
    assert "size: got 0, expected at least 16 pixels" in error_line(lapwing("record --world toy --size 0 --out eps"))
    assert not Path("eps").exists()


def test_a_policy_is_recorded_with_whatever_comes_of_it(lapwing: Lapwing, policy: Path) -> None:
    said = lapwing(f"record --world toy --expert policy={policy} --out eps --device cpu --max-steps 5")
    assert said.code == 0, said
    [episode] = read("eps")
    assert episode.meta["expert"] == f"policy={policy}"
    assert episode.images["left"].shape == (6, 16, 16, 3)
    assert not episode.intervened.any()


def test_the_expert_takes_over_from_a_policy(lapwing: Lapwing, policy: Path) -> None:
    flags = "--takeover scripted --takeover-after 3"
    said = lapwing(f"record --world toy --expert policy={policy} --out eps --device cpu --episodes 4 {flags}")
    assert said.code == 0, said
    assert "steps taken over" in said.out
    episodes = read("eps")
    for episode in episodes:
        assert episode.intervened.tolist() == [row >= 3 for row in range(episode.num_steps)]
    assert sum(bool(episode.success) for episode in episodes) >= 3  # the policy has learned nothing; the expert can


def test_keys_steer_a_recording(lapwing: Lapwing, monkeypatch: pytest.MonkeyPatch, policy: Path) -> None:
    typist, descriptor = pty.openpty()
    enter = Operator.__enter__

    def enter_and_type(self: Operator) -> Operator:
        enter(self)  # which passes over what was typed before
        os.write(typist, b"tdq")  # take over after the first step, discard after the second; finish with the next
        return self

    monkeypatch.setattr(Operator, "__enter__", enter_and_type)
    with open(descriptor, encoding="utf-8") as terminal:
        monkeypatch.setattr(os, "devnull", os.ttyname(terminal.fileno()))
        said = lapwing(f"record --world toy --expert policy={policy} --out eps --episodes 9 --takeover scripted")
    os.close(typist)
    assert said.code == 0, said
    assert said.out.splitlines()[0].startswith("keys: s stop and keep, d discard")
    assert re.search(r"not kept \(discarded\): 2 steps at .*, 1 steps taken over", said.out)
    assert "eps: 1 episodes recorded, 1 steps" in said.out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--episodes 0", "--episodes is 0, expected at least 1"),
        ("--seed -1", "--seed is -1, expected at least 0"),
        ("--expert me", "--expert is 'me', expected scripted or policy=RUN"),
        ("--expert policy=nowhere", "nowhere"),
        ("--takeover scripted", "--takeover, --ensemble and --execute are for --expert policy=RUN"),
        ("--execute 0", "--takeover, --ensemble and --execute are for --expert policy=RUN"),
        ("--takeover-after 3", "--takeover-after needs someone to take over; add --takeover scripted"),
        ("--rate-hz 0", "--rate-hz is 0.0, expected above 0"),
        ("--rate-hz fast", "--rate-hz"),
        ("--max-steps 0", "--max-steps is 0, expected at least 1"),
        ("--slowest 2", "--slowest is 2.0, expected a share"),
        ("--size 4", "size: got 4, expected at least 16"),
        ("--recover maybe", "invalid choice 'maybe'"),
        ("--world mars", "invalid choice 'mars'"),
    ],
)
def test_what_makes_no_sense_is_one_line_and_leaves_nothing(lapwing: Lapwing, flags: str, message: str) -> None:
    world = "" if "--world" in flags else "--world toy "
    assert message in error_line(lapwing(f"record {world}--out eps {flags}"))
    assert not Path("eps").exists()


def test_a_policy_is_recorded_at_any_size(lapwing: Lapwing, policy: Path) -> None:
    assert lapwing(f"record --world toy --expert policy={policy} --out eps --size 32 --max-steps 2").code == 0
    assert read("eps")[0].images["left"].shape == (3, 32, 32, 3)


@needs_mujoco
def test_a_policy_of_another_robot_is_refused_before_there_is_a_folder(lapwing: Lapwing, policy: Path) -> None:
    said = lapwing(f"record --world aloha --expert policy={policy} --out eps")
    assert "state: shape [14], expected 16 values; the policy was trained on robot 'toy'" in error_line(said)
    assert not Path("eps").exists()


def test_a_folder_with_episodes_is_left_alone_without_append(lapwing: Lapwing) -> None:
    assert lapwing("record --world toy --size 16 --out eps").code == 0
    assert "eps: already there, with 1 episodes; add to it with --append" in error_line(
        lapwing("record --world toy --size 16 --out eps")
    )
    refusal = error_line(lapwing("record --world toy --size 20 --out eps --append"))
    assert re.search(r"camera sizes (\w+) 16x16.*, expected \1 20x20.*; record with --size 16, or choose", refusal)
    assert "axes" not in refusal
    assert len(read("eps")) == 1


def test_recording_an_expert_starts_without_torch(tmp_path: Path) -> None:
    words = ["record", "--world", "toy", "--size", "16", "--out", str(tmp_path / "eps")]
    program = "import sys; from lapwing.cli import main; main(sys.argv[1:]); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"


@pytest.mark.parametrize("unfinished", ["keep", "discard"])
def test_an_interrupted_recording_goes_on(tmp_path: Path, unfinished: str) -> None:
    """Terminated in the middle of an episode; the next start recovers it, or not.

    Not by Ctrl-C: a test run in the background of a script inherits that it is ignored.
    """
    words = "-m lapwing.cli record --world toy --size 16 --out eps --failures keep"
    base = [sys.executable, *words.split()]
    first = subprocess.Popen(
        [*base, "--rate-hz", "5"], cwd=tmp_path, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    rows = tmp_path / "eps" / ".episode_0.spool" / "rows.bin"
    while not rows.exists() or rows.stat().st_size < 8000:  # a row is about 2.5 kB: one step at least
        assert first.poll() is None
        time.sleep(0.01)
    os.killpg(first.pid, signal.SIGTERM)
    _, said = first.communicate(timeout=60)
    assert first.returncode == 130
    assert "eps: whole episodes are kept; an unfinished one is recovered by recording again with --append" in said
    rest = [*base, "--append", "--recover", unfinished]
    done = subprocess.run(rest, cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60)
    note = (
        "episode_0.hdf5: recovered the"
        if unfinished == "keep"
        else "episode_0.hdf5: an unfinished recording, discarded"
    )
    assert note in done.stdout
    episodes = read(str(tmp_path / "eps"))
    assert [bool(episode.meta.get("recovered")) for episode in episodes] == (
        [True, False] if unfinished == "keep" else [False]
    )


@needs_mujoco
def test_the_aloha_world_is_recorded_with_what_the_arms_feel(lapwing: Lapwing) -> None:
    said = lapwing("record --world aloha --expert scripted --out eps --size 16")
    assert said.code == 0, said
    recording = read_aloha(Path("eps"))
    [episode] = recording.episodes
    assert (episode.success, episode.terminated, episode.meta["kind"]) == (True, True, "clean")
    assert episode.reward.sum() == episode.reward[-1] == 1
    assert {"velocity", "effort"} <= {sensor.name for sensor in recording.spec.sensors}
    assert np.abs(episode.sensors["velocity"][:]).max() > 0.1
    np.testing.assert_allclose(np.diff(episode.time), 0.02)
