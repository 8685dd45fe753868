"""Logs of SimulEval and simulstream: written and read without loss, and refused with the line where they are wrong."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from loquent.translate.score import (
    Instance,
    LogError,
    StreamLog,
    StreamStep,
    read_simuleval,
    read_simulstream,
    write_simuleval,
    write_simulstream,
)

in_a_file = settings(
    max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None
)
TEXT = st.text(' ab"\\\n\r\u2028é😀\x00', max_size=9)
TIME = st.floats(0.001, 1e6)


@st.composite
def instances(draw: st.DrawFn) -> Instance:
    prediction, of_text = draw(TEXT), draw(st.booleans())
    words = len(prediction.split())
    time = st.integers(0, 50) if of_text else TIME
    return Instance(
        prediction,
        tuple(sorted(draw(st.lists(time, min_size=words, max_size=words)))),
        draw(st.integers(1, 50) if of_text else TIME),
        draw(st.none() | TEXT),
        draw(st.none() | st.lists(TIME, min_size=words, max_size=words).map(tuple)),
        "words" if of_text else "ms",
        recording_end=draw(st.none() | TIME),
        erased=draw(st.none() | st.integers(0, 9)),
        source=draw(TEXT),
        index=draw(st.none()),
    )


@in_a_file
@given(st.lists(instances(), max_size=3), st.sampled_from([None, 500]))
def test_simuleval_round_trip(tmp_path: Path, corpus: list[Instance], first: int | None) -> None:
    if first is not None:
        corpus = [dataclasses.replace(one, index=first + at) for at, one in enumerate(corpus)]
    for unit in ("words", "ms"):
        of_unit = [one for one in corpus if one.unit == unit]
        write_simuleval(tmp_path / "log", of_unit)
        read = read_simuleval(tmp_path / "log", unit=unit)
        if first is None:
            assert [one.index for one in read] == list(range(len(of_unit)))
            read = [dataclasses.replace(one, index=None) for one in read]
        assert read == of_unit


def test_lines_of_simuleval_come_out_as_they_were(tmp_path: Path) -> None:
    """Those that SimulEval 1.1.4 writes, one of speech and one of text, to the last byte."""
    file = Path(__file__).with_name("foreign_figures.json")
    for kind in ("speech", "text"):
        lines = [case["line"] | {"index": at} for at, case in enumerate(json.loads(file.read_bytes())[kind])]
        before = "".join(json.dumps(line) + "\n" for line in lines)
        (tmp_path / "before").write_text(before, encoding="utf-8")
        write_simuleval(tmp_path / "after", read_simuleval(tmp_path / "before"))
        assert (tmp_path / "after").read_text(encoding="utf-8") == before


def test_seconds_become_milliseconds(tmp_path: Path) -> None:
    instance = Instance("a", (1.1,), 2.0, elapsed=(1.3,), recording_end=0.3, source="a.wav\nPCM", index=0)
    write_simuleval(tmp_path / "log", [instance])
    (read,) = read_simuleval(tmp_path / "log")
    assert read == instance.in_ms()
    assert (read.delays, read.source_length, read.elapsed, read.recording_end) == ((1100.0,), 2000.0, (1300.0,), 300.0)


LINE: dict[str, Any] = {"index": 0, "prediction": "a b", "delays": [1, 2], "source": "x y", "source_length": 2}


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ("{", "Expecting property name"),
        ("[1]", r"expected a JSON object, got \[1\]"),
        ("\xff", "codec can't decode"),
        ("[" * 100_000, "recursion"),
        (LINE, "index: 0 is there a second time"),
        (LINE | {"index": "1"}, 'index: expected a whole number, got "1"'),
        (LINE | {"index": True}, "index: expected a whole number, got true"),
        (LINE | {"index": 1, "prediction": "a b c"}, "one for each word of the prediction, 3, got 2"),
        (LINE | {"index": 1, "delays": [2, 1]}, "none below the one before it"),
        (LINE | {"index": 1, "delays": [1, None]}, r"delays: expected a list of numbers, got \[1, null\]"),
        (LINE | {"index": 1, "delays": [1, float("nan")]}, "delays: expected finite numbers"),
        (LINE | {"index": 1, "delays": [1, 10**400]}, "too large"),
        (LINE | {"index": 1, "source_length": "2"}, 'source_length: expected a number, got "2"'),
        (LINE | {"index": 1, "source_length": 2000}, 'a text of 2 words, and source_length is 2000; pass unit="ms"'),
        (LINE | {"index": 1, "source": [1]}, "source: expected a list of strings"),
        (LINE | {"index": 1, "durations": [3.0]}, "speech output, which is not scored"),
        (
            {"index": 1, "delays": [], "source": "x", "source_length": 1},
            "prediction: expected a string, it is not there",
        ),
    ],
)
def test_simuleval_faults_name_the_line(tmp_path: Path, broken: Any, message: str) -> None:
    wrong = broken.encode("latin-1") if isinstance(broken, str) else json.dumps(broken).encode()
    (tmp_path / "instances.log").write_bytes(json.dumps(LINE).encode() + b"\n\n" + wrong + b"\n")
    with pytest.raises(LogError, match=r"instances\.log, line 3: (?s:.*)" + message):
        read_simuleval(tmp_path / "instances.log")


STEPS = st.lists(st.tuples(TIME, st.floats(0, 9), st.lists(TEXT, max_size=3), st.integers(0, 3)), max_size=4)


@st.composite
def stream_logs(draw: st.DrawFn) -> StreamLog:
    log, tokens = StreamLog(draw(TEXT), id=draw(st.integers() | TEXT)), []
    steps = draw(STEPS)
    for time, (_, computed, generated, deleted) in zip(sorted(step[0] for step in steps), steps, strict=True):
        kept = max(0, len(tokens) - deleted)
        log.steps.append(StreamStep(time, computed, tuple(generated), tuple(tokens[kept:])))
        tokens[kept:] = generated
    return log


@in_a_file
@given(st.lists(stream_logs(), max_size=3))
def test_simulstream_round_trip(tmp_path: Path, logs: list[StreamLog]) -> None:
    write_simulstream(tmp_path / "log", logs)
    assert read_simulstream(tmp_path / "log") == logs


@in_a_file
@given(instances())
def test_an_instance_as_a_log_of_simulstream(tmp_path: Path, instance: Instance) -> None:
    if instance.unit == "words":
        with pytest.raises(ValueError, match="unit: simulstream's logs are of speech"):
            StreamLog.of(instance, "a.wav")
        return
    length = max(instance.source_length, *instance.delays, 0)
    plain = Instance(instance.prediction, instance.delays, length)
    again = StreamLog.of(plain, "a.wav").instance()
    assert (again.prediction.split(), again.delays) == (plain.prediction.split(), plain.delays)
    assert (again.source_length, again.erased, again.source) == (length, 0, "a.wav")


def test_time_for_computing_goes_into_steps() -> None:
    instance = Instance("a b c", (1.0, 2.0, 2.0), 3.0, elapsed=(1.5, 4.0, 4.0))
    log = StreamLog.of(instance, "a.wav")
    assert log.steps == [StreamStep(1.0, 0.5, ("a",)), StreamStep(2.0, 2.0, ("b", "c")), StreamStep(3.0, 0.0)]
    assert log.instance().elapsed == instance.elapsed
    assert StreamLog.of(instance.in_ms(), "a.wav") == log


def test_connections_may_alternate_and_go_on(tmp_path: Path) -> None:
    """As a server writes them: two at a time, the second recording of one, and how long the model took to load."""

    def step(id: int, time: float, word: str) -> dict[str, Any]:
        tokens = {"generated_tokens": [word], "deleted_tokens": []}
        return {"id": id, "total_audio_processed": time, "computation_time": 0.1, **tokens}

    def begin(id: int, name: str) -> dict[str, Any]:
        return {"id": id, "metadata": {"wav_name": name, "more": 1}}

    lines = [{"model_loading_time": 3.0}, begin(1, "a"), begin(2, "b"), step(1, 1.0, "x"), step(2, 1.0, "y")]
    lines += [begin(1, "c"), step(1, 0.5, "z")]
    (tmp_path / "log").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    assert [(log.wav_name, log.instance().prediction) for log in read_simulstream(tmp_path / "log")] == [
        ("a", "x"),
        ("b", "y"),
        ("c", "z"),
    ]


STEP: dict[str, Any] = {
    "id": 0,
    "total_audio_processed": 1.0,
    "computation_time": 0.5,
    "generated_tokens": ["a", "b"],
    "deleted_tokens": [],
}


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (STEP | {"id": 1}, "id 1 has no recording"),
        (STEP | {"id": None}, "id: expected a number or a string, got None"),
        (STEP | {"deleted_tokens": ["a"]}, r"expected the last tokens so far, \['b'\], got \['a'\]"),
        (STEP | {"deleted_tokens": ["x", "a", "b"]}, "expected the last tokens so far"),
        (STEP | {"total_audio_processed": 0.5}, "expected at least 1.0, as before, got 0.5"),
        (STEP | {"total_audio_processed": float("inf")}, "total_audio_processed"),
        (STEP | {"computation_time": -1}, "computation_time: expected 0 or more, got -1"),
        (STEP | {"generated_tokens": "ab"}, 'generated_tokens: expected a list of strings, got "ab"'),
        ({"id": 0, "metadata": {}}, "wav_name: expected a string, it is not there"),
        ({"id": 0, "metadata": 3}, "metadata: expected an object, got 3"),
    ],
)
def test_simulstream_faults_name_the_line(tmp_path: Path, broken: dict[str, Any], message: str) -> None:
    lines = [{"id": 0, "metadata": {"wav_name": "a.wav"}}, STEP, broken]
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    with pytest.raises(LogError, match=r"metrics\.jsonl, line 3: .*" + message):
        read_simulstream(tmp_path / "metrics.jsonl")


@pytest.mark.parametrize("read", [read_simuleval, read_simulstream])
def test_empty_and_missing_files(tmp_path: Path, read: Callable[[Path], list[Any]]) -> None:
    (tmp_path / "log").touch()
    assert read(tmp_path / "log") == []
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "none")


def test_a_recording_without_steps_has_no_length() -> None:
    with pytest.raises(ValueError, match=r"a\.wav has no steps"):
        StreamLog("a.wav").instance()
