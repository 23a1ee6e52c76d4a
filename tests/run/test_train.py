"""What a training run leaves behind, and what it refuses before it leaves anything."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import h5py
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lapwing.agent import Chunks, Metrics, RewardFacts, Sampling, Scaling
from lapwing.agents import ALGORITHMS, Algorithm
from lapwing.batch import Batch, Obs
from lapwing.errors import CheckpointError, ConfigError, DataError
from lapwing.nets.vision import VisionConfig
from lapwing.run.checkpoint import checkpoint_steps, config_from_json, linked_step, load_train_state
from lapwing.run.options import TrainOptions
from lapwing.spec import RobotSpec

Train = Callable[..., Path]


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "progress.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def parameters(run: Path) -> dict[str, Tensor]:
    return load_train_state(run / "checkpoints" / "last")["agent"]["networks"]


@pytest.mark.parametrize("algorithm", ["lapo", "bc"])
def test_a_run_leaves_all_that_it_promises(train_small: Train, algorithm: str) -> None:
    run = train_small("run", algorithm)
    assert {path.name for path in run.iterdir()} == {
        "config.json", "split.json", "data.json", "progress.csv", "held_out.json", "tensorboard", "checkpoints"
    }  # fmt: skip
    assert {path.name for path in (run / "checkpoints" / "last").iterdir()} == {
        "model.safetensors", "train_state.pt", "config.json", "spec.json", "stats.json"
    }  # fmt: skip
    assert list((run / "tensorboard").glob("events*"))
    split = json.loads((run / "split.json").read_text())
    assert sorted(split["train"] + split["valid"]) == list(range(6))
    assert len(split["valid"]) == 1
    assert {
        name: list(indices) for name, indices in load_train_state(run / "checkpoints/last")["split"].items()
    } == split


@pytest.mark.parametrize("algorithm", ["lapo", "bc"])
def test_the_agents_config_chooses_how_its_data_is_scaled(
    train_small: Train, small_config: Callable[..., Any], algorithm: str
) -> None:
    config = small_config(algorithm, state_scaling="mean-std", action_scaling="min-max")
    plain, ranged = train_small("plain", algorithm), train_small("ranged", algorithm, config=config)
    mean_std, min_max = (
        json.loads((run / "checkpoints/last/stats.json").read_text(encoding="utf-8")) for run in (plain, ranged)
    )
    assert mean_std["action_offset"] == mean_std["action_mean"]
    middle = (np.array(min_max["action_low"]) + min_max["action_high"]) / 2
    np.testing.assert_allclose(min_max["action_offset"], middle, rtol=1e-5)
    assert min_max["action_scale"] != min_max["action_std"]
    same = ("state_offset", "state_scale", "action_mean", "action_std", "action_low", "action_high")
    assert {name: min_max[name] for name in same} == {name: mean_std[name] for name in same}
    errors = [float(rows(run)[-1]["valid/action_error_mean"]) for run in (plain, ranged)]
    assert errors[0] == pytest.approx(errors[1], rel=1e-4)


def test_progress_has_a_row_each_interval_and_measures_when_due(train_small: Train) -> None:
    table = rows(train_small("run", steps=7))
    assert [row["step"] for row in table] == ["2", "3", "4", "6", "7"]
    measured = [row["step"] for row in table if row["valid/action_error"]]
    assert measured == ["3", "6", "7"]
    assert all(math.isfinite(float(row["critic_loss"])) for row in table)
    assert all(0 <= float(row["waiting_share"]) <= 1 and float(row["steps_per_s"]) > 0 for row in table)
    assert all(float(row["memory_gb"]) > 0 for row in table)


def test_the_written_config_is_the_resolved_one(train_small: Train, small_config: Callable[..., Any]) -> None:
    vision = small_config("bc").vision
    config = small_config("bc", vision=type(vision)(backbone="small", weights="auto", image_feature_dim=16))
    written = json.loads((train_small("run", "bc", config=config) / "config.json").read_text())
    assert written["config"]["vision"]["weights"] == "none"
    assert written["resolved_from"] == {"vision": {"weights": "auto", "norm": "auto"}}
    assert written["options"]["batch_size"] == 8
    assert (written["device"], written["precision"], written["best_metric"]) == ("cpu", "fp32", "valid/action_error")


def test_the_summary_of_the_data_is_written(train_small: Train, tiny_flat: Path) -> None:
    summary = json.loads((train_small("run", "bc", steps=1) / "data.json").read_text())
    assert summary["path"] == str(tiny_flat)
    assert (summary["episodes"], summary["steps"], summary["success_rate"]) == (6, 39, pytest.approx(4 / 6))
    assert summary["lengths"] == [4, 5, 6, 7, 8, 9]


def test_training_learns(train_small: Train, small_config: Callable[..., Any]) -> None:
    config = small_config("bc", lr=1e-2)
    table = rows(train_small("run", "bc", config=config, steps=120, log_every=20, eval_every=120))
    assert float(table[-1]["bc_loss"]) < 0.8 * float(table[0]["bc_loss"])


def test_the_same_seed_gives_the_same_parameters(train_small: Train) -> None:
    first, same, other = (parameters(train_small(name, seed=seed)) for name, seed in (("a", 1), ("b", 1), ("c", 2)))
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_measuring_and_saving_leave_the_training_alone(train_small: Train) -> None:
    often, seldom = (parameters(train_small(f"every-{n}", steps=8, eval_every=n, log_every=n)) for n in (1, 8))
    assert all(torch.equal(often[name], seldom[name]) for name in often)


@pytest.mark.parametrize(
    ("algorithm", "metric"), [("lapo", "valid/action_error_positive"), ("bc", "valid/action_error")]
)
def test_best_is_the_step_with_the_lowest_declared_metric(train_small: Train, algorithm: str, metric: str) -> None:
    run = train_small("run", algorithm, steps=8, eval_every=1)
    values = {int(row["step"]): float(row[metric]) for row in rows(run)}
    best = min(values, key=lambda step: values[step] if math.isfinite(values[step]) else math.inf)
    assert linked_step(run, "best") == best
    assert json.loads((run / "held_out.json").read_text())["step"] == best


def test_another_metric_can_decide(train_small: Train) -> None:
    run = train_small("run", "lapo", steps=6, eval_every=1, best_metric="valid/action_error_z0")
    values = {int(row["step"]): float(row["valid/action_error_z0"]) for row in rows(run)}
    assert linked_step(run, "best") == min(values, key=lambda step: values[step])


def test_a_metric_that_is_not_measured_is_refused_at_once(train_small: Train, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="best_metric 'valid/luck' is not measured; choose one of last, valid/action"):
        train_small("run", best_metric="valid/luck")
    assert not (tmp_path / "run").exists()


def test_the_last_is_best_where_asked_and_where_learning_rates_fall(
    train_small: Train, small_config: Callable[..., Any]
) -> None:
    fallen = small_config("lapo", decay_steps=6)
    for run in (
        train_small("asked", "bc", steps=6, eval_every=2, best_metric="last"),
        train_small("fallen", config=fallen, steps=6, eval_every=2),
    ):
        assert linked_step(run, "best") == linked_step(run, "last") == 6
        assert json.loads((run / "held_out.json").read_text())["step"] == 6
    with pytest.raises(ConfigError, match="decay_steps is 6 and --steps 8: the learning rates are 0 from step 6 on"):
        train_small("longer", config=fallen, steps=8)
    with pytest.raises(ConfigError, match="patience is 2, and `best` is the last checkpoint"):
        train_small("patient", config=fallen, steps=6, patience=2)


def test_only_periodic_and_linked_checkpoints_stay(train_small: Train) -> None:
    run = train_small("run", "bc", steps=9, eval_every=2, save_every=4)
    assert linked_step(run, "last") == 9
    assert set(checkpoint_steps(run)) == {4, 8, 9, linked_step(run, "best")}


def test_without_held_out_episodes_best_is_last(
    train_small: Train, make_recording: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from lapwing.data.formats.flat import FlatWriter

    recording = make_recording([(20, True, False)])
    with FlatWriter(tmp_path / "one.hdf5", recording.spec) as writer:
        writer.add(recording.episodes[0])
    run = train_small("run", data=tmp_path / "one.hdf5")
    assert linked_step(run, "best") == linked_step(run, "last") == 6
    assert "no episode is held out" in capsys.readouterr().err


def test_an_existing_run_is_not_touched(train_small: Train) -> None:
    run = train_small("run", "bc", steps=1)
    before = sorted((path, path.stat().st_mtime_ns) for path in run.rglob("*"))
    with pytest.raises(CheckpointError, match=r"run: already exists; go on with --resume, or choose another --out"):
        train_small("run", "bc")
    assert sorted((path, path.stat().st_mtime_ns) for path in run.rglob("*")) == before


def test_an_empty_directory_is_taken(train_small: Train, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    assert linked_step(train_small("run", "bc", steps=1), "last") == 1


def test_a_place_that_cannot_hold_a_run_is_refused_first(train_small: Train, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="is not a directory one can write to"):
        train_small("file/run", data=tmp_path / "missing.hdf5")
    with pytest.raises(CheckpointError, match="is a file, expected a directory to make"):
        train_small("file", data=tmp_path / "missing.hdf5")


@pytest.mark.parametrize(
    ("key", "field"), [("observations/joint", "state"), ("actions", "action"), ("rewards", "reward")]
)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_numbers_that_are_none_are_refused(
    train_small: Train, tiny_flat: Path, tmp_path: Path, key: str, field: str, value: float
) -> None:
    with h5py.File(tiny_flat, "r+") as file:
        file[key][7] = value  # step 3 of episode 1
    with pytest.raises(DataError, match=rf"tiny.hdf5: {field} of episode 1 has .* at step 3, expected finite numbers"):
        train_small("run")
    assert {path.name for path in tmp_path.iterdir()} == {"tiny.hdf5"}


def test_rewards_that_are_all_zero_are_refused_by_lapo_alone(train_small: Train, tiny_flat: Path) -> None:
    with h5py.File(tiny_flat, "r+") as file:
        file["rewards"][:] = 0
    with pytest.raises(DataError, match="'rewards' are all 0 in the training split"):
        train_small("lapo")
    assert linked_step(train_small("bc", "bc", steps=1), "last") == 1


def test_missing_rewards_are_refused_by_lapo_alone(train_small: Train, tiny_flat: Path) -> None:
    with h5py.File(tiny_flat, "r+") as file:
        del file["rewards"]
    with pytest.raises(DataError, match="no rewards"):
        train_small("lapo")
    assert linked_step(train_small("bc", "bc", steps=1), "last") == 1


def test_less_data_than_a_batch_is_refused(train_small: Train, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="fewer than the batch size 64"):
        train_small("run", batch_size=64)
    assert not (tmp_path / "run").exists()


def test_an_epoch_is_a_start_from_every_training_episode() -> None:
    """The original's 2000 epochs of 40 training episodes in batches of 8 are 10,000 updates."""
    options = TrainOptions(epochs=2000, batch_size=8).in_steps(40)
    assert (options.steps, options.epochs) == (10_000, 0)
    assert TrainOptions(epochs=3, batch_size=8).in_steps(9).steps == 6
    assert TrainOptions(steps=7).in_steps(40) == TrainOptions(steps=7)
    with pytest.raises(ConfigError, match="steps is 3 and epochs 2, expected one of them"):
        TrainOptions(steps=3, epochs=2)
    with pytest.raises(ConfigError, match="epochs is -2, expected at least 1"):
        TrainOptions(epochs=-2)


