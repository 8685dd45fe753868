"""Sessions on disk, which several processes may share: a stream goes on after a crash, or in another process."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import re
import time
from collections.abc import Collection, Iterator
from pathlib import Path

log = logging.getLogger(__name__)

_NAME = re.compile(r"([0-9a-f]{64})-(\d{1,9})\.session")


class Moved(Exception):
    """Somebody else goes on with the session."""


class SessionFolder:
    """Files named by the digest of the session's token and by how often the session was taken over.

    Whoever takes a session over renames its file, so that a process that had it before, and does not know, cannot write
    it any more. Files are replaced as a whole. A lock makes looking and renaming one thing. All methods may wait for
    the disk.

    Args:
        path: made for this user alone if it is not there.
        keep_s: seconds after its last write that a file is kept.
        most, most_bytes: of all files together; the oldest go first.

    Raises:
        OSError: it cannot be made or written.
    """

    def __init__(self, path: Path, keep_s: float, most: int, most_bytes: int) -> None:
        self.path, self.keep_s, self.most, self.most_bytes = path, keep_s, most, most_bytes
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.chmod(0o700)
        with self._locked():
            pass

    def write(self, digest: str, generation: int, data: bytes, first: bool) -> None:
        """Replace a session's file, or make its first one.

        Raises:
            Moved: there is none of this generation any more.
            OSError: the disk is full, for example; the file is what it was.
        """
        target = self._file(digest, generation)
        written = target.with_suffix(f".{os.getpid()}.tmp")
        try:
            with os.fdopen(os.open(written, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            with self._locked():
                if not first and not target.exists():
                    raise Moved(f"session {digest[:8]} goes on elsewhere")
                written.replace(target)
            self._sync()
        finally:
            written.unlink(missing_ok=True)

    def claim(self, digest: str) -> tuple[bytes, int] | None:
        """Take a session over: its bytes and its new generation, or None if there is none."""
        with self._locked():
            found = [file for file in self.path.glob(f"{digest}-*.session") if _NAME.fullmatch(file.name)]
            if not found or time.time() - found[0].stat().st_mtime > self.keep_s:
                return None
            generation = int(_NAME.fullmatch(found[0].name)[2]) + 1  # type: ignore[index]
            taken = found[0].rename(self._file(digest, generation))
        return taken.read_bytes(), generation

    def remove(self, digest: str, generation: int) -> None:
        """Forget a session, if nobody has taken it over."""
        self._file(digest, generation).unlink(missing_ok=True)

    def sweep(self, live: Collection[tuple[str, int]]) -> None:
        """Remove what is too old, or too much; those that are live here stay, and are as new as ever."""
        now = time.time()
        for digest, generation in live:
            with contextlib.suppress(FileNotFoundError):
                os.utime(self._file(digest, generation))
        names = {self._file(digest, generation).name for digest, generation in live}
        kept: list[tuple[float, int, Path]] = []
        for file in self.path.iterdir():
            with contextlib.suppress(FileNotFoundError):
                about = file.stat()
                if file.suffix in (".session", ".tmp") and now - about.st_mtime > self.keep_s:
                    file.unlink()
                elif file.suffix == ".session":
                    kept.append((about.st_mtime, about.st_size, file))
        kept.sort(reverse=True)
        total = 0
        for count, (_, size, file) in enumerate(kept, 1):
            total += size
            if (count > self.most or total > self.most_bytes) and file.name not in names:
                log.warning("a session that waited for its client was given up: there are too many of them")
                file.unlink(missing_ok=True)

    def _sync(self) -> None:
        """Let what was renamed survive a power cut."""
        descriptor = os.open(self.path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _file(self, digest: str, generation: int) -> Path:
        return self.path / f"{digest}-{generation}.session"

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        descriptor = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)
