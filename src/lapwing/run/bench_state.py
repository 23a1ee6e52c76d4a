"""`lapwing bench state`: updates of LAPO, IQL and BC without images beside those of a plain reference and of d3rlpy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch
from tqdm import tqdm

from lapwing.errors import ConfigError
from lapwing.run.bench_process import Line, ask, find_reference, in_columns, process, spread, where
from lapwing.run.bench_state_worker import Algorithm, Job, Sizes, Variant, foreign_process, work
from lapwing.run.device import DeviceName, pick_device, pick_precision

NOTES = """\
plain: the papers' arithmetic in plain PyTorch, fp32. ours: preset original, the same networks and arithmetic; compiled
in fp32. updates/s: on a batch that lies ready; with drawing: each on a batch drawn for it. Variants take turns, each in
its own process. The median of the rounds counts, lowest and highest in brackets; gain: over plain, round by round."""
D3RLPY_NOTES = "d3rlpy's PLAS trains its VAE in one phase and the rest in another; LAPO's step does both."
D3RLPY = {"iql": "d3rlpy IQL", "plas-vae": "d3rlpy PLAS, VAE", "plas-rl": "d3rlpy PLAS, RL"}
_FEW = 3  # updates to warm up with


@dataclass(frozen=True)
class StateBenchOptions:
    """What `lapwing bench state` measures."""

    batch: int = 512
    """Transitions in an update."""
    state: int = 4
    """Numbers in a state."""
    action: int = 2
    """Numbers in an action."""
    hidden: tuple[int, ...] = (256, 256, 256)
    """Widths of every MLP."""
    algorithms: tuple[Algorithm, ...] = ("lapo", "iql", "bc")
    """Which of ours to time, each with its plain reference."""
    variants: tuple[Variant, ...] = ("fp32", "bf16", "compiled")
    """How to run ours."""
    d3rlpy: Path | None = None
    """The python of an environment with d3rlpy; its IQL and PLAS then take turns with ours."""
    repeats: int = 7
    """Rounds that are timed, after two to warm up."""
    seconds: float = 0.5
    """Time for each line of the table in each round."""
    threads: int = 1
    """CPU threads of an operation."""
    device: DeviceName = "auto"
    """Where to compute."""

    def __post_init__(self) -> None:
        counted = min(self.batch, self.state, self.action, self.repeats, self.threads, *self.hidden)
        if counted < 1 or not self.hidden or not self.seconds > 0:
            raise ConfigError(
                f"bench: batch {self.batch}, state {self.state}, action {self.action}, hidden {list(self.hidden)}, "
                f"repeats {self.repeats}, threads {self.threads}, seconds {self.seconds:g}; expected at least 1, "
                "a width and some time"
            )
        if self.d3rlpy is not None and not self.d3rlpy.is_file():
            raise ConfigError(f"bench: --d3rlpy {self.d3rlpy} is no file; expected the python of an environment")


@dataclass(frozen=True)
class Row:
    """A line of the table: seconds of an update and of a draw, by round."""

    name: str
    updates: tuple[float, ...]
    draws: tuple[float, ...]

    @property
    def whole(self) -> list[float]:
        """Seconds of an update with its draw, by round."""
        return [update + draw for update, draw in zip(self.updates, self.draws, strict=True)]


def run(options: StateBenchOptions) -> None:
    """Time ours, the plain reference and d3rlpy where it is given, and print the table and what the targets ask.

    Raises ConfigError where the reference is absent.
    """
    device = pick_device(options.device)
    sizes = Sizes(options.batch, options.state, options.action, options.hidden, device.type, options.threads)
    variants = usable(options.variants, device)
    print(
        f"updates without images, batch {sizes.batch}, state {sizes.state}, action {sizes.action}, hidden "
        f"{'x'.join(map(str, sizes.hidden))}, {where(device, sizes.threads)}"
    )
    rows = measure(jobs(options.algorithms, variants, sizes), foreign(options, device), options)
    print(table(rows))
    for sentence in comparisons({row.name: row for row in rows}, variants):
        print(sentence)
    if len(variants) < len(options.variants):
        print("bf16 is left out: this machine has no instructions for it, and it would be slower than fp32")
    print(NOTES if options.d3rlpy is None else f"{NOTES}\n{D3RLPY_NOTES}")


def usable(variants: Sequence[Variant], device: torch.device) -> list[Variant]:
    """Those that can gain anything here."""
    return [one for one in variants if one != "bf16" or pick_precision("auto", device) == "bf16"]


def jobs(algorithms: Sequence[Algorithm], variants: Sequence[Variant], sizes: Sizes) -> list[Job]:
    """The plain reference and ours of each algorithm, in the order of the table."""
    reference = find_reference("plain_state.py")
    return [
        job
        for algorithm in algorithms
        for job in (
            Job(plain_name(algorithm), algorithm, sizes, reference=reference),
            *(Job(f"{algorithm}, {one}", algorithm, sizes, one) for one in variants),
        )
    ]


def plain_name(algorithm: str) -> str:
    """Of the line that the gains of an algorithm are over."""
    return f"{algorithm}, plain"


def foreign(options: StateBenchOptions, device: torch.device) -> dict[str, list[str]]:
    """The command of each line that d3rlpy has in the table."""
    if options.d3rlpy is None:
        return {}
    flags = {
        "batch": [options.batch],
        "state": [options.state],
        "action": [options.action],
        "hidden": options.hidden,
        "threads": [options.threads],
        "device": [f"{device.type}:0"],
    }
    words = [word for name, values in flags.items() for word in (f"--{name}", *map(str, values))]
    start = [str(options.d3rlpy), str(find_reference("d3rlpy_state.py")), "--serve", *words]
    return {name: [*start, "--algorithm", algorithm] for algorithm, name in D3RLPY.items()}


def measure(work_here: Sequence[Job], commands: Mapping[str, Sequence[str]], options: StateBenchOptions) -> list[Row]:
    """Run all in processes of their own, in turn: two rounds to warm up, then `repeats` of about `seconds` each."""
    with ExitStack() as stack:
        lines: dict[str, Line] = {job.name: stack.enter_context(process(work, job)) for job in work_here}
        lines |= {name: stack.enter_context(foreign_process(command)) for name, command in commands.items()}
        bar = stack.enter_context(tqdm(total=(options.repeats + 1) * len(lines), unit="turn", leave=False))
        counts = {}
        for name, line in lines.items():
            ask(name, line, ("update", _FEW))
            counts[name] = max(1, round(options.seconds / ask(name, line, ("update", _FEW))))
            bar.update()
        taken: dict[str, list[tuple[float, float]]] = {name: [] for name in lines}
        for _ in range(options.repeats):
            for name, line in lines.items():
                update, draw = (ask(name, line, (what, counts[name])) for what in ("update", "draw"))
                taken[name].append((update, draw))
                bar.update()
    columns = {name: tuple(zip(*pairs, strict=True)) for name, pairs in taken.items()}
    return [Row(name, *pair) for name, pair in columns.items()]


def table(rows: Sequence[Row]) -> str:
    """Updates of each row, with the gain over the plain reference of its algorithm."""
    named = {row.name: row for row in rows}
    cells = [["", "updates/s", "", "gain", "", "with drawing"]]
    for row in rows:
        plain = named.get(plain_name(row.name.split(",")[0]), row)
        rate = spread([1 / seconds for seconds in row.updates])
        gain = ("", "") if plain is row else spread(_ratios(plain.updates, row.updates), "x")
        cells.append([row.name, *rate, *gain, spread([1 / seconds for seconds in row.whole])[0]])
    return f"{in_columns(cells)}\nrounds: {len(rows[0].updates)}"


def comparisons(rows: Mapping[str, Row], variants: Sequence[Variant]) -> list[str]:
    """What the targets ask: IQL beside d3rlpy's, LAPO beside PLAS's two phases and its own fp32."""
    said = []
    for variant in variants:
        iql, lapo = rows.get(f"iql, {variant}"), rows.get(f"lapo, {variant}")
        if iql and (theirs := rows.get(D3RLPY["iql"])):
            gain, whole = _times(theirs.updates, iql.updates), _times(theirs.whole, iql.whole)
            said.append(f"IQL, {variant}: {gain} the updates of d3rlpy's, with drawing {whole}")
        if lapo and (pair := _pair(rows)):
            gain, whole = _times(pair.updates, lapo.updates), _times(pair.whole, lapo.whole)
            said.append(f"LAPO, {variant}: {gain} the updates of a PLAS VAE step and RL step, with drawing {whole}")
        if lapo and variant != "fp32" and (eager := rows.get("lapo, fp32")):
            said.append(f"LAPO, {variant}: {_times(eager.updates, lapo.updates)} the updates of fp32")
    return said


def _pair(rows: Mapping[str, Row]) -> Row | None:
    """PLAS's two phases, a step of each; it draws for each."""
    vae, rest = rows.get(D3RLPY["plas-vae"]), rows.get(D3RLPY["plas-rl"])
    if vae is None or rest is None:
        return None
    sums = (tuple(map(sum, zip(*both, strict=True))) for both in ((vae.updates, rest.updates), (vae.draws, rest.draws)))
    return Row("a PLAS VAE step and RL step", *sums)


def _ratios(base: Sequence[float], seconds: Sequence[float]) -> list[float]:
    return [theirs / ours for theirs, ours in zip(base, seconds, strict=True)]


def _times(base: Sequence[float], seconds: Sequence[float]) -> str:
    return f"{median(_ratios(base, seconds)):.2f} times"
