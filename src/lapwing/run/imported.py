"""A run directory from the weights of another project, which acts and is evaluated like one that was trained here."""

from __future__ import annotations

import os
import pickle
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from lapwing.agent import RewardFacts
from lapwing.agents import build_agent
from lapwing.agents.act import ActAgent
from lapwing.agents.act_weights import PublishedSizes, load_published, published_settings, published_sizes
from lapwing.data.formats.aloha_file import BASE_AXES, arm_axes
from lapwing.errors import CheckpointError, ConfigError
from lapwing.nets.transformer import Output
from lapwing.run.checkpoint import link_checkpoint, save_checkpoint, step_name
from lapwing.run.directory import create_run, expect_free
from lapwing.run.published_stats import published_normalizer
from lapwing.spec import Axis, Camera, RobotSpec


def import_act(
    weights: Path,
    out: Path,
    *,
    stats: Path | None,
    cameras: Sequence[str],
    size: tuple[int, int],
    rate_hz: float,
    heads: int,
    decoder_output: Output | None,
) -> tuple[str, ...]:
    """Make the run `out` of published ACT weights; returns what of them was left out, in words.

    cameras: in the order of training; size: height and width of every camera's frames in pixels. Raises
    CheckpointError, ConfigError or DataError before anything is written.
    """
    expect_free(out, can_resume=False)
    state = read_weights(weights)
    facts = RewardFacts((0.0, 0.0), (0.0, 0.0))  # imitation does not look at rewards
    try:
        sizes = published_sizes(state)
        spec = _spec(sizes, cameras, size, rate_hz)
        config = published_settings(state, heads, decoder_output)
        agent = cast(ActAgent, build_agent("act", config, spec, facts, restore=True))
        left_out = load_published(agent, state)
    except CheckpointError as error:
        raise CheckpointError(f"{weights}: {error}") from error
    normalizer = published_normalizer(stats, weights, state, sizes)
    settings = asdict(agent.config)
    partial = out.absolute().with_name(f".{out.absolute().name}.importing")
    shutil.rmtree(partial, ignore_errors=True)
    source = {"weights": str(weights), "stats": None if stats is None else str(stats), "left_out": left_out}
    described = {"algorithm": "act", "config": settings, "imported": source, "reward_facts": asdict(facts)}
    try:
        create_run(partial, {"config.json": described})
        save_checkpoint(
            partial / "checkpoints" / step_name(0),
            algorithm="act",
            config=settings,
            facts=facts,
            agent=agent,
            spec=spec,
            normalizer=normalizer,
            train_state={"agent": {"networks": agent.networks.state_dict()}},
        )
        for link in ("best", "last"):
            link_checkpoint(partial, link, 0)
        os.rename(partial, out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return left_out


def read_weights(path: Path) -> dict[str, Tensor]:
    """A state dict, of safetensors or of torch.save; no code in it is run. Raises CheckpointError."""
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:  # whose words advise to run the file's code
        raise CheckpointError(
            f"{path}: cannot be read as tensors alone (it is no whole file of torch.save, or holds other classes, of "
            "which nothing was run); choose a state dict"
        ) from error
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, SafetensorError) as error:
        reason = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
        raise CheckpointError(f"{path}: cannot be read as tensors alone ({reason}); choose a state dict") from error
    if not isinstance(state, dict) or not all(
        isinstance(name, str) and isinstance(one, Tensor) for name, one in state.items()
    ):
        raise CheckpointError(f"{path}: holds more than named tensors, expected the state dict of an ACT policy")
    return state


def _spec(sizes: PublishedSizes, cameras: Sequence[str], size: tuple[int, int], rate_hz: float) -> RobotSpec:
    if sizes.cameras not in (None, len(cameras)):
        raise ConfigError(
            f"the weights have backbones for {sizes.cameras} cameras, got {len(cameras)}: {', '.join(cameras)}; name "
            "them with --cameras in the order of training"
        )
    if len(set(cameras)) < len(cameras) or not cameras:
        raise ConfigError(f"cameras are {', '.join(cameras) or 'none'}, expected different names; set --cameras")
    if not all(32 <= side <= 4096 for side in size):
        raise ConfigError(f"size is {size[0]} x {size[1]}, expected 32 to 4096 pixels; set --size HEIGHT WIDTH")
    if not 0 <= rate_hz < 10_000:
        raise ConfigError(f"rate_hz is {rate_hz}, expected 0 (unknown) or more; 50 is usual")
    return RobotSpec(
        name="imported",
        cameras=tuple(Camera(name, *size) for name in cameras),
        state=_axes("state", sizes.state),
        action=_axes("action", sizes.action),
        rate_hz=rate_hz,
    )


def _axes(prefix: str, count: int) -> tuple[Axis, ...]:
    """Axes as a recording in the ALOHA layout names them: two arms, and the base after them."""
    arms = 14
    if count == arms + len(BASE_AXES):
        return (*arm_axes(prefix, arms), *BASE_AXES)
    return arm_axes(prefix, count)
