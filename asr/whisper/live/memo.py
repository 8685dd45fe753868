"""What the recogniser remembers of a stream besides tensors: plain values, so that a stream can be saved as JSON."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from loquent.asr.whisper.tokenizer import Task
from loquent.speech.audio.endpoint import EndpointMemory


@dataclass
class TimedWord:
    """A committed word of the current segment; times in seconds from the start of the stream."""

    start: float
    end: float
    tokens: int


@dataclass
class Segment:
    """A stretch of audio that the model looks at as one window of at most 30 s.

    start:     first mel frame (10 ms), counted from the start of the stream.
    opened:    mel frame at which speech was noticed.
    heard:     mel frames that the encoder has been given, counted likewise.
    control:   tokens that precede the text: the prompt and the start-of-transcript sequence.
    committed: text tokens that will not change any more.
    open:      text tokens after them that may still change, and their scores.
    words:     committed words.
    primed:    whether the decoder has been given ``control``.
    """

    start: int
    opened: int
    heard: int
    control: list[int]
    committed: list[int] = field(default_factory=list)
    open: list[int] = field(default_factory=list)
    open_scores: list[float] = field(default_factory=list)
    words: list[TimedWord] = field(default_factory=list)
    primed: bool = False


@dataclass
class StreamMemo:
    """Host-side state of one stream.

    adapter:   name of the stream's adapter, and what the weights of that name were when it began.
    frames:    mel frames received.
    steps:     chunks received.
    barrier:   mel frame before which everything has been finalised.
    segment:   None while nobody speaks.
    utterance: committed text since the last `Final`, and when it began and ended in seconds.
    shown:     the last `Partial`, not to be repeated.
    held:      an endpoint, (time, rule), that waits for a sound to turn out to be no speech.
    context:   committed text tokens of earlier segments, newest last, bounded.
    """

    language: str | None
    task: Task
    prompt: list[int]
    endpoint: EndpointMemory
    adapter: str | None = None
    adapter_digest: str = ""
    frames: int = 0
    steps: int = 0
    barrier: int = 0
    segment: Segment | None = None
    utterance: str = ""
    utterance_start: float = 0.0
    utterance_end: float = 0.0
    shown: tuple[str, str] = ("", "")
    held: tuple[float, str] | None = None
    context: list[int] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> StreamMemo:
        """Inverse of `to_dict`.

        Raises:
            ValueError: the values are not those of a recogniser's stream.
        """
        try:
            values = dict(values)
            values["endpoint"] = EndpointMemory(**values["endpoint"])
            values["shown"] = tuple(values["shown"])
            values["held"] = values["held"] and tuple(values["held"])
            if values["segment"] is not None:
                segment = dict(values["segment"])
                segment["words"] = [TimedWord(**word) for word in segment["words"]]
                values["segment"] = Segment(**segment)
            return cls(**values)
        except (KeyError, TypeError) as error:
            raise ValueError(f"not the memo of a recogniser's stream: {error}") from error
