"""How texts of corpora are written for Whisper: as it writes itself, without what a recogniser may not write."""

from __future__ import annotations

import re

UNSPOKEN = re.compile(r"\([^)]*\)|<[^>]*>|\[[^\]]*\]")  # stage directions
ABBREVIATED_I = re.compile(r"\bi(?='(m|ll|ve|d)\b|\b)")
SYMBOLS = str.maketrans(
    {**dict.fromkeys('"“”„«»*_~^|\\/<>[](){}=#$@♪♫`', " "), ";": ",", ":": ",", "’": "'", "…": "..."}
)


def written(text: str) -> str:
    """Bring a transcript into Whisper's style.

    Quotation marks, what stands in brackets and the like go, for decoding never writes them; a text all in lower or all
    in upper case becomes a sentence with a capital and a full stop. Anything else stays as it is.
    """
    text = UNSPOKEN.sub(" ", text).translate(SYMBOLS)
    text = re.sub(r"(?:\s*(?:--+|—|–|(?<=\s)-(?=\s))\s*)+", ", ", text)  # a dash is a pause
    text = re.sub(r"\s+([,.!?])", r"\1", re.sub(r"\s+", " ", text)).strip(" ,-'")
    text = re.sub(r",(?=[,.!?])", "", text)
    if not any(character.isalnum() for character in text):
        return ""
    if len(text) == 1:
        return text.upper()
    shouted = text == text.upper() and " " in text
    if not shouted and text != text.lower():
        return text
    text = ABBREVIATED_I.sub("I", text.lower())
    text = text[0].upper() + text[1:]
    return text if text[-1] in ".,!?" else text + "."
