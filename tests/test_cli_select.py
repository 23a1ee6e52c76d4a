"""`lapwing select` on runs of a few steps: which policy it prefers, what it writes, and what it refuses in one line."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import Lapwing, Said, error_line

from lapwing.agents.bc import BcConfig
from lapwing.agents.lapo_config import LapoConfig
from lapwing.data.formats.flat import read_flat
from lapwing.data.formats.flat_writer import FlatWriter
from lapwing.episode import Episode
from lapwing.run.options import TrainOptions
from lapwing.run.selection import Judged, Selection, verdict
from lapwing.run.train import train
from lapwing.spec import Axis, RobotSpec

LINE = RobotSpec("line", (), state=(Axis("x", "m"), Axis("noise")), action=(Axis("dx", "m"),), rate_hz=10.0)
QUICK = ("--steps", "400", "--hidden", "16", "--batch-size", "64", "--members", "2", "--lr", "3e-3", "--tau", "0.05")
OPTIONS = TrainOptions(steps=1, batch_size=32, eval_every=1000, save_every=100, threads=1)


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def walk(pace: float, random: np.random.Generator) -> Episode:
    """From about 0 along a line: reward 1 and the end where x passes 1; cut after 15 steps."""
    state, action = [random.uniform(-0.1, 0.1)], []
    while len(action) < 15 and state[-1] < 1:
        action.append(pace + random.normal(0, 0.05))
        state.append(state[-1] + action[-1])
    arrived = state[-1] >= 1
    rows = np.stack([state, random.normal(size=len(state))], 1).astype(np.float32)
    reward = np.zeros(len(action), np.float32)
    reward[-1] = arrived
    moved = np.array(action, np.float32)[:, None]
    return Episode({}, rows, moved, reward, terminated=arrived, success=arrived)


def write(path: Path, episodes: Sequence[Episode], spec: RobotSpec = LINE) -> Path:
    with FlatWriter(path, spec) as writer:
        for episode in episodes:
            writer.add(episode)
    return path


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with mixed walks (mixed.hdf5) and runs: forward and back imitate walkers of one kind, rl is of LAPO."""
    folder, random = tmp_path_factory.mktemp("select"), np.random.default_rng(0)
    forward = [walk(0.25, random) for _ in range(40)]
    back = [walk(-0.1, random) for _ in range(40)]
    write(folder / "mixed.hdf5", [one for pair in zip(forward, back, strict=True) for one in pair])
    bc = BcConfig(hidden=(32,), lr=5e-3)
    for name, episodes in (("forward", forward), ("back", back)):
        train(write(folder / f"{name}.hdf5", episodes), folder / name, "bc", bc, replace(OPTIONS, steps=200))
    lapo = LapoConfig(hidden=(16,))
    train(folder / "mixed.hdf5", folder / "rl", "lapo", lapo, replace(OPTIONS, steps=2))
    chunky = LapoConfig(hidden=(16,), chunk=5)
    train(folder / "mixed.hdf5", folder / "chunky", "lapo", chunky, replace(OPTIONS, steps=2))
    return folder


def run(lapwing: Lapwing, folder: Path, *names: str, data: str = "mixed.hdf5", **flags: Any) -> Said:
    paths = [folder / name for name in names]
    return lapwing("select", *paths, *QUICK, data=folder / data, **flags)


@pytest.mark.parametrize(("flags", "estimate"), [({}, "model"), ({"fitted_q": True}, "fitted-q")])
def test_the_policy_that_arrives_ranks_first(
    lapwing: Lapwing, runs: Path, tmp_path: Path, flags: dict[str, bool], estimate: str
) -> None:
    said = run(lapwing, runs, "back", "forward", "rl", discount=0.9, out=tmp_path / "out", **flags)
    assert said.code == 0, said.err
    found = json.loads((tmp_path / "out" / "select.json").read_text())
    assert found["estimate"] == estimate
    first, *others = found["policies"]
    assert {first["label"], others[0]["label"]} == {"forward step-00000100", "forward step-00000200"}
    assert first["value"] == pytest.approx(0.9**3.5, abs=0.15)  # four or five steps
    assert all(one["value"] < 0.3 for one in others if one["label"].startswith("back"))
    assert {one["algorithm"] for one in found["policies"]} == {"bc", "lapo"}
    assert set(found["baselines"]) == {"hold", "mean", "clone"}
    assert all((one["calibration"] is None) == (one["algorithm"] == "bc") for one in found["policies"])
    assert said.out.splitlines()[1].startswith("forward step-00000")
    assert "Try forward step-00000" in said.out
    assert found["verdict"][0]["text"].startswith("Try forward")
    page = (tmp_path / "out" / "select.html").read_text()
    assert "Which checkpoint to try first" in page
    assert page.count("<svg") >= 4
    assert not re.search(r'(?:src|href)="http', page)


