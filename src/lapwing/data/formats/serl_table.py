"""Transitions as columns, whatever file they come from.

A column is named as the transition nests it ("observations/state") and has one entry a transition.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lapwing.data.problems import listed
from lapwing.errors import DataError

# What our own writer adds, for other programs do not look at it.
SPEC, META = "infos/lapwing_spec", "infos/lapwing_meta"  # JSON texts in an episode's first transition
OBSERVED = "infos/next_observed"  # False in an episode's last transition, where the observation after it is unknown


@dataclass(frozen=True)
class Table:
    """Transitions by column; None stands where a transition lacks one. `notes` grows while the table is read."""

    path: Path
    length: int
    columns: Mapping[str, Sequence[Any]]
    notes: list[str] = field(default_factory=list)

    def part(self, group: str) -> list[str]:
        """Names of the columns within a group: "observations" -> image, state."""
        return [name.removeprefix(f"{group}/") for name in self.columns if name.startswith(f"{group}/")]

    def __getitem__(self, key: str) -> Sequence[Any]:
        """A column that every transition has. Raises DataError naming the first one without it."""
        column = self.columns.get(key)
        if column is None:
            found = listed(sorted(self.columns), 12)
            raise DataError(f"{self.path}: no {key!r} in any transition, expected it in all (found {found}); add it")
        for step, value in enumerate(column):
            if value is None:
                raise DataError(
                    f"{self.path}: transition {step} has no {key!r}, expected it as in the others; mend or drop it"
                )
        return column

    def note(self, text: str) -> None:
        """Say something once."""
        if text not in self.notes:
            self.notes.append(text)
