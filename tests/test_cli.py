"""The command line: what each command prints, and one line with exit code 2 for everything a user can mend."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from command_line import Lapwing, Said, error_line

from lapwing import cli
from lapwing.data.formats.flat_writer import FlatWriter
from lapwing.errors import DataError
from lapwing.run.checkpoint import linked_step

SMALL = """--backbone small --weights none --hidden 16 --obs-feature-dim 16 --image-feature-dim 16 --batch-size 8
    --device cpu --precision fp32 --threads 1"""


@pytest.fixture
def train(lapwing: Lapwing, tiny_flat: Path, tmp_path: Path) -> Callable[..., Said]:
    """train("lapo", steps=2): with small nets, on the tiny recording, into tmp_path / "run"."""

    def run(algorithm: str, data: Path = tiny_flat, out: Path = tmp_path / "run", **flags: Any) -> Said:
        words = [] if flags.get("resume") else SMALL.split()
        return lapwing(f"train {algorithm}", data, "--out", out, *words, **flags)

    return run


@pytest.mark.parametrize("words", ["", "--help", "-h"])
def test_the_overview_names_every_command(lapwing: Lapwing, words: str) -> None:
    said = lapwing(words)
    assert said.code == 0
    assert all(f"lapwing {name}" in said.out for name in cli.COMMANDS)


def test_a_group_lists_its_own(lapwing: Lapwing) -> None:
    said = lapwing("data")
    assert "lapwing data check" in said.out
    assert "lapwing train" not in said.out


@pytest.mark.parametrize("name", list(cli.COMMANDS))
def test_every_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main([*name.split(), "--help"])
    assert stop.value.code == 0
    assert f"usage: lapwing {name}" in capsys.readouterr().out


def test_help_and_data_check_start_without_torch(tiny_flat: Path) -> None:
    program = "import sys; from lapwing.cli import main; main(sys.argv[1:]); print('torch' in sys.modules)"
    for args in (["--help"], ["data", "check", str(tiny_flat)]):
        result = subprocess.run([sys.executable, "-c", program, *args], capture_output=True, text=True, check=True)
        assert result.stdout.splitlines()[-1] == "False"


def test_the_version_is_printed(lapwing: Lapwing) -> None:
    assert lapwing("--version").out.strip().count(".") == 2


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("fly", "unknown command 'fly'; known: bench, data, "),
        ("data fly", "unknown command 'data fly'; known after data: check, convert, info, label, sample"),
        ("data check", "PATH"),
        ("data sample x.hdf5 --world mars", "invalid choice 'mars' for argument '--world'"),
        ("data sample x.hdf5 --quality best", "invalid choice 'best' for argument '--quality'"),
        ("data sample x.hdf5 --episodes 1.5", "--episodes"),
        ("data sample x.hdf5 --episodes 0", "--episodes is 0, expected at least 1"),
        ("data sample x.hdf5 --n-samples -1", "--steps is -1, expected at least 1"),
        ("data sample x.hdf5 --episodes 1 --n-samples 1", "--episodes and --steps (--n-samples) exclude each other"),
        ("data sample x.hdf5 --size 1", "--size is 1, expected 8 to 4096 pixels"),
        ("data sample x.hdf5 --world pointmaze-umaze --size 64", "--size is 64, and pointmaze-umaze has no cameras"),
        ("train lapo d.hdf5 --out run", "--steps"),
        ("train lapo d.hdf5 --out run --steps many", "--steps: invalid literal for int() with base 10: 'many'"),
        ("train lapo d.hdf5 --out run --steps 1 --fly", "Unrecognized options: --fly"),
        ("train lapo d.hdf5 --out run --steps 1 --preset fast", "invalid choice 'fast' for argument '--preset'"),
        ("train lapo d.hdf5 --out run --steps 1 --encoder deep", "invalid choice 'deep' for argument '--encoder'"),
        (
            "train lapo d.hdf5 --out run --steps 1 --expectile 2",
            "lapo: expectile is 2.0, expected a number from 0 to 1",
        ),
        ("train lapo d.hdf5 --out run --steps 0", "steps is 0, expected at least 1"),
        ("train lapo d.hdf5 --out run --steps 1 --resume=1", "--resume: ignored explicit argument '1', expected"),
        ("train bc d.hdf5 --out run --steps 1 --chunk 0", "bc: chunk is 0, expected"),
        ("eval run", "--world"),
        ("eval run --world mars", "invalid choice 'mars' for argument '--world'"),
        ("eval run --world toy", "run: not a run; expected a directory made by `lapwing train`"),
        ("eval run --world toy --episodes 0", "--episodes 0 --seed 0, expected at least 1 episode"),
        ("eval run --world toy --seed -1", "--seed -1, expected at least 1 episode and a seed of 0 or more"),
        ("eval run --world toy --video .", "--video .: is a folder, expected a file to write"),
        ("data sample x.hdf5 --seed -1", "--seed is -1, expected 0 or more"),
        ("train bc d.hdf5 --out run --steps 1 --image-size 0", "image_size is 0, expected 8 to 4096 pixels"),
        ("train bc d.hdf5 --out run --steps 1 --image-size 9999", "image_size is 9999, expected 8 to 4096 pixels"),
        ("train bc d.hdf5 --out run --steps 1 --threads 100000", "threads is 100000, expected at most 1024"),
        (f"train bc d.hdf5 --out run --steps 1 --seed {2**64}", f"seed is {2**64}, expected 0 to 2**63 - 1"),
        ("report run", "not a run"),
    ],
)
def test_a_command_line_that_means_nothing_is_one_line(
    lapwing: Lapwing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in error_line(lapwing(command))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="needs a terminal of Unix")
def test_a_terminal_sees_the_same_line_without_a_coloured_box() -> None:
    ours, theirs = os.openpty()
    command = [sys.executable, "-m", "lapwing.cli", "data", "sample", "x.hdf5", "--world", "mars"]
    code = subprocess.run(command, stdout=theirs, stderr=theirs, env={**os.environ, "COLUMNS": "60"}).returncode
    os.close(theirs)
    said = os.read(ours, 4096).decode()
    os.close(ours)
    assert code == 2
    assert said.startswith("lapwing: error: invalid choice 'mars' for argument '--world'. Expected one of ('toy', ")
    assert len(said.splitlines()) == 1
    assert "\x1b" not in said


def test_a_terminal_without_utf8_sees_the_same_line() -> None:
    command = [sys.executable, "-m", "lapwing.cli", "data", "sample", "x.hdf5", "--episodes", "1.5"]
    lines = {
        subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONIOENCODING": name}).stderr
        for name in ("utf-8", "latin-1")
    }
    assert len(lines) == 1
    assert "---" not in lines.pop()


def test_sample_check_info_train_eval_report(lapwing: Lapwing, tmp_path: Path) -> None:
    data, run = tmp_path / "d.hdf5", tmp_path / "run"
    said = lapwing("data sample", data, world="toy", episodes=6, size=16, seed=3)
    assert said.code == 0
    assert f"{data}: 6 episodes, " in said.out
    assert lapwing("data check", data).code == 0
    assert "6 (6 terminated, 0 cut)" in lapwing("data info", data).out
    said = lapwing("train lapo", data, "--out", run, *SMALL.split(), steps=4)
    assert said.code == 0, said.err
    assert said.out.startswith(f"{run}: trained to step 4, best at step 4; see {run / 'report.html'}")
    said = lapwing("eval", run, world="toy", episodes=3, seed=7, device="cpu")
    assert said.code == 0, said.err
    lines = said.out.splitlines()
    assert lines[0] == "toy, 3 fresh episodes, seed 7, step-00000004"
    assert [line.split()[0] for line in lines[1:]] == ["mode", "pi", "z0", "bc"]
    assert (run / "eval" / "toy-7.json").exists()
    assert (run / "eval" / "toy-7.png").exists()
    (run / "report.html").unlink()
    assert lapwing("report", run).out.strip() == str(run / "report.html")
    assert "toy" in (run / "report.html").read_text()


def test_a_policy_of_another_robot_is_one_line(train: Callable[..., Said], lapwing: Lapwing, tmp_path: Path) -> None:
    train("bc", steps=1)
    line = error_line(lapwing("eval", tmp_path / "run", world="toy", episodes=1, device="cpu"))
    assert "trained on robot 'tiny' (5 state axes, 3 action axes, cameras global, left, right), world 'toy' has" in line
    assert not (tmp_path / "run" / "eval").exists()


def test_damaged_files_of_a_run_are_one_line(train: Callable[..., Said], lapwing: Lapwing, tmp_path: Path) -> None:
    train("bc", steps=1)
    (tmp_path / "run" / "progress.csv").write_bytes(b"\xff\xfe")
    assert "progress.csv: damaged" in error_line(lapwing("report", tmp_path / "run"))
    (tmp_path / "run" / "config.json").write_text("{}")
    assert "cannot resume with algorithm 'bc', the run has None" in error_line(
        lapwing("train bc", tmp_path / "tiny.hdf5", "--out", tmp_path / "run", *SMALL.split(), resume=True, steps=2)
    )


def test_settings_to_resume_that_are_no_mapping_are_one_line(train: Callable[..., Said], tmp_path: Path) -> None:
    train("bc", steps=1)
    config = tmp_path / "run" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "config": []}))
    assert "cannot resume with config.chunk 1, the run has None" in error_line(train("bc", steps=2, resume=True))


def test_eval_speaks_json_and_films_one_mode(lapwing: Lapwing, tmp_path: Path) -> None:
    data, run, video = tmp_path / "d.hdf5", tmp_path / "run", tmp_path / "film.mp4"
    lapwing("data sample", data, episodes=4, size=16)
    lapwing("train bc", data, "--out", run, *SMALL.split(), steps=2)
    flags = {"world": "toy", "episodes": 2, "device": "cpu", "json": True}
    first = lapwing("eval", run, **flags, video=video, checkpoint=2, mode="bc")
    facts = json.loads(first.out)
    assert (facts["checkpoint"], facts["world"], list(facts["modes"])) == ("step-00000002", "toy", ["bc"])
    assert facts["modes"]["bc"]["episodes"] == 2
    assert json.loads((run / "eval" / "toy-0.json").read_text()) == facts
    assert video.stat().st_size > 0
    assert json.loads(lapwing("eval", run, **flags).out)["modes"] == facts["modes"]
    assert "no checkpoint 1; saved steps: 2" in error_line(lapwing("eval", run, **flags, checkpoint=1))
    assert "--checkpoint is 'first', expected best" in error_line(lapwing("eval", run, **flags, checkpoint="first"))
    assert "mode 'pi' does not exist here; choose one of bc" in error_line(lapwing("eval", run, **flags, mode="pi"))


def test_sampling_by_steps_gives_exactly_as_many(lapwing: Lapwing, tmp_path: Path) -> None:
    data = tmp_path / "d.hdf5"
    assert lapwing("data sample", data, n_samples=50, size=16).code == 0
    figures = json.loads(lapwing("data info", data, json=True).out)
    assert figures["steps"] == 50
    with h5py.File(data) as file:
        assert bool(file["timeouts"][-1]) or bool(file["terminals"][-1])


def test_sampling_is_the_same_for_a_seed_and_quality_matters(lapwing: Lapwing, tmp_path: Path) -> None:
    kinds = {"a": {"seed": 1}, "same": {"seed": 1}, "other": {"seed": 2}, "expert": {"seed": 1, "quality": "expert"}}
    for name, flags in kinds.items():
        lapwing("data sample", tmp_path / f"{name}.hdf5", episodes=3, size=16, **flags)
    actions = {name: h5py.File(tmp_path / f"{name}.hdf5")["actions"][:] for name in kinds}
    assert np.array_equal(actions["a"], actions["same"])
    assert not np.array_equal(actions["a"], actions["other"])
    assert json.loads(lapwing("data info", tmp_path / "expert.hdf5", json=True).out)["success"]["rate"] == 1


def test_a_terminated_sampling_leaves_nothing(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "lapwing.cli", "data", "sample", str(tmp_path / "a.hdf5"), "--episodes", "100000"]
    process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    while not list(tmp_path.iterdir()):
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 130, said
    assert said.splitlines()[-1] == "lapwing: interrupted: terminated"
    assert not list(tmp_path.iterdir())


def test_convert_resizes(lapwing: Lapwing, tmp_path: Path) -> None:
    src, out = tmp_path / "d.hdf5", tmp_path / "small.hdf5"
    lapwing("data sample", src, episodes=2, size=16)
    said = lapwing("data convert", src, out, to="flat", size=8)
    assert (said.code, said.out.split(",")[0]) == (0, f"{out}: wrote 2 episodes")
    assert json.loads(lapwing("data info", out, json=True).out)["cameras"][0]["width"] == 8


def test_presets_come_first_and_flags_on_top(train: Callable[..., Said], tmp_path: Path) -> None:
    assert train("lapo", steps=1, preset="documents", latent_penalty=0.25).code == 0
    written = json.loads((tmp_path / "run" / "config.json").read_text())["config"]
    assert (written["max_latent"], written["latent_penalty"], written["bc_coef"]) == (2.0, 0.25, 0.0)


def test_a_resumed_run_keeps_its_settings(train: Callable[..., Said], tmp_path: Path) -> None:
    run = tmp_path / "run"
    train("lapo", steps=2, preset="documents", save_freq=2)
    assert train("lapo", resume=True).code == 0
    assert train("lapo", resume=True, steps=4).code == 0
    assert linked_step(run, "last") == 4
    for flags, message in (
        ({"steps": 3}, "cannot resume with options.steps 3, the run has 4; it may only grow"),
        ({"batch_size": 4}, "cannot resume with options.batch_size 4, the run has 8"),
        ({"preset": "product"}, "cannot resume with config.max_latent 1.0, the run has 2.0"),
        ({"tau": 0.5}, "cannot resume with config.tau 0.5, the run has 0.005"),
    ):
        assert message in error_line(train("lapo", resume=True, **flags))
    assert "cannot resume with algorithm 'bc', the run has 'lapo'" in error_line(train("bc", resume=True, steps=4))
    assert "not a run to resume" in error_line(train("bc", resume=True, out=tmp_path / "none"))


def test_ctrl_c_is_130_and_says_what_was_saved(
    train: Callable[..., Said], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from lapwing.agents.bc import BcAgent

    update = BcAgent.update

    def press(agent: BcAgent, batch: Any) -> Any:
        os.kill(os.getpid(), signal.SIGINT)
        return update(agent, batch)

    monkeypatch.setattr(BcAgent, "update", press)
    said = train("bc", steps=5)
    assert said.code == 130
    assert said.err.splitlines()[-1] == f"lapwing: interrupted: {tmp_path / 'run'}: saved step 1; go on with --resume"


def replace_key(key: str, change: Callable[[Any], Any]) -> Callable[[Path], None]:
    """Damage a flat file: one key gets other values, or none at all."""

    def damage(path: Path) -> None:
        with h5py.File(path, "r+") as file:
            values = change(file[key][:])
            del file[key]
            if values is not None:
                file[key] = values

    return damage


def with_nan(values: Any) -> Any:
    values[3] = np.nan
    return values


def cut_in_half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


DAMAGES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "missing key": (replace_key("actions", lambda _: None), "actions"),
    "wrong dimension": (replace_key("observations/joint", lambda x: x[:, 0]), "observations/joint"),
    "unequal lengths": (replace_key("actions", lambda x: x[:-1]), "actions"),
    "NaN": (replace_key("actions", with_nan), "action"),
    "empty file": (lambda path: path.write_bytes(b""), "empty"),
    "text file": (lambda path: path.write_text("left_image, joint\n1, 2\n"), "HDF5"),
    "truncated HDF5": (cut_in_half, "HDF5"),
    "all-zero rewards": (replace_key("rewards", np.zeros_like), "rewards"),
    "no file": (Path.unlink, "tiny.hdf5"),
}


@pytest.mark.parametrize("kind", list(DAMAGES))
def test_bad_data_is_one_line_for_train_and_nothing_is_left(
    train: Callable[..., Said], tiny_flat: Path, tmp_path: Path, kind: str
) -> None:
    damage, named = DAMAGES[kind]
    damage(tiny_flat)
    before = set(tmp_path.iterdir())
    line = error_line(train("lapo", steps=2))
    assert line.startswith(str(tiny_flat))
    assert named in line
    assert set(tmp_path.iterdir()) == before


@pytest.mark.parametrize("kind", list(DAMAGES))
def test_bad_data_is_told_by_check(lapwing: Lapwing, tiny_flat: Path, kind: str) -> None:
    damage, named = DAMAGES[kind]
    damage(tiny_flat)
    said = lapwing("data check", tiny_flat)
    assert said.code == 2
    problems = [line for line in said.out.splitlines() if line.startswith("error: ")]
    assert problems
    assert any(named in line for line in problems)
    assert not json.loads(lapwing("data check", tiny_flat, json=True).out)["trainable"]


def test_less_data_than_a_batch_is_one_line(train: Callable[..., Said], tmp_path: Path) -> None:
    said = train("lapo", steps=2, batch_size=1000)
    assert "fewer than the batch size 1000; record more or set a smaller batch size" in error_line(said)
    assert not (tmp_path / "run").exists()


def test_an_output_that_cannot_be_written_is_one_line(
    lapwing: Lapwing, train: Callable[..., Said], tiny_flat: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    before = set(tmp_path.rglob("*"))
    assert "is not a directory one can write to" in error_line(train("bc", steps=1, out=tmp_path / "file" / "run"))
    below = tmp_path / "file" / "d.hdf5"
    assert str(below) in error_line(lapwing("data sample", below, episodes=1, size=16))
    assert str(below) in error_line(lapwing("data convert", tiny_flat, below))
    assert set(tmp_path.rglob("*")) == before


def test_a_full_disk_is_one_line(train: Callable[..., Said], monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device", "model.safetensors")

    monkeypatch.setattr("lapwing.run.train.save_checkpoint", full)
    said = train("bc", steps=1)
    assert said.code == 2
    last = said.err.splitlines()[-1]
    assert last.startswith("lapwing: error: [Errno 28] No space left on device: 'model.safetensors'; ")
    assert "Traceback" not in said.err


def test_an_error_while_sampling_has_a_line_of_its_own(
    lapwing: Lapwing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise DataError("demos.hdf5: the disk is full; free some space")

    monkeypatch.setattr(FlatWriter, "add", refuse)
    said = lapwing("data sample", tmp_path / "demos.hdf5", episodes=2, size=16)
    assert said.code == 2
    assert "lapwing: error: demos.hdf5: the disk is full; free some space" in said.err.splitlines()


def test_what_exists_is_not_overwritten(lapwing: Lapwing, train: Callable[..., Said], tiny_flat: Path) -> None:
    train("bc", steps=1)
    assert "run: already exists; go on with --resume, or choose another --out" in error_line(train("bc", steps=1))
    before = tiny_flat.read_bytes()
    assert "already exists" in error_line(lapwing("data sample", tiny_flat, episodes=1, size=16))
    assert "already exists" in error_line(lapwing("data convert", tiny_flat, tiny_flat))
    assert tiny_flat.read_bytes() == before


def test_a_demo_without_enough_to_do_is_one_line(lapwing: Lapwing, tmp_path: Path) -> None:
    for flags in ({"steps": 0}, {"episodes": 0}, {"demonstrations": 1}, {"seed": -1}):
        assert "--demonstrations at least 2" in error_line(lapwing("demo", out=tmp_path / "demo", **flags))
    assert not (tmp_path / "demo").exists()


@pytest.mark.slow
@pytest.mark.parametrize("world", ["toy", "aloha"])
def test_the_demo_runs_to_its_end(tmp_path: Path, world: str) -> None:
    flags = f"--world {world} --demonstrations 6 --steps 2 --episodes 1 --out {tmp_path / 'demo'}"
    words = [sys.executable, "-m", "lapwing.cli", "demo", *flags.split()]
    done = subprocess.run(words, capture_output=True, text=True, timeout=600)
    if "install a driver" in done.stderr:
        pytest.skip("no OpenGL here")
    assert done.returncode == 0, done.stderr
    assert f"report: {tmp_path}/demo/lapo/report.html" in done.stdout
    assert (tmp_path / "demo" / "lapo.mp4").stat().st_size > 0
