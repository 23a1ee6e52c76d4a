"""Training a success classifier on small pictures, using it, and labelling a recording with it."""

from __future__ import annotations

import csv
import json
import math
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from lapwing.agents.reward import RewardConfig
from lapwing.data.formats import read_recording
from lapwing.data.formats.flat_writer import FlatWriter
from lapwing.data.sidecar import labelled, read_sidecar
from lapwing.episode import Episode, Observation, Recording
from lapwing.errors import CheckpointError, ConfigError, DataError, SpecError
from lapwing.nets.backbone import BackboneConfig
from lapwing.run.classification import Classification
from lapwing.run.classifier import SuccessClassifier
from lapwing.run.classifier_report import write_classifier_report
from lapwing.run.label import expect_room, label_recording, labels_path, write_labels
from lapwing.run.labelled_source import open_labelled
from lapwing.run.options import TrainOptions
from lapwing.run.policy import load_policy
from lapwing.run.train import train_on
from lapwing.run.train_reward import LabelledPaths, train_reward
from lapwing.spec import Camera, RobotSpec, unnamed_axes

SIZE = 16
CONFIG = RewardConfig(lr=3e-3, hidden=32, random_shift=1, vision=BackboneConfig("small", "none"))
OPTIONS = TrainOptions(
    steps=40,
    batch_size=16,
    eval_every=20,
    save_every=1000,
    log_every=20,
    train_fraction=0.6,
    image_keys=("front",),
    device="cpu",
    precision="fp32",
)


def picture(rng: np.random.Generator, success: bool) -> np.ndarray:
    """Noise, and in successes a bright square somewhere."""
    image = rng.integers(0, 120, (SIZE, SIZE, 3), np.uint8)
    if success:
        top, left = rng.integers(1, SIZE - 6, 2)
        image[top : top + 5, left : left + 5] = 230
    return image


def write_pictures(root: Path, files: int = 5, frames: int = 20) -> LabelledPaths:
    rng = np.random.default_rng(0)
    for name in ("success", "failure"):
        (root / name).mkdir()
        for number in range(files):
            transitions = []
            for _ in range(frames):
                look = {"front": picture(rng, name == "success"), "other": np.zeros((SIZE, SIZE, 3), np.uint8)}
                transitions.append(
                    {"observations": look, "actions": np.zeros(2), "next_observations": look, "rewards": 0,
                     "masks": 1.0, "dones": False}
                )  # fmt: skip
            (root / name / f"{number}.pkl").write_bytes(pickle.dumps(transitions))
    return LabelledPaths([root / "success"], [root / "failure"])


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> LabelledPaths:
    return write_pictures(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="module")
