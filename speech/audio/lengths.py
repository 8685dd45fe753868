"""Which lengths the header of an audio file states; what programs write that know no length is none."""

from __future__ import annotations

import os
import struct
from typing import NamedTuple

from loquent.speech.audio.parts import Readable, after_id3


class Bytes(NamedTuple):
    """Bytes that a header states, and those of them that are there."""

    stated: int
    there: int


def stated_bytes(file: Readable) -> Bytes:
    """The length in bytes that the header of a WAV, AIFF, AU, CAF, W64, AVI or Matroska file states.

    Decoders pass over a lack. (0, 0) if no length is stated: a size of 2 GiB or more in 32 bits is what programs that
    write to a pipe leave there, as are 0 and all ones; it means "to the end".
    """
    head = file.read(24)
    end = file.seek(0, os.SEEK_END)
    begin, stated = 8, 0
    if head[:4] in (b"RIFF", b"RF64") and head[8:12] == b"WAVE":
        begin, stated = _wave_data(file)
    elif head[:4] == b"RIFF":
        stated = _known(int.from_bytes(head[4:8], "little"))
    elif head[:4] == b"FORM":
        stated = _known(int.from_bytes(head[4:8], "big"))
    elif head[:4] == b".snd":
        begin, size = struct.unpack(">II", head[4:12])
        stated = _known(size)
    elif head[:4] == b"caff":
        begin, stated = _caf_data(file)
    elif head[:4] == b"riff":
        begin, stated = 0, int.from_bytes(head[16:24], "little")
    elif head[:4] == b"\x1aE\xdf\xa3":
        begin, stated = _matroska_segment(file)
    if not 0 < stated < 1 << 55:
        return Bytes(0, 0)
    return Bytes(stated, max(0, min(stated, end - begin)))


def _known(size: int) -> int:
    return size if size < 0x7FFF0000 else 0


def _wave_data(file: Readable) -> tuple[int, int]:
    """Where the samples of a WAV or RF64 file begin, and their bytes."""
    file.seek(12)
    long = 0
    while len(chunk := file.read(8)) == 8:
        name, size = struct.unpack("<4sI", chunk)
        here = file.tell()
        if name == b"ds64":
            long = int.from_bytes(file.read(16)[8:], "little")
        elif name == b"data":
            return here, long if long and size == 0xFFFFFFFF else _known(size)
        file.seek(here + size + size % 2)
    return 0, 0


def _caf_data(file: Readable) -> tuple[int, int]:
    file.seek(8)
    while len(chunk := file.read(12)) == 12:
        name, size = struct.unpack(">4sQ", chunk)
        here = file.tell()
        if name == b"data" or size >= 1 << 55:
            return here, size
        file.seek(here + size)
    return 0, 0


def _matroska_segment(file: Readable) -> tuple[int, int]:
    """Where the content of the segment begins, and its bytes (RFC 8794: all ones, if they are not known)."""
    file.seek(4)
    file.seek(_ebml_size(file), os.SEEK_CUR)
    if file.read(4) != b"\x18S\x80g":
        return 0, 0
    size = _ebml_size(file)
    return file.tell(), size


def _ebml_size(file: Readable) -> int:
    first = file.read(1)
    if not first or not first[0]:
        return 0
    more = 8 - first[0].bit_length()
    size = int.from_bytes(bytes([first[0] & (0x7F >> more)]) + file.read(more), "big")
    return 0 if size == (1 << 7 * (more + 1)) - 1 else size


def mp3_states_its_length(file: Readable) -> bool:
    """Whether an MP3 file begins with a Xing or Info frame that counts the frames of all the file.

    Such a frame also tells the bytes that it counts for. More than these are there when files were joined.
    """
    at = after_id3(file, 0)
    file.seek(at)
    head = file.read(4096)
    first = head.find(b"\xff")
    found = max(head.find(name, first, first + 44) for name in (b"Xing", b"Info"))  # behind the side information
    if first < 0 or found < 0 or len(head) < found + 16:
        return False
    flags, frames, size = struct.unpack(">III", head[found + 4 : found + 16])
    if flags & 3 != 3 or not frames or not size:
        return False
    return _mp3_end(file) - at - first <= size + LONGEST_FRAME


LONGEST_FRAME = 1441  # bytes, at 320 kbit/s


def _mp3_end(file: Readable) -> int:
    """Where the tags at the end of an MP3 file begin: ID3v1, and APEv2 before it."""
    end = file.seek(0, os.SEEK_END)
    file.seek(max(0, end - 128))
    if file.read(3) == b"TAG":
        end -= 128
    file.seek(max(0, end - 32))
    footer = file.read(32)
    if footer[:8] == b"APETAGEX":
        end -= int.from_bytes(footer[12:16], "little") + 32
    return end
