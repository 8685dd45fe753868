"""The international phonetic alphabet in that of misaki and Kokoro."""

from __future__ import annotations

import re
import unicodedata

from loquent.tts.frontend.pronunciation.stress import PRIMARY, SECONDARY, VOWELS

# American English; longer ones first.
SOUNDS = {
    "eɪ": "A", "aɪ": "I", "oʊ": "O", "əʊ": "O", "aʊ": "W", "ɔɪ": "Y", "tʃ": "ʧ", "dʒ": "ʤ", "ɜːr": "ɜɹ", "ɜː": "ɜɹ",
    "ɜɹ": "ɜɹ",
    "ɝ": "ɜɹ", "ɚ": "əɹ", "n̩": "ᵊn", "l̩": "ᵊl", "m̩": "ᵊm", "r": "ɹ", "ɻ": "ɹ", "g": "ɡ", "e": "ɛ",
    "a": "æ", "o": "O", "ɒ": "ɑ", "ɐ": "ʌ", "ɫ": "l", "ɾ": "T", "ʔ": "t", "ʍ": "w", "x": "k", "ɨ": "ᵻ", "ᵻ": "ᵻ",
    "ᵊ": "ᵊ", "y": "u",
    "ø": "ɜ", "œ": "ɜ", "ç": "h", "ʁ": "ɹ", "β": "b", "ɣ": "ɡ",
    "ɲ": "nj", "c": "k", "'": PRIMARY, ",": SECONDARY,
}  # fmt: skip
OWN = "bdfhijklmnpstuvwzæðŋɑɔəɛɜɡɪɹʃʊʌʒʤʧθˈˌ "
SOUND = re.compile("|".join([*sorted(SOUNDS, key=len, reverse=True), f"[{OWN}]"]))
TIES = str.maketrans("", "", "͜͡")


def from_ipa(text: str) -> str:
    """Phonemes of a transcription, its stresses before the vowels. Sounds that have no counterpart are left out."""
    text = unicodedata.normalize("NFC", text.translate(TIES))
    phonemes = "".join(SOUNDS.get(sound, sound) for sound in SOUND.findall(text))
    result, waiting = "", ""
    for phone in phonemes:
        if phone in PRIMARY + SECONDARY:
            waiting = phone
        elif phone in VOWELS or phone == "ᵊ":
            result += waiting + phone
            waiting = ""
        else:
            result += phone
    return result
