"""What the commands' flags have in common: spelling, types, and the choice of model."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from loquent.speech.runtime.options import OptionError
    from loquent.speech.runtime.task import Task
    from loquent.speech.tasks import RecognizerTask

T = TypeVar("T")

# What the options of models allow; a test compares these with them. Importing a model's options for `--help` would make
# the command line depend on the models that there are.
POLICIES = ("local-agreement", "alignatt", "incremental")
COMMIT_RULES = ("confident", "agreement", "hold-last", "at-once")
TASKS = ("transcribe", "translate")
HEADS = ("ctc", "transducer")
COMPUTE_TYPES = ("auto", "float32", "int8")
FLAGS = {"prompt": "initial_prompt", "phrases": "phrase", "temperatures": "temperature", "sample_len": "max_new_tokens"}
BOOLEANS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
SWITCHES = (
    *("--word-timestamps", "--highlight-words", "--condition-on-previous-text", "--carry-initial-prompt"),
    *("--verbose", "--vad-filter", "--multilingual", "--suppress-blank", "--without-timestamps", "--fp16"),
)


class CommandError(Exception):
    """A failure to tell the user about in one line."""


class UsageError(CommandError):
    """Flags that make no sense together."""


def normalised(argv: Sequence[str]) -> list[str]:
    """Give flags one spelling: ``--beam_size`` becomes ``--beam-size``, ``--verbose`` alone ``--verbose=True``.

    Values are left alone, and so is everything after ``--``.
    """
    tokens: list[str] = []
    words = list(argv)
    while words:
        word = words.pop(0)
        if word == "--":
            return [*tokens, word, *words]
        if word.startswith("--"):
            flag, equals, value = word.partition("=")
            word = flag.replace("_", "-") + equals + value
            if word in SWITCHES:
                word += "=" + (words.pop(0) if words and words[0].lower() in BOOLEANS else "True")
            elif not equals and words and re.fullmatch(r"-\d[\d.,-]*", words[0]):
                word += "=" + words.pop(0)  # numbers, of which argparse takes one that is negative, but no list
        tokens.append(word)
    return tokens


def boolean(text: str) -> bool:
    """Whisper's way to write a switch."""
    if text.lower() not in BOOLEANS:
        raise argparse.ArgumentTypeError(f"expected True or False, got {text!r}")
    return BOOLEANS[text.lower()]


def optional(kind: Callable[[str], T], none: T | None = None) -> Callable[[str], T | None]:
    """A value, or the one that None stands for."""

    def parse(text: str) -> T | None:
        return none if text.lower() == "none" else kind(text)

    parse.__name__ = kind.__name__  # argparse names it in errors
    return parse


def whole_number(least: int) -> Callable[[str], int]:
    """A whole number from ``least`` on."""

    def parse(text: str) -> int:
        number = int(text)
        if number < least:
            raise argparse.ArgumentTypeError(f"expected {least} or more, got {number}")
        return number

    parse.__name__ = "int"
    return parse


