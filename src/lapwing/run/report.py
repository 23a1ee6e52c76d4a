"""RUN/report.html: one self-contained page on how good a run's policy is, made from the files in RUN."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from lapwing.episode import Array
from lapwing.run.evaluate import FIGURES, Evaluation, figure_text
from lapwing.run.held_out import BASELINES, ActionError, HeldOut
from lapwing.run.options import LAST
from lapwing.run.page import absent, details, figure, image, page, section, table
from lapwing.run.plots import (
    Rate,
    axis_chart,
    calibration_chart,
    curves,
    error_chart,
    histogram,
    success_chart,
)
from lapwing.run.report_online import online_sections
from lapwing.run.results import RunResults, WorldResult, read_results
from lapwing.run.verdict import findings, percent, span, tiles, training_effort
from lapwing.spec import RobotSpec

MEANINGS = {
    "pi": "latent policy",
    "z0": "z = 0",
    "bc": "imitation",
    "hold": "hold still",
    "mean": "mean action",
    "blind": "blind: black images",
}
CONTROLS = ("blind", "hold")
MACHINE = ("seconds", "steps_per_s", "waiting_share", "memory_gb")
ONLINE = "online/"  # columns of what acting brought while it learned
VALUES = ("q_min", "q_mean", "q_max", "q_pi", "v_mean")
VERSIONS = ("lapwing", "numpy", "torch", "matplotlib")


def write_report(run: Path, compare: Sequence[Path] = ()) -> Path:
    """Write RUN/report.html from what is in RUN and return its path; `compare`: other runs to set beside it.

    What is missing is said to be, with the command that makes it. Raises CheckpointError when RUN, or one of the
    others, is no run or holds a damaged file.
    """
    found, others = read_results(run), [read_results(other) for other in compare]
    sections = (
        *(_world_section(found, world, others) for world in found.worlds),
        *(() if found.worlds else (_no_world(found),)),
        *online_sections(found),
        *_held_out_sections(found, others),
        _training(found),
        _data(found),
        _settings(found),
    )
    over = f"Lapwing report · {found.algorithm} · {training_effort(found)} · {found.path.resolve()}"
    text = page(found.name, over, findings(found, others), tiles(found), sections)
    path, partial = run / "report.html", run / ".report.html.partial"
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)
    return path


def _world_section(run: RunResults, world: WorldResult, others: Sequence[RunResults]) -> str:
    rates = [
        _rate(_label(run, mode) + " (deployed)" * (index == 0), one, mode in CONTROLS)
        for index, (mode, one) in enumerate(world.modes.items())
        if "success" in one.flags
    ]
    for other in others:
        there = other.world(world.world)
        if there is not None and rates:
            rates.append(_rate(other.label, there.deployed))
    data = run.data_success()
    if data is not None and rates:
        rates.append(Rate("the data", data[0], data[1], f"{data[2]} recorded", is_reference=True))
    figures = [name for name in FIGURES if any(name in one.figures for one in world.modes.values())]
    flags = list(dict.fromkeys(flag for one in world.modes.values() for flag in one.flags))
    head = ["", *(name.replace("_", " ") for name in (*flags, "return", "steps", *figures))]
    rows = [
        [
            _label(run, mode),
            *(f"{percent(one.rate(flag))} ({span(one.interval(flag))})" if flag in one.flags else "" for flag in flags),
            f"{np.mean(one.returns):.3g}",
            f"{np.mean(one.lengths):.1f}",
            *(figure_text(name, one.figures[name]) if name in one.figures else "" for name in figures),
        ]
        for mode, one in world.modes.items()
    ]
    judged = "" if world.checkpoint is None else f", checkpoint {world.checkpoint}"
    lead = (
        f"Fresh episodes of the world {world.world}, evaluation seed {world.seed}{judged}; the first row is deployed."
    )
    if figures:
        lead += " " + "; ".join(f"{name.replace('_', ' ')}: {FIGURES[name]}" for name in figures) + "."
    chart = figure(success_chart(rates)) if rates else ""
    title = f"{'Success' if rates else 'Return'} in {world.world}"
    return section(title, lead, chart, table(head, rows), _film(run, world) if run.has_cameras else "")


def _rate(label: str, one: Evaluation, is_control: bool = False) -> Rate:
    return Rate(label, one.success_rate, one.interval(), f"{one.episodes} episodes", is_control=is_control)


def _label(run: RunResults, mode: str) -> str:
    """What a mode is called, so that the head of LAPO that imitates is not taken for a policy trained to."""
    if mode == "pi" and run.algorithm != "lapo":
        return "pi: policy"
    if mode == "bc" and run.algorithm != "bc":
        return f"{run.algorithm.upper()}'s bc head"
    return f"{mode}: {MEANINGS[mode]}" if mode in ("pi", "z0", "bc") else MEANINGS.get(mode, mode)


def _film(run: RunResults, world: WorldResult) -> str:
    if world.filmed is None or world.filmstrip is None:
        command = f"lapwing eval {run.path} --world {world.world} --video rollout.mp4"
        return absent("No rollout was recorded here. This records some:", command)
    mode, episodes = world.filmed
    one = world.modes[mode]
    outcomes = [_outcome({flag: up[i] for flag, up in one.flags.items()}, one.lengths[i]) for i in range(episodes)]
    cameras = ", ".join(one.cameras)
    caption = f"Rollouts of {mode}, time to the right, cameras from top to bottom: {cameras}. "
    return figure(
        image(world.filmstrip, "filmstrip of rollouts"), caption + "From the top: " + "; ".join(outcomes) + "."
    )


def _outcome(flags: Mapping[str, bool], steps: int) -> str:
    up = [flag.replace("_", " ") for flag, is_up in flags.items() if is_up]
    return f"{', '.join(up) or 'no success'} after {steps} steps"


def _no_world(run: RunResults) -> str:
    robot = (run.data or {}).get("spec", {}).get("name", "toy")
    command = f"lapwing eval {run.path} --world {'toy' if robot == 'toy' else 'WORLD'} --episodes 100"
    return section(
        "Success in a world",
        "The only true measure: fresh episodes in a simulated world, or on the robot.",
        absent("Not evaluated in a world yet. Where one exists for this robot:", command),
    )


def _held_out_sections(run: RunResults, others: Sequence[RunResults]) -> Iterator[str]:
    held_out = run.held_out
    if held_out is None:
        command = "lapwing train ... --train-fraction 0.8 --eval-every 1000"
        part = absent("No held-out episodes were judged. Training with some held out does it:", command)
        yield section("Actions on held-out episodes", "How near the policy's actions are to recorded ones.", part)
        return
    yield _actions(run, held_out, others)
    if held_out.calibration is not None:
        yield _values(held_out)


def _actions(run: RunResults, held_out: HeldOut, others: Sequence[RunResults]) -> str:
    errors = dict(held_out.errors)
    positive = dict(held_out.errors_positive)
    rivals = {
        other.label: other.held_out.errors[other.held_out.modes[0]]
        for other in others
        if other.held_out is not None and _task(other) == _task(run)
    }
    errors |= rivals
    advantage = [positive[name].mse if name in positive else float("nan") for name in errors] if positive else None
    step = "" if run.held_out_step is None else f", checkpoint of step {run.held_out_step:,}"
    lead = f"{held_out.samples:,} samples of {held_out.episodes} episodes that training never saw{step}."
    if positive:
        lead += " Offline RL is meant to leave bad actions: the error where the advantage is positive tells more."
    picture = error_chart(
        list(errors), [_short(run, name) for name in errors], [one.mse for one in errors.values()], advantage
    )
    physical = {name: errors[name].mae for name in (held_out.modes[0], *rivals, *BASELINES)}
    return section(
        "Actions on held-out episodes",
        lead,
        figure(picture),
        figure(axis_chart(held_out.axes, physical), "Each axis in its own unit; further left is closer to the data."),
        details("Every mode and axis in numbers", _axis_table(held_out, errors)),
        _looks(held_out),
    )


def _task(run: RunResults) -> tuple[Any, ...]:
    """What two runs must share for their normalised errors to be comparable: the data, and what an action is."""
    options = run.config.get("options", {})
    return run.config.get("data"), *(options.get(name) for name in ("seed", "train_fraction", "relative_actions"))


def _short(run: RunResults, name: str) -> str:
    return MEANINGS[name] if name in BASELINES else _label(run, name)


def _axis_table(held_out: HeldOut, errors: Mapping[str, ActionError]) -> str:
    head = ["axis", "unit", "kind", *errors]
    rows = [
        [name, unit or "-", kind, *(f"{error.mae[index]:.3g}" for error in errors.values())]
        for index, (name, unit, kind) in enumerate(held_out.axes)
    ]
    kinds = dict.fromkeys(kind for _, _, kind in held_out.axes)
    rows += [
        [f"all {kind} axes", "normalised, squared", kind, *(f"{one.mse_by_kind[kind]:.3g}" for one in errors.values())]
        for kind in kinds
    ]
    return table(head, rows)


def _looks(held_out: HeldOut) -> str:
    test = held_out.image_test
    if test is None:
        return "<h3>Does it look?</h3><p>This policy has no cameras.</p>"
    rows = [
        ["its own images", f"{test.matched:.4g}"],
        ["images of other moments", f"{test.swapped:.4g}"],
        [
            "rise (95 % interval)",
            f"{test.swapped - test.matched:.3g} ({test.increase[0]:.3g} to {test.increase[1]:.3g})",
        ],
    ]
    return "<h3>Does it look?</h3>" + table([f"normalised error, {test.samples} samples", "squared error"], rows)


def _values(held_out: HeldOut) -> str:
    calibration = held_out.calibration
    assert calibration is not None  # asked before
    low, high = calibration.returns
    rows = [
        ["rank correlation (Spearman)", f"{calibration.spearman:.3f}"],
        ["bias: mean of Q - return", f"{calibration.bias:.3g}"],
        ["range of Q", f"{calibration.q[0]:.3g} to {calibration.q[1]:.3g}"],
        ["range of returns", f"{low:.3g} to {high:.3g}"],
        ["gap: mean of Q(policy) - Q(data)", f"{calibration.gap:.3g}"],
        ["positive advantage", percent(calibration.positive_advantage)],
    ]
    lead = (
        "What the critic predicts on held-out episodes beside the discounted return they went on to earn. Values of "
        "a better policy may lie above; values outside the range of returns, or a wide gap, mean exploited errors."
    )
    return section(
        "Values",
        lead,
        '<div class="pair">',
        figure(calibration_chart(calibration)),
        table(["", "value"], rows),
        "</div>",
    )


def _training(run: RunResults) -> str:
    last = run.config.get("best_metric") == LAST
    decides = "The last checkpoint is the best" if last else "Held-out error decides which checkpoint is best"
    lead = f"Measured while training. {decides}; no training loss does."
    if not run.progress:
        return section("Training", lead, absent("progress.csv is not there.", "lapwing train ... --out RUN"))
    progress = {name: xy for name, xy in run.progress.items() if len(xy[0])}
    prefix = "valid/action_error_"
    errors = {_curve(name.removeprefix(prefix)): xy for name, xy in progress.items() if name.startswith(prefix)}
    values = {name.replace("_", " "): progress[name] for name in VALUES if name in progress}
    acted = [name for name in progress if name.startswith(ONLINE)]
    shown = {*VALUES, *MACHINE, *acted}
    others = [name for name in progress if not name.startswith("valid/action_error") and name not in shown]
    returns = run.config.get("reward_facts", {}).get("returns")
    band = (float(returns[0]), float(returns[1])) if returns else None
    return section(
        "Training",
        lead,
        figure(curves(errors, "held-out action error, normalised", wide=True)) if errors else "",
        figure(curves(values, "values, in units of return", wide=True, band=band)) if values else "",
        ("<h3>In the world, while it learned</h3>" + _small_curves(progress, acted, ONLINE)) if acted else "",
        "<h3>Losses and measures</h3>" if acted else "",
        _small_curves(progress, others),
        details("Speed and memory", _small_curves(progress, [name for name in MACHINE if name in progress])),
    )


def _curve(name: str) -> str:
    return {"positive": "deployed, advantage > 0", "swapped_images": "deployed, images swapped"}.get(name, name)


def _small_curves(progress: Mapping[str, tuple[Array, Array]], names: Sequence[str], prefix: str = "") -> str:
    pictures = (figure(curves({name: progress[name]}, name.removeprefix(prefix).replace("_", " "))) for name in names)
    return f'<div class="grid">{"".join(pictures)}</div>'


def _data(run: RunResults) -> str:
    lead = "What the policy learned from and was held against."
    if run.data is None:
        return section("Data", lead, absent("data.json is not there.", "lapwing train ... --out RUN"))
    known = {
        name.replace("_", " "): percent(value) if name == "success_rate" else _plain(value)
        for name, value in run.data.items()
        if name not in ("spec", "returns", "lengths", "notes") and value is not None and (name, value) != ("rate_hz", 0)
    }
    spreads = [("returns", "return of an episode (sum of rewards)"), ("lengths", "length of an episode, steps")]
    pictures = "".join(figure(histogram(run.data[name], label)) for name, label in spreads if run.data.get(name))
    notes = "".join(table([], [["note", note]]) for note in run.data.get("notes", ()))
    robot = _robot(run.data["spec"]) if "spec" in run.data else {}
    return section("Data", lead, table([], (known | robot).items()), notes, f'<div class="grid">{pictures}</div>')


def _robot(record: Mapping[str, Any]) -> dict[str, str]:
    """What robot the data is of, in words."""
    spec = RobotSpec.from_dict(record, "data.json: spec")
    cameras = ", ".join(f"{one.name} ({one.height} x {one.width})" for one in spec.cameras)
    return {
        "robot": spec.name,
        "rate": f"{spec.rate_hz:g} Hz" if spec.rate_hz else "not recorded",
        "cameras, height x width": cameras or "none",
        "state axes": str(spec.state_dim),
        "action axes": str(spec.action_dim),
    }


def _settings(run: RunResults) -> str:
    rows = [(name, _plain(value)) for name, value in _leaves(run.config)]
    versions = [("python", platform.python_version()), *((name, version(name)) for name in VERSIONS)]
    return section(
        "Configuration",
        "As resolved when the run began; config.json holds the same.",
        details("All settings", table([], rows)),
        "<h3>Versions this report was written with</h3>",
        table([], versions),
    )


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _plain(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list):
        return ", ".join(_plain(one) for one in value)
    return str(value)
