"""`lapwing bench data`: assembling batches from a memory map beside plain copies of as many bytes."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import h5py
import numpy as np
from tqdm import tqdm

from lapwing.agent import Transitions
from lapwing.data.dataset import Dataset
from lapwing.data.formats.flat import read_flat
from lapwing.data.frames import FrameStore
from lapwing.data.normalize import Normalizer
from lapwing.episode import Array
from lapwing.errors import ConfigError

CAMERAS = ("left", "right", "global")
AXES = 16
_WRITTEN_FRAMES = 256

NOTES = """\
copy, from the map: as many bytes in one piece of the same memory map, another piece each time. copy, in the cache: one
  array again and again, the most this processor can do.
images: the images of random rows and of the rows after them. whole batch: with states, actions and rewards, normalised,
  as tensors. channels first: from a file of NCHW images.
Medians of processor time, each line in turn; one thread, file in the page cache, fresh memory each time."""


def main(size: int = 84, batch: int = 64, steps: int = 6000, repeats: int = 200) -> None:
    """Time batches of `batch` transitions from a generated recording of `steps` steps and print the table.

    `size` is the side of the images in pixels. Raises ConfigError where a number makes no sense.
    """
    if min(size, batch, repeats) < 1 or steps < 4 * batch:
        raise ConfigError(
            f"bench: size {size}, batch {batch}, steps {steps}, repeats {repeats}; expected at least 1, and "
            "4 steps for each sample of a batch"
        )
    with tempfile.TemporaryDirectory(prefix="lapwing-bench-") as folder:
        last = _write(Path(folder) / "nhwc.hdf5", steps, (size, size, 3))
        first = _write(Path(folder) / "nchw.hdf5", steps, (3, size, size))
        seconds, first_pass = _measure(_dataset(last), _dataset(first), batch, repeats)
    frame_bytes = len(CAMERAS) * size * size * 3
    print(f"{steps} steps of {len(CAMERAS)} cameras {size}x{size}: {steps * frame_bytes / 1e6:.0f} MB on disk")
    print(f"batch of {batch} observations and next observations: {2 * batch * frame_bytes / 1e6:.2f} MB\n")
    print_table(seconds, 2 * batch * frame_bytes)
    print(f"\nfirst pass over the file, pages not mapped yet: {1e3 * first_pass:.2f} ms a whole batch")
    print(NOTES)


def print_table(seconds: dict[str, float], num_bytes: int) -> None:
    """One line for each thing measured, with its speed as a share of the two plain copies."""
    mapped, cached = seconds["copy, from the map"], seconds["copy, in the cache"]
    print(f"{'':28}{'ms':>8}{'GB/s':>8}{'of a copy from the map':>26}{'of a copy in the cache':>26}")
    for name, taken in seconds.items():
        speed = num_bytes / taken / 1e9
        print(f"{name:28}{1e3 * taken:8.2f}{speed:8.1f}{mapped / taken:26.2f}{cached / taken:26.2f}")


def _write(path: Path, steps: int, shape: tuple[int, int, int]) -> Path:
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (_WRITTEN_FRAMES, *shape), np.uint8)
    with h5py.File(path, "w") as file, tqdm(total=len(CAMERAS) * steps, desc=path.name, unit="frame") as bar:
        for name in CAMERAS:
            dataset = file.create_dataset(f"observations/{name}_image", (steps, *shape), np.uint8)
            for start in range(0, steps, len(frames)):
                block = frames[: min(len(frames), steps - start)]
                dataset[start : start + len(block)] = block
                bar.update(len(block))
        file["observations/joint"] = rng.normal(size=(steps, AXES)).astype(np.float32)
        file["actions"] = rng.normal(size=(steps, AXES)).astype(np.float32)
        file["rewards"] = np.zeros(steps, np.float32)
        file["terminals"] = np.arange(steps) == steps - 1
    return path


def _dataset(path: Path) -> Dataset:
    recording = read_flat(path, "nchw" if path.stem == "nchw" else "nhwc")
    normalizer = Normalizer.fit(recording.episodes, recording.spec)
    return Dataset(recording, FrameStore.open(recording), range(len(recording.episodes)), normalizer)


def _measure(last: Dataset, first: Dataset, batch: int, repeats: int) -> tuple[dict[str, float], float]:
    """Median seconds of each line, and mean seconds of a whole batch while the file's pages are being mapped."""
    rng = np.random.default_rng(0)
    maps, steps = list(last.recording.episodes[0].images.values()), last.recording.num_steps
    store, array = FrameStore.open(last.recording), np.ones((2 * batch, *maps[0].shape[1:]), np.uint8)
    batches, planar_batches = (one.stream(Transitions(), batch, seed=0) for one in (last, first))

    def copy_piece() -> list[Array]:
        start = int(rng.integers(steps - 2 * batch))
        return [frames[start : start + 2 * batch].copy() for frames in maps]

    def gather() -> list[Array]:
        rows = rng.integers(steps - 1, size=batch)
        return [store.gather(name, np.concatenate([rows, rows + 1])) for name in CAMERAS]

    lines: dict[str, Callable[[], object]] = {
        "copy, from the map": copy_piece,
        "copy, in the cache": lambda: [array.copy() for _ in CAMERAS],
        "images": gather,
        "whole batch": lambda: next(batches),
        "whole batch, channels first": lambda: next(planar_batches),
    }
    first_pass = [_seconds(lines["whole batch"]) for _ in range(max(1, steps // (8 * batch)))]
    for dataset in (last, first):
        _touch(dataset)
    seconds: dict[str, list[float]] = {name: [] for name in lines}
    for _ in tqdm(range(repeats), desc="rounds", unit="round", leave=False):
        for name, act in lines.items():
            seconds[name].append(_seconds(act))
    return {name: median(taken) for name, taken in seconds.items()}, sum(first_pass) / len(first_pass)


def _touch(dataset: Dataset) -> None:
    """Read every frame once, so that its page is mapped."""
    for frames in dataset.recording.episodes[0].images.values():
        for start in range(0, frames.shape[0], _WRITTEN_FRAMES):
            frames[start : start + _WRITTEN_FRAMES].copy()


def _seconds(act: Callable[[], object]) -> float:
    start = time.thread_time()  # of this thread alone: what else the machine does is not counted
    act()
    return time.thread_time() - start