def test_every_kept_checkpoint_of_a_run_or_the_one_named(lapwing: Lapwing, runs: Path, tmp_path: Path) -> None:
    def judged(*names: str, **flags: Any) -> list[tuple[str, str]]:
        assert run(lapwing, runs, *names, out=tmp_path / "out", **{"steps": 2, **flags}).code == 0
        found = json.loads((tmp_path / "out" / "select.json").read_text())
        return sorted((one["checkpoint"], one["mode"]) for one in found["policies"])

    assert judged("forward") == [("step-00000100", "bc"), ("step-00000200", "bc")]
    for name in ("step-00000100", "100"):
        assert judged(f"forward/checkpoints/{name}") == [("step-00000100", "bc")]
    assert judged("forward/checkpoints/last", "forward/checkpoints/200") == [("step-00000200", "bc")]
    assert judged("chunky") == [("step-00000002", "pi")]
    assert judged("rl", all_modes=True) == [("step-00000002", mode) for mode in ("bc", "pi", "z0")]


def test_json_for_programs(lapwing: Lapwing, runs: Path, tmp_path: Path) -> None:
    said = run(lapwing, runs, "forward", out=tmp_path / "out", steps=2, json=True)
    found = json.loads(said.out)
    assert (found["seed"], found["episodes"]) == (0, [80, 64, 16])
    assert found["trained_on"] is False


def test_what_a_run_learned_from_is_not_what_its_actions_are_judged_on(
    lapwing: Lapwing, runs: Path, tmp_path: Path
) -> None:
    run(lapwing, runs, "rl", out=tmp_path / "out", steps=2, seed=3)
    found = json.loads((tmp_path / "out" / "select.json").read_text())
    assert (found["judged_episodes"], found["trained_on"]) == (16, False)  # those that the run itself held out


def test_what_a_run_began_from_has_learned_too(lapwing: Lapwing, runs: Path, tmp_path: Path) -> None:
    flags = {"hidden": 16, "batch_size": 32, "steps": 1, "device": "cpu", "seed": 1, "init": runs / "rl"}
    assert lapwing("train lapo", runs / "mixed.hdf5", out=tmp_path / "on", **flags).code == 0

    def judged() -> tuple[int, bool]:
        assert run(lapwing, tmp_path, "on", data=str(runs / "mixed.hdf5"), out=tmp_path / "out", steps=2).code == 0
        found = json.loads((tmp_path / "out" / "select.json").read_text())
        return found["judged_episodes"], found["trained_on"]

    assert judged() == (16 - len(_trained_on(runs / "rl", tmp_path / "on")), False)
    config = tmp_path / "on" / "config.json"
    settings = json.loads(config.read_text())
    settings["options"]["init"] = str(tmp_path / "gone")
    config.write_text(json.dumps(settings))
    assert judged() == (16, True)  # nobody knows what the weights have seen


def _trained_on(first: Path, then: Path) -> set[int]:
    """Episodes that `first` held out and `then` learned from."""
    held_out = json.loads((first / "split.json").read_text())["valid"]
    return set(held_out) & set(json.loads((then / "split.json").read_text())["train"])


def test_runs_of_one_name_are_told_apart(lapwing: Lapwing, runs: Path, tmp_path: Path) -> None:
    for parent in ("a", "b"):
        shutil.copytree(runs / "forward", tmp_path / parent / "run")
    said = run(lapwing, tmp_path, "a/run", "b/run", data=str(runs / "mixed.hdf5"), out=tmp_path / "out", steps=2)
    assert said.code == 0, said.err
    found = json.loads((tmp_path / "out" / "select.json").read_text())
    assert {one["label"] for one in found["policies"]} == {
        f"{parent}/run step-00000{step}" for parent in ("a", "b") for step in (100, 200)
    }


