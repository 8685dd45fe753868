"""The options of streaming recognition with Whisper: of a task, and of one of its streams."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal, get_args

from loquent.asr.options import WHISPER_BOOST, Mode, check_language, check_phrases
from loquent.speech.audio.endpoint import DEFAULT_RULES, EndpointRule, SpeechOptions
from loquent.speech.policies.commit import AlignAtt, CommitRule, Confident, HoldLast, LocalAgreement

PolicyName = Literal["local-agreement", "alignatt", "incremental"]
CommitName = Literal["confident", "agreement", "hold-last", "at-once"]
COMMIT_RULES: dict[str, CommitRule] = {
    "confident": Confident(),
    "agreement": LocalAgreement(),
    "hold-last": HoldLast(),
    "at-once": HoldLast(0),
}


@dataclass(frozen=True)
class WhisperStreamOptions:
    """What one stream may choose; all of it is fixed at the stream's start.

    language: code or English name; several with commas between them, such as "en,es", are those among which it is
              detected from the first speech. By default that of the task or of the adapter, else any.
    mode:     "transcribe", or "translate" into English; its public name is ``task``.
    prompt:   text that precedes the speech: names and spellings to expect.
    adapter:  name of one that the recogniser has, by default the one for the language; "none" is the model as it is.
    phrases:  names and terms to prefer, at most 1000.
    phrase_boost: what a matching token gains, in nats.
    """

    language: str | None = None
    mode: Mode = "transcribe"
    prompt: str = ""
    adapter: str | None = None
    phrases: tuple[str, ...] = ()
    phrase_boost: float = WHISPER_BOOST

    aliases: ClassVar[Mapping[str, str]] = {"task": "mode"}

    def __post_init__(self) -> None:
        if self.language:
            check_language(self.language)
        check_phrases(self.phrases, self.phrase_boost)


@dataclass(frozen=True)
class StreamingOptions:
    """How live audio is turned into text.

    language:     of streams that do not say theirs, as there.
    policy:       "local-agreement" and "alignatt" re-encode the window at every chunk and work with any checkpoint;
                  "incremental" encodes every chunk once and needs weights trained for it.
    chunk_ms:     audio per step, a multiple of 20; by default 1000 when re-encoding and 300 when not.
    commit:       when "incremental" takes a word to be certain: when the model is sure of it or one more chunk has not
                  changed it ("confident", the default), in the latter case only ("agreement"), when two tokens follow
                  it ("hold-last"), or as soon as it is written ("at-once").
    block_ms:     audio whose frames the encoder of "incremental" sees together, a multiple of 20 and not below
                  chunk_ms: what has come of it is encoded again with each chunk. By default what the adapter of the
                  streams was trained with, or a second.
    beam_size:    hypotheses of each chunk's text that are followed; 1 is greedy.
    vad:          decode only while somebody speaks, and end utterances at pauses.
    speech:       when somebody speaks.
    rules:        when an utterance ends.
    preroll_ms:   audio before the detected start of speech that belongs to it.
    overlap_s:    audio at the end of a full window with which the next one begins; one is full after 30 s of speech
                  without a pause, with "incremental" after 25.
    tokens_per_second: most text that somebody may say; a model that has lost its way writes no more than that either,
                  and so cannot hold up the streams it shares a batch with. By default 8 for English and 25 for other
                  languages, some of which take several tokens a letter.
    alignatt_margin: frames (20 ms) at the end of the audio that AlignAtt does not trust.
    """

    language: str | None = None
    policy: PolicyName = "local-agreement"
    chunk_ms: int | None = None
    commit: CommitName | None = None
    block_ms: int | None = None
    beam_size: int = 1
    vad: bool = True
    speech: SpeechOptions = field(default_factory=SpeechOptions)
    rules: tuple[EndpointRule, ...] = DEFAULT_RULES
    preroll_ms: int = 500
    overlap_s: float = 5.0
    tokens_per_second: float | None = None
    alignatt_margin: int = 25

    def __post_init__(self) -> None:
        if self.language:
            check_language(self.language)
        if self.step_ms % 20 or not 20 <= self.step_ms <= 5000:
            raise ValueError(f"chunk_ms: expected a multiple of 20 from 20 to 5000, got {self.chunk_ms}")
        if not 0 <= self.preroll_ms <= 5000:
            raise ValueError(f"preroll_ms: expected 0 to 5000, got {self.preroll_ms}")
        if self.policy not in get_args(PolicyName):
            raise ValueError(f"policy: expected one of {', '.join(get_args(PolicyName))}, got {self.policy!r}")
        if not 1 <= self.beam_size <= 16:
            raise ValueError(f"beam_size: expected 1 to 16, got {self.beam_size}")
        if self.commit not in (None, *COMMIT_RULES):
            raise ValueError(f"commit: expected one of {', '.join(COMMIT_RULES)}, got {self.commit!r}")
        if self.policy != "incremental":
            for name in ("commit", "block_ms"):
                if (value := getattr(self, name)) is not None:
                    raise ValueError(f"{name}: {value!r} is for the policy 'incremental', not for {self.policy!r}")
        if self.block_ms is not None and (self.block_ms % 20 or not self.step_ms <= self.block_ms <= 5000):
            raise ValueError(
                f"block_ms: expected a multiple of 20 from chunk_ms ({self.step_ms}) to 5000, got {self.block_ms}"
            )
        if not 1.0 <= self.overlap_s <= 15.0:
            raise ValueError(f"overlap_s: expected 1 to 15 seconds, got {self.overlap_s}")
        if self.tokens_per_second is not None and self.tokens_per_second <= 0:
            raise ValueError(f"tokens_per_second: expected a number above 0, got {self.tokens_per_second}")
        if self.alignatt_margin < 0:
            raise ValueError(f"alignatt_margin: expected 0 or more, got {self.alignatt_margin}")

    @property
    def step_ms(self) -> int:
        """``chunk_ms``, or what the policy makes of None."""
        if self.chunk_ms is not None:
            return self.chunk_ms
        return 300 if self.policy == "incremental" else 1000

    @property
    def block(self) -> int:
        """Encoder frames (20 ms) of ``block_ms``, or of its default."""
        return (max(1000, self.step_ms) if self.block_ms is None else self.block_ms) // 20

    @property
    def rule(self) -> CommitRule:
        """The commit rule of the policy."""
        if self.policy == "alignatt":
            return AlignAtt(self.alignatt_margin)
        return COMMIT_RULES[self.commit or "confident"] if self.policy == "incremental" else LocalAgreement()
