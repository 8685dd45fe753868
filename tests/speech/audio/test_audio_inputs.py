"""Pipes, devices and names of every kind: read, or refused with a reason, and never waited for without end."""

import contextlib
import io
import os
import socket
import sys
import threading

import numpy as np
import pytest

from loquent.speech.audio import inputs
from loquent.speech.audio.errors import AudioError
from loquent.speech.audio.files import AudioReader, duration, read_audio, write_audio
from loquent.speech.audio.inputs import open_input, printable
from loquent.speech.audio.sources import file_source

TONE = (0.3 * np.sin(np.arange(48000) / 20)).astype(np.float32)
posix = pytest.mark.skipif(sys.platform == "win32", reason="named pipes and names of bytes are POSIX's")


@contextlib.contextmanager
def written_to(pipe, data: bytes):
    """A program that opens a pipe, writes to it and ends."""

    def write():
        with open(pipe, "wb") as file:
            file.write(data)

    thread = threading.Thread(target=write)
    thread.start()
    yield
    thread.join()


@posix
@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg", "a.mp3"])
def test_a_named_pipe_is_read_like_a_file(tmp_path, name):
    write_audio(tmp_path / name, TONE, 16000)
    os.mkfifo(tmp_path / "pipe")
    with written_to(tmp_path / "pipe", (tmp_path / name).read_bytes()):
        got = read_audio(tmp_path / "pipe")
    np.testing.assert_array_equal(got.samples, read_audio(tmp_path / name).samples)


@posix
def test_a_pipe_that_nobody_writes_to_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(inputs, "PIPE_WAIT_S", 0.1)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(AudioError, match=r"nothing came through the pipe '.*pipe' within 0.1 s; start the program"):
        read_audio(tmp_path / "pipe")


@posix
def test_a_pipe_that_is_closed_without_a_byte_is_empty(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with written_to(tmp_path / "pipe", b""), pytest.raises(AudioError, match="is empty"):
        read_audio(tmp_path / "pipe")


@posix
def test_a_pipe_without_an_end_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(inputs, "PIPE_LIMIT", 50_000)
    os.mkfifo(tmp_path / "pipe")
    with written_to(tmp_path / "pipe", bytes(50_001)), pytest.raises(AudioError, match="more than 50000 bytes"):
        read_audio(tmp_path / "pipe")
    with pytest.raises(AudioError, match="more than 50000 bytes"):
        read_audio(Stream(bytes(60_000)))


class Stream(io.RawIOBase):
    """Bytes that come once, as from a socket."""

    def __init__(self, data: bytes) -> None:
        super().__init__()
        self._data = io.BytesIO(data)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        return self._data.readinto(memoryview(buffer)[:1000])


def test_a_file_object_that_cannot_seek(tmp_path):
    write_audio(tmp_path / "a.flac", TONE, 16000)
    got = read_audio(Stream((tmp_path / "a.flac").read_bytes()))
    np.testing.assert_array_equal(got.samples, read_audio(tmp_path / "a.flac").samples)


@pytest.mark.parametrize("name", ["a.wav", "a.mp3", "a.ogg"])
def test_a_file_object_is_read_from_where_it_stands_and_left_open(tmp_path, name):
    write_audio(tmp_path / name, TONE, 16000)
    data = (tmp_path / name).read_bytes()
    file = io.BytesIO(b"something else" + data)
    file.seek(14)
    np.testing.assert_array_equal(read_audio(file).samples, read_audio(tmp_path / name).samples)
    assert not file.closed


@posix
def test_devices_and_sockets_are_refused(tmp_path):
    for device in ("/dev/zero", "/dev/null"):
        with pytest.raises(AudioError, match=f"'{device}' is a device"):
            read_audio(device)
    path = os.path.relpath(tmp_path / "s")  # the names of sockets are short
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path if len(path) < 100 else str(tmp_path / "s"))
        with pytest.raises(AudioError, match="a socket"):
            read_audio(tmp_path / "s")


@pytest.mark.parametrize("name", ["x" * 5000, "a\0b.wav"])
def test_impossible_names(name):
    with pytest.raises(AudioError, match=r"cannot be read|no such"):
        read_audio(name)


@posix
def test_a_file_that_may_not_be_read(tmp_path):
    write_audio(tmp_path / "a.wav", TONE, 16000)
    (tmp_path / "a.wav").chmod(0)
    if os.access(tmp_path / "a.wav", os.R_OK):
        pytest.skip("root reads everything")
    with pytest.raises(AudioError, match="Permission denied"):
        read_audio(tmp_path / "a.wav")


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg", "a.mp3"])
@pytest.mark.parametrize("stem", ["caf\udce9", "12:30", "日本語", "%d [a] file,x"])
def test_names_of_every_kind(tmp_path, monkeypatch, name, stem):
    if sys.platform == "win32":
        pytest.skip("Windows has no such names")
    monkeypatch.chdir(tmp_path)
    path = stem + name
    write_audio(path, TONE, 16000)
    assert read_audio(path).duration_s == pytest.approx(3, abs=0.1)
    assert read_audio(tmp_path / path).duration_s == pytest.approx(3, abs=0.1)
    assert duration(path) == pytest.approx(3, abs=0.1)
    source = file_source(path)
    source.name.encode()
    with AudioReader(path) as reader:
        reader.name.encode()


@posix
def test_errors_about_any_name_can_be_printed(tmp_path):
    path = os.fsencode(tmp_path) + b"/caf\xe9.mp3"
    with open(path, "wb") as file:
        file.write(b"no sound " * 100)
    for name in (os.fsdecode(path), os.fsdecode(path) + "missing"):
        with pytest.raises(AudioError, match=r"caf\ufffd\.mp3") as raised:
            read_audio(name)
        str(raised.value).encode()
    assert printable("a\udcff") == "a\N{REPLACEMENT CHARACTER}"


def test_nothing_stays_open(tmp_path):
    (tmp_path / "empty.wav").touch()
    with pytest.raises(AudioError, match="is empty"):
        open_input(tmp_path / "empty.wav")
    write_audio(tmp_path / "a.wav", TONE, 16000)
    reader = AudioReader(tmp_path / "a.wav")
    reader.close()
    os.rename(tmp_path / "a.wav", tmp_path / "b.wav")
