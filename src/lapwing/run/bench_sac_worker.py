"""One side of `lapwing bench sac`: a process that holds a learner and a filled buffer, and makes updates when told."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import torch

from lapwing.agent import RewardFacts, Transitions
from lapwing.agents.sac import PRESETS, SacAgent
from lapwing.data.normalize import Normalizer
from lapwing.data.replay import ReplayBuffer
from lapwing.episode import Episode
from lapwing.run.bench_process import load_reference, seconds_of
from lapwing.run.device import Precision, pick_device
from lapwing.spec import Axis, Camera, RobotSpec, unnamed_axes

CAMERAS, STATE_DIM, ACTION_DIM = ("front", "wrist"), 18, 6
EPISODE_STEPS = 100
_FEW = 8  # transitions in an update to warm up with
CONFIG = PRESETS["hilserl"]  # without the terms that plain SAC has not


@dataclass(frozen=True)
class Job:
    """What a worker measures: ours, or the plain reference where there is one. `transitions` fill its buffer."""

    name: str
    batch: int
    size: int
    transitions: int
    device: str
    threads: int
    precision: Precision = "fp32"
    reference: Path | None = None


@dataclass(frozen=True)
class Footprint:
    """Trained parameters, and the bytes of all arrays of a buffer that holds `transitions` and no more."""

    parameters: int
    buffer_bytes: int
    transitions: int


@dataclass(frozen=True)
class Side:
    """A SAC, ours or the plain one, as things to do.

    warm: an update on few transitions; draw: a batch from the buffer; update: one on a batch drawn for it.
    """

    footprint: Footprint
    warm: Callable[[], object]
    draw: Callable[[], object]
    update: Callable[[], object]


def work(pipe: Connection, job: Job) -> None:
    """Serve `pipe`: (what of a Side, how often) gets mean seconds; None gets the Footprint."""
    torch.set_num_threads(job.threads)
    torch.manual_seed(0)
    np.random.seed(0)
    device = pick_device(job.device)
    side = _ours(job, device) if job.reference is None else _plain(job, job.reference, device)
    while (question := pipe.recv()) is not None:
        what, count = question
        pipe.send(seconds_of(getattr(side, what), count, device))
    pipe.send(side.footprint)


def robot(size: int) -> RobotSpec:
    """One arm, two cameras of `size` pixels."""
    return RobotSpec(
        name="bench",
        cameras=tuple(Camera(name, size, size) for name in CAMERAS),
        state=unnamed_axes("state", STATE_DIM),
        action=tuple(Axis(f"action_{axis}", low=-1.0, high=1.0) for axis in range(ACTION_DIM)),
    )


def episodes(job: Job) -> Iterator[Episode]:
    """Episodes of noise with `transitions` steps in all, each with the observation after its last step."""
    rng = np.random.default_rng(0)
    for start in range(0, job.transitions, EPISODE_STEPS):
        steps = min(EPISODE_STEPS, job.transitions - start)
        frames = rng.integers(0, 256, (len(CAMERAS), steps + 1, job.size, job.size, 3), np.uint8)
        yield Episode(
            images=dict(zip(CAMERAS, frames, strict=True)),
            state=rng.normal(size=(steps + 1, STATE_DIM)).astype(np.float32),
            action=rng.uniform(-1, 1, (steps, ACTION_DIM)).astype(np.float32),
            reward=(np.arange(steps) == steps - 1).astype(np.float32),
            terminated=True,
        )


def empty_buffer(size: int, capacity: int) -> ReplayBuffer:
    """One of ours, with the statistics of noise."""
    values = np.random.default_rng(0).normal(size=(8, STATE_DIM)).astype(np.float32)
    sample = Episode({}, values, values[:, :ACTION_DIM].clip(-1, 1), None, False)
    normalizer = Normalizer.fit([sample], robot(size), scaling=CONFIG.scaling)
    return ReplayBuffer(robot(size), normalizer, capacity)


def _ours(job: Job, device: torch.device) -> Side:
    agent = SacAgent(CONFIG, robot(job.size), RewardFacts(reward=(0.0, 1.0), returns=(0.0, 1.0)))
    agent.prepare(device, job.precision == "bf16", compiled=False)
    sampling = agent.sampling
    assert isinstance(sampling, Transitions)
    buffer = empty_buffer(job.size, job.transitions + -(-job.transitions // EPISODE_STEPS))
    for episode in episodes(job):
        buffer.extend(episode)
    batches, few = (buffer.stream(sampling, size, seed=0) for size in (job.batch, _FEW))
    trained = [p for one in agent.optimizers.values() for group in one.param_groups for p in group["params"]]
    return Side(
        Footprint(sum(p.numel() for p in trained), buffer.nbytes, len(buffer)),
        warm=lambda: agent.update(next(few).to(device)),
        draw=lambda: next(batches),
        update=lambda: agent.update(next(batches).to(device)),
    )


def _plain(job: Job, reference: Path, device: torch.device) -> Side:
    plain = load_reference(reference)
    learner = plain.PlainSac(len(CAMERAS), job.size, STATE_DIM, ACTION_DIM, device)
    buffer = plain.PlainBuffer(job.transitions, (len(CAMERAS), 3, job.size, job.size), STATE_DIM, ACTION_DIM)
    for episode in episodes(job):
        plain.fill(buffer, [episode.images[name] for name in CAMERAS], episode.state, episode.action)
    return Side(
        Footprint(sum(p.numel() for p in learner.parameters()), buffer.nbytes, len(buffer)),
        warm=lambda: learner.update(buffer.sample(_FEW).to(device)),
        draw=lambda: buffer.sample(job.batch),
        update=lambda: learner.update(buffer.sample(job.batch).to(device)),
    )
