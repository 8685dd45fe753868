"""Text to spoken words: the same for every cut of the text, and nothing that later text could change."""

from __future__ import annotations

from loquent.speech.runtime.text_inbox import TextInbox
from loquent.tts.frontend.reader import Reader, ReaderOptions
from loquent.tts.frontend.spoken import SkippedText, SpokenWord


def read(*pieces: str, count: int = 3) -> list[SpokenWord | SkippedText]:
    """What a reader gives for a text in pieces."""
    inbox, reader = TextInbox(), Reader(ReaderOptions())
    result: list[SpokenWord | SkippedText] = []
    for piece in pieces:
        inbox.push(piece)
        while inbox.available(count):
            result += reader.read(inbox.claim(count))
    inbox.end()
    while True:
        chunk = inbox.claim(count)
        result += reader.read(chunk)
        if chunk.last:
            return result


def test_words_have_their_punctuation_and_their_place() -> None:
    assert read("“Hello, there!” So") == [
        SpokenWord("“Hello,", 0, 7),
        SpokenWord("there!”", 8, 15, closes=True),
        SpokenWord("So", 16, 18),
        SpokenWord("", 18, 18, closes=True),
    ]
