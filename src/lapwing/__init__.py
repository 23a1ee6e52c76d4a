"""Robot learning from recorded data of two-armed robots.

policy = lapwing.load_policy("RUN"); policy.reset(); action = policy({"images": {...}, "state": ...})
"""

from __future__ import annotations

from importlib import metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lapwing.run.policy import Policy, load_policy

    __version__: str

__all__ = ["Policy", "__version__", "load_policy"]


def __getattr__(name: str) -> Any:
    """Import PyTorch only when a policy is asked for."""
    if name == "__version__":
        return metadata.version("lapwing")
    if name in ("Policy", "load_policy"):
        from lapwing.run import policy

        return getattr(policy, name)
    raise AttributeError(f"module 'lapwing' has no attribute {name!r}")
