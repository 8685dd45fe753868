"""What one translation said and when: all that figures are computed from."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, get_args

SourceUnit = Literal["words", "ms", "s"]
TargetUnit = Literal["word", "char"]


@dataclass(frozen=True)
class Instance:
    """The translation of one sentence, or of one long recording.

    prediction:    the target text.
    delays:        of each unit of the prediction, how much of the source had been read when it was written; never less
                   than that of the unit before. Negative in a segment of a recording, if it came before the segment.
    source_length: length of the source.
    reference:     the text that was expected, if there is one.
    elapsed:       of each unit, when it was given out, the time for computing included; None: not measured, or there
                   are no units.
    unit:          of the source, and so of the four times: words of a text, ms or s of speech.
    target_unit:   what counts in prediction and reference: words, as white space divides them, or characters that are
                   not white space.
    recording_end: where the recording ends, of a segment of one; None: with the source.
    erased:        units that were shown and taken back on the way, repeatedly or not; None: not counted.
    source:        the source's text, or the file it is in.
    index:         number in its corpus, of a log.

    Raises:
        ValueError: the numbers do not fit the text or each other; the message says which.
    """

    prediction: str
    delays: tuple[float, ...]
    source_length: float
    reference: str | None = None
    elapsed: tuple[float, ...] | None = None
    unit: SourceUnit = "s"
    target_unit: TargetUnit = "word"
    recording_end: float | None = None
    erased: int | None = None
    source: str = ""
    index: int | None = None

    def __post_init__(self) -> None:
        if self.unit not in get_args(SourceUnit):
            raise ValueError(f"unit: expected one of {', '.join(get_args(SourceUnit))}, got {self.unit!r}")
        if not 0 < self.source_length < math.inf:
            raise ValueError(f"source_length: expected a number above 0, got {self.source_length}")
        if not self.delays and not self.elapsed:
            object.__setattr__(self, "elapsed", None)
        if self.recording_end is not None and not math.isfinite(self.recording_end):
            raise ValueError(f"recording_end: expected a finite number, got {self.recording_end}")
        if self.erased is not None and self.erased < 0:
            raise ValueError(f"erased: expected 0 or more, got {self.erased}")
        units = len(target_units(self.prediction, self.target_unit))
        for name, times in (
            ("delays", self.delays),
            ("elapsed", self.delays if self.elapsed is None else self.elapsed),
        ):
            if len(times) != units:
                raise ValueError(
                    f"{name}: expected one for each {self.target_unit} of the prediction, {units}, got {len(times)}; "
                    "target_unit says what is counted"
                )
            if endless := [time for time in times if not math.isfinite(time)]:
                raise ValueError(f"{name}: expected finite numbers, got {endless[0]}")
        for one, following in pairwise(self.delays):
            if following < one:
                raise ValueError(f"delays: expected none below the one before it, got {following} after {one}")
        if self.unit == "words" and (odd := [delay for delay in self.delays if delay != int(delay)]):
            raise ValueError(f"delays: expected whole numbers of source words, got {odd[0]}; unit may be ms or s")

    @property
    def target_length(self) -> int:
        """Units of the prediction."""
        return len(self.delays)

    @property
    def reference_length(self) -> int:
        """Units of the reference, at least 1; without one, of the prediction."""
        if self.reference is None:
            return self.target_length
        return max(1, len(target_units(self.reference, self.target_unit)))

    def in_ms(self) -> Instance:
        """The same with times in ms instead of s, to the nanosecond; itself if they are not in s."""
        if self.unit != "s":
            return self
        return dataclasses.replace(
            self,
            unit="ms",
            delays=_ms(self.delays),
            elapsed=None if self.elapsed is None else _ms(self.elapsed),
            source_length=_ms([self.source_length])[0],
            recording_end=None if self.recording_end is None else _ms([self.recording_end])[0],
        )


def target_units(text: str, unit: TargetUnit) -> list[str]:
    """The words of a text, or its characters that are not white space.

    Raises:
        ValueError: no such unit.
    """
    if unit not in get_args(TargetUnit):
        raise ValueError(f"target_unit: expected one of {', '.join(get_args(TargetUnit))}, got {unit!r}")
    words = text.split()
    return words if unit == "word" else list("".join(words))


def _ms(times: Sequence[float]) -> tuple[float, ...]:
    return tuple(round(time * 1000, 6) for time in times)
