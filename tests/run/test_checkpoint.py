"""Checkpoints: whole or absent, found by name, read without trust."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lapwing.agents.lapo import LapoAgent
from lapwing.agents.lapo_config import PRESETS, LapoConfig
from lapwing.errors import CheckpointError
from lapwing.run import checkpoint
from lapwing.run.checkpoint import (
    checkpoint_steps,
    config_from_json,
    discard_after,
    find_checkpoint,
    link_checkpoint,
    linked_step,
    load_acting,
    load_config,
    load_train_state,
    prune_checkpoints,
    save_checkpoint,
    step_name,
    with_critics,
)

Train = Callable[..., Path]


@pytest.fixture
def run(train_small: Train) -> Path:
    return train_small("run", steps=3)


def again(path: Path, loaded: tuple[Any, ...]) -> None:
    """Save what was loaded under another name."""
    agent, spec, normalizer, meta = loaded
    facts = checkpoint.RewardFacts(**meta["reward_facts"])
    save_checkpoint(
        path,
        algorithm=meta["algorithm"],
        config=meta["config"],
        facts=facts,
        agent=agent,
        spec=spec,
        normalizer=normalizer,
        train_state={"agent": agent.state_dict()},
    )


def test_what_is_saved_is_loaded(run: Path, tmp_path: Path) -> None:
    first = load_acting(find_checkpoint(run))
    again(tmp_path / "copy", first)
    second = load_acting(tmp_path / "copy")
    weights, copied = first[0].acting.state_dict(), second[0].acting.state_dict()
    assert weights.keys() == copied.keys()
    assert all(torch.equal(weights[name], copied[name]) for name in weights)
    assert first[1] == second[1]
    assert first[2].to_dict() == second[2].to_dict()
    assert first[3] == second[3]
    assert first[0].config == second[0].config


def test_a_checkpoint_from_before_scalings_and_augmentations_acts_as_it_did(run: Path) -> None:
    path = find_checkpoint(run)
    now = load_acting(path)
    settings = json.loads((path / "config.json").read_text(encoding="utf-8"))
    for name in ("state_scaling", "action_scaling", "augment"):
        del settings["config"][name]
    (path / "config.json").write_text(json.dumps(settings), encoding="utf-8")
    stats = json.loads((path / "stats.json").read_text(encoding="utf-8"))
    for part in ("state", "action"):
        stats[f"{part}_mean"], stats[f"{part}_std"] = stats.pop(f"{part}_offset"), stats.pop(f"{part}_scale")
    (path / "stats.json").write_text(json.dumps(stats), encoding="utf-8")
    then = load_acting(path)
    assert then[0].config == now[0].config
    assert then[2].to_dict() == now[2].to_dict()


def test_acting_weights_are_those_of_the_training_state(run: Path) -> None:
    path = find_checkpoint(run, "last")
    acting, networks = load_acting(path)[0].acting.state_dict(), load_train_state(path)["agent"]["networks"]
    assert torch.equal(acting["actor.net.0.weight"], networks["actor.net.0.weight"])
    assert torch.equal(acting["decoder.net.0.weight"], networks["target_vae.decoder.net.0.weight"])


def test_a_save_that_is_cut_short_leaves_nothing(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def cut_short(*_: Any) -> None:
        raise KeyboardInterrupt

    loaded = load_acting(find_checkpoint(run))
    monkeypatch.setattr(checkpoint.torch, "save", cut_short)
    with pytest.raises(KeyboardInterrupt):
        again(tmp_path / "copies" / step_name(3), loaded)
    assert [path.name for path in (tmp_path / "copies").iterdir()] == [".step-00000003.partial"]


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "spec.json", "stats.json"])
@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "other"])
def test_a_damaged_checkpoint_is_refused_by_name(run: Path, name: str, damage: str) -> None:
    path = find_checkpoint(run)
    spoil(path / name, damage)
    with pytest.raises(
        CheckpointError, match=r"missing or damaged|is not of this version|no checkpoint|not a normaliser"
    ):
        load_acting(path)


@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "other"])
def test_a_damaged_training_state_is_refused_by_name(run: Path, damage: str) -> None:
    path = find_checkpoint(run)
    spoil(path / "train_state.pt", damage)
    with pytest.raises(CheckpointError, match=r"train_state.pt: missing or damaged: .*; choose another checkpoint"):
        load_train_state(path)


def spoil(file: Path, damage: str) -> None:
    content = file.read_bytes()
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes({"empty": b"", "cut": content[: len(content) // 2], "other": b"{}"}[damage])


def test_weights_of_another_shape_are_refused(run: Path) -> None:
    path = find_checkpoint(run)
    meta = json.loads((path / "config.json").read_text())
    meta["config"]["hidden"] = [17]
    (path / "config.json").write_text(json.dumps(meta))
    with pytest.raises(CheckpointError, match=r"model.safetensors: missing or damaged: RuntimeError.*; choose another"):
        load_acting(path)


@pytest.mark.parametrize(
    ("key", "value"),
    [("algorithm", "dqn"), ("algorithm", None), ("config", {"luck": 1}), ("config", [1]), ("reward_facts", {})],
)
def test_settings_of_another_program_are_refused(run: Path, key: str, value: Any) -> None:
    path = find_checkpoint(run)
    meta = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(meta | {key: value}))
    with pytest.raises(CheckpointError, match="is not of this version"):
        load_acting(path)


class Intruder:
    """Runs code when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


