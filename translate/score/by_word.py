"""A sentence through a stream of text, one word at a time."""

from __future__ import annotations

import time

from loquent.speech.runtime.stream import Stream
from loquent.speech.text.words import Text, split_words
from loquent.translate.score.instance import Instance
from loquent.translate.score.recorder import Recorder


def word_by_word(stream: Stream, source: str, reference: str | None = None, word_s: float | None = None) -> Instance:
    """Push the words of a sentence one by one, and record what comes.

    Args:
        stream: of a translator, new; it is finished.
        source: with at least one word.
        reference: the translation that is expected.
        word_s: seconds that a source word takes to say; if given, computing takes time, too.
    """
    recorder, words = Recorder("words"), split_words(" ".join(source.split()))
    for number, word in enumerate(words, start=1):
        begin = time.perf_counter()
        events = stream.push(Text(word, number))
        if number == len(words):
            events += stream.finish()
        computed = None if word_s is None else (time.perf_counter() - begin) / word_s
        recorder.take(events, at=number, computed=computed)
    return recorder.instance(len(words), reference, source)
