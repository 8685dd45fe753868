"""Voices of one stream, told apart while they come: clusters of vectors that a model makes of stretches of speech."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

FOLLOWED = 50  # vectors after which a centre moves no slower: voices change within a conversation
MOST_LABELS = 256  # places whose speakers are remembered
LONGEST_VECTOR = 4096


@dataclass
class Voices:
    """The voices so far; JSON-able, and bounded: a centre for each, and the latest places.

    centres: unit vectors, in the order in which the voices first spoke.
    counts:  stretches that each has brought, up to `FOLLOWED`.
    labels:  of the latest places, (place, voice), oldest first.
    """

    centres: list[list[float]] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    labels: list[tuple[int, int]] = field(default_factory=list)

    def known(self, place: int) -> int | None:
        """Whose voice it is at a place that was asked for lately."""
        return next((voice for at, voice in reversed(self.labels) if at == place), None)

    def assign(self, place: int, vector: np.ndarray, threshold: float, most: int) -> int:
        """Whose voice it is at a place: the nearest one, or a new one if that is too far away and there is room.

        Args:
            vector: (D,) of the stretch there; only its direction counts.
            threshold: cosine from which two stretches are of the same voice.
            most: voices that there may be.

        Raises:
            FloatingPointError: the vector is zero, or not of finite numbers.
            ValueError: it is none, or has not the length of those before.
        """
        unit = np.asarray(vector, np.float64)
        fits = unit.ndim == 1 and 0 < len(unit) <= LONGEST_VECTOR
        if not fits or any(len(unit) != len(centre) for centre in self.centres[:1]):
            raise ValueError(f"a speaker embedding gives vectors of one length, got one of shape {unit.shape}")
        norm = float(np.linalg.norm(unit))
        if not (math.isfinite(norm) and norm > 0):
            raise FloatingPointError("the vector of a speaker embedding is zero or not of finite numbers")
        unit = unit / norm
        likeness = [float(np.dot(unit, centre)) for centre in self.centres]
        voice = max(range(len(likeness)), key=likeness.__getitem__, default=-1)
        if voice < 0 or (likeness[voice] < threshold and len(likeness) < most):
            voice = len(self.centres)
            self.centres.append(unit.tolist())
            self.counts.append(1)
        else:
            self.counts[voice] = min(self.counts[voice] + 1, FOLLOWED)
            moved = np.array(self.centres[voice]) + (unit - self.centres[voice]) / self.counts[voice]
            self.centres[voice] = (moved / max(float(np.linalg.norm(moved)), 1e-12)).tolist()
        self.labels = [*self.labels, (place, voice)][-MOST_LABELS:]
        return voice

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Voices:
        """Inverse of ``dataclasses.asdict``.

        Raises:
            ValueError: the values, which may come from anywhere, are not those of voices.
        """
        match values:
            case {"centres": list(centres), "counts": list(counts), "labels": list(labels), **rest} if not rest:
                lengths = {len(centre) if isinstance(centre, list) else 0 for centre in centres}
                numbers = [number for centre in centres if isinstance(centre, list) for number in centre]
                if (
                    len(counts) == len(centres)
                    and len(lengths) <= 1
                    and all(0 < length <= LONGEST_VECTOR for length in lengths)
                    and all(type(number) is float and abs(number) <= 1.001 for number in numbers)
                    and all(type(count) is int and 1 <= count <= FOLLOWED for count in counts)
                    and len(labels) <= MOST_LABELS
                    and all(_is_label(label, len(centres)) for label in labels)
                ):
                    return cls(centres, counts, [(place, voice) for place, voice in labels])
        raise ValueError(f"not the voices of a stream: {str(dict(values))[:100]}")


def _is_label(label: Any, voices: int) -> bool:
    match label:
        case [int(place), int(voice)]:
            return place >= 0 and 0 <= voice < voices
    return False
