"""A small robot with and without eyes, and batches of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from lapwing.agent import Agent, Chunks, Labelled, RewardFacts, Sampling
from lapwing.batch import Batch, Obs
from lapwing.spec import Camera, RobotSpec, unnamed_axes

SIZE = 32  # pixels
MakeBatch = Callable[..., Batch]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Nets this small lose time to a second thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def float64() -> Iterator[None]:
    """New tensors have 64 bits, so that equal formulas give equal numbers."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture
def eyes() -> RobotSpec:
    cameras = tuple(Camera(name, SIZE, SIZE) for name in ("left", "right", "global"))
    return RobotSpec("eyes", cameras, unnamed_axes("state", 5), unnamed_axes("action", 3))


@pytest.fixture
def blind() -> RobotSpec:
    return RobotSpec("blind", (), unnamed_axes("state", 5), unnamed_axes("action", 3))


@pytest.fixture
def facts() -> RewardFacts:
    return RewardFacts(reward=(0.0, 1.0), returns=(0.0, 1.0))


@pytest.fixture
def make_batch() -> MakeBatch:
    """make_batch(spec, sampling, size=8, seed=0): random and reproducible; every second sample is a terminal one."""

    def make(spec: RobotSpec, sampling: Sampling, size: int = 8, seed: int = 0) -> Batch:
        random = torch.Generator().manual_seed(seed)
        chunk = 1 if isinstance(sampling, Labelled) else sampling.horizon
        last_valid = torch.randint(0, chunk, (size, 1), generator=random)
        terminal = torch.arange(size) % 2 == 1
        return Batch(
            obs=observe(spec, size, random),
            action=torch.randn(size, chunk, spec.action_dim, generator=random),
            is_pad=torch.arange(chunk) > last_valid,
            reward=terminal.to(torch.get_default_dtype()),
            discount=torch.where(terminal, 0.0, 0.99),
            mc_return=torch.rand(size, generator=random),
            next_obs=None if isinstance(sampling, Chunks) else observe(spec, size, random),
        )

    return make


def observe(spec: RobotSpec, size: int, random: torch.Generator) -> Obs:
    images = {
        camera.name: torch.randint(0, 256, (size, camera.height, camera.width, 3), generator=random).to(torch.uint8)
        for camera in spec.cameras
    }
    return Obs(images, torch.randn(size, spec.state_dim, generator=random))


@pytest.fixture
def update_watched() -> Callable[[Agent, Batch], list[set[str]]]:
    """update_watched(agent, batch): one update. Returns the names of the tensors of the networks that changed in each
    optimiser step, and last those that changed after all steps. Between the steps nothing may change."""

    def update(agent: Agent, batch: Batch) -> list[set[str]]:
        moved: list[set[str]] = []
        last = networks(agent)

        def before(*_: Any) -> None:
            assert changed(last, networks(agent)) == set()

        def after(*_: Any) -> None:
            nonlocal last
            now = networks(agent)
            moved.append(changed(last, now))
            last = now

        hooks = [register_optimizer_step_pre_hook(before), register_optimizer_step_post_hook(after)]
        try:
            agent.update(batch)
        finally:
            for hook in hooks:
                hook.remove()
        return [*moved, changed(last, networks(agent))]

    return update


def networks(agent: Agent) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in agent.state_dict()["networks"].items()}


def changed(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    return {name for name in before if not torch.equal(before[name], after[name])}
