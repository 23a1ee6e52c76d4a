"""Interrupted runs go on as if nothing had happened: the same parameters, bit by bit."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import pytest
import torch

from lapwing import cli
from lapwing.agents.lapo import LapoAgent
from lapwing.errors import CheckpointError, ConfigError
from lapwing.run.checkpoint import checkpoint_steps, linked_step, load_train_state, step_name
from lapwing.run.directory import held

Train = Callable[..., Path]
TIMINGS = ("seconds", "steps_per_s", "waiting_share", "memory_gb")
COMMON = """--backbone small --weights none --batch-size 8 --eval-samples 8 --device cpu --precision fp32 --threads 1
    --random-shift 1"""
ENCODER = "--hidden 16 --obs-feature-dim 16 --image-feature-dim 16"
SMALL = {
    "lapo": f"{COMMON} {ENCODER}",
    "bc": f"{COMMON} {ENCODER}",
    # every source of randomness, and every state beside the weights
    "act": f"""{COMMON} --chunk 3 --width 16 --heads 2 --feedforward 16 --encoder-layers 1 --decoder-layers 2
        --dropout 0.1 --ema-decay 0.9 --augment notes""",
}


def state_of(run: Path) -> dict[str, Any]:
    state = load_train_state(run / "checkpoints" / "last")
    del state["state"]["seconds"]
    return state


def expect_equal(first: Any, second: Any, where: str = "") -> None:
    """Equal to the last bit, tensor by tensor."""
    assert type(first) is type(second), where
    if isinstance(first, dict):
        assert first.keys() == second.keys(), where
        for name in first:
            expect_equal(first[name], second[name], f"{where}/{name}")
    elif isinstance(first, list | tuple):
        assert len(first) == len(second), where
        for index, pair in enumerate(zip(first, second, strict=True)):
            expect_equal(*pair, f"{where}/{index}")
    elif isinstance(first, torch.Tensor):
        assert torch.equal(first, second), where
    else:
        assert first == second, where


def progress(run: Path) -> list[dict[str, str]]:
    with (run / "progress.csv").open(newline="") as file:
        return [{name: row[name] for name in row if name not in TIMINGS} for row in csv.DictReader(file)]


@pytest.mark.parametrize("algorithm", SMALL)
def test_a_killed_run_goes_on_to_the_same_bits(tiny_flat: Path, tmp_path: Path, algorithm: str) -> None:
    args = [
        "train",
        algorithm,
        str(tiny_flat),
        *SMALL[algorithm].split(),
        "--steps",
        "200",
        "--eval-every",
        "10",
        "--log-every",
        "5",
    ]
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    kill_after(["--out", str(killed), *args], killed, step=20)
    assert cli.main([*args, "--out", str(whole)]) == 0
    stopped_at = linked_step(killed, "last")
    assert stopped_at is not None
    assert 20 <= stopped_at < 200
    assert cli.main(["train", algorithm, str(tiny_flat), "--out", str(killed), "--resume"]) == 0
    expect_equal(state_of(killed), state_of(whole))
    assert progress(killed) == progress(whole)
    assert checkpoint_steps(killed) == checkpoint_steps(whole)
    for link in ("best", "last"):
        assert linked_step(killed, link) == linked_step(whole, link)
        models = [(run / "checkpoints" / link / "model.safetensors").read_bytes() for run in (killed, whole)]
        assert models[0] == models[1]
    assert (killed / "held_out.json").read_text() == (whole / "held_out.json").read_text()


def kill_after(args: list[str], run: Path, step: int) -> None:
    """Start `lapwing` in a process of its own and SIGKILL it once `run` was saved at `step` or later."""
    command = [*args[2:4], *args[:2], *args[4:]]  # the subcommand comes first
    process = subprocess.Popen([sys.executable, "-m", "lapwing.cli", *command], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    try:
        while (linked_step(run, "last") or 0) < step:
            assert process.poll() is None, "it ended before it could be killed"
            assert time.monotonic() < deadline, "it never came so far"
            time.sleep(0.002)
    finally:
        process.kill()
        process.wait()


def test_more_steps_later_are_as_good_as_more_steps_at_once(train_small: Train) -> None:
    train_small("later", steps=4, eval_every=4)
    later = train_small("later", steps=8, eval_every=4, resume=True)
    expect_equal(state_of(later), state_of(train_small("once", steps=8, eval_every=4)))
    assert json.loads((later / "config.json").read_text())["options"]["steps"] == 8


def test_a_finished_run_is_left_as_it_is(train_small: Train) -> None:
    before = state_of(train_small("run", steps=4))
    expect_equal(state_of(train_small("run", steps=4, resume=True)), before)


def test_a_run_killed_before_its_first_checkpoint_begins_again(train_small: Train) -> None:
    whole = state_of(train_small("whole", steps=4, eval_every=4))
    run = train_small("run", steps=4, eval_every=4)
    for path in sorted((run / "checkpoints").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
    expect_equal(state_of(train_small("run", steps=4, eval_every=4, resume=True)), whole)
    assert [row["step"] for row in progress(run)] == ["2", "4"]


def test_a_run_whose_link_is_lost_goes_on_from_its_newest_checkpoint(train_small: Train) -> None:
    run = train_small("run", "bc", steps=4, eval_every=2, save_every=2)
    expected = state_of(run)
    (run / "checkpoints" / "last").unlink()
    train_small("run", "bc", steps=4, eval_every=2, save_every=2, resume=True)
    assert linked_step(run, "last") == 4
    assert checkpoint_steps(run) == [2, 4]
    expect_equal(state_of(run), expected)


@pytest.mark.parametrize("name", ["best", "last"])
def test_a_run_that_was_copied_without_its_links_loses_nothing(train_small: Train, name: str) -> None:
    run = train_small("run", "bc", steps=4, eval_every=2, save_every=2)
    link = run / "checkpoints" / name
    target = link.resolve()
    link.unlink()
    shutil.copytree(target, link)
    with pytest.raises(CheckpointError, match=rf"checkpoints/{name}: is no link, .*`ln -s step-00000004 .*{name}`"):
        train_small("run", "bc", steps=6, eval_every=2, save_every=2, resume=True)
    assert checkpoint_steps(run) == [2, 4]
    assert link.is_dir()


def test_the_state_of_another_algorithm_is_not_resumed(train_small: Train) -> None:
    run, other = train_small("run", "bc", steps=2), train_small("other", "lapo", steps=2)
    shutil.copy(other / "checkpoints" / "last" / "train_state.pt", run / "checkpoints" / "last" / "train_state.pt")
    with pytest.raises(CheckpointError, match=r"run: train_state\.pt of its last checkpoint does not fit its config"):
        train_small("run", "bc", steps=3, resume=True)


def test_what_came_after_the_checkpoint_is_forgotten(train_small: Train) -> None:
    run = train_small("run", "bc", steps=4, eval_every=2, save_every=2)
    last = run / "checkpoints" / "last"
    last.unlink()
    last.symlink_to(step_name(2))
    with (run / "progress.csv").open("a") as file:
        file.write("5,0.1,")  # a line that was being written
    train_small("run", "bc", steps=6, eval_every=2, save_every=2, resume=True)
    assert [row["step"] for row in progress(run)] == ["2", "4", "6"]
    expect_equal(state_of(run), state_of(train_small("whole", "bc", steps=6, eval_every=2, save_every=2)))


def test_ctrl_c_saves_the_step_and_the_run_goes_on(train_small: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    update = LapoAgent.update
    calls = []

    def press(agent: LapoAgent, batch: Any) -> Any:
        calls.append(batch)
        if len(calls) == 5:
            os.kill(os.getpid(), signal.SIGINT)
        return update(agent, batch)

    with monkeypatch.context() as patch:
        patch.setattr(LapoAgent, "update", press)
        with pytest.raises(KeyboardInterrupt, match="run: saved step 5; go on with --resume"):
            train_small("run", steps=9)
    run = train_small("run", steps=9, resume=True)
    expect_equal(state_of(run), state_of(train_small("whole", steps=9)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 4}, "cannot resume with options.batch_size 4, the run has 8; leave it as it was"),
        ({"seed": 3}, "cannot resume with options.seed 3, the run has 0"),
        ({"train_fraction": 0.5}, "cannot resume with options.train_fraction 0.5, the run has 0.8"),
        ({"precision": "bf16"}, "cannot resume with options.precision 'bf16', the run has 'fp32'"),
        ({"steps": 3}, "cannot resume with options.steps 3, the run has 4; it may only grow"),
    ],
)
def test_other_options_are_refused_by_name(train_small: Train, changes: dict[str, Any], message: str) -> None:
    run = train_small("run", "bc", steps=4)
    before = state_of(run)
    with pytest.raises(ConfigError, match=message):
        train_small("run", "bc", resume=True, **{"steps": 4, **changes})
    expect_equal(state_of(run), before)


def test_another_config_is_refused_by_name(train_small: Train, small_config: Callable[..., Any]) -> None:
    train_small("run", "lapo", steps=2)
    config = small_config("lapo")
    with pytest.raises(ConfigError, match=r"cannot resume with config.tau 0.1, the run has 0.005"):
        train_small("run", "lapo", resume=True, steps=2, config=replace(config, tau=0.1))
    vision = replace(config.vision, encoder="shared")
    with pytest.raises(ConfigError, match=r"cannot resume with config.vision.encoder 'shared', the run has 'stacked'"):
        train_small("run", "lapo", resume=True, steps=2, config=replace(config, vision=vision))
    with pytest.raises(ConfigError, match="cannot resume with algorithm 'bc', the run has 'lapo'"):
        train_small("run", "bc", resume=True, steps=2)


def test_a_setting_may_be_given_as_asked_or_as_resolved(train_small: Train, small_config: Callable[..., Any]) -> None:
    config = small_config("bc")
    asked = replace(config, vision=replace(config.vision, weights="auto", norm="auto"))
    resolved = replace(config, vision=replace(config.vision, weights="none", norm="group"))
    train_small("run", "bc", steps=2, config=asked)
    for steps, same in ((3, asked), (4, resolved)):
        assert linked_step(train_small("run", "bc", steps=steps, config=same, resume=True), "last") == steps


def test_other_data_are_refused_and_moved_data_are_not(train_small: Train, tiny_flat: Path, tmp_path: Path) -> None:
    train_small("run", "bc", steps=2)
    moved = tiny_flat.rename(tmp_path / "moved.hdf5")
    assert linked_step(train_small("run", "bc", steps=3, data=moved, resume=True), "last") == 3
    with h5py.File(moved, "r+") as file:
        file["actions"][0, 0] += 1
    with pytest.raises(ConfigError, match=r"cannot resume with data '[0-9a-f]+', the run has '[0-9a-f]+'"):
        train_small("run", "bc", steps=4, data=moved, resume=True)


def test_nothing_to_resume_is_said(train_small: Train) -> None:
    with pytest.raises(CheckpointError, match=r"not a run to resume, config.json is missing"):
        train_small("run", resume=True)


@pytest.mark.parametrize("content", [b"", b"[1]", b"\xff"])
def test_damaged_settings_are_not_resumed(train_small: Train, content: bytes) -> None:
    run = train_small("run", "bc", steps=2)
    (run / "config.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"config\.json: damaged: .*; restore it, or start another run"):
        train_small("run", "bc", steps=3, resume=True)


def test_a_damaged_checkpoint_is_not_resumed(train_small: Train) -> None:
    run = train_small("run", "bc", steps=2)
    (run / "checkpoints" / "last" / "train_state.pt").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"train_state.pt: missing or damaged"):
        train_small("run", "bc", steps=3, resume=True)


def test_a_run_is_trained_by_one_process_at_a_time(train_small: Train) -> None:
    run = train_small("run", "bc", steps=2)
    before = (run / "progress.csv").read_bytes()
    with held(run), pytest.raises(CheckpointError, match="run: another process is training it"):
        train_small("run", "bc", steps=4, resume=True)
    assert (run / "progress.csv").read_bytes() == before
    train_small("run", "bc", steps=4, resume=True)
    assert linked_step(run, "last") == 4
