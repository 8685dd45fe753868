"""The runtime every task shares: audio, features, state, sessions, batching, protocol, server, client, command line."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from loquent.speech.runtime.engine import Engine, EngineFull
    from loquent.speech.runtime.pipeline import Pipeline
    from loquent.speech.runtime.session import Session
    from loquent.speech.runtime.stream import Stream, StreamClosed

__all__ = ["Engine", "EngineFull", "Pipeline", "Session", "Stream", "StreamClosed"]

# Fetched on first use: they need torch, which takes seconds to import, and the command line's help does not.
_HOMES = {
    "Engine": "engine",
    "EngineFull": "engine",
    "Pipeline": "pipeline",
    "Session": "session",
    "Stream": "stream",
    "StreamClosed": "stream",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.runtime.{_HOMES[name]}"), name)
