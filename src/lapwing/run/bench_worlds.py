"""Steps a second of worlds to act in, in one table from one run."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing

import numpy as np
from tqdm import tqdm

from lapwing.data.axes import corresponding_axes
from lapwing.env import BatchEnv
from lapwing.episode import Array
from lapwing.errors import WorldError
from lapwing.run.bench_process import in_columns, spread
from lapwing.spec import RobotSpec

_NEAR = 0.01  # of an axis's range, either way

NOTES = """\
One copy of each world, random actions (joints told where to be: near where they are), images and resets included;
worlds take turns. Processor time is that of all threads, drawing in software included. The median of the rounds counts,
lowest and highest in brackets."""


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
    over, steps = True, 0
    began, began_cpu = time.perf_counter(), time.process_time()
    while steps == 0 or time.perf_counter() - began < seconds:
        if over:
            state = world.reset(random.integers(2**31, size=world.num).tolist()).state
        observation, _, terminated, truncated, _ = world.step(drawn_actions(world.spec, random, state))
        state, over, steps = observation.state, bool((terminated | truncated).all()), steps + world.num
    return steps / (time.perf_counter() - began), steps / (time.process_time() - began_cpu)


def drawn_actions(spec: RobotSpec, random: np.random.Generator, state: Array) -> Array:
    """Uniform actions [num, A] at states [num, S]; of joints told where to be, near where they are.

    Random targets all over their range throw arms about until the simulation breaks down.
    """
    low = np.array([-1.0 if axis.low is None else axis.low for axis in spec.action])
    high = np.array([1.0 if axis.high is None else axis.high for axis in spec.action])
    share = random.random((len(state), spec.action_dim))
    joint = corresponding_axes(spec)
    near = state[:, joint] + _NEAR * (high - low) * (2 * share - 1)
    actions: Array = np.where(joint >= 0, near, low + (high - low) * share).clip(low, high)
    return actions


def table(worlds: Mapping[str, BatchEnv], paces: Mapping[str, Sequence[tuple[float, float]]]) -> str:
    """A line for each world."""
    cells = [["world", "cameras", "steps/s", "", "by processor time", ""]]
    for name, world in worlds.items():
        sizes = [f"{camera.height}x{camera.width}" for camera in world.spec.cameras]
        cameras = f"{len(sizes)} of {sizes[0]}" if sizes else "none"
        wall, processor = zip(*paces[name], strict=True)
        cells.append([name, cameras, *spread(wall), *spread(processor)])
    return in_columns(cells)
