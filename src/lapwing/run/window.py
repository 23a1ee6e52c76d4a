"""A window that shows what a robot's cameras see, and hears the keyboard or a gamepad. pygame comes with [sim]."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from lapwing.episode import Array
from lapwing.errors import ConfigError
from lapwing.run.keys import Device

TAKE_OVER = {"keyboard": "space", "gamepad": "a shoulder button, or space"}
_DEAD = 0.15  # share of a stick's way that is no motion
_HEIGHT, _NARROWEST, _LINE, _MARGIN = 320, 560, 22, 10  # pixels
_BACK, _POLICY, _PERSON = (24, 26, 30), (200, 204, 210), (255, 190, 60)
_STICKS = {
    "LEFTX": ("left stick left", "left stick right"),
    "LEFTY": ("left stick up", "left stick down"),
    "RIGHTX": ("right stick left", "right stick right"),
    "RIGHTY": ("right stick up", "right stick down"),
}
_BUTTONS = {
    "A": "a", "B": "b", "X": "x", "Y": "y",
    "DPAD_LEFT": "pad left", "DPAD_RIGHT": "pad right", "DPAD_UP": "pad up", "DPAD_DOWN": "pad down",
    "LEFTSHOULDER": "shoulder", "RIGHTSHOULDER": "shoulder",
}  # fmt: skip


def expect_window(device: Device) -> None:
    """Raise ConfigError unless a window can be opened here, and a gamepad is plugged in where one is asked for."""
    pygame = _load_pygame()
    _open_display(pygame)
    pygame.display.quit()
    if device == "gamepad":
        controller = _controllers()
        if not any(controller.is_controller(number) for number in range(controller.get_count())):
            raise ConfigError("intervene: no gamepad is plugged in; plug one in, or set --intervene keyboard")
        controller.quit()


class Window:
    """What a person sees and presses. device: what is listened to; end: called once when the person wants to stop.

    `taken_over` says whether the person acts. All presses since the `listen` before count as held, short ones too.
    """

    def __init__(self, device: Device, end: Callable[[], None]) -> None:
        self._pygame = _load_pygame()
        self._device, self._end = device, end
        self._held, self._tapped = dict[str, float](), dict[str, float]()
        self._ended = False
        self.taken_over = False
        _open_display(self._pygame)
        self._pygame.font.init()
        self._font = self._pygame.font.Font(None, _LINE)
        self._pygame.display.set_caption("lapwing hybrid")
        self._gamepads: list[Any] = []
        if device == "gamepad":
            self._sticks = _named(self._pygame, "CONTROLLER_AXIS_", _STICKS)
            self._buttons = _named(self._pygame, "CONTROLLER_BUTTON_", _BUTTONS)
            self._open_gamepads()

    def amount(self, name: str) -> float:
        """How far a key or a part of the gamepad is pressed, 0 to 1."""
        return max(self._held.get(name, 0.0), self._tapped.get(name, 0.0))

    def listen(self) -> None:
        """Take in what was pressed and released since the last time."""
        self._tapped.clear()
        for event in self._pygame.event.get():
            self._hear(event)

    def show(self, pictures: Sequence[Array], lines: Sequence[str]) -> None:
        """Draw pictures, uint8 [H, W, 3] each, side by side, and below them whose turn it is and `lines`."""
        pygame = self._pygame
        drawn = [_scaled(pygame, picture) for picture in pictures]
        width = max(_NARROWEST, sum(one.get_width() for one in drawn))
        top = _HEIGHT if drawn else 0
        size = (width, top + 2 * _MARGIN + _LINE * (len(lines) + 2))
        surface = pygame.display.get_surface()
        if surface is None or surface.get_size() != size:
            surface = pygame.display.set_mode(size)
        surface.fill(_BACK)
        left = 0
        for one in drawn:
            surface.blit(one, (left, 0))
            left += one.get_width()
        for row, (text, colour) in enumerate([self._turn(), *((line, _POLICY) for line in lines)]):
            surface.blit(self._font.render(text, True, colour), (_MARGIN, top + _MARGIN + _LINE * row))
        ends = self._font.render("Esc ends the run and saves it", True, _POLICY)
        surface.blit(ends, (_MARGIN, size[1] - _MARGIN - _LINE))
        pygame.display.flip()

    def close(self) -> None:
        for gamepad in self._gamepads:
            gamepad.quit()
        self._gamepads = []
        self._pygame.display.quit()

    def _turn(self) -> tuple[str, tuple[int, int, int]]:
        key = TAKE_OVER[self._device]
        if self.taken_over:
            return f"You act. {key} hands back.", _PERSON
        return f"The policy acts. {key} takes over.", _POLICY

    def _hear(self, event: Any) -> None:
        pygame = self._pygame
        if event.type == pygame.QUIT or (event.type == pygame.KEYDOWN and event.key == pygame.K_ESCAPE):
            if not self._ended:  # a second Ctrl-C would stop without saving
                self._ended = True
                self._end()
        elif event.type == pygame.KEYDOWN:
            self._press(pygame.key.name(event.key), "space")
        elif event.type == pygame.KEYUP:
            self._held.pop(pygame.key.name(event.key), None)
        elif self._device == "gamepad":
            self._hear_gamepad(event)

    def _hear_gamepad(self, event: Any) -> None:
        pygame = self._pygame
        if event.type == pygame.CONTROLLERAXISMOTION and event.axis in self._sticks:
            low, high = self._sticks[event.axis]
            share = max(-1.0, event.value / 32767)
            past = max(0.0, abs(share) - _DEAD) / (1 - _DEAD)
            self._held[low], self._held[high] = (past, 0.0) if share < 0 else (0.0, past)
        elif event.type == pygame.CONTROLLERBUTTONDOWN and event.button in self._buttons:
            self._press(self._buttons[event.button], "shoulder")
        elif event.type == pygame.CONTROLLERBUTTONUP and event.button in self._buttons:
            self._held.pop(self._buttons[event.button], None)
        elif event.type == pygame.CONTROLLERDEVICEREMOVED:
            self._held.clear()
            self.taken_over = False
        elif event.type == pygame.CONTROLLERDEVICEADDED:
            self._open_gamepads()

    def _press(self, name: str, toggle: str) -> None:
        self._held[name] = self._tapped[name] = 1.0
        if name == toggle:
            self.taken_over = not self.taken_over

    def _open_gamepads(self) -> None:
        controller = _controllers()
        numbers = [number for number in range(controller.get_count()) if controller.is_controller(number)]
        self._gamepads = [controller.Controller(number) for number in numbers]  # it is heard as long as it is kept


def _load_pygame() -> Any:
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    os.environ.setdefault("SDL_NO_SIGNAL_HANDLERS", "1")  # or SIGTERM would not end an actor
    try:
        return importlib.import_module("pygame")
    except ModuleNotFoundError as error:
        raise ConfigError(
            "intervene: the package pygame is missing; `pip install -e '.[sim]'` in the clone, or set --intervene none"
        ) from error


def _open_display(pygame: Any) -> None:
    """Raises ConfigError. SDL would open a window that nobody sees, where it finds no screen."""
    wanted = "intervene: keyboard and gamepad need a screen for a window"
    shown = any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER"))
    if sys.platform == "linux" and not shown:
        raise ConfigError(f"{wanted}, and DISPLAY is not set; run where there is one, or set --intervene scripted")
    try:
        pygame.display.init()
    except pygame.error as error:
        raise ConfigError(f"{wanted} ({error}); run where there is one, or set --intervene scripted") from error


def _controllers() -> Any:
    """SDL's controllers: their sticks and buttons have the same names whoever made them."""
    controller = importlib.import_module("pygame._sdl2.controller")
    controller.init()
    return controller


def _named(pygame: Any, prefix: str, names: dict[str, Any]) -> dict[int, Any]:
    return {int(getattr(pygame, prefix + name)): meaning for name, meaning in names.items()}


def _scaled(pygame: Any, picture: Array) -> Any:
    height, width = picture.shape[:2]
    surface = pygame.image.frombuffer(picture.tobytes(), (width, height), "RGB")
    return pygame.transform.scale(surface, (width * _HEIGHT // height, _HEIGHT))
