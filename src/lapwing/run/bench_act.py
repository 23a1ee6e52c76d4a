"""`lapwing bench act`: training, acting and reading of our ACT beside those of the plain reference, from one run."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import numpy as np
from tqdm import tqdm

from lapwing.data.formats.aloha_writer import episode_path, write_aloha_episode
from lapwing.episode import Array, Episode
from lapwing.errors import ConfigError
from lapwing.run.bench_act_worker import CAMERAS, Footprint, Job, Reading, robot, work
from lapwing.run.bench_process import ask, find_reference, in_columns, process, where
from lapwing.run.device import DeviceName, Precision, PrecisionName, pick_device, pick_precision

_EPISODES = 3
_READS = 4  # batches read alone, for their time

NOTES = """\
plain: the original's arithmetic, fp32: a backbone run camera by camera, seven decoder layers of which one is read.
original: the same maths, one decoder layer. product: seven decoder layers of which the last is read, shifted images.
act: a control step that asks the network (ensembling does at each), from frames to an action; open loop: the mean
control step where a chunk is played to its end. memory: the most a process held above its imports (cuda: allocator).
Variants take turns, each in its own process; the median counts, lowest and highest in brackets. A step on one sample
(cuda: three whole ones) and an act go before. Backbones start at random, with frozen BatchNorm as ImageNet's have."""

DATA_NOTES = """\
read: a batch of random steps by one thread, from the disk (files dropped from the cache before) and from the cache.
waited: how long a training step found no batch ready; ours prepares three ahead in a thread, plain one in a process."""


@dataclass(frozen=True)
class Row:
    """A line of the table: seconds of training steps by round, of acting with ensembling and in open loop."""

    name: str
    steps: tuple[float, ...]
    asked: float
    played: float
    footprint: Footprint


@dataclass(frozen=True)
class DataRow:
    """Seconds to read a batch from disk and from cache, and what training from the files was like."""

    name: str
    disk: float
    cached: float
    reading: Reading


def main(
    sizes: tuple[str, ...] = ("224x224", "480x640"),
    batch: int = 8,
    chunk: int = 100,
    repeats: int = 5,
    threads: int = 2,
    seconds: float = 540.0,
    data_mb: int = 300,
    device: DeviceName = "auto",
    precision: PrecisionName = "auto",
    token: int = 512,
) -> None:
    """Time ACT's training step, its control step and its reading of ALOHA files, and print the tables.

    Raises ConfigError where the reference is absent or a number makes no sense.

    Args:
        sizes: Heights and widths of the three cameras, e.g. 224x224; the last one's frames are also read from files.
        batch: Samples in a step.
        chunk: Actions in a chunk.
        repeats: Rounds that are timed, fewer where time runs out.
        threads: CPU threads of an operation.
        seconds: Time for all of it; each size is measured once in any case.
        data_mb: Size of the episodes that are written to a temporary folder and read, MB; 0 leaves this part out.
        device: Where to compute.
        precision: Number format of our faster rows; the reference is float32 always.
        token: Width of the transformers.
    """
    if min(batch, chunk, repeats, threads) < 1 or data_mb < 0 or not seconds > 0 or token % 8 or token < 8:
        raise ConfigError(
            f"bench: batch {batch}, chunk {chunk}, repeats {repeats}, threads {threads}, seconds {seconds:g}, data_mb "
            f"{data_mb}, token {token}; expected at least 1, data_mb at least 0 and token a multiple of 8"
        )
    if not sizes:
        raise ConfigError("bench: no --sizes, expected at least one, as in 480x640")
    pixels = [_size(one) for one in sizes]
    kind = pick_device(device)
    reference = find_reference("plain_act.py")
    fast = pick_precision(precision, kind)
    ends = time.monotonic() + seconds
    print(f"ACT, batch {batch}, chunk {chunk}, three cameras, {where(kind, threads)}; fast rows in {fast}")
    for place, (height, width) in enumerate(pixels):
        left = (ends - time.monotonic()) / (len(pixels) - place + bool(data_mb))
        plain = Job("plain", batch, height, width, chunk, kind.type, threads, token, reference=reference)
        print(f"\n{table(measure(variants(plain, fast), repeats, left), f'{height}x{width}')}")
    print(NOTES)
    if data_mb:
        rows = measure_data([plain, _product(plain, fast)], data_mb, ends - time.monotonic())
        print(f"\n{data_table(rows, f'{height}x{width} from files')}\n{DATA_NOTES}")


def _size(text: str) -> tuple[int, int]:
    parts = text.split("x")
    if len(parts) != 2 or not all(part.isdecimal() and int(part) >= 32 for part in parts):
        raise ConfigError(f"bench: size {text!r}, expected height x width of at least 32 each, as in 480x640")
    return int(parts[0]), int(parts[1])


def variants(plain: Job, fast: Precision) -> list[Job]:
    """The plain reference and ours, in the order of the table."""
    original = replace(plain, name="original, fp32", reference=None, preset="original")
    product = _product(plain, fast)
    jobs = [plain, original]
    if fast == "bf16":
        jobs.append(replace(original, name="original, bf16", precision="bf16"))
    return [*jobs, product, replace(product, name=f"{product.name}, backbone a camera", share_backbone=False)]


def _product(plain: Job, fast: Precision) -> Job:
    return replace(plain, name=f"product, {fast}", reference=None, preset="product", precision=fast)


