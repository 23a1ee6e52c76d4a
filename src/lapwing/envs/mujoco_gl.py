"""MuJoCo, imported so that it can draw without a display."""

from __future__ import annotations

import atexit
import ctypes
import importlib
import os
import sys
from contextlib import suppress
from typing import Any

from lapwing.errors import WorldError

__all__ = ["close_renderer", "mujoco", "open_renderer"]

_PACKAGES = "`apt-get install libegl1 libopengl0 libgl1-mesa-dri` (or `libosmesa6`, and set MUJOCO_GL=osmesa)"

_NONE = "disable"  # MuJoCo's word for: do not draw
_LIBRARIES = {"egl": ("libEGL.so.1",), "osmesa": ("libOSMesa.so.8", "libOSMesa.so.6")}


def _loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def _choose_backend() -> None:
    """Set MUJOCO_GL where the user has not: EGL where there is one, else OSMesa, else none for worlds not drawn."""
    if os.environ.get("MUJOCO_GL") or sys.platform != "linux":
        return
    here = (backend for backend, libraries in _LIBRARIES.items() if any(_loads(library) for library in libraries))
    os.environ["MUJOCO_GL"] = next(here, _NONE)


def _import_mujoco() -> Any:
    _choose_backend()
    try:
        import mujoco
    except ModuleNotFoundError as error:
        if error.name != "mujoco":
            raise
        raise WorldError(
            "mujoco: the package mujoco is not installed; `pip install -e '.[sim]'` in the clone"
        ) from error
    except Exception as error:  # a missing library shows as whatever PyOpenGL trips over
        backend = os.environ.get("MUJOCO_GL")
        raise WorldError(
            f"mujoco: MuJoCo does not start with MUJOCO_GL={backend} ({error}); install a driver: {_PACKAGES}"
        ) from error
    return mujoco


mujoco = _import_mujoco()


def open_renderer(model: Any, size: int) -> Any:
    """A renderer of `size` x `size` pixels, closed at exit if not before. Raises WorldError."""
    if os.environ.get("MUJOCO_GL") == _NONE:
        raise WorldError(f"mujoco: neither EGL nor OSMesa is here to draw with; install a driver: {_PACKAGES}")
    _load_triton()
    try:
        # A context that does not open misses this attribute, and complains of that too, when it is collected.
        mujoco.GLContext._context = None
        renderer = mujoco.Renderer(model, size, size)
    except Exception as error:  # a missing driver shows as whatever the library raises
        raise WorldError(
            f"mujoco: MuJoCo cannot draw here ({error}); install a driver: {_PACKAGES}; "
            "a script that imports mujoco before lapwing sets MUJOCO_GL itself"
        ) from error
    atexit.register(renderer.close)  # left to the garbage collector, it outlives the library it needs
    return renderer


def _load_triton() -> None:
    """Import triton, where PyTorch has brought it, before a driver is loaded.

    Mesa's software driver and triton each carry an LLVM. With Mesa's in the process, loading triton's crashes it, and
    `import torchvision` does load it; the other way round both work. triton alone takes 0.1 s, all of torch 2 s.
    """
    with suppress(ImportError):
        importlib.import_module("triton")


def close_renderer(renderer: Any) -> None:
    """Free a renderer; a second time does nothing."""
    atexit.unregister(renderer.close)
    renderer.close()
