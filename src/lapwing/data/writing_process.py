"""The process beside a recording loop: from the ring to the disk."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

from lapwing.data.formats.aloha_writer import Dialect
from lapwing.data.ring import Ring
from lapwing.data.spool import Recover, Spool, recover, spools_in
from lapwing.episode import Meta
from lapwing.errors import LapwingError
from lapwing.spec import RobotSpec


def write_episodes(
    folder: Path,
    spec: RobotSpec,
    dialect: Dialect,
    unfinished: Recover,
    ring: Ring,
    requests: Connection,
    replies: Connection,
) -> None:
    """Do what is requested until the other end hangs up or the disk refuses. Runs as a process of its own.

    requests: "begin" meta, "row", "keep" (terminated, success, meta), "discard". replies: "ready" with notes on what
    was recovered, "done" with the path of an episode kept, "error" with what is wrong, once, before it ends.
    """
    for number in (signal.SIGINT, signal.SIGTERM):  # meant for the loop, which says when to end
        signal.signal(number, signal.SIG_IGN)
    with contextlib.suppress(BrokenPipeError):  # nobody is left to be told
        lock = _lock(folder)
        if lock is None:
            other = f"{folder}: another process is recording into it; wait for it, or choose another folder"
            replies.send(("error", other))
            return
        try:
            replies.send(("ready", tuple(recover(folder, unfinished))))
        except (LapwingError, OSError) as error:
            replies.send(("error", _described(folder, error)))
            return
        try:
            _serve(lambda meta: Spool(folder, spec, dialect, meta), ring, requests, replies)
        except (LapwingError, OSError) as error:
            replies.send(("error", f"{_described(folder, error)}{_left(folder)}"))
        os.close(lock)
    ring.close()


def _described(folder: Path, error: LapwingError | OSError) -> str:
    if isinstance(error, LapwingError):
        return str(error)
    return f"{folder}: cannot be written ({error.strerror}); free some space"


def _left(folder: Path) -> str:
    """What an error leaves behind, for its message."""
    left = spools_in(folder)
    return f"; {left[-1]} keeps the last episode up to its last whole step, --append recovers it" if left else ""


def _lock(folder: Path) -> int | None:
    """Hold the folder; the lock goes with the process. None while another one holds it."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def _serve(begin: Callable[[Meta], Spool], ring: Ring, requests: Connection, replies: Connection) -> None:
    """Do what is requested, until the other end hangs up."""
    spool: Spool | None = None
    while True:
        try:
            verb, payload = requests.recv()
        except EOFError:
            break
        if verb == "begin":
            spool = begin(payload)
            continue
        assert spool is not None  # the loop's side begins first
        if verb == "row":
            spool.append(ring.oldest())
            ring.release()
            continue
        path = None
        if verb == "keep":
            path = spool.finish(*payload)
        else:
            spool.discard()
        replies.send(("done", path))
        spool = None
    if spool is not None:
        spool.leave()
