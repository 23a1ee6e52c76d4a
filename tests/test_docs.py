"""The documents keep up with the code: links lead somewhere, flags exist, examples run, what is logged is explained."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

import pytest
import torch

from lapwing import cli
from lapwing.agent import RewardFacts
from lapwing.agents.act import ActAgent, ActConfig
from lapwing.agents.bc import BcAgent, BcConfig
from lapwing.agents.iql import PRESETS as IQL_PRESETS
from lapwing.agents.iql import IqlAgent, IqlConfig
from lapwing.agents.lapo import LapoAgent
from lapwing.agents.lapo_config import LapoConfig
from lapwing.agents.sac import PRESETS as SAC_PRESETS
from lapwing.agents.sac import SacAgent, SacConfig
from lapwing.agents.td3bc import PRESETS as TD3BC_PRESETS
from lapwing.agents.td3bc import Td3BcAgent, Td3BcConfig
from lapwing.batch import Batch, Obs
from lapwing.data.formats import read_recording
from lapwing.nets.action_transformer import TransformerConfig
from lapwing.spec import Axis, RobotSpec, unnamed_axes

ROOT = Path(__file__).parents[1]
TINY = TransformerConfig(16, 2, 16, encoder_layers=1, decoder_layers=2)
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


@pytest.fixture
def flags_of(capsys: pytest.CaptureFixture[str]) -> Callable[[str], set[str]]:
    """flags_of("data check"): those that its --help names."""

    @cache
    def read(command: str) -> set[str]:
        with pytest.raises(SystemExit):
            cli.main([*command.split(), "--help"])
        return flags_in(capsys.readouterr().out)

    return read


def flags_in(text: str) -> set[str]:
    return set(re.findall(r"(?<!\S)--[a-z][\w-]*", text))


def command_lines(page: Path) -> list[tuple[str, set[str]]]:
    """(command, flags) of every `lapwing ...` on a page, in a block or in a sentence."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    words = [line.split() for line in re.findall(r"\blapwing ([a-z][^`\n#]*)", text)]
    named = [
        (name, line) for line in words for name in (" ".join(line[:1]), " ".join(line[:2])) if name in cli.COMMANDS
    ]
    return [(name, flags_in(" ".join(line))) for name, line in named]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_on_a_page_have_the_flags_it_gives_them(page: Path, flags_of: Callable[[str], set[str]]) -> None:
    lines = command_lines(page)
    unknown = [(command, flags - flags_of(command)) for command, flags in lines if flags - flags_of(command)]
    assert unknown == []


def test_flags_are_found_in_blocks_and_sentences() -> None:
    found = command_lines(ROOT / "README.md")
    assert ("record", {"--world", "--expert", "--episodes", "--out"}) in found
    assert ("train lapo", {"--out", "--steps"}) in found  # in a table


def test_the_readmes_give_the_same_commands_and_links() -> None:
    english, chinese = ((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "README.zh-CN.md"))
    blocks = [re.findall(r"```\w+\n(.*?)```", text, re.DOTALL) for text in (english, chinese)]
    said, said_too = ([re.sub(r"\s*#.*", "", block) for block in one] for one in blocks)
    assert said == said_too
    links = [set(re.findall(r"\]\(([^)\s]+)\)", text)) for text in (english, chinese)]
    assert links[0] ^ links[1] == {"README.md", "README.zh-CN.md"}


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


def test_the_example_that_records_does(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "recording.md").read_text(encoding="utf-8")
    [example] = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    (tmp_path / "example.py").write_text(example)
    subprocess.run([sys.executable, "example.py"], cwd=tmp_path, capture_output=True, check=True, timeout=120)
    recording = read_recording(tmp_path / "eps")
    assert [episode.meta["seed"] for episode in recording.episodes] == list(range(10))
    assert recording.spec.rate_hz == 0


@pytest.fixture
def state_batch() -> Batch:
    obs = Obs({}, torch.zeros(3, 4))
    zeros = torch.zeros(3)
    return Batch(obs, torch.zeros(3, 1, 2), torch.zeros(3, 1, dtype=torch.bool), zeros, zeros, zeros, obs)


@pytest.mark.parametrize(
    ("agent", "config", "page"),
    [
        (LapoAgent, LapoConfig(), "lapo.md"),
        (ActAgent, ActConfig(chunk=1, transformer=TINY), "act.md"),
        (ActAgent, ActConfig(chunk=1, transformer=TINY, latent="vq"), "act.md"),
        (BcAgent, BcConfig(), "bc.md"),
        (SacAgent, SacConfig(conservative=1.0), "sac.md"),
        (IqlAgent, IqlConfig(), "iql.md"),
        (Td3BcAgent, Td3BcConfig(), "td3bc.md"),
    ],
)
def test_every_logged_metric_is_explained(agent: type, config: object, page: str, state_batch: Batch) -> None:
    gripper = Axis("gripper", kind="gripper")
    spec = RobotSpec("tiny", (), unnamed_axes("state", 4), (*unnamed_axes("action", 1), gripper))
    metrics = agent(config, spec, RewardFacts((0.0, 1.0), (0.0, 1.0))).update(state_batch)
    text = (ROOT / "docs" / "algorithms" / page).read_text(encoding="utf-8")
    assert [name for name in metrics if f"`{name}`" not in text] == []


def test_the_table_of_presets_of_sac_is_right() -> None:
    text = (ROOT / "docs" / "algorithms" / "sac.md").read_text(encoding="utf-8")
    rows = re.findall(
        r"^\| .* \| (.*) \| (.*) \| (.*) \| `(discount|lr|tau|cta_ratio|temperature)` \|$", text, re.MULTILINE
    )
    assert len(rows) == 5
    for *said, field in rows:
        told = [getattr(SAC_PRESETS[name], field) for name in ("hilserl", "serl-notes", "product")]
        assert [float(one) for one in said] == told


@pytest.mark.parametrize(("page", "presets"), [("iql.md", IQL_PRESETS), ("td3bc.md", TD3BC_PRESETS)])
def test_the_tables_of_presets_of_offline_rl_are_right(page: str, presets: Mapping[str, object]) -> None:
    text = (ROOT / "docs" / "algorithms" / page).read_text(encoding="utf-8")
    rows = re.findall(r"^\| .* \| ([\d.e-]+) \| ([\d.e-]+)(?: \(none\))? \| `(\w+)` \|$", text, re.MULTILINE)
    assert len(rows) >= 6
    for *said, field in rows:
        told = [getattr(presets[name], field) for name in ("original", "product")]
        assert [float(one) for one in said] == told


def test_every_column_of_the_world_is_explained() -> None:
    files = (ROOT / "src" / "lapwing" / "run").glob("*.py")
    columns = {name for file in files for name in re.findall(r'"(online/\w+)"', file.read_text(encoding="utf-8"))}
    text = (ROOT / "docs" / "algorithms" / "sac.md").read_text(encoding="utf-8")
    assert columns
    assert [name for name in sorted(columns) if f"`{name}`" not in text] == []
