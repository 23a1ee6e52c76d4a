"""`lapwing bench`: the tables of measured speed."""

from __future__ import annotations

from collections.abc import Sequence

from lapwing.commands.flags import call
from lapwing.run import bench_act, bench_data, bench_lapo


def data(args: Sequence[str]) -> int:
    """`lapwing bench data`"""
    call(bench_data.main, args, "lapwing bench data")
    return 0


def lapo(args: Sequence[str]) -> int:
    """`lapwing bench lapo`"""
    call(bench_lapo.main, args, "lapwing bench lapo")
    return 0


def act(args: Sequence[str]) -> int:
    """`lapwing bench act`"""
    call(bench_act.main, args, "lapwing bench act")
    return 0
