"""Options of synthesis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from loquent.speech.runtime.options import OptionError

SLOWEST, FASTEST = 0.25, 4.0  # factors of tempo
LONGEST_HOLD_S = 60.0


@dataclass(frozen=True)
class SpeechOptions:
    """Options of one stream of speech.

    voice:   name of a voice, or a mixture such as "anna:0.7+ben:0.3"; by default the model's first one.
    speed:   factor of tempo, from 0.25 to 4; it can be changed while the stream goes on, from its next word.
    context: what a word is spoken in the light of: two "words" after it, or its whole "sentence", which sounds better
             and comes later.
    seed:    of the noise in the voice; the same text with the same seed gives the same samples.
    ssml:    whether the text has SSML tags; otherwise a "<" is read as text.
    lexicon: pronunciations of your own: words, and their phonemes in the voice's alphabet.
    follow:  whether to keep to the clock of the text, as an interpreter does: see `loquent.tts.following`.
    most_lag_s: with ``follow``, seconds that the voice may be late before it speaks its fastest; from half of them on
             it hurries.
    fastest: with ``follow``, the most by which it hurries, a factor of tempo.
    hold_s:  with ``follow``, seconds of text that are waited for before a sentence is begun that is not complete: the
             more, the fewer the waits within it.
    """

    voice: str = ""
    speed: float = 1.0
    context: Literal["words", "sentence"] = "words"
    seed: int = 0
    ssml: bool = False
    lexicon: dict[str, str] = field(default_factory=dict)
    follow: bool = False
    most_lag_s: float = 4.0
    fastest: float = 1.5
    hold_s: float = 1.0

    def __post_init__(self) -> None:
        if not SLOWEST <= self.speed <= FASTEST:
            raise ValueError(f"speed: expected a factor from {SLOWEST} to {FASTEST}, got {self.speed}")
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"seed: expected a number from 0 to 2^63 - 1, got {self.seed}")
        if not self.most_lag_s > 0:
            raise ValueError(f"most_lag_s: expected a number of seconds above 0, got {self.most_lag_s}")
        if not 0 <= self.hold_s <= LONGEST_HOLD_S:
            raise ValueError(f"hold_s: expected seconds from 0 to {LONGEST_HOLD_S}, got {self.hold_s}")
        if not 1 <= self.fastest <= FASTEST:
            raise ValueError(f"fastest: expected a factor from 1 to {FASTEST}, got {self.fastest}")


def mixture(voice: str, names: Sequence[str]) -> int | Mapping[int, float]:
    """The speaker that an option names: a number, or weights that add up to 1.

    Args:
        voice: "", a name, or a mixture: "anna:0.7+ben:0.3", "anna+ben".
        names: of the model's speakers.

    Raises:
        OptionError: there is no such speaker, or the weights are not positive.
    """
    if not voice:
        return 0
    weights: dict[int, float] = {}
    for part in voice.split("+"):
        name, _, share = part.partition(":")
        if name not in names:
            raise OptionError(f"voice: there is no {name!r}; expected one of {', '.join(names)}, or a mixture")
        try:
            weight = float(share or 1)
        except ValueError:
            weight = 0.0
        if not 0 < weight < float("inf"):
            raise OptionError(f"voice: {part!r} has no positive weight, such as {name}:0.5")
        weights[names.index(name)] = weights.get(names.index(name), 0.0) + weight
    if len(weights) == 1:
        return next(iter(weights))
    total = sum(weights.values())
    return {number: weight / total for number, weight in weights.items()}
