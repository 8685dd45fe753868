"""What one connection may do, by the key that its client presents."""

from __future__ import annotations

import contextlib

from loquent.speech.net.dialect import MessageRefused
from loquent.speech.net.operation.keys import Key, Keys


class Permit:
    """Of one connection, until it is closed.

    Args:
        key: of the Authorization header, if it has been checked.
        draining: whether the server is on its way down.
    """

    def __init__(self, keys: Keys, key: Key | None, draining: bool) -> None:
        self._keys, self._key, self._draining = keys, key, draining
        self._using: contextlib.ExitStack | None = None

    @property
    def key(self) -> Key:
        """Whose connection it is."""
        assert self._key is not None, "found by `present`"
        return self._key

    def present(self, token: str | None) -> None:
        """Find the client's key.

        Args:
            token: as the client shows it in a message; None: as in the header.

        Raises:
            MessageRefused: it has none, or the server is on its way down.
        """
        if token is not None or self._key is None:
            self._key = self._keys.find(token or "")
        if self._key is None:
            why = "the token is missing or wrong; send it in 'start' or as Bearer token"
            raise MessageRefused(why, "unauthorized")
        if self._draining:
            raise MessageRefused("the server is shutting down; try another one, or later", "shutting_down")

    def take_place(self, streams: int = 1) -> None:
        """Count a connection and streams of the key, until `close`; once, however many streams follow each other.

        Raises:
            KeyLimited: the key has as many as it may.
        """
        if self._using is not None:
            return
        with contextlib.ExitStack() as using:
            using.enter_context(self._keys.use(self.key, "connections"))
            using.enter_context(self._keys.use(self.key, "streams", streams))
            self._using = using.pop_all()

    def close(self) -> None:
        """The connection is over."""
        if self._using is not None:
            self._using.close()
