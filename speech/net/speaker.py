"""Speech on its way to one client: encoded off the event loop, and dropped when it is interrupted."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from loquent.speech.audio.resamplers import TooManyTables
from loquent.speech.net.admission import Admission
from loquent.speech.net.dialect import MessageRefused
from loquent.speech.net.messages import Speak
from loquent.speech.net.models import Model, offering
from loquent.speech.net.voice import Voice, output_rate
from loquent.speech.runtime.engine import EngineFull
from loquent.speech.runtime.events import Speech
from loquent.speech.runtime.stream import Stream


class Speaker:
    """Encodes what one stream says, event by event.

    Attributes:
        sent_s: seconds of the stream's speech that the client has been sent.
    """

    def __init__(self, voice: Voice) -> None:
        self.voice, self.sent_s = voice, 0.0
        self._last: Speech | None = None
        self._interruptions = self._restarts = 0  # of the stream, and those that its encoder knows of

    def interrupt(self, played_s: float | None) -> float:
        """Nobody wants to hear what is being encoded; returns the seconds of speech that were heard.

        Args:
            played_s: as the client says; None: all that it was sent.
        """
        self._interruptions += 1
        self.sent_s = self.sent_s if played_s is None else min(played_s, self.sent_s)
        return self.sent_s

    async def encode(self, speech: Speech) -> tuple[dict[str, Any], bytes] | None:
        """The event and its packets, to be sent; None if it has been interrupted meanwhile."""
        if self._restarts != self._interruptions:
            self._restarts = self._interruptions
            self.voice.restart()
        self._last = speech
        encoded = await asyncio.to_thread(self.voice.encode, speech)
        return encoded if self._restarts == self._interruptions else None

    async def rest(self) -> tuple[dict[str, Any], bytes] | None:
        """What the encoder holds back at the end, if anything."""
        if self._last is None or self._restarts != self._interruptions:
            return None
        return await asyncio.to_thread(self.voice.finish, self._last)


async def speaking(
    speak: Speak, models: Mapping[str, Model], admission: Admission, draining: bool
) -> tuple[Stream, Speaker]:
    """A stream that says a text and then ends, not yet attached, and what encodes its speech.

    Raises:
        MessageRefused: the server has not got the voice, or no room for it.
    """
    if draining:
        raise MessageRefused("the server is shutting down; try another one, or later", "shutting_down")
    voices, start = offering(models, "text", "audio"), speak.start
    name = start.model or next(iter(voices), "")
    if name not in voices:
        known = f"this server has {', '.join(voices)}" if voices else "this server has no voice"
        raise MessageRefused(f"no voice {name!r}; {known}" if name else known, "unknown_model")
    own = voices[name].gives.sample_rate
    assert own is not None, "a port of audio has a rate"
    rate = output_rate(own, start.output)
    try:
        stream, resampler = await admission.open(voices[name], options=start.options, output_rate=rate)
    except (EngineFull, TooManyTables) as full:
        raise MessageRefused(str(full), "busy") from full
    except (ValueError, TypeError) as error:  # TypeError: a value of a wrong type, or a name of ours
        raise MessageRefused(str(error), "bad_options") from error
    stream.feed(speak.text)
    stream.end()
    admission.metrics.sessions.labels(name).inc()
    return stream, Speaker(Voice(own, start.output, resampler))
