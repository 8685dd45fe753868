"""Models that come and go while a server runs."""

import json
import threading
import weakref

import httpx
import pytest
from websockets.sync.client import connect

from loquent.speech.net.limits import Limits
from loquent.speech.net.operation.admin import Loaded
from loquent.speech.net.operation.keys import Key, digest_of
from loquent.speech.runtime.engine import Engine

KEYS = [Key("boss", digest_of("the boss"), admin=True), Key("ann", digest_of("ann"))]


@pytest.fixture
def offered(band_energy, start_server):
    """A server that can load models, and the engines that it has loaded."""
    engines = weakref.WeakValueDictionary()

    def load(name):
        if name == "broken":
            raise ValueError("no such checkpoint")
        engine = engines[name] = Engine(band_energy.BandEnergy(), 2)
        return Loaded(engine)

    return start_server(keys=KEYS, load=load, limits=Limits(max_models=3)), engines


def asked(server, method, path, key="the boss"):
    answer = httpx.request(
        method,
        f"http://127.0.0.1:{server.port}/v1/models/{path}",
        headers={"Authorization": f"Bearer {key}"},
        timeout=30,
    )
    return answer.status_code, answer.json() if answer.text.startswith("{") else {}


def opened(server, model):
    websocket = connect(f"ws://127.0.0.1:{server.port}/v1/stream").__enter__()
    websocket.send(json.dumps({"type": "start", "token": "ann"} | ({"model": model} if model else {})))
    return websocket, json.loads(websocket.recv(timeout=30))


def test_a_model_comes_and_goes_while_streams_of_it_end_first(offered):
    server, engines = offered
    assert opened(server, "org/new")[1]["code"] == "unknown_model"
    assert asked(server, "POST", "org/new/load") == (200, {"model": "org/new", "loaded": True})
    assert asked(server, "POST", "org/new/load")[1]["loaded"] is False
    assert asked(server, "GET", "org/new")[1]["id"] == "org/new"
    websocket, ready = opened(server, "org/new")
    assert ready["model"] == "org/new"
    assert asked(server, "DELETE", "org/new") == (200, {"model": "org/new", "unloaded": True, "streams": 1})
    assert opened(server, "org/new")[1]["code"] == "unknown_model"
    assert engines["org/new"] in server.service.scheduler.engines
    websocket.send(bytes(32_000))
    websocket.send('{"type": "finish"}')
    messages = []
    while not messages or messages[-1]["type"] != "done":
        messages.append(json.loads(websocket.recv(timeout=30)))
    assert sum(message["type"] == "word" for message in messages) == 11
    limit = threading.Event()
    for _ in range(500):
        if "org/new" not in engines:
            break
        limit.wait(0.02)
    assert "org/new" not in engines, "its memory is free"
    assert (
        "org/new"
        not in httpx.get(f"http://127.0.0.1:{server.port}/metrics", headers={"Authorization": "Bearer ann"})
        .text.replace("sessions_total", "")
        .split("loquent_capacity_streams{")[1]
    )


def test_speech_is_translated_by_a_translator_that_came_later(band_energy, swapped, start_server):
    server = start_server(keys=KEYS, load=lambda name: Loaded(Engine(swapped.Swapped(), 2), ("en", "es")))
    assert asked(server, "POST", "en-es/load")[0] == 200
    assert server.service.models["band"].translators.keys() == {("en", "es")}
    assert asked(server, "DELETE", "en-es")[0] == 200
    assert not server.service.models["band"].translators


def test_what_cannot_be(offered):
    server, _ = offered
    assert asked(server, "POST", "a/load", key="ann")[0] == 403
    assert asked(server, "DELETE", "band", key="ann")[0] == 403
    assert asked(server, "POST", "a/load", key="nobody")[0] == 401
    status, answer = asked(server, "POST", "broken/load")
    assert status == 400
    assert "no such checkpoint" in answer["error"]["message"]
    assert asked(server, "DELETE", "a")[0] == 404
    assert asked(server, "DELETE", "band")[0] == 409  # the only one
    assert asked(server, "POST", "a/load")[0] == asked(server, "POST", "b/load")[0] == 200
    status, answer = asked(server, "POST", "c/load")
    assert status == 409
    assert "3 models are in memory" in answer["error"]["message"]
    assert asked(server, "DELETE", "band")[0] == 200
    assert opened(server, None)[1]["model"] == "a"


def test_without_an_admin_key_there_is_no_such_thing(start_server):
    server = start_server(keys=KEYS[1:])
    assert asked(server, "DELETE", "band", key="ann")[0] == 405
    assert asked(server, "POST", "a/load", key="ann")[0] == 405
