"""`main_multimodal.py` of the documents: train multimodal LAPO on an HDF5 file.

    python main_multimodal.py --hdf5_path sample_data.hdf5 --device cuda --ExpID 0001 --batch_size 64

writes results/Exp0001/multimodal_robot/, with the package's own run directory in run/. The package's command is
`lapwing train lapo --preset documents`; docs/coming-from.md maps the flags.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from algos.utils_multimodal import expect_dims, usable_device
from experiments import begun, conduct, count, experiment_folder
from exports import Exports

from lapwing.agents.lapo_config import PRESETS, LapoConfig
from lapwing.data.formats import read_recording
from lapwing.run.checkpoint import config_from_json
from lapwing.run.directory import read_settings
from lapwing.run.options import TrainOptions
from lapwing.run.train import train

# The documents' flags, and the fields they set.
OPTIONS = {
    "max_timesteps": "steps",
    "batch_size": "batch_size",
    "eval_freq": "eval_every",
    "save_freq": "save_every",
    "train_test_split": "train_fraction",
    "device": "device",
    "seed": "seed",
    "image_size": "image_size",
    "image_layout": "image_layout",
}
CONFIG = ("discount", "tau", "expectile", "kl_beta", "obs_feature_dim")
VISION = ("encoder", "backbone", "weights", "image_feature_dim")


def main(args: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code: 0 done, 2 something to mend, 130 interrupted."""
    flags = vars(_parser().parse_args(args))
    folder = experiment_folder(flags["ExpID"])
    return conduct(
        "main_multimodal",
        folder,
        lambda: _train(flags, folder),
        going_on=f"--ExpID {flags['ExpID']} --load_model",
        files="progress.csv, model_best_*.pth, model_final_*.pth",
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="main_multimodal.py",
        description="Train multimodal LAPO on an HDF5 file.",
        argument_default=argparse.SUPPRESS,
    )
    add = parser.add_argument
    add("--hdf5_path", type=Path, required=True, help="the data set")
    add("--ExpID", default="0001", help="name of the experiment; digits are padded to four (default 0001)")
    add("--batch_size", type=int, help="samples in a step (default 64)")
    add("--max_timesteps", type=count, default=1_000_000, help="gradient steps (default 1e6)")
    add("--eval_freq", type=count, help="steps between measurements on held-out episodes (default 5e3)")
    add("--save_freq", type=count, help="steps between saved models (default 5e4)")
    add("--device", choices=("cuda", "cpu", "mps", "auto"), help="where to compute (default cuda; without it, the CPU)")
    add("--discount", type=float, help="gamma (default 0.99)")
    add("--tau", type=float, help="rate at which the slow copies follow (default 0.005)")
    add("--expectile", type=float, help="weight of positive advantages; higher is greedier (default 0.9)")
    add("--kl_beta", type=float, help="weight of the KL term; higher regularises more (default 1.0)")
    add("--obs_feature_dim", type=int, help="width of the fused feature (default 256)")
    add("--image_feature_dim", type=int, help="width of the feature of the images (default 256)")
    add("--action_dim", type=int, help="checked against the file (default: the file's)")
    add("--joint_dim", type=int, help="checked against the file (default: the file's)")
    add("--train_test_split", type=float, help="share of the episodes to learn from (default 0.8)")
    add("--encoder", choices=("stacked", "shared", "separate"), help="one trunk over all cameras' channels (default), "
        "one for each camera in turn, or one each")  # fmt: skip
    add("--backbone", choices=("resnet18", "resnet10", "small"), help="network of each trunk (default resnet18)")
    add("--weights", help="auto (default): ImageNet if it can be had; imagenet, none, or a file")
    add("--image_size", type=int, help="pixels to train at (default: as recorded)")
    add("--image_layout", choices=("auto", "nhwc", "nchw"), help="where the shape does not tell (default auto)")
    add("--seed", type=int, help="of the split, the weights and the batches (default 0)")
    add("--load_model", type=count, metavar="STEP", help="go on from this step of the experiment, or of another one")
    add("--load_dir", type=Path, help="the experiment's folder to take --load_model from")
    return parser


def _train(flags: Mapping[str, Any], folder: Path) -> None:
    run, step = folder / "run", flags.get("load_model")
    with begun(folder, step, flags.get("load_dir")):
        options, config = _settings(flags, None if step is None else run)
        spec = read_recording(flags["hdf5_path"], options.reading).spec
        expect_dims(spec, str(flags["hdf5_path"]), flags.get("action_dim"), flags.get("joint_dim"))
        exports = Exports(folder, _params(flags, options, config))
        train(flags["hdf5_path"], run, "lapo", config, options, resume=step is not None, watch=exports.refresh)


def _settings(flags: Mapping[str, Any], run: Path | None) -> tuple[TrainOptions, LapoConfig]:
    """The documents' defaults, or the settings of the run to go on with; flags on top."""
    if run is None:
        options = TrainOptions(flags["max_timesteps"], eval_every=5000, save_every=50_000, device="cuda")
        config = PRESETS["documents"]
    else:
        settings = read_settings(run)
        options = config_from_json(TrainOptions, settings["options"])
        config = config_from_json(LapoConfig, settings["config"])
    options = replace(options, **{field: flags[flag] for flag, field in OPTIONS.items() if flag in flags})
    vision = replace(config.vision, **{name: flags[name] for name in VISION if name in flags})
    config = replace(config, vision=vision, **{name: flags[name] for name in CONFIG if name in flags})
    return replace(options, device=usable_device(options.device).type), config


def _params(flags: Mapping[str, Any], options: TrainOptions, config: LapoConfig) -> dict[str, Any]:
    """What params.json says: every setting under the documents' name."""
    given = {name: str(flags[name]) for name in ("hdf5_path", "ExpID", "load_model", "load_dir") if name in flags}
    return {
        **given,
        **{flag: getattr(options, field) for flag, field in OPTIONS.items()},
        **{name: getattr(config, name) for name in CONFIG},
        **{name: getattr(config.vision, name) for name in VISION},
    }


if __name__ == "__main__":
    sys.exit(main())
