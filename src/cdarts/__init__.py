"""Cyclic Differentiable Architecture Search: search a network for your images, train it, use it.

From Python: `search`, `retrain`, `load`, `create_model`, described in `cdarts.api`. They are imported when they are
first used, since they need torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cdarts.api import Run, create_model, load, retrain, search

__version__ = "0.1.0"

__all__ = ["Run", "__version__", "create_model", "load", "retrain", "search"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(importlib.import_module("cdarts.api"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
