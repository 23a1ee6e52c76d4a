"""Experiments as the documents number them: names, refusing to write over one, going on from a saved step, and how
their commands end.

results/Exp0001/multimodal_robot/run is a run directory of the package.
"""

from __future__ import annotations

import math
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from lapwing.errors import CheckpointError, LapwingError
from lapwing.run.checkpoint import (
    checkpoint_steps,
    find_checkpoint,
    link_checkpoint,
    linked_step,
    load_train_state,
    step_name,
)
from lapwing.run.directory import expect_free, read_settings, write_json
from lapwing.run.report import write_report


def conduct(program: str, folder: Path, train: Callable[[], None], going_on: str, files: str) -> int:
    """Train in `folder`, write the report, and return the exit code: 0 done, 2 something to mend, 130 interrupted.

    going_on: the flags that name this experiment again; files: what to tell the user is there.
    """
    try:
        train()
        report = write_report(folder / "run")
    except LapwingError as error:
        print(f"{program}: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        step = linked_step(folder / "run", "last")
        advice = f"; go on with {going_on} {step}" if step else " before anything was saved"
        print(f"{program}: interrupted{advice}", file=sys.stderr)
        return 130
    print(f"{folder}: {files}; the report is {report}")
    return 0


@contextmanager
def begun(folder: Path, step: int | None, load_dir: Path | None = None) -> Iterator[None]:
    """An experiment that may be trained: new, or going on from `step`. A copy that learned nothing is removed."""
    copied = step is not None and take_up(folder, step, load_dir)
    if step is None:
        expect_new(folder)
    try:
        yield
    except LapwingError:
        if copied and linked_step(folder / "run", "last") == step:  # all that it holds is in the other experiment
            shutil.rmtree(folder)
        raise


def count(text: str) -> int:
    """The value of a flag; the documents write 1e6."""
    number = float(text)
    if not math.isfinite(number) or number != int(number):
        raise ValueError(text)
    return int(number)


def experiment_folder(name: str) -> Path:
    """results/Exp{name}/multimodal_robot; digits are padded to four, so that 1 and 0001 are one experiment."""
    return Path("results") / f"Exp{name.zfill(4) if name.isdigit() else name}" / "multimodal_robot"


def expect_new(folder: Path) -> None:
    """Raise CheckpointError where an experiment has been."""
    if folder.exists() and any(folder.iterdir()):
        raise CheckpointError(
            f"{folder}: already exists ({_saved(folder / 'run')}); choose another --ExpID, or go on with --load_model"
        )


def take_up(folder: Path, step: int, load_dir: Path | None) -> bool:
    """Make FOLDER/run ready to go on from `step`; True where it had to be copied from another experiment.

    Raises CheckpointError when the step cannot be found, is in several experiments, or lies behind in this one.
    """
    run = folder / "run"
    if load_dir is None and step in checkpoint_steps(run):
        last = linked_step(run, "last")
        if last != step:
            raise CheckpointError(
                f"{folder}: has gone on to step {last}; load that, or give a new --ExpID to branch off at {step}"
            )
        return False
    expect_new(folder)
    expect_free(run, can_resume=False)
    _copy_run(_find_run(folder, step, load_dir), run, step)
    return True


def _find_run(folder: Path, step: int, load_dir: Path | None) -> Path:
    """The run to go on from: in `load_dir`, or the only experiment beside `folder` that has the step."""
    if load_dir is not None:
        run = load_dir / "run" if (load_dir / "run").is_dir() else load_dir
        find_checkpoint(run, step)
        return run
    results = folder.parents[1]
    runs = sorted(results.glob(f"Exp*/{folder.name}/run"))
    found = [run for run in runs if step in checkpoint_steps(run)]
    if not found:
        known = "; ".join(f"{run.parents[1].name} has {_saved(run)}" for run in runs) or "there is no experiment yet"
        raise CheckpointError(f"{results}: no model of step {step} ({known}); choose a saved step, or set --load_dir")
    if len(found) > 1:
        names = ", ".join(str(run.parent) for run in found)
        raise CheckpointError(f"{results}: step {step} is in {names}; say which with --load_dir")
    return found[0]


def _saved(run: Path) -> str:
    steps = checkpoint_steps(run)
    return f"saved steps {', '.join(map(str, steps))}" if steps else "no saved step"


def _copy_run(source: Path, run: Path, step: int) -> None:
    """A run of its own that begins where `source` was at `step`. Which checkpoint is best is judged anew from there."""
    state = load_train_state(find_checkpoint(source, step))
    state["state"] |= {"best_step": None, "best_value": math.inf}
    partial = run.with_name(".run.partial")
    shutil.rmtree(partial, ignore_errors=True)
    checkpoint = partial / "checkpoints" / step_name(step)
    shutil.copytree(find_checkpoint(source, step), checkpoint)
    torch.save(state, checkpoint / "train_state.pt")
    for name in ("split.json", "data.json", "progress.csv"):
        if (source / name).exists():
            shutil.copy(source / name, partial / name)
    write_json(partial / "config.json", _wanting(read_settings(source), step))
    for link in ("last", "best"):
        link_checkpoint(partial, link, step)
    partial.rename(run)


def _wanting(settings: Mapping[str, Any], steps: int) -> dict[str, Any]:
    return {**settings, "options": {**settings["options"], "steps": steps}}