def measure(jobs: Sequence[Job], repeats: int, seconds: float) -> list[Row]:
    """Run all jobs in processes of their own, in turn, up to `repeats` rounds while `seconds` last, one at least."""
    ends = time.monotonic() + seconds
    steps = 20 if jobs[0].device == "cuda" else 1
    taken: dict[str, list[tuple[float, float, float]]] = {job.name: [] for job in jobs}
    with ExitStack() as stack:
        pipes = {job.name: stack.enter_context(process(work, job)) for job in jobs}
        bar = stack.enter_context(
            tqdm(total=(repeats + 1) * len(jobs), desc=f"{jobs[0].height}x{jobs[0].width}", unit="turn", leave=False)
        )
        for name, pipe in pipes.items():
            ask(name, pipe, ("warm", 1) if steps == 1 else ("step", 3))
            ask(name, pipe, ("ask", 1))
            bar.update()
        for _ in range(repeats):
            began = time.monotonic()
            for name, pipe in pipes.items():
                what = (("step", steps), ("ask", 2 * steps), ("play", 1))
                step, asked, played = (ask(name, pipe, one) for one in what)
                taken[name].append((step, asked, played / jobs[0].chunk))
                bar.update()
            if 2 * time.monotonic() - began > ends:  # another round would not fit
                break
        return [_row(name, taken[name], ask(name, pipe, None)) for name, pipe in pipes.items()]


def _row(name: str, taken: Sequence[tuple[float, float, float]], footprint: Footprint) -> Row:
    steps, asked, played = zip(*taken, strict=True)
    return Row(name, steps, median(asked), median(played), footprint)


def table(rows: Sequence[Row], title: str) -> str:
    """The rows with their gains over the first."""
    cells = [[title, "parameters", "step", "", "", "act", "", "open loop", "memory", ""]]
    for row in rows:
        first, step = rows[0], median(row.steps)
        gains = ["", "", ""]
        if row is not first:
            gains = [f"{median(first.steps) / step:.2f}x", f"{first.asked / row.asked:.2f}x"]
            gains.append(f"{100 * (row.footprint.peak_bytes / first.footprint.peak_bytes - 1):+.0f} %")
        spread = f"({_ms(min(row.steps))}-{_ms(max(row.steps))})"
        cells.append([row.name, f"{row.footprint.parameters / 1e6:.1f} M", f"{_ms(step)} ms", spread, gains[0]])
        cells[-1] += [f"{_ms(row.asked)} ms", gains[1], f"{_ms(row.played)} ms"]
        cells[-1] += [f"{row.footprint.peak_bytes / 1e6:.0f} MB", gains[2]]
    return f"{in_columns(cells)}\nrounds: {len(rows[0].steps)}"


def _ms(seconds: float) -> str:
    """Milliseconds with three digits that count."""
    return f"{seconds * 1e3:.{0 if seconds >= 0.1 else 1 if seconds >= 0.01 else 2}f}"


def measure_data(jobs: Sequence[Job], size_mb: int, seconds: float) -> list[DataRow]:
    """Write episodes to a temporary folder, read them alone and train from them, job by job."""
    rows = []
    with tempfile.TemporaryDirectory(prefix="lapwing-bench-") as name:
        folder = Path(name)
        ends = time.monotonic() + seconds
        _write(folder, jobs[0], size_mb)
        for left, job in zip(
            range(len(jobs), 0, -1), tqdm(jobs, desc="reading", unit="reader", leave=False), strict=True
        ):
            with process(work, replace(job, folder=folder)) as pipe:
                ask(job.name, pipe, ("warm", 1))
                _drop_from_cache(folder)
                disk = ask(job.name, pipe, ("read", _READS))
                _load_into_cache(folder)
                cached = ask(job.name, pipe, ("read", _READS))
                _drop_from_cache(folder)
                reading = ask(job.name, pipe, ("train", (ends - time.monotonic()) / left))
                rows.append(DataRow(job.name, disk, cached, reading))
    return rows


def data_table(rows: Sequence[DataRow], title: str) -> str:
    """A line for each reader."""
    cells = [[title, "read: disk", "cached", "step", "waited", "share of time waiting"]]
    for row in rows:
        reading = row.reading
        times = [f"{_ms(one)} ms" for one in (row.disk, row.cached, reading.step, reading.waited)]
        cells.append([row.name, *times, f"{100 * reading.waited / reading.step:.1f} %"])
    return in_columns(cells)


def _write(folder: Path, job: Job, size_mb: int) -> None:
    """Episodes of smooth random pictures that move."""
    rng = np.random.default_rng(0)
    step_bytes = len(CAMERAS) * job.height * job.width * 3
    steps = max(job.batch, size_mb * 1_000_000 // step_bytes // _EPISODES)
    for number in tqdm(range(_EPISODES), desc="writing episodes", unit="episode", leave=False):
        state, action = rng.normal(size=(2, steps, 14)).astype(np.float32)
        images = {name: _frames(rng, steps, job) for name in CAMERAS}
        write_aloha_episode(episode_path(folder, number), Episode(images, state, action, None, False), robot(job))


def _frames(rng: np.random.Generator, steps: int, job: Job) -> Array:
    coarse = rng.integers(0, 256, (-(-job.height // 16), -(-job.width // 16), 3), np.uint8)
    picture = coarse.repeat(16, 0).repeat(16, 1)[: job.height, : job.width]
    return np.stack([np.roll(picture, step, 1) for step in range(steps)])


def _drop_from_cache(folder: Path) -> None:
    """Let the next read of these files come from the disk, as far as the system agrees."""
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
            if hasattr(os, "posix_fadvise"):  # not on macOS
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _load_into_cache(folder: Path) -> None:
    for path in folder.iterdir():
        path.read_bytes()
