"""What is logged: means without waiting for the device, and a table whose columns keep their place."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lapwing.run.log import MeanMetrics, ProgressTable


def test_means_are_those_of_the_interval() -> None:
    means = MeanMetrics()
    assert means.take() == {}
    for value in (1.0, 2.0, 6.0):
        means.add({"loss": torch.tensor(value), "gain": torch.tensor(-value, dtype=torch.float64)})
    assert means.take() == {"loss": 3.0, "gain": -3.0}
    means.add({"loss": torch.tensor(5.0), "gain": torch.tensor(0.0)})
    assert means.take() == {"loss": 5.0, "gain": 0.0}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "progress.csv"


def test_a_metric_that_comes_later_gets_the_next_column(path: Path) -> None:
    table = ProgressTable(path)
    table.write({"step": 1, "loss": 0.5})
    table.write({"step": 2, "loss": 0.25, "valid/error": 1.5})
    table.write({"loss": 0.125, "step": 3})
    assert path.read_text().splitlines() == ["step,loss,valid/error", "1,0.5,", "2,0.25,1.5", "3,0.125,"]
    assert [one.name for one in path.parent.iterdir()] == ["progress.csv"]


def test_a_table_is_taken_up_where_it_was_cut(path: Path) -> None:
    path.write_text("step,loss\n1,0.5\n2,0.25\n3,0.1\n4,")  # the last row was being written
    table = ProgressTable(path)
    table.cut_after(2)
    table.write({"step": 3, "loss": 0.75})
    assert path.read_text().splitlines() == ["step,loss", "1,0.5", "2,0.25", "3,0.75"]
