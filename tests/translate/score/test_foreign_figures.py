"""Our figures are those of SimulEval 1.1.4, OmniSTEval 0.1.10 and simulstream 1.0.0, where these are right.

What they give was recorded by `record_figures.py`. docs/topics/translation-metrics.md says where they differ from ours.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from loquent.translate.score import (
    Instance,
    Segment,
    VirtualClock,
    corrected,
    latency,
    normalised_erasure,
    pieces_to_text,
    read_simuleval,
    read_simulstream,
    resegment,
    score_streams,
)

CASES = json.loads(Path(__file__).with_name("foreign_figures.json").read_text(encoding="utf-8"))
AS_THEY_ARE = ("AL", "LAAL", "AP", "DAL", "StartOffset", "EndOffset", "YAAL")


def instance_of(line: dict[str, Any], folder: Path) -> Instance:
    file = folder / "instances.log"
    file.write_text(json.dumps(line) + "\n", encoding="utf-8")
    (instance,) = read_simuleval(file)
    return instance


@pytest.mark.parametrize("case", CASES["speech"])
def test_speech(case: dict[str, Any], tmp_path: Path) -> None:
    instance = instance_of(case["line"], tmp_path)
    plain, aware = latency(instance), latency(instance, computation_aware=True)
    assert {name: plain[name] for name in AS_THEY_ARE} == pytest.approx({n: case["plain"][n] for n in AS_THEY_ARE})
    assert {name: aware[name] for name in AS_THEY_ARE} == pytest.approx({n: case["aware"][n] for n in AS_THEY_ARE})
    assert plain["ATD"] == pytest.approx(case["plain"]["ATD"])


@pytest.mark.parametrize("case", CASES["speech"])
def test_token_delay_with_computing(case: dict[str, Any], tmp_path: Path) -> None:
    """SimulEval puts what was computed between two words on a clock of its own; ours has it in the elapsed times."""
    instance, clock, spent, times = instance_of(case["line"], tmp_path), VirtualClock(), 0.0, []
    assert instance.elapsed is not None
    for delay, elapsed in zip(instance.delays, instance.elapsed, strict=True):
        times.append(clock.step(delay, max(0.0, elapsed - delay - spent)))
        spent = elapsed - delay
    on_clock = dataclasses.replace(instance, elapsed=tuple(times))
    assert latency(on_clock, computation_aware=True)["ATD"] == pytest.approx(case["aware"]["ATD"])


@pytest.mark.parametrize("case", CASES["speech"])
def test_corrected_elapsed_times(case: dict[str, Any], tmp_path: Path) -> None:
    assert corrected(instance_of(case["line"], tmp_path)).elapsed == pytest.approx(case["corrected"])


@pytest.mark.parametrize("case", CASES["text"])
def test_text(case: dict[str, Any], tmp_path: Path) -> None:
    instance = instance_of(case["line"], tmp_path)
    assert (instance.unit, instance.elapsed) == ("words", None)
    assert {name: latency(instance)[name] for name in case["plain"]} == pytest.approx(case["plain"])


def streams() -> list[tuple[dict[str, Any], Instance, list[Segment]]]:
    found = []
    for case in CASES["long"]:
        instance = Instance(
            case["prediction"], tuple(case["delays"]), case["source_length"], elapsed=tuple(case["elapsed"]), unit="ms"
        )
        found.append((case, instance, [Segment(**segment) for segment in case["segments"]]))
    return found


@pytest.mark.parametrize(("case", "instance", "segments"), streams())
def test_long_streams(case: dict[str, Any], instance: Instance, segments: list[Segment]) -> None:
    assert [part.prediction for part in resegment(instance, segments)] == case["parts"]
    figures = score_streams([(instance, segments)])
    names = ("StreamLAAL", "StreamLAAL_CA", "LongYAAL", "LongYAAL_CA")
    assert {name: figures[name] for name in names} == pytest.approx({name: case[name] for name in names})


@pytest.mark.parametrize("case", CASES["retranslation"])
def test_logs_of_simulstream(case: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in case["lines"]), encoding="utf-8")
    (log,) = read_simulstream(file)
    instance = log.instance(pieces_to_text)
    assert instance.prediction == case["prediction"]
    assert instance.delays == pytest.approx(case["delays"])
    assert instance.elapsed == pytest.approx(case["elapsed"])  # no step takes longer than a second
    assert instance.erased is not None
    assert instance.erased / instance.target_length == pytest.approx(case["NE"])


def test_omnisteval_itself() -> None:
    """With the package there, on streams that are not in the file: the same cuts."""
    alignment = pytest.importorskip("omnisteval.alignment")
    for case, instance, segments in streams():
        words = instance.prediction.split()[::-1]  # another text
        reference = [
            alignment.Word(word, seq_id=at) for at, segment in enumerate(segments) for word in segment.text.split()
        ]
        pairs = alignment.align_sequences(reference, [alignment.Word(word) for word in words], char_level=False)
        theirs = [word.seq_id for word in alignment.process_alignment(*pairs, char_level=False)]
        backwards = dataclasses.replace(instance, prediction=" ".join(words))
        ours = [len(part.delays) for part in resegment(backwards, segments)]
        assert ours == [theirs.count(at) for at in range(len(case["segments"]))]


def test_erasure_is_that_of_the_paper() -> None:
    assert normalised_erasure([[], "a b".split(), "a c d".split(), "a c".split(), "a c e f".split()]) == 2 / 4
