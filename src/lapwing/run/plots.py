"""Figures of the report, as inline SVG that takes its ink from the page and so fits light and dark.

Each function returns one `<svg>` element.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from html import escape
from typing import Any, NamedTuple

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from lapwing.episode import Array
from lapwing.run.classification import Classification
from lapwing.run.held_out import Calibration

INK = "#010203"  # becomes currentColor
FAINT = "#8b95a5"
POLICY = "#3b82f6"
BASELINES = {"hold": "#6b7482", "mean": "#b4bcc8", "clone": "#8b95a3"}
WIDE = 8.8  # inches at 96 px
PALETTE = (POLICY, "#12a594", "#e5843a", "#9a6bea", "#d6558f", "#7a9a3c")
STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "lapwing",
    "text.parse_math": False,
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": FAINT,
    "grid.alpha": 0.25,
    "grid.linewidth": 0.6,
    "text.color": INK,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "lines.linewidth": 1.7,
}


class Rate(NamedTuple):
    """A success rate with its interval. `is_reference`: what the others are held against; `is_control`: no policy
    anyone would deploy."""

    label: str
    rate: float
    interval: tuple[float, float]
    note: str
    is_reference: bool = False
    is_control: bool = False


Series = Mapping[str, tuple[Array, Array]]


@contextmanager
def _figure(width: float, height: float) -> Iterator[Figure]:
    with rc_context(STYLE):
        yield Figure(figsize=(width, height), layout="constrained")


def _svg(figure: Figure, label: str) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r'<g id="[^"]*">', "<g>", text).replace(INK, "currentColor")
    head, rest = text.split(">", 1)
    head = re.sub(r'\s(width|height)="[^"]*"', "", head)
    width = figure.get_size_inches()[0] * 96
    kind = ' class="wide"' if width > 600 else ""
    return f'{head}{kind} style="max-width:{width:.0f}px" role="img" aria-label="{escape(label)}">{rest}'


def success_chart(rates: Sequence[Rate]) -> str:
    """Success rates as dots with their 95 % intervals, in percent."""
    with _figure(WIDE, 0.75 + 0.42 * len(rates)) as figure:
        axes = figure.subplots()
        for place, one in enumerate(rates):
            color = FAINT if one.is_reference or one.is_control else POLICY if place == 0 else PALETTE[1]
            low, high = (100 * bound for bound in one.interval)
            axes.plot([low, high], [place, place], color=color, linewidth=6, alpha=0.35, clip_on=False)
            axes.plot(100 * one.rate, place, "o", color=color, markersize=8, clip_on=False)
            axes.text(103, place, f"{100 * one.rate:.0f} %", va="center", fontweight="bold")
            axes.text(114, place, f"{low:.0f} to {high:.0f} %", va="center")
            axes.text(134, place, one.note, va="center", color=FAINT)
            if one.is_reference:
                axes.axvline(100 * one.rate, color=FAINT, linewidth=1, linestyle=(0, (4, 3)))
        axes.set_yticks(range(len(rates)), [one.label for one in rates])
        axes.set_ylim(len(rates) - 0.5, -0.5)
        axes.set_xlim(-3, 160)
        axes.set_xticks(range(0, 101, 20))
        axes.spines["bottom"].set_bounds(0, 100)
        axes.spines["left"].set_visible(False)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel("success, % of episodes (bar: 95 % interval)", x=53 / 163)
        return _svg(figure, "success rates")


def error_chart(
    names: Sequence[str], labels: Sequence[str], errors: Sequence[float], positive: Sequence[float] | None
) -> str:
    """Normalised action error of each way to act, on all samples and where the advantage is positive."""
    bars = 2 if positive else 1
    with _figure(WIDE, 0.8 + (0.2 + 0.2 * bars) * len(names)) as figure:
        axes = figure.subplots()
        groups = [("all samples", errors, 1.0)] + ([("positive advantage", positive, 0.5)] if positive else [])
        height = 0.7 / bars
        for index, (label, values, alpha) in enumerate(groups):
            places = np.arange(len(names)) + (index - (bars - 1) / 2) * height
            axes.barh(places, values, height * 0.9, color=_colors(names), alpha=alpha, label=label)
            for place, value in zip(places, values, strict=True):
                if np.isfinite(value):  # no sample may have a positive advantage
                    axes.text(value, place, f" {value:.3g}", va="center", fontsize=9)
        axes.set_yticks(range(len(names)), labels)
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.set_xlim(0, 1.12 * np.nanmax([*errors, *(positive or [])]) or 1)
        axes.spines["left"].set_visible(False)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel("mean squared error in units of the variance (about 1: predicting the mean)")
        if positive:
            axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, borderaxespad=0)
        return _svg(figure, "action error of each mode and baseline")


def axis_chart(axes_info: Sequence[tuple[str, str, str]], errors: Mapping[str, Sequence[float]]) -> str:
    """Mean absolute error per action axis, one panel per unit. axes_info: (name, unit, kind); errors: by name [A]."""
    units = list(dict.fromkeys(unit for _, unit, _ in axes_info))
    members = [[index for index, axis in enumerate(axes_info) if axis[1] == unit] for unit in units]
    with _figure(WIDE, 0.5 + sum(0.75 + 0.24 * len(one) for one in members)) as figure:
        panels = figure.subplots(len(units), 1, squeeze=False, height_ratios=[2 + len(one) for one in members])[:, 0]
        for panel, unit, indices in zip(panels, units, members, strict=True):
            for (name, values), color in zip(errors.items(), _colors(errors), strict=True):
                marker = "|" if name in BASELINES else "o"
                style = {"markersize": 9, "markeredgewidth": 2} if marker == "|" else {"markersize": 6}
                chosen = [values[index] for index in indices]
                panel.plot(chosen, range(len(indices)), marker, color=color, label=name, **style)
            panel.set_yticks(range(len(indices)), [axes_info[index][0] for index in indices], fontsize=9)
            panel.set_ylim(len(indices) - 0.5, -0.5)
            panel.set_xlim(left=0)
            panel.spines["left"].set_visible(False)
            panel.set_xlabel(f"mean absolute error, {unit or 'unit not recorded'}")
        panels[0].legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=len(errors), borderaxespad=0.2)
        return _svg(figure, "action error per axis")


def _colors(names: Iterable[str]) -> list[str]:
    """Baselines in two greys, the others in the order of the palette."""
    others = iter(PALETTE * 3)
    return [BASELINES.get(name) or next(others) for name in names]


def calibration_chart(calibration: Calibration) -> str:
    """Realised return over predicted value, a point per tenth of the samples."""
    with _figure(4.6, 4.1) as figure:
        axes = figure.subplots()
        low = min(*calibration.predicted, *calibration.realised, calibration.returns[0])
        high = max(*calibration.predicted, *calibration.realised, calibration.returns[1])
        margin = 0.05 * (high - low or 1)
        ends = (low - margin, high + margin)
        axes.axvspan(*calibration.returns, color=FAINT, alpha=0.12, linewidth=0, label="range of returns")
        axes.plot(ends, ends, color=FAINT, linewidth=1, linestyle=(0, (4, 3)), label="perfect")
        axes.plot(calibration.predicted, calibration.realised, "o-", color=POLICY, label="tenths of the samples")
        axes.set_xlim(ends)
        axes.set_ylim(ends)
        axes.set_xlabel("predicted value Q (mean)")
        axes.set_ylabel("realised return (mean)")
        axes.legend(loc="upper left", fontsize=9)
        return _svg(figure, "calibration of Q")


def reliability_chart(found: Classification) -> str:
    """Share of success over predicted probability, a point a bin, larger where more frames are; and the threshold."""
    with _figure(4.6, 4.1) as figure:
        axes = figure.subplots()
        most = max(one.count for one in found.bins)
        x, y = [one.predicted for one in found.bins], [one.realised for one in found.bins]
        axes.plot((0, 1), (0, 1), color=FAINT, linewidth=1, linestyle=(0, (4, 3)), label="perfect")
        axes.axvline(found.threshold, color=PALETTE[2], linewidth=1.2, label=f"threshold {found.threshold:.3g}")
        axes.plot(x, y, color=POLICY, linewidth=1)
        axes.scatter(x, y, [20 + 100 * one.count / most for one in found.bins], color=POLICY, label="tenths, by frames")
        _unit_square(axes, "predicted probability of success (mean)", "share of success, both kinds weighted alike")
        axes.legend(loc="upper left", fontsize=9)
        return _svg(figure, "calibration of the classifier")


def roc_chart(found: Classification) -> str:
    """True positives over false positives as the threshold falls, and where the chosen one stands."""
    with _figure(4.6, 4.1) as figure:
        axes = figure.subplots()
        axes.plot((0, 1), (0, 1), color=FAINT, linewidth=1, linestyle=(0, (4, 3)), label="chance")
        axes.plot(*zip(*found.roc, strict=True), color=POLICY, label=f"area {found.auc:.3f}")
        at = (found.false_positive_rate, 1 - found.false_negative_rate)
        axes.plot(*at, "o", color=PALETTE[2], markersize=8, label="chosen threshold", clip_on=False)
        _unit_square(axes, "false-positive rate", "true-positive rate")
        axes.legend(loc="lower right", fontsize=9)
        return _svg(figure, "receiver operating characteristic")


def _unit_square(axes: Any, x: str, y: str) -> None:
    axes.set_xlim(-0.03, 1.03)
    axes.set_ylim(-0.03, 1.03)
    axes.set_xlabel(x)
    axes.set_ylabel(y)


def curves(
    series: Series,
    label: str,
    wide: bool = False,
    band: tuple[float, float] | None = None,
    steps_are: str = "training steps",
) -> str:
    """Metrics over steps: a small figure, or a wide one with a legend. `band`: what values may be, where in sight."""
    with _figure(WIDE if wide else 3.5, 3.0 if wide else 2.1) as figure:
        axes = figure.subplots()
        for (name, (steps, values)), color in zip(series.items(), _colors(series), strict=True):
            dashed = (0, (4, 3)) if name in BASELINES else "-"
            marker = "o" if len(steps) < 40 else ""
            axes.plot(steps, values, linestyle=dashed, color=color, label=name, marker=marker, markersize=3.5)
        if band is not None:
            shown = axes.get_ylim()
            axes.axhspan(*band, color=FAINT, alpha=0.12, linewidth=0, label="possible values")
            axes.set_ylim(shown)
        axes.xaxis.set_major_locator(MaxNLocator(4 if not wide else 8, integer=True))
        axes.xaxis.set_major_formatter(
            FuncFormatter(lambda step, _: f"{step / 1000:g}k" if step >= 1000 else f"{step:g}")
        )
        axes.set_title(label)
        if wide:
            axes.set_xlabel(steps_are)
            axes.legend(loc="upper left", bbox_to_anchor=(1, 1), fontsize=9)
        return _svg(figure, label)


class Estimate(NamedTuple):
    """A value with its interval, and how likely it is the highest."""

    label: str
    value: float
    interval: tuple[float, float]
    best: float


def value_chart(
    estimates: Sequence[Estimate], data: tuple[float, tuple[float, float]], returns: tuple[float, float]
) -> str:
    """Estimated values as dots with 95 % intervals, beside what the data earned and within the range of returns."""
    with _figure(WIDE, 0.95 + 0.34 * len(estimates)) as figure:
        axes = figure.subplots()
        axes.axvspan(*returns, color=FAINT, alpha=0.1, linewidth=0, label="range of returns")
        axes.axvspan(*data[1], color=PALETTE[1], alpha=0.15, linewidth=0)
        axes.axvline(data[0], color=PALETTE[1], linewidth=1.2, linestyle=(0, (4, 3)), label="earned by the data")
        for place, one in enumerate(estimates):
            axes.plot(one.interval, [place, place], color=POLICY, linewidth=6, alpha=0.35)
            axes.plot(one.value, place, "o", color=POLICY, markersize=7)
            text = f"{one.value:.3g}   best in {100 * one.best:.0f} %"
            axes.text(1.02, place, text, va="center", transform=axes.get_yaxis_transform(), fontsize=9)
        axes.set_yticks(range(len(estimates)), [one.label for one in estimates])
        axes.set_ylim(len(estimates) - 0.5, -0.5)
        axes.spines["left"].set_visible(False)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel("estimated value, discounted (bar: 95 % interval)")
        axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, borderaxespad=0, fontsize=9)
        return _svg(figure, "estimated values")


def agreement_chart(groups: Mapping[str, tuple[Array, Array]], baselines: Mapping[str, float]) -> str:
    """Estimated value over action error, a dot a policy, by algorithm: the best should lie high and left."""
    with _figure(4.6, 4.1) as figure:
        axes = figure.subplots()
        for (name, (errors, values)), color in zip(groups.items(), _colors(groups), strict=True):
            axes.plot(errors, values, "o", color=color, label=name, alpha=0.85)
        for name, error in baselines.items():
            axes.axvline(error, color=BASELINES[name], linewidth=1.2, linestyle=(0, (4, 3)), label=name)
        axes.set_xlim(left=0)
        axes.set_xlabel("held-out action error, units of the variance")
        axes.set_ylabel("estimated value")
        axes.legend(loc="best", fontsize=9)
        return _svg(figure, "value and action error")


def histogram(values: Sequence[float], label: str) -> str:
    """How the episodes are spread over a quantity."""
    with _figure(3.5, 2.1) as figure:
        axes = figure.subplots()
        axes.hist(values, bins=20 if len(set(values)) > 1 else 1, color=POLICY, alpha=0.8, rwidth=0.92)
        axes.set_xlabel(label)
        axes.set_ylabel("episodes")
        axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes.grid(visible=False, axis="x")
        return _svg(figure, label)
