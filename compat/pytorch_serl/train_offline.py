"""`train_offline.py` of the document: SAC on demonstrations alone.

    python train_offline.py --demo_paths ./data/demos.pkl --image_keys image \
        --setup_mode single-arm-fixed-gripper --batch_size 256 --max_steps 50000 --save_dir ./offline_ckpt

The package's command is `lapwing train sac --preset serl-notes`; docs/coming-from-serl.md maps the flags.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # where pytorch_serl is, however this is started

from lapwing.agents.sac import PRESETS
from lapwing.run.checkpoint import linked_step
from lapwing.run.report import write_report
from lapwing.run.train import train
from pytorch_serl.command import (
    add_common,
    add_learning,
    demonstrations,
    options_of,
    run,
    vision_of,
)


def main(args: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code: 0 done, 2 something to mend, 130 interrupted."""
    return run(_train, _parser(), {"--out": "--save_dir", "--steps": "--max_steps"}, args)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="train_offline.py", description="Train SAC on demonstrations alone.")
    add_learning(parser, 50_000, "./offline_ckpt")
    add_common(parser)
    return parser


def _train(flags: argparse.Namespace) -> str:
    options = options_of(flags, steps=flags.max_steps, mode=flags.setup_mode)
    config = replace(PRESETS["serl-notes"], vision=vision_of(flags))
    with demonstrations(flags.demo_paths) as data:
        made = train(data, flags.save_dir, "sac", config, options, flags.resume)
    report = write_report(made)
    return f"{made}: best at step {linked_step(made, 'best')} of {linked_step(made, 'last')}; see {report}"


if __name__ == "__main__":
    sys.exit(main())
