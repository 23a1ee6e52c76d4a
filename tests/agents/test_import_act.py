"""`lapwing import act`: a run of published weights acts, is evaluated and is trained on, and bad input is named."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from reference_act import DetrVae, Policy, lerobot_names
from safetensors.torch import save_file
from torch import Tensor

from lapwing import cli
from lapwing.data.formats.flat_writer import FlatWriter
from lapwing.envs import sample_world, world_spec
from lapwing.errors import CheckpointError
from lapwing.run.checkpoint import load_acting, load_train_state
from lapwing.run.policy import load_policy

CAMERAS = ("left", "right", "global")
SIZE = 40
IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}


@pytest.fixture(scope="module")
def published() -> Policy:
    """A policy for the robot of the toy world, in its smallest size."""
    torch.manual_seed(7)
    return Policy(DetrVae("act", 3, 16, 16, chunk=6, width=16, feedforward=16, decoder_layers=2, latent=4)).eval()


@pytest.fixture(scope="module")
def statistics() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(7)
    return {
        "action_mean": rng.normal(size=16).astype(np.float32),
        "action_std": rng.uniform(0.1, 0.3, 16).astype(np.float32),
        "qpos_mean": rng.normal(size=16).astype(np.float32),
        "qpos_std": rng.uniform(0.1, 0.3, 16).astype(np.float32),
        "example_qpos": rng.normal(size=(9, 16)).astype(np.float32),
    }


@pytest.fixture
def files(tmp_path: Path, published: Policy, statistics: dict[str, np.ndarray]) -> tuple[Path, Path]:
    """policy_best.ckpt and dataset_stats.pkl, as the original stores them."""
    weights, stats = tmp_path / "policy_best.ckpt", tmp_path / "dataset_stats.pkl"
    torch.save(published.state_dict(), weights)
    stats.write_bytes(pickle.dumps(statistics))
    return weights, stats


Lapwing = Callable[..., tuple[int, str, str]]


@pytest.fixture
def lapwing(capsys: pytest.CaptureFixture[str]) -> Lapwing:
    """lapwing("import act", ...): exit code, what was printed, and the error."""

    def run(command: str, *words: object) -> tuple[int, str, str]:
        capsys.readouterr()
        return cli.main([*command.split(), *map(str, words)]), *capsys.readouterr()

    return run


def flags(out: Path, stats: Path | None = None) -> list[object]:
    given = [] if stats is None else ["--stats", stats]
    return [*given, "--cameras", *CAMERAS, "--size", SIZE, SIZE, "--heads", 2, "--out", out]


@pytest.fixture
def run(lapwing: Lapwing, files: tuple[Path, Path], tmp_path: Path) -> Path:
    out = tmp_path / "run"
    assert lapwing("import act", files[0], *flags(out, files[1]))[0] == 0
    return out


def observation() -> dict[str, Any]:
    rng = np.random.default_rng(1)
    images = {name: rng.integers(0, 256, (SIZE, SIZE, 3), np.uint8) for name in CAMERAS}
    return {"images": images, "state": rng.normal(size=16).astype(np.float32)}


def expected_actions(published: Policy, statistics: dict[str, np.ndarray], layer: int) -> np.ndarray:
    """The physical chunk [K, A] by the published policy's own code."""
    seen = observation()
    qpos = torch.from_numpy((seen["state"] - statistics["qpos_mean"]) / statistics["qpos_std"])[None]
    images = torch.from_numpy(np.stack([seen["images"][name] for name in CAMERAS]))[None]
    with torch.no_grad():
        said = published(qpos, images)[layer][0].numpy()
    return said * statistics["action_std"] + statistics["action_mean"]


def played(run: Path) -> np.ndarray:
    policy = load_policy(run)
    return np.stack([policy(observation()) for _ in range(6)])


def test_an_imported_run_acts_as_published(
    run: Path, published: Policy, statistics: dict[str, np.ndarray], files: tuple[Path, Path]
) -> None:
    np.testing.assert_allclose(played(run), expected_actions(published, statistics, 0), atol=1e-5)
    spec = load_policy(run).spec
    assert (spec.camera_names, spec.cameras[0].height, spec.rate_hz) == (CAMERAS, SIZE, 50.0)
    assert (spec.state[7].name, spec.action[13].name, spec.action[15].name) == (
        "right_waist",
        "right_gripper",
        "base_angular",
    )
    imported = json.loads((run / "config.json").read_text())["imported"]
    assert (imported["weights"], imported["stats"]) == (str(files[0]), str(files[1]))
    assert any("decoder layers after the first" in note for note in imported["left_out"])


