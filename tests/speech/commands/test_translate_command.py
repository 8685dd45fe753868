"""``loquent translate`` with a model that says what it hears: texts, files, standard input, and what is refused."""

from __future__ import annotations

import contextlib
import io
import os
import threading
import types

import pytest

import loquent.translate
from loquent.speech.commands.cli import main
from loquent.speech.commands.translate import LIVE_OPTIONS
from loquent.speech.commands.translation.models import LATENCIES, TRANSLATION_POLICIES
from loquent.translate.options import Latency, PolicyName, TranslationOptions

SRT = "1\n00:00:01,000 --> 00:00:02,000\nbado fige\n\n2\n00:00:02,100 --> 00:00:03,000\nlomo. Buta\n\n"


@pytest.fixture(autouse=True)
def _model(toy, monkeypatch, tmp_path):
    from loquent.translate.translator import Translator

    translator = Translator(toy.Mirror())
    monkeypatch.setattr(loquent.translate.Translator, "from_pretrained", lambda name, **options: translator)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def stdin(monkeypatch):
    """Function that gives standard input some bytes."""
    with contextlib.ExitStack() as stack:

        def give(*pieces: bytes) -> None:
            reader, writer = os.pipe()
            stack.callback(os.close, reader)
            monkeypatch.setattr("sys.stdin", types.SimpleNamespace(fileno=lambda: reader))

            def write() -> None:
                with os.fdopen(writer, "wb", 0) as file:
                    for piece in pieces:
                        file.write(piece)

            threading.Thread(target=write).start()

        yield give


def test_text_goes_to_stdout_and_nothing_to_stderr(capsys):
    assert main(["translate", "bado", "fige lomo.", "--to", "Spanish"]) == 0
    assert capsys.readouterr() == ("bado fige lomo.\n", "")
    assert main(["translate", "", "--to", "es"]) == 0
    assert capsys.readouterr() == ("\n", "")


@pytest.mark.parametrize("flags", [[], ["--stream"], ["--stream", "--k", "3"]])
def test_standard_input_loses_nothing(stdin, capsys, flags):
    """In the middle of characters, words and lines; the last line has no end."""
    text = "\ufeffbado fige.\r\n\nlomo Łódź buta"
    data = text.encode()
    stdin(*(data[at : at + 7] for at in range(0, len(data), 7)))
    assert main(["translate", "--to", "es", *flags]) == 0
    assert capsys.readouterr() == ("bado fige.\n\nlomo Łódź buta\n", "")


def test_words_are_written_before_the_input_ends(monkeypatch, toy):
    """After each piece, what wait-2 lets out."""
    written, seen = io.StringIO(), []
    pieces = iter(["bado fi", "ge lomo ", "buta ", "gamo"])

    def given(encoding):
        for piece in pieces:
            yield piece
            seen.append(written.getvalue())

    monkeypatch.setattr("loquent.speech.commands.translate.stdin_pieces", given)
    monkeypatch.setattr("sys.stdout", written)
    assert main(["translate", "-", "--to", "es", "--stream", "--policy", "wait-k", "--k", "2"]) == 0
    assert seen == ["", "bado fige", "bado fige lomo", "bado fige lomo"]
    assert written.getvalue() == "bado fige lomo buta gamo\n"


def test_other_encodings_are_told_and_can_be_named(stdin, capsys, tmp_path):
    stdin(b"bado. fige \xe9 lomo")
    assert main(["translate", "--to", "es"]) == 1
    assert capsys.readouterr() == (
        "bado. fige\n",
        "loquent: standard input is not UTF-8: the byte 0xe9 at position 11 is invalid continuation byte; "
        "tell its encoding, such as --encoding cp1252\n",
    )
    stdin("bado é".encode("latin-1"))
    assert main(["translate", "--to", "es", "--encoding", "latin-1"]) == 0
    assert capsys.readouterr().out == "bado é\n"
    (tmp_path / "a.txt").write_bytes("bado é".encode("utf-16"))
    (tmp_path / "b.txt").write_bytes(b"bado \xff")
    assert main(["translate", "a.txt", "b.txt", "--to", "es"]) == 1
    out, error = capsys.readouterr()
    assert out == "==> a.txt <==\nbado é\n"
    assert "b.txt is not UTF-8: the byte 0xff at position 5" in error


def test_captions_keep_their_times(tmp_path, capsys):
    (tmp_path / "talk.srt").write_text(SRT)
    assert main(["translate", "talk.srt", "--to", "es"]) == 0
    assert capsys.readouterr() == (SRT, "")
    assert main(["translate", "talk.srt", "--to", "es", "-O", "talk.vtt"]) == 0
    assert (tmp_path / "talk.vtt").read_text().startswith("WEBVTT\n\n1\n00:00:01.000 --> 00:00:02.000\nbado fige\n")
    assert main(["translate", "talk.srt", "--to", "es", "-O", "talk.txt"]) == 0
    assert (tmp_path / "talk.txt").read_text() == "bado fige\nlomo. Buta\n"


