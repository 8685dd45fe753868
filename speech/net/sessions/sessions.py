"""The sessions of a server: those under way, and those that wait for their clients."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from loquent.speech.net.limits import Limits
from loquent.speech.net.sessions.folder import Moved, SessionFolder
from loquent.speech.net.sessions.record import Record

log = logging.getLogger(__name__)

_TOKEN_BYTES = 32


Captured = Callable[[], Record]  # a session as it was, for a thread to make the record of


class Holder(Protocol):
    """The connection that a session is under way on."""

    async def give_up(self) -> None:
        """Close, and let the session wait for its client; returns once it does."""


@dataclass(frozen=True)
class Claim:
    """The right to go on with a session: the digest of its token, and how often it was taken over."""

    digest: str
    generation: int


class Sessions:
    """Keeps what streams need to go on without the connection, or the process, that they were on.

    In memory a session waits after its connection was lost. With a folder it is also written there while it is under
    way, and waits there alone. Both are bounded in time, number and bytes.

    Args:
        folder: None keeps sessions in memory.

    Raises:
        OSError: the folder cannot be made or written.
    """

    def __init__(self, limits: Limits, folder: Path | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self.limits, self.clock = limits, clock
        bounds = (limits.session_keep_s, limits.max_kept_sessions, limits.max_kept_bytes)
        self.folder = None if folder is None else SessionFolder(folder, *bounds)
        self._live: dict[Claim, Holder] = {}
        self._waiting: dict[str, tuple[Claim, Record, float]] = {}  # the oldest first

    @property
    def waiting(self) -> int:
        """Sessions that wait in memory for their clients."""
        return len(self._waiting)

    def open(self, key: str, holder: Holder) -> tuple[str, Claim]:
        """A new session of a key: its token, which cannot be guessed, and the right to it."""
        token = secrets.token_urlsafe(_TOKEN_BYTES)
        claim = Claim(_digest(token, key), 0)
        self._live[claim] = holder
        return token, claim

    async def resume(self, token: str, key: str, holder: Holder) -> tuple[Record, Claim] | None:
        """Take a session over from whoever has it; None if there is none of this token and key, and nothing changes.

        Raises:
            ValueError: what was kept cannot be read.
        """
        digest = _digest(token, key)
        for claim, other in list(self._live.items()):
            if hmac.compare_digest(claim.digest, digest):
                await other.give_up()
        found = await self._found(digest)
        if found is None:
            return None
        self._live[found[1]] = holder
        return found

    async def save(self, claim: Claim, captured: Captured, first: bool = False) -> None:
        """Write a session that is under way to the folder, if there is one.

        Raises:
            Moved: another process goes on with it.
            OSError: it could not be written.
        """
        if self.folder is not None:
            folder = self.folder
            await asyncio.to_thread(lambda: folder.write(claim.digest, claim.generation, captured().to_bytes(), first))

    async def wait(self, claim: Claim, captured: Captured) -> None:
        """Keep a session until its client comes back, or for as long as the limits say."""
        try:
            if self.folder is not None:
                await self.save(claim, captured)
            else:
                record = await asyncio.to_thread(captured)
                self._waiting[claim.digest] = (claim, record, self.clock())
                self._forget_oldest()
        except Moved:
            pass  # somebody else has it
        except OSError as error:
            log.error("a session could not be kept: %s", error)
        finally:
            self._live.pop(claim, None)

    async def drop(self, claim: Claim) -> None:
        """Forget a session: nobody can go on with it."""
        self._live.pop(claim, None)
        if self.folder is not None:
            await asyncio.to_thread(self.folder.remove, claim.digest, claim.generation)

    async def sweep(self) -> None:
        """Forget what has waited for too long; to be called now and then."""
        self._forget_oldest()
        if self.folder is not None:
            live = [(claim.digest, claim.generation) for claim in self._live]
            await asyncio.to_thread(self.folder.sweep, live)

    async def _found(self, digest: str) -> tuple[Record, Claim] | None:
        self._forget_oldest()
        if self.folder is None:
            entry = self._waiting.pop(digest, None)
            return None if entry is None else (entry[1], Claim(digest, entry[0].generation + 1))
        taken = await asyncio.to_thread(self.folder.claim, digest)
        if taken is None:
            return None
        data, generation = taken
        return await asyncio.to_thread(Record.from_bytes, data), Claim(digest, generation)

    def _forget_oldest(self) -> None:
        limits, oldest = self.limits, self.clock() - self.limits.session_keep_s
        total = sum(record.nbytes for _, record, _ in self._waiting.values())
        for digest, (_, record, since) in list(self._waiting.items()):
            if since < oldest or len(self._waiting) > limits.max_kept_sessions or total > limits.max_kept_bytes:
                del self._waiting[digest]
                total -= record.nbytes


def _digest(token: str, key: str) -> str:
    """What a session is found by: without the token nobody can tell it, and with another key it is another one."""
    return hashlib.sha256(f"{key}\0{token}".encode()).hexdigest()
