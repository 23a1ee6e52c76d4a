"""Timing worlds: those that are here take turns, those that are not are named."""

from __future__ import annotations

import numpy as np
import pytest
from acting_world import Line

from lapwing import cli
from lapwing.env import BatchEnv, Sequential
from lapwing.errors import WorldError
from lapwing.run import bench_sac, bench_worlds
from lapwing.run.bench_worlds import drawn_actions, measure, run, table
from lapwing.spec import Axis, RobotSpec


def make_lines(name: str) -> BatchEnv:
    if name == "absent":
        raise WorldError("absent: the package is not installed")
    return Sequential([Line(length=3), Line(length=2)])


def test_every_world_is_stepped_in_each_round_past_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    seeds: list[list[int]] = []
    world = make_lines("line")
    reset = world.reset
    monkeypatch.setattr(world, "reset", lambda drawn: seeds.append(drawn) or reset(drawn))
    paces = measure({"line": world}, repeats=2, seconds=0.05)
    assert len(paces["line"]) == 2
    assert min(value for pace in paces["line"] for value in pace) > 0
    assert len(seeds) > 2
    assert len(seeds[0]) == 2
    assert seeds[0] != seeds[1]


def test_one_step_is_made_whatever_it_takes() -> None:
    [[wall, processor]] = measure({"line": make_lines("line")}, repeats=1, seconds=0.0)["line"]
    assert wall > 0
    assert processor > 0


def test_joints_told_where_to_be_stay_near_where_they_are() -> None:
    joint, gripper = Axis("elbow", "rad", "arm", -2.0, 2.0), Axis("grip", "open", "gripper", 0.0, 1.0)
    spec = RobotSpec("arm", (), (joint, gripper), (joint, gripper))
    state = np.linspace(-1.9, 1.99, 200 * 2, dtype=np.float32).reshape(200, 2)
    actions = drawn_actions(spec, np.random.default_rng(0), state)
    assert 0.02 < np.abs(actions[:, 0] - state[:, 0]).max() < 0.0401
    assert actions[:, 1].min() < 0.1
    assert actions[:, 1].max() > 0.9
    assert actions[:, 1].min() >= 0


def test_worlds_that_are_not_here_are_skipped_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    run(("line", "absent"), make_lines, repeats=1, seconds=0.0)
    out = capsys.readouterr().out
    assert "\nline " in out
    assert "\nabsent: skipped, absent: the package is not installed\n" in out


def test_the_table_gives_medians() -> None:
    paces = {"line": [(1000.0, 4000.0), (500.0, 5000.0), (2000.0, 3000.0)]}
    line = table({"line": make_lines("line")}, paces).splitlines()[1]
    assert " ".join(line.split()) == "line none 1,000 (500-2,000) 4,000 (3,000-5,000)"


@pytest.mark.parametrize(("seconds", "timed"), [("0", []), ("0.1", [(2, 0.1)])])
def test_the_command_times_worlds_unless_told_not_to(
    seconds: str, timed: list[tuple[int, float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, float]] = []
    monkeypatch.setattr(bench_sac, "run", lambda options: None)
    monkeypatch.setattr(bench_worlds, "run", lambda names, make_world, repeats, time: asked.append((repeats, time)))
    assert cli.main(["bench", "sac", "--world-seconds", seconds, "--repeats", "2"]) == 0
    assert asked == timed