@pytest.mark.parametrize(
    ("names", "flags", "message"),
    [
        (["none"], {}, "none: not a run or checkpoint, expected RUN or RUN/checkpoints/STEP"),
        (["forward/checkpoints/7"], {}, "no checkpoint 7; saved steps: 100, 200"),
        (["forward"], {"data": "none.hdf5"}, "none.hdf5"),
        (["forward"], {"data": "other.hdf5"}, "trained on 2 state axes"),
        (["forward"], {"data": "renamed.hdf5"}, "trained on action axis 'dx'"),
        (["forward"], {"data": "unrewarded.hdf5"}, "no rewards in episode 0, expected some to judge policies by"),
        (["forward"], {"data": "failures.hdf5"}, "'rewards' are all 0"),
        (["forward"], {"data": "lone.hdf5"}, "one episode, expected two at least"),
        (["forward"], {"train_fraction": 1}, "train_fraction is 1.0, expected between 0 and 1"),
        (["forward"], {"discount": 1.5}, "discount is 1.5, expected 0 to 1"),
        (["forward"], {"samples": 0}, "samples is 0, expected at least 1"),
        (["forward"], {"tau": 5}, "tau is 5.0, expected at most 1"),
        (["forward"], {"members": 1}, "members is 1, expected 2 at least"),
        (["forward"], {"samples": 1}, "the world goes on after 1 of the transitions to learn it from, expected 2"),
        (["forward"], {"lr": 1e30, "fitted_q": True}, "is no finite number, expected one"),
        (["forward"], {"out": "mixed.hdf5/under"}, "mixed.hdf5 is a file, expected a folder"),
        (["forward"], {"threads": 0}, "--threads is 0, expected 1 to 1024"),
        (["forward"], {"out": "mixed.hdf5"}, "is a file, expected a folder"),
        (["forward", "shifted"], {}, "trained with alignment 1,"),
        (["empty"], {}, "no checkpoints, expected one at least"),
        (
            ["chunky"],
            {"data": "short.hdf5", "fitted_q": True},
            "as long as the 5 actions that chunky step-00000002 plays at once",
        ),
        ([], {}, "runs"),
    ],
)
def test_what_does_not_fit_is_one_line(
    lapwing: Lapwing, runs: Path, tmp_path: Path, names: list[str], flags: dict[str, Any], message: str
) -> None:
    _spoil(runs)
    out = runs / flags["out"] if "out" in flags else tmp_path / "out"
    assert message in error_line(run(lapwing, runs, *names, **{**flags, "out": out, "steps": 2}))
    assert out.is_file() or not out.exists()


def _spoil(folder: Path) -> None:
    """Recordings and runs that do not belong together, beside those that do."""
    if (folder / "other.hdf5").exists():
        return
    episodes = list(read_flat(folder / "back.hdf5").episodes)[:4]
    wide = replace(LINE, state=(*LINE.state, Axis("z")))
    wider = [replace(one, state=np.pad(one.state, ((0, 0), (0, 1)))) for one in episodes]
    write(folder / "other.hdf5", wider, wide)
    write(folder / "renamed.hdf5", episodes, replace(LINE, action=(Axis("torque"),)))
    write(folder / "unrewarded.hdf5", [replace(one, reward=None) for one in episodes])
    write(folder / "failures.hdf5", [replace(one, reward=np.zeros_like(one.reward)) for one in episodes])
    write(folder / "lone.hdf5", [read_flat(folder / "forward.hdf5").episodes[0]])
    short = [replace(one, state=one.state[:4], action=one.action[:4], reward=np.ones(4)) for one in episodes]
    write(folder / "short.hdf5", [replace(one, terminated=False) for one in short])
    (folder / "empty" / "checkpoints").mkdir(parents=True)
    train(folder / "mixed.hdf5", folder / "shifted", "bc", BcConfig(hidden=(4,)), replace(OPTIONS, alignment=1))


