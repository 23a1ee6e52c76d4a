"""`create_dataset.py` of the documents: make a sample, validate a file, convert a recording.

    python create_dataset.py --create_sample --output sample_data.hdf5 --n_samples 5000
    python create_dataset.py --validate --hdf5_path your_data.hdf5
    python create_dataset.py --convert --input RECORDING --output your_data.hdf5

The package's own commands are `lapwing data sample`, `check` and `convert` (docs/coming-from.md).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from lapwing.commands import data
from lapwing.data.check import CheckResult, check
from lapwing.errors import LapwingError


def main(args: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code: 0 done, 2 something to mend."""
    parser = _parser()
    flags = parser.parse_args(args)
    missing = [f"--{name}" for name in _needed(flags) if getattr(flags, name) is None]
    if missing:
        parser.error(f"{' and '.join(missing)} missing")
    try:
        if flags.create_sample:
            return data.sample([flags.output, "--n-samples", str(flags.n_samples), "--seed", str(flags.seed)])
        if flags.validate:
            return _validate(Path(flags.hdf5_path))
        return data.convert(_convert_words(flags))
    except LapwingError as error:
        print(f"create_dataset: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("create_dataset: interrupted", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="create_dataset.py", description="Sample, validate or convert a data set.")
    job = parser.add_mutually_exclusive_group(required=True)
    job.add_argument("--create_sample", action="store_true", help="draw demonstrations from the toy world")
    job.add_argument("--validate", action="store_true", help="print what a file holds and every problem it has")
    job.add_argument("--convert", action="store_true", help="LeRobot data, or a flat file at another size, to flat")
    parser.add_argument("--output", help="the file to write")
    parser.add_argument("--n_samples", type=int, default=5000, help="steps to draw, exactly (default 5000)")
    parser.add_argument("--seed", type=int, default=0, help="the same seed draws the same sample (default 0)")
    parser.add_argument("--hdf5_path", help="the file to validate")
    parser.add_argument("--input", help="the recording to convert")
    parser.add_argument("--size", help="height and width of the converted images in pixels (default: as recorded)")
    parser.add_argument("--reward", choices=("last-step", "none"), default="none", help="rewards to add (default none)")
    parser.add_argument("--skip_damaged", action="store_true", help="leave out episodes that cannot be read")
    return parser


def _needed(flags: argparse.Namespace) -> tuple[str, ...]:
    if flags.validate:
        return ("hdf5_path",)
    return ("output",) if flags.create_sample else ("input", "output")


def _convert_words(flags: argparse.Namespace) -> list[str]:
    words = [flags.input, flags.output, "--reward", flags.reward]
    words += ["--size", flags.size] if flags.size else []
    return words + (["--skip-damaged"] if flags.skip_damaged else [])


def _validate(path: Path) -> int:
    result = check(path)
    print("\n".join([f"验证数据集: {path}", "=" * 60, "", "文件结构:", *result.tree, ""]))
    for line in (*(f"note: {note}" for note in result.notes), *result.problems):
        print(line)
    print(_verdict(result))
    return 0 if result.trainable else 2


def _verdict(result: CheckResult) -> str:
    if result.trainable:
        return "✓ 数据格式验证成功!"
    errors = sum(problem.severity == "error" for problem in result.problems)
    return f"✗ 数据格式验证失败: {errors} error{'s' * (errors != 1)}"


if __name__ == "__main__":
    sys.exit(main())
