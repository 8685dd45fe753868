"""How the files of the page are served, and what the server tells the page of itself."""

import re

import httpx
import pytest

from loquent.asr import Recognizer
from loquent.speech.net.models import models_of, offer_of
from loquent.speech.runtime.engine import Engine


@pytest.fixture
def fetch(polyglot):
    server = polyglot(token="secret")
    return lambda path, **headers: httpx.get(f"http://127.0.0.1:{server.port}{path}", headers=headers)


def test_the_page_stands_alone(fetch):
    """Nothing of others is fetched, nothing runs that is not a file of its own; and it needs no key."""
    waiting, seen = ["/"], {}
    while waiting:
        path = waiting.pop()
        if path in seen:
            continue
        answer = seen[path] = fetch(path)
        assert answer.status_code == 200, path
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert not re.findall(r"https?://(?!www\.w3\.org/2000/svg)\w", answer.text), path
        folder = path.rpartition("/")[0]
        named = re.findall(r'(?:src|href)="(page/[^"#]+)"', answer.text)
        imported = re.findall(r'from "\./([\w/]+\.js)"|new URL\("(\w+\.js)"', answer.text)
        waiting += [f"/{name}" for name in named] + [f"{folder}/{one or other}" for one, other in imported]
    page = seen["/"]
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert not re.findall(r"<style|\sstyle=|\son\w+=|<script>", page.text)
    assert {"/page/style.css", "/page/page.js", "/page/audio/worklet.js"} <= seen.keys()
    assert seen["/page/page.js"].headers["content-type"] == "text/javascript; charset=utf-8"


def test_files_are_asked_for_again_and_not_sent_again(fetch):
    answer = fetch("/page/style.css")
    assert answer.headers["cache-control"] == "no-cache"
    tag = answer.headers["etag"]
    for asked in (tag, f'"other", W/{tag}'):
        again = fetch("/page/style.css", **{"if-none-match": asked})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    assert fetch("/page/style.css", **{"if-none-match": '"other"'}).status_code == 200


@pytest.mark.parametrize("path", ["/page/none.js", "/page/..%2fsample.flac", "/page/audio", "/page/"])
def test_other_files_are_not_served(fetch, path):
    assert fetch(path).status_code == 404


def test_the_offer(fetch):
    assert fetch("/v1/offer").status_code == 401
    ear, translator, voice = fetch("/v1/offer", authorization="Bearer secret").json()["models"]
    assert ear == {
        "name": "ear",
        "takes": {"kind": "audio", "sample_rate": 16_000},
        "gives": {"kind": "text", "sample_rate": None},
        "stages": [""],
        "talks": False,
        "languages": ["en"],
        "latencies_ms": [100, 200],
        "voices": [],
        "translations": [{"from": "en", "to": "es", "options": {"translate_to": "es", "drafts": True}}],
    }
    assert (translator["name"], translator["translations"]) == ("en-es", [])
    assert (voice["languages"], voice["gives"]) == (["es"], {"kind": "audio", "sample_rate": 8000})


def test_the_offer_of_real_models():
    from loquent.tts import Synthesizer

    recognizer = Recognizer.from_pretrained("tiny.en")
    engines = {"hear": Engine(recognizer.streaming_task(), 1)}
    engines["voice"] = Engine(Synthesizer.from_pretrained("loquent/voice").task, 1)
    engines["commands"] = Engine(Recognizer.from_pretrained("loquent/commands").streaming_task(), 1)
    hear, voice, commands = (offer_of(name, model) for name, model in models_of(engines).items())
    assert (hear["languages"], hear["latencies_ms"], hear["translations"]) == (["en"], [300], [])
    assert (voice["languages"], voice["voices"]) == (["en"], ["alto", "baritone"])
    assert commands["languages"] == ["en"]
    for latency in commands["latencies_ms"]:
        engines["commands"].open(chunk_ms=latency).close()
