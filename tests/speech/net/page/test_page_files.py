"""Recordings that are dropped on the page, and captions that are downloaded from it."""

import io
import json

import numpy as np
import pytest
import soundfile

from loquent.speech.captions import write
from loquent.speech.transcript import Segment, Transcript, WordTiming


@pytest.fixture
def read(driver):
    """Function that waits until the page has read a recording."""
    return lambda tab: driver.wait_until(lambda: tab.text("#record") == "Start")


def test_a_file_is_read_to_the_end(polyglot, visit, read, texts, wave_file):
    tab = visit(polyglot())
    content = wave_file(3.3)
    tab.drop("noise.wav", content)
    read(tab)
    samples, rate = soundfile.read(io.BytesIO(content), dtype="int16")
    assert tab.texts(".line .source") == texts(samples, rate)
    assert tab.evaluate("document.getElementById('progress').value") == 1
    assert tab.text("#status") == "Finished."
    assert tab.complaints() == []


def test_several_files_are_read_one_after_the_other(polyglot, visit, driver, wave_file):
    tab = visit(polyglot())
    contents = [list(wave_file(seconds)) for seconds in (0.5, 0.3)]
    tab.evaluate(
        f"""import("/page/captions_mode.js").then(({{read}}) =>
          read({contents}.map((bytes, i) => new File([new Uint8Array(bytes)], `${{i}}.wav`))))"""
    )
    assert tab.texts(".recording h2") == ["0.wav", "1.wav"]
    assert [len(tab.texts(f".recording:nth-child({i}) .line")) for i in (1, 2)] == [1, 1]


def test_a_file_is_translated_too(polyglot, visit, read, keep, taped, translated, wave_file):
    tab = visit(polyglot())
    tab.choose("#target", "es")
    tab.drop("noise.wav", wave_file(2.5))
    keep(tab)
    read(tab)
    assert tab.texts(".line .target") == translated(*taped(tab)) != []


def test_what_the_browser_cannot_decode_the_server_does(polyglot, visit, read):
    given = []

    def transcribe(samples, progress, **options):
        given.append((len(samples), options))
        segments = (Segment(0.0, 0.4, " One."), Segment(0.5, 1.0, " Two."))
        return Transcript(" One. Two.", segments, "en", 1.0, 1.0)

    tab = visit(polyglot(transcribe=transcribe))
    file = io.BytesIO()
    soundfile.write(file, np.zeros(16_000, np.int16), 16_000, format="CAF")
    tab.drop("talk.caf", file.getvalue())
    read(tab)
    assert given == [(16_000, {})]
    assert tab.texts(".line .source") == ["One.", "Two."]
    assert tab.text("#error") == ""


@pytest.fixture
def saved(chromium, driver, tmp_path):
    """Function that presses the button of a format and reads the file that the browser saves."""
    (tmp_path / "saved").mkdir()

    def of(tab, format, index=0):
        chromium.call(
            "Browser.setDownloadBehavior",
            behavior="allow",
            downloadPath=str(tmp_path / "saved"),
            browserContextId=tab.context,
        )
        tab.evaluate(f"document.querySelectorAll('[data-format={format}]')[{index}].click()")
        [path] = driver.wait_until(lambda: list((tmp_path / "saved").glob(f"*.{format}")))
        return path.name, driver.wait_until(path.read_text)

    return of


def segments_of(tab):
    """What the page has, as the command line would have it."""
    found = tab.evaluate("kept.captions.utterances")
    return [
        Segment(
            one["start"],
            one["end"],
            one["text"],
            tuple(WordTiming(**word) for word in one["words"]),
            translation=one["translation"].strip() or None,
        )
        for one in found
    ]


def as_file(format, segments, language=None):
    file = io.StringIO()
    write(format, segments, file, language=language)
    return file.getvalue()


def test_downloads_are_those_of_the_command_line(polyglot, visit, read, keep, saved, wave_file):
    tab = visit(polyglot())
    tab.choose("#target", "es")
    tab.drop("noise.wav", wave_file(2.5))
    keep(tab)
    read(tab)
    segments = segments_of(tab)
    assert len(segments) == 3
    for format in ("txt", "srt", "vtt"):
        assert saved(tab, format) == (f"noise.{format}", as_file(format, segments)), format
    name, content = saved(tab, "json")
    assert name == "noise.json"
    assert json.loads(content) == json.loads(as_file("json", segments, "en"))
    assert tab.evaluate("document.activeElement.tagName") == "SUMMARY", "where the user was"


def test_captions_are_cut_as_on_the_command_line(polyglot, visit):
    """Any text, times and translation, long and odd ones included."""
    tab = visit(polyglot())
    random = np.random.default_rng(0)
    vocabulary = ["a", "word", "in", "sentence.", "Then,", "Dr.", "Who?", "said:", "länger", "«So!»", "--> x", "&<b>"]
    segments = []
    clock = 0.0
    for count in (1, 3, 12, 40, 70):
        words = []
        for word in random.choice(vocabulary, count):
            start = round(clock + float(random.choice([0.0, 0.05, 1.25])), 4)
            clock = round(start + float(random.uniform(0.05, 0.6)), 4)
            words.append(WordTiming(f" {word}", start, clock, 0.5))
        text = "".join(word.text for word in words)
        translation = " ".join(random.choice(vocabulary, count * 2)) if count != 3 else None
        segments.append(Segment(words[0].start, clock, text, tuple(words), translation=translation))
    segments.append(Segment(clock, clock, " no times\nof words", translation="keine"))
    given = [
        {"text": one.text, "translation": one.translation or "", "start": one.start, "end": one.end, "final": True}
        | {"words": [vars(word) for word in one.words]}
        for one in segments
    ]
    for format in ("txt", "srt", "vtt"):
        made = tab.evaluate(
            f"import('/page/exports.js').then(({{written}}) => written('{format}', {json.dumps(given)}))"
        )
        assert made == as_file(format, segments), format


def test_copy_clear_and_undo(polyglot, visit, driver, read, wave_file):
    tab = visit(polyglot())
    tab.drop("noise.wav", wave_file(1.5))
    read(tab)
    lines = tab.texts(".line .source")
    tab.evaluate("navigator.clipboard.writeText = async text => { window.copied = text; }")
    tab.click(".copy")
    driver.wait_until(lambda: tab.text(".copy") == "Copied")
    assert tab.evaluate("copied").split("\n") == [*lines, ""]
    tab.click("#clear")
    assert tab.texts(".recording") == []
    assert tab.text("#empty .headline") == "Say something."
    tab.click("#status button")
    assert tab.texts(".line .source") == lines
