"""The native wire protocol: whatever comes in, nothing but actions comes out."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loquent.speech.net.dialect import Phase
from loquent.speech.net.messages import CLOSE_CODES, Configure, Fail, Finish, Mark, Samples, Start
from loquent.speech.net.protocol import ServerProtocol


def started(**fields):
    protocol = ServerProtocol()
    [start] = protocol.receive_text(json.dumps({"type": "start"} | fields))
    assert isinstance(start, Start), start
    return protocol


def only_failure(actions):
    [failure] = actions
    assert isinstance(failure, Fail), failure
    assert failure.close_code == CLOSE_CODES[failure.code]
    return failure


def test_a_stream_from_start_to_finish():
    protocol = ServerProtocol()
    [start] = protocol.receive_text(
        '{"type": "start", "sample_rate": 48000, "channels": 2, "model": "m", "options": {"words": ["a"], "x": 0.5}}'
    )
    assert start == Start(48000, 2, "pcm16", "m", None, {"words": ["a"], "x": 0.5})
    [audio] = protocol.receive_binary(np.array([[1, 2], [3, -4]], "<i2").tobytes())
    assert isinstance(audio, Samples)
    assert audio.samples.dtype == np.int16
    assert audio.samples.tolist() == [[1, 2], [3, -4]]
    assert protocol.receive_text('{"type": "marker", "id": "ä"}') == [Mark("ä")]
    assert protocol.receive_text('{"type": "configure", "options": {"a": 1}}') == [Configure({"a": 1})]
    lexicon = {"cat's": "kˈæts"}
    assert protocol.receive_text(json.dumps({"type": "configure", "options": {"lexicon": lexicon}})) == [
        Configure({"lexicon": lexicon})
    ]
    assert protocol.receive_text('{"type": "finish"}') == [Finish()]
    assert protocol.phase is Phase.FINISHING


def test_what_a_client_says_is_what_the_server_hears():
    start = Start(8000, 1, "float32", "tiny.en", "secret", {"chunk_ms": 300})
    assert ServerProtocol().receive_text(json.dumps(start.to_dict())) == [start]
    assert ServerProtocol().receive_text(json.dumps(Start().to_dict())) == [Start()]


def test_the_query_can_start_a_stream():
    protocol = ServerProtocol()
    assert protocol.receive_query({"sample_rate": "44100", "channels": "2", "utm": "x"}) == [Start(44100, 2)]
    assert only_failure(protocol.receive_text('{"type": "start"}')).code == "bad_message"
    protocol = ServerProtocol()
    assert protocol.receive_query({"utm": "x"}) == []
    assert protocol.phase is Phase.WAITING
    failure = only_failure(ServerProtocol().receive_query({"sample_rate": "fast"}))
    assert "got 'fast'" in failure.message


def test_float_samples_are_taken_as_they_are():
    samples = np.array([0.5, -1.25], "<f4")
    [audio] = started(encoding="float32").receive_binary(samples.tobytes())
    assert audio.samples.dtype == np.float32
    assert audio.samples[:, 0].tolist() == [0.5, -1.25]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e30])
def test_samples_that_are_no_audio_are_refused(bad):
    protocol = started(encoding="float32")
    assert only_failure(protocol.receive_binary(np.array([0, bad], "<f4").tobytes())).code == "bad_audio"


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ("", "expected a JSON object"),
        ("hello", "expected a JSON object, got 'hello'"),
        ("[1]", "a list of 1 entries"),
        ("{}", "unknown message type null"),
        ('{"type": "begin"}', "expected 'start', 'text', 'flush', 'marker'"),
        ('{"type": ["start"]}', "unknown message type"),
        ('{"type": "start", "rate": 8000}', "unknown field 'rate'"),
        ('{"type": "start", "sample_rate": 3999}', "an integer from 4000 to 192000, got 3999"),
        ('{"type": "start", "sample_rate": 192001}', "got 192001"),
        ('{"type": "start", "sample_rate": 16000.0}', "got 16000.0"),
        ('{"type": "start", "sample_rate": true}', "got true"),
        ('{"type": "start", "sample_rate": NaN}', "NaN is not JSON"),
        ('{"type": "start", "sample_rate": %s}' % ("9" * 5000), "expected a JSON object"),
        ('{"type": "start", "channels": 9}', "'channels' has to be an integer from 1 to 8"),
        ('{"type": "start", "encoding": "mp3"}', "expected one of 'pcm16'"),
        ('{"type": "start", "encoding": {}}', "an object of 0 entries"),
        ('{"type": "start", "model": 5}', "'model' has to be a string"),
        ('{"type": "start", "model": ""}', "1 to 128 characters"),
        ('{"type": "start", "model": "\\ud800"}', "surrogate"),
        ('{"type": "start", "options": []}', "'options' has to be an object"),
        ('{"type": "start", "options": {"multichannel": true}}', "no option's name"),
        ('{"type": "start", "multichannel": 2}', "'multichannel' has to be true or false"),
        ('{"type": "start", "options": {"x": {"a": {}}}}', "not of objects"),
        ('{"type": "start", "options": {"x": [{}]}}', "not of objects"),
        ('{"type": "start", "options": {"x": {"a": [1]}}}', "not of lists"),
        ('{"type": "start", "options": {"x": {"": 1}}}', "a name in option 'x'"),
        ('{"type": "start", "options": {"x": [[1]]}}', "not of lists"),
        ('{"type": "start", "options": {"x": 1e999}}', "finite"),
        ('{"type": "start", "options": {"x": 99999999999999999999}}', "64 bits"),
        ('{"type": "start", "options": {"sample_rate": 8000}}', "beside 'options'"),
        ('{"type": "start", "options": {"a b": 1}}', "no option's name"),
        ('{"type": "marker", "id": "x"}', "waiting for start"),
        ('{"type": "configure", "options": {}}', "waiting for start"),
        ('{"type": "finish"}', "waiting for start"),
        ("[" * 60000, "expected a JSON object"),
    ],
)
def test_messages_that_make_no_sense_are_named(message, words):
    protocol = ServerProtocol()
    failure = only_failure(protocol.receive_text(message))
    assert failure.code == "bad_message"
    assert words in failure.message
    assert len(failure.message) < 500
    assert protocol.receive_text('{"type": "start"}') == []
    assert protocol.receive_binary(b"") == []


@pytest.mark.parametrize("identifier", [None, 7, "", "x" * 129, ["x"], "\udfff"])
def test_marker_ids_are_short_strings(identifier):
    failure = only_failure(started().receive_text(json.dumps({"type": "marker", "id": identifier})))
    assert "the marker's 'id'" in failure.message


def test_order_matters():
    assert "first" in only_failure(ServerProtocol().receive_binary(b"\0\0")).message
    assert "already" in only_failure(started().receive_text('{"type": "start"}')).message
    protocol = started()
    protocol.receive_text('{"type": "finish"}')
    assert "nothing may follow" in only_failure(protocol.receive_binary(b"\0\0")).message


def test_frames_are_not_cut_and_messages_are_bounded():
    assert "multiple of 4" in only_failure(started(channels=2).receive_binary(b"\0" * 6)).message
    protocol = ServerProtocol(max_text_bytes=20, max_audio_bytes=8)
    assert protocol.receive_text('{"type": "start"}') == [Start()]
    assert len(protocol.receive_binary(b"\0" * 8)) == 1
    assert only_failure(protocol.receive_binary(b"\0" * 10)).code == "too_large"
    protocol = ServerProtocol(max_text_bytes=20)
    assert only_failure(protocol.receive_text("ä" * 11)).code == "too_large"


plain = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
values = st.recursive(plain, lambda part: st.lists(part) | st.dictionaries(st.text(max_size=5), part), max_leaves=5)
fields = st.sampled_from(["type", "sample_rate", "channels", "encoding", "model", "token", "options", "id"])
kinds = st.sampled_from(["start", "marker", "finish", "float32", "pcm16"])
objects = st.dictionaries(fields | st.text(max_size=5), kinds | st.integers(0, 50_000) | values, max_size=4)
sensible = st.sampled_from(
    ['{"type": "start"}', '{"type": "start", "encoding": "float32", "channels": 2}', '{"type": "marker", "id": "a"}']
)
junk = st.text() | st.binary(max_size=16) | values.map(json.dumps) | objects.map(json.dumps)
messages = st.lists(junk | sensible, max_size=8)


@settings(max_examples=150, deadline=None)
@given(messages)
def test_junk_never_raises(script):
    protocol = ServerProtocol()
    seen = []
    for message in script:
        before = protocol.phase
        actions = protocol.receive_text(message) if isinstance(message, str) else protocol.receive_binary(message)
        seen += actions
        assert len(actions) == (before is not Phase.CLOSED)
        for action in actions:
            assert isinstance(action, Start) == (before is Phase.WAITING and protocol.phase is Phase.STREAMING)
            if isinstance(action, Fail):
                assert protocol.phase is Phase.CLOSED
                json.dumps(action.to_dict()).encode()
    kinds = [type(action) for action in seen]
    assert kinds.count(Start) <= 1
    assert kinds.count(Finish) <= 1
    assert kinds.count(Fail) <= 1
    assert Fail not in kinds[:-1]
    if kinds and kinds[0] is not Fail:
        assert kinds[0] is Start


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(fields, st.text(max_size=12) | st.integers().map(str), max_size=4))
def test_junk_in_the_query_never_raises(query):
    for action in ServerProtocol().receive_query(query):
        assert isinstance(action, Start | Fail)
