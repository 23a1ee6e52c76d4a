"""`lapwing train reward` and `lapwing data label`: a success classifier, and rewards by it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tyro

from lapwing.agents.reward import RewardConfig
from lapwing.commands.flags import parse
from lapwing.commands.train import resumed
from lapwing.data.formats import read_recording
from lapwing.data.formats.options import Base, ReadOptions
from lapwing.errors import ConfigError
from lapwing.run.checkpoint import linked_step
from lapwing.run.classifier import SuccessClassifier
from lapwing.run.label import expect_room, label_recording, labels_path, write_labels
from lapwing.run.options import TrainOptions
from lapwing.run.ranks import read_ranks
from lapwing.run.results import read_json
from lapwing.run.train_reward import LabelledPaths, train_reward

EPOCHS, EVAL_EVERY, PATIENCE = 150, 100, 10


@dataclass(frozen=True)
class TrainReward:
    """Train a classifier that tells success from failure by images, for a reward where the world has none.

    An epoch shows every labelled training frame at least once, in batches that are half success, half failure. The
    "150 epochs" of HIL-SERL's script are 150 steps: --steps 150.
    """

    recordings: tyro.conf.Positional[tuple[Path, ...]]
    """Recordings whose rewards say where they succeeded; beside these, or instead, --success and --failure."""
    out: Path
    """The run directory to make."""
    options: TrainOptions
    config: RewardConfig
    success: tuple[Path, ...] = ()
    """Files or folders of transitions (pkl, npz) whose observations show success."""
    failure: tuple[Path, ...] = ()
    """Files or folders of transitions whose observations do not; two or three times as many frames is good."""
    resume: tyro.conf.FlagCreatePairsOff[bool] = False
    """Go on with the run at --out, from its last checkpoint; give the same files."""


def train(args: Sequence[str]) -> int:
    """`lapwing train reward`"""
    options, config = resumed(args, RewardConfig)
    if not isinstance(options, TrainOptions):
        options = _default_options(args)
    default = TrainReward((), tyro.MISSING, options, config or RewardConfig())
    command = parse(TrainReward, args, "lapwing train reward", default)
    if not (command.recordings or command.success or command.failure):
        raise ConfigError("no labelled frames, expected --success DIR and --failure DIR, or recordings with rewards")
    paths = LabelledPaths(command.success, command.failure, command.recordings)
    run = train_reward(paths, command.out, command.config, command.options, command.resume)
    if read_ranks().is_first:
        print(f"{run}: {_said(run)}; see {run / 'report.html'}")
    return 0


def _default_options(args: Sequence[str]) -> TrainOptions:
    by_steps = any(word.partition("=")[0] == "--steps" for word in args)
    length: dict[str, Any] = {"steps": 1} if by_steps else {"epochs": EPOCHS}  # a flag takes the place of the 1
    return TrainOptions(**length, eval_every=EVAL_EVERY, patience=PATIENCE)


def _said(run: Path) -> str:
    found = read_json(run / "held_out.json") or {}
    wrong = f"{found['false_positives']} of {found['failures']} failures taken for success"
    missed = f"{found['false_negatives']} of {found['successes']} successes missed"
    return (
        f"trained to step {linked_step(run, 'last')}, best at step {linked_step(run, 'best')}; held out, at threshold "
        f"{found['threshold']:.3g}: {wrong}, {missed}"
    )


@dataclass(frozen=True)
class Label:
    """Write rewards by a success classifier as labels beside a recording, which is not touched.

    Reward 1 goes to the first step after which success is seen. `lapwing data convert --reward LABELS` puts them in.
    """

    recording: tyro.conf.Positional[Path]
    """The recording."""
    classifier: Path
    """A run of `lapwing train reward`, or one of its checkpoints."""
    out: Path | None = None
    """The JSON file of labels to write; by default beside the recording, as RECORDING.labels.json."""
    overwrite: tyro.conf.FlagCreatePairsOff[bool] = False
    """Replace labels that are there already."""
    threshold: float | None = None
    """Probability from which on it is success; by default the one chosen in training."""
    base: Base = "auto"
    """Where a recorded base_action goes, as for training."""
    device: Literal["auto", "cuda", "mps", "cpu"] = "auto"
    """Where to compute; auto: cuda, then mps, then cpu."""


def label(args: Sequence[str]) -> int:
    """`lapwing data label`"""
    command = parse(Label, args, "lapwing data label")
    out = command.out or labels_path(command.recording)
    expect_room(out, command.overwrite)
    classifier = SuccessClassifier.load(command.classifier, device=command.device, threshold=command.threshold)
    recording = read_recording(command.recording, ReadOptions(base=command.base))
    labels = label_recording(recording, classifier)
    write_labels(out, labels, command.overwrite)
    marked = sum(one.success_step is not None for one in labels)
    going_on = sum(one.goes_on for one in labels)
    print(
        f"{out}: {marked} of {len(labels)} episodes marked as successes"
        + (f"; {going_on} of these were recorded on afterwards" if going_on else "")
    )
    return 0
