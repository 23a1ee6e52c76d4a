"""`main_d4rl.py` of the documents' tree: train LAPO on a data set of D4RL.

    python main_d4rl.py --env_name maze2d-umaze-v1 --kl_beta 0.3 --plot
    python main_d4rl.py --env_name maze2d-umaze-v1 --dataset maze.hdf5 --device cuda

writes results/Exp0000/maze2d-umaze-v1/, with the package's own run directory in run/. The package's command is
`lapwing train lapo --preset original`; docs/coming-from.md maps the flags. As in the original rewards are divided by
the largest one, save for antmaze, where they are times 100.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from algos.utils_multimodal import usable_device
from d4rl_data import default_folder, expect_environment, find_data, world_of
from d4rl_exports import Exports
from experiments import begun, conduct, count

from lapwing.agents.lapo_config import PRESETS, LapoConfig
from lapwing.data.dataset import Dataset
from lapwing.data.frames import FrameStore
from lapwing.run.checkpoint import config_from_json
from lapwing.run.directory import read_settings
from lapwing.run.options import TrainOptions
from lapwing.run.train import train_on
from lapwing.run.training_data import TrainingData, open_training_data

# The original's flags, and the fields they set.
OPTIONS = {
    "max_timesteps": "steps",
    "batch_size": "batch_size",
    "eval_freq": "eval_every",
    "save_freq": "save_every",
    "seed": "seed",
    "device": "device",
}
CONFIG = {
    "vae_lr": "vae_lr",
    "actor_lr": "actor_lr",
    "critic_lr": "critic_lr",
    "tau": "tau",
    "discount": "discount",
    "expectile": "expectile",
    "kl_beta": "kl_beta",
    "max_latent_action": "max_latent",
    "doubleq_min": "doubleq_min",
}
ANTMAZE_REWARD = 100.0


def main(args: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code: 0 done, 2 something to mend, 130 interrupted."""
    flags = vars(_parser().parse_args(args))
    folder = Path(flags["log_dir"]) / f"Exp{flags['ExpID']:04d}" / flags["env_name"]
    return conduct(
        "main_d4rl",
        folder,
        lambda: _train(flags, folder),
        going_on="--load_model",
        files="progress.csv, model_*.pth",
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="main_d4rl.py", description="Train LAPO on a data set of D4RL.")
    add = parser.add_argument
    add("--ExpID", type=int, default=0, help="number of the experiment")
    add("--log_dir", type=Path, default=Path("results"), help="where experiments are kept")
    add("--load_model", type=count, default=0, metavar="STEP", help="go on from this step; 0: begin anew")
    add("--save_model", type=_truth, default=True, help="whether to save models on the way")
    add("--save_freq", type=count, default=500_000, help="steps between saved models")
    add("--env_name", default="maze2d-large-v1", help="D4RL's name of the environment and its data")
    add("--seed", type=int, default=123, help="of the weights, the batches and the evaluation")
    add("--eval_freq", type=count, default=5000, help="steps between evaluations")
    add("--max_timesteps", type=count, default=1_000_000, help="gradient steps")
    add("--batch_size", type=int, default=512, help="transitions in a step")
    add("--vae_lr", type=float, default=2e-4, help="learning rate of the CVAE")
    add("--actor_lr", type=float, default=2e-4, help="learning rate of the latent policy")
    add("--critic_lr", type=float, default=2e-4, help="learning rate of the critics")
    add("--tau", type=float, default=0.005, help="rate at which the slow copies follow")
    add("--discount", type=float, default=0.99, help="gamma")
    add("--expectile", type=float, default=0.9, help="weight of positive advantages")
    add("--kl_beta", type=float, default=1.0, help="weight of the KL term; the authors use 0.3 for maze2d")
    add("--max_latent_action", type=float, default=2.0, help="bound of the latent policy")
    add("--doubleq_min", type=float, default=1.0, help="share of the lower Q; the authors use 0.7 for antmaze")
    add("--no_noise", action="store_true", help="no effect, as in the original, which never looks at it")
    add("--plot", action="store_true", help="draw where the evaluated episodes went, into eval_fig.png")
    add("--device", default="cpu", help="cpu, cuda or mps")
    add("--dataset", type=Path, help="the data set itself, of any layout `lapwing data check` knows")
    add("--dataset_dir", type=Path, help="where data sets are (default: $D4RL_DATASET_DIR or ~/.d4rl/datasets)")
    return parser


def _truth(text: str) -> bool:
    """In the original every text was true, "False" too."""
    if text.lower() not in ("true", "false", "1", "0"):
        raise ValueError(text)
    return text.lower() in ("true", "1")


def _train(flags: Mapping[str, Any], folder: Path) -> None:
    name = flags["env_name"]
    data = flags["dataset"] or find_data(name, flags["dataset_dir"] or default_folder())
    run, step = folder / "run", flags["load_model"] or None
    with begun(folder, step):
        options, config = _settings(flags)
        if step:
            config = config_from_json(LapoConfig, {**read_settings(run)["config"], **_given(flags)})
        params = {**{key: _plain(value) for key, value in flags.items()}, "data": str(data)}
        train_on(
            lambda progress: _open(data, options, config, name, progress),
            run,
            "lapo",
            config,
            options,
            resume=bool(step),
            watch=Exports(folder, params, world_of(name)).refresh,
        )


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value


def _given(flags: Mapping[str, Any]) -> dict[str, Any]:
    return {field: flags[flag] for flag, field in CONFIG.items()}


def _settings(flags: Mapping[str, Any]) -> tuple[TrainOptions, LapoConfig]:
    """The original's settings; like it, all of the data is for training."""
    given = {field: flags[flag] for flag, field in OPTIONS.items()}
    options = TrainOptions(**{**given, "device": usable_device(flags["device"]).type}, train_fraction=1.0)
    config = replace(PRESETS["original"], **_given(flags))
    if _is_antmaze(flags["env_name"]):
        # V between 0 and 100 there; here the range of returns with its margin, -10 to 110 where a reward is the end
        config = replace(config, scale_reward=False, value_bounds="returns")
    return options, config


def _is_antmaze(name: str) -> bool:
    return "antmaze" in name


@dataclass(frozen=True)
class _Scaled(TrainingData):
    """Data whose rewards are not those of the file, and that is the file's nevertheless."""

    file: TrainingData

    def fingerprint(self) -> str:
        return self.file.fingerprint()


def _open(path: Path, options: TrainOptions, config: LapoConfig, name: str, progress: bool) -> TrainingData:
    data = open_training_data(path, options, config.scaling, progress)
    expect_environment(path, data.recording.spec, name)
    if not _is_antmaze(name):
        return data
    episodes = [
        episode if episode.reward is None else replace(episode, reward=ANTMAZE_REWARD * episode.reward)
        for episode in data.recording.episodes
    ]
    recording = replace(data.recording, episodes=episodes)
    train = Dataset(recording, FrameStore.open(recording), data.split.train, data.normalizer)
    return _Scaled(recording, data.split, train, None, data)


if __name__ == "__main__":
    sys.exit(main())
