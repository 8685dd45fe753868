"""What clients of OpenAI's API may say and are told: fields by name, models, origins, the description of it all."""

import json
import re
from dataclasses import replace
from types import SimpleNamespace

import httpx
import numpy as np
import pytest
from starlette.routing import Route

from loquent.speech.audio.endpoint import FILTERED_SPEECH
from loquent.speech.audio.files import write_audio
from loquent.speech.net.guard import Guard
from loquent.speech.net.openai.form import FIELDS, FORMATS
from loquent.speech.runtime.options import OptionError
from loquent.speech.transcript import Segment

VAD = {
    "chunking_strategy[type]": "server_vad",
    "chunking_strategy[threshold]": "0.6",
    "chunking_strategy[silence_duration_ms]": "500",
    "chunking_strategy[prefix_padding_ms]": "600",
}
LOUD = replace(FILTERED_SPEECH, start_threshold=0.6, min_silence_s=0.5, padding_s=0.5)


class Recognizer:
    """Remembers what it was asked for."""

    def __init__(self):
        self.asked = {}

    def transcribe(self, audio, *, progress, **options):
        self.asked = options
        if "xx" in options.values():
            raise ValueError("unknown language 'xx'")
        if options.get("initial_prompt") == "wrong":
            raise OptionError("initial_prompt: expected something else")
        segment = Segment(0.5, 1.0, " a word a word", (), 50, (7, 8), 0.2, -0.25, 1.5, 0.125)
        return SimpleNamespace(text=segment.text, language="en", segments=[segment, Segment(1.0, 2.0, " x")])


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    path = tmp_path_factory.mktemp("audio") / "two.wav"
    write_audio(path, np.zeros(32_000, np.int16), 16_000)
    return path.read_bytes()


def url(server, path="/v1/audio/transcriptions"):
    return f"http://127.0.0.1:{server.port}{path}"


def post(server, content, **fields):
    return httpx.post(url(server), files={"file": ("a.wav", content)}, data=fields)


def test_options_reach_the_recogniser_by_its_own_names(start_server, recording):
    recognizer = Recognizer()
    server = start_server(transcribe=recognizer.transcribe)
    bare = {"prompt": "", "temperature": "0", "language": "", "stream": "false"}
    for fields, asked in [
        ({}, {}),
        (bare, {}),
        ({"prompt": "Ahoy", "temperature": "0.5"}, {"initial_prompt": "Ahoy", "temperatures": (0.5, 0.7, 0.9)}),
        ({"temperature": "1"}, {"temperatures": (1.0,)}),
        ({"temperature": "0.2"}, {"temperatures": (0.2, 0.4, 0.6, 0.8, 1.0)}),
        ({"language": "de", "chunking_strategy": "auto"}, {"language": "de", "vad_filter": True}),
        ({"chunking_strategy": '{"type": "server_vad"}'}, {"vad_filter": True}),
        ({"chunking_strategy[type]": "server_vad"}, {"vad_filter": True}),
        (VAD, {"vad_filter": True, "speech": LOUD}),
        ({"include[]": "logprobs"}, {"token_logprobs": True}),
    ]:
        assert post(server, recording, **fields).status_code == 200
        assert recognizer.asked == asked
    for name in ("timestamp_granularities", "timestamp_granularities[]", "timestamp_granularities[0]"):
        answer = post(server, recording, **{"response_format": "verbose_json", name: "word"})
        assert "words" in answer.json()
        assert recognizer.asked == {"word_timestamps": True}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"response_format": "pdf"}, "response_format"),
        ({"temperature": "1.5"}, "temperature"),
        ({"temperature": "nan"}, "temperature"),
        ({"temperature": ["0.1", "0.2"]}, "temperature"),
        ({"timestamp_granularities[]": "letter", "response_format": "verbose_json"}, "timestamp_granularities"),
        ({"timestamp_granularities[]": "word"}, "timestamp_granularities"),
        ({"stream": "maybe"}, "stream"),
        ({"stream": "true", "response_format": "srt"}, "response_format"),
        ({"chunking_strategy": "sometimes"}, "chunking_strategy"),
        ({"chunking_strategy": '{"type": "other"}'}, "chunking_strategy"),
        ({"chunking_strategy": '{"type": "server_vad", "threshold": 2}'}, "chunking_strategy"),
        ({"chunking_strategy": '{"type": "server_vad", "mood": 0.5}'}, "chunking_strategy"),
        ({"chunking_strategy": '{"threshold": 0.5}'}, "chunking_strategy"),
        ({"prompt": "x" * 20_000}, "prompt"),
        ({"prompt": "wrong"}, "prompt"),
        ({"language": "xx"}, "language"),
        ({"include[]": "colours"}, "include"),
        ({"include[]": "logprobs", "response_format": "text"}, "include"),
        ({"colour": "blue"}, "colour"),
    ],
)
def test_a_wrong_field_is_named(start_server, recording, fields, param):
    server = start_server(transcribe=Recognizer().transcribe)
    answer = post(server, recording, **fields)
    error = answer.json()["error"]
    assert answer.status_code == 400
    assert (error["type"], error["param"]) == ("invalid_request_error", param)


