"""DIR/select.html and DIR/select.json: which checkpoint to try first, and everything that speaks for or against it."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lapwing.errors import ConfigError
from lapwing.run.page import Tile, details, figure, page, section
from lapwing.run.page import table as html_table
from lapwing.run.plots import Estimate, agreement_chart, calibration_chart, curves, value_chart
from lapwing.run.selection import Judged, Selection, verdict
from lapwing.run.verdict import alike, percent

DRAWN = 12  # policies whose courses are drawn; more lines cannot be told apart
HEAD = ("policy", "value", "95 % interval", "best", "lost", "action error", "actions off data", "Q rank")


def write_selection(found: Selection, folder: Path) -> tuple[Path, Path]:
    """Write the page and its numbers, and return where they are. Raises ConfigError when they cannot be written."""
    contents = {"select.html": _page(found), "select.json": json.dumps(_without_nan(found.to_dict()), indent=1) + "\n"}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in contents.items():
            partial = folder / f".{name}.partial"
            partial.write_text(text, encoding="utf-8")
            os.replace(partial, folder / name)
    except OSError as error:
        raise ConfigError(f"--out {folder}: cannot be written ({error}); choose another folder") from error
    return folder / "select.html", folder / "select.json"


def table(found: Selection) -> str:
    """The ranking, one line a policy, to print."""
    lines = [list(HEAD), *(_cells(one) for one in found.policies)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def _cells(one: Judged) -> list[str]:
    rank = "-" if one.calibration is None else f"{one.calibration.spearman:.2f}"
    low, high = one.interval
    return [
        _name(one),
        f"{one.value:.3f}",
        f"{low:.3f} to {high:.3f}",
        percent(one.best),
        "-" if one.lost is None else percent(one.lost),
        f"{one.action_error:.3f}",
        percent(one.off_data),
        rank,
    ]


def _name(one: Judged) -> str:
    return f"{one.label} ({one.mode})"


def _page(found: Selection) -> str:
    number = "1 policy" if len(found.policies) == 1 else f"{len(found.policies)} policies"
    over = f"Lapwing selection · {number} · {found.data} · seed {found.seed}"
    sections = (_ranking(found), _actions(found), _critics(found), _courses(found), _basis(found))
    return page("Which checkpoint to try first", over, verdict(found), _tiles(found), sections)


def _tiles(found: Selection) -> list[Tile]:
    first = found.first
    value, earned = alike(first.value, found.data_value)
    error, still = alike(first.action_error, found.baselines["hold"])
    several = [Tile(percent(first.best), "of the bootstrap draws have it best")] if len(found.policies) > 1 else []
    return [
        Tile(value, f"estimated value of {_name(first)}"),
        Tile(earned, f"earned by the data, {found.episodes[2]} held-out episodes"),
        *several,
        Tile(error, "its held-out action error"),
        Tile(still, "the same when holding still"),
    ]


def _ranking(found: Selection) -> str:
    estimates = [Estimate(_name(one), one.value, one.interval, one.best) for one in found.policies]
    chart = value_chart(estimates, (found.data_value, found.data_interval), found.returns)
    how = {
        "model": f"played for {found.steps[-1]} steps in a world learned from the others. Where that world is unknown, "
        "a policy is lost and earns no more",
        "fitted-q": "by fitted Q evaluation",
    }[found.estimate]
    lead = (
        f"What each policy would earn from the starts of held-out episodes, discounted by {found.discount:g} a step, "
        f"{how}. Trust the order more than the size."
    )
    return section("Ranking", lead, figure(chart), html_table(HEAD, [_cells(one) for one in found.policies]))


def _actions(found: Selection) -> str:
    names = dict.fromkeys(one.algorithm for one in found.policies)
    groups = {
        name: (
            np.array([one.action_error for one in found.policies if one.algorithm == name]),
            np.array([one.value for one in found.policies if one.algorithm == name]),
        )
        for name in names
    }
    rows = [
        [_name(one), f"{one.action_error:.3f}", "{:.3f} to {:.3f}".format(*one.error_interval), percent(one.off_data)]
        for one in sorted(found.policies, key=lambda one: one.action_error)
    ]
    rows += [[name, f"{error:.3f}", "", ""] for name, error in found.baselines.items()]
    unseen = "some of which runs trained on" if found.trained_on else "that no run here is known to have trained on"
    lead = (
        f"Nearness to recorded actions, in {found.judged_episodes} episodes {unseen}. Offline RL is meant to leave bad "
        "actions, so a larger error alone is no fault; a large error with a high value deserves distrust. Off data: "
        "share of actions farther from all recorded ones than 95 % of the recorded ones are."
    )
    return section(
        "Actions",
        lead,
        '<div class="pair">',
        figure(agreement_chart(groups, found.baselines)),
        html_table(("", "action error", "95 % interval", "actions off data"), rows),
        "</div>",
    )


def _critics(found: Selection) -> str:
    judged = [(one, one.calibration) for one in found.policies if one.calibration is not None]
    if not judged:
        return section("The candidates' own critics", "None of these policies has a critic.")
    head = ("policy", "rank correlation", "bias", "range of Q", "range of returns")
    rows = [
        [
            _name(one),
            f"{own.spearman:.2f}",
            f"{own.bias:.3g}",
            "{:.3g} to {:.3g}".format(*own.q),
            "{:.3g} to {:.3g}".format(*own.returns),
        ]
        for one, own in judged
    ]
    first, own = judged[0]
    lead = (
        "What each run's own critic predicts beside what the held-out episodes went on to earn. It is shown as a check "
        "of the run, and has no part in the ranking: a critic is the last to see its own mistakes."
    )
    caption = f"The highest ranked policy with a critic: {_name(first)}."
    return section("The candidates' own critics", lead, figure(calibration_chart(own), caption), html_table(head, rows))


def _courses(found: Selection) -> str:
    steps = np.array(found.steps)
    series = {_name(one): (steps, np.array(one.course)) for one in found.policies[:DRAWN]}
    if found.estimate == "model":
        lead = "What the first policies have earned by each step in the learned world."
        return section(
            "On the way",
            lead,
            figure(curves(series, "earned so far", wide=True, steps_are="steps in the learned world")),
        )
    lead = "Estimates while they were fitted. Where they still rise or cross at the end, more --steps are due."
    return section("Has it settled?", lead, figure(curves(series, "estimated value", wide=True)))


def _basis(found: Selection) -> str:
    total, fitted, valued = found.episodes
    rows = [
        ["recording", found.data],
        ["episodes", f"{total}: learned from {fitted}, {total - fitted} held out, the starts of {valued} valued"],
        ["transitions", f"{found.transitions:,}"],
        ["discount", f"{found.discount:g}"],
        ["seed of split and networks", str(found.seed)],
        ["returns in the data", "{:.4g} to {:.4g}".format(*found.returns)],
        *_certainty(found),
        ["earned from the starts valued", _with_interval(found.data_value, found.data_interval)],
    ]
    paths = [[_name(one), one.run, one.checkpoint, one.algorithm] for one in found.policies]
    return section(
        "What this rests on",
        "The split is the selection's own. An interval says what these episodes and networks leave open, not what no "
        "recording can tell.",
        html_table([], rows),
        details("Where the checkpoints are", html_table(("policy", "run", "checkpoint", "algorithm"), paths)),
    )


def _certainty(found: Selection) -> list[list[str]]:
    if found.fidelity is None:
        return [["values kept within", "{:.4g} to {:.4g}".format(*found.bounds)]]
    return [["rank correlation of returns, recorded and replayed in the learned world", f"{found.fidelity:.2f}"]]


def _with_interval(value: float, interval: Sequence[float]) -> str:
    return f"{value:.4g} ({interval[0]:.4g} to {interval[1]:.4g})"


def _without_nan(value: object) -> object:
    if isinstance(value, dict):
        return {key: _without_nan(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(one) for one in value]
    return None if isinstance(value, float) and value != value else value
