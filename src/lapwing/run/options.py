"""Settings of a training run that no algorithm owns. `tyro` makes flags of them."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import tyro

from lapwing.data.formats.options import ReadOptions
from lapwing.data.formats.serl_modes import SetupMode
from lapwing.errors import ConfigError

LAST = "last"  # as best_metric: the newest checkpoint is `best`


@dataclass(frozen=True)
class TrainOptions:
    """How to train, whatever the algorithm."""

    steps: int = 0
    """Gradient steps."""
    epochs: int = 0
    """Instead of --steps: epochs as the original ACT counts them, each as many steps as drawing one start from every
    training episode takes. 2000 epochs of 40 episodes in batches of 8 are 10,000 steps."""
    batch_size: int = 64
    """Samples in a step, over all processes together."""
    init: str | None = None
    """A run or checkpoint directory to take the weights from; the algorithm's settings must fit them."""
    seed: int = 0
    """Of the split, the initial weights and the order of the batches."""
    eval_every: Annotated[int, tyro.conf.arg(aliases=["--eval-freq"])] = 1000
    """Steps between measurements on the held-out episodes; a checkpoint is written with each."""
    save_every: Annotated[int, tyro.conf.arg(aliases=["--save-freq"])] = 5000
    """Steps between the checkpoints that are kept for good."""
    log_every: int = 100
    """Steps averaged into one row of progress.csv."""
    eval_samples: int | None = None
    """Held-out samples measured each time, spread evenly; None: all for imitation, 2048 for offline RL."""
    patience: int | None = None
    """Stop after so many measurements without a better checkpoint; None: never."""
    best_metric: str = ""
    """Column of progress.csv whose lowest value makes the checkpoint `best`, or "last"; empty: the algorithm's own, and
    "last" where learning rates fall to 0 (LAPO's decay_steps)."""
    train_fraction: float = 0.8
    """Share of the episodes to learn from; the others are held out. 1: none is held out, and nothing is measured."""
    image_size: int | None = None
    """Width and height in pixels to train at; None: as recorded."""
    image_layout: Literal["auto", "nhwc", "nchw"] = "auto"
    """Order of the axes of recorded images, where the shape does not tell."""
    base: Literal["auto", "off", "action", "both"] = "auto"
    """A recorded base_action: part of the action, of state and action (both), or neither (off); auto: of the action
    unless it never moves."""
    mode: SetupMode | None = None
    """Which axes of the action are arms and which grippers, for transition files, which do not name them."""
    image_keys: tuple[str, ...] = ()
    """The cameras of transition files; empty: every key whose values are images."""
    skip_damaged: bool = False
    """Train without the episodes of a folder that cannot be read, and say which."""
    alignment: int = 0
    """Pair each observation with the action recorded this many steps later (or, below zero, earlier)."""
    relative_actions: bool = False
    """Learn actions relative to the state, axis by axis, where names correspond."""
    device: Literal["auto", "cuda", "mps", "cpu"] = "auto"
    """Where to compute; auto: cuda, then mps, then cpu."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Number format of the image encoder, or, without cameras, of MLPs (not of SAC's); auto: bf16 for images where the
    hardware has it."""
    compile: bool = False
    """Compile the image encoder, or the MLPs without cameras: a slow start for faster steps."""
    threads: int | None = None
    """CPU threads of one operation; None: PyTorch's choice."""

    def __post_init__(self) -> None:
        if self.steps and self.epochs:
            raise ConfigError(f"steps is {self.steps} and epochs {self.epochs}, expected one of them; leave one out")
        if self.epochs < 0 or (self.steps < 1 and not self.epochs):
            name = "epochs" if self.epochs else "steps"
            raise ConfigError(f"{name} is {getattr(self, name)}, expected at least 1; give --steps N")
        for name in ("batch_size", "eval_every", "save_every", "log_every", "eval_samples", "patience", "threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} is {value}, expected at least 1")
        if not 0 <= self.seed < 2**63:
            raise ConfigError(f"seed is {self.seed}, expected 0 to 2**63 - 1")
        if self.threads is not None and self.threads > 1024:
            raise ConfigError(f"threads is {self.threads}, expected at most 1024")
        if self.image_size is not None and not 8 <= self.image_size <= 4096:
            raise ConfigError(f"image_size is {self.image_size}, expected 8 to 4096 pixels; 84 suits most policies")
        if abs(self.alignment) > 100:
            raise ConfigError(f"alignment is {self.alignment}, expected -100 to 100 steps; 1 or -1 is usual")

    def in_steps(self, episodes: int) -> TrainOptions:
        """The same with epochs turned into steps, for so many training episodes."""
        if not self.epochs:
            return self
        return replace(self, steps=self.epochs * math.ceil(episodes / self.batch_size), epochs=0)

    @property
    def reading(self) -> ReadOptions:
        """What of it the readers of recordings need."""
        return ReadOptions(self.image_layout, self.base, self.skip_damaged, self.mode, self.image_keys)
