"""``loquent corpus``: recordings and texts by the thousand, on one machine or on Ray, resumed after a kill."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loquent.speech.commands.arguments import (
    CommandError,
    UsageError,
    add_device_arguments,
    add_language_arguments,
    add_model_arguments,
    boolean,
    check_options,
    model_name,
    optional,
    recording_options,
    voice_name,
    whole_number,
)
from loquent.speech.commands.decoding import add_decoding_arguments, decoding_options
from loquent.speech.commands.speak import AUDIO_ENDINGS, add_voice_arguments, voice_options
from loquent.speech.commands.translate import DEFAULT_SOURCE
from loquent.speech.commands.translation.models import (
    add_term_arguments,
    language,
    term_options,
    translation_model_name,
)
from loquent.speech.runtime.options import parse_options

if TYPE_CHECKING:
    from loquent.speech.corpus.items import Item
    from loquent.speech.corpus.run import Execute, Progress
    from loquent.speech.corpus.workers import Job


def add_parser(commands: Any) -> argparse.ArgumentParser:
    """Add the command, which has one of its own for each kind of work."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "corpus",
        help="transcribe, speak or translate a corpus, on a cluster too, and go on after a kill",
        description="Work through a manifest. Every item gets one result, in OUTPUT/results.jsonl, whatever happens "
        "meanwhile: the same command again goes on where it was stopped.",
        allow_abbrev=False,
    )
    works = parser.add_subparsers(metavar="WORK", required=True, dest="work", parser_class=type(parser))
    _add_transcribe(works)
    _add_speak(works)
    _add_translate(works)
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Do what is left to do; 1 if an item has an error for a result."""
    job = JOBS[arguments.work](arguments)
    from loquent.speech.corpus.run import in_this_process, work_through

    execute: Execute = in_this_process
    if arguments.ray is not None:
        execute = _on_ray(arguments)
    elif arguments.workers is not None:
        raise UsageError("--workers needs --ray; without it, one process does the work, with all --threads")
    items = _items(arguments.manifest, job)
    with _progress_bar(job.work) as progress:
        outcome = work_through(job, items, execute, retry=arguments.retry_errors, progress=progress)
    if arguments.lhotse:
        _write_supervisions(job, items)
    told = f"{outcome.items} items, {outcome.before} of them done before, {outcome.errors} with errors"
    print(f"loquent: {job.output / 'results.jsonl'}: {told}", file=sys.stderr)
    return 1 if outcome.errors else 0


def _add_work(works: Any, name: str, help: str, manifest: str) -> argparse.ArgumentParser:
    """A kind of work, with the flags that all have."""
    parser: argparse.ArgumentParser = works.add_parser(name, help=help, description=help + ".", allow_abbrev=False)
    parser.add_argument("manifest", type=Path, metavar="MANIFEST", help=manifest)
    output = parser.add_argument_group("output")
    output.add_argument(
        "--output", "-o", type=Path, required=True, metavar="FOLDER", help="where results are, and are added to"
    )
    output.add_argument("--lhotse", action="store_true", help="write supervisions.jsonl for lhotse, too")
    output.add_argument("--retry-errors", action="store_true", help="do items again that had an error")
    cluster = parser.add_argument_group("cluster")
    cluster.add_argument(
        "--ray",
        nargs="?",
        const="",
        default=os.environ.get("RAY_ADDRESS") or None,
        metavar="ADDRESS",
        help="work on a Ray cluster; without an ADDRESS, on that of this machine, or one started for this run "
        "(default: $RAY_ADDRESS, else no Ray)",
    )
    cluster.add_argument(
        "--workers", type=whole_number(1), metavar="N", help="models on the cluster (default: as many as have room)"
    )
    return parser


def _add_transcribe(works: Any) -> None:
    manifest = "JSONL, lhotse cuts, a zip archive, a folder, or an audio file"
    parser = _add_work(works, "transcribe", "write the recordings of a corpus down", manifest)
    parser.add_argument("--word-timestamps", type=boolean, default=False, metavar="BOOL", help="time every word")
    add_language_arguments(parser)
    add_model_arguments(parser)
    add_decoding_arguments(parser)
    parser.add_argument(
        "--beam-size", type=optional(whole_number(1), none=1), metavar="INT", help="hypotheses followed (default: 5)"
    )


def _add_speak(works: Any) -> None:
    parser = _add_work(works, "speak", "read the texts of a corpus aloud", "JSONL, lhotse cuts, or a folder of *.txt")
    parser.add_argument("--ending", choices=AUDIO_ENDINGS, default=".wav", help="format of the speech (default: .wav)")
    add_voice_arguments(parser)


def _add_translate(works: Any) -> None:
    parser = _add_work(
        works, "translate", "translate the texts of a corpus", "JSONL, lhotse cuts, or a folder of *.txt"
    )
    languages = parser.add_argument_group("language")
    languages.add_argument(
        "--from", type=language, dest="source", metavar="LANGUAGE", help="code or name (default: en)"
    )
    languages.add_argument(
        "--to", type=language, dest="target", metavar="LANGUAGE", help="code or name (default: the model's)"
    )
    add_term_arguments(languages)
    model = add_device_arguments(parser)
    model.add_argument("--model", metavar="NAME", help="name, folder or hub id (default: the one for the languages)")
    model.add_argument(
        "--beam-size", type=optional(whole_number(1), none=1), metavar="N", help="hypotheses followed (default: 1)"
    )


def _transcription(arguments: argparse.Namespace) -> Job:
    options = recording_options(arguments) | decoding_options(arguments)
    chosen = {"word_timestamps": arguments.word_timestamps, "beam_size": arguments.beam_size, "head": arguments.head}
    options |= {name: value for name, value in chosen.items() if value is not None}
    check_options(arguments, recordings=options)
    if len(arguments.adapters) > 1:
        raise UsageError(f"--adapter {arguments.adapters[1]} is one too many: recordings go through one at most")
    load = {"compute_type": arguments.compute_type, "adapter": next(iter(arguments.adapters), None)}
    return _job(arguments, model_name(arguments), options, load=load, batch=getattr(arguments, "batch_size", 8))


def _speech(arguments: argparse.Namespace) -> Job:
    from loquent.speech.tasks import load_task

    name, options = voice_name(arguments.model), voice_options(arguments)
    parse_options(load_task("synthesis options")(name), options)
    return _job(arguments, name, options, ending=arguments.ending)


def _translation(arguments: argparse.Namespace) -> Job:
    from loquent.speech.tasks import load_task

    if arguments.model is None and arguments.target is None:
        raise UsageError("--to says which language to translate to, such as --to es; or pass a --model")
    source, target = arguments.source, arguments.target
    name = translation_model_name(arguments.model, source or DEFAULT_SOURCE, target or "")
    options = {"policy": "offline", **term_options(arguments)}
    if arguments.beam_size is not None:
        options["beam_size"] = arguments.beam_size
    parse_options(load_task("translation options"), options)
    return _job(arguments, name, options, source=source, target=target)


def _job(arguments: argparse.Namespace, model: str, options: Mapping[str, Any], **more: Any) -> Job:
    from loquent.speech.corpus.workers import Job

    folder = Path(os.path.abspath(arguments.output))  # workers may be elsewhere
    return Job(
        arguments.work, model, folder, options=options, device=arguments.device, threads=arguments.threads, **more
    )


JOBS: dict[str, Callable[[argparse.Namespace], Job]] = {
    "transcribe": _transcription,
    "speak": _speech,
    "translate": _translation,
}


def _items(manifest: Path, job: Job) -> list[Item]:
    """The items of a manifest; of a folder without one, and of an audio file, its recordings."""
    from loquent.speech.commands.recordings import AUDIO_ENDINGS, find_recordings
    from loquent.speech.corpus.items import Item
    from loquent.speech.corpus.manifest import read_corpus

    audio = manifest.suffix.lower() in AUDIO_ENDINGS
    if job.kind == "text" or not (audio or (manifest.is_dir() and not (manifest / "manifest.jsonl").exists())):
        return read_corpus(manifest, job.kind)
    recordings, failures = find_recordings([str(manifest)], manifest)
    for name, reason in failures.items():
        raise CommandError(f"{name}: {reason}")
    folder = manifest if manifest.is_dir() else manifest.parent
    names = [recording.path.relative_to(folder).as_posix() for recording in recordings]
    return [Item(name, path=os.path.abspath(folder / name), written=name) for name in names]


def _on_ray(arguments: argparse.Namespace) -> Execute:
    import importlib.util

    if importlib.util.find_spec("ray") is None:
        raise CommandError('--ray needs the package ray; in a checkout of loquent: pip install ".[ray]"')
    from loquent.speech.corpus.on_ray import OnRay

    return OnRay(arguments.ray or None, arguments.workers)


def _write_supervisions(job: Job, items: list[Item]) -> None:
    from loquent.speech.corpus.journal import Journal
    from loquent.speech.corpus.supervisions import write_supervisions

    with Journal(job.output, job.settings) as journal:
        write_supervisions(job.output / "supervisions.jsonl", job.work, items, journal.records())


@contextlib.contextmanager
def _progress_bar(work: str) -> Iterator[Callable[[Progress], None]]:
    """A bar over items on standard error, if that is a terminal."""
    if not sys.stderr.isatty():
        yield lambda progress: None
        return
    from tqdm import tqdm

    layout = "{desc} {percentage:3.0f}% |{bar:24}| [{elapsed}<{remaining}]"
    with tqdm(desc="loading the model", bar_format=layout, leave=False, smoothing=0.0) as bar:

        def update(progress: Progress) -> None:
            if bar.total is None:
                bar.reset(total=progress.of_seconds or None)
            elif progress.items:
                bar.set_description_str(f"{work}: {progress.items} of {progress.of} items", refresh=False)
            bar.update(progress.seconds - bar.n)

        yield update
