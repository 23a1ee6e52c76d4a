"""Each documented command of create_dataset.py, and the file the documents write by hand."""

from __future__ import annotations

from pathlib import Path

import create_dataset
import h5py
import numpy as np
import pytest


def write_as_documented(path: Path, samples: int, size: int) -> None:
    """The quick start's own snippet, with data in place of its dots."""
    rng = np.random.default_rng(0)
    left_imgs, right_imgs, global_imgs = rng.integers(0, 256, (3, samples, size, size, 3), np.uint8)
    joints = rng.normal(size=(samples, 16)).astype(np.float32)
    actions = rng.normal(size=(samples, 16)).astype(np.float32)
    rewards = np.arange(samples, dtype=np.float32) % 10 == 9
    terminals = rewards.astype(bool)
    with h5py.File(path, "w") as f:
        obs = f.create_group("observations")
        obs.create_dataset("left_image", data=left_imgs)
        obs.create_dataset("right_image", data=right_imgs)
        obs.create_dataset("global_image", data=global_imgs)
        obs.create_dataset("joint", data=joints)
        f.create_dataset("actions", data=actions)
        f.create_dataset("rewards", data=rewards.astype(np.float32))
        f.create_dataset("terminals", data=terminals)


def test_sample_has_the_number_of_steps_asked_for(run_script, tmp_path: Path) -> None:
    result = run_script("create_dataset.py", "--create_sample", "--output", "sample_data.hdf5", "--n_samples", "137")
    assert result.returncode == 0, result.stderr
    with h5py.File(tmp_path / "sample_data.hdf5") as file:
        assert {key: file[key].shape for key in ("actions", "observations/joint", "observations/left_image")} == {
            "actions": (137, 16),
            "observations/joint": (137, 16),
            "observations/left_image": (137, 84, 84, 3),
        }
    validated = run_script("create_dataset.py", "--validate", "--hdf5_path", "sample_data.hdf5")
    assert validated.returncode == 0
    assert "✓ 数据格式验证成功!" in validated.stdout


def test_validation_prints_what_the_documents_show(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "your_data.hdf5"
    write_as_documented(path, 50, 12)
    assert create_dataset.main(["--validate", "--hdf5_path", str(path)]) == 0
    documented = f"""\
验证数据集: {path}
============================================================

文件结构:
  ├─ observations/
  │  ├─ left_image: uint8, shape=(50, 12, 12, 3)
  │  ├─ right_image: uint8, shape=(50, 12, 12, 3)
  │  ├─ global_image: uint8, shape=(50, 12, 12, 3)
  │  └─ joint: float32, shape=(50, 16)
  ├─ actions: float32, shape=(50, 16)
  ├─ rewards: float32, shape=(50,)
  └─ terminals: bool, shape=(50,)

✓ 数据格式验证成功!
"""
    assert capsys.readouterr().out == documented


def test_a_bad_file_is_refused_with_all_its_problems(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "bad.hdf5"
    write_as_documented(path, 50, 12)
    with h5py.File(path, "r+") as file:
        del file["rewards"]
        file["actions"][7, 3] = np.nan
    assert create_dataset.main(["--validate", "--hdf5_path", str(path)]) == 2
    said = capsys.readouterr().out
    assert "actions: 1 NaN" in said or "NaN" in said.split("actions", 2)[2]
    assert f"{path}: rewards: missing" in said
    assert "✗ 数据格式验证失败: 2 errors" in said


def test_a_text_file_is_refused_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "text.hdf5"
    path.write_text("no HDF5")
    assert create_dataset.main(["--validate", "--hdf5_path", str(path)]) == 2
    assert f"error: {path}" in capsys.readouterr().out


def test_conversion_writes_another_size(small_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--convert", "--input", str(small_file), "--output", str(tmp_path / "out.hdf5"), "--size", "16"]
    assert create_dataset.main(words) == 0
    with h5py.File(tmp_path / "out.hdf5") as file:
        assert file["observations/global_image"].shape == (48, 16, 16, 3)
    assert create_dataset.main(words) == 2
    assert "create_dataset: error:" in (said := capsys.readouterr().err)
    assert "already exists" in said


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--create_sample"], "--output missing"),
        (["--validate"], "--hdf5_path missing"),
        (["--convert", "--output", "x"], "--input missing"),
        ([], "one of the arguments --create_sample --validate --convert is required"),
    ],
)
def test_a_missing_flag_is_named(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        create_dataset.main(words)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err
