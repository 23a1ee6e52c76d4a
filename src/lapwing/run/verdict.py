"""What the numbers of a run mean, in plain words."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from lapwing.run.episode_log import in_words, read_episodes
from lapwing.run.held_out import BASELINES, Calibration, HeldOut, ImageTest
from lapwing.run.page import Finding, Tile, Tone
from lapwing.run.results import RunResults, WorldResult
from lapwing.run.train import EPISODES

RANKS_WELL = 0.5  # a rank correlation of values and returns from here on is called good
MOVES_BY_STEPS = ("sac",)  # algorithms whose actions are displacements, which cannot be more relative
MATTERS = 0.1  # relative differences of errors, and a bias relative to the range of returns, below this are small

WORDS = {"hold": "holding still", "mean": "the mean action"}  # of what needs no policy


def findings(run: RunResults, others: Sequence[RunResults]) -> list[Finding]:
    """The verdict, the most important sentence first."""
    found = [one for world in run.worlds for one in _in_world(run, world, others)]
    if not found:
        found.append(_not_evaluated(run))
    found += [
        _drift(world.deployed.figures["off_data"]) for world in run.worlds if "off_data" in world.deployed.figures
    ]
    found += _ran_away(run)
    if run.held_out is None:
        found.append(Finding("fair", "Not yet judged on held-out episodes."))
    else:
        if run.judged_apart and run.held_out_step is not None:
            text = "Success and held-out figures are of different checkpoints"
            found.append(Finding("fair", f"{text}: what follows is of step {run.held_out_step:,}."))
        found += _off_line(run, run.held_out)
    return found


def _not_evaluated(run: RunResults) -> Finding:
    if "online" not in run.config:
        return Finding("fair", "Not yet seen in a world: what follows ranks checkpoints, it promises no success.")
    world = run.config["world"]["name"]
    episodes = read_episodes(run.path / EPISODES)
    learned = f"While it learned in the world {world}: {in_words(episodes)}. " if episodes else ""
    return Finding("fair", f"{learned}How good it is alone, `lapwing eval RUN --world {world}` tells.")


def _ran_away(run: RunResults) -> Iterator[Finding]:
    """What stopped the run, if that was its values."""
    steps, diverged = run.progress.get("q_diverged", (np.zeros(0), np.zeros(0)))
    if len(steps) and diverged[-1] == 1:
        yield Finding("bad", "Its values ran away from all returns in the data: do not use it, train another.")


def _at(run: RunResults, step: int | None) -> str:
    """The step that a figure is of, where the figures are not all of the same one."""
    return f", step {step:,}" if run.judged_apart and step is not None else ""


def _in_world(run: RunResults, world: WorldResult, others: Sequence[RunResults]) -> Iterator[Finding]:
    mode, result = next(iter(world.modes.items()))
    score = f", D4RL's score {result.figures['score']:.1f}" if "score" in result.figures else ""
    if "success" not in result.flags:
        yield Finding(
            "fair",
            f"In the world {world.world} the policy ({mode}{_at(run, world.step)}) earns {np.mean(result.returns):.4g} "
            f"on average over {result.episodes} fresh episodes{score}.",
        )
        return
    low, high = result.interval()
    said = (
        f"In the world {world.world} the policy ({mode}{_at(run, world.step)}) succeeds in "
        f"{percent(result.success_rate)} of {result.episodes} fresh episodes (95 % interval {span((low, high))}){score}"
    )
    data = run.data_success()
    if data is None:
        yield Finding("good" if low > 0.5 else "fair", f"{said}. How often its data succeeds is not recorded.")
    else:
        rate, (data_low, data_high), _ = data
        tone, relation = _compare((low, high), (data_low, data_high))
        yield Finding(tone, f"{said}, {relation} the data it learned from ({percent(rate)}).")
    for other in others:
        there = other.world(world.world)
        if there is not None:
            tone, relation = _compare((low, high), there.deployed.interval())
            reached = f"{percent(there.deployed.success_rate)}, interval {span(there.deployed.interval())}"
            yield Finding(tone, f"That is {relation} {other.label}: {reached}.")


def _drift(off_data: float) -> Finding:
    tone: Tone = "good" if off_data < MATTERS else "fair" if off_data < 0.5 else "bad"
    return Finding(tone, f"{percent(off_data)} of the states it visits lie off the data, where its values are guesses.")


def _compare(ours: tuple[float, float], theirs: tuple[float, float]) -> tuple[Tone, str]:
    """Tone and words for two intervals of success."""
    if ours[0] > theirs[1]:
        return "good", "clearly more than"
    if ours[1] < theirs[0]:
        return "bad", "clearly less than"
    return "fair", "not clearly different from"


def _off_line(run: RunResults, held_out: HeldOut) -> Iterator[Finding]:
    is_relative = run.config.get("options", {}).get("relative_actions", False) or run.algorithm in MOVES_BY_STEPS
    yield _nearness(held_out, is_relative)
    if held_out.image_test is not None:
        yield _looks(held_out.image_test)
    if held_out.calibration is not None:
        yield _values(held_out.calibration)
    if held_out.remark is not None:
        yield Finding("fair", f"Read with care: {held_out.remark}.")


def _nearness(held_out: HeldOut, is_relative: bool) -> Finding:
    error = held_out.errors[held_out.modes[0]].mse
    rivals = {name: held_out.errors[name].mse for name in BASELINES}
    best = min(sorted(rivals, reverse=True), key=lambda name: rivals[name])  # "mean" where nothing can be held
    words = WORDS[best]
    if error >= rivals[best]:
        is_position = rivals["hold"] != rivals["mean"]
        absolute = is_position and not is_relative
        remedy = "train with --relative-actions" if absolute else "train longer, or on more recordings"
        numbers = " to ".join(alike(error, rivals[best]))
        said = f"Its held-out actions are no nearer than {words} ({numbers})"
        if held_out.calibration is not None and not is_position:
            return Finding("fair", f"{said}; offline RL may leave them on purpose, else {remedy}.")
        return Finding("bad", f"{said}: {remedy}.")
    saved = 1 - error / rivals[best]
    tone: Tone = "good" if saved > MATTERS else "fair"
    return Finding(tone, f"Its held-out actions have {percent(saved)} less squared error than {words}.")


def _looks(test: ImageTest) -> Finding:
    rise = test.swapped / test.matched - 1 if test.matched > 0 else math.inf
    if test.increase[0] <= 0:
        return Finding("bad", "It does not look: the images of other moments leave its error as it is.")
    if rise < MATTERS:
        return Finding("fair", f"It hardly looks: with the images of other moments its error rises by {percent(rise)}.")
    return Finding("good", f"It looks: with the images of other moments its error rises by {percent(rise)}.")


def _values(calibration: Calibration) -> Finding:
    if math.isnan(calibration.spearman):
        return Finding("bad", "Its values say nothing: they, or the held-out returns, are all the same.")
    tone: Tone = "good" if calibration.spearman >= RANKS_WELL else "fair" if calibration.spearman > 0.2 else "bad"
    low, high = calibration.returns
    share = abs(calibration.bias) / (high - low)  # returns that do not differ have no rank correlation
    said = (
        f"Its values rank the held-out returns with a correlation of {calibration.spearman:.2f} and lie "
        f"{abs(calibration.bias):.2g} {'above' if calibration.bias >= 0 else 'below'} them on average"
    )
    if share <= MATTERS:
        return Finding(tone, f"{said}.")
    doubt = f"{percent(share)} of the range of returns: trust their order, not their size"
    return Finding("fair" if tone == "good" else tone, f"{said}, {doubt}.")


def tiles(run: RunResults) -> list[Tile]:
    """The few numbers to remember."""
    shown = []
    for world in run.worlds:
        result = world.deployed
        label = f"in {world.world}, {result.episodes} episodes{_at(run, world.step)}"
        if "success" in result.flags:
            shown.append(Tile(percent(result.success_rate), f"success {label}"))
        if "score" in result.figures:
            shown.append(Tile(f"{result.figures['score']:.1f}", f"D4RL's score {label}"))
    data = run.data_success()
    if data is not None:
        shown.append(Tile(percent(data[0]), f"success of the data, {data[2]} episodes"))
    if run.held_out is not None:
        deployed = run.held_out.modes[0]
        errors = {name: run.held_out.errors[name].mse for name in ("hold", "mean")}
        plain = "mean" if errors["hold"] == errors["mean"] else "hold"
        error, still = alike(run.held_out.errors[deployed].mse, errors[plain])
        at = _at(run, run.held_out_step)
        shown.append(Tile(error, f"held-out action error ({deployed}{at})"))
        shown.append(Tile(still, f"the same, {WORDS[plain]}"))
        if run.held_out.calibration is not None:
            label = f"rank correlation of value and return{at}"
            shown.append(Tile(f"{run.held_out.calibration.spearman:.2f}", label))
    return shown


def training_effort(run: RunResults) -> str:
    """How long the run has been trained, in words."""
    if not run.steps:
        return "imported weights" if "imported" in run.config else "not trained yet"
    if "seconds" not in run.progress:
        return f"{run.steps:,} steps"
    minutes = float(run.progress["seconds"][1][-1]) / 60
    return f"{run.steps:,} steps in " + (f"{minutes:.1f} min" if minutes < 120 else f"{minutes / 60:.1f} h")


def alike(*values: float) -> list[str]:
    """Values to compare, with as many decimals as give the smallest of them two digits."""
    sizes = [abs(value) for value in values if value and math.isfinite(value)]
    decimals = max(0, 1 - math.floor(math.log10(min(sizes, default=1.0))))
    return [f"{value:.{decimals}f}" for value in values]


def percent(rate: float) -> str:
    return f"{100 * rate:.0f} %"


def span(interval: tuple[float, float]) -> str:
    return f"{100 * interval[0]:.0f} to {100 * interval[1]:.0f} %"
