"""RUN/report.html of a success classifier, made from the files in RUN."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lapwing.errors import CheckpointError
from lapwing.run.classification import Classification
from lapwing.run.page import Finding, Tile, Tone, absent, figure, image, page, section, table
from lapwing.run.plots import curves, reliability_chart, roc_chart
from lapwing.run.results import parsed, read_json, read_progress
from lapwing.run.verdict import percent, span

_BADLY_CALIBRATED = 0.1


def is_classifier(run: Path) -> bool:
    """Whether `run` is one of `lapwing train reward`."""
    return (read_json(run / "config.json") or {}).get("algorithm") == "reward"


def write_classifier_report(run: Path) -> Path:
    """Write the page of a classifier's run and return its path. Raises CheckpointError when a file is damaged."""
    config = read_json(run / "config.json") or {}
    record = read_json(run / "held_out.json")
    if record is None:
        raise CheckpointError(f"{run}: held_out.json is missing, for nothing was measured yet; go on with --resume")
    step = record.pop("step", None)
    found = parsed(Classification.from_dict, record, run / "held_out.json")
    data = read_json(run / "data.json") or {}
    sections = [_errors(found), _probabilities(found), *_mistakes(run), _training(run), _data(data), _settings(config)]
    over = f"Lapwing report · success classifier · step {step} · {run.resolve()}"
    text = page(run.resolve().name, over, list(_findings(found, data)), _tiles(found), sections)
    path, partial = run / "report.html", run / ".report.html.partial"
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)
    return path


def _findings(found: Classification, data: Mapping[str, Any]) -> Iterator[Finding]:
    interval = found.false_positive_interval
    allowed = found.max_false_positive_rate
    tone: Tone = "good" if interval[1] <= allowed else "fair" if found.false_positive_rate <= allowed else "bad"
    yield Finding(
        tone,
        f"{found.false_positives} of {found.failures} held-out failures are taken for success: "
        f"{percent(found.false_positive_rate)} (95 % interval {span(interval)}; at most {percent(allowed)} was asked).",
    )
    missed = found.false_negative_rate
    yield Finding(
        "good" if missed < 0.1 else "fair" if missed < 0.5 else "bad",
        f"{found.false_negatives} of {found.successes} held-out successes are missed at the threshold: "
        f"{percent(missed)} (95 % interval {span(found.false_negative_interval)}).",
    )
    if found.threshold_by == "rate":
        yield Finding(
            "fair",
            "Too few failures were held out to prove the rate: the threshold is chosen by the rate itself. Hold out "
            f"{failures_to_prove(allowed):,} failures or more for calibration."
            if allowed > 0
            else "No number of failures proves a rate of 0: the threshold stands above the highest failure.",
        )
    error = found.calibration_error
    yield Finding(
        "good" if error < _BADLY_CALIBRATED else "fair", f"Probabilities are {percent(error)} off on average (ECE)."
    )
    for note in data.get("notes", ()):
        yield Finding("fair", str(note))


def failures_to_prove(rate: float, z: float = 1.96) -> int:
    """How many failures without a false positive it takes until the 95 % interval ends at `rate` (above 0)."""
    count = int(z * z * (1 - rate) / rate)
    return count + (z * z / (count + z * z) > rate)


def _tiles(found: Classification) -> list[Tile]:
    return [
        Tile(percent(found.accuracy), f"accuracy, {span(found.accuracy_interval)}"),
        Tile(percent(found.false_positive_rate), f"false positives, {span(found.false_positive_interval)}"),
        Tile(percent(found.false_negative_rate), f"false negatives, {span(found.false_negative_interval)}"),
        Tile(f"{found.threshold:.3g}", "threshold, a probability"),
    ]


def _errors(found: Classification) -> str:
    lead = (
        "On files that nothing was chosen on: neither weights, nor checkpoint, temperature or threshold. Intervals "
        "take frames as independent; neighbours in a recording are not, so think of them as wider."
    )
    rows = [
        ["success", str(found.successes - found.false_negatives), str(found.false_negatives)],
        ["failure", str(found.false_positives), str(found.failures - found.false_positives)],
    ]
    return section(
        "Errors",
        lead,
        '<div class="pair">',
        figure(roc_chart(found)),
        table(["the frame shows", "taken for success", "taken for failure"], rows),
        "</div>",
    )


def _probabilities(found: Classification) -> str:
    lead = (
        "When it says 0.8, is it success in 8 of 10? Both kinds are weighted alike, so that the answer does not depend "
        "on how many failures were recorded."
    )
    rows = [
        ["expected calibration error", f"{found.calibration_error:.3f}"],
        ["cross-entropy", f"{found.loss:.3f}"],
        ["temperature", f"{found.temperature:.3g}"],
        ["area under the ROC curve", f"{found.auc:.4f}"],
    ]
    return section(
        "Probabilities",
        lead,
        '<div class="pair">',
        figure(reliability_chart(found)),
        table(["", "value"], rows),
        "</div>",
    )


def _mistakes(run: Path) -> Iterator[str]:
    listed = read_json(run / "mistakes.json")
    if listed is None:
        yield section("Worst mistakes", "", absent("Not drawn yet.", "lapwing train reward ... --resume"))
        return
    titles = {
        "failures": "Failures most like success (false positives in red)",
        "successes": "Successes most like failure (false negatives in red)",
    }
    for name, title in titles.items():
        picture = run / f"mistakes-{name}.png"
        rows = [
            [str(place), one["where"], f"{one['probability']:.3f}", "wrong" if one["wrong"] else "right"]
            for place, one in enumerate(listed[name], 1)
        ]
        drawn = figure(image(picture.read_bytes(), title)) if picture.exists() else ""
        lead = "Held-out frames, the worst first, row by row. Wrong labels are found here too."
        yield section(title, lead, drawn, table(["", "frame", "probability", "decision"], rows))


def _training(run: Path) -> str:
    progress = {name: xy for name, xy in read_progress(run / "progress.csv").items() if len(xy[0])}
    losses: dict[str, Any] = {
        name: progress[name] for name in ("reward_loss", "valid/loss", "test/loss") if name in progress
    }
    rates = {
        name.removeprefix("test/").replace("_", " "): progress[name]
        for name in ("test/accuracy", "test/false_positive_rate", "test/false_negative_rate")
        if name in progress
    }
    lead = "valid/loss, on the calibration part, decides which checkpoint is best and when to stop."
    parts = [
        figure(curves(some, title, wide=True)) for some, title in ((losses, "cross-entropy"), (rates, "rates")) if some
    ]
    return section("Training", lead, *parts)


def _data(data: Mapping[str, Any]) -> str:
    frames = data.get("frames", {})
    rows = [[name, str(one["success"]), str(one["failure"])] for name, one in frames.items()]
    lead = f"{data.get('files', 'unknown')} files, divided by {data.get('divided_by', 'file')}."
    return section("Data", lead, table(["part", "frames of success", "of failure"], rows))


def _settings(config: Mapping[str, Any]) -> str:
    rows = [
        (f"{part}.{name}", str(value)) for part in ("config", "options") for name, value in config.get(part, {}).items()
    ]
    return section("Configuration", "As resolved when the run began.", table([], rows))
