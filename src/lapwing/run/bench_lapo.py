"""`lapwing bench lapo`: one LAPO step of ours beside one of the plain reference, in one table from one run."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from statistics import median

import torch
from tqdm import tqdm

from lapwing.errors import ConfigError
from lapwing.run.bench_process import ask, find_reference, in_columns, process, where
from lapwing.run.bench_worker import Backbone, Encoder, Footprint, Job, work
from lapwing.run.device import DeviceName, PrecisionName, pick_device, pick_precision

NOTES = """\
plain: three torchvision ResNet-18, float32 NCHW, the encoder called at each of its seven uses in a step;
  encoded once: the same, but each of the two observations goes through the encoder a single time.
parameters: those an optimiser trains. memory: the most a process held above its imports (cuda: of the allocator).
convolutions: their share of the step when run alone, in the same shapes and number format.
The documents predicted their figures for one stacked trunk in place of three separate ones."""


@dataclass(frozen=True)
class Row:
    """A line of the table. `seconds` is the median over the rounds."""

    name: str
    seconds: float
    footprint: Footprint


def main(
    batch: int = 64,
    size: int = 84,
    repeats: int = 5,
    threads: int | None = None,
    device: DeviceName = "auto",
    precision: PrecisionName = "auto",
    encoders: tuple[Encoder, ...] = ("stacked", "shared", "separate"),
    backbone: Backbone = "resnet18",
    compiled: bool = False,
) -> None:
    """Time a LAPO step of ours and of the plain reference, and print the table.

    Each variant lives in its own process and they step in turn, so that a busy machine slows them alike. Raises
    ConfigError where the reference is absent or a number makes no sense.

    Args:
        batch: Transitions in a step.
        size: Height and width of the three cameras in pixels.
        repeats: Rounds that are timed, after one to warm up; the median counts.
        threads: CPU threads of an operation; None: PyTorch's choice.
        device: Where to compute.
        precision: Number format of our image encoder; the reference is float32 always.
        encoders: Which of ours to time.
        backbone: Of our image encoder; the reference has ResNet-18 always.
        compiled: Compile our image encoder.
    """
    if min(batch, repeats, threads or 1) < 1 or size < 32:
        raise ConfigError(
            f"bench: batch {batch}, repeats {repeats}, threads {threads}, size {size}; expected at least 1, and a size "
            "of at least 32"
        )
    kind = pick_device(device)
    chosen = pick_precision(precision, kind)
    threads = threads or torch.get_num_threads()
    plain = Job("plain", batch, size, kind.type, threads, reference=find_reference("plain_lapo.py"))
    ours = replace(plain, reference=None, backbone=backbone, precision=chosen, compiled=compiled)
    jobs = [plain, replace(plain, name="plain, encoded once", encode_once=True)]
    jobs += [replace(ours, name=f"ours, {encoder}", encoder=encoder) for encoder in encoders]
    print(
        f"LAPO step, batch {batch}, three cameras of {size}x{size}, {where(kind, threads)}; ours: {backbone}, {chosen}"
        f"{', compiled' if compiled else ''}; median of {repeats} rounds in turn"
    )
    print(table(measure(jobs, repeats, steps=20 if kind.type == "cuda" else 1)))
    print(NOTES)


def measure(jobs: Sequence[Job], repeats: int, steps: int) -> list[Row]:
    """Run all jobs in processes of their own, in turn: a warm-up round, then `repeats` rounds of `steps` steps."""
    seconds: dict[str, list[float]] = {job.name: [] for job in jobs}
    with ExitStack() as stack:
        workers = {job: stack.enter_context(process(work, job)) for job in jobs}
        for turn in tqdm(range(repeats + 1), desc="rounds", unit="round", leave=False):
            for job, pipe in workers.items():
                taken = ask(job.name, pipe, steps)
                if turn > 0:
                    seconds[job.name].append(taken)
        return [Row(job.name, median(seconds[job.name]), ask(job.name, pipe, 0)) for job, pipe in workers.items()]


def table(rows: Sequence[Row]) -> str:
    """The rows with their gains over the first; then those of stacked over separate, beside what was claimed."""
    cells = [["", "parameters", "", "step", "", "memory", "", "convolutions"]]
    cells += [_cells(row, rows[0]) for row in rows]
    named = {row.name: row for row in rows}
    if {"ours, stacked", "ours, separate"} <= named.keys():
        cells.append(["stacked for separate", *_gains(named["ours, stacked"], named["ours, separate"]), ""])
    cells.append(["documents' prediction", "", "-67 %", "", "1.6-2.2x", "", "-63 %", ""])
    return in_columns(cells)


def _cells(row: Row, first: Row) -> list[str]:
    foot = row.footprint
    cells = ["", *_gains(row, first)] if row is not first else [""] * 7
    cells[0], cells[1] = row.name, f"{foot.parameters / 1e6:.2f} M"
    cells[3], cells[5] = f"{row.seconds * 1e3:.{0 if row.seconds > 0.1 else 2}f} ms", f"{foot.peak_bytes / 1e6:.0f} MB"
    return [*cells, f"{100 * foot.convolution_share:.0f} %"]


def _gains(row: Row, base: Row) -> list[str]:
    """[blank, change of parameters, blank, speed-up, blank, change of memory]."""
    parameters = row.footprint.parameters / base.footprint.parameters - 1
    memory = row.footprint.peak_bytes / base.footprint.peak_bytes - 1
    speed = base.seconds / row.seconds
    return ["", f"{100 * parameters:+.0f} %", "", f"{speed:.2f}x", "", f"{100 * memory:+.0f} %"]
