"""``loquent interpret``: speech at its time, captions in both languages, and what is refused."""

from __future__ import annotations

import re

import numpy as np
import pytest

from loquent.speech.audio.files import read_audio, write_audio
from loquent.speech.bilingual import RECOGNITION, SPEECH, TRANSLATION
from loquent.speech.commands.cli import main
from loquent.speech.commands.interpret import Timed
from loquent.speech.runtime.engine import Engine
from loquent.speech.runtime.events import Speech
from loquent.speech.runtime.pipeline import Pipeline
from loquent.translate.spoken.interpreter import Interpreter


@pytest.fixture
def loaded(band_energy, toy, tones, monkeypatch, tmp_path):
    """What the command asks of `Interpreter.from_pretrained`; its tasks hear the loudness and say it in tones."""
    from loquent.translate.task import TranslationTask

    asked = []

    class Fake:
        def __init__(self, translator, voice):
            self.tasks = {RECOGNITION: band_energy.BandEnergy(), TRANSLATION: TranslationTask(toy.Mirror())}
            if translator is None:
                self.tasks = {TRANSLATION: band_energy.BandEnergy()}
            if voice is not None:
                self.tasks[SPEECH] = tones.Tones()

        def session(self, **options):
            return Pipeline.open({name: Engine(task) for name, task in self.tasks.items()}, **options)

    def load(recognizer, translator, voice, **options):
        asked.append((recognizer, translator, voice, options["source"]))
        return Fake(translator, voice)

    monkeypatch.setattr(Interpreter, "from_pretrained", load)
    monkeypatch.chdir(tmp_path)
    write_audio(tmp_path / "a.wav", np.random.default_rng(0).integers(-20_000, 20_000, 8000, np.int16), 16_000)
    return asked


def test_speech_goes_to_a_file_and_both_texts_to_stdout(loaded, capsys):
    assert main(["interpret", "a.wav", "--to", "es", "-o", "out.wav", "--speak", "v", "--model", "m"]) == 0
    assert loaded == [("m", "loquent/en-es", "v", None)]
    said = capsys.readouterr().out.splitlines()
    assert said[::2] == said[1::2] != []
    assert read_audio("out.wav").duration_s > 1


def test_to_english_the_recogniser_translates_itself(loaded, capsys):
    assert main(["interpret", "a.wav", "--from", "es", "--speak", "none", "--model", "m"]) == 0
    assert loaded == [("m", None, None, "es")]
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_silence_before_speech_is_kept():
    heard = []
    timed = Timed([heard.append], 10)
    for start in (0.5, 0.7, 2.0):
        timed.show(
            Speech(samples=np.ones(2, np.float32), sample_rate=10, text="", span=(0, 0), start=start, end=start + 0.2)
        )
    assert np.concatenate(heard).tolist() == [0] * 5 + [1] * 4 + [0] * 11 + [1] * 2


@pytest.mark.parametrize(
    ("argv", "reason"),
    [
        (["a.wav", "--microphone", "1"], "FILE and --microphone exclude each other"),
        (["a.wav", "-o", "a.txt"], "--output a.txt: expected a name ending in .wav"),
        (["a.wav", "--speak", "none", "--play"], "--speak none makes captions alone"),
        (["a.wav", "--from", "en"], "--to en: that is the language of the speech"),
        (["a.wav", "--to", "fr"], "translates English to French; .* Pass another as --translate-model"),
        (["a.wav", "--keep", "x"], "--glossary and --keep are for models of text"),
    ],
)
def test_what_does_not_fit_is_refused(loaded, argv, reason, capsys):
    assert main(["interpret", *argv]) == 2
    error = capsys.readouterr().err
    assert re.search(reason, error)
    assert error.count("\n") == 1
    assert loaded == []
