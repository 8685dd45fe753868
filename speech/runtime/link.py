"""From one stage of a pipeline to the next: what is committed is handed on, what may still change only as a draft."""

from __future__ import annotations

from collections.abc import Iterable

from loquent.speech.audio.files import Audio
from loquent.speech.runtime.events import Event, Final, Partial, Speech, Translation, Word
from loquent.speech.runtime.stream import Stream
from loquent.speech.text.words import Draft, Text


def hand_on(events: Iterable[Event], following: Stream, words: bool = True) -> None:
    """Feed the next stage with the committed output of this one.

    Words go with the time at which they were committed, so the clock of the source runs through all stages. They are
    whole: the next stage need not wait for another one to know it. The end of an utterance flushes: whoever waits for
    another word to pronounce the last one must not wait for the next utterance.

    Args:
        words: whether `Word` events are the stage's output; not so of one that translates and tells what it heard.
    """
    for event in events:
        match event:
            case Word() if not words:
                pass
            case Word(text=text) | Translation(text=text) if following.takes.kind == "text":
                following.feed(Text(text, event.emission_time, whole=True))
            case Partial(unstable=tail) if following.takes.kind == "text":
                following.feed(Draft(tail))
            case Final() if following.takes.kind == "text":
                following.feed_flush()
            case Speech(samples=samples, sample_rate=rate) if following.takes.kind == "audio":
                following.feed(Audio(samples, rate))
