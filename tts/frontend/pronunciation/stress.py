"""Marks of stress in phonemes.

Port of misaki 0.9.4 (Apache-2.0, hexgrad) by way of hibari-tts 0.2.1 (Apache-2.0, Maureese Williams), see
`tts/assets/english/NOTICE`.
"""

from __future__ import annotations

PRIMARY, SECONDARY = "ˈ", "ˌ"
VOWELS = frozenset("AIOQWYaiuæɑɒɔəɛɜɪʊʌᵻ")
CONSONANTS = frozenset("bdfhjklmnpstvwzðŋɡɹɾʃʒʤʧθ")
LONG = frozenset("AIOQWYʤʧ")  # count twice


def restress(phonemes: str, stress: float | None) -> str:
    """Phonemes with more or less stress.

    Args:
        stress: below -1 none; -1 secondary at most; 0 and ±0.5 secondary, where it was primary or (not for -0.5) none;
            1 raises secondary to primary, and none to secondary; above 1 primary. None leaves them alone.
    """
    if stress is None:
        return phonemes
    primary, secondary = PRIMARY in phonemes, SECONDARY in phonemes
    if stress < -1:
        return phonemes.replace(PRIMARY, "").replace(SECONDARY, "")
    if stress == -1 or (stress in (0, -0.5) and primary):
        return phonemes.replace(SECONDARY, "").replace(PRIMARY, SECONDARY)
    if stress in (0, 0.5, 1) and not primary and not secondary:
        return _before_vowel(SECONDARY + phonemes)
    if stress >= 1 and secondary and not primary:
        return phonemes.replace(SECONDARY, PRIMARY)
    if stress > 1 and not primary and not secondary:
        return _before_vowel(PRIMARY + phonemes)
    return phonemes


def weight(phonemes: str) -> int:
    """How long they are, about."""
    return sum(2 if phone in LONG else 1 for phone in phonemes)


def _before_vowel(phonemes: str) -> str:
    """Move the mark in front to the first vowel; without a vowel there is none."""
    mark, rest = phonemes[0], phonemes[1:]
    at = next((index for index, phone in enumerate(rest) if phone in VOWELS), None)
    return rest if at is None else rest[:at] + mark + rest[at:]
