"""The operator's keys, read from the terminal while a loop runs; where there is no terminal, none is ever pressed."""

from __future__ import annotations

import os
import select
import sys
import termios
import tty
from types import TracebackType
from typing import Literal, TextIO

Key = Literal["stop", "discard", "success", "failure", "take over", "finish"]

KEYS: dict[str, Key] = {
    "s": "stop",
    "d": "discard",
    "y": "success",
    "n": "failure",
    "t": "take over",
    "q": "finish",
}
HELP = "keys: s stop and keep, d discard, y success, n failure, t take over, q keep and finish"


class Operator:
    """Key presses of a terminal, as a context manager. `listens` says whether there is one to press keys at.

    While it is open the terminal passes keys on at once and does not show them; Ctrl-C interrupts as ever.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stdin
        self.listens = False

    def __enter__(self) -> Operator:
        if self._stream is None:  # started with its input closed
            return self
        try:
            self._descriptor = self._stream.fileno()
        except (OSError, ValueError):  # no file at all
            return self
        self.listens = os.isatty(self._descriptor) and not _in_background(self._descriptor)
        if self.listens:
            self._before = termios.tcgetattr(self._descriptor)
            tty.setcbreak(self._descriptor)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.listens:
            termios.tcsetattr(self._descriptor, termios.TCSADRAIN, self._before)
            self.listens = False

    def pressed(self) -> Key | None:
        """The next key that was pressed and means something; None where there is none. Does not wait."""
        while self.listens and select.select([self._descriptor], [], [], 0)[0]:
            key = self._read()
            if key is not None:
                return key
        return None

    def ask(self, question: str, *answers: Key) -> Key | None:
        """Wait for one of the keys `answers`; None where nobody listens."""
        if self.listens:
            print(question, end=" ", file=sys.stderr, flush=True)
        while self.listens:
            key = self._read()
            if key in answers:
                print(key, file=sys.stderr)
                return key
        return None

    def _read(self) -> Key | None:
        typed = os.read(self._descriptor, 1)
        if not typed:  # the terminal hung up
            self.listens = False
        return KEYS.get(typed.decode("ascii", "ignore").lower())


def _in_background(terminal: int) -> bool:
    """Whether we are a job in the background, which would be stopped for touching its terminal."""
    try:
        return os.tcgetpgrp(terminal) != os.getpgrp()
    except OSError:  # somebody else's terminal
        return False
