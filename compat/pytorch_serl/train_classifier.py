"""`train_classifier.py` of the document: a success classifier from files of successes and failures.

    python train_classifier.py --success_dir ./data/success --failure_dir ./data/failure --image_keys image \
        --output_dir ./classifier_ckpt --batch_size 64 --num_epochs 150

The package's command is `lapwing train reward`; docs/coming-from-serl.md maps the flags.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # where pytorch_serl is, however this is started

from lapwing.agents.reward import RewardConfig
from lapwing.run.checkpoint import linked_step
from lapwing.run.train_reward import LabelledPaths, train_reward
from pytorch_serl.command import add_common, options_of, run, vision_of

EVAL_EVERY, PATIENCE = 100, 10  # as `lapwing train reward` has it


def main(args: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code: 0 done, 2 something to mend, 130 interrupted."""
    return run(_train, _parser(), {"--out": "--output_dir", "--steps": "--num_epochs"}, args)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="train_classifier.py", description="Train a success classifier.")
    add = parser.add_argument
    add("--success_dir", type=Path, required=True, help="files of transitions whose observations show success")
    add("--failure_dir", type=Path, required=True, help="files of transitions whose observations do not")
    add("--output_dir", type=Path, default=Path("./classifier_ckpt"), help="the run directory to make")
    add("--batch_size", type=int, default=64, help="frames in a step, half of them successes (default 64)")
    add("--num_epochs", type=int, default=150, help="passes over the data (default 150); it stops earlier where "
        "nothing is gained")  # fmt: skip
    add_common(parser)
    return parser


def _train(flags: argparse.Namespace) -> str:
    options = options_of(flags, epochs=flags.num_epochs, eval_every=EVAL_EVERY, patience=PATIENCE)
    paths = LabelledPaths((flags.success_dir,), (flags.failure_dir,))
    made = train_reward(paths, flags.output_dir, RewardConfig(vision=vision_of(flags)), options, flags.resume)
    return f"{made}: best at step {linked_step(made, 'best')}; see {made / 'report.html'}"


if __name__ == "__main__":
    sys.exit(main())