def run(paths: LabelledPaths, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_reward(paths, tmp_path_factory.mktemp("runs") / "reward", CONFIG, OPTIONS)


@pytest.fixture(scope="module")
def classifier(run: Path) -> SuccessClassifier:
    return SuccessClassifier.load(run)


@pytest.fixture
def looks() -> Callable[..., np.ndarray]:
    """looks(True, False): fresh pictures [B, H, W, 3]."""
    return lambda *success: np.stack([picture(np.random.default_rng(9), one) for one in success])


def held_out(run: Path) -> Classification:
    record = json.loads((run / "held_out.json").read_text())
    assert record.pop("step") <= OPTIONS.steps
    return Classification.from_dict(record)


def test_squares_are_learnt(run):
    found = held_out(run)
    assert (found.successes, found.failures) == (20, 20)
    assert found.accuracy >= 0.95
    assert found.false_positive_rate == 0
    assert found.auc > 0.98


def test_the_columns_are_those_the_page_explains(run):
    with (run / "progress.csv").open() as file:
        columns = next(csv.reader(file))
    page = (Path(__file__).parents[2] / "docs/algorithms/reward.md").read_text()
    assert "valid/loss" in columns
    own = [name for name in columns if name not in ("step", "seconds", "steps_per_s", "waiting_share", "memory_gb")]
    assert [name for name in own if f"`{name}`" not in page] == []


def test_files_are_on_one_side_alone(run):
    parts = json.loads((run / "split.json").read_text())
    assert parts["unit"] == "file"
    assert [len(parts[side]) for side in ("train", "calibration", "test")] == [6, 2, 2]


def test_one_observation_gives_a_number_and_a_decision(classifier, looks):
    for success in (True, False):
        look = Observation({"front": looks(success)[0], "other": np.zeros((3, 3, 3), np.uint8)}, np.zeros(4))
        probability, decision = classifier.predict_success(look)
        assert (type(probability), type(decision)) == (float, bool)
        assert decision is success
        assert (probability > 0.5) is success


def test_a_batch_gives_an_array(classifier, looks):
    probability, decision = classifier.predict_success({"images": {"front": looks(True, False, True)}})
    assert decision.tolist() == [True, False, True]
    assert probability.shape == (3,)
    alone = classifier.predict_success({"images": {"front": looks(False)[0]}})[0]
    assert probability[1] == pytest.approx(alone, abs=1e-5)


def test_frames_of_another_size_are_resized(classifier, looks):
    large = looks(True)[0].repeat(3, 0).repeat(3, 1)
    assert classifier.predict_success({"images": {"front": large}})[1] is True


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ({"side": np.zeros((4, 4, 3), np.uint8)}, "images: cameras side, expected 'front' too"),
        ({"front": np.zeros((4, 4, 3))}, "camera 'front' is float64, expected uint8 RGB"),
        ({"front": np.zeros((4, 4), np.uint8)}, r"camera 'front' has shape \[4, 4\]"),
        ({"front": np.uint8(3)}, "camera 'front' has shape"),
        (None, "images: a NoneType, expected a mapping of camera names"),
    ],
)
def test_observations_that_do_not_fit_are_refused(classifier, images, message):
    with pytest.raises(SpecError, match=message):
        classifier.predict_success({"images": images})


def test_a_threshold_of_ones_own_decides(run, looks):
    front = {"images": {"front": looks(True, False)}}
    probability, _ = SuccessClassifier.load(run).predict_success(front)
    below, above = probability.min() * 0.9, 1 - (1 - probability.max()) / 2
    assert SuccessClassifier.load(run, threshold=below).predict_success(front)[1].tolist() == [True, True]
    strict = SuccessClassifier.load(run, threshold=above)
    assert strict.predict_success(front)[1].tolist() == [False, False]
    assert strict.threshold == pytest.approx(above)


@pytest.mark.parametrize("threshold", [0.0, 1.0, math.nan])
def test_a_threshold_that_is_no_probability_is_refused(run, threshold):
    with pytest.raises(ConfigError, match=r"threshold: got .*, expected a probability between 0 and 1"):
        SuccessClassifier.load(run, threshold=threshold)


def test_a_classifier_is_no_policy(run):
    with pytest.raises(CheckpointError, match="a success classifier, expected a policy"):
        load_policy(run)


def test_the_report_holds_the_pictures(run):
    page = (run / "report.html").read_text()
    for words in ("Errors", "Probabilities", "false positives in red", "false negatives in red", "Training", "Data"):
        assert words in page
    assert page.count("data:image/png;base64,") == 2
    listed = json.loads((run / "mistakes.json").read_text())
    assert [len(listed[name]) for name in ("failures", "successes")] == [12, 12]
    worst = [one["probability"] for one in listed["failures"]]
    assert worst == sorted(worst, reverse=True)
    again = run.with_name("copy")
    assert write_classifier_report(run).read_text() == page
    assert not again.exists()


def test_a_report_without_measurements_is_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"algorithm": "reward"}')
    with pytest.raises(CheckpointError, match=r"held_out\.json is missing"):
        write_classifier_report(tmp_path)


def test_a_resumed_run_is_the_same_to_the_bit(paths, run, tmp_path):
    out = tmp_path / "resumed"
    with pytest.raises(KeyboardInterrupt):
        _train_until(paths, out, 20)
    train_reward(paths, out, CONFIG, OPTIONS, resume=True)
    one, other = (sorted((folder / "checkpoints").glob("step-*"))[-1] for folder in (run, out))
    assert one.name == other.name
    assert (one / "model.safetensors").read_bytes() == (other / "model.safetensors").read_bytes()


