"""Latencies: what follows from their definitions."""

from __future__ import annotations

import dataclasses
from itertools import accumulate

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loquent.translate.score import Instance, VirtualClock, corrected, latency

drawn = settings(max_examples=50, deadline=None)
WORDS = st.integers(1, 12)


@st.composite
def instances(draw: st.DrawFn) -> Instance:
    length, words = draw(st.integers(1, 30)), draw(WORDS)
    delays = tuple(sorted(draw(st.lists(st.integers(0, length), min_size=words, max_size=words))))
    costs = draw(st.lists(st.integers(0, 5), min_size=words, max_size=words))
    clock = VirtualClock()
    elapsed = tuple(clock.step(delay, cost) for delay, cost in zip(delays, costs, strict=True))
    return Instance(text(words), delays, length, text(draw(WORDS)), elapsed, unit="words")


def text(words: int) -> str:
    return " ".join("w" * words)


def test_by_hand() -> None:
    """Five source words, four target words, three in the reference; read 2 write 1, read 2 write 2, read 1 write 1."""
    figures = latency(Instance("a b c d", (2, 4, 4, 5), 5, "x y z", unit="words"))
    assert figures == pytest.approx(
        {
            "AP": 15 / (5 * 3),
            "AL": (2 + (4 - 5 / 3) + (4 - 10 / 3) + (5 - 5)) / 4,
            "LAAL": (2 + (4 - 5 / 4) + (4 - 10 / 4) + (5 - 15 / 4)) / 4,
            "YAAL": (2 + (4 - 5 / 4) + (4 - 10 / 4)) / 3,
            "LongYAAL": (2 + (4 - 5 / 4) + (4 - 10 / 4)) / 3,
            # paced: 2, 4, 5.25, 6.5
            "DAL": (2 + (4 - 1.25) + (5.25 - 2.5) + (6.5 - 3.75)) / 4,
            # target ends: 3, 5, 6, 7; of source words 1, 2, 3, 4
            "ATD": ((3 - 1) + (5 - 2) + (6 - 3) + (7 - 4)) / 4,
            "StartOffset": 2,
            "EndOffset": 0,
        }
    )


def test_by_hand_in_speech() -> None:
    """A second is cut into tokens that end at 0.3, 0.6, 0.9 and 1.0; the next half second at 1.3 and 1.5."""
    figures = latency(Instance("a b c", (1.0, 1.0, 1.5), 2.0, elapsed=(1.1, 1.1, 1.9)), computation_aware=True)
    assert figures["ATD"] == pytest.approx(((1.1 - 0.3) + (1.1 - 0.6) + (1.9 - 0.9)) / 3)
    assert (figures["StartOffset"], figures["EndOffset"]) == pytest.approx((1.1, -0.1))


@drawn
@given(st.integers(1, 20), st.data())
def test_wait_k_lags_by_k(length: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(1, length))
    delays = tuple(min(k + at, length) for at in range(length))
    figures = latency(Instance(text(length), delays, length, text(length), unit="words"))
    for name in ("AL", "LAAL", "DAL", "ATD", "StartOffset"):
        assert figures[name] == pytest.approx(k), name
    assert figures["YAAL"] == (None if k == length else pytest.approx(k))


@drawn
@given(WORDS, WORDS, st.integers(1, 30))
def test_whoever_waits_for_the_end_lags_by_the_source(words: int, reference: int, length: int) -> None:
    figures = latency(Instance(text(words), (length,) * words, length, text(reference), unit="words"))
    for name in ("AL", "LAAL", "DAL", "StartOffset"):
        assert figures[name] == pytest.approx(length), name
    assert figures["AP"] == pytest.approx(words / reference)
    assert (figures["YAAL"], figures["LongYAAL"], figures["EndOffset"]) == (None, None, 0)


@drawn
@given(instances())
def test_relations(instance: Instance) -> None:
    plain, aware = latency(instance), latency(instance, computation_aware=True)
    assert plain["LAAL"] >= plain["AL"] - 1e-9
    if instance.target_length <= instance.reference_length:
        assert plain["LAAL"] == pytest.approx(plain["AL"])
    assert plain["LongYAAL"] == plain["YAAL"]
    assert all(aware[name] >= plain[name] - 1e-9 for name in ("AP", "DAL", "ATD", "StartOffset", "EndOffset"))
    later = latency(dataclasses.replace(instance, recording_end=2 * instance.source_length))["LongYAAL"]
    everything = [delay - at * pace(instance) for at, delay in enumerate(instance.delays)]
    assert later == pytest.approx(sum(everything) / len(everything))


