"""Training a success classifier: the shared loop on labelled frames, then pictures of what it still gets wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lapwing.agents.reward import RewardAgent, RewardConfig
from lapwing.errors import ConfigError
from lapwing.run.checkpoint import find_checkpoint, load_learner
from lapwing.run.classifier_report import write_classifier_report
from lapwing.run.device import pick_device
from lapwing.run.labelled_source import LabelledSource, open_labelled
from lapwing.run.mistakes import write_mistakes
from lapwing.run.options import TrainOptions
from lapwing.run.ranks import read_ranks
from lapwing.run.train import train_on


@dataclass(frozen=True)
class LabelledPaths:
    """Where labelled frames are: files or folders of successes and failures, and recordings whose rewards tell."""

    success: Sequence[Path] = ()
    failure: Sequence[Path] = ()
    recordings: Sequence[Path] = ()


def train_reward(
    paths: LabelledPaths, out: Path, config: RewardConfig, options: TrainOptions, resume: bool = False
) -> Path:
    """Train a classifier and return the run directory `out`, with its report. Raises as `train_on` does."""
    for name in ("alignment", "relative_actions"):
        if getattr(options, name):
            raise ConfigError(f"{name}: got {getattr(options, name)}, but a classifier has no actions; leave it out")
    opened: list[LabelledSource] = []

    def open_source(progress: bool) -> LabelledSource:
        opened.append(open_labelled(paths.success, paths.failure, paths.recordings, options, progress))
        return opened[0]

    train_on(open_source, out, "reward", config, options, resume)
    ranks = read_ranks()
    if ranks.is_first:
        device = pick_device(options.device, ranks.local_rank)
        agent, *_ = load_learner(find_checkpoint(out), device)
        assert isinstance(agent, RewardAgent)  # trained above
        write_mistakes(out, agent, opened[0].test, device)
        write_classifier_report(out)
    return out