def _train_until(paths: LabelledPaths, out: Path, step: int) -> None:
    def watch() -> None:
        if (out / "checkpoints" / f"step-{step:08d}").exists():
            raise KeyboardInterrupt

    train_on(
        lambda progress: open_labelled(paths.success, paths.failure, (), OPTIONS, progress),
        out, "reward", CONFIG, OPTIONS, watch=watch,
    )  # fmt: skip


def test_it_stops_when_nothing_gets_better(paths, tmp_path):
    """Weights that do not move cannot get better than they were at the first measurement."""
    options = replace(OPTIONS, steps=1000, eval_every=2, patience=3)
    out = train_reward(paths, tmp_path / "settled", replace(CONFIG, lr=1e-12), options)
    steps = [path.name for path in (out / "checkpoints").glob("step-*")]
    assert f"step-{8:08d}" in steps  # best at 2, and three more measurements
    assert not [name for name in steps if int(name[5:]) > 20]


def test_an_epoch_shows_the_larger_kind_once(paths, tmp_path):
    fewer = LabelledPaths(paths.success, [paths.failure[0] / f"{number}.pkl" for number in range(3)])
    options = replace(OPTIONS, steps=0, epochs=1, batch_size=10)
    out = train_reward(fewer, tmp_path / "epoch", CONFIG, options)
    frames = json.loads((out / "data.json").read_text())["frames"]["train"]
    assert frames == {"success": 40, "failure": 20}  # one of three with both kinds, one of two others
    assert (out / "checkpoints" / f"step-{8:08d}").exists()


def test_an_interrupted_step_has_no_threshold(run, paths, tmp_path):
    options = replace(OPTIONS, steps=3, eval_every=2)
    out = train_reward(paths, tmp_path / "odd", CONFIG, options)
    SuccessClassifier.load(out, "last")  # the last step is always measured
    record = out / "checkpoints" / f"step-{3:08d}" / "model.safetensors"
    weights = load_file(record)
    weights["threshold"].fill_(math.nan)
    save_file(weights, record)
    with pytest.raises(CheckpointError, match="no threshold was chosen at this step"):
        SuccessClassifier.load(out, "last")
    assert SuccessClassifier.load(out, "last", threshold=0.5).threshold == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("success", "failure", "message"),
    [
        (True, False, r"none of 100 shows failure \(--failure was not given\), expected frames of both kinds"),
        (False, True, r"none of 100 shows success \(--success was not given\), expected frames of both kinds"),
    ],
)
def test_one_kind_alone_is_refused(paths, tmp_path, success, failure, message):
    some = LabelledPaths(paths.success * success, paths.failure * failure)
    with pytest.raises(DataError, match=message):
        train_reward(some, tmp_path / "never", CONFIG, OPTIONS)
    assert not (tmp_path / "never").exists()


def test_settings_about_actions_are_refused(paths, tmp_path):
    with pytest.raises(ConfigError, match="alignment: got 1, but a classifier has no actions"):
        train_reward(paths, tmp_path / "never", CONFIG, replace(OPTIONS, alignment=1))


SPEC = RobotSpec("arm", (Camera("front", SIZE, SIZE),), unnamed_axes("state", 2), unnamed_axes("action", 2))


def recorded(*episodes: tuple[str, bool]) -> Recording:
    """One picture for each letter ("s": success), and whether the last is of the observation after the last action."""
    rng = np.random.default_rng(4)
    made: list[Any] = []
    for letters, is_observed in episodes:
        steps = len(letters) - is_observed
        images = {"front": np.stack([picture(rng, letter == "s") for letter in letters])}
        made.append(Episode(images, np.zeros((len(letters), 2)), np.zeros((steps, 2)), None, terminated=False))
    return Recording(Path("memory"), "memory", SPEC, made)


def test_a_recording_is_labelled_at_the_first_step_into_success(classifier):
    found = label_recording(recorded(("ffffs", True), ("ffssf", False), ("ffff", False)), classifier, progress=False)
    assert [(one.name, one.success_step, one.goes_on) for one in found] == [
        ("episode_0", 3, False),
        ("episode_1", 1, True),
        ("episode_2", None, False),
    ]
    assert [one.to_dict() for one in found] == [
        {"success": True, "reward": [0, 0, 0, 1], "terminated": True},
        {"success": True, "reward": [0, 1, 0, 0, 0], "terminated": False},
        {"success": False, "reward": [0, 0, 0, 0], "terminated": False},
    ]
    assert found[0].probability > 0.5 > found[2].probability


