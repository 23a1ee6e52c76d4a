"""The documents keep up with the code: links lead somewhere, and what is logged is explained."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from lapwing.agent import RewardFacts
from lapwing.agents.bc import BcAgent, BcConfig
from lapwing.agents.lapo import LapoAgent, LapoConfig
from lapwing.batch import Batch, Obs
from lapwing.data.formats import read_recording
from lapwing.spec import RobotSpec, unnamed_axes

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
    dead = [target for target in targets if "://" not in target and not _exists(page, target)]
    assert not dead


def _exists(page: Path, target: str) -> bool:
    path, _, anchor = target.partition("#")
    linked = (page.parent / path).resolve() if path else page
    return linked.exists() and (not anchor or anchor in _anchors(linked))


def _anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_pages_that_the_code_cites_exist() -> None:
    cited = {
        match
        for path in (ROOT / "src").rglob("*.py")
        for match in re.findall(r"docs/[\w/.-]*\w", path.read_text(encoding="utf-8"))
    }
    assert cited
    assert [page for page in sorted(cited) if not list(ROOT.glob(f"{page}*"))] == []


def test_decisions_are_numbered_without_gaps() -> None:
    numbers = [int(path.name[:4]) for path in sorted((ROOT / "docs" / "decisions").glob("*.md"))]
    assert numbers == list(range(1, len(numbers) + 1))


def test_the_example_that_writes_a_recording_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (ROOT / "docs" / "data-formats.md").read_text(encoding="utf-8")
    example = next(code for code in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "FlatWriter(" in code)
    monkeypatch.chdir(tmp_path)
    exec(example, {})
    (episode,) = read_recording("robot.hdf5").episodes
    assert (episode.num_steps, episode.action.shape, sorted(episode.images)) == (
        100,
        (100, 14),
        ["global", "left", "right"],
    )


@pytest.fixture
def state_batch() -> Batch:
    obs = Obs({}, torch.zeros(3, 4))
    zeros = torch.zeros(3)
    return Batch(obs, torch.zeros(3, 1, 2), torch.zeros(3, 1, dtype=torch.bool), zeros, zeros, zeros, obs)


@pytest.mark.parametrize(
    ("agent", "config", "page"), [(LapoAgent, LapoConfig(), "lapo.md"), (BcAgent, BcConfig(), "bc.md")]
)
def test_every_logged_metric_is_explained(agent: type, config: object, page: str, state_batch: Batch) -> None:
    spec = RobotSpec("tiny", (), unnamed_axes("state", 4), unnamed_axes("action", 2))
    metrics = agent(config, spec, RewardFacts((0.0, 1.0), (0.0, 1.0))).update(state_batch)
    text = (ROOT / "docs" / "algorithms" / page).read_text(encoding="utf-8")
    assert [name for name in metrics if f"`{name}`" not in text] == []
