"""What the recogniser remembers of a stream besides tensors: plain values, so that a stream can be saved as JSON."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from loquent.asr.options import checked_options
from loquent.asr.search.biasing import Biasing
from loquent.asr.utterance import OpenUtterance
from loquent.asr.whisper.live.options import WhisperStreamOptions
from loquent.speech.audio.endpoint import EndpointMemory


@dataclass
class CommittedWord:
    """A committed word of the current window; times in seconds from the start of the stream.

    start, end: of its sounds; words do not overlap.
    tokens:     how many it has.
    earliest:   of the frames that its tokens attend to most.
    """

    start: float
    end: float
    tokens: int
    earliest: float


@dataclass
class AudioWindow:
    """A stretch of audio of at most 30 s that the model sees as one.

    start:     first mel frame (10 ms), counted from the start of the stream.
    opened:    mel frame at which speech was noticed.
    encoded:   mel frames that the encoder has been given, counted likewise.
    control:   tokens that precede the text: the prompt and the start-of-transcript sequence.
    committed: text tokens that will not change any more.
    open:      text tokens after them that may still change, and their scores.
    words:     committed words.
    primed:    whether the decoder has been given ``control``.
    """

    start: int
    opened: int
    encoded: int
    control: list[int]
    committed: list[int] = field(default_factory=list)
    open: list[int] = field(default_factory=list)
    open_scores: list[float] = field(default_factory=list)
    words: list[CommittedWord] = field(default_factory=list)
    primed: bool = False


@dataclass
class WhisperMemo:
    """Host-side state of one stream.

    options:   that it began with.
    language:  code; None until it is detected.
    languages: codes that it is detected among; none: all.
    prompt:    tokens of the prompt.
    adapter:   name of the stream's adapter, and what the weights of that name were when it began.
    frames:    mel frames received.
    steps:     chunks received.
    barrier:   mel frame before which everything has been finalised.
    window:    None while nobody speaks.
    held:      an endpoint, (time, rule), that waits for a sound to turn out to be no speech.
    context:   committed text tokens of earlier windows, newest last, bounded.
    biasing:   the phrases of ``options``; not saved, because it follows from them.
    """

    options: WhisperStreamOptions
    language: str | None
    languages: list[str]
    prompt: list[int]
    adapter: str | None = None
    adapter_digest: str = ""
    endpoint: EndpointMemory = field(default_factory=EndpointMemory)
    utterance: OpenUtterance = field(default_factory=OpenUtterance)
    frames: int = 0
    steps: int = 0
    barrier: int = 0
    window: AudioWindow | None = None
    held: tuple[float, str] | None = None
    context: list[int] = field(default_factory=list)
    biasing: Biasing | None = None

    @property
    def written(self) -> str | None:
        """Code of the language of the text."""
        return "en" if self.options.mode == "translate" else self.language

    def to_dict(self) -> dict[str, Any]:
        """JSON-able values."""
        values = dataclasses.asdict(dataclasses.replace(self, biasing=None))
        del values["biasing"]
        return values

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> WhisperMemo:
        """Inverse of `to_dict`.

        Raises:
            ValueError: the values are not those of a stream of Whisper.
        """
        try:
            values = dict(values)
            values["options"] = checked_options(WhisperStreamOptions, values["options"])
            values["endpoint"] = EndpointMemory.from_dict(values["endpoint"])
            values["utterance"] = OpenUtterance.from_dict(values["utterance"])
            values["held"] = values["held"] and tuple(values["held"])
            if values["window"] is not None:
                window = dict(values["window"])
                window["words"] = [CommittedWord(**word) for word in window["words"]]
                values["window"] = AudioWindow(**window)
            return cls(**values)
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError(f"not the memo of a stream of Whisper: {error}") from error
