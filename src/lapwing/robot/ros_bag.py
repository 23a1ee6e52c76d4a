"""ROS bags as a recording: one or a folder of them, with a report of how well their streams were in step."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from lapwing.episode import Recording
from lapwing.errors import DataError
from lapwing.robot.bag_rows import BagRows
from lapwing.robot.bag_scan import find_bags
from lapwing.robot.topics import TopicMap
from lapwing.spec import RobotSpec


def read_bags(path: Path, topics: TopicMap, skip_damaged: bool = False, progress: bool = True) -> Recording:
    """Read the bags at `path`, a bag or a folder of them. An episode has one observation more than actions.

    Stamps and joints are read here, images when they are indexed. The action of a step is what the leader's topics
    say at the time of its observation. The notes say how many rows and messages were dropped or used twice, and how
    far the streams were apart; meta and the sensors `stamp_*` of the episodes keep it.
    skip_damaged: leave out bags that cannot be used, and say which in the notes. Raises DataError.
    """
    bags = find_bags(path)
    if not bags:
        raise DataError(f"{path}: no ROS bag (.bag, .mcap, .db3 or a folder with metadata.yaml); check the path")
    read: list[BagRows] = []
    left_out: list[str] = []
    spec: RobotSpec | None = None
    episodes = []
    for bag in tqdm(bags, desc="read stamps", unit="bag", disable=not progress):
        try:
            rows = BagRows.read(bag, topics)
            _expect_same(bag, rows.spec(), spec)
            episodes += rows.episodes()
        except DataError as error:
            if not skip_damaged:
                raise
            left_out.append(f"left out {error}")
            continue
        spec = spec or rows.spec()
        read.append(rows)
    if spec is None:
        raise DataError(f"{path}: no bag can be used; {left_out[0]}")
    return Recording(path, "ros-bag", spec, episodes, (*_report(read), *left_out))


def _expect_same(bag: Path, found: RobotSpec, expected: RobotSpec | None) -> None:
    """One spec holds for all episodes of a recording."""
    for part in ("cameras", "sensors", "action") if expected else ():
        odd = set(getattr(found, part)) ^ set(getattr(expected, part))
        if odd:
            names = ", ".join(sorted({one.name for one in odd}))
            raise DataError(f"{bag}: {part}: {names} not as in the bags before; convert these bags apart")


def _report(bags: Sequence[BagRows]) -> list[str]:
    """One line about the rows, and one for each stream."""
    kept, dropped = sum(len(one.time) for one in bags), sum(one.dropped for one in bags)
    lines = [f"{len(bags)} bag{'s' * (len(bags) != 1)} in step: {kept} rows kept, {dropped} dropped"]
    for source in bags[0].topics.sources:
        accounts = [one.account[source.name] for one in bags]
        skew_ms = 1000 * np.concatenate([one.skew(source.name) for one in bags])
        lines.append(
            f"{source.name}: {sum(one.pushed for one in accounts)} messages, {sum(one.used for one in accounts)} used, "
            f"{sum(one.reused for one in accounts)} of them again, {sum(one.missed for one in accounts)} rows dropped "
            f"for want of one; skew mean {skew_ms.mean():.1f} ms, max {skew_ms.max():.1f} ms"
        )
    return lines
