"""Speech on its way to a client: resampled to the rate that it wants, and encoded."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np

from loquent.speech.audio.codecs import ENCODINGS, encoder, nearest_rate
from loquent.speech.audio.resample import Resampler, resample_piece
from loquent.speech.audio.resamplers import TooManyTables
from loquent.speech.net.admission import Admission
from loquent.speech.net.dialect import MessageRefused
from loquent.speech.net.messages import Output, Speak
from loquent.speech.net.models import OPENAI_VOICE_MODELS, Models, UnknownModel
from loquent.speech.runtime.engine import EngineFull
from loquent.speech.runtime.events import Speech
from loquent.speech.runtime.stream import Stream


class Voice:
    """Encodes the speech of one stream: any events in, for each a message in JSON and one of bytes out.

    Resampling and Opus hold some samples back, which come with the next event, and at last with `finish`.

    Args:
        sample_rate: of the speech, in Hz.
        output: what the client asked for.
        resampler: between the rates, to be shared; made if it is not given.
    """

    def __init__(self, sample_rate: int, output: Output, resampler: Resampler | None = None) -> None:
        self.sample_rate, self.output = output_rate(sample_rate, output), output
        self._resampler = resampler or Resampler(sample_rate, self.sample_rate)
        self.restart()

    def restart(self) -> None:
        """Forget what is held back: the client has dropped what it had."""
        self._state = self._resampler.initial_state(1)
        self._encoder = encoder(self.output.encoding, self.sample_rate)

    def encode(self, speech: Speech) -> tuple[dict[str, Any], bytes]:
        """The event with the lengths of its packets, and the packets in a row."""
        return self._message(speech.to_dict(), self._encoder.encode(self._resampled(speech.samples, last=False)))

    def finish(self, last: Speech) -> tuple[dict[str, Any], bytes] | None:
        """What is held back, as an event that follows the last one; None if nothing is."""
        packets = self._encoder.encode(self._resampled(np.zeros(0, np.float32), last=True)) + self._encoder.finish()
        if not packets:
            return None
        empty = {"text": "", "span": (last.span[1], last.span[1]), "start": round(last.end, 4)}
        return self._message(last.to_dict() | empty, packets)

    def _message(self, values: dict[str, Any], packets: list[bytes]) -> tuple[dict[str, Any], bytes]:
        form = {"encoding": self.output.encoding, "sample_rate": self.sample_rate, "packets": [*map(len, packets)]}
        return values | form, b"".join(packets)

    def _resampled(self, samples: np.ndarray, last: bool) -> np.ndarray:
        return resample_piece(self._resampler, self._state, samples, last)


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


async def speaking(speak: Speak, models: Models, admission: Admission, draining: bool) -> tuple[Stream, Speaker]:
    """A stream that says a text and then ends, not yet attached, and what encodes its speech.

    Raises:
        MessageRefused: the server has not got the voice, or no room for it.
    """
    if draining:
        raise MessageRefused("the server is shutting down; try another one, or later", "shutting_down")
    voices, start = models.only(lambda model: model.speaks), speak.start
    if not voices:
        raise MessageRefused("this server has no voice", "unknown_model")
    try:
        name = voices.named(start.model, OPENAI_VOICE_MODELS)
    except UnknownModel as error:
        raise MessageRefused(str(error), "unknown_model") from error
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


def output_rate(sample_rate: int, output: Output) -> int:
    """The rate at which speech travels: what was asked for, or what the encoding can have next to the model's."""
    if output.sample_rate is not None:
        return output.sample_rate
    return 8000 if output.encoding == "mulaw" else nearest_rate(sample_rate, ENCODINGS[output.encoding].rates)
