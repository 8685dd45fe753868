"""``loquent transcribe``: recordings to text and captions, with Whisper's flags, whole or as if they were live."""

from __future__ import annotations

import argparse
import functools
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from loquent.speech.captions import FORMATS, CaptionOptions
from loquent.speech.commands.arguments import (
    UsageError,
    add_language_arguments,
    add_model_arguments,
    add_streaming_arguments,
    boolean,
    load_recognizer,
    optional,
    stream_start_options,
    streaming_options,
    streaming_task,
)
from loquent.speech.commands.recordings import Recording, find_recordings
from loquent.speech.commands.results import Results, progress_bar
from loquent.speech.transcript import Segment

# Flags of whole recordings; their values are passed on under these names if they are given.
OFFLINE: dict[str, tuple[Callable[[str], Any], str]] = {
    "best_of": (int, "samples drawn at higher temperatures (default: 5)"),
    "patience": (float, "beam search goes on until PATIENCE · BEAM_SIZE hypotheses have ended (default: 1)"),
    "length_penalty": (float, "log-probabilities are divided by length to this power (default: 1)"),
    "temperature": (float, "of the first attempt at a window (default: 0)"),
    "temperature_increment_on_fallback": (optional(float), "added after a failed attempt, or None (default: 0.2)"),
    "compression_ratio_threshold": (optional(float), "text that compresses better fails: it repeats (default: 2.4)"),
    "logprob_threshold": (optional(float), "text with a lower average log-probability fails (default: -1)"),
    "no_speech_threshold": (optional(float), "likelier silence is skipped if the text failed too (default: 0.6)"),
    "condition_on_previous_text": (boolean, "prompt each window with the text before it (default: True)"),
    "suppress_tokens": (str, "tokens never written, separated by commas; -1: what is not speech (default: -1)"),
    "vad_filter": (boolean, "leave out pauses of two seconds and more (default: False)"),
    "batch_size": (int, "windows in the model at once, of files or of one file filtered and unprompted (default: 8)"),
}


def add_parser(commands: Any) -> argparse.ArgumentParser:
    """Add the command."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "transcribe",
        help="write recordings down",
        description="Write recordings down. Text goes to standard output, each recording's under its name if there are "
        "several; with --output-dir it goes to one file a recording and format.",
        epilog="As in Whisper, flags may have underscores, and BOOL is True or False, or left out for True.",
        allow_abbrev=False,
    )
    parser.add_argument("files", nargs="+", metavar="FILE", help="recordings, folders, patterns, - for standard input")
    output = parser.add_argument_group("output")
    output.add_argument("--output-format", "-f", choices=(*FORMATS, "all"), help="format of the result (default: txt)")
    output.add_argument("--output-dir", "-o", type=Path, metavar="FOLDER", help="write files here, not standard output")
    output.add_argument("--word-timestamps", type=boolean, default=False, metavar="BOOL", help="time every word (json)")
    output.add_argument("--max-line-width", type=int, metavar="N", help="characters in a line of captions")
    output.add_argument("--max-line-count", type=int, metavar="N", help="lines in a caption")
    output.add_argument(
        "--highlight-words", type=boolean, default=False, metavar="BOOL", help="underline each word while it is said"
    )
    output.add_argument(
        "--verbose", type=boolean, metavar="BOOL", help="True: every segment on stderr; False: no progress bar either"
    )
    add_language_arguments(parser)
    add_model_arguments(parser)
    decoding = parser.add_argument_group("decoding of whole recordings")
    for name, (kind, text) in OFFLINE.items():
        metavar = getattr(kind, "__name__", "value").replace("boolean", "bool").upper()
        decoding.add_argument(
            "--" + name.replace("_", "-"), type=kind, default=argparse.SUPPRESS, metavar=metavar, help=text
        )
    streaming = add_streaming_arguments(parser)
    streaming.add_argument("--stream", action="store_true", help="recognise as if live, and show the text as it comes")
    streaming.add_argument("--realtime", action="store_true", help="play the recording at its own speed")
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Transcribe every recording there is; 1 if one could not be read."""
    options = _options(arguments)
    layout = CaptionOptions(arguments.max_line_width, arguments.max_line_count, arguments.highlight_words)
    with tempfile.TemporaryDirectory(prefix="loquent-") as scratch:
        recordings, failures = find_recordings(arguments.files, Path(scratch))
        format = arguments.output_format or "txt"
        if arguments.output_dir is None and format != "txt" and (format == "all" or len(recordings) > 1):
            raise UsageError(f"{format} of {len(recordings)} recordings does not fit one stream; pass --output-dir .")
        results = Results(
            recordings, failures, format, arguments.output_dir, layout, arguments.stream, arguments.verbose
        )
        with results:
            if recordings:
                (_stream if arguments.stream else _transcribe)(arguments, recordings, options, results)
    return 1 if results.failures else 0


