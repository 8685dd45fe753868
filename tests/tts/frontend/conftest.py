"""Texts through a reader, cut in any way."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import pytest

from loquent.speech.runtime.text_inbox import TextInbox
from loquent.tts.frontend.phonemizer import Phonemizer
from loquent.tts.frontend.reader import Reader, ReaderOptions
from loquent.tts.frontend.spoken import SkippedText, SpokenWord

Spoken = list[SpokenWord | SkippedText]


@pytest.fixture(scope="session")
def phonemizer() -> Phonemizer:
    return Phonemizer.load()


@pytest.fixture(scope="session")
def stream() -> Callable[..., Spoken]:
    """What is said of a text that comes in pieces."""

    def read(
        pieces: Iterable[str | None], count: int = 1, options: ReaderOptions | None = None, end: bool = True
    ) -> Spoken:
        """
        Args:
            pieces: None is a flush.
            count: words that the reader is given at a time.
            end: whether the text ends behind them.
        """
        inbox, reader = TextInbox(), Reader(options or ReaderOptions())
        result: Spoken = []
        for piece in pieces:
            if piece is None:
                inbox.flush()
            else:
                inbox.push(piece)
            while inbox.available(count):
                result += reader.read(inbox.claim(count))
        if end:
            inbox.end()
        while end:
            chunk = inbox.claim(count)
            result += reader.read(chunk)
            end = not chunk.last
        return result

    return read


@pytest.fixture(scope="session")
def read(stream: Callable[..., Spoken]) -> Callable[..., Spoken]:
    """What is said of a whole text."""

    def whole(text: str, ssml: bool = False, lexicon: Mapping[str, str] | None = None) -> Spoken:
        return stream([text], options=ReaderOptions(ssml, lexicon or {}))

    return whole


@pytest.fixture(scope="session")
def said() -> Callable[[Spoken], str]:
    """The words, with single spaces between them."""

    def join(spoken: Spoken) -> str:
        return " ".join(word.text for word in spoken if isinstance(word, SpokenWord) and word.text)

    return join
