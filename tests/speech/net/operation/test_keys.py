"""Several keys: who may come in, and how much each may do."""

import base64
import json
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from loquent.speech.audio.files import write_audio
from loquent.speech.net.operation.keys import Key, KeyLimited, Keys, digest_of, read_keys
from loquent.speech.runtime.engine import Engine


def key(name, **limits):
    return Key(name, digest_of(f"the key of {name}"), **limits)


def opened(server, name, **start):
    websocket = connect(f"ws://127.0.0.1:{server.port}/v1/stream").__enter__()
    websocket.send(json.dumps({"type": "start", "token": f"the key of {name}", **start}))
    return websocket, json.loads(websocket.recv(timeout=30))


def test_every_key_lets_in_and_no_other(start_server):
    server = start_server(keys=[key("ann"), key("ben")], token="sesame")
    for presented, status in (("the key of ann", 200), ("the key of ben", 200), ("sesame", 200), ("the key of", 401)):
        got = httpx.get(f"http://127.0.0.1:{server.port}/v1/models", headers={"Authorization": f"Bearer {presented}"})
        assert got.status_code == status
    assert opened(server, "ann")[1]["type"] == "ready"
    assert opened(server, "cleo")[1]["code"] == "unauthorized"


@pytest.mark.parametrize("limit", ["streams", "connections"])
def test_a_key_has_as_many_streams_as_it_may(start_server, limit):
    server = start_server(keys=[key("ann", **{limit: 1}), key("ben")])
    first, answer = opened(server, "ann")
    assert answer["type"] == "ready"
    _, answer = opened(server, "ann")
    assert answer["code"] == "busy"
    assert f"the key 'ann' has 1 {limit}" in answer["message"]
    assert opened(server, "ben")[1]["type"] == "ready"
    first.close()
    while server.service.keys._in_use["ann", "streams"]:
        pass
    assert opened(server, "ann")[1]["type"] == "ready"


def realtime(server, name, query="model=gpt-realtime"):
    url = f"ws://127.0.0.1:{server.port}/v1/realtime?{query}"
    websocket = connect(url, additional_headers={"Authorization": f"Bearer the key of {name}"}).__enter__()
    assert json.loads(websocket.recv(timeout=30))["type"] == "session.created"
    return websocket


def until(websocket, kind):
    while (message := json.loads(websocket.recv(timeout=30)))["type"] not in (kind, "error"):
        pass
    return message


@pytest.mark.parametrize("limit", ["streams", "connections"])
def test_who_only_speaks_counts_and_counts_once(start_server, band_energy, tones, limit):
    engines = {"hear": Engine(band_energy.BandEnergy(), 4), "say": Engine(tones.Tones(), 4)}
    server = start_server(engines=engines, keys=[key("ann", **{limit: 1})])
    first, second = realtime(server, "ann"), realtime(server, "ann")
    speak = json.dumps({"type": "response.create", "response": {"instructions": "One, two."}})
    for _ in range(2):
        first.send(speak)
        assert until(first, "response.done")["type"] == "response.done"
    first.send(json.dumps({"type": "input_audio_buffer.append", "audio": "AAAAAAAA"}))
    first.send(speak)
    assert until(first, "response.done")["type"] == "response.done"
    second.send(speak)
    assert until(second, "response.done")["error"]["code"] == "busy"
    assert server.service.keys._in_use["ann", limit] == 1


def test_channels_that_are_heard_apart_are_streams(start_server, band_energy):
    server = start_server(engines={"hear": Engine(band_energy.BandEnergy(), 8)}, keys=[key("ann", streams=3)])
    apart = {"channels": 2, "multichannel": True}
    assert opened(server, "ann", **apart)[1]["type"] == "ready"
    message = opened(server, "ann", **apart)[1]["message"]
    assert "has 2 streams open and may have 3, so 2 more cannot be" in message
    assert opened(server, "ann", channels=2)[1]["type"] == "ready"
    assert server.service.keys._in_use["ann", "streams"] == 3


def test_words_of_a_file_as_they_come_are_a_stream(start_server, band_energy, tmp_path):
    write_audio(tmp_path / "a.wav", np.ones(16_000, np.int16), 16_000)
    content, task = (tmp_path / "a.wav").read_bytes(), band_energy.BandEnergy()
    server = start_server(task, keys=[key("ann", streams=1)])

    def post():
        return httpx.post(
            f"http://127.0.0.1:{server.port}/v1/audio/transcriptions",
            headers={"Authorization": "Bearer the key of ann"},
            files={"file": ("a.wav", content)},
            data={"stream": "true"},
            timeout=30,
        )

    task.gate.clear()
    with ThreadPoolExecutor(1) as pool:
        try:
            first = pool.submit(post)
            while not any(session.busy for session in server.service.scheduler.streams):
                time.sleep(0.01)
            second = post()
        finally:
            task.gate.set()
        assert (second.status_code, first.result().status_code) == (429, 200)
    assert "1 streams open" in second.json()["error"]["message"]
    assert post().status_code == 200


