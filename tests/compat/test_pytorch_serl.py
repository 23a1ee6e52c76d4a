"""Each command of the document on PyTorch SERL, as it is printed there but for the number of steps."""

from __future__ import annotations

import errno
import json
import runpy
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import COMPAT
from pytorch_serl import train_classifier, train_hybrid, train_offline
from serl_transitions import SIZE, labelled, transitions, write

import lapwing
from lapwing.run.classifier import SuccessClassifier

CLASSIFIER = """
    --success_dir ./data/success \
    --failure_dir ./data/failure \
    --image_keys image \
    --output_dir ./classifier_ckpt \
    --batch_size 64 \
    --num_epochs 150
"""
OFFLINE = """
    --demo_paths ./data/demos.pkl \
    --image_keys image \
    --setup_mode single-arm-fixed-gripper \
    --batch_size 256 \
    --max_steps 50000 \
    --save_dir ./offline_ckpt
"""
HYBRID = """
    --demo_paths ./data/demos.pkl \
    --image_keys image \
    --setup_mode single-arm-learned-gripper \
    --max_steps 100000 \
    --batch_size 256 \
    --save_dir ./hybrid_ckpt
"""
SCRIPTS = {"train_classifier": train_classifier, "train_offline": train_offline, "train_hybrid": train_hybrid}
FEW = "--batch_size 4 --max_steps 2 --backbone small"
IN_STEP = f"{FEW} --actors 0 --training_starts 4 --random_steps 2"
DEMOS = "--demo_paths ./data/demos.pkl --save_dir ./out"


@pytest.fixture
def as_script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], int]:
    """Run a file of compat/pytorch_serl/ as `python FILE WORDS` does: its exit code."""
    monkeypatch.chdir(tmp_path)

    def run(script: str, words: str) -> int:
        monkeypatch.setattr(sys, "argv", [f"{script}.py", *shlex.split(words), "--device", "cpu"])
        with pytest.raises(SystemExit) as left:
            runpy.run_path(str(COMPAT / "pytorch_serl" / f"{script}.py"), run_name="__main__")
        return left.value.code

    return run


@pytest.fixture
def train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> Callable[[str, str], tuple[int, str]]:
    """Run a script in this process: exit code and what it said on stderr. No report is drawn."""
    monkeypatch.chdir(tmp_path)
    for module in (train_offline, train_hybrid):
        monkeypatch.setattr(module, "write_report", lambda run: run / "report.html")

    def run(script: str, words: str) -> tuple[int, str]:
        capsys.readouterr()
        code = SCRIPTS[script].main([*shlex.split(words), "--device", "cpu"])
        return code, capsys.readouterr().err

    return run


@pytest.fixture
def classifier_data(tmp_path: Path) -> None:
    made = transitions("toy-single-fixed", 12)
    for part in range(3):
        write(tmp_path / f"data/success/{part}.pkl", labelled(made, True)[part::3])
        write(tmp_path / f"data/failure/{part}.pkl", labelled(made, False)[part::30])


def config_of(run: Path) -> dict:
    return json.loads((run / "config.json").read_text())


def observation(size: int = SIZE, state: int = 0) -> dict:
    return {"images": {"image": np.zeros((size, size, 3), np.uint8)}, "state": np.zeros(state, np.float32)}


def test_the_classifier_command(as_script, classifier_data, tmp_path: Path) -> None:
    assert as_script("train_classifier", f"{CLASSIFIER} --batch_size 8 --num_epochs 1 --backbone small") == 0
    probability, decision = SuccessClassifier.load(tmp_path / "classifier_ckpt").predict_success(observation())
    assert 0 < probability < 1
    assert isinstance(decision, bool)
    assert (tmp_path / "classifier_ckpt/report.html").exists()


def test_the_offline_command(as_script, tmp_path: Path) -> None:
    write(tmp_path / "data/demos.pkl", transitions("toy-single-fixed", 3))
    assert as_script("train_offline", f"{OFFLINE} --batch_size 8 --max_steps 2") == 0
    policy = lapwing.load_policy(tmp_path / "offline_ckpt")
    assert policy.spec.camera_names == ("image",)
    assert policy(observation(state=policy.spec.state_dim)).shape == (6,)
    config = config_of(tmp_path / "offline_ckpt")["config"]
    documented = {"lr": 3e-4, "discount": 0.95, "tau": 0.005, "critics": 2, "cta_ratio": 2, "target_entropy": None}
    assert {name: config[name] for name in documented} == documented
    assert config["vision"]["backbone"] == "resnet10"
    assert config["imitation"] > 0  # without it nothing is learnt from demonstrations alone


def test_the_hybrid_command_with_an_actor_beside(run_script, tmp_path: Path) -> None:
    write(tmp_path / "data/demos.pkl", transitions("toy-single-learned", 3, state=False))
    few = "--batch_size 8 --max_steps 2 --training_starts 20 --backbone small"
    result = run_script("pytorch_serl/train_hybrid.py", *shlex.split(f"{HYBRID} {few}"))
    assert result.returncode == 0, result.stderr
    action = lapwing.load_policy(tmp_path / "hybrid_ckpt")(observation())
    assert action.shape == (7,)
    assert action[6] in (-1, 0, 1)
    counts = json.loads((tmp_path / "hybrid_ckpt/buffers/counts.json").read_text())
    assert counts["env_steps"] >= 20