def test_an_imported_run_is_evaluated_and_reported(lapwing: Lapwing, run: Path) -> None:
    code, out, err = lapwing("eval", run, "--world", "toy", "--episodes", 2, "--device", "cpu", "--ensemble")
    assert (code, err) == (0, "")
    assert "act, ensemble" in out
    assert "imported weights" in (run / "report.html").read_text()


def test_what_was_left_out_is_printed(lapwing: Lapwing, files: tuple[Path, Path], tmp_path: Path) -> None:
    code, out, _ = lapwing("import act", files[0], *flags(tmp_path / "run", files[1]))
    assert code == 0
    assert "left out: 18 tensors of decoder layers after the first" in out
    code, out, _ = lapwing("import act", files[0], *flags(tmp_path / "last", files[1]), "--decoder-output", "last")
    assert code == 0
    assert "decoder layers" not in out


def test_actions_are_kept_within_the_range_where_the_statistics_tell_it(
    lapwing: Lapwing, files: tuple[Path, Path], tmp_path: Path, statistics: dict[str, np.ndarray], run: Path
) -> None:
    normalizer = load_acting(run / "checkpoints" / "last")[2]
    mean, std = statistics["action_mean"], statistics["action_std"]
    np.testing.assert_allclose(normalizer.action_low, mean - 1000 * std, rtol=1e-6)
    files[1].write_bytes(pickle.dumps(statistics | {"action_min": mean - std, "action_max": mean + std}))
    assert lapwing("import act", files[0], *flags(tmp_path / "bounded", files[1]))[0] == 0
    normalizer = load_acting(tmp_path / "bounded" / "checkpoints" / "best")[2]
    np.testing.assert_array_equal(normalizer.action_low, mean - std)
    np.testing.assert_array_equal(normalizer.action_high, mean + std)


def lerobot_statistics(statistics: dict[str, np.ndarray], among_weights: bool) -> dict[str, Tensor]:
    """Statistics by LeRobot's names: among the weights, as until 2025, or in a file of their own."""
    state, action, image = "observation.state", "action", "observation.images.top"
    if among_weights:
        state, action = "normalize_inputs.buffer_observation_state", "unnormalize_outputs.buffer_action"
        image = "normalize_inputs.buffer_observation_images_top"
    named = {
        f"{new}.{what}": torch.from_numpy(statistics[f"{old}_{what}"])
        for new, old in ((state, "qpos"), (action, "action"))
        for what in ("mean", "std")
    }
    return named | {f"{image}.{what}": torch.tensor(IMAGENET[what]).view(3, 1, 1) for what in IMAGENET}


@pytest.mark.parametrize("among_weights", [True, False])
def test_lerobot_weights_bring_or_are_given_their_statistics(
    lapwing: Lapwing,
    tmp_path: Path,
    published: Policy,
    statistics: dict[str, np.ndarray],
    among_weights: bool,
) -> None:
    weights, stats = tmp_path / "model.safetensors", tmp_path / "normalizer.safetensors"
    numbers = lerobot_statistics(statistics, among_weights)
    tensors = lerobot_names(published)
    if among_weights:  # they hold those of the targets a second time
        targets = {
            name.replace("unnormalize_outputs", "normalize_targets"): one.clone() for name, one in numbers.items()
        }
        tensors |= numbers | {name: one for name, one in targets.items() if name.startswith("normalize_targets")}
    else:
        save_file(numbers, stats)
    save_file({name: one.contiguous() for name, one in tensors.items()}, weights)
    code, _, err = lapwing("import act", weights, *flags(tmp_path / "run", None if among_weights else stats))
    assert (code, err) == (0, "")
    np.testing.assert_allclose(played(tmp_path / "run"), expected_actions(published, statistics, -1), atol=1e-5)


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """Four short toy episodes."""
    path = tmp_path / "toy.hdf5"
    drawn = sample_world("toy", quality="expert", size=SIZE, seed=0)
    with FlatWriter(path, world_spec("toy", SIZE)) as writer:
        for _ in range(4):
            writer.add(next(drawn))
    return path


TRAIN = ("--steps", 2, "--batch-size", 4, "--device", "cpu", "--precision", "fp32", "--eval-samples", 4)


