"""The mazes on the command line: data drawn, a run trained on them, and how it fares."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import pytest
import torch
from command_line import Lapwing, error_line

from lapwing.agents.lapo import LapoAgent
from lapwing.batch import Obs
from lapwing.envs import make_world
from lapwing.run.checkpoint import find_checkpoint, load_acting, load_train_state
from lapwing.run.evaluate import episode_seeds

pytest.importorskip("mujoco", reason="the mazes need the extra [sim]")

SMALL = {"hidden": 16, "obs_feature_dim": 16, "steps": 4, "batch_size": 16, "eval_every": 4, "eval_samples": 16}


def test_a_run_on_a_maze_is_judged_in_it(lapwing: Lapwing, tmp_path: Path) -> None:
    data, run = tmp_path / "maze.hdf5", tmp_path / "run"
    said = lapwing("data sample", data, world="pointmaze-umaze", steps=700)
    assert said.code == 0
    assert "700 steps, mean reward of a step 0." in said.out
    with h5py.File(data) as file:
        assert set(file) == {
            "observations", "actions", "rewards", "terminals", "timeouts", "next_observations", "infos"
        }  # fmt: skip
        assert set(file["infos"]) == {"goal", "qpos", "qvel"}
        assert {len(file[name]) for name in file if name != "infos"} == {700}
        jumps = (file["next_observations"][:-1] != file["observations"][1:]).any(1)
        assert (file["timeouts"][:-1] >= jumps).all()
        assert file["timeouts"][-1]
        assert not file["terminals"][:].any()
    assert lapwing("train lapo", data, out=run, device="cpu", **SMALL).code == 0
    said = lapwing("eval", run, world="pointmaze-umaze", episodes=2, mode="pi", device="cpu")
    assert said.code == 0
    head, row = (line.split() for line in said.out.splitlines()[1:3])
    assert head[-7:] == ["score", "off", "data", "start", "value", "discounted", "return"]
    assert row[0] == "pi"
    [one] = json.loads((run / "eval" / "pointmaze-umaze-0.json").read_text())["modes"].values()
    assert one["figures"]["score"] == pytest.approx(100 * (one["return_mean"] - 23.85) / (161.86 - 23.85))
    assert 0 <= one["figures"]["off_data"] <= 1
    assert 0 <= one["figures"]["discounted_return"] <= one["return_mean"]
    assert one["figures"]["start_value"] == pytest.approx(_trained_start_value(run), rel=1e-4)
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "of the states it visits lie off the data" in page
    assert "D4RL&#x27;s score in pointmaze-umaze" in page


def _trained_start_value(run: Path) -> float:
    """By hand, with the critics that training left, which are not among the weights that act."""
    checkpoint = find_checkpoint(run, "best")
    agent, _, normalizer, _ = load_acting(checkpoint)
    agent.load_state_dict(load_train_state(checkpoint)["agent"])
    assert isinstance(agent, LapoAgent)
    starts = make_world("pointmaze-umaze", 2).reset(episode_seeds(0, 2)).state
    state = torch.from_numpy(normalizer.encode_state(starts))
    with torch.no_grad():
        values = agent.critic.q(state, agent.act(Obs({}, state), "pi").flatten(1))
    return float(torch.minimum(*values).mean())


def test_the_layout_can_be_chosen(lapwing: Lapwing, tmp_path: Path) -> None:
    arguments = {"world": "pointmaze-umaze", "episodes": 3, "quality": "expert"}
    assert lapwing("data sample", tmp_path / "flat.hdf5", format="flat", **arguments).code == 0
    with h5py.File(tmp_path / "flat.hdf5") as file:
        assert file["timeouts"][:].sum() == 3
        assert file["observations/joint"].shape[1] == 4


@pytest.mark.parametrize(
    ("world", "further", "message"),
    [
        (
            "pointmaze-umaze",
            {"quality": "human"},
            "quality 'human' is not there in world 'pointmaze-umaze'; choose noisy or expert",
        ),
        ("hopper", {}, "world 'hopper' has no scripted operator; choose another world, or recorded data"),
        ("toy", {"format": "d4rl", "size": 16, "episodes": 1}, "D4RL's layout has no room for images"),
    ],
)
def test_what_cannot_be_sampled(
    lapwing: Lapwing, tmp_path: Path, world: str, further: dict[str, object], message: str
) -> None:
    assert message in error_line(lapwing("data sample", tmp_path / "out.hdf5", world=world, **further))
    assert list(tmp_path.iterdir()) == []
