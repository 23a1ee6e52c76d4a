"""How success grew with the steps made in a world, on the report's page."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lapwing.errors import CheckpointError
from lapwing.run.episode_log import EpisodeLog
from lapwing.run.intake import Collected
from lapwing.run.report import write_report


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text(json.dumps({"algorithm": "sac", "online": {}, "world": {"name": "line"}}))
    return tmp_path


def page(run: Path) -> str:
    return write_report(run).read_text(encoding="utf-8")


def test_a_curve_over_environment_steps_and_a_table_of_tenths(run: Path) -> None:
    told = [Collected(0, 10 * n, 10, float(n > 20), n > 20, 4 * (n <= 5)) for n in range(1, 41)]
    EpisodeLog(run / "episodes.jsonl", 0).add(told)
    text = page(run)
    assert "Success while learning" in text
    assert "environment steps" in text
    rows = [part.split("</tr>")[0] for part in text.split("<th>to ")[1:]]
    assert [row.split("<")[0] for row in rows] == [str(40 * n) for n in range(1, 11)]
    assert "16" in rows[0]
    assert "0 %" in rows[0]
    assert "100 %" in rows[9]


def test_a_world_that_does_not_tell_success(run: Path) -> None:
    EpisodeLog(run / "episodes.jsonl", 0).add([Collected(0, 5, 5, 1.0, None, 0)])
    text = page(run)
    assert "not told" in text
    assert "episodes that succeed" not in text


def test_no_episode_yet(run: Path) -> None:
    assert "No episode has ended yet." in page(run)


def test_other_runs_have_no_such_section(run: Path) -> None:
    (run / "config.json").write_text(json.dumps({"algorithm": "sac"}))
    assert "Success while learning" not in page(run)


def test_a_damaged_log_is_said(run: Path) -> None:
    (run / "episodes.jsonl").write_text("[1]\n")
    with pytest.raises(CheckpointError, match=r"episodes\.jsonl: damaged"):
        page(run)
