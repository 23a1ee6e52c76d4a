"""One side of `lapwing bench act`: a process that holds one ACT and steps, acts or reads episodes when told."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import count
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from lapwing.agent import Chunks, RewardFacts
from lapwing.agents.act import PRESETS, ActAgent
from lapwing.batch import Batch, Obs
from lapwing.data.dataset import Dataset
from lapwing.data.formats.aloha import read_aloha
from lapwing.data.frames import FrameStore
from lapwing.data.normalize import Normalizer
from lapwing.episode import Array, Episode, Observation
from lapwing.run.bench_process import load_reference, memory, seconds_of, synchronize
from lapwing.run.device import Precision, pick_device
from lapwing.run.execution import Execution
from lapwing.run.policy import Policy
from lapwing.run.prefetch import Prefetch
from lapwing.spec import Camera, RobotSpec, unnamed_axes

CAMERAS, AXES = ("cam_high", "cam_left_wrist", "cam_right_wrist"), 14
_EPISODE_STEPS = 400  # of the table in which the reference keeps its predictions

Preset = Literal["original", "product"]


@dataclass(frozen=True)
class Job:
    """What a worker measures. `preset` is None for the plain reference; `folder` holds episodes to learn from."""

    name: str
    batch: int
    height: int
    width: int
    chunk: int
    device: str
    threads: int
    token: int = 512
    preset: Preset | None = None
    precision: Precision = "fp32"
    share_backbone: bool = True
    reference: Path | None = None
    folder: Path | None = None


@dataclass(frozen=True)
class Footprint:
    """Trained parameters, and peak bytes above what the imports take."""

    parameters: int
    peak_bytes: int


@dataclass(frozen=True)
class Reading:
    """Of training from files: seconds of a step, and of waiting for data in it."""

    step: float
    waited: float


@dataclass(frozen=True)
class Side:
    """An ACT, ours or the plain one, as things to do.

    warm: a step on one sample; step: one of training; ask: one control step that predicts, with ensembling; play: all
    control steps of one chunk in open loop; read: assemble one batch of the folder; train: steps on batches of the
    folder, until so many seconds are over.
    """

    parameters: int
    warm: Callable[[], object]
    step: Callable[[], object]
    ask: Callable[[], object]
    play: Callable[[], object]
    read: Callable[[], object]
    train: Callable[[float], Reading]


def work(pipe: Connection, job: Job) -> None:
    """Serve `pipe`: (what of a Side, how often or long) gets seconds or a Reading; None gets the Footprint."""
    torch.set_num_threads(job.threads)
    torch.manual_seed(0)
    device = pick_device(job.device)
    held = memory(device, peak=False)
    side = _plain(job, device) if job.preset is None else _ours(job, device)
    while (question := pipe.recv()) is not None:
        what, amount = question
        if what == "train":
            pipe.send(side.train(amount))
        else:
            pipe.send(seconds_of(getattr(side, what), amount, device))
    pipe.send(Footprint(side.parameters, memory(device, peak=True) - held))


def robot(job: Job) -> RobotSpec:
    """ALOHA with three cameras."""
    cameras = tuple(Camera(name, job.height, job.width) for name in CAMERAS)
    return RobotSpec("bench", cameras, unnamed_axes("state", AXES), unnamed_axes("action", AXES), 50.0)


def _ours(job: Job, device: torch.device) -> Side:
    assert job.preset is not None
    config = PRESETS[job.preset]
    config = replace(
        config,
        chunk=job.chunk,
        share_backbone=job.share_backbone,
        transformer=replace(config.transformer, width=job.token),
        vision=replace(
            config.vision, weights="none", norm="frozen"
        ),  # as with ImageNet's weights, which need a network
    )
    spec = robot(job)
    agent = ActAgent(config, spec, RewardFacts((0.0, 0.0), (0.0, 0.0)))
    agent.prepare(device, job.precision == "bf16", compiled=False)
    observation = Observation(_random_frames(job), np.zeros(AXES, np.float32))
    batch = _random_batch(job).to(device)
    ensemble, queue = (
        Policy(agent, spec, _normalizer(spec), None, device, Execution(ensemble=one)) for one in (True, False)
    )
    stream = _stream(job) if job.folder else None
    return Side(
        parameters=sum(p.numel() for group in agent.optimizer.param_groups for p in group["params"]),
        warm=lambda: agent.update(_random_batch(replace(job, batch=1)).to(device)),
        step=lambda: agent.update(batch),
        ask=lambda: ensemble(observation),
        play=lambda: [queue(observation) for _ in range(job.chunk)],
        read=lambda: next(stream) if stream else None,
        train=lambda seconds: _train_ours(agent, job, device, seconds),
    )


def _stream(job: Job) -> Iterator[Batch]:
    assert job.folder is not None
    recording = read_aloha(job.folder)
    normalizer = Normalizer.fit(recording.episodes, recording.spec)
    frames = FrameStore.open(recording, progress=False)
    dataset = Dataset(recording, frames, range(len(recording.episodes)), normalizer)
    return dataset.stream(Chunks(job.chunk), job.batch, seed=0)


def _train_ours(agent: ActAgent, job: Job, device: torch.device, seconds: float) -> Reading:
    with Prefetch(_stream(job), pin=device.type == "cuda") as batches:
        return _train(batches, lambda batch: agent.update(batch.to(device)), device, seconds)


def _train(batches: Iterator[Any], update: Callable[[Any], object], device: torch.device, seconds: float) -> Reading:
    """Steps until `seconds` are over, one at least, after one that is not counted."""
    update(next(batches))
    synchronize(device)
    waited, began = 0.0, time.perf_counter()
    for step in count(1):
        asked = time.perf_counter()
        batch = next(batches)
        waited += time.perf_counter() - asked
        update(batch)
        synchronize(device)
        taken = time.perf_counter() - began
        if taken + taken / step > seconds:
            break
    return Reading(taken / step, waited / step)


def _plain(job: Job, device: torch.device) -> Side:
    assert job.reference is not None
    plain = load_reference(job.reference)
    learner = plain.PlainAct(AXES, AXES, job.chunk, job.token).start(device)
    size, dims = (job.height, job.width), (AXES, AXES)
    batch = plain.random_batch(job.batch, size, len(CAMERAS), dims, job.chunk, device)
    one = plain.random_batch(1, size, len(CAMERAS), dims, job.chunk, device)
    ensemble = plain.PlainEnsemble(learner, _EPISODE_STEPS, job.chunk, AXES, device)
    frames, state = list(_random_frames(job).values()), np.zeros(AXES, np.float32)

    source = None
    if job.folder:
        source = plain.PlainEpisodes(sorted(job.folder.glob("*.hdf5")), CAMERAS, job.chunk)

    def epochs() -> Iterator[Any]:
        while True:
            yield from plain.loader(source, job.batch, device.type == "cuda")

    return Side(
        parameters=sum(p.numel() for p in learner.parameters()),
        warm=lambda: learner.update(one),
        step=lambda: learner.update(batch),
        ask=lambda: ensemble.act(*plain.observed(frames, state, device)).cpu(),
        play=lambda: learner.act(*plain.observed(frames, state, device)).cpu(),
        read=lambda: next(iter(plain.loader(source, job.batch, False, workers=0))),
        train=lambda seconds: _train(
            epochs(), lambda samples: learner.update(plain.PlainBatch(*samples).to(device)), device, seconds
        ),
    )


def _random_frames(job: Job) -> dict[str, Array]:
    rng = np.random.default_rng(0)
    return {name: rng.integers(0, 256, (job.height, job.width, 3), np.uint8) for name in CAMERAS}


def _random_batch(job: Job) -> Batch:
    size, zero = job.batch, torch.zeros(job.batch)
    frames = torch.randint(0, 256, (len(CAMERAS), size, job.height, job.width, 3), dtype=torch.uint8)
    return Batch(
        obs=Obs(dict(zip(CAMERAS, frames, strict=True)), torch.randn(size, AXES)),
        action=torch.randn(size, job.chunk, AXES),
        is_pad=torch.zeros(size, job.chunk, dtype=torch.bool),
        reward=zero,
        discount=zero,
        mc_return=zero,
    )


def _normalizer(spec: RobotSpec) -> Normalizer:
    values = np.random.default_rng(0).normal(size=(8, AXES)).astype(np.float32)
    return Normalizer.fit([Episode({}, values, values, None, False)], spec)