def test_a_run_in_epochs_trains_and_resumes_in_steps(train_small: Train, tmp_path: Path) -> None:
    run = train_small("run", "bc", steps=0, epochs=2, batch_size=2)
    train_episodes = len(json.loads((run / "split.json").read_text())["train"])
    steps = 2 * -(-train_episodes // 2)
    assert linked_step(run, "last") == steps
    again = train_small("run", "bc", steps=steps + 2, batch_size=2, resume=True)
    assert linked_step(again, "last") == steps + 2


@pytest.mark.parametrize("name", ["steps", "batch_size", "eval_every", "save_every", "log_every", "eval_samples"])
def test_options_out_of_range_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name} is 0, expected at least 1"):
        TrainOptions(**{"steps": 1, name: 0})


def test_an_unknown_algorithm_is_refused(train_small: Train, tiny_flat: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="algorithm 'dqn' is unknown; choose one of lapo, act, iql, td3bc, bc, sac"):
        train_small("run", "dqn", config=object())


@dataclass(frozen=True)
class ScriptedConfig:
    """What each update says."""

    scaling: ClassVar[Scaling] = Scaling()
    q_out_of_range: tuple[float, ...]
    vision: VisionConfig = field(default_factory=VisionConfig)


class Scripted:
    """An agent that learns nothing and reports what it is told to."""

    modes = ("still",)

    def __init__(self, config: ScriptedConfig, spec: RobotSpec, facts: RewardFacts) -> None:
        self.config = config
        self.acting = nn.Linear(1, spec.action_dim)
        self.updates = 0

    @property
    def sampling(self) -> Sampling:
        return Chunks(1)

    def prepare(self, device: torch.device, bf16: bool, compiled: bool) -> None:
        pass

    def update(self, batch: Batch) -> Metrics:
        self.updates += 1
        said = torch.tensor(self.config.q_out_of_range[self.updates - 1])
        return {"q_out_of_range": said, "q_min": torch.tensor(-3.0), "q_max": torch.tensor(7.0)}

    def act(self, obs: Obs, mode: str | None = None) -> Tensor:
        return self.acting.bias.detach().expand(len(obs.state), 1, -1)

    def state_dict(self) -> dict[str, Any]:
        return {"networks": self.acting.state_dict(), "updates": self.updates}

    def load_state_dict(self, state: Any) -> None:
        self.acting.load_state_dict(state["networks"])
        self.updates = state["updates"]


