"""`lapwing bench`: the tables of measured speed."""

from __future__ import annotations

from collections.abc import Sequence

from lapwing.commands.flags import call, parse
from lapwing.envs import WORLDS, make_world
from lapwing.run import bench_act, bench_data, bench_lapo, bench_sac, bench_state, bench_worlds


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


def sac(args: Sequence[str]) -> int:
    """`lapwing bench sac`"""
    options = parse(bench_sac.SacBenchOptions, args, "lapwing bench sac")
    bench_sac.run(options)
    if options.world_seconds > 0:
        print()
        bench_worlds.run(WORLDS, make_world, options.repeats, options.world_seconds)
    return 0


def state(args: Sequence[str]) -> int:
    """`lapwing bench state`"""
    bench_state.run(parse(bench_state.StateBenchOptions, args, "lapwing bench state"))
    return 0
