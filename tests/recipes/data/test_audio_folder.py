"""Folders of recordings as people have them, and what is said about those that cannot be used."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from loquent.recipes.data.audio_folder import FolderOptions, read_folder
from loquent.recipes.data.manifest import ManifestError, Utterance
from loquent.speech.audio.files import write_audio

TEXTS = {"a.wav": "one, two", "sub/b.wav": "three", "c.wav": 'say "four"'}


def recordings(folder: Path, names: tuple[str, ...] = tuple(TEXTS)) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_audio(folder / name, np.zeros(8000, np.float32), 8000)
    return folder


def read(folder: Path, **options: str) -> list[Utterance]:
    rows, left_out = read_folder(FolderOptions(str(folder), **options), "en", 30.0)
    assert not left_out
    return rows


CSV = 'file_name,text\na.wav,"one, two"\nsub/b.wav,three\nc.wav,"say ""four"""\n'
JSONL = "".join(json.dumps({"file_name": name, "transcription": text}) + "\n" for name, text in TEXTS.items())


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("metadata.csv", CSV),
        ("metadata.csv", "\ufeff" + CSV.replace("\n", "\r\n")),  # as spreadsheets write it
        ("metadata.csv", CSV.replace(",text", ";text").replace("wav,", "wav;")),
        ("metadata.jsonl", JSONL),
        ("recordings.tsv", 'path\tsentence\na.wav\tone, two\nsub/b.wav\tthree\nc.wav\tsay "four"\n'),
        ("manifest.jsonl", JSONL.replace("file_name", "audio_filepath").replace("transcription", "text")),
    ],
)
def test_lists(tmp_path: Path, name: str, content: str) -> None:
    (recordings(tmp_path) / name).write_text(content, encoding="utf-8", newline="")
    rows = read(tmp_path)
    assert {Path(row.path).relative_to(tmp_path).as_posix(): row.text for row in rows} == TEXTS
    assert {(row.duration, row.language, row.split, row.speaker) for row in rows} == {(1.0, "en", None, None)}
    assert [len(row.samples()) for row in rows] == [16_000] * 3
    assert read(tmp_path / name) == rows


def test_a_folder_for_each_split(tmp_path: Path) -> None:
    for split in ("train", "validation", "test"):
        folder = recordings(tmp_path / split, ("a.wav",))
        (folder / "metadata.csv").write_text("file_name,text\na.wav,one\n")
    rows = read(tmp_path)
    assert [row.split for row in rows] == ["eval", "train", "valid"]
    assert len({row.id for row in rows}) == 3


def test_columns(tmp_path: Path) -> None:
    content = "Take,Said,client_id,split,language\na.wav,one,me,test,de\n"
    (recordings(tmp_path) / "list.csv").write_text(content)
    (row,) = read(tmp_path, file_column="Take", text_column="said")
    assert (row.text, row.speaker, row.split, row.language) == ("one", "me", "eval", "de")
    with pytest.raises(
        ManifestError, match=r"columns Take, Said, .*expected the recordings' names in one of file_name"
    ):
        read(tmp_path)
    with pytest.raises(ManifestError, match=r"expected the texts in words\. Name the column: data\.text_column="):
        read(tmp_path, file_column="Take", text_column="words")


def test_what_cannot_be_used_is_left_out(tmp_path: Path) -> None:
    recordings(tmp_path)
    (tmp_path / "damaged.wav").write_bytes(b"no audio")
    write_audio(tmp_path / "long.wav", np.zeros(80_000, np.float32), 8000)
    lines = ["a.wav,one", "damaged.wav,two", "long.wav,three", "c.wav, … "]
    (tmp_path / "metadata.csv").write_text("\n".join(["file_name,text", *lines]), encoding="utf-8")
    rows, left_out = read_folder(FolderOptions(str(tmp_path)), "en", 9.0)
    assert [Path(row.path).name for row in rows] == ["a.wav"]
    why = {Path(one.path).name: one.why for one in left_out}
    assert list(why) == ["damaged.wav", "long.wav", "c.wav"]
    assert "10.0 s, more than 9.0" in why["long.wav"]
    assert why["c.wav"] == "it has no text"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "metadata.csv",
            "file_name,text\na.wav,one\ngone.wav,two\ngone2.wav,three\n",
            r"gone\.wav is listed.*1 others",
        ),
        ("metadata.csv", "file_name,text\na.wav,one, two\n", "metadata.csv:2 has more columns than the heading"),
        ("metadata.csv", "file_name,text\n,one\n", "metadata.csv:2 names no recording in 'file_name'"),
        ("metadata.csv", "file_name,text,split\na.wav,one,all\n", "of the split 'all'"),
        ("metadata.csv", "", r"has the columns \(none\)"),
        ("metadata.jsonl", "{\n", "metadata.jsonl:1 is not JSON"),
        ("metadata.jsonl", "[]\n", "metadata.jsonl:1 holds a list"),
        ("notes.txt", "", "has no list; expected one metadata.csv"),
    ],
)
def test_errors(tmp_path: Path, name: str, content: str, message: str) -> None:
    (recordings(tmp_path) / name).write_text(content)
    with pytest.raises(ManifestError, match=message):
        read(tmp_path)


def test_a_folder_that_is_not_there_or_has_several_lists(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="there is no folder"):
        read(tmp_path / "nowhere")
    for name in ("x.csv", "y.csv"):
        (tmp_path / name).write_text("file_name,text\n")
    with pytest.raises(ManifestError, match=r"has x\.csv, y\.csv; expected one"):
        read(tmp_path)
    (tmp_path / "z.txt").write_text("")
    with pytest.raises(ManifestError, match="not a list of recordings"):
        read(tmp_path / "z.txt")
    (tmp_path / "x.csv").write_bytes("file_name,text\na,é\n".encode("latin-1"))
    with pytest.raises(ManifestError, match="is not UTF-8"):
        read(tmp_path / "x.csv")
