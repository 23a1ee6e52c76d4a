"""Labels of episodes in a file beside the recording: success, rewards, and whether the task ended at the last step.

JSON:  {"episode_0": {"success": true, "reward": "last-step"}, "episode_1": {"success": false, "reward": [0, 0, 1]}}
CSV:   episode,success,reward,terminated
       0,true,last-step,
       1,false,0 0 1,false

What a label leaves out stays as the recording says it.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from lapwing.data.problems import listed
from lapwing.episode import Episode
from lapwing.errors import DataError

_FIELDS = ("success", "reward", "terminated")
_BOOLEANS = {"true": True, "false": False, "1": True, "0": False, "yes": True, "no": False}
_HUGE = 3e38  # about what float32 holds
_DIGITS = 18  # of an episode's number
LAST_STEP = "last-step"


@dataclass(frozen=True)
class Label:
    """What is said of one episode. reward: one number a step, or "last-step"; None where nothing is said."""

    success: bool | None = None
    reward: str | tuple[float, ...] | None = None
    terminated: bool | None = None


def read_sidecar(path: Path) -> dict[str, Label]:
    """Labels by episode name ("episode_3"). Raises DataError naming the episode and the field."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise DataError(f"{path}: no such file, expected labels as JSON or CSV; check the path") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not UTF-8 text ({error}), expected labels as JSON or CSV; check the path") from error
    entries = _csv_entries(path, text) if path.suffix.lower() == ".csv" else _json_entries(path, text)
    labels: dict[str, Label] = {}
    for key, entry in entries:
        name = _name(path, key)
        if name in labels:
            raise DataError(f"{path}: {name} is there twice, expected each episode once; delete one")
        labels[name] = _label(f"{path}: {name}", entry)
    if not labels:
        raise DataError(f"{path}: no label in it, expected one an episode; see docs/data-formats.md")
    return labels


def expect_known(path: Path, labels: Mapping[str, Label], names: Sequence[str]) -> None:
    """Raise DataError when a label is of an episode that the recording does not have."""
    unknown = [name for name in labels if name not in set(names)]
    if unknown:
        raise DataError(
            f"{path}: labels of {listed(unknown)}, expected some of {listed(names, 4)}; mend the episodes' numbers"
        )


def labelled(episode: Episode, label: Label, where: str) -> Episode:
    """The episode with what the label says. Raises DataError when the rewards are not one a step."""
    if label.success is not None:
        episode = replace(episode, success=label.success)
    if label.reward == LAST_STEP:
        episode = rewarded_at_the_end(episode)
    elif label.reward is not None:
        if len(label.reward) != episode.num_steps:
            raise DataError(
                f"{where}: reward has {len(label.reward)} numbers, expected {episode.num_steps}, one a step; mend it"
            )
        episode = replace(episode, reward=np.array(label.reward, np.float32))
    return episode if label.terminated is None else replace(episode, terminated=label.terminated)


def rewarded_at_the_end(episode: Episode) -> Episode:
    """Reward 1 and a termination at the last step; no reward, and the end as recorded, where success is denied."""
    values = np.zeros(episode.num_steps, np.float32)
    if episode.success is False:
        return replace(episode, reward=values)
    values[-1] = 1
    return replace(episode, reward=values, terminated=True)


def _json_entries(path: Path, text: str) -> list[tuple[str, Mapping[str, Any]]]:
    try:
        pairs: list[tuple[str, Any]] = json.loads(text, object_pairs_hook=list)  # a dict would hide what is there twice
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not JSON ({error}), expected {{EPISODE: LABEL, ...}}; mend it") from error
    if not isinstance(pairs, list) or not all(isinstance(pair, tuple) for pair in pairs):
        raise DataError(f"{path}: expected one JSON object {{EPISODE: LABEL, ...}}; see docs/data-formats.md")
    for key, entry in pairs:
        if not isinstance(entry, list) or not all(isinstance(pair, tuple) for pair in entry):
            raise DataError(f"{path}: {key}: expected an object of {', '.join(_FIELDS)}; see docs/data-formats.md")
        _expect_once(f"{path}: {key}", [field for field, _ in entry])
    return [(key, dict(entry)) for key, entry in pairs]


def _csv_entries(path: Path, text: str) -> list[tuple[str, Mapping[str, Any]]]:
    csv.field_size_limit(max(csv.field_size_limit(), len(text)))  # the rewards of a long episode are one field
    rows = csv.DictReader(text.splitlines())
    if "episode" not in (rows.fieldnames or ()):
        found = listed(rows.fieldnames or ()) or "nothing"
        raise DataError(f"{path}: columns are {found}, expected episode and some of {', '.join(_FIELDS)}; mend it")
    _expect_once(str(path), rows.fieldnames or ())
    entries: list[tuple[str, Mapping[str, Any]]] = []
    for number, row in enumerate(rows, 2):
        if None in row or None in row.values():
            raise DataError(f"{path}: line {number} has not one value a column, expected {len(rows.fieldnames or ())}")
        filled = {key: text.strip() for key, text in row.items() if text.strip()}
        entries.append((filled.pop("episode", ""), {key: _parsed(key, text) for key, text in filled.items()}))
    return entries


def _expect_once(where: str, fields: Sequence[str]) -> None:
    twice = [field for field in fields if fields.count(field) > 1]
    if twice:
        raise DataError(f"{where}: {twice[0]} is there twice, expected each field once; delete one")


def _parsed(key: str, text: str) -> Any:
    """A cell of a CSV file as the value that JSON would hold; what is neither stays text, to be refused."""
    if key in ("success", "terminated"):
        return _BOOLEANS.get(text.lower(), text)
    try:
        return [float(number) for number in text.split()]
    except ValueError:
        return text


def _name(path: Path, key: str) -> str:
    name = key.removesuffix(".hdf5")
    number = name.rpartition("episode_")[2]
    if not number.isdecimal() or len(number) > _DIGITS:
        raise DataError(f"{path}: {key[:40]!r} is no episode, expected a number or episode_N; mend it")
    return f"episode_{int(name)}" if name.isdecimal() else name


def _label(where: str, entry: Mapping[str, Any]) -> Label:
    unknown = [key for key in entry if key not in _FIELDS]
    if unknown:
        raise DataError(f"{where}: field {unknown[0]!r}, expected some of {', '.join(_FIELDS)}; mend it")
    for key in ("success", "terminated"):
        if not isinstance(entry.get(key), bool | None):
            raise DataError(f"{where}: {key} is {entry[key]!r}, expected true or false; mend it")
    reward = entry.get("reward")
    if isinstance(reward, list) and all(_is_number(value) for value in reward):
        reward = tuple(float(value) for value in reward)
    elif reward is not None and reward != LAST_STEP:
        raise DataError(f"{where}: reward is {str(reward)[:40]!r}, expected {LAST_STEP!r} or finite numbers; mend it")
    return Label(entry.get("success"), reward, entry.get("terminated"))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and bool(abs(value) < _HUGE)
