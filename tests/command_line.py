"""A command line run in this process, and what it led to."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple


class Said(NamedTuple):
    """What a command line led to."""

    code: int
    out: str
    err: str


Lapwing = Callable[..., Said]


def error_line(said: Said) -> str:
    """The one line of an error; progress bars aside, there is no other, and no traceback."""
    assert said.code == 2, said
    lines = [line for line in said.err.splitlines() if line.strip() and "it/s" not in line and "frame" not in line[:60]]
    assert len(lines) == 1, said.err
    assert lines[0].startswith("lapwing: error: ")
    return lines[0].removeprefix("lapwing: error: ")