def test_training_goes_on_from_imported_weights(
    lapwing: Lapwing, run: Path, recording: Path, tmp_path: Path, published: Policy
) -> None:
    out = tmp_path / "tuned"
    code, _, err = lapwing(
        "train act", recording, "--out", out, "--init", run, *TRAIN, "--lr", 1e-9, "--backbone-lr", 0
    )
    assert code == 0, err
    networks = load_train_state(out / "checkpoints" / "last")["agent"]["networks"]
    theirs = published.state_dict()
    for name, their in (
        ("model.queries.weight", "query_embed.weight"),
        ("posterior.out.weight", "latent_proj.weight"),
        ("model.maps.bodies.0.conv1.weight", "backbones.0.0.body.conv1.weight"),
    ):
        torch.testing.assert_close(networks[name], theirs[f"model.{their}"], atol=1e-6, rtol=0)
    config = json.loads((out / "config.json").read_text())
    assert (config["options"]["init"], config["config"]["chunk"]) == (str(run), 6)
    code, _, err = lapwing("train act", recording, "--out", out, "--resume", "--steps", 3)
    assert code == 0, err


def test_weights_that_do_not_fit_are_named(lapwing: Lapwing, run: Path, recording: Path, tmp_path: Path) -> None:
    out = tmp_path / "tuned"
    code, _, err = lapwing("train act", recording, "--out", out, "--init", run, *TRAIN, "--chunk", 5)
    assert code == 2
    assert "'model.queries.weight' is [6, 16] there and [5, 16] here; the robot and all sizes must be the same" in err
    code, _, err = lapwing("train bc", recording, "--out", out, "--init", run, *TRAIN)
    assert code == 2
    assert "is of algorithm 'act'" in err
    assert not out.exists()


def test_any_algorithm_begins_with_the_weights_of_another_run(
    lapwing: Lapwing, recording: Path, tmp_path: Path
) -> None:
    small = (
        "--hidden",
        8,
        "--obs-feature-dim",
        8,
        "--image-feature-dim",
        8,
        "--backbone",
        "small",
        "--weights",
        "none",
    )
    first, second = tmp_path / "first", tmp_path / "second"
    assert lapwing("train bc", recording, "--out", first, *TRAIN, *small)[0] == 0
    code, _, err = lapwing(
        "train bc", recording, "--out", second, *TRAIN, "--init", first / "checkpoints" / "last", "--lr", 1e-12
    )
    assert code == 0, err
    before, after = (load_train_state(one / "checkpoints" / "last")["agent"]["networks"] for one in (first, second))
    for name, tensor in before.items():
        torch.testing.assert_close(after[name], tensor, atol=1e-7, rtol=0)


def test_an_imported_run_is_not_resumed(lapwing: Lapwing, run: Path, recording: Path) -> None:
    code, _, err = lapwing("train act", recording, "--out", run, "--resume", *TRAIN)
    assert code == 2
    assert f"{run}: was imported, there is no training to resume; start one from it: --init {run}" in err
    with pytest.raises(CheckpointError, match="holds no training state"):
        load_train_state(run / "checkpoints" / "last")


class Attack:
    def __reduce__(self) -> Any:
        return os.system, ("touch FLAG",)


Change = Callable[[Path, Path, Policy, dict[str, np.ndarray]], object]


