"""All figures of a corpus, and a table of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean

from loquent.translate.score.instance import Instance
from loquent.translate.score.latency import latency
from loquent.translate.score.quality import quality
from loquent.translate.score.resegment import Segment, resegment

Figures = dict[str, float | None]


def score(instances: Sequence[Instance], tokenize: str = "13a") -> Figures:
    """All figures of a corpus by name: quality, latency in the unit of the instances, stability.

    BLEU and chrF are of the whole corpus, and there if all instances have a reference. A latency is the mean over the
    instances that said something and of which there is one (None: there is none); that with the suffix "_CA" is
    computation-aware and there if elapsed times are. NE is the mean of the same instances, there if erasures were
    counted. "instances" and "empty" count all, and those that said nothing.

    Args:
        instances: the corpus.
        tokenize: sacrebleu's tokeniser for BLEU.

    Raises:
        ImportError: sacrebleu is not installed, and there are references.
        ValueError: there are no instances, or they are not of one kind.
    """
    said = [instance for instance in instances if instance.delays]
    for name in ("unit", "target_unit"):
        if len(kinds := sorted({getattr(instance, name) for instance in instances})) != 1:
            raise ValueError(f"{name}: expected the same in all of at least one instance, got {kinds}")
    figures: Figures = {}
    if _all_or_none([instance.reference for instance in instances], "reference"):
        figures |= quality(instances, tokenize)
    figures |= _means([latency(instance) for instance in said or instances[:1]])
    if _all_or_none([instance.elapsed for instance in said], "elapsed"):
        aware = _means([latency(instance, computation_aware=True) for instance in said])
        figures |= {f"{name}_CA": value for name, value in aware.items()}
    return figures | _stability(said) | {"instances": len(instances), "empty": len(instances) - len(said)}


def score_streams(streams: Iterable[tuple[Instance, Sequence[Segment]]], tokenize: str = "13a") -> Figures:
    """The figures of translations of whole recordings, which are cut to the segments of their references first.

    LAAL is called StreamLAAL, its name in arXiv 2406.06097. NE is of the whole recordings. ATD is left out: the source
    tokens before a segment are not known.

    Args:
        streams: the translation of each recording, and the segments of its reference.
        tokenize: sacrebleu's tokeniser for BLEU.

    Raises:
        ImportError, ValueError: as `score` and `resegment`.
    """
    streams = list(streams)
    figures = score([part for instance, segments in streams for part in resegment(instance, segments)], tokenize)
    renamed = {
        "Stream" + name if name.startswith("LAAL") else name: value
        for name, value in figures.items()
        if not name.startswith("ATD")
    }
    return renamed | _stability([instance for instance, _ in streams if instance.delays])


def table(scores: Mapping[str, Figures], unit: str) -> str:
    """Figures of systems beside each other, as plain text: a row for each figure, a column for each system.

    Args:
        scores: of each system, by its name.
        unit: of the latencies, for the title.
    """
    names = list(dict.fromkeys(name for figures in scores.values() for name in figures))
    rows = [[f"latency in {unit}", *scores]]
    rows += [[name, *(_cell(figures.get(name)) for figures in scores.values())] for name in names]
    first, *others = (max(map(len, column)) for column in zip(*rows, strict=True))
    lines = ["  ".join([name.ljust(first), *map(str.rjust, cells, others)]) for name, *cells in rows]
    return "".join(line + "\n" for line in lines)


def _cell(value: float | None) -> str:
    if value is None:
        return "-"
    return str(value) if isinstance(value, int) else f"{value:.3f}"


def _means(figures: Sequence[Mapping[str, float | None]]) -> Figures:
    """Of each figure, over the instances that have it."""
    means: Figures = {}
    for name in figures[0]:
        values = [value for one in figures if (value := one[name]) is not None]
        means[name] = fmean(values) if values else None
    return means


def _stability(said: Sequence[Instance]) -> Figures:
    """NE of instances that said something."""
    if not _all_or_none([instance.erased for instance in said], "erased"):
        return {}
    return {"NE": fmean((instance.erased or 0) / instance.target_length for instance in said)}


def _all_or_none(values: Sequence[object], name: str) -> bool:
    """Whether there are values; whoever has some of them would compare what cannot be compared."""
    there = sum(value is not None for value in values)
    if 0 < there < len(values):
        raise ValueError(f"{name}: expected it in all instances or in none, got it in {there} of {len(values)}")
    return there > 0
