"""``--translate-to``: captions in two languages, whatever the recogniser; what does not fit together is refused."""

from __future__ import annotations

import json
from argparse import Namespace

import numpy as np
import pytest

import loquent.asr
import loquent.translate
from loquent.speech.audio.files import write_audio
from loquent.speech.commands.arguments import UsageError
from loquent.speech.commands.cli import main
from loquent.speech.commands.translation.translate_to import Asked, SegmentTranslator, translation_asked
from loquent.speech.runtime.engine import Engine
from loquent.speech.transcript import Segment, Transcript, WordTiming

SAID = [("bado fige", 0.0), ("lomo buta.", 1.0), ("Gamo", 2.0)]


class FakeRecognizer:
    """Says the same of every recording. Its streams tell the loudness."""

    batch, live_adapter, language = 1, None, "en"

    def __init__(self, band_energy):
        self._task = band_energy.BandEnergy()

    def segments(self, sources, **options):
        for number, _ in enumerate(sources):
            for text, start in SAID:
                words = tuple(
                    WordTiming(f" {word}", start + 0.3 * at, start + 0.3 * at + 0.3)
                    for at, word in enumerate(text.split())
                )
                yield number, Segment(start, start + 0.9, f" {text}", words)
            yield number, Transcript("", (), self.language, 1.0, 3.0)

    def streaming_task(self, **options):
        return self._task


@pytest.fixture(autouse=True)
def fake(toy, band_energy, monkeypatch, tmp_path):
    from loquent.translate.translator import Translator

    recognizer, translator = FakeRecognizer(band_energy), Translator(toy.Mirror())
    monkeypatch.setattr(loquent.translate.Translator, "from_pretrained", lambda name, **options: translator)
    monkeypatch.setattr(loquent.asr.Recognizer, "from_pretrained", lambda name, **options: recognizer)
    monkeypatch.chdir(tmp_path)
    noise = np.random.default_rng(0).integers(-20_000, 20_000, 40_000, np.int16)
    write_audio(tmp_path / "a.wav", noise, 16_000)
    write_audio(tmp_path / "b.wav", noise[:8000], 16_000)
    return recognizer


def transcribe(capsys, *argv, status=0):
    assert main(["transcribe", *argv]) == status
    return capsys.readouterr()


def test_text_is_followed_by_its_translation(capsys):
    expected = "".join(f"{text}\n{text}\n" for text, _ in SAID)
    assert transcribe(capsys, "a.wav", "--translate-to", "es") == (expected, "")
    both = f"==> a.wav <==\n{expected}\n==> b.wav <==\n{expected}"
    assert transcribe(capsys, "a.wav", "b.wav", "--translate-to", "Spanish").out == both


def test_captions_have_both_languages(capsys):
    out = transcribe(capsys, "a.wav", "--translate-to", "es", "-f", "srt").out
    assert out.startswith("1\n00:00:00,000 --> 00:00:00,900\nbado fige\nbado fige\n\n2\n")
    out = transcribe(capsys, "a.wav", "--translate-to", "es", "-f", "vtt", "--max-words-per-line", "1").out
    assert "00:00:00.300 --> 00:00:00.900\nfige\nfige\n\n" in out
    out = transcribe(capsys, "a.wav", "--translate-to", "es", "-f", "tsv").out
    assert out.splitlines()[:2] == ["start\tend\ttext\ttranslation", "0\t900\tbado fige\tbado fige"]
    assert "translation" not in transcribe(capsys, "a.wav", "-f", "tsv").out


def test_json_has_a_translation_of_every_segment(capsys):
    out = transcribe(capsys, "a.wav", "--translate-to", "es", "-f", "json", "--keep", "bado").out
    assert [one["translation"] for one in json.loads(out)["segments"]] == [text for text, _ in SAID]
    assert "translation" not in transcribe(capsys, "a.wav", "-f", "json").out


def test_live_captions_in_two_languages(capsys, tmp_path):
    plain = [line.strip() for line in transcribe(capsys, "a.wav", "--stream").out.splitlines()]
    out = transcribe(capsys, "a.wav", "--stream", "--translate-to", "es", "--translate-k", "2").out.splitlines()
    assert out == [line for text in plain for line in (text, text)]
    transcribe(capsys, "a.wav", "--stream", "--translate-to", "es", "-f", "json", "-o", "out")
    segments = json.loads((tmp_path / "out" / "a.json").read_text())["segments"]
    assert [one["translation"] for one in segments] == [one["text"].strip() for one in segments] == plain


def test_speech_in_another_language_is_told_and_its_text_kept(capsys, fake, tmp_path):
    fake.language = "de"
    out, error = transcribe(capsys, "a.wav", "--model", "base", "--translate-to", "es", "-o", "out", status=1)
    assert out == ""
    assert "a.wav: the speech is German (de), but 'loquent/en-es' translates from English (en)" in error
    assert (tmp_path / "out" / "a.part.txt").read_text() == "".join(f"{text}\n" for text, _ in SAID)


def test_what_is_cut_off_is_kept(toy):
    from loquent.translate.task import TranslationTask

    def items():
        yield 0, Segment(0.0, 1.0, "bado.")
        yield 0, Segment(1.0, 2.0, "Fige")
        raise KeyboardInterrupt

    translator = SegmentTranslator(
        Engine(TranslationTask(toy.Mirror()), 2), Asked("m", "en", "es"), early=True, english=False, options={}
    )
    got = []
    with pytest.raises(KeyboardInterrupt):
        got.extend(map(got.append, translator.items(items())))
    got = [item for item in got if item]
    assert [(one.text, one.translation) for _, one in got] == [("bado.", "bado."), ("Fige", None)]


def asked(**given):
    flags = {"translate_to": None, "translate_model": None, "translate_policy": None, "translate_k": None}
    flags |= {"glossary": None, "keep": None, "task": "transcribe", "language": None}
    arguments = Namespace(**flags | given)
    return translation_asked(arguments), arguments.task


def test_the_model_follows_from_the_languages(capsys):
    assert asked() == (None, "transcribe")
    assert asked(translate_to="es")[0] == ("loquent/en-es", "en", "es")
    assert asked(translate_to="de")[0] == ("loquent/en-de", "en", "de")
    assert asked(translate_to="es", language="English")[0] == ("loquent/en-es", "en", "es")
    assert asked(translate_to="es", language="fr", task="translate")[0] == ("loquent/en-es", "en", "es")
    assert asked(translate_to="en", language="fr", translate_model="x")[0] == ("x", "fr", "en")
    assert capsys.readouterr().err == ""


def test_the_recogniser_translates_to_english_itself(capsys):
    assert asked(translate_to="en") == (None, "translate")
    assert asked(translate_to="en", language="de") == (None, "translate")
    assert "the recogniser itself translates to English" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"translate_to": "en", "language": "en"}, "--translate-to en: the text is English"),
        (
            {"translate_to": "es", "language": "fr"},
            "translates French to Spanish; .* Pass another as --translate-model",
        ),
        ({"keep": ["x"]}, "--keep needs --translate-to"),
        ({"translate_k": 2}, "--translate-k needs --translate-to"),
        ({"translate_model": "x"}, "--translate-model needs --translate-to"),
    ],
)
def test_what_does_not_fit_is_refused(given, reason):
    with pytest.raises(UsageError, match=reason):
        asked(**given)
