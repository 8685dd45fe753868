"""What the front end hands on: words as they are spoken."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SpokenWord:
    """One word as it is spoken, final whatever text follows: "$5 million" makes "five", "million", "dollars".

    text:     spelled out, with the punctuation that stands around it; no white space. It is empty where the utterance
              ends behind words that were given before: `closes` is true then, there are no phonemes, and begin = end.
    begin, end: characters of the stream's text that it stands for, white space around them not counted.
    closes:   whether the utterance ends behind it: a sentence, or text that was flushed.
    pause_s:  silence asked for behind it, in seconds; it closes the utterance, too.
    phonemes: if they are given by the text or by a lexicon, not to be found out.
    rate:     factor of tempo asked for by the text.
    joined:   whether no white space stands between it and the word after it: "twenty-" "five".
    """

    text: str
    begin: int
    end: int
    closes: bool = False
    pause_s: float = 0.0
    phonemes: str | None = None
    rate: float = 1.0
    joined: bool = False


@dataclass(frozen=True)
class SkippedText:
    """Text that cannot be spoken, such as a script that the voice does not read; ``reason`` says why."""

    text: str
    begin: int
    end: int
    reason: str