def test_streams_that_follow_each_other_are_one(start_server):
    """A client that lets what was heard come out has no more audio for it, and all of it is counted."""
    server = start_server(keys=[key("ann", max_duration_s=1.5)])
    websocket = realtime(server, "ann", "intent=transcription")
    append = json.dumps({"type": "input_audio_buffer.append", "audio": base64.b64encode(bytes(48_000)).decode()})
    for _ in range(2):
        websocket.send(append)
        websocket.send('{"type": "input_audio_buffer.commit"}')
    committed = "input_audio_buffer.committed"
    assert until(websocket, committed)["type"] == committed
    assert until(websocket, "error")["type"] == "error"
    with pytest.raises(ConnectionClosed):
        websocket.recv(timeout=30)
    while server.service.connections:
        pass
    assert server.service.metrics.key_seconds.labels("ann")._value.get() == 2.0


def test_a_key_has_streams_as_long_as_it_may(start_server):
    server = start_server(keys=[key("ann", max_duration_s=0.5)])
    websocket, _ = opened(server, "ann")
    websocket.send(bytes(32_000))
    messages = [json.loads(websocket.recv(timeout=30))]
    while messages[-1]["type"] != "failure":
        messages.append(json.loads(websocket.recv(timeout=30)))
    assert messages[-1]["code"] == "too_long"


def test_uploads_a_minute():
    now = [0.0]
    keys, ann = Keys([key("ann", uploads_a_minute=2)], clock=lambda: now[0]), key("ann", uploads_a_minute=2)
    keys.upload(ann)
    now[0] = 20.0
    keys.upload(ann)
    with pytest.raises(KeyLimited, match="try again in 40 s"):
        keys.upload(ann)
    now[0] = 60.0
    keys.upload(ann)


def test_uploads_over_http(start_server):
    server = start_server(keys=[key("ann", uploads_a_minute=1)])
    headers = {"Authorization": "Bearer the key of ann"}
    url = f"http://127.0.0.1:{server.port}/v1/audio/transcriptions"
    assert httpx.post(url, headers=headers).status_code == 400
    answer = httpx.post(url, headers=headers)
    assert answer.status_code == 429
    assert "1 files a minute" in answer.json()["error"]["message"]


def test_metrics_and_logs_name_the_key_and_never_show_it(start_server, caplog):
    server = start_server(keys=[key("ann")])
    with caplog.at_level("INFO", logger="loquent"):
        websocket, _ = opened(server, "ann")
        websocket.send(bytes(32_000))
        websocket.send('{"type": "finish"}')
        while json.loads(websocket.recv(timeout=30))["type"] != "done":
            pass
        while server.service.connections:
            pass
    headers = {"Authorization": "Bearer the key of ann"}
    text = httpx.get(f"http://127.0.0.1:{server.port}/metrics", headers=headers).text
    assert 'loquent_key_sessions_total{key="ann"} 1.0' in text
    assert 'loquent_key_audio_seconds_total{key="ann"} 1.0' in text
    assert "the key of ann" not in text + caplog.text


def test_a_file_of_keys(tmp_path):
    file = tmp_path / "keys.yaml"
    ben = f"{{name: ben, sha256: {digest_of('other')}, admin: true}}"
    file.write_text(f"- {{name: ann, key: a long enough key, streams: 4}}\n- {ben}")
    ann, ben = read_keys(file)
    assert (ann.name, ann.streams, ann.admin) == ("ann", 4, False)
    keys = Keys([ann, ben])
    assert keys.has_admin
    assert keys.find("a long enough key") is ann
    assert keys.find("other") is ben
    assert keys.find("a long enough kez") is None
    assert "long enough" not in repr(ann)
    with pytest.raises(ValueError, match="same name: ann, ann"):
        Keys([ann, Key("ann", digest_of("third"))])
    with pytest.raises(ValueError, match="same value: ann, cleo"):
        Keys([ann, Key("cleo", ann.digest)])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{}", "expected a list of keys"),
        ("- {name: ann}", "key 1: give either the key or its sha256"),
        ("- {name: ann, key: short}", "at least 16 characters"),
        ("- {key: a long enough key}", "has no name"),
        ("- {name: ann, key: a long enough key, stream: 4}", "did you mean streams"),
        ("- {name: ann, key: a long enough key, streams: 0}", "streams of the key 'ann' has to be positive"),
        ("- {name: a b, key: a long enough key}", "the name of a key"),
        ("- {name: ann, sha256: abc}", "64 hexadecimal digits"),
        ("- {name: ann, key: a long enough kéy}", "printable ASCII"),
        ("- {name: secret in here", "is not YAML$"),
    ],
)
def test_what_is_wrong_with_a_file_of_keys(tmp_path, text, expected):
    file = tmp_path / "keys.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=expected) as error:
        read_keys(file)
    assert "long enough" not in str(error.value)
