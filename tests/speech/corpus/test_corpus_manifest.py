"""Manifests: our rows and NeMo's, cuts that lhotse wrote, folders, and rows that make no sense."""

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

from loquent.speech.audio.errors import AudioError
from loquent.speech.audio.files import read_audio, write_audio
from loquent.speech.corpus.items import Item, packed
from loquent.speech.corpus.manifest import CorpusError, read_corpus

RATE = 8000


def noise(seconds, channels=1):
    shape = (round(seconds * RATE),) if channels == 1 else (round(seconds * RATE), channels)
    return np.random.default_rng(0).uniform(-0.5, 0.5, shape).astype(np.float32)


def manifest(folder: Path, *rows, name="manifest.jsonl") -> Path:
    path = folder / name
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def test_our_rows_and_nemo_s(tmp_path):
    path = manifest(
        tmp_path,
        {"path": "a.wav", "text": "one", "duration": 1.5, "language": "en", "speaker": "ada"},
        {"audio_filepath": "/data/b.wav", "duration": 2, "text": "two", "offset": 3.5},
        {"audio_filepath": "/data/b.wav", "duration": 2, "text": "two", "offset": 5.5, "id": "mine"},
    )
    first, second, third = read_corpus(path, "audio")
    assert first == Item("a.wav", "one", str(tmp_path / "a.wav"), "a.wav", duration=1.5, language="en", speaker="ada")
    assert (second.id, second.path, second.start, second.duration) == ("/data/b.wav@3.5", "/data/b.wav", 3.5, 2.0)
    assert third.id == "mine"


def test_a_bad_row_is_an_item_with_a_fault(tmp_path):
    path = manifest(
        tmp_path, '{"path": "a.w', "[1]", {"text": "x"}, {"path": "c.wav", "duration": -1}, {"path": "d.wav"}
    )
    *bad, good = read_corpus(path, "audio")
    assert [item.id for item in bad] == ["manifest.jsonl:1", "manifest.jsonl:2", "manifest.jsonl:3", "c.wav"]
    assert "not JSON" in bad[0].fault
    assert "expected an object" in bad[1].fault
    assert "has no path" in bad[2].fault
    assert "number of seconds as duration: -1" in bad[3].fault
    assert good.fault is None


def test_texts_need_no_recordings(tmp_path):
    path = manifest(tmp_path, {"text": "one"}, {"id": "b", "text": "two"}, {"path": "c.wav"})
    one, two, three = read_corpus(path, "text")
    assert (one.id, one.text) == ("manifest.jsonl:1", "one")
    assert (two.id, two.text) == ("b", "two")
    assert "has no text" in three.fault


def test_a_folder_of_texts(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "b.txt").write_text("two\nlines\n", encoding="utf-8")
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe\xff")
    first, second = read_corpus(tmp_path, "text")
    assert "cannot read" in first.fault
    assert (second.id, second.text) == ("deep/b", "two lines")


def test_the_same_row_twice_is_one_item_and_another_with_its_id_is_refused(tmp_path):
    row = {"path": "a.wav", "duration": 1.0}
    assert len(read_corpus(manifest(tmp_path, row, row), "audio")) == 1
    with pytest.raises(CorpusError, match=r"different items as 'a.wav'"):
        read_corpus(manifest(tmp_path, row, row | {"duration": 2.0}), "audio")


def test_nothing_to_read_is_told(tmp_path):
    with pytest.raises(CorpusError, match="no manifest"):
        read_corpus(tmp_path / "missing.jsonl", "audio")
    with pytest.raises(CorpusError, match="nothing is listed"):
        read_corpus(manifest(tmp_path), "audio")
    (tmp_path / "broken.zip").write_bytes(b"PK")
    with pytest.raises(CorpusError, match="cannot read"):
        read_corpus(tmp_path / "broken.zip", "audio")


