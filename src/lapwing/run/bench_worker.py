"""One side of `lapwing bench lapo`: a process that holds one learner, makes steps when told, and knows its memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any, Literal

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from lapwing.agent import RewardFacts
from lapwing.agents.lapo import LapoAgent
from lapwing.agents.lapo_config import LapoConfig
from lapwing.batch import Batch, Obs
from lapwing.nets.vision import VisionConfig
from lapwing.run.bench_process import load_reference, memory, seconds_of
from lapwing.run.device import Precision, pick_device
from lapwing.spec import Camera, RobotSpec, unnamed_axes

Encoder = Literal["stacked", "shared", "separate"]
Backbone = Literal["resnet18", "resnet10", "small"]
CAMERAS, STATE_DIM, ACTION_DIM = ("left", "right", "global"), 16, 16


@dataclass(frozen=True)
class Job:
    """What a worker measures. `encoder` is None for the plain reference, which then takes `encode_once`."""

    name: str
    batch: int
    size: int
    device: str
    threads: int
    encoder: Encoder | None = None
    backbone: Backbone = "resnet18"
    precision: Precision = "fp32"
    encode_once: bool = False
    compiled: bool = False
    reference: Path | None = None


@dataclass(frozen=True)
class Footprint:
    """Trained parameters, peak bytes above what the imports take, and seconds of a step's bare convolutions."""

    parameters: int
    peak_bytes: int
    convolution_share: float


def work(pipe: Connection, job: Job) -> None:
    """Serve `pipe`: a positive number asks for that many steps and gets seconds per step; 0 gets the Footprint."""
    torch.set_num_threads(job.threads)
    torch.manual_seed(0)
    device = pick_device(job.device)
    held = memory(device, peak=False)
    parameters, step = _plain(job, device) if job.encoder is None else _ours(job, device, job.compiled)
    while steps := pipe.recv():
        pipe.send(seconds_of(step, steps, device))
    peak = memory(device, peak=True) - held
    eager = _ours(job, device, False)[1] if job.compiled else step
    pipe.send(Footprint(parameters, peak, _convolution_share(eager, device)))


def _plain(job: Job, device: torch.device) -> tuple[int, Callable[[], object]]:
    assert job.reference is not None
    plain = load_reference(job.reference)
    learner = plain.PlainLapo(STATE_DIM, ACTION_DIM, (0.0, 1.0), job.encode_once).to(device)
    batch = plain.random_batch(job.batch, job.size, STATE_DIM, ACTION_DIM, device)
    return sum(p.numel() for p in learner.parameters()), lambda: learner.update(batch)


def _ours(job: Job, device: torch.device, compiled: bool) -> tuple[int, Callable[[], object]]:
    spec = RobotSpec(
        name="bench",
        cameras=tuple(Camera(name, job.size, job.size) for name in CAMERAS),
        state=unnamed_axes("state", STATE_DIM),
        action=unnamed_axes("action", ACTION_DIM),
    )
    assert job.encoder is not None
    vision = VisionConfig(encoder=job.encoder, backbone=job.backbone, weights="none")
    agent = LapoAgent(LapoConfig(vision=vision), spec, RewardFacts(reward=(0.0, 1.0), returns=(0.0, 1.0)))
    agent.prepare(device, job.precision == "bf16", compiled)
    batch = _random_batch(job).to(device)
    trained = (
        p for optimizer in agent.optimizers.values() for group in optimizer.param_groups for p in group["params"]
    )
    return sum(p.numel() for p in trained), lambda: agent.update(batch)


def _random_batch(job: Job) -> Batch:
    size = job.batch

    def obs() -> Obs:
        frames = torch.randint(0, 256, (len(CAMERAS), size, job.size, job.size, 3), dtype=torch.uint8)
        return Obs(dict(zip(CAMERAS, frames, strict=True)), torch.randn(size, STATE_DIM))

    return Batch(
        obs=obs(),
        action=torch.randn(size, 1, ACTION_DIM),
        is_pad=torch.zeros(size, 1, dtype=torch.bool),
        reward=torch.rand(size),
        discount=torch.full((size,), 0.99),
        mc_return=torch.rand(size),
        next_obs=obs(),
    )


class _Convolutions(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Remembers every convolution, forward and backward, that runs inside it."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: list[tuple[Any, tuple[Any, ...]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (torch.ops.aten.convolution.default, torch.ops.aten.convolution_backward.default):
            self.calls.append((func, args))
        return func(*args, **(kwargs or {}))

    def replay(self) -> None:
        for func, args in self.calls:
            func(*args)


def _convolution_share(step: Callable[[], object], device: torch.device) -> float:
    """A step's convolutions alone, same shapes and number formats, over the step: what no arrangement can beat.

    Median of three pairs timed back to back, so that a busy machine slows both alike.
    """
    with _Convolutions() as convolutions:
        step()
    with torch.no_grad():
        convolutions.replay()
    shares = []
    for _ in range(3):
        whole = seconds_of(step, 1, device)
        with torch.no_grad():
            shares.append(seconds_of(convolutions.replay, 1, device) / whole)
    return median(shares)
