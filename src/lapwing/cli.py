"""The `lapwing` command: finds the subcommand, runs it, and turns what a user can mend into one line.

Each subcommand is imported when it is called, so that `--help` and `data check` start without PyTorch.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence

from lapwing.errors import LapwingError

COMMANDS = {
    "demo": ("lapwing.commands.demo:demo", "the whole way at once: sample, check, train, evaluate, report"),
    "record": ("lapwing.commands.record:record", "record episodes of an expert or a policy at a set rate"),
    "data sample": ("lapwing.commands.data:sample", "draw demonstrations from a simulated world"),
    "data check": ("lapwing.commands.data:check", "is a recording fit for training? every problem, and what to do"),
    "data info": ("lapwing.commands.data:info", "episodes, steps, returns, success and sizes of a recording"),
    "data convert": ("lapwing.commands.data:convert", "ALOHA, LeRobot, ROS bags or flat files, to flat or ALOHA"),
    "data label": ("lapwing.commands.reward:label", "write rewards by a success classifier beside a recording"),
    "train lapo": ("lapwing.commands.train:lapo", "train by offline reinforcement learning"),
    "train iql": ("lapwing.commands.train:iql", "train IQL: values of recorded actions alone, the best imitated"),
    "train td3bc": ("lapwing.commands.train:td3bc", "train TD3+BC: critics and imitation, the least of offline RL"),
    "train act": ("lapwing.commands.train:act", "train ACT: imitation, chunks of actions by a transformer"),
    "train bc": ("lapwing.commands.train:bc", "train by behaviour cloning, the baseline"),
    "train sac": ("lapwing.commands.train:sac", "train SAC on demonstrations, grippers by a critic of their own"),
    "train reward": ("lapwing.commands.reward:train", "train a success classifier from images, for rewards"),
    "hybrid": ("lapwing.commands.hybrid:hybrid", "train SAC on demonstrations and in a world at once"),
    "import act": ("lapwing.commands.import_:act", "make a run of published ACT weights"),
    "eval": ("lapwing.commands.evaluate:evaluate", "run a trained policy in a simulated world"),
    "select": ("lapwing.commands.select:run", "rank checkpoints by a recording, without a robot: which to try first"),
    "report": ("lapwing.commands.evaluate:report", "write RUN/report.html anew"),
    "bench data": ("lapwing.commands.bench:data", "time batches from a memory map beside plain copies of their bytes"),
    "bench lapo": ("lapwing.commands.bench:lapo", "time a LAPO step beside a plain reference, encoder by encoder"),
    "bench act": ("lapwing.commands.bench:act", "time ACT beside a plain reference: training, acting, reading files"),
    "bench sac": ("lapwing.commands.bench:sac", "time SAC's updates beside a plain reference, and every world's steps"),
    "bench state": ("lapwing.commands.bench:state", "time LAPO, IQL and BC without images beside plain references"),
}  # fmt: skip


def main(args: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code: 0 done, 1 said no, 2 something to mend, 130 interrupted."""
    words = list(sys.argv[1:] if args is None else args)
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _stop)  # what `timeout` and schedulers send: clean up as for Ctrl-C
    try:
        command, rest = _find(words)
        return command(rest) if command else 0
    except LapwingError as error:
        print(f"lapwing: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as interrupt:
        print(f"lapwing: interrupted: {interrupt}" if str(interrupt) else "lapwing: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains when it flushes
        return 0
    except OSError as error:
        print(f"lapwing: error: {error}; look after the disk or the permissions", file=sys.stderr)
        return 2


def _stop(*_: object) -> None:
    raise KeyboardInterrupt("terminated")


def _find(words: list[str]) -> tuple[Callable[[list[str]], int] | None, list[str]]:
    """The command that `words` begin with, and the words after it; None when only help was asked for."""
    for length in (1, 2):
        name = " ".join(words[:length])
        if name in COMMANDS:
            module, function = COMMANDS[name][0].split(":")
            return getattr(importlib.import_module(module), function), words[length:]
    group = words[0] if words and any(name.startswith(f"{words[0]} ") for name in COMMANDS) else ""
    asked = words[1:] if group else words
    if asked == ["--version"]:
        from lapwing import __version__

        print(__version__)
    elif not asked or asked[0] in ("-h", "--help"):
        print(_overview(group))
    else:
        known = ", ".join(sorted({name.removeprefix(group).split()[0] for name in _below(group)}))
        raise UsageError(f"unknown command {' '.join(words)!r}; known{' after ' + group if group else ''}: {known}")
    return None, []


class UsageError(LapwingError):
    """A command line that means nothing."""


def _below(group: str) -> list[str]:
    return [name for name in COMMANDS if not group or name.startswith(f"{group} ")]


def _overview(group: str) -> str:
    names = _below(group)
    width = max(map(len, names))
    lines = [f"  lapwing {name:<{width}}  {COMMANDS[name][1]}" for name in names]
    return "\n".join(["usage: lapwing COMMAND ... (each has its own --help)", "", *lines])


if __name__ == "__main__":
    sys.exit(main())
