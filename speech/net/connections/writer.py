"""Sends what waits for one client."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence

from starlette.websockets import WebSocketDisconnect

from loquent.speech.net.connections.outgoing import Close, Outgoing, SpeechEnd
from loquent.speech.net.connections.voice import Speaker
from loquent.speech.net.dialect import Dialect, Socket
from loquent.speech.runtime.events import Speech


class Writer:
    """Of one connection.

    Args:
        websocket: where to.
        outgoing: what waits.
        timeout_s: for which one message may wait for a client that does not read.

    Attributes:
        speaker: encodes the speech, once a stream speaks.
    """

    def __init__(self, websocket: Socket, dialect: Dialect, outgoing: Outgoing, timeout_s: float) -> None:
        self.websocket, self.dialect, self.outgoing, self.timeout_s = websocket, dialect, outgoing, timeout_s
        self.speaker: Speaker | None = None

    async def run(self, spoken: Callable[[], None]) -> None:
        """Send until the end of the queue, or the loss of the client.

        Args:
            spoken: called whenever speech has been sent, so that its stream may go on.

        Raises:
            TimeoutError: the client does not read.
        """
        with contextlib.suppress(WebSocketDisconnect, RuntimeError):  # gone; RuntimeError: closed by uvicorn itself
            while True:
                match await self.outgoing.get():
                    case Close(code, reason):
                        async with asyncio.timeout(self.timeout_s):
                            return await self.websocket.close(code, reason)
                    case Speech() as speech:
                        await self._say(speech)
                        spoken()
                    case SpeechEnd(then):
                        await self._say_rest()
                        await self._send(self.dialect.told(then) if then else [])
                    case str(text):
                        await self._send([text])

    async def _say(self, speech: Speech) -> None:
        speaker = self.speaker
        assert speaker is not None, "made with the stream that speaks"
        if (encoded := await speaker.encode(speech)) is not None:
            await self._send(self.dialect.spoken(*encoded))
            speaker.sent_s = speech.end

    async def _say_rest(self) -> None:
        if self.speaker is not None and (rest := await self.speaker.rest()) is not None:
            await self._send(self.dialect.spoken(*rest))

    async def _send(self, messages: Sequence[str | bytes]) -> None:
        async with asyncio.timeout(self.timeout_s):
            for one in messages:
                await (self.websocket.send_text(one) if isinstance(one, str) else self.websocket.send_bytes(one))