def _options(arguments: argparse.Namespace) -> dict[str, Any]:
    """Options of the recogniser, or of its stream; flags of the other one are refused rather than ignored."""
    offline = {name: getattr(arguments, name) for name in OFFLINE if hasattr(arguments, name)}
    streaming = streaming_options(arguments) | ({"realtime": True} if arguments.realtime else {})
    # What recordings have as well: a Conformer one of its heads and latencies (a Whisper will say that it has none).
    shared = {name: streaming.pop(name) for name in ("head", "chunk_ms", "beam_size") if name in streaming}
    wrong, why = (offline, "has no effect with --stream") if arguments.stream else (streaming, "needs --stream")
    if wrong:
        raise UsageError(f"--{next(iter(wrong)).replace('_', '-')} {why}")
    if arguments.stream:
        return stream_start_options(arguments)
    options: dict[str, Any] = {"language": arguments.language, "task": arguments.task} | offline | shared
    if arguments.initial_prompt is not None:
        options["initial_prompt"] = arguments.initial_prompt
    if arguments.phrases is not None:
        options["phrases"] = tuple(arguments.phrases)
    options["word_timestamps"] = (
        arguments.word_timestamps or arguments.highlight_words or arguments.max_line_count is not None
    )
    if "temperature" in options or "temperature_increment_on_fallback" in options:
        first = options.pop("temperature", 0.0)
        step = options.pop("temperature_increment_on_fallback", 0.2)
        options["temperatures"] = _temperatures(first, step)
    if "suppress_tokens" in options:
        options["suppress_tokens"] = _tokens(options["suppress_tokens"])
    return options


def _temperatures(first: float, step: float | None) -> tuple[float, ...]:
    """``first`` and what follows in steps, up to 1."""
    if not step:
        return (first,)
    if step < 0:
        raise UsageError(f"--temperature-increment-on-fallback is positive or None, got {step}")
    return (first, *(round(first + step * i, 6) for i in range(1, int((1.0 - first) / step + 1e-6) + 1)))


def _tokens(text: str) -> tuple[int, ...] | None:
    if text.strip() == "-1":
        return None
    try:
        return tuple(int(token) for token in text.split(",") if token.strip())
    except ValueError as error:
        raise UsageError(f"--suppress-tokens is -1 or numbers separated by commas, got {text!r}") from error


def _transcribe(
    arguments: argparse.Namespace, recordings: list[Recording], options: dict[str, Any], results: Results
) -> None:
    """Whole recordings, many in a batch."""
    from loquent.speech.audio.errors import AudioError

    with progress_bar(recordings, shown=arguments.verbose is not False) as progress:
        recognizer = load_recognizer(arguments)
        if arguments.adapters and recognizer.live_adapter:
            raise UsageError(f"--adapter {arguments.adapters[0]} was trained for live audio; it needs --stream")
        recognizer.batch = options.pop("batch_size", recognizer.batch)
        sources = [one.path for one in recordings]
        for number, item in recognizer.segments(sources, progress=progress(recordings), **options):
            if isinstance(item, AudioError):
                results.failed(recordings[number], item)
            elif isinstance(item, Segment):
                results.add(recordings[number], item)
            else:
                results.finished(recordings[number], item.language)


def _stream(
    arguments: argparse.Namespace, recordings: list[Recording], options: dict[str, Any], results: Results
) -> None:
    """One recording after the other, through a session as live audio would go."""
    from loquent.speech.audio.errors import AudioError
    from loquent.speech.audio.sources import file_source
    from loquent.speech.commands.display import live_display
    from loquent.speech.commands.live import Captions, follow, locally
    from loquent.speech.runtime.engine import Engine

    recognise = locally(Engine(streaming_task(load_recognizer(arguments), arguments)), **options)
    for recording in recordings:
        display = live_display(sys.stdout)
        listeners = [Captions(functools.partial(results.add, recording)).show]
        try:
            source = file_source(recording.path, realtime=arguments.realtime)
            if results.displayed:
                results.head(recording)
                listeners.append(display.show)
            interrupted = follow(source, recognise, listeners)
        except AudioError as error:
            results.failed(recording, error)
        else:
            if interrupted:
                raise KeyboardInterrupt
            results.finished(recording, arguments.language)
        finally:
            display.close()
