"""`lapwing bench sac`: image updates and buffer memory of our SAC beside those of the plain reference, from one run."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from statistics import median

import torch
from tqdm import tqdm

from lapwing.agent import Transitions
from lapwing.errors import ConfigError
from lapwing.run.bench_process import ask, find_reference, in_columns, process, spread, where
from lapwing.run.bench_sac_worker import CAMERAS, CONFIG, EPISODE_STEPS, Footprint, Job, empty_buffer, work
from lapwing.run.device import DeviceName, PrecisionName, pick_device, pick_precision

_COUNTED = 100_000  # transitions that memory is given for

NOTES = f"""\
plain: a float32 buffer of whole transitions; an encoder for the actor and one for the critics; fp32. ours: preset
hilserl, the same networks and arithmetic, one encoder. update: a draw, the random shift, the critics' step and, every
second time, the policy's; drawing: the draw alone, for its share. Variants take turns, each in its own process. The
median of the rounds counts, lowest and highest in brackets; gain: over plain, round by round.
memory: all arrays of buffers filled with noise in episodes of {EPISODE_STEPS} steps, for each transition they hold; the
last line counts observations, as allocated."""


@dataclass(frozen=True)
class SacBenchOptions:
    """What `lapwing bench sac` measures."""

    batch: int = 256
    """Transitions in an update."""
    size: int = 128
    """Height and width of the two cameras in pixels."""
    transitions: int = 1000
    """Held by each buffer that is drawn from."""
    repeats: int = 5
    """Rounds that are timed, fewer where time runs out."""
    seconds: float = 300.0
    """Time for the updates; one round is made in any case."""
    world_seconds: float = 0.5
    """Time for each world in each round; 0 leaves the worlds out."""
    threads: int = 2
    """CPU threads of an operation."""
    device: DeviceName = "auto"
    """Where to compute."""
    precision: PrecisionName = "auto"
    """Number format of our faster row; the reference is float32 always."""

    def __post_init__(self) -> None:
        counted = min(self.batch, self.transitions, self.repeats, self.threads)
        if counted < 1 or self.size < 32 or not self.seconds > 0 or not self.world_seconds >= 0:
            raise ConfigError(
                f"bench: batch {self.batch}, transitions {self.transitions}, repeats {self.repeats}, threads "
                f"{self.threads}, size {self.size}, seconds {self.seconds:g}, world_seconds {self.world_seconds:g}; "
                "expected at least 1, a size of at least 32 and world_seconds of at least 0"
            )


@dataclass(frozen=True)
class Row:
    """A line of the tables: seconds of an update by round, the median ones of a draw."""

    name: str
    updates: tuple[float, ...]
    draw: float
    footprint: Footprint


def run(options: SacBenchOptions) -> None:
    """Time updates of ours and of the plain reference, weigh their buffers, and print both tables.

    Raises ConfigError where the reference is absent.
    """
    device = pick_device(options.device)
    jobs = variants(options, device)
    print(
        f"SAC, batch {options.batch}, two cameras of {options.size}x{options.size}, {CONFIG.vision.backbone}, "
        f"{where(device, options.threads)}"
    )
    rows = measure(jobs, options.repeats, options.seconds)
    print(f"{table(rows)}\n\n{memory_table(rows, options.size, allocated(options.size))}\n{NOTES}")


def variants(options: SacBenchOptions, device: torch.device) -> list[Job]:
    """The plain reference and ours, in the order of the table."""
    reference, held = find_reference("plain_sac.py"), options.transitions
    plain = Job("plain", options.batch, options.size, held, device.type, options.threads, reference=reference)
    ours = replace(plain, name="ours, fp32", reference=None)
    if pick_precision(options.precision, device) == "fp32":
        return [plain, ours]
    return [plain, ours, replace(ours, name="ours, bf16", precision="bf16")]


def measure(jobs: Sequence[Job], repeats: int, seconds: float) -> list[Row]:
    """Run all jobs in processes of their own, in turn, up to `repeats` rounds while `seconds` last, one at least."""
    updates = CONFIG.cta_ratio * (10 if jobs[0].device == "cuda" else 1)
    taken: dict[str, list[tuple[float, float]]] = {job.name: [] for job in jobs}
    ends = time.monotonic() + seconds
    with ExitStack() as stack:
        pipes = {job.name: stack.enter_context(process(work, job)) for job in jobs}
        bar = stack.enter_context(tqdm(total=(repeats + 1) * len(jobs), desc="updates", unit="turn", leave=False))
        for name, pipe in pipes.items():
            ask(name, pipe, ("warm", updates))
            bar.update()
        for _ in range(repeats):
            began = time.monotonic()
            for name, pipe in pipes.items():
                taken[name].append((ask(name, pipe, ("update", updates)), ask(name, pipe, ("draw", updates))))
                bar.update()
            if 2 * time.monotonic() - began > ends:  # another round would not fit
                break
        return [_row(name, taken[name], ask(name, pipe, None)) for name, pipe in pipes.items()]


def _row(name: str, taken: Sequence[tuple[float, float]], footprint: Footprint) -> Row:
    updates, draws = zip(*taken, strict=True)
    return Row(name, updates, median(draws), footprint)


def table(rows: Sequence[Row]) -> str:
    """Updates of each row with their gain over the first."""
    cells = [["", "parameters", "updates/s", "", "gain", "", "drawing"]]
    for row in rows:
        rate = spread([1 / seconds for seconds in row.updates])
        gain = spread([plain / ours for plain, ours in zip(rows[0].updates, row.updates, strict=True)], "x")
        drawing = f"{100 * row.draw / median(row.updates):.1f} %"
        parameters = f"{row.footprint.parameters / 1e6:.1f} M"
        cells.append([row.name, parameters, *rate, *(gain if row is not rows[0] else ("", "")), drawing])
    return f"{in_columns(cells)}\nrounds: {len(rows[0].updates)}"


def allocated(size: int) -> int:
    """Bytes of a buffer of ours for 100,000 observations."""
    buffer = empty_buffer(size, _COUNTED)
    buffer.stream(Transitions(gamma=CONFIG.discount), 1, seed=0)  # which adds the returns
    return buffer.nbytes


def memory_table(rows: Sequence[Row], size: int, full: int) -> str:
    """Bytes of 100,000 transitions in the first row's buffer and in the last row's, beside those of their frames."""
    frames = _COUNTED * len(CAMERAS) * 3 * size**2
    plain, ours = (_COUNTED * row.footprint.buffer_bytes / row.footprint.transitions for row in (rows[0], rows[-1]))
    held = f"{rows[-1].footprint.transitions} held"
    lines = {
        "frames, each once": frames,
        f"plain, of {held}": plain,
        f"ours, of {held}": ours,
        "ours, allocated": full,
    }
    cells = [[f"{_COUNTED:,} transitions", "memory", "of the frames"]]
    cells += [[name, f"{value / 1e9:.2f} GB", f"{value / frames:.3f}x"] for name, value in lines.items()]
    return in_columns(cells)
