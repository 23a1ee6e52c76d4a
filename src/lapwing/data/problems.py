"""A problem of a recording, said in one line: file, field, got, expected, what to do."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from lapwing.errors import DataError

Severity = Literal["error", "warning"]


@dataclass(frozen=True)
class Problem:
    """`severity` "error": training would fail or learn nothing; "warning": it works, look at the data first."""

    severity: Severity
    file: str
    field: str
    got: str
    expected: str
    advice: str

    def __str__(self) -> str:
        facts = f"{self.got}, expected {self.expected}" if self.expected else self.got
        where = ": ".join(part for part in (self.severity, self.file, self.field, facts) if part)
        return " ".join(f"{where}; {self.advice}".split()) if self.advice else " ".join(where.split())

    def to_dict(self) -> dict[str, str]:
        """Plain JSON values."""
        return asdict(self)


def from_error(path: Path, field: str, error: DataError) -> Problem:
    """A reader's error "FILE: got, expected ...; advice" as a problem."""
    text = str(error).removeprefix(f"{path}: ").removeprefix(f"'{field}'").lstrip(": ")
    got, *rest = re.split("[,;] expected ", text, maxsplit=1)
    if rest:
        expected, _, advice = rest[0].partition("; ")
    else:
        (got, _, advice), expected = text.partition("; "), ""
    return Problem("error", str(path), field, got, expected, advice)


def listed(names: Iterable[object], limit: int = 8) -> str:
    """Names in one line, the first few when they are many."""
    texts = [str(name) for name in names]
    more = f" and {len(texts) - limit} more" if len(texts) > limit else ""
    return ", ".join(texts[:limit]) + more


def ranges(numbers: Iterable[int]) -> str:
    """Ascending numbers in short: 0, 1, 2, 5 -> "0-2, 5"."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)
