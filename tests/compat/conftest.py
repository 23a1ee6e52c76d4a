"""The scripts of compat/ as a user has them: on the path, without network, and data small enough for a test."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lapwing.data.formats.flat import FlatWriter
from lapwing.episode import Episode
from lapwing.spec import Camera, RobotSpec, unnamed_axes

COMPAT = Path(__file__).parents[2] / "compat"
sys.path.insert(0, str(COMPAT))  # where Python puts the folder of a script


@pytest.fixture
def no_download(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No ImageNet weights: none in the cache, and a proxy that refuses."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    for name in ("https_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")


@pytest.fixture
def run_script(tmp_path: Path, no_download: None):
    """Run a script of compat/ in the test's own folder, as the documents do."""

    def run(script: str, *words: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        return subprocess.run(
            [sys.executable, str(COMPAT / script), *words],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
        )

    return run


@pytest.fixture(scope="session")
def _small_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight episodes of six steps, three cameras of 32 pixels, state 16 and action 16; every other one succeeds."""
    rng = np.random.default_rng(0)
    cameras = tuple(Camera(name, 32, 32) for name in ("left", "right", "global"))
    spec = RobotSpec("small", cameras, unnamed_axes("state", 16), unnamed_axes("action", 16))
    path = tmp_path_factory.mktemp("small") / "small.hdf5"
    with FlatWriter(path, spec) as writer:
        for index in range(8):
            success = index % 2 == 0
            writer.add(
                Episode(
                    images={c.name: rng.integers(0, 256, (6, 32, 32, 3), np.uint8) for c in cameras},
                    state=rng.normal(2, 3, (6, 16)).astype(np.float32),
                    action=rng.normal(-1, 2, (6, 16)).astype(np.float32),
                    reward=np.float32([0, 0, 0, 0, 0, success]),
                    terminated=success,
                    success=success,
                )
            )
    return path


@pytest.fixture
def small_file(_small_file: Path, tmp_path: Path) -> Path:
    """A file of the test's own."""
    path = tmp_path / "robot_data.hdf5"
    path.write_bytes(_small_file.read_bytes())
    return path
