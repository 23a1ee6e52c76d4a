"""What held-out episodes say about an agent: the record that training, the report and progress.csv share."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, cast

BASELINES = ("hold", "mean")  # ways to act that a policy has to beat
FEW_EPISODES = 20  # fewer held-out episodes than this say little


@dataclass(frozen=True)
class ActionError:
    """Error of predicted actions over the valid steps of `samples` samples.

    mse: mean squared error in units of the variance in training, whatever the agent's scaling (1 is about what
    predicting the mean gives); mse_by_kind: the same for the axes of one kind; mae: mean absolute error per action
    axis, in the axis's own unit.
    """

    samples: int
    mse: float
    mse_by_kind: Mapping[str, float]
    mae: tuple[float, ...]


@dataclass(frozen=True)
class Calibration:
    """Predicted values beside the discounted returns that the recorded episodes went on to earn.

    bias: mean of q - return; gap: mean of q(policy's action) - q(data's action); returns, q: lowest and highest;
    predicted, realised: means within ten equal parts of the samples in the order of q.
    """

    spearman: float
    bias: float
    gap: float
    positive_advantage: float
    returns: tuple[float, float]
    q: tuple[float, float]
    predicted: tuple[float, ...]
    realised: tuple[float, ...]


@dataclass(frozen=True)
class ImageTest:
    """Does the policy look? Mean squared error with its own images, and with those of other samples.

    increase: 95 % bootstrap interval of the mean difference; above zero, the images matter.
    """

    samples: int
    matched: float
    swapped: float
    increase: tuple[float, float]


@dataclass(frozen=True)
class HeldOut:
    """What held-out episodes say about an agent. `modes`: the deployed one first.

    errors: by mode and baseline, on all samples; errors_positive: where the advantage is positive, empty for an
    agent that judges nothing; axes: name, unit and kind of each action axis; reconstruction: the error of the
    recorded chunks as they come back through the agent's latent, which is no measure of how it acts.
    """

    episodes: int
    samples: int
    modes: tuple[str, ...]
    axes: tuple[tuple[str, str, str], ...]
    errors: Mapping[str, ActionError]
    errors_positive: Mapping[str, ActionError]
    calibration: Calibration | None
    image_test: ImageTest | None
    reconstruction: ActionError | None = None

    @property
    def remark(self) -> str | None:
        """What the reader has to know before trusting these numbers."""
        if self.episodes >= FEW_EPISODES:
            return None
        return f"only {self.episodes} held-out episodes: fewer than {FEW_EPISODES} rank checkpoints poorly"

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; NaN becomes null."""
        return cast(dict[str, Any], _plain(asdict(self)))

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> HeldOut:
        """The inverse of `to_dict`."""
        calibration, image_test, reconstruction = (
            data["calibration"],
            data["image_test"],
            data.get("reconstruction"),
        )
        return HeldOut(
            episodes=data["episodes"],
            samples=data["samples"],
            modes=tuple(data["modes"]),
            axes=tuple((name, unit, kind) for name, unit, kind in data["axes"]),
            errors={name: ActionError(**_thawed(error)) for name, error in data["errors"].items()},
            errors_positive={name: ActionError(**_thawed(error)) for name, error in data["errors_positive"].items()},
            calibration=None if calibration is None else Calibration(**_thawed(calibration)),
            image_test=None if image_test is None else ImageTest(**_thawed(image_test)),
            reconstruction=None if reconstruction is None else ActionError(**_thawed(reconstruction)),
        )


def metrics(held_out: HeldOut) -> dict[str, float]:
    """One row for progress.csv. The keys of one agent are always the same; what is undefined is NaN."""
    deployed = held_out.modes[0]
    row = {"valid/action_error": held_out.errors[deployed].mse}
    row |= {f"valid/action_error_{name}": error.mse for name, error in held_out.errors.items()}
    if held_out.image_test is not None:
        row["valid/action_error_swapped_images"] = held_out.image_test.swapped
    if held_out.reconstruction is not None:
        row["valid/reconstruction_error"] = held_out.reconstruction.mse
    if held_out.calibration is not None:
        row["valid/action_error_positive"] = held_out.errors_positive[deployed].mse
        row["valid/q_spearman"] = held_out.calibration.spearman
        row["valid/q_bias"] = held_out.calibration.bias
        row["valid/q_gap"] = held_out.calibration.gap
        row["valid/advantage_positive"] = held_out.calibration.positive_advantage
    return row


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def _thawed(data: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of a flat dataclass from JSON: lists become tuples, null NaN."""
    return {key: _thaw(value) for key, value in data.items()}


def _thaw(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _thaw(one) for key, one in value.items()}
    if isinstance(value, list):
        return tuple(_thaw(one) for one in value)
    return math.nan if value is None else value
