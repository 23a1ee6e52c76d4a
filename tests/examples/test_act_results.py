"""The script that makes the table of ACT: what it asks of each command, and the table."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "act_results.py"
OWN = "--world toy --quality human --demonstrations 7 --failures drop --size 32 --steps 6 --checkpoints 2 --seeds 4"
MORE = "--episodes 9 --evaluation-seed 5 --data-seed 3 --bc-chunk 8 -- --chunk 16 --bc --lr 0.1"


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """The command lines of a run of the script that goes on with its first learner, with answers made up."""
    found: list[str] = []
    success = {"rate": 0.5, "interval": [0.25, 0.75]}

    def answer(*words: object) -> str:
        found.append(" ".join(map(str, words)).replace(f"{tmp_path}/", ""))
        if words[0] == "train":
            Path(str(words[words.index("--out") + 1])).mkdir(exist_ok=True)
        return json.dumps({"modes": {"open": {"rates": {"success": success}}}})

    main = runpy.run_path(str(SCRIPT))["main"]
    monkeypatch.setitem(main.__globals__, "_lapwing", answer)
    monkeypatch.setattr(sys, "argv", ["act_results.py", "--out", str(tmp_path / "out"), *OWN.split(), *MORE.split()])
    (tmp_path / "out" / "act-last-layer-4").mkdir(parents=True)
    main()
    return found


def test_every_flag_is_handed_on(asked: list[str], tmp_path: Path) -> None:
    assert asked[0] == (
        "record --world toy --expert scripted --quality human --out out/demonstrations --episodes 7 --failures drop "
        "--size 32 --seed 3"
    )
    assert asked[1] == (
        "train act out/demonstrations --out out/act-last-layer-4 --steps 6 --seed 4 --save-every 3 --chunk 16 "
        "--decoder-output last --resume"
    )
    trained = [line for line in asked if line.startswith("train bc")]
    assert [line.split("--save-every 3 ")[1] for line in trained] == ["--lr 0.1", "--lr 0.1 --chunk 8"]
    evaluated = [line for line in asked if line.startswith("eval out/act-last-layer-4")]
    assert [line.split("--checkpoint ")[1] for line in evaluated] == ["3 --ensemble --json", "6 --ensemble --json"]
    assert evaluated[0].startswith("eval out/act-last-layer-4 --world toy --episodes 9 --seed 5 ")
    rows = (tmp_path / "out" / "table.md").read_text().splitlines()
    assert rows[2] == "| ACT, last layer | 4 | 3 | 50.0% [25%, 75%] |"
    assert len(rows) == 2 + 4 * 2
