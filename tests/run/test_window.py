"""A window without a screen: what is pressed there, and what is said where none can be opened."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest

if find_spec("pygame") is None:
    pytest.skip("the extra [sim] is not installed", allow_module_level=True)

import pygame
from person_at_window import press

from lapwing.errors import ConfigError
from lapwing.run import window as module
from lapwing.run.keys import Device
from lapwing.run.window import Window, expect_window


@pytest.fixture(autouse=True)
def no_screen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")


@pytest.fixture
def ended() -> list[str]:
    return []


@pytest.fixture
def window(ended: list[str], request: pytest.FixtureRequest) -> Iterator[Window]:
    device: Device = getattr(request, "param", "keyboard")
    opened = Window(device, lambda: ended.append("end"))
    opened.show([], [])
    opened.listen()
    yield opened
    opened.close()


gamepad = pytest.mark.parametrize("window", ["gamepad"], indirect=True)


def post(kind: int, **facts: Any) -> None:
    pygame.event.post(pygame.event.Event(kind, **facts))


def test_a_key_counts_while_it_is_held(window: Window) -> None:
    press("+up")
    window.listen()
    window.listen()
    assert (window.amount("up"), window.amount("down")) == (1.0, 0.0)
    press("-up")
    window.listen()
    assert window.amount("up") == 0


def test_a_short_press_counts_once(window: Window) -> None:
    press("+w", "-w")
    window.listen()
    assert window.amount("w") == 1
    window.listen()
    assert window.amount("w") == 0


def test_space_takes_over_and_hands_back(window: Window) -> None:
    seen = []
    for words in (("+space",), ("-space",), ("+space", "-space"), ()):
        press(*words)
        window.listen()
        seen.append(window.taken_over)
    assert seen == [True, True, False, False]


def test_escape_and_closing_end_once(window: Window, ended: list[str]) -> None:
    press("+escape", "-escape", "+escape")
    post(pygame.QUIT)
    window.listen()
    assert ended == ["end"]


def test_pictures_keys_and_whose_turn_it_is_are_shown(window: Window) -> None:
    red, blue = np.zeros((2, 80, 80, 3), np.uint8)
    red[..., 0], blue[..., 2] = 255, 255
    window.show([red, blue], ["a line"])
    surface = pygame.display.get_surface()
    assert surface.get_at((10, 10))[:3] == (255, 0, 0)
    assert surface.get_at((630, 10))[:3] == (0, 0, 255)
    below = pygame.surfarray.array3d(surface)[:, 320:].copy()
    window.taken_over = True
    window.show([red, blue], ["a line"])
    assert (pygame.surfarray.array3d(surface)[:, 320:] != below).any()
    window.show([red, blue], ["a line", "and another"])
    assert pygame.display.get_surface().get_height() > surface.get_height() - 1 > 320


@gamepad
def test_a_stick_moves_by_how_far_it_is_pushed(window: Window) -> None:
    for value, left, right in ((32767, 0.0, 1.0), (-32768, 1.0, 0.0), (3000, 0.0, 0.0), (-18842, 0.5, 0.0)):
        post(pygame.CONTROLLERAXISMOTION, axis=pygame.CONTROLLER_AXIS_LEFTX, value=value)
        window.listen()
        found = (window.amount("left stick left"), window.amount("left stick right"))
        assert found == pytest.approx((left, right), abs=1e-4)


@gamepad
def test_buttons_count_while_held_and_a_shoulder_takes_over(window: Window) -> None:
    post(pygame.CONTROLLERBUTTONDOWN, button=pygame.CONTROLLER_BUTTON_A)
    post(pygame.CONTROLLERBUTTONDOWN, button=pygame.CONTROLLER_BUTTON_RIGHTSHOULDER)
    post(pygame.CONTROLLERBUTTONUP, button=pygame.CONTROLLER_BUTTON_RIGHTSHOULDER)
    post(pygame.CONTROLLERBUTTONDOWN, button=pygame.CONTROLLER_BUTTON_GUIDE)
    window.listen()
    assert (window.amount("a"), window.taken_over) == (1.0, True)
    post(pygame.CONTROLLERBUTTONUP, button=pygame.CONTROLLER_BUTTON_A)
    window.listen()
    assert (window.amount("a"), window.taken_over) == (0.0, True)
    press("+space")
    window.listen()
    assert not window.taken_over


@gamepad
def test_a_gamepad_that_is_pulled_out_lets_go(window: Window) -> None:
    post(pygame.CONTROLLERAXISMOTION, axis=pygame.CONTROLLER_AXIS_LEFTY, value=-32768)
    press("+space")
    window.listen()
    assert (window.amount("left stick up"), window.taken_over) == (1.0, True)
    post(pygame.CONTROLLERDEVICEREMOVED, instance_id=0)
    window.listen()
    window.listen()
    assert (window.amount("left stick up"), window.taken_over) == (0.0, False)


def test_a_process_with_a_window_still_ends_when_it_is_told_to() -> None:
    code = (
        "import os, signal\nfrom lapwing.run.window import Window\n"
        "w = Window('keyboard', print); w.show([], [])\nos.kill(os.getpid(), signal.SIGTERM)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (-15, b"")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems always have a screen")
def test_no_screen_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigError, match="need a screen for a window, and DISPLAY is not set; run where there is one"):
        expect_window("keyboard")


def test_a_screen_that_does_not_answer_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", "no such driver")
    with pytest.raises(ConfigError, match=r"need a screen for a window \(.*\); run where there is one"):
        expect_window("keyboard")


def test_no_gamepad_is_one_line() -> None:
    expect_window("keyboard")
    with pytest.raises(ConfigError, match="no gamepad is plugged in; plug one in, or set --intervene keyboard"):
        expect_window("gamepad")


def test_without_pygame_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pygame", None)
    with pytest.raises(ConfigError, match=r"the package pygame is missing; `pip install -e '.\[sim\]'`"):
        module.expect_window("keyboard")
