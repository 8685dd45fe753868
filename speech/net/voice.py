"""Speech on its way to a client: resampled to the rate that it wants, and encoded."""

from __future__ import annotations

from typing import Any

import numpy as np

from loquent.speech.audio.codecs import ENCODINGS, encoder, nearest_rate
from loquent.speech.audio.resample import Resampler, resample_piece
from loquent.speech.net.messages import Output
from loquent.speech.runtime.events import Speech


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


def output_rate(sample_rate: int, output: Output) -> int:
    """The rate at which speech travels: what was asked for, or what the encoding can have next to the model's."""
    if output.sample_rate is not None:
        return output.sample_rate
    return 8000 if output.encoding == "mulaw" else nearest_rate(sample_rate, ENCODINGS[output.encoding].rates)
