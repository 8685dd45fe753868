"""Files on their way to a server: who may send one, for how long, and how it is noticed that a client has gone."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator
from typing import BinaryIO, cast

from starlette.datastructures import FormData, UploadFile
from starlette.requests import Request
from starlette.types import Message, Receive, Send

from loquent.speech.net.limits import Limits

_GRACE_S = 5.0  # before an upload is called slow
_IN_MEMORY = 2**20  # bytes of a file that need no disk
_SLOW = 500  # bytes a second: less than any speech takes


class Refused(Exception):
    """A request that is answered with an error.

    param: name of the field that is wrong, if one is.
    """

    def __init__(
        self, status: int, message: str, param: str | None = None, kind: str = "invalid_request_error"
    ) -> None:
        super().__init__(message)
        self.status, self.param, self.kind = status, param, kind


class NotRead(Exception):
    """The client does not read its answer."""


class Uploads:
    """Places for files: some for those that are being received, others for those that are there.

    Whoever sends slowly, or not at all, holds no place of those whose files are there to be transcribed. And if all
    places for sending are taken, the upload that is slowest gives its place up, if it is slower than any speech.

    Attributes:
        held: files that are there: waiting, transcribed or answered.
        closed: whether there are no places any more, because the server is on its way down.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits, self.held, self.closed = limits, 0, False
        self._receiving: dict[_Upload, asyncio.Timeout] = {}

    async def receive(self, request: Request) -> FormData:
        """The form of a request, with its file on disk.

        Raises:
            Refused: it takes too long, is too long, or there is no place.
            HTTPException: it is no form.
        """
        async with self._received(request) as received:
            return await received.form(max_files=1, max_fields=32, max_part_size=65_536)

    @contextlib.asynccontextmanager
    async def receive_file(self, request: Request) -> AsyncIterator[BinaryIO]:
        """The body of a request, on disk if it is long.

        Raises:
            Refused: it takes too long, is too long, or there is no place.
        """
        with tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY) as data:
            file = UploadFile(cast(BinaryIO, data))  # which writes to disk in a thread
            async with self._received(request) as received:
                async for part in received.stream():
                    await file.write(part)
            await file.seek(0)
            yield file.file

    @contextlib.asynccontextmanager
    async def _received(self, request: Request) -> AsyncIterator[Request]:
        """The request, whose body is bounded."""
        limits, loop = self.limits, asyncio.get_running_loop()
        self._make_room(loop.time())
        upload = _Upload(request.receive, limits, loop.time())
        try:
            async with asyncio.timeout(limits.max_upload_s) as patience:  # enough for whoever sends while he speaks
                self._receiving[upload] = patience
                yield Request(request.scope, upload.receive)
        except TimeoutError:
            allowed = f"{limits.idle_timeout_s:g} s without any bytes, {limits.max_upload_s:g} s in all"
            if upload.displaced:
                allowed = f"{_SLOW} bytes a second while others wait to send theirs"
            raise Refused(408, f"the upload is too slow; it may take {allowed}") from None
        finally:
            self._receiving.pop(upload, None)

    @contextlib.contextmanager
    def place(self) -> Iterator[None]:
        """A place for a file that is there.

        Raises:
            Refused: there is none.
        """
        if self.closed:
            raise Refused(503, "the server is shutting down; try another one, or later", kind="server_error")
        if self.held >= self.limits.max_uploads:
            raise Refused(429, f"{self.held} files are being transcribed; try again later", kind="rate_limit_error")
        self.held += 1
        try:
            yield
        finally:
            self.held -= 1

    def _make_room(self, now: float) -> None:
        if len(self._receiving) < self.limits.max_receiving:
            return
        slowest = min(self._receiving, key=lambda upload: upload.rate(now))
        if slowest.rate(now) >= _SLOW:
            busy = f"{len(self._receiving)} files are being received; try again later"
            raise Refused(429, busy, kind="rate_limit_error")
        slowest.displaced = True
        self._receiving.pop(slowest).reschedule(0.0)


class _Upload:
    """One body on its way: bounded in size, and in time without any bytes."""

    def __init__(self, receive: Receive, limits: Limits, begin: float) -> None:
        self._receive, self._limits, self._begin = receive, limits, begin
        self.received = 0
        self.displaced = False

    def rate(self, now: float) -> float:
        """Bytes a second so far; too early to tell is infinite."""
        age = now - self._begin
        return self.received / age if age >= _GRACE_S else float("inf")

    async def receive(self) -> Message:
        """The next part; a TimeoutError if it does not come."""
        async with asyncio.timeout(self._limits.idle_timeout_s):
            message = await self._receive()
        self.received += len(message.get("body", b""))
        if self.received > self._limits.max_upload_bytes:
            most = f"the {self._limits.max_upload_bytes} bytes this server takes"
            raise Refused(413, f"the upload is longer than {most}", "file")
        return message


@contextlib.asynccontextmanager
async def watched(receive: Receive, gone: threading.Event) -> AsyncIterator[asyncio.Task[None]]:
    """Set ``gone`` when the client leaves, once all of its request has been received.

    Yields:
        A task that ends when the client leaves.
    """

    async def watch() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        gone.set()

    watcher = asyncio.create_task(watch())
    try:
        yield watcher
    finally:
        watcher.cancel()
        await asyncio.gather(watcher, return_exceptions=True)


def impatient(send: Send, timeout_s: float) -> Send:
    """Raises `NotRead` when the client does not read on."""

    async def sent(message: Message) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                await send(message)
        except TimeoutError:
            raise NotRead from None

    return sent