def test_recordings_in_an_archive(tmp_path):
    write_audio(tmp_path / "a.wav", noise(0.5), RATE)
    with zipfile.ZipFile(tmp_path / "speech.zip", "w") as archive:
        archive.write(tmp_path / "a.wav", "a.wav")
        archive.writestr("manifest.jsonl", '{"path": "a.wav"}\n{"path": "b.wav"}\n{"path": "a.wav", "start": 0.25}\n')
    whole, missing, part = read_corpus(tmp_path / "speech.zip", "audio")
    assert whole.length_s("audio") == 0.5
    samples = read_audio(tmp_path / "a.wav").samples
    assert np.array_equal(whole.audio().samples, samples)
    assert np.array_equal(part.audio().samples, samples[RATE // 4 :])
    with pytest.raises(AudioError, match=r"b\.wav"):
        missing.audio()


@pytest.mark.parametrize("ending", [".wav", ".flac", ".ogg"])
def test_a_stretch_is_that_part_of_the_whole(tmp_path, ending):
    """To the sample, whether the file can seek or has to be read up to there."""
    path = tmp_path / f"a{ending}"
    write_audio(path, noise(2.0, channels=2), RATE)
    whole = read_audio(path).samples
    row = {"path": path.name, "start": 0.5, "duration": 0.75}
    (item,) = read_corpus(manifest(tmp_path, row), "audio")
    assert np.array_equal(item.audio().samples, whole[RATE // 2 : RATE // 2 + RATE * 3 // 4])
    (item,) = read_corpus(manifest(tmp_path, row | {"duration": 9}), "audio")
    assert np.array_equal(item.audio().samples, whole[RATE // 2 :])
    (item,) = read_corpus(manifest(tmp_path, row | {"start": 5}), "audio")
    with pytest.raises(AudioError, match="ends before 5 s"):
        item.audio()


def test_cuts_that_lhotse_wrote(tmp_path):
    lhotse = pytest.importorskip("lhotse")
    write_audio(tmp_path / "talk.wav", noise(4.0, channels=2), RATE)
    recording = lhotse.Recording.from_file(tmp_path / "talk.wav")
    said = [
        lhotse.SupervisionSegment(
            f"s{k}", "talk", float(k), 0.5, channel=1, text=f"word {k}", language="en", speaker="a"
        )
        for k in range(4)
    ]
    whole = lhotse.MonoCut("whole", 0.0, 4.0, 1, recording=recording, supervisions=said)
    cuts = lhotse.CutSet.from_cuts([whole, whole.truncate(offset=1.25, duration=2.0).with_id("part"), whole.pad(5.0)])
    for name in ("cuts.jsonl", "cuts.jsonl.gz"):
        cuts.to_file(tmp_path / name)
        first, part, padded = read_corpus(tmp_path / name, "audio")
        assert (first.id, first.text, first.recording) == ("whole", "word 0 word 1 word 2 word 3", "talk")
        assert (part.start, part.duration, part.text) == (1.25, 2.0, "word 1 word 2 word 3")
        assert "MixedCut" in padded.fault
        for item, cut in ((first, cuts["whole"]), (part, cuts["part"])):
            audio = item.audio()
            assert audio.sample_rate == RATE
            assert np.array_equal(audio.samples, cut.load_audio()[0])
    cuts.subset(cut_ids=["whole"]).to_file(tmp_path / "cuts.jsonl")
    texts = read_corpus(tmp_path / "cuts.jsonl", "text")
    assert [(item.id, item.text, item.start) for item in texts] == [(f"s{k}", f"word {k}", float(k)) for k in range(4)]


def test_batches_are_packed_by_duration():
    items = [Item(str(k)) for k in range(7)]
    lengths = [1, 10, 2, 9, 1, 3, 30]
    batches = packed(items, lengths, seconds=12, least=1, most=3)
    assert [[item.id for item in batch] for batch in batches] == [["6"], ["1"], ["3", "5"], ["2", "0", "4"]]
    batches = packed(items, lengths, seconds=12, least=3, most=4)  # as many as go through the model at once
    assert [[item.id for item in batch] for batch in batches] == [["6", "1", "3"], ["5", "2", "0", "4"]]
