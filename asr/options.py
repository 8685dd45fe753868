"""Options that are given by name, to models of several kinds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeVar

from loquent.asr.families import FAMILIES, family_named
from loquent.speech.runtime.options import OptionError, parse_options
from loquent.speech.text.languages import language_codes

T = TypeVar("T")

Mode = Literal["transcribe", "translate"]  # text in the language that is spoken, or in English
MAX_PHRASES, MAX_PHRASE = 1000, 200  # of one stream; characters of each
MAX_PHRASE_TOKENS = 10_000  # of all of them
MAX_BOOST = 100.0  # nats
WHISPER_BOOST = 2.0  # nats


def check_language(language: str) -> None:
    """Refuse what is no language.

    Raises:
        ValueError: the text has neither codes nor English names of languages that any model knows.
    """
    try:
        language_codes(language)
    except ValueError as error:
        raise ValueError(f"language: {error}") from error


def check_phrases(phrases: tuple[str, ...], boost: float) -> None:
    """Refuse phrases that are too many or too long, and a boost that is none.

    Raises:
        ValueError: see there.
    """
    if len(phrases) > MAX_PHRASES or any(len(phrase) > MAX_PHRASE for phrase in phrases):
        raise ValueError(f"phrases: expected at most {MAX_PHRASES} of {MAX_PHRASE} characters, got {len(phrases)}")
    if not 0 < boost <= MAX_BOOST:
        raise ValueError(f"phrase_boost: expected a number above 0, and at most {MAX_BOOST} nats, got {boost!r}")


def checked_options(kind: type[T], values: Mapping[str, Any], where: str = "") -> T:
    """Options of the class ``kind``, a dataclass.

    Args:
        values: by name.
        where: as in `parse_options`.

    Raises:
        OptionError: there is no such option, or a value is wrong.
    """
    return parse_options(kind, values, where)


def check_options(
    model: str,
    *,
    recordings: Mapping[str, Any] | None = None,
    task: Mapping[str, Any] | None = None,
    stream: Mapping[str, Any] | None = None,
) -> None:
    """Refuse what can be refused without the model, in no time: nothing is fetched, and torch is not imported.

    Args:
        model: its name. Of one whose kind is not known yet, options are refused that no kind of model takes.
        recordings, task, stream: options of `Recognizer.segments`, of `Recognizer.streaming_task`, and of a stream.

    Raises:
        OptionError: as when the model is given them.
    """
    named = family_named(model)
    refusals: list[OptionError] = []
    families = [named] if named else [FAMILIES["whisper"], FAMILIES["conformer"]]
    for family in families:
        try:
            for kind, values in zip(family.option_classes(), (recordings, task, stream), strict=True):
                if values is not None:
                    checked_options(kind, values)
        except OptionError as error:
            refusals.append(error)
    if len(refusals) == len(families):
        raise refusals[0]