def device(text: str) -> str:
    """The name of a device."""
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", text):
        raise argparse.ArgumentTypeError(f"expected auto, cpu, cuda or cuda:N, got {text!r}")
    return text


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags that choose the model and where it runs."""
    group = add_device_arguments(parser)
    group.add_argument(
        "--model",
        metavar="NAME",
        help="name, folder or hub id; see `loquent models` (default: the installed one, tiny.en if there)",
    )
    group.add_argument(
        "--compute-type",
        choices=COMPUTE_TYPES,
        default="auto",
        metavar="TYPE",
        help="auto, float32 or int8 (default: auto, int8 on x86)",
    )
    group.add_argument("--head", choices=HEADS, help="of a Conformer that has both (default: transducer)")
    group.add_argument(
        "--adapter",
        action="append",
        default=[],
        dest="adapters",
        metavar="ADAPTER",
        help="low-rank adapter of the model (PEFT), folder or hub id; `serve` takes several, as NAME=ADAPTER; `none` "
        "declines the one that the policy incremental has by default",
    )


def add_device_arguments(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """Flags that say where a model runs; returns the group, to add others to."""
    group = parser.add_argument_group("model")
    group.add_argument(
        "--device", type=device, default="auto", help="where to compute: auto, cpu, cuda, cuda:1 (default: auto)"
    )
    group.add_argument(
        "--threads", type=whole_number(0), metavar="N", help="CPU threads (default: 0, which is all cores)"
    )
    return group


def add_language_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags that say what is spoken and what to write."""
    group = parser.add_argument_group("language")
    group.add_argument(
        "--language",
        type=optional(str),
        help="spoken language, as code or name; several, such as en,es: detect which of them (default: detect it)",
    )
    group.add_argument("--task", choices=TASKS, default="transcribe", help="translate writes English")
    group.add_argument("--initial-prompt", metavar="TEXT", help="text that might precede: names, spellings, style")
    group.add_argument(
        "--phrase",
        action="append",
        dest="phrases",
        metavar="TEXT",
        help="a name or term to prefer; may be given many times",
    )
    group.add_argument(
        "--phrase-boost", type=float, metavar="NATS", help="what a matching token of these gains (default: the model's)"
    )