def pace(instance: Instance) -> float:
    return instance.source_length / max(instance.target_length, instance.reference_length)


@drawn
@given(instances())
def test_seconds_are_milliseconds(instance: Instance) -> None:
    """0.9 s are three tokens of 0.3 s, whatever binary fractions make of them."""
    tenths = dataclasses.replace(
        instance,
        unit="s",
        delays=tuple(delay / 10 for delay in instance.delays),
        elapsed=tuple(time / 10 for time in instance.elapsed or ()),
        source_length=instance.source_length / 10,
    )
    for aware in (False, True):
        ms, s = (latency(one, computation_aware=aware) for one in (tenths.in_ms(), tenths))
        scaled = {name: value and value * (1 if name == "AP" else 1000) for name, value in s.items()}
        assert ms == pytest.approx(scaled, abs=1e-6)


def test_nothing_said() -> None:
    assert set(latency(Instance("", (), 5, "x", unit="words")).values()) == {None}


def test_a_translation_from_before_its_segment() -> None:
    figures = latency(Instance("a", (-1.0,), 2.0, "x"))
    assert figures["AL"] == figures["ATD"] == -1


def test_the_clock_waits_for_input_and_for_itself() -> None:
    clock = VirtualClock()
    assert [clock.step(1, 0.5), clock.step(2, 3), clock.step(3, 1)] == [1.5, 5, 6]
    with pytest.raises(ValueError, match="cost: expected 0 or more, got -1"):
        clock.step(4, -1)


def test_correction_by_hand() -> None:
    """Three words of chunks that took 0.5, 0.2 and 0.1: each counts its own computing, not that of those before."""
    instance = Instance("a b c d", (1.0, 2.0, 2.0, 3.0), 4.0, elapsed=(1.5, 2.7, 2.7, 3.8))
    assert corrected(instance).elapsed == pytest.approx((1.5, 2.2, 2.2, 3.1))


@drawn
@given(instances(), st.data())
def test_correction_takes_away_only_what_adds_up(instance: Instance, data: st.DataObject) -> None:
    costs = data.draw(st.lists(st.integers(0, 5), min_size=instance.target_length, max_size=instance.target_length))
    as_logged = tuple(delay + spent for delay, spent in zip(instance.delays, accumulate(costs), strict=True))
    times = corrected(dataclasses.replace(instance, elapsed=as_logged)).elapsed
    assert times is not None
    for delay, time, elapsed in zip(instance.delays, times, as_logged, strict=True):
        assert delay <= time <= elapsed


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"delays": (1,)}, "one for each word of the prediction, 2, got 1"),
        ({"elapsed": (1, 2, 3)}, "elapsed: expected one for each word"),
        ({"delays": (2, 1)}, "got 1 after 2"),
        ({"delays": (1, float("nan"))}, "delays: expected finite numbers, got nan"),
        ({"delays": (1, 1.5)}, "whole numbers of source words, got 1.5"),
        ({"source_length": 0}, "source_length: expected a number above 0, got 0"),
        ({"unit": "sec"}, "unit: expected one of words, ms, s, got 'sec'"),
        ({"target_unit": "syllable"}, "target_unit: expected one of word, char"),
        ({"erased": -1}, "erased: expected 0 or more"),
        ({"recording_end": float("inf")}, "recording_end: expected a finite number"),
    ],
)
def test_what_does_not_fit_is_refused(values: dict[str, object], message: str) -> None:
    whole = {"prediction": "a b", "delays": (1, 2), "source_length": 2, "unit": "words"}
    with pytest.raises(ValueError, match=message):
        Instance(**{**whole, **values})  # type: ignore[arg-type]


def test_without_elapsed_times_there_is_nothing_to_be_aware_of() -> None:
    instance = Instance("a", (1,), 1, unit="words")
    with pytest.raises(ValueError, match="elapsed: computation-aware figures need it"):
        latency(instance, computation_aware=True)
    with pytest.raises(ValueError, match="nothing to correct"):
        corrected(instance)