@pytest.fixture
def train_scripted(train_small: Train, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    monkeypatch.setitem(ALGORITHMS, "scripted", Algorithm(ScriptedConfig, Scripted))

    def run(said: tuple[float, ...]) -> Path:
        options = {"steps": len(said), "log_every": 1, "eval_every": 100}
        return train_small("run", "scripted", config=ScriptedConfig(said), **options)

    return run


def test_q_outside_the_returns_is_told_each_time_it_happens(
    train_scripted: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    train_scripted((1.0, 0.0, 0.5, 0.5, 0.09, 0.25))
    warnings = [line for line in capsys.readouterr().err.splitlines() if "warning: Q left the range" in line]
    assert len(warnings) == 2  # the first step shows the initial weights
    assert "step 3: warning: Q left the range of values for 50% of the samples (-3 to 7; returns " in warnings[0]
    assert "step 6: warning: Q left the range of values for 25% of the samples" in warnings[1]
    assert warnings[1].endswith("; usual early on, look again if it stays")


def test_a_run_that_diverges_stops(train_scripted: Callable[..., Path]) -> None:
    with pytest.raises(
        ConfigError, match="q_out_of_range is nan at step 2, expected a finite number: training diverged"
    ):
        train_scripted((0.0, math.nan, 0.0))


def test_the_options_survive_json() -> None:
    options = TrainOptions(steps=3, image_size=16, threads=2)
    assert config_from_json(TrainOptions, json.loads(json.dumps(asdict(options)))) == options


def test_a_link_to_nothing_and_the_current_directory_are_refused(
    train_small: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "link").symlink_to("nowhere")
    with pytest.raises(CheckpointError, match="link: is a link to nothing"):
        train_small("link")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(CheckpointError, match="is the current directory"):
        train_small("here")
    assert not [path for path in tmp_path.rglob("*") if path.name.startswith(".")]


def test_the_number_that_is_none_is_named(train_small: Train, tiny_flat: Path) -> None:
    with h5py.File(tiny_flat, "r+") as file:
        file["actions"][7, 1] = np.inf
    with pytest.raises(DataError, match="action of episode 1 has inf at step 3"):
        train_small("run")


def test_what_the_reader_noted_is_said_in_training(
    train_small: Train, tiny_flat: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with h5py.File(tiny_flat, "r+") as file:
        file["observations/depth"] = file["observations/left_image"][..., 0]
    train_small("run", "bc", steps=1)
    assert "note: 'observations/depth' is neither a camera" in capsys.readouterr().err
