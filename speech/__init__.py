"""The runtime every task shares: audio, features, streaming modules, state, sessions, batching, protocol, server, client."""

from loquent.speech.engine import Engine, EngineFull
from loquent.speech.session import Session, SessionClosed

__all__ = ["Engine", "EngineFull", "Session", "SessionClosed"]
