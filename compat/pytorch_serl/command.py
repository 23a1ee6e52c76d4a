"""What the document's three scripts have in common: flags, a run's options, and how errors are told."""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

from lapwing.data.formats.serl_files import SUFFIXES, transition_files
from lapwing.errors import DataError, LapwingError
from lapwing.gripper import SetupMode
from lapwing.nets.backbone import BackboneConfig
from lapwing.run.options import TrainOptions

# What messages of the package call by its own flags.
_FLAGS = {
    "--image-keys": "--image_keys",
    "--image-size": "--image_size",
    "--batch-size": "--batch_size",
    "--mode": "--setup_mode",
    "--success": "--success_dir",
    "--failure": "--failure_dir",
}


Job = Callable[[argparse.Namespace], str]


def run(job: Job, parser: argparse.ArgumentParser, own: Mapping[str, str], args: Sequence[str] | None) -> int:
    """Run a command line; 0 done, 2 something to mend, 130 interrupted. own: package's flag -> the script's own."""
    flags, script = parser.parse_args(args), parser.prog.removesuffix(".py")
    try:
        print(job(flags))
    except LapwingError as error:
        print(f"{script}: error: {_told(error, {**_FLAGS, **own})}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as interrupt:
        print(f"{script}: interrupted; {interrupt}".removesuffix("; "), file=sys.stderr)
        return 130
    except OSError as error:
        print(f"{script}: error: {error}; look after the disk or the permissions", file=sys.stderr)
        return 2
    return 0


def _told(error: LapwingError, flags: Mapping[str, str]) -> str:
    """The message on one line, with the document's flags."""
    line = " ".join(str(error).split())
    return re.sub(r"(?<![\w-])--[a-z-]+(?![\w-])", lambda found: flags.get(found[0], found[0]), line)


def add_common(parser: argparse.ArgumentParser) -> None:
    """The document's --image_keys and --batch_size, and what it leaves open."""
    add = parser.add_argument
    add("--image_keys", nargs="+", default=["image"], help="the images to look at (default image)")
    add("--device", choices=("auto", "cuda", "mps", "cpu"), default="auto", help="auto: cuda, then mps, then cpu")
    add("--seed", type=int, default=0, help="of the division, the weights and the batches (default 0)")
    add("--image_size", type=int, help="pixels to train at (default: as recorded)")
    add("--backbone", choices=("resnet10", "resnet18", "small"), default="resnet10", help="network that sees (default "
        "resnet10, from scratch); resnet18 begins with ImageNet's weights and keeps them; small: for CPUs")  # fmt: skip
    add("--weights", default="auto", help="auto (default): ImageNet if it can be had; imagenet, none, or a file")
    add("--resume", action="store_true", help="go on with a run, given the same flags; --max_steps may grow")


def add_learning(parser: argparse.ArgumentParser, steps: int, save_dir: str) -> None:
    """The flags of the two scripts that learn from demonstrations."""
    add = parser.add_argument
    add("--demo_paths", type=Path, nargs="+", required=True, help="files of transitions (pkl, npz), or folders of them")
    add("--setup_mode", choices=get_args(SetupMode), default="single-arm-fixed-gripper", help="arms, and whether the "
        "gripper is learnt (default single-arm-fixed-gripper)")  # fmt: skip
    add("--batch_size", type=int, default=256, help="transitions in a step (default 256)")
    add("--max_steps", type=int, default=steps, help=f"gradient steps of the critics (default {steps})")
    add("--save_dir", type=Path, default=Path(save_dir), help=f"the run directory to make (default {save_dir})")


def options_of(flags: argparse.Namespace, **others: Any) -> TrainOptions:
    return TrainOptions(
        batch_size=flags.batch_size,
        image_keys=tuple(flags.image_keys),
        device=flags.device,
        seed=flags.seed,
        image_size=flags.image_size,
        **others,
    )


def vision_of(flags: argparse.Namespace) -> BackboneConfig:
    return BackboneConfig(flags.backbone, flags.weights)


@contextmanager
def demonstrations(paths: Sequence[Path]) -> Iterator[Path]:
    """One path to all demonstrations: the only one, or a folder of links for as long as it takes. Raises DataError.

    What is raised meanwhile speaks of the files themselves.
    """
    if len(paths) == 1:
        yield paths[0]
        return
    files = [file for path in paths for file in transition_files(path)]
    for file in files:
        if not file.is_file() or file.suffix.lower() not in SUFFIXES:
            found = "a file of another kind" if file.is_file() else "nothing"
            raise DataError(f"{file}: found {found}, expected a *.pkl or *.npz file of transitions; check the path")
    with tempfile.TemporaryDirectory(prefix="demonstrations-") as folder:
        links = {Path(folder) / f"{number:04d}-{file.name.lstrip('.')}": file for number, file in enumerate(files)}
        for link, file in links.items():
            link.symlink_to(file.absolute())
        try:
            yield Path(folder)
        except LapwingError as error:
            message = str(error)
            for link, file in links.items():
                message = message.replace(str(link), str(file))
            raise type(error)(message) from error
