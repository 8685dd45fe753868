"""Manifests of every form give the same utterances."""

from __future__ import annotations

import gzip
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

from loquent.recipes.data.manifest import SAMPLE_RATE, ManifestError, Utterance, read_manifest, select, write_manifest
from loquent.speech.audio.files import write_audio

ROWS = [
    {"path": "audio/a.wav", "text": "one", "duration": 0.5, "language": "en", "speaker": "ann", "split": "train"},
    {"path": "audio/b.flac", "text": "deux", "duration": 0.25, "language": "fr", "split": "eval", "source": "there"},
]


def tone(seconds: float) -> np.ndarray:
    return (0.5 * np.sin(np.arange(round(seconds * SAMPLE_RATE)) / 10)).astype(np.float32)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of two recordings with their manifest."""
    (tmp_path / "set" / "audio").mkdir(parents=True)
    for row in ROWS:
        write_audio(tmp_path / "set" / row["path"], tone(row["duration"]), SAMPLE_RATE)
    (tmp_path / "set" / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return tmp_path / "set"


def zipped(folder: Path) -> Path:
    path = folder.with_suffix(".zip")
    with zipfile.ZipFile(path, "w") as archive:
        for file in folder.rglob("*"):
            archive.write(file, file.relative_to(folder))
    return path


def told(rows: list[Utterance]) -> list[tuple[object, ...]]:
    return [(row.id, row.text, row.duration, row.language, row.speaker, row.split, dict(row.extra)) for row in rows]


def test_folder_and_zip_tell_the_same(folder: Path) -> None:
    plain, packed = read_manifest(folder), read_manifest(zipped(folder))
    assert told(plain) == told(packed)
    assert told(plain)[1] == ("set/audio/b.flac", "deux", 0.25, "fr", None, "eval", {"source": "there"})
    for one, other in zip(plain, packed, strict=True):
        np.testing.assert_array_equal(one.samples(), other.samples())
        np.testing.assert_allclose(one.samples(), tone(one.duration), atol=1e-4)


def test_recordings_come_at_16_khz(tmp_path: Path) -> None:
    write_audio(tmp_path / "a.wav", tone(0.5), SAMPLE_RATE // 2)  # so it lasts a second
    (tmp_path / "manifest.jsonl").write_text(json.dumps({"path": "a.wav", "text": "", "duration": 1.0}))
    assert len(read_manifest(tmp_path)[0].samples()) == SAMPLE_RATE


@pytest.mark.parametrize("name", ["cuts.jsonl.gz", "train_cuts.jsonl"])
def test_cuts_of_lhotse(folder: Path, name: str) -> None:
    write_audio(folder / "long.wav", np.arange(SAMPLE_RATE, dtype=np.int16), SAMPLE_RATE)
    supervision = {"id": "s1", "start": 0.25, "duration": 0.5, "text": "two", "speaker": "bob", "language": "English"}
    cut = {
        "id": "c1",
        "type": "MonoCut",
        "start": 0.125,
        "duration": 0.8,
        "channel": 0,
        "supervisions": [supervision],
        "recording": {"id": "r", "sources": [{"type": "file", "channels": [0], "source": "long.wav"}]},
    }
    opened = gzip.open if name.endswith(".gz") else open
    with opened(folder / name, "wt") as file:
        file.write(json.dumps(cut) + "\n")
    (row,) = read_manifest(folder / name)
    assert (row.id, row.text, row.speaker, row.duration) == ("s1", "two", "bob", 0.5)
    start = round(0.375 * SAMPLE_RATE)
    np.testing.assert_allclose(row.samples() * 32768, np.arange(start, start + SAMPLE_RATE // 2))


def test_cuts_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    (tmp_path / "cuts.jsonl").write_text(json.dumps({"id": "m", "type": "MixedCut", "tracks": []}) + "\n")
    with pytest.raises(ManifestError, match=r"cuts\.jsonl:1 is a MixedCut"):
        read_manifest(tmp_path / "cuts.jsonl")


def test_selection() -> None:
    rows = [
        Utterance("a", "x", 1.0, "a", split="train", speaker="ann", extra={"text_source": "model", "slot_match": 1.0}),
        Utterance("b", "y", 9.0, "b", split="train", speaker="bob", extra={"text_source": "model", "slot_match": 0.5}),
        Utterance("c", "z", 2.0, "c", split="eval", language="de"),
    ]

    def ids(**wanted: object) -> str:
        return "".join(row.id for row in select(rows, **wanted))  # type: ignore[arg-type]

    assert ids() == "abc"
    assert ids(split="train") == "ab"
    assert ids(language="de") == "c"
    assert ids(speakers=["bob"]) == "b"
    assert ids(human_text=True) == "ac"
    assert ids(longest_s=2.0) == "ac"
    assert ids(where=lambda row: row.text > "x") == "bc"


def test_written_manifests_can_be_read(folder: Path) -> None:
    rows = read_manifest(folder)
    write_manifest(folder / "again.jsonl", rows)
    again = read_manifest(folder / "again.jsonl")
    assert [row.text for row in again] == [row.text for row in rows]
    np.testing.assert_array_equal(again[0].samples(), rows[0].samples())
    with pytest.raises(ManifestError, match="only whole files"):
        write_manifest(folder / "no.jsonl", read_manifest(zipped(folder)))


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ('{"path": "a", "text": "b"}', "manifest.jsonl:1 lacks 'duration'"),
        ('{"path": "a", "text": "b", "duration": 1}\n[]', "manifest.jsonl:2 is not a row"),
        ("no JSON", "manifest.jsonl:1 is not a row"),
    ],
)
def test_bad_rows_are_named(tmp_path: Path, content: str, complaint: str) -> None:
    (tmp_path / "manifest.jsonl").write_text(content)
    with pytest.raises(ManifestError, match=complaint):
        read_manifest(tmp_path)


def test_missing_manifests_are_named(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="no manifest at"):
        read_manifest(tmp_path / "nothing.jsonl")
    with zipfile.ZipFile(tmp_path / "empty.zip", "w"):
        pass
    with pytest.raises(ManifestError, match=r"no manifest\.jsonl inside"):
        read_manifest(tmp_path / "empty.zip")
