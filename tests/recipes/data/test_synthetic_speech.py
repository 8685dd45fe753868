"""A corpus of synthetic speech."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from loquent.recipes.data.manifest import SAMPLE_RATE, read_manifest
from loquent.recipes.data.synthetic_speech import VOICES, main, read_aloud
from loquent.recipes.data.synthetic_voices import ACCENTS, HibariVoice, with_accent


class Tone:
    """As many tenths of a second as the text has words, at a level that is drawn."""

    licence = "none"

    def __init__(self, source: str) -> None:
        self.source = source

    def __call__(self, text: str, rng: random.Random) -> np.ndarray:
        return np.full(len(text.split()) * SAMPLE_RATE // 10, rng.uniform(0.1, 0.5), np.float32)


def test_voices_take_turns_and_the_manifest_tells_what_they_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(VOICES, "hibari", lambda _: Tone("hibari-tts"))
    monkeypatch.setitem(VOICES, "kokoro", lambda where: Tone(where))
    (tmp_path / "texts.txt").write_text("one\n\n two words \nand three words\n", encoding="utf-8")
    folder = tmp_path / "more" / "synthetic"
    main([str(tmp_path / "texts.txt"), str(folder), "--voices", "hibari", "kokoro=there"])
    assert capsys.readouterr().out == f"{folder / 'manifest.jsonl'}: 3 recordings, 0.00 h\n"
    rows = read_manifest(folder / "manifest.jsonl")
    assert [row.text for row in rows] == ["one", "two words", "and three words"]
    assert [row.extra["source"] for row in rows] == ["hibari-tts", "there", "hibari-tts"]
    assert {(row.split, row.language, row.speaker) for row in rows} == {("train", "en", None)}
    for row in rows:
        assert len(row.samples()) == round(row.duration * SAMPLE_RATE) == len(row.text.split()) * SAMPLE_RATE // 10


def test_what_is_drawn_follows_from_the_seed_and_the_text(tmp_path: Path) -> None:
    def levels(folder: str, seed: int) -> list[float]:
        rows = list(read_aloud(["one", "one", "two"], [Tone("tone")], tmp_path / folder, seed))
        return [float(row.samples()[0]) for row in rows]

    first = levels("first", 1)
    assert first == levels("again", 1)
    assert len(set(first)) == 3
    assert first != levels("other", 2)


def test_what_is_missing_is_told(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["texts.txt", str(tmp_path), "--voices", "nobody"])
    with pytest.raises(SystemExit, match=r"No such file.*texts\.txt"):
        main([str(tmp_path / "texts.txt"), str(tmp_path), "--voices", "hibari"])


def test_an_accent_changes_some_sounds_and_is_kept_for_the_sentence() -> None:
    sentence = "ɹɛd ɹɛd zu zu"
    found = {with_accent(sentence, random.Random(seed)) for seed in range(50)}
    assert sentence in found
    assert len(found) > 5
    for spoken in found:
        first, second, third, fourth = spoken.split()
        assert (first, third) == (second, fourth)
        assert first[0] in ("ɹ", *(sound[0] for sound in ACCENTS["ɹ"]))


def test_hibari_reads_with_an_accent() -> None:
    pytest.importorskip("hibari")
    text = "The very last thing that I would ever think of."
    plain, accented = (HibariVoice(accents)(text, random.Random(3)) for accents in (0.0, 1.0))
    assert plain.dtype == accented.dtype == np.float32
    assert min(len(plain), len(accented)) > SAMPLE_RATE
    assert not np.array_equal(plain[:SAMPLE_RATE], accented[:SAMPLE_RATE])