def test_labels_come_back_as_rewards(classifier, tmp_path):
    recording = recorded(("ffffs", True), ("ffff", False))
    path = tmp_path / "labels.json"
    write_labels(path, label_recording(recording, classifier, progress=False))
    labels = read_sidecar(path)
    back = [labelled(one, labels[f"episode_{index}"], "here") for index, one in enumerate(recording.episodes)]
    assert [one.reward.tolist() for one in back if one.reward is not None] == [[0, 0, 0, 1], [0, 0, 0, 0]]
    assert [(one.success, one.terminated) for one in back] == [(True, True), (False, False)]


def test_labels_are_not_overwritten_unasked(classifier, tmp_path):
    path = tmp_path / "labels.json"
    path.write_text("mine")
    labels = label_recording(recorded(("ffs", True)), classifier, progress=False)
    with pytest.raises(DataError, match="labels are there already; choose another --out, or give --overwrite"):
        write_labels(path, labels)
    with pytest.raises(DataError, match=r"nowhere/labels\.json: cannot be written \(no such folder\)"):
        expect_room(tmp_path / "nowhere" / "labels.json", overwrite=False)
    assert path.read_text() == "mine"
    write_labels(path, labels, overwrite=True)
    assert read_sidecar(path)["episode_0"].success is True


def test_a_recording_without_its_camera_is_refused(classifier):
    blind = replace(recorded(("ffs", True)), spec=replace(SPEC, cameras=(Camera("top", 8, 8),)))
    with pytest.raises(DataError, match="cameras are top, expected 'front' too"):
        label_recording(blind, classifier, progress=False)


def test_labels_lie_beside_the_recording():
    assert labels_path(Path("data/demos.hdf5")) == Path("data/demos.hdf5.labels.json")
    assert labels_path(Path("data/folder/")) == Path("data/folder.labels.json")


def test_the_command_line_goes_from_pictures_to_labels(lapwing, paths, tmp_path, tiny_flat):
    run = tmp_path / "run"
    said = lapwing(
        "train reward", success=paths.success[0], failure=paths.failure[0], out=run, image_keys="front", steps=20,
        batch_size=16, eval_every=20, train_fraction=0.6, lr=3e-3, hidden=32, backbone="small", weights="none",
        device="cpu", precision="fp32",
    )  # fmt: skip
    assert said.code == 0, said.err
    assert "held out, at threshold" in said.out
    settings = json.loads((run / "config.json").read_text())
    assert (settings["options"]["steps"], settings["options"]["patience"]) == (20, 10)
    again = lapwing("report", run)
    assert (again.code, again.out.strip()) == (0, str(run / "report.html"))
    wrong = lapwing("data label", tiny_flat, classifier=run)
    assert wrong.code == 2
    assert "expected 'front' too" in wrong.err


def test_the_command_line_labels_a_recording_without_touching_it(lapwing, run, tmp_path):
    demos, out = tmp_path / "demos.hdf5", tmp_path / "demos.hdf5.labels.json"
    with FlatWriter(demos, SPEC) as writer:
        for episode in recorded(("fffsf", False), ("fffff", False)).episodes:
            writer.add(episode)
    before = demos.read_bytes()
    said = lapwing("data label", demos, classifier=run, device="cpu")
    assert (said.code, demos.read_bytes()) == (0, before)
    assert said.out == f"{out}: 1 of 2 episodes marked as successes; 1 of these were recorded on afterwards\n"
    assert lapwing("data label", demos, classifier=run).code == 2
    assert lapwing("data label", demos, classifier=run, overwrite=True).code == 0
    converted = tmp_path / "rewarded.hdf5"
    assert lapwing("data convert", demos, converted, reward=out).code == 0
    rewards = [episode.reward.tolist() for episode in read_recording(converted).episodes if episode.reward is not None]
    assert rewards == [[0, 0, 1, 0, 0], [0, 0, 0, 0, 0]]


def test_no_labelled_frames_at_all_are_refused(lapwing, tmp_path):
    said = lapwing("train reward", out=tmp_path / "never")
    assert said.code == 2
    assert "no labelled frames, expected --success DIR and --failure DIR" in said.err
