"""Two processes started by torchrun train one model: the one that a single process trains."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lapwing.errors import ConfigError
from lapwing.run.checkpoint import checkpoint_steps, load_train_state

Train = Callable[..., Path]

SCRIPT = '''
"""Trains, cuts a second run in two, and writes what this process alone knows."""
import os, sys
from dataclasses import replace
from pathlib import Path
import torch
from lapwing.agents import ALGORITHMS, Algorithm
from lapwing.agents.bc import BcConfig
from lapwing.agents.lapo import LapoAgent
from lapwing.agents.lapo_config import LapoConfig
from lapwing.nets.vision import VisionConfig
from lapwing.run.options import TrainOptions
from lapwing.run.train import train

data, folder = Path(sys.argv[1]), Path(sys.argv[2])
rank = os.environ["RANK"]
agents, mapped = [], set()

class Watched(LapoAgent):
    def __init__(self, *args):
        super().__init__(*args)
        agents.append(self)
        if rank == "1":
            with torch.no_grad():
                self.critic.q1[0].weight.add_(1)  # the weights of rank 0 are to win

    def update(self, batch):
        assert batch.size == 4
        mapped.update(line.split()[1] for line in open("/proc/self/maps") if line.rstrip().endswith(data.name))
        return super().update(batch)

ALGORITHMS["lapo"] = Algorithm(LapoConfig, Watched)
vision = VisionConfig(backbone="small", weights="none", image_feature_dim=16)
config = LapoConfig(hidden=(16,), obs_feature_dim=16, random_shift=1, vision=vision)
options = TrainOptions(
    steps=6, batch_size=8, eval_every=3, log_every=2, eval_samples=8, device="cpu", precision="fp32", threads=1
)
train(data, folder / "whole", "lapo", config, options)
train(data, folder / "cut", "lapo", config, replace(options, steps=3))
train(data, folder / "cut", "lapo", config, options, resume=True)
bc = BcConfig(hidden=(16,), obs_feature_dim=16, random_shift=0, vision=vision)
train(data, folder / "shared", "bc", bc, replace(options, steps=4))
torch.save({"networks": agents[0].state_dict()["networks"], "mapped": sorted(mapped)}, folder / f"rank-{rank}.pt")
'''


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory, tiny_file: Path) -> Path:
    """The folder in which two gloo processes have trained."""
    folder = tmp_path_factory.mktemp("two")
    (folder / "script.py").write_text(SCRIPT)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    process = subprocess.Popen(
        [*command, folder / "script.py", tiny_file, folder],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        _, said = process.communicate(timeout=240)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)  # torchrun and the two it started
    assert process.returncode == 0, said[-3000:]
    return folder


def test_both_processes_end_with_the_same_parameters(two: Path) -> None:
    first, second = (torch.load(two / f"rank-{rank}.pt", weights_only=True)["networks"] for rank in range(2))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    saved = load_train_state(two / "whole" / "checkpoints" / "last")["agent"]["networks"]
    assert all(torch.equal(first[name], saved[name]) for name in first)


def test_both_processes_map_the_file_and_share_its_pages(two: Path) -> None:
    for rank in range(2):
        assert torch.load(two / f"rank-{rank}.pt", weights_only=True)["mapped"] == ["r--s"]


def test_one_process_writes(two: Path) -> None:
    assert checkpoint_steps(two / "whole")[-1] == 6
    assert len(list((two / "whole" / "tensorboard").iterdir())) == 1
    steps = [line.split(",")[0] for line in (two / "whole" / "progress.csv").read_text().splitlines()]
    assert steps == ["step", "2", "3", "4", "6"]


def test_a_resumed_job_ends_with_the_same_bits(two: Path) -> None:
    whole, cut = (load_train_state(two / name / "checkpoints" / "last") for name in ("whole", "cut"))
    assert all(torch.equal(x, cut["agent"]["networks"][name]) for name, x in whole["agent"]["networks"].items())
    assert len(whole["rng"]) == 2
    assert all(torch.equal(x["cpu"], y["cpu"]) for x, y in zip(whole["rng"], cut["rng"], strict=True))
    assert not torch.equal(whole["rng"][0]["cpu"], whole["rng"][1]["cpu"])


def test_a_job_of_two_is_not_resumed_by_one(two: Path, train_small: Train, tmp_path: Path) -> None:
    (tmp_path / "run").symlink_to(two / "whole")
    with pytest.raises(ConfigError, match="cannot resume with processes 1, the run has 2"):
        train_small("run", resume=True, save_every=5000, log_every=2, threads=1)


def test_two_processes_learn_what_one_learns(two: Path, train_small: Train, small_config: Callable[..., Any]) -> None:
    """Without augmentation nothing is random but the batches, and those are shared out."""
    config = small_config("bc", random_shift=0)
    one = train_small("one", "bc", config=config, steps=4)
    alone, shared = (
        load_train_state(run / "checkpoints" / "last")["agent"]["networks"] for run in (one, two / "shared")
    )
    for name, value in alone.items():
        torch.testing.assert_close(shared[name], value, atol=2e-5, rtol=1e-4)
