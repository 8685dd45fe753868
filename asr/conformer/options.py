"""The options of recognition with a Conformer: of a task, of one of its streams, and of recordings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

from loquent.asr.options import Mode, check_language, check_phrases
from loquent.speech.audio.endpoint import DEFAULT_RULES, EndpointRule

CONFORMER_RULES = (
    *(rule for rule in DEFAULT_RULES if rule.name != "long utterance"),
    EndpointRule("long utterance", silence_s=0.4, utterance_s=20.0),  # tokens are further apart than sounds
    EndpointRule("longest utterance", silence_s=0.0, utterance_s=30.0),
)

Head = Literal["ctc", "transducer"]


@dataclass(frozen=True)
class ConformerOptions:
    """How audio is turned into text.

    language:  code or English name; it has to be the model's.
    head:      "transducer" or "ctc"; the first that the model has.
    chunk_ms:  audio that is encoded together, 80 ms · (look-ahead + 1); one of the latencies that the model was made
               for, by default its first. A stream may choose another.
    beam_size: hypotheses that are followed; 1 is greedy.
    rules:     when an utterance ends; silence is what brings no tokens.
    """

    language: str | None = None
    head: Head | None = None
    chunk_ms: int | None = None
    beam_size: int = 1
    rules: tuple[EndpointRule, ...] = CONFORMER_RULES

    def __post_init__(self) -> None:
        _check_search(self.language, self.head, self.beam_size)


@dataclass(frozen=True)
class ConformerStreamOptions:
    """What one stream may choose; all but ``chunk_ms`` is fixed at the stream's start.

    language:     code or English name; it has to be the model's.
    mode:         "transcribe": these models do not translate. Its public name is ``task``.
    chunk_ms:     as in `ConformerOptions`, whose value is the default.
    phrases:      names and terms to prefer, at most 1000.
    phrase_boost: what a matching token gains, in nats.
    """

    language: str | None = None
    mode: Mode = "transcribe"
    chunk_ms: int | None = None
    phrases: tuple[str, ...] = ()
    phrase_boost: float = 2.0

    aliases: ClassVar[Mapping[str, str]] = {"task": "mode"}

    def __post_init__(self) -> None:
        if self.language:
            check_language(self.language)
        check_phrases(self.phrases, self.phrase_boost)


@dataclass(frozen=True)
class ConformerTranscribeOptions:
    """How recordings are transcribed.

    language, mode: have to be what the model does; the public name of ``mode`` is ``task``.
    head, beam_size: as in `ConformerOptions`.
    chunk_ms: latency whose text is wanted; the model's largest by default, which errs least.
    phrases, phrase_boost: words to prefer, as in `ConformerStreamOptions`.
    word_timestamps: time every word.
    """

    language: str | None = None
    mode: Mode = "transcribe"
    head: Head | None = None
    beam_size: int = 1
    chunk_ms: int | None = None
    phrases: tuple[str, ...] = ()
    phrase_boost: float = 2.0
    word_timestamps: bool = False

    aliases: ClassVar[Mapping[str, str]] = {"task": "mode"}

    def __post_init__(self) -> None:
        _check_search(self.language, self.head, self.beam_size)
        check_phrases(self.phrases, self.phrase_boost)


def _check_search(language: str | None, head: str | None, beam_size: int) -> None:
    if language:
        check_language(language)
    if head not in (None, *get_args(Head)):
        raise ValueError(f"head: expected one of {', '.join(get_args(Head))}, got {head!r}")
    if not 1 <= beam_size <= 64:
        raise ValueError(f"beam_size: expected 1 to 64, got {beam_size}")
