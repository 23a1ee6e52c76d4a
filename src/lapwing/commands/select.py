"""`lapwing select`: which checkpoint to try first."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro

from lapwing.commands.flags import parse
from lapwing.errors import ConfigError
from lapwing.run.device import DeviceName
from lapwing.run.fitted_q import FitOptions
from lapwing.run.select import SelectOptions, select
from lapwing.run.select_report import table, write_selection
from lapwing.run.selection import verdict


@dataclass(frozen=True)
class Select:
    """Rank checkpoints by a recording with rewards, without a robot, and write DIR/select.html and DIR/select.json."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Run directories, of which every kept checkpoint is judged, or single ones: RUN/checkpoints/STEP."""
    data: Path
    """The recording to judge by, with rewards; best one that no run has learned from."""
    options: SelectOptions
    fit: FitOptions
    out: Path = Path("select")
    """Folder for the page and its numbers; those of an earlier selection there are replaced."""
    device: DeviceName = "auto"
    """Where to compute; auto: cuda, then mps, then cpu."""
    threads: int | None = None
    """CPU threads of one operation; None: PyTorch's choice."""
    json: tyro.conf.FlagCreatePairsOff[bool] = False
    """Print JSON for programs."""


def run(args: Sequence[str]) -> int:
    """`lapwing select`"""
    default = Select(tyro.MISSING, tyro.MISSING, SelectOptions(), FitOptions())
    command = parse(Select, args, "lapwing select", default)
    if not command.runs:
        raise ConfigError("select: no runs, expected one at least; name directories of `lapwing train`")
    if command.threads is not None:
        if not 1 <= command.threads <= 1024:
            raise ConfigError(f"--threads is {command.threads}, expected 1 to 1024")
        torch.set_num_threads(command.threads)
    begun = next(one for one in (command.out.absolute(), *command.out.absolute().parents) if one.exists())
    if not begun.is_dir() or not os.access(begun, os.W_OK):
        what = "cannot be written to" if begun.is_dir() else "is a file"
        raise ConfigError(f"--out {command.out}: {begun} {what}, expected a folder; choose another")
    found = select(command.runs, command.data, command.options, command.fit, command.device)
    page, numbers = write_selection(found, command.out)
    if command.json:
        print(numbers.read_text(encoding="utf-8"), end="")
        return 0
    print(table(found))
    for finding in verdict(found):
        print(finding.text)
    print(f"see {page}")
    return 0
