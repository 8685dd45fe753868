"""The runtime every task shares: audio, features, state, sessions, batching, protocol, server, client, command line."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from loquent.speech.runtime.engine import Engine, EngineFull
    from loquent.speech.runtime.session import Session, SessionClosed

__all__ = ["Engine", "EngineFull", "Session", "SessionClosed"]

# Fetched on first use: they need torch, which takes seconds to import, and the command line's help does not.
_HOMES = {
    "Engine": "runtime.engine",
    "EngineFull": "runtime.engine",
    "Session": "runtime.session",
    "SessionClosed": "runtime.session",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
