"""What the commands that translate have in common: flags, the choice of a model, and whole texts in batches."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loquent.speech.commands.arguments import CommandError, UsageError
from loquent.speech.text.languages import LANGUAGES, language_code

if TYPE_CHECKING:
    from loquent.speech.runtime.engine import Engine
    from loquent.speech.tasks import TranslatorTask

# What `TranslationOptions` allows; a test compares these with it.
TRANSLATION_POLICIES = (
    *("wait-k", "local-agreement", "hold", "ralcp", "alignatt", "learned", "re-translation", "offline"),
)
LATENCIES = ("low", "medium", "high")
TERMS = ("glossary", "keep")
BATCH = 16  # texts that are translated together


def language(text: str) -> str:
    """The code of a language that is given by code or English name."""
    try:
        return language_code(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no language; expected a code such as es, or a name") from error


def add_term_arguments(group: argparse._ArgumentGroup) -> None:
    """Flags for words whose translation is given."""
    group.add_argument(
        "--glossary",
        type=Path,
        metavar="FILE",
        help='what to write for phrases: JSON, {"phrase": "translation"}, or lines of phrase, tab, translation',
    )
    group.add_argument(
        "--keep", action="append", metavar="TERM", help="a name or phrase to write as it is; may be given many times"
    )


def term_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """The glossary's content and the terms to keep, where given.

    Raises:
        CommandError: the file is no glossary.
    """
    options: dict[str, Any] = {}
    if arguments.glossary is not None:
        options["glossary"] = _glossary(arguments.glossary)
    if arguments.keep is not None:
        options["keep"] = tuple(arguments.keep)
    return options


def _glossary(path: Path) -> dict[str, str]:
    from loquent.speech.commands.translation.texts import read_text
    from loquent.speech.json_files import read_json_object

    if path.suffix.lower() == ".json":
        terms = read_json_object(path)
        wrong = next((name for name, text in terms.items() if not isinstance(text, str)), None)
        if wrong is not None:
            raise CommandError(f"{path}: expected a text for {wrong!r}, got {terms[wrong]!r}")
        return terms
    terms = {}
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if not line.strip():
            continue
        phrase, tab, text = line.partition("\t")
        if not tab or not phrase.strip() or not text.strip():
            raise CommandError(f"{path}, line {number}: expected phrase, tab, translation, got {line[:60]!r}")
        terms[phrase.strip()] = text.strip()
    return terms


def pairs() -> dict[tuple[str, str], str]:
    """The models that come with loquent, by the codes of their languages."""
    from loquent.speech.hub import SHIPPED

    names = (name for name, (package, _) in SHIPPED.items() if package == "loquent.translate")
    found = {name: re.fullmatch(r"loquent/([a-z]+)-([a-z]+)", name) for name in names}
    return {(match[1], match[2]): name for name, match in found.items() if match}


def translation_model_name(asked: str | None, source: str, target: str, flag: str = "model") -> str:
    """The model asked for with a flag, else the one that comes with loquent for two languages, by their codes.

    Raises:
        UsageError: none does.
    """
    if asked is not None:
        return asked
    if (source, target) in pairs():
        return pairs()[source, target]
    known = ", ".join(f"{name} ({LANGUAGES[a]} to {LANGUAGES[b]})" for (a, b), name in pairs().items())
    raise UsageError(
        f"no model that comes with loquent translates {LANGUAGES[source]} to {LANGUAGES[target]}; there are {known}. "
        f"Pass another as --{flag}: a folder, or a hub id; docs/how-to/translate.md says which kinds there are"
    )


def load_translator(
    name: str, arguments: argparse.Namespace, source: str | None = None, target: str | None = None
) -> TranslatorTask:
    """Load a model, whose languages have to be those asked for.

    Raises:
        UsageError: it translates between others.
    """
    from loquent.speech.tasks import load_task

    translator: TranslatorTask = load_task("translator").from_pretrained(
        name, device=arguments.device, threads=arguments.threads
    )
    for asked, has, what in ((source, translator.source, "from"), (target, translator.target, "to")):
        if asked is not None and asked != has:
            raise UsageError(
                f"the model {name!r} translates from {told(translator.source)} to {told(translator.target)}, "
                f"not {what} {told(asked)}; leave the model out, or pass one for these languages"
            )
    return translator


def told(code: str) -> str:
    """A language as people know it."""
    return f"{LANGUAGES[code]} ({code})" if code in LANGUAGES else repr(code)


def translated(
    engine: Engine, texts: Sequence[str], done: Callable[[int], None] | None = None, **options: Any
) -> Iterator[list[Any]]:
    """The events of whole texts, in order, many in a batch.

    Args:
        done: told the number of characters of each batch when it is done.
        options: of each stream.

    Raises:
        CommandError: one failed.
    """
    from loquent.speech.runtime.texts import whole_texts

    waiting = 0
    for number, events in enumerate(whole_texts(engine, texts, **options), 1):
        yield [*sound(events)]
        waiting += len(texts[number - 1])
        if done is not None and (number % engine.capacity == 0 or number == len(texts)):
            done(waiting)
            waiting = 0


def sound(events: Sequence[Any]) -> Iterator[Any]:
    """Events of a stream that goes on.

    Raises:
        CommandError: it has failed.
    """
    for event in events:
        if event.type == "failure":
            raise CommandError(event.message)
        yield event


def text_of(events: Sequence[Any]) -> str:
    """What is committed."""
    return "".join(event.text for event in events if event.type == "translation")
