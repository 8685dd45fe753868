"""How recordings are transcribed."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from loquent.asr.options import Mode

if TYPE_CHECKING:
    from loquent.asr.whisper.beam_search import DecodingOptions


@dataclass(frozen=True)
class TranscribeOptions:
    """How recordings are transcribed. Times are in seconds."""

    mode: Mode = "transcribe"  # or "translate": into English, whatever is spoken; its public name is ``task``
    language: str | None = None  # spoken, as code or English name; None: detect it in the first window
    temperatures: tuple[float, ...] = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)  # tried in turn while the result looks wrong
    beam_size: int = 5  # at temperature 0; 1 is greedy
    patience: float = 1.0  # a beam ends once beam_size · patience hypotheses have
    length_penalty: float = 1.0  # hypotheses are ranked by log-probability / length ** length_penalty
    best_of: int = 5  # samples drawn at temperatures above 0
    compression_ratio_threshold: float | None = 2.4  # a text that compresses better repeats itself: try again
    logprob_threshold: float | None = -1.0  # an average log-probability below it: try again
    no_speech_threshold: float | None = 0.6  # silence if no speech is likelier than this and the text is improbable
    condition_on_previous_text: bool = True  # prompt each window with the text before it
    prompt_reset_on_temperature: float = 0.5  # text found at a higher temperature prompts no window
    initial_prompt: str | None = None  # text before the first window: names, spelling, style
    prefix: str | None = None  # text that the first window begins with
    suppress_tokens: tuple[int, ...] | None = None  # never written; None: what is written but not said
    suppress_blank: bool = True  # no window begins with a space
    without_timestamps: bool = False  # no timestamps; windows are then 30 s apart
    max_initial_timestamp: float | None = 1.0  # latest first timestamp in a window
    sample_len: int | None = None  # most tokens of a window; None: half of the decoder's context
    word_timestamps: bool = False  # time every word
    prepend_punctuations: str = "\"'“¿([{-"  # belong to the word after
    append_punctuations: str = "\"'.。,，!！?？:：”)]}、"  # belong to the word before
    hallucination_silence_threshold: float | None = None  # with word times: skip silences longer than this
    clip_timestamps: tuple[float, ...] = ()  # start, end, start, … of what to transcribe; the last end may be left out
    vad_filter: bool = False  # leave out pauses of 2 s and more; unprompted windows of one recording then share a batch
    seed: int = 0  # of sampling

    aliases: ClassVar[Mapping[str, str]] = {"task": "mode"}

    def __post_init__(self) -> None:
        if not self.temperatures:
            raise ValueError("temperatures is empty; expected at least one, such as (0.0,)")
        if self.hallucination_silence_threshold is not None and not self.word_timestamps:
            raise ValueError("hallucination_silence_threshold needs word_timestamps=True")
        if any(later < earlier for earlier, later in itertools.pairwise(self.clip_timestamps)):
            raise ValueError(f"clip_timestamps must not decrease, got {self.clip_timestamps}")
        if self.vad_filter and self.clip_timestamps:
            raise ValueError("vad_filter and clip_timestamps both say what to transcribe; pass one of them")

    def decoding(self, temperature: float) -> DecodingOptions:
        """The options of a window at one temperature, before what is particular to that window."""
        from loquent.asr.whisper.beam_search import DecodingOptions  # needs torch, which options do not

        return DecodingOptions(
            mode=self.mode,
            temperature=temperature,
            beam_size=self.beam_size,
            patience=self.patience,
            length_penalty=self.length_penalty,
            best_of=self.best_of,
            suppress_tokens=self.suppress_tokens,
            suppress_blank=self.suppress_blank,
            without_timestamps=self.without_timestamps,
            max_initial_timestamp=self.max_initial_timestamp,
            sample_len=self.sample_len,
        )
