"""The page speaks: a text, and the translation of what is said."""

import base64
import io
from dataclasses import dataclass

import numpy as np
import pytest
import soundfile

from loquent.speech.runtime.engine import Engine
from loquent.speech.runtime.events import Speech
from loquent.speech.runtime.task import Offer

SPIED = """window.sent = []; window.played = 0;
const send = WebSocket.prototype.send;
WebSocket.prototype.send = function (data) {
  if (typeof data === "string") sent.push(JSON.parse(data));
  send.call(this, data);
};
const start = AudioBufferSourceNode.prototype.start;
AudioBufferSourceNode.prototype.start = function (at) { played += this.buffer.length; start.call(this, at); };"""


@pytest.fixture
def tab(polyglot, visit):
    tab = visit(polyglot())
    tab.evaluate(SPIED)
    return tab


def samples_of(task, text):
    session = Engine(task, 1).open()
    events = session.push(text) + session.finish()
    spoken = np.concatenate([event.samples for event in events if isinstance(event, Speech)])
    return np.clip(np.rint(spoken * 32768), -32768, 32767).astype(np.int16)


def test_a_text_is_spoken(tab, driver, spanish_voice):
    tab.click("#tab-speak")
    tab.evaluate("document.getElementById('text').value = 'go 😀 now'")
    tab.click("#say")
    assert tab.text("#say") == "Stop"
    driver.wait_until(lambda: tab.text("#say") == "Speak")
    assert tab.text(".reading .said") == "go 😀 now", "positions are in characters"
    assert "First sound after" in tab.text("#speech-status")
    expected = samples_of(spanish_voice(), "go 😀 now")
    assert tab.evaluate("played") == len(expected)
    tab.evaluate("const make = URL.createObjectURL; URL.createObjectURL = blob => make(window.saved = blob)")
    tab.click("#keep")
    content = tab.evaluate("saved.arrayBuffer().then(bytes => btoa(String.fromCharCode(...new Uint8Array(bytes))))")
    samples, rate = soundfile.read(io.BytesIO(base64.b64decode(content)), dtype="int16")
    assert rate == 8000
    assert np.abs(samples.astype(int) - expected).max() <= 1
    assert tab.complaints() == []


def test_speech_stops_at_once(tab, driver):
    tab.click("#tab-speak")
    tab.evaluate("document.getElementById('text').value = 'word '.repeat(1000)")
    tab.click("#say")
    driver.wait_until(lambda: len(tab.text(".reading .said")) > 3)
    tab.click("#say")
    assert tab.text("#say") == "Speak"
    assert "Stopped after “" in tab.text("#speech-status")
    played = tab.evaluate("sent.find(({type}) => type === 'interrupt')?.played_s")
    assert 0 < played < 30
    assert tab.text(".reading .unsaid") != ""


def test_the_translation_is_said(tab, driver):
    """While somebody speaks: each word of the translation goes to the voice, with the time it stands for."""
    tab.choose("#target", "es")
    tab.choose("#aloud", "along")
    tab.click("#record")
    driver.wait_until(lambda: tab.evaluate("played") > 0)
    tab.click("#record")
    driver.wait_until(lambda: tab.text("#record") == "Start")
    driver.wait_until(lambda: tab.evaluate("sent.filter(({type}) => type === 'finish').length") == 2)
    said = tab.evaluate("sent.filter(({type}) => type === 'text')")
    assert "".join(one["text"] for one in said).split() == " ".join(tab.texts(".line .target")).split()
    times = [one["time_s"] for one in said]
    assert times == sorted(times)
    assert tab.text("#error") == ""


def test_a_model_that_translates_by_itself(start_server, hearing, tones, visit, driver, keep):
    """As a Whisper of many languages does into English: the captions are the translation, and the voice says them."""

    @dataclass(frozen=True)
    class Options(hearing.Options):
        task: str = "transcribe"
        language: str | None = None

    class Whisper(hearing):
        def offer(self):
            return Offer(("en", "de"), to_english=True)

        def start(self, options):
            self.asked = options.task
            return hearing.start(self, hearing.Options(chunk_ms=options.chunk_ms))

    class EnglishVoice(tones.Tones):
        def offer(self):
            return Offer(("en",))

    Whisper.Options = Options
    ear = Whisper()
    tab = visit(start_server(engines={"ear": Engine(ear, 1), "voice": Engine(EnglishVoice(), 1)}))
    tab.evaluate(SPIED)
    tab.choose("#spoken", "en")
    assert tab.evaluate("document.getElementById('target-field').hidden"), "English into English is no translation"
    tab.choose("#spoken", "de")
    tab.choose("#target", "en")
    tab.choose("#aloud", "along")
    tab.click("#record")
    driver.wait_until(lambda: tab.evaluate("played") > 0)
    tab.click("#record")
    driver.wait_until(lambda: tab.text("#record") == "Start")
    assert ear.asked == "translate"
    assert tab.evaluate("document.querySelector('.line .source').lang") == "en"
    said = tab.evaluate("sent.filter(({type}) => type === 'text').map(({text}) => text).join('')")
    assert said.split() == " ".join(tab.texts(".line .source")).split()


def test_a_row_that_speaks(start_server, hearing, tones, visit, driver, keep, taped, texts):
    """A model that answers speech with speech: both are there, whatever its stages are called."""
    row = {"hear": Engine(hearing(), 1), "say": Engine(tones.Tones(), 1)}
    tab = visit(start_server(engines={"row": row}))
    tab.evaluate(SPIED)
    tab.click("#record")
    keep(tab)
    driver.wait_until(lambda: tab.evaluate("played") > 0)
    tab.click("#record")
    driver.wait_until(lambda: tab.text("#record") == "Start")
    assert tab.texts(".line .source") == texts(*taped(tab)) != []


def test_the_voice_stops_when_somebody_speaks(tab, driver):
    """In turns: it says what was said before the pause, and is silent as soon as the next words come."""
    tab.choose("#target", "es")
    tab.choose("#aloud", "turns")
    tab.click("#record")
    driver.wait_until(lambda: tab.evaluate("sent.some(({type}) => type === 'interrupt')"))
    order = [kind for kind in tab.evaluate("sent.map(({type}) => type)") if kind in ("text", "flush", "interrupt")]
    assert order[:3] == ["text", "flush", "interrupt"]
    tab.click("#record")
    driver.wait_until(lambda: tab.text("#record") == "Start")


def test_without_a_voice_of_the_language_nothing_is_offered(start_server, hearing, tones, visit):
    tab = visit(start_server(engines={"ear": Engine(hearing(), 1), "voice": Engine(tones.Tones(), 1)}))
    assert tab.evaluate("document.getElementById('aloud-field').hidden")
    assert tab.evaluate("document.getElementById('target-field').hidden")
    assert tab.texts("[role=tab]") == ["Captions", "Speak"]
    tab = visit(start_server(engines={"ear": Engine(hearing(), 1)}))
    assert tab.text("#modes") == "", "one mode is no choice"
