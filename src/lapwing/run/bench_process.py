"""What the benchmarks of algorithms share: a process for each thing measured, its clock and memory, the references."""

from __future__ import annotations

import importlib.util
import multiprocessing
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from types import ModuleType
from typing import Any, Protocol

import torch

from lapwing.errors import ConfigError, LapwingError

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"


def find_reference(name: str) -> Path:
    """benchmarks/NAME of the checkout this package runs from. Raises ConfigError."""
    path = BENCHMARKS / name
    if not path.is_file():
        raise ConfigError(
            f"bench: the plain reference, benchmarks/{name}, is no part of the installed package; "
            "run it from a checkout of the repository installed with `pip install -e .`"
        )
    return path


def load_reference(path: Path) -> ModuleType:
    """The module of a plain reference, which is no part of the package."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # dataclasses look themselves up there
    spec.loader.exec_module(module)
    return module


@contextmanager
def process(work: Callable[[Connection, Any], None], job: Any) -> Iterator[Connection]:
    """Run `work(pipe, job)` in a process of its own and yield the other end of the pipe; it ends with the context."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    child = context.Process(target=work, args=(theirs, job))  # no daemon, for a reference has readers of its own
    child.start()
    theirs.close()
    try:
        yield ours
    finally:
        child.kill()  # whatever it had to say has been received
        child.join()
        ours.close()


class Line(Protocol):
    """A pipe, or what speaks like one."""

    def send(self, question: Any, /) -> None: ...

    def recv(self) -> Any: ...


def ask(name: str, pipe: Line, question: Any) -> Any:
    """Send `question` and wait for the answer. Raises LapwingError when the process ended instead."""
    try:
        pipe.send(question)
        return pipe.recv()
    except (EOFError, ConnectionError) as error:
        raise LapwingError(
            f"bench: the process of {name!r} ended early, its own message stands above; "
            "if it was killed, memory ran out: use a smaller --batch, or measure less at a time"
        ) from error


def seconds_of(step: Callable[[], object], steps: int, device: torch.device) -> float:
    """Seconds of one `step`, the mean of `steps`."""
    synchronize(device)
    began = time.perf_counter()
    for _ in range(steps):
        step()
    synchronize(device)
    return (time.perf_counter() - began) / steps


def synchronize(device: torch.device) -> None:
    """Wait until the device has done what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def memory(device: torch.device, peak: bool) -> int:
    """Bytes held now, or at the most so far: of the GPU's allocator on cuda, else of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) if peak else torch.cuda.memory_allocated(device)
    status = Path("/proc/self/status")
    if status.exists():
        field = "VmHWM:" if peak else "VmRSS:"
        return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith(field)) << 10
    import resource  # not on Windows

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << (0 if sys.platform == "darwin" else 10)


def in_columns(lines: Sequence[Sequence[str]]) -> str:
    """Lines of as many cells each, the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    )


def spread(values: Sequence[float], unit: str = "") -> tuple[str, str]:
    """The median and, in brackets, the lowest and the highest, three digits that count each."""
    middle, low, high = (_three_digits(value) for value in (median(values), min(values), max(values)))
    return f"{middle}{unit}", f"({low}-{high})"


def _three_digits(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:#.3g}"


def where(device: torch.device, threads: int) -> str:
    """The device in words."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device.type}, threads {threads}"