def test_files_get_names_with_the_language(tmp_path, capsys):
    (tmp_path / "below").mkdir()
    (tmp_path / "talk.srt").write_text(SRT)
    (tmp_path / "below" / "talk.srt").write_text(SRT.replace("\n", "\r\n"), newline="")
    (tmp_path / "notes.txt").write_text("  bado.\nfige")
    (tmp_path / "broken.srt").write_text("bado")
    names = ["talk.srt", "below/talk.srt", "notes.txt", "broken.srt", "missing.vtt", "talk.srt"]
    assert main(["translate", *names, "--to", "es", "--output-dir", "out"]) == 1
    assert {path.name: path.read_text() for path in (tmp_path / "out").iterdir()} == {
        "talk.es.srt": SRT,
        "talk-2.es.srt": SRT,
        "notes.es.txt": "  bado.\nfige\n",
    }
    out, error = capsys.readouterr()
    assert out == ""
    assert error.splitlines() == [
        "loquent: missing.vtt: no such file",
        "loquent: broken.srt: line 1 is no SubRip: expected a number and times such as "
        "00:00:01,000 --> 00:00:02,500, got 'bado'",
    ]


def test_ten_thousand_characters_without_a_space(capsys):
    assert main(["translate", "bado " + "x" * 10_000, "--to", "es"]) == 0
    assert capsys.readouterr().out.replace(" ", "") == "bado" + "x" * 10_000 + "\n"


@pytest.mark.parametrize("glossary", ['{"fige": "FICHA"}', "fige\tFICHA\n\n"])
def test_terms(tmp_path, capsys, glossary):
    path = tmp_path / ("g.json" if glossary.startswith("{") else "g.tsv")
    path.write_text(glossary)
    assert main(["translate", "bado fige.", "--to", "es", "--glossary", str(path), "--keep", "bado"]) == 0
    assert "FICHA" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "status", "reason"),
    [
        (["bado"], 2, "--to says which language to translate to"),
        (
            ["bado", "--to", "fr"],
            2,
            "translates English to French; there are loquent/en-es (English to Spanish), loquent/en-de (",
        ),
        (
            ["bado", "--from", "de", "--model", "x"],
            2,
            "'x' translates from English (en) to Spanish (es), not from German",
        ),
        (["bado", "--to", "de", "--model", "x"], 2, "not to German (de)"),
        (["gone.srt", "--to", "es"], 1, "gone.srt: no such file"),
        (["bado", "-", "--to", "es"], 2, "'-' is standard input, which is translated alone"),
        (["bado", "a.txt", "--to", "es"], 2, "'bado' is no file, and 'a.txt' is one"),
        (["bado", "--to", "es", "--k", "2"], 2, "--k needs --stream"),
        (["bado", "--to", "es", "--stream", "--votes", "2"], 2, "--votes: expected a share"),
        (["a.srt", "--to", "es", "--stream"], 2, "--stream is for texts"),
        (["a.srt", "--to", "es", "-O", "a.srt"], 2, "--output-file a.srt is what is to be translated"),
        (["bado", "--to", "es", "-O", "b.srt"], 2, "a text has no times for captions"),
        (["bado", "--to", "es", "-o", "out"], 2, "--output-dir is for files"),
        (["a.txt", "b.txt", "--to", "es", "-O", "c.txt"], 2, "--output-file takes one of the 2 files"),
        (["a.srt", "b.srt", "--to", "es"], 2, "captions of 2 files do not fit one stream"),
        (
            ["bado", "--to", "es", "--glossary", "a.txt"],
            1,
            "a.txt, line 1: expected phrase, tab, translation, got 'bado'",
        ),
        (["bado", "--to", "es", "--glossary", "c.json"], 1, "expected a text for 'a', got 1"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(argv, status, reason, capsys, tmp_path):
    for name, text in {"a.txt": "bado", "b.txt": "", "a.srt": SRT, "b.srt": SRT, "c.json": '{"a": 1}'}.items():
        (tmp_path / name).write_text(text)
    assert main(["translate", *argv]) == status
    out, error = capsys.readouterr()
    assert out == ""
    assert reason in error
    assert error.count("\n") == 1


def test_flags_are_those_of_the_options():
    assert PolicyName.__args__ == TRANSLATION_POLICIES
    assert Latency.__args__ == LATENCIES
    others = {"beam_size", "drafts", "glossary", "keep"}
    assert {*LIVE_OPTIONS, *others} == set(TranslationOptions.__dataclass_fields__)
