"""Steps a second of worlds to act in, in one table from one run."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing

import numpy as np
from tqdm import tqdm

from lapwing.env import BatchEnv
from lapwing.errors import WorldError
from lapwing.run.bench_process import in_columns, spread

NOTES = """\
One copy of each world, uniformly random actions, images and resets included; worlds take turns. By processor time of
all threads, drawing in software included. The median of the rounds counts, lowest and highest in brackets."""


def run(names: Sequence[str], make_world: Callable[[str], BatchEnv], repeats: int, seconds: float) -> None:
    """Time each world for `seconds` in each of `repeats` rounds and print the table, and which worlds are not here."""
    worlds: dict[str, BatchEnv] = {}
    skipped: list[str] = []
    with ExitStack() as stack:
        for name in names:
            try:
                worlds[name] = stack.enter_context(closing(make_world(name)))
            except WorldError as error:
                skipped.append(f"{name}: skipped, {error}")
        paces = measure(worlds, repeats, seconds)
        print(table(worlds, paces))
    print("\n".join([*skipped, NOTES]))


def measure(worlds: Mapping[str, BatchEnv], repeats: int, seconds: float) -> dict[str, list[tuple[float, float]]]:
    """By world, of each round: steps a second, and steps a second of the processor."""
    random = np.random.default_rng(0)
    paces: dict[str, list[tuple[float, float]]] = {name: [] for name in worlds}
    with tqdm(total=repeats * len(worlds), desc="worlds", unit="turn", leave=False) as bar:
        for _ in range(repeats):
            for name, world in worlds.items():
                paces[name].append(_pace(world, random, seconds))
                bar.update()
    return paces


def _pace(world: BatchEnv, random: np.random.Generator, seconds: float) -> tuple[float, float]:
    """At least one step, and on until `seconds` are over, from the beginning of an episode."""
    axes = [
        (-1.0 if axis.low is None else axis.low, 1.0 if axis.high is None else axis.high) for axis in world.spec.action
    ]
    low, high = np.array(axes).T
    over, steps = True, 0
    began, began_cpu = time.perf_counter(), time.process_time()
    while steps == 0 or time.perf_counter() - began < seconds:
        if over:
            world.reset(random.integers(2**31, size=world.num).tolist())
        _, _, terminated, truncated, _ = world.step(random.uniform(low, high, (world.num, len(low))))
        over, steps = bool((terminated | truncated).all()), steps + world.num
    return steps / (time.perf_counter() - began), steps / (time.process_time() - began_cpu)


def table(worlds: Mapping[str, BatchEnv], paces: Mapping[str, Sequence[tuple[float, float]]]) -> str:
    """A line for each world."""
    cells = [["world", "cameras", "steps/s", "", "by processor time", ""]]
    for name, world in worlds.items():
        sizes = [f"{camera.height}x{camera.width}" for camera in world.spec.cameras]
        cameras = f"{len(sizes)} of {sizes[0]}" if sizes else "none"
        wall, processor = zip(*paces[name], strict=True)
        cells.append([name, cameras, *spread(wall), *spread(processor)])
    return in_columns(cells)
