"""Where training and acting happen: device, number format and the memory they take."""

from __future__ import annotations

import platform
import sys
from pathlib import Path
from typing import Literal

import torch

from lapwing.errors import ConfigError

DeviceName = Literal["auto", "cuda", "mps", "cpu"]
PrecisionName = Literal["auto", "fp32", "bf16"]
Precision = Literal["fp32", "bf16"]


def pick_device(name: str, local_rank: int = 0) -> torch.device:
    """The device asked for; `auto` takes cuda, then mps, then cpu. Raises ConfigError when it is not there."""
    found = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = next(kind for kind, there in found.items() if there)
    if not found.get(name, False):
        there = ", ".join(kind for kind, is_there in found.items() if is_there)
        raise ConfigError(f"device: asked for {name!r}, this machine has {there}; choose one of these, or auto")
    if name != "cuda":
        return torch.device(name)
    torch.cuda.set_device(local_rank)
    return torch.device("cuda", local_rank)


def open_device(device: str | torch.device) -> torch.device:
    """A device in PyTorch's words ("cpu", "cuda:1"), or auto, that takes tensors. Raises ConfigError."""
    if device == "auto":
        return pick_device("auto")
    try:
        found = torch.device(device)
        torch.zeros(1, device=found)
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # each kind of device has its own
        reason = str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__
        raise ConfigError(f"device: {str(device)!r} cannot be used here ({reason}); choose cpu, or auto") from error
    return found


def pick_precision(name: PrecisionName, device: torch.device, images: bool = True) -> Precision:
    """The number format of the encoder; `auto` takes bf16 for `images` where the hardware multiplies in it."""
    if name != "auto":
        return name
    if not images:
        return "fp32"
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    return "bf16" if device.type == "cpu" and cpu_multiplies_bf16() else "fp32"


def cpu_multiplies_bf16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether this CPU has bf16 instructions (AVX512-BF16 or AMX); without them bf16 is slower than float32."""
    if platform.system() != "Linux" or not cpuinfo.exists():
        return False
    flags = set(cpuinfo.read_text(errors="replace").split())
    return bool(flags & {"avx512_bf16", "amx_bf16"})


def peak_memory_gb(device: torch.device) -> float:
    """Peak memory in GiB: of the GPU's allocator on cuda, of the process elsewhere."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    if sys.platform == "win32":
        return 0.0
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**30 if sys.platform == "darwin" else 2**20)
