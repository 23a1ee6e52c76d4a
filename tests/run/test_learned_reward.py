"""Learning where a classifier gives the reward: what it pays, what is written of it, and who cannot use it."""

from __future__ import annotations

import json
import multiprocessing
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from acting_world import line_world
from command_line import Lapwing, error_line
from lit_world import demonstrations, lit_spec, lit_world, train_classifier

from lapwing.agents.sac import SacConfig
from lapwing.data.formats.flat import FlatWriter
from lapwing.errors import CheckpointError, ConfigError, SpecError
from lapwing.nets.backbone import BackboneConfig
from lapwing.run.classifier import SuccessClassifier
from lapwing.run.episode_log import read_episodes
from lapwing.run.hybrid import World, train_hybrid
from lapwing.run.learned_reward import rewarded
from lapwing.run.online import OnlineOptions, read_counts
from lapwing.run.options import TrainOptions
from lapwing.run.report import write_report

CONFIG = SacConfig(hidden=(8,), imitation=0.0, grasp_imitation=0.0, vision=BackboneConfig("small", "none"))
OPTIONS = TrainOptions(steps=4, batch_size=4, eval_every=2, device="cpu", precision="fp32", train_fraction=1.0)
IN_STEP = OnlineOptions(actors=0, training_starts=10, random_steps=6, capacity=100)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_classifier(tmp_path_factory.mktemp("classifier"))


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_classifier(tmp_path_factory.mktemp("other"), seed=1)


@pytest.fixture
def train(tmp_path: Path) -> Callable[..., Path]:
    """train(world, resume=False, steps=4, actors=0) -> run directory, always the same one."""
    with FlatWriter(tmp_path / "demos.hdf5", lit_spec()) as writer:
        for episode in demonstrations():
            writer.add(episode)

    def run(world: World, resume: bool = False, actors: int = 0, **options: Any) -> Path:
        online = replace(IN_STEP, actors=actors)
        where = (tmp_path / "demos.hdf5", tmp_path / "run")
        return train_hybrid(*where, world, CONFIG, replace(OPTIONS, **options), online, resume=resume)

    return run


def settings(run: Path) -> dict[str, Any]:
    return json.loads((run / "config.json").read_text())["world"]


@pytest.mark.parametrize("actors", [0, 1])
def test_it_pays_and_ends_where_it_sees_success(train: Callable[..., Path], classifier: Path, actors: int) -> None:
    run = train(rewarded(lit_world(), classifier), actors=actors)
    episodes = read_episodes(run / "episodes.jsonl")
    assert len(episodes) >= 3
    told = {(one.length, one.reward, one.success, one.true_success) for one in episodes}
    assert told == {(3, 1.0, True, False)}
    assert not multiprocessing.active_children()


def test_what_it_misses_is_seen_beside_it(train: Callable[..., Path], classifier: Path) -> None:
    run = train(rewarded(lit_world(lit_at=99), classifier))
    told = {(one.length, one.reward, one.success, one.true_success) for one in read_episodes(run / "episodes.jsonl")}
    assert told == {(5, 0.0, False, True)}
    page = write_report(run).read_text(encoding="utf-8")
    assert "episodes that succeed by the classifier" in page
    assert "by the world" in page
    cells = page.split("<th>to ")[1].split("</tr>")[0]
    assert cells.index("0 %") < cells.index("100 %")


def test_without_one_the_world_rewards(train: Callable[..., Path]) -> None:
    run = train(rewarded(lit_world(), None))
    told = {(one.length, one.reward, one.success, one.true_success) for one in read_episodes(run / "episodes.jsonl")}
    assert told == {(5, 7.0, True, None)}
    assert settings(run) == {"name": "lit", "size": 16, "reward": None}
    assert "by the classifier" not in write_report(run).read_text(encoding="utf-8")


