"""A speech processor for simulstream: speech of any length in, text that only grows out.

In its configuration: ``type: loquent.translate.agents.simulstream.LoquentProcessor``, and, as wanted, ``recognizer``,
``model``, ``language`` and ``options`` (a mapping), with ``speech_chunk_size`` in seconds.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
from simulstream.server.speech_processors import SAMPLE_RATE, SpeechProcessor
from simulstream.server.speech_processors.incremental_output import IncrementalOutput

from loquent.speech.runtime.stream import Stream
from loquent.translate.agents.opening import committed
from loquent.translate.spoken.interpretation import TRANSLATE
from loquent.translate.spoken.interpreter import Interpreter


class LoquentProcessor(SpeechProcessor):
    """One stream at a time."""

    interpreter: ClassVar[Interpreter | None] = None

    def __init__(self, config: SimpleNamespace) -> None:
        super().__init__(config)
        self.stream: Stream | None = None

    @classmethod
    def load_model(cls, config: SimpleNamespace) -> None:
        """Load what the configuration names."""
        cls.interpreter = Interpreter.from_pretrained(
            getattr(config, "recognizer", "base"),
            getattr(config, "model", None),
            source=getattr(config, "language", None),
        )

    def process_chunk(self, waveform: np.ndarray) -> IncrementalOutput:
        """Hear 16 kHz float32 samples; nothing that was said is ever deleted."""
        if self.stream is None:
            if self.interpreter is None:
                raise RuntimeError("load_model has not been called")
            options: Any = getattr(self.config, "options", {})
            options = vars(options) if isinstance(options, SimpleNamespace) else dict(options)
            self.stream = self.interpreter.session(sample_rate=SAMPLE_RATE, **options)
        return _output(committed(self.stream.push(np.asarray(waveform, dtype=np.float32)), TRANSLATE))

    def end_of_stream(self) -> IncrementalOutput:
        """All that is left."""
        text = committed(self.stream.finish(), TRANSLATE) if self.stream is not None else ""
        self.stream = None
        return _output(text)

    def set_source_language(self, language: str) -> None:
        """Make sure that it is the language of the model.

        Raises:
            ValueError: it is another one.
        """
        self._check("source", language)

    def set_target_language(self, language: str) -> None:
        """As `set_source_language`."""
        self._check("target", language)

    def tokens_to_string(self, tokens: list[str]) -> str:
        """Words that carry the space before them."""
        return "".join(tokens)

    def clear(self) -> None:
        """Forget the stream."""
        if self.stream is not None:
            self.stream.close()
        self.stream = None

    def _check(self, side: str, language: str) -> None:
        from loquent.speech.text.languages import language_code

        known = getattr(self.interpreter, side, None)
        if known is not None and language_code(language) != known:
            raise ValueError(f"the {side} language of this model is {known!r}, got {language!r}")


def _output(text: str) -> IncrementalOutput:
    words = [f" {word}" for word in text.split()]
    return IncrementalOutput(words, "".join(words), [], "")
