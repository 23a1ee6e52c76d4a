"""The hidden folder in which a conversion grows, so that one that was interrupted can go on.

    .OUT.partial/identity.json   what is converted, with which settings
                 journal.jsonl   one line an episode that is done, in order
                 ...             the episodes themselves

Until the very end there is nothing under the name that was asked for.
"""

from __future__ import annotations

import fcntl
import json
import shutil
from collections.abc import Mapping
from itertools import takewhile
from pathlib import Path
from types import TracebackType
from typing import Any

from lapwing.errors import DataError


class Unfinished:
    """A context manager around the folder: made or found again, locked, and gone when the result is in its place.

    identity: what must be the same for going on. records: what the journal says of each episode that is done. When
    the block is left by an exception, the folder stays if an episode is done, and goes otherwise. Raises DataError
    when `out` exists, cannot be written, or the folder holds another conversion or is in use.
    """

    def __init__(self, out: Path, identity: Mapping[str, Any]) -> None:
        self.out, self.path = out, out.with_name(f".{out.name}.partial")
        self.records: list[dict[str, Any]] = []
        if out.exists() and not _is_empty_folder(out):
            raise DataError(f"{out}: already exists; choose another name or delete it first")
        try:
            self.path.mkdir(exist_ok=True)
            self._lock = (self.path / "lock").open("w")
        except OSError as error:
            raise DataError(f"{out}: cannot be written ({error.strerror}); create or choose a folder") from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._go_on(json.loads(json.dumps(identity)))
        except BlockingIOError as error:
            self._lock.close()
            raise DataError(f"{out}: another process is writing it; wait for it, or choose another name") from error
        except DataError:
            self._lock.close()
            raise

    def __enter__(self) -> Unfinished:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None and not self.records:
            self.discard()
        self._lock.close()

    def note(self, record: Mapping[str, Any]) -> None:
        """Write down that the next episode is done."""
        with self._journal.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        self.records.append(dict(record))

    def finish(self, result: Path) -> None:
        """Put a file or folder from within in its place, and remove the rest."""
        if self.out.exists() and not _is_empty_folder(self.out):
            raise DataError(f"{self.out}: appeared while writing; choose another name or delete it first")
        result.rename(self.out)
        self.discard()

    def discard(self) -> None:
        """Remove the folder with all that is in it."""
        shutil.rmtree(self.path, ignore_errors=True)

    @property
    def _journal(self) -> Path:
        return self.path / "journal.jsonl"

    def _go_on(self, identity: dict[str, Any]) -> None:
        """Take up what is there of the same conversion. Raises DataError where it is another."""
        file = self.path / "identity.json"
        if not file.exists():  # the folder is new, or was left before anything was done
            draft = file.with_suffix(".new")
            draft.write_text(json.dumps(identity), encoding="utf-8")
            draft.rename(file)
            return
        there = _object(file.read_text(encoding="utf-8", errors="replace"))
        if there is None:
            raise DataError(f"{file}: damaged, expected what the unfinished conversion is of; delete its folder")
        other = [key for key in identity if there.get(key) != identity[key]]
        if other:
            key = other[0]
            raise DataError(
                f"{self.path}: an unfinished conversion with {key} {there.get(key)}, expected {identity[key]}; repeat "
                "it as it was begun to go on, or delete the folder to begin anew"
            )
        self.records = _whole_lines(self._journal)
        # What a kill cut off in the middle of a line must not run into the next one.
        self._journal.write_text("".join(json.dumps(one) + "\n" for one in self.records), encoding="utf-8")


def _whole_lines(journal: Path) -> list[dict[str, Any]]:
    """The records up to the first one that a kill or a crash of the machine has damaged."""
    if not journal.exists():
        return []
    text = journal.read_text(encoding="utf-8", errors="replace")
    records = (_object(line) or {} for line in text.splitlines(keepends=True) if line.endswith("\n"))
    return list(takewhile(lambda record: "written" in record, records))


def _object(text: str) -> dict[str, Any] | None:
    """A JSON object; None where the text is none."""
    try:
        content = json.loads(text)
    except ValueError:
        return None
    return content if isinstance(content, dict) else None


def _is_empty_folder(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())
