"""Corpora in the layouts of their repositories, to manifests that recipes and benchmarks read."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from loquent.recipes.data import corpora
from loquent.recipes.data.corpora import CORPORA, import_corpus
from loquent.recipes.data.manifest import SAMPLE_RATE, ManifestError, read_manifest
from loquent.speech.audio.files import write_audio

UQM_TEXT = """#(HELLO)\torz-000.ogg
Hello, *campers*.
This is a second page.

#(who_are_you)
Words of the player, which nobody reads.

#(ABSENT)\torz-001.ogg
This file is missing.
"""
FILES = {
    "kathleen": {"data/arctic_a0001.txt": "Author of the danger trail.\n"},
    "lj_speech": {"LJSpeech-1.1/metadata.csv": 'A-1|Chapter 1 "x"|Chapter one "x"\nA-2|Two|Two\nA-3|Three|Three\n'},
    "common_voice": {
        "en/validated.tsv": 'client_id\tpath\tsentence\taccent\nabc\t1.wav\tSay "so".\tus\nabc\t2.wav\tGone.\t\n'
    },
    "uqm": {
        "content/addons/3dovoice/3dovoice.rmp": (
            "comm.orz.dialogue = CONVERSATION:base/comm/orz.txt:addons/3dovoice/orz/:orz.ts\nother = 1\n"
        ),
        "content/base/comm/orz.txt": UQM_TEXT,
    },
}
RECORDINGS = {
    "kathleen": {"data/arctic_a0001.wav": "Author of the danger trail."},
    "lj_speech": {"LJSpeech-1.1/wavs/A-1.wav": 'Chapter one "x"', "LJSpeech-1.1/wavs/A-2.wav": "Two"},
    "gcompris": {"en/words/polar_bear.ogg": "polar bear", "en/alphabet/U0041.ogg": None, "de/words/bear.ogg": None},
    "wake_words": {"audio/view glass/1.wav": "view glass", "audio/multiple_keywords.wav": None},
    "precise": {"heycomputer/en/1.wav": "hey computer", "not-wake-words/en/1.wav": None},
    "keywords": {"custom_keywords/trick_or_treat/1.wav": "trick or treat"},
    "common_voice": {"en/clips/1.wav": 'Say "so".'},
    "accent_archive": {"recordings/dutch/dutch_001.wav": corpora.STELLA},
    "uqm": {"content/addons/3dovoice/orz/orz-000.ogg": "Hello, *campers*. This is a second page."},
}


def checkout(name: str, folder: Path) -> Path:
    for path, text in FILES.get(name, {}).items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    for path in RECORDINGS[name]:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        write_audio(folder / path, np.full(SAMPLE_RATE // 2, 0.1, np.float32), SAMPLE_RATE)
    return folder


@pytest.mark.parametrize("name", CORPORA)
def test_a_checkout_becomes_a_manifest(name: str, tmp_path: Path) -> None:
    folder = checkout(name, tmp_path / name)
    import_corpus(name, folder)
    rows = read_manifest(folder)
    assert {str(Path(row.path).relative_to(folder)): row.text for row in rows} == {
        path: text for path, text in RECORDINGS[name].items() if text is not None
    }
    for row in rows:
        assert len(row.samples()) == pytest.approx(row.duration * SAMPLE_RATE, abs=2)
        assert row.split == ("train" if CORPORA[name].trains else "eval")
        assert row.extra["licence"] == CORPORA[name].licence
        assert row.extra["credit"]
    assert {row.set for row in rows} == {name}


def test_what_forbids_other_uses_is_for_measuring_only() -> None:
    """Weights that are given away must not be trained on it; Common Voice is kept to measure with."""
    measured = {name for name, corpus in CORPORA.items() if not corpus.trains}
    assert measured == {name for name, one in CORPORA.items() if "NC" in one.licence} | {"common_voice"}


def test_what_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """What another manifest has; damaged and long recordings; more than so many of a word."""
    folder = checkout("lj_speech", tmp_path / "lj_speech")
    wavs = folder / "LJSpeech-1.1" / "wavs"
    (wavs / "A-3.wav").write_bytes(b"RIFF")
    other = tmp_path / "other.jsonl"
    other.write_text(json.dumps({"path": "audio/A-1.ogg", "text": "x", "duration": 1}))
    corpora.main(["lj_speech", str(folder), "--without", str(other)])
    assert [row.text for row in read_manifest(folder)] == ["Two"]
    assert "1 recordings, 0.00 h, for training" in capsys.readouterr().out
    monkeypatch.setattr(corpora, "LONGEST_S", 0.4)
    with pytest.raises(SystemExit, match="no recordings in"):
        corpora.main(["lj_speech", str(folder)])
    monkeypatch.undo()

    words = tmp_path / "wake_words"
    (words / "audio" / "alexa").mkdir(parents=True)
    for number in range(5):
        write_audio(words / "audio" / "alexa" / f"{number}.wav", np.zeros(8000, np.float32), SAMPLE_RATE)
    monkeypatch.setattr(corpora, "MOST_OF_A_WORD", 3)
    assert len(import_corpus("wake_words", words)) == 3
    (tmp_path / "content/addons/3dovoice").mkdir(parents=True)
    (tmp_path / "content/addons/3dovoice/3dovoice.rmp").write_text("")
    with pytest.raises(ManifestError, match=r"expected a checkout of https://github\.com/davidben/uqm"):
        import_corpus("uqm", tmp_path)
