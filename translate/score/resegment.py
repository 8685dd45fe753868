"""One long translation, cut to the segments of its reference."""

from __future__ import annotations

import dataclasses
import unicodedata
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from loquent.translate.score.alignment import Similarity, align, is_punctuation
from loquent.translate.score.instance import Instance, TargetUnit, target_units


@dataclass(frozen=True)
class Segment:
    """A segment of a recording's reference: its text, its start in the recording and its duration, as the delays."""

    text: str
    start: float
    duration: float


def resegment(instance: Instance, segments: Sequence[Segment]) -> list[Instance]:
    """The part of a translation that belongs to each segment, with times from the segment's start on.

    The recording ends at ``source_length``. Erasures cannot be told apart and are left out.

    Args:
        instance: the translation of the whole recording.
        segments: in their order.

    Raises:
        ValueError: the segments have no text, or a duration is not above 0.
    """
    units = target_units(instance.prediction, instance.target_unit)
    owners = owners_of(units, [segment.text for segment in segments], instance.target_unit)
    parts = []
    for number, segment in enumerate(segments):
        part = slice(bisect_left(owners, number), bisect_left(owners, number + 1))
        parts.append(
            dataclasses.replace(
                instance,
                prediction=(" " if instance.target_unit == "word" else "").join(units[part]),
                delays=_since(instance.delays[part], segment.start),
                elapsed=None if instance.elapsed is None else _since(instance.elapsed[part], segment.start),
                source_length=segment.duration,
                reference=segment.text,
                recording_end=instance.source_length - segment.start,
                erased=None,
                index=None,
            )
        )
    return parts


def owners_of(units: Sequence[str], references: Sequence[str], target_unit: TargetUnit = "word") -> list[int]:
    """The number of the reference that each unit of a translation belongs to; they never go down.

    Words are cut into tokens, in lower case, with each mark of punctuation on its own, and aligned. A word belongs
    where its first token does that is no punctuation. Tokens between two aligned ones belong to the reference before
    them, up to the first that is more like what comes next.

    Raises:
        ValueError: no reference has text.
    """
    reference, owner = _tokens([target_units(text, target_unit) for text in references])
    hypothesis, unit = _tokens([[one] for one in units])
    if not reference:
        raise ValueError(f"expected references with text, got {len(references)} without")
    main: dict[int, int] = {}  # the token of each unit that says where it belongs
    for token, of in enumerate(unit):
        if of not in main or (is_punctuation(hypothesis[main[of]]) and not is_punctuation(hypothesis[token])):
            main[of] = token
    partner = _partners(Similarity(reference, hypothesis))
    return [owner[partner[main[of]]] for of in range(len(units))]


def _partners(alike: Similarity) -> list[int]:
    """The token of the reference beside which each token of the hypothesis is; they never go down."""
    partners: list[int] = []
    before, waiting = None, 0  # tokens since then that are not aligned
    for at, token in align(alike):
        if at is None:
            waiting += 1
            continue
        for one in range(len(partners), len(partners) + waiting):
            if before is None or alike.row(at)[one] > alike.row(before)[one]:
                before = at
            partners.append(before)
        before, waiting = at, 0
        if token is not None:
            partners.append(at)
    return partners + [alike.shape[0] - 1] * waiting


def _tokens(groups: Sequence[Sequence[str]]) -> tuple[list[str], list[int]]:
    """The tokens of groups of words, and the number of the group that each is of."""
    tokens, owners = [], []
    for number, words in enumerate(groups):
        for word in words:
            for marks, group in groupby(unicodedata.normalize("NFKC", word).lower(), is_punctuation):
                characters = "".join(group)
                found = list(characters) if marks else [characters]
                tokens += found
                owners += [number] * len(found)
    return tokens, owners


def _since(times: Sequence[float], start: float) -> tuple[float, ...]:
    return tuple(time - start for time in times)
