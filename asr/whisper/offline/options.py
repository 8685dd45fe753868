"""How recordings are transcribed."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from loquent.asr.options import Mode, check_language
from loquent.speech.audio.endpoint import FILTERED_SPEECH, SpeechOptions

if TYPE_CHECKING:
    from loquent.asr.whisper.beam_search import DecodingOptions


@dataclass(frozen=True)
class TranscribeOptions:
    """How recordings are transcribed. Times are in seconds."""

    mode: Mode = "transcribe"  # or "translate": into English, whatever is spoken; its public name is ``task``
    language: str | None = None  # spoken, as code or English name; None: detect it in the first window
    multilingual: bool = False  # detect it in every window
    temperatures: tuple[float, ...] = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)  # tried in turn while the result looks wrong
    beam_size: int = 5  # at temperature 0; 1 is greedy
    patience: float = 1.0  # a beam ends once beam_size · patience hypotheses have
    length_penalty: float = 1.0  # hypotheses are ranked by log-probability / length ** length_penalty
    repetition_penalty: float = 1.0  # above 1, tokens that were written in a window become less probable
    no_repeat_ngram_size: int = 0  # no sequence of so many tokens is written twice in a window; 0: any may be
    best_of: int = 5  # samples drawn at temperatures above 0
    compression_ratio_threshold: float | None = 2.4  # a text that compresses better repeats itself: try again
    logprob_threshold: float | None = -1.0  # an average log-probability below it: try again
    no_speech_threshold: float | None = 0.6  # silence if no speech is likelier than this and the text is improbable
    condition_on_previous_text: bool = True  # prompt each window with the text before it
    prompt_reset_on_temperature: float = 0.5  # text found at a higher temperature prompts no window
    initial_prompt: str | None = None  # text before the first window: names, spelling, style
    carry_initial_prompt: bool = False  # before every window
    hotwords: str | None = None  # names and terms to expect, before every window but one with a prefix
    prefix: str | None = None  # text that the first window begins with
    suppress_tokens: tuple[int, ...] | None = None  # never written; -1 and None: what is written but not said
    suppress_blank: bool = True  # no window begins with a space
    without_timestamps: bool = False  # no timestamps; windows are then 30 s apart
    max_initial_timestamp: float | None = 1.0  # latest first timestamp in a window
    sample_len: int | None = None  # most tokens of a window; None: half of the decoder's context
    word_timestamps: bool = False  # time every word
    token_logprobs: bool = False  # tell the log-probability of every token of the text
    prepend_punctuations: str = "\"'“¿([{-"  # belong to the word after
    append_punctuations: str = "\"'.。,，!！?？:：”)]}、"  # belong to the word before
    hallucination_silence_threshold: float | None = None  # with word times: skip silences longer than this
    clip_timestamps: tuple[float, ...] = ()  # start, end, start, … of what to transcribe; the last end may be left out
    vad_filter: bool = False  # leave out pauses of 2 s and more; unprompted windows of one recording then share a batch
    speech: SpeechOptions = FILTERED_SPEECH  # what the filter takes for speech
    seed: int = 0  # of sampling

    aliases: ClassVar[Mapping[str, str]] = {"task": "mode"}

    def __post_init__(self) -> None:
        if not self.temperatures:
            raise ValueError("temperatures: expected at least one, such as (0.0,), got none")
        for name in ("beam_size", "best_of", "sample_len"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ValueError(f"{name}: expected at least 1, got {value}")
        for name in ("patience", "repetition_penalty"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name}: expected a number above 0, got {getattr(self, name)}")
        for name in ("max_initial_timestamp", "hallucination_silence_threshold", "no_repeat_ngram_size"):
            if (value := getattr(self, name)) is not None and value < 0:
                raise ValueError(f"{name}: expected 0 or more, got {value}")
        for name, values in (("temperatures", self.temperatures), ("clip_timestamps", self.clip_timestamps)):
            if any(value < 0 for value in values):
                raise ValueError(f"{name}: expected 0 or more, got {min(values)}")
        if (least := min(self.suppress_tokens or (0,))) < -1:
            raise ValueError(f"suppress_tokens: expected numbers of tokens, or -1, got {least}")
        if self.language:
            check_language(self.language)
            if self.multilingual:
                raise ValueError(f"multilingual: the language is detected, so leave out language={self.language!r}")
        if self.carry_initial_prompt and self.initial_prompt is None:
            raise ValueError("carry_initial_prompt: there is no initial_prompt to carry")
        if self.hallucination_silence_threshold is not None and not self.word_timestamps:
            raise ValueError("hallucination_silence_threshold: needs word_timestamps=True")
        if any(later < earlier for earlier, later in itertools.pairwise(self.clip_timestamps)):
            raise ValueError(f"clip_timestamps: must not decrease, got {self.clip_timestamps}")
        if self.vad_filter and self.clip_timestamps:
            raise ValueError("vad_filter: clip_timestamps says what to transcribe already; pass one of them")
        if self.speech != FILTERED_SPEECH and not self.vad_filter:
            raise ValueError("speech: needs vad_filter=True")

    def decoding(self, temperature: float) -> DecodingOptions:
        """The options of a window at one temperature, before what is particular to that window."""
        from loquent.asr.whisper.beam_search import DecodingOptions  # needs torch, which options do not

        return DecodingOptions(
            mode=self.mode,
            temperature=temperature,
            beam_size=self.beam_size,
            patience=self.patience,
            length_penalty=self.length_penalty,
            repetition_penalty=self.repetition_penalty,
            no_repeat_ngram_size=self.no_repeat_ngram_size,
            best_of=self.best_of,
            suppress_tokens=self.suppress_tokens,
            suppress_blank=self.suppress_blank,
            without_timestamps=self.without_timestamps,
            max_initial_timestamp=self.max_initial_timestamp,
            sample_len=self.sample_len,
        )