def test_every_flag_of_the_document_has_its_default() -> None:
    flags = vars(train_classifier._parser().parse_args(shlex.split(CLASSIFIER)))
    usual = vars(train_classifier._parser().parse_args(["--success_dir", "x", "--failure_dir", "y"]))
    assert {name for name, value in flags.items() if value != usual[name]} == {"success_dir", "failure_dir"}
    for module, command in ((train_offline, OFFLINE), (train_hybrid, HYBRID)):
        flags = vars(module._parser().parse_args(shlex.split(command)))
        usual = vars(module._parser().parse_args(["--demo_paths", "data/demos.pkl"]))
        assert {name for name, value in flags.items() if value != usual[name]} <= {"setup_mode"}
    assert (usual["training_starts"], usual["random_steps"], usual["capacity"]) == (1000, 1000, 200_000)


@pytest.mark.parametrize(
    ("mode", "world", "axes"),
    [
        ("single-arm-fixed-gripper", "toy-single-fixed", 6),
        ("single-arm-learned-gripper", "toy-single-learned", 7),
        ("dual-arm-fixed-gripper", "toy-dual-fixed", 12),
        ("dual-arm-learned-gripper", "toy-dual-learned", 14),
    ],
)
def test_each_mode_offline_and_in_its_own_world(train, tmp_path: Path, mode: str, world: str, axes: int) -> None:
    write(tmp_path / "data/demos.pkl", transitions(world, 4))
    code, said = train("train_offline", f"{DEMOS} {FEW} --setup_mode {mode} --save_dir offline")
    assert code == 0, said
    code, said = train("train_hybrid", f"{DEMOS} {IN_STEP} --setup_mode {mode}")
    assert code == 0, said
    assert config_of(tmp_path / "out")["world"]["name"] == world
    for run in ("offline", "out"):
        policy = lapwing.load_policy(tmp_path / run)
        assert policy(observation(state=policy.spec.state_dim)).shape == (axes,)


def test_a_world_of_ones_own(train, tmp_path: Path) -> None:
    write(tmp_path / "data/demos.pkl", transitions("toy-single-fixed", 4, key="global"))
    source = "from lapwing import envs\nfrom lapwing.env import Single\n\n\ndef make():\n"
    source += f"    return Single(envs.make_world('toy-single-fixed', 1, {SIZE}))\n"
    (tmp_path / "own_robot.py").write_text(source)
    code, said = train("train_hybrid", f"{DEMOS} {IN_STEP} --image_keys global --env own_robot:make")
    assert code == 0, said
    assert config_of(tmp_path / "out")["world"]["name"] == "own_robot:make"


def test_several_files_and_folders_of_demonstrations(train, tmp_path: Path) -> None:
    made = transitions("toy-single-fixed", 4)
    ends = [index + 1 for index, one in enumerate(made) if one["dones"]]
    write(tmp_path / "a/demos.pkl", made[: ends[0]])
    write(tmp_path / "b/demos.pkl", made[ends[0] : ends[1]])
    write(tmp_path / "b/more.pkl", made[ends[1] :])
    code, said = train("train_offline", f"--demo_paths a/demos.pkl b --save_dir out {FEW}")
    assert code == 0, said
    told = json.loads((tmp_path / "out/data.json").read_text())
    assert (told["episodes"], told["steps"]) == (4, len(made))


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        ("missing.pkl data/demos.pkl", "missing.pkl: found nothing, expected a *.pkl or *.npz file of transitions"),
        ("data/demos.pkl notes.txt", "notes.txt: found a file of another kind, expected a *.pkl or *.npz file"),
        ("data/demos.pkl spoilt.pkl", "error: spoilt.pkl: 'rewards' of transition 0 is nan"),
    ],
)
def test_each_of_several_paths_must_do(train, tmp_path: Path, paths: str, message: str) -> None:
    made = transitions("toy-single-fixed", 4)
    write(tmp_path / "data/demos.pkl", made)
    write(tmp_path / "spoilt.pkl", spoil(made, rewards=float("nan")))
    (tmp_path / "notes.txt").write_text("good ones\n")
    code, said = train("train_offline", f"--demo_paths {paths} --save_dir out {FEW}")
    assert code == 2
    assert message in said
    assert not (tmp_path / "out").exists()


def test_a_number_of_epochs_out_of_range_names_its_own_flag(train, classifier_data) -> None:
    code, said = train("train_classifier", f"{CLASSIFIER} --num_epochs 0")
    assert code == 2
    assert "give --num_epochs N" in said


