"""A success classifier of Panda images on frames that it was not trained on, as docs/results.md reports it.

    python benchmarks/classifier_results.py clf_test --seed 2 reward_0 reward_1 reward_2

Judges runs of `lapwing train reward`, each at its own threshold, on all frames of a folder that
`lapwing data sample FOLDER --world panda --labelled --seed SEED` wrote. How high the block is in a frame is in no file:
the episodes are played again without cameras. Frames near the limit are also left out, and all errors are listed by
height.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
import torch

from lapwing.agents.reward import RewardAgent
from lapwing.data.formats.serl_labels import LabelledFile, read_labelled
from lapwing.data.labelled import LabelledFrames, Stretch
from lapwing.data.labelled_files import read_labelled_files
from lapwing.envs.panda import labelled
from lapwing.envs.panda_physics import LIFTED
from lapwing.episode import Array, Episode
from lapwing.run.checkpoint import find_checkpoint, load_learner
from lapwing.run.classification import Calibration, Classification, classify
from lapwing.run.labelled_source import logits

KINDS = ("success", "failure")
EDGES_CM = (-np.inf, 2, 6, 8, 9, 10, 11, 12, 14, np.inf)


def main() -> None:
    args = _parser().parse_args()
    torch.set_num_threads(1)
    lift = lifts(args.frames, args.seed)
    clear = np.abs(lift - LIFTED) > args.margin
    print("| run | frames | accuracy | false positives | false negatives | ECE | AUC | threshold |")
    print("|---|---|---|---|---|---|---|---|")
    errors: list[str] = []
    for run in args.runs:
        logit, label, calibration, allowed = judged(run, args.frames)
        for name, kept in (("all", np.full(len(lift), True)), (f"> {100 * args.margin:g} cm from the limit", clear)):
            print(f"| {run} | {name} {_row(classify(logit[kept], label[kept], calibration, allowed))} |")
        errors += _by_height(run, lift, label, logit >= np.float32(calibration.threshold))
    print(
        "\n".join(
            ["\n| run | lift in cm | frames | success | called success | wrong |", "|---|---|---|---|---|---|", *errors]
        )
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("frames", type=Path, help="folder with success and failure in it")
    parser.add_argument("runs", type=Path, nargs="+", help="run directories of `lapwing train reward`")
    parser.add_argument("--seed", type=int, required=True, help="of the `lapwing data sample` that wrote the frames")
    parser.add_argument("--margin", type=float, default=0.01, help="m around the limit, left out of the second row")
    return parser


def lifts(folder: Path, seed: int) -> Array:
    """How high the block is above its start in each frame, in m, in the order in which the files are read."""
    files = [file for kind in KINDS for file in read_labelled(folder / kind)]
    numbers = [int(file.path.stem.rpartition("_")[2]) for file in files]
    episodes = dict(enumerate(islice(labelled(seed=seed, cameras=False), max(numbers) + 1)))
    return np.concatenate([_lift(file, episodes[number]) for file, number in zip(files, numbers, strict=True)])


def _lift(file: LabelledFile, episode: Episode) -> Array:
    """Raises ValueError where the file is not of this episode."""
    assert episode.reward is not None
    assert file.state is not None
    succeeded = np.append(False, np.asarray(episode.reward) > 0)
    rows = np.flatnonzero(succeeded == bool(file.label[0]))
    state = np.asarray(episode.state)
    if len(rows) != len(file.label) or np.abs(state[rows, :-3] - file.state).max() > 1e-3:
        raise ValueError(f"{file.path}: not the episode that was played again; give the --seed it was sampled with")
    lift: Array = state[rows, -1] - state[0, -1]
    return lift


def judged(run: Path, folder: Path) -> tuple[Array, Array, Calibration, float]:
    """Logits and labels of all frames, and what the run was calibrated to."""
    agent, spec, *_ = load_learner(find_checkpoint(run))
    assert isinstance(agent, RewardAgent)
    found = read_labelled_files([folder / KINDS[0]], [folder / KINDS[1]], size=spec.cameras[0].height, progress=False)
    cameras = [one for one in found.cameras if one.name in spec.camera_names]
    frames = LabelledFrames(cameras, [Stretch(part, np.arange(len(part.label))) for part in found.parts])
    logit, label = logits(agent, frames, torch.device("cpu"))
    return logit, label, Calibration(*agent.calibration, "rate"), agent.config.max_false_positive_rate


def _row(found: Classification) -> str:
    rates = (
        (found.accuracy, found.accuracy_interval),
        (found.false_positive_rate, found.false_positive_interval),
        (found.false_negative_rate, found.false_negative_interval),
    )
    cells = [f"({found.successes} + {found.failures})"]
    cells += [f"| {100 * rate:.1f} % [{100 * low:.1f}, {100 * high:.1f}]" for rate, (low, high) in rates]
    return " ".join(cells) + f" | {found.calibration_error:.3f} | {found.auc:.4f} | {found.threshold:.3f}"


def _by_height(run: Path, lift: Array, label: Array, called: Array) -> Iterator[str]:
    for low, high in pairwise(EDGES_CM):
        here = (100 * lift > low) & (100 * lift <= high)
        counts: Sequence[int] = [int(one[here].sum()) for one in (label == 1, called, called != (label == 1))]
        yield f"| {run} | {low:g} to {high:g} | {here.sum()} | {counts[0]} | {counts[1]} | {counts[2]} |"


if __name__ == "__main__":
    main()
