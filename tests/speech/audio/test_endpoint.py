"""Speech starts and ends, and the rules that end an utterance."""

from __future__ import annotations

import dataclasses
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loquent.speech.audio.endpoint import (
    DEFAULT_RULES,
    Endpointer,
    EndpointMemory,
    EndpointRule,
    SpeechEnd,
    SpeechOptions,
    SpeechStart,
    UtteranceEnd,
    speech_segments,
)

# Frames of 0.1 s make the arithmetic readable.
OPTIONS = SpeechOptions(frame_s=0.1, min_speech_s=0.2, min_silence_s=0.3, padding_s=0.1)


def run(probabilities, rules=(), options=OPTIONS):
    endpointer = Endpointer(options, tuple(rules))
    events = [event for probability in probabilities for event in endpointer.feed(probability)]
    return [*events, *endpointer.finish()]


def about(seconds):
    return pytest.approx(seconds, abs=1e-6)


def test_speech_is_announced_with_its_real_bounds():
    start, end = run([0] * 5 + [0.9] * 4 + [0] * 5)
    assert start == SpeechStart(about(0.4), about(0.7))
    assert end == SpeechEnd(about(1.0), about(1.2))


def test_hysteresis():
    assert speech_segments([0, 0, 0.45, 0.45, 0.45, 0, 0, 0], OPTIONS) == []
    assert speech_segments([0, 0, 0.6, 0.4, 0.4, 0.4, 0.4, 0, 0, 0], OPTIONS) == [(about(0.1), about(0.8))]
    assert speech_segments([0.6, 0.6, 0.3, 0.4, 0.4, 0.4], OPTIONS) == [(0, about(0.3))]  # 0.4 does not resume it


def test_short_sounds_are_not_speech_and_short_gaps_no_silence():
    assert run([0, 0.9, 0, 0, 0, 0, 0.9, 0, 0, 0]) == []
    assert speech_segments([0, 0.9, 0.9, 0, 0, 0.9, 0, 0, 0], OPTIONS) == [(0, about(0.7))]
    assert len(speech_segments([0, 0.9, 0.9, 0, 0, 0, 0.9, 0.9], OPTIONS)) == 2


def test_speech_cut_by_the_end_of_the_stream_is_not_lost():
    assert speech_segments([0, 0, 0.9, 0.9, 0.9], OPTIONS) == [(about(0.1), about(0.5))]
    assert speech_segments([0, 0, 0.9, 0.9, 0.9, 0], OPTIONS) == [(about(0.1), about(0.6))]


def test_rule_for_silence_alone_fires_again_and_again():
    events = run([0] * 25, [EndpointRule("silence", 1.0, needs_speech=False)])
    assert events == [UtteranceEnd(about(1.0), "silence"), UtteranceEnd(about(2.0), "silence")]


def test_rule_for_a_pause_after_speech():
    events = run([0] * 20 + [0.9] * 5 + [0] * 30, [EndpointRule("pause", 0.8)])
    assert [type(event) for event in events] == [SpeechStart, SpeechEnd, UtteranceEnd]
    assert events[-1] == UtteranceEnd(about(3.3), "pause")  # 0.8 s after the last speech at 2.5 s


def test_rule_for_long_utterances_takes_the_next_short_pause():
    sentence = [0.9] * 6 + [0] * 4
    rules = [EndpointRule("pause", 1.0), EndpointRule("long", 0.4, utterance_s=2.5)]
    ends = [event for event in run(sentence * 6, rules) if isinstance(event, UtteranceEnd)]
    assert ends == [UtteranceEnd(about(3.0), "long"), UtteranceEnd(about(6.0), "long")]


def test_the_first_matching_rule_is_named():
    rules = [EndpointRule("a", 9), EndpointRule("b", 0.5), EndpointRule("c", 0.5)]
    assert run([0.9] * 5 + [0] * 9, rules)[-1] == UtteranceEnd(about(1.0), "b")


def test_no_endpoint_in_the_middle_of_a_sound():
    rule = EndpointRule("silence", 1.0, needs_speech=False)
    events = run([0] * 9 + [0.9] * 5 + [0] * 20, [rule])
    assert [type(event) for event in events][:3] == [SpeechStart, SpeechEnd, UtteranceEnd]
    # A sound too short to be speech only puts the endpoint off.
    assert run([0] * 9 + [0.9] + [0] * 5, [rule]) == [UtteranceEnd(about(1.3), "silence")]


probabilities = st.lists(st.sampled_from([0.0, 0.2, 0.34, 0.35, 0.4, 0.49, 0.5, 0.8, 1.0]), max_size=120)


@given(probabilities)
@settings(max_examples=100, deadline=None, database=None)
def test_segments_are_ordered_and_within_the_recording(values):
    edges = [edge for segment in speech_segments(values, OPTIONS) for edge in segment]
    assert edges == sorted(edges)
    assert all(0 <= edge <= len(values) * OPTIONS.frame_s + 1e-9 for edge in edges)


@given(probabilities, st.integers(0, 120))
@settings(max_examples=100, deadline=None, database=None)
def test_a_snapshot_continues_alike(values, cut):
    rules = (EndpointRule("a", 1.0, needs_speech=False), EndpointRule("b", 0.5), EndpointRule("c", 0.3, 2.0))
    first = Endpointer(OPTIONS, rules)
    for value in values[:cut]:
        first.feed(value)
    saved = json.dumps(dataclasses.asdict(first.memory))
    second = Endpointer(OPTIONS, rules, EndpointMemory(**json.loads(saved)))
    assert [first.feed(v) for v in values[cut:]] == [second.feed(v) for v in values[cut:]]
    assert first.finish() == second.finish()
    assert first.memory == second.memory


@given(probabilities)
@settings(max_examples=100, deadline=None, database=None)
def test_events_alternate_and_decisions_come_in_order(values):
    events = run(values, DEFAULT_RULES)
    speech = [event for event in events if not isinstance(event, UtteranceEnd)]
    assert all(isinstance(event, SpeechStart) for event in speech[::2])
    assert all(isinstance(event, SpeechEnd) for event in speech[1::2])
    assert len(speech) % 2 == 0
    decided = [event.time_s if isinstance(event, UtteranceEnd) else event.decided_s for event in events]
    assert decided == sorted(decided)
    assert all(event.time_s <= event.decided_s + 1e-9 for event in speech)


def test_impossible_options_are_refused():
    with pytest.raises(ValueError, match="end_threshold <= start_threshold"):
        SpeechOptions(start_threshold=0.3, end_threshold=0.4)
    with pytest.raises(ValueError, match="exceeds min_silence_s"):
        SpeechOptions(padding_s=0.5)
    with pytest.raises(ValueError, match="negative"):
        SpeechOptions(min_speech_s=-1)