def test_a_pickle_that_runs_code_is_not_loaded(run: Path, tmp_path: Path) -> None:
    path = find_checkpoint(run)
    for write in (torch.save, lambda what, where: where.write_bytes(pickle.dumps(what, protocol=2))):
        write(Intruder(tmp_path / "mark"), path / "train_state.pt")
        with pytest.raises(CheckpointError, match=r"train_state.pt: missing or damaged"):
            load_train_state(path)
    assert not (tmp_path / "mark").exists()


def test_checkpoints_are_found_by_name_and_step(train_small: Train) -> None:
    run = train_small("run", "bc", steps=4, eval_every=2, save_every=2)
    assert find_checkpoint(run, "last").name == find_checkpoint(run, 4).name == "step-00000004"
    assert find_checkpoint(run, 2).name == "step-00000002"
    assert find_checkpoint(find_checkpoint(run, 2)) == find_checkpoint(run, 2)
    with pytest.raises(CheckpointError, match="run: no checkpoint 3; saved steps: 2, 4"):
        find_checkpoint(run, 3)


@pytest.mark.parametrize("name", ["nothing", ""])
def test_what_is_no_run_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(CheckpointError, match="not a run or checkpoint; expected a directory made by `lapwing train`"):
        find_checkpoint(tmp_path / name)


def directories(run: Path, *steps: int) -> None:
    for step in steps:
        (run / "checkpoints" / step_name(step)).mkdir(parents=True)


def test_links_are_replaced_and_keep_what_they_point_to(tmp_path: Path) -> None:
    directories(tmp_path, 2, 3, 4, 6, 7)
    link_checkpoint(tmp_path, "last", 6)
    link_checkpoint(tmp_path, "last", 7)
    link_checkpoint(tmp_path, "best", 3)
    assert (linked_step(tmp_path, "last"), linked_step(tmp_path, "best")) == (7, 3)
    prune_checkpoints(tmp_path, every=4)
    assert checkpoint_steps(tmp_path) == [3, 4, 7]


def test_what_came_after_a_step_is_discarded(tmp_path: Path) -> None:
    directories(tmp_path, 2, 4, 6)
    (tmp_path / "checkpoints" / ".step-00000008.partial").mkdir()
    discard_after(tmp_path, 4)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == [step_name(2), step_name(4)]


@pytest.mark.parametrize("preset", list(PRESETS))
def test_configs_survive_json(preset: str) -> None:
    values = json.loads(json.dumps(checkpoint.asdict(PRESETS[preset])))
    assert config_from_json(LapoConfig, values) == PRESETS[preset]


@pytest.mark.parametrize("error", [RuntimeError("unexpected pos 64"), OSError(28, "No space left on device")])
def test_a_save_that_does_not_fit_the_disk_is_one_error_and_leaves_nothing(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def full(*_: Any) -> None:
        raise error

    loaded = load_acting(find_checkpoint(run))
    monkeypatch.setattr(checkpoint.torch, "save", full)
    with pytest.raises(CheckpointError, match=r"step-00000003: cannot be written .* free some space"):
        again(tmp_path / "copies" / step_name(3), loaded)
    assert not list((tmp_path / "copies").iterdir())


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("config.json", lambda one: one["config"]["vision"].update(backbone="vit"), "config.json describes no agent"),
        ("config.json", lambda one: one["config"]["vision"].update(encoder="vit"), "config.json describes no agent"),
        ("spec.json", lambda one: one["cameras"][0].update(height=-3), "config.json describes no agent"),
        ("stats.json", lambda one: one.update(state_offset=[0.0], state_scale=[1.0]), "have different axes"),
    ],
)
def test_settings_that_make_no_agent_are_refused(
    run: Path, file: str, change: Callable[[Any], Any], message: str
) -> None:
    path = find_checkpoint(run)
    content = json.loads((path / file).read_text())
    change(content)
    (path / file).write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=f"{message}.*; choose another checkpoint"):
        load_acting(path)


def test_settings_that_are_no_mapping_are_refused(run: Path) -> None:
    path = find_checkpoint(run)
    content = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**content, "config": []}))
    with pytest.raises(CheckpointError, match=r"config.json is not of this version .*; choose another checkpoint"):
        load_config(path, LapoConfig)


def test_a_training_state_without_its_parts_is_refused(run: Path) -> None:
    path = find_checkpoint(run)
    torch.save({"agent": {}}, path / "train_state.pt")
    with pytest.raises(CheckpointError, match="holds no training state; choose another checkpoint"):
        load_train_state(path)


def test_critics_come_from_training_and_are_missed_without(run: Path) -> None:
    path = find_checkpoint(run)
    agent = load_acting(path)[0]
    assert with_critics(agent, path) is agent
    trained = load_train_state(path)["agent"]["networks"]
    assert isinstance(agent, LapoAgent)
    for name, value in agent.critic.state_dict().items():
        assert torch.equal(value, trained[f"critic.{name}"])
    torch.save({"agent": {"networks": {}}, "rng": [], "state": {}}, path / "train_state.pt")
    with pytest.raises(CheckpointError, match=r"train_state.pt: does not fit its config.json: .*; choose another"):
        with_critics(agent, path)
    (path / "train_state.pt").unlink()
    assert with_critics(agent, path) is None