def add_streaming_arguments(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """Flags of live recognition; returns the group, to add others to."""
    group = parser.add_argument_group("streaming")
    group.add_argument(
        "--policy",
        choices=POLICIES,
        help="when words are committed; incremental needs weights trained for it (default: incremental with an adapter "
        "for live audio, such as loquent's own for English, else local-agreement)",
    )
    group.add_argument(
        "--chunk-ms",
        type=int,
        metavar="MS",
        help="audio per step: less is quicker. A multiple of 20 (default: 1000, or 300 with incremental), or one of "
        "the latencies that a Conformer was made for, with recordings as well",
    )
    group.add_argument(
        "--commit",
        choices=COMMIT_RULES,
        help="when the policy incremental takes a word to be certain (default: confident)",
    )
    group.add_argument(
        "--block-ms",
        type=int,
        metavar="MS",
        help="audio that the encoder of the policy incremental sees together, a multiple of 20 from --chunk-ms on: "
        "more is more exact and costs more (default: 1000)",
    )
    group.add_argument(
        "--beam-size",
        type=optional(whole_number(1), none=1),
        metavar="INT",
        help="hypotheses followed; 1, or None, is greedy (default: 1 live; with recordings 5, at temperature 0)",
    )
    return group


def add_key_argument(parser: argparse.ArgumentParser, purpose: str) -> None:
    """The secret between server and clients."""
    parser.add_argument(
        "--api-key",
        default=os.environ.get("LOQUENT_API_KEY") or None,
        metavar="KEY",
        help=f"{purpose} (default: $LOQUENT_API_KEY, which other users of this machine cannot see)",
    )


def streaming_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """The streaming flags that were given, as options of ``streaming_task``."""
    names = ("policy", "chunk_ms", "commit", "block_ms", "beam_size", "head")
    return {name: getattr(arguments, name) for name in names if getattr(arguments, name) is not None}


def streaming_task(recognizer: RecognizerTask, arguments: argparse.Namespace) -> Task:
    """What an `Engine` runs, as the streaming flags and the language ask."""
    language = {"language": arguments.language} if arguments.language else {}
    return recognizer.streaming_task(**streaming_options(arguments), **language)


def stream_start_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """The language flags that were given, as options of a stream."""
    options: dict[str, Any] = {"language": arguments.language, "prompt": arguments.initial_prompt}
    options |= {"phrases": arguments.phrases, "phrase_boost": arguments.phrase_boost}
    if arguments.task != "transcribe":
        options["task"] = arguments.task
    return {name: value for name, value in options.items() if value is not None}


def recording_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """The language flags that were given, as options of recordings."""
    options = {"language": arguments.language, "task": arguments.task, "initial_prompt": arguments.initial_prompt}
    options |= {"phrases": arguments.phrases and tuple(arguments.phrases), "phrase_boost": arguments.phrase_boost}
    return {name: value for name, value in options.items() if value is not None}


def check_options(
    arguments: argparse.Namespace, recordings: dict[str, Any] | None = None, stream: dict[str, Any] | None = None
) -> None:
    """Refuse options before the model is loaded, which takes seconds: of recordings, or of live audio and a stream.

    Raises:
        OptionError: one is wrong; see `explained`.
    """
    from loquent.speech.tasks import load_task

    task = None
    if recordings is None:
        task = streaming_options(arguments)
        if "policy" not in task and ("commit" in task or "block_ms" in task):
            task["policy"] = "incremental"  # which the model may choose
        if arguments.language:
            task["language"] = arguments.language
    load_task("recognition options")(model_name(arguments), recordings=recordings, task=task, stream=stream)


def explained(error: OptionError, arguments: argparse.Namespace) -> str:
    """What is wrong with an option, as somebody who gave flags knows it."""
    from loquent.speech.runtime.options import UnknownOption

    def flag(name: str) -> str:
        public = FLAGS.get(name, name)
        known = hasattr(arguments, name) or hasattr(arguments, public)
        return "--" + public.replace("_", "-") if known else name

    if isinstance(error, UnknownOption):
        return f"{flag(error.name)} is not for the model {model_name(arguments)!r}, which has no such option"
    name, colon, rest = str(error).partition(":")
    return flag(name) + colon + re.sub(r"\b[a-z]+(_[a-z]+)+\b", lambda found: flag(found[0]), rest)


def load_recognizer(arguments: argparse.Namespace, several: bool = False) -> RecognizerTask:
    """The model that the flags ask for, with its adapter: a nameless one for everybody, ``several`` by name."""
    from loquent.speech.tasks import load_task

    named = [adapter.partition("=") for adapter in arguments.adapters if "=" in adapter]
    nameless = [adapter for adapter in arguments.adapters if "=" not in adapter]
    if len(nameless) > 1:
        raise UsageError(f"--adapter {nameless[1]} is one too many: only one can be without a NAME= and for everybody")
    if named and not several:
        raise UsageError(f"--adapter {'='.join(named[0][::2])} has a name; only `loquent serve` gives streams a choice")
    recognizer: RecognizerTask = load_task("recognizer").from_pretrained(
        model_name(arguments),
        device=arguments.device,
        compute_type=arguments.compute_type,
        threads=arguments.threads,
        adapter=nameless[0] if nameless else None,
    )
    for name, _, folder in named:
        recognizer.add_adapter(name, folder, default=not nameless and name == named[0][0])
    return recognizer


def model_name(arguments: argparse.Namespace) -> str:
    """The model asked for; else the first installed one that can do what is asked, else one to be fetched."""
    if arguments.model is not None:
        return arguments.model
    from loquent.speech.hub import PACKAGES, SHIPPED, installed

    language = (getattr(arguments, "language", None) or "en").lower()
    multilingual = language not in ("en", "english") or getattr(arguments, "task", None) == "translate"
    packages = [package for package in PACKAGES.values() if package.task == "recognizer"]
    names = [package.name for package in packages if package.locate() is not None]
    # What comes with loquent knows a few words only: nobody gets it without asking.
    found = (one for one in installed() if one.task == "recognizer") if not names else ()
    names = names or [checkpoint.name for checkpoint in found if checkpoint.name not in SHIPPED]
    fitting = [name for name in names if not (multilingual and name.endswith(".en"))]
    return [*fitting, "base" if multilingual else "tiny.en"][0]


def voice_name(asked: str | None) -> str:
    """The voice asked for; else the first one of a package that is installed, else the one that comes with loquent."""
    if asked is not None:
        return asked
    from loquent.speech.hub import PACKAGES

    packages = (package for package in PACKAGES.values() if package.task == "synthesizer")
    return next((package.name for package in packages if package.locate() is not None), "loquent/voice")
