"""Several processes training one model: who am I, start together, save together. Started by `torchrun`."""

from __future__ import annotations

import atexit
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from lapwing.agent import Learner


@dataclass(frozen=True)
class Ranks:
    """This process's place among `world_size`; rank 0 alone writes files."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    @property
    def many(self) -> bool:
        return self.world_size > 1


def read_ranks() -> Ranks:
    """The place `torchrun` gave this process, or the only one."""
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    rank, world_size, local_rank = (
        int(os.environ.get(name, default)) for name, default in zip(names, "010", strict=True)
    )
    return Ranks(rank, world_size, local_rank)


def connect(ranks: Ranks, device: torch.device) -> None:
    """Join the other processes, if there are any, until this one ends.

    A group that is left and made anew can find the addresses of the old one, and wait for them.
    """
    if ranks.many and not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
        atexit.register(dist.destroy_process_group)


def wait_for_all(ranks: Ranks) -> None:
    """Return when every process has come here."""
    if ranks.many:
        dist.barrier()


def copy_from_first(agent: Learner, ranks: Ranks, device: torch.device) -> None:
    """Give every process the agent of rank 0."""
    if not ranks.many:
        return
    state = agent.state_dict()
    for tensor in _tensors(state):
        sent = tensor.detach().to(device).contiguous()  # the back ends take neither strides nor foreign devices
        dist.broadcast(sent, src=0)
        tensor.detach().copy_(sent)
    agent.load_state_dict(state)


def gather_rng(ranks: Ranks, device: torch.device) -> list[dict[str, Tensor]]:
    """The state of every process's random number generators, in the order of their ranks."""
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    if device.type == "mps":
        state["mps"] = torch.mps.get_rng_state()
    if not ranks.many:
        return [state]
    states: list[Any] = [None] * ranks.world_size
    dist.all_gather_object(states, state)
    return states


def restore_rng(state: dict[str, Tensor], device: torch.device) -> None:
    """Put this process's random number generators back to where `gather_rng` found them."""
    torch.set_rng_state(state["cpu"])
    if "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)
    if "mps" in state:
        torch.mps.set_rng_state(state["mps"])


def _tensors(tree: Any) -> Iterator[Tensor]:
    if isinstance(tree, Tensor):
        yield tree
    elif isinstance(tree, dict):
        for value in tree.values():
            yield from _tensors(value)
    elif isinstance(tree, list | tuple):
        for value in tree:
            yield from _tensors(value)