def test_resuming_goes_on(train, tmp_path: Path) -> None:
    write(tmp_path / "data/demos.pkl", transitions("toy-single-fixed", 4))
    for script, words in (("train_offline", FEW), ("train_hybrid", IN_STEP)):
        first = f"{DEMOS} --save_dir {script} {words}"
        assert train(script, first)[0] == 0
        code, said = train(script, first)
        assert code == 2
        assert f"{script}: already exists; go on with --resume, or choose another --save_dir" in said
        code, said = train(script, f"{first} --max_steps 4 --resume")
        assert code == 0, said
        assert (tmp_path / script / "checkpoints/last").readlink() == Path("step-00000004")


def spoil(made: list[dict], **values) -> list[dict]:
    return [made[0] | values, *made[1:]]


@pytest.mark.parametrize(
    ("script", "words", "made", "message"),
    [
        ("train_offline", "--image_keys wrist", {}, "no image key 'wrist' in 'observations', found"),
        ("train_offline", "", {"rewards": float("nan")}, "'rewards' of transition 0 is nan"),
        ("train_offline", "", {"actions": np.zeros(5, np.float32)}, "'actions' of transition 1 has shape [6]"),
        ("train_offline", "", {"note": Path("x")}, "Path"),
        ("train_offline", "--demo_paths missing.pkl", {}, "missing.pkl"),
        ("train_hybrid", "--env nowhere:make", {}, "env 'nowhere:make': cannot be made (ModuleNotFoundError"),
        ("train_hybrid", "--env json:JSONDecoder", {}, "a JSONDecoder without 'spec', expected a lapwing.env.Env"),
        ("train_hybrid", "--world toy-dual-fixed", {}, "choose one with --world, or give your own with --env"),
        ("train_hybrid", "--world toy-single-fixed-state", {}, "its cameras are (), the demonstrations' ('image',)"),
        ("train_hybrid", "--training_starts -1", {}, "training_starts is -1, expected"),
    ],
)
def test_what_does_not_fit_is_one_line(
    train, tmp_path: Path, script: str, words: str, made: dict, message: str
) -> None:
    write(tmp_path / "data/demos.pkl", spoil(transitions("toy-single-fixed", 4), **made))
    code, said = train(script, f"{DEMOS} {FEW} {words}")
    assert code == 2
    lines = [line for line in said.splitlines() if line.startswith(f"{script}: error:")]
    assert len(lines) == 1
    assert message in lines[0]
    assert not (tmp_path / "out").exists()


def test_a_mode_of_other_axes_does_not_fit(train, tmp_path: Path) -> None:
    write(tmp_path / "data/demos.pkl", transitions("toy-single-learned", 2))
    code, said = train("train_offline", f"{DEMOS} {FEW} --setup_mode single-arm-fixed-gripper")
    assert code == 2
    assert "actions have 7 axes, expected 6 or fewer for single-arm-fixed-gripper" in said
    assert "7 suit --setup_mode single-arm-learned-gripper" in said


def test_demonstrations_of_another_state_or_more_cameras_do_not_fit(train, tmp_path: Path) -> None:
    made = transitions("toy-single-fixed", 4)
    for one in made:
        for when in ("observations", "next_observations"):
            one[when] = {**one[when], "wrist": one[when]["image"]}
    write(tmp_path / "data/demos.pkl", made)
    code, said = train("train_hybrid", f"{DEMOS} {FEW} --image_keys image wrist")
    assert code == 2
    assert "world 'toy-single-fixed': its cameras are ('global',), the demonstrations' ('image', 'wrist')" in said
    for one in made:
        for when in ("observations", "next_observations"):
            one[when] = {"image": one[when]["image"], "state": np.zeros(9, np.float32)}
    write(tmp_path / "data/demos.pkl", made)
    code, said = train("train_hybrid", f"{DEMOS} {FEW}")
    assert code == 2
    assert "its state axes are 2, the demonstrations' 9" in said


@pytest.mark.parametrize("kind", ["empty", "one class"])
def test_classifier_data_that_do_not_do(train, classifier_data, tmp_path: Path, kind: str) -> None:
    for file in (tmp_path / "data/success").iterdir():
        file.unlink()
        if kind == "one class":
            write(file, labelled(transitions("toy-single-fixed", 1), False))
    code, said = train("train_classifier", f"{CLASSIFIER} --batch_size 8 --num_epochs 1 --backbone small")
    assert code == 2
    message = "data/success: found a folder with nothing in it" if kind == "empty" else "shows success"
    errors = [line for line in said.splitlines() if "error" in line]
    assert len(errors) == 1
    assert message in errors[0]
    assert not (tmp_path / "classifier_ckpt").exists()


def test_an_interrupted_run_says_how_to_go_on(train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt("out: saved step 3; go on with --resume")

    monkeypatch.setattr(train_offline, "train", interrupted)
    assert train("train_offline", DEMOS) == (
        130,
        "train_offline: interrupted; out: saved step 3; go on with --resume\n",
    )


def test_a_disk_that_refuses_is_one_line(train, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "out/progress.csv")

    monkeypatch.setattr(train_offline, "train", refuses)
    code, said = train("train_offline", DEMOS)
    assert code == 2
    assert said == (
        "train_offline: error: [Errno 28] No space left on device: 'out/progress.csv'; look after the disk or the "
        "permissions\n"
    )