@pytest.fixture
def selection() -> Selection:
    """A clear case without doubts: good ahead of poor."""
    good = Judged(
        run="good", checkpoint="step-1", label="good step-1", algorithm="bc", mode="bc", chunk=1, value=0.9,
        interval=(0.8, 1.0), gain=None, best=1.0, behind=None, action_error=0.3, error_interval=(0.2, 0.4),
        off_data=0.05, lost=None, calibration=None, course=(0.9,) * 20,
    )  # fmt: skip
    poor = replace(good, label="poor step-1", value=0.2, interval=(0.1, 0.3), best=0.0, behind=(0.5, 0.8))
    return Selection(
        data="d", estimate="fitted-q", fidelity=None, discount=0.9, seed=0,
        episodes=(100, 80, 20), transitions=1000, data_value=0.5, data_interval=(0.4, 0.6), cut=0.0, returns=(0.0, 1.0),
        bounds=(0.0, 1.1), judged_episodes=20, trained_on=False,
        baselines={"hold": 1.5, "mean": 1.0}, steps=tuple(range(20)), policies=(good, poor),
    )  # fmt: skip


def test_a_clear_case_has_no_doubts(selection: Selection) -> None:
    said = [one.text for one in verdict(selection)]
    assert said[0].startswith("Try good step-1 (bc) first")
    assert "clearly ahead of poor step-1" in said[0]
    assert [one.tone for one in verdict(selection)] == ["good", "good", "fair"]


def with_first(found: Selection, **changes: Any) -> Selection:
    return replace(found, policies=(replace(found.policies[0], **changes), *found.policies[1:]))


def test_each_doubt_is_told(selection: Selection) -> None:
    def told(found: Selection) -> str:
        return " ".join(one.text for one in verdict(found))

    unsure = replace(selection, policies=(selection.first, replace(selection.policies[1], behind=(-0.1, 0.8))))
    assert "not clearly ahead of poor step-1" in told(unsure)
    assert "Only 19 held-out episodes" in told(replace(selection, episodes=(95, 76, 19)))
    assert "outside the recorded returns" in told(with_first(selection, value=1.05))
    assert "40 % of its actions are far" in told(with_first(selection, off_data=0.4))
    assert "farther from the recorded ones than" in told(with_first(selection, action_error=1.4))
    assert "still moved" in told(with_first(selection, course=(*[0.2] * 15, 0.4, 0.5, 0.6, 0.7, 0.9)))
    assert "50 % were: the estimate looks beyond" in told(replace(selection, cut=0.5))
    assert "less than the data" in told(replace(selection, data_value=2.0, data_interval=(1.5, 2.5)))
    assert "--execute" not in told(with_first(selection, chunk=8))
    assert "Of chunks 10 actions were judged" in told(with_first(selection, chunk=10))
    assert "flatter them" in told(replace(selection, trained_on=True))
    assert "nothing to rank" in told(replace(selection, policies=selection.policies[:1]))


def test_doubts_about_a_learned_world_are_told(selection: Selection) -> None:
    def told(found: Selection) -> str:
        return " ".join(one.text for one in verdict(found))

    learned = replace(with_first(selection, lost=0.2, chunk=10, gain=(0.1, 0.2)), estimate="model", fidelity=0.9)
    assert [one.tone for one in verdict(learned)] == ["good", "good", "fair"]
    assert "a rank correlation of 0.20" in told(replace(learned, fidelity=0.2))
    assert "all earned alike" in told(replace(learned, fidelity=float("nan")))
    assert "It earns 0.1 to 0.2 more than they did" in told(learned)
    assert "does not clearly earn more than they did (-0.1 to 0.2)" in told(with_first(learned, gain=(-0.1, 0.2)))
    poorer = told(replace(with_first(learned, gain=(-0.3, -0.1)), cut=0.5))
    assert "Stopped where they were cut, it earns 0.1 to 0.3 less than they did" in poorer
    assert "values are on the low side" in poorer
    assert "None of these may be worth trying" not in poorer
    assert "60 % of its played episodes came where the learned world is unknown" in told(with_first(learned, lost=0.6))


def test_values_that_prefer_what_the_data_never_did_are_told(selection: Selection) -> None:
    ladder = [
        replace(selection.policies[1], label=f"p{place}", value=0.9 - 0.1 * place, action_error=0.9 - 0.1 * place)
        for place in range(5)
    ]
    said = [one.text for one in verdict(replace(selection, policies=tuple(ladder)))]
    assert any("disagree" in one and "try p4" in one for one in said)
