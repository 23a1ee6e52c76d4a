"""`lapwing hybrid`: its flags, what it keeps when it is resumed, and one line for whatever a user can mend."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command_line import Lapwing, Said, error_line

from lapwing import envs
from lapwing.agents.sac import SacConfig
from lapwing.errors import WorldError
from lapwing.run.checkpoint import linked_step
from lapwing.run.episode_log import in_words, read_episodes
from lapwing.run.online import OnlineOptions, read_counts
from lapwing.run.window import Window

WORLD = "toy-single-learned-state"
SMALL = f"""--world {WORLD} --steps 4 --log-every 2 --eval-every 2 --training-starts 120 --random-steps 20 --actors 0
    --hidden 8 --batch-size 8 --threads 1 --device cpu --precision fp32"""


@pytest.fixture
def hybrid(lapwing: Lapwing, tmp_path: Path) -> Callable[..., Said]:
    """hybrid("--resume", steps=6, world=...): a small run into tmp_path / "run"."""
    demos = tmp_path / "demos"
    assert lapwing("data sample", demos, world=WORLD, episodes=4, quality="expert").code == 0

    def run(*words: str, **flags: Any) -> Said:
        small = [] if "--resume" in words else SMALL.split()
        return lapwing("hybrid", demos, "--out", tmp_path / "run", *small, *words, **flags)

    return run


def test_it_learns_with_somebody_who_takes_over(hybrid: Callable[..., Said], tmp_path: Path) -> None:
    said = hybrid(intervene="scripted", budget=25)
    run = tmp_path / "run"
    ended = in_words(read_episodes(run / "episodes.jsonl"))
    assert re.fullmatch(r"[12] episodes? in \d+ steps, \d of the last \d succeeded, \d+ steps were taken over", ended)
    tried = f"{ended}, all that --budget allows"
    assert (said.code, said.out) == (0, f"{run}: trained to step 4; {tried}; see {run}/report.html\n")
    counts = read_counts(run / "buffers")
    assert (counts.env_steps, counts.intervened) == (120 + 3, 25)
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "Success while learning" in page
    assert f"While it learned in the world {WORLD}: {ended}." in page
    assert "Not yet seen in a world" not in page
    settings = json.loads((run / "config.json").read_text())
    assert settings["config"]["imitation"] == SacConfig().imitation > 0
    assert settings["world"]["budget"] == 25


def test_a_resumed_run_keeps_its_settings_and_its_budget(hybrid: Callable[..., Said], tmp_path: Path) -> None:
    hybrid(intervene="scripted", budget=25)
    assert hybrid("--resume", steps=30).code == 0
    assert linked_step(tmp_path / "run", "last") == 30
    counts = read_counts(tmp_path / "run" / "buffers")
    assert (counts.env_steps, counts.intervened) == (120 + 29, 25)
    said = hybrid("--resume", budget=26)
    assert "cannot resume with world.budget 26, the run has 25" in error_line(said)
    assert "cannot resume with online.actors 2, the run has 0" in error_line(hybrid("--resume", actors=2))


@pytest.mark.parametrize(
    ("part", "value", "message"),
    [
        ("online", {}, "config.json: 'online' or 'world' is damaged, or of another version ('disk')"),
        ("world", {"name": WORLD}, "missing 1 required positional argument: 'world'"),
        ("world", {"world": WORLD, "reward": 7}, "is damaged, or of another version"),
    ],
)
def test_settings_of_a_run_that_are_damaged_are_one_line(
    hybrid: Callable[..., Said], tmp_path: Path, part: str, value: dict[str, Any], message: str
) -> None:
    settings = tmp_path / "run" / "config.json"
    settings.parent.mkdir()
    whole = {"online": OnlineOptions().to_dict(), "world": {"world": WORLD}}
    settings.write_text(json.dumps({**whole, part: value}))
    assert message in error_line(hybrid("--resume", steps=6))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"world": "toy"}, "world 'toy': its cameras are ('left', 'right', 'global'), the demonstrations' ()"),
        ({"budget": -1}, "budget is -1, expected 0 or more"),
        ({"takeover_steps": 0}, "takeover_steps is 0, expected at least 1"),
        ({"takeover_after": 0}, "takeover_after is 0, expected at least 1"),
        ({"capacity": 5}, "capacity is 5, expected at least the"),
        ({"actors": -2}, "actors is -2, expected 0 or more"),
    ],
)
def test_what_does_not_fit_is_one_line(
    hybrid: Callable[..., Said], tmp_path: Path, flags: dict[str, Any], message: str
) -> None:
    assert message in error_line(hybrid(**flags))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("flags", "got"), [({"actors": 2}, "actors 2"), ({"actors": 1, "ray": "local"}, "ray local")])
def test_a_person_watches_one_world(hybrid: Callable[..., Said], flags: dict[str, Any], got: str) -> None:
    message = error_line(hybrid(intervene="keyboard", **flags))
    assert message.startswith("intervene: one person watches one world on this machine, got actors")
    assert got in message


@pytest.mark.skipif(sys.platform != "linux", reason="other systems always have a screen")
def test_a_person_needs_a_screen(hybrid: Callable[..., Said], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pygame")
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER"):
        monkeypatch.delenv(name, raising=False)
    assert "keyboard and gamepad need a screen" in error_line(hybrid(intervene="keyboard"))
    assert not (tmp_path / "run").exists()


def test_a_person_takes_over_and_ends_the_run(
    hybrid: Callable[..., Said], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pygame = pytest.importorskip("pygame")
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    pressed = iter([(), (), (pygame.K_SPACE, pygame.K_RIGHT), (), (), (), (), (pygame.K_ESCAPE,)])
    listen = Window.listen

    def press_and_listen(window: Window) -> None:
        for key in next(pressed, ()):
            pygame.event.post(pygame.event.Event(pygame.KEYDOWN, key=key))
        listen(window)

    monkeypatch.setattr(Window, "listen", press_and_listen)
    said = hybrid(intervene="keyboard", random_steps=0)
    assert said.code == 130
    assert said.err.splitlines()[-1].endswith("saved step 0; go on with --resume")
    counts = read_counts(tmp_path / "run" / "buffers")
    assert (counts.env_steps, counts.intervened) == (7, 5)


def test_a_world_that_cannot_start_is_one_line(hybrid: Callable[..., Said], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> Any:
        raise WorldError("toy: no graphics here; install some")

    monkeypatch.setattr(envs, "make_world", fail)
    said = hybrid()
    assert said.code == 2
    assert said.err.splitlines()[-1] == "lapwing: error: toy: no graphics here; install some"


def test_without_ray_it_says_what_to_install(hybrid: Callable[..., Said], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    said = hybrid(actors=1, ray="local")
    assert said.code == 2
    last = said.err.splitlines()[-1]
    assert last.startswith("lapwing: error: ray: the package is missing")
    assert "pip install 'lapwing[ray]'" in last
