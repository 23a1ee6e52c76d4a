"""Each documented command of main_d4rl.py, briefly, and the original's classes."""

from __future__ import annotations

import csv
import json
import shlex
from collections.abc import Callable
from pathlib import Path

import experiments
import h5py
import main_d4rl
import numpy as np
import pytest
import torch
from algos.algos_vae import Latent
from algos.utils import ReplayBuffer
from d4rl_data import DIMENSIONS, _d4rl_names, find_data, world_of

from lapwing.agent import Scaling
from lapwing.errors import ConfigError, DataError
from lapwing.run.options import TrainOptions
from lapwing.run.training_data import open_training_data

# Those of the authors' README, and one with every other flag.
DOCUMENTED = [
    "--env_name maze2d-umaze-v1 --kl_beta 0.3 --plot",
    "--env_name antmaze-umaze-diverse-v1 --doubleq_min 0.7 --plot",
    "--env_name hopper-random-v2",
    "--env_name kitchen-complete-v0",
    "--env_name door-human-v1 --ExpID 7 --log_dir logs --load_model 0 --save_model False --seed 456 --vae_lr 1e-4 "
    "--actor_lr 1e-4 --critic_lr 3e-4 --tau 0.01 --discount 0.98 --expectile 0.8 --max_latent_action 1 --no_noise "
    "--device cpu",
]
BRIEF = "--max_timesteps 2 --eval_freq 1 --save_freq 1 --batch_size 4 --device cpu"


