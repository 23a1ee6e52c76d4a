"""One side of `lapwing bench state`: a process that holds a learner and data of noise, and makes updates when told."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from lapwing.agent import Agent, Labelled, RewardFacts
from lapwing.agents import bc, iql, lapo, lapo_config
from lapwing.data.dataset import Dataset
from lapwing.data.frames import FrameStore
from lapwing.data.normalize import Normalizer
from lapwing.episode import Episode, Recording
from lapwing.run.bench_process import load_reference, seconds_of
from lapwing.run.device import pick_device
from lapwing.spec import Axis, RobotSpec, unnamed_axes

Algorithm = Literal["lapo", "iql", "bc"]
Variant = Literal["fp32", "bf16", "compiled"]
EPISODES, EPISODE_STEPS = 20, 500
FACTS = RewardFacts(reward=(0.0, 1.0), returns=(0.0, 100.0))
_PLAIN = {"lapo": "PlainLapo", "iql": "PlainIql", "bc": "PlainBc"}


@dataclass(frozen=True)
class Sizes:
    """Of everything that is compared."""

    batch: int
    state: int
    action: int
    hidden: tuple[int, ...]
    device: str
    threads: int


@dataclass(frozen=True)
class Job:
    """What a worker measures: ours in one variant, or the plain reference where there is one."""

    name: str
    algorithm: Algorithm
    sizes: Sizes
    variant: Variant = "fp32"
    reference: Path | None = None


@dataclass(frozen=True)
class Side:
    """A learner as things to do. update: a step on a batch that lies ready; draw: the next batch, on the device."""

    update: Callable[[], object]
    draw: Callable[[], object]


def work(pipe: Connection, job: Job) -> None:
    """Serve `pipe`: (what of a Side, how often) gets mean seconds."""
    torch.set_num_threads(job.sizes.threads)
    torch.manual_seed(0)
    device = pick_device(job.sizes.device)
    side = _ours(job, device) if job.reference is None else _plain(job, job.reference, device)
    while True:
        what, count = pipe.recv()
        pipe.send(seconds_of(getattr(side, what), count, device))


def make_agent(job: Job) -> Agent:
    """Ours, not prepared, with the networks and terms of its paper and no others."""
    hidden, spec = job.sizes.hidden, robot(job.sizes)
    if job.algorithm == "lapo":
        return lapo.LapoAgent(replace(lapo_config.PRESETS["original"], hidden=hidden), spec, FACTS)
    if job.algorithm == "iql":
        return iql.IqlAgent(replace(iql.PRESETS["original"], hidden=hidden), spec, FACTS)
    return bc.BcAgent(bc.BcConfig(hidden=hidden), spec, FACTS)


def robot(sizes: Sizes) -> RobotSpec:
    """State and action alone."""
    action = tuple(Axis(f"action_{axis}", low=-1.0, high=1.0) for axis in range(sizes.action))
    return RobotSpec(name="bench", cameras=(), state=unnamed_axes("state", sizes.state), action=action)


def _ours(job: Job, device: torch.device) -> Side:
    agent = make_agent(job)
    agent.prepare(device, bf16=job.variant == "bf16", compiled=job.variant == "compiled")
    sampling = agent.sampling
    assert not isinstance(sampling, Labelled)
    batches = (batch.to(device) for batch in _dataset(job, agent).stream(sampling, job.sizes.batch, seed=0))
    ready = next(batches)
    return Side(update=lambda: agent.update(ready), draw=lambda: next(batches))


def _dataset(job: Job, agent: Agent) -> Dataset:
    spec, episodes = robot(job.sizes), _noise(job.sizes)
    recording = Recording(Path("memory"), "memory", spec, episodes)
    normalizer = Normalizer.fit(episodes, spec, scaling=agent.config.scaling)
    return Dataset(recording, FrameStore.open(recording), range(EPISODES), normalizer)


def _noise(sizes: Sizes) -> list[Episode]:
    random = np.random.default_rng(0)
    return [
        Episode(
            images={},
            state=random.normal(size=(EPISODE_STEPS + 1, sizes.state)).astype(np.float32),
            action=random.uniform(-1, 1, (EPISODE_STEPS, sizes.action)).astype(np.float32),
            reward=random.uniform(size=EPISODE_STEPS).astype(np.float32),
            terminated=False,
        )
        for _ in range(EPISODES)
    ]


def _plain(job: Job, reference: Path, device: torch.device) -> Side:
    plain, sizes = load_reference(reference), job.sizes
    learner = getattr(plain, _PLAIN[job.algorithm])(sizes.state, sizes.action, sizes.hidden, device)
    data = plain.PlainData(EPISODES * EPISODE_STEPS, sizes.state, sizes.action, device)
    ready = data.sample(sizes.batch)
    return Side(update=lambda: learner.update(ready), draw=lambda: data.sample(sizes.batch))


class Lines:
    """The other end of a worker that speaks lines of JSON, with the two words of a pipe that `ask` needs."""

    def __init__(self, child: subprocess.Popen[str]) -> None:
        self._child = child

    def send(self, question: tuple[str, int], /) -> None:
        assert self._child.stdin is not None
        self._child.stdin.write(json.dumps(dict(zip(("what", "count"), question, strict=True))) + "\n")
        self._child.stdin.flush()

    def recv(self) -> Any:
        """The answer. Raises EOFError when the process ended instead."""
        assert self._child.stdout is not None
        line = self._child.stdout.readline()
        if not line:
            raise EOFError
        return json.loads(line)


@contextmanager
def foreign_process(command: Sequence[str]) -> Iterator[Lines]:
    """Run a worker of another environment; it ends with the context."""
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        try:
            yield Lines(child)
        finally:
            child.kill()
            assert child.stdin is not None
            with suppress(BrokenPipeError):  # of a question that a dead worker never read
                child.stdin.close()
