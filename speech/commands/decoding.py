"""The flags of whole recordings, under Whisper's and faster-whisper's names, and the options that they stand for."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from loquent.speech.audio.endpoint import FILTERED_SPEECH, SpeechOptions
from loquent.speech.commands.arguments import UsageError, boolean, optional, whole_number


def numbers(text: str) -> tuple[float, ...]:
    """Numbers separated by commas."""
    return tuple(float(number) for number in text.split(",") if number.strip())


def tokens(text: str) -> tuple[int, ...]:
    """Numbers of tokens separated by commas."""
    return tuple(int(number) for number in text.split(",") if number.strip())


numbers.__name__, tokens.__name__ = "list", "list"  # argparse names them in errors

# Their values are passed on under these names if they are given.
DECODING: dict[str, tuple[Callable[[str], Any], str]] = {
    "best_of": (optional(whole_number(1), none=1), "samples drawn at higher temperatures (default: 5)"),
    "patience": (
        optional(float, none=1.0),
        "beam search goes on until PATIENCE · BEAM_SIZE hypotheses have ended (default: 1)",
    ),
    "length_penalty": (optional(float, none=1.0), "log-probabilities are divided by length to this power (default: 1)"),
    "repetition_penalty": (float, "above 1, what was written in a window becomes less probable (default: 1)"),
    "no_repeat_ngram_size": (whole_number(0), "no N tokens are written twice in a window (default: 0, any may be)"),
    "temperature": (float, "of the first attempt at a window (default: 0)"),
    "temperature_increment_on_fallback": (optional(float), "added after a failed attempt, or None (default: 0.2)"),
    "compression_ratio_threshold": (optional(float), "text that compresses better fails: it repeats (default: 2.4)"),
    "logprob_threshold": (optional(float), "text with a lower average log-probability fails (default: -1)"),
    "no_speech_threshold": (optional(float), "likelier silence is skipped if the text failed too (default: 0.6)"),
    "condition_on_previous_text": (boolean, "prompt each window with the text before it (default: True)"),
    "prompt_reset_on_temperature": (float, "text found at a higher temperature prompts no window (default: 0.5)"),
    "carry_initial_prompt": (boolean, "prompt every window with --initial-prompt (default: False)"),
    "hotwords": (str, "names and terms to expect, in the prompt of every window"),
    "prefix": (str, "text that the first window begins with"),
    "multilingual": (boolean, "detect the language of every window (default: False)"),
    "suppress_tokens": (tokens, "tokens never written, separated by commas; -1: what is not speech (default: -1)"),
    "suppress_blank": (boolean, "no window begins with a space (default: True)"),
    "without_timestamps": (boolean, "text only; windows are then 30 s apart (default: False)"),
    "max_initial_timestamp": (float, "latest first timestamp in a window, in seconds (default: 1)"),
    "max_new_tokens": (whole_number(1), "most tokens of a window (default: half of the decoder's context, 224)"),
    "prepend_punctuations": (str, "belong to the word after them, where words are timed"),
    "append_punctuations": (str, "belong to the word before them, where words are timed"),
    "hallucination_silence_threshold": (optional(float), "skip longer silences, in seconds, around improbable text"),
    "clip_timestamps": (numbers, "start,end,start,… of what to transcribe, in seconds; the last end may be left out"),
    "vad_filter": (boolean, "leave out pauses of two seconds and more (default: False)"),
    "batch_size": (
        whole_number(1),
        "windows in the model at once, of files or a filtered unprompted one (default: 8)",
    ),
}

# Of the filter: the option that each stands for, what its unit is in seconds, and the help.
FILTER: dict[str, tuple[str, float, str]] = {
    "vad_threshold": ("start_threshold", 1.0, "speech begins at this probability (default: 0.5)"),
    "vad_neg_threshold": ("end_threshold", 1.0, "speech ends below it (default: 0.15 below --vad-threshold)"),
    "vad_min_speech_duration_ms": ("min_speech_s", 1e-3, "shorter sounds are left out (default: 0)"),
    "vad_min_silence_duration_ms": ("min_silence_s", 1e-3, "shorter pauses are kept (default: 2000)"),
    "vad_speech_pad_ms": ("padding_s", 1e-3, "kept on both sides of speech (default: 400)"),
}


_DETECTION = "the first window decides, or with --multilingual each one"
REFUSED = {  # flags of Whisper's and options of faster-whisper's that there are not, and why
    "--chunk-length": "windows have the 30 s that Whisper was trained with",
    "--language-detection-threshold": _DETECTION,
    "--language-detection-segments": _DETECTION,
    "--vad-max-speech-duration-s": "windows are cut at pauses anyway",
}


def add_decoding_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags; those that are not given are not among the arguments."""
    group = parser.add_argument_group("decoding of whole recordings")
    for name, (kind, text) in DECODING.items():
        metavar = getattr(kind, "__name__", "value").replace("boolean", "bool").upper()
        _add(group, name, kind, metavar, text)
    for name, (_, _, text) in FILTER.items():
        _add(group, name, float, "FLOAT", f"with --vad-filter: {text}")


def _add(group: argparse._ArgumentGroup, name: str, kind: Callable[[str], Any], metavar: str, text: str) -> None:
    flag = "--" + name.replace("_", "-")
    group.add_argument(flag, type=kind, default=argparse.SUPPRESS, metavar=metavar, help=text)


def given(arguments: argparse.Namespace) -> list[str]:
    """Names of those flags that were given."""
    return [name for name in (*DECODING, *FILTER) if hasattr(arguments, name)]


def decoding_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """The options that the given flags stand for, without ``batch_size``, which is no option of a recording.

    Raises:
        UsageError: a value makes no sense.
    """
    options = {name: getattr(arguments, name) for name in DECODING if hasattr(arguments, name)}
    options.pop("batch_size", None)
    if "temperature" in options or "temperature_increment_on_fallback" in options:
        first = options.pop("temperature", 0.0)
        options["temperatures"] = _temperatures(first, options.pop("temperature_increment_on_fallback", 0.2))
    if "max_new_tokens" in options:
        options["sample_len"] = options.pop("max_new_tokens")
    if options.get("clip_timestamps") == (0.0,):  # Whisper's way to say: all of it
        del options["clip_timestamps"]
    if changed := [name for name in FILTER if hasattr(arguments, name)]:
        if not options.get("vad_filter"):
            raise UsageError(f"--{changed[0].replace('_', '-')} needs --vad-filter")
        options["speech"] = _filter({FILTER[name][0]: getattr(arguments, name) * FILTER[name][1] for name in changed})
    return options


def _temperatures(first: float, step: float | None) -> tuple[float, ...]:
    """``first`` and what follows in steps, up to 1."""
    if not step:
        return (first,)
    if step < 0:
        raise UsageError(f"--temperature-increment-on-fallback: expected a positive number or None, got {step}")
    return (first, *(round(first + step * i, 6) for i in range(1, int((1.0 - first) / step + 1e-6) + 1)))


def _filter(changes: dict[str, float]) -> SpeechOptions:
    if "start_threshold" in changes:
        changes.setdefault("end_threshold", max(changes["start_threshold"] - 0.15, 0.01))
    try:
        return replace(FILTERED_SPEECH, **changes)
    except ValueError as error:
        text = str(error)
        for name, (option, _, _) in FILTER.items():
            text = text.replace(option, "--" + name.replace("_", "-"))
        raise UsageError(text) from error
