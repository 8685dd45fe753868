"""``--translate-to``: what is recognised, in a second language."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from loquent.speech.commands.arguments import CommandError, UsageError, whole_number
from loquent.speech.commands.translation.models import (
    TRANSLATION_POLICIES,
    add_term_arguments,
    language,
    load_translator,
    term_options,
    told,
    translated,
    translation_model_name,
)
from loquent.speech.text.languages import only_language
from loquent.speech.transcript import Segment

if TYPE_CHECKING:
    from loquent.speech.runtime.engine import Engine
    from loquent.speech.runtime.pipeline import Pipeline
    from loquent.speech.runtime.session import Session
    from loquent.speech.tasks import TranslatorTask


def add_translate_to_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of commands that recognise, to translate what they write down."""
    group = parser.add_argument_group("translation")
    group.add_argument(
        "--translate-to", type=language, metavar="LANGUAGE", help="translate the text, too, and show both languages"
    )
    group.add_argument(
        "--translate-model", metavar="NAME", help="name, folder or hub id of the model (default: by the languages)"
    )
    group.add_argument(
        "--translate-policy", choices=TRANSLATION_POLICIES, metavar="POLICY", help="live: when a word is written"
    )
    group.add_argument(
        "--translate-k", type=whole_number(1), metavar="N", help="live: words read ahead with wait-k (default: 3)"
    )
    add_term_arguments(group)


def translate_to_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """The options that those flags ask of a translator.

    Raises:
        UsageError: they need --translate-to.
    """
    given = {"policy": arguments.translate_policy, "k": arguments.translate_k}
    options = {name: value for name, value in given.items() if value is not None} | term_options(arguments)
    if arguments.translate_to is None and (options or arguments.translate_model):
        names = {"policy": "translate-policy", "k": "translate-k"}
        flag = names.get(next(iter(options)), next(iter(options))) if options else "translate-model"
        raise UsageError(f"--{flag} needs --translate-to")
    return options


class Asked(NamedTuple):
    """A translation that --translate-to asks for: the model's name, and the codes of its languages."""

    model: str
    source: str
    target: str

    def check(self, language: str | None) -> None:
        """Refuse speech in another language than the model's.

        Raises:
            CommandError: it is.
        """
        if language is not None and language != self.source:
            raise CommandError(
                f"the speech is {told(language)}, but {self.model!r} translates from {told(self.source)}; pass "
                f"--language {language} for another model, or --language {self.source} if this is wrong"
            )


def translation_asked(arguments: argparse.Namespace, remote: bool = False) -> Asked | None:
    """What --translate-to asks for; None without. A ``remote`` model has no name here.

    Where no model translates to English, the recogniser does so itself, if it is one of many languages: that is
    ``--task translate``, which the arguments say from then on.

    Raises:
        UsageError: no model translates so.
    """
    translate_to_options(arguments)
    target, task = arguments.translate_to, arguments.task
    if target is None:
        return None
    known = only_language(arguments.language)
    if target == "en" and task == "transcribe" and known != "en" and not arguments.translate_model:
        arguments.task = "translate"
        print("loquent: the recogniser itself translates to English", file=sys.stderr)
        return None
    source = "en" if task == "translate" else known or "en"
    if source == target:
        raise UsageError(f"--translate-to {target}: the text is {told(target)} already")
    asked = arguments.translate_model
    name = "" if remote else translation_model_name(asked, source, target, "translate-model")
    return Asked(name, source, target)


def load_asked(asked: Asked, arguments: argparse.Namespace) -> TranslatorTask:
    """Load its model; see `load_translator`."""
    return load_translator(asked.model, arguments, asked.source, asked.target)


class LiveTranslation:
    """A translator behind a recogniser, in one stream.

    Args:
        drafts: whether to tell what is not certain yet.
    """

    def __init__(self, asked: Asked, arguments: argparse.Namespace, drafts: bool = False) -> None:
        from loquent.speech.runtime.engine import Engine

        self._asked, self._english = asked, arguments.task == "translate"
        self._options = translate_to_options(arguments) | ({"drafts": True} if drafts else {})
        self._engine = Engine(load_asked(asked, arguments).streaming_task())

    def behind(self, recogniser: Session) -> Pipeline:
        """A stream of both."""
        from loquent.speech.bilingual import RECOGNITION, TRANSLATION
        from loquent.speech.runtime.pipeline import Pipeline

        return Pipeline({RECOGNITION: recogniser, TRANSLATION: self._engine.open(**self._options)})

    def check(self, language: str | None) -> None:
        """See `Asked.check`."""
        if not self._english:
            self._asked.check(language)


class SegmentTranslator:
    """Translates the segments of recordings in whole sentences, each shared out over its segments again.

    Args:
        early: whether segments may be translated before the language of their recording is told.
        english: whether the recogniser writes English whatever is spoken.
        options: of each stream.
    """

    def __init__(self, engine: Engine, asked: Asked, early: bool, english: bool, options: dict[str, Any]) -> None:
        self._engine, self._asked, self._early, self._english = engine, asked, early, english
        self._options = options
        self._waiting: dict[int, list[Segment]] = {}

    def items(self, items: Iterator[tuple[int, Any]]) -> Iterator[tuple[int, Any]]:
        """What `RecognizerTask.segments` gives, the segments translated.

        A recording in another language than the model's ends with a CommandError, and its segments are as they were;
        so are those of sentences that an error or Ctrl-C cuts off.
        """
        try:
            for number, item in items:
                if isinstance(item, Segment):
                    yield from ((number, segment) for segment in self._add(number, item))
                    continue
                ending: Any = item
                try:
                    self._asked.check(None if self._english else getattr(item, "language", None))
                    rest = self._translated(self._sentences(self._waiting.pop(number, [])))
                except CommandError as error:
                    ending, rest = error, self._waiting.pop(number, [])
                yield from ((number, segment) for segment in rest)
                yield number, ending
        except (Exception, KeyboardInterrupt):
            yield from ((number, segment) for number, rest in self._waiting.items() for segment in rest)
            raise

    def _add(self, recording: int, segment: Segment) -> list[Segment]:
        """Take a segment; returns those of the sentences that are complete."""
        waiting = self._waiting.setdefault(recording, [])
        waiting.append(segment)
        if not self._early:
            return []
        *complete, self._waiting[recording] = self._sentences(waiting)
        return self._translated(complete)

    def _sentences(self, segments: Sequence[Segment]) -> list[list[Segment]]:
        from loquent.speech.whole_sentences import Piece, groups

        following = iter(segments)
        found = groups(Piece(one.text.strip(), one.start, one.end) for one in segments)
        return [[next(following) for _ in group] for group in found]

    def _translated(self, sentences: Sequence[list[Segment]]) -> list[Segment]:
        from loquent.speech.whole_sentences import divided, joined

        texts = [[segment.text.strip() for segment in sentence] for sentence in sentences]
        done: list[Segment] = []
        every = translated(self._engine, [joined(one) for one in texts], policy="offline", **self._options)
        for sentence, own, events in zip(sentences, texts, every, strict=True):
            parts = divided(own, events)
            done += (replace(segment, translation=part) for segment, part in zip(sentence, parts, strict=True))
        return done
