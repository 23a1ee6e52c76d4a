"""Each documented command of main_multimodal.py, and going on from a saved step."""

from __future__ import annotations

import csv
import json
import math
import shlex
from collections.abc import Callable
from pathlib import Path

import experiments
import h5py
import main_multimodal
import numpy as np
import pytest
import torch
from algos.algos_vae_multimodal import MultimodalLatent

PARTS = ("critic", "actor", "actor_vae", "obs_encoder")

DOCUMENTED = [
    "--hdf5_path data.hdf5 --device cuda --ExpID 0001 --batch_size 64 --max_timesteps 100000",
    "--hdf5_path data.hdf5 --device cuda --ExpID exp_001 --batch_size 64 --max_timesteps 50000 --eval_freq 1000 "
    "--save_freq 5000 --discount 0.99 --expectile 0.9 --kl_beta 1.0 --obs_feature_dim 256 --train_test_split 0.8",
    "--hdf5_path data.hdf5 --max_timesteps 1e6 --eval_freq 5e3 --save_freq 5e4 --action_dim 16 --joint_dim 16",
    "--hdf5_path data.hdf5 --batch_size 32 --expectile 0.95 --kl_beta 0.5 --tau 0.01",
    "--hdf5_path data.hdf5 --batch_size 32 --obs_feature_dim 128 --device cpu",
    "--hdf5_path data.hdf5 --load_model 100000 --ExpID 0002",
]