def write_data(path: Path, state_dim: int, action_dim: int, sign: float = 1.0) -> Path:
    """Forty steps in four episodes, every other one terminated."""
    rng = np.random.default_rng(0)
    path.parent.mkdir(parents=True, exist_ok=True)
    last = np.arange(40) % 10 == 9
    with h5py.File(path, "w") as file:
        file["observations"] = rng.normal(size=(40, state_dim)).astype(np.float32)
        file["actions"] = rng.uniform(-1, 1, (40, action_dim)).astype(np.float32)
        file["rewards"] = sign * rng.uniform(0.1, 1, 40).astype(np.float32)
        file["terminals"] = last & (np.arange(40) // 10 % 2 == 0)
        file["timeouts"] = last & (np.arange(40) // 10 % 2 == 1)
    return path


@pytest.fixture
def train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> Callable[[str], tuple[int, str]]:
    """Run the script in this process in a folder of its own, without worlds or a report: exit code and stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("D4RL_DATASET_DIR", str(tmp_path / "datasets"))
    monkeypatch.setattr(experiments, "write_report", lambda run: run / "report.html")
    monkeypatch.setattr(main_d4rl, "world_of", lambda name: None)

    def run(words: str) -> tuple[int, str]:
        capsys.readouterr()
        code = main_d4rl.main(shlex.split(words))
        return code, capsys.readouterr().err

    return run


def rows(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((folder / "progress.csv").read_text().splitlines()))


@pytest.mark.parametrize("command", DOCUMENTED)
def test_every_documented_command_runs_on_data_on_disk(train, tmp_path, command):
    words = shlex.split(command)
    name = words[words.index("--env_name") + 1]
    write_data(tmp_path / "datasets" / f"{name}.hdf5", *DIMENSIONS[name.partition("-")[0]])
    code, said = train(f"{command} {BRIEF}")
    assert code == 0, said
    number = "0007" if "--ExpID" in words else "0000"
    folder = tmp_path / ("logs" if "--log_dir" in words else "results") / f"Exp{number}" / name
    assert [row["Training Steps"] for row in rows(folder)] == ["1", "2"]
    assert {row["NormReturn"] for row in rows(folder)} == {"nan"}
    assert (folder / "model_2_actor_vae.pth").exists()
    assert (folder / "model_1_critic.pth").exists() == ("--save_model" not in words)
    config = json.loads((folder / "run" / "config.json").read_text())
    assert config["options"]["train_fraction"] == 1.0
    assert config["config"]["scale_reward"] == (not name.startswith("antmaze"))
    for flag, field in main_d4rl.CONFIG.items():
        if f"--{flag}" in words:
            assert config["config"][field] == float(words[words.index(f"--{flag}") + 1])


def test_a_run_on_scaled_rewards_knows_its_file(train, tmp_path):
    state_dim, action_dim = DIMENSIONS["antmaze"]
    data = write_data(tmp_path / "ant.hdf5", state_dim, action_dim)
    assert train(f"--env_name antmaze-umaze-v2 --dataset {data} {BRIEF}")[0] == 0
    config = json.loads((tmp_path / "results/Exp0000/antmaze-umaze-v2/run/config.json").read_text())
    plain = open_training_data(data, TrainOptions(steps=1, train_fraction=1.0), Scaling(), False)
    assert config["data"] == plain.fingerprint()
    assert config["reward_facts"]["reward"][1] == pytest.approx(100 * plain.reward_facts(0.99).reward[1])


def test_the_originals_defaults():
    flags = vars(main_d4rl._parser().parse_args([]))
    defaults = {
        "ExpID": 0, "env_name": "maze2d-large-v1", "seed": 123, "eval_freq": 5000, "save_freq": 500_000,
        "max_timesteps": 1_000_000, "batch_size": 512, "vae_lr": 2e-4, "actor_lr": 2e-4, "critic_lr": 2e-4,
        "tau": 0.005, "discount": 0.99, "expectile": 0.9, "kl_beta": 1.0, "max_latent_action": 2.0, "doubleq_min": 1.0,
        "device": "cpu", "save_model": True, "no_noise": False, "plot": False,
    }  # fmt: skip
    assert {name: flags[name] for name in defaults} == defaults
    _, config = main_d4rl._settings(flags)
    assert (config.max_latent, config.critic_layer_norm, config.value_bounds) == (2.0, False, "geometric")


def test_a_run_goes_on_from_a_saved_step_and_is_never_written_over(train, tmp_path):
    write_data(tmp_path / "a.hdf5", 11, 3)
    command = f"--env_name hopper-medium-v2 --dataset a.hdf5 {BRIEF}"
    assert train(command)[0] == 0
    code, said = train(command)
    assert (code, "already exists (saved steps 1, 2)" in said) == (2, True)
    code, said = train(f"{command} --load_model 2 --max_timesteps 3")
    assert code == 0, said
    folder = tmp_path / "results" / "Exp0000" / "hopper-medium-v2"
    assert [row["Training Steps"] for row in rows(folder)] == ["1", "2", "3"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            "--env_name maze2d-umaze-v1",
            "no data set 'maze2d-umaze-v1'; put it there as maze2d-umaze-v1.hdf5 or maze2d-umaze-sparse-v1.hdf5, or "
            "give --dataset FILE; `lapwing data sample",
        ),
        ("--env_name hopper-medium-v2", "put it there as hopper-medium-v2.hdf5 or hopper_medium-v2.hdf5"),
        ("--env_name maze2d-umaze-v1 --dataset a.hdf5", "11 state and 3 action axes, expected 4 and 2 as maze2d-umaze"),
        ("--env_name hopper-medium-v2 --dataset b.hdf5", "the largest reward is -0.1"),
    ],
)
def test_what_is_wrong_is_one_clear_line(train, tmp_path, words, message):
    write_data(tmp_path / "a.hdf5", 11, 3)
    write_data(tmp_path / "b.hdf5", 11, 3, sign=-1.0)
    code, said = train(f"{words} {BRIEF}")
    (line,) = [line for line in said.splitlines() if line.startswith("main_d4rl: error:")]
    assert code == 2
    assert message in line
    assert not (tmp_path / "results").exists()


def test_d4rls_own_file_names(tmp_path):
    assert _d4rl_names("antmaze-large-diverse-v2") == [
        "Ant_maze_hardest-maze_noisy_multistart_True_multigoal_True_sparse_fixed.hdf5"
    ]
    assert _d4rl_names("kitchen-mixed-v0") == ["kitchen_microwave_kettle_bottomburner_light-v0.hdf5"]
    (tmp_path / "halfcheetah_medium_replay-v2.hdf5").touch()
    found = find_data("halfcheetah-medium-replay-v2", tmp_path)
    assert found.name == "halfcheetah_medium_replay-v2.hdf5"
    assert (world_of("maze2d-large-v1"), world_of("maze2d-umaze-dense-v1"), world_of("pen-human-v1")) == (
        "pointmaze-large",
        None,
        None,
    )


@pytest.fixture
def data() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    state = rng.normal(2, 3, (31, 4)).astype(np.float32)
    return {
        "observations": state[:-1],
        "next_observations": state[1:],
        "actions": rng.uniform(-1, 1, (30, 2)).astype(np.float32),
        "rewards": rng.uniform(0, 1, 30).astype(np.float32),
        "terminals": np.arange(30) == 29,
    }


def test_the_originals_classes(tmp_path, data):
    buffer = ReplayBuffer(4, 2, "cpu", max_size=30)
    buffer.load(data)
    assert buffer.size == 30
    state, action, following, reward, not_done = buffer.sample(16)
    assert [tuple(x.shape) for x in (state, action, following, reward, not_done)] == [
        (16, 4), (16, 2), (16, 4), (16, 1), (16, 1),
    ]  # fmt: skip
    assert set(not_done.flatten().tolist()) <= {0.0, 1.0}
    torch.manual_seed(0)
    policy = Latent(4, 2, 4, 1.0, 0.0, 100.0, replay_buffer=buffer, device="cpu")
    assert (policy.agent.value_low, policy.agent.value_high) == pytest.approx((0.0, 100.0))
    assert policy.config.expectile == 0.8
    policy.train(iterations=2, batch_size=8)
    before = policy.select_action(data["observations"][0])
    policy.save("model_2", tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        f"model_2_{part}.pth" for part in ("actor", "actor_vae", "critic", "rest")
    ]
    other = Latent(4, 2, 4, 1.0, 0.0, 100.0, replay_buffer=buffer, device="cpu")
    other.load("model_2", tmp_path)
    assert other.agent.updates == policy.agent.updates == 2
    assert np.array_equal(other.select_action(data["observations"][0]), before)


def test_a_buffer_names_what_does_not_fit(data):
    with pytest.raises(DataError, match="data: 'rewards' has 29 rows, expected 30"):
        ReplayBuffer(4, 2).load({**data, "rewards": data["rewards"][1:]})
    with pytest.raises(DataError, match="data: no 'terminals'"):
        ReplayBuffer(4, 2).load({key: values for key, values in data.items() if key != "terminals"})
    with pytest.raises(DataError, match="'actions' has 2 axes, expected 3; set action_dim to 2"):
        ReplayBuffer(4, 3).load(data)
    with pytest.raises(ConfigError, match="replay buffer: empty"):
        _ = ReplayBuffer(4, 2).size
