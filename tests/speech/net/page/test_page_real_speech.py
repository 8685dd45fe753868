"""Real speech, recognised by a real model: what the page shows is the transcript of what it recorded."""

import pytest

from loquent.asr import Recognizer
from loquent.speech.audio.files import read_audio, write_audio
from loquent.speech.runtime.engine import Engine
from loquent.speech.runtime.events import Final


@pytest.fixture(scope="module")
def recognizer():
    return Recognizer.from_pretrained("tiny.en")


def transcript(recognizer, samples, rate):
    session = recognizer.session(sample_rate=rate)
    return [event.text.strip() for event in session.push(samples) + session.finish() if isinstance(event, Final)]


def test_captions_are_the_transcript(recognizer, start_server, visit, driver, keep, taped):
    tab = visit(start_server(engines={"tiny.en": Engine(recognizer.streaming_task(), 1)}))
    assert tab.text("#about") == "tiny.en · English · new words every 300 ms"
    tab.click("#record")
    driver.wait_until(lambda: "recognition" in tab.text(".line .source .certain"))
    keep(tab)
    tab.click("#record")
    driver.wait_until(lambda: tab.text("#record") == "Start")
    assert tab.texts(".line .source") == transcript(recognizer, *taped(tab)) != []


def test_a_dropped_file_is_transcribed(recognizer, start_server, visit, driver, keep, taped, tmp_path, request):
    sample = read_audio(request.config.rootpath / "speech" / "assets" / "sample.flac")
    write_audio(tmp_path / "part.wav", sample.samples[: 5 * sample.sample_rate], sample.sample_rate)
    tab = visit(start_server(engines={"tiny.en": Engine(recognizer.streaming_task(), 1)}))
    tab.drop("part.wav", (tmp_path / "part.wav").read_bytes())
    driver.wait_until(lambda: tab.text("#record") == "Start")
    keep(tab)
    shown = tab.texts(".line .source")
    assert shown == transcript(recognizer, *taped(tab))
    assert "word down while you are still speaking" in " ".join(shown).replace(",", "")
