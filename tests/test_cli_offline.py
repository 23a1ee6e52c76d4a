"""`lapwing train iql` and `lapwing train td3bc`: presets, flags on top of them, and what a run leaves."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import Lapwing, error_line

SMALL = """--backbone small --weights none --hidden 16 --batch-size 8 --device cpu --precision fp32 --threads 1"""


@pytest.mark.parametrize(
    ("algorithm", "flags", "expected"),
    [
        ("iql", {"expectile": 0.9}, {"expectile": 0.9, "temperature": 3.0, "clip_targets": False}),
        ("td3bc", {"alpha": 1}, {"alpha": 1.0, "policy_freq": 2, "layer_norm": False}),
    ],
)
def test_a_run_from_a_preset_with_flags_on_top(
    lapwing: Lapwing,
    tiny_flat: Path,
    tmp_path: Path,
    algorithm: str,
    flags: dict[str, float],
    expected: dict[str, object],
) -> None:
    run = tmp_path / "run"
    command = f"train {algorithm} {tiny_flat} --out {run} {SMALL} --preset original"
    said = lapwing(command, steps=2, eval_every=1, log_every=1, **flags)
    assert said.code == 0, said.err
    assert f"{run}: trained to step 2" in said.out
    config = json.loads((run / "config.json").read_text())
    assert config["algorithm"] == algorithm
    assert {name: config["config"][name] for name in expected} == expected
    head = (run / "progress.csv").read_text().splitlines()[0].split(",")
    assert {"critic_loss", "q_out_of_range", "valid/action_error_pi", "valid/q_spearman"} <= set(head)
    assert "pi: policy" in (run / "report.html").read_text()
    assert lapwing(f"train {algorithm}", tiny_flat, out=run, resume=True, steps=3).code == 0


def test_a_preset_that_does_not_exist_is_refused(lapwing: Lapwing, tiny_flat: Path, tmp_path: Path) -> None:
    line = error_line(lapwing("train iql", tiny_flat, out=tmp_path / "run", preset="hilserl"))
    assert "invalid choice 'hilserl' for argument '--preset'" in line


def test_an_algorithm_without_presets_has_no_such_flag(lapwing: Lapwing, tiny_flat: Path, tmp_path: Path) -> None:
    assert "--preset" in error_line(lapwing("train bc", tiny_flat, out=tmp_path / "run", preset="product"))