@pytest.mark.parametrize(
    ("change", "words", "message"),
    [
        (lambda w, s, p, n: s.write_bytes(pickle.dumps({"a": Attack()})), (), "dataset_stats.pkl: holds posix.system"),
        (lambda w, s, p, n: s.unlink(), (), "dataset_stats.pkl: cannot be read"),
        (
            lambda w, s, p, n: s.write_bytes(pickle.dumps([1])),
            (),
            "dataset_stats.pkl: holds a list, expected a mapping",
        ),
        (lambda w, s, p, n: s.write_bytes(pickle.dumps({})), (), "dataset_stats.pkl: no 'qpos_mean'"),
        (
            lambda w, s, p, n: s.write_bytes(pickle.dumps(n | {"action_std": np.ones(14)})),
            (),
            "'action_std' has shape [14], expected 16 finite numbers as the weights do",
        ),
        (
            lambda w, s, p, n: s.write_bytes(pickle.dumps(n | {"qpos_std": np.full(16, np.nan)})),
            (),
            "'qpos_std' has shape [16], not all finite",
        ),
        (
            lambda w, s, p, n: s.write_bytes(pickle.dumps(n | {"qpos_mean": ["a"] * 16})),
            (),
            "'qpos_mean' holds no numbers",
        ),
        (
            lambda w, s, p, n: s.write_bytes(pickle.dumps(n | {"action_std": -np.ones(16)})),
            (),
            "'action_std' has values below zero",
        ),
        (lambda w, s, p, n: torch.save({"a": Attack()}, w), (), "or holds other classes, of which nothing was run)"),
        (lambda w, s, p, n: torch.save({"step": 3}, w), (), "policy_best.ckpt: holds more than named tensors"),
        (lambda w, s, p, n: torch.save({3: torch.ones(2)}, w), (), "policy_best.ckpt: holds more than named tensors"),
        (lambda w, s, p, n: w.write_bytes(b"PK"), (), "policy_best.ckpt: cannot be read as tensors alone"),
        (lambda w, s, p, n: w.unlink(), (), "policy_best.ckpt: cannot be read as tensors alone (FileNotFoundError"),
        (
            lambda w, s, p, n: torch.save({"a.b": torch.ones(2)}, w),
            (),
            "policy_best.ckpt: holds 1 tensors, the first 'a.b', and no 'model.query_embed.weight'",
        ),
        (lambda w, s, p, n: None, ("--heads", 3), "width is 16, expected a multiple of 4 and of the 3 heads"),
        (lambda w, s, p, n: None, ("--cameras", "left", "left"), "cameras are left, left, expected different names"),
        (lambda w, s, p, n: None, ("--size", 8, 8), "size is 8 x 8, expected 32 to 4096 pixels"),
        (lambda w, s, p, n: None, ("--rate-hz", -1), "rate_hz is -1.0, expected 0 (unknown) or more"),
    ],
)
def test_bad_input_is_named_and_nothing_is_written(
    lapwing: Lapwing,
    files: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    published: Policy,
    statistics: dict[str, np.ndarray],
    change: Change,
    words: tuple[object, ...],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    change(*files, published, statistics)
    before = sorted(tmp_path.iterdir())
    code, _, err = lapwing("import act", files[0], *flags(tmp_path / "run", files[1]), *words)
    assert code == 2
    assert message in err
    assert err.count("\n") == 1
    assert sorted(tmp_path.iterdir()) == before


def test_other_image_statistics_than_imagenets_are_refused(
    lapwing: Lapwing, tmp_path: Path, published: Policy, statistics: dict[str, np.ndarray]
) -> None:
    weights = tmp_path / "model.safetensors"
    numbers = lerobot_statistics(statistics, among_weights=True)
    numbers["normalize_inputs.buffer_observation_images_top.mean"] = torch.full((3, 1, 1), 0.4)
    save_file({name: one.contiguous() for name, one in (lerobot_names(published) | numbers).items()}, weights)
    code, _, err = lapwing("import act", weights, *flags(tmp_path / "run"))
    assert code == 2
    assert "buffer_observation_images_top.mean' is [0.4, 0.4, 0.4], expected ImageNet's" in err


def test_weights_without_statistics_ask_for_them(lapwing: Lapwing, files: tuple[Path, Path], tmp_path: Path) -> None:
    code, _, err = lapwing("import act", files[0], *flags(tmp_path / "run"))
    assert code == 2
    assert "policy_best.ckpt: holds no statistics; give the file beside it with --stats" in err


def test_a_backbone_a_camera_needs_each_camera(lapwing: Lapwing, files: tuple[Path, Path], tmp_path: Path) -> None:
    torch.manual_seed(0)
    two = Policy(DetrVae("act-plus-plus", 2, 16, 16, width=16, feedforward=16))
    torch.save(two.state_dict(), files[0])
    code, _, err = lapwing("import act", files[0], *flags(tmp_path / "run", files[1]))
    assert code == 2
    assert "the weights have backbones for 2 cameras, got 3: left, right, global" in err


def test_an_occupied_place_is_left_alone(lapwing: Lapwing, files: tuple[Path, Path], run: Path) -> None:
    before = (run / "config.json").read_bytes()
    code, _, err = lapwing("import act", files[0], *flags(run, files[1]))
    assert code == 2
    assert err == f"lapwing: error: {run}: already exists; choose another --out\n"
    assert (run / "config.json").read_bytes() == before