@pytest.fixture
def train(
    small_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> Callable[[str], tuple[int, str]]:
    """Run the script in this process on small images: exit code and what it said on stderr. No report is drawn."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(experiments, "write_report", lambda run: run / "report.html")

    def run(words: str) -> tuple[int, str]:
        capsys.readouterr()
        given = ["--hdf5_path", "robot_data.hdf5", "--device", "cpu", *shlex.split(words)]
        code = main_multimodal.main(given)
        return code, capsys.readouterr().err

    return run


FRESH = "--batch_size 4 --backbone small --weights none --eval_freq 2 --save_freq 2"


def table(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((folder / "progress.csv").read_text().splitlines()))


def networks(folder: Path, name: str) -> dict[str, torch.Tensor]:
    states = {part: torch.load(folder / f"{name}_{part}.pth", weights_only=True) for part in PARTS}
    rest = torch.load(folder / f"{name}_rest.pth", weights_only=True)
    return {f"{part}.{key}": x for part, one in {**states, "rest": rest["networks"]}.items() for key, x in one.items()}


@pytest.mark.parametrize("command", DOCUMENTED)
def test_every_documented_flag_is_known(command: str) -> None:
    flags = vars(main_multimodal._parser().parse_args(shlex.split(command)))
    words = shlex.split(command)
    for name, text in zip(words[::2], words[1::2], strict=True):
        value = flags[name.removeprefix("--")]
        assert float(value) == float(text) if isinstance(value, int | float) else str(value) == text


def test_the_documents_defaults() -> None:
    flags = vars(main_multimodal._parser().parse_args(["--hdf5_path", "data.hdf5"]))
    options, config = main_multimodal._settings(flags, None)
    params = main_multimodal._params(flags, options, config)
    documented = {
        "batch_size": 64, "max_timesteps": 1e6, "eval_freq": 5e3, "save_freq": 5e4, "discount": 0.99, "tau": 0.005,
        "expectile": 0.9, "kl_beta": 1.0, "obs_feature_dim": 256, "train_test_split": 0.8,
    }  # fmt: skip
    assert {name: params[name] for name in documented} == documented
    assert params["device"] == ("cuda" if torch.cuda.is_available() else "cpu")
    assert config.bc_coef == 0


def test_the_basic_command_writes_the_documented_files(run_script, tmp_path: Path) -> None:
    script = "create_dataset.py --create_sample --output sample_data.hdf5 --n_samples 120"
    assert run_script(*script.split()).returncode == 0
    command = (
        "main_multimodal.py --hdf5_path sample_data.hdf5 --device cuda --ExpID 0001 --batch_size 4 --max_timesteps 2"
    )
    result = run_script(*command.split())
    assert result.returncode == 0, result.stderr
    assert "no CUDA on this machine, computing on the CPU" in result.stderr
    assert "the image encoder starts from scratch" in result.stderr

    folder = tmp_path / "results" / "Exp0001" / "multimodal_robot"
    for name in ("model_best", "model_final"):
        assert all((folder / f"{name}_{part}.pth").exists() for part in PARTS)
    params = json.loads((folder / "params.json").read_text())
    assert (params["batch_size"], params["max_timesteps"], params["ExpID"]) == (4, 2, "0001")
    assert (folder / "run" / "report.html").exists()

    with h5py.File(tmp_path / "sample_data.hdf5") as file:
        observation = [file[f"observations/{key}"][3] for key in ("left_image", "right_image", "global_image", "joint")]
    policy = MultimodalLatent(device="cpu")
    policy.load("model_best", folder)
    assert policy.select_action(*observation).shape == (16,)

    again = run_script(*command.split())
    assert again.returncode == 2
    assert "Exp0001/multimodal_robot: already exists (saved steps 2); choose another --ExpID" in again.stderr


def test_progress_has_the_documented_columns_and_claims_no_return(train, tmp_path: Path) -> None:
    code, said = train(f"--ExpID 7 --max_timesteps 3 {FRESH}")
    assert code == 0, said
    folder = tmp_path / "results" / "Exp0007" / "multimodal_robot"
    rows = table(folder)
    assert [row["Training Steps"] for row in rows] == ["2", "3"]
    for row in rows:
        assert math.isnan(float(row["AverageReturn"]))
        assert math.isnan(float(row["StdReturn"]))
        assert float(row["TestActionErrorMean"]) > 0
        assert float(row["CriticLoss"]) > 0
    valid = json.loads((folder / "run" / "split.json").read_text())["valid"]
    earned = [float(index % 2 == 0) for index in valid]
    assert float(rows[0]["TestDataReturn"]) == pytest.approx(np.mean(earned))
    assert {path.name for path in folder.glob("model_*_actor.pth")} == {
        "model_2_actor.pth",
        "model_best_actor.pth",
        "model_final_actor.pth",
    }


def test_load_model_in_another_experiment_continues_bit_by_bit(train, tmp_path: Path) -> None:
    assert train(f"--ExpID 0001 --max_timesteps 4 --expectile 0.8 {FRESH}")[0] == 0
    code, said = train("--ExpID exp_002 --load_model 2 --max_timesteps 4")
    assert code == 0, said
    first, second = (tmp_path / "results" / name / "multimodal_robot" for name in ("Exp0001", "Expexp_002"))
    straight, resumed = networks(first, "model_final"), networks(second, "model_final")
    before = networks(first, "model_2")
    assert straight.keys() == resumed.keys()
    assert all(torch.equal(x, resumed[key]) for key, x in straight.items())
    assert any(not torch.equal(x, before[key]) for key, x in straight.items())
    columns = ("Training Steps", "CriticLoss", "TestActionError")
    rows = [[[row[name] for name in columns] for row in table(folder)] for folder in (first, second)]
    assert rows[0] == rows[1]
    params = json.loads((second / "params.json").read_text())
    assert (params["expectile"], params["save_freq"], params["load_model"]) == (0.8, 2, "2")


def test_load_model_goes_on_in_the_same_experiment(train, tmp_path: Path) -> None:
    assert train(f"--ExpID 1 --max_timesteps 2 {FRESH}")[0] == 0
    code, said = train("--ExpID 1 --load_model 2 --max_timesteps 4")
    assert code == 0, said
    folder = tmp_path / "results" / "Exp0001" / "multimodal_robot"
    assert [row["Training Steps"] for row in table(folder)] == ["2", "4"]
    final, saved = networks(folder, "model_final"), networks(folder, "model_4")
    assert all(torch.equal(x, saved[key]) for key, x in final.items())

    code, said = train("--ExpID 1 --load_model 2 --max_timesteps 4")
    assert code == 2
    assert "has gone on to step 4; load that, or give a new --ExpID to branch off at 2" in said


def test_a_step_that_cannot_be_loaded_is_explained_and_leaves_nothing(train, tmp_path: Path) -> None:
    code, said = train("--ExpID 3 --load_model 100")
    assert code == 2
    assert "no model of step 100 (there is no experiment yet)" in said
    assert train(f"--ExpID 1 --max_timesteps 2 {FRESH}")[0] == 0
    code, said = train("--ExpID 3 --load_model 100")
    assert "no model of step 100 (Exp0001 has saved steps 2)" in said
    code, said = train("--ExpID 3 --load_model 2 --batch_size 5")
    assert code == 2
    assert "cannot resume with options.batch_size 5, the run has 4" in said
    assert not (tmp_path / "results" / "Exp0003" / "multimodal_robot").exists()

    assert train("--ExpID 2 --load_model 2 --max_timesteps 3")[0] == 0
    code, said = train("--ExpID 3 --load_model 2 --max_timesteps 3")
    assert code == 2
    assert "step 2 is in results/Exp0001/multimodal_robot, results/Exp0002/multimodal_robot; say which" in said
    assert train("--ExpID 3 --load_model 2 --load_dir results/Exp0001/multimodal_robot --max_timesteps 3")[0] == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--action_dim 14", "'actions' has 16 axes, expected 14; set action_dim to 16"),
        ("--joint_dim 14", "'joint' has 16 axes, expected 14; set joint_dim to 16"),
        ("--batch_size 64", "fewer than the batch size 64"),
        ("--expectile 1.5", "expectile"),
        ("--train_test_split 0", "train_fraction"),
        ("--eval_freq 0", "eval_every is 0, expected at least 1"),
        ("--hdf5_path missing.hdf5", "missing.hdf5"),
    ],
)
def test_what_does_not_fit_is_one_line_and_leaves_nothing(train, tmp_path: Path, words: str, message: str) -> None:
    code, said = train(f"--backbone small --weights none --max_timesteps 2 {words}")
    assert code == 2
    lines = [line for line in said.splitlines() if line.startswith("main_multimodal: error:")]
    assert len(lines) == 1
    assert message in lines[0]
    assert not (tmp_path / "results").exists()


def test_an_interrupted_run_says_how_to_go_on(train, monkeypatch: pytest.MonkeyPatch) -> None:
    assert train(f"--ExpID 1 --max_timesteps 2 {FRESH}")[0] == 0

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(main_multimodal, "train", interrupted)
    code, said = train("--ExpID 1 --load_model 2")
    assert code == 130
    assert "go on with --ExpID 1 --load_model 2" in said
    code, said = train("--ExpID 2")
    assert code == 130
    assert "interrupted before anything was saved" in said
