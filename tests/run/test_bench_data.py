"""The table of `lapwing bench data`."""

from __future__ import annotations

import pytest

from lapwing.errors import ConfigError
from lapwing.run.bench_data import main, print_table


def test_a_small_run_prints_every_line(capsys):
    main(size=8, batch=4, steps=64, repeats=3)
    out = capsys.readouterr().out
    assert "64 steps of 3 cameras 8x8: 0 MB on disk" in out
    assert "batch of 4 observations and next observations: 0.00 MB" in out
    for line in (
        "copy, from the map  ",
        "copy, in the cache  ",
        "images  ",
        "whole batch  ",
        "whole batch, channels first",
    ):
        assert line in out


def test_speeds_are_shares_of_the_two_copies(capsys):
    print_table({"copy, from the map": 2e-3, "copy, in the cache": 1e-3, "images": 4e-3}, 8_000_000)
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.split() == ["images", "4.00", "2.0", "0.50", "0.25"]


def test_numbers_that_make_no_sense_are_refused():
    with pytest.raises(ConfigError, match="bench: size 8, batch 64, steps 100, repeats 3; expected at least 1"):
        main(size=8, steps=100, repeats=3)
