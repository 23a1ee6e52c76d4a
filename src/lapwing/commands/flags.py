"""Flags from a dataclass or a function's parameters, by tyro; what does not parse is one line instead of a box."""

from __future__ import annotations

import contextlib
import functools
import io
import re
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any, TypeVar

import tyro

from lapwing.errors import ConfigError

Command = TypeVar("Command")


def parse(
    kind: Callable[..., Command], args: Sequence[str], prog: str, default: Command = tyro.MISSING_NONPROP
) -> Command:
    """Fill `kind` from `args`. Prints help and exits for --help; raises ConfigError for what does not parse."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            filled: Command = tyro.cli(  # type: ignore[call-overload]
                kind, args=list(args), prog=prog, default=default, config=(tyro.conf.OmitArgPrefixes,)
            )
            return filled
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        raise ConfigError(f"{_in_one_line(said.getvalue())}; see {prog} --help") from None


def call(function: Callable[..., Any], args: Sequence[str], prog: str) -> None:
    """Call `function` with its parameters as flags."""

    @functools.wraps(function)
    def collect(**parameters: Any) -> dict[str, Any]:
        return parameters

    function(**parse(collect, args, prog))


def _in_one_line(box: str) -> str:
    """The first part of tyro's boxed message without its colours; what follows a rule is help.

    Where the terminal may know ASCII alone, tyro draws no sides, and a rule below the title.
    """
    text = re.sub(r"\x1b\[[0-9;]*m", "", box)
    boxed = "│" in text
    rows = [row.strip("│ ") for row in text.splitlines() if row.startswith("│") or not boxed]
    parts = [" ".join(part) for is_rule, part in groupby(rows, _is_rule) if not is_rule]
    said = parts[0 if boxed or len(parts) < 2 else 1] if parts else ""
    return " ".join(said.rstrip(".").split())


def _is_rule(row: str) -> bool:
    return bool(row) and set(row) <= {"─", "-"}
