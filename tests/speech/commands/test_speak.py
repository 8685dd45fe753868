"""``loquent speak``: files, times of words, standard input, options that are refused before a voice is loaded."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import subprocess
import sys
import types
from collections.abc import Iterator

import numpy as np
import pytest

import loquent.tts
from loquent.speech.audio.files import read_audio
from loquent.speech.commands.cli import main
from loquent.speech.hub import CheckpointError, resolve

try:
    resolve("loquent/hibari")
except CheckpointError as error:
    pytest.skip(str(error), allow_module_level=True)


@pytest.fixture(scope="module", autouse=True)
def _one_voice() -> Iterator[None]:
    """The command loads the real voice, once for all tests."""
    patch = pytest.MonkeyPatch()
    patch.setattr(
        loquent.tts.Synthesizer, "from_pretrained", functools.lru_cache(loquent.tts.Synthesizer.from_pretrained)
    )
    yield
    patch.undo()


def test_speech_goes_to_a_file_with_the_times_of_its_words(tmp_path, capsys):
    out, words = tmp_path / "out.wav", tmp_path / "words.json"
    assert main(["speak", "Hello", "there, world.", "-o", str(out), "--save-words", str(words)]) == 0
    audio = read_audio(out)
    assert audio.sample_rate == 24_000
    assert 1.0 < audio.duration_s < 3.0
    assert f"{audio.duration_s:.1f} s of speech" in capsys.readouterr().err
    segments = json.loads(words.read_text())["segments"]
    assert [word["text"] for word in segments[0]["words"]] == ["Hello", " there,", " world."]


def test_captions_have_one_word_each(tmp_path):
    captions = tmp_path / "words.srt"
    assert main(["speak", "Hello there.", "-o", str(tmp_path / "a.flac"), "--save-words", str(captions)]) == 0
    assert captions.read_text().split("\n\n")[1].splitlines()[-1] == "there."


def test_standard_input_is_spoken_as_it_comes(tmp_path):
    """A process of its own, whose input is cut in the middle of a character."""
    text = "Café au lait, please. ".encode()
    program = "import sys; from loquent.speech.commands.cli import main; sys.exit(main())"
    out = tmp_path / "out.wav"
    with subprocess.Popen(
        [sys.executable, "-c", program, "speak", "-", "-o", str(out)], stdin=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        for piece in (text[:4], text[4:9], text[9:]):
            os.write(process.stdin.fileno(), piece)
        _, errors = process.communicate(timeout=100)
        assert process.returncode == 0, errors
    np.testing.assert_allclose(
        read_audio(out).samples,
        loquent.tts.Synthesizer.from_pretrained().synthesize(text.decode()).samples,
        atol=1e-4,
    )


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["-o", "a.txt"], "--output a.txt: expected a name ending in .wav"),
        (["-o", "a.wav", "--save-words", "b.doc"], "--save-words b.doc: expected a name ending in"),
        (["-o", "a.wav", "--speed", "9"], "--speed: expected a factor from 0.25 to 4.0, got 9.0"),
        (["-o", "a.wav", "--seed", "-1"], "--seed: expected a number"),
        (["-o", "a.wav", "--model", "nobody"], "unknown model 'nobody'"),
        (["-o", "a.wav", "--voice", "nobody"], "--voice: there is no 'nobody'"),
        (["-o", "no/such/folder/a.wav"], "cannot write 'no/such/folder/a.wav'"),
        (["-o", "a.wav", "--lexicon", "missing.json"], "missing.json"),
        (["-o", "a.wav", "--save-words", "no/such/b.srt"], "cannot write no/such/b.srt: No such file or directory"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(arguments, reason, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["speak", "Hello", *arguments]) != 0
    error = capsys.readouterr().err
    assert reason in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_text_without_words_is_told(tmp_path, capsys):
    assert main(["speak", "...", "-o", str(tmp_path / "a.wav")]) == 1
    assert "nothing in the text that can be spoken" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_standard_input_that_cannot_be_read_is_told(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", None)  # as Python does where it is closed
    assert main(["speak", "-", "-o", str(tmp_path / "a.wav")]) == 1
    assert "standard input is closed" in capsys.readouterr().err
    with contextlib.ExitStack() as stack:
        folder = os.open(tmp_path, os.O_RDONLY)
        stack.callback(os.close, folder)
        monkeypatch.setattr("sys.stdin", types.SimpleNamespace(fileno=lambda: folder))
        assert main(["speak", "-", "-o", str(tmp_path / "a.wav")]) == 1
    assert "cannot read standard input: Is a directory" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_text_of_other_scripts_is_told_and_the_rest_spoken(tmp_path, capsys):
    assert main(["speak", "Hello мир again.", "-o", str(tmp_path / "a.wav")]) == 0
    assert "not spoken: 'мир'" in capsys.readouterr().err


def test_help_names_the_contexts_and_endings(capsys):
    with pytest.raises(SystemExit):
        main(["speak", "--help"])
    assert ".opus" in capsys.readouterr().out
