"""SAC whose values run away is stopped, and loses nothing."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from lapwing.agents.sac import SacConfig
from lapwing.errors import ConfigError
from lapwing.nets.backbone import BackboneConfig
from lapwing.run.checkpoint import find_checkpoint, linked_step, load_acting

Train = Callable[..., Path]
SOUND = SacConfig(hidden=(16,), random_shift=1, vision=BackboneConfig("small", "none"))
RUNAWAY = replace(
    SOUND, discount=1.0, lr=0.3, tau=1.0, imitation=0.0, clip_targets=False, backup_entropy=True, temperature=100.0
)


def column(run: Path, name: str) -> list[float]:
    with (run / "progress.csv").open(newline="") as file:
        return [float(row[name]) for row in csv.DictReader(file)]


def test_values_far_from_all_returns_for_a_whole_interval_end_the_run(train_small: Train, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with pytest.raises(ConfigError) as stopped:
        train_small("run", "sac", config=RUNAWAY, steps=200, log_every=5, eval_every=200)
    said, step = str(stopped.value), linked_step(run, "last")
    assert step is not None
    assert 5 < step < 200
    assert column(run, "step")[-1] == step
    assert column(run, "q_diverged")[-1] == 1.0
    assert "\n" not in said
    assert said.startswith(f"{run}: Q is {column(run, 'q_mean')[-1]:.3g} on average at step {step}, expected about the")
    assert f"training diverged; step {step} is saved; start another run with imitation 1, clip_targets" in said
    load_acting(find_checkpoint(run, "last"))
    with pytest.raises(ConfigError, match=f"step {step + 5} is saved"):
        train_small("run", "sac", resume=True, config=RUNAWAY, steps=200, log_every=5, eval_every=200)


def test_the_first_interval_is_not_judged(train_small: Train) -> None:
    run = train_small("run", "sac", config=RUNAWAY, steps=20, log_every=20, eval_every=20)
    assert linked_step(run, "last") == 20
    assert column(run, "q_diverged")[0] > 0


def test_a_run_goes_on_where_it_was_told_to(train_small: Train) -> None:
    config = replace(RUNAWAY, stop_when_diverged=False)
    run = train_small("run", "sac", config=config, steps=20, log_every=5, eval_every=20)
    assert linked_step(run, "last") == 20
    assert abs(column(run, "q_mean")[-1]) > 20  # of returns from -6 to 3


def test_a_sound_run_is_not_stopped(train_small: Train) -> None:
    run = train_small("run", "sac", config=SOUND, steps=6, log_every=2, eval_every=6)
    assert column(run, "q_diverged") == [0.0, 0.0, 0.0]
