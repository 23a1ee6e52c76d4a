"""Keys of a terminal that the tests hold the other end of."""

from __future__ import annotations

import io
import os
import pty
import subprocess
import sys
import termios
from collections.abc import Iterator
from typing import TextIO

import pytest

from lapwing.run.operator import KEYS, Operator


@pytest.fixture
def terminal() -> Iterator[tuple[int, TextIO]]:
    """What types, and what it is typed into."""
    typist, descriptor = pty.openpty()
    with open(descriptor, encoding="utf-8") as stream:
        yield typist, stream
    os.close(typist)


def test_keys_come_at_once_and_in_order(terminal: tuple[int, TextIO]) -> None:
    typist, stream = terminal
    with Operator(stream) as operator:
        assert operator.listens
        assert operator.pressed() is None
        os.write(typist, b"".join(key.encode() for key in KEYS))
        assert [operator.pressed() for _ in KEYS] == list(KEYS.values())
        assert operator.pressed() is None


def test_keys_that_mean_nothing_are_passed_over(terminal: tuple[int, TextIO]) -> None:
    typist, stream = terminal
    with Operator(stream) as operator:
        os.write(typist, "x\n\x1b[Aö".encode() + b"S")
        assert operator.pressed() == "stop"
        assert operator.pressed() is None


def test_the_terminal_is_left_as_it_was(terminal: tuple[int, TextIO]) -> None:
    _, stream = terminal
    before = termios.tcgetattr(stream)
    with Operator(stream):
        assert termios.tcgetattr(stream) != before
    assert termios.tcgetattr(stream) == before


def test_a_question_waits_for_one_of_its_answers(
    terminal: tuple[int, TextIO], capsys: pytest.CaptureFixture[str]
) -> None:
    typist, stream = terminal
    with Operator(stream) as operator:
        os.write(typist, b"sqxn")
        assert operator.ask("success? y/n:", "success", "failure") == "failure"
    assert capsys.readouterr().err == "success? y/n: failure\n"


@pytest.mark.parametrize("stream", [io.StringIO("s"), subprocess.DEVNULL])
def test_without_a_terminal_no_key_is_pressed(stream: io.StringIO | int) -> None:
    opened = open(os.devnull, encoding="utf-8") if isinstance(stream, int) else stream  # noqa: SIM115
    with opened, Operator(opened) as operator:
        assert not operator.listens
        assert operator.pressed() is None
        assert operator.ask("success?", "success") is None


def test_without_an_input_no_key_is_pressed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)  # as Python does where descriptor 0 is closed
    with Operator() as operator:
        assert not operator.listens
        assert operator.pressed() is None


def test_a_terminal_that_hangs_up_presses_nothing() -> None:
    program = """
import os, pty, sys
from lapwing.run.operator import Operator
typist, descriptor = pty.openpty()
with Operator(open(descriptor)) as operator:
    os.write(typist, b"x")
    print(operator.pressed())
    os.close(typist)
    print(operator.pressed(), operator.ask("success?", "success"), operator.listens)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines() == ["None", "None None False"], done.stderr


def test_a_job_in_the_background_leaves_the_terminal_alone() -> None:
    """It would be stopped for touching it."""
    program = """
import os, pty, sys
from lapwing.run.operator import Operator
child, terminal = pty.fork()
if child == 0:  # the terminal's foreground
    worker = os.fork()
    if worker == 0:
        os.setpgid(0, 0)
        with Operator(open(0)) as operator:
            os._exit(3 if operator.listens else 0)
    _, status = os.waitpid(worker, os.WUNTRACED)
    os._exit(os.WEXITSTATUS(status) if os.WIFEXITED(status) else 4)
sys.exit(os.WEXITSTATUS(os.waitpid(child, 0)[1]))
"""
    assert subprocess.run([sys.executable, "-c", program], timeout=60).returncode == 0
