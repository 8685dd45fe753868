"""Logs of SimulEval: `instances.log`."""

from __future__ import annotations

from collections.abc import Iterable
from os import PathLike
from typing import Any

from loquent.translate.score.instance import Instance, SourceUnit, TargetUnit
from loquent.translate.score.json_lines import count, number, numbers, read_json_lines, text, texts, write_json_lines


def read_simuleval(
    path: str | PathLike[str], *, unit: SourceUnit | None = None, target_unit: TargetUnit = "word"
) -> list[Instance]:
    """Read what SimulEval or `write_simuleval` wrote; keys that have no field in `Instance` are passed over.

    Elapsed times are left as they are; see `corrected`. If all are 0, as SimulEval has them for text, they are None.

    Args:
        path: the file.
        unit: of the times. By default, ms if ``source`` is a list, as SimulEval describes audio, and words if it is a
            text of ``source_length`` words.
        target_unit: what the delays belong to.

    Raises:
        LogError: the file is not such a log, or it is one of speech output.
    """
    instances: list[Instance] = []
    indices: set[int] = set()

    def take(values: dict[str, Any]) -> None:
        instance = _instance(values, unit, target_unit)
        if instance.index is not None:
            if instance.index in indices:
                raise ValueError(f"index: {instance.index} is there a second time")
            indices.add(instance.index)
        instances.append(instance)

    read_json_lines(path, take)
    return instances


def write_simuleval(path: str | PathLike[str], instances: Iterable[Instance]) -> None:
    """Write a log that SimulEval scores (``--score-only``) and `read_simuleval` reads.

    Times in s become ms. An instance without an index gets its place. What SimulEval has no field for, ``erased`` and
    ``recording_end``, is written if it is there; ``target_unit`` is not.
    """
    write_json_lines(path, [_line(at, instance) for at, instance in enumerate(map(Instance.in_ms, instances))])


def _line(at: int, instance: Instance) -> dict[str, Any]:
    of_text = instance.unit == "words"
    unmeasured = [0] * instance.target_length if of_text else []
    values = {
        "index": at if instance.index is None else instance.index,
        "prediction": instance.prediction,
        "delays": instance.delays,
        "elapsed": unmeasured if instance.elapsed is None else instance.elapsed,
        "prediction_length": instance.target_length,
        "reference": instance.reference,
        "source": instance.source if of_text else instance.source.split("\n"),
        "source_length": instance.source_length,
    }
    ours = {"recording_end": instance.recording_end, "erased": instance.erased}
    return values | {name: value for name, value in ours.items() if value is not None}


def _instance(values: dict[str, Any], unit: SourceUnit | None, target_unit: TargetUnit) -> Instance:
    if "durations" in values:
        raise ValueError("this is speech output, which is not scored: recognise it, and score its text")
    given = {name for name, value in values.items() if value is not None}
    listed = isinstance(values.get("source"), list)
    source = "\n".join(texts(values, "source")) if listed else text(values, "source") if "source" in given else ""
    length = number(values, "source_length")
    if unit is None and not listed and len(source.split()) != length:
        raise ValueError(
            f"cannot tell what times are in: source is a text of {len(source.split())} words, and source_length is "
            f'{length}; pass unit="ms" or unit="words"'
        )
    elapsed = numbers(values, "elapsed") if "elapsed" in given else ()
    return Instance(
        prediction=text(values, "prediction"),
        delays=numbers(values, "delays"),
        source_length=length,
        reference=text(values, "reference") if "reference" in given else None,
        elapsed=elapsed if any(elapsed) else None,
        unit=unit or ("ms" if listed else "words"),
        target_unit=target_unit,
        recording_end=number(values, "recording_end") if "recording_end" in given else None,
        erased=count(values, "erased") if "erased" in given else None,
        source=source,
        index=count(values, "index") if "index" in given else None,
    )