def test_a_recogniser_without_an_option_says_so(start_server, recording):
    def plain(audio, progress, language="en"):
        return SimpleNamespace(text="x", language=language, segments=[])

    server = start_server(transcribe=plain)
    for field, value in {"prompt": "x", "temperature": "0.5", "chunking_strategy": "auto"}.items():
        error = post(server, recording, **{field: value}).json()["error"]
        assert error["param"] == field
        assert "no such option" in error["message"]
    assert post(server, recording, language="de").status_code == 200


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", "0.5"),
        ("prompt", "x"),
        ("language", "en"),
        ("include", "logprobs"),
        ("chunking_strategy", "auto"),
    ],
)
def test_a_stream_without_an_option_says_so(start_server, recording, field, value):
    answer = post(start_server(), recording, stream="true", **{field: value})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == field


def test_segments_have_all_that_clients_expect(start_server, recording):
    server = start_server(transcribe=Recognizer().transcribe)
    first, second = post(server, recording, response_format="verbose_json").json()["segments"]
    assert first == {
        "id": 0,
        "seek": 50,
        "start": 0.5,
        "end": 1.0,
        "text": " a word a word",
        "tokens": [7, 8],
        "temperature": 0.2,
        "avg_logprob": -0.25,
        "compression_ratio": 1.5,
        "no_speech_prob": 0.125,
    }
    unknown = ("seek", "tokens", "temperature", "avg_logprob", "compression_ratio", "no_speech_prob")
    assert second == {"id": 1, "start": 1.0, "end": 2.0, "text": " x"} | dict.fromkeys(unknown)


def test_one_model_can_be_asked_for(start_server):
    server = start_server()
    model = httpx.get(url(server, "/v1/models/band")).json()
    assert model == httpx.get(url(server, "/v1/models")).json()["data"][0]
    answer = httpx.get(url(server, "/v1/models/openai/other"))
    assert answer.status_code == 404
    assert answer.json()["error"]["param"] == "model"
    assert answer.json()["error"]["code"] == "model_not_found"


@pytest.mark.parametrize("origin", ["https://good.example", "http://named.example:8080", "https://named.example"])
def test_pages_of_allowed_origins_may_read_answers(start_server, recording, origin):
    allowed = ["https://good.example", "named.example"]
    server = start_server(transcribe=Recognizer().transcribe, token="sesame", allowed_origins=allowed)
    asked = {"Origin": origin, "Access-Control-Request-Method": "POST"}
    asked["Access-Control-Request-Headers"] = "authorization,x-stainless-os"
    preflight = httpx.options(url(server), headers=asked)  # without a token: browsers send none
    assert preflight.status_code == 204
    assert preflight.headers["access-control-allow-origin"] == origin
    assert "POST" in preflight.headers["access-control-allow-methods"]
    assert preflight.headers["access-control-allow-headers"] == "authorization,x-stainless-os"
    for headers, status in (({"Authorization": "Bearer sesame"}, 200), ({}, 401)):
        answer = httpx.post(url(server), headers=headers | {"Origin": origin}, files={"file": recording})
        assert answer.status_code == status
        assert answer.headers["access-control-allow-origin"] == origin
        assert "Origin" in answer.headers["vary"]


def test_pages_of_other_origins_get_no_permission(start_server):
    server = start_server(allowed_origins=["named.example"])
    for origin in ("https://evil.example", "https://named.example.evil.example", "null"):
        asked = {"Origin": origin, "Access-Control-Request-Method": "POST"}
        answer = httpx.options(url(server), headers=asked)
        assert answer.status_code == 403
        assert "access-control-allow-origin" not in answer.headers
    for wrong in ("https://good.example/", "good.example/page", "", "good.example:80"):
        with pytest.raises(ValueError, match="an allowed origin is like"):
            Guard(None, None, [wrong])


def test_the_description_is_true(start_server, recording):
    server = start_server(transcribe=Recognizer().transcribe)
    described = httpx.get(url(server, "/openapi.json")).json()
    assert described["openapi"].startswith("3.")
    routes = [route for route in server.config.app.routes if isinstance(route, Route)]
    assert {re.sub(":[a-z]+", "", route.path) for route in routes} == described["paths"].keys()
    for path, operations in described["paths"].items():
        (route,) = [one for one in routes if re.sub(":[a-z]+", "", one.path) == path]
        assert {method.upper() for method in operations} == route.methods - {"HEAD"}
    post_ = described["paths"]["/v1/audio/transcriptions"]["post"]
    form = post_["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert form["properties"].keys() == FIELDS.keys()
    assert form["properties"]["response_format"]["enum"] == list(FORMATS)
    text = json.dumps(described)
    for name in re.findall(r"#/components/schemas/(\w+)", text):
        assert name in described["components"]["schemas"]
    verbose = described["components"]["schemas"]["VerboseTranscription"]
    answer = post(server, recording, response_format="verbose_json").json()
    assert set(verbose["required"]) <= answer.keys() <= set(verbose["properties"])
    assert set(verbose["properties"]["segments"]["items"]["required"]) == answer["segments"][0].keys()
    error = post(server, recording, colour="blue").json()
    assert (
        error["error"].keys() == described["components"]["schemas"]["Error"]["properties"]["error"]["properties"].keys()
    )
