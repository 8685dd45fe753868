"""``loquent transcribe``: recordings to text and captions, with Whisper's flags, whole or as if they were live."""

from __future__ import annotations

import argparse
import functools
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from loquent.speech.captions import FORMATS, CaptionOptions
from loquent.speech.commands.arguments import (
    CommandError,
    UsageError,
    add_language_arguments,
    add_model_arguments,
    add_streaming_arguments,
    boolean,
    check_options,
    load_recognizer,
    model_name,
    optional,
    recording_options,
    stream_start_options,
    streaming_options,
    streaming_task,
    whole_number,
)
from loquent.speech.commands.decoding import add_decoding_arguments, decoding_options, given
from loquent.speech.commands.output import Output
from loquent.speech.commands.recordings import Recording, find_recordings
from loquent.speech.commands.results import Results, progress_bar
from loquent.speech.commands.translation.models import BATCH, term_options
from loquent.speech.commands.translation.translate_to import (
    Asked,
    LiveTranslation,
    SegmentTranslator,
    add_translate_to_arguments,
    load_asked,
    translation_asked,
)
from loquent.speech.runtime.options import OptionError
from loquent.speech.text.languages import only_language
from loquent.speech.transcript import Segment


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
    output.add_argument(
        "--skip-existing", action="store_true", help="pass over recordings whose files are in --output-dir already"
    )
    output.add_argument(
        "--max-line-width", type=optional(whole_number(1)), metavar="N", help="characters in a line of captions"
    )
    output.add_argument("--max-line-count", type=optional(whole_number(1)), metavar="N", help="lines in a caption")
    output.add_argument("--max-words-per-line", type=optional(whole_number(1)), metavar="N", help="words in a caption")
    output.add_argument(
        "--highlight-words", type=boolean, default=False, metavar="BOOL", help="underline each word while it is said"
    )
    output.add_argument(
        "--verbose", type=boolean, metavar="BOOL", help="True: every segment on stderr; False: no progress bar either"
    )
    add_language_arguments(parser)
    add_translate_to_arguments(parser)
    add_model_arguments(parser)
    whisper = parser.add_argument_group("Whisper's")
    whisper.add_argument("--model-dir", metavar="FOLDER", help="where models are fetched to (default: $HF_HUB_CACHE)")
    whisper.add_argument(
        "--fp16", type=boolean, metavar="BOOL", help="False is --compute-type float32; True is refused"
    )
    add_decoding_arguments(parser)
    streaming = add_streaming_arguments(parser)
    streaming.add_argument("--stream", action="store_true", help="recognise as if live, and show the text as it comes")
    streaming.add_argument("--realtime", action="store_true", help="play the recording at its own speed")
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Transcribe every recording there is; 1 if one could not be read or written."""
    asked = translation_asked(arguments)
    options = _options(arguments)
    format = arguments.output_format or "txt"
    try:
        layout = CaptionOptions(
            arguments.max_line_width,
            arguments.max_line_count,
            arguments.highlight_words,
            arguments.max_words_per_line,
            translated=asked is not None,
        )
    except ValueError as error:
        raise OptionError(str(error)) from error
    if arguments.skip_existing and arguments.output_dir is None:
        raise UsageError("--skip-existing needs --output-dir, where the files would be")
    with tempfile.TemporaryDirectory(prefix="loquent-") as scratch:
        recordings, failures = find_recordings(arguments.files, Path(scratch))
        if arguments.output_dir is None and format != "txt" and (format == "all" or len(recordings) > 1):
            raise UsageError(f"{format} of {len(recordings)} recordings does not fit one stream; pass --output-dir .")
        output = Output(format, arguments.output_dir, layout)
        if arguments.skip_existing and (done := [one for one in recordings if output.exists(one)]):
            recordings = [one for one in recordings if one not in done]
            print(f"loquent: {len(done)} of {len(done) + len(recordings)} have their files already", file=sys.stderr)
        results = Results(recordings, failures, output, arguments.stream, arguments.verbose)
        with results:
            if recordings:
                (_stream if arguments.stream else _transcribe)(arguments, recordings, options, results, asked)
    return 1 if results.failures else 0


def _options(arguments: argparse.Namespace) -> dict[str, Any]:
    """Options of the recogniser, or of its stream; flags of the other one are refused rather than ignored.

    Raises:
        UsageError: flags make no sense together.
        OptionError: a value is wrong, as far as can be told without the model.
    """
    if arguments.fp16:
        raise UsageError("--fp16 True: models compute in float32 or int8 here; leave it out, or pass --compute-type")
    if arguments.fp16 is False and arguments.compute_type == "auto":
        arguments.compute_type = "float32"
    live = streaming_options(arguments) | ({"realtime": True} if arguments.realtime else {})
    # What recordings have as well: a Conformer one of its heads and latencies (a Whisper will say that it has none).
    shared = {name: live.pop(name) for name in ("head", "chunk_ms", "beam_size") if name in live}
    if wrong := given(arguments) if arguments.stream else list(live):
        why = "has no effect with --stream" if arguments.stream else "needs --stream"
        raise UsageError(f"--{wrong[0].replace('_', '-')} {why}")
    if arguments.stream:
        options = stream_start_options(arguments)
        check_options(arguments, stream=options)
        return options
    options = recording_options(arguments) | decoding_options(arguments) | shared
    timed = (arguments.max_line_count, arguments.max_words_per_line, options.get("hallucination_silence_threshold"))
    options["word_timestamps"] = (
        arguments.word_timestamps or arguments.highlight_words or any(one is not None for one in timed)
    )
    check_options(arguments, recordings=options)
    return options


def _transcribe(
    arguments: argparse.Namespace,
    recordings: list[Recording],
    options: dict[str, Any],
    results: Results,
    asked: Asked | None,
) -> None:
    """Whole recordings, many in a batch."""
    from loquent.speech.audio.errors import AudioError

    with progress_bar(recordings, shown=arguments.verbose is not False) as progress:
        recognizer = load_recognizer(arguments)
        if arguments.adapters and recognizer.live_adapter:
            raise UsageError(f"--adapter {arguments.adapters[0]} was trained for live audio; it needs --stream")
        recognizer.batch = getattr(arguments, "batch_size", recognizer.batch)
        sources = [one.path for one in recordings]
        items: Iterator[tuple[int, Any]] = recognizer.segments(sources, progress=progress(recordings), **options)
        if asked is not None:
            items = _translator(arguments, asked).items(items)
        for number, item in items:
            if isinstance(item, AudioError | CommandError):
                results.failed(recordings[number], item)
            elif isinstance(item, Segment):
                results.add(recordings[number], item)
            else:
                results.finished(recordings[number], item.language, item.warnings)


def _translator(arguments: argparse.Namespace, asked: Asked) -> SegmentTranslator:
    from loquent.speech.runtime.engine import Engine

    engine = Engine(load_asked(asked, arguments).streaming_task(), BATCH)
    early = (
        only_language(arguments.language) is not None
        or arguments.task == "translate"
        or model_name(arguments).endswith(".en")
    )
    return SegmentTranslator(engine, asked, early, arguments.task == "translate", term_options(arguments))


def _stream(
    arguments: argparse.Namespace,
    recordings: list[Recording],
    options: dict[str, Any],
    results: Results,
    asked: Asked | None,
) -> None:
    """One recording after the other, through a session as live audio would go."""
    from loquent.speech.audio.errors import AudioError
    from loquent.speech.audio.sources import file_source
    from loquent.speech.commands.display import live_display
    from loquent.speech.commands.live import Captions, LocalRecognition, follow
    from loquent.speech.commands.translation.side_by_side import bilingual_display
    from loquent.speech.runtime.engine import Engine

    engine = Engine(streaming_task(load_recognizer(arguments), arguments))
    translation = None if asked is None else LiveTranslation(asked, arguments)
    recognition = LocalRecognition(engine, translation, **options)
    for recording in recordings:
        display = live_display(sys.stdout) if asked is None else bilingual_display(sys.stdout)
        captions = Captions(functools.partial(results.add, recording), asked is not None)
        listeners = [captions.show]
        try:
            source = file_source(recording.path, realtime=arguments.realtime)
            if results.displayed:
                results.head(recording)
                listeners.append(display.show)
            interrupted = follow(source, recognition, listeners)
        except (AudioError, CommandError) as error:
            captions.close()
            results.failed(recording, error)
        else:
            captions.close()
            if interrupted:
                raise KeyboardInterrupt
            results.finished(recording, recognition.language, source.warnings)
        finally:
            display.close()
