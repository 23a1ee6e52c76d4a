"""`train_hybrid.py` of the document: SAC on demonstrations and on what it tries in a world, half and half.

    python train_hybrid.py --demo_paths ./data/demos.pkl --image_keys image \
        --setup_mode single-arm-learned-gripper --max_steps 100000 --batch_size 256 --save_dir ./hybrid_ckpt

acts in a toy world; `--env my_robot:make` names a real one. The package's command is
`lapwing hybrid --preset serl-notes`; docs/coming-from-serl.md maps the flags.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # where pytorch_serl is, however this is started

from lapwing import envs
from lapwing.agents.sac import PRESETS
from lapwing.data.formats import read_recording
from lapwing.run.checkpoint import linked_step
from lapwing.run.hybrid import train_hybrid
from lapwing.run.online import OnlineOptions
from lapwing.run.report import write_report
from pytorch_serl.command import (
    add_common,
    add_learning,
    demonstrations,
    options_of,
    run,
    vision_of,
)
from pytorch_serl.world import open_world

ONLINE = {
    "training_starts": "environment steps before the first update",
    "random_steps": "random environment steps at the start",
    "capacity": "observations that each buffer holds",
    "actors": "processes that act; 0: act in step with the updates",
}


def main(args: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code: 0 done, 2 something to mend, 130 interrupted."""
    return run(_train, _parser(), {"--out": "--save_dir", "--steps": "--max_steps"}, args)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="train_hybrid.py", description="Train SAC on demonstrations and in a world.")
    add_learning(parser, 100_000, "./hybrid_ckpt")
    add_common(parser)
    add, usual = parser.add_argument, OnlineOptions()
    world = parser.add_mutually_exclusive_group()
    world.add_argument("--world", choices=envs.WORLDS, help="simulated world (default: the toy one of the set-up mode)")
    world.add_argument("--env", metavar="MODULE:FUNCTION", help="a function that makes a world of your own")
    for name, meaning in ONLINE.items():
        add(f"--{name}", type=int, default=getattr(usual, name), help=f"{meaning} (default {getattr(usual, name)})")
    return parser


def _train(flags: argparse.Namespace) -> str:
    options = options_of(flags, steps=flags.max_steps, mode=flags.setup_mode, train_fraction=1.0)
    config = replace(PRESETS["serl-notes"], imitation=0.0, grasp_imitation=0.0, vision=vision_of(flags))
    online = OnlineOptions(**{name: getattr(flags, name) for name in ONLINE})
    with demonstrations(flags.demo_paths) as data:
        spec = read_recording(data, options.reading).spec
        world = open_world(spec, flags.setup_mode, flags.world, flags.env, flags.image_size)
        made = train_hybrid(data, flags.save_dir, world, config, options, online, resume=flags.resume)
    report = write_report(made)
    return f"{made}: trained to step {linked_step(made, 'last')}; see {report}"


if __name__ == "__main__":
    sys.exit(main())