def test_a_resumed_run_keeps_its_reward(train: Callable[..., Path], classifier: Path, other: Path) -> None:
    run = train(rewarded(lit_world(), classifier))
    fingerprint = SuccessClassifier.load(classifier).fingerprint()
    assert settings(run) == {"name": "lit", "size": 16, "reward": str(classifier), "reward_weights": fingerprint}
    train(rewarded(lit_world(), classifier), resume=True, steps=8)
    assert read_counts(run / "buffers").env_steps == 10 + 7
    with pytest.raises(ConfigError, match=r"cannot resume with world\.reward None, the run has '.*run'"):
        train(rewarded(lit_world(), None), resume=True, steps=9)
    with pytest.raises(ConfigError, match=r"cannot resume with world\.reward '"):
        train(rewarded(lit_world(), other), resume=True, steps=9)


def test_a_classifier_that_has_changed_is_noticed(
    train: Callable[..., Path], classifier: Path, other: Path, tmp_path: Path
) -> None:
    place = tmp_path / "classifier"
    shutil.copytree(classifier, place, symlinks=True)
    assert SuccessClassifier.load(place).fingerprint() == SuccessClassifier.load(classifier).fingerprint()
    train(rewarded(lit_world(), place))
    shutil.rmtree(place)
    shutil.copytree(other, place, symlinks=True)
    with pytest.raises(ConfigError, match=r"cannot resume with world\.reward_weights '[0-9a-f]{16}', the run has '"):
        train(rewarded(lit_world(), place), resume=True, steps=8)


def test_another_threshold_is_another_reward(classifier: Path) -> None:
    strict = SuccessClassifier.load(classifier, threshold=0.99)
    assert strict.fingerprint() != SuccessClassifier.load(classifier).fingerprint()


def test_a_camera_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    wrist = train_classifier(tmp_path, "wrist")
    with pytest.raises(SpecError, match=r"world 'lit': its cameras are front, expected 'wrist' too, which the"):
        rewarded(lit_world(), wrist)


def test_a_world_without_images_cannot_use_it(classifier: Path) -> None:
    with pytest.raises(SpecError, match=r"world 'line': its cameras are none, expected 'front' too"):
        rewarded(line_world(), classifier)


def test_a_policy_is_no_classifier(train: Callable[..., Path]) -> None:
    with pytest.raises(CheckpointError, match=r"run: holds a policy \(sac\), expected a success classifier"):
        rewarded(lit_world(), train(lit_world()))


SMALL = """--steps 2 --log-every 1 --eval-every 2 --training-starts 12 --random-steps 6 --actors 0 --hidden 8
    --batch-size 4 --threads 1 --device cpu --precision fp32 --backbone small --weights none --capacity 500"""


def test_on_the_command_line(lapwing: Lapwing, tmp_path: Path) -> None:
    """Of a toy world that is darker than what the classifier was shown, it says no success, or yes at once."""
    judge = train_classifier(tmp_path / "classifier", "global")
    lit = {"world": "toy-single-fixed", "size": 16}
    assert lapwing("data sample", tmp_path / "demos", episodes=2, quality="expert", **lit).code == 0
    words = (tmp_path / "demos", "--out", tmp_path / "run")
    blind = error_line(lapwing("hybrid", *words, *SMALL.split(), world="toy-single-fixed-state", reward=judge))
    assert "world 'toy-single-fixed-state': its cameras are none, expected 'global' too" in blind
    missing = error_line(lapwing("hybrid", *words, *SMALL.split(), reward=tmp_path / "nowhere", **lit))
    assert "nowhere: not a run or checkpoint" in missing
    assert not (tmp_path / "run").exists()
    assert lapwing("hybrid", *words, *SMALL.split(), reward=judge, **lit).code == 0
    assert settings(tmp_path / "run")["reward"] == str(judge)
    assert lapwing("hybrid", *words, "--resume", steps=4).code == 0
    assert "cannot resume with world.reward None" in error_line(lapwing("hybrid", *words, "--resume", reward=None))
